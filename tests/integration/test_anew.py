"""Topics that were deleted and made again under their old names, and have grown beyond our cursors: a worker that read on
there would pass by what they hold (R10)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

import stream.worker
from opportune.anew import begun_anew
from opportune.topics import create_topics, wanted_topics
from profiles.errors import Refused
from profiles.ids import SHARDS
from profiles.taxonomy import canonical, resolve
from profiles.wire import CART_EVENTS, Event, Record
from stream.app import Fault
from stream.clock import wall_ms
from stream.settings import read
from stream.topic_ids import topic_ids
from stream.worker import LiveWorker
from tests.conftest import Installation
from tests.integration.parts import Shop, append, as_record, opened, producing, reading, working

RULES = """
traits:
  cart_adds: {count: product_added}
segments:
  fillers: {trait: cart_adds, gte: 1}
"""
PEOPLE = 40


@pytest.fixture
def shop(installation: Installation, tmp_path: Path) -> Shop:
    (tmp_path / "rules.yaml").write_text(RULES)
    return asyncio.run(opened(installation, rules=str(tmp_path)))


def fills(address: str, product: str) -> Record:
    kind, now_ms = resolve("Product Added"), wall_ms()
    props = canonical(kind, {"currency": "USD", "price": 5, "product_id": product, "quantity": 1})
    return as_record(Event(f"{address}-{product}", "web", kind.name, now_ms, now_ms, address, (), props, {}))


def signs_in(number: int) -> Record:
    kind, now_ms = resolve("Identify"), wall_ms()
    event = Event(f"i-{number}", "web", kind.name, now_ms, now_ms, f"user:u-{number}", (f"anon:a-{number}",), {}, {})
    return as_record(event)


def told(*products: str) -> list[Record]:
    """Each browser puts these into its cart."""
    return [fills(f"anon:a-{who}", product) for who in range(PEOPLE) for product in products]


async def made_anew(shop: Shop, *topics: str) -> None:
    """Deleted, and made again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=shop.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(list(topics))
        async with asyncio.timeout(60):
            while set(await admin.list_topics()) & set(topics):
                await asyncio.sleep(0.05)
    finally:
        await admin.close()
    await create_topics(shop.bootstrap, wanted_topics(shop.rules.triggers))


@pytest.mark.invariant("R10")
async def test_a_topic_made_anew_that_has_outgrown_the_cursor_is_refused_and_read_from_its_beginning_when_told_so(
    shop: Shop,
) -> None:
    settings = read(shop.env)
    async with reading(shop) as topics, producing(shop) as producer:
        await append(shop, producer, [*told("drill"), *map(signs_in, range(PEOPLE))])
        async with working(shop):
            await topics.settled()
            await append(shop, producer, told("saw"))  # Passed on: owners have taken what this topic caused.
            await topics.settled()
            with pytest.raises(Refused, match="some that were made anew wanted"):
                await begun_anew(settings, still_s=0.1)
        before = await topic_ids(settings.own)
    await made_anew(shop, CART_EVENTS)
    after = await topic_ids(settings.own)
    assert [topic for topic in before if before[topic] != after[topic]] == [CART_EVENTS]
    async with reading(shop) as topics, producing(shop) as producer:
        await append(shop, producer, told("nails", "glue", "rope"))
        await topics.read()
        left = topics.left(await topics.store.read_shards(range(SHARDS)))
        assert min(count for (topic, _), count in left.items() if topic == CART_EVENTS) > 0, "an end tells of it"
        refused = LiveWorker(settings)
        with pytest.raises(Refused, match=r"topics: .* but cart_events were made anew"):
            await refused.start()
        await refused.stop()
        assert (await begun_anew(settings, still_s=0.1)).topics == [CART_EVENTS]
        async with working(shop):
            await topics.settled()
            for who in range(PEOPLE):
                browser, user = await topics.profile(f"anon:a-{who}"), await topics.profile(f"user:u-{who}")
                assert browser is not None
                assert user is not None
                assert browser.forward == f"user:u-{who}"
                # What browsers did by the new topic was passed on, though its places come again.
                pieces = {name for cart in user.carts.values() for name in cart.items}
                assert pieces == {"drill", "saw", "nails", "glue", "rope"}


@pytest.mark.invariant("R10")
async def test_a_worker_that_runs_ends_when_a_topic_is_made_anew(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.worker, "TOPICS_S", 0.2)
    async with working(shop) as worker:
        await made_anew(shop, CART_EVENTS)
        with pytest.raises(Fault, match=r"Refused: .*cart_events"):
            await asyncio.wait_for(worker.wait(), 60)
