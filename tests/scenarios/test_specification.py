"""The example segments of the specification's grammar, all of them in one rule file, each seen to hold and not to hold.

The words are the specification's, but in its traits: the thresholds of tiers and of ``rfm`` are written out, ``interests`` names
its depth, ``context.device`` has no ``.type`` (and says phone, not mobile), and every ``window`` is a mapping.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from profiles.wire import Event
from rules.compile import compile_rules
from rules.say import say_all
from rules.scenarios import check

RULES: Final = """
defaults: {zone: Europe/Moscow, currency: RUB}
lists:
  categories.depth1: [tools, vinyl]
goals:
  subscribe: {event: consent_changed, where: {channel: email, state: granted}}
  lead_form: {event: form_submitted, where: {form_id: lead}}
traits:
  revenue: {sum: order.total}
  avg_check: {avg: order.total}
  ltv: {sum: order.total}
  mean_interval: {mean_gap: order, min_samples: 3}
  check_tier: {tiers: avg_check, cuts: [2000, 8000], labels: [low, middle, high], hysteresis: 0.05}
  ltv_tier: {tiers: ltv, cuts: [5000, 30000], labels: [low, middle, high]}
  rfm:
    rfm: {recency: [P30D, P60D, P90D, P180D], frequency: [2, 3, 4, 5], monetary: [100, 1000, 5000, 10000], window: {within: P1Y}}
  interests: {decay: {events: {product_viewed: 1, product_added: 3, order_completed: 10}, by: item.category, depth: 1, half_life: P30D}}
  usual_hour: {mode: local_hour, of: [page_viewed, email_opened]}
  device_class: {mode: context.device, window: {within: P90D}}
  preferred_channel: {argmax: reaction_rate, over: channel, window: {within: P180D}, min_samples: 1}
  age: {years_since: birth_date, zone: profile}
segments:
  men_moscow: {all: [{trait: gender, eq: male}, {trait: address.city, eq: Москва}, {trait: age, gte: 18}]}
  low_mark: {trait: custom.mark, lte: 6}
  from_ads: {any: [{trait: last_touch.source, eq: yandex}, {trait: first_touch.campaign, starts_with: bf_}]}
  subscribed_goal: {reached_goal: subscribe}
  viewed_drills: {did: product_viewed, item: [{category: {under: tools/drills}}], window: {within: P14D}, times: {gte: 2}}
  has_abandoned_cart: {trait: cart.state, eq: abandoned}
  armani_suit_man:
    all:
      - {trait: gender, eq: male}
      - {did: order, item: [{category: suits}, {brand: Armani}], window: {calendar: this_month}}
      - {did: order, sum: {field: total, gte: 180000}}
      - {did: order, times: {gte: 4}}
  silent_loyal: {all: [{trait: orders_paid, gte: 10}, {trait: avg_check, gte: 8000}, {trait: last_order_at, older_than: P6M}]}
  black_friday_list: {kind: static, formed_from: {in_segment: regulars}, form_at: 2026-11-24T09:00}
  sleeping_year: {all: [{trait: orders_paid, gte: 1}, {did_not: order, window: {within: P1Y}}]}
  jewel_thrice: {did: order, item: [{category: {under: jewellery}}], window: {within: P6M}, times: {gte: 3}}
  young_mobile: {all: [{trait: age, between: [18, 34]}, {trait: device_class, eq: phone}]}
  dry_skin: {trait: survey.skin_type, eq: dry}
  evening_visitors: {trait: usual_hour, between: [18, 23]}
  vip: {all: [{trait: orders_paid, gt: 3}, {trait: revenue, gte: 10000}]}
  vinyl: {trait: interests.vinyl, gte: 5}
  toddler_parents: {any_item: children, where: {birth_date: {newer_than: P3Y}}}
  dog_owners: {any_item: pets, where: {species: dog}}
  mid_high_check: {trait: check_tier, in: [middle, high]}
  mid_high_ltv: {trait: ltv_tier, in: [middle, high]}
  regulars: {trait: rfm.cell, in: [555, 554, 545, 455]}
  online_and_offline: {all: [{did: order, where: [{channel: store}]}, {did: order, where: [{channel: web}]}]}
  sms_people: {all: [{trait: preferred_channel, eq: sms}, {consent: {channel: sms, topic: sale, state: granted}}]}
  lifecycle:
    kind: stages
    stages:
      - {name: active_after, when: {trait: last_order_at, newer_than: P3M}}
      - name: active_before
        when: {all: [{trait: orders_paid, eq: 0}, {did: [product_viewed, page_viewed], window: {within: P7D}, times: {gte: 5}, distinct_days: {gte: 2}}]}
      - {name: newbie, when: {all: [{trait: registered_at, newer_than: P14D}, {trait: orders_paid, eq: 0}]}}
      - {name: churn, when: otherwise}
  churn_by_rhythm: {trait: last_order_at, older_than: {times: 3, of: mean_interval}}
  non_openers:
    all:
      - {trait: first_seen, older_than: P3M}
      - {did: email_delivered, window: {within: P3M}, times: {gte: 1}}
      - {did_not: email_opened, where: [{machine: {ne: true}}], window: {within: P3M}, known_for: P3M}
      - {did_not: [email_link_clicked, page_viewed], window: {within: P3M}}
  outgrown: {not: {any_item: children, where: {birth_date: {newer_than: P12Y}}}}
  interest_of: {template: {over: categories.depth1}, when: {trait: "interests.{value}", gte: 5}}
  viewed_not_bought: {sequence: [{did: product_viewed, as: v}, {then_not: {did: order, item: [{product_id: $v.product_id}]}, within: P7D}]}
  vip_moscow: {all: [{in_segment: vip}, {in_segment: men_moscow}]}
  holdout_5: {bucket: {salt: global-2026, percent: 5}}
"""
NAMED: Final = (
    "men_moscow", "low_mark", "from_ads", "subscribed_goal", "viewed_drills", "has_abandoned_cart", "armani_suit_man", "silent_loyal",
    "black_friday_list", "sleeping_year", "jewel_thrice", "young_mobile", "dry_skin", "evening_visitors", "vip", "vinyl", "toddler_parents",
    "dog_owners", "mid_high_check", "mid_high_ltv", "regulars", "online_and_offline", "sms_people", "lifecycle", "churn_by_rhythm",
    "non_openers", "outgrown", "interest_of", "viewed_not_bought", "vip_moscow", "holdout_5",
)  # fmt: skip
FILES: Final = [("specification.yaml", RULES)]

BUYS: Final = "\n".join(
    f"{5 * n + 2}d  max  order_completed order_id={n} total=45000 currency=RUB channel={'store' if n % 2 else 'web'}"
    f" product=s{n} brand=Armani category=suits price=45000"
    for n in range(4)
)
TEN: Final = "\n".join(
    f"{9 * n}d  ivan  order_completed order_id=i{n} total=8000 currency=RUB product=ring{n} category=jewellery/rings price=8000"
    for n in range(10)
)

HISTORIES: Final = {
    "a man who buys suits": f"""
        start 2026-11-01T12:00
        0d    max  identified gender=male address.city=Москва birth_date=2008-11-03 custom.mark=7
        0d    max  expect out men_moscow, out low_mark, in lifecycle.churn, out vip, out vip_moscow, out armani_suit_man, out online_and_offline, out mid_high_check, out mid_high_ltv
        2026-11-03T00:00  max  expect in men_moscow
        {BUYS}
        17d   max  expect in vip, in vip_moscow, in armani_suit_man, in mid_high_check, in mid_high_ltv, in online_and_offline
        17d   max  expect in lifecycle.active_after, in regulars, out sleeping_year, out churn_by_rhythm
        18d   max  order_completed order_id=9 total=10 currency=RUB
        18d   max  expect out black_friday_list
        2026-11-24T08:59  max  expect out black_friday_list
        2026-11-24T09:00  max  expect in black_friday_list
        2026-12-01T00:00  max  expect out armani_suit_man, in vip, out churn_by_rhythm
        2026-12-01T12:00  max  expect in churn_by_rhythm
        40d   max  identified custom.mark=6
        40d   max  expect in low_mark
        2027-02-19T12:00  max  expect in lifecycle.churn, out regulars, in black_friday_list
        2027-11-19T11:59  max  expect out sleeping_year
        2027-11-19T12:00  max  expect in sleeping_year
        """,
    "one who bought ten rings": f"""
        start 2026-02-19T12:00
        {TEN}
        81d  ivan  expect in jewel_thrice, in mid_high_check, out silent_loyal
        P6M  ivan  expect in jewel_thrice
        2026-11-11T12:00  ivan  expect in silent_loyal, out jewel_thrice
        """,
    "one who looks": """
        start 2026-05-04T19:00
        0d    eva  page_viewed path=/ campaign.source=yandex campaign.medium=cpc
        0d    eva  expect in from_ads, in evening_visitors, out viewed_drills, out vinyl, out interest_of.vinyl, in lifecycle.churn
        0d    eva  registered
        0d    eva  expect in lifecycle.newbie
        1d    eva  product_viewed product=d category=tools/drills
        1d    eva  product_viewed product=d category=tools/drills
        2d    eva  product_viewed product=r category=vinyl/jazz
        2d    eva  product_added product=r category=vinyl/jazz price=900 currency=RUB
        2d    eva  product_viewed product=r category=vinyl/jazz
        2d    eva  expect in viewed_drills, in vinyl, in interest_of.vinyl, out interest_of.tools, in lifecycle.active_before, out has_abandoned_cart, out viewed_not_bought
        2d2h  eva  expect in has_abandoned_cart
        3d    eva  order_completed order_id=e1 total=900 currency=RUB product=r category=vinyl/jazz price=900
        3d    eva  expect out has_abandoned_cart, in lifecycle.active_after
        7d    eva  expect out viewed_not_bought
        8d    eva  expect in viewed_not_bought
        15d   eva  expect out viewed_drills
        16d   eva  page_viewed path=/
        17d9h eva  page_viewed path=/
        17d10h eva  page_viewed path=/
        17d11h eva  page_viewed path=/
        90d   eva  expect out vinyl
        """,
    "what is told of a person": """
        start 2026-05-04T09:00
        0d  kim  page_viewed path=/ device=phone
        0d  kim  expect in outgrown, out toddler_parents, out dog_owners, out dry_skin, out young_mobile, out subscribed_goal, out from_ads, out evening_visitors
        0d  kim  identified birth_date=1999-01-01 survey.skin_type=dry children=[{name=Max;birth_date=2023-05-06}] pets=[{species=dog}]
        0d  kim  consent_changed channel=email state=granted
        0d  kim  expect in toddler_parents, out outgrown, in dog_owners, in dry_skin, in subscribed_goal
        0d  kim  sms_sent delivery_id=s1
        0d  kim  expect out sms_people
        0d  kim  sms_link_clicked delivery_id=s1
        0d  kim  consent_changed channel=sms topic=sale state=granted
        0d  kim  expect in sms_people
        2026-05-05T23:59  kim  expect in toddler_parents
        2026-05-06T00:00  kim  expect out toddler_parents
        3d  kim  email_delivered delivery_id=e1
        4d  kim  email_opened delivery_id=e1 machine=true
        4d  kim  expect out non_openers
        2026-08-04T09:00  kim  expect in non_openers
        2026-08-05T09:00  kim  email_link_clicked delivery_id=e1
        2026-08-05T09:00  kim  expect out non_openers
        2035-05-05T23:59  kim  expect out outgrown
        2035-05-06T00:00  kim  expect in outgrown
        """,
}


def test_all_the_segments_of_the_specification_are_here() -> None:
    assert len(NAMED) == len(set(NAMED)) == 31
    found = {one.name.partition(".")[0] for one in compile_rules(FILES).segments}
    assert found - {"check_tier"} == set(NAMED)


@pytest.mark.mechanic("M1")
@pytest.mark.mechanic("M4")
@pytest.mark.mechanic("M15")
@pytest.mark.mechanic("M50")
@pytest.mark.parametrize("name", HISTORIES)
def test_the_segments_of_the_specification_hold_when_they_should(name: str) -> None:
    check(HISTORIES[name], FILES)


@pytest.mark.mechanic("M87")
def test_a_share_of_all_is_a_share_and_the_same_always() -> None:
    lines = "\n".join(f"0d  p{n}  page_viewed" for n in range(1_000))
    done = check(f"start 2026-01-01\n{lines}", FILES)
    drawn = [n for n in range(1_000) if "holdout_5" in done.world.members(f"user:p{n}")]
    assert 30 <= len(drawn) <= 70
    (segment,) = [one for one in done.world.rulebook.segments if one.name == "holdout_5"]
    later_ms = done.world.now_ms + 10**11
    assert [n for n in range(1_000) if segment.judge(done.world.profile(f"user:p{n}"), later_ms)[0]] == drawn


@pytest.mark.mechanic("M27")
def test_the_young_on_phones_are_known_by_what_their_devices_say() -> None:
    done = check("0d  leo  identified birth_date=2008-01-03\n0d  leo  expect out young_mobile", FILES)
    world = done.world
    for day, device in ((1, "phone"), (2, "desktop"), (3, "phone")):
        at_ms = done.start_ms + day * 86_400_000
        world.until(at_ms, with_it=True)
        world.happen(Event(f"v{day}", "web", "page_viewed", at_ms, at_ms, "user:leo", context={"device": device}))
        # Old enough from 3 January on, in Moscow; the desktop was as usual as the phone on that day, and newer.
        assert ("young_mobile" in world.members("user:leo")) == (day == 3)
    world.until(done.start_ms + 93 * 86_400_000, with_it=True)
    assert "young_mobile" not in world.members("user:leo")


def test_each_of_them_is_seen_on_both_sides() -> None:
    text = "\n".join(HISTORIES.values())
    shown = {
        word: {name.partition(".")[0] for name in re.findall(rf"\b{word} ([a-z_0-9.]+)", text)}
        for word in ("in", "out")
    }
    assert set(NAMED) - shown["in"] <= {"holdout_5", "young_mobile"}  # these have tests of their own
    assert set(NAMED) - shown["out"] <= {"holdout_5", "lifecycle"}  # of stages one always holds


@pytest.mark.mechanic("D9")
@pytest.mark.parametrize("language", ["en", "ru"])
def test_each_of_them_is_said_in_plain_words(language: str) -> None:
    said = say_all(compile_rules(FILES), language)
    assert set(NAMED) <= {name.partition(".")[0] for name in said}
    assert not [name for name, words in said.items() if "{" in words or re.search(r"\bP(\d|T)", words)]
