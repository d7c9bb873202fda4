"""What ``dev`` shows: rates, segment sizes, the latest decisions with their reasons; a live view on a terminal, plain
lines when piped."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer
from prometheus_client import REGISTRY
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from profiles.moments import Clock, iso
from profiles.wire import DECISIONS, PROFILE_COMMANDS
from stream.clock import monotonic_ms
from stream.ports import ProfileStore

LATEST: Final = 12
EVERY_S: Final = 1.0
PLAIN_EVERY: Final = 5


class View:
    """Gathers what is to be shown, and shows it."""

    def __init__(
        self, store: ProfileStore, segments: Callable[[], list[str]], bootstrap: str, clock: Clock, banner: str
    ) -> None:
        self._store = store
        self._segments = segments
        self._bootstrap = bootstrap
        self._clock = clock
        self._banner = banner
        self._latest: deque[dict[str, Any]] = deque(maxlen=LATEST)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._applied: deque[tuple[int, float]] = deque(maxlen=11)
        self._sizes: dict[str, int] = {}

    async def run(self) -> None:
        """Show until cancelled."""
        listening = asyncio.ensure_future(self._listen())
        try:
            console = Console()
            if console.is_terminal:
                with Live(console=console, refresh_per_second=2, screen=False) as live:
                    await self._show(lambda _: live.update(self._picture()))
            else:
                await self._show(lambda turn: print(self._line(), flush=True) if turn % PLAIN_EVERY == 0 else None)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _show(self, show: Callable[[int], None]) -> None:
        turn = 0
        while True:
            self._applied.append((monotonic_ms(), _applied()))
            self._sizes = await self._store.segment_sizes(self._segments())
            show(turn)
            turn += 1
            await asyncio.sleep(EVERY_S)

    async def _listen(self) -> None:
        consumer = AIOKafkaConsumer(
            DECISIONS, bootstrap_servers=self._bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
        )
        await consumer.start()
        try:
            async for record in consumer:
                told = orjson.loads(record.value)
                self._counts[told["trigger"], told["reason"] or "emitted"] += 1
                self._latest.appendleft(told)
        finally:
            await consumer.stop()

    def _rate(self) -> float:
        (since_ms, before), (now_ms, after) = self._applied[0], self._applied[-1]
        return (after - before) * 1000 / max(1, now_ms - since_ms)

    def _line(self) -> str:
        full = sum(1 for size in self._sizes.values() if size)
        sent = sum(count for (_, reason), count in self._counts.items() if reason == "emitted")
        kept = sum(self._counts.values()) - sent
        latest = self._latest[0] if self._latest else None
        return (
            f"{iso(self._clock.now_ms())[:16]}  {_applied():.0f} events ({self._rate():.0f}/s)  "
            f"{full} of {len(self._sizes)} segments have members  {sent} triggers sent, {kept} held back"
            + (f"  latest: {_told(latest)}" if latest is not None else "")
        )

    def _picture(self) -> Group:
        sizes = Table(title="Segments", expand=True)
        sizes.add_column("segment")
        sizes.add_column("members", justify="right")
        for name, size in self._sizes.items():
            sizes.add_row(name, str(size))
        counts = Table(title="Triggers", expand=True)
        counts.add_column("trigger")
        counts.add_column("sent", justify="right")
        counts.add_column("held back, and why")
        for name in sorted({trigger for trigger, _ in self._counts}):
            why = {
                reason: n for (trigger, reason), n in self._counts.items() if trigger == name and reason != "emitted"
            }
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(why.items()))
            counts.add_row(name, str(self._counts[name, "emitted"]), reasons)
        latest = Table(title="Latest decisions", expand=True)
        for column in ("at", "trigger", "customer", "decision"):
            latest.add_column(column)
        for told in self._latest:
            latest.add_row(told["at"][:16], f"{told['trigger']} {told['step']}", told["address"], _outcome(told))
        head = f"{iso(self._clock.now_ms())[:16]}   {_applied():.0f} events, {self._rate():.0f}/s"
        side = Table.grid(expand=True)
        side.add_row(sizes, Group(counts, latest))
        return Group(Panel(f"{self._banner}\n{head}", title="Opportune"), side)


def _told(decision: dict[str, Any]) -> str:
    return f"{decision['trigger']} {decision['step']} to {decision['address']}: {_outcome(decision)}"


def _outcome(decision: dict[str, Any]) -> str:
    """Sent, or held back, and why."""
    if decision["reason"] is not None:
        return f"held back, {decision['reason']}"
    why = "; ".join(one["node"] for one in decision["detail"].get("because", ()))
    return f"sent: {why}" if why else "sent"


def _applied() -> float:
    """Events taken so far; what workers and profiles tell one another is none."""
    return sum(
        one.value
        for metric in REGISTRY.collect()
        if metric.name == "opportune_events"
        for one in metric.samples
        if one.name == "opportune_events_total" and one.labels["topic"] != PROFILE_COMMANDS
    )
