"""A fault run: a seeded shop told to real processes while something is done to them, and what came of it in one line.

The story is told in stages, each settled before the next, so that what two workers tell one another comes in its time
(tests/integration/test_kill.py). What should have come of it is the log itself run through ``step`` in this process
(stream/replay.py): afterwards every profile, membership and published record is held against that.

A fault happens when so much of a stage is applied, not at a time of day; one that came when nothing was under way has
not bitten, and a run of which none did has failed, whatever else it shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same faults every time
from typing import Any, Final

import orjson
from redis import Redis

import stream.settings
import stream.store_redis
from opportune import parts
from opportune.parts import free_port
from opportune.topics import PARTITIONS
from profiles import carts
from profiles.ids import SHARDS
from profiles.state import ATTRIBUTES, Profile
from profiles.wire import DEAD_LETTERS, DECISIONS, EVENT_TOPICS, INPUT_TOPICS, SEGMENT_CHANGES, Record
from rules.outcome import Step
from stream.history import History
from stream.replay import Replayed, replayed
from stream.store import RedisStore
from tests.conftest import Installation
from tests.faults.proxy import Proxy
from tests.faults.stores import KINDS, Stores
from tests.integration.live import live
from tests.integration.parts import (
    LAST_WORDS,
    ROOT,
    EndedByItself,
    Shop,
    Topics,
    WorkerProcess,
    append,
    as_record,
    opened,
    processes,
    producing,
    reading,
    until,
)
from tests.integration.test_kill import _plain, applied, differing
from tests.parts import real

COMMIT: Final = (
    hashlib.sha1(Path(stream.store_redis.__file__).with_name("commit_shard.lua").read_bytes()).hexdigest().encode()
)
TICK: Final = "anon:tick"
IDS: Final = {SEGMENT_CHANGES: "change_id", DECISIONS: "decision_id"}
GAVE_UP: Final = "fenced more than"
UNSTORED: Final = ("ordinal", "dirty", "folds")
WITHIN_S: Final = 900.0
FETCH_MS: Final = 200
"""How long the broker may hold a fetch of the test's: its reader shall not keep a core from those who are tested."""
DIFFERS_MAX: Final = 20


@dataclass
class Arena:
    """A running installation, and what may be done to it.

    Attributes:
        store: the server that holds the truth; workers reach it through a proxy each.
        replica: of ``store``, where the plan wants one.
        counts: figures of this fault, told in the line; ``bites`` is one of them.
        held: the worker whose write waits in its proxy while a fault of a plan with ``held`` is done.
    """

    shop: Shop
    seed: int
    broker: parts.Server
    store: parts.Server
    proxies: list[Proxy]
    replica: parts.Server | None = None
    many: Stores | None = None
    workers: list[WorkerProcess] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    random: Random = field(default_factory=Random)
    held: int = 0
    topics: Topics = field(init=False)

    async def left(self) -> int:
        """How many input records that we have read are not applied yet."""
        await self.topics.read()
        states = await self.topics.store.read_shards(range(SHARDS))
        return sum(self.topics.left(states).values())

    async def stored(self) -> int:
        """How many input records the store knows to be applied; asks the store only."""
        states = await self.topics.store.read_shards(range(SHARDS))
        return sum(
            max(state.cursor.get(topic, 0) for state in states[partition::PARTITIONS])
            for topic in INPUT_TOPICS
            for partition in range(PARTITIONS)
        )

    async def outbox(self) -> int:
        """How many records wait in the store to be published, or for the next write that trims them."""
        return sum(map(len, await self.topics.store.outboxes(range(SHARDS))))

    def release(self) -> None:
        """Let the write go on that waits in a proxy."""
        for proxy in self.proxies:
            proxy.release()

    def assert_alive(self) -> None:
        """See that no worker has ended by itself; one that gave up after too many fences within a minute is started
        again, as whoever looks after processes would (decision 0040)."""
        for worker in self.workers:
            try:
                worker.assert_alive()
            except EndedByItself:
                if GAVE_UP not in worker.words()[-LAST_WORDS:]:
                    raise
                worker.start_again()
                self.counts["gave_up"] += 1

    async def move(self, server: parts.Server) -> None:
        """From now on this server is the store, for workers and for the test."""
        self.store = server
        await self.topics.store.close()
        self.topics.store = RedisStore(parts.redis_url(server))
        for proxy in self.proxies:
            proxy.target = server.port
            proxy.cut()

    def said(self, words: str) -> int:
        """How many lines of the workers hold these words."""
        return sum(worker.words().count(words) for worker in self.workers)


Fault = Callable[[Arena], Awaitable[None]]
"""Does it once; counts ``bites`` if it met something under way."""


@dataclass(frozen=True)
class Plan:
    """A kind of fault run.

    Attributes:
        name: ``F1`` …
        what: in words.
        fault: is done again and again.
        workers: how many.
        times: how often, and how many events are told meanwhile: by command, and in the short run.
        bitten: of the counts, those that say that it bit: all must be above 0.
        poison: records that nobody can take, mixed into the story.
        settings: of the workers.
        held: the fault is done while a worker's write of events waits in its proxy: in the middle of something for sure.
        replicated: the store has a replica.
        stores: ``one`` server behind a proxy for each worker; or ``sentinel`` or ``cluster`` (tests/faults/stores.py), which
            tell workers where they are and hence have no proxies.
        after: is done when the story is told.
    """

    name: str
    what: str
    fault: Fault | None
    workers: int
    times: int
    events: int
    short_times: int
    short_events: int
    bitten: tuple[str, ...] = ("bites",)
    poison: Callable[[Sequence[Record], Random], list[Record]] | None = None
    settings: dict[str, str] = field(default_factory=dict)
    held: bool = False
    replicated: bool = False
    stores: str = "one"
    after: Fault | None = None


@dataclass
class Heard:
    """What should have gone out: topic -> id -> bytes."""

    published: defaultdict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))

    def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
        """Keep what the step publishes."""
        for topic, _, value in out.records:
            name = IDS.get(topic, "trigger_id" if topic.startswith("triggers.") else "")
            if name:
                self.published[topic][orjson.loads(value)[name]] = value


@asynccontextmanager
async def standing(plan: Plan, seed: int, folder: Path) -> AsyncIterator[Arena]:
    """Apache Kafka, redis-server behind a proxy, topics; workers are described and do not run."""
    async with AsyncExitStack() as stack:
        broker = real.kafka(folder / "kafka", port=free_port())
        many = None if plan.stores == "one" else await stack.enter_async_context(KINDS[plan.stores](folder))
        store = real.redis_server(folder / "redis", port=free_port()) if many is None else many.servers[0]
        for server in (broker, store) if many is None else (broker,):
            await server.start()
            stack.push_async_callback(server.stop)
        replica = real.redis_server(folder / "replica", port=free_port()) if plan.replicated else None
        if replica is not None:
            await replica.start()
            stack.push_async_callback(replica.stop)
            with Redis(port=replica.port) as client:
                client.replicaof(parts.HOST, str(store.port))
        proxies = [await stack.enter_async_context(Proxy(store.port, seed + n)) for n in range(plan.workers)]
        # Tests ask the store itself; only workers go through the proxy.
        url = parts.redis_url(store) if many is None else many.url
        direct = Installation(broker.address, url, PARTITIONS, broker, store)
        # Small batches: a fault shall meet something under way.
        session = {"session_ms": "4000", "heartbeat_ms": "1000", "batch_events": "200"}
        session |= {"redis_cluster": "yes"} if plan.stores == "cluster" else {}
        shop = await opened(direct, **{"clock": "log", **session, **plan.settings})
        arena = Arena(shop, seed, broker, store, proxies, replica, many, random=Random(seed))
        arena.topics = await stack.enter_async_context(reading(shop, FETCH_MS))
        arena.workers = await stack.enter_async_context(processes(shop, folder / "workers", plan.workers, started=0))
        for worker, proxy in zip(arena.workers, proxies if many is None else (), strict=many is None):
            worker.env["OPPORTUNE_REDIS_URL"] = f"redis://{parts.HOST}:{proxy.port}/0"
        yield arena


def told(seed: int, events: int) -> list[list[Record]]:
    """The story in stages."""
    visits, *later = live(seed, events=events, customers=max(20, events * 3 // 100), portions=1)
    stages = [visits.flow, visits.close, *([*portion.flow, *portion.close] for portion in later)]
    return [[as_record(event) for event in stage] for stage in stages]


async def run(plan: Plan, seed: int, folder: Path, times: int, events: int) -> tuple[str, list[str]]:
    """Run a plan: its line, whose last word is ``PASS`` or ``FAIL``, and the first of what differs.

    Args:
        times: how often the fault is done.
        events: how many are told, about.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stages = told(seed, events)
    if plan.poison is not None:
        stages[0] = plan.poison(stages[0], Random(seed))
    async with standing(plan, seed, folder) as arena, producing(arena.shop) as producer:
        for number, records in enumerate(stages):
            # The first stage lies in the log when they start: told meanwhile, several topics would come out of order.
            await append(arena.shop, producer, records)
            if number == 0:
                await _begun(arena)
            if number == 0 and plan.fault is not None:
                if plan.held:
                    await _disturb_writes(arena, plan.fault, times)
                else:
                    await _disturb(arena, plan.fault, times, len(records))
            await _settled(arena)
        if plan.after is not None:
            await plan.after(arena)
            await _settled(arena)
        line = await asyncio.to_thread(_expected, arena)
        return await _line(plan, arena, line, sum(map(len, stages)))


async def _settled(arena: Arena) -> None:
    while True:
        try:
            arena.assert_alive()
            return await arena.topics.settled(WITHIN_S, [one for one in arena.workers if one.runs])
        except EndedByItself:
            arena.assert_alive()


async def _begun(arena: Arena) -> None:
    for worker in arena.workers:
        worker.start()
    for worker in arena.workers:
        await worker.ready()


async def _disturb(arena: Arena, fault: Fault, times: int, records: int) -> None:
    """Do it so often, at places of the stage that the seed chooses."""
    shares = sorted(0.02 + 0.9 * arena.random.random() for _ in range(times))
    for share in shares:
        wanted = int(share * records)

        async def far_enough(wanted: int = wanted) -> bool:
            arena.assert_alive()
            return await applied(arena.topics) >= wanted

        await until(far_enough, what=f"{wanted} records applied", within_s=WITHIN_S)
        await fault(arena)
        arena.counts["faults"] += 1


async def _disturb_writes(arena: Arena, fault: Fault, times: int) -> None:
    """Do it so often, each time when one of the next few writes of a worker is on its way and waits there."""
    for _ in range(times):
        arena.held = arena.random.randrange(len(arena.workers))
        proxy = arena.proxies[arena.held]
        proxy.hold(COMMIT, after=arena.random.randrange(3))

        async def is_held(proxy: Proxy = proxy) -> bool:
            arena.assert_alive()
            return proxy.held.is_set()

        await until(is_held, what="a write on its way", within_s=WITHIN_S)
        try:
            await fault(arena)
        finally:
            arena.release()
        arena.counts["faults"] += 1


def _expected(arena: Arena) -> Replayed[Heard]:
    """The log run through ``step`` in this process."""
    agreed, own = stream.settings.read(arena.shop.env)
    with History(own, agreed.partitions) as history:
        return replayed(history.read, arena.shop.rules, None, Heard)


async def _line(plan: Plan, arena: Arena, wanted: Replayed[Heard], told_in: int) -> tuple[str, list[str]]:
    topics = arena.topics
    published: dict[str, dict[str, set[bytes]]] = {}
    doubles = 0
    for topic in arena.shop.topics:
        if topic in IDS or topic.startswith("triggers."):
            published[topic] = topics.ids(topic, IDS.get(topic, "trigger_id"))
            doubles += len(topics.on[topic]) - len(published[topic])
    wanted.profiles.pop(TICK, None)
    there = await topics.profiles()
    stored = {address: there.get(address) for address in wanted.profiles}
    extra = {one for one in there if one not in wanted.profiles and one != TICK}
    required = {topic: wanted.heard.published.get(topic, {}) for topic in published}
    lost = await arena.left() + sum(name not in published[topic] for topic, ids in required.items() for name in ids)
    phantom = len(extra) + sum(name not in required[topic] for topic, ids in published.items() for name in ids)
    divergent = sum(len(bodies) > 1 for ids in published.values() for bodies in ids.values())
    wrong = sum(
        bodies != {required[topic][name]}
        for topic, ids in published.items()
        for name, bodies in ids.items()
        if name in required[topic] and len(bodies) == 1
    )
    twice = 0
    for address, profile in wanted.profiles.items():
        found = stored[address]
        if found is None:
            lost += _fields(profile) != _fields(Profile(address))
        elif _fields(found) != _fields(profile):
            wrong += 1
            twice += _weight(found) > _weight(profile)
    letters = [one for one in topics.json(DEAD_LETTERS) if one["reason"] != "replayed"]
    seen = {(one["source"], one["message_id"]) for one in _events(topics)}
    events = sum(len(topics.on[topic]) for topic in EVENT_TOPICS)
    expired = sum(one.get("reason") == "expired" for one in topics.json(DECISIONS))
    figures = {
        **arena.counts,
        "in": told_in,
        "applied": events - len(letters),
        "dlq": len(letters),
        "dup": events - len(letters) - len(seen),
        "lost": lost,
        "twice": twice,
        "wrong": wrong,
        "phantom": phantom,
        "required": sum(map(len, required.values())),
        "published": sum(map(len, published.values())),
        "dup_id": doubles,
        "divergent": divergent,
        "expired": expired,
    }
    has_bitten = all(arena.counts[name] > 0 for name in plan.bitten)
    is_good = has_bitten and not (lost or twice or wrong or phantom or divergent) and figures["in"] == events
    words = " ".join(f"{name}={count}" for name, count in figures.items())
    differs = differing(
        {address: _fields(profile) for address, profile in wanted.profiles.items() if stored[address] is not None},
        {address: _fields(found) for address, found in stored.items() if found is not None},
    )
    for topic, ids in required.items():
        differs += [
            f"{topic}: {name}: not published: {ids[name]!r}" for name in list(ids) if name not in published[topic]
        ]
        differs += [f"{topic}: {name}: phantom: {one!r}" for name, one in published[topic].items() if name not in ids]
    return f"{plan.name} seed={arena.seed} commit={commit()} {words} {'PASS' if is_good else 'FAIL'}", differs[
        :DIFFERS_MAX
    ]


def _events(topics: Topics) -> list[dict[str, Any]]:
    found = []
    for topic in EVENT_TOPICS:
        for one in topics.on[topic]:
            try:
                event = one.json()
                found.append({"source": event["source"], "message_id": event["message_id"]})
            except (ValueError, TypeError, KeyError):
                continue
    return found


def _fields(profile: Profile) -> dict[str, Any]:
    return {name: _plain(getattr(profile, name)) for name in ATTRIBUTES if name not in UNSTORED}


def _weight(profile: Profile) -> int:
    """Pieces in carts and orders: what grows when an event is taken twice."""
    return sum(carts.quantity(cart) for cart in profile.carts.values()) + len(profile.orders)


def commit() -> str:
    """Of the engine that runs."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
