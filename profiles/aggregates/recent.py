"""The ``bound`` products seen last, newest first, with what was said of them: for what a message shows."""

from __future__ import annotations

from typing import Any

from profiles.aggregates import Aggregate

_SAID = ("name", "price_e6", "url", "image_url", "category")


def add(state: list[list[Any]] | None, at_ms: int, value: dict[str, Any], bound: int) -> list[list[Any]]:
    """Take one item in: ``[at_ms, product_id, said]``."""
    product = value["product_id"]
    entry = [at_ms, product, {name: said for name in _SAID if (said := value.get(name))}]
    if state is None or at_ms > state[0][0]:
        return [entry, *(one for one in state or () if one[1] != product)][:bound]
    return merge(state, [entry], bound)


def merge(a: list[list[Any]], b: list[list[Any]], bound: int) -> list[list[Any]]:
    """The newest different products of both."""
    newest: dict[str, list[Any]] = {}
    for entry in a + b:
        known = newest.get(entry[1])
        if known is None or (entry[0], str(entry[2])) > (known[0], str(known[2])):
            newest[entry[1]] = entry
    return sorted(newest.values(), key=lambda entry: (-entry[0], entry[1]))[:bound]


SPEC = Aggregate("recent", "The products seen last.", add, merge)
