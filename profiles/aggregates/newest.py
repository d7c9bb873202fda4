"""What happened last, the ``bound`` newest, newest first: how often one value stands among them."""

from __future__ import annotations

from typing import Any

from profiles.aggregates import Aggregate


def add(state: list[list[Any]] | None, at_ms: int, value: Any, bound: int) -> list[list[Any]]:
    """Take one in: ``[at_ms, value]``."""
    entry = [at_ms, value]
    if state is None or at_ms > state[0][0]:
        return [entry, *(state or ())][:bound]
    return merge(state, [entry], bound)


def merge(a: list[list[Any]], b: list[list[Any]], bound: int) -> list[list[Any]]:
    """The newest of both."""
    return sorted(a + b, key=lambda entry: (-entry[0], repr(entry[1])))[:bound]


SPEC = Aggregate("newest", "What happened last.", add, merge)
