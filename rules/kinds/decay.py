"""``decay``: interests that fade: what was looked at, put into the cart and bought, by category or brand.

A score is the sum of the weights, each halved for every half-life since its event; what rules see is its whole part, so
it falls to the next whole number at an instant that is known beforehand, and nothing need be looked at in between.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final

from profiles.aggregates import weighed
from profiles.moments import FOREVER
from profiles.state import Profile
from profiles.wire import Event
from rules.documents import Node
from rules.spec import UNREADABLE, Read, Reader, Reads, Scope, TraitExample, TraitKind

KEPT: Final = 150
"""So many of the newest events count, of all values together."""

_FIELDS: Final = ("category", "brand", "product_id")
_WEIGHT_MAX: Final = 1_000


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    spec.known(("events", "by", "depth", "half_life"), required=("events", "by", "half_life"))
    events, by, depth_node, fade = (spec.get(key) for key in ("events", "by", "depth", "half_life"))
    if events is None or by is None or fade is None:
        return {f"{name}.top": UNREADABLE}
    weights: dict[str, int] = {}
    for named, one in events.items():
        for event_type in scope.event_types(one.made(named)):
            weights[event_type] = one.integer(least=1, most=_WEIGHT_MAX, default=1)
    field = by.text().removeprefix("item.")
    if field not in _FIELDS or field == by.text():
        by.wrong(f"one of {', '.join(f'item.{one}' for one in _FIELDS)} wanted, got {by.found()}")
    depth = depth_node.integer(least=1, most=10, default=1) if depth_node is not None else 0
    if depth and field != "category":
        by.wrong("depth: goes with item.category only")
    half_life_ms = fade.duration().about_ms()

    def values(event: Event) -> list[Any]:
        weight = weights[event.type]
        found: dict[str, None] = {}
        for item in event.props.get("items") or ():
            word = item.get(field)
            if isinstance(word, str):
                found["/".join(word.split("/")[:depth]) if depth else word] = None
        return [[word, weight] for word in found]  # Two things of one category are one act.

    key = f"{sorted(weights.items())}|{field}|{depth}"
    agg = scope.aggregate(weighed.SPEC, tuple(sorted(weights)), key, values, KEPT)
    reads: Reads = frozenset({("aggregate", agg)})

    with_below = field == "category" and depth != 1

    def entries(profile: Profile, word: str) -> list[tuple[int, int]]:
        kept = profile.aggs.get(agg) or ()
        if not with_below:
            return [(at_ms, weight) for at_ms, one, weight in kept if one == word]
        below = f"{word}/"
        acts = Counter((at_ms, weight, one) for at_ms, one, weight in kept if one == word or one.startswith(below))
        # What was done at one instant with several things of a category is one act with it.
        most: dict[tuple[int, int], int] = {}
        for (at_ms, weight, _), times in acts.items():
            most[at_ms, weight] = max(times, most.get((at_ms, weight), 0))
        return [act for act, times in sorted(most.items()) for _ in range(times)]

    def score(found: list[tuple[int, int]], now_ms: int) -> float:
        return math.fsum(weight * 2.0 ** ((at_ms - now_ms) / half_life_ms) for at_ms, weight in found)

    def part(word: str) -> Reader:
        def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
            found = entries(profile, word)
            whole = int(score(found, now_ms))
            if not whole:
                return 0, FOREVER
            # It falls as one: by log2(score / whole) half-lives it is the whole number, and just below it falls to the next.
            until_ms = now_ms + int(half_life_ms * math.log2(score(found, now_ms) / whole)) + 1
            while until_ms > now_ms + 1 and score(found, until_ms - 1) < whole:
                until_ms -= 1
            while score(found, until_ms) >= whole:
                until_ms += 1
            return whole, until_ms

        return Reader(read, "number", reads)

    def top(profile: Profile, now_ms: int) -> tuple[Any, int]:
        by_word: dict[str, list[tuple[int, int]]] = {}
        for at_ms, word, weight in profile.aggs.get(agg) or ():
            by_word.setdefault(word, []).append((at_ms, weight))
        if not by_word:
            return None, FOREVER
        last_ms = max(found[-1][0] for found in by_word.values())
        # All fade alike, so which is the greatest does not change with time; of equal ones the newer, then the name.
        return min(by_word, key=lambda one: (-score(by_word[one], last_ms), -by_word[one][-1][0], one)), FOREVER

    scope.family(name, part)
    top_reader: Read = top
    return {f"{name}.top": Reader(top_reader, "text", reads)}


SPEC = TraitKind(
    "decay",
    "Interests that fade: `NAME.value` is the whole part of the sum of weights by event type, each halved every `half_life`; `NAME.top`"
    f" is the greatest. `by` is `item.category` (a category is with all below it; with `depth: 1` its root), `item.brand` or `item.product_id`. The newest {KEPT}"
    " acts count; an act with several things of one category is one. What was taken back later counts all the same.",
    (),
    _compile,
    examples=(
        TraitExample(
            "{decay: {events: {product_viewed: 1, order_completed: 10}, by: item.category, depth: 1, half_life: P30D}}",
            """
            segment vinyl = {trait: it.vinyl, gte: 5}
            0d   ana  product_viewed product=a category=vinyl/jazz
            0d   ana  order_completed order_id=1 total=9 product=a price=9 category=vinyl/jazz
            0d   ana  product_viewed product=b category=books
            0d   ana  expect trait it.vinyl 11, trait it.top vinyl, in vinyl
            30d  ana  expect trait it.vinyl 5, in vinyl
            35d  ana  expect trait it.vinyl 4, out vinyl
            """,
        ),
        TraitExample(
            "{decay: {events: {product_viewed: 2}, by: item.category, half_life: P30D}}",
            """
            segment vinyl = {trait: it.vinyl, gte: 4}
            0d  ana  product_viewed product=a category=vinyl/jazz
            0d  ana  expect trait it.vinyl 2, trait it.top vinyl/jazz, out vinyl
            0d  ana  product_viewed product=b category=vinyls
            1h  ana  product_viewed product=b category=vinyl
            2h  ana  product_viewed product=b category=vinyl/rock
            2h  ana  expect trait it.vinyl 5, in vinyl
            """,
        ),
    ),
)
