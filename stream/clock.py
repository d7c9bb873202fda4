"""The clocks of the shell: with ``connectors/clock.py`` the only place that reads the time or draws chance.

A live worker holds a ``StoreClock``: its own monotonic clock plus an offset learned from the store's ``TIME``, so
that all workers agree on what is due (R18). What one answer of the store says about the offset is an interval:

    asked at 100, store said 5_007, heard at 104   =>   offset in (5_007 - 104, 5_008 - 100) = (4_903, 4_908)

because the store looked at its clock somewhere between (Cristian 1989, "Probabilistic clock synchronization"). Each
answer narrows the interval, time widens it again by what two quartz clocks may drift apart. An answer whose
interval has no point in common with what was known proves that a clock was set; a slow network only makes it wide, so
it cannot feign that. A step of up to 5 s is followed; a greater one is reported and not followed until ``follow()``.

The log's clock (replay, backtest) is a ``LogClock``: the greatest logical time read.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from profiles.moments import SECOND_MS, Clock

STEP_MS_MAX: Final = 5 * SECOND_MS
"""A greater step of the store's clock pauses timers and alarms (R18)."""

DRIFT_PPM: Final = 200
"""How fast two clocks may drift apart, parts per million: twice what a poor quartz does."""


def wall_ms() -> int:
    """The process's own wall clock, epoch ms: to compare instants of one process, never to decide what is due."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds since some instant; never set, never back."""
    return time.monotonic_ns() // 1_000_000


def monotonic_ns() -> int:
    """Nanoseconds since some instant: for durations in metrics."""
    return time.monotonic_ns()


def thread_cpu_ns() -> int:
    """CPU time of this thread, ns: what a stage cost, where wall time would count its waiting too."""
    return time.thread_time_ns()


class SystemIds:
    """``Ids`` of a real worker."""

    def token(self) -> bytes:
        """Eight random bytes."""
        return secrets.token_bytes(8)


class StoreClock:
    """The store's clock as this process can tell it; never goes back.

    Before the first ``learn`` it knows nothing, and asking it the time is our bug.

    Attributes:
        step_ms: a step of the store's clock above 5 s that was seen and not followed, signed; 0 while steady.
            While it is not 0, whoever owns timers and alarms pauses them.
    """

    def __init__(self, ask: Callable[[], Awaitable[int]], monotonic_ms: Callable[[], int] = monotonic_ms) -> None:
        """``ask`` is ``ProfileStore.now_ms``."""
        self._ask = ask
        self._monotonic_ms = monotonic_ms
        self._known: tuple[float, float] | None = None  # the offset lies in between, at `_known_at_ms`
        self._known_at_ms = 0
        self._seen: tuple[float, float] = (0.0, 0.0)  # the last answer's interval
        self._seen_at_ms = 0
        self._offset_ms = 0
        self._told_ms = 0
        self.step_ms = 0

    def now_ms(self) -> int:
        """The store's time, epoch ms. After a small step back it stands still until the store has caught up."""
        assert self._known is not None, "StoreClock.now_ms before the first learn()"
        now_ms = self._monotonic_ms() + self._offset_ms
        if now_ms > self._told_ms:
            self._told_ms = now_ms
        return self._told_ms

    @property
    def doubt_ms(self) -> int:
        """How far off the offset may be at most, ms."""
        assert self._known is not None, "StoreClock.doubt_ms before the first learn()"
        low, high = self._known
        # Of the offset that we go by: as a whole number it lies up to half a ms beside the middle.
        off_ms = max(high - self._offset_ms, self._offset_ms - low)
        return int(off_ms + self._drift_ms(self._monotonic_ms() - self._known_at_ms + 1)) + 1

    async def learn(self) -> int:
        """Ask the store once and take in its answer. Call it every second or two, from one task.

        Returns:
            ``step_ms``: 0, or how far the store's clock is off ours after a step above 5 s: at least this far.
        Raises:
            OSError: the store did not answer; what was known stays.
        """
        asked_ms = self._monotonic_ms()
        answer_ms = await self._ask()
        heard_ms = self._monotonic_ms()
        # Every reading is rounded down, so the true instants lie within one ms after the numbers.
        self._seen = (float(answer_ms - heard_ms - 1), float(answer_ms + 1 - asked_ms))
        self._seen_at_ms = heard_ms
        if self._known is None:
            self.follow()
            return 0
        drift_ms = self._drift_ms(heard_ms - self._known_at_ms)
        low, high = self._known[0] - drift_ms, self._known[1] + drift_ms
        seen_low, seen_high = self._seen
        gap_ms = seen_low - high if seen_low > high else min(0.0, seen_high - low)
        if abs(gap_ms) > STEP_MS_MAX:
            self.step_ms = int(gap_ms)
            return self.step_ms
        if gap_ms:
            self.follow()
        else:
            self._take((max(low, seen_low), min(high, seen_high)), heard_ms)
            self.step_ms = 0
        return 0

    def follow(self) -> None:
        """Take the last answer for the truth: the step was right, or is small. Time still never goes back."""
        self._take(self._seen, self._seen_at_ms)
        self.step_ms = 0

    def _take(self, known: tuple[float, float], at_ms: int) -> None:
        self._known, self._known_at_ms = known, at_ms
        self._offset_ms = round((known[0] + known[1]) / 2)

    @staticmethod
    def _drift_ms(passed_ms: int) -> float:
        return passed_ms * DRIFT_PPM / 1_000_000


class LogClock:
    """The log's clock: the greatest logical time read (R18). Replay, backtest, demo and simulation run on it."""

    def __init__(self, at_ms: int = 0) -> None:
        self._at_ms = at_ms

    def now_ms(self) -> int:
        """The greatest logical time read, epoch ms."""
        return self._at_ms

    def advance(self, to_ms: int) -> None:
        """A record of that logical time was read; an earlier one changes nothing."""
        if to_ms > self._at_ms:
            self._at_ms = to_ms


class ScaledClock:
    """A clock that starts at ``start_ms`` and runs ``times`` as fast as another: the demo's busy little shop."""

    def __init__(self, base: Clock, start_ms: int, times: int) -> None:
        assert times >= 1, times
        self._base = base
        self._base_start_ms = base.now_ms()
        self._start_ms = start_ms
        self._times = times

    def now_ms(self) -> int:
        """``start_ms`` plus what the base has run, ``times`` over."""
        return self._start_ms + (self._base.now_ms() - self._base_start_ms) * self._times
