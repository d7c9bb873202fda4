"""Versions of a trigger: a journey goes by the one that it began under, as long as that can be read.

    migration: drain       # go on by the version begun under; the default
    migration: restart     # begin anew under the new one
    migration: move        # go on in the new one, at the place that corresponds

A version is the trigger's document; policies, segments and traits are always those in force. Whoever changes rules keeps
the documents that were replaced (``superseded``), and they are compiled beside the new ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final, NamedTuple

from rules.program import CompiledTrigger

MIGRATIONS: Final = ("drain", "restart", "move")
KEPT_MAX: Final = 5
"""Versions kept of each trigger, the newest, beside the one in force; of those that are gone from the rules, too."""


class Version(NamedTuple):
    """A version of a trigger that is in force no more; ``document`` is YAML."""

    trigger: str
    revision: str
    document: str


def superseded(
    before: Mapping[str, CompiledTrigger], kept: Sequence[Version], now: Mapping[str, CompiledTrigger]
) -> tuple[Version, ...]:
    """The versions under which journeys may still be on their way when another generation comes into force.

    Args:
        before: the triggers that were in force.
        kept: the versions that were kept beside it, oldest first.
        now: those that follow.
    Returns:
        What to keep beside that, oldest first.
    """
    old = [*kept, *(Version(one.name, one.revision, written(one)) for one in before.values())]
    found: dict[tuple[str, str], Version] = {}
    for one in old:
        found.pop((one.trigger, one.revision), None)  # The place of the newer counts.
        in_force = now.get(one.trigger)
        if in_force is None or in_force.revision != one.revision:
            found[one.trigger, one.revision] = one
    of: dict[str, list[Version]] = {}
    for one in found.values():
        of.setdefault(one.trigger, []).append(one)
    return tuple(one for one in found.values() if one in of[one.trigger][-KEPT_MAX:])


def written(trigger: CompiledTrigger) -> str:
    """A trigger's document as YAML of one line, to be read again."""
    return json.dumps(trigger.document, default=float, ensure_ascii=False)


def marked(kept: Iterable[Version]) -> bytes:
    """What tells a generation from one with the same files and other versions beside them; empty without any."""
    return " ".join(sorted(f"{one.trigger}@{one.revision}" for one in kept)).encode()


class Place(NamedTuple):
    """A place in a program; ``same``: it is the very operation that the journey waits in."""

    at: int
    same: bool


def place_in(new: CompiledTrigger, old: CompiledTrigger | None, at: int) -> Place:
    """Where somebody at a place of the old version is in the new one.

    Steps that both have are the same place, also when something was put before them. Of a step that was written anew (a longer
    wait) the new one is the place; for one that is gone it is what follows it. Of a version that nobody can read the number stands.
    """
    if old is None or at >= len(old.program):
        return Place(at, same=at < len(new.program))
    matched = SequenceMatcher(None, old.origins, new.origins, autojunk=False)
    for tag, old_from, old_to, new_from, new_to in matched.get_opcodes():
        if not old_from <= at < old_to:
            continue
        there = new_from + at - old_from
        if tag == "equal" or (there < new_to and type(old.program[at]) is type(new.program[there])):
            return Place(there, same=True)
        return Place(min(there, new_to), same=False)
    return Place(len(new.program), same=False)
