"""``wait_until: "10:00"``: go on at the next such wall time, in the customer's zone unless said; ``weekdays`` leaves days out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from profiles.moments import instant, local
from profiles.people import zone_of
from profiles.state import Instance, Profile
from rules.documents import Node
from rules.program import Maker, StepSpec, Until
from rules.words import Tongue

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _compile(node: Node, maker: Maker) -> None:
    at_node, days_node, of = node, None, None
    if node.is_map():
        node.known(("at", "weekdays", "zone"), required=("at",))
        found, days_node, of = node.get("at"), node.get("weekdays"), node.get("zone")
        if found is None:
            return
        at_node = found
    wall = at_node.wall_time()
    days = [DAYS.index(one.choice(DAYS)) for one in days_node] if days_node is not None else range(7)
    shops = of is not None and of.choice(("profile", "shop")) == "shop"
    shop_zone = maker.scope.zone

    def due(profile: Profile, run: Instance, now_ms: int) -> int | None:
        zone = shop_zone if shops else zone_of(profile, shop_zone)
        today = local(now_ms, zone).date()
        for ahead in range(9):
            day = today + timedelta(days=ahead)
            at_ms = instant(datetime.combine(day, wall, tzinfo=zone))
            if at_ms >= now_ms and day.weekday() in days:
                return at_ms
        return None

    maker.program.append(Until(due, len(maker.program) + 1))


def _words(asked: Any, t: Tongue) -> str:
    at = asked.get("at") if isinstance(asked, dict) else asked
    days = asked.get("weekdays") if isinstance(asked, dict) else None
    return t.pick(f"wait until {at}", f"ждать до {at}") + (f" ({t.value(days)})" if days else "")


SPEC = StepSpec(
    "wait_until",
    'Waits for a wall time, the customer\'s: `"10:00"`, or `{at: "10:00", weekdays: [mon, fri], zone: shop}`.',
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
    ),
)
