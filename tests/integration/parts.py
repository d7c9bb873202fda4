"""What the end-to-end tests share: workers in this loop and as processes, a reader of everything that lies on the
topics, and conditions to wait for.

    async with working(shop) as worker, collecting(shop, clock) as edge, reading(shop) as topics:
        await edge.track("u-1", "Product Added", {...})
        await topics.settled()          # all input applied and stored, all that followed from it published

``settled`` proves rather than waits: it compares the store's cursors with the ends of the topics, and every outbox
with what was read from them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

import connectors.settings
import stream.settings
from connectors.collector.server import Collector
from opportune.parts import freeze
from opportune.topics import create_topics, wanted_topics
from profiles.codec import decode
from profiles.ids import SHARDS, partition_of, shard_of
from profiles.settings import variable_of
from profiles.state import Profile
from profiles.taxonomy import resolve
from profiles.wire import (
    COUPONS,
    DEAD_LETTERS,
    DECISIONS,
    ERASURES,
    EVENT_TOPICS,
    INPUT_TOPICS,
    SEGMENT_CHANGES,
    TASKS,
    TRAIT_CHANGES,
    Event,
    Record,
    encode_event,
    trigger_topic,
    unpack_record,
)
from rules.rulebook import Rulebook
from stream import rulebook
from stream.ports import ShardState
from stream.store import RedisStore
from stream.worker import LiveWorker
from tests.conftest import Installation

ROOT: Final = Path(__file__).parents[2]
WITHIN_S: Final = 300.0
POLL_S: Final = 0.03
LAST_WORDS: Final = 4_000
SECRET: Final = "0123456789abcdef" * 2
WEB_KEY: Final = "wk_web"
SHOP_KEY: Final = "sk_shop"
KEYS: Final = {WEB_KEY: {"source": "web", "kind": "public"}, SHOP_KEY: {"source": "shop", "kind": "secret"}}
CHANGED: Final = (SEGMENT_CHANGES, TRAIT_CHANGES, DECISIONS, DEAD_LETTERS, ERASURES, TASKS, COUPONS)


@dataclass(frozen=True)
class Shop:
    """An installation whose topics fit its rules, and what its processes are told.

    Attributes:
        env: the settings of workers and collectors, as the environment would hold them.
        rules: the generation that its workers work under.
    """

    installation: Installation
    env: Mapping[str, str]
    rules: Rulebook

    @property
    def bootstrap(self) -> str:
        """The broker."""
        return self.installation.bootstrap

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic it has."""
        return (*INPUT_TOPICS, *CHANGED, *(trigger_topic(name) for name in self.rules.triggers))


async def opened(installation: Installation, **settings: str) -> Shop:
    """Make the topics that the rules need, and say what the processes are told.

    Args:
        settings: ``clock="log"`` is OPPORTUNE_CLOCK=log.
    """
    env = {
        "OPPORTUNE_BOOTSTRAP": installation.bootstrap,
        "OPPORTUNE_REDIS_URL": installation.redis_url,
        "OPPORTUNE_SECRET": SECRET,
        # The embedded broker takes half a session to form a group, and a killed worker is missed after a whole one.
        "OPPORTUNE_SESSION_MS": "2000",
        "OPPORTUNE_HEARTBEAT_MS": "500",
        "OPPORTUNE_LOG_FORMAT": "plain",
        **{variable_of(name): value for name, value in settings.items()},
    }
    agreed, own = stream.settings.read(env)
    rules = rulebook.load(own.rules, zone=agreed.zone, currency=agreed.currency)
    await create_topics(installation.bootstrap, wanted_topics(rules.triggers, partitions=agreed.partitions))
    return Shop(installation, env, rules)


async def until(holds: Callable[[], Awaitable[Any]], *, what: str = "", within_s: float = WITHIN_S) -> Any:
    """Ask again and again until the answer is true; return it. What is asked may be away for a while, or slow to answer.

    Raises:
        AssertionError: it was not in time; ``what`` says what was waited for.
    """
    unanswered: OSError | None = None
    try:
        async with asyncio.timeout(within_s) as limit:
            # A client of the store may turn the word that time is up into an error of its own.
            while not limit.expired():
                try:
                    answer = await holds()
                except OSError as error:
                    answer, unanswered = None, error
                if answer:
                    return answer
                await asyncio.sleep(POLL_S)
            raise TimeoutError
    except TimeoutError:
        raise AssertionError(f"within {within_s:.0f} s wanted: {what or holds.__qualname__}") from unanswered


# --- workers ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def working(shop: Shop) -> AsyncIterator[LiveWorker]:
    """A worker in this loop; stopped cleanly at the end."""
    worker = LiveWorker(stream.settings.read(shop.env))
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


_TIED: Final = "import ctypes, signal; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
"""On Linux the worker dies with the tests, even if these are killed."""

_RUN: Final = "import os, sys; from opportune.cli import main; main()"


class EndedByItself(AssertionError):
    """A worker process that nobody stopped or killed is gone; with its last words."""


class WorkerProcess:
    """A worker as a process of its own: ``opportune worker``, to be killed and started again.

    Attributes:
        env: its settings; those that change count from the next start.
    """

    command = "worker"

    def __init__(self, shop: Shop, folder: Path, name: str = "worker") -> None:
        self.env = dict(shop.env)
        self.log_path = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._said_before = 0

    def start(self) -> None:
        """Start it; it is of use as soon as it has its partitions."""
        assert self._process is None, "started twice"
        self._said_before = len(self.words())
        tied = _TIED if sys.platform == "linux" else ""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_")}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", tied + _RUN, self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**environment, **self.env},
                start_new_session=True,
            )

    def start_again(self) -> None:
        """Start one that has ended by itself."""
        assert not self.runs, "started twice"
        self._process = None
        self.start()

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None, "never started"
        self.assert_alive()
        self._process.kill()
        self._process.wait()
        self._process = None

    def terminate(self) -> None:
        """Ask it to stop cleanly."""
        assert self._process is not None, "never started"
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Its exit code, when it has ended."""
        assert self._process is not None, "never started"
        code = await asyncio.to_thread(self._process.wait, WITHIN_S)
        self._process = None
        return code

    async def ready(self) -> None:
        """Return when it has its partitions."""

        async def is_ready() -> bool:
            self.assert_alive()
            return "ready: a member" in self.words()[self._said_before :]

        await until(is_ready, what="a worker with partitions")

    def assert_alive(self) -> None:
        """See that it has not ended by itself; one that was killed, or never started, has not.

        Raises:
            EndedByItself: it has.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise EndedByItself(f"{self.log_path.stem} ended with {code}, its last words: {self.words()[-LAST_WORDS:]}")

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "never started"
        return self._process.pid

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing."""
        freeze(self.pid)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def words(self) -> str:
        """What it said."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


@asynccontextmanager
async def processes(
    shop: Shop, folder: Path, count: int = 1, *, started: int | None = None
) -> AsyncIterator[list[WorkerProcess]]:
    """Workers as processes; killed at the end if they still run.

    Args:
        started: how many of them are started at once; all unless given.
    """
    folder.mkdir(exist_ok=True)
    workers = [WorkerProcess(shop, folder, f"worker-{number}") for number in range(count)]
    try:
        for worker in workers[:started]:
            worker.start()
        yield workers
    finally:
        for worker in workers:
            if worker.runs:
                worker.kill()


# --- the edge -----------------------------------------------------------------------------------------------------


class SteppedClock:
    """A clock that stands until it is moved."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        """Where it stands."""
        return self.at_ms


class Edge:
    """A collector, and what tests ask of it by HTTP."""

    def __init__(self, collector: Collector, client: httpx.AsyncClient) -> None:
        self.collector = collector
        self.port = collector.port
        self._client = client

    async def call(self, call: str, *, key: str = WEB_KEY, **body: Any) -> httpx.Response:
        """POST /v1/<call>."""
        return await self._client.post(f"/v1/{call}", json=body, auth=(key, ""))

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """POST of these very bytes."""
        return await self._client.post(path, content=body, headers=headers)

    async def accepted(self, call: str, *, key: str = WEB_KEY, **body: Any) -> None:
        """The same; it must be taken."""
        answer = await self.call(call, key=key, **body)
        assert (answer.status_code, answer.json()) == (200, {"success": True}), answer.text


@asynccontextmanager
async def collecting(shop: Shop, clock: Any, **settings: str) -> AsyncIterator[Edge]:
    """A collector on a free port, whose clock is the test's; ``settings`` as with ``opened``."""
    more = {
        "OPPORTUNE_COLLECTOR_PORT": "0",
        "OPPORTUNE_COLLECTOR_HOST": "127.0.0.1",
        "OPPORTUNE_WRITE_KEYS": orjson.dumps(KEYS).decode(),
        **{variable_of(name): value for name, value in settings.items()},
    }
    collector = Collector(connectors.settings.read({**shop.env, **more}), clock)
    await collector.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}", timeout=60) as client:
            yield Edge(collector, client)
    finally:
        await collector.stop()


@asynccontextmanager
async def producing(shop: Shop) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that writes straight to the topics, past the collector."""
    producer = AIOKafkaProducer(bootstrap_servers=shop.bootstrap, acks="all", enable_idempotence=False, linger_ms=5)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def append(shop: Shop, producer: AIOKafkaProducer, records: Sequence[Record]) -> None:
    """Publish records where the default partitioner would put them; returns when all are acknowledged."""
    partitions = shop.installation.partitions
    sent = [
        await producer.send(
            record.topic, record.value, record.key.encode(), partition_of(shard_of(record.key), partitions)
        )
        for record in records
    ]
    await asyncio.gather(*sent)


def as_record(event: Event) -> Record:
    """An event as whoever appends it to the log writes it."""
    return Record(resolve(event.type).topic, event.address, encode_event(event))


# --- what lies on the topics, and in the store -------------------------------------------------------------------


class Found(NamedTuple):
    """One record of a topic; ``at_ms``: when whoever published it, or the broker, says it was."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    at_ms: int = 0

    def json(self) -> dict[str, Any]:
        """Its value, which is a JSON object."""
        value: dict[str, Any] = orjson.loads(self.value)
        return value


@dataclass
class Topics:
    """Everything that lies on the topics, read as it comes, and the store beside it."""

    shop: Shop
    store: RedisStore
    consumer: AIOKafkaConsumer
    on: defaultdict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    log_ms: int = 0
    _contents: Counter[tuple[str, bytes, bytes]] = field(default_factory=Counter)

    async def read(self) -> None:
        """Read everything that lies there now."""
        places = sorted(self.consumer.assignment())
        asked_ms = {place: self.consumer.last_poll_timestamp(place) or 0 for place in places}
        while True:
            for place, records in (await self.consumer.getmany(timeout_ms=20)).items():
                for record in records:
                    found = Found(
                        place.topic, place.partition, record.offset, record.key, record.value, record.timestamp
                    )
                    self.on[place.topic].append(found)
                    self._contents[place.topic, record.key or b"", record.value] += 1
                    self.ends[place.topic, place.partition] = record.offset + 1
                    if place.topic in EVENT_TOPICS:
                        self.log_ms = max(self.log_ms, _logical_ms(found))
            # At the end is what a fetch that was answered after we were asked has found at its end.
            behind = [
                place
                for place in places
                if (self.consumer.last_poll_timestamp(place) or 0) <= asked_ms[place]
                or await self.consumer.position(place) < (self.consumer.highwater(place) or 0)
            ]
            if not behind:
                return

    async def is_settled(self) -> bool:
        """Whether all input is applied and stored, all alarms up to the log's clock have fired, all outboxes are
        published. The order of asking matters: what moves meanwhile is seen by a later question.
        """
        states = await self.store.read_shards(range(SHARDS))
        # After the cursors: the batch that moves them on sets alarms that are due already.
        if self.shop.env.get("OPPORTUNE_CLOCK") == "log" and await self.store.due(range(SHARDS), self.log_ms - 1, 1):
            return False
        outboxes = await self.store.outboxes(range(SHARDS))
        before = self._input_ends()
        await self.read()
        ends = self._input_ends()
        # The batch that takes a partition's last record writes at least one of its shards.
        if ends != before or any(end != 0 for end in self.left(states).values()):
            return False
        for outbox in outboxes:
            for packed in outbox:
                topic, key, value = unpack_record(packed)
                if not self._contents[topic, key.encode(), value]:
                    return False
        return True

    def _input_ends(self) -> dict[tuple[str, int], int]:
        return {place: end for place, end in self.ends.items() if place[0] in INPUT_TOPICS}

    def left(self, states: Sequence[ShardState]) -> dict[tuple[str, int], int]:
        """How many records of each input topic and partition are read here and not applied there.

        Args:
            states: of all shards, in order.
        """
        count = self.shop.installation.partitions
        return {
            (topic, partition): end - max(state.cursor.get(topic, 0) for state in states[partition::count])
            for (topic, partition), end in self._input_ends().items()
        }

    async def settled(self, within_s: float = WITHIN_S, workers: Sequence[WorkerProcess] = ()) -> None:
        """Return when nothing is under way any more.

        Args:
            workers: those that are to do it.
        Raises:
            AssertionError: not in time: says what is left to do; or a worker has ended by itself: its last words.
        """

        async def is_settled() -> bool:
            for worker in workers:
                worker.assert_alive()
            return await self.is_settled()

        try:
            await until(is_settled, what="everything settled", within_s=within_s)
        except EndedByItself:
            raise
        except AssertionError as error:
            states = await self.store.read_shards(range(SHARDS))
            left = {place: count for place, count in self.left(states).items() if count}
            due = len(await self.store.due(range(SHARDS), self.log_ms - 1, 1_000))
            raise AssertionError(f"{error}; records not applied: {left}; alarms due: {due}") from None

    def json(self, topic: str) -> list[dict[str, Any]]:
        """What lies on a topic of JSON values, in the order of reading."""
        return [found.json() for found in self.on[topic]]

    def ids(self, topic: str, name: str) -> dict[str, set[bytes]]:
        """The bytes under each id of an outgoing topic: one each, or R13 is broken."""
        found: defaultdict[str, set[bytes]] = defaultdict(set)
        for one in self.on[topic]:
            found[one.json()[name]].add(one.value)
        return dict(found)

    async def profile(self, address: str) -> Profile | None:
        """The profile at an address as stored; a forwarder is one, too."""
        (blob,) = await self.store.load([address])
        return None if blob is None else decode(address, blob)

    async def profiles(self) -> dict[str, Profile]:
        """Every profile there is, forwarders too, by address."""
        return {address: decode(address, blob) for address, blob in (await self.blobs()).items()}

    async def blobs(self) -> dict[str, bytes]:
        """Every profile there is, by address."""
        found: dict[str, bytes] = {}
        client = self.store._reads
        keys = [key async for key in client.scan_iter(match=b"*p:*", count=5_000)]
        addresses = [key.decode().split("p:", 1)[1] for key in keys]
        for start in range(0, len(addresses), 2_000):
            chunk = addresses[start : start + 2_000]
            blobs = await self.store.load(chunk)
            found |= {address: blob for address, blob in zip(chunk, blobs, strict=True) if blob is not None}
        return found


def _logical_ms(found: Found) -> int:
    try:
        return int(found.json()["received_ms"])
    except (ValueError, KeyError, TypeError):
        return 0


@asynccontextmanager
async def reading(shop: Shop, wait_ms: int = 20) -> AsyncIterator[Topics]:
    """A reader of all topics from their beginning.

    Args:
        wait_ms: how long a broker may hold a fetch while nothing comes. Each of ``Topics.read`` waits for one; between them
            reader and broker are busy with nothing else.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=shop.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=wait_ms,
        max_partition_fetch_bytes=4 << 20,
    )
    store = RedisStore.of(stream.settings.read(shop.env).own)
    await consumer.start()
    try:
        places = [
            TopicPartition(topic, partition)
            for topic in shop.topics
            for partition in range(shop.installation.partitions)
        ]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        yield Topics(shop, store, consumer)
    finally:
        await consumer.stop()
        await store.close()
