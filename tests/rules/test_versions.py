"""A journey goes by the version of its trigger that it began under, or as the version after says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import orjson
import pytest

from profiles.moments import DAY_MS, parse_instant
from profiles.wire import DECISIONS, TRIGGERS_PREFIX, Event
from rules.compile import compile_rules
from rules.rulebook import Rulebook
from rules.scenarios import World
from rules.versions import KEPT_MAX, Version, superseded
from stream.clock import LogClock
from stream.rulebook import in_force, publish
from stream.store_memory import MemoryStore

START_MS: Final = parse_instant("2026-01-01T00:00")
OLD: Final = "on: {event: registered}, cancel_on: [{event: order_completed}], steps: [{emit: one}, {wait: P2D}, {emit: two}, {wait: P2D}, {emit: three}]"


def book(trigger: str, *, before: Rulebook | None = None, kept: tuple[Version, ...] = (), more: str = "") -> Rulebook:
    files = [
        (
            "r.yaml",
            f"triggers: {{welcome: {{{trigger}}}}}\n{more}" if trigger else f"segments: {{a: {{did: order}}}}\n{more}",
        )
    ]
    now = compile_rules(files)
    return compile_rules(files, kept=superseded(before.triggers, kept, now.triggers)) if before is not None else now


class Life:
    """A customer who registered under the old rules, and goes on under new ones from day one on."""

    def __init__(self, new: str, old: str = OLD, more: str = "") -> None:
        before = book(old)
        self.world = World(before, START_MS)
        self.tell("registered")
        self.at(1)
        self.world.rulebook = book(new, before=before, more=more)

    def at(self, days: float) -> None:
        self.world.until(START_MS + int(days * DAY_MS), with_it=True)

    def tell(self, kind: str) -> None:
        now_ms = self.world.now_ms
        self.world.happen(Event(f"{kind}{now_ms}", "web", kind, now_ms, now_ms, "user:1", props=PROPS))

    def sent(self) -> list[tuple[float, str]]:
        """(day, template) of each letter."""
        return [
            ((parse_instant(one.value["at"]) - START_MS) / DAY_MS, one.value["template"])
            for one in self.world.published
            if one.record.topic == f"{TRIGGERS_PREFIX}welcome"
        ]

    def decided(self) -> list[tuple[str, str | None]]:
        return [
            (one.value["step"], one.value["reason"]) for one in self.world.published if one.record.topic == DECISIONS
        ]

    def ids(self) -> list[str]:
        return [one.value["decision_id"] for one in self.world.published if one.record.topic == DECISIONS]


PROPS: Final = {"order_id": "1", "total_minor": 100, "currency": "USD", "items": []}
NEW: Final = "on: {event: registered}, cancel_on: [{event: page_viewed}], steps: [{emit: one}, {wait: P2D}, {emit: more}, {wait: P5D}, {emit: end}]"


def test_who_is_under_way_finishes_by_the_version_begun_under_and_whoever_comes_after_takes_the_new_one() -> None:
    life = Life(NEW)
    life.at(2)
    life.tell("page_viewed")  # cancels the new one only
    life.at(9)
    assert life.sent() == [(0, "one"), (2, "two"), (4, "three")]
    versions = {one.value["version"] for one in life.world.published if one.record.topic == f"{TRIGGERS_PREFIX}welcome"}
    assert versions == {book(OLD).triggers["welcome"].revision}
    life.tell("registered")
    life.at(20)
    assert life.sent()[3:] == [(9, "one"), (11, "more"), (16, "end")]


def test_the_version_begun_under_is_heard_too() -> None:
    life = Life(NEW)
    life.tell("order_completed")
    life.at(9)
    assert life.sent() == [(0, "one")]
    assert life.decided() == [("1", None), ("2", "cancelled")]


def test_begun_anew_at_the_next_sign_of_life_every_moment_is_one_of_its_own() -> None:
    life = Life(f"{NEW}, migration: restart")
    life.at(20)
    assert life.sent() == [(0, "one"), (2, "one"), (4, "more"), (9, "end")]
    assert len(set(life.ids())) == 4
    life = Life(f"{NEW}, migration: restart")
    life.tell("page_viewed")  # what cancels now, cancels who began before
    life.at(20)
    assert life.sent() == [(0, "one")]
    assert life.decided()[-1] == ("1", "cancelled")


@pytest.mark.parametrize(
    ("steps", "letters"),
    [
        # One put before: the same wait goes on, and nobody gets what he is past.
        ("{emit: zero}, {emit: one}, {wait: P2D}, {emit: two}, {wait: P2D}, {emit: three}", [(2, "two"), (4, "three")]),
        ("{emit: one}, {wait: P9D}, {emit: two}, {wait: P1D}, {emit: x}", [(2, "two"), (3, "x")]),
        ("{emit: one}, {emit: two}, {wait: P2D}, {emit: three}", [(2, "two"), (4, "three")]),
        ("{emit: one}", []),
        ("{wait: P2D}, {emit: two}, {emit: four}", [(2, "two"), (2, "four")]),
    ],
)
def test_moved_to_the_new_version_it_goes_on_at_the_place_that_corresponds(
    steps: str, letters: list[tuple[float, str]]
) -> None:
    life = Life(f"on: {{event: registered}}, migration: move, steps: [{steps}]")
    life.at(20)
    assert life.sent() == [(0, "one"), *letters]
    assert len(set(life.ids())) == len(life.ids())
    assert life.world.profile("user:1").runs == {}


def test_a_moved_journey_hears_what_the_new_version_hears() -> None:
    life = Life(
        "on: {event: registered}, migration: move, steps: [{emit: one}, {wait_for: {event: page_viewed, timeout: P9D}}, {emit: seen}]",
        "on: {event: registered}, steps: [{emit: one}, {wait_for: {event: page_viewed, timeout: P5D}}, {emit: seen}]",
    )
    life.tell("page_viewed")
    assert life.sent() == [(0, "one"), (1, "seen")]


def test_of_a_trigger_that_is_gone_from_the_rules_the_next_moment_is_withdrawn() -> None:
    life = Life("")
    life.at(9)
    assert life.sent() == [(0, "one")]
    assert life.decided() == [("1", None), ("2", "withdrawn")]
    assert life.world.profile("user:1").runs == {}


def test_a_version_that_the_new_rules_cannot_read_goes_on_at_the_same_place() -> None:
    old = "on: {event: registered}, steps: [{emit: one}, {wait: P2D}, {branch: [{if: {in_segment: a}, then: [{emit: a}]}, {else: [{emit: b}]}]}]"
    files = [("r.yaml", f"triggers: {{welcome: {{{old}}}}}\nsegments: {{a: {{did: order}}}}")]
    before = compile_rules(files)
    now = book(OLD, before=before)
    assert now.earlier == {}
    world = World(before, START_MS)
    world.happen(Event("m", "web", "registered", START_MS, START_MS, "user:1"))
    world.rulebook = now
    world.until(START_MS + 9 * DAY_MS, with_it=True)
    sent = [one.value["template"] for one in world.published if one.record.topic == f"{TRIGGERS_PREFIX}welcome"]
    assert sent == ["one", "two", "three"]


def test_of_each_trigger_the_newest_versions_are_kept_and_one_that_comes_back_is_none_of_before() -> None:
    versions: tuple[Version, ...] = ()
    books = [book(f"on: {{event: registered}}, steps: [{{emit: v{number}}}]") for number in range(KEPT_MAX + 3)]
    for before, now in pairwise(books):
        versions = superseded(before.triggers, versions, now.triggers)
    assert [orjson.loads(one.document)["steps"][0]["emit"] for one in versions] == [
        f"v{number}" for number in range(2, KEPT_MAX + 2)
    ]
    back = superseded(books[-1].triggers, versions, books[-2].triggers)
    assert [orjson.loads(one.document)["steps"][0]["emit"] for one in back][-1] == f"v{KEPT_MAX + 2}"
    assert all(one.revision != books[-2].triggers["welcome"].revision for one in back)


def test_a_policy_of_contact_is_always_the_one_in_force() -> None:
    life = Life(NEW, more="policies: {marketing: {consent: {channel: email}}}")
    life.at(9)
    assert life.decided() == [("1", None), ("2", "no_consent"), ("3", "no_consent")]


async def test_workers_keep_the_versions_of_before_in_the_store_for_whoever_reads_profiles() -> None:
    store = MemoryStore(LogClock())

    async def start(text: str) -> Rulebook:
        files = [("r.yaml", text)]
        now = (await publish(store, compile_rules(files), files)).rulebook
        read = await in_force(store)
        assert read is not None
        assert (read[0].hash, set(read[0].earlier)) == (now.hash, set(now.earlier))
        return now

    text = "triggers: {a: {on: {event: registered}, limits: [{max: 2, per: P1D}], when: {trait: revenue_x, gt: 0.5}, steps: [{wait: P1D}, {emit: NAME}]}}\ntraits: {revenue_x: {sum: order.total}}"
    first = await start(text)
    assert not first.earlier
    second = await start(text.replace("NAME", "other"))
    assert set(second.earlier) == {("a", first.triggers["a"].revision)}
    again = await start(text.replace("NAME", "other"))
    assert again.hash == second.hash
    back = await start(text)
    assert set(back.earlier) == {("a", second.triggers["a"].revision)}
    plain: Any = compile_rules([("r.yaml", text)])
    assert back.hash != plain.hash
