"""Windows: at which instants something that happened counts.

A window places what happened at e in a stretch of instants, [enters, leaves): looked at in that stretch, it is inside.

    within: D             [e, e + D); D may be so many times a trait that is a length of time; D alone means the same
    calendar: this_month  from e to the end of its month; last_month: the month after its month
    between: [D, E]       [e + D, e + E): at least D and less than E ago
    between: [day, day]   always, of what happened on these days and those between them; so do after and before
    since_last: event     of what happened later than the last of these events
    session: current      of what happened since the visit under way began; since: session_start is the same

Calendars are the shop's, or with ``zone: profile`` the customer's own: a change of his zone places everything anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from fractions import Fraction
from typing import Any, Final, NamedTuple

from profiles.aggregates import Aggregate
from profiles.moments import DAY_MS, FOREVER, HOUR_MS, MINUTE_MS, PERIODS, Duration, Period, instant
from profiles.people import zone_of
from profiles.state import SESSION, TRAITS, Profile
from rules.documents import Node
from rules.spec import UNREADABLE, Reads, Scope

CALENDAR: Final = {
    "today": ("day", 0),
    **{f"this_{unit}": (unit, 0) for unit in PERIODS if unit != "day"},
    "yesterday": ("day", 1),
    **{f"last_{unit}": (unit, 1) for unit in PERIODS},
}
"""Word -> (period, how many periods ago)."""

THE_SHOPS: Final = ("shop", "workspace")
"""The words for the shop's own zone."""

KEYS: Final = ("within", "calendar", "between", "after", "before", "since_last", "session", "since", "zone")
_KINDS: Final = KEYS[:-1]

Leaves = Callable[[int], int]
"""When what happened at an instant leaves the window."""

Place = Callable[[int], tuple[int, int]]
"""What happened at an instant is inside from the first to the second of these; nothing is inside [n, n)."""

Since = Callable[[Profile], int | None]
"""The instant after which things count, ``None`` for all of them."""

_NEVER: Final = (FOREVER, FOREVER)


def nowhere(at_ms: int) -> tuple[int, int]:
    """How everything is placed for whom there is no window: neither did he do anything in it, nor did he not."""
    return _NEVER


_ALWAYS: Final = (-FOREVER, FOREVER)


class Last(NamedTuple):
    """The last of some events: when, what tells it, and what they are called."""

    at: Since
    reads: Reads
    text: str


@dataclass(frozen=True, slots=True)
class Window:
    """A window of one of the kinds above.

    Attributes:
        text: in words.
        places: a customer -> how his happenings are placed; the same of everybody where ``reads`` is empty.
        reads: what of the customer it looks at.
        length: of a window that begins at the happening: how long it is, in the shop's zone.
        zone: the shop's.
        own: that the customer's own zone is meant, the shop's only where he has none.
        periods: of the calendar: the period, and how many periods ago.
        dates: of fixed days: the first instant, and the first after them.
        spans: of ``between`` two durations: both.
        relative: that its length is a trait, and who has none has no window (``nowhere``).
        newest: that the newest happenings are the last to leave, though what is inside hangs on the customer.
    """

    text: str
    places: Callable[[Profile], Place]
    reads: Reads = frozenset()
    length: Duration | Period | None = None
    zone: tzinfo = UTC
    own: bool = False
    periods: tuple[Period, int] | None = None
    dates: tuple[int, int] | None = None
    spans: tuple[Duration, Duration] | None = None
    newest: bool = False
    relative: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def leaves(self) -> Leaves | None:
        """When things leave a window that they enter as they happen, the same for everybody; of others ``None``."""
        return leaves_of(self.length, self.zone) if self.length is not None else None


def leaves_of(length: Duration | Period, zone: tzinfo) -> Leaves:
    """When what happened at an instant leaves: exactly that long after, by the calendar of the zone; of a calendar's
    period, when the next begins."""
    if isinstance(length, Duration) and keeps_order(length, zone):
        length_ms = length.days * DAY_MS + length.ms
        return lambda at_ms: at_ms + length_ms
    after = length.after
    return lambda at_ms: after(at_ms, zone)


def keeps_order(length: Duration | Period, zone: tzinfo) -> bool:
    """Whether what happened first leaves first. A month after 29 January noon and after 31 January morning is 28
    February, noon and morning; days on which clocks change do the same to hours."""
    return isinstance(length, Period) or length.is_fixed() or (zone is UTC and not length.months)


def longest_ms(length: Duration) -> int:
    """How long it is at most: a month has up to 31 days, a day up to 25 hours."""
    calendar = HOUR_MS if length.months or length.days else 0
    return length.months * 31 * DAY_MS + length.days * DAY_MS + length.ms + calendar


def window_of(node: Node | None, scope: Scope, last: Callable[[Node], Last] | None = None) -> Window | None:
    """Read ``window: {within: P30D}``, ``window: P30D``, ``window: {calendar: last_month, zone: profile}``.

    Args:
        last: reads what ``since_last`` names; without it that is a mistake.
    """
    if node is None:
        return None
    if isinstance(node.value, str):
        if node.value in CALENDAR:
            node.wrong(f"a period of the calendar goes as {{calendar: {node.value}}}")
            return None
        node = node.made({"within": node})
    node.known(KEYS)
    if not node.is_map():
        return None
    kinds = [key for key in _KINDS if node.get(key) is not None]
    if not kinds:
        if all(key in KEYS for key, _ in node.items()):
            node.wrong(f"one of {', '.join(_KINDS)} wanted")
        return None
    if len(kinds) > 1 and kinds != ["after", "before"]:
        node.wrong(f"one of {', '.join(_KINDS)} wanted, got {' and '.join(kinds)}")
    kind, operand = kinds[0], node.get(kinds[0])
    assert operand is not None
    by_profile = _by_profile(node, kind, operand)
    if kind == "within" and operand.is_map():
        return _relative(operand, scope)
    if kind == "within":
        length = operand.duration()
        return _begun(length, f"within {length}", scope.zone, by_profile)
    if kind == "calendar":
        word = operand.choice(CALENDAR)
        unit, ago = CALENDAR[word]
        period = Period(unit, scope.week_from)
        said = f"{period}".replace(unit, word.replace("_", " ") if word != "last_day" else "yesterday", 1)
        return _calendar(period, ago, said, scope.zone, by_profile)
    if kind == "between" and not _is_dates(operand):
        return _between(operand, scope.zone, by_profile)
    if kind in ("between", "after", "before"):
        return _dates(node, kind, operand, scope.zone)
    if kind in ("session", "since"):
        operand.choice(("current",) if kind == "session" else ("session_start",))
        return Window("in this session", _in_visit, frozenset({("part", SESSION)}), newest=True)
    if last is None:
        operand.wrong("since_last: goes with did, did_not and measures only")
        return None
    told = last(operand)
    return Window(f"since the last {told.text}", lambda profile: _later(told.at(profile)), told.reads, newest=True)


def sliding(window: Window | None, node: Node) -> Window | None:
    """The window, where it is one that things enter as they happen, the same for everybody; another is a mistake."""
    if window is None or window.leaves is not None:
        return window
    (node.get("window") or node).wrong("a window `within`, or a period of the shop's calendar under way wanted")
    return None


def _by_profile(node: Node, kind: str, operand: Node) -> bool:
    zone = node.get("zone")
    if zone is None:
        return False
    if kind not in ("within", "calendar") and not (kind == "between" and not _is_dates(operand)):
        zone.wrong("zone: goes with within, calendar and between two durations only")
    return zone.choice((*THE_SHOPS, "profile")) == "profile"


def _begun(length: Duration | Period, text: str, shop: tzinfo, by_profile: bool) -> Window:
    """A window that things enter as they happen."""
    is_period = isinstance(length, Period)
    if by_profile and not (isinstance(length, Duration) and length.is_fixed()):

        def places(profile: Profile) -> Place:
            leaves = leaves_of(length, zone_of(profile, shop))
            return lambda at_ms: (-FOREVER, leaves(at_ms))

        periods = (length, 0) if isinstance(length, Period) else None
        return Window(f"{text}, the customer's", places, _ZONED, zone=shop, own=True, periods=periods, newest=is_period)
    leaves = leaves_of(length, shop)

    def place(at_ms: int) -> tuple[int, int]:
        return -FOREVER, leaves(at_ms)

    periods = (length, 0) if isinstance(length, Period) else None
    return Window(text, lambda profile: place, length=length, zone=shop, periods=periods)


def _relative(operand: Node, scope: Scope) -> Window | None:
    """``within: {times: 3, of: gap}``: so many times a span of the customer's own. Without that span there is no window."""
    operand.known(("times", "of"), required=("times", "of"))
    times_node, of = operand.get("times"), operand.get("of")
    if times_node is None or of is None:
        return None
    times = Fraction(times_node.number())
    if times <= 0:
        times_node.wrong(f"times: a number above zero wanted, got {times_node.found()}")
    span = scope.reader(of.text(), of)
    if span is not UNREADABLE and span.kind != "span":
        of.wrong(f"a trait that is a length of time wanted, like mean_gap, got a {span.kind}")
    read = span.read

    def places(profile: Profile) -> Place:
        span_ms = read(profile, profile.seen_ms)[0]
        if span_ms is None:
            return nowhere
        length_ms = math.ceil(span_ms * times)
        return lambda at_ms: (-FOREVER, at_ms + length_ms)

    text = f"within {times_node.found()} × {of.text()}"
    return Window(text, places, span.reads, newest=True, relative=True)


def _calendar(period: Period, ago: int, text: str, shop: tzinfo, by_profile: bool) -> Window:
    if not ago:
        return _begun(period, text, shop, by_profile)

    def places_in(zone: tzinfo) -> Place:
        def place(at_ms: int) -> tuple[int, int]:
            enters_ms = period.after(at_ms, zone)
            return enters_ms, period.after(enters_ms, zone)

        return place

    if by_profile:
        return Window(
            f"{text}, the customer's",
            lambda profile: places_in(zone_of(profile, shop)),
            _ZONED,
            zone=shop,
            own=True,
            periods=(period, ago),
        )
    place = places_in(shop)
    return Window(text, lambda profile: place, zone=shop, periods=(period, ago))


def _between(operand: Node, shop: tzinfo, by_profile: bool) -> Window:
    pair = list(operand)
    if len(pair) != 2:
        operand.wrong(f"between: a list of two durations, or of two dates wanted, got {operand.found()}")
        pair = [operand.made("P1D"), operand.made("P2D")]
    told = len(operand.mistakes)
    near, far = pair[0].duration(), pair[1].duration()
    if near.about_ms() >= far.about_ms():
        if len(operand.mistakes) == told:
            operand.wrong("between: the lesser duration first")
        near, far = Duration(days=1), Duration(days=2)

    def places_in(zone: tzinfo) -> Place:
        enters, leaves = leaves_of(near, zone), leaves_of(far, zone)
        return lambda at_ms: (enters(at_ms), leaves(at_ms))

    text = f"{near} to {far} ago"
    if by_profile and not (near.is_fixed() and far.is_fixed()):
        return Window(
            f"{text}, the customer's", lambda profile: places_in(zone_of(profile, shop)), _ZONED, zone=shop, own=True
        )
    place = places_in(shop)
    return Window(text, lambda profile: place, zone=shop, spans=(near, far))


def _is_dates(operand: Node) -> bool:
    return isinstance(operand.value, list) and any(str(one.value)[:1].isdigit() for one in operand.value)


def _dates(node: Node, kind: str, operand: Node, zone: tzinfo) -> Window:
    """Fixed days: from the first instant of the first day, or the instant that is named, to the end of the last."""
    from_ms, until_ms, said = -FOREVER, FOREVER, []
    if kind == "between":
        pair = list(operand)
        if len(pair) != 2:
            operand.wrong(f"between: a list of two dates wanted, got {operand.found()}")
            pair = [operand.made("2026-01-01")] * 2
        told = len(operand.mistakes)
        from_ms, until_ms = _date(pair[0], zone)[0], _date(pair[1], zone)[1]
        said.append(f"between {pair[0].value} and {pair[1].value}")
        if from_ms >= until_ms and len(operand.mistakes) == told:
            operand.wrong("between: the earlier date first")
    after, before = node.get("after"), node.get("before")
    if after is not None:
        from_ms = _date(after, zone)[0]
        said.append(f"from {after.value}")
    if before is not None:
        until_ms = _date(before, zone)[0]
        said.append(f"before {before.value}")
        if after is not None and from_ms >= until_ms:
            before.wrong(f"before: a date later than {after.value} wanted, got {before.found()}")

    def place(at_ms: int) -> tuple[int, int]:
        return _ALWAYS if from_ms <= at_ms < until_ms else _NEVER

    return Window(" ".join(said), lambda profile: place, zone=zone, dates=(from_ms, until_ms))


def _date(node: Node, zone: tzinfo) -> tuple[int, int]:
    """A day, from its first instant to the next day's; or one instant, of the zone unless it names another."""
    text = node.text()
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        node.wrong(f"a date like 2026-11-24, or a time like 2026-11-24T09:00 wanted, got {text[:40]!r}")
        return 0, DAY_MS
    if wall.tzinfo is None:
        wall = wall.replace(tzinfo=zone)
    if len(text) > len("2026-11-24"):
        return instant(wall), instant(wall)
    return instant(wall), instant(datetime.combine(wall.date() + timedelta(days=1), time(0), tzinfo=zone))


_ZONED: Final[Reads] = frozenset({("part", TRAITS)})


def _in_visit(profile: Profile) -> Place:
    if profile.session is None:
        return lambda at_ms: _NEVER
    start_ms = profile.session.start_ms
    return lambda at_ms: _ALWAYS if at_ms >= start_ms else _NEVER


def _later(than_ms: int | None) -> Place:
    if than_ms is None:
        return lambda at_ms: _ALWAYS
    return lambda at_ms: _ALWAYS if at_ms > than_ms else _NEVER


# --- statistics of the calendar's periods ------------------------------------------------------------------------

_QUARTER_MS: Final = 15 * MINUTE_MS
_AWAY_MS: Final = 15 * HOUR_MS
_CELLS_MAX: Final = 400


def by_period(inner: Aggregate, window: Window) -> Aggregate:
    """The same statistic by itself for each period of a window of the calendar, as many as are asked for; and one more,
    for clocks that run ahead. Its state: an instant of the period -> the state of what happened in it.

    Of customers' own calendars it is one for each stretch that lies in one period wherever the customer is: quarters of an
    hour where one period ends here and another begins there (zones are at most 14 hours, and whole quarters, from UTC),
    and all that lies between. Three such nights, and what lies between them, are fewer than ``_CELLS_MAX``.
    """
    assert window.periods is not None
    period, ago = window.periods
    zone, kept = (UTC, _CELLS_MAX) if window.own else (window.zone, ago + 2)
    cell = _cell_of(period) if window.own else period.start

    def newest(state: dict[int, Any]) -> dict[int, Any]:
        while len(state) > kept:
            del state[min(state)]
        return state

    def add(state: dict[int, Any] | None, at_ms: int, value: Any, bound: int) -> dict[int, Any]:
        state = {} if state is None else state
        start_ms = cell(at_ms, zone)
        state[start_ms] = inner.add(state.get(start_ms), at_ms, value, bound)
        return newest(state)

    def merge(a: dict[int, Any], b: dict[int, Any], bound: int) -> dict[int, Any]:
        both = dict(a)
        for start_ms, state in b.items():
            both[start_ms] = inner.merge(both[start_ms], state, bound) if start_ms in both else state
        return newest(both)

    whose = "customers" if window.own else f"{zone}"
    return Aggregate(f"{inner.name} by {period} {whose} {kept}", inner.says, add, merge)


def _cell_of(period: Period) -> Callable[[int, tzinfo], int]:
    def cell(at_ms: int, zone: tzinfo) -> int:
        start_ms, end_ms = period.start(at_ms, zone), period.after(at_ms, zone)
        if at_ms - start_ms >= _AWAY_MS and end_ms - at_ms > _AWAY_MS:
            return start_ms + _AWAY_MS
        return at_ms - at_ms % _QUARTER_MS

    return cell


def in_period(
    window: Window, inner: Aggregate, bound: int
) -> Callable[[Profile, dict[int, Any] | None, int], tuple[Any, list[tuple[int, Any]]]]:
    """How a statistic by periods is read: (customer, its state, now) -> (the state of the period that is asked for,
    ``None`` if nothing happened in it; and what it will be when the calendar turns, with the instants, ascending)."""
    assert window.periods is not None
    period, ago = window.periods
    shop = window.zone

    def read(profile: Profile, state: dict[int, Any] | None, now_ms: int) -> tuple[Any, list[tuple[int, Any]]]:
        if not state:
            return None, []
        zone = zone_of(profile, shop) if window.own else shop
        by_start: dict[int, Any] = {}
        for cell_ms in sorted(state):
            start_ms = period.start(cell_ms, zone)
            known = by_start.get(start_ms)
            by_start[start_ms] = (
                state[cell_ms] if known is None else inner.merge(deepcopy(known), state[cell_ms], bound)
            )
        found = None
        turns: dict[int, Any] = {}
        for start_ms, one in by_start.items():
            enters_ms = start_ms
            for _ in range(ago):
                enters_ms = period.after(enters_ms, zone)
            leaves_ms = period.after(enters_ms, zone)
            if enters_ms <= now_ms < leaves_ms:
                found = one
            turns[enters_ms] = one
            turns.setdefault(leaves_ms, None)
        return found, sorted((turn_ms, one) for turn_ms, one in turns.items() if turn_ms > now_ms)

    return read
