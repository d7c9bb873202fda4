"""A fiscal receipt of a shop's till (54-FZ): a purchase, or with operation 2 its return.

Sums are in kopecks. Drive, document number and sign together name a receipt for ever; they are its order id, so a
receipt that comes twice, by phone and by e-mail, is one order. A return names no purchase: it stands in the order
book under the receipt that ``original`` names, or else under its own id, where it lowers nothing until a correction names one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from profiles import orders
from profiles.money import decimal_of
from profiles.payloads import ITEMS_MAX, Id, Minor, Payload, Text, named
from profiles.spec import EventType, Example
from profiles.state import Profile
from profiles.wire import ORDER_EVENTS, Event

PURCHASE = 1
RETURN = 2


def _line(value: object) -> dict[str, Any]:
    """A line of a receipt, ``{name, price, quantity, sum}`` in kopecks, as a canonical item."""
    if not isinstance(value, dict):
        raise ValueError(f"a line as an object wanted, got {type(value).__name__}")
    if "price_e6" in value:
        return value  # Canonical already.
    name = value.get("name")
    product_id = value.get("product_id") or value.get("productCode") or value.get("barcode") or name
    if not isinstance(product_id, str | int) or isinstance(product_id, bool):
        raise ValueError("product_id or name: text wanted, got nothing")
    quantity, price = decimal_of(value.get("quantity", 1)), decimal_of(value.get("price", 0))
    amount = decimal_of(value["sum"]) if value.get("sum") is not None else price * quantity
    if quantity <= 0 or price < 0 or (amount != amount.to_integral_value() and value.get("sum") is not None):
        raise ValueError("quantity above 0, price of 0 or more and sum in whole kopecks wanted, got others")
    item: dict[str, Any] = {"product_id": str(product_id).strip()[:200], "quantity": 1}
    if quantity == quantity.to_integral_value():
        item["quantity"] = int(quantity)
        item["price_e6"] = int(price * 10_000)
    else:
        # Sold by weight: one piece of that measure.
        item["measure"] = str(quantity)
        item["price_e6"] = int(amount.to_integral_value()) * 10_000
    item["amount_minor"] = int(amount.to_integral_value())
    if isinstance(name, str) and name.strip():
        item["name"] = name.strip()[:500]
    return item


def _operation(value: object) -> object:
    return int(value) if isinstance(value, str) and value.strip() in ("1", "2") else value


class ReceiptRegistered(Payload):
    """``operation`` 1 is a purchase, 2 its return; others (a payout, its return) are no customer's order."""

    always = ("order_id",)

    drive: Id | None = named("fiscalDriveNumber", "fn", exclude=True)
    document: Id | None = named("fiscalDocumentNumber", "fd", exclude=True)
    sign: Id | None = named("fiscalSign", "fp", exclude=True)
    order_id: Id | None = None
    original: Id | None = named("original", "original_order_id")
    operation: Annotated[Literal[1, 2], PlainValidator(_operation)] = named(
        "operation", "operationType", "n", default=1
    )
    currency: Literal["RUB"] = "RUB"
    status: Literal["paid"] = "paid"
    channel: Text = "store"
    place: Text = named("place", "retailPlace", "retailPlaceAddress")
    total_minor: Minor = named("total_minor", "totalSum", required=True)
    items: Annotated[list[Annotated[dict[str, Any], PlainValidator(_line)]], Field(max_length=ITEMS_MAX)] = named(
        "items", default=[]
    )

    def finish(self) -> None:
        """Name the receipt."""
        if self.order_id is None:
            parts = (self.drive, self.document, self.sign)
            if None in parts:
                raise ValueError("fiscalDriveNumber, fiscalDocumentNumber and fiscalSign: all three wanted, got fewer")
            self.__dict__["order_id"] = "receipt:" + "-".join(str(part) for part in parts)
        if self.total_minor < 0:
            raise ValueError("totalSum: 0 or more wanted, got a negative one")


def registered(profile: Profile, event: Event) -> None:
    """A purchase goes into the order book; a return is a refund of the receipt it names."""
    if event.props["operation"] == RETURN:
        props = event.props
        known = props.get("original") or props["order_id"]
        back = {**props, "order_id": known, "refund_id": props["order_id"], "amount_minor": props["total_minor"]}
        given = Event(
            event.message_id, event.source, event.type, event.at_ms, event.received_ms, event.address, props=back
        )
        orders.refunded(profile, given)
    else:
        orders.completed(profile, event)


SPEC = EventType(
    name="receipt_registered",
    topic=ORDER_EVENTS,
    says="a till's fiscal receipt: a purchase in a store, or its return",
    payload=ReceiptRegistered,
    change=registered,
    aliases=("receipt", "fiscal receipt"),
    examples=(
        Example(
            raw={
                "fiscalDriveNumber": "9280440300000001",
                "fiscalDocumentNumber": 77,
                "fiscalSign": "1234567890",
                "operationType": 1,
                "totalSum": 25_480,
                "items": [
                    {"name": "Cheese", "price": 60_000, "quantity": 0.258, "sum": 15_480},
                    {"name": "Bread", "price": 5_000, "quantity": 2, "sum": 10_000},
                ],
            },
            props={
                "order_id": "receipt:9280440300000001-77-1234567890",
                "operation": 1,
                "currency": "RUB",
                "status": "paid",
                "channel": "store",
                "total_minor": 25_480,
                "items": [
                    {
                        "product_id": "Cheese",
                        "quantity": 1,
                        "measure": "0.258",
                        "price_e6": 154_800_000,
                        "amount_minor": 15_480,
                        "name": "Cheese",
                    },
                    {
                        "product_id": "Bread",
                        "quantity": 2,
                        "price_e6": 50_000_000,
                        "amount_minor": 10_000,
                        "name": "Bread",
                    },
                ],
            },
        ),
    ),
)
