"""``live``: a trigger's journey is under way for this customer (a cart reminder pending, say)."""

from __future__ import annotations

from typing import Any

from profiles.state import Profile
from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import Answer, always
from rules.words import Tongue


def _live(node: Node, scope: Scope) -> Judged:
    named = node.get("live")
    assert named is not None
    trigger = scope.trigger(named.text(), named)

    def judge(profile: Profile, now_ms: int) -> Answer:
        return always(any(run.trigger == trigger for run in profile.runs.values()))

    # Journeys are no part that segments may read: they are changed by what segments say.
    return Judged(
        "live",
        f"{trigger} is under way",
        judge,
        frozenset({("runs", trigger)}),
        (),
        lambda p, now_ms: judge(p, now_ms)[0],
    )


def _words(rule: dict[str, Any], t: Tongue) -> str:
    return t.pick(f"{rule['live']} is under way", f"идёт {rule['live']}")


SPEC = OperatorSpec(
    "live",
    "That trigger is under way for the customer; in a trigger's `when` only.",
    (),
    _live,
    (
        RuleExample(
            "{on: {event: page_viewed}, when: {not: {live: cart}}, steps: [{emit: hello}]}",
            """
            trigger cart = {on: {event: product_added}, steps: [{wait: PT2H}, {emit: left}]}
            0h  ana  page_viewed
            0h  ana  expect emits it 1
            1h  ana  product_added
            2h  ana  page_viewed
            2h  ana  expect emits it 1
            4h  ana  page_viewed
            4h  ana  expect emits cart 1, emits it 2
            """,
        ),
    ),
    _words,
)
