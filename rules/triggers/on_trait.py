"""``on: {trait: …}``: three ways in.

``reaches_age: P3M``: so much time has passed since a moment; one occasion for each such moment, and a new order sets a
new one. ``crosses: 3``: a number is that great, and was not before; it is the segment ``<trigger>.crossed``, entered.
``every: 6``: a number has passed one more multiple than ever before: what was given is given, and taken back and done
again it is no new one.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from profiles.moments import Duration, iso
from profiles.state import Profile
from rules.documents import Node
from rules.program import Chance, Entry, TriggerSpec
from rules.spec import Reader, Scope
from rules.words import Tongue

_WAYS = ("reaches_age", "crosses", "every")
_NUMBERS = ("number", "money", "any")


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    named = node.get("trait")
    assert named is not None
    path = named.text()
    reader = scope.reader(path, named)
    if any(what == "segment" for what, _ in reader.reads):
        named.wrong(f"trait: a stage is entered, left and stayed in as a segment, wanted `segment`, got {path}")
    ways = [way for way in _WAYS if node.get(way) is not None]
    if len(ways) != 1:
        node.wrong(f"one of {', '.join(_WAYS)} wanted, got {' and '.join(ways) or 'none'}")
        return Entry()
    value = node.get(ways[0])
    assert value is not None
    if ways[0] == "reaches_age":
        if reader.kind in ("number", "money", "span", "text"):
            named.wrong(f"trait: one that is a time wanted, got a {reader.kind}")
        return Entry(timers=_age(path, reader, value.duration(), scope), reads=reader.reads, stays=True)
    if reader.kind not in _NUMBERS:
        named.wrong(f"trait: a number wanted, got a {reader.kind}")
    if ways[0] == "crosses":
        rule = node.made({"trait": named, "gte": value})
        return Entry(segment=scope.made_segment(f"{trigger}.crossed", rule, node))
    return Entry(counted=_multiples(reader, value.integer(least=1, default=1)), reads=reader.reads)


def _age(path: str, reader: Reader, age: Duration, scope: Scope) -> Callable[[Profile], dict[str, tuple[int, Chance]]]:
    zone = scope.zone
    said = f"{path} reached {age}"

    def timers(profile: Profile) -> dict[str, tuple[int, Chance]]:
        at_ms, _ = reader.read(profile, profile.seen_ms)
        if not isinstance(at_ms, int) or isinstance(at_ms, bool):
            return {}
        due_ms = age.after(at_ms, zone)
        return {"": (due_ms, Chance(f"age:{due_ms}", {"node": said, "value": iso(at_ms)}))}

    return timers


def _multiples(reader: Reader, of: int) -> Callable[[Profile], int]:
    def counted(profile: Profile) -> int:
        value, _ = reader.read(profile, profile.seen_ms)
        return int(value // of) if isinstance(value, int | Fraction) and not isinstance(value, bool) else 0

    return counted


def _words(on: dict[str, Any], t: Tongue) -> str:
    name = t.trait(on["trait"])
    if "reaches_age" in on:
        ago = t.duration(on["reaches_age"])
        return t.pick(f"{name} was {ago} ago", f"{name}: прошло {ago}")
    if "crosses" in on:
        return t.pick(f"{name} reaches {t.value(on['crosses'])}", f"{name}: становится {t.value(on['crosses'])}")
    return t.pick(f"{name}: each {t.value(on['every'])} more", f"{name}: каждые {t.value(on['every'])}")


SPEC = TriggerSpec(
    "trait",
    "When a time that the profile knows reaches an age; when a number crosses a threshold upwards, or passes every n-th multiple.",
    _WAYS,
    _compile,
    _words,
    (
        """
        trigger it = {on: {trait: last_order_at, reaches_age: P3M}, steps: [{emit: come_back}]}
        0d    ana  order_completed order_id=1 total=10
        89d   ana  expect emits it 0
        P3M   ana  expect emits it 1
        """,
        """
        trigger it = {on: {trait: orders_paid, crosses: 2}, re_entry: once, steps: [{emit: discount}]}
        0d  ana  order_completed order_id=1 total=10
        0d  ana  expect emits it 0
        1d  ana  order_completed order_id=2 total=10
        1d  ana  expect emits it 1, in it.crossed
        """,
        """
        trait coffees = {count: order, item: [{product_id: coffee}], per: item}
        trigger it = {on: {trait: coffees, every: 2}, steps: [{emit: "free_{nth}"}]}
        0d  ana  order_completed order_id=1 product=coffee price=3
        1d  ana  order_completed order_id=2 product=coffee price=3
        1d  ana  expect emits it/free_1 1
        2d  ana  order_refunded order_id=2
        3d  ana  order_completed order_id=3 product=coffee price=3
        3d  ana  expect emits it 1
        4d  ana  order_completed order_id=4 product=coffee price=3
        5d  ana  order_completed order_id=5 product=coffee price=3
        5d  ana  expect emits it/free_2 1, emits it 2
        """,
    ),
)
