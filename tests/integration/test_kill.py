"""Workers killed, stopped and joined in the middle of live events: nothing lost, nothing twice, nothing else.

The same seeded log is written for two installations. In one, workers are disturbed at places that a seed chooses; in the
other nobody disturbs the one there is. Then every profile, every membership and everything that went out are equal, to
the byte, and what went out twice under one id is the same bytes (R13).

100,000 events on Apache Kafka and redis-server, a quarter of it on embedded parts; ``OPPORTUNE_TEST_EVENTS`` and
``OPPORTUNE_TEST_KILLS`` make it bigger, ``OPPORTUNE_TEST_SEED`` makes it another.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same kills every time
from typing import Any, Final, NamedTuple

import pytest

from opportune import parts
from profiles.ids import SHARDS
from profiles.state import ATTRIBUTES
from profiles.wire import DEAD_LETTERS, DECISIONS, INPUT_TOPICS, SEGMENT_CHANGES, Record
from tests.conftest import Installation
from tests.integration.live import live
from tests.integration.parts import (
    Shop,
    Topics,
    WorkerProcess,
    append,
    as_record,
    opened,
    processes,
    producing,
    reading,
    until,
)
from tests.parts import real

EVENTS: Final = int(os.environ.get("OPPORTUNE_TEST_EVENTS", "0"))
KILLS: Final = int(os.environ.get("OPPORTUNE_TEST_KILLS", "6"))
SEED: Final = int(os.environ.get("OPPORTUNE_TEST_SEED", "42"))
CUSTOMERS_PER_EVENT: Final = 0.03
SETTLED_WITHIN_S: Final = 300.0


class Disturbance(NamedTuple):
    """What is done to a worker, and when.

    Attributes:
        applied: after how many records of the stage.
        what: ``kill`` and start again, ``stop`` (SIGTERM) and start again, ``leave`` (SIGTERM) or ``join``.
        worker: to which.
    """

    applied: int
    what: str
    worker: int = 0


@dataclass
class Outcome:
    """What a run left behind.

    Attributes:
        profiles: address -> the profile's fields.
        members: segment -> addresses, as the indexes tell.
        published: topic -> id -> the bytes that went out under it.
        doubles: how many records went out more than once.
    """

    profiles: dict[str, Any]
    members: dict[str, set[str]]
    published: dict[str, dict[str, bytes]]
    doubles: int


@contextmanager
def another_broker(is_real: bool, folder: Path) -> Iterator[parts.Server]:
    server = real.kafka(folder) if is_real else parts.broker(folder)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(server.start())
        yield server
    finally:
        loop.run_until_complete(server.stop())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture
def shops(installation: Installation, is_real: bool, tmp_path: Path) -> Iterator[tuple[Shop, Shop]]:
    """Two installations: a broker each, a database of the store each."""
    with another_broker(is_real, tmp_path / "broker-2") as broker:
        one = installation
        two = Installation(broker.address, one.redis_url.removesuffix("0") + "1", one.partitions, broker, one.store)
        yield asyncio.run(opened(one, clock="log")), asyncio.run(opened(two, clock="log"))


async def applied(topics: Topics) -> int:
    """How many input records are applied and stored."""
    states = await topics.store.read_shards(range(SHARDS))
    count = topics.shop.installation.partitions
    return sum(
        max(state.cursor.get(topic, 0) for state in states[partition::count])
        for topic in INPUT_TOPICS
        for partition in range(count)
    )


async def disturbed(wanted: int, what: str, worker: WorkerProcess, topics: Topics) -> None:
    """Wait until so much is applied, and do it."""

    async def far_enough() -> bool:
        worker.assert_alive()
        return await applied(topics) >= wanted

    await until(far_enough, what=f"{wanted} records applied; {worker.log_path.name}", within_s=SETTLED_WITHIN_S)
    if what == "kill":
        worker.kill()
    elif what in ("stop", "leave"):
        await worker.ready()
        worker.terminate()
        assert await worker.ended() == 0, worker.words()
    if what != "leave":
        worker.start()
    if what in ("stop", "join"):
        await worker.ready()


async def ran(
    shop: Shop, stages: Sequence[Sequence[Record]], plan: Mapping[int, Sequence[Disturbance]], folder: Path
) -> Outcome:
    """Tell everything, stage by stage, and disturb the workers on the way; what they left behind.

    The first stage lies in the log when the first worker starts.
    """
    folder.mkdir()
    count = 1 + max((one.worker for several in plan.values() for one in several), default=0)
    async with producing(shop) as producer, reading(shop) as topics:
        await append(shop, producer, stages[0])
        async with processes(shop, folder, count, started=1) as workers:
            for number, records in enumerate(stages):
                before = await applied(topics) if number else 0
                if number:
                    await append(shop, producer, records)
                for one in plan.get(number, ()):
                    await disturbed(before + one.applied, one.what, workers[one.worker], topics)
                await topics.settled(SETTLED_WITHIN_S, workers)
            for worker in workers:
                assert "Traceback" not in worker.words(), worker.words()
        assert topics.on[DEAD_LETTERS] == []
        return await outcome(topics)


async def outcome(topics: Topics) -> Outcome:
    published: dict[str, dict[str, bytes]] = {}
    doubles = 0
    names = {SEGMENT_CHANGES: "change_id", DECISIONS: "decision_id"}
    for topic in topics.shop.topics:
        if topic in names or topic.startswith("triggers."):
            ids = topics.ids(topic, names.get(topic, "trigger_id"))
            assert {name: bodies for name, bodies in ids.items() if len(bodies) > 1} == {}, topic
            published[topic] = {name: body for name, [body] in ids.items()}
            doubles += len(topics.on[topic]) - len(ids)
    members: dict[str, set[str]] = {}
    for segment in topics.shop.rules.segments:
        cursor, members[segment.name] = "", set()
        while True:
            page, cursor = await topics.store.members(segment.name, cursor, 10_000)
            members[segment.name].update(page)
            if not cursor:
                break
    profiles = {}
    for address, profile in (await topics.profiles()).items():
        profiles[address] = {
            name: _plain(getattr(profile, name))
            for name in ATTRIBUTES
            # In which order a shard met its profiles is nobody's business; the others are not stored.
            if name not in ("ordinal", "dirty", "folds")
        }
    return Outcome(profiles, members, published, doubles)


def _plain(value: Any) -> Any:
    """A profile's part as values that compare."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    slots = getattr(type(value), "__slots__", None)
    return {name: _plain(getattr(value, name)) for name in slots} if slots else value


def differing(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Where two mappings differ: how often, and the first few, down to the parts that do."""
    names = [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]
    told = []
    for name in names[:4]:
        mine, other = one.get(name), two.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            parts = [part for part in mine if mine[part] != other[part]]
            told += [f"{name}.{part}: {mine[part]!r} <> {other[part]!r}" for part in parts]
        else:
            told.append(f"{name}: {mine!r} <> {other!r}")
    return [f"{len(names)} differ", *told] if names else []


async def assert_same(
    shops: tuple[Shop, Shop],
    stages: Sequence[Sequence[Record]],
    plan: Mapping[int, Sequence[Disturbance]],
    folder: Path,
) -> tuple[Outcome, Outcome]:
    """A disturbed run leaves what a calm one leaves; both outcomes."""
    async with asyncio.TaskGroup() as runs:
        calm = runs.create_task(ran(shops[0], stages, {}, folder / "calm"))
        stormy = runs.create_task(ran(shops[1], stages, plan, folder / "stormy"))
    one, two = calm.result(), stormy.result()
    assert differing(one.profiles, two.profiles) == []
    assert differing(one.members, two.members) == []
    for topic in one.published:
        assert differing(one.published[topic], two.published[topic]) == [], topic
    assert two.doubles > 0  # An outbox was published again: the disturbance did bite.
    return one, two


@pytest.mark.slow
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R11")
@pytest.mark.invariant("R12")
@pytest.mark.invariant("R13")
@pytest.mark.invariant("R15")
@pytest.mark.invariant("R22")
async def test_a_worker_killed_in_the_middle_of_live_events_leaves_what_an_undisturbed_one_leaves(
    shops: tuple[Shop, Shop], is_real: bool, tmp_path: Path
) -> None:
    events = EVENTS or (100_000 if is_real else 25_000)
    portions = live(SEED, events=events, customers=int(events * CUSTOMERS_PER_EVENT), portions=8, mixed=True)
    records = [as_record(event) for portion in portions for event in (*portion.flow, *portion.close)]
    random = Random(SEED)
    # The last one among the commands between shards and the alarms of a hundred days, which come after all events.
    shares = [*sorted(0.03 + 0.9 * random.random() for _ in range(KILLS - 1)), 1.05]
    plan = {0: [Disturbance(int(share * len(records)), "kill") for share in shares]}
    outcome, _ = await assert_same(shops, [records], plan, tmp_path)
    # It would prove nothing of a stream in which nothing happens.
    assert {topic: len(ids) > events / 2_000 for topic, ids in outcome.published.items()} == dict.fromkeys(
        outcome.published, True
    )
    assert sum(bool(profile["forward"]) for profile in outcome.profiles.values()) > events / 100


@pytest.mark.slow
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R4")
@pytest.mark.invariant("R6")
@pytest.mark.invariant("R12")
@pytest.mark.invariant("R13")
@pytest.mark.invariant("R16")
@pytest.mark.invariant("R22")
async def test_workers_that_join_leave_stop_and_die_leave_what_an_undisturbed_one_leaves(
    shops: tuple[Shop, Shop], tmp_path: Path
) -> None:
    # Visits first; then, all in one instant, the sign-ins that tie them to customers: what workers tell one another
    # by the log comes behind its time while they work off a backlog, and of this a customer's outcome may depend.
    [visits, *later] = live(SEED, events=20_000, customers=600, portions=1)
    stages = [[as_record(event) for event in visits.flow], [as_record(event) for event in visits.close]]
    stages += [[as_record(event) for event in portion.flow] for portion in later]
    half = len(visits.close) // 2
    plan = {
        0: [
            Disturbance(2_000, "join", 1),
            Disturbance(5_000, "kill", 0),
            Disturbance(8_000, "stop", 1),
            Disturbance(12_000, "leave", 0),
            Disturbance(15_000, "join", 0),
        ],
        1: [Disturbance(half, "kill", 1), Disturbance(len(visits.close) + half, "stop", 0)],
        2: [Disturbance(1, "kill", 0)],
        3: [Disturbance(1, "leave", 1)],
    }
    await assert_same(shops, stages, plan, tmp_path)


@pytest.mark.invariant("R6")
@pytest.mark.invariant("R8")
async def test_sigterm_stops_a_worker_cleanly_in_the_middle_and_nothing_is_told_twice(
    installation: Installation, tmp_path: Path
) -> None:
    shop = await opened(installation, clock="log")
    [visits, *_] = live(SEED, events=5_000, customers=150, portions=1)
    async with producing(shop) as producer, reading(shop) as topics:
        await append(shop, producer, [as_record(event) for event in visits.flow])
        async with processes(shop, tmp_path) as [worker]:
            for wanted in (500, 2_000, 3_500):
                await disturbed(wanted, "stop", worker, topics)
            await topics.settled(workers=[worker])
            worker.terminate()
            assert await worker.ended() == 0
            # It went in order: what it had published it has not published again.
            found = await outcome(topics)
            assert found.doubles == 0
            # A young broker has no coordinator for the group yet: aiokafka says so, and asks again.
            told = [line for line in worker.words().splitlines() if "GroupCoordinatorNotAvailableError" not in line]
            assert [line for line in told if "warning" in line or "error" in line] == []
