"""The tests are tested: faults that can be switched on by name, each a mistake that somebody could make.

    with planted("no gate"):
        live(plan_of(seed))

Each must be found by some seed below 2,000 (``test_planted.py``); one that none finds is a hole in the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

from connectors.collector import admission
from profiles.codec import decode
from profiles.moments import FOREVER
from profiles.wire import EVENT_TOPICS, Event
from rules import engine
from rules.rulebook import Rulebook
from stream import computing, effects, group, handlers
from stream.alarms import Gate
from stream.cache import Cache
from stream.effects import Batch, Shard
from stream.feed import Chunk, Feed, Place
from stream.handlers import Handlers
from stream.owned import Owned
from stream.ports import ShardWrite
from stream.store_memory import MemoryStore
from tests.simulation.net import Database, SimStore

Plant = Callable[[ExitStack], None]
PLANTS: Final[dict[str, Plant]] = {}


def plant(name: str) -> Callable[[Plant], Plant]:
    """Remember a fault by its name."""

    def keep(given: Plant) -> Plant:
        PLANTS[name] = given
        return given

    return keep


@contextmanager
def planted(name: str) -> Iterator[None]:
    """With this fault in the engine, or in what it stands on; "" for none."""
    with ExitStack() as stack:
        if name:
            PLANTS[name](stack)
        yield


def _put(stack: ExitStack, where: Any, name: str, what: Any) -> None:
    stack.enter_context(patch.object(where, name, what))


# --- the order of writing and publishing ---------------------------------------------------------------------------


@plant("published before it is written")
def _published_first(stack: ExitStack) -> None:
    settle = Handlers._settle

    async def faulty(self: Handlers, batch: Batch, before: Any) -> None:
        await effects.publish(self._out, [record for records in batch.records.values() for record in records])
        await settle(self, batch, before)

    _put(stack, Handlers, "_settle", faulty)


@plant("trimmed before it is acknowledged")
def _trimmed_early(stack: ExitStack) -> None:
    write = MemoryStore._write

    def faulty(self: MemoryStore, given: ShardWrite) -> None:
        write(self, given)
        self._shards[given.shard].outbox.clear()

    _put(stack, MemoryStore, "_write", faulty)


@plant("what was left in an outbox is not published")
def _outbox_left(stack: ExitStack) -> None:
    async def faulty(self: SimStore, shards: Sequence[int]) -> list[list[bytes]]:
        return [[] for _ in shards]

    _put(stack, SimStore, "outboxes", faulty)


# --- the fence -----------------------------------------------------------------------------------------------------


@plant("no fence")
def _no_fence(stack: ExitStack) -> None:
    async def faulty(self: MemoryStore, writes: Sequence[ShardWrite]) -> list[int]:
        for write in writes:
            self._write(write)
        return []

    _put(stack, MemoryStore, "commit", faulty)


@plant("a counter for a token")
def _counter(stack: ExitStack) -> None:
    write_of = effects.write_of

    def faulty(shard: Shard, draft: Any, token: bytes) -> ShardWrite:
        return write_of(shard, draft, (int.from_bytes(shard.token, "big") + 1).to_bytes(8, "big"))

    _put(stack, effects, "write_of", faulty)


@plant("each shard of a commit by itself")
def _apart(stack: ExitStack) -> None:
    async def faulty(self: MemoryStore, writes: Sequence[ShardWrite]) -> list[int]:
        refused = []
        for write in writes:
            stored = self._shards[write.shard].token
            if stored == write.expected:
                self._write(write)
            elif stored != write.token:
                refused.append(write.shard)
        return refused

    _put(stack, MemoryStore, "commit", faulty)


@plant("no beat")
def _no_beat(stack: ExitStack) -> None:
    async def faulty(self: Handlers) -> None:
        return

    _put(stack, Handlers, "_beat", faulty)


@plant("a cache that outlives its shard")
def _old_cache(stack: ExitStack) -> None:
    _put(stack, Cache, "drop_shards", lambda self, shards: None)


# --- where reading begins ------------------------------------------------------------------------------------------


@plant("a cursor ahead of what is applied")
def _ahead(stack: ExitStack) -> None:
    cursor = Shard.cursor

    def faulty(self: Shard) -> dict[str, int]:
        return {topic: offset + (topic in EVENT_TOPICS and offset > 0) for topic, offset in cursor(self).items()}

    _put(stack, Shard, "cursor", faulty)


@plant("the framework's own offsets")
def _framework(stack: ExitStack) -> None:
    """Acknowledged when handed over; begun where the group has committed."""
    hand, claim = Feed.hand, Feed.claim
    committed: dict[Place, int] = {}

    def faulty_hand(self: Feed, chunk: Any, done: Callable[[], object]) -> None:
        hand(self, chunk, done)
        committed[chunk.topic, chunk.partition] = chunk.records[-1].offset + 1

    async def faulty_claim(self: Feed, partitions: Sequence[int]) -> dict[Place, int]:
        starts = await claim(self, partitions)
        return {place: committed.get(place, offset) for place, offset in starts.items()}

    _put(stack, Feed, "hand", faulty_hand)
    _put(stack, Feed, "claim", faulty_claim)


@plant("what was fetched before a release is handed over after it")
def _stale(stack: ExitStack) -> None:
    hand = Feed.hand

    def faulty(self: Feed, chunk: Chunk, done: Callable[[], object]) -> None:
        reading = self._readings.get((chunk.topic, chunk.partition))
        hand(self, chunk if reading is None else replace(chunk, reading=reading), done)

    _put(stack, Feed, "hand", faulty)


@plant("topics merged as they come")
def _unmerged(stack: ExitStack) -> None:
    def faulty(self: group.Group, limit: int) -> tuple[list[group.Input], int]:
        if not self.caught_up:
            return [], -1
        ready = [one for lane in self.lanes for one in lane.inputs]
        return ready[:limit], FOREVER

    _put(stack, group.Group, "ready", faulty)
    _put(stack, handlers, "_order", lambda one: one[1][1:3])


# --- commands and messages -----------------------------------------------------------------------------------------


@plant("no ring of messages")
def _no_ring(stack: ExitStack) -> None:
    _put(stack, engine._Turn, "_first_time", lambda self, event: True)


@plant("forwarders outside the cursor")
def _forwarders_apart(stack: ExitStack) -> None:
    """Who forwards to whom is kept in a table of its own, written first, and never goes back."""
    commit, load = Database.commit, MemoryStore.load

    def faulty_commit(self: Database, writes: Sequence[ShardWrite]) -> list[int]:
        table = self.__dict__.setdefault("table", {})
        for write in writes:
            for address, blob in write.profiles.items():
                if blob is not None and decode(address, blob).forward:
                    table[address] = blob
        self.now.__dict__["table"] = table
        return commit(self, writes)

    async def faulty_load(self: MemoryStore, addresses: Sequence[str]) -> list[bytes | None]:
        table = self.__dict__.get("table", {})
        blobs = await load(self, addresses)
        return [table.get(address, blob) for address, blob in zip(addresses, blobs, strict=True)]

    _put(stack, Database, "commit", faulty_commit)
    _put(stack, MemoryStore, "load", faulty_load)


@plant("bytes made before a profile's last change")
def _sealed_early(stack: ExitStack) -> None:
    collect = computing.Computing._collect

    def faulty(self: Any, held: Any, out: Any) -> None:
        sealed = held.sealed
        collect(self, held, out)
        held.sealed = sealed

    _put(stack, computing.Computing, "_collect", faulty)


@plant("an erasure that leaves the name")
def _named(stack: ExitStack) -> None:
    buried = computing.Computing._buried

    def faulty(self: Any, held: Any, draft: Any, told: Any) -> None:
        buried(self, held, draft, told)
        draft.forgotten.clear()

    _put(stack, computing.Computing, "_buried", faulty)


@plant("what was told by writes that are forgotten is taken")
def _void_taken(stack: ExitStack) -> None:
    _put(stack, Owned, "note_void", lambda self, group: None)
    _put(stack, MemoryStore, "_stands", lambda self, write: True)


@plant("senders' clocks are believed")
def _clocks_believed(stack: ExitStack) -> None:
    _put(stack, admission, "_sent", lambda value: None)


@plant("rubbish is passed over")
def _passed_over(stack: ExitStack) -> None:
    _put(stack, computing.Computing, "_dead", lambda self, group, one, reason, detail: None)


# --- time ----------------------------------------------------------------------------------------------------------


@plant("no gate")
def _no_gate(stack: ExitStack) -> None:
    async def faulty(self: Gate, groups: Any) -> None:
        for one in groups.values():
            one.gate_ms = self._clock.now_ms()

    _put(stack, Gate, "ask", faulty)


@plant("a gate that looks at its own partition only")
def _own_gate(stack: ExitStack) -> None:
    _put(stack, Gate, "_other", lambda self, partition: FOREVER)


@plant("an alarm taken out when it is read")
def _alarm_read(stack: ExitStack) -> None:
    due = SimStore.due

    async def faulty(self: SimStore, shards: Sequence[int], until_ms: int, limit: int) -> list[tuple[str, int]]:
        found = await due(self, shards, until_ms, limit)
        for address, due_ms in found:
            for shard in self._db.now._shards:
                if shard.due_ms.pop(address, None) is not None:
                    shard.alarms.remove((due_ms, address))
        return found

    _put(stack, SimStore, "due", faulty)


@plant("a shard's clock is its last input's")
def _clock_back(stack: ExitStack) -> None:
    apply = computing.Computing._apply

    def faulty(self: computing.Computing, place: int, of: group.Group, one: group.Input) -> None:
        apply(self, place, of, one)
        held = self.hands.get(one.given.address) if isinstance(one.given, Event) else None
        if held is not None and not self.is_alone:
            self.shards[held.shard].clock_ms = one.at_ms

    _put(stack, computing.Computing, "_apply", faulty)


# --- rules that change ---------------------------------------------------------------------------------------------


@plant("new rules are met by nobody")
def _not_met(stack: ExitStack) -> None:
    def faulty(self: Shard, rulebook: Rulebook) -> None:
        self.ruled = rulebook.hash, rulebook.number

    _put(stack, Shard, "go_by", faulty)
