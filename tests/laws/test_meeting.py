"""Rules that come to people who are there already: whoever is in a segment is in it since he would have been.

What nobody kept is not made up: of what held at the last input it is known that it has held since then.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from profiles.ids import small_id
from profiles.moments import DAY_MS, HOUR_MS
from rules.compile import compile_rules
from rules.engine import ruled
from rules.scenarios import World
from tests.laws.histories import ADDRESS, GOALS, TRAITS, event_of, histories, law, rules
from tests.laws.naive import Told

FOR_DAYS = 7
NEVER = {"time": {"until": "2000-01-01"}}
SILENT = [
    {"did_not": "page_viewed", "window": {"within": "P1D"}},
    {"did_not": "page_viewed", "window": {"calendar": "this_week"}},
    {"all": [{"trait": "first_seen", "older_than": "P1D"}, {"did": "page_viewed", "window": {"within": "P28D"}}]},
]
"""What is often so by time alone."""


def lived(segments: dict[str, Any], told: list[Told]) -> World:
    """A history under these rules."""
    document = {"goals": GOALS, "traits": TRAITS, "segments": segments}
    world = World(compile_rules([("rules", json.dumps(document))]), told[0].seen_ms)
    for one in told:
        world.until(one.seen_ms, with_it=False)
        world.happen(event_of(one))
    return world


def meet(rule: Any, told: list[Told], hours: int) -> None:
    """Let somebody meet a rule so many hours after his last event, and compare with whom had it from the start."""
    new = {"one": rule, "long": {"in_segment": "one", "for": f"P{FOR_DAYS}D"}}
    # Before, the same statistics were kept, and nothing woke anybody.
    always, before = lived(new, told), lived({"nobody": {"all": [NEVER, rule]}}, told)
    now_ms = told[-1].seen_ms + hours * HOUR_MS
    for world in (always, before):
        world.until(now_ms, with_it=True)
    last_ms = before.profile(ADDRESS).seen_ms
    before.rulebook = always.rulebook
    command = ruled(ADDRESS, before.rulebook, now_ms)
    before.tell(command)
    found, wanted = before.profile(ADDRESS), always.profile(ADDRESS)
    one, long = small_id("one"), small_id("long")
    assert (one in found.members) == (one in wanted.members)
    if one in wanted.members:
        since_ms = max(wanted.members[one], last_ms)
        event("by time alone" if since_ms > last_ms else "since the last input")
        assert found.members[one] == since_ms
        assert (long in found.members) == (now_ms >= since_ms + FOR_DAYS * DAY_MS)
    told_so_far, members = len(before.published), dict(found.members)
    before.tell(command)
    assert (len(before.published), before.profile(ADDRESS).members) == (told_so_far, members), "twice is once"


HOURS = st.integers(0, 100 * 24)


@pytest.mark.mechanic("M4")
@law(150)
@given(rule=rules(), told=histories(), hours=HOURS)
def test_who_meets_a_rule_is_in_since_it_began_to_hold_or_since_his_last_input(
    rule: Any, told: list[Told], hours: int
) -> None:
    meet(rule, told, hours)


@pytest.mark.mechanic("M4")
@law(100)
@given(rule=st.sampled_from(SILENT), told=histories(about="page_viewed", late=False), hours=HOURS)
def test_so_he_is_where_time_alone_decides(rule: Any, told: list[Told], hours: int) -> None:
    meet(rule, told, hours)
