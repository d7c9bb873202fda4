"""What payloads of events have in common: reading what senders write, bounded, with money in integers.

A sender writes properties by the Segment spec or in GA4's names; a payload model reads either and its dump
is canonical (``profiles/event_types``). The rules, in the order in which they bite:

- What we act on is checked: ids, currencies, quantities, amounts. A wrong one refuses the event.
- What only describes (a name, a brand, a picture) never refuses: what is not text is left out, long text is cut.
- What we do not know is kept under its own name, so that rules can filter on it, within ``EXTRA_KEYS_MAX``
  keys, ``TEXT_CHARS_MAX`` characters and ``DEPTH_MAX`` levels; beyond these it is left out.
- ``items``, where there is one, is a list of canonical items; nobody can smuggle another shape in under that name.
- Reading a canonical payload again gives the same payload.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal, Required, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

from profiles.ids import WHOLE_WANTED, is_whole
from profiles.moments import parse_instant
from profiles.money import AMOUNT_MAX, decimal_of, line_minor, to_e6, to_minor

EXTRA_KEYS_MAX: Final = 50
ITEM_EXTRA_KEYS_MAX: Final = 20
KEY_CHARS_MAX: Final = 100
TEXT_CHARS_MAX: Final = 500
URL_CHARS_MAX: Final = 2_000
DEPTH_MAX: Final = 3
LIST_MAX: Final = 50
ITEMS_MAX: Final = 1_000
QUANTITY_MAX: Final = 1_000_000
_INT_MAX: Final = 1 << 63
_URLS: Final = frozenset({"url", "image_url", "referrer"})


def _whole(text: str) -> str:
    if not is_whole(text):
        raise ValueError(WHOLE_WANTED)
    return text


Id = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_whole)]
"""What names something: text or a number, 1 to 200 whole characters; never cut, a cut id is another id."""

Label = Annotated[Any, WithJsonSchema({"type": "string", "maxLength": TEXT_CHARS_MAX})]
"""What describes something. Tidied by ``_label``: never refuses an event."""

Minor = Annotated[int, Field(strict=True, ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
"""An amount already in minor units."""

Currency = Annotated[
    str, StringConstraints(strip_whitespace=True, to_upper=True, pattern=r"^[A-Za-z]{3}$", min_length=3, max_length=3)
]
"""ISO 4217, upper case."""


def _amount(number: object) -> Decimal | None:
    return None if number is None or number == "" else decimal_of(number)


Amount = Annotated[
    Decimal | None,
    PlainValidator(_amount, json_schema_input_type=float | str | None),
    Field(exclude=True),
]
"""An amount in major units as a sender writes it; not in the dump, an ``…_minor`` or ``…_e6`` takes its place."""


def named(*names: str | AliasPath, default: Any = None, required: bool = False, exclude: bool = False) -> Any:
    """A field that goes by any of these names, the first sent counts; absent by default."""
    start = ... if required else default
    if exclude:  # Said only when meant: ``exclude=None`` would undo that of ``Amount``.
        return Field(default=start, validation_alias=AliasChoices(*names), exclude=True)
    return Field(default=start, validation_alias=AliasChoices(*names))


def _label(value: object, chars_max: int = TEXT_CHARS_MAX) -> str | None:
    """Text of what describes, or ``None``. A list is a path; an object with a name is its name (schema.org)."""
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, bool) or value is None:
        return None
    elif isinstance(value, int | float):
        text = str(value)
    elif isinstance(value, list):
        text = "/".join(part.strip() for part in value[:LIST_MAX] if isinstance(part, str) and part.strip())
    elif isinstance(value, dict):
        return _label(value["name"], chars_max) if isinstance(value.get("name"), str) else None
    else:
        return None
    return text[:chars_max] or None


def category_path(value: str) -> str:
    """A category as a path with ``/`` between its levels: ``Tools > Drills`` is ``Tools/Drills``. Case stays."""
    if ">" not in value and " /" not in value and "/ " not in value:
        return value.strip("/")
    return "/".join(part.strip() for part in value.replace(">", "/").split("/") if part.strip())


def kept(sent: dict[str, Any], keys_max: int = EXTRA_KEYS_MAX) -> dict[str, Any]:
    """What we keep of properties that we do not know: as sent, within the bounds, without nulls.

    Args:
        sent: name -> JSON value.
        keys_max: the first so many keys stay.
    """
    out: dict[str, Any] = {}
    for key, value in sent.items():
        if len(out) == keys_max:
            break
        kind = type(value)
        if kind is str:
            if len(value) > TEXT_CHARS_MAX:
                value = value[: URL_CHARS_MAX if key in _URLS else TEXT_CHARS_MAX]
        elif kind is not bool:
            value = _bounded(value, DEPTH_MAX - 1)
            if value is None:
                continue
        if len(key) <= KEY_CHARS_MAX:
            out[key] = value
    return out


def _bounded(value: Any, depth_left: int) -> Any:
    if isinstance(value, str):
        return value[:TEXT_CHARS_MAX]
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_INT_MAX <= value < _INT_MAX else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth_left == 0:
        return None
    if isinstance(value, dict):
        pairs = ((key, _bounded(one, depth_left - 1)) for key, one in list(value.items())[:LIST_MAX])
        return {str(key): one for key, one in pairs if one is not None and len(str(key)) <= KEY_CHARS_MAX} or None
    if isinstance(value, list | tuple):
        return [one for one in (_bounded(one, depth_left - 1) for one in value[:LIST_MAX]) if one is not None] or None
    return None


class _Item(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow", coerce_numbers_to_str=True)  # type: ignore[misc]  # pydantic's door

    product_id: Required[
        Annotated[Id, Field(validation_alias=AliasChoices("product_id", "item_id", "productId", "id", "sku"))]
    ]
    quantity: Annotated[Any, Field(validation_alias=AliasChoices("quantity", "qty", "count"))]
    price_e6: Annotated[int | None, Field(strict=True, ge=0)]
    price: Annotated[Any, Field(validation_alias=AliasChoices("price", "unit_price", "unitPrice", "item_price"))]
    amount_minor: Minor | None
    amount: Annotated[Any, Field(validation_alias=AliasChoices("amount", "line_total", "total"))]
    sku: Annotated[Label, Field(validation_alias=AliasChoices("sku", "item_sku"))]
    name: Annotated[Label, Field(validation_alias=AliasChoices("name", "item_name", "title"))]
    brand: Annotated[Label, Field(validation_alias=AliasChoices("brand", "item_brand", "vendor"))]
    category: Annotated[Label, Field(validation_alias=AliasChoices("category", "item_category", "categories"))]
    variant: Annotated[Label, Field(validation_alias=AliasChoices("variant", "item_variant"))]
    url: Annotated[Label, Field(validation_alias=AliasChoices("url", "item_url", "product_url"))]
    image_url: Annotated[Label, Field(validation_alias=AliasChoices("image_url", "imageUrl", "image"))]


_ITEM_LABELS: Final = frozenset({"sku", "name", "brand", "variant", "url", "image_url", "category"})
_ITEM_FIELDS: Final = _ITEM_LABELS | {"product_id", "quantity", "price_e6", "amount_minor"}
_GA4_LEVELS: Final = ("item_category2", "item_category3", "item_category4", "item_category5")


def _read_item(raw: dict[str, Any]) -> dict[str, Any]:
    """Finish an item that pydantic has read: labels as text, price in millionths, unknown properties bounded."""
    item: dict[str, Any] = {"product_id": raw.pop("product_id")}
    quantity = _quantity(raw.pop("quantity", None))
    price_e6 = raw.pop("price_e6", None)
    price = raw.pop("price", None)
    if price_e6 is None and price is not None and price != "":
        price_e6 = _price_again(price) if type(price) in (float, str) else _price_e6(price)
    if type(quantity) is Decimal:
        # Sold by weight or length: one piece of that measure, so that amounts stay exact.
        if price_e6 is not None:
            price_e6 = int((price_e6 * quantity).to_integral_value())
        raw["measure"] = str(quantity)
        quantity = 1
    if quantity is not None:
        item["quantity"] = quantity
    if price_e6 is not None:
        item["price_e6"] = price_e6
    category = raw.get("category")
    if category is not None:
        if "item_category2" in raw:
            category = [category, *(raw.pop(level, None) for level in _GA4_LEVELS)]
        path = _label(category)
        if path is not None:
            item["category"] = category_path(path)
        del raw["category"]
    amount = raw.pop("amount", None)
    unknown: dict[str, Any] = {}
    for key, value in raw.items():
        if key in _ITEM_LABELS:
            text = _label(value, URL_CHARS_MAX if key in _URLS else TEXT_CHARS_MAX)
            if text is not None:
                item[key] = text
        elif key == "amount_minor":
            if value is not None:
                item[key] = value
        else:
            unknown[key] = value
    if amount is not None and amount != "":
        # In major units until the currency is known: ``Payload`` replaces or drops it.
        item["amount"] = _read("amount", amount)
    if unknown:
        for key in _ITEM_ALIASES.keys() & unknown.keys():
            if _ITEM_ALIASES[key] not in item:
                del unknown[key]  # See ``Payload._tidy``.
        item |= kept(unknown, ITEM_EXTRA_KEYS_MAX)
    return item


def _quantity(value: object) -> int | Decimal | None:
    """A whole number of pieces, >= 0, or a measure that is not whole; ``None``: not said."""
    if value is None or value == "":
        return None
    if type(value) is int:
        count = value
    else:
        number = _read("quantity", value)
        if number != number.to_integral_value():
            if not 0 < number <= QUANTITY_MAX:
                raise ValueError(f"quantity: from 0 to {QUANTITY_MAX} wanted, got one outside")
            return number
        count = int(number)
    if not 0 <= count <= QUANTITY_MAX:
        raise ValueError(f"quantity: from 0 to {QUANTITY_MAX} wanted, got one outside")
    return count


def _read(field: str, value: object) -> Decimal:
    try:
        return decimal_of(value)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _not_negative(amount: Decimal) -> Decimal:
    if amount < 0:
        raise ValueError("price: 0 or more wanted, got a negative one")
    return amount


def _price_e6(price: object) -> int:
    return to_e6(_not_negative(_read("price", price)))


_price_again: Final = lru_cache(maxsize=16_384, typed=True)(_price_e6)
"""The same, faster: a shop has few prices, and sends each over and over."""


def _some_pieces(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # A line of no pieces is no line: platforms that send the whole cart send these for what was taken out.
    return [item for item in items if item.setdefault("quantity", 1)]


Item = Annotated[_Item, AfterValidator(_read_item)]
SomeItems = Annotated[list[Item], Field(max_length=ITEMS_MAX)]
"""Items whose quantity is absent where the sender said none."""

Items = Annotated[SomeItems, AfterValidator(_some_pieces)]
"""Items of one piece at least each."""


def _spellings(fields: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Other name -> field, of everything that ``named`` gives a field."""
    return {
        name: field
        for field, alias in fields
        for name in getattr(alias, "choices", ())
        if isinstance(name, str) and name != field
    }


_ITEM_ALIASES: Final = _spellings(
    (field, one.validation_alias)
    for field, hint in get_type_hints(_Item, include_extras=True).items()
    for one in getattr(get_args(hint)[0] if get_origin(hint) is Required else hint, "__metadata__", ())
    if isinstance(one, FieldInfo)
)


class Payload(BaseModel):
    """The base of every payload. Unknown properties stay, within the bounds of this module."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True, validate_by_name=True, validate_by_alias=True)

    spellings: ClassVar[dict[str, str]] = {}
    """Other name -> field."""

    always: ClassVar[tuple[str, ...]] = ()
    """Fields that ``finish`` sees to: absent at first, present in every canonical payload."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.spellings = _spellings((name, field.validation_alias) for name, field in cls.model_fields.items())

    @model_validator(mode="after")
    def _tidy(self) -> Payload:
        values = self.__dict__
        for key, value in values.items():
            if type(value) is str:
                if not value:
                    values[key] = None
                elif len(value) > TEXT_CHARS_MAX:
                    values[key] = value[: URL_CHARS_MAX if key in _URLS else TEXT_CHARS_MAX]
        extra = self.__pydantic_extra__
        if extra:
            for key in self.spellings.keys() & extra.keys():
                # The field's first name held nothing of use; a second reading must not find its other name.
                if values[self.spellings[key]] is None:
                    del extra[key]
            tidy = kept(extra)
            extra.clear()
            extra.update(tidy)
            extra.pop("items", None)
        self.finish()
        return self

    def finish(self) -> None:
        """Work out what follows from several fields together. Raises ``ValueError`` for what cannot be accepted."""


def text_of(value: object) -> str | None:
    """Descriptive text of a payload field; what is not text is left out."""
    return _label(value)


Text = Annotated[str | None, BeforeValidator(text_of)]
"""Descriptive text: what is not text is left out, long text is cut."""


def lines_minor(items: list[Any], currency: str) -> int | None:
    """Give every item its ``amount_minor``; the sum of them, or ``None`` when one has neither price nor amount."""
    total: int | None = 0
    for item in items:
        amount = item.pop("amount", None)
        if "amount_minor" not in item:
            if amount is not None:
                item["amount_minor"] = to_minor(amount, currency)
                if "price_e6" not in item:
                    item["price_e6"] = to_e6(abs(amount) / item["quantity"])
            elif "price_e6" in item:
                item["amount_minor"] = line_minor(item["price_e6"], item["quantity"], currency)
            else:
                total = None
                continue
        if total is not None:
            total += item["amount_minor"]
    return total


def not_negative(field: str, amount_minor: int | None) -> None:
    """Refuse an amount below zero.

    Raises:
        ValueError: it is; the field is named, the amount is not.
    """
    if amount_minor is not None and amount_minor < 0:
        raise ValueError(f"{field}: an amount of 0 or more wanted, got a negative one")


def word(value: object) -> object:
    """A word of ours however it is written: trimmed, lower case."""
    return value.strip().lower() if isinstance(value, str) else value


def _number(value: object) -> int | float | None:
    """A number, for comparing: whole ones as ``int``; what is none is left out."""
    if isinstance(value, dict):
        value = value.get("ratingValue")  # schema.org Rating
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = decimal_of(value)
    except ValueError:
        return None
    return int(number) if number == number.to_integral_value() else float(number)


Number = Annotated[int | float | None, PlainValidator(_number, json_schema_input_type=float | str | None)]
"""A number that describes: a score, a rating. What is none is left out."""


def _instant(value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            return parse_instant(value.strip())
        except ValueError:
            raise ValueError("an ISO 8601 time like 2026-11-22T15:04:05Z wanted, got other text") from None
    if type(value) is int and abs(value) < _INT_MAX:
        return value
    raise ValueError("an ISO 8601 time, or milliseconds since 1970, wanted, got neither")


Instant = Annotated[int | None, PlainValidator(_instant, json_schema_input_type=int | str | None)]
"""An instant, epoch ms UTC, from ISO 8601 text or epoch ms."""

STATUSES: Final = ("placed", "confirmed", "paid", "shipped", "delivered", "cancelled", "returned")
_STATUS_WORDS: Final = {
    **{status: status for status in STATUSES},
    "paymentdue": "placed", "processing": "confirmed", "intransit": "shipped", "pickupavailable": "shipped",
    "canceled": "cancelled", "pending": "placed", "new": "placed", "fulfilled": "shipped",
}  # fmt: skip


def _status(value: object) -> str:
    if isinstance(value, str):
        text = value.strip().lower().rpartition("/")[2].replace("_", "").replace("-", "").replace(" ", "")
        known = _STATUS_WORDS.get(text) or _STATUS_WORDS.get(text.removeprefix("order"))
        if known:
            return known
    raise ValueError(
        f"one of {', '.join(STATUSES)} wanted, got {'other text' if isinstance(value, str) else 'no text'}"
    )


Status = Annotated[str, PlainValidator(_status, json_schema_input_type=str), WithJsonSchema({"enum": list(STATUSES)})]
"""A status of an order: one of ``STATUSES``, or schema.org's ``OrderStatus`` for it."""


_FLAT_KEYS: Final = frozenset(
    "product_id item_id productId quantity qty price_e6 price unit_price unitPrice item_price sku item_sku name item_name"
    " brand item_brand category item_category item_category2 item_category3 item_category4 item_category5 variant"
    " item_variant url item_url product_url image_url imageUrl vendor".split()
)


class ValuedPayload(Payload):
    """A payload with items and perhaps a value of the whole.

    Outside orders an amount without a currency is not money: ``value`` then stays as it was sent.
    """

    currency: Currency | None = named(
        "currency",
        "currencyCode",
        "currency_code",
        AliasPath("items", 0, "currency"),
        AliasPath("products", 0, "currency"),
    )
    value_minor: Minor | None = None
    cart_id: Id | None = named("cart_id", "cartId", "checkout_id")
    items: Items | None = named("items", "products", "lines", "line_items")

    def finish(self) -> None:
        extra = self.__pydantic_extra__
        if self.currency is not None and extra and self.value_minor is None and extra.get("value") is not None:
            try:
                self.__dict__["value_minor"] = to_minor(decimal_of(extra["value"]), self.currency)
                del extra["value"]
            except ValueError:
                pass  # No amount: what only describes stays as it was sent.
        for item in self.items or ():
            amount = item.pop("amount", None)
            if amount is not None and "price_e6" not in item:
                item["price_e6"] = to_e6(_not_negative(amount) / item.get("quantity", 1))


class ProductPayload(ValuedPayload):
    """A payload about one product, flat (Segment) or as ``items`` (GA4) or ``product``."""

    always: ClassVar[tuple[str, ...]] = ("items",)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, sent: Any) -> Any:
        if not isinstance(sent, dict) or "items" in sent or "products" in sent:
            return sent
        if isinstance(sent.get("product"), dict):
            rest = {key: value for key, value in sent.items() if key != "product"}
            rest["items"] = [sent["product"]]
            return rest
        item: dict[str, Any] = {}
        rest = {}
        for key, value in sent.items():
            if key in _FLAT_KEYS:
                item[key] = value
            else:
                rest[key] = value
        rest["items"] = [item]
        return rest

    def finish(self) -> None:
        super().finish()
        if not self.items:
            raise ValueError("items: a product wanted, got none")


class OrderPayload(Payload):
    """An order: all that it holds.

    The total is, of what was sent, the first of: ``total``; ``revenue`` and with it shipping and tax;
    ``value``; the sum of the lines. ``total_from`` says which. Shipping, tax and discount are kept beside it.
    """

    status_default: ClassVar[str | None] = None
    always: ClassVar[tuple[str, ...]] = ("total_minor", "items")

    order_id: Id = named("order_id", "orderId", "transaction_id", "order_number", "id", required=True)
    currency: Currency = named(
        "currency",
        "currencyCode",
        "currency_code",
        AliasPath("items", 0, "currency"),
        AliasPath("products", 0, "currency"),
        required=True,
    )
    status: Annotated[Status | None, BeforeValidator(lambda value: value or None)] = None
    total_minor: Minor | None = None
    total_from: Literal["total", "revenue", "value", "items"] | None = None
    total: Amount = named("total", "total_price", "order_total")
    revenue: Amount = None
    value: Amount = None
    revenue_minor: Minor | None = None
    shipping_minor: Minor | None = None
    shipping: Amount = named("shipping", "shipping_price")
    tax_minor: Minor | None = None
    tax: Amount = named("tax", "total_tax")
    discount_minor: Minor | None = None
    discount: Amount = named("discount", "total_discounts")
    margin_minor: Minor | None = None
    margin: Amount = named("margin", "profit")
    rate_e6: Annotated[int | None, Field(strict=True, gt=0)] = None
    rate: Amount = named("rate", "exchange_rate")
    coupon: Text = named("coupon", "coupon_code", "promo_code")
    channel: Text = None
    affiliation: Text = None
    cart_id: Id | None = named("cart_id", "cartId", "checkout_id")
    items: Items = named("items", "products", "lines", "line_items", default=[])

    def finish(self) -> None:
        """Put every amount into minor units, and find the total."""
        values, currency = self.__dict__, self.currency
        lines = lines_minor(self.items, currency) if self.items else None
        for name in _ORDER_AMOUNTS:
            amount = values[name]
            if amount is not None:
                values[name + "_minor"] = to_minor(amount, currency)
        if self.total_minor is None or self.total is not None:
            total, said_by = self._total(lines)
            values["total_minor"], values["total_from"] = total, said_by
        not_negative("total", self.total_minor)
        if self.rate is not None:
            rate_e6 = to_e6(self.rate)
            if rate_e6 <= 0:
                raise ValueError("rate: more than 0 wanted, got less")
            values["rate_e6"] = rate_e6
        if self.status is None:
            values["status"] = self.status_default

    def _total(self, lines: int | None) -> tuple[int, str]:
        if self.total is not None:
            return to_minor(self.total, self.currency), "total"
        if self.revenue is not None:
            more = (self.shipping_minor or 0) + (self.tax_minor or 0)
            return to_minor(self.revenue, self.currency) + more, "revenue"
        if self.value is not None:
            return to_minor(self.value, self.currency), "value"
        if lines is None:
            raise ValueError("total: an amount (total, revenue, value) or items all with a price wanted, got neither")
        return lines, "items"


_ORDER_AMOUNTS: Final = ("revenue", "shipping", "tax", "discount", "margin")


def _items_or_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return None


class AnyPayload(Payload):
    """A payload of which we know nothing: kept as sent, within the bounds. Items are read if they are some."""

    items: Annotated[Items | None, WrapValidator(_items_or_none)] = None

    def finish(self) -> None:
        """Leave out line amounts: they need a currency that we cannot vouch for."""
        for item in self.items or ():
            item.pop("amount", None)
