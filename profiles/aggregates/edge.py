"""The first (``bound`` 0) or last (``bound`` 1) value, with its time.

Of two at one instant the lesser (greater) value stands, so that any order of arrival ends alike.
"""

from __future__ import annotations

from typing import Any

from profiles.aggregates import Aggregate


def add(state: list[Any] | None, at_ms: int, value: Any, bound: int) -> list[Any]:
    """Keep whichever is further out."""
    return [at_ms, value] if state is None else merge(state, [at_ms, value], bound)


def merge(a: list[Any], b: list[Any], bound: int) -> list[Any]:
    """The outermost of both."""
    later = (b[0], str(b[1]), type(b[1]).__name__) > (a[0], str(a[1]), type(a[1]).__name__)
    return b if later == bool(bound) else a


SPEC = Aggregate("edge", "The first or the last value, with its time.", add, merge)
