"""What fails inside ``step``, counted, to stop when the core itself is broken (R9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from profiles.errors import Refused
from profiles.moments import SECOND_MS

BUGS_IN_A_ROW_MAX: Final = 50
BUGS_PER_MINUTE_SHARE: Final = 0.01
BUGS_COUNT_FROM: Final = 1_000


class Bugs:
    """Counts what fails inside ``step``, to stop when the core itself is broken (R9)."""

    def __init__(self, wall_ms: Callable[[], int], *, has_ceiling: bool) -> None:
        """Count from nothing.

        Args:
            wall_ms: the process's own clock.
            has_ceiling: whether they stop it at all.
        """
        self._wall_ms = wall_ms
        self._has_ceiling = has_ceiling
        self.in_a_row = 0
        self._minute = [0, 0, 0]  # which minute, its events, its bugs

    def count_inputs(self, inputs: int) -> None:
        """Remember how many inputs this minute brought: what bugs are compared with."""
        minute = self._wall_ms() // (60 * SECOND_MS)
        if self._minute[0] != minute:
            self._minute = [minute, 0, 0]
        self._minute[1] += inputs

    def count(self) -> None:
        """Stop when the core itself is broken: 50 failures in a row, or 1 % of a minute's events (R9)."""
        self.in_a_row += 1
        self._minute[2] += 1
        _, events, bugs = self._minute
        many = events >= BUGS_COUNT_FROM and bugs > events * BUGS_PER_MINUTE_SHARE
        if self._has_ceiling and (self.in_a_row >= BUGS_IN_A_ROW_MAX or many):
            raise Refused(
                f"step fails too often: {self.in_a_row} in a row, {bugs} of {events} in this minute; mend it and start "
                "again, or OPPORTUNE_BUG_CEILING=no sets aside what fails, to be replayed later"
            )
