"""Of triggers: what they do, what was decided and what came of it; and of the rules and schemas that are in force."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response

from console import published, shapes
from console.answers import PROBLEMS, Asked, json_answer
from console.reader import Reader, short
from console.reports import window_of
from profiles.wire import trigger_topic
from rules.program import Branch, CompiledTrigger, Emit, Entry, Wait, WaitFor
from rules.say import in_words
from rules.slips import did_you_mean
from rules.spec import plain
from stream.rulebook import walked

DECISIONS_MAX: Final = 1_000
NAME_CHARS_MAX: Final = 200


def triggers(routes: APIRouter, reader: Reader) -> None:
    """The routes."""

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
            raise Asked(404, "unknown_trigger", f"trigger: one of the rules' wanted, got {short(name)}{hint}")
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
                raise Asked(404, "unknown_trigger", f"{wanted}, got {short(trigger)}{hint}")
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
            raise Asked(404, "unknown_schema", f"schema: a published one wanted, got {short(name)}{hint}")
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
