"""Random customers and random rules, in values that Hypothesis can shrink: small numbers, round times, few names.

Times are chosen where calendars are awkward: the ends of months, a leap day, the hours at which clocks change; and many
happenings fall on the very instant at which something else ends.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from profiles.wire import Event
from tests.laws.naive import BY_PERSON, DAY_MS, GA4, HOUR_MS, Told, milliseconds

settings.register_profile(
    "laws",
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
EXAMPLES: Final = float(os.environ.get("OPPORTUNE_EXAMPLES", "1"))
"""How many times the usual number of examples."""


def law(examples: int, *, random: bool = False) -> settings:
    """Settings of a law: so many examples by default, the same in every run; more, and others, when asked for."""
    more = EXAMPLES != 1 or random
    return settings(settings.get_profile("laws"), max_examples=round(examples * EXAMPLES), derandomize=not more)


ADDRESS: Final = "user:1"
STARTS: Final = (
    "2026-03-28T00:30",
    "2026-10-24T22:00",
    "2026-01-28T12:00",
    "2024-02-27T10:00",
    "2026-11-28T21:59",
    "2026-12-31T23:00",
)
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York")
GAPS_MS: Final = (
    0, 1, 10 * 60_000, 30 * 60_000, HOUR_MS, 2 * HOUR_MS, 5 * HOUR_MS, DAY_MS, DAY_MS - 1, DAY_MS + HOUR_MS, 2 * DAY_MS,
    7 * DAY_MS, 28 * DAY_MS, 31 * DAY_MS, 90 * DAY_MS,
)  # fmt: skip
LATE_MS: Final = (0, 0, 0, 5 * 60_000, HOUR_MS, 26 * HOUR_MS, 7 * DAY_MS)

PRODUCTS: Final = {"a": "tools/drills", "b": "tools", "c": "toolsets", "d": "garden"}


@st.composite
def items(draw: st.DrawFn, *, most: int = 2) -> list[dict[str, Any]]:
    """One line or more, of different products."""
    names = draw(st.lists(st.sampled_from(sorted(PRODUCTS)), min_size=1, max_size=most, unique=True))
    return [
        {
            "product_id": name,
            "quantity": draw(st.sampled_from([1, 1, 2, 3])),
            "price_e6": draw(st.sampled_from([5_000_000, 12_340_000, 999_999])),
            "category": PRODUCTS[name],
            **({"brand": "Bosch", "sku": f"{name}-1", "name": f"Drill {name}"} if name in "ac" else {}),
        }
        for name in names
    ]


SAID: Final[tuple[tuple[str, Any], ...]] = (
    ("gender", "f"), ("gender", "m"), ("custom.mark", 3), ("custom.mark", 8), ("custom.mark", "5"), ("custom.mark", "good"),
    *(("custom.visit_at", at) for at in ("2026-03-29T12:00:00Z", "2026-10-26T02:30:00Z", "2026-02-28T00:00:00Z")),
    ("address.city", "Bonn"), ("address.city", "Ulm"), ("custom.likes", "tea"), ("custom.likes", ["tea", "jam"]), ("custom.likes", ["gin"]),
    ("birth_date", "2008-03-29"), ("birth_date", "2027-01-02"), ("birth_date", "2008-02-29"), ("birth_date", "soon"), ("timezone", "Asia/Tokyo"), ("timezone", "America/St_Johns"), ("timezone", "Europe/Berlin"),
    ("children", [{"born": "2023-03-30", "name": "Max"}, {"born": "2010-05-01"}]), ("children", [{"born": "2026-02-28", "name": "Ida"}]),
)  # fmt: skip
MACHINES: Final[tuple[dict[str, Any], ...]] = (
    {}, {"machine": True}, {"machine": "scanner"}, {"machine": False}, {"delivery_id": "d1"},
)  # fmt: skip
CAMPAIGNS: Final[tuple[dict[str, str], ...]] = (
    {}, {}, {"source": "yandex", "medium": "cpc", "name": "bf_1"}, {"source": "mail", "name": "spring"}, {"click": "gclid"},
)  # fmt: skip
PLACES: Final[tuple[dict[str, str], ...]] = (
    {}, {"city": "Bonn", "country": "DE"}, {"city": "Wien", "country": "AT"}, {"country": "DE"},
)  # fmt: skip
DEVICES: Final = ("", "phone", "phone", "desktop")
Happening = tuple[str, dict[str, Any], dict[str, Any]]


@st.composite
def happening(draw: st.DrawFn, number: int, *, carts: bool, about: str = "") -> Happening:
    """A type of event, canonical properties, traits."""
    types = [
        "page_viewed", "product_viewed", "order_completed", "order_completed", "order_status_changed", "order_refunded",
        "order_cancelled", "order_updated", "identified", "registered", "email_opened", "consent_changed",
        "unsubscribed", "dice_rolled", "email_sent", "sms_sent", "sms_link_clicked",
    ]  # fmt: skip
    more = ["product_added", "product_added", "product_removed"] if carts else []
    name = draw(st.sampled_from([one for one in (*types, *more) if one.startswith(about)]))
    order_id = draw(st.sampled_from(["o1", "o2", "o3", "o4"]))
    if name == "page_viewed":
        return name, draw(st.sampled_from([{}, {"channel": "web"}, {"channel": "app"}])), {}
    if name in ("product_viewed", "product_added"):
        return name, {"items": draw(items(most=1))}, {}
    if name == "product_removed":
        item = draw(items(most=1))[0]
        kept = ("product_id", "quantity") if draw(st.booleans()) else ("product_id",)
        return name, {"items": [{key: item[key] for key in kept}]}, {}
    if name in ("order_completed", "order_updated"):
        return name, draw(order(order_id, number, name)), {}
    if name == "order_status_changed":
        to = draw(st.sampled_from(["confirmed", "paid", "shipped", "delivered", "delivered", "returned"]))
        return name, {"order_id": order_id, "to": to}, {}
    if name == "order_refunded":
        return name, draw(refund(order_id, number)), {}
    if name == "order_cancelled":
        return name, {"order_id": order_id}, {}
    if name == "identified":
        path, value = draw(st.sampled_from(SAID))
        return name, {}, {path: value}
    if name == "email_opened":
        return name, draw(st.sampled_from(MACHINES)), {}
    if name == "sms_link_clicked":
        return name, {"delivery_id": draw(st.sampled_from(["d1", "d2"])), **draw(st.sampled_from(MACHINES[:3]))}, {}
    if name in ("consent_changed", "unsubscribed"):
        channel = draw(st.sampled_from(["email", "email", "sms", "push"]))
        props = {"channel": channel, "topic": draw(st.sampled_from(["*", "sale"]))}
        if name == "consent_changed":
            props["state"] = draw(st.sampled_from(["granted", "denied"]))
        return name, props, {}
    if name == "dice_rolled":
        props = draw(st.sampled_from([{"points": 3}, {"points": 0.1}, {"points": -2}, {"note": 1}]))
        money = draw(
            st.sampled_from([{}, {"value_minor": 1250, "currency": "USD"}, {"value_minor": 9, "currency": "EUR"}])
        )
        return name, {**props, **money}, {}
    return name, {}, {}


@st.composite
def order(draw: st.DrawFn, order_id: str, number: int, name: str) -> dict[str, Any]:
    """What an order holds. Each report has a total of its own, so that no two differ in nothing but their lines."""
    total = draw(st.sampled_from([0, 1_000, 2_500, 5_000, 9_999])) + number
    props: dict[str, Any] = {"order_id": order_id, "total_minor": total, "currency": "USD"}
    if draw(st.integers(0, 3)) == 0:
        props |= draw(st.sampled_from([{"currency": "EUR"}, {"currency": "EUR", "rate_e6": 1_085_000}, {"currency": "JPY", "rate_e6": 6_700}]))  # fmt: skip
    status = draw(st.sampled_from([None, None, "paid", "placed", "delivered"]))
    if status is not None:
        props["status"] = status
    if draw(st.booleans()):
        lines = draw(items())
        for line in lines:
            line["amount_minor"] = line["quantity"] * 700
        props["items"] = lines
    if draw(st.integers(0, 2)) == 0:
        props["margin_minor"] = draw(st.sampled_from([0, 333, 1_500]))
    if draw(st.booleans()):
        props["channel"] = draw(st.sampled_from(["web", "store"]))
    return props


@st.composite
def refund(draw: st.DrawFn, order_id: str, number: int) -> dict[str, Any]:
    """All, an amount, or lines with theirs."""
    kind = draw(st.sampled_from(["all", "amount", "lines"]))
    props: dict[str, Any] = {"order_id": order_id}
    if draw(st.integers(0, 2)) == 0:
        props["refund_id"] = "r1"
    if kind != "all":
        props["amount_minor"] = draw(st.sampled_from([0, 1, 500, 3_000, 20_000]))
    if kind == "lines":
        props["items"] = [{"product_id": draw(st.sampled_from(sorted(PRODUCTS))), "quantity": 1}]
    return props


@st.composite
def histories(
    draw: st.DrawFn, *, most: int = 22, carts: bool = False, late: bool = True, about: str = ""
) -> list[Told]:
    """What was told of one customer, in the order of arrival; some of it late, some of it twice.

    Args:
        most: messages.
        carts: with carts, too.
        late: some of it happened before it was told.
        about: how the types of events begin.
    """
    now_ms = milliseconds(draw(st.sampled_from(STARTS)))
    told: list[Told] = []
    first_ms: dict[str, int] = {}
    for number in range(draw(st.integers(1, most))):
        now_ms += draw(st.sampled_from(GAPS_MS))
        again = [one for one in told if first_ms[one.message_id] > now_ms - DAY_MS]
        if again and draw(st.integers(0, 9)) == 0:
            told.append(draw(st.sampled_from(again))._replace(seen_ms=now_ms))
            continue
        first_ms[f"m{number}"] = now_ms
        name, props, traits = draw(happening(number, carts=carts, about=about))
        at_ms = now_ms - (draw(st.sampled_from(LATE_MS)) if late else 0)
        campaign = draw(st.sampled_from(CAMPAIGNS)) if name in BY_PERSON and name != "dice_rolled" else {}
        if name == "registered" and draw(st.booleans()):
            traits = {"address.city": draw(st.sampled_from(["Bonn", "Kiel"]))}
        source = draw(st.sampled_from(["web", "web", "crm"])) if traits else "web"
        device = draw(st.sampled_from(DEVICES)) if name in ("page_viewed", "product_viewed") else ""
        place = draw(st.sampled_from(PLACES)) if name in ("page_viewed", "product_viewed") else {}
        told.append(Told(now_ms, at_ms, f"m{number}", name, props, traits, source, campaign, device, place))
    return told


def event_of(told: Told, address: str = ADDRESS, **more: Any) -> Event:
    """A message as it comes from the log."""
    nested: dict[str, Any] = {}
    for path, value in told.traits.items():
        root, dot, part = path.partition(".")
        if dot:
            nested.setdefault(root, {})[part] = value
        else:
            nested[root] = value
    return Event(
        message_id=told.message_id,
        source=told.source,
        type=told.type,
        at_ms=told.at_ms,
        received_ms=told.seen_ms,
        address=address,
        props=told.props,
        traits=nested,
        context={
            **({"campaign": told.campaign} if told.campaign else {}),
            **({"device": told.device} if told.device else {}),
            **({"place": told.place} if told.place else {}),
        },
        seen_ms=told.seen_ms,
        **more,
    )


# --- rules -------------------------------------------------------------------------------------------------------

TRAITS: Final[dict[str, Any]] = {
    "revenue": {"sum": "order.total"},
    "avg_check": {"avg": "order.total"},
    "usual_check": {"median": "order.total", "window": {"within": "P3M"}},
    "top": {"max": "order.total", "window": {"within": "P1M"}},
    "orders_this_month": {"count": "order", "window": {"calendar": "this_month"}},
    "spent_last_month": {"sum": "order.total", "window": {"calendar": "last_month", "zone": "profile"}},
    "looks_last_week": {"count": "product_viewed", "window": {"calendar": "last_week"}},
    "points_yesterday": {"sum": "dice_rolled.points", "window": {"calendar": "yesterday", "zone": "profile"}},
    "looks_since": {"count": "product_viewed", "window": {"since_last": "order"}},
    "looks_today": {"count": "product_viewed", "window": {"calendar": "today"}},
    "orders_month": {"count": "order", "window": {"within": "P1M"}},
    "tools_bought": {"count": "order", "item": [{"category": "tools"}], "per": "item"},
    "opens_week": {"count": "email_opened", "window": {"within": "P7D"}},
    "opens": {"count": "email_opened"},
    "seen_products": {"distinct": "product_viewed.product_id", "window": {"within": "P1M"}},
    "points_month": {"sum": "dice_rolled.points", "window": {"within": "P1M"}, "resolution": "PT6H"},
    "points_least": {"min": "dice_rolled.points"},
    "points_best": {"max": "dice_rolled.points"},
    "spent_value": {"sum": "dice_rolled.value"},
    "last_channel": {"last": "page_viewed.channel"},
    "first_buy": {"first": "order.time"},
    "alive": {"p_alive": "order", "model": {"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426, "unit": "PT12H"}},
    "gap": {"mean_gap": "order", "min_samples": 2},
    "profit": {"sum": "order.margin", "default": "order.total"},
    "rfm": {
        "rfm": {
            "window": {"within": "P3M"},
            "recency": ["P7D", "P1M", "P2M"],
            "frequency": [2, 3],
            "monetary": [10, 75, 150],
        }
    },
    "age": {"years_since": "birth_date"},
    "usual_hour": {"mode": "local_hour", "of": ["page_viewed", "product_viewed"], "window": {"within": "P28D"}},
    "interests": {
        "decay": {
            "events": {"product_viewed": 1, "product_added": 2, "order_completed": 5},
            "by": "item.category",
            "depth": 1,
            "half_life": "P2D",
        }
    },
    "all_interests": {
        "decay": {"events": {"product_viewed": 2, "order_completed": 3}, "by": "item.category", "half_life": "P7D"}
    },
    "device": {"mode": "context.device", "of": ["page_viewed", "product_viewed"], "window": "P7D"},
    "device_class": {"mode": "context.device.type", "of": ["page_viewed"], "window": {"within": "P1M"}},
    "city": {"mode": "context.place.city", "of": ["page_viewed", "product_viewed"]},
    "country": {"mode": "context.place.country", "of": ["page_viewed"], "window": {"within": "P28D"}},
    "check": {"tiers": "avg_check", "cuts": [10, 50], "labels": ["low", "middle", "high"]},
    "came_first": {"first": "context.campaign"},
    "came_last": {"last": "context.campaign"},
    "custom.mark": {"said": "int", "between": [1, 7]},
    "custom.likes": {"said": "list", "of": ["tea", "jam", "cup"]},
    "address.city": {
        "said": "text",
        "sources": ["crm", "registered"],
        "from": {"event": "page_viewed", "where": [{"custom.channel": "app"}], "field": "custom.channel"},
    },
    "purchases": {"purchase_days": "order"},
    "favourites": {"top_k": {"of": "order.item.product_id", "k": 2}},
    "fashion": {"top_k": {"of": "order.item.category", "k": 1, "half_life": "P14D"}, "window": {"within": "P3M"}},
    "channel": {"argmax": "reaction_rate", "over": "channel", "window": {"within": "P2D"}, "min_samples": 1},
    "any_channel": {"argmax": "reaction_rate", "over": "channel", "min_samples": 2},
}

DURATIONS: Final = ("PT30M", "PT1H", "P1D", "P2D", "P7D", "P28D", "P1M", "P3M", "P1Y", "P1M2DT3H")
AGES: Final = (*DURATIONS, "PT1S")
CALENDAR: Final = ("today", "this_week", "this_month", "this_quarter", "this_year")
PAST: Final = ("yesterday", "last_day", "last_week", "last_month", "last_quarter", "last_year")
DATES: Final[tuple[dict[str, Any], ...]] = (
    {"after": "2026-03-29"}, {"before": "2026-11-01"}, {"after": "2026-01-30", "before": "2026-11-29T12:00"},
    {"between": ["2026-03-28", "2026-03-29"]}, {"between": ["2026-10-25T02:30", "2026-12-31"]}, {"after": "2024-02-29T10:00"},
)  # fmt: skip
BETWEEN: Final = (["PT1H", "P1D"], ["P1D", "P2D"], ["P1M", "P3M"], ["P28D", "P1M2DT3H"])
SINCE: Final[tuple[Any, ...]] = (
    "order", "page_viewed", ["email_opened", "registered"], {"did": "product_viewed", "item": [{"category": "tools"}]},
    {"did": "order", "status_in": "delivered"},
)  # fmt: skip
STRETCHES: Final = (("PT12H", "PT30M"), ("P1D", "PT1H"), ("P7D", "PT6H"), ("P1M", "PT6H"), ("P1M", "PT7H"))


COMPARISONS: Final = ("eq", "ne", "lt", "lte", "gt", "gte", "gte", "between", "in", "not_in", "both")


@lru_cache
def numbers(*values: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Every comparison of a number with one or two of these."""
    op, value = st.sampled_from(COMPARISONS), st.sampled_from(values)
    return st.tuples(op, value, value).map(_comparison)


def _comparison(drawn: tuple[str, Any, Any]) -> dict[str, Any]:
    op, a, b = drawn
    if op == "both":
        return {"gte": min(a, b), "lt": max(a, b)}
    if op == "between":
        return {op: sorted((a, b))}
    return {op: [a, b] if op in ("in", "not_in") else a}


@lru_cache
def ages() -> st.SearchStrategy[dict[str, Any]]:
    """How old a time is, or where it lies."""
    return st.one_of(
        st.builds(lambda age: {"older_than": age}, st.sampled_from(AGES)),
        st.builds(lambda age: {"newer_than": age}, st.sampled_from(AGES)),
        st.builds(lambda a, b: {"older_than": a, "newer_than": b}, st.sampled_from(AGES), st.sampled_from(AGES)),
        st.builds(lambda when, op: {op: when}, st.sampled_from(["2026-03-29", "2026-11-01"]), st.sampled_from(["before", "after"])),
        st.builds(lambda op, times: {op: {"times": times, "of": "gap"}}, st.sampled_from(["older_than", "newer_than"]), st.sampled_from([1, 3, 0.7])),
        st.sampled_from([{"exists": True}, {"missing": True}, {"exists": False}]),
    )  # fmt: skip


@lru_cache
def windows(of: str = "order") -> st.SearchStrategy[dict[str, Any]]:
    """A window, or none.

    Args:
        of: what is measured in it: ``order`` anything of orders; of other events ``count``, ``days``, ``edge``, ``total``.
    """
    none = st.just(dict[str, Any]())
    within = st.builds(lambda length: {"within": length}, st.sampled_from(DURATIONS))
    calendar = st.builds(lambda named: {"calendar": named}, st.sampled_from((*CALENDAR, *PAST)))
    own = calendar.map(lambda one: {**one, "zone": "profile"})
    dates = st.sampled_from(DATES)
    since = st.builds(lambda what: {"since_last": what}, st.sampled_from(SINCE))
    between = st.builds(lambda pair: {"between": pair}, st.sampled_from(BETWEEN))
    rhythm = st.sampled_from([1, 3, 0.7]).map(lambda times: {"within": {"times": times, "of": "gap"}})
    own_too = st.one_of(within, between).map(lambda one: {**one, "zone": "profile"})
    alone = st.sampled_from(DURATIONS)
    windows = {
        "order": (within, alone, calendar, own, dates, since, between, own_too, rhythm),
        "count": (within, alone, calendar, own, dates, since, rhythm),
        "days": (within, calendar, dates, since),
        "edge": (calendar, own, dates),
        "total": (calendar, own, dates),
    }[of]
    return st.one_of(none, none, *(one.map(lambda window: {"window": window}) for one in windows))


@st.composite
def did_events(draw: st.DrawFn) -> dict[str, Any]:
    """What a customer did, orders apart."""
    types = draw(
        st.sampled_from(
            [["page_viewed"], ["product_viewed"], ["email_opened"], ["page_viewed", "product_viewed"], ["dice_rolled"]]
        )
    )
    rule: dict[str, Any] = {draw(st.sampled_from(["did", "did", "did_not"])): types if len(types) > 1 else types[0]}
    kind = draw(st.sampled_from(["none", "times", "times", "distinct_days", "more", "ago"]))
    if kind in ("none", "times", "distinct_days"):
        rule |= draw(windows("days" if kind == "distinct_days" else "count"))
    if types == ["product_viewed"] and draw(st.booleans()):
        rule["item"] = draw(conditions_on_items())
        if draw(st.booleans()):
            rule["per"] = "item"
    if types == ["email_opened"] and draw(st.booleans()):
        rule["where"] = [
            draw(
                st.sampled_from(
                    [
                        {"machine": {"ne": True}},
                        {"machine": False},
                        {"machine": True},
                        {"machine": ["scanner"]},
                        {"machine": {"exists": False}},
                    ]
                )
            )
        ]
    if types == ["page_viewed"] and draw(st.booleans()):
        rule["where"] = [
            draw(
                st.sampled_from(
                    [
                        {"custom.channel": "web"},
                        {"custom.channel": ["web", "app"]},
                        {"custom.channel": {"starts_with": "a"}},
                        {"custom.channel": {"matches": "^(app|w.b)$"}},
                    ]
                )
            )
        ]
    if kind == "ago":
        rule |= {"window": {"between": draw(st.sampled_from(BETWEEN[:2]))}, "resolution": "PT1H"}
    if kind in ("times", "ago"):
        rule["times"] = draw(numbers(0, 1, 2, 3, 4, 2.5))
    elif kind == "distinct_days":
        rule["distinct_days"] = draw(numbers(0, 1, 2, 3))
    elif kind == "more":
        rule |= draw(measures_of(types))
    if "did_not" in rule and draw(st.booleans()):
        rule["known_for"] = draw(st.sampled_from(AGES))
    return rule  # fmt: skip


@st.composite
def measures_of(draw: st.DrawFn, types: list[str]) -> dict[str, Any]:
    """Sums and the like of what these events carry, each with a window that it can have."""
    if types == ["dice_rolled"]:
        name = draw(st.sampled_from(["sum", "avg", "min", "max"]))
        field, limits = draw(st.sampled_from([("points", (0, 1, 3, 0.1, 6.2)), ("value", (0, 12.5, 25, 37.49))]))
        rule: dict[str, Any] = {name: {"field": field, **draw(numbers(*limits))}}
        if draw(st.booleans()):
            return rule | draw(windows("total"))
        within, step = draw(st.sampled_from(STRETCHES))
        window = {"between": ["PT2H", within]} if draw(st.booleans()) else {"within": within}
        return rule | {"window": window, "resolution": step}
    if "product_viewed" in types:
        return {"distinct": {"field": "product_id", **draw(numbers(0, 1, 2, 3))}, **draw(windows("count"))}
    if types == ["page_viewed"]:
        which, channel = draw(st.sampled_from(["first", "last"])), draw(st.sampled_from(["web", "app"]))
        return {which: {"field": "channel", "eq": channel}, **draw(windows("edge"))}
    return draw(windows("count"))


AMOUNTS_OF_ITEMS: Final = ({"price": {"gte": 10}}, {"price": {"between": [2.5, 12.5]}}, {"price": {"ne": 5}})
AMOUNTS_OF_ORDERS: Final = ({"total": {"gte": 25}}, {"total": {"between": [10, 49.99]}}, {"margin": {"gte": 5}}, {"margin": {"exists": False}})  # fmt: skip


@lru_cache
def conditions_on_items() -> st.SearchStrategy[list[dict[str, Any]]]:
    """What lines may be asked for."""
    one: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
        [{"category": "tools"}, {"product_id": "a"}, {"product_id": ["a", "d"]}, {"brand": "Bosch"}, {"quantity": {"gte": 2}}, {"category": {"ends_with": "s"}}, {"sku": "a-1"}, {"name": {"starts_with": "Drill"}}, {"name": {"ne": "Drill a"}}, {"category": ["garden", "tools"]}, {"brand": {"exists": True, "ne": "Bosch"}}, {"brand": {"ne": "Bosch", "ends_with": "a"}}]
    )  # fmt: skip
    return st.lists(one | st.sampled_from(AMOUNTS_OF_ITEMS), min_size=1, max_size=2)


@st.composite
def did_orders(draw: st.DrawFn) -> dict[str, Any]:
    """What a customer bought."""
    rule: dict[str, Any] = {draw(st.sampled_from(["did", "did", "did_not"])): "order"}
    rule |= draw(windows())
    if draw(st.integers(0, 2)) == 0:
        rule["item"] = draw(conditions_on_items())
    if draw(st.integers(0, 3)) == 0:
        facts = st.sampled_from([{"channel": "web"}, {"channel": {"ne": "web"}}, {"channel": {"exists": True}}])
        rule["where"] = [draw(facts | st.sampled_from(AMOUNTS_OF_ORDERS))]
    if draw(st.integers(0, 2)) == 0:
        rule["status_in"] = draw(st.sampled_from(["delivered", ["placed", "paid"], ["shipped", "delivered"]]))
    if draw(st.integers(0, 3)) == 0:
        rule["per"] = draw(st.sampled_from(["item", "order"]))
    name = draw(
        st.sampled_from(
            ["none", "times", "distinct_days", "sum", "avg", "median", "min", "max", "distinct", "first", "last"]
        )
    )
    if name in ("times", "distinct_days"):
        rule[name] = draw(numbers(0, 1, 2, 3))
    elif name == "distinct":
        rule[name] = {"field": draw(st.sampled_from(["product_id", "category", "channel"])), **draw(numbers(0, 1, 2))}
        if rule[name]["field"] == "channel":
            rule.pop("per", None)
    elif name in ("first", "last"):
        test = st.sampled_from([{"field": "channel", "eq": "web"}, {"field": "total", "gte": 25}])
        rule[name] = draw(test)
        rule.pop("per", None)
    elif name != "none":
        field, limits = draw(
            st.sampled_from([("total", (0, 10, 25.04, 75, 150)), ("quantity", (0, 1, 3)), ("margin", (0, 3.33, 15))])
        )
        rule[name] = {"field": field, **draw(numbers(*limits))}
        if field == "margin":
            rule.pop("per", None)
    if "did_not" in rule and draw(st.integers(0, 2)) == 0:
        rule["known_for"] = draw(st.sampled_from(AGES))
    return rule  # fmt: skip


def chosen(*tests: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One of these comparisons."""
    return st.sampled_from(tests)


@lru_cache
def traits() -> st.SearchStrategy[dict[str, Any]]:
    """What a customer is."""
    asked: list[tuple[str, st.SearchStrategy[dict[str, Any]]]] = [
        ("orders_paid", numbers(0, 1, 2, 3)),
        *((time, ages()) for time in ("first_seen", "first_order_at", "last_order_at", "registered_at", "first_buy")),
        ("revenue", numbers(0, 10, 75, 100.5)),
        ("avg_check", numbers(0, 10, 25.04, 50)),
        ("profit", numbers(0, 3.33, 10, 75)),
        ("usual_check", numbers(0, 10, 25.04, 50)),
        ("top", numbers(0, 10, 50)),
        ("orders_this_month", numbers(0, 1, 2)),
        ("looks_today", numbers(0, 1, 2)),
        *((name, numbers(0, 1, 2)) for name in ("looks_last_week", "looks_since")),
        ("spent_last_month", numbers(0, 10, 75)),
        ("points_yesterday", numbers(0, 1, 3, 0.1)),
        ("orders_month", numbers(0, 1, 2)),
        ("tools_bought", numbers(0, 1, 2)),
        ("opens_week", numbers(0, 1, 2, 3)),
        ("opens", numbers(0, 1, 2)),
        ("seen_products", numbers(0, 1, 2, 3)),
        ("points_month", numbers(0, 1, 3, 0.1)),
        *((name, numbers(-2, 0, 0.1, 3)) for name in ("points_least", "points_best")),
        ("spent_value", numbers(0, 12.5, 25)),
        ("last_channel", st.sampled_from([{"eq": "web"}, {"ne": "web"}, {"in": ["app"]}, {"exists": True}])),
        ("gap", numbers(0, DAY_MS, 31 * DAY_MS)),
        *((f"rfm.{part}", numbers(1, 2, 3, 4)) for part in "rfm"),
        ("rfm.cell", numbers(111, 412, 321)),
        *((f"purchases.{part}", numbers(0, 1, 2, 30)) for part in ("frequency", "recency_days", "age_days", "silent_days")),
        ("purchases.monetary", numbers(0, 25, 50)),
        ("gender", st.sampled_from([{"eq": "f"}, {"ne": "f"}, {"in": ["f", "x"]}, {"not_in": ["m"]}, {"exists": True}, {"missing": True}, {"starts_with": "f"}, {"ends_with": "m"}, {"matches": "^[fx]"}])),
        ("custom.mark", numbers(3, 5, 8)),
        ("custom.visit_at", chosen(*({"within_next": ahead} for ahead in ("PT12H", "P1D", "P30D")))),
        ("address.city", chosen({"eq": "Bonn"}, {"ne": "Ulm"}, {"missing": True})),
        ("custom.likes", chosen({"contains": "tea"}, {"contains_all": ["tea", "jam"]}, {"contains_any": ["jam", "cup"]})),
        ("age", numbers(16, 17, 18)),
        *((name, chosen(*({"anniversary_within": ahead} for ahead in ("PT12H", "P1D", "P30D")))) for name in ("birth_date", "first_order_at")),
        ("alive", numbers(20, 50, 75, 90, 99)),
        ("usual_hour", numbers(0, 12, 22, 23)),
        ("interests.tools", numbers(0, 1, 2, 5, 7)),
        *((f"all_interests.{one}", numbers(0, 1, 2, 5, 7)) for one in ("tools", "tools/drills")),
        ("all_interests.top", chosen({"under": "tools"}, {"eq": "tools/drills"}, {"ne": "garden"})),
        ("device", chosen({"eq": "phone"}, {"ne": "phone"}, {"missing": True})),
        ("city", chosen({"eq": "Bonn"}, {"ne": "Bonn"}, {"exists": True})),
        ("country", chosen({"eq": "DE"}, {"in": ["AT", "CH"]})),
        ("device_class", chosen({"eq": "mobile"}, {"in": ["mobile", "desktop"]})),
        ("check", chosen({"eq": "low"}, {"in": ["middle", "high"]}, {"ne": "high"}, {"missing": True})),
        *((f"{which}.source", chosen({"eq": "yandex"}, {"ne": "mail"})) for which in ("came_first", "came_last")),
        ("interests.top", chosen({"eq": "tools"}, {"ne": "garden"}, {"exists": True})),
        ("favourites", st.sampled_from([{"contains": "a"}, {"contains_all": ["a", "b"]}, {"contains_any": ["c", "d"]}])),
        ("fashion", st.sampled_from([{"contains": "tools"}, {"exists": True}])),
        *((name, chosen({"eq": "email"}, {"ne": "sms"}, {"missing": True})) for name in ("channel", "any_channel")),
        *((f"{which}_touch.source", chosen({"eq": "yandex"}, {"ne": "mail"}, {"exists": True})) for which in ("first", "last")),
        ("last_touch.campaign", st.sampled_from([{"starts_with": "bf_"}, {"missing": True}])),
        *((time, ages()) for time in ("first_touch.at", "email.last_opened_at", "sms.last_clicked_at")),
        *((count, numbers(0, 1, 2)) for count in ("email.sent", "email.opened", "sms.clicked", "email.unsubscribed")),
    ]  # fmt: skip
    return st.one_of([st.builds(_of_trait, st.just(path), ops) for path, ops in asked])


def _of_trait(path: str, test: dict[str, Any]) -> dict[str, Any]:
    return {"trait": path, **test}


@lru_cache
def orderly() -> st.SearchStrategy[dict[str, Any]]:
    """Rules on carts and visits, which look at the order in which things were told."""
    acts = st.sampled_from(["page_viewed", "product_viewed", "product_added", ["page_viewed", "order_completed"]])
    return st.one_of(
        st.builds(lambda did, times: {"did": did, "window": {"session": "current"}, "times": times}, st.one_of(acts, st.just("order")), numbers(0, 1, 2)),
        st.builds(lambda did, times: {"session": {"did": did, **times}}, acts, st.one_of(st.just({}), st.builds(lambda n: {"times": n}, numbers(0, 1, 2)))),
        st.builds(lambda did, without: {"did": did, "window": {"since": "session_start"}} if without else {"session": {"not": {"did": did}}}, acts, st.booleans()),
        st.builds(lambda did, times, within: {"did": did, "times": times, **within}, st.sampled_from(["session_started", "session_ended"]), numbers(0, 1, 2), windows("count")),
        st.builds(lambda ops: {"trait": "cart.items", **ops}, numbers(0, 1, 2, 3)),
        st.builds(lambda ops: {"trait": "cart.total", **ops}, numbers(0, 5, 12.34, 24.68)),
        st.builds(lambda source: {"trait": "session.source", **source}, st.sampled_from([{"eq": "yandex"}, {"missing": True}])),
        st.builds(lambda state: {"trait": "cart.state", "eq": state}, st.sampled_from(["empty", "active", "abandoned"])),
    )  # fmt: skip


@lru_cache
def consents() -> st.SearchStrategy[dict[str, Any]]:
    """What a customer agreed to."""
    return st.builds(
        lambda channel, topic, state: {"consent": {"channel": channel, "topic": topic, "state": state}},
        st.sampled_from(["email", "email", "sms", "push"]),
        st.sampled_from(["*", "sale", "news"]),
        st.sampled_from(["granted", "denied", "unknown", ["granted", "unknown"]]),
    )


@lru_cache
def lapses() -> st.SearchStrategy[dict[str, Any]]:
    """Who has stopped buying."""
    asked = (
        "three_months", "P28D", {"never_bought": "P7D"}, {"times": 3, "of": "gap"}, {"times": 1.5, "of": "gap", "else": "P1M"},
        {"alive_below": 80, "of": "alive"}, {"alive_below": 40, "of": "alive"},
    )  # fmt: skip
    return st.builds(lambda one: {"lapsed": one}, st.sampled_from(asked))


@lru_cache
def dates() -> st.SearchStrategy[dict[str, Any]]:
    """Dates of a rule's own."""
    first = st.sampled_from(["2025-12-20", "2026-01-03T12:00", "2026-01-31", "2026-03-29T02:30"])
    last = st.sampled_from(["2026-04-01", "2026-12-31T23:59"])
    return st.one_of(
        st.builds(lambda begins: {"time": {"from": begins}}, first),
        st.builds(lambda begins, ends: {"time": {"from": begins, "until": ends}}, first, last),
        st.builds(lambda ends: {"time": {"until": ends}}, first),
    )


GOALS: Final[dict[str, Any]] = {
    "subscribe": {"event": "consent_changed", "where": {"topic": ["*", "sale"], "state": "granted"}},
    "look": {"event": ["product_viewed", "page_viewed"]},
    "big_order": {"event": "order_completed", "where": {"total_minor": {"gte": 2_500}}},
}


@lru_cache
def entities() -> st.SearchStrategy[dict[str, Any]]:
    """Children, by name and age."""
    ages = st.sampled_from(["P1D", "P1M", "P3Y", "P16Y"])
    born = st.builds(lambda op, age: {"born": {op: age}}, st.sampled_from(["older_than", "newer_than"]), ages)
    return st.builds(
        lambda where: {"any_item": "children", "where": where},
        st.one_of(born, born.map(lambda one: [one, {"name": "Max"}]), st.just({"name": {"ne": "Max"}})),
    )


@st.composite
def goals(draw: st.DrawFn) -> dict[str, Any]:
    """Goals reached."""
    rule: dict[str, Any] = {"reached_goal": draw(st.sampled_from((*sorted(GOALS), *GA4)))}
    measure = draw(st.sampled_from(["", "times", "distinct_days"]))
    rule |= draw(windows("days" if measure == "distinct_days" else "count"))
    return {**rule, measure: draw(numbers(0, 1, 2, 3))} if measure else rule


BINDINGS: Final[tuple[tuple[dict[str, Any], dict[str, Any]], ...]] = (
    ({"did": "product_viewed"}, {"did": "order", "item": [{"product_id": "$v.product_id"}]}),
    ({"did": "product_viewed", "item": [{"category": "tools"}]}, {"did": "order", "item": [{"category": "$v.category"}], "status_in": "delivered"}),
    ({"did": "order", "where": [{"channel": "web"}]}, {"did": "order", "where": [{"channel": "$v.channel"}]}),
    ({"did": "order"}, {"did": "product_viewed", "item": [{"product_id": "$v.product_id"}, {"quantity": {"gte": 1}}]}),
    ({"did": "sms_sent"}, {"did": ["sms_link_clicked", "page_viewed"]}),
    ({"did": "sms_link_clicked"}, {"did": "sms_link_clicked", "where": [{"delivery_id": "$v.delivery_id"}]}),
    ({"did": ["page_viewed", "email_opened"]}, {"did": "order"}),
    ({"did": "dice_rolled"}, {"did": "dice_rolled", "where": [{"custom.points": {"gte": 1}}]}),
)  # fmt: skip


@st.composite
def sequences(draw: st.DrawFn) -> dict[str, Any]:
    """One thing after another, or not."""
    first, second = draw(st.sampled_from(BINDINGS))
    first = {**first, **({"as": "v"} if "$v" in repr(second) else {})}
    lengths = st.sampled_from(("PT1H", "P1D", "P2D", "P7D", "P1M"))
    if draw(st.integers(0, 2)) == 0:
        first["window"] = draw(st.one_of(windows(), windows("count"))).get("window", {"within": "P28D"})
    steps: list[dict[str, Any]] = [first]
    if draw(st.integers(0, 3)) == 0:
        between = draw(st.sampled_from(["page_viewed", "order", ["identified", "product_viewed"]]))
        steps.append({"then": {"did": between}, "within": draw(lengths)})
    steps.append({draw(st.sampled_from(["then", "then_not"])): second})
    if draw(st.integers(0, 3)):
        steps[-1]["within"] = draw(lengths)
    return {"sequence": steps}


@lru_cache
def atoms(*, carts: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Rules that hold no other."""
    return st.one_of(
        did_events(),
        did_orders(),
        sequences(),
        traits(),
        consents(),
        dates(),
        lapses(),
        goals(),
        entities(),
        *([orderly(), orderly()] if carts else []),
    )


@lru_cache
def rules(*, carts: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Trees of rules."""
    return st.recursive(
        atoms(carts=carts),
        lambda inner: st.one_of(
            st.builds(lambda several: {"all": several}, st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda several: {"any": several}, st.lists(inner, min_size=1, max_size=3)),
            st.builds(
                lambda several, least: {"some": several, "at_least": min(least, len(several))},
                st.lists(inner, min_size=2, max_size=3),
                st.integers(1, 3),
            ),
            st.builds(lambda one: {"not": one}, inner),
        ),
        max_leaves=5,
    )


@st.composite
def documents(draw: st.DrawFn, *, carts: bool = False, zone: str | None = None, formed: bool = False) -> dict[str, Any]:
    """A rule file: traits, segments on events and on one another, and a partition; with ``formed`` also a static one and one that asks
    since when, of which the order of arrival is not all one."""
    one = rules(carts=carts)
    segments: dict[str, Any] = {f"s{n}": draw(one) for n in range(draw(st.integers(1, 3)))}
    if draw(st.booleans()):
        segments["life"] = {
            "kind": "stages",
            "stages": [
                {"name": "one", "when": draw(one)},
                {"name": "two", "when": draw(one)},
                {"name": "rest", "when": "otherwise"},
            ],
        }
    if formed and draw(st.integers(0, 1)) == 0:
        form_at = datetime.fromisoformat(draw(st.sampled_from(STARTS))) + timedelta(days=draw(st.integers(0, 3)))
        segments["formed"] = {"kind": "static", "formed_from": draw(one), "form_at": form_at.isoformat()}
    if formed and draw(st.integers(0, 2)) == 0:
        segments["kept"] = {"when": draw(one), "stays_while": draw(one)}
    if formed and draw(st.integers(0, 2)) == 0:
        share = {"salt": draw(st.sampled_from("abcdef")), "percent": draw(st.sampled_from([10, 50, 99.5]))}
        segments["share"] = {draw(st.sampled_from(["all", "any"])): [{"bucket": share}, draw(one)]}
    if draw(st.integers(0, 3)) == 0:
        of_each = [
            {"trait": "interests.{value}", "gte": 2},
            {"did": "order", "item": [{"category": "{value}"}], **draw(windows())},
        ]
        segments["each"] = {
            "template": {"over": ["tools", "garden"]},
            "when": {"any": [draw(st.sampled_from(of_each)), draw(one)]},
        }
    names = [{"life": "life.two", "each": "each.tools"}.get(name, name) for name in segments]
    reference: dict[str, Any] = {"in_segment": draw(st.sampled_from(names))}
    if formed and draw(st.booleans()):
        reference["for"] = draw(st.sampled_from(DURATIONS))
    form = draw(st.integers(0, 2))
    segments["a_child"] = [reference, {"all": [reference, draw(one)]}, {"any": [{"not": reference}, draw(one)]}][form]
    return {
        "defaults": {
            "zone": zone or draw(st.sampled_from(ZONES)),
            "currency": "USD",
            "week_start": draw(st.sampled_from(["monday", "sunday", "saturday"])),
            **draw(st.sampled_from([{}, {}, {"orders": {"status_in": ["placed", "delivered"]}}])),
        },
        "goals": GOALS,
        "traits": TRAITS,
        "segments": segments,
    }
