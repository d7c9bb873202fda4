"""Windows of the calendar, and ages by a customer's own rhythm, at their very instants."""

from __future__ import annotations

import pytest

from rules.scenarios import check


@pytest.mark.mechanic("M15")
def test_a_man_who_bought_a_suit_this_month_leaves_as_the_month_ends_in_the_shops_zone() -> None:
    done = check(
        """
        defaults = {zone: Europe/Moscow}
        segment armani = {all: [{trait: gender, eq: male}, {did: order, item: [{category: suits}, {brand: Armani}], window: {calendar: this_month}}, {did: order, sum: {field: total, gte: 180000}}, {did: order, times: {gte: 4}}]}
        start 2026-01-10T12:00
        0d                ana  identified gender=male
        0d                ana  order_completed order_id=1 total=50000 product=a brand=Armani category=suits price=50000
        1d                ana  order_completed order_id=2 total=50000 product=b brand=Boss category=suits price=50000
        2d                ana  order_completed order_id=3 total=50000 product=c brand=Boss category=suits price=50000
        3d                ana  order_completed order_id=4 total=29999.99 product=c brand=Boss category=suits price=29999.99
        3d                ana  expect out
        4d                ana  order_completed order_id=5 total=0.01
        4d                ana  expect in, entered 4d, wake 2026-02-01T00:00
        2026-01-31T23:59  ana  expect in
        2026-02-01T00:00  ana  expect out, left 2026-02-01T00:00
        """
    )
    assert [change for change, _ in done.changes("armani")] == ["entered", "exited"]


@pytest.mark.mechanic("M4")
@pytest.mark.parametrize(
    ("start", "named", "ends"),
    [
        ("2026-03-29T01:30", "today", "2026-03-30T00:00"),  # a day of 23 hours
        ("2026-10-25T01:30", "today", "2026-10-26T00:00"),  # and one of 25
        ("2024-02-28T23:00", "today", "2024-02-29T00:00"),
        ("2024-02-29T12:00", "this_month", "2024-03-01T00:00"),
        ("2026-03-29T23:30", "this_week", "2026-03-30T00:00"),  # a Sunday
        ("2026-03-30T00:00", "this_week", "2026-04-06T00:00"),
        ("2026-01-01T00:00", "this_quarter", "2026-04-01T00:00"),
        ("2026-12-31T23:59", "this_quarter", "2027-01-01T00:00"),
        ("2026-01-01T00:00", "this_year", "2027-01-01T00:00"),
    ],
)
def test_a_period_ends_where_the_calendar_of_the_shop_says(start: str, named: str, ends: str) -> None:
    check(
        f"""
        defaults = {{zone: Europe/Berlin}}
        segment it = {{did: page_viewed, window: {{calendar: {named}}}}}
        start {start}
        0d      ana  page_viewed
        0d      ana  expect in, wake {ends}
        {ends}  ana  expect out, left {ends}
        """
    )


@pytest.mark.mechanic("M36")
def test_who_is_silent_for_three_times_his_own_interval_is_lost_and_the_instant_moves_with_the_mean() -> None:
    check(
        """
        trait rhythm = {mean_gap: order, min_samples: 3}
        segment churn = {trait: last_order_at, older_than: {times: 3, of: rhythm}}
        0d    ana  order_completed order_id=1 total=10
        90d   ana  order_completed order_id=2 total=10
        90d   ana  expect out, wake none              # two orders are no rhythm
        180d  ana  order_completed order_id=3 total=10
        180d  ana  expect out, wake 450d              # 90 days between: lost after 270
        240d  ana  order_completed order_id=4 total=10
        240d  ana  expect out, wake 480d              # 80 days between by now
        300d  ana  order_cancelled order_id=4
        300d  ana  expect out, wake 450d              # as if it had never been
        450d  ana  expect in, entered 450d
        460d  ana  order_completed order_id=5 total=10
        460d  ana  expect out, left 460d, wake 920d   # 460 days by three gaps, three times
        """
    )
