"""The edge's clock, and with ``stream/clock.py`` the only file that reads the time.

What an edge writes into an event as ``received_ms`` comes from here and is logical time from then on.
"""

from __future__ import annotations

import time


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """The instant now, epoch ms UTC."""
        return time.time_ns() // 1_000_000


def seconds() -> float:
    """A stopwatch for metrics: seconds from an arbitrary start, never going back."""
    return time.perf_counter()
