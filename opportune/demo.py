"""The demo: a believable little shop, whose customers' doings go through the collector like anybody's.

Its clock is the log's: it steps to the time of what is posted before it is posted, three days a second at most, so
that months pass while one looks on. As by the SDKs, what happens within some minutes is posted together. Everything is
drawn from the seed; the same seed is the same shop.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, iso
from stream.clock import LogClock, monotonic_ms

CUSTOMERS: Final = 120
DAYS_PER_S: Final = 3.0
ARRIVING_DAYS: Final = 40
POSTED_MS: Final = 15 * MINUTE_MS
"""How much of the shop's time goes into one batch."""
SITE: Final = "https://shop.example"

# product id, name, category, price, how many days one lasts (0: it does not run out)
PRODUCTS: Final = (
    ("beans-dark", "Dark roast beans, 1 kg", "coffee/beans", 24.90, 24),
    ("beans-light", "Light roast beans, 1 kg", "coffee/beans", 26.50, 22),
    ("beans-decaf", "Decaf beans, 1 kg", "coffee/beans", 28.00, 30),
    ("filters", "Paper filters, 100", "coffee/filters", 4.20, 45),
    ("green-tea", "Green tea, 250 g", "tea/green", 14.00, 30),
    ("black-tea", "Black tea, 250 g", "tea/black", 11.50, 28),
    ("cat-food", "Cat food, 4 kg", "pets/cats", 38.00, 26),
    ("dog-food", "Dog food, 10 kg", "pets/dogs", 62.00, 32),
    ("mug", "Stoneware mug", "kitchen/mugs", 17.00, 0),
    ("grinder", "Hand grinder", "kitchen/grinders", 89.00, 0),
    ("kettle", "Gooseneck kettle", "kitchen/kettles", 129.00, 0),
    ("scale", "Brewing scale", "kitchen/scales", 54.00, 0),
)
FIRST_NAMES: Final = ("Ana", "Ben", "Chiara", "Dana", "Emil", "Fatma", "Goran", "Hanna", "Ivo", "Jun", "Kira", "Luis")


@dataclass(slots=True)
class Shopper:
    """One customer, with a habit.

    Attributes:
        visits: how likely a visit is on a day.
        staple: index of the product bought again and again; -1: none.
        leaves_day: from this day on nothing more is heard.
    """

    number: int
    arrives_day: int
    visits: float
    staple: int
    buys: float
    leaves_day: int
    next_staple_day: int = -1
    known: bool = False
    orders: int = 0
    cart: list[int] = field(default_factory=list)


class Shop:
    """Makes each day's events, in order of time."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._shoppers = [self._shopper(number) for number in range(CUSTOMERS)]

    def chance(self, *what: object) -> float:
        """A number in [0, 1) that depends on the seed and on what is asked only."""
        text = "|".join(str(one) for one in (self._seed, *what))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") / (1 << 56)

    def _shopper(self, number: int) -> Shopper:
        habit = self.chance("habit", number)
        regular = habit < 0.45
        return Shopper(
            number=number,
            arrives_day=int(self.chance("arrives", number) * ARRIVING_DAYS),
            visits=0.05 + 0.12 * self.chance("visits", number),
            staple=int(self.chance("staple", number) * 8) if regular else -1,
            buys=0.1 + 0.3 * self.chance("buys", number),
            leaves_day=int(30 + 60 * self.chance("leaves", number)) if habit > 0.7 else 1 << 30,
        )

    def day(self, day: int, start_ms: int) -> list[tuple[int, dict[str, Any]]]:
        """The day's events: (instant, body for the collector)."""
        events: list[tuple[int, dict[str, Any]]] = []
        for shopper in self._shoppers:
            if not shopper.arrives_day <= day < shopper.leaves_day:
                continue
            due = shopper.next_staple_day == day
            if not due and self.chance("visit", shopper.number, day) >= shopper.visits and day != shopper.arrives_day:
                continue
            hour = 8 + 14 * self.chance("hour", shopper.number, day)
            events.extend(self._visit(shopper, day, start_ms + int(hour * HOUR_MS), due))
        return sorted(events, key=lambda one: one[0])

    def _visit(self, shopper: Shopper, day: int, at_ms: int, due: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        number = shopper.number
        step = 0

        def at() -> int:
            nonlocal step
            step += 1
            return at_ms + int(step * (0.5 + 2 * self.chance("pause", number, day, step)) * MINUTE_MS)

        def body(kind: str, **more: Any) -> dict[str, Any]:
            one = {"type": kind, "anonymousId": f"visitor-{number}", "messageId": f"demo-{number}-{day}-{step}", **more}
            if shopper.known:
                one["userId"] = str(1000 + number)
            return one

        def track(event: str, **properties: Any) -> dict[str, Any]:
            return body("track", event=event, properties=properties)

        yield at(), body("page", name="Home", properties={"url": f"{SITE}/", "path": "/"})
        looks = 1 + int(3 * self.chance("looks", number, day))
        seen = [int(self.chance("look", number, day, i) * len(PRODUCTS)) for i in range(looks)]
        if due:
            seen = [shopper.staple]
        for product in seen:
            yield at(), track("Product Viewed", **_item(product))
        wants = due or self.chance("wants", number, day) < 0.45
        if not wants:
            return
        product = seen[-1]
        yield at(), track("Product Added", **_item(product))
        shopper.cart.append(product)
        if not due and self.chance("buys", number, day) >= shopper.buys:
            return
        if not shopper.known:
            shopper.known = True
            name = FIRST_NAMES[number % len(FIRST_NAMES)]
            traits = {"email": f"{name.lower()}.{number}@example.com", "first_name": name}
            yield at(), body("identify", traits=traits)
            yield at(), track("Signed Up")
        shopper.orders += 1
        bought, shopper.cart = sorted(set(shopper.cart)), []
        items = [{**_item(one), "quantity": 1} for one in bought]
        total = round(sum(PRODUCTS[one][3] for one in bought), 2)
        yield (
            at(),
            track(
                "Order Completed", order_id=f"{number}-{shopper.orders}", total=total, currency="EUR", products=items
            ),
        )
        if shopper.staple in bought:
            lasts = PRODUCTS[shopper.staple][4]
            shopper.next_staple_day = day + lasts + int(5 * self.chance("early", number, day)) - 2
        elif shopper.staple >= 0 and shopper.next_staple_day < day:
            shopper.next_staple_day = day + 2


def _item(product: int) -> dict[str, Any]:
    product_id, name, category, price, _ = PRODUCTS[product]
    return {
        "product_id": product_id,
        "name": name,
        "category": category,
        "price": price,
        "quantity": 1,
        "currency": "EUR",
        "url": f"{SITE}/p/{product_id}",
    }


async def play(collector: str, write_key: str, clock: LogClock, seed: int) -> None:
    """Post the shop's days to a collector, for ever.

    Args:
        collector: ``http://host:port``.
        clock: what the collector stamps arrivals with; stepped here.
    """
    shop = Shop(seed)
    start_ms = clock.now_ms()
    started_ms = monotonic_ms()
    async with httpx.AsyncClient(base_url=collector, auth=(write_key, ""), timeout=30) as client:
        day = 0
        while True:
            for batch in _batches(shop.day(day, start_ms + day * DAY_MS)):
                clock.advance(batch[-1][0])
                events = [{**body, "timestamp": iso(at_ms)} for at_ms, body in batch]
                await _sent(client, {"batch": events, "sentAt": iso(clock.now_ms())})
            day += 1
            ahead_s = day / DAYS_PER_S - (monotonic_ms() - started_ms) / 1000
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)


def _batches(events: list[tuple[int, dict[str, Any]]]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """The same, what lies within ``POSTED_MS`` together."""
    batch: list[tuple[int, dict[str, Any]]] = []
    for at_ms, body in events:
        if batch and at_ms - batch[0][0] > POSTED_MS:
            yield batch
            batch = []
        batch.append((at_ms, body))
    if batch:
        yield batch


async def _sent(client: httpx.AsyncClient, batch: dict[str, Any]) -> None:
    """Send as the SDKs do: what is busy is asked again, and a message told twice counts once."""
    while True:
        answer = await client.post("/v1/batch", json=batch)
        if answer.status_code not in (429, 503):
            answer.raise_for_status()
            return
        await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
