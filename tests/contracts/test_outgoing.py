"""The published JSON Schemas of what goes out: all that ``step`` publishes is valid by them, and they name all of it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import given, settings

from profiles.erasure import Asked, pack_asked
from profiles.ids import tomb_key
from profiles.moments import DAY_MS, HOUR_MS, iso
from profiles.wire import (
    COUPONS,
    DEAD_LETTERS,
    DECISIONS,
    ERASE,
    ERASURES,
    SEGMENT_CHANGES,
    TASKS,
    TRAIT_CHANGES,
    TRIGGERS_PREFIX,
    Command,
    Record,
    dead_letter,
)
from rules.engine import step
from rules.scenarios import check
from tests.rules.test_explain import HISTORIES, bought, played, put_in_cart
from tests.rules.told import START_MS, Life, shop_rules

FOLDER: Final = Path(__file__).parents[2] / "docs" / "schemas"
TOPICS: Final = (SEGMENT_CHANGES, TRAIT_CHANGES, DECISIONS, TASKS, COUPONS, "triggers", DEAD_LETTERS, ERASURES)
SCHEMAS: Final = {topic: json.loads((FOLDER / f"{topic}.json").read_text()) for topic in TOPICS}
OPEN_PLACES: Final = ("payload", "detail", "where", "items", "held", "addresses")
"""Objects whose names come from rules and reasons; everywhere else each name is published."""


def closed(schema: Any, name: str = "") -> Any:
    """The same schema, refusing what it does not name: consumers must let new names pass, this test must not."""
    schema = copy.deepcopy(schema)
    if isinstance(schema, dict):
        if "properties" in schema and "type" in schema and name not in OPEN_PLACES:
            schema["additionalProperties"] = False
        for key, value in schema.get("properties", {}).items():
            schema["properties"][key] = closed(value, key)
    return schema


CHECKS: Final = {
    topic: jsonschema_rs.validator_for(closed(schema), validate_formats=True) for topic, schema in SCHEMAS.items()
}


def checked(records: list[Record]) -> Counter[str]:
    """Validate each record; how many there were by schema."""
    found: Counter[str] = Counter()
    for record in records:
        name = "triggers" if record.topic.startswith(TRIGGERS_PREFIX) else record.topic
        value = json.loads(record.value)
        CHECKS[name].validate(value)
        holder = value.get("profile", value)
        assert record.key == holder["address"]
        if name == "triggers":
            assert record.topic == f"triggers.{value['trigger']}"
        found[name] += 1
    return found


@pytest.mark.parametrize("topic", TOPICS)
def test_a_schema_is_one_and_bears_its_topics_name_and_version(topic: str) -> None:
    schema = SCHEMAS[topic]
    assert jsonschema_rs.meta.is_valid(schema)
    assert (schema["title"], schema["$id"]) == (topic, f"urn:opportune:{topic}:1")


@pytest.mark.mechanic("M98")
def test_what_the_shop_packs_triggers_publish_is_valid() -> None:
    shop = shop_rules()
    life = Life(shop)
    life.event(
        "Signed Up", START_MS, traits={"email": "ana@shop.example", "first_name": "Ana", "timezone": "Europe/Riga"}
    )
    life.event("Consent Changed", START_MS + 1, channel="email", topic="cart", state="granted")
    put_in_cart(life, START_MS + HOUR_MS, cart_id="c1")
    life.event(
        "Product Viewed", START_MS + 2 * DAY_MS, product_id="drill", name="Drill", url="https://shop.example/drill"
    )
    life.wait_until(START_MS + 9 * DAY_MS)
    for number in range(5):
        bought(life, START_MS + (10 + 20 * number) * DAY_MS, f"o{number}", 90, quantity=2)
    life.event("Unsubscribed", START_MS + 100 * DAY_MS, topic="replenishment")
    life.wait_until(START_MS + 300 * DAY_MS)
    counts = checked(life.records)
    assert set(counts) == {"triggers", DECISIONS, SEGMENT_CHANGES}
    sent = {json.loads(one.value)["trigger"] for one in life.records if one.topic.startswith(TRIGGERS_PREFIX)}
    assert sent == {"abandoned_cart", "welcome", "lapsed_buyer", "replenishment", "vip_granted", "vip_burns"}
    moments = [json.loads(one.value) for one in life.records if one.topic.startswith(TRIGGERS_PREFIX)]
    decisions = [json.loads(one.value) for one in life.records if one.topic == DECISIONS]
    # Why something was sent stands in its decision, too.
    assert {one["decision_id"]: one["detail"]["because"] for one in decisions if one["outcome"] == "emitted"} == {
        one["trigger_id"]: one["because"] for one in moments
    }
    assert "no_consent" in {one["reason"] for one in decisions}


@pytest.mark.mechanic("M98")
def test_tasks_coupons_and_variants_are_published_as_their_schemas_say() -> None:
    done = check(
        """
        trigger it = {on: {event: registered}, steps: [{split: {experiment: e, arms: {a: 50, b: 50}}}, {issue_coupon: {offer: hi, valid: P1D}}, {issue_coupon: {offer: "{arm}"}}, {task: {queue: q, title: t}}, {task: {queue: q, title: t, due: P1D, assignee: olga}}, {emit: {template: a, payload: {coupon: $coupon}}}]}
        0d  ana  registered
        """
    )
    assert checked([one.record for one in done.world.published]) == {"triggers": 1, DECISIONS: 3, TASKS: 2, COUPONS: 2}


@pytest.mark.mechanic("M13")
def test_changes_of_traits_of_every_kind_are_published_as_their_schema_says() -> None:
    done = check(
        """
        trait paid = {avg: order.total, publish: true}
        trait buys = {count: order, publish: true}
        trait since = {last: order.time, publish: true}
        trait rhythm = {mean_gap: order, min_samples: 2, publish: true}
        trait likes = {top_k: {of: order.item.product_id, k: 2}, publish: true}
        trait custom.club = {said: bool, publish: true}
        trait tier = {tiers: buys, cuts: [2], labels: [new, known], publish: true}
        0d  ana  order_completed order_id=1 total=10 product=a price=10
        1d  ana  identified custom.club=true
        3d  ana  order_completed order_id=2 total=15 product=b price=15
        4d  ana  order_completed order_id=3 total=15 product=b price=15
        """
    )
    counts = checked([one.record for one in done.world.published])
    assert set(counts) == {TRAIT_CHANGES}
    assert {one.value["trait"] for one in done.world.published} == {one.name for one in done.world.rulebook.published}


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_whatever_happens_in_the_shop_is_published_as_its_schema_says(history: list[tuple[int, str, int]]) -> None:
    life, at_ms = played(history)
    life.wait_until(at_ms + 400 * DAY_MS)
    checked(life.records)


@pytest.mark.parametrize("original", [b'{"event": 1}', b"\xff\xfe"])
def test_a_dead_letter_is_valid_whatever_bytes_it_keeps(original: bytes) -> None:
    where = {"partition": 3, "offset": 17}
    value = dead_letter(reason="bug", detail="x", topic="page_views", original=original, at=iso(START_MS), where=where)
    CHECKS[DEAD_LETTERS].validate(json.loads(value))


@pytest.mark.invariant("R24")
def test_what_is_told_of_an_erasure_is_valid_and_so_is_what_went_before_it() -> None:
    shop = shop_rules()
    life = Life(shop)
    life.event("Signed Up", START_MS, traits={"first_name": "Ana"})
    put_in_cart(life, START_MS + HOUR_MS, cart_id="c1")
    at_ms = START_MS + 2 * HOUR_MS
    address = life.profile.address
    command = Command(ERASE, address, "", (at_ms, "c-1"), pack_asked(Asked("dpo")), at_ms, seen_ms=at_ms)
    done = step(life.profile, command, shop)
    assert done.erased is not None
    CHECKS[ERASURES].validate({**done.erased, "hash": tomb_key(address, b"secret")})
    assert checked(done.records)[DECISIONS] >= 1


def test_a_record_with_a_name_too_many_or_too_few_is_noticed() -> None:
    life = Life(shop_rules())
    bought(life, START_MS, "o1", 10)
    value = json.loads(next(one.value for one in life.records if one.topic == SEGMENT_CHANGES))
    check = CHECKS[SEGMENT_CHANGES]
    assert check.is_valid(value)
    assert not check.is_valid({**value, "extra": 1})
    assert not check.is_valid({key: one for key, one in value.items() if key != "cause"})
    assert jsonschema_rs.is_valid(SCHEMAS[SEGMENT_CHANGES], {**value, "extra": 1}), "consumers let new names pass"
