"""``top_k``: what a customer buys most, the favourite first; with a half-life, lately.

Fading changes no order by itself: all weights fade alike. So a list once made holds until an order comes, is taken
back, or leaves the window.
"""

from __future__ import annotations

import math
from typing import Any, Final

from profiles.state import Profile
from rules.documents import Node
from rules.series import of_book, order_entries, source_of, windowed
from rules.spec import UNREADABLE, Reader, Scope, TraitExample, TraitKind

_FIELDS: Final = ("product_id", "category", "brand")
_K_MAX: Final = 50


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    spec.known(("of", "k", "half_life"), required=("of", "k"))
    of, k_node, fade = spec.get("of"), spec.get("k"), spec.get("half_life")
    k = k_node.integer(least=1, most=_K_MAX, default=1) if k_node is not None else 1
    half_life_ms = fade.duration().about_ms() if fade is not None else 0
    what = of.text() if of is not None else ""
    field = what.removeprefix("order.item.")
    if of is None or field == what or field not in _FIELDS:
        if of is not None:
            of.wrong(f"one of {', '.join(f'order.item.{one}' for one in _FIELDS)} wanted, got {what!r}")
        return {name: UNREADABLE}
    source = source_of(spec.made("order"), node, scope)
    entries = order_entries(source, field, "")

    def timed(profile: Profile) -> list[tuple[int, Any]]:
        return [(at_ms, (at_ms, value)) for at_ms, value in entries(profile) if value]

    look = windowed(timed, source.window)

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        found, until_ms = look(profile, now_ms)
        if not found:
            return None, until_ms
        last_ms = found[-1][0]
        weights: dict[str, list[float]] = {}
        newest: dict[str, int] = {}
        for at_ms, value in found:
            weights.setdefault(value, []).append(2.0 ** ((at_ms - last_ms) / half_life_ms) if half_life_ms else 1.0)
            newest[value] = at_ms
        # Of equal ones the later bought comes first, then the name decides.
        ranked = sorted(weights, key=lambda one: (-math.fsum(weights[one]), -newest[one], one))
        return ranked[:k], until_ms

    return {name: of_book(read, "any", source.window)}


SPEC = TraitKind(
    "top_k",
    "The k values that stand on most lines of orders, the commonest first: of `order.item.product_id`, `.category` or `.brand`."
    " `half_life` lets older lines count less. Ask with `contains`.",
    ("item", "where", "window", "status_in"),
    _compile,
    examples=(
        TraitExample(
            "{top_k: {of: order.item.product_id, k: 2}}",
            """
            0d  ana  order_completed order_id=1 total=9 product=tea price=4 product=cup price=5
            1d  ana  order_completed order_id=2 total=4 product=tea price=4
            2d  ana  order_completed order_id=3 total=2 product=jam price=2
            2d  ana  expect trait it tea|jam
            3d  ana  order_completed order_id=4 total=5 product=cup price=5
            3d  ana  expect trait it cup|tea
            """,
        ),
        TraitExample(
            "{top_k: {of: order.item.product_id, k: 1, half_life: P30D}}",
            """
            0d    ana  order_completed order_id=1 total=4 product=tea price=4
            1d    ana  order_completed order_id=2 total=4 product=tea price=4
            1d    ana  expect trait it tea
            90d   ana  order_completed order_id=3 total=5 product=cup price=5
            90d   ana  expect trait it cup
            """,
        ),
    ),
)
