"""What ``did`` and the declared traits measure: orders from the book, other events by kept statistics.

Window at instant t is (t - D, t]: what happened at e is in it during [e, e + D). Orders are all known (up to 200), so
anything can be asked of them exactly. Other events are kept only as far as the rule needs (DESIGN §2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeVar

from profiles import orders
from profiles.aggregates import KEPT_MAX, Aggregate, buckets, counter, edge, latest, occurrences, totals
from profiles.moments import DAY_MS, FOREVER, PERIODS, Duration, Period, day_number, iso
from profiles.money import exponent
from profiles.state import COUNTING, ORDERS, STATUSES, Line, Profile
from profiles.wire import Event
from rules.compare import Test, numeric, words
from rules.documents import Node, did_you_mean
from rules.predicates import Predicate, conditions, value_at
from rules.spec import Reader, Reads, Scope, once, shown
from rules.verdict import NO, YES, Answer, Judge, always

MEASURES: Final = ("times", "distinct_days", "distinct", "sum", "avg", "median", "min", "max", "first", "last")
SOURCE_KEYS: Final = ("where", "item", "window", "status_in", "per", "resolution")
_OF_NUMBERS: Final = ("sum", "avg", "median", "min", "max")
TOLD_MAX: Final = 20
"""Of the events that made a measure so, ``explain`` tells the newest."""
_MONEY: Final = ("total", "amount", "revenue", "value", "shipping", "tax", "discount", "margin")

ORDER_READS: Final[Reads] = frozenset({("part", ORDERS)})

Window = Duration | Period
"""How lately: within that long, or in the calendar's period under way."""

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
    where, where_key = conditions(node.get("where"), types)
    item, item_key = conditions(node.get("item"), types, of_items=True)
    if is_order:
        # The book keeps no more of an order than these: a condition on anything else would never hold.
        _only(node.get("where"), (*orders.FACTS, "order_id"), "an order")
        _only(node.get("item"), Line._fields, "an order's line")
    status_node, per_node, grid_node = node.get("status_in"), node.get("per"), node.get("resolution")
    status_in: tuple[str, ...] = COUNTING
    if status_node is not None:
        if not is_order:
            status_node.wrong("status_in: goes with `order` only")
        status_in = tuple(one.choice(STATUSES) for one in status_node)
    per_item = per_node is not None and per_node.choice(("order", "item")) == "item"
    resolution_ms = 0
    if grid_node is not None:
        grid = grid_node.duration()
        resolution_ms = grid.ms
        if not grid.is_fixed():
            grid_node.wrong(f"resolution: hours, minutes or seconds wanted (like PT1H), got {grid}")
            resolution_ms = 3_600_000
    key = "|".join((",".join(types) or "order", where_key, item_key))
    return Source(types, where, item, window_of(node.get("window")), status_in, per_item, resolution_ms, key)


def _only(node: Node | None, known: tuple[str, ...], whose: str) -> None:
    for one in node if node is not None else ():
        for name, wanted in one.items():
            if name not in known:
                wanted.wrong(f"of {whose} {', '.join(known)} are known, not {name!r}{did_you_mean(name, known)}")


def window_of(node: Node | None) -> Window | None:
    """Read ``window: {within: P30D}`` or ``window: {calendar: this_month}``."""
    if node is None:
        return None
    node.known(("within", "calendar"))
    within, calendar = node.get("within"), node.get("calendar")
    if within is not None and calendar is not None:
        node.wrong("one of within and calendar wanted, got both")
    if calendar is not None:
        return Period(PERIODS[calendar.choice(PERIODS)])
    if within is None and node.is_map():
        node.wrong("'within' is missing")
    return within.duration() if within is not None else None


# --- orders ------------------------------------------------------------------------------------------------------


_AMOUNTS: Final = ("total", "amount", "revenue")
_ORDER_NUMBERS: Final = (*_AMOUNTS, "quantity")
_ORDER_WORDS: Final = ("product_id", "category", "brand", *orders.FACTS)


def order_field(name: str, field: str, node: Node) -> str:
    """The field of orders that a measure asks for; one that it cannot be asked of is a mistake at ``node``."""
    fits = (
        _ORDER_NUMBERS
        if name in _OF_NUMBERS
        else _ORDER_WORDS
        if name == "distinct"
        else ("", *_ORDER_NUMBERS, *_ORDER_WORDS)
    )
    if field not in fits:
        wanted = [one for one in fits if one]
        node.wrong(f"{name} of order: one of {', '.join(wanted)} wanted, got {field!r}{did_you_mean(field, wanted)}")
        return wanted[0]
    return field


def order_entries(source: Source, field: str, currency: str) -> Entries:
    """The counted orders that the source means, with the value of a field; per line where the field is a line's."""
    where, item, status_in = source.where, source.item, source.status_in
    by_line = source.per_item or field in ("product_id", "category", "brand")

    def entries(profile: Profile) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        for counted in orders.fold(profile, status_in, currency):
            if where is not None and not where({**counted.facts, "order_id": counted.order_id}):
                continue
            lines = counted.lines
            if item is not None:
                lines = tuple(line for line in lines if item(line._asdict()))
                if not lines:
                    continue
            if by_line:
                found.extend((counted.at_ms, _of_line(line, field)) for line in lines)
            elif field == "quantity":
                found.append((counted.at_ms, sum(line.quantity for line in lines)))
            elif field in ("", "total", "amount", "revenue"):
                found.append((counted.at_ms, counted.amount_minor))
            else:
                found.append((counted.at_ms, counted.facts.get(field)))
        return found

    return entries


def _of_line(line: Any, field: str) -> Any:
    return line.amount_minor if field in ("", "total", "amount", "revenue") else getattr(line, field, None)


Leaves = Callable[[int], int]
"""When what happened at an instant leaves the window."""


def leaves_of(window: Window, zone: tzinfo) -> Leaves:
    """When what happened at an instant leaves the window: exactly that long after, by the calendar of the zone;
    of a calendar's period, when the next begins."""
    if isinstance(window, Duration) and _keeps_order(window, zone):
        length_ms = window.days * DAY_MS + window.ms
        return lambda at_ms: at_ms + length_ms
    after = window.after
    return lambda at_ms: after(at_ms, zone)


def _keeps_order(window: Window, zone: tzinfo) -> bool:
    """Whether what happened first leaves first. A month after 29 January noon and after 31 January morning is 28
    February, noon and morning; days on which clocks change do the same to hours."""
    return isinstance(window, Period) or window.is_fixed() or (zone is UTC and not window.months)


def over_entries(
    entries: Entries, measure: Callable[[list[Any]], Any], test: Test, leaves: Leaves | None, in_order: bool = False
) -> Judge:
    """Judge a measure of the entries in a window; the verdict ends when an entry's leaving changes the answer.

    Args:
        leaves: when an entry leaves the window; ``None`` without a window.
        in_order: entries leave in the order in which they stand.
    """
    if leaves is None:

        def judge_all(profile: Profile, now_ms: int) -> Answer:
            value = measure([value for _, value in entries(profile)])
            return always(value is not None and test(value))

        return judge_all

    def told(values: list[Any]) -> bool:
        value = measure(values)
        return value is not None and test(value)

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


def of_book(read: Callable[[Profile, int], tuple[Any, int]], kind: str) -> Reader:
    """The reader of a trait that stands on the order book alone."""
    return Reader(by_book(read), kind, ORDER_READS)


def at_least(agg: int, least: int, leaves: Leaves) -> Judge:
    """Say whether an event happened at least that often in the window: the commonest question, answered by one time.

    It ends when the ``least``-th newest occurrence leaves the window.
    """

    def judge(profile: Profile, now_ms: int) -> Answer:
        times = profile.aggs.get(agg)
        if times is None or len(times) < least:
            return NO
        leaves_ms = leaves(times[-least])
        return (True, leaves_ms) if leaves_ms > now_ms else NO

    return judge


def at_least_different(agg: int, least: int, leaves: Leaves | None) -> Judge:
    """Say whether at least that many different values were seen in the window.

    It ends when the ``least``-th newest of them leaves.
    """

    def judge(profile: Profile, now_ms: int) -> Answer:
        times = profile.aggs.get(agg)
        if times is None or len(times) < least:
            return NO
        if leaves is None:
            return YES
        if len(times) == least:  # as often as not: no more are kept than are asked for
            leaves_ms = min(map(leaves, times.values()))
        else:
            leaves_ms = sorted(map(leaves, times.values()))[-least]
        return (True, leaves_ms) if leaves_ms > now_ms else NO

    return judge


def windowed(entries: Entries, leaves: Leaves | None) -> Callable[[Profile, int], tuple[list[Any], int]]:
    """The values in the window, and when the first of them leaves it."""
    if leaves is None:
        return lambda profile, now_ms: ([value for _, value in entries(profile)], FOREVER)

    def inside(profile: Profile, now_ms: int) -> tuple[list[Any], int]:
        kept = [(leaves(at_ms), value) for at_ms, value in entries(profile)]
        kept = [(leaves_ms, value) for leaves_ms, value in kept if leaves_ms > now_ms]
        return [value for _, value in kept], min((leaves_ms for leaves_ms, _ in kept), default=FOREVER)

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
    minor = f"{field}_minor" if field in _MONEY and item is None else ""
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


def measured(name: str, node: Node, source: Source, scope: Scope) -> Measured:
    """Compile one measure of a source: ``times: {gte: 5}``, ``sum: {field: total, gte: 1000}``."""
    field_node = node.get("field") if node.is_map() else None
    field = field_node.text() if field_node is not None else ""
    if name in ("distinct", *_OF_NUMBERS) and not field:
        node.wrong(f"{name}: 'field' is missing")
    if source.is_order:
        return _of_orders(name, node, field, source, scope)
    return _of_events(name, node, field, source, scope)


def _of_orders(name: str, node: Node, field: str, source: Source, scope: Scope) -> Measured:
    reads = ORDER_READS
    zone = scope.zone
    if name == "distinct_days":
        plain = order_entries(source, "", scope.currency)

        def days(profile: Profile) -> list[tuple[int, Any]]:
            return [(at_ms, day_number(at_ms, zone)) for at_ms, _ in plain(profile)]

        entries: Entries = days
        measure = measure_named("distinct")
    else:
        field = order_field(name, field, node) if field else field
        entries = order_entries(source, field, scope.currency)
        measure = measure_named(name)
    money = (
        scope.currency if field in ("total", "amount", "revenue") and name in (*_OF_NUMBERS, "first", "last") else ""
    )
    test, text = _test(name, node, money)
    leaves = leaves_of(source.window, zone) if source.window is not None else None
    look = windowed(entries, leaves)
    judge = by_book(over_entries(entries, measure, test, leaves))

    def value(profile: Profile, now_ms: int) -> Any:
        return shown(measure(look(profile, now_ms)[0]), "money" if money else "", scope.currency)

    return Measured(judge, reads, text, value, _orders_told(source, scope))


def _orders_told(source: Source, scope: Scope) -> Callable[[Profile, int], list[dict[str, Any]]]:
    """The orders that the source means, for ``explain``."""
    where, item, window, zone, currency = source.where, source.item, source.window, scope.zone, scope.currency

    def told(profile: Profile, now_ms: int) -> list[dict[str, Any]]:
        return [
            {"at": iso(one.at_ms), "order_id": one.order_id, "amount": shown(one.amount_minor, "money", currency)}
            for one in reversed(orders.fold(profile, source.status_in, currency))
            if (window is None or window.after(one.at_ms, zone) > now_ms)
            and (where is None or where({**one.facts, "order_id": one.order_id}))
            and (item is None or any(item(line._asdict()) for line in one.lines))
        ][:TOLD_MAX]

    return told


def _times_told(
    look: Callable[[Profile, int], tuple[list[tuple[int, Any]], int]], name: str
) -> Callable[[Profile, int], list[dict[str, Any]]]:
    """The kept events of a window, for ``explain``; ``name`` is what their value is, "" for none."""

    def told(profile: Profile, now_ms: int) -> list[dict[str, Any]]:
        entries = look(profile, now_ms)[0]
        return [{"at": iso(at_ms), **({name: value} if name else {})} for at_ms, value in entries[: -TOLD_MAX - 1 : -1]]

    return told


def _timed(entries: Entries) -> Entries:
    """Entries whose values are themselves with their times."""
    return lambda profile: [(at_ms, (at_ms, value)) for at_ms, value in entries(profile)]


def _of_events(name: str, node: Node, field: str, source: Source, scope: Scope) -> Measured:
    zone, window = scope.zone, source.window
    key = f"{source.key}|{field}{'|per item' if source.per_item else ''}"
    if field in _MONEY:
        key += f"|{scope.currency}"
    test, text = _test(name, node, "")
    if name == "times":
        _, _, bound = numeric(node)
        values = extractor(source, "", zone, scope.currency)
        if window is None:
            agg = scope.aggregate(counter.SPEC, source.types, key, values, 0)
            return Measured(
                _state_judge(agg, lambda state: state or 0, test),
                _agg(agg),
                text,
                _state_value(agg, lambda s: s or 0),
            )
        least = _least(node)
        leaves = leaves_of(window, zone)
        kept = _kept(least or bound, node)
        agg = scope.aggregate(statistic(occurrences, window, zone), source.types, key, values, kept, least)
        times = _pairs(agg)
        judge = at_least(agg, least, leaves) if least else over_entries(times, len, test, leaves, True)
        return _counted(judge, agg, text, times, leaves, "")
    if name in ("distinct", "distinct_days"):
        _, _, bound = numeric(node)
        values = extractor(source, "@day" if name == "distinct_days" else field, zone, scope.currency)
        kind = latest.SPEC if window is None else statistic(latest, window, zone)
        least = _least(node)
        agg = scope.aggregate(kind, source.types, f"{key}|{name}", values, _kept(least or bound, node), least)
        entries, ends = _by_value(agg), leaves_of(window, zone) if window is not None else None
        judge = at_least_different(agg, least, ends) if least else over_entries(entries, len, test, ends)
        return _counted(judge, agg, text, entries, ends, field)
    if name in ("first", "last"):
        if window is not None:
            node.wrong(f"{name}: without a window wanted (windows of first and last go with `order`)")
        agg = scope.aggregate(
            edge.SPEC,
            source.types,
            f"{key}|{name}",
            extractor(source, field, zone, scope.currency),
            int(name == "last"),
        )
        index = 1 if field else 0
        return Measured(
            _state_judge(agg, lambda state: state[index] if state else None, test),
            _agg(agg),
            text,
            _state_value(agg, lambda state: state[index] if state else None),
        )
    if name == "median":
        node.wrong("median: of `order` only: all its values are kept")
        name = "avg"
    values = _exact(extractor(source, field, zone, scope.currency))
    measure = _of_totals(name)
    if window is None:
        agg = scope.aggregate(totals.SPEC, source.types, key, values, 0)
        return Measured(_state_judge(agg, measure, test), _agg(agg), text, _state_value(agg, measure))
    step_ms = source.resolution_ms
    if not step_ms:
        node.wrong(f"{name} within a window may need any number of entries: 'resolution' wanted, like PT1H")
        step_ms = _longest_ms(window)
    # The window touches one stretch more than it is long; a month has up to 31 days, a day up to 25 hours.
    steps = -(-_longest_ms(window) // step_ms) + 1
    if steps > KEPT_MAX:
        node.wrong(f"resolution: a window of fewer than {KEPT_MAX} steps wanted, got {steps - 1}")
    agg = scope.aggregate(buckets.SPEC, source.types, key, values, step_ms)

    def stretches(profile: Profile) -> list[tuple[int, Any]]:
        # A stretch stands as one entry at its last instant: all of it leaves when its end does.
        state = profile.aggs.get(agg) or {}
        return [(start_ms + step_ms - 1, state[start_ms]) for start_ms in sorted(state)]

    def together(parts: list[list[int]]) -> Any:
        if not parts:
            return 0 if name == "sum" else None
        joined = [
            sum(p[0] for p in parts),
            sum(p[1] for p in parts),
            min(p[2] for p in parts),
            max(p[3] for p in parts),
        ]
        return measure(joined)

    leaves = leaves_of(window, zone)
    look = windowed(stretches, leaves)
    return Measured(
        over_entries(stretches, together, test, leaves),
        _agg(agg),
        text,
        lambda profile, now_ms: together(look(profile, now_ms)[0]),
        None,
        lambda profile, now_ms: look(profile, now_ms)[1],
    )


def statistic(module: Any, window: Window, zone: tzinfo) -> Aggregate:
    """The statistic that keeps what leaves the window last."""
    spec: Aggregate = module.SPEC
    if _keeps_order(window, zone):
        return spec
    by_calendar: Aggregate = module.kept_by(leaves_of(window, zone), f"{spec.name} by {window} {zone}")
    return by_calendar


def _counted(judge: Judge, agg: int, text: str, entries: Entries, leaves: Leaves | None, told_as: str) -> Measured:
    """A measure that counts kept entries. ``told_as``: what their values are, for ``explain``, "" for none."""
    look = windowed(entries, leaves)
    return Measured(
        judge,
        _agg(agg),
        text,
        lambda profile, now_ms: len(look(profile, now_ms)[0]),
        _times_told(windowed(_timed(entries), leaves), told_as),
        lambda profile, now_ms: look(profile, now_ms)[1],
    )


def _longest_ms(window: Window) -> int:
    if isinstance(window, Period):
        return window.about_ms()
    calendar = 3_600_000 if window.months or window.days else 0
    return window.months * 31 * DAY_MS + window.days * DAY_MS + window.ms + calendar


def _of_totals(name: str) -> Callable[[list[int] | None], Any]:
    def read(state: list[int] | None) -> Any:
        if state is None:
            return 0 if name == "sum" else None
        count, total, least, most = state
        if name == "avg":
            return Fraction(total, count * 1_000_000)
        return Fraction({"sum": total, "min": least, "max": most}[name], 1_000_000)

    return read


def _exact(values: Callable[[Event], list[Any]]) -> Callable[[Event], list[Any]]:
    """Numbers as whole millionths, so that sums do not depend on the order of adding; what is no number is left out."""

    def exact(event: Event) -> list[Any]:
        return [
            round(Fraction(str(value)) * 1_000_000)
            for value in values(event)
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]

    return exact


def _test(name: str, node: Node, money: str) -> tuple[Test, str]:
    said = {"times": "times", "distinct_days": "different days"}.get(name)
    field = node.get("field") if node.is_map() else None
    label = said or f"{name}({field.text() if field is not None else ''})"
    if name in ("first", "last") and not money:
        test, text = words(node)
        if test is None:
            node.wrong("a comparison wanted")
            return lambda value: False, "?"
        return test, f"{label} {text}"
    test, text, _ = numeric(node, money)
    return test, f"{label} {text}"


def _least(node: Node) -> int:
    """n of a lone ``gte: n`` (or ``gt: n - 1``); 0 for any other comparison."""
    entries = [one for one in node.items() if one[0] != "field"] if node.is_map() else []
    if len(entries) != 1 or entries[0][0] not in ("gte", "gt") or not isinstance(entries[0][1].value, int):
        return 0
    op, operand = entries[0]
    return max(0, int(operand.value) + (op == "gt"))


def _kept(bound: int, node: Node) -> int:
    if bound > KEPT_MAX:
        node.wrong(f"a threshold below {KEPT_MAX} wanted (more is not kept), got {bound - 1}")
    return max(1, min(bound, KEPT_MAX))


def _agg(agg: int) -> Reads:
    return frozenset({("aggregate", agg)})


def _pairs(agg: int) -> Entries:
    return lambda profile: [(at_ms, None) for at_ms in profile.aggs.get(agg, ())]


def _by_value(agg: int) -> Entries:
    return lambda profile: sorted((at_ms, str(value)) for value, at_ms in (profile.aggs.get(agg) or {}).items())


def _state_judge(agg: int, measure: Callable[[Any], Any], test: Test) -> Judge:
    def judge(profile: Profile, now_ms: int) -> Answer:
        value = measure(profile.aggs.get(agg))
        return NO if value is None else always(test(value))

    return judge


def _state_value(agg: int, measure: Callable[[Any], Any]) -> Callable[[Profile, int], Any]:
    return lambda profile, now_ms: measure(profile.aggs.get(agg))
