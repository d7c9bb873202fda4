"""P(alive) is the published formula, and a rule over it has one alarm, at the very instant."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.moments import DAY_MS, FOREVER
from rules.compile import compile_rules
from rules.kinds.p_alive import _Model
from tests.rules.told import START_MS, Life, rules_of

WEEK_MS = 7 * DAY_MS
CDNOW = _Model(0.243, 4.414 * WEEK_MS, 0.793, 2.426)
RULES = "traits: {alive: {p_alive: order, model: {r: 0.243, alpha: 4.414, a: 0.793, b: 2.426, unit: P7D}}}\n"


def test_the_probabilities_are_those_of_the_formula() -> None:
    for x, t, age in ((1, 10.0, 40.0), (2, 30.43, 38.86), (5, 20.0, 38.86), (26, 30.86, 31.0), (29, 35.0, 36.71)):
        odds = 0.793 / (2.426 + x - 1) * ((4.414 + age) / (4.414 + t)) ** (0.243 + x)
        assert CDNOW.percent(x, int(t * WEEK_MS), int(age * WEEK_MS)) == math.floor(100 / (1 + odds))
    assert CDNOW.percent(0, 0, 300 * WEEK_MS) == 100


@given(st.integers(1, 200), st.integers(0, 400 * WEEK_MS), st.integers(1, 100))
def test_the_instant_of_falling_below_is_exact_to_the_millisecond(x: int, t_ms: int, percent: int) -> None:
    age_ms = CDNOW.below_ms(x, t_ms, percent)
    if age_ms >= FOREVER:
        return
    assert age_ms >= t_ms
    assert CDNOW.percent(x, t_ms, age_ms) < percent
    assert age_ms == t_ms or CDNOW.percent(x, t_ms, age_ms - 1) >= percent


def test_a_rule_over_it_has_one_alarm() -> None:
    life = Life(rules_of(RULES + "segments: {gone: {trait: alive, lt: 30}}"), "user:ana")
    for day in (0, 30, 60):
        life.event("order_completed", START_MS + day * DAY_MS, order_id=f"o{day}", total=1, currency="EUR")
    due_ms = START_MS + CDNOW.below_ms(2, 60 * DAY_MS, 30)
    life.wait_until(START_MS + 61 * DAY_MS)  # The visit is over.
    assert life.profile.alarm_ms() == due_ms
    life.wait_until(due_ms - 1)
    assert life.members() == []
    life.wait_until(due_ms)
    assert life.members() == ["gone"]
    assert life.profile.alarm_ms() is None
    # Somebody who comes back is alive again, and has another alarm.
    life.event("order_completed", due_ms + DAY_MS, order_id="back", total=1, currency="EUR")
    assert life.members() == []
    last_ms = due_ms + DAY_MS - START_MS
    life.wait_until(due_ms + 2 * DAY_MS)
    assert life.profile.alarm_ms() == START_MS + CDNOW.below_ms(3, last_ms, 30)


def test_what_no_model_can_be_is_refused() -> None:
    text = """\
traits:
  none: {p_alive: order}
  other: {p_alive: page_viewed, model: {r: 1, alpha: 1, a: 1, b: 1, unit: P7D}}
  little: {p_alive: order, model: {r: 0, alpha: 1, a: 1, b: 1, unit: P7D}}
  short: {p_alive: order, model: {r: 1, alpha: 1, a: 1, unit: P7D}}
"""
    with pytest.raises(Exception, match="p_alive") as told:
        compile_rules([("p.yaml", text)])
    said = str(told.value)
    for wanted in (
        "p.yaml:2: traits/none: `model` wanted",
        "p.yaml:3: traits/other/p_alive: p_alive: 'order' wanted",
        "p.yaml:4: traits/little/model/r: r: a number above 0 and up to 10000 wanted, got 0",
        "p.yaml:5: traits/short/model",
    ):
        assert wanted in said, said
