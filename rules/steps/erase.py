"""``erase``: forget the customer, as an operator's erasure does: the whole person, at every address. It is a moment, with its decision."""

from __future__ import annotations

from typing import Any

from rules.documents import Node
from rules.program import Erase, Maker, StepSpec
from rules.words import Tongue


def _compile(node: Node, maker: Maker) -> None:
    node.choice(("self",))
    maker.program.append(Erase(maker.next_step()))


def _words(asked: Any, t: Tongue) -> str:
    return t.pick("erase the customer", "стереть клиента")


SPEC = StepSpec(
    "erase",
    "Erases the customer: `erase: self`. What he does afterwards begins anew, with nothing.",
    _compile,
    _words,
    (
        """
        segment buyers = {did: order}
        trigger it = {on: {event: registered}, cancel_on: [{event: page_viewed}], steps: [{wait: P30D}, {erase: self}]}
        0d   ana  order_completed order_id=1 total=10
        0d   ana  registered
        29d  ana  expect in buyers
        30d  ana  expect out buyers, alarm none
        """,
    ),
)
