"""What people write for what is meant: the likeliest word, the length of time, and what YAML's complaints come from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

import yaml

_OTHER_WORDS: Final = {
    "and": "all", "or": "any", "none": "not", "min": "gte", "max": "lte",
    "=": "eq", "==": "eq", "is": "eq", "equals": "eq", "equal": "eq", "!=": "ne", "<>": "ne", "is_not": "ne", "not_eq": "ne",
    ">": "gt", "more_than": "gt", "greater_than": "gt", "above": "gt", ">=": "gte", "at_least": "gte", "from": "gte",
    "<": "lt", "less_than": "lt", "below": "lt", "<=": "lte", "at_most": "lte", "up_to": "lte",
    "older": "older_than", "newer": "newer_than", "younger": "newer_than", "younger_than": "newer_than", "one_of": "in", "like": "matches", "includes": "contains",
    "count": "times", "within": "window", "in": "window within", "last": "window within", "since": "window", "during": "window within",
    "products": "item", "filter": "where", "average": "avg", "mean": "avg", "total": "sum", "segment": "in_segment",
    "send": "emit", "mail": "emit", "email": "emit", "message": "emit", "delay": "wait", "pause": "wait", "sleep": "wait",
    "if": "branch", "coupon": "issue_coupon", "stop": "exit", "end": "exit",
    "after": "then", "next": "then", "followed_by": "then",
}  # fmt: skip
"""Words of other languages and tools, and ours; each is offered only where ours may stand."""

_LENGTH: Final = re.compile(r"[Pp]?[Tt]?\s*(\d+)\s*([^\W\d_]+)\.?")
_UNITS: Final = (
    ("mo", "P{}M"), ("мес", "P{}M"), ("M", "P{}M"), ("m", "PT{}M"), ("мин", "PT{}M"), ("y", "P{}Y"), ("г", "P{}Y"), ("лет", "P{}Y"),
    ("w", "P{}W"), ("нед", "P{}W"), ("d", "P{}D"), ("д", "P{}D"), ("h", "PT{}H"), ("ч", "PT{}H"), ("s", "PT{}S"), ("с", "PT{}S"),
)  # fmt: skip
"""How a unit begins, the longer beginnings first, and how ISO 8601 writes it. ``3M`` is months, ``3 m`` minutes."""
_HOURS: Final = {"P{}D": 24, "P{}W": 168}

_TOKENS: Final = {
    "'<scalar>'": "a word",
    "'<stream end>'": "the end of the file",
    "'<block mapping start>'": "a new line",
    "'<block sequence start>'": "a new line",
}
_BLANK: Final = 1 << 20
"""The indent of an empty line: that of whatever it stands in."""
_CLOSING: Final = ("'}'", "']'")


def did_you_mean(word: str, words: Iterable[str], alike: float = 0.6) -> str:
    """``; did you mean 'absent_for'?`` or nothing. ``alike``: of two words as one, 0 to 1."""
    meant = nearest(word, words, alike)
    return f"; did you mean {meant!r}?" if meant else ""


def nearest(word: str, words: Iterable[str], alike: float) -> str:
    """The one of these words that is likeliest meant, or ""."""
    known = list(words)
    for meant in _OTHER_WORDS.get(word, "").split():
        if meant in known:
            return meant
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=alike)), "")


def length_meant(found: object) -> str:
    """The same of a length of time: ``90 days`` is 'P90D'; a bare number lacks its unit."""
    if isinstance(found, int) and not isinstance(found, bool):
        return f"; did you mean 'P{found}D', so many days?"
    number, form = _length(found)
    return f"; did you mean {form.format(number)!r}?" if form else ""


def hours_meant(found: object) -> str:
    """The same where days are none, as some have 23 hours: ``P1D`` is 'PT24H'. How long a month is, is nobody's to say."""
    number, form = _length(found)
    hours = number * _HOURS.get(form, 0)
    form = "PT{}H" if hours else form
    return f"; did you mean {form.format(hours or number)!r}?" if form.startswith("PT") else ""


def _length(found: object) -> tuple[int, str]:
    """The number in a length of time, and how ISO 8601 writes its unit; "" of what is none."""
    said = _LENGTH.fullmatch(found.strip()) if isinstance(found, str) else None
    if said is None:
        return 0, ""
    unit = said[2] if said[2] == "M" else said[2].casefold()
    form = (
        "P{}M"
        if said[0][0] in "pP" and unit == "m"
        else next((form for one, form in _UNITS if unit.startswith(one)), "")
    )
    return int(said[1]), form


def of_yaml(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[int, str, int]:
    """What YAML refuses in a file.

    Returns:
        The line to look at, from 1; what is wrong there; and the line at which it began.
    """
    at, opened, problem = error.problem_mark, error.context_mark, error.problem or ""
    line, column = (at.line + 1, at.column) if at is not None else (1, 0)
    since, needs = (opened.line + 1, opened.column) if opened is not None else (line, 0)
    written = lines[line - 1] if line <= len(lines) else ""
    before = written[:column].strip()
    after = f" after {before[-30:]!r}" if before else ""
    found = re.search(r"(?:found|got) ('.+')$", problem)
    got = _TOKENS.get(found[1], found[1]) if found is not None else "something else"
    if "character '\\t'" in problem:
        return line, "spaces wanted before a line's first word, got a tab", line
    if "cannot start any token" in problem:
        return line, f"quotes wanted around text that begins with {written[column : column + 1]!r}", line
    if problem == "mapping values are not allowed here" and ":" in before:
        told = f"one `name: value` a line wanted, got a second ':'{after} (text that holds ': ' goes in quotes)"
        return line, told, line
    if problem == "mapping values are not allowed here" and line > 1:
        return line - 1, "a ':' wanted at the end of the line, got none", line - 1
    if problem == "found unexpected end of stream":
        return since, "a closing quote wanted, got none", since
    if problem.startswith("found unknown escape"):
        return line, f"single quotes wanted around text with a '\\', got double ones{after}", since
    if problem.startswith("expected ',' or"):
        closing = problem.removeprefix("expected ',' or ")[:3]
        return line, f"',' or {closing} wanted{after}, got {got}; what line {since} opens is not closed", since
    if problem.startswith("expected the node content"):
        return line, f"a value wanted{after}, got {got}", line
    if problem.startswith("expected <block end>") and (got in _CLOSING or column == needs):
        return line, f"a new line wanted{after}, got {got}", line
    if problem.startswith("expected <block end>"):
        return line, f"as many spaces wanted before it as before line {since}: {needs}, got {column}", line
    if "another document" in problem:
        return line, "one document a file wanted, got a second ('---')", line
    return line, f"not YAML: {problem}", line


def without(lines: list[str], line: int) -> list[str]:
    """A file without the entry that a line stands in, so that the others can still be looked at: its lines are empty."""
    indents = [len(one) - len(one.lstrip()) if one.strip() else _BLANK for one in lines]
    level = min((indent for indent, one in zip(indents, lines, strict=True) if one.startswith(" ")), default=0)
    line = start = min(line, len(lines)) - 1
    while start > 0 and indents[start] > level:
        start -= 1
    inside = level if indents[start] else 0
    end = start + 1
    while end < len(lines) and indents[end] > inside:
        end += 1
    end = max(end, line + 1)
    return [*lines[:start], *[""] * (end - start), *lines[end:]]


def glued(key: str) -> str:
    """After which sign a key lacks a space: ``:`` in ``vip:{did: order}``, ``-`` in ``-{did: order}``; else ""."""
    if re.search(r":[{\[\"']", key):
        return ":"
    return "-" if re.match(r"-[{\[\w]", key) else ""


def curly(text: str) -> bool:
    """Whether text stands in the quotes of a word processor, which YAML takes for letters."""
    return len(text) > 1 and text[0] in "“”„«‘’" and text[-1] in "“”»‘’"
