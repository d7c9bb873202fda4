"""What ``did`` and the declared traits measure: orders from the book, other events by kept statistics.

Orders are all known (up to 200), so anything can be asked of them exactly. Other events are kept only as far as the rule
needs (DESIGN §2); what is kept depends on the window (``rules/windows.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeVar

from profiles import orders
from profiles.aggregates import edge
from profiles.moments import DAY_MS, FOREVER, day_number, iso
from profiles.money import exponent
from profiles.people import zone_of
from profiles.state import ORDERS, STATUSES, TRAITS, Line, Profile
from profiles.wire import Event
from rules.compare import NUMERIC, WORDS, Test, numeric, words
from rules.documents import Node
from rules.predicates import Predicate, conditions, only_amounts, value_at
from rules.slips import did_you_mean
from rules.spec import Reader, Reads, Scope, once, shown
from rules.verdict import NO, Answer, Judge, always
from rules.windows import Last, Place, Window, nowhere, window_of

MEASURES: Final = ("times", "distinct_days", "distinct", "sum", "avg", "median", "min", "max", "first", "last")
SOURCE_KEYS: Final = ("where", "item", "window", "status_in", "per", "resolution")
OF_NUMBERS: Final = ("sum", "avg", "median", "min", "max")
AN_ORDER: Final = "an order"
A_LINE: Final = "an order's line"
TOLD_MAX: Final = 20
"""Of the events that made a measure so, ``explain`` tells the newest."""
MONEY: Final = ("total", "amount", "revenue", "value", "shipping", "tax", "discount", "margin")

ORDER_READS: Final[Reads] = frozenset({("part", ORDERS)})

Entries = Callable[[Profile], list[tuple[int, Any]]]
"""Profile -> (time, value), ascending by time."""


@dataclass(frozen=True, slots=True)
class Source:
    """Which happenings are meant.

    Attributes:
        types: event types; empty for orders.
        key: canonical text of everything that selects, so equal sources share a statistic.
    """

    types: tuple[str, ...]
    where: Predicate | None
    item: Predicate | None
    window: Window | None
    status_in: tuple[str, ...]
    per_item: bool
    resolution_ms: int
    key: str

    @property
    def is_order(self) -> bool:
        """Whether the order book answers."""
        return not self.types


def source_of(named: Node, node: Node, scope: Scope) -> Source:
    """Read which happenings a rule means.

    Args:
        named: the node with the event types, or ``order``.
        node: the mapping with ``where``, ``item``, ``window`` and the rest.
    """
    is_order = named.value == "order"
    types = () if is_order else scope.event_types(named)
    where, where_key = conditions(node.get("where"), types, currency=scope.currency)
    item, item_key = conditions(node.get("item"), types, of_items=True, currency=scope.currency)
    if is_order:
        # The book keeps no more of an order than these: a condition on anything else would never hold.
        _only(node.get("where"), _ASKED_OF_ORDERS, AN_ORDER, scope.currency)
        _only(node.get("item"), _ASKED_OF_LINES, A_LINE, scope.currency)
        asked = {name for one in node.get("item") or () for name, _ in (one.items() if one.is_map() else ())}
        scope.keep_of_lines(asked.intersection(orders.LINE_ON_DEMAND))
    status_node, per_node, grid_node = node.get("status_in"), node.get("per"), node.get("resolution")
    status_in = scope.counting
    if status_node is not None:
        if not is_order:
            status_node.wrong("status_in: goes with `order` only")
        status_in = tuple(one.choice(STATUSES) for one in status_node)
    per_item = per_node is not None and per_node.choice(("order", "item")) == "item"
    resolution_ms = 0
    if grid_node is not None:
        resolution_ms = grid_node.length_ms("PT1H")
    key = "|".join((",".join(types) or "order", where_key, item_key))
    window = window_of(node.get("window"), scope, lambda of: _last(of, scope))
    return Source(types, where, item, window, status_in, per_item, resolution_ms, key)


def _last(node: Node, scope: Scope) -> Last:
    """``since_last: order_completed``, ``since_last: {did: product_added, item: [{category: tools}]}``."""
    if not node.is_map():
        node = node.made({"did": node})
    node.known(("did", "where", "item", "status_in"), required=("did",))
    did = node.get("did")
    if did is None:
        return Last(lambda profile: None, frozenset(), "?")
    source = source_of(did, node, scope)
    if source.is_order:
        entries = order_entries(source, "", scope.currency)
        return Last(lambda profile: max((at_ms for at_ms, _ in entries(profile)), default=None), ORDER_READS, "order")
    values = extractor(source, "", scope.zone, scope.currency)
    agg = scope.aggregate(edge.SPEC, source.types, f"{source.key}||last", values, 1)

    def at(profile: Profile) -> int | None:
        state = profile.aggs.get(agg)
        return state[0] if state else None

    return Last(at, agg_reads(agg), " or ".join(source.types))


def _only(node: Node | None, known: tuple[str, ...], whose: str, currency: str) -> None:
    for one in node if node is not None else ():
        for name, wanted in one.items():
            if name in known:
                if name in _AMOUNTS:
                    only_amounts(wanted, currency)
            else:
                hint = did_you_mean(name, known)
                if whose == AN_ORDER and name in _ASKED_OF_LINES:
                    hint = f"; its lines are asked by item: [{{{name}: …}}]"
                elif whose == A_LINE and name in _ASKED_OF_ORDERS:
                    hint = f"; the order is asked by where: [{{{name}: …}}]"
                wanted.wrong(f"of {whose} {', '.join(known)} are known, not {name!r}{hint}")


# --- orders ------------------------------------------------------------------------------------------------------


MARGIN: Final = "margin"
_TOTALS: Final = ("total", "amount", "revenue")
ORDER_MONEY: Final = (*_TOTALS, MARGIN)
_ORDER_NUMBERS: Final = (*ORDER_MONEY, "quantity")
_ASKED_OF_ORDERS: Final = (*orders.FACTS, "order_id", "total", MARGIN)
_ASKED_OF_LINES: Final = (*Line._fields, "amount", "price")
_AMOUNTS: Final = ("total", MARGIN, "amount", "price")
_ORDER_WORDS: Final = ("product_id", "category", "brand", *orders.FACTS)


def order_field(name: str, field: str, node: Node) -> str:
    """The field of orders that a measure asks for; one that it cannot be asked of is a mistake at ``node``."""
    fits = (
        _ORDER_NUMBERS
        if name in OF_NUMBERS
        else _ORDER_WORDS
        if name == "distinct"
        else ("", *_ORDER_NUMBERS, *_ORDER_WORDS)
    )
    if field not in fits:
        wanted = [one for one in fits if one]
        node.wrong(f"{name} of order: one of {', '.join(wanted)} wanted, got {field!r}{did_you_mean(field, wanted)}")
        return wanted[0]
    return field


def order_entries(source: Source, field: str, currency: str, *, else_total: bool = False) -> Entries:
    """The counted orders that the source means, with the value of a field; per line where the field is a line's.

    Orders of which nobody said the margin have none; with ``else_total`` their amount stands for it.
    """
    where, item, status_in = source.where, source.item, source.status_in
    scale = 10 ** exponent(currency)
    by_line = source.per_item or field in ("product_id", "category", "brand")

    def entries(profile: Profile) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        for counted in orders.fold(profile, status_in, currency):
            if where is not None and not where(asked_of_order(counted, scale)):
                continue
            lines = counted.lines
            if item is not None:
                lines = tuple(line for line in lines if item(asked_of_line(line, scale)))
                if not lines:
                    continue
            if by_line:
                found.extend((counted.at_ms, _of_line(line, field)) for line in lines)
            elif field == "quantity":
                found.append((counted.at_ms, sum(line.quantity for line in lines)))
            elif field == "" or field in _TOTALS:
                found.append((counted.at_ms, counted.amount_minor))
            elif field == MARGIN:
                margin = counted.amount_minor if counted.margin_minor is None and else_total else counted.margin_minor
                if margin is not None:
                    found.append((counted.at_ms, margin))
            else:
                found.append((counted.at_ms, counted.facts.get(field)))
        return found

    return entries


def asked_of_order(counted: orders.Counted, scale: int) -> dict[str, Any]:
    """What conditions may be on; amounts in major units of the shop's currency, less what was taken back."""
    total, margin = Fraction(counted.amount_minor, scale), counted.margin_minor
    margin_asked = Fraction(margin, scale) if margin is not None else None
    return {**counted.facts, "order_id": counted.order_id, "total": total, MARGIN: margin_asked}


def asked_of_line(line: Line, scale: int) -> dict[str, Any]:
    """What conditions may be on, as ``asked_of_order``."""
    amount = Fraction(line.amount_minor, scale)
    return {**line._asdict(), "amount": amount, "price": amount / (line.quantity or 1)}


def _of_line(line: Any, field: str) -> Any:
    return line.amount_minor if field == "" or field in _TOTALS else getattr(line, field, None)


def over_entries(
    entries: Entries, measure: Callable[[list[Any]], Any], test: Test, window: Window | None, in_order: bool = False
) -> Judge:
    """Judge a measure of the entries in a window; the verdict ends when an entry's coming or leaving changes the answer.

    Args:
        in_order: entries leave in the order in which they stand.
    """

    def told(values: list[Any]) -> bool:
        value = measure(values)
        return value is not None and test(value)

    if window is None:
        return lambda profile, now_ms: always(told([value for _, value in entries(profile)]))
    leaves = window.leaves
    if leaves is None:
        return _over_placed(entries, told, window)

    def judge(profile: Profile, now_ms: int) -> Answer:
        inside = [(leaves(at_ms), value) for at_ms, value in entries(profile)]
        inside = [(leaves_ms, value) for leaves_ms, value in inside if leaves_ms > now_ms]
        values = [value for _, value in inside]
        holds = told(values)
        # As time goes on entries only leave: look for the first departure that changes the answer.
        ends = [leaves_ms for leaves_ms, _ in inside]
        if not in_order and ends != sorted(ends):
            for end_ms in sorted(set(ends)):
                if told([value for leaves_ms, value in inside if leaves_ms > end_ms]) != holds:
                    return holds, end_ms
            return always(holds)
        for gone, leaves_ms in enumerate(ends, start=1):
            if gone < len(ends) and ends[gone] == leaves_ms:
                continue
            if told(values[gone:]) != holds:
                return holds, leaves_ms
        return always(holds)

    return judge


def _over_placed(entries: Entries, told: Callable[[list[Any]], bool], window: Window) -> Judge:
    """The same where entries come into the window after they happened, or not at all."""
    places = window.places

    def judge(profile: Profile, now_ms: int) -> Answer:
        place = places(profile)
        if place is nowhere:
            return NO
        placed = _placed(entries(profile), place, now_ms)
        holds = told([value for enters_ms, _, value in placed if enters_ms <= now_ms])
        for turn_ms in _turns(placed, now_ms):
            if told([value for enters_ms, leaves_ms, value in placed if enters_ms <= turn_ms < leaves_ms]) != holds:
                return holds, turn_ms
        return always(holds)

    return judge


def _placed(entries: list[tuple[int, Any]], place: Place, now_ms: int) -> list[tuple[int, int, Any]]:
    """The entries that are in the window, or will come into it."""
    placed = [(*place(at_ms), value) for at_ms, value in entries]
    return [one for one in placed if one[0] < one[1] and one[1] > now_ms]


def _turns(placed: list[tuple[int, int, Any]], now_ms: int) -> list[int]:
    """The instants from now on at which an entry comes or leaves, ascending."""
    turns = {turn_ms for enters_ms, leaves_ms, _ in placed for turn_ms in (enters_ms, leaves_ms)}
    return sorted(turn_ms for turn_ms in turns if now_ms < turn_ms < FOREVER)


Looked = TypeVar("Looked")


def by_book(look: Callable[[Profile, int], tuple[Looked, int]]) -> Callable[[Profile, int], tuple[Looked, int]]:
    """A judge, or a reader, of the order book alone: what it says is kept with the book's folds until the book changes
    or its time is over. Most events are no orders, and most people have none."""
    key = object()
    of_nobody: list[tuple[Looked, int]] = []

    def look_once(profile: Profile, now_ms: int) -> tuple[Looked, int]:
        if not profile.orders:
            if not of_nobody:
                of_nobody.append(look(Profile(""), now_ms))
                assert of_nobody[0][1] == FOREVER, "no orders at all: time cannot change that"
            return of_nobody[0]
        known: tuple[int, tuple[Looked, int]] | None = profile.folds.get(key)
        if known is not None and known[0] <= now_ms < known[1][1]:
            return known[1]
        found = look(profile, now_ms)
        profile.folds[key] = (now_ms, found)
        return found

    return look_once


def of_book(read: Callable[[Profile, int], tuple[Any, int]], kind: str, window: Window | None = None) -> Reader:
    """The reader of a trait that stands on the order book alone, and on what its window looks at."""
    if window is not None and window.reads:
        return Reader(read, kind, ORDER_READS | window.reads)
    return Reader(by_book(read), kind, ORDER_READS)


def windowed(entries: Entries, window: Window | None) -> Callable[[Profile, int], tuple[list[Any], int]]:
    """The values in the window, and when the next one comes or leaves."""
    if window is None:
        return lambda profile, now_ms: ([value for _, value in entries(profile)], FOREVER)
    leaves, places = window.leaves, window.places
    if leaves is not None:

        def kept(profile: Profile, now_ms: int) -> tuple[list[Any], int]:
            left = [(leaves(at_ms), value) for at_ms, value in entries(profile)]
            left = [(leaves_ms, value) for leaves_ms, value in left if leaves_ms > now_ms]
            return [value for _, value in left], min((leaves_ms for leaves_ms, _ in left), default=FOREVER)

        return kept

    def inside(profile: Profile, now_ms: int) -> tuple[list[Any], int]:
        placed = _placed(entries(profile), places(profile), now_ms)
        values = [value for enters_ms, _, value in placed if enters_ms <= now_ms]
        return values, min(_turns(placed, now_ms), default=FOREVER)

    return inside


def measure_named(name: str) -> Callable[[list[Any]], Any]:
    """count, sum, avg and median (exact fractions), min, max, distinct, first, last of a list of values; ``None`` of none
    where there is no answer. A sum of nothing is 0."""
    if name == "sum":
        return lambda values: sum(value for value in values if value is not None)
    if name == "avg":
        return lambda values: Fraction(sum(values), len(values)) if values else None
    if name == "median":
        return _median
    if name == "min":
        return lambda values: min(values) if values else None
    if name == "max":
        return lambda values: max(values) if values else None
    if name == "distinct":
        return lambda values: len({value for value in values if value not in (None, "")})
    if name == "first":
        return lambda values: values[0] if values else None
    if name == "last":
        return lambda values: values[-1] if values else None
    assert name == "times", name
    return len


def _median(values: list[Any]) -> Any:
    """The middle value; of an even number the exact mean of the two in the middle."""
    if not values:
        return None
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(ordered) % 2 else Fraction(ordered[middle - 1] + ordered[middle], 2)


# --- other events ------------------------------------------------------------------------------------------------


def extractor(source: Source, field: str, zone: tzinfo, currency: str) -> Callable[[Event], list[Any]]:
    """Event -> the values it contributes: none when the source does not mean it.

    An amount of money is given in major units of the shop's currency; one in another currency is left out.

    Args:
        field: "" for the event itself (one value per event, or per matching item), ``@day`` for its calendar day,
            else a property, or an item's property where an item has it.
    """
    where, item, per_item = source.where, source.item, source.per_item
    if where is None and item is None and not per_item and field in ("", "@day"):
        if field == "":
            return once
        return (lambda event: [event.at_ms // DAY_MS]) if zone is UTC else lambda event: [day_number(event.at_ms, zone)]
    minor = f"{field}_minor" if field in MONEY and item is None else ""
    if (
        where is None
        and item is None
        and not minor
        and field != "price"
        and "." not in field
        and field[:1] not in ("", "@")
    ):
        return lambda event: _said_of(event.props, field)
    digits = exponent(currency)

    def values(event: Event) -> list[Any]:
        props = event.props
        if where is not None and not where(props):
            return []
        items: list[dict[str, Any]] = props.get("items") or []
        if item is not None:
            items = [one for one in items if item(one)]
            if not items:
                return []
        if field == "@day":
            return [day_number(event.at_ms, zone)]
        if field == "":
            return [None] * len(items) if per_item else [None]
        if minor and minor in props:
            # As a float, for it may have to be stored; its shortest form is the exact amount.
            return [float(Decimal(props[minor]).scaleb(-digits))] if props.get("currency") in (None, currency) else []
        value = value_at(props, field)
        if value is not None and item is None:
            return [_plain(value)]
        if field == "price":
            return [float(Decimal(one["price_e6"]).scaleb(-6)) for one in items if "price_e6" in one]
        return [_plain(one[field]) for one in items if one.get(field) is not None]

    return values


def _said_of(props: dict[str, Any], field: str) -> list[Any]:
    """A property, or the items' where the event has none of that name."""
    value = props.get(field)
    if value is not None:
        return [_plain(value)]
    return [_plain(one[field]) for one in props.get("items") or () if one.get(field) is not None]


def _plain(value: Any) -> Any:
    return value if not isinstance(value, dict | list) else str(value)


class Measured(NamedTuple):
    """A compiled measure: the judge, what it reads, its text; for ``explain`` its value and what made it so."""

    judge: Judge
    reads: Reads
    text: str
    value: Callable[[Profile, int], Any]
    events: Callable[[Profile, int], list[dict[str, Any]]] | None = None
    until: Callable[[Profile, int], int] | None = None
    """Until when time alone cannot change the value; ``None``: for ever."""


def of_orders(name: str, node: Node, field: str, source: Source, scope: Scope) -> Measured:
    """Compile one measure of the order book."""
    reads = ORDER_READS
    zone = scope.zone
    window = source.window
    if name == "distinct_days":
        plain = order_entries(source, "", scope.currency)
        own = window is not None and ("part", TRAITS) in window.reads

        def days(profile: Profile) -> list[tuple[int, Any]]:
            where = zone_of(profile, zone) if own else zone
            return [(at_ms, day_number(at_ms, where)) for at_ms, _ in plain(profile)]

        entries: Entries = days
        measure = measure_named("distinct")
    else:
        field = order_field(name, field, node) if field else field
        entries = order_entries(source, field, scope.currency)
        measure = measure_named(name)
    money = scope.currency if field in ORDER_MONEY and (name in OF_NUMBERS or name in ("first", "last")) else ""
    if field == MARGIN and source.per_item:
        node.wrong("margin: that of whole orders is known, not of their lines; without `per: item`")
    test, text = test_of(name, node, money)
    look = windowed(entries, window)
    judge = over_entries(entries, measure, test, window)
    more = window.reads if window is not None else frozenset[tuple[str, Any]]()

    def value(profile: Profile, now_ms: int) -> Any:
        return shown(measure(look(profile, now_ms)[0]), "money" if money else "", scope.currency)

    return Measured(judge if more else by_book(judge), reads | more, text, value, _orders_told(source, scope))


def _orders_told(source: Source, scope: Scope) -> Callable[[Profile, int], list[dict[str, Any]]]:
    """The orders that the source means, for ``explain``."""
    where, item, window, currency = source.where, source.item, source.window, scope.currency

    def told(profile: Profile, now_ms: int) -> list[dict[str, Any]]:
        place = window.places(profile) if window is not None else None
        found = []
        for one in reversed(orders.fold(profile, source.status_in, currency)):
            enters_ms, leaves_ms = place(one.at_ms) if place is not None else (now_ms, FOREVER)
            if (
                enters_ms <= now_ms < leaves_ms
                and (where is None or where({**one.facts, "order_id": one.order_id}))
                and (item is None or any(item(line._asdict()) for line in one.lines))
            ):
                amount = shown(one.amount_minor, "money", currency)
                found.append({"at": iso(one.at_ms), "order_id": one.order_id, "amount": amount})
        return found[:TOLD_MAX]

    return told


def test_of(name: str, node: Node, money: str) -> tuple[Test, str]:
    """The comparison of a measure, and its text; ``money``: the currency of its amounts, "" for none."""
    as_words = name in ("first", "last") and not money
    if node.is_map():
        beside = () if name in ("times", "distinct_days") else ("field",)
        node.known((*beside, *NUMERIC, *((*WORDS, "under") if as_words else ())))
    said = {"times": "times", "distinct_days": "different days"}.get(name)
    field = node.get("field") if node.is_map() else None
    label = said or f"{name}({field.text() if field is not None else ''})"
    if as_words:
        test, text = words(node)
        if test is None:
            node.wrong("a comparison wanted")
            return lambda value: False, "?"
        return test, f"{label} {text}"
    test, text, _ = numeric(node, money)
    return test, f"{label} {text}"


def agg_reads(agg: int) -> Reads:
    """What a judge of one statistic looks at."""
    return frozenset({("aggregate", agg)})
