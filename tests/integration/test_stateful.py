"""Whatever is asked of collector and API in whatever order, with what earlier answers gave: each answer is as promised, and
nothing that was taken is lost.

Schemathesis walks along the links between operations: who was told of is asked for, a command's receipt by the command that
was answered. Collector, worker, API, broker and store are the real ones; the walks are drawn from a fixed seed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis import Case, Response
from schemathesis.checks import not_a_server_error
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import console.settings
from connectors.clock import SystemClock
from console.callers import TOKEN_CHARS_MIN
from console.server import Console
from profiles.wire import DEAD_LETTERS, EVENT_TOPICS
from stream.clock import StoreClock
from stream.store import RedisStore
from tests.conftest import Installation
from tests.integration.parts import SHOP_KEY, Topics, collecting, opened, reading, until, working

SEEDS: Final = 4
WALKS: Final = 8
TOKEN: Final = "t" * TOKEN_CHARS_MIN
CHECKS: Final = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
RULES: Final = """
traits:
  views: {count: product_viewed}
segments:
  lookers: {trait: views, gte: 1}
triggers:
  looked:
    on: {event: product_viewed}
    steps: [{emit: looked}]
"""
USERS: Final = {"type": "string", "enum": ["u-1", "u-2", "u-3"]}
PRODUCT: Final = {
    "type": "object",
    "properties": {
        "product_id": {"type": "string", "enum": ["drill", "saw"]},
        "price": {"type": "number", "minimum": 0, "maximum": 1000},
        "currency": {"const": "USD"},
    },
    "required": ["product_id", "price", "currency"],
}
SAID: Final = {
    "type": "object",
    "properties": {"success": {"type": "boolean"}},
    "required": ["success"],
}
WRONG: Final = {
    "type": "object",
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
    "required": ["code", "message"],
}
ADDRESS: Final = {"parameters": {"address": "user:{$request.body#/userId}"}}

PERSON: Final = {"address": "user:{$request.body#/userId}", "by": "dpo"}


def _call(name: str, **more: Any) -> dict[str, Any]:
    fields = {"userId": USERS, "messageId": {"type": "string", "pattern": "^m-[0-9]{1,6}$"}, **more}
    # By patterns: of a property `userId` Schemathesis would think that some other call must have made the user first.
    patterns = {f"^{one}$": schema for one, schema in fields.items()}
    body = {"type": "object", "patternProperties": patterns, "required": sorted(fields), "additionalProperties": False}
    answers: dict[str, Any] = {
        status: {"description": status, "content": {"application/json": {"schema": SAID if status == "200" else WRONG}}}
        for status in ("200", "400", "413", "429")
    }
    answers["200"]["links"] = {
        "profile": {**ADDRESS, "operationRef": "#/paths/~1api~1v1~1profiles~1{address}/get"},
        "edit": {
            "operationRef": "#/paths/~1api~1v1~1edits/post",
            "requestBody": {**PERSON, "why": "asked", "set": {"city": "Ulm"}},
        },
        "erasure": {"operationRef": "#/paths/~1api~1v1~1erasures/post", "requestBody": PERSON},
        "timeline": {**ADDRESS, "operationRef": "#/paths/~1api~1v1~1profiles~1{address}~1timeline/get"},
    }
    content = {"application/json": {"schema": body}}
    return {"post": {"operationId": name, "requestBody": {"required": True, "content": content}, "responses": answers}}


COLLECTOR: Final = {
    "/v1/track": _call(
        "track",
        event={"type": "string", "enum": ["Product Viewed", "Product Added", "Quiz Finished"]},
        properties={"anyOf": [PRODUCT, {"type": "object"}]},
    ),
    "/v1/identify": _call(
        "identify", anonymousId={"type": "string", "enum": ["a-1", "a-2", "a-3"]}, traits={"type": "object"}
    ),
}


def _linked(document: dict[str, Any]) -> dict[str, Any]:
    """The API's own description, with the collector's calls and what follows from a command's answer."""
    paths = {**document["paths"], **COLLECTOR}
    for path in ("/api/v1/edits", "/api/v1/erasures"):
        assert paths[path]["post"]["responses"]["202"]["links"], f"{path}: a link to its receipt wanted"
    return {**document, "paths": paths}


@pytest.mark.slow
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R29")
async def test_any_walk_along_the_links_is_answered_as_promised_and_loses_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    shop = await opened(installation, rules=str(tmp_path))
    asked = console.settings.read({**shop.env, "OPPORTUNE_API_PORT": "0", "OPPORTUNE_API_TOKEN": TOKEN})
    store = RedisStore(installation.redis_url)
    api = Console(asked, store, StoreClock(store.now_ms))
    async with working(shop), collecting(shop, SystemClock()) as edge, reading(shop) as topics:
        await api.start()
        try:
            told, commands = await asyncio.to_thread(_walked, edge.port, api.port)
            assert len(told) > 5, "walks that tell something"
            assert commands, "walks that command something"
            await topics.settled()
            assert told <= _message_ids(topics)
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{api.port}", headers=headers, timeout=60
            ) as client:

                async def all_answered() -> bool:
                    answers = [await client.get(f"/api/v1/receipts/{command}") for command in sorted(commands)]
                    return all(answer.status_code == 200 for answer in answers)

                await until(all_answered, what="a receipt of every command that was taken")
        finally:
            await api.stop()
            await store.close()


def _walked(collector: int, api: int) -> tuple[set[str], set[str]]:
    """Walk; the ids of messages and of commands that were taken."""
    told, commands, wrong = set[str](), set[str](), list[str]()
    headers = {"authorization": f"Bearer {TOKEN}"}
    document = httpx.get(f"http://127.0.0.1:{api}/api/openapi.json", headers=headers, timeout=60).json()
    schema = schemathesis.openapi.from_dict(_linked(document))

    class Walks(schema.as_state_machine()):  # type: ignore[misc]  # a class made from the document
        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            where = {"base_url": f"http://127.0.0.1:{collector if case.path in COLLECTOR else api}", "timeout": 60}
            return {**where, "auth": (SHOP_KEY, "")} if case.path in COLLECTOR else {**where, "headers": dict(headers)}

        def after_call(self, response: Response, case: Case[Any]) -> None:
            if response.status_code == 200 and case.path in COLLECTOR and isinstance(case.body, dict):
                told.add(str(case.body["messageId"]))
            if response.status_code == 202:
                commands.add(response.json()["command"])

        def validate_response(self, response: Response, case: Case[Any], *_: Any, **more: Any) -> None:
            try:
                case.validate_response(response, checks=CHECKS)
            except BaseExceptionGroup as failures:
                wrong.append(f"{case.method} {case.path}: {response.status_code}: {failures.exceptions}")
                raise

    for number in range(SEEDS):
        # An answer hangs on what was told before, which Hypothesis cannot know: where it sees that, these walks end.
        with suppress(FlakyStrategyDefinition):
            run_state_machine_as_test(
                seed(number)(Walks),
                settings=settings(
                    max_examples=WALKS,
                    stateful_step_count=10,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                ),
            )
    assert not wrong, wrong
    return told, commands


def _message_ids(topics: Topics) -> set[str]:
    """Of all messages on the log, taken or set aside."""
    return {one.get("message_id", "") for topic in (*EVENT_TOPICS, DEAD_LETTERS) for one in topics.json(topic)}
