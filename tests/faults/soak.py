"""F16, a soak: a live shop for an hour or a night, with one fault of every kind after another, and what grows meanwhile.

python -m tests.faults.soak --minutes 60 --rate 20

Customers tell a collector, each of them one thing after another, and say it again under the same id until it is taken,
as the SDKs do. Every half minute memory and file descriptors of the processes that are never killed, the lag, the
outboxes and what the profiles weigh as stored are looked at; at the end a line is laid through each, from a fifth of
the time on. Then the load stops, and every customer's orders and cart in the store must be what he was told was taken:
nothing less, nothing twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same customers every time
from typing import Any, Final

import httpx
import orjson

from opportune.parts import HOST, free_port
from profiles import carts
from profiles.ids import SHARDS
from profiles.wire import DEAD_LETTERS, EVENT_TOPICS
from stream.clock import monotonic_ms
from tests.faults.arena import IDS, WITHIN_S, Arena, Plan, commit, standing
from tests.faults.plans import ROUGH
from tests.faults.proxy import FAIR
from tests.integration.parts import KEYS, WEB_KEY, WorkerProcess, until

CUSTOMERS: Final = 200
TELLERS: Final = 20
LOOK_S: Final = 30.0
PLAN: Final = Plan("F16", "soak", None, 2, 0, 0, 0, 0, settings={"clock": "store"})


class CollectorProcess(WorkerProcess):
    """``opportune collector`` on a port of its own."""

    command = "collector"

    async def ready(self) -> None:
        """Return when it answers."""

        async def answers() -> bool:
            self.assert_alive()
            with socket.socket() as probe:
                return probe.connect_ex((HOST, int(self.env["OPPORTUNE_COLLECTOR_PORT"]))) == 0

        await until(answers, what="a collector that answers")


@dataclass
class Load:
    """What customers told, and what was taken.

    Attributes:
        orders: customer -> ids of orders that were taken.
        pieces: customer -> what lies in his cart.
        counts: ``taken``, ``again``: requests that had to be sent again.
    """

    url: str
    rate: float
    random: Random
    orders: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    pieces: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    _cart: defaultdict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    async def tell(self, teller: int, ends: asyncio.Event) -> None:
        """Be some of the customers, until it ends; what was begun is told to its end."""
        async with httpx.AsyncClient(base_url=self.url, auth=(WEB_KEY, ""), timeout=15) as client:
            while not ends.is_set():
                customer = teller + TELLERS * int(self.random.random() * (CUSTOMERS // TELLERS))
                await self._one(client, customer)
                wait_s = self.random.random() * 2 * TELLERS / self.rate
                try:
                    await asyncio.wait_for(ends.wait(), wait_s)
                except TimeoutError:
                    pass

    async def _one(self, client: httpx.AsyncClient, customer: int) -> None:
        cart, draw = self._cart[customer], self.random.random()
        number = self.counts["begun"]
        self.counts["begun"] += 1
        product = {"product_id": f"p-{int(draw * 1e6) % 300}", "price": 20, "currency": "USD"}
        name: str = "Product Viewed"
        props: dict[str, Any] = dict(product)
        if len(cart) >= 4 and draw < 0.5:
            name = "Order Completed"
            props = {"order_id": f"o-{number}", "currency": "USD", "total": 20 * len(cart), "products": list(cart)}
        elif draw < 0.4:
            name = "Product Added"
            props = {**product, "quantity": 1}
        body = {"userId": f"u-{customer}", "event": name, "properties": props, "messageId": f"m-{number}"}
        while True:
            try:
                answer = await client.post("/v1/track", json=body)
                if answer.status_code == 200:
                    break
                assert answer.status_code in (429, 503), answer.text
            except httpx.TransportError:
                pass
            self.counts["again"] += 1
            await asyncio.sleep(0.5)
        self.counts["taken"] += 1
        if name == "Order Completed":
            self.orders[customer].append(props["order_id"])
            cart.clear()
        elif name == "Product Added":
            cart.append(props)
        self.pieces[customer] = len(cart)


def usage(pid: int) -> tuple[float, int]:
    """Memory in MiB and open files of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), len(os.listdir(f"/proc/{pid}/fd"))


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line of least squares through (hours, value): so much more every hour."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mx) ** 2 for x in xs)
    return sum((x - mx) * (y - my) for x, y in points) / spread if spread else 0.0


async def _kill_worker(arena: Arena) -> None:
    worker = arena.workers[1]
    worker.kill()
    worker.start()
    await worker.ready()


async def _freeze(arena: Arena) -> None:
    arena.workers[0].pause()
    await asyncio.sleep(8)  # Twice its session.
    arena.workers[0].resume()


async def _kill_store(arena: Arena) -> None:
    arena.store.kill()
    await asyncio.sleep(arena.random.random() * 5)
    await arena.store.start()


async def _kill_broker(arena: Arena) -> None:
    arena.broker.kill()
    await asyncio.sleep(arena.random.random() * 5)
    await arena.broker.start()


async def _weather(arena: Arena) -> None:
    for proxy in arena.proxies:
        proxy.weather = ROUGH
    await asyncio.sleep(20)
    for proxy in arena.proxies:
        proxy.weather = FAIR
        proxy.cut()


FAULTS: Final[dict[str, Callable[[Arena], Awaitable[None]]]] = {
    "worker": _kill_worker, "freeze": _freeze, "store": _kill_store, "broker": _kill_broker, "weather": _weather,
}  # fmt: skip


@asynccontextmanager
async def collecting(arena: Arena, folder: Path, **more: str) -> AsyncIterator[CollectorProcess]:
    """A collector process that answers; ``more`` are settings of it."""
    collector = CollectorProcess(arena.shop, folder / "workers", "collector")
    collector.env |= {
        "OPPORTUNE_COLLECTOR_PORT": str(free_port()),
        "OPPORTUNE_COLLECTOR_HOST": HOST,
        "OPPORTUNE_WRITE_KEYS": orjson.dumps(KEYS).decode(),
        **more,
    }
    try:
        collector.start()
        await collector.ready()
        yield collector
    finally:
        if collector.runs:
            collector.kill()


async def soak(seed: int, folder: Path, minutes: float, rate: float, every_s: float) -> str:
    """Run it; its line."""
    async with standing(PLAN, seed, folder) as arena, collecting(arena, folder) as collector:
        for worker in arena.workers:
            worker.start()
        for worker in arena.workers:
            await worker.ready()
        load = Load(f"http://{HOST}:{collector.env['OPPORTUNE_COLLECTOR_PORT']}", rate, Random(seed))
        found = await _under_load(arena, collector, load, minutes * 60, every_s)
        await until(lambda: _applied(arena), what="all that was taken is applied", within_s=WITHIN_S)
        return await _line(arena, load, found, minutes)


async def _applied(arena: Arena) -> bool:
    for worker in arena.workers:
        worker.assert_alive()
    return await arena.topics.is_settled()


async def _under_load(
    arena: Arena, collector: WorkerProcess, load: Load, length_s: float, every_s: float
) -> dict[str, list[tuple[float, float]]]:
    """Faults by turns, and figures -> (hours, value)."""
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    begun_ms, ends = monotonic_ms(), asyncio.Event()
    tellers = [asyncio.create_task(load.tell(number, ends)) for number in range(TELLERS)]

    def past_s() -> float:
        return (monotonic_ms() - begun_ms) / 1000

    async def look() -> None:
        at = past_s() / 3600
        outboxes = await arena.topics.store.outboxes(range(SHARDS))
        blobs = await arena.topics.store.load([f"user:u-{customer}" for customer in range(CUSTOMERS)])
        figures = {"lag": float(await arena.left()), "outbox": float(sum(map(len, outboxes)))}
        figures["profiles_kb"] = sum(len(blob or b"") for blob in blobs) / 1024
        for name, pid in (("worker", arena.workers[0].pid), ("collector", collector.pid)):
            figures[f"{name}_mb"], figures[f"{name}_fds"] = usage(pid)
        for name, value in figures.items():
            found[name].append((at, value))
        words = " ".join(f"{name}={value:.0f}" for name, value in figures.items())
        sys.stderr.write(f"{past_s():6.0f} s taken={load.counts['taken']} again={load.counts['again']} {words}\n")
        sys.stderr.flush()

    next_fault_s, kinds = every_s, list(FAULTS)
    while past_s() < length_s:
        # Looked at before a fault, so that it tells what faults leave behind and not how deep they are.
        await look()
        for teller in tellers:
            if teller.done():
                teller.result()
        if past_s() >= next_fault_s:
            kind = kinds[arena.counts["faults"] % len(kinds)]
            await FAULTS[kind](arena)
            arena.counts["faults"] += 1
            arena.counts[kind] += 1
            next_fault_s = past_s() + every_s
        await asyncio.sleep(min(LOOK_S, max(0.1, length_s - past_s())))
    ends.set()
    await asyncio.gather(*tellers)
    return found


async def _line(arena: Arena, load: Load, found: dict[str, list[tuple[float, float]]], minutes: float) -> str:
    topics = arena.topics
    lost = twice = wrong = 0
    for customer in range(CUSTOMERS):
        profile = await topics.profile(f"user:u-{customer}")
        orders = Counter(load.orders[customer])
        stored = Counter() if profile is None else Counter(list(profile.orders))
        lost += (orders - stored).total()
        wrong += (stored - orders).total()
        pieces = 0 if profile is None else sum(carts.quantity(cart) for cart in profile.carts.values())
        lost += max(0, load.pieces[customer] - pieces)
        twice += max(0, pieces - load.pieces[customer])
    ids = [topics.ids(topic, IDS.get(topic, "trigger_id")) for topic in arena.shop.topics if _is_output(topic)]
    told = sum(len(topics.on[topic]) for topic in arena.shop.topics if _is_output(topic))
    on_log = {one.json()["message_id"] for topic in EVENT_TOPICS for one in topics.on[topic]}
    settled = {name: points[len(points) // 5 :] for name, points in found.items()}
    figures: dict[str, Any] = {
        **arena.counts,
        "minutes": minutes,
        **load.counts,
        "applied": sum(len(topics.on[topic]) for topic in EVENT_TOPICS),
        "dlq": len(topics.on[DEAD_LETTERS]),
        "lost": lost + load.counts["taken"] - len(on_log),
        "twice": twice,
        "wrong": wrong,
        "published": sum(map(len, ids)),
        "dup_id": told - sum(map(len, ids)),
        "divergent": sum(len(bodies) > 1 for one in ids for bodies in one.values()),
        **{f"{name}_per_h": f"{slope(points):+.2f}" for name, points in settled.items()},
        **{f"{name}_max": f"{max(value for _, value in points):.0f}" for name, points in found.items()},
    }
    bites = all(arena.counts[kind] for kind in FAULTS) and load.counts["again"]
    is_good = bites and not (figures["lost"] or twice or wrong or figures["dlq"])
    words = " ".join(f"{name}={value}" for name, value in figures.items())
    return f"F16 seed={arena.seed} commit={commit()} {words} {'PASS' if is_good else 'FAIL'}"


def _is_output(topic: str) -> bool:
    return topic in IDS or topic.startswith("triggers.")


def main() -> int:
    """Run it as asked; 1 if it failed."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seed", type=int, default=42)
    asked.add_argument("--minutes", type=float, default=480)
    asked.add_argument("--rate", type=float, default=20, help="events a second")
    asked.add_argument("--every", type=float, default=120, metavar="S", help="seconds between two faults")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="opportune-F16-") as folder:
        line = asyncio.run(soak(given.seed, Path(folder), given.minutes, given.rate, given.every))
    sys.stdout.write(f"{line}\n")
    return 0 if line.endswith(" PASS") else 1


if __name__ == "__main__":
    sys.exit(main())
