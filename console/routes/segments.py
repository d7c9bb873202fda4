"""Of segments: their sizes, their members a page at a time or as a file, and whom a rule would fit before it is saved."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from console import exports, lists, shapes
from console.answers import PROBLEMS, Asked, json_answer
from console.preview import preview
from console.reader import Generation, Reader, known_segment
from profiles.errors import BadDocument
from rules.rulebook import CompiledSegment
from rules.say import in_words
from rules.spec import Judged, plain

MEMBERS_MAX: Final = 1_000
CONSENT_CHARS_MAX: Final = 200


def segments(routes: APIRouter, reader: Reader) -> None:
    """The routes."""

    @routes.get("/api/v1/segments", response_model=shapes.Segments, responses=PROBLEMS)
    async def segments() -> Response:
        """All segments with their sizes."""
        generation = await reader.generation()
        sizes = await reader.sizes(generation)
        told = [_segment(segment, sizes, generation) for _, segment in sorted(generation.segments.items())]
        return json_answer({"generation": generation.rulebook.hash, "segments": told})

    one_at_a_time = asyncio.Lock()

    @routes.post("/api/v1/segments/preview", response_model=shapes.Preview, responses=PROBLEMS)
    async def segment_preview(asked: shapes.Tried) -> Response:
        """Whom a rule would fit, before it is saved: how many, some of them, and which segments they are in. One runs at a
        time.
        """
        generation = await reader.generation()
        async with one_at_a_time:
            try:
                told = await preview(
                    reader.store, generation.rulebook, generation.files, asked.rule, reader.time.now_ms(),
                    sample=asked.sample, most=asked.most,
                )  # fmt: skip
            except BadDocument as error:
                raise Asked(400, "bad_rule", str(error)) from None
        return json_answer({"generation": generation.rulebook.hash, **told})

    @routes.get("/api/v1/segments/{name}", response_model=shapes.SegmentWhole, responses=PROBLEMS)
    async def segment(name: str) -> Response:
        """One segment, and what it hangs together with."""
        generation = await reader.generation()
        found = known_segment(name, generation)
        rulebook = generation.rulebook
        sizes = await reader.store.segment_sizes([name])
        readers = rulebook.dependents[rulebook.place[found.id]]
        return json_answer(
            {
                **_segment(found, sizes, generation),
                "generation": rulebook.hash,
                "text": _words(found.judged),
                "reads": sorted(which for what, which in found.judged.reads if what == "segment"),
                "read_by": sorted(one.name for i, one in enumerate(rulebook.segments) if readers >> i & 1),
                "triggers": sorted(one.name for one in rulebook.triggers.values() if one.entry.segment == name),
                "versions": await lists.versions(reader.store, name),
            }
        )

    @routes.get("/api/v1/segments/{name}/members", response_model=shapes.Members, responses=PROBLEMS)
    async def members(
        name: str,
        cursor: Annotated[str, Query(max_length=40, description="Of the page before; empty: the first page.")] = "",
        limit: Annotated[int, Query(ge=1, le=MEMBERS_MAX)] = 100,
    ) -> Response:
        """A page of the segment's members, as the workers have recorded them.

        Pages are in no order that means anything; who enters or leaves between two pages may be missed or met.
        """
        generation = await reader.generation()
        known_segment(name, generation)
        try:
            page, following = await reader.store.members(name, cursor, limit)
        except ValueError as error:
            raise Asked(400, "bad_cursor", str(error)) from None
        return json_answer({"segment": name, "members": page, "cursor": following})

    @routes.get(
        "/api/v1/segments/{name}/export",
        responses={**PROBLEMS, 200: {"content": {kind: {} for kind in exports.FORMATS.values()}}},
    )
    async def export(
        name: str,
        form: Annotated[Literal["csv", "xlsx", "xml", "json", "jsonl"], Query(alias="format")] = "csv",
        field: Annotated[
            list[str] | None, Query(max_length=exports.FIELDS_MAX, description="A trait beside the usual columns.")
        ] = None,
        consent: Annotated[
            str, Query(max_length=CONSENT_CHARS_MAX, description="Only who may be written to: `email:sale`, `sms:*`.")
        ] = "",
        mode: Annotated[
            Literal["opt_in", "opt_out"], Query(description="opt_out: it is enough that it was not refused.")
        ] = "opt_in",
        bom: Annotated[bool, Query(description="csv: the mark by which spreadsheets know UTF-8.")] = False,
    ) -> Response:
        """The segment's members as a file: address, since when, contact, and the traits asked for."""
        generation = await reader.generation()
        known_segment(name, generation)
        columns = exports.columns_of(field or [])
        rows = exports.members(reader.store, generation.rulebook, name, columns, _only(consent, mode == "opt_out"))
        disposition = f'attachment; filename="{name}.{form}"'
        return StreamingResponse(
            exports.encoded(rows, columns, form, name, bom=bom),
            media_type=exports.FORMATS[form],
            headers={"content-disposition": disposition, "cache-control": "no-store"},
        )


def _only(text: str, opt_out: bool) -> exports.Only | None:
    try:
        return exports.only_of(text, opt_out=opt_out)
    except ValueError as error:
        raise Asked(400, "invalid_parameter", f"consent: {error}") from None


def _segment(segment: CompiledSegment, sizes: dict[str, int], generation: Generation) -> dict[str, Any]:
    return {
        "name": segment.name,
        "kind": "static" if segment.is_static else "dynamic",
        "level": generation.rulebook.level(segment),
        "says": segment.says,
        "words": in_words(segment),
        "size": sizes[segment.name],
        "rule": plain(segment.rule),
    }


def _words(judged: Judged) -> dict[str, Any]:
    return {"op": judged.op, "text": judged.text, "children": [_words(child) for child in judged.children]}
