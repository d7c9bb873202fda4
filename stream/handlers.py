"""Batches in, steps, batches out: the engine that the log feeds (``ports.Engine``).

One pump takes what is ready of all partition groups, and the alarms that are due; has loaded what it lacks (``loading``); has
the batch computed (``computing``); and hands the result to ``effects``. One batch computes while the one before it is being
written and published; a shard's tokens are drawn here, so the chain holds whatever the store answers.

Whatever fails here is kept and raised at the next call of the log: the process ends (R8).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from profiles.catalogue import Catalogue
from profiles.errors import Refused
from profiles.ids import SHARDS, shard_of
from profiles.moments import FOREVER, MINUTE_MS, Clock
from profiles.wire import (
    INPUT_TOPICS,
    MARK,
    NEWS,
    PROFILE_COMMANDS,
    Command,
    Record,
    encode_command,
    unpack_record,
)
from rules.rulebook import Rulebook
from stream import effects, metrics
from stream.alarms import Gate
from stream.bugs import Bugs
from stream.clock import LogClock, StoreClock, thread_cpu_ns, wall_ms
from stream.computing import Computing
from stream.effects import Batch, Draft, Shard
from stream.facts import Books, Scanner, digest_of, doc_of, key_in
from stream.group import Group, Input
from stream.loading import Loading, Piece
from stream.owned import Owned
from stream.ports import Ids, Log, LogRecord, ProfileStore
from stream.settings import Own
from stream.stepping import Page

log = logging.getLogger(__name__)

_DECODE, _STEP, _ENCODE = (metrics.STAGE.labels(stage) for stage in ("decode", "step", "encode"))

BEAT_S: Final = 2.0
HISTORY: Final = "history:"
"""Documents of the store, one a partition: whether its last input was history; on the log's clock only."""
CANCEL_AGAIN_S: Final = 0.5
CHECK_AGAIN_S: Final = 1.0
FLIGHT_MAX: Final = 2
GATE_S: Final = 0.1
DUE_EVERY_MS: Final = 250
WAKES_MAX: Final = 100
AHEAD_MS_MAX: Final = 5 * MINUTE_MS


def _is_news(one: Input) -> bool:
    return type(one.given) is Command and one.given.kind == NEWS


def never(site: str) -> bool:
    """Nothing rare happens on purpose."""
    return False


class Progress(NamedTuple):
    """How far a worker is, for whoever waits for it (benches, drains).

    Attributes:
        taken: records read so far, of all topics, counted from each topic's first.
        applied: topic -> how many records, over our partitions, every shard has behind it.
        is_settled: all that was read is applied, stored and published.
        alarms_ms: all alarms due before this have fired.
    """

    taken: int
    applied: dict[str, int]
    is_settled: bool
    alarms_ms: int


class Handlers:
    """The engine of one worker."""

    def __init__(
        self,
        store: ProfileStore,
        out: Log,
        clock: StoreClock | LogClock,
        ids: Ids,
        rulebook: Rulebook,
        own: Own,
        partitions: int,
        *,
        secret: bytes = b"",
        relaxed: bool = False,
        wall_ms: Callable[[], int] = wall_ms,
        buggify: Callable[[str], bool] = never,
    ) -> None:
        """Make an engine that owns nothing yet; ``start`` it before it is fed.

        Args:
            clock: the store's (live), or the log's (demo, replay, import into a fresh installation).
            secret: the installation secret; keys the hashes under which tombstones lie.
            relaxed: ``dev``: the store need not persist.
            wall_ms: the process's own clock, the one of ``read_ms`` and ``answered_ms``.
            buggify: asked at places where something rare and allowed may happen, by name; the simulator says yes
                now and then, so that the rare is met often.
        """
        self._store = store
        self._out = out
        self._clock = clock
        self._ids = ids
        self._rulebook = rulebook
        self._books = Books(rulebook)
        self._scanner = Scanner(store, rulebook, partitions, clock.now_ms)
        self._own = own
        self._lane_max = max(1, own.buffer_events // 8)
        self._relaxed = relaxed
        profiles_max = max(own.cache_profiles, 4 * own.batch_events)
        self._owned = Owned(partitions, profiles_max, own.catalogue_products, secret, tells_at_once=store.is_atomic)
        self._flight: list[asyncio.Task[None]] = []
        self._number = 0
        self._waking: set[str] = set()
        self._due_asked_ms = 0
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._wall_ms = wall_ms
        self._buggify = buggify
        self._gate = Gate(store, partitions, clock, wall_ms)
        self._loading = Loading(store, self._owned, wall_ms, buggify)
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()
        self._bugs = Bugs(wall_ms, has_ceiling=own.bug_ceiling)

    @property
    def clock(self) -> Clock:
        """The clock that decides what is due."""
        return self._clock

    async def go_by(self, rulebook: Rulebook) -> None:
        """The generation in force is this from the next batch on.

        A batch is computed under one generation, and each shard's write says which: who is to go on after a crash finds either
        what the old rules did or, in one write, that the shard goes by the new ones and what they did first.
        """
        async with self._turn:
            self._rulebook = rulebook
            self._books = self._books.under(rulebook)
            self._scanner = Scanner(self._store, rulebook, self._owned.partitions, self._clock.now_ms)
            for shard in self._owned.shards.values():
                self._begin_by(shard)
            for group in self._owned.groups.values():
                group.since_ms = self._since_ms()
        self._news.set()

    def _begin_by(self, shard: Shard) -> None:
        """Work on a shard by the rules in force; the facts that it knows are at hand."""
        shard.go_by(self._rulebook)
        shard.rulebook = self._books.knowing(shard.known) if shard.known else None
        if shard.place >= 0:
            self._owned.walking.add(shard.number)

    def _since_ms(self) -> int:
        """Now, on the store's clock; 0 on the log's."""
        return self._clock.now_ms() if isinstance(self._clock, StoreClock) else 0

    @property
    def goods(self) -> Catalogue:
        """The shop's catalogue."""
        return self._owned.shelf.goods

    def progress(self) -> Progress:
        """How far we are; costs a look at every shard."""
        applied = dict.fromkeys(INPUT_TOPICS, 0)
        for (topic, _), offset in self.applied().items():
            applied[topic] += offset
        groups = self._owned.groups.values()
        return Progress(
            sum(lane.position for group in groups for lane in group.lanes),
            applied,
            not self._flight and not any(group.buffered() for group in groups),
            min((group.woken_ms for group in groups), default=0),
        )

    def applied(self) -> dict[tuple[str, int], int]:
        """Per topic and partition, what every shard has behind it."""
        return self._owned.applied()

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Learn the time, look the store over, and begin to pump.

        Raises:
            Refused: the store breaks a rule of R28; all of them are listed.
        """
        wrong = await self._store.check(relaxed=self._relaxed)
        if wrong:
            raise Refused("\n".join(wrong))
        if isinstance(self._clock, StoreClock):
            await self._clock.learn()
        for work in (self._pump(), self._beat(), self._watch_gates(), self._look_over()):
            self._tasks.append(asyncio.get_running_loop().create_task(self._guarded(work)))

    async def stop(self, *, broken: bool = False) -> None:
        """Let what is under way end, and stop.

        Args:
            broken: the log is gone for us: what is under way is left to whoever claims our shards, who finds it in their
                outboxes.
        """
        if not broken:
            await self.release(list(self._owned.groups))
        waiting = {*self._tasks, *self._flight}
        while waiting:  # The store's client swallows a cancellation now and then: ask until they have ended.
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)
        self._tasks.clear()

    async def failed(self) -> None:
        """Wait until the engine has failed, and raise why: a silent broker would not call us to be told (R8)."""
        await self._failed.wait()
        self._alive()

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            if self._failure is not None:
                return  # The first one counts; what was under way behind it fails with it.
            if not isinstance(error, effects.FencedOut):  # Whoever runs us tells of that: it need not end the process.
                log.error("the engine failed: %s: %s", type(error).__name__, error)
            self._failure = error
            self._failed.set()
            self._news.set()
            for group in self._owned.groups.values():
                for lane in group.lanes:
                    lane.room.set()

    def _alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    # --- what the log calls -------------------------------------------------------------------------------------

    async def claim(self, partitions: Sequence[int]) -> dict[tuple[str, int], int]:
        """Own these partitions: fence out whoever had them, publish what he left, say where to start (R4, R6)."""
        starts: dict[tuple[str, int], int] = {}
        async with self._turn:
            self._alive()
            for partition in partitions:
                group = Group(partition, self._owned.partitions)
                shards = await self._claim_shards(group)
                for place, topic in enumerate(INPUT_TOPICS):
                    start = min(shard.next[place] for shard in shards)
                    starts[topic, partition] = start
                    group.lanes[place].position = start
                group.low_ms = min(shard.clock_ms for shard in shards)
                group.since_ms = self._since_ms()
                if isinstance(self._clock, LogClock):
                    group.backfill = group.told_backfill = await self._was_history(partition)
                    # What was applied before us lies below our cursors: nobody reads it, and its time, again.
                    self._clock.advance(max(shard.clock_ms for shard in shards))
                self._owned.groups[partition] = group
                await self._owned.shelf.learn(self._store, group.shards)
            await self._learn_products()
            await self._mark()
            # After the marks: whatever lies before them was written before this look, or is forgotten.
            self._owned.stored = await effects.read(
                "how far all shards are", lambda: self._store.read_shards(range(SHARDS))
            )
        return starts

    async def _learn_products(self) -> None:
        """Know of the products of shards that are not ours what their owners have written."""
        others = (number for number in range(SHARDS) if number not in self._owned.shards)
        await self._owned.shelf.learn(self._store, others)

    async def _mark(self) -> None:
        """Put a mark behind all that the log holds for our partitions: when it is read, we know what was told them.

        Until then nothing of theirs is taken. A command to an address of ours may be taken at once only if no
        earlier one of its sender still lies in the log, left by whoever owned the two before.
        """
        marks = []
        for group in self._owned.groups.values():
            group.mark, group.caught_up = self._ids.token(), False
            key = key_in(MARK, group.partition, self._owned.partitions)
            marks.append(
                Record(PROFILE_COMMANDS, key, encode_command(Command(MARK, key, "", (0, ""), group.mark, group.low_ms)))
            )
        await effects.publish(self._out, marks)

    async def _claim_shards(self, group: Group) -> list[Shard]:
        numbers = list(group.shards)
        while True:
            states = await effects.read("shards", lambda: self._store.read_shards(numbers))
            shards = [Shard.of(number, state) for number, state in zip(numbers, states, strict=True)]
            for shard in shards:
                for met in shard.known:
                    await effects.read("facts", partial(self._books.fetch, self._store, met.digest))
                shard.go_by(self._rulebook)
            writes = [effects.claim_of(shard, self._ids.token()) for shard in shards]
            try:
                await effects.commit(self._store, writes)
                break
            except effects.FencedOut:
                continue  # The one before us wrote once more; now he is fenced out, or we try again.
        outboxes = await effects.read("outboxes", lambda: self._store.outboxes(numbers))
        for shard, left in zip(shards, outboxes, strict=True):
            await effects.publish(self._out, [unpack_record(packed) for packed in left])
            shard.trim = len(left)
            self._owned.shards[shard.number] = shard
            self._begin_by(shard)
        return shards

    async def release(self, partitions: Sequence[int]) -> None:
        """Let go of these partitions; nothing of theirs is under way afterwards."""
        async with self._turn:
            await self._landed()
            await self._tidy(partitions)
            for partition in partitions:
                if partition in self._owned.groups:
                    self._owned.let_go(partition)
                    self._gate.forget(partition)

    async def _tidy(self, partitions: Sequence[int]) -> None:
        """Cut off what was published, so that whoever claims these next does not publish it again."""
        shards = [
            self._owned.shards[number]
            for one in partitions
            if one in self._owned.groups
            for number in self._owned.groups[one].shards
        ]
        writes = [effects.write_of(shard, None, self._ids.token()) for shard in shards if shard.trim]
        if not writes or self._failure is not None:
            return
        try:
            await self._store.commit(writes)  # A shard that is refused has been claimed already.
        except OSError as error:
            log.warning("the store did not take a last write: %s", type(error).__name__)

    async def deliver(self, topic: str, partition: int, records: Sequence[LogRecord], read_ms: int) -> None:
        """Take a fetch; wait while this topic has enough buffered."""
        self._alive()
        group = self._owned.groups.get(partition)
        if group is None:
            return
        place = INPUT_TOPICS.index(topic)
        lane = group.lanes[place]
        was_caught_up = group.caught_up
        started_ns = thread_cpu_ns()
        latest_ms = self._clock.now_ms() + AHEAD_MS_MAX if isinstance(self._clock, StoreClock) else FOREVER
        greatest_ms = group.add(place, records, read_ms, latest_ms)
        _DECODE.inc((thread_cpu_ns() - started_ns) / 1e9)
        if isinstance(self._clock, LogClock):
            self._clock.advance(greatest_ms)
        self._news.set()
        if topic == PROFILE_COMMANDS and group.caught_up:
            if not was_caught_up:
                self._owned.note_void(group)
            self._owned.note_untaken(group, len(records) if was_caught_up else len(lane.inputs))
        while len(lane.inputs) > self._lane_max and group.caught_up and self._owned.groups.get(partition) is group:
            lane.room.clear()
            await lane.room.wait()
            self._alive()

    def at_end(self, topic: str, partition: int, position: int, answered_ms: int) -> None:
        """A topic was read to its end."""
        self._alive()
        group = self._owned.groups.get(partition)
        if group is not None:
            lane = group.lanes[INPUT_TOPICS.index(topic)]
            lane.end = position
            lane.answered_ms = answered_ms
            if not self._news.is_set() and (group.waiting_gates or any(one.inputs for one in group.lanes)):
                self._news.set()

    # --- the pump -----------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        while self._failure is None:
            self._news.clear()
            async with self._turn:
                worked = await self._turn_once()
            if not worked:
                await self._news.wait()
            else:
                await asyncio.sleep(0)

    async def _turn_once(self) -> bool:
        inputs = self._abreast()
        wakes = await self._due()
        walk = await self._loading.next_page() if self._owned.walking else ()
        if not inputs and not wakes and not walk:
            return False
        while inputs:
            # Whom news may interest is asked of the store, which must hold all that lies before it.
            told = next((place for place, (_, one) in enumerate(inputs) if _is_news(one)), len(inputs))
            if told:
                last = told == len(inputs)
                await self._process(inputs[:told], wakes if last else [], walk if last else ())
                inputs, wakes, walk = inputs[told:], [] if last else wakes, () if last else walk
            else:
                many = next((place for place, (_, one) in enumerate(inputs) if not _is_news(one)), len(inputs))
                await self._landed()
                self._alive()
                await self._process(inputs[:many], [], (), await self._loading.interested(inputs[:many]))
                inputs = inputs[many:]
        if wakes or walk:
            await self._process([], wakes, walk)
        return True

    async def _look_over(self) -> None:
        """Look the base over for facts, a page at a time, if partition 0 is ours; and tell what is found."""
        while self._failure is None:
            await asyncio.sleep(GATE_S)
            metrics.SCANNED.labels("meet").set(self._met())
            group = self._owned.groups.get(0)
            if not self._rulebook.wanted or group is None or not group.caught_up:
                self._scanner.drop()
                continue
            newest = self._owned.shards[0].rulebook
            try:
                found = await self._scanner.go_on(newest.facts[-1] if newest is not None else None)
                if found is None:
                    continue
                body, records = self._scanner.records(found, self._clock.now_ms())
                await self._store.put_doc(doc_of(digest_of(body)), body)
            except OSError as error:
                log.warning("the store did not show the base, asking again: %s", type(error).__name__)
                continue
            async with self._turn:
                if 0 not in self._owned.groups:
                    continue
                # In the outbox of shard 0: who does not own it any more tells nobody anything.
                shard = self._owned.shards[0]
                write = effects.write_of(shard, Draft(records), self._ids.token())
                await self._send(Batch([write], {0: records}, {}, {}, []))
            while self._failure is None and 0 in self._owned.groups and self._owned.shards[0].newest < found.number:
                await asyncio.sleep(GATE_S)  # Until we have read it ourselves: else we would look again.

    def _met(self) -> float:
        """Which share of our profiles has met what is new."""
        if not self._owned.walking:
            return 1
        ours = self._owned.shards.values()
        met = sum(one.ordinals if one.place < 0 else one.place for one in ours)
        return met / max(1, sum(one.ordinals for one in ours))

    def _abreast(self) -> list[tuple[Group, Input]]:
        """What is ready of all partitions, in one order of logical time.

        Partitions go through a backlog abreast, each as far as the slowest is complete: so what one tells another
        (links, absorbed profiles) is taken at its time, and a timer's gate need not wait for it.
        """
        share = max(1, self._own.batch_events // max(1, len(self._owned.groups)))
        if self._buggify("a batch of one"):
            share = 1
        until_ms = FOREVER
        found: list[tuple[Group, list[Input]]] = []
        for group in self._owned.groups.values():
            group.open_gates()
            ready, complete_ms = group.ready(share)
            until_ms = min(until_ms, complete_ms)
            if ready:
                found.append((group, ready))
        first_ms = min((ready[0].at_ms for _, ready in found), default=0)
        inputs: list[tuple[Group, Input]] = []
        for group, ready in found:
            # Inputs of one instant may be more than a share: those of the first instant go whatever the bound.
            taken = ready
            if ready[-1].at_ms >= until_ms:
                taken = [one for one in ready if one.at_ms < until_ms or one.at_ms == first_ms <= until_ms]
            group.drop(taken)
            inputs.extend((group, one) for one in taken)
        if len(found) > 1:
            inputs.sort(key=_order)
        return inputs

    def _rest(self) -> None:
        """Nothing to do: how far we are is how far we have read."""
        if not self._flight:
            for group in self._owned.groups.values():
                group.low_ms = max(group.low_ms, self._gate.unread_from(group))

    async def _due(self) -> list[tuple[Group, str, int]]:
        """Alarms whose gate is open, as the store's index tells; those under way are left out."""
        opened = [group for group in self._owned.groups.values() if group.gate_ms > group.woken_ms]
        asked_ms = self._wall_ms()
        if not opened or asked_ms - self._due_asked_ms < DUE_EVERY_MS:
            return []
        self._due_asked_ms = asked_ms
        gate_ms = min(group.gate_ms for group in opened)
        shards = [number for group in opened for number in group.shards]
        try:
            due = await self._store.due(shards, gate_ms - 1, 1 if self._buggify("one alarm at a time") else WAKES_MAX)
        except OSError as error:
            metrics.STORE_RETRIES.inc()
            log.warning("the store did not tell what is due, asking again: %s", type(error).__name__)
            return []
        counts = dict.fromkeys((group.partition for group in opened), 0)
        found: list[tuple[Group, str, int]] = []
        for address, due_ms in due:
            partition = shard_of(address) % self._owned.partitions
            counts[partition] += 1
            if address not in self._waking:
                found.append((self._owned.groups[partition], address, due_ms))
        for group in opened:
            if not counts[group.partition]:
                group.woken_ms = max(group.woken_ms, gate_ms)
        return found

    async def _process(
        self,
        inputs: list[tuple[Group, Input]],
        wakes: list[tuple[Group, str, int]],
        walk: Sequence[Piece],
        interested: dict[tuple[str, int], Page] | None = None,
    ) -> None:
        self._number += 1
        last, hands = await self._loading.profiles(
            self._books, inputs, wakes, [name for one in walk for name in one.names]
        )
        started_ns = thread_cpu_ns()
        turn = Computing(
            self._owned,
            self._books,
            self._bugs,
            self._ids,
            self._gate.unread_from,
            self._clock.now_ms() if isinstance(self._clock, StoreClock) else 0,
            self._gate.reached_ms(self._owned.groups),
            self._number,
            last,
            hands,
            interested or {},
        )
        turn.apply(inputs)
        for group, address, due_ms in wakes:
            self._waking.add(address)
            turn.wake(group, address, due_ms)
        for number, names, following in walk:
            turn.walk(self._owned.groups[number % self._owned.partitions], number, names, following)
        stepped_ns = thread_cpu_ns()
        batch = turn.batch([address for _, address, _ in wakes])
        metrics.STEP.observe((stepped_ns - started_ns) / 1e9)
        _STEP.inc((stepped_ns - started_ns) / 1e9)
        _ENCODE.inc((thread_cpu_ns() - stepped_ns) / 1e9)
        metrics.BATCH.observe(len(inputs) + len(wakes))
        batch.oldest_ms = inputs[0][1].at_ms if inputs else 0
        if isinstance(self._clock, LogClock):
            await self._tell_history()
        await self._send(batch)

    async def _was_history(self, partition: int) -> bool:
        """Whether the last input that anybody took of this partition was history, on the log's clock."""
        return await effects.read("a partition's past", lambda: self._store.get_doc(HISTORY + str(partition))) == b"1"

    async def _tell_history(self) -> None:
        """Let whoever claims our partitions know whether what falls due there is history, before anything is written."""
        for group in self._owned.groups.values():
            if group.backfill != group.told_backfill:
                group.told_backfill = group.backfill
                name, told = HISTORY + str(group.partition), b"1" if group.backfill else b"0"
                await effects.read("that it knows a partition's past", partial(self._store.put_doc, name, told))

    async def _send(self, batch: Batch) -> None:
        while len(self._flight) >= FLIGHT_MAX:
            await self._flight[0]
        before = self._flight[-1] if self._flight else None
        task = asyncio.get_running_loop().create_task(self._guarded(self._settle(batch, before)))
        self._flight.append(task)

    async def _settle(self, batch: Batch, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await before
            self._alive()
            await effects.commit(self._store, batch.writes)
            if batch.oldest_ms and isinstance(self._clock, StoreClock):
                metrics.FRESHNESS.observe(max(0, self._clock.now_ms() - batch.oldest_ms) / 1e3)
            if self._buggify("published late"):
                await asyncio.sleep(BEAT_S)
            published = [record for records in batch.records.values() for record in records]
            await effects.publish(self._out, published)
        finally:
            self._flight.pop(0)
        for number, records in batch.records.items():
            shard = self._owned.shards.get(number)
            if shard is not None:
                shard.trim += len(records)
        for write in batch.writes:
            # What was told late may be due already: the store is asked again, though the gate has passed it.
            earliest_ms = min((due_ms for due_ms in write.alarms.values() if due_ms is not None), default=FOREVER)
            of_shard = self._owned.groups.get(write.shard % self._owned.partitions)
            if of_shard is not None and earliest_ms < of_shard.woken_ms:
                of_shard.woken_ms = earliest_ms
            for address, blob in write.profiles.items():
                held = self._owned.flying.get(address)
                if blob is None:
                    blob = write.tombs.get(self._owned.tomb_key(address))
                if held is not None and held.blob is blob:
                    del self._owned.flying[address]
        self._waking.difference_update(batch.woken)
        for partition, low_ms in batch.lows.items():
            group = self._owned.groups.get(partition)
            if group is not None:
                group.low_ms = max(group.low_ms, low_ms)
        if batch.offsets and not self._buggify("offsets told later"):
            await self._out.commit(batch.offsets)
        self._news.set()

    async def _landed(self) -> None:
        """Wait until nothing is on its way out."""
        while self._flight:
            await asyncio.gather(*self._flight)

    # --- beats and gates ----------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Every 2 s: write to each shard that was idle, so that a lost shard or a store gone back is noticed."""
        while self._failure is None:
            await asyncio.sleep(BEAT_S)
            if self._buggify("no beat this time"):
                continue
            if isinstance(self._clock, StoreClock):
                try:
                    metrics.CLOCK_STEP.set(await self._clock.learn())
                except OSError:
                    log.warning("the store did not tell its time")
            wrong = await self._checked()
            if wrong:
                # A server that is stopping says, for an instant, that it keeps nothing: only what stays wrong counts.
                await asyncio.sleep(CHECK_AGAIN_S)
                wrong = await self._checked()
            if wrong:
                raise Refused("\n".join(wrong))
            async with self._turn:
                await self._learn_products()
                idle = [shard for shard in self._owned.shards.values() if shard.idle]
                writes = [effects.write_of(shard, None, self._ids.token()) for shard in idle]
                for shard in self._owned.shards.values():
                    shard.idle = True
                if writes:
                    await self._send(Batch(writes, {}, {}, self._owned.applied(), []))

    async def _checked(self) -> list[str]:
        try:
            return await self._store.check(relaxed=self._relaxed)
        except OSError:
            return []  # Whether it answers is the writes' business.

    async def _watch_gates(self) -> None:
        while True:
            await asyncio.sleep(GATE_S)
            if self._failure is not None:
                return  # What was read is not applied: our low times would let others' timers fire too early.
            if not self._turn.locked():
                self._rest()
            await self._gate.ask(self._owned.groups)
            for group in self._owned.groups.values():
                metrics.LAG.labels(str(group.partition)).set(group.buffered())
                group.open_gates()
            if isinstance(self._clock, StoreClock):
                low_ms = min((group.low_ms for group in self._owned.groups.values()), default=FOREVER)
                metrics.LAG_SECONDS.set(max(0, self._clock.now_ms() - low_ms) / 1e3)
            if self._owned.walking or any(group.gate_ms > group.woken_ms for group in self._owned.groups.values()):
                self._news.set()


def _order(one: tuple[Group, Input]) -> tuple[int, int, int, int]:
    at_ms, topic, offset = one[1][:3]
    return at_ms, topic, offset, one[0].partition
