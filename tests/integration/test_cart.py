"""Abandoned cart through the real parts: collector, broker, worker, store. The clock is the log's, and ours to move.

The collector stamps what it takes with a clock that the test sets, and the worker runs on the log's clock (R18), so
every due instant is exact: what is due at an instant has happened by the next millisecond, and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from segment.analytics.client import Client as SegmentClient

from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, iso, parse_instant
from profiles.wire import DECISIONS, SEGMENT_CHANGES, trigger_topic
from tests.conftest import Installation
from tests.integration.parts import (
    SHOP_KEY,
    WEB_KEY,
    Edge,
    Shop,
    SteppedClock,
    Topics,
    collecting,
    opened,
    reading,
    until,
    working,
)

MORNING_MS = parse_instant("2026-03-02T10:00:00Z")
CARTS = trigger_topic("abandoned_cart")
DRILL = {"product_id": "drill", "price": 49.90, "currency": "USD", "name": "Drill"}
SAW = {"product_id": "saw", "price": 15, "currency": "USD"}


class Day:
    """A shop with a clock: what happens is told with it, and what follows is looked at."""

    def __init__(self, edge: Edge, topics: Topics, clock: SteppedClock) -> None:
        self.edge = edge
        self.topics = topics
        self.clock = clock
        self._calls = 0

    async def tell(self, event: str, properties: dict[str, Any], user: str = "ana") -> str:
        """A shop's back end tells an event; its message id."""
        self._calls += 1
        name = f"m-{self._calls}"
        await self.edge.accepted("track", key=SHOP_KEY, event=event, userId=user, messageId=name, properties=properties)
        return name

    async def it_is(self, at_ms: int) -> None:
        """Time passes: somebody else looks at a page, and everything that is due has happened."""
        self.clock.at_ms = at_ms
        self._calls += 1
        await self.edge.accepted("page", userId="passer-by", messageId=f"m-{self._calls}", properties={})
        await self.topics.settled()

    def letters(self) -> list[tuple[str, str]]:
        """(template, when) of the letters that went out."""
        return [(one["template"], one["at"]) for one in self.topics.json(CARTS)]

    def decisions(self) -> list[tuple[str, str, str | None]]:
        """(step, outcome, reason) of what was decided of carts."""
        found = [one for one in self.topics.json(DECISIONS) if one["trigger"] == "abandoned_cart"]
        return [(one["step"], one["outcome"], one["reason"]) for one in found]

    def decided(self, step: str) -> dict[str, Any]:
        """The one decision of a step."""
        [one] = [
            one for one in self.topics.json(DECISIONS) if (one["trigger"], one["step"]) == ("abandoned_cart", step)
        ]
        return one


@asynccontextmanager
async def a_day(shop: Shop, at_ms: int = MORNING_MS) -> AsyncIterator[Day]:
    clock = SteppedClock(at_ms)
    async with working(shop), collecting(shop, clock) as edge, reading(shop) as topics:
        yield Day(edge, topics, clock)


@pytest.fixture
def shop(installation: Installation) -> Shop:
    return asyncio.run(opened(installation, clock="log"))


@pytest.mark.mechanic("M46")
@pytest.mark.mechanic("M47")
@pytest.mark.invariant("R15")
@pytest.mark.invariant("R17")
async def test_a_cart_filled_by_the_sdk_and_left_is_told_at_the_due_instants_once_each(shop: Shop) -> None:
    async with a_day(shop) as day:
        failures: list[object] = []
        sdk = SegmentClient(
            WEB_KEY,
            host=f"http://127.0.0.1:{day.edge.port}/",
            on_error=lambda error, batch: failures.append(error),
        )
        sdk.track("ana", "Product Added", {**DRILL, "quantity": 2}, message_id="added-1")
        sdk.track("ana", "Product Added", SAW, message_id="added-2")
        await asyncio.to_thread(sdk.flush)
        await asyncio.to_thread(sdk.join)
        assert failures == []
        await day.topics.settled()
        ana = await day.topics.profile("user:ana")
        assert ana is not None
        # The SDK's own times lie a little before the collector's: timers run on the latter, the cart's age is the former.
        changed_ms = ana.carts[""].changed_ms
        assert changed_ms <= MORNING_MS
        due_ms = MORNING_MS + 2 * HOUR_MS
        await day.it_is(due_ms)
        assert day.letters() == []  # Something may still come that happened at that very instant.
        await day.it_is(due_ms + 1)
        [letter] = day.topics.json(CARTS)
        assert (letter["template"], letter["at"]) == ("cart_1", iso(due_ms))
        assert letter["profile"]["address"] == "user:ana"
        assert {line["product_id"]: line["quantity"] for line in letter["payload"]["cart"]["items"]} == {
            "drill": 2,
            "saw": 1,
        }
        await day.it_is(due_ms + 3 * DAY_MS)
        assert day.letters() == [("cart_1", iso(due_ms))]
        await day.it_is(due_ms + 3 * DAY_MS + 1)
        await day.it_is(due_ms + 30 * DAY_MS)
        assert day.letters() == [("cart_1", iso(due_ms)), ("cart_2", iso(due_ms + 3 * DAY_MS))]
        assert [outcome for _, outcome, _ in day.decisions()] == ["emitted", "emitted"]
        entered = [
            change["at"]
            for change in day.topics.json(SEGMENT_CHANGES)
            if (change["address"], change["segment"], change["change"]) == ("user:ana", "cart_abandoned", "entered")
        ]
        assert entered == [iso(changed_ms + 2 * HOUR_MS)]


@pytest.mark.mechanic("M46")
async def test_an_order_in_between_keeps_the_letter_back_and_the_decision_says_so(shop: Shop) -> None:
    async with a_day(shop) as day:
        await day.tell("Product Added", DRILL)
        day.clock.at_ms += HOUR_MS
        await day.tell(
            "Order Completed", {"order_id": "o-1", "currency": "USD", "total": 49.90, "products": [{**DRILL}]}
        )
        await day.it_is(MORNING_MS + 30 * DAY_MS)
        assert day.letters() == []
        assert day.decisions() == [("1", "suppressed", "cancelled")]
        decision = day.decided("1")
        assert decision["detail"] == {"by": "order_completed"}
        assert decision["at"] == iso(MORNING_MS + HOUR_MS)


@pytest.mark.mechanic("M46")
async def test_an_emptied_cart_keeps_the_letter_back_and_the_decision_says_so(shop: Shop) -> None:
    async with a_day(shop) as day:
        await day.tell("Product Added", {**DRILL, "quantity": 2})
        day.clock.at_ms += HOUR_MS
        await day.tell("Product Removed", {**DRILL, "quantity": 1})
        day.clock.at_ms += HOUR_MS
        await day.tell("Product Removed", {**DRILL, "quantity": 1})
        await day.it_is(MORNING_MS + 30 * DAY_MS)
        assert day.letters() == []
        assert day.decided("1")["detail"] == {"by": "cart.empty"}
        assert day.decisions() == [("1", "suppressed", "cancelled")]


@pytest.mark.mechanic("M46")
async def test_every_change_of_the_cart_puts_the_letter_off(shop: Shop) -> None:
    async with a_day(shop) as day:
        await day.tell("Product Added", DRILL)
        day.clock.at_ms += 2 * HOUR_MS - 1
        await day.tell("Product Added", SAW)
        await day.it_is(MORNING_MS + 4 * HOUR_MS - 1)
        assert day.letters() == []
        await day.it_is(MORNING_MS + 4 * HOUR_MS)
        assert day.letters() == [("cart_1", iso(MORNING_MS + 4 * HOUR_MS - 1))]


@pytest.mark.mechanic("M47")
async def test_a_cart_of_the_late_evening_is_told_before_the_day_is_over(shop: Shop) -> None:
    evening_ms = parse_instant("2026-03-02T23:10:00Z")
    async with a_day(shop, evening_ms) as day:
        await day.tell("Product Added", DRILL)
        await day.it_is(evening_ms + HOUR_MS)
        assert day.letters() == [("cart_1", "2026-03-02T23:59:00.000Z")]


@pytest.mark.mechanic("M47")
@pytest.mark.parametrize(
    ("event", "properties", "decision"),
    [
        (
            "Order Completed",
            {"order_id": "o-1", "currency": "USD", "total": 49.90, "products": [DRILL]},
            ("cancelled", {"by": "order_completed"}),
        ),
        ("Product Removed", DRILL, ("cancelled", {"by": "cart.empty"})),
        ("Checkout Started", {"currency": "USD"}, ("reacted", {"by": "checkout_started"})),
    ],
)
async def test_whoever_reacts_to_the_first_letter_gets_no_second(
    shop: Shop, event: str, properties: dict[str, Any], decision: tuple[str, dict[str, Any]]
) -> None:
    async with a_day(shop) as day:
        await day.tell("Product Added", DRILL)
        await day.it_is(MORNING_MS + 2 * HOUR_MS + 1)
        day.clock.at_ms += DAY_MS
        await day.tell(event, properties)
        await day.it_is(MORNING_MS + 30 * DAY_MS)
        assert day.letters() == [("cart_1", iso(MORNING_MS + 2 * HOUR_MS))]
        second = day.decided("2")
        assert (second["reason"], second["detail"]) == decision


@pytest.mark.mechanic("M46")
@pytest.mark.invariant("R22")
async def test_a_cart_begun_by_an_unknown_visitor_is_told_to_the_customer_who_signed_in(shop: Shop) -> None:
    async with a_day(shop) as day:
        await day.edge.accepted(
            "track", event="Product Added", anonymousId="a-1", messageId="added", properties={**DRILL, "quantity": 2}
        )
        await day.topics.settled()
        day.clock.at_ms += MINUTE_MS
        await day.edge.accepted(
            "identify", userId="ana", anonymousId="a-1", messageId="in", traits={"email": "ana@shop.example"}
        )
        await day.topics.settled()
        await day.it_is(MORNING_MS + 30 * DAY_MS)
        due_ms = MORNING_MS + 2 * HOUR_MS
        assert day.letters() == [("cart_1", iso(due_ms)), ("cart_2", iso(due_ms + 3 * DAY_MS))]
        assert {one["profile"]["address"] for one in day.topics.json(CARTS)} == {"user:ana"}
        assert {one["profile"]["email"] for one in day.topics.json(CARTS)} == {"ana@shop.example"}


RULES = """
triggers:
  abandoned_cart:
    topic: cart
    on: {event: product_added}
    when: {trait: cart.items, gte: 1}
    cancel_on: [{event: order_completed}]
    max_age: PT2H
    steps:
      - wait: PT1S
      - emit: {template: cart_1, payload: {cart: current}}
"""


@pytest.mark.invariant("R15")
@pytest.mark.invariant("R18")
async def test_on_the_stores_own_clock_a_timer_fires_after_its_instant_and_bears_it(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    shop = await opened(installation, rules=str(tmp_path))
    async with working(shop) as worker, reading(shop) as topics:
        clock = SteppedClock(await worker.store.now_ms())
        async with collecting(shop, clock) as edge:
            await edge.accepted("track", event="Product Added", anonymousId="a-1", messageId="m", properties=DRILL)

            async def fired() -> bool:
                await topics.read()
                return bool(topics.on[CARTS])

            await until(fired, what="the letter")
            now_ms = await worker.store.now_ms()
            await topics.settled()
        [letter] = topics.json(CARTS)
        assert letter["at"] == iso(clock.at_ms + SECOND_MS)
        assert now_ms >= clock.at_ms + 3 * SECOND_MS  # the gate's two seconds
