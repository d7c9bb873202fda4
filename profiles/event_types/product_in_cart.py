"""A product went into the cart, or out of it."""

from __future__ import annotations

from profiles import carts
from profiles.payloads import ProductPayload, SomeItems, named
from profiles.spec import EventType, Example
from profiles.wire import CART_EVENTS


class ProductRemoved(ProductPayload):
    """``quantity`` stays absent where none was sent: then the whole line was taken out."""

    items: SomeItems | None = named("items", "products", "lines", "line_items")


SPEC = (
    EventType(
        name="product_added",
        topic=CART_EVENTS,
        says="a product was put into the cart",
        payload=ProductPayload,
        change=carts.added,
        aliases=("add_to_cart", "added to cart", "AddToCart", "product added to cart"),
        activity=True,
        examples=(
            Example(
                raw={"cart_id": "c1", "product_id": 42, "quantity": "2", "price": "19.90", "currency": "RUB"},
                props={
                    "cart_id": "c1",
                    "currency": "RUB",
                    "items": [{"product_id": "42", "quantity": 2, "price_e6": 19_900_000}],
                },
            ),
            Example(
                raw={"items": [{"item_id": "a", "quantity": 1}, {"item_id": "b", "index": 1}]},
                props={"items": [{"product_id": "a", "quantity": 1}, {"product_id": "b", "quantity": 1, "index": 1}]},
            ),
        ),
    ),
    EventType(
        name="product_removed",
        topic=CART_EVENTS,
        says="a product was taken out of the cart: so many pieces, or without a quantity all of it",
        payload=ProductRemoved,
        change=carts.removed,
        aliases=("remove_from_cart", "removed from cart", "RemoveFromCart", "product removed from cart"),
        activity=True,
        examples=(
            Example(raw={"product_id": "a", "quantity": 1}, props={"items": [{"product_id": "a", "quantity": 1}]}),
            Example(raw={"product_id": "a"}, props={"items": [{"product_id": "a"}]}),
        ),
    ),
)
