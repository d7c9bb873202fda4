"""From a page to a mapping: every mistake of it at once, at its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import yaml

from connectors.mapping.functions import FORMATS_OF_TIME, FUNCTIONS, NUMERIC, TESTS, Function
from connectors.mapping.model import (
    FILE,
    ROW,
    Call,
    Check,
    Column,
    Const,
    Each,
    EventRule,
    Expr,
    FileFormat,
    FileMapping,
    Object,
    Place,
    RejectRule,
    TimeRule,
)
from profiles.errors import BadDocument, BadInput, Mistake
from profiles.ids import STRENGTH
from profiles.moments import zone_named
from profiles.taxonomy import resolve

PAGE_CHARS_MAX: Final = 256_000
NESTING_MAX: Final = 20
EACH: Final = "each"
KINDS: Final = ("csv", "jsonl", "parquet")


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
                elif op in NUMERIC and (isinstance(wanted, bool) or not isinstance(wanted, int | float)):
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
