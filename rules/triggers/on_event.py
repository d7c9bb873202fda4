"""``on: {event: product_added, where: […]}``: enter when it happens; ``nth: [1, 3]``: the first and the third time only.

What is counted for ``nth`` are different orders where events name one (``order_id``), else events; each number is
reached once in a life.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.aggregates import latest
from profiles.catalogue import BACK_IN_STOCK, PRICE_DROPPED, PRODUCT_ARRIVED
from profiles.money import price_text
from profiles.state import Profile
from profiles.wire import Event
from rules.documents import Node
from rules.interest import compile_interest
from rules.predicates import Predicate, conditions
from rules.program import Chance, Entry, TriggerSpec
from rules.spec import Scope
from rules.words import Tongue

NTH_MAX: Final = 100
NEWS: Final = (PRICE_DROPPED, BACK_IN_STOCK, PRODUCT_ARRIVED)


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    named, nth, join = node.get("event"), node.get("nth"), node.get("join")
    assert named is not None
    types = scope.event_types(named)
    where, canonical = conditions(node.get("where"), types, currency=scope.currency)

    if join is not None:
        return _joined(join, types, where, scope)

    def enter(profile: Profile, event: Event) -> Chance | None:
        if where is not None and not where(event.props):
            return None
        return Chance(event.message_id, {"node": f"event {event.type}", "value": event.message_id})

    if nth is None:
        return Entry(types=types, event=enter)
    numbers = [one.integer(least=1, most=NTH_MAX, default=1) for one in nth]

    def ids(event: Event) -> list[Any]:
        if where is not None and not where(event.props):
            return []
        return [event.props.get("order_id") or event.message_id]

    agg = scope.aggregate(latest.SPEC, types, f"nth|{','.join(types)}|{canonical}", ids, max(numbers, default=1) + 1)

    def enter_nth(profile: Profile, event: Event) -> Chance | None:
        if where is not None and not where(event.props):
            return None
        number = len(profile.aggs.get(agg) or ())
        if number not in numbers:
            return None
        because = {"node": f"event {event.type}, number {number}", "value": event.message_id}
        return Chance(event.message_id, because, {"nth": number}, number)

    return Entry(types=types, event=enter_nth)


def _joined(join: Node, types: tuple[str, ...], where: Predicate | None, scope: Scope) -> Entry:
    """News of a product, for whom it interests."""
    interest, currency = compile_interest(join, scope), scope.currency
    if not set(types) <= set(NEWS):
        join.wrong(f"with one of {', '.join(NEWS)} only, got {', '.join(types)}")

    def enter(profile: Profile, event: Event) -> Chance | None:
        props = event.props
        product = props["items"][0]["product_id"]
        reasons = interest.reasons(profile, event.received_ms).get(product)
        if reasons is None or (where is not None and not where(props)):
            return None
        news = {name: props[name] for name in ("old", "new") if name in props}
        if event.type == PRICE_DROPPED:
            news = {name: price_text(e6, currency) if type(e6) is int else e6 for name, e6 in news.items()}
        because = {"node": f"{event.type} of a product in {' and '.join(reasons)}", "value": product}
        return Chance(event.message_id, because, {"news": {"product_id": product, **news}})

    return Entry(types=types, event=enter, interest=interest)


def _words(on: dict[str, Any], t: Tongue) -> str:
    where = t.pick(" where ", " где ") + t.conditions(on["where"]) if "where" in on else ""
    if "join" in on:
        asked = on["join"].get("profiles", {}).get("any", []) if isinstance(on["join"], dict) else []
        said = {"wishlist": t.pick("the wish list", "избранном"), "cart": t.pick("the cart", "корзине"),
                "viewed": t.pick("what was often viewed", "часто просмотренном")}  # fmt: skip
        places = t.pick(" or ", " или ").join(said[name] for one in asked for name in said if name in one)
        where += t.pick(f" of a product in {places}", f" товара в {places}")
    nth = t.pick(f" (number {t.value(on['nth'])})", f" (по счёту {t.value(on['nth'])})") if "nth" in on else ""
    return t.pick(f"{t.events(on['event'])} happens", f"происходит {t.events(on['event'])}") + where + nth


SPEC = TriggerSpec(
    "event",
    "When an event happens; with `nth`, when it happens for the first, second … time. With `join`, news of a product (`price_dropped`, `back_in_stock`, `product_arrived`"
    ", made by the engine of `product_updated`) for whom it interests: `{profiles: {any: [{wishlist: $product}, {cart: $product}, {viewed: $product, gte: 3}]}}`.",
    ("where", "nth", "join"),
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: order_completed, nth: [1, 3]}, steps: [{emit: "order_{nth}"}]}
        0d  ana  order_completed order_id=1 total=10
        0d  ana  order_completed order_id=1 total=12      # the same order once more
        1d  ana  order_completed order_id=2 total=10
        1d  ana  expect emits it/order_1 1, emits it 1
        2d  ana  order_completed order_id=3 total=10
        2d  ana  expect emits it/order_3 1, emits it 2
        """,
        """
        trigger it = {on: {event: price_dropped, join: {profiles: {any: [{wishlist: $product}, {cart: $product}]}}}, key: product_id, steps: [{emit: cheaper}]}
        0d  shop product_updated product=mug price=10
        0d  ana  product_added_to_wishlist product=mug
        0d  bob  product_viewed product=mug
        1d  shop product_updated product=mug price=8
        1d  ana  expect emits it 1
        1d  bob  expect emits it 0
        """,
    ),
)
