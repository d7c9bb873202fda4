"""A segment as a file: the same rows in every format, safe in a spreadsheet, and only of those who may be written to."""

from __future__ import annotations

import csv
import io
import zipfile
from typing import Any, Final
from xml.etree import ElementTree as Xml

import orjson
import pytest

from console.exports import COLUMNS, FORMATS, encoded
from profiles.moments import DAY_MS, iso
from tests.console.filled import Shell, ana, json_of
from tests.rules.told import START_MS, Life, shop_rules

SHOP: Final = shop_rules()
NASTY: Final = '=HYPERLINK("http://x","a"), \'b\';\n<&>\x07 Zoë'


async def filled() -> Shell:
    shell = Shell(rulebook=SHOP)
    await shell.announce()
    bob = Life(SHOP, "user:bob")
    bob.event("Signed Up", START_MS, traits={"email": "bob@shop.example", "phone": "+79161234567", "first_name": NASTY})
    bob.event("Order Completed", START_MS + DAY_MS, order_id="o2", total="99.95", currency="EUR", products=[])
    bob.event("Consent Changed", START_MS + DAY_MS, channel="email", topic="sale", state="granted")
    eva = Life(SHOP, "user:eva")
    eva.event("Order Completed", START_MS + DAY_MS, order_id="o3", total=5, currency="EUR", products=[])
    eva.event("Unsubscribed", START_MS + DAY_MS, channel="email")
    await shell.write([ana(SHOP), bob, eva])
    return shell


def read(form: str, body: bytes) -> list[dict[str, str]]:
    """The rows of a file as a reader of that format finds them, all as text; what is missing is left out."""
    if form == "csv":
        rows = [dict(row) for row in csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""))]
        return [{name: value for name, value in row.items() if value} for row in rows]
    if form == "xml":
        return [{field.attrib["name"]: field.text or "" for field in member} for member in Xml.fromstring(body)]
    if form == "xlsx":
        return _sheet(body)
    told = orjson.loads(body) if form == "json" else [orjson.loads(line) for line in body.splitlines()]
    return [{name: str(value) for name, value in row.items() if value is not None} for row in told]


def _sheet(body: bytes) -> list[dict[str, str]]:
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    sheet = Xml.fromstring(zipfile.ZipFile(io.BytesIO(body)).read("xl/worksheets/sheet1.xml"))
    assert not list(sheet.iter(f"{space}f")), "a formula in the sheet"
    rows = []
    for row in sheet.iter(f"{space}row"):
        cells = {cell.attrib["r"].rstrip("0123456789"): "".join(cell.itertext()) for cell in row}
        rows.append(cells)
    head = rows.pop(0)
    return [{head[place]: value for place, value in row.items()} for row in rows]


async def export(shell: Shell, **asked: Any) -> bytes:
    async with shell.client() as client:
        answer = await client.get("/api/v1/segments/buyers/export", params=asked)
        assert answer.status_code == 200, answer.text
        form = asked.get("format", "csv")
        assert answer.headers["content-type"] == FORMATS[form]
        assert answer.headers["content-disposition"] == f'attachment; filename="buyers.{form}"'
        assert answer.headers["cache-control"] == "no-store"
        return answer.content


@pytest.mark.mechanic("M8")
@pytest.mark.parametrize("form", list(FORMATS))
async def test_every_format_holds_the_same_rows_in_the_same_order(form: str) -> None:
    shell = await filled()
    found = read(form, await export(shell, format=form, field=["revenue", "orders_paid"]))
    since = iso(START_MS + DAY_MS)
    # Excel and XML know no control characters; csv marks what a spreadsheet would compute.
    name = {"csv": "'" + NASTY, "xml": NASTY.replace("\x07", ""), "xlsx": NASTY.replace("\x07", "_x0007_")}.get(
        form, NASTY
    )
    assert sorted(found, key=lambda row: row["address"]) == [
        {"address": "user:ana", "since": since, "email": "ana@shop.example", "first_name": "Ana", "revenue": "40.00", "orders_paid": "1"},
        {"address": "user:bob", "since": since, "email": "bob@shop.example", "phone": "+79161234567", "first_name": name, "revenue": "99.95", "orders_paid": "1"},
        {"address": "user:eva", "since": since, "revenue": "5.00", "orders_paid": "1"},
    ]  # fmt: skip
    json_rows = read("json", await export(shell, format="json", field=["revenue", "orders_paid"]))
    assert [row["address"] for row in found] == [row["address"] for row in json_rows]


@pytest.mark.mechanic("M8")
async def test_columns_stand_in_one_order_and_the_mark_of_utf8_comes_when_asked() -> None:
    shell = await filled()
    plain, marked = (
        await export(shell, field=["avg_check", "email"]),
        await export(shell, field=["avg_check"], bom=True),
    )
    assert plain.splitlines()[0].decode() == ",".join((*COLUMNS, "avg_check"))
    assert marked == b"\xef\xbb\xbf" + plain
    assert plain.count(b"\r\n") == 4


@pytest.mark.mechanic("M8")
@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, ["ana", "bob", "eva"]),
        ({"consent": "email:sale"}, ["bob"]),
        ({"consent": "email:sale", "mode": "opt_out"}, ["ana", "bob"]),
        ({"consent": "sms:*"}, []),
    ],
)
async def test_only_who_may_be_written_to_is_in_a_file_that_asks_for_consent(
    asked: dict[str, str], wanted: list[str]
) -> None:
    rows = read("jsonl", await export(await filled(), format="jsonl", **asked))
    assert sorted(row["address"] for row in rows) == [f"user:{name}" for name in wanted]


@pytest.mark.mechanic("M8")
@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("+79161234567", "+79161234567"),
        ("+1+1", "'+1+1"),
        ("-12.50", "-12.50"),
        ("\t=1", "'\t=1"),
        ("a=1", "a=1"),
    ],
)
async def test_what_a_spreadsheet_would_compute_is_marked_as_text(text: str, cell: str) -> None:
    async def rows() -> Any:
        yield [text]

    body = b"".join([part async for part in encoded(rows(), ["x"], "csv", "s")])
    assert list(csv.reader(io.StringIO(body.decode(), newline=""))) == [["x"], [cell]]


async def test_a_sheet_that_would_be_too_long_is_refused_and_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.exports.SHEET_ROWS_MAX", 2)

    async def rows() -> Any:
        for _ in range(3):
            yield ["x"]

    with pytest.raises(OverflowError, match="at most 2 members"):
        assert [part async for part in encoded(rows(), ["x"], "xlsx", "s")]


async def test_what_cannot_be_exported_is_refused_before_the_first_byte() -> None:
    async with (await filled()).client() as client:
        for path, status, code in (
            ("byers/export", 404, "unknown_segment"),
            ("buyers/export?format=pdf", 400, "invalid_parameter"),
            ("buyers/export?consent=email", 400, "invalid_parameter"),
            ("buyers/export?consent=emial:sale", 400, "invalid_parameter"),
        ):
            answer = await client.get(f"/api/v1/segments/{path}")
            assert (answer.status_code, json_of(answer)["code"]) == (status, code)


@pytest.mark.mechanic("M7")
async def test_sizes_are_live_numbers_and_counted_when_metrics_are_looked_at() -> None:
    shell = await filled()
    async with shell.client() as client:
        assert 'opportune_segment_members{segment="buyers"} 3.0' in (await client.get("/metrics")).text
        more = Life(SHOP, "user:max")
        more.event("Order Completed", START_MS + DAY_MS, order_id="o4", total=5, currency="EUR", products=[])
        await shell.write([more])
        assert 'opportune_segment_members{segment="buyers"} 4.0' in (await client.get("/metrics")).text
