"""What a customer is to us: one profile, the whole state that ``step`` reads and changes.

A profile belongs to one address and one writer. Hot code mutates a profile that it has just decoded and owns;
whoever changes a part says so in ``dirty``, and only rules that read that part are judged again.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

# Parts of a profile that rules read: bits of ``Profile.dirty``. The compiler gives each aggregate
# and each segment a bit of its own, from ``PARTS`` up.
TRAITS: Final = 1
ORDERS: Final = 2
CARTS: Final = 4
SESSION: Final = 8
CONSENTS: Final = 16
SEEN: Final = 32  # first_seen_ms changed
FACTS: Final = 64  # of the whole base: other ones came
PARTS: Final = 8  # number of bits reserved for parts

ORDERS_MAX: Final = 200
RING_MAX: Final = 300
LINKS_MAX: Final = 100
TRAITS_MAX: Final = 200
CART_LINES_MAX: Final = 50
CARTS_MAX: Final = 5
SENT_MAX: Final = 8

COUNTING: Final = ("paid", "shipped", "delivered")
VOID: Final = ("cancelled", "returned")
STATUSES: Final = ("placed", "confirmed", "paid", "shipped", "delivered", "cancelled", "returned")


class Trait(NamedTuple):
    """What somebody said of a person: the value, when, and by which source."""

    value: Any
    at_ms: int
    source: str


class Consent(NamedTuple):
    """What somebody allowed or refused: ``granted`` or ``denied``, when, by which source, and which text he was shown.

    Attributes:
        before: what was stated before it, newest first: (value, at_ms, source, text) each.
    """

    value: Any
    at_ms: int
    source: str
    text: str = ""
    before: tuple[tuple[Any, int, str, str], ...] = ()


class Line(NamedTuple):
    """One line of an order. ``amount_minor`` in the order's currency; ``category`` is a path, ``tools/drills``.

    ``sku`` and ``name`` only where a rule asks for them (``Event.keeps``).
    """

    product_id: str
    category: str
    brand: str
    quantity: int
    amount_minor: int
    sku: str = ""
    name: str = ""


class Refund(NamedTuple):
    """A part of an order taken back. ``amount_minor`` -1: all of it; -2: what the lines taken back had cost."""

    at_ms: int
    amount_minor: int
    lines: tuple[tuple[str, int], ...]


class Sent(NamedTuple):
    """A letter that went out, kept for what may be told late of the time before it.

    Attributes:
        at_ms: when it was decided.
        trigger, key, step, opened_by, occasion, opened_ms: of its journey; together they are its id.
    """

    at_ms: int
    trigger: str
    key: str
    step: str
    opened_by: str
    occasion: str
    opened_ms: int


class Order:
    """One order: when it reached which status, what it holds, what was taken back.

    Attributes:
        statuses: status -> the first instant it had it.
        told_ms: event time of the report that ``total_minor``, ``lines`` and ``facts`` stand on; the newest wins.
        facts: small properties that rules may ask for: channel, coupon, cart_id.
    """

    __slots__ = ("currency", "facts", "lines", "rate_e6", "refunds", "statuses", "told_ms", "total_minor")

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.told_ms = -1
        self.currency = ""
        self.total_minor = 0
        self.rate_e6 = 0
        self.lines: list[Line] = []
        self.refunds: dict[str, Refund] = {}
        self.facts: dict[str, Any] = {}

    def status(self) -> str | None:
        """The status that it reached last; of several at one instant the furthest."""
        if not self.statuses:
            return None
        return max(self.statuses, key=lambda one: (self.statuses[one], STATUSES.index(one) if one in STATUSES else -1))

    def first_ms(self) -> int:
        """The earliest instant known of it."""
        times = [*self.statuses.values(), *(refund.at_ms for refund in self.refunds.values())]
        return min(times) if times else self.told_ms


class Cart:
    """One open cart: product -> [quantity, unit price in millionths, when it last changed, what else was said]."""

    __slots__ = ("changed_ms", "currency", "items")

    def __init__(self) -> None:
        self.items: dict[str, list[Any]] = {}
        self.currency = ""
        self.changed_ms = 0


class Session:
    """The visit under way: it ends ``gap`` after ``last_ms``."""

    __slots__ = ("counts", "last_ms", "start_ms")

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self.last_ms = start_ms
        self.counts: dict[str, int] = {}


class Instance:
    """One run of a trigger for one key: a journey.

    Attributes:
        revision: content hash of the trigger document that it was opened under.
        at: index into the trigger's program.
        due_ms: when it goes on by itself; 0: it waits for nothing.
        opened_by: the address whose shard opened it, kept through merges (R13).
        occasion: what makes this run unique, for the trigger id.
        opened_ms: when it was opened or last restarted; of two that meet at a join the later goes on.
        cause: (event type, message id) that opened or last restarted it.
    """

    __slots__ = ("at", "cause", "context", "due_ms", "key", "occasion", "opened_by", "opened_ms", "revision", "trigger")

    def __init__(
        self,
        trigger: str,
        key: str,
        revision: str,
        opened_by: str,
        occasion: str,
        opened_ms: int,
        cause: tuple[str, str],
    ) -> None:
        self.trigger = trigger
        self.key = key
        self.revision = revision
        self.at = 0
        self.due_ms = 0
        self.opened_by = opened_by
        self.occasion = occasion
        self.opened_ms = opened_ms
        self.cause = cause
        self.context: dict[str, Any] = {}


ATTRIBUTES: Final = (
    "address",
    "aggs",
    "carts",
    "consents",
    "dirty",
    "entries",
    "erased_ms",
    "facts",
    "first_seen_ms",
    "folds",
    "forward",
    "held",
    "interest",
    "link",
    "links",
    "members",
    "orders",
    "ordinal",
    "ring",
    "runs",
    "seen_ms",
    "sent",
    "session",
    "swept",
    "timers",
    "traits",
)
"""What a ``Profile`` consists of."""


class Profile:
    """The live profile of an address, or a forwarder to another.

    Attributes:
        address: where it lives (not stored in the blob).
        ordinal: its number in its shard's membership bitmaps; -1 until it is first stored.
        seen_ms: logical time of the last input.
        first_seen_ms: event time of the earliest event; 0 before any.
        forward: the address that it forwards to; "" for a profile.
        link: (event time, message id) of the link that ``forward`` stands on; without one, of the un-merge that undid it.
        links: address -> link, of addresses that forward to this one.
        ring: digest of (source, message id) -> seen_ms, of the last events; oldest first.
        traits, consents ("channel:topic" -> Consent), orders, carts, session: by name.
        aggs: aggregate id -> state.
        members: segment id -> since, the instant it entered.
        timers: name -> due instant; the earliest is the alarm. Names: a segment's id, ``session``,
            ``age:<trigger>``, ``out:<trigger>:<product>``, ``run:<trigger>:<key>``.
        runs: ``trigger:key`` -> the live journey.
        entries: trigger -> [times entered, last entry], for re-entry; ``kind:…`` -> what was served last, of which the greater
            stands: of a timer when it was due, and what it followed from where that is kept.
        sent: the newest letters that may be regretted, oldest first (rules/regrets.py).
        erased_ms: what happened up to then was erased; 0: nothing was (profiles/erasure.py).
        held: inputs that wait for an alarm's gate, oldest first (docs/decisions).
        interest: products of whose news the shard's index says that they may interest him.
        swept: the number of the last sweep that it has met: of the facts that it is judged by.
        facts: these facts (not stored).
        dirty: parts changed since the rules were last judged (not stored).
        folds: order folds, made when asked for (not stored).
    """

    __slots__ = ATTRIBUTES

    def __init__(self, address: str) -> None:
        self.address = address
        self.ordinal = -1
        self.seen_ms = 0
        self.first_seen_ms = 0
        self.forward = ""
        self.link: tuple[int, str] = (0, "")
        self.links: dict[str, tuple[int, str]] = {}
        self.ring: dict[int, int] = {}
        self.traits: dict[str, Trait] = {}
        self.consents: dict[str, Consent] = {}
        self.aggs: dict[int, Any] = {}
        self.orders: dict[str, Order] = {}
        self.carts: dict[str, Cart] = {}
        self.session: Session | None = None
        self.members: dict[int, int] = {}
        self.timers: dict[Any, int] = {}
        self.runs: dict[str, Instance] = {}
        self.entries: dict[str, list[int]] = {}
        self.sent: list[Sent] = []
        self.erased_ms = 0
        self.held: list[list[Any]] = []
        self.interest: list[str] = []
        self.swept = 0
        self.facts: Any = None
        self.dirty = 0
        self.folds: dict[Any, Any] = {}

    def alarm_ms(self) -> int | None:
        """The earliest timer, or ``None``."""
        return min(self.timers.values()) if self.timers else None
