"""A worker that is fenced (R4) takes up its shards again by itself: the same process, with nothing lost or told anew.

What fences it is real: a shard of the store goes back in time, or loses its token, while the process runs; or the process
stands still beyond its session, and another one has its partitions by the time it wakes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import pytest
from redis import Redis

from opportune import parts
from profiles.ids import SHARDS, shard_of
from profiles.wire import DEAD_LETTERS, INPUT_TOPICS
from tests.conftest import Installation
from tests.integration.live import live
from tests.integration.parts import (
    Topics,
    WorkerProcess,
    append,
    as_record,
    opened,
    processes,
    producing,
    reading,
    until,
)
from tests.integration.test_kill import applied, differing, outcome

USERS: Final = 60


def kept(client: Redis, shard: int) -> dict[bytes, bytes]:
    """All that the store holds of a shard."""
    return {key: value for key in client.scan_iter(f"{{{shard}}}*", 1_000) if (value := client.dump(key)) is not None}


def put_back(client: Redis, shard: int, content: dict[bytes, bytes]) -> None:
    """Make the store forget what was written to a shard since."""
    with client.pipeline(transaction=True) as pipe:
        for key in client.scan_iter(f"{{{shard}}}*", 1_000):
            pipe.delete(key)
        for key, value in content.items():
            pipe.restore(key, 0, value)
        pipe.execute()


async def caught_up(topics: Topics, workers: list[WorkerProcess]) -> None:
    """Return when every shard has all input behind it that lies on its partition: beats move those that are idle."""

    async def all_of_them() -> bool:
        for worker in workers:
            worker.assert_alive()
        if not await topics.is_settled():
            return False
        states = await topics.store.read_shards(range(SHARDS))
        count = topics.shop.installation.partitions
        ends = {place: end for place, end in topics.ends.items() if place[0] in INPUT_TOPICS}
        return all(
            state.cursor.get(topic, 0) == end
            for (topic, partition), end in ends.items()
            for state in states[partition::count]
        )

    await until(all_of_them, what="every shard at the end of the log")


@pytest.mark.slow
@pytest.mark.invariant("R4")
@pytest.mark.invariant("R7")
@pytest.mark.parametrize("lost", ["a shard's token", "a shard's last writes", "all shards' last writes"])
async def test_a_store_that_forgot_is_made_whole_by_the_same_process(
    installation: Installation, lost: str, tmp_path: Path
) -> None:
    port = parts.free_port()
    shop = await opened(installation, clock="log", batch_events="100", metrics_port=str(port))
    # Visits, no sign-ins among them: a command that lies in the log from the first time is taken at its place there, and
    # not at once as it was then; so what it passes on may be seen some moments later.
    [visits, *_] = live(7, events=3_000, customers=USERS, portions=1)
    records = [as_record(event) for event in visits.flow]
    busy = max(range(SHARDS), key=lambda shard: sum(shard_of(record.key) == shard for record in records))
    shards = range(SHARDS) if lost.startswith("all") else [busy]
    async with producing(shop) as producer, reading(shop) as topics:
        with Redis.from_url(installation.redis_url) as client:
            # All of it lies in the log before the worker begins: so its order is the order of time, both times.
            await append(shop, producer, records[:2_000])
            async with processes(shop, tmp_path) as [worker]:

                async def half() -> bool:
                    worker.assert_alive()
                    return await applied(topics) > 600

                await until(half, what="some applied")
                worker.pause()
                before = {shard: kept(client, shard) for shard in shards}
                worker.resume()
                await caught_up(topics, [worker])
                whole, pid = await outcome(topics), worker.pid
                if lost == "a shard's token":
                    assert client.hdel(f"{{{busy}}}cur", "token") == 1
                else:
                    for shard, content in before.items():
                        put_back(client, shard, content)

                async def noticed() -> bool:
                    worker.assert_alive()
                    return "fenced: shards" in worker.words()

                await until(noticed, what="a worker that noticed")
                await caught_up(topics, [worker])
                healed = await outcome(topics)
                assert differing(whole.profiles, healed.profiles) == []
                assert differing(whole.members, healed.members) == []
                for topic in whole.published:
                    assert differing(whole.published[topic], healed.published[topic]) == [], topic
                await append(shop, producer, records[2_000:])
                await caught_up(topics, [worker])
                assert worker.pid == pid
                assert worker.words().count("fenced: shards") == 1
                assert "Traceback" not in worker.words()
                assert topics.on[DEAD_LETTERS] == []
                assert await metric(port, "opportune_fenced_shards_total") >= 1


@pytest.mark.slow
@pytest.mark.invariant("R4")
async def test_a_worker_that_stood_still_beyond_its_session_is_of_use_again(
    installation: Installation, tmp_path: Path
) -> None:
    port = parts.free_port()
    shop = await opened(installation, clock="log")
    watched = replace(shop, env={**shop.env, "OPPORTUNE_METRICS_PORT": str(port)})
    [visits, *_] = live(8, events=3_000, customers=USERS, portions=1, mixed=True)
    records = [as_record(event) for event in visits.flow]
    async with (
        producing(shop) as producer,
        reading(shop) as topics,
        processes(watched, tmp_path / "stalled") as [stalled],
        processes(shop, tmp_path / "other", started=0) as [other],
    ):
        await append(shop, producer, records[:1_000])
        await caught_up(topics, [stalled])
        stalled.pause()
        before = await tokens(topics)
        other.start()
        await append(shop, producer, records[1_000:2_000])
        await caught_up(topics, [other])
        assert all(one != two for one, two in zip(before, await tokens(topics), strict=True))  # all are the other's
        stalled.resume()
        written = await metric(port, "opportune_commit_seconds_count")

        async def takes_part() -> bool:
            stalled.assert_alive()
            # One is what fenced it, one is the claim; then come the beats of shards that it has.
            return await metric(port, "opportune_commit_seconds_count") >= written + 4

        await until(takes_part, what="a worker that writes to shards of its own")
        other.terminate()
        assert await other.ended() == 0, other.words()
        left = await tokens(topics)

        async def has_all() -> bool:
            stalled.assert_alive()
            return all(one != two for one, two in zip(left, await tokens(topics), strict=True))

        await until(has_all, what="every shard written by the one that is left")
        await append(shop, producer, records[2_000:])
        await caught_up(topics, [stalled])
        assert "Traceback" not in stalled.words(), stalled.words()
        assert topics.on[DEAD_LETTERS] == []
        await outcome(topics)  # no id with two bodies


async def tokens(topics: Topics) -> list[bytes]:
    """The shards' tokens: each write brings a new one."""
    return [state.token for state in await topics.store.read_shards(range(SHARDS))]


async def metric(port: int, name: str) -> float:
    """A figure without labels, as a worker tells it to Prometheus."""
    async with httpx.AsyncClient(timeout=60) as asking:
        told = (await asking.get(f"http://127.0.0.1:{port}/metrics")).text
    [line] = [line for line in told.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


@pytest.mark.slow
@pytest.mark.invariant("R4")
async def test_a_worker_fenced_again_and_again_gives_up_and_one_that_is_asked_to_stop_meanwhile_stops(
    installation: Installation, tmp_path: Path
) -> None:
    shop = await opened(installation, session_ms="1000", heartbeat_ms="300")
    with Redis.from_url(installation.redis_url) as client:

        def steal() -> None:
            if client.exists("{0}cur"):  # claimed at least once
                client.hset("{0}cur", "token", b"stranger")

        async with processes(shop, tmp_path, 2, started=1) as [steady, asked]:

            async def given_up() -> bool:
                steal()
                return not steady.runs

            await until(given_up, what="a worker that gives up")
            assert await steady.ended() == 1
            assert steady.words().count("; starting anew") == 3
            assert "fenced more than 3 times within a minute" in steady.words()
            assert "Traceback" not in steady.words()
            asked.start()

            async def fenced() -> bool:
                steal()
                asked.assert_alive()
                return "; starting anew" in asked.words()

            await until(fenced, what="a worker that is fenced")
            asked.terminate()
            assert await asked.ended() == 0, asked.words()
