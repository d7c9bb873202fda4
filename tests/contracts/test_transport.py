"""What feeds an engine: the same promises on Kafka, through Faust, and on the log in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import aiokafka
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opportune import parts
from opportune.topics import create_topics, wanted_topics
from profiles.errors import Refused
from profiles.ids import murmur2, partition_of, shard_of
from profiles.moments import iso, parse_instant
from profiles.wire import CART_EVENTS, EVENT_TOPICS, INPUT_TOPICS, PAGE_VIEWS, PROFILE_COMMANDS, Record, trigger_topic
from stream.app import Fault, Worker, check_topics
from stream.clock import wall_ms
from stream.feed import LOW_END_MS_MAX, Feed, Gap, Place, partition_for
from stream.log import KafkaLog
from stream.log_memory import MemoryLog, MemoryReader
from stream.ports import LogRecord
from stream.settings import Agreed, Own, Settings
from stream.transport import share_out
from tests.contracts.recorder import KafkaWorld, Member, MemoryWorld, Recorder, Store, World
from tests.parts import real

PARTITIONS = 8
PLACES = [(topic, partition) for topic in INPUT_TOPICS for partition in range(PARTITIONS)]


def settings_for(bootstrap: str) -> Settings:
    return Settings(
        Agreed(partitions=PARTITIONS),
        Own(bootstrap=bootstrap, group="group", session_ms=2_000, heartbeat_ms=300, request_ms=10_000, commit_ms=100),
    )


@pytest.fixture
def settings(fresh_broker: parts.Server) -> Settings:
    """A broker of the test's own, with all topics."""
    asyncio.run(create_topics(fresh_broker.address, wanted_topics(["demo"], partitions=PARTITIONS)))
    return settings_for(fresh_broker.address)


@pytest.fixture(params=["memory", "kafka"])
def where(request: pytest.FixtureRequest) -> Settings | None:
    """The settings of a broker, or nothing for the log in memory."""
    found: Settings | None = request.getfixturevalue("settings") if request.param == "kafka" else None
    return found


@pytest.fixture
async def world(where: Settings | None) -> AsyncIterator[World]:
    if where is None:
        memory = MemoryWorld(PARTITIONS)
        yield memory
        await memory.close()
        return
    kafka = KafkaWorld(where)
    await kafka.log.start()
    yield kafka
    await kafka.close()


async def run_on(member: Member) -> None:
    """Start a member and wait until it ends."""
    await member.start()
    await member.wait()


def some(count: int, topics: Sequence[str] = INPUT_TOPICS, mark: str = "") -> list[Record]:
    """Records of many people on all topics, numbered in their values."""
    return [Record(topics[n % len(topics)], f"user:{n * 7 % 997}", f"{mark}{n}".encode()) for n in range(count)]


def by_place(records: Sequence[Record]) -> dict[Place, list[bytes]]:
    found: dict[Place, list[bytes]] = {}
    for topic, key, value in records:
        found.setdefault((topic, partition_of(shard_of(key), PARTITIONS)), []).append(value)
    return found


def in_place(place: Place, count: int, mark: str = "") -> list[Record]:
    """Records of one topic and partition."""
    topic, partition = place
    keys = (f"user:{n}" for n in range(100_000))
    key = next(key for key in keys if partition_of(shard_of(key), PARTITIONS) == partition)
    return [Record(topic, key, f"{mark}{n}".encode()) for n in range(count)]


# --- delivering


@pytest.mark.invariant("R2")
async def test_every_record_is_delivered_once_and_in_the_order_of_its_place(world: World) -> None:
    records = some(5_000)
    engine = Recorder("a", Store())
    member = world.member(engine)
    await world.publish(records[:2_000])
    await member.start()
    await world.publish(records[2_000:])
    await engine.until(lambda: engine.count() == len(records))
    assert dict(engine.values) == by_place(records)
    assert all(offsets == list(range(len(offsets))) for offsets in engine.got.values())
    await member.stop()
    await member.wait()
    assert engine.owned == set()


@pytest.mark.invariant("R6")
async def test_a_restart_begins_at_the_engines_cursor_whatever_kafka_has_committed(world: World) -> None:
    store = Store()
    first = Recorder("a", store)
    member = world.member(first)
    await world.publish(some(600))
    await member.start()
    await first.until(lambda: first.count() == 600)
    await member.stop()
    assert await world.committed() == store.cursor
    ends = dict(store.cursor)

    # One place is behind what Kafka knows, as after a store that went back; one is ahead of its records.
    behind, ahead = (PAGE_VIEWS, 3), (CART_EVENTS, 5)
    store.cursor[behind] = 2
    await world.publish(in_place(ahead, 4, "skipped"))
    store.cursor[ahead] += 4
    second = Recorder("b", store)
    again = world.member(second)
    await again.start()
    more = some(60, mark="more")
    await world.publish(more)
    await second.until(lambda: second.count() == 60 + ends[behind] - 2)
    wanted = {place: list(range(ends[place], store.cursor[place])) for place in by_place(more)}
    wanted[behind] = list(range(2, store.cursor[behind]))
    wanted[ahead] = list(range(ends[ahead] + 4, store.cursor[ahead]))
    assert {place: offsets for place, offsets in second.got.items() if offsets} == {
        place: offsets for place, offsets in wanted.items() if offsets
    }
    await again.stop()


@pytest.mark.invariant("R10")
async def test_a_topic_that_ends_before_the_cursor_stops_the_worker(world: World) -> None:
    store = Store()
    store.cursor[PAGE_VIEWS, 2] = 10
    await world.publish(in_place((PAGE_VIEWS, 2), 9))
    engine = Recorder("a", store)
    member = world.member(engine)
    with pytest.raises(Fault, match=r"page_views/2: an end at or after our cursor 10 wanted, got 9"):
        await run_on(member)
    assert engine.got[PAGE_VIEWS, 2] == []


@pytest.mark.invariant("R27")
async def test_a_place_that_waits_holds_up_no_other(world: World) -> None:
    engine = Recorder("a", Store())
    held = (PAGE_VIEWS, 1)
    engine.hold.add(held)
    member = world.member(engine)
    await member.start()
    await world.publish(in_place(held, 1, "first"))
    await engine.until(lambda: held in engine.waiting)
    # The same partition of other topics, other partitions of the same topic, and more for the one that waits.
    records = [record for record in some(2_000) if by_place([record]).keys() != {held}]
    await world.publish(in_place(held, 500, "later"))
    for from_ in range(0, len(records), 200):
        await world.publish(records[from_ : from_ + 200])
        await engine.until(lambda upto=from_ + 200: engine.count() >= min(upto, len(records)))  # type: ignore[misc]  # a lambda default has no type
    assert engine.got[held] == []
    told = engine.ends.get(held)
    await engine.until(lambda: all(engine.ends.get(place, (0, 0))[0] > 0 for place in by_place(records)))
    assert engine.ends.get(held) == told, "the end is told only when everything below was taken"

    engine.let_go(held)
    await engine.until(lambda: engine.got[held] == list(range(501)))
    await engine.until(lambda: engine.ends.get(held, (0, 0))[0] == 501)
    await member.stop()


@pytest.mark.invariant("R16")
async def test_the_end_of_every_topic_is_told_after_its_records_and_again_while_idle(world: World) -> None:
    engine = Recorder("a", Store())
    member = world.member(engine)
    await member.start()
    await engine.until(lambda: set(engine.ends) == set(PLACES))
    assert all(position == 0 for position, _ in engine.ends.values())
    records = some(900)
    await world.publish(records)
    wanted = {place: len(values) for place, values in by_place(records).items()}
    await engine.until(lambda: all(engine.ends[place][0] == end for place, end in wanted.items()))
    assert all(engine.got[place] == list(range(end)) for place, end in wanted.items())
    # A later fetch than the one that brought the records, in the same clock.
    before = max(engine.read_ms.values())
    await engine.until(lambda: all(answered > before for _, answered in engine.ends.values()))
    once = dict(engine.ends)
    await engine.until(lambda: all(engine.ends[place][1] > once[place][1] for place in PLACES))
    assert all(engine.ends[place][0] == once[place][0] for place in PLACES)
    await member.stop()


# --- faults


class Boom(Exception):
    """What a broken engine raises."""


@pytest.mark.invariant("R8")
async def test_an_exception_in_deliver_ends_the_worker_and_nothing_beyond_is_committed(world: World) -> None:
    engine = Recorder("a", Store())
    bad = (CART_EVENTS, 4)
    member = world.member(engine)
    await member.start()
    await world.publish(in_place(bad, 3, "good"))
    await engine.until(lambda: len(engine.got[bad]) == 3)
    engine.fail[f"deliver {CART_EVENTS}/4"] = Boom("deliver")
    await world.publish(in_place(bad, 5, "bad"))
    with pytest.raises(Fault, match="Boom") as fault:
        await member.wait()
    assert isinstance(fault.value.__cause__, Boom)
    await member.stop()
    assert engine.got[bad] == [0, 1, 2]
    assert (await world.committed()).get(bad, 0) <= 3

    after = Recorder("b", engine.store)
    other = world.member(after)
    await other.start()
    await after.until(lambda: after.got[bad] == [3, 4, 5, 6, 7])
    await other.stop()


@pytest.mark.invariant("R8")
@pytest.mark.parametrize("door", ["claim", "at_end"])
async def test_an_exception_at_another_door_ends_the_worker(world: World, door: str) -> None:
    engine = Recorder("a", Store())
    engine.fail[door] = Boom(door)
    member = world.member(engine)
    with pytest.raises(Fault) as fault:
        await run_on(member)
    assert isinstance(fault.value.__cause__, Boom)


@pytest.mark.invariant("R8")
async def test_an_exception_in_release_ends_the_worker(settings: Settings) -> None:
    world = KafkaWorld(settings)
    engine = Recorder("a", Store())
    engine.fail["release"] = Boom("release")
    member = world.member(engine)
    await member.start()
    joining = asyncio.ensure_future(world.member(Recorder("b", engine.store)).start())
    with pytest.raises(Fault, match="revoking: Boom"):
        await member.wait()
    await member.stop()
    await joining
    await world.close()


# --- rebalances


def owners_never_overlap(history: Sequence[tuple[str, str, int]]) -> None:
    """Between one engine's claim of a partition and another's lies the first one's release."""
    owner: dict[int, str] = {}
    for name, what, partition in history:
        if what == "claim":
            assert partition not in owner, f"{partition}: claimed by {name} while {owner[partition]} has it"
            owner[partition] = name
        else:
            assert owner.pop(partition) == name


@pytest.mark.invariant("R5")
async def test_two_workers_share_the_partitions_and_lose_no_record(world: World) -> None:
    store = Store()
    one, two = Recorder("one", store), Recorder("two", store)
    first, second = world.member(one), world.member(two)
    await first.start()
    await world.publish(some(1_200, mark="a"))
    joining = asyncio.ensure_future(second.start())
    for n in range(10):
        await world.publish(some(120, mark=f"b{n}"))
    await joining
    await world.publish(some(1_200, mark="c"))
    wanted = by_place(
        some(1_200, mark="a") + [r for n in range(10) for r in some(120, mark=f"b{n}")] + some(1_200, mark="c")
    )

    def all_there() -> bool:
        return all(store.cursor.get(place, 0) == len(values) for place, values in wanted.items())

    await asyncio.wait(
        [asyncio.ensure_future(one.until(all_there)), asyncio.ensure_future(two.until(all_there))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    assert len(first.partitions) == len(second.partitions) == PARTITIONS // 2
    assert sorted(first.partitions + second.partitions) == list(range(PARTITIONS))
    owners_never_overlap(store.history)
    for place, values in wanted.items():
        # Each place was read without a hole by one after the other, and released at what was taken.
        offsets = sorted(one.got[place] + two.got[place])
        assert offsets == list(range(len(values))), place
    await first.stop()
    await two.until(lambda: len(two.owned) == PARTITIONS)
    await second.stop()


@pytest.mark.invariant("R5")
async def test_three_workers_get_the_same_partitions_of_all_topics(world: World) -> None:
    """Three does not divide eight: dealing the topics' partitions out in turn would tear partitions apart."""
    store = Store()
    engines = [Recorder(name, store) for name in "abc"]
    members = [world.member(engine) for engine in engines]
    await asyncio.gather(*(member.start() for member in members))
    await asyncio.gather(*(engine.until(lambda e=engine: len(e.owned) in (2, 3)) for engine in engines))  # type: ignore[misc]  # a lambda default has no type
    await world.publish(some(3_000))
    await asyncio.gather(
        *(
            engine.until(lambda e=engine: {topic for topic, _ in e.got} == set(INPUT_TOPICS))  # type: ignore[misc]  # a lambda default has no type
            for engine in engines
        )
    )
    for engine in engines:
        for topic in INPUT_TOPICS:
            assert {partition for at, partition in engine.ends if at == topic} <= set(range(PARTITIONS))
    for member in members:
        await member.stop()
    owners_never_overlap(store.history)


@pytest.mark.invariant("R6")
async def test_a_chunk_that_waits_while_its_partition_is_taken_away_is_read_again_by_the_next_owner(
    world: World,
) -> None:
    store = Store()
    one, two = Recorder("one", store), Recorder("two", store)
    places = [(PAGE_VIEWS, partition) for partition in range(PARTITIONS)]
    one.hold.update(places)
    first, second = world.member(one), world.member(two)
    await first.start()
    for place in places:
        await world.publish(in_place(place, 20))
    await one.until(lambda: one.waiting == set(places))
    await second.start()
    await two.until(lambda: bool(two.owned))
    moved = [place for place in places if place[1] in second.partitions]
    await two.until(lambda: all(two.got[place] == list(range(20)) for place in moved))
    assert one.count() == 0
    one.hold.clear()
    one.let_go(places[0])
    kept = [place for place in places if place not in moved]
    await one.until(lambda: all(one.got[place] == list(range(20)) for place in kept))
    owners_never_overlap(store.history)
    await first.stop()
    await second.stop()


@given(
    partitions=st.sampled_from([1, 2, 4, 8, 16, 256]),
    owned=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3), st.lists(st.integers(-1, 300), max_size=20), min_size=1
    ),
)
def test_shares_are_even_whole_and_move_as_little_as_that_allows(partitions: int, owned: dict[str, list[int]]) -> None:
    shares = share_out(partitions, owned)
    assert sorted(p for ours in shares.values() for p in ours) == list(range(partitions))
    sizes = [len(ours) for ours in shares.values()]
    assert max(sizes) - min(sizes) <= 1
    assert share_out(partitions, shares) == shares, "whoever has a fair share keeps it"


# --- holes, on the feed itself and in memory


def feed_of(engine: Recorder, gaps: list[Gap], room: list[Place]) -> Feed:
    def fault(where: str, error: BaseException) -> None:
        raise AssertionError(where) from error

    return Feed(engine, INPUT_TOPICS, on_gap=gaps.append, on_fault=fault, on_room=room.append)


def at(place: Place, offsets: Sequence[int]) -> list[LogRecord]:
    return [LogRecord(*place, offset, b"k", b"v") for offset in offsets]


@pytest.mark.invariant("R6")
async def test_a_hole_is_looked_at_twice_and_then_reported_and_passed() -> None:
    engine, gaps, room = Recorder("a", Store()), list[Gap](), list[Place]()
    engine.log = MemoryLog(PARTITIONS)
    engine.store.cursor[PAGE_VIEWS, 0] = 10
    feed = feed_of(engine, gaps, room)
    feed.begin(await feed.claim([0]))
    place = (PAGE_VIEWS, 0)

    chunk, back = feed.admit(*place, at(place, [8, 9, 10, 11, 15, 16]), 1)
    assert chunk is not None
    assert [record.offset for record in chunk.records] == [10, 11], "what lies below is skipped"
    assert back == 12
    assert gaps == []
    feed.hand(chunk, lambda: None)
    await engine.until(lambda: room == [place])

    again, back = feed.admit(*place, at(place, [15, 16]), 2)
    assert again is not None
    assert [record.offset for record in again.records] == [15, 16]
    assert back is None
    assert gaps == [Gap(PAGE_VIEWS, 0, 12, 15)]


@pytest.mark.invariant("R6")
async def test_a_hole_that_was_not_real_is_not_reported() -> None:
    engine, gaps, room = Recorder("a", Store()), list[Gap](), list[Place]()
    engine.log = MemoryLog(PARTITIONS)
    feed = feed_of(engine, gaps, room)
    feed.begin(await feed.claim([0]))
    place = (PAGE_VIEWS, 0)
    assert feed.admit(*place, at(place, [3, 4]), 1) == (None, 0)
    chunk, back = feed.admit(*place, at(place, [0, 1, 2, 3, 4]), 2)
    assert chunk is not None
    assert len(chunk.records) == 5
    assert back is None
    assert gaps == []


@pytest.mark.invariant("R10")
async def test_an_end_below_the_cursor_is_borne_for_a_while_where_the_log_still_reaches_it() -> None:
    engine, place = Recorder("a", Store()), (PAGE_VIEWS, 0)
    engine.store.cursor[place] = 12
    feed = feed_of(engine, [], [])
    feed.begin(await feed.claim([0]))
    began_ms = 1_000_000
    # A broker killed and started again tells the end that it wrote down last, until it has read its own log.
    feed.check_end(*place, 6, 12, began_ms)
    feed.check_end(*place, 6, 12, began_ms + LOW_END_MS_MAX)
    feed.check_end(*place, 12, 12, began_ms + LOW_END_MS_MAX)
    # Another time is another while.
    feed.check_end(*place, 6, 12, began_ms + 2 * LOW_END_MS_MAX)
    with pytest.raises(Refused, match="an end at or after our cursor 12 wanted, got 6"):
        feed.check_end(*place, 6, 12, began_ms + 3 * LOW_END_MS_MAX + 1)
    # A log that does not reach the cursor is another one: nothing to wait for.
    with pytest.raises(Refused, match="an end at or after our cursor 12 wanted, got 9"):
        feed.check_end(*place, 9, 0, began_ms + LOW_END_MS_MAX)


async def test_what_was_read_before_a_release_is_dropped_after_it() -> None:
    engine, gaps, room = Recorder("a", Store()), list[Gap](), list[Place]()
    engine.log = MemoryLog(PARTITIONS)
    feed = feed_of(engine, gaps, room)
    feed.begin(await feed.claim([0]))
    place = (PAGE_VIEWS, 0)
    stale, _ = feed.admit(*place, at(place, [0, 1]), 1)
    assert stale is not None
    await feed.release([0])
    feed.begin(await feed.claim([0]))
    dropped: list[bool] = []
    feed.hand(stale, lambda: dropped.append(True))
    assert dropped == [True]
    assert feed.places()[place] == 0
    assert engine.count() == 0


@pytest.mark.invariant("R6")
async def test_lost_and_expired_records_are_reported_and_the_rest_delivered() -> None:
    log, gaps = MemoryLog(PARTITIONS), list[Gap]()
    engine = Recorder("a", Store())
    engine.log = log
    place, old = (PAGE_VIEWS, 0), (CART_EVENTS, 0)
    await log.publish(in_place(place, 10) + in_place(old, 10))
    log.lose(place, 4)
    log.lose(place, 5)
    log.expire(old, 7)
    reader = MemoryReader(log, engine, wall_ms, on_gap=gaps.append)
    await reader.assign(range(PARTITIONS))
    running = asyncio.ensure_future(reader.run())
    await engine.until(lambda: engine.count() == 8 + 3)
    assert engine.got[place] == [0, 1, 2, 3, 6, 7, 8, 9]
    assert engine.got[old] == [7, 8, 9]
    assert sorted(gaps) == [Gap(*old, 0, 7), Gap(*place, 4, 6)]
    log.remake(PAGE_VIEWS)
    log.append(in_place(place, 1)[0])
    with pytest.raises(Refused, match="page_views/0: an end at or after our cursor 10 wanted, got 1"):
        await running
    await reader.stop()


# --- publishing


@pytest.mark.invariant("R12")
async def test_records_are_published_in_order_per_key_where_kafkas_partitioner_puts_them(world: World) -> None:
    batches = [some(300, EVENT_TOPICS, f"{n}.") for n in range(8)]
    await asyncio.gather(*(world.publish(batch) for batch in batches))
    engine = Recorder("a", Store())
    member = world.member(engine)
    await member.start()
    await engine.until(lambda: engine.count() == 8 * 300)
    wanted = by_place([record for batch in batches for record in batch])
    assert {place: sorted(values) for place, values in engine.values.items()} == {
        place: sorted(values) for place, values in wanted.items()
    }
    for batch in batches:
        for place, values in by_place(batch).items():
            mark = values[0].split(b".")[0] + b"."
            assert [value for value in engine.values[place] if value.startswith(mark)] == values
    await member.stop()


@given(key=st.text(min_size=1), partitions=st.integers(1, 300))
def test_a_key_goes_where_the_default_partitioner_would_put_it(key: str, partitions: int) -> None:
    assert partition_for(key, partitions) == (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


async def test_a_record_larger_than_a_batch_is_published_too(settings: Settings) -> None:
    log = KafkaLog(settings.own)
    await log.start()
    large = Record(PAGE_VIEWS, "user:1", b"x" * 600_000)
    await log.publish([large, Record(PAGE_VIEWS, "user:1", b"small"), large])
    world = KafkaWorld(settings)
    engine = Recorder("a", Store())
    member = world.member(engine)
    await member.start()
    await engine.until(lambda: engine.count() == 3)
    (values,) = engine.values.values()
    assert values == [large.value, b"small", large.value]
    await world.close()
    await log.stop()


@pytest.mark.mechanic("M98")
@pytest.mark.invariant("R13")
async def test_a_trigger_record_says_beside_its_bytes_when_it_was_published_and_how_late(settings: Settings) -> None:
    at_ms = wall_ms() - 5_000
    value = orjson.dumps({"template": ',"at":"x', "at": iso(at_ms), "send": {"at": "y"}})
    topic = trigger_topic("demo")
    log = KafkaLog(settings.own)
    consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=settings.own.bootstrap, auto_offset_reset="earliest")
    await log.start()
    before_ms = wall_ms()
    for _ in range(2):
        await log.publish([Record(topic, "user:1", value), Record(PAGE_VIEWS, "user:1", b"none")])
    await consumer.start()
    try:
        found = [await asyncio.wait_for(consumer.getone(), 30) for _ in range(2)]
    finally:
        await consumer.stop()
        await log.stop()
    assert [one.value for one in found] == [value, value]
    for one in found:
        headers = dict(one.headers)
        published_ms = parse_instant(headers["published_at"].decode())
        assert before_ms <= published_ms <= wall_ms()
        assert int(headers["late_ms"]) == published_ms - at_ms


@pytest.mark.invariant("R8")
async def test_whoever_publishes_what_cannot_be_sent_is_told_and_the_next_is_sent(settings: Settings) -> None:
    topic = trigger_topic("demo")
    log = KafkaLog(settings.own)
    await log.start()
    try:
        with pytest.raises(ValueError, match="ISO 8601"):
            async with asyncio.timeout(60):
                await log.publish(
                    [Record(topic, "user:1", b'{"at":1,"at":"no time at all"}'), Record(PAGE_VIEWS, "u", b"x")]
                )
        async with asyncio.timeout(60):
            await log.publish([Record(topic, "user:1", b"{}")])
    finally:
        await log.stop()


@pytest.mark.invariant("R27")
async def test_a_broker_that_is_gone_is_an_os_error(fresh_broker: parts.Server, settings: Settings) -> None:
    fresh_broker.kill()
    with pytest.raises(OSError, match=f"brokers at {settings.own.bootstrap}"):
        await KafkaLog(settings.own).start()
    with pytest.raises(OSError, match=f"brokers at {settings.own.bootstrap}"):
        await check_topics(settings, INPUT_TOPICS)


@pytest.mark.kafka  # The embedded broker makes every topic it is asked about.
@pytest.mark.invariant("R12")
async def test_a_topic_that_is_not_there_is_an_os_error(settings: Settings) -> None:
    log = KafkaLog(replace(settings.own, request_ms=3_000))
    await log.start()
    with pytest.raises(OSError, match="no_such"):
        await log.publish([Record("no_such", "user:1", b"x")])
    await log.publish(some(50))
    await log.stop()


@pytest.mark.kafka  # The embedded broker takes records of any size.
@pytest.mark.invariant("R2")
async def test_nothing_overtakes_a_record_that_was_refused(settings: Settings) -> None:
    log = KafkaLog(settings.own)
    await log.start()
    key = "user:1"
    huge, later = Record(PAGE_VIEWS, key, b"x" * 3_000_000), Record(PAGE_VIEWS, key, b"later")
    refused = await asyncio.gather(log.publish([huge]), log.publish([later]), return_exceptions=True)
    assert [type(one) for one in refused] == [OSError, OSError]
    await log.publish([Record(PAGE_VIEWS, key, b"small"), later])
    world = KafkaWorld(settings)
    engine = Recorder("a", Store())
    member = world.member(engine)
    await member.start()
    await engine.until(lambda: engine.count() == 2)
    assert list(engine.values.values()) == [[b"small", b"later"]]
    await world.close()
    await log.stop()


async def publish_at_last(world: World, records: Sequence[Record]) -> None:
    """Publish as the engine does: the same records again until they are taken. Doubles are allowed, gaps are not."""
    while True:
        try:
            return await world.publish(records)
        except OSError:
            continue


@pytest.mark.kafka  # The embedded broker forgets when it stops.
@pytest.mark.invariant("R27")
async def test_a_broker_that_is_killed_and_comes_back_costs_nothing(tmp_path: Path) -> None:
    async with real.kafka(tmp_path, port=parts.free_port()) as broker:
        await create_topics(broker.address, wanted_topics(partitions=PARTITIONS))
        world = KafkaWorld(settings_for(broker.address))
        await world.log.start()
        engine = Recorder("a", Store())
        member = world.member(engine)
        await member.start()
        await world.publish(some(300, mark="a"))
        await engine.until(lambda: engine.count() == 300)
        broker.kill()
        publishing = asyncio.ensure_future(publish_at_last(world, some(300, mark="b")))
        await broker.start()
        await publishing
        wanted = by_place(some(300, mark="a") + some(300, mark="b"))
        await engine.until(lambda: all(set(values) <= set(engine.values[place]) for place, values in wanted.items()))
        assert world.gaps == []
        assert all(offsets == list(range(len(offsets))) for offsets in engine.got.values())
        owners_never_overlap(engine.store.history)
        await world.close()


@pytest.mark.invariant("R27")
async def test_a_broker_that_stands_still_for_a_while_costs_nothing(
    fresh_broker: parts.Server, settings: Settings
) -> None:
    world = KafkaWorld(settings)
    await world.log.start()
    engine = Recorder("a", Store())
    member = world.member(engine)
    await member.start()
    await world.publish(some(100, mark="a"))
    await engine.until(lambda: engine.count() == 100)
    fresh_broker.pause()
    publishing = asyncio.ensure_future(world.publish(some(100, mark="b")))
    done, _ = await asyncio.wait([publishing], timeout=1.0)
    assert not done, "published without an answer"
    fresh_broker.resume()
    await publishing
    await engine.until(
        lambda: all(engine.values[p] == v for p, v in by_place(some(100, mark="a") + some(100, mark="b")).items())
    )
    await world.close()


# --- settings and topics


@pytest.mark.invariant("R28")
async def test_missing_topics_and_other_partition_counts_are_refused(settings: Settings) -> None:
    wrong = Settings(Agreed(partitions=16), settings.own)
    with pytest.raises(Refused, match="topic page_views: 16 partitions wanted, got 8"):
        await Worker(wrong, Recorder("a", Store()), KafkaLog(wrong.own)).start()
    with pytest.raises(Refused, match="topic nothing_here: 8 partitions wanted, got no such topic"):
        await check_topics(settings, [PROFILE_COMMANDS, "nothing_here"])


# --- as a process


PROCESS = """
import sys
from stream.app import Worker, run
from stream.log import KafkaLog
from tests.contracts.recorder import Recorder, Store
from tests.contracts.test_transport import Boom, settings_for


class Loud(Recorder):
    async def claim(self, partitions):
        starts = await super().claim(partitions)
        print("claimed", flush=True)
        return starts

    async def release(self, partitions):
        await super().release(partitions)
        print("released", flush=True)


async def make(settings):
    engine, log = Loud("a", Store()), KafkaLog(settings.own)
    engine.log = log
    if "--broken" in sys.argv:
        engine.fail["deliver page_views/3"] = Boom("on purpose")
    print("made", flush=True)
    return Worker(settings, engine, log)


sys.exit(run(settings_for(sys.argv[1]), make))
"""


@pytest.fixture
def process(tmp_path: Path, settings: Settings) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        script = tmp_path / "worker.py"
        script.write_text(PROCESS)
        started.append(
            subprocess.Popen(
                [sys.executable, str(script), settings.own.bootstrap, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
        )
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


def claimed(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    assert [worker.stdout.readline(), worker.stdout.readline()] == ["made\n", "claimed\n"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_process_cleanly(
    process: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    worker = process()
    claimed(worker)
    worker.send_signal(number)
    out, err = worker.communicate(timeout=180)
    assert (worker.returncode, out) == (0, "released\n"), err
    assert "the worker" not in err
    assert "Traceback" not in err


def test_a_signal_during_the_start_stops_the_process_too(process: Callable[..., subprocess.Popen[str]]) -> None:
    worker = process()
    assert worker.stdout is not None
    assert worker.stdout.readline() == "made\n"
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=180)
    assert worker.returncode == 0, err
    assert "Traceback" not in err


@pytest.mark.invariant("R5")
async def test_a_worker_that_was_frozen_lets_go_before_it_goes_on(
    process: Callable[..., subprocess.Popen[str]], settings: Settings
) -> None:
    worker = process()
    await asyncio.to_thread(claimed, worker)
    parts.freeze(worker.pid)
    world = KafkaWorld(settings)
    engine = Recorder("b", Store())
    member = world.member(engine)
    await member.start()
    await engine.until(lambda: len(engine.owned) == PARTITIONS)
    worker.send_signal(signal.SIGCONT)
    assert worker.stdout is not None
    assert await asyncio.to_thread(worker.stdout.readline) == "released\n"
    assert await asyncio.to_thread(worker.stdout.readline) == "claimed\n"
    await engine.until(lambda: len(engine.owned) == PARTITIONS // 2)
    await world.close()


@pytest.mark.invariant("R8")
def test_an_exception_in_the_engine_ends_the_process_with_another_code_than_zero(
    process: Callable[..., subprocess.Popen[str]], settings: Settings
) -> None:
    worker = process("--broken")
    claimed(worker)

    async def publish() -> None:
        log = KafkaLog(settings.own)
        await log.start()
        await log.publish(in_place((PAGE_VIEWS, 3), 1))
        await log.stop()

    asyncio.run(publish())
    out, err = worker.communicate(timeout=180)
    assert (worker.returncode, out) == (1, ""), err
    assert "the worker ends: engine.deliver: Boom: on purpose" in err
