"""``on: {goal: subscribe}``: enter when a goal is reached."""

from __future__ import annotations

from typing import Any

from profiles.state import Profile
from profiles.wire import Event
from rules.documents import Node
from rules.program import Chance, Entry, TriggerSpec
from rules.spec import GOAL_REACHED, Scope
from rules.words import Tongue


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    named = node.get("goal")
    assert named is not None
    goal = scope.goal(named.text(), named)

    def enter(profile: Profile, event: Event) -> Chance | None:
        if event.props.get("goal") != goal:
            return None
        return Chance(event.message_id, {"node": f"goal {goal}", "value": event.message_id})

    return Entry(types=(GOAL_REACHED,), event=enter)


def _words(on: dict[str, Any], t: Tongue) -> str:
    return t.pick(f"the goal {on['goal']} is reached", f"достигнута цель {on['goal']}")


SPEC = TriggerSpec(
    "goal",
    "When a goal is reached.",
    (),
    _compile,
    _words,
    (
        """
        goal lead = {event: form_submitted, where: {form_id: lead}}
        trigger it = {on: {goal: lead}, steps: [{emit: thanks}]}
        0d  ana  form_submitted form_id=other
        0d  ana  form_submitted form_id=lead
        0d  ana  expect emits it 1
        """,
    ),
)
