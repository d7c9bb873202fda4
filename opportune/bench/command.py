"""``opportune bench``: the core by itself, then the whole job on real parts; prints seed and digest with the numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from opportune.bench import core, job, reads, scale
from opportune.bench.job import Stretch, rule_files
from opportune.bench.shop import Load
from rules import changes
from stream.rulebook import read_rule_files

SEED: Final = 42


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        core_events: of the core by itself.
        others: segments that cannot be touched.
        reads: answers of the API, of each kind.
        customers, events: of the whole job: its base, and the steady stream over it.
    """

    core_events: int
    others: int
    reads: int
    customers: int
    events: int


SCALES: Final = {"smoke": (200, 1.0, 1), "real": (10_000, 20.0, 3)}
"""Customers, seconds a turn, turns of each kind."""

SIZES: Final = {"smoke": Size(300, 40, 40, 400, 2_000), "real": Size(40_000, 980, 4_000, 100_000, 500_000)}


def main(
    size: str,
    say: Callable[[str], None] = print,
    *,
    rules: Path | None = None,
    customers: int | None = None,
    events: int | None = None,
    profile: bool = False,
) -> int:
    """Measure; the process's exit code.

    Args:
        size: ``smoke`` or ``real``.
        say: takes the lines.
        rules: the folder with the rules; ``None``: the bench's own.
        customers, events: of the whole job, in place of the size's.
        profile: run the workers of the whole job under cProfile.
    """
    if size not in SIZES:
        say(f"size: one of {', '.join(SIZES)} wanted, got {size}")
        return 2
    wanted = SIZES[size]
    files = _rules(rules)
    costs, digest = core.measure(Load(SEED, wanted.core_events), files, wanted.others)
    made = "plain Python" if changes.__file__.endswith(".py") else "compiled"
    say(f"core, {made}, CPU time a call (seed {SEED}, {wanted.core_events:,} events, digest {digest})")
    for cost in costs:
        say(f"  {cost.name:<28} {cost.us:8.2f} µs   {cost.said}")
    if rules is None:  # What pages ask for, the shop pack answers.
        say("answers of the API over HTTP, one after another, who asks on the same core")
        for one in asyncio.run(reads.measure(Load(SEED, wanted.core_events), wanted.reads)):
            say(f"  {one.name:<28} p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms, {one.requests:,} requests")
    load = Load(SEED, events or wanted.events, customers or wanted.customers)
    result = asyncio.run(job.run(load, files, profile=profile, told=lambda line: say(f"  {line}")))
    say(
        f"whole job (seed {SEED}, base of {load.customers:,} customers, {load.events:,} events over it, "
        f"{result.segments} segments, {result.triggers} triggers, digest {result.digest}), "
        "one worker, embedded parts on the same cores"
    )
    for name, stretch in (
        ("cold start: the base is built", result.base),
        ("steady stream over the base", result.steady),
    ):
        _say_stretch(name, stretch, say)
    say(f"  {result.profiles:,} profiles in the store, {result.profile_bytes:,.0f} bytes each, indexes and all")
    return 0


def _rules(folder: Path | None) -> list[tuple[str, str]]:
    return rule_files() if folder is None else read_rule_files(folder)


def compare(
    workers: int, rate: int, say: Callable[[str], None] = print, *, size: str = "real", rules: Path | None = None
) -> int:
    """What an event costs with several workers, against one; the process's exit code."""
    customers, seconds, turns = SCALES[size]
    stream = int(2 * turns * (seconds + scale.WARM_S) * rate * 1.2)
    load = Load(SEED, stream, customers)
    found = asyncio.run(scale.run(load, _rules(rules), workers=workers, rate=rate, seconds=seconds, turns=turns))
    say(
        f"at {rate:,} events/s over a base of {customers:,} customers, {seconds:.0f} s a turn, embedded parts on the same cores"
    )
    for turn in found:
        say(
            f"  {turn.workers} worker{'s' if turn.workers > 1 else ' '}  {turn.rate:8,.0f} events/s  {turn.cpu_us:6.1f} µs an event  "
            f"{turn.cores:.2f} cores  {turn.commands:.0f} commands a thousand events"
        )
    one, several = (median(turn.cpu_us for turn in found if turn.workers == count) for count in (1, workers))
    say(f"  medians {one:.1f} and {several:.1f} µs: {several / one:.2f} times the CPU an event with {workers} workers")
    return 0


def _say_stretch(name: str, stretch: Stretch, say: Callable[[str], None]) -> None:
    say(f"  {name}")
    say(f"    {stretch.events_per_s:,.0f} events/s: {stretch.events:,} events in {stretch.wall_s:.1f} s")
    say(f"    yardstick {stretch.yardstick_ns:.0f} ns: above 115, the processor was busy with others, or is slower")
    say("    CPU µs an event: " + ", ".join(f"{name} {us:.1f}" for name, us in stretch.cpu_us.items()))
    say("    of the worker's: " + ", ".join(f"{name} {us:.1f}" for name, us in stretch.stages_us.items()))
    say("    waited, s: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in stretch.waits_s.items()))
    say("    " + ", ".join(f"{name} {count:,}" for name, count in stretch.counts.items()))
