"""F15, overload: five times as many requests as the collector may take, for minutes, and what became of each.

python -m tests.faults.overload --capacity 250 --minutes 10

Requests are sent by a timetable, whether or not those before them were answered well; what is refused is not sent
again. Then the load stops: all that was taken must lie on the log and in the profiles, once, and a client that asks at
half of the capacity must be refused nothing any more.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import orjson

from opportune.parts import HOST
from profiles.wire import DEAD_LETTERS, EVENT_TOPICS
from stream.clock import monotonic_ms
from tests.faults.arena import WITHIN_S, Arena, Plan, commit, standing
from tests.faults.soak import CollectorProcess, collecting, usage
from tests.integration.parts import WEB_KEY, Topics, until

CUSTOMERS: Final = 2_000
CONNECTIONS: Final = 64
TIMES: Final = 5
AFTER_S: Final = 5.0
PLAN: Final = Plan("F15", "overload", None, 1, 0, 0, 0, 0, settings={"clock": "store"})
HEAD: Final = (
    f"POST /v1/track HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic "
    f"{base64.b64encode(f'{WEB_KEY}:'.encode()).decode()}\r\nContent-Type: application/json\r\nContent-Length: "
)


@dataclass
class Told:
    """What was answered.

    Attributes:
        answers: status -> how often; ``sent``: how many in all; ``hasty``: refusals without ``Retry-After``.
        taken: ids of the messages that were answered 200.
        orders: customer -> the orders among them.
        slowest_ms: of all answers.
    """

    answers: Counter[str] = field(default_factory=Counter)
    taken: set[str] = field(default_factory=set)
    orders: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    slowest_ms: int = 0


async def tell(port: int, per_s: float, length_s: float, numbers: count[int], told: Told) -> None:
    """Send so many requests a second for so long, by many connections."""
    begun_ms, places = monotonic_ms(), count()

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        while (due_s := next(places) / per_s) < length_s:
            wait_s = due_s - (monotonic_ms() - begun_ms) / 1000
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if (monotonic_ms() - begun_ms) / 1000 > length_s + AFTER_S:
                break  # The machine could not offer so much; what was offered is told.
            await _ask(reader, writer, next(numbers), told)
        writer.close()

    async with asyncio.TaskGroup() as connections:
        for _ in range(CONNECTIONS):
            connections.create_task(one_connection())


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, told: Told) -> None:
    customer, name, props = number % CUSTOMERS, "Product Viewed", _item(number)
    if number % 10 == 0:
        name = "Order Completed"
        props = {"order_id": f"o-{number}", "currency": "USD", "total": 20, "products": [_item(number)]}
    body = orjson.dumps(
        {"userId": f"u-{customer}", "event": name, "properties": props, "messageId": f"m-{number}"}
    )  # fmt: skip
    asked_ms = monotonic_ms()
    writer.write(f"{HEAD}{len(body)}\r\n\r\n".encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length"))
    await reader.readexactly(length)
    status = head[9:12].decode()
    told.answers["sent"] += 1
    told.answers[status] += 1
    told.slowest_ms = max(told.slowest_ms, monotonic_ms() - asked_ms)
    if status == "200":
        told.taken.add(f"m-{number}")
        if name == "Order Completed":
            told.orders[customer].append(props["order_id"])
    elif not any(line.startswith(b"retry-after:") for line in lines):
        told.answers["hasty"] += 1


def _item(number: int) -> dict[str, Any]:
    return {"product_id": f"p-{number % 300}", "price": 20, "currency": "USD"}


async def overload(seed: int, folder: Path, capacity: int, minutes: float) -> str:
    """Run it; its line."""
    async with standing(PLAN, seed, folder) as arena:
        async with collecting(arena, folder, OPPORTUNE_COLLECTOR_PER_S=str(capacity)) as collector:
            [worker] = arena.workers
            worker.start()
            await worker.ready()
            port, numbers, told, calm = int(collector.env["OPPORTUNE_COLLECTOR_PORT"]), count(), Told(), Told()
            begun_mb, _ = usage(collector.pid)
            loading = asyncio.create_task(tell(port, TIMES * capacity, minutes * 60, numbers, told))
            peak_mb = await _peak_mb(collector, loading)
            await tell(port, capacity / 2, 10, numbers, calm)
            await until(lambda: _applied(arena), what="all that was taken is applied", within_s=10 * WITHIN_S)
            return await _line(arena, told, calm, {"capacity": capacity, "minutes": minutes, "mb": f"{begun_mb:.0f}", "mb_max": f"{peak_mb:.0f}"})  # fmt: skip


async def _peak_mb(collector: CollectorProcess, loading: asyncio.Task[None]) -> float:
    peak_mb = 0.0
    while not loading.done():
        await asyncio.wait([loading], timeout=1)
        peak_mb = max(peak_mb, usage(collector.pid)[0])
    loading.result()
    return peak_mb


async def _applied(arena: Arena) -> bool:
    arena.assert_alive()
    return await arena.topics.is_settled()


async def differing_orders(topics: Topics, orders: dict[int, list[str]], customers: int) -> tuple[int, int]:
    """How many orders that were taken are in no profile, and how many are that were not."""
    lost = phantom = 0
    for customer in range(customers):
        profile = await topics.profile(f"user:u-{customer}")
        wanted = Counter(orders.get(customer, ()))
        stored = Counter() if profile is None else Counter(list(profile.orders))
        lost += (wanted - stored).total()
        phantom += (stored - wanted).total()
    return lost, phantom


async def _line(arena: Arena, told: Told, calm: Told, figures: dict[str, Any]) -> str:
    topics = arena.topics
    on_log = [one.json()["message_id"] for topic in EVENT_TOPICS for one in topics.on[topic]]
    taken = told.taken | calm.taken
    orders = {customer: told.orders[customer] + calm.orders[customer] for customer in range(CUSTOMERS)}
    lost, phantom = await differing_orders(topics, orders, CUSTOMERS)
    refused = told.answers["429"] + told.answers["503"]
    offered_per_s = told.answers["sent"] / (figures["minutes"] * 60)
    figures |= {
        "offered_per_s": f"{offered_per_s:.0f}",
        **{f"http_{name}" if name.isdigit() else name: number for name, number in sorted(told.answers.items())},
        "slowest_ms": told.slowest_ms,
        "taken": len(taken),
        "stored": len(set(on_log)),
        "dlq": len(topics.on[DEAD_LETTERS]),
        "lost": lost + len(taken - set(on_log)),
        "twice": len(on_log) - len(set(on_log)),
        "phantom": phantom + len(set(on_log) - taken),
        "calm_200": calm.answers["200"],
        "calm_refused": calm.answers["sent"] - calm.answers["200"],
    }
    is_answered = told.answers["sent"] == told.answers["200"] + refused and not told.answers["hasty"]
    bites = refused > told.answers["200"]
    is_exact = not any(figures[name] for name in ("lost", "twice", "phantom", "dlq", "calm_refused"))
    words = " ".join(f"{name}={value}" for name, value in figures.items())
    return f"F15 seed={arena.seed} commit={commit()} {words} {'PASS' if is_answered and bites and is_exact else 'FAIL'}"


def main() -> int:
    """Run it as asked; 1 if it failed."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seed", type=int, default=42)
    asked.add_argument("--capacity", type=int, default=250, help="requests a second that the collector may take")
    asked.add_argument("--minutes", type=float, default=10)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="opportune-F15-") as folder:
        line = asyncio.run(overload(given.seed, Path(folder), given.capacity, given.minutes))
    sys.stdout.write(f"{line}\n")
    return 0 if line.endswith(" PASS") else 1


if __name__ == "__main__":
    sys.exit(main())
