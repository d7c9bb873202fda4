"""``on: {event: product_added, where: […]}``: enter when it happens; ``nth: [1, 3]``: the first and the third time only.

What is counted for ``nth`` are different orders where events name one (``order_id``), else events; each number is
reached once in a life.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.aggregates import latest
from profiles.state import Profile
from profiles.wire import Event
from rules.documents import Node
from rules.predicates import conditions
from rules.program import Chance, Entry, TriggerSpec
from rules.spec import Scope
from rules.words import Tongue

NTH_MAX: Final = 100


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    named, nth = node.get("event"), node.get("nth")
    assert named is not None
    types = scope.event_types(named)
    where, canonical = conditions(node.get("where"), types)

    def enter(profile: Profile, event: Event) -> Chance | None:
        if where is not None and not where(event.props):
            return None
        return Chance(event.message_id, {"node": f"event {event.type}", "value": event.message_id})

    if nth is None:
        return Entry(types=types, event=enter)
    numbers = [one.integer(least=1, most=NTH_MAX, default=1) for one in nth]

    def ids(event: Event) -> list[Any]:
        if where is not None and not where(event.props):
            return []
        return [event.props.get("order_id") or event.message_id]

    agg = scope.aggregate(latest.SPEC, types, f"nth|{','.join(types)}|{canonical}", ids, max(numbers, default=1) + 1)

    def enter_nth(profile: Profile, event: Event) -> Chance | None:
        if where is not None and not where(event.props):
            return None
        number = len(profile.aggs.get(agg) or ())
        if number not in numbers:
            return None
        because = {"node": f"event {event.type}, number {number}", "value": event.message_id}
        return Chance(event.message_id, because, {"nth": number}, number)

    return Entry(types=types, event=enter_nth)


def _words(on: dict[str, Any], t: Tongue) -> str:
    where = t.pick(" where ", " где ") + t.conditions(on["where"]) if "where" in on else ""
    nth = t.pick(f" (number {t.value(on['nth'])})", f" (по счёту {t.value(on['nth'])})") if "nth" in on else ""
    return t.pick(f"{t.events(on['event'])} happens", f"происходит {t.events(on['event'])}") + where + nth


SPEC = TriggerSpec(
    "event",
    "When an event happens; with `nth`, when it happens for the first, second … time.",
    ("where", "nth"),
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: order_completed, nth: [1, 3]}, steps: [{emit: "order_{nth}"}]}
        0d  ana  order_completed order_id=1 total=10
        0d  ana  order_completed order_id=1 total=12      # the same order once more
        1d  ana  order_completed order_id=2 total=10
        1d  ana  expect emits it/order_1 1, emits it 1
        2d  ana  order_completed order_id=3 total=10
        2d  ana  expect emits it/order_3 1, emits it 2
        """,
    ),
)
