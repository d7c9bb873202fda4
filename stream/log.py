"""The ``Log`` port on Kafka: publishing by a producer of our own; commits are passed on to the consumer.

Records go out in batches made here, one lane a (topic, partition). A lane has one batch under way; what is
published meanwhile gathers and leaves as the next one, so batches grow with the load and nobody waits for company.

Order per key: a key's records stay in one lane, a lane is first in, first out, and a batch leaves only when the one
before it was acknowledged. If a batch fails, everything that waits behind it in its lane fails with it: nothing
overtakes. The embedded broker refuses idempotent producers; a repeated send after a lost answer therefore doubles
records, which is allowed (R12, R13: same id, same bytes).

A trigger record's bytes hold logical times only; how late it is by this process's clock stands beside them, in headers
``published_at`` (ISO 8601) and ``late_ms`` (since its ``at``), and may differ when it is published again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiokafka
from aiokafka.errors import KafkaError

from profiles.moments import iso, parse_instant
from profiles.wire import TRIGGERS_PREFIX, Record
from stream.clock import wall_ms
from stream.feed import Place, partition_for
from stream.settings import Own
from stream.transport import security

_AT: Final = b',"at":"'
"""Nowhere else in a trigger record before its own ``at``: in a text quotation marks are escaped."""
_ISO_CHARS: Final = len("2026-11-22T15:04:05.000Z")


def _lateness(value: bytes, now_ms: int) -> list[tuple[str, bytes]]:
    """The headers of a trigger record that is published now."""
    found = value.find(_AT)
    if found < 0:
        return []  # Bytes of somebody else's making.
    starts = found + len(_AT)
    at_ms = parse_instant(value[starts : starts + _ISO_CHARS].decode("ascii"))
    return [("published_at", iso(now_ms).encode()), ("late_ms", str(max(0, now_ms - at_ms)).encode())]


class _Ticket:
    """One ``publish`` under way: how many of its records are not acknowledged yet."""

    __slots__ = ("done", "missing")

    def __init__(self, records: int, loop: asyncio.AbstractEventLoop) -> None:
        self.missing = records
        self.done: asyncio.Future[None] = loop.create_future()

    def acknowledged(self, records: int) -> None:
        self.missing -= records
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Lane:
    """What waits for one topic and partition."""

    __slots__ = ("task", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, bytes, _Ticket]] = deque()
        self.task: asyncio.Task[None] | None = None


class KafkaLog:
    """``Log`` of a real worker."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._producer: Any = None
        self._lanes: dict[Place, _Lane] = {}
        self._counts: dict[str, int] = {}
        self._commits: dict[Place, int] = {}

    async def start(self) -> None:
        """Connect.

        Raises:
            OSError: no broker answered.
        """
        own = self._own
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=own.bootstrap,
            client_id=own.group,
            acks="all",
            enable_idempotence=False,
            linger_ms=own.publish_linger_ms,
            max_batch_size=own.publish_batch_bytes,
            request_timeout_ms=own.request_ms,
            **security(own),
        )
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise OSError(f"brokers at {own.bootstrap}: one that answers wanted, got {type(error).__name__}") from error

    async def stop(self) -> None:
        """Send what waits, and disconnect."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._own.request_ms / 1000)
        if self._producer is not None:
            await self._producer.stop()

    async def publish(self, records: Sequence[Record]) -> None:
        """Publish in order per key; return when all are acknowledged by all replicas in sync.

        Raises:
            OSError: some were not taken. Publish the failed records again before later ones of the same keys.
        """
        if not records:
            return
        assert self._producer is not None, "KafkaLog.publish before start()"
        for topic in {record.topic for record in records} - self._counts.keys():
            await self._learn(topic)
        ticket = _Ticket(len(records), asyncio.get_running_loop())
        counts, lanes = self._counts, self._lanes
        touched: dict[Place, _Lane] = {}
        for topic, key, value in records:
            place = (topic, partition_for(key, counts[topic]))
            lane = touched.get(place)
            if lane is None:
                lane = lanes.get(place)
                if lane is None:
                    lane = lanes[place] = _Lane()
                touched[place] = lane
            lane.waiting.append((key.encode(), value, ticket))
        for place, lane in touched.items():
            if lane.task is None:
                lane.task = asyncio.get_running_loop().create_task(self._run(place, lane))
        await ticket.done

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        """Keep them for the consumer, which tells Kafka every ``commit_ms`` and when partitions are given up."""
        self._commits.update(offsets)

    def take_commits(self) -> Mapping[Place, int]:
        """What was committed since the last call."""
        taken, self._commits = self._commits, {}
        return taken

    async def _learn(self, topic: str) -> None:
        try:
            self._counts[topic] = len(await self._producer.partitions_for(topic))
        except KafkaError as error:
            raise OSError(f"topic {topic}: a topic that exists wanted, got {type(error).__name__}") from error

    async def _run(self, place: Place, lane: _Lane) -> None:
        """Send a lane's batches one after the other until nothing waits."""
        waiting = lane.waiting
        while waiting:
            taken: dict[_Ticket, int] = {}
            try:
                await self._send(place, waiting, taken)
            except Exception as error:
                failed = error
                # aiokafka asserts that a partition exists.
                if isinstance(error, (KafkaError, AssertionError)):
                    failed = OSError(f"{place[0]}/{place[1]}: records were not taken: {type(error).__name__}")
                    failed.__cause__ = error
                for _, _, ticket in waiting:
                    taken.setdefault(ticket, 0)
                waiting.clear()
                self._counts.pop(place[0], None)
                for ticket in taken:
                    ticket.failed(failed)
            else:
                for ticket, count in taken.items():
                    ticket.acknowledged(count)
        lane.task = None

    async def _send(
        self, place: Place, waiting: deque[tuple[bytes, bytes, _Ticket]], taken: dict[_Ticket, int]
    ) -> None:
        """Send a batch of what waits; count the records of each ticket in it into ``taken`` as they leave ``waiting``."""
        batch = self._producer.create_batch()
        append = batch.append
        now_ms = wall_ms() if place[0].startswith(TRIGGERS_PREFIX) else 0
        while waiting:
            key, value, _ = waiting[0]
            headers = _lateness(value, now_ms) if now_ms else []
            # A batch takes its first record whatever its size; the broker judges.
            if append(timestamp=None, key=key, value=value, headers=headers) is None:
                break
            ticket = waiting.popleft()[2]
            taken[ticket] = taken.get(ticket, 0) + 1
        batch.close()
        if not taken:
            raise RuntimeError(f"{place}: a record that no batch takes")
        sent = await self._producer.send_batch(batch, place[0], partition=place[1])
        await sent
