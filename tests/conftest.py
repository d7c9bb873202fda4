"""The parts that tests stand on: real processes, embedded by default, Apache Kafka and Redis proper with ``--real``.

A test asks for the least it needs: ``redis_url`` (the session's, as the tests before left it), ``fresh_redis``
(emptied), ``broker`` (the session's), ``fresh_broker`` (a process of its own) or ``installation`` (a fresh broker with
all topics, and an emptied store). Embedded, a broker takes 0.15 s to start; Apache Kafka 2 to 4 s.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from redis import Redis

from opportune import parts
from opportune.topics import PARTITIONS, create_topics, wanted_topics
from tests.parts import real

T = TypeVar("T")


@dataclass(frozen=True)
class Installation:
    """A broker with every topic made and an empty store.

    Attributes:
        bootstrap: the broker's ``host:port``.
        redis_url: the store's ``redis://host:port/0``.
        partitions: of each topic.
        broker, store: the servers themselves, for tests that kill, freeze or restart them.
    """

    bootstrap: str
    redis_url: str
    partitions: int
    broker: parts.Server
    store: parts.Server


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--real``."""
    parser.addoption(
        "--real", action="store_true", help="run on Apache Kafka and redis-server, not on the embedded parts"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Warn of connections that nobody closed before a plugin's last import: Python 3.11 parses no module while it warns."""
    gc.collect()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what only Apache Kafka can show; with ``--real`` leave out what stands on none of the parts, and is the same without."""
    if not config.getoption("--real"):
        for item in items:
            if item.get_closest_marker("kafka"):
                item.add_marker(pytest.mark.skip(reason="needs Apache Kafka: --real"))
        return
    same = [item for item in items if not _stands_on_parts(item)]
    items[:] = [item for item in items if _stands_on_parts(item)]
    config.hook.pytest_deselected(items=same)


def _stands_on_parts(item: pytest.Item) -> bool:
    """Whether it asks for a broker or a store: by name, or by a parameter that names one."""
    asked = getattr(item, "fixturenames", ())
    params = getattr(getattr(item, "callspec", None), "params", {})
    named = {value for value in params.values() if isinstance(value, str)}
    return "is_real" in asked or bool(named & {"kafka", "redis"}) or item.get_closest_marker("kafka") is not None


def run(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine for a fixture on a loop of its own, which leaves the test's loop alone."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def running(server: parts.Server) -> Iterator[parts.Server]:
    """Start, lend, stop."""
    run(server.start())
    try:
        yield server
    finally:
        run(server.stop())


@pytest.fixture(scope="session")
def is_real(request: pytest.FixtureRequest) -> bool:
    """The tests run on Apache Kafka and redis-server."""
    return bool(request.config.getoption("--real"))


@pytest.fixture(scope="session")
def broker_server(is_real: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.Server]:
    """The session's broker."""
    folder = tmp_path_factory.mktemp("broker")
    yield from running(real.kafka(folder) if is_real else parts.broker(folder))


@pytest.fixture(scope="session")
def broker(broker_server: parts.Server) -> str:
    """The session's broker, ``host:port``. Its topics are as the tests before left them."""
    return broker_server.address


@pytest.fixture(scope="session")
def redis_server(is_real: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.Server]:
    """The session's store, with persistence, so that R28's checks pass on it."""
    folder = tmp_path_factory.mktemp("redis")
    yield from running(real.redis_server(folder) if is_real else parts.store(folder))


@pytest.fixture(scope="session")
def redis_url(redis_server: parts.Server) -> str:
    """The session's store, ``redis://host:port/0``. Its keys are as the tests before left them."""
    return parts.redis_url(redis_server)


@pytest.fixture
def fresh_redis(redis_url: str) -> str:
    """The session's store, emptied, scripts too."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
        client.script_flush()
    return redis_url


@pytest.fixture
def fresh_store(is_real: bool, tmp_path: Path) -> Iterator[parts.Server]:
    """A store of the test's own, to be killed, frozen or restarted; keeps an append-only file in its folder."""
    folder = tmp_path / "store"
    yield from running(real.redis_server(folder) if is_real else parts.store(folder))


@pytest.fixture
def fresh_broker(is_real: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.Server]:
    """A broker of the test's own, without topics. Not in the test's folder, where many keep their rules: its files come and go."""
    folder = tmp_path_factory.mktemp("broker")
    yield from running(real.kafka(folder) if is_real else parts.broker(folder))


@pytest.fixture
def installation(fresh_broker: parts.Server, fresh_redis: str, redis_server: parts.Server) -> Installation:
    """A broker of the test's own with all topics (of triggers: ``demo``), and the session's store, emptied."""
    run(create_topics(fresh_broker.address, wanted_topics(["demo"])))
    return Installation(fresh_broker.address, fresh_redis, PARTITIONS, fresh_broker, redis_server)
