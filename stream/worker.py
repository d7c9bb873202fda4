"""One worker, opened and wired in one readable order: rules, store, clock, engine, log, Faust."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

import orjson

from profiles.catalogue import Catalogue
from profiles.errors import BadDocument, Refused
from profiles.ids import SHARDS
from stream import app, certificates, metrics, rulebook
from stream.app import Worker
from stream.clock import LogClock, StoreClock, SystemIds
from stream.committed import committed
from stream.feed import Gap
from stream.handlers import Handlers, Progress
from stream.health import Health, watch
from stream.log import KafkaLog
from stream.ports import ProfileStore
from stream.rebuild import BEGUN, REBUILD
from stream.settings import Settings
from stream.store import RedisStore
from stream.topic_ids import same_topics

GC_AFTER: Final = 500_000
"""New objects before a look at the youngest: more than the inputs that are buffered, which no look would free."""


def tune() -> None:
    """Make this process a worker's: what is imported and compiled by now stays, and is not looked through again."""
    gc.unfreeze()  # What the worker before left is looked through once.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_AFTER, 50, 100)


INSTALLATION: Final = "installation"


RULES_S: Final = 1.0
"""How often a worker looks whether other rules are in force."""
TOPICS_S: Final = 60.0
"""How often it looks whether the topics are the same."""


class LiveWorker:
    """A worker with everything it stands on; ``start``, ``wait`` and ``stop`` as ``stream.app.Worker``."""

    def __init__(self, settings: Settings, *, relaxed: bool = False) -> None:
        """Open nothing yet.

        Args:
            relaxed: of ``dev``: the store need not persist, and the rules that it starts with are put in force whatever was.
        Raises:
            Refused, BadDocument: the rules are not to be had.
        """
        agreed, own = settings
        self._partitions = agreed.partitions
        self._files = rulebook.read_rule_files(own.rules)
        self.rules = rulebook.load(own.rules, zone=agreed.zone, currency=agreed.currency)
        self.store = RedisStore.of(own)
        self.clock = LogClock() if agreed.clock == "log" else StoreClock(self.store.now_ms)
        out = KafkaLog(own)
        self._handlers = Handlers(
            self.store,
            out,
            self.clock,
            SystemIds(),
            self.rules,
            own,
            agreed.partitions,
            secret=bytes.fromhex(agreed.secret),
            relaxed=relaxed,
        )
        self._worker = Worker(settings, self._handlers, out, on_gap=_count_gap)
        self._settings = settings
        self._relaxed = relaxed
        self._own = own
        self._watches: list[asyncio.Task[None]] = []
        self.is_member = False

    async def start(self) -> None:
        """Ready when the group has given us our partitions.

        Raises:
            Refused: the store or the topics break a rule (R28).
            OSError: the store or the brokers do not answer.
            Fault: something else went wrong on the way.
        """
        await self._handlers.start()
        self._watches.append(asyncio.get_running_loop().create_task(self._watch_engine()))
        self._watches.append(asyncio.get_running_loop().create_task(certificates.watch(self._own)))
        if not self._relaxed:
            wrong = await lost(self.store, self._settings)
            if wrong:
                raise Refused("\n".join(wrong))
        await self._same_installation()
        await same_topics(self.store, self._own)
        begin = rulebook.publish if self._relaxed else rulebook.begin_by
        mine, self._announced = self.rules.hash, await begin(self.store, self.rules, self._files)
        if not self._announced.is_of(mine):
            app.log.warning(
                "rules: those in %s are not in force; going by generation %d (`opportune rules publish` puts others in force)",
                self._own.rules,
                self._announced.rulebook.number,
            )
        await self._go_by(self._announced)
        self._watches.append(asyncio.get_running_loop().create_task(self._watch_progress()))
        await self._worker.start()
        self._watches.append(asyncio.get_running_loop().create_task(self._watch_rules()))
        self._watches.append(asyncio.get_running_loop().create_task(self._watch_topics()))
        self.is_member = True

    async def _same_installation(self) -> None:
        """Shards and partitions are fixed when an installation begins (R28)."""
        now = {"shards": SHARDS, "partitions": self._partitions}
        told = await self.store.get_doc(INSTALLATION)
        if told is None:
            await self.store.put_doc(INSTALLATION, orjson.dumps(now))
        elif orjson.loads(told) != now:
            raise Refused(f"store: an installation of {now} wanted, got one of {orjson.loads(told)}")

    async def _go_by(self, announced: rulebook.Announced) -> None:
        await self._handlers.go_by(announced.rulebook)
        self._announced, self.rules = announced, announced.rulebook
        metrics.RULES.clear()
        metrics.RULES.labels(self.rules.hash).set(1)

    async def _watch_rules(self) -> None:
        try:
            await self._follow_rules()
        except Exception as error:
            self._worker.fail("following the rules", error)

    async def _follow_rules(self) -> None:
        """Go by the rules that come into force; and by none of before."""
        looked_at = self._announced.value
        while True:
            await asyncio.sleep(RULES_S)
            try:
                value = await self.store.get_doc(rulebook.IN_FORCE)
                if value == looked_at:
                    continue
                number, hashed = rulebook.mark_of(value)
                if number < self.rules.number:  # The store went back, and has forgotten ours.
                    await self.store.replace_doc(rulebook.IN_FORCE, value, self._announced.value)
                    continue
            except OSError:
                continue  # Whether it answers is the writes' business.
            assert value is not None, "no document has the number 0, which is less than ours"
            looked_at = value
            if (number, hashed) == (self.rules.number, self.rules.hash):
                continue  # Only what is lacking has been computed back.
            try:
                found = await asyncio.to_thread(rulebook.read_generation, value)
            except BadDocument as error:
                # Shards are worked by the rules in force, or not at all: others, that can read them, take ours.
                raise Refused(f"rules: generation {number} is not for this version, upgrade it: {error}") from None
            await self._go_by(found)
            app.log.warning("rules: going by generation %d (%s)", number, hashed)

    async def wait(self) -> None:
        """Until it was stopped; raises what ended it."""
        await self._worker.wait()

    async def _watch_engine(self) -> None:
        """Tell the worker at once when the engine has failed: nothing may be released or committed then."""
        try:
            await self._handlers.failed()
        except Exception as error:
            self._worker.fail("the engine", error)

    async def _watch_progress(self) -> None:
        """End a worker that stands still for no reason: another one begins at the cursor."""
        try:
            await watch(self._own, self._handlers.applied, self._worker.awaits_share, self.store.now_ms)
        except Exception as error:
            self._worker.fail("the watchdog", error)

    async def _watch_topics(self) -> None:
        """End when a topic was made anew: what it holds is not what follows our cursor (R10)."""
        while True:
            await asyncio.sleep(TOPICS_S)
            try:
                await same_topics(self.store, self._own)
            except Refused as error:
                self._worker.fail("the topics", error)
                return
            except OSError:
                continue  # Whether they answer is the reading's business.

    @property
    def goods(self) -> Catalogue:
        """The shop's catalogue, kept up while the worker runs."""
        return self._handlers.goods

    def progress(self) -> Progress:
        """How far we are."""
        return self._handlers.progress()

    async def stop(self) -> None:
        """Finish what is under way and let go of everything."""
        self.is_member = False
        await self._worker.stop()
        await self._handlers.stop(broken=self._worker.has_failed)
        for watching in self._watches:
            watching.cancel()
        await self.store.close()


async def lost(store: ProfileStore, settings: Settings) -> list[str]:
    """Whether the profiles are gone that the group has worked on: then its log must not be taken for news (R28).

    Asked at every start, also of a worker that begins anew after a fence: a store that was emptied under it would
    have it tell everything once more.
    """
    if await store.get_doc(REBUILD) == BEGUN:
        return [
            "store: a rebuild that was finished wanted, got one that was not: empty it and run `opportune rebuild` again"
        ]
    if any(state.token for state in await store.read_shards(range(SHARDS))):
        return []
    told = await committed(settings)
    if not told:
        return []
    (topic, partition), offset = next(iter(told.items()))
    return [
        f"store: the profiles that go with group {settings.own.group!r} wanted, got an empty store although the group "
        f"has read up to {topic}/{partition}@{offset}; restore the store's backup, run `opportune rebuild`, or begin a "
        "new group"
    ]


def _count_gap(gap: Gap) -> None:
    metrics.GAPS.inc()
    app.log.warning("%s/%d: no records from offset %d to %d", gap.topic, gap.partition, gap.wanted, gap.found)


def run(settings: Settings) -> int:
    """Run a worker as its own process until SIGTERM or SIGINT; the process's exit code."""
    health: Health | None = None
    ticking: asyncio.Task[None] | None = None

    async def make(settings: Settings) -> LiveWorker:
        nonlocal health, ticking
        if health is None and settings.own.metrics_port:  # The process's, whichever worker it runs.
            health = Health()
            ticking = asyncio.get_running_loop().create_task(health.tick())
            health.serve(settings.own.metrics_port)
        worker = LiveWorker(settings)
        if health is not None:
            health.is_ready = lambda: worker.is_member
        tune()
        return worker

    return app.run(settings, make)
