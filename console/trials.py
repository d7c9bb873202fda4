"""Whether a difference between two groups is one: intervals for shares, and a verdict that may be asked for every day.

An interval of 95 % holds for one look. Who looks every morning and stops at the first good one is wrong far more often than
one time in twenty. So a winner is named only by a *confidence sequence*, which holds at all looks together, and not before
each group has had ``PEOPLE_MIN`` people and all of them together ``SUCCESSES_MIN`` successes.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Final, NamedTuple

Z_95: Final = 1.959963984540054
ALPHA: Final = 0.05
PEOPLE_MIN: Final = 200
SUCCESSES_MIN: Final = 25


class Share(NamedTuple):
    """So many of so many."""

    hits: int
    of: int

    def rate(self) -> float | None:
        """The share; ``None`` of nobody."""
        return self.hits / self.of if self.of else None


def interval(share: Share, z: float = Z_95) -> tuple[float, float] | None:
    """The score interval of a share (Wilson 1927); ``None`` of nobody."""
    n = share.of
    if not n:
        return None
    p = share.hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(a: Share, b: Share, z: float = Z_95) -> tuple[float, float] | None:
    """The interval of ``rate(a) - rate(b)`` for one look (Newcombe 1998, method 10); ``None`` where either has nobody."""
    of_a, of_b = interval(a, z), interval(b, z)
    if of_a is None or of_b is None:
        return None
    p, q = a.hits / a.of, b.hits / b.of
    low = p - q - sqrt((p - of_a[0]) ** 2 + (of_b[1] - q) ** 2)
    high = p - q + sqrt((of_a[1] - p) ** 2 + (q - of_b[0]) ** 2)
    return low, high


def at_every_look(a: Share, b: Share, alpha: float = ALPHA) -> tuple[float, float] | None:
    """The interval of ``rate(a) - rate(b)`` that holds at all looks together with probability ``1 - alpha``; ``None`` where
    either has nobody.

    An asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2021, theorem 2.2) of the difference
    of means, tightest at ``2 * PEOPLE_MIN`` people, with a success and a failure added to each group's variance.
    """
    if not a.of or not b.of:
        return None
    n = a.of + b.of
    spread = n * (_variance(a) + _variance(b))  # of one person's contribution
    best = 2 * PEOPLE_MIN * spread
    rho2 = (-2 * log(alpha) + log(1 - 2 * log(alpha))) / best
    gathered = n * spread * rho2 + 1
    half = sqrt(2 * gathered / (n * n * rho2) * log(sqrt(gathered) / alpha))
    middle = a.hits / a.of - b.hits / b.of
    return middle - half, middle + half


def verdict(a: Share, b: Share) -> str:
    """``too_early``, ``no_difference`` so far, ``better`` or ``worse``: ``a`` against ``b``, at however many looks."""
    if min(a.of, b.of) < PEOPLE_MIN or a.hits + b.hits < SUCCESSES_MIN:
        return "too_early"
    found = at_every_look(a, b)
    assert found is not None
    return "better" if found[0] > 0 else "worse" if found[1] < 0 else "no_difference"


def _variance(share: Share) -> float:
    p = (share.hits + 1) / (share.of + 2)
    return p * (1 - p) / share.of
