"""The benchmark runs, and a faster answer is still the same answer: its smoke size, untimed."""

from __future__ import annotations

import re
from pathlib import Path

from opportune.bench.command import compare, main


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


def test_the_bench_takes_a_shops_own_rules(tmp_path: Path) -> None:
    (tmp_path / "buyers.yaml").write_text("segments: {buyers: {did: order_completed, times: {gte: 1}}}")
    lines: list[str] = []
    assert main("smoke", lines.append, rules=tmp_path) == 0
    assert any("1 segments, 0 triggers" in line for line in lines)


def test_two_workers_are_compared_with_one_at_a_rate_that_both_carry() -> None:
    lines: list[str] = []
    assert compare(2, 50, lines.append, size="smoke") == 0
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert re.fullmatch(r"  medians [\d.]+ and [\d.]+ µs: [\d.]+ times the CPU an event with 2 workers", lines[3])


def test_an_unknown_size_is_told() -> None:
    lines: list[str] = []
    assert main("huge", lines.append) == 2
    assert lines == ["size: one of smoke, real wanted, got huge"]
