"""The API under ``/api/v1`` (DESIGN §6): profiles, explanations, segments, triggers, decisions, rules; commands about people
and their receipts. Who may do what says console/callers.py; it writes nothing itself.

What it shows of a profile is true *now*: the store's bytes are taken to the present by ``rules.explain``, so an alarm
that is due and not handled yet shows already. What it shows of many (sizes, members) is what the workers have recorded.

Every answer that is no success is JSON with ``code`` and ``message``; neither it nor a log line or a metric's label
holds what was asked for (R25). Rules are those that the workers announced in the store; before any did, it says 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import StreamingResponse

from connectors.clock import SystemClock, seconds
from console import exports, lists, metrics, projections, published, shapes
from console.addresses import read_address
from console.answers import PROBLEMS, Asked, json_answer, problem
from console.callers import Callers, Pages
from console.commands import Commands
from console.decisions import DecisionReader, DecisionWindow
from console.page import Page
from console.preview import preview
from console.reports import Reports, window_of
from console.unmerge import Parter
from profiles.codec import BadBlob, decode
from profiles.edits import Edit
from profiles.errors import BadDocument, BadInput, OpportuneError
from profiles.ids import STRENGTH
from profiles.moments import DAY_MS, Clock, iso, parse_instant
from profiles.state import Profile
from profiles.wire import trigger_topic
from rules import explain
from rules.program import Branch, CompiledTrigger, Emit, Entry, Wait, WaitFor
from rules.rulebook import CompiledSegment, Rulebook
from rules.say import in_words
from rules.slips import did_you_mean
from rules.spec import Judged, plain
from rules.undo import NotExact
from stream.facts import Books, Met, read_told
from stream.ports import ProfileStore
from stream.rulebook import IN_FORCE, read_generation, walked

LOG = logging.getLogger(__name__)

AHEAD_MS_MAX: Final = 5 * 365 * DAY_MS
"""How far ahead of now a profile may be asked about: each midnight on the way may have to be looked at."""

DECISIONS_MAX: Final = 1_000
MEMBERS_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 200

PAGES: Final = ("/api/v1/site", "/api/v1/form")
"""What pages of other origins may ask."""

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


FLIPS_MAX: Final = 3
"""Of so many segments one answer says what would turn it: each is a search of some ten milliseconds."""


class Generation:
    """The rules in force, as the workers announced them."""

    def __init__(self, rulebook: Rulebook, files: list[tuple[str, str]]) -> None:
        self.rulebook = rulebook
        self.files = files
        self.segments = {segment.name: segment for segment in rulebook.segments}


class Reader:
    """What the API reads from: the store, the rules in force, the decisions kept, and a clock.

    Args:
        time: what "now" is: the store's clock, or the log's.
        secret: the installation secret.
        sizes_ms: how old a count of members may be.
        reports: tells what came of triggers; none: nobody does.
    """

    def __init__(
        self,
        store: ProfileStore,
        time: Clock,
        secret: bytes,
        window: DecisionWindow,
        decisions: DecisionReader | None = None,
        sizes_ms: int = 0,
        reports: Reports | None = None,
    ) -> None:
        self.store = store
        self.time = time
        self.secret = secret
        self.window = window
        self.decisions = decisions
        self.reports = reports
        self._sizes_ms = sizes_ms
        self._announced: bytes | None = None
        self._known: tuple[Met, ...] = ()
        self._generation: Generation | None = None
        self._sizes: tuple[float, str, dict[str, int]] = (0.0, "", {})

    async def generation(self) -> Generation:
        """The rules in force, compiled once for each generation.

        Raises:
            Asked: 503, none was announced yet.
        """
        announced = await self.store.get_doc(IN_FORCE)
        if announced is None:
            raise Asked(503, "no_rules", "rules: a generation that a worker announced wanted, got none yet")
        (first,) = await self.store.read_shards([0])
        if self._generation is None or announced != self._announced:
            self._generation = Generation(*read_generation(announced)[1:])
            self._announced, self._books, self._known = announced, Books(self._generation.rulebook), ()
        known = read_told(first.generation).known
        if known != self._known:
            for met in known:
                await self._books.fetch(self.store, met.digest)
            self._generation = Generation(self._books.knowing(known), self._generation.files)
            self._known = known
        return self._generation

    async def sizes(self, generation: Generation) -> dict[str, int]:
        """Members by segment, at most ``sizes_ms`` old."""
        now_s = asyncio.get_running_loop().time()
        counted_s, by_rules, sizes = self._sizes
        if by_rules != generation.rulebook.hash or (now_s - counted_s) * 1000 >= self._sizes_ms:
            sizes = await self.store.segment_sizes(list(generation.segments))
            self._sizes = (now_s, generation.rulebook.hash, sizes)
            for name in sorted(sizes)[: metrics.SEGMENTS_LABELLED_MAX]:
                metrics.MEMBERS.labels(name).set(sizes[name])
        return sizes

    async def profile(self, text: str) -> tuple[Profile, dict[str, Any]]:
        """The profile that an address leads to, and how: ``address``, ``asked``, ``via``.

        Raises:
            Asked: 400 for what is no address, 404 where there is nobody.
        """
        asked = self.address(text)
        via: list[str] = []
        address = asked
        # A forwarder points to a stronger kind only, so no walk is longer than there are kinds.
        while len(via) <= len(STRENGTH):
            (blob,) = await self.store.load([address])
            if blob is None:
                break
            profile = decode(address, blob)
            if not profile.forward:
                return profile, {"address": address, "asked": asked, "via": via}
            via.append(address)
            address = profile.forward
        found = f"a forwarder to {address.partition(':')[0]}:…, which holds none yet" if via else "nothing"
        raise Asked(404, "unknown_profile", f"address: one that holds a profile wanted, got {found}")

    def address(self, text: str) -> str:
        """An address as the store knows it.

        Raises:
            Asked: 400, it is none.
        """
        try:
            return read_address(text, self.secret)
        except ValueError as error:
            raise Asked(400, "bad_address", str(error)) from None

    def instant(self, at: str | None, profile: Profile) -> int:
        """The instant that a profile is asked about: now, or ``at``.

        Raises:
            Asked: 400, ``at`` is none that can be told about.
        """
        now_ms = self.time.now_ms()
        if at is None:
            return now_ms
        from_ms, until_ms = explain.last_input_ms(profile), now_ms + AHEAD_MS_MAX
        try:
            at_ms = parse_instant(at)
        except (ValueError, OverflowError):
            raise Asked(
                400, "bad_at", "at: an ISO 8601 time like 2026-11-22T15:04:05Z wanted, got other text"
            ) from None
        if not from_ms <= at_ms <= until_ms:
            wanted = f"from {iso(from_ms)}, the profile's last input, to {iso(until_ms)}"
            raise Asked(400, "bad_at", f"at: an instant {wanted} wanted, got another")
        return at_ms

    def window_told(self) -> dict[str, Any]:
        """Which decisions are kept."""
        return {
            "kept": len(self.window),
            "kept_max": self.window.kept_max,
            "since": self.window.since(),
            "reading": self.decisions is not None and self.decisions.reading,
        }


class Desk(NamedTuple):
    """Who takes commands about people."""

    commands: Commands
    parter: Parter


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
    _answers_to_errors(app)

    def scoped(scope: str, *register: Callable[[APIRouter], None]) -> None:
        routes = APIRouter(dependencies=[_may(callers, scope)])
        for one in register:
            one(routes)
        app.include_router(routes)

    # An address may hold slashes, so the longer paths stand first.
    scoped("hint", partial(projections.hints, reader=reader))
    scoped("read", *(partial(one, reader=reader) for one in (_profiles, _segments, _triggers)))
    _people(app, desk, callers)
    public = APIRouter()
    projections.pages(public, reader, pages or Pages(""), wall or SystemClock())
    app.include_router(public)
    _health(app, reader)
    return Guarded(app, names, origins)


_BEARER: Final = HTTPBearer(auto_error=False, description="A token of OPPORTUNE_API_TOKEN or OPPORTUNE_API_TOKENS.")


def _may(callers: Callers, *scopes: str) -> Any:
    """A dependency: that who asks may do one of these."""
    wanted = f"token: one with the scope {' or '.join(scopes)} wanted"

    def admitted(shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if not any(map(callers.some_may, scopes)):
            raise Asked(403, "read_only", f"{wanted} in the API's settings, got none")
        caller = callers.of(shown.credentials if shown is not None else None)
        may = caller is not None and any(map(caller.may, scopes))
        if caller is None or (shown is None and not may):
            raise Asked(401, "no_token", "Authorization: Bearer and a token of this API wanted, got something else")
        if not may:
            raise Asked(403, "no_scope", f"{wanted}, got one without")

    return Depends(admitted)


# --- profiles -----------------------------------------------------------------------------------------------------

At = Annotated[
    str | None,
    Query(
        max_length=40,
        description="An instant (ISO 8601), not before the profile's last input and at most five years ahead: how "
        "things stand then if nothing happens. Now, unless given.",
    ),
]


def _profiles(routes: APIRouter, reader: Reader) -> None:
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
            _known_segment(name, generation)
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


# --- segments -----------------------------------------------------------------------------------------------------


def _segments(routes: APIRouter, reader: Reader) -> None:
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
        found = _known_segment(name, generation)
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
        _known_segment(name, generation)
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
            str, Query(max_length=NAME_CHARS_MAX, description="Only who may be written to: `email:sale`, `sms:*`.")
        ] = "",
        mode: Annotated[
            Literal["opt_in", "opt_out"], Query(description="opt_out: it is enough that it was not refused.")
        ] = "opt_in",
        bom: Annotated[bool, Query(description="csv: the mark by which spreadsheets know UTF-8.")] = False,
    ) -> Response:
        """The segment's members as a file: address, since when, contact, and the traits asked for."""
        generation = await reader.generation()
        _known_segment(name, generation)
        columns = exports.columns_of(field or [])
        rows = exports.members(reader.store, generation.rulebook, name, columns, _only(consent, mode == "opt_out"))
        disposition = f'attachment; filename="{name}.{form}"'
        return StreamingResponse(
            exports.encoded(rows, columns, form, name, bom=bom),
            media_type=exports.FORMATS[form],
            headers={"content-disposition": disposition, "cache-control": "no-store"},
        )


def _only(text: str, opt_out: bool) -> exports.Only | None:
    if not text:
        return None
    channel, colon, topic = text.partition(":")
    if not (channel and colon and topic):
        raise Asked(400, "invalid_parameter", "consent: channel:topic like email:sale or sms:* wanted, got other text")
    return exports.Only(channel, topic, opt_out)


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


def _known_segment(name: str, generation: Generation) -> CompiledSegment:
    found = generation.segments.get(name)
    if found is None:
        stages = sorted(one for one in generation.segments if one.startswith(f"{name}."))
        hint = f"; its stages are {', '.join(stages)}" if stages else did_you_mean(name, generation.segments)
        raise Asked(404, "unknown_segment", f"segment: one of the rules' wanted, got {_short(name)}{hint}")
    return found


# --- triggers and decisions ---------------------------------------------------------------------------------------


def _triggers(routes: APIRouter, reader: Reader) -> None:
    @routes.get("/api/v1/triggers", response_model=shapes.Triggers, responses=PROBLEMS)
    async def triggers() -> Response:
        """All triggers, with the counts of the decisions kept in memory by reason."""
        generation = await reader.generation()
        counts = reader.window.counts()
        told = [_trigger(one, counts) for _, one in sorted(generation.rulebook.triggers.items())]
        return json_answer({"generation": generation.rulebook.hash, "window": reader.window_told(), "triggers": told})

    @routes.get("/api/v1/triggers/{name}/report", response_model=shapes.Report, responses=PROBLEMS)
    async def trigger_report(
        name: str,
        from_: Annotated[str, Query(alias="from", max_length=40, description="Moments from this instant on.")] = "",
        to: Annotated[str, Query(max_length=40, description="Moments before this instant.")] = "",
        within: Annotated[
            str,
            Query(
                max_length=20,
                description="How long after a moment an order counts; what the trigger says of its conversion, else seven days, unless given.",
            ),
        ] = "",
        touch: Annotated[
            Literal["sent", "opened", "clicked"], Query(description="Which message has an order: the last that was so.")
        ] = "sent",
    ) -> Response:
        """What came of a trigger, by step and variant: moments, what was held back and why, what became of messages, orders and
        their amounts; against the hold-out, and the arms of experiments against one another. As far as the topics go back.
        """
        rulebook = (await reader.generation()).rulebook
        if name not in rulebook.triggers:
            hint = did_you_mean(name, sorted(rulebook.triggers))
            raise Asked(404, "unknown_trigger", f"trigger: one of the rules' wanted, got {_short(name)}{hint}")
        if reader.reports is None:
            raise Asked(503, "unavailable", "reports: an API with brokers wanted, got one without")
        try:
            window = window_of(from_, to, within, touch, rulebook)
        except ValueError as error:
            raise Asked(400, "invalid_parameter", str(error)) from None
        [told] = await reader.reports.told([name], window, rulebook.currency)
        return json_answer(told)

    @routes.get("/api/v1/decisions", response_model=shapes.Decisions, responses=PROBLEMS)
    async def decisions(
        trigger: Annotated[str, Query(max_length=NAME_CHARS_MAX)] = "",
        address: Annotated[
            str, Query(max_length=400, description="Any address of the person; decisions under his others count too.")
        ] = "",
        outcome: Literal["", "emitted", "suppressed", "regret"] = "",
        reason: Annotated[str, Query(max_length=NAME_CHARS_MAX)] = "",
        limit: Annotated[int, Query(ge=1, le=DECISIONS_MAX)] = 100,
    ) -> Response:
        """The latest decisions, newest first: what was sent, and what was not and why.

        A bounded window in this process's memory (`window` says how much), not an archive: the topic `decisions` is.
        """
        if trigger:
            generation = await reader.generation()
            known = {*generation.rulebook.triggers, *reader.window.counts()}
            if trigger not in known:
                hint = did_you_mean(trigger, sorted(known))
                wanted = "trigger: one of the rules' wanted"
                raise Asked(404, "unknown_trigger", f"{wanted}, got {_short(trigger)}{hint}")
        addresses: set[str] = set()
        if address:
            addresses.add(reader.address(address))
            try:
                profile, found = await reader.profile(address)
                addresses |= {found["address"], *found["via"], *profile.links}
            except Asked:
                pass  # Nobody there, but decisions may have been made under that address.
        latest = reader.window.find(trigger=trigger, addresses=addresses, outcome=outcome, reason=reason, limit=limit)
        return json_answer({"window": reader.window_told(), "decisions": latest})

    @routes.get("/api/v1/schemas", response_model=shapes.Schemas, responses=PROBLEMS)
    async def schemas() -> Response:
        """The published JSON Schemas of what crosses the topics, for consumers in any language."""
        return json_answer(
            {"schemas": [{"name": name, "id": one.get("$id")} for name, one in published.schemas().items()]}
        )

    @routes.get("/api/v1/schemas/{name:path}", response_model=dict[str, Any], responses=PROBLEMS)
    async def schema(name: str) -> Response:
        """One of them: `triggers`, `decisions`, `event`, `props/order_completed` …"""
        found = published.schemas().get(name)
        if found is None:
            hint = did_you_mean(name, sorted(published.schemas()))
            raise Asked(404, "unknown_schema", f"schema: a published one wanted, got {_short(name)}{hint}")
        return json_answer(found)

    @routes.get("/api/v1/rules", response_model=shapes.Rules, responses=PROBLEMS)
    async def rules() -> Response:
        """The rule files in force, as the workers loaded them, and how much of the base has met them."""
        generation = await reader.generation()
        rulebook = generation.rulebook
        files = [{"name": name, "text": text} for name, text in generation.files]
        told = {"generation": rulebook.hash, "zone": rulebook.zone_name, "currency": rulebook.currency, "files": files}
        far = await walked(reader.store, rulebook.number)
        return json_answer({**told, **far._asdict(), "incomplete": rulebook.incomplete()})


def _trigger(trigger: CompiledTrigger, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {
        "name": trigger.name,
        "says": trigger.says,
        "words": in_words(trigger),
        "kafka_topic": trigger_topic(trigger.name),
        "topic": trigger.topic,
        "kind": trigger.kind,
        "revision": trigger.revision,
        "enters": _enters(trigger.entry, trigger.document.get("on", {})),
        "steps": _steps(trigger),
        "document": plain(trigger.document),
        "decisions": counts.get(trigger.name, {}),
    }


def _enters(entry: Entry, on: dict[str, Any]) -> str:
    if entry.types:
        return f"on {' or '.join(entry.types)}"
    if entry.segment:
        return f"on {'entering' if entry.entered else 'leaving'} {entry.segment}"
    return ", ".join(f"{key} {value}" for key, value in on.items() if not isinstance(value, dict)) or ", ".join(on)


def _steps(trigger: CompiledTrigger) -> list[str]:
    told: list[str] = []
    for operation in trigger.program:
        if isinstance(operation, Wait):
            told.append(f"wait {operation.duration}" + (", within the day" if operation.within_day else ""))
        elif isinstance(operation, WaitFor):
            awaited = " or ".join(sorted({name for one in operation.listeners for name in one.types}))
            told.append(f"wait for {awaited}, at most {operation.timeout}")
        elif isinstance(operation, Emit):
            told.append(f"emit {operation.template}")
        elif isinstance(operation, Branch):
            told.append("branch")
    return told


# --- commands about people ----------------------------------------------------------------------------------------

WITHIN_S: Final = 30.0
"""How long an un-merge may wait for the worker; the others do not wait."""

RECEIPT: Final = {
    "operationRef": "#/paths/~1api~1v1~1receipts~1%7Bcommand%7D/get",
    "parameters": {"command": "$response.body#/command"},
    "description": "What became of it.",
}
"""How the answer to a command leads to its receipt, in OpenAPI's words."""


def _people(app: FastAPI, desk: Desk | None, callers: Callers) -> None:
    def staffed() -> Desk:
        if desk is None:
            raise Asked(403, "read_only", "commands: an API that takes them wanted, got one that only reads")
        return desk

    admission = Depends(staffed)
    taken = {**PROBLEMS, 202: {"links": {"receipt": RECEIPT}}}
    may_write, may_erase = [_may(callers, "write")], [_may(callers, "erase")]

    @app.post("/api/v1/edits", status_code=202, response_model=shapes.Taken, responses=taken, dependencies=may_write)
    async def edit(asked: shapes.EditAsked, at: Desk = admission) -> Response:
        """State traits and consents of a person by hand, or take them back."""
        said = Edit(asked.by, asked.why, asked.set, tuple(asked.unset), asked.consents)
        return json_answer({"command": await at.commands.edit(asked.address, said, asked.id)}, 202)

    @app.post("/api/v1/erasures", status_code=202, response_model=shapes.Taken, responses=taken, dependencies=may_erase)
    async def erase(asked: shapes.Asked, at: Desk = admission) -> Response:
        """Erase a person with all addresses, for good."""
        return json_answer({"command": await at.commands.erase(asked.address, asked.by, asked.id)}, 202)

    @app.post(
        "/api/v1/unmerges",
        dependencies=may_write,
        response_model=shapes.Receipt,
        responses={**PROBLEMS, 409: {"model": shapes.Problem, "description": "It cannot be done exactly."}},
    )
    async def unmerge(asked: shapes.Asked, at: Desk = admission) -> Response:
        """Part two profiles that were merged by mistake, as if they never had been; or say why that cannot be."""
        try:
            return json_answer(await at.parter.unmerge(asked.address, asked.by, WITHIN_S, asked.id))
        except NotExact as error:
            raise Asked(409, error.reason, str(error)) from None

    @app.get(
        "/api/v1/receipts/{command}",
        dependencies=[_may(callers, "write", "erase")],
        response_model=shapes.Receipt,
        responses={**PROBLEMS, 404: {"model": shapes.Problem, "description": "None yet, or more than 30 days ago."}},
    )
    async def receipt(command: str, at: Desk = admission) -> Response:
        """What became of a command of the last 30 days."""
        found = await at.commands.receipt(command)
        if found is None:
            raise Asked(404, "no_receipt", "command: one that was taken in the last 30 days wanted, got another")
        return json_answer(found)


# --- health, and the page -----------------------------------------------------------------------------------------


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


# --- answers ------------------------------------------------------------------------------------------------------


def _short(name: str) -> str:
    """A name for a message: only if it might be one of ours, for anything else may be about a person."""
    return repr(name) if len(name) <= 64 and name.replace(".", "_").isidentifier() else "other text"


def _answers_to_errors(app: FastAPI) -> None:
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
