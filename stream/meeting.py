"""One batch being computed: how shards and profiles meet new rules, and new facts of the base."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from profiles.wire import (
    Command,
)
from rules.changes import Kept
from rules.engine import ruled, swept
from rules.facts import FACTS_KEPT
from rules.outcome import DUPLICATE
from stream.cache import Held
from stream.effects import Shard
from stream.facts import Met
from stream.group import Group, Input
from stream.stepping import Stepping

log = logging.getLogger(__name__)


class Meeting(Stepping):
    """A batch, in which what is new is met."""

    def _learn(self, group: Group, one: Input, given: Command) -> None:
        """Every shard of the partition knows new facts from here on, each as of its own clock."""
        digest, facts = self.books.learn(given.body)
        for number in group.shards:
            shard = self.shards[number]
            if one.offset < shard.next[one.topic] or facts.number <= shard.newest:
                continue
            shard.clock_ms = max(shard.clock_ms, one.at_ms)
            met = Met(facts.number, shard.clock_ms, digest, self.clock_ms == 0 and group.backfill)
            shard.known = (*shard.known, met)[-FACTS_KEPT:]
            shard.rulebook = self.books.knowing(shard.known)
            shard.place = 0
            self.owned.walking.add(number)
            self._draft(number)

    def _meet(self, held: Held, shard: Shard, gate_ms: int, now_ms: int) -> None:
        """Let a profile meet what is new since it was last here: rules, as of now; facts, each at its instant."""
        number = self.rulebook.number
        if shard.is_new and held.ruled < number:
            held.ruled = number
            if 0 <= shard.place <= held.profile.ordinal:
                is_history = self.clock_ms == 0 and self.owned.groups[shard.number % self.owned.partitions].backfill
                given = ruled(held.profile.address, self.rulebook, now_ms, backfill=is_history)
                self._let_meet(held, shard, gate_ms, given)
        if held.profile.swept >= shard.newest or not held.profile.first_seen_ms:
            return
        for met in shard.known:
            if met.number > held.profile.swept:
                given = swept(held.profile.address, met.number, met.at_ms, backfill=met.backfill)
                if not self._let_meet(held, shard, gate_ms, given):
                    held.profile.swept = met.number  # He stays where he was until something that is read changes.

    def _let_meet(self, held: Held, shard: Shard, gate_ms: int, given: Command) -> bool:
        """Whether he could meet it."""
        without: tuple[Kept, ...] = ()
        try:
            out = self._step(held, given, gate_ms)
        except Exception as error:
            found = self._again(held, given, gate_ms, error)
            if isinstance(found, Exception):
                self._restore(held)
                log.error(
                    "%s: cannot be met by a profile of shard %d: %s", given.kind, shard.number, type(found).__name__
                )
                self.bugs.count()
                return False
            out, without = found
        if out.outcome != DUPLICATE:
            self.done.append((given.address, given, gate_ms, without))
            self._collect(held, out)
        return True

    def walk(self, group: Group, number: int, names: Sequence[str], following: int) -> None:
        """Let these profiles of a shard meet what is new; its walk goes on at ``following``."""
        shard = self.shards[number]
        now_ms = max(shard.clock_ms, group.gate_ms - 1)
        for name in names:
            held = self.hands.get(name)
            if held is not None:
                self._meet(held, shard, group.gate_ms, now_ms)
        shard.place = following if following < shard.ordinals else -1
        if shard.place < 0:
            shard.is_new = False
            self.owned.walking.discard(number)
        self._draft(number)
