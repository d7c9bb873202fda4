"""Round the API: by which names it may be asked, the count of answers, and how each kind of failure is answered.

Every answer that is no success is JSON with ``code`` and ``message``; neither it nor a log line or a metric's label holds what
was asked for (R25).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from connectors.clock import seconds
from console import metrics
from console.answers import Asked, problem
from profiles.codec import BadBlob
from profiles.errors import BadInput, OpportuneError

LOG = logging.getLogger(__name__)

PAGES: Final = ("/api/v1/site", "/api/v1/form")
"""What pages of other origins may ask."""

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def answers_to_errors(app: FastAPI) -> None:
    """Answer whatever is raised."""

    async def asked(request: Request, error: Exception) -> Response:
        assert isinstance(error, Asked)
        return problem(error.status, error.code, str(error))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        answer = problem(error.status_code, code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        # Bytes that are no JSON are placed by a number alone: that says nothing of a field.
        inside = () if first["type"] == "json_invalid" else first["loc"][1:]
        where = ".".join(str(part) for part in inside) or first["loc"][0]
        return problem(400, "invalid_parameter", f"{where}: {first['msg']}")

    async def unavailable(request: Request, error: Exception) -> Response:
        LOG.warning("a request found the store away: %s", type(error).__name__)
        return problem(503, "unavailable", "store: an answer wanted, got none; ask again")

    async def bad_input(request: Request, error: Exception) -> Response:
        assert isinstance(error, BadInput)
        return problem(400, error.reason, str(error))

    async def unusable(request: Request, error: Exception) -> Response:
        LOG.error("a request found what it cannot read: %s", type(error).__name__)
        return problem(503, "unusable", "store: what this version can read wanted, got something else")

    async def bug(request: Request, error: Exception) -> Response:
        return problem(500, "bug", "an error of the API itself")  # `Guarded` tells the log.

    app.add_exception_handler(Exception, bug)
    app.add_exception_handler(Asked, asked)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(OSError, unavailable)
    app.add_exception_handler(BadBlob, unusable)
    app.add_exception_handler(BadInput, bad_input)
    app.add_exception_handler(OpportuneError, unusable)


class Guarded:
    """Round the app: who may be asked by which name, the count of answers, and the answer to our own bugs."""

    def __init__(self, app: FastAPI, names: frozenset[str], origins: Sequence[str] = ()) -> None:
        self.app = app
        self._names = names
        self._for_pages = CORSMiddleware(
            app, allow_origins=origins, allow_methods=["GET"], allow_headers=["authorization"], max_age=600
        )

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        since_s = seconds()
        status = 0
        metrics.UNDER_WAY.inc()

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._names and _host(scope) not in self._names:
                answer = problem(
                    421, "wrong_host", "Host: a name of this API wanted (OPPORTUNE_API_NAMES), got another"
                )
                await answer(scope, receive, counted)
            else:
                await (self._for_pages if scope["path"] in PAGES else self.app)(scope, receive, counted)
        except Exception as error:
            # What was asked may stand in the message: only the kind and the place are told.
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else "?"
            LOG.error("a request ended in %s at %s", type(error).__name__, place)
            if not status:
                await problem(500, "bug", "an error of the API itself")(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            metrics.UNDER_WAY.dec()
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.REQUEST_SECONDS.observe(seconds() - since_s)


def _host(scope: Scope) -> str:
    """The host name that was asked, without the port."""
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
