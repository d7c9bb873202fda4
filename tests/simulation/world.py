"""The world: workers, their group, the store, the log, whoever tells events, and all that can befall them.

    outcome = live(plan_of(seed))       # raises Broken, with the place and the plan, when a promise was not kept

The workers are the real engine (``stream.handlers``) on its ports; a crash is the end of a life between two awaits. After
the plan's last act everything heals, and the world must come to rest by itself: all input applied, all outboxes
published, all alarms that are due handled (R12, R27).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from random import Random  # noqa: TID251 - seeded: the same world every time
from typing import Any, Final
from unittest.mock import patch

import orjson
from aiokafka import TopicPartition

from connectors.collector.admission import Given, admit
from connectors.collector.body import parse
from connectors.collector.keys import Source
from console import commands, unmerge
from console.commands import Commands
from profiles.errors import Refused
from profiles.ids import SHARDS, shard_of
from profiles.moments import DAY_MS
from profiles.wire import INPUT_TOPICS, UNMERGE, Record, unpack_record
from rules.compile import compile_rules
from rules.rulebook import Rulebook
from rules.undo import NotExact
from stream import handlers, loading
from stream.clock import LogClock, StoreClock
from stream.effects import FencedOut
from stream.facts import read_told
from stream.feed import Chunk, Feed
from stream.handlers import Handlers
from stream.log_memory import MemoryLog, MemoryReader
from stream.ports import ProfileStore
from stream.settings import Own
from stream.store_memory import MemoryStore
from stream.transport import share_out
from tests.simulation.loop import Life, VirtualLoop, outside, virtual_loop, within
from tests.simulation.net import FAIR, Database, Net, SimIds, SimLog, SimStore, Trace, Weather, at_once
from tests.simulation.shop import CART_MS, RULES, START_MS, Telling, has_tabs, story
from tests.simulation.witness import Broken, Witness

AGAIN: Final = "buyers_"
"""Segments that say what ``buyers`` says."""
SESSION_S: Final = 6.0
REBALANCE_S: Final = 3.0
START_AGAIN_S: Final = 0.5
GIVES_UP_S: Final = 60.0
FOREVER_S: Final = 1e12
LIES_S: Final = 4.0
LOOKS_S: Final = 2.0
"""How late a worker may be to see that other rules are in force."""
SECRET: Final = b"a shop's secret"
SENDER: Final = Source("web", False, 7 * DAY_MS)
SETTLES_WITHIN_S: Final = 120.0
AFTERWARDS_S: Final = 40.0
SHARDS_DRAWN: Final = (8, 16, 32, 64, SHARDS)
ROOMS: Final = ("profiles.", "rules.", "stream.", "connectors.", "console.", "tests.simulation.")
OWN: Final = Own(batch_events=64, buffer_events=400, cache_profiles=64)


@cache
def rulebook() -> Rulebook:
    """The simulated shop's rules."""
    return compile_rules([("rules", RULES)])


@cache
def changed(number: int) -> Rulebook:
    """The same shop after its rules have changed so often: it has the next of some segments that say the same."""
    if not number:
        return rulebook()
    document = orjson.loads(RULES)
    document["segments"][f"{AGAIN}{number}"] = document["segments"]["buyers"]
    found = compile_rules([("rules", orjson.dumps(document).decode())])
    found.number = number
    found.gone = tuple(f"{AGAIN}{one}" for one in range(1, number))
    return found


class SimParter(unmerge.Parter):
    """Un-merges as the console does; it reads the log of this world."""

    def __init__(self, log: MemoryLog, *others: Any) -> None:
        super().__init__(*others)
        self._memory = log

    async def _read(self, wanted: Mapping[TopicPartition, tuple[int, int]]) -> dict[TopicPartition, list[Any]]:
        found: dict[TopicPartition, list[Any]] = {}
        for place, (first, until) in wanted.items():
            where = (place.topic, place.partition)
            if self._memory.begin(where) > first:
                raise NotExact("log_gone", "unmerge: a log that reaches back to the merge wanted, got a later one")
            found[place] = [one for one in self._memory.read(where, first, until - first) if one.offset < until]
        return found


@dataclass(frozen=True)
class Act:
    """Something befalls the world.

    Attributes:
        at_ms: when, since it began.
        what: ``kill``, ``stop`` (a clean one), ``freeze``, ``rebalance``, ``store down``, ``broker down``, ``store full``,
            ``lose writes``, ``failover`` (away, and back without the last ones), ``clock steps``, ``gap`` (an offset without
            a record), ``retention`` (the log forgets what everybody has), ``outage`` (of all workers), ``rules`` (others come
            into force).
        worker: to which; a number that wraps round.
        amount: seconds that it lasts; of ``lose writes`` how many, of ``clock steps`` how far it is off then, ms.
    """

    at_ms: int
    what: str
    worker: int = 0
    amount: float = 0.0

    def until_ms(self) -> int:
        """When it is over."""
        lasts = self.what in ("freeze", "store down", "broker down", "store full", "failover", "outage")
        return self.at_ms + int(self.amount * 1000) * lasts

    def __str__(self) -> str:
        return f"{self.at_ms / 1000:8.3f} s  {self.what} (worker {self.worker}, {self.amount:g})"


@dataclass(frozen=True)
class Plan:
    """A whole history, before it happens.

    Attributes:
        clock: whose time decides what is due: the ``store``'s, or the ``log``'s.
        shards: into how many the installation is divided; the fewer, the more customers share one.
        hands_late: how often what was fetched lies about before the engine is given it, and its partition perhaps is another's.
        dies_at: end the first worker's life at this step of it: a place between two awaits; -1: never.
        is_shuffled: whether the order of what is ready is drawn.
    """

    seed: int
    partitions: int
    workers: int
    weather: Weather
    told: tuple[Telling, ...]
    acts: tuple[Act, ...]
    clock: str = "store"
    shards: int = SHARDS
    hands_late: float = 0.0
    dies_at: int = -1
    is_shuffled: bool = True

    @property
    def loses_writes(self) -> bool:
        """Whether the store forgets what it had acknowledged."""
        return any(act.what in ("lose writes", "failover") for act in self.acts)

    @property
    def keeps_log(self) -> bool:
        """Whether the log keeps everything to the end."""
        return all(act.what != "retention" for act in self.acts)

    def __str__(self) -> str:
        lines = [(one.told_ms, str(one)) for one in self.told] + [(act.at_ms, f"{act}") for act in self.acts]
        head = f"seed {self.seed}: {self.workers} workers, {self.partitions} partitions, {self.shards} shards, {self.weather}"
        return "\n".join([head, *(line for _, line in sorted(lines))])


def plan_of(seed: int) -> Plan:
    """The history of a seed."""
    random = Random(f"plan {seed}")
    draw = random.random

    def share(most: float) -> float:
        return draw() * most if draw() < 0.5 else 0.0

    weather = Weather(share(0.05), share(0.05), share(0.01), share(0.01), share(0.1), share(0.2))
    workers = random.choice((1, 2, 2, 3))
    span_ms = 45_000
    kinds = (
        "kill",
        "stop",
        "freeze",
        "rebalance",
        "store down",
        "broker down",
        "store full",
        "lose writes",
        "clock steps",
    )
    in_play = [kind for kind in kinds if draw() < 0.4]
    acts = []
    for _ in range(int(draw() * 8)):
        if in_play:
            what = random.choice(in_play)
            amount = {"lose writes": 1 + draw() * draw() * 40, "clock steps": draw() * 1_800 - 900}.get(
                what, draw() * 8
            )
            acts.append(Act(int(draw() * span_ms * 1.2), what, int(draw() * 8), round(amount, 3)))
    told = story(seed, span_ms=span_ms, customers=4 + int(draw() * 8))
    if seed % 2:
        acts += _more_acts(seed, span_ms, acts)
    if seed % 11 == 4:
        changes = Random(f"rules {seed}")
        acts += [Act(int(changes.random() * span_ms * 1.2), "rules") for _ in range(changes.randrange(1, 4))]
    partitions = random.choice((1, 2, 4))
    if has_tabs(seed):
        lags = Random(f"lags {seed}")
        acts.append(Act(CART_MS + int(lags.random() * 5_000), "freeze", lags.randrange(8), 6 + lags.random() * 2))
        workers, partitions = max(2, workers), max(2, partitions)
    return Plan(
        seed,
        partitions,
        workers,
        weather,
        tuple(told),
        tuple(sorted(acts, key=lambda act: act.at_ms)),
        shards=Random(f"shards {seed}").choice(SHARDS_DRAWN),
        hands_late=0.3 if seed % 7 == 6 else 0.0,
    )


def _more_acts(seed: int, span_ms: int, acts: Sequence[Act]) -> list[Act]:
    """What befalls half of the worlds besides."""
    random = Random(f"more acts {seed}")
    draw = random.random
    more = [Act(int(draw() * span_ms * 1.2), "gap", int(draw() * 8)) for _ in range(int(draw() * 3))]
    if draw() < 0.2:
        more.append(Act(int(draw() * span_ms * 1.2), "failover", amount=round(0.5 + draw() * 4, 3)))
    elif draw() < 0.4 and all(act.what != "lose writes" for act in acts):
        # What the store forgets after the log has, nobody can bring back.
        more += [Act(int(draw() * span_ms * 1.2), "retention") for _ in range(2)]
    return more


@dataclass
class Outcome:
    """What a world left behind.

    Attributes:
        trace: the hash over all that happened.
        profiles: address -> blob.
        ids: what went out: topic -> ids.
        steps: how often anything ran.
        decided: (trigger, reason or "emitted") -> how many moments.
        letters: the trigger records that went out.
        busy: at which steps of its own the first worker's first life did something.
        virtual_ms: how long it lasted by its own clock.
    """

    trace: str
    profiles: dict[str, bytes]
    ids: dict[str, set[str]]
    decided: dict[tuple[str, str], int]
    letters: list[dict[str, Any]]
    steps: int
    busy: set[int]
    virtual_ms: int
    exits: list[str]
    events: int


class SimWorker:
    """A worker process, which somebody starts again when it ends."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"worker-{number}"
        self.life: Life | None = None
        self.reader: MemoryReader | None = None
        self.engine: Handlers | None = None
        self.stop_asked = asyncio.Event()
        self.wanted = True
        self.lives = 0

    def boot(self) -> None:
        """Start a new life."""
        self.lives += 1
        first = self.number == 0 and self.lives == 1
        life = Life(f"{self.name}.{self.lives}", self.world.plan.dies_at if first else -1)
        life.on_death = lambda: self._over("power cut")
        if first:
            self.world.first_life = life
        self.life = life
        self.reader = None
        self.stop_asked = asyncio.Event()
        self.world.loop.create_task(self._run(life), context=within(life))

    def revive(self) -> None:
        """Start it again, and whenever it ends from now on."""
        self.wanted = True
        self._again()

    def kill(self) -> None:
        """A power cut."""
        if self.life is not None:
            self.world.loop.end(self.life)

    def look(self) -> None:
        """See which rules are in force, and go by them."""
        if self.life is not None and self.engine is not None and not self.life.is_over:
            self.world.loop.create_task(self.engine.go_by(self.world.rules), context=within(self.life))

    async def _run(self, life: Life) -> None:
        world = self.world
        random = Random(f"{life.name} of {world.plan.seed}")
        log = SimLog(world.net, life, world.log, random)
        store = SimStore(world.net, life, world.database)
        clock = LogClock() if world.plan.clock == "log" else StoreClock(store.now_ms, world.loop.now_ms)
        engine = self.engine = Handlers(
            store,
            log,
            clock,
            SimIds(random),
            world.rules,
            OWN,
            world.plan.partitions,
            relaxed=True,
            secret=SECRET,
            wall_ms=world.loop.now_ms,
            buggify=lambda site: random.random() < world.net.weather.odd,
        )
        word = "stopped"
        try:
            await engine.start()
            reader = self.reader = MemoryReader(
                world.log, engine, world.loop.now_ms, idle_s=0.25, fetch_records=OWN.batch_events
            )
            if world.plan.hands_late:
                _hand_late(reader.feed, world, random)
            world.group.join(self)
            ends = [asyncio.ensure_future(one) for one in (reader.run(), engine.failed(), self.stop_asked.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self.stop_asked.is_set():
                await reader.stop()
                await engine.stop()
            for end in ends[:2]:
                if end.done():
                    end.result()
        except (FencedOut, OSError) as error:
            word = f"{type(error).__name__}"
        except Refused as error:
            word = f"refused: {error}"
        except Exception as error:  # A process that ends by a bug is a broken promise, told at the end.
            world.witness.broke("R8", f"{life.name} ended: {type(error).__name__}: {error}", error)
            word = type(error).__name__
        life.on_death = None
        life.is_over = True
        self._over(word)

    def _over(self, word: str) -> None:
        self.world.trace.note(self.world.loop.now_ms(), self.name, "over", word)
        self.world.exits.append(word)
        self.world.group.gone(self, at_once=word == "stopped")
        self.life = None
        self.reader = None
        self.world.loop.call_later(START_AGAIN_S, self._again, context=outside())

    def _again(self) -> None:
        if self.wanted and self.life is None:
            self.boot()


def _hand_late(feed: Feed, world: World, random: Random) -> None:
    """As Faust does, through whose queues a fetch goes: let some of them lie, through rebalances."""
    hand = feed.hand

    def late(chunk: Chunk, done: Callable[[], object]) -> None:
        if random.random() < world.plan.hands_late:
            world.loop.call_later(random.random() * LIES_S, hand, chunk, done)
        else:
            hand(chunk, done)

    feed.hand = late  # type: ignore[method-assign]  # this reader's only


class Group:
    """Who has which partitions: the brokers' part of a consumer group."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.members: dict[str, tuple[SimWorker, Life]] = {}
        self.owned: dict[str, list[int]] = {}
        self._changed = asyncio.Event()
        world.loop.create_task(self._run(), context=outside())

    def join(self, worker: SimWorker) -> None:
        """A worker asks for partitions."""
        assert worker.life is not None
        self.members[worker.life.name] = (worker, worker.life)
        self._changed.set()

    def gone(self, worker: SimWorker, *, at_once: bool) -> None:
        """A worker has ended; unless it said so, that is noticed by its silence."""
        life = worker.life
        if life is not None and life.name in self.members:
            self.world.loop.call_later(0.0 if at_once else SESSION_S, self.forget, life.name, context=outside())

    def forget(self, name: str) -> None:
        """Somebody is a member no more; if he lives he will hear of it late, and must join anew."""
        if self.members.pop(name, None) is not None:
            self.owned.pop(name, None)
            self._changed.set()

    def shuffle(self) -> None:
        """Give partitions to others, for no reason."""
        for owned in self.owned.values():
            owned.clear()
        self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._rebalance()

    async def _rebalance(self) -> None:
        self.world.trace.note(self.world.loop.now_ms(), "rebalance of", sorted(self.members))
        await self._all({name: [] for name in self.members})
        if not self.members:
            return
        partitions = self.world.plan.partitions
        self.owned = share_out(partitions, {name: self.owned.get(name, []) for name in self.members})
        await self._all(self.owned)

    async def _all(self, wanted: dict[str, list[int]]) -> None:
        """Tell the members at once; who does not answer in time is one no more."""
        loop = self.world.loop
        asked: dict[str, asyncio.Task[None]] = {}
        for name in sorted(wanted):
            worker, life = self.members[name]
            reader = worker.reader
            if worker.life is life and reader is not None:
                asked[name] = loop.create_task(_assigned(reader, wanted[name]), context=within(life))
        if asked:
            await asyncio.wait(asked.values(), timeout=REBALANCE_S)
        for name, task in asked.items():
            if not task.done() and name in self.members:
                worker, life = self.members[name]
                self.forget(name)
                # It hears of it when it asks again, which takes it a heartbeat, or as long as it stands still.
                loop.create_task(self._hears(worker, life, task), context=within(life))

    async def _hears(self, worker: SimWorker, life: Life, asked: asyncio.Task[None]) -> None:
        await asyncio.wait([asked])
        await asyncio.sleep(SESSION_S / 3)
        if worker.life is life and worker.reader is not None:
            await _assigned(worker.reader, [])
            self.join(worker)


async def _assigned(reader: MemoryReader, partitions: Sequence[int]) -> None:
    try:
        await reader.assign(partitions)
    except Exception:
        return  # The reader has it as its fault, and the worker ends by it.


class World:
    """Everything of one history."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.trace = Trace()
        self.rules = rulebook()
        self.net = Net(loop, Random(f"net {plan.seed}"), self.trace)
        self.store_off_ms = 0
        self.database = Database(lambda: MemoryStore(self))
        self.log = MemoryLog(plan.partitions)
        self.witness = Witness(self.rules, self.now_ms, self.log, self.trace)
        self.database.witness = self.witness.wrote
        self.exits: list[str] = []
        self.operator = Life("operator")
        self.parting: set[str] = set()
        self.refusals: list[str] = []
        self.gives_up_s = FOREVER_S
        self.first_life: Life | None = None
        self.workers: list[SimWorker] = []
        self.group: Group

    def now_ms(self) -> int:
        """The store's clock."""
        return START_MS + self.loop.now_ms() + self.store_off_ms

    def as_of_ms(self) -> int:
        """The clock that decides what is due."""
        if self.plan.clock == "log":
            return START_MS + max(one.stamped_ms for one in self.plan.told)
        return self.now_ms()

    async def live(self) -> Outcome:
        """Let it all happen; then let it come to rest, and look at it."""
        plan, loop = self.plan, self.loop
        self.group = Group(self)
        self.workers = [SimWorker(self, number) for number in range(plan.workers)]
        for worker in self.workers:
            worker.boot()
        self.net.weather = plan.weather
        for one in plan.told:
            loop.call_at(one.told_ms / 1000, self._tell, one, context=outside())
        for act in plan.acts:
            loop.call_at(act.at_ms / 1000, self._befall, act, context=outside())
        last_ms = max([one.told_ms for one in plan.told] + [act.until_ms() for act in plan.acts], default=0)
        await asyncio.sleep(last_ms / 1000 + 10)
        self._heal()
        self.gives_up_s = loop.time() + GIVES_UP_S
        await self._rest()
        await asyncio.sleep(AFTERWARDS_S)
        await self._rest()
        self.witness.at_the_end(self)
        return self._outcome()

    def _tell(self, one: Telling) -> None:
        if one.asks == UNMERGE:
            self.loop.create_task(self._part(one), context=within(self.operator))
            return
        for record in self._taken(one):
            place = self.log.append(record)
            if one.raw:
                self.witness.littered(record.topic, place, one.raw)
            self.trace.note(self.loop.now_ms(), "told", record.topic, *place)

    def _taken(self, one: Telling) -> list[Record]:
        """What the collector makes of it; where nobody's clock is wrong, the story itself knows."""
        if not one.off_ms:
            return [one.record()]
        body = orjson.dumps({"batch": [one.body()]})
        admission = admit(parse("batch", body, 1), Given(SENDER, START_MS + one.stamped_ms, SECRET, len(body)))
        self.witness.collected(one, admission)
        return admission.records

    async def _part(self, one: Telling) -> None:
        """An operator parts an address from whom it leads to, and asks until it is done."""
        address, tries = one.event.address, itertools.count()
        if address in self.parting:
            return
        self.parting.add(address)
        store = SimStore(self.net, self.operator, self.database)
        ids = SimIds(Random(f"operator {self.plan.seed}"))
        log = SimLog(self.net, self.operator, self.log, Random(f"operator's log {self.plan.seed}"))
        parter = SimParter(self.log, store, Commands(store, log, SECRET, ids), SECRET, {}, self.plan.partitions)
        while self.loop.time() < self.gives_up_s:
            try:
                await parter.unmerge(address, "the shop", 10.0, f"{one.event.message_id}_{next(tries)}")
                break
            except NotExact as error:
                word = error.reason
                if word == "log_gone" and not self.plan.keeps_log:
                    break
                if word == "not_merged" and self._is_parted(one):
                    break  # It was done, and the answer was lost.
            except (OSError, TimeoutError) as error:
                word = type(error).__name__
            self.trace.note(self.loop.now_ms(), "operator", word, address)
            self.refusals.append(f"{address}: {word}")
            await asyncio.sleep(1.0)
        self.parting.discard(address)

    def _is_parted(self, one: Telling) -> bool:
        return one.event.address in self.witness.parted(self)

    def _befall(self, act: Act) -> None:
        loop, worker = self.loop, self.workers[act.worker % len(self.workers)]
        self.trace.note(loop.now_ms(), act.what, act.worker, act.amount)
        until_s = loop.time() + act.amount
        if act.what == "kill":
            worker.kill()
        elif act.what == "stop":
            worker.stop_asked.set()
        elif act.what == "outage":
            for one in self.workers:
                one.wanted = False
                one.kill()
                loop.call_at(until_s, one.revive, context=outside())
        elif act.what == "freeze" and worker.life is not None and not worker.life.is_frozen:
            life = worker.life
            loop.freeze(life)
            loop.call_at(until_s, loop.thaw, life, context=outside())
            loop.call_later(SESSION_S, self._miss, worker, life, context=outside())
        elif act.what == "rebalance":
            self.group.shuffle()
        elif act.what in ("store down", "broker down"):
            server = act.what.removesuffix(" down")
            self.net.is_down.add(server)
            loop.call_at(until_s, self.net.is_down.discard, server, context=outside())
        elif act.what == "store full":
            self.database.is_full = True
            loop.call_at(until_s, setattr, self.database, "is_full", False, context=outside())
        elif act.what == "lose writes":
            self._forget(int(act.amount))
        elif act.what == "failover":
            self.net.is_down.add("store")
            loop.call_at(until_s, self.net.is_down.discard, "store", context=outside())
            self._forget(int(act.amount * 5))
        elif act.what == "gap":
            self._gap(act.worker)
        elif act.what == "retention":
            self._expire()
        elif act.what == "clock steps":
            self.store_off_ms = int(act.amount)
        elif act.what == "rules":
            self.rules = changed(self.rules.number + 1)
            for number, one in enumerate(self.workers):
                # Whoever starts goes by them at once; whoever runs, when he next looks.
                after_s = Random(f"looks {self.plan.seed} {self.rules.number} {number}").random() * LOOKS_S
                loop.call_later(after_s, one.look, context=outside())

    def _forget(self, writes: int) -> None:
        self.database.lose(writes)
        self.witness.forgot()

    def _gap(self, number: int) -> None:
        """An offset that no reader ever finds a record at, and rubbish behind it."""
        topic, key = INPUT_TOPICS[number % len(INPUT_TOPICS)], f"user:p-{number}"
        partition, offset = self.log.append(Record(topic, key, b"{"))
        self.log.lose((topic, partition), offset)
        self.witness.littered(topic, self.log.append(Record(topic, key, b"{")), b"{")

    def _expire(self) -> None:
        """The log keeps what somebody has still to read, and no more."""
        self.witness.look()
        states, count = at_once(self.database.now.read_shards(range(SHARDS))), self.plan.partitions
        for topic in INPUT_TOPICS:
            for partition in range(count):
                taken = min(states[shard].cursor.get(topic, 0) for shard in range(partition, SHARDS, count))
                self.log.expire((topic, partition), taken)

    def _miss(self, worker: SimWorker, life: Life) -> None:
        """Its heartbeats have not come for a whole session."""
        if life.is_frozen and life.name in self.group.members:
            self.group.forget(life.name)
            task = self.loop.create_task(_nothing(), context=within(life))
            self.loop.create_task(self.group._hears(worker, life, task), context=within(life))

    def _heal(self) -> None:
        self.net.weather = FAIR
        self.net.is_down.clear()
        self.database.is_full = False
        for worker in self.workers:
            if worker.life is not None and worker.life.is_frozen:
                self.loop.thaw(worker.life)

    async def _rest(self) -> None:
        """Until nothing is left to do."""
        until_s = self.loop.time() + SETTLES_WITHIN_S
        while True:
            left = self.left_to_do()
            if not left:
                return
            if self.loop.time() > until_s:
                raise Broken("R12", f"not at rest {SETTLES_WITHIN_S:.0f} s after the last fault: {left}", self.exits)
            await asyncio.sleep(1.0)

    async def in_force(self, store: ProfileStore) -> tuple[Rulebook, list[tuple[str, str]]]:
        """The rules, as the store would tell them."""
        return self.rules, [("rules", RULES)]

    def left_to_do(self) -> str:
        """What is not done yet, in words; empty at rest."""
        if self.parting:
            return f"the un-merge of {sorted(self.parting)}: {self.refusals[-3:]}"
        store, count = self.database.now, self.plan.partitions
        standing = [read_told(state.generation) for state in at_once(store.read_shards(range(SHARDS)))]
        for number, one in enumerate(standing):
            if one.number < self.rules.number or one.is_new:
                return f"shard {number}: generation {one.number} up to place {one.place}"
        for topic in INPUT_TOPICS:
            for partition in range(count):
                end = self.log.end((topic, partition))
                taken = max(store._shards[shard].cursor.get(topic, 0) for shard in range(partition, SHARDS, count))
                if taken < end:
                    return f"{topic}/{partition}: applied up to {taken} of {end}"
        for number, shard in enumerate(store._shards):
            for packed in shard.outbox:
                if not self.witness.is_published(packed):
                    record = unpack_record(packed)
                    return f"shard {number}: {record.topic} of {record.key} not published"
        due = at_once(store.due(range(SHARDS), self.as_of_ms() - (self.plan.clock == "log"), 1))
        return f"alarm of {due[0]}" if due else ""

    def _outcome(self) -> Outcome:
        return Outcome(
            self.trace.digest(),
            self.witness.blobs(self.database.now),
            self.witness.ids(),
            self.witness.decided(),
            self.witness.letters(),
            self.loop.steps,
            self.first_life.busy if self.first_life is not None else set(),
            self.loop.now_ms(),
            self.exits,
            len(self.plan.told),
        )


async def _nothing() -> None:
    return


def live(plan: Plan, *, lines: list[str] | None = None) -> Outcome:
    """Let a plan happen.

    Args:
        lines: gathers what happened, for people.
    Raises:
        Broken: a promise was not kept.
    """
    loop = virtual_loop(Random(f"order {plan.seed}"), shuffled=plan.is_shuffled)
    with _lean(), _divided(plan.shards):
        asyncio.events._set_running_loop(loop)
        try:
            world = World(plan, loop)
            world.trace.lines = lines
        finally:
            asyncio.events._set_running_loop(None)
        try:
            with patch.object(unmerge, "in_force", world.in_force):
                return loop.run(world.live())
        finally:
            loop.close()


@contextmanager
def _divided(shards: int) -> Iterator[None]:
    """An installation keeps the number of shards that it was made with; this one was made with so many."""
    with ExitStack() as stack:
        if shards != SHARDS:
            stack.callback(shard_of.cache_clear)
            for name, module in sorted(sys.modules.items()):
                if name.startswith(ROOMS) and "SHARDS" in vars(module):
                    stack.enter_context(patch.object(module, "SHARDS", shards))
            shard_of.cache_clear()
        yield


@contextmanager
def _lean() -> Iterator[None]:
    """Rarer beats and looks at the gate than in life, no measuring, no log, no search for garbage: a world costs a third."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        with (
            patch.object(handlers, "BEAT_S", 5.0),
            patch.object(handlers, "GATE_S", 0.25),
            patch.object(handlers, "thread_cpu_ns", lambda: 0),
            patch.object(loading, "thread_cpu_ns", lambda: 0),
            patch.object(commands, "POLL_S", 0.5),
        ):
            yield
    finally:
        logging.disable(before)
        gc.enable()
        gc.collect(0)  # All that this world has left behind is young.
