"""All that crosses a topic: names, keys and the shapes of what is in them.

Values are JSON (``profile_commands``, which is internal, is msgpack). A record's key is an address.
An event has two times: ``at_ms``, when it happened, and ``received_ms``, written once by whoever
appends it; the shell turns the latter into ``seen_ms``, the shard's logical time, which never goes back.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32encode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgpack
import orjson

from profiles.errors import BadInput
from profiles.ids import SHARDS

# Topics in. Their order here is the order in which records of one logical time are applied.
CUSTOMER_EVENTS: Final = "customer_events"
PAGE_VIEWS: Final = "page_views"
CART_EVENTS: Final = "cart_events"
ORDER_EVENTS: Final = "order_events"
EMAIL_EVENTS: Final = "email_events"
CATALOG_EVENTS: Final = "catalog_events"
PROFILE_COMMANDS: Final = "profile_commands"
EVENT_TOPICS: Final = (CUSTOMER_EVENTS, PAGE_VIEWS, CART_EVENTS, ORDER_EVENTS, EMAIL_EVENTS, CATALOG_EVENTS)
INPUT_TOPICS: Final = (*EVENT_TOPICS, PROFILE_COMMANDS)

# Topics out.
SEGMENT_CHANGES: Final = "segment_changes"
TRAIT_CHANGES: Final = "trait_changes"
DECISIONS: Final = "decisions"
DEAD_LETTERS: Final = "dead_letters"
ERASURES: Final = "erasures"
TASKS: Final = "tasks"
COUPONS: Final = "coupons"
AUDIENCES: Final = "audiences"
TRIGGERS_PREFIX: Final = "triggers."

_pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack  # one for all: making one costs more than packing

FAR_MS: Final = 1 << 47
"""The year 6429: whatever bears a later instant, or one as long before 1970, is none."""


_MARK_CHARS: Final = 8
_UNMARKED: Final = "#" * _MARK_CHARS


def coupon_stem(offer: str, coupon_id: str) -> str:
    """All of a coupon's code but its mark: the offer, and what tells its occasion from others (40 bits)."""
    return f"{offer.upper()}-{b32encode(bytes.fromhex(coupon_id)[:5]).decode()}"


def coupon_code(stem: str, secret: bytes | None = None) -> str:
    """A coupon's code. Its mark is made with the installation secret, which the core does not know: it writes a blank."""
    mark = _UNMARKED
    if secret is not None:
        mark = b32encode(hmac.new(secret, f"coupon:{stem}".encode(), hashlib.sha256).digest()[:5]).decode()
    return f"{stem}-{mark}"


def completed(record: Record, stems: Iterable[str], secret: bytes) -> Record:
    """The same with the marks of these coupons."""
    value = record.value
    for stem in stems:
        value = value.replace(coupon_code(stem).encode(), coupon_code(stem, secret).encode())
    return record._replace(value=value)


def trigger_topic(trigger: str) -> str:
    """The topic on which that trigger's records go out."""
    return TRIGGERS_PREFIX + trigger


@dataclass(slots=True)
class Event:
    """Something happened to a customer. ``props`` are canonical: what ``profiles/event_types`` validated.

    Attributes:
        message_id: the sender's id, unchanged by its retries; with ``source`` the idempotency key.
        source: which write key, file or adapter it came by.
        type: canonical name, e.g. ``product_added``.
        at_ms: when it happened, skew-corrected, at most ``received_ms``.
        received_ms: when it was appended (logical time on the wire), epoch ms.
        address: where it goes: the strongest identifier that it carries; the record's key.
        identifiers: the other addresses it names, strongest first; ``trusted`` says whether all may be linked.
        props: the payload by the type's schema; money in minor units.
        traits: what the event says of the person (plain values).
        context: page, campaign, locale, timezone and the like; whatever the SDK sent and we keep.
        trusted: came by a secret key, a signed webhook or a file; else only anonymous ids may be linked.
        backfill: history: changes state, publishes nothing to the outside (R14).
        seen_ms: logical time in the shard; set by the shell, equal to ``received_ms`` unless reordered.
        keeps: what the rules ask of order lines beside what is always kept; set by the engine, not on the wire.
    """

    message_id: str
    source: str
    type: str
    at_ms: int
    received_ms: int
    address: str
    identifiers: tuple[str, ...] = ()
    props: dict[str, Any] = field(default_factory=dict)
    traits: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    trusted: bool = False
    backfill: bool = False
    seen_ms: int = 0
    keeps: tuple[str, ...] = ()


def encode_event(event: Event) -> bytes:
    """The JSON value of an event record. Empty parts are left out."""
    value: dict[str, Any] = {
        "message_id": event.message_id,
        "source": event.source,
        "type": event.type,
        "at_ms": event.at_ms,
        "received_ms": event.received_ms,
        "address": event.address,
    }
    if event.identifiers:
        value["identifiers"] = event.identifiers
    if event.props:
        value["props"] = event.props
    if event.traits:
        value["traits"] = event.traits
    if event.context:
        value["context"] = event.context
    if event.trusted:
        value["trusted"] = True
    if event.backfill:
        value["backfill"] = True
    return orjson.dumps(value)


def _is_text(value: Any) -> bool:
    return type(value) is str


def decode_event(value: bytes) -> Event:
    """Read the JSON value of an event record.

    Raises:
        BadInput: ``malformed``: not JSON, or not an envelope; says which field.
    """
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadInput("malformed", f"event value: JSON wanted, got something else at {error.pos}") from None
    try:
        get = raw.get
        identifiers = get("identifiers") or ()
        event = Event(
            raw["message_id"],
            raw["source"],
            raw["type"],
            raw["at_ms"],
            raw["received_ms"],
            raw["address"],
            tuple(identifiers),
            get("props") or {},
            get("traits") or {},
            get("context") or {},
            get("trusted", False) is True,
            get("backfill", False) is True,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput("malformed", f"event value: an envelope wanted, {type(error).__name__} at {error}") from None
    at_ms, received_ms = event.at_ms, event.received_ms
    if type(at_ms) is not int or type(received_ms) is not int or not -FAR_MS < at_ms <= received_ms < FAR_MS:
        raise BadInput("malformed", "event value: integers at_ms <= received_ms of this age wanted")
    if identifiers and (type(identifiers) is not list or not all(map(_is_text, identifiers))):
        raise BadInput("malformed", "event value: a list of texts wanted in identifiers")
    if not (type(event.type) is type(event.message_id) is type(event.source) is type(event.address) is str):
        raise BadInput("malformed", "event value: text wanted in message_id, source, type and address")
    if not (type(event.props) is type(event.traits) is type(event.context) is dict):
        raise BadInput("malformed", "event value: objects wanted in props, traits and context")
    return event


@dataclass(slots=True)
class Wake:
    """The profile's alarm is due: all its timers up to ``due_ms`` fire, each at its own instant.

    ``backfill``: the clock that made it due runs over history; what follows publishes nothing (R14).
    """

    due_ms: int
    backfill: bool = False

    @property
    def seen_ms(self) -> int:
        """Logical time of the wake: the instant it was due."""
        return self.due_ms


class Coordinates(NamedTuple):
    """Which input record caused a command: the receiver takes each sender shard's once, in order (R2)."""

    shard: int
    topic: str
    offset: int
    ordinal: int


class Said(NamedTuple):
    """The write of a shard on which a command stands: in which ownership it was written, and the how-manieth of the shard
    it was."""

    life: bytes
    number: int


LINK: Final = "link"  # to an address: forward to `other` from now on, and send it what you hold
ABSORB: Final = "absorb"  # to a profile: `other` forwards to you now; its profile is in `body`
FORWARD: Final = "forward"  # to a profile: an event that reached a forwarder; its value is in `body`
RETURN: Final = "return"  # to an address parted from `other`: an event that it had passed on; its value is in `body`
RELEASE: Final = "release"  # to a profile: `other` forwards to somebody else now
EDIT: Final = "edit"  # to a profile: an authorised person states something by hand; the edit is in `body`
ERASE: Final = "erase"  # to whom it leads: forget this person; to an alias of `other`: you were his
UNMERGE: Final = "unmerge"  # to a profile: it and `other` are two persons; both, apart, are in `body`
MERGE: Final = "merge"  # to a known user: you and `other`, a known user too, are one person; only ever an operator's
PART: Final = "part"  # to an address that forwards to `other`: hold a profile of your own again; it is in `body`
NEWS: Final = "news"  # to a partition: news of product `other`, for whom it may interest; the event is in `body`
SWEEP: Final = "sweep"  # to a profile: of the base other things are known from now on; which, the rulebook says
FILL: Final = "fill"  # to a profile at the input that `link` names: statistics computed from the log, in `body`
RULES: Final = "rules"  # to a profile: the rules are others from now on
FACTS: Final = "facts"  # to a partition: the next generation of facts; it is in `body`
MARK: Final = "mark"  # to a partition: its owner has claimed it; what was told it before lies before this in the log


@dataclass(slots=True)
class Command:
    """One shard tells an address to do something (topic ``profile_commands``, keyed by that address).

    Attributes:
        kind: one of the words above.
        address: whom it tells.
        other: the address it is about.
        link: (event time, message id) of the link it stands on; the greatest wins.
        body: msgpack or JSON bytes, by kind.
        received_ms: logical time of the input that caused it.
        cause: that input's coordinates.
        backfill: the link came with history.
        said: the write of the sending shard on which it stands; ``None``: an operator's, or nobody asks for it.
        seen_ms: logical time in the receiving shard; set by the shell.
    """

    kind: str
    address: str
    other: str
    link: tuple[int, str]
    body: bytes
    received_ms: int
    cause: Coordinates = Coordinates(0, "", 0, 0)
    backfill: bool = False
    said: Said | None = None
    seen_ms: int = 0


def encode_command(command: Command) -> bytes:
    """The msgpack value of a command record."""
    return _pack(
        (
            1,
            command.kind,
            command.address,
            command.other,
            command.link,
            command.body,
            command.received_ms,
            command.cause,
            command.backfill,
            command.said,
        )
    )


def decode_command(value: bytes) -> Command:
    """Read a command record.

    Raises:
        BadInput: ``malformed``: not a command of a version that we know.
    """
    try:
        # Commands written before there was `said` end with `backfill`.
        version, kind, address, other, link, body, received_ms, cause, backfill, *more = msgpack.unpackb(value)
        if version != 1:
            raise ValueError(version)
        (said,) = more or (None,)
        command = Command(
            kind,
            address,
            other,
            (link[0], link[1]),
            body,
            received_ms,
            Coordinates(*cause),
            backfill,
            None if said is None else Said(*said),
        )
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise BadInput("malformed", f"command value: version 1 wanted, {type(error).__name__}") from None
    shard, topic, offset, ordinal = command.cause
    is_sound = (
        all(map(_is_text, (kind, address, other, command.link[1], topic)))
        and all(type(number) is int for number in (command.link[0], received_ms, shard, offset, ordinal))
        and type(body) is bytes
        and type(backfill) is bool
        and -FAR_MS < received_ms < FAR_MS
        and (command.said is None or (type(command.said.life) is bytes and type(command.said.number) is int))
        and 0 <= shard < SHARDS
    )
    if not is_sound:
        raise BadInput("malformed", "command value: text, numbers and bytes in their places wanted")
    return command


def is_operators(command: Command) -> bool:
    """Whether no shard has sent it but somebody authorised: it bears no coordinates, only its own id (``link``)."""
    return not command.cause.topic


class Record(NamedTuple):
    """One record to be published: what an outbox holds."""

    topic: str
    key: str
    value: bytes


def pack_record(record: Record) -> bytes:
    """A record as outbox bytes; published again after a crash, they are the same bytes (R13)."""
    return _pack(record)


def unpack_record(value: bytes) -> Record:
    """Read outbox bytes."""
    return Record(*msgpack.unpackb(value))


def dead_letter(
    *,
    reason: str,
    detail: str,
    topic: str,
    original: bytes,
    at: str,
    where: dict[str, Any],
) -> bytes:
    """The JSON value of a dead letter: why, whence, and the original bytes.

    Args:
        reason: a stable word, the metric's label.
        detail: where, what was wanted, what was found; no personal data.
        topic: the topic the event was on, or would have gone to.
        original: as received; kept in base64 unless it is UTF-8 text.
        at: ISO instant (logical).
        where: source coordinates: partition and offset, or collector request.
    """
    body: dict[str, Any] = {"reason": reason, "detail": detail, "topic": topic, "at": at, "where": where}
    try:
        body["original"] = original.decode()
    except UnicodeDecodeError:
        body["original_base64"] = b64encode(original).decode()
    return orjson.dumps(body)
