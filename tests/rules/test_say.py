"""Rules in plain words, in both languages: the grammar is theirs, and nothing of a rule is left out."""

from __future__ import annotations

from typing import Any

import pytest

from rules.compile import compile_rules
from rules.say import in_words, say_all, tongue
from tests.scenarios.pack import SHOP

BOOK = compile_rules(SHOP)


@pytest.mark.mechanic("D9")
@pytest.mark.parametrize(
    ("rule", "english", "russian"),
    [
        ({"trait": "last_order_at", "older_than": "P1M"}, "last order was at least 1 month ago", "последний заказ: не менее 1 месяца назад"),
        ({"trait": "last_order_at", "newer_than": "P21D"}, "last order was less than 21 days ago", "последний заказ: менее 21 дня назад"),
        ({"did": "order", "window": {"within": "P22D"}}, "“order”, within 22 days", "«заказ», за 22 дня"),
        ({"did": "order", "window": {"within": "P11D"}}, "“order”, within 11 days", "«заказ», за 11 дней"),
        ({"did": "order", "window": {"within": "1w"}}, "“order”, within 1 week", "«заказ», за 1 неделю"),
        (
            {"did": "order", "item": [{"category": "tea"}], "sum": {"field": "total", "gte": 100, "lt": 200}},
            "“order”, with items: category tea, sum of total: at least 100 and less than 200",
            "«заказ», с товарами: category tea, сумма total: не меньше 100 и меньше 200",
        ),
        (
            {"any": [{"all": [{"did": "order"}, {"trait": "gender", "missing": True}]}, {"not": {"in_segment": "vip"}}]},
            "(“order” and gender is not known) or not in the segment vip",
            "(«заказ» и пол: неизвестно) или не в сегменте vip",
        ),
        ({"did": "quiz_finished"}, "“quiz finished”", "«quiz_finished»"),
    ],
)  # fmt: skip
def test_a_rule_in_words(rule: dict[str, Any], english: str, russian: str) -> None:
    assert (tongue("en").rule(rule), tongue("ru").rule(rule)) == (english, russian)


@pytest.mark.mechanic("D9")
def test_every_rule_of_the_pack_is_said_in_both_languages() -> None:
    for language in ("en", "ru"):
        said = say_all(BOOK, language)
        assert list(said) == [*sorted(one.name for one in BOOK.segments), *sorted(BOOK.triggers)]
        assert all(words.endswith(".") and "{" not in words for words in said.values())
    assert in_words(BOOK.triggers["vip_burns"]) == {
        "en": "When last order was 3 months ago, if in the segment vip: send vip_burns, wait 3 days, send vip_gone. "
        "Cancelled by “order completed”.",
        "ru": "Когда последний заказ: прошло 3 месяца, если в сегменте vip: отправить vip_burns, ждать 3 дня, отправить vip_gone. "
        "Отменяет «заказ».",
    }  # fmt: skip


def test_a_segment_that_remembers_says_how_long_it_stays() -> None:
    book = compile_rules(
        [("a", "segments: {vip: {when: {trait: orders_paid, gte: 5}, stays_while: {trait: orders_paid, gte: 3}}}")]
    )
    assert in_words(book.segments[0])["en"] == "Orders paid is at least 5; stays while orders paid is at least 3."


@pytest.mark.mechanic("D9")
def test_arms_and_a_consent_that_is_given_anew_are_said() -> None:
    book = compile_rules(
        [
            (
                "a",
                "triggers: {it: {on: {event: registered}, consent: {channel: email}, re_entry: {per: grant}, steps: ["
                "{split: {experiment: e, arms: {a: 50, b: 50}}}, {branch: [{if: {arm: [a]}, then: [{wait: P1D}]}]}, {emit: x}]}}",
            )
        ]
    )
    said = in_words(book.triggers["it"])
    assert "(if the arm is a: wait 1 day), send x" in said["en"]
    assert "(если вариант: a: ждать 1 день), отправить x" in said["ru"]
    assert "Once for each consent that is given." in said["en"]
    assert "Один раз на каждое данное согласие." in said["ru"]
