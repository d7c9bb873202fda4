"""The store's URL: what each form means, and what is refused without showing a password."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from profiles.errors import Refused
from stream.redis_client import client_of


def test_a_plain_url_is_a_server_and_with_cluster_a_cluster() -> None:
    assert type(client_of("redis://127.0.0.1:1/0", cluster=False)) is Redis
    assert type(client_of("redis://127.0.0.1:1", cluster=True)) is RedisCluster


@pytest.mark.parametrize(
    ("rest", "places", "login"),
    [
        ("a:1,b:2/shop/3", [("a", 1), ("b", 2)], {"db": 3}),
        ("a/shop", [("a", 26379)], {"db": 0}),
        ("me:p%40ss@[::1]:7/shop/0", [("::1", 7)], {"db": 0, "username": "me", "password": "p@ss"}),
    ],
)
def test_sentinels_are_asked_for_the_master(rest: str, places: list[Any], login: dict[str, Any]) -> None:
    pool = client_of(f"redis+sentinel://{rest}", cluster=False, socket_timeout=5.0).connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.service_name == "shop"
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in asked] == places
    assert all(one["socket_timeout"] == 5.0 and one.get("password") is None for one in asked)
    assert {name: pool.connection_kwargs[name] for name in login} == login


@pytest.mark.invariant("R25")
@pytest.mark.parametrize("rest", ["", "me:hush@/shop", "me:hush@a:1", "me:hush@a:1/shop/x", "me:hush@a:p/shop"])
def test_another_form_is_refused_and_not_shown(rest: str) -> None:
    with pytest.raises(Refused, match=r"OPPORTUNE_REDIS_URL: .* wanted") as refused:
        client_of(f"redis+sentinel://{rest}", cluster=False)
    assert "hush" not in str(refused.value)
    with pytest.raises(Refused, match="got both"):
        client_of("redis+sentinel://a:1/shop", cluster=True)
