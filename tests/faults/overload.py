"""F15, overload: five times as many requests as the collector may take, for minutes, and what became of each.

python -m tests.faults.overload --capacity 250 --minutes 10

Requests are sent by a timetable, whether or not those before them were answered well; what is refused is not sent
again. Beside them the public SDKs tell orders of their own, unmodified and with their own patience: of what they were
told nothing may be missing but what they themselves gave up, and said so. Then the load stops: all that was taken must
lie on the log and in the profiles, once, and a client that asks at half of the capacity must be refused nothing any more.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from opportune.parts import HOST
from profiles.wire import DEAD_LETTERS, EVENT_TOPICS
from stream.clock import monotonic_ms
from tests.faults.arena import WITHIN_S, Arena, Plan, commit, standing
from tests.faults.soak import CollectorProcess, collecting, usage
from tests.integration.parts import WEB_KEY, Topics, until
from tests.integration.test_sdks import SDKS

CUSTOMERS: Final = 2_000
CONNECTIONS: Final = 64
TIMES: Final = 5
AFTER_S: Final = 5.0
SDK_EACH_S: Final = 0.5
SDK_CUSTOMERS: Final = 50
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


@dataclass
class Sdk:
    """One of the public SDKs, and what it was told.

    Attributes:
        told: message id -> the customer and the order.
        gave_up: ids of messages that it said it sends no more.
    """

    name: str
    port: int
    told: dict[str, tuple[int, str]] = field(default_factory=dict)
    gave_up: set[str] = field(default_factory=set)

    async def tell(self, ends: asyncio.Event) -> None:
        """Tell it orders until it ends, and wait until it holds nothing any more."""
        client = SDKS[self.name](WEB_KEY, host=f"http://{HOST}:{self.port}/", on_error=self._note)
        number = 0
        while not ends.is_set():
            customer = CUSTOMERS + sorted(SDKS).index(self.name) * SDK_CUSTOMERS + number % SDK_CUSTOMERS
            order, mark = f"o-{self.name}-{number}", f"m-{self.name}-{number}"
            props = {"order_id": order, "currency": "USD", "total": 20, "products": [_item(number)]}
            is_taken, _ = client.track(f"u-{customer}", "Order Completed", props, message_id=mark)
            assert is_taken, "an SDK whose queue is full"
            self.told[mark] = (customer, order)
            number += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(ends.wait(), SDK_EACH_S)
        await asyncio.to_thread(client.flush)
        await asyncio.to_thread(client.join)

    def _note(self, _: object, batch: list[dict[str, Any]]) -> None:
        self.gave_up.update(message["messageId"] for message in batch)


async def _batches_refused(port: int) -> int:
    """How many of the SDKs' requests were answered 429 or 503: nobody else sends batches."""
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client:
        lines = (await client.get("/metrics")).text.splitlines()
    heads = tuple(f'opportune_collector_requests_total{{route="batch",status="{status}"}}' for status in (429, 503))
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(heads))


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
            sdks, load_ends = [Sdk(name, port) for name in sorted(SDKS)], asyncio.Event()
            telling = asyncio.gather(*(sdk.tell(load_ends) for sdk in sdks))
            loading = asyncio.create_task(tell(port, TIMES * capacity, minutes * 60, numbers, told))
            peak_mb = await _peak_mb(collector, loading)
            load_ends.set()
            await tell(port, capacity / 2, 10, numbers, calm)
            await telling
            await until(lambda: _applied(arena), what="all that was taken is applied", within_s=10 * WITHIN_S)
            figures = {"capacity": capacity, "minutes": minutes, "mb": f"{begun_mb:.0f}", "mb_max": f"{peak_mb:.0f}"}
            return await _line(arena, told, calm, sdks, figures | {"sdk_refused": await _batches_refused(port)})


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


async def differing_orders(topics: Topics, orders: Mapping[int, Sequence[str]], customers: int) -> tuple[int, int]:
    """How many orders that were taken are in no profile, and how many are that were not."""
    lost = phantom = 0
    for customer in range(customers):
        profile = await topics.profile(f"user:u-{customer}")
        wanted = Counter(orders.get(customer, ()))
        stored = Counter() if profile is None else Counter(list(profile.orders))
        lost += (wanted - stored).total()
        phantom += (stored - wanted).total()
    return lost, phantom


async def _line(arena: Arena, told: Told, calm: Told, sdks: Sequence[Sdk], figures: dict[str, Any]) -> str:
    topics = arena.topics
    on_log = Counter(one.json()["message_id"] for topic in EVENT_TOPICS for one in topics.on[topic])
    by_sdks = {mark: said for sdk in sdks for mark, said in sdk.told.items()}
    gave_up = set[str]().union(*(sdk.gave_up for sdk in sdks))
    taken = told.taken | calm.taken
    orders = {customer: told.orders[customer] + calm.orders[customer] for customer in range(CUSTOMERS)}
    for mark, (customer, order) in by_sdks.items():
        if mark in on_log:  # An SDK may give up what was taken, and whose answer it has not seen.
            orders.setdefault(customer, []).append(order)
    lost, phantom = await differing_orders(topics, orders, CUSTOMERS + len(SDKS) * SDK_CUSTOMERS)
    refused = told.answers["429"] + told.answers["503"]
    offered_per_s = told.answers["sent"] / (figures["minutes"] * 60)
    sdk_lost = by_sdks.keys() - on_log.keys() - gave_up
    figures |= {
        "offered_per_s": f"{offered_per_s:.0f}",
        **{f"http_{name}" if name.isdigit() else name: number for name, number in sorted(told.answers.items())},
        "slowest_ms": told.slowest_ms,
        "taken": len(taken),
        "stored": len(on_log.keys() - by_sdks.keys()),
        "sdk_told": len(by_sdks),
        "sdk_stored": len(by_sdks.keys() & on_log.keys()),
        "sdk_gave_up": len(gave_up - on_log.keys()),
        "dlq": len(topics.on[DEAD_LETTERS]),
        "lost": lost + len(taken - on_log.keys()) + len(sdk_lost),
        "twice": sum(on_log[mark] - 1 for mark in on_log.keys() - by_sdks.keys()),
        "phantom": phantom + len(on_log.keys() - taken - by_sdks.keys()),
        "calm_200": calm.answers["200"],
        "calm_refused": calm.answers["sent"] - calm.answers["200"],
    }
    is_answered = told.answers["sent"] == told.answers["200"] + refused and not told.answers["hasty"]
    bites = refused > told.answers["200"] and figures["sdk_refused"] > 0
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
