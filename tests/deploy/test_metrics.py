"""What alerts, dashboards and pages call a metric is declared, and every declaration says what it means."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

import connectors.metrics
import console.metrics
import stream.metrics

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = (stream.metrics, connectors.metrics, console.metrics)
_NAME: Final = re.compile(r"(?<![\w./])opportune_[a-z][a-z0-9_]*(?![\w(]|\.py)")
_UNIT: Final = {
    Counter: re.compile(r"_total$"),
    Histogram: re.compile(r"_(seconds|events|bytes)$"),
}
PAGES: Final = (
    *sorted((ROOT / "deploy" / "prometheus").glob("*.yml")),
    *sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")),
    ROOT / "deploy" / "runbook.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
)


def declared() -> dict[str, MetricWrapperBase]:
    """Name as it is exposed, without a histogram's endings -> the metric."""
    found: dict[str, MetricWrapperBase] = {}
    for room in ROOMS:
        for one in _of(room):
            name = one._name + ("_total" if isinstance(one, Counter) else "")
            assert name not in found, f"{name}: declared twice"
            found[name] = one
    return found


def _of(room: ModuleType) -> list[MetricWrapperBase]:
    return [one for one in vars(room).values() if isinstance(one, MetricWrapperBase)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_names_a_metric_that_nobody_declares(path: Path) -> None:
    known = set(declared())
    known |= {f"{name}_{end}" for name in known for end in ("bucket", "count", "sum")}
    named = set(_NAME.findall(path.read_text()))
    assert named - known == set()


@pytest.mark.invariant("R25")
def test_every_metric_has_a_meaning_a_unit_and_labels_that_no_client_writes() -> None:
    all_labels: set[str] = set()
    for name, metric in declared().items():
        assert len(metric._documentation) > 10, name
        kind: Any = type(metric)
        assert _UNIT.get(kind, _NAME).search(name), f"{name}: its ending says no unit"
        all_labels |= set(metric._labelnames)
    of_rules, of_code = {"trigger", "segment", "generation"}, {
        "topic", "outcome", "reason", "stage", "partition", "result", "scan", "change", "what", "source", "type", "who", "route", "status",
    }  # fmt: skip
    assert all_labels <= of_rules | of_code
