"""What is said to turn an answer turns it: the change when it happens, and the instant when it comes (D3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, event, given

from profiles.codec import decode, encode
from profiles.moments import parse_instant
from profiles.state import Profile
from profiles.wire import Wake, decode_event, encode_event
from rules.compile import compile_rules
from rules.engine import step
from rules.explain import as_of, explain_all
from rules.rulebook import Rulebook
from rules.scenarios import run
from rules.whatif import events_of
from tests.laws.histories import ADDRESS, documents, event_of, histories, law
from tests.laws.naive import Told
from tests.scenarios.pack import SHOP

LIFE = """
    0d ana order_completed order_id=1 total=100
    1d ana order_completed order_id=2 total=20
    2d ana identified gender=female
    2d ana product_viewed product=a
"""


def told(life: str, segment: str, rule: str = "") -> tuple[Profile, Rulebook, dict[str, Any]]:
    done = run(f"segment {segment} = {rule}\n{life}" if rule else life, () if rule else SHOP)
    profile, book = done.world.profiles["user:ana"], done.world.rulebook
    [said] = explain_all(profile, book, done.world.now_ms, [segment], to_flip=True)
    return profile, book, said


def apply(profile: Profile, book: Rulebook, now_ms: int, way: dict[str, Any]) -> Profile:
    """The profile after that way was gone, event by event, as they would lie in the log."""
    present = decode(profile.address, encode(as_of(profile, book, now_ms)))
    for one in events_of(way["events"], present):
        sent = decode_event(encode_event(one))
        sent.seen_ms = sent.received_ms
        step(present, sent, book)
    return present


def is_in(profile: Profile, book: Rulebook, segment: str) -> bool:
    return next(one.id for one in book.segments if one.name == segment) in profile.members


@pytest.mark.mechanic("D3")
@pytest.mark.parametrize(
    ("segment", "rule", "wanted"),
    [
        ("vip", "", ["2 more paid order(s) of 90.00 USD"]),
        ("big_check", "", ["1 order(s) cancelled, the newest first", "1 more paid order(s) of 120.00 USD"]),
        ("repeat_buyers", "", ["1 order(s) cancelled, the newest first"]),
        ("browsing", "", ["“product viewed” 2 time(s) more"]),
        ("cart_open", "", ["1 × a product for 0.01 USD put into the cart"]),
        ("lapsed", "", []),
        ("a", "{trait: gender, eq: female}", ["gender said to be not female"]),
        ("a", "{trait: gender, eq: male}", ["gender said to be male"]),
        ("a", "{consent: {channel: email}}", ["consent to email granted"]),
        ("a", "{did: order, sum: {field: total, gte: 1370}}", ["1 more paid order(s) of 1250.00 USD"]),
        ("a", "{did: product_viewed, where: [{custom.colour: red}], times: {gte: 3}}", ["“product viewed” 3 time(s) more"]),
        ("a", "{did: product_viewed, item: [{category: tea}]}", ["“product viewed” 1 time(s) more"]),
        ("a", "{did: product_viewed, distinct: {field: product_id, gte: 4}}", ["“product viewed” 3 time(s) more"]),
        ("a", "{all: [{trait: gender, eq: male}, {did: page_viewed}]}", ["gender said to be male and “page viewed” 1 time(s) more"]),
        ("a", "{not: {trait: gender, eq: female}}", ["gender said to be not female"]),
    ],
)  # fmt: skip
def test_the_least_change_is_told_in_words_and_turns_the_answer(segment: str, rule: str, wanted: list[str]) -> None:
    profile, book, said = told(LIFE, segment, rule)
    assert [way["words"]["en"] for way in said["to_flip"]] == wanted
    now_ms = parse_instant(said["as_of"])
    for way in said["to_flip"]:
        assert is_in(apply(profile, book, now_ms, way), book, segment) != said["holds"]


@pytest.mark.mechanic("D3")
@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("{did: order, times: {gte: 2}}", "2 more shipped order(s) of 0.01 USD"),
        ("{did: order, status_in: [placed], times: {gte: 3}}", "1 more placed order(s) of 0.01 USD"),
        ("{trait: spent, gte: 12.50}", "1 more shipped order(s) of 12.50 USD"),
        ("{not: {did: order, status_in: paid}}", "2 order(s) cancelled, the newest first"),
    ],
)
def test_an_order_counts_by_the_statuses_of_the_rules(rule: str, wanted: str) -> None:
    heads = "defaults = {orders: {status_in: [shipped, delivered]}}\ntrait spent = {sum: order.total}\n"
    profile, book, said = told(LIFE, "a", f"{rule}\n{heads}")
    assert [way["words"]["en"] for way in said["to_flip"]] == [wanted]
    [way] = said["to_flip"]
    assert is_in(apply(profile, book, parse_instant(said["as_of"]), way), book, "a") != said["holds"]


def test_one_event_less_does_not_turn_it() -> None:
    profile, book, said = told(LIFE, "vip")
    [way] = said["to_flip"]
    assert way["words"]["ru"] == "ещё оплаченных заказов: 2, на 90.00 USD"
    assert not is_in(apply(profile, book, parse_instant(said["as_of"]), {"events": way["events"][:1]}), book, "vip")
    cheaper = [{**one, "props": {**one["props"], "total_minor": 8_999}} for one in way["events"]]
    assert not is_in(apply(profile, book, parse_instant(said["as_of"]), {"events": cheaper}), book, "vip")


@pytest.mark.mechanic("D3")
@law(60)
@given(document=documents(carts=True), told=histories())
def test_whatever_is_told_of_any_rule_in_any_life_turns_the_answer(document: dict[str, Any], told: list[Told]) -> None:
    book = compile_rules([("rules", json.dumps(document))])
    profile = Profile(ADDRESS)
    for one in told:
        happened = event_of(one)
        happened.seen_ms = one.seen_ms
        step(profile, happened, book)
    profile = decode(ADDRESS, encode(profile))
    now_ms = told[-1].seen_ms
    explained = explain_all(profile, book, now_ms, to_flip=True)
    assume(any(said["to_flip"] or said["changes_at"] for said in explained))
    event(f"{sum(bool(said['to_flip']) for said in explained)} of {len(explained)} segments have a change")
    for said in explained:
        for way in said["to_flip"]:
            assert is_in(apply(profile, book, now_ms, way), book, said["segment"]) != said["holds"], said
        if said["changes_at"] is not None:
            present = as_of(profile, book, now_ms)
            step(present, Wake(parse_instant(said["changes_at"]), backfill=True), book)
            assert is_in(present, book, said["segment"]) != said["holds"], said
