"""Whether a worker works: a page for probes, and a watchdog for what no probe sees.

``/healthz`` answers 200 while the event loop turns, ``/readyz`` while the worker is a member of the group as well, and
``/metrics`` what Prometheus wants. They are served by a thread of their own, so that a loop that hangs is told of.

The watchdog ends a worker that stands still although records wait (a fetcher that died), or is not told its partitions (a
rebalance that never ends, by a member that holds it up or a broker that is wrong about the group). It asks both servers itself, on connections of its own: while one of them does not answer, standing still is right (R27).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import aiokafka
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from prometheus_client import make_wsgi_app

from profiles.errors import Refused
from profiles.moments import SECOND_MS
from profiles.wire import PROFILE_COMMANDS
from stream.clock import monotonic_ms
from stream.settings import Own
from stream.transport import security

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
HANGS_MS: Final = 30 * SECOND_MS
LOOKS: Final = 4
"""How often the watchdog looks within ``stalled_ms``."""
ANY_PLACE: Final = (PROFILE_COMMANDS, 0)
"""What a worker that owns nothing asks the brokers about: whether they answer."""

Applied = Callable[[], Mapping[tuple[str, int], int]]
"""(topic, partition) -> the offset behind which all is applied, of our partitions."""


class Stalled(Exception):
    """Records wait, or a share of the partitions is waited for; both servers answer, and nothing comes of it."""


class Health:
    """What the probes are told; one a process, whichever worker it runs."""

    def __init__(self, now_ms: Callable[[], int] = monotonic_ms) -> None:
        self._now_ms = now_ms
        self._metrics: Callable[..., Iterable[bytes]] = make_wsgi_app()
        self._turned_ms = now_ms()
        self.is_ready: Callable[[], bool] = lambda: False

    async def tick(self) -> None:
        """Note that the loop turns; for ever."""
        while True:
            self._turned_ms = self._now_ms()
            await asyncio.sleep(TICK_S)

    def serve(self, port: int) -> int:
        """Serve the pages from a thread; the port (a free one for 0).

        Raises:
            Refused: the port cannot be had.
        """
        try:
            server = make_server("", port, self._page, _Threads, _Silent)
        except OSError as error:
            raise Refused(f"OPPORTUNE_METRICS_PORT: a free port wanted, {port}: {error.strerror}") from error
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        return server.server_port

    def _page(self, request: dict[str, Any], answer: Callable[..., Any]) -> Iterable[bytes]:
        path = request.get("PATH_INFO", "/")
        if path not in ("/healthz", "/readyz"):
            return self._metrics(request, answer)
        hangs = self._now_ms() - self._turned_ms > HANGS_MS
        if hangs or (path == "/readyz" and not self.is_ready()):
            status, words = "503 Service Unavailable", "the event loop hangs" if hangs else "not a member of the group"
        else:
            status, words = "200 OK", "ok"
        answer(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{words}\n".encode()]


async def watch(
    own: Own, applied: Applied, awaits_share: Callable[[], bool], store_answers: Callable[[], Awaitable[Any]]
) -> None:
    """Look after a worker's progress.

    Args:
        awaits_share: whether the group is to tell us which partitions are ours: none may be.
    Raises:
        Stalled: both servers answer, and for ``stalled_ms`` nothing was applied although records wait; or the group has not
            told us our partitions for ``rebalance_ms`` longer, by when it goes on without whoever holds on to his.
    """
    before, since_ms = dict(applied()), monotonic_ms()
    while True:
        await asyncio.sleep(own.stalled_ms / LOOKS / 1000)
        now = dict(applied())
        is_left_out = not now and awaits_share()
        if now != before or not (now or is_left_out):
            before, since_ms = now, monotonic_ms()
            continue
        bound_ms = own.stalled_ms + own.rebalance_ms if is_left_out else own.stalled_ms
        if monotonic_ms() - since_ms < bound_ms:
            continue
        try:
            await store_answers()
            ends = await _ends(own, list(now) or [ANY_PLACE])
        except (OSError, KafkaError) as error:
            log.warning("nothing is applied while a server does not answer: %s", type(error).__name__)
            continue
        if is_left_out and awaits_share() and not applied():
            raise Stalled(f"a share of the partitions within {bound_ms} ms wanted, the group has told us none")
        # What came while we asked is no sign: only what was there, and still is not applied.
        waiting = sum(max(0, end - offset) for place, offset in now.items() if (end := ends.get(place)) is not None)
        if waiting and dict(applied()) == before:
            raise Stalled(f"progress within {own.stalled_ms} ms wanted, {waiting} records wait and none was applied")


async def _ends(own: Own, places: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Where the log ends, asked of the brokers on a connection of our own."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=own.bootstrap, request_timeout_ms=own.request_ms, **security(own)
    )
    try:
        await consumer.start()
        ends = await consumer.end_offsets([TopicPartition(*place) for place in places])
    finally:
        await consumer.stop()
    return {(place.topic, place.partition): end for place, end in ends.items()}


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """A probe every few seconds is not worth a line."""
