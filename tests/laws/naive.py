"""What the rules mean, told the slow way: every question is answered from the whole list of what was ever told.

Shares no code with the engine (only ``datetime`` and exact fractions), keeps nothing, and knows nothing of verdicts,
timers or statistics. ``test_oracle.py`` compares the engine with it (RELIABILITY R19).
"""

from __future__ import annotations

import hashlib
import math
import re
import statistics
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SESSION_GAP_MS = HOUR_MS // 2
CART_IDLE_MS = 2 * HOUR_MS
BY_PERSON = (
    "page_viewed", "product_viewed", "product_added", "product_removed", "order_completed", "registered", "dice_rolled",
    "sms_link_clicked",
)  # fmt: skip
TOUCH = ("source", "medium", "campaign", "term", "content", "click", "referrer")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_EVER = {"after": "1970-01-01"}
COUNTING = ("paid", "shipped", "delivered")
DIGITS = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


GA4: Final = {"purchase": "order_completed", "sign_up": "registered", "view_item": "product_viewed"}
"""Goals that nobody declared, by the names of GA4's key events."""


class Told(NamedTuple):
    """One message as it arrived: when (``seen_ms``), and when what it tells happened."""

    seen_ms: int
    at_ms: int
    message_id: str
    type: str
    props: dict[str, Any]
    traits: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default; nobody writes to it
    source: str = "web"
    campaign: dict[str, str] = {}  # noqa: RUF012  # the same
    device: str = ""
    place: dict[str, str] = {}  # noqa: RUF012  # the same


class Line(NamedTuple):
    product_id: str
    category: str
    brand: str
    quantity: int
    amount: int
    sku: str = ""
    name: str = ""


class Order(NamedTuple):
    at_ms: int
    order_id: str
    amount: int
    lines: list[Line]
    facts: dict[str, Any]
    margin: int | None = None


def later(at_ms: int, length: str, zone: str) -> int:
    """``at_ms`` and an ISO 8601 duration, on the zone's wall clock."""
    found = re.fullmatch(
        r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", length
    )
    assert found, length
    years, months, weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    if years or months or weeks or days:
        tz = ZoneInfo(zone)
        wall = (EPOCH + timedelta(milliseconds=at_ms)).astimezone(tz).replace(tzinfo=None)
        month = wall.year * 12 + wall.month - 1 + years * 12 + months
        first = datetime(month // 12, month % 12 + 1, 1)  # noqa: DTZ001  # a wall clock
        following = datetime((month + 1) // 12, (month + 1) % 12 + 1, 1)  # noqa: DTZ001  # a wall date, without a zone on purpose
        day = min(wall.day, (following - first).days)
        wall = wall.replace(year=first.year, month=first.month, day=day) + timedelta(weeks=weeks, days=days)
        at_ms = (wall.replace(tzinfo=tz).astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
    return at_ms + hours * HOUR_MS + minutes * 60_000 + seconds * 1000


def sooner(at_ms: int, length: str, zone: str) -> int:
    """So many days, or hours, before that instant."""
    count, unit = int(length.strip("PTDH")), length[-1]
    if unit == "H":
        return at_ms - count * HOUR_MS
    tz = ZoneInfo(zone)
    wall = (EPOCH + timedelta(milliseconds=at_ms)).astimezone(tz).replace(tzinfo=None) - timedelta(days=count)
    return (wall.replace(tzinfo=tz).astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def period(day: datetime, unit: str, weeks_from: int) -> tuple[int, ...]:
    """Which period of the calendar a day is in."""
    if unit == "week":
        return (day - timedelta(days=(day.weekday() - weeks_from) % 7)).timetuple()[:3]
    return {
        "day": (day.toordinal(),),
        "month": (day.year, day.month),
        "quarter": (day.year, (day.month - 1) // 3),
        "year": (day.year,),
    }[unit]


def midnight(at_ms: int, zone: str) -> datetime:
    """The day there, without a zone."""
    wall = (EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone))
    return datetime(wall.year, wall.month, wall.day)  # noqa: DTZ001  # a wall date


def stated(text: str, zone: str, *, last: bool = False) -> int:
    """The instant of a date or time on the zone's wall; of the last of several days that of its end."""
    wall = datetime.fromisoformat(text)
    if last and len(text) == len("2026-01-01"):
        wall += timedelta(days=1)
    return (wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def day_of(at_ms: int, zone: str) -> str:
    """The calendar day there."""
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone)).date().isoformat()


class Naive:
    """All that was told of one customer, and the rules."""

    def __init__(
        self,
        document: dict[str, Any],
        told: Iterable[Told],
        zone: str = "UTC",
        currency: str = "USD",
        address: str = "user:1",
    ):
        self.rules = _spelled(document)
        self.address = address
        self.counting = document.get("defaults", {}).get("orders", {}).get("status_in", COUNTING)
        self.told = list(told)
        self.zone = zone
        self.currency = currency
        self.since: dict[str, int] = {}

    def segments(self, now_ms: int) -> list[str]:
        """The segments the customer is in, by name."""
        self.known = self._known(now_ms)
        names: list[str] = []
        for name, rule in self.rules["segments"].items():
            if rule.get("kind") == "stages":
                names.extend(f"{name}.{one['name']}" for one in rule["stages"])
            elif "template" in rule:
                names.extend(f"{name}.{one}" for one in rule["template"]["over"])
            else:
                names.append(name)
        return sorted(name for name in names if self.known and self._since(name, now_ms) is not None)

    def _since(self, name: str, now_ms: int) -> int | None:
        """Since when the customer is in a segment, of all instants asked about so far: these ascend."""
        if not self._in(name, now_ms) and not self._stays(name, now_ms):
            self.since.pop(name, None)
            return None
        return self.since.setdefault(name, now_ms)

    def _stays(self, name: str, now_ms: int) -> bool:
        """Whether who was in it is kept by a weaker rule."""
        weaker = self.rules["segments"].get(name, {}).get("stays_while")
        return weaker is not None and name in self.since and self.holds(weaker, now_ms)

    def _known(self, now_ms: int) -> list[Told]:
        """Everything told until now, each message once."""
        seen: set[tuple[str, str]] = set()
        known = []
        for one in self.told:
            if one.seen_ms <= now_ms and (one.source, one.message_id) not in seen:
                seen.add((one.source, one.message_id))
                known.append(one)
        return known

    def _in(self, name: str, now_ms: int) -> bool:
        root, dot, stage = name.partition(".")
        rule = self.rules["segments"][root]
        if rule.get("kind") == "static":
            return self._formed(rule, now_ms)
        if not dot:
            return self.holds(rule.get("when", rule), now_ms)
        if "template" in rule:
            return self.holds(_filled(rule["when"], stage), now_ms)
        for one in rule["stages"]:
            if one["when"] == "otherwise" or self.holds(one["when"], now_ms):
                return bool(one["name"] == stage)
        raise AssertionError("stages that leave nobody out")

    def _formed(self, rule: dict[str, Any], now_ms: int) -> bool:
        """Whether the rule held at the instant of forming, of what was told until then."""
        form_ms = (
            datetime.fromisoformat(rule["form_at"]).replace(tzinfo=ZoneInfo(self.zone)).astimezone(UTC) - EPOCH
        ) // timedelta(milliseconds=1)
        if now_ms < form_ms:
            return False
        known, self.known = self.known, self._known(form_ms)
        formed = bool(self.known) and self.holds(rule["formed_from"], form_ms)
        self.known = known
        return formed

    def holds(self, rule: dict[str, Any], now_ms: int) -> bool:
        """Whether a rule holds at that instant."""
        if "some" in rule:
            return sum(self.holds(one, now_ms) for one in rule["some"]) >= int(rule["at_least"])
        if "all" in rule:
            return all(self.holds(one, now_ms) for one in rule["all"])
        if "any" in rule:
            return any(self.holds(one, now_ms) for one in rule["any"])
        if "not" in rule:
            return not self.holds(rule["not"], now_ms)
        if "in_segment" in rule:
            if "for" not in rule and "stays_while" not in self.rules["segments"].get(rule["in_segment"], {}):
                return self._in(rule["in_segment"], now_ms)
            since_ms = self._since(rule["in_segment"], now_ms)
            return since_ms is not None and ("for" not in rule or now_ms >= later(since_ms, rule["for"], self.zone))
        if "bucket" in rule:
            drawn = hashlib.blake2b(f"bucket\x1f{rule['bucket']['salt']}\x1f{self.address}".encode(), digest_size=8)
            return int(drawn.hexdigest(), 16) * 100 < Fraction(str(rule["bucket"]["percent"])) * 2**64
        relative = rule.get("window", {}).get("within")
        if isinstance(relative, dict) and self.trait(relative["of"], now_ms) is None:
            return False
        if "did" in rule:
            return self._did(rule, rule["did"], now_ms)
        if "did_not" in rule:
            age = rule.get("known_for")
            if age is not None and now_ms < later(min(one.at_ms for one in self.known), age, self.zone):
                return False
            return not self._did(rule, rule["did_not"], now_ms)
        if "trait" in rule:
            return self._trait(rule, now_ms)
        if "lapsed" in rule:
            return self._has_lapsed(rule["lapsed"], now_ms)
        if "session" in rule:
            return self._session(rule["session"], now_ms)
        if "time" in rule:
            begins, ends = (rule["time"].get(key) for key in ("from", "until"))
            since = begins is None or now_ms >= self._at_the_shops(begins)
            return since and (ends is None or now_ms < self._at_the_shops(ends))
        if "consent" in rule:
            wanted = rule["consent"]
            state = self.consent(wanted["channel"], wanted.get("topic", "*")) or "unknown"
            return state in listed(wanted.get("state", "granted"))
        if "any_item" in rule:
            children = self._newest(rule["any_item"]) or []
            return any(self._is_child(one, listed(rule["where"]), now_ms) for one in children)
        if "reached_goal" in rule:
            return self._reached(rule, now_ms)
        if "sequence" in rule:
            return self._followed(rule["sequence"], [], now_ms)
        raise AssertionError(rule)

    def _has_lapsed(self, asked: Any, now_ms: int) -> bool:
        presets = {"three_months": "P3M", "half_year": "P6M", "year": "P1Y", "never_bought": {"never_bought": "P1M"}}
        asked = presets.get(asked, asked) if isinstance(asked, str) else asked
        times = [order.at_ms for order in self.orders(self.counting, "")]
        if isinstance(asked, dict) and "never_bought" in asked:
            first_ms = min(one.at_ms for one in self.known)
            return not self.orders(COUNTING, "") and now_ms >= later(first_ms, asked["never_bought"], self.zone)
        if isinstance(asked, dict) and "alive_below" in asked:
            alive = self.trait(asked["of"], now_ms)
            return alive is not None and alive < asked["alive_below"]
        if not times:
            return False
        if isinstance(asked, dict):
            span_ms = self.trait(asked["of"], now_ms)
            if span_ms is None and "else" not in asked:
                return False
            if span_ms is not None:
                return bool(now_ms >= times[-1] + math.ceil(span_ms * Fraction(str(asked["times"]))))
            asked = asked["else"]
        return now_ms >= later(times[-1], asked, self.zone)

    def _followed(self, steps: list[dict[str, Any]], before: list[dict[str, Any]], now_ms: int) -> bool:
        """Whether the rest of a sequence came after what is before it, as it was asked to."""
        if not steps:
            return True
        one, rest = steps[0], steps[1:]
        if "did" in one:
            first = [found for found in self._acts(one) if self._inside(found["@"], one.get("window", _EVER), now_ms)]
            compared_later = set(re.findall(r"\$v\.(\w+)", repr(rest)))
            first = [found for found in first if compared_later <= set(found)]
            return any(self._followed(rest, [{**found, "as": one.get("as")}], now_ms) for found in first)
        asked = one.get("then") or one["then_not"]
        last_ms = before[-1]["@"]
        end_ms = later(last_ms, one["within"], self.zone) if "within" in one else None
        after = [
            found
            for found in self._acts(asked)
            if last_ms < found["@"]
            and (end_ms is None or found["@"] < end_ms)
            and all(
                self._same(found, condition_, before)
                for condition_ in (*listed(asked.get("where")), *listed(asked.get("item")))
            )
        ]
        if "then_not" in one:
            return not after and (end_ms is None or now_ms >= end_ms)
        return any(self._followed(rest, [*before, {**found, "as": asked.get("as")}], now_ms) for found in after)

    def _same(self, found: dict[str, Any], asked: dict[str, Any], before: list[dict[str, Any]]) -> bool:
        for name, wanted in asked.items():
            if str(wanted).startswith("$"):
                of, _, field = wanted[1:].partition(".")
                (earlier,) = [one for one in before if one["as"] == of]
                if name not in found or field not in earlier or found[name] != earlier[field]:
                    return False
        return True

    def _acts(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """What a step means: when (``@``), with the properties of the event or order and, each by itself, of its items."""
        happened: list[tuple[int, dict[str, Any], list[dict[str, Any]]]] = []
        if asked["did"] == "order":
            for order in self.orders(asked.get("status_in", self.counting), self.currency):
                lines = [{k: v for k, v in self._line_asked(line).items() if v != ""} for line in order.lines]
                happened.append((order.at_ms, self._order_asked(order), lines))
        else:
            happened = [
                (one.at_ms, one.props, [item_asked(item) for item in one.props.get("items", [])])
                for one in self.known
                if one.type in listed(asked["did"]) and (not by_machine(one) or asks_for_machines(asked))
            ]
        found = []
        for at_ms, props, items in happened:
            if all(condition(props, _unbound(where)) for where in listed(asked.get("where"))):
                wanted = [_unbound(one) for one in listed(asked.get("item"))]
                if "item" not in asked:
                    items = items or [{}]  # Whoever asks for no item may still compare one.
                found += [
                    {**props, **item, "@": at_ms} for item in items if all(condition(item, one) for one in wanted)
                ]
        return found

    def _is_child(self, child: dict[str, Any], where: list[dict[str, Any]], now_ms: int) -> bool:
        for one in where:
            asked = one.get("born")
            if asked is None:
                if not condition(child, one):
                    return False
                continue
            ((op, age),) = asked.items()
            old = now_ms >= later(self._midnight(child["born"]), age, self._where())
            if old != (op == "older_than"):
                return False
        return True

    def _where(self) -> str:
        """The customer's zone."""
        return self._newest("timezone") or self.zone

    def _at_the_shops(self, wall: str) -> int:
        at = datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(self.zone))
        return (at.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)

    def _midnight(self, day: str) -> int:
        wall = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(self._where()))
        return (wall.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)

    def _age(self, now_ms: int) -> int | None:
        born = self._newest("birth_date")
        if born is None or born == "soon":
            return None
        today = day_of(now_ms, self._where())
        day = "02-28" if born.endswith("02-29") and not _is_leap(int(today[:4])) else born[5:]
        years = int(today[:4]) - int(born[:4]) - (today[5:] < day)
        return years if years >= 0 else None  # Who is not born yet has no age.

    def _is_anniversary(self, value: Any, ahead: str, now_ms: int) -> bool:
        """Whether so soon, or today, there is a day of a later year that is called alike."""
        zone = self._where()
        try:
            day = datetime.fromisoformat(value) if isinstance(value, str) else midnight(value, zone)
        except (ValueError, TypeError):
            return False
        wall = midnight(now_ms, zone)
        for days in range(400):
            one = wall + timedelta(days=days)
            is_named_so = (one.month, one.day) == (day.month, day.day) or (
                (day.month, day.day) == (2, 29) and (one.month, one.day) == (2, 28) and not _is_leap(one.year)
            )
            if is_named_so and one.year > day.year:
                return sooner(stated(one.isoformat(), zone), ahead, zone) <= now_ms
        raise AssertionError("a year without an anniversary")

    def _newest(self, path: str) -> Any:
        said = [
            (one.at_ms, one.source, repr(one.traits[path]), one.traits[path])
            for one in self.known
            if path in one.traits
        ]
        return max(said, key=lambda one: one[:3])[3] if said else None

    def _reached(self, rule: dict[str, Any], now_ms: int) -> bool:
        named = rule["reached_goal"]
        goal = self.rules["goals"].get(named) or {"event": GA4[named]}
        asked = {**rule, "where": listed(goal.get("where"))}
        return self._did(asked, goal["event"], now_ms)

    # --- did ----------------------------------------------------------------------------------------------------

    def _did(self, rule: dict[str, Any], what: Any, now_ms: int) -> bool:
        measures = ("times", "distinct_days", "distinct", "sum", "avg", "median", "min", "max", "first", "last")
        asked = {name: rule[name] for name in measures if name in rule} or {"times": {"gte": 1}}
        return all(self._measured(rule, what, name, test, now_ms) for name, test in asked.items())

    def _measured(self, rule: dict[str, Any], what: Any, name: str, test: dict[str, Any], now_ms: int) -> bool:
        field = test.get("field", "")
        # The amount of an order is kept in minor units; of other events it is a number like any.
        money = what == "order" and self._is_money(what, field) and name not in ("distinct", "distinct_days", "times")
        value = self.value(rule, what, name, field, now_ms)
        return value is not None and compared(value, test, DIGITS[self.currency] if money else 0)

    def value(self, rule: dict[str, Any], what: Any, name: str, field: str, now_ms: int) -> Any:
        """A measure of orders or events in the rule's window; ``None`` when there is no answer."""
        happened = self._orders_in(rule, field) if what == "order" else self._events_in(rule, what, field, now_ms)
        window = rule.get("window")
        if window is not None and "resolution" in rule and what != "order":
            # All of a stretch stays as long as its last instant does.
            step_ms = later(0, rule["resolution"], "UTC")
            happened = [(at_ms - at_ms % step_ms + step_ms - 1, value) for at_ms, value in happened]
        if window is not None:
            happened = [(at_ms, value) for at_ms, value in happened if self._inside(at_ms, window, now_ms)]
        values = [value for _, value in happened]
        if name in ("sum", "avg", "median", "min", "max"):
            values = [Fraction(str(value)) for value in values]
        if name == "times":
            return len(values)
        if name == "distinct_days":
            zone = self._where() if (window or {}).get("zone") == "profile" else self.zone
            return len({day_of(at_ms, zone) for at_ms, _ in happened})
        if name == "distinct":
            return len({value for value in values if value not in (None, "")})
        if name in ("first", "last"):
            return values[0 if name == "first" else -1] if values else None
        if name == "sum":
            return sum(values)
        if not values:
            return None
        if name == "median":
            return statistics.median(values)
        return {"avg": Fraction(sum(values), len(values)), "min": min(values), "max": max(values)}[name]

    def _inside(self, at_ms: int, window: dict[str, Any], now_ms: int) -> bool:
        """Whether what happened then is in the window now."""
        zone = self._where() if window.get("zone") == "profile" else self.zone
        if "within" in window and isinstance(window["within"], dict):
            span_ms = self.trait(window["within"]["of"], now_ms)
            return span_ms is not None and now_ms < at_ms + math.ceil(
                span_ms * Fraction(str(window["within"]["times"]))
            )
        if "within" in window:
            return now_ms < later(at_ms, window["within"], zone)
        if "calendar" in window:
            named = {"today": "this_day", "yesterday": "last_day"}.get(window["calendar"], window["calendar"])
            which, unit = named.split("_")
            weeks_from = WEEKDAYS.index(self.rules.get("defaults", {}).get("week_start", "monday"))
            day = midnight(now_ms, zone)
            wanted = period(day, unit, weeks_from)
            while which == "last" and period(day, unit, weeks_from) == wanted:
                day -= timedelta(days=1)
            return period(midnight(at_ms, zone), unit, weeks_from) == period(day, unit, weeks_from)
        if "between" in window and window["between"][0].startswith("P"):
            near, far = window["between"]
            return later(at_ms, near, zone) <= now_ms < later(at_ms, far, zone)
        if "between" in window:
            first, last = window["between"]
            return stated(first, zone) <= at_ms < stated(last, zone, last=True)
        if "since_last" in window:
            of = window["since_last"]
            of = of if isinstance(of, dict) else {"did": of}
            found = self._orders_in(of, "") if of["did"] == "order" else self._events_in(of, of["did"], "", now_ms)
            return all(at_ms > one_ms for one_ms, _ in found)
        if "session" in window or "since" in window:
            visit = self._visit(now_ms)
            return bool(visit) and at_ms >= visit[-1].at_ms
        after, before = window.get("after"), window.get("before")
        return (after is None or at_ms >= stated(after, zone)) and (before is None or at_ms < stated(before, zone))

    def _is_money(self, what: Any, field: str) -> bool:
        return field in ("total", "amount", "revenue", "value", "margin")

    def _events_in(self, rule: dict[str, Any], what: Any, field: str, now_ms: int) -> list[tuple[int, Any]]:
        types = [what] if isinstance(what, str) else what
        found: list[tuple[int, Any]] = []
        for one in [*self.known, *self._visits(now_ms)]:
            if one.type not in types or not meant(one, rule):
                continue
            items = one.props.get("items", [])
            if "item" in rule:
                wanted = listed(rule["item"])
                items = [item for item in items if all(condition(item_asked(item), where) for where in wanted)]
                if not items:
                    continue
            if field == "":
                found.extend((one.at_ms, "") for _ in (items if rule.get("per") == "item" else [0]))
            elif self._is_money(what, field):
                if one.props.get("currency", self.currency) == self.currency and f"{field}_minor" in one.props:
                    found.append((one.at_ms, float(one.props[f"{field}_minor"] / Fraction(100))))
            elif field in one.props and "item" not in rule:
                found.append((one.at_ms, one.props[field]))
            else:
                name = "price_e6" if field == "price" else field
                scale = Fraction(1, 1_000_000) if field == "price" else 1
                found.extend(
                    (one.at_ms, item[name] * scale if field == "price" else item[name])
                    for item in items
                    if name in item
                )
        return sorted(found, key=lambda pair: (pair[0], str(pair[1])))

    def _order_asked(self, order: Order) -> dict[str, Any]:
        """What conditions may be on, amounts in major units."""
        unit = Fraction(10) ** DIGITS[self.currency]
        margin = order.margin / unit if order.margin is not None else None
        return {**order.facts, "order_id": order.order_id, "total": order.amount / unit, "margin": margin}

    def _line_asked(self, line: Line) -> dict[str, Any]:
        amount = line.amount / Fraction(10) ** DIGITS[self.currency]
        return {**line._asdict(), "amount": amount, "price": amount / max(1, line.quantity)}

    def _orders_in(self, rule: dict[str, Any], field: str) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        for order in self.orders(rule.get("status_in", self.counting), self.currency):
            facts = self._order_asked(order)
            if not all(condition(facts, where) for where in listed(rule.get("where"))):
                continue
            lines = order.lines
            if "item" in rule:
                lines = [
                    line
                    for line in lines
                    if all(condition(self._line_asked(line), one) for one in listed(rule["item"]))
                ]
                if not lines:
                    continue
            if rule.get("per") == "item" or field in ("product_id", "category", "brand"):
                for line in lines:
                    amount = field in ("", "total", "amount", "revenue")
                    found.append((order.at_ms, line.amount if amount else getattr(line, field)))
            elif field == "quantity":
                found.append((order.at_ms, sum(line.quantity for line in lines)))
            elif field in ("", "total", "amount", "revenue"):
                found.append((order.at_ms, order.amount))
            elif field == "margin":
                margin = order.amount if order.margin is None and "default" in rule else order.margin
                found += [(order.at_ms, margin)] if margin is not None else []
            elif field == "time":
                found.append((order.at_ms, order.at_ms))
            else:
                found.append((order.at_ms, order.facts.get(field)))
        return found

    # --- the order book -----------------------------------------------------------------------------------------

    def orders(self, status_in: Any, currency: str) -> list[Order]:
        """The orders that count, by time."""
        ids = {one.props["order_id"] for one in self.known if one.type.startswith("order_")}
        counted = [self._order(order_id, listed(status_in), currency) for order_id in ids]
        return sorted(one for one in counted if one is not None)

    def _order(self, order_id: str, status_in: list[str], currency: str) -> Order | None:
        about = [one for one in self.known if one.props.get("order_id") == order_id]
        reached: list[tuple[str, int]] = []
        reports: list[Told] = []  # of one instant the one with the greater total stands
        refunds: dict[str, Told] = {}  # the newer word on one stands
        for one in about:
            if one.type == "order_completed":
                reached += [("placed", one.at_ms), (one.props.get("status", "paid"), one.at_ms)]
                reports.append(one)
            elif one.type == "order_updated":
                reached += [(one.props["status"], one.at_ms)] if "status" in one.props else []
                reports.append(one)
            elif one.type == "order_status_changed":
                reached.append((one.props["to"], one.at_ms))
            elif one.type == "order_cancelled":
                reached.append(("cancelled", one.at_ms))
            elif one.type == "order_refunded":
                name = one.props.get("refund_id", one.message_id)
                refunds[name] = max(one, refunds.get(name, one), key=_refund)
        times = [at_ms for status, at_ms in reached if status in status_in]
        if not times or not reports or any(status in ("cancelled", "returned") for status, _ in reached):
            return None
        props = max(reports, key=lambda one: (one.at_ms, one.props["total_minor"])).props
        amount = props["total_minor"]
        lines = [
            Line(
                i["product_id"],
                i.get("category", ""),
                i.get("brand", ""),
                i["quantity"],
                i.get("amount_minor", 0),
                i.get("sku", ""),
                i.get("name", ""),
            )
            for i in props.get("items", [])
        ]
        back = 0
        for one in refunds.values():
            if "amount_minor" not in one.props:
                return None
            back += one.props["amount_minor"]
            for item in one.props.get("items", []):
                lines = taken_out(lines, item["product_id"], item["quantity"])
        if back and back >= amount:
            return None
        margin = props.get("margin_minor")
        if margin is not None and back:
            margin = math.floor(margin * Fraction(amount - back, amount))
        amount -= back
        if currency and props["currency"] != currency:
            if "rate_e6" not in props:
                return None
            digits = DIGITS[currency] - DIGITS[props["currency"]]
            rate = Fraction(props["rate_e6"], 1_000_000) * Fraction(10) ** digits
            amount = math.floor(amount * rate + Fraction(1, 2))
            lines = [line._replace(amount=math.floor(line.amount * rate + Fraction(1, 2))) for line in lines]
            margin = math.floor(margin * rate + Fraction(1, 2)) if margin is not None else None
        facts: dict[str, Any] = {name: props[name] for name in ("channel", "coupon") if name in props}
        return Order(min(times), order_id, amount, lines, facts, margin)

    # --- traits -------------------------------------------------------------------------------------------------

    def _trait(self, rule: dict[str, Any], now_ms: int) -> bool:
        path = rule["trait"]
        value = self.trait(path, now_ms)
        ops = {op: operand for op, operand in rule.items() if op != "trait"}
        if "anniversary_within" in ops and not self._is_anniversary(value, ops.pop("anniversary_within"), now_ms):
            return False
        for op in ("older_than", "newer_than", "within_next", "before", "after"):
            if op in ops:
                operand = ops.pop(op)
                at_ms = instant(value)
                if at_ms is None:
                    return False
                if op in ("before", "after"):
                    holds = at_ms < milliseconds(operand) if op == "before" else at_ms >= milliseconds(operand)
                elif op == "within_next":
                    holds = sooner(at_ms, operand, self.zone) <= now_ms < at_ms
                else:
                    if isinstance(operand, dict):
                        span_ms = self.trait(operand["of"], now_ms)
                        if span_ms is None:
                            return False
                        old = now_ms >= at_ms + math.ceil(span_ms * Fraction(str(operand["times"])))
                    else:
                        old = now_ms >= later(at_ms, operand, self.zone)
                    holds = old if op == "older_than" else not old
                if not holds:
                    return False
        for op in ("exists", "missing"):
            if op in ops and (value is not None) != (ops.pop(op) == (op == "exists")):
                return False
        if not ops:
            return True
        if value is None:
            said = self._is_said(path)
            return said and set(ops) <= {"ne", "not_in"}
        return compared(value, ops, DIGITS[self.currency] if self._is_money_trait(path) else 0)

    def _is_said(self, path: str) -> bool:
        """A trait of which nothing is known beforehand: what is not there is not equal."""
        field = self.rules.get("traits", {}).get(path, {})
        if "said" in field:
            return bool(field["said"] != "int")
        declared = self.rules.get("traits", {}).get(path.partition(".")[0], {})
        if declared:
            return bool(
                set(declared) & {"first", "last", "top_k", "argmax", "mode", "tiers"} - _hours(declared)
            ) or path in (
                "interests.top",
                "all_interests.top",
            )
        return path.partition(".")[0] in ("gender", "custom", "first_touch", "last_touch", "session")

    def _is_money_trait(self, path: str) -> bool:
        declared = self.rules.get("traits", {}).get(path.partition(".")[0], {})
        if path == "cart.total" or path.endswith(".monetary"):
            return True
        kind = next(iter(set(declared) & {"sum", "avg", "median", "min", "max"}), None)
        return (
            kind is not None
            and declared[kind].startswith("order.")
            and declared[kind].partition(".")[2] in ("total", "amount", "revenue", "value", "margin")
        )

    def trait(self, path: str, now_ms: int) -> Any:
        """A trait's value; ``None``: there is none."""
        root, _, part = path.partition(".")
        declared = self.rules.get("traits", {}).get(root)
        field = self.rules.get("traits", {}).get(path, {})
        if "said" in field:
            return self._field(path, field)
        if declared is not None:
            return self._declared(declared, part, now_ms)
        if path == "orders_paid":
            return len(self.orders(COUNTING, ""))
        if path in ("first_order_at", "last_order_at"):
            times = [order.at_ms for order in self.orders(self.counting, "")]
            return (times[0] if path == "first_order_at" else times[-1]) if times else None
        if path == "first_seen":
            return min(one.at_ms for one in self.known)
        if path == "registered_at":
            return min((one.at_ms for one in self.known if one.type == "registered"), default=None)
        if root == "cart":
            return self._cart(part, now_ms)
        if root in ("first_touch", "last_touch", "session"):
            return self._touch(root, part, now_ms)
        if root in ("email", "sms"):
            return self._messages(root, part)
        return self._newest(path)

    def _field(self, path: str, spec: dict[str, Any]) -> Any:
        """The statement of the best source, of these the newest, that is of the type."""
        sources = spec.get("sources", [])
        found: list[tuple[int, int, str, str, Any]] = []
        for one in self.known:
            values = [one.traits[path]] if path in one.traits else []
            taken = spec.get("from", {})
            if one.type == taken.get("event") and all(condition(one.props, where) for where in taken["where"]):
                values.append(one.props[taken["field"].removeprefix("custom.")])
            for value in values:
                fitting = self._fitting(spec, value)
                if fitting is not None:
                    ranks = [len(sources) - sources.index(word) for word in (one.type, one.source) if word in sources]
                    source = f"{one.type} by {one.source}" if sources else one.source
                    found.append((max(ranks, default=0), one.at_ms, source, repr(value), fitting))
        return max(found, key=lambda one: one[:4])[4] if found else None

    def _fitting(self, spec: dict[str, Any], value: Any) -> Any:
        if spec["said"] == "list":
            several = [value] if isinstance(value, str) else value
            return several if set(several) <= set(spec["of"]) else None
        if spec["said"] == "text":
            return value
        if not str(value).isdigit():
            return None
        low, high = spec["between"]
        return int(value) if low <= int(value) <= high else None

    def _touch(self, which: str, part: str, now_ms: int) -> Any:
        acts = self._visit(now_ms) if which == "session" else self.known
        touches = [
            (one.at_ms, str([one.campaign.get("name" if name == "campaign" else name, "") for name in TOUCH]), one)
            for one in acts
            if one.campaign and not by_machine(one)
        ]
        if not touches:
            return None
        at_ms, _, one = (min if which == "first_touch" else max)(touches, key=lambda touch: touch[:2])
        return at_ms if part == "at" else one.campaign.get("name" if part == "campaign" else part)

    def _messages(self, channel: str, part: str) -> Any:
        what = part.removeprefix("last_").removesuffix("_at")
        name = (
            "unsubscribed" if what == "unsubscribed" else f"{channel}_{'link_clicked' if what == 'clicked' else what}"
        )
        times = [
            one.at_ms
            for one in self.known
            if one.type == name
            and not one.props.get("machine")
            and (what != "unsubscribed" or one.props.get("channel", "email") == channel)
        ]
        return (max(times, default=None) if part.startswith("last_") else len(times)) if times or part == what else None

    def _top_k(self, spec: dict[str, Any], asked: dict[str, Any], now_ms: int) -> list[str] | None:
        within = asked.get("window", {}).get("within")
        field = spec["of"].removeprefix("order.item.")
        lines = [
            (order.at_ms, getattr(line, field))
            for order in self.orders(self.counting, "")  # in whatever currency
            for line in order.lines
            if getattr(line, field) and (within is None or now_ms < later(order.at_ms, within, self.zone))
        ]
        if not lines:
            return None
        half = later(0, spec["half_life"], "UTC") if "half_life" in spec else math.inf
        last_ms = max(at_ms for at_ms, _ in lines)

        def rank(value: str) -> tuple[float, int, str]:
            times = [at_ms for at_ms, one in lines if one == value]
            return -math.fsum(2.0 ** ((at_ms - last_ms) / half) for at_ms in times), -max(times), value

        return sorted({value for _, value in lines}, key=rank)[: spec["k"]]

    def _usual(self, spec: dict[str, Any], now_ms: int) -> Any:
        """The usual hour, device or place."""

        def word(one: Told) -> Any:
            if spec["mode"] == "local_hour":
                return (EPOCH + timedelta(milliseconds=one.at_ms)).astimezone(ZoneInfo(self.zone)).hour
            if spec["mode"].startswith("context.place."):
                return one.place.get(spec["mode"].removeprefix("context.place."))
            called = {"phone": "mobile"} if spec["mode"] == "context.device.type" else {}
            return called.get(one.device, one.device)

        found: list[tuple[int, Any]] = [
            (one.at_ms, word(one))
            for one in self.known
            if one.type in spec["of"] and self._inside(one.at_ms, spec.get("window", _EVER), now_ms)
        ]
        found = [(at_ms, said) for at_ms, said in found if said not in (None, "")]

        def rank(value: Any) -> tuple[int, int, Any]:
            times = [at_ms for at_ms, one in found if one == value]
            return -len(times), -max(times), value

        return min({value for _, value in found}, key=rank, default=None)

    def _interest(self, spec: dict[str, Any], part: str, now_ms: int) -> Any:
        half = later(0, spec["half_life"], "UTC")
        acts: list[tuple[int, str, int]] = []
        for one in self.known:
            if one.type in spec["events"]:
                paths = {item["category"] for item in one.props.get("items", []) if "category" in item}
                words = {"/".join(path.split("/")[: spec.get("depth")]) for path in paths}
                acts += [(one.at_ms, word, spec["events"][one.type]) for word in words]
        acts.sort()

        def score(word: str, at_ms: int) -> float:
            # The greatest is one of what was said; what is asked for by name is with all below it.
            inside = [one for one in acts if one[1] == word or (part != "top" and one[1].startswith(f"{word}/"))]
            done: list[float] = []
            for when, weight in sorted({(when, weight) for when, _, weight in inside}):
                # Of one instant, what was done most with any one of the categories inside.
                each = [one for when_, one, weight_ in inside if (when_, weight_) == (when, weight)]
                done += [weight * 2.0 ** ((when - at_ms) / half)] * max(each.count(one) for one in each)
            return math.fsum(done)

        if part != "top":
            return math.floor(score(part, now_ms))
        last_ms = acts[-1][0] if acts else 0
        newest = {word: when for when, word, _ in acts}
        return min(newest, key=lambda word: (-score(word, last_ms), -newest[word], word), default=None)

    def _best_channel(self, spec: dict[str, Any], now_ms: int) -> str | None:
        within = spec.get("window", {}).get("within")

        def kept(times: list[int]) -> list[int]:
            return [at_ms for at_ms in times if within is None or now_ms < later(at_ms, within, self.zone)]

        rates = {}
        for channel in ("email", "sms"):
            sent = kept(sorted(one.at_ms for one in self.known if one.type == f"{channel}_sent"))
            reacted: dict[str, int] = {}
            for one in self.known:
                if one.type in (f"{channel}_opened", f"{channel}_link_clicked") and not one.props.get("machine"):
                    message = one.props.get("delivery_id", one.message_id)
                    reacted[message] = max(one.at_ms, reacted.get(message, one.at_ms))
            done = [at_ms for at_ms in kept(list(reacted.values())) if sent and at_ms >= sent[0]]
            if len(sent) >= spec.get("min_samples", 3) and self.consent(channel, "*") != "denied":
                rates[channel] = min(Fraction(1), Fraction(len(done), len(sent)))
        return max(rates, key=lambda channel: rates[channel], default=None)

    def _declared(self, spec: dict[str, Any], part: str, now_ms: int) -> Any:
        if "top_k" in spec:
            return self._top_k(spec["top_k"], spec, now_ms)
        if "mode" in spec:
            return self._usual(spec, now_ms)
        if "tiers" in spec:
            of = self.trait(spec["tiers"], now_ms)
            digits = DIGITS[self.currency] if self._is_money_trait(spec["tiers"]) else 0
            reached = [cut for cut in spec["cuts"] if of is not None and of >= Fraction(str(cut)) * 10**digits]
            return None if of is None else spec["labels"][len(reached)]
        if "campaign" in str(spec.get("first", spec.get("last"))):
            return self._touch("first_touch" if "first" in spec else "last_touch", part, now_ms)
        if "years_since" in spec:
            return self._age(now_ms)
        if "decay" in spec:
            return self._interest(spec["decay"], part, now_ms)
        if "argmax" in spec:
            return self._best_channel(spec, now_ms)
        if "mean_gap" in spec:
            times = [order.at_ms for order in self.orders(self.counting, "")]
            enough = len(times) >= spec.get("min_samples", 2)
            return (times[-1] - times[0]) // (len(times) - 1) or None if enough else None
        if "p_alive" in spec:
            return self._alive(spec["model"], now_ms)
        if "rfm" in spec:
            return self._rfm(spec["rfm"], part, now_ms)
        if "purchase_days" in spec:
            return self._purchase_days(part, now_ms)
        kind = next(
            kind
            for kind in ("count", "sum", "avg", "median", "min", "max", "distinct", "first", "last")
            if kind in spec
        )
        what, _, field = spec[kind].partition(".") if isinstance(spec[kind], str) else (spec[kind], "", "")
        return self.value(spec, what, "times" if kind == "count" else kind, field, now_ms)

    def _alive(self, model: dict[str, Any], now_ms: int) -> int | None:
        """P(alive) by BG/NBD, in whole percent: by the formula, at this instant."""
        times = [order.at_ms for order in self.orders(self.counting, "")]
        if not times:
            return None
        repeats = len({day_of(at_ms, self.zone) for at_ms in times}) - 1
        if not repeats:
            return 100
        unit_ms = later(0, model["unit"], "UTC")
        # In milliseconds throughout, as the engine: at the last place of a percent the order of operations shows.
        alpha_ms = model["alpha"] * unit_ms
        grown = (alpha_ms + now_ms - times[0]) / (alpha_ms + times[-1] - times[0])
        odds = model["a"] / (model["b"] + repeats - 1) * grown ** (model["r"] + repeats)
        return int(100 / (1 + odds))

    def _rfm(self, spec: dict[str, Any], part: str, now_ms: int) -> int | None:
        orders = [
            order
            for order in self.orders(self.counting, self.currency)
            if "window" not in spec or now_ms < later(order.at_ms, spec["window"]["within"], self.zone)
        ]
        if not orders:
            return None
        last_ms = max(order.at_ms for order in orders)
        ages = [age for age in spec["recency"] if now_ms >= later(last_ms, age, self.zone)]
        cents = Fraction(10) ** DIGITS[self.currency]
        scores = {
            "r": len(spec["recency"]) + 1 - len(ages),
            "f": 1 + sum(len(orders) >= limit for limit in spec["frequency"]),
            "m": 1 + sum(sum(order.amount for order in orders) >= limit * cents for limit in spec["monetary"]),
        }
        return int(f"{scores['r']}{scores['f']}{scores['m']}") if part == "cell" else scores[part]

    def _purchase_days(self, part: str, now_ms: int) -> Any:
        totals: dict[str, int] = {}
        for order in self.orders(self.counting, self.currency):
            day = day_of(order.at_ms, self.zone)
            totals[day] = totals.get(day, 0) + order.amount
        if not totals:
            return None
        days = sorted(totals)
        first, last, today = (datetime.fromisoformat(d) for d in (days[0], days[-1], day_of(now_ms, self.zone)))
        repeats = [totals[day] for day in days[1:]]
        return {
            "frequency": len(repeats),
            "recency_days": (last - first).days,
            "age_days": (today - first).days,
            "silent_days": (today - last).days,
            "monetary": Fraction(sum(repeats), len(repeats)) if repeats else 0,
        }[part]

    def _cart(self, part: str, now_ms: int) -> Any:
        """One cart, all of it told in the order in which it happened."""
        lines: dict[str, list[int]] = {}
        changed_ms = 0
        for one in self.known:
            if one.type == "product_added":
                for item in one.props["items"]:
                    line = lines.setdefault(item["product_id"], [0, 0])
                    line[0] += item["quantity"]
                    line[1] = item["price_e6"]
            elif one.type == "product_removed":
                for item in one.props["items"]:
                    if item["product_id"] in lines:
                        left = lines[item["product_id"]][0] - item.get("quantity", 10**9)
                        lines[item["product_id"]][0] = max(0, left)
            elif one.type == "order_completed":
                bought = [item["product_id"] for item in one.props.get("items", [])]
                lines = {name: line for name, line in lines.items() if bought and name not in bought}
                continue
            else:
                continue
            changed_ms = one.at_ms
        pieces = sum(quantity for quantity, _ in lines.values())
        if part == "items":
            return pieces
        if part == "total":
            return sum(rounded(Fraction(quantity * price, 10_000)) for quantity, price in lines.values())
        if pieces == 0:
            return "empty" if part == "state" else None
        return "active" if now_ms < changed_ms + CART_IDLE_MS else "abandoned"

    # --- visits and consent -------------------------------------------------------------------------------------

    def _session(self, wanted: dict[str, Any], now_ms: int) -> bool:
        """The visit under way, of what was told in the order in which it happened."""
        visit = self._visit(now_ms)
        if not visit:
            return False
        if "not" in wanted:
            return not self._session(wanted["not"], now_ms)
        count = sum(one.type in listed(wanted["did"]) for one in visit)
        return compared(count, wanted.get("times", {"gte": 1}), 0)

    def _visits(self, now_ms: int) -> list[Told]:
        """The beginnings and ends of visits, as what happened; of what was told in the order in which it happened."""
        acts = [one for one in self.known if one.type in BY_PERSON and not by_machine(one)]
        found: list[Told] = []
        for before, one in zip([None, *acts], [*acts, None], strict=True):
            begins = one is not None and (before is None or one.at_ms - before.at_ms > SESSION_GAP_MS)
            if before is not None and (begins or (one is None and now_ms >= before.at_ms + SESSION_GAP_MS)):
                end_ms = before.at_ms + SESSION_GAP_MS
                found.append(Told(end_ms, end_ms, f"{before.message_id} ends", "session_ended", {}))
            if begins:
                assert one is not None
                found.append(Told(one.seen_ms, one.at_ms, f"{one.message_id} begins", "session_started", {}))
        return found

    def _visit(self, now_ms: int) -> list[Told]:
        acts = [one for one in self.known if one.type in BY_PERSON and not by_machine(one)]
        if not acts or now_ms >= acts[-1].at_ms + SESSION_GAP_MS:
            return []
        visit = [acts[-1]]
        for one in reversed(acts[:-1]):
            if visit[-1].at_ms - one.at_ms > SESSION_GAP_MS:
                break
            visit.append(one)
        return visit

    def consent(self, channel: str, topic: str) -> str | None:
        """What the customer agreed to: `granted`, `denied`, or nothing said."""
        said: dict[str, tuple[int, str, str, str]] = {}
        for one in self.known:
            if one.type in ("consent_changed", "unsubscribed") and one.props["channel"] == channel:
                state = one.props.get("state", "denied")
                told = (one.at_ms, one.source, repr(state), state)
                said[one.props["topic"]] = max(told, said.get(one.props["topic"], told))
        whole, one_topic = said.get("*"), said.get(topic)
        if one_topic is None:
            return whole[3] if whole else None
        if whole and whole[3] == "denied" and whole[0] >= one_topic[0]:
            return "denied"
        return one_topic[3]


def _unbound(asked: dict[str, Any]) -> dict[str, Any]:
    """The conditions that stand by themselves."""
    return {name: wanted for name, wanted in asked.items() if not str(wanted).startswith("$")}


def _spelled(rule: Any) -> Any:
    """The same with every window written out."""
    if isinstance(rule, list):
        return [_spelled(one) for one in rule]
    if not isinstance(rule, dict):
        return rule
    return {
        key: {"within": one} if key == "window" and isinstance(one, str) else _spelled(one) for key, one in rule.items()
    }


def _filled(rule: Any, value: str) -> Any:
    """The same with that value wherever ``{value}`` stands."""
    if isinstance(rule, dict):
        return {key: _filled(one, value) for key, one in rule.items()}
    if isinstance(rule, list):
        return [_filled(one, value) for one in rule]
    return rule.replace("{value}", value) if isinstance(rule, str) else rule


def _hours(declared: dict[str, Any]) -> set[str]:
    """An hour is a number: nothing is not equal to it."""
    return {"mode"} if declared.get("mode") == "local_hour" else set()


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _refund(one: Told) -> tuple[Any, ...]:
    items = [(item["product_id"], item["quantity"]) for item in one.props.get("items", [])]
    return one.at_ms, one.props.get("amount_minor", -1), items


def taken_out(lines: list[Line], product_id: str, quantity: int) -> list[Line]:
    """The lines without so many pieces of a product."""
    left = []
    for line in lines:
        gone = min(line.quantity, quantity) if line.product_id == product_id else 0
        quantity -= gone
        if gone < line.quantity:
            amount = line.amount * (line.quantity - gone) // line.quantity
            left.append(line._replace(quantity=line.quantity - gone, amount=amount))
    return left


def listed(value: Any) -> list[Any]:
    """One or several as a list."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def rounded(value: Fraction) -> int:
    """Half to even."""
    return round(value)


def by_machine(one: Told) -> bool:
    """Whether it is what a machine did with a message."""
    return one.type.endswith(("_opened", "_link_clicked")) and bool(one.props.get("machine"))


def asks_for_machines(asked: dict[str, Any]) -> bool:
    """Whether a condition is on who did it."""
    return any("machine" in where for where in listed(asked.get("where")))


def meant(one: Told, asked: dict[str, Any]) -> bool:
    """Whether an event looks as asked."""
    if by_machine(one) and not asks_for_machines(asked):
        return False
    return all(condition(one.props, where) for where in listed(asked.get("where")))


def item_asked(item: dict[str, Any]) -> dict[str, Any]:
    """An event's item, with its price in major units."""
    return {**item, "price": Fraction(item["price_e6"], 1_000_000)} if "price_e6" in item else item


def condition(props: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether what is asked of one or several properties holds."""
    for name, operand in wanted.items():
        value = props.get(name.removeprefix("custom."))
        if name == "machine" and isinstance(value, str) and "scanner" not in str(operand):
            value = True
        if isinstance(operand, dict):
            ops = dict(operand)
            if "exists" in ops and (value is not None) != ops.pop("exists"):
                return False
            if ops and value is None:
                if not set(ops) <= {"ne", "not_in"}:
                    return False
            elif ops and not compared(value, ops, 0):
                return False
        elif name == "category":
            if not any(value == one or str(value).startswith(f"{one}/") for one in listed(operand)):
                return False
        elif isinstance(operand, list):
            if value not in operand:
                return False
        elif value != operand:
            return False
    return True


def compared(value: Any, ops: dict[str, Any], digits: int) -> bool:
    """Whether all comparisons hold. ``digits``: thresholds are amounts with so many digits after the point."""

    def number(one: Any) -> Any:
        return Fraction(str(one)) * 10**digits if isinstance(one, int | float) and not isinstance(one, bool) else one

    tests: dict[str, Callable[[Any, Any], bool]] = {
        "eq": lambda a, b: a in [number(one) for one in listed(b)],
        "in": lambda a, b: a in [number(one) for one in listed(b)],
        "ne": lambda a, b: a not in [number(one) for one in listed(b)],
        "not_in": lambda a, b: a not in [number(one) for one in listed(b)],
        "lt": lambda a, b: bool(a < number(b)),
        "lte": lambda a, b: bool(a <= number(b)),
        "gt": lambda a, b: bool(a > number(b)),
        "gte": lambda a, b: bool(a >= number(b)),
        "between": lambda a, b: bool(number(b[0]) <= a <= number(b[1])),
        "starts_with": lambda a, b: a.startswith(b),
        "ends_with": lambda a, b: a.endswith(b),
        "under": lambda a, b: a == b or a.startswith(f"{b}/"),
        "contains": lambda a, b: b in a,
        "contains_any": lambda a, b: any(one in a for one in b),
        "contains_all": lambda a, b: all(one in a for one in b),
        "matches": lambda a, b: isinstance(a, str) and re.search(b, a) is not None,
    }
    return all(tests[op](value, operand) for op, operand in ops.items() if op != "field")


def instant(value: Any) -> int | None:
    """A time as a trait says it."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def milliseconds(text: str) -> int:
    """An ISO date or time as epoch ms, UTC."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
