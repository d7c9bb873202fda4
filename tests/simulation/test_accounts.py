"""The books of a worker balance in every world: what was taken has an outcome, what was decided went out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from profiles.wire import DECISIONS, TASKS, TRIGGERS_PREFIX
from tests.simulation.crashes import SCENARIOS
from tests.simulation.world import Plan, live, plan_of

WORLDS = 6


def total(name: str, which: Callable[[dict[str, str]], bool] = lambda _: True) -> float:
    """The sum of a counter's series."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == name and which(sample.labels)
    )


def books() -> dict[str, tuple[float, float]]:
    """Both sides of each identity; alerts compare the same series."""
    return {
        "R1: taken, by outcome": (total("opportune_records_taken_total"), total("opportune_events_total")),
        "D7: decided, told": (
            total("opportune_decisions_total"),
            total("opportune_outgoing_records_total", lambda labels: labels["topic"] == DECISIONS),
        ),
        "D7: emitted, sent": (
            total("opportune_decisions_total", lambda labels: labels["reason"] == "emitted"),
            total(
                "opportune_outgoing_records_total",
                lambda labels: labels["topic"] == TASKS or labels["topic"].startswith(TRIGGERS_PREFIX),
            ),
        ),
    }


@pytest.mark.invariant("R1")
@pytest.mark.mechanic("D7")
def test_the_books_balance_whatever_fails() -> None:
    before = books()
    plans: list[Plan] = [*SCENARIOS.values(), *(plan_of(seed) for seed in range(WORLDS))]
    for plan in plans:
        live(plan)
        for name, (one, other) in books().items():
            assert one == other, name
    assert all(one > before[name][0] for name, (one, _) in books().items())
