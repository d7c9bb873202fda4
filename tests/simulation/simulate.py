"""Many seeds, on all cores; and what is to be done with one that fails: say how to see it again, and make it small."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

from tests.simulation.loop import Stuck
from tests.simulation.planted import planted
from tests.simulation.witness import Broken
from tests.simulation.world import Plan, live, plan_of

T = TypeVar("T")

CHUNK: Final = 5
SHRINK_RUNS_MAX: Final = 400


@dataclass(frozen=True)
class Seed:
    """What came of a seed.

    Attributes:
        broken: the promise that was not kept, and how; "" when all were.
        trace: the hash over everything that happened.
        events, virtual_ms, steps: how much world it was.
    """

    seed: int
    broken: str
    trace: str = ""
    events: int = 0
    virtual_ms: int = 0
    steps: int = 0


def lived(plan: Plan, fault: str = "") -> Seed:
    """Let one history happen, with a planted fault if one is named."""
    with planted(fault):
        try:
            done = live(plan)
        except (Broken, Stuck) as error:
            return Seed(plan.seed, str(error))
        return Seed(plan.seed, "", done.trace, done.events, done.virtual_ms, done.steps)


def _several(seeds: list[int], fault: str) -> list[Seed]:
    return [lived(plan_of(seed), fault) for seed in seeds]


def many(seeds: Iterable[int], *, fault: str = "", jobs: int = 0) -> Iterator[Seed]:
    """Run seeds on several processes; yields them as they come.

    Args:
        jobs: how many processes; 0: one a core.
    """
    waiting = iter(seeds)
    jobs = jobs or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running: set[Future[list[Seed]]] = set()
        try:
            while True:
                while len(running) < 2 * jobs and (chunk := list(islice(waiting, CHUNK))):
                    running.add(pool.submit(_several, chunk, fault))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    yield from one.result()
        finally:
            for one in running:
                one.cancel()


def shrunk(plan: Plan, fault: str = "", *, runs_max: int = SHRINK_RUNS_MAX) -> Plan:
    """A shorter history that breaks the same promise: leave out halves, quarters, and so on, as long as it does."""
    promise = lived(plan, fault).broken.partition(":")[0]
    assert promise, f"seed {plan.seed} keeps all promises"
    runs = 0

    def breaks(smaller: Plan) -> bool:
        nonlocal runs
        runs += 1
        return runs <= runs_max and lived(smaller, fault).broken.partition(":")[0] == promise

    plan = replace(plan, acts=_fewest(plan.acts, lambda acts: breaks(replace(plan, acts=acts))))
    plan = replace(plan, told=_fewest(plan.told, lambda told: breaks(replace(plan, told=told))))
    if plan.workers > 1 and breaks(replace(plan, workers=1)):
        plan = replace(plan, workers=1)
    return replace(plan, acts=_fewest(plan.acts, lambda acts: breaks(replace(plan, acts=acts))))


def _fewest(parts: tuple[T, ...], still: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """As few of the parts as still do (delta debugging, by halves)."""
    size = max(1, len(parts) // 2)
    while parts:
        at = 0
        while at < len(parts):
            fewer = parts[:at] + parts[at + size :]
            if still(fewer):
                parts = fewer
            else:
                at += size
        if size == 1:
            return parts
        size = max(1, size // 2)
    return parts
