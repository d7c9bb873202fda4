"""``any_item``: one of a customer's entities, a child or a pet, is as asked."""

from __future__ import annotations

from typing import Any

from profiles.state import TRAITS, Profile
from rules.documents import Node
from rules.entities import matching
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import Answer
from rules.words import Tongue


def _any_item(node: Node, scope: Scope) -> Judged:
    named = node.get("any_item")
    assert named is not None
    path = named.text()
    matches, nobody_until = matching(named, node.get("where"), scope)

    def judge(profile: Profile, now_ms: int) -> Answer:
        found = matches(profile, now_ms)
        if found:
            return True, max(until_ms for _, until_ms in found)
        return False, nobody_until(profile, now_ms)

    def value(profile: Profile, now_ms: int) -> Any:
        return [one for one, _ in matches(profile, now_ms)]

    where = node.get("where")
    asked = f" with {where.plain()}" if where is not None else ""
    return Judged("any_item", f"one of {path}{asked}", judge, frozenset({("part", TRAITS)}), (), value)


def _words(rule: dict[str, Any], t: Tongue) -> str:
    asked = f": {t.conditions(rule['where'])}" if rule.get("where") else ""
    return t.pick(f"one of {rule['any_item']}{asked}", f"среди «{rule['any_item']}» есть{asked or ' кто-то'}")


SPEC = OperatorSpec(
    "any_item",
    "One of the entities in a trait that is a list of objects (`children`, `pets`) is as asked; dates also take `older_than` and"
    " `newer_than`, which change at midnight in the customer's zone.",
    ("where",),
    _any_item,
    (
        RuleExample(
            "{any_item: children, where: {birth_date: {newer_than: P3Y}}}",
            """
            0d  ana  identified children=[{name=Max;birth_date=2023-01-03}|{name=Eva;birth_date=2010-05-01}]
            0d  ana  expect in, wake 2026-01-03T00:00
            2d  ana  expect out
            """,
        ),
        RuleExample(
            "{any_item: pets, where: {species: dog}}",
            """
            0d  ana  identified pets=[{species=cat}]
            0d  ana  expect out
            1d  ana  identified pets=[{species=cat}|{species=dog}]
            1d  ana  expect in
            """,
        ),
    ),
    _words,
)
