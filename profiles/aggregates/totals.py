"""Count, sum, smallest and greatest of a number, ever. Numbers are integers (minor units, or millionths)."""

from __future__ import annotations

from profiles.aggregates import Aggregate


def add(state: list[int] | None, at_ms: int, value: int, bound: int) -> list[int]:
    """Take one number in."""
    if state is None:
        return [1, value, value, value]
    count, total, least, most = state
    return [count + 1, total + value, min(least, value), max(most, value)]


def merge(a: list[int], b: list[int], bound: int) -> list[int]:
    """Both together."""
    return [a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])]


SPEC = Aggregate("totals", "Count, sum, least and most of a number, ever.", add, merge)
