"""What reaches beyond the customer's own letters: audiences for advertising, friends, campaigns on a date, erasure."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema_rs
import pytest

from profiles.wire import AUDIENCES, COUPONS
from rules.scenarios import Run, check

AUDIENCE = jsonschema_rs.validator_for(
    json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "audiences.json").read_text("utf-8"))
)

CARTS = """
    policies = {marketing: {consent: {channel: email, topic: ads, mode: opt_out}, holdout: {trait: custom.held, eq: true}}}
    trigger carts = {on: {event: product_added}, restart_on: {event: product_added}, cancel_on: [{event: order_completed}], steps: [{wait: PT2H}, {audience: {dest: yandex, name: carts, add: self, remove_on: order_completed}}]}
"""


def told(done: Run) -> list[tuple[str, str, str]]:
    """(change, address, by) of what was told of audiences."""
    found = [one.value for one in done.world.published if one.record.topic == AUDIENCES]
    for value in found:
        AUDIENCE.validate(value)
    assert len({one["change_id"] for one in found}) == len(found)
    return [(one["change"], one["address"], one["by"]) for one in found]


@pytest.mark.mechanic("M89", "M90")
def test_who_left_a_cart_is_advertised_to_until_he_orders_and_once_each_time() -> None:
    done = check(
        f"""{CARTS}
        0h   ana  identified email=Ana@Shop.de phone=+49301234567
        0h   ana  product_added product=mug
        1h   ana  expect audience yandex/carts out
        2h   ana  expect audience yandex/carts in, suppressed carts done
        3h   ana  product_added product=pen
        9h   ana  expect audience yandex/carts in, suppressed carts done 2
        10h  ana  order_completed order_id=1 product=mug price=1
        10h  ana  expect audience yandex/carts out
        11h  ana  order_completed order_id=2 product=mug price=1
        20h  ana  product_added product=mug
        30h  ana  expect audience yandex/carts in
        """
    )
    assert told(done) == [
        ("add", "user:ana", "carts"),
        ("remove", "user:ana", "order_completed"),
        ("add", "user:ana", "carts"),
    ]
    first = next(one.value for one in done.world.published if one.record.topic == AUDIENCES)
    assert first["email_sha256"] == hashlib.sha256(b"ana@shop.de").hexdigest()
    assert first["phone_sha256"] == hashlib.sha256(b"49301234567").hexdigest()


@pytest.mark.mechanic("M89")
def test_who_refuses_or_is_held_out_is_on_no_audience_and_whoever_refuses_later_leaves_it() -> None:
    done = check(
        f"""{CARTS}
        0h  ana  unsubscribed channel=email topic=ads
        0h  ana  product_added product=mug
        0h  bob  identified custom.held=true
        0h  bob  product_added product=mug
        0h  tom  product_added product=mug
        3h  ana  expect suppressed carts no_consent, audience yandex/carts out
        3h  bob  expect suppressed carts holdout, audience yandex/carts out
        3h  tom  expect audience yandex/carts in
        4h  tom  unsubscribed channel=email
        4h  tom  expect audience yandex/carts out
        """
    )
    assert told(done) == [("add", "user:tom", "carts"), ("remove", "user:tom", "unsubscribed")]


@pytest.mark.mechanic("M89")
@pytest.mark.invariant("R22")
def test_two_who_are_one_person_are_on_it_once_under_the_name_that_stays() -> None:
    done = check(
        f"""{CARTS}
        0h  anon:x  product_added product=mug
        3h  ana     registered id=anon:x
        3h  ana     expect audience yandex/carts in
        3h  anon:x  expect audience yandex/carts out
        4h  ana     order_completed order_id=1 product=mug price=1
        4h  ana     expect audience yandex/carts out
        """
    )
    assert [one[:2] for one in told(done)] == [
        ("add", "anon:x"),
        ("remove", "anon:x"),
        ("add", "user:ana"),
        ("remove", "user:ana"),
    ]


@pytest.mark.mechanic("M66")
@pytest.mark.mechanic("M67")
@pytest.mark.mechanic("D7")
def test_who_answers_no_last_letter_is_erased_a_day_after_it_and_a_sign_of_life_prevents_it() -> None:
    rules = f"""{CARTS}
        segment quiet = {{did: registered}}
        trigger last = {{on: {{event: registered}}, cancel_on: [{{event: page_viewed}}], steps: [{{emit: tomorrow}}, {{wait: P1D}}, {{erase: self}}]}}
    """
    done = check(
        f"""{rules}
        0h   ana  identified email=a@b.de
        0h   ana  order_completed order_id=7 product=pen price=1
        0h   ana  registered
        0h   ana  expect trait orders_paid 1
        0h   ana  product_added product=mug
        23h  ana  expect in quiet, audience yandex/carts in
        24h  ana  expect out quiet, audience yandex/carts out, suppressed last done, alarm none
        30h  ana  page_viewed                        # what a shop goes on telling of somebody does not bring him back
        30h  ana  expect outcome erased
        48h  ana  registered
        48h  ana  expect in quiet, trait orders_paid 0
        """
    )
    [(address, receipt)] = done.world.erased
    assert (address, receipt["by"], receipt["outcome"]) == ("user:ana", "trigger:last", "done")
    check(
        f"""{rules}
        0h   ana  registered
        23h  ana  page_viewed
        9d   ana  expect in quiet, suppressed last cancelled, suppressed last done 0
        """
    )


@pytest.mark.mechanic("M72")
def test_who_brought_a_friend_has_a_coupon_when_the_friends_first_order_is_paid() -> None:
    done = check(
        """
        trigger credit = {class: transactional, on: {event: order_status_changed, where: {to: paid}, nth: 1}, when: {trait: referrer, exists: true}, steps: [{issue_coupon: {offer: friend_10, to: referrer, valid: P90D}}]}
        trigger thanks = {class: transactional, on: {event: coupon_issued, where: {offer: friend_10}}, steps: [{emit: thanks}]}
        0d  ana  registered
        1d  bob  registered referrer=ana
        1d  eve  registered referrer=eve             # nobody brings himself
        2d  bob  order_completed order_id=1 total=10 status=placed
        2d  ana  expect coupons credit 0
        3d  bob  order_status_changed order_id=1 to=paid
        3d  bob  order_status_changed order_id=1 to=paid message=again
        3d  ana  expect coupons credit 1, emits thanks 1
        3d  bob  expect emits thanks 0
        4d  bob  order_completed order_id=2 total=10 status=placed
        4d  bob  order_status_changed order_id=2 to=paid
        4d  eve  order_completed order_id=3 total=10 status=placed
        4d  eve  order_status_changed order_id=3 to=paid
        9d  ana  expect coupons credit 1, emits thanks 1
        """
    )
    [coupon] = [one.value for one in done.world.published if one.record.topic == COUPONS]
    assert (coupon["address"], coupon["offer"]) == ("user:ana", "friend_10")


@pytest.mark.mechanic("M73")
def test_a_closed_sale_goes_on_a_date_to_who_was_on_the_list_and_advertising_to_who_does_not_buy() -> None:
    rules = """
        segment regulars = {kind: static, formed_from: {trait: orders_paid, gte: 2}, form_at: 2026-11-20T00:00}
        trigger sale = {on: {at: 2026-11-25T10:00, over: regulars}, steps: [{emit: closed_sale}, {audience: {dest: yandex, add: self, remove_on: order_completed}}]}
    """
    done = check(
        f"""{rules}
        start 2026-11-01T00:00
        0d                ana  order_completed order_id=1 total=10
        1d                ana  order_completed order_id=2 total=10
        1d                bob  order_completed order_id=3 total=10
        2d                bob  order_completed order_id=4 total=10
        3d                eve  order_completed order_id=5 total=10
        2026-11-21T00:00  eve  order_completed order_id=6 total=10     # a regular now, but not on the list
        2026-11-22T00:00  bob  order_refunded order_id=4               # on the list all the same
        2026-11-25T09:59  ana  expect emits sale 0
        2026-11-25T10:00  ana  expect emits sale 1, audience yandex/sale in
        2026-11-25T10:00  bob  expect emits sale 1, audience yandex/sale in
        2026-11-26T00:00  bob  order_completed order_id=7 total=10
        2026-12-24T00:00  ana  expect emits sale 1, audience yandex/sale in, alarm none
        2026-12-24T00:00  bob  expect emits sale 1, audience yandex/sale out
        2026-12-24T00:00  eve  expect emits sale 0, audience yandex/sale out
        """
    )
    assert {one["at"] for one in done.sent("sale")} == {"2026-11-25T10:00:00.000Z"}
