"""A client for a store's URL: one server, a Cluster, or the server that Sentinels name.

    redis://host:6379/0        rediss:// with TLS, unix:// by a socket
    redis+sentinel://[user:password@]host:26379,host:26379/service[/db]

By Sentinels the master of the service is asked for with every new connection, and a master that was made a replica is
left at once: who is connected to it is told READONLY, and connects anew.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel

from profiles.errors import Refused

BY_SENTINELS: Final = "redis+sentinel://"
_PORT: Final = 26_379


def client_of(url: str, *, cluster: bool, **settings: Any) -> Any:
    """A client that has not connected yet.

    Args:
        cluster: the URL is that of any node of a Cluster.
        settings: of each connection, as redis-py calls them.

    Raises:
        Refused: the URL is not as above.
    """
    if url.startswith(BY_SENTINELS):
        if cluster:
            raise Refused("OPPORTUNE_REDIS_URL: Sentinels or a Cluster wanted, got both")
        return _by_sentinels(url.removeprefix(BY_SENTINELS), settings)
    return RedisCluster.from_url(url, **settings) if cluster else Redis.from_url(url, **settings)


def _by_sentinels(rest: str, settings: dict[str, Any]) -> Any:
    who, _, where = rest.rpartition("@")
    hosts, _, path = where.partition("/")
    service, _, db = path.partition("/")
    places = [_place(host) for host in hosts.split(",") if host]
    if not places or not service or not (db or "0").isdigit():
        raise Refused(
            f"OPPORTUNE_REDIS_URL: {BY_SENTINELS}host:port,host:port/service/db wanted, got another form"
        )  # It may hold a password, so it is not shown.
    user, _, password = who.partition(":")
    login: dict[str, Any] = {"username": unquote(user) or None, "password": unquote(password)} if password else {}
    timeouts = {name: value for name, value in settings.items() if name.startswith("socket_")}
    sentinel = Sentinel(places, sentinel_kwargs=timeouts, **settings)
    return sentinel.master_for(service, db=int(db or 0), **login)


def _place(host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host.strip("[]"), _PORT
    if not port.isdigit():
        raise Refused("OPPORTUNE_REDIS_URL: a port wanted behind each Sentinel's colon, got another text")
    return name.strip("[]"), int(port)
