"""``on: {date: birth_date, anniversary: true, offset: -P3D, at: "10:00"}``: enter on a day that the profile states.

The day is that of the trait (an ISO date; of a time, its day in the zone), moved by ``offset``, at the wall time ``at``
(00:00) in the customer's ``zone`` (his trait ``timezone``, the shop's without one) or the shop's. With ``anniversary``
it comes every year, and once a calendar year (of the anniversary, not of the offset day), also when the date is
corrected after it came; 29 February is 28 February or 1 March in other years (``feb29``). A day that is past when it
is told has no occasion.
"""

from __future__ import annotations

from datetime import date, datetime, time, tzinfo
from typing import Any

from profiles.moments import Duration, instant, local, parse_duration
from profiles.people import zone_of
from profiles.state import TRAITS, Profile
from rules.documents import Node
from rules.program import Chance, Entry, TriggerSpec
from rules.spec import Scope
from rules.words import Tongue

_YEARS = 3  # of which one has the day still to come, whatever came last year
_SERVED = "year:"


def _compile(node: Node, trigger: str, scope: Scope) -> Entry:
    named = node.get("date")
    assert named is not None
    path = named.text()
    reader = scope.reader(path, named)
    if reader.kind not in ("time", "text", "any"):
        named.wrong(f"date: a trait that is a date wanted, got a {reader.kind}")
    yearly_node, feb29, of = node.get("anniversary"), node.get("feb29"), node.get("zone")
    yearly = yearly_node is not None and yearly_node.truth()
    late_leap = feb29 is not None and feb29.choice(("feb28", "mar1")) == "mar1"
    shops = of is not None and of.choice(("profile", "shop")) == "shop"
    offset, at = _offset(node.get("offset")), node.get("at")
    wall = at.wall_time() if at is not None else time(0)
    said = f"{path}{'' if offset is None else f' {offset}'}"

    def due(day: date, zone: tzinfo) -> int:
        at_ms = instant(datetime.combine(day, time(0), tzinfo=zone))
        if offset is not None:
            at_ms = offset.after(at_ms, zone)
        return instant(datetime.combine(local(at_ms, zone).date(), wall, tzinfo=zone))

    def timers(profile: Profile) -> dict[str, tuple[int, Chance]]:
        zone = scope.zone if shops else zone_of(profile, scope.zone)
        value, _ = reader.read(profile, profile.seen_ms)
        day = _day(value, zone)
        if day is None:
            return {}
        because = {"node": said, "value": day.isoformat()}
        if not yearly:
            due_ms = due(day, zone)
            if due_ms < profile.seen_ms:
                return {}
            return {"": (due_ms, Chance(f"date:{day.isoformat()}", because))}
        served = profile.entries.get(f"at:{trigger}:", (0,))[0]
        year = local(profile.seen_ms, zone).year
        for one in range(year - 1, year + _YEARS):
            due_ms = due(_in_year(day, one, late_leap), zone)
            # One a calendar year, by the year of the day itself: an edited date does not come twice.
            if due_ms >= profile.seen_ms and (not served or one > _year_of(served, offset, zone)):
                return {"": (due_ms, Chance(f"year:{one}", because, {"year": one}))}
        return {}

    return Entry(timers=timers, reads=reader.reads | {("part", TRAITS)})


def _year_of(served_ms: int, offset: Duration | None, zone: tzinfo) -> int:
    at_ms = served_ms if offset is None else offset.before(served_ms, zone)
    return local(at_ms, zone).year


def _in_year(day: date, year: int, late_leap: bool) -> date:
    try:
        return day.replace(year=year)
    except ValueError:
        return date(year, 3, 1) if late_leap else date(year, 2, 28)


def _day(value: Any, zone: tzinfo) -> date | None:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value[:10])
        except ValueError:
            return None
    if isinstance(value, int) and not isinstance(value, bool):
        return local(value, zone).date()
    return None


def _offset(node: Node | None) -> Duration | None:
    if node is None:
        return None
    try:
        found = parse_duration(node.text())
    except ValueError as error:
        node.wrong(str(error))
        return None
    if found.ms or abs(found.about_ms()) > Duration(months=11).about_ms():
        node.wrong(f"whole days, less than a year, wanted (like -P3D), got {found}")
    return found


def _words(on: dict[str, Any], t: Tongue) -> str:
    name, offset, wall = t.trait(on["date"]), str(on.get("offset", "")), on.get("at")
    yearly = on.get("anniversary") is True
    day = t.pick(f"{name} comes{' round' if yearly else ''}", f"{name}{': ежегодно' if yearly else ''}")
    if offset.startswith("-"):
        day += t.pick(f", {t.duration(offset[1:])} before", f", за {t.duration(offset[1:])} до этого")
    elif offset:
        day += t.pick(f", {t.duration(offset)} after", f", через {t.duration(offset)} после")
    return day + (t.pick(f", at {wall}", f", в {wall}") if wall else "")


SPEC = TriggerSpec(
    "date",
    "On a day that the profile states, or every year on it; before or after it by `offset`.",
    ("anniversary", "offset", "at", "zone", "feb29"),
    _compile,
    _words,
    (
        """
        trigger it = {on: {date: birth_date, anniversary: true, offset: -P3D, at: "10:00"}, steps: [{emit: birthday}]}
        start 2026-01-01T00:00
        0d                ana  identified birth_date=1990-03-15
        2026-03-12T09:59  ana  expect emits it 0
        2026-03-12T10:00  ana  expect emits it 1
        2027-03-12T10:00  ana  expect emits it 2
        """,
    ),
)
