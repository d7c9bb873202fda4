"""A worker that stands still for no reason ends; one that waits for a server does not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

import stream.settings
from profiles.wire import INPUT_TOPICS
from stream.app import Fault
from stream.transport import Copartition
from stream.worker import LiveWorker
from tests.conftest import Installation
from tests.integration.parts import append, as_record, opened, producing, reading, until, working
from tests.integration.test_hostile import USERS, added

STALLED: dict[str, str] = {"stalled_ms": "2000", "request_ms": "2500"}


async def test_a_worker_that_stands_still_though_records_wait_ends(installation: Installation) -> None:
    shop = await opened(installation, **STALLED)
    async with working(shop) as worker, producing(shop) as producer:
        now_ms = await worker.store.now_ms()
        async with worker._handlers._turn:  # What would never let go of it is a fault that nobody has found yet.
            await append(shop, producer, [as_record(added(user, "m", now_ms)) for user in USERS])
            with pytest.raises(Fault, match=r"the watchdog: .*progress within 2000 ms wanted, [0-9]+ records wait"):
                await asyncio.wait_for(worker.wait(), 60)


@pytest.mark.invariant("R8")
async def test_a_worker_that_has_ended_stops_also_with_a_batch_that_nobody_takes_any_more(
    installation: Installation,
) -> None:
    shop = await opened(installation, **STALLED)
    async with producing(shop) as producer, working(shop) as worker:
        now_ms = await worker.store.now_ms()
        async with worker._handlers._turn:
            await append(shop, producer, [as_record(added(user, "m", now_ms)) for user in USERS])
            with pytest.raises(Fault, match="the watchdog"):
                await asyncio.wait_for(worker.wait(), 60)
            await worker._worker.stop()  # Its producer is gone.

        async def is_publishing() -> bool:
            return bool(worker._handlers._flight)

        await until(is_publishing, what="a batch on its way out")


class _HoldsOn(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka publishes no types
    """Of a member that does not let go of its partitions, and lives: the group waits for it as long as that member allows."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.lets_go = asyncio.Event()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            self.is_asked.set()
            await self.lets_go.wait()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        pass


async def test_a_worker_that_the_group_never_gives_its_share_ends(installation: Installation) -> None:
    """What applies nothing because it owns nothing would else be noticed by nobody, and its partitions be worked by nobody."""
    shop = await opened(installation, rebalance_ms="1000", **STALLED)
    settings = stream.settings.read(shop.env)
    own = settings.own
    other = AIOKafkaConsumer(
        bootstrap_servers=own.bootstrap, group_id=own.group, partition_assignment_strategy=[Copartition()],
        enable_auto_commit=False, heartbeat_interval_ms=500, rebalance_timeout_ms=600_000,
    )  # fmt: skip
    holds = _HoldsOn()
    other.subscribe(INPUT_TOPICS, listener=holds)
    await other.start()
    worker = LiveWorker(settings)
    try:

        async def has_all() -> bool:
            return bool(other.assignment())

        await until(has_all, what="another member with partitions")
        with pytest.raises(Fault, match=r"the watchdog: .*a share of the partitions within 3000 ms wanted"):
            await asyncio.wait_for(worker.start(), 60)
        assert holds.is_asked.is_set()
    finally:
        await worker.stop()
        holds.lets_go.set()
        await other.stop()


@pytest.mark.invariant("R27")
async def test_a_worker_that_waits_for_the_broker_does_not_end(installation: Installation) -> None:
    shop = await opened(installation, **STALLED)
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        await append(shop, producer, [as_record(added(user, "one", now_ms)) for user in USERS])
        await topics.settled()
        installation.broker.pause()
        ended = asyncio.ensure_future(worker.wait())
        await asyncio.wait([ended], timeout=6)  # Three times as long as it may stand still.
        installation.broker.resume()
        assert not ended.done()
        await append(shop, producer, [as_record(added(user, "two", now_ms)) for user in USERS])
        await topics.settled()
        ended.cancel()


@pytest.mark.invariant("R27")
async def test_a_claim_may_take_longer_than_a_request_to_the_broker(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await opened(installation, request_ms="2000")
    worker = LiveWorker(stream.settings.read(shop.env))
    claim = worker._handlers.claim

    async def slow(partitions: Sequence[int]) -> Mapping[tuple[str, int], int]:
        await asyncio.sleep(2.5)  # As the store would be, had it been away.
        return await claim(partitions)

    monkeypatch.setattr(worker._handlers, "claim", slow)
    async with producing(shop) as producer, reading(shop) as topics:
        try:
            await asyncio.wait_for(worker.start(), 60)
            now_ms = await worker.store.now_ms()
            await append(shop, producer, [as_record(added(user, "one", now_ms)) for user in USERS])
            await topics.settled()
        finally:
            await worker.stop()


@pytest.mark.invariant("R27")
async def test_a_worker_stops_although_no_broker_takes_its_offsets(installation: Installation) -> None:
    shop = await opened(
        installation, request_ms="2000", commit_ms="600000"
    )  # Something is left to be told at the stop.
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        await append(shop, producer, [as_record(added(user, "one", now_ms)) for user in USERS])
        await topics.settled()

        async def has_to_tell() -> bool:
            return bool(worker._worker._log._commits)

        await until(has_to_tell, what="offsets to be told")
        installation.broker.pause()
        try:
            await asyncio.wait_for(worker.stop(), 60)
        finally:
            installation.broker.resume()


async def test_a_worker_with_nothing_to_do_does_not_end(installation: Installation) -> None:
    shop = await opened(installation, **STALLED)
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        await append(shop, producer, [as_record(added(user, "one", now_ms)) for user in USERS])
        await topics.settled()
        before = worker.progress().taken
        ended = asyncio.ensure_future(worker.wait())
        await asyncio.wait([ended], timeout=5)
        assert not ended.done()
        assert worker.progress().taken >= before
        ended.cancel()
