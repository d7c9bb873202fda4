"""The OpenAPI page is true: every answer, to good questions and bad ones, is of the shape that it promises."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest
import schemathesis
from hypothesis import Phase, settings
from pydantic import BaseModel
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from console import shapes
from console.api import make_app
from tests.console.filled import OPEN, Shell, ana, forwarder
from tests.console.test_api import decided_life
from tests.rules.told import shop_rules


def filled() -> Shell:
    shell = Shell(rulebook=shop_rules())

    async def fill() -> None:
        await shell.announce()
        await shell.write([ana(shell.rulebook), decided_life("user:bob")])
        await shell.write_profile(forwarder("anon:1", "user:ana"))

    asyncio.run(fill())
    return shell


APP = make_app(filled().reader(), OPEN)
schema = schemathesis.openapi.from_asgi("/api/openapi.json", APP)
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


def test_the_page_is_valid_openapi() -> None:
    schema.validate()
    assert len(schema) >= 11


@schema.parametrize()
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_every_answer_is_as_promised(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(checks=CHECKS)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/api/v1/profiles/anon:1", shapes.ProfileShown),
        ("/api/v1/profiles/user:bob", shapes.ProfileShown),
        ("/api/v1/profiles/anon:1/explain", shapes.Explanations),
        ("/api/v1/profiles/user:ana/timeline", shapes.Timeline),
        ("/api/v1/segments", shapes.Segments),
        ("/api/v1/segments/rfm_loyal", shapes.SegmentWhole),
        ("/api/v1/segments/buyers/members?limit=1", shapes.Members),
        ("/api/v1/triggers", shapes.Triggers),
        ("/api/v1/decisions", shapes.Decisions),
        ("/api/v1/rules", shapes.Rules),
        ("/healthz", shapes.Status),
        ("/readyz", shapes.Status),
    ],
)
async def test_a_good_answer_has_the_shape_that_is_published(path: str, shape: type[BaseModel]) -> None:
    transport = httpx.ASGITransport(app=APP)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert orjson.loads(answer.content) == shape.model_validate_json(answer.content).model_dump(mode="json")
