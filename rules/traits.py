"""Traits that rules may name: declared ones, those that every profile has, and what was said of the person.

A declared trait is of one of the kinds in ``rules/kinds``: ``{count: order}``, ``{sum: order.total}``, ``{mean_gap: order}``,
``{rfm: …}``. Some have parts, read as ``name.part``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import rules.kinds
from profiles import carts, orders
from profiles.moments import FOREVER, Duration
from profiles.people import CONTACT
from profiles.spec import discover
from profiles.state import CARTS, SEEN, SESSION, TRAITS, Profile
from rules.documents import Node
from rules.messages import CHANNELS, reader
from rules.series import of_book
from rules.slips import did_you_mean, nearest
from rules.spec import PUBLISH, UNREADABLE, Read, Reader, Reads, Scope, TraitKind
from rules.touches import PARTS, touch

DECLARED: Final[dict[str, dict[str, str]]] = {
    "orders_paid": {"count": "order"},
    "first_order_at": {"first": "order.time"},
    "last_order_at": {"last": "order.time"},
}
"""What every profile has, as one would declare it."""

SAID: Final = (
    *CONTACT, "gender", "birth_date", "language", "address.city", "address.region", "address.country", "children", "pets", "referrer",
)  # fmt: skip
"""What is commonly said of people, by the names in which it is stated."""

_ALIKE: Final = 0.75

KINDS: Final = {spec.name: spec for spec in discover(rules.kinds, TraitKind)}


def declared(name: str, node: Node, scope: Scope) -> dict[str, Reader]:
    """Compile one declared trait; the readers of it and its parts by full name."""
    if not node.is_map():
        node.wrong(f"a mapping wanted, like {{count: order}}, got {node.found()}")
        return {name: UNREADABLE}
    kinds = [kind for kind in KINDS if node.get(kind) is not None]
    if len(kinds) != 1:
        first = next(iter(node.value), "")
        if kinds:
            node.wrong(f"one kind of trait wanted, got {' and '.join(kinds)}")
        elif first:
            node.wrong(f"unknown kind of trait {first!r}{did_you_mean(first, KINDS)}")
        else:
            node.wrong("a kind of trait wanted, like {count: order}, got an empty one")
        return {name: UNREADABLE}
    kind = KINDS[kinds[0]]
    spec = node.get(kind.name)
    assert spec is not None
    node.known((kind.name, *kind.keys, PUBLISH))
    found = kind.compile(name, spec, node, scope)
    publish = node.get(PUBLISH)
    if publish is not None and publish.truth():
        scope.publish(found)
    return found


def built_in(scope: Scope, cart_idle: Duration) -> dict[str, Reader]:
    """The traits that every profile has."""
    zone, currency = scope.zone, scope.currency

    def first_seen(profile: Profile, now_ms: int) -> tuple[Any, int]:
        return profile.first_seen_ms or None, FOREVER

    def registered_at(profile: Profile, now_ms: int) -> tuple[Any, int]:
        trait = profile.traits.get("registered_at")
        return (trait.value if trait is not None else None), FOREVER

    def cart_total(profile: Profile, now_ms: int) -> tuple[Any, int]:
        cart = carts.current(profile)
        # A cart in another currency than the shop's has no total that could be compared.
        return (carts.total_minor(cart) if cart is not None and cart.currency in ("", currency) else 0), FOREVER

    def cart_items(profile: Profile, now_ms: int) -> tuple[Any, int]:
        cart = carts.current(profile)
        return (carts.quantity(cart) if cart is not None else 0), FOREVER

    def cart_state(profile: Profile, now_ms: int) -> tuple[Any, int]:
        cart = carts.current(profile)
        if cart is None:
            return "empty", FOREVER
        idle_ms = cart_idle.after(cart.changed_ms, zone)
        return ("active", idle_ms) if now_ms < idle_ms else ("abandoned", FOREVER)

    def cart_changed(profile: Profile, now_ms: int) -> tuple[Any, int]:
        cart = carts.current(profile)
        return (cart.changed_ms if cart is not None else None), FOREVER

    def session_start(profile: Profile, now_ms: int) -> tuple[Any, int]:
        return (profile.session.start_ms if profile.session is not None else None), FOREVER

    def time_of_order(last: bool) -> Read:
        def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
            counted = orders.fold(profile, scope.counting, currency="")
            return (counted[-1 if last else 0].at_ms if counted else None), FOREVER

        return read

    def orders_paid(profile: Profile, now_ms: int) -> tuple[Any, int]:
        return len(orders.fold(profile, currency="")), FOREVER

    in_cart: Reads = frozenset({("part", CARTS)})
    return {
        "first_seen": Reader(first_seen, "time", frozenset({("part", SEEN)})),
        "registered_at": Reader(registered_at, "time", frozenset({("part", TRAITS)})),
        "cart.total": Reader(cart_total, "money", in_cart),
        "cart.items": Reader(cart_items, "number", in_cart),
        "cart.state": Reader(cart_state, "text", in_cart),
        "cart.changed_at": Reader(cart_changed, "time", in_cart),
        "session.started_at": Reader(session_start, "time", frozenset({("part", SESSION)})),
        "orders_paid": of_book(orders_paid, "number"),
        "first_order_at": of_book(time_of_order(False), "time"),
        "last_order_at": of_book(time_of_order(True), "time"),
    }


def on_demand(path: str, scope: Scope) -> dict[str, Reader]:
    """Traits that every profile could have, and has if a rule names one: touches, and what became of messages."""
    root, _, part = path.partition(".")
    if (part == "at" or part in PARTS) and root in ("first_touch", "last_touch"):
        return touch(root, scope, last=root == "last_touch")
    if part in PARTS and root == "session":
        return touch(root, scope, last=True, in_visit=True)
    found = reader(root, part, scope) if root in CHANNELS else None
    return {} if found is None else {path: found}


def meant(path: str, known: Iterable[str]) -> str:
    """The known trait that a path is hardly different from, or ""; of two paths with one root the rest is compared."""
    root, _, part = path.partition(".")
    beside = {one.partition(".")[2]: one for one in known if part and one.startswith(f"{root}.")}
    near = nearest(part, beside, _ALIKE)
    if near:
        return beside[near]
    ends = {one.rpartition(".")[2]: one for one in known if "." in one}
    return ends.get(path) or nearest(path, [one for one in known if one not in beside.values()], _ALIKE)


def said(path: str) -> Reader:
    """A trait that people or shops state of a customer: ``gender``, ``address.city``, ``custom.mark``."""

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        trait = profile.traits.get(path)
        return (trait.value if trait is not None else None), FOREVER

    return Reader(read, "any", frozenset({("part", TRAITS)}))
