"""The window as a process, or inside one: ``Console`` runs in any event loop, ``run`` is ``opportune api``."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Mapping, Sequence

import uvloop

import console.settings
from connectors.collector.http import EmbeddedServer, server_for
from console.api import make_app
from console.callers import Pages
from console.commands import Commands
from console.decisions import DecisionReader, DecisionWindow
from console.outcomes import Outcomes
from console.reader import Reader
from console.reports import Reports
from console.routes.people import Desk
from console.settings import Settings
from console.unmerge import Parter
from profiles.errors import OpportuneError
from profiles.moments import Clock
from profiles.wire import Record
from stream.clock import StoreClock, SystemIds
from stream.log import KafkaLog
from stream.ports import ProfileStore
from stream.settings import Own
from stream.store import RedisStore
from stream.transport import security

LOG = logging.getLogger(__name__)

LEARN_S = 1.0
"""How often a process of its own asks the store for the time."""


class Console:
    """The query API and the page for people. ``start`` and ``stop`` run it inside any event loop.

    Args:
        settings: what it works with.
        store: where profiles are; somebody else closes it.
        time: what "now" is: the store's clock, or the log's.

    Attributes:
        app: the ASGI app, for one who calls it himself.
        port: where it listens, once started.
    """

    def __init__(self, settings: Settings, store: ProfileStore, time: Clock) -> None:
        own = settings.shared.own
        self._settings = settings
        self._time = time
        window = DecisionWindow(settings.api_decisions, settings.secret_bytes())
        brokers = {"bootstrap_servers": own.bootstrap, **security(own)}
        self._decisions = DecisionReader(window, brokers)
        reader = Reader(
            store,
            time,
            settings.secret_bytes(),
            window,
            self._decisions,
            settings.api_sizes_ms,
            Reports(store, brokers, settings.api_report_moments),
        )
        every_s = settings.api_report_every_s
        self._outcomes = Outcomes(reader, every_s) if every_s else None
        self._log = _LateLog(KafkaLog(own))
        self.app = make_app(
            reader,
            settings.callers(),
            settings.names(),
            desk=self._desk(store, own),
            pages=Pages(settings.api_site_key),
            origins=settings.origins(),
        )
        self.port = 0
        self._server: EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None

    def _desk(self, store: ProfileStore, own: Own) -> Desk:
        """Who takes commands about people."""
        settings, agreed = self._settings, self._settings.shared.agreed
        secret, on_logs_clock = settings.secret_bytes(), agreed.clock == "log"
        commands = Commands(store, self._log, secret, SystemIds(), on_logs_clock=on_logs_clock)
        options = {"bootstrap_servers": own.bootstrap, **security(own)}
        parter = Parter(store, commands, secret, options, agreed.partitions, on_logs_clock=on_logs_clock)
        return Desk(commands, parter)

    async def start(self) -> None:
        """Listen, and return when requests are served. The broker may come later; ``/readyz`` tells.

        Raises:
            OSError: the port cannot be had, or the store does not tell the time.
        """
        if isinstance(self._time, StoreClock):
            await self._time.learn()  # It may be asked before whoever else holds the clock has learned the time.
        listener = socket.create_server((self._settings.api_host, self._settings.api_port), backlog=512)
        # asyncio does this only for sockets made with the protocol's number; without, every answer waits 40 ms for an ack.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        self._decisions.start()
        if self._outcomes is not None:
            self._outcomes.start()
        self._server = server_for(self.app)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0)
        if self._serving.done():
            self._serving.result()

    async def stop(self) -> None:
        """Take no more, finish what is under way, let go of the broker."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        await self._decisions.stop()
        if self._outcomes is not None:
            await self._outcomes.stop()
        await self._log.stop()


class _LateLog:
    """A log that connects when something is first published: the API serves before the broker is there."""

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self._starting = asyncio.Lock()
        self._is_started = False

    async def publish(self, records: Sequence[Record]) -> None:
        async with self._starting:
            if not self._is_started:
                await self._log.start()
                self._is_started = True
        await self._log.publish(records)

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Nothing is read here."""

    async def stop(self) -> None:
        if self._is_started:
            await self._log.stop()


async def serve(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM, then end cleanly."""
    store = RedisStore.of(settings.shared.own)
    clock = StoreClock(store.now_ms)
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, asked_to_stop.set)
    window = Console(settings, store, clock)
    try:
        await window.start()
        LOG.info("the API listens on port %d", window.port)
        while not asked_to_stop.is_set():
            try:
                await asyncio.wait_for(asked_to_stop.wait(), LEARN_S)
            except TimeoutError:
                await _learn(clock)
    finally:
        await window.stop()
        await store.close()


async def _learn(clock: StoreClock) -> None:
    try:
        if await clock.learn():
            # Nothing fires here: what is shown follows the store's clock, wherever it was set.
            clock.follow()
    except OSError as error:
        LOG.warning("the store does not tell the time: %s", type(error).__name__)


def run(env: Mapping[str, str]) -> int:
    """Run the window as a process of its own; the process's exit code."""
    settings = console.settings.read(env)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (OpportuneError, OSError) as error:
        LOG.error("the API ended: %s", error)
        return 1
    return 0
