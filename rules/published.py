"""Traits that a rule file publishes: each change of one goes out on ``trait_changes``.

    traits:
      check: {tiers: avg_check, cuts: [50, 200], labels: [low, middle, high], publish: true}

A profile keeps the value that was told last (beside its statistics, under a short id), so a change is told once, against
what was told before, and the profile of an address that is left or erased tells that it is gone. What time alone changes is
told at its instant: a timer of the trait's own. A trait is looked at when something that it reads has changed, after the
segments and journeys of that input: of several changes within it the last is told. A profile that lived before its trait was
published tells nothing at its first look.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Final

from profiles.moments import FOREVER
from profiles.state import Profile
from profiles.wire import Record
from rules import records
from rules.spec import PublishedTrait, plain, shown

TIMER: Final = "trait:"


def looked_at(
    profile: Profile,
    traits: Iterable[PublishedTrait],
    currency: str,
    now_ms: int,
    cause: tuple[str, str],
    *,
    brought_by: str,
    is_new: bool,
    is_told: bool,
) -> list[Record]:
    """Look at these traits: set their timers, and keep what they are now.

    Args:
        currency: the shop's.
        brought_by: the address whose profile came here, if that is the cause.
        is_new: nothing was told of this address, so that what it has is a change.
        is_told: whether changes go out; what history brings does not (R14).
    Returns:
        The changes to be told.
    """
    aggs, timers = profile.aggs, profile.timers
    found = []
    for one in traits:
        value, until_ms = one.reader.read(profile, now_ms)
        value = plain(value)
        if until_ms < FOREVER:
            timers[TIMER + one.name] = until_ms
        else:
            timers.pop(TIMER + one.name, None)
        before = aggs.get(one.id)
        if before is not None and before[0] == value:
            continue
        aggs[one.id] = [value]
        if is_told and (before is not None or (is_new and value is not None)):
            was = _as_read(one, before[0], currency) if before is not None else None
            found.append(
                records.trait_change(profile, one.name, was, _as_read(one, value, currency), now_ms, cause, brought_by)
            )
    return found


def left(
    profile: Profile,
    traits: tuple[PublishedTrait, ...],
    currency: str,
    now_ms: int,
    cause: tuple[str, str],
    *,
    says_before: bool = True,
) -> list[Record]:
    """What was told of this address holds no more: nobody lives here now. ``says_before``: not of an erased person."""
    found = []
    for one in traits:
        told = profile.aggs.get(one.id)
        if told is not None and told[0] is not None:
            was = _as_read(one, told[0], currency) if says_before else None
            found.append(records.trait_change(profile, one.name, was, None, now_ms, cause))
    return found


def told(profile: Profile, traits: tuple[PublishedTrait, ...]) -> dict[int, Any]:
    """What was told of an address, to be kept when another profile comes to live there."""
    return {one.id: profile.aggs[one.id] for one in traits if one.id in profile.aggs}


def retell(profile: Profile, traits: tuple[PublishedTrait, ...], before: dict[int, Any]) -> None:
    """Let a profile that came to an address know what was told there, and not what was told where it comes from."""
    for one in traits:
        profile.aggs.pop(one.id, None)
        if one.id in before:
            profile.aggs[one.id] = before[one.id]


def _as_read(one: PublishedTrait, value: Any, currency: str) -> Any:
    if isinstance(value, float):
        value = Fraction(value).limit_denominator(1_000_000)
    return plain(shown(value, one.reader.kind, currency))
