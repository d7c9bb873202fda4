"""What a worker's process says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
