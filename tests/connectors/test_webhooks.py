"""Webhooks: who is believed, what each delivery becomes, and what lies on the topics of a real broker after it."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given as each
from hypothesis import strategies as st

from connectors.clock import SystemClock
from connectors.collector.admission import Admission, Given, admit
from connectors.collector.webhooks import KINDS, SIGNED_MS_MAX, Hook, read_webhooks
from connectors.settings import read
from profiles import ids
from profiles.errors import BadInput, Refused
from profiles.moments import DAY_MS, HOUR_MS, iso, parse_instant
from profiles.wire import DEAD_LETTERS, EMAIL_EVENTS, Event, decode_event
from tests.connectors.edge import KEYS, SETTINGS, collecting, stored
from tests.connectors.signed import DROPPED_MS, HUSH, Delivery, SendGrid, dropped, of_shopify, sample

NOW: Final = parse_instant("2026-11-22T15:30:00Z")
SECRET: Final = bytes(range(32))
GRID: Final = SendGrid()
HOOKS: Final = {"shopify": {"keys": ["older", HUSH]}, "letters": {"kind": "sendgrid", "keys": [GRID.public]}}
READ: Final = read_webhooks(json.dumps(HOOKS))
SHOPIFY: Final = READ["shopify"]
LETTERS: Final = READ["letters"]
MAIL: Final = "ana@shop.example"


def hashed(kind: str, value: str) -> str:
    return ids.address_of(kind, value, SECRET)


def take(hook: Hook, delivery: Delivery, now_ms: int = NOW) -> Admission:
    """What becomes of a delivery that is believed."""
    headers = delivery.lower()
    assert hook.refuses(headers, delivery.body, now_ms) == ""
    given = Given(hook.source, now_ms, SECRET, 65_536, headers=hook.kept(headers))
    return admit(hook.parse(headers, delivery.body), given)


def events(hook: Hook, delivery: Delivery, now_ms: int = NOW) -> list[Event]:
    """Its events; none was refused."""
    admission = take(hook, delivery, now_ms)
    assert admission.refusals == []
    found = [decode_event(record.value) for record in admission.records]
    assert all(event.trusted and event.source == hook.source.name and not event.backfill for event in found)
    return found


def reasons(hook: Hook, delivery: Delivery, now_ms: int = NOW) -> list[str]:
    return [refusal.reason for refusal in take(hook, delivery, now_ms).refusals]


def told(event: str, **more: Any) -> dict[str, Any]:
    """An event of SendGrid's."""
    said = {"email": MAIL, "timestamp": NOW // 1000 - 60, "sg_event_id": f"id-{event}", "sg_message_id": "m.1"}
    return {**said, "event": event, **more}


def mail_event(event: str, **more: Any) -> Event:
    [found] = events(LETTERS, GRID.tells(NOW, told(event, **more)))
    assert found.address == hashed("email", MAIL)
    assert (found.message_id, found.at_ms) == (f"id-{event}", NOW - 60_000)
    return found


ORDER: Final = {**orjson.loads(sample("orders_create").body), "test": False}
ORDER_MS: Final = parse_instant(ORDER["updated_at"])


# --- who is believed --------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R29")
def test_a_recorded_delivery_of_sendgrid_is_believed_by_its_key_to_the_last_byte() -> None:
    key, delivery = dropped()
    hook = read_webhooks(json.dumps({"sendgrid": {"keys": [GRID.public, key]}}))["sendgrid"]
    [event] = events(hook, delivery, DROPPED_MS)
    assert (event.type, event.props["hard"], event.at_ms) == ("email_bounced", True, DROPPED_MS - 10_000)
    assert event.address == hashed("email", "hello@world.com")
    headers = delivery.lower()
    for body in (delivery.body[:-2], delivery.body + b" ", delivery.body.replace(b"hello", b"jello"), b""):
        assert hook.refuses(headers, body, DROPPED_MS) == "bad_signature"
    assert LETTERS.refuses(headers, delivery.body, DROPPED_MS) == "bad_signature"


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("name", ["orders_create", "checkouts_create", "carts_update"])
def test_recorded_deliveries_of_shopify_are_believed_by_their_secret_to_the_last_byte(name: str) -> None:
    delivery = sample(name)
    assert SHOPIFY.refuses(delivery.lower(), delivery.body, NOW) == ""
    assert SHOPIFY.refuses(delivery.lower(), delivery.body + b"\n", NOW) == "bad_signature"
    signed = delivery.lower()["x-shopify-hmac-sha256"]
    for wrong in ("", signed[:-2], signed.swapcase(), "é"):
        assert SHOPIFY.refuses({"x-shopify-hmac-sha256": wrong}, delivery.body, NOW) == "bad_signature"
    assert SHOPIFY.refuses({}, delivery.body, NOW) == "bad_signature"


@pytest.mark.invariant("R29")
def test_what_was_signed_more_than_five_minutes_away_is_not_believed() -> None:
    delivery = GRID.tells(NOW, told("open"))
    headers, body = delivery.lower(), delivery.body
    for away_ms in (-SIGNED_MS_MAX, 0, SIGNED_MS_MAX):
        assert LETTERS.refuses(headers, body, NOW + away_ms) == ""
    for away_ms in (-SIGNED_MS_MAX - 1, SIGNED_MS_MAX + 1, DAY_MS):
        assert LETTERS.refuses(headers, body, NOW + away_ms) == "bad_time"
    later = {**headers, "x-twilio-email-event-webhook-timestamp": str((NOW + DAY_MS) // 1000)}
    assert LETTERS.refuses(later, body, NOW + DAY_MS) == "bad_signature"


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("signature", ["", "no base64", "AAAA", "é"])
def test_a_signature_that_is_none_is_a_bad_one(signature: str) -> None:
    headers = {**GRID.tells(NOW, told("open")).lower(), "x-twilio-email-event-webhook-signature": signature}
    assert LETTERS.refuses(headers, b"[]", NOW) == "bad_signature"


def test_every_mistake_in_webhooks_is_told_and_no_key(tmp_path: Path) -> None:
    page = tmp_path / "mine.yaml"
    page.write_text("name: mine\n")
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    other = b64encode(rsa_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    wrong = {
        "Odd Name": {"kind": "shopify", "keys": ["hidden"]},
        "a": {"keys": ["hidden"]},
        "b": {"kind": "shopify", "keys": []},
        "c": {"kind": "shopify", "keys": [""]},
        "d": {"kind": "sendgrid", "keys": ["hidden"]},
        "e": {"kind": "sendgrid", "keys": [other]},
        "f": {"kind": "shopify", "keys": ["hidden"], "late_days": 0},
        "g": {"kind": "shopify", "keys": ["hidden"], "mapping": str(tmp_path / "none.yaml")},
        "h": {"kind": "shopify", "keys": ["hidden"], "mapping": str(page)},
        "i": {"kind": "shopify", "keys": ["hidden"], "secret": "hidden"},
        "j": "hidden",
    }
    with pytest.raises(Refused) as refused:
        read_webhooks(json.dumps(wrong))
    said = str(refused.value).splitlines()
    for name in wrong.keys() - {"h"}:
        assert sum(line.startswith(f"OPPORTUNE_WEBHOOKS: {name}: ") for line in said) == 1, name
    assert sum(f"{page}:1: " in line for line in said) == 4  # file, identify, time, events
    assert "hidden" not in str(refused.value)
    assert other not in str(refused.value)
    with pytest.raises(Refused, match="an object with one webhook at least wanted"):
        read_webhooks("{}")
    with pytest.raises(Refused, match="a file of webhooks wanted"):
        read_webhooks(str(tmp_path / "no.json"))
    assert read_webhooks("") == {}
    settings = read({"OPPORTUNE_WEBHOOKS": json.dumps(HOOKS)})
    assert HUSH not in repr(settings)


def test_every_kind_of_webhook_has_its_mapping() -> None:
    assert set(KINDS) == {"sendgrid", "shopify"}
    for name, spec in KINDS.items():
        assert spec.says
        assert read_webhooks(json.dumps({name: {"keys": [GRID.public]}}))[name].spec is spec


# --- what SendGrid tells ----------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M40")
@pytest.mark.parametrize(
    ("event", "more", "type_", "props"),
    [
        ("processed", {"trigger_id": "t1"}, "email_sent", {"trigger_id": "t1"}),
        ("delivered", {"topic": "news", "campaign": "autumn"}, "email_delivered", {"topic": "news", "campaign": "autumn"}),
        ("open", {"useragent": "Mozilla/5.0 (Windows NT 10.0) GoogleImageProxy"}, "email_opened", {"machine": None}),
        ("open", {"useragent": "Mozilla/5.0", "sg_machine_open": False}, "email_opened", {"machine": "prefetch"}),
        ("open", {"useragent": "Mozilla/5.0 (Macintosh)", "sg_machine_open": True}, "email_opened", {"machine": "prefetch"}),
        ("click", {"url": "https://shop.example/a", "useragent": "BarracudaCentral/1"}, "email_link_clicked",
         {"machine": "scanner", "url": "https://shop.example/a"}),
        ("click", {"url": "https://shop.example/a"}, "email_link_clicked", {"machine": None}),
        ("bounce", {"type": "bounce", "reason": "550 no such user", "bounce_classification": "Invalid Address"},
         "email_bounced", {"hard": True, "bounce": "bounce", "classification": "Invalid Address"}),
        ("bounce", {"type": "blocked"}, "email_bounced", {"hard": False}),
        ("dropped", {"reason": "Bounced Address"}, "email_bounced", {"hard": True}),
        ("dropped", {"reason": "Spam Content"}, "email_bounced", {"hard": False}),
        ("spamreport", {}, "email_marked_as_spam", {}),
        ("unsubscribe", {}, "unsubscribed", {"channel": "email", "topic": "*"}),
        ("group_unsubscribe", {"asm_group_id": 7}, "unsubscribed", {"topic": "asm-7"}),
        ("group_unsubscribe", {"asm_group_id": 7, "topic": "news"}, "unsubscribed", {"topic": "news"}),
    ],
)  # fmt: skip
def test_what_became_of_a_letter_is_told_in_our_words(
    event: str, more: dict[str, Any], type_: str, props: dict[str, Any]
) -> None:
    found = mail_event(event, **more)
    assert found.type == type_
    assert {name: found.props.get(name) for name in props} == props
    assert found.props["delivery_id"] == "m.1"


@pytest.mark.mechanic("M82")
def test_who_subscribes_again_has_consented() -> None:
    found = mail_event("group_resubscribe", asm_group_id=7)
    assert found.type == "consent_changed"
    assert (found.props["channel"], found.props["topic"], found.props["state"]) == ("email", "asm-7", "granted")


def test_a_letter_that_names_its_user_is_filed_under_him() -> None:
    [found] = events(LETTERS, GRID.tells(NOW, told("open", user_id="u-1")))
    assert (found.address, found.identifiers) == ("user:u-1", (hashed("email", MAIL),))


@pytest.mark.invariant("R9")
def test_of_one_delivery_what_is_good_is_taken_and_the_rest_kept_byte_for_byte() -> None:
    parts = [
        orjson.dumps(told("open")),
        b'{"event" : "deferred","email":"ana@shop.example"}',
        b'{"event":"account_status_change","timestamp":1}',
        b'{"event":"click","email":"ana@shop.example","timestamp":"soon"}',
        b'{"event":"click","email":"nobody","timestamp":%d}' % (NOW // 1000),
        b'{"event":"click","email":"ana@shop.example","timestamp":1600000000}',
        b'{"event":"click","email":"ana@shop.example","timestamp":%d}' % (NOW // 1000 + 3600),
        b"5",
    ]
    body = b"\xef\xbb\xbf[" + b", ".join(parts) + b"]\r\n"
    admission = take(LETTERS, GRID.tells(NOW, body=body))
    wanted = ["not_final", "no_event", "bad_time", "missing_id", "too_late", "in_future", "not_an_object"]
    assert [refusal.reason for refusal in admission.refusals] == wanted
    letters = [orjson.loads(record.value) for record in admission.records[1:]]
    assert [letter["original"].encode() for letter in letters] == parts[1:]
    assert [letter["where"] for letter in letters] == [
        {"collector": "hook", "source": "letters", "place": place} for place in range(1, 8)
    ]
    assert MAIL not in repr(admission.refusals)


# --- what Shopify tells -----------------------------------------------------------------------------------------------


def test_a_recorded_order_that_is_meant_is_one_of_its_customer() -> None:
    # As recorded it is one for trying out.
    assert reasons(SHOPIFY, sample("orders_create"), ORDER_MS) == ["test_order"]
    [event] = events(SHOPIFY, of_shopify("orders/create", {**ORDER, "financial_status": "paid"}, "e-1"), ORDER_MS)
    assert (event.type, event.message_id, event.at_ms) == ("order_completed", "orders/create/e-1", ORDER_MS)
    assert event.address == "user:115310627314723950"
    assert event.identifiers == (hashed("email", "jon@example.com"),)
    assert event.traits == {"email": "jon@example.com"}
    props = event.props
    assert (props["order_id"], props["currency"], props["status"]) == ("820982911946154500", "USD", "paid")
    assert (props["total_minor"], props["shipping_minor"], props["discount_minor"]) == (40_495, 1_000, 2_000)
    assert [(item["product_id"], item["quantity"], item["amount_minor"]) for item in props["items"]] == [
        ("788032119674292900", 1, 8_999), ("LENS-PROTECT-2YR", 1, 1_999), ("CASE-LEATHER-PREM", 1, 2_499),
        ("788032119674292900", 1, 15_999), ("788032119674292900", 1, 11_999),
    ]  # fmt: skip
    assert props["items"][0]["name"] == "Aviator sunglasses"


@pytest.mark.parametrize(
    ("said", "status"), [("pending", "placed"), ("authorized", "placed"), ("voided", "placed"), ("refunded", "paid")]
)
def test_an_order_is_paid_when_shopify_has_the_money(said: str, status: str) -> None:
    [event] = events(SHOPIFY, of_shopify("orders/create", {**ORDER, "financial_status": said}, "e"), ORDER_MS)
    assert event.props["status"] == status


@pytest.mark.parametrize(
    ("topic", "type_", "props"),
    [
        ("orders/updated", "order_updated", {"total_minor": 40_495}),
        ("orders/paid", "order_status_changed", {"to": "paid"}),
        ("orders/fulfilled", "order_status_changed", {"to": "shipped"}),
        ("orders/cancelled", "order_cancelled", {"reason": "customer"}),
    ],
)
def test_what_becomes_of_an_order_is_told_of_the_same_order(topic: str, type_: str, props: dict[str, Any]) -> None:
    [event] = events(SHOPIFY, of_shopify(topic, ORDER, "e"), ORDER_MS)
    assert (event.type, event.props["order_id"], event.message_id) == (type_, "820982911946154500", f"{topic}/e")
    assert {name: event.props[name] for name in props} == props


def refund(refund_id: int, at_ms: int, *paid: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "id": refund_id,
        "order_id": ORDER["id"],
        "created_at": iso(at_ms),
        "transactions": [{"kind": kind, "status": status, "amount": amount} for kind, status, amount in paid],
        "refund_line_items": [{"quantity": 1, "subtotal": 89.99, "line_item": {"product_id": 788032119674292900}}],
    }


def test_an_order_tells_its_new_refunds_and_the_money_that_went_back() -> None:
    success, failed = ("refund", "success", "80.00"), ("refund", "failure", "9.99")
    refunds = [
        refund(1, ORDER_MS - 25 * HOUR_MS, success),
        refund(2, ORDER_MS - HOUR_MS, success, failed, ("refund", "success", "5.5")),
    ]
    updated = of_shopify("orders/updated", {**ORDER, "refunds": refunds}, "e")
    [order, back] = events(SHOPIFY, updated, ORDER_MS)
    assert order.type == "order_updated"
    assert (back.type, back.address, back.identifiers) == ("order_refunded", order.address, order.identifiers)
    assert (back.message_id, back.at_ms) == ("refund-2-85.50", ORDER_MS - HOUR_MS)
    assert (back.props["order_id"], back.props["refund_id"]) == (order.props["order_id"], "2")
    assert back.props["amount_minor"] == 8_550
    assert [item["product_id"] for item in back.props["items"]] == ["788032119674292900"]
    # Alone it names nobody.
    alone = of_shopify("refunds/create", refunds[1], "e")
    assert reasons(SHOPIFY, alone, ORDER_MS) == ["no_event"]


def test_a_cart_waits_at_its_own_address_until_a_checkout_says_whose_it_is() -> None:
    cart_ms = parse_instant("2022-01-01T00:00:00Z")
    [cart] = events(SHOPIFY, sample("carts_update"), cart_ms)
    assert (cart.type, cart.address, cart.identifiers) == ("cart_set", "anon:shopify-cart-exampleCartId", ())
    assert (cart.props["cart_id"], cart.props["currency"]) == ("exampleCartId", "USD")
    assert [(item["product_id"], item["quantity"], item["price_e6"]) for item in cart.props["items"]] == [
        ("788032119674292900", 3, 19_990_000)
    ]
    [checkout] = events(SHOPIFY, sample("checkouts_create"), cart_ms)
    assert (checkout.type, checkout.address) == ("checkout_started", "user:603851970716743400")
    assert checkout.identifiers == (
        hashed("email", "example@email.com"),
        "anon:shopify-cart-eeafa272cebfd4b22385bc4b645e762c",
    )
    assert (checkout.props["value_minor"], len(checkout.props["items"])) == (42_188, 2)
    [emptied] = events(
        SHOPIFY, of_shopify("carts/update", {"token": "c", "line_items": [], "updated_at": iso(NOW)}, "e")
    )
    assert (emptied.type, emptied.props["items"]) == ("cart_set", [])


@pytest.mark.mechanic("M82")
def test_customers_are_identified_registered_and_asked() -> None:
    ana = {
        "id": 5, "email": MAIL, "phone": "+49 151 12345678", "first_name": "Ana", "state": "enabled",
        "updated_at": iso(NOW), "default_address": {"city": "Berlin", "country_code": "DE"},
    }  # fmt: skip
    [said, registered] = events(SHOPIFY, of_shopify("customers/create", ana, "e"))
    assert (said.type, said.address) == ("identified", "user:5")
    assert said.identifiers == (hashed("email", MAIL), hashed("phone", "+4915112345678"))
    assert said.traits["first_name"] == "Ana"
    assert said.traits["address"] == {"city": "Berlin", "country": "DE"}
    assert (registered.type, registered.address) == ("registered", "user:5")
    assert said.message_id != registered.message_id
    assert len(events(SHOPIFY, of_shopify("customers/create", {**ana, "state": "disabled"}, "e"))) == 1
    asked = {
        "customer_id": 5,
        "email_address": MAIL,
        "email_marketing_consent": {"state": "unsubscribed", "consent_updated_at": None},
    }
    delivery = of_shopify("customers_email_marketing_consent/update", asked, "e")
    delivery.headers["X-Shopify-Triggered-At"] = iso(NOW - 5_000).replace("Z", "123456Z")
    [consent] = events(SHOPIFY, delivery)
    assert (consent.type, consent.address, consent.at_ms) == ("consent_changed", "user:5", NOW - 5_000)
    assert (consent.props["channel"], consent.props["state"]) == ("email", "denied")
    pending = {**asked, "email_marketing_consent": {"state": "pending"}}
    assert reasons(SHOPIFY, of_shopify("customers_email_marketing_consent/update", pending, "e")) == ["no_event"]


def test_a_page_of_the_shops_own_may_take_the_place_of_ours(tmp_path: Path) -> None:
    page = tmp_path / "own.yaml"
    page.write_text(
        """
name: own
file: {kind: jsonl}
identify: {email: $who}
time: {from: $_triggered_at}
events:
  - event: parcel_lost
    properties: {weight: {multiply: [$kg, 1.5]}}
"""
    )
    said = {"parcels": {"kind": "shopify", "keys": [HUSH], "mapping": str(page), "late_days": 365}}
    hook = read_webhooks(json.dumps(said))["parcels"]
    delivery = of_shopify("parcels/lost", {"who": MAIL, "kg": "0.5"})
    delivery.headers["X-Shopify-Triggered-At"] = iso(NOW - 300 * DAY_MS)
    [event] = events(hook, delivery)
    assert (event.type, event.props, event.address) == ("parcel_lost", {"weight": "0.75"}, hashed("email", MAIL))
    assert event.message_id.startswith("body:")


FIELDS = st.sampled_from(
    "event email timestamp refunds transactions amount kind status line_items product_id price id updated_at created_at"
    " customer currency total_price state token cart_token".split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=20,
)
TOPICS = st.sampled_from(["orders/create", "orders/updated", "carts/update", "customers/create", "refunds/create", ""])


@pytest.mark.invariant("R29")
@each(told=st.lists(JSON, max_size=4) | st.dictionaries(FIELDS, JSON), topic=TOPICS)
def test_whatever_is_signed_becomes_events_or_letters_and_nothing_else(told: Any, topic: str) -> None:
    headers = {"x-shopify-topic": topic}
    for hook in (SHOPIFY, LETTERS):
        parsed = hook.parse(headers, orjson.dumps(told))
        admission = admit(parsed, Given(hook.source, NOW, SECRET, 65_536, headers=hook.kept(headers)))
        assert len(parsed.events) == len(admission.records)
        assert len(parsed.events) == sum(admission.accepted.values()) + len(admission.refusals)
        for record in admission.records[len(admission.records) - len(admission.refusals) :]:
            assert orjson.loads(record.value)["original"]


@pytest.mark.invariant("R29")
@pytest.mark.parametrize(
    ("body", "reason"), [(b"", "bad_json"), (b"[", "bad_json"), (b"5", "bad_body"), (b'"a"', "bad_body")]
)
def test_a_delivery_that_is_no_object_and_no_list_is_refused_whole(body: bytes, reason: str) -> None:
    with pytest.raises(BadInput) as refused:
        LETTERS.parse({}, body)
    assert refused.value.reason == reason


# --- on a real broker -------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R29")
async def test_what_is_signed_is_stored_and_what_is_not_is_answered_as_an_unknown_path(broker: str) -> None:
    now_ms = SystemClock().now_ms()
    key, old = dropped()
    hooks = json.dumps({**HOOKS, "old": {"kind": "sendgrid", "keys": [key]}})
    async with collecting(broker, webhooks=hooks) as collector:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}", timeout=180) as client:

            async def post(path: str, one: Delivery) -> httpx.Response:
                return await client.post(path, content=one.body, headers=one.headers)

            unknown = await client.post("/hooks/nobody", content=b"[]")
            assert unknown.status_code == 404
            signed = GRID.tells(now_ms, told("open", timestamp=now_ms // 1000, email="signed@hooks.example"))
            stale = GRID.tells(now_ms - SIGNED_MS_MAX - 2_000, told("open", email="stale@hooks.example"))
            other = SendGrid().tells(now_ms, told("open", email="other@hooks.example"))
            refused = [
                await post("/hooks/letters", stale),
                await post("/hooks/letters", other),
                await post("/hooks/letters", Delivery({}, signed.body)),
                await post("/hooks/letters", Delivery(signed.headers, signed.body + b" ")),
                await post("/hooks/shopify", signed),
                await post("/hooks/old", old),
                await post("/hooks/letters/", signed),
                await client.get("/hooks/letters"),
                await client.request("OPTIONS", "/hooks/letters"),
            ]
            # Not a word of why, and no difference by which sources could be found out.
            for answer in refused:
                assert (answer.status_code, answer.content) == (404, unknown.content)
                assert dict(answer.headers) | {"date": ""} == dict(unknown.headers) | {"date": ""}
            for path in ("/hooks/letters", "/webhooks/letters"):
                answer = await post(path, signed)
                assert (answer.status_code, answer.content) == (200, b'{"success":true}')
            broken = await post("/hooks/letters", GRID.tells(now_ms, body=b"[hooks.example"))
            assert (broken.status_code, broken.json()["code"]) == (400, "bad_json")
            kept = await post("/hooks/shopify", of_shopify("hooks.example/odd", {"id": 1}, "e-9"))
            assert (kept.status_code, kept.content) == (200, b'{"success":true}')
            page = (await client.get("/metrics")).text
        counted = [line for line in page.splitlines() if line.startswith("opportune_collector_webhooks_refused_total{")]
        assert 'opportune_collector_webhooks_refused_total{reason="bad_time",source="letters"} 1.0' in counted
        assert 'opportune_collector_webhooks_refused_total{reason="bad_time",source="old"} 1.0' in counted
        assert 'opportune_collector_webhooks_refused_total{reason="bad_signature",source="letters"} 3.0' in counted
        for key_said in (HUSH, GRID.public, MAIL):
            assert key_said not in page
    address = ids.address_of("email", "signed@hooks.example", SETTINGS.secret_bytes())
    found = await stored(broker)
    ours = [one for one in found if b"hooks.example" in one.value or one.key == address]
    opened = [one for one in ours if one.topic == EMAIL_EVENTS]
    # The second delivery is the same message: the profile takes it once.
    assert [(one.key, one.event().message_id) for one in opened] == [(address, "id-open")] * 2
    letters = {one.letter()["reason"]: one.letter() for one in ours if one.topic == DEAD_LETTERS}
    assert len(ours) == 4
    assert letters["bad_json"]["original"] == "[hooks.example"
    assert letters["no_event"]["where"] == {
        "collector": "hook", "source": "shopify", "place": 0,
        "headers": {"x-shopify-topic": "hooks.example/odd", "x-shopify-event-id": "e-9", "x-shopify-webhook-id": "webhook-e-9"},
    }  # fmt: skip


@pytest.mark.invariant("R27")
async def test_a_delivery_has_the_bounds_of_every_request(broker: str) -> None:
    now_ms = SystemClock().now_ms()
    limits = {"collector_body_bytes": 1024, "collector_key_per_s": 1, "write_keys": KEYS}
    async with collecting(broker, webhooks=json.dumps(HOOKS), **limits) as collector:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}", timeout=180) as client:
            large = await client.post("/hooks/letters", content=b" " * 1025)
            assert (large.status_code, large.json()["code"]) == (413, "too_large")
            signed = GRID.tells(now_ms)
            # Who does not sign uses up nothing of whoever does.
            unsigned = [await client.post("/hooks/letters", content=signed.body) for _ in range(3)]
            assert [one.status_code for one in unsigned] == [404] * 3
            first = await client.post("/hooks/letters", content=signed.body, headers=signed.headers)
            assert first.status_code == 200
            often = first
            while often.status_code == 200:
                often = await client.post("/hooks/letters", content=signed.body, headers=signed.headers)
            assert (often.status_code, often.json()["code"]) == (429, "too_often")
            assert often.headers["retry-after"] == "1"
