"""Decides what becomes of a request: its events go to their topics, what cannot be accepted is a dead letter.

Pure: bytes in, records out. One bad event never costs its neighbours in the batch: SDKs know only whole-batch
success, so a refusal of the batch would lose the good ones.

- *Who.* The strongest identifier is the record's key. A public key names user and anonymous ids only; a secret key
  also e-mail, phone, card and device, from traits and ``context.externalIds``. ``null``, ``""`` and an absent id are
  one thing, and so are the words that broken pages send for it (``undefined``).
- *When.* ``timestamp``, else ``originalTimestamp``, else the arrival. A public sender's clock is corrected by
  ``sentAt`` (Segment's formula); a secret one's is believed. Ahead of us by up to 5 minutes becomes the arrival.
- *Again.* ``messageId`` tells a repeat. Without one it is derived from the event's own bytes without ``sentAt``, so a
  client that sends the same bytes again repeats itself.
- *What of the person.* Traits are taken from ``identify`` alone. Browser SDKs repeat the last traits in every later
  event: believed there, a page opened last month would overwrite what was said since. An e-mail or phone that a
  trusted event is filed under is a trait of it, whatever its type: the address holds only a hash. But of letters: one
  that is opened today may have gone to an address that was given up since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from connectors.collector.body import Parsed, kind_of, slices
from connectors.collector.context import NO_REFERRER, keep, machine_of
from connectors.collector.keys import Source
from profiles import ids
from profiles.catalogue import PRODUCT, Catalogue
from profiles.errors import BadInput
from profiles.moments import MINUTE_MS, iso, parse_instant
from profiles.payloads import TEXT_CHARS_MAX, kept
from profiles.taxonomy import EVENT_TYPES, canonical, resolve
from profiles.wire import CATALOG_EVENTS, DEAD_LETTERS, EMAIL_EVENTS, Event, Record, dead_letter, encode_event

AHEAD_MS_MAX: Final = 5 * MINUTE_MS
TRAITS_KEYS_MAX: Final = 100
MESSAGE_ID_CHARS_MAX: Final = 200
ORIGINAL_BYTES_MAX: Final = 256 << 10
"""A refused event is kept so far."""

LETTER_BYTES_MAX: Final = 900_000
"""Below Kafka's 1 MiB: a record that the broker never takes would be sent again for ever."""

CALLS: Final = {
    "track": "", "identify": "identify", "page": "page", "screen": "screen", "group": "grouped", "alias": "alias",
}  # fmt: skip
"""Segment's calls and the names by which the taxonomy knows them; a track call brings its own."""

HOOK: Final = "hook"
"""What a dead letter calls the call of a webhook."""

_NOBODY: Final = frozenset(
    {"null", "undefined", "none", "nan", "[object object]", "00000000-0000-0000-0000-000000000000"}
)
_EXTERNAL_IDS: Final = {
    "email": "email", "phone": "phone", "card": "card", "loyalty_card": "card", "device": "device", "device_id": "device",
    "ios.id": "device", "android.id": "device",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of a request beside its body.

    Attributes:
        source: whose write key it came with.
        received_ms: the instant of arrival, epoch ms UTC.
        secret: the installation secret.
        event_bytes_max: largest event as sent.
        backfill: it came by ``/v1/import``.
        user_agent: of the browser that sent it; stands in for an absent ``context.userAgent``.
        seen: added to every event's context: ``ip``, ``place``.
        goods: the shop's catalogue, where it is at hand.
        headers: of a webhook, without which its body cannot be read again; they stay with a dead letter.
    """

    source: Source
    received_ms: int
    secret: bytes
    event_bytes_max: int
    backfill: bool = False
    user_agent: str = ""
    seen: Mapping[str, Any] = field(default_factory=dict)
    goods: Catalogue | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one event was not accepted.

    Attributes:
        place: its index in the batch.
        reason: a stable word.
        detail: where, what was wanted, what was found.
        topic: where it would have gone; empty if that could not be told.
    """

    place: int
    reason: str
    detail: str
    topic: str


@dataclass(slots=True)
class Admission:
    """What becomes of a request.

    Attributes:
        records: to be published: accepted events, then dead letters.
        accepted: canonical type -> how many events; a name that is not ours counts as ``other``.
        refusals: one for each dead letter.
    """

    records: list[Record]
    accepted: dict[str, int]
    refusals: list[Refusal]


def admit(parsed: Parsed, given: Given) -> Admission:
    """Turn every event of a body into the record that it becomes."""
    records: list[Record] = []
    accepted: dict[str, int] = {}
    refusals: list[Refusal] = []
    whole = parsed.whole
    batched = parsed.call == "batch"
    # Sizes are looked at only where one event could be too large.
    sized = len(parsed.body) > given.event_bytes_max
    sent_ms = _sent(whole.get("sentAt"))
    around = whole.get("context") if batched else None
    for place, raw in enumerate(parsed.events):
        topic = ""
        try:
            if type(raw) is not dict:
                if isinstance(raw, BadInput):
                    raise raw
                raise BadInput("not_an_object", f"event: an object wanted, got {kind_of(raw)}")
            if sized:
                _check_size(raw, given.event_bytes_max)
            call = _call(raw, parsed.call)
            event_type = resolve(_name(raw, call))
            topic = event_type.topic
            context = _object(raw, "context")
            if around is not None and not context and type(around) is dict:
                context = around
            properties = _properties(raw, call, context)
            event = Event(
                message_id=message_id_of(raw, place),
                source=given.source.name,
                type=event_type.name,
                at_ms=_at(raw, sent_ms, given),
                received_ms=given.received_ms,
                address="",
                props=canonical(event_type, properties),
                trusted=given.source.trusted,
                backfill=given.backfill or given.source.backfill,
            )
            if topic == CATALOG_EVENTS:
                _say_what(event)
            else:
                _say_who(event, raw, call, context, given.secret)
                _say_where(event, call, properties, context, given)
            if topic == EMAIL_EVENTS:
                event.traits = {}
                _say_what_reacted(event, context)
            if given.goods is not None and (items := event.props.get("items")):
                _say_of_goods(items, given.goods)
            records.append(Record(topic, event.address, encode_event(event)))
        except BadInput as error:
            refusals.append(Refusal(place, error.reason, str(error), topic))
        except orjson.JSONEncodeError:
            # From the encoder: nothing that we read is of a kind that it does not know, so it is the size of it.
            refusals.append(Refusal(place, "too_deep", "event: fewer levels or smaller numbers wanted", topic))
        else:
            label = event.type if event.type in EVENT_TYPES else "other"
            accepted[label] = accepted.get(label, 0) + 1
    if refusals:
        records += _letters(parsed, refusals, given)
    return Admission(records, accepted, refusals)


def refused_whole(call: str, body: bytes, error: BadInput, given: Given) -> Record:
    """The dead letter of a body that could not be read."""
    refusal = Refusal(0, error.reason, str(error), "")
    return _letter(refusal, body, call, given)


def _letters(parsed: Parsed, refusals: list[Refusal], given: Given) -> list[Record]:
    try:
        originals = slices(parsed)
    except (ValueError, RecursionError):
        originals = []
    if len(originals) != len(parsed.events):
        # Their own bytes cannot be told apart: the same JSON stands in.
        originals = [_dumped(raw) if parsed.origins is None else parsed.body for raw in parsed.events]
    key = parsed.whole.get("writeKey")
    hidden = key.encode() if type(key) is str and key and given.source.trusted else b""
    call = parsed.call if parsed.origins is None else HOOK
    letters = []
    for refusal in refusals:
        original = originals[refusal.place]
        if hidden:
            original = original.replace(hidden, b"...")
        letters.append(_letter(refusal, original, call, given))
    return letters


def _letter(refusal: Refusal, original: bytes, call: str, given: Given) -> Record:
    value = _letter_value(refusal, original, call, given, ORIGINAL_BYTES_MAX)
    if len(value) > LETTER_BYTES_MAX:
        # Bytes that JSON writes six times as long: control characters.
        value = _letter_value(refusal, original, call, given, ORIGINAL_BYTES_MAX // 6)
    return Record(DEAD_LETTERS, hashlib.blake2b(original, digest_size=16).hexdigest(), value)


def _letter_value(refusal: Refusal, original: bytes, call: str, given: Given, bytes_max: int) -> bytes:
    detail = refusal.detail
    if len(original) > bytes_max:
        detail += f" (original cut to {bytes_max} of {len(original)} bytes)"
    return dead_letter(
        reason=refusal.reason,
        detail=detail,
        topic=refusal.topic,
        original=original[:bytes_max],
        at=iso(given.received_ms),
        where={
            "collector": call,
            "source": given.source.name,
            "place": refusal.place,
            **({"backfill": True} if given.backfill else {}),
            **({"headers": dict(given.headers)} if given.headers else {}),
        },
    )


def _call(raw: dict[str, Any], path: str) -> str:
    if path != "batch":
        return path
    call = raw.get("type")
    if type(call) is str and call in CALLS:
        return call
    if call is None and raw.get("event") is not None:
        return "track"
    found = "another word" if type(call) is str else kind_of(call)
    raise BadInput("bad_type", f"type: one of {', '.join(CALLS)} wanted, got {found}")


def _name(raw: dict[str, Any], call: str) -> str:
    if call != "track":
        return CALLS[call]
    name = raw.get("event")
    if type(name) is not str:
        raise BadInput("bad_name", f"event: a name as text wanted, got {kind_of(name)}")
    return name


def _properties(raw: dict[str, Any], call: str, context: dict[str, Any]) -> dict[str, Any]:
    properties = _object(raw, "properties")
    if call == "track":
        return properties
    if call in ("page", "screen"):
        page = context.get("page")
        properties = {**page, **properties} if type(page) is dict else dict(properties)
        for name in ("name", "category"):
            if type(raw.get(name)) is str:
                properties.setdefault(name, raw[name])
        if call == "screen":
            properties.setdefault("content_type", "screen")
        if properties.get("referrer") == NO_REFERRER:
            del properties["referrer"]
        return properties
    if call == "group":
        return {"group_id": _id(raw, "groupId"), "traits": _object(raw, "traits")}
    return {}


def _object(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    if type(value) is dict:
        return value
    if value is None or value == "" or value == []:
        # PHP encodes an empty array as a list.
        return {}
    raise BadInput("bad_field", f"{name}: an object wanted, got {kind_of(value)}")


def _id(raw: dict[str, Any], name: str) -> str:
    """An id as text; empty when there is none."""
    value = raw.get(name)
    if value is None:
        return ""
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise BadInput("bad_id", f"{name}: text wanted, got {kind_of(value)}")
    text = value.strip()
    return "" if text.lower() in _NOBODY else text


def message_id_of(raw: dict[str, Any], place: int) -> str:
    """The id by which a repeat is told; of a sender that brings none, the event's own bytes and its place."""
    said = raw.get("messageId")
    if type(said) is str and said:
        if not ids.is_whole(said):
            raise BadInput("bad_id", f"messageId: {ids.WHOLE_WANTED}")
        if len(said) <= MESSAGE_ID_CHARS_MAX:
            return said
        return "long:" + hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
    if type(said) is int:
        return str(said)
    own = orjson.dumps({name: value for name, value in raw.items() if name != "sentAt"})
    return f"body:{hashlib.blake2b(own, digest_size=16).hexdigest()}:{place}"


def _sent(value: object) -> int | None:
    """``sentAt``; it only serves to correct another time, so what cannot be read is as good as absent."""
    if type(value) is not str or not value:
        return None
    try:
        return parse_instant(value)
    except ValueError:
        return None


def _at(raw: dict[str, Any], sent_ms: int | None, given: Given) -> int:
    """When the event happened, epoch ms, at most the arrival."""
    source, received_ms = given.source, given.received_ms
    at_ms = received_ms
    for name in ("timestamp", "originalTimestamp"):
        value = raw.get(name)
        if value is None or value == "":
            continue
        if type(value) is not str:
            raise BadInput("bad_time", f"{name}: an ISO 8601 time wanted, got {kind_of(value)}")
        try:
            at_ms = parse_instant(value)
        except ValueError:
            raise BadInput("bad_time", f"{name}: an ISO 8601 time wanted, got other text") from None
        if not source.trusted:
            own_ms = _sent(raw.get("sentAt"))
            clock_ms = sent_ms if own_ms is None else own_ms
            if clock_ms is not None:
                at_ms = received_ms - (clock_ms - at_ms)
        break
    if at_ms > received_ms:
        if at_ms > received_ms + AHEAD_MS_MAX:
            ahead_s = (at_ms - received_ms) // 1000
            raise BadInput("in_future", f"timestamp: at most {AHEAD_MS_MAX // 1000} s ahead wanted, got {ahead_s} s")
        return received_ms
    if given.backfill or source.backfill:
        if at_ms < 0:
            raise BadInput("bad_time", "timestamp: a time since 1970 wanted, got an earlier one")
    elif received_ms - at_ms > source.late_ms_max:
        late_s = (received_ms - at_ms) // 1000
        raise BadInput("too_late", f"timestamp: at most {source.late_ms_max // 1000} s ago wanted, got {late_s} s")
    return at_ms


def _say_what(event: Event) -> None:
    """What the shop says of a product is about nobody. Only the shop may say it: a page's key could set prices."""
    if not event.trusted:
        raise BadInput("needs_secret_key", f"{event.type}: a secret key wanted, got a public one")
    event.address = PRODUCT + event.props["product_id"]


def _say_of_goods(items: list[dict[str, Any]], goods: Catalogue) -> None:
    """What rules may ask of a product stands in the event when it enters the log: what its sender left out, the catalogue adds."""
    for item in items:
        product = goods.products.get(item["product_id"])
        if product is not None:
            for name in ("name", "brand", "category", "consumption_days"):
                if name in product.said:
                    item.setdefault(name, product.said[name])


def _say_who(event: Event, raw: dict[str, Any], call: str, context: dict[str, Any], secret: bytes) -> None:
    """Fill in the event's address, its other identifiers and its traits."""
    user, anon = _id(raw, "userId"), _id(raw, "anonymousId")
    said = _object(raw, "traits") if call != "group" else {}
    around = context.get("traits")
    if type(around) is dict and call != "group":
        said = {**around, **said}
    if call == "identify":
        event.traits = kept(said, TRAITS_KEYS_MAX)
    found: list[str] = []
    if user:
        found.append(_address("user", user, "userId", secret))
    if event.trusted:
        found += _personal(event, said, context, secret)
    if call == "alias":
        previous = _id(raw, "previousId")
        if not user or not previous:
            missing = "previousId" if user else "userId"
            raise BadInput("missing_id", f"{missing}: an id wanted, got none")
        # Browser SDKs fill in the user's own id for one who was identified already: nothing to join.
        if previous != user:
            found.append(_address("anon", previous, "previousId", secret))
    if anon:
        found.append(_address("anon", anon, "anonymousId", secret))
    if not found:
        raise BadInput("missing_id", "userId, anonymousId: one of them wanted, got neither")
    event.address = found[0]
    if len(found) > 1:
        event.identifiers = tuple(dict.fromkeys(one for one in found if one != found[0]))


def _personal(event: Event, said: dict[str, Any], context: dict[str, Any], secret: bytes) -> list[str]:
    """The personal and device addresses that a trusted event names, strongest first.

    What is not an e-mail or a phone number stays a trait and names nobody.
    """
    values = {"email": said.get("email"), "phone": said.get("phone"), "card": said.get("card")}
    device = context.get("device")
    values["device"] = device.get("id") if type(device) is dict else None
    others = context.get("externalIds")
    if type(others) is list:
        for other in others[:20]:
            if type(other) is dict and (kind := _EXTERNAL_IDS.get(str(other.get("type")).lower())) and not values[kind]:
                values[kind] = other.get("id")
    found = []
    for kind, value in values.items():
        if type(value) is not str or not value:
            continue
        try:
            found.append(ids.address_of(kind, value, secret))
        except ValueError:
            continue
        if kind in ("email", "phone"):
            event.traits.setdefault(kind, value)
    return found


def _address(kind: str, value: str, name: str, secret: bytes) -> str:
    try:
        return ids.address_of(kind, value, secret)
    except ValueError as error:
        raise BadInput("bad_id", f"{name}: {error}") from None


def _say_where(event: Event, call: str, properties: dict[str, Any], context: dict[str, Any], given: Given) -> None:
    is_page = call in ("page", "screen")
    page = properties if is_page else context.get("page")
    url, referrer = (page.get("url"), page.get("referrer")) if type(page) is dict else (None, None)
    if given.user_agent and "userAgent" not in context:
        context = {**context, "userAgent": given.user_agent}
    event.context = keep(context, url if type(url) is str else "", is_page, referrer if type(referrer) is str else "")
    if given.seen:
        event.context |= given.seen


def _say_what_reacted(event: Event, context: dict[str, Any]) -> None:
    """Whether a machine opened the message or followed its link: as its sender says, else by the user agent that he passes on."""
    if "machine" in event.props or not event.type.endswith(("_opened", "_link_clicked")):
        return
    agent = event.props.get("user_agent") or event.props.get("userAgent") or context.get("userAgent")
    if type(agent) is str and (kind := machine_of(agent[:TEXT_CHARS_MAX])):
        event.props["machine"] = kind


def _check_size(raw: dict[str, Any], bytes_max: int) -> None:
    size = len(orjson.dumps(raw))
    if size > bytes_max:
        raise BadInput("event_too_large", f"event: at most {bytes_max} bytes wanted, got {size}")


def _dumped(raw: Any) -> bytes:
    try:
        return orjson.dumps(raw)
    except orjson.JSONEncodeError:
        return b""
