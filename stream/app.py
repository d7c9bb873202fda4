"""The worker: a Faust app whose agents feed an ``Engine``.

    worker = Worker(settings, engine, log)
    await worker.start()      # returns when the group has given us our partitions, and they are claimed
    await worker.wait()       # until somebody stops it; raises what went wrong
    await worker.stop()       # lets go of everything

or, for a process of its own, ``sys.exit(run(make))``. The engine must be ready before ``start``: Faust starts agents
before an app's own services. A worker runs in whatever loop calls it, several of them in one, too; nothing of Faust's
command line, web server, threads, tables, leader election or supervisors is used.

An exception in the engine, an agent or the transport is logged in one line with its place, nothing is committed any
more, and ``wait`` raises it (R8). A process ends then; except when a shard was fenced (R4): it makes and starts a new
worker, which claims what the group gives it and reads on from what is stored, as any other start does (R7).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import faust
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faust.app.base import BootStrategy
from faust.serializers.schemas import Schema
from faust.types import AppT, Message
from mode.supervisors import CrashingSupervisor

from profiles.errors import Refused
from profiles.moments import MINUTE_MS
from profiles.wire import INPUT_TOPICS
from stream.clock import monotonic_ms, wall_ms
from stream.effects import FencedOut
from stream.feed import Feed, Gap, Place
from stream.log import KafkaLog
from stream.ports import Engine
from stream.settings import Settings
from stream.transport import FetchConsumer, FetchTransport, security

log = logging.getLogger(__name__)

CLAIM_S: Final = 30 * 86_400.0
"""Faust takes a claim that lasts longer for a stop, and reads nothing ever after; the store may be away for long (R27)."""
FENCES_MAX: Final = 3
"""Fenced oftener than this within a minute, a process gives up: two installations share a store, or the like."""
AWAY_S: Final = 1.0
"""How long a worker that starts anew waits for a server that does not answer, before it asks again."""


class Fault(Exception):
    """What ended a worker: ``where`` it happened; the cause is the exception itself."""

    def __init__(self, where: str, cause: BaseException) -> None:
        super().__init__(f"{where}: {type(cause).__name__}: {cause}")
        self.where = where
        self.__cause__ = cause


class _Boot(BootStrategy):
    """Faust's own producer is not wanted."""

    enable_kafka_producer = False


class _App(faust.App):
    """A Faust app that leaves no folders behind."""

    BootStrategy = _Boot
    logger = logging.getLogger("faust.app")

    def _create_directories(self) -> None:
        pass


class _Whole(Schema[Any, Any]):
    """A message's value is the ``Chunk`` itself; decoding is the core's (R9)."""

    def loads_key(self, app: AppT, message: Message, **kwargs: Any) -> Any:
        return None

    def loads_value(self, app: AppT, message: Message, **kwargs: Any) -> Any:
        return message.value


def build_app(
    settings: Settings,
    engine: Engine,
    commits: Callable[[], Mapping[Place, int]],
    *,
    on_gap: Callable[[Gap], None],
    on_fault: Callable[[str, BaseException], None],
    faulted: Callable[[], bool],
    topics: Iterable[str] = INPUT_TOPICS,
    wall_ms: Callable[[], int] = wall_ms,
) -> faust.App:
    """The Faust app that feeds this engine, not started. To be called in the loop that will run it.

    Args:
        commits: what the engine has reported since the last call: ``KafkaLog.take_commits``.
        on_gap: told of records that the log does not have; may raise.
        on_fault: told where, and what was raised.
        faulted: whether that has happened: then nothing is released or committed any more.
        topics: the input topics, one agent each.
        wall_ms: the process's wall clock.
    """
    agreed, own = settings
    app = _App(
        own.group,
        broker=f"kafka://{own.bootstrap.split(',')[0]}",
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=agreed.partitions,
        key_serializer="raw",
        value_serializer="raw",
        agent_supervisor=CrashingSupervisor,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        broker_commit_interval=own.commit_ms / 1000,
        broker_session_timeout=own.session_ms / 1000,
        broker_heartbeat_interval=own.heartbeat_ms / 1000,
        broker_request_timeout=CLAIM_S,  # Faust asks no broker anything; it bounds a claim by this.
        datadir=Path(own.data_dir),
    )

    def on_room(place: Place) -> None:
        consumer = app.consumer
        assert isinstance(consumer, FetchConsumer)
        consumer.on_room(place)

    feed = Feed(engine, tuple(topics), on_gap=on_gap, on_fault=on_fault, on_room=on_room)
    app.transport = FetchTransport(
        app.conf.broker_consumer,
        app,
        feed=feed,
        own=own,
        topics=tuple(topics),
        partitions=agreed.partitions,
        commits=commits,
        wall_ms=wall_ms,
        on_gap=on_gap,
        on_fault=on_fault,
        faulted=faulted,
    )
    for topic in topics:
        app.agent(app.topic(topic, schema=_Whole()), name=f"carry_{topic}", concurrency=1)(
            _agent(topic, feed, on_fault)
        )
    return app


def _agent(topic: str, feed: Feed, on_fault: Callable[[str, BaseException], None]) -> Callable[[Any], Awaitable[None]]:
    async def carry(stream: faust.Stream[Any]) -> None:
        try:
            async for event in stream.noack().events():
                feed.hand(event.value, event.ack)
        except Exception as error:
            on_fault(f"the agent of {topic}", error)

    return carry


class Worker:
    """One member of the group, feeding one engine."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        kafka_log: KafkaLog,
        *,
        on_gap: Callable[[Gap], None] | None = None,
        topics: Iterable[str] = INPUT_TOPICS,
    ) -> None:
        """Make a worker; nothing runs yet.

        Args:
            kafka_log: where the engine publishes and commits; the worker starts and stops it.
            on_gap: told of records that the log does not have; may raise to stop the worker. Default: a warning.
        """
        self._settings = settings
        self._engine = engine
        self._log = kafka_log
        self._on_gap = on_gap or _warn_gap
        self._topics = tuple(topics)
        self._app: faust.App | None = None
        self._fault: Fault | None = None
        self._ended = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check the topics, connect, join the group; return when our first partitions are claimed.

        Raises:
            Refused: topics are missing or have other than the agreed number of partitions.
            OSError: no broker answered.
            Fault: something else went wrong on the way.
        """
        await check_topics(self._settings, self._topics)
        await self._log.start()
        self._app = build_app(
            self._settings,
            self._engine,
            self._log.take_commits,
            on_gap=self._on_gap,
            on_fault=self.fail,
            faulted=lambda: self._fault is not None,
            topics=self._topics,
        )
        starting = asyncio.ensure_future(self._app.start())
        self._watch = asyncio.ensure_future(self._watch_crash(self._app))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait([starting, ended], return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and starting.exception() is not None:
                self.fail("starting Faust", starting.exception() or AssertionError())
        finally:
            # Whether it ended, failed or we were cancelled: a start that is not over is not wanted any more.
            ended.cancel()
            starting.cancel()
        if self._fault is not None:
            await self._stop_in_time()
            raise self._fault
        log.info("ready: a member of %s with partitions %s", self._settings.own.group, self.partitions)

    async def wait(self) -> None:
        """Return when the worker was stopped.

        Raises:
            Fault: it ended by itself.
        """
        await self._ended.wait()
        if self._fault is not None:
            raise self._fault

    async def stop(self) -> None:
        """Release all partitions, tell Kafka how far we are, leave the group. May be called twice, and by anybody."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    def fail(self, where: str, error: BaseException) -> None:
        """End it: nothing is released or committed any more, and ``wait`` raises it. The first one counts."""
        if self._fault is not None:
            return
        self._fault = Fault(where, error)
        if fence_in(error) is None:  # What a fence means for the process, whoever runs it tells.
            trace = None if isinstance(error, Refused) else error
            log.error("the worker ends: %s: %s: %s", where, type(error).__name__, error, exc_info=trace)
        self._ended.set()

    @property
    def has_failed(self) -> bool:
        """Whether something has ended it."""
        return self._fault is not None

    def awaits_share(self) -> bool:
        """Whether the group, which can be reached, is to tell us which partitions are ours."""
        consumer = self._app.consumer if self._app is not None else None
        return isinstance(consumer, FetchConsumer) and consumer.awaits_share()

    @property
    def partitions(self) -> list[int]:
        """What is ours now."""
        if self._app is None:
            return []
        transport = self._app.transport
        assert isinstance(transport, FetchTransport)
        return transport.feed.owned

    async def _stop(self) -> None:
        try:
            if self._app is not None:
                await self._app.stop()
            await self._log.stop()
        finally:
            if self._watch is not None:
                self._watch.cancel()
            self._ended.set()

    async def _stop_in_time(self) -> None:
        """Stop, but do not let a stop that hangs keep a faulty process alive."""
        try:
            async with asyncio.timeout(self._settings.own.stop_wait_ms / 1000):
                await self.stop()
        except TimeoutError:
            log.error("the stop took longer than %d ms, ending anyway", self._settings.own.stop_wait_ms)

    async def _watch_crash(self, app: faust.App) -> None:
        await app._crashed.wait()
        if self._stopping is not None and isinstance(app.crash_reason, asyncio.CancelledError):
            return  # We stop in the middle of a rebalance: the reading loop was cancelled by us, nothing failed.
        self.fail("Faust", app.crash_reason or AssertionError("crashed without a reason"))


def _warn_gap(gap: Gap) -> None:
    log.warning("%s/%d: no records from offset %d to %d", gap.topic, gap.partition, gap.wanted, gap.found)


async def check_topics(settings: Settings, topics: Sequence[str]) -> None:
    """See that the topics are there, with the agreed number of partitions each (R10, R28).

    Raises:
        Refused: with a line for each that is not.
        OSError: no broker answered.
    """
    agreed, own = settings
    admin = AIOKafkaAdminClient(bootstrap_servers=own.bootstrap, request_timeout_ms=own.request_ms, **security(own))
    try:
        await admin.start()
        # Asked about a topic that does not exist, a broker may make it with a number of partitions of its own.
        there = set(await admin.list_topics())
        found = await admin.describe_topics([topic for topic in topics if topic in there])
    except KafkaError as error:
        raise OSError(f"brokers at {own.bootstrap}: an answer wanted, got {type(error).__name__}") from error
    finally:
        await admin.close()
    counts = {one["topic"]: len(one["partitions"]) for one in found}
    wrong = [
        f"topic {topic}: {agreed.partitions} partitions wanted, got {counts.get(topic) or 'no such topic'}"
        for topic in topics
        if counts.get(topic) != agreed.partitions
    ]
    if wrong:
        raise Refused("\n".join(wrong))


# --- as a process -------------------------------------------------------------------------------------------------


class Running(Protocol):
    """What a process runs: a ``Worker``, or one with more around it."""

    async def start(self) -> None:
        """Ready when this returns."""
        ...

    async def wait(self) -> None:
        """Until it was stopped; raises what ended it."""
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...


def run(settings: Settings, make: Callable[[Settings], Awaitable[Running]]) -> int:
    """Run a worker until SIGTERM or SIGINT; after a fence, another one.

    Args:
        make: makes a worker with its engine, inside the loop that will run it; called anew after a fence.
    Returns:
        The process's exit code: 0 after a clean stop, 1 after a fault, or when it is fenced again and again.
    """
    return asyncio.run(_run(settings, make))


async def _run(settings: Settings, make: Callable[[Settings], Awaitable[Running]]) -> int:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    fenced_ms: deque[int] = deque(maxlen=FENCES_MAX)
    while True:
        ended = await _run_once(settings, make, asked)
        if ended.away and fenced_ms:
            # As one that works waits for a server that is away: nobody may be there to start it again (R27).
            log.warning("starting anew: %s; asking again", ended.away)
            with suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), AWAY_S)
            if asked.is_set():
                return 0
            continue
        if ended.away:
            log.error("the worker ends: %s", ended.away)
        if ended.code or not ended.fence or asked.is_set():
            return ended.code
        now_ms = monotonic_ms()
        if len(fenced_ms) == FENCES_MAX and now_ms - fenced_ms[0] < MINUTE_MS:
            log.error("the worker ends: fenced more than %d times within a minute: %s", FENCES_MAX, ended.fence)
            return 1
        fenced_ms.append(now_ms)
        log.warning("fenced: %s; starting anew from what is stored", ended.fence)


class _Ended(NamedTuple):
    """How one worker ended.

    Attributes:
        code: of the process, if it ends with it.
        fence: what a fence said, if it was one.
        away: which server did not answer while it started, if that was it.
    """

    code: int
    fence: str
    away: str


async def _run_once(settings: Settings, make: Callable[[Settings], Awaitable[Running]], asked: asyncio.Event) -> _Ended:
    """Run one worker until ``asked``, or until it ends by itself.

    The worker itself is let go of with its cache before the next one is made.
    """
    worker: Running | None = None
    code, fence, away, starts = 0, "", "", True
    stop_asked = asyncio.ensure_future(asked.wait())
    try:
        worker = await make(settings)
        for step in (worker.start, worker.wait):
            doing = asyncio.ensure_future(step())
            await asyncio.wait([doing, stop_asked], return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                await doing
            else:
                doing.cancel()
                break
            starts = False
    except Exception as error:
        found = fence_in(error)
        if found is not None:
            fence = str(found)
        else:
            code = 1
            if starts and isinstance(error, OSError):
                away = f"{type(error).__name__}: {error}"
            elif not isinstance(error, Fault):  # That was logged where it happened.
                log.error("the worker ends: %s: %s", type(error).__name__, error)
    finally:
        stop_asked.cancel()
    if worker is not None:
        try:
            async with asyncio.timeout(settings.own.stop_wait_ms / 1000):
                await worker.stop()
            await worker.wait()
        except Fault as error:
            if fence_in(error) is None:
                code = 1
        except TimeoutError:
            log.error("the stop took longer than %d ms, ending anyway", settings.own.stop_wait_ms)
            code, fence, away = 1, "", ""
    return _Ended(code, fence, away)


def fence_in(error: BaseException | None) -> FencedOut | None:
    """The fence that is behind an exception, if one is."""
    while error is not None and not isinstance(error, FencedOut):
        error = error.__cause__
    return error
