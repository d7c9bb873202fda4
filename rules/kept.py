"""Measures of events that are not orders: which statistic is kept for one, and how it is judged and read.

no window, or fixed days           the plain statistic, of the events of these days
within, a calendar's period        the newest times, or different values, as many as the answer can hang on
a period of the past; sums of one  the plain statistic for each period by itself
within, with ``resolution``        sums by stretches; also of between two durations
since_last, session                the newest times, or different values
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, NamedTuple

from profiles.aggregates import KEPT_MAX, Aggregate, buckets, counter, edge, latest, occurrences, totals
from profiles.moments import DAY_MS, FOREVER, Duration, iso
from profiles.state import Profile
from profiles.wire import Event
from rules.compare import Test, numeric
from rules.documents import Node
from rules.series import (
    MONEY,
    OF_NUMBERS,
    TOLD_MAX,
    Entries,
    Measured,
    Source,
    agg_reads,
    extractor,
    of_orders,
    over_entries,
    test_of,
    windowed,
)
from rules.spec import Scope
from rules.verdict import NO, YES, Answer, Judge, always
from rules.windows import Leaves, Window, by_period, in_period, keeps_order, leaves_of, longest_ms

Values = Callable[[Event], list[Any]]

_TOTALS: Final = ("sum", "avg", "min", "max")


def measured(name: str, node: Node, source: Source, scope: Scope) -> Measured:
    """Compile one measure of a source: ``times: {gte: 5}``, ``sum: {field: total, gte: 1000}``."""
    field_node = node.get("field") if node.is_map() else None
    field = field_node.text() if field_node is not None else ""
    if (name == "distinct" or name in OF_NUMBERS) and not field:
        node.wrong(f"{name}: 'field' is missing")
    if source.is_order:
        return of_orders(name, node, field, source, scope)
    return _of_events(name, node, field, source, scope)


class _Asked(NamedTuple):
    """One measure, as far as it is compiled: ``key`` says what the values are; the statistic keeps ``bound`` of them; the
    answer is yes from ``least`` of them on, 0 where it is not so simple."""

    name: str
    node: Node
    types: tuple[str, ...]
    values: Values
    key: str
    bound: int
    least: int
    test: Test
    text: str
    told_as: str


def _of_events(name: str, node: Node, field: str, source: Source, scope: Scope) -> Measured:
    zone, window = scope.zone, source.window
    key = f"{source.key}|{field}{'|per item' if source.per_item else ''}"
    if field in MONEY:
        key += f"|{scope.currency}"
    test, text = test_of(name, node, "")
    if name == "median":
        node.wrong("median: of `order` only: all its values are kept")
        name = "avg"
    values = extractor(source, {"times": "", "distinct_days": "@day"}.get(name, field), zone, scope.currency)
    if name in _TOTALS:
        values = _exact(values)
    elif name != "times":
        key += f"|{name}"
    if window is not None and window.dates is not None:
        key += f"|{window.text} {zone}"
        values, window = _of_dates(values, window.dates), None
    bound = least = 0
    if name in ("times", "distinct", "distinct_days"):
        least = _least(node)
        if name != "times" or window is not None:
            bound = _kept(least or numeric(node)[2], node)
    elif name == "last":
        bound = 1
    asked = _Asked(name, node, source.types, values, key, bound, least, test, text, field)
    if window is None:
        return _ever(asked, scope)
    if name == "distinct_days" and window.own:
        node.wrong("distinct_days in the customer's zone: of `order` only: which days it was elsewhere is not kept")
    if name in _COUNTS and (window.leaves is not None or window.newest):
        return _newest(asked, window, scope)
    if window.periods is not None and not source.resolution_ms:
        return _by_periods(asked, window, scope)
    if (name == "times" or name in _TOTALS) and (window.length is not None or window.spans is not None):
        return _by_stretches(asked, window, source.resolution_ms, scope)
    whose = " in the customer's zone" if window.own else ""
    node.wrong(
        f"{name} {window.text if not window.own else window.text.rpartition(',')[0]}{whose}: of `order` only: not enough is kept of other events"
    )
    return Measured(lambda profile, now_ms: NO, frozenset(), text, lambda profile, now_ms: None)


_COUNTS: Final = ("times", "distinct", "distinct_days")
_PLAIN: Final[dict[str, Aggregate]] = {
    "times": counter.SPEC, "distinct": latest.SPEC, "distinct_days": latest.SPEC, "first": edge.SPEC, "last": edge.SPEC,
    **dict.fromkeys(_TOTALS, totals.SPEC),
}  # fmt: skip


def _read(asked: _Asked) -> Callable[[Any], Any]:
    """How the measure is read from its plain statistic."""
    if asked.name == "times":
        return lambda state: state or 0
    if asked.name in _COUNTS:
        return lambda state: len(state or ())
    if asked.name in ("first", "last"):
        index = 1 if asked.told_as else 0
        return lambda state: state[index] if state else None
    return _of_totals(asked.name)


def _ever(asked: _Asked, scope: Scope) -> Measured:
    """Without a window: the plain statistic."""
    kind = _PLAIN[asked.name]
    is_count = kind is latest.SPEC
    agg = scope.aggregate(kind, asked.types, asked.key, asked.values, asked.bound, asked.least if is_count else 0)
    if is_count:
        judge = _at_least_different(agg, asked.least, None) if asked.least else None
        return _counted(asked, agg, _by_value(agg), judge, None)
    read, test = _read(asked), asked.test

    def value(profile: Profile, now_ms: int) -> Any:
        return read(profile.aggs.get(agg))

    def judge_ever(profile: Profile, now_ms: int) -> Answer:
        found = read(profile.aggs.get(agg))
        return NO if found is None else always(test(found))

    def entries(profile: Profile, now_ms: int) -> tuple[list[tuple[int, Any]], int]:
        return _kept_times(asked, profile.aggs.get(agg)), FOREVER

    events = _times_told(entries, asked.told_as) if asked.name in ("first", "last") else None
    return Measured(judge_ever, agg_reads(agg), asked.text, value, events)


def _newest(asked: _Asked, window: Window, scope: Scope) -> Measured:
    """In a window that the newest leave last: as many of them as the answer can hang on."""
    is_times, least, leaves = asked.name == "times", asked.least, window.leaves
    kind = statistic(occurrences if is_times else latest, window)
    agg = scope.aggregate(kind, asked.types, asked.key, asked.values, asked.bound, least)
    judge: Judge | None = None
    if least and leaves is not None:
        judge = _at_least(agg, least, leaves) if is_times else _at_least_different(agg, least, leaves)
    return _counted(asked, agg, _pairs(agg) if is_times else _by_value(agg), judge, window)


def statistic(module: Any, window: Window) -> Aggregate:
    """The statistic that keeps what leaves the window last."""
    spec: Aggregate = module.SPEC
    length, zone = window.length, window.zone
    if length is None or keeps_order(length, zone):
        return spec
    by_calendar: Aggregate = module.kept_by(leaves_of(length, zone), f"{spec.name} by {length} {zone}")
    return by_calendar


def _by_periods(asked: _Asked, window: Window, scope: Scope) -> Measured:
    """In a period of the calendar: the plain statistic of each by itself."""
    inner = _PLAIN[asked.name]
    agg = scope.aggregate(by_period(inner, window), asked.types, asked.key, asked.values, asked.bound)
    look, read, test = in_period(window, inner, asked.bound), _read(asked), asked.test

    def told(state: Any) -> bool:
        found = read(state)
        return found is not None and test(found)

    def judge(profile: Profile, now_ms: int) -> Answer:
        state, turns = look(profile, profile.aggs.get(agg), now_ms)
        holds = told(state)
        for turn_ms, following in turns:
            if told(following) != holds:
                return holds, turn_ms
        return always(holds)

    def value(profile: Profile, now_ms: int) -> Any:
        return read(look(profile, profile.aggs.get(agg), now_ms)[0])

    def until(profile: Profile, now_ms: int) -> int:
        return next((turn_ms for turn_ms, _ in look(profile, profile.aggs.get(agg), now_ms)[1]), FOREVER)

    def entries(profile: Profile, now_ms: int) -> tuple[list[tuple[int, Any]], int]:
        return _kept_times(asked, look(profile, profile.aggs.get(agg), now_ms)[0]), FOREVER

    # Of a plain count nothing but the number is kept: nothing can be told of when.
    events = _times_told(entries, asked.told_as) if asked.name != "times" and asked.name not in _TOTALS else None
    return Measured(judge, agg_reads(agg) | window.reads, asked.text, value, events, until)


def _kept_times(asked: _Asked, state: Any) -> list[tuple[int, Any]]:
    """When it happened, and the values, ascending, as far as the plain statistic of a measure keeps it."""
    if not state:
        return []
    if asked.name in ("first", "last"):
        return [(state[0], state[1])]
    return sorted((at_ms, str(value)) for value, at_ms in state.items())


def _by_stretches(asked: _Asked, window: Window, step_ms: int, scope: Scope) -> Measured:
    """In any window, by stretches of time: a stretch stands as one entry at its last instant."""
    name, node, test = asked.name, asked.node, asked.test
    length = window.spans[1] if window.spans is not None else window.length
    assert length is not None
    longest = longest_ms(length) if isinstance(length, Duration) else 366 * DAY_MS
    if not step_ms:
        node.wrong(f"{name} {window.text} may need any number of entries: 'resolution' wanted, like PT1H")
        step_ms = longest
    # The window touches one stretch more than it is long.
    steps = -(-longest // step_ms) + 1
    if steps > KEPT_MAX:
        node.wrong(f"resolution: a window of fewer than {KEPT_MAX} steps wanted, got {steps - 1}")
    values = asked.values
    if name == "times":
        values = _ones(values)
    agg = scope.aggregate(buckets.SPEC, asked.types, asked.key, values, step_ms)
    read = _of_totals(name)

    def stretches(profile: Profile) -> list[tuple[int, Any]]:
        state = profile.aggs.get(agg) or {}
        return [(start_ms + step_ms - 1, state[start_ms]) for start_ms in sorted(state)]

    def together(parts: list[list[int]]) -> Any:
        if not parts:
            return read(None)
        counts, sums, least, most = zip(*parts, strict=True)
        return read([sum(counts), sum(sums), min(least), max(most)])

    look = windowed(stretches, window)
    return Measured(
        over_entries(stretches, together, test, window),
        agg_reads(agg) | window.reads,
        asked.text,
        lambda profile, now_ms: together(look(profile, now_ms)[0]),
        None,
        lambda profile, now_ms: look(profile, now_ms)[1],
    )


def _counted(asked: _Asked, agg: int, entries: Entries, judge: Judge | None, window: Window | None) -> Measured:
    """A measure that counts kept entries."""
    look = windowed(entries, window)
    reads = agg_reads(agg) | (window.reads if window is not None else frozenset())
    is_times = asked.name == "times"
    return Measured(
        judge or over_entries(entries, len, asked.test, window, is_times),
        reads,
        asked.text,
        lambda profile, now_ms: len(look(profile, now_ms)[0]),
        _times_told(windowed(_timed(entries), window), asked.told_as),
        lambda profile, now_ms: look(profile, now_ms)[1],
    )


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


def _at_least(agg: int, least: int, leaves: Leaves) -> Judge:
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


def _at_least_different(agg: int, least: int, leaves: Leaves | None) -> Judge:
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


def _of_totals(name: str) -> Callable[[list[int] | None], Any]:
    def read(state: list[int] | None) -> Any:
        if state is None:
            return 0 if name in ("sum", "times") else None
        count, total, least, most = state
        if name == "times":
            return count
        if name == "avg":
            return Fraction(total, count * 1_000_000)
        return Fraction({"sum": total, "min": least, "max": most}[name], 1_000_000)

    return read


def _exact(values: Values) -> Values:
    """Numbers as whole millionths, so that sums do not depend on the order of adding; what is no number is left out."""

    def exact(event: Event) -> list[Any]:
        return [
            round(Fraction(str(value)) * 1_000_000)
            for value in values(event)
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]

    return exact


def _ones(values: Values) -> Values:
    """One for each value: to be added up."""
    return lambda event: [1] * len(values(event))


def _of_dates(values: Values, dates: tuple[int, int]) -> Values:
    """The values of what happened on these days."""
    from_ms, until_ms = dates
    return lambda event: values(event) if from_ms <= event.at_ms < until_ms else []


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


def _pairs(agg: int) -> Entries:
    return lambda profile: [(at_ms, None) for at_ms in profile.aggs.get(agg, ())]


def _by_value(agg: int) -> Entries:
    return lambda profile: sorted((at_ms, str(value)) for value, at_ms in (profile.aggs.get(agg) or {}).items())
