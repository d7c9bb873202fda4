"""The public tracking SDKs, unmodified, against the collector on a real broker: nothing lost, nothing renamed.

What is repeated is for the worker to drop (R21): here each event is accepted, and a repeat bears the same id.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from rudderstack.analytics.client import Client as RudderClient
from segment.analytics.client import Client as SegmentClient

from connectors import metrics
from connectors.collector.server import Collector
from opportune import parts
from profiles.moments import parse_instant
from profiles.wire import Event
from tests.connectors.edge import SHOP_KEY, collecting, stored

SDKS: dict[str, Any] = {
    "segment": SegmentClient,
    "segment gzip": lambda key, **more: SegmentClient(key, gzip=True, **more),
    "rudder": RudderClient,
    "rudder plain": lambda key, **more: RudderClient(key, gzip=False, **more),
}
each_sdk = pytest.mark.parametrize("sdk", sorted(SDKS))


class Sending:
    """An SDK's client, in threads of its own, and what it told of failures."""

    def __init__(self, sdk: str, port: int) -> None:
        self.failures: list[object] = []
        self.client = SDKS[sdk](
            SHOP_KEY, host=f"http://127.0.0.1:{port}/", on_error=lambda error, batch: self.failures.append(error)
        )

    async def all_sent(self) -> None:
        """Returns when the SDK holds nothing any more; it must have been content."""
        await asyncio.to_thread(self.client.flush)
        await asyncio.to_thread(self.client.join)
        assert self.failures == []


async def events_of(bootstrap: str) -> dict[str, list[Event]]:
    """Message id -> the events stored under it."""
    found: dict[str, list[Event]] = {}
    for record in await stored(bootstrap):
        event = record.event()
        found.setdefault(event.message_id, []).append(event)
    return found


def told_to_come_again() -> float:
    """How many requests the collectors of this process have answered with 429 or 503."""
    samples = (sample for metric in metrics.REQUESTS.collect() for sample in metric.samples)
    return sum(one.value for one in samples if one.name.endswith("_total") and one.labels["status"] in ("429", "503"))


@each_sdk
async def test_every_call_of_the_sdk_is_one_event(fresh_broker: parts.Server, sdk: str) -> None:
    order = {"order_id": "o-1", "total": 49.90, "currency": "EUR", "products": [{"product_id": "p-1", "price": 49.90}]}
    async with collecting(fresh_broker.address) as collector:
        sending = Sending(sdk, collector.port)
        sending.client.identify("u-1", {"email": "Ana@shop.example", "plan": "gold"}, message_id="identify")
        sending.client.track("u-1", "Order Completed", order, message_id="order")
        old = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
        sending.client.track("u-1", "Order Completed", {**order, "order_id": "o-0"}, timestamp=old, message_id="old")
        sending.client.page("u-1", "Docs", "Start", {"url": "https://shop.example/start"}, message_id="page")
        sending.client.screen("u-1", "App", "Start", {}, message_id="screen")
        sending.client.group("u-1", "firm", {"email": "office@firm.example"}, message_id="group")
        sending.client.alias("an-0", "u-1", message_id="alias")
        sending.client.track(anonymous_id="an-1", event="Quiz Finished", properties={"score": 7}, message_id="quiz")
        await sending.all_sent()
        records = await stored(fresh_broker.address)
    letters = [record.letter() for record in records if record.topic == "dead_letters"]
    [letter] = letters
    assert (letter["reason"], letter["topic"]) == ("too_late", "order_events")
    events = {record.event().message_id: record.event() for record in records if record.topic != "dead_letters"}
    assert {name: event.type for name, event in events.items()} == {
        "identify": "identified",
        "order": "order_completed",
        "page": "page_viewed",
        "screen": "page_viewed",
        "group": "grouped",
        "alias": "identified",
        "quiz": "quiz_finished",
    }
    assert {event.address for name, event in events.items() if name != "quiz"} == {"user:u-1"}
    assert events["quiz"].address == "anon:an-1"
    assert events["alias"].identifiers == ("anon:an-0",)
    assert events["identify"].traits == {"email": "Ana@shop.example", "plan": "gold"}
    assert events["order"].props["total_minor"] == 4990
    assert events["page"].props["url"] == "https://shop.example/start"


@each_sdk
@pytest.mark.invariant("R1")
async def test_a_burst_is_stored_whole_and_once(fresh_broker: parts.Server, sdk: str) -> None:
    before = told_to_come_again()
    async with collecting(fresh_broker.address) as collector:
        sending = Sending(sdk, collector.port)
        for number in range(1000):
            sending.client.track(f"u-{number % 50}", "Product Viewed", {"product_id": number}, message_id=f"m-{number}")
        await sending.all_sent()
        events = await events_of(fresh_broker.address)
    assert sorted(events) == sorted(f"m-{number}" for number in range(1000))
    assert {len(same) for same in events.values()} == {1}
    # One thread sends one batch after the other: a user's events lie in the order of the calls. Not if the broker was slow and
    # the collector said when to come again: Segment's SDK then puts the batch behind the others.
    views = [one[0].props["items"][0]["product_id"] for one in events.values() if one[0].address == "user:u-7"]
    if told_to_come_again() == before:
        assert views == [str(number) for number in range(7, 1000, 50)]


@each_sdk
async def test_an_sdk_makes_its_own_message_id_and_time(fresh_broker: parts.Server, sdk: str) -> None:
    async with collecting(fresh_broker.address) as collector:
        sending = Sending(sdk, collector.port)
        sending.client.track("u-1", "Quiz", {})
        sending.client.track("u-1", "Quiz", {})
        await sending.all_sent()
        events = await events_of(fresh_broker.address)
    assert len(events) == 2
    for [event] in events.values():
        assert 0 <= event.received_ms - event.at_ms < 60_000
        assert event.at_ms > parse_instant("2025-01-01")


@asynccontextmanager
async def losing_the_first_answer(port: int) -> AsyncIterator[tuple[int, list[int]]]:
    """A relay before the collector: of the first connection it passes the request and keeps the answer."""
    answers_lost: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)

        async def forth() -> None:
            while part := await reader.read(65_536):
                behind_writer.write(part)
            behind_writer.close()

        async def back() -> None:
            while part := await behind_reader.read(65_536):
                if not answers_lost:
                    assert part.startswith(b"HTTP/1.1 200"), part
                    answers_lost.append(1)
                    break
                writer.write(part)
            writer.close()

        await asyncio.gather(forth(), back(), return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], answers_lost


@each_sdk
@pytest.mark.invariant("R21")
async def test_what_an_sdk_sends_again_bears_the_same_id(fresh_broker: parts.Server, sdk: str) -> None:
    async with collecting(fresh_broker.address) as collector, losing_the_first_answer(collector.port) as (port, lost):
        sending = Sending(sdk, port)
        sending.client.track("u-1", "Quiz", {"n": 1})
        await sending.all_sent()
        assert lost
        [twice] = (await events_of(fresh_broker.address)).values()
    assert len(twice) == 2
    assert {(event.source, event.message_id, event.type, event.address) for event in twice} == {
        ("shop", twice[0].message_id, "quiz", "user:u-1")
    }


async def told(collector: Collector, status: int) -> None:
    """Returns when the collector has answered a batch with that status."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}") as client, asyncio.timeout(180):
        line = f'opportune_collector_requests_total{{route="batch",status="{status}"}}'
        before = Counter[str]((await client.get("/metrics")).text.splitlines())
        while True:
            now = Counter[str]((await client.get("/metrics")).text.splitlines())
            if any(text.startswith(line) for text in now - before):
                return
            await asyncio.sleep(0.05)


@each_sdk
@pytest.mark.invariant("R27")
async def test_an_sdk_keeps_what_it_could_not_deliver_until_the_broker_is_back(
    fresh_broker: parts.Server, sdk: str
) -> None:
    async with collecting(fresh_broker.address, collector_publish_ms=1000) as collector:
        fresh_broker.pause()
        refused = asyncio.create_task(told(collector, 503))
        await asyncio.sleep(0)
        sending = Sending(sdk, collector.port)
        for number in range(200):
            sending.client.track("u-1", "Quiz", {"n": number}, message_id=f"m-{number}")
        await refused
        fresh_broker.resume()
        await sending.all_sent()
        events = await events_of(fresh_broker.address)
    assert sorted(events) == sorted(f"m-{number}" for number in range(200))
