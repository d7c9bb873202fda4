"""``on: {segment: vip, change: entered}``: enter at the instant of entering, or leaving, a segment; or with ``dwelt`` when
somebody has been in it that long without a break. With ``already: true`` also who is in it when the trigger comes into force."""

from __future__ import annotations

from typing import Any

from rules.documents import Node
from rules.program import Entry, TriggerSpec
from rules.spec import Scope
from rules.words import Tongue


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    named, change = node.get("segment"), node.get("change")
    assert named is not None
    name = scope.segment(named.text(), named)
    entered = change is None or change.choice(("entered", "exited")) == "entered"
    dwelt, already_node = node.get("dwelt"), node.get("already")
    already = already_node is not None and already_node.truth()
    if already_node is not None and not entered:
        already_node.wrong("already: not beside `change: exited`: who has left is not found anywhere")
    if dwelt is not None:
        if change is not None:
            change.wrong("change: not beside `dwelt`: who has been in it so long has neither come nor gone")
        rule = node.made({"in_segment": named, "for": dwelt})
        name = scope.made_segment(f"{name}.for_{str(dwelt.duration()).lower()}", rule, node)
        return Entry(segment=name, already=already)
    return Entry(segment=name, entered=entered, already=already)


def _words(on: dict[str, Any], t: Tongue) -> str:
    name = on["segment"]
    too = (
        t.pick(", or is already when this comes into force", ", или уже к вступлению в силу")
        if on.get("already")
        else ""
    )
    if "dwelt" in on:
        length = t.duration(on["dwelt"])
        return t.pick(f"somebody has been in the segment {name} for {length}", f"в сегменте {name} уже {length}") + too
    left = on.get("change") == "exited"
    return (
        t.pick(
            f"somebody {'leaves' if left else 'enters'} the segment {name}",
            f"{'выход из сегмента' if left else 'вход в сегмент'} {name}",
        )
        + too
    )


SPEC = TriggerSpec(
    "segment",
    "When a customer enters (or leaves) a segment, or has been in it for `dwelt`. New rules open nothing for whom they find in a segment;"
    " with `already: true` this one does, once for each.",
    ("change", "dwelt", "already"),
    _compile,
    _words,
    (
        """
        segment buyers = {did: order, window: {within: P30D}}
        trigger it = {on: {segment: buyers, change: exited}, steps: [{emit: gone}]}
        0d   ana  order_completed order_id=1 total=10
        29d  ana  expect emits it 0
        30d  ana  expect emits it 1
        """,
        """
        segment cart_open = {trait: cart.items, gte: 1}
        trigger it = {on: {segment: cart_open, dwelt: P2D}, steps: [{emit: still_there}]}
        0d  ana  product_added product=mug price=10
        1d  ana  product_removed product=mug
        1d  ana  product_added product=pen price=1
        2d  ana  expect emits it 0
        3d  ana  expect emits it 1
        """,
    ),
)
