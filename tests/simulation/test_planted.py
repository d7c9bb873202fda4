"""The tests are tested: every planted fault is found, by the seed on record; without the fault that seed is sound."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from profiles.ids import partition_of, shard_of
from tests.simulation.crashes import tell
from tests.simulation.net import FAIR
from tests.simulation.planted import PLANTS
from tests.simulation.simulate import lived
from tests.simulation.world import Act, Plan, live, plan_of

ROOT = Path(__file__).parents[2]
FOUND: dict[str, int] = yaml.safe_load((ROOT / "tests" / "data" / "planted.yaml").read_text())
WITHIN = 2_000


def test_every_planted_fault_has_a_seed_that_finds_it() -> None:
    assert set(FOUND) == set(PLANTS)
    assert len(FOUND) >= 15
    assert max(FOUND.values()) < WITHIN
    told = re.findall(r"^\| ([^|]+) \| (\d+) \| R\d+ \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert {fault: int(needed) - 1 for fault, needed in told} == FOUND


@pytest.mark.slow
@pytest.mark.parametrize("fault", FOUND)
def test_a_planted_fault_is_found(fault: str) -> None:
    plan = plan_of(FOUND[fault])
    assert lived(plan, fault).broken
    assert not lived(plan).broken


def lagging(worker: int) -> Plan:
    """A customer's other tab, in a partition whose worker stands still, says in time that the cart is not left."""
    anonymous = next(name for name in map("anon:v-1-{}".format, range(9)) if partition_of(shard_of(name), 2) == 0)
    user = next(name for name in map("user:v-1-{}".format, range(9)) if partition_of(shard_of(name), 2) == 1)
    told = [
        tell(3_000, "Identify", user, anonymous),
        tell(5_000, "Product Added", user, product_id="p-1", price=5, currency="USD"),
        tell(29_000, "Product Added", anonymous, product_id="p-2", price=5, currency="USD"),
    ]
    told = [replace(one, person=user) for one in told]
    return Plan(1, 2, 2, FAIR, tuple(told), (Act(28_000, "freeze", worker, 8.0),))


@pytest.mark.invariant("R16")
def test_an_alarm_waits_for_what_a_lagging_worker_tells_and_counts_it_first() -> None:
    for worker in (0, 1):
        assert live(lagging(worker)).decided["cart", "emitted"] == 1
