"""Conditions on an event's properties and on the items in it: ``where: [{channel: store}]``.

Senders may put properties of their own beside those that a type has; in a rule these go as ``custom.<name>``, so that a
slip in a known name is a mistake at its line and not a condition that never holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from profiles.money import exponent
from profiles.payloads import AnyPayload
from profiles.schemas import ITEM, props_schema
from profiles.taxonomy import EVENT_TYPES
from rules.compare import NUMERIC, Test, normal, under, words
from rules.documents import Node
from rules.slips import did_you_mean

Predicate = Callable[[Any], bool]

CUSTOM: Final = "custom."
MACHINE: Final = "machine"
REACTIONS: Final = frozenset(name for name in EVENT_TYPES if name.endswith(("_opened", "_link_clicked")))
"""What machines do, too: mail programs fetch pictures, gateways follow links."""
_ITEM: Final = tuple(ITEM["properties"])
_MINOR: Final = "_minor"
_E6: Final = "_e6"


def conditions(
    node: Node | None,
    types: tuple[str, ...] = (),
    *,
    of_items: bool = False,
    of_anybody: bool = False,
    beside: tuple[str, ...] = (),
    currency: str = "",
) -> tuple[Predicate | None, str]:
    """Compile a list of ``{property: value}`` or ``{property: {op: value}}``; all must hold.

    A plain value means equal; for ``category`` it means that category or one below it.
    ``exists: true|false`` asks for the property itself. What a machine is known to have done with a message does not count,
    unless a condition is on ``machine``.

    Args:
        types: of the events that are meant: a property that none of them has is a mistake, unless it is ``custom.<name>``;
            events of the shop's own may have any.
        of_items: the conditions are on the items of these events.
        of_anybody: what machines did counts, too.
        beside: comparisons that are made elsewhere, and may be meant.
        currency: the shop's: amounts may be asked by their plain names, ``total`` or ``price``, in major units; "" where they may not.
    Returns:
        A predicate over a mapping of properties (``None`` when nothing is asked), and a canonical text
        that equal conditions share.
    """
    guarded = not of_items and not of_anybody and not REACTIONS.isdisjoint(types)
    if node is None:
        return (of_people, _OF_PEOPLE) if guarded else (None, "")
    known = _properties(types)
    if of_items and known:
        if "items" not in known:
            node.wrong(f"{' or '.join(types)} has no items: what it has is asked by `where`")
        known = _ITEM
    tests: list[Predicate] = []
    asks_machine = False
    for one in node:
        for name, wanted in one.items():
            asks_machine |= name == MACHINE
            amount = _amount(name, known) if currency else ""
            if amount and not (of_items and amount.endswith(_MINOR)):  # No item says in which currency it is.
                only_amounts(wanted, currency)
                tests.append(_of_amount(amount, currency, _compared(name, wanted, beside)))
                continue
            if known and not name.startswith(CUSTOM) and name.partition(".")[0] not in known:
                whose = ("an item of " if of_items else "") + " or ".join(types)
                wanted.wrong(f"{whose} has no property {name!r}{_hint(name, types, of_items=of_items)}")
            tests.append(_of_property(name.removeprefix(CUSTOM), _condition(name, wanted, beside)))
    canonical = json.dumps(node.plain(), sort_keys=True, default=str, ensure_ascii=False)
    if guarded and not asks_machine:
        tests.append(_of_property(MACHINE, _no_machine))
        canonical += _OF_PEOPLE
    if not tests:
        return None, canonical
    if len(tests) == 1:
        return tests[0], canonical
    return lambda props: all(test(props) for test in tests), canonical


def _amount(name: str, known: Collection[str]) -> str:
    """Under which of these names the amount lies that rules call ``total`` or ``price``; "" where it is none.

    A unit price goes by millionths, whatever its currency; an amount by minor units of the event's.
    """
    if name in known:
        return ""
    return next((kept for kept in (name + _MINOR, name + _E6) if kept in known), "")


def read_by(name: str, types: tuple[str, ...]) -> tuple[str, ...]:
    """Which properties of these events a condition on ``name`` reads."""
    amount = _amount(name, _properties(types))
    return (amount, "currency") if amount else (name.removeprefix(CUSTOM),)


def _of_amount(kept: str, currency: str, test: Test) -> Predicate:
    """A test of an amount in major units, exact; an event's in another currency than the shop's is none."""
    if kept.endswith(_E6):
        return lambda props: test(Fraction(props[kept], 10**6) if props.get(kept) is not None else None)
    scale, currencies = 10 ** exponent(currency), (None, currency)

    def holds(props: dict[str, Any]) -> bool:
        minor = props.get(kept)
        return test(Fraction(minor, scale) if minor is not None and props.get("currency") in currencies else None)

    return holds


def only_amounts(wanted: Node, currency: str) -> None:
    """Tell what is compared with an amount and is none."""
    if wanted.is_map():
        wanted.known((*NUMERIC, "exists"))
    asked = wanted.items() if wanted.is_map() else [("in" if isinstance(wanted.value, list) else "eq", wanted)]
    for op, operand in asked:
        for one in operand if op in ("in", "not_in") else (operand,) if op in ("eq", "ne") else ():
            one.number(f"an amount of {currency} like 500 or 499.90")


def _of_property(name: str, test: Test) -> Predicate:
    return lambda props: test(value_at(props, name))


def _hint(name: str, types: tuple[str, ...], *, of_items: bool) -> str:
    """Where a property stands that these events, or their items, have not."""
    known, root = _properties(types), name.partition(".")[0]
    if of_items and root in known:
        return f"; the event has: where: [{{{name}: …}}]"
    if not of_items and "items" in known and (root in _ITEM or _amount(root, _ITEM)):
        named = types[0] if len(types) == 1 else f"[{', '.join(types)}]"
        return f"; its items have: {{did: {named}, item: [{{{name}: …}}]}}"
    there = _ITEM if of_items else known
    amounts = [one.removesuffix(_E6 if of_items else _MINOR) for one in there]
    return f"{did_you_mean(name, (*amounts, *there))} (a property of your own goes as {CUSTOM}{name})"


def of_people(props: dict[str, Any]) -> bool:
    """Whether no machine is known to have done it: a mail program that fetches pictures opens nothing."""
    return not props.get(MACHINE)


_OF_PEOPLE: Final = "|of people"


def _no_machine(value: Any) -> bool:
    return not value


@lru_cache(maxsize=1_024)
def _properties(types: tuple[str, ...]) -> tuple[str, ...]:
    """What these event types have between them; empty where one of them may have anything."""
    found: list[str] = []
    for name in types:
        known = EVENT_TYPES.get(name)
        if known is None or known.payload is AnyPayload:
            return ()
        found.extend(props_schema(known)["properties"])
    return tuple(dict.fromkeys(found))


def value_at(props: dict[str, Any], path: str) -> Any:
    """The value at ``a.b.c``, or ``None``."""
    value = props.get(path)
    if value is None and "." in path:
        value = props
        for part in path.split("."):
            if not isinstance(value, dict):
                return None
            value = value.get(part)
    return value


def _condition(name: str, wanted: Node, beside: tuple[str, ...]) -> Test:
    test = _compared(name, wanted, beside)
    if name == MACHINE and any(
        type(one.value) is bool for one in ([one for _, one in wanted.items()] if wanted.is_map() else wanted)
    ):
        # `true` means a machine of whatever class: a scanner is one.
        return lambda value: test(bool(value) if isinstance(value, str) else value)
    return test


def _compared(name: str, wanted: Node, beside: tuple[str, ...]) -> Test:
    if wanted.is_map():
        exists = wanted.get("exists")
        allowed = (
            "eq", "ne", "in", "not_in", "lt", "lte", "gt", "gte", "between", "contains", "contains_any",
            "contains_all", "starts_with", "ends_with", "matches", "under", "exists", *beside,
        )  # fmt: skip
        wanted.known(allowed)
        test, _ = words(wanted)
        there = exists.truth() if exists is not None else None
        if test is None and there is not None:
            return lambda value: (value is not None) == there
        if test is None and all(op in allowed for op, _ in wanted.items()):
            wanted.wrong(f"a comparison wanted: one of {', '.join(allowed)}")
        if test is None:
            return lambda value: False
        # `ne` and `not_in` hold of what is missing; every other comparison wants something there.
        missing = there is not True and all(op in ("ne", "not_in", "exists") for op, _ in wanted.items())
        inner = test if there is not False else lambda value: False
        return lambda value: missing if value is None else inner(value)
    if name == "category" and isinstance(wanted.value, list):
        paths = tuple(wanted.texts())
        return lambda value: any(under(value, path) for path in paths)
    if isinstance(wanted.value, list):
        options = frozenset(normal(one.scalar()) for one in wanted)
        return lambda value: normal(value) in options if not isinstance(value, dict | list) else False
    if name == "category":
        path = wanted.text()
        return lambda value: under(value, path)
    plain = normal(wanted.scalar())
    return lambda value: normal(value) == plain if not isinstance(value, dict | list) else False
