"""``tiers``: a number as one of a few words, by cuts; with ``hysteresis`` who moved up does not flap.

A tier begins at its cut. With a hysteresis of 0.05 it is left again 5 % below it: then each cut is a segment of its own,
``NAME.from_LABEL``, whose membership remembers on which side somebody came.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from profiles.ids import small_id
from profiles.moments import FOREVER
from profiles.money import exponent, to_minor
from profiles.state import FACTS, Profile
from rules.documents import Node
from rules.spec import UNREADABLE, Reader, Reads, Scope, TraitExample, TraitKind

_CUTS_MAX: Final = 20


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    path = spec.text()
    of = scope.reader(path, spec)
    if of is not UNREADABLE and of.kind not in ("number", "money", "span"):
        spec.wrong(f"tiers: a trait that is a number wanted (`said: int` declares one), got {path!r}")
    cuts_node, labels_node, back = node.get("cuts"), node.get("labels"), node.get("hysteresis")
    by = node.get("by")
    if by is not None:
        by.choice(("cuts", "quantile"))
    for key, one in (("cuts", cuts_node), ("labels", labels_node)):
        if one is None:
            node.wrong(f"{key!r} is missing")
    if cuts_node is None or labels_node is None:
        return {name: UNREADABLE}
    cuts, labels = [one.number() for one in cuts_node], labels_node.texts()
    if cuts != sorted(set(cuts)) or len(cuts) > _CUTS_MAX:
        cuts_node.wrong(f"at most {_CUTS_MAX} numbers in ascending order wanted")
    if len(labels) != len(cuts) + 1:
        labels_node.wrong(f"one label more than cuts wanted, got {len(labels)} for {len(cuts)} cuts")
        return {name: UNREADABLE}
    band = back.number() if back is not None else Decimal(0)
    if not 0 <= band < 1:
        assert back is not None
        back.wrong(f"hysteresis: a share from 0 to less than 1 wanted, got {back.found()}")
    if by is not None and by.value == "quantile":
        if cuts and not 0 < cuts[0] <= cuts[-1] < 1:
            cuts_node.wrong(f"cuts by quantile: shares between 0 and 1 wanted, got {cuts_node.found()}")
        return {name: _by_quantile(name, path, of, cuts, labels, band, node, scope)}
    if band:
        return {
            name: _remembered(name, path, of, list(zip(cuts, labels[1:], strict=True)), labels[0], band, node, scope)
        }
    limits = [to_minor(cut, scope.currency) if of.kind == "money" else cut for cut in cuts]

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        value, until_ms = of.read(profile, now_ms)
        if value is None:
            return None, until_ms
        return labels[sum(value >= limit for limit in limits)], until_ms

    return {name: Reader(read, "text", of.reads)}


def _by_quantile(
    name: str,
    path: str,
    of: Reader,
    cuts: list[Decimal],
    labels: list[str],
    band: Decimal,
    node: Node,
    scope: Scope,
) -> Reader:
    """Each cut is a segment: above that quantile of the base, by the last facts. Before there are any, no tier is known."""
    held: list[tuple[int, str]] = []
    reads: Reads = of.reads | {("part", FACTS)}
    for cut, label in zip(cuts, labels[1:], strict=True):

        def rule(ranked: dict[str, Node]) -> Node:
            return node.made({"trait": node.made(path), "quantile": node.made(ranked)})

        above = rule({"gt": node.made(cut)})
        if band:
            back = rule({"gt": node.made(cut), "less": node.made(band)})
            above = node.made({"when": above, "stays_while": back})
        segment = scope.made_segment(f"{name}.from_{label}", above, node)
        held.append((small_id(segment), label))
        reads |= {("segment", segment)}

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        value, until_ms = of.read(profile, now_ms)
        if value is None or profile.facts is None:
            return None, until_ms
        reached = [label for segment, label in held if segment in profile.members]
        return reached[-1] if reached else labels[0], FOREVER

    return Reader(read, "text", reads)


def _remembered(
    name: str,
    path: str,
    of: Reader,
    cuts: list[tuple[Decimal, str]],
    lowest: str,
    band: Decimal,
    node: Node,
    scope: Scope,
) -> Reader:
    held: list[tuple[int, str]] = []
    reads: Reads = of.reads
    places = Decimal(1).scaleb(-exponent(scope.currency)) if of.kind == "money" else None
    for cut, label in cuts:
        least = cut - abs(cut) * band
        if places is not None:
            least = least.quantize(places)

        def rule(limit: Decimal) -> Node:
            return node.made({"trait": node.made(path), "gte": node.made(limit)})

        segment = scope.made_segment(
            f"{name}.from_{label}", node.made({"when": rule(cut), "stays_while": rule(least)}), node
        )
        held.append((small_id(segment), label))
        reads |= {("segment", segment)}

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        value, until_ms = of.read(profile, now_ms)
        if value is None:
            return None, until_ms
        reached = [label for segment, label in held if segment in profile.members]
        return reached[-1] if reached else lowest, FOREVER

    return Reader(read, "text", reads)


SPEC = TraitKind(
    "tiers",
    "A trait that is a number as one of `labels`, by ascending `cuts` (amounts in the shop's currency): a tier begins at its cut."
    " With `hysteresis: 0.05` it is left only 5 % below its cut; each cut is then a segment too, `NAME.from_LABEL`."
    " `by: quantile`: cuts are shares of the base, by the last facts: above `0.66` is who has more than what two thirds do not exceed.",
    ("by", "cuts", "labels", "hysteresis"),
    _compile,
    examples=(
        TraitExample(
            "{tiers: orders_paid, cuts: [2, 4], labels: [new, known, loyal]}",
            """
            0d  ana  page_viewed
            0d  ana  expect trait it new
            1d  ana  order_completed order_id=1 total=10
            2d  ana  order_completed order_id=2 total=10
            2d  ana  expect trait it known
            """,
        ),
        TraitExample(
            "{tiers: cart.total, cuts: [100], labels: [small, large], hysteresis: 0.1}",
            """
            0h  ana  product_added product=a price=95
            0h  ana  expect trait it small
            1h  ana  product_added product=b price=5
            1h  ana  expect trait it large, in it.from_large
            2h  ana  product_removed product=b
            2h  ana  expect trait it large
            3h  ana  product_removed product=a
            3h  ana  product_added product=c price=89.99
            3h  ana  expect trait it small, out it.from_large
            """,
        ),
        TraitExample(
            "{tiers: revenue, by: quantile, cuts: [0.33, 0.66], labels: [low, middle, high], hysteresis: 0.1}",
            """
            trait revenue = {sum: order.total}
            0d  bob  order_completed order_id=1 total=10
            0d  cat  order_completed order_id=2 total=20
            0d  ana  order_completed order_id=3 total=30
            0d  ana  expect trait it none
            1d  base facts
            1d  ana  expect trait it high, in it.from_high
            1d  cat  expect trait it middle
            1d  bob  expect trait it low
            2d  ana  order_refunded order_id=3 amount=11
            2d  ana  expect trait it high
            3d  ana  order_refunded order_id=3 amount=5 refund_id=again
            3d  ana  expect trait it middle
            """,
        ),
    ),
)
