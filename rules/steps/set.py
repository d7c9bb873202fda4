"""``set: {discount: vip}``: state traits of the customer, as anybody else would; ``null`` takes one back."""

from __future__ import annotations

from typing import Any

from profiles import people
from profiles.state import TRAITS, Instance, Profile, Trait
from rules.documents import Node
from rules.program import Act, Maker, StepSpec
from rules.words import Tongue


def _compile(node: Node, maker: Maker) -> None:
    values: dict[str, Any] = {}
    for name, one in node.items():
        maker.scope.reader(name, one)  # A slip of a known trait's name is a mistake here, too.
        values[name] = None if one.value is None else one.scalar()
    source = f"trigger:{maker.trigger}"

    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        for name, value in values.items():
            if value is not None:
                people.put(profile, name, value, now_ms, source)
            elif name in profile.traits:
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
