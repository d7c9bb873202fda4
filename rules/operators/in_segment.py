"""``in_segment``: a segment made of other segments. Memberships are state, so it is a look-up, never a query.

With ``for`` it asks how long somebody has been in it without a break.
"""

from __future__ import annotations

from typing import Any

from profiles.ids import small_id
from profiles.state import Profile
from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import NO, YES, Answer
from rules.words import Tongue


def _in_segment(node: Node, scope: Scope) -> Judged:
    named = node.get("in_segment")
    assert named is not None
    name = scope.segment(named.text(), named)
    segment = small_id(name)

    dwelt = node.get("for")
    if dwelt is None:

        def judge(profile: Profile, now_ms: int) -> Answer:
            return YES if segment in profile.members else NO
    else:
        length, zone = dwelt.duration(), scope.zone

        def judge(profile: Profile, now_ms: int) -> Answer:
            since_ms = profile.members.get(segment)
            if since_ms is None:
                return NO
            ripe_ms = length.after(since_ms, zone)
            return YES if now_ms >= ripe_ms else (False, ripe_ms)

    return Judged(
        "in_segment",
        f"in segment {name}{f' for {dwelt.value}' if dwelt is not None else ''}",
        judge,
        frozenset({("segment", name)}),
        (),
        lambda profile, now_ms: segment in profile.members,
    )


def _words(rule: dict[str, Any], t: Tongue) -> str:
    name, length = rule["in_segment"], t.duration(rule["for"]) if "for" in rule else ""
    return t.pick(
        f"in the segment {name}{f' for {length}' if length else ''}",
        f"в сегменте {name}{f' уже {length}' if length else ''}",
    )


SPEC = OperatorSpec(
    "in_segment",
    "The customer is in that segment; `for` that long without a break.",
    ("for",),
    _in_segment,
    (
        RuleExample(
            "{all: [{in_segment: buyers}, {did: product_viewed}]}",
            """
            segment buyers = {did: order, window: {within: P30D}}
            0d   ana  product_viewed
            0d   ana  expect out it
            1d   ana  order_completed order_id=1 total=10
            1d   ana  expect in it, in buyers
            31d  ana  expect out it, out buyers
            """,
        ),
        RuleExample(
            "{in_segment: buyers, for: P7D}",
            """
            segment buyers = {did: order, window: {within: P10D}}
            0d   ana  order_completed order_id=1 total=10
            0d   ana  expect out it, in buyers
            7d   ana  expect in it
            10d  ana  expect out it, out buyers
            11d  ana  order_completed order_id=2 total=10
            17d  ana  expect out it, in buyers
            18d  ana  expect in it
            """,
        ),
    ),
    _words,
)
