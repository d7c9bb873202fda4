"""A small engine that writes down what it is fed, and two worlds that feed it: Kafka's and the one in memory."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from profiles.wire import INPUT_TOPICS, Record
from stream.app import Fault, Worker
from stream.clock import wall_ms
from stream.feed import Gap, Place
from stream.log import KafkaLog
from stream.log_memory import MemoryLog, MemoryReader
from stream.ports import Log, LogRecord
from stream.settings import Settings
from stream.transport import share_out


class Store:
    """What outlives engines: a cursor a place, and the history of who owned what."""

    def __init__(self) -> None:
        self.cursor: dict[Place, int] = {}
        self.history: list[tuple[str, str, int]] = []  # (engine, claim | release, partition)


class Recorder:
    """An ``Engine`` that takes records at once, or waits where it is told to.

    Attributes:
        got: the offsets delivered of each place, in order.
        ends: the last (position, answered_ms) told of each place; ``read_ms`` the last delivery's.
        hold: places whose ``deliver`` suspends until ``let_go``.
        fail: what to raise, by the name of the door.
    """

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.store = store
        self.log: Log | None = None
        self.got: dict[Place, list[int]] = defaultdict(list)
        self.values: dict[Place, list[bytes]] = defaultdict(list)
        self.ends: dict[Place, tuple[int, int]] = {}
        self.read_ms: dict[Place, int] = {}
        self.hold: set[Place] = set()
        self.waiting: set[Place] = set()
        self.fail: dict[str, Exception] = {}
        self.owned: set[int] = set()
        self._changed = asyncio.Event()

    async def claim(self, partitions: Sequence[int]) -> dict[Place, int]:
        self._door("claim")
        assert not self.owned & set(partitions), f"{self.name}: {partitions} claimed twice"
        self.owned |= set(partitions)
        self.store.history += [(self.name, "claim", partition) for partition in partitions]
        return {
            (topic, partition): self.store.cursor.get((topic, partition), 0)
            for topic in INPUT_TOPICS
            for partition in partitions
        }

    async def release(self, partitions: Sequence[int]) -> None:
        self._door("release")
        assert set(partitions) <= self.owned, f"{self.name}: {partitions} released, owned {self.owned}"
        assert not [place for place in self.waiting if place[1] in partitions], "a deliver is under way"
        self.owned -= set(partitions)
        self.store.history += [(self.name, "release", partition) for partition in partitions]

    async def deliver(self, topic: str, partition: int, records: Sequence[LogRecord], read_ms: int) -> None:
        place = (topic, partition)
        assert partition in self.owned, f"{self.name}: {place} is not ours"
        assert place not in self.waiting, f"{place}: two chunks at once"
        assert all((record.topic, record.partition) == place for record in records)
        self._door(f"deliver {topic}/{partition}")
        self.waiting.add(place)
        self._changed.set()
        try:
            while place in self.hold:
                self._changed.clear()
                await self._changed.wait()
        finally:
            self.waiting.discard(place)
        self.got[place] += [record.offset for record in records]
        self.values[place] += [record.value for record in records]
        self.read_ms[place] = read_ms
        self.store.cursor[place] = records[-1].offset + 1
        assert self.log is not None
        await self.log.commit({place: records[-1].offset + 1})
        self._changed.set()

    def at_end(self, topic: str, partition: int, position: int, answered_ms: int) -> None:
        self._door("at_end")
        place = (topic, partition)
        assert place not in self.waiting, f"{place}: the end was told while a chunk waits"
        before = self.ends.get(place)
        assert before is None or before[1] < answered_ms, f"{place}: {before} and then {answered_ms}"
        self.ends[place] = (position, answered_ms)
        self._changed.set()

    def let_go(self, place: Place) -> None:
        self.hold.discard(place)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is true; it is looked at whenever the engine was called."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def count(self) -> int:
        return sum(len(offsets) for offsets in self.got.values())

    def _door(self, name: str) -> None:
        if name in self.fail:
            raise self.fail[name]


class Member(Protocol):
    """A worker of one of the worlds."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def wait(self) -> None: ...
    @property
    def partitions(self) -> list[int]: ...


class World(Protocol):
    """A log with a group of workers."""

    gaps: list[Gap]

    async def publish(self, records: Sequence[Record]) -> None: ...
    def member(self, engine: Recorder) -> Member: ...
    async def committed(self) -> Mapping[Place, int]: ...
    async def close(self) -> None: ...


class MemoryMember:
    """A ``MemoryReader`` in its world's group."""

    def __init__(self, world: MemoryWorld, engine: Recorder) -> None:
        engine.log = world.log
        self.world = world
        self.name = engine.name
        self.reader = MemoryReader(world.log, engine, wall_ms, on_gap=world.gaps.append, fetch_records=50)
        self.running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.world.members.append(self)
        try:
            await self.world.rebalance()
        except Exception as error:
            raise Fault("claiming", error) from error
        self.running = asyncio.ensure_future(self.reader.run())

    async def stop(self) -> None:
        if self in self.world.members:
            self.world.members.remove(self)
            await self.reader.stop()
            await self.world.rebalance()

    async def wait(self) -> None:
        assert self.running is not None
        try:
            await self.running
        except Exception as error:
            raise Fault(self.reader.fault[0] if self.reader.fault else "", error) from error

    @property
    def partitions(self) -> list[int]:
        return self.reader.feed.owned


class MemoryWorld:
    """The log in memory; a group that shares its partitions out as Kafka's does: all let go, then all claim."""

    def __init__(self, partitions: int) -> None:
        self.log = MemoryLog(partitions)
        self.gaps: list[Gap] = []
        self.members: list[MemoryMember] = []

    async def publish(self, records: Sequence[Record]) -> None:
        await self.log.publish(records)

    def member(self, engine: Recorder) -> MemoryMember:
        return MemoryMember(self, engine)

    async def rebalance(self) -> None:
        alive = [member for member in self.members if member.reader.fault is None]
        owned = {member.name: member.partitions for member in alive}
        for member in alive:
            await member.reader.assign([])
        if owned:
            shares = share_out(self.log.partitions, owned)
            for member in alive:
                await member.reader.assign(shares[member.name])

    async def committed(self) -> Mapping[Place, int]:
        return self.log.committed

    async def close(self) -> None:
        for member in list(self.members):
            await member.stop()


class KafkaWorld:
    """A broker; workers of one group on it, all in this loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.gaps: list[Gap] = []
        self.log = KafkaLog(settings.own)
        self.members: list[Worker] = []

    async def publish(self, records: Sequence[Record]) -> None:
        await self.log.publish(records)

    def member(self, engine: Recorder) -> Worker:
        log = KafkaLog(self.settings.own)
        engine.log = log
        worker = Worker(self.settings, engine, log, on_gap=self.gaps.append)
        self.members.append(worker)
        return worker

    async def committed(self) -> Mapping[Place, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.own.bootstrap)
        await admin.start()
        try:
            # Asked for all of a group's offsets the embedded broker gives an answer that cannot be read.
            every = [
                TopicPartition(topic, partition)
                for topic in INPUT_TOPICS
                for partition in range(self.settings.agreed.partitions)
            ]
            found = await admin.list_consumer_group_offsets(self.settings.own.group, partitions=every)
            return {(tp.topic, tp.partition): at.offset for tp, at in found.items() if at.offset >= 0}
        finally:
            await admin.close()

    async def close(self) -> None:
        for worker in self.members:
            await worker.stop()
        await self.log.stop()
