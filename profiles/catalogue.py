"""The shop's goods: what ``product_updated`` says of each, and the table of all of them.

A feed may tell of a product whole or in part, prices every minute and texts once a night: of each field the newest
statement by event time wins, so any order of arrival ends alike. What a statement changes that people wait for (a lower
price, goods back in stock, new goods) is *news*, an event of its own.

The table is whole in every worker. It answers what a message may show beside what the customer himself has done; all
answers are in one fixed order, so the same table gives the same bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

import msgpack

from profiles.moments import FOREVER
from profiles.wire import Event

PRODUCT: Final = "product:"
"""What a product's key begins with: ``product:`` and its id."""

FIELDS: Final = (
    "name", "brand", "category", "url", "image_url", "price_e6", "old_price_e6", "currency", "stock", "available",
    "consumption_days", "content", "accompanying", "discontinued", "arrived_ms",
)  # fmt: skip
"""What may be said of a product: prices in millionths of ``currency``, ``stock`` in pieces, ``consumption_days`` a piece."""

PRODUCT_UPDATED: Final = "product_updated"
PRICE_DROPPED: Final = "price_dropped"
BACK_IN_STOCK: Final = "back_in_stock"
PRODUCT_ARRIVED: Final = "product_arrived"

LEVELS_MAX: Final = 6
LOOKED_AT_MAX: Final = 2_000
"""Goods looked at for one selection: one that fits nothing must not go through the whole shop."""

_VERSION: Final = 1
_pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack


@dataclass(slots=True)
class Product:
    """One product.

    Attributes:
        said: field -> its newest statement.
        at_ms: when the newest statement of all was made.
        older: field -> when it was said, of those that were not said then.
        first_ms: when the first statement was made; 0: it came with history.
    """

    product_id: str
    said: dict[str, Any] = field(default_factory=dict)
    at_ms: int = 0
    older: dict[str, int] = field(default_factory=dict)
    first_ms: int = 0

    @property
    def arrived_ms(self) -> int:
        """Since when the shop has it; 0: for longer than anybody knows."""
        arrived_ms: int = self.said.get("arrived_ms", self.first_ms)
        return arrived_ms

    @property
    def price_e6(self) -> int:
        """What a piece costs; 0 where nobody said."""
        price: int = self.said.get("price_e6", 0)
        return price

    @property
    def saves_ppm(self) -> int:
        """How much cheaper it is than it was, in millionths of the old price; 0: not on sale."""
        old, now = self.said.get("old_price_e6", 0), self.price_e6
        return (old - now) * 1_000_000 // old if old > now > 0 else 0

    @property
    def is_sold(self) -> bool:
        """Whether it can be bought now, as far as the shop said."""
        said = self.said
        return said.get("available", True) and said.get("stock", 1) > 0 and not said.get("discontinued", False)


class News(NamedTuple):
    """Something about a product that people may wait for: an event type, what was and what is, in plain values."""

    type: str
    old: Any
    new: Any


def updated(before: Product | None, event: Event) -> tuple[Product, list[News]]:
    """What is known of a product after one more statement, and what is new about it.

    Args:
        before: left as it is; ``None``: a product never heard of.
        event: ``product_updated``. History makes no news.
    """
    props = event.props
    product = Product(props["product_id"], first_ms=0 if event.backfill else event.at_ms)
    if before is not None:
        product.said, product.at_ms = dict(before.said), before.at_ms
        product.older, product.first_ms = dict(before.older), min(before.first_ms, product.first_ms)
    if event.at_ms > product.at_ms:
        for name in product.said:
            product.older.setdefault(name, product.at_ms)
        product.at_ms = event.at_ms
    for name in FIELDS:
        value = props.get(name)
        if value is None:
            continue
        said_ms = product.older.get(name, product.at_ms) if name in product.said else -FOREVER
        if (event.at_ms, repr(value)) > (said_ms, repr(product.said.get(name))):
            product.said[name] = value
            if event.at_ms == product.at_ms:
                product.older.pop(name, None)
            else:
                product.older[name] = event.at_ms
    return product, [] if event.backfill else _news(before, product)


def _news(before: Product | None, after: Product) -> list[News]:
    if not after.is_sold:
        return []
    if before is None:
        return [News(PRODUCT_ARRIVED, None, after.said.get("price_e6"))]
    found = []
    old, new = before.price_e6, after.price_e6
    if 0 < new < old and before.said.get("currency") == after.said.get("currency"):
        found.append(News(PRICE_DROPPED, old, new))
    if not before.is_sold:
        found.append(News(BACK_IN_STOCK, before.said.get("stock", 0), after.said.get("stock")))
    return found


def news_event(product: Product, news: News, cause: Event) -> Event:
    """The event that interested customers get; it is the same one for all of them, but for the address."""
    item = {"product_id": product.product_id, "quantity": 1}
    props: dict[str, Any] = {"items": [item], "product_id": product.product_id}
    if news.old is not None:
        props["old"] = news.old
    if news.new is not None:
        props["new"] = news.new
    return Event(
        message_id=f"{news.type}:{product.product_id}:{cause.message_id}",
        source=cause.source,
        type=news.type,
        at_ms=cause.at_ms,
        received_ms=cause.received_ms,
        address="",
        props=props,
        trusted=True,
    )


def encode_product(product: Product) -> bytes:
    """A product as bytes, for the store."""
    return _pack((_VERSION, product.said, product.at_ms, product.older, product.first_ms))


def decode_product(product_id: str, blob: bytes) -> Product:
    """Read it again.

    Raises:
        ValueError: not one of a version that we know.
    """
    try:
        version, said, at_ms, older, first_ms = msgpack.unpackb(blob)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"product blob: version {_VERSION} wanted, {type(error).__name__}") from None
    if version != _VERSION:
        raise ValueError(f"product blob: version {_VERSION} wanted, got {version!r}")
    return Product(product_id, said, at_ms, older, first_ms)


def levels(category: str) -> list[str]:
    """``a/b/c`` -> itself and what it lies under, the narrowest first."""
    parts = category.split("/")[:LEVELS_MAX]
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


class Catalogue:
    """All goods of the shop, by what messages ask for.

    Attributes:
        products_max: more are not taken in.
        products: id -> product, of those that were taken in.
    """

    def __init__(self, products_max: int = 100_000) -> None:
        self.products_max = products_max
        self.products: dict[str, Product] = {}
        self._sale: list[tuple[int, str]] = []  # (-saved share, id), ascending
        self._newest: list[tuple[int, str]] = []  # (-arrived, id), ascending
        self._under: dict[str, list[tuple[int, str]]] = {}  # category -> (price, id), ascending

    def has_room(self, product_id: str) -> bool:
        """Whether that product is known, or one more may be."""
        return product_id in self.products or len(self.products) < self.products_max

    def put(self, product: Product) -> None:
        """Take in a product as it is now; one that is no longer sold at all is let go."""
        self.drop(product.product_id)
        if product.said.get("discontinued", False):
            return
        self.products[product.product_id] = product
        for entries, key in self._places(product):
            insort(entries, (key, product.product_id))

    def drop(self, product_id: str) -> None:
        """Let a product go, if it is there."""
        known = self.products.pop(product_id, None)
        if known is None:
            return
        for entries, key in self._places(known):
            del entries[bisect_left(entries, (key, product_id))]
        for path in levels(known.said.get("category", "")):
            if not self._under.get(path, True):
                del self._under[path]

    def _places(self, product: Product) -> Iterator[tuple[list[tuple[int, str]], int]]:
        """The lists that a product stands in, and by what."""
        if product.saves_ppm:
            yield self._sale, -product.saves_ppm
        if product.arrived_ms:
            yield self._newest, -product.arrived_ms
        category = product.said.get("category")
        for path in levels(category) if category else ():
            yield self._under.setdefault(path, []), product.price_e6

    # --- what messages ask for: ids, the best first, without end ----------------------------------------------------

    def on_sale(self) -> Iterator[str]:
        """What is cheaper than it was, the greatest share saved first."""
        return (one for _, one in self._sale)

    def arrived_since(self, since_ms: int) -> Iterator[str]:
        """What the shop has had since then, the newest first."""
        return (one for _, one in islice(self._newest, bisect_left(self._newest, (-since_ms, ""))))

    def accompanying(self, seeds: Iterable[str]) -> Iterator[str]:
        """What goes with these, as the shop says; with the first of them first."""
        for product_id in seeds:
            known = self.products.get(product_id)
            yield from known.said.get("accompanying", ()) if known is not None else ()

    def similar(self, seeds: Iterable[str]) -> Iterator[str]:
        """What lies in the same category and costs about the same, then in the one above; each of the seeds in turn."""
        turns = [self._near(known) for seed in seeds if (known := self.products.get(seed)) is not None]
        while turns:
            for turn in list(turns):
                found = next(turn, None)
                if found is None:
                    turns.remove(turn)
                else:
                    yield found

    def _near(self, product: Product) -> Iterator[str]:
        category = product.said.get("category")
        for path in levels(category) if category else ():
            entries = self._under.get(path, [])
            above = bisect_left(entries, (product.price_e6, ""))
            below = above - 1
            while below >= 0 or above < len(entries):
                is_below = below >= 0 and (
                    above >= len(entries) or product.price_e6 - entries[below][0] < entries[above][0] - product.price_e6
                )
                yield entries[below if is_below else above][1]
                if is_below:
                    below -= 1
                else:
                    above += 1

    def content_of(self, product_id: str) -> dict[str, str]:
        """What the shop says to show who bought it: name -> link or id."""
        known = self.products.get(product_id)
        content: dict[str, str] = known.said.get("content", {}) if known is not None else {}
        return content
