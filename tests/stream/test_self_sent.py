"""What a journey asks of other addresses, or of its own, goes by the log as an operator's command does."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from profiles.wire import (
    COUPONS,
    CUSTOMER_EVENTS,
    ERASURES,
    ORDER_EVENTS,
    PAGE_VIEWS,
    Event,
    Record,
    encode_event,
    trigger_topic,
)
from rules.compile import compile_rules
from stream.clock import LogClock, SystemIds, wall_ms
from stream.handlers import Handlers
from stream.log_memory import MemoryLog, MemoryReader
from stream.settings import Own
from stream.store_memory import MemoryStore

RULES = """
triggers:
  last: {on: {event: registered}, cancel_on: [{event: page_viewed}], steps: [{wait: PT1S}, {erase: self}]}
  credit:
    on: {event: order_completed, nth: 1}
    when: {trait: referrer, exists: true}
    steps: [{issue_coupon: {offer: friend, to: referrer}}]
  thanks: {on: {event: coupon_issued, where: {offer: friend}}, steps: [{emit: thanks}]}
"""


@pytest.mark.mechanic("M66", "M72")
async def test_an_erasure_and_a_friends_coupon_reach_whom_they_are_for_through_the_log() -> None:
    store, log = MemoryStore(LogClock()), MemoryLog(1)
    engine = Handlers(store, log, LogClock(), SystemIds(), compile_rules([("r", RULES)]), Own(), 1, relaxed=True)
    await engine.start()
    reader = MemoryReader(log, engine, wall_ms)
    await reader.assign([0])
    running = asyncio.create_task(reader.run())

    def tell(at_ms: int, topic: str, kind: str, address: str, **more: Any) -> None:
        event = Event(f"{kind}{at_ms}", "shop", kind, at_ms, at_ms, address, **more)
        log.append(Record(topic, address, encode_event(event)))

    def told(topic: str) -> list[dict[str, Any]]:
        return [orjson.loads(one.value) for one in log.read((topic, 0), 0, 99)]

    tell(1_000, CUSTOMER_EVENTS, "registered", "user:1")
    tell(1_100, CUSTOMER_EVENTS, "identified", "user:3", traits={"referrer": "2"})
    order = {"order_id": "o", "total_minor": 100, "currency": "USD", "items": [], "status": "paid"}
    tell(1_200, ORDER_EVENTS, "order_completed", "user:3", props=order)
    async with asyncio.timeout(120):
        now_ms = 10_000
        while not (told(ERASURES) and told(trigger_topic("thanks"))):
            if engine.progress().is_settled:
                tell(now_ms, PAGE_VIEWS, "page_viewed", "user:9")  # The log's clock goes on.
                now_ms += 1_000
            await asyncio.sleep(0.01)
    assert {one["by"] for one in told(ERASURES)} == {"trigger:last"}
    [coupon] = told(COUPONS)
    assert coupon["address"] == "user:2"
    assert "#" not in coupon["code"]
    [thanks] = told(trigger_topic("thanks"))
    assert thanks["profile"]["address"] == "user:2"
    await reader.stop()
    await running
    await engine.stop()
