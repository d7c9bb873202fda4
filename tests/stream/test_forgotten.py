"""What a shard has told by a write that the store has forgotten is taken by nobody (R7, decision 0130)."""

from __future__ import annotations

import asyncio

import pytest

from profiles.ids import SHARDS, shard_of
from profiles.wire import (
    FORWARD,
    PROFILE_COMMANDS,
    Command,
    Coordinates,
    Event,
    Record,
    Said,
    encode_command,
    encode_event,
)
from rules.compile import compile_rules
from stream.effects import FencedOut
from stream.handlers import Handlers
from tests.stream.shop import PARTITIONS, START_MS, Shop, until

ANA = "user:ana"
SENDER = (shard_of(ANA) + 1) % SHARDS  # Of the other partition.


def passed_on(name: str, offset: int, said: Said) -> Record:
    """An event that a shard passes on to Ana, by which she is called this."""
    event = Event(f"m-{name}", "web", "identified", START_MS, START_MS, "anon:a", traits={"first_name": name})
    cause = Coordinates(SENDER, "customer_events", offset, 0)
    link = (START_MS, event.message_id)
    return Record(
        PROFILE_COMMANDS,
        ANA,
        encode_command(Command(FORWARD, ANA, "anon:a", link, encode_event(event), START_MS, cause, said=said)),
    )


async def name_of(shop: Shop) -> object:
    return (await shop.profiles())[ANA].traits["first_name"].value


async def last_write(shop: Shop) -> Said:
    (state,) = await shop.store.read_shards([SENDER])
    return Said(state.lives[-1][0], state.written)


async def applied(engine: Handlers, commands: int) -> None:
    await until(lambda: engine.progress().is_settled and engine.progress().applied[PROFILE_COMMANDS] == commands)


@pytest.mark.invariant("R7")
async def test_what_stands_on_a_forgotten_write_fences_and_is_passed_over_and_what_is_told_anew_is_taken() -> None:
    shop = Shop(compile_rules([("r", "segments: {known: {trait: first_name, exists: true}}")]))

    async def until_it_is_fenced() -> None:
        async with shop.worker() as engine:
            said = await last_write(shop)
            shop.log.append(passed_on("Ann", 0, said))
            await applied(engine, PARTITIONS + 1)  # With the marks of the claim.
            assert await name_of(shop) == "Ann"
            shop.log.append(passed_on("Anna", 1, Said(said.life, said.number + 1_000_000)))
            await asyncio.wait_for(engine.failed(), 120)

    with pytest.raises(FencedOut):
        await until_it_is_fenced()
    assert await name_of(shop) == "Ann"
    async with shop.worker() as engine:
        await applied(engine, 2 * PARTITIONS + 2)
        assert await name_of(shop) == "Ann"
        shop.log.append(passed_on("Zoe", 1, await last_write(shop)))  # The same cause, taken anew.
        await applied(engine, 2 * PARTITIONS + 3)
        assert await name_of(shop) == "Zoe"
        assert len((await shop.profiles())[ANA].ring) == 2
