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


@pytest.mark.mechanic("M15")
def test_his_letter_shows_accessories_above_a_price() -> None:
    done = check(
        """
        segment armani = {all: [{trait: gender, eq: male}, {did: order, item: [{category: suits}, {brand: Armani}], window: {calendar: this_month}}]}
        trigger accessories = {on: {segment: armani}, steps: [{emit: {template: t, payload: {co_purchased: {count: 6, of: bought, under: accessories, price: {gte: 15000.01}}}}}]}
        0d  shop  product_updated product=suit price=50000 category=suits accompanying=[tie|belt|cufflinks|shirt]
        0d  shop  product_updated product=tie price=14999 category=accessories/ties
        0d  shop  product_updated product=belt price=15000.01 category=accessories/belts
        0d  shop  product_updated product=cufflinks price=40000 category=accessories
        0d  shop  product_updated product=shirt price=20000 category=shirts
        1d  ana   identified gender=male
        1d  ana   order_completed order_id=1 total=50000 product=suit brand=Armani category=suits price=50000
        1d  ana   expect in armani, emits accessories 1
        """
    )
    [letter] = done.sent("accessories")
    assert sorted(one["product_id"] for one in letter["payload"]["co_purchased"]) == ["belt", "cufflinks"]


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


@pytest.mark.mechanic("M4")
@pytest.mark.mechanic("M15")
@pytest.mark.parametrize(
    ("start", "named", "enters", "leaves"),
    [
        ("2026-03-28T12:00", "yesterday", "2026-03-29T00:00", "2026-03-30T00:00"),  # 23 hours of it
        ("2026-10-24T12:00", "yesterday", "2026-10-25T00:00", "2026-10-26T00:00"),  # 25 hours
        ("2024-02-28T23:59", "last_day", "2024-02-29T00:00", "2024-03-01T00:00"),
        ("2026-03-29T23:30", "last_week", "2026-03-30T00:00", "2026-04-06T00:00"),
        ("2024-01-31T23:59", "last_month", "2024-02-01T00:00", "2024-03-01T00:00"),  # 29 days
        ("2026-02-28T23:59", "last_month", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("2026-03-31T23:59", "last_quarter", "2026-04-01T00:00", "2026-07-01T00:00"),
        ("2025-12-31T23:59", "last_year", "2026-01-01T00:00", "2027-01-01T00:00"),
    ],
)
@pytest.mark.parametrize("what", ["page_viewed", "order"])
def test_a_period_that_is_over_begins_and_ends_at_midnight_in_the_shops_zone(
    start: str, named: str, enters: str, leaves: str, what: str
) -> None:
    done = "order_completed order_id=1 total=10" if what == "order" else what
    check(
        f"""
        defaults = {{zone: Europe/Berlin}}
        segment it = {{did: {what}, window: {{calendar: {named}}}}}
        start {start}
        0d        ana  {done}
        0d        ana  expect out, wake {enters}
        {enters}  ana  expect in, entered {enters}, wake {leaves}
        {leaves}  ana  expect out, left {leaves}, wake none
        """
    )


@pytest.mark.mechanic("M4")
@pytest.mark.parametrize(
    ("week_start", "ends"),
    [("monday", "2026-03-30T00:00"), ("sunday", "2026-04-05T00:00"), ("saturday", "2026-04-04T00:00")],
)
def test_a_week_begins_on_the_day_that_the_shop_says(week_start: str, ends: str) -> None:
    check(
        f"""
        defaults = {{zone: Europe/Berlin, week_start: {week_start}}}
        segment it = {{did: page_viewed, window: {{calendar: this_week}}}}
        segment before = {{did: page_viewed, window: {{calendar: last_week}}}}
        start 2026-03-29T12:00                                       # a Sunday
        0d      ana  page_viewed
        0d      ana  expect in it, out before, wake {ends}
        {ends}  ana  expect out it, in before
        P14D    ana  expect segments none
        """
    )


@pytest.mark.mechanic("M4")
@pytest.mark.mechanic("D5")
def test_a_late_event_falls_into_the_period_in_which_it_happened() -> None:
    check(
        """
        segment looked_twice = {did: page_viewed, window: {calendar: last_month}, times: {gte: 2}}
        segment spent = {did: dice_rolled, sum: {field: points, gte: 10}, window: {calendar: last_month}}
        start 2026-01-31T12:00
        0d                ana  page_viewed
        0d                ana  dice_rolled points=9
        2026-02-03T00:00  ana  page_viewed
        2026-02-03T00:00  ana  dice_rolled points=100
        2026-02-03T00:00  ana  expect segments none
        2026-02-04T00:00  ana  page_viewed late=4d
        2026-02-04T00:00  ana  dice_rolled points=1 late=4d
        2026-02-04T00:00  ana  expect segments looked_twice, spent
        2026-03-01T00:00  ana  expect left looked_twice 2026-03-01T00:00, segments spent
        2026-04-01T00:00  ana  expect segments none
        """
    )


@pytest.mark.mechanic("M4")
@pytest.mark.mechanic("M10")
def test_by_the_customers_own_clock_a_change_of_his_zone_moves_the_instants() -> None:
    check(
        """
        defaults = {zone: UTC}
        segment bought_yesterday = {did: order, window: {calendar: yesterday, zone: profile}}
        segment looked_yesterday = {did: page_viewed, window: {calendar: yesterday, zone: profile}}
        segment looks_today = {did: page_viewed, window: {calendar: today, zone: profile}}
        start 2026-06-01T20:00
        0h                ana  order_completed order_id=1 total=10
        0h                ana  page_viewed
        0h                ana  expect segments looks_today
        1h                ana  identified timezone=Asia/Tokyo               # there it was 2 June, 5 o'clock
        1h                ana  expect segments looks_today
        2026-06-02T00:00  ana  expect segments looks_today
        2026-06-02T15:00  ana  expect alarm 2026-06-03T15:00, segments bought_yesterday, looked_yesterday
        2026-06-02T16:00  ana  identified timezone=America/St_Johns         # there it was 1 June, half past five
        2026-06-02T16:00  ana  expect alarm 2026-06-03T02:30, segments bought_yesterday, looked_yesterday
        2026-06-03T02:30  ana  expect segments none
        """
    )


@pytest.mark.mechanic("M4")
def test_fixed_days_are_whole_days_of_the_shops_calendar() -> None:
    check(
        """
        defaults = {zone: Europe/Moscow}
        segment sale = {did: order, window: {between: [2026-11-24, 2026-11-27]}, sum: {field: total, gte: 20}}
        segment looked = {did: page_viewed, window: {between: [2026-11-24, 2026-11-27]}, times: {gte: 2}}
        segment since = {did: page_viewed, window: {after: 2026-11-27T23:00}}
        segment until = {did: page_viewed, window: {before: 2026-11-24}}
        start 2026-11-23T23:59:59
        0s                   ana  page_viewed
        0s                   ana  order_completed order_id=1 total=10
        2026-11-24T00:00     ana  page_viewed
        2026-11-24T00:00     ana  order_completed order_id=2 total=10
        2026-11-24T00:00     ana  expect segments until
        2026-11-27T23:59:59  ana  page_viewed
        2026-11-27T23:59:59  ana  order_completed order_id=3 total=10
        2026-11-27T23:59:59  ana  expect segments looked, sale, since, until
        2026-11-28T00:00     ana  page_viewed
        2026-11-28T00:00     ana  order_cancelled order_id=3
        2026-11-28T00:00     ana  expect segments looked, since, until
        """
    )


@pytest.mark.mechanic("M4")
def test_since_the_last_of_something_counts_anew_with_each_of_it_however_late_it_is_told() -> None:
    check(
        """
        segment looks = {did: page_viewed, window: {since_last: {did: email_link_clicked, where: [{campaign: spring}]}}, times: {gte: 2}}
        trait kinds = {distinct: product_viewed.product_id, window: {since_last: [order_completed, registered]}}
        0d  ana  page_viewed
        1d  ana  page_viewed
        1d  ana  expect in
        2d  ana  email_link_clicked campaign=autumn
        2d  ana  expect in
        3d  ana  product_viewed product=a
        3d  ana  product_viewed product=b
        3d  ana  expect trait kinds 2
        4d  ana  email_link_clicked campaign=spring late=3d12h
        4d  ana  expect out, left 4d
        5d  ana  page_viewed
        5d  ana  expect in
        6d  ana  registered
        6d  ana  expect trait kinds 0
        7d  ana  product_viewed product=b
        7d  ana  expect trait kinds 1
        """
    )


@pytest.mark.mechanic("M51")
def test_in_this_visit_means_until_the_very_end_of_the_visit() -> None:
    check(
        """
        segment looks = {did: product_viewed, item: [{category: tools}], window: {session: current}, times: {gte: 2}}
        segment bought = {did: order, window: {session: current}}
        0m    ana  product_viewed product=a category=tools
        29m   ana  product_viewed product=b category=tools/drills
        29m   ana  order_completed order_id=1 total=10
        29m   ana  expect segments bought, looks
        58m   ana  expect segments bought, looks
        59m   ana  expect left looks 59m, segments none
        2h    ana  product_viewed product=b category=tools/drills
        2h    ana  expect segments none
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
