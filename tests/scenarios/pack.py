"""The ready-made shop pack, as rule files for ``scenarios.check``."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

SHOP: Final = tuple(
    (f"rules/packs/shop/{one.name}", one.read_text("utf-8"))
    for one in sorted(files("rules").joinpath("packs", "shop").iterdir(), key=lambda one: one.name)
    if one.name.endswith(".yaml")
)
