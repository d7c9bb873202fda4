"""``mode``: what is usual: the hour at which somebody comes, the device, the place."""

from __future__ import annotations

from typing import Any, Final

from profiles.aggregates import weighed
from profiles.moments import FOREVER, local, zone_named
from profiles.state import Profile
from profiles.taxonomy import EVENT_TYPES
from profiles.wire import Event
from rules.documents import Node
from rules.predicates import of_people, value_at
from rules.spec import Reader, Reads, Scope, TraitExample, TraitKind
from rules.windows import window_of

KEPT: Final = 100
_HOUR: Final = "local_hour"
_WORDS: Final = {
    "context.device": "device",
    "context.device.type": "device",
    "context.place.city": "place.city",
    "context.place.country": "place.country",
}
_CALLED: Final = {"context.device.type": {"phone": "mobile"}}
"""What others call by another name: GA4 says mobile, tablet, desktop."""
_TYPES: Final = tuple(sorted(name for name, one in EVENT_TYPES.items() if one.activity))


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    what = spec.choice((_HOUR, *_WORDS))
    of = node.get("of")
    types = scope.event_types(of) if of is not None else _TYPES
    window = window_of(node.get("window"), scope)
    called = _CALLED.get(what, {})

    def hour(event: Event) -> list[Any]:
        try:
            zone = zone_named(event.context["timezone"])
        except (KeyError, ValueError):
            zone = scope.zone
        return [[local(event.at_ms, zone).hour, 1]] if of_people(event.props) else []

    def word(event: Event) -> list[Any]:
        value = value_at(event.context, _WORDS[what])
        value = called.get(value, value) if isinstance(value, str) else value
        return [[value, 1]] if isinstance(value, str) and value and of_people(event.props) else []

    is_hour = what == _HOUR
    agg = scope.aggregate(weighed.SPEC, types, f"{what}|{','.join(types)}", hour if is_hour else word, KEPT)

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        counts: dict[Any, int] = {}
        newest: dict[Any, int] = {}
        until_ms = FOREVER
        place = window.places(profile) if window is not None else None
        for at_ms, value, _ in profile.aggs.get(agg) or ():
            if place is not None:
                enters_ms, leaves_ms = place(at_ms)
                if now_ms < enters_ms < leaves_ms:
                    until_ms = min(until_ms, enters_ms)
                if not enters_ms <= now_ms < leaves_ms:
                    continue
                until_ms = min(until_ms, leaves_ms)
            counts[value] = counts.get(value, 0) + 1
            newest[value] = at_ms
        # Of equally usual ones the newer, then the lesser.
        return min(counts, key=lambda one: (-counts[one], -newest[one], one), default=None), until_ms

    reads: Reads = frozenset({("aggregate", agg)}) | (window.reads if window is not None else frozenset())
    return {name: Reader(read, "number" if is_hour else "text", reads)}


SPEC = TraitKind(
    "mode",
    f"What is usual among the newest {KEPT} acts (or events `of` these types), of equal ones the newest: `local_hour`, 0 to 23, in the zone"
    " that the event tells, else the shop's; `context.device` (phone, tablet, desktop), `context.device.type` (the same, with mobile for phone), `context.place.city`, `context.place.country`. What"
    " a machine is known to have done does not count.",
    ("of", "window"),
    _compile,
    examples=(
        TraitExample(
            "{mode: local_hour, of: [page_viewed, email_opened], window: {within: P30D}}",
            """
            segment evening = {trait: it, between: [18, 23]}
            9h     ana  page_viewed
            1d19h  ana  page_viewed
            2d19h  ana  email_opened
            3d9h   ana  email_opened machine=true
            3d9h   ana  expect trait it 19, in
            31d19h ana  expect trait it 19, in
            32d19h ana  expect trait it none, out
            """,
        ),
    ),
)
