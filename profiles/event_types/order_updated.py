"""What an order holds now: a correction, by the shop."""

from profiles import orders
from profiles.payloads import OrderPayload
from profiles.spec import EventType, Example
from profiles.wire import ORDER_EVENTS

SPEC = EventType(
    name="order_updated",
    topic=ORDER_EVENTS,
    says="an order was changed: all that it holds now",
    payload=OrderPayload,
    change=orders.updated,
    aliases=("order edited", "orders_updated"),
    examples=(
        Example(
            raw={"order_id": "o1", "status": "Delivered", "total": 12.5, "currency": "EUR"},
            props={
                "order_id": "o1",
                "status": "delivered",
                "total_minor": 1_250,
                "total_from": "total",
                "currency": "EUR",
                "items": [],
            },
        ),
    ),
)
