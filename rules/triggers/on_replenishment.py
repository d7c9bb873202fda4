"""``on: {replenishment: {min_samples: 2, lead: P5D}}``: enter shortly before a product that somebody buys again runs out.

How long it lasts is told by the first source that knows: the customer's own purchases, if there are ``min_samples``; everybody's
(``product_median``, by the last facts); what the shop says of a piece times the pieces (``catalogue``). Each is drawn towards the next
(``rules/rhythm.py``). With ``stock_carry`` pieces last, not purchases, and what was left of earlier ones lasts on.

The reminder comes ``lead`` before it runs out, but not before half of that time has passed. One occasion for each purchase.

``scope: category`` asks so of categories: a bag of food, whichever; ``[product, category]`` of those of whose products none
has an estimate of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final, NamedTuple

from profiles import orders
from profiles.moments import DAY_MS, HOUR_MS, Duration, iso
from profiles.state import FACTS, ORDERS, Profile
from rules.documents import Node
from rules.facts import Fact
from rules.program import Chance, Entry, TriggerSpec
from rules.rhythm import USUAL_DAYS, Estimate, everybodys, left, own
from rules.spec import Reads, Scope
from rules.words import Tongue

PRODUCT: Final = "product"
CATEGORY: Final = "category"
SCOPES: Final = (PRODUCT, CATEGORY)

PERSONAL: Final = "personal"
MEDIAN: Final = "product_median"
CATALOGUE: Final = "catalogue"
SOURCES: Final = (PERSONAL, MEDIAN, CATALOGUE)

THINGS_MAX: Final = 50
"""Of so many things a customer is reminded, those that he bought last: each has an alarm."""

_QUARTILES: Final = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))

Timers = dict[str, tuple[int, Chance]]


class _Bought(NamedTuple):
    """One purchase. ``said_days``: how long all of it lasts, by the shop; 0: it does not say."""

    at_ms: int
    pieces: int
    said_days: float


@dataclass(frozen=True, slots=True)
class _Asked:
    trigger: str
    samples: int
    lead: Duration
    category: str
    scopes: tuple[str, ...]
    sources: tuple[str, ...]
    carries: bool
    scope: Scope

    def timers(self, profile: Profile) -> Timers:
        # A fold over the order book, asked for at every timer that fires: a wholesaler has hundreds of products.
        kept = ("replenishment", self.trigger)
        found: Timers | None = profile.folds.get(kept)
        if found is None:
            found = profile.folds[kept] = self._worked_out(profile)
        return found

    def _worked_out(self, profile: Profile) -> Timers:
        found: Timers = {}
        known: set[str] = set()
        if PRODUCT in self.scopes:
            for (product, under), bought in _newest(_purchases(profile, self.category, by_product=True)):
                if self._estimate(profile, PRODUCT, product, bought, found):
                    known.add(under)
        if CATEGORY in self.scopes:
            for (_, under), bought in _newest(_purchases(profile, self.category, by_product=False)):
                if under and under not in known:
                    self._estimate(profile, CATEGORY, under, bought, found)
        return found

    def _estimate(self, profile: Profile, scope: str, what: str, bought: list[_Bought], found: Timers) -> bool:
        """When what was bought at these times runs out; whether that can be told."""
        if len(bought) < self.samples and self.sources == (PERSONAL,):
            return False
        last = bought[-1]
        told = self._lasts(profile, scope, what, bought)
        if told is None:
            return False
        (days, trust), source = told
        because: dict[str, Any] = {
            "node": f"{what} runs out",
            "source": source,
            "purchases": len(bought),
            "days": round(days, 1),
            "confidence": round(trust, 2),
        }
        if self.carries:
            stock = left([(one.at_ms / DAY_MS, one.pieces) for one in bought], days)
            because["pieces"], because["left"] = last.pieces, round(stock, 1)
            days *= stock + last.pieces
        lasts_ms = round(days * DAY_MS / HOUR_MS) * HOUR_MS
        if lasts_ms < DAY_MS:
            return False
        run_out_ms = last.at_ms + lasts_ms
        because["value"] = iso(run_out_ms)
        due_ms = max(self.lead.before(run_out_ms, self.scope.zone), last.at_ms + lasts_ms // 2)
        context = {"run_out": iso(run_out_ms), "key": what}
        found[what] = (due_ms, Chance(f"out:{what}:{last.at_ms}", because, context, since_ms=last.at_ms))
        return True

    def _lasts(self, profile: Profile, scope: str, what: str, bought: list[_Bought]) -> tuple[Estimate, str] | None:
        """How long a purchase lasts, or with ``stock_carry`` a piece, and by which source."""
        last = bought[-1]
        gaps = _gaps(bought, self.carries)
        usual, is_said = USUAL_DAYS, CATALOGUE in self.sources and last.said_days > 0
        if is_said:
            usual = last.said_days
        if self.carries:
            usual /= last.pieces
        said = Estimate(usual, 0.0)
        by_all = None
        if MEDIAN in self.sources and profile.facts is not None:
            fact = _fact_name(scope, self.carries)
            quartiles = [profile.facts.quantile(fact, share, what) for share in _QUARTILES]
            if all(quartiles):
                by_all = everybodys([float(one) for one in quartiles], profile.facts.samples(fact, what), usual)
        if PERSONAL in self.sources and gaps and len(bought) >= self.samples:
            return own(gaps, (by_all or said).days), PERSONAL
        if by_all is not None:
            return by_all, MEDIAN
        return (said, CATALOGUE) if is_said else None


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    spec = node.get("replenishment")
    assert spec is not None
    spec.known(("min_samples", "lead", "category", "scope", "source", "stock_carry"))
    samples_node, lead_node, category_node = spec.get("min_samples"), spec.get("lead"), spec.get("category")
    carry_node = spec.get("stock_carry")
    asked = _Asked(
        trigger,
        samples_node.integer(least=2, most=100, default=2) if samples_node is not None else 2,
        lead_node.duration() if lead_node is not None else Duration(days=5),
        category_node.text() if category_node is not None else "",
        tuple(one.choice(SCOPES) for one in spec.get("scope") or ()) or (PRODUCT,),
        tuple(one.choice(SOURCES) for one in spec.get("source") or ()) or (PERSONAL,),
        carry_node is not None and carry_node.truth(),
        scope,
    )
    reads: Reads = frozenset({("part", ORDERS)})
    if CATALOGUE in asked.sources:
        scope.keep_of_lines((orders.CONSUMPTION,))
    if MEDIAN in asked.sources:
        reads |= {("part", FACTS)}
        for one in asked.scopes:
            scope.fact(_fact(one, asked.carries))
    return Entry(timers=asked.timers, reads=reads, stays=True)


def _fact_name(scope: str, carries: bool) -> str:
    return f"{'piece' if carries else 'purchase'}_days:{scope}"


def _fact(scope: str, carries: bool) -> Fact:
    """Every time between two purchases of the same thing, in days."""

    def sample(profile: Profile, now_ms: int) -> Iterable[tuple[str, int | Fraction]]:
        for (product, under), bought in _purchases(profile, "", by_product=scope == PRODUCT).items():
            for gap in _gaps(bought, carries):
                yield product or under, Fraction(gap)

    return Fact(_fact_name(scope, carries), sample, _QUARTILES, is_keyed=True)


def _gaps(bought: list[_Bought], carries: bool) -> list[float]:
    """Days from each purchase to the next; with ``carries`` for each piece."""
    return [(after.at_ms - one.at_ms) / DAY_MS / (one.pieces if carries else 1) for one, after in pairwise(bought)]


def _newest(purchases: dict[tuple[str, str], list[_Bought]]) -> list[tuple[tuple[str, str], list[_Bought]]]:
    return sorted(purchases.items(), key=lambda one: (-one[1][-1].at_ms, one[0]))[:THINGS_MAX]


def _purchases(profile: Profile, category: str, *, by_product: bool) -> dict[tuple[str, str], list[_Bought]]:
    """(product or "", category) -> its purchases, ascending. What is bought within a day of one belongs to it: that tells no
    rhythm."""
    found: dict[tuple[str, str], list[_Bought]] = {}
    under: dict[str, str] = {}
    for counted in orders.fold(profile, currency=""):
        at_ms = counted.at_ms
        said = dict(counted.facts.get(orders.CONSUMPTION, ()))
        for product, kind, _, quantity, *_ in counted.lines:
            if quantity < 1 or (category and not (kind + "/").startswith(category + "/")):
                continue
            # A product that was moved to another category is the same product.
            key = (product, under.setdefault(product, kind)) if by_product else ("", kind)
            days = said[product] * quantity if product in said else 0
            known = found.get(key)
            if known is None:
                found[key] = [_Bought(at_ms, quantity, days)]
            elif at_ms >= known[-1].at_ms + DAY_MS:
                known.append(_Bought(at_ms, quantity, days))
            else:
                before = known[-1]
                all_said = before.said_days + days if before.said_days and days else 0
                known[-1] = _Bought(before.at_ms, before.pieces + quantity, all_said)
    return found


def _words(on: dict[str, Any], t: Tongue) -> str:
    asked = on["replenishment"] if isinstance(on["replenishment"], dict) else {}
    lead = t.duration(asked["lead"]) if "lead" in asked else ""
    sources = asked.get("source") or (PERSONAL,)
    others = [one for one in SOURCES[1:] if one in sources]
    what = (
        t.pick(
            "goods of a kind that is bought again and again run out", "кончаются товары, какие покупают снова и снова"
        )
        if CATEGORY in (asked.get("scope") or ())
        else t.pick("what is bought again and again runs out", "кончается то, что покупают снова и снова")
    )
    early = t.pick(f", {lead} before", f", за {lead} до этого") if lead else ""
    told = {
        MEDIAN: t.pick("how long it lasts others", "на сколько его хватает другим"),
        CATALOGUE: t.pick("what the shop says of a piece", "что магазин говорит о штуке"),
    }
    by = t.pick(" or ", " или ").join(told[one] for one in others)
    known = t.pick(f" (else by {by})", f" (иначе по тому, {by})") if by else ""
    stock = t.pick(", counting what was left", ", считая остаток") if asked.get("stock_carry") else ""
    return what + early + known + stock


SPEC = TriggerSpec(
    "replenishment",
    "Shortly before what somebody buys again and again runs out; `scope: category` asks so of categories, `[product, category]` of those of whose products none has an"
    " estimate. `source`: `personal` (his own purchases, the default), `product_median` (everybody's), `catalogue` (`consumption_days` of a piece); the first that knows, in this order."
    " `stock_carry: true`: pieces last, and what was left of earlier ones lasts on.",
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
        """
        # The shop says that a piece lasts ten days; two were bought while one was left.
        trigger it = {on: {replenishment: {lead: P5D, source: catalogue, stock_carry: true}}, steps: [{emit: {template: soon, payload: {item: $key}}}]}
        0d   ana  order_completed order_id=1 product=cream consumption_days=10 price=10 qty=2
        10d  ana  order_completed order_id=2 product=cream consumption_days=10 price=10 qty=2
        34d  ana  expect emits it 0
        35d  ana  expect emits it 1
        """,
    ),
)
