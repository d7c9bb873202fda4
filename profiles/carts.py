"""The cart machine: what lies in a customer's cart, with and without a cart id.

Without ``cart_id`` a profile has one cart, named "". Each product remembers when it last changed, so events out of
order end alike: the newest word on a product wins; a whole-cart report (``cart_set``) is the newest word on all
products that it leaves out.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.moments import FOREVER
from profiles.money import line_minor
from profiles.state import CART_LINES_MAX, CARTS, CARTS_MAX, Cart, Profile
from profiles.wire import Event

QUANTITY: Final = 0
PRICE_E6: Final = 1
AT_MS: Final = 2
SAID: Final = 3
_KEPT: Final = ("name", "url", "image_url", "sku", "category", "brand", "variant")


def added(profile: Profile, event: Event) -> None:
    """``product_added``: that many more of each item."""
    cart = _cart(profile, event)
    for item in event.props["items"]:
        line = cart.items.get(item["product_id"])
        quantity = item.get("quantity", 1)
        if line is None:
            if len(cart.items) < CART_LINES_MAX:
                cart.items[item["product_id"]] = _line(item, quantity, event.at_ms)
        elif line[QUANTITY] == 0 and line[AT_MS] > event.at_ms:
            continue  # Taken out since: a late report of the adding does not put it back.
        else:
            line[QUANTITY] += quantity
            if event.at_ms >= line[AT_MS]:
                line[PRICE_E6] = item.get("price_e6", line[PRICE_E6])
                line[AT_MS] = event.at_ms
    _changed(profile, cart, event)
    _bought_since(profile, event.at_ms)


def removed(profile: Profile, event: Event) -> None:
    """``product_removed``: that many less; without a quantity, all of it."""
    cart = _cart(profile, event)
    for item in event.props["items"]:
        line = cart.items.get(item["product_id"])
        if line is not None:
            # A line at zero stays until the cart empties: it says when the product was taken out.
            line[QUANTITY] = max(0, line[QUANTITY] - item["quantity"]) if "quantity" in item else 0
            line[AT_MS] = max(line[AT_MS], event.at_ms)
    _changed(profile, cart, event)


def replaced(profile: Profile, event: Event) -> None:
    """``cart_set``: the whole cart as the shop knows it."""
    cart = _cart(profile, event)
    if event.at_ms < cart.changed_ms:
        return  # The newest report of a whole cart stands.
    cart.items = {
        item["product_id"]: _line(item, item.get("quantity", 1), event.at_ms)
        for item in event.props["items"][:CART_LINES_MAX]
    }
    _changed(profile, cart, event)
    _bought_since(profile, event.at_ms)


def viewed(profile: Profile, event: Event) -> None:
    """``cart_viewed``: with items it is a report of the whole cart; without, only a sign of life."""
    if event.props.get("items"):
        replaced(profile, event)


def bought(profile: Profile, cart_id: str | None, products: list[str], at_ms: int) -> None:
    """An order takes what it holds out of the cart it came from, or, without a cart id, out of every cart.

    An order that names its cart empties it. One whose lines are unknown empties the cart without an id:
    better no reminder than one to somebody who has just bought.
    """
    for name in list(profile.carts):
        cart = profile.carts[name]
        if cart_id is not None and cart_id == name:
            gone = list(cart.items)
        elif not products:
            gone = list(cart.items) if name == "" and cart_id is None else []
        else:
            gone = [product for product in dict.fromkeys(products) if product in cart.items]  # two lines of one product
        gone = [product for product in gone if cart.items[product][AT_MS] <= at_ms]
        for product in gone:
            del cart.items[product]
        if gone:
            profile.dirty |= CARTS
        if not quantity(cart):
            del profile.carts[name]
            profile.dirty |= CARTS


def _bought_since(profile: Profile, at_ms: int) -> None:
    """Take out what was ordered after that instant: the cart was told late, or comes along when two addresses join."""
    for order in profile.orders.values():
        placed_ms = order.statuses.get("placed", -1)
        if placed_ms > at_ms:
            # What was put in at its very instant, it has seen itself.
            bought(profile, order.facts.get("cart_id"), [line.product_id for line in order.lines], placed_ms - 1)


def total_minor(cart: Cart) -> int:
    """What the cart costs, minor units of its currency."""
    return sum(line_minor(line[PRICE_E6], line[QUANTITY], cart.currency) for line in cart.items.values())


def quantity(cart: Cart) -> int:
    """How many pieces are in it."""
    pieces: int = 0
    for line in cart.items.values():
        pieces += line[QUANTITY]
    return pieces


def current(profile: Profile) -> Cart | None:
    """The cart that changed last and holds something."""
    if len(profile.carts) <= 1:
        for cart in profile.carts.values():
            return cart if quantity(cart) else None
        return None
    full = [(cart.changed_ms, name) for name, cart in profile.carts.items() if quantity(cart)]
    return profile.carts[max(full)[1]] if full else None


def payload(cart: Cart) -> list[dict[str, Any]]:
    """The cart's lines for a trigger record, in the order they were put in."""
    return [
        {"product_id": product, "quantity": line[QUANTITY], "price_e6": line[PRICE_E6], **line[SAID]}
        for product, line in cart.items.items()
        if line[QUANTITY]
    ]


def joined(profile: Profile, other: Profile) -> None:
    """The carts of two profiles that are one person, and whose orders are joined: union, the newest word on a product
    wins (SPEC part 5); what either has ordered since is in none."""
    profile.carts = _union(profile.carts, other.carts)
    if profile.carts:
        lines = [line for cart in profile.carts.values() for line in cart.items.values()]
        oldest_ms = min((line[AT_MS] for line in lines), default=FOREVER)
        _bought_since(profile, oldest_ms)


def _union(a: dict[str, Cart], b: dict[str, Cart]) -> dict[str, Cart]:
    both = dict(a)
    for name, cart in b.items():
        mine = both.get(name)
        if mine is None:
            both[name] = cart
            continue
        for product, line in cart.items.items():
            known = mine.items.get(product)
            if known is None or (line[AT_MS], line[QUANTITY]) > (known[AT_MS], known[QUANTITY]):
                mine.items[product] = line
        if cart.changed_ms > mine.changed_ms:
            mine.changed_ms, mine.currency = cart.changed_ms, cart.currency
    return both


def _cart(profile: Profile, event: Event) -> Cart:
    name = event.props.get("cart_id") or ""
    cart = profile.carts.get(name)
    if cart is None:
        while len(profile.carts) >= CARTS_MAX:
            oldest = min(profile.carts, key=lambda known: (profile.carts[known].changed_ms, known))
            del profile.carts[oldest]
        cart = profile.carts[name] = Cart()
    return cart


def _changed(profile: Profile, cart: Cart, event: Event) -> None:
    if event.at_ms >= cart.changed_ms:
        cart.changed_ms = event.at_ms
        cart.currency = event.props.get("currency") or cart.currency
    profile.dirty |= CARTS


def _line(item: dict[str, Any], quantity: int, at_ms: int) -> list[Any]:
    said = {name: item[name] for name in _KEPT if item.get(name)}
    return [quantity, item.get("price_e6", 0), at_ms, said]
