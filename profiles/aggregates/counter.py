"""How often, ever."""

from __future__ import annotations

from typing import Any

from profiles.aggregates import Aggregate


def add(state: int | None, at_ms: int, value: Any, bound: int) -> int:
    """One more."""
    return (state or 0) + 1


def merge(a: int, b: int, bound: int) -> int:
    """Both counts together."""
    return a + b


SPEC = Aggregate("counter", "How often, ever.", add, merge)
