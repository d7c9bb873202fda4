"""Of one customer: all that the profile holds, why it is in a segment or not, and what it knows of its past."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from console import shapes
from console.answers import PROBLEMS, Asked, json_answer
from console.reader import Reader, known_segment
from profiles.moments import iso
from rules import explain

FLIPS_MAX: Final = 3
"""Of so many segments one answer says what would turn it: each is a search of some ten milliseconds."""

At = Annotated[
    str | None,
    Query(
        max_length=40,
        description="An instant (ISO 8601), not before the profile's last input and at most five years ahead: how "
        "things stand then if nothing happens. Now, unless given.",
    ),
]


def profiles(routes: APIRouter, reader: Reader) -> None:
    """The routes."""

    @routes.get("/api/v1/profiles/{address:path}/explain", response_model=shapes.Explanations, responses=PROBLEMS)
    async def explain_profile(
        address: str,
        segment: Annotated[
            list[str] | None, Query(max_length=100, description="A segment's name; all of them unless given.")
        ] = None,
        at: At = None,
        to_flip: Annotated[
            bool, Query(description=f"Say also what would turn the answer at once; of at most {FLIPS_MAX} segments.")
        ] = False,
    ) -> Response:
        """Why the profile is in a segment or not, since when, when that changes if nothing happens, and what would
        change it at once."""
        if to_flip and not 0 < len(segment or ()) <= FLIPS_MAX:
            got = len(segment or ()) or "all"
            raise Asked(400, "bad_segment", f"to_flip: 1 to {FLIPS_MAX} segments by name wanted, got {got}")
        generation = await reader.generation()
        profile, found = await reader.profile(address)
        for name in segment or ():
            known_segment(name, generation)
        at_ms = reader.instant(at, profile)
        told = explain.explain_all(profile, generation.rulebook, at_ms, segment, to_flip=to_flip)
        return json_answer({**found, "generation": generation.rulebook.hash, "segments": told})

    @routes.get("/api/v1/profiles/{address:path}/timeline", response_model=shapes.Timeline, responses=PROBLEMS)
    async def profile_timeline(address: str, at: At = None) -> Response:
        """What the profile still knows of its past, newest first: its orders, what was said, and what it is in now.

        It is not the log: other events are not kept, only what came of them.
        """
        generation = await reader.generation()
        profile, found = await reader.profile(address)
        at_ms = reader.instant(at, profile)
        entries = explain.timeline(profile, generation.rulebook, at_ms)
        as_of = iso(max(at_ms, explain.last_input_ms(profile)))
        return json_answer({**found, "as_of": as_of, "entries": entries})

    @routes.get("/api/v1/profiles/{address:path}", response_model=shapes.ProfileShown, responses=PROBLEMS)
    async def profile(address: str, at: At = None) -> Response:
        """All that the profile holds. Any address of the person leads to it: `user:42`, `email:ana@shop.example`,
        `phone:+79161234567`, `anon:…`; a plain e-mail, phone or card is hashed before it is looked up.
        """
        generation = await reader.generation()
        profile, found = await reader.profile(address)
        told = explain.describe(profile, generation.rulebook, reader.instant(at, profile))
        return json_answer({**found, "generation": generation.rulebook.hash, **told})
