"""How long things last: buyers of a known rhythm, real ones, and what the page says of them."""

from __future__ import annotations

from itertools import product
from statistics import median

import pytest

from rules.rhythm import USUAL_DAYS, everybodys, left, own
from tests import repeats


@pytest.mark.mechanic("D12")
@pytest.mark.parametrize("times", [3, 5, 8])
def test_of_buyers_with_a_known_interval_the_median_error_is_below_a_tenth(times: int) -> None:
    off = []
    for interval, early in product((7, 10, 14, 21, 45, 60, 90), product((0.8, 1.0, 1.2), repeat=min(times, 5))):
        gaps = [interval * early[one % len(early)] for one in range(times)]
        off.append(abs(own(gaps, USUAL_DAYS).days - interval) / interval)
    assert median(off) < 0.1


@pytest.mark.mechanic("D12")
def test_who_is_irregular_is_believed_later_and_who_buys_more_often_more() -> None:
    assert own([60.0, 60.0, 60.0], 30).trust == 1
    assert own([60.0], 30).trust < own([60.0, 60.0], 30).trust < own([20.0, 60.0, 180.0, 60.0], 30).trust < 0.75
    assert own([60.0], 30).days == pytest.approx(30 * 2 ** (1 / 3))


def test_everybodys_rhythm_is_believed_by_their_number_unless_they_are_all_alike() -> None:
    assert everybodys([10, 20, 40], 100, 30).trust == pytest.approx(0.5)
    assert everybodys([10, 20, 40], 10_000, 30).days == pytest.approx(20, rel=0.01)
    assert everybodys([20, 20, 20], 3, 30).days == pytest.approx(20)


def test_what_is_left_is_never_less_than_nothing() -> None:
    assert left([(0, 3), (20, 3)], 10) == 1
    assert left([(0, 3), (50, 3)], 10) == 0
    assert left([(0, 3), (50, 3), (60, 1)], 10) == 2
    assert left([(0, 3)], 10) == 0


@pytest.mark.mechanic("D12")
def test_real_customers_come_again_nearer_to_the_estimate_than_to_both_baselines() -> None:
    some = [one for one in repeats.online_retail() if one[1].endswith(("3.0", "7.0", "3", "7"))]
    again = [one for one in repeats.repeats(some) if one.gaps]
    assert len(again) > 1_000
    estimate, fixed, last = (repeats.errors(again, one) for one in (repeats.by_own, repeats.fixed, repeats.last))
    assert estimate[0] < fixed[0] < last[0]
    assert estimate[1] < min(fixed[1], last[1])


@pytest.mark.mechanic("D12")
def test_the_page_says_what_is_measured() -> None:
    asked = list(repeats.repeats(repeats.cdnow()))
    again = [one for one in asked if one.gaps]
    page = repeats.PAGE.read_text("utf-8").partition("## CDNOW")[2].partition("\n## ")[0]
    for some, answers in (
        (again, repeats.OWN),
        ([one for one in again if len(one.gaps) >= 3], repeats.OWN),
        ([one for one in asked if not one.gaps and one.quartiles], repeats.ALL),
    ):
        assert repeats.table(some, answers) in page
