"""``opportune segment …`` beside a running ``dev``: lists, files, and static segments formed of a segment and of a file."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.opportune.test_dev import OPPORTUNE, Dev, running

RULES = """
segments:
  buyers: {did: order}
  vips: {kind: static, says: Chosen by hand.}
"""


def said(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = (*OPPORTUNE, "segment", *words, "--data-dir", str(data))
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def told(dev: Dev, event: str, user: str, **properties: object) -> None:
    body = {"event": event, "userId": user, "properties": properties}
    answer = httpx.post(f"{dev.collector}/v1/track", json=body, auth=("demo-public-key", ""), timeout=60)
    assert answer.status_code == 200, answer.text


def size(dev: Dev, name: str) -> int | None:
    segment = dev.get(f"segments/{name}")
    return None if segment is None else int(segment["size"])


def members(dev: Dev, name: str) -> list[str]:
    return sorted((dev.get(f"segments/{name}/members") or {"members": []})["members"])


@pytest.mark.slow
@pytest.mark.mechanic("M2")
@pytest.mark.mechanic("M7")
@pytest.mark.mechanic("M8")
def test_segments_are_listed_exported_frozen_and_formed_of_a_file(tmp_path: Path) -> None:
    rules, data = tmp_path / "rules", tmp_path / "data"
    rules.mkdir()
    (rules / "mine.yaml").write_text(RULES)
    with running(tmp_path, "--rules", str(rules)) as dev:
        for user in ("ana", "bob", "eva"):
            told(
                dev, "Order Completed" if user != "eva" else "Page Viewed", user, order_id=user, total=5, currency="USD"
            )
        dev.until("two buyers", lambda: size(dev, "buyers") == 2, 60)

        listed = said(data, "list")
        assert [line.split()[:4] for line in listed.stdout.splitlines()[1:]] == [
            ["buyers", "dynamic", "2", "2"], ["vips", "static", "1", "0"],
        ]  # fmt: skip
        command = [sys.executable, "-m", "opportune", "rules", "progress", "--wait", "--data-dir", str(data)]
        far = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert re.fullmatch(r"generation 1 \([0-9a-f]+\): met by (\d+) of \1 addresses\n", far)
        exported = said(data, "export", "buyers", "--field", "orders_paid")
        rows = list(csv.DictReader(io.StringIO(exported.stdout)))
        assert sorted((row["address"], row["orders_paid"]) for row in rows) == [("user:ana", "1"), ("user:bob", "1")]
        assert "no member" not in exported.stderr
        misspelt = said(data, "export", "buyers", "--field", "orders_payd", "--field", "custom.plan")
        assert misspelt.stderr.splitlines()[-2:] == [
            "no member has a value of the trait 'orders_payd'; did you mean 'orders_paid'?",
            "no member has a value of the trait 'custom.plan'",
        ]
        file = tmp_path / "buyers.xlsx"
        assert "2 of 2 members" in said(data, "export", "buyers", "--format", "xlsx", "--out", str(file)).stderr
        assert file.read_bytes().startswith(b"PK")

        frozen = json.loads(said(data, "freeze", "buyers", "--into", "vips", "--by", "ana", "--why", "the sale").stdout)
        assert (frozen["version"], frozen["joined"], frozen["formed_of"]) == (1, 2, "segment buyers")
        dev.until("two on the list", lambda: size(dev, "vips") == 2, 30)
        told(dev, "Order Completed", "eva", order_id="eva", total=5, currency="USD")
        told(dev, "Order Refunded", "ana", order_id="ana")
        dev.until("other buyers", lambda: members(dev, "buyers") == ["user:bob", "user:eva"], 30)
        assert size(dev, "vips") == 2

        people = tmp_path / "people.csv"
        people.write_text("address,name\nuser:eva,Eva\nuser:nobody,\n", encoding="utf-8")
        formed = json.loads(said(data, "form", "vips", str(people), "--by", "bob").stdout)
        assert (formed["version"], formed["joined"], formed["left"], formed["unknown"]) == (2, 1, 2, 1)
        dev.until("Eva alone", lambda: members(dev, "vips") == ["user:eva"], 30)
        text = httpx.get(f"{dev.api}/metrics", timeout=60).text
        flow = 'opportune_segment_changes_total{change="%s",segment="vips"} %d.0'
        assert flow % ("entered", 3) in text
        assert flow % ("exited", 2) in text
        assert 'opportune_segment_members{segment="vips"} 1.0' in text
        shown = json.loads(said(data, "show", "vips").stdout)
        assert [one["by"] for one in shown["versions"]] == ["ana", "bob"]

        people.write_text("user:eva\nsecret-of-ana\n")
        refused = said(data, "form", "vips", str(people), "--by", "bob")
        assert (refused.returncode, "lines 2" in refused.stderr, "secret" in refused.stderr) == (1, True, False)
        assert "did you mean 'buyers'" in said(data, "export", "byers").stderr
        assert dev.stop() == 0


NEW_RULES = """
segments:
  payers: {trait: orders_paid, gte: 1}
  readers: {did: page_viewed, window: P30D}
triggers:
  hello: {on: {segment: payers}, steps: [{emit: hello}]}
"""


@pytest.mark.slow
def test_rules_that_come_into_a_running_dev_are_met_and_filled_and_nobody_is_written_to(tmp_path: Path) -> None:
    rules, data = tmp_path / "rules", tmp_path / "data"
    rules.mkdir()
    (rules / "mine.yaml").write_text(RULES)

    def ask(*words: str) -> str:
        command = [sys.executable, "-m", "opportune", "rules", *words, "--data-dir", str(data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    with running(tmp_path, "--rules", str(rules)) as dev:
        told(dev, "Order Completed", "ana", order_id="1", total=5, currency="USD")
        told(dev, "Page Viewed", "eva", path="/")
        dev.until("both", lambda: size(dev, "buyers") == 1 and dev.get("profiles/user:eva"), 60)
        (rules / "new.yaml").write_text(NEW_RULES)
        assert "new segments: payers, readers; new triggers: hello" in ask("publish", str(rules))
        assert "count from its beginning, until `opportune rules fill`: readers" in ask("progress", "--wait")
        assert (members(dev, "payers"), members(dev, "readers")) == (["user:ana"], [])
        assert "2 of 2 people have what the log says" in ask("fill")
        dev.until("the reader", lambda: members(dev, "readers") == ["user:eva"], 30)
        assert "until `opportune rules fill`" not in ask("progress")

        told(dev, "Order Completed", "bob", order_id="2", total=5, currency="USD")
        dev.until("who comes later", lambda: len(decided(dev)) == 2, 30)
        assert sorted(decided(dev)) == [("user:ana", "backfill"), ("user:bob", None)]
        dev.until("them in the view", lambda: " of 4 segments have members" in dev.said(), 30)
        assert dev.stop() == 0


def decided(dev: Dev) -> list[tuple[str, str | None]]:
    found = dev.get("decisions?trigger=hello") or {"decisions": []}
    return [(one["address"], one["reason"]) for one in found["decisions"]]
