"""The triggers of the shop pack, and the chain mechanics of SPEC 1.3, at their very instants."""

from __future__ import annotations

import pytest

from profiles.wire import COUPONS
from rules.scenarios import check
from tests.scenarios.pack import SHOP

# --- the cart ----------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M46")
def test_a_left_cart_is_told_as_it_is_two_hours_after_its_last_change() -> None:
    done = check(
        """
        start 2026-01-01T10:00
        0h     ana  product_added product=mug price=12.5 qty=2 name=Mug
        1h     ana  product_added product=pen price=1
        90m    ana  product_removed product=pen
        2h     ana  expect emits abandoned_cart 0
        209m   ana  expect emits abandoned_cart 0
        210m   ana  expect emits abandoned_cart/cart_1 1
        """,
        SHOP,
    )
    record = done.sent("abandoned_cart")[0]
    assert record["at"] == "2026-01-01T13:30:00.000Z"
    assert record["payload"]["cart"]["total"] == "25.00"
    assert record["payload"]["cart"]["items"] == [
        {"product_id": "mug", "quantity": 2, "price_e6": 12_500_000, "price": "12.50", "name": "Mug"}
    ]
    assert record["cause"]["event"] == "product_removed"


@pytest.mark.mechanic("M46")
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("119m ana order_completed order_id=1 product=mug price=12.5", "cancelled"),
        ("120m ana order_completed order_id=1 product=mug price=12.5", "cancelled"),  # at the very instant
        ("119m ana product_removed product=mug", "cancelled"),
        ("119m ana cart_set", "cancelled"),
    ],
)
def test_an_order_of_the_cart_or_an_emptied_cart_cancels(ending: str, reason: str) -> None:
    check(
        f"""
        start 2026-01-01T10:00
        0m  ana  product_added product=mug price=12.5
        {ending}
        5d  ana  expect emits abandoned_cart 0, suppressed abandoned_cart {reason}
        """,
        SHOP,
    )


@pytest.mark.mechanic("M46")
@pytest.mark.parametrize(
    "touch",
    [
        "product_added product=pen price=1",
        "product_removed product=pen",
        "cart_viewed",
        "cart_viewed product=mug price=12.5",
    ],
)
def test_whatever_touches_a_cart_puts_its_letter_off(touch: str) -> None:
    check(
        f"""
        trigger left = {{class: transactional, on: {{event: product_added}}, key: cart_id, restart_on: {{event: [product_added, product_removed, cart_viewed], match: cart_id}}, steps: [{{wait: PT2H}}, {{emit: t}}]}}
        0m    ana  product_added product=mug price=12.5
        0m    ana  product_added product=pen price=1
        90m   ana  {touch}
        209m  ana  expect emits left 0
        210m  ana  expect emits left 1
        """
    )


@pytest.mark.mechanic("M46")
def test_carts_with_ids_of_their_own_are_left_and_bought_apart() -> None:
    done = check(
        """
        start 2026-01-01T10:00
        0m    ana  product_added cart_id=a product=mug price=12.5
        10m   ana  product_added cart_id=b product=pen price=1
        60m   ana  order_completed order_id=1 cart_id=b product=pen price=1
        60m   ana  expect suppressed abandoned_cart cancelled
        120m  ana  expect emits abandoned_cart 1
        """,
        SHOP,
    )
    assert done.sent("abandoned_cart")[0]["payload"]["cart"]["cart_id"] == "a"


@pytest.mark.mechanic("M46")
def test_an_order_of_other_goods_leaves_the_cart_and_its_reminder() -> None:
    check(
        """
        start 2026-01-01T10:00
        0m    ana  product_added cart_id=a product=mug price=12.5
        60m   ana  order_completed order_id=1 cart_id=b product=pen price=1
        120m  ana  expect emits abandoned_cart 1
        """,
        SHOP,
    )


@pytest.mark.mechanic("M46")
def test_a_cart_that_is_told_after_the_order_that_bought_it_is_not_left() -> None:
    check(
        """
        start 2026-01-01T10:00
        10m  ana  order_completed order_id=1 product=mug price=12.5
        11m  ana  product_added product=mug price=12.5 late=5m
        5d   ana  expect emits abandoned_cart 0
        """,
        SHOP,
    )


def test_what_cancels_a_chain_cancels_it_though_the_chain_is_told_of_later() -> None:
    check(
        """
        trigger asked = {on: {event: claim_opened}, key: claim, cancel_on: [{event: claim_closed, match: claim}, {event: logged_in}], steps: [{wait: PT2H}, {emit: how}]}
        1h  ana  claim_closed claim=a
        2h  ana  claim_opened claim=a late=90m
        2h  ana  claim_opened claim=b late=90m
        2h  ana  expect suppressed asked cancelled 1
        4h  ana  expect emits asked 1
        5h  ana  claim_opened claim=a
        7h  ana  expect emits asked 2, suppressed asked cancelled 1
        8h  ana  logged_in
        9h  ana  claim_opened claim=c late=2h
        9h  ana  expect suppressed asked cancelled 2
        """
    )


@pytest.mark.mechanic("M47")
def test_the_first_cart_letter_goes_the_same_day_and_the_second_three_days_after() -> None:
    done = check(
        """
        defaults = {zone: Europe/Moscow}
        start 2026-01-01T23:10
        0h                ana  product_added product=mug price=12.5
        2026-01-01T23:58  ana  expect emits abandoned_cart 0
        2026-01-01T23:59  ana  expect emits abandoned_cart/cart_1 1
        2026-01-04T23:58  ana  expect emits abandoned_cart 1
        2026-01-04T23:59  ana  expect emits abandoned_cart/cart_2 1
        """,
        SHOP,
    )
    steps = [one["step"] for one in done.sent("abandoned_cart")]
    ids = {one["trigger_id"] for one in done.sent("abandoned_cart")}
    assert steps == ["1", "2"]
    assert len(ids) == 2


@pytest.mark.mechanic("M47")
@pytest.mark.parametrize("reaction", ["email_link_clicked", "checkout_started product=mug"])
def test_a_reaction_to_the_first_cart_letter_stops_the_second(reaction: str) -> None:
    check(
        f"""
        start 2026-01-01T10:00
        0h   ana  product_added product=mug price=12.5
        20h  ana  {reaction}
        5d   ana  expect emits abandoned_cart 1, suppressed abandoned_cart reacted
        """,
        SHOP,
    )


@pytest.mark.mechanic("M47")
def test_an_order_between_the_cart_letters_stops_the_second() -> None:
    check(
        """
        start 2026-01-01T10:00
        0h   ana  product_added product=mug price=12.5
        20h  ana  order_completed order_id=1 product=mug price=12.5
        5d   ana  expect emits abandoned_cart 1, suppressed abandoned_cart cancelled
        """,
        SHOP,
    )


@pytest.mark.mechanic("M47")
def test_a_cart_that_is_emptied_between_the_letters_stops_the_second() -> None:
    check(
        """
        start 2026-01-01T10:00
        0h   ana  product_added product=mug price=12.5
        20h  ana  product_removed product=mug
        20h  ana  expect emits abandoned_cart 1, suppressed abandoned_cart cancelled
        5d   ana  expect emits abandoned_cart 1
        """,
        SHOP,
    )


@pytest.mark.mechanic("M47")
@pytest.mark.parametrize(
    ("reaction", "letters"),
    [
        ("email_opened", 2),  # opened only
        ("page_viewed", 2),  # a visit without an opening
        ("email_link_clicked machine=scanner", 2),
        ("email_link_clicked campaign=cart", 1),
        ("email_link_clicked campaign=other", 2),
    ],
)
def test_what_a_reaction_is_says_the_trigger_and_the_second_letter_has_its_own_subject_and_coupon(
    reaction: str, letters: int
) -> None:
    done = check(
        f"""
        trigger cart = {{on: {{event: product_added}}, steps: [{{wait: PT2H}}, {{emit: forgotten}}, {{wait_for: {{event: email_link_clicked, where: {{campaign: cart}}, timeout: P3D, on_event: exit}}}}, {{issue_coupon: {{offer: cart, valid: P3D}}}}, {{emit: {{template: with_a_coupon, payload: {{cart: current, coupon: $coupon}}}}}}]}}
        0h   ana  product_added product=mug price=12.5
        20h  ana  {reaction}
        5d   ana  expect emits cart {letters}, coupons cart {letters - 1}
        """
    )
    if letters == 2:
        first, second = done.sent("cart")
        assert (first["template"], second["template"]) == ("forgotten", "with_a_coupon")
        [told] = [one.value for one in done.world.published if one.record.topic == COUPONS]
        assert second["payload"]["coupon"] == {
            "code": told["code"], "offer": "cart", "valid_until": "2026-01-07T02:00:00.000Z",
        }  # fmt: skip
        assert told["valid_until"] == "2026-01-07T02:00:00.000Z"


@pytest.mark.mechanic("M48")
def test_consent_is_asked_at_the_moment_of_sending() -> None:
    check(
        """
        start 2026-01-01T10:00
        0h   ana  product_added product=mug price=12.5
        1h   ana  unsubscribed channel=email
        1h   ana  expect suppressed abandoned_cart no_consent     # at once: nothing is pending any more
        2h   ana  expect emits abandoned_cart 0
        3h   ana  consent_changed channel=email topic=cart state=granted
        4h   ana  product_added product=pen price=1
        5d   ana  expect emits abandoned_cart 2, suppressed abandoned_cart no_consent
        """,
        SHOP,
    )
    check(
        """
        trigger cart = {on: {event: product_added}, consent: {channel: email, topic: cart, mode: opt_in}, steps: [{wait: PT2H}, {emit: one}, {wait: P1D}, {emit: two}]}
        0h   ana  product_added product=mug price=12.5
        2h   ana  expect emits cart 0, suppressed cart no_consent      # nothing was said yet
        3h   ana  consent_changed channel=email topic=cart state=granted
        26h  ana  expect emits cart/two 1
        """
    )


# --- browsing and visits -----------------------------------------------------------------------------------------


@pytest.mark.mechanic("M50")
def test_a_visit_of_looking_only_is_followed_by_what_was_looked_at() -> None:
    done = check(
        """
        0m    ana  product_viewed product=a price=1
        1m    ana  product_viewed product=b price=2 name=B url=https://shop.example/b image_url=https://shop.example/b.png
        2m    ana  product_viewed product=c price=3
        3m    ana  product_viewed product=d price=4
        4m    ana  product_viewed product=e price=5
        5m    ana  product_viewed product=b price=2 name=B url=https://shop.example/b image_url=https://shop.example/b.png
        274m  ana  expect emits abandoned_browse 0
        275m  ana  expect emits abandoned_browse 1
        # The next visit within three days is not written to again.
        1d    ana  product_viewed product=f price=5
        2d    ana  expect emits abandoned_browse 1, suppressed abandoned_browse re_entry
        """,
        SHOP,
    )
    record = done.sent("abandoned_browse")[0]
    assert record["at"] == "2026-01-01T04:35:00.000Z"
    viewed = record["payload"]["viewed"]
    assert [one["product_id"] for one in viewed] == ["b", "e", "d", "c"]
    assert viewed[0]["url"] == "https://shop.example/b"
    assert (viewed[0]["price_e6"], viewed[0]["price"]) == (2_000_000, "2.00")
    assert viewed[0]["image_url"] == "https://shop.example/b.png"


@pytest.mark.mechanic("M50")
@pytest.mark.parametrize(
    "also",
    [
        "6m ana product_added product=a price=1",
        "6m ana order_completed order_id=1 total=5",
        "100m ana product_added product=a price=1",
        "100m ana order_completed order_id=1 total=5",
    ],
)
def test_a_cart_or_an_order_keeps_the_browse_letter_back(also: str) -> None:
    check(
        f"""
        0m    ana  product_viewed product=a price=1
        {also}
        600m  ana  expect emits abandoned_browse 0
        """,
        SHOP,
    )


@pytest.mark.mechanic("M50")
def test_a_pending_cart_letter_goes_before_the_browse_letter() -> None:
    check(
        """
        start 2026-01-01T10:00
        0m    ana  product_added product=a price=1
        40m   ana  product_viewed product=b price=1      # a visit of its own, the cart still pending
        20h   ana  expect emits abandoned_browse 0, emits abandoned_cart 1
        """,
        SHOP,
    )


@pytest.mark.mechanic("M51")
def test_a_visit_ends_at_the_very_gap_though_nothing_more_comes() -> None:
    done = check(
        """
        trigger gone = {on: {event: session_ended}, when: {session: {did: product_viewed, times: {gte: 2}}}, steps: [{emit: gone}]}
        segment here = {session: {did: [product_viewed, page_viewed]}}
        0m   ana  page_viewed
        20m  ana  product_viewed
        40m  ana  product_viewed
        69m  ana  expect in, emits gone 0, alarm 70m
        70m  ana  expect out, left 70m, emits gone 1
        # An e-mail that arrives is no visit; a visit of one product is no loss.
        80m  ana  email_delivered
        80m  ana  expect out
        90m  ana  product_viewed
        5h   ana  expect emits gone 1
        """
    )
    assert done.sent("gone")[0]["at"] == "2026-01-01T01:10:00.000Z"


# --- silence -----------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M52")
def test_three_calendar_months_of_silence_are_told_once_and_every_order_begins_anew() -> None:
    done = check(
        """
        start 2026-11-30T09:00
        0d    ana  order_completed order_id=1 total=10
        P3M   ana  expect emits lapsed_buyer 1
        200d  ana  expect emits lapsed_buyer 1
        201d  ana  order_completed order_id=2 total=10
        250d  ana  order_completed order_id=3 total=10
        341d  ana  expect emits lapsed_buyer 1
        342d  ana  expect emits lapsed_buyer 2
        """,
        SHOP,
    )
    # 30 November + 3 months is 28 February; 250 days on is 7 August, and three months later 7 November.
    assert [one["at"] for one in done.sent("lapsed_buyer")] == [
        "2027-02-28T09:00:00.000Z",
        "2027-11-07T09:00:00.000Z",
    ]


@pytest.mark.mechanic("M53")
def test_an_order_a_minute_before_the_end_keeps_the_vip_discount() -> None:
    vip = "\n".join(f"0d ana order_completed order_id={n} total=100" for n in range(4))
    check(
        f"""
        {vip}
        0d              ana  expect in vip
        P3M             ana  expect emits vip_burns/vip_burns 1
        P3M2DT23H59M    ana  order_completed order_id=9 total=5
        P3M10D          ana  expect emits vip_burns/vip_gone 0, suppressed vip_burns cancelled
        """,
        SHOP,
    )
    check(
        f"""
        {vip}
        P3M2DT23H59M    ana  expect emits vip_burns/vip_gone 0
        P3M3D           ana  expect emits vip_burns/vip_gone 1
        """,
        SHOP,
    )
    check(
        """
        0d              bob  order_completed order_id=1 total=500
        P3M3D           bob  expect emits vip_burns 0     # no VIP, no discount to lose
        """,
        SHOP,
    )


@pytest.mark.mechanic("M54")
def test_the_third_order_gives_the_discount_once_whatever_is_told_twice_or_taken_back() -> None:
    check(
        """
        segment third = {trait: orders_paid, gte: 3}
        trigger discount = {on: {segment: third}, re_entry: once, steps: [{emit: discount}]}
        0d  ana  order_completed order_id=1 total=10
        1d  ana  order_completed order_id=2 total=10
        2d  ana  order_completed order_id=3 total=10 status=placed
        2d  ana  expect emits discount 0
        3d  ana  order_status_changed order_id=3 to=paid message=p
        3d  ana  order_status_changed order_id=3 to=paid message=p
        3d  ana  expect emits discount 1, in
        # Given is given: taken back and bought again, the discount is not granted a second time.
        4d  ana  order_refunded order_id=3
        4d  ana  expect out
        5d  ana  order_completed order_id=4 total=10
        5d  ana  expect in, emits discount 1, suppressed discount re_entry
        """
    )


def test_the_vip_is_greeted_once() -> None:
    check(
        """
        0d  ana  order_completed order_id=1 total=100
        0d  ana  order_completed order_id=2 total=100
        0d  ana  order_completed order_id=3 total=100
        0d  ana  expect emits vip_granted 0
        1d  ana  order_completed order_id=4 total=10
        1d  ana  expect in vip, emits vip_granted 1
        2d  ana  order_refunded order_id=4
        3d  ana  order_completed order_id=5 total=10
        3d  ana  expect in vip, emits vip_granted 1
        """,
        SHOP,
    )


# --- chains ------------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M59")
def test_the_welcome_letters_go_in_order_and_a_first_order_ends_them() -> None:
    done = check(
        """
        0d  ana  registered
        0d  ana  expect emits welcome/welcome_1 1
        2d  ana  expect emits welcome/how_the_shop_works 1
        5d  ana  expect emits welcome/first_order 1, emits welcome 3
        9d  ana  registered                                # once in a life
        9d  ana  expect emits welcome 3, suppressed welcome re_entry
        """,
        SHOP,
    )
    assert [one["template"] for one in done.sent("welcome")] == ["welcome_1", "how_the_shop_works", "first_order"]
    check(
        """
        0d  ana  registered
        1d  ana  order_completed order_id=1 total=10
        9d  ana  expect emits welcome 1, suppressed welcome cancelled
        """,
        SHOP,
    )


# --- decisions ---------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R14")
def test_history_changes_state_and_sends_nothing() -> None:
    done = check(
        """
        start 2026-01-01T10:00
        0h  ana  registered backfill=true late=1000d
        1h  ana  order_completed order_id=1 total=100 backfill=true late=200d
        1h  ana  expect in lapsed, in buyers, trait revenue 100
        9d  ana  expect emits welcome 0, emits lapsed_buyer 0, suppressed welcome backfill, suppressed lapsed_buyer backfill
        """,
        SHOP,
    )
    assert done.changes("lapsed") == []
    assert done.changes("buyers") == []


@pytest.mark.invariant("R14")
def test_a_chain_of_long_ago_does_not_begin_today() -> None:
    check(
        """
        start 2026-01-01T10:00
        0h  ana  registered backfill=true late=1000d
        0h  ana  product_added product=mug price=12.5 backfill=true late=400d
        0h  ana  product_viewed product=pen price=1 backfill=true late=300d
        9d  ana  expect emits welcome 0, emits abandoned_cart 0, emits abandoned_browse 0, suppressed welcome backfill, suppressed abandoned_cart backfill
        9d  ana  registered
        9d  ana  expect emits welcome 0, suppressed welcome re_entry
        """,
        SHOP,
    )
    # History on the log's own clock is lived through: what hangs over its end goes on.
    check(
        """
        start 2026-01-01T10:00
        0h  bob  product_added product=mug price=12.5 backfill=true
        2h  bob  expect emits abandoned_cart 1
        """,
        SHOP,
    )


@pytest.mark.mechanic("M83")
def test_a_complaint_ends_letters_at_once() -> None:
    check(
        """
        0d  ana  registered
        1d  ana  email_marked_as_spam
        1d  ana  expect suppressed welcome no_consent
        9d  ana  expect emits welcome 1, suppressed welcome no_consent
        """,
        SHOP,
    )
