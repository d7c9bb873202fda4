"""The front door, before any command does its work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = ("dev", "worker", "collector", "api", "topics", "rules", "import", "bench")


def said(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_")}
    return subprocess.run(
        [sys.executable, "-m", "opportune", *words],
        env={**kept, **settings},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_of_a_setting_that_nobody_reads(command: str) -> None:
    done = said(command, "--help", OPPORTUNE_PARTITONS="16", OPPORTUNE_API_PROT="1", OPPORTUNE_PARTITIONS="8")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning: OPPORTUNE_API_PROT: no such setting; did you mean OPPORTUNE_API_PORT?",
        "warning: OPPORTUNE_PARTITONS: no such setting; did you mean OPPORTUNE_PARTITIONS?",
    ]


def test_settings_of_all_rooms_are_known_and_the_work_is_done(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("segments: {buyers: {did: order}}")
    settings = {"OPPORTUNE_ZONE": "UTC", "OPPORTUNE_COLLECTOR_PORT": "1", "OPPORTUNE_API_PORT": "2"}
    done = said("rules", "check", str(tmp_path), **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("good: 1 segments")


def test_rules_check_tells_traits_that_nobody_declares_and_those_that_look_like_a_slip(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        "traits:\n"
        "  custom.plan: {said: text}\n"
        "segments:\n"
        "  a: {trait: custom.plann, eq: pro}\n"
        "  b: {any_item: childern, where: {sex: f}}\n"
        "  c: {any: [{trait: city, eq: Berlin}, {trait: custom.mark, gte: 3}, {trait: custom.plann, exists: true}]}\n"
        "  d: {all: [{trait: custom.plan, eq: pro}, {trait: gender, eq: f}, {trait: custom.level, eq: 2}]}\n"
        "triggers: {t: {on: {event: registered}, steps: [{set: {custom.level: 2}}]}}\n"
    )
    done = said("rules", "check", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:5] == [
        "rules.yaml:4: segments/a/trait: nobody declares the trait 'custom.plann'; did you mean 'custom.plan'?",
        "rules.yaml:5: segments/b/any_item: nobody declares the trait 'childern'; did you mean 'children'?",
        "rules.yaml:6: segments/c/any/1/trait: nobody declares the trait 'city'; did you mean 'address.city'?",
        "taken as people are said to be, and declared by no rule: custom.mark",
    ]
    done = said("rules", "check", str(tmp_path), "--quiet")
    assert len(done.stdout.splitlines()) == 1


def test_rules_test_runs_scenarios_and_tells_each_failure_at_its_line(tmp_path: Path) -> None:
    shipped = sorted((ROOT / "rules" / "packs" / "shop" / "scenarios").glob("*.txt"))
    done = said("rules", "test", *map(str, shipped), "--rules", str(ROOT / "rules" / "packs" / "shop"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"good: {len(shipped)} scenarios, ")

    wrong, broken = tmp_path / "wrong.txt", tmp_path / "broken.txt"
    wrong.write_text("segment a = {did: page_viewed}\n0d ana expect in\n0d ana page_viewed\n1d ana expect out, in")
    broken.write_text("segment a = {did: page_viewed}\n\nsome day ana page_viewed")
    done = said("rules", "test", str(wrong), str(broken))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{wrong}:2: in wanted, got out",
        f"{wrong}:4: out wanted, got in since 2026-01-01T00:00:00.000Z",
        f"{broken}:3: a time like 36h, 1d12h, P3M or 2026-03-29T02:30 wanted, got 'some'",
        "failed: 2 scenarios, 2 expectations, 3 failures",
    ]


def test_a_file_that_is_not_there_is_told_as_one_and_nobody_speaks_of_brokers(tmp_path: Path) -> None:
    done = said("rules", "test", str(tmp_path / "none.txt"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"opportune: {tmp_path / 'none.txt'}: a file at hand wanted, got: No such file or directory"
    ]


def test_rules_are_tested_in_the_zone_and_currency_that_the_installation_sets(tmp_path: Path) -> None:
    page = tmp_path / "night.txt"
    page.write_text(
        "defaults = {zone: UTC, currency: USD}\n"
        "trait spent = {sum: order.total}\n"
        "segment it = {all: [{trait: spent, gte: 10}, {did: order, window: {calendar: today}}]}\n"
        "start 2026-01-01T22:00\n"
        "0h ana order_completed order_id=1 total=10 currency=EUR\n"
        "0h ana expect in, wake 2h\n"
    )
    done = said("rules", "test", str(page), OPPORTUNE_CURRENCY="EUR", OPPORTUNE_ZONE="Europe/Berlin")
    assert done.stdout.splitlines() == ["good: 1 scenarios, 1 expectations, 0 failures"]
    assert said("rules", "test", str(page)).returncode == 1


MAPPING = """
name: mine
file: {kind: csv}
identify: {user: $who}
time: {from: $at, format: "%Y-%m-%d", zone: UTC}
events:
  - event: order_completed
    message_id: {concat: [m-, $id]}
    properties: {order_id: $id, currency: USD, total: $total}
"""


def test_a_backtest_tells_of_rejected_rows_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("segments: {buyers: {did: order}}")
    (tmp_path / "mine.map").write_text(MAPPING)
    rows = ["1,ana,2026-01-02,10", "2,bob,soon,10", "3,cat,2026-01-03,lots", "4,,2026-01-03,5", "5,dan,later,5"]
    (tmp_path / "orders.csv").write_text("\n".join(["id,who,at,total", *rows]))
    paths = (str(tmp_path / "orders.csv"), "--mapping", str(tmp_path / "mine.map"), "--rules", str(tmp_path))
    done = said("backtest", *paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-5:-1] == [
        "5 rows read, 4 rejected (bad_time 2, invalid_payload 1, no_identifier 1)",
        "bad_time: row 2 (also 5): time: a time written %Y-%m-%d wanted, got other text",
        "invalid_payload: row 3: order_completed: total: an amount like 12.50, got other text",
        "no_identifier: row 4: identify: one of user wanted, got none",
    ]
