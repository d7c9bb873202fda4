"""The ready-made packs do what their scenarios say, and the pack of criteria shows every one of its segments at work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from profiles.moments import DAY_MS, iso, parse_instant
from profiles.wire import TASKS
from rules.compile import compile_rules
from rules.scenarios import check
from stream.rulebook import PACKS, read_rule_files

SCENARIOS: Final = [
    pytest.param(path, id=f"{path.parts[-3]}-{path.stem}")
    for path in sorted(PACKS.glob("*/scenarios/*.txt"))
    if path.parts[-3] != "journeys"  # each of which has a test of its own
]
CRITERIA: Final = PACKS / "criteria"
ONLY_NAMED: Final = ("interest_of.suits", "interest_of.jewellery", "ltv_tier.from_middle", "ltv_tier.from_high")
"""Of one kind with others that are shown."""


@pytest.mark.mechanic("M9")
@pytest.mark.parametrize("path", SCENARIOS)
def test_a_packs_scenario_holds(path: Path) -> None:
    check(path.read_text("utf-8"), read_rule_files(path.parents[1]), str(path))


def journeys(name: str) -> None:
    path = PACKS / "journeys" / "scenarios" / f"{name}.txt"
    check(path.read_text("utf-8"), read_rule_files(PACKS / "journeys"), str(path))


@pytest.mark.mechanic("M46", "M47", "M49", "M50", "M90")
def test_the_pack_of_journeys_shows_a_cart_that_was_left_a_look_and_goods_that_were_kept() -> None:
    journeys("carts")


@pytest.mark.mechanic("M44", "M55", "M57", "M58", "M59", "M63", "M69", "M70")
def test_the_pack_of_journeys_shows_the_way_from_subscribing_to_the_fourth_order() -> None:
    journeys("first_steps")


@pytest.mark.mechanic("M56")
def test_the_pack_of_journeys_shows_what_is_offered_between_agreeing_and_shipping() -> None:
    journeys("before_shipping")


@pytest.mark.mechanic("M53", "M54", "M65")
def test_the_pack_of_journeys_shows_a_customer_who_goes_silent() -> None:
    journeys("silence")


@pytest.mark.mechanic("M66")
def test_the_pack_of_journeys_shows_the_last_letters_and_what_their_survey_brings() -> None:
    journeys("last_letters")


@pytest.mark.mechanic("M49")
def test_goods_are_kept_until_the_instant_that_the_letter_names_and_that_is_when_the_next_one_goes() -> None:
    done = check(
        """
        start 2026-01-30T10:00
        0d    ana  goods_reserved product_id=pen
        1d    ana  goods_reserved product_id=mug
        2d    ana  goods_reserved product_id=pen          # kept already
        9d    ana  expect emits laid_aside 4
        """,
        read_rule_files(PACKS / "journeys"),
    )
    told = [(one["template"], one["payload"]["item"], one["at"]) for one in done.sent("laid_aside")]
    ends = {one["payload"]["item"]: one["payload"].get("reserved_until") for one in done.sent("laid_aside")[:2]}
    assert ends == {"pen": "2026-02-02T10:00:00.000Z", "mug": "2026-02-03T10:00:00.000Z"}
    assert told[2:] == [("kept_no_longer", item, ends[item]) for item in ("pen", "mug")]


SIGNS: Final = {
    "email_opened": True,
    "email_link_clicked": True,  # the button "stay" is a link
    "page_viewed": True,
    "order_completed order_id=1 total=10": True,
    "email_opened machine=prefetch": False,
    "email_link_clicked machine=scanner": False,
    "email_delivered": False,
}


@pytest.mark.mechanic("M66")
@pytest.mark.parametrize(("letters", "day"), [(1, 91), (2, 98), (3, 105), (4, 111)])
@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_of_life_at_any_time_ends_the_last_letters_and_the_decisions_show_it(
    sign: str, letters: int, day: int
) -> None:
    done = check(
        f"""
        start 2026-01-05T10:00
        0d          ana  registered
        1d          ana  email_delivered
        89d         ana  email_delivered
        {day}d12h   ana  {sign}
        200d        ana  expect emits sunset {letters if SIGNS[sign] else 4}
        """,
        read_rule_files(PACKS / "journeys"),
    )
    ends = [one for one in done.decisions("sunset") if one["outcome"] == "suppressed"]
    if SIGNS[sign]:
        assert [(one["reason"], one["detail"]["by"]) for one in ends] == [("cancelled", sign.split()[0])]
        assert ends[0]["at"] == iso(done.start_ms + day * DAY_MS + DAY_MS // 2)
        assert not done.world.erased
    else:
        assert ends == []
        last = next(one for one in done.sent("sunset") if one["template"] == "last_day")
        silence = next(one for one in done.decisions("sunset") if "channels" in one["detail"])
        assert parse_instant(silence["at"]) - parse_instant(last["at"]) == DAY_MS
        assert [one["by"] for _, one in done.world.erased] == ["trigger:sunset"]


@pytest.mark.mechanic("M66")
@pytest.mark.parametrize(
    ("code", "templates"),
    [
        ("on_vacation", ["why_not_reading", "we_miss_you", "keep_me", "last_day"]),
        ("read_elsewhere", ["why_not_reading", "change_address"]),
        ("not_interested", ["why_not_reading", "preferences"]),
        ("i_read_them_all", ["why_not_reading"]),
    ],
)
def test_what_is_answered_to_the_first_of_the_last_letters_acts(code: str, templates: list[str]) -> None:
    done = check(
        f"""
        start 2026-01-05T10:00
        0d    ana  registered
        1d    ana  email_delivered
        89d   ana  email_delivered
        91d   ana  survey_answered question=why_not_reading code={code}
        92d   ana  expect emits sunset {min(len(templates), 2) if len(templates) < 4 else 1}
        120d  ana  expect emits sunset {len(templates) if len(templates) < 4 else 1}
        200d  ana  expect emits sunset {len(templates)}
        """,
        read_rule_files(PACKS / "journeys"),
    )
    sent = done.sent("sunset")
    assert [one["template"] for one in sent] == templates
    if code == "on_vacation":  # A month of peace, then the second letter.
        assert sent[1]["at"] == iso(done.start_ms + (91 + 30) * DAY_MS)
    assert bool(done.world.erased) == (code == "on_vacation")


@pytest.mark.mechanic("M64")
@pytest.mark.parametrize(
    ("answer", "queue", "payload"),
    [
        ("code=price text=dear", "managers", {"why": "price", "said": "dear"}),
        ("code=delivery", "managers", {"why": "delivery", "said": None}),
        ("code=active_buyer text=as_eva", "support", {"said": "as_eva"}),
        ("code=other text=whatever", None, None),
    ],
)
def test_a_cause_of_leaving_reaches_who_can_act_on_it(
    answer: str, queue: str | None, payload: dict[str, object] | None
) -> None:
    done = check(
        f"""
        start 2026-01-05T10:00
        0d                ana  order_completed order_id=1 total=60
        2026-07-05T10:00  ana  expect emits churn_survey/why 1, in churned
        2026-07-06T10:00  ana  survey_answered question=why {answer}
        2026-07-06T10:00  ana  expect tasks churn_survey {int(queue is not None)}
        """,
        read_rule_files(PACKS / "journeys"),
    )
    told = [one.value for one in done.world.published if one.record.topic == TASKS]
    assert [(one["queue"], one["payload"]) for one in told] == ([] if queue is None else [(queue, payload)])
    assert done.sent("churn_survey")[0]["payload"]["options"] == [
        "price", "range", "service", "delivery", "active_buyer", "other",
    ]  # fmt: skip


@pytest.mark.mechanic("M68", "M72")
def test_the_pack_of_journeys_shows_friends_and_birthdays() -> None:
    journeys("friends_and_dates")


@pytest.mark.mechanic("M16", "M25", "M52", "M60", "M64", "M71", "M73", "M89")
def test_the_pack_of_journeys_shows_loyal_customers_and_a_sale_on_a_date() -> None:
    journeys("loyal")


@pytest.mark.mechanic("M62", "M74")
def test_the_pack_of_journeys_shows_news_of_goods_and_what_to_read_of_them() -> None:
    journeys("goods")


def test_each_scenario_of_the_journeys_has_a_test() -> None:
    shown = set(re.findall(r'    journeys\("(\w+)"\)', Path(__file__).read_text("utf-8")))
    assert shown == {path.stem for path in PACKS.glob("journeys/scenarios/*.txt")}


def test_every_journey_of_the_pack_is_shown_at_work() -> None:
    text = "\n".join(path.read_text("utf-8") for path in sorted(PACKS.glob("journeys/scenarios/*.txt")))
    shown = set(re.findall(r"\b(?:emits|tasks|coupons) ([a-z_0-9]+)(?:/\w+)? [1-9]", text))
    assert set(compile_rules(read_rule_files(PACKS / "journeys")).triggers) - shown == set()


@pytest.mark.mechanic("M9")
def test_every_criterion_of_the_pack_is_shown_to_hold_and_not_to_hold() -> None:
    names = {one.name for one in compile_rules(read_rule_files(CRITERIA)).segments} - set(ONLY_NAMED)
    text = "\n".join(path.read_text("utf-8") for path in sorted(CRITERIA.glob("scenarios/*.txt")))
    expected = [line.partition("#")[0] for line in text.splitlines() if " expect " in line]
    for word in ("in", "out"):
        # A list formed by hand needs a hand.
        names -= {"chosen"} if word == "in" else set()
        shown = {name for line in expected for name in re.findall(rf"\b{word} ([a-z_0-9.]+)", line)}
        assert sorted(names - shown) == [], f"never expected {word}"


@pytest.mark.mechanic("M56")
@pytest.mark.parametrize(("shipped", "letters"), [("29m", 0), ("30m", 0), ("31m", 1)])
def test_an_order_is_added_to_between_agreeing_and_shipping_and_never_after(shipped: str, letters: int) -> None:
    check(
        f"""
        start 2026-01-05T10:00
        0m         ana  order_completed order_id=1 total=60 status=placed
        0m         ana  order_status_changed order_id=1 to=confirmed
        {shipped}  ana  order_status_changed order_id=1 to=shipped
        9d         ana  expect emits upsell_before_shipping {letters}
        """,
        read_rule_files(PACKS / "journeys"),
    )
