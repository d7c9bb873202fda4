"""The whole cart at once: seen by the customer, or sent by a platform that reports states."""

from __future__ import annotations

from profiles import carts
from profiles.payloads import Items, ValuedPayload, named
from profiles.spec import EventType, Example
from profiles.wire import CART_EVENTS


class CartSet(ValuedPayload):
    """``items`` is the cart as it is now; an empty list says that it was emptied."""

    items: Items = named("items", "products", "lines", "line_items", required=True)


_RAW = {
    "currency": "EUR",
    "items": [{"product_id": "a", "quantity": 2, "price": 5}, {"product_id": "b", "quantity": 0}],
}
_PROPS = {"currency": "EUR", "items": [{"product_id": "a", "quantity": 2, "price_e6": 5_000_000}]}

SPEC = (
    EventType(
        name="cart_viewed",
        topic=CART_EVENTS,
        says="the cart was looked at; with items, also what is in it",
        payload=ValuedPayload,
        change=carts.viewed,
        aliases=("view_cart", "viewed cart"),
        activity=True,
        examples=(Example(raw={"cart_id": "c1"}, props={"cart_id": "c1"}), Example(raw=_RAW, props=_PROPS)),
    ),
    EventType(
        name="cart_set",
        topic=CART_EVENTS,
        says="the whole cart as the shop knows it",
        payload=CartSet,
        change=carts.replaced,
        aliases=("SetCart", "Website.SetCart", "cart updated", "carts_update"),
        activity=True,
        examples=(Example(raw=_RAW, props=_PROPS), Example(raw={"items": []}, props={"items": []})),
    ),
)
