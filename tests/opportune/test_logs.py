"""One line an event, a JSON object in production; an event is called the same by every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from opportune import parts
from profiles.ids import message_hash
from tests.conftest import Installation
from tests.integration.parts import KEYS, ROOT, SHOP_KEY, WorkerProcess, opened, reading

SECRET_ID = "m-of-ana@shop.example"


def lines(path: Path) -> list[dict[str, Any]]:
    """What a process wrote, each line an object."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.invariant("R25")
async def test_an_event_is_followed_by_its_hash_through_collector_and_worker(
    installation: Installation, tmp_path: Path
) -> None:
    shop = await opened(installation, log_format="json", log_level="debug")
    worker = WorkerProcess(shop, tmp_path)
    said = {**shop.env, "OPPORTUNE_WRITE_KEYS": orjson.dumps(KEYS).decode(), "OPPORTUNE_COLLECTOR_HOST": parts.HOST}

    def command(server: parts.Server) -> list[str | Path]:
        words = [f"{name}={value}" for name, value in {**said, "OPPORTUNE_COLLECTOR_PORT": str(server.port)}.items()]
        return ["/usr/bin/env", "-C", str(ROOT), *words, sys.executable, "-m", "opportune", "collector"]

    async def listens(server: parts.Server) -> None:
        """A connection is all that is asked."""

    worker.start()
    try:
        async with parts.Server("collector", command, listens, tmp_path / "collector") as edge, reading(shop) as topics:
            async with httpx.AsyncClient(base_url=f"http://{edge.address}", timeout=30) as client:
                body = {"userId": "u-1", "messageId": SECRET_ID, "event": "Quiz Finished"}
                answer = await client.post("/v1/track", json=body, auth=(SHOP_KEY, ""))
                assert answer.status_code == 200, answer.text
                assert (
                    await client.post("/v1/track", json={**body, "event": 7}, auth=(SHOP_KEY, ""))
                ).status_code == 400
            await worker.ready()
            await topics.settled(workers=[worker])
    finally:
        worker.terminate()
        assert await worker.ended() == 0
    name = message_hash("shop", SECRET_ID)
    [accepted] = [one for one in lines(edge.log_path) if one.get("message_hash") == name]
    [applied] = [one for one in lines(worker.log_path) if one.get("message_hash") == name]
    assert (accepted["event"], accepted["level"], accepted["topic"]) == ("accepted", "debug", "customer_events")
    assert (applied["event"], applied["topic"], applied["offset"]) == ("applied", "customer_events", 0)
    [refused] = [one for one in lines(edge.log_path) if one["event"] == "refused"]
    assert refused["source"] == "shop"
    assert "ana@shop" not in edge.log_path.read_text() + worker.words()


def test_the_hash_of_a_message_can_be_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "opportune", "hash", "shop", SECRET_ID],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == f"{message_hash('shop', SECRET_ID)}\n"
