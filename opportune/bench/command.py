"""``opportune bench``: the core by itself, then the whole job on real parts; prints seed and digest with the numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from opportune.bench import core, job
from opportune.bench.job import Stretch
from opportune.bench.shop import Load

SEED: Final = 42


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        core_events: of the core by itself.
        others: segments that cannot be touched.
        customers, events: of the whole job: its base, and the steady stream over it.
    """

    core_events: int
    others: int
    customers: int
    events: int


SIZES: Final = {"smoke": Size(300, 40, 400, 2_000), "real": Size(40_000, 980, 100_000, 500_000)}


def main(
    size: str,
    say: Callable[[str], None] = print,
    *,
    customers: int | None = None,
    events: int | None = None,
    profile: bool = False,
) -> int:
    """Measure; the process's exit code.

    Args:
        size: ``smoke`` or ``real``.
        say: takes the lines.
        customers, events: of the whole job, in place of the size's.
        profile: run the workers of the whole job under cProfile.
    """
    if size not in SIZES:
        say(f"size: one of {', '.join(SIZES)} wanted, got {size}")
        return 2
    wanted = SIZES[size]
    costs, digest = core.measure(Load(SEED, wanted.core_events), wanted.others)
    say(f"core, CPU time a call (seed {SEED}, {wanted.core_events:,} events, digest {digest})")
    for cost in costs:
        say(f"  {cost.name:<28} {cost.us:8.2f} µs   {cost.said}")
    load = Load(SEED, events or wanted.events, customers or wanted.customers)
    result = asyncio.run(job.run(load, profile=profile, told=lambda line: say(f"  {line}")))
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


def _say_stretch(name: str, stretch: Stretch, say: Callable[[str], None]) -> None:
    say(f"  {name}")
    say(f"    {stretch.events_per_s:,.0f} events/s: {stretch.events:,} events in {stretch.wall_s:.1f} s")
    say(f"    yardstick {stretch.yardstick_ns:.0f} ns: above 115, the processor was busy with others, or is slower")
    say("    CPU µs an event: " + ", ".join(f"{name} {us:.1f}" for name, us in stretch.cpu_us.items()))
    say("    of the worker's: " + ", ".join(f"{name} {us:.1f}" for name, us in stretch.stages_us.items()))
    say("    waited, s: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in stretch.waits_s.items()))
    say("    " + ", ".join(f"{name} {count:,}" for name, count in stretch.counts.items()))
