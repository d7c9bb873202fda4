"""An installation moves from a single server to a Redis Cluster in the middle of its life, workers killed before and after:
the same profiles, memberships and moments as of one that stays where it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import stream.settings
from opportune import parts
from opportune.moving import copied
from profiles.errors import Refused
from profiles.ids import SHARDS
from tests.conftest import Installation
from tests.contracts.test_store import cluster, raw, raw_call  # noqa: F401 - a fixture
from tests.integration.live import live
from tests.integration.parts import as_record, opened, working
from tests.integration.test_kill import Disturbance, differing, ran
from tests.parts import real


@pytest.mark.slow
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R4")
@pytest.mark.invariant("R12")
@pytest.mark.invariant("R22")
async def test_an_installation_that_moves_to_a_cluster_leaves_what_one_that_stays_leaves(
    installation: Installation,
    cluster: list[parts.Server],  # noqa: F811 - the fixture
    is_real: bool,
    tmp_path: Path,
) -> None:
    for node in cluster:
        with raw(node) as client:
            client.flushall()
            raw_call(client, "CONFIG", "SET", "appendonly", "yes")  # A worker refuses a store that keeps nothing.
    [visits, *later] = live(42, events=3_000, customers=100, portions=1)
    stages = [[as_record(event) for event in visits.flow], [as_record(event) for event in visits.close]]
    stages += [[as_record(event) for event in portion.flow] for portion in later]
    calm = await ran(await opened(installation, clock="log"), stages, {}, tmp_path / "calm")

    async with real.kafka(tmp_path / "broker-2") if is_real else parts.broker(tmp_path / "broker-2") as broker:
        url = installation.redis_url.removesuffix("0") + "1"
        small = await opened(replace(installation, bootstrap=broker.address, redis_url=url, broker=broker), clock="log")
        await ran(small, stages[:1], {0: [Disturbance(1_500, "kill")]}, tmp_path / "small")
        own = stream.settings.read(small.env).own
        cluster_url = parts.redis_url(cluster[0])
        assert await copied(own, cluster_url, to_cluster=True, still_s=0.1) > 200
        with pytest.raises(Refused, match=r"target: an empty store wanted, found \d+ keys"):
            await copied(own, cluster_url, to_cluster=True, still_s=0.1)

        moved = replace(small.installation, redis_url=cluster_url)
        large = await opened(moved, clock="log", redis_cluster="yes")
        plan = {0: [Disturbance(1, "join", 1), Disturbance(1, "kill", 0)]}
        found = await ran(large, stages[1:], plan, tmp_path / "large")
    assert differing(calm.profiles, found.profiles) == []
    assert differing(calm.members, found.members) == []
    for topic in calm.published:
        assert differing(calm.published[topic], found.published[topic]) == [], topic
    assert sum(bool(profile["forward"]) for profile in found.profiles.values()) > 10
    for node in cluster:
        with raw(node) as client:
            assert client.dbsize() > 100  # Both carry their part.


async def test_a_store_is_not_copied_while_a_worker_writes(
    installation: Installation, fresh_store: parts.Server
) -> None:
    shop = await opened(installation)
    own = stream.settings.read(shop.env).own
    with pytest.raises(Refused, match="source: an installation wanted"):
        await copied(own, parts.redis_url(fresh_store), to_cluster=False)
    async with working(shop):
        with pytest.raises(Refused, match="workers: all stopped wanted"):
            await copied(own, parts.redis_url(fresh_store), to_cluster=False)
    assert await copied(own, parts.redis_url(fresh_store), to_cluster=False) >= SHARDS
