"""Batches in, steps, batches out: the engine that the log feeds (``ports.Engine``).

One pump takes what is ready of all partition groups, and the alarms that are due; loads the profiles it lacks; steps
each input in order; and hands the result to ``effects``. One batch computes while the one before it is being
written and published; a shard's tokens are drawn here, so the chain holds whatever the store answers.

An input that fails inside ``step`` becomes a dead letter and the profile is as if it had never come (R9); so does what a
profile had kept for later, a held input or a timer, when its time comes and it cannot be done. Any other failure is kept and raised at the next call of the log: the process ends (R8).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from profiles.codec import decode, encode
from profiles.erasure import is_tombstone
from profiles.errors import BadInput, Refused
from profiles.ids import shard_of, tomb_key
from profiles.moments import FOREVER, MINUTE_MS, SECOND_MS, Clock, iso
from profiles.state import Profile
from profiles.undo import pack_undo
from profiles.wire import (
    DEAD_LETTERS,
    ERASURES,
    FORWARD,
    INPUT_TOPICS,
    MARK,
    ORDER_EVENTS,
    PROFILE_COMMANDS,
    Command,
    Coordinates,
    Event,
    Record,
    Wake,
    completed,
    dead_letter,
    encode_command,
    is_operators,
    unpack_record,
)
from rules.engine import SEGMENT, Kept, Stuck, content, is_broken, step
from rules.outcome import DUPLICATE, ERASED, REFUSED, THROTTLED, Step
from rules.rulebook import Rulebook
from stream import effects, metrics
from stream.alarms import GRACE_MS, Gate
from stream.cache import Cache, Held
from stream.clock import LogClock, StoreClock, thread_cpu_ns, wall_ms
from stream.effects import Batch, Draft, Shard
from stream.group import Group, Input
from stream.ports import Ids, Log, LogRecord, ProfileStore
from stream.settings import Own

log = logging.getLogger(__name__)

_DECODE, _LOAD, _STEP, _ENCODE = (metrics.STAGE.labels(stage) for stage in ("decode", "load", "step", "encode"))
_HIT, _MISS = metrics.CACHE.labels("hit"), metrics.CACHE.labels("miss")

BEAT_S: Final = 2.0
HISTORY: Final = "history:"
"""Documents of the store, one a partition: whether its last input was history; on the log's clock only."""
CANCEL_AGAIN_S: Final = 0.5
CHECK_AGAIN_S: Final = 1.0
ORDERS_TOPIC: Final = INPUT_TOPICS.index(ORDER_EVENTS)
FLIGHT_MAX: Final = 2
GATE_S: Final = 0.1
DUE_EVERY_MS: Final = 250
WAKES_MAX: Final = 100
AHEAD_MS_MAX: Final = 5 * MINUTE_MS
BUGS_IN_A_ROW_MAX: Final = 50
BUGS_PER_MINUTE_SHARE: Final = 0.01
BUGS_COUNT_FROM: Final = 1_000


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
        self.tells_at_once = store.is_atomic
        self._out = out
        self._clock = clock
        self._ids = ids
        self._rulebook = rulebook
        self._own = own
        self._partitions = partitions
        self._lane_max = max(1, own.buffer_events // 8)
        self._secret = secret
        self._relaxed = relaxed
        self._groups: dict[int, Group] = {}
        self._shards: dict[int, Shard] = {}
        self._cache_max = max(own.cache_profiles, 4 * own.batch_events)
        self._cache = Cache(self._cache_max)
        self._flying: dict[str, Held] = {}
        self._flight: list[asyncio.Task[None]] = []
        self._number = 0
        self._waking: set[str] = set()
        self._due_asked_ms = 0
        # (receiving shard, sending shard, stream) -> the last command that goes by the log only; later ones follow it.
        self._by_log: dict[tuple[int, int, str], tuple[int, int]] = {}
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._wall_ms = wall_ms
        self._buggify = buggify
        self._gate = Gate(store, partitions, clock, wall_ms)
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()
        self.bugs_in_a_row = 0
        self._minute = [0, 0, 0]  # which minute, its events, its bugs

    @property
    def clock(self) -> Clock:
        """The clock that decides what is due."""
        return self._clock

    def progress(self) -> Progress:
        """How far we are; costs a look at every shard."""
        applied = dict.fromkeys(INPUT_TOPICS, 0)
        for (topic, _), offset in self.applied().items():
            applied[topic] += offset
        groups = self._groups.values()
        return Progress(
            sum(lane.position for group in groups for lane in group.lanes),
            applied,
            not self._flight and not any(group.buffered() for group in groups),
            min((group.woken_ms for group in groups), default=0),
        )

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
        for work in (self._pump(), self._beat(), self._watch_gates()):
            self._tasks.append(asyncio.get_running_loop().create_task(self._guarded(work)))

    async def stop(self) -> None:
        """Let what is under way end, and stop."""
        await self.release(list(self._groups))
        waiting = set(self._tasks)
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
            for group in self._groups.values():
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
                group = Group(partition, self._partitions)
                shards = await self._claim_shards(group)
                for place, topic in enumerate(INPUT_TOPICS):
                    start = min(shard.next[place] for shard in shards)
                    starts[topic, partition] = start
                    group.lanes[place].position = start
                group.low_ms = min(shard.clock_ms for shard in shards)
                if isinstance(self._clock, LogClock):
                    group.backfill = group.told_backfill = await self._was_history(partition)
                    # What was applied before us lies below our cursors: nobody reads it, and its time, again.
                    self._clock.advance(max(shard.clock_ms for shard in shards))
                self._groups[partition] = group
            await self._mark()
        return starts

    async def _mark(self) -> None:
        """Put a mark behind all that the log holds for our partitions: when it is read, we know what was told them.

        Until then nothing of theirs is taken. A command to an address of ours may be taken at once only if no
        earlier one of its sender still lies in the log, left by whoever owned the two before.
        """
        marks = []
        for group in self._groups.values():
            group.mark, group.caught_up = self._ids.token(), False
            key = next(
                key
                for key in map("mark:{}".format, itertools.count())
                if shard_of(key) % self._partitions == group.partition
            )
            marks.append(
                Record(PROFILE_COMMANDS, key, encode_command(Command(MARK, key, "", (0, ""), group.mark, group.low_ms)))
            )
        await effects.publish(self._out, marks)

    async def _claim_shards(self, group: Group) -> list[Shard]:
        numbers = list(group.shards)
        while True:
            states = await effects.read("shards", lambda: self._store.read_shards(numbers))
            shards = [Shard.of(number, state) for number, state in zip(numbers, states, strict=True)]
            writes = [effects.write_of(shard, None, self._ids.token(), self._rulebook.hash) for shard in shards]
            try:
                await effects.commit(self._store, writes)
                break
            except effects.FencedOut:
                continue  # The one before us wrote once more; now he is fenced out, or we try again.
        outboxes = await effects.read("outboxes", lambda: self._store.outboxes(numbers))
        for shard, left in zip(shards, outboxes, strict=True):
            await effects.publish(self._out, [unpack_record(packed) for packed in left])
            shard.trim = len(left)
            self._shards[shard.number] = shard
        return shards

    async def release(self, partitions: Sequence[int]) -> None:
        """Let go of these partitions; nothing of theirs is under way afterwards."""
        async with self._turn:
            await self._landed()
            await self._tidy(partitions)
            for partition in partitions:
                group = self._groups.pop(partition, None)
                if group is None:
                    continue
                self._cache.drop_shards(group.shards)
                for number in group.shards:
                    del self._shards[number]
                self._by_log = {lane: at for lane, at in self._by_log.items() if lane[0] in self._shards}
                self._gate.forget(partition)

    async def _tidy(self, partitions: Sequence[int]) -> None:
        """Cut off what was published, so that whoever claims these next does not publish it again."""
        shards = [
            self._shards[number] for one in partitions if one in self._groups for number in self._groups[one].shards
        ]
        writes = [
            effects.write_of(shard, None, self._ids.token(), self._rulebook.hash) for shard in shards if shard.trim
        ]
        if not writes or self._failure is not None:
            return
        try:
            await self._store.commit(writes)  # A shard that is refused has been claimed already.
        except OSError as error:
            log.warning("the store did not take a last write: %s", type(error).__name__)

    async def deliver(self, topic: str, partition: int, records: Sequence[LogRecord], read_ms: int) -> None:
        """Take a fetch; wait while this topic has enough buffered."""
        self._alive()
        group = self._groups.get(partition)
        if group is None:
            return
        place = INPUT_TOPICS.index(topic)
        lane = group.lanes[place]
        started_ns = thread_cpu_ns()
        latest_ms = self._clock.now_ms() + AHEAD_MS_MAX if isinstance(self._clock, StoreClock) else FOREVER
        greatest_ms = group.add(place, records, read_ms, latest_ms)
        _DECODE.inc((thread_cpu_ns() - started_ns) / 1e9)
        if isinstance(self._clock, LogClock):
            self._clock.advance(greatest_ms)
        self._news.set()
        if topic == PROFILE_COMMANDS:
            self._note_untaken(lane.inputs, len(records))
        while len(lane.inputs) > self._lane_max and group.caught_up and self._groups.get(partition) is group:
            lane.room.clear()
            await lane.room.wait()
            self._alive()

    def _note_untaken(self, inputs: deque[Input], newest: int) -> None:
        """Commands that came by the log and are not taken yet: later ones of their senders must follow them."""
        for one in islice(reversed(inputs), newest):
            given = one.given
            if isinstance(given, Command) and not is_operators(given):
                number = shard_of(given.address)
                shard = self._shards.get(number)
                cause = given.cause
                place = (cause.offset, cause.ordinal)
                if shard is not None and place > shard.taken.get((cause.shard, cause.topic), (-1, -1)):
                    lane = (number, cause.shard, cause.topic)
                    self._by_log[lane] = max(place, self._by_log.get(lane, place))

    def at_end(self, topic: str, partition: int, position: int, answered_ms: int) -> None:
        """A topic was read to its end."""
        self._alive()
        group = self._groups.get(partition)
        if group is not None:
            lane = group.lanes[INPUT_TOPICS.index(topic)]
            lane.end = position
            lane.answered_ms = answered_ms
            if group.waiting_gates or any(one.inputs for one in group.lanes):
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
        if not inputs and not wakes:
            return False
        await self._process(inputs, wakes)
        return True

    def _abreast(self) -> list[tuple[Group, Input]]:
        """What is ready of all partitions, in one order of logical time.

        Partitions go through a backlog abreast, each as far as the slowest is complete: so what one tells another
        (links, absorbed profiles) is taken at its time, and a timer's gate need not wait for it.
        """
        share = max(1, self._own.batch_events // max(1, len(self._groups)))
        if self._buggify("a batch of one"):
            share = 1
        until_ms = FOREVER
        found: list[tuple[Group, list[Input]]] = []
        for group in self._groups.values():
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
            for group in self._groups.values():
                group.low_ms = max(group.low_ms, self._gate.unread_from(group))

    async def _due(self) -> list[tuple[Group, str, int]]:
        """Alarms whose gate is open, as the store's index tells; those under way are left out."""
        opened = [group for group in self._groups.values() if group.gate_ms > group.woken_ms]
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
            partition = shard_of(address) % self._partitions
            counts[partition] += 1
            if address not in self._waking:
                found.append((self._groups[partition], address, due_ms))
        for group in opened:
            if not counts[group.partition]:
                group.woken_ms = max(group.woken_ms, gate_ms)
        return found

    async def _process(self, inputs: list[tuple[Group, Input]], wakes: list[tuple[Group, str, int]]) -> None:
        self._number += 1
        last, hands = await self._load(inputs, wakes)
        started_ns = thread_cpu_ns()
        turn = _Computing(self, self._number, last, hands)
        turn.apply(inputs)
        for group, address, due_ms in wakes:
            self._waking.add(address)
            turn.wake(group, address, due_ms)
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
        for group in self._groups.values():
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
            shard = self._shards.get(number)
            if shard is not None:
                shard.trim += len(records)
        for write in batch.writes:
            # What was told late may be due already: the store is asked again, though the gate has passed it.
            earliest_ms = min((due_ms for due_ms in write.alarms.values() if due_ms is not None), default=FOREVER)
            of_shard = self._groups.get(write.shard % self._partitions)
            if of_shard is not None and earliest_ms < of_shard.woken_ms:
                of_shard.woken_ms = earliest_ms
            for address, blob in write.profiles.items():
                held = self._flying.get(address)
                if blob is None:
                    blob = write.tombs.get(self.tomb_key(address))
                if held is not None and held.blob is blob:
                    del self._flying[address]
        self._waking.difference_update(batch.woken)
        for partition, low_ms in batch.lows.items():
            group = self._groups.get(partition)
            if group is not None:
                group.low_ms = max(group.low_ms, low_ms)
        if batch.offsets and not self._buggify("offsets told later"):
            await self._out.commit(batch.offsets)
        self._news.set()

    async def _landed(self) -> None:
        """Wait until nothing is on its way out."""
        while self._flight:
            await asyncio.gather(*self._flight)

    # --- profiles -----------------------------------------------------------------------------------------------

    async def _load(
        self, inputs: list[tuple[Group, Input]], wakes: list[tuple[Group, str, int]]
    ) -> tuple[dict[str, int], dict[str, Held]]:
        """Bring what the batch needs.

        Returns:
            Address -> place of its last input in the batch, a wake coming after all; -1 if it has none. And all of them
            that are ours, with those they forward to.
        """
        started_ns = thread_cpu_ns()
        if self._buggify("an empty cache"):
            self._cache = Cache(self._cache_max)
        last: dict[str, int] = {}
        for place, (_, one) in enumerate(inputs):
            given = one.given
            if type(given) is Event:
                last[given.address] = place
                for address in given.identifiers:
                    last.setdefault(address, -1)
            elif type(given) is Command and given.kind != MARK:
                last[given.address] = place
        for _, address, _ in wakes:
            last[address] = len(inputs)
        _LOAD.inc((thread_cpu_ns() - started_ns) / 1e9)
        hands: dict[str, Held] = {}
        wanted: Collection[str] = last
        while wanted:
            found = await self._bring(wanted)
            hands |= found
            # Where forwarders point to is wanted too, so that what they pass on is taken in the same batch.
            targets = {held.profile.forward for held in found.values() if held.profile.forward}
            wanted = [address for address in targets if address not in hands and self._is_ours(address)]
        return last, hands

    def _is_ours(self, address: str) -> bool:
        return shard_of(address) in self._shards

    def _at_hand(self, address: str) -> Held | None:
        held = self._cache.get(address)
        return held if held is not None else self._flying.get(address)

    async def _bring(self, wanted: Collection[str]) -> dict[str, Held]:
        """Those of these addresses that are ours, from the cache, the flight or the store."""
        started_ns = thread_cpu_ns()
        get = self._cache.get
        found: dict[str, Held] = {}
        missing: list[str] = []
        for address in wanted:
            held = get(address)
            if held is not None:
                found[address] = held
            elif self._is_ours(address):
                missing.append(address)
        _HIT.inc(len(wanted) - len(missing))
        _MISS.inc(len(missing))
        missing.sort()
        absent: list[str] = []
        for address in missing:
            # One that left the cache while its write is under way is newer here than in the store.
            held = self._flying.get(address)
            if held is None:
                absent.append(address)
            else:
                found[address] = held
                self._cache.put(address, held)
        _LOAD.inc((thread_cpu_ns() - started_ns) / 1e9)
        if not absent:
            return found
        blobs = await effects.read("profiles", lambda: self._store.load(absent))
        tombs = await self._tombs([one for one, blob in zip(absent, blobs, strict=True) if blob is None])
        started_ns = thread_cpu_ns()
        for address, blob in zip(absent, blobs, strict=True):
            blob = blob or tombs.get(address, b"")
            profile = decode(address, blob) if blob else Profile(address)
            held = found[address] = Held(profile, shard_of(address), blob, profile.alarm_ms())
            self._cache.put(address, held)
        _LOAD.inc((thread_cpu_ns() - started_ns) / 1e9)
        return found

    async def _tombs(self, absent: list[str]) -> dict[str, bytes]:
        """The tombstones of those at whose addresses somebody was erased."""
        places = [(one, shard_of(one)) for one in absent]
        places = [(one, number) for one, number in places if self._shards[number].tombs]
        if not places:
            return {}
        wanted = [(number, self.tomb_key(one)) for one, number in places]
        found = await effects.read("tombstones", lambda: self._store.tombs(wanted))
        return {one: tomb for (one, _), tomb in zip(places, found, strict=True) if tomb is not None}

    def tomb_key(self, address: str) -> str:
        """Under which name a tombstone of that address lies."""
        return tomb_key(address, self._secret)

    def with_coupons(self, records: list[Record], stems: list[str]) -> list[Record]:
        """The records with the codes of these coupons made whole."""
        return [completed(one, stems, self._secret) for one in records]

    def is_alone(self) -> bool:
        """Whether all partitions are ours, and no command is on its way through the log: then what lies before an
        input has been applied everywhere when its turn comes."""
        return (
            len(self._groups) == self._partitions
            and self.tells_at_once
            and not self._by_log
            and all(group.caught_up for group in self._groups.values())
        )

    def is_fresh(self, shard: int) -> bool:
        """Whether no command for this shard can lie unread in the log from before we owned it."""
        return self._groups[shard % self._partitions].caught_up

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
                idle = [shard for shard in self._shards.values() if shard.idle]
                writes = [effects.write_of(shard, None, self._ids.token(), self._rulebook.hash) for shard in idle]
                for shard in self._shards.values():
                    shard.idle = True
                if writes:
                    await self._send(Batch(writes, {}, {}, self.applied(), []))

    async def _checked(self) -> list[str]:
        try:
            return await self._store.check(relaxed=self._relaxed)
        except OSError:
            return []  # Whether it answers is the writes' business.

    def applied(self) -> dict[tuple[str, int], int]:
        """Per topic and partition, what every shard has behind it."""
        return {
            (topic, partition): min(self._shards[number].next[place] for number in group.shards)
            for partition, group in self._groups.items()
            for place, topic in enumerate(INPUT_TOPICS)
        }

    async def _watch_gates(self) -> None:
        while True:
            await asyncio.sleep(GATE_S)
            if self._failure is not None:
                return  # What was read is not applied: our low times would let others' timers fire too early.
            if not self._turn.locked():
                self._rest()
            await self._gate.ask(self._groups)
            for group in self._groups.values():
                metrics.LAG.labels(str(group.partition)).set(group.buffered())
                group.open_gates()
            if isinstance(self._clock, StoreClock):
                low_ms = min((group.low_ms for group in self._groups.values()), default=FOREVER)
                metrics.LAG_SECONDS.set(max(0, self._clock.now_ms() - low_ms) / 1e3)
            if any(group.gate_ms > group.woken_ms for group in self._groups.values()):
                self._news.set()

    def count_inputs(self, inputs: int) -> None:
        """Remember how many inputs this minute brought: what bugs are compared with."""
        minute = self._wall_ms() // (60 * SECOND_MS)
        if self._minute[0] != minute:
            self._minute = [minute, 0, 0]
        self._minute[1] += inputs

    def count_bug(self) -> None:
        """Stop when the core itself is broken: 50 failures in a row, or 1 % of a minute's events (R9)."""
        self.bugs_in_a_row += 1
        self._minute[2] += 1
        _, events, bugs = self._minute
        many = events >= BUGS_COUNT_FROM and bugs > events * BUGS_PER_MINUTE_SHARE
        if self.bugs_in_a_row >= BUGS_IN_A_ROW_MAX or many:
            raise Refused(f"step fails too often: {self.bugs_in_a_row} in a row, {bugs} of {events} in this minute")


_UNTOUCHED: Final = (ERASED, REFUSED, THROTTLED)
"""Outcomes that leave the profile as it was: nothing to be written but what is told of them."""


def _order(one: tuple[Group, Input]) -> tuple[int, int, int, int]:
    at_ms, topic, offset = one[1][:3]
    return at_ms, topic, offset, one[0].partition


class _Computing:
    """One batch being computed: no await in here, so the profiles change in one step."""

    def __init__(self, engine: Handlers, number: int, last: dict[str, int], hands: dict[str, Held]) -> None:
        """``last`` and ``hands`` are what ``Handlers._load`` has found."""
        self.engine = engine
        self.number = number
        self.last = last
        self.hands = hands
        self.rulebook = engine._rulebook
        self.clock_ms = engine._clock.now_ms() if isinstance(engine._clock, StoreClock) else 0
        self.shards = engine._shards
        self.drafts: dict[int, Draft] = {}
        self.lows: dict[int, int] = {}
        self.outcomes: dict[tuple[int, str], int] = defaultdict(int)  # (place of the topic, outcome)
        self.decisions: dict[tuple[str, str], int] = defaultdict(int)
        self.done: list[tuple[str, Event | Command | Wake, int, tuple[Kept, ...]]] = []  # with the address
        self.reordered = 0

    # --- inputs

    def apply(self, inputs: list[tuple[Group, Input]]) -> None:
        """Step each input, in order of logical time over all partitions."""
        engine, shards, rulebook, clock_ms = self.engine, self.shards, self.rulebook, self.clock_ms
        last, at_hand, outcomes, done = self.last, self.hands.get, self.outcomes, self.done
        engine.count_inputs(len(inputs))
        abreast = engine.is_alone()
        latest_ms = self.clock_ms - GRACE_MS if self.clock_ms else FOREVER
        for place, (group, one) in enumerate(inputs):
            at_ms, topic, offset, given, _, _ = one
            if isinstance(given, BadInput):
                self._dead(group, one, given.reason, str(given))
                continue
            if type(given) is Command and given.kind == MARK:
                continue
            address = given.address
            held = at_hand(address)
            if held is None or held.shard % group.partitions != group.partition:
                self._misplaced(group, one, given)
                continue
            shard = shards[held.shard]
            if offset < shard.next[topic]:
                continue  # This shard has it behind it: another shard of the partition lagged.
            if type(given) is Command and not is_operators(given) and self._taken_before(shard, given):
                outcomes[topic, DUPLICATE] += 1
                continue
            if at_ms < shard.clock_ms or given.received_ms < at_ms:
                self.reordered += 1
            if at_ms > shard.clock_ms:
                shard.clock_ms = at_ms
            # A command may come long behind its time, from a worker that lags: of its profile, which waited for it behind
            # the gate, it is no news that the shard has gone on.
            given.seen_ms = shard.clock_ms if type(given) is Event else max(given.received_ms, held.profile.seen_ms)
            group.backfill = given.backfill
            # With all partitions here and abreast, everything before this input has been applied everywhere.
            gate_ms = max(group.gate_ms, min(at_ms, latest_ms)) if abreast else group.gate_ms
            without: tuple[Kept, ...] = ()
            try:
                out = step(held.profile, given, rulebook, gate_ms=gate_ms, clock_ms=clock_ms)
                engine.bugs_in_a_row = 0
            except Exception as error:
                found = self._again(held, given, gate_ms, error)
                if isinstance(found, Exception):
                    self._failed(group, one, held, found)
                    continue
                out, without = found
            outcomes[topic, out.outcome] += 1
            done.append((address, given, gate_ms, without))
            self._collect(held, out)
            if topic == ORDERS_TOPIC and isinstance(given, Event) and self._is_foreign(given):
                metrics.FOREIGN.inc()
            if out.commands:
                self._tell(held, out.commands, one.raw.topic, offset, gate_ms)
            if last[address] == place and held.batch == self.number:
                self._seal(held)  # While the processor still has it at hand.
        self._advance(inputs)

    def _is_foreign(self, event: Event) -> bool:
        """An amount that no trait of the shop's currency can count: another currency, and no rate (SPEC part 5)."""
        currency = event.props.get("currency")
        return currency is not None and currency != self.rulebook.currency and "rate_e6" not in event.props

    def wake(self, group: Group, address: str, due_ms: int) -> None:
        """Hand a profile its alarm."""
        held = self.hands[address]
        shard = self.shards[held.shard]
        gate_ms = group.gate_ms
        given = Wake(gate_ms - 1, self.clock_ms == 0 and group.backfill)
        if self.clock_ms:
            metrics.LATENESS.observe(max(0, self.clock_ms - due_ms) / 1e3)
        metrics.ALARMS.inc()
        shard.clock_ms = max(shard.clock_ms, gate_ms - 1)
        without: tuple[Kept, ...] = ()
        try:
            out = step(held.profile, given, self.rulebook, gate_ms=gate_ms, clock_ms=self.clock_ms)
            self.engine.bugs_in_a_row = 0
        except Exception as error:
            found = self._again(held, given, gate_ms, error)
            if isinstance(found, Exception):
                raise found from None  # What fails in a wake is a timer or a held input: this is neither (R8).
            out, without = found
        assert not out.commands, "a wake sends no commands"
        self.done.append((address, given, gate_ms, without))
        self._collect(held, out)
        if held.batch == self.number:
            self._seal(held)

    def _tell(self, held: Held, commands: list[Command], topic: str, offset: int, gate_ms: int) -> None:
        """Send commands: to the log always, and at once to an address of ours that is at hand.

        The log's copy is then found taken (R2). Commands that a command causes here have no offset of their own yet:
        they bear the first cause's, under a name that no topic has. What is told at once stands on the sender's write:
        both are in one commit, which is whole, or nothing is told at once.
        """
        engine, shards = self.engine, self.shards
        waiting = [(held, topic, command) for command in commands]
        told: dict[tuple[int, str], int] = {}
        while waiting:
            sender, stream, command = waiting.pop(0)
            ordinal = told.get((sender.shard, stream), 0)
            told[sender.shard, stream] = ordinal + 1
            command.cause = Coordinates(sender.shard, stream, offset, ordinal)
            self._draft(sender.shard).records.append(Record(PROFILE_COMMANDS, command.address, encode_command(command)))
            target = engine._at_hand(command.address)
            number = target.shard if target is not None else shard_of(command.address)
            lane = (number, sender.shard, stream)
            if (
                target is None
                or number not in shards
                or lane in engine._by_log
                or not (engine.tells_at_once and engine.is_fresh(number))
            ):
                if number in shards:
                    engine._by_log[lane] = (offset, ordinal)
                continue
            shard = shards[number]
            before = shard.taken.get((sender.shard, stream))
            if before is not None and (offset, ordinal) <= before:
                continue
            command.seen_ms = max(command.received_ms, target.profile.seen_ms)
            try:
                out = step(target.profile, command, self.rulebook, gate_ms=gate_ms, clock_ms=self.clock_ms)
            except Exception:
                # The log's copy will fail again, and be set aside with its coordinates.
                self._restore(target)
                engine._by_log[lane] = (offset, ordinal)
                continue
            shard.clock_ms = max(shard.clock_ms, command.seen_ms)
            self._take(shard, command)
            self.done.append((command.address, command, gate_ms, ()))
            self._collect(target, out)
            root = stream if "@" in stream else f"{stream}@{held.shard % engine._partitions}"
            waiting.extend((target, root, further) for further in out.commands)

    def _taken_before(self, shard: Shard, command: Command) -> bool:
        """Each sending shard's commands are taken once, in order (R2)."""
        cause = command.cause
        last = shard.taken.get((cause.shard, cause.topic))
        lane = (shard.number, cause.shard, cause.topic)
        expected = self.engine._by_log.get(lane)
        if expected is not None and (cause.offset, cause.ordinal) >= expected:
            del self.engine._by_log[lane]
        if last is not None and (cause.offset, cause.ordinal) <= last:
            return True
        self._take(shard, command)
        return False

    def _take(self, shard: Shard, command: Command) -> None:
        cause = command.cause
        sender = (cause.shard, cause.topic)
        shard.taken[sender] = self._draft(shard.number).taken[sender] = (cause.offset, cause.ordinal)

    def _advance(self, inputs: list[tuple[Group, Input]]) -> None:
        """All shards of the groups have these inputs behind them."""
        after: dict[int, list[int]] = {}
        for group, one in inputs:
            places = after.get(group.partition)
            if places is None:
                places = after[group.partition] = [-1] * len(INPUT_TOPICS)
            places[one.topic] = one.offset + 1
        for partition, places in after.items():
            group = self.engine._groups[partition]
            for number in group.shards:
                following = self.shards[number].next
                for place, offset in enumerate(places):
                    if offset > following[place]:
                        following[place] = offset
            self.lows[partition] = self.engine._gate.unread_from(group)

    # --- what follows

    def _draft(self, number: int) -> Draft:
        draft = self.drafts.get(number)
        if draft is None:
            draft = self.drafts[number] = Draft()
        return draft

    def _seal(self, held: Held) -> None:
        """Make the bytes that are written; whatever else the batch does to the profile breaks the seal."""
        held.sealed = encode(held.profile)
        held.sealed_alarm_ms = held.profile.alarm_ms()

    def _collect(self, held: Held, out: Step) -> None:
        held.sealed = b""
        if out.outcome in _UNTOUCHED and not out.receipts:
            return
        draft = self.drafts.get(held.shard) or self._draft(held.shard)
        if out.receipts:
            draft.receipts.update(out.receipts)
            if out.outcome in _UNTOUCHED:
                return
        profile = held.profile
        if held.batch != self.number:
            held.batch = self.number
            draft.touched[profile.address] = held
        if profile.ordinal < 0 and not is_tombstone(profile):
            shard = self.shards[held.shard]
            profile.ordinal = shard.ordinals
            shard.ordinals += 1
            draft.names.append(profile.address)
        if out.members:
            draft.members.extend((name, profile.ordinal, member) for name, member in out.members)
        if out.records:
            draft.records.extend(self.engine.with_coupons(out.records, out.coupons) if out.coupons else out.records)
        for decision in out.decisions:
            self.decisions[decision] += 1
        if out.parted:
            draft.undo.pop(profile.address, None)
            draft.undo_gone.append(profile.address)
        if out.undo:
            shard = self.shards[held.shard]
            undone = [one._replace(cursor=shard.next, generation=self.rulebook.hash) for one in out.undo]
            draft.undo.setdefault(profile.address, []).extend(map(pack_undo, undone))
        if out.erased is not None:
            self._buried(held, draft, out.erased)

    def _buried(self, held: Held, draft: Draft, told: dict[str, Any]) -> None:
        """A person was erased: strike the name out, put what is left under its hash, tell of it."""
        profile = held.profile
        if profile.ordinal >= 0:
            draft.forgotten.append(profile.ordinal)
            profile.ordinal = -1  # Whoever begins here anew gets a number of his own.
        draft.undo.pop(profile.address, None)
        draft.undo_gone.append(profile.address)
        key = self.engine.tomb_key(profile.address)
        receipt = orjson.dumps({**told, "hash": key})
        draft.records.append(Record(ERASURES, key, receipt))
        if not told["alias"]:
            draft.receipts[told["command"]] = receipt

    def _failed(self, group: Group, one: Input, held: Held, error: Exception) -> None:
        """Go back to the profile as it was before this input, and set the input aside."""
        self._restore(held)
        if isinstance(error, BadInput):
            self._dead(group, one, error.reason, str(error))
            return
        log.error("step failed on %s/%d@%d: %s", one.raw.topic, one.raw.partition, one.offset, type(error).__name__)
        self._dead(group, one, "bug", type(error).__name__)
        self.engine.count_bug()

    def _restore(self, held: Held) -> None:
        """The profile as it was before the input that failed: as last written, and this batch's inputs again."""
        address = held.profile.address
        fresh = decode(address, held.blob) if held.blob else Profile(address)
        for to, given, gate_then_ms, without in self.done:
            if to == address:
                step(fresh, given, self.rulebook, gate_ms=gate_then_ms, clock_ms=self.clock_ms, without=without)
        fresh.ordinal = held.profile.ordinal
        held.profile = fresh
        held.sealed = b""

    def _again(
        self, held: Held, given: Event | Command | Wake, gate_ms: int, error: Exception
    ) -> tuple[Step, tuple[Kept, ...]] | Exception:
        """Step once more, without what the profile had kept for later and cannot be done; that is set aside (R9). A
        segment that could not be judged before, either, is left as it was.

        Returns:
            The step, and what it was taken without; or the error, when it is the input's own.
        """
        stuck: list[Stuck] = []
        without: tuple[Kept, ...] = ()
        while isinstance(error, Stuck) and error.kept not in without:
            stuck.append(error)
            without = tuple(one.kept for one in stuck)
            self._restore(held)
            if error.kept[0] == SEGMENT and not is_broken(held.profile, error.kept[1], self.rulebook):
                assert isinstance(error.__cause__, Exception)
                return error.__cause__
            try:
                out = step(held.profile, given, self.rulebook, gate_ms=gate_ms, clock_ms=self.clock_ms, without=without)
            except Exception as another:
                error = another
            else:
                for one in stuck:
                    if one.kept[0] == SEGMENT:
                        self._unjudged(one)
                    else:
                        self._set_aside(held, one)
                return out, without
        return error

    def _unjudged(self, stuck: Stuck) -> None:
        """Tell of a segment that cannot be judged for somebody, who stays in it or out of it."""
        name = self.rulebook.segments[self.rulebook.place[stuck.kept[1]]].name
        metrics.UNJUDGED.labels(name).inc()
        log.error("segment %s cannot be judged for a profile: %s", name, type(stuck.__cause__).__name__)

    def _set_aside(self, held: Held, stuck: Stuck) -> None:
        """Keep as a dead letter what a profile had kept for later, and goes on without."""
        cause = stuck.__cause__
        shard = self.shards[held.shard]
        reason, detail = (cause.reason, str(cause)) if isinstance(cause, BadInput) else ("bug", type(cause).__name__)
        topic, original = content(stuck.kept, self.rulebook)
        value = dead_letter(
            reason=reason,
            detail=detail,
            topic=topic,
            original=original,
            at=iso(shard.clock_ms),
            where={
                "partition": held.shard % self.engine._partitions,
                "kept": stuck.kept[0],
                "rules": self.rulebook.hash,
            },
        )
        self._draft(held.shard).records.append(Record(DEAD_LETTERS, held.profile.address, value))
        metrics.DEAD.labels(reason).inc()
        if reason == "bug":
            log.error("step failed on a %s of shard %d: %s", stuck.kept[0], held.shard, type(cause).__name__)
            self.engine.count_bug()

    def _dead(self, group: Group, one: Input, reason: str, detail: str) -> None:
        raw = one.raw
        key = raw.key.decode(errors="replace") if raw.key is not None else ""
        number = shard_of(key)
        if number % group.partitions != group.partition:
            number = group.partition
        shard = self.shards[number]
        if one.offset < shard.next[one.topic]:
            return
        value = dead_letter(
            reason=reason,
            detail=detail,
            topic=raw.topic,
            original=raw.value,
            at=iso(max(one.at_ms, shard.clock_ms)),
            where={"partition": raw.partition, "offset": raw.offset, "rules": self.rulebook.hash},
        )
        self._draft(number).records.append(Record(DEAD_LETTERS, key, value))
        metrics.DEAD.labels(reason).inc()
        self.outcomes[one.topic, "dead"] += 1

    def _misplaced(self, group: Group, one: Input, given: Event | Command) -> None:
        """A foreign partitioner put it here: its own shard gets it as a command, once."""
        number = group.partition
        shard = self.shards[number]
        if one.offset < shard.next[one.topic]:
            return
        metrics.MISROUTED.inc()
        kind = FORWARD if isinstance(given, Event) else given.kind
        body = one.raw.value if isinstance(given, Event) else given.body
        link = (given.at_ms, given.message_id) if isinstance(given, Event) else given.link
        other = "" if isinstance(given, Event) else given.other
        cause = Coordinates(number, one.raw.topic, one.offset, 0)
        command = Command(kind, given.address, other, link, body, given.received_ms, cause, given.backfill)
        self._draft(number).records.append(Record(PROFILE_COMMANDS, given.address, encode_command(command)))
        self.outcomes[one.topic, "forwarded"] += 1

    def batch(self, woken: list[str]) -> Batch:
        """Everything as writes."""
        engine = self.engine
        writes = []
        flying = engine._flying
        for number in sorted(self.drafts):
            draft = self.drafts[number]
            write = effects.write_of(self.shards[number], draft, engine._ids.token(), self.rulebook.hash)
            for address, held in draft.touched.items():
                if not held.sealed:
                    self._seal(held)
                profile, blob, held.sealed = held.profile, held.sealed, b""
                if profile.erased_ms and is_tombstone(profile):
                    write.profiles[address] = None
                    write.tombs[engine.tomb_key(address)] = held.blob = blob
                    self.shards[number].tombs += 1
                else:
                    write.profiles[address] = held.blob = blob
                if held.sealed_alarm_ms != held.alarm_ms:
                    held.alarm_ms = write.alarms[address] = held.sealed_alarm_ms
                flying[address] = held
            writes.append(write)
        metrics.REORDERED.inc(self.reordered)
        for (place, outcome), count in self.outcomes.items():
            metrics.EVENTS.labels(INPUT_TOPICS[place], outcome).inc(count)
        for (trigger, reason), count in self.decisions.items():
            metrics.DECISIONS.labels(trigger, reason).inc(count)
        changes = Counter((name, member) for draft in self.drafts.values() for name, _, member in draft.members)
        for (name, member), count in changes.items():
            metrics.CHANGES.labels(name, "entered" if member else "exited").inc(count)
        records = {number: draft.records for number, draft in self.drafts.items() if draft.records}
        return Batch(writes, records, self.lows, {}, woken)
