"""What the pinned client does on the broker and the store under test: written, read by a group, killed, restarted."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis.asyncio import Redis

from opportune import parts
from opportune.topics import create_topics, wanted_topics
from profiles.wire import CART_EVENTS
from tests.conftest import Installation


async def written(bootstrap: str, topic: str, partition: int, values: list[bytes]) -> list[int]:
    """Write values with acks=all; the offsets they got."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        sent = [await producer.send(topic, value, key=b"user:1", partition=partition) for value in values]
        return [(await each).offset for each in sent]
    finally:
        await producer.stop()


async def read_by(group: str, bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Read ``count`` values as a member of a group, commit, leave."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=2_000,  # the embedded broker takes half of it to form a group
        heartbeat_interval_ms=500,
    )
    await consumer.start()
    try:
        values = [(await consumer.getone()).value for _ in range(count)]
        await consumer.commit()
        return values
    finally:
        await consumer.stop()


async def test_a_group_reads_what_was_written_and_goes_on_where_it_committed(installation: Installation) -> None:
    assert await written(installation.bootstrap, CART_EVENTS, 3, [b"a", b"b", b"c"]) == [0, 1, 2]
    assert await read_by("readers", installation.bootstrap, CART_EVENTS, 2) == [b"a", b"b"]
    assert await read_by("readers", installation.bootstrap, CART_EVENTS, 1) == [b"c"]
    assert await read_by("others", installation.bootstrap, CART_EVENTS, 3) == [b"a", b"b", b"c"]


async def test_partitions_are_read_without_a_group_from_any_offset(installation: Installation) -> None:
    await written(installation.bootstrap, CART_EVENTS, 5, [b"a", b"b", b"c"])
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        place = TopicPartition(CART_EVENTS, 5)
        consumer.assign([place])
        consumer.seek(place, 1)
        assert [(await consumer.getone()).value for _ in range(2)] == [b"b", b"c"]
        # Not end_offsets: the embedded broker tells it wrong after a batch of several; what a fetch tells is right.
        assert consumer.highwater(place) == 3
    finally:
        await consumer.stop()


@pytest.mark.kafka
async def test_a_killed_broker_has_what_it_acknowledged(fresh_broker: parts.Server) -> None:
    await create_topics(fresh_broker.address, wanted_topics())
    await written(fresh_broker.address, CART_EVENTS, 0, [b"a", b"b"])
    fresh_broker.kill()
    await fresh_broker.start()
    assert await written(fresh_broker.address, CART_EVENTS, 0, [b"c"]) == [2]


async def test_a_frozen_broker_answers_again_when_it_is_let_go(installation: Installation) -> None:
    installation.broker.pause()
    writing = asyncio.create_task(written(installation.bootstrap, CART_EVENTS, 0, [b"a"]))
    answered, _ = await asyncio.wait([writing], timeout=0.2)
    assert not answered
    installation.broker.resume()
    assert await writing == [0]


async def test_a_restarted_store_has_its_keys_and_still_never_evicts(fresh_store: parts.Server) -> None:
    async with Redis.from_url(parts.redis_url(fresh_store)) as client:
        await client.set("kept", b"1")
    await fresh_store.stop()
    await fresh_store.start()
    async with Redis.from_url(parts.redis_url(fresh_store)) as client:
        assert await client.get("kept") == b"1"
        assert await client.config_get("maxmemory-policy", "appendonly") == {
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
        }


async def test_scripts_in_the_store_read_msgpack_and_json(fresh_redis: str) -> None:
    async with Redis.from_url(fresh_redis) as client:
        script = "return cjson.encode(cmsgpack.unpack(ARGV[1]))"
        assert await client.eval(script, 0, b"\x93\x01\x02\x03") == b"[1,2,3]"


async def test_a_fresh_store_is_empty(fresh_redis: str) -> None:
    async with Redis.from_url(fresh_redis) as client:
        assert await client.dbsize() == 0
