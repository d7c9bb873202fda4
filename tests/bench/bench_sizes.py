"""The coefficients of docs/sizing.md: what profiles take in Redis and events on Kafka's disk, on the real parts.

    python -m tests.bench.bench_sizes [CUSTOMERS [EVENTS]]

Builds a base and runs a steady stream over it (``opportune/bench/shop.py``), once for each set of rules, and looks at what
lies in Kafka's folders and in the store's memory before and after.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opportune.bench.job import Bench, rule_files
from opportune.bench.shop import Load, Shop
from opportune.parts import Server, redis_url
from opportune.topics import create_topics, wanted_topics
from profiles.ids import SHARDS
from profiles.wire import INPUT_TOPICS
from rules.compile import compile_rules
from stream.rulebook import PACKS, read_rule_files
from tests.parts import real

SEED: Final = 42
ONE_RULE: Final = "segments: {buyers: {did: order_completed, window: {within: P30D}}}"
RULES: Final = {
    "one segment": [("one", ONE_RULE)],
    "the shop pack": read_rule_files(PACKS / "shop"),
    "30 segments, 7 triggers": rule_files(),
}


@dataclass(frozen=True)
class Parts:
    """The real ones, as the bench asks for its parts."""

    servers: tuple[Server, ...]

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return self.servers[0].address

    @property
    def redis_url(self) -> str:
        """The store's."""
        return redis_url(self.servers[1])


def on_disk(broker: Server) -> dict[str, int]:
    """Bytes of records by topic, without indexes."""
    found: dict[str, int] = {}
    for path in (broker.folder / "log").glob("*/*.log"):
        topic = path.parent.name.rpartition("-")[0]
        found[topic] = found.get(topic, 0) + path.stat().st_size
    return found


async def measure(name: str, customers: int, events: int) -> list[str]:
    """Run one set of rules; lines of what it came to."""
    files = RULES[name]
    book = compile_rules(files)
    with tempfile.TemporaryDirectory(prefix="opportune-sizes-") as place:
        folder = Path(place)
        rules = folder / "rules"
        rules.mkdir()
        for number, (_, text) in enumerate(files):
            (rules / f"{number}.yaml").write_text(text, encoding="utf-8")
        async with AsyncExitStack() as stack:
            servers = (real.kafka(folder / "kafka"), real.redis_server(folder / "redis"))
            for server in servers:
                await stack.enter_async_context(server)
            parts: Any = Parts(servers)
            await create_topics(parts.bootstrap, wanted_topics(book.triggers))
            bench = Bench(parts, rules, book, profile=False)
            bench.env |= {
                "OPPORTUNE_SESSION_MS": "30000",
                "OPPORTUNE_HEARTBEAT_MS": "3000",
            }  # Kafka needs no short ones.
            shop, lines = Shop(Load(SEED, events, customers)), [f"{name}:"]
            empty, lies = await bench.store_bytes(), on_disk(servers[0])
            for what, stream in (("base", shop.base()), ("steady stream", shop.steady())):
                stretch = await bench.stretch(stream)
                grown, disk = await bench.store_bytes(), on_disk(servers[0])
                profiles = sum(state.ordinals for state in await bench.store.read_shards(range(SHARDS)))
                on_topics = {one: (disk[one] - lies.get(one, 0)) / stretch.events for one in disk}
                came = sum(on_topics.get(topic, 0.0) for topic in INPUT_TOPICS[:-1])
                went = {one: size for one, size in on_topics.items() if one not in INPUT_TOPICS[:-1] and size >= 0.5}
                lines.append(
                    f"  {what}: {stretch.events:,} events, {profiles:,} profiles, {(grown - empty) / profiles:,.0f} bytes of memory a profile; "
                    f"Kafka {came:,.0f} bytes an event in, {sum(went.values()):,.0f} out ("
                    + ", ".join(f"{one} {size:.0f}" for one, size in sorted(went.items()))
                    + ")"
                )
                lies = disk
            await bench.store.close()
            return lines


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    for one in RULES:
        for line in asyncio.run(measure(one, *(asked + [10_000, 50_000][len(asked) :]))):
            print(line, flush=True)
