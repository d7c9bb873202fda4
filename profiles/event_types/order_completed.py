"""An order was placed, and unless the sender says another status, paid."""

from __future__ import annotations

from profiles import orders
from profiles.payloads import OrderPayload
from profiles.spec import EventType, Example
from profiles.wire import ORDER_EVENTS

_LINE = {"product_id": "d-18", "quantity": 2, "price_e6": 129_900_000, "amount_minor": 25_980}


class OrderCompleted(OrderPayload):
    """``status`` is what the order has reached: ``paid`` unless said."""

    status_default = "paid"
    always = (*OrderPayload.always, "status")


SPEC = EventType(
    name="order_completed",
    topic=ORDER_EVENTS,
    says="an order was placed; paid, unless its status says less",
    payload=OrderCompleted,
    change=orders.completed,
    aliases=("purchase", "order placed", "placed order", "order created", "orders_create"),
    activity=True,
    examples=(
        Example(
            raw={
                "order_id": 1001,
                "currency": "eur",
                "revenue": 259.8,
                "shipping": "4.90",
                "tax": 0,
                "coupon": "AUTUMN",
                "products": [{"product_id": "d-18", "quantity": 2, "price": 129.9}],
            },
            props={
                "order_id": "1001",
                "currency": "EUR",
                "status": "paid",
                "total_minor": 26_470,
                "total_from": "revenue",
                "revenue_minor": 25_980,
                "shipping_minor": 490,
                "tax_minor": 0,
                "coupon": "AUTUMN",
                "items": [_LINE],
            },
        ),
        Example(
            raw={
                "transaction_id": "T-1",
                "currency": "EUR",
                "value": 250,
                "items": [{"item_id": "d-18", "quantity": 2, "price": 129.9}],
                "payment_type": "card",
            },
            props={
                "order_id": "T-1",
                "currency": "EUR",
                "status": "paid",
                "total_minor": 25_000,
                "total_from": "value",
                "payment_type": "card",
                "items": [_LINE],
            },
        ),
        Example(
            raw={"order_id": "o2", "status": "placed", "currency": "JPY", "items": [{"product_id": "a", "price": 300}]},
            props={
                "order_id": "o2",
                "currency": "JPY",
                "status": "placed",
                "total_minor": 300,
                "total_from": "items",
                "items": [{"product_id": "a", "quantity": 1, "price_e6": 300_000_000, "amount_minor": 300}],
            },
        ),
    ),
)
