"""What is accepted is seen: one event through the real parts, and the profile, its segments and their sizes show it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connectors.clock import SystemClock
from profiles.wire import SEGMENT_CHANGES
from tests.conftest import Installation
from tests.integration.parts import SHOP_KEY, Shop, collecting, opened, reading, until, working

ORDER = {
    "order_id": "o-1",
    "currency": "USD",
    "total": 360,
    "products": [{"product_id": "drill", "price": 90, "quantity": 4}],
}


@pytest.fixture
def shop(installation: Installation) -> Shop:
    return asyncio.run(opened(installation))


async def test_an_accepted_event_is_seen_in_the_profile_the_segments_and_their_sizes(shop: Shop) -> None:
    async with working(shop), collecting(shop, SystemClock()) as edge, reading(shop) as topics:
        for number in range(4):
            await edge.accepted(
                "track",
                key=SHOP_KEY,
                event="Order Completed",
                userId="ana",
                messageId=f"m-{number}",
                properties={**ORDER, "order_id": f"o-{number}"},
            )

        async def seen() -> Any:
            profile = await topics.profile("user:ana")
            return profile is not None and len(profile.orders) == 4 and profile

        ana = await until(seen, what="four orders in the profile")
        readers = shop.rules.readers
        assert readers["orders_paid"].read(ana, ana.seen_ms)[0] == 4
        assert readers["revenue"].read(ana, ana.seen_ms)[0] == 144_000
        names = [segment.name for segment in shop.rules.segments]
        holds = {segment.name for segment in shop.rules.segments if segment.id in ana.members}
        assert {"buyers", "repeat_buyers", "vip", "big_check"} <= holds
        assert await topics.store.segment_sizes(names) == {name: int(name in holds) for name in names}
        for name in names:
            assert await topics.store.members(name, "", 10) == (["user:ana"] if name in holds else [], "")

        # What the changes tell, followed from the beginning, is what holds.
        await topics.settled()
        told: dict[str, str] = {}
        for change in topics.json(SEGMENT_CHANGES):
            assert change["address"] == "user:ana"
            told[change["segment"]] = change["change"]
        assert {name for name, change in told.items() if change == "entered"} == holds


async def test_a_worker_stopped_and_started_goes_on_where_it_was(shop: Shop) -> None:
    async with collecting(shop, SystemClock()) as edge, reading(shop) as topics:
        for number in range(3):
            await edge.accepted(
                "track",
                key=SHOP_KEY,
                event="Order Completed",
                userId="ana",
                messageId=f"m-{number}",
                properties={**ORDER, "order_id": f"o-{number}"},
            )
            async with working(shop):
                await topics.settled()
            ana = await topics.profile("user:ana")
            assert ana is not None
            assert sorted(ana.orders) == [f"o-{seen}" for seen in range(number + 1)]
