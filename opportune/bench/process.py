"""The worker of the whole job: a process like any other worker's, which also says what it cost.

    python -m opportune.bench.process EVENTS BEHIND     # settings as OPPORTUNE_… variables

EVENTS lie on the topics; BEHIND records of all input topics were read by workers before it. It begins to measure when
the first records arrive, ends when all are applied, stored and published, then lets the
alarms that are due up to the last record fire, and prints one JSON object.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import pstats
import resource
import sys
from typing import Any, Final

from prometheus_client import REGISTRY

from opportune import logs
from profiles.wire import EVENT_TOPICS, PROFILE_COMMANDS
from stream import settings
from stream.clock import monotonic_ns, thread_cpu_ns
from stream.worker import LiveWorker, tune

POLL_S: Final = 0.1
QUIET_S: Final = 0.1
YARDSTICK_TURNS: Final = 2_000


async def measure(events: int, behind: int, profile: bool) -> dict[str, Any]:
    """Run a worker over what lies on the topics."""
    worker = LiveWorker(settings.read(os.environ), relaxed=True)
    profiler = cProfile.Profile() if profile else None
    starting = asyncio.ensure_future(worker.start())
    while worker.progress().taken <= behind:
        await asyncio.sleep(0)
        if starting.done():
            await starting
    ended = asyncio.ensure_future(worker.wait())
    wall_ns, cpu_s = monotonic_ns(), _cpu_s()
    if profiler is not None:
        profiler.enable()
    yardsticks = [yardstick_ns()]
    looking_ns = 0
    while True:
        looked_ns = thread_cpu_ns()
        yardsticks.append(yardstick_ns())
        progress = worker.progress()
        looking_ns += thread_cpu_ns() - looked_ns
        if progress.is_settled and sum(progress.applied[topic] for topic in EVENT_TOPICS) >= events:
            break
        await asyncio.wait([ended], timeout=POLL_S)
        if ended.done():
            await ended
    wall_s, cpu_s = (monotonic_ns() - wall_ns) / 1e9, _cpu_s() - cpu_s - looking_ns / 1e9
    if profiler is not None:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    told = {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "yardstick_ns": sorted(yardsticks)[len(yardsticks) // 2],
        "metrics": _metrics(),
    }
    while not progress.is_settled or progress.alarms_ms < worker.clock.now_ms():
        await asyncio.wait([ended], timeout=QUIET_S)
        if ended.done():
            await ended
        progress = worker.progress()
    told["after"] = _metrics()
    told["taken"] = progress.taken
    told["commands"] = progress.applied[PROFILE_COMMANDS]
    told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    await starting
    await worker.stop()
    await ended
    return told


def yardstick_ns() -> float:
    """CPU time of a turn of a small loop: tells how fast the processor is just now, for who compares runs."""
    table: dict[int, tuple[int, str]] = {}
    for turn in range(2 * YARDSTICK_TURNS):
        if turn == YARDSTICK_TURNS:
            started_ns = thread_cpu_ns()  # the first half has warmed it up
        table[turn & 1023] = (turn, str(turn & 63))
        table.get(turn & 511)
    return (thread_cpu_ns() - started_ns) / YARDSTICK_TURNS


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _metrics() -> dict[str, float]:
    found: dict[str, float] = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name.startswith("opportune_") and not sample.name.endswith(("_created", "_bucket")):
                labels = ",".join(sample.labels[name] for name in sorted(sample.labels))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


if __name__ == "__main__":
    own = settings.read(os.environ).own
    logs.configure(own.log_format, own.log_level)
    tune()
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]), "--profile" in sys.argv))))
