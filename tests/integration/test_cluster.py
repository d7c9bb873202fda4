"""Workers on a Redis Cluster: the same profiles, memberships and moments as on a single server, with a kill on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opportune import parts
from tests.conftest import Installation
from tests.contracts.test_store import cluster, raw, raw_call  # noqa: F401 - a fixture
from tests.integration.live import live
from tests.integration.parts import as_record, opened
from tests.integration.test_kill import Disturbance, differing, ran
from tests.parts import real


@pytest.mark.slow
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R4")
@pytest.mark.invariant("R12")
@pytest.mark.invariant("R22")
async def test_workers_on_a_cluster_leave_what_one_on_a_single_server_leaves(
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
    single = await opened(installation, clock="log")
    calm = await ran(single, stages, {}, tmp_path / "single")
    plan = {0: [Disturbance(500, "join", 1), Disturbance(1_500, "kill", 0)], 1: [Disturbance(1, "kill", 1)]}
    async with real.kafka(tmp_path / "broker-2") if is_real else parts.broker(tmp_path / "broker-2") as broker:
        there = replace(installation, bootstrap=broker.address, redis_url=parts.redis_url(cluster[0]), broker=broker)
        found = await ran(await opened(there, clock="log", redis_cluster="yes"), stages, plan, tmp_path / "cluster")
    assert differing(calm.profiles, found.profiles) == []
    assert differing(calm.members, found.members) == []
    for topic in calm.published:
        assert differing(calm.published[topic], found.published[topic]) == [], topic
    assert sum(bool(profile["forward"]) for profile in found.profiles.values()) > 10
    for node in cluster:
        with raw(node) as client:
            assert client.dbsize() > 100  # Both carry their part.
