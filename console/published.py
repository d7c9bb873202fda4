"""The JSON Schemas of all that crosses the topics, as ``docs/schemas`` has them: ``docs/schemas/make.py`` writes the file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import orjson

BUNDLE = Path(__file__).with_name("schemas.json")


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """Name -> schema: a topic's name, ``event``, ``props/<event type>``, or ``rules`` for rule files."""
    found: dict[str, dict[str, Any]] = orjson.loads(BUNDLE.read_bytes())
    return found
