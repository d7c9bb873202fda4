"""Intervals for shares are the published ones, and looking every day finds no winner where there is none."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded: the same records every time

import pytest

from console.trials import PEOPLE_MIN, Share, at_every_look, difference, interval, verdict


def test_the_intervals_are_those_of_newcombe_s_tables() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    for hits, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = interval(Share(hits, of))
        assert found == pytest.approx((low, high), abs=5e-5)
    # Newcombe 1998, "Interval estimation for the difference between independent proportions", table II, method 10.
    for a, b, low, high in (
        (Share(56, 70), Share(48, 80), 0.0524, 0.3339),
        (Share(9, 10), Share(3, 10), 0.1705, 0.8090),
        (Share(10, 10), Share(0, 10), 0.6075, 1.0),
    ):
        assert difference(a, b) == pytest.approx((low, high), abs=5e-5)


def test_of_nobody_there_is_no_interval() -> None:
    nobody, some = Share(0, 0), Share(1, 2)
    assert (nobody.rate(), interval(nobody), difference(nobody, some), at_every_look(some, nobody)) == (None,) * 4
    assert verdict(nobody, some) == "too_early"


@pytest.mark.mechanic("M87")
def test_no_winner_is_named_before_enough_people_however_clear_it_looks() -> None:
    assert verdict(Share(PEOPLE_MIN - 1, PEOPLE_MIN - 1), Share(0, 5_000)) == "too_early"
    assert verdict(Share(20, 5_000), Share(4, 5_000)) == "too_early"
    assert verdict(Share(700, 5_000), Share(400, 5_000)) == "better"
    assert verdict(Share(400, 5_000), Share(700, 5_000)) == "worse"
    assert verdict(Share(400, 5_000), Share(410, 5_000)) == "no_difference"


@pytest.mark.mechanic("M87")
def test_who_looks_every_day_is_seldom_told_of_a_winner_that_is_none() -> None:
    """Two equal arms, looked at after every hundred people: the usual interval misleads often, ours at most 1 time in 20."""
    chance = Random(87)  # a simulation with a seed
    trials, looks, usual, ours = 400, 60, 0, 0
    for _ in range(trials):
        arms = [[0, 0], [0, 0]]
        misled = told = False
        for _ in range(looks):
            for arm in arms:
                arm[0] += sum(chance.random() < 0.1 for _ in range(50))
                arm[1] += 50
            a, b = Share(*arms[0]), Share(*arms[1])
            found = difference(a, b)
            assert found is not None
            misled |= a.of >= PEOPLE_MIN and not found[0] <= 0 <= found[1]
            told |= verdict(a, b) in ("better", "worse")
        usual += misled
        ours += told
    assert usual / trials > 0.15
    assert ours / trials <= 0.05


def test_a_real_difference_is_found() -> None:
    chance = Random(88)
    a = Share(sum(chance.random() < 0.13 for _ in range(6_000)), 6_000)
    b = Share(sum(chance.random() < 0.10 for _ in range(6_000)), 6_000)
    assert verdict(a, b) == "better"
