"""A shop for tests of the engine: its log and its store outlive their workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from profiles.codec import decode
from profiles.ids import SHARDS
from profiles.moments import parse_instant
from profiles.state import Profile
from profiles.wire import (
    CUSTOMER_EVENTS,
    FACTS,
    INPUT_TOPICS,
    ORDER_EVENTS,
    PROFILE_COMMANDS,
    Command,
    Event,
    Record,
    decode_command,
    decode_event,
    encode_event,
)
from rules.compile import compile_rules
from rules.rulebook import Rulebook
from stream.clock import LogClock, SystemIds, wall_ms
from stream.facts import Standing, read_told
from stream.handlers import Handlers
from stream.log_memory import MemoryLog, MemoryReader
from stream.ports import ProfileStore
from stream.rulebook import publish
from stream.settings import Own
from stream.store_memory import MemoryStore

PARTITIONS: Final = 2
START_MS: Final = parse_instant("2026-03-02T10:00:00Z")


class PowerCut(Exception):
    """Raised where a worker is to end with nothing settled of what is under way."""


async def _stopped(reader: MemoryReader, running: asyncio.Task[None], engine: Handlers) -> None:
    await reader.stop()
    await running
    await engine.stop()


class Shop:
    """A store and a log that outlive their workers."""

    def __init__(self, rules: Rulebook, store: ProfileStore | None = None) -> None:
        self.rules = rules
        self.log = MemoryLog(PARTITIONS)
        self.store = store if store is not None else MemoryStore(LogClock())
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

    async def rule(self, *files: str) -> None:
        """Put these rules in force."""
        named = [(str(number), text) for number, text in enumerate(files)]
        self.rules = (await publish(self.store, compile_rules(named), named)).rulebook

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Handlers]:
        engine = Handlers(self.store, self.log, LogClock(), SystemIds(), self.rules, Own(), PARTITIONS, relaxed=True)
        await engine.start()
        reader = MemoryReader(self.log, engine, wall_ms)
        await reader.assign(list(range(PARTITIONS)))
        running = asyncio.create_task(reader.run())
        try:
            yield engine
        except PowerCut:
            running.cancel()
            await asyncio.wait([running])
            await engine.stop(broken=True)
            return
        except BaseException:
            await _stopped(reader, running, engine)
            raise
        await _stopped(reader, running, engine)

    def commands(self) -> list[Command]:
        found = []
        for partition in range(PARTITIONS):
            records = self.log.read((PROFILE_COMMANDS, partition), 0, 10_000)
            found += [one for one in map(decode_command, (record.value for record in records)) if one.kind == FACTS]
        return found

    async def standing(self) -> list[Standing]:
        return [read_told(state.generation) for state in await self.store.read_shards(range(SHARDS))]

    async def profiles(self) -> dict[str, Profile]:
        """Everybody, as stored."""
        found: dict[str, Profile] = {}
        for state, number in zip(await self.store.read_shards(range(SHARDS)), range(SHARDS), strict=True):
            names = await self.store.named(number, 0, state.ordinals) if state.ordinals else []
            for name, blob in zip(names, await self.store.load(names), strict=True):
                if blob is not None:
                    found[name] = decode(name, blob)
        return found

    def inputs(self) -> list[Event | Command]:
        """What was said, and what was told to partitions, in the order of logical time."""
        found: list[tuple[int, int, int, Event | Command]] = []
        for partition in range(PARTITIONS):
            for place, topic in enumerate(INPUT_TOPICS):
                for record in self.log.read((topic, partition), 0, 10_000):
                    if topic != PROFILE_COMMANDS:
                        event = decode_event(record.value)
                        found.append((event.received_ms, place, record.offset, event))
                    elif (command := decode_command(record.value)).kind == FACTS:
                        found.append((command.received_ms, place, record.offset, command))
        return [one[3] for one in sorted(found, key=lambda one: one[:3])]

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
