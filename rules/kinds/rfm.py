"""``rfm``: recency, frequency and monetary value, scored by fixed thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from profiles.moments import FOREVER
from profiles.money import to_minor
from profiles.state import Profile
from rules.documents import Node
from rules.series import of_book, order_entries, source_of, windowed
from rules.spec import Reader, Scope, TraitExample, TraitKind
from rules.windows import sliding

RFM_PARTS: Final = ("r", "f", "m", "cell")


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    """Recency, frequency, monetary value of the orders in a window, scored 1 to n + 1 by n fixed thresholds each.

    ``recency``: ages, shortest first: the best score is for an order younger than the first.
    ``frequency``, ``monetary``: the lowest number for each score above 1. ``cell`` is the three digits.
    """
    spec.known(
        ("recency", "frequency", "monetary", "window", "status_in"), required=("recency", "frequency", "monetary")
    )
    order_node = spec.made("order")
    source = source_of(order_node, spec, scope)
    window = sliding(source.window, spec)
    zone = scope.zone
    ages_node, counts_node, amounts_node = spec.get("recency"), spec.get("frequency"), spec.get("monetary")
    ages = [one.duration() for one in ages_node] if ages_node is not None else []
    counts = [one.number() for one in counts_node] if counts_node is not None else []
    amounts = [to_minor(one.number(), scope.currency) for one in amounts_node] if amounts_node is not None else []
    lengths = [age.about_ms() for age in ages]
    if ages_node is not None and lengths != sorted(lengths):
        ages_node.wrong("recency: ages in ascending order wanted")
    if counts_node is not None and counts != sorted(counts):
        counts_node.wrong("frequency: numbers in ascending order wanted")
    if amounts_node is not None and amounts != sorted(amounts):
        amounts_node.wrong("monetary: numbers in ascending order wanted")
    look = windowed(order_entries(source, "", scope.currency), window)
    stamped = order_entries(source, "", scope.currency)

    def recency(profile: Profile, now_ms: int) -> tuple[int | None, int]:
        entries = stamped(profile)
        values, until_ms = look(profile, now_ms)
        if not values:
            return None, FOREVER
        last_ms = entries[-1][0]
        for lower, age in enumerate(ages):
            edge_ms = age.after(last_ms, zone)
            if now_ms < edge_ms:
                return len(ages) + 1 - lower, min(edge_ms, until_ms)
        return 1, until_ms

    def score(limits: list[Any], measure: Callable[[list[Any]], Any]) -> Callable[[Profile, int], tuple[Any, int]]:
        def read(profile: Profile, now_ms: int) -> tuple[int | None, int]:
            values, until_ms = look(profile, now_ms)
            if not values:
                return None, FOREVER
            value = measure(values)
            return 1 + sum(1 for limit in limits if value >= limit), until_ms

        return read

    frequency, monetary = score(counts, len), score(amounts, sum)

    def cell(profile: Profile, now_ms: int) -> tuple[Any, int]:
        scores = [read(profile, now_ms) for read in (recency, frequency, monetary)]
        if scores[0][0] is None:
            return None, FOREVER
        return int("".join(str(one) for one, _ in scores)), min(until_ms for _, until_ms in scores)

    reads = dict(zip(RFM_PARTS, (recency, frequency, monetary, cell), strict=True))
    return {f"{name}.{part}": of_book(read, "number") for part, read in reads.items()}


SPEC = TraitKind(
    "rfm",
    "Scores from 1 to n + 1 by n fixed thresholds each: `recency` ages shortest first (the best score is for an order younger than"
    " the first), `frequency` and `monetary` the least number for each score above 1; none where no order is in the window."
    " `.r`, `.f`, `.m`, and `.cell`, the three digits.",
    (),
    _compile,
    examples=(
        TraitExample(
            "{rfm: {recency: [P30D, P60D], frequency: [2, 5], monetary: [50, 400], window: {within: P1Y}}}",
            """
            0d    ana  order_completed order_id=1 total=60
            0d    ana  expect trait it.r 3, trait it.f 1, trait it.m 2, trait it.cell 312
            30d   ana  expect trait it.cell 212
            31d   ana  order_completed order_id=2 total=340
            31d   ana  expect trait it.cell 323
            400d  ana  expect trait it.cell none
            """,
        ),
    ),
)
