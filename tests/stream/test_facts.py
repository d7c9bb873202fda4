"""Facts through the engine: one worker looks the base over, every shard knows at its place in the log, every profile meets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgpack
import pytest

from profiles.codec import decode
from profiles.ids import SHARDS
from profiles.moments import DAY_MS, HOUR_MS, parse_instant
from profiles.state import Profile
from profiles.wire import (
    CUSTOMER_EVENTS,
    FACTS,
    INPUT_TOPICS,
    ORDER_EVENTS,
    PROFILE_COMMANDS,
    SEGMENT_CHANGES,
    TRAIT_CHANGES,
    Command,
    Event,
    Record,
    decode_command,
    decode_event,
    encode_event,
)
from rules.compile import compile_rules
from rules.outcome import Step
from rules.rulebook import Rulebook
from stream import facts
from stream.clock import LogClock, SystemIds, wall_ms
from stream.facts import SCAN, Met, is_due, next_ms, read_told, told
from stream.handlers import Handlers
from stream.log_memory import MemoryLog, MemoryReader
from stream.replay import replayed
from stream.settings import Own
from stream.store_memory import MemoryStore

PARTITIONS: Final = 2
START_MS: Final = parse_instant("2026-03-02T10:00:00Z")
RULES: Final = """
traits:
  spent: {sum: order.total}
  tier: {tiers: spent, by: quantile, cuts: [0.5], labels: [low, high], publish: true}
segments:
  top: {trait: tier, eq: high}
  lapsed: {trait: last_order_at, older_than: P1D}
"""


class Shop:
    """A store and a log that outlive their workers."""

    def __init__(self, rules: Rulebook) -> None:
        self.rules = rules
        self.log = MemoryLog(PARTITIONS)
        self.store = MemoryStore(LogClock())
        self.sent = 0

    def buys(self, who: str, total: int, at_ms: int) -> None:
        self.sent += 1
        props = {"order_id": f"o{self.sent}", "total_minor": total * 100, "currency": "USD", "items": []}
        event = Event(f"m{self.sent}", "shop", "order_completed", at_ms, at_ms, f"user:{who}", props=props)
        self.log.append(Record(ORDER_EVENTS, event.address, encode_event(event)))

    def looks(self, who: str, at_ms: int) -> None:
        self.sent += 1
        event = Event(f"m{self.sent}", "shop", "identified", at_ms, at_ms, f"user:{who}")
        self.log.append(Record(CUSTOMER_EVENTS, event.address, encode_event(event)))

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Handlers]:
        engine = Handlers(self.store, self.log, LogClock(), SystemIds(), self.rules, Own(), PARTITIONS, relaxed=True)
        await engine.start()
        reader = MemoryReader(self.log, engine, wall_ms)
        await reader.assign(list(range(PARTITIONS)))
        running = asyncio.create_task(reader.run())
        try:
            yield engine
        finally:
            await reader.stop()
            await running
            await engine.stop()

    def commands(self) -> list[Command]:
        found = []
        for partition in range(PARTITIONS):
            records = self.log.read((PROFILE_COMMANDS, partition), 0, 10_000)
            found += [one for one in map(decode_command, (record.value for record in records)) if one.kind == FACTS]
        return found

    async def known(self) -> list[tuple[tuple[Met, ...], int]]:
        return [read_told(state.generation) for state in await self.store.read_shards(range(SHARDS))]

    def told(self, topic: str) -> dict[str, list[bytes]]:
        """What was published on a topic, by key."""
        found: dict[str, list[bytes]] = {}
        for partition in range(PARTITIONS):
            for record in self.log.read((topic, partition), 0, 100_000):
                assert record.key is not None
                known = found.setdefault(record.key.decode(), [])
                if record.value not in known:
                    known.append(record.value)
        return found


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not what():
            await asyncio.sleep(0.02)


async def met_all(shop: Shop, number: int) -> None:
    """Every shard knows these facts, and its walk is round."""
    async with asyncio.timeout(120):
        while True:
            known = await shop.known()
            if all(one and one[-1].number == number and place < 0 for one, place in known):
                return
            await asyncio.sleep(0.05)


@pytest.mark.mechanic("M30")
@pytest.mark.invariant("R13")
async def test_the_base_is_looked_over_and_everybody_meets_what_was_found_and_a_replay_finds_the_same() -> None:
    shop = Shop(compile_rules([("rules", RULES)]))
    for number in range(40):
        shop.buys(str(number), number + 1, START_MS + number)
    async with shop.worker() as engine:
        await met_all(shop, 1)
        await until(lambda: engine.progress().is_settled)
        assert await shop.store.segment_sizes(["top"]) == {"top": 20}
        # Nobody but who comes again is loaded by an event; the others have met by the walk.
        shop.buys("0", 100, START_MS + HOUR_MS)
        shop.looks("new", START_MS + HOUR_MS)
        # A day later the base is looked over again.
        shop.looks("1", START_MS + DAY_MS)
        await met_all(shop, 2)
        await until(lambda: engine.progress().is_settled)
    first, second = {one.body for one in shop.commands() if one.link[0] == 1}, shop.commands()
    assert len(first) == 1
    assert len(second) == 2 * PARTITIONS
    values = msgpack.unpackb(next(iter(first)))["values"]["trait:spent"][""]
    assert (values["n"], values["1/2"]) == (40, 2000 * 64), "the customer in the middle"
    profiles = {address: decode(address, blob) for address, blob in shop.store.profiles().items()}
    assert {one.swept for one in profiles.values()} == {2}

    def source() -> list[Event | Command]:
        found: list[tuple[int, int, int, Event | Command]] = []
        for partition in range(PARTITIONS):
            for place, topic in enumerate(INPUT_TOPICS):
                for record in shop.log.read((topic, partition), 0, 10_000):
                    if topic != PROFILE_COMMANDS:
                        event = decode_event(record.value)
                        found.append((event.received_ms, place, record.offset, event))
                    elif (command := decode_command(record.value)).kind == FACTS:
                        found.append((command.received_ms, place, record.offset, command))
        return [one[3] for one in sorted(found, key=lambda one: one[:3])]

    class Heard:
        def __init__(self) -> None:
            self.records: dict[str, dict[str, list[bytes]]] = {}

        def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
            for one in out.records:
                self.records.setdefault(one.topic, {}).setdefault(one.key, []).append(one.value)

    again = replayed(source, shop.rules, None, Heard)
    for topic in (SEGMENT_CHANGES, TRAIT_CHANGES):
        assert shop.told(topic) == again.heard.records[topic], topic
    assert {one: again.profiles[one].members.keys() for one in profiles} == {
        one: profile.members.keys() for one, profile in profiles.items()
    }


async def test_a_scan_goes_on_where_the_worker_before_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(compile_rules([("rules", RULES)]))
    for number in range(60):
        shop.buys(str(number), number + 1, START_MS + number)
    monkeypatch.setattr(facts, "REST", 1)
    monkeypatch.setattr(facts, "PAGE", 1)

    async def so_far() -> tuple[int, int]:
        kept = await shop.store.get_doc(SCAN)
        state = msgpack.unpackb(kept, strict_map_key=False) if kept else None
        return (state["shard"], state["scan"]["profiles"]) if state is not None else (0, 0)

    async with shop.worker() as engine:
        await until(lambda: engine.progress().applied[ORDER_EVENTS] == 60)
        async with asyncio.timeout(120):
            while (await so_far())[1] < 10:
                await asyncio.sleep(0.02)
    shard, looked_at = await so_far()
    assert looked_at >= 10
    assert not shop.commands()
    monkeypatch.setattr(facts, "PAGE", 200)
    asked: list[int] = []
    named = shop.store.named

    async def noting(number: int, first: int, limit: int) -> list[str]:
        asked.append(number)
        return await named(number, first, limit)

    monkeypatch.setattr(shop.store, "named", noting)
    async with shop.worker():
        await until(lambda: bool(shop.commands()))
    # Who was looked at before is not looked at again, and counts all the same. (What is asked later is the walks'.)
    assert asked[0] >= shard
    assert msgpack.unpackb(shop.commands()[0].body)["values"]["trait:spent"][""]["n"] == 60


async def test_a_successor_knows_the_facts_of_its_shards_and_goes_on_with_their_walks() -> None:
    shop = Shop(compile_rules([("rules", RULES)]))
    for number in range(20):
        shop.buys(str(number), number + 1, START_MS + number)
    async with shop.worker() as engine:
        await until(lambda: bool(engine._owned.shards) and engine._owned.shards[0].newest == 1)
    async with shop.worker() as engine:
        await met_all(shop, 1)
        shop.buys("0", 500, START_MS + HOUR_MS)
        await until(lambda: engine.progress().applied[ORDER_EVENTS] == 21)
        await until(lambda: engine.progress().is_settled)
    assert await shop.store.segment_sizes(["top"]) == {"top": 11}


async def test_rules_that_need_no_facts_have_the_base_never_looked_over() -> None:
    shop = Shop(compile_rules([("rules", "segments: {buyers: {did: order}}")]))
    shop.buys("1", 1, START_MS)
    async with shop.worker() as engine:
        await until(lambda: engine.progress().applied[ORDER_EVENTS] == 1)
        for _ in range(10):
            await asyncio.sleep(0.05)
    assert await shop.store.get_doc(SCAN) is None
    assert not shop.commands()
    assert {known for known, _ in await shop.known()} == {()}


def test_what_a_shard_says_of_its_facts_is_read_again() -> None:
    known = (Met(1, 5, "ab", False), Met(2, 9, "cd", True))
    assert read_told(told("rules", known, 400)) == (known, 400)
    assert read_told(told("rules", (), -1)) == ((), -1) == read_told("")


def test_the_base_is_looked_over_at_four_in_the_shops_morning() -> None:
    book = compile_rules([("rules", RULES)], zone="Europe/Berlin")
    assert next_ms(parse_instant("2026-03-28T02:00:00Z"), book.zone) == parse_instant("2026-03-28T03:00:00Z")
    assert next_ms(parse_instant("2026-03-28T03:00:00Z"), book.zone) == parse_instant("2026-03-29T02:00:00Z")
    assert is_due(None, book, 0)
