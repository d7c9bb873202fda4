"""``rfm``: recency, frequency and monetary value, scored by fixed thresholds, or by the quantiles of the base."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from profiles.moments import FOREVER
from profiles.money import to_minor
from profiles.state import FACTS, Profile
from rules.documents import Node
from rules.facts import Fact
from rules.series import of_book, order_entries, source_of, windowed
from rules.spec import PUBLISH, UNREADABLE, Read, Reader, Scope, TraitExample, TraitKind
from rules.windows import sliding

RFM_PARTS: Final = ("r", "f", "m", "cell")
_USUAL: Final = {"recency": {"last": "order.time"}, "frequency": {"count": "order"}, "monetary": {"sum": "order.total"}}


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    """Recency, frequency, monetary value of the orders in a window, scored 1 to n + 1 by n fixed thresholds each.

    ``recency``: ages, shortest first: the best score is for an order younger than the first.
    ``frequency``, ``monetary``: the lowest number for each score above 1. ``cell`` is the three digits.
    """
    by = spec.get("by")
    if by.choice(("thresholds", "quantile")) == "quantile" if by is not None else _names_traits(spec):
        return _by_quantile(name, spec, scope)
    spec.known(
        ("recency", "frequency", "monetary", "window", "status_in", "by"), required=("recency", "frequency", "monetary")
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


def _names_traits(spec: Node) -> bool:
    """``{recency: last_order_at, frequency: orders_paid, monetary: revenue, scale: 5}``: by the quantiles of these."""
    counts = spec.get("frequency")
    return spec.get("scale") is not None or (counts is not None and isinstance(counts.value, str))


def _by_quantile(name: str, spec: Node, scope: Scope) -> dict[str, Reader]:
    """Each of the three scored from 1 to ``scale`` by how many of the base's quantiles it is beyond, by the last facts."""
    spec.known(("by", "scale", *_USUAL, "window", "status_in"))
    scale_node = spec.get("scale")
    scale = scale_node.integer(least=2, most=10, default=5) if scale_node is not None else 5
    shares = tuple(Fraction(place, scale) for place in range(1, scale))
    measures = [_measure(part, spec, scope) for part in _USUAL]
    facts = [f"rfm:{name}.{part}" for part in RFM_PARTS[:3]]

    def measured(profile: Profile, now_ms: int) -> tuple[list[Any] | None, int]:
        found = [measure.read(profile, now_ms) for measure in measures]
        values = [value for value, _ in found]
        return (None if None in values else values), min(until_ms for _, until_ms in found)

    def sampled(place: int) -> Callable[[Profile, int], list[tuple[str, Any]]]:
        def sample(profile: Profile, now_ms: int) -> list[tuple[str, Any]]:
            values, _ = measured(profile, now_ms)
            if values is None:
                return []
            return [("", values[place] if place else now_ms - values[0])]

        return sample

    for place, fact in enumerate(facts):
        scope.fact(Fact(fact, sampled(place), shares))

    def score(place: int) -> Read:
        fact = facts[place]

        def read(profile: Profile, now_ms: int) -> tuple[int | None, int]:
            values, until_ms = measured(profile, now_ms)
            if values is None or profile.facts is None or not profile.facts.samples(fact):
                return None, until_ms
            cuts = [profile.facts.quantile(fact, share) for share in shares]
            if place:
                return 1 + sum(values[place] > cut for cut in cuts), until_ms
            ages = [values[0] + int(cut) for cut in cuts]  # Until when an order so long ago is younger than the cut.
            edges = [edge_ms for edge_ms in ages if edge_ms > now_ms]
            return 1 + len(edges), min([until_ms, *edges])

        return read

    reads = [score(place) for place in range(3)]

    def cell(profile: Profile, now_ms: int) -> tuple[Any, int]:
        scores = [read(profile, now_ms) for read in reads]
        until_ms = min(until_ms for _, until_ms in scores)
        if scores[0][0] is None:
            return None, until_ms
        return int("".join(str(one) for one, _ in scores)), until_ms

    looked_at = frozenset({("part", FACTS)}).union(*(measure.reads for measure in measures))
    parts = zip(RFM_PARTS, (*reads, cell), strict=True)
    return {f"{name}.{part}": Reader(read, "number", looked_at) for part, read in parts}


def _measure(part: str, spec: Node, scope: Scope) -> Reader:
    """What is scored: a trait that is named, narrowed to the window of all three; else what is usual."""
    named = spec.get(part)
    more = {key: one for key in ("window", "status_in") if (one := spec.get(key)) is not None}
    if named is not None and not more:
        measure = scope.reader(named.text(), named)
    else:
        usual = spec.made({kind: spec.made(of) for kind, of in _USUAL[part].items()})
        declared = scope.declaration(named.text(), named) if named is not None else usual
        of = {key: one for key, one in declared.items() if key != PUBLISH}
        if named is not None and "window" in more and "window" in of:
            named.wrong(f"{part}: a trait without a window of its own wanted, or no window here")
        measure = scope.worked_out((named or spec).made({**more, **of}))
    kinds = ("time",) if part == "recency" else ("number", "money", "span")
    if measure is not UNREADABLE and measure.kind not in kinds:
        (named or spec).wrong(f"{part}: a trait that is a {kinds[0]} wanted, got a {measure.kind}")
        return UNREADABLE
    return measure


SPEC = TraitKind(
    "rfm",
    "Scores from 1 to n + 1 by n fixed thresholds each: `recency` ages shortest first (the best score is for an order younger than"
    " the first), `frequency` and `monetary` the least number for each score above 1; none where no order is in the window."
    " `.r`, `.f`, `.m`, and `.cell`, the three digits."
    " `by: quantile`, perhaps with `scale: 5`: a score is one more than the quantiles that it is beyond, by the last facts; the younger the better."
    " `recency`, `frequency` and `monetary` may name traits instead, which are then scored by quantiles, each within the `window`.",
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
        TraitExample(
            "{rfm: {by: quantile, scale: 2, window: {within: P1Y}}}",
            """
            0d   ana  order_completed order_id=1 total=60
            8d   bob  order_completed order_id=2 total=10
            9d   bob  order_completed order_id=3 total=10
            9d   ana  expect trait it.cell none
            10d  base facts
            10d  ana  expect trait it.r 1, trait it.f 1, trait it.m 2
            10d  bob  expect trait it.r 1, trait it.f 2, trait it.cell 121
            11d  ana  order_completed order_id=4 total=1
            11d  ana  expect trait it.cell 222
            """,
        ),
        TraitExample(
            "{rfm: {recency: last_order_at, frequency: orders_paid, monetary: earned, window: P1Y, scale: 2}}",
            """
            trait earned = {sum: order.margin}
            0d    ana  order_completed order_id=1 total=60 margin=1
            8d    bob  order_completed order_id=2 total=10 margin=2
            9d    bob  order_completed order_id=3 total=10 margin=2
            10d   base facts
            10d   ana  expect trait it.cell 111
            10d   bob  expect trait it.cell 122
            365d  ana  expect trait it.cell none
            """,
        ),
    ),
)
