"""Fault runs on the store's clock: F10, an outage of ten hours, and F17, somebody who tells more than all others."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same customers every time
from typing import Any, Final

from profiles.ids import partition_of, shard_of
from profiles.moments import HOUR_MS, MINUTE_MS, SECOND_MS, parse_instant
from profiles.taxonomy import canonical, resolve
from profiles.wire import DEAD_LETTERS, DECISIONS, SEGMENT_CHANGES, Event, Record, trigger_topic
from stream.clock import wall_ms
from tests.faults.arena import WITHIN_S, Arena, Plan, commit, standing
from tests.integration.parts import append, as_record, producing, until

OUTAGE_MS: Final = 10 * HOUR_MS
WAIT_MS: Final = HOUR_MS
MAX_AGE_MS: Final = 2 * HOUR_MS
CARTS: Final = trigger_topic("left_cart")
RULES: Final = """
traits:
  orders_count: {count: order}
segments:
  buyers:
    says: Has bought.
    when: {trait: orders_count, gte: 1}
triggers:
  left_cart:
    says: A cart was left for an hour.
    on: {event: product_added}
    key: cart_id
    cancel_on: [{event: order_completed, match: cart_id, or: covers_items}]
    consent: {channel: email, mode: opt_out}
    max_age: PT2H
    pace: PT10M
    steps:
      - wait: PT1H
      - emit: {template: cart}
"""
DRILL: Final = {"product_id": "drill", "price": 50, "currency": "USD"}


def plan_of(name: str, what: str, folder: Path, rules: str = RULES, stores: str = "one") -> Plan:
    """Two workers on the store's clock, under these rules."""
    place = folder / "rules"
    place.mkdir(parents=True)
    (place / "shop.yaml").write_text(rules)
    return Plan(name, what, None, 2, 0, 0, 0, 0, settings={"clock": "store", "rules": str(place)}, stores=stores)


def event_of(name: str, user: str, at_ms: int, message_id: str, **raw: Any) -> Event:
    """What somebody does now, by his user id."""
    kind = resolve(name)
    return Event(message_id, "web", kind.name, at_ms, at_ms, user, (), canonical(kind, raw))


def added(user: str, at_ms: int, name: str) -> Record:
    """A drill into the cart."""
    return as_record(event_of("Product Added", user, at_ms, name, **DRILL, quantity=1))


def ordered(user: str, at_ms: int, name: str) -> Record:
    """The drill is bought."""
    props = {"order_id": f"o-{name}", "currency": "USD", "total": 50, "products": [{**DRILL, "quantity": 1}]}
    return as_record(event_of("Order Completed", user, at_ms, name, **props))


async def started(arena: Arena) -> None:
    """Start the workers; return when all have partitions."""
    for worker in arena.workers:
        worker.start()
    for worker in arena.workers:
        await worker.ready()


async def outage(seed: int, folder: Path, customers: int) -> str:
    """F10: workers are away for ten hours, in which carts are left and some are bought after all.

    What lies on the log is what collectors took meanwhile. Nobody who has bought may be written to; a moment
    older than its ``max_age`` is ``expired`` and told as such; the others go out, spread over their pace.
    """
    random = Random(seed)
    async with standing(plan_of("F10", "ten hours of outage", folder), seed, folder) as arena:
        now_ms = await arena.topics.store.now_ms()
        records: list[tuple[int, Record]] = []
        wanted: dict[str, set[str]] = {"fire": set(), "expire": set(), "wait": set(), "bought": set()}
        for number in range(customers):
            # So late is its moment when the workers are back; none so near a bound that their start decides.
            late_ms = random.choice(
                (random.randrange(5, 90), random.randrange(150, 530), random.randrange(-50, -20))
            )  # minutes
            user, added_ms = f"user:u-{number}", now_ms - late_ms * MINUTE_MS - WAIT_MS
            records.append((added_ms, added(user, added_ms, f"a-{number}")))
            if random.random() < 0.3:
                bought_ms = added_ms + 5 * MINUTE_MS
                records.append((bought_ms, ordered(user, bought_ms, f"b-{number}")))
                wanted["bought"].add(user)
            else:
                kind = "wait" if late_ms < 0 else "fire" if late_ms * MINUTE_MS < MAX_AGE_MS else "expire"
                wanted[kind].add(user)
        records.sort(key=lambda one: one[0])
        async with producing(arena.shop) as producer:
            await append(arena.shop, producer, [record for _, record in records])
        await started(arena)
        topics = arena.topics

        def decided() -> list[dict[str, Any]]:
            return [one for one in topics.json(DECISIONS) if one["trigger"] == "left_cart"]

        async def all_decided() -> bool:
            arena.assert_alive()
            await topics.read()
            told = {one["address"] for one in decided() if one["outcome"] != "cancelled"}
            return wanted["fire"] | wanted["expire"] <= told and await topics.is_settled()

        await until(all_decided, what="every moment of the outage decided", within_s=WITHIN_S)
        sent = {one.key.decode(): one.json() for one in topics.on[CARTS] if one.key}
        expired = {one["address"] for one in decided() if one["reason"] == "expired"}
        begins = Counter(parse_instant(one["send"]["not_before"]) // SECOND_MS for one in sent.values())
        early = sum(
            parse_instant(one["send"]["not_before"]) < parse_instant(one["at"])
            or parse_instant(one["send"]["not_before"]) > parse_instant(one["send"]["not_after"])
            for one in sent.values()
        )
        figures = {
            "customers": customers,
            "due": len(wanted["fire"] | wanted["expire"]),
            "fired": len(sent),
            "expired": len(expired),
            "waiting": len(wanted["wait"]),
            "bought": len(wanted["bought"]),
            "false_mails": len(sent.keys() & wanted["bought"]),
            "early": early,
            "peak_per_s": max(begins.values(), default=0),
            "lost": len(wanted["fire"] - sent.keys()) + len(wanted["expire"] - expired),
            "twice": len(topics.on[CARTS]) - len(sent),
            "phantom": len(sent.keys() - wanted["fire"]) + len(expired - wanted["expire"]),
            "dlq": len(topics.on[DEAD_LETTERS]),
        }
        is_good = not any(figures[one] for one in ("false_mails", "early", "lost", "twice", "phantom", "dlq"))
        return line("F10", arena, figures, is_good and all(wanted.values()))


async def crowd_of_one(seed: int, folder: Path, events: int) -> str:
    """F17: one profile tells so many things at once; how late are the others, before and meanwhile?

    Lateness is from an order's arrival to the publishing of its segment change. Others of the same partition stand
    behind them in the log, so they are counted by themselves.
    """
    async with standing(plan_of("F17", "a crowd of one", folder), seed, folder) as arena:
        topics, loud = arena.topics, "user:loud"
        count = arena.shop.installation.partitions
        await started(arena)
        async with producing(arena.shop) as producer:

            async def others(name: str, told: int) -> None:
                for number in range(told):
                    user = f"user:{name}-{number}"
                    await append(arena.shop, producer, [ordered(user, wall_ms(), f"{name}-{number}")])
                    await asyncio.sleep(0.05)

            async def crowd() -> None:
                for first in range(0, events, 500):
                    now_ms = wall_ms()
                    names = range(first, min(events, first + 500))
                    await append(
                        arena.shop, producer, [added(loud, now_ms, f"l-{number}") for number in names]
                    )  # fmt: skip

            await others("calm", 200)
            await topics.settled(WITHIN_S, arena.workers)
            async with asyncio.TaskGroup() as both:
                both.create_task(crowd())
                both.create_task(others("meanwhile", 400))
            await topics.settled(10 * WITHIN_S, arena.workers)
        late: dict[str, list[int]] = {"calm": [], "meanwhile": [], "behind": []}
        place = partition_of(shard_of(loud), count)
        entered = [one for one in topics.on[SEGMENT_CHANGES] if one.json()["segment"] == "buyers"]
        for one in entered:
            told = one.json()
            kind = told["address"].removeprefix("user:").partition("-")[0]
            behind = kind == "meanwhile" and partition_of(shard_of(told["address"]), count) == place
            late["behind" if behind else kind].append(one.at_ms - parse_instant(told["at"]))
        blob = (await topics.blobs())[loud]
        figures = {
            "events": events,
            "others": 600,
            **{f"p99_{name}_ms": _p99(values) for name, values in late.items()},
            "p99_change_ms": _p99(late["meanwhile"]) - _p99(late["calm"]),
            "blob_bytes": len(blob),
            "lost": 600 - len({one.json()["address"] for one in entered}),
            "twice": len(entered) - len({one.json()["change_id"] for one in entered}),
            "dlq": len(topics.on[DEAD_LETTERS]),
        }
        is_good = not (figures["lost"] or figures["twice"] or figures["dlq"]) and len(blob) <= 16 << 10
        return line("F17", arena, figures, is_good and events > 300)


def _p99(values: list[int]) -> int:
    return sorted(values)[max(0, len(values) * 99 // 100 - 1)] if values else 0


def line(name: str, arena: Arena, figures: dict[str, int], is_good: bool) -> str:
    """What is printed of a run."""
    words = " ".join(f"{one}={value}" for one, value in figures.items())
    return f"{name} seed={arena.seed} commit={commit()} {words} {'PASS' if is_good else 'FAIL'}"
