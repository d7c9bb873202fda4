"""New rules on a live base: everybody is in the segments in which he would be, and nobody is written to for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random  # noqa: TID251 - seeded: the same lives every time
from typing import Any, Final

import orjson
import pytest

from profiles.moments import DAY_MS, HOUR_MS, iso
from profiles.state import Profile
from profiles.wire import DECISIONS, ORDER_EVENTS, SEGMENT_CHANGES
from rules.compile import compile_rules
from rules.outcome import Step
from rules.rulebook import Rulebook
from stream import loading
from stream.clock import LogClock
from stream.handlers import Handlers
from stream.ports import ProfileStore, ShardWrite
from stream.replay import Replayed, replayed
from stream.rulebook import IN_FORCE, begin_by, publish, read_generation, stays_in_force, walked
from stream.store import RedisStore
from stream.store_memory import MemoryStore
from tests.stream.shop import START_MS, PowerCut, Shop, until

OLD: Final = """
segments:
  loyal: {trait: orders_paid, gte: 2}
  retired: {trait: orders_paid, gte: 1}
"""
NEW: Final = """
traits:
  spent: {sum: order.total}
segments:
  loyal: {trait: orders_paid, gte: 3}
  lapsed: {trait: last_order_at, older_than: P2D}
  lapsed_well: {all: [{in_segment: lapsed}, {trait: spent, gte: 40}]}
triggers:
  come_back: {class: marketing, on: {segment: lapsed}, steps: [{emit: {template: come_back}}]}
  a_day_after: {class: marketing, on: {date: last_order_at, offset: P1D}, steps: [{emit: {template: a_day_after}}]}
"""


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Of a server, which is started outside of any loop; "" for memory."""
    return request.getfixturevalue("fresh_redis") if request.param == "redis" else ""


@pytest.fixture
async def store(url: str) -> AsyncIterator[ProfileStore]:
    kept = RedisStore(url) if url else MemoryStore(LogClock())
    yield kept
    await kept.close()


@pytest.fixture(params=["memory", "redis"])
async def store_of_two(request: pytest.FixtureRequest) -> AsyncIterator[ProfileStore]:
    kept = RedisStore(request.getfixturevalue("fresh_redis")) if request.param == "redis" else MemoryStore(LogClock())
    yield kept
    await kept.close()


class Heard:
    """What a base that had the rules from the start would have published."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes]] = []

    def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
        self.records += [(one.topic, one.value) for one in out.records]

    def decided(self) -> list[dict[str, Any]]:
        return [orjson.loads(value) for topic, value in self.records if topic == DECISIONS]


def from_the_start(shop: Shop, rulebook: Rulebook) -> Replayed[Heard]:
    return replayed(shop.inputs, rulebook, None, Heard)


async def all_met(shop: Shop, engine: Handlers) -> None:
    """Everybody has met the rules, and all that was said and is due is done."""
    async with asyncio.timeout(60):
        while any(one.is_new or one.place >= 0 or one.number < shop.rules.number for one in await shop.standing()):
            await asyncio.sleep(0.02)
    last_ms = max(one.received_ms for one in shop.inputs())
    await until(lambda: engine.progress().is_settled and engine.progress().alarms_ms >= last_ms)


def decided(shop: Shop) -> list[dict[str, Any]]:
    return [orjson.loads(one) for values in shop.told(DECISIONS).values() for one in values]


@pytest.mark.parametrize(("url", "seed"), [("memory", 1), ("redis", 2)], indirect=["url"])
async def test_the_base_is_as_if_it_had_had_the_rules_from_the_start(store: ProfileStore, seed: int) -> None:
    chance = Random(seed)
    shop = Shop(Rulebook.__new__(Rulebook), store)
    people = [str(number) for number in range(14)]
    said, at_ms = 0, START_MS

    def speak(events: int) -> None:
        nonlocal said, at_ms
        for _ in range(events):
            at_ms += chance.randrange(4 * HOUR_MS)
            who = chance.choice(people)
            if chance.random() < 0.7:
                shop.buys(who, chance.randrange(1, 40), at_ms)
                said += 1
            else:
                shop.looks(who, at_ms)

    await shop.rule(OLD)
    speak(chance.randrange(20, 60))
    async with shop.worker() as engine:
        await all_met(shop, engine)
    switched_ms = at_ms
    before = await shop.profiles()
    await shop.rule(NEW)
    assert await walked(store, 2) == (2, len(before), 0)
    async with shop.worker() as engine:
        speak(chance.randrange(30))  # While the walk is on its way.
        await all_met(shop, engine)
        assert engine.progress().applied[ORDER_EVENTS] == said
    assert {(one.number, one.rules) for one in await shop.standing()} == {(2, shop.rules.hash)}

    assert await walked(store, 2) == (2, len(await shop.profiles()), len(await shop.profiles()))

    wanted, found = from_the_start(shop, shop.rules), await shop.profiles()
    assert found.keys() == wanted.profiles.keys()
    for who, profile in found.items():
        assert profile.members.keys() == wanted.profiles[who].members.keys(), who
        assert profile.timers == wanted.profiles[who].timers, who
    sizes = await store.segment_sizes(["loyal", "lapsed", "lapsed_well", "retired"])
    for name in ("loyal", "lapsed", "lapsed_well"):
        segment = shop.rules.place, next(one.id for one in shop.rules.segments if one.name == name)
        assert sizes[name] == sum(segment[1] in one.members for one in wanted.profiles.values()), name
    assert sizes["retired"] == 0 < len(before)

    # Nobody is written to for what the rules found; what comes later is written as ever.
    sent = {one["decision_id"]: one for one in decided(shop) if one["outcome"] == "emitted"}
    would = {one["decision_id"]: one for one in wanted.heard.decided() if one["outcome"] == "emitted"}
    assert sent.items() <= would.items(), "the same letters, at the same instants"
    assert all(one["at"] > iso(switched_ms) for one in sent.values())
    passed = {one["trigger"] for one in decided(shop) if one["reason"] == "backfill"}
    assert "come_back" in passed
    missing = [one for one in would.values() if one["decision_id"] not in sent]
    assert missing
    assert all(one["at"] <= iso(at_ms) for one in missing)


@pytest.mark.mechanic("M5")
@pytest.mark.invariant("R14")
@pytest.mark.parametrize(
    ("url", "seed"), [(kind, seed) for kind in ("memory", "redis") for seed in range(4)], indirect=["url"]
)
async def test_rules_change_under_a_running_engine_that_may_die_at_any_moment(store: ProfileStore, seed: int) -> None:
    chance = Random(seed)
    shop = Shop(compile_rules([("0", OLD)]), store)
    at_ms = START_MS

    async def speak(events: int) -> None:
        nonlocal at_ms
        for _ in range(events):
            at_ms += chance.randrange(4 * HOUR_MS)
            shop.buys(str(chance.randrange(14)), chance.randrange(1, 40), at_ms)
            await asyncio.sleep(chance.choice((0, 0, 0.002)))

    await shop.rule(OLD)
    older = shop.rules
    async with shop.worker() as engine:
        await speak(40)
        await all_met(shop, engine)
        switched_ms = at_ms
        await shop.rule(NEW)
        speaking = asyncio.create_task(speak(30))
        await asyncio.sleep(chance.random() / 20)
        await engine.go_by(shop.rules)
        if seed % 2:
            await asyncio.sleep(chance.random() / 20)
            raise PowerCut
        await speaking
        await all_met(shop, engine)
        await speak(40)  # Days in which letters fall due for whom the rules are no news any more.
        await all_met(shop, engine)
    await speaking
    if seed % 2:
        newer, shop.rules = shop.rules, older
        async with shop.worker() as engine:  # One that has not looked yet, and looks a moment later.
            await speak(10)
            await engine.go_by(newer)
            shop.rules = newer
            await all_met(shop, engine)
            await speak(40)
            await all_met(shop, engine)
    assert {(one.number, one.rules) for one in await shop.standing()} == {(2, shop.rules.hash)}

    wanted, found = from_the_start(shop, shop.rules), await shop.profiles()
    assert found.keys() == wanted.profiles.keys()
    for who, profile in found.items():
        assert profile.members.keys() == wanted.profiles[who].members.keys(), who
        assert profile.timers == wanted.profiles[who].timers, who
    assert (await store.segment_sizes(["retired"]))["retired"] == 0
    sent = {one["decision_id"]: one for one in decided(shop) if one["outcome"] == "emitted"}
    would = {one["decision_id"]: one for one in wanted.heard.decided() if one["outcome"] == "emitted"}
    assert sent.items() <= would.items(), "the same letters, at the same instants"
    assert sent
    assert all(one["at"] > iso(switched_ms) for one in sent.values())
    assert len(sent) == sum(one["outcome"] == "emitted" for one in decided(shop)), "each once, or in the same words"


class Slow(MemoryStore):
    """One that is slow to write a newcomer: it answers first whom it knows."""

    def __init__(self) -> None:
        super().__init__(LogClock())
        self.newcomer = ""
        self.writes, self.named_any = asyncio.Event(), asyncio.Event()

    async def commit(self, writes: Sequence[ShardWrite]) -> list[int]:
        if any(self.newcomer in one.new_names for one in writes):
            self.writes.set()
            async with asyncio.timeout(60):
                await self.named_any.wait()
        return await super().commit(writes)

    async def named(self, shard: int, first: int, limit: int) -> list[str]:
        found = await super().named(shard, first, limit)
        if self.writes.is_set():
            self.named_any.set()
        return found


@pytest.mark.invariant("R14")
async def test_who_is_still_being_written_when_the_rules_change_meets_the_new_ones() -> None:
    store = Slow()
    shop = Shop(compile_rules([("0", OLD)]), store)
    await shop.rule(OLD)
    async with shop.worker() as engine:
        for who in range(14):  # In both partitions somebody, so that their clocks have begun.
            shop.buys(str(who), 10, START_MS)
        await all_met(shop, engine)
        store.newcomer = "user:99"
        shop.buys("99", 10, START_MS + HOUR_MS)
        await asyncio.wait_for(store.writes.wait(), 60)
        await shop.rule(NEW)
        await engine.go_by(shop.rules)
        await all_met(shop, engine)
    wanted, found = from_the_start(shop, shop.rules), await shop.profiles()
    assert found["user:99"].members.keys() == wanted.profiles["user:99"].members.keys()
    assert found["user:99"].timers == wanted.profiles["user:99"].timers
    assert (await store.segment_sizes(["retired"]))["retired"] == 0


async def test_of_two_who_publish_at_once_each_has_a_number_and_the_later_stays(store_of_two: ProfileStore) -> None:
    texts = [OLD, NEW]
    made = await asyncio.gather(*(publish(store_of_two, compile_rules([("0", one)]), [("0", one)]) for one in texts))
    assert sorted(one.rulebook.number for one in made) == [1, 2]
    last = max(made, key=lambda one: one.rulebook.number)
    assert await store_of_two.get_doc(IN_FORCE) == last.value
    (again,) = [read_generation(last.value)]
    assert (again.rulebook.hash, again.rulebook.gone) == (last.rulebook.hash, last.rulebook.gone)


async def test_a_folder_of_before_is_none_that_is_new() -> None:
    store = MemoryStore(LogClock())

    async def begun(text: str) -> tuple[int, bool]:
        book = compile_rules([("0", text)])
        going = await begin_by(store, book, [("0", text)])
        return going.rulebook.number, going.is_of(book.hash)

    assert await begun(OLD) == (1, True)
    assert await begun(NEW) == (2, True), "a worker that starts with others brings them"
    assert await begun(OLD) == (2, False), "one of before that comes back goes by the newest"
    assert await begun(NEW) == (2, True)
    back = await publish(store, compile_rules([("0", OLD)]), [("0", OLD)], by_hand=True)
    assert back.rulebook.number == 3, "who wants those of before publishes them"
    assert await begun(OLD) == (3, True)
    assert await begun(NEW) == (3, False)
    other = OLD.replace("gte: 1", "gte: 7")
    assert await begun(other) == (3, False), "once they are published by hand, folders count no more"
    assert await stays_in_force(store, compile_rules([("0", other)])) is not None


async def test_a_number_is_never_given_twice_though_the_store_forgets_a_generation() -> None:
    shop = Shop(compile_rules([("0", OLD)]))
    shop.buys("1", 5, START_MS)
    await shop.rule(OLD)
    forgotten = await shop.store.get_doc(IN_FORCE)
    assert forgotten is not None
    await shop.rule(NEW)
    async with shop.worker() as engine:
        await all_met(shop, engine)
    await shop.store.put_doc(IN_FORCE, forgotten)
    await shop.rule(OLD.replace("gte: 1", "gte: 7"))
    assert shop.rules.number == 3
    async with shop.worker() as engine:
        await all_met(shop, engine)
    assert (await walked(shop.store, 3)).met == 1


async def test_a_successor_goes_on_with_the_walk_and_one_of_older_rules_undoes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop(compile_rules([("0", OLD)]))
    for number in range(60):
        shop.buys(str(number), number + 1, START_MS + number)
    shop.looks("0", START_MS + 3 * DAY_MS)
    await shop.rule(OLD)
    older = shop.rules
    async with shop.worker() as engine:
        await all_met(shop, engine)
    await shop.rule(NEW)
    newer = shop.rules
    monkeypatch.setattr(loading, "PAGE", 1)
    async with shop.worker() as engine, asyncio.timeout(60):
        while not 10 <= (await walked(shop.store, 2)).met < 50:
            await asyncio.sleep(0.02)
    met = (await walked(shop.store, 2)).met
    assert 10 <= met < 60
    monkeypatch.setattr(loading, "PAGE", 200)
    async with shop.worker() as engine:
        await all_met(shop, engine)
    entered = shop.told(SEGMENT_CHANGES)
    assert (await shop.store.segment_sizes(["lapsed"]))["lapsed"] == 60
    assert sum(b'"lapsed"' in one for told in entered.values() for one in told) == 60, "each was told of once"

    shop.rules = older  # A worker that has not been begun anew yet gets everything for a while.
    shop.buys("1", 5, START_MS + 4 * DAY_MS)
    async with shop.worker() as engine:
        await until(lambda: engine.progress().applied[ORDER_EVENTS] == 61)
        await until(lambda: engine.progress().is_settled)
    assert (await walked(shop.store, 2)).met == 0
    shop.rules = newer
    async with shop.worker() as engine:
        await all_met(shop, engine)
    assert (await shop.store.segment_sizes(["lapsed"]))["lapsed"] == 59
    wanted = from_the_start(shop, newer)
    assert {who: one.members.keys() for who, one in (await shop.profiles()).items()} == {
        who: one.members.keys() for who, one in wanted.profiles.items()
    }


async def test_the_same_rules_again_are_no_new_generation() -> None:
    shop = Shop(compile_rules([("0", OLD)]))
    shop.buys("1", 5, START_MS)
    for number in (1, 1, 2, 2, 3):
        await shop.rule(OLD if number in (1, 3) else NEW)
        assert (shop.rules.number, shop.rules.gone) == (
            number,
            {1: (), 2: ("retired",), 3: ("lapsed", "lapsed_well")}[number],
        )


@pytest.mark.mechanic("M5")
async def test_who_is_found_in_a_segment_is_written_to_once_if_that_is_asked_for() -> None:
    shop = Shop(compile_rules([("0", OLD)]))
    for number in range(6):
        for times in range(1 + number % 2):
            shop.buys(str(number), 10, START_MS + 10 * number + times)
    await shop.rule(OLD)
    async with shop.worker() as engine:
        await all_met(shop, engine)
    steps = "steps: [{emit: {template: hello}}]"
    asked = f"""
{OLD}  new: {{trait: orders_paid, gte: 2}}
triggers:
  of_old: {{class: transactional, on: {{segment: loyal, already: true}}, {steps}}}
  of_new: {{class: transactional, on: {{segment: new, already: true}}, {steps}}}
  silent: {{class: transactional, on: {{segment: new}}, {steps}}}
"""
    await shop.rule(asked)
    async with shop.worker() as engine:
        await all_met(shop, engine)
    await shop.rule(asked + "  later: {class: transactional, on: {event: page_viewed}, steps: [{emit: x}]}\n")
    async with shop.worker() as engine:
        shop.buys("0", 10, START_MS + DAY_MS)  # He comes by himself.
        await all_met(shop, engine)
    sent = [(one["trigger"], one["address"]) for one in decided(shop) if one["outcome"] == "emitted"]
    found = [f"user:{number}" for number in (1, 3, 5)]
    assert sorted(sent) == sorted(
        [(trigger, who) for trigger in ("of_old", "of_new") for who in ("user:0", *found)] + [("silent", "user:0")]
    )
    assert {(one["trigger"], one["address"]) for one in decided(shop) if one["reason"] == "backfill"} == {
        ("silent", who) for who in found
    }
