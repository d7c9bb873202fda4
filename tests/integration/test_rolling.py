"""Workers are stopped and started again one after the other while a shop goes on: nothing is lost, nothing is
told twice with other words, and how long a customer waited is told.

Run with ``-s`` to read the figures. ``OPPORTUNE_TEST_LOAD=0.5`` is the real size: half of what the workers bear.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from profiles.codec import decode
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event, trigger_topic
from stream.clock import monotonic_ms, wall_ms
from tests.conftest import Installation
from tests.integration.parts import Shop, WorkerProcess, append, as_record, opened, processes, producing, reading, until

RULES: Final = """
segments:
  buyers: {did: order_completed, window: {within: P30D}}
triggers:
  bought: {on: {event: order_completed}, steps: [{emit: thanks}]}
"""
WORKERS: Final = 3
SHOPPERS: Final = 2_000
"""A profile keeps its newest 200 orders; nobody may have more, or they could not be counted."""
BURST: Final = 2_000
LOAD: Final = float(os.environ.get("OPPORTUNE_TEST_LOAD", "0.1"))
"""Of what the workers bear."""
STAGE_S: Final = 2
"""How long the shop goes on between one worker's return and the next one's end."""
PAUSE_MS_MAX: Final = 60_000
"""How long a worker may take to let go, and the group to share anew: the default of OPPORTUNE_REBALANCE_MS."""


class Told:
    """Orders as they are told, and when the thanks for each came out at the other end."""

    def __init__(self, shop: Shop, producer: AIOKafkaProducer) -> None:
        self._shop = shop
        self._producer = producer
        self.told_ms: dict[str, int] = {}
        self.thanked_ms: dict[str, int] = {}
        self.thanks: dict[str, set[bytes]] = {}

    async def tell(self, count: int) -> None:
        """Publish so many orders; returns when the broker has them."""
        first, now_ms = len(self.told_ms), wall_ms()
        events = [_order(number, now_ms) for number in range(first, first + count)]
        since_ms = monotonic_ms()
        for event in events:
            self.told_ms[event.message_id] = since_ms
        await append(self._shop, self._producer, [as_record(event) for event in events])

    async def read(self, consumer: AIOKafkaConsumer) -> None:
        """Note thanks as they come, for ever."""
        while True:
            for records in (await consumer.getmany(timeout_ms=20)).values():
                for record in records:
                    value = orjson.loads(record.value)
                    message = value["cause"]["message_id"]
                    self.thanked_ms.setdefault(message, monotonic_ms())
                    self.thanks.setdefault(value["trigger_id"], set()).add(record.value)

    async def all_thanked(self) -> bool:
        """Whether everybody has been thanked for everything."""
        return len(self.thanked_ms) == len(self.told_ms)

    def waits_ms(self, first: int) -> list[int]:
        """How long the orders from this one on waited for thanks, ascending."""
        return sorted(self.thanked_ms[one] - self.told_ms[one] for one in list(self.told_ms)[first:])


def _order(number: int, now_ms: int) -> Event:
    item = {"product_id": "p-1", "price": 5, "quantity": 1, "currency": "USD"}
    props = {"order_id": f"o-{number}", "total": 5, "currency": "USD", "products": [item]}
    return Event(
        f"m-{number}",
        "shop",
        "order_completed",
        now_ms,
        now_ms,
        f"user:u-{number % SHOPPERS}",
        (),
        canonical(resolve("Order Completed"), props),
    )


@asynccontextmanager
async def telling(shop: Shop) -> AsyncIterator[Told]:
    """Both ends of the engine."""
    consumer = AIOKafkaConsumer(bootstrap_servers=shop.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20)
    async with producing(shop) as producer:
        await consumer.start()
        told = Told(shop, producer)
        reading_on = asyncio.ensure_future(told.read(consumer))
        try:
            topic = trigger_topic("bought")
            consumer.assign([TopicPartition(topic, one) for one in range(shop.installation.partitions)])
            yield told
        finally:
            reading_on.cancel()
            await asyncio.wait([reading_on])
            await consumer.stop()


async def rolled(told: Told, workers: list[WorkerProcess], rate: float) -> None:
    """Restart one after the other under a steady load, which goes on a while after the last."""
    rolling = asyncio.ensure_future(_roll(workers))
    since_ms, sent = monotonic_ms(), 0
    while not rolling.done():
        due = int(rate * (monotonic_ms() - since_ms) / 1_000)
        if due > sent:
            await told.tell(due - sent)
            sent = due
        await asyncio.wait([rolling], timeout=0.02)
    await rolling


async def _roll(workers: list[WorkerProcess]) -> None:
    for worker in workers:
        await asyncio.sleep(STAGE_S)
        worker.terminate()
        assert await worker.ended() == 0, worker.words()[-2_000:]
        worker.start()
        await worker.ready()
    await asyncio.sleep(STAGE_S)


@pytest.mark.slow
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R13")
async def test_three_workers_are_restarted_under_load_and_nothing_is_lost(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "bought.yaml").write_text(RULES)
    shop = await opened(installation, rules=str(tmp_path / "rules"))
    async with (
        telling(shop) as told,
        processes(shop, tmp_path / "workers", WORKERS) as workers,
        reading(shop) as topics,
    ):
        for worker in workers:
            await worker.ready()
        await told.tell(SHOPPERS)  # Everybody is known, caches are warm, partitions are shared out.
        await until(told.all_thanked, what="the first thanks")

        since_ms = monotonic_ms()
        await told.tell(BURST)
        await until(told.all_thanked, what="thanks for a burst")
        rate = LOAD * BURST / max(1, monotonic_ms() - since_ms) * 1_000

        first = len(told.told_ms)
        await rolled(told, workers, rate)
        await until(told.all_thanked, what="thanks for every order")
        await topics.settled(workers=workers)

        addresses = [f"user:u-{number}" for number in range(SHOPPERS)]
        blobs = await topics.store.load(addresses)
        orders = sum(len(decode(address, blob or b"").orders) for address, blob in zip(addresses, blobs, strict=True))
        assert orders == len(told.told_ms)
        assert len(told.thanks) == len(told.told_ms)
        assert all(len(words) == 1 for words in told.thanks.values())
        waits_ms = told.waits_ms(first)
        print(  # noqa: T201 - with -s
            f"\nrolling restart of {WORKERS} workers at {rate:,.0f} orders/s, {LOAD:.0%} of what they bore: {len(waits_ms):,} orders, "
            f"lost 0, median wait {waits_ms[len(waits_ms) // 2]} ms, longest pause {waits_ms[-1] / 1_000:.1f} s"
        )
        assert waits_ms[-1] < PAUSE_MS_MAX
