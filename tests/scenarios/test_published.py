"""Published traits: each change of one goes out once, at its instant, whatever brings it."""

from __future__ import annotations

import pytest

from profiles.erasure import Asked, pack_asked
from profiles.ids import trigger_id
from profiles.moments import DAY_MS
from profiles.wire import ERASE, TRAIT_CHANGES, Command, Event
from rules.compile import compile_rules
from rules.scenarios import check, run


@pytest.mark.mechanic("M13")
def test_a_score_tells_each_change_also_the_one_that_silence_brings() -> None:
    done = check(
        """
        trait it = {rfm: {recency: [P30D, P60D], frequency: [2, 5], monetary: [50, 400]}, publish: true}
        0d   ana  page_viewed
        0d   ana  expect trait_changes it.r 0, trait_changes it.cell 0
        1d   ana  order_completed order_id=1 total=60 message=first
        1d   ana  expect trait_changes it.r 1, trait_changes it.cell 1
        31d  ana  expect trait_changes it.r 2, trait_changes it.f 1
        32d  ana  order_completed order_id=2 total=60
        32d  ana  expect trait_changes it.r 3, trait_changes it.f 2
        32d  ana  page_viewed
        33d  ana  expect trait_changes it.r 3, trait_changes it.cell 3
        """
    )
    assert done.trait_changes("it.r", "user:ana") == [(None, 3, DAY_MS), (3, 2, 31 * DAY_MS), (2, 3, 32 * DAY_MS)]
    first = next(one.value for one in done.world.published if one.record.topic == TRAIT_CHANGES)
    assert first == {
        "change_id": trigger_id("trait:it.r", "changed", "user:ana", f"{done.start_ms + DAY_MS}:order_completed:first:"),
        "trait": "it.r", "before": None, "after": 3, "address": "user:ana", "at": "2026-01-02T00:00:00.000Z",
        "cause": {"event": "order_completed", "message_id": "first"},
    }  # fmt: skip


@pytest.mark.mechanic("M30")
def test_a_tier_that_remembers_its_side_tells_only_when_the_side_changes() -> None:
    done = check(
        """
        trait it = {tiers: cart.total, cuts: [100], labels: [small, large], hysteresis: 0.1, publish: true}
        0h  ana  product_added product=a price=95
        1h  ana  product_added product=b price=5
        1h  ana  expect trait_changes it 2
        2h  ana  product_removed product=b
        2h  ana  expect trait_changes it 2
        3h  ana  product_removed product=a
        3h  ana  product_added product=c price=89.99
        3h  ana  expect trait it small
        """
    )
    told = [(before, after) for before, after, _ in done.trait_changes("it", "user:ana")]
    assert told[:2] == [(None, "small"), ("small", "large")]
    assert told[-1][1] == "small"
    assert all(before != after for before, after in told)


def test_money_is_told_with_its_currency_and_history_is_not_told() -> None:
    done = check(
        """
        trait it = {avg: order.total, publish: true}
        0d  ana  order_completed order_id=1 total=10 backfill=true
        0d  ana  order_completed order_id=2 total=11 backfill=true
        0d  ana  expect trait_changes it 0
        1d  ana  order_completed order_id=3 total=12.50
        1d  ana  expect trait_changes it 1
        """
    )
    (before, after, _) = done.trait_changes("it", "user:ana")[0]
    assert before == {"minor": 1050, "currency": "USD", "amount": "10.50"}
    assert after == {"minor": 1116.666667, "currency": "USD", "amount": "11.17"}


@pytest.mark.invariant("R13")
def test_who_signs_in_takes_his_values_along_and_his_old_address_says_that_they_are_gone() -> None:
    done = check(
        """
        trait it = {count: product_viewed, publish: true}
        0h  anon:a  product_viewed product=x
        1h  anon:a  product_viewed product=x
        2h  ana     product_viewed product=x id=anon:a
        2h  ana     expect trait it 3
        3h  ana     product_viewed product=x
        """
    )
    his = [(b, a) for b, a, _ in done.trait_changes("it", "anon:a")]
    assert his == [(None, 1), (1, 2), (2, None)]
    mine = [(b, a) for b, a, _ in done.trait_changes("it", "user:ana")]
    assert mine == [(None, 1), (1, 3), (3, 4)]
    ids = [one.value["change_id"] for one in done.world.published if one.record.topic == TRAIT_CHANGES]
    assert len(set(ids)) == len(ids)


@pytest.mark.invariant("R24")
def test_an_erased_person_tells_that_it_is_gone_and_not_what_it_was() -> None:
    done = run(
        """
        trait city = {said: text, publish: true}
        0h  ana  identified city=Bonn
        """
    )
    world, address = done.world, "user:ana"
    at_ms = world.now_ms + 1
    world.now_ms = at_ms
    world.tell(Command(ERASE, address, "", (at_ms, "c-1"), pack_asked(Asked("dpo")), at_ms))
    assert done.trait_changes("city", address)[1][:2] == (None, None)


def test_a_trait_published_on_a_live_base_tells_nothing_at_its_first_look() -> None:
    done = run(
        """
        trait it = {count: order}
        0d  ana  order_completed order_id=1 total=10
        """
    )
    world = done.world
    world.rulebook = compile_rules([("rules", "traits: {it: {count: order, publish: true}}")])
    for day in (1, 2):
        world.until(done.start_ms + day * DAY_MS, with_it=True)
        bought = {"order_id": f"o{day}", "total_minor": 1000, "currency": "USD", "items": []}
        world.happen(
            Event(f"m{day}-late", "web", "order_completed", world.now_ms, world.now_ms, "user:ana", props=bought)
        )
    assert done.trait_changes("it", "user:ana") == [(2, 3, 2 * DAY_MS)]


def test_what_is_not_published_costs_nothing() -> None:
    book = compile_rules([("rules", "traits: {it: {count: product_viewed}}")])
    assert (book.published_by, book.published_at, book.keeping_on["product_viewed"][0][5]) == (0, 0, 0)
