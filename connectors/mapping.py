"""How a row becomes an event: a mapping is data, a YAML page that somebody who knows the file can write.

    name: online_retail
    file: {kind: csv, header: true}
    identify: {user: $CustomerID}
    time: {from: $InvoiceDate, format: "%m/%d/%y %H:%M", zone: Europe/London}
    reject:
      - {reason: no_customer, if: {CustomerID: {missing: true}}}
    duplicates: drop
    group: [$InvoiceNo]
    events:
      - event: order_completed
        message_id: {concat: [order-, $InvoiceNo]}
        properties: {order_id: $InvoiceNo, currency: GBP}
        lines: {product_id: $StockCode, quantity: $Quantity, price: $UnitPrice}

A value is ``$Column`` (``"${Order ID}"`` when the name is no word; inside JSON ``$a.b``, of a list ``$a.0.b``), a constant, or
one function of ``FUNCTIONS`` by its name: ``{lower: $Country}``. Nothing else: no arithmetic in text, no code. ``$_row`` is
the row's number in the file, ``$_file`` names the file by its content. ``$$5`` is the text ``$5``. Inside JSON
``{each: [$lines, {sku: $code}]}`` is a list: what it says of each entry, whose own fields ``$code`` then names.

Rows with equal ``group`` values are one event: ``properties`` are read from the first of them, ``lines`` from each.
The first of ``events`` whose ``when`` holds is taken; it may have an ``identify`` and a ``time`` of its own. Every mistake of
a page is reported at once, at its line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import yaml

from profiles.errors import BadDocument, BadInput, Mistake
from profiles.ids import STRENGTH
from profiles.moments import instant, iso, zone_named
from profiles.money import AMOUNT_MAX, decimal_of
from profiles.taxonomy import resolve

PAGE_CHARS_MAX: Final = 256_000
NESTING_MAX: Final = 20
EACH: Final = "each"
KINDS: Final = ("csv", "jsonl", "parquet")
FORMATS_OF_TIME: Final = ("iso", "epoch_s", "epoch_ms")
ROW: Final = "_row"
FILE: Final = "_file"

Row = Any
"""One row as a reader gives it: a tuple of cells in the order of the columns, or the object of a JSON line."""

Value = Callable[[Row, int], Any]
"""Works a value out of (row, row number). Raises ``ValueError`` when the row lacks what it takes."""

Test = Callable[[Row, int], bool]


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


# Functions and tests: small, fixed, total on text and numbers. A ValueError rejects the row.


def _number(value: Any) -> Decimal:
    try:
        return decimal_of(value)
    except ValueError:
        raise ValueError("a number wanted, got other text") from None


def _plain(number: Decimal) -> int | Decimal:
    return int(number) if number == number.to_integral_value() else number


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("text wanted, got something else")
    return str(value)


def _integer(value: Any) -> str:
    if type(value) is int and -AMOUNT_MAX <= value <= AMOUNT_MAX:
        return str(value)  # As most ids stand in a Parquet file: for each row, so it is worth a line.
    number = _number(value)
    if number != number.to_integral_value():
        raise ValueError("a whole number wanted, got one with a fraction")
    return str(int(number))


def _date(value: Any, written: Any) -> str:
    return _strptime(_text(value), str(written)).date().isoformat()


def _when(value: Any, written: Any, zone: Any) -> str:
    return iso(read_time(value, str(written), zone_named(str(zone))))


def _product(*factors: Any) -> int | Decimal:
    number = Decimal(1)
    for factor in factors:
        number *= _number(factor)
    return _plain(number)


def _lookup(value: Any, table: Any) -> Any:
    return table.get(_text(value)) if isinstance(table, dict) else None


def _without_prefix(value: Any, prefix: Any) -> str:
    return _text(value).removeprefix(str(prefix))


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a value. ``least`` and ``most`` count arguments; missing cells give nothing unless ``takes_none``."""

    says: str
    apply: Callable[..., Any]
    least: int = 1
    most: int = 1
    takes_none: bool = False


FUNCTIONS: Final[Mapping[str, Function]] = {
    "abs": Function("a number without its sign", lambda value: _plain(abs(_number(value)))),
    "concat": Function("texts one after another", lambda *parts: "".join(map(_text, parts)), 1, 20),
    "date": Function("a date, written as the second says, as 2026-11-22", _date, 2, 2),
    "default": Function(
        "the first that is not missing",
        lambda *options: next((one for one in options if one is not None), None),
        2,
        20,
        takes_none=True,
    ),
    "instant": Function("a time: value, format, zone; as ISO 8601 in UTC", _when, 3, 3),
    "integer": Function("a whole number as text: 17850.0 is 17850", _integer),
    "lookup": Function("what the table {from: to} says; nothing for what it lacks", _lookup, 2, 2),
    "lower": Function("in lower case", lambda value: _text(value).lower()),
    "multiply": Function("the product of numbers", _product, 2, 5),
    "negate": Function("a number with the other sign", lambda value: _plain(-_number(value))),
    "number": Function("text as a number", lambda value: _plain(_number(value))),
    "trim": Function("without blanks round it", lambda value: _text(value).strip()),
    "upper": Function("in upper case", lambda value: _text(value).upper()),
    "without_prefix": Function("without the text that it begins with", _without_prefix, 2, 2),
}


def _ordered(value: Any, wanted: Any) -> int | None:
    """-1, 0 or 1 by number; ``None`` when the cell holds no number."""
    try:
        number = value if type(value) in (int, float) else decimal_of(value)
    except ValueError:
        return None
    limit = Decimal(str(wanted)) if type(number) is Decimal else wanted
    return int(number > limit) - int(number < limit)


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, int | float):
        return _ordered(value, wanted) == 0
    return bool(str(value) == wanted)


TESTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "missing": lambda value, wanted: (value is None) is wanted,
    "eq": lambda value, wanted: value is not None and _equal(value, wanted),
    "ne": lambda value, wanted: value is not None and not _equal(value, wanted),
    "in": lambda value, wanted: value is not None and any(_equal(value, one) for one in wanted),
    "not_in": lambda value, wanted: value is not None and not any(_equal(value, one) for one in wanted),
    "lt": lambda value, wanted: value is not None and _ordered(value, wanted) == -1,
    "lte": lambda value, wanted: value is not None and _ordered(value, wanted) in (-1, 0),
    "gt": lambda value, wanted: value is not None and _ordered(value, wanted) == 1,
    "gte": lambda value, wanted: value is not None and _ordered(value, wanted) in (0, 1),
    "starts_with": lambda value, wanted: value is not None and str(value).startswith(wanted),
}
"""Tests on a cell. Of a missing cell only ``missing`` says anything; of text that is no number, ``lt`` … say no."""

_NUMERIC: Final = frozenset(("lt", "lte", "gt", "gte"))


def read_time(value: Any, written: str, zone: tzinfo) -> int:
    """The instant, epoch ms, that a cell tells.

    Args:
        value: text or number.
        written: ``iso``, ``epoch_s``, ``epoch_ms``, or a pattern like ``%m/%d/%y %H:%M`` (``strptime``).
        zone: of a text that has none of its own. A wall time told twice is the first.
    Raises:
        ValueError: it tells none; the text is not repeated.
    """
    if written == "iso":
        try:
            wall = datetime.fromisoformat(_text(value).strip())
        except ValueError:
            raise ValueError("a time in ISO 8601 wanted, got other text") from None
    elif written in FORMATS_OF_TIME:
        number = _number(value)
        return int(number * 1000 if written == "epoch_s" else number)
    else:
        return _instant(_text(value).strip(), written, zone)
    return instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=zone))


@lru_cache(maxsize=65_536)
def _instant(text: str, written: str, zone: tzinfo) -> int:
    wall = _strptime(text, written)
    return instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=zone))


@lru_cache(maxsize=65_536)
def _strptime(text: str, written: str) -> datetime:
    try:
        return datetime.strptime(text, written)  # noqa: DTZ007  # the caller gives it the mapping's zone
    except ValueError:
        raise ValueError(f"a time written {written} wanted, got other text") from None


# From the page to a mapping.


def read_mapping(text: str, page: str) -> FileMapping:
    """Read a page whole.

    Args:
        text: YAML.
        page: how messages call it, usually the file's name.
    Raises:
        BadDocument: every mistake, at its line.
    """
    reader = _Reader(page)
    node = reader.compose(text)
    found = reader.mapping(node) if node is not None else None
    if reader.mistakes:
        raise BadDocument(sorted(reader.mistakes, key=lambda mistake: mistake.line))
    assert found is not None
    return found


def closest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


class _Reader:
    """Collects the mistakes of one page while reading it."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.mistakes: list[Mistake] = []
        self.constructor = yaml.constructor.SafeConstructor()

    def say(self, node: yaml.Node | int, where: str, message: str) -> None:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        self.mistakes.append(Mistake(self.page, line, where, message))

    def compose(self, text: str) -> yaml.Node | None:
        if len(text) > PAGE_CHARS_MAX:
            self.say(1, "", f"at most {PAGE_CHARS_MAX} characters wanted, got {len(text)}")
            return None
        try:
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
                self.say(1, "", "a page without anchors wanted: write the part again where it is needed")
                return None
            node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.say(mark.line + 1 if mark else 1, "", f"YAML wanted: {error.problem or error.context}")
            return None
        except yaml.YAMLError as error:
            self.say(1, "", f"YAML wanted: {str(error).splitlines()[0]}")
            return None
        if node is None:
            self.say(1, "", "a mapping wanted, got an empty page")
        return node

    def mapping(self, root: yaml.Node) -> FileMapping | None:
        known = ("name", "file", "source", "backfill", "identify", "time", "reject", "duplicates", "group", "events")
        nodes = self.fields(root, "", known, required=("name", "file", "identify", "time", "events"))
        if nodes is None:
            return None
        get = nodes.get
        name = self.text(get("name"), "name") or ""
        file = self.file(get("file"))
        backfill = self.yes_or_no(get("backfill"), "backfill", default=True)
        duplicates = self.choice(get("duplicates"), "duplicates", ("keep", "drop")) or "keep"
        mapping = FileMapping(
            page=self.page,
            name=name,
            file=file,
            source=self.text(get("source"), "source") or name,
            backfill=backfill,
            identify=self.identify(get("identify"), "identify"),
            time=self.time(get("time"), "time"),
            reject=tuple(self.reject(node, f"reject/{n}") for n, node in enumerate(self.list(get("reject"), "reject"))),
            drop_duplicates=duplicates == "drop",
            group=tuple(self.expr(node, f"group/{n}") for n, node in enumerate(self.list(get("group"), "group"))),
            events=tuple(
                self.event(node, f"events/{n}", grouped=get("group") is not None)
                for n, node in enumerate(self.list(get("events"), "events"))
            ),
        )
        if get("events") is not None and not mapping.events:
            self.say(nodes["events"], "events", "one event or more wanted, got none")
        if mapping.file.columns:
            for message in unknown_columns(mapping, mapping.file.columns):
                self.mistakes.append(message)
        return mapping

    def file(self, node: yaml.Node | None) -> FileFormat:
        nodes = self.fields(node, "file", ("kind", "header", "delimiter", "columns", "encoding"), required=("kind",))
        if nodes is None:
            return FileFormat()
        get = nodes.get
        kind = self.choice(get("kind"), "file/kind", KINDS) or "csv"
        columns = tuple(
            self.text(one, f"file/columns/{n}") or "" for n, one in enumerate(self.list(get("columns"), "file/columns"))
        )
        header = self.yes_or_no(get("header"), "file/header", default=not columns)
        delimiter = self.text(get("delimiter"), "file/delimiter") or ","
        encoding = self.text(get("encoding"), "file/encoding") or "utf-8"
        if kind != "csv":
            for name in ("header", "delimiter", "columns", "encoding"):
                if name in nodes and not (name == "encoding" and kind == "jsonl"):
                    self.say(nodes[name], f"file/{name}", f"only for csv, got kind {kind}")
        elif header == bool(columns):
            self.say(node or 1, "file", "either 'header: true' or the list 'columns' wanted, got both or neither")
        if len(delimiter) != 1 and delimiter != "blanks":
            self.say(nodes["delimiter"], "file/delimiter", "one character, or 'blanks', wanted, got more")
        if len(set(columns)) != len(columns):
            self.say(nodes["columns"], "file/columns", "different names wanted, got one twice")
        try:
            plain = "\n".encode(encoding) == b"\n"  # Lines are told apart before they are decoded.
        except LookupError:
            plain = False
        if not plain:
            self.say(nodes["encoding"], "file/encoding", f"an encoding like utf-8 or cp1251 wanted, got {encoding!r}")
            encoding = "utf-8"
        return FileFormat(kind, delimiter, delimiter == "blanks", columns, encoding)

    def identify(self, node: yaml.Node | None, where: str) -> tuple[tuple[str, Expr], ...]:
        nodes = self.fields(node, where, tuple(STRENGTH), noun="kind of identifier")
        if nodes is None:
            return ()
        if not nodes and node is not None:
            self.say(node, where, f"one or more of {', '.join(STRENGTH)} wanted, got none")
        pairs = [(kind, self.expr(one, f"{where}/{kind}")) for kind, one in nodes.items()]
        return tuple(sorted(pairs, key=lambda pair: -STRENGTH[pair[0]]))

    def time(self, node: yaml.Node | None, where: str) -> TimeRule:
        empty = TimeRule(Const(None), "iso", zone_named("UTC"))
        nodes = self.fields(node, where, ("from", "format", "zone"), required=("from",))
        if nodes is None or "from" not in nodes:
            return empty
        written = self.text(nodes.get("format"), f"{where}/format") or "iso"
        if written not in FORMATS_OF_TIME and "%" not in written:
            self.say(
                nodes["format"],
                f"{where}/format",
                f"iso, epoch_s, epoch_ms or a pattern like %Y-%m-%d wanted, got {written!r}",
            )
        zone = self.text(nodes.get("zone"), f"{where}/zone") or "UTC"
        try:
            found = zone_named(zone)
        except ValueError as error:
            self.say(nodes["zone"], f"{where}/zone", str(error))
            found = empty.zone
        return TimeRule(self.expr(nodes["from"], f"{where}/from"), written, found)

    def reject(self, node: yaml.Node, where: str) -> RejectRule:
        nodes = self.fields(node, where, ("reason", "if"), required=("reason", "if")) or {}
        reason = self.text(nodes.get("reason"), f"{where}/reason") or ""
        if reason and not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", reason):
            self.say(nodes["reason"], f"{where}/reason", f"a word like no_customer wanted, got {reason!r}")
        return RejectRule(reason, self.checks(nodes.get("if"), f"{where}/if"))

    def checks(self, node: yaml.Node | None, where: str) -> tuple[Check, ...]:
        if node is None:
            return ()
        found: list[Check] = []
        before = len(self.mistakes)
        for name, (key, one) in self.pairs(node, where).items():
            column = Column(name.removeprefix("$"), Place(key.start_mark.line + 1, where))
            for op, (op_key, value) in self.pairs(one, f"{where}/{name}").items():
                at = f"{where}/{name}/{op}"
                if op not in TESTS:
                    self.say(op_key, f"{where}/{name}", f"unknown test '{op}'{closest(op, TESTS)}")
                    continue
                wanted = self.constant(value, at)
                if op == "missing" and not isinstance(wanted, bool):
                    self.say(value, at, "true or false wanted, got something else")
                elif op in ("in", "not_in") and not isinstance(wanted, list):
                    self.say(value, at, "a list wanted, got something else")
                elif op in _NUMERIC and (isinstance(wanted, bool) or not isinstance(wanted, int | float)):
                    self.say(value, at, "a number wanted, got something else")
                elif op == "starts_with" and not isinstance(wanted, str):
                    self.say(value, at, "text wanted, got something else: put it in quotes")
                elif wanted is None:
                    self.say(value, at, "a value wanted, got nothing; for an empty cell say 'missing: true'")
                else:
                    found.append(Check(column, op, wanted))
        if not found and len(self.mistakes) == before:
            self.say(node, where, "a column and a test on it wanted, got none")
        return tuple(found)

    def event(self, node: yaml.Node, where: str, *, grouped: bool) -> EventRule:
        known = ("when", "identify", "time", "event", "message_id", "properties", "traits", "lines", "match_orders")
        nodes = self.fields(node, where, known, required=("event",)) or {}
        get = nodes.get
        event = self.expr(nodes["event"], f"{where}/event") if "event" in nodes else Const("any")
        if isinstance(event, Const):
            try:
                resolve(str(event.value))
            except BadInput as error:
                self.say(nodes["event"], f"{where}/event", str(error))
        if "lines" in nodes and not grouped:
            self.say(nodes["lines"], f"{where}/lines", "only with 'group' on top: without it one row is one event")
        otherwise = self.text(get("match_orders"), f"{where}/match_orders") or ""
        return EventRule(
            when=self.checks(get("when"), f"{where}/when"),
            identify=self.identify(get("identify"), f"{where}/identify"),
            time=self.time(nodes["time"], f"{where}/time") if "time" in nodes else None,
            event=event,
            message_id=self.expr(nodes["message_id"], f"{where}/message_id") if "message_id" in nodes else None,
            properties=self.object(get("properties"), f"{where}/properties"),
            traits=self.object(get("traits"), f"{where}/traits"),
            lines=self.object(nodes["lines"], f"{where}/lines") if "lines" in nodes else None,
            match_orders=otherwise,
        )

    def object(self, node: yaml.Node | None, where: str) -> Object:
        if node is None:
            return Object(())
        return Object(
            tuple((name, self.expr(one, f"{where}/{name}")) for name, (_, one) in self.pairs(node, where).items())
        )

    def expr(self, node: yaml.Node, where: str, depth: int = 0) -> Expr:
        line = node.start_mark.line + 1
        if depth > NESTING_MAX:
            self.say(node, where, f"at most {NESTING_MAX} levels wanted, got more")
            return Const(None)
        if isinstance(node, yaml.ScalarNode):
            value = self.constant(node, where)
            if not isinstance(value, str) or not value.startswith("$"):
                return Const(value)
            if value.startswith("$$"):
                return Const(value[1:])
            name = value[2:-1] if value.startswith("${") and value.endswith("}") else value[1:]
            if not name:
                self.say(node, where, "a column's name after '$' wanted, got nothing; a plain '$' is written '$$'")
            return Column(name, Place(line, where))
        if isinstance(node, yaml.SequenceNode):
            self.say(node, where, "a value wanted, got a list")
            return Const(None)
        pairs = self.pairs(node, where)
        if len(pairs) == 1:
            name, (key, inner) = next(iter(pairs.items()))
            if name == EACH:
                return self.each(inner, f"{where}/{name}", depth)
            function = FUNCTIONS.get(name)
            if function is not None:
                return self.call(name, function, inner, where, depth)
            if isinstance(inner, yaml.SequenceNode):
                self.say(key, where, f"unknown function '{name}'{closest(name, FUNCTIONS)}")
                return Const(None)
        return Object(tuple((name, self.expr(one, f"{where}/{name}", depth + 1)) for name, (_, one) in pairs.items()))

    def each(self, inner: yaml.Node, where: str, depth: int) -> Expr:
        nodes = inner.value if isinstance(inner, yaml.SequenceNode) else []
        if len(nodes) != 2:
            self.say(inner, where, "a list, and what is said of its entries, wanted")
            return Const(None)
        return Each(*(self.expr(one, f"{where}/{n}", depth + 1) for n, one in enumerate(nodes)))

    def call(self, name: str, function: Function, inner: yaml.Node, where: str, depth: int) -> Expr:
        nodes = inner.value if isinstance(inner, yaml.SequenceNode) else [inner]
        where = f"{where}/{name}"
        if not function.least <= len(nodes) <= function.most:
            wanted = str(function.least) if function.least == function.most else f"{function.least} to {function.most}"
            self.say(inner, where, f"{wanted} values wanted, got {len(nodes)}")
            return Const(None)
        args: list[Expr] = []
        for n, one in enumerate(nodes):
            if name == "lookup" and n == 1:
                table = {key: self.constant(value, where) for key, (_, value) in self.pairs(one, where).items()}
                args.append(Const(table))
            else:
                args.append(self.expr(one, f"{where}/{n}", depth + 1))
        if name == "instant" and isinstance(args[2], Const):
            try:
                zone_named(str(args[2].value))
            except ValueError as error:
                self.say(nodes[2], where, str(error))
        return Call(name, tuple(args), Place(inner.start_mark.line + 1, where))

    # The plain kinds of YAML nodes.

    def pairs(self, node: yaml.Node, where: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> (key's node, value's node); names in the order of the page."""
        if not isinstance(node, yaml.MappingNode):
            self.say(node, where, f"names with values wanted, got {_kind(node)}")
            return {}
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not name:
                self.say(key, where, "a name wanted before ':'")
            elif name in found:
                self.say(key, where, f"'{name}' stands here twice")
            else:
                found[name] = (key, value)
        return found

    def fields(
        self,
        node: yaml.Node | None,
        where: str,
        known: Sequence[str],
        required: Sequence[str] = (),
        noun: str = "field",
    ) -> dict[str, yaml.Node] | None:
        if node is None:
            return None
        before = len(self.mistakes)
        pairs = self.pairs(node, where)
        if len(self.mistakes) > before and not pairs:
            return None
        for name, (key, _) in pairs.items():
            if name not in known:
                self.say(key, where, f"unknown {noun} '{name}'{closest(name, known)}")
        for name in required:
            if name not in pairs:
                self.say(node, where, f"'{name}' wanted, got nothing")
        return {name: value for name, (_, value) in pairs.items() if name in known}

    def list(self, node: yaml.Node | None, where: str) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.say(node, where, f"a list wanted, got {_kind(node)}")
            return []
        return list(node.value)

    def constant(self, node: yaml.Node, where: str) -> Any:
        """Text, number, true, false, null, or a list of these; a date stays the text that it is."""
        if isinstance(node, yaml.SequenceNode):
            return [self.constant(one, where) for one in node.value if isinstance(one, yaml.ScalarNode)]
        if not isinstance(node, yaml.ScalarNode):
            self.say(node, where, f"a plain value wanted, got {_kind(node)}")
            return None
        if node.tag.rpartition(":")[2] not in ("int", "float", "bool", "null"):
            return node.value
        try:
            return self.constructor.construct_object(node)
        except ValueError:
            return node.value

    def text(self, node: yaml.Node | None, where: str) -> str | None:
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self.say(
                node, where, f"text wanted, got {_kind(node) if not isinstance(node, yaml.ScalarNode) else 'nothing'}"
            )
            return None
        return str(node.value)

    def choice(self, node: yaml.Node | None, where: str, choices: Sequence[str]) -> str | None:
        text = self.text(node, where)
        if text is not None and text not in choices and node is not None:
            self.say(node, where, f"one of {', '.join(choices)} wanted, got {text!r}{closest(text, choices)}")
            return None
        return text

    def yes_or_no(self, node: yaml.Node | None, where: str, *, default: bool) -> bool:
        if node is None:
            return default
        value = self.constant(node, where)
        if not isinstance(value, bool):
            self.say(node, where, "true or false wanted, got something else")
            return default
        return value


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "a plain value"
    return "a list" if isinstance(node, yaml.SequenceNode) else "names with values"


# From a mapping to functions over the rows of one file.


def unknown_columns(mapping: FileMapping, columns: Sequence[str]) -> list[Mistake]:
    """Every column that the mapping names and the file lacks."""
    found: list[Mistake] = []
    for column in _columns(mapping):
        if column.name not in columns and column.name not in (ROW, FILE):
            message = f"unknown column '{column.name}'{closest(column.name, columns)}"
            found.append(Mistake(mapping.page, column.place.line, column.place.where, message))
    return found


def _columns(mapping: FileMapping) -> Iterable[Column]:
    for rule in mapping.reject:
        yield from (check.column for check in rule.checks)
    for event in mapping.events:
        yield from (check.column for check in event.when)
    exprs: list[Expr] = [expr for _, expr in mapping.identify]
    exprs += [mapping.time.source, *mapping.group]
    for event in mapping.events:
        exprs += [event.event, event.properties, event.traits, *(expr for _, expr in event.identify)]
        exprs += [one for one in (event.message_id, event.lines) if one is not None]
        exprs += [event.time.source] if event.time is not None else []
    while exprs:
        expr = exprs.pop()
        if isinstance(expr, Column):
            yield expr
        elif isinstance(expr, Call):
            exprs += expr.args
        elif isinstance(expr, Object):
            exprs += [one for _, one in expr.fields]
        elif isinstance(expr, Each):
            exprs.append(expr.entries)  # What it says is of the entries' own fields.


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
