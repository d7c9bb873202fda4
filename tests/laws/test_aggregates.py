"""Laws of every statistic: the order of adding is all one, a merge is both histories, and nothing is neutral."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import profiles.aggregates
from profiles.aggregates import Aggregate, latest, occurrences, totals
from profiles.moments import Period, parse_duration, zone_named
from profiles.spec import discover
from rules.compile import compile_rules
from rules.windows import Window, by_period
from tests.laws.histories import law
from tests.laws.naive import DAY_MS, milliseconds

BERLIN = zone_named("Europe/Berlin")


def month_later(at_ms: int) -> int:
    """When a time leaves a window of a month: not always in the order of the times."""
    return parse_duration("P1M").after(at_ms, BERLIN)


def of_calendar(own: bool) -> Window:
    """The window of last month, of the shop's calendar or of each customer's own."""
    place = lambda profile: lambda at_ms: (at_ms, at_ms)  # noqa: E731  # not asked here
    return Window("last month", place, zone=BERLIN, own=own, periods=(Period("month"), 1))


def of_a_sequence() -> Aggregate:
    """The statistic that sequences stand on."""
    book = compile_rules([("a", "segments: {a: {sequence: [{did: page_viewed}, {then: {did: product_viewed}}]}}")])
    (kept,) = book.aggregates
    return Aggregate("sequence", "", kept.add, kept.merge)


FOUND: Final = {spec.name: spec for spec in discover(profiles.aggregates, Aggregate)}
ALL: Final = {
    **FOUND,
    "occurrences by month": occurrences.kept_by(month_later, "occurrences by month"),
    "latest by month": latest.kept_by(month_later, "latest by month"),
    "totals by periods": by_period(totals.SPEC, of_calendar(own=False)),
    "distinct by periods": by_period(latest.SPEC, of_calendar(own=True)),
    "sequence": of_a_sequence(),
}

WORDS = st.sampled_from(["a", "b", "c", 1, "1", 1.5, True])
NUMBERS = st.integers(-5, 5)
PRODUCTS = st.builds(
    lambda product, name: {"product_id": product, **({"name": name} if name else {}), "price_e6": len(name)},
    st.sampled_from("abcd"),
    st.sampled_from(["", "x", "yy"]),
)
VALUES: Final[dict[str, tuple[st.SearchStrategy[Any], tuple[int, ...]]]] = {
    # name -> what it is given, the bounds it may have
    "buckets": (NUMBERS, (3_600_000,)),
    "counter": (st.none(), (0,)),
    "edge": (WORDS, (0, 1)),
    "latest": (WORDS, (1, 2, 3)),
    "latest by month": (WORDS, (1, 2, 3)),
    "newest": (WORDS, (1, 2, 5)),
    "occurrences": (st.none(), (1, 2, 5)),
    "occurrences by month": (st.none(), (1, 2, 5)),
    "recent": (PRODUCTS, (1, 2, 4)),
    "sequence": (st.tuples(st.integers(0, 1), st.sampled_from(["a", 1, True, None])).map(list), (1, 3, 9)),
    "totals": (NUMBERS, (0,)),
    "totals by periods": (NUMBERS, (0,)),
    "distinct by periods": (WORDS, (1, 2, 3)),
    "weighed": (st.tuples(st.sampled_from("abc"), st.integers(1, 3)).map(list), (1, 2, 5)),
}
END_OF_JANUARY = milliseconds("2026-01-28T22:00")
TIMES = st.one_of(
    st.integers(0, 6).map(lambda n: END_OF_JANUARY + n * 3_600_000),
    st.integers(0, 5).map(lambda n: END_OF_JANUARY + n * DAY_MS),
    st.integers(0, 3).map(lambda n: END_OF_JANUARY + n),
)


@st.composite
def fed(draw: st.DrawFn) -> tuple[Aggregate, int, list[tuple[int, Any]]]:
    """A statistic, its bound, and what it is given."""
    name = draw(st.sampled_from(sorted(ALL)))
    values, bounds = VALUES[name]
    return ALL[name], draw(st.sampled_from(bounds)), draw(st.lists(st.tuples(TIMES, values), max_size=9))


def state_of(kind: Aggregate, bound: int, history: list[tuple[int, Any]]) -> Any:
    """The state that a history leaves, ``None`` for none."""
    state: Any = None
    for at_ms, value in history:
        state = kind.add(state, at_ms, value, bound)
    return state


def merged(kind: Aggregate, bound: int, a: Any, b: Any) -> Any:
    """Both states as one; what is not there is neutral."""
    if a is None or b is None:
        return deepcopy(b if a is None else a)
    return kind.merge(deepcopy(a), deepcopy(b), bound)


def test_every_statistic_is_under_these_laws() -> None:
    assert set(FOUND) <= set(VALUES)


@pytest.mark.invariant("R20")
@law(200)
@given(given_=fed(), data=st.data())
def test_the_order_of_adding_is_all_one(
    given_: tuple[Aggregate, int, list[tuple[int, Any]]], data: st.DataObject
) -> None:
    kind, bound, history = given_
    shuffled = data.draw(st.permutations(history))
    assert state_of(kind, bound, list(shuffled)) == state_of(kind, bound, history)


@pytest.mark.invariant("R20")
@pytest.mark.invariant("R22")
@law(200)
@given(given_=fed(), data=st.data())
def test_a_merge_is_the_united_history_from_either_side_and_in_any_grouping(
    given_: tuple[Aggregate, int, list[tuple[int, Any]]], data: st.DataObject
) -> None:
    kind, bound, history = given_
    whose = data.draw(st.lists(st.integers(0, 2), min_size=len(history), max_size=len(history)))
    parts = [[one for one, who in zip(history, whose, strict=True) if who == n] for n in range(3)]
    a, b, c = (state_of(kind, bound, part) for part in parts)
    whole = state_of(kind, bound, history)
    left = merged(kind, bound, merged(kind, bound, a, b), c)
    right = merged(kind, bound, a, merged(kind, bound, c, b))
    assert left == right == whole


@law(100)
@given(given_=fed())
def test_a_state_is_plain_and_bounded(given_: tuple[Aggregate, int, list[tuple[int, Any]]]) -> None:
    kind, bound, history = given_
    state = state_of(kind, bound, history)
    assert msgpack.unpackb(msgpack.packb(state), strict_map_key=False) == state
    if " customers " in kind.name and state is not None:
        assert max(map(len, state.values())) <= bound
    elif (
        kind.name.partition(" ")[0] in ("latest", "newest", "occurrences", "recent", "sequence", "weighed")
        and state is not None
    ):
        assert len(state) <= bound


@pytest.mark.invariant("R26")
def test_stretches_are_no_more_than_are_kept() -> None:
    hours = [n * 3_600_000 for n in range(300)]
    there = state_of(ALL["buckets"], 3_600_000, [(at_ms, 1) for at_ms in hours])
    back = state_of(ALL["buckets"], 3_600_000, [(at_ms, 1) for at_ms in reversed(hours)])
    assert there == back
    assert sorted(there) == hours[-profiles.aggregates.KEPT_MAX :]


@pytest.mark.invariant("R26")
def test_of_customers_own_calendars_so_much_is_kept_as_any_zone_may_ask_for() -> None:
    kind = by_period(totals.SPEC, of_calendar(own=True))
    quarters = [END_OF_JANUARY + n * 900_000 for n in range(70 * 96)]
    state = state_of(kind, 0, [(at_ms, 1) for at_ms in quarters])
    assert len(state) <= 400
    # Whatever the zone, the two whole months that could be asked for are there to the last quarter of an hour.
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu"):
        where = zone_named(zone)
        start_ms, end_ms = Period("month").start(quarters[-1], where), quarters[-1] + 1
        for _ in range(2):
            wanted = sum(start_ms <= at_ms < end_ms for at_ms in quarters)
            assert sum(one[0] for cell_ms, one in state.items() if start_ms <= cell_ms < end_ms) == wanted
            start_ms, end_ms = Period("month").start(start_ms - 1, where), start_ms
