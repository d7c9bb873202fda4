"""What a record costs on its way from a broker to an engine that does nothing with it.

    python -m tests.bench.bench_transport [records] [--profile]

Publishes records of 300 bytes to all input topics of an embedded broker, then lets one ``Worker`` read them all.
Prints rates, CPU time of this process a record (the broker is another process), and a digest of what was read.
"""

from __future__ import annotations

import asyncio
import cProfile
import hashlib
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from opportune import parts
from opportune.topics import create_topics, wanted_topics
from profiles.wire import INPUT_TOPICS, Record
from stream.app import Worker
from stream.log import KafkaLog
from stream.ports import LogRecord
from stream.settings import Agreed, Own, Settings

PARTITIONS = 8
VALUE = b"x" * 300
PUBLISHED_AT_ONCE = 10_000


class Nothing:
    """An engine that counts."""

    def __init__(self, records: int) -> None:
        self.missing = records
        self.chunks = 0
        self.done = asyncio.Event()
        self.ends: dict[tuple[str, int], int] = {}

    async def claim(self, partitions: Sequence[int]) -> dict[tuple[str, int], int]:
        return {(topic, partition): 0 for topic in INPUT_TOPICS for partition in partitions}

    async def release(self, partitions: Sequence[int]) -> None:
        pass

    async def deliver(self, topic: str, partition: int, records: Sequence[LogRecord], read_ms: int) -> None:
        self.chunks += 1
        self.missing -= len(records)
        if self.missing <= 0:
            self.done.set()

    def at_end(self, topic: str, partition: int, position: int, answered_ms: int) -> None:
        self.ends[topic, partition] = position


class Meter:
    """Wall and CPU time of a stage."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def said(self, what: str, records: int) -> str:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return (
            f"{what}: {records / wall:,.0f} records/s, {cpu / records * 1e6:.2f} us CPU a record, "
            f"CPU {cpu / wall:.0%} of a core"
        )


async def main(records: int, profile: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with parts.broker(Path(folder)) as broker:
            await create_topics(broker.address, wanted_topics(partitions=PARTITIONS))
            settings = Settings(
                Agreed(partitions=PARTITIONS), Own(bootstrap=broker.address, session_ms=3_000, heartbeat_ms=500)
            )
            log = KafkaLog(settings.own)
            await log.start()
            meter = Meter()
            for at in range(0, records, PUBLISHED_AT_ONCE):
                await log.publish(
                    [
                        Record(INPUT_TOPICS[n % len(INPUT_TOPICS)], f"user:{n % 50_000}", VALUE)
                        for n in range(at, min(at + PUBLISHED_AT_ONCE, records))
                    ]
                )
            print(meter.said("publish", records))
            await log.stop()

            engine = Nothing(records)
            worker = Worker(settings, engine, KafkaLog(settings.own))
            profiler = cProfile.Profile()
            if profile:
                profiler.enable()
            starting = asyncio.ensure_future(worker.start())
            while not engine.chunks:
                await asyncio.sleep(0)
            meter = Meter()
            await engine.done.wait()
            print(meter.said("deliver", records), f"({records / engine.chunks:.0f} records a chunk)")
            await starting
            if profile:
                profiler.disable()
                pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
            while sum(engine.ends.values()) < records:
                await asyncio.sleep(0.01)
            meter = Meter()
            await asyncio.sleep(5)
            print(f"idle: {(time.process_time() - meter.cpu) / 5:.2%} of a core")
            digest = hashlib.blake2b(repr(sorted(engine.ends.items())).encode(), digest_size=8).hexdigest()
            print("digest", digest)
            await worker.stop()


if __name__ == "__main__":
    numbers = [argument for argument in sys.argv[1:] if argument.isdigit()]
    asyncio.run(main(int(numbers[0]) if numbers else 500_000, "--profile" in sys.argv))
