"""The input topics as they lie there now, in the one order in which workers take them: (logical time, topic, offset).

    with History(own, partitions) as history:
        for given in history.read():
            ...

What addresses told one another is left out: whoever runs the log again makes these commands anew. What authorised people
asked for is in. What cannot be read is counted in ``malformed``; workers keep it as dead letters.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heapreplace
from types import TracebackType
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from profiles.errors import BadInput
from profiles.moments import FOREVER
from profiles.wire import (
    INPUT_TOPICS,
    MARK,
    PROFILE_COMMANDS,
    Command,
    Event,
    decode_command,
    decode_event,
    is_operators,
)
from stream.settings import Own
from stream.transport import security

POLL_MS: Final = 1_000
START_S_MAX: Final = 60.0
LOOK_S: Final = 0.02
FETCH_BYTES: Final = 4 << 20


class _Lane:
    """One topic and partition: what was read of it and not handed on."""

    __slots__ = ("begin", "cut", "end", "last_ms", "partition", "place", "topic", "waiting")

    def __init__(self, topic: int, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.place = TopicPartition(INPUT_TOPICS[topic], partition)
        self.waiting: deque[tuple[int, int, Event | Command]] = deque()  # (logical time, offset, input)
        self.last_ms = 0
        self.begin = 0
        self.end = 0
        self.cut = -1  # the first offset of the instant up to which is read; -1: not met


class History:
    """A reader with a loop of its own: to be used where none runs.

    Attributes:
        total: how many events lie there, all topics together.
        malformed: how many of those read hold no input.
    """

    def __init__(self, own: Own, partitions: int) -> None:
        self.total = 0
        self.malformed = 0
        self._where = f"brokers at {own.bootstrap}"
        self._lanes = [_Lane(topic, number) for topic in range(len(INPUT_TOPICS)) for number in range(partitions)]
        self._options = {"bootstrap_servers": own.bootstrap, **security(own)}
        self._runner = asyncio.Runner()
        self._consumer: Any = None
        self._until_ms = FOREVER

    def __enter__(self) -> History:
        try:
            self._runner.run(self._start())
        except (KafkaError, TimeoutError) as error:
            self.__exit__(None, None, None)
            raise OSError(f"{self._where}: one that answers wanted, got {type(error).__name__}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            self._runner.run(self._consumer.stop())
        self._runner.close()

    async def _start(self) -> None:
        self._consumer = AIOKafkaConsumer(
            enable_auto_commit=False, max_partition_fetch_bytes=FETCH_BYTES, **self._options
        )
        await self._consumer.start()
        self._consumer.assign([lane.place for lane in self._lanes])
        begins = await self._begin()
        # What a fetch says of a topic's end; what ListOffsets says is too little on the embedded broker (decision 0001).
        async with asyncio.timeout(START_S_MAX):
            while (ends := [self._consumer.highwater(lane.place) for lane in self._lanes]).count(None):
                await asyncio.sleep(LOOK_S)
        for lane, end in zip(self._lanes, ends, strict=True):
            lane.begin, lane.end = begins[lane.place], end
            if lane.place.topic != PROFILE_COMMANDS:
                self.total += max(0, end - begins[lane.place])

    async def _begin(self) -> dict[TopicPartition, int]:
        places = [lane.place for lane in self._lanes]
        begins: dict[TopicPartition, int] = await self._consumer.beginning_offsets(places)
        for place, offset in begins.items():
            self._consumer.seek(place, offset)
        return begins

    def read(self, until_ms: int = FOREVER) -> Iterator[Event | Command]:
        """All inputs up to the ends that the topics had when we began; ``received_ms`` never goes back.

        Args:
            until_ms: where the reader means to stop: ``cursors`` are of this instant.
        Raises:
            OSError: a broker did not answer.
        """
        self.malformed = 0
        self._until_ms = until_ms
        for lane in self._lanes:
            lane.waiting.clear()
            lane.last_ms = 0
            lane.cut = -1
        self._runner.run(self._begin())
        yield from self._merged()

    def gone(self) -> dict[str, int]:
        """Event topic -> how many of its records lie there no longer; those that lost none are left out."""
        lost: dict[str, int] = {}
        for lane in self._lanes:
            if lane.begin and lane.place.topic != PROFILE_COMMANDS:
                lost[lane.place.topic] = lost.get(lane.place.topic, 0) + lane.begin
        return lost

    def cursors(self) -> dict[tuple[str, int], int]:
        """After reading up to ``until_ms``: where one goes on in each topic and partition.

        Behind all that addresses told one another: whoever goes on tells it anew.
        """
        return {
            (lane.place.topic, lane.partition): lane.cut
            if lane.cut >= 0 and lane.place.topic != PROFILE_COMMANDS
            else lane.end
            for lane in self._lanes
        }

    def behind(self) -> int:
        """How many records lie behind the ``cursors``."""
        cursors = self.cursors()
        return sum(lane.end - cursors[lane.place.topic, lane.partition] for lane in self._lanes)

    def commands_left(self) -> list[Command]:
        """What authorised people asked for and was not handed on when reading stopped. Raises as ``read`` does."""
        left: list[Command] = []
        for lane in self._lanes:
            while lane.place.topic == PROFILE_COMMANDS and (lane.waiting or self._fill(lane)):
                given = lane.waiting.popleft()[2]
                assert isinstance(given, Command)
                left.append(given)
        return left

    def arrivals(self, at: Mapping[tuple[str, int], int]) -> list[int]:
        """When what lies at these offsets of event topics, or next behind one, arrived; of those that lie there.

        Raises:
            OSError: a broker did not answer.
        """
        try:
            return self._runner.run(self._arrivals(at))
        except KafkaError as error:
            raise OSError(f"{self._where}: the log wanted, got {type(error).__name__}") from error

    async def _arrivals(self, at: Mapping[tuple[str, int], int]) -> list[int]:
        found: list[int] = []
        for lane in self._lanes:
            offset = at.get((lane.place.topic, lane.partition), 0)
            if lane.place.topic == PROFILE_COMMANDS or offset >= lane.end:
                continue
            self._consumer.seek(lane.place, max(offset, lane.begin))
            lane.waiting.clear()
            lane.last_ms = 0
            if await self._filled(lane):
                found.append(lane.waiting[0][0])
        return found

    def read_on(self, wait_s: float) -> Iterator[Event | Command]:
        """What has come since, up to the ends that the topics have after that time. Raises as ``read`` does."""
        self._runner.run(self._look_again(wait_s))
        yield from self._merged()

    async def _look_again(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)  # Fetches go on meanwhile, and tell where the topics end.
        for lane in self._lanes:
            lane.end = max(lane.end, self._consumer.highwater(lane.place) or 0)

    def _merged(self) -> Iterator[Event | Command]:
        open_lanes = [lane for lane in self._lanes if self._fill(lane)]
        heads = [_head(lane, number) for number, lane in enumerate(open_lanes)]
        heapify(heads)
        while heads:
            at_ms, _, _, _, number = heads[0]
            lane = open_lanes[number]
            given = lane.waiting.popleft()[2]
            if lane.waiting or self._fill(lane):
                heapreplace(heads, _head(lane, number))
            else:
                heappop(heads)
            given.received_ms = at_ms
            yield given

    def _fill(self, lane: _Lane) -> bool:
        """Read on until the lane has an input; whether it has one."""
        try:
            return self._runner.run(self._filled(lane))
        except KafkaError as error:
            raise OSError(f"{self._where}: the log wanted, got {type(error).__name__}") from error

    async def _filled(self, lane: _Lane) -> bool:
        is_commands = lane.place.topic == PROFILE_COMMANDS
        while not lane.waiting:
            if await self._consumer.position(lane.place) >= lane.end:
                return False
            for records in (await self._consumer.getmany(lane.place, timeout_ms=POLL_MS)).values():
                for record in records:
                    if record.offset >= lane.end:
                        break
                    try:
                        given = decode_command(record.value) if is_commands else decode_event(record.value)
                    except BadInput:
                        self.malformed += 1
                        continue
                    lane.last_ms = max(lane.last_ms, given.received_ms)
                    if lane.cut < 0 and lane.last_ms >= self._until_ms:
                        lane.cut = record.offset
                    if isinstance(given, Event) or (is_operators(given) and given.kind != MARK):
                        lane.waiting.append((lane.last_ms, record.offset, given))
        return True


def _head(lane: _Lane, number: int) -> tuple[int, int, int, int, int]:
    at_ms, offset, _ = lane.waiting[0]
    return at_ms, lane.topic, offset, lane.partition, number
