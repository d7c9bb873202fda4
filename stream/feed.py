"""What a reader owes the engine, whatever the log is: Kafka's consumer and the log in memory both stand on this.

    starts = await feed.claim([3, 5])       # asks the engine where to begin
    feed.begin(starts)
    chunk, back = feed.admit(topic, 3, records, read_ms)
    feed.hand(chunk, done)                  # engine.deliver, in a task of its own
    feed.at_end(topic, 3, position, ms)     # only when all below `position` was taken
    await feed.release([3])

Rules:

- Records are handed over in order, each once, from the claimed offset on; what lies below is skipped (R6).
- One chunk a (topic, partition) is under way; while ``deliver`` suspends, the reader leaves that one alone and goes on
  with the others, so the topics of a partition, which the engine merges by time, cannot wait for each other.
- A hole in the offsets is read again before it is believed; if it is still there it is reported, then passed (R6).
- Claim and release follow one another; before ``release`` is called no ``deliver`` of those partitions runs: one that
  waits is cancelled. What was read before a release and comes after it is dropped.
- An exception out of the engine reaches ``on_fault`` and nothing more of that partition is delivered (R8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from profiles.errors import Refused
from profiles.ids import SHARDS, murmur2, shard_of
from stream.ports import Engine, LogRecord

Place = tuple[str, int]
"""(topic, partition)."""

LOW_END_MS_MAX: Final = 10_000


class Gap(NamedTuple):
    """The log has no records with offsets in ``[wanted, found)``: compacted, expired, lost, or a transaction's mark."""

    topic: str
    partition: int
    wanted: int
    found: int


@dataclass(slots=True, eq=False)
class _Reading:
    """How far one topic of one partition has been read."""

    wanted: int  # the next offset
    busy: bool = False  # a chunk is under way to the engine
    task: asyncio.Task[None] | None = None
    doubt: tuple[int, int] | None = None  # a hole that was seen once
    told_ms: int = 0  # the last `answered_ms` of at_end
    low_ms: int = 0  # since when the broker tells an end below `wanted`


@dataclass(slots=True, eq=False)
class Chunk:
    """What one fetch brought of one topic and partition."""

    topic: str
    partition: int
    records: Sequence[LogRecord]
    read_ms: int
    reading: _Reading = field(repr=False)


class Feed:
    """Feeds one engine from one log."""

    def __init__(
        self,
        engine: Engine,
        topics: Sequence[str],
        *,
        on_gap: Callable[[Gap], None],
        on_fault: Callable[[str, BaseException], None],
        on_room: Callable[[Place], None],
    ) -> None:
        """Make a feed that owns nothing yet.

        Args:
            topics: the input topics; a claim must answer for each.
            on_gap: told of every hole that is real; may raise to stop the worker.
            on_fault: told where, and what the engine raised; must see to it that the process ends.
            on_room: this place can be read again.
        """
        self._engine = engine
        self._topics = tuple(topics)
        self._on_gap = on_gap
        self._on_fault = on_fault
        self._on_room = on_room
        self._readings: dict[Place, _Reading] = {}
        self._owned: set[int] = set()
        self._turn = asyncio.Lock()

    # --- who owns what

    async def claim(self, partitions: Sequence[int]) -> dict[Place, int]:
        """Claim those of these partitions that are not ours yet; where to start each of their topics."""
        async with self._turn:
            new = sorted(set(partitions) - self._owned)
            if not new:
                return {}
            self._owned.update(new)
            starts = await self._engine.claim(new)
        wanted = {(topic, partition) for topic in self._topics for partition in new}
        assert set(starts) == wanted, f"claim: starts for {sorted(wanted)} wanted, got {sorted(starts)}"
        return {place: starts[place] for place in sorted(starts)}

    def begin(self, starts: Mapping[Place, int]) -> None:
        """Read these places from there on; those whose partition was released meanwhile are left out."""
        for place, offset in starts.items():
            if place[1] in self._owned:
                self._readings[place] = _Reading(offset)

    async def release(self, partitions: Sequence[int]) -> None:
        """Let go of those of these partitions that are ours; nothing of theirs is under way afterwards."""
        gone = set(partitions)
        waiting = []
        for place in [place for place in self._readings if place[1] in gone]:
            task = self._readings.pop(place).task
            if task is not None and not task.done():
                task.cancel()
                waiting.append(task)
        if waiting:
            await asyncio.wait(waiting)
        async with self._turn:
            ours = sorted(gone & self._owned)
            # A claim that was under way when we came has begun nothing since, or is dropped here.
            for place in [place for place in self._readings if place[1] in gone]:
                del self._readings[place]
            if ours:
                self._owned.difference_update(ours)
                await self._engine.release(ours)

    @property
    def owned(self) -> list[int]:
        """The partitions that are ours."""
        return sorted(self._owned)

    def places(self) -> dict[Place, int]:
        """What is being read, and the next offset of each."""
        return {place: reading.wanted for place, reading in self._readings.items()}

    def ready(self) -> list[Place]:
        """What may be read now."""
        return [place for place, reading in self._readings.items() if not reading.busy]

    # --- records

    def admit(
        self, topic: str, partition: int, records: Sequence[LogRecord], read_ms: int
    ) -> tuple[Chunk | None, int | None]:
        """Take what a fetch brought.

        Args:
            records: offsets ascending, not empty.
            read_ms: when the fetch was answered.
        Returns:
            The chunk to hand over, if any, and the offset to read again from, if a hole wants a second look.
        """
        reading = self._readings.get((topic, partition))
        if reading is None:
            return None, None
        assert not reading.busy, f"{topic}/{partition}: read while a chunk is under way"
        wanted, last = reading.wanted, records[-1].offset
        back: int | None = None
        if records[0].offset != wanted or last - wanted + 1 != len(records):
            records, back = self._sound(topic, partition, reading, records)
        if not records:
            return None, back
        reading.wanted = records[-1].offset + 1
        reading.busy = True
        return Chunk(topic, partition, records, read_ms, reading), back

    def _sound(
        self, topic: str, partition: int, reading: _Reading, records: Sequence[LogRecord]
    ) -> tuple[Sequence[LogRecord], int | None]:
        """The part that may be handed over, and where to look again. Holes seen twice are reported and passed."""
        wanted = reading.wanted
        sound: list[LogRecord] = []
        for record in records:
            offset = record.offset
            if offset < wanted:
                continue
            if offset > wanted:
                if reading.doubt != (wanted, offset):
                    reading.doubt = (wanted, offset)
                    return sound, wanted
                reading.doubt = None
                self._on_gap(Gap(topic, partition, wanted, offset))
            sound.append(record)
            wanted = offset + 1
        return sound, None

    def hand(self, chunk: Chunk, done: Callable[[], object]) -> None:
        """Give a chunk to the engine, in a task; ``done`` is called when it has taken it, or nobody wants it."""
        reading = chunk.reading
        if self._readings.get((chunk.topic, chunk.partition)) is not reading:
            done()  # The partition was released meanwhile, and perhaps claimed anew.
            return
        reading.task = asyncio.get_running_loop().create_task(self._deliver(chunk, done))

    async def _deliver(self, chunk: Chunk, done: Callable[[], object]) -> None:
        try:
            await self._engine.deliver(chunk.topic, chunk.partition, chunk.records, chunk.read_ms)
        except BaseException as error:
            place = (chunk.topic, chunk.partition)
            if isinstance(error, asyncio.CancelledError) and self._readings.get(place) is not chunk.reading:
                done()  # `release` cancelled us.
                raise
            self._on_fault("engine.deliver", error)
            return
        chunk.reading.busy = False
        chunk.reading.task = None
        done()
        self._on_room((chunk.topic, chunk.partition))

    def at_end(self, topic: str, partition: int, position: int, answered_ms: int) -> bool:
        """The topic ended at ``position`` when a fetch was answered, and everything below was read.

        Returns:
            Whether it could be told: not while a chunk is under way; ask again when there is room.
        """
        reading = self._readings.get((topic, partition))
        if reading is None:
            return True
        if reading.busy:
            return False
        self.check_end(topic, partition, position, position, answered_ms)
        if answered_ms > reading.told_ms:
            reading.told_ms = answered_ms
            self._engine.at_end(topic, partition, position, answered_ms)
        return True

    def check_end(self, topic: str, partition: int, end: int, position: int, answered_ms: int) -> None:
        """The topic's end as the broker tells it.

        Args:
            position: the offset that the broker was asked for; below our cursor where the log does not reach that far.
            answered_ms: when it answered.
        Raises:
            Refused: the end lies below what we have read: the topic was made anew, or the broker lost records (R10).
        """
        reading = self._readings.get((topic, partition))
        if reading is None:
            return
        if end >= reading.wanted:
            reading.low_ms = 0
        elif position < reading.wanted or answered_ms - (reading.low_ms or answered_ms) > LOW_END_MS_MAX:
            raise refused_end(topic, partition, reading.wanted, end)
        else:
            # A broker that was killed, or has just become the leader, tells the end that it wrote down last until it
            # has caught up with its own log.
            reading.low_ms = reading.low_ms or answered_ms


def refused_end(topic: str, partition: int, wanted: int, end: int) -> Refused:
    """What to raise when a topic ends below our cursor."""
    return Refused(
        f"{topic}/{partition}: an end at or after our cursor {wanted} wanted, got {end}; was the topic made anew? "
        "Then `opportune topics anew` goes on from its beginning"
    )


def partition_for(key: str, partitions: int) -> int:
    """Where Kafka's default partitioner puts a key; where the partitions divide the shards, by the shard."""
    if SHARDS % partitions == 0:
        return shard_of(key) % partitions
    return _positive_murmur2(key) % partitions


@lru_cache(maxsize=65_536)
def _positive_murmur2(key: str) -> int:
    return murmur2(key.encode()) & 0x7FFFFFFF
