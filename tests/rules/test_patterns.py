"""No text, and no pattern that somebody writes into a rule, makes a match take long (R29).

Rules' patterns are RE2's, whose time is in proportion to the text. Ours are Python's, which may go back and try again:
each is held against texts that make bad ones do so, longer and longer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from profiles.errors import BadDocument
from profiles.state import Profile
from profiles.wire import Event
from rules.compile import compile_rules
from rules.engine import step
from stream.clock import thread_cpu_ns

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("profiles", "rules", "stream", "connectors", "console", "opportune")
LONG_NS: Final = 500_000_000
EVIL: Final = (
    "^(a+)+$", "^(a|aa)+$", "^(a|a?)+$", "^(a*)*b", "(.*a){20}$", "(x+x+)+y", "^(([a-z])+.)+[A-Z]([a-z])+$", "([a-zA-Z]+)*$",
    "^(a|b|ab)*c", "(?i)(a+){10}b", r"^(\w+\s?)*$", r"^\s+|\s+$", r"(\d+)*\.", "^(?:.|a)+$", "^((a?){25})(a{25})$",
)  # fmt: skip
TEXTS: Final = (
    "a",
    "aA",
    "x",
    "0",
    " ",
    "-",
    ".",
    "_",
    "aB",
    "'",
    "a ",
    "0D",
    "P1",
    "@",
    "+1",
    "<style>",
    "\\u0041",
    "é",
)
LENGTHS: Final = (*range(8, 40, 2), 100, 1_000, 2_000)


def matches(pattern: str, *texts: str) -> list[bool]:
    """Whether somebody who looked at such a path is in the segment of the pattern; none may take long."""
    quoted = pattern.replace("'", "''")
    book = compile_rules([("r", f"segments: {{s: {{did: page_viewed, where: [{{path: {{matches: '{quoted}'}}}}]}}}}")])
    found = []
    for text in texts:
        event = Event("m", "web", "page_viewed", 1_000, 1_000, "user:u", props={"path": text}, seen_ms=1_000)
        began_ns = thread_cpu_ns()
        found.append(bool(step(Profile("user:u"), event, book).members))
        assert thread_cpu_ns() - began_ns < LONG_NS
    return found


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("pattern", EVIL)
def test_a_pattern_of_a_rule_that_would_try_for_ever_elsewhere_is_answered_at_once(pattern: str) -> None:
    matches(pattern, "a" * 4_000 + "!", "x" * 4_000, "aA" * 2_000 + "!", "1" * 4_000, " " * 4_000 + "x")


def test_patterns_are_looked_for_indeed() -> None:
    assert matches("^(a+)+$", "a" * 4_000, "a" * 4_000 + "!") == [True, False]


@pytest.mark.invariant("R29")
@pytest.mark.parametrize(
    "pattern", ["((a{1000}){1000}){1000}", "(" * 1_500 + ")" * 1_500, "a" * 100_000, "(?=a)", r"(a)\1"]
)
def test_a_pattern_that_would_take_much_or_goes_back_is_refused(pattern: str) -> None:
    with pytest.raises(BadDocument, match="matches: a pattern"):
        compile_rules([("r", f"segments: {{s: {{did: page_viewed, where: [{{path: {{matches: '{pattern}'}}}}]}}}}")])


def ours() -> Iterator[tuple[str, str]]:
    """(place, pattern) of every pattern that our code holds."""
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                    continue
                if not isinstance(node.func.value, ast.Name) or node.func.value.id != "re":
                    continue
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield f"{file.relative_to(ROOT).as_posix()}:{node.lineno}", first.value


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("pattern", [pytest.param(pattern, id=place) for place, pattern in ours()])
def test_no_pattern_of_ours_tries_for_ever(pattern: str) -> None:
    read = re.compile(pattern, re.DOTALL)
    for text in TEXTS:
        for length in LENGTHS:
            hostile = (text * length)[:length] + "!"
            began_ns = thread_cpu_ns()
            read.fullmatch(hostile)
            read.sub("", hostile)
            assert thread_cpu_ns() - began_ns < LONG_NS, (text, length)


def test_a_pattern_that_tries_for_ever_is_found() -> None:
    with pytest.raises(AssertionError):
        test_no_pattern_of_ours_tries_for_ever("(a+)+b")
