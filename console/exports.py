"""A segment as a file: csv, xlsx, xml, json or jsonl, the same rows in each, in the order of the workers' lists.

    rows = members(store, rulebook, "vip", columns_of([]), Only("email", "sale"))
    async for part in encoded(rows, columns_of([]), "csv", "vip", bom=True): ...

What a spreadsheet would take for a formula is written as text: csv puts an apostrophe before it (OWASP, *CSV injection*),
xlsx says so in the cell. Columns stand in a fixed order: the address, since when, the contact, and what was asked for.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from tempfile import SpooledTemporaryFile
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import orjson
import xlsxwriter

from profiles import consent
from profiles.codec import decode
from profiles.ids import small_id
from profiles.moments import iso
from profiles.state import Profile
from rules.messages import CHANNELS
from rules.rulebook import Rulebook
from rules.slips import did_you_mean
from rules.spec import plain, shown
from stream.ports import ProfileStore

FORMATS: Final = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
}
COLUMNS: Final = ("address", "since", "email", "phone", "first_name", "last_name", "locale")
"""Of every export, in this order."""

PAGE: Final = 500
FIELDS_MAX: Final = 50
SHEET_ROWS_MAX: Final = 1_048_575
_CELL_CHARS_MAX: Final = 32_767
_SPOOLED_BYTES_MAX: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_HARMLESS: Final = re.compile(r"\+\d{5,15}|-\d+(\.\d+)?")
"""A phone number and a number below nothing begin as formulas do, and are none."""
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Row = list[Any]
"""Values in the order of the columns: text, numbers, truths, or ``None``."""


@dataclass(frozen=True, slots=True)
class Only:
    """Leave out who may not be written to: not ``granted``, or with ``opt_out`` those who ``denied``."""

    channel: str
    topic: str
    opt_out: bool = False

    def admits(self, profile: Profile) -> bool:
        """Whether this person may be in the file."""
        state = consent.state_of(profile, self.channel, self.topic)
        return state != consent.DENIED if self.opt_out else state == consent.GRANTED


def only_of(text: str, *, opt_out: bool) -> Only | None:
    """``email:sale`` as a filter; nothing is none.

    Raises:
        ValueError: it is no channel and topic, or a slip of the pen for another channel, by which nobody would be found.
    """
    if not text:
        return None
    channel, colon, topic = text.partition(":")
    if not (channel and colon and topic):
        raise ValueError("channel:topic like email:sale or sms:* wanted, got other text")
    if channel not in CHANNELS and (meant := did_you_mean(channel, CHANNELS, alike=0.8)):
        raise ValueError(f"unknown channel {channel!r}{meant}")
    return Only(channel, topic, opt_out)


def columns_of(fields: Sequence[str]) -> tuple[str, ...]:
    """The columns of an export that asks for these traits beside the usual ones; each once."""
    return tuple(dict.fromkeys((*COLUMNS, *fields)))


async def members(
    store: ProfileStore, rulebook: Rulebook, segment: str, columns: Sequence[str], only: Only | None = None
) -> AsyncIterator[Row]:
    """The members as rows, as the workers have recorded them; who enters or leaves meanwhile may be missed or met."""
    cursor = ""
    while True:
        page, cursor = await store.members(segment, cursor, PAGE)
        for address, blob in zip(page, await store.load(page), strict=True):
            if blob is None:
                continue
            profile = decode(address, blob)
            rulebook.lend(profile)
            since_ms = profile.members.get(small_id(segment))
            if since_ms is not None and (only is None or only.admits(profile)):
                yield [_value(profile, rulebook, column, since_ms) for column in columns]
        if not cursor:
            return


def _value(profile: Profile, rulebook: Rulebook, column: str, since_ms: int) -> Any:
    if column == "address":
        return profile.address
    if column == "since":
        return iso(since_ms)
    reader = rulebook.readers.get(column)
    if reader is not None:
        value = shown(reader.read(profile, profile.seen_ms)[0], reader.kind, rulebook.currency)
        if isinstance(value, dict):
            value = value.get("amount", value.get("ms"))
    else:
        said = profile.traits.get(column)
        value = said.value if said is not None else None
    if isinstance(value, list):
        return "|".join(str(plain(one)) for one in value)
    return plain(value) if isinstance(value, Fraction) else value


async def encoded(
    rows: AsyncIterator[Row], columns: Sequence[str], form: str, segment: str, *, bom: bool = False
) -> AsyncIterator[bytes]:
    """A file of these rows, in parts.

    Args:
        form: one of ``FORMATS``.
        segment: its name, which xml and xlsx bear.
        bom: begin csv with the mark by which spreadsheets know UTF-8.
    Raises:
        OverflowError: more rows than a sheet of xlsx holds.
    """
    assert form in FORMATS, form
    if form == "xlsx":
        async for part in _sheet(rows, columns, segment):
            yield part
        return
    if form == "csv":
        yield (_BOM if bom else b"") + _csv_line(columns)
    elif form == "xml":
        yield f'<?xml version="1.0" encoding="UTF-8"?>\n<segment name={quoteattr(segment)}>\n'.encode()
    elif form == "json":
        yield b"["
    first = True
    async for row in rows:
        if form == "csv":
            yield _csv_line(row)
        elif form == "xml":
            yield _element(columns, row)
        else:
            line = orjson.dumps(dict(zip(columns, row, strict=True)))
            yield line + b"\n" if form == "jsonl" else (b"" if first else b",\n") + line
        first = False
    if form == "xml":
        yield b"</segment>\n"
    elif form == "json":
        yield b"]\n"


def _csv_line(values: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([_guarded(_text(value)) for value in values])
    return line.getvalue().encode()


def _guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) and not _HARMLESS.fullmatch(text) else text


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _element(columns: Sequence[str], row: Row) -> bytes:
    fields = "".join(
        f"<field name={quoteattr(column)}>{escape(_NOT_XML.sub('', _text(value)))}</field>"
        for column, value in zip(columns, row, strict=True)
        if value is not None
    )
    return f"<member>{fields}</member>\n".encode()


async def _sheet(rows: AsyncIterator[Row], columns: Sequence[str], segment: str) -> AsyncIterator[bytes]:
    with SpooledTemporaryFile(max_size=_SPOOLED_BYTES_MAX) as file:
        plain_text = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
        book = xlsxwriter.Workbook(file, {"constant_memory": True, **plain_text})
        book.set_properties({"title": segment})
        try:
            await _fill(book.add_worksheet(), rows, columns)
        finally:
            book.close()  # It holds a file of its own.
        file.seek(0)
        while part := file.read(1 << 16):
            yield part


async def _fill(sheet: Any, rows: AsyncIterator[Row], columns: Sequence[str]) -> None:
    sheet.freeze_panes(1, 0)
    for place, column in enumerate(columns):
        sheet.write_string(0, place, column)
    number = 0
    async for row in rows:
        number += 1
        if number > SHEET_ROWS_MAX:
            raise OverflowError(f"xlsx: at most {SHEET_ROWS_MAX} members wanted; csv holds any number")
        for place, value in enumerate(row):
            if isinstance(value, bool):
                sheet.write_boolean(number, place, value)
            elif isinstance(value, int | float):
                sheet.write_number(number, place, value)
            elif value is not None:
                sheet.write_string(number, place, str(value)[:_CELL_CHARS_MAX])
