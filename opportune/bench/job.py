"""The whole job: events from the broker in, profiles, memberships and triggers out, one worker process.

Broker and store are the embedded ones, on the same cores. Two stretches are measured, each by a worker of its own: the
building of a base of customers (a start from nothing), and a shop's steady stream over that base, whose profiles the
second worker finds in the store. All events of a stretch lie on the topics before its worker starts, so what is
measured is how fast it can go. Time runs on the log's clock: alarms fire as they would have.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from opportune.bench.shop import Load, Shop
from opportune.parts import Embedded, Server
from opportune.topics import PARTITIONS, create_topics, wanted_topics
from profiles.ids import SHARDS
from profiles.wire import DEAD_LETTERS, DECISIONS, SEGMENT_CHANGES, Event, Record, encode_event, trigger_topic
from rules.compile import compile_rules
from rules.rulebook import Rulebook
from stream.log import KafkaLog
from stream.rulebook import PACKS, read_rule_files
from stream.settings import read
from stream.store import RedisStore

MORE_RULES: Final = Path(__file__).parent / "rules"
PUBLISHED_AT_ONCE: Final = 10_000
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a worker's run over a stretch of events cost and came to.

    Attributes:
        events_per_s: from the first record read to the last one applied, stored and published.
        cpu_us: CPU time of a process for an event, by process: worker, broker, store.
        stages_us: the worker's CPU time for an event, by stage.
        waits_s: wall time that batches waited for the store and the broker, together.
        yardstick_ns: how slow the processor was meanwhile: a turn of a small loop.
        counts: records and what became of them.
    """

    events: int
    events_per_s: float
    wall_s: float
    cpu_us: dict[str, float]
    stages_us: dict[str, float]
    waits_s: dict[str, float]
    yardstick_ns: float
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Result:
    """Both stretches.

    Attributes:
        profiles: in the store at the end.
        profile_bytes: what the store's memory grew by for each of them, indexes and all.
        sizes: members by segment at the end.
        digest: of memberships and trigger ids: the same for the same seed and rules, however fast.
    """

    load: Load
    segments: int
    triggers: int
    base: Stretch
    steady: Stretch
    profiles: int
    profile_bytes: float
    sizes: dict[str, int]
    digest: str


def rule_files() -> list[tuple[str, str]]:
    """The shop pack and more, 30 segments."""
    return read_rule_files(PACKS / "shop") + read_rule_files(MORE_RULES)


async def run(
    load: Load, files: list[tuple[str, str]], *, profile: bool = False, told: Any = lambda line: None
) -> Result:
    """Run the whole job once.

    Args:
        files: the rules, (name, text) each.
        profile: run the workers under cProfile, whose tables go to standard error; their times are then not a worker's.
        told: takes lines about how far it is.
    """
    with tempfile.TemporaryDirectory(prefix="opportune-bench-") as name:
        folder = Path(name)
        rules = folder / "rules"
        rules.mkdir()
        for number, (_, text) in enumerate(files):
            (rules / f"{number}.yaml").write_text(text, encoding="utf-8")
        book = compile_rules(files)
        async with Embedded(folder, keep=False) as parts:
            await create_topics(parts.bootstrap, wanted_topics(book.triggers))
            bench = Bench(parts, rules, book, profile)
            empty_bytes = await bench.store_bytes()
            shop = Shop(load)
            base = await bench.stretch(shop.base())
            told(f"base: {base.events:,} events in {base.wall_s:.1f} s")
            steady = await bench.stretch(shop.steady())
            sizes, digest = await bench.outcome()
            profiles = sum(state.ordinals for state in await bench.store.read_shards(range(SHARDS)))
            grown_bytes = await bench.store_bytes() - empty_bytes
            await bench.store.close()
            return Result(
                load=load,
                segments=len(book.segments),
                triggers=len(book.triggers),
                base=base,
                steady=steady,
                profiles=profiles,
                profile_bytes=grown_bytes / max(1, profiles),
                sizes=sizes,
                digest=digest,
            )


class Bench:
    """The parts, and how far the log has got.

    Attributes:
        env: the settings of workers.
        store: what they write to.
    """

    def __init__(self, parts: Embedded, rules: Path, book: Rulebook, profile: bool) -> None:
        self.store = RedisStore(parts.redis_url)
        self._parts = parts
        self._book = book
        self._profile = profile
        self.env = {
            "OPPORTUNE_BOOTSTRAP": parts.bootstrap,
            "OPPORTUNE_REDIS_URL": parts.redis_url,
            "OPPORTUNE_SECRET": "00" * 16,
            "OPPORTUNE_RULES": str(rules),
            "OPPORTUNE_CLOCK": "log",
            "OPPORTUNE_LOG_LEVEL": "warning",
            "OPPORTUNE_LOG_FORMAT": "plain",
            "OPPORTUNE_SESSION_MS": "3000",
            "OPPORTUNE_HEARTBEAT_MS": "500",
        }
        self._published = 0  # events on the topics
        self._taken = 0  # records of the input topics that the workers so far have read
        self._commands = 0  # of these, commands
        self._read_to: dict[TopicPartition, int] = {}  # of the topics out
        self._trigger_ids: list[str] = []

    async def stretch(self, events: Iterable[tuple[str, Event]]) -> Stretch:
        """Publish these events, and run a worker over them."""
        count = await self._publish(events)
        self._published += count
        before = {server.name: cpu_s(server) for server in self._parts.servers}
        found = await self._worker()
        others = {server.name: cpu_s(server) - before[server.name] for server in self._parts.servers}
        made = await self._result(count, found, others)
        self._taken, self._commands = found["taken"], found["commands"]
        return made

    async def _publish(self, events: Iterable[tuple[str, Event]]) -> int:
        log = KafkaLog(read(self.env).own)
        await log.start()
        count = 0
        waiting: list[Record] = []
        for topic, event in events:
            count += 1
            waiting.append(Record(topic, event.address, encode_event(event)))
            if len(waiting) == PUBLISHED_AT_ONCE:
                await log.publish(waiting)
                waiting = []
        await log.publish(waiting)
        await log.stop()
        return count

    async def _worker(self) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # Not the folder that we stand in: the core that we measure by, plain or compiled, is the worker's, too.
            "-m",
            "opportune.bench.process",
            str(self._published),
            str(self._taken),
            *(["--profile"] if self._profile else []),
            env={**os.environ, **self.env},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            out, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == 0, f"the worker of the bench ended with {process.returncode}"
        found: dict[str, Any] = orjson.loads(out)
        return found

    async def _result(self, events: int, found: dict[str, Any], others: dict[str, float]) -> Stretch:
        metrics, after = found["metrics"], found["after"]

        def total(values: dict[str, float], name: str) -> float:
            return sum(value for key, value in values.items() if key.partition("{")[0] == name)

        stages = {
            key.partition("{")[2][:-1]: value / events * 1e6
            for key, value in metrics.items()
            if key.startswith("opportune_stage_cpu_seconds_total")
        }
        worker_us = found["cpu_s"] / events * 1e6
        stages["transport, clients, loop"] = worker_us - sum(stages.values())
        topics = [trigger_topic(name) for name in self._book.triggers]
        records = await self._read([*topics, SEGMENT_CHANGES, DECISIONS, DEAD_LETTERS])
        ids = [orjson.loads(value)["trigger_id"] for topic in topics for value in records[topic]]
        self._trigger_ids += ids
        outcomes = Counter[str]()
        for key, value in after.items():
            if key.startswith("opportune_events_total"):
                outcomes[key[:-1].partition("{")[2].partition(",")[0]] += int(value)
        return Stretch(
            events=events,
            events_per_s=events / found["wall_s"],
            wall_s=found["wall_s"],
            cpu_us={"worker": worker_us, **{name: cpu_s / events * 1e6 for name, cpu_s in others.items()}},
            stages_us=stages,
            waits_s={
                "store": total(metrics, "opportune_commit_seconds_sum"),
                "broker": total(metrics, "opportune_outbox_publish_seconds_sum"),
            },
            yardstick_ns=found["yardstick_ns"],
            counts={
                **outcomes,
                "commands": found["commands"] - self._commands,
                "alarms": int(total(after, "opportune_alarms_total")),
                "batches": int(total(after, "opportune_batch_events_count")),
                "triggers": len(ids),
                "changes": len(records[SEGMENT_CHANGES]),
                "decisions": len(records[DECISIONS]),
                "dead": len(records[DEAD_LETTERS]),
                "cache misses": int(after.get("opportune_cache_lookups_total{miss}", 0)),
                "peak MB": int(found["peak_mb"]),
            },
        )

    async def outcome(self) -> tuple[dict[str, int], str]:
        """Members by segment, and the digest of all that both stretches came to."""
        names = [segment.name for segment in self._book.segments]
        digest = hashlib.blake2b(digest_size=8)
        for name in names:
            digest.update(name.encode())
            for address in sorted(await self._members(name)):
                digest.update(address.encode())
        digest.update("".join(sorted(self._trigger_ids)).encode())
        return await self.store.segment_sizes(names), digest.hexdigest()

    async def store_bytes(self) -> int:
        """What the store's server says it uses."""
        client = Redis.from_url(self._parts.redis_url)
        try:
            return int((await client.info("memory"))["used_memory"])
        finally:
            await client.aclose()

    async def _members(self, segment: str) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            page, cursor = await self.store.members(segment, cursor, 10_000)
            found += page
            if not cursor:
                return found

    async def _read(self, topics: list[str]) -> dict[str, list[bytes]]:
        """What lies on these topics and was not read yet."""
        found: dict[str, list[bytes]] = {topic: [] for topic in topics}
        consumer = AIOKafkaConsumer(bootstrap_servers=self._parts.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            places = [TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]
            consumer.assign(places)
            for place in places:
                consumer.seek(place, self._read_to.get(place, 0))
            unread = set(places)
            while unread:
                for place, records in (await consumer.getmany(timeout_ms=50)).items():
                    found[place.topic] += (record.value for record in records)
                # A fetch tells the end right, this broker's answer to the direct question does not.
                unread = {
                    place
                    for place in unread
                    if not consumer.last_poll_timestamp(place)
                    or await consumer.position(place) < (consumer.highwater(place) or 0)
                }
            self._read_to = {place: await consumer.position(place) for place in places}
        finally:
            await consumer.stop()
        return found


def cpu_s(server: Server) -> float:
    """CPU time of a server so far; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
