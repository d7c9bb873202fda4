"""What a till and a page wait for: hints and pages' answers over HTTP, from a store full of the load's profiles.

The API is a process's whole (uvicorn, FastAPI, the embedded store on the same cores); who asks shares its loop and its
processor, so what is told is more than the server alone takes.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import jwt

from connectors.clock import SystemClock
from connectors.collector.http import server_for
from console.api import make_app
from console.callers import Callers, Pages
from console.decisions import DecisionWindow
from console.reader import Reader
from opportune import parts
from opportune.bench.core import replay
from opportune.bench.job import rule_files
from opportune.bench.shop import Load, Shop
from profiles.codec import encode
from profiles.ids import shard_of
from profiles.state import Profile
from profiles.wire import INPUT_TOPICS
from rules.compile import compile_rules
from stream.clock import LogClock, monotonic_ns
from stream.ports import ShardWrite
from stream.rulebook import publish
from stream.store import RedisStore

_KEY: Final = "a key that only this measurement knows"
_SECRET: Final = bytes(32)


class Latency(NamedTuple):
    """What one kind of request took, in milliseconds, the client's part and all."""

    name: str
    requests: int
    p50_ms: float
    p99_ms: float


async def measure(load: Load, requests: int) -> list[Latency]:
    """Ask for so many hints and so many pages' answers, one after another."""
    book = compile_rules(rule_files())
    events = [event for _, event in Shop(load).events()]
    profiles = replay(events, book)[0]
    now_ms = max(event.received_ms for event in events)
    with tempfile.TemporaryDirectory(prefix="opportune-bench-") as folder:
        async with parts.store(Path(folder), keep=False) as server:
            store = RedisStore(parts.redis_url(server))
            try:
                await publish(store, book, rule_files())
                await _fill(store, profiles, now_ms, book.hash)
                reader = Reader(store, LogClock(now_ms), _SECRET, DecisionWindow(1))
                callers = Callers({}, frozenset({"hint"}))
                return await _asked(make_app(reader, callers, pages=Pages(_KEY)), sorted(profiles), requests)
            finally:
                await store.close()


async def _fill(store: RedisStore, profiles: dict[str, Profile], now_ms: int, generation: str) -> None:
    by_shard: dict[int, list[str]] = defaultdict(list)
    for address in profiles:
        by_shard[shard_of(address)].append(address)
    for shard, addresses in sorted(by_shard.items()):
        (state,) = await store.read_shards([shard])
        for number, address in enumerate(addresses):
            profiles[address].ordinal = number
        write = ShardWrite(
            shard=shard,
            expected=state.token,
            token=(shard + 1).to_bytes(8, "big"),
            cursor=dict.fromkeys(INPUT_TOPICS, 0),
            clock_ms=now_ms,
            generation=generation,
            profiles={address: encode(profiles[address]) for address in addresses},
            alarms={address: profiles[address].alarm_ms() for address in addresses},
            new_names=addresses,
        )
        assert await store.commit([write]) == []


async def _asked(app: object, addresses: list[str], requests: int) -> list[Latency]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = server_for(app)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0)
    ends_s = SystemClock().now_ms() // 1000 + 3600
    chosen = [addresses[number * 7919 % len(addresses)] for number in range(requests)]

    def hint(address: str) -> httpx.Request:
        return client.build_request("GET", f"/api/v1/profiles/{address}/hint")

    def site(address: str) -> httpx.Request:
        token = jwt.encode({"sub": address, "aud": "site", "exp": ends_s}, _KEY, algorithm="HS256")
        return client.build_request("GET", "/api/v1/site", headers={"authorization": f"Bearer {token}"})

    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            return [await _timed(client, name, make, chosen) for name, make in (("hint", hint), ("site", site))]
    finally:
        server.should_exit = True
        await serving


async def _timed(
    client: httpx.AsyncClient, name: str, make: Callable[[str], httpx.Request], chosen: list[str]
) -> Latency:
    asked = [make(address) for address in chosen]
    taken_ns: list[int] = []

    for request in asked:
        begun_ns = monotonic_ns()
        answer = await client.send(request)
        taken_ns.append(monotonic_ns() - begun_ns)
        assert answer.status_code == 200, answer.text
    taken_ns.sort()
    return Latency(name, len(taken_ns), taken_ns[len(taken_ns) // 2] / 1e6, taken_ns[len(taken_ns) * 99 // 100] / 1e6)
