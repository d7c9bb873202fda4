"""``opportune backtest`` over the topics: the log is read in the workers' order, and comes out as they told it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

import stream.settings
from opportune.backtest import Asked, compare, kept_in, run, shadow
from profiles.wire import DECISIONS, SEGMENT_CHANGES, trigger_topic
from stream.history import History
from stream.rulebook import PACKS
from tests.conftest import Installation
from tests.integration.live import live
from tests.integration.parts import Shop, append, as_record, opened, producing, reading, working

SILENT = Console(quiet=True)


@pytest.fixture
def shop(installation: Installation) -> Shop:
    return asyncio.run(opened(installation, clock="log"))


@pytest.mark.mechanic("D6")
async def test_rules_in_the_shadow_follow_the_log_and_say_what_a_look_at_all_of_it_says(
    shop: Shop, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    for page in (PACKS / "shop").glob("*.yaml"):
        text = page.read_text().replace("  buyers:", "  seen: {did: product_viewed}\n  buyers:")
        (newer / page.name).write_text(text.replace("reaches_age: P3M}", "reaches_age: P1M}"))
    first, second, *later = live(5, events=600, customers=40, portions=2)
    parts = [[*first.flow, *first.close], [*second.flow, *second.close], [*later[0].flow, *later[1].flow]]
    asked, old = Asked(rules=newer), PACKS / "shop"
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    async with producing(shop) as producer:

        async def tell_more() -> None:
            await append(shop, producer, [as_record(event) for event in parts.pop(0)])

        def look(difference: dict[str, Any]) -> bool:
            # When the broker tells of new records is its business: the next part comes when the last one is seen.
            is_new = bool(parts) and (not told or difference != told[-1])
            told.append(difference)
            if is_new:
                asyncio.run_coroutine_threadsafe(tell_more(), loop).result(60)
            return bool(difference["triggers"]["lapsed_buyer"]["new"] == 0)

        await tell_more()
        await asyncio.to_thread(shadow, asked, old, shop.env, 1.0, look)
        assert told[-1] == await asyncio.to_thread(compare, asked, old, shop.env, SILENT)
    assert told[0]["segments"]["seen"]["new"] < told[-1]["segments"]["seen"]["new"]
    assert told[-1]["triggers"]["lapsed_buyer"]["gained"]["count"] > 0


@pytest.mark.mechanic("D2")
@pytest.mark.mechanic("D6")
async def test_the_log_run_again_says_what_the_worker_said(shop: Shop, tmp_path: Path) -> None:
    [portion, *later] = live(11, events=1_500, customers=80, portions=1)
    newer = tmp_path / "newer"
    newer.mkdir()
    for page in (PACKS / "shop").glob("*.yaml"):
        text = page.read_text().replace("  buyers:", "  seen: {did: product_viewed}\n  buyers:")
        (newer / page.name).write_text(text)
    records = [as_record(event) for event in (*portion.flow, *portion.close, *later[0].flow, *later[1].flow)]
    async with producing(shop) as producer, reading(shop) as topics:
        # All of it lies there before anybody reads: what a worker meets behind its time, a replay meets in order.
        await append(shop, producer, records)
        async with working(shop):
            await topics.settled()
        wanted: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        for topic in (SEGMENT_CHANGES, DECISIONS, *map(trigger_topic, shop.rules.triggers)):
            for found in topics.on[topic]:
                assert found.key is not None
                wanted[topic, found.key.decode()].append(orjson.dumps(found.json()))
        # Another version of the rules beside the worker: nothing of it is written anywhere (D6).
        before = sum(map(len, topics.on.values()))
        changes = await asyncio.to_thread(compare, Asked(rules=newer), PACKS / "shop", shop.env, SILENT)
        await topics.read()
        assert sum(map(len, topics.on.values())) == before
        assert changes["segments"]["seen"]["gained"]["count"] > 50

    path = tmp_path / "records.jsonl"

    def again() -> int:
        with kept_in(path) as keep:
            _, result, _ = run(Asked(), shop.env, SILENT, keep)
        return result.inputs

    assert await asyncio.to_thread(again) == len(records)
    told: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    for line in path.read_bytes().splitlines():
        one = orjson.loads(line)
        told[one["topic"], one["key"]].append(orjson.dumps(one["value"]))
    assert told == wanted
    assert sum(map(len, told.values())) > 500

    def counted() -> tuple[int, int, int]:
        agreed, own = stream.settings.read(shop.env)
        with History(own, agreed.partitions) as history:
            return sum(1 for _ in history.read()), sum(1 for _ in history.read()), history.malformed

    # It can be read again from the beginning. What the addresses told one another lies there, too, and is left out.
    assert await asyncio.to_thread(counted) == (len(records), len(records), 0)
