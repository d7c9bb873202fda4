"""How far alarms may fire: as far as all partitions are; one that has been silent for a minute is left out (R16)."""

from __future__ import annotations

import pytest

from profiles.moments import FOREVER
from stream import metrics
from stream.alarms import GRACE_MS, MARKS_EVERY_MS, SILENT_MS, Gate
from stream.clock import LogClock, StoreClock
from stream.group import Group
from stream.store_memory import MemoryStore

NOW_MS = 1_000_000


class Two:
    """A worker that has the first of two partitions, and another one that may speak of the second."""

    def __init__(self) -> None:
        self.time = LogClock(NOW_MS)
        self.store = MemoryStore(self.time)
        self.ours = Group(0, 2, caught_up=True)
        self._asks = 0
        self._gate = Gate(self.store, 2, LogClock(NOW_MS), lambda: self._asks * MARKS_EVERY_MS)

    async def gates_ms(self, low_ms: int) -> list[int]:
        """Ask, being so far ourselves; all gates that were told so far."""
        self.ours.low_ms = low_ms
        self._asks += 1
        await self._gate.ask({0: self.ours})
        return [gate_ms for _, gate_ms in self.ours.waiting_gates]


def left_out() -> float:
    return float(metrics.GATE_BLIND._value.get())


@pytest.mark.invariant("R16")
async def test_alarms_wait_for_a_partition_until_it_was_silent_for_a_minute_and_that_is_counted() -> None:
    two, before = Two(), left_out()
    assert await two.gates_ms(40_000) == []  # Nobody has ever spoken of the other one.
    two.time.advance(NOW_MS + 10 * SILENT_MS)
    assert await two.gates_ms(40_000) == []
    await two.store.put_marks({1: 50_000})
    assert await two.gates_ms(90_000) == [50_000]
    two.time.advance(NOW_MS + 11 * SILENT_MS)
    assert await two.gates_ms(91_000) == [50_000]
    assert left_out() == before
    two.time.advance(NOW_MS + 11 * SILENT_MS + 1)
    assert await two.gates_ms(92_000) == [50_000, 92_000]
    assert left_out() == before + 1
    # It speaks again, and is waited for again; what was let through stays so.
    await two.store.put_marks({1: 60_000})
    assert await two.gates_ms(99_000) == [50_000, 92_000]
    await two.store.put_marks({1: 95_000})
    assert await two.gates_ms(99_000) == [50_000, 92_000, 95_000]
    assert left_out() == before + 1


@pytest.mark.invariant("R16")
@pytest.mark.invariant("R18")
async def test_with_an_input_timers_fire_as_far_as_every_partition_was_read_and_none_while_the_clock_has_stepped() -> (
    None
):
    time = LogClock(NOW_MS)
    ahead_ms = 0

    async def told_ms() -> int:
        return time.now_ms() + ahead_ms

    clock = StoreClock(told_ms, time.now_ms)
    await clock.learn()
    gate = Gate(MemoryStore(time), 2, clock, time.now_ms)
    groups = {partition: Group(partition, 2, caught_up=True) for partition in (0, 1)}

    def read(partition: int, answered_ms: int) -> None:
        for lane in groups[partition].lanes:
            lane.end, lane.answered_ms = lane.position, answered_ms

    read(0, NOW_MS)
    read(1, NOW_MS)
    assert gate.reached_ms(groups) == NOW_MS - GRACE_MS
    time.advance(NOW_MS + 9_000)
    read(0, NOW_MS + 9_000)
    assert gate.reached_ms(groups) == NOW_MS
    read(1, NOW_MS + 8_000)
    assert gate.reached_ms(groups) == NOW_MS + 9_000 - GRACE_MS
    ahead_ms = 60_000
    assert await clock.learn()
    assert gate.reached_ms(groups) == 0
    assert Gate(MemoryStore(time), 2, LogClock(NOW_MS), time.now_ms).reached_ms(groups) == FOREVER
