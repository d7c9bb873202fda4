"""Entities of a customer: children, pets, vehicles, told as a trait that is a list of objects.

    {"children": [{"name": "Max", "birth_date": "2024-05-17"}, …]}

What is asked of one of them is asked like an item's properties; a property that is a date can also be asked its age, which
changes at midnight in the customer's zone (his trait ``timezone``, else the shop's).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, tzinfo
from typing import Any, Final

from profiles.moments import FOREVER, Duration, instant, local
from profiles.people import zone_of
from profiles.state import Profile
from rules.documents import Node
from rules.predicates import Predicate, conditions, value_at
from rules.spec import Scope

ENTITIES_MAX: Final = 50
AGES: Final = ("older_than", "newer_than")

Matching = Callable[[Profile, int], list[tuple[dict[str, Any], int]]]
"""(profile, now) -> the entities of which it holds, each with the instant until which it does."""

_Age = tuple[str, str, Duration]


def matching(named: Node, where: Node | None, scope: Scope) -> tuple[Matching, Callable[[Profile, int], int]]:
    """Compile what is asked of one of a customer's entities.

    Args:
        named: the trait that holds them.
    Returns:
        Which match, and until when those that do not match now will not.
    """
    path = named.text()
    scope.reader(path, named)
    plain: list[Node] = []
    ages: list[_Age] = []
    for one in where if where is not None else ():
        for name, wanted in one.items():
            asked = {op: operand for op, operand in wanted.items() if op in AGES} if wanted.is_map() else {}
            ages += [(name, op, operand.duration()) for op, operand in asked.items()]
            rest = {op: operand for op, operand in wanted.value.items() if op not in asked} if asked else wanted.value
            if rest or not asked:
                plain.append(one.made({name: wanted.made(rest)}))
    test: Predicate | None = conditions(where.made(plain), beside=AGES)[0] if where is not None and plain else None

    def judged(entity: dict[str, Any], now_ms: int, zone: tzinfo) -> tuple[bool, int]:
        if test is not None and not test(entity):
            return False, FOREVER
        holds, until_ms = True, FOREVER
        for name, op, age in ages:
            value = value_at(entity, name)
            born = day_of(value, zone) if isinstance(value, str) else None
            if born is None:
                return False, FOREVER
            edge_ms = age.after(midnight(born, zone), zone)
            holds = holds and (now_ms >= edge_ms) == (op == "older_than")
            until_ms = min(until_ms, edge_ms if now_ms < edge_ms else FOREVER)
        return holds, until_ms

    def all_judged(profile: Profile, now_ms: int) -> list[tuple[dict[str, Any], bool, int]]:
        said = profile.traits.get(path)
        told = said.value if said is not None and isinstance(said.value, list) else []
        zone = zone_of(profile, scope.zone) if ages else scope.zone
        return [(one, *judged(one, now_ms, zone)) for one in told[:ENTITIES_MAX] if isinstance(one, dict)]

    def matches(profile: Profile, now_ms: int) -> list[tuple[dict[str, Any], int]]:
        return [(one, until_ms) for one, holds, until_ms in all_judged(profile, now_ms) if holds]

    def nobody_until(profile: Profile, now_ms: int) -> int:
        return min((until_ms for _, holds, until_ms in all_judged(profile, now_ms) if not holds), default=FOREVER)

    return matches, nobody_until


def day_of(value: Any, zone: tzinfo) -> date | None:
    """The day that a trait states: ``2010-05-17``, the beginning of a time, or that of an instant in the zone."""
    if type(value) is int:
        return local(value, zone).date()
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def midnight(day: date, zone: tzinfo) -> int:
    """The first instant of a day in the zone."""
    return instant(datetime.combine(day, time(0), tzinfo=zone))
