"""The log in memory: the same ``Log``, and a reader that feeds an engine, for tests, replay and the simulator.

    log = MemoryLog(partitions=8)
    reader = MemoryReader(log, engine, wall_ms)
    await reader.assign(range(8))
    running = asyncio.create_task(reader.run())

Nothing here reads a clock or draws chance, and whatever is done for several places is done in their order: with the
same calls on the same loop two runs are the same. What a real log does to its reader can be done here on purpose:
``lose``, ``expire`` and ``remake``.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from profiles.wire import INPUT_TOPICS, Record
from stream.feed import Chunk, Feed, Gap, Place, partition_for, refused_end
from stream.ports import Engine, LogRecord

IDLE_S: Final = 0.05
"""A reader without news looks again after so long, by the loop's clock, so that the ends of topics stay known."""


class _Tail:
    """The records of one topic and partition."""

    __slots__ = ("begin", "end", "offsets", "records")

    def __init__(self) -> None:
        self.begin = 0
        self.end = 0
        self.offsets: list[int] = []
        self.records: list[LogRecord] = []


class MemoryLog:
    """Partitioned topics; a topic is there when it is first published to or read."""

    def __init__(self, partitions: int) -> None:
        """``partitions`` of every topic."""
        self.partitions = partitions
        self.committed: dict[Place, int] = {}
        self._tails: dict[Place, _Tail] = {}
        self._watchers: list[Callable[[], None]] = []

    # --- the port

    async def publish(self, records: Sequence[Record]) -> None:
        """Append in order; where a key goes is decided as Kafka does."""
        for record in records:
            self.append(record)

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        """Keep the greatest offset of each place, for tests to look at."""
        for place, offset in offsets.items():
            self.committed[place] = max(offset, self.committed.get(place, 0))

    # --- the log

    def append(self, record: Record, partition: int | None = None) -> tuple[int, int]:
        """Append one record; (partition, offset)."""
        topic, key, value = record
        at = partition_for(key, self.partitions) if partition is None else partition
        tail = self._tail((topic, at))
        offset = tail.end
        tail.offsets.append(offset)
        tail.records.append(LogRecord(topic, at, offset, key.encode(), value))
        tail.end += 1
        for tell in self._watchers:
            tell()
        return at, offset

    def read(self, place: Place, offset: int, limit: int) -> list[LogRecord]:
        """At most ``limit`` records from that offset on."""
        tail = self._tail(place)
        first = bisect_left(tail.offsets, offset)
        return tail.records[first : first + limit]

    def begin(self, place: Place) -> int:
        """The first offset that may hold a record."""
        return self._tail(place).begin

    def end(self, place: Place) -> int:
        """The offset of the next record."""
        return self._tail(place).end

    def topics(self) -> list[str]:
        """Every topic there is."""
        return sorted({topic for topic, _ in self._tails})

    def watch(self, tell: Callable[[], None]) -> None:
        """Call this whenever a record is appended."""
        self._watchers.append(tell)

    def unwatch(self, tell: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers.remove(tell)

    # --- what befalls a log

    def lose(self, place: Place, offset: int) -> None:
        """Take one record out, as compaction does: a hole."""
        tail = self._tail(place)
        at = bisect_left(tail.offsets, offset)
        assert tail.offsets[at : at + 1] == [offset], f"{place}: no record {offset} to lose"
        del tail.offsets[at], tail.records[at]

    def expire(self, place: Place, before: int) -> None:
        """Forget all records before that offset, as retention does."""
        tail = self._tail(place)
        assert before <= tail.end, f"{place}: {before} lies after the end {tail.end}"
        at = bisect_left(tail.offsets, before)
        del tail.offsets[:at], tail.records[:at]
        tail.begin = max(tail.begin, before)

    def remake(self, topic: str) -> None:
        """Delete the topic and make it anew, empty."""
        for place in [place for place in self._tails if place[0] == topic]:
            self._tails[place] = _Tail()

    def _tail(self, place: Place) -> _Tail:
        tail = self._tails.get(place)
        if tail is None:
            tail = self._tails[place] = _Tail()
        return tail


class MemoryReader:
    """One worker's reader of a ``MemoryLog``; keeps the rules of ``stream/feed.py``."""

    def __init__(
        self,
        log: MemoryLog,
        engine: Engine,
        wall_ms: Callable[[], int],
        *,
        topics: Iterable[str] = INPUT_TOPICS,
        fetch_records: int = 500,
        idle_s: float = IDLE_S,
        on_gap: Callable[[Gap], None] | None = None,
    ) -> None:
        """Make a reader that owns nothing yet.

        Args:
            wall_ms: the clock of ``read_ms`` and ``answered_ms``.
            topics: the input topics.
            fetch_records: what one turn brings of one place at most.
            idle_s: how long it rests without news.
            on_gap: told of holes that are real; may raise.
        """
        self._log = log
        self._wall_ms = wall_ms
        self._topics = tuple(topics)
        self._fetch_records = fetch_records
        self._idle_s = idle_s
        self._on_gap = on_gap or (lambda gap: None)
        self._news = asyncio.Event()
        self._stopped = False
        self._stamp_ms = 0
        self._answered: dict[Place, int] = {}
        self.fault: tuple[str, BaseException] | None = None
        self.feed = Feed(
            engine, self._topics, on_gap=self._on_gap, on_fault=self._on_fault, on_room=lambda place: self._news.set()
        )
        log.watch(self._news.set)

    async def assign(self, partitions: Iterable[int]) -> None:
        """These are ours from now on, and no others.

        Raises:
            Refused: a topic ends below the engine's cursor.
            Exception: whatever the engine raised. Either is a fault: the reader reads no more.
        """
        try:
            await self._assign(sorted(set(partitions)))
        except Exception as error:
            self._on_fault("assigning", error)
            raise

    async def _assign(self, wanted: list[int]) -> None:
        await self.feed.release([partition for partition in self.feed.owned if partition not in wanted])
        starts = await self.feed.claim(wanted)
        for place, offset in starts.items():
            begin, end = self._log.begin(place), self._log.end(place)
            if end < offset:
                raise refused_end(*place, offset, end)
            if begin > offset:
                self._on_gap(Gap(*place, offset, begin))
                starts[place] = begin
        self.feed.begin(starts)
        self._news.set()

    def turn(self) -> bool:
        """One fetch of everything that can be read, handed to the engine; whether there was any record.

        Deliveries are tasks: they run when the caller lets the loop run.
        """
        moved = False
        places = self.feed.places()
        for place in sorted(self.feed.ready()):
            # Each look is an answer of its own: what comes to another place between two of them is not seen by the first.
            self._stamp_ms = max(self._stamp_ms + 1, self._wall_ms())
            records = self._log.read(place, places[place], self._fetch_records)
            chunk: Chunk | None = None
            if records:
                chunk, back = self.feed.admit(*place, records, self._stamp_ms)
                if back is not None:
                    self._news.set()  # Look again at once.
                if chunk is not None:
                    self.feed.hand(chunk, lambda: None)
                    moved = True
            end = self._log.end(place)
            if records:
                self.feed.check_end(*place, end, end, self._stamp_ms)
            else:
                self.feed.at_end(*place, end, self._stamp_ms)
        return moved

    async def run(self) -> None:
        """Read until ``stop``.

        Raises:
            Refused: the log cannot be the one that we know.
            BaseException: whatever the engine raised.
        """
        while not self._stopped and self.fault is None:
            self._news.clear()
            try:
                self.turn()
            except Exception as error:
                self._on_fault("reading", error)
                break
            if self._news.is_set():
                await asyncio.sleep(0)
                continue
            try:
                async with asyncio.timeout(self._idle_s):
                    await self._news.wait()
            except TimeoutError:
                pass
        if self.fault is not None:
            raise self.fault[1]

    async def stop(self) -> None:
        """Let go of everything. After a fault nothing is released."""
        self._stopped = True
        self._news.set()
        self._log.unwatch(self._news.set)
        if self.fault is None:
            await self.feed.release(self.feed.owned)

    def _on_fault(self, where: str, error: BaseException) -> None:
        if self.fault is None:
            self.fault = (where, error)
            self._news.set()
