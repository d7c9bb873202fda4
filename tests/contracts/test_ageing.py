"""What is erased ages out of the log: Apache Kafka, with the topics as they are made and all times shortened alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from opportune import parts
from opportune.topics import RETENTION, SEGMENT, create_topics, wanted_topics
from profiles.wire import DEAD_LETTERS, DECISIONS, PAGE_VIEWS
from stream.clock import monotonic_ms
from tests.integration.parts import until

KEPT_MS = 6_000
SEGMENT_MS = 2_000
ROUNDS_MS = 4_000
"""The broker looks every half second and deletes after another; the rest is a busy machine's."""


@pytest.mark.kafka
@pytest.mark.mechanic("D10")
@pytest.mark.invariant("R24")
async def test_a_record_is_forgotten_in_time_under_traffic_that_never_rests(fresh_broker: parts.Server) -> None:
    names = {PAGE_VIEWS, DECISIONS, DEAD_LETTERS}
    short = {RETENTION: str(KEPT_MS), SEGMENT: str(SEGMENT_MS)}
    ageing = [replace(one, settings={**one.settings, **short}) for one in wanted_topics() if one.name in names]
    # One as it would be without our setting, whose segments last as long as the broker likes: a week.
    by_itself = {name: value for name, value in ageing[0].settings.items() if name != SEGMENT}
    await create_topics(fresh_broker.address, [*ageing, replace(ageing[0], name="by_itself", settings=by_itself)])
    topics = (*sorted(names), "by_itself")
    producer = AIOKafkaProducer(bootstrap_servers=fresh_broker.address, acks="all")
    consumer = AIOKafkaConsumer(bootstrap_servers=fresh_broker.address)
    await producer.start()
    await consumer.start()
    try:
        places = {topic: TopicPartition(topic, 0) for topic in topics}
        first = await asyncio.gather(
            *(producer.send_and_wait(topic, b"of the erased", partition=0) for topic in topics)
        )
        told_ms = monotonic_ms()
        assert {one.offset for one in first} == {0}

        async def all_forgotten() -> bool:
            await asyncio.gather(*(producer.send_and_wait(topic, b"of others", partition=0) for topic in topics))
            begins = await consumer.beginning_offsets([places[topic] for topic in names])
            return bool(min(begins.values()) > 0)

        await until(all_forgotten, what="topics that have forgotten their first record", within_s=60)
        took_ms = monotonic_ms() - told_ms
        assert KEPT_MS <= took_ms <= KEPT_MS + SEGMENT_MS + ROUNDS_MS
        begins = await consumer.beginning_offsets([places["by_itself"]])
        assert begins[places["by_itself"]] == 0, "without the setting it lies there still"
    finally:
        await consumer.stop()
        await producer.stop()
