"""Calendars: the end of months, leap days, and the hours at which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.moments import (
    DAY_MS,
    FOREVER,
    HOUR_MS,
    Duration,
    day_number,
    day_start,
    instant,
    iso,
    local,
    parse_duration,
    parse_instant,
    zone_named,
)
from tests.laws.histories import law
from tests.laws.naive import later

BERLIN = zone_named("Europe/Berlin")
YEARS_MS = st.integers(-(40 * 365 * DAY_MS), 80 * 365 * DAY_MS)
PARTS = st.builds(
    Duration, st.integers(0, 30), st.integers(0, 400), st.integers(0, 100 * 3_600).map(lambda seconds: seconds * 1000)
)


def after(start: str, length: str, zone: str = "UTC") -> str:
    """The instant that long after, on the zone's wall clock; ``start`` is such a wall time too."""
    tz = zone_named(zone)
    at_ms = instant(datetime.fromisoformat(start).replace(tzinfo=tz))
    return local(parse_duration(length).after(at_ms, tz), tz).isoformat(timespec="minutes")


@pytest.mark.mechanic("M4")
@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        ("2026-01-31T10:00", "P1M", "2026-02-28T10:00"),
        ("2024-01-31T10:00", "P1M", "2024-02-29T10:00"),
        ("2026-11-30T10:00", "P3M", "2027-02-28T10:00"),
        ("2024-02-29T10:00", "P1Y", "2025-02-28T10:00"),
        ("2024-02-29T10:00", "P4Y", "2028-02-29T10:00"),
        ("2026-12-31T23:59", "P2M", "2027-02-28T23:59"),
        ("2026-01-31T10:00", "P1M1D", "2026-03-01T10:00"),  # months first, then days
        ("2026-01-30T10:00", "P1MT36H", "2026-03-01T22:00"),
        ("2026-03-31T10:00", "-P1M", "2026-02-28T10:00"),
        ("1900-01-31T10:00", "P1M", "1900-02-28T10:00"),
        ("2000-01-31T10:00", "P1M", "2000-02-29T10:00"),
    ],
)
def test_months_are_the_calendars_and_end_with_the_month(start: str, length: str, end: str) -> None:
    assert after(start, length) == f"{end}+00:00"


@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        # In the night to 29 March 2026 Berlin's clocks go from 02:00 to 03:00; to 25 October from 03:00 back to 02:00.
        ("2026-03-28T12:00", "P1D", "2026-03-29T12:00+02:00"),
        ("2026-03-28T12:00", "PT24H", "2026-03-29T13:00+02:00"),
        ("2026-03-28T02:30", "P1D", "2026-03-29T03:30+02:00"),  # 02:30 does not exist: moved on by the gap
        ("2026-02-28T02:30", "P1M1D", "2026-03-29T03:30+02:00"),
        ("2026-10-24T02:30", "P1D", "2026-10-25T02:30+02:00"),  # there are two: the first
        ("2026-10-24T02:30", "P1DT1H", "2026-10-25T02:30+01:00"),  # an hour after that is the second
        ("2026-10-24T12:00", "P1D", "2026-10-25T12:00+01:00"),
    ],
)
def test_days_are_those_of_the_zones_wall_clock(start: str, length: str, end: str) -> None:
    assert after(start, length, "Europe/Berlin") == end


@law(300)
@given(at_ms=YEARS_MS, length=PARTS, zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]))
def test_durations_equal_a_second_reckoning(at_ms: int, length: Duration, zone: str) -> None:
    assert length.after(at_ms, zone_named(zone)) == later(at_ms, str(length), zone)


@law(100)
@given(length=PARTS, sign=st.sampled_from([1, -1]))
def test_a_duration_is_read_back_from_its_text(length: Duration, sign: int) -> None:
    whole = Duration(sign * length.months, sign * length.days, sign * length.ms)
    assert parse_duration(str(whole)) == whole
    assert hash(parse_duration(str(whole))) == hash(whole)


@pytest.mark.parametrize(
    ("text", "same"),
    [("90d", "P90D"), ("2w", "P14D"), ("2h", "PT2H"), ("30m", "PT30M"), ("10s", "PT10S"), ("P1Y2M", "P14M"), ("P2W", "P14D")],
)  # fmt: skip
def test_short_forms_mean_the_same(text: str, same: str) -> None:
    assert parse_duration(text) == parse_duration(same)


@pytest.mark.parametrize("text", ["", "P", "PT", "-P", "P1", "1", "1x", "P1DT", "P1.5D", "P3M2Y", "T2H", "p1d", "P-1D"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration like"):
        parse_duration(text)


@law(200)
@given(
    at_ms=YEARS_MS, zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Santiago", "Africa/Cairo", "Asia/Kolkata"])
)
def test_a_day_begins_at_its_first_instant(at_ms: int, zone: str) -> None:
    tz = zone_named(zone)
    number = day_number(at_ms, tz)
    start_ms, next_ms = day_start(number, tz), day_start(number + 1, tz)
    assert start_ms <= at_ms < next_ms
    assert day_number(start_ms, tz) == number
    assert day_number(start_ms - 1, tz) == number - 1
    assert 20 * HOUR_MS <= next_ms - start_ms <= 28 * HOUR_MS


@law(100)
@given(at_ms=YEARS_MS)
def test_an_instant_is_read_back_from_its_text(at_ms: int) -> None:
    assert parse_instant(iso(at_ms)) == at_ms
    assert local(at_ms, BERLIN) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)


def test_an_instant_without_a_zone_is_utc_and_with_one_is_that() -> None:
    assert parse_instant("2026-03-29") == parse_instant("2026-03-29T00:00:00Z")
    assert parse_instant("2026-03-29T02:00:00+02:00") == parse_instant("2026-03-29")
    with pytest.raises(ValueError, match=r"an ISO 8601 time like .*, got 'soon'"):
        parse_instant("soon")


def test_beyond_the_calendar_there_is_no_instant() -> None:
    last_ms = parse_instant("9999-12-31")
    for zone in (zone_named("UTC"), BERLIN):
        assert Duration(months=1).after(last_ms, zone) == FOREVER
        assert Duration(months=-20).after(parse_instant("0001-06-01"), zone) == -FOREVER
        assert Duration(months=1).after(10**17, zone) == FOREVER
    assert Duration(days=400).after(last_ms, BERLIN) == FOREVER


def test_a_zone_that_does_not_exist_is_refused() -> None:
    assert zone_named("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    for name in ("Europe/Berln", "", "../etc/passwd", "/etc/localtime"):
        with pytest.raises(ValueError, match="a time zone name like"):
            zone_named(name)
