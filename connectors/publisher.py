"""Publishes records to Kafka and says when all of a call's records are acknowledged (``acks=all``).

Records of concurrent calls share batches. Each partition is a *lane*: at most one of its batches is in flight, and
what comes meanwhile waits for the next, so batches grow with the load and the order within a key stays. Handing
whole batches to the producer costs a few microseconds a record; one ``send()`` a record costs tens.

A record's partition is its shard mod the partition count, which is what Kafka's default partitioner says too.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from connectors import clock, metrics
from connectors.settings import Settings
from profiles import ids
from profiles.errors import OpportuneError, Refused
from profiles.wire import Record

BATCH_BYTES_MAX: Final = 512 << 10
"""Half of Kafka's default ``max.message.bytes``; a single larger record travels alone."""

SWEEP_MS: Final = 100
LOG = logging.getLogger("opportune.publisher")


def kafka_options(settings: Settings) -> dict[str, Any]:
    """How any Kafka client of the edges reaches the brokers: keyword arguments of aiokafka."""
    secured = settings.kafka_security in ("SSL", "SASL_SSL")
    return {
        "bootstrap_servers": settings.bootstrap,
        "security_protocol": settings.kafka_security,
        "ssl_context": ssl.create_default_context(cafile=settings.kafka_ca_file or None) if secured else None,
        "sasl_mechanism": settings.kafka_mechanism,
        "sasl_plain_username": settings.kafka_user or None,
        "sasl_plain_password": settings.kafka_password or None,
    }


class PublishFailed(OpportuneError):
    """The broker did not acknowledge in time; some records may be stored all the same. Publishing again is safe."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """One call of ``publish``: done when its last batch is acknowledged."""

    since_s: float
    future: asyncio.Future[None]
    batches: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    """One partition: what waits, and for whom."""

    topic: str
    partition: int
    waiting: deque[tuple[bytes, bytes, _Ticket]] = field(default_factory=deque)
    queued: bool = False
    flying: bool = False


class Publisher:
    """Publishes to a fixed set of topics. Belongs to the event loop that started it.

    Args:
        options: how to reach Kafka, see ``kafka_options``.
        topics: every topic that will be published to; all must exist when ``start`` is called.
        linger_ms: how long the first record of a burst waits for others.
        publish_ms_max: a call that waited longer fails.
        stalled_ms: with a call waiting longer, ``stalled`` is true.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        topics: Sequence[str],
        *,
        linger_ms: int,
        publish_ms_max: int,
        stalled_ms: int,
    ) -> None:
        self._options = dict(options)
        self._where = f"kafka at {self._options['bootstrap_servers']}"
        self._topics = tuple(topics)
        self._linger_s = linger_ms / 1000
        self._publish_s_max = publish_ms_max / 1000
        self._stalled_s = stalled_ms / 1000
        self._producer: Any = None
        self._lanes: dict[str, list[_Lane]] = {}
        self._ready: list[_Lane] = []
        self._wake = asyncio.Event()
        self._tickets: deque[_Ticket] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._broken = False
        self.stalled = False

    async def start(self, same_count: Collection[str] = ()) -> None:
        """Connect, and learn the topics' partition counts.

        Args:
            same_count: topics whose partition counts must be equal and divide ``ids.SHARDS``.
        Raises:
            Refused: no broker answers, a topic is missing, or a partition count cannot be.
        """
        # Time-outs of the producer bound how long it holds a batch; the sweep bounds how long a caller waits.
        producer = AIOKafkaProducer(
            **self._options,
            acks="all",
            enable_idempotence=False,  # repeats are told apart by message id; some brokers refuse the feature
            max_batch_size=BATCH_BYTES_MAX,
            request_timeout_ms=max(1000, round(self._publish_s_max * 1000)),
            retry_backoff_ms=50,
        )
        try:
            await producer.start()
        except KafkaError as error:
            await producer.stop()
            raise Refused(f"{self._where}: a broker wanted, got {type(error).__name__}") from error
        # Asking for one topic makes it on brokers that make topics by themselves, with a count of theirs: ask for all.
        known = await producer.client.fetch_all_metadata()
        counts = {topic: len(known.partitions_for_topic(topic) or ()) for topic in self._topics}
        missing = [topic for topic, count in counts.items() if not count]
        if missing:
            await producer.stop()
            raise Refused(f"{self._where}: topics {', '.join(missing)} wanted, found none of that name")
        wanted = {counts[topic] for topic in same_count}
        if len(wanted) > 1 or any(ids.SHARDS % count for count in wanted):
            await producer.stop()
            told = ", ".join(f"{topic} {counts[topic]}" for topic in same_count)
            raise Refused(f"{self._where}: one partition count that divides {ids.SHARDS} wanted, got {told}")
        self._producer = producer
        self._lanes = {topic: [_Lane(topic, number) for number in range(count)] for topic, count in counts.items()}
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._sweep())]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def publish(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Publish records; the future is done when the broker has acknowledged every one.

        The records of one key keep their order, within a call and from call to call.

        Raises:
            PublishFailed: in the future; some records may be stored all the same.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self._producer is None or self._closing:
            future.set_exception(PublishFailed("publisher: it is not running"))
            return future
        if not records:
            future.set_result(None)
            return future
        ticket = _Ticket(loop.time(), future)
        for topic, key, value in records:
            lanes = self._lanes[topic]
            lane = lanes[ids.shard_of(key) % len(lanes)]
            if not lane.waiting or lane.waiting[-1][2] is not ticket:
                ticket.batches += 1
            lane.waiting.append((key.encode(), value, ticket))
            if not lane.queued and not lane.flying:
                lane.queued = True
                self._ready.append(lane)
        self._tickets.append(ticket)
        if self._ready:
            self._wake.set()
        return future

    async def answers(self, within_s: float) -> bool:
        """Whether the broker answers a metadata request in time."""
        if self._producer is None or self._closing:
            return False
        try:
            async with asyncio.timeout(within_s):
                return bool(await self._producer.client.force_metadata_update())
        except (TimeoutError, KafkaError):
            return False

    async def stop(self) -> None:
        """Send what is waiting, wait for its acknowledgement as long as a call may wait, and disconnect."""
        if self._producer is None:
            return
        pending = [ticket.future for ticket in self._tickets if not ticket.future.done()]
        if pending:
            await asyncio.wait(pending, timeout=self._publish_s_max)
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ticket in self._tickets:
            _fail(ticket, PublishFailed("publisher: it was stopped"))
        # The producer's own stop waits for its batches without end when the broker is gone.
        try:
            async with asyncio.timeout(self._publish_s_max):
                await self._producer.stop()
        except TimeoutError:
            LOG.warning("the broker did not answer while stopping")
        self._producer = None

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            if self._linger_s:
                await asyncio.sleep(self._linger_s)
            self._wake.clear()
            ready, self._ready = self._ready, []
            for lane in ready:
                lane.queued = False
                await self._fly(lane)

    async def _fly(self, lane: _Lane) -> None:
        """Hand one batch of a lane to the producer."""
        batch = self._producer.create_batch()
        aboard: list[_Ticket] = []
        while lane.waiting:
            key, value, ticket = lane.waiting[0]
            if ticket.future.done():
                # Its caller was told of a failure and sends everything again.
                lane.waiting.popleft()
                continue
            if batch.append(key=key, value=value, timestamp=None) is None:
                # The rest flies next: a ticket that is on both sides waits for one batch more.
                ticket.batches += aboard[-1] is ticket
                break
            lane.waiting.popleft()
            if not aboard or aboard[-1] is not ticket:
                aboard.append(ticket)
        if not aboard:
            return
        lane.flying = True
        since_s = clock.seconds()
        try:
            future = await self._producer.send_batch(batch, lane.topic, partition=lane.partition)
        except (KafkaError, AssertionError) as error:
            # An AssertionError says that the partition left the metadata.
            self._landed(lane, aboard, 0, since_s, error)
            return
        future.add_done_callback(partial(self._acknowledged, lane, aboard, batch.record_count(), since_s))

    def _acknowledged(
        self, lane: _Lane, aboard: list[_Ticket], count: int, since_s: float, future: asyncio.Future[Any]
    ) -> None:
        error = PublishFailed("publisher: it was stopped") if future.cancelled() else future.exception()
        self._landed(lane, aboard, count, since_s, error)

    def _landed(
        self, lane: _Lane, aboard: list[_Ticket], count: int, since_s: float, error: BaseException | None
    ) -> None:
        lane.flying = False
        if error is None:
            metrics.PUBLISH_RECORDS.inc(count)
            metrics.PUBLISH_SECONDS.observe(clock.seconds() - since_s)
            for ticket in aboard:
                ticket.batches -= 1
                if not ticket.batches and not ticket.future.done():
                    ticket.future.set_result(None)
        else:
            self._broken = True
            metrics.PUBLISH_FAILURES.inc()
            LOG.warning("%s/%d: not acknowledged: %s", lane.topic, lane.partition, type(error).__name__)
            for ticket in aboard:
                _fail(ticket, PublishFailed(f"{lane.topic}/{lane.partition}: {type(error).__name__}"))
        if lane.waiting and not lane.queued:
            lane.queued = True
            self._ready.append(lane)
            self._wake.set()

    async def _sweep(self) -> None:
        """Keep ``stalled`` true to its word and let nobody wait too long."""
        loop = asyncio.get_running_loop()
        tickets = self._tickets
        while True:
            await asyncio.sleep(SWEEP_MS / 1000)
            now_s = loop.time()
            while tickets and (tickets[0].future.done() or now_s - tickets[0].since_s > self._publish_s_max):
                late = tickets.popleft()
                if not late.future.done():
                    self._broken = True
                    _fail(late, PublishFailed("publisher: no acknowledgement in time"))
            self.stalled = self._broken or (bool(tickets) and now_s - tickets[0].since_s > self._stalled_s)
            if self._broken and await self.answers(within_s=1.0):
                # Let calls in again: if the broker answers but does not take records, they will tell.
                self._broken = False

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task of ours that ends by an exception is our bug: refuse everything from then on."""
        if not task.cancelled() and task.exception() is not None:
            LOG.critical("publisher: ended by a bug", exc_info=task.exception())
            self._closing = self.stalled = True
            for ticket in self._tickets:
                _fail(ticket, PublishFailed("publisher: ended by a bug"))


def _fail(ticket: _Ticket, error: PublishFailed) -> None:
    if not ticket.future.done():
        ticket.future.set_exception(error)
        ticket.future.exception()  # looked at: a caller that went away is no reason for a warning
