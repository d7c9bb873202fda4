"""``on: {replenishment: {min_samples: 2, lead: P5D}}``: enter shortly before a product that somebody buys again runs out.

Personal rhythm: all pieces but the last purchase's lasted from the first purchase to the last, so one piece lasts
(last - first) / pieces, and the last purchase lasts that long for each of its pieces. The reminder comes ``lead`` before
that, but not before half of it has passed. One occasion for each purchase.

``scope: category`` asks so of categories: a bag of food, whichever; ``[product, category]`` of those of whose products none
has a rhythm of its own.
"""

from __future__ import annotations

from typing import Any, Final

from profiles import orders
from profiles.moments import DAY_MS, Duration, iso
from profiles.state import ORDERS, Profile
from rules.documents import Node
from rules.program import Chance, Entry, TriggerSpec
from rules.spec import Scope
from rules.words import Tongue

PRODUCT: Final = "product"
CATEGORY: Final = "category"
SCOPES: Final = (PRODUCT, CATEGORY)


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    spec = node.get("replenishment")
    assert spec is not None
    spec.known(("min_samples", "lead", "category", "scope"))
    samples_node, lead_node, category_node = spec.get("min_samples"), spec.get("lead"), spec.get("category")
    samples = samples_node.integer(least=2, most=100, default=2) if samples_node is not None else 2
    lead = lead_node.duration() if lead_node is not None else Duration(days=5)
    category = category_node.text() if category_node is not None else ""
    scopes = [one.choice(SCOPES) for one in spec.get("scope") or ()] or [PRODUCT]
    zone = scope.zone

    kept = ("replenishment", trigger)

    def timers(profile: Profile) -> dict[str, tuple[int, Chance]]:
        # A fold over the order book, asked for at every timer that fires: a wholesaler has hundreds of products.
        found: dict[str, tuple[int, Chance]] | None = profile.folds.get(kept)
        if found is None:
            found = profile.folds[kept] = worked_out(profile)
        return found

    def worked_out(profile: Profile) -> dict[str, tuple[int, Chance]]:
        found: dict[str, tuple[int, Chance]] = {}
        steady: set[str] = set()
        if PRODUCT in scopes:
            for (product, under), purchases in _purchases(profile, category, by_product=True).items():
                if estimate(product, purchases, found):
                    steady.add(under)
        if CATEGORY in scopes:
            for (_, under), purchases in _purchases(profile, category, by_product=False).items():
                if under and under not in steady:
                    estimate(under, purchases, found)
        return found

    def estimate(what: str, purchases: list[tuple[int, int]], found: dict[str, tuple[int, Chance]]) -> bool:
        """When what was bought at these times runs out; whether that can be told."""
        if len(purchases) < samples:
            return False
        first_ms, (last_ms, last_pieces) = purchases[0][0], purchases[-1]
        pieces = sum(quantity for _, quantity in purchases[:-1])
        lasts_ms = (last_ms - first_ms) * last_pieces // pieces
        if lasts_ms < DAY_MS:
            return False  # Bought several times within a day: that tells no rhythm.
        run_out_ms = last_ms + lasts_ms
        due_ms = max(lead.before(run_out_ms, zone), last_ms + lasts_ms // 2)
        because: dict[str, Any] = {
            "node": f"{what} runs out",
            "value": iso(run_out_ms),
            "source": "personal",
            "purchases": len(purchases),
            "days_per_piece": round((last_ms - first_ms) / pieces / DAY_MS, 1),
        }
        found[what] = (
            due_ms,
            Chance(f"out:{what}:{last_ms}", because, {"run_out": iso(run_out_ms), "key": what}),
        )
        return True

    return Entry(timers=timers, reads=frozenset({("part", ORDERS)}), stays=True)


def _purchases(profile: Profile, category: str, *, by_product: bool) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """(product or "", category) -> (time, pieces) of each purchase, ascending; lines of one instant are one purchase."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    under: dict[str, str] = {}
    for counted in orders.fold(profile, currency=""):
        for line in counted.lines:
            if category and not (line.category == category or line.category.startswith(category + "/")):
                continue
            # A product that was moved to another category is the same product.
            key = (
                (line.product_id, under.setdefault(line.product_id, line.category))
                if by_product
                else ("", line.category)
            )
            known = found.setdefault(key, [])
            if known and known[-1][0] == counted.at_ms:
                known[-1] = (counted.at_ms, known[-1][1] + line.quantity)
            else:
                known.append((counted.at_ms, line.quantity))
    return found


def _words(on: dict[str, Any], t: Tongue) -> str:
    asked = on["replenishment"] if isinstance(on["replenishment"], dict) else {}
    lead = t.duration(asked["lead"]) if "lead" in asked else ""
    if "category" in (asked.get("scope") or ()):
        return t.pick(
            "goods of a kind that is bought again and again run out", "кончаются товары, какие покупают снова и снова"
        ) + (t.pick(f", {lead} before", f", за {lead} до этого") if lead else "")
    early = t.pick(f", {lead} before", f", за {lead} до этого") if lead else ""
    return t.pick("what is bought again and again runs out", "кончается то, что покупают снова и снова") + early


SPEC = TriggerSpec(
    "replenishment",
    "Shortly before what somebody buys again and again runs out; `scope: category` asks so of categories, `[product, category]` of those of whose products none has a rhythm.",
    (),
    _compile,
    _words,
    (
        """
        trigger it = {on: {replenishment: {lead: P5D}}, steps: [{emit: {template: soon, payload: {item: $key}}}]}
        0d   ana  order_completed order_id=1 product=cream price=10
        30d  ana  order_completed order_id=2 product=cream price=10
        54d  ana  expect emits it 0
        55d  ana  expect emits it 1
        """,
        """
        trigger it = {on: {replenishment: {lead: P5D, scope: category, category: pets/food}}, steps: [{emit: {template: food, payload: {category: $key, pet: {any_item: pets}}}}]}
        0d   ana  order_completed order_id=1 product=fish category=pets/food price=10
        30d  ana  order_completed order_id=2 product=beef category=pets/food price=10
        55d  ana  expect emits it 1
        """,
    ),
)
