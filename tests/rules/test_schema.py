"""The JSON Schema of rule files, for editors: it takes every rule that loads here, and sees what is misspelt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
import yaml
from hypothesis import given

from rules.compile import OPERATORS
from rules.schema import rule_files
from rules.traits import KINDS
from tests.laws.histories import documents, law
from tests.scenarios.pack import SHOP

PAGE: Final = Path(__file__).parents[2] / "docs" / "schemas" / "rules.json"
CHECK: Final = jsonschema_rs.validator_for(rule_files())


def read(text: str) -> Any:
    """YAML as plain values; a bare `on` is the key that it looks like."""
    return json.loads(json.dumps(yaml.load(text, yaml.BaseLoader)))  # noqa: S506 - our own files, all as text


def test_the_published_schema_is_what_the_plug_ins_say() -> None:
    assert json.loads(PAGE.read_text()) == rule_files(), "run: python docs/schemas/make.py"


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in SHOP])
def test_the_shop_pack_is_valid(text: str) -> None:
    CHECK.validate(read(text))


def test_every_example_of_an_operator_and_of_a_kind_of_trait_is_valid() -> None:
    for operator in OPERATORS.values():
        for example in operator.examples:
            rule = read(example.rule)
            CHECK.validate({"triggers" if "on" in rule else "segments": {"it": rule}})
    for kind in KINDS.values():
        for made in kind.examples:
            CHECK.validate({"traits": {"it": read(made.trait)}})


@law(60)
@given(document=documents(carts=True))
def test_a_rule_file_that_loads_is_valid(document: dict[str, Any]) -> None:
    CHECK.validate(document)


@pytest.mark.parametrize(
    "text",
    [
        "segmnts: {}",
        "segments: {Vip: {did: order}}",
        "segments: {vip: {did_nt: order}}",
        "segments: {vip: {did: order, windw: {within: P1D}}}",
        "segments: {vip: {all: [{did: order}, {trat: gender}]}}",
        "segments: {vip: {did: order, trait: gender}}",
        "segments: {life: {kind: stages, stages: [{name: a}]}}",
        "traits: {spent: {smu: order.total}}",
        "triggers: {cart: {on: {evnt: product_added}, steps: [{emit: a}]}}",
        "triggers: {cart: {on: {event: product_added}, steps: []}}",
        "triggers: {cart: {on: {event: product_added}, steps: [{emitt: a}]}}",
        "triggers: {cart: {on: {event: product_added}, wen: {did: order}, steps: [{emit: a}]}}",
        "defaults: {zne: UTC}",
    ],
)
def test_what_is_misspelt_is_invalid(text: str) -> None:
    assert not CHECK.is_valid(read(text))
