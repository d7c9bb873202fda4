"""A verdict is an answer together with how long it stays true.

    Verdict(holds=True, until_ms=1_700_000_600_000)

says: this holds now, and time alone cannot change it before ``until_ms`` (exclusive).
``FOREVER``: only an event can. A verdict may promise less than it could, never more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from profiles.moments import FOREVER
from profiles.state import Profile


class Verdict(NamedTuple):
    """An answer, and the instant before which time alone cannot change it, for who reads it by name."""

    holds: bool
    until_ms: int = FOREVER


Answer = tuple[bool, int]
"""A verdict as judges give it: a plain pair, for a named one takes five times as long to make."""

Judge = Callable[[Profile, int], Answer]
"""(profile, now_ms) -> verdict. ``now_ms`` is never before what the profile has seen."""

YES: Final = (True, FOREVER)
NO: Final = (False, FOREVER)


def always(holds: bool) -> Answer:
    """An answer that only an event can change."""
    return YES if holds else NO


def negated(judge: Judge) -> Judge:
    """The contrary, for as long."""

    def judge_not(profile: Profile, now_ms: int) -> Answer:
        holds, until_ms = judge(profile, now_ms)
        return not holds, until_ms

    return judge_not


def at_least(least: int, answers: Iterable[Answer]) -> Answer:
    """Whether so many of these hold. It lasts until so many have turned that the rest decides otherwise: those that turn
    first."""
    ends: tuple[list[int], list[int]] = ([], [])
    for holds, until_ms in answers:
        ends[holds].append(until_ms)
    there = len(ends[True])
    if there >= least:
        return True, sorted(ends[True])[there - least]
    return False, sorted(ends[False])[least - there - 1]


def all_of(judges: tuple[Judge, ...]) -> Judge:
    """Every one holds. One that fails keeps the whole failing for as long as it fails itself."""
    if len(judges) == 1:
        return judges[0]

    def judge_all(profile: Profile, now_ms: int) -> Answer:
        until_ms = FOREVER
        for judge in judges:
            verdict = judge(profile, now_ms)
            if not verdict[0]:
                return verdict
            if verdict[1] < until_ms:
                until_ms = verdict[1]
        return True, until_ms

    return judge_all


def any_of(judges: tuple[Judge, ...]) -> Judge:
    """At least one holds. One that holds keeps the whole holding for as long as it holds itself."""
    if len(judges) == 1:
        return judges[0]

    def judge_any(profile: Profile, now_ms: int) -> Answer:
        until_ms = FOREVER
        for judge in judges:
            verdict = judge(profile, now_ms)
            if verdict[0]:
                return verdict
            if verdict[1] < until_ms:
                until_ms = verdict[1]
        return False, until_ms

    return judge_any
