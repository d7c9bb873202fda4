"""A TCP proxy that does to connections what networks do, as a seed has it.

    async with Proxy(target_port, seed) as proxy:
        proxy.weather = Weather(delay_ms=40, resets=0.01, stalls=0.005)

Every piece of data that passes is a draw: it goes on, goes on late, is the last (*reset*: both sides are cut off at once),
or from it on one direction is silent for ever while the connection stands (*half-open*; a cut of both directions is two of
them). ``bites`` counts what was done.

    proxy.hold(after=3, what=b"…")      # the fourth piece towards the target that holds these bytes waits, with all behind it
    await proxy.held.wait()
    proxy.release()
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random  # noqa: TID251 - seeded: the same weather every time
from types import TracebackType
from typing import Final, Self

from opportune.parts import HOST

PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Weather:
    """What becomes of a piece of data.

    Attributes:
        delay_ms: a delayed piece waits up to so long.
        delays, resets, stalls: how often, as shares of the pieces.
    """

    delay_ms: int = 0
    delays: float = 0.0
    resets: float = 0.0
    stalls: float = 0.0


FAIR: Final = Weather()


class Proxy:
    """Listens on a port of its own and passes on to another.

    Attributes:
        port: where it listens.
        weather: may be changed at any time.
        target: the port that new connections are passed on to.
        bites: ``delayed``, ``reset``, ``stalled``: how often.
        held: a piece waits.
    """

    def __init__(self, target: int, seed: int) -> None:
        self.port = 0
        self.weather = FAIR
        self.bites: Counter[str] = Counter()
        self.target = target
        self.held = asyncio.Event()
        self._what, self._after = b"", 0
        self._released = asyncio.Event()
        self._random = Random(seed)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def hold(self, what: bytes, *, after: int) -> None:
        """Let so many pieces with these bytes pass towards the target, and make the next one wait."""
        self.held.clear()
        self._released.clear()
        self._what, self._after = what, after

    def release(self) -> None:
        """Let it go on, and hold nothing any more."""
        self._what = b""
        self._released.set()

    def cut(self) -> None:
        """Reset every connection there is."""
        self.bites["reset"] += len(self._open) // 2
        for writer in list(self._open):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut everything off."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._serving.add(this)
        this.add_done_callback(self._serving.discard)
        try:
            there, beyond = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, beyond)
        self._open.update(ends)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, beyond, ends, self._may_go))
                both.create_task(self._pass(there, writer, ends))
        finally:
            for end in ends:
                end.transport.abort()
            self._open.difference_update(ends)

    async def _may_go(self, data: bytes) -> None:
        if self._what and self._what in data:
            self._after -= 1
            if self._after < 0:
                self.held.set()
                await self._released.wait()

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, ...],
        may_go: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        """One direction, until it ends."""
        is_silent = False
        try:
            while data := await source.read(PIECE):
                weather, draw = self.weather, self._random.random()
                if is_silent:
                    continue
                if may_go is not None:
                    await may_go(data)
                if draw < weather.resets:
                    self.bites["reset"] += 1
                    break
                if draw < weather.resets + weather.stalls:
                    self.bites["stalled"] += 1
                    is_silent = True
                    continue
                if draw < weather.resets + weather.stalls + weather.delays:
                    self.bites["delayed"] += 1
                    await asyncio.sleep(self._random.random() * weather.delay_ms / 1000)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # One of them went: so does the other.
        for end in ends:
            end.transport.abort()
