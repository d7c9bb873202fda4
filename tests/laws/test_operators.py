"""Every example of an operator and of a kind of trait is run: what the reference page prints is what the engine does."""

from __future__ import annotations

import re

import pytest
import yaml

import rules.operators
import rules.steps
import rules.triggers
from profiles.spec import discover
from rules.program import StepSpec, TriggerSpec
from rules.say import say_trigger, tongue
from rules.scenarios import check
from rules.spec import OperatorSpec, RuleExample, TraitExample, TraitKind
from rules.traits import KINDS
from rules.words import LANGUAGES

STEPS = discover(rules.steps, StepSpec)
TRIGGERS = discover(rules.triggers, TriggerSpec)
OPERATORS = discover(rules.operators, OperatorSpec)


@pytest.mark.parametrize(
    "example",
    [pytest.param(one, id=f"{spec.name}-{n}") for spec in OPERATORS for n, one in enumerate(spec.examples)],
)
def test_an_operators_example_holds(example: RuleExample) -> None:
    # What may stand in a trigger only is shown as a trigger's `when`.
    is_trigger = example.rule.startswith("{on:")
    check(f"{'trigger' if is_trigger else 'segment'} it = {example.rule}\n{example.scenario}")


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in OPERATORS])
def test_every_operator_has_an_example_and_says_what_it_is(spec: OperatorSpec) -> None:
    assert spec.examples, f"{spec.name}: at least one example wanted"
    assert spec.says.endswith(".")


@pytest.mark.mechanic("D9")
@pytest.mark.parametrize(
    "example",
    [pytest.param(one, id=f"{spec.name}-{n}") for spec in OPERATORS for n, one in enumerate(spec.examples)],
)
def test_an_operators_example_is_said_in_plain_words_in_both_languages(example: RuleExample) -> None:
    rule = yaml.safe_load(example.rule)
    rule = rule.get("when", rule)  # What may stand in a trigger only.
    english, russian = (tongue(language).rule(rule) for language in LANGUAGES)
    assert english != russian
    for said in (english, russian):
        assert "{" not in said, "an operator says itself in words"
        assert not re.search(r"\bP(\d|T)", said), "a duration is said in words"
    assert re.search("[а-я]", russian)
    assert not re.search("[а-я]", english)


@pytest.mark.parametrize(
    "example",
    [pytest.param(one, id=f"{kind.name}-{n}") for kind in KINDS.values() for n, one in enumerate(kind.examples)],
)
def test_an_example_of_a_kind_of_trait_holds(example: TraitExample) -> None:
    check(f"trait it = {example.trait}\n{example.scenario}")


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in KINDS.values()])
def test_every_kind_of_trait_has_an_example_and_says_what_it_is(kind: TraitKind) -> None:
    assert kind.examples, f"{kind.name}: at least one example wanted"
    assert kind.says.endswith(".")


@pytest.mark.parametrize(
    "example",
    [pytest.param(one, id=f"{kind.name}-{n}") for kind in TRIGGERS for n, one in enumerate(kind.examples)],
)
def test_an_example_of_an_entry_holds(example: str) -> None:
    check(example)


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in TRIGGERS])
def test_every_entry_has_an_example_and_says_what_it_is(kind: TriggerSpec) -> None:
    assert kind.examples, f"{kind.name}: at least one example wanted"
    assert kind.says.endswith(".")
    assert kind.words is not None


@pytest.mark.parametrize(
    "example", [pytest.param(one, id=f"{step.name}-{n}") for step in STEPS for n, one in enumerate(step.examples)]
)
def test_an_example_of_a_step_holds_and_is_said_in_plain_words(example: str) -> None:
    done = check(example)
    trigger = done.world.rulebook.triggers["it"]
    english, russian = (say_trigger(trigger, language) for language in LANGUAGES)
    assert english != russian
    assert re.search("[а-я]", russian)
