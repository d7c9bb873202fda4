"""Facts on their way: scanned by one worker, told to every partition through the log, met by every profile.

The worker that owns partition 0 walks over the whole base, a page at a time, and keeps how far it is in the store, so that
another can go on. What it finds goes to each partition as one record on ``profile_commands``: a shard knows it from its place
in the log on, and says so beside its cursor. A profile meets it when it is next loaded, or when the shard's own walk comes by.
What follows is the same either way, so a replay that finds the record at its place gives the same answers.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from datetime import timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

import msgpack
import orjson

from profiles.codec import decode
from profiles.errors import Refused
from profiles.ids import SHARDS, shard_of
from profiles.moments import instant, local
from profiles.wire import FACTS, PROFILE_COMMANDS, Command, Record, encode_command
from rules.facts import FACTS_KEPT, Facts, Scan, pack_facts, read_facts
from rules.rulebook import Rulebook
from stream import metrics
from stream.ports import ProfileStore

AT_HOUR: Final = 4
"""When in the shop's day the base is looked over."""
PAGE: Final = 200
"""Profiles looked at in one go: some milliseconds, in which nothing else is done."""
PAGE_BYTES: Final = 8_192
"""What a page may write down of how far the scan is, on the average."""
WALK_EVERY_MS: Final = 100
REST: Final = 50
"""So many times that nothing was due, or nobody there, before it is asked again."""
SCAN: Final = "facts:scan"
"""The document that says how far a scan is."""
_DOC: Final = "facts:"


class Met(NamedTuple):
    """A generation of facts as a shard knows it: its number, from which logical time on, which, and whether in history."""

    number: int
    at_ms: int
    digest: str
    backfill: bool


class Standing(NamedTuple):
    """What a shard's cursor record says of its generation.

    Attributes:
        rules, number: the rules under which it was worked last, by their hash, and which generation they are.
        is_new: its profiles from ``place`` on may not have met them.
        place: how far its walk is in letting profiles meet what is new; -1: all have.
        known: the facts that it knows, oldest first.
    """

    rules: str = ""
    number: int = 0
    is_new: bool = False
    place: int = -1
    known: tuple[Met, ...] = ()


@lru_cache(maxsize=4_096)
def told(standing: Standing) -> str:
    """It as text."""
    rules, number, is_new, place, known = standing
    if not number and not known:
        return rules
    return f"{rules} {orjson.dumps([place, number, is_new, *map(list, known)]).decode()}"


def read_told(text: str) -> Standing:
    """It from text; also from that of before rules had numbers."""
    rules, _, rest = text.partition(" ")
    if not rest:
        return Standing(rules)
    place, *more = orjson.loads(rest)
    number, is_new = more[:2] if len(more) > 1 and isinstance(more[0], int) else (0, False)
    return Standing(rules, number, is_new, place, tuple(Met(*one) for one in more if isinstance(one, list)))


def digest_of(body: bytes) -> str:
    """What a generation of facts is known by."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def doc_of(digest: str) -> str:
    """The document that keeps it."""
    return _DOC + digest


def key_in(kind: str, partition: int, partitions: int) -> str:
    """A key of that partition for what is told to nobody in it."""
    return next(key for key in map(f"{kind}:{{}}".format, itertools.count()) if shard_of(key) % partitions == partition)


class Books:
    """The rules in force, with each set of facts that shards know."""

    def __init__(self, rulebook: Rulebook) -> None:
        self._plain = rulebook
        self._facts: dict[str, Facts] = {}
        self._made: dict[tuple[str, ...], Rulebook] = {(): rulebook}

    def under(self, rulebook: Rulebook) -> Books:
        """Other rules, with the facts that are at hand."""
        books = Books(rulebook)
        books._facts = dict(self._facts)
        return books

    def has(self, digest: str) -> bool:
        """Whether these facts are at hand."""
        return digest in self._facts

    def learn(self, body: bytes) -> tuple[str, Facts]:
        """Take in a generation of facts."""
        digest = digest_of(body)
        if digest not in self._facts:
            if len(self._facts) > 4 * FACTS_KEPT:  # The oldest is known to no shard any more.
                del self._facts[next(iter(self._facts))]
                self._made = {(): self._plain}
            self._facts[digest] = read_facts(msgpack.unpackb(body))
        return digest, self._facts[digest]

    def knowing(self, known: tuple[Met, ...]) -> Rulebook:
        """The rules as a shard that knows these goes by them; all must be at hand."""
        digests = tuple(one.digest for one in known)
        book = self._made.get(digests)
        if book is None:
            book = self._made[digests] = self._plain.with_facts(tuple(self._facts[one] for one in digests))
        return book

    async def fetch(self, store: ProfileStore, digest: str) -> None:
        """Bring these facts from the store.

        Raises:
            Refused: it has none of that name.
        """
        if digest not in self._facts:
            body = await store.get_doc(doc_of(digest))
            if body is None:
                raise Refused(f"store: facts {digest} wanted, which a shard goes by, got none")
            self.learn(body)


class Scanner:
    """Walks over the base for the worker that owns partition 0."""

    def __init__(self, store: ProfileStore, rulebook: Rulebook, partitions: int, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._rulebook = rulebook
        self._partitions = partitions
        self._now_ms = now_ms
        self._under_way: Scan | None = None
        self._at = (0, 0)  # shard, ordinal
        self._sizes: list[int] = []  # profiles of each shard, as it began or was taken up
        self._unsaved = self._state_bytes = 0
        self._rest = 0
        self._after = 0  # the number of the facts in force when it began

    def drop(self) -> None:
        """Somebody else goes on with it now, perhaps."""
        self._under_way = None

    async def go_on(self, newest: Facts | None) -> Facts | None:
        """Look at a page more, if it is time to.

        Args:
            newest: the facts in force.
        Returns:
            The next generation, when the whole base has been looked at. It must be published.
        """
        if self._rest:
            self._rest -= 1
            return None
        if self._under_way is None and not await self._take_up(newest, self._now_ms()):
            return None
        scan = self._under_way
        assert scan is not None
        (shard, first), left = self._at, PAGE
        names: list[str] = []
        while shard < SHARDS and left > 0:
            some = min(left, self._sizes[shard] - first)
            if some > 0:
                names += await self._store.named(shard, first, some)
                first, left = first + some, left - some
            if first >= self._sizes[shard]:
                shard, first = shard + 1, 0
        self._at = (shard, first)
        for name, blob in zip(names, await self._store.load(names), strict=True):
            if blob is not None:
                profile = decode(name, blob)
                profile.facts = newest
                scan.look(profile)
        if shard < SHARDS:
            metrics.SCANNED.labels("facts").set((sum(self._sizes[:shard]) + first) / max(1, sum(self._sizes)))
            await self._save(scan)
            return None
        self._under_way = None
        metrics.SCANNED.labels("facts").set(1)
        if not scan.profiles:
            self._rest = REST
            return None
        return scan.found(newest.number + 1 if newest is not None else 1)

    async def _save(self, scan: Scan) -> None:
        """Write down how far it is: a large state once in so many pages, so that writing it costs a page no more than a small one."""
        self._unsaved += PAGE_BYTES
        if self._unsaved >= self._state_bytes:
            state = self._state(scan)
            await self._store.put_doc(SCAN, state)
            self._unsaved, self._state_bytes = 0, len(state)

    async def _take_up(self, newest: Facts | None, now_ms: int) -> bool:
        """Begin, or go on where another stopped; whether there is anything to do."""
        if not is_due(newest, self._rulebook, now_ms):
            self._rest = REST
            return False
        self._unsaved = self._state_bytes = 0
        kept = await self._store.get_doc(SCAN)
        begun = msgpack.unpackb(kept, strict_map_key=False) if kept else None
        if begun is not None and begun["wanted"] == self._marks() and begun["after"] == _number(newest):
            self._sizes = await self._all_sizes()
            self._under_way = Scan.unpacked(self._rulebook.wanted, begun["scan"])
            self._at, self._after = (begun["shard"], begun["first"]), begun["after"]
            return True
        self._sizes = await self._all_sizes()
        self._under_way, self._at, self._after = Scan(self._rulebook.wanted, now_ms), (0, 0), _number(newest)
        return True

    async def _all_sizes(self) -> list[int]:
        return [state.ordinals for state in await self._store.read_shards(range(SHARDS))]

    def _state(self, scan: Scan) -> bytes:
        state = {
            "wanted": self._marks(),
            "after": self._after,
            "shard": self._at[0],
            "first": self._at[1],
            "scan": scan.packed(),
        }
        packed: bytes = msgpack.packb(state)
        return packed

    def _marks(self) -> list[list[str]]:
        return [[fact.name, *map(str, fact.shares)] for fact in self._rulebook.wanted]

    def records(self, facts: Facts, now_ms: int) -> tuple[bytes, list[Record]]:
        """What tells every partition: the facts as bytes, and the records."""
        body: bytes = msgpack.packb(pack_facts(facts))
        digest = digest_of(body)
        found = []
        for partition in range(self._partitions):
            key = key_in(FACTS, partition, self._partitions)
            other = f"{partition}/{self._partitions}"
            command = Command(FACTS, key, other, (facts.number, digest), body, now_ms)
            found.append(Record(PROFILE_COMMANDS, key, encode_command(command)))
        return body, found


def is_due(newest: Facts | None, rulebook: Rulebook, now_ms: int) -> bool:
    """Whether the base is to be looked at anew: rules ask what was not asked before, or a day has begun since."""
    if newest is None or any(fact.name not in newest.values for fact in rulebook.wanted):
        return True
    return now_ms >= next_ms(newest.as_of_ms, rulebook.zone)


def next_ms(as_of_ms: int, zone: tzinfo) -> int:
    """The first 04:00 of the shop after that instant."""
    at = local(as_of_ms, zone).replace(hour=AT_HOUR, minute=0, second=0, microsecond=0)
    return instant(at) if instant(at) > as_of_ms else instant(at + timedelta(days=1))


def _number(newest: Facts | None) -> int:
    return newest.number if newest is not None else 0
