"""The order book: a customer's orders with their statuses, and the folds that every order rule reads.

An order counts from the instant it first has a counting status, and that instant is its time. Cancelled,
returned or wholly refunded, it counts as if it had never been; a partial refund lowers its amount and lines
(SPEC part 5). Reports of one order may come in any order: the newest tells what it holds, the earliest tells when.
"""

from __future__ import annotations

from bisect import insort
from typing import Any, NamedTuple

from profiles import carts
from profiles.errors import BadInput
from profiles.money import exponent
from profiles.state import COUNTING, ORDERS, ORDERS_MAX, STATUSES, VOID, Line, Order, Profile, Refund
from profiles.wire import Event

ALL = -1
BY_LINES = -2
"""Amounts of refunds that name none: all of the order, or whatever the lines taken back had cost."""

FACTS = ("channel", "coupon", "cart_id", "affiliation")
"""Small properties of an order that rules may ask for."""


LINE_ON_DEMAND = ("sku", "name")
"""What of an order's line is kept only where a rule asks for it: names are long."""

CONSUMPTION = "consumption_days"
"""For how long a piece lasts, by the shop: [[product, days], …] in ``Order.facts``, where a rule asks for it."""
DAYS_MAX = 10_000
"""What lasts longer than that is no number of days."""


MARGIN = "margin_minor"
"""What the shop says that it earns by an order, in ``Order.facts``; minor units of the order's currency."""


class Counted(NamedTuple):
    """An order that counts: since when, for how much (minor units of the shop's currency), with which lines; and by how much the
    shop earns, if it said so."""

    at_ms: int
    order_id: str
    amount_minor: int
    lines: tuple[Line, ...]
    facts: dict[str, Any]
    margin_minor: int | None = None


class _Asked(NamedTuple):
    """Which statuses make an order count, and in which currency: the key of a fold."""

    status_in: tuple[str, ...]
    currency: str


def completed(profile: Profile, event: Event) -> None:
    """``order_completed``: placed, and by default paid (the source's mapping says which)."""
    order = _order(profile, event)
    status = event.props.get("status") or "paid"
    _reach(order, "placed", event.at_ms)
    _reach(order, status, event.at_ms)
    _tell(order, event)
    _keep(profile, event)
    products = [item["product_id"] for item in event.props.get("items", ())]
    carts.bought(profile, event.props.get("cart_id"), products, event.at_ms)


def updated(profile: Profile, event: Event) -> None:
    """``order_updated``: what the order holds now."""
    order = _order(profile, event)
    status = event.props.get("status")
    if status:
        _reach(order, status, event.at_ms)
    _tell(order, event)
    _keep(profile, event)


def status_changed(profile: Profile, event: Event) -> None:
    """``order_status_changed``: it reached a status."""
    order = _order(profile, event)
    _reach(order, event.props["to"], event.at_ms)
    _keep(profile, event)


def refunded(profile: Profile, event: Event) -> None:
    """``order_refunded``: some of it, or without an amount and lines all of it, was taken back.

    Lines without amounts take back what the order says of them.
    """
    props = event.props
    order = _order(profile, event)
    items = props.get("items") or ()
    amount = props.get("amount_minor")
    if amount is None:
        priced = bool(items) and all("amount_minor" in item for item in items)
        amount = sum(item["amount_minor"] for item in items) if priced else BY_LINES if items else ALL
    lines = tuple((item["product_id"], item.get("quantity", 1)) for item in items)
    name = props.get("refund_id") or event.message_id
    refund = Refund(event.at_ms, amount, lines)
    # Told in two ways, the newer word on a refund stands, whichever comes first.
    order.refunds[name] = max(refund, order.refunds.get(name, refund))
    _keep(profile, event)


def cancelled(profile: Profile, event: Event) -> None:
    """``order_cancelled``: it counts as if it had never been."""
    order = _order(profile, event)
    _reach(order, "cancelled", event.at_ms)
    _keep(profile, event)


def fold(profile: Profile, status_in: tuple[str, ...] = COUNTING, currency: str = "") -> list[Counted]:
    """The orders that count, by (time, id). Kept on the profile: a report of one order changes that one only.

    Args:
        status_in: which statuses make an order count.
        currency: the shop's; an order in another is converted by its own rate, or left out. "" takes any.
    """
    asked = _Asked(status_in, currency)
    counted: list[Counted] | None = profile.folds.get(asked)
    if counted is None:
        found = [_counted(order_id, order, asked) for order_id, order in profile.orders.items()]
        counted = profile.folds[asked] = sorted(one for one in found if one is not None)
    return counted


def joined(a: dict[str, Order], b: dict[str, Order]) -> dict[str, Order]:
    """The order books of two profiles that are one person: union by order id."""
    both = dict(a)
    for order_id, order in b.items():
        mine = both.get(order_id)
        if mine is None:
            both[order_id] = order
            continue
        for status, at_ms in order.statuses.items():
            _reach(mine, status, at_ms)
        for name, refund in order.refunds.items():
            mine.refunds[name] = max(refund, mine.refunds.get(name, refund))
        if _telling(order) > _telling(mine):
            _copy(order, mine)
    return both


def _counted(order_id: str, order: Order, asked: _Asked) -> Counted | None:
    status_in, currency = asked
    if any(status in order.statuses for status in VOID):
        return None
    reached = [order.statuses[status] for status in status_in if status in order.statuses]
    if not reached or order.told_ms < 0:
        return None
    lines = order.lines
    amount = order.total_minor
    margin = order.facts.get(MARGIN)
    if order.refunds:
        refunds = order.refunds.values()
        back = sum(refund.amount_minor for refund in refunds if refund.amount_minor > 0)
        left = _less(lines, order.refunds)
        if any(refund.amount_minor == BY_LINES for refund in refunds):
            unpriced = {name: one for name, one in order.refunds.items() if one.amount_minor == BY_LINES}
            kept = _less(lines, unpriced)
            back += sum(line.amount_minor for line in lines) - sum(line.amount_minor for line in kept)
            if lines and not left:
                return None  # Every piece was taken back, whatever the sums say.
        if any(refund.amount_minor == ALL for refund in refunds) or (back and back >= amount):
            return None
        amount -= back
        lines = left
        if margin is not None and back:
            margin = margin * amount // order.total_minor  # What was taken back takes its share along.
    if currency and order.currency != currency:
        if not order.rate_e6:
            return None
        scale = 10 ** (exponent(currency) - exponent(order.currency) + 6)
        amount = _converted(amount, order.rate_e6, scale)
        lines = [line._replace(amount_minor=_converted(line.amount_minor, order.rate_e6, scale)) for line in lines]
        margin = _converted(margin, order.rate_e6, scale) if margin is not None else None
    return Counted(min(reached), order_id, amount, tuple(lines), order.facts, margin)


def _converted(amount_minor: int, rate_e6: int, scale: int) -> int:
    # rate_e6 millionths of the shop's major unit per major unit of the order's; scale carries both exponents.
    return (amount_minor * rate_e6 * scale // 10**6 + 10**6 // 2) // 10**6


def _less(lines: list[Line], refunds: dict[str, Refund]) -> list[Line]:
    back: dict[str, int] = {}
    for refund in refunds.values():
        for product, quantity in refund.lines:
            back[product] = back.get(product, 0) + quantity
    kept: list[Line] = []
    for line in lines:
        gone = min(line.quantity, back.get(line.product_id, 0))
        back[line.product_id] = back.get(line.product_id, 0) - gone
        if gone < line.quantity:
            amount = line.amount_minor * (line.quantity - gone) // line.quantity
            kept.append(line._replace(quantity=line.quantity - gone, amount_minor=amount))
    return kept


def _order(profile: Profile, event: Event) -> Order:
    order_id = event.props["order_id"]
    order = profile.orders.get(order_id)
    if order is None:
        if len(profile.orders) >= ORDERS_MAX and event.at_ms < min(o.first_ms() for o in profile.orders.values()):
            raise BadInput("too_late", f"order book: an order among the newest {ORDERS_MAX} wanted, got an older one")
        order = profile.orders[order_id] = Order()
    return order


def _reach(order: Order, status: str, at_ms: int) -> None:
    assert status in STATUSES, status
    known = order.statuses.get(status)
    if known is None or at_ms < known:
        order.statuses[status] = at_ms


def _tell(order: Order, event: Event) -> None:
    if event.at_ms > order.told_ms:
        _write(order, event)
    elif event.at_ms == order.told_ms:
        # Two reports of one instant: whichever comes first, the same one stands.
        other = Order()
        _write(other, event)
        if _telling(other) > _telling(order):
            _copy(other, order)


def _write(order: Order, event: Event) -> None:
    props = event.props
    order.told_ms = event.at_ms
    order.currency = props["currency"]
    order.total_minor = props["total_minor"]
    order.rate_e6 = props.get("rate_e6", 0)
    order.facts = {name: props[name] for name in FACTS if props.get(name)}
    if MARGIN in props:
        order.facts[MARGIN] = props[MARGIN]
    if CONSUMPTION in event.keeps:
        said = {item["product_id"]: item.get(CONSUMPTION) for item in props.get("items", ())}
        lasting = sorted(
            [one, days] for one, days in said.items() if type(days) in (int, float) and 0 < days < DAYS_MAX
        )
        if lasting:
            order.facts[CONSUMPTION] = lasting
    order.lines = [
        Line(
            item["product_id"],
            item.get("category", ""),
            item.get("brand", ""),
            item.get("quantity", 1),
            item.get("amount_minor", 0),
            *((item.get(name, "") if name in event.keeps else "" for name in LINE_ON_DEMAND) if event.keeps else ()),
        )
        for item in props.get("items", ())
    ]


def _telling(order: Order) -> tuple[Any, ...]:
    """What orders two reports: the newer stands, and of one instant the greater."""
    return order.told_ms, order.total_minor, order.currency, order.rate_e6, order.lines, sorted(order.facts.items())


def _copy(told: Order, order: Order) -> None:
    order.told_ms, order.currency, order.total_minor = told.told_ms, told.currency, told.total_minor
    order.rate_e6, order.lines, order.facts = told.rate_e6, told.lines, told.facts


def _keep(profile: Profile, event: Event) -> None:
    """What follows from a change of the event's order: of the folds all but that order stays as it was."""
    changed = [event.props["order_id"]]
    if len(profile.orders) > ORDERS_MAX:
        oldest = min(profile.orders, key=lambda order_id: (profile.orders[order_id].first_ms(), order_id))
        del profile.orders[oldest]
        changed.append(oldest)
    folds = [(asked, counted) for asked, counted in profile.folds.items() if type(asked) is _Asked]
    profile.folds.clear()
    for asked, counted in folds:
        others = [one for one in counted if one.order_id not in changed]
        for order_id in changed:
            order = profile.orders.get(order_id)
            one = _counted(order_id, order, asked) if order is not None else None
            if one is not None:
                insort(others, one)
        profile.folds[asked] = others
    profile.dirty |= ORDERS
