"""The level of data that a segment lives of, and that a list of customers is enough for the first (SPEC M42)."""

from __future__ import annotations

import pytest

from rules.compile import compile_rules
from rules.say import say_segment
from rules.scenarios import check

RULES = """
traits:
  revenue: {sum: order.total}
  custom.mark: {said: int}
segments:
  women: {trait: gender, eq: female}
  good: {all: [{trait: custom.mark, gte: 7}, {consent: {channel: email}}]}
  a_tenth: {bucket: {salt: s, percent: 10}}
  new: {trait: first_seen, newer_than: P7D}
  chosen: {kind: static}
  buyers: {did: order}
  rich_women: {all: [{in_segment: women}, {trait: revenue, gte: 10}]}
  lookers: {did: product_viewed}
  from_ads: {trait: last_touch.source, eq: ads}
  readers: {trait: email.opened, gte: 1}
  carts: {any: [{in_segment: women}, {trait: cart.items, gte: 1}]}
  frozen: {kind: static, formed_from: {in_segment: buyers}, form_at: "2026-11-24T09:00"}
"""
LEVELS = {
    "women": 1, "good": 1, "a_tenth": 1, "new": 1, "chosen": 1, "buyers": 2, "rich_women": 2, "frozen": 2, "lookers": 3,
    "from_ads": 3, "readers": 3, "carts": 3,
}  # fmt: skip


@pytest.mark.mechanic("M42")
def test_each_segment_tells_of_which_data_it_lives() -> None:
    book = compile_rules([("r", RULES)])
    assert {one.name: book.level(one) for one in book.segments} == LEVELS


@pytest.mark.mechanic("M42")
def test_a_list_of_customers_is_enough_for_segments_of_the_first_level() -> None:
    check(
        """
        0d  ana  identified gender=female custom.mark=9 backfill=true
        0d  ana  consent_changed channel=email topic=* state=granted backfill=true
        0d  ana  expect segments a_tenth, carts, good, new, women
        """,
        [("r", RULES.replace("percent: 10", "percent: 99"))],
    )


def test_static_segments_are_said_in_words() -> None:
    said = {one.name: one for one in compile_rules([("r", RULES)]).segments}
    assert say_segment(said["chosen"], "en") == "Who was put in by hand or list, for good."
    assert say_segment(said["frozen"], "en") == (
        "Formed at 2026-11-24T09:00 of those of whom it held then: in the segment buyers."
    )
    assert say_segment(said["frozen"], "ru").startswith(
        "Составлен 2026-11-24T09:00 из тех, о ком тогда верно: в сегменте"
    )
