"""What is done to an installation: the fault runs of RELIABILITY's table that are built, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random  # noqa: TID251 - seeded: the same poison every time
from typing import Final

from profiles.wire import CART_EVENTS, ORDER_EVENTS, PAGE_VIEWS, Record
from tests.faults.arena import WITHIN_S, Arena, Plan
from tests.faults.proxy import FAIR, Weather
from tests.integration.parts import EndedByItself, until
from tests.integration.test_kill import applied

ROUGH: Final = Weather(delay_ms=60, delays=0.2, resets=0.02, stalls=0.004)
TRIES: Final = "the store did not"
FENCED: Final = "fenced:"
NOTICED_WITHIN_S: Final = 30.0


async def kill_a_worker(arena: Arena) -> None:
    """SIGKILL one of them, and start it again at once."""
    worker = arena.random.choice([one for one in arena.workers if one.runs])
    busy = await arena.left()
    worker.kill()
    arena.counts["bites"] += busy > 0
    worker.start()
    await worker.ready()


async def freeze_a_worker(arena: Arena) -> None:
    """Freeze one until the others have done its work, too; then let it go on: its next write is refused."""
    worker = arena.random.choice(arena.workers)
    fenced = worker.words().count(FENCED)
    worker.pause()

    async def others_did_all() -> bool:
        return not await arena.left()

    try:
        await until(others_did_all, what="the others apply all that is left", within_s=WITHIN_S)
    finally:
        worker.resume()

    async def has_noticed() -> bool:
        worker.assert_alive()
        return worker.words().count(FENCED) > fenced

    try:
        await until(has_noticed, what="a frozen worker that is fenced", within_s=NOTICED_WITHIN_S)
    except EndedByItself:
        raise
    except AssertionError:
        return  # It had nothing that the others could take: no bite.
    arena.counts["bites"] += 1


async def kill_the_store(arena: Arena) -> None:
    """SIGKILL redis-server, wait until a worker has missed it, and start it on its files."""
    before = arena.said(TRIES)
    arena.store.kill()

    async def is_missed() -> bool:
        return arena.said(TRIES) > before

    await until(is_missed, what="a worker that misses the store", within_s=WITHIN_S)
    arena.counts["bites"] += 1
    await arena.store.start()


async def kill_the_broker(arena: Arena) -> None:
    """SIGKILL Apache Kafka and start it on its files."""
    busy = await arena.left()
    arena.broker.kill()
    await asyncio.sleep(arena.random.random())  # How long it is away is the fault, not a condition.
    await arena.broker.start()
    arena.counts["bites"] += busy > 0


async def bad_weather(arena: Arena) -> None:
    """Between workers and store pieces are late, connections are reset or fall silent in one direction, for a while."""
    before, bites = await applied(arena.topics), arena.proxy.bites.total()
    arena.proxy.weather = ROUGH

    async def has_rained() -> bool:
        for worker in arena.workers:
            worker.assert_alive()
        is_wet = arena.proxy.bites.total() > bites + 20
        return is_wet and (await applied(arena.topics) > before or not await arena.left())

    await until(has_rained, what="bad weather, and something applied in it", within_s=WITHIN_S)
    arena.proxy.weather = FAIR
    arena.proxy.cut()
    arena.counts.update({name: arena.proxy.bites[name] - arena.counts[name] for name in arena.proxy.bites})
    arena.counts["bites"] += 1
    arena.counts["unknown"] = arena.said("did not answer a write")


async def storm(arena: Arena) -> None:
    """One leaves as it should and comes again: the group shares out twice."""
    worker = arena.random.choice(arena.workers)
    busy = await arena.left()
    worker.terminate()
    assert await worker.ended() == 0, worker.words()
    worker.start()
    await worker.ready()
    arena.counts["bites"] += busy > 0


def poisoned(records: Sequence[Record], random: Random) -> list[Record]:
    """Garbage among the story: bytes, a megabyte, depth, bad UTF-8, payloads on which the core fails."""
    bug = b'{"message_id":"%d","source":"x","type":"product_added","at_ms":1,"received_ms":1,"address":"%s","props":{"items":"x"}}'
    out: list[Record] = []
    for number, record in enumerate(records):
        out.append(record)
        if random.random() < 0.02:
            topic = random.choice((CART_EVENTS, ORDER_EVENTS, PAGE_VIEWS))
            value = random.choice(
                (
                    random.randbytes(40),
                    b"[" * 20_000,
                    b'{"message_id": "\xff\xfe"}',
                    b'"' + b"x" * 900_000 + b'"' if random.random() < 0.1 else b"null",
                )
            )
            out.append(Record(topic, record.key, value))
        # Not so many that the ceiling of R9 stops the worker: that is another promise, and has its own test.
        if random.random() < 0.002:
            out.append(Record(CART_EVENTS, record.key, bug % (number, record.key.encode())))
    return out


async def count_letters(arena: Arena) -> None:
    """By reason; every one of them is a bite."""
    for letter in arena.topics.json("dead_letters"):
        arena.counts[letter["reason"]] += 1
        arena.counts["bites"] += 1


PLANS: Final = {
    plan.name: plan
    for plan in (
        Plan("F1", "workers killed", kill_a_worker, 2, 120, 60_000, 2, 2_500),
        Plan("F2", "workers frozen beyond their session", freeze_a_worker, 2, 30, 40_000, 2, 4_000),
        Plan("F3", "redis-server killed", kill_the_store, 2, 60, 60_000, 1, 2_500),
        Plan("F6", "Apache Kafka killed", kill_the_broker, 2, 40, 60_000, 2, 4_000),
        Plan("F7", "bad weather before the store", bad_weather, 2, 60, 60_000, 1, 2_500),
        Plan(
            "F11", "poison", None, 2, 0, 100_000, 0, 2_500, ("bites", "malformed", "bug"), poisoned, after=count_letters
        ),
        Plan("F12", "members that leave and join", storm, 3, 100, 60_000, 3, 4_000),
    )
}
