"""When, the ``bound`` newest times, ascending: all that "at least n within D" can ask for."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Any

from profiles.aggregates import Aggregate


def add(state: list[int] | None, at_ms: int, value: Any, bound: int) -> list[int]:
    """Keep the time if it is among the newest."""
    if state is None:
        return [at_ms]
    if at_ms >= state[-1]:
        state.append(at_ms)
    else:
        insort(state, at_ms)
    if len(state) > bound:
        del state[0]
    return state


def merge(a: list[int], b: list[int], bound: int) -> list[int]:
    """The newest of both."""
    return sorted(a + b)[-bound:]


SPEC = Aggregate("occurrences", "The newest times.", add, merge)


def kept_by(leaves: Callable[[int], int], name: str) -> Aggregate:
    """The same, of the times that leave a window last, in that order: where the calendar lets an older one leave later.

    Args:
        leaves: time -> when it leaves.
        name: of this statistic; equal names, equal ``leaves``.
    """

    def place(at_ms: int) -> tuple[int, int]:
        return leaves(at_ms), at_ms

    def add_by(state: list[int] | None, at_ms: int, value: Any, bound: int) -> list[int]:
        if state is None:
            return [at_ms]
        insort(state, at_ms, key=place)
        if len(state) > bound:
            del state[0]
        return state

    def merge_by(a: list[int], b: list[int], bound: int) -> list[int]:
        return sorted(a + b, key=place)[-bound:]

    return Aggregate(name, SPEC.says, add_by, merge_by)
