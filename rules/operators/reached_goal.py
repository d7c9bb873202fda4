"""``reached_goal``: a goal of the shop's, declared under ``goals:``, was reached."""

from __future__ import annotations

from typing import Any

from rules.documents import Node
from rules.kept import measured
from rules.series import source_of
from rules.spec import GOAL_REACHED, Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import all_of
from rules.words import Tongue

_MEASURES = ("times", "distinct_days")


def _reached(node: Node, scope: Scope) -> Judged:
    named = node.get("reached_goal")
    assert named is not None
    goal = scope.goal(named.text(), named)

    def made(value: Any) -> Node:
        return Node(value, named.file, named.line, named.where, named.mistakes)

    asked = {key: one for key, one in node.items() if key == "window"}
    source = source_of(made(GOAL_REACHED), made({**asked, "where": made([made({"goal": made(goal)})])}), scope)
    wanted = {name: one for name in _MEASURES if (one := node.get(name)) is not None}
    found = [measured(name, one, source, scope) for name, one in (wanted or {"times": made({"gte": made(1)})}).items()]
    text = f"reached the goal {goal}{f' {source.window}' if source.window is not None else ''}"
    return Judged(
        "reached_goal",
        ", ".join((text, *(one.text for one in found if wanted))),
        all_of(tuple(one.judge for one in found)),
        frozenset().union(*(one.reads for one in found)),
        (),
        found[0].value,
        found[0].events,
    )


def _words(rule: dict[str, Any], t: Tongue) -> str:
    said = [t.pick(f"reached the goal {rule['reached_goal']}", f"достигнута цель {rule['reached_goal']}")]
    for measure, (english, russian) in (
        ("times", ("times", "раз")),
        ("distinct_days", ("different days", "разных дней")),
    ):
        if measure in rule:
            said.append(f"{t.pick(english, russian)}: {t.compared(rule[measure])}")
    if "window" in rule:
        said.append(t.window(rule["window"]))
    return ", ".join(said)


SPEC = OperatorSpec(
    "reached_goal",
    "The customer reached that goal: at least once, or as often and as lately as asked.",
    ("window", *_MEASURES),
    _reached,
    (
        RuleExample(
            "{reached_goal: subscribe, window: {within: P30D}}",
            """
            goal subscribe = {event: consent_changed, where: {channel: email, state: granted}}
            0d   ana  consent_changed channel=sms state=granted
            0d   ana  expect out
            1d   ana  consent_changed channel=email state=granted
            1d   ana  expect in, wake 31d
            31d  ana  expect out
            """,
        ),
        RuleExample(
            "{reached_goal: generate_lead}",
            """
            0d  ana  form_submitted form_id=callback
            0d  ana  expect in
            """,
        ),
    ),
    _words,
)
