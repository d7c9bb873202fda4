"""A log replayed in one process says what a worker says that took it live, byte for byte (D2)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgpack
import orjson
import pytest

from profiles.codec import decode, encode
from profiles.ids import SHARDS
from profiles.moments import DAY_MS, HOUR_MS, parse_instant
from profiles.state import ORDERS_MAX, Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import (
    DEAD_LETTERS,
    DECISIONS,
    FACTS,
    INPUT_TOPICS,
    SEGMENT_CHANGES,
    Command,
    Event,
    decode_event,
    encode_event,
    trigger_topic,
)
from rules.compile import compile_rules
from rules.outcome import Step
from rules.rulebook import Rulebook
from stream.clock import LogClock, SystemIds, wall_ms
from stream.facts import digest_of
from stream.handlers import Handlers
from stream.log_memory import MemoryLog, MemoryReader
from stream.replay import Replayed, replayed
from stream.rulebook import PACKS, load
from stream.settings import Own
from stream.store_memory import MemoryStore
from tests.integration.live import live
from tests.integration.parts import as_record

PARTITIONS = 4
START_MS = parse_instant("2026-01-01")


@dataclass
class Heard:
    """What came out, by topic and key, in order."""

    records: defaultdict[tuple[str, str], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    at_ms: int = 0

    def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
        assert at_ms >= self.at_ms, "time goes back"
        self.at_ms = at_ms
        for record in out.records:
            self.records[record.topic, record.key].append(record.value)


def merged(log: MemoryLog) -> list[Event]:
    """The inputs of a log in the order in which workers take them."""
    found = []
    for place, topic in enumerate(INPUT_TOPICS[:-1]):
        for partition in range(log.partitions):
            records = log.read((topic, partition), 0, log.end((topic, partition)))
            found += [(decode_event(one.value), place, one.offset, partition) for one in records]
    found.sort(key=lambda one: (one[0].received_ms, *one[1:]))
    return [event for event, *_ in found]


async def ran_live(log: MemoryLog, rulebook: Rulebook, until_ms: int) -> tuple[dict[str, bytes], Heard]:
    """A worker takes the log: the profiles that it stores, and what it publishes."""
    store = MemoryStore(LogClock())
    inputs = {topic: sum(log.end((topic, one)) for one in range(PARTITIONS)) for topic in INPUT_TOPICS[:-1]}
    engine = Handlers(store, log, LogClock(), SystemIds(), rulebook, Own(), PARTITIONS, relaxed=True)
    await engine.start()
    reader = MemoryReader(log, engine, wall_ms)
    await reader.assign(range(PARTITIONS))
    running = asyncio.create_task(reader.run())

    async def is_done() -> bool:
        now = engine.progress()
        return (
            now.is_settled
            and all(now.applied[topic] == count for topic, count in inputs.items())
            and now.alarms_ms >= until_ms
            and not await store.due(range(SHARDS), until_ms - 1, 1)
        )

    async with asyncio.timeout(180):
        while not await is_done():
            await asyncio.sleep(0.02)
    await reader.stop()
    await running
    await engine.stop()
    heard = Heard()
    for topic in (SEGMENT_CHANGES, DECISIONS, DEAD_LETTERS, *map(trigger_topic, rulebook.triggers)):
        for partition in range(PARTITIONS):
            for one in log.read((topic, partition), 0, log.end((topic, partition))):
                assert one.key is not None
                heard.records[topic, one.key.decode()].append(one.value)
    addresses = {event.address for event in merged(log)} | {one for event in merged(log) for one in event.identifiers}
    blobs = await store.load(sorted(addresses))
    return {one: blob for one, blob in zip(sorted(addresses), blobs, strict=True) if blob is not None}, heard


def replay(
    events: Sequence[Event | Command], rulebook: Rulebook, until_ms: int | None = None, *, looks: bool = False
) -> Replayed[Heard]:
    """The same inputs, each time as they lie in the log."""
    values = [encode_event(one) if isinstance(one, Event) else one for one in events]

    def source() -> Iterator[Event | Command]:
        return (decode_event(one) if isinstance(one, bytes) else one for one in values)

    return replayed(source, rulebook, until_ms, Heard, looks=looks)


@pytest.mark.mechanic("D2")
@pytest.mark.invariant("R13")
async def test_a_backtest_of_a_live_runs_input_is_its_output_byte_for_byte() -> None:
    rulebook = load(PACKS / "shop")
    log = MemoryLog(PARTITIONS)
    for portion in live(7, events=6_000, customers=250, portions=3):
        for event in (*portion.flow, *portion.close):
            log.append(as_record(event))
    events = merged(log)
    end_ms = events[-1].received_ms
    profiles, heard = await ran_live(log, rulebook, end_ms)
    result = await asyncio.to_thread(replay, events, rulebook, end_ms)
    # The last input only says what time it is: of its instant, nobody knows whether more is to come.
    del profiles["anon:tick"], result.profiles["anon:tick"]
    assert result.heard.records == heard.records
    assert {topic for topic, _ in heard.records} >= {"decisions", "segment_changes", "triggers.abandoned_cart"}
    assert sum(map(len, heard.records.values())) > 5_000
    assert sum(bool(one.forward) for one in result.profiles.values()) > 50

    def stored(profile: Profile) -> bytes:
        profile.ordinal = 0
        return encode(profile)

    assert {one: stored(decode(one, blob)) for one, blob in profiles.items()} == {
        one: stored(profile) for one, profile in result.profiles.items()
    }


def told(at_ms: int, name: str, number: int, address: str = "user:1", **props: object) -> Event:
    kind = resolve(name)
    return Event(f"m{number}", "file", kind.name, at_ms, at_ms, address, props=canonical(kind, props))


def order(at_ms: int, number: int) -> Event:
    return told(at_ms, "order_completed", number, order_id=str(number), total=1, currency="USD")


BUYERS = compile_rules([("rules", "segments: {many: {trait: orders_paid, gte: 2}, here: {did: page_viewed}}")])


def test_what_the_core_refuses_is_set_aside_and_its_profile_is_as_if_it_had_never_come() -> None:
    events = [order(START_MS + number * DAY_MS, number) for number in range(ORDERS_MAX + 1)]
    old = Event("old", "file", "order_completed", START_MS - DAY_MS, events[-1].received_ms, "user:1")
    old.props = order(0, 9_999).props
    result = replay([*events, old, told(old.received_ms, "page_viewed", 10_000, path="/")], BUYERS)
    assert (result.aside, result.inputs, result.passes) == ({ORDERS_MAX + 2: "too_late"}, ORDERS_MAX + 2, 2)
    without = replay([*events, told(old.received_ms, "page_viewed", 10_000, path="/")], BUYERS)
    assert result.heard.records == without.heard.records
    assert encode(result.profiles["user:1"]) == encode(without.profiles["user:1"])


def test_alarms_fire_in_the_order_of_time_and_only_before_the_end() -> None:
    rules = compile_rules([("rules", "segments: {lately: {did: page_viewed, window: {within: P3D}}}")])
    events = [told(START_MS + number, "page_viewed", number, f"user:{number}", path="/") for number in range(5)]

    def left(until_ms: int) -> int:
        records = replay(events, rules, until_ms).heard.records.values()
        return sum(b'"exited"' in value for values in records for value in values)

    # ``Heard`` asserts the order.
    assert [left(START_MS + 3 * DAY_MS + later) for later in (0, 1, 5)] == [0, 1, 5]


def test_inputs_from_the_end_on_are_left_out() -> None:
    events = [told(START_MS + number * DAY_MS, "page_viewed", number, path="/") for number in range(5)]
    assert replay(events, BUYERS, START_MS + 2 * DAY_MS).inputs == 2
    assert replay(events, BUYERS).inputs == 5


TIERS = compile_rules(
    [
        (
            "rules",
            """
            traits:
              spent: {sum: order.total}
              tier: {tiers: spent, by: quantile, cuts: [0.5], labels: [low, high], publish: true}
            segments:
              top: {trait: tier, eq: high}
              lately: {did: order, window: {within: P2D}}
            triggers:
              welcome_to_the_top: {class: marketing, on: {segment: top}, steps: [{emit: {template: top}}]}
            """,
        )
    ],
    zone="Europe/Berlin",
)


def bought(at_ms: int, number: int, who: int, total: int) -> Event:
    return told(at_ms, "order_completed", number, f"user:{who}", order_id=str(number), total=total, currency="USD")


def facts_of(events: Sequence[Event], at_ms: int, number: int) -> Command:
    """What the log tells after a look at that instant."""
    spent: dict[str, int] = defaultdict(int)
    for one in events:
        spent[one.address] += one.props.get("total_minor", 0)
    values = sorted(spent.values())
    middle, mean = values[(len(values) + 1) // 2 - 1] * 64, sum(values) * 64 // len(values)
    found = {"number": number, "as_of_ms": at_ms, "values": {"trait:spent": {"": {"n": len(values), "mean": mean, "1/2": middle}}}}  # fmt: skip
    body = msgpack.packb(found)
    return Command(FACTS, "facts:0", "0/1", (number, digest_of(body)), body, at_ms)


def at_of(value: bytes) -> str:
    return str(orjson.loads(value)["at"])


@pytest.mark.mechanic("D2")
@pytest.mark.mechanic("M30")
def test_the_base_is_looked_over_at_four_each_morning_as_if_the_log_had_told_it() -> None:
    morning_ms = parse_instant("2026-03-03T03:00:00Z")
    first = [bought(morning_ms - HOUR_MS + one, one, one, 10 * one) for one in range(1, 5)]
    second = [bought(morning_ms + one, 10 + one, one, 100) for one in (1, 2)]
    third = [bought(morning_ms + DAY_MS, 20, 5, 1)]  # At this very instant: after the look.
    last = told(morning_ms + 2 * DAY_MS + 1, "page_viewed", 30, path="/")
    events = [*first, *second, *third, last]
    found = replay(events, TIERS, looks=True)
    members = [one for one in found.heard.records if one[0] == "segment_changes"]
    changes = [
        (at_of(value), key)
        for _, key in members
        for value in found.heard.records["segment_changes", key]
        if b"top" in value
    ]
    assert sorted(changes) == [
        ("2026-03-03T03:00:00.000Z", "user:3"), ("2026-03-03T03:00:00.000Z", "user:4"),
        ("2026-03-03T03:00:00.001Z", "user:1"), ("2026-03-03T03:00:00.002Z", "user:2"),
        ("2026-03-04T03:00:00.000Z", "user:3"), ("2026-03-04T03:00:00.000Z", "user:4"),
    ]  # fmt: skip
    assert {one.swept for one in found.profiles.values() if one.address != "user:1"} == {3}

    # The same, told by the log: as it would lie there after a worker had looked at these instants.
    commands = [
        facts_of([one for one in events if one.received_ms < at_ms], at_ms, number)
        for number, at_ms in enumerate([morning_ms, morning_ms + DAY_MS, morning_ms + 2 * DAY_MS], start=1)
    ]
    both: list[Event | Command] = [*commands, *events]
    whole = sorted(both, key=lambda one: (one.received_ms, isinstance(one, Event)))
    again = replay(whole, TIERS)
    assert again.heard.records == found.heard.records
    assert {one: encode(profile) for one, profile in again.profiles.items()} == {
        one: encode(profile) for one, profile in found.profiles.items()
    }
    # Where the log tells it, nobody looks.
    early: list[Event | Command] = [*first, facts_of(first, first[-1].received_ms + 1, 1), *second, *third, last]
    assert replay(early, TIERS, looks=True).heard.records == replay(early, TIERS).heard.records
    assert not any("top" in str(values) for values in replay(events, TIERS).heard.records.values())
