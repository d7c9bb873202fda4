"""Files as a source: JSON lines, CSV (plain, or in columns parted by blanks) and Parquet, by a mapping.

    for outcome in events_of(path, mapping, secret=secret, now_ms=now_ms, tally=tally):
        ...                             # wire.Event, or Reject(row, reason, detail, original)

Every row of the file ends in exactly one place: in an event, or in a ``Reject`` with its reason; the tally counts
both. A repeated row that ``duplicates: drop`` leaves out is a reject with reason ``duplicate``.

**Order.** Files are sorted by customer or not at all, but an import runs on the log's clock (RELIABILITY R18), which
never goes back. So events come out by (time, row number), with ``received_ms`` equal to the event's own time. Rows
of a group are gathered, and events sorted, by a merge sort that holds ``rows_in_memory`` at a time and keeps the rest in
temporary files; the rejects come out as they are found, before the first event. ``live`` turns this off where it
matters: events are no backfill and ``received_ms`` is now.

**Repeats.** A message id stands on the mapping's id, or on the file's content and the row; so the same file imported
again says the same events with the same ids, whatever happened to the first import.

Text is read as UTF-8 unless the mapping says otherwise; ``.gz`` is told by the first bytes, not by the name. Of Parquet
a batch at a time is in memory. Empty cells are missing values.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import heapq
import math
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgpack
import orjson

from connectors.mapping import Bound, BoundEvent, FileFormat, FileMapping, Row, bind
from connectors.refunds import OrderMemory
from profiles.errors import BadInput, Refused
from profiles.ids import WHOLE_WANTED, address_of, is_whole
from profiles.moments import MINUTE_MS
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event

SPEC: Final[tuple[()]] = ()
"""Nothing comes to a file by HTTP: ``opportune import`` reads it."""

ROWS_IN_MEMORY: Final = 500_000
BATCH_ROWS: Final = 20_000
DIGEST_CHARS: Final = 16
AHEAD_MS_MAX: Final = 5 * MINUTE_MS
TRAIT_KEYS_MAX: Final = 50
EXAMPLES_MAX: Final = 3


class Reject(NamedTuple):
    """A row that becomes no event.

    Attributes:
        row: its number in the file, from 1; a CSV header is not counted.
        reason: a stable word: the mapping's, or ``malformed``, ``bad_time``, ``in_future``, ``bad_identifier``,
            ``no_identifier``, ``bad_value``, ``no_event``, ``bad_name``, ``invalid_payload``, ``duplicate``.
        detail: what was wanted and found; holds no value of the row.
        original: the row as JSON, or a line that could not be read, as it is.
    """

    row: int
    reason: str
    detail: str
    original: bytes


@dataclass(slots=True)
class Tally:
    """Where the rows of a file went. Complete when the first event comes out: ``rows == used + rejected``.

    Attributes:
        rows: read so far.
        used: of them, in events.
        drafts: how many events are to come, where no refund takes back several orders.
        events: how many came out, by type.
        rejected: rows that became no event, by reason.
        examples: the first ``EXAMPLES_MAX`` of them for each reason.
    """

    rows: int = 0
    used: int = 0
    drafts: int = 0
    events: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Reject]] = field(default_factory=dict)

    def reject(self, one: Reject) -> None:
        """Count a row that became no event."""
        self.rejected[one.reason] += 1
        shown = self.examples.setdefault(one.reason, [])
        if len(shown) < EXAMPLES_MAX:
            shown.append(one)


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex: what names it whatever it is called."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def events_of(
    path: Path,
    mapping: FileMapping,
    *,
    secret: bytes,
    now_ms: int,
    live: bool = False,
    tally: Tally | None = None,
    digest: str | None = None,
    rows_in_memory: int = ROWS_IN_MEMORY,
    folder: Path | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Iterator[Event | Reject]:
    """Read a file by a mapping: all rejects, mixed with nothing or before all events, which come in order of time.

    Args:
        path: the file.
        mapping: how its rows become events.
        secret: the installation secret, for the hashes of e-mails and phones.
        now_ms: events more than five minutes later than this are rejected ``in_future``.
        live: not history: ``received_ms`` is ``now_ms`` and triggers may fire; else as the mapping's ``backfill`` says.
        tally: counts rows while they are read.
        digest: ``file_digest`` of the file, where the caller knows it.
        rows_in_memory: how many rows a sort holds; the rest is in temporary files under ``folder``.
        stopped: asked every row; once true, nothing more comes out.
    Raises:
        BadDocument: the mapping names columns that the file lacks.
        Refused: the file cannot be read, or ends before its end.
    """
    given = tally if tally is not None else Tally()
    file_id = (digest or file_digest(path))[:DIGEST_CHARS]
    maker = _Maker(mapping, secret, now_ms, live or not mapping.backfill, file_id, given, stopped)
    sort = _Sorter(rows_in_memory, folder)
    try:
        with ExitStack() as stack:
            yield from maker.run(path, sort, stack)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(
            f"{path.name}: a whole {mapping.file.kind} file wanted, got {type(error).__name__}: {error}"
        ) from error


class _Draft(NamedTuple):
    """An event to be, before it is known which order a refund takes back. Survives msgpack as a list."""

    at_ms: int
    row: int
    name: str
    message_id: str
    addresses: list[str]
    props: dict[str, Any]
    traits: dict[str, Any]
    otherwise: str  # the event's name where a refund matches no order; "": it names its order


class _Maker:
    """Rows of one file to events, by one mapping."""

    def __init__(
        self,
        mapping: FileMapping,
        secret: bytes,
        now_ms: int,
        live: bool,
        file_id: str,
        tally: Tally,
        stopped: Callable[[], bool] | None,
    ) -> None:
        self.mapping = mapping
        self.secret = secret
        self.now_ms = now_ms
        self.live = live
        self.file_id = file_id
        self.tally = tally
        self.stopped = stopped or _never
        self.rejects: list[Reject] = []
        self.columns: Sequence[str] | None = None
        self.known: dict[tuple[str, str], str] = {}

    def run(self, path: Path, sort: _Sorter, stack: ExitStack) -> Iterator[Event | Reject]:
        columns, rows = read_rows(path, self.mapping.file, stack)
        self.columns = columns
        bound = bind(self.mapping, columns, self.file_id)
        matching = any(rule.match_orders for rule in bound.events)
        drafts = _Sorted(sort, lambda draft: (draft[0], draft[1]))
        if bound.group or self.mapping.drop_duplicates:
            # Rows that belong together may be far apart; rows that are equal too.
            gathered = _Sorted(sort, lambda record: (record[0], record[1]))
            for number, row in self.accepted(rows, bound):
                gathered.add((self.key(bound, row, number), number, row))
                if self.rejects:
                    yield from self.told()
            groups = groupby(gathered, key=lambda record: record[0])
            for _, records in groups:
                if self.stopped():
                    return
                self.make(bound, [(record[1], record[2]) for record in records], drafts)
                yield from self.told()
        else:
            for number, row in self.accepted(rows, bound):
                self.make(bound, [(number, row)], drafts)
                if self.rejects:
                    yield from self.told()
        yield from self.told()
        if self.stopped():
            return
        memory = OrderMemory() if matching else None
        for draft in drafts:
            for event in self.finish(_Draft(*draft), memory):
                self.tally.events[event.type] += 1
                yield event

    def told(self) -> Iterator[Reject]:
        rejects, self.rejects = self.rejects, []
        yield from rejects

    def accepted(self, rows: Iterable[tuple[int, Row | None, bytes, str]], bound: Bound) -> Iterator[tuple[int, Row]]:
        """Rows that no rule rejects."""
        for number, row, original, fault in rows:
            if self.stopped():
                return
            self.tally.rows += 1
            if row is None:
                self.rejects.append(Reject(number, "malformed", fault, original))
                self.tally.reject(self.rejects[-1])
                continue
            for reason, holds in bound.reject:
                if holds(row, number):
                    self.reject(number, row, reason, "by the mapping's rule")
                    break
            else:
                yield number, row

    def reject(self, number: int, row: Row, reason: str, detail: str) -> None:
        named = row if self.columns is None else dict(zip(self.columns, row, strict=True))
        self.rejects.append(Reject(number, reason, detail, orjson.dumps(named, default=str)))
        self.tally.reject(self.rejects[-1])

    def key(self, bound: Bound, row: Row, number: int) -> str:
        """What rows that become one event have in common: equal keys, one event."""
        if not bound.group:
            return _said(row)
        try:
            return "\x1f".join(str(value(row, number)) for value in bound.group)
        except ValueError:
            return f"\x1f{number}"  # It is told when the row is made into an event.

    def make(self, bound: Bound, records: list[tuple[int, Row]], drafts: _Sorted) -> None:
        """One event of rows that belong together, or a reject for each of them."""
        if self.mapping.drop_duplicates:
            records = self.distinct(records)
        try:
            draft = self.draft(bound, records)
        except BadInput as error:
            for number, row in records:
                self.reject(number, row, error.reason, str(error))
        else:
            self.tally.used += len(records)
            self.tally.drafts += 1
            drafts.add(tuple(draft))

    def distinct(self, records: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        seen: dict[str, int] = {}
        kept = []
        for number, row in records:
            first = seen.setdefault(_said(row), number)
            if first == number:
                kept.append((number, row))
            else:
                self.reject(number, row, "duplicate", f"a row of its own wanted, got a repetition of row {first}")
        return kept

    def draft(self, bound: Bound, records: list[tuple[int, Row]]) -> _Draft:
        number, row = records[0]
        rule = bound.rule(row, number)
        at_ms = min(self.at(rule, row, number) for number, row in records)
        if at_ms > self.now_ms + AHEAD_MS_MAX:
            raise BadInput("in_future", "time: one that has come wanted, got a later one")
        addresses = self.addresses(rule, row, number)
        if any(self.addresses(rule, other, n) != addresses for n, other in records[1:]):
            raise BadInput("bad_identifier", "group: rows of one customer wanted, got several customers")
        try:
            name = rule.event(row, number)
            props = rule.properties(row, number)
            traits = rule.traits(row, number)
            message_id = rule.message_id(row, number) if rule.message_id else f"{self.file_id}:{number}"
            if rule.lines is not None:
                props["items"] = [rule.lines(other, n) for n, other in records]
        except ValueError as error:
            raise BadInput("bad_value", str(error)) from None
        if not isinstance(name, str) or message_id is None:
            raise BadInput("bad_value", "event and message_id: text wanted, got nothing")
        if not is_whole(str(message_id)):
            raise BadInput("bad_value", f"message_id: {WHOLE_WANTED}")
        kind = resolve(name)
        if rule.match_orders:
            # Which order it takes back is known when all earlier ones are: until then it names itself.
            props.setdefault("order_id", message_id)
        return _Draft(
            at_ms=at_ms,
            row=number,
            name=kind.name,
            message_id=str(message_id),
            addresses=list(addresses),
            props=canonical(kind, props),
            traits=dict(list(traits.items())[:TRAIT_KEYS_MAX]),
            otherwise=rule.match_orders,
        )

    def at(self, rule: BoundEvent, row: Row, number: int) -> int:
        try:
            return rule.time(row, number)
        except ValueError as error:
            raise BadInput("bad_time", f"time: {error}") from None

    def addresses(self, rule: BoundEvent, row: Row, number: int) -> tuple[str, ...]:
        found = []
        for kind, value in rule.identify:
            try:
                text = value(row, number)
                if text is not None:
                    found.append(self.address(kind, str(text)))
            except ValueError as error:
                raise BadInput("bad_identifier", f"identify: {error}") from None
        if not found:
            kinds = ", ".join(kind for kind, _ in rule.identify)
            raise BadInput("no_identifier", f"identify: one of {kinds} wanted, got none")
        return tuple(found)

    def address(self, kind: str, text: str) -> str:
        # A keyed hash costs ten times a look-up, and a customer has many rows.
        known = self.known.get((kind, text))
        if known is None:
            if len(self.known) >= BATCH_ROWS:
                self.known.clear()
            known = self.known[kind, text] = address_of(kind, text, self.secret)
        return known

    def finish(self, draft: _Draft, memory: OrderMemory | None) -> Iterator[Event]:
        """The event of a draft; of a refund that names no order, one for each order that it takes back."""
        if memory is not None and draft.name == "order_completed":
            memory.bought(draft.addresses[0], draft.props["order_id"], draft.props["items"])
        if memory is None or not draft.otherwise:
            yield self.event(draft, draft.name, draft.message_id, draft.props)
            return
        for order_id, items in memory.match(draft.addresses[0], draft.props.get("items", [])) or [("", [])]:
            props = draft.props | {"items": items, "amount_minor": sum(item["amount_minor"] for item in items)}
            if order_id:
                props["order_id"] = order_id
                yield self.event(draft, draft.name, f"{draft.message_id}/{order_id}", props)
            else:
                del props["order_id"]
                name = resolve(draft.otherwise).name
                yield self.event(draft, name, f"{draft.message_id}/unmatched", props)

    def event(self, draft: _Draft, name: str, message_id: str, props: dict[str, Any]) -> Event:
        at_ms = min(draft.at_ms, self.now_ms)
        return Event(
            message_id=message_id,
            source=self.mapping.source,
            type=name,
            at_ms=at_ms,
            received_ms=self.now_ms if self.live else at_ms,
            address=draft.addresses[0],
            identifiers=tuple(draft.addresses[1:]),
            props=props,
            traits=draft.traits,
            trusted=True,
            backfill=not self.live,
        )


def _never() -> bool:
    return False


def _said(row: Row) -> str:
    """A row as text: equal rows, equal texts."""
    return orjson.dumps(row, default=str, option=orjson.OPT_SORT_KEYS).decode()


# Reading rows: (number from 1, row or None, original bytes of a bad one, what is wrong with it).

_Rows = Iterator[tuple[int, Row | None, bytes, str]]


def read_rows(path: Path, file: FileFormat, stack: ExitStack) -> tuple[Sequence[str] | None, _Rows]:
    """Open a file: the names of its columns (``None``: JSON objects), and its rows; ``stack`` closes it.

    Raises:
        Refused: it has no header, or is not of that kind.
    """
    if file.kind == "parquet":
        return _parquet(path, stack)
    stream = stack.enter_context(_opened(path))
    if file.kind == "jsonl":
        return None, _json_lines(stream)
    return _csv(path, stream, file)


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as start:
        is_gzip = start.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_gzip else path.open("rb")  # type: ignore[return-value]  # reads like any binary file


def _json_lines(stream: IO[bytes]) -> _Rows:
    number = 0
    for line in stream:
        if not line.strip():
            continue
        number += 1
        try:
            row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except orjson.JSONDecodeError:
            yield number, None, line.rstrip(b"\r\n"), "a JSON object wanted, got something else"
            continue
        if isinstance(row, dict):
            yield number, row, b"", ""
        else:
            yield number, None, line.rstrip(b"\r\n"), f"a JSON object wanted, got {type(row).__name__}"


class _Lines:
    """Text lines of a binary stream; remembers whether one of them was not in the encoding."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self.stream = stream
        self.encoding = encoding
        self.torn = False
        self.first = True

    def __iter__(self) -> Iterator[str]:
        for line in self.stream:
            try:
                text = line.decode(self.encoding)
            except UnicodeDecodeError:
                self.torn = True
                text = line.decode(self.encoding, "replace")
            if self.first:
                self.first = False
                text = text.removeprefix("\ufeff")
            yield text


def _csv(path: Path, stream: IO[bytes], file: FileFormat) -> tuple[Sequence[str], _Rows]:
    lines = _Lines(stream, file.encoding)
    cells: Iterator[list[str]]
    if file.blanks:
        cells = (line.split() for line in lines)
    else:
        cells = csv.reader(iter(lines), delimiter=file.delimiter)
    columns = file.columns
    if not columns:
        header = next(cells, None)
        columns = tuple(name.strip() for name in header or ())
        if not columns or lines.torn:
            raise Refused(f"{path.name}:1: a line of column names in {file.encoding} wanted, got none")
        if len(set(columns)) != len(columns):
            raise Refused(f"{path.name}:1: different column names wanted, got one twice")
    return columns, _csv_rows(lines, cells, len(columns))


def _csv_rows(lines: _Lines, cells: Iterator[list[str]], width: int) -> _Rows:
    number = 0
    while True:
        try:
            row = next(cells, None)
        except csv.Error as error:
            number += 1
            yield number, None, b"", f"a line of CSV wanted, got {error}"
            continue
        if row is None:
            return
        if not row:
            continue  # An empty line is no row.
        number += 1
        if lines.torn:
            lines.torn = False
            yield number, None, orjson.dumps(row), f"text in {lines.encoding} wanted, got other bytes"
        elif len(row) != width:
            yield number, None, orjson.dumps(row), f"{width} cells wanted, got {len(row)}"
        else:
            yield number, tuple(cell if cell != "" else None for cell in row), b"", ""


def _parquet(path: Path, stack: ExitStack) -> tuple[Sequence[str], _Rows]:
    try:
        # Imported where it is used: it takes 40 MB of memory, and only Parquet needs it.
        import pyarrow as pa  # type: ignore[import-untyped]  # it has no annotations of its own
        import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has none either
    except ImportError:
        raise Refused(f"{path.name}: Parquet needs the package pyarrow: pip install pyarrow") from None
    try:
        file = stack.enter_context(pq.ParquetFile(path))
    except pa.ArrowInvalid as error:
        raise Refused(f"{path.name}: a Parquet file wanted, got {error}") from None
    return file.schema_arrow.names, _parquet_rows(file, pa)


def _parquet_rows(file: Any, pa: Any) -> _Rows:
    number = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        for row in zip(*(_cells(column, pa) for column in batch.columns), strict=True):
            number += 1
            yield number, row, b"", ""


def _cells(column: Any, pa: Any) -> list[Any]:
    """Times, dates and decimals as text, which a mapping reads by format and money by its digits; ``None`` for what says nothing."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return list(column.to_pylist())
    if pa.types.is_floating(kind):
        return [None if cell is None or math.isnan(cell) else cell for cell in column.to_pylist()]
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    return [None if cell == "" else cell for cell in column.to_pylist()]


# A merge sort that spills.


@dataclass(frozen=True, slots=True)
class _Sorter:
    rows_in_memory: int
    folder: Path | None


class _Sorted:
    """Records, to be iterated once in the order of a key. What memory must not hold lies in temporary files."""

    def __init__(self, sorter: _Sorter, key: Callable[[Any], Any]) -> None:
        self._sorter = sorter
        self._key = key
        self._held: list[Any] = []
        self._runs: list[IO[bytes]] = []

    def add(self, record: tuple[Any, ...]) -> None:
        """Take one more record, of what msgpack can carry."""
        self._held.append(record)
        if len(self._held) >= self._sorter.rows_in_memory:
            self._spill()

    def _spill(self) -> None:
        self._held.sort(key=self._key)
        run = tempfile.TemporaryFile(dir=self._sorter.folder)  # noqa: SIM115  # closed when it has been read
        packer = msgpack.Packer()
        for record in self._held:
            run.write(packer.pack(record))
        run.seek(0)
        self._runs.append(run)
        self._held = []

    def __iter__(self) -> Iterator[Any]:
        self._held.sort(key=self._key)
        held, self._held = self._held, []
        return heapq.merge(*map(_read_run, self._runs), held, key=self._key)


def _read_run(run: IO[bytes]) -> Iterator[Any]:
    with run:
        yield from msgpack.Unpacker(run, strict_map_key=False)
