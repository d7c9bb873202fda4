"""What a new rule has kept and nobody kept before is computed back from the log, while events go on."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded: the same lives every time
from typing import Final

import msgpack
import orjson
import pytest

from profiles.errors import BadInput
from profiles.moments import HOUR_MS, iso
from profiles.wire import DECISIONS, Event, Record, encode_event
from rules.compile import compile_rules
from rules.engine import filled, step
from rules.persons import read_statistics
from rules.rulebook import Rulebook
from stream.fill import Filling, Found
from stream.ports import ProfileStore
from stream.rulebook import complete
from tests.stream.shop import START_MS, Shop
from tests.stream.test_new_rules import all_met, decided, from_the_start, store, url

__all__ = ["store", "url"]
OLD: Final = "segments: {loyal: {trait: orders_paid, gte: 2}}"
NEW: Final = """
traits:
  seen_products: {distinct: product_viewed.product_id, window: {within: P7D}}
segments:
  loyal: {trait: orders_paid, gte: 2}
  lookers: {did: product_viewed, window: {within: P5D}, times: {gte: 3}}
  curious: {trait: seen_products, gte: 2}
  cold: {did_not: product_viewed, window: {within: P3D}}
  visits: {did: session_ended, times: {gte: 2}}
triggers:
  looked_on: {class: marketing, on: {segment: lookers}, steps: [{emit: {template: looked_on}}]}
"""


def sees(shop: Shop, who: str, product: str, at_ms: int) -> None:
    shop.sent += 1
    props = {"items": [{"product_id": product, "quantity": 1}]}
    event = Event(f"v{shop.sent}", "shop", "product_viewed", at_ms, at_ms, f"user:{who}", props=props)
    shop.log.append(Record("page_views", event.address, encode_event(event)))


@pytest.mark.invariant("R14")
@pytest.mark.parametrize(("url", "seed"), [("memory", 1), ("redis", 2)], indirect=["url"])
async def test_statistics_that_nobody_kept_are_those_of_a_base_that_always_kept_them(
    store: ProfileStore, seed: int
) -> None:
    chance = Random(seed)
    shop = Shop(Rulebook.__new__(Rulebook), store)
    at_ms = START_MS

    def speak(events: int) -> None:
        nonlocal at_ms
        for _ in range(events):
            at_ms += chance.randrange(2 * HOUR_MS)
            who = str(chance.randrange(12))
            if chance.random() < 0.3:
                shop.buys(who, chance.randrange(1, 40), at_ms)
            else:
                sees(shop, who, chance.choice("abc"), at_ms)

    await shop.rule(OLD)
    speak(90)
    async with shop.worker() as engine:
        await all_met(shop, engine)
    await shop.rule(NEW)
    switched_ms = at_ms
    assert (len(shop.rules.lacking), shop.rules.incomplete()) == (4, ["cold", "curious", "lookers", "visits"])
    async with shop.worker() as engine:
        await all_met(shop, engine)
        before = {who: one.members.keys() for who, one in (await shop.profiles()).items()}
        wanted = from_the_start(shop, shop.rules)
        assert before != {who: one.members.keys() for who, one in wanted.profiles.items()}, "there is something to fill"
        filling, taken = Filling(shop.rules), 0
        rounds: list[Found] = []
        while not rounds or rounds[-1].sent or rounds[-1].behind:
            inputs = shop.inputs()
            taken += filling.take(inputs[taken:])
            if len(rounds) < 3:
                speak(5)  # Life goes on: taken before the look, or between the look and what comes of it.
            if not rounds:
                await all_met(shop, engine)
            rounds.append(await filling.look(store, shop.log.publish, inputs[-1].received_ms, rest_s=0))
            await all_met(shop, engine)
            assert len(rounds) < 12
        await complete(store, shop.rules.lacking)
    assert rounds[0].sent > 0 < rounds[0].behind
    assert rounds[-1] == Found(12, 0, 0)

    wanted, found = from_the_start(shop, shop.rules), await shop.profiles()
    kept = [one.id for one in shop.rules.aggregates]
    for who, profile in found.items():
        assert msgpack.packb([profile.aggs.get(one) for one in kept]) == msgpack.packb(
            [wanted.profiles[who].aggs.get(one) for one in kept]
        ), who
        assert profile.members.keys() == wanted.profiles[who].members.keys(), who
        assert profile.timers == wanted.profiles[who].timers, who
    would = {one["decision_id"]: one for one in wanted.heard.decided() if one["outcome"] == "emitted"}
    sent = {one["decision_id"]: one for one in decided(shop) if one["outcome"] == "emitted"}
    assert sent.items() <= would.items()
    assert all(one["at"] > iso(switched_ms) for one in sent.values())

    await shop.rule(NEW)
    assert (shop.rules.number, shop.rules.lacking) == (2, ()), "the same rules again lack nothing"


async def test_only_who_is_still_at_that_input_takes_them() -> None:
    shop = Shop(compile_rules([("0", NEW)]))
    for number in range(3):
        sees(shop, "1", "a", START_MS + number)
    wanted = from_the_start(shop, shop.rules).profiles["user:1"]
    ids = [one.id for one in shop.rules.aggregates]
    at_ms = START_MS + HOUR_MS // 4
    told = filled(wanted, ids, at_ms)
    told.seen_ms = at_ms

    short = from_the_start(shop, shop.rules).profiles["user:1"]
    short.aggs.clear()
    short.members.clear()
    out = step(short, told, shop.rules)
    assert (out.outcome, out.members) == ("applied", [("lookers", True)])
    assert short.aggs == wanted.aggs
    assert [orjson.loads(one.value)["reason"] for one in out.records if one.topic == DECISIONS] == ["backfill"]

    sees(shop, "1", "b", START_MS + 5)
    later = from_the_start(shop, shop.rules).profiles["user:1"]
    before = dict(later.aggs)
    assert step(later, told, shop.rules).outcome == "refused"
    assert later.aggs == before


@pytest.mark.parametrize("body", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"a": 1})])
def test_statistics_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(BadInput, match="a map by their numbers"):
        read_statistics(body)
