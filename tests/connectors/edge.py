"""What tests of the collector share: a collector on a real broker, and everything that lies on its topics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from connectors.clock import SystemClock
from connectors.collector.server import Collector
from connectors.settings import Settings
from opportune.topics import create_topics, wanted_topics
from profiles.wire import DEAD_LETTERS, EVENT_TOPICS, Event, decode_event

WEB_KEY: Final = "wk_web"
SHOP_KEY: Final = "sk_shop"
WEB: Final = (WEB_KEY, "")
SHOP: Final = (SHOP_KEY, "")
KEYS: Final = json.dumps({WEB_KEY: {"source": "web", "kind": "public"}, SHOP_KEY: {"source": "shop", "kind": "secret"}})
SETTINGS: Final = Settings(secret="0123456789abcdef" * 2, write_keys=KEYS, collector_host="127.0.0.1", collector_port=0)


class Stored(NamedTuple):
    """One record as it lies on a topic."""

    topic: str
    partition: int
    key: str
    value: bytes

    def event(self) -> Event:
        """The event in it."""
        return decode_event(self.value)

    def letter(self) -> dict[str, Any]:
        """The dead letter in it."""
        letter: dict[str, Any] = json.loads(self.value)
        return letter


@asynccontextmanager
async def collecting(bootstrap: str, **settings: Any) -> AsyncIterator[Collector]:
    """A collector that serves on a free port; the topics are made if they are missing."""
    await create_topics(bootstrap, wanted_topics())
    collector = Collector(replace(SETTINGS, bootstrap=bootstrap, **settings), SystemClock())
    await collector.start()
    try:
        yield collector
    finally:
        await collector.stop()


async def stored(bootstrap: str, marked: str = "") -> list[Stored]:
    """All records on the event topics and the dead letters, in the order of each partition.

    Args:
        marked: only those whose value holds this text; tests share a broker.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50)
    await consumer.start()
    try:
        places = [
            TopicPartition(topic, number)
            for topic in (*EVENT_TOPICS, DEAD_LETTERS)
            for number in sorted(await consumer._client._wait_on_metadata(topic))
        ]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.seek_to_beginning(*places)
        found: list[Stored] = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for place, records in (await consumer.getmany(timeout_ms=100)).items():
                found += [Stored(place.topic, place.partition, record.key.decode(), record.value) for record in records]
        return [one for one in found if marked.encode() in one.value]
    finally:
        await consumer.stop()


async def raw(port: int, head: str, *, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request whose head was sent and whose body was not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    basic = httpx.BasicAuth(*WEB)._auth_header
    writer.write(f"{head} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic}\r\nContent-Length: {length}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def under_way(client: httpx.AsyncClient, count: int) -> None:
    """Returns when so many requests are under way."""
    async with asyncio.timeout(120):
        while f"opportune_collector_requests_under_way {count}.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)


async def answer_of(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(120):
        return (await reader.readuntil(b"\r\n")).decode()
