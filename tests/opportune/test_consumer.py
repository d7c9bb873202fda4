"""Issue 5, through real parts: ``opportune dev`` with the whole pack of journeys, events from an SDK, a consumer outside of the code base."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import segment.analytics as analytics

from opportune.beside import told
from stream.rulebook import PACKS
from tests.opportune.test_dev import OPPORTUNE, running

CONSUMER = Path(__file__).parents[2] / "docs" / "consumer" / "moments.py"
RULES = """
triggers:
  thanks: {class: transactional, on: {event: product_reviewed}, steps: [{emit: {template: thanks, payload: {pick: {select: similar, of: order, optional: true}}}}]}
  goes_with: {class: transactional, on: {event: order_completed}, key: order_id, steps: [{emit: {template: goes_with, payload: {co_purchased: 3}}}]}
"""
MOMENTS = {
    "thanks", "goes_with", "order_placed", "order_paid", "laid_aside", "content_by_purchase", "sixth_coffee", "referral_thanks",
}  # fmt: skip
"""What comes at once and at any hour, of our own rules and of the pack; its other letters wait, for a time or for the morning."""


@pytest.mark.slow
@pytest.mark.mechanic("M98")
@pytest.mark.mechanic("M88")
def test_moments_reach_a_consumer_that_knows_only_the_published_schema(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    (rules / "journeys.yaml").write_text((PACKS / "journeys" / "journeys.yaml").read_text("utf-8"))
    printed = subprocess.run(
        (*OPPORTUNE, "schema", "triggers"), capture_output=True, text=True, check=True, timeout=120
    )
    schema = tmp_path / "triggers.json"
    schema.write_text(printed.stdout)
    with running(tmp_path, "--rules", str(rules)) as dev:
        assert dev.get("schemas/triggers") == json.loads(printed.stdout)
        client = analytics.Client("dev-secret-key", host=dev.collector, sync_mode=True, gzip=True)
        client.track(
            "shop",
            "Product Updated",
            {"product_id": "drill", "accompanying": ["bits"], "content": "https://s/drill.pdf"},
        )
        client.track("shop", "Product Updated", {"product_id": "bits", "price": 8.5, "url": "https://s/bits"})
        order = {"order_id": "o-1", "currency": "USD", "total": 99, "products": [{"product_id": "drill", "price": 99}]}
        client.track("u-1", "Order Completed", order)
        client.track("u-1", "Order Status Changed", {"order_id": "o-1", "to": "delivered"})
        client.track("u-1", "Goods Reserved", {"product_id": "drill"})
        for number in range(6):
            coffee = {"product_id": "coffee", "price": 3}
            cup = {"order_id": f"c-{number}", "currency": "USD", "total": 3, "products": [coffee]}
            client.track("u-1", "Order Completed", cup)
        client.identify("u-2", {"referrer": "u-1"})
        client.track("u-2", "Order Completed", {"order_id": "o-2", "currency": "USD", "total": 5, "status": "placed"})
        client.track("u-2", "Order Status Changed", {"order_id": "o-2", "to": "paid"})
        client.track("u-1", "Product Reviewed", {"product_id": "drill", "rating": 5})
        dev.until(
            "all moments",
            lambda: (
                {one["name"] for one in dev.get("triggers")["triggers"] if one["decisions"].get("emitted")} >= MOMENTS
            ),
            60,
        )
        brokers = told(tmp_path / "data")["OPPORTUNE_BOOTSTRAP"]
        command = [
            sys.executable,
            "-I",
            str(CONSUMER),
            "--brokers",
            brokers,
            "--schema",
            str(schema),
            "--memory",
            str(tmp_path / "m.sqlite"),
        ]
        out, said = tmp_path / "out.jsonl", tmp_path / "said.txt"
        with out.open("wb") as lines, said.open("wb") as errors:
            # As from a terminal: whoever runs the tests in the background has SIGINT ignored, and so would it.
            process = subprocess.Popen(
                command,
                stdout=lines,
                stderr=errors,
                env={"PATH": os.environ["PATH"]},
                cwd=tmp_path,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # nothing else runs before the exec
            )
        try:
            dev.until("all records", lambda: {one["trigger"] for one in lines_of(out)} >= MOMENTS, 60)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found: dict[str, dict[str, Any]] = {one["trigger"]: one for one in lines_of(out)}
    assert said.read_text() == ""
    assert len({one["trigger_id"] for one in lines_of(out)}) == len(lines_of(out))
    assert found["content_by_purchase"]["payload"]["content"][0]["content"] == {"manual": "https://s/drill.pdf"}
    assert found["sixth_coffee"]["payload"]["coupon"]["code"].startswith("FREE_COFFEE-")
    assert found["referral_thanks"]["profile"]["address"] == "user:u-1"
    assert found["laid_aside"]["payload"]["item"] == "drill"
    assert found["order_placed"]["template"] == "order_placed"
    (bits,) = found["goes_with"]["payload"]["co_purchased"]
    assert (bits["product_id"], bits["price"], bits["url"]) == ("bits", "8.50", "https://s/bits")


def lines_of(out: Path) -> list[dict[str, Any]]:
    """What the consumer has said so far, but for a line that it is writing."""
    whole, _, _ = out.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
