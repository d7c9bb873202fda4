"""How long what was bought lasts: by a customer's own purchases, by everybody's, by what the shop says.

Times between purchases differ by factors more than by days, so they are looked at in logarithms. An estimate is the geometric
mean of the times seen, drawn towards what is usual as if that had been seen ``weight`` times more (H. Bühlmann, "Experience rating
and credibility", 1967). Times that hardly differ are believed sooner: the weight shrinks with their variance.

The weights are measured on real purchases: ``docs/replenishment.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum, log
from typing import Final, NamedTuple

USUAL_DAYS: Final = 30.0
"""Between two purchases of the same thing, where nothing better is known."""
OWN_WEIGHT: Final = 2.0
"""So many times of a customer's own weigh as much as what is usual."""
BASE_WEIGHT: Final = 100.0
"""So many times of everybody's."""
REGULAR: Final = 0.25
"""The variance of logarithms below which times are believed sooner."""
REGULAR_MIN: Final = 3
"""Fewer times may be alike by chance."""

_QUARTILES: Final = 1.349
"""Standard deviations between the quartiles of a normal distribution."""


class Estimate(NamedTuple):
    """How many days, and which share of it (0 to 1) stands on times that were seen."""

    days: float
    trust: float


def own(days: Sequence[float], usual: float) -> Estimate:
    """By a customer's own times.

    Args:
        days: one or more, each > 0.
        usual: what they are drawn towards, days > 0.
    """
    logs = [log(one) for one in days]
    count = len(logs)
    mean = fsum(logs) / count
    weight = OWN_WEIGHT
    if count >= REGULAR_MIN:
        weight *= _doubt(fsum((one - mean) ** 2 for one in logs) / (count - 1))
    return _drawn(mean, count, weight, usual)


def everybodys(quartiles: Sequence[float], count: int, usual: float) -> Estimate:
    """By the three quartiles of so many times of everybody's, days > 0."""
    low, median, high = (log(one) for one in quartiles)
    return _drawn(median, count, BASE_WEIGHT * _doubt(((high - low) / _QUARTILES) ** 2), usual)


def left(purchases: Sequence[tuple[float, int]], days: float) -> float:
    """How many pieces were there still when the last were bought, if each lasts so many days.

    Args:
        purchases: (day, pieces), ascending.
    """
    stock, before = 0.0, purchases[0][0]
    for day, pieces in purchases[:-1]:
        stock = max(0.0, stock - (day - before) / days) + pieces
        before = day
    return max(0.0, stock - (purchases[-1][0] - before) / days)


def _doubt(variance: float) -> float:
    return min(1.0, variance / REGULAR)


def _drawn(mean: float, count: int, weight: float, usual: float) -> Estimate:
    trust = count / (count + weight)
    return Estimate(exp(trust * mean + (1 - trust) * log(usual)), trust)
