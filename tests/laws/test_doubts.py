"""What is said of rules before they run is so whatever happens: sets are sets, and whom nobody fits, nobody fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from profiles.errors import Mistake
from rules.compile import compile_rules
from rules.documents import parse
from rules.doubts import Looking, asked
from rules.predicates import conditions
from rules.ranges import (
    COUNTS,
    EVERYBODY,
    NOBODY,
    Boxes,
    Subject,
    TooMany,
    Values,
    both,
    covers,
    none_of,
    numbers,
    where,
)
from rules.scenarios import World
from tests.laws.histories import ADDRESS, GOALS, TRAITS, event_of, histories, law, rules
from tests.laws.naive import Told

POINTS: list[Any] = [None, "f", "m", True, *(Fraction(n, 2) for n in range(-3, 15))]
OPS = ("eq", "ne", "lt", "lte", "gt", "gte", "between", "in", "not_in")


def holds(values: Values, point: Any) -> bool:
    if point is None:
        return values.absent
    if isinstance(point, Fraction):
        return any(low <= (point, 0) and (point, 1) <= high for low, high in values.spans)
    return (point in values.others) != values.all_but


@st.composite
def sets(draw: st.DrawFn) -> Values:
    op = draw(st.sampled_from(OPS))
    operands = sorted(draw(st.lists(st.integers(0, 6).map(Fraction), min_size=2, max_size=2)))
    others = draw(st.frozensets(st.sampled_from(["f", "m", True])))
    return Values(numbers(op, operands).spans, others, draw(st.booleans()), draw(st.booleans()))


@law(200)
@given(one=sets(), two=sets())
def test_what_is_in_both_and_what_is_not_are_as_point_by_point(one: Values, two: Values) -> None:
    for point in POINTS:
        assert holds(one.also(two), point) == (holds(one, point) and holds(two, point))
        assert holds(one.without(), point) != holds(one, point)
    if one.is_empty():
        assert not any(holds(one, point) for point in POINTS)


def fitted(boxes: Boxes, at: dict[Subject, Any]) -> bool:
    return any(all(holds(values, at[subject]) for subject, values in box.items()) for box in boxes)


@law(100)
@given(given_=st.lists(st.tuples(st.sampled_from("ab"), sets()), min_size=2, max_size=4))
def test_rules_as_boxes_are_as_point_by_point(given_: list[tuple[str, Values]]) -> None:
    one = [box for name, values in given_[:2] for box in where(Subject(name), values)]
    two = EVERYBODY
    for name, values in given_[2:]:
        two = both(two, where(Subject(name), values))
    points = [{Subject("a"): a, Subject("b"): b} for a in POINTS[::2] for b in POINTS[::3]]
    for at in points:
        assert fitted(both(one, two), at) == (fitted(one, at) and fitted(two, at))
        assert fitted(none_of(one), at) != fitted(one, at)
    if covers(one, two):
        assert all(fitted(one, at) for at in points if fitted(two, at))


def test_of_counts_nothing_lies_between_two_whole_numbers() -> None:
    count = Subject("times", COUNTS, True)
    assert both(where(count, numbers("gt", [Fraction(3)])), where(count, numbers("lt", [Fraction(4)]))) == NOBODY
    assert where(count, numbers("gte", [Fraction(0)])) == EVERYBODY
    assert where(Subject("sum"), numbers("gt", [Fraction(3)])) != NOBODY


def claims(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(segment, that nobody or everybody fits it, or within which other segment it is)."""
    text = json.dumps(document)
    mistakes: list[Mistake] = []
    node = parse(text, "rules", mistakes)
    assert node is not None
    looking = Looking([node], compile_rules([("rules", text)]).readers, {})
    fits = {name: looking.fits(one) for name, one in looking.nodes.items()}
    pairs = [(name, "nobody", NOBODY, boxes) for name, boxes in fits.items()]
    pairs += [(name, "everybody", boxes, EVERYBODY) for name, boxes in fits.items()]
    pairs += [(small, large, fits[large], fits[small]) for small, large in permutations(fits, 2)]
    for name, what, larger, smaller in pairs:
        try:
            if covers(larger, smaller):
                yield name, what
        except TooMany:
            pass


@pytest.mark.mechanic("D9")
@law(150)
@given(one=rules(), two=rules(), told=histories())
def test_what_is_claimed_of_rules_holds_in_every_life(one: Any, two: Any, told: list[Told]) -> None:
    document = {
        "goals": GOALS,
        "traits": TRAITS,
        "segments": {
            "one": one,
            "two": two,
            "both": {"all": [one, two]},
            "either": {"any": [two, one]},
            "neither": {"not": {"any": [one, two]}},
            "never": {"all": [one, {"not": one}]},
            "always": {"any": [two, {"not": two}]},
            "one_for": {"in_segment": "one", "for": "P1D"},
            "one_lately": {"all": [{"in_segment": "one"}, {"not": {"in_segment": "one", "for": "P1D"}}]},
            "some": {"some": [one, two, {"in_segment": "one_for"}], "at_least": 2},
        },
    }
    said = list(claims(document))
    event(f"{len(said) // 4 * 4}+ claims")
    world = World(compile_rules([("rules", json.dumps(document))]), told[0].seen_ms)
    for happened in told:
        world.until(happened.seen_ms, with_it=False)
        world.happen(event_of(happened))
        members = set(world.members(ADDRESS))
        for name, what in said:
            if what == "everybody":
                assert name in members, document["segments"]
            else:
                assert name not in members or what in members, (name, what, document["segments"])


def conditions_of_one_thing() -> st.SearchStrategy[list[dict[str, Any]]]:
    value = st.sampled_from(["a", "a/b", "ab", 1, 2, True])
    plain = st.one_of(value, st.lists(value, min_size=1, max_size=2))
    ops = st.fixed_dictionaries(
        {},
        optional={
            "eq": value, "ne": value, "in": st.lists(value, max_size=2), "not_in": st.lists(value, max_size=2), "gte": st.integers(0, 3),
            "lt": st.integers(0, 3), "starts_with": st.just("a"), "under": st.sampled_from(["a", "ab"]), "exists": st.booleans(),
        },
    ).filter(bool)  # fmt: skip
    path = st.sampled_from(["a", "a/b", "ab"])
    paths = st.one_of(path, st.lists(path, min_size=1, max_size=2), ops)
    one = st.one_of(
        st.builds(lambda x: {"custom.x": x}, st.one_of(plain, ops)), st.builds(lambda one: {"category": one}, paths)
    )
    return st.lists(one, min_size=1, max_size=3)


@pytest.mark.mechanic("D9")
@law(300)
@given(
    wanted=conditions_of_one_thing(),
    x=st.sampled_from([None, "a", "a/b", 1, 2, True, ["a"]]),
    category=st.sampled_from([None, "a", "a/b", "ab", "b"]),
)
def test_what_nothing_is_said_to_be_nothing_is(wanted: list[dict[str, Any]], x: Any, category: Any) -> None:
    mistakes: list[Mistake] = []
    node = parse(json.dumps(wanted), "rules", mistakes)
    meets, _ = conditions(node)
    assert node is not None
    assert meets is not None
    assert not mistakes
    possible = asked(node)
    event("nothing" if not possible else "something")
    assert possible or not meets({"x": x, "category": category})


def test_it_does_claim() -> None:
    document = {"segments": {
        "few": {"did": "order", "times": {"lt": 3}}, "one": {"did": "order", "times": {"eq": 1}},
        "none": {"all": [{"did": "order", "times": {"gt": 3}}, {"did": "order", "times": {"lt": 2}}]},
        "all": {"any": [{"trait": "gender", "missing": True}, {"trait": "gender", "exists": True}]},
        "long": {"in_segment": "one", "for": "P1D"},
        "two_of": {"some": [{"in_segment": "long"}, {"did": "order", "times": {"gte": 5}}, {"did": "page_viewed"}], "at_least": 2},
        "two_long": {"all": [{"in_segment": "two_of"}, {"did_not": "page_viewed"}]},
    }}  # fmt: skip
    assert {("one", "few"), ("none", "nobody"), ("all", "everybody"), ("long", "one"), ("two_long", "nobody")} <= set(
        claims(document)
    )
