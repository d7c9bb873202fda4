"""``opportune dead-letters …``: what could not be taken, and giving it once more (console/letters.py)."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import BinaryIO, NamedTuple

import orjson
from rich.box import SIMPLE
from rich.console import Console as Terminal
from rich.table import Table

import connectors.settings
from connectors.collector.keys import read_keys
from connectors.collector.webhooks import read_webhooks
from console.commands import Commands, check_by
from console.letters import DeadLetters, Letter, Note
from profiles.errors import BadInput, Refused
from profiles.wire import dead_letter
from stream import settings as stream_settings
from stream.clock import SystemIds
from stream.log import KafkaLog
from stream.store import RedisStore
from stream.transport import security


class Wanted(NamedTuple):
    """Which letters; what is empty leaves all in."""

    names: tuple[str, ...] = ()
    reason: str = ""
    topic: str = ""
    source: str = ""

    def holds(self, letter: Letter) -> bool:
        """Whether this is one of them."""
        return (
            (not self.names or letter.name in self.names)
            and self.reason in ("", letter.reason)
            and self.topic in ("", letter.topic)
            and self.source in ("", letter.where.get("source"))
        )


@asynccontextmanager
async def _opened(env: Mapping[str, str]) -> AsyncIterator[tuple[DeadLetters, Callable[[], Awaitable[int]]]]:
    """The letters of an installation, and its logical time."""
    agreed, own = stream_settings.read(env)
    secret = bytes.fromhex(agreed.secret)
    edge = connectors.settings.read(env)
    store, log = RedisStore.of(own), KafkaLog(own)
    commands = Commands(store, log, secret, SystemIds(), on_logs_clock=agreed.clock == "log")
    options = {"bootstrap_servers": own.bootstrap, **security(own)}
    try:
        await log.start()
        keys = read_keys(edge.write_keys) if edge.write_keys else None
        hooks = read_webhooks(edge.webhooks)
        yield DeadLetters(log, secret, options, agreed.partitions, keys, hooks), commands.now_ms
    finally:
        await log.stop()
        await store.close()


def listed(env: Mapping[str, str], wanted: Wanted, terminal: Terminal, limit: int, *, only_waiting: bool) -> None:
    """Print the latest letters, and the sums of all by reason.

    Raises:
        OSError: the broker did not answer.
    """
    latest: deque[tuple[str, str, str, str, str]] = deque(maxlen=limit)
    lying, replayed = Counter[str](), Counter[str]()

    async def work() -> None:
        async with _opened(env) as (letters, _):
            notes = await letters.notes()
            async for letter in letters.read():
                if not isinstance(letter, Letter) or not wanted.holds(letter):
                    continue
                lying[letter.reason] += 1
                note = notes.get(letter.name)
                replayed[letter.reason] += note is not None
                if note is None or not only_waiting:
                    state = "waits" if note is None else f"replayed {note.at} by {note.by}"
                    latest.append((letter.at, letter.name, letter.topic or "–", _told(letter), state))

    asyncio.run(work())
    if latest:
        table = Table("letter", "at", "topic", "why", "state", box=SIMPLE)
        for at, name, topic, why, state in sorted(latest):
            table.add_row(name, at, topic, why, state)
        terminal.print(table)
    sums = Table("reason", "letters", "replayed", "waiting", box=SIMPLE)
    for reason, count in sorted(lying.items()):
        sums.add_row(reason, str(count), str(replayed[reason]), str(count - replayed[reason]))
    total, gone = lying.total(), replayed.total()
    sums.add_row("all", str(total), str(gone), str(total - gone))
    terminal.print(sums)


def _told(letter: Letter) -> str:
    return f"{letter.reason}: {letter.detail}" if letter.detail else letter.reason


def shown(env: Mapping[str, str], name: str, out: BinaryIO, *, only_original: bool) -> None:
    """Write one letter as JSON, or only its original bytes.

    Raises:
        Refused: there is none of that name.
        OSError: the broker did not answer.
    """

    async def work() -> tuple[Letter, Note | None]:
        async with _opened(env) as (letters, _):
            notes = await letters.notes()
            async for letter in letters.read():
                if isinstance(letter, Letter) and letter.name == name:
                    return letter, notes.get(name)
        raise Refused(f"letter {name}: one that lies on dead_letters wanted, got none: not yet, or no longer")

    letter, note = asyncio.run(work())
    if only_original:
        out.write(letter.original)
        return
    value = dead_letter(
        reason=letter.reason,
        detail=letter.detail,
        topic=letter.topic,
        original=letter.original,
        at=letter.at,
        where=dict(letter.where),
    )
    state = {"replayed": None if note is None else {"at": note.at, "by": note.by}}
    told = {"letter": letter.name, "key": letter.key, **orjson.loads(value), **state}
    out.write(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")


def replayed(env: Mapping[str, str], wanted: Wanted, by: str, *, again: bool) -> int:
    """Replay letters, and tell of each that could not be; the exit code: 1 if there is such a one.

    Raises:
        Refused: a named letter does not lie there, or nobody said who asks.
        OSError: broker or store did not answer; doing it again is safe.
    """
    check_by(by)

    async def work() -> int:
        done, before, refused = 0, 0, 0
        missing = dict.fromkeys(wanted.names)
        async with _opened(env) as (letters, now_ms):
            notes = await letters.notes()
            async for letter in letters.read():
                if not isinstance(letter, Letter) or not wanted.holds(letter):
                    continue
                missing.pop(letter.name, None)
                if letter.name in notes and not again:
                    before += 1
                    continue
                try:
                    await letters.replay(letter, await now_ms(), by)
                except BadInput as error:
                    print(f"{letter.name}: {error.reason}: {error}")
                    refused += 1
                else:
                    done += 1
        print(f"{done} replayed, {before} were before, {refused} cannot be taken")
        if missing:
            raise Refused(f"letters that lie on dead_letters wanted, got none of {', '.join(missing)}")
        return 1 if refused else 0

    return asyncio.run(work())
