"""The benchmark runs, and a faster answer is still the same answer: its smoke size, untimed."""

from __future__ import annotations

import re

from opportune.bench.command import main


def test_the_bench_prints_the_same_digests_each_time() -> None:
    runs = []
    for _ in range(2):
        lines: list[str] = []
        assert main("smoke", lines.append) == 0
        text = "\n".join(lines)
        assert "events/s" in text
        runs.append(re.findall(r"digest ([0-9a-f]{16})", text))
    assert len(runs[0]) == 2
    assert runs[0] == runs[1]


def test_an_unknown_size_is_told() -> None:
    lines: list[str] = []
    assert main("huge", lines.append) == 2
    assert lines == ["size: one of smoke, real wanted, got huge"]
