"""``sequence``: one thing happened, then another soon enough, or did not.

    sequence:
      - {did: product_viewed, as: v}
      - {then_not: {did: order, item: [{product_id: $v.product_id}]}, within: P7D}

A step follows the one before it: it happened later, and less than ``within`` later. ``then_not`` comes last: it is sure when its
time is over. ``$v.product_id`` is that property of what was named ``as: v``, of the very item where it is an item's.

Of events as many are kept as ``KEPT``, the newest that any step means, each with the properties that are compared; orders are in
the book anyway. From these every chain is found anew at each judging, so what is told late, or taken back, counts in its place.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final, NamedTuple

from profiles import orders
from profiles.aggregates import Aggregate
from profiles.moments import FOREVER, Duration, iso
from profiles.money import exponent
from profiles.schemas import ITEM
from profiles.state import Line, Profile
from profiles.wire import Event
from rules.documents import Node
from rules.predicates import CUSTOM, value_at
from rules.series import ORDER_READS, Source, asked_of_line, asked_of_order, source_of
from rules.slips import did_you_mean
from rules.spec import Judged, OperatorSpec, Reads, RuleExample, Scope
from rules.verdict import NO, Answer
from rules.words import Tongue

KEPT: Final = 100
STEPS_MAX: Final = 5
_NAME: Final = re.compile(r"\$(\w+)\.([\w.]+)")
_STEP: Final = ("did", "as", "where", "item", "status_in")
_NOTHING: Final = Judged("sequence", "?", lambda profile, now_ms: NO, frozenset())


class _Bound(NamedTuple):
    """A property that must equal one of an earlier step: its name, ``as`` what that step goes, the property there."""

    name: str
    of: str
    field: str
    node: Node


@dataclass(frozen=True, slots=True)
class _Step:
    """One step: what it means, which of its properties later ones compare, with which of earlier ones its own must be
    equal (its property, the earlier step, the place among that one's), and how soon it must come."""

    source: Source
    gives: tuple[str, ...]
    takes: tuple[tuple[str, int, int], ...]
    within: Duration | None


class _Row(NamedTuple):
    """Something that a step means: when, and the properties that are compared."""

    at_ms: int
    gives: tuple[Any, ...]
    takes: tuple[Any, ...]


Given = tuple[tuple[Any, ...], ...]
"""Of each step of a chain what later ones compare."""

Stretch = tuple[int, int, tuple[int, ...]]
"""A chain holds from the first instant to the second; the instants of its steps."""


def _sequence(node: Node, scope: Scope) -> Judged:
    named = node.get("sequence")
    assert named is not None
    steps, is_not = _steps(named, scope)
    if not steps:
        return _NOTHING
    types = tuple(sorted({name for step in steps for name in step.source.types}))
    reads: Reads = steps[0].source.window.reads if steps[0].source.window is not None else frozenset()
    if any(step.source.is_order for step in steps):
        reads |= ORDER_READS
    agg = 0
    if types:
        agg = scope.aggregate(_LOG, types, _key(node), _rows_of_events(steps), KEPT)
        reads |= {("aggregate", agg)}
    stretches = _stretches(steps, is_not, agg, scope)

    def judge(profile: Profile, now_ms: int) -> Answer:
        until_ms, next_ms = now_ms, FOREVER
        for from_ms, leaves_ms, _ in stretches(profile):
            if from_ms <= now_ms:
                until_ms = max(until_ms, leaves_ms)
            elif from_ms < leaves_ms:
                next_ms = min(next_ms, from_ms)
        return (True, until_ms) if until_ms > now_ms else (False, next_ms)

    def events(profile: Profile, now_ms: int) -> list[dict[str, Any]]:
        trails = [trail for from_ms, leaves_ms, trail in stretches(profile) if from_ms <= now_ms < leaves_ms]
        newest = max(trails, default=())
        return [{"at": iso(at_ms), "step": place + 1} for place, at_ms in reversed(list(enumerate(newest)))]

    text = ", then ".join("order" if step.source.is_order else " or ".join(step.source.types) for step in steps)
    return Judged("sequence", f"{text} in this order", judge, reads, (), None, events)


def _key(node: Node) -> str:
    inside = node.get("sequence")
    return repr(inside.plain() if inside is not None else None)


# --- reading -----------------------------------------------------------------------------------------------------


def _steps(named: Node, scope: Scope) -> tuple[list[_Step], bool]:
    """The steps, and whether the last one must not happen; none where they cannot be told apart."""
    written = list(named) if isinstance(named.value, list) else []
    if not 2 <= len(written) <= STEPS_MAX:
        named.wrong(f"sequence: a list of 2 to {STEPS_MAX} steps wanted, got {len(written) or named.found()}")
        return [], False
    bodies: list[Node] = []
    lengths: list[Duration | None] = []
    is_not = False
    for place, one in enumerate(written):
        body = one
        if place:
            one.known(("then", "then_not", "within"))
            kinds = [key for key in ("then", "then_not") if one.get(key) is not None]
            if len(kinds) != 1:
                one.wrong(f"one of then and then_not wanted, got {' and '.join(kinds) or one.found()}")
                return [], False
            is_not = kinds[0] == "then_not"
            if is_not and one is not written[-1]:
                one.wrong("then_not: comes last")
            body = one.get(kinds[0]) or one
        body.known(
            (*_STEP, "window") if not place else [key for key in _STEP if not (is_not and key == "as")],
            required=("did",),
        )
        if body.get("did") is None:
            return [], False
        within = one.get("within") if place else None
        bodies.append(body)
        lengths.append(within.duration() if within is not None else None)
    names: dict[str, int] = {}
    bound: list[list[_Bound]] = []
    plain: list[dict[str, Node]] = []
    for place, body in enumerate(bodies):
        rest, found = _unbound(body)
        for ref in found:
            if ref.of not in names:
                ref.node.wrong(f"unknown name {ref.of!r} of an earlier step{did_you_mean(ref.of, names)}")
        bound.append([ref for ref in found if ref.of in names])
        plain.append(rest)
        name = body.get("as")
        if name is not None:
            if name.text() in names:
                name.wrong(f"as: {name.text()!r} is the name of another step")
            names[name.text()] = place
    gives: list[list[str]] = [[] for _ in bodies]
    for ref in (ref for several in bound for ref in several):
        of = names[ref.of]
        if ref.field not in gives[of]:
            gives[of].append(ref.field)
            _demand(plain[of], ref, is_order=plain[of]["did"].value == "order")
    steps = []
    for place, body in enumerate(bodies):
        source = source_of(plain[place]["did"], body.made(plain[place]), scope)
        takes = tuple((ref.name, names[ref.of], gives[names[ref.of]].index(ref.field)) for ref in bound[place])
        steps.append(_Step(source, tuple(gives[place]), takes, lengths[place]))
    return steps, is_not


def _unbound(body: Node) -> tuple[dict[str, Node], list[_Bound]]:
    """The step with nothing but conditions that stand by themselves, and those that look at earlier steps: of these is
    left that the property must be there."""
    rest = {key: one for key, one in body.items() if key != "as"}
    found: list[_Bound] = []
    for key in ("where", "item"):
        node = rest.get(key)
        kept = []
        for one in node if node is not None else ():
            entries = dict(one.items())
            for name, wanted in entries.items():
                if not isinstance(wanted.value, str) or not wanted.value.startswith("$"):
                    continue
                entries[name] = wanted.made({"exists": wanted.made(True)})
                named = _NAME.fullmatch(wanted.value)
                if named is None:
                    wanted.wrong(f"a property of an earlier step wanted, like $v.product_id, got {wanted.found()}")
                else:
                    found.append(_Bound(name, named[1], named[2], wanted))
            kept.append(one.made(entries))
        if node is not None:
            rest[key] = node.made(kept)
    return rest, found


def _demand(step: dict[str, Node], one: _Bound, *, is_order: bool) -> None:
    """Ask of a step that it has the property which a later one compares: of the item, where items have it."""
    items = Line._fields if is_order else tuple(ITEM["properties"])
    key = "item" if one.field in items else "where"
    wanted = one.node.made({one.field: one.node.made({"exists": one.node.made(True)})})
    known = step.get(key)
    step[key] = one.node.made([*(known if known is not None else ()), wanted])


# --- what happened -----------------------------------------------------------------------------------------------


def _rows_of_events(steps: list[_Step]) -> Callable[[Event], list[Any]]:
    """Event -> for each step that means it, [the step, the properties that are compared], one for each item if items
    are asked."""
    known = [(number, step) for number, step in enumerate(steps) if not step.source.is_order]

    def rows(event: Event) -> list[Any]:
        found: list[Any] = []
        for number, step in known:
            source, props = step.source, event.props
            if event.type in source.types and (source.where is None or source.where(props)):
                for item in _items(source, props.get("items") or ()):
                    values = [_value(name, item, props) for name in (*step.gives, *(take[0] for take in step.takes))]
                    found.append([number, *values])
        return found

    return rows


def _rows_of_orders(step: _Step, profile: Profile, currency: str) -> list[_Row]:
    source, scale = step.source, 10 ** exponent(currency)
    found = []
    for one in orders.fold(profile, source.status_in, currency):
        facts = asked_of_order(one, scale)
        if source.where is None or source.where(facts):
            for item in _items(source, [asked_of_line(line, scale) for line in one.lines]):
                gives = tuple(_value(name, item, facts) for name in step.gives)
                found.append(_Row(one.at_ms, gives, tuple(_value(name, item, facts) for name, _, _ in step.takes)))
    return found


def _items(source: Source, items: Any) -> list[dict[str, Any]]:
    """The items that a step means; one that has nothing where it asks for none."""
    return [{}] if source.item is None else [one for one in items if source.item(one)]


def _value(name: str, item: dict[str, Any], props: dict[str, Any]) -> Any:
    name = name.removeprefix(CUSTOM)
    value = item[name] if name in item else value_at(props, name)
    return str(value) if isinstance(value, dict | list) else value


def _place(entry: list[Any]) -> tuple[int, str]:
    return entry[0], repr(entry)


def _add(state: list[list[Any]] | None, at_ms: int, value: list[Any], bound: int) -> list[list[Any]]:
    entry = [at_ms, *value]
    if state is None:
        return [entry]
    if entry not in state:
        insort(state, entry, key=_place)
        if len(state) > bound:
            del state[0]
    return state


def _merge(a: list[list[Any]], b: list[list[Any]], bound: int) -> list[list[Any]]:
    return sorted([*a, *(one for one in b if one not in a)], key=_place)[-bound:]


_LOG: Final = Aggregate("sequence", "The newest things that the steps of a sequence mean.", _add, _merge)


# --- chains ------------------------------------------------------------------------------------------------------


def _stretches(steps: list[_Step], is_not: bool, agg: int, scope: Scope) -> Callable[[Profile], Iterator[Stretch]]:
    """Profile -> when its chains hold."""
    zone, currency, window = scope.zone, scope.currency, steps[0].source.window
    last = len(steps) - is_not

    def rows_of(profile: Profile) -> list[list[_Row]]:
        rows: list[list[_Row]] = [[] for _ in steps]
        for at_ms, number, *values in profile.aggs.get(agg) or ():
            places = len(steps[number].gives)
            rows[number].append(_Row(at_ms, tuple(values[:places]), tuple(values[places:])))
        for number, step in enumerate(steps):
            if step.source.is_order:
                rows[number] = _rows_of_orders(step, profile, currency)
        return rows

    def stretches(profile: Profile) -> Iterator[Stretch]:
        rows = rows_of(profile)
        place = window.places(profile) if window is not None else None
        for first in rows[0]:
            enters_ms, leaves_ms = place(first.at_ms) if place is not None else (-FOREVER, FOREVER)
            if enters_ms >= leaves_ms:
                continue
            for given, trail in _chains(steps[:last], rows, (first.gives,), (first.at_ms,), zone, set()):
                from_ms = _clear(steps[last], rows[last], given, trail[-1], zone) if is_not else -FOREVER
                if from_ms is not None:
                    yield max(from_ms, enters_ms), leaves_ms, trail

    return stretches


def _chains(
    steps: list[_Step], rows: list[list[_Row]], given: Given, trail: tuple[int, ...], zone: tzinfo, seen: set[Any]
) -> Iterator[tuple[Given, tuple[int, ...]]]:
    """The chains that begin so; of those that go on from one place in the same way, one."""
    number = len(trail)
    if number == len(steps):
        yield given, trail
        return
    step = steps[number]
    until_ms = step.within.after(trail[-1], zone) if step.within is not None else FOREVER
    for row in rows[number]:
        if trail[-1] < row.at_ms < until_ms and _fits(step, row, given):
            following = (number, row.at_ms, given, row.gives)
            if following not in seen:
                seen.add(following)
                yield from _chains(steps, rows, (*given, row.gives), (*trail, row.at_ms), zone, seen)


def _clear(step: _Step, rows: list[_Row], given: Given, at_ms: int, zone: tzinfo) -> int | None:
    """From when on it is sure that the step did not follow; ``None``: it did."""
    until_ms = step.within.after(at_ms, zone) if step.within is not None else FOREVER
    if any(at_ms < row.at_ms < until_ms and _fits(step, row, given) for row in rows):
        return None
    return until_ms if step.within is not None else -FOREVER


def _fits(step: _Step, row: _Row, given: Given) -> bool:
    return all(value == given[of][place] for value, (_, of, place) in zip(row.takes, step.takes, strict=True))


# --- words -------------------------------------------------------------------------------------------------------


def _words(rule: dict[str, Any], t: Tongue) -> str:
    said = []
    for one in rule["sequence"]:
        body, before = one, ""
        if "then" in one:
            body, before = one["then"], t.pick("then ", "затем ")
        elif "then_not" in one:
            body, before = one["then_not"], t.pick("and then not ", "а затем нет: ")
        text = before + t.events(body["did"])
        for key, (english, russian) in (("where", ("where ", "где ")), ("item", ("with items: ", "с товарами: "))):
            if key in body:
                several = body[key] if isinstance(body[key], list) else [body[key]]
                text += ", " + t.pick(english, russian) + t.conditions([_same(one, t) for one in several])
        if "window" in body:
            text += ", " + t.window(body["window"])
        if "within" in one:
            text += ", " + t.window({"within": one["within"]})
        said.append(text)
    return "; ".join(said)


def _same(asked: dict[str, Any], t: Tongue) -> dict[str, Any]:
    same = t.pick("the same", "тот же")
    return {name: same if str(wanted).startswith("$") else wanted for name, wanted in asked.items()}


SPEC = OperatorSpec(
    "sequence",
    f"One thing happened, `then` another, later and soon enough, or `then_not`. A name given with `as: v` lets a later step ask for the same:"
    f" `$v.product_id`. 2 to {STEPS_MAX} steps; the first may have a `window`, the others `within`, counted from the step before; `then_not`"
    f" comes last, and is sure when its time is over. Of events that are not orders the newest {KEPT} that its steps mean are kept.",
    (),
    _sequence,
    (
        RuleExample(
            "{sequence: [{did: product_viewed, as: v}, {then_not: {did: order, item: [{product_id: $v.product_id}]}, within: P7D}]}",
            """
            0d  ana  product_viewed product=mug
            0d  ana  expect out, wake 7d
            1d  ana  order_completed order_id=1 total=5 product=cup price=5
            6d  ana  order_completed order_id=2 total=5 product=mug price=5
            6d  ana  expect out, wake none
            7d  ana  product_viewed product=pot
            7d  ana  expect out, wake 14d
            14d ana  expect in
            """,
        ),
        RuleExample(
            "{sequence: [{did: email_link_clicked, window: {within: P30D}}, {then: {did: product_added}, within: PT1H},"
            " {then: {did: order}, within: P1D}]}",
            """
            0h   ana  product_added product=mug price=5
            1h   ana  email_link_clicked
            2h   ana  product_added product=mug price=5
            3h   ana  order_completed order_id=1 total=5
            3h   ana  expect out
            4h   ana  product_added product=mug price=5 late=2h30m
            4h   ana  expect in, wake 30d1h
            30d1h ana  expect out
            """,
        ),
    ),
    _words,
)
