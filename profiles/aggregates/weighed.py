"""The ``bound`` newest entries of [time, word, weight], ascending: for scores that fade, each entry at its own pace of time."""

from __future__ import annotations

from bisect import insort
from typing import Any

from profiles.aggregates import Aggregate


def add(state: list[list[Any]] | None, at_ms: int, value: list[Any], bound: int) -> list[list[Any]]:
    """Take in a word with its weight, both of the kind that compares."""
    entry = [at_ms, *value]
    if state is None:
        return [entry]
    insort(state, entry)
    if len(state) > bound:
        del state[0]
    return state


def merge(a: list[list[Any]], b: list[list[Any]], bound: int) -> list[list[Any]]:
    """The newest of both."""
    return sorted(a + b)[-bound:]


SPEC = Aggregate("weighed", "The newest words, each with its time and weight.", add, merge)
