"""The published parameters of BG/NBD come out of the published data."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from opportune.backtest import mapping_named
from opportune.fit import Life, fit_bgnbd, lives, told
from profiles.errors import Refused
from profiles.moments import DAY_MS, zone_named
from profiles.wire import Event
from rules.compile import compile_rules
from stream.settings import Agreed
from tests.integration.history import DATA

CDNOW = DATA / "CDNOW_sample.txt"
WEEK_MS = 7 * DAY_MS


def test_the_parameters_of_cdnow_are_those_of_the_paper() -> None:
    """Fader, Hardie and Lee 2005, table 2: r = 0.243, alpha = 4.414, a = 0.793, b = 2.426, over the first 39 weeks."""
    answer = told(CDNOW, mapping_named(Path("cdnow")), Agreed(), "1997-10-01T00:00:00Z", "P7D")
    found = yaml.safe_load(answer)["traits"]["alive"]["model"]
    assert {name: round(found[name], 3) for name in ("r", "alpha", "a", "b")} == {
        "r": 0.243,
        "alpha": 4.414,
        "a": 0.793,
        "b": 2.426,
    }
    assert answer.startswith("# BG/NBD by 2357 customers, 946 of whom came back, who bought before 1997-10-01")
    compile_rules([("fitted.yaml", answer + "\nsegments: {gone: {trait: alive, lt: 50}}")])


def test_a_life_is_counted_in_days_as_orders_count() -> None:
    def order(at_ms: int, order_id: str, **more: object) -> Event:
        props = {"order_id": order_id, "currency": "EUR", "total_minor": 1, "status": "paid", **more}
        return Event(order_id, "file", "order_completed", at_ms, at_ms, "user:ana", props=props)

    events = [
        order(DAY_MS, "1"),
        order(DAY_MS + 5, "2"),
        order(4 * DAY_MS, "3"),
        order(6 * DAY_MS, "4", status="placed"),
        order(9 * DAY_MS, "5"),
        Event("x", "file", "order_cancelled", 7 * DAY_MS, 7 * DAY_MS, "user:ana", props={"order_id": "5"}),
        Event("y", "file", "page_viewed", 1, 1, "user:eve"),
    ]
    utc = zone_named("UTC")
    assert lives(events, utc, 10 * DAY_MS) == [Life(1, 3, 8)]
    assert lives(events, utc, 4 * DAY_MS) == [Life(0, 0, 2)]


def test_what_tells_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="100 customers at least, some of whom came back, wanted, got 3"):
        fit_bgnbd([Life(1, 1, 2)] * 3, WEEK_MS)
    with pytest.raises(Refused, match="some of whom came back"):
        fit_bgnbd([Life(0, 0, 2)] * 300, WEEK_MS)
    with pytest.raises(Refused, match="--unit or --until"):
        told(CDNOW, mapping_named(Path("cdnow")), Agreed(), "", "week")
    with pytest.raises(Refused, match="file: one that can be read wanted"):
        told(Path("none.txt"), mapping_named(Path("cdnow")), Agreed(), "", "P7D")
