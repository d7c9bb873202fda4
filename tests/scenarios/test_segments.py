"""The segments of the shop pack, and the segment mechanics of SPEC 1.1 and 1.2, at their very instants."""

from __future__ import annotations

from itertools import pairwise

import pytest

from profiles.codec import encode
from profiles.errors import BadDocument
from rules.scenarios import Run, check
from tests.scenarios.pack import SHOP

# --- how segments work -------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M3")
def test_each_turn_of_truth_is_told_once_though_messages_come_twice() -> None:
    done = check(
        """
        segment big = {trait: orders_paid, gte: 2}
        0d   ana  order_completed order_id=1 total=10 message=a
        1d   ana  order_completed order_id=2 total=10 message=b
        1d   ana  expect in, entered 1d, changes 1
        1d   ana  order_completed order_id=2 total=10 message=b
        1d   ana  expect in, outcome duplicate, changes 1
        2d   ana  order_completed order_id=2 total=10 message=c     # told again by another way
        2d   ana  expect in, changes 1
        3d   ana  order_refunded order_id=2 message=d
        3d   ana  expect out, left 3d, changes 2
        3d   ana  order_refunded order_id=2 message=d
        3d   ana  expect out, outcome duplicate, changes 2
        """
    )
    assert [change for change, _ in done.changes("big")] == ["entered", "exited"]


@pytest.mark.mechanic("M4")
@pytest.mark.mechanic("M3")
def test_what_time_alone_makes_true_is_stamped_with_that_instant() -> None:
    done = check(
        """
        segment silent = {trait: last_order_at, older_than: P1M}
        segment seen_lately = {did: page_viewed, window: {within: P7D}}
        start 2026-01-31T10:00
        0d     ana  order_completed order_id=1 total=10
        1d     ana  page_viewed
        # A month after 31 January is the last of February, at the same hour.
        P1M    ana  expect in silent, entered P1M
        """
    )
    assert done.changes("seen_lately") == [("entered", 86_400_000), ("exited", 8 * 86_400_000)]
    assert done.changes("silent") == [("entered", 28 * 86_400_000)]


@pytest.mark.mechanic("M4")
def test_a_rule_has_one_pending_instant_and_an_event_moves_it() -> None:
    check(
        """
        segment silent = {trait: last_order_at, older_than: P30D}
        0d   ana  order_completed order_id=1 total=10
        0d   ana  expect out, wake 30d
        10d  ana  order_completed order_id=2 total=10
        10d  ana  expect out, wake 40d
        30d  ana  expect out, wake 40d, changes 0
        40d  ana  expect in, wake none, entered 40d
        """
    )


@pytest.mark.mechanic("M5")
def test_entering_and_leaving_a_segment_each_start_an_action() -> None:
    done = check(
        """
        segment fresh = {did: order, window: {within: P30D}}
        trigger hello = {on: {segment: fresh}, steps: [{emit: hello}]}
        trigger missed = {on: {segment: fresh, change: exited}, steps: [{emit: missed}]}
        0d   ana  order_completed order_id=1 total=10
        0d   ana  expect in, emits hello 1, emits missed 0
        10d  ana  order_completed order_id=2 total=10
        10d  ana  expect in, emits hello 1
        40d  ana  expect out, emits hello 1, emits missed 1
        """
    )
    assert done.sent("missed")[0]["at"] == "2026-02-10T00:00:00.000Z"


@pytest.mark.mechanic("M6")
def test_a_change_of_the_parent_reaches_its_narrower_segment_in_the_same_step() -> None:
    done = check(
        """
        segment buyers = {did: order, window: {within: P30D}}
        segment mobile_buyers = {all: [{in_segment: buyers}, {trait: custom.device, eq: mobile}]}
        0d   ana  identified custom.device=mobile
        1d   ana  order_completed order_id=1 total=10
        1d   ana  expect segments buyers, mobile_buyers
        31d  ana  expect segments none
        """
    )
    assert done.changes("buyers") == done.changes("mobile_buyers")
    with pytest.raises(BadDocument, match="segments in a ring: a → b → a"):
        check("segment a = {in_segment: b}\nsegment b = {in_segment: a}")


@pytest.mark.mechanic("M6")
def test_segments_that_expire_at_one_instant_are_judged_together() -> None:
    # `either` holds throughout: at 1d its one reason passes to the other, and nothing must flicker.
    for names in (("a", "z"), ("z", "a"), ("parent", "child"), ("m1", "m2"), ("m2", "m1")):
        parent, child = names
        done = check(
            f"""
            segment {parent} = {{did_not: page_viewed, window: {{within: P1D}}, known_for: P1D}}
            segment {child} = {{any: [{{did: page_viewed, window: {{within: P1D}}}}, {{in_segment: {parent}}}]}}
            0d  ana  page_viewed
            0d  ana  expect in {child}, out {parent}
            1d  ana  expect in {child}, in {parent}
            """
        )
        assert done.changes(child) == [("entered", 0)]


@pytest.mark.mechanic("M6")
def test_an_event_at_the_very_instant_of_an_expiry_meets_segments_that_know_of_it() -> None:
    done = check(
        """
        segment parent = {did: product_viewed, window: {within: P1D}}
        segment child = {all: [{in_segment: parent}, {did: page_viewed}]}
        0d  ana  product_viewed
        1d  ana  page_viewed
        1d  ana  expect segments none
        """
    )
    assert done.changes("child") == []


@pytest.mark.mechanic("M22")
def test_what_was_bought_is_not_offered_again() -> None:
    check(
        """
        segment offer_cooler = {all: [{did: product_viewed, item: [{product_id: cooler}]}, {did_not: order, item: [{product_id: cooler}]}]}
        segment offer_filter = {did_not: order, item: [{category: water/filters}], window: {within: P30D}}
        segment never_on_phone = {did_not: page_viewed, where: [{custom.device: phone}]}
        0d   ana  product_viewed product=cooler
        0d   ana  expect segments never_on_phone, offer_cooler, offer_filter
        1d   ana  order_completed order_id=1 product=cooler price=90 category=water/coolers product=f price=5 category=water/filters/big
        1d   ana  expect segments never_on_phone
        2d   ana  order_refunded order_id=1 product=cooler price=90
        2d   ana  expect segments never_on_phone, offer_cooler
        31d  ana  page_viewed device=phone
        31d  ana  expect segments offer_cooler, offer_filter
        """
    )


# --- orders, money, rhythm ---------------------------------------------------------------------------------------


@pytest.mark.mechanic("M13")
def test_recency_frequency_and_money_are_scored_and_change_with_time() -> None:
    check(
        """
        0d    ana  order_completed order_id=1 total=100
        0d    ana  expect trait rfm.cell 512, in rfm_new, entered 0d
        30d   ana  expect trait rfm.cell 412, in rfm_new
        60d   ana  expect trait rfm.cell 312, out rfm_new, left 60d
        100d  ana  order_completed order_id=2 total=60
        101d  ana  order_completed order_id=3 total=60
        102d  ana  order_completed order_id=4 total=60
        103d  ana  order_completed order_id=5 total=150
        103d  ana  expect trait rfm.cell 544, in rfm_champions, out rfm_loyal
        163d  ana  expect trait rfm.cell 344, in rfm_loyal, entered 163d, out rfm_champions
        223d  ana  expect trait rfm.cell 244, in rfm_at_risk, entered 223d
        # The first order leaves the year's window; then the others, one a day.
        365d  ana  expect trait rfm.cell 133
        465d  ana  expect trait rfm.cell 133, in rfm_at_risk
        466d  ana  expect trait rfm.cell 123, out rfm_at_risk
        467d  ana  expect trait rfm.cell 113, in rfm_lost
        468d  ana  expect trait rfm.cell none, out rfm_lost
        """,
        SHOP,
    )


@pytest.mark.mechanic("M14")
def test_sum_number_and_last_date_of_orders_follow_refunds_cancellations_and_statuses() -> None:
    check(
        """
        segment three = {did: order, times: {gte: 3}}
        segment hundred = {did: order, sum: {field: total, gte: 100}}
        segment fresh = {trait: last_order_at, newer_than: P10D}
        segment delivered_twice = {did: order, status_in: delivered, times: {gte: 2}, window: {within: P30D}}
        0d   ana  order_completed order_id=1 total=40
        1d   ana  order_completed order_id=2 total=40
        2d   ana  order_completed order_id=3 total=20 status=placed
        2d   ana  expect segments fresh
        3d   ana  order_status_changed order_id=3 to=paid
        3d   ana  expect segments fresh, hundred, three
        4d   ana  order_refunded order_id=1 amount=0.01
        4d   ana  expect segments fresh, three
        5d   ana  order_completed order_id=4 total=10
        5d   ana  expect segments fresh, hundred, three
        6d   ana  order_cancelled order_id=4
        6d   ana  order_cancelled order_id=3
        6d   ana  expect segments fresh
        11d  ana  expect segments none                 # order 2 is the last that counts: 1d + 10d
        12d  ana  order_status_changed order_id=1 to=delivered
        13d  ana  order_status_changed order_id=2 to=delivered
        13d  ana  expect segments delivered_twice
        42d  ana  expect segments none
        """
    )


@pytest.mark.mechanic("M12")
def test_an_order_of_many_lines_counts_once_unless_items_are_counted() -> None:
    check(
        """
        segment tool_orders = {did: order, item: [{category: tools}], times: {gte: 2}}
        segment tool_lines = {did: order, item: [{category: tools}], per: item, times: {gte: 3}}
        segment bosch_tools = {did: order, item: [{category: tools}, {brand: Bosch}]}
        0d  ana  order_completed order_id=1 product=a price=5 category=tools/drills product=b price=5 category=tools brand=Bosch product=c price=1 category=toolsets brand=Bosch
        0d  ana  expect segments bosch_tools
        1d  ana  order_completed order_id=2 product=a price=5 category=tools/drills
        1d  ana  expect segments bosch_tools, tool_lines, tool_orders
        2d  ana  order_refunded order_id=1 product=b price=5
        2d  ana  expect segments tool_orders
        """
    )


@pytest.mark.mechanic("M12")
@pytest.mark.mechanic("D5")
def test_lines_are_asked_by_name_and_article_number_in_whatever_order_they_are_told() -> None:
    done = check(
        """
        segment bought_mug = {did: order, item: [{name: {starts_with: Mug}}]}
        segment article = {did: order, item: [{sku: M-12}], times: {gte: 2}}
        segment armani_suit = {did: order, item: [{category: suits}, {brand: Armani}, {name: {matches: "(?i)three.piece"}}], window: {calendar: this_month}}
        segment added_mug = {did: product_added, item: [{name: Mug blue}]}
        start 2026-01-10T00:00
        0d                ana  product_added product=m price=5 name="Mug blue"
        0d                ana  order_completed order_id=1 total=10 product=m price=5 name="Mug blue" sku=M-12 product=x price=5 sku=X
        0d                ana  expect segments added_mug, bought_mug
        1d                ana  order_completed order_id=2 total=10 product=m price=5 sku=M-12
        1d                ana  expect segments added_mug, article, bought_mug
        2d                ana  order_completed order_id=3 total=900 product=s price=900 name="Suit, Three Piece" brand=Armani category=suits
        2d                ana  expect segments added_mug, armani_suit, article, bought_mug
        3d                ana  order_updated order_id=1 total=5 product=x price=5 sku=X
        3d                ana  expect segments added_mug, armani_suit
        4d                ana  order_updated order_id=1 total=5 product=m price=5 sku=M-12 late=2d       # an older word
        4d                ana  expect segments added_mug, armani_suit
        2026-02-01T00:00  ana  expect segments added_mug
        """
    )
    assert done.world.rulebook.line_keeps == ("name", "sku")


@pytest.mark.mechanic("M12")
def test_what_no_rule_asks_of_a_line_is_not_kept() -> None:
    done = check(
        """
        segment drills = {did: order, item: [{category: tools}]}
        0d  ana  order_completed order_id=1 total=10 product=d price=10 name="Drill 9" sku=D-9 category=tools
        0d  ana  expect in
        """
    )
    assert b"Drill 9" not in encode(done.world.profile("user:ana"))


@pytest.mark.mechanic("M16")
def test_ten_orders_of_high_average_and_half_a_year_of_silence_enter_at_that_instant() -> None:
    orders = "\n".join(f"{n}d  ana  order_completed order_id={n} total=8000 currency=RUB" for n in range(9))
    check(
        f"""
        defaults = {{currency: RUB, zone: Europe/Moscow}}
        trait avg_check = {{avg: order.total}}
        segment silent_loyal = {{all: [{{trait: orders_paid, gte: 10}}, {{trait: avg_check, gte: 8000}}, {{trait: last_order_at, older_than: P6M}}]}}
        start 2026-02-19T12:00
        {orders}
        9d          ana  order_completed order_id=9 total=7999.99 currency=RUB
        9d          ana  expect out, wake none
        10d         ana  order_completed order_id=10 total=8000.01 currency=RUB
        2026-08-31T12:00  ana  expect out
        2026-09-01T11:59  ana  expect out
        2026-09-01T12:00  ana  expect in, entered 2026-09-01T12:00
        """
    )


@pytest.mark.mechanic("M24")
def test_who_slept_for_a_year_is_asleep_at_that_instant_and_not_before_any_order() -> None:
    check(
        """
        start 2024-02-29T15:00
        0d                ana  page_viewed
        0d                ana  expect out sleeping
        1h                ana  order_completed order_id=1 total=10
        2025-02-28T15:59  ana  expect out sleeping
        2025-02-28T16:00  ana  expect in sleeping, entered 2025-02-28T16:00, wake none
        400d              ana  order_completed order_id=2 total=10
        400d              ana  expect out sleeping, left 400d
        800d              bob  page_viewed
        800d              bob  expect out sleeping
        """,
        SHOP,
    )


@pytest.mark.mechanic("M25")
def test_the_third_jewel_of_the_half_year_gives_the_discount_and_it_ends_as_the_oldest_slides_out() -> None:
    done = check(
        """
        segment jewel_thrice = {did: order, item: [{category: jewellery}], window: {within: P6M}, times: {gte: 3}}
        trigger third_jewel = {on: {segment: jewel_thrice}, steps: [{emit: discount}]}
        start 2026-01-31T12:00
        0d    ana  order_completed order_id=1 product=ring price=50 category=jewellery/rings
        30d   ana  order_completed order_id=2 product=chain price=50 category=jewellery
        40d   ana  order_completed order_id=3 product=cup price=50 category=kitchen
        40d   ana  expect out, emits third_jewel 0
        60d   ana  order_completed order_id=4 product=pin price=50 category=jewellery
        60d   ana  expect in, emits third_jewel 1, wake P6M
        P6M   ana  expect out, left P6M
        """
    )
    assert done.sent("third_jewel")[0]["cause"]["event"] == "order_completed"


@pytest.mark.mechanic("M26")
def test_the_average_check_decides_to_whom_dearer_goods_go() -> None:
    check(
        """
        0d  ana  order_completed order_id=1 total=79.99
        0d  ana  expect out big_check
        1d  ana  order_completed order_id=2 total=80.01
        1d  ana  expect in big_check, trait avg_check 80, trait revenue 160
        2d  ana  order_refunded order_id=2 amount=0.01
        2d  ana  expect out big_check
        """,
        SHOP,
    )


@pytest.mark.mechanic("M31")
def test_a_vip_has_more_than_three_paid_orders_and_three_hundred_to_the_cent() -> None:
    check(
        """
        0d  ana  order_completed order_id=1 total=200
        1d  ana  order_completed order_id=2 total=200
        2d  ana  order_completed order_id=3 total=200
        2d  ana  expect out vip                       # three are not more than three
        3d  ana  order_completed order_id=4 total=1 status=placed
        3d  ana  expect out vip                       # the fourth is not paid
        4d  ana  order_status_changed order_id=4 to=paid
        4d  ana  expect in vip
        """,
        SHOP,
    )
    check(
        """
        0d  bob  order_completed order_id=1 total=75
        1d  bob  order_completed order_id=2 total=75
        2d  bob  order_completed order_id=3 total=75
        3d  bob  order_completed order_id=4 total=74.99
        3d  bob  expect out vip, trait revenue 299.99
        4d  bob  order_updated order_id=4 total=75.00
        4d  bob  expect in vip, entered 4d, trait revenue 300
        """,
        SHOP,
    )


@pytest.mark.mechanic("M31")
def test_a_vip_of_the_source_has_ten_thousand_to_the_kopeck() -> None:
    check(
        """
        defaults = {currency: RUB}
        trait revenue = {sum: order.total}
        segment vip = {all: [{trait: orders_paid, gt: 3}, {trait: revenue, gte: 10000}]}
        0d  ana  order_completed order_id=1 total=2500 currency=RUB
        0d  ana  order_completed order_id=2 total=2500 currency=RUB
        0d  ana  order_completed order_id=3 total=5000 currency=RUB
        0d  ana  expect out, trait revenue 10000
        1d  ana  order_completed order_id=4 total=0 currency=RUB
        1d  ana  expect in
        2d  ana  order_refunded order_id=3 amount=0.01 currency=RUB
        2d  ana  expect out, trait revenue 9999.99
        """
    )


# --- the stages of life ------------------------------------------------------------------------------------------

STAGES = ("lifecycle.newcomer", "lifecycle.active_before", "lifecycle.active_after", "lifecycle.churned")


def stage_history(done: Run) -> list[tuple[int, str]]:
    """(offset in days, stage entered) in order."""
    entered = [(at_ms, stage) for stage in STAGES for change, at_ms in done.changes(stage) if change == "entered"]
    return [(at_ms // 86_400_000, stage.removeprefix("lifecycle.")) for at_ms, stage in sorted(entered)]


@pytest.mark.mechanic("M32")
@pytest.mark.mechanic("M35")
def test_a_newcomer_who_never_buys_is_churned_after_the_days_of_grace() -> None:
    done = check(
        """
        0d   ana  registered
        0d   ana  expect segments lifecycle.newcomer
        14d  ana  expect segments lifecycle.churned
        """,
        SHOP,
    )
    assert stage_history(done) == [(0, "newcomer"), (14, "churned")]


@pytest.mark.mechanic("M33")
def test_who_looks_at_goods_on_several_days_is_choosing() -> None:
    check(
        """
        0h   ana  product_viewed
        1h   ana  product_viewed
        2h   ana  page_viewed
        3h   ana  page_viewed
        4h   ana  page_viewed
        4h   ana  expect in lifecycle.newcomer         # five views, but of one day
        24h  ana  page_viewed
        24h  ana  expect in lifecycle.active_before, out lifecycle.newcomer
        168h ana  expect in lifecycle.active_before    # the first view is gone, five remain
        169h ana  expect in lifecycle.newcomer, out lifecycle.active_before
        """,
        SHOP,
    )


@pytest.mark.mechanic("M34")
@pytest.mark.mechanic("M35")
def test_a_buyer_is_active_until_three_calendar_months_of_silence() -> None:
    done = check(
        """
        start 2026-11-30T09:00
        0d   ana  order_completed order_id=1 total=10
        0d   ana  expect in lifecycle.active_after
        P3M  ana  expect in lifecycle.churned, entered P3M, in lapsed, out lifecycle.active_after
        100d ana  order_completed order_id=2 total=10
        100d ana  expect in lifecycle.active_after
        101d ana  order_cancelled order_id=2
        101d ana  expect in lifecycle.churned
        """,
        SHOP,
    )
    # 30 November and three months is 28 February.
    assert stage_history(done) == [(0, "active_after"), (90, "churned"), (100, "active_after"), (101, "churned")]


@pytest.mark.mechanic("M35")
@pytest.mark.mechanic("M32")
@pytest.mark.mechanic("M33")
@pytest.mark.mechanic("M34")
def test_everybody_is_in_exactly_one_stage_at_every_instant() -> None:
    done = check(
        """
        0h     ana  page_viewed
        1h     ana  product_viewed
        26h    ana  product_viewed
        27h    ana  page_viewed
        28h    ana  page_viewed
        5d     ana  order_completed order_id=1 total=10
        6d     ana  order_cancelled order_id=1
        30d    ana  product_viewed
        40d    ana  order_completed order_id=2 total=10
        P12M   ana  expect in lifecycle.churned
        """,
        SHOP,
    )
    turns = sorted((at_ms, change) for stage in STAGES for change, at_ms in done.changes(stage))
    # After the first, every instant at which one stage is entered is one at which exactly one is left.
    instants = sorted({at_ms for at_ms, _ in turns})
    for at_ms in instants[1:]:
        assert [change for when, change in turns if when == at_ms] == ["entered", "exited"]
    assert turns[0] == (0, "entered")
    history = stage_history(done)
    assert [stage for _, stage in history] == [
        "newcomer", "active_before", "active_after", "active_before", "newcomer", "churned", "active_after", "churned",
    ]  # fmt: skip
    assert all(a[1] != b[1] for a, b in pairwise(history))


# --- others ------------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M37")
def test_who_opened_nothing_in_three_months_though_letters_came_is_known_at_that_instant() -> None:
    check(
        """
        segment non_openers = {all: [{trait: first_seen, older_than: P3M}, {did: email_delivered, window: {within: P3M}}, {did_not: email_opened, where: [{machine: {ne: true}}], window: {within: P3M}, known_for: P3M}, {did_not: [email_link_clicked, page_viewed], window: {within: P3M}}]}
        0d    ana  page_viewed
        1d    ana  email_delivered
        50d   ana  email_delivered
        60d   ana  email_opened machine=true
        P3M   ana  expect in, entered P3M
        100d  ana  email_opened machine=false
        100d  ana  expect out, left 100d
        """
    )
    check(
        """
        segment non_openers = {all: [{trait: first_seen, older_than: P3M}, {did: email_delivered, window: {within: P3M}}, {did_not: email_opened, where: [{machine: {ne: true}}], window: {within: P3M}, known_for: P3M}, {did_not: [email_link_clicked, page_viewed], window: {within: P3M}}]}
        0d    bob  page_viewed
        80d   bob  email_delivered
        85d   bob  email_link_clicked
        P3M   bob  expect out
        P3M85D bob expect out              # the click has gone, but so has the letter
        """
    )


@pytest.mark.mechanic("M10")
def test_sex_and_place_are_criteria_and_the_newest_statement_counts() -> None:
    check(
        """
        segment men_moscow = {all: [{trait: gender, eq: male}, {trait: address.city, eq: Москва}]}
        0d  ana  identified gender=male address.city=Москва
        0d  ana  expect in
        5d  ana  identified address.city=Воронеж
        5d  ana  expect out
        6d  ana  identified address.city=Москва late=2d      # said before the newer one
        6d  ana  expect out
        """
    )


@pytest.mark.mechanic("M20")
def test_a_cart_left_alone_for_two_hours_is_abandoned_until_it_changes() -> None:
    check(
        """
        0h   ana  product_added product=mug price=12.5 qty=2
        0h   ana  expect in cart_open, trait cart.total 25, out cart_abandoned, wake 2h
        1h   ana  product_added product=pen price=1
        2h   ana  expect out cart_abandoned, wake 3h
        3h   ana  expect in cart_abandoned, entered 3h
        4h   ana  product_removed product=pen qty=1
        4h   ana  expect out cart_abandoned
        5h   ana  product_removed product=mug
        5h   ana  expect out cart_open, out cart_abandoned, trait cart.state empty
        """,
        SHOP,
    )


def test_browsing_is_three_products_in_a_day_without_an_order() -> None:
    check(
        """
        0h   ana  product_viewed product=a
        5h   ana  product_viewed product=b
        6h   ana  product_viewed product=c
        6h   ana  expect in browsing, wake 24h
        24h  ana  expect out browsing
        25h  ana  product_viewed product=d
        25h  ana  expect in browsing
        26h  ana  order_completed order_id=1 total=5
        26h  ana  expect out browsing
        """,
        SHOP,
    )


def test_buyers_repeat_buyers_and_the_lost_are_told_apart() -> None:
    check(
        """
        0d    ana  order_completed order_id=1 total=20
        0d    ana  expect in buyers, out repeat_buyers, out rfm_lost
        1d    ana  order_completed order_id=2 total=20
        1d    ana  expect in repeat_buyers
        241d  ana  expect in rfm_lost, entered 241d
        366d  ana  expect out rfm_lost, in buyers, in sleeping
        """,
        SHOP,
    )


@pytest.mark.mechanic("M46")
def test_an_older_word_on_the_whole_cart_does_not_undo_a_newer_one() -> None:
    check(
        """
        10m  ana  cart_set product=mug price=12.5 product=pen price=1
        10m  ana  expect trait cart.items 2
        11m  ana  cart_set product=cup price=3 late=5m
        11m  ana  expect trait cart.items 2, trait cart.total 13.5
        12m  ana  cart_set product=cup price=3
        12m  ana  expect trait cart.items 1, trait cart.total 3
        """,
        SHOP,
    )
