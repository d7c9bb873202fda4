"""The whole trigger language of the specification: its 26 example triggers, as they stand on its page, seen at work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from profiles.errors import BadDocument
from rules.compile import compile_rules
from rules.say import say_all
from rules.scenarios import Run, check
from tests.scenarios.test_specification import RULES

EXAMPLES: Final = Path(__file__).parents[1] / "data" / "triggers_4_4.yaml"
MORE: Final = """
defaults: {free_delivery_from: 3000}
traits:
  coffee_count: {count: order, item: [{product_id: coffee}], per: item}
  discount: {said: text}
"""
"""What the examples take for granted, and the segments of the specification do not say."""
FILES: Final = (
    ("triggers.yaml", EXAMPLES.read_text("utf-8")),
    ("more.yaml", MORE),
    ("segments.yaml", RULES),
)
SILENT: Final = "\n".join(f"{n}d  ivan  order_completed order_id=i{n} total=9000 currency=RUB" for n in range(10))

HISTORIES: Final = {
    "subscribing, a cart that is left, an order": """
        start 2026-05-04T12:00
        0d     ana  consent_changed channel=email state=granted
        0d     ana  expect emits thank_you_subscription/thanks 1
        2d     ana  product_added cart_id=c1 product=mug price=900 currency=RUB
        2d1h   ana  product_added cart_id=c1 product=pen price=100 currency=RUB
        2d2h   ana  expect emits abandoned_cart 0
        2d3h   ana  expect emits abandoned_cart/cart_1 1
        5d3h   ana  expect emits abandoned_cart/cart_2 1, coupons abandoned_cart 1
        6d     ana  order_completed order_id=1 total=1000 currency=RUB cart_id=c1 status=placed
        6d     ana  order_status_changed order_id=1 to=paid
        6d     ana  expect emits order_placed 1, emits order_paid 1
        9d     ana  product_added cart_id=c2 product=mug price=900 currency=RUB
        9d1h   ana  product_removed cart_id=c2 product=mug
        12d    ana  expect emits abandoned_cart 2, suppressed abandoned_cart cancelled
        15d    eve  product_added product=mug price=900 currency=RUB     # she has granted nothing
        18d3h  eve  expect emits abandoned_cart 0, suppressed abandoned_cart no_consent 2
        """,
    "looking, and what it leads to": """
        start 2026-05-04T12:00
        0d       shop product_updated product=mug price=900 old_price=1200 currency=RUB category=home
        0d       shop product_updated product=cup price=800 currency=RUB category=home
        0d       ana  consent_changed channel=email state=granted
        2d       ana  product_viewed product=mug category=home
        2d4h29m  ana  expect emits abandoned_browse 0
        2d4h30m  ana  expect emits abandoned_browse/big_sale 1
        3d       ana  product_viewed product=cup category=home
        4d       ana  expect emits abandoned_browse 1, suppressed abandoned_browse re_entry
        10d      ana  product_viewed product=cup category=home
        10d5m    ana  product_added product=cup price=800 currency=RUB
        11d      ana  expect emits abandoned_browse 1
        20d      ana  order_completed order_id=1 total=9000 currency=RUB
        30d      ana  product_viewed product=mug category=home
        30d5m    ana  order_completed order_id=2 total=9000 currency=RUB
        30d9h    ana  expect emits abandoned_browse 1
        40d      ana  product_viewed product=mug category=home
        40d5h    ana  expect emits abandoned_browse/browse 1
        """,
    "the way from registering to the fourth order": """
        start 2026-05-04T12:00
        0d    shop product_updated product=tea price=200 currency=RUB
        0d    shop product_updated product=mug price=900 currency=RUB accompanying=[tea] content=https://shop.example/mug
        0d    bob  registered
        0d    bob  consent_changed channel=email topic=welcome state=granted
        1d    bob  expect emits welcome 0, suppressed welcome no_consent
        1d    ana  consent_changed channel=email state=granted
        2d    ana  registered
        2d    ana  expect emits welcome/welcome_1 1
        4d    ana  expect emits welcome/how_shop_works 1
        6d    ana  expect emits welcome/experts 1
        9d    ana  expect emits welcome/first_order 1, coupons welcome 2     # and one of his
        10d   ana  order_completed order_id=1 total=2500 currency=RUB product=mug price=2500 status=placed
        10d   ana  order_status_changed order_id=1 to=paid
        10d   ana  order_status_changed order_id=1 to=confirmed
        10d30m ana expect emits upsell_before_shipping/add_to_order 1
        11d   ana  order_status_changed order_id=1 to=shipped
        12d   ana  order_status_changed order_id=1 to=delivered
        12d   ana  expect emits content_by_purchase/guide 1
        15d   ana  expect emits review_then_coupon/please_review 1
        16d   ana  expect emits service_survey/how_was_it 1
        18d   ana  product_reviewed order_id=1 product=mug
        18d   ana  expect emits review_then_coupon/coupon 1, coupons review_then_coupon 1
        19d   ana  survey_answered order_id=1 score=3
        19d   ana  expect emits service_survey/apology 1, tasks service_survey 1, coupons service_survey 1
        20d   ana  expect emits next_purchase 0            # her average is low
        24d   ana  expect emits to_fourth_order/order_1_next 1
        25d   ana  expect emits review_then_coupon/coupon_reminder 1
        30d   ana  order_completed order_id=2 total=90000 currency=RUB
        31d   ana  order_status_changed order_id=2 to=confirmed
        31d10m ana order_status_changed order_id=2 to=shipped
        40d   ana  expect emits upsell_before_shipping 1, suppressed upsell_before_shipping cancelled
        44d   ana  expect emits to_fourth_order/order_2_next 1
        50d   ana  order_completed order_id=3 total=9000 currency=RUB
        50d   ana  expect emits vip_granted/vip 1, trait discount vip
        64d   ana  expect emits to_fourth_order/order_3_next 1
        70d   ana  order_completed order_id=4 total=9000 currency=RUB
        90d   ana  expect emits to_fourth_order 3
        100d  leo  consent_changed channel=email state=granted
        101d  leo  order_completed order_id=5 total=9000 currency=RUB product=mug price=9000
        111d  leo  expect emits next_purchase/goes_with 1
        """,
    "three months without an order": """
        start 2026-01-10T12:00
        0d                leo  consent_changed channel=email state=granted
        1d                leo  order_completed order_id=1 total=9000 currency=RUB
        2026-03-01T12:00  shop product_updated product=new price=900 currency=RUB
        2026-04-11T11:59  leo  expect emits lapsed_buyer 0
        2026-04-11T12:00  leo  expect coupons lapsed_buyer 1, emits lapsed_buyer/come_back 1
        2026-04-11T12:00  leo  expect suppressed reactivation_ladder frequency 1     # one letter a day
        2026-05-11T12:00  leo  expect emits reactivation_ladder/winback 1, coupons reactivation_ladder 1
        2026-05-12T12:00  leo  order_completed order_id=2 total=9000 currency=RUB
        2026-07-12T12:00  leo  expect emits reactivation_ladder 1
        2026-08-12T12:00  leo  expect suppressed lapsed_buyer no_items     # nothing new came since
        """,
    "a VIP has three days left": """
        start 2026-01-10T12:00
        0d                ana  consent_changed channel=email topic=vip_burns state=granted
        0d                eve  consent_changed channel=email topic=vip_burns state=granted
        0d                ana  order_completed order_id=1 total=3000 currency=RUB
        0d                ana  order_completed order_id=2 total=3000 currency=RUB
        0d                ana  order_completed order_id=3 total=3000 currency=RUB
        0d                ana  order_completed order_id=4 total=1000 currency=RUB
        0d                eve  order_completed order_id=5 total=3000 currency=RUB
        0d                eve  order_completed order_id=6 total=3000 currency=RUB
        0d                eve  order_completed order_id=7 total=3000 currency=RUB
        0d                eve  order_completed order_id=8 total=1000 currency=RUB
        0d                ana  expect in vip, trait discount vip
        2026-04-10T12:00  ana  expect emits vip_burns/vip_burns 1
        2026-04-10T12:00  eve  expect emits vip_burns/vip_burns 1
        P3M2DT23H59M      eve  order_status_changed order_id=9 to=paid
        2026-04-13T11:59  ana  expect trait discount vip
        2026-04-13T12:00  ana  expect trait discount none, emits vip_burns/vip_gone 1
        2026-04-14T12:00  eve  expect trait discount vip, emits vip_burns 1
        """,
    "what is bought again, and for whom": """
        start 2026-01-05T12:00
        0d   ana  consent_changed channel=email state=granted
        0d   ana  identified pets=[{species=cat;name=Tom}|{species=dog;name=Rex}]
        1d   ana  order_completed order_id=1 total=900 currency=RUB product=food category=pets/dog/food price=900
        31d  ana  order_completed order_id=2 total=900 currency=RUB product=food category=pets/dog/food price=900
        40d  ana  expect emits replenishment 0
        60d  ana  expect emits replenishment/running_out 1
        """,
    "long silence of a loyal customer": f"""
        start 2026-01-05T12:00
        {SILENT}
        2026-07-14T11:59  ivan  expect tasks call_silent 0
        2026-07-14T12:00  ivan  expect tasks call_silent 1
        """,
    "thrice his usual rhythm": """
        start 2026-01-05T12:00
        0d   leo  consent_changed channel=email state=granted
        1d   leo  order_completed order_id=1 total=900 currency=RUB
        11d  leo  order_completed order_id=2 total=900 currency=RUB
        21d  leo  order_completed order_id=3 total=900 currency=RUB
        31d  leo  order_completed order_id=4 total=900 currency=RUB
        60d  leo  expect out churn_by_rhythm, emits churn_survey 0
        61d  leo  expect in churn_by_rhythm, emits churn_survey/why 1
        """,
    "three months of letters that nobody opened": """
        start 2026-01-05T12:00
        0d    leo  consent_changed channel=email state=granted
        0d    max  consent_changed channel=email state=granted
        1d    leo  email_delivered
        1d    max  email_delivered
        89d   leo  email_delivered
        89d   max  email_delivered
        90d   leo  expect emits sunset/why_not_reading 1
        91d   leo  email_opened machine=true
        97d   leo  expect emits sunset/we_miss_you 1, coupons sunset 2
        104d  leo  expect emits sunset/keep_me 1
        111d  leo  expect emits sunset/last_day 1
        112d  leo  expect emits sunset 4, alarm 142d
        120d  max  page_viewed path=/
        142d  leo  expect out non_openers, alarm none, suppressed sunset done 2
        142d  max  expect suppressed sunset cancelled
        """,
    "a birthday, jewels, coffees, a friend": """
        start 2026-01-05T12:00
        0d   leo  consent_changed channel=email state=granted
        0d   leo  identified birth_date=1990-03-15 referrer=eve timezone=Asia/Tokyo
        1d   leo  order_completed order_id=1 total=900 currency=RUB product=ring category=jewellery/rings price=900 status=placed
        1d   leo  order_status_changed order_id=1 to=paid
        1d   eve  expect coupons referral_credit 1
        2d   leo  order_completed order_id=2 total=900 currency=RUB product=ring category=jewellery/rings price=900
        3d   leo  order_completed order_id=3 total=900 currency=RUB product=coffee price=200 product=coffee price=200
        3d   leo  expect trait discount vip
        4d   leo  order_completed order_id=4 total=900 currency=RUB product=ring category=jewellery/rings price=900
        4d   leo  expect trait discount jewellery
        5d   leo  order_completed order_id=5 total=900 currency=RUB product=coffee price=200
        6d   leo  order_completed order_id=6 total=900 currency=RUB product=coffee price=200
        7d   leo  order_completed order_id=7 total=900 currency=RUB product=coffee price=200
        7d   leo  expect coupons sixth_coffee 0
        8d   leo  order_completed order_id=8 total=900 currency=RUB product=coffee price=200
        8d   leo  expect coupons sixth_coffee 1
        2026-03-12T03:59  leo  expect emits birthday 0
        2026-03-12T04:00  leo  expect emits birthday/birthday 1, coupons birthday 1
        2026-04-01T12:00  leo  identified birth_date=1990-06-15
        2026-12-31T12:00  leo  expect emits birthday 1
        """,
    "cheaper, and a sale for those on the list": """
        start 2026-11-01T12:00
        0d   leo   consent_changed channel=email state=granted
        0d   leo   consent_changed channel=push state=granted
        0d   leo   consent_changed channel=sms state=granted
        0d   tom   consent_changed channel=push state=denied
        0d   tom   consent_changed channel=sms state=granted
        0d   shop  product_updated product=drill price=10000 currency=RUB
        1d   leo   product_added_to_wishlist product=drill
        1d   tom   product_added_to_wishlist product=drill
        2d   shop  product_updated product=drill price=8000 currency=RUB
        2d   leo   expect emits price_drop/cheaper 1
        2d   tom   expect emits price_drop 0, suppressed price_drop no_consent
        3d   leo   order_completed order_id=1 total=6000 currency=RUB
        3d   tom   order_completed order_id=2 total=6000 currency=RUB
        4d   leo   order_completed order_id=3 total=6000 currency=RUB
        4d   tom   order_completed order_id=4 total=6000 currency=RUB
        5d   leo   order_completed order_id=5 total=6000 currency=RUB
        5d   tom   order_completed order_id=6 total=6000 currency=RUB
        6d   leo   order_completed order_id=7 total=6000 currency=RUB
        6d   tom   order_completed order_id=8 total=6000 currency=RUB
        7d   leo   order_completed order_id=9 total=6000 currency=RUB
        7d   tom   order_completed order_id=10 total=6000 currency=RUB
        7d   leo   expect in regulars
        2026-11-25T10:00  leo  expect in black_friday_list, emits closed_sale 2, audience yandex/closed_sale in
        2026-11-25T10:00  tom  expect emits closed_sale 1, suppressed closed_sale no_consent 2     # by SMS
        2026-11-25T11:00  leo  order_completed order_id=11 total=900 currency=RUB
        2026-11-25T11:00  leo  expect audience yandex/closed_sale out
        """,
}


def seen(name: str) -> Run:
    return check(HISTORIES[name], FILES)


def payloads(done: Run, trigger: str) -> list[dict[str, Any]]:
    return [one["payload"] for one in done.sent(trigger)]


def mistakes(rules: str) -> list[str]:
    with pytest.raises(BadDocument) as bad:
        compile_rules([("it.yaml", rules)])
    return [one.message for one in bad.value.mistakes]


def test_every_example_trigger_of_the_specification_is_taken_as_it_stands_there() -> None:
    triggers = compile_rules(FILES).triggers
    assert len(triggers) == 26
    text = "\n".join(HISTORIES.values())
    shown = re.findall(r"(?:emits|tasks|coupons|suppressed) (\w+)", text)
    assert set(triggers) - set(shown) == {"third_jewel"}  # it only states a trait


@pytest.mark.parametrize("name", HISTORIES)
def test_the_triggers_of_the_specification_do_what_they_say(name: str) -> None:
    seen(name)


def test_the_specifications_triggers_are_said_in_plain_words() -> None:
    for language in ("en", "ru"):
        said = say_all(compile_rules(FILES), language)
        assert "sms" in said["closed_sale"]
        assert not [name for name, words in said.items() if re.search(r"\bP(\d|T)", words)]


@pytest.mark.mechanic("M61", "M39")
def test_a_bag_of_food_is_for_the_pet_that_eats_it_and_says_why_it_runs_out() -> None:
    [told] = payloads(seen("what is bought again, and for whom"), "replenishment")
    assert told["pet"] == {"species": "dog", "name": "Rex"}
    assert (told["item"], told["because"][0]["source"], told["because"][0]["purchases"]) == ("food", "personal", 2)
    assert [one["node"] for one in told["because"]][1:] == ["order within P5D"]


@pytest.mark.mechanic("M39")
@pytest.mark.parametrize(
    ("lists", "category", "pet"),
    [("", "pets/cat/food", "cat"), ("", "pets/fish", None), ("lists: {pets: {dogs: dog}}", "dogs/toys", "dog")],
)
def test_a_pet_is_known_by_the_category_of_what_was_bought(lists: str, category: str, pet: str | None) -> None:
    rules = "triggers: {it: {on: {event: order_completed}, key: toy, steps: [{emit: {template: x, payload: {pet: {match: pets}}}}]}}"
    done = check(
        f"""
        0d  ana  identified pets=[{{species=cat}}|{{species=dog}}]
        0d  ana  order_completed order_id=1 total=10 toy=ball product=ball category={category}
        """,
        [("it.yaml", f"{lists}\n{rules}")],
    )
    [told] = payloads(done, "it")
    assert (told["pet"] or {}).get("species") == pet


@pytest.mark.mechanic("M86", "M49", "M47")
def test_a_cart_letter_greets_and_names_the_coupon_and_the_end_of_the_reservation() -> None:
    first, second = payloads(seen("subscribing, a cart that is left, an order"), "abandoned_cart")
    assert first["greeting"] == "Hello!"
    assert second["coupon"]["offer"] == "cart"
    assert second["reserved_until"] == "2026-05-12T12:00:00.000Z"  # three days after the letter, at 15:00 in Moscow
    assert {one["product_id"] for one in second["cart"]["items"]} == {"mug", "pen"}


@pytest.mark.mechanic("M56")
def test_an_agreed_order_says_what_is_missing_to_free_delivery() -> None:
    [told] = payloads(seen("the way from registering to the fourth order"), "upsell_before_shipping")
    assert told["free_delivery_gap"] == {"from": "3000.00", "gap": "500.00", "gap_minor": 50000, "currency": "RUB"}
    assert mistakes(
        "triggers: {it: {on: {event: registered}, steps: [{emit: {template: x, payload: {free_delivery_gap: true}}}]}}"
    ) == ["free_delivery_gap: the amount from which delivery is free wanted (defaults/free_delivery_from), got none"]


@pytest.mark.mechanic("M66")
def test_a_letter_may_bring_a_coupon_of_its_own() -> None:
    done = seen("three months of letters that nobody opened")
    second, third = done.sent("sunset")[2]["payload"], done.sent("sunset")[4]["payload"]
    assert second["coupon"]["offer"] == "sunset"
    assert third == {"button": "stay"}


@pytest.mark.mechanic("M73", "M48", "M82")
def test_a_sale_told_by_two_channels_is_two_moments_with_their_own_consents_and_one_touch() -> None:
    done = seen("cheaper, and a sale for those on the list")
    mine = [
        (one["step"], one["channel"], one["consent"]["channel"])
        for one in done.sent("closed_sale")
        if "leo" in one["profile"]["address"]
    ]
    assert mine == [("1", "email", "email"), ("2", "sms", "sms")]
    [push] = done.sent("price_drop")
    assert (push["channel"], push["consent"]["state"]) == ("push", "granted")


@pytest.mark.mechanic("M83")
@pytest.mark.parametrize(
    ("refused", "emitted", "reasons"),
    [(("email",), 1, ["no_consent"]), (("email", "sms"), 0, ["no_consent"]), ((), 2, [])],
)
def test_what_is_pending_ends_when_its_last_channel_is_refused(
    refused: tuple[str, ...], emitted: int, reasons: list[str]
) -> None:
    said = "\n".join(f"1h  ana  consent_changed channel={one} state=denied" for one in refused)
    done = check(
        f"""
        trigger it = {{on: {{event: registered}}, consent: {{channel: email, mode: opt_out}}, steps: [{{wait: P1D}}, {{emit: {{template: sale, channel: [email, sms]}}}}]}}
        0h  ana  registered
        {said}
        2d  ana  expect emits it {emitted}
        """
    )
    assert [one["reason"] for one in done.decisions("it") if one["reason"]] == reasons


def test_a_letter_and_its_sms_leave_room_for_one_more_touch_of_two() -> None:
    check("""
        policies = {marketing: {limits: [{max: 2, per: P1D}, {max: 1, per: P1D, scope: channel}]}}
        trigger both = {consent: {channel: email, mode: opt_out}, on: {event: registered}, steps: [{emit: {template: x, channel: [email, sms]}}]}
        trigger again = {on: {event: page_viewed}, steps: [{emit: {template: y, channel: push}}, {emit: {template: z, channel: whatsapp}}, {emit: {template: w, channel: sms}}]}
        0h  ana  registered
        0h  ana  expect emits both 2
        1h  ana  page_viewed
        1h  ana  expect emits again/y 1, emits again 1, suppressed again frequency 2
        """)


def test_the_second_channel_stands_alone_where_the_first_was_held_back() -> None:
    check("""
        policies = {marketing: {limits: [{max: 1, per: P1D}]}}
        trigger it = {consent: {channel: email, mode: opt_out}, on: {event: registered}, steps: [{emit: {template: x, channel: [email, sms]}}]}
        trigger hello = {on: {event: page_viewed}, steps: [{emit: hello}]}
        0h  ana  consent_changed channel=email state=denied
        0h  ana  registered
        0h  ana  expect emits it 1, suppressed it no_consent
        1h  ana  page_viewed
        1h  ana  expect suppressed hello frequency     # the SMS was the touch
        1h  eve  page_viewed
        2h  eve  registered
        2h  eve  expect emits hello 1, emits it 0, suppressed it frequency 2
        """)


@pytest.mark.mechanic("M82")
def test_a_policys_consent_is_to_the_topic_of_each_trigger() -> None:
    check("""
        policies = {marketing: {consent: {channel: email, topic: $trigger.topic}}}
        trigger news = {topic: news, on: {event: page_viewed}, steps: [{emit: x}]}
        trigger sale = {on: {event: page_viewed}, steps: [{emit: x}]}
        0h  ana  consent_changed channel=email topic=news state=granted
        0h  ana  page_viewed
        0h  ana  expect emits news 1, emits sale 0, suppressed sale no_consent
        """)


@pytest.mark.mechanic("M60")
def test_a_condition_on_the_key_is_asked_of_that_key() -> None:
    check("""
        trigger it = {on: {event: product_reviewed}, key: about, when: {not: {did: order, item: [{product_id: $key}], window: {within: P5D}}}, steps: [{emit: x}]}
        0d  ana  order_completed order_id=1 total=10 product=mug price=10
        1d  ana  product_reviewed about=mug product=mug
        1d  ana  expect emits it 0
        1d  ana  product_reviewed about=pen product=pen
        1d  ana  expect emits it 1
        4d23h59m  ana  product_reviewed about=mug product=mug
        4d23h59m  ana  expect emits it 1
        5d  ana  product_reviewed about=mug product=mug
        5d  ana  expect emits it 2
        """)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (
            "triggers: {it: {on: {event: registered}, when: {did: product_viewed, item: [{product_id: $key}]}, steps: [{emit: x}]}}",
            "a condition with $key: on orders, traits, segments and consents only, as nothing else is kept for each key",
        ),
        (
            "segments: {it: {did: order, item: [{product_id: $key}]}}",
            "$key: goes in a trigger's `when` and in payloads only",
        ),
        (
            "triggers: {it: {on: {event: registered}, conversion: {event: session_ended, within: P7D}, steps: [{emit: x}]}}",
            "conversion: what lies on a topic wanted, got session_ended, which the engine makes",
        ),
        (
            "triggers: {it: {on: {event: registered}, conversion: {goal: lead, event: page_viewed, within: P7D}, steps: [{emit: x}]}}",
            "conversion: either an 'event', which may have a 'where', or a 'goal' wanted",
        ),
        (
            "triggers: {it: {on: {event: registered}, conversion: {goal: lede_x, within: P7D}, steps: [{emit: x}]}}",
            "unknown goal 'lede_x'",
        ),
        (
            "triggers: {it: {on: {event: registered}, conversion: {event: survey_answered, where: {scor: 1}, within: P7D}, steps: [{emit: x}]}}",
            "survey_answered has no property 'scor'; did you mean 'score'? (a property of your own goes as custom.scor)",
        ),
        (
            "triggers: {it: {on: {event: registered}, conversion: {event: order_completed, within: P1Y}, steps: [{emit: x}]}}",
            "within: 90 days at most wanted, got 'P1Y'",
        ),
        (
            "triggers: {it: {on: {event: registered}, steps: [{emit: {template: x, channel: [sms, sms]}}]}}",
            "channel: one, or a list of different ones wanted",
        ),
        (
            "triggers: {it: {on: {event: registered}, steps: [{emit: {template: x, payload: {viewed: {last: 4, distinct: false}}}}]}}",
            "distinct: true wanted, as each product is told once in any case, got false",
        ),
        (
            "triggers: {it: {on: {event: registered}, steps: [{suppress: {scope: marketing, channels: [sms]}}]}}",
            "either 'channels' or 'scope' wanted",
        ),
        ("defaults: {free_delivery_from: 0}", "an amount above 0 wanted, got 0"),
    ],
)
def test_a_word_that_cannot_be_meant_is_refused_and_says_why(rules: str, told: str) -> None:
    assert mistakes(rules) == [told]


@pytest.mark.mechanic("M66", "M67")
@pytest.mark.parametrize(
    ("said", "is_erased"),
    [
        ("", True),
        ("120d  leo  unsubscribed", True),  # that is no sign that he would be kept
        ("120d  leo  consent_changed channel=sms topic=news state=granted", False),
        ("120d  leo  email_opened machine=true", True),
        ("120d  leo  email_opened", False),
    ],
)
def test_who_is_suppressed_is_erased_a_month_later_unless_he_comes_back(said: str, is_erased: bool) -> None:
    done = check(
        f"""
        start 2026-01-05T12:00
        0d    leo  consent_changed channel=email state=granted
        1d    leo  email_delivered
        89d   leo  email_delivered
        112d  leo  expect emits sunset 4, suppressed sunset done
        {said}
        143d  leo  expect suppressed sunset done {2 if is_erased else 1}
        """,
        FILES,
    )
    suppressed = next(one for one in done.decisions("sunset") if "channels" in one["detail"])
    assert suppressed["detail"] == {"channels": ["email", "sms", "push"]}
    assert bool(done.world.erased) == is_erased


@pytest.mark.mechanic("M63")
def test_a_good_word_on_the_service_asks_for_a_review() -> None:
    check(
        """
        start 2026-05-04T12:00
        0d    leo  consent_changed channel=email state=granted
        1d    leo  order_completed order_id=1 total=100 currency=RUB status=placed
        2d    leo  order_status_changed order_id=1 to=delivered
        7d    leo  survey_answered order_id=1 score=7
        7d    leo  expect emits service_survey/ask_review 1, tasks service_survey 0
        """,
        FILES,
    )


@pytest.mark.mechanic("M47")
def test_the_day_of_a_cart_is_the_customers_own() -> None:
    check("""
        defaults = {zone: Europe/Moscow}
        start 2026-05-04T17:30
        trigger it = {on: {event: product_added}, steps: [{wait: {for: PT2H, at_most: end_of_local_day}}, {emit: x}]}
        0m      ana  identified timezone=Asia/Tokyo
        0m      ana  product_added product=mug        # 23:30 in Tokyo
        0m      eve  product_added product=mug
        28m     ana  expect emits it 0
        29m     ana  expect emits it 1
        1h59m   eve  expect emits it 0
        2h      eve  expect emits it 1
        """)


@pytest.mark.mechanic("M46")
def test_what_is_put_into_one_cart_puts_off_the_letter_on_no_other() -> None:
    check(
        """
        start 2026-05-04T12:00
        0h     leo  consent_changed channel=email state=granted
        24h    leo  product_added cart_id=c1 product=mug price=900 currency=RUB
        25h    leo  product_added cart_id=c2 product=pen price=100 currency=RUB
        26h    leo  expect emits abandoned_cart 1
        27h    leo  expect suppressed abandoned_cart frequency     # the second cart's, on the same day
        """,
        FILES,
    )
