"""The load: a seeded shop's events, in the order of the log, as the collector would publish them.

Customers come in visits of a few minutes; a few come often and most seldom (weight 1 / (rank + 200)). Some visits begin
before anybody logs in, a part of those stay nameless. Every site event also names the browser's anonymous id, as SDKs
do, so that the engine has links to follow. What visitors do is their ``Habits``.

    Shop(load).events()     # a start from nothing, at a pace that finds every path of the core
    Shop(load).base()       # a past: every customer has come once, over a month
    Shop(load).steady()     # what follows it, at a shop's rates
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any, Final

from profiles.moments import DAY_MS, HOUR_MS
from profiles.wire import CART_EVENTS, CUSTOMER_EVENTS, EMAIL_EVENTS, ORDER_EVENTS, PAGE_VIEWS, Event

START_MS: Final = 1_772_409_600_000  # 2026-03-02, a Monday
PRODUCTS: Final = 5_000
CATEGORIES: Final = (
    "shoes/running", "shoes/boots", "shirts", "trousers", "hats", "bags/rucksacks", "toys", "books", "garden", "sport",
)  # fmt: skip
CAMPAIGNS: Final = ("spring", "summer", "winback", "vip", "weekly")
EMAIL_SHARE: Final = 0.05
BASE_MS: Final = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class Habits:
    """What visitors do.

    Attributes:
        visit_events_max: a visit has from one to so many events, each number as likely.
        known: share of visits by somebody whose name the site knows from the start.
        logs_in: share of the others that log in on the way.
        page_views, product_views: share of a visit's events; the rest is carts, and orders where something lies in one.
        newcomers: share of visits by somebody who was never there.
    """

    visit_events_max: int
    known: float
    logs_in: float
    page_views: float
    product_views: float
    newcomers: float = 0.0


EAGER: Final = Habits(visit_events_max=15, known=0.67, logs_in=0.7, page_views=0.63, product_views=0.21)
"""Buyers all: 12 % of their events are carts and 3 % orders."""
FIRST_VISITS: Final = Habits(visit_events_max=9, known=0.67, logs_in=0.7, page_views=0.63, product_views=0.21)
SHOPPERS: Final = Habits(
    visit_events_max=15, known=0.85, logs_in=0.5, page_views=0.7, product_views=0.25, newcomers=0.03
)
"""One visit in four puts something into a cart, one in twenty-five orders."""


class Chance:
    """Numbers that the seed decides, the same in every Python (splitmix64)."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count`` - 1."""
        self._state = state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((state ^ (state >> 31)) >> 11) * count >> 53

    def share(self) -> float:
        """A number in [0, 1)."""
        return self.below(1 << 53) / (1 << 53)


@dataclass(frozen=True, slots=True)
class Load:
    """How much of what.

    Attributes:
        events: of ``events`` or ``steady``; a base has as many as its customers' visits come to.
        events_per_hour: of logical time. A million events are then five days of a shop with 100,000 customers.
    """

    seed: int
    events: int
    customers: int = 100_000
    events_per_hour: int = 8_333


@dataclass(slots=True)
class _Visit:
    habits: Habits
    customer: int
    events_left: int
    is_known: bool
    logs_in: bool
    cart: list[dict[str, Any]] = field(default_factory=list)


class Shop:
    """Makes a load's events. A base, and then what follows it, are to come of one object."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._chance = Chance(load.seed)
        self._weights = list(accumulate(1.0 / (rank + 200) for rank in range(load.customers)))
        self._made = 0
        self._orders = 0
        self._newcomers = 0

    def events(self) -> Iterator[tuple[str, Event]]:
        """(topic, event), ``received_ms`` ascending, from ``START_MS`` on; nobody has been there before."""
        return self._flow(EAGER)

    def steady(self) -> Iterator[tuple[str, Event]]:
        """The same, after a base."""
        return self._flow(SHOPPERS)

    def base(self) -> Iterator[tuple[str, Event]]:
        """The month before ``START_MS``: each customer has come once."""
        load, chance = self._load, self._chance
        under_way: list[tuple[int, int, _Visit]] = []
        for number in range(load.customers):
            at_ms = START_MS - BASE_MS + BASE_MS * number // load.customers
            while under_way and under_way[0][0] < at_ms:
                yield self._next_of(under_way)
            customer = number * 7_919 % load.customers
            heappush(under_way, (at_ms + chance.below(1_000), number, self._visit(FIRST_VISITS, customer)))
        while under_way and under_way[0][0] < START_MS:
            yield self._next_of(under_way)

    def _flow(self, habits: Habits) -> Iterator[tuple[str, Event]]:
        load, chance = self._load, self._chance
        end = self._made + load.events
        span_ms = load.events * HOUR_MS // load.events_per_hour
        mean_visit = (1 + habits.visit_events_max) / 2
        visits = max(1.0, load.events * (1 - EMAIL_SHARE) / mean_visit)
        between_visits_ms = span_ms / visits
        between_emails_ms = span_ms / max(1.0, load.events * EMAIL_SHARE)
        next_visit_ms = next_email_ms = 0.0
        under_way: list[tuple[int, int, _Visit]] = []
        number = 0
        while self._made < end:
            at_ms = under_way[0][0] - START_MS if under_way else 1 << 60
            if next_visit_ms <= at_ms and next_visit_ms <= next_email_ms:
                number += 1
                heappush(under_way, (START_MS + int(next_visit_ms), number, self._visit(habits)))
                next_visit_ms += between_visits_ms * 2 * chance.share()
            elif next_email_ms < at_ms:
                yield EMAIL_EVENTS, self._email(START_MS + int(next_email_ms))
                next_email_ms += between_emails_ms * 2 * chance.share()
            else:
                yield self._next_of(under_way)

    def _next_of(self, under_way: list[tuple[int, int, _Visit]]) -> tuple[str, Event]:
        """The earliest event of the visits under way."""
        at_ms, place, visit = heappop(under_way)
        made = self._act(visit, at_ms)
        visit.events_left -= 1
        if visit.events_left:
            heappush(under_way, (at_ms + 3_000 + self._chance.below(80_000), place, visit))
        return made

    def _customer(self) -> int:
        rank = bisect(self._weights, self._chance.share() * self._weights[-1])
        return rank * 7_919 % self._load.customers  # so that ranks do not follow the numbers

    def _visit(self, habits: Habits, customer: int | None = None) -> _Visit:
        chance = self._chance
        is_known = chance.share() < habits.known
        if customer is None:
            customer = self._customer()
        if habits.newcomers and chance.share() < habits.newcomers:
            customer = self._load.customers + self._newcomers
            self._newcomers += 1
            is_known = False
        events = 1 + chance.below(habits.visit_events_max)
        return _Visit(habits, customer, events, is_known, not is_known and chance.share() < habits.logs_in)

    def _act(self, visit: _Visit, at_ms: int) -> tuple[str, Event]:
        chance = self._chance
        if visit.logs_in and chance.share() < 0.3:
            visit.is_known, visit.logs_in = True, False
            number = visit.customer
            traits = {"email": f"customer{number}@mail.example", "first_name": "Ana", "locale": "en-GB"}
            return CUSTOMER_EVENTS, self._event("identified", visit, at_ms, {}, traits)
        draw = chance.share()
        if draw < visit.habits.page_views:
            path = f"/{CATEGORIES[chance.below(len(CATEGORIES))]}/{chance.below(400)}"
            props: dict[str, Any] = {"path": path, "url": f"https://shop.example{path}", "title": "The shop"}
            return PAGE_VIEWS, self._event("page_viewed", visit, at_ms, props)
        if draw < visit.habits.page_views + visit.habits.product_views:
            props = {"currency": "USD", "items": [self._item()]}
            return PAGE_VIEWS, self._event("product_viewed", visit, at_ms, props)
        if not visit.cart or chance.share() < 0.5:
            if visit.cart and chance.share() < 0.2:
                item = visit.cart.pop()
                return CART_EVENTS, self._event("product_removed", visit, at_ms, {"currency": "USD", "items": [item]})
            item = self._item()
            visit.cart.append(item)
            return CART_EVENTS, self._event("product_added", visit, at_ms, {"currency": "USD", "items": [item]})
        self._orders += 1
        lines = [{**item, "amount_minor": item["price_e6"] // 10_000} for item in visit.cart[:3]]
        visit.cart.clear()
        props = {
            "order_id": f"o{self._orders}",
            "currency": "USD",
            "total_minor": sum(line["amount_minor"] for line in lines),
            "status": "paid",
            "items": [
                {key: line[key] for key in ("product_id", "quantity", "price_e6", "category", "amount_minor")}
                for line in lines
            ],
        }
        return ORDER_EVENTS, self._event("order_completed", visit, at_ms, props)

    def _item(self) -> dict[str, Any]:
        # Few products are most of what is looked at.
        number = self._chance.below(PRODUCTS) * self._chance.below(PRODUCTS) // PRODUCTS
        return {
            "product_id": f"p{number}",
            "quantity": 1,
            "price_e6": (500 + number * 37 % 15_000) * 10_000,
            "name": f"Product {number}",
            "category": CATEGORIES[number % len(CATEGORIES)],
        }

    def _event(
        self, kind: str, visit: _Visit, at_ms: int, props: dict[str, Any], traits: dict[str, Any] | None = None
    ) -> Event:
        self._made += 1
        anonymous = f"anon:{visit.customer:08x}-6f2e"
        return Event(
            message_id=f"{self._load.seed:04x}-{self._made:012x}",
            source="web",
            type=kind,
            at_ms=at_ms - self._chance.below(1_500),
            received_ms=at_ms,
            address=f"user:{100_000 + visit.customer}" if visit.is_known else anonymous,
            identifiers=(anonymous,) if visit.is_known else (),
            props=props,
            traits=traits or {},
            context={"locale": "en-GB", "device": "mobile"},
        )

    def _email(self, at_ms: int) -> Event:
        chance = self._chance
        self._made += 1
        draw = chance.share()
        kind = "email_delivered" if draw < 0.6 else "email_opened" if draw < 0.9 else "email_link_clicked"
        return Event(
            message_id=f"{self._load.seed:04x}-{self._made:012x}",
            source="mail",
            type=kind,
            at_ms=at_ms - chance.below(60_000),
            received_ms=at_ms,
            address=f"user:{100_000 + self._customer()}",
            props={"campaign_id": CAMPAIGNS[chance.below(len(CAMPAIGNS))], "email_id": f"m{self._made:x}"},
            trusted=True,
        )
