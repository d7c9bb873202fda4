"""Comparisons as rules write them: ``{gte: 5, lt: 10}``; all of them must hold."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import re2

from profiles.money import to_minor
from rules.documents import Node

Test = Callable[[Any], bool]

NUMERIC: Final = ("eq", "ne", "lt", "lte", "gt", "gte", "between", "in", "not_in")
WORDS: Final = ("contains", "contains_any", "contains_all", "starts_with", "ends_with", "matches")
PATTERN_CHARS_MAX: Final = 300
_PATTERN_BYTES_MAX: Final = 1 << 20
_SIGNS: Final = {"eq": "=", "ne": "≠", "lt": "<", "lte": "≤", "gt": ">", "gte": "≥", "in": "in", "not_in": "not in"}


def numeric(node: Node, money: str = "") -> tuple[Test, str, int]:
    """Compile the comparisons in a mapping (other keys are left alone) or a bare number (``eq``).

    Args:
        node: the mapping.
        money: a currency: thresholds are amounts in it, compared in minor units.
    Returns:
        The test of an exact number, its text, and the count above which the answer no longer changes.
    """
    tests: list[Test] = []
    texts: list[str] = []
    bound = 1

    def threshold(one: Node) -> int | Fraction:
        nonlocal bound
        amount = one.number(f"an amount of {money} like 500 or 499.90" if money else "a number")
        value: int | Fraction = to_minor(amount, money) if money else _exact(amount)
        bound = max(bound, int(value) + 1)
        return value

    entries = node.items() if node.is_map() else [("eq", node)]
    for op, operand in entries:
        if op not in NUMERIC:
            continue
        if op == "between":
            pair = list(operand)
            if len(pair) != 2:
                operand.wrong(f"between: a list of two numbers wanted, like [18, 34], got {operand.found()}")
                pair = [Node(0, operand.file, operand.line, operand.where, operand.mistakes)] * 2
            low, high = threshold(pair[0]), threshold(pair[1])
            if low > high:
                operand.wrong("between: the lesser number first")
            tests.append(_between(low, high))
            texts.append(f"between {pair[0].found()} and {pair[1].found()}")
        elif op in ("in", "not_in"):
            options = frozenset(threshold(one) for one in operand)
            tests.append(_among(options, op == "in"))
            texts.append(f"{_SIGNS[op]} {', '.join(one.found() for one in operand)}")
        else:
            tests.append(_against(op, threshold(operand)))
            texts.append(f"{_SIGNS[op]} {operand.found()}")
    if not tests:
        if all(op == "field" for op, _ in entries):  # An unknown word is told where it stands.
            node.wrong(f"a comparison wanted: one of {', '.join(NUMERIC)}")
        return lambda value: False, "?", 1
    return _joined(tests), " and ".join(texts), bound


def words(node: Node) -> tuple[Test | None, str]:
    """Compile comparisons of texts, numbers and lists as people state them; ``None`` when there is none."""
    tests: list[Test] = []
    texts: list[str] = []
    for op, operand in node.items():
        test = _word(op, operand)
        if test is None:
            continue
        tests.append(test)
        texts.append(f"{_SIGNS.get(op, op.replace('_', ' '))} {_said(operand)}")
    return (_joined(tests), " and ".join(texts)) if tests else (None, "")


def under(value: Any, path: str) -> bool:
    """Whether a category path lies in the tree below ``path``, or is it."""
    return isinstance(value, str) and (value == path or value.startswith(path + "/"))


def normal(value: Any) -> Any:
    """Numbers as exact fractions, whatever they were written as; all else as it is."""
    if isinstance(value, bool):
        return value
    number = _number(value)
    return value if number is None else number


def _number(value: Any) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | Fraction):
        return None
    return Fraction(str(value)) if isinstance(value, float) else Fraction(value)


def _exact(amount: Decimal) -> int | Fraction:
    whole = int(amount)
    return whole if whole == amount else Fraction(amount)


def _word(op: str, operand: Node) -> Test | None:
    if op in ("eq", "in"):
        return _alike(operand, True)
    if op in ("ne", "not_in"):
        return _alike(operand, False)
    if op in ("lt", "lte", "gt", "gte"):
        return _numbers(_against(op, _exact(operand.number())))
    if op == "between":
        return _numbers(
            numeric(Node({"between": operand}, operand.file, operand.line, operand.where, operand.mistakes))[0]
        )
    if op == "starts_with":
        return _texts(str.startswith, operand.text())
    if op == "ends_with":
        return _texts(str.endswith, operand.text())
    if op in ("contains", "contains_any", "contains_all"):
        several = [one.scalar() for one in operand]
        every = op == "contains_all"
        return lambda value: (all if every else any)(_holds(value, one) for one in several)
    if op == "under":
        path = operand.text()
        return lambda value: under(value, path)
    if op == "matches":
        return _pattern(operand)
    return None


def _pattern(operand: Node) -> Test:
    """RE2, found anywhere in a text: time in proportion to its length, whatever the pattern (R29)."""
    text = operand.text()
    if len(text) > PATTERN_CHARS_MAX:
        operand.wrong(f"matches: a pattern of at most {PATTERN_CHARS_MAX} characters wanted, got {len(text)}")
        return lambda value: False
    options = re2.Options()
    options.max_mem = _PATTERN_BYTES_MAX
    options.log_errors = False
    try:
        search = re2.compile(text, options).search
    except re2.error as error:
        told = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        operand.wrong(f"matches: a pattern that RE2 reads wanted, got {text!r} ({told})")
        return lambda value: False
    return lambda value: isinstance(value, str) and search(value) is not None


def _between(low: int | Fraction, high: int | Fraction) -> Test:
    return lambda value: bool(low <= value <= high)


def _among(options: frozenset[Any], wanted: bool) -> Test:
    return lambda value: (value in options) == wanted


def _alike(operand: Node, wanted: bool) -> Test:
    options = frozenset(normal(one.scalar()) for one in operand)
    return lambda value: (not isinstance(value, dict | list) and normal(value) in options) == wanted


def _numbers(test: Test) -> Test:
    def holds(value: Any) -> bool:
        number = _number(value)
        return number is not None and test(number)

    return holds


def _texts(how: Callable[[str, str], bool], text: str) -> Test:
    return lambda value: isinstance(value, str) and how(value, text)


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(normal(one) == normal(wanted) for one in value)
    return isinstance(value, str) and isinstance(wanted, str) and wanted in value


def _against(op: str, limit: int | Fraction) -> Test:
    if op == "eq":
        return lambda value: bool(value == limit)
    if op == "ne":
        return lambda value: bool(value != limit)
    if op == "lt":
        return lambda value: bool(value < limit)
    if op == "lte":
        return lambda value: bool(value <= limit)
    if op == "gt":
        return lambda value: bool(value > limit)
    return lambda value: bool(value >= limit)


def _joined(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _said(operand: Node) -> str:
    return ", ".join(one.found() for one in operand)
