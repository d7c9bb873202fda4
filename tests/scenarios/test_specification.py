"""The example segments of the specification's grammar, as they stand on its page, each seen to hold and not to hold.

``segments_4_3.yaml`` is the page's block, letter by letter; what is a shop's own stands beside it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from profiles.wire import Event
from rules.compile import OPERATORS, compile_rules
from rules.say import say_all
from rules.scenarios import check

PAGE: Final = Path(__file__).parents[1] / "data" / "segments_4_3.yaml"
MORE: Final = """
defaults: {zone: Europe/Moscow, currency: RUB}
lists: {categories.depth1: [tools, vinyl]}
"""
"""What is a shop's own: its zone and currency, and which categories it has."""
RULES: Final = (
    PAGE.read_text("utf-8")
    .replace("defaults: {zone: workspace,", "defaults: {zone: Europe/Moscow, currency: RUB,")
    .replace("over: categories.depth1", "over: [tools, vinyl]")
    .replace("tiers: avg_check, by: quantile, cuts: [0.33, 0.66]", "tiers: avg_check, cuts: [2000, 8000]")
    .replace("tiers: ltv, by: quantile, cuts: [0.33, 0.66]", "tiers: ltv, cuts: [5000, 30000]")
    .replace(
        "recency: last_order_at, frequency: orders_paid, monetary: revenue, window: P1Y, scale: 5",
        "recency: [P30D, P60D, P90D, P180D], frequency: [2, 3, 4, 5], monetary: [100, 1000, 5000, 10000], window: P1Y",
    )
)
"""The same for a shop whose tiers and scores go by thresholds: who else buys there says nothing."""

NAMED: Final = (
    "men_moscow", "low_mark", "from_ads", "subscribed_goal", "viewed_drills", "has_abandoned_cart", "armani_suit_man", "silent_loyal",
    "black_friday_list", "sleeping_year", "jewel_thrice", "young_mobile", "dry_skin", "evening_visitors", "vip", "vinyl", "toddler_parents",
    "dog_owners", "mid_high_check", "mid_high_ltv", "regulars", "online_and_offline", "sms_people", "lifecycle", "churn_by_rhythm",
    "non_openers", "outgrown", "interest_of", "viewed_not_bought", "vip_moscow", "holdout_5",
)  # fmt: skip
FILES: Final = [("segments_4_3.yaml", PAGE.read_text("utf-8")), ("shop.yaml", MORE)]

OTHERS: Final = "\n".join(f"0d  o{n}  order_completed order_id=o{n} total={100 + n} currency=RUB" for n in range(5))
"""By whom the base is what it is."""
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
        {OTHERS}
        0d    max  identified gender=male address.city=Москва birth_date=2008-11-03 custom.mark=7
        0d    max  expect out men_moscow, out low_mark, in lifecycle.churn, out vip, out vip_moscow, out armani_suit_man, out online_and_offline, out mid_high_check, out mid_high_ltv
        2026-11-03T00:00  max  expect in men_moscow
        {BUYS}
        17d   max  expect out mid_high_check, out mid_high_ltv, out regulars     # nobody has looked at the base
        17d   base facts
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
        {OTHERS}
        {TEN}
        81d  base facts
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
        0d  kim  sms_sent delivery_id=s2
        0d  kim  sms_sent delivery_id=s3
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
    assert found - {"check_tier", "ltv_tier"} == set(NAMED)
    thresholds = {one.name.partition(".")[0] for one in compile_rules([("it.yaml", RULES)]).segments}
    assert thresholds - {"check_tier"} == set(NAMED)


def test_the_operators_that_the_page_names_are_those_of_the_language() -> None:
    page = PAGE.read_text("utf-8")
    (atoms,) = re.findall(r"# atom +:= (.+)", page)
    (compared,) = re.findall(r"ops: ((?:.+\n)+?)# did ", page)
    assert set(atoms.split(" | ")) - {"sequence"} <= set(OPERATORS)
    assert len(compared.replace("#", "").split()) == 24
    assert set(compared.replace("#", "").split()) <= set(OPERATORS["trait"].keys)


@pytest.mark.mechanic("M14", "M31")
def test_what_counts_as_an_order_is_said_once_for_all_rules_that_do_not_say_it() -> None:
    check("""
        defaults = {orders: {status_in: [placed, paid]}}
        trait spent = {sum: order.total}
        segment any_order = {did: order}
        segment paid = {did: order, status_in: [paid]}
        segment silent = {trait: last_order_at, older_than: P1D}
        0d   ana  order_completed order_id=1 total=10 status=placed
        0d   ana  expect in any_order, out paid, trait spent 10, trait orders_paid 0
        1d   ana  expect in silent
        2d   ana  order_status_changed order_id=1 to=paid
        2d   ana  expect in any_order, in paid, in silent, trait orders_paid 1
        3d   ana  order_cancelled order_id=1
        3d   ana  expect out any_order, out paid, out silent
        """)


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
