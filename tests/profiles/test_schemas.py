"""The published JSON Schemas say what is on the event topics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import BadInput
from profiles.schemas import ENVELOPE, props_schema, schemas
from profiles.spec import EventType, Example
from profiles.taxonomy import EVENT_TYPES, canonical
from profiles.wire import Event, encode_event
from tests.profiles.test_event_types import EXAMPLES, SENT

FOLDER: Final = Path(__file__).parents[2] / "docs" / "schemas"
CHECKS: Final = {one.name: jsonschema_rs.validator_for(props_schema(one)) for one in EVENT_TYPES.values()}


def test_the_published_files_are_what_the_types_say() -> None:
    published = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*.schema.json")}
    assert {name: json.loads(text) for name, text in published.items()} == schemas(), "run: python docs/schemas/make.py"


@pytest.mark.parametrize(("one", "example"), EXAMPLES)
def test_an_example_is_valid_by_its_schema(one: EventType, example: Example) -> None:
    CHECKS[one.name].validate(example.props)


@given(one=st.sampled_from(sorted(EVENT_TYPES.values(), key=lambda one: one.name)), sent=SENT)
def test_whatever_is_accepted_is_valid_by_its_schema(one: EventType, sent: dict[str, Any]) -> None:
    try:
        props = canonical(one, sent)
    except BadInput:
        return
    CHECKS[one.name].validate(props)


def test_an_event_on_the_wire_is_valid_by_the_envelope() -> None:
    check = jsonschema_rs.validator_for(ENVELOPE)
    bare = Event("m", "s", "page_viewed", 1, 2, "user:1")
    full = Event("m", "s", "x", 1, 2, "user:1", ("email:~a", "anon:b"), {"a": 1}, {"b": 2}, {"c": 3}, True, True)
    for event in (bare, full):
        check.validate(json.loads(encode_event(event)))
    assert set(json.loads(encode_event(full))) == set(ENVELOPE["properties"])
    assert not check.is_valid(json.loads(encode_event(Event("m", "s", "x", 1, 2, "nobody"))))
