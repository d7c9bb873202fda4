"""What is bought together: a fact for each pair of products that stood in one order, of how many customers.

A pair is one key of a keyed fact, so the scan, its bounds and the way through the log are those of any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import combinations
from typing import Final

from profiles import orders
from profiles.state import Profile
from rules.facts import Fact, Facts

ORDERS_MAX: Final = 20
"""Of a customer these count, the newest."""
LINES_MAX: Final = 12
"""Of an order these, the dearest: pairs grow with the square."""

_NAME: Final = "bought_together"
_AND: Final = "\x1f"


def _sample(profile: Profile, now_ms: int) -> Iterable[tuple[str, int | Fraction]]:
    """Each pair once."""
    pairs: dict[str, None] = {}
    for counted in orders.fold(profile)[-ORDERS_MAX:]:
        dear = sorted(counted.lines, key=lambda line: (-line.amount_minor, line.product_id))[:LINES_MAX]
        for pair in combinations(sorted({line.product_id for line in dear}), 2):
            pairs[_AND.join(pair)] = None
    return ((pair, 1) for pair in pairs)


BOUGHT_TOGETHER: Final = Fact(_NAME, _sample, (), is_keyed=True)


def partners(facts: Facts | None, products: Iterable[str]) -> Iterator[str]:
    """What is bought with these, by the last facts: with the first of them first, what most have bought first."""
    if facts is None:
        return
    known = facts.derived.get(_NAME)
    if known is None:
        known = facts.derived[_NAME] = _by_product(facts)
    for product in products:
        yield from known.get(product, ())


def _by_product(facts: Facts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in sorted(facts.values.get(_NAME, {}), key=lambda pair: (-facts.samples(_NAME, pair), pair)):
        one, _, other = pair.partition(_AND)
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return found
