"""F9: clocks that are wrong. Workers' by up to five minutes all along, the store's by up to two for a while, again and again.

Processes are shown another time by libfaketime (Debian: ``libfaketime``): as wall clock only, for no machine's monotonic
clock is ever set. This process's own clock is the true one. The store is the embedded Valkey: Debian's redis-server brings
an allocator that asks for the time before libfaketime is ready, and stands still (decision 0139).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same faults every time
from typing import Any, Final

from opportune import parts
from opportune.parts import Server, redis_answers, redis_command
from profiles.errors import Refused
from profiles.ids import SHARDS
from profiles.moments import SECOND_MS
from profiles.wire import DEAD_LETTERS, Record, trigger_topic
from stream.clock import STEP_MS_MAX, wall_ms
from tests.faults.alive import added, line, ordered, plan_of, started
from tests.faults.arena import WITHIN_S, Arena, standing
from tests.faults.stores import KINDS, Stores
from tests.integration.parts import append, producing, until

CARTS: Final = trigger_topic("left_cart")
WAIT_MS: Final = 8 * SECOND_MS
RULES: Final = """
triggers:
  left_cart:
    says: A cart was left for some seconds.
    on: {event: product_added}
    key: cart_id
    cancel_on: [{event: order_completed, match: cart_id, or: covers_items}]
    steps:
      - wait: PT8S
      - emit: {template: cart}
"""
WORKERS_OFF_S: Final = 300
STORE_OFF_S: Final = (3, 20, 120)
CUSTOMERS: Final = 12
AGREES_MS: Final = 1_000


def preloaded() -> str:
    """The library that shows a process another time.

    Raises:
        Refused: it is not installed.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise Refused("libfaketime: wanted in /usr/lib, not found; Debian's package is libfaketime")
    return str(found[0])


def shown(off_s: int) -> dict[str, str]:
    """Environment of a process whose wall clock is so many seconds ahead for good."""
    return {"LD_PRELOAD": preloaded(), "FAKETIME": f"{off_s:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@asynccontextmanager
async def clocked(folder: Path) -> AsyncIterator[Stores]:
    """One store that reads how far its clock is off from the file ``clock`` in its folder, every second."""
    place, library = folder / "store", preloaded()

    def command(server: Server) -> list[str | Path]:
        told = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(place / "clock")}
        told |= {"FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        words = [f"{name}={value}" for name, value in told.items()]
        return ["/usr/bin/env", *words, *redis_command(server, parts._valkey_binary(), keep=True)]

    place.mkdir(parents=True)
    (place / "clock").write_text("+0")
    async with Server("store", command, redis_answers, place, port=parts.free_port()) as server:
        yield Stores(parts.redis_url(server), [server])


KINDS["clocked"] = clocked


@dataclass
class Seen:
    """What was seen while it ran, by the true clock.

    Attributes:
        due_ms: customer -> when his moment is due.
        at_ms: customer -> when its record was first seen.
        clocks: of each shard, the latest instant its clock has told; ``back``: how often one told an earlier one.
    """

    due_ms: dict[str, int] = field(default_factory=dict)
    at_ms: dict[str, int] = field(default_factory=dict)
    clocks: list[int] = field(default_factory=lambda: [0] * SHARDS)
    back: int = 0

    async def look(self, arena: Arena) -> None:
        """Once."""
        arena.assert_alive()
        await arena.topics.read()
        for one in arena.topics.on[CARTS]:
            self.at_ms.setdefault((one.key or b"").decode(), wall_ms())
        for number, state in enumerate(await arena.topics.store.read_shards(range(SHARDS))):
            self.back += state.clock_ms < self.clocks[number]
            self.clocks[number] = max(self.clocks[number], state.clock_ms)

    def waiting(self) -> set[str]:
        """Whose moment has not been seen yet."""
        return self.due_ms.keys() - self.at_ms.keys()


async def clocks(seed: int, folder: Path, times: int) -> str:
    """F9: so often the store's clock is set wrong while moments fall due, and right again.

    By the true clock nothing may fire more than 5 s early, what is due fires when the clock is right, and no shard's clock
    goes back. A worker that is begun anew while the store's clock is slow takes that for the truth; it is begun
    anew once more when it is right, as the runbook says.
    """
    random, seen, counts, bought = Random(seed), Seen(), Counter[str](), set[str]()
    async with standing(plan_of("F9", "wrong clocks", folder, RULES, stores="clocked"), seed, folder) as arena:
        for worker, sign in zip(arena.workers, (1, -1), strict=True):
            worker.env |= shown(sign * WORKERS_OFF_S)
        await started(arena)
        async with producing(arena.shop) as producer:
            for number in range(times):
                records, late_ms = _visits(number, seen, bought)
                await append(arena.shop, producer, records)
                off_s = random.choice((-1, 1)) * random.choice(STORE_OFF_S)
                await _set_clock(arena, off_s)
                counts["store_set"] += 1
                restarts = off_s < 0 and random.random() < 0.5
                worker = random.choice(arena.workers)
                if restarts:
                    await _begun_anew(worker, random)
                    counts["begun_slow"] += 1
                missed = await _past(arena, seen, late_ms + STEP_MS_MAX)
                # A greater step pauses what is due meanwhile; a small one is followed.
                counts["bites"] += missed > 0 and abs(off_s) * SECOND_MS > STEP_MS_MAX
                await _set_clock(arena, 0)
                if restarts or random.random() < 0.3:
                    await _begun_anew(worker, random)
                    counts["begun"] += 1

                async def all_fired() -> bool:
                    await seen.look(arena)
                    return not seen.waiting()

                await until(all_fired, what="what was due is told when the clock is right", within_s=WITHIN_S)
        await arena.topics.settled(WITHIN_S, arena.workers)
        return _told(arena, seen, bought, counts)


def _visits(number: int, seen: Seen, bought: set[str]) -> tuple[list[Record], int]:
    """Carts filled just now, of which some are bought; and when the last of their moments is due."""
    now_ms = wall_ms()
    records = []
    for one in range(CUSTOMERS):
        user, name = f"user:u-{number}-{one}", f"{number}-{one}"
        records.append(added(user, now_ms, f"a-{name}"))
        if one % 4 == 3:
            records.append(ordered(user, now_ms + 1, f"b-{name}"))
            bought.add(user)
        else:
            seen.due_ms[user] = now_ms + WAIT_MS
    return records, now_ms + WAIT_MS


async def _set_clock(arena: Arena, off_s: int) -> None:
    written = arena.store.folder / "clock"
    coming = written.with_suffix(".coming")
    coming.write_text(f"{off_s:+d}")
    coming.rename(written)

    async def agrees() -> bool:
        return abs(await arena.topics.store.now_ms() - wall_ms() - off_s * SECOND_MS) < AGREES_MS

    await until(agrees, what=f"a store whose clock is {off_s:+d} s off", within_s=WITHIN_S)


async def _begun_anew(worker: Any, random: Random) -> None:
    worker.kill()
    worker.env |= shown(random.randrange(-WORKERS_OFF_S, WORKERS_OFF_S))
    worker.start()
    await worker.ready()


async def _past(arena: Arena, seen: Seen, at_ms: int) -> int:
    """Look on until the true clock is past that instant; how many moments are due by then and not told."""

    async def is_past() -> bool:
        await seen.look(arena)
        return wall_ms() >= at_ms

    await until(is_past, what="the moments' instants", within_s=WITHIN_S)
    return len(seen.waiting())


def _told(arena: Arena, seen: Seen, bought: set[str], counts: Counter[str]) -> str:
    told = arena.topics.on[CARTS]
    early_ms = {one: seen.due_ms[one] - at_ms for one, at_ms in seen.at_ms.items() if one in seen.due_ms}
    ids = arena.topics.ids(CARTS, "trigger_id")
    figures = {
        **counts,
        "due": len(seen.due_ms),
        "fired": len(seen.at_ms),
        "early_ms_max": max(0, *early_ms.values()),
        "late_ms_max": -min(early_ms.values()),
        "early": sum(one > STEP_MS_MAX for one in early_ms.values()),
        "clock_back": seen.back,
        "false_mails": len(seen.at_ms.keys() & bought),
        "lost": len(seen.waiting()),
        "twice": len(ids) - len(seen.at_ms),
        "phantom": len(seen.at_ms.keys() - seen.due_ms.keys()),
        "dup_id": len(told) - len(ids),
        "divergent": sum(len(bodies) > 1 for bodies in ids.values()),
        "dlq": len(arena.topics.on[DEAD_LETTERS]),
    }
    bad = ("early", "clock_back", "false_mails", "lost", "twice", "phantom", "divergent", "dlq")
    return line("F9", arena, figures, counts["bites"] > 0 and not any(figures[one] for one in bad))
