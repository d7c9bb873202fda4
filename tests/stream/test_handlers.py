"""The engine by itself, on the store and the log in memory; whole histories of it are in ``tests/simulation``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import orjson
import pytest

from profiles.codec import decode
from profiles.ids import SHARDS, shard_of
from profiles.state import Profile
from profiles.wire import (
    CUSTOMER_EVENTS,
    DEAD_LETTERS,
    EVENT_TOPICS,
    FORWARD,
    INPUT_TOPICS,
    PAGE_VIEWS,
    PROFILE_COMMANDS,
    SEGMENT_CHANGES,
    Event,
    Record,
    encode_event,
    trigger_topic,
)
from rules.compile import compile_rules
from rules.verdict import Judge
from stream import metrics
from stream.clock import LogClock, StoreClock, SystemIds, wall_ms
from stream.handlers import FLIGHT_MAX, Handlers
from stream.log_memory import MemoryLog, MemoryReader
from stream.ports import ShardWrite
from stream.settings import Own
from stream.store_memory import MemoryStore


@pytest.mark.invariant("R18")
async def test_a_claim_brings_the_logs_clock_to_what_was_applied_before_it() -> None:
    # The last record of the log lies below every cursor: nobody reads it, and its time, again.
    store = MemoryStore(LogClock())
    cursor = dict.fromkeys(INPUT_TOPICS, 7)
    await store.commit([ShardWrite(shard, b"", b"%08d" % shard, cursor, 1_000 + shard) for shard in range(SHARDS)])
    clock = LogClock()
    rules = compile_rules([("rules", "segments: {buyers: {did: order}}")])
    engine = Handlers(store, MemoryLog(2), clock, SystemIds(), rules, Own(), 2, relaxed=True)
    await engine.claim([1])
    assert clock.now_ms() == 1_000 + SHARDS - 1
    await engine.claim([0])
    assert clock.now_ms() == 1_000 + SHARDS - 1


@pytest.mark.invariant("R14")
@pytest.mark.parametrize("is_history", [True, False])
async def test_whoever_claims_a_partition_knows_whether_what_falls_due_there_is_history(is_history: bool) -> None:
    # An alarm that the log's clock makes due is history where the inputs are, also for a successor who reads none.
    rules = compile_rules([("rules", "segments: {buyers: {did: order}}")])
    store, log = MemoryStore(LogClock()), MemoryLog(1)

    def engine() -> Handlers:
        return Handlers(store, log, LogClock(), SystemIds(), rules, Own(), 1, relaxed=True)

    event = Event("m1", "file", "page_viewed", 1_000, 1_000, "user:1", backfill=is_history)
    log.append(Record(PAGE_VIEWS, event.address, encode_event(event)))
    first = engine()
    await first.start()
    reader = MemoryReader(log, first, wall_ms)
    await reader.assign([0])
    running = asyncio.create_task(reader.run())
    async with asyncio.timeout(120):
        while not (first.progress().is_settled and first.progress().applied[PAGE_VIEWS]):
            await asyncio.sleep(0.01)
    await reader.stop()
    await running
    await first.stop()
    successor = engine()
    await successor.claim([0])
    assert successor._owned.groups[0].backfill is is_history


@pytest.mark.invariant("R9")
async def test_a_segment_that_could_not_be_judged_before_sets_no_event_aside_and_an_event_that_breaks_one_is() -> None:
    text = "segments: {seen: {did: page_viewed}, twice: {did: page_viewed, times: {gte: 2}}}"
    rules = compile_rules([("rules", text)])
    broken: set[str] = set()

    def failing(name: str, known: Judge) -> Judge:
        def judge(profile: Profile, now_ms: int) -> tuple[bool, int]:
            if name in broken or (name == "twice" and len(profile.ring) > 3):
                raise ZeroDivisionError
            return known(profile, now_ms)

        return judge

    rules.judges = tuple((place, failing(one.name, one.judge), one.id) for place, one in enumerate(rules.segments))
    store, log = MemoryStore(LogClock()), MemoryLog(1)
    engine = Handlers(store, log, LogClock(), SystemIds(), rules, Own(), 1, relaxed=True)
    await engine.start()
    reader = MemoryReader(log, engine, wall_ms)
    await reader.assign([0])
    running = asyncio.create_task(reader.run())

    async def applied(number: int) -> None:
        event = Event(f"m{number}", "shop", "page_viewed", number, number, "user:1")
        log.append(Record(PAGE_VIEWS, event.address, encode_event(event)))
        async with asyncio.timeout(120):
            while not (engine.progress().is_settled and engine.progress().applied[PAGE_VIEWS] == number):
                await asyncio.sleep(0.01)

    before = metrics.UNJUDGED.labels("twice")._value.get()
    await applied(1)
    broken.add("twice")
    await applied(2)
    assert metrics.UNJUDGED.labels("twice")._value.get() == before + 1
    assert await store.segment_sizes(["seen", "twice"]) == {"seen": 1, "twice": 0}
    broken.clear()
    await applied(3)
    assert await store.segment_sizes(["seen", "twice"]) == {"seen": 1, "twice": 1}
    assert not log.read((DEAD_LETTERS, 0), 0, 9)
    await applied(4)
    [letter] = log.read((DEAD_LETTERS, 0), 0, 9)
    assert orjson.loads(letter.value)["detail"] == "ZeroDivisionError"
    await reader.stop()
    await running
    await engine.stop()


@pytest.mark.invariant("R26")
async def test_a_profile_beyond_sixteen_kibibytes_is_counted_and_kept_whole() -> None:
    store, log = MemoryStore(LogClock()), MemoryLog(1)
    rules = compile_rules([("rules", "segments: {known: {trait: t0, exists: true}}")])
    engine = Handlers(store, log, LogClock(), SystemIds(), rules, Own(), 1, relaxed=True)
    await engine.start()
    reader = MemoryReader(log, engine, wall_ms)
    await reader.assign([0])
    running = asyncio.create_task(reader.run())
    before = metrics.LARGE._value.get()
    for number, traits in enumerate((1, 40), 1):
        told = {f"t{name}": "x" * 500 for name in range(traits)}
        event = Event(f"m{number}", "shop", "identified", number, number, "user:1", traits=told)
        log.append(Record(CUSTOMER_EVENTS, event.address, encode_event(event)))
        async with asyncio.timeout(120):
            while not (engine.progress().is_settled and engine.progress().applied[CUSTOMER_EVENTS] == number):
                await asyncio.sleep(0.01)
        assert metrics.LARGE._value.get() - before == number - 1
    await reader.stop()
    await running
    await engine.stop()
    [blob] = await store.load(["user:1"])
    assert blob is not None
    assert len(decode("user:1", blob).traits) == 40


LETTER = """
triggers:
  left:
    on: {event: page_viewed}
    max_age: P7D
    steps: [{wait: PT5S}, {emit: letter}]
"""


@pytest.mark.invariant("R16")
@pytest.mark.parametrize("is_stale", [True, False])
async def test_a_timer_does_not_fire_with_an_input_while_another_partitions_end_was_not_seen_since(
    is_stale: bool,
) -> None:
    # A broker that is slow to answer for one partition: what lies there may concern this customer.
    began_ms = 1_000_000
    time = LogClock(began_ms)
    store, log = MemoryStore(time), MemoryLog(2)
    clock = StoreClock(store.now_ms, time.now_ms)
    rules = compile_rules([("rules", LETTER)])
    engine = Handlers(store, log, clock, SystemIds(), rules, Own(), 2, relaxed=True, wall_ms=time.now_ms)
    await engine.start()
    await engine.claim([0, 1])
    customer = next(f"user:{number}" for number in range(99) if shard_of(f"user:{number}") % 2 == 1)

    def answered(*partitions: int) -> None:
        for partition in partitions:
            for topic in INPUT_TOPICS:
                engine.at_end(topic, partition, log.end((topic, partition)), time.now_ms())

    async def views(number: int) -> Profile:
        event = Event(f"m{number}", "shop", "page_viewed", time.now_ms(), time.now_ms(), customer)
        log.append(Record(PAGE_VIEWS, customer, encode_event(event)))
        await engine.deliver(PAGE_VIEWS, 1, log.read((PAGE_VIEWS, 1), number - 1, 9), time.now_ms())
        time.advance(time.now_ms() + 1)
        answered(1)
        async with asyncio.timeout(120):
            while not (engine.progress().is_settled and engine.progress().applied[PAGE_VIEWS] == number):
                await asyncio.sleep(0.01)
        [blob] = await store.load([customer])
        assert blob is not None
        return decode(customer, blob)

    for partition in (0, 1):
        place = (PROFILE_COMMANDS, partition)
        await engine.deliver(*place, log.read(place, 0, 9), time.now_ms())
    time.advance(began_ms + 1)
    answered(0, 1)
    assert (await views(1)).runs
    time.advance(began_ms + 9_000)
    if not is_stale:
        answered(0)
    profile = await views(2)
    assert bool(profile.held) is is_stale
    assert len(log.read((trigger_topic("left"), 1), 0, 9)) == (0 if is_stale else 1)
    await engine.stop(broken=True)


@pytest.mark.invariant("R16")
async def test_what_is_told_at_once_fires_no_timer_whose_own_gate_is_shut() -> None:
    # The sender's partition has read its commands since the gate was asked for; this one's may lie unread.
    began_ms = 1_000_000
    time = LogClock(began_ms)
    store, log = MemoryStore(time), MemoryLog(4)
    clock = StoreClock(store.now_ms, time.now_ms)
    rules = compile_rules([("rules", LETTER)])
    engine = Handlers(store, log, clock, SystemIds(), rules, Own(), 4, relaxed=True, wall_ms=time.now_ms)
    await engine.start()
    await engine.claim([0, 1])
    groups = engine._owned.groups
    tab = next(f"anon:{number}" for number in range(99) if shard_of(f"anon:{number}") % 4 == 0)
    customer = next(f"user:{number}" for number in range(99) if shard_of(f"user:{number}") % 4 == 1)
    read: Counter[tuple[str, int]] = Counter()

    async def read_all() -> None:
        for place in [(topic, partition) for topic in INPUT_TOPICS for partition in (0, 1)]:
            if records := log.read(place, read[place], 99):
                await engine.deliver(*place, records, time.now_ms())
                read[place] += len(records)
        time.advance(time.now_ms() + 1)
        for topic, partition in [(topic, partition) for topic in INPUT_TOPICS for partition in (0, 1)]:
            engine.at_end(topic, partition, log.end((topic, partition)), time.now_ms())

    async def happens(number: int, kind: str, address: str, *others: str) -> Profile:
        event = Event(f"m{number}", "shop", kind, time.now_ms(), time.now_ms(), address, others)
        topic = PAGE_VIEWS if kind == "page_viewed" else CUSTOMER_EVENTS
        log.append(Record(topic, address, encode_event(event)))
        await read_all()
        async with asyncio.timeout(120):
            while not (
                engine.progress().is_settled and sum(engine.progress().applied[one] for one in EVENT_TOPICS) == number
            ):
                await asyncio.sleep(0.01)
        [blob] = await store.load([customer])
        assert blob is not None
        return decode(customer, blob)

    await read_all()
    await happens(1, "identified", customer, tab)
    assert (await happens(2, "page_viewed", customer)).runs
    time.advance(began_ms + 9_000)
    groups[0].gate_ms = began_ms + 8_000
    profile = await happens(3, "page_viewed", tab)
    assert profile.runs
    assert [kind for _, kind, _ in profile.held] == [FORWARD]
    await engine.stop(broken=True)


class Refusing(MemoryLog):
    """A log that takes none of our records as long as it is told so."""

    refuses = False
    refused = 0

    async def publish(self, records: Sequence[Record]) -> None:
        """Take them, or say that the broker did not."""
        if self.refuses:
            self.refused += 1
            raise OSError("the broker takes nothing")
        await super().publish(records)


@pytest.mark.invariant("R27")
async def test_while_the_broker_takes_nothing_the_outbox_holds_two_batches_and_reading_waits() -> None:
    customers, batch = 2_000, 50
    store, log = MemoryStore(LogClock()), Refusing(1)
    rules = compile_rules([("rules", "segments: {seen: {did: page_viewed}}")])
    own = Own(batch_events=batch, buffer_events=8 * batch)
    engine = Handlers(store, log, LogClock(), SystemIds(), rules, own, 1, relaxed=True)
    await engine.start()
    reader = MemoryReader(log, engine, wall_ms)
    await reader.assign([0])
    log.refuses = True
    for number in range(1, customers + 1):
        event = Event(f"m{number}", "shop", "page_viewed", number, number, f"user:{number}")
        log.append(Record(PAGE_VIEWS, event.address, encode_event(event)))
    running = asyncio.create_task(reader.run())

    async def waiting() -> int:
        return sum(map(len, await store.outboxes(range(SHARDS))))

    async with asyncio.timeout(120):
        while log.refused < 8:  # Asked again and again, so that whatever could be read meanwhile has been.
            await asyncio.sleep(0.01)
    assert 0 < await waiting() <= FLIGHT_MAX * batch
    assert engine.progress().applied[PAGE_VIEWS] <= FLIGHT_MAX * batch + batch
    log.refuses = False
    async with asyncio.timeout(120):
        while not (engine.progress().is_settled and engine.progress().applied[PAGE_VIEWS] == customers):
            await asyncio.sleep(0.01)
    await reader.stop()
    await running
    await engine.stop()
    changes = [orjson.loads(one.value) for one in log.read((SEGMENT_CHANGES, 0), 0, 1 << 20)]
    assert sorted(one["address"] for one in changes) == sorted(f"user:{number}" for number in range(1, customers + 1))
    assert await waiting() == 0
