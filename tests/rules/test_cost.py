"""What an event costs is what it can touch, whatever the number of rules (SPEC part 3, #1): counted, not timed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from profiles.state import Profile
from profiles.wire import Event
from rules.compile import compile_rules
from rules.engine import step
from rules.rulebook import Rulebook
from rules.scenarios import World
from rules.verdict import Answer

ADDRESS = "user:1"


def counted(document: dict[str, Any]) -> tuple[Rulebook, Counter[str]]:
    """The rulebook, every judge of which counts how often it is asked."""
    book = compile_rules([("rules", json.dumps(document))])
    asked: Counter[str] = Counter()

    def counting(name: str, judge: Callable[[Profile, int], Answer]) -> Callable[[Profile, int], Answer]:
        def count(profile: Profile, now_ms: int) -> Answer:
            asked[name] += 1
            return judge(profile, now_ms)

        return count

    for kept in book.segments:
        assert kept.judge is kept.judged.judge
    segments = tuple(replace(one, judge=counting(one.name, one.judge)) for one in book.segments)
    return replace(book, segments=segments), asked


def thousand() -> dict[str, Any]:
    """A thousand segments: 20 read page views, 5 of these through another; all others read something else."""
    segments: dict[str, Any] = {f"order_{n}": {"did": "order", "times": {"gte": n}} for n in range(1, 490)}
    segments |= {f"mark_{n}": {"trait": "custom.mark", "eq": n} for n in range(300)}
    segments |= {f"mail_{n}": {"did": "email_opened", "times": {"gte": n}} for n in range(1, 192)}
    segments |= {f"view_{n}": {"did": "page_viewed", "times": {"gte": n}} for n in range(1, 16)}
    segments |= {
        f"child_{n}": {"all": [{"in_segment": f"view_{n}"}, {"not": {"in_segment": "order_1"}}]} for n in range(1, 6)
    }
    assert len(segments) == 1000
    return {"segments": segments}


def view(n: int, now_ms: int, kind: str = "page_viewed", **props: Any) -> Event:
    """One event of the customer."""
    return Event(f"m{n}", "web", kind, now_ms, now_ms, ADDRESS, props=props, seen_ms=now_ms)


@pytest.mark.mechanic("M1")
def test_of_a_thousand_segments_an_event_asks_only_those_that_it_can_touch() -> None:
    book, asked = counted(thousand())
    profile = Profile(ADDRESS)
    step(profile, view(0, 1_000, "identified"), book)
    asked.clear()
    for n in range(1, 11):
        step(profile, view(n, 1_000 + n), book)
    assert set(asked) <= {name for name in asked if name.startswith(("view_", "child_"))}
    # Fifteen read page views; each of the five others only when the segment that it stands on has changed.
    assert all(asked[f"view_{n}"] <= 10 for n in range(1, 16))
    assert sum(asked.values()) <= 10 * 15 + 5
    assert {segment.name for segment in book.segments if segment.id in profile.members} == {
        *(f"view_{n}" for n in range(1, 11)),
        *(f"child_{n}" for n in range(1, 6)),
    }


def test_a_newborn_profile_is_not_asked_what_nobody_of_whom_nothing_is_known_can_answer_with_yes() -> None:
    book, asked = counted(thousand())
    book.at_birth()
    asked.clear()
    step(Profile(ADDRESS), view(0, 1_000, "logged_out"), book)
    assert sum(asked.values()) <= 5


@pytest.mark.mechanic("M4")
def test_silence_costs_nothing_until_the_instant_at_which_it_means_something() -> None:
    book, asked = counted(
        {
            "segments": {
                "lapsed": {"trait": "last_order_at", "older_than": "P30D"},
                "sleeping": {"trait": "last_order_at", "older_than": "P60D"},
                "views": {"did": "page_viewed", "window": {"within": "P7D"}},
            }
        }
    )
    world = World(book, 1_767_225_600_000)
    world.happen(view(0, world.now_ms, "order_completed", order_id="1", total_minor=100, currency="USD"))
    asked.clear()
    world.until(world.now_ms + 3_650 * 86_400_000, with_it=True)
    # Ten years of silence: the visit's end, and one question for each instant at which an answer changes.
    assert asked == {"lapsed": 1, "sleeping": 1}
    assert world.wakes == 3


def test_a_duplicate_asks_nothing() -> None:
    book, asked = counted(thousand())
    profile = Profile(ADDRESS)
    step(profile, view(1, 1_000), book)
    asked.clear()
    assert step(profile, view(1, 1_001), book).outcome == "duplicate"
    assert not asked
