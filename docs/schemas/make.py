"""Writes the JSON Schemas beside this file: ``python docs/schemas/make.py``."""

from __future__ import annotations

import json
from pathlib import Path

from profiles.schemas import schemas
from rules.schema import rule_files

HERE = Path(__file__).parent


def text_of(schema: object) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    wanted = schemas()
    for name, schema in wanted.items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text_of(schema))
    (HERE / "rules.json").write_text(text_of(rule_files()))
    for old in HERE.rglob("*.schema.json"):
        if str(old.relative_to(HERE)) not in wanted:
            old.unlink()
