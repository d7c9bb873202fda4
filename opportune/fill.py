"""``opportune rules fill``: what new rules count and nobody kept before, computed back from the log (stream/fill.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from rich.console import Console as Terminal

from opportune.rebuild import telling
from profiles.errors import Refused
from rules.rulebook import Rulebook
from stream.alarms import GRACE_MS
from stream.fill import Filling, Found
from stream.history import History
from stream.log import KafkaLog
from stream.rulebook import complete, in_force
from stream.settings import Own, read
from stream.store import RedisStore

T = TypeVar("T")
WAIT_S: Final = 3.0
"""Between two looks: longer than the gate before alarms."""
LOOKS_MAX: Final = 20
"""Whoever is behind at each of so many looks has done what the log holds no more, or never rests."""


def run(env: Mapping[str, str], terminal: Terminal) -> Found:
    """Fill what the generation in force lacks; what the last look found.

    Raises:
        Refused: no worker has announced rules yet.
        OSError: a broker or the store did not answer; begin again, nothing is done twice.
    """
    agreed, own = read(env)
    rulebook = asyncio.run(_with(own, lambda store, log: _rules(store)))
    if not rulebook.lacking:
        print(f"generation {rulebook.number}: nothing is lacking")
        return Found(0, 0, 0)
    filling = Filling(rulebook)
    with History(own, agreed.partitions) as history:
        with telling(terminal, history) as tell:
            inputs = filling.take(history.read(), tell)
        for number in range(1, LOOKS_MAX + 1):
            found = asyncio.run(_with(own, lambda store, log: _look(filling, store, log, agreed.clock == "log")))
            terminal.print(
                f"look {number}: {found.sent} of {found.profiles} people told, {found.behind} not at the same input as the log",
                highlight=False,
            )
            if not found.sent and not found.behind:
                break
            inputs += filling.take(history.read_on(WAIT_S))
        gone = history.gone()
    if not found.sent:
        asyncio.run(_with(own, lambda store, log: complete(store, rulebook.lacking)))
    print(
        f"{inputs} inputs read; {found.profiles - found.behind - found.sent} of {found.profiles} people have what the log says"
    )
    if found.sent:
        print(f"{found.sent} were told once more at the last look: run it again")
    if found.behind:
        print(f"{found.behind} count from generation {rulebook.number} on: the log does not say all that they did last")
    if gone:
        told = ", ".join(f"{topic} {count}" for topic, count in sorted(gone.items()))
        print(f"records that the log keeps no longer, and nobody counts: {told}")
    return found


async def _rules(store: RedisStore) -> Rulebook:
    found = await in_force(store)
    if found is None:
        raise Refused("rules: a generation that a worker announced wanted, got none yet")
    return found[0]


async def _look(filling: Filling, store: RedisStore, log: KafkaLog, on_logs_clock: bool) -> Found:
    now_ms = filling.now_ms if on_logs_clock else await store.now_ms() - GRACE_MS
    return await filling.look(store, log.publish, now_ms)


async def _with(own: Own, work: Callable[[RedisStore, KafkaLog], Awaitable[T]]) -> T:
    store, log = RedisStore.of(own), KafkaLog(own)
    try:
        await log.start()
        return await work(store, log)
    finally:
        await log.stop()
        await store.close()
