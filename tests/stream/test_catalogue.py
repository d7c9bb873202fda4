"""The catalogue in workers: written with their shards, read by all, the same after any change of owner."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

import orjson
import pytest

from profiles.catalogue import PRODUCT, Product, decode_product, encode_product
from profiles.ids import SHARDS, shard_of
from profiles.state import Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import (
    CART_EVENTS,
    CATALOG_EVENTS,
    DEAD_LETTERS,
    INPUT_TOPICS,
    ORDER_EVENTS,
    Event,
    Record,
    decode_event,
    encode_event,
)
from rules.compile import compile_rules
from rules.outcome import Step
from stream.clock import LogClock, SystemIds, wall_ms
from stream.handlers import Handlers
from stream.log_memory import MemoryLog, MemoryReader
from stream.ports import ShardWrite
from stream.rebuild import Found, Silent, write
from stream.replay import replayed
from stream.settings import Own
from stream.shelf import Shelf
from stream.store import RedisStore
from stream.store_memory import MemoryStore

RULES = """
triggers:
  goes_with: {class: transactional, on: {event: order_completed}, steps: [{emit: {template: t, payload: {co_purchased: 3}}}]}
"""


def product(product_id: str, at_ms: int, key: str = "", **said: Any) -> Record:
    props = canonical(resolve("product_updated"), {"product_id": product_id, **said})
    event = Event(f"p{at_ms}", "shop", "product_updated", at_ms, at_ms, PRODUCT + product_id, props=props, trusted=True)
    return Record(CATALOG_EVENTS, key or event.address, encode_event(event))


def order(user: str, at_ms: int, product_id: str) -> Record:
    said = {"order_id": f"o{at_ms}", "currency": "USD", "total": 9, "items": [{"product_id": product_id}]}
    event = Event(f"o{at_ms}", "shop", "order_completed", at_ms, at_ms, f"user:{user}")
    event.props = canonical(resolve("order_completed"), said)
    return Record(ORDER_EVENTS, event.address, encode_event(event))


@asynccontextmanager
async def worker(
    store: MemoryStore, log: MemoryLog, clock: LogClock, partitions: list[int], products: int = 100, rules: str = RULES
) -> AsyncIterator[Handlers]:
    own = Own(catalogue_products=products)
    engine = Handlers(
        store, log, clock, SystemIds(), compile_rules([("rules", rules)]), own, log.partitions, relaxed=True
    )
    await engine.start()
    reader = MemoryReader(log, engine, wall_ms)
    await reader.assign(partitions)
    running = asyncio.create_task(reader.run())
    try:
        yield engine
    finally:
        await reader.stop()
        await running
        await engine.stop()


async def applied(engine: Handlers, topic: str, count: int) -> None:
    async with asyncio.timeout(120):
        while not (engine.progress().is_settled and engine.progress().applied[topic] >= count):
            await asyncio.sleep(0.01)


def records(log: MemoryLog, topic: str) -> list[dict[str, Any]]:
    found = [one for partition in range(log.partitions) for one in log.read((topic, partition), 0, 99)]
    return [orjson.loads(one.value) for one in found]


@pytest.mark.mechanic("M88")
async def test_what_the_shop_says_is_in_the_next_letter_and_kept_with_its_shard() -> None:
    store, log, clock = MemoryStore(LogClock()), MemoryLog(1), LogClock()
    for record in (
        product("drill", 1, accompanying=["bits"]),
        product("bits", 2, price="8.50"),
        order("ana", 3, "drill"),
    ):
        log.append(record)
    async with worker(store, log, clock, [0]) as engine:
        await applied(engine, ORDER_EVENTS, 1)
        (sent,) = records(log, "triggers.goes_with")
        assert [(one["product_id"], one["price"]) for one in sent["payload"]["co_purchased"]] == [("bits", "8.50")]
        assert set((await store.products([shard_of(PRODUCT + "bits")]))[0]) >= {"bits"}
    async with worker(store, log, clock, [0]) as successor:
        log.append(product("bits", 4, price="7.50"))
        log.append(order("bob", 5, "drill"))
        await applied(successor, ORDER_EVENTS, 2)
        assert records(log, "triggers.goes_with")[1]["payload"]["co_purchased"][0]["price"] == "7.50"
        log.append(product("bits", 6, discontinued=True))
        log.append(order("eve", 7, "drill"))
        await applied(successor, ORDER_EVENTS, 3)
    assert [one["reason"] for one in records(log, "decisions")] == [None, None, "no_items"]
    assert "bits" not in (await store.products([shard_of(PRODUCT + "bits")]))[0]


async def test_what_another_worker_was_told_is_known_to_all_of_them() -> None:
    store, log, clock = MemoryStore(LogClock()), MemoryLog(2), LogClock()
    names = {shard_of(f"{PRODUCT}p{number}") % 2: f"p{number}" for number in range(20)}
    async with worker(store, log, clock, [0]) as one, worker(store, log, clock, [1]) as other:
        log.append(product(names[0], 1))
        log.append(product(names[1], 2))
        async with asyncio.timeout(120):
            while any(len(engine._owned.shelf.goods.products) < 2 for engine in (one, other)):
                await asyncio.sleep(0.01)
        log.append(product(names[0], 3, discontinued=True))
        async with asyncio.timeout(120):
            while any(len(engine._owned.shelf.goods.products) > 1 for engine in (one, other)):
                await asyncio.sleep(0.01)


@pytest.mark.invariant("R9")
@pytest.mark.invariant("R26")
async def test_what_cannot_be_taken_is_set_aside_and_a_misplaced_product_finds_its_shard() -> None:
    store, log, clock = MemoryStore(LogClock()), MemoryLog(2), LogClock()
    name = next(f"p{number}" for number in range(20) if shard_of(f"{PRODUCT}p{number}") % 2)
    elsewhere = next(f"k{number}" for number in range(20) if not shard_of(f"k{number}") % 2)
    wrong = Event("w", "shop", "page_viewed", 2, 2, PRODUCT + name)
    log.append(product(name, 1, key=elsewhere))
    async with worker(store, log, clock, [0, 1], products=1) as engine:
        async with asyncio.timeout(120):
            while name not in engine._owned.shelf.goods.products:
                await asyncio.sleep(0.01)
        log.append(Record(CATALOG_EVENTS, wrong.address, encode_event(wrong)))
        log.append(product("more", 3))
        odd = Event("o", "shop", "product_updated", 4, 4, PRODUCT + name, props={"product_id": name, "price_e6": "9"})
        log.append(Record(CATALOG_EVENTS, odd.address, encode_event(odd)))
        async with asyncio.timeout(120):
            while len(records(log, DEAD_LETTERS)) < 3:
                await asyncio.sleep(0.01)
    reasons = sorted(one["reason"] for one in records(log, DEAD_LETTERS))
    assert reasons == ["catalogue_full", "invalid_payload", "malformed"]


NEWS_RULES = """
triggers:
  cheaper:
    class: transactional
    on: {event: price_dropped, join: {profiles: {any: [{wishlist: $product}]}}}
    key: product_id
    steps: [{emit: {template: t, payload: {product: $product, news: $news}}}]
"""


def wish(user: str, at_ms: int, product_id: str) -> Record:
    props = canonical(resolve("product_added_to_wishlist"), {"product_id": product_id})
    event = Event(f"w{user}{at_ms}", "shop", "product_added_to_wishlist", at_ms, at_ms, f"user:{user}", props=props)
    return Record(CART_EVENTS, event.address, encode_event(event))


def decided(value: bytes) -> dict[str, Any]:
    """A trigger record without what the catalogue decorates it with: that is of the moment at which it was made."""
    record: dict[str, Any] = orjson.loads(value)
    del record["payload"]["product"]
    return record


@pytest.mark.mechanic("M74")
@pytest.mark.invariant("R2")
async def test_news_reach_everybody_whom_they_interest_once_and_a_replay_says_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So few at a time that the rest of a shard's, and of a partition's, follows in the log.
    monkeypatch.setattr("stream.loading.NEWS_PAGE", 2)
    store, log, clock = MemoryStore(LogClock()), MemoryLog(2), LogClock()
    people = [f"u{number}" for number in range(60)]
    given = [product("mug", 1, price=10), product("pen", 1, price=10)]
    given += [wish(user, 2 + number, "mug" if number % 3 else "pen") for number, user in enumerate(people)]
    given += [
        product("mug", 100, price=8),
        product("mug", 101, price=7),
        wish("u0", 102, "mug"),
        product("pen", 103, price=9),
    ]
    for record in given:
        log.append(record)
    async with worker(store, log, clock, [0, 1], rules=NEWS_RULES) as engine:
        async with asyncio.timeout(120):
            while len(records(log, "triggers.cheaper")) < 100 or not engine.progress().is_settled:
                await asyncio.sleep(0.01)
        mugs = {f"user:{user}" for number, user in enumerate(people) if number % 3}
        told = records(log, "triggers.cheaper")
        assert Counter((one["profile"]["address"], one["payload"]["news"]["new"]) for one in told) == Counter(
            [(one, price) for one in mugs for price in ("8.00", "7.00")]
            + [(f"user:{user}", "9.00") for number, user in enumerate(people) if not number % 3]
        )
    live = [decided(orjson.dumps(one)) for one in told]

    class Heard:
        def __init__(self) -> None:
            self.found: list[dict[str, Any]] = []

        def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
            for record in out.records:
                if record.topic == "triggers.cheaper":
                    self.found.append(decided(record.value))

    events = [decode_event(one.value) for one in given]
    outcome = replayed(lambda: events, compile_rules([("rules", NEWS_RULES)]), None, Heard)
    by_id = itemgetter("trigger_id")
    assert sorted(outcome.heard.found, key=by_id) == sorted(live, key=by_id)


@pytest.mark.mechanic("M74")
async def test_a_successor_finds_the_index_and_tells_news_that_lay_unread() -> None:
    store, log, clock = MemoryStore(LogClock()), MemoryLog(1), LogClock()
    log.append(product("mug", 1, price=10))
    log.append(wish("ana", 2, "mug"))
    async with worker(store, log, clock, [0], rules=NEWS_RULES) as engine:
        await applied(engine, CART_EVENTS, 1)
    log.append(product("mug", 3, price=8))
    async with worker(store, log, clock, [0], rules=NEWS_RULES):
        async with asyncio.timeout(120):
            while not records(log, "triggers.cheaper"):
                await asyncio.sleep(0.01)
    assert await store.interested(shard_of("user:ana"), "mug") == ["user:ana"]


async def test_a_process_that_writes_no_products_follows_the_store(fresh_redis: str) -> None:
    store = RedisStore(fresh_redis)
    shelf = Shelf(100)
    following = asyncio.create_task(shelf.follow(store))
    mug = encode_product(Product("mug", {"name": "Mug"}, 1))
    cursor = dict.fromkeys(INPUT_TOPICS, 0)
    writer = RedisStore(fresh_redis)
    await writer.commit([ShardWrite(7, b"", b"token000", cursor, 1, products={"mug": mug})])
    async with asyncio.timeout(120):
        while "mug" not in shelf.goods.products:
            await asyncio.sleep(0.01)
    await writer.commit([ShardWrite(7, b"token000", b"token001", cursor, 1, products={"mug": None})])
    async with asyncio.timeout(120):
        while shelf.goods.products:
            await asyncio.sleep(0.01)
    await writer.close()
    following.cancel()
    await asyncio.wait([following])


async def test_a_store_made_anew_from_the_log_holds_the_goods_and_whom_they_interest() -> None:
    given = [
        product("mug", 1, price=10),
        product("pen", 2),
        wish("ana", 3, "mug"),
        product("pen", 4, discontinued=True),
    ]
    rules = compile_rules([("rules", NEWS_RULES)])
    events = [decode_event(one.value) for one in given]
    result = replayed(lambda: events, rules, None, Silent)
    cursors = {(topic, 0): 9 for topic in INPUT_TOPICS}
    store = MemoryStore(LogClock())
    await write(store, Found(result, 5, cursors, {}, 0, [], []), rules, b"secret", SystemIds())
    kept = {name: blob for one in await store.products(range(SHARDS)) for name, blob in one.items()}
    assert {name: decode_product(name, blob).price_e6 for name, blob in kept.items()} == {"mug": 10_000_000}
    assert await store.interested(shard_of("user:ana"), "mug") == ["user:ana"]
    assert await store.interested(shard_of("user:ana"), "pen") == []
