"""``goto: end`` goes on at ``label: end`` further down: never back, so that each step is done once and journeys end."""

from __future__ import annotations

from typing import Any

from rules.documents import Node
from rules.program import Jump, Maker, StepSpec
from rules.words import Tongue


def _goto(node: Node, maker: Maker) -> None:
    maker.jumps.append((len(maker.program), node))
    maker.program.append(Jump(0))


def _label(node: Node, maker: Maker) -> None:
    name = node.text()
    meant = [at for at, one in maker.jumps if one.value == name]
    maker.jumps[:] = [(at, one) for at, one in maker.jumps if one.value != name]
    if not meant:
        node.wrong(f"a label that a `goto` above names wanted, got {name!r}")
    for at in meant:
        maker.program[at] = Jump(len(maker.program))


def _words(asked: Any, t: Tongue) -> str:
    return t.pick(f"go on at {asked}", f"перейти к {asked}")


def _label_words(asked: Any, t: Tongue) -> str:
    return f"[{asked}]"


SPEC = (
    StepSpec("label", "A place that a `goto` above goes to.", _label, _label_words),
    StepSpec(
        "goto",
        "Goes on at a `label` further down.",
        _goto,
        _words,
        (
            """
            trigger it = {on: {event: registered}, steps: [{branch: [{if: {trait: orders_paid, gte: 1}, then: [{goto: known}]}]}, {emit: newcomer}, {label: known}, {emit: hello}]}
            0d  ana  order_completed order_id=1 total=10
            0d  ana  registered
            0d  bob  registered
            0d  ana  expect emits it/newcomer 0, emits it/hello 1
            0d  bob  expect emits it/newcomer 1, emits it/hello 1
            """,
        ),
    ),
)
