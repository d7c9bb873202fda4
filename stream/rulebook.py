"""The generation in force: rule files from a folder, compiled whole, and kept in the store under their hash."""

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


async def come_after(
    store: ProfileStore, rulebook: Rulebook, files: Sequence[tuple[str, str]]
) -> tuple[Rulebook, tuple[Version, ...]]:
    """A generation with the versions of triggers beside it under which journeys of the one before may be on their way.

    Args:
        store: knows the generation that is in force.
        rulebook, files: the one that is to follow.
    Returns:
        It, numbered, with those versions, and these, to be announced with it.
    """
    value = await store.get_doc(IN_FORCE)
    if value is None:
        rulebook.number = 1
        return rulebook, ()
    told = orjson.loads(value)
    kept: tuple[Version, ...] = ()
    names: set[str] = set()
    known: set[str] | None = None
    try:
        before, _ = read_generation(value)
    except BadDocument:
        pass  # Of workers that know other rules: its journeys go on at the same place.
    else:
        names = {one.name for one in before.segments}
        known = {one.key for one in before.aggregates}.difference(before.lacking)
        kept = superseded(before.triggers, _kept(told), rulebook.triggers)
    if kept:
        rulebook = compile_rules(files, zone=rulebook.zone_name, currency=rulebook.currency, kept=kept)
    number = told.get("number", 0)
    rulebook.number = max(1, number) if rulebook.hash == told["hash"] else number + 1
    names.difference_update(one.name for one in rulebook.segments)
    gone = dict.fromkeys([*(one for one in told.get("gone", ()) if one not in names), *sorted(names)])
    if known is not None:
        rulebook.lacking = tuple(one.key for one in rulebook.aggregates if one.key not in known)
    rulebook.gone = tuple(one for one in gone if small_id(one) not in rulebook.place)[-GONE_MAX:]
    return rulebook, kept


async def announce(
    store: ProfileStore, rulebook: Rulebook, files: Sequence[tuple[str, str]], kept: Sequence[Version] = ()
) -> None:
    """Keep the files of the generation in force, so that whoever reads profiles can read them by its rules; and the
    versions ``kept`` beside it."""
    value = {
        "hash": rulebook.hash,
        "zone": rulebook.zone_name,
        "currency": rulebook.currency,
        "files": [{"name": name, "text": text} for name, text in files],
        "kept": [list(one) for one in kept],
        "number": rulebook.number,
        "gone": list(rulebook.gone),
        "lacking": list(rulebook.lacking),
    }
    await store.put_doc(IN_FORCE, orjson.dumps(value))


async def in_force(store: ProfileStore) -> tuple[Rulebook, list[tuple[str, str]]] | None:
    """The generation that workers announced last, with the facts of the first shard; ``None`` before any did."""
    value = await store.get_doc(IN_FORCE)
    if value is None:
        return None
    rulebook, files = read_generation(value)
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
    value = await store.get_doc(IN_FORCE)
    assert value is not None, "somebody has announced what is lacking"
    told = orjson.loads(value)
    await store.put_doc(
        IN_FORCE, orjson.dumps({**told, "lacking": [one for one in told.get("lacking", ()) if one not in keys]})
    )


def read_generation(value: bytes) -> tuple[Rulebook, list[tuple[str, str]]]:
    """The document ``IN_FORCE``, compiled: the rulebook, and its files as (name, text).

    Raises:
        BadDocument: announced by workers that know rules which we do not.
    """
    told = orjson.loads(value)
    files = [(one["name"], one["text"]) for one in told["files"]]
    rulebook = compile_rules(files, zone=told["zone"], currency=told["currency"], kept=_kept(told))
    rulebook.number = told.get("number", 0)
    rulebook.lacking = tuple(told.get("lacking", ()))
    return rulebook, files


def _kept(told: Any) -> list[Version]:
    return [Version(*one) for one in told.get("kept", ())]
