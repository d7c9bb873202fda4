"""Online Retail end to end: 240,007 invoice lines of a gift shop become orders and refunds in 2,931 profiles, every line
accounted for, and what the profiles count is what a plain reading of the file counts.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has no annotations of its own
import pytest

from profiles.wire import CUSTOMER_EVENTS, DEAD_LETTERS, DECISIONS, ORDER_EVENTS, SEGMENT_CHANGES
from tests.conftest import Installation
from tests.integration.history import DATA, everybody, imported, misjudged
from tests.integration.parts import Shop, opened, reading, working

FILE = "online_retail_240k.parquet"
ROWS = 240_007
LONDON = ZoneInfo("Europe/London")


@pytest.fixture
def shop(installation: Installation) -> Shop:
    # Nobody leaves here, and a busy machine may keep a worker from its heartbeats.
    return asyncio.run(
        opened(installation, clock="log", currency="GBP", zone="Europe/London", session_ms="10000", heartbeat_ms="1000")
    )


@dataclass
class Invoice:
    """One order or credit note, read plainly."""

    customer: str
    at: datetime
    row: int
    amounts: list[tuple[str, int, int]] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    back: int = 0

    @property
    def total(self) -> int:
        """In pence."""
        return sum(pence for _, _, pence in self.amounts)


def pence(price: Any, quantity: int) -> int:
    return int((Decimal(str(price)) * quantity * 100).to_integral_value(ROUND_HALF_EVEN))


def plainly_read() -> tuple[dict[str, tuple[int, int]], Counter[str]]:
    """Customer -> (orders that count, pence), and where the lines of the file went."""
    invoices: dict[str, Invoice] = {}
    seen: set[tuple[Any, ...]] = set()
    lines: Counter[str] = Counter()
    for number, row in enumerate(pq.read_table(DATA / FILE).to_pylist()):
        whole = tuple(row.values())
        if row["CustomerID"] is None:
            lines["no_customer"] += 1
            continue
        if whole in seen:
            lines["duplicate"] += 1
            continue
        seen.add(whole)
        lines["used"] += 1
        at = datetime.strptime(row["InvoiceDate"], "%m/%d/%y %H:%M").replace(tzinfo=LONDON)
        invoice = invoices.setdefault(row["InvoiceNo"], Invoice(str(int(row["CustomerID"])), at, number))
        invoice.at = min(invoice.at, at)
        quantity = abs(row["Quantity"])
        invoice.amounts.append((row["StockCode"], quantity, pence(row["UnitPrice"], quantity)))
        invoice.left[row["StockCode"]] += quantity
    orders: defaultdict[str, list[Invoice]] = defaultdict(list)
    for name, invoice in sorted(invoices.items(), key=lambda item: (item[1].at, item[1].row)):
        if not name.startswith("C"):
            orders[invoice.customer].append(invoice)
            continue
        # Goods taken back are of the customer's latest orders that still hold them (docs/decisions/0010).
        for product, quantity, amount in invoice.amounts:
            for order in reversed(orders[invoice.customer]):
                taken = min(quantity, order.left[product])
                if taken:
                    order.left[product] -= taken
                    order.back += amount * taken // quantity
                    amount -= amount * taken // quantity
                    quantity -= taken
                if not quantity:
                    break
    counted = {}
    for customer, every in orders.items():
        stand = [order for order in every if not (order.total > 0 and order.back >= order.total)]
        counted[customer] = (len(stand), sum(order.total - order.back for order in stand))
    return counted, lines


@pytest.mark.slow
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R14")
@pytest.mark.invariant("R19")
async def test_every_line_of_online_retail_is_accounted_for_and_every_customer_has_his_orders(
    shop: Shop, tmp_path: Path
) -> None:
    wanted, lines = plainly_read()
    async with working(shop), reading(shop) as topics:
        report = await imported(shop, FILE, "online_retail", tmp_path)
        await topics.settled()
        profiles = await everybody(topics)
        log_ms = topics.log_ms

    # Every row is in an event or stands, with its reason, in the file of the rejected.
    tally = report.tally
    assert tally.rows == ROWS == tally.used + tally.rejected.total() == lines.total()
    assert {"used": tally.used, **tally.rejected} == lines
    assert lines["no_customer"] == 67_225
    assert report.rejects is not None
    with report.rejects.open() as rejected:
        reasons = Counter(json.loads(line)["reason"] for line in rejected)
    assert reasons == tally.rejected

    # Every event is on its topic once, and none was refused.
    assert report.complete
    assert report.published == tally.events.total() == len(topics.on[ORDER_EVENTS]) + len(topics.on[CUSTOMER_EVENTS])
    assert (tally.events["order_completed"], topics.on[DEAD_LETTERS]) == (8_590, [])
    assert len({found.json()["message_id"] for found in topics.on[ORDER_EVENTS]}) == len(topics.on[ORDER_EVENTS])

    # Every customer has the orders and the money that the file gives him, to the penny.
    read = {name: shop.rules.readers[name].read for name in ("orders_paid", "revenue")}
    found = {
        address.removeprefix("user:"): tuple(read[name](profile, log_ms)[0] for name in read)
        for address, profile in profiles.items()
    }
    assert [
        (customer, wanted[customer], found[customer]) for customer in wanted if wanted[customer] != found[customer]
    ] == []
    assert len(found) == len(wanted) == 2_974  # 43 of them have credit notes only
    assert sum(orders > 0 for orders, _ in found.values()) == 2_926

    assert misjudged(shop, profiles, log_ms - 1) == []
    assert [topic for topic in shop.topics if topic.startswith("triggers.") and topics.on[topic]] == []
    assert topics.on[SEGMENT_CHANGES] == []
    assert {one["reason"] for one in topics.json(DECISIONS)} <= {"backfill", "cancelled", "re_entry", "no_items"}
