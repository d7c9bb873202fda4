"""What a worker's process says of itself, and when it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stream.app
from stream.app import run
from stream.effects import FencedOut
from stream.settings import Agreed, Own, Settings

FAILING = """
import logging, sys
from opportune import logs

def apply(record):
    address = record.partition("|")[0]
    raise ValueError("on purpose")

logs.configure(sys.argv[1], "info")
try:
    apply(sys.argv[2])
except ValueError:
    logging.getLogger("faust.transport").exception("it crashed")
"""


@pytest.mark.invariant("R25")
@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_traceback_tells_places_in_code_and_no_values(form: str, tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script), form, "ana@shop.example|x"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": root},
    )
    assert "it crashed" in done.stderr
    assert "ValueError: on purpose" in done.stderr
    assert "in apply" in done.stderr
    assert "ana@shop" not in done.stderr


class Staged:
    """A worker that is fenced, finds no store, or works until it is asked to stop, as its script says."""

    def __init__(self, script: list[str]) -> None:
        self._does = script.pop(0)
        self._ended = asyncio.Event()

    async def start(self) -> None:
        if self._does == "away":
            raise ConnectionError("store at nowhere: an answer wanted")
        if self._does == "works":
            os.kill(os.getpid(), signal.SIGTERM)

    async def wait(self) -> None:
        if self._does == "fenced":
            raise FencedOut("shards [1]")
        await self._ended.wait()

    async def stop(self) -> None:
        self._does = "stopped"
        self._ended.set()


@pytest.mark.invariant("R27")
@pytest.mark.parametrize(
    ("script", "code"),
    [
        (["works"], 0),
        (["away"], 1),  # Whoever starts it shall hear of it at once.
        (["fenced", "works"], 0),
        (["fenced", "away", "away", "away", "away", "works"], 0),
        (["fenced", "away", "fenced", "away", "fenced", "fenced"], 1),
    ],
)
def test_one_that_starts_anew_after_a_fence_waits_for_a_store_that_is_away(
    script: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.app, "AWAY_S", 0.01)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    async def make(_: Settings) -> Staged:
        return Staged(script)

    try:
        assert run(Settings(Agreed(), Own()), make) == code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert script == []
