"""A dashboard drawn without Grafana shows what Prometheus answers, each panel in its place."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import orjson
import pytest

from deploy.grafana import make
from deploy.grafana.render import HERE, draw, told

SVG = "{http://www.w3.org/2000/svg}"


def test_every_panel_is_drawn_with_what_was_answered() -> None:
    page = orjson.loads((HERE / "overview.json").read_bytes())
    asked = []

    def ask(question: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        asked.append(question)
        if "lateness" in question:
            return []
        return [({"type": "a<b"}, [(0.0, 1.0), (50.0, 3.0), (100.0, 2.0)])]

    drawn = ET.fromstring(draw(page, ask, 0.0, 100.0, "of a test"))
    words = ["".join(one.itertext()) for one in drawn.iter(f"{SVG}text")]
    assert {panel["title"] for panel in page["panels"]} <= set(words)
    assert asked == [target["expr"] for panel in page["panels"] for target in panel["targets"]]
    assert "a<b 2/s" in words
    assert words.count("no data") == 1
    lines = [one.get("d") for one in drawn.iter(f"{SVG}path") if one.get("stroke-width")]
    # The highest point is at three fifths of an axis that ends at 5; the middle of the time is in the middle.
    assert len(lines) == len(asked) - 3 - 2
    first, middle, last = (tuple(map(float, point.split(","))) for point in str(lines[0])[1:].split("L"))
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.1)
    assert middle[1] < last[1] < first[1]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0123, "s", "12.3 ms"), (90.0, "s", "90 s"), (0.5, "percentunit", "50 %"), (3 << 20, "bytes", "3 MiB"),
        (12_345.0, "ops", "12.3 k/s"), (7.0, "short", "7"), (0.0, "s", "0 s"),
    ],
)  # fmt: skip
def test_values_are_told_in_the_panels_units(value: float, unit: str, words: str) -> None:
    assert told(value, unit) == words


def test_every_unit_of_a_panel_is_one_that_is_told() -> None:
    assert {panel.unit for _, panels in make.PAGES.values() for panel in panels} <= {
        "short", "ops", "s", "ms", "percentunit", "bytes", "Bps",
    }  # fmt: skip
