"""An order reached a status."""

from __future__ import annotations

from profiles import orders
from profiles.payloads import Id, Payload, Status, Text, named
from profiles.spec import EventType, Example
from profiles.wire import ORDER_EVENTS


class OrderStatusChanged(Payload):
    """``to`` is one of ``orders.STATUSES``, or schema.org's word for it."""

    order_id: Id = named("order_id", "orderId", "transaction_id", "id", required=True)
    to: Status = named("to", "status", "order_status", "orderStatus", required=True)
    previous: Text = named("previous", "from", "previous_status")


SPEC = EventType(
    name="order_status_changed",
    topic=ORDER_EVENTS,
    says="an order reached a status: placed, confirmed, paid, shipped, delivered, cancelled or returned",
    payload=OrderStatusChanged,
    change=orders.status_changed,
    aliases=("order status updated",),
    examples=(
        Example(
            raw={"order_id": "o1", "from": "paid", "to": "https://schema.org/OrderInTransit"},
            props={"order_id": "o1", "to": "shipped", "previous": "paid"},
        ),
    ),
)
