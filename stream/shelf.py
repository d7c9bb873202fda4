"""The catalogue in a process: all products of the store, and what others write read anew.

Whoever owns a shard writes its products, in order, and knows them first; everybody else asks now and then how often each
shard's were written, and reads those that were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from profiles.catalogue import Catalogue, Product, decode_product
from profiles.errors import Refused
from profiles.ids import SHARDS
from stream import effects
from stream.ports import ProfileStore

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
PRODUCTS_MAX: Final = 1_000_000
"""What a process takes in that leaves the bound to those who write."""


class Shelf:
    """All products.

    Attributes:
        goods: the table; it is changed in place.
    """

    def __init__(self, products_max: int) -> None:
        """Know nothing yet."""
        self.goods = Catalogue(products_max)
        self._written: dict[int, int] = {}
        self._stocked: dict[int, set[str]] = {}

    def put(self, shard: int, product: Product) -> bool:
        """A product of that shard is as it is now; whether the shop still has it."""
        self.goods.put(product)
        self._stocked.setdefault(shard, set()).add(product.product_id)
        return product.product_id in self.goods.products

    async def learn(self, store: ProfileStore, shards: Iterable[int]) -> None:
        """Read the products of those of these shards where others have written some since we looked."""
        numbers = list(shards)
        versions = await effects.read("product versions", lambda: store.product_versions(numbers))
        changed = {one: at for one, at in zip(numbers, versions, strict=True) if at != self._written.get(one, 0)}
        if not changed:
            return
        found = await effects.read("products", lambda: store.products(list(changed)))
        for (shard, version), products in zip(changed.items(), found, strict=True):
            for product_id in self._stocked.pop(shard, set()) - products.keys():
                self.goods.drop(product_id)
            for product_id, blob in products.items():
                self.put(shard, decode_product(product_id, blob))
            self._written[shard] = version

    async def follow(self, store: ProfileStore) -> None:
        """Learn all there is, for ever: for a process that writes none, and does without if it cannot be had."""
        try:
            while True:
                await self.learn(store, range(SHARDS))
                await asyncio.sleep(LOOK_S)
        except Refused as error:
            log.error("the catalogue stays as it is: %s", error)
        finally:
            await store.close()
