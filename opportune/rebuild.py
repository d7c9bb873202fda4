"""``opportune rebuild``: after the store was lost, profiles anew from the retained log (stream/rebuild.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import orjson
from rich.console import Console as Terminal

from console.register import Register
from console.topic import lying
from opportune.backtest import bar, instant_or_none
from profiles.errors import Refused
from profiles.moments import SECOND_MS, iso, parse_instant
from profiles.wire import DECISIONS, PROFILE_COMMANDS, SEGMENT_CHANGES, Record, encode_command
from stream import rulebook
from stream.clock import SystemIds
from stream.committed import committed
from stream.history import History
from stream.log import KafkaLog
from stream.rebuild import Found, assert_empty, rebuild, write
from stream.settings import Settings, read
from stream.store import RedisStore
from stream.transport import security

GRACE_MS: Final = 2 * SECOND_MS
"""Workers are not all as far as the one that spoke last."""
LAST: Final = 20
TOLD_EVERY: Final = 50_000


def run(env: Mapping[str, str], until: str, terminal: Terminal) -> Found:
    """Rebuild an empty store, and print what came of it. No worker may run.

    Args:
        until: an instant; "": as far as the workers had told Kafka.
    Raises:
        Refused: the store is not empty, the secret is missing, or nobody knows how far the workers were.
        OSError: broker or store did not answer; empty the store, and begin again.
    """
    settings = read(env)
    agreed, own = settings
    if not agreed.secret:
        raise Refused("OPPORTUNE_SECRET: that of the installation wanted, got nothing")
    secret = bytes.fromhex(agreed.secret)
    book = rulebook.load(own.rules, zone=agreed.zone, currency=agreed.currency)
    until_ms = instant_or_none("--until", until)
    options = {"bootstrap_servers": own.bootstrap, **security(own)}
    asyncio.run(_checked(settings))
    erased = asyncio.run(_register(settings, secret, options))
    with History(own, agreed.partitions) as history:
        if until_ms is None:
            until_ms = _applied_until(history, settings)
        said_ms = asyncio.run(_said_last(settings, options)) - GRACE_MS
        with telling(terminal, history) as tell:
            found = rebuild(history, book, secret, erased, until_ms, said_ms, tell)
    written = asyncio.run(_write(settings, found, secret))
    result = found.result
    print(f"{result.inputs} inputs up to {iso(found.until_ms)} replayed, {len(result.aside)} set aside again")
    print(f"{written} addresses written; {found.left} records, and {len(found.later)} commands, left to the workers")
    print("not to be known:")
    for line in found.unknown:
        print(f"- {line}")
    return found


async def _checked(settings: Settings) -> None:
    store = RedisStore.of(settings.own)
    try:
        await assert_empty(store)
    finally:
        await store.close()


async def _register(settings: Settings, secret: bytes, options: Mapping[str, Any]) -> dict[str, int]:
    store, log = RedisStore.of(settings.own), KafkaLog(settings.own)
    try:
        erasures = await Register(store, log, secret, options, settings.agreed.partitions).read()
    finally:
        await store.close()
    return {key: erasure.at_ms for key, erasure in erasures.items()}


def _applied_until(history: History, settings: Settings) -> int | None:
    """Before which instant everything was applied when the store was lost; ``None``: all that there is."""
    told = asyncio.run(committed(settings))
    if not told:
        raise Refused(
            f"--until: the instant at which the store was lost wanted, for group {settings.own.group!r} has told Kafka nothing"
        )
    return min(history.arrivals(told), default=None)


async def _said_last(settings: Settings, options: Mapping[str, Any]) -> int:
    """The latest logical time that workers put on outgoing topics; 0: none."""
    latest_ms = 0
    for topic in (SEGMENT_CHANGES, DECISIONS):
        async for record in lying(topic, settings.agreed.partitions, options, last=LAST):
            latest_ms = max(latest_ms, parse_instant(orjson.loads(record.value)["at"]))
    return latest_ms


async def _write(settings: Settings, found: Found, secret: bytes) -> int:
    agreed, own = settings
    book = rulebook.load(own.rules, zone=agreed.zone, currency=agreed.currency)
    store, log = RedisStore.of(own), KafkaLog(own)
    try:
        await log.start()
        written = await write(store, found, book, secret, SystemIds())
        again = [Record(PROFILE_COMMANDS, one.address, encode_command(replace(one, said=None))) for one in found.later]
        await log.publish(again)
    finally:
        await log.stop()
        await store.close()
    return written


@contextmanager
def telling(terminal: Terminal, history: History) -> Iterator[Callable[[int], None]]:
    """A bar where somebody looks on, else a line now and then."""
    if terminal.is_terminal:
        with bar(terminal, lambda: history.total) as tell:
            yield tell
        return

    def tell_line(number: int) -> None:
        if not number % TOLD_EVERY:
            terminal.print(f"{number} of {history.total} inputs", highlight=False)

    yield tell_line
