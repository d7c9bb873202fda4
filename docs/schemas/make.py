"""Writes the JSON Schemas beside this file, and all of them into the package: ``python docs/schemas/make.py``."""

from __future__ import annotations

import json
from pathlib import Path

from console.published import BUNDLE
from profiles.schemas import schemas
from rules.schema import rule_files

HERE = Path(__file__).parent


def bundle() -> dict[str, object]:
    """Every schema here by its name."""
    paths = {
        str(path.relative_to(HERE)).removesuffix(".json").removesuffix(".schema"): path for path in HERE.rglob("*.json")
    }
    return {name: json.loads(path.read_text()) for name, path in sorted(paths.items())}


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
    BUNDLE.write_text(text_of(bundle()))
