"""``opportune rules publish``: a shop goes on, its workers run, and other rules come into force under them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from profiles.errors import BadDocument
from profiles.ids import SHARDS
from profiles.taxonomy import canonical, resolve
from profiles.wire import CUSTOMER_EVENTS, DECISIONS, Event, Record, trigger_topic
from stream.app import Fault
from stream.clock import wall_ms
from stream.rulebook import IN_FORCE, read_generation
from stream.settings import read
from stream.store import RedisStore
from stream.worker import LiveWorker
from tests.conftest import Installation
from tests.integration.parts import ROOT, Shop, append, as_record, opened, processes, producing, reading, until, working

OLD: Final = """
segments:
  loyal: {trait: orders_paid, gte: 3}
triggers:
  bought: {class: transactional, on: {event: order_completed}, steps: [{emit: thanks}]}
"""
NEW: Final = OLD.replace(
    "triggers:",
    """  twice: {trait: orders_paid, gte: 2}
triggers:
  found: {class: transactional, on: {segment: twice, already: true}, steps: [{emit: found}]}
  silent: {class: transactional, on: {segment: twice}, steps: [{emit: silent}]}""",
)
BAD: Final = OLD.replace("gte: 3", "gtee: 3").replace("event: order_completed", "event: order_complete")
PEOPLE: Final = 300
"""Of before, of whom every third has bought once, twice, three times."""
NEWCOMERS: Final = 60
"""Who buy twice while the rules change."""


def order(who: str, number: int) -> Record:
    now_ms = wall_ms()
    item = {"product_id": "p-1", "price": 5, "quantity": 1, "currency": "USD"}
    props = {"order_id": f"{who}-{number}", "total": 5, "currency": "USD", "products": [item]}
    given = canonical(resolve("Order Completed"), props)
    return as_record(Event(f"{who}-{number}", "shop", "order_completed", now_ms, now_ms, f"user:{who}", (), given))


async def opportune(shop: Shop, *words: str) -> tuple[int, str]:
    """The command, as people call it: its exit code, and what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "opportune",
        *words,
        cwd=ROOT,
        env={**environment, **shop.env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def sizes(store: RedisStore, **wanted: int) -> None:
    async def are() -> bool:
        return await store.segment_sizes(list(wanted)) == wanted

    await until(are, what=f"segments of {wanted}", within_s=60)


async def buying(shop: Shop, producer: AIOKafkaProducer, over: asyncio.Event) -> int:
    """Newcomers buy twice each, and somebody looks round, until it is over; how many came."""
    came = 0
    while came < NEWCOMERS or not over.is_set():
        who = f"new-{came}"
        looks = Event(f"look-{came}", "shop", "identified", wall_ms(), wall_ms(), f"user:{who}")
        assert resolve("identified").topic == CUSTOMER_EVENTS
        await append(shop, producer, [as_record(looks), order(who, 1), order(who, 2)])
        came += 1
        await asyncio.sleep(0.02)
    return came


@pytest.mark.slow
@pytest.mark.mechanic("M5")
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R14")
async def test_new_rules_come_into_force_under_two_workers_that_run(installation: Installation, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("old", "new", "bad")}
    for (name, folder), text in zip(folders.items(), (OLD, NEW, BAD), strict=True):
        folder.mkdir()
        (folder / f"{name}.yaml").write_text(text)
    shop = await opened(installation, rules=str(folders["old"]))
    store = RedisStore.of(read(shop.env).own)
    async with producing(shop) as producer, processes(shop, tmp_path / "workers", 2) as workers:
        for worker in workers:
            await worker.ready()
        people = [f"old-{number}" for number in range(PEOPLE)]
        for times in range(3):
            await append(shop, producer, [order(who, times) for who in people if int(who[4:]) % 3 >= times])
        await sizes(store, loyal=PEOPLE // 3)

        before = await store.get_doc(IN_FORCE)
        code, said = await opportune(shop, "rules", "publish", str(folders["bad"]))
        assert code == 1
        assert "bad.yaml:3" in said
        assert "'gtee'" in said
        assert "bad.yaml:5" in said
        assert await store.get_doc(IN_FORCE) == before, "bad rules change nothing"

        over = asyncio.Event()
        flow = asyncio.create_task(buying(shop, producer, over))
        code, said = await opportune(shop, "rules", "publish", str(folders["new"]))
        assert code == 0, said
        assert "topics made: triggers.found, triggers.silent" in said
        assert "generation 2" in said
        assert "new segments: twice; new triggers: found, silent" in said
        assert f"{SHARDS} of {SHARDS} shards are worked by it" in said
        code, said = await opportune(shop, "rules", "progress", "--wait")
        assert code == 0, said
        over.set()
        came = await flow
        # Newcomers of after the change: nothing that they do was found.
        late = [f"late-{number}" for number in range(20)]
        await append(shop, producer, [order(who, times) for who in late for times in range(2)])
        bought_twice = PEOPLE - PEOPLE // 3 + came + len(late)
        await sizes(store, twice=bought_twice, loyal=PEOPLE // 3)
        for worker in workers:
            worker.assert_alive()
            assert worker.words().count("ready: a member") == 1, "nobody was restarted"
            assert worker.words().count("going by generation 2") == 1, "nobody goes to and fro"

        code, said = await opportune(shop, "rules", "publish", str(folders["new"]))
        assert (code, "in force already" in said) == (0, True)
        workers[0].kill()
        workers[0].start()
        await workers[0].ready()
        assert f"those in {folders['old']} are not in force; going by generation 2" in workers[0].words()
        told = read_generation(await store.get_doc(IN_FORCE) or b"")
        assert told.rulebook.number == 2

        now = replace(shop, rules=told.rulebook)
        async with reading(now) as topics:
            await topics.settled(workers=workers)
            sent = {}
            for name in ("found", "silent", "bought"):
                once = {one["trigger_id"]: one for one in topics.json(trigger_topic(name))}
                sent[name] = Counter(one["profile"]["address"] for one in once.values())
            bought = {f"user:{who}": 1 + int(who[4:]) % 3 for who in people}
            bought |= {f"user:new-{number}": 2 for number in range(came)} | {f"user:{who}": 2 for who in late}
            assert sent["bought"] == bought, "every order is thanked for once, whichever rules were in force"
            assert sent["found"] == {who: 1 for who, count in bought.items() if count > 1}, (
                "who was found is told of once"
            )
            silent = set(sent["silent"])
            assert {f"user:{who}" for who in late} <= silent, "who comes by himself is told of"
            assert not silent & {f"user:{who}" for who in people}, "who was found is not"
            assert set(sent["silent"].values()) == {1}
            passed = {one["address"] for one in topics.json(DECISIONS) if one["reason"] == "backfill"}
            assert {f"user:{who}" for who in people if int(who[4:]) % 3} <= passed
            assert orjson.loads(told.value)["by_hand"] is True
    await store.close()


@pytest.mark.invariant("R28")
async def test_a_worker_that_cannot_read_the_rules_in_force_ends_and_does_not_start_again(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "old.yaml").write_text(OLD)
    shop = await opened(installation, rules=str(tmp_path))
    store = RedisStore.of(read(shop.env).own)
    async with working(shop) as worker:
        before = await store.get_doc(IN_FORCE)
        told = orjson.loads(before or b"")
        files = [{"name": "of_tomorrow.yaml", "text": "segments: {it: {of_tomorrow: order}}"}]
        later = {**told, "number": told["number"] + 1, "hash": "tomorrow", "files": files, "by_hand": True}
        assert await store.replace_doc(IN_FORCE, before, orjson.dumps(later))
        with pytest.raises(Fault, match="generation 2 is not for this version"):
            await asyncio.wait_for(worker.wait(), 30)
        assert worker.rules.number == 1, "it never went by them"
    again = LiveWorker(read(shop.env))
    try:
        with pytest.raises(BadDocument, match="unknown operator 'of_tomorrow'"):
            await again.start()
    finally:
        await again.stop()
    await store.close()
