"""``opportune segment …``: who is in a segment, as a list or a file, and how static ones are formed."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from console.addresses import read_address
from console.commands import Commands
from console.exports import FORMATS, Only, columns_of, encoded, members, only_of
from console.lists import Lists, versions
from opportune.tables import page
from profiles.errors import Refused
from rules.rulebook import Rulebook
from rules.slips import did_you_mean
from rules.spec import plain
from rules.traits import SAID, meant
from stream import settings as stream_settings
from stream.clock import SystemIds
from stream.log import KafkaLog
from stream.ports import ProfileStore
from stream.rulebook import in_force, walked
from stream.store import RedisStore

T = TypeVar("T")
MISTAKES_TOLD_MAX: Final = 5
LOOK_S: Final = 0.5


def look(env: Mapping[str, str], work: Callable[[ProfileStore, Rulebook], Awaitable[T]]) -> T:
    """Do something with the store and the rules in force.

    Raises:
        Refused: no worker has announced rules yet.
        OSError: the store did not answer.
    """

    async def whole() -> T:
        _, own = stream_settings.read(env)
        store = RedisStore.of(own)
        try:
            return await work(store, await _rules(store))
        finally:
            await store.close()

    return asyncio.run(whole())


async def _rules(store: ProfileStore) -> Rulebook:
    found = await in_force(store)
    if found is None:
        raise Refused("rules: a generation that a worker announced wanted, got none yet")
    return found[0]


async def listed(store: ProfileStore, book: Rulebook) -> None:
    """Print all segments with their sizes."""
    sizes = await store.segment_sizes([one.name for one in book.segments])
    table = Table("segment", "kind", "level", "members", "says", box=None)
    for one in sorted(book.segments, key=lambda segment: segment.name):
        kind, level = "static" if one.is_static else "dynamic", str(book.level(one))
        table.add_row(one.name, kind, level, str(sizes[one.name]), one.says)
    page().print(table)


async def progressed(store: ProfileStore, book: Rulebook, *, wait: bool) -> None:
    """Print how much of the base has met the rules in force; or show it until all of it has."""
    far = await walked(store, book.number)
    terminal = Terminal(stderr=True)
    how = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*how, console=terminal, disable=not (wait and terminal.is_terminal), transient=True) as shown:
        task = shown.add_task(f"generation {far.number}", total=far.profiles)
        while wait and far.met < far.profiles:
            await asyncio.sleep(LOOK_S)
            far = await walked(store, book.number)
            shown.update(task, completed=far.met, total=far.profiles)
    print(f"generation {far.number} ({book.hash}): met by {far.met} of {far.profiles} addresses")
    if book.lacking:
        print(
            f"count from its beginning, until `opportune rules fill`: {', '.join(book.incomplete()) or 'no segments'}"
        )


async def shown(store: ProfileStore, book: Rulebook, name: str, limit: int) -> None:
    """Print a segment: its rule, its size, how it was formed, its first members."""
    known(name, book)
    segment = next(one for one in book.segments if one.name == name)
    page = await store.members(name, "", limit) if limit else ([], "")
    told = {
        "name": name,
        "kind": "static" if segment.is_static else "dynamic",
        "says": segment.says,
        "members": (await store.segment_sizes([name]))[name],
        "rule": plain(segment.rule),
        "versions": await versions(store, name),
        "first": page[0],
    }
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


async def exported(
    store: ProfileStore,
    book: Rulebook,
    name: str,
    form: str,
    out: Path | None,
    fields: list[str],
    only: Only | None,
    bom: bool,
) -> None:
    """Write a segment's members to a file, or to standard output."""
    known(name, book)
    if form not in FORMATS:
        raise Refused(f"--format: one of {', '.join(FORMATS)} wanted, got {form!r}{did_you_mean(form, FORMATS)}")
    columns = columns_of(fields)
    size = (await store.segment_sizes([name]))[name]
    terminal = Terminal(stderr=True)
    how = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*how, console=terminal, disable=not terminal.is_terminal, transient=True) as progress:
        task = progress.add_task(name, total=size)
        count = 0
        empty = {column: place for place, column in enumerate(columns) if column in fields}

        async def counted() -> AsyncIterator[list[Any]]:
            nonlocal count, empty
            async for row in members(store, book, name, columns, only):
                count += 1
                empty = {column: place for column, place in empty.items() if row[place] is None}
                progress.update(task, completed=count)
                yield row

        file = out.open("wb") if out is not None else sys.stdout.buffer
        try:
            async for part in encoded(counted(), columns, form, name, bom=bom):
                file.write(part)
        except OverflowError as error:
            raise Refused(str(error)) from None
        finally:
            file.flush()
            if out is not None:
                file.close()
    terminal.print(f"{count} of {size} members" + (f" in {out}" if out is not None else ""), highlight=False)
    for column in empty if count else ():
        near = meant(column, sorted({*book.readers, *SAID} - {column}))
        hint = f"; did you mean {near!r}?" if near else ""
        terminal.print(f"no member has a value of the trait {column!r}{hint}", highlight=False)


def consent_of(text: str, *, opt_out: bool) -> Only | None:
    """``email:sale`` as a filter; nothing is none.

    Raises:
        Refused: it is no channel and topic.
    """
    try:
        return only_of(text, opt_out=opt_out)
    except ValueError as error:
        raise Refused(f"--consent: {error}") from None


def formed(env: Mapping[str, str], name: str, of: str | Path, by: str, why: str, command_id: str) -> dict[str, Any]:
    """Form a static segment of another segment (its name) or of a file of addresses; the version's record.

    Raises:
        Refused: no secret, no such segment, or lines that are no addresses (by number, never by what they hold).
    """

    async def whole() -> dict[str, Any]:
        agreed, own = stream_settings.read(env)
        if not agreed.secret:
            raise Refused("OPPORTUNE_SECRET: that of the installation wanted, got nothing")
        secret = bytes.fromhex(agreed.secret)
        store, log = RedisStore.of(own), KafkaLog(own)
        try:
            book = await _rules(store)
            await log.start()
            commands = Commands(store, log, secret, SystemIds(), on_logs_clock=agreed.clock == "log")
            terminal = Terminal(stderr=True)
            with terminal.status("forming") as status:
                lists = Lists(store, commands, book, lambda count: status.update(f"forming: {count} commands sent"))
                if isinstance(of, Path):
                    people, source = _of_file(of, secret), f"file {of.name}"
                else:
                    known(of, book)
                    people, source = lists.walk(of), f"segment {of}"
                return await lists.form(name, people, source=source, by=by, why=why, command_id=command_id)
        finally:
            await log.stop()
            await store.close()

    return asyncio.run(whole())


async def _of_file(path: Path, secret: bytes) -> AsyncIterator[str]:
    """The addresses in the first column of a file; a head line `address` is passed over."""
    found, wrong = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                text = row[0].strip() if row else ""
                if not text or (number == 1 and text.lower() == "address"):
                    continue
                try:
                    found.append(read_address(text, secret))
                except ValueError:
                    wrong.append(number)
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"{path}: a UTF-8 text file with an address in each line wanted: {type(error).__name__}"
        ) from None
    if wrong:
        lines = ", ".join(map(str, wrong[:MISTAKES_TOLD_MAX])) + (" …" if len(wrong) > MISTAKES_TOLD_MAX else "")
        raise Refused(f"{path}: addresses like user:42 or email:ana@shop.example wanted, got others in lines {lines}")
    for address in found:
        yield address


def known(name: str, book: Rulebook) -> None:
    """Refuse a segment that the rules in force do not have."""
    names = [one.name for one in book.segments]
    if name not in names:
        raise Refused(f"segment: one of the rules' wanted, got {name!r}{did_you_mean(name, names)}")
