"""Files as a source: real shop data accounted for to the row and the penny, mappings, and an import that survives a kill."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]  # it has no annotations of its own
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has none either
import pytest
from rich.console import Console

from connectors.importer import Report, bar, import_file
from connectors.mapping import FUNCTIONS, TESTS, FileMapping, read_mapping
from connectors.refunds import OrderMemory
from connectors.settings import Settings
from connectors.sources.files import EXAMPLES_MAX, Reject, Tally, events_of
from opportune import parts
from opportune.topics import create_topics, wanted_topics
from profiles.errors import BadDocument, Refused
from profiles.ids import address_of, partition_of, shard_of
from profiles.moments import DAY_MS, iso, parse_instant
from profiles.taxonomy import EVENT_TYPES, canonical
from profiles.wire import ORDER_EVENTS, Event, encode_event
from tests.conftest import Installation, running
from tests.connectors.edge import stored
from tests.parts import real

DATA: Final = Path(__file__).parents[1] / "data"
MAPPINGS: Final = Path(__file__).parents[2] / "connectors" / "sources" / "mappings"
SECRET: Final = b"0123456789abcdef"
NOW_MS: Final = parse_instant("2026-11-22T12:00:00Z")


def shipped(name: str, **changed: str) -> FileMapping:
    """A mapping of ours, with some of its words changed."""
    page = (MAPPINGS / f"{name}.yaml").read_text()
    for old, new in changed.items():
        assert f"{old}: " in page
        page = "\n".join(f"{old}: {new}" if line.startswith(f"{old}: ") else line for line in page.splitlines())
    return read_mapping(page, f"{name}.yaml")


@dataclass(frozen=True)
class Read:
    """All that came out of a file."""

    events: list[Event]
    rejects: list[Reject]
    tally: Tally


def read(path: Path, mapping: FileMapping, **more: Any) -> Read:
    tally = Tally()
    given: dict[str, Any] = {"secret": SECRET, "now_ms": NOW_MS, "tally": tally} | more
    outcomes = list(events_of(path, mapping, **given))
    found = Read(
        [one for one in outcomes if isinstance(one, Event)], [one for one in outcomes if isinstance(one, Reject)], tally
    )
    assert tally.rows == tally.used + tally.rejected.total()
    assert tally.rejected.total() == len(found.rejects)
    for reason, count in tally.rejected.items():
        assert (
            tally.examples[reason] == [one for one in found.rejects if one.reason == reason][: min(count, EXAMPLES_MAX)]
        )
    assert tally.events.total() == len(found.events)
    return found


def page(text: str, name: str = "shop.yaml") -> FileMapping:
    return read_mapping(text, name)


def wrong(text: str) -> list[str]:
    with pytest.raises(BadDocument) as refused:
        read_mapping(text, "shop.yaml")
    return [str(mistake) for mistake in refused.value.mistakes]


PLAIN = """
name: shop
file: {kind: csv}
identify: {user: $user, email: $email}
time: {from: $at}
events:
  - event: $event
    properties: {color: $color}
"""


# --- CDNOW ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cdnow() -> Read:
    return read(DATA / "CDNOW_sample.txt", shipped("cdnow"))


def rows_of_cdnow() -> list[list[str]]:
    return [line.split() for line in (DATA / "CDNOW_sample.txt").read_text().splitlines()]


def test_every_line_of_cdnow_is_an_order(cdnow: Read) -> None:
    assert len(cdnow.events) == 6_919
    assert not cdnow.rejects
    assert len({event.address for event in cdnow.events}) == 2_357
    wanted = Counter((customer, date, Decimal(dollars)) for _, customer, date, _, dollars in rows_of_cdnow())
    got = Counter(
        (event.address.removeprefix("user:"), iso(event.at_ms)[:10].replace("-", ""), Decimal(minor).scaleb(-2))
        for event in cdnow.events
        if (minor := event.props["total_minor"]) is not None
    )
    assert got == wanted
    assert len({event.props["order_id"] for event in cdnow.events}) == 6_919


@pytest.mark.parametrize("end", ["19970930", "19980630"])
def test_cdnow_meets_its_published_totals(cdnow: Read, end: str) -> None:
    wanted = json.loads((DATA / "cdnow_sample_reference.json").read_text())[f"sample_{end}"]
    end_ms = parse_instant(end) + DAY_MS
    orders = [event for event in cdnow.events if event.at_ms < end_ms]
    days: dict[str, dict[int, int]] = {}
    for event in orders:
        own = days.setdefault(event.address, {})
        own[event.at_ms // DAY_MS] = own.get(event.at_ms // DAY_MS, 0) + event.props["total_minor"]
    last_day = end_ms // DAY_MS - 1
    repeaters = [own for own in days.values() if len(own) > 1]
    repeat_means = [
        Decimal(sum(minor for day, minor in own.items() if day != min(own))) / 100 / (len(own) - 1) for own in repeaters
    ]
    got = {
        "customers": len(days),
        "lines": len(orders),
        "purchase_days": sum(map(len, days.values())),
        "repeat_purchase_days": sum(len(own) - 1 for own in days.values()),
        "repeaters": len(repeaters),
        "revenue": float(Decimal(sum(event.props["total_minor"] for event in orders)).scaleb(-2)),
        "mean_recency_days": round(sum(max(own) - min(own) for own in days.values()) / len(days), 4),
        "mean_T_days": round(sum(last_day - min(own) for own in days.values()) / len(days), 4),
        "mean_repeat_monetary_of_repeaters": float(round(sum(repeat_means, Decimal(0)) / len(repeaters), 4)),
        "no_purchase_last_90_days": sum(1 for own in days.values() if last_day - max(own) > 90),
        "no_purchase_last_180_days": sum(1 for own in days.values() if last_day - max(own) > 180),
    }
    assert got == wanted


@pytest.mark.parametrize("end", ["19970930", "19980630"])
def test_every_customer_of_cdnow_has_the_published_sums(cdnow: Read, end: str) -> None:
    lines = gzip.decompress((DATA / f"cdnow_sample_rfm_{end}.csv.gz").read_bytes()).decode().splitlines()
    names = lines[0].split(",")
    end_ms = parse_instant(end) + DAY_MS
    own: dict[str, list[Event]] = {}
    for event in cdnow.events:
        if event.at_ms < end_ms:
            own.setdefault(event.address.removeprefix("user:"), []).append(event)
    assert len(lines) - 1 == len(own) == 2_357
    for line in lines[1:]:
        row = dict(zip(names, line.split(","), strict=True))
        orders = own[row["customer_id"]]
        days = {event.at_ms // DAY_MS for event in orders}
        assert int(row["lines"]) == len(orders)
        assert int(row["days"]) == len(days)
        assert float(row["frequency"]) == len(days) - 1
        assert float(row["recency"]) == max(days) - min(days)
        assert (row["first"], row["last"]) == (
            iso(orders[0].at_ms)[:10].replace("-", ""),
            iso(orders[-1].at_ms)[:10].replace("-", ""),
        )
        assert Decimal(row["revenue"]) == Decimal(sum(event.props["total_minor"] for event in orders)).scaleb(-2)


def test_ids_keep_their_leading_zeros_and_gifts_of_nothing_are_orders(cdnow: Read) -> None:
    assert cdnow.events[0].address == "user:0001"
    assert sum(1 for event in cdnow.events if event.props["total_minor"] == 0) == 8


@pytest.mark.invariant("R18")
def test_events_come_in_order_of_time_and_are_history(cdnow: Read) -> None:
    times = [event.at_ms for event in cdnow.events]
    assert times == sorted(times)
    assert [int(row[2]) for row in rows_of_cdnow()] != sorted(int(row[2]) for row in rows_of_cdnow())
    assert all(event.received_ms == event.at_ms and event.backfill and event.trusted for event in cdnow.events)


def test_what_memory_does_not_hold_is_sorted_all_the_same(cdnow: Read, tmp_path: Path) -> None:
    spilled = read(DATA / "CDNOW_sample.txt", shipped("cdnow"), rows_in_memory=500, folder=tmp_path)
    assert spilled.events == cdnow.events
    assert not list(tmp_path.iterdir())


@pytest.mark.invariant("R21")
def test_the_same_file_gives_the_same_events_by_any_name(cdnow: Read, tmp_path: Path) -> None:
    packed = tmp_path / "again.gz"
    packed.write_bytes(gzip.compress((DATA / "CDNOW_sample.txt").read_bytes()))
    assert [encode_event(event) for event in read(packed, shipped("cdnow")).events] == [
        encode_event(event) for event in cdnow.events
    ]


# --- Online Retail ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A row of the file, worked out by the test itself."""

    invoice: str
    product: str
    quantity: int
    price: Decimal
    customer: int | None
    whole: tuple[Any, ...]

    @property
    def amount(self) -> Decimal:
        return self.price * self.quantity


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    table = pq.read_table(DATA / "online_retail_240k.parquet").to_pylist()
    return [
        Line(
            row["InvoiceNo"],
            row["StockCode"],
            row["Quantity"],
            Decimal(str(row["UnitPrice"])),
            row["CustomerID"],
            tuple(row.values()),
        )
        for row in table
    ]


@pytest.fixture(scope="module")
def retail() -> Read:
    return read(DATA / "online_retail_240k.parquet", shipped("online_retail"))


def exact(events: list[Event]) -> Decimal:
    """The sum of order lines by their unit prices, which have six decimals."""
    return sum(
        (Decimal(item["price_e6"]).scaleb(-6) * item["quantity"] for event in events for item in event.props["items"]),
        Decimal(0),
    )


def of(read: Read, *types: str) -> list[Event]:
    return [event for event in read.events if event.type in types]


def test_every_row_of_online_retail_is_accounted_for(retail: Read, lines: list[Line]) -> None:
    assert len(lines) == retail.tally.rows == 240_007
    known = [line for line in lines if line.customer is not None]
    repeated = len(known) - len({line.whole for line in known})
    assert retail.tally.rejected == {"no_customer": 67_225, "duplicate": repeated}
    in_orders = sum(len(event.props["items"]) for event in of(retail, "order_completed"))
    sales = {line.whole for line in known if not line.invoice.startswith("C")}
    back = {line.whole for line in known if line.invoice.startswith("C")}
    assert in_orders == len(sales)
    assert in_orders + len(back) == retail.tally.used
    assert retail.tally.used + 67_225 + repeated == 240_007


def test_the_traps_of_online_retail_are_as_published(lines: list[Line]) -> None:
    assert sum(1 for line in lines if line.invoice.startswith("C")) == 4_350
    assert len({line.invoice for line in lines if line.invoice.startswith("C")}) == 1_946
    assert len(lines) - len({line.whole for line in lines}) == 1_970
    assert sum(1 for line in lines if line.price <= 0) == 1_413
    assert sum(1 for line in lines if line.price <= 0 and line.customer is not None) == 13


def test_known_customers_sales_meet_the_published_figures(retail: Read, lines: list[Line]) -> None:
    orders = of(retail, "order_completed")
    assert len({event.address for event in orders}) == 2_931
    assert len(orders) == len({event.props["order_id"] for event in orders}) == 8_590
    repeated = Decimal(0)
    seen: set[tuple[Any, ...]] = set()
    for line in lines:
        if line.customer is not None and not line.invoice.startswith("C"):
            repeated += line.amount if line.whole in seen else 0
            seen.add(line.whole)
    assert round(exact(orders) + repeated, 2) == Decimal("3888971.74")


def test_with_repetitions_kept_the_figures_stand_by_themselves() -> None:
    kept = read(DATA / "online_retail_240k.parquet", shipped("online_retail", duplicates="keep"))
    assert kept.tally.rejected == {"no_customer": 67_225}
    orders = of(kept, "order_completed")
    assert (len({event.address for event in orders}), len(orders)) == (2_931, 8_590)
    assert round(exact(orders), 2) == Decimal("3888971.74")
    back = of(kept, "order_refunded", "refund_unmatched")
    assert sum(event.props["amount_minor"] for event in back) == 26_274_749


def test_an_order_holds_its_invoice(retail: Read, lines: list[Line]) -> None:
    wanted: dict[str, set[tuple[Any, ...]]] = {}
    amounts: dict[str, Decimal] = {}
    for line in lines:
        if line.customer is not None and not line.invoice.startswith("C"):
            own = wanted.setdefault(line.invoice, set())
            if line.whole not in own:
                own.add(line.whole)
                amounts[line.invoice] = amounts.get(line.invoice, Decimal(0)) + line.amount
    for event in of(retail, "order_completed"):
        order_id = event.props["order_id"]
        assert len(event.props["items"]) == len(wanted[order_id])
        assert event.props["currency"] == "GBP"
        # Each line is rounded to the penny, half a penny at most.
        difference = abs(Decimal(event.props["total_minor"]).scaleb(-2) - amounts[order_id])
        assert difference <= Decimal("0.005") * len(wanted[order_id])
        assert canonical(EVENT_TYPES[event.type], event.props) == event.props


def test_times_are_the_shops_wall_clock_and_the_earliest_of_an_invoice(retail: Read) -> None:
    by_id = {event.props["order_id"]: event for event in of(retail, "order_completed")}
    assert iso(by_id["536365"].at_ms) == "2010-12-01T08:26:00.000Z"
    assert iso(by_id["558077"].at_ms) == "2011-06-26T09:59:00.000Z"  # British Summer Time
    times = [event.at_ms for event in retail.events]
    assert times == sorted(times)


def test_what_was_taken_back_is_all_accounted_for(retail: Read, lines: list[Line]) -> None:
    once = {line.whole: line for line in lines if line.customer is not None and line.invoice.startswith("C")}
    back = of(retail, "order_refunded", "refund_unmatched")
    wanted: Counter[tuple[str, str]] = Counter()
    for line in once.values():
        wanted[line.invoice, line.product] -= line.quantity
    got: Counter[tuple[str, str]] = Counter()
    for event in back:
        for item in event.props["items"]:
            got[event.props["refund_id"], item["product_id"]] += item["quantity"]
    assert got == wanted
    assert sum(event.props["amount_minor"] for event in back) == -sum(line.amount for line in once.values()) * 100
    for event in back:
        assert event.props["amount_minor"] == sum(item["amount_minor"] for item in event.props["items"])
    matched = sum(event.props["amount_minor"] for event in of(retail, "order_refunded"))
    unmatched = sum(event.props["amount_minor"] for event in of(retail, "refund_unmatched"))
    assert (matched, unmatched) == (17_147_961, 9_111_783)


def test_a_refund_takes_back_earlier_goods_of_the_same_customer_and_no_more_than_were_bought(retail: Read) -> None:
    left: dict[tuple[str, str, str], int] = {}
    for event in retail.events:
        for item in event.props["items"]:
            key = (event.address, event.props.get("order_id", ""), item["product_id"])
            if event.type == "order_completed":
                left[key] = left.get(key, 0) + item["quantity"]
            elif event.type == "order_refunded":
                left[key] -= item["quantity"]
                assert left[key] >= 0
    for event in of(retail, "order_refunded"):
        assert canonical(EVENT_TYPES["order_refunded"], event.props) == event.props
    assert len({event.message_id for event in retail.events}) == len(retail.events)


def test_a_refund_goes_to_the_latest_order_first_and_splits_to_the_penny() -> None:
    memory = OrderMemory()
    memory.bought("user:1", "old", [{"product_id": "a", "quantity": 2}])
    memory.bought("user:1", "new", [{"product_id": "a", "quantity": 1}, {"product_id": "b", "quantity": 1}])
    memory.bought("user:2", "other", [{"product_id": "a", "quantity": 9}])
    back = [
        {"product_id": "a", "quantity": 4, "amount_minor": 1_001},
        {"product_id": "c", "quantity": 1, "amount_minor": 5},
    ]
    found = memory.match("user:1", back)
    assert found == [
        ("new", [{"product_id": "a", "quantity": 1, "amount_minor": 250}]),
        ("old", [{"product_id": "a", "quantity": 2, "amount_minor": 500}]),
        ("", [{"product_id": "a", "quantity": 1, "amount_minor": 251}, {"product_id": "c", "quantity": 1, "amount_minor": 5}]),
    ]  # fmt: skip
    assert memory.match("user:1", [{"product_id": "a", "quantity": 1, "amount_minor": 9}])[0][0] == ""


# --- other files ------------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M42")
def test_people_of_a_customer_list_get_their_traits(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes("ИМЯ;почта;др;город\nАна; Ana@Example.org ;03.02.1990;Москва\nБо;;;\n".encode("cp1251"))
    found = read(
        path,
        page(
            """
name: people
file: {kind: csv, delimiter: ";", encoding: cp1251}
identify: {email: $почта}
time: {from: {default: [$др, 01.01.2000]}, format: "%d.%m.%Y"}
events:
  - event: identify
    message_id: {concat: [$_file, "/", {lower: {trim: $почта}}]}
    traits:
      first_name: {upper: $ИМЯ}
      birth_date: {date: [$др, "%d.%m.%Y"]}
      address: {city: {lookup: [$город, {Москва: Moscow}]}}
"""
        ),
    )
    [ana] = found.events
    assert ana.address == address_of("email", "ana@example.org", SECRET)
    assert ana.type == "identified"
    assert ana.traits == {"first_name": "АНА", "birth_date": "1990-02-03", "address": {"city": "Moscow"}}
    [bo] = found.rejects
    assert (bo.row, bo.reason, bo.detail) == (2, "no_identifier", "identify: one of email wanted, got none")
    assert json.loads(bo.original)["ИМЯ"] == "Бо"


def test_the_strongest_identifier_is_the_address_and_the_others_go_along(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "user,email,at,event,color\n7,a@b.c,2020-01-01,Quiz Done,red\n,a@b.c,2020-01-02T03:00:00+03:00,page,\n"
    )
    first, second = read(path, page(PLAIN)).events
    email = address_of("email", "a@b.c", SECRET)
    assert (first.address, first.identifiers) == ("user:7", (email,))
    assert (first.type, first.props) == ("quiz_done", {"color": "red"})
    assert (second.address, second.identifiers, iso(second.at_ms)) == (email, (), "2020-01-02T00:00:00.000Z")


def test_every_bad_row_is_told_with_its_reason_and_never_its_values(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [
        ("1,,2020-01-01,page,red", None),
        ("1,secret@x", "malformed"),
        (",,2020-01-01,page,red", "no_identifier"),
        ("1,secret,2020-01-01,page,red", "bad_identifier"),
        ("1,,secret,page,red", "bad_time"),
        ("1,,,page,red", "bad_time"),
        ("1,,2030-01-01,page,red", "in_future"),
        ("1,,2020-01-01,!!!,red", "bad_name"),
        ("1,,2020-01-01,,red", "bad_value"),
        ("1,,2020-01-01,product_added,red", "invalid_payload"),
        ("1\ufffd,,2020-01-01,page,red", "bad_identifier"),
    ]
    path.write_text("user,email,at,event,color\n" + "\n".join(row for row, _ in rows) + "\n")
    found = read(path, page(PLAIN))
    assert [(reject.row, reject.reason) for reject in found.rejects] == [
        (number, reason) for number, (_, reason) in enumerate(rows, 1) if reason
    ]
    assert len(found.events) == 1
    assert not [reject.detail for reject in found.rejects if "secret" in reject.detail]


def test_json_lines_are_read_by_paths_and_torn_ones_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"who": {"id": 5}, "at": 1577836800, "what": {"name": "Order Completed", "sum": "9.90"}}\n'
        '\n[1]\n{"who": \n{"who": {}, "at": 1}\n'
    )
    mapping = page(
        """
name: log
file: {kind: jsonl}
identify: {user: $who.id}
time: {from: $at, format: epoch_s}
backfill: false
events:
  - when: {what.name: {eq: Order Completed}}
    event: $what.name
    properties: {order_id: {concat: [$_file, -, $_row]}, total: $what.sum, currency: EUR}
"""
    )
    found = read(path, mapping)
    [order] = found.events
    assert (order.address, order.at_ms, order.props["total_minor"]) == ("user:5", 1_577_836_800_000, 990)
    assert (order.received_ms, order.backfill) == (NOW_MS, False)
    assert [(reject.row, reject.reason) for reject in found.rejects] == [
        (2, "malformed"),
        (3, "malformed"),
        (4, "no_event"),
    ]
    assert found.rejects[1].original == b'{"who": '


def test_parquet_cells_of_every_kind_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "user": pa.array([17850.0, float("nan")]),
            "at": pa.array([1_577_836_800_000_000, 0], pa.timestamp("us")),
            "sum": pa.array([Decimal("12.345"), Decimal("1.000")], pa.decimal128(9, 3)),
        }
    )
    pq.write_table(table, path)
    mapping = page(
        """
name: p
file: {kind: parquet}
identify: {user: {integer: $user}}
time: {from: $at}
events: [{event: purchase, properties: {order_id: $_row, total: $sum, currency: KWD}}]
"""
    )
    found = read(path, mapping)
    [order] = found.events
    assert (order.address, iso(order.at_ms)) == ("user:17850", "2020-01-01T00:00:00.000Z")
    assert order.props["total_minor"] == 12_345
    assert [reject.reason for reject in found.rejects] == ["no_identifier"]


def test_rows_of_a_group_make_one_event_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "user,order,product,price,at\n"
        "1,A,x,1,2020-01-02\n2,B,y,2,2020-01-01\n1,A,z,3,2020-01-01\n1,A,x,1,2020-01-02\n3,B,q,1,2020-01-01\n"
    )
    mapping = page(
        """
name: g
file: {kind: csv}
identify: {user: $user}
time: {from: $at}
duplicates: drop
group: [$order]
events:
  - event: order_completed
    properties: {order_id: $order, currency: EUR}
    lines: {product_id: $product, price: $price}
"""
    )
    for rows_in_memory in (2, 1_000):
        found = read(path, mapping, rows_in_memory=rows_in_memory)
        [order] = found.events
        assert [item["product_id"] for item in order.props["items"]] == ["x", "z"]
        assert (order.props["total_minor"], iso(order.at_ms)[:10]) == (400, "2020-01-01")
        assert sorted((reject.row, reject.reason) for reject in found.rejects) == [
            (2, "bad_identifier"),
            (4, "duplicate"),
            (5, "bad_identifier"),
        ]


def test_bytes_that_are_no_text_reject_their_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfuser,email,at,event,color\n1,,2020-01-01,page,\xff\n1,,2020-01-01,page,red\n")
    found = read(path, page(PLAIN))
    assert [reject.reason for reject in found.rejects] == ["malformed"]
    assert len(found.events) == 1


def test_a_file_cut_short_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"user,email,at,event,color\n" + b"1,,2020-01-01,page,red\n" * 10_000)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed[:-20])
    with pytest.raises(Refused, match=r"a\.csv\.gz: a whole csv file wanted"):
        read(path, page(PLAIN))
    with pytest.raises(Refused, match=r"a\.csv\.gz: a Parquet file wanted"):
        read(path, page(PLAIN.replace("csv", "parquet")))
    path.write_bytes(b"")
    with pytest.raises(Refused, match="a line of column names"):
        read(path, page(PLAIN))


def test_columns_that_the_file_lacks_are_all_told_at_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("User,email,at,event\n")
    with pytest.raises(BadDocument) as refused:
        read(path, page(PLAIN))
    assert [str(mistake) for mistake in refused.value.mistakes] == [
        "shop.yaml:4: identify/user: unknown column 'user'; did you mean 'User'?",
        "shop.yaml:8: events/0/properties/color: unknown column 'color'",
    ]


# --- mappings ---------------------------------------------------------------------------------------------------------


def test_every_mistake_of_a_mapping_is_told_at_its_line() -> None:
    assert wrong(
        """\
name: shop
file: {kind: cvs}
identity: {user: $id}
time: {from: $at, zone: Europe/Londno}
reject:
  - {reason: No Price, if: {price: {lte: cheap}}}
  - {reason: other, if: {price: {less: 0}}}
events:
  - event: "!!!"
    properties:
      a: {uper: [$a]}
      b: {date: $b}
      a: 1
    lines: {product_id: $p}
    wen: {a: {eq: 1}}
"""
    ) == [
        "shop.yaml:1: 'identify' wanted, got nothing",
        "shop.yaml:2: file/kind: one of csv, jsonl, parquet wanted, got 'cvs'; did you mean 'csv'?",
        "shop.yaml:3: unknown field 'identity'; did you mean 'identify'?",
        "shop.yaml:4: time/zone: a time zone name like Europe/Moscow wanted, got 'Europe/Londno'",
        "shop.yaml:6: reject/0/reason: a word like no_customer wanted, got 'No Price'",
        "shop.yaml:6: reject/0/if/price/lte: a number wanted, got something else",
        "shop.yaml:7: reject/1/if/price: unknown test 'less'",
        "shop.yaml:9: events/0/event: event: a name with a letter or a digit wanted, got none",
        "shop.yaml:11: events/0/properties/a: unknown function 'uper'; did you mean 'upper'?",
        "shop.yaml:12: events/0/properties/b/date: 2 values wanted, got 1",
        "shop.yaml:13: events/0/properties: 'a' stands here twice",
        "shop.yaml:14: events/0/lines: only with 'group' on top: without it one row is one event",
        "shop.yaml:15: events/0: unknown field 'wen'; did you mean 'when'?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "shop.yaml:1: a mapping wanted, got an empty page"),
        ("- a\n", "shop.yaml:1: names with values wanted, got a list"),
        ("a: [\n", "shop.yaml:2: YAML wanted: expected the node content, but found '<stream end>'"),
        ("a: &x 1\nb: *x\n", "shop.yaml:1: a page without anchors wanted: write the part again where it is needed"),
        ("a: !!python/object/apply:os.system [ls]\n", "shop.yaml:1: unknown field 'a'"),
    ],
)
def test_a_page_that_is_no_mapping_is_refused(text: str, told: str) -> None:
    assert told in wrong(text)


def test_columns_without_a_header_are_checked_with_the_page() -> None:
    text = PLAIN.replace("{kind: csv}", "{kind: csv, columns: [user, email, at, event]}")
    assert wrong(text) == ["shop.yaml:8: events/0/properties/color: unknown column 'color'"]


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("{abs: -2.5}", Decimal("2.5")),
        ("{concat: [a, 1]}", "a1"),
        ('{date: ["3.2.1990", "%d.%m.%Y"]}', "1990-02-03"),
        ("{default: [$none, x]}", "x"),
        ('{instant: ["2020-07-01 12:00", iso, Europe/London]}', "2020-07-01T11:00:00.000Z"),
        ('{integer: "17.0"}', "17"),
        ("{lookup: [a, {a: b}]}", "b"),
        ("{lookup: [z, {a: b}]}", None),
        ("{lower: ABC}", "abc"),
        ('{multiply: ["2.5", 4]}', 10),
        ("{negate: 3}", -3),
        ('{number: "1.50"}', Decimal("1.5")),
        ("{trim: ' a '}", "a"),
        ("{upper: a}", "A"),
        ("{without_prefix: [C123, C]}", "123"),
        ("{upper: $none}", None),
        ("$$5", "$5"),
        ('"${the color}"', "red"),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_a_function_gives_what_it_says(tmp_path: Path, call: str, value: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,none,the color\n1,,red\n")
    text = f"""
name: f
file: {{kind: csv}}
identify: {{user: $user}}
time: {{from: 2020-01-01}}
events:
  - event: checked
    traits: {{it: {call}}}
"""
    [event] = read(path, page(text)).events
    assert event.traits.get("it") == value


def test_inside_json_a_list_is_read_entry_by_entry_and_an_event_may_say_whose_and_when_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {
            "user": 1,
            "at": "2020-01-01",
            "lines": [{"code": "a", "of": {"n": 2}}, {"code": "b"}, 5],
            "codes": ["x", "y"],
        },
        {"user": 2, "at": "2020-01-02", "lines": "none", "codes": []},
        {"kind": "parcel", "to": 3, "sent": 1_577_923_200},
    ]
    path.write_bytes(b"\n".join(json.dumps(row).encode() for row in rows))
    text = """
name: shop
file: {kind: jsonl}
identify: {user: $user}
time: {from: $at}
events:
  - when: {kind: {eq: parcel}}
    identify: {user: $to}
    time: {from: $sent, format: epoch_s}
    event: parcel_sent
  - event: seen
    properties: {first: $codes.1, none: $codes.2, odd: $codes.x, lines: {each: [$lines, {sku: {upper: $code}, n: $of.n}]}}
"""
    first, second, third = read(path, page(text)).events
    assert first.props == {"first": "y", "lines": [{"sku": "A", "n": 2}, {"sku": "B"}]}
    assert (second.address, second.props) == ("user:2", {})
    assert (third.type, third.address, iso(third.at_ms)) == ("parcel_sent", "user:3", "2020-01-02T00:00:00.000Z")


def test_what_an_event_says_of_its_own_is_looked_at_as_the_pages_is(tmp_path: Path) -> None:
    text = """
name: shop
file: {kind: csv}
identify: {user: $user}
time: {from: $at}
events:
  - event: seen
    identify: {name: $user}
    time: {from: $at, format: soon}
    properties: {lines: {each: $lines}}
"""
    assert wrong(text) == [
        "shop.yaml:8: events/0/identify: unknown kind of identifier 'name'",
        "shop.yaml:8: events/0/identify: one or more of user, email, phone, card, device, anon wanted, got none",
        "shop.yaml:9: events/0/time/format: iso, epoch_s, epoch_ms or a pattern like %Y-%m-%d wanted, got 'soon'",
        "shop.yaml:10: events/0/properties/lines/each: a list, and what is said of its entries, wanted",
    ]
    path = tmp_path / "a.csv"
    path.write_text("user,at\n1,2020-01-01\n")
    own = "identify: {user: $whom}\n    time: {from: $when}"
    lacking = text.replace("identify: {name: $user}\n    time: {from: $at, format: soon}", own)
    lacking = lacking.replace("{each: $lines}", "{each: [$lines, {sku: $code}]}")
    with pytest.raises(BadDocument) as refused:
        read(path, page(lacking))
    assert [mistake.message for mistake in refused.value.mistakes] == [
        f"unknown column '{name}'" for name in ("whom", "when", "lines")
    ]


def test_every_function_is_tried_above() -> None:
    tried = test_a_function_gives_what_it_says.pytestmark[0].args[1]
    assert {call.strip("{").split(":")[0] for call, _ in tried if call.startswith("{")} == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("op", "wanted", "holds", "fails"),
    [
        ("missing", True, [None], ["", 0, "a"]),
        ("missing", False, [0, "a"], [None]),
        ("eq", 2, [2, 2.0, "2.00"], [3, "x", None, True]),
        ("eq", "2", ["2", 2], ["2.0", None]),
        ("ne", 2, [3, "x"], [2, "2", None]),
        ("in", ["a", 1], ["a", 1, "1"], ["b", None]),
        ("not_in", ["a", 1], ["b"], ["a", "1", None]),
        ("lt", 1, [0, "0.5", -1.5], [1, "x", None]),
        ("lte", 0, [0, "0.00"], [0.01, None]),
        ("gt", 0.1, ["0.11", 1], ["0.1", "x", None]),
        ("gte", 0.1, ["0.1", 0.1], [0, None]),
        ("starts_with", "C", ["C1"], ["1C", None]),
    ],
)
def test_a_test_holds_when_it_says(op: str, wanted: Any, holds: list[Any], fails: list[Any]) -> None:
    assert [value for value in holds if not TESTS[op](value, wanted)] == []
    assert [value for value in fails if TESTS[op](value, wanted)] == []


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mapping_that_we_ship_is_right(path: Path) -> None:
    assert read_mapping(path.read_text(), path.name).name == path.stem


# --- imports ----------------------------------------------------------------------------------------------------------


class Fixed:
    """A clock that stands."""

    def now_ms(self) -> int:
        return NOW_MS


def settings(installation: Installation) -> Settings:
    return Settings(bootstrap=installation.bootstrap, secret=SECRET.hex())


@pytest.fixture
def shop_file(tmp_path: Path) -> Path:
    path = tmp_path / "CDNOW_sample.txt"
    path.write_bytes((DATA / "CDNOW_sample.txt").read_bytes())
    return path


async def test_an_import_publishes_every_event_in_order_to_its_shards_partition(
    installation: Installation, shop_file: Path, cdnow: Read
) -> None:
    heard: list[int] = []
    report = await import_file(
        shop_file, shipped("cdnow"), settings(installation), Fixed(), tell=lambda told: heard.append(told.published)
    )
    assert (report.published, report.resumed_at, report.complete, report.rejects) == (6_919, 0, True, None)
    assert heard[-1] == 6_919
    found = await stored(installation.bootstrap)
    assert sorted(record.value for record in found) == sorted(map(encode_event, cdnow.events))
    times: dict[int, int] = {}
    for record in found:
        event, partition = record.event(), record.partition
        assert (record.topic, record.key) == (ORDER_EVENTS, event.address)
        assert partition == partition_of(shard_of(event.address), installation.partitions)
        assert times.get(partition, 0) <= event.received_ms
        times[partition] = event.received_ms
    again = await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed())
    assert (again.published, again.resumed_at, again.complete) == (0, 6_919, True)


async def test_an_import_stops_at_an_instant_and_goes_on_later(installation: Installation, shop_file: Path) -> None:
    until_ms = parse_instant("1997-10-01")
    first = await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed(), until_ms=until_ms)
    assert (first.published, first.complete) == (4_960, False)
    second = await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed())
    assert (second.resumed_at, second.published, second.complete) == (4_960, 6_919 - 4_960, True)
    with pytest.raises(Refused, match="6919 events published before wanted in the file, got 4960"):
        await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed(), until_ms=until_ms)


async def test_rejected_rows_lie_beside_the_file_with_their_reasons(installation: Installation, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,email,at,event,color\n1,,2020-01-01,page,red\n,,2020-01-01,page,red\n1,x\n")
    report = await import_file(path, page(PLAIN), settings(installation), Fixed())
    assert (report.published, report.tally.rejected) == (1, {"no_identifier": 1, "malformed": 1})
    assert report.rejects == tmp_path / "a.csv.rejected.jsonl"
    assert report.rejects.stat().st_mode & 0o077 == 0
    rows = [json.loads(line) for line in report.rejects.read_text().splitlines()]
    assert {(row["row"], row["reason"]) for row in rows} == {(2, "no_identifier"), (3, "malformed")}
    assert {"user": None, "email": None, "at": "2020-01-01", "event": "page", "color": "red"} in [
        row["original"] for row in rows
    ]


_RUN: Final = """
import asyncio, sys
from pathlib import Path
from connectors.clock import SystemClock
from connectors.importer import import_file
from connectors.mapping import read_mapping
from connectors.settings import Settings
path, page, bootstrap, secret, chunk = sys.argv[1:]
mapping = read_mapping(Path(page).read_text(), "cdnow.yaml")
asyncio.run(import_file(Path(path), mapping, Settings(bootstrap=bootstrap, secret=secret), SystemClock(), chunk_events=int(chunk)))
"""


@pytest.mark.invariant("R21")
async def test_a_killed_import_run_again_ends_with_each_event_once(
    installation: Installation, shop_file: Path, cdnow: Read
) -> None:
    state = shop_file.with_name(f"{shop_file.name}.import.json")

    async def run(kill_at: int | None) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _RUN,
            str(shop_file),
            str(MAPPINGS / "cdnow.yaml"),
            installation.bootstrap,
            SECRET.hex(),
            "40",
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        ended = asyncio.create_task(process.wait())
        while kill_at is not None and not ended.done():
            if state.exists() and json.loads(state.read_bytes())["events"] >= kill_at:
                process.send_signal(signal.SIGKILL)
                kill_at = None
            await asyncio.wait({ended}, timeout=0.005)
        return await ended

    for kill_at in (400, 2_000, 4_000):
        assert await run(kill_at) == -signal.SIGKILL
        assert kill_at <= json.loads(state.read_bytes())["events"] < 6_919
    assert await run(None) == 0
    found = await stored(installation.bootstrap)
    assert sorted(record.event().message_id for record in found) == sorted(event.message_id for event in cdnow.events)


async def test_what_arrived_of_an_unacknowledged_chunk_is_not_published_again(
    installation: Installation, shop_file: Path
) -> None:
    await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed(), chunk_events=1_000)
    state = shop_file.with_name(f"{shop_file.name}.import.json")
    kept = json.loads(state.read_bytes())
    # As a kill between the broker's acknowledgement and our note of it leaves things, for the whole file.
    ends = dict.fromkeys(kept["ends"], 0)
    state.write_text(json.dumps(kept | {"events": 0, "ends": ends}))
    report = await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed(), chunk_events=1_000)
    assert (report.resumed_at, report.published, report.complete) == (0, 0, True)
    assert len(await stored(installation.bootstrap)) == 6_919


async def test_another_mapping_starts_anew_and_a_moved_line_does_not(
    installation: Installation, shop_file: Path
) -> None:
    await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed())
    text = (MAPPINGS / "cdnow.yaml").read_text()
    moved = await import_file(shop_file, read_mapping("# A word.\n" + text, "x.yaml"), settings(installation), Fixed())
    assert (moved.resumed_at, moved.published) == (6_919, 0)
    other = read_mapping(text.replace("name: cdnow", "name: other"), "cdnow.yaml")
    assert (await import_file(shop_file, other, settings(installation), Fixed())).published == 6_919


@pytest.mark.parametrize("wrong", ["online_retail", "nothing"])
async def test_a_try_by_a_mapping_that_publishes_nothing_leaves_the_state(
    installation: Installation, shop_file: Path, wrong: str
) -> None:
    await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed())
    if wrong == "online_retail":  # A Parquet file's: it does not read the file at all.
        with pytest.raises(Refused, match="Parquet"):
            await import_file(shop_file, shipped(wrong), settings(installation), Fixed())
    else:
        # It reads every row, and leaves each out: they all lie behind ``until_ms``.
        text = (MAPPINGS / "cdnow.yaml").read_text().replace("name: cdnow", "name: other")
        other = read_mapping(text, "cdnow.yaml")
        report = await import_file(shop_file, other, settings(installation), Fixed(), until_ms=0)
        assert report.published == 0
    again = await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed())
    assert (again.resumed_at, again.published) == (6_919, 0)


@pytest.fixture
def another_broker(is_real: bool, tmp_path: Path) -> Iterator[parts.Server]:
    """A broker beside the installation's."""
    folder = tmp_path / "another"
    yield from running(real.kafka(folder) if is_real else parts.broker(folder))


async def test_each_installation_is_told_a_file_once(
    installation: Installation, another_broker: parts.Server, shop_file: Path
) -> None:
    said: list[str] = []
    one = settings(installation)
    other = Settings(bootstrap=another_broker.address, secret=bytes(reversed(SECRET)).hex())
    await create_topics(other.bootstrap, wanted_topics())
    reports = [
        await import_file(shop_file, shipped("cdnow"), where, Fixed(), say=said.append)
        for where in (one, other, one, other)
    ]
    assert [(report.resumed_at, report.published) for report in reports] == [
        (0, 6_919),
        (0, 6_919),
        (6_919, 0),
        (6_919, 0),
    ]
    assert len(await stored(other.bootstrap)) == len(await stored(installation.bootstrap)) == 6_919
    begun, *gone_on = said
    assert begun == (
        "begins with the first event: the earlier import went to another installation "
        f"(brokers at {installation.bootstrap})"
    )
    assert [line.partition(" (")[0] for line in gone_on] == [
        "goes on behind 6919 events that went to this installation"
    ] * 2
    for path in shop_file.parent.glob("*.import.json"):
        assert one.secret not in path.read_text()
        assert other.secret not in path.read_text()


async def test_an_import_goes_on_though_its_brokers_have_moved_and_an_older_release_kept_its_state(
    installation: Installation, shop_file: Path
) -> None:
    await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed())
    state = shop_file.with_name(f"{shop_file.name}.import.json")
    kept = json.loads(state.read_bytes())
    said: list[str] = []
    state.write_text(json.dumps(kept | {"bootstrap": "old:9092"}))
    moved = await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed(), say=said.append)
    assert "when its brokers were at old:9092" in said[0]
    del kept["installation"], kept["bootstrap"]
    state.write_text(json.dumps(kept))
    older = await import_file(shop_file, shipped("cdnow"), settings(installation), Fixed())
    assert (moved.published, older.published) == (0, 0)


async def test_an_import_without_a_broker_or_secret_is_refused(shop_file: Path, unused_tcp_port: int) -> None:
    with pytest.raises(Refused, match="OPPORTUNE_SECRET"):
        await import_file(shop_file, shipped("cdnow"), Settings(), Fixed())
    nobody = Settings(bootstrap=f"127.0.0.1:{unused_tcp_port}", secret=SECRET.hex())
    with pytest.raises(Refused, match="a broker wanted"):
        await import_file(shop_file, shipped("cdnow"), nobody, Fixed())


def test_the_bar_shows_rows_then_events() -> None:
    console = Console(record=True, force_terminal=True, width=100)
    with bar(console) as tell:
        report = Report(tally=Tally(rows=10, used=8, drafts=4))
        tell(report)
        report.tally.rejected["no_customer"] = 2
        report.published, report.complete = 4, True
        tell(report)
    shown = console.export_text()
    assert "10/10" in shown
    assert "4/4" in shown
