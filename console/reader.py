"""What the API reads from: the store, the rules in force, the decisions kept, and a clock.

What is shown of a profile is true *now*: the store's bytes are taken to the present by ``rules.explain``, so an alarm that is
due and not handled yet shows already. What is shown of many (sizes, members) is what the workers have recorded. Rules are those
that the workers announced in the store; before any did, it says 503.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from console import metrics
from console.addresses import read_address
from console.answers import Asked
from console.decisions import DecisionReader, DecisionWindow
from console.reports import Reports
from profiles.codec import decode
from profiles.ids import STRENGTH
from profiles.moments import DAY_MS, Clock, iso, parse_instant
from profiles.state import Profile
from rules import explain
from rules.rulebook import CompiledSegment, Rulebook
from rules.slips import did_you_mean
from stream.facts import Books, Met, read_told
from stream.ports import ProfileStore
from stream.rulebook import IN_FORCE, read_generation

AHEAD_MS_MAX: Final = 5 * 365 * DAY_MS
"""How far ahead of now a profile may be asked about: each midnight on the way may have to be looked at."""


class Generation:
    """The rules in force, as the workers announced them."""

    def __init__(self, rulebook: Rulebook, files: list[tuple[str, str]]) -> None:
        self.rulebook = rulebook
        self.files = files
        self.segments = {segment.name: segment for segment in rulebook.segments}


class Reader:
    """What the API reads from: the store, the rules in force, the decisions kept, and a clock.

    Args:
        time: what "now" is: the store's clock, or the log's.
        secret: the installation secret.
        sizes_ms: how old a count of members may be.
        reports: tells what came of triggers; none: nobody does.
    """

    def __init__(
        self,
        store: ProfileStore,
        time: Clock,
        secret: bytes,
        window: DecisionWindow,
        decisions: DecisionReader | None = None,
        sizes_ms: int = 0,
        reports: Reports | None = None,
    ) -> None:
        self.store = store
        self.time = time
        self.secret = secret
        self.window = window
        self.decisions = decisions
        self.reports = reports
        self._sizes_ms = sizes_ms
        self._announced: bytes | None = None
        self._known: tuple[Met, ...] = ()
        self._generation: Generation | None = None
        self._sizes: tuple[float, str, dict[str, int]] = (0.0, "", {})

    async def generation(self) -> Generation:
        """The rules in force, compiled once for each generation.

        Raises:
            Asked: 503, none was announced yet.
        """
        announced = await self.store.get_doc(IN_FORCE)
        if announced is None:
            raise Asked(503, "no_rules", "rules: a generation that a worker announced wanted, got none yet")
        (first,) = await self.store.read_shards([0])
        if self._generation is None or announced != self._announced:
            self._generation = Generation(*read_generation(announced)[1:])
            self._announced, self._books, self._known = announced, Books(self._generation.rulebook), ()
        known = read_told(first.generation).known
        if known != self._known:
            for met in known:
                await self._books.fetch(self.store, met.digest)
            self._generation = Generation(self._books.knowing(known), self._generation.files)
            self._known = known
        return self._generation

    async def sizes(self, generation: Generation) -> dict[str, int]:
        """Members by segment, at most ``sizes_ms`` old."""
        now_s = asyncio.get_running_loop().time()
        counted_s, by_rules, sizes = self._sizes
        if by_rules != generation.rulebook.hash or (now_s - counted_s) * 1000 >= self._sizes_ms:
            sizes = await self.store.segment_sizes(list(generation.segments))
            self._sizes = (now_s, generation.rulebook.hash, sizes)
            for name in sorted(sizes)[: metrics.SEGMENTS_LABELLED_MAX]:
                metrics.MEMBERS.labels(name).set(sizes[name])
        return sizes

    async def profile(self, text: str) -> tuple[Profile, dict[str, Any]]:
        """The profile that an address leads to, and how: ``address``, ``asked``, ``via``.

        Raises:
            Asked: 400 for what is no address, 404 where there is nobody.
        """
        asked = self.address(text)
        via: list[str] = []
        address = asked
        # A forwarder points to a stronger kind only, so no walk is longer than there are kinds.
        while len(via) <= len(STRENGTH):
            (blob,) = await self.store.load([address])
            if blob is None:
                break
            profile = decode(address, blob)
            if not profile.forward:
                return profile, {"address": address, "asked": asked, "via": via}
            via.append(address)
            address = profile.forward
        found = f"a forwarder to {address.partition(':')[0]}:…, which holds none yet" if via else "nothing"
        raise Asked(404, "unknown_profile", f"address: one that holds a profile wanted, got {found}")

    def address(self, text: str) -> str:
        """An address as the store knows it.

        Raises:
            Asked: 400, it is none.
        """
        try:
            return read_address(text, self.secret)
        except ValueError as error:
            raise Asked(400, "bad_address", str(error)) from None

    def instant(self, at: str | None, profile: Profile) -> int:
        """The instant that a profile is asked about: now, or ``at``.

        Raises:
            Asked: 400, ``at`` is none that can be told about.
        """
        now_ms = self.time.now_ms()
        if at is None:
            return now_ms
        from_ms, until_ms = explain.last_input_ms(profile), now_ms + AHEAD_MS_MAX
        try:
            at_ms = parse_instant(at)
        except (ValueError, OverflowError):
            raise Asked(
                400, "bad_at", "at: an ISO 8601 time like 2026-11-22T15:04:05Z wanted, got other text"
            ) from None
        if not from_ms <= at_ms <= until_ms:
            wanted = f"from {iso(from_ms)}, the profile's last input, to {iso(until_ms)}"
            raise Asked(400, "bad_at", f"at: an instant {wanted} wanted, got another")
        return at_ms

    def window_told(self) -> dict[str, Any]:
        """Which decisions are kept."""
        return {
            "kept": len(self.window),
            "kept_max": self.window.kept_max,
            "since": self.window.since(),
            "reading": self.decisions is not None and self.decisions.reading,
        }


def known_segment(name: str, generation: Generation) -> CompiledSegment:
    """The segment of that name.

    Raises:
        Asked: 404, the rules have none.
    """
    found = generation.segments.get(name)
    if found is None:
        stages = sorted(one for one in generation.segments if one.startswith(f"{name}."))
        hint = f"; its stages are {', '.join(stages)}" if stages else did_you_mean(name, generation.segments)
        raise Asked(404, "unknown_segment", f"segment: one of the rules' wanted, got {short(name)}{hint}")
    return found


def short(name: str) -> str:
    """A name for a message: only if it might be one of ours, for anything else may be about a person."""
    return repr(name) if len(name) <= 64 and name.replace(".", "_").isidentifier() else "other text"
