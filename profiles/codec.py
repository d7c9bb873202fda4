"""Profile <-> bytes: msgpack, version first, upgraded from every older version when read.

    version | seen | first seen | ordinal | flags | the parts that are not empty, in the order of ``_PARTS``

A part that is empty costs no byte: ``flags`` says which follow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from itertools import accumulate
from struct import pack, unpack
from typing import Any, Final

import msgpack

from profiles.state import Cart, Consent, Instance, Line, Order, Profile, Refund, Sent, Session, Trait

VERSION: Final = 6

_pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack
_unpack = msgpack.unpackb

_FORWARD, _LINKS, _RING, _TRAITS, _CONSENTS, _AGGS, _ORDERS, _CARTS = (1 << i for i in range(8))
_SESSION, _MEMBERS, _TIMERS, _RUNS, _ENTRIES, _HELD, _ERASED, _INTEREST, _SENT, _SWEPT = (1 << i for i in range(8, 18))

UPGRADES: Final[dict[int, Callable[[list[Any]], list[Any]]]] = {
    1: lambda fields: [
        2,
        *fields[1:],
    ],  # 2 may hold ``erased_ms``, and a link without a forwarder; else they are alike.
    2: lambda fields: [3, *fields[1:]],  # 3 may hold ``interest``.
    3: lambda fields: [4, *fields[1:]],  # 4 may hold letters that went out.
    4: lambda fields: [5, *fields[1:]],  # 5 may hold ``swept``.
    5: lambda fields: [6, *fields[1:]],  # 6 may hold what was stated of a consent before.
}
"""Version n -> the fields of version n + 1, from the fields of n."""


_NONE_OF_OURS: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, StopIteration, struct.error,
    msgpack.UnpackException,
)  # fmt: skip


class BadBlob(Exception):
    """Stored bytes that are no profile of a version we know."""


def encode(profile: Profile) -> bytes:
    """The profile as bytes; the same history gives the same bytes (parts stand in the order in which they came)."""
    p = profile
    flags = 0
    fields: list[Any] = [VERSION, p.seen_ms, p.first_seen_ms, p.ordinal, 0]
    add = fields.append
    if p.forward or p.link[1]:
        flags |= _FORWARD
        add((p.forward, p.link[0], p.link[1]))
    if p.links:
        flags |= _LINKS
        add(p.links)
    if p.ring:
        flags |= _RING
        # Times as differences: a visit's events are seconds apart, so most take one to five bytes.
        before_ms = 0
        times = []
        for at_ms in p.ring.values():
            times.append(at_ms - before_ms)
            before_ms = at_ms
        add(pack(f"<{len(times)}Q", *p.ring))
        add(times)
    if p.traits:
        flags |= _TRAITS
        add(p.traits)
    if p.consents:
        flags |= _CONSENTS
        add({name: said if said.before else said[:4] for name, said in p.consents.items()})
    if p.aggs:
        flags |= _AGGS
        add(p.aggs)
    if p.orders:
        flags |= _ORDERS
        add([_from_order(order_id, order) for order_id, order in p.orders.items()])
    if p.carts:
        flags |= _CARTS
        add([(cart_id, cart.changed_ms, cart.currency, cart.items) for cart_id, cart in p.carts.items()])
    session = p.session
    if session is not None:
        flags |= _SESSION
        add((session.start_ms, session.last_ms - session.start_ms, session.counts))
    if p.members:
        flags |= _MEMBERS
        add(p.members)
    if p.timers:
        flags |= _TIMERS
        add(p.timers)
    if p.runs:
        flags |= _RUNS
        add([_from_run(run) for run in p.runs.values()])
    if p.entries:
        flags |= _ENTRIES
        add(p.entries)
    if p.held:
        flags |= _HELD
        add(p.held)
    if p.erased_ms:
        flags |= _ERASED
        add(p.erased_ms)
    if p.interest:
        flags |= _INTEREST
        add(p.interest)
    if p.sent:
        flags |= _SENT
        add(p.sent)
    if p.swept:
        flags |= _SWEPT
        add(p.swept)
    fields[4] = flags
    return _pack(fields)


def decode(address: str, blob: bytes) -> Profile:
    """Read a profile of any version.

    Raises:
        BadBlob: not one; the message says what was found.
    """
    try:
        fields = _unpack(blob, strict_map_key=False)
        version = fields[0]
        while version != VERSION:
            fields = UPGRADES[version](fields)
            version = fields[0]
        return _decode(address, fields)
    except _NONE_OF_OURS as error:
        raise BadBlob(
            f"profile blob: version 1 to {VERSION} wanted, {type(error).__name__} in {len(blob)} bytes"
        ) from error


def _decode(address: str, fields: list[Any]) -> Profile:
    p = Profile(address)
    _, p.seen_ms, p.first_seen_ms, p.ordinal, flags = fields[:5]
    parts = iter(fields[5:])
    if flags & _FORWARD:
        p.forward, link_ms, link_id = next(parts)
        p.link = (link_ms, link_id)
    if flags & _LINKS:
        p.links = {to: (at_ms, cause) for to, (at_ms, cause) in next(parts).items()}
    if flags & _RING:
        digests = next(parts)
        p.ring = dict(zip(unpack(f"<{len(digests) // 8}Q", digests), accumulate(next(parts)), strict=True))
    if flags & _TRAITS:
        p.traits = {name: Trait(*trait) for name, trait in next(parts).items()}
    if flags & _CONSENTS:
        p.consents = {name: _to_consent(*row) for name, row in next(parts).items()}
    if flags & _AGGS:
        p.aggs = next(parts)
    if flags & _ORDERS:
        p.orders = {row[0]: _to_order(row) for row in next(parts)}
    if flags & _CARTS:
        for cart_id, changed_ms, currency, items in next(parts):
            cart = p.carts[cart_id] = Cart()
            cart.changed_ms, cart.currency, cart.items = changed_ms, currency, items
    if flags & _SESSION:
        start_ms, length_ms, counts = next(parts)
        session = p.session = Session(start_ms)
        session.last_ms, session.counts = start_ms + length_ms, counts
    if flags & _MEMBERS:
        p.members = next(parts)
    if flags & _TIMERS:
        p.timers = next(parts)
    if flags & _RUNS:
        for row in next(parts):
            run = _to_run(row)
            p.runs[f"{run.trigger}:{run.key}"] = run
    if flags & _ENTRIES:
        p.entries = next(parts)
    if flags & _HELD:
        p.held = next(parts)
    if flags & _ERASED:
        p.erased_ms = next(parts)
    if flags & _INTEREST:
        p.interest = next(parts)
    if flags & _SENT:
        p.sent = [Sent(*one) for one in next(parts)]
    if flags & _SWEPT:
        p.swept = next(parts)
    if next(parts, parts) is not parts:
        raise ValueError("more parts than its flags name")
    return p


def _to_consent(value: Any, at_ms: int, source: str, text: str = "", before: Iterable[Iterable[Any]] = ()) -> Consent:
    earlier: list[tuple[Any, int, str, str]] = []
    for said, said_ms, by, shown in before:
        earlier.append((said, said_ms, by, shown))
    return Consent(value, at_ms, source, text, tuple(earlier))


def _from_order(order_id: str, order: Order) -> tuple[Any, ...]:
    return (
        order_id,
        order.statuses,
        order.told_ms,
        order.currency,
        order.total_minor,
        order.rate_e6,
        order.lines,
        order.refunds,
        order.facts,
    )


def _to_order(row: list[Any]) -> Order:
    order = Order()
    (
        _,
        order.statuses,
        order.told_ms,
        order.currency,
        order.total_minor,
        order.rate_e6,
        lines,
        refunds,
        order.facts,
    ) = row
    order.lines = [Line(*line) for line in lines]
    order.refunds = {
        name: Refund(at_ms, amount, tuple((product, quantity) for product, quantity in back))
        for name, (at_ms, amount, back) in refunds.items()
    }
    return order


def _from_run(run: Instance) -> tuple[Any, ...]:
    return (
        run.trigger,
        run.key,
        run.revision,
        run.at,
        run.due_ms,
        run.opened_by,
        run.occasion,
        run.opened_ms,
        run.cause,
        run.context,
    )


def _to_run(row: list[Any]) -> Instance:
    trigger, key, revision, at, due_ms, opened_by, occasion, opened_ms, cause, context = row
    run = Instance(trigger, key, revision, opened_by, occasion, opened_ms, (cause[0], cause[1]))
    run.at, run.due_ms, run.context = at, due_ms, context
    return run
