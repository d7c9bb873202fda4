"""What a backtest tells: days, reasons, tables and the chart; and the examples of the documents are what it says today."""

from __future__ import annotations

import csv
import io
import re
import runpy
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from console.backtest import Cell, Days, csv_of, svg_of
from opportune import backtest
from opportune.backtest import Asked, Keep, mapping_named
from profiles.errors import Refused
from stream.replay import Replayed
from stream.rulebook import PACKS
from tests.integration.history import DATA
from tests.integration.test_cdnow import lapses, purchases
from tests.opportune.test_cli import said

ROOT = Path(__file__).parents[2]
CDNOW = Asked([DATA / "CDNOW_sample.txt"], [mapping_named(Path("cdnow"))])
SILENT = Console(quiet=True)


def run(asked: Asked, keep: Any = lambda: None) -> Replayed[Days]:
    return backtest.run(asked, {}, SILENT, keep)[1]


@pytest.fixture(scope="module")
def cdnow() -> Replayed[Days]:
    return run(CDNOW)


@pytest.mark.mechanic("D2")
def test_the_days_of_cdnow_are_those_that_a_plain_reading_of_the_file_gives(cdnow: Replayed[Days]) -> None:
    firsts = [min(at_ms for at_ms, _ in bought) // 86_400_000 for bought in purchases().values()]
    wanted = {Cell(day, "segment", "buyers", "entered"): firsts.count(day) for day in set(firsts)}
    found = {cell: count for cell, count in cdnow.heard.counts.items() if cell.name == "buyers"}
    assert found == wanted
    last_ms = max(at_ms for bought in purchases().values() for at_ms, _ in bought)
    sent = cdnow.heard.totals()["trigger", "lapsed_buyer"]
    assert dict(sent) == {"emitted": lapses(last_ms)}
    assert cdnow.heard.totals()["trigger", "vip_burns"]["cancelled"] > 0


@pytest.mark.mechanic("M9", "D2")
@pytest.mark.parametrize("pack", sorted(path.name for path in PACKS.iterdir() if path.is_dir()))
def test_each_pack_runs_over_the_sample_by_one_command(pack: str, tmp_path: Path) -> None:
    # Three weeks: the base is looked over each day, and more often than generations of what was found are kept.
    asked = ("--mapping", "cdnow", "--rules", str(PACKS / pack), "--to", "1997-01-22", "--out", str(tmp_path))
    done = said("backtest", str(CDNOW.paths[0]), *asked)
    assert (done.returncode, "0 rejected" in done.stdout) == (0, True), done.stderr
    with (tmp_path / "days.csv").open() as rows:
        found = {(row["kind"], row["what"]) for row in csv.DictReader(rows)}
    assert {("segment", "entered"), ("segment", "left")} <= found
    assert len({path.name for path in tmp_path.iterdir()} & {"days.csv", "days.svg", "figures.md"}) == 3


def test_orders_that_no_sum_can_count_are_told() -> None:
    asked = replace(CDNOW, to="1997-02-01")
    told = {
        currency: "\n".join(backtest.told(*backtest.run(asked, {"OPPORTUNE_CURRENCY": currency}, SILENT)))
        for currency in ("USD", "EUR")
    }
    assert "without a rate" not in told["USD"]
    assert "885 orders without a rate to the shop's EUR (USD 885)" in told["EUR"]


def test_before_from_it_is_learnt_and_not_told_and_from_to_on_nothing_is(cdnow: Replayed[Days]) -> None:
    asked = Asked(CDNOW.paths, CDNOW.mappings, from_="1997-06-01", to="1997-07-01")
    june = run(asked).heard
    days = range(10_013, 10_043)
    assert june.counts == {cell: count for cell, count in cdnow.heard.counts.items() if cell.day in days}
    with pytest.raises(Refused, match="an instant before --to"):
        run(Asked(CDNOW.paths, CDNOW.mappings, from_="1997-07-01", to="1997-06-01"))


def test_two_halves_of_a_file_are_the_file(tmp_path: Path, cdnow: Replayed[Days]) -> None:
    lines = CDNOW.paths[0].read_text().splitlines(keepends=True)
    halves = [tmp_path / "a.txt", tmp_path / "b.txt"]
    # By customers: then their rows are others, and so are message ids, but not what is decided.
    cut = next(at for at in range(3_000, 4_000) if lines[at].split()[1] != lines[at - 1].split()[1])
    halves[0].write_text("".join(lines[:cut]))
    halves[1].write_text("".join(lines[cut:]))
    assert run(Asked(halves, CDNOW.mappings)).heard.counts == cdnow.heard.counts


def test_every_record_is_kept_once_and_the_digest_is_of_them(tmp_path: Path, cdnow: Replayed[Days]) -> None:
    kept: list[Any] = []

    def begun() -> Keep:
        kept.clear()
        return kept.append

    again = run(CDNOW, begun).heard
    assert len(kept) == again.records == cdnow.heard.records
    assert again.digest == cdnow.heard.digest


def test_the_chart_and_the_page_of_days_tell_all_that_was_counted(cdnow: Replayed[Days]) -> None:
    days = cdnow.heard
    rows = list(csv.DictReader(io.StringIO(csv_of(days))))
    assert sum(int(row["count"]) for row in rows) == days.counts.total()
    root = ET.fromstring(svg_of(days, "Days & <weeks>"))
    texts = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert texts[0] == "Days & <weeks>"
    assert {name for _, name in days.totals()} <= set(texts)
    assert "2,357 / 0, ≤ 220" in texts
    assert ET.fromstring(svg_of(Days(UTC, 0), "Nothing")) is not None


@pytest.mark.parametrize("name", ["cdnow", "online_retail"])
def test_the_examples_are_what_the_shop_pack_does_today(name: str) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "examples" / "make.py"))
    book, result, _ = backtest.run(made["asked"](name), made["EXAMPLES"][name][2], SILENT)
    page = (ROOT / "docs" / "examples" / name / "figures.md").read_text()
    told = re.search(r"digest (\w+), rules (\w+)", page)
    assert told is not None
    assert (told[1], told[2]) == (result.heard.digest, book.hash), "run: make examples"
