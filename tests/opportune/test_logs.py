"""One line an event, a JSON object in production; an event is called the same by every process."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from opportune import parts
from opportune.traces import Spans
from profiles.ids import message_hash
from tests.conftest import Installation
from tests.integration.parts import KEYS, ROOT, SHOP_KEY, WorkerProcess, opened, reading

SECRET_ID = "m-of-ana@shop.example"


class Receiver(ThreadingHTTPServer):
    """Somebody who takes traces."""

    def __init__(self) -> None:
        super().__init__((parts.HOST, 0), _Take)
        self.bodies: list[dict[str, Any]] = []
        self.url = f"http://{parts.HOST}:{self.server_address[1]}"

    def spans(self) -> list[dict[str, Any]]:
        """What came, in the order of the services' names, with these."""
        found = []
        for body in self.bodies:
            for resource in body["resourceSpans"]:
                [named] = resource["resource"]["attributes"]
                for scope in resource["scopeSpans"]:
                    found += [{**span, "service": named["value"]["stringValue"]} for span in scope["spans"]]
        return sorted(found, key=lambda span: str(span["service"]))


class _Take(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Keep the body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/json")
        self.server.bodies.append(orjson.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not a word."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that listens."""
    with Receiver() as one:
        thread = threading.Thread(target=one.serve_forever, daemon=True)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def lines(path: Path) -> list[dict[str, Any]]:
    """What a process wrote, each line an object."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.invariant("R25")
async def test_an_event_is_followed_by_its_hash_and_its_trace_through_collector_and_worker(
    installation: Installation, receiver: Receiver, tmp_path: Path
) -> None:
    shop = await opened(installation, log_format="json", log_level="debug", traces_url=receiver.url, traces_one_of="1")
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
    first, second = receiver.spans()
    assert (first["service"], second["service"]) == ("opportune-collector", "opportune-worker")
    assert (first["name"], second["name"]) == ("accept", "apply")
    assert first["traceId"] == second["traceId"] == name + name
    assert (first["parentSpanId"], second["parentSpanId"]) == ("", first["spanId"])
    assert first["startTimeUnixNano"] == second["startTimeUnixNano"]
    assert int(first["startTimeUnixNano"]) <= int(first["endTimeUnixNano"])
    assert {"key": "opportune.outcome", "value": {"stringValue": "applied"}} in second["attributes"]
    [accepted] = [one for one in lines(edge.log_path) if one.get("message_hash") == name]
    [applied] = [one for one in lines(worker.log_path) if one.get("message_hash") == name]
    assert (accepted["event"], accepted["level"], accepted["topic"]) == ("accepted", "debug", "customer_events")
    assert (applied["event"], applied["topic"], applied["offset"]) == ("applied", "customer_events", 0)
    [refused] = [one for one in lines(edge.log_path) if one["event"] == "refused"]
    assert refused["source"] == "shop"
    assert "ana@shop" not in edge.log_path.read_text() + worker.words()


def test_every_process_traces_the_same_share_and_one_that_nobody_receives_is_dropped(receiver: Receiver) -> None:
    def told(url: str) -> None:
        spans = Spans(url, "opportune-worker", 2)
        for number in range(100):
            extra = {"message_hash": f"{number:016x}", "received_ms": 1_000}
            spans.emit(logging.makeLogRecord({"name": "stream.computing", "created": 2.0, **extra}))
        spans.emit(logging.makeLogRecord({"name": "stream.computing"}))  # A line about no event.
        spans.close()

    told(receiver.url)
    assert [int(span["traceId"], 16) & 0xFF for span in receiver.spans()] == list(range(0, 100, 2))
    assert len({span["spanId"] for span in receiver.spans()}) == 50
    told(f"http://{parts.HOST}:{parts.free_port()}")  # It ends all the same.


def test_the_hash_of_a_message_can_be_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "opportune", "hash", "shop", SECRET_ID],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == f"{message_hash('shop', SECRET_ID)}\n"
