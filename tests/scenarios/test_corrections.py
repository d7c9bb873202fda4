"""Corrections travel (D5): what is told late, taken back or told anew changes statistics and memberships as of when it
happened; the change says so, and moments that were to come go as what is known now has it.
"""

from __future__ import annotations

from typing import Any

import pytest

from profiles.moments import DAY_MS, iso, parse_instant
from profiles.wire import SEGMENT_CHANGES
from rules.scenarios import Run, check
from tests.scenarios.pack import SHOP

pytestmark = pytest.mark.mechanic("D5")
START_MS = parse_instant("2026-01-01")


def changes(done: Run, segment: str) -> list[dict[str, Any]]:
    """(what, when it was decided, since when it was so, whether it is a correction) of a segment's changes."""
    return [
        {name: one.value[name] for name in ("change", "at", "effective_at", "corrected")}
        for one in done.world.published
        if one.record.topic == SEGMENT_CHANGES and one.value["segment"] == segment
    ]


def change(what: str, day: float, since_day: float) -> dict[str, Any]:
    at, since = (iso(START_MS + int(one * DAY_MS)) for one in (day, since_day))
    return {"change": what, "at": at, "effective_at": since, "corrected": since_day < day}


def test_an_order_told_three_days_late_counts_from_when_it_was_placed() -> None:
    done = check(
        """
        segment lately = {did: order, window: {within: P5D}}
        segment twice = {trait: orders_paid, gte: 2}
        0d   ana  order_completed order_id=1 total=10
        6d   ana  expect out lately
        8d   ana  order_completed order_id=2 total=10 late=3d
        8d   ana  expect in lately, in twice
        9d   ana  expect in lately
        10d  ana  expect out lately
        """
    )
    assert changes(done, "lately") == [
        change("entered", 0, 0),
        change("exited", 5, 5),
        change("entered", 8, 5),
        change("exited", 10, 10),
    ]
    assert changes(done, "twice") == [change("entered", 8, 5)]


def test_a_tills_receipt_that_comes_three_days_late_is_an_order_of_that_day() -> None:
    done = check(
        """
        segment lapsed = {trait: last_order_at, older_than: P30D}
        0d   ana  order_completed order_id=1 total=10
        30d  ana  expect in
        31d  ana  receipt_registered order_id=r1 totalSum=2500 currency=RUB late=3d
        31d  ana  expect out, wake 58d, trait orders_paid 2
        58d  ana  expect in
        """
    )
    assert changes(done, "lapsed") == [change("entered", 30, 30), change("exited", 31, 28), change("entered", 58, 58)]


@pytest.mark.parametrize("taken_back", ["order_refunded order_id=3", "order_cancelled order_id=3"])
def test_an_order_taken_back_takes_back_what_it_had_brought(taken_back: str) -> None:
    done = check(
        f"""
        segment thrice = {{trait: orders_paid, gte: 3}}
        segment big = {{did: order, sum: {{field: total, gte: 100}}}}
        0d  ana  order_completed order_id=1 total=10
        1d  ana  order_completed order_id=2 total=10
        2d  ana  order_completed order_id=3 total=90
        2d  ana  expect segments big, thrice
        9d  ana  {taken_back} late=2d
        9d  ana  expect segments none
        """
    )
    for segment in ("thrice", "big"):
        assert changes(done, segment) == [change("entered", 2, 2), change("exited", 9, 7)]


def test_a_birth_date_that_is_said_anew_changes_who_is_of_age() -> None:
    check(
        """
        segment adult = {trait: custom.born, older_than: P18Y}
        0d   ana  identified custom.born=2008-01-11
        0d   ana  expect out, wake 2026-01-11T00:00
        2d   ana  identified custom.born=2007-06-01
        2d   ana  expect in, wake none
        3d   ana  identified custom.born=2009-06-01
        3d   ana  expect out, wake 2027-06-01T00:00
        # An older statement that comes late changes nothing.
        4d   ana  identified custom.born=2000-01-01 late=2d12h
        4d   ana  expect out, wake 2027-06-01T00:00
        """
    )


def test_a_pending_moment_goes_by_what_is_known_when_it_is_due() -> None:
    check(
        """
        0h    ana  product_added product=mug price=12 cart_id=c1
        1h    ana  expect emits abandoned_cart 0
        # The order was placed ten minutes ago, and is told only now: the letter is not sent.
        1h30m ana  order_completed order_id=1 cart_id=c1 product=mug price=12 late=10m
        9d    ana  expect emits abandoned_cart 0, suppressed abandoned_cart cancelled
        # Three months after it, and not after it was told, somebody lapses; an order told late puts that off.
        89d   ana  order_completed order_id=2 total=5 late=20d
        P3M1D ana  expect emits lapsed_buyer 0
        162d  ana  expect emits lapsed_buyer 1
        """,
        SHOP,
    )


LETTERS = """
    trigger lapsed = {on: {trait: last_order_at, reaches_age: P30D}, cancel_on: [{event: order_completed}], steps: [{emit: come_back}, {wait: P3D}, {emit: again}]}
    trigger cart = {on: {event: product_added}, key: cart_id, cancel_on: [{event: order_completed, match: cart_id}], steps: [{wait: PT2H}, {emit: left}]}
    trigger silent = {on: {segment: silent, change: entered}, steps: [{emit: silent}]}
    segment silent = {did_not: order, window: {within: P20D}, known_for: P1D}
    trigger bill = {on: {event: order_completed}, steps: [{emit: bill}]}
"""


@pytest.mark.mechanic("D7")
def test_a_letter_that_something_told_late_shows_to_have_been_wrong_is_regretted_once() -> None:
    done = check(
        f"""{LETTERS}
        0d    ana  order_completed order_id=1 total=10
        0d    eve  order_completed order_id=2 total=10
        30d   ana  expect emits lapsed/come_back 1, emits silent 1
        31d   ana  order_completed order_id=3 total=10 late=4d
        31d   ana  order_completed order_id=4 total=10 late=3d
        31d   ana  expect suppressed lapsed regret, suppressed lapsed cancelled, suppressed silent regret 0
        # What happens after the letter is what it was for.
        31d   eve  order_completed order_id=5 total=10
        32d   eve  expect suppressed lapsed regret 0, suppressed lapsed cancelled
        40d   eve  product_added product=mug cart_id=c
        41d   eve  order_completed order_id=6 total=10 cart_id=other late=23h
        41d   eve  expect emits cart 1, suppressed cart regret 0
        41d   eve  order_completed order_id=7 total=10 cart_id=c late=23h
        41d   eve  order_completed order_id=8 total=10 cart_id=c late=22h30m
        41d   eve  expect suppressed cart regret, suppressed bill regret 0
        """
    )
    [told] = [one for one in done.decisions("lapsed") if one["outcome"] == "regret"]
    [sent] = [one for one in done.sent("lapsed") if one["profile"]["address"] == "user:ana"]
    assert told["reason"] == "regret"
    assert told["detail"]["trigger_id"] == sent["trigger_id"]
    assert told["detail"]["by"] == "order_completed"
    assert (told["detail"]["sent_at"], told["detail"]["happened_at"]) == (
        sent["at"],
        iso(START_MS + 27 * DAY_MS),
    )
    assert told["decision_id"] != sent["trigger_id"]


def test_a_segments_letter_is_regretted_when_what_is_told_late_takes_the_segment_back() -> None:
    check(
        f"""{LETTERS}
        0d    ana  order_completed order_id=1 total=10
        20d   ana  expect emits silent 1
        22d   ana  order_completed order_id=2 total=10 late=3d
        22d   ana  expect suppressed silent regret
        39d   ana  expect emits silent 2            # so long after the order that was told late
        40d   ana  order_completed order_id=3 total=10
        40d   ana  expect suppressed silent regret
        """
    )


def test_two_who_turn_out_to_be_one_keep_what_may_be_regretted_and_history_regrets_nothing() -> None:
    check(
        f"""{LETTERS}
        0d    anon:x  product_added product=mug cart_id=c
        1d    ana     registered id=anon:x
        1d    ana     expect emits cart 0
        2d    ana     order_completed order_id=1 total=10 cart_id=c late=47h
        2d    ana     expect suppressed cart regret
        3d    eve     product_added product=mug cart_id=c
        4d    eve     order_completed order_id=2 total=10 cart_id=c late=23h backfill=true
        4d    eve     expect emits cart 1, suppressed cart regret 0
        """
    )


def test_a_letter_that_stands_on_something_told_late_says_so() -> None:
    done = check(
        f"""{LETTERS}
        segment big = {{did: order, sum: {{field: total, gte: 100}}}}
        trigger big = {{on: {{segment: big, change: entered}}, steps: [{{emit: big}}]}}
        0d  ana  order_completed order_id=1 total=200 late=2d
        0d  eve  order_completed order_id=2 total=200
        0d  ana  expect emits big 1, emits bill 1
        0d  eve  expect emits big 1, emits bill 1
        """
    )
    assert [one["corrected"] for one in done.sent("big")] == [True, False]
    assert [one["corrected"] for one in done.sent("bill")] == [True, False]
