"""New rules on people who are there: who is in, since when, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from profiles.ids import small_id
from profiles.moments import DAY_MS
from profiles.wire import SEGMENT_CHANGES, TRIGGERS_PREFIX
from rules.engine import ruled, step
from rules.outcome import HELD
from rules.rulebook import Rulebook
from rules.scenarios import World
from tests.rules.told import START_MS, Life, rules_of

ANA = "user:ana"
BEFORE = "segments: {buyers: {did: order}}"


def met(text: str, days: int, before: str = BEFORE) -> World:
    """Ana bought on day 0, and meets these rules so many days later."""
    life = Life(rules_of(before))
    life.event("order_completed", START_MS, order_id="1", total=10, currency="EUR")
    life.wait_until(START_MS + days * DAY_MS)
    world = World(rules_of(text), START_MS + days * DAY_MS)
    world.profiles[ANA] = life.profile
    return meets(world, world.rulebook)


def meets(world: World, rulebook: Rulebook) -> World:
    world.rulebook = rulebook
    world.tell(ruled(ANA, rulebook, world.now_ms))
    return world


def day_of(world: World, segment: str) -> int | None:
    """The day since which she is in it."""
    since_ms = world.profile(ANA).members.get(small_id(segment))
    return None if since_ms is None else (since_ms - START_MS) // DAY_MS


def told(world: World) -> list[dict[str, Any]]:
    return [one.value for one in world.published if one.record.topic == SEGMENT_CHANGES]


SILENT = """
segments:
  buyers: {did: order}
  silent: {trait: last_order_at, older_than: P30D}
  long: {in_segment: silent, for: P60D}
"""


@pytest.mark.mechanic("M4")
def test_who_is_found_in_a_new_segment_is_in_it_since_it_began_to_hold() -> None:
    world = met(SILENT, days=50)
    assert (day_of(world, "silent"), day_of(world, "long")) == (30, None)
    world.until(START_MS + 90 * DAY_MS, with_it=True)
    assert day_of(world, "long") == 90


def test_a_new_rule_on_how_long_somebody_is_in_another_holds_of_whom_it_would_hold() -> None:
    world = met(SILENT, days=100)
    assert (day_of(world, "silent"), day_of(world, "long")) == (30, 90)
    assert [(one["segment"], one["change"], one["at"][:10]) for one in told(world)] == [
        ("silent", "entered", "2026-04-15"),
        ("long", "entered", "2026-04-15"),
    ], "what is new is told as it is met, once"


def test_what_held_at_the_last_input_has_held_since_then() -> None:
    assert day_of(met("segments: {buyers: {did: order}, met: {did: order}}", days=50), "met") == 0


def test_a_segment_that_somebody_stays_in_keeps_its_day() -> None:
    world = met("segments: {buyers: {trait: last_order_at, older_than: P30D}}", days=50)
    assert (day_of(world, "buyers"), told(world)) == (0, [])


def test_what_came_and_went_between_is_not_told() -> None:
    world = met("segments: {buyers: {did: order}, month: {did: order, window: {within: P30D}}}", days=50)
    assert (day_of(world, "month"), told(world)) == (None, [])


@pytest.mark.mechanic("M2")
def test_a_static_segment_is_not_formed_of_people_who_meet_it_after_its_instant() -> None:
    text = (
        "segments: {buyers: {did: order}, list: {kind: static, formed_from: {did: order}, form_at: 2026-01-20T00:00}}"
    )
    assert day_of(met(text, days=50), "list") is None
    assert day_of(met(text, days=1), "list") is None


def test_a_dwell_that_is_over_is_no_news() -> None:
    text = (
        SILENT
        + """
triggers:
  gone: {on: {segment: silent, dwelt: P10D}, steps: [{emit: come_back}]}
"""
    )
    late, early = met(text, days=50), met(text, days=35)
    assert late.decided == [(ANA, "gone", "backfill")]
    early.until(START_MS + 41 * DAY_MS, with_it=True)
    assert [outcome for _, trigger, outcome in early.decided if trigger == "gone"] == ["emitted"]
    assert not [one for one in late.published if one.record.topic.startswith(TRIGGERS_PREFIX)]


def test_to_meet_rules_twice_changes_nothing() -> None:
    world = met(SILENT, days=100)
    members, published = dict(world.profile(ANA).members), len(world.published)
    meets(world, world.rulebook)
    assert (world.profile(ANA).members, len(world.published)) == (members, published)


@pytest.mark.invariant("R16")
def test_what_was_due_before_rules_that_wait_already_is_told_by_whoever_lets_it_happen() -> None:
    # A worker looks at a profile more than once while the rules wait behind its gate: each look does what is due by then.
    looks = "{{did: page_viewed, window: {{within: P{}D}}}}"
    old = rules_of(f"segments: {{days: {looks.format(2)}, week: {looks.format(7)}}}")
    new = rules_of(
        f"segments: {{days: {looks.format(2)}, week: {looks.format(7)}, gone: {{not: {{in_segment: week}}}}}}"
    )
    life = Life(old)
    life.event("Page Viewed", START_MS)
    rules = ruled(ANA, new, START_MS + 8 * DAY_MS)
    first = step(life.profile, rules, new, gate_ms=START_MS)
    assert (first.outcome, first.members) == (HELD, [])
    again = step(life.profile, rules, new, gate_ms=START_MS + 3 * DAY_MS)
    assert (again.outcome, again.members, len(life.profile.held)) == (HELD, [("days", False)], 1)
    life.rulebook = new
    life.wait_until(START_MS + 8 * DAY_MS)
    assert life.members() == ["gone"]
