"""Ways into a trigger beside plain events: counted ones, thresholds, staying in a segment, dates of a life."""

from __future__ import annotations

import pytest

from rules.scenarios import check

# --- counted -----------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M57")
def test_advice_comes_some_time_after_the_first_order_only() -> None:
    done = check(
        """
        trigger advice = {on: {event: order_completed, nth: 1}, steps: [{wait: {for: P10D}}, {emit: goes_with}]}
        0d   ana  order_completed order_id=1 total=10
        3d   ana  order_completed order_id=2 total=10
        9d   ana  expect emits advice 0
        10d  ana  expect emits advice 1
        90d  ana  expect emits advice 1
        """
    )
    assert done.sent("advice")[0]["because"][0]["node"] == "event order_completed, number 1"


@pytest.mark.mechanic("M58")
def test_a_new_customer_is_led_by_hand_up_to_the_fourth_order() -> None:
    check(
        """
        trigger lead = {on: {event: order_completed, nth: [1, 2, 3]}, cancel_on: [{event: order_completed}], steps: [{wait: P14D}, {emit: "order_{nth}_next"}]}
        0d   ana  order_completed order_id=1 total=10
        14d  ana  expect emits lead/order_1_next 1
        20d  ana  order_completed order_id=2 total=10
        25d  ana  order_completed order_id=3 total=10 message=m3   # before the letter about the second
        25d  ana  expect suppressed lead cancelled
        25d  ana  order_completed order_id=3 total=10 message=m3   # told again
        39d  ana  expect emits lead/order_2_next 0, emits lead/order_3_next 1
        40d  ana  order_completed order_id=4 total=10
        99d  ana  expect emits lead 2
        """
    )


def test_what_counts_are_events_that_look_as_asked() -> None:
    check(
        """
        trigger first = {on: {event: order_status_changed, where: {to: paid}, nth: 1}, key: order_id, steps: [{emit: first_paid}]}
        0d  ana  order_completed order_id=1 total=10 status=placed
        0d  ana  order_status_changed order_id=1 to=confirmed
        0d  ana  expect emits first 0
        1d  ana  order_status_changed order_id=1 to=paid
        1d  ana  expect emits first 1
        2d  ana  order_completed order_id=2 total=10 status=placed
        2d  ana  order_status_changed order_id=2 to=paid
        2d  ana  expect emits first 1
        """
    )


@pytest.mark.mechanic("M54")
def test_a_threshold_is_crossed_once_though_the_third_order_is_told_twice_and_taken_back() -> None:
    check(
        """
        trigger discount = {on: {trait: orders_paid, crosses: 3}, re_entry: once, steps: [{emit: discount}]}
        0d  ana  order_completed order_id=1 total=10
        1d  ana  order_completed order_id=2 total=10
        1d  ana  expect emits discount 0
        2d  ana  order_completed order_id=3 total=10 message=m
        2d  ana  order_completed order_id=3 total=10 message=m
        2d  ana  expect emits discount 1
        3d  ana  order_refunded order_id=3
        4d  ana  order_completed order_id=4 total=10
        4d  ana  expect emits discount 1, suppressed discount re_entry
        """
    )


def test_a_threshold_that_time_alone_undoes_may_be_crossed_again() -> None:
    check(
        """
        trait lately = {count: order, window: {within: P30D}}
        trigger often = {on: {trait: lately, crosses: 2}, steps: [{emit: often}]}
        0d   ana  order_completed order_id=1 total=10
        5d   ana  order_completed order_id=2 total=10
        5d   ana  expect emits often 1
        30d  ana  expect out often.crossed
        31d  ana  order_completed order_id=3 total=10
        31d  ana  expect emits often 2
        """
    )


@pytest.mark.mechanic("M71")
def test_every_sixth_coffee_is_free_whatever_is_told_twice_or_taken_back() -> None:
    coffees = "\n".join(f"{n}d ana order_completed order_id={n} product=coffee price=3 message=m{n}" for n in range(6))
    check(
        f"""
        trait coffees = {{count: order, item: [{{product_id: coffee}}], per: item}}
        trigger free = {{class: transactional, on: {{trait: coffees, every: 6}}, steps: [{{emit: "free_{{nth}}"}}]}}
        {coffees}
        5d  ana  order_completed order_id=5 product=coffee price=3 message=m5
        5d  ana  expect emits free/free_1 1, emits free 1
        6d  ana  order_refunded order_id=5
        7d  ana  order_completed order_id=7 product=coffee price=3
        7d  ana  expect emits free 1
        # Twelve more at one go pass two multiples.
        8d  ana  order_completed order_id=8 {" ".join("product=coffee price=3 sku=" + str(n) for n in range(12))}
        8d  ana  expect emits free/free_2 1, emits free/free_3 1, emits free 3
        """
    )


# --- staying -----------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M5")
def test_staying_in_a_segment_for_a_time_starts_an_action_at_that_very_instant() -> None:
    done = check(
        """
        segment cart_open = {trait: cart.items, gte: 1}
        trigger stuck = {on: {segment: cart_open, dwelt: P3D}, steps: [{emit: stuck}]}
        0d      ana  product_added product=mug
        2d      ana  product_added product=pen            # still in it
        2d      ana  expect emits stuck 0
        71h59m  ana  expect emits stuck 0
        3d      ana  expect emits stuck 1
        4d      ana  cart_set
        5d      ana  product_added product=mug
        8d      ana  expect emits stuck 2
        """
    )
    assert [one["at"] for one in done.sent("stuck")] == ["2026-01-04T00:00:00.000Z", "2026-01-09T00:00:00.000Z"]


# --- dates -------------------------------------------------------------------------------------------------------

BIRTHDAY = """
    defaults = {zone: Europe/Berlin}
    trigger birthday = {on: {date: birth_date, anniversary: true, offset: -P3D, at: "10:00"}, steps: [{emit: birthday}]}
"""


@pytest.mark.mechanic("M45", "M68")
def test_a_birthday_letter_goes_three_days_before_at_ten_where_the_customer_is() -> None:
    done = check(
        f"""
        {BIRTHDAY}
        start 2026-01-01T00:00
        0d                ana  identified birth_date=1990-03-15 timezone=Asia/Tokyo
        0d                bob  identified birth_date=1990-03-15
        2026-03-12T10:00  bob  expect emits birthday 1
        2026-03-12T10:00  ana  expect emits birthday 1
        2028-04-01T10:00  bob  expect emits birthday 3
        """
    )
    assert [one["at"] for one in done.sent("birthday")[:3]] == [
        "2026-03-12T01:00:00.000Z",  # ten in Tokyo
        "2026-03-12T09:00:00.000Z",  # ten in Berlin
        "2027-03-12T01:00:00.000Z",
    ]


@pytest.mark.mechanic("M68")
@pytest.mark.parametrize(
    ("edited", "letters"),
    [
        ("2026-06-01T00:00 ana identified birth_date=1990-09-15", "2026-03-12 2027-09-12"),  # served this year
        ("2026-02-01T00:00 ana identified birth_date=1990-09-15", "2026-09-12 2027-09-12"),  # before it was
        ("2026-06-01T00:00 ana identified birth_date=1990-01-02", "2026-03-12 2026-12-30 2027-12-30"),  # of 2027
        ("2026-06-01T00:00 ana identified birth_date=none", "2026-03-12"),  # no date any more
    ],
)
def test_a_birthday_comes_once_a_calendar_year_though_the_date_is_edited(edited: str, letters: str) -> None:
    done = check(
        f"""
        {BIRTHDAY}
        start 2026-01-01T00:00
        0d                ana  identified birth_date=1990-03-15
        {edited}
        2028-01-15T00:00  ana  expect alarm {"none" if "none" in edited else done_at(letters)}
        """
    )
    assert [one["at"][:10] for one in done.sent("birthday")] == letters.split()


def done_at(letters: str) -> str:
    """The letter after the last of these, a year on."""
    last = letters.split()[-1]
    return f"{int(last[:4]) + 1}{last[4:]}T10:00"


@pytest.mark.mechanic("M45")
@pytest.mark.mechanic("M68")
def test_a_birthday_of_the_leap_day_and_one_that_is_past_when_it_is_told() -> None:
    done = check(
        """
        trigger feb = {on: {date: birth_date, anniversary: true}, steps: [{emit: feb}]}
        trigger mar = {on: {date: birth_date, anniversary: true, feb29: mar1}, steps: [{emit: mar}]}
        start 2026-03-01T12:00
        0d                ana  identified birth_date=1992-02-29
        2028-12-01T00:00  ana  expect emits feb 2, emits mar 2
        """
    )
    assert [one["at"][:10] for one in done.sent("feb")] == ["2027-02-28", "2028-02-29"]
    assert [one["at"][:10] for one in done.sent("mar")] == ["2027-03-01", "2028-02-29"]


@pytest.mark.mechanic("M45")
def test_an_event_a_change_of_segment_and_a_date_each_begin_something_by_themselves() -> None:
    done = check(
        """
        segment buyers = {did: order}
        trigger by_event = {on: {event: registered}, steps: [{emit: x}]}
        trigger by_segment = {on: {segment: buyers, change: entered}, steps: [{emit: x}]}
        trigger by_date = {on: {date: birth_date, anniversary: true, offset: P7D, at: "18:30"}, steps: [{emit: x}]}
        start 2026-03-01T00:00
        0h                ana  identified birth_date=1990-03-27 timezone=Europe/Berlin
        1h                ana  registered
        2h                ana  order_completed order_id=1 total=10
        2h                ana  expect emits by_event 1, emits by_segment 1, emits by_date 0
        2026-04-04T00:00  ana  expect emits by_date 1
        """
    )
    # A week after it, by the clock of the summer that has begun meanwhile.
    assert [one["at"] for one in done.sent("by_date")] == ["2026-04-03T16:30:00.000Z"]
    assert [done.sent(name)[0]["cause"]["event"] for name in ("by_event", "by_segment", "by_date")] == [
        "registered", "order_completed", "wake",
    ]  # fmt: skip


@pytest.mark.mechanic("M45")
def test_a_date_that_comes_once() -> None:
    check(
        """
        trigger trial = {on: {date: custom.trial_ends, offset: -P1D, at: "09:00"}, steps: [{emit: ends_tomorrow}]}
        0d                ana  identified custom.trial_ends=2026-02-10
        1d                ana  identified custom.trial_ends=2026-03-10     # prolonged
        2026-03-09T08:59  ana  expect emits trial 0
        2026-03-09T09:00  ana  expect emits trial 1
        2027-06-01T00:00  ana  expect emits trial 1
        """
    )


def test_once_a_calendar_year_of_the_customers_zone() -> None:
    check(
        """
        trigger card = {on: {event: page_viewed}, re_entry: {per: year}, steps: [{emit: card}]}
        trigger daily = {on: {event: page_viewed}, re_entry: {per: day}, steps: [{emit: daily}]}
        start 2026-06-01T10:00
        0d                ana  identified timezone=Asia/Tokyo
        1d                ana  page_viewed
        2d                ana  page_viewed
        2d                ana  expect emits card 1, suppressed card re_entry, emits daily 2
        2026-12-31T14:59  ana  page_viewed
        2026-12-31T15:00  ana  page_viewed          # midnight in Tokyo
        2026-12-31T15:00  ana  expect emits card 2, suppressed card re_entry 2, emits daily 4
        """
    )
