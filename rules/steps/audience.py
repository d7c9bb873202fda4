"""``audience: {dest: yandex, add: self, remove_on: order_completed}``: a list kept elsewhere, for advertising say, that the customer
is put on or taken off; told on the topic ``audiences``, in words that no network owns.

Being put on it is a moment, with its decision. With ``remove_on`` he is taken off when that happens, though the journey be long over; he is also taken
off when he refuses what the trigger's consent asks for, and when he is erased.
"""

from __future__ import annotations

import re
from typing import Any, Final

from rules.documents import Node
from rules.program import Audience, Leaving, Maker, StepSpec
from rules.words import Tongue

_NAME: Final = re.compile(r"[a-z0-9_]{1,40}")


def _compile(node: Node, maker: Maker) -> None:
    node.known(("dest", "name", "add", "remove", "remove_on"), required=("dest",))
    dest_node, named = node.get("dest"), node.get("name")
    adds, removes, off = node.get("add"), node.get("remove"), node.get("remove_on")
    if dest_node is None:
        return
    if (adds is None) == (removes is None):
        node.wrong("audience: either `add: self` or `remove: self` wanted")
        return
    (adds if adds is not None else removes or node).choice(("self",))
    dest, name = dest_node.text(), named.text() if named is not None else maker.trigger
    for one, text in ((dest_node, dest), (named or node, name)):
        if not _NAME.fullmatch(text):
            one.wrong(f"a name of small letters, digits and _ wanted, got {text!r}")
    if off is not None:
        if removes is not None:
            off.wrong("remove_on: goes with `add`")
        of = off if off.is_map() else off.made({"event": off})
        maker.leaves += [Leaving(dest, name, one) for one in maker.listeners(of)]
    maker.program.append(Audience(maker.next_step(), dest, name, adds is not None))


def _words(asked: Any, t: Tongue) -> str:
    name = f"{asked.get('dest')}" + (f"/{asked['name']}" if "name" in asked else "")
    if "remove" in asked:
        return t.pick(f"take off the audience {name}", f"убрать из аудитории {name}")
    off = asked.get("remove_on")
    until = ""
    if off is not None:
        heard = t.events(off.get("event") if isinstance(off, dict) else off)
        until = t.pick(f" until {heard}", f" до {heard}")
    return t.pick(f"put on the audience {name}{until}", f"добавить в аудиторию {name}{until}")


SPEC = StepSpec(
    "audience",
    "Puts the customer on an audience, told on the topic `audiences`: `{dest: yandex, add: self, remove_on: order_completed}`; `name` (the trigger's unless said); `remove: self` takes him off.",
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: product_added}, steps: [{audience: {dest: yandex, name: carts, add: self, remove_on: order_completed}}]}
        0d  ana  product_added product=mug
        0d  ana  expect audience yandex/carts in
        1d  ana  order_completed order_id=1 product=mug price=1
        1d  ana  expect audience yandex/carts out
        """,
    ),
)
