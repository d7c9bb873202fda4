"""The pages hold what the code says of itself, and rules printed in them are rules."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from rules.compile import compile_rules

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
_FENCED: Final = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_make", DOCS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_made_parts_of_the_pages_are_what_the_code_says() -> None:
    maker = _maker()
    pages = {path.name: path.read_text() for path in maker.pages()}
    assert {"metrics.md", "rules.md", "settings.md"} <= set(pages)
    assert {name: maker.made_anew(text) for name, text in pages.items()} == pages, "run: python docs/make.py"


def _printed() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", DOCS / "rules.md"]
    return [
        (f"{page.name} {number}", block)
        for page in pages
        for number, block in enumerate(_FENCED.findall(page.read_text()), start=1)
        if re.search(r"^(defaults|traits|segments|triggers):", block, re.MULTILINE)
    ]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in _printed()])
def test_a_rule_file_printed_in_a_page_compiles(text: str) -> None:
    compile_rules([("printed.yaml", text)])


def test_there_are_rule_files_in_the_pages() -> None:
    assert len(_printed()) >= 4


def test_every_link_within_the_project_leads_somewhere() -> None:
    lost = [
        (str(page.relative_to(ROOT)), target)
        for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
        for target in _LINK.findall(page.read_text())
        if ":" not in target and not (page.parent / target).exists()
    ]
    assert lost == []
