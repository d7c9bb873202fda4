"""The roots of our exceptions.

An ``assert`` is for our own bugs; an exception from this page is for the world's. Every message
says where, what was wanted and what was found, and never holds personal data (RELIABILITY R25).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class OpportuneError(Exception):
    """Root of every exception that the engine raises on purpose."""


class Refused(OpportuneError):
    """The process must not go on: configuration or outside state would break a guarantee."""


class BadInput(OpportuneError):
    """Somebody sent what cannot be accepted; ``reason`` is a stable word for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a document, at its place.

    ``str()`` gives ``segments/vip.yaml:12: vip/when: must be 1 or more, got 0``.
    """

    file: str
    line: int
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{self.file}:{self.line}: {place}{self.message}"


def in_order(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Each mistake once, as they stand in their files."""
    return sorted(dict.fromkeys(mistakes), key=lambda one: (one.file, one.line, one.where))


class BadDocument(OpportuneError):
    """A document with mistakes, all of them at once."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        assert mistakes
        self.mistakes = mistakes
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
