"""What can be so at once: sets of values, and rules as unions of boxes over them.

A *box* says of some subjects (a trait, a count) in which set each one's value lies; of all other subjects nothing. A
rule is a list of boxes: it holds where any of them does. So ``[]`` is nobody, ``[{}]`` everybody, and whether one rule
contradicts or covers another is arithmetic on sets. A number line is cut *before* or *after* a number: ``[3, 5)`` lies
between the cut before 3 and the cut before 5.
"""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction
from math import ceil, floor, inf
from typing import Any, Final, NamedTuple

BOXES_MAX: Final = 64

Cut = tuple[Fraction | float, int]
"""(number, 0 before it or 1 after it)."""

Span = tuple[Cut, Cut]

_ALL: Final[Span] = ((-inf, 0), (inf, 1))


class TooMany(Exception):
    """More boxes than anybody would write: nothing is said of such a rule."""


class Values(NamedTuple):
    """A set of values: numbers in the spans; of other values the ``others``, or all but these; or no value at all."""

    spans: tuple[Span, ...] = ()
    others: frozenset[Any] = frozenset()
    all_but: bool = False
    absent: bool = False

    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.spans or self.others or self.all_but or self.absent)

    def also(self, that: Values) -> Values:
        """What is in both."""
        spans = [(max(a[0], b[0]), min(a[1], b[1])) for a in self.spans for b in that.spans]
        if self.all_but and that.all_but:
            others = self.others | that.others
        elif self.all_but:
            others = that.others - self.others
        elif that.all_but:
            others = self.others - that.others
        else:
            others = self.others & that.others
        return Values(
            tuple(span for span in spans if span[0] < span[1]),
            others,
            self.all_but and that.all_but,
            self.absent and that.absent,
        )

    def without(self) -> Values:
        """All that is not in it."""
        spans, start = [], _ALL[0]
        for low, high in sorted(self.spans):
            if start < low:
                spans.append((start, low))
            start = max(start, high)
        if start < _ALL[1]:
            spans.append((start, _ALL[1]))
        return Values(tuple(spans), self.others, not self.all_but, not self.absent)


ANYTHING: Final = Values((_ALL,), all_but=True, absent=True)
NUMBERS: Final = Values((_ALL,), absent=True)
COUNTS: Final = Values((((Fraction(0), 0), (inf, 1)),))
YES_OR_NO: Final = Values(others=frozenset({True, False}))


class Subject(NamedTuple):
    """What a box speaks of: its name, and all the values that it can have. ``whole``: only whole numbers."""

    name: Hashable
    can_be: Values = ANYTHING
    whole: bool = False


Box = dict[Subject, Values]
Boxes = list[Box]

EVERYBODY: Final[Boxes] = [{}]
NOBODY: Final[Boxes] = []


def where(subject: Subject, values: Values) -> Boxes:
    """The rule that the subject's value lies in a set."""
    values = values.also(subject.can_be)
    if subject.whole:
        values = values._replace(spans=tuple(span for span in map(_whole, values.spans) if span[0] < span[1]))
    if values.is_empty():
        return NOBODY
    return EVERYBODY if values == subject.can_be else [{subject: values}]


def _whole(span: Span) -> Span:
    (low, after), (high, after_high) = span
    return next_whole(low, after), next_whole(high, after_high)


def next_whole(number: Fraction | float, after: int) -> Cut:
    """The cut before the first whole number behind a cut."""
    if number in (inf, -inf):
        return number, after
    return (Fraction(floor(number) + 1) if after else Fraction(ceil(number))), 0


def both(one: Boxes, two: Boxes) -> Boxes:
    """Where both rules hold.

    Raises:
        TooMany: nobody would look at all of them.
    """
    found: Boxes = []
    for a in one:
        for b in two:
            box = dict(a)
            for subject, values in b.items():
                values = values.also(box.get(subject, subject.can_be))
                if values.is_empty():
                    break
                box[subject] = values
            else:
                if box not in found:
                    found.append(box)
    if len(found) > BOXES_MAX:
        raise TooMany
    return found


def none_of(boxes: Boxes) -> Boxes:
    """Where the rule does not hold. Raises as ``both`` does."""
    found = EVERYBODY
    for box in boxes:
        outside: Boxes = []
        for subject, values in box.items():
            outside += where(subject, values.without())
        found = both(found, outside)
    return found


def covers(large: Boxes, small: Boxes) -> bool:
    """Whether wherever ``small`` holds, ``large`` does. Raises as ``both`` does."""
    return not both(small, none_of(large))


def numbers(op: str, operands: list[Fraction]) -> Values:
    """The numbers that a comparison lets through; ``op`` as rules write it."""
    first = operands[0] if operands else Fraction(0)
    if op in ("eq", "in"):
        return Values(tuple(((one, 0), (one, 1)) for one in sorted(set(operands))))
    if op in ("ne", "not_in"):
        return numbers("in", operands).without().also(NUMBERS._replace(absent=False))
    low, high = _ALL
    if op in ("gt", "gte", "between"):
        low = (first, int(op == "gt"))
    if op in ("lt", "lte", "between"):
        high = (operands[-1], int(op != "lt"))
    return Values(((low, high),) if low < high else ())
