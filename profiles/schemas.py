"""JSON Schemas of what is on the event topics, for consumers in any language.

The envelope is ``wire.Event``; its ``props`` are the canonical payload of its type. Both are open: a property that a
schema does not name may be there, kept as it was sent. ``docs/schemas/`` holds what this page makes, and a test keeps it so.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.ids import STRENGTH
from profiles.money import AMOUNT_MAX
from profiles.payloads import TEXT_CHARS_MAX, URL_CHARS_MAX, Payload
from profiles.spec import EventType
from profiles.taxonomy import EVENT_TYPES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX}
_URL: Final = {"type": "string", "minLength": 1, "maxLength": URL_CHARS_MAX}

ITEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A product in an event. Properties of the shop's own are kept beside these.",
    "properties": {
        "product_id": {"type": "string", "minLength": 1, "maxLength": 200},
        "quantity": {"type": "integer", "minimum": 1, "description": "Pieces; of a measure that is not whole, 1."},
        "price_e6": {"type": "integer", "minimum": 0, "description": "Unit price, millionths of the major unit."},
        "amount_minor": {
            "type": "integer",
            "minimum": -AMOUNT_MAX,
            "maximum": AMOUNT_MAX,
            "description": "The line's amount in minor units of the event's currency; in orders.",
        },
        "sku": _TEXT,
        "name": _TEXT,
        "brand": _TEXT,
        "category": _TEXT | {"description": "A path: tools/drills."},
        "variant": _TEXT,
        "consumption_days": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "For how long a piece lasts; the catalogue adds it.",
        },
        "url": _URL,
        "image_url": _URL,
    },
    "required": ["product_id"],
}

_ADDRESS: Final = {"type": "string", "pattern": f"^({'|'.join(STRENGTH)}):.+"}

ENVELOPE: Final[dict[str, Any]] = {
    "$schema": DIALECT,
    "title": "event",
    "description": "The value of a record on an event topic; its key is `address`. Empty parts are left out.",
    "type": "object",
    "properties": {
        "message_id": {"type": "string", "description": "With `source` the idempotency key."},
        "source": {"type": "string", "description": "The write key's name, the file's mapping or the adapter."},
        "type": {"type": "string", "description": "Names the schema of `props` under props/, if there is one."},
        "at_ms": {"type": "integer", "description": "When it happened, epoch ms UTC; at most `received_ms`."},
        "received_ms": {"type": "integer", "description": "When it was appended, epoch ms UTC."},
        "address": _ADDRESS | {"description": "The strongest identifier that it carries."},
        "identifiers": {"type": "array", "items": _ADDRESS, "description": "The others, strongest first."},
        "props": {"type": "object"},
        "traits": {"type": "object", "description": "What the event says of the person."},
        "context": {"type": "object", "description": "Page, campaign, locale, time zone, and the like."},
        "trusted": {"const": True, "description": "Its identifiers may be linked. Absent: only anonymous ones."},
        "backfill": {"const": True, "description": "History: it changes state and fires nothing."},
    },
    "required": ["message_id", "source", "type", "at_ms", "received_ms", "address"],
}


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> schema: the envelope, and the canonical payload of every type that we know."""
    return {"event.schema.json": ENVELOPE} | {
        f"props/{one.name}.schema.json": props_schema(one) for one in EVENT_TYPES.values()
    }


def props_schema(one: EventType) -> dict[str, Any]:
    """The schema of a type's canonical payload."""
    payload = one.payload
    assert issubclass(payload, Payload), one.name
    made = payload.model_json_schema(mode="serialization")
    properties: dict[str, Any] = {}
    for name, schema in made["properties"].items():
        properties[name] = _present(schema)
    if "items" in properties:
        properties["items"] = {"type": "array", "items": ITEM}
    if "currency" in properties and "const" not in properties["currency"]:
        properties["currency"] = {"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217."}
    fields = payload.model_fields
    required = [
        name
        for name in properties
        if name in payload.always or fields[name].is_required() or fields[name].default is not None
    ]
    schema = {
        "$schema": DIALECT,
        "title": one.name,
        "description": f"{one.says[0].upper()}{one.says[1:]}. Topic: {one.topic}.",
        "type": "object",
        "properties": properties,
    }
    return schema | ({"required": required} if required else {})


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a field that is there: null is never written, and titles that repeat the name say nothing."""
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    rest = {name: value for name, value in schema.items() if name not in ("title", "default", "anyOf")}
    if len(options) == 1:
        return rest | _present(options[0])
    return rest | ({"anyOf": [_present(one) for one in options]} if options else {})
