"""A mapping as it is once read: the rules of one page, and where on it each value stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final

ROW: Final = "_row"
FILE: Final = "_file"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the page something stands."""

    line: int
    where: str


# What a value may be.


@dataclass(frozen=True, slots=True)
class Const:
    """The same for every row."""

    value: Any


@dataclass(frozen=True, slots=True)
class Column:
    """A cell of the row."""

    name: str
    place: Place = field(repr=False)  # Moved about on the page, a mapping says the same.


@dataclass(frozen=True, slots=True)
class Call:
    """A function of ``FUNCTIONS`` over other values."""

    function: str
    args: tuple[Expr, ...]
    place: Place = field(repr=False)


@dataclass(frozen=True, slots=True)
class Object:
    """Named values together."""

    fields: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True)
class Each:
    """What is said of every entry of a list."""

    entries: Expr
    says: Expr


Expr = Const | Column | Call | Object | Each


@dataclass(frozen=True, slots=True)
class Check:
    """One test on one column; ``op`` of ``TESTS``."""

    column: Column
    op: str
    wanted: Any


@dataclass(frozen=True, slots=True)
class RejectRule:
    """Rows for which all checks hold are rejected for that reason."""

    reason: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class TimeRule:
    """Where a row's time stands and how it is written; a zone only matters where the text has none."""

    source: Expr
    format: str
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class EventRule:
    """What a row, or a group of rows, becomes.

    Attributes:
        when: all must hold for the first row.
        identify, time: of these events; empty: the page's.
        event: the type's name, constant or by row.
        message_id: of the row or group; absent: file and row number.
        properties, traits: of the first row.
        lines: one item per row of the group.
        match_orders: a refund that names no order: its lines are matched to the customer's latest earlier orders
            that hold these products; what finds none becomes an event of this name. "" : it names its order.
    """

    when: tuple[Check, ...]
    identify: tuple[tuple[str, Expr], ...]
    time: TimeRule | None
    event: Expr
    message_id: Expr | None
    properties: Object
    traits: Object
    lines: Object | None
    match_orders: str


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How the file is read. ``columns``: its names where the file has no header line."""

    kind: str = "csv"
    delimiter: str = ","
    blanks: bool = False
    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class FileMapping:
    """A whole page. Equal meaning, equal ``repr``: an import goes on only under the mapping that it began with."""

    page: str = field(repr=False)
    name: str
    file: FileFormat
    source: str
    backfill: bool
    identify: tuple[tuple[str, Expr], ...]
    time: TimeRule
    reject: tuple[RejectRule, ...]
    drop_duplicates: bool
    group: tuple[Expr, ...]
    events: tuple[EventRule, ...]
