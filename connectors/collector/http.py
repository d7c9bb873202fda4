"""The HTTP protocol of the collector: uvicorn's, with two bounds that it lacks.

A connection must send a whole request head within ``HEAD_S_MAX``, and a head of ``HEAD_BYTES_MAX`` at most; else it
is closed. Without them, a client that drips headers holds a connection and memory for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S_MAX: Final = 10.0
HEAD_BYTES_MAX: Final = 32 << 10


class EdgeProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounded heads."""

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        if self._fits(len(url)):
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._fits(len(name) + len(value)):
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_came()
        if self._head_bytes <= HEAD_BYTES_MAX:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._head_bytes <= HEAD_BYTES_MAX:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._head_bytes <= HEAD_BYTES_MAX:
            super().on_message_complete()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_S_MAX, self._give_up)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _fits(self, size: int) -> bool:
        self._head_bytes += size + 4
        if self._head_bytes > HEAD_BYTES_MAX:
            self._give_up()
            return False
        return True

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class EmbeddedServer(uvicorn.Server):
    """A server that leaves the process's signals to whoever started it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_for(app: Any) -> EmbeddedServer:
    """A server of an ASGI app, to be given listening sockets."""
    return EmbeddedServer(
        uvicorn.Config(
            app,
            http=EdgeProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=2048,
            timeout_keep_alive=65,  # longer than the usual proxy's, so that it is the proxy who closes
            timeout_graceful_shutdown=30,
        )
    )
