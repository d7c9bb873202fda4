"""What a batch does to the world: one atomic write of its shards, then its outbox to the log, in that order.

    compute -> commit_shard (profiles, alarms, outbox, cursor, new token) -> publish -> trim with the next write

A batch settles after the one before it; a store that does not answer is asked again with the very same writes (their
tokens say whether the first try succeeded), and nothing is consumed meanwhile (R27).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from profiles.wire import INPUT_TOPICS, Record, Said, pack_record
from rules.rulebook import Rulebook
from stream import metrics
from stream.cache import Held
from stream.clock import monotonic_ns
from stream.facts import Met, Standing, read_told, told
from stream.ports import LIVES_MAX, Log, ProfileStore, ShardState, ShardWrite

log = logging.getLogger(__name__)

T = TypeVar("T")

TOLD_MAX: Final = 8
RETRY_WAIT_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)


class FencedOut(Exception):
    """Another worker has written a shard of ours: what we hold of it is worth nothing any more (R4)."""


@dataclass(slots=True)
class Shard:
    """A shard that we own, as of the last write that we have built.

    Attributes:
        next: per input topic, the next offset.
        tombs: how many tombstones it holds.
        trim: outbox entries published and acknowledged, to be cut off with the next write.
        idle: not written since the last beat.
        known: the generations of facts that it knows, oldest first.
        place: how far its walk is in letting profiles meet what is new; -1: all have.
        ruled: the rules under which it was worked last: their hash, and which generation they are.
        is_new: its profiles from ``place`` on may not have met them.
        written: how many writes it has seen.
        lives: its latest ownerships, as ``ShardState.lives``; the last is ours.
        rulebook: the rules, knowing these facts.
    """

    number: int
    token: bytes
    next: list[int]
    clock_ms: int
    ordinals: int
    taken: dict[tuple[int, str], tuple[int, int]]
    tombs: int = 0
    trim: int = 0
    idle: bool = True
    known: tuple[Met, ...] = ()
    place: int = -1
    ruled: tuple[str, int] = ("", 0)
    is_new: bool = False
    written: int = 0
    lives: tuple[tuple[bytes, int], ...] = ()
    rulebook: Rulebook | None = None

    @classmethod
    def of(cls, number: int, state: ShardState) -> Shard:
        """From what is stored."""
        cursor = [state.cursor.get(topic, 0) for topic in INPUT_TOPICS]
        shard = cls(number, state.token, cursor, state.clock_ms, state.ordinals, dict(state.taken), state.tombs)
        rules, number, shard.is_new, shard.place, shard.known = read_told(state.generation)
        shard.ruled = rules, number
        shard.written, shard.lives = state.written, state.lives
        return shard

    def go_by(self, rulebook: Rulebook) -> None:
        """Work under these rules from now on; if they are new here, profiles are to meet them.

        A worker of older rules that owns it in between lets nobody meet those; the newer ones are met again when they are back.
        """
        rules, number = self.ruled
        if rules and rules != rulebook.hash:
            self.is_new = rulebook.number > number and self.ordinals > 0
            if self.is_new:
                self.place = 0
        self.ruled = rulebook.hash, rulebook.number

    @property
    def newest(self) -> int:
        """The number of the newest facts that it knows; 0: of none."""
        return self.known[-1].number if self.known else 0

    def said(self) -> Said:
        """What the next write will be."""
        return Said(self.lives[-1][0], self.written + 1)

    def cursor(self) -> dict[str, int]:
        """As the store wants it."""
        return dict(zip(INPUT_TOPICS, self.next, strict=True))


@dataclass(slots=True)
class Draft:
    """A shard's part of a batch, while it is computed.

    Attributes:
        told: what will be its records, each with the place in the batch of what caused it.
    """

    records: list[Record] = field(default_factory=list)
    told: list[tuple[int, Record]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    members: list[tuple[str, int, bool]] = field(default_factory=list)
    taken: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    touched: dict[str, Held] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    receipts: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, bytes] = field(default_factory=dict)
    undo_gone: list[str] = field(default_factory=list)
    undo: dict[str, list[bytes]] = field(default_factory=dict)
    products: dict[str, bytes | None] = field(default_factory=dict)
    interest: list[tuple[str, int, bool]] = field(default_factory=list)
    stands_on: dict[tuple[int, bytes], int] = field(default_factory=dict)

    def tell(self, place: int, record: Record) -> None:
        """Send a record, caused by the input at that place of the batch."""
        self.told.append((place, record))

    def put_in_order(self) -> None:
        """Make what was told the records, in the order of their causes."""
        self.told.sort(key=_cause)
        self.records = [record for _, record in self.told]


def _cause(told: tuple[int, Record]) -> int:
    return told[0]


@dataclass(slots=True)
class Batch:
    """A computed batch on its way out.

    Attributes:
        records: shard -> what to publish, in the outbox's order.
        lows: partition -> the low time that holds once this batch is settled.
        offsets: what Kafka may be told then.
        oldest_ms: when the first of its inputs was received; 0: it has none.
    """

    writes: list[ShardWrite]
    records: dict[int, list[Record]]
    lows: dict[int, int]
    offsets: Mapping[tuple[str, int], int]
    woken: list[str]
    oldest_ms: int = 0


async def read(what: str, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store until it has answered: a read may be repeated at will."""
    tries = 0
    while True:
        try:
            return await ask()
        except OSError as error:
            metrics.STORE_RETRIES.inc()
            log.warning("the store did not tell %s, asking again: %s", what, type(error).__name__)
            await asyncio.sleep(RETRY_WAIT_S[min(tries, len(RETRY_WAIT_S) - 1)])
            tries += 1


async def commit(store: ProfileStore, writes: list[ShardWrite]) -> None:
    """Write until the store has answered.

    Raises:
        FencedOut: a shard has another owner, or the store went back in time: behind our last write, or behind another's of
            which we have heard.
    """
    tries = 0
    started_ns = monotonic_ns()
    while True:
        try:
            refused = await store.commit(writes)
            break
        except OSError as error:
            metrics.STORE_RETRIES.inc()
            log.warning("the store did not answer a write, asking again: %s", type(error).__name__)
            await asyncio.sleep(RETRY_WAIT_S[min(tries, len(RETRY_WAIT_S) - 1)])
            tries += 1
    metrics.COMMIT.observe((monotonic_ns() - started_ns) / 1e9)
    if refused:
        metrics.FENCED.inc(len(refused))
        told = (
            f"shards {refused}"
            if len(refused) <= TOLD_MAX
            else f"shards {refused[:TOLD_MAX]} and {len(refused) - TOLD_MAX} more"
        )
        raise FencedOut(
            f"{told}: our token wanted, and the writes on which this one stands; got another's, or lost some"
        )


_waiting: Final[dict[object, int]] = {}
"""Outboxes that the broker has not taken yet, oldest first, and since when."""


def _oldest_s() -> float:
    # Asked from the metrics' thread while the loop's adds and removes.
    since_ns = next(iter(list(_waiting.values())), None)
    return 0.0 if since_ns is None else (monotonic_ns() - since_ns) / 1e9


metrics.OUTBOX_AGE.set_function(_oldest_s)


async def publish(out: Log, records: list[Record]) -> None:
    """Publish until the broker has acknowledged everything; doubles are allowed, gaps are not."""
    if not records:
        return
    tries = 0
    started_ns = monotonic_ns()
    this = object()
    _waiting[this] = started_ns
    metrics.OUTBOX.inc(len(records))
    try:
        while True:
            try:
                await out.publish(records)
                break
            except OSError as error:
                log.warning("the broker did not take %d records, sending again: %s", len(records), error)
                await asyncio.sleep(RETRY_WAIT_S[min(tries, len(RETRY_WAIT_S) - 1)])
                tries += 1
    finally:  # Also when it is given up: whoever claims the shard next publishes it.
        del _waiting[this]
        metrics.OUTBOX.dec(len(records))
    metrics.PUBLISH.observe((monotonic_ns() - started_ns) / 1e9)


def claim_of(shard: Shard, token: bytes) -> ShardWrite:
    """The first write of an ownership, which bears the name of its token."""
    shard.lives = (*shard.lives, (token, shard.written + 1))[-LIVES_MAX:]
    write = write_of(shard, None, token)
    write.lives = shard.lives
    return write


def write_of(shard: Shard, draft: Draft | None, token: bytes) -> ShardWrite:
    """The write of a shard: moves its cursor and token, and stores what the draft holds."""
    shard.written += 1
    write = ShardWrite(
        shard=shard.number,
        expected=shard.token,
        token=token,
        cursor=shard.cursor(),
        clock_ms=shard.clock_ms,
        generation=told(Standing(*shard.ruled, shard.is_new, shard.place, shard.known)),
        trim=shard.trim,
        written=shard.written,
    )
    shard.token = token
    shard.trim = 0
    shard.idle = False
    if draft is not None:
        write.outbox = [pack_record(record) for record in draft.records]
        write.new_names = draft.names
        write.members = draft.members
        write.taken = draft.taken
        write.forgotten = draft.forgotten
        write.receipts = draft.receipts
        write.refusals = draft.refusals
        write.undo_gone = draft.undo_gone
        write.undo = draft.undo
        write.products = draft.products
        write.interest = draft.interest
        write.stands_on = draft.stands_on
    return write
