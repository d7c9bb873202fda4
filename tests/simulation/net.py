"""Between a worker and its servers: every call ends done, done with its reply lost, not done, late, or never.

The servers are the store and the log in memory, which pass the same contract suites as Redis and Kafka. What a call
does happens in the world, in one instant, whether or not the caller still lives to hear of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from random import Random  # noqa: TID251 - seeded: the same mishaps every time
from typing import Any, Final, TypeVar

from profiles.wire import Record
from stream.log_memory import MemoryLog
from stream.ports import ProfileStore, ShardState, ShardWrite
from stream.store_memory import MemoryStore
from tests.simulation.loop import Life, VirtualLoop, outside

T = TypeVar("T")

IDLE: Final = frozenset(("now", "marks", "put marks", "check", "due", "product versions", "commit "))
"""What a worker asks all the time, though nothing happens: the last is a beat."""
PATIENCE_S: Final = 3.0
"""After so long a client gives up waiting; whether its call was done it does not know."""


@dataclass(frozen=True)
class Weather:
    """How often what goes wrong, each a share of all calls.

    Attributes:
        refused: not done, and said so.
        lost: done, and the reply lost.
        silent: not done, and nobody says so.
        late: done after the caller has given up.
        slow: done, after up to a second.
        odd: how often the engine meets the rare (``buggify``).
    """

    refused: float = 0.0
    lost: float = 0.0
    silent: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    odd: float = 0.0

    @cached_property
    def fates(self) -> tuple[tuple[str, float], ...]:
        """What may become of a call but that it is done at once, each with its share."""
        return tuple((name, getattr(self, name)) for name in ("refused", "lost", "silent", "late", "slow"))


FAIR: Final = Weather()


class Trace:
    """A hash over everything that happened, in order: one seed, one hash (R30)."""

    def __init__(self) -> None:
        self._sha = sha256()
        self.lines: list[str] | None = None
        self.count = 0

    def note(self, *what: object) -> None:
        """Something happened."""
        line = " ".join(map(str, what))
        self.count += 1
        self._sha.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """Sixteen characters that stand for all of it."""
        return self._sha.hexdigest()[:16]


class Net:
    """Carries calls, as the weather is."""

    def __init__(self, loop: VirtualLoop, random: Random, trace: Trace) -> None:
        self._loop = loop
        self._random = random
        self._trace = trace
        self.weather = FAIR
        self.is_down: set[str] = set()
        self._outside = outside()

    async def call(self, who: Life, server: str, what: str, act: Callable[[], T]) -> T:
        """Ask a server to do something.

        Raises:
            OSError: it was not done; or nobody knows.
        """
        loop, draw = self._loop, self._random.random
        if what not in IDLE:
            who.busy.add(who.steps)
        there_s, back_s = draw() * 0.002, draw() * 0.002
        fate, share = "done", draw()
        for name, part in self.weather.fates:
            share -= part
            if share < 0:
                fate = name
                break
        if fate == "slow":
            there_s += draw()
        elif fate == "late":
            there_s += PATIENCE_S + draw() * 5
        reply: asyncio.Future[T] = loop.create_future()

        def answer(done: T | None, error: BaseException | None) -> None:
            if what not in IDLE or (what == "due" and done):
                who.busy.add(who.steps)
            if reply.done():
                return
            if error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(done)  # type: ignore[arg-type]  # None is what some calls answer

        def arrive() -> None:
            if server in self.is_down or fate == "refused":
                self._trace.note(loop.now_ms(), who.name, what, "refused")
                error: BaseException | None = ConnectionRefusedError(f"{server}: {what}")
                loop.call_later(back_s, answer, None, error, context=self._outside)
                return
            if fate == "silent":
                self._trace.note(loop.now_ms(), who.name, what, "silent")
                return
            if what not in IDLE:
                who.busy.add(who.steps)
            done: T | None = None
            error = None
            try:
                done = act()
            except OSError as refusal:
                error = refusal
            self._trace.note(loop.now_ms(), who.name, what, fate, "refusal" if error else "")
            if fate == "lost":
                error = ConnectionResetError(f"{server}: {what}")
            loop.call_later(back_s, answer, done, error, context=self._outside)

        loop.call_later(there_s, arrive, context=self._outside)
        async with asyncio.timeout(PATIENCE_S):
            return await reply


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("a call of the store in memory that waits")


class Database:
    """The store as a server: it keeps what it was told in order, so that it can lose any suffix of it."""

    def __init__(self, make: Callable[[], MemoryStore]) -> None:
        """``make`` makes an empty store."""
        self._make = make
        self.now = make()
        self.told: list[Callable[[MemoryStore], Coroutine[Any, Any, Any]]] = []
        self.witness: Callable[[list[ShardWrite], list[int]], None] = lambda writes, refused: None
        self.is_full = False

    def commit(self, writes: Sequence[ShardWrite]) -> list[int]:
        """Write; whoever watches is told."""
        if self.is_full:
            raise OSError("OOM command not allowed when used memory > 'maxmemory'")
        told = list(writes)
        refused: list[int] = self._keep(lambda store: store.commit(told))
        self.witness(told, refused)
        return refused

    def put_marks(self, marks: Mapping[int, int]) -> None:
        """The same, of low times."""
        self._keep(lambda store: store.put_marks(marks))

    def _keep(self, tell: Callable[[MemoryStore], Coroutine[Any, Any, T]]) -> T:
        done = at_once(tell(self.now))
        self.told.append(tell)
        return done

    def lose(self, count: int) -> None:
        """Forget the last so many writes, as a crash before the fsync or a failover does."""
        self.told = self.told[: max(0, len(self.told) - count)]
        self.now = self._make()
        for tell in self.told:
            at_once(tell(self.now))


class SimStore(ProfileStore):
    """One worker's client of the database."""

    def __init__(self, net: Net, life: Life, database: Database) -> None:
        self._net = net
        self._life = life
        self._db = database

    async def _ask(self, what: str, ask: Callable[[MemoryStore], Coroutine[Any, Any, T]]) -> T:
        return await self._net.call(self._life, "store", what, lambda: at_once(ask(self._db.now)))

    @property
    def is_atomic(self) -> bool:
        return self._db.now.is_atomic

    async def now_ms(self) -> int:
        return await self._ask("now", lambda store: store.now_ms())

    async def read_shards(self, shards: Sequence[int]) -> list[ShardState]:
        return await self._ask("read shards", lambda store: store.read_shards(shards))

    async def commit(self, writes: Sequence[ShardWrite]) -> list[int]:
        what = "commit " + ",".join(f"{write.shard}:{write.token.hex()}" for write in writes if write.profiles)
        return await self._net.call(self._life, "store", what, lambda: self._db.commit(writes))

    async def load(self, addresses: Sequence[str]) -> list[bytes | None]:
        return await self._ask(f"load {','.join(addresses)}", lambda store: store.load(addresses))

    async def tombs(self, wanted: Sequence[tuple[int, str]]) -> list[bytes | None]:
        return await self._ask("tombstones", lambda store: store.tombs(wanted))

    async def receipt(self, command_id: str) -> bytes | None:
        return await self._ask(f"receipt {command_id}", lambda store: store.receipt(command_id))

    async def undo(self, address: str) -> list[bytes]:
        return await self._ask(f"undo {address}", lambda store: store.undo(address))

    async def addresses(self) -> AsyncIterator[str]:
        async for address in self._db.now.addresses():
            yield address

    async def due(self, shards: Sequence[int], until_ms: int, limit: int) -> list[tuple[str, int]]:
        return await self._ask("due", lambda store: store.due(shards, until_ms, limit))

    async def alarms_pending(self, shards: Sequence[int]) -> int:
        return await self._ask("alarms", lambda store: store.alarms_pending(shards))

    async def outboxes(self, shards: Sequence[int]) -> list[list[bytes]]:
        return await self._ask("outboxes", lambda store: store.outboxes(shards))

    async def put_marks(self, marks: Mapping[int, int]) -> None:
        told = dict(marks)
        await self._net.call(self._life, "store", "put marks", lambda: self._db.put_marks(told))

    async def marks(self) -> dict[int, tuple[int, int]]:
        return await self._ask("marks", lambda store: store.marks())

    async def segment_sizes(self, segments: Sequence[str]) -> dict[str, int]:
        return await self._ask("sizes", lambda store: store.segment_sizes(segments))

    async def members(self, segment: str, cursor: str, limit: int) -> tuple[list[str], str]:
        return await self._ask("members", lambda store: store.members(segment, cursor, limit))

    async def named(self, shard: int, first: int, limit: int) -> list[str]:
        return await self._ask("named", lambda store: store.named(shard, first, limit))

    async def product_versions(self, shards: Sequence[int]) -> list[int]:
        return await self._ask("product versions", lambda store: store.product_versions(shards))

    async def products(self, shards: Sequence[int]) -> list[dict[str, bytes]]:
        return await self._ask("products", lambda store: store.products(shards))

    async def interested(self, shard: int, product_id: str) -> list[str]:
        return await self._ask("interested", lambda store: store.interested(shard, product_id))

    async def get_doc(self, name: str) -> bytes | None:
        return await self._ask("get doc", lambda store: store.get_doc(name))

    async def put_doc(self, name: str, value: bytes) -> None:
        await self._ask("put doc", lambda store: store.put_doc(name, value))

    async def replace_doc(self, name: str, before: bytes | None, value: bytes) -> bool:
        return await self._ask("replace doc", lambda store: store.replace_doc(name, before, value))

    async def check(self, *, relaxed: bool) -> list[str]:
        return await self._ask("check", lambda store: store.check(relaxed=relaxed))

    async def close(self) -> None:
        """Nothing to let go of."""


class SimLog:
    """One worker's producer."""

    def __init__(self, net: Net, life: Life, log: MemoryLog, random: Random) -> None:
        self._net = net
        self._life = life
        self._log = log
        self._random = random

    async def publish(self, records: Sequence[Record]) -> None:
        """All of them, in order; or, when the broker fails on the way, the first few."""
        partly = len(records)
        if self._random.random() < self._net.weather.refused:
            partly = int(self._random.random() * (len(records) + 1))

        def append() -> None:
            for record in records[:partly]:
                self._log.append(record)
            if partly < len(records):
                raise ConnectionResetError("the broker took a part")

        await self._net.call(self._life, "broker", f"publish {len(records)}", append)

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Information only: what is lost is lost."""
        for place, offset in offsets.items():
            self._log.committed[place] = max(offset, self._log.committed.get(place, 0))


class SimIds:
    """Tokens from the seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def token(self) -> bytes:
        return self._random.randbytes(8)
