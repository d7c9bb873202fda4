"""Short fault runs with real processes on Apache Kafka and redis-server; ``make faults`` runs them at their full size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.arena import run
from tests.faults.plans import PLANS

SEED = 42


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R7")
@pytest.mark.invariant("R9")
@pytest.mark.invariant("R11")
@pytest.mark.invariant("R12")
@pytest.mark.invariant("R13")
@pytest.mark.parametrize("name", ["F1", "F3", "F7", "F11", "F14"])
async def test_nothing_is_lost_twice_wrong_or_phantom(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]
    line, differs = await run(plan, SEED, tmp_path, plan.short_times, plan.short_events)
    assert line.endswith(" PASS"), "\n".join((line, *differs))
