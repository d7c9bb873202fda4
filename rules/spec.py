"""What an operator says of itself, and what it is given to compile with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from fractions import Fraction
from typing import Any, Final, Protocol

from profiles.aggregates import Aggregate
from profiles.edits import BY_HAND
from profiles.moments import FOREVER, iso
from profiles.money import major
from profiles.people import SAID_BY
from profiles.state import Profile
from profiles.wire import Event
from rules.documents import Node
from rules.facts import Fact
from rules.verdict import Judge
from rules.words import Words

PUBLISH: Final = "publish"
"""The key, of every kind, that puts a trait's changes on their topic."""
GOAL_REACHED: Final = "goal_reached"
"""The event that the engine makes of one that reaches a goal."""

Reads = frozenset[tuple[str, Any]]
"""What a judge looks at: ("part", bit), ("aggregate", id), ("segment", name)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A compiled piece of a rule: the judge, what it reads, and how to explain it.

    Attributes:
        op: the operator's name.
        text: the condition in words.
        value: what the profile has, for ``explain``: (profile, now_ms) -> a value as people read it (``shown``).
        events: what made it so, as far as it is kept: (profile, now_ms) -> mappings with ``at``, newest first.
        least: how many of the children must hold; of ``not``, must not.
    """

    op: str
    text: str
    judge: Judge
    reads: Reads
    children: tuple[Judged, ...] = ()
    value: Callable[[Profile, int], Any] | None = None
    events: Callable[[Profile, int], list[dict[str, Any]]] | None = None
    least: int = 0


Read = Callable[[Profile, int], tuple[Any, int]]
"""(profile, now_ms) -> (a trait's value or ``None``, until when time alone cannot change it)."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How a trait is read.

    Attributes:
        read: how.
        kind: number, money (minor units of the shop's currency), time (epoch ms), span (ms), text, or any.
        falls: of a whole number from 0 that between events only falls: (profile, level) -> the instant at which it is
            less, so that a rule need not look at every number on the way.
    """

    read: Read
    kind: str
    reads: Reads
    falls: Callable[[Profile, int], int] | None = None


@dataclass(frozen=True, slots=True)
class PublishedTrait:
    """A trait whose changes go out. ``id``: under which a profile keeps the value told last."""

    name: str
    id: int
    reader: Reader


@dataclass(frozen=True, slots=True)
class FieldSource:
    """Where else a field's value comes from: that property of events of these types that look like that."""

    types: tuple[str, ...]
    where: Callable[[Any], bool] | None
    prop: str


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field of a person.

    Attributes:
        path: the trait's name.
        wanted: its type in words.
        take: a value as said -> as it is of the type, ``None`` if it is not.
        sources: sources and event types, the best first; those not named come after all of them.
        taken_from: events whose properties state it.
    """

    path: str
    wanted: str
    take: Callable[[Any], Any]
    sources: tuple[str, ...]
    taken_from: tuple[FieldSource, ...]

    def rank(self, source: str) -> int:
        """How good a source is: the greater is the better, 0 one that is not named; of a field without any all are alike."""
        if not self.sources:
            return 0
        if source.startswith(BY_HAND):
            return len(self.sources)  # Who corrects something by hand knows as well as the best source.
        words = source.split(SAID_BY, 1)
        return max((len(self.sources) - self.sources.index(one) for one in words if one in self.sources), default=0)


class Scope(Protocol):
    """What the compiler offers an operator."""

    zone: tzinfo
    currency: str
    week_from: int
    counting: tuple[str, ...]
    """The statuses of an order that counts, where a rule names none."""

    def rule(self, node: Node) -> Judged:
        """Compile a rule inside this one."""
        ...

    def reader(self, path: str, node: Node) -> Reader:
        """The reader of a trait; an unknown path is a mistake at ``node`` unless it is a customer's own trait."""
        ...

    def declaration(self, path: str, node: Node) -> Node:
        """How a trait is declared, to be asked for in a narrower sense; one that is not worked out is a mistake at ``node``."""
        ...

    def worked_out(self, declaration: Node) -> Reader:
        """The reader of a trait that has no name."""
        ...

    def aggregate(
        self,
        kind: Aggregate,
        types: tuple[str, ...],
        key: str,
        values: Callable[[Event], list[Any]],
        bound: int,
        quiet_below: int = 0,
    ) -> int:
        """Ask for a statistic to be kept; the same one asked for twice is kept once. Returns its id.

        Args:
            quiet_below: while the statistic has fewer entries, an entry more changes nothing for who asks.
        """
        ...

    def keep_of_lines(self, names: Iterable[str]) -> None:
        """Ask that these be kept of the lines of orders (``orders.LINE_ON_DEMAND``)."""
        ...

    def event_types(self, node: Node) -> tuple[str, ...]:
        """The event types named there, canonical; unknown ones are mistakes with the likeliest one meant."""
        ...

    def goal(self, name: str, node: Node) -> str:
        """A goal that is declared, or an event's name of GA4; else a mistake."""
        ...

    def family(self, name: str, part: Callable[[str], Reader]) -> None:
        """``name.anything`` is a trait, too: read as ``part("anything")`` says."""
        ...

    def field(self, field: Field) -> None:
        """Ask that statements of this field be checked, and ranked by their source."""
        ...

    def fact(self, fact: Fact) -> None:
        """Ask for a number about the whole base."""
        ...

    def publish(self, readers: Mapping[str, Reader]) -> None:
        """Ask that the changes of these traits be published."""
        ...

    def segment(self, name: str, node: Node) -> str:
        """A segment that exists; else a mistake."""
        ...

    def made_segment(self, name: str, rule: Node, node: Node) -> str:
        """A segment that a rule brings with it; a name that is taken is a mistake at ``node``."""
        ...

    def trigger(self, name: str, node: Node) -> str:
        """A trigger that exists; else a mistake."""
        ...


@dataclass(frozen=True, slots=True)
class RuleExample:
    """An executed example: a history in the scenario language, and when the rule holds after it."""

    rule: str
    scenario: str


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """What a segment operator says of itself.

    Attributes:
        name: the key that names it in a rule.
        says: one line.
        keys: all keys it allows beside its name.
        compile: (node of the whole mapping, scope) -> the compiled piece.
        examples: executed by a test, printed in the reference.
        words: the rule in plain words, in either language.
    """

    name: str
    says: str
    keys: tuple[str, ...]
    compile: Callable[[Node, Scope], Judged]
    examples: tuple[RuleExample, ...] = ()
    words: Words | None = None


@dataclass(frozen=True, slots=True)
class TraitExample:
    """An executed example: a declared trait called ``it``, and what it is after a history in the scenario language."""

    trait: str
    scenario: str


@dataclass(frozen=True, slots=True)
class TraitKind:
    """What a kind of declared trait says of itself.

    Attributes:
        name: the key that names it in a declaration.
        says: what it is, for the reference.
        keys: all keys it allows beside its name.
        compile: (the trait's name, node of the kind, node of the whole mapping, scope) -> readers of the trait, or of
            its parts, by full name.
        examples: executed by a test, printed in the reference.
    """

    name: str
    says: str
    keys: tuple[str, ...]
    compile: Callable[[str, Node, Node, Scope], dict[str, Reader]]
    examples: tuple[TraitExample, ...] = ()


def shown(value: Any, kind: str, currency: str) -> Any:
    """A value as people read it: money with its currency and its decimal amount, a time as ISO, a span with its unit, all
    else as it is.

    Args:
        value: what a ``Reader`` reads; minor units may be a fraction (an average).
        kind: as in ``Reader``.
        currency: the shop's.
    """
    if isinstance(value, bool):
        return value
    if kind == "money" and isinstance(value, int | Fraction):
        minor = int(value) if value == int(value) else value
        return {"minor": minor, "currency": currency, "amount": major(round(value), currency)}
    if kind == "time" and isinstance(value, int):
        return iso(value)
    if kind == "span" and isinstance(value, int):
        return {"ms": value}
    return value


def plain(value: Any) -> Any:
    """A value as JSON may hold it: an exact fraction becomes a number rounded to six places."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    return round(float(value), 6)


def reasons(judged: Judged | None, profile: Profile, now_ms: int) -> list[dict[str, Any]]:
    """What a rule saw, leaf by leaf, as ``because`` tells it; of no rule nothing."""
    found: list[dict[str, Any]] = []
    pending = [judged] if judged is not None else []
    while pending:
        one = pending.pop(0)
        if one.children:
            pending = [*one.children, *pending]
        elif one.value is not None:
            found.append({"node": one.text, "value": plain(one.value(profile, now_ms))})
    return found


def once(event: Event) -> list[Any]:
    """What an event contributes where only that it happened counts."""
    return _ONE


_ONE: Final[list[Any]] = [None]  # read only


UNREADABLE = Reader(lambda profile, now_ms: (None, FOREVER), "any", frozenset())
"""Stands in for a reader that a mistake left out, so that the other mistakes are found too."""
