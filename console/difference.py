"""What another version of the rules would change, told over the same events: members and moments gained and lost (SPEC D6).

    old, new = (replayed(source, book, until_ms, Told) for book in (old_book, new_book))
    told = difference(old, old_book, new, new_book)

Both versions go through the engine's own ``step`` and write nothing outside. A moment is the same in both if it has the
same id: the same trigger, step, customer and occasion (RELIABILITY R13); passages into a segment and out of it are the same
if the same people pass at the same instants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from profiles import orders
from profiles.money import major
from profiles.state import Profile
from profiles.wire import SEGMENT_CHANGES, TRIGGERS_PREFIX
from rules.explain import explain
from rules.outcome import Step
from rules.rulebook import Rulebook
from stream.replay import Replayed

EXAMPLES: Final = 3
_MARKS: Final = (1 << 64) - 1


@dataclass
class Passages:
    """How often a segment was entered and left; ``mark``: a sum over who passed when, the same for the same passages."""

    entered: int = 0
    exited: int = 0
    mark: int = 0

    def add(self, address: str, change: str, at: str) -> None:
        """Note one."""
        if change == "entered":
            self.entered += 1
        else:
            self.exited += 1
        self.mark = (self.mark + hash((address, change, at))) & _MARKS


@dataclass
class Told:
    """Hears what would have gone out.

    Attributes:
        moments: trigger -> id -> (address, instant).
        passages: segment -> its.
    """

    from_ms: int = 0
    moments: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    passages: dict[str, Passages] = field(default_factory=dict)

    def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
        """Note what one step sends."""
        if at_ms < self.from_ms:
            return
        for record in out.records:
            if record.topic.startswith(TRIGGERS_PREFIX):
                value = orjson.loads(record.value)
                self.moments.setdefault(value["trigger"], {})[value["trigger_id"]] = (record.key, value["at"])
            elif record.topic == SEGMENT_CHANGES:
                value = orjson.loads(record.value)
                passages = self.passages.setdefault(value["segment"], Passages())
                passages.add(record.key, value["change"], value["at"])


def difference(old: Replayed[Told], old_book: Rulebook, new: Replayed[Told], new_book: Rulebook) -> dict[str, Any]:
    """What the new rules gain and lose against the old ones over the same inputs, as of their end.

    Returns:
        Plain values: ``segments`` and ``triggers``, by name, those of either version:

        - a segment: ``old`` and ``new`` sizes (``None``: it is not in that version), ``gained`` and ``lost``: ``count``,
          ``revenue`` of these people, and ``examples``: ``address``, and ``because``: the conditions that keep him out of
          the version that he is not in, with what he has; and ``passages``: how often it was ``entered`` and ``exited``
          on the way (``old``, ``new``), and whether by the ``same`` people at the same instants;
        - a trigger: ``old`` and ``new`` moments sent, ``gained`` and ``lost``: ``count``, and ``examples``: ``address``
          and ``at``.
    """
    return {
        "old": old_book.hash,
        "new": new_book.hash,
        "segments": {name: _segment(name, old, old_book, new, new_book) for name in _names(old_book, new_book)},
        "triggers": {
            name: _trigger(old, old_book, new, new_book, name)
            for name in sorted({*old_book.triggers, *new_book.triggers})
        },
    }


def is_same(told: dict[str, Any]) -> bool:
    """Whether nobody and nothing is gained or lost, and all enter and leave at the same instants."""
    return all(one["passages"]["same"] for one in told["segments"].values()) and not any(
        one[side]["count"]
        for part in ("segments", "triggers")
        for one in told[part].values()
        for side in ("gained", "lost")
    )


def _names(*books: Rulebook) -> list[str]:
    return sorted({segment.name for book in books for segment in book.segments})


def _members(run: Replayed[Told], book: Rulebook, name: str) -> set[str] | None:
    ids = [segment.id for segment in book.segments if segment.name == name]
    return {address for address, one in run.profiles.items() if ids[0] in one.members} if ids else None


def _segment(
    name: str, old: Replayed[Told], old_book: Rulebook, new: Replayed[Told], new_book: Rulebook
) -> dict[str, Any]:
    was, will_be = _members(old, old_book, name), _members(new, new_book, name)
    gained, lost = (will_be or set()) - (was or set()), (was or set()) - (will_be or set())
    return {
        "old": None if was is None else len(was),
        "new": None if will_be is None else len(will_be),
        "gained": _people(name, gained, old, None if was is None else old_book, new_book.currency),
        "lost": _people(name, lost, new, None if will_be is None else new_book, new_book.currency),
        "passages": _passages(*(run.heard.passages.get(name, Passages()) for run in (old, new))),
    }


def _passages(old: Passages, new: Passages) -> dict[str, Any]:
    counts = {side: {"entered": one.entered, "exited": one.exited} for side, one in (("old", old), ("new", new))}
    return {**counts, "same": old == new}


def _people(
    name: str, addresses: set[str], outside: Replayed[Told], book: Rulebook | None, currency: str
) -> dict[str, Any]:
    """Who makes the difference; ``outside``: the run in which they are not members."""
    revenue = sum(
        counted.amount_minor
        for address in addresses
        for counted in orders.fold(outside.profiles[address], currency=currency)
    )
    examples = [
        {"address": address, "because": _failing(name, outside.profiles[address], book) if book is not None else []}
        for address in sorted(addresses)[:EXAMPLES]
    ]
    return {"count": len(addresses), "revenue": major(revenue, currency), "currency": currency, "examples": examples}


def _failing(name: str, profile: Profile, book: Rulebook) -> list[str]:
    """The conditions that keep a profile out of a segment, each with what the profile has."""
    return [
        f"{node['text']}: {orjson.dumps(node['value'], default=str).decode()}"
        for node in _leaves(explain(profile, name, book, profile.seen_ms)["rule"])
        if not node["holds"]
    ]


def _leaves(node: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if not node["children"]:
        yield node
    for child in node["children"]:
        yield from _leaves(child)


def _trigger(
    old: Replayed[Told], old_book: Rulebook, new: Replayed[Told], new_book: Rulebook, name: str
) -> dict[str, Any]:
    was, will_be = old.heard.moments.get(name, {}), new.heard.moments.get(name, {})
    return {
        "old": len(was) if name in old_book.triggers else None,
        "new": len(will_be) if name in new_book.triggers else None,
        "gained": _moments(will_be, was),
        "lost": _moments(was, will_be),
    }


def _moments(those: dict[str, tuple[str, str]], without: dict[str, tuple[str, str]]) -> dict[str, Any]:
    found = sorted((at, address) for one, (address, at) in those.items() if one not in without)
    return {"count": len(found), "examples": [{"address": address, "at": at} for at, address in found[:EXAMPLES]]}
