"""CDNOW end to end: a file through its mapping, the topics, a worker on the log's clock and Redis, and out comes the
published RFM summary of all 2,357 customers, number by number, at both dates.

The reference tables were computed with ``lifetimes`` (tests/data/README.md): ``frequency`` different purchase days after
the first, ``recency`` first to last purchase day, ``T`` first purchase day to the date, ``monetary_value`` mean of the
daily totals without the first day.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from profiles.moments import DAY_MS, Duration, parse_instant
from profiles.state import Profile
from profiles.wire import DEAD_LETTERS, DECISIONS, SEGMENT_CHANGES, TRAIT_CHANGES
from tests.conftest import Installation
from tests.integration.history import DATA, everybody, imported, misjudged
from tests.integration.parts import Shop, opened, reading, working

CUSTOMERS = 2_357


@pytest.fixture
def shop(installation: Installation) -> Shop:
    return asyncio.run(opened(installation, clock="log"))


def reference(date: str) -> Iterator[dict[str, str]]:
    with gzip.open(DATA / f"cdnow_sample_rfm_{date}.csv.gz", "rt") as file:
        yield from csv.DictReader(file)


def differences(shop: Shop, profiles: dict[str, Profile], date: str) -> list[tuple[str, str, Any, Any]]:
    """(customer, trait, wanted, found) wherever a profile differs from the published table at the end of a day."""
    end_ms = parse_instant(date) + DAY_MS - 1
    read = {name: reader.read for name, reader in shop.rules.readers.items()}
    found = []
    for row in reference(date):
        profile = profiles[f"user:{row['customer_id']}"]
        value = {
            name: read[name](profile, end_ms)[0]
            for name in (
                "purchases.frequency",
                "purchases.recency_days",
                "purchases.age_days",
                "purchases.monetary",
                "purchases.silent_days",
                "orders_paid",
                "revenue",
            )
        }
        # The table's mean is a float; times the days it is a sum of cents again, exactly.
        repeats = int(row["frequency"])
        mean = Decimal(row["monetary_value"])
        wanted = {
            "purchases.frequency": repeats,
            "purchases.recency_days": int(row["recency"]),
            "purchases.age_days": int(row["T"]),
            "purchases.monetary": Fraction(round(mean * repeats * 100), repeats) if repeats else 0,
            "purchases.silent_days": int(row["recency_from_end_days"]),
            "orders_paid": int(row["lines"]),
            "revenue": round(Decimal(row["revenue"]) * 100),
        }
        found += [
            (row["customer_id"], name, wanted[name], value[name]) for name in value if wanted[name] != value[name]
        ]
    return found


def purchases() -> dict[str, list[tuple[int, Decimal]]]:
    """Customer -> (instant, dollars) of each purchase, ascending: the file read plainly."""
    found: defaultdict[str, list[tuple[int, Decimal]]] = defaultdict(list)
    for line in (DATA / "CDNOW_sample.txt").read_text().splitlines():
        _, customer, date, _, dollars = line.split()
        found[customer].append((parse_instant(date), Decimal(dollars)))
    return {customer: sorted(bought) for customer, bought in found.items()}


def cells(now_ms: int) -> dict[str, int | None]:
    """The RFM cell of each customer by the thresholds of the shop pack, over the year before ``now_ms``."""
    begin_ms = Duration(months=-12).after(now_ms, UTC)
    found: dict[str, int | None] = {}
    for customer, bought in purchases().items():
        year = [(at_ms, dollars) for at_ms, dollars in bought if at_ms > begin_ms]
        if not year:
            found[customer] = None
            continue
        age_ms, spent = now_ms - year[-1][0], sum(dollars for _, dollars in year)
        recency = 1 + sum(age_ms < days * DAY_MS for days in (30, 60, 120, 240))
        frequency = 1 + sum(len(year) >= least for least in (2, 3, 5, 8))
        monetary = 1 + sum(spent >= least for least in (50, 150, 400, 1000))
        found[customer] = 100 * recency + 10 * frequency + monetary
    return found


def lapses(until_ms: int) -> int:
    """How often three calendar months passed after a purchase without another, told from the file alone."""
    days = [sorted({at_ms for at_ms, _ in bought}) for bought in purchases().values()]
    silence = Duration(months=3)
    return sum(
        silence.after(day, UTC) < following for bought in days for day, following in pairwise([*bought, until_ms])
    )


@pytest.mark.mechanic("M13")
@pytest.mark.invariant("R14")
@pytest.mark.invariant("R18")
@pytest.mark.invariant("R19")
async def test_the_rfm_of_all_cdnow_customers_is_the_published_one_at_both_dates(shop: Shop, tmp_path: Path) -> None:
    async with working(shop), reading(shop) as topics:
        first = await imported(shop, "CDNOW_sample.txt", "cdnow", tmp_path, until="1997-10-01")
        assert (first.published, first.complete) == (4_960, False)
        await topics.settled()
        profiles = await everybody(topics)
        assert len(profiles) == CUSTOMERS
        assert differences(shop, profiles, "19970930") == []
        # What is due before the newest record has happened, and nothing that is due later has.
        assert misjudged(shop, profiles, topics.log_ms - 1) == []

        second = await imported(shop, "CDNOW_sample.txt", "cdnow", tmp_path)
        assert (second.resumed_at, second.published, second.complete) == (4_960, 6_919 - 4_960, True)
        assert (second.tally.rows, second.tally.used, second.tally.rejected) == (6_919, 6_919, Counter())
        await topics.settled()
        profiles = await everybody(topics)
        assert len(profiles) == CUSTOMERS
        assert differences(shop, profiles, "19980630") == []
        assert misjudged(shop, profiles, topics.log_ms - 1) == []

        # Members, as the indexes tell them.
        sizes = await topics.store.segment_sizes([segment.name for segment in shop.rules.segments])
        assert sizes == {
            segment.name: sum(segment.id in profile.members for profile in profiles.values())
            for segment in shop.rules.segments
        }
        assert sizes["buyers"] == CUSTOMERS
        scored = {
            address.removeprefix("user:"): shop.rules.readers["rfm.cell"].read(profile, topics.log_ms)[0]
            for address, profile in profiles.items()
        }
        assert scored == cells(topics.log_ms)

        # History changes state and tells nobody; what it would have told is written down.
        told = [
            topic for topic in shop.topics if topic.startswith("triggers.") or topic in (SEGMENT_CHANGES, TRAIT_CHANGES)
        ]
        assert {topic: len(topics.on[topic]) for topic in told} == dict.fromkeys(told, 0)
        assert topics.on[DEAD_LETTERS] == []
        decisions = topics.json(DECISIONS)
        assert {one["outcome"] for one in decisions} == {"suppressed"}
        reasons = Counter((one["trigger"], one["reason"]) for one in decisions)
        assert {reason for (_, reason) in reasons} <= {"backfill", "cancelled"}
        assert reasons["lapsed_buyer", "backfill"] == lapses(topics.log_ms) > 3_000
        assert len({one["decision_id"] for one in decisions}) == len(decisions)
