"""``on: {at: 2026-11-25T10:00, over: regulars}``: everybody on a list, at an instant.

The list is a static segment, so that who gets it is settled before; it brings the segment ``<trigger>.due``, of those on the list
from that instant on. Who is put on the list within a day after it (``open``, a duration, says how long) enters as he comes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from profiles.moments import Duration, instant
from rules.documents import Node
from rules.program import Entry, TriggerSpec
from rules.spec import Scope
from rules.words import Tongue


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    at, over, lasts = node.get("at"), node.get("over"), node.get("open")
    assert over is not None
    if at is None:
        node.wrong("'at' is missing: the instant at which the segment's members enter")
        return Entry()
    scope.segment(over.text(), over)
    try:
        wall = datetime.fromisoformat(at.text())
    except ValueError:
        at.wrong(f"an ISO 8601 time like 2026-11-24T09:00, in the shop's zone, wanted, got {at.found()}")
        return Entry()
    start_ms = instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=scope.zone))
    end_ms = (lasts.duration() if lasts is not None else Duration(days=1)).after(start_ms, scope.zone)
    until = datetime.fromtimestamp(end_ms / 1000, scope.zone).isoformat()
    during = node.made({"time": node.made({"from": at, "until": node.made(until)})})
    rule = node.made({"all": node.made([node.made({"in_segment": over}), during])})
    return Entry(segment=scope.made_segment(f"{trigger}.due", rule, node))


def _words(on: dict[str, Any], t: Tongue) -> str:
    return t.pick(f"{on['at']} comes, for the segment {on['over']}", f"наступает {on['at']}, для сегмента {on['over']}")


SPEC = TriggerSpec(
    "over",
    "At an instant (`at`), for everybody in a segment, a static one best; `open`: and for who comes to it within that time (P1D).",
    ("at", "open"),
    _compile,
    _words,
    (
        """
        segment regulars = {kind: static, formed_from: {trait: orders_paid, gte: 2}, form_at: 2026-01-05T00:00}
        trigger it = {on: {at: 2026-01-08T10:00, over: regulars}, steps: [{emit: closed_sale}]}
        0d                ana  order_completed order_id=1 total=10
        1d                ana  order_completed order_id=2 total=10
        5d                eve  order_completed order_id=3 total=10
        6d                eve  order_completed order_id=4 total=10     # after the list was made
        2026-01-08T09:59  ana  expect emits it 0
        2026-01-08T10:00  ana  expect emits it 1
        20d               ana  expect emits it 1
        20d               eve  expect emits it 0
        """,
    ),
)
