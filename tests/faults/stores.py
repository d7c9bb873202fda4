"""Stores of several servers, natively: a master with a replica and three Sentinels, or a Cluster of three and three."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from opportune.parts import HOST, Server, free_port, redis_answers, redis_command
from opportune.parts import redis_url as url_of
from tests.integration.parts import until

SERVICE: Final = "shop"
WITHIN_S: Final = 120.0
MISSED_MS: Final = 1_500
"""After so long without an answer a server counts as gone."""


@dataclass
class Stores:
    """Servers that share a store.

    Attributes:
        url: what workers are told.
        servers: those that hold keys.
        sentinels: their ports.
    """

    url: str
    servers: list[Server] = field(default_factory=list)
    sentinels: list[int] = field(default_factory=list)

    def ask(self, server: Server, *words: str | int) -> Any:
        """A command as it stands."""
        return ask(server.port, *words)

    async def fail_over(self, number: int) -> int:
        """Kill one master and start it again when its replica has its place; which of the masters, by number."""
        masters = await self.masters()
        gone = masters[number % len(masters)]
        gone.kill()

        async def has_successor() -> bool:
            return len(living := await self.masters()) == len(masters) and gone not in living and await self.is_whole()

        await until(has_successor, what="a replica in the place of its master", within_s=WITHIN_S)
        await gone.start()

        async def follows() -> bool:
            return "slave" in role(gone) and link(gone) == "up"

        await until(follows, what="who was master follows", within_s=WITHIN_S)
        return masters.index(gone)

    async def masters(self) -> list[Server]:
        """Those that take writes; by Sentinels the one that two of them name."""
        if self.sentinels:
            named = [ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE) for port in self.sentinels]
            ports = [int(one[1]) for one in named]
            return [server for server in self.servers if ports.count(server.port) >= 2 and role(server) == "master"]
        return [server for server in self.servers if role(server) == "master" and _slots(server)]

    async def is_whole(self) -> bool:
        """Whether every living server of a Cluster sees all slots served."""
        if self.sentinels:
            return True
        states = [ask(server.port, "CLUSTER", "INFO") for server in self.servers if role(server)]
        return all("cluster_state:ok" in _text(state) for state in states)

    async def migrate(self, slot: int) -> int:
        """Carry a slot to another master, key by key, under whoever writes there; how many keys."""
        masters = await self.masters()
        source = next(server for server in masters if any(low <= slot <= high for low, high in _slots(server)))
        target = next(server for server in masters if server is not source)
        names = {server.port: _text(ask(server.port, "CLUSTER", "MYID")) for server in masters}
        ask(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
        ask(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])
        moved = 0
        while keys := ask(source.port, "CLUSTER", "GETKEYSINSLOT", slot, 5):
            ask(source.port, "MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)
            moved += len(keys)
            await asyncio.sleep(0.1)  # Slowly, so that somebody comes by: how long it takes is the fault.
        for server in (target, source, *masters):
            ask(server.port, "CLUSTER", "SETSLOT", slot, "NODE", names[target.port])
        return moved


def ask(port: int, *words: str | int | bytes) -> Any:
    """A command as it stands, to whoever listens there."""
    with Redis(port=port, protocol=2, socket_timeout=5) as client:
        return client.execute_command(*words)


def role(server: Server) -> str:
    """``master``, ``slave``, or nothing if it does not answer."""
    try:
        return _text(ask(server.port, "ROLE")[0])
    except (RedisError, OSError):
        return ""


def link(server: Server) -> str:
    """How a replica stands to its master: ``up``, ``down``."""
    with Redis(port=server.port, protocol=2) as client:
        return str(client.info("replication").get("master_link_status", "down"))


def _slots(server: Server) -> list[tuple[int, int]]:
    return [(int(row[0]), int(row[1])) for row in ask(server.port, "CLUSTER", "SLOTS") if int(row[2][1]) == server.port]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{_text(name)}:{_text(one)}" for name, one in value.items())
    return value.decode() if isinstance(value, bytes) else str(value)


def _server(folder: Path, *wanted: str) -> Server:
    binary = Path(shutil.which("redis-server") or "redis-server")
    command = partial(redis_command, binary=binary, keep=True)
    return Server("redis", lambda it: [*command(it), *wanted], redis_answers, folder, port=free_port())


def _sentinel_command(binary: str, written: Path, server: Server) -> list[str | Path]:
    return [binary, written, "--sentinel", "--port", str(server.port), "--bind", HOST]


@asynccontextmanager
async def sentinel(folder: Path) -> AsyncIterator[Stores]:
    """A master, a replica, and three Sentinels that watch them."""
    binary = shutil.which("redis-server") or "redis-server"
    async with AsyncExitStack() as stack:
        servers = [_server(folder / f"redis-{number}") for number in range(2)]
        for server in servers:
            await stack.enter_async_context(server)
        ask(servers[1].port, "REPLICAOF", HOST, servers[0].port)
        sentinels = []
        for number in range(3):
            place = folder / f"sentinel-{number}"
            place.mkdir(parents=True)
            written = place / "sentinel.conf"
            written.write_text(
                f"sentinel monitor {SERVICE} {HOST} {servers[0].port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {MISSED_MS}\n"
                f"sentinel failover-timeout {SERVICE} 4000\n"
            )
            command = partial(_sentinel_command, binary, written)
            one = Server("sentinel", command, redis_answers, place, port=free_port())
            sentinels.append(await stack.enter_async_context(one))
        hosts = ",".join(one.address for one in sentinels)
        stores = Stores(f"redis+sentinel://{hosts}/{SERVICE}/0", servers, [one.port for one in sentinels])

        async def knows_all() -> bool:
            told = [ask(one.port, "SENTINEL", "MASTER", SERVICE) for one in sentinels]
            facts = [_facts(one) for one in told]
            known = all((one.get("num-slaves"), one.get("num-other-sentinels")) == ("1", "2") for one in facts)
            return known and link(servers[1]) == "up"

        await until(knows_all, what="Sentinels that know one another", within_s=WITHIN_S)
        yield stores


def _facts(told: Any) -> dict[str, str]:
    if isinstance(told, dict):
        return {_text(name): _text(value) for name, value in told.items()}
    return dict(zip(map(_text, told[::2]), map(_text, told[1::2]), strict=True))


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Stores]:
    """Three masters with a third of the slots and a replica each."""
    async with AsyncExitStack() as stack:
        buses = [free_port() for _ in range(6)]
        servers = []
        for number, bus in enumerate(buses):
            wanted = ("--cluster-enabled", "yes", "--cluster-announce-ip", HOST, "--cluster-port", str(bus))
            timeout = ("--cluster-node-timeout", str(MISSED_MS))
            servers.append(await stack.enter_async_context(_server(folder / f"redis-{number}", *wanted, *timeout)))
        bounds = (0, 5461, 10923, 16384)
        for number, server in enumerate(servers):
            ask(server.port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                ask(server.port, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            if number:
                ask(servers[0].port, "CLUSTER", "MEET", HOST, server.port, buses[number])
        stores = Stores(url_of(servers[0]), servers)

        async def all_met() -> bool:
            told = [_text(ask(server.port, "CLUSTER", "INFO")) for server in servers]
            return all("cluster_known_nodes:6" in one for one in told)

        await until(all_met, what="nodes that know one another", within_s=WITHIN_S)
        for number, server in enumerate(servers[3:]):
            ask(server.port, "CLUSTER", "REPLICATE", _text(ask(servers[number].port, "CLUSTER", "MYID")))

        async def is_ready() -> bool:
            return all(link(server) == "up" for server in servers[3:]) and await stores.is_whole()

        await until(is_ready, what="a whole Cluster", within_s=WITHIN_S)
        yield stores


KINDS: Final[dict[str, Callable[[Path], Any]]] = {"sentinel": sentinel, "cluster": cluster}
