"""Facts through the engine: one worker looks the base over, every shard knows at its place in the log, every profile meets."""

from __future__ import annotations

import asyncio
from typing import Final

import msgpack
import pytest

from profiles.moments import DAY_MS, HOUR_MS, parse_instant
from profiles.state import Profile
from profiles.wire import (
    ORDER_EVENTS,
    SEGMENT_CHANGES,
    TRAIT_CHANGES,
)
from rules.compile import compile_rules
from rules.outcome import Step
from stream import facts
from stream.facts import SCAN, Met, Standing, is_due, next_ms, read_told, told
from stream.replay import replayed
from tests.stream.shop import PARTITIONS, START_MS, Shop, until

RULES: Final = """
traits:
  spent: {sum: order.total}
  tier: {tiers: spent, by: quantile, cuts: [0.5], labels: [low, high], publish: true}
segments:
  top: {trait: tier, eq: high}
  lapsed: {trait: last_order_at, older_than: P1D}
"""


async def met_all(shop: Shop, number: int) -> None:
    """Every shard knows these facts, and its walk is round."""
    async with asyncio.timeout(120):
        while True:
            found = await shop.standing()
            if all(one.known and one.known[-1].number == number and one.place < 0 for one in found):
                return
            await asyncio.sleep(0.05)


@pytest.mark.mechanic("M30")
@pytest.mark.invariant("R13")
async def test_the_base_is_looked_over_and_everybody_meets_what_was_found_and_a_replay_finds_the_same() -> None:
    shop = Shop(compile_rules([("rules", RULES)]))
    for number in range(40):
        shop.buys(str(number), number + 1, START_MS + number)
    async with shop.worker() as engine:
        await met_all(shop, 1)
        await until(lambda: engine.progress().is_settled)
        assert await shop.store.segment_sizes(["top"]) == {"top": 20}
        # Nobody but who comes again is loaded by an event; the others have met by the walk.
        shop.buys("0", 100, START_MS + HOUR_MS)
        shop.looks("new", START_MS + HOUR_MS)
        # A day later the base is looked over again.
        shop.looks("1", START_MS + DAY_MS)
        await met_all(shop, 2)
        await until(lambda: engine.progress().is_settled)
    first, second = {one.body for one in shop.commands() if one.link[0] == 1}, shop.commands()
    assert len(first) == 1
    assert len(second) == 2 * PARTITIONS
    values = msgpack.unpackb(next(iter(first)))["values"]["trait:spent"][""]
    assert (values["n"], values["1/2"]) == (40, 2000 * 64), "the customer in the middle"
    profiles = await shop.profiles()
    assert {one.swept for one in profiles.values()} == {2}

    class Heard:
        def __init__(self) -> None:
            self.records: dict[str, dict[str, list[bytes]]] = {}

        def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
            for one in out.records:
                self.records.setdefault(one.topic, {}).setdefault(one.key, []).append(one.value)

    again = replayed(shop.inputs, shop.rules, None, Heard)
    for topic in (SEGMENT_CHANGES, TRAIT_CHANGES):
        assert shop.told(topic) == again.heard.records[topic], topic
    assert {one: again.profiles[one].members.keys() for one in profiles} == {
        one: profile.members.keys() for one, profile in profiles.items()
    }


async def test_a_scan_goes_on_where_the_worker_before_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(compile_rules([("rules", RULES)]))
    for number in range(60):
        shop.buys(str(number), number + 1, START_MS + number)
    monkeypatch.setattr(facts, "REST", 1)
    monkeypatch.setattr(facts, "PAGE", 1)

    async def so_far() -> tuple[int, int]:
        kept = await shop.store.get_doc(SCAN)
        state = msgpack.unpackb(kept, strict_map_key=False) if kept else None
        return (state["shard"], state["scan"]["profiles"]) if state is not None else (0, 0)

    async with shop.worker() as engine:
        await until(lambda: engine.progress().applied[ORDER_EVENTS] == 60)
        async with asyncio.timeout(120):
            while (await so_far())[1] < 10:
                await asyncio.sleep(0.02)
    shard, looked_at = await so_far()
    assert looked_at >= 10
    assert not shop.commands()
    monkeypatch.setattr(facts, "PAGE", 200)
    asked: list[int] = []
    named = shop.store.named

    async def noting(number: int, first: int, limit: int) -> list[str]:
        asked.append(number)
        return await named(number, first, limit)

    monkeypatch.setattr(shop.store, "named", noting)
    async with shop.worker():
        await until(lambda: bool(shop.commands()))
    # Who was looked at before is not looked at again, and counts all the same. (What is asked later is the walks'.)
    assert asked[0] >= shard
    assert msgpack.unpackb(shop.commands()[0].body)["values"]["trait:spent"][""]["n"] == 60


async def test_a_successor_knows_the_facts_of_its_shards_and_goes_on_with_their_walks() -> None:
    shop = Shop(compile_rules([("rules", RULES)]))
    for number in range(20):
        shop.buys(str(number), number + 1, START_MS + number)
    async with shop.worker() as engine:
        await until(lambda: bool(engine._owned.shards) and engine._owned.shards[0].newest == 1)
    async with shop.worker() as engine:
        await met_all(shop, 1)
        shop.buys("0", 500, START_MS + HOUR_MS)
        await until(lambda: engine.progress().applied[ORDER_EVENTS] == 21)
        await until(lambda: engine.progress().is_settled)
    assert await shop.store.segment_sizes(["top"]) == {"top": 11}


async def test_rules_that_need_no_facts_have_the_base_never_looked_over() -> None:
    shop = Shop(compile_rules([("rules", "segments: {buyers: {did: order}}")]))
    shop.buys("1", 1, START_MS)
    async with shop.worker() as engine:
        await until(lambda: engine.progress().applied[ORDER_EVENTS] == 1)
        for _ in range(10):
            await asyncio.sleep(0.05)
    assert await shop.store.get_doc(SCAN) is None
    assert not shop.commands()
    assert {one.known for one in await shop.standing()} == {()}


def test_what_a_shard_says_of_its_facts_is_read_again() -> None:
    known = (Met(1, 5, "ab", False), Met(2, 9, "cd", True))
    for one in (
        Standing("rules", 3, True, 400, known),
        Standing("rules", 3),
        Standing("rules", 0, False, -1, known),
        Standing(),
    ):
        assert read_told(told(one)) == one
    assert told(Standing("rules")) == "rules"
    assert read_told('rules [400,[1,5,"ab",false]]') == Standing("rules", 0, False, 400, known[:1]), (
        "before rules had numbers"
    )


def test_the_base_is_looked_over_at_four_in_the_shops_morning() -> None:
    book = compile_rules([("rules", RULES)], zone="Europe/Berlin")
    assert next_ms(parse_instant("2026-03-28T02:00:00Z"), book.zone) == parse_instant("2026-03-28T03:00:00Z")
    assert next_ms(parse_instant("2026-03-28T03:00:00Z"), book.zone) == parse_instant("2026-03-29T02:00:00Z")
    assert is_due(None, book, 0)
