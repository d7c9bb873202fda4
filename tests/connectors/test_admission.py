"""What becomes of the bytes that SDKs send: shapes recorded from the published packages, and everything that is wrong."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from connectors.collector.admission import Admission, Given, admit, refused_whole
from connectors.collector.body import Inflater, TooLarge, parse, slices
from connectors.collector.context import campaign_of, device_of, machine_of
from connectors.collector.keys import Source, read_keys
from profiles import ids
from profiles.catalogue import Catalogue, Product
from profiles.errors import BadInput, Refused
from profiles.moments import DAY_MS, FOREVER, HOUR_MS, MINUTE_MS, iso, parse_instant
from profiles.taxonomy import EVENT_TYPES
from profiles.wire import CUSTOMER_EVENTS, DEAD_LETTERS, ORDER_EVENTS, PAGE_VIEWS, Event, Record, decode_event

NOW = parse_instant("2026-11-22T15:30:00Z")
SECRET = bytes(range(32))
WEB = Source("web", False, 7 * DAY_MS)
SHOP = Source("shop", True, 30 * DAY_MS)
HISTORY = Source("history", True, 30 * DAY_MS, backfill=True)


def given_by(source: Source, **more: Any) -> Given:
    return Given(source, more.pop("received_ms", NOW), SECRET, more.pop("event_bytes_max", 65_536), **more)


def take(call: str, body: Any, source: Source = WEB, **more: Any) -> Admission:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return admit(parse(call, sent, 1000), given_by(source, **more))


def one(call: str, body: Any, source: Source = WEB, **more: Any) -> Event:
    """The one event that was accepted."""
    admission = take(call, body, source, **more)
    assert admission.refusals == []
    [record] = admission.records
    event = decode_event(record.value)
    assert record.key == event.address
    assert record.topic == EVENT_TYPES[event.type].topic if event.type in EVENT_TYPES else CUSTOMER_EVENTS
    return event


def reason(call: str, body: Any, source: Source = WEB, **more: Any) -> str:
    """Why the one event was refused."""
    admission = take(call, body, source, **more)
    [refusal] = admission.refusals
    assert [record.topic for record in admission.records] == [DEAD_LETTERS]
    return refusal.reason


def hashed(kind: str, value: str) -> str:
    return ids.address_of(kind, value, SECRET)


# --- what SDKs send ---------------------------------------------------------------------------------------------------

SEGMENT_PYTHON = {
    "batch": [
        {
            "integrations": {},
            "anonymousId": None,
            "timestamp": "2026-11-22T15:29:45.157+00:00",
            "messageId": "7c0f9a1e-0d55-4ba3-9d1c-0c2b0c3c1a11",
            "type": "track",
            "userId": "u-1",
            "event": "Order Completed",
            "properties": {
                "order_id": "o-1",
                "total": 49.9,
                "currency": "EUR",
                "products": [{"product_id": "p-1", "price": 49.9}],
            },
            "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
        }
    ],
    "sentAt": "2026-11-22T15:29:45.700000+00:00",
    "writeKey": "test-write-key",
}
RUDDER_PYTHON = {
    "batch": [
        {
            "context": {
                "library": {"name": "rudder-analytics-python"},
                "traits": {"email": "Ana@Shop.Example", "plan": "gold"},
            },
            "timestamp": "2026-11-22T15:29:45.157123+00:00",
            "messageId": "b7c4",
            "anonymousId": None,
            "userId": "u-1",
            "type": "identify",
            "channel": "server",
            "integrations": {},
        }
    ],
    "sentAt": "2026-11-22T15:29:46.000000+00:00",
}
SEGMENT_NODE = {
    "batch": [
        {
            "type": "page",
            "userId": "u-1",
            "name": "Home",
            "category": "Docs",
            "properties": {"url": "https://shop.example/", "name": "Home", "category": "Docs"},
            "timestamp": "2026-11-22T15:29:45.157Z",
            "messageId": "node-next-1763825385157-1b1c",
            "_metadata": {"nodeVersion": "20.20.2", "jsRuntime": "node"},
            "context": {"library": {"name": "@segment/analytics-node", "version": "3.1.0"}},
            "integrations": {},
        }
    ],
    "writeKey": "test-write-key",
    "sentAt": "2026-11-22T15:29:45.900Z",
}
RUDDER_NODE = {
    "batch": [
        {
            "type": "track",
            "userId": "u-1",
            "event": "Order Completed",
            "properties": {"order_id": "o-1", "total": 5, "currency": "EUR"},
            "timestamp": "2026-11-01T10:00:00.000Z",
            "originalTimestamp": "2026-11-22T15:29:45.157Z",
            "sentAt": "2026-11-22T15:29:45.170Z",
            "messageId": "backfill-o-1",
            "context": {"traits": {"email": "old@shop.example"}, "library": {"name": "@rudderstack/rudder-sdk-node"}},
        }
    ],
    "timestamp": "2026-11-22T15:29:45.171Z",
    "sentAt": "2026-11-22T15:29:45.171Z",
}
SEGMENT_BROWSER = {
    "timestamp": "2026-11-22T15:29:45.157Z",
    "integrations": {},
    "anonymousId": "5c0c1e8e-6f6e-4f57-a8b9-8f2c3c5f0001",
    "userId": None,
    "event": "Product Viewed",
    "type": "track",
    "properties": {"product_id": "p-1"},
    "context": {
        "page": {
            "path": "/p/1",
            "referrer": "",
            "search": "?utm_source=mail",
            "title": "One",
            "url": "https://shop.example/p/1",
        },
        "userAgent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148",
        "locale": "en-GB",
        "timezone": "Europe/Berlin",
        "campaign": {"source": "mail", "medium": "letter", "name": "autumn"},
        "library": {"name": "analytics.js", "version": "npm:next-1.84.3"},
    },
    "messageId": "ajs-next-1763825385157-5c0c",
    "writeKey": "test-write-key",
    "sentAt": "2026-11-22T15:29:45.300Z",
    "_metadata": {"bundled": ["Segment.io"], "unbundled": []},
}
RUDDER_BROWSER = {
    "properties": {"path": "/p/1", "url": "https://shop.example/p/1", "title": "One", "referrer": "$direct"},
    "event": None,
    "type": "page",
    "channel": "web",
    "context": {"traits": {"email": "claimed@shop.example"}, "sessionId": 1763825385157, "app": {"name": "RudderLabs"}},
    "originalTimestamp": "2026-11-22T15:29:45.157Z",
    "messageId": "1a2b",
    "userId": "",
    "anonymousId": "an-1",
    "integrations": {"All": True},
    "sentAt": "2026-11-22T15:29:45.200Z",
}
JITSU = {
    "type": "track",
    "event": "add_to_cart",
    "userId": "u-1",
    "anonymousId": "an-1",
    "messageId": "zx81k2",
    "properties": {"items": [{"item_id": "p-1", "price": 10, "quantity": 2}], "currency": "EUR"},
    "context": {"traits": {"email": "a@b.example"}},
    "timestamp": "2026-11-22T15:29:45.157Z",
    "sentAt": "2026-11-22T15:29:45.157Z",
    "writeKey": "***",
}


def test_segment_python_sends_null_for_the_missing_id_and_a_time_with_offset() -> None:
    event = one("batch", SEGMENT_PYTHON, SHOP)
    assert (event.type, event.address, event.identifiers) == ("order_completed", "user:u-1", ())
    assert event.message_id == "7c0f9a1e-0d55-4ba3-9d1c-0c2b0c3c1a11"
    assert event.at_ms == parse_instant("2026-11-22T15:29:45.157Z")
    assert event.props["total_minor"] == 4990
    assert event.context == {}
    assert event.trusted


def test_rudder_python_sends_traits_of_identify_in_the_context_alone() -> None:
    event = one("batch", RUDDER_PYTHON, SHOP)
    assert event.type == "identified"
    assert event.traits == {"email": "Ana@Shop.Example", "plan": "gold"}
    assert event.identifiers == (hashed("email", "ana@shop.example"),)


def test_segment_node_copies_name_and_category_into_properties() -> None:
    event = one("batch", SEGMENT_NODE, SHOP)
    assert event.type == "page_viewed"
    assert event.props == {"url": "https://shop.example/", "path": "/", "name": "Home", "category": "Docs"}


def test_rudder_node_puts_the_callers_own_time_into_timestamp() -> None:
    event = one("batch", RUDDER_NODE, SHOP)
    assert event.at_ms == parse_instant("2026-11-01T10:00:00Z")
    assert event.message_id == "backfill-o-1"


def test_segment_browser_sends_one_event_whose_clock_is_corrected_by_sent_at() -> None:
    event = one("track", SEGMENT_BROWSER)
    assert event.address == "anon:5c0c1e8e-6f6e-4f57-a8b9-8f2c3c5f0001"
    assert event.at_ms == NOW - 143
    assert not event.trusted
    assert event.context == {
        "page": {"path": "/p/1", "url": "https://shop.example/p/1", "title": "One"},
        "campaign": {"source": "mail", "medium": "letter", "name": "autumn"},
        "locale": "en-GB",
        "timezone": "Europe/Berlin",
        "device": "phone",
    }


def test_rudder_browser_sends_an_empty_user_id_and_only_the_original_time() -> None:
    event = one("page", RUDDER_BROWSER)
    assert event.address == "anon:an-1"
    assert event.at_ms == NOW - 43
    assert event.props == {"path": "/p/1", "url": "https://shop.example/p/1", "title": "One"}


def test_traits_that_browsers_repeat_in_later_events_state_nothing() -> None:
    assert one("page", RUDDER_BROWSER).traits == {}
    assert one("track", JITSU).traits == {}


def test_jitsu_sends_the_names_of_ga4() -> None:
    event = one("track", JITSU)
    assert event.type == "product_added"
    assert event.address == "user:u-1"
    assert event.identifiers == ("anon:an-1",)


# --- who --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [None, "", "  ", "undefined", "null", "NaN", "[object Object]"])
def test_an_id_that_is_none_is_absent(absent: str | None) -> None:
    assert one("track", {"event": "Quiz", "userId": absent, "anonymousId": "an-1"}).address == "anon:an-1"
    assert reason("track", {"event": "Quiz", "userId": absent, "anonymousId": absent}) == "missing_id"


def test_a_number_is_an_id_too() -> None:
    assert one("track", {"event": "Quiz", "userId": 42}).address == "user:42"


@pytest.mark.parametrize("wrong", [True, 1.5, {"id": 1}, ["u"]])
def test_an_id_of_another_kind_is_refused(wrong: Any) -> None:
    assert reason("track", {"event": "Quiz", "userId": wrong}) == "bad_id"


def test_an_id_that_is_too_long_is_refused_and_not_told() -> None:
    admission = take("track", {"event": "Quiz", "userId": "ana@shop.example" * 20})
    assert admission.refusals[0].reason == "bad_id"
    assert "ana" not in admission.refusals[0].detail


@pytest.mark.mechanic("M79")
def test_a_secret_key_names_a_person_by_everything_strongest_first() -> None:
    event = one(
        "identify",
        {
            "userId": "u-1",
            "anonymousId": "an-1",
            "traits": {"phone": "+7 916 123-45-67", "email": "Ana@Shop.Example"},
            "context": {
                "device": {"id": "d-1"},
                "externalIds": [{"id": "77 01", "type": "loyalty_card"}, {"id": "x", "type": "facebook"}],
            },
        },
        SHOP,
    )
    assert event.address == "user:u-1"
    assert event.identifiers == (
        hashed("email", "ana@shop.example"),
        hashed("phone", "+79161234567"),
        hashed("card", "7701"),
        "device:d-1",
        "anon:an-1",
    )


def test_a_public_key_names_user_and_anonymous_ids_only_and_its_email_is_a_claim() -> None:
    event = one("identify", {"userId": "u-1", "anonymousId": "an-1", "traits": {"email": "ana@shop.example"}})
    assert event.identifiers == ("anon:an-1",)
    assert event.traits == {"email": "ana@shop.example"}
    assert reason("identify", {"traits": {"email": "ana@shop.example"}}) == "missing_id"


def test_a_trusted_event_filed_under_an_email_also_states_it() -> None:
    sent = {"event": "Order Completed", "properties": {"order_id": "o", "total": 1, "currency": "EUR"}}
    event = one("track", {**sent, "context": {"traits": {"email": "ana@shop.example", "plan": "gold"}}}, SHOP)
    assert event.address == hashed("email", "ana@shop.example")
    assert event.traits == {"email": "ana@shop.example"}


def test_where_a_letter_went_is_no_statement_of_an_email() -> None:
    sent = {"event": "Email Opened", "properties": {"delivery_id": "d"}}
    event = one("track", {**sent, "context": {"traits": {"email": "ana@shop.example"}}}, SHOP)
    assert (event.address, event.traits) == (hashed("email", "ana@shop.example"), {})


def test_what_is_no_email_names_nobody() -> None:
    event = one("identify", {"userId": "u-1", "traits": {"email": "n/a", "phone": "12", "card": 5}}, SHOP)
    assert event.identifiers == ()
    assert event.traits == {"email": "n/a", "phone": "12", "card": 5}


def test_an_alias_joins_the_previous_id_to_the_user() -> None:
    event = one("alias", {"previousId": "an-0", "userId": "u-1", "anonymousId": "an-1"})
    assert (event.address, event.identifiers) == ("user:u-1", ("anon:an-0", "anon:an-1"))
    assert reason("alias", {"userId": "u-1"}) == "missing_id"
    assert reason("alias", {"previousId": "an-0"}) == "missing_id"


def test_an_alias_of_a_user_to_itself_joins_nothing_more() -> None:
    event = one("alias", {"previousId": "u-1", "userId": "u-1", "anonymousId": "an-1"})
    assert (event.address, event.identifiers) == ("user:u-1", ("anon:an-1",))


def test_a_groups_traits_are_not_the_persons() -> None:
    event = one("group", {"userId": "u-1", "groupId": "g-1", "traits": {"email": "office@firm.example"}}, SHOP)
    assert (event.type, event.traits, event.identifiers) == ("grouped", {}, ())
    assert event.props == {"group_id": "g-1", "traits": {"email": "office@firm.example"}}


def test_no_key_holds_a_plain_email() -> None:
    body = {
        "batch": [
            {"type": "identify", "traits": {"email": "ana@shop.example"}},
            {"type": "track", "email": "ana@shop.example"},
        ]
    }
    for record in take("batch", body, SHOP).records:
        assert "ana" not in record.key


# --- when -------------------------------------------------------------------------------------------------------------


def at(source: Source, **times: str) -> int:
    return one("track", {"event": "Quiz", "userId": "u", **times}, source).at_ms


@pytest.mark.invariant("R18")
def test_a_public_clock_is_corrected_by_when_it_sent() -> None:
    an_hour_slow = {"timestamp": iso(NOW - HOUR_MS - 5_000), "sentAt": iso(NOW - HOUR_MS)}
    assert at(WEB, **an_hour_slow) == NOW - 5_000
    a_year_fast = {"originalTimestamp": iso(NOW + 365 * DAY_MS - 5_000), "sentAt": iso(NOW + 365 * DAY_MS)}
    assert at(WEB, **a_year_fast) == NOW - 5_000


def test_a_trusted_clock_is_believed() -> None:
    assert at(SHOP, timestamp=iso(NOW - HOUR_MS), sentAt=iso(NOW - HOUR_MS)) == NOW - HOUR_MS


def test_without_a_time_it_happened_when_it_arrived() -> None:
    assert at(WEB) == NOW
    assert at(WEB, sentAt=iso(NOW - HOUR_MS)) == NOW
    assert at(WEB, timestamp="") == NOW


def test_what_cannot_be_read_as_sent_at_corrects_nothing() -> None:
    assert at(WEB, timestamp=iso(NOW - 5_000), sentAt="soon") == NOW - 5_000


def test_sent_at_of_the_batch_serves_events_without_one() -> None:
    late = NOW - HOUR_MS
    first = {"type": "track", "event": "Quiz", "userId": "u", "timestamp": iso(late - 1_000)}
    second = {**first, "sentAt": iso(late + 500)}
    admission = take("batch", {"batch": [first, second], "sentAt": iso(late)})
    assert [decode_event(record.value).at_ms for record in admission.records] == [NOW - 1_000, NOW - 1_500]


@pytest.mark.invariant("R18")
def test_a_little_ahead_is_now_and_more_is_refused() -> None:
    assert at(SHOP, timestamp=iso(NOW + 5 * MINUTE_MS)) == NOW
    assert (
        reason("track", {"event": "Q", "userId": "u", "timestamp": iso(NOW + 5 * MINUTE_MS + 1)}, SHOP) == "in_future"
    )
    ahead = {"timestamp": iso(NOW + 10 * MINUTE_MS), "sentAt": iso(NOW)}
    assert reason("track", {"event": "Q", "userId": "u", **ahead}) == "in_future"


@pytest.mark.invariant("R18")
@pytest.mark.parametrize(("source", "days"), [(WEB, 7), (SHOP, 30)])
def test_older_than_its_sources_bound_is_too_late(source: Source, days: int) -> None:
    assert at(source, timestamp=iso(NOW - days * DAY_MS)) == NOW - days * DAY_MS
    assert (
        reason("track", {"event": "Q", "userId": "u", "timestamp": iso(NOW - days * DAY_MS - 1)}, source) == "too_late"
    )


@pytest.mark.invariant("R14")
def test_history_has_no_lower_bound_and_is_marked() -> None:
    old = {"event": "Q", "userId": "u", "timestamp": "2014-05-01T00:00:00Z"}
    assert one("track", old, HISTORY).backfill
    imported = one("track", old, SHOP, backfill=True)
    assert imported.backfill
    assert imported.at_ms == parse_instant("2014-05-01T00:00:00Z")
    assert reason("track", {**old, "timestamp": "1814-05-01T00:00:00Z"}, HISTORY) == "bad_time"


@pytest.mark.parametrize("wrong", ["yesterday", "2026-13-01", 1763825385157, True, {}])
def test_a_time_that_cannot_be_read_is_refused(wrong: Any) -> None:
    assert reason("track", {"event": "Q", "userId": "u", "timestamp": wrong}) == "bad_time"


# --- again ------------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R21")
def test_the_senders_message_id_is_kept_as_it_is() -> None:
    assert one("track", {"event": "Q", "userId": "u", "messageId": "backfill-o-1"}).message_id == "backfill-o-1"
    assert one("track", {"event": "Q", "userId": "u", "messageId": 7}).message_id == "7"


@pytest.mark.invariant("R21")
def test_without_a_message_id_the_same_event_sent_again_has_the_same_one() -> None:
    event = {"event": "Q", "userId": "u", "properties": {"n": 1}}
    first = one("track", {**event, "sentAt": iso(NOW)})
    again = one("track", {**event, "sentAt": iso(NOW + 2_000)}, received_ms=NOW + 2_000)
    other = one("track", {**event, "properties": {"n": 2}})
    assert first.message_id == again.message_id != other.message_id


def test_two_like_events_of_one_batch_are_two() -> None:
    event = {"type": "track", "event": "Q", "userId": "u"}
    admission = take("batch", {"batch": [event, event]})
    assert len({decode_event(record.value).message_id for record in admission.records}) == 2


def test_a_message_id_that_is_too_long_is_shortened_the_same_way_each_time() -> None:
    sent = {"event": "Q", "userId": "u", "messageId": "m" * 5_000}
    assert one("track", sent).message_id == one("track", sent).message_id
    assert len(one("track", sent).message_id) < 50


# --- what is wrong ----------------------------------------------------------------------------------------------------

GOOD = {"type": "track", "event": "Quiz", "userId": "u-1", "messageId": "good"}


@pytest.mark.invariant("R9")
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (7, "not_an_object"),
        ("text", "not_an_object"),
        (None, "not_an_object"),
        ({"type": "tarck", "userId": "u"}, "bad_type"),
        ({"userId": "u"}, "bad_type"),
        ({"type": 5, "userId": "u"}, "bad_type"),
        ({"type": "track", "userId": "u"}, "bad_name"),
        ({"type": "track", "event": "", "userId": "u"}, "bad_name"),
        ({"type": "track", "event": "n" * 101, "userId": "u"}, "bad_name"),
        ({"type": "track", "event": {}, "userId": "u"}, "bad_name"),
        ({"type": "track", "event": "Quiz"}, "missing_id"),
        ({"type": "track", "event": "Quiz", "userId": "u", "properties": 5}, "bad_field"),
        ({"type": "identify", "userId": "u", "traits": "gold"}, "bad_field"),
        ({"type": "track", "event": "Quiz", "userId": "u", "context": [1]}, "bad_field"),
        ({"type": "track", "event": "Order Completed", "userId": "u", "properties": {"total": 5}}, "invalid_payload"),
        ({"type": "track", "event": "Quiz", "userId": "u", "properties": {"x": "y" * 70_000}}, "event_too_large"),
    ],
)
def test_a_bad_event_costs_only_itself(bad: Any, why: str) -> None:
    admission = take("batch", {"batch": [GOOD, bad, {**GOOD, "messageId": "good too"}]})
    assert [(refusal.place, refusal.reason) for refusal in admission.refusals] == [(1, why)]
    accepted = [decode_event(record.value).message_id for record in admission.records if record.topic != DEAD_LETTERS]
    assert accepted == ["good", "good too"]
    [letter] = [orjson.loads(record.value) for record in admission.records if record.topic == DEAD_LETTERS]
    assert letter["reason"] == why
    assert letter["where"] == {"collector": "batch", "source": "web", "place": 1}
    assert json.loads(letter["original"]) == bad


@pytest.mark.invariant("R9")
def test_a_dead_letter_keeps_the_events_own_bytes() -> None:
    spaced = b'{"x":[1,{"batch":2}], "batch" : [ {"type":"track", "event":"Q","userId":"u"} ,\n {"b\\u00e4d" :1.50e0,  "z":"\xc3\xa4"}]  }'
    [letter] = [record for record in take("batch", spaced).records if record.topic == DEAD_LETTERS]
    assert orjson.loads(letter.value)["original"] == '{"b\\u00e4d" :1.50e0,  "z":"ä"}'


def test_of_a_batch_named_twice_the_last_counts_for_both_readers() -> None:
    admission = take("batch", b'{"batch":[{"a":1}],"batch":[{"b":2},{"c":3}]}')
    assert [orjson.loads(record.value)["original"] for record in admission.records] == ['{"b":2}', '{"c":3}']


def test_a_dead_letter_says_where_the_event_would_have_gone() -> None:
    admission = take("track", {"event": "Order Completed", "userId": "u", "properties": {}})
    assert orjson.loads(admission.records[0].value)["topic"] == ORDER_EVENTS


def test_a_secret_key_in_the_body_does_not_reach_the_dead_letters() -> None:
    sent = {"event": "Quiz", "writeKey": "sk_9TGB"}
    [letter] = take("track", sent, SHOP).records
    assert b"sk_9TGB" not in letter.value


@pytest.mark.parametrize("filling", ['"', "ä", "\x01", "\x00", "\\"])
def test_a_huge_original_is_cut_so_that_its_letter_fits_a_record(filling: str) -> None:
    body = b'{"x":' + (filling * 1_000_000).encode()
    error = BadInput("bad_json", "body: JSON wanted")
    letter = refused_whole("track", body, error, given_by(WEB)).value
    assert len(letter) < 1_000_000
    assert "original cut" in orjson.loads(letter)["detail"]


def test_the_same_bad_event_sent_again_is_the_same_letter() -> None:
    [first] = take("track", {"event": "Quiz"}).records
    [again] = take("track", {"event": "Quiz"}, received_ms=NOW + 1).records
    assert first.key == again.key


def test_deep_json_is_refused_or_cut_and_breaks_nothing() -> None:
    deep = b'{"event":"Q","userId":"u","properties":{"x":' + b"[" * 900 + b"]" * 900 + b"}}"
    admission = take("track", deep)
    assert [record.topic for record in admission.records] == [DEAD_LETTERS]
    assert admission.refusals[0].reason == "too_deep"
    shallow = deep.replace(b"[" * 900 + b"]" * 900, b"[" * 90 + b"]" * 90).replace(b"}}", b'},"messageId":"m"}')
    assert one("track", shallow).props == {}
    with pytest.raises(BadInput, match="JSON in UTF-8 wanted"):
        parse("track", b"[" * 100_000, 1000)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "bad_json"),
        (b"\x00", "bad_json"),
        (b'{"a":"\x00"}', "bad_json"),
        (b'{"a":"\xff"}', "bad_json"),
        (b"{'a':1}", "bad_json"),
        (b'{"a":NaN}', "bad_json"),
        (b'{"a":1', "bad_json"),
        (b"[]", "bad_body"),
        (b'"text"', "bad_body"),
        (b"{}", "bad_body"),
        (b'{"batch":{}}', "bad_body"),
        (b'{"batch":null}', "bad_body"),
        (b'{"batch":[1,2,3]}', "too_many_events"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole(body: bytes, why: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse("batch", body, 2)
    assert caught.value.reason == why
    letter = orjson.loads(refused_whole("batch", body, caught.value, given_by(WEB)).value)
    assert letter["reason"] == why


def test_half_an_emoji_does_not_cost_a_batch() -> None:
    sent = b'{"batch":[{"type":"track","event":"Q","userId":"u","properties":{"t":"cut \\ud83d","ok":"\\ud83d\\ude00 \\\\ud83d"}}]}'
    assert one("batch", sent).props == {"t": "cut \ufffd", "ok": "\U0001f600 \\ud83d"}


@pytest.mark.parametrize(
    ("event", "reason", "where"),
    [
        ({"userId": "u-@"}, "bad_id", "userId: user: "),
        ({"userId": "u", "anonymousId": "@"}, "bad_id", "anonymousId: anon: "),
        ({"userId": "u", "messageId": "m-@"}, "bad_id", "messageId: "),
        (
            {"userId": "u", "event": "Order Completed", "properties": {"order_id": "@", "currency": "EUR"}},
            "invalid_payload",
            "order_completed: order_id: ",
        ),
        (
            {"userId": "u", "event": "Product Viewed", "properties": {"product_id": "@"}},
            "invalid_payload",
            "product_viewed: ",
        ),
    ],
)
@pytest.mark.parametrize("lost", [rb"\ud800", rb"\udc01", rb"\ufffd", "\ufffd".encode()])
def test_an_id_of_which_a_character_was_lost_is_refused_beside_its_neighbours(
    event: dict[str, Any], reason: str, where: str, lost: bytes
) -> None:
    """Two that differed there only would be one customer, one order or one message."""
    other = {"type": "track", "event": "Q", "userId": "u"}
    sent = orjson.dumps({"batch": [{"type": "track", "event": "Q", **event}, other]}).replace(b"@", lost)
    found = admit(parse("batch", sent, 10), given_by(SHOP))
    [refusal] = found.refusals
    assert (refusal.place, refusal.reason) == (0, reason)
    assert refusal.detail.startswith(where)
    assert refusal.detail.endswith("whole characters wanted, got a part of one or U+FFFD")
    letter = orjson.loads(found.records[-1].value)
    assert letter["original"].encode() == orjson.dumps({"type": "track", "event": "Q", **event}).replace(b"@", lost)
    assert sum(found.accepted.values()) == 1


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert one("track", b'\xef\xbb\xbf{"event":"Q","userId":"u"}').address == "user:u"


def test_an_empty_batch_is_nothing() -> None:
    assert take("batch", {"batch": []}).records == []


def test_an_array_that_php_sends_for_an_empty_object_is_one() -> None:
    assert one("track", {"event": "Q", "userId": "u", "properties": [], "context": [], "traits": []}).props == {}


def test_unknown_fields_are_no_reason_to_refuse() -> None:
    event = one(
        "track",
        {**GOOD, "integrations": {"All": True}, "_metadata": {}, "channel": "web", "version": 2, "anything": []},
    )
    assert event.message_id == "good"


def test_an_event_name_of_nobodys_taxonomy_is_counted_as_other() -> None:
    admission = take(
        "batch",
        {
            "batch": [
                {**GOOD, "event": "Unheard Of"},
                {**GOOD, "event": "Product Viewed", "properties": {"product_id": 1}},
            ]
        },
    )
    assert admission.accepted == {"other": 1, "product_viewed": 1}
    assert [decode_event(record.value).type for record in admission.records] == ["unheard_of", "product_viewed"]


# --- context ----------------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M18")
def test_the_campaign_is_read_from_the_pages_address_when_the_sdk_did_not() -> None:
    url = "https://shop.example/?utm_source=mail&utm_medium=letter&utm_campaign=autumn&gclid=secret-click"
    event = one("page", {"anonymousId": "a", "properties": {"url": url}})
    assert event.context["campaign"] == {"source": "mail", "medium": "letter", "name": "autumn", "click": "gclid"}
    assert campaign_of("https://[broken/?utm_source=x") == {}


@pytest.mark.mechanic("M18")
@pytest.mark.parametrize(
    ("url", "referrer", "campaign"),
    [
        ("https://shop.example/?yclid=7", "https://yandex.ru/", {"click": "yclid", "source": "yandex", "medium": "cpc", "referrer": "yandex.ru"}),
        ("https://shop.example/?gclid=7", "", {"click": "gclid", "source": "google", "medium": "cpc"}),
        ("https://www.shop.example/a", "https://www.google.co.uk/search?q=secret", {"source": "google", "medium": "organic", "referrer": "google.co.uk"}),
        ("https://shop.example/a", "https://forum.example/t/1?user=ana", {"source": "forum.example", "medium": "referral", "referrer": "forum.example"}),
        ("https://shop.example/a", "https://googly.example/", {"source": "googly.example", "medium": "referral", "referrer": "googly.example"}),
        ("https://shop.example/?utm_source=mail", "https://mail.example/", {"source": "mail"}),
        ("https://shop.example/a", "https://www.shop.example/b", None),
        ("https://blog.shop.example/a", "https://shop.example/b", None),
        ("https://shop.example/a", "https://blog.shop.example/b", None),
        ("https://shop.example/a", "$direct", None),
        ("https://shop.example/a", "https://[broken", None),
    ],
)  # fmt: skip
def test_who_names_no_source_has_that_of_the_click_or_of_the_page_before(
    url: str, referrer: str, campaign: dict[str, str] | None
) -> None:
    event = one("page", {"anonymousId": "a", "properties": {"url": url, "referrer": referrer}})
    assert event.context.get("campaign") == campaign


@pytest.mark.mechanic("M27")
@pytest.mark.parametrize(
    ("agent", "device"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0 Safari/537.36", "desktop"),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/156.0 Mobile Safari/537.36", "phone"),
        ("Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 Chrome/156.0 Safari/537.36", "tablet"),
        ("Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X)", "tablet"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1)", "bot"),
        ("python-requests/2.32", ""),
    ],
)
def test_a_user_agent_tells_the_device(agent: str, device: str) -> None:
    assert device_of(agent) == device


@pytest.mark.mechanic("M37")
@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        ("Mozilla/5.0", "prefetch"),  # Apple Mail's, whether anybody reads or not
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/156.0 Safari/537.36 Barracuda", "scanner"),
        ("Mozilla/5.0 (compatible; bingbot/2.0)", "scanner"),
        ("python-requests/2.32", "scanner"),
        # Behind the picture proxies of Gmail and Yahoo is somebody who opened the letter.
        ("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)", ""),
        ("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", ""),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148", ""),
    ],
)
def test_a_user_agent_tells_which_machine_opened_a_letter(agent: str, kind: str) -> None:
    assert machine_of(agent) == kind
    for type_ in ("email_opened", "email_link_clicked"):
        event = one("track", {"userId": "u", "event": type_, "context": {"userAgent": agent}}, SHOP)
        assert event.props.get("machine", "") == kind
    said = {"userId": "u", "event": "email_opened", "properties": {"machine": False}, "context": {"userAgent": agent}}
    assert one("track", said, SHOP).props["machine"] is False  # Who sent it knows better.
    assert (
        "machine"
        not in one("track", {"userId": "u", "event": "email_delivered", "context": {"userAgent": agent}}, SHOP).props
    )


def test_the_browsers_own_header_stands_in_for_an_absent_user_agent() -> None:
    assert one("page", {"anonymousId": "a"}, user_agent="Mozilla/5.0 (iPad)").context == {"device": "tablet"}


def test_ip_and_the_rest_of_the_context_are_not_kept() -> None:
    sent = {
        **GOOD,
        "context": {"ip": "203.0.113.9", "library": {"name": "x"}, "screen": {"width": 1}, "traits": {"a": 1}},
    }
    assert one("track", sent).context == {}


def test_what_consent_banners_say_is_kept() -> None:
    sent = {**GOOD, "context": {"consent": {"categoryPreferences": {"ads": False, "stats": True, "odd": "yes"}}}}
    assert one("track", sent).context == {"consent": {"ads": False, "stats": True}}


def test_context_around_a_batch_serves_events_without_one() -> None:
    event = one("batch", {"batch": [GOOD], "context": {"locale": "de-DE"}})
    assert event.context == {"locale": "de-DE"}


def test_a_page_call_takes_its_page_from_the_context() -> None:
    page = {
        "path": "/a",
        "url": "https://shop.example/a",
        "title": "A",
        "referrer": "https://x.example/",
        "search": "?q=1",
    }
    admission = take("page", {"anonymousId": "a", "name": "Start", "context": {"page": page}})
    event = decode_event(admission.records[0].value)
    assert admission.records[0].topic == PAGE_VIEWS
    assert event.props == {**page, "name": "Start"}
    assert "page" not in event.context


# --- bodies -----------------------------------------------------------------------------------------------------------


def inflated(sent: bytes, cut: int = 1000) -> bytes:
    inflater = Inflater(b"gzip", 2_000)
    for begin in range(0, len(sent), cut):
        inflater.feed(sent[begin : begin + cut])
    return inflater.done()


@each(st.binary(max_size=2_000), st.integers(1, 300))
def test_a_body_inflates_to_what_was_deflated_however_it_is_cut(body: bytes, cut: int) -> None:
    assert inflated(gzip.compress(body), cut) == body


def test_a_bomb_is_given_up_at_the_limit() -> None:
    bomb = gzip.compress(bytes(100 << 20))
    inflater = Inflater(b"gzip", 1 << 20)
    with pytest.raises(TooLarge):
        inflater.feed(bomb)
    assert inflater.size <= (1 << 20) + 1


@pytest.mark.parametrize(
    "sent",
    [b"", b"{}", gzip.compress(b"{}", mtime=0)[:-3], gzip.compress(b"{}", mtime=0) + b"more", zlib.compress(b"{}")],
    ids=["nothing", "plain", "cut off", "more behind it", "zlib"],
)
def test_what_is_not_gzip_though_it_says_so_is_refused(sent: bytes) -> None:
    with pytest.raises(BadInput, match="wanted"):
        inflated(sent)


def test_deflate_is_understood_and_brotli_is_not() -> None:
    inflater = Inflater(b"deflate", 1000)
    inflater.feed(zlib.compress(b"{}"))
    assert inflater.done() == b"{}"
    with pytest.raises(BadInput, match="Content-Encoding"):
        Inflater(b"br", 1000)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 60), 1 << 60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
FIELDS = (
    "type",
    "event",
    "userId",
    "anonymousId",
    "messageId",
    "timestamp",
    "sentAt",
    "properties",
    "traits",
    "context",
    "previousId",
)
ODD_EVENTS = st.dictionaries(
    st.sampled_from(FIELDS), JSON | st.sampled_from([*EVENT_TYPES, "track", "page", iso(NOW), {}])
)


@pytest.mark.invariant("R1")
@each(st.lists(ODD_EVENTS | JSON, max_size=5), st.sampled_from([WEB, SHOP, HISTORY]))
def test_every_event_becomes_exactly_one_record(batch: list[Any], source: Source) -> None:
    admission = take("batch", orjson.dumps({"batch": batch, "sentAt": iso(NOW)}), source)
    assert len(admission.records) == len(batch)
    assert sum(admission.accepted.values()) + len(admission.refusals) == len(batch)
    for record in admission.records:
        assert isinstance(record, Record)
        assert record.topic == DEAD_LETTERS or decode_event(record.value).at_ms <= NOW


@each(st.lists(JSON, max_size=6))
def test_the_bytes_of_each_event_are_found(batch: list[Any]) -> None:
    body = json.dumps({"x": batch, "batch": batch, "y": {"batch": 1}}, indent=1).encode()
    assert [json.loads(part) for part in slices(parse("batch", body, 100))] == batch


# --- write keys -------------------------------------------------------------------------------------------------------


def test_write_keys_are_found_by_header_and_by_body() -> None:
    keys = read_keys('{"wk":{"source":"web","kind":"public"},"sk":{"source":"shop","kind":"secret","late_days":60}}')
    assert keys.of_header(b"Basic d2s6") == keys.of("wk") == Source("web", False, 7 * DAY_MS)
    assert keys.of_header(b"basic c2s6cGFzc3dvcmQ=") == keys.of("sk") == Source("shop", True, 60 * DAY_MS)
    for wrong in (b"", b"Basic", b"Basic !!!", b"Basic bm9uZTo=", b"Bearer d2s6", b"Basic \xff"):
        assert keys.of_header(wrong) is None
    assert keys.of(None) is keys.of(7) is keys.of("none") is None


def test_a_write_key_ends_when_it_says_and_another_of_its_source_goes_on(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("""
old: {source: shop, kind: secret, until: 2027-03-31}
new: {source: shop, kind: secret}
page: {source: web, kind: public, until: "2027-04-01T02:00:00+02:00"}
""")
    keys = read_keys(str(tmp_path / "keys.yaml"))
    old_ms, page_ms = parse_instant("2027-03-31"), parse_instant("2027-04-01")
    assert keys.ends() == {"web": page_ms}
    assert keys.next_end_ms == old_ms
    keys.expire(old_ms - 1)
    assert keys.of("old") == keys.of("new") == keys.of_header(b"Basic b2xkOg==")
    keys.expire(old_ms)
    assert keys.of("old") is keys.of_header(b"Basic b2xkOg==") is None
    assert keys.of("new") is not None
    assert keys.next_end_ms == page_ms
    keys.expire(page_ms)
    assert keys.of("page") is None
    assert keys.next_end_ms == FOREVER


def test_every_mistake_in_write_keys_is_told_and_no_key() -> None:
    document = """{"hidden-1": {"source": "Web", "kind": "public"}, "hidden-2": {"source": "a", "kind": "open"},
      "hidden-3": 7, "hidden-4": {"source": "b", "kind": "public", "backfill": true},
      "hidden-5": {"source": "c", "kind": "public"}, "hidden-6": {"source": "c", "kind": "secret"},
      "hidden-7": {"source": "d", "kind": "public", "colour": 1}, "hidden-8": {"source": "e", "kind": "public", "until": "May"}}"""
    with pytest.raises(Refused) as caught:
        read_keys(document)
    text = str(caught.value)
    assert len(text.splitlines()) == 7
    assert "hidden" not in text


@pytest.mark.parametrize(("said", "told"), [("", "nothing"), (" ", "nothing"), ("no/such.yaml", "No such file")])
def test_no_write_keys_are_told_as_none(said: str, told: str) -> None:
    with pytest.raises(Refused, match=f"write keys.* wanted, got {told}"):
        read_keys(said)


# --- the catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R29")
def test_what_a_shop_says_of_a_product_is_keyed_by_it_and_nobodys_and_a_page_may_not_say_it() -> None:
    said = {
        "event": "Product Updated",
        "messageId": "m",
        "properties": {"product_id": "mug", "price": 9.5},
        "userId": "u-1",
    }
    event = one("track", said, SHOP)
    assert (event.address, event.identifiers, event.traits) == ("product:mug", (), {})
    assert event.props == {"product_id": "mug", "price_e6": 9_500_000}
    assert reason("track", said, WEB) == "needs_secret_key"


def test_what_a_sender_leaves_out_of_a_product_the_catalogue_adds_before_the_log() -> None:
    goods = Catalogue()
    goods.put(Product("mug", {"category": "kitchen/mugs", "brand": "Acme", "name": "Mug", "price_e6": 1}, 1))
    items = [{"product_id": "mug", "brand": "Other", "price": 9}, {"product_id": "pen"}]
    said = {
        "event": "Order Completed",
        "userId": "u-1",
        "properties": {"order_id": "1", "currency": "EUR", "total": 9, "products": items},
    }
    event = one("track", said, SHOP, goods=goods)
    assert event.props["items"] == [
        {
            "product_id": "mug",
            "quantity": 1,
            "price_e6": 9_000_000,
            "brand": "Other",
            "name": "Mug",
            "category": "kitchen/mugs",
            "amount_minor": 900,
        },
        {"product_id": "pen", "quantity": 1},
    ]
    assert "category" not in one("track", said, SHOP).props["items"][0]
