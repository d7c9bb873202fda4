"""docs/mechanics.md: which tests show which row of the specification. ``python -m tests.mechanics`` writes it.

A test that shows a row carries its mark, ``@pytest.mark.mechanic("M46")`` or ``@pytest.mark.invariant("R12")``; the marks
are read from the source, so that the page does not depend on what a machine can run. A row without a mark is open,
whatever the code can do: done is what a test asserts.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

TESTS: Final = Path(__file__).parent
ROWS: Final = TESTS / "data" / "mechanics.yaml"
PAGE: Final = TESTS.parent / "docs" / "mechanics.md"
MARKS: Final = ("mechanic", "invariant")

_HEAD: Final = """# What is shown by tests

Made by `python -m tests.mechanics` from the marks of the tests and `tests/data/mechanics.yaml`; `make test` fails when it
is not current. M rows are the mechanics of the specification, D rows what no other system has, R rows the guarantees of
the reliability contract. *Shown*: tests assert the row. *In part*: they do, but for what is named. *Open*: no test
asserts it yet, whatever the code can do.
"""


def rows() -> dict[str, dict[str, dict[str, Any]]]:
    """Part -> row -> what the data file says of it."""
    read: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(ROWS.read_text("utf-8"))
    return read


def marked() -> dict[str, list[tuple[str, str]]]:
    """Row -> (file, test) of every test that carries its mark, in the order of files and lines."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        of_all = [row for node in tree.body if _is_pytestmark(node) for row in _rows_in(node)]
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test_"):
                own = [row for decorator in function.decorator_list for row in _rows_in(decorator)]
                for row in dict.fromkeys((*own, *of_all)):
                    found[row].append((file.relative_to(TESTS).as_posix(), function.name))
    return dict(found)


def page() -> str:
    """The page's text."""
    tests = marked()
    parts = [_HEAD]
    for name, known in rows().items():
        shown = sum(_state(row, said, tests) == "shown" for row, said in known.items())
        partly = sum(_state(row, said, tests) == "in part" for row, said in known.items())
        parts.append(
            f"\n## {name}\n\n{shown} of {len(known)} shown, {partly} in part.\n\n| | What | State | Tests |\n|---|---|---|---|\n"
        )
        for row, said in known.items():
            state = _state(row, said, tests)
            told = f"{state}; to be shown: {said['rest']}" if state == "in part" else state
            parts.append(f"| {row} | {said['title']} | {told} | {_where(tests.get(row, []))} |\n")
    return "".join(parts)


def _state(row: str, said: dict[str, Any], tests: dict[str, list[tuple[str, str]]]) -> str:
    return "open" if row not in tests else "in part" if said.get("rest") else "shown"


def _where(found: list[tuple[str, str]]) -> str:
    # Files without counts: the page changes when a row comes to be shown elsewhere, not with every test.
    return ", ".join(f"`{file}`" for file in dict.fromkeys(file for file, _ in found))


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(one, ast.Name) and one.id == "pytestmark" for one in node.targets
    )


def _rows_in(node: ast.AST) -> Iterator[str]:
    """The rows named by ``pytest.mark.mechanic("…")`` anywhere in a decorator or an assignment."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in MARKS:
            for argument in call.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
