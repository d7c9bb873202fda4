"""The policy of contact, asked at the moment of sending: quiet hours, caps on how often, hold-outs.

    policies:
      marketing:
        consent: {channel: email}
        quiet: {from: "21:00", to: "09:00", weekdays: [sun], on_conflict: defer}
        limits: [{max: 1, per: P1D}, {max: 4, per: P7D, scope: channel}]
        holdout: {in_segment: holdout_5}

A trigger's class has the policy of that name; what a trigger says itself stands, and ``none`` lifts a part of it. Hours and
days are the customer's. A cap counts what was sent, from the decision on: of the class (unless said), on a channel, about a topic, or by the
trigger itself; ``per`` a duration up to now, or a calendar ``day``, ``week``, ``month`` or ``year``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta, tzinfo
from typing import Any, Final

from profiles.aggregates import occurrences
from profiles.moments import MINUTE_MS, Duration, instant, iso, local
from profiles.people import zone_of
from profiles.state import Profile
from rules.documents import Node
from rules.spec import Judged, Scope

POLICY_PARTS: Final = ("consent", "quiet", "limits", "holdout")
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CALENDAR: Final = ("day", "week", "month", "year")
GRANT: Final = "grant"
"""Of a trigger that may be entered once for each time that its consent is granted."""
SCOPES: Final = ("class", "channel", "topic", "trigger")
MAX: Final = 100
_STRETCHES_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Quiet:
    """When nobody is written to: between two wall times, and on whole days.

    Attributes:
        shops: by the shop's clock, not the customer's.
        conflict: what becomes of a moment then: ``defer`` to the end, ``drop``, or ``advance`` to before it began.
    """

    begins: time
    ends: time
    days: tuple[int, ...]
    shops: bool
    conflict: str

    def until(self, profile: Profile, at_ms: int, shop_zone: tzinfo) -> int | None:
        """The end of the quiet stretch that this instant is in, exclusive; ``None`` outside."""
        zone = shop_zone if self.shops else zone_of(profile, shop_zone)
        end_ms = at_ms
        for _ in range(_STRETCHES_MAX):
            next_ms = self._end(end_ms, zone)
            if next_ms is None:
                break
            end_ms = next_ms
        return end_ms if end_ms > at_ms else None

    def before(self, profile: Profile, at_ms: int, shop_zone: tzinfo) -> int:
        """The last minute before the quiet stretch that this instant is in; outside, the instant itself."""
        zone = shop_zone if self.shops else zone_of(profile, shop_zone)
        for _ in range(_STRETCHES_MAX):
            wall = local(at_ms, zone)
            if wall.weekday() in self.days:
                wall = wall.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
            elif self._in_hours(wall.time()):
                day = wall.date() if wall.time() >= self.begins else wall.date() - timedelta(days=1)
                wall = datetime.combine(day, self.begins, tzinfo=zone)
            else:
                break
            at_ms = instant(wall) - MINUTE_MS
        return at_ms

    def _end(self, at_ms: int, zone: tzinfo) -> int | None:
        wall = local(at_ms, zone)
        if wall.weekday() in self.days:
            return instant(datetime.combine(wall.date() + timedelta(days=1), time(0), tzinfo=zone))
        if not self._in_hours(wall.time()):
            return None
        day = wall.date() if wall.time() < self.ends else wall.date() + timedelta(days=1)
        return max(at_ms + 1, instant(datetime.combine(day, self.ends, tzinfo=zone)))

    def _in_hours(self, wall: time) -> bool:
        if self.begins <= self.ends:
            return self.begins <= wall < self.ends
        return wall >= self.begins or wall < self.ends


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``most`` in ``per`` of a scope, ``class`` say, and its name; ``agg``: the statistic that counts."""

    most: int
    per: Duration | str
    scope: str
    name: str = ""
    agg: int = 0

    def until(self, profile: Profile, now_ms: int, shop_zone: tzinfo) -> int | None:
        """Till when it holds back; ``None``: there is room."""
        times: list[int] = profile.aggs.get(self.agg) or []
        if len(times) < self.most:
            return None
        oldest_ms = times[-self.most]
        if isinstance(self.per, Duration):
            free_ms = self.per.after(oldest_ms, shop_zone)
            return free_ms if free_ms > now_ms else None
        begins_ms, ends_ms = calendar(now_ms, self.per, zone_of(profile, shop_zone))
        return ends_ms if oldest_ms >= begins_ms else None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trigger's moments are held back by, beside consent.

    Attributes:
        names: scope -> what it is for this trigger, ``channel`` -> ``email``.
        counts: (statistic, how many times it keeps) of all caps, of whatever triggers, that its moments count for.
    """

    quiet: Quiet | None = None
    caps: tuple[Cap, ...] = ()
    holdout: Judged | None = None
    names: tuple[tuple[str, str], ...] = ()
    counts: tuple[tuple[int, int], ...] = ()

    def holds_out(self, profile: Profile, now_ms: int) -> dict[str, Any] | None:
        """The particulars, if he is one of those who are sent nothing, to see what sending does."""
        if self.holdout is None or not self.holdout.judge(profile, now_ms)[0]:
            return None
        return {"rule": self.holdout.text, "until": None}

    def refuses(self, profile: Profile, now_ms: int, shop_zone: tzinfo) -> tuple[str, dict[str, Any]] | None:
        """The cap that holds back, and its particulars; quiet hours and hold-outs apart."""
        for cap in self.caps:
            until_ms = cap.until(profile, now_ms, shop_zone)
            if until_ms is not None:
                return "frequency", {"rule": f"{cap.most} per {cap.per} of the {cap.scope}", "until": iso(until_ms)}
        return None

    def count(self, profile: Profile, now_ms: int) -> None:
        """Something was sent."""
        for agg, bound in self.counts:
            profile.aggs[agg] = occurrences.SPEC.add(profile.aggs.get(agg), now_ms, None, bound)


def by_channel(limits: Limits) -> Limits:
    """Of these only what is counted by the channel: for what goes out beside another that has been counted."""
    return replace(
        limits,
        caps=tuple(cap for cap in limits.caps if cap.scope == "channel"),
        names=tuple((scope, name) for scope, name in limits.names if scope == "channel"),
    )


def compile_limits(parts: dict[str, Node], names: dict[str, str], scope: Scope) -> Limits:
    """Compile what a trigger is limited by.

    Args:
        parts: ``quiet``, ``limits`` and ``holdout`` as far as they are said.
        names: scope of a cap -> what it is for this trigger, ``channel`` -> ``email``.
    """
    quiet, limits, holdout = (
        node if (node := parts.get(part)) is not None and node.value != "none" else None for part in POLICY_PARTS[1:]
    )
    caps = [_cap(one) for one in limits] if limits is not None else []
    for i, cap in enumerate(caps):
        name = names[cap.scope]
        # No event counts here: the engine does, when it has decided.
        agg = scope.aggregate(occurrences.SPEC, (), f"sent|{cap.scope}|{name}", lambda event: [], cap.most)
        caps[i] = replace(cap, name=name, agg=agg)
    return Limits(
        _quiet(quiet) if quiet is not None else None,
        tuple(caps),
        scope.rule(holdout) if holdout is not None else None,
        tuple(names.items()),
    )


def counting(limits: dict[Any, Limits]) -> dict[Any, Limits]:
    """The same, each knowing all caps that it counts for: what has no cap of its own fills those of others."""
    caps = dict.fromkeys(cap for one in limits.values() for cap in one.caps)
    return {
        trigger: replace(
            one, counts=tuple(dict.fromkeys((cap.agg, cap.most) for cap in caps if (cap.scope, cap.name) in one.names))
        )
        for trigger, one in limits.items()
    }


def _quiet(node: Node) -> Quiet:
    node.known(("from", "to", "weekdays", "zone", "on_conflict"))
    begins, ends, days, zone, conflict = (node.get(key) for key in ("from", "to", "weekdays", "zone", "on_conflict"))
    if (begins is None) != (ends is None) or (begins is None and days is None):
        node.wrong("quiet: 'from' and 'to', or 'weekdays', wanted")
    found = tuple(DAYS.index(one.choice(DAYS)) for one in days) if days is not None else ()
    if len(set(found)) == len(DAYS):
        node.wrong("quiet: a day on which people may be written to wanted, got none")
    return Quiet(
        begins.wall_time() if begins is not None else time(0),
        ends.wall_time() if ends is not None else time(0),
        found,
        zone is not None and zone.choice(("profile", "shop")) == "shop",
        conflict.choice(("defer", "drop", "advance")) if conflict is not None else "defer",
    )


def _cap(node: Node) -> Cap:
    node.known(("max", "per", "scope"), required=("max", "per"))
    most, per, scope = node.get("max"), node.get("per"), node.get("scope")
    span: Duration | str = "day"
    if per is not None:
        span = str(per.value) if per.value in CALENDAR else per.duration()
    return Cap(
        most.integer(least=1, most=MAX, default=1) if most is not None else 1,
        span,
        scope.choice(SCOPES) if scope is not None else "class",
    )


def calendar(at_ms: int, unit: str, zone: tzinfo) -> tuple[int, int]:
    """The calendar day, week (from Monday), month or year that an instant is in: [from, until)."""
    day = local(at_ms, zone).date()
    if unit == "week":
        day -= timedelta(days=day.weekday())
    elif unit == "month":
        day = day.replace(day=1)
    elif unit == "year":
        day = day.replace(month=1, day=1)
    after = {
        "day": day + timedelta(days=1),
        "week": day + timedelta(days=7),
        "month": (day + timedelta(days=32)).replace(day=1),
        "year": (day + timedelta(days=366)).replace(month=1, day=1),
    }[unit]
    begins, ends = (instant(datetime.combine(one, time(0), tzinfo=zone)) for one in (day, after))
    return begins, ends
