"""``opportune simulate``: seeds, crashes, planted faults, with a progress bar; and for a seed that fails, all one needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from resource import RUSAGE_CHILDREN, getrusage

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from profiles.errors import Refused
from profiles.moments import HOUR_MS
from stream.clock import monotonic_ms
from tests.simulation.crashes import SCENARIOS, crashed, places
from tests.simulation.planted import PLANTS
from tests.simulation.simulate import Seed, many, shrunk
from tests.simulation.world import Outcome, live, plan_of

FOUND_WITHIN = 2_000
"""Each planted fault must be found by one of so many seeds."""


def main(seeds: int, first: int, fault: str, *, with_crashes: bool, jobs: int = 0) -> int:
    """Run the worlds; the process's exit code.

    Args:
        seeds: how many.
        first: the first of them.
        fault: a planted one; "all" makes the table of all of them.
        with_crashes: also die at every place of the fixed histories.
        jobs: processes; 0: one a core.
    Raises:
        Refused: no such fault.
    """
    console = Console(highlight=False)
    if fault == "all":
        return _table(console, jobs)
    if fault and fault not in PLANTS:
        raise Refused(f"--planted: one of {', '.join(sorted(PLANTS))}, or all, wanted, got {fault!r}")
    began_ms = monotonic_ms()
    failed: list[Seed] = []
    events = virtual_ms = 0
    with _progress(console) as progress:
        bar = progress.add_task("worlds", total=seeds)
        for one in many(range(first, first + seeds), fault=fault, jobs=jobs):
            progress.advance(bar)
            events, virtual_ms = events + one.events, virtual_ms + one.virtual_ms
            if one.broken:
                failed.append(one)
                console.print(f"seed {one.seed}: {one.broken}")
                console.print(f"  again: opportune simulate --seeds 1 --from {one.seed}")
                if fault:
                    break
    took_s = (monotonic_ms() - began_ms) / 1000
    if failed:
        smallest = shrunk(plan_of(min(one.seed for one in failed)), fault)
        console.print("\nthe shortest history that breaks the same promise:\n" + str(smallest))
    hours = virtual_ms / HOUR_MS
    console.print(
        f"{seeds} worlds from seed {first}: {len(failed)} broke a promise; {took_s:.0f} s, {_worked_s():.0f} s of processors, "
        f"{events / took_s:,.0f} simulated events/s, {hours / (took_s / 60):.1f} virtual hours per minute"
    )
    wrong = _crashes(console, jobs) if with_crashes else 0
    return 1 if failed or wrong else 0


def _crashes(console: Console, jobs: int) -> int:
    began_ms, before_s = monotonic_ms(), _worked_s()
    tried = wrong = 0
    with ProcessPoolExecutor(jobs or None, get_context("spawn")) as pool, _progress(console) as progress:
        for name in SCENARIOS:
            steps = places(_calm(name))
            bar = progress.add_task(f"crashes: {name}", total=len(steps))
            chunks = [steps[at : at + 10] for at in range(0, len(steps), 10)]
            for found in pool.map(_several, [name] * len(chunks), chunks):
                progress.advance(bar, 10)
                for what in found:
                    tried += 1
                    if what:
                        wrong += 1
                        console.print(what)
    took_s = (monotonic_ms() - began_ms) / 1000
    console.print(
        f"{tried} crashes: {wrong} left something else; {took_s:.0f} s, {_worked_s() - before_s:.0f} s of processors"
    )
    return wrong


def _several(name: str, steps: list[int]) -> list[str]:
    return [crashed(name, _calm(name), step) for step in steps]


@cache
def _calm(name: str) -> Outcome:
    """What comes of it when nobody dies: told once a process."""
    return live(SCENARIOS[name])


def found(faults: Iterable[str], *, most: int = FOUND_WITHIN, jobs: int = 0) -> Iterator[tuple[str, int, str]]:
    """(fault, seeds needed, the broken promise) for each; 0 seeds where none of so many found it."""
    for fault in faults:
        needed, broken = 0, ""
        seen: set[int] = set()
        for one in many(range(most), fault=fault, jobs=jobs):
            seen.add(one.seed)
            if one.broken and (not needed or one.seed + 1 < needed):
                needed, broken = one.seed + 1, one.broken
            if needed and seen.issuperset(range(needed)):  # They come as they are done: an earlier one may yet find it.
                break
        yield fault, needed, broken


def _table(console: Console, jobs: int) -> int:
    missed = 0
    console.print("| planted fault | seeds needed | found as |\n| --- | --- | --- |", markup=False)
    for fault, needed, broken in found(PLANTS, jobs=jobs):
        missed += not needed
        console.print(f"| {fault} | {needed or 'not found'} | {broken[:90]} |", markup=False, soft_wrap=True)
    return 1 if missed else 0


def _worked_s() -> float:
    """For how long the processes that we started, and that have ended, kept processors busy."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
