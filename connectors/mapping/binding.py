"""From a mapping to functions over the rows of one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.mapping.functions import FUNCTIONS, TESTS, read_time
from connectors.mapping.model import FILE, ROW, Check, Column, Const, Each, Expr, FileMapping, Object, TimeRule
from connectors.mapping.page import unknown_columns
from profiles.errors import BadDocument, BadInput

Row = Any
"""One row as a reader gives it: a tuple of cells in the order of the columns, or the object of a JSON line."""

Value = Callable[[Row, int], Any]
"""Works a value out of (row, row number). Raises ``ValueError`` when the row lacks what it takes."""

Test = Callable[[Row, int], bool]


@dataclass(frozen=True, slots=True)
class BoundEvent:
    """An ``EventRule`` over the rows of one file."""

    when: Test
    identify: tuple[tuple[str, Value], ...]
    time: Callable[[Row, int], int]
    event: Value
    message_id: Value | None
    properties: Value
    traits: Value
    lines: Value | None
    match_orders: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A mapping over the rows of one file: functions of (row, row number)."""

    reject: tuple[tuple[str, Test], ...]
    group: tuple[Value, ...]
    events: tuple[BoundEvent, ...]

    def rule(self, row: Row, number: int) -> BoundEvent:
        """What becomes of a row.

        Raises:
            BadInput: ``no_event``: nothing.
        """
        for rule in self.events:
            if rule.when(row, number):
                return rule
        raise BadInput("no_event", "events: one whose 'when' holds wanted, got none")


def bind(mapping: FileMapping, columns: Sequence[str] | None, file_id: str) -> Bound:
    """Make the mapping's functions for one file.

    Args:
        columns: the names of a row's cells, in order; ``None``: rows are JSON objects.
        file_id: what ``$_file`` stands for.
    Raises:
        BadDocument: it names columns that the file lacks.
    """
    if columns is not None:
        mistakes = unknown_columns(mapping, columns)
        if mistakes:
            raise BadDocument(sorted(mistakes, key=lambda mistake: mistake.line))
    binder = _Binder({name: n for n, name in enumerate(columns)} if columns is not None else None, file_id)
    return Bound(
        reject=tuple((one.reason, binder.test(one.checks)) for one in mapping.reject),
        group=tuple(binder.value(expr) for expr in mapping.group),
        events=tuple(
            BoundEvent(
                when=binder.test(one.when),
                identify=tuple((kind, binder.value(expr)) for kind, expr in one.identify or mapping.identify),
                time=binder.time(one.time or mapping.time),
                event=binder.value(one.event),
                message_id=binder.value(one.message_id) if one.message_id is not None else None,
                properties=binder.value(one.properties),
                traits=binder.value(one.traits),
                lines=binder.value(one.lines) if one.lines is not None else None,
                match_orders=one.match_orders,
            )
            for one in mapping.events
        ),
    )


@dataclass(slots=True)
class _Binder:
    places: dict[str, int] | None
    file_id: str
    _cells: dict[str, Value] = field(default_factory=dict)

    def value(self, expr: Expr) -> Value:
        if isinstance(expr, Const):
            constant = expr.value
            return lambda row, number: constant
        if isinstance(expr, Column):
            return self.cell(expr.name)
        if isinstance(expr, Object):
            fields = [(name, self.value(one)) for name, one in expr.fields]

            def together(row: Row, number: int) -> dict[str, Any]:
                return {name: found for name, value in fields if (found := value(row, number)) is not None}

            return together
        if isinstance(expr, Each):
            entries, says = self.value(expr.entries), _Binder(None, self.file_id).value(expr.says)

            def of_each(row: Row, number: int) -> list[Any] | None:
                found = entries(row, number)
                return [says(one, number) for one in found] if isinstance(found, list) else None

            return of_each
        function = FUNCTIONS[expr.function]
        apply, takes_none, where = function.apply, function.takes_none, expr.place.where
        args = [self.value(one) for one in expr.args]

        if len(args) == 1 and not takes_none:
            (only,) = args

            def called_with_one(row: Row, number: int) -> Any:
                value = only(row, number)
                if value is None:
                    return None
                try:
                    return apply(value)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from None

            return called_with_one

        def called(row: Row, number: int) -> Any:
            values = [arg(row, number) for arg in args]
            if not takes_none and None in values:
                return None
            try:
                return apply(*values)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None

        return called

    def cell(self, name: str) -> Value:
        if name == ROW:
            return lambda row, number: number
        if name == FILE:
            file_id = self.file_id
            return lambda row, number: file_id
        if self.places is not None:
            place = self.places[name]
            return lambda row, number: row[place]
        path = name.split(".")

        def inside(row: Row, number: int) -> Any:
            value = row
            for part in path:
                if isinstance(value, dict):
                    value = value.get(part)
                elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                    value = value[int(part)]
                else:
                    value = None
            return None if value == "" else value

        return inside

    def time(self, rule: TimeRule) -> Callable[[Row, int], int]:
        source = self.value(rule.source)

        def told(row: Row, number: int) -> int:
            value = source(row, number)
            if value is None:
                raise ValueError("a time wanted, got nothing")
            return read_time(value, rule.format, rule.zone)

        return told

    def test(self, checks: Sequence[Check]) -> Test:
        bound = [(self.cell(check.column.name), TESTS[check.op], check.wanted) for check in checks]

        def holds(row: Row, number: int) -> bool:
            return all(test(cell(row, number), wanted) for cell, test, wanted in bound)

        if len(bound) != 1:
            return holds
        # Most ask one thing, of every row.
        ((only_cell, only_test, only_wanted),) = bound
        return lambda row, number: only_test(only_cell(row, number), only_wanted)
