"""``opportune dev``: broker, store, topics, collector, worker and API in one process, on embedded parts.

Everything lies in one data folder. The broker forgets at each stop, so each start begins the log anew (R10): profiles
stay, cursors go to 0. The store need not persist; that is the only check of R28 that is relaxed, and only here.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console as Terminal

import connectors.clock
import connectors.settings
import console.settings
from connectors.collector.server import Collector
from console.server import Console
from opportune import beside, demo, logs, parts, topics
from opportune.view import View
from profiles.errors import Refused
from profiles.moments import DAY_MS
from stream import settings as stream_settings
from stream.anew import begin_log_anew
from stream.clock import LogClock, SystemIds, wall_ms
from stream.topic_ids import TOPICS
from stream.worker import LiveWorker

DEMO_KEY: Final = "demo-public-key"
DEMO_DAYS_BACK: Final = 365
SECRET_BYTES: Final = 32
CANCEL_AGAIN_S: Final = 0.5
DEMO_SECRET_KEY: Final = "dev-secret-key"

RELAXED: Final = "relaxed in dev only: the broker keeps records in memory, the store need not persist (R28)"


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        with_demo: run the demo shop, on the log's clock, in a folder of its own and with an empty store.
        rules: the folder of rule files; ``None`` for the shop pack.
        clock: ``store`` or ``log``.
    """

    data_dir: Path
    with_demo: bool
    seed: int
    rules: Path | None
    clock: str
    collector_port: int
    api_port: int


async def run(options: Options) -> int:
    """Run until Ctrl-C or until a part fails; the process's exit code."""
    folder = options.data_dir / beside.DEMO if options.with_demo else options.data_dir
    say = Terminal(highlight=False, soft_wrap=True)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if asked.is_set():
            os._exit(130)  # Asked twice: the servers end with us.
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    async with parts.Embedded(folder, keep=not options.with_demo) as embedded:
        env = _environment(options, folder, embedded)
        settings = stream_settings.read(env)
        logs.configure(settings.own.log_format, settings.own.log_level)
        worker = LiveWorker(settings, relaxed=True)
        await topics.create_topics(embedded.bootstrap, topics.agreed_topics(settings.agreed, worker.rules.triggers))
        await begin_log_anew(worker.store, SystemIds())
        await worker.store.put_doc(TOPICS, b"{}")
        time = (
            worker.clock if isinstance(worker.clock, LogClock) and options.with_demo else connectors.clock.SystemClock()
        )
        if isinstance(time, LogClock):
            time.advance(wall_ms() // DAY_MS * DAY_MS - DEMO_DAYS_BACK * DAY_MS)
        collector = Collector(connectors.settings.read(env), time, goods=worker.goods)
        api = Console(console.settings.read(env), worker.store, worker.clock)
        await _port(collector.start(), "collector", options.collector_port)
        try:
            await _port(api.start(), "API", options.api_port)
            await worker.start()
            banner = _banner(options, collector.port, api.port, embedded, env, worker.rules.currency)
            beside.tell(folder, env)
            say.print(banner)
            working = [asyncio.ensure_future(worker.wait()), asyncio.ensure_future(asked.wait())]
            if options.with_demo:
                address = f"http://127.0.0.1:{collector.port}"
                working.append(asyncio.ensure_future(demo.play(address, DEMO_KEY, worker.clock, options.seed)))  # type: ignore[arg-type]  # a demo's clock is the log's

            def names() -> list[str]:
                return [segment.name for segment in worker.rules.segments]  # By the rules in force just now.

            view = View(worker.store, names, embedded.bootstrap, worker.clock, banner)
            working.append(asyncio.ensure_future(view.run()))
            await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            failed = [one.exception() for one in working if one.done() and one.exception() is not None]
            await _cancelled(working)
            say.print("stopping …")
        finally:
            beside.tell_no_more(folder)
            await collector.stop()
            await worker.stop()
            await api.stop()
    if failed:
        say.print(f"opportune dev ended: {type(failed[0]).__name__}: {failed[0]}")
        return 1
    say.print("stopped")
    return 0


async def _cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """End these tasks, though a library swallow a cancellation now and then: ask until they have ended."""
    waiting = set(tasks)
    while waiting:
        for one in waiting:
            one.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)


async def _port(starting: Awaitable[None], who: str, port: int) -> None:
    try:
        await starting
    except OSError as error:
        raise Refused(
            f"{who}: port {port} wanted, {error.strerror or error}; choose another with --{who.lower()}-port"
        ) from error


def _environment(options: Options, folder: Path, embedded: parts.Embedded) -> Mapping[str, str]:
    """The settings of all parts: the process's own environment, and what ``dev`` decides."""
    env = dict(os.environ)
    env |= {
        "OPPORTUNE_BOOTSTRAP": embedded.bootstrap,
        "OPPORTUNE_REDIS_URL": embedded.redis_url,
        "OPPORTUNE_REPLICATION": "1",
        "OPPORTUNE_DATA_DIR": str(folder),
        "OPPORTUNE_COLLECTOR_HOST": env.get("OPPORTUNE_COLLECTOR_HOST", "127.0.0.1"),
        "OPPORTUNE_COLLECTOR_PORT": str(options.collector_port),
        "OPPORTUNE_API_PORT": str(options.api_port),
        "OPPORTUNE_CLOCK": "log" if options.with_demo else options.clock,
        "OPPORTUNE_LOG_FORMAT": env.get("OPPORTUNE_LOG_FORMAT", "plain"),
        "OPPORTUNE_LOG_LEVEL": env.get("OPPORTUNE_LOG_LEVEL", "warning"),
        # The embedded broker takes half a session to form a group.
        "OPPORTUNE_SESSION_MS": env.get("OPPORTUNE_SESSION_MS", "3000"),
        "OPPORTUNE_HEARTBEAT_MS": env.get("OPPORTUNE_HEARTBEAT_MS", "500"),
    }
    if options.rules is not None:
        env["OPPORTUNE_RULES"] = str(options.rules)
    if options.with_demo:
        env.setdefault("OPPORTUNE_CURRENCY", "EUR")
        env.setdefault("OPPORTUNE_COLLECTOR_LINGER_MS", "0")  # The shop posts one event after the other.
    env.setdefault("OPPORTUNE_SECRET", _secret(folder))
    env.setdefault("OPPORTUNE_API_OPEN", "yes")
    env.setdefault(
        "OPPORTUNE_WRITE_KEYS",
        f'{{"{DEMO_KEY}": {{"source": "web", "kind": "public"}}, "{DEMO_SECRET_KEY}": {{"source": "shop", "kind": "secret"}}}}',
    )
    return env


def _secret(folder: Path) -> str:
    """The installation secret, drawn once and kept in the data folder."""
    path = folder / "secret"
    if not path.exists():
        ids = SystemIds()
        path.write_text(b"".join(ids.token() for _ in range(SECRET_BYTES // 8)).hex(), encoding="ascii")
        path.chmod(0o600)
    return path.read_text(encoding="ascii").strip()


def _banner(
    options: Options, collector: int, api: int, embedded: parts.Embedded, env: Mapping[str, str], currency: str
) -> str:
    lines = [
        f"collector  http://127.0.0.1:{collector}   (Segment-compatible)",
        f"keys       {DEMO_KEY}: sites;  {DEMO_SECRET_KEY}: back ends, which may also name people by e-mail or phone",
        f"API        http://127.0.0.1:{api}/api/v1   (people: http://127.0.0.1:{api}/)",
        f"Kafka      {embedded.bootstrap}    Redis {embedded.redis_url}    data {env['OPPORTUNE_DATA_DIR']}",
        f"money      {currency} (OPPORTUNE_CURRENCY); orders in another need a rate to be counted",
        RELAXED,
    ]
    if options.with_demo:
        lines.append(
            f"demo       a small shop; one second is {demo.DAYS_PER_S:g} days, from {DEMO_DAYS_BACK} days ago on"
        )
    return "\n".join(lines)
