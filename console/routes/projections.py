"""Short answers for others than the shop's own people, as the rules' ``projections`` allow: ``hint`` for till and call
centre, by any address; ``site`` for a page, of its visitor; ``form`` for a form, of the customer who has signed in.

A page shows a token that the shop signed (console/callers.py) and is answered about that address and no other. Somebody
whom nobody knows yet is answered like somebody of whom nothing is known: a page is the same for all new visitors.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from console import shapes
from console.answers import PROBLEMS, Asked, json_answer
from console.callers import Pages
from console.reader import Reader
from profiles.greeting import greeting
from profiles.moments import Clock
from profiles.state import Profile
from rules import explain
from rules.projections import Projection
from rules.rulebook import Rulebook

_SIGNED = HTTPBearer(auto_error=False, scheme_name="page", description="A JSON Web Token that the shop signed.")
_Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(_SIGNED)]


def hints(routes: APIRouter, reader: Reader) -> None:
    """The route for till and call centre."""

    @routes.get("/api/v1/profiles/{address:path}/hint", response_model=shapes.Hint, responses=PROBLEMS)
    async def hint(address: str) -> Response:
        """What till and call centre should know of a customer, by any address of his: `phone:+79161234567`, `user:42`,
        `card:…`. Which traits and segments: the rules' `projections`.
        """
        rulebook = (await reader.generation()).rulebook
        projection = _declared(rulebook, "hint")
        profile, found = await reader.profile(address)
        line = greeting(profile.traits, rulebook.locale)
        told = explain.project(profile, projection, rulebook, reader.time.now_ms())
        return json_answer({**found, "greeting": line, **told})


def pages(routes: APIRouter, reader: Reader, signed: Pages, wall: Clock) -> None:
    """The routes for pages.

    Args:
        wall: by which tokens end.
    """

    async def told(name: str, shown: HTTPAuthorizationCredentials | None) -> Response:
        if not signed:
            raise Asked(403, "no_pages", "pages: OPPORTUNE_API_SITE_KEY wanted in the API's settings, got nothing")
        subject = signed.subject(shown.credentials, name, wall.now_ms()) if shown is not None else None
        if subject is None:
            raise Asked(401, "no_token", f"token: one signed by the shop for {name!r}, of today, wanted, got another")
        rulebook = (await reader.generation()).rulebook
        projection = _declared(rulebook, name)
        profile = await _of(reader, subject)
        answer: dict[str, Any] = {"known": profile.first_seen_ms > 0}
        if name == "form":
            answer["greeting"] = greeting(profile.traits, rulebook.locale)
        return json_answer({**answer, **explain.project(profile, projection, rulebook, reader.time.now_ms())})

    @routes.get("/api/v1/site", response_model=shapes.Site, responses=PROBLEMS)
    async def site(shown: _Shown) -> Response:
        """What a page may know of its visitor: the traits and the segments that the rules' `projections` list."""
        return await told("site", shown)

    @routes.get("/api/v1/form", response_model=shapes.Form, responses=PROBLEMS)
    async def form(shown: _Shown) -> Response:
        """What a form may be filled with, and how to greet the customer who has signed in."""
        return await told("form", shown)


async def _of(reader: Reader, address: str) -> Profile:
    """Whom an address leads to, or one of whom nothing is known."""
    try:
        return (await reader.profile(address))[0]
    except Asked as error:
        if error.status != 404:
            raise
        return Profile(reader.address(address))


def _declared(rulebook: Rulebook, name: str) -> Projection:
    found = rulebook.projections.get(name)
    if found is None:
        raise Asked(404, "no_projection", f"projections: {name!r} wanted in the rules, got none of that name")
    return found
