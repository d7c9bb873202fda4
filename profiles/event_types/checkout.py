"""The way from the cart to the order."""

from __future__ import annotations

from profiles.changes import nothing
from profiles.payloads import Id, Text, ValuedPayload, named
from profiles.spec import EventType, Example
from profiles.wire import CART_EVENTS


class Checkout(ValuedPayload):
    """What is about to be bought, as far as it is sent."""

    order_id: Id | None = named("order_id", "orderId", "transaction_id")
    step: Text = None
    coupon: Text = named("coupon", "coupon_code")
    shipping_method: Text = named("shipping_method", "shipping_tier")
    payment_method: Text = named("payment_method", "payment_type")


def _type(name: str, says: str, alias: str, *more: str) -> EventType:
    return EventType(
        name=name,
        topic=CART_EVENTS,
        says=says,
        payload=Checkout,
        change=nothing,
        aliases=(alias, *more),
        activity=True,
        examples=(
            Example(
                raw={"order_id": 7, "step": 2, "currency": "EUR", "value": 10, "products": [{"product_id": "a"}]},
                props={
                    "order_id": "7",
                    "step": "2",
                    "currency": "EUR",
                    "value_minor": 1_000,
                    "items": [{"product_id": "a", "quantity": 1}],
                },
            ),
        ),
    )


SPEC = (
    _type("checkout_started", "checkout was begun", "begin_checkout", "started checkout", "checkouts_create"),
    _type("checkout_step_completed", "a step of checkout was done", "add_shipping_info", "checkout step viewed"),
    _type("payment_info_entered", "the means of payment was given", "add_payment_info"),
)
