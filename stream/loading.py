"""What a batch needs of the store before it is computed: the profiles that its inputs are about, those that news may interest,
and the next ones of a walk over the base. Nothing is written here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final, NamedTuple

from profiles.catalogue import PRODUCT
from profiles.codec import decode
from profiles.ids import shard_of
from profiles.state import Profile
from profiles.wire import FACTS, MARK, NEWS, Command, Event
from stream import effects, metrics
from stream.cache import Cache, Held
from stream.clock import thread_cpu_ns
from stream.computing import CATALOG_TOPIC
from stream.facts import PAGE, WALK_EVERY_MS, Books, digest_of, doc_of
from stream.group import Group, Input
from stream.owned import Owned
from stream.ports import ProfileStore
from stream.stepping import Page

log = logging.getLogger(__name__)

_LOAD = metrics.STAGE.labels("load")
_HIT, _MISS = metrics.CACHE.labels("hit"), metrics.CACHE.labels("miss")

NEWS_PAGE: Final = 500
"""As soon as news is told to so many, the rest follows in the log."""
_NOBODYS: Final = (MARK, NEWS)
"""Commands to a partition."""


def _ordinal(profile: Profile) -> int:
    return profile.ordinal


class Piece(NamedTuple):
    """A piece of a walk: a shard, the next of its profiles, and where its walk goes on."""

    shard: int
    names: list[str]
    following: int


class Loading:
    """Reads for one worker's batches.

    Args:
        owned: what is ours; what was read goes into its cache.
        wall_ms: the process's own clock.
        buggify: see ``Handlers``.
    """

    def __init__(
        self, store: ProfileStore, owned: Owned, wall_ms: Callable[[], int], buggify: Callable[[str], bool]
    ) -> None:
        self._store = store
        self._owned = owned
        self._wall_ms = wall_ms
        self._buggify = buggify
        self._walked_ms = 0

    async def interested(self, inputs: list[tuple[Group, Input]]) -> dict[tuple[str, int], Page]:
        """Whom these news may interest: (address, offset) of the command -> some of them, shard by shard, and where the
        others begin."""
        found: dict[tuple[str, int], Page] = {}
        for group, one in inputs:
            command = one.given
            assert isinstance(command, Command)
            names: list[str] = []
            shards = [number for number in group.shards if number >= command.link[0]]
            following = -1
            for number in shards:
                if len(names) >= NEWS_PAGE:
                    following = number
                    break
                ask = partial(self._store.interested, number, command.other)
                names += await effects.read("whom it may interest", ask)
            found[command.address, one.offset] = names, following
        return found

    async def next_page(self) -> Sequence[Piece]:
        """The next profiles that are to meet new rules or facts; now and then, for live traffic goes first."""
        if self._wall_ms() - self._walked_ms < WALK_EVERY_MS:
            return ()
        self._walked_ms = self._wall_ms()
        left = PAGE
        found: list[Piece] = []
        try:
            for number in sorted(self._owned.walking):
                shard = self._owned.shards[number]
                if shard.is_new and not self._owned.groups[number % self._owned.partitions].is_present():
                    continue
                some = max(0, min(left, shard.ordinals - shard.place))
                flying = self._flying(number, shard.place, some)  # Asked first: what lands meanwhile, the store names.
                names = await self._store.named(number, shard.place, some) if some else []
                found.append(Piece(number, list(dict.fromkeys([*names, *flying])), shard.place + some))
                left -= some
                if not left:
                    break
        except OSError as error:
            log.warning("the store did not name profiles, asking again: %s", type(error).__name__)
        return found

    def _flying(self, number: int, first: int, some: int) -> list[str]:
        """Those of a piece whose write is under way, by ordinal: the store may not know of a newcomer yet."""
        there = (one.profile for one in self._owned.flying.values() if one.shard == number)
        return [one.address for one in sorted(there, key=_ordinal) if first <= one.ordinal < first + some]

    async def profiles(
        self,
        books: Books,
        inputs: list[tuple[Group, Input]],
        wakes: list[tuple[Group, str, int]],
        also: Collection[str],
    ) -> tuple[dict[str, int], dict[str, Held]]:
        """Bring what the batch needs.

        Returns:
            Address -> place of its last input in the batch, a wake coming after all; -1 if it has none. And all of them
            that are ours, with those they forward to.
        """
        started_ns = thread_cpu_ns()
        if self._buggify("an empty cache"):
            self._owned.cache = Cache(self._owned.profiles_max)
        last: dict[str, int] = {}
        for place, (_, one) in enumerate(inputs):
            given = one.given
            if type(given) is Event:
                if one.topic == CATALOG_TOPIC and given.address.startswith(PRODUCT):
                    continue
                last[given.address] = place
                for address in given.identifiers:
                    last.setdefault(address, -1)
            elif type(given) is Command and given.kind == FACTS:
                if not books.has(given.link[1]):
                    # A store that went back may have lost what its shards are about to name again.
                    keep = partial(self._store.put_doc, doc_of(digest_of(given.body)), given.body)
                    await effects.read("that it keeps facts", keep)
            elif type(given) is Command and given.kind not in _NOBODYS and not given.address.startswith(PRODUCT):
                last[given.address] = place
        for address in also:
            last.setdefault(address, -1)
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
            wanted = [address for address in targets if address not in hands and self._owned.is_ours(address)]
        return last, hands

    async def _bring(self, wanted: Collection[str]) -> dict[str, Held]:
        """Those of these addresses that are ours, from the cache, the flight or the store."""
        started_ns = thread_cpu_ns()
        get = self._owned.cache.get
        found: dict[str, Held] = {}
        missing: list[str] = []
        for address in wanted:
            held = get(address)
            if held is not None:
                found[address] = held
            elif self._owned.is_ours(address):
                missing.append(address)
        _HIT.inc(len(wanted) - len(missing))
        _MISS.inc(len(missing))
        missing.sort()
        absent: list[str] = []
        for address in missing:
            # One that left the cache while its write is under way is newer here than in the store.
            held = self._owned.flying.get(address)
            if held is None:
                absent.append(address)
            else:
                found[address] = held
                self._owned.cache.put(address, held)
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
            self._owned.cache.put(address, held)
        _LOAD.inc((thread_cpu_ns() - started_ns) / 1e9)
        return found

    async def _tombs(self, absent: list[str]) -> dict[str, bytes]:
        """The tombstones of those at whose addresses somebody was erased."""
        places = [(one, shard_of(one)) for one in absent]
        places = [(one, number) for one, number in places if self._owned.shards[number].tombs]
        if not places:
            return {}
        wanted = [(number, self._owned.tomb_key(one)) for one, number in places]
        found = await effects.read("tombstones", lambda: self._store.tombs(wanted))
        return {one: tomb for (one, _), tomb in zip(places, found, strict=True) if tomb is not None}
