"""What the shop says of a product: the catalogue's one event. It is about nobody, so it bears no user's id."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, model_validator

from profiles.changes import nothing
from profiles.money import to_e6
from profiles.payloads import Amount, Currency, Id, Instant, Number, Payload, Text, category_path, named, text_of
from profiles.spec import EventType, Example
from profiles.wire import CATALOG_EVENTS

LINKS_MAX: Final = 20
_SOLD: Final = {
    "instock": True, "limitedavailability": True, "preorder": True, "onlineonly": True, "instoreonly": True,
    "outofstock": False, "soldout": False, "discontinued": False,
}  # fmt: skip


def _whether(value: Any) -> bool | None:
    """True or false, also as schema.org's ``ItemAvailability``; what is neither says nothing."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower().rpartition("/")[2].replace("_", "").replace(" ", "")
        return {"true": True, "1": True, "false": False, "0": False}.get(word, _SOLD.get(word))
    return None


def _content(value: Any) -> dict[str, str] | None:
    """Name -> link or id; a text alone is the ``manual``."""
    if isinstance(value, str) and value.strip():
        value = {"manual": value}
    if not isinstance(value, dict):
        return None
    found = ((str(name)[:100], text_of(one)) for name, one in list(value.items())[:LINKS_MAX])
    return {name: one for name, one in found if one} or None


def _ids(value: Any) -> list[str] | None:
    """Ids of other products; what is no id is left out."""
    if not isinstance(value, list):
        return None
    found = (str(one).strip() for one in value[:LINKS_MAX] if isinstance(one, str | int) and not isinstance(one, bool))
    return [one for one in found if 0 < len(one) <= 200] or None


Whether = Annotated[bool | None, PlainValidator(_whether, json_schema_input_type=bool | str | None)]


class ProductUpdated(Payload):
    """A product, whole or in part: what is not said stays as it was said before."""

    product_id: Id = named("product_id", "item_id", "productId", "id", "sku", required=True)
    name: Text = named("name", "item_name", "title")
    brand: Text = named("brand", "item_brand", "vendor")
    category: Text = named("category", "item_category", "categories")
    url: Text = named("url", "item_url", "product_url", "link")
    image_url: Text = named("image_url", "imageUrl", "image", "image_link")
    currency: Currency | None = named("currency", "currencyCode", "currency_code", "priceCurrency")
    price_e6: Annotated[int | None, Field(strict=True, ge=0)] = None
    price: Amount = named("price", "unit_price")
    old_price_e6: Annotated[int | None, Field(strict=True, ge=0)] = None
    old_price: Amount = named("old_price", "oldPrice", "compare_at_price", "list_price")
    stock: Number = named("stock", "quantity", "inventory_quantity", "inventory")
    available: Whether = named("available", "availability", "in_stock")
    consumption_days: Number = named("consumption_days", "lasts_days")
    content: Annotated[
        dict[str, str] | None, PlainValidator(_content, json_schema_input_type=dict[str, str] | str | None)
    ] = None
    accompanying: Annotated[list[str] | None, PlainValidator(_ids, json_schema_input_type=list[str] | None)] = named(
        "accompanying", "related", "isRelatedTo"
    )
    arrived_ms: Instant = named("arrived_ms", "arrived_at", "releaseDate")
    discontinued: Whether = None

    @model_validator(mode="before")
    @classmethod
    def _one(cls, sent: Any) -> Any:
        """The product may stand under ``product``, or alone in ``items``."""
        if isinstance(sent, dict):
            items = sent.get("items")
            inner = sent.get("product", items[0] if isinstance(items, list) and len(items) == 1 else None)
            if isinstance(inner, dict):
                return {**{key: one for key, one in sent.items() if key not in ("product", "items")}, **inner}
        return sent

    def finish(self) -> None:
        """Prices in millionths, the category as a path, counts as whole numbers."""
        values = self.__dict__
        for name in ("price", "old_price"):
            amount = values[name]
            if amount is not None:
                if amount < 0:
                    raise ValueError(f"{name}: 0 or more wanted, got less")
                values[f"{name}_e6"] = to_e6(amount)
        if self.category is not None:
            values["category"] = category_path(self.category) or None
        if self.stock is not None:
            values["stock"] = int(self.stock)


SPEC = EventType(
    name="product_updated",
    topic=CATALOG_EVENTS,
    says="the shop says something of a product; a secret key's, and nobody's",
    payload=ProductUpdated,
    change=nothing,
    aliases=("product changed", "catalog product updated", "products/update"),
    examples=(
        Example(
            raw={
                "product_id": "drill", "name": "Drill", "category": "Tools > Drills", "price": "89.90", "old_price": 99.9,
                "currency": "eur", "availability": "https://schema.org/InStock", "content": "https://shop.example/drill.pdf",
            },
            props={
                "product_id": "drill", "name": "Drill", "category": "Tools/Drills", "price_e6": 89_900_000,
                "old_price_e6": 99_900_000, "currency": "EUR", "available": True,
                "content": {"manual": "https://shop.example/drill.pdf"},
            },
        ),
        Example(raw={"sku": 7, "quantity": "0"}, props={"product_id": "7", "stock": 0}),
    ),
)  # fmt: skip
