"""The store is lost and made anew from the log: the profiles are those that there were, nothing goes out for it, and what
comes afterwards leaves what it would have left anyway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis import Redis
from rich.console import Console as Terminal

from console.commands import Commands
from opportune.preflight import violations
from opportune.rebuild import run as rebuild
from profiles.codec import decode
from profiles.edits import Edit
from profiles.errors import Refused
from profiles.ids import SHARDS, shard_of, tomb_key
from profiles.wire import DEAD_LETTERS
from stream import settings
from stream.clock import SystemIds
from stream.committed import committed
from stream.log import KafkaLog
from stream.rebuild import BEGUN, REBUILD
from tests.conftest import Installation
from tests.integration.live import live
from tests.integration.parts import (
    SECRET,
    Shop,
    Topics,
    append,
    as_record,
    opened,
    processes,
    producing,
    reading,
    until,
    working,
)
from tests.integration.test_kill import Outcome, applied, differing, outcome, shops

__all__ = ["shops"]
SECRET_BYTES = bytes.fromhex(SECRET)
ERASED = "user:u-3"


def empty(shop: Shop) -> None:
    with Redis.from_url(shop.env["OPPORTUNE_REDIS_URL"]) as client:
        client.flushdb()


async def asked(shop: Shop, topics: Topics) -> None:
    """Two of what authorised people ask for: somebody is told, somebody else forgotten."""
    log = KafkaLog(settings.read(shop.env).own)
    await log.start()
    try:
        commands = Commands(topics.store, log, SECRET_BYTES, SystemIds(), on_logs_clock=True)
        await commands.edit("user:u-1", Edit("ana", "typo", {"first_name": "Ana"}, (), {}), "c-1")
        await commands.settled("c-1", 120)
        await commands.erase(ERASED, "ana", "c-2")
        await commands.settled("c-2", 120)
    finally:
        await log.stop()


async def known_to_kafka(shop: Shop, topics: Topics) -> None:
    """Wait until the group has told Kafka of all that is applied: it does with its beats."""

    async def told_all() -> bool:
        return sum((await committed(settings.read(shop.env))).values()) == await applied(topics)

    await until(told_all, what="offsets told to Kafka")


async def alarms(topics: Topics) -> list[tuple[str, int]]:
    return sorted(await topics.store.due(range(SHARDS), 1 << 60, 1_000_000))


async def told(shop: Shop, folder: Path, *, loses: bool) -> Outcome:
    """Half of a story, then the other half; in between one loses the store while what comes next lies on the log."""
    first, *rest = live(11, events=3_000, customers=120, portions=2)
    later = [as_record(event) for portion in rest for event in (*portion.flow, *portion.close)]
    async with producing(shop) as producer, reading(shop) as topics:
        await append(shop, producer, [as_record(event) for event in (*first.flow, *first.close)])
        async with working(shop):
            await topics.settled()
            await asked(shop, topics)
            await topics.settled()
            await known_to_kafka(shop, topics)
        await append(shop, producer, later)
        if loses:
            before = await outcome(topics)
            alarms_before = await alarms(topics)
            empty(shop)
            found = await asyncio.to_thread(rebuild, shop.env, "", Terminal(stderr=True))
            assert found.result.inputs == len(first.flow) + len(first.close) + 2
            after = await outcome(topics)
            assert differing(before.profiles, after.profiles) == []
            assert differing(before.members, after.members) == []
            assert await alarms(topics) == alarms_before
            assert (after.published, after.doubles) == (before.published, 0)
            [tomb] = await topics.store.tombs([(shard_of(ERASED), tomb_key(ERASED, SECRET_BYTES))])
            assert tomb is not None
            assert decode(ERASED, tomb).erased_ms > 0
        async with processes(shop, folder) as workers:
            await topics.settled(workers=workers)
        assert topics.on[DEAD_LETTERS] == []
        return await outcome(topics)


@pytest.mark.slow
@pytest.mark.invariant("R7")
@pytest.mark.invariant("R13")
@pytest.mark.invariant("R14")
@pytest.mark.invariant("R24")
async def test_a_store_that_is_lost_is_rebuilt_from_the_log_and_the_future_is_as_if_nothing_had_been(
    shops: tuple[Shop, Shop], tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as runs:
        calm = runs.create_task(told(shops[0], tmp_path / "calm", loses=False))
        lost = runs.create_task(told(shops[1], tmp_path / "lost", loses=True))
    one, two = calm.result(), lost.result()
    assert len(one.profiles) > 100
    assert differing(one.profiles, two.profiles) == []
    assert differing(one.members, two.members) == []
    for topic in one.published:
        assert differing(one.published[topic], two.published[topic]) == [], topic
    assert two.doubles == 0


@pytest.mark.invariant("R28")
async def test_only_an_empty_store_is_rebuilt_and_an_unfinished_one_is_not_worked_on(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = await opened(installation, clock="log")
    terminal = Terminal(stderr=True)
    with pytest.raises(Refused, match="has told Kafka nothing"):
        await asyncio.to_thread(rebuild, shop.env, "", terminal)
    first, *_ = live(11, events=200, customers=20, portions=1)
    async with producing(shop) as producer, reading(shop) as topics:
        await append(shop, producer, [as_record(event) for event in first.flow])
        async with working(shop):
            await topics.settled()
            await known_to_kafka(shop, topics)
        before = await outcome(topics)
        with pytest.raises(Refused, match="an empty one wanted"):
            await asyncio.to_thread(rebuild, shop.env, "", terminal)
        empty(shop)
        await topics.store.put_doc(REBUILD, BEGUN)
        wrong = await violations(settings.read(shop.env))
        assert "a rebuild that was finished" in "\n".join(wrong)
        with pytest.raises(Refused, match="unfinished"):
            await asyncio.to_thread(rebuild, shop.env, "", terminal)
        empty(shop)
        capsys.readouterr()
        await asyncio.to_thread(rebuild, shop.env, "", terminal)
        said = capsys.readouterr().out
        assert f"{len(first.flow)} inputs up to " in said
        assert " 0 records, and 0 commands, left to the workers" in said
        assert "not to be known:" in said
        after = await outcome(topics)
        assert differing(before.profiles, after.profiles) == []
        assert await violations(settings.read(shop.env)) == []


@pytest.mark.invariant("R14")
@pytest.mark.invariant("R28")
async def test_a_worker_whose_store_is_emptied_under_it_tells_nothing_again(
    installation: Installation, tmp_path: Path
) -> None:
    shop = await opened(installation, clock="log")
    first, *_ = live(11, events=400, customers=20, portions=1)
    async with producing(shop) as producer, reading(shop) as topics:
        await append(shop, producer, [as_record(event) for event in first.flow])
        async with processes(shop, tmp_path) as [worker]:
            await topics.settled(workers=[worker])
            await known_to_kafka(shop, topics)
            before = {topic: len(found) for topic, found in topics.on.items() if topic.startswith("triggers.")}
            empty(shop)
            assert await worker.ended() == 1
            assert "got an empty store although the group has read" in worker.words()
        await topics.read()
        assert {t: len(found) for t, found in topics.on.items() if t.startswith("triggers.")} == before
        assert not any(state.token for state in await topics.store.read_shards(range(SHARDS)))
