"""The engine's five doors to the world: ``Log``, ``Store``, ``Clock``, ``Ids`` and ``Net``.

The engine (handlers, effects, alarms) is written on these alone; the adapters are real Kafka through
Faust's transport, Redis, the store's clock, and their in-memory twins, which pass the same suites. ``Net``, calls
to the outside in the middle of a decision, is empty on purpose: a decision depends on event, profile and generation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from profiles.moments import DAY_MS, Clock
from profiles.wire import Record, Said

UNDO_MAX: Final = 16
"""How many merges of one profile can be undone at most: the latest."""
LIVES_MAX: Final = 16
"""Of so many ownerships a shard remembers with which of its writes they began."""

__all__ = [
    "LIVES_MAX",
    "UNDO_MAX",
    "Clock",
    "Engine",
    "Ids",
    "Log",
    "LogRecord",
    "ProfileStore",
    "ShardState",
    "ShardWrite",
]


class Ids(Protocol):
    """Draws what must be unique: fencing tokens."""

    def token(self) -> bytes:
        """Eight random bytes, never the same twice."""
        ...


# --- the log ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class LogRecord:
    """One record as it lies in the log."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes


class Engine(Protocol):
    """What the log feeds: it owns partition groups (the same partition of all input topics) while it has them.

    The log calls these from one event loop. An exception out of any of them must end the process (R8).
    """

    async def claim(self, partitions: Sequence[int]) -> dict[tuple[str, int], int]:
        """These partitions are ours from now on; say at which offset of each (input topic, partition) to start."""
        ...

    async def release(self, partitions: Sequence[int]) -> None:
        """These partitions are no longer ours; when this returns, nothing of theirs is under way."""
        ...

    async def deliver(self, topic: str, partition: int, records: Sequence[LogRecord], read_ms: int) -> None:
        """Take a whole fetch: one topic's records, offsets ascending, from the wanted position on.

        Suspends while the engine has enough: that is how back-pressure reaches the broker. Returning does not mean
        applied; the engine reports what is stored by ``Log.commit``.

        Args:
            read_ms: the process's wall clock when the fetch was answered.
        """
        ...

    def at_end(self, topic: str, partition: int, position: int, answered_ms: int) -> None:
        """A fetch answered at ``answered_ms`` (same clock as ``read_ms``) found the topic's end at ``position``."""
        ...


class Log(Protocol):
    """What the engine asks of Kafka beside being fed."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Publish with acks=all, in order per key; return when all are acknowledged.

        Raises:
            OSError: the broker did not take them; publishing again later is safe.
        """
        ...

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Tell the broker how far we are: information only, never beyond a stored cursor (R6)."""
        ...


# --- the store --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ShardState:
    """A shard's ``cur`` record as stored (RELIABILITY §1).

    Attributes:
        token: the fencing token of the last write; empty for a shard never written.
        cursor: next offset per input topic.
        clock_ms: the shard clock: the greatest logical time applied.
        generation: hash of the rulebook generation it works under; empty when new.
        ordinals: how many profile ordinals were given out; the next profile gets this number.
        taken: from each (sending shard, topic): the (offset, ordinal) of the last command taken.
        tombs: how many tombstones it holds (profiles/erasure.py); without any, nobody need look for one.
        written: how many writes it has seen.
        lives: its latest ownerships, oldest first: (the token of its claim, the number of that write).
    """

    token: bytes = b""
    cursor: dict[str, int] = field(default_factory=dict)
    clock_ms: int = 0
    generation: str = ""
    ordinals: int = 0
    taken: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    tombs: int = 0
    written: int = 0
    lives: tuple[tuple[bytes, int], ...] = ()

    def has(self, said: Said) -> bool:
        """Whether that write of the shard is stored: a store that went back in time has forgotten it for good.

        Of ownerships older than ``lives`` everything counts as stored.
        """
        last = self.written
        for life, first in reversed(self.lives):
            if life == said.life:
                break
            last = first - 1
        return said.number <= last


@dataclass(slots=True)
class ShardWrite:
    """One shard's part of a batch: written whole or not at all, only if ``expected`` is the stored token.

    Attributes:
        shard: its number.
        expected: the token we hold: our cache equals the store.
        token: the new one.
        cursor, clock_ms, generation: replace what is stored. ``cursor`` holds every input topic.
        profiles: address -> blob, to be set; ``None`` deletes it.
        alarms: address -> due, epoch ms; ``None`` removes the entry.
        outbox: packed records, appended in order.
        trim: how many of the oldest outbox entries were published and acknowledged.
        new_names: addresses that get the next ordinals, in order.
        members: (segment name, ordinal, is a member now).
        taken: the entries of ``ShardState.taken`` that changed.
        tombs: keyed hash of an erased address -> its tombstone, for good.
        forgotten: ordinals whose addresses are struck out of the list of names.
        receipts: an operator's command that was done -> what became of it; the first word stands, for ``keep_ms``.
        refusals: one of which nothing was done -> why; the first word stands as long, unless the command is done after all.
        undo_gone: addresses of which all that undoes a merge is taken away.
        undo: address -> what undoes a merge, put before what is left; ``UNDO_MAX`` are kept, for ``keep_ms``.
        keep_ms: how long receipts, refusals and undos are kept from this write on.
        products: product id -> product, to be set; ``None`` deletes it.
        interest: (product id, ordinal, whether news of it may interest that profile).
        written: how many writes of the shard there are with this one.
        lives: replaces what is stored; ``None`` leaves it.
        stands_on: other shards' writes, without which nothing is written: (shard, its ownership) -> number. A store
            that is not ``is_atomic`` does not ask.
    """

    shard: int
    expected: bytes
    token: bytes
    cursor: dict[str, int]
    clock_ms: int
    generation: str = ""
    profiles: dict[str, bytes | None] = field(default_factory=dict)
    alarms: dict[str, int | None] = field(default_factory=dict)
    outbox: list[bytes] = field(default_factory=list)
    trim: int = 0
    new_names: list[str] = field(default_factory=list)
    members: list[tuple[str, int, bool]] = field(default_factory=list)
    taken: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    tombs: dict[str, bytes] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    receipts: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, bytes] = field(default_factory=dict)
    undo_gone: list[str] = field(default_factory=list)
    undo: dict[str, list[bytes]] = field(default_factory=dict)
    keep_ms: int = 30 * DAY_MS
    products: dict[str, bytes | None] = field(default_factory=dict)
    interest: list[tuple[str, int, bool]] = field(default_factory=list)
    written: int = 0
    lives: tuple[tuple[bytes, int], ...] | None = None
    stands_on: dict[tuple[int, bytes], int] = field(default_factory=dict)


class ProfileStore(Protocol):
    """Profiles, alarms, outboxes, cursors and memberships by shard. Redis and memory pass one suite."""

    @property
    def is_atomic(self) -> bool:
        """Whether a commit is whole over all its shards: then one may stand on what another does in the same commit."""
        ...

    async def now_ms(self) -> int:
        """The store's own clock, epoch ms: the one clock that all workers share (R18)."""
        ...

    async def read_shards(self, shards: Sequence[int]) -> list[ShardState]:
        """The ``cur`` records, in the order asked."""
        ...

    async def commit(self, writes: Sequence[ShardWrite]) -> list[int]:
        """Write all of these shards or none, all checks before the first write (R3, R4).

        A token that is already the one attempted counts as written (the reply of an earlier try was lost). Where
        the store is not ``is_atomic``, each shard is written whole or not at all.

        Returns:
            The shards that were refused because their stored token is another; if there are any, an atomic store
            has written none.
        Raises:
            OSError: the outcome is unknown; call again with the very same writes.
        """
        ...

    async def load(self, addresses: Sequence[str]) -> list[bytes | None]:
        """Profile blobs in the order asked; ``None`` where there is none."""
        ...

    async def tombs(self, wanted: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """Tombstones by (shard, keyed hash of the address), in the order asked."""
        ...

    async def receipt(self, command_id: str) -> bytes | None:
        """What became of an operator's command, wherever its person is; ``None``: nothing yet, or long ago."""
        ...

    async def undo(self, address: str) -> list[bytes]:
        """What undoes the latest merges into this address, newest first."""
        ...

    def addresses(self) -> AsyncIterator[str]:
        """Every address that holds a profile or forwards, in no order: a walk that may take long and meet one twice."""
        ...

    async def due(self, shards: Sequence[int], until_ms: int, limit: int) -> list[tuple[str, int]]:
        """Alarms with ``due <= until_ms``: at most ``limit`` per shard, ordered by (due, address)."""
        ...

    async def alarms_pending(self, shards: Sequence[int]) -> int:
        """How many profiles have an alarm."""
        ...

    async def outboxes(self, shards: Sequence[int]) -> list[list[bytes]]:
        """Whole outboxes in the order asked, oldest entry first: what a new owner publishes on claim."""
        ...

    async def put_marks(self, marks: Mapping[int, int]) -> None:
        """Publish low times: partition -> logical time up to which inputs are applied and commands published (R16)."""
        ...

    async def marks(self) -> dict[int, tuple[int, int]]:
        """All partitions' low times: partition -> (low time, store's clock when it was put)."""
        ...

    async def segment_sizes(self, segments: Sequence[str]) -> dict[str, int]:
        """Members by segment, over all shards."""
        ...

    async def members(self, segment: str, cursor: str, limit: int) -> tuple[list[str], str]:
        """A page of members' addresses and the cursor of the next page; an empty cursor starts and ends."""
        ...

    async def named(self, shard: int, first: int, limit: int) -> list[str]:
        """Addresses of a shard by ordinal, from ``first`` on; those that were struck out are left out."""
        ...

    async def product_versions(self, shards: Sequence[int]) -> list[int]:
        """How often the products of each shard were written, in the order asked."""
        ...

    async def products(self, shards: Sequence[int]) -> list[dict[str, bytes]]:
        """All products of each shard, in the order asked: product id -> product."""
        ...

    async def interested(self, shard: int, product_id: str) -> list[str]:
        """Addresses of a shard whom news of that product may interest, by ordinal."""
        ...

    async def get_doc(self, name: str) -> bytes | None:
        """A small installation-wide document: rulebook generations, facts, the topics' identity (R10)."""
        ...

    async def put_doc(self, name: str, value: bytes) -> None:
        """Set such a document."""
        ...

    async def replace_doc(self, name: str, before: bytes | None, value: bytes) -> bool:
        """Set such a document if it is still ``before`` (``None``: not there); whether it was."""
        ...

    async def check(self, *, relaxed: bool) -> list[str]:
        """What of R28 the store fails: eviction policy, persistence, role. Empty when it may be used.

        Args:
            relaxed: ``dev``: persistence is not wanted.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...
