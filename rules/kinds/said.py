"""``said``: what is said of a person, with a declared type, where it may come from, and which source goes before which.

A value that is not of the type is refused when it is stated, and leaves a decision; what was kept before the type was
declared is read by it all the same, as missing if it does not fit. Values are kept as they were said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from profiles.moments import FOREVER, parse_instant
from profiles.money import decimal_of, to_minor
from profiles.state import TRAITS, Profile
from rules.documents import Node
from rules.predicates import Predicate, conditions
from rules.spec import Field, FieldSource, Reader, Scope, TraitExample, TraitKind

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T.*)?")
_LIST_MAX: Final = 100
_KINDS: Final = {"int": "number", "number": "number", "money": "money"}
_KEYS: Final = ("between", "of", "from", "sources", "says")
Take = Callable[[Any], Any]
"""A value as it was said -> as it is of the type, or ``None``."""


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    kind = spec.choice(("text", "int", "number", "money", "date", "bool", "enum", "list"))
    between, of = node.get("between"), node.get("of")
    take, wanted = _take(kind, scope.currency)
    if between is not None:
        take, wanted = _between(kind, take, wanted, between, scope.currency)
    if of is not None:
        options = [one.scalar() for one in of]
        if kind not in ("enum", "list"):
            of.wrong("of: goes with `enum` and `list` only")
        take, wanted = _among(take, options), f"{wanted} of {', '.join(map(str, options))}"
    elif kind == "enum":
        node.wrong("'of' is missing: the values that there are")
    sources = node.get("sources")
    from_node = node.get("from")
    scope.field(
        Field(
            name,
            wanted,
            take,
            tuple(sources.texts()) if sources is not None else (),
            tuple(_source(one, scope) for one in from_node) if from_node is not None else (),
        )
    )

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        trait = profile.traits.get(name)
        return (take(trait.value) if trait is not None and trait.value is not None else None), FOREVER

    return {name: Reader(read, _KINDS.get(kind, "any"), frozenset({("part", TRAITS)}))}


def _source(node: Node, scope: Scope) -> FieldSource:
    """``{event: survey_answered, where: [{question: skin}], field: code}``."""
    node.known(("event", "where", "field"), required=("event", "field"))
    event, field = node.get("event"), node.get("field")
    types = scope.event_types(event) if event is not None else ()
    where: Predicate | None = conditions(node.get("where"), types, currency=scope.currency)[0]
    return FieldSource(types, where, field.text().removeprefix("custom.") if field is not None else "")


def _take(kind: str, currency: str) -> tuple[Take, str]:
    if kind in ("int", "number"):
        return (_whole, "a whole number") if kind == "int" else (_number, "a number")
    if kind == "money":
        return (lambda value: _minor(value, currency)), f"an amount in {currency}"
    if kind == "date":
        return _date, "a date like 1990-05-17"
    if kind == "bool":
        return (lambda value: value if isinstance(value, bool) else None), "true or false"
    if kind == "list":
        return _list, "a list"
    return _text, "a text" if kind == "text" else "one"


def _between(kind: str, take: Take, wanted: str, node: Node, currency: str) -> tuple[Take, str]:
    ends = list(node)
    if kind not in ("int", "number", "money"):
        node.wrong("between: goes with `int`, `number` and `money` only")
        return take, wanted
    if len(ends) != 2:
        node.wrong(f"between: a list of two numbers wanted, like [1, 10], got {node.found()}")
        return take, wanted
    low, high = (_minor(one.number(), currency) if kind == "money" else Fraction(one.number()) for one in ends)
    if low > high:
        node.wrong("between: the lesser number first")

    def within(value: Any) -> Any:
        number = take(value)
        return number if number is not None and low <= number <= high else None

    return within, f"{wanted} from {ends[0].found()} to {ends[1].found()}"


def _among(take: Take, options: list[Any]) -> Take:
    def among(value: Any) -> Any:
        taken = take(value)
        several = taken if isinstance(taken, list) else [taken]
        return taken if taken is not None and all(one in options for one in several) else None

    return among


def _number(value: Any) -> int | Fraction | None:
    try:
        number = Fraction(decimal_of(value))
    except ValueError:
        return None
    return int(number) if number.denominator == 1 else number


def _whole(value: Any) -> int | None:
    number = _number(value)
    return number if isinstance(number, int) else None


def _minor(value: Any, currency: str) -> Any:
    try:
        return to_minor(decimal_of(value), currency)
    except ValueError:
        return None


def _date(value: Any) -> str | None:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        parse_instant(value)
    except ValueError:
        return None
    return value


def _list(value: Any) -> list[Any] | None:
    several = value if isinstance(value, list) else [value]
    plain = all(isinstance(one, str | int | float) for one in several)
    return several if plain and 0 < len(several) <= _LIST_MAX else None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


SPEC = TraitKind(
    "said",
    "What is said of a person, with a type: `text`, `int`, `number` (with `between`), `money`, `date`, `bool`, `enum` (with `of`), `list`"
    " (perhaps with `of`). A value of another kind is refused, with a decision. `from` takes it from events' properties too. `sources`"
    " are names of sources or event types, the best first: a statement of a worse one never replaces one of a better, however new.",
    _KEYS,
    _compile,
    examples=(
        TraitExample(
            "{said: int, between: [1, 10]}",
            """
            0d  ana  identified it=6
            0d  ana  expect trait it 6
            1d  ana  identified it=11
            2d  ana  identified it=good
            2d  ana  expect trait it 6
            3d  ana  identified it=7
            3d  ana  expect trait it 7
            """,
        ),
        TraitExample(
            "{said: list, of: [dry, oily], from: {event: survey_answered, where: [{question: skin}], field: code}}",
            """
            0d  ana  survey_answered question=skin code=dry
            0d  ana  expect trait it dry
            1d  ana  survey_answered question=skin code=blue
            1d  ana  survey_answered question=hair code=oily
            1d  ana  expect trait it dry
            """,
        ),
        TraitExample(
            "{said: text, sources: [crm, registered]}",
            """
            0d  ana  identified it=Bonn
            0d  ana  expect trait it Bonn
            1d  ana  registered it=Ulm
            2d  ana  identified it=Bonn
            2d  ana  expect trait it Ulm
            3d  ana  identified it=Kiel source=crm
            4d  ana  registered it=Ulm
            4d  ana  expect trait it Kiel
            """,
        ),
    ),
)
