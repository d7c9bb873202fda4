"""``set: {discount: vip}``: state traits of the customer, as anybody else would; ``null`` takes one back.

A value must be of the trait's declared type; and where better sources have spoken, it changes nothing.
"""

from __future__ import annotations

from typing import Any

from profiles import people
from profiles.state import TRAITS, Instance, Profile, Trait
from rules.documents import Node
from rules.program import Act, Maker, StepSpec
from rules.spec import Field
from rules.words import Tongue


def _compile(node: Node, maker: Maker) -> None:
    values: dict[str, Any] = {}
    fields: dict[str, Field] = {}
    for name, one in node.items():
        field = maker.scope.stated(name, one)
        value = values[name] = None if one.value is None else one.value if isinstance(one.value, list) else one.scalar()
        if isinstance(value, list):
            value = values[name] = [each.scalar() for each in value]
        if field is not None:
            fields[name] = field
        if field is not None and value is not None and field.take(value) is None:
            one.wrong(f"{name}: {field.wanted} wanted, got {one.found()}")
    source = f"trigger:{maker.trigger}"

    def rank(name: str, told_by: str) -> int:
        return fields[name].rank(told_by) if name in fields else 0

    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        for name, value in values.items():
            if value is not None:
                people.put(profile, name, value, now_ms, source, rank)
            elif name in profile.traits and rank(name, source) >= rank(name, profile.traits[name].source):
                profile.traits[name] = Trait(None, now_ms, source)
                profile.dirty |= TRAITS

    maker.program.append(Act(act))


def _words(asked: Any, t: Tongue) -> str:
    told = ", ".join(f"{name} = {t.value(value)}" for name, value in asked.items())
    return t.pick(f"set {told}", f"записать {told}")


SPEC = StepSpec(
    "set",
    "States traits, `{discount: vip}`; `null` takes one back.",
    _compile,
    _words,
    (
        """
        segment vip = {trait: custom.discount, eq: vip}
        trigger it = {on: {trait: orders_paid, crosses: 2}, steps: [{set: {custom.discount: vip}}, {wait: P3D}, {set: {custom.discount: null}}]}
        0d  ana  order_completed order_id=1 total=10
        0d  ana  expect out vip
        1d  ana  order_completed order_id=2 total=10
        1d  ana  expect in vip
        4d  ana  expect out vip
        """,
    ),
)
