"""Whom news of a product interests: who wishes for it, has it in the cart, or looked at it often.

    on: {event: price_dropped, join: {profiles: {any: [{wishlist: $product}, {cart: $product}, {viewed: $product, gte: 3}]}}}

A shard keeps an index from products to those profiles, at most ``PRODUCTS_MAX`` products of one, the newest. News goes to
whom the index names; whether it still interests him is asked again when it reaches him.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from profiles import carts
from profiles.aggregates import Aggregate, latest, newest
from profiles.moments import FOREVER
from profiles.state import Profile
from profiles.wire import Event
from rules.documents import Node
from rules.spec import Scope

PRODUCTS_MAX = 20
VIEWS_MAX = 50
_WISHES_MAX = 100
_ADDED = "product_added_to_wishlist"
_REMOVED = ("product_removed_from_wishlist", "wishlist_product_added_to_cart")
_VIEWED = "product_viewed"
_CART = ("product_added", "product_removed", "cart_set", "cart_viewed", "order_completed", "order_updated", "order_status_changed", "receipt_registered")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interest:
    """What makes a product interesting to a customer.

    Attributes:
        wishes: statistics of what was put on the wish list and what was taken off; ``None``: not asked.
        cart: what lies in a cart.
        views, often: the statistic of what was looked at, and how often it must stand among the newest ``VIEWS_MAX``.
    """

    wishes: tuple[int, int] | None = None
    cart: bool = False
    views: int = 0
    often: int = 0

    @property
    def types(self) -> frozenset[str]:
        """Events that may change it."""
        found: set[str] = set()
        if self.wishes is not None:
            found |= {_ADDED, *_REMOVED}
        if self.cart:
            found |= set(_CART)
        if self.often:
            found.add(_VIEWED)
        return frozenset(found)

    def reasons(self, profile: Profile, until_ms: int = FOREVER) -> dict[str, list[str]]:
        """Product -> why it interests him; the newest first, each for one reason after the other.

        Args:
            until_ms: what he did later is left out: who wishes for something after it became cheaper knows.
        """
        found: dict[str, list[str]] = {}
        if self.cart:
            lines = (
                (line[carts.AT_MS], product)
                for cart in profile.carts.values()
                for product, line in cart.items.items()
                if line[carts.QUANTITY] > 0 and line[carts.AT_MS] <= until_ms
            )
            for _, product in sorted(lines, reverse=True):
                found.setdefault(product, []).append("cart")
        if self.wishes is not None:
            added, removed = (profile.aggs.get(one) or {} for one in self.wishes)
            for product, at_ms in sorted(added.items(), key=lambda item: (-item[1], str(item[0]))):
                if until_ms >= at_ms > removed.get(product, 0):
                    found.setdefault(product, []).append("wishlist")
        if self.often:
            seen = (product for at_ms, product in profile.aggs.get(self.views) or () if at_ms <= until_ms)
            for product, times in Counter(seen).items():
                if times >= self.often:
                    found.setdefault(product, []).append("viewed")
        return found


def interesting(all_of: Iterable[Interest], profile: Profile) -> list[str]:
    """The products of which the index shall know that news of them may interest him."""
    found = dict.fromkeys(product for one in all_of for product in one.reasons(profile))
    return list(found)[:PRODUCTS_MAX]


def compile_interest(node: Node, scope: Scope) -> Interest:
    """Read what stands under ``join``."""
    node.known(("profiles",), required=("profiles",))
    profiles = node.get("profiles")
    if profiles is None:
        return Interest()
    profiles.known(("any",), required=("any",))
    wishes: tuple[int, int] | None = None
    cart, views, often = False, 0, 0
    leaves = list(profiles.get("any") or ())
    if not leaves:
        profiles.wrong("any: one of wishlist, cart, viewed at least wanted, got none")
    for one in leaves:
        one.known(("wishlist", "cart", "viewed", "gte"))
        named = [(name, what) for name in ("wishlist", "cart", "viewed") if (what := one.get(name)) is not None]
        if len(named) != 1:
            one.wrong("one of wishlist, cart, viewed wanted")
            continue
        (name, what), least = named[0], one.get("gte")
        what.choice(("$product",))
        if least is not None and name != "viewed":
            least.wrong("how often is asked of viewed only")
        if name == "wishlist":
            wishes = _kept(latest.SPEC, (_ADDED,), scope, _WISHES_MAX), _kept(latest.SPEC, _REMOVED, scope, _WISHES_MAX)
        elif name == "cart":
            cart = True
        else:
            often = least.integer(least=1, most=VIEWS_MAX, default=1) if least is not None else 1
            views = _kept(newest.SPEC, (_VIEWED,), scope, VIEWS_MAX)
    return Interest(wishes, cart, views, often)


def _kept(kind: Aggregate, types: tuple[str, ...], scope: Scope, bound: int) -> int:
    return scope.aggregate(kind, types, f"{','.join(types)}|products", _products, bound)


def _products(event: Event) -> list[str]:
    return [item["product_id"] for item in event.props.get("items") or []]
