"""An order, or some of it, was taken back."""

from __future__ import annotations

from typing import Any

from profiles import orders
from profiles.money import to_minor
from profiles.payloads import Amount, Currency, Id, Items, Minor, Payload, Text, lines_minor, named, not_negative
from profiles.spec import EventType, Example
from profiles.wire import ORDER_EVENTS


class OrderRefunded(Payload):
    """Without an amount and without items all of the order was refunded."""

    order_id: Id = named("order_id", "orderId", "transaction_id", "id", required=True)
    refund_id: Id | None = named("refund_id", "refundId")
    currency: Currency | None = named("currency", "currencyCode", "currency_code")
    amount_minor: Minor | None = None
    amount: Amount = named("amount", "total", "value", "revenue")
    reason: Text = None
    items: Items | None = named("items", "products", "lines", "line_items")

    def finish(self) -> None:
        """Put the amounts into minor units."""
        values: dict[str, Any] = self.__dict__
        items = self.items
        priced = self.amount is not None or any("price_e6" in item or "amount" in item for item in items or ())
        if self.currency is None:
            if priced or self.amount_minor is not None:
                raise ValueError("currency: an ISO 4217 currency like EUR wanted beside an amount, got nothing")
        else:
            if self.amount is not None:
                values["amount_minor"] = to_minor(self.amount, self.currency)
            lines = lines_minor(items, self.currency) if items else None
            if lines is not None and self.amount_minor is None:
                values["amount_minor"] = lines
        not_negative("amount", self.amount_minor)


class OrderCancelled(Payload):
    """The order counts as if it had never been."""

    order_id: Id = named("order_id", "orderId", "transaction_id", "id", required=True)
    reason: Text = None


SPEC = (
    EventType(
        name="order_refunded",
        topic=ORDER_EVENTS,
        says="an order was refunded: the amount or items given, or without them all of it",
        payload=OrderRefunded,
        change=orders.refunded,
        aliases=("refund", "refunds_create"),
        examples=(
            Example(raw={"order_id": "o1"}, props={"order_id": "o1"}),
            Example(
                raw={"transaction_id": "o1", "currency": "EUR", "value": 5, "items": [{"item_id": "a", "quantity": 1}]},
                props={
                    "order_id": "o1",
                    "currency": "EUR",
                    "amount_minor": 500,
                    "items": [{"product_id": "a", "quantity": 1}],
                },
            ),
        ),
    ),
    EventType(
        name="order_cancelled",
        topic=ORDER_EVENTS,
        says="an order was cancelled",
        payload=OrderCancelled,
        change=orders.cancelled,
        aliases=("order canceled", "orders_cancelled"),
        examples=(Example(raw={"order_id": 1}, props={"order_id": "1"}),),
    ),
)
