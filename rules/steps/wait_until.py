"""``wait_until: "10:00"``: go on at the next such wall time, in the customer's zone unless said; ``weekdays`` leaves days out.

``{at: {hour_of: usual_hour}, else: "10:00"}`` is the customer's own hour, by a trait, or where he has none another wall time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any, Final

from profiles.moments import instant, local
from profiles.people import zone_of
from profiles.state import Instance, Profile
from rules.documents import Node
from rules.program import Maker, StepSpec, Until
from rules.spec import UNREADABLE
from rules.words import Tongue

Wall = Callable[[Profile, int], time]
"""Profile, now -> until which wall time he is to wait."""
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _compile(node: Node, maker: Maker) -> None:
    at_node, days_node, of = node, None, None
    if node.is_map():
        node.known(("at", "weekdays", "zone", "else"), required=("at",))
        found, days_node, of = node.get("at"), node.get("weekdays"), node.get("zone")
        if found is None:
            return
        at_node = found
    wall_of = _hour_of(at_node, node, maker) if at_node.is_map() else _always(at_node, node)
    days = [DAYS.index(one.choice(DAYS)) for one in days_node] if days_node is not None else range(7)
    shops = of is not None and of.choice(("profile", "shop")) == "shop"
    shop_zone = maker.scope.zone

    def due(profile: Profile, run: Instance, now_ms: int) -> int | None:
        zone = shop_zone if shops else zone_of(profile, shop_zone)
        today, wall = local(now_ms, zone).date(), wall_of(profile, now_ms)
        for ahead in range(9):
            day = today + timedelta(days=ahead)
            at_ms = instant(datetime.combine(day, wall, tzinfo=zone))
            if at_ms >= now_ms and day.weekday() in days:
                return at_ms
        return None

    maker.program.append(Until(due, len(maker.program) + 1))


def _always(at_node: Node, node: Node) -> Wall:
    wall, instead = at_node.wall_time(), node.get("else") if node.is_map() else None
    if instead is not None:
        instead.wrong("else: goes with `at: {hour_of: …}`, for whom the trait is not known")
    return lambda profile, now_ms: wall


def _hour_of(at_node: Node, node: Node, maker: Maker) -> Wall:
    at_node.known(("hour_of",), required=("hour_of",))
    trait, instead = at_node.get("hour_of"), node.get("else")
    if instead is None:
        node.wrong('else: a wall time like "10:00" wanted, for whom the trait is not known')
    if trait is None or instead is None:
        return lambda profile, now_ms: time(0)
    reader = maker.scope.reader(trait.text(), trait)
    if reader is not UNREADABLE and reader.kind != "number":
        trait.wrong(f"hour_of: a trait that is an hour from 0 to 23 wanted, got a {reader.kind}")
    otherwise = instead.wall_time()

    def wall(profile: Profile, now_ms: int) -> time:
        value, _ = reader.read(profile, now_ms)
        return time(value) if isinstance(value, int) and 0 <= value < 24 else otherwise

    return wall


def _words(asked: Any, t: Tongue) -> str:
    at = asked.get("at") if isinstance(asked, dict) else asked
    if isinstance(at, dict):
        otherwise = asked.get("else")
        at = t.pick(
            f"the hour of {at.get('hour_of')} (or {otherwise})", f"часа из {at.get('hour_of')} (или {otherwise})"
        )
    days = asked.get("weekdays") if isinstance(asked, dict) else None
    return t.pick(f"wait until {at}", f"ждать до {at}") + (f" ({t.value(days)})" if days else "")


SPEC = StepSpec(
    "wait_until",
    'Waits for a wall time, the customer\'s: `"10:00"`, or `{at: "10:00", weekdays: [mon, fri], zone: shop}`. With `{at: {hour_of: usual_hour}, else: "10:00"}` it is the hour that a trait names.',
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: registered}, steps: [{wait_until: {at: "10:00", weekdays: [mon]}}, {emit: hello}]}
        start 2026-01-01T12:00
        0d                ana  registered timezone=Asia/Tokyo
        2026-01-05T00:59  ana  expect emits it 0
        2026-01-05T01:00  ana  expect emits it 1
        """,
        """
        trait usual_hour = {mode: local_hour, of: page_viewed}
        trigger it = {on: {event: registered}, steps: [{wait_until: {at: {hour_of: usual_hour}, else: "10:00"}}, {emit: hello}]}
        start 2026-01-01T20:30
        0h                ana  page_viewed path=/
        1h                ana  registered
        1h                bob  registered
        2026-01-02T09:59  bob  expect emits it 0
        2026-01-02T10:00  bob  expect emits it 1
        2026-01-02T19:59  ana  expect emits it 0
        2026-01-02T20:00  ana  expect emits it 1
        """,
    ),
)
