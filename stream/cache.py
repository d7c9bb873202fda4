"""The worker's profiles, unpacked: least recently used, in two generations.

A look-up costs one dict access; when a generation is full the older one goes at once. The cache is valid iff the
shard's token is ours (R4), so it is dropped with the shard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from profiles.state import Profile


@dataclass(slots=True, eq=False)
class Held:
    """A profile in a worker's hands.

    Attributes:
        blob: as last written, to go back to when an input fails half way; empty for one never stored.
        alarm_ms: as last written.
        batch: number of the last batch that touched it.
        sealed: within a batch, the bytes that will be written unless another input changes the profile; else empty.
        sealed_alarm_ms: its alarm as sealed.
        ruled: the number of the rules that it is known to have met.
    """

    profile: Profile
    shard: int
    blob: bytes
    alarm_ms: int | None
    batch: int = 0
    sealed: bytes = b""
    sealed_alarm_ms: int | None = None
    ruled: int = 0


class Cache:
    """Address -> ``Held``."""

    def __init__(self, profiles_max: int) -> None:
        self._half = max(1, profiles_max // 2)
        self._new: dict[str, Held] = {}
        self._old: dict[str, Held] = {}

    def get(self, address: str) -> Held | None:
        """The profile at hand, or ``None``."""
        held = self._new.get(address)
        if held is None:
            held = self._old.pop(address, None)
            if held is not None:
                self._new[address] = held
        return held

    def put(self, address: str, held: Held) -> None:
        """Take one in."""
        if len(self._new) >= self._half:
            self._old = self._new
            self._new = {}
        self._new[address] = held

    def drop_shards(self, shards: Iterable[int]) -> None:
        """Let go of all profiles of these shards."""
        gone = frozenset(shards)
        self._new = {address: held for address, held in self._new.items() if held.shard not in gone}
        self._old = {address: held for address, held in self._old.items() if held.shard not in gone}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)
