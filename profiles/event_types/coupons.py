"""What happens to coupons: in the cart, and over their life."""

from __future__ import annotations

from profiles.changes import nothing
from profiles.payloads import Id, Instant, Payload, Text, named
from profiles.spec import EventType, Example
from profiles.wire import CART_EVENTS, CUSTOMER_EVENTS, ORDER_EVENTS


class Coupon(Payload):
    """A coupon by its code; ``expires_ms`` is when it lapses."""

    code: Id = named("code", "coupon", "coupon_code", "coupon_id", required=True)
    name: Text = named("name", "coupon_name")
    offer: Text = named("offer", "offer_id")
    offer_level: Text = None
    order_id: Id | None = named("order_id", "orderId", "transaction_id")
    cart_id: Id | None = named("cart_id", "cartId")
    reason: Text = None
    expires_ms: Instant = named("expires_ms", "expires", "expires_at")


_EXAMPLE = (
    Example(
        raw={"coupon_id": "A1", "order_id": 5, "expires": "2026-12-01T00:00:00Z"},
        props={"code": "A1", "order_id": "5", "expires_ms": 1_796_083_200_000},
    ),
)

SPEC = tuple(
    EventType(
        name=name,
        topic=topic,
        says=says,
        payload=Coupon,
        change=nothing,
        aliases=aliases,
        activity=topic == CART_EVENTS,
        examples=_EXAMPLE,
    )
    for name, topic, says, aliases in (
        ("coupon_entered", CART_EVENTS, "a code was typed in", ()),
        ("coupon_applied", CART_EVENTS, "a code was accepted", ("promo code applied",)),
        ("coupon_denied", CART_EVENTS, "a code was refused", ("promo code denied",)),
        ("coupon_removed", CART_EVENTS, "a code was taken out again", ()),
        ("coupon_issued", CUSTOMER_EVENTS, "a coupon was given to a person", ()),
        ("coupon_redeemed", ORDER_EVENTS, "a coupon was used in an order", ("promo code redeemed",)),
        ("coupon_expired", CUSTOMER_EVENTS, "a coupon lapsed unused", ()),
    )
)
