"""Which event type a name means, and what its properties become.

``Product Added``, ``productAdded``, ``product-added`` and GA4's ``add_to_cart`` are one type. A name that is none
of ours is an event type too: its canonical spelling is snake case, its properties are kept as sent, and it goes to
``customer_events``. What the types are is found in ``profiles/event_types``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

import profiles.event_types
from profiles.errors import BadInput
from profiles.event_types.any_other import SPEC as ANY_OTHER
from profiles.spec import EventType, discover

NAME_CHARS_MAX: Final = 100
MISTAKES_TOLD_MAX: Final = 5


def _squashed(name: str) -> str:
    """One spelling for all: lower case letters and digits of any script, nothing between them."""
    return "".join(char for char in name.casefold() if char.isalnum())


def _by_spelling(types: list[EventType]) -> dict[str, EventType]:
    found: dict[str, EventType] = {}
    for one in types:
        for name in (one.name, *one.aliases):
            other = found.setdefault(_squashed(name), one)
            assert other is one, f"{name!r} names both {other.name} and {one.name}"
    return found


EVENT_TYPES: Final[Mapping[str, EventType]] = {
    one.name: one for one in discover(profiles.event_types, EventType) if one is not ANY_OTHER
}
"""Canonical name -> type, all that we know."""

_SPELLINGS: Final = _by_spelling(list(EVENT_TYPES.values()))


@lru_cache(maxsize=8_192)
def resolve(name: str) -> EventType:
    """The event type of that name, in any spelling or by any alias.

    A name that we do not know gives an open type of its own: snake case, properties as sent.

    Raises:
        BadInput: ``bad_name``: empty, too long, or without a letter or digit.
    """
    if len(name) > NAME_CHARS_MAX:
        raise BadInput("bad_name", f"event: a name of at most {NAME_CHARS_MAX} characters wanted, got {len(name)}")
    squashed = _squashed(name)
    if not squashed:
        raise BadInput("bad_name", "event: a name with a letter or a digit wanted, got none")
    return _SPELLINGS.get(squashed) or replace(ANY_OTHER, name=snake(name), aliases=(), examples=())


def snake(name: str) -> str:
    """``Quiz Finished``, ``quizFinished`` and ``quiz-finished`` as ``quiz_finished``."""
    parted = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", parted).strip("_").casefold()


def canonical(event_type: EventType, properties: dict[str, Any]) -> dict[str, Any]:
    """The canonical payload of properties as a sender wrote them.

    Raises:
        BadInput: ``invalid_payload``: says which fields, what was wanted and what kind of thing was found,
            never the value.
    """
    values = properties.values()
    if None in values or "" in values:
        # Absent, null and empty are one to SDKs: null under a field's first name must not hide its second.
        properties = {name: value for name, value in properties.items() if value is not None and value != ""}
    try:
        payload = event_type.payload.model_validate(properties)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        told = "; ".join(_told(mistake) for mistake in mistakes[:MISTAKES_TOLD_MAX])
        more = f"; and {len(mistakes) - MISTAKES_TOLD_MAX} more" if len(mistakes) > MISTAKES_TOLD_MAX else ""
        raise BadInput("invalid_payload", f"{event_type.name}: {told}{more}") from None
    return payload.model_dump(exclude_none=True)


_WANTED: Final = {
    "missing": "a value",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_too_long": "shorter text",
    "string_pattern_mismatch": "text of the right form",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "too_long": "a shorter list",
    "too_short": "a longer list",
    "greater_than_equal": "a greater number",
    "less_than_equal": "a smaller number",
}
_CURRENCY_WANTED: Final = "an ISO 4217 currency like EUR"
_KINDS: Final = {
    "NoneType": "null",
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "dict": "an object",
    "list": "a list",
}


def _told(mistake: ErrorDetails) -> str:
    """One mistake as ``field: wanted, got kind``."""
    where = ".".join(str(part) for part in mistake["loc"])
    place = f"{where}: " if where else ""
    kind = mistake["type"]
    if kind == "value_error":
        # Our own validators: their texts say what was wanted and never hold a value.
        return f"{place}{mistake['ctx']['error']}"
    found = (
        "nothing" if kind == "missing" else _KINDS.get(type(mistake["input"]).__name__, type(mistake["input"]).__name__)
    )
    if mistake["loc"] and mistake["loc"][-1] == "currency":
        wanted = _CURRENCY_WANTED
    elif kind in ("literal_error", "enum"):
        wanted = mistake["ctx"]["expected"]
    else:
        wanted = _WANTED.get(kind, kind.replace("_", " "))
    return f"{place}{wanted} wanted, got {found}"
