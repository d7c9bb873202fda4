"""The gate before alarms (RELIABILITY R16): a timer fires only when nothing that happened before it can still come.

A timer due at d may fire when (a) the shard clock is 2 s past d; (b) its own partition has nothing unread up to d;
(c) every partition of the group has applied its inputs, and published their commands, to beyond d; and (d) after
that, ``profile_commands`` was read to its end. Partitions tell one another their low times through the store, twice
a second; those of our own process are at hand. On the log's clock "now" is the greatest logical time read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from profiles.moments import FOREVER
from stream import metrics
from stream.clock import LogClock, StoreClock
from stream.group import Group
from stream.ports import ProfileStore

log = logging.getLogger(__name__)

GRACE_MS: Final = 2_000
MARKS_EVERY_MS: Final = 500
SILENT_MS: Final = 60_000


class Gate:
    """Says how far timers may fire."""

    def __init__(
        self, store: ProfileStore, partitions: int, clock: StoreClock | LogClock, wall_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._partitions = partitions
        self._clock = clock
        self._wall_ms = wall_ms
        self._marked_ms = -MARKS_EVERY_MS
        self._others: dict[int, tuple[int, int]] = {}
        self._told_ms = 0
        self._known = False

    def forget(self, partition: int) -> None:
        """A partition is no longer ours: wait for what its new owner says."""
        self._others.pop(partition, None)
        self._known = False
        self._marked_ms = -MARKS_EVERY_MS

    def unread_from(self, group: Group) -> int:
        """The logical time before which the group has nothing unread."""
        if isinstance(self._clock, LogClock):
            return group.unread_from(self._clock.now_ms(), 0)
        return group.unread_from(-1, self._clock.now_ms() - self._wall_ms())

    def reached_ms(self, groups: Mapping[int, Group]) -> int:
        """How far timers may fire together with an input where all partitions are ours and abreast: no gate need be asked for
        before the input's own time, as far as nothing earlier is unread."""
        if isinstance(self._clock, LogClock):
            return FOREVER  # All there is lies on the log already.
        if self._clock.step_ms:
            return 0
        return min(self._clock.now_ms() - GRACE_MS, min(map(self.unread_from, groups.values()), default=0))

    async def ask(self, groups: Mapping[int, Group]) -> None:
        """Work out the gate as of now; a group's opens when it has read its commands once more."""
        asked_ms = self._wall_ms()
        if not groups:
            return
        if asked_ms - self._marked_ms >= MARKS_EVERY_MS:
            try:
                await self._store.put_marks({partition: group.low_ms for partition, group in groups.items()})
                self._others = await self._store.marks()
                self._told_ms = await self._store.now_ms() if len(groups) < self._partitions else 0
            except OSError:
                log.warning("the store did not pass on low times; alarms wait")
                return
            self._marked_ms = asked_ms
            self._known = True
        if not self._known or not groups:
            return  # Released while the store was asked.
        gate_ms = min(group.low_ms for group in groups.values())
        for partition in range(self._partitions):
            if partition not in groups:
                gate_ms = min(gate_ms, self._other(partition))
        if isinstance(self._clock, StoreClock):
            if self._clock.step_ms:
                return  # The clock stepped: nothing fires until somebody has looked (R18).
            gate_ms = min(gate_ms, self._clock.now_ms() - GRACE_MS)
        else:
            greatest_ms = max((low_ms for low_ms, _ in self._others.values()), default=0)
            self._clock.advance(greatest_ms)
        for group in groups.values():
            last = group.waiting_gates[-1][1] if group.waiting_gates else group.gate_ms
            if gate_ms > last:
                group.waiting_gates.append((asked_ms, gate_ms))

    def _other(self, partition: int) -> int:
        mark = self._others.get(partition)
        if mark is None:
            return 0  # Nobody has ever owned it, or not yet: nothing may fire.
        low_ms, put_ms = mark
        if self._told_ms - put_ms > SILENT_MS:
            metrics.GATE_BLIND.inc()
            return FOREVER
        return low_ms
