"""``opportune rules publish``: other rules come into force while workers run.

What is wrong with them, or with their topics, is told before anything changes. From the moment that the store has them, each worker
goes by them from its next batch on; how far that is can be seen at the shards, each of which says by which generation it
was worked last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from opportune.topics import agreed_topics, check_topics, create_topics
from profiles.errors import Refused
from profiles.ids import SHARDS
from rules.doubts import checked_rules
from rules.rulebook import Rulebook
from stream.facts import read_told
from stream.ports import ProfileStore
from stream.rulebook import in_force, publish, read_rule_files
from stream.settings import Settings, read
from stream.store import RedisStore
from stream.transport import security

LOOK_S: Final = 0.25


def run(env: Mapping[str, str], folder: Path, wait_s: float) -> None:
    """Check a folder of rules, make the topics of its triggers, put it in force, and say who goes by it.

    Args:
        wait_s: how long to wait for shards that are still worked by the rules of before.
    Raises:
        BadDocument: with every mistake, or every doubt, each at its file and line; nothing has changed.
        Refused: no files, other zone or currency, or topics that are not as they should be; no rules have changed.
        OSError: the brokers or the store did not answer; publish them again, which changes nothing if they are in force.
    """
    settings = read(env)
    files = read_rule_files(folder)
    rulebook = checked_rules(files, zone=settings.agreed.zone, currency=settings.agreed.currency)
    for doubted in rulebook.doubted:
        print(doubted)
    asyncio.run(_publish(settings, rulebook, files, wait_s))


async def _publish(settings: Settings, rulebook: Rulebook, files: list[tuple[str, str]], wait_s: float) -> None:
    store = RedisStore.of(settings.own)
    try:
        found = await in_force(store)
        before = found[0] if found is not None else None
        if before is not None:
            _same_place(before, rulebook)
        await _topics(settings, rulebook)
        announced = await publish(store, rulebook, files, by_hand=True)
        now = announced.rulebook
        if before is not None and before.hash == now.hash:
            print(f"generation {now.number} ({now.hash}) is in force already")
            return
        counts = f"{len(now.segments)} segments, {len(now.triggers)} triggers"
        print(f"generation {now.number} ({now.hash}) is in force: {counts}; {_changes(before, now)}")
        worked = await _followed(store, now.number, wait_s)
        print(f"{worked} of {SHARDS} shards are worked by it" + ("" if worked == SHARDS else _WHO_FOLLOWS))
        if now.lacking:
            print(
                f"count from its beginning, until `opportune rules fill`: {', '.join(now.incomplete()) or 'no segments'}"
            )
        print("how many people have met it: `opportune rules progress --wait`")
    finally:
        await store.close()


_WHO_FOLLOWS: Final = ": workers that run follow within seconds, others when they start"


def _same_place(before: Rulebook, now: Rulebook) -> None:
    """Amounts and days that profiles have counted are of one currency and zone.

    Raises:
        Refused: these are others.
    """
    for what, was, got in (
        ("OPPORTUNE_ZONE", before.zone_name, now.zone_name),
        ("OPPORTUNE_CURRENCY", before.currency, now.currency),
    ):
        if was != got:
            raise Refused(f"{what}: that of the rules in force wanted, {was}, got {got}")


async def _topics(settings: Settings, rulebook: Rulebook) -> None:
    """Make the topics that are missing.

    Raises:
        Refused: some are not as they should be.
    """
    agreed, own = settings
    wanted, how = agreed_topics(agreed, rulebook.triggers), security(own)
    made = await create_topics(own.bootstrap, wanted, security=how)
    if made:
        print(f"topics made: {', '.join(made)}")
    wrong = await check_topics(own.bootstrap, wanted, security=how)
    if wrong:
        raise Refused("rules: nothing is published:\n" + "\n".join(wrong))


def _changes(before: Rulebook | None, now: Rulebook) -> str:
    """Which segments and triggers came and went."""
    if before is None:
        return "the first"
    told = []
    for kind, old, new in (
        ("segments", {one.name for one in before.segments}, {one.name for one in now.segments}),
        ("triggers", before.triggers.keys(), now.triggers.keys()),
    ):
        for word, names in (("new", new - old), ("gone", old - new)):
            if names:
                told.append(f"{word} {kind}: {', '.join(sorted(names))}")
    return "; ".join(told) or "the same names"


async def _followed(store: ProfileStore, number: int, wait_s: float) -> int:
    """How many shards are worked by that generation, as soon as all are, or after so long."""
    worked = 0
    try:
        async with asyncio.timeout(wait_s):
            while worked < SHARDS:
                worked = await _worked(store, number)
                await asyncio.sleep(LOOK_S if worked < SHARDS else 0)
    except TimeoutError:
        pass
    return worked


async def _worked(store: ProfileStore, number: int) -> int:
    standing = [read_told(state.generation) for state in await store.read_shards(range(SHARDS))]
    return sum(one.number >= number for one in standing)
