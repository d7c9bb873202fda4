"""What shards have told one another when a topic is made anew: nothing is lost, and nothing counts twice (R2, R10)."""

from __future__ import annotations

import pytest

from profiles.ids import SHARDS, shard_of
from profiles.wire import (
    CUSTOMER_EVENTS,
    FORWARD,
    INPUT_TOPICS,
    PROFILE_COMMANDS,
    SEGMENT_CHANGES,
    Command,
    Coordinates,
    Event,
    Record,
    Said,
    decode_command,
    encode_command,
    encode_event,
    pack_record,
    unpack_record,
)
from rules.compile import compile_rules
from stream.anew import BEFORE, begin_log_anew
from stream.clock import SystemIds
from stream.handlers import Handlers
from stream.ports import LogRecord, ShardWrite
from tests.stream.shop import PARTITIONS, START_MS, Shop, until

ANA = "user:ana"
SENDER = (shard_of(ANA) + 1) % SHARDS  # Of the other partition.
RULES = "segments: {known: {trait: first_name, exists: true}}"


async def passed_on(shop: Shop, name: str, offset: int) -> Record:
    """An event that a shard passes on to Ana, by which she is called this."""
    (state,) = await shop.store.read_shards([SENDER])
    event = Event(f"m-{name}", "web", "identified", START_MS, START_MS, "anon:a", traits={"first_name": name})
    command = Command(
        FORWARD, ANA, "anon:a", (START_MS, event.message_id), encode_event(event), START_MS,
        Coordinates(SENDER, CUSTOMER_EVENTS, offset, 0), said=Said(state.lives[-1][0], state.written),
    )  # fmt: skip
    return Record(PROFILE_COMMANDS, ANA, encode_command(command))


async def applied(engine: Handlers, commands: int) -> None:
    await until(lambda: engine.progress().is_settled and engine.progress().applied[PROFILE_COMMANDS] == commands)


async def leave_in_outbox(shop: Shop, *records: Record) -> None:
    """A worker died after it had stored these and before they were published, or before it knew that they were."""
    (state,) = await shop.store.read_shards([SENDER])
    write = ShardWrite(SENDER, state.token, b"a-token!", state.cursor, state.clock_ms, state.generation)
    write.outbox, write.written = [pack_record(one) for one in records], state.written + 1
    assert await shop.store.commit([write]) == []


def commands_on(shop: Shop) -> list[LogRecord]:
    places = [(PROFILE_COMMANDS, partition) for partition in range(PARTITIONS)]
    return [record for place in places for record in shop.log.read(place, 0, 10_000)]


@pytest.mark.invariant("R10")
@pytest.mark.invariant("R2")
async def test_what_shards_told_one_another_by_an_old_topic_is_taken_once_and_before_what_comes_by_the_new() -> None:
    shop = Shop(compile_rules([("r", RULES)]))
    async with shop.worker() as engine:
        taken = await passed_on(shop, "Ann", 700)
        shop.log.append(taken)
        await applied(engine, PARTITIONS + 1)  # With the marks of the claim.
    unread, unpublished = await passed_on(shop, "Anna", 701), await passed_on(shop, "Anne", 702)
    change = Record(SEGMENT_CHANGES, ANA, b"{}")
    shop.log.append(unread)
    await leave_in_outbox(shop, taken, change, unread, unpublished)

    again = await begin_log_anew(shop.store, SystemIds(), [CUSTOMER_EVENTS], commands_on(shop), PARTITIONS)

    assert again == 2
    (outbox,) = await shop.store.outboxes([SENDER])
    first, second, third = map(unpack_record, outbox)
    told = [decode_command(one.value) for one in (first, third)]
    assert second == change
    assert [one.cause for one in told] == [Coordinates(SENDER, CUSTOMER_EVENTS, BEFORE, n) for n in range(2)]
    ana, sender = await shop.store.read_shards([shard_of(ANA), SENDER])
    assert (ana.cursor[CUSTOMER_EVENTS], sender.cursor[CUSTOMER_EVENTS]) == (0, 0)
    async with shop.worker() as engine:
        shop.log.append(await passed_on(shop, "Zoe", 0))  # By the first record of the new topic.
        await until(lambda: len(commands_on(shop)) == 2 * PARTITIONS + 5)
        await applied(engine, len(commands_on(shop)))
    profile = (await shop.profiles())[ANA]
    assert len(profile.ring) == 4
    assert profile.traits["first_name"].value == "Zoe"


@pytest.mark.invariant("R10")
async def test_a_topic_that_stayed_is_read_on_where_it_was() -> None:
    shop = Shop(compile_rules([("r", RULES)]))
    async with shop.worker() as engine:
        for number in range(5):
            shop.looks(f"u-{number}", START_MS)
            shop.buys(f"u-{number}", 10, START_MS)
        await until(lambda: engine.progress().is_settled and engine.progress().applied[CUSTOMER_EVENTS] == 5)
    before = await shop.store.read_shards(range(SHARDS))
    assert await begin_log_anew(shop.store, SystemIds(), [CUSTOMER_EVENTS], commands_on(shop), PARTITIONS) == 0
    after = await shop.store.read_shards(range(SHARDS))
    others = set(INPUT_TOPICS) - {CUSTOMER_EVENTS, PROFILE_COMMANDS}  # Commands are read on behind all that lies there.
    assert [one.cursor[CUSTOMER_EVENTS] for one in after] == [0] * SHARDS
    assert [[one.cursor[topic] for topic in others] for one in after] == [
        [one.cursor[topic] for topic in others] for one in before
    ]
    assert all(one.token != two.token for one, two in zip(before, after, strict=True))
