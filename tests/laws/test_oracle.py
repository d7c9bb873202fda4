"""R19: at every instant, what the engine keeps up to date equals what a full recomputation finds.

And what lies between two inputs of the engine is looked at too: a verdict may promise less than it could, never more.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from profiles.moments import iso
from rules import windows
from rules.compile import OPERATORS, compile_rules
from rules.scenarios import World
from rules.series import MEASURES, SOURCE_KEYS
from rules.traits import KINDS
from tests.laws.histories import ADDRESS, CALENDAR, PAST, TRAITS, atoms, documents, event_of, histories, law
from tests.laws.naive import DAY_MS, Naive, Told
from tests.laws.test_quantiles import of_the_base

ALARMS_MAX = 25
AFTER_MS = 500 * DAY_MS


def compare(document: dict[str, Any], told: list[Told]) -> None:
    """Run a history through the engine, and ask the naive reading at every instant that could matter."""
    note(json.dumps(document["segments"]))
    for one in told:
        note(f"{iso(one.seen_ms)} {one.message_id} {one.type} {one.props} {one.traits} at {iso(one.at_ms)}")
    book = compile_rules([("rules", json.dumps(document))])
    naive = Naive(document, told[:1], book.zone_name)
    world = World(book, told[0].seen_ms)
    last_ms = told[0].seen_ms - 1

    def look(now_ms: int) -> None:
        found, wanted = world.members(ADDRESS), naive.segments(now_ms)
        assert found == wanted, f"at {iso(now_ms)}: {wanted} wanted, got {found}"

    def between(until_ms: int) -> None:
        # Nothing was done between the last instant and this one: nothing may have changed in between.
        for now_ms in sorted({last_ms + 1, (last_ms + until_ms) // 2, until_ms - 1}):
            if last_ms < now_ms < until_ms:
                look(now_ms)

    def alarms(until_ms: int, most: int) -> None:
        nonlocal last_ms
        for _ in range(most):
            due_ms = world.profile(ADDRESS).alarm_ms()
            if due_ms is None or due_ms >= until_ms:
                break
            due_ms = max(due_ms, world.now_ms)  # a visit that was told late has ended already
            between(due_ms)
            world.until(due_ms, with_it=True)
            look(due_ms)
            last_ms = due_ms

    for place, one in enumerate(told):
        alarms(one.seen_ms, 1000)
        if place:
            between(one.seen_ms)
        world.until(one.seen_ms, with_it=False)
        world.happen(event_of(one))
        naive.told = told[: place + 1]
        naive.segments(one.seen_ms)  # Who left and came back within this instant is in anew.
        last_ms = one.seen_ms
        if place + 1 == len(told) or told[place + 1].seen_ms > one.seen_ms:
            world.until(one.seen_ms, with_it=True)
            look(one.seen_ms)
    alarms(last_ms + AFTER_MS, ALARMS_MAX)
    if world.profile(ADDRESS).alarm_ms() is None:
        between(last_ms + AFTER_MS)


@pytest.mark.invariant("R19")
@pytest.mark.mechanic("D1")
@pytest.mark.mechanic("M1")
@pytest.mark.mechanic("M4")
@law(250)
@given(document=documents(formed=True), told=histories())
def test_memberships_equal_a_full_recomputation_at_every_instant_though_told_late_and_twice(
    document: dict[str, Any], told: list[Told]
) -> None:
    compare(document, told)


@pytest.mark.invariant("R19")
@pytest.mark.mechanic("M1")
@law(150)
@given(document=documents(carts=True, formed=True), told=histories(carts=True, late=False))
def test_memberships_equal_a_full_recomputation_also_on_carts_and_visits(
    document: dict[str, Any], told: list[Told]
) -> None:
    compare(document, told)


def words_of(rule: Any, traits: dict[str, Any]) -> set[str]:
    """What a rule says: its keys, and the kinds of the declared traits that it names."""
    if isinstance(rule, list):
        return set().union(*(words_of(one, traits) for one in rule))
    if not isinstance(rule, dict):
        return set()
    said = set(rule)
    path = rule.get("trait")
    if isinstance(path, str):
        declared = traits.get(path) or traits.get(path.partition(".")[0], {})
        said |= {f"{kind} trait" for kind in declared} | words_of({**declared, "trait": None}, {})
    if isinstance(rule.get("window"), str):
        said |= {"within"}
    return said.union(*(words_of(one, traits) for one in rule.values()))


def test_whatever_rules_can_say_is_said_by_the_random_ones() -> None:
    """A new operator, comparison, measure, window or kind of trait that is drawn nowhere fails here."""
    said: set[str] = set()

    @law(150)
    @given(document=st.one_of(documents(carts=True, formed=True), of_the_base()))
    def files(document: dict[str, Any]) -> None:
        said.update(words_of(list(document["segments"].values()), document["traits"]))

    @law(300)
    @given(st.lists(atoms(carts=True), min_size=30, max_size=30))
    def leaves(drawn: list[dict[str, Any]]) -> None:
        said.update(words_of(drawn, TRAITS))

    files()
    leaves()
    language = {
        "operators": OPERATORS,
        "comparisons": OPERATORS["trait"].keys,
        "measures": MEASURES,
        "of what": SOURCE_KEYS,
        "windows": windows.KEYS,
        "kinds of traits": [f"{kind} trait" for kind in KINDS],
        "segments": ("kind", "stages", "form_at", "formed_from", "stays_while", "template", "for"),
    }
    assert set(windows.CALENDAR) == {*CALENDAR, *PAST}
    missing = {part: sorted(set(words) - said) for part, words in language.items()}
    assert {part: words for part, words in missing.items() if words} == {"operators": ["live"]}  # of triggers only
