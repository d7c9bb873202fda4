"""What came of the triggers in the last thirty days, told as metrics every few minutes: for dashboards of marketers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from console import metrics
from console.answers import Asked
from console.background import Background
from console.ledger import Window
from console.reader import Reader
from console.reports import conversions_of
from profiles.moments import DAY_MS

LOG = logging.getLogger(__name__)

OF_MS: Final = 30 * DAY_MS
RETRY_S: Final = 10.0
FUNNEL: Final = ("eligible", "emitted", "delivered", "opened", "clicked", "converted")


class Outcomes(Background):
    """Tells them for as long as it runs.

    Args:
        reader: has the rules in force, and reports.
        every_s: how long one telling is good for.
    """

    def __init__(self, reader: Reader, every_s: float) -> None:
        super().__init__()
        self._reader = reader
        self._every_s = every_s

    async def tell(self) -> None:
        """Read on, and set the metrics.

        Raises:
            Asked: no rules were announced yet.
            OSError: broker or store did not answer.
        """
        reports = self._reader.reports
        assert reports is not None, "an API with brokers wanted"
        rulebook = (await self._reader.generation()).rulebook
        window = Window(from_ms=self._reader.time.now_ms() - OF_MS, conversions=conversions_of(rulebook))
        told = await reports.told(sorted(rulebook.triggers), window, rulebook.currency)
        metrics.MOMENTS.clear()  # A trigger that is gone has no outcome any more.
        metrics.REVENUE.clear()
        for one in told:
            for what, count in funnel(one["steps"]).items():
                metrics.MOMENTS.labels(one["trigger"], what).set(count)
            amount = sum(float(row["revenue"]["amount"]) for row in one["steps"])
            metrics.REVENUE.labels(one["trigger"]).set(amount)

    async def _run(self) -> None:
        while True:
            wait_s = self._every_s
            try:
                await self.tell()
            except (Asked, OSError) as error:
                LOG.info("outcomes are not told for now: %s", error)
                wait_s = min(wait_s, RETRY_S)
            await asyncio.sleep(wait_s)


def funnel(steps: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How many moments came how far, over all steps and arms; opened and clicked by people."""
    counts = Counter(dict.fromkeys(FUNNEL, 0))
    for row in steps:
        for what in FUNNEL:
            counts[what] += row[what]["people"] if what in ("opened", "clicked") else row[what]
    return counts
