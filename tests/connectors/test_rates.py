"""Who may ask how often: buckets over a clock that the test steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.collector.rates import ADDRESSES_MAX, Rates


@given(per_s=st.integers(1, 50), steps=st.lists(st.floats(0, 3, allow_nan=False, allow_infinity=False), max_size=200))
def test_in_any_stretch_no_more_pass_than_a_second_and_the_stretch_allow(per_s: int, steps: list[float]) -> None:
    rates, now_s, passed = Rates(per_s, 0, 0), 0.0, []
    for step in steps:
        now_s += step
        if rates.of_all("", now_s) == 0.0:
            passed.append(now_s)
    for first, since_s in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= per_s + (passed[last] - since_s) * per_s + 1e-6


@given(per_s=st.integers(1, 50), tries=st.integers(1, 120))
def test_who_waits_as_long_as_he_is_told_may(per_s: int, tries: int) -> None:
    rates, now_s = Rates(per_s, 0, 0), 0.0
    for _ in range(tries):
        wait_s = rates.of_all("", now_s)
        if wait_s:
            now_s += wait_s + 1e-9
            assert rates.of_all("", now_s) == 0.0


@pytest.mark.invariant("R26")
def test_addresses_are_bounded_and_one_that_is_refused_costs_the_others_nothing() -> None:
    rates = Rates(3, 0, 1)
    assert rates.of_all("a", 0.0) == 0.0
    assert [rates.of_all("a", 0.0) for _ in range(50)] == [1.0] * 50
    assert [rates.of_all(one, 0.0) for one in "bc"] == [0.0, 0.0]
    assert rates.of_all("d", 0.0) > 0.0  # Three of all together are gone.
    many = Rates(0, 0, 1)
    for number in range(ADDRESSES_MAX + 1):
        assert many.of_all(str(number), 0.0) == 0.0
    assert many.of_all(str(ADDRESSES_MAX), 0.0) > 0.0
    assert many.of_all("0", 0.0) == 0.0  # Forgotten: it begins anew.


def test_keys_have_a_bucket_each_and_no_bound_is_no_bound() -> None:
    rates = Rates(0, 2, 0)
    assert [rates.of_key("web", 0.0) > 0 for _ in range(3)] == [False, False, True]
    assert rates.of_key("shop", 0.0) == 0.0
    assert [Rates(0, 0, 0).of_all("", 0.0), Rates(0, 0, 0).of_key("web", 0.0)] == [0.0, 0.0]
