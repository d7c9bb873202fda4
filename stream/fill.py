"""Statistics of new rules, computed back from the log beside live traffic, state-only.

    filling = Filling(rulebook)
    filling.take(history.read())
    while (found := await filling.look(store, publish, now_ms)).sent: filling.take(history.read_on(…))

The whole log runs through ``step`` here, under the rules in force, and nothing goes out. Then profiles are compared with those in the store. One
that has the same input behind it, and other statistics, is sent a command with ours; it takes them if it is still at that input,
for then both stand on the same history. Whoever did something meanwhile is met on the next round. Nothing is ever merged, so to send again, or to
begin again, does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

import msgpack

from profiles.codec import decode
from profiles.errors import BadInput
from profiles.ids import SHARDS
from profiles.state import Profile
from profiles.wire import PROFILE_COMMANDS, Record, encode_command
from rules.engine import Stuck, filled, is_level
from rules.rulebook import Rulebook
from stream.ports import ProfileStore
from stream.rebuild import Silent
from stream.replay import Given, Replay

PAGE: Final = 200
"""Profiles looked at, and perhaps told, in one go; ten times a second."""
REST_S: Final = 0.1


class Found(NamedTuple):
    """What a look at the base found.

    Attributes:
        profiles: people that there are.
        sent: those who were sent their statistics.
        behind: of the others those who have another input behind them than we: they have done something since, or the log has
            forgotten it.
    """

    profiles: int
    sent: int
    behind: int


class Filling:
    """The log as far as it was read, and who is to have what of it."""

    def __init__(self, rulebook: Rulebook) -> None:
        """Nothing read yet; ``rulebook.lacking`` says what is to be filled."""
        self.rulebook = rulebook
        self._run = Replay(rulebook, Silent())
        self._done: set[str] = set()  # Whatever they do from now on, they count it themselves.
        self._wanted = [one.id for one in rulebook.aggregates if one.key in rulebook.lacking]

    @property
    def now_ms(self) -> int:
        """The greatest logical time read."""
        return self._run.now_ms

    def take(self, inputs: Iterable[Given], tell: Callable[[int], None] | None = None) -> int:
        """Read on; how many inputs that were. ``tell`` is called with the number so far, every thousandth."""
        number = 0
        for number, given in enumerate(inputs, start=1):
            if tell is not None and not number % 1_000:
                tell(number)
            with suppress(BadInput, Stuck):  # What a worker sets aside; of its profile no more is known here.
                self._run.take(given)
        return number

    async def look(
        self,
        store: ProfileStore,
        publish: Callable[[list[Record]], Awaitable[None]],
        until_ms: int,
        rest_s: float = REST_S,
    ) -> Found:
        """Compare everybody with the store, a page at a time, and send what is lacking.

        Args:
            until_ms: alarms due before this have fired there.
            rest_s: between two pages.
        """
        self._run.until(until_ms)
        profiles = sent = behind = looked_at = 0
        for number, state in enumerate(await store.read_shards(range(SHARDS))):
            for first in range(0, state.ordinals, PAGE):
                names = await store.named(number, first, PAGE)
                records = []
                for name, blob in zip(names, await store.load(names), strict=True):
                    theirs = decode(name, blob) if blob is not None else None
                    if theirs is None or theirs.forward or not theirs.first_seen_ms:
                        continue
                    profiles += 1
                    if name in self._done:
                        continue
                    ours = self._run.profiles.get(name)
                    if ours is None or not is_level(ours, theirs):
                        behind += 1
                    elif self._of(ours) != self._of(theirs):
                        command = filled(ours, self._wanted, until_ms)
                        records.append(Record(PROFILE_COMMANDS, name, encode_command(command)))
                    else:
                        self._done.add(name)
                await publish(records)
                sent += len(records)
                looked_at += len(names)
                if looked_at >= PAGE:
                    looked_at = 0
                    await asyncio.sleep(rest_s)
        return Found(profiles, sent, behind)

    def _of(self, profile: Profile) -> bytes:
        packed: bytes = msgpack.packb([profile.aggs.get(one) for one in self._wanted])
        return packed
