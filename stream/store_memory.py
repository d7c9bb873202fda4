"""``ProfileStore`` in this process: dicts and sorted lists.

Simulator, backtest and tests run on it. It forgets everything when the process ends, and says so to ``check``.
Nothing that it returns or was given is shared with the caller, save bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from profiles.ids import SHARDS, shard_of
from profiles.moments import Clock
from profiles.wire import Said
from stream.ports import UNDO_MAX, ShardState, ShardWrite


@dataclass(slots=True)
class _Shard:
    token: bytes = b""
    cursor: dict[str, int] = field(default_factory=dict)
    clock_ms: int = 0
    generation: str = ""
    taken: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    outbox: list[bytes] = field(default_factory=list)
    due_ms: dict[str, int] = field(default_factory=dict)
    alarms: list[tuple[int, str]] = field(default_factory=list)  # the same, ascending
    members: dict[str, set[int]] = field(default_factory=dict)  # read in sorted order only
    tombs: dict[str, bytes] = field(default_factory=dict)
    receipts: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # until when it is kept
    refusals: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    undo: dict[str, tuple[list[bytes], int]] = field(default_factory=dict)
    products: dict[str, bytes] = field(default_factory=dict)
    products_written: int = 0
    written: int = 0
    lives: tuple[tuple[bytes, int], ...] = ()
    interest: dict[str, set[int]] = field(default_factory=dict)  # read in sorted order only


class MemoryStore:
    """All shards of an installation, in memory."""

    def __init__(self, clock: Clock) -> None:
        """``clock`` is the store's own: what ``now_ms`` answers and marks are stamped with."""
        self._clock = clock
        self._shards = [_Shard() for _ in range(SHARDS)]
        self._profiles: dict[str, bytes] = {}
        self._marks: dict[int, tuple[int, int]] = {}
        self._docs: dict[str, bytes] = {}

    @property
    def is_atomic(self) -> bool:
        """It is one dict."""
        return True

    async def now_ms(self) -> int:
        """What its clock says."""
        return self._clock.now_ms()

    async def read_shards(self, shards: Sequence[int]) -> list[ShardState]:
        """The ``cur`` records, in the order asked."""
        return [self._state(shard) for shard in shards]

    def _state(self, number: int) -> ShardState:
        it = self._shards[number]
        return ShardState(
            it.token,
            dict(it.cursor),
            it.clock_ms,
            it.generation,
            len(it.names),
            dict(it.taken),
            len(it.tombs),
            it.written,
            it.lives,
        )

    async def commit(self, writes: Sequence[ShardWrite]) -> list[int]:
        """Write all shards or none, all checks before the first write."""
        assert_sound(writes)
        refused = []
        wanted = []
        for write in writes:
            stored = self._shards[write.shard].token
            if stored == write.expected and self._stands(write):
                wanted.append(write)
            elif stored != write.token:
                refused.append(write.shard)
        if not refused:
            for write in wanted:
                self._write(write)
        return refused

    def _stands(self, write: ShardWrite) -> bool:
        said = write.stands_on.items()
        return all(self._state(shard).has(Said(life, number)) for (shard, life), number in said)

    def _write(self, write: ShardWrite) -> None:
        shard = self._shards[write.shard]
        shard.written = write.written
        if write.lives is not None:
            shard.lives = write.lives
        shard.token, shard.cursor = write.token, dict(write.cursor)
        shard.clock_ms, shard.generation = write.clock_ms, write.generation
        for address, blob in write.profiles.items():
            if blob is None:
                self._profiles.pop(address, None)
            else:
                self._profiles[address] = blob
        for address, due_ms in write.alarms.items():
            before_ms = shard.due_ms.pop(address, None)
            if before_ms is not None:
                del shard.alarms[bisect_left(shard.alarms, (before_ms, address))]
            if due_ms is not None:
                shard.due_ms[address] = due_ms
                insort(shard.alarms, (due_ms, address))
        if write.trim:
            del shard.outbox[: write.trim]
        shard.outbox += write.outbox
        shard.names += write.new_names
        for segment, ordinal, is_member in write.members:
            members = shard.members.setdefault(segment, set())
            if is_member:
                members.add(ordinal)
            else:
                members.discard(ordinal)
        shard.taken.update(write.taken)
        shard.tombs.update(write.tombs)
        for ordinal in write.forgotten:
            shard.names[ordinal] = ""
        now_ms = self._clock.now_ms() if write.receipts or write.refusals or write.undo else 0
        for kept_of, told_of in ((shard.receipts, write.receipts), (shard.refusals, write.refusals)):
            for command_id, told in told_of.items():
                if now_ms >= kept_of.get(command_id, (b"", 0))[1]:
                    kept_of[command_id] = (told, now_ms + write.keep_ms)
        for address in write.undo_gone:
            shard.undo.pop(address, None)
        for address, undone in write.undo.items():
            kept, until_ms = shard.undo.get(address, ([], 0))
            before = kept if now_ms < until_ms else []
            shard.undo[address] = ([*reversed(undone), *before][:UNDO_MAX], now_ms + write.keep_ms)

        for product_id, product in write.products.items():
            if product is None:
                shard.products.pop(product_id, None)
            else:
                shard.products[product_id] = product
        shard.products_written += bool(write.products)
        for product_id, ordinal, holds in write.interest:
            interested = shard.interest.setdefault(product_id, set())
            (interested.add if holds else interested.discard)(ordinal)

    async def load(self, addresses: Sequence[str]) -> list[bytes | None]:
        """Profile blobs in the order asked."""
        return list(map(self._profiles.get, addresses))

    async def tombs(self, wanted: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """Tombstones by (shard, keyed hash of the address), in the order asked."""
        return [self._shards[shard].tombs.get(key) for shard, key in wanted]

    async def receipt(self, command_id: str) -> bytes | None:
        """What became of an operator's command."""
        now_ms = self._clock.now_ms()
        kept = [*(it.receipts for it in self._shards), *(it.refusals for it in self._shards)]
        found = (told_of[command_id] for told_of in kept if command_id in told_of)
        return next((told for told, until_ms in found if now_ms < until_ms), None)

    async def undo(self, address: str) -> list[bytes]:
        """What undoes the latest merges into this address, newest first."""
        kept, until_ms = self._shards[shard_of(address)].undo.get(address, ([], 0))
        return list(kept) if self._clock.now_ms() < until_ms else []

    async def addresses(self) -> AsyncIterator[str]:
        """Every address that holds a profile or forwards."""
        for address in list(self._profiles):
            yield address

    async def due(self, shards: Sequence[int], until_ms: int, limit: int) -> list[tuple[str, int]]:
        """Alarms up to ``until_ms``, at most ``limit`` per shard, ordered by (due, address)."""
        found: list[tuple[int, str]] = []
        for shard in shards:
            alarms = self._shards[shard].alarms
            if alarms and alarms[0][0] <= until_ms:
                found += alarms[: min(limit, bisect_left(alarms, (until_ms + 1, "")))]
        found.sort()
        return [(address, due_ms) for due_ms, address in found]

    async def alarms_pending(self, shards: Sequence[int]) -> int:
        """How many profiles have an alarm."""
        return sum(len(self._shards[shard].alarms) for shard in shards)

    async def outboxes(self, shards: Sequence[int]) -> list[list[bytes]]:
        """Whole outboxes in the order asked, oldest entry first."""
        return [list(self._shards[shard].outbox) for shard in shards]

    async def put_marks(self, marks: Mapping[int, int]) -> None:
        """Publish low times, stamped with the store's clock."""
        now_ms = self._clock.now_ms()
        for partition, low_ms in marks.items():
            self._marks[partition] = (low_ms, now_ms)

    async def marks(self) -> dict[int, tuple[int, int]]:
        """All partitions' low times, by partition."""
        return dict(sorted(self._marks.items()))

    async def segment_sizes(self, segments: Sequence[str]) -> dict[str, int]:
        """Members by segment, over all shards."""
        return {segment: sum(len(it.members.get(segment, ())) for it in self._shards) for segment in segments}

    async def members(self, segment: str, cursor: str, limit: int) -> tuple[list[str], str]:
        """A page of members' addresses, by shard and ordinal."""
        assert limit >= 1, limit
        first_shard, first = place_of(cursor)
        page: list[str] = []
        for number in range(first_shard, SHARDS):
            shard = self._shards[number]
            ordinals = (it for it in sorted(shard.members.get(segment, ())) if it >= first)
            for ordinal in islice(ordinals, limit - len(page)):
                page.append(shard.names[ordinal])
                if len(page) == limit:
                    return page, f"{number}:{ordinal + 1}"
            first = 0
        return page, ""

    async def named(self, shard: int, first: int, limit: int) -> list[str]:
        """Addresses of a shard by ordinal."""
        return [name for name in self._shards[shard].names[first : first + limit] if name]

    async def product_versions(self, shards: Sequence[int]) -> list[int]:
        """How often the products of each shard were written."""
        return [self._shards[shard].products_written for shard in shards]

    async def products(self, shards: Sequence[int]) -> list[dict[str, bytes]]:
        """All products of each shard."""
        return [dict(self._shards[shard].products) for shard in shards]

    async def interested(self, shard: int, product_id: str) -> list[str]:
        """Whom news of a product may interest, by ordinal."""
        it = self._shards[shard]
        return [name for ordinal in sorted(it.interest.get(product_id, ())) if (name := it.names[ordinal])]

    async def get_doc(self, name: str) -> bytes | None:
        """A document, if it was put."""
        return self._docs.get(name)

    async def put_doc(self, name: str, value: bytes) -> None:
        """Set a document."""
        self._docs[name] = value

    async def replace_doc(self, name: str, before: bytes | None, value: bytes) -> bool:
        """Set a document if nobody has in between."""
        is_so = self._docs.get(name) == before
        if is_so:
            self._docs[name] = value
        return is_so

    async def check(self, *, relaxed: bool) -> list[str]:
        """Persistence is what it lacks."""
        return [] if relaxed else ["store: persistence: AOF or snapshots wanted, found a store in memory"]

    async def close(self) -> None:
        """Nothing to let go of."""

    def profiles(self) -> dict[str, bytes]:
        """Every blob by its address: for whoever looks at the whole of a small installation."""
        return dict(self._profiles)


def assert_sound(writes: Sequence[ShardWrite]) -> None:
    """What both adapters ask of a batch: a shard once, and a token that says something new."""
    assert len({write.shard for write in writes}) == len(writes), "a shard stands twice in one commit"
    for write in writes:
        # Without a new token a first try could not be told from a repeated one.
        assert write.token not in (b"", write.expected), f"shard {write.shard}: a new token wanted"


def place_of(cursor: str) -> tuple[int, int]:
    """Shard and ordinal at which a page of members begins.

    Raises:
        ValueError: not a cursor that ``members`` gave out.
    """
    if not cursor:
        return 0, 0
    shard, colon, ordinal = cursor.partition(":")
    if not (colon and _is_number(shard) and _is_number(ordinal) and int(shard) < SHARDS):
        raise ValueError(f"cursor: empty or '<shard below {SHARDS}>:<ordinal>' wanted, got {cursor[:40]!r}")
    return int(shard), int(ordinal)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
