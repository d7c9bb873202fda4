"""The generation in force: rule files from a folder, compiled whole, and kept in the store with its number.

One document of the store says which rules are in force. ``publish`` puts the next generation there, if nobody has put another
in between; whoever works or reads goes by the document, and looks at it again and again. Generations are numbered, and
nobody goes back: a folder that was in force before is none that is new, though a worker start with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

import rules
from profiles.errors import BadDocument, Refused
from profiles.ids import SHARDS, small_id
from rules.compile import compile_rules
from rules.doubts import checked_rules
from rules.rulebook import Rulebook
from rules.versions import Version, superseded
from stream.facts import Books, read_told
from stream.ports import ProfileStore

PACKS: Final = Path(rules.__file__).parent / "packs"
"""The ready-made rules."""

IN_FORCE: Final = "generation"
EARLIER_MAX: Final = 1_000
"""Rules that were in force before, the newest, are remembered, so that a folder of them is none that is new."""
GONE_MAX: Final = 1_000
"""Segments that are gone, the newest, are remembered, so that those in them leave them."""


def read_rule_files(folder: Path) -> list[tuple[str, str]]:
    """(path as people know it, text) of every YAML file below a folder, in name order.

    Raises:
        Refused: there is none, or one cannot be read as text.
    """
    paths = sorted(path for path in folder.rglob("*.yaml") if path.is_file()) if folder.is_dir() else []
    if not paths:
        raise Refused(f"rules: a folder with *.yaml files wanted, got {folder}")
    files = []
    for path in paths:
        try:
            files.append((str(path.relative_to(folder)), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise Refused(f"{path}: UTF-8 text wanted, got other bytes at {error.start}") from error
    return files


def load(folder: Path, *, zone: str = "", currency: str = "") -> Rulebook:
    """Compile a folder of rules, and refuse also what nobody can mean.

    Raises:
        Refused: no files.
        BadDocument: with every mistake, or every doubt, each at its file and line.
    """
    return checked_rules(read_rule_files(folder), zone=zone, currency=currency)


class Announced(NamedTuple):
    """The rules in force.

    Attributes:
        value: the document that says so.
        rulebook, files: it compiled, without facts; its files as (name, text).
    """

    value: bytes
    rulebook: Rulebook
    files: list[tuple[str, str]]

    def is_of(self, source: str) -> bool:
        """Whether it is of the files that have this hash when they are compiled by themselves."""
        return bool(_source(orjson.loads(self.value)) == source)


def mark_of(value: bytes | None) -> tuple[int, str]:
    """Number and hash of the generation that the document ``IN_FORCE`` says; (0, "") of none."""
    told = orjson.loads(value) if value is not None else {}
    return told.get("number", 0), told.get("hash", "")


async def publish(
    store: ProfileStore, rulebook: Rulebook, files: Sequence[tuple[str, str]], *, by_hand: bool = False
) -> Announced:
    """Put these rules in force: workers and readers go by them as soon as they look again.

    Args:
        rulebook, files: the rules, compiled from the files by themselves.
        by_hand: somebody asked for it: whatever folder a worker starts with counts no more.
    Returns:
        The generation, numbered, and with the versions of triggers beside it under which journeys of the one before may be
        on their way. Rules that are in force already are no new one.
    Raises:
        OSError: the store did not answer; what it holds is one generation or the other.
    """
    source = rulebook.hash
    shards = [read_told(one.generation).number for one in await store.read_shards(range(SHARDS))]
    while True:
        before = await store.get_doc(IN_FORCE)
        told = orjson.loads(before) if before is not None else {}
        following, kept = _come_after(before, rulebook, files)
        is_new = following.hash != told.get("hash")
        if is_new:
            # A store that went back may have forgotten a generation of which a shard knows.
            following.number = max(told.get("number", 0), *shards) + 1
        else:
            following.number = max(1, told.get("number", 0))
        value = {
            "hash": following.hash,
            "zone": following.zone_name,
            "currency": following.currency,
            "files": [{"name": name, "text": text} for name, text in files],
            "kept": [list(one) for one in kept],
            "number": following.number,
            "gone": list(following.gone),
            "lacking": list(following.lacking),
            "source": source,
            "earlier": _earlier(told, source),
            "by_hand": by_hand,
        }
        if await store.replace_doc(IN_FORCE, before, packed := orjson.dumps(value)):
            return Announced(packed, following, list(files))


async def begin_by(store: ProfileStore, rulebook: Rulebook, files: Sequence[tuple[str, str]]) -> Announced:
    """What a worker goes by that starts with these rules: by them if they are new, and puts them in force; by those in
    force if they were before, or if those were published by hand.

    Raises:
        BadDocument: those in force are of workers that know rules which we do not.
    """
    return await stays_in_force(store, rulebook) or await publish(store, rulebook, files)


async def stays_in_force(store: ProfileStore, rulebook: Rulebook) -> Announced | None:
    """What stays in force when a worker starts with these rules; ``None``: nothing does.

    Raises:
        BadDocument: those in force are of workers that know rules which we do not.
    """
    value = await store.get_doc(IN_FORCE)
    return read_generation(value) if value is not None and _stays(orjson.loads(value), rulebook.hash) else None


def _come_after(
    before: bytes | None, rulebook: Rulebook, files: Sequence[tuple[str, str]]
) -> tuple[Rulebook, tuple[Version, ...]]:
    """A generation with the versions of triggers of the one before, and these; it says what is gone, and what it lacks."""
    if before is None:
        return rulebook, ()
    told = orjson.loads(before)
    kept: tuple[Version, ...] = ()
    names: set[str] = set()
    known: set[str] | None = None
    try:
        older = read_generation(before).rulebook
    except BadDocument:
        pass  # Of workers that know other rules: its journeys go on at the same place.
    else:
        names = {one.name for one in older.segments}
        known = {one.key for one in older.aggregates}.difference(older.lacking)
        kept = superseded(older.triggers, _kept(told), rulebook.triggers)
    if kept:
        rulebook = compile_rules(files, zone=rulebook.zone_name, currency=rulebook.currency, kept=kept)
    names.difference_update(one.name for one in rulebook.segments)
    gone = dict.fromkeys([*(one for one in told.get("gone", ()) if one not in names), *sorted(names)])
    if known is not None:
        rulebook.lacking = tuple(one.key for one in rulebook.aggregates if one.key not in known)
    rulebook.gone = tuple(one for one in gone if small_id(one) not in rulebook.place)[-GONE_MAX:]
    return rulebook, kept


def _stays(told: dict[str, Any], source: str) -> bool:
    """Whether these stay in force when a worker starts with rules of this source."""
    return bool(told.get("by_hand")) or source in told.get("earlier", ())


def _source(told: dict[str, Any]) -> str:
    """The hash of its files alone, without versions of before."""
    return str(told.get("source", told.get("hash", "")))


def _earlier(told: dict[str, Any], source: str) -> list[str]:
    """The sources that were in force before this, the newest last."""
    before = dict.fromkeys([*told.get("earlier", ()), _source(told)])
    return [one for one in before if one not in ("", source)][-EARLIER_MAX:]


async def in_force(store: ProfileStore) -> tuple[Rulebook, list[tuple[str, str]]] | None:
    """The generation in force, with the facts of the first shard; ``None`` before any is."""
    value = await store.get_doc(IN_FORCE)
    if value is None:
        return None
    _, rulebook, files = read_generation(value)
    known = read_told((await store.read_shards([0]))[0].generation).known
    books = Books(rulebook)
    for met in known:
        await books.fetch(store, met.digest)
    return books.knowing(known), files


class Walked(NamedTuple):
    """How far the walk is that lets everybody meet the rules in force.

    Attributes:
        number: which generation it is.
        profiles: addresses that there are, forwarders among them.
        met: those of them that have met it.
    """

    number: int
    profiles: int
    met: int


async def walked(store: ProfileStore, number: int) -> Walked:
    """How far that generation is."""
    profiles = met = 0
    for state in await store.read_shards(range(SHARDS)):
        standing = read_told(state.generation)
        profiles += state.ordinals
        if standing.number >= number:
            met += max(0, standing.place) if standing.is_new else state.ordinals
    return Walked(number, profiles, met)


async def complete(store: ProfileStore, keys: Sequence[str]) -> None:
    """These statistics are lacking no more."""
    while True:
        value = await store.get_doc(IN_FORCE)
        assert value is not None, "somebody has announced what is lacking"
        told = orjson.loads(value)
        lacking = [one for one in told.get("lacking", ()) if one not in keys]
        if await store.replace_doc(IN_FORCE, value, orjson.dumps({**told, "lacking": lacking})):
            return


def read_generation(value: bytes) -> Announced:
    """The document ``IN_FORCE``, compiled.

    Raises:
        BadDocument: announced by workers that know rules which we do not.
    """
    told = orjson.loads(value)
    files = [(one["name"], one["text"]) for one in told["files"]]
    rulebook = compile_rules(files, zone=told["zone"], currency=told["currency"], kept=_kept(told))
    rulebook.number = told.get("number", 0)
    rulebook.gone, rulebook.lacking = tuple(told.get("gone", ())), tuple(told.get("lacking", ()))
    return Announced(value, rulebook, files)


def _kept(told: Any) -> list[Version]:
    return [Version(*one) for one in told.get("kept", ())]
