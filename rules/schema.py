"""A JSON Schema of rule files, for editors: what may stand where, with what each plug-in says of itself.

It knows the keys, and where a rule, a list or a mapping belongs. What a value means (an event's name, a duration that is
none, a trait's kind) ``opportune rules check`` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from profiles.greeting import TEXTS
from profiles.moments import WEEKDAYS
from rules.assemble import BASIC_STEPS, KEYS
from rules.compile import OPERATORS, STEPS, TRIGGER_KINDS
from rules.projections import NAMES
from rules.spec import PUBLISH
from rules.traits import KINDS
from rules.windows import THE_SHOPS

Schema = dict[str, Any]

_RULE: Schema = {"$ref": "#/$defs/rule"}
_RULES: Schema = {"anyOf": [{"type": "array", "items": _RULE, "minItems": 1}, _RULE]}
_INSIDE: dict[str, Schema] = {"all": _RULES, "any": _RULES, "not": _RULE}
"""The values of the operators that hold rules."""

_TEXT: Schema = {"type": "string"}
_LIST: Schema = {"type": "array", "items": {"type": "string"}}
_SAYS: Schema = {"type": "string", "description": "For people."}
_DURATION: Schema = {"type": "string", "description": "A duration: P3M, P7D, PT2H, or 90d, 2h, 30m.", "minLength": 2}


def rule_files() -> Schema:
    """The schema of one rule file."""
    steps: Schema = {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Opportune rule file",
        **_map(
            {
                "says": _SAYS,
                "defaults": _map(
                    {
                        "zone": _TEXT,
                        "currency": _TEXT,
                        "locale": {"enum": list(TEXTS)},
                        "week_start": {"enum": list(WEEKDAYS)},
                        "session_gap": _DURATION,
                        "cart_idle": _DURATION,
                        "free_delivery_from": {"type": ["number", "string"]},
                        "orders": _map({"status_in": {}}, ["status_in"]),
                    }
                ),
                "policies": _named({"type": "object"}),
                "lists": _named({"type": ["array", "object"]}),
                "goals": _named(_map({"event": {}, "where": {}, "says": _SAYS}, ["event"])),
                "traits": _named(
                    {"oneOf": [_of(one.name, (*one.keys, PUBLISH), one.says) for one in KINDS.values()]},
                    "^[a-z][a-z0-9_.]*$",
                ),
                "segments": _named({"$ref": "#/$defs/segment"}),
                "triggers": _named({"$ref": "#/$defs/trigger"}),
                "projections": _map(
                    {name: _map({"traits": _LIST, "segments": _LIST, "says": _SAYS}) for name in NAMES}
                ),
            }
        ),
        "$defs": {
            "rule": {"oneOf": [_of(one.name, one.keys, one.says, _INSIDE.get(one.name)) for one in OPERATORS.values()]},
            "segment": {
                "anyOf": [
                    _RULE,
                    _map({"says": _SAYS, "when": _RULE, "stays_while": _RULE}, ["when"]),
                    _map(
                        {"says": _SAYS, "when": _RULE, "template": _map({"over": {}}, ["over"])}, ["when", "template"]
                    ),
                    _map({"says": _SAYS, "kind": {"const": "static"}, "formed_from": {}, "form_at": {}}, ["kind"]),
                    _map(
                        {
                            "says": _SAYS,
                            "kind": {"const": "stages"},
                            "zone": {"enum": list(THE_SHOPS)},
                            "stages": _stages(),
                        },
                        ["kind", "stages"],
                    ),
                ]
            },
            "trigger": _map(
                {
                    **{key: {} for key in KEYS},
                    "says": _SAYS,
                    "on": {"oneOf": [_of(one.name, one.keys, one.says) for one in TRIGGER_KINDS.values()]},
                    "when": _RULE,
                    "class": {"enum": ["marketing", "transactional"]},
                    "max_age": _DURATION,
                    "pace": _DURATION,
                    "steps": steps,
                },
                ["on", "steps"],
            ),
            "step": {
                "anyOf": [
                    {"const": "exit"},
                    *(_map({name: _branches(steps) if name == "branch" else {}}, [name]) for name in BASIC_STEPS),
                    *(_of(one.name, (), one.says) for one in STEPS.values()),
                ]
            },
        },
    }


def _stages() -> Schema:
    when: Schema = {"anyOf": [{"const": "otherwise"}, _RULE]}
    return {"type": "array", "minItems": 1, "items": _map({"name": _TEXT, "when": when}, ["name", "when"])}


def _branches(steps: Schema) -> Schema:
    inside: Schema = {"anyOf": [steps, {"$ref": "#/$defs/step"}]}
    arm = _map(
        {
            "if": {"anyOf": [_RULE, _map({"event": {}}, ["event"]), _map({"arm": {}}, ["arm"])]},
            "then": inside,
            "else": inside,
        }
    )
    return {"anyOf": [arm, {"type": "array", "items": arm}]}


def _of(name: str, keys: Iterable[str], says: str, inside: Schema | None = None) -> Schema:
    """A mapping that a plug-in reads: its name, and the keys beside it."""
    properties: dict[str, Schema] = {name: {**(inside or {}), "description": says}, **{key: {} for key in keys}}
    return _map(properties, [name]) | {"description": says}


def _map(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | {"required": required} if required else found


def _named(inside: Schema, pattern: str = "^[a-z][a-z0-9_]{0,63}$") -> Schema:
    return {"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": inside}
