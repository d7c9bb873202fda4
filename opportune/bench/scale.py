"""What an event costs with several workers, against one, at a rate that both carry.

    opportune bench --workers 2 --rate 2000

The base is built first. Then stretches of the steady stream are published at the rate, by turns to one worker and to
several, each a process of its own begun anew; the turns are mirrored (1 2 2 1 …), so that a machine that slowly becomes
busier favours neither. Compared is CPU time of all workers for an event, which other people's load changes little;
wall time says nothing here but that the rate was carried.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from opportune.bench.job import Bench, cpu_s
from opportune.bench.shop import Load, Shop
from opportune.parts import Embedded, Server
from opportune.topics import create_topics, wanted_topics
from profiles.wire import EVENT_TOPICS, Event, Record, encode_event
from rules.compile import compile_rules
from stream.clock import monotonic_ns
from stream.log import KafkaLog
from stream.settings import read

TICK_S: Final = 0.05
WARM_S: Final = 5.0
SETTLED_WITHIN_S: Final = 120.0


class Turn(NamedTuple):
    """One stretch.

    Attributes:
        workers: how many shared it.
        rate: events a second that they took.
        cpu_us: CPU time of all workers for an event.
        commands: records of profile_commands that they took for each 1,000 events.
        cores: of which they used so much together.
    """

    workers: int
    rate: float
    cpu_us: float
    commands: float
    cores: float


async def run(
    load: Load, files: list[tuple[str, str]], *, workers: int, rate: int, seconds: float, turns: int
) -> list[Turn]:
    """Measure, and tell each turn in order.

    Args:
        load: its base is built; the steady stream gives what it has, as much as the turns take.
        files: the rules, (name, text) each.
        rate: events a second.
        seconds: how long each turn is measured, after ``WARM_S``.
        turns: of each kind.
    Raises:
        AssertionError: a worker ended, or the rate was not carried.
    """
    with tempfile.TemporaryDirectory(prefix="opportune-bench-") as name:
        folder = Path(name)
        rules = folder / "rules"
        rules.mkdir()
        for number, (_, text) in enumerate(files):
            (rules / f"{number}.yaml").write_text(text, encoding="utf-8")
        book = compile_rules(files)
        async with Embedded(folder) as parts:
            await create_topics(parts.bootstrap, wanted_topics(book.triggers))
            bench = Bench(parts, rules, book, profile=False)
            # A machine that others keep busy may hold a worker up for longer than the bench's short session.
            bench.env |= {"OPPORTUNE_SESSION_MS": "10000", "OPPORTUNE_HEARTBEAT_MS": "1000"}
            shop = Shop(load)
            await bench.stretch(shop.base())
            steady = shop.steady()
            found: list[Turn] = []
            for turn in range(turns):
                for count in (1, workers) if turn % 2 == 0 else (workers, 1):
                    place = folder / f"turn-{len(found)}"
                    # A group of its own: the embedded broker may wait for ever for a member that has left.
                    env = bench.env | {"OPPORTUNE_GROUP": place.name}
                    found.append(await _turn(env, place, steady, count, rate, seconds))
            await bench.store.close()
            return found


async def _turn(
    env: dict[str, str], folder: Path, events: Iterator[tuple[str, Event]], count: int, rate: int, seconds: float
) -> Turn:
    log = KafkaLog(read(env).own)
    async with AsyncExitStack() as stack:
        await log.start()
        stack.push_async_callback(log.stop)
        running = [_worker(env, folder / f"worker-{number}", number) for number in range(count)]
        async with asyncio.TaskGroup() as starting:
            for server in running:
                starting.create_task(stack.enter_async_context(server))
        await _publish(log, events, rate, WARM_S)
        cpu_before, taken_before, since_ns = _cpu(running), await _taken(running), monotonic_ns()
        await _publish(log, events, rate, seconds)
        cpu_after, taken_after, until_ns = _cpu(running), await _taken(running), monotonic_ns()
        took_s = (until_ns - since_ns) / 1e9
        told = taken_after[0] - taken_before[0]
        assert told > 0.8 * rate * took_s, f"{count} workers: {rate} events/s wanted, {told / took_s:.0f} were taken"
        return Turn(
            count,
            told / took_s,
            (cpu_after - cpu_before) / told * 1e6,
            (taken_after[1] - taken_before[1]) / told * 1e3,
            (cpu_after - cpu_before) / took_s,
        )


async def _publish(log: KafkaLog, events: Iterator[tuple[str, Event]], rate: int, seconds: float) -> None:
    """Publish at the rate for so long."""
    since_ns, sent = monotonic_ns(), 0
    while (gone_s := (monotonic_ns() - since_ns) / 1e9) < seconds:
        due = int(rate * gone_s) - sent
        batch = [Record(topic, event.address, encode_event(event)) for topic, event in islice(events, due)]
        assert len(batch) == due, "the stream is too short for the turns: more events wanted"
        await log.publish(batch)
        sent += due
        await asyncio.sleep(TICK_S)


def _worker(env: dict[str, str], folder: Path, number: int) -> Server:
    def command(server: Server) -> list[str | Path]:
        settings = {**env, "OPPORTUNE_METRICS_PORT": str(server.port)}
        words = [f"{name}={value}" for name, value in settings.items()]
        # What ran before with other settings must not reach it.
        kept = [f"--unset={name}" for name in os.environ if name.startswith("OPPORTUNE_") and name not in settings]
        return ["/usr/bin/env", *kept, *words, sys.executable, "-P", "-m", "opportune", "worker"]

    async def ready(server: Server) -> None:
        await asyncio.to_thread(_get, server, "/readyz")

    return Server(f"worker-{number}", command, ready, folder)


def _get(server: Server, path: str) -> str:
    with urllib.request.urlopen(f"http://{server.address}{path}", timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


def _cpu(running: list[Server]) -> float:
    return sum(cpu_s(server) for server in running)


async def _taken(running: list[Server]) -> tuple[float, float]:
    """Records that the workers took: events, and commands."""
    events = commands = 0.0
    for server in running:
        text = await asyncio.to_thread(_get, server, "/metrics")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "opportune_records_taken_total":
                    if sample.labels["topic"] in EVENT_TOPICS:
                        events += sample.value
                    else:
                        commands += sample.value
    return events, commands
