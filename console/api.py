"""The API under ``/api/v1`` (DESIGN §6): profiles, explanations, segments, triggers, decisions, rules; commands about people
and their receipts. What can be asked stands in console/routes, what it is read from in console/reader.py, who may do what in
console/callers.py. It writes nothing itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from connectors.clock import SystemClock
from console import shapes
from console.answers import PROBLEMS, Asked, json_answer
from console.callers import Callers, Pages
from console.guard import Guarded, answers_to_errors
from console.page import Page
from console.reader import Reader
from console.routes import projections
from console.routes.admission import may
from console.routes.people import Desk, people
from console.routes.profiles import profiles
from console.routes.segments import segments
from console.routes.triggers import triggers
from profiles.errors import OpportuneError
from profiles.moments import Clock


def make_app(
    reader: Reader,
    callers: Callers,
    names: frozenset[str] = frozenset(),
    *,
    desk: Desk | None = None,
    pages: Pages | None = None,
    origins: Sequence[str] = (),
    wall: Clock | None = None,
) -> Guarded:
    """The ASGI app.

    Args:
        callers: who may ask for what.
        names: host names by which it may be asked; none: by any.
        desk: takes commands about people; without it the app only reads.
        pages: what pages may ask by; none: nothing.
        origins: of pages that may ask.
        wall: by which the tokens of pages end; the machine's clock unless given.
    """
    app = FastAPI(
        title="Opportune",
        summary="Profiles, segments, triggers and decisions of one installation; commands about people.",
        version="1",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    answers_to_errors(app)

    def scoped(scope: str, *register: Callable[[APIRouter], None]) -> None:
        routes = APIRouter(dependencies=[may(callers, scope)])
        for one in register:
            one(routes)
        app.include_router(routes)

    # An address may hold slashes, so the longer paths stand first.
    scoped("hint", partial(projections.hints, reader=reader))
    scoped("read", *(partial(one, reader=reader) for one in (profiles, segments, triggers)))
    people(app, desk, callers)
    public = APIRouter()
    projections.pages(public, reader, pages or Pages(""), wall or SystemClock())
    app.include_router(public)
    _health(app, reader)
    return Guarded(app, names, origins)


def _health(app: FastAPI, reader: Reader) -> None:
    page = Page(Path(__file__).with_name("page.html"))

    @app.get("/", include_in_schema=False)
    async def people() -> Response:
        return Response(page.body, headers=page.headers)

    @app.get("/healthz", response_model=shapes.Status)
    async def alive() -> Response:
        """The process runs."""
        return json_answer({"status": "ok"})

    @app.get("/readyz", response_model=shapes.Status, responses={503: PROBLEMS[503]})
    async def ready() -> Response:
        """The store answers, rules are in force, and decisions are read."""
        await reader.store.now_ms()
        await reader.generation()
        if reader.decisions is not None and not reader.decisions.reading:
            raise Asked(503, "unavailable", "decisions: a broker that answers wanted, got none")
        return json_answer({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def told_metrics() -> Response:
        # Counted when they are looked at; a store that does not answer must not hide the other metrics.
        with contextlib.suppress(Asked, OSError, OpportuneError):
            await reader.sizes(await reader.generation())
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
