"""Instants and durations.

An instant is an ``int`` of milliseconds since 1970 in UTC; names end in ``_ms``. A duration is
calendar months plus milliseconds: ``P3M`` is three calendar months, clamped at the month's end,
``P90D`` is ninety days of the calendar in the zone, ``PT2H`` is 7,200,000 ms wherever the clocks change.
This module reads no clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo

FOREVER: Final = 1 << 60
"""Later than every instant. ``until_ms == FOREVER``: time alone never changes it."""

SECOND_MS: Final = 1000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_DAY_0: Final = 719_163  # the day 1970-01-01, as datetime counts days
_ISO = re.compile(
    r"(?P<sign>-)?P(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
_SHORT = re.compile(r"(?P<count>\d+)(?P<unit>ms|s|m|h|d|w)")
_SHORT_UNITS: Final = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS}


class Clock(Protocol):
    """Says what time it is. Only the shell holds one."""

    def now_ms(self) -> int:
        """The instant now, epoch ms UTC."""
        ...


class Duration:
    """A length of time: calendar months, calendar days, and milliseconds, in that order of adding.

    Durations are values: equal parts, equal durations.
    """

    __slots__ = ("days", "months", "ms")

    def __init__(self, months: int = 0, days: int = 0, ms: int = 0) -> None:
        self.months = months
        self.days = days
        self.ms = ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"Duration({self})"

    def __str__(self) -> str:
        """The ISO 8601 form, canonical: ``P3M``, ``P1DT2H``, ``PT0S``."""
        months, days, ms = self._parts()
        sign = "-" if min(months, days, ms) < 0 else ""
        months, days, ms = abs(months), abs(days), abs(ms)
        years, months = divmod(months, 12)
        seconds, rest_ms = divmod(ms, SECOND_MS)
        hours, seconds = divmod(seconds, 3600)
        minutes, seconds = divmod(seconds, 60)
        date = "".join(f"{n}{unit}" for n, unit in ((years, "Y"), (months, "M"), (days, "D")) if n)
        fraction = f".{rest_ms:03d}" if rest_ms else ""
        time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M")) if n)
        if seconds or fraction:
            time += f"{seconds}{fraction}S"
        if not date and not time:
            return "PT0S"
        return f"{sign}P{date}" + (f"T{time}" if time else "")

    def _parts(self) -> tuple[int, int, int]:
        return self.months, self.days, self.ms

    def is_fixed(self) -> bool:
        """Whether it is the same number of milliseconds from every instant."""
        return not self.months and not self.days

    def after(self, at_ms: int, zone: tzinfo) -> int:
        """The instant this long after ``at_ms``, by the calendar of ``zone``.

        Months are added first (31 January + P1M is the last of February), then days, on the zone's
        wall clock; a wall time that does not exist is moved on by the gap, a doubled one is the first.
        """
        if not self.months and not self.days:
            return at_ms + self.ms
        if zone is UTC and not self.months:
            return at_ms + self.days * DAY_MS + self.ms
        return _add(at_ms, self.months, self.days, zone) + self.ms

    def before(self, at_ms: int, zone: tzinfo) -> int:
        """The instant this long before ``at_ms``; not the inverse of ``after`` at a month's end."""
        return Duration(-self.months, -self.days, -self.ms).after(at_ms, zone)

    def about_ms(self) -> int:
        """Roughly how long it is; for bounds and estimates only (a month is 30.44 days)."""
        return self.months * 2_629_746_000 + self.days * DAY_MS + self.ms


class Period:
    """A stretch of the calendar: day, week, month, quarter or year.

    Attributes:
        week_from: the day on which weeks begin, 0 for Monday to 6 for Sunday.
    """

    __slots__ = ("unit", "week_from")

    def __init__(self, unit: str, week_from: int = 0) -> None:
        self.unit = unit
        self.week_from = week_from if unit == "week" else 0

    def __str__(self) -> str:
        return self.unit + (f" from {WEEKDAYS[self.week_from]}" if self.week_from else "")

    def start(self, at_ms: int, zone: tzinfo) -> int:
        """The first instant of the period that holds ``at_ms``, in ``zone``."""
        return _period(day_number(at_ms, zone), self.unit, self.week_from, zone)[0]

    def after(self, at_ms: int, zone: tzinfo) -> int:
        """The first instant of the period after the one that holds ``at_ms``, in ``zone``."""
        return _period(day_number(at_ms, zone), self.unit, self.week_from, zone)[1]


WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PERIODS: Final = ("day", "week", "month", "quarter", "year")


@lru_cache(maxsize=4_096)
def _period(day: int, unit: str, week_from: int, zone: tzinfo) -> tuple[int, int]:
    """The first instants of the period that holds a day, and of the next."""
    if unit == "day":
        return day_start(day, zone), day_start(day + 1, zone)
    if unit == "week":
        first = day - (day + 3 - week_from) % 7  # 1970 began on a Thursday.
        return day_start(first, zone), day_start(first + 7, zone)
    date = datetime.fromordinal(day + _DAY_0)
    months = {"month": 1, "quarter": 3, "year": 12}[unit]
    first = (date.year * 12 + date.month - 1) // months * months
    return _month_start(first, zone), _month_start(first + months, zone)


def _month_start(month: int, zone: tzinfo) -> int:
    year, month0 = divmod(month, 12)
    return day_start(datetime(year, month0 + 1, 1).toordinal() - _DAY_0, zone)  # noqa: DTZ001  # a wall date


def parse_duration(text: str) -> Duration:
    """Read ``P3M``, ``P7D``, ``PT2H``, ``-P3D``, or the short ``90d``, ``2h``, ``30m``, ``10s``.

    Raises:
        ValueError: not a duration; the message says what was wanted and found.
    """
    short = _SHORT.fullmatch(text)
    if short:
        count, unit = int(short["count"]), short["unit"]
        if unit in ("d", "w"):
            return Duration(days=count * (7 if unit == "w" else 1))
        return Duration(ms=count * _SHORT_UNITS[unit])
    iso = _ISO.fullmatch(text)
    if iso is None or text.rstrip("T") in ("P", "-P") or text.endswith("T"):
        raise ValueError(f"a duration like P3M, P7D, PT2H or 30m wanted, got {text!r}")
    part = {name: int(value or 0) for name, value in iso.groupdict().items() if name != "sign"}
    sign = -1 if iso["sign"] else 1
    return Duration(
        months=sign * (part["years"] * 12 + part["months"]),
        days=sign * (part["weeks"] * 7 + part["days"]),
        ms=sign * ((part["hours"] * 60 + part["minutes"]) * 60 + part["seconds"]) * SECOND_MS,
    )


@lru_cache(maxsize=64)
def zone_named(name: str) -> tzinfo:
    """The time zone of that IANA name.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"a time zone name like Europe/Moscow wanted, got {name!r}") from error


def local(at_ms: int, zone: tzinfo) -> datetime:
    """The wall clock of ``zone`` at that instant."""
    return (_EPOCH + at_ms * _MS).astimezone(zone)


def instant(wall: datetime) -> int:
    """The instant of an aware ``datetime``, epoch ms."""
    return (wall - _EPOCH) // _MS


def day_number(at_ms: int, zone: tzinfo) -> int:
    """The calendar day in ``zone``, as days since 1970-01-01 there."""
    if zone is UTC:
        return at_ms // DAY_MS
    return local(at_ms, zone).toordinal() - _DAY_0


def day_start(number: int, zone: tzinfo) -> int:
    """The first instant of a calendar day (``day_number``) in ``zone``."""
    if zone is UTC:
        return number * DAY_MS
    wall = datetime.fromordinal(number + _DAY_0)
    return instant(wall.replace(tzinfo=zone))


def iso(at_ms: int) -> str:
    """``2026-11-22T15:04:05.000Z``."""
    second, ms = divmod(at_ms, SECOND_MS)
    day, second = divmod(second, 86_400)
    return f"{_iso_day(day)}{_CLOCK[second // 60]}{_SECOND[second % 60]}{_MILLISECOND[ms]}"


@lru_cache(maxsize=4_096)
def _iso_day(day: int) -> str:
    return (_EPOCH + day * DAY_MS * _MS).isoformat()[:11]


_CLOCK: Final = tuple(f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60))
_SECOND: Final = tuple(f"{second:02d}." for second in range(60))
_MILLISECOND: Final = tuple(f"{ms:03d}Z" for ms in range(1000))


def parse_instant(text: str) -> int:
    """Read an ISO 8601 date or time; without a zone it is UTC.

    Raises:
        ValueError: not an instant.
    """
    try:
        wall = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"an ISO 8601 time like 2026-11-22T15:04:05Z wanted, got {text[:40]!r}") from error
    return instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=UTC))


@lru_cache(maxsize=65_536)
def _add(at_ms: int, months: int, days: int, zone: tzinfo) -> int:
    try:
        wall = local(at_ms, zone)
        if months:
            year, month0 = divmod(wall.year * 12 + wall.month - 1 + months, 12)
            wall = wall.replace(year=year, month=month0 + 1, day=min(wall.day, _month_days(year, month0 + 1)))
        if days:
            wall = wall + timedelta(days=days)
        return instant(wall.replace(fold=0).astimezone(UTC))
    except (ValueError, OverflowError):
        # Beyond the calendar's years 1 to 9999: people state such times, and a rule must answer all the same.
        return FOREVER if at_ms > 0 else -FOREVER


def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31
