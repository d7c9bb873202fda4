"""The window of decisions: what it keeps, and that it is filled from a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from console.decisions import DecisionReader, DecisionWindow
from opportune import parts
from opportune.topics import PARTITIONS, create_topics, found_topics, wanted_topics
from profiles.moments import iso
from profiles.wire import DECISIONS
from tests.conftest import Installation


def decision(number: int, reason: str | None = None, trigger: str = "welcome") -> bytes:
    return orjson.dumps(
        {
            "decision_id": f"d{number}",
            "trigger": trigger,
            "step": "1",
            "outcome": "emitted" if reason is None else "suppressed",
            "reason": reason,
            "detail": {},
            "address": f"user:{number % 3}",
            "at": iso(number),
        }
    )


def ids(window: DecisionWindow) -> list[str]:
    return [one["decision_id"] for one in window.find(limit=1_000)]


def test_the_newest_by_logical_time_are_kept_however_they_arrive() -> None:
    numbers = [number * 7 % 50 for number in range(50)]
    window = DecisionWindow(20)
    for number in numbers:
        window.take(decision(number))
    assert ids(window) == [f"d{number}" for number in range(49, 29, -1)]
    assert (len(window), window.since()) == (20, iso(30))
    assert window.counts() == {"welcome": {"emitted": 20}}


def test_a_decision_published_twice_stands_once() -> None:
    window = DecisionWindow(20)
    for number in (1, 2, 1, 1):
        window.take(decision(number, "no_consent"))
    assert window.counts() == {"welcome": {"no_consent": 2}}


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b"{}", b"7", b'{"at": 1, "trigger": "a", "reason": null}'])
def test_what_is_no_decision_is_left_out(value: bytes) -> None:
    window = DecisionWindow(20)
    window.take(value)
    assert len(window) == 0


def test_counts_forget_what_the_window_forgets() -> None:
    window = DecisionWindow(1)
    window.take(decision(1, "cancelled"))
    window.take(decision(2, trigger="cart"))
    assert window.counts() == {"cart": {"emitted": 1}}


async def published(bootstrap: str, values: list[bytes], partition: int | None = None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for number, value in enumerate(values):
            await producer.send_and_wait(DECISIONS, value, key=b"user:1", partition=partition or number % 8)
    finally:
        await producer.stop()


async def until(what: str, window: DecisionWindow, count: int) -> None:
    async with asyncio.timeout(120):
        while len(window) < count:
            await asyncio.sleep(0.02)
    assert len(window) == count, what


async def test_decisions_of_a_broker_are_read_from_before_and_from_now_on(installation: Installation) -> None:
    await published(installation.bootstrap, [decision(number) for number in range(16)])
    window = DecisionWindow(1_000)
    reader = DecisionReader(window, {"bootstrap_servers": installation.bootstrap})
    reader.start()
    try:
        await until("those from before", window, 16)
        assert reader.reading
        await published(installation.bootstrap, [decision(99, "no_consent")])
        await until("those from now on", window, 17)
        assert ids(window)[0] == "d99"
    finally:
        await reader.stop()


async def test_a_long_topic_is_read_from_its_end_minus_the_window(installation: Installation) -> None:
    # Several fetches' worth, in one partition: what lies before the last ten need not be read, the last ten must.
    await published(installation.bootstrap, [decision(number) for number in range(300)], partition=3)
    window = DecisionWindow(10)
    reader = DecisionReader(window, {"bootstrap_servers": installation.bootstrap})
    reader.start()
    try:
        async with asyncio.timeout(120):
            while ids(window) != [f"d{number}" for number in range(299, 289, -1)]:
                await asyncio.sleep(0.02)
    finally:
        await reader.stop()


async def test_a_broker_that_comes_late_is_read_when_it_comes(tmp_path: Path) -> None:
    broker = parts.broker(tmp_path, port=parts.free_port())
    window = DecisionWindow(10)
    reader = DecisionReader(window, {"bootstrap_servers": broker.address})
    reader.start()
    await broker.start()
    try:
        await create_topics(broker.address, wanted_topics())
        # Had the reader asked for the topic before it was there, this broker would have made it with 4 partitions.
        (found,) = await found_topics(broker.address, [DECISIONS])
        assert found.partitions == PARTITIONS
        await published(broker.address, [decision(1)])
        await until("after the broker came", window, 1)
    finally:
        await reader.stop()
        await broker.stop()
