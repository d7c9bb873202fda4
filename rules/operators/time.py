"""``time``: it is that instant or later, and earlier than another: a rule's own dates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from profiles.moments import FOREVER, instant, iso
from profiles.state import SEEN, Profile
from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import Answer
from rules.words import Tongue


def _time(node: Node, scope: Scope) -> Judged:
    asked = node.get("time")
    assert asked is not None
    asked.known(("from", "until"))
    begins, ends = (_instant(asked.get(key), scope) for key in ("from", "until"))
    if asked.get("from") is None and asked.get("until") is None:
        asked.wrong("time: 'from', 'until' or both wanted")
    from_ms, until_ms = begins or 0, FOREVER if ends is None else ends
    if from_ms >= until_ms:
        asked.wrong("time: 'until' must be after 'from'")

    def judge(profile: Profile, now_ms: int) -> Answer:
        if now_ms < from_ms:
            return False, from_ms
        return (True, until_ms) if now_ms < until_ms else (False, FOREVER)

    text = " and ".join(
        one for one in (f"from {iso(from_ms)}" if from_ms else "", f"until {iso(until_ms)}" if ends else "") if one
    )
    return Judged("time", f"it is {text}", judge, frozenset({("part", SEEN)}), (), lambda profile, now_ms: iso(now_ms))


def _instant(node: Node | None, scope: Scope) -> int | None:
    if node is None:
        return None
    try:
        wall = datetime.fromisoformat(node.text())
    except ValueError:
        node.wrong(f"an ISO 8601 time like 2026-11-24T09:00, in the shop's zone, wanted, got {node.found()}")
        return None
    return instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=scope.zone))


def _words(rule: dict[str, Any], t: Tongue) -> str:
    asked = rule["time"]
    parts = [t.pick(f"from {asked['from']}", f"с {asked['from']}")] if "from" in asked else []
    parts += [t.pick(f"until {asked['until']}", f"до {asked['until']}")] if "until" in asked else []
    return " ".join(parts)


SPEC = OperatorSpec(
    "time",
    "It is that instant or later, and earlier than `until`; in the shop's zone.",
    (),
    _time,
    (
        RuleExample(
            "{all: [{did: page_viewed}, {time: {from: 2026-01-10T00:00, until: 2026-01-12T00:00}}]}",
            """
            0d                ana  page_viewed
            9d                ana  expect in, entered 9d
            2026-01-11T23:59  ana  expect in
            11d               ana  expect out, left 11d
            """,
        ),
    ),
    _words,
)
