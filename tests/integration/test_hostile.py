"""What must not break the engine: poison on the topics, records in the wrong place, parts that are silent or gone.

Everything here is written straight to the topics, past the collector, or done to the servers; a worker goes on, loses
nothing, and sets aside what nobody can apply (R9); or says clearly why it does not start (R28).
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgpack
import orjson
import pytest
from redis import Redis

from opportune import parts
from opportune.topics import PARTITIONS, create_topics, wanted_topics
from profiles import carts
from profiles.ids import SHARDS, partition_of, shard_of
from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, iso
from profiles.wire import (
    ABSORB,
    CART_EVENTS,
    CUSTOMER_EVENTS,
    DEAD_LETTERS,
    FORWARD,
    ORDER_EVENTS,
    PROFILE_COMMANDS,
    Event,
    Record,
    encode_event,
)
from stream.settings import read
from stream.transport import FetchConsumer
from stream.worker import LiveWorker
from tests.conftest import Installation, running
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
    working,
)
from tests.integration.test_kill import Outcome, another_broker, applied, differing, outcome, ran
from tests.parts import real

USERS: Final = [f"user:u-{number}" for number in range(40)]
LONG_MS: Final = 1_000 * 365 * DAY_MS


def added(user: str, message_id: str, at_ms: int) -> Event:
    """One piece more of a product."""
    items = [{"product_id": "p-1", "quantity": 1, "price_e6": 5_000_000}]
    return Event(message_id, "shop", "product_added", at_ms, at_ms, user, props={"currency": "USD", "items": items})


def said(user: str, now_ms: int, /, **changed: Any) -> bytes:
    """An event's value with some of its fields as nobody should write them."""
    value = orjson.loads(encode_event(added(user, f"poison-{sorted(changed)}", now_ms)))
    return json.dumps({**value, **changed}).encode()


def commanded(user: str, now_ms: int, place: int, /, **changed: Any) -> bytes:
    """A command's value with some of its fields as nobody should write them."""
    command = {
        "kind": FORWARD,
        "address": user,
        "other": "",
        "link": (0, ""),
        "body": b"",
        "received_ms": now_ms,
        "cause": (shard_of("user:nobody"), CART_EVENTS, 1_000 + place, 0),
        "backfill": False,
        **changed,
    }
    return bytes(msgpack.packb((1, *command.values())))


def poison(user: str, at_ms: int) -> list[tuple[str, str, bytes]]:
    """(topic, reason of the dead letter, value): what has been seen on topics, and worse."""
    items: dict[str, Any] = {
        "none": {},
        "text": {"items": "x"},
        "quantity": {"items": [{"product_id": "p-1", "quantity": "x"}]},
        "id": {"items": [{"product_id": ["p-1"], "quantity": 1}]},
    }
    order = {"order_id": "o-1", "currency": "USD"}
    odd: list[dict[str, Any]] = [
        {"address": 5},
        {"received_ms": "x"},
        {"cause": ("a", CART_EVENTS, "x", 0)},
        {"link": ("x", 5)},
        {"body": "text"},
        {"body": b"{"},
    ]
    return [
        *((CART_EVENTS, "malformed", value) for value in (b"\xff\xfe\x00garbage", b"", b"null", b"[1, 2]", b'"text"')),
        (CART_EVENTS, "malformed", said(user, at_ms)[:-20]),
        (CART_EVENTS, "malformed", b'{"message_id": "x"}'),
        (CART_EVENTS, "malformed", b"[" * 5_000),
        *(
            (CART_EVENTS, "malformed", said(user, at_ms, **changed))
            for changed in (
                {"at_ms": 1.5},
                {"at_ms": True},
                {"at_ms": at_ms + 1},
                {"at_ms": -(1 << 63)},
                {"received_ms": (1 << 63) - 1},
                {"received_ms": (1 << 64) - 1},
                {"received_ms": str(at_ms)},
                {"address": 5},
                {"message_id": None},
                {"identifiers": 5},
                {"identifiers": "anon:a"},
                {"identifiers": [1, 2]},
                {"identifiers": [["anon:a"]]},
                {"props": [1]},
                {"traits": "x"},
            )
        ),
        (CART_EVENTS, "in_future", said(user, at_ms, received_ms=at_ms + LONG_MS)),
        *((CART_EVENTS, "bad_name", said(user, at_ms, type=name)) for name in ("", "!!!", "x" * 1_000)),
        *((CART_EVENTS, "bug", said(user, at_ms, props=props)) for props in items.values()),
        (ORDER_EVENTS, "bug", said(user, at_ms, type="order_completed", props=order)),
        (ORDER_EVENTS, "bug", said(user, at_ms, type="order_completed", props={**order, "total_minor": "9"})),
        (
            ORDER_EVENTS,
            "bug",
            said(user, at_ms, type="order_completed", props={**order, "total_minor": 9, "status": "x"}),
        ),
        (CUSTOMER_EVENTS, "bug", said(user, at_ms, type="consent_changed", props={})),
        (PROFILE_COMMANDS, "malformed", b"\xc1garbage"),
        (PROFILE_COMMANDS, "malformed", b""),
        *(
            (PROFILE_COMMANDS, "malformed", commanded(user, at_ms, place, **changed))
            for place, changed in enumerate(odd)
        ),
        (PROFILE_COMMANDS, "bug", commanded(user, at_ms, 10, kind="nonsense")),
        (PROFILE_COMMANDS, "bug", commanded(user, at_ms, 11, kind=ABSORB, other="anon:a", body=b"\xc1\xc1")),
    ]


async def pieces(topics: Topics, user: str) -> int:
    profile = await topics.profile(user)
    assert profile is not None, user
    return sum(carts.quantity(cart) for cart in profile.carts.values())


def original(letter: dict[str, Any]) -> bytes:
    if "original_base64" in letter:
        return b64decode(letter["original_base64"])
    return str(letter["original"]).encode()


@pytest.mark.invariant("R1")
@pytest.mark.invariant("R8")
@pytest.mark.invariant("R9")
async def test_poison_is_set_aside_with_its_bytes_and_everything_else_is_applied(installation: Installation) -> None:
    shop = await opened(installation)
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        count = len(poison(USERS[0], now_ms))
        bad = [(user := USERS[place % len(USERS)], *poison(user, now_ms)[place]) for place in range(count)]
        for place, (user, topic, _, value) in enumerate(bad):
            partition = partition_of(shard_of(user), shop.installation.partitions)
            await append(shop, producer, [as_record(added(user, f"before-{place}", now_ms))])
            await producer.send_and_wait(topic, value, user.encode(), partition)
        # A record without a value, one without a key, and keys that are no text.
        [nobody] = [partition_of(shard_of(user), shop.installation.partitions) for user in USERS[:1]]
        await producer.send_and_wait(CART_EVENTS, None, b"user:u-0", nobody)
        await producer.send_and_wait(CART_EVENTS, b"\xff", b"\xff\xfe", nobody)
        await producer.send_and_wait(CART_EVENTS, encode_event(added(USERS[0], "keyless", now_ms)), None, nobody)
        await append(shop, producer, [as_record(added(user, "after", now_ms)) for user in USERS])
        await topics.settled()
        letters = topics.json(DEAD_LETTERS)
        found = sorted((one["topic"], one["reason"], original(one)) for one in letters)
        wanted = [(topic, reason, value) for _, topic, reason, value in bad]
        assert found == sorted([*wanted, (CART_EVENTS, "malformed", b""), (CART_EVENTS, "malformed", b"\xff")])
        for one in letters:
            assert {"partition", "offset", "rules"} <= one["where"].keys()
        for number, user in enumerate(USERS):
            before = sum(place % len(USERS) == number for place in range(len(bad)))
            assert await pieces(topics, user) == before + 1 + (number == 0), user
        # Nobody's clock was dragged along.
        states = await topics.store.read_shards(range(SHARDS))
        assert max(state.clock_ms for state in states) < now_ms + DAY_MS


@pytest.mark.invariant("R9")
async def test_what_fails_later_than_it_was_stored_is_set_aside_and_its_profile_goes_on(
    installation: Installation,
) -> None:
    shop = await opened(installation)
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        # Carts left two hours ago: their letters fall due as soon as the gate has passed them.
        left_ms = now_ms - 2 * HOUR_MS - MINUTE_MS
        priced = [{"product_id": "p-1", "quantity": 1, "price_e6": "abc"}]
        bad = Record(CART_EVENTS, USERS[0], said(USERS[0], left_ms, props={"currency": "USD", "items": priced}))
        await append(shop, producer, [bad, *(as_record(added(user, "left", left_ms)) for user in USERS[1:])])

        async def letters() -> bool:
            await topics.settled()
            sent = {one.key for one in topics.on["triggers.abandoned_cart"]}
            return bool(topics.on[DEAD_LETTERS]) and sent == {user.encode() for user in USERS[1:]}

        await until(letters, what="everybody's letters but one, and a dead letter")
        [letter] = topics.json(DEAD_LETTERS)
        assert letter["reason"] == "bug"
        assert letter["detail"] == "TypeError"
        known = orjson.loads(letter["original"])
        assert (known["kind"], known["timer"].partition(":")[0]) == ("journey", "abandoned_cart")
        assert iso(left_ms) < known["due"] <= iso(left_ms + 2 * HOUR_MS)
        assert topics.on[DEAD_LETTERS][0].key == USERS[0].encode()
        # The profile goes on: another product, and nothing is set aside again.
        await append(shop, producer, [as_record(added(USERS[0], "after", now_ms))])
        await topics.settled()
        assert await pieces(topics, USERS[0]) == 2
        assert len(topics.on[DEAD_LETTERS]) == 1


@pytest.mark.invariant("R1")
@pytest.mark.invariant("R9")
async def test_a_held_event_that_cannot_be_applied_is_set_aside_with_its_bytes(installation: Installation) -> None:
    shop = await opened(installation)
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        # By a clock that is some seconds ahead, visits end just before what follows; no gate is open so far, so it is held.
        ahead_ms = await worker.store.now_ms() + 6 * SECOND_MS
        begun = [as_record(added(user, "begun", ahead_ms - 30 * MINUTE_MS - 1)) for user in USERS]
        bad = {user: said(user, ahead_ms, message_id="bad", props={"items": "x"}) for user in USERS}
        good = [as_record(added(user, "good", ahead_ms)) for user in USERS]
        await append(shop, producer, [*begun, *(Record(CART_EVENTS, user, bad[user]) for user in USERS), *good])

        async def set_aside() -> bool:
            await topics.settled()
            return len(topics.on[DEAD_LETTERS]) == len(USERS)

        await until(set_aside, what="a dead letter for each")
        letters = {one.key: one.json() for one in topics.on[DEAD_LETTERS]}
        assert letters.keys() == {user.encode() for user in USERS}
        for user in USERS:
            letter = letters[user.encode()]
            assert (letter["reason"], letter["topic"], letter["where"]["kept"]) == ("bug", CART_EVENTS, "held")
            assert orjson.loads(original(letter)) == orjson.loads(bad[user])
        assert [await pieces(topics, user) for user in USERS] == [2] * len(USERS)


@pytest.mark.invariant("R9")
async def test_a_core_that_fails_again_and_again_stops_the_worker_with_nothing_lost(
    installation: Installation, tmp_path: Path
) -> None:
    shop = await opened(installation, clock="log")
    records = [
        Record(CART_EVENTS, user, said(user, 1_000 + number, message_id=f"m-{number}", props={}))
        for number, user in enumerate(USERS + USERS)
    ]
    async with producing(shop) as producer, reading(shop) as topics:
        await append(shop, producer, records)
        async with processes(shop, tmp_path) as [worker]:
            assert await worker.ended() == 1
            assert "step fails too often" in worker.words()
        await topics.read()
        # What it had not written it has not passed: whoever mends the core finds all of it.
        letters = {original(one) for one in topics.json(DEAD_LETTERS)}
        states = await topics.store.read_shards(range(SHARDS))
        left = sum(topics.left(states).values())
        assert left > 0
        assert len(letters) + left >= len(records)
        # Or he goes on at once: all of it is set aside, to be replayed when the core is mended.
        going_on = replace(shop, env={**shop.env, "OPPORTUNE_BUG_CEILING": "no"})
        async with processes(going_on, tmp_path) as workers:
            await topics.settled(workers=workers)
        assert {original(one) for one in topics.json(DEAD_LETTERS)} == {record.value for record in records}


@pytest.mark.invariant("R2")
async def test_a_record_in_the_wrong_partition_reaches_its_profile_once(installation: Installation) -> None:
    shop = await opened(installation)
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        for number, user in enumerate(USERS):
            wrong = (partition_of(shard_of(user), shop.installation.partitions) + 1 + number % 7) % 8
            value = encode_event(added(user, "misplaced", now_ms))
            await producer.send_and_wait(CART_EVENTS, value, user.encode(), wrong)
            await producer.send_and_wait(CART_EVENTS, value, user.encode(), (wrong + 1) % 8)
        await append(shop, producer, [as_record(added(user, "placed", now_ms)) for user in USERS])
        await topics.settled()
        assert [await pieces(topics, user) for user in USERS] == [2] * len(USERS)
        assert topics.on[DEAD_LETTERS] == []


# --- parts that are silent or gone --------------------------------------------------------------------------------


@pytest.fixture
def own_store(is_real: bool, tmp_path: Path) -> Iterator[parts.Server]:
    """A store on a port that it comes back to."""
    folder, port = tmp_path / "store", parts.free_port()
    yield from running(real.redis_server(folder, port=port) if is_real else parts.store(folder, port=port))


@pytest.fixture
def shaken(is_real: bool, own_store: parts.Server, tmp_path: Path) -> Iterator[Installation]:
    """An installation whose servers are the test's own."""
    with another_broker(is_real, tmp_path / "broker-2") as broker:
        yield Installation(broker.address, parts.redis_url(own_store), PARTITIONS, broker, own_store)


async def heard(worker: WorkerProcess, words: str) -> None:
    """Return when the worker has complained of it."""

    async def said() -> bool:
        assert worker.runs, worker.words()
        return words in worker.words()

    await until(said, what=f"{words!r} said")


async def troubled(shop: Shop, trouble: str, records: Sequence[Record], folder: Path) -> Outcome:
    """Tell everything to one worker process, and trouble one of its servers while it works: what it left behind.

    The second half is told while the store is silent, so the worker has work in hand that it cannot write: whatever
    is troubled then is missed, however fast or slow the machine.
    """
    store, broker = shop.installation.store, shop.installation.broker
    folder.mkdir()
    half = len(records) // 2
    async with producing(shop) as producer, reading(shop) as topics:
        await append(shop, producer, records[:half])
        async with processes(shop, folder) as [worker]:

            async def some() -> bool:
                return await applied(topics) > 300

            await until(some, what="some applied")
            if trouble == "the store is gone for a while":
                await store.stop()
            else:
                store.pause()
            await append(shop, producer, records[half:])
            await heard(worker, "the store did not")
            if trouble == "the store is gone for a while":
                await store.start()
            elif trouble == "the store is frozen":
                store.resume()
            else:
                broker.pause()
                store.resume()
                await heard(worker, "the broker did not")
                broker.resume()
            await topics.settled(workers=[worker])
            assert worker.runs, worker.words()  # unaided: nobody had to start it anew
            assert topics.on[DEAD_LETTERS] == []
            return await outcome(topics)


@pytest.mark.slow
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R27")
@pytest.mark.parametrize(
    "trouble", ["the store is frozen", "the store is gone for a while", "the broker is frozen, too"]
)
async def test_a_server_that_is_silent_or_gone_costs_nothing_but_time(
    installation: Installation, shaken: Installation, trouble: str, tmp_path: Path
) -> None:
    settings = {"clock": "log", "request_ms": "3000", "batch_events": "100"}
    [visits, *_] = live(7, events=6_000, customers=200, portions=1, mixed=True)
    records = [as_record(event) for event in visits.flow]
    calm, shop = await opened(installation, **settings), await opened(shaken, **settings)
    async with asyncio.TaskGroup() as runs:
        peaceful = runs.create_task(ran(calm, [records], {}, tmp_path / "calm"))
        troublesome = runs.create_task(troubled(shop, trouble, records, tmp_path / "troubled"))
    one, two = peaceful.result(), troublesome.result()
    assert differing(one.profiles, two.profiles) == []
    assert differing(one.members, two.members) == []
    for topic in one.published:
        assert differing(one.published[topic], two.published[topic]) == [], topic


# --- starting and stopping ----------------------------------------------------------------------------------------


@pytest.mark.invariant("R28")
async def test_unequal_partitions_are_refused_in_plain_words(
    fresh_broker: parts.Server, fresh_redis: str, redis_server: parts.Server, tmp_path: Path
) -> None:
    wanted = [topic for topic in wanted_topics() if topic.name != ORDER_EVENTS]
    odd = [topic for topic in wanted_topics(partitions=4) if topic.name == ORDER_EVENTS]
    await create_topics(fresh_broker.address, [*wanted, *odd])
    shop = await opened(Installation(fresh_broker.address, fresh_redis, 8, fresh_broker, redis_server))
    async with processes(shop, tmp_path) as [worker]:
        assert await worker.ended() != 0
        assert "topic order_events: 8 partitions wanted, as all input topics have, found 4" in worker.words()
        assert "Traceback" not in worker.words()


@pytest.mark.invariant("R28")
async def test_a_store_that_may_forget_is_refused_at_the_start_and_while_it_runs(
    installation: Installation, own_store: parts.Server, tmp_path: Path
) -> None:
    url = parts.redis_url(own_store)
    shop = await opened(Installation(installation.bootstrap, url, PARTITIONS, installation.broker, own_store))
    with Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        async with processes(shop, tmp_path) as [worker]:
            assert await worker.ended() != 0
            assert "maxmemory-policy: noeviction wanted, found allkeys-lru" in worker.words()
            assert "Traceback" not in worker.words()
        client.config_set("maxmemory-policy", "noeviction")
        async with processes(shop, tmp_path) as [worker]:
            await worker.ready()
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert await worker.ended() == 1
            assert worker.words().count("maxmemory-policy: noeviction wanted, found allkeys-lru") >= 2


async def test_a_worker_told_to_stop_while_it_joins_claims_nothing(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await opened(installation)
    worker = LiveWorker(read(shop.env))
    stops: list[asyncio.Future[None]] = []
    assigned = FetchConsumer.on_partitions_assigned

    async def late(consumer: FetchConsumer, *what: Any, **more: Any) -> None:
        # The group gives us partitions when we are already leaving it.
        stops.append(asyncio.ensure_future(worker.stop()))
        while not consumer.should_stop:
            await asyncio.sleep(0)
        await assigned(consumer, *what, **more)

    monkeypatch.setattr(FetchConsumer, "on_partitions_assigned", late)
    starting = asyncio.ensure_future(worker.start())
    await asyncio.wait([starting], timeout=30)
    assert len(stops) == 1
    await stops[0]
    async with reading(shop) as topics:
        states = await topics.store.read_shards(range(SHARDS))
    assert {state.token for state in states} == {b""}
