"""What is done to an installation: the fault runs of RELIABILITY's table that are built, by name."""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections import Counter
from collections.abc import Sequence
from random import Random  # noqa: TID251 - seeded: the same poison every time
from typing import Final

from redis import Redis
from redis.crc import key_slot

from opportune.parts import HOST
from profiles.ids import SHARDS
from profiles.wire import CART_EVENTS, ORDER_EVENTS, PAGE_VIEWS, Record
from stream.clock import monotonic_ms
from tests.faults.arena import GAVE_UP, WITHIN_S, Arena, Plan
from tests.faults.proxy import FAIR, Weather
from tests.integration.parts import EndedByItself, until
from tests.integration.test_kill import applied
from tests.parts import real

ROUGH: Final = Weather(delay_ms=60, delays=0.2, resets=0.02, stalls=0.004)
TRIES: Final = "the store did not"
FENCED: Final = "fenced:"
NOTICED_WITHIN_S: Final = 15.0


async def kill_a_worker(arena: Arena) -> None:
    """SIGKILL one of them, and start it again at once."""
    worker = arena.random.choice([one for one in arena.workers if one.runs])
    busy = await arena.left()
    worker.kill()
    arena.counts["bites"] += busy > 0
    worker.start()
    await worker.ready()


async def freeze_a_worker(arena: Arena) -> None:
    """Freeze one whose write is on its way until the others have all its shards; then let both go on: it is refused."""
    worker = arena.workers[arena.held]
    fenced = worker.words().count(FENCED)
    worker.pause()
    try:
        tokens = [state.token for state in await arena.topics.store.read_shards(range(SHARDS))]

        async def others_have_all() -> bool:
            states = await arena.topics.store.read_shards(range(SHARDS))
            return all(state.token != token for state, token in zip(states, tokens, strict=True))

        await until(others_have_all, what="the others write every shard", within_s=WITHIN_S)
        arena.release()
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
        # It had heard from the group first, and never asked what became of its write.
        arena.counts["unheard"] += 1
        return
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
    """End Apache Kafka, by SIGKILL or as it should, under a write whose records it shall take; start it on its files."""
    if arena.random.random() < 0.5:
        arena.broker.kill()
        arena.counts["kills"] += 1
    else:
        await arena.broker.stop()
        arena.counts["stops"] += 1
    arena.release()
    longest = 0
    for _ in range(20):
        longest = max(longest, await arena.outbox())
        await asyncio.sleep(0.1)  # How long it is away is the fault, not a condition.
    await arena.broker.start()
    arena.counts["bites"] += longest > 0
    arena.counts["outbox_max"] = max(arena.counts["outbox_max"], longest)


async def lose_the_tail(arena: Arena) -> None:
    """SIGKILL redis-server and cut off what it wrote last: it forgets writes that it had acknowledged."""
    before, fenced = await arena.stored(), _fences(arena)
    arena.store.kill()
    [log] = (arena.store.folder / "appendonlydir").glob("*.incr.aof")
    with log.open("r+b") as file:
        size = log.stat().st_size
        file.truncate(size - int(size * (0.02 + 0.2 * arena.random.random())))
    await arena.store.start()
    await _after_roll_back(arena, before, fenced)


async def fail_over(arena: Arena) -> None:
    """The replica stands still for some writes and is then made the store; who was the store begins anew as its replica."""
    assert arena.replica is not None
    old, new = arena.store, arena.replica
    with Redis(port=new.port) as client:

        async def is_in_step() -> bool:
            return bool(client.info("replication")["master_link_status"] == "up")

        await until(is_in_step, what="a replica in step", within_s=WITHIN_S)
        new.pause()
        stale = await arena.stored()
        arena.release()

        async def has_moved() -> bool:
            arena.assert_alive()
            return await arena.stored() > stale

        await until(has_moved, what="a write that the replica has not", within_s=WITHIN_S)
        before, fenced = await arena.stored(), _fences(arena)
        old.kill()
        new.resume()
        client.replicaof("NO", "ONE")
        await arena.move(new)
        await _after_roll_back(arena, before, fenced)
    await old.start()
    with Redis(port=old.port) as client:
        client.replicaof(HOST, str(new.port))
    arena.replica = old


def _fences(arena: Arena) -> int:
    """How often a worker was fenced; the last of too many within a minute has words of its own."""
    return arena.said(FENCED) + arena.said(GAVE_UP)


async def _after_roll_back(arena: Arena, before: int, fenced: int) -> None:
    forgotten = before - await arena.stored()
    arena.counts["forgotten"] += max(0, forgotten)
    arena.release()
    if forgotten <= 0:
        return

    async def is_noticed() -> bool:
        arena.assert_alive()
        return _fences(arena) > fenced

    await until(is_noticed, what="a worker that notices what is forgotten", within_s=WITHIN_S)
    arena.counts["bites"] += 1


async def tail_or_fail_over(arena: Arena) -> None:
    """One of the two."""
    is_tail = arena.counts["faults"] % 2 == 0
    arena.counts["tails" if is_tail else "failovers"] += 1
    await (lose_the_tail if is_tail else fail_over)(arena)


async def fill_up(arena: Arena) -> None:
    """The store has no memory left, or its disk takes no byte more: writes are refused until there is room again."""
    is_disk, said = arena.counts["faults"] % 2 == 1, arena.said(TRIES)
    began_ms = monotonic_ms()
    with Redis(port=arena.store.port) as client:
        if is_disk:
            resource.prlimit(arena.store.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        else:
            client.config_set("maxmemory", 1)
        arena.release()

        async def is_missed() -> bool:
            arena.assert_alive()
            return arena.said(TRIES) > said

        await until(is_missed, what="a worker that is refused", within_s=WITHIN_S)
        before = await arena.stored()
        await asyncio.sleep(2)  # How long it is full is the fault, not a condition.
        assert await arena.stored() == before, "a full store has taken writes"
        if is_disk:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(arena.store.pid, resource.RLIMIT_FSIZE, unlimited)
        else:
            client.config_set("maxmemory", 0)

        async def goes_on() -> bool:
            arena.assert_alive()
            return await arena.stored() > before

        await until(goes_on, what="workers that go on unaided", within_s=WITHIN_S)
    arena.counts["full_disk" if is_disk else "no_memory"] += 1
    arena.counts["paused_s"] += (monotonic_ms() - began_ms) // 1000
    arena.counts["bites"] += 1


async def keep_a_backup(arena: Arena) -> None:
    """Put a backup aside while a write is on its way: first a snapshot, then a copy of the append-only file."""
    folder = arena.store.folder
    with Redis(port=arena.store.port) as client:
        if arena.counts["faults"] % 2 == 0:
            client.save()
            shutil.copy(folder / "dump.rdb", folder / "kept.rdb")
            arena.counts["kept_snapshot"] = await arena.stored()
        else:
            # As the runbook says: no rewrite may begin while its files are copied.
            client.config_set("auto-aof-rewrite-percentage", 0)
            await _rewritten(client)
            arena.counts["kept_log"] = await arena.stored()
            shutil.copytree(folder / "appendonlydir", folder / "kept")
            client.config_set("auto-aof-rewrite-percentage", 100)


async def restore(arena: Arena) -> None:
    """Lose the store with all its files, put a backup in its place, and start the workers, who read on from it: first
    the snapshot, and when all is well again, the append-only file."""
    for kind in ("kept_snapshot", "kept_log"):
        for worker in arena.workers:
            worker.kill()
        gone = await arena.stored() - arena.counts[kind]
        arena.store.kill()
        shutil.rmtree(arena.store.folder / "appendonlydir")
        await (_put_snapshot if kind == "kept_snapshot" else _put_log)(arena)
        arena.counts[f"gone_since_{kind}"] = gone
        arena.counts["bites"] += gone > 0
        for worker in arena.workers:
            worker.start()
        for worker in arena.workers:
            await worker.ready()
        await arena.topics.settled(WITHIN_S, arena.workers)


async def _put_snapshot(arena: Arena) -> None:
    # As the runbook says: a server that keeps a log reads no snapshot, so it is read first, and then the log begun.
    folder = arena.store.folder
    loader = real.redis_server(folder, port=arena.store.port, keep=False)
    shutil.copy(folder / "kept.rdb", folder / "dump.rdb")
    await loader.start()
    with Redis(port=loader.port) as client:
        client.config_set("appendonly", "yes")
        await _rewritten(client)
    await loader.stop()
    await arena.store.start()


async def _put_log(arena: Arena) -> None:
    folder = arena.store.folder
    shutil.copytree(folder / "kept", folder / "appendonlydir")
    await arena.store.start()


async def _rewritten(client: Redis) -> None:
    async def is_written() -> bool:
        return not client.info("persistence")["aof_rewrite_in_progress"]

    await until(is_written, what="an append-only file that nobody rewrites", within_s=WITHIN_S)


async def succeed_the_master(arena: Arena) -> None:
    """Kill a master, until its replica has its place and it follows; workers find the new one by themselves."""
    assert arena.many is not None
    missed, began_ms = arena.said(TRIES), monotonic_ms()
    await arena.many.fail_over(arena.random.randrange(3))

    async def is_found() -> bool:
        try:
            return await arena.stored() >= 0
        except OSError:
            return False

    await until(is_found, what="the test's own client finds the new master", within_s=WITHIN_S)
    arena.counts["bites"] += arena.said(TRIES) > missed
    arena.counts["away_ms_max"] = max(arena.counts["away_ms_max"], monotonic_ms() - began_ms)


async def succeed_or_migrate(arena: Arena) -> None:
    """One or the other: a master is killed, or the slot of a shard with profiles goes to another master."""
    assert arena.many is not None
    if arena.counts["faults"] % 2 == 0:
        arena.counts["failovers"] += 1
        return await succeed_the_master(arena)
    missed, moved = arena.said(TRIES), 0
    for shard in arena.random.sample(range(SHARDS), 12):
        moved += await arena.many.migrate(key_slot(f"{{{shard}}}cur".encode()))
    arena.counts["moved_keys"] += moved
    arena.counts["bites"] += moved > 0 and arena.said(TRIES) > missed
    return None


async def bad_weather(arena: Arena) -> None:
    """Between workers and store pieces are late, connections are reset or fall silent in one direction, for a while."""

    def rained() -> Counter[str]:
        return sum((proxy.bites for proxy in arena.proxies), Counter())

    before, bites = await applied(arena.topics), rained().total()
    for proxy in arena.proxies:
        proxy.weather = ROUGH

    async def has_rained() -> bool:
        arena.assert_alive()
        is_wet = rained().total() > bites + 20
        return is_wet and (await applied(arena.topics) > before or not await arena.left())

    await until(has_rained, what="bad weather, and something applied in it", within_s=WITHIN_S)
    for proxy in arena.proxies:
        proxy.weather = FAIR
        proxy.cut()
    arena.counts.update({name: count - arena.counts[name] for name, count in rained().items()})
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
        Plan("F2", "workers frozen beyond their session", freeze_a_worker, 2, 30, 40_000, 2, 2_500, held=True),
        Plan("F3", "redis-server killed", kill_the_store, 2, 60, 60_000, 1, 2_500),
        Plan(
            "F4", "the store forgets", tail_or_fail_over, 2, 40, 60_000, 2, 2_500,
            ("bites", "forgotten", "tails", "failovers"), held=True, replicated=True,
        ),
        Plan("F5", "a master succeeded by Sentinels", succeed_the_master, 2, 20, 60_000, 1, 2_500, stores="sentinel"),
        Plan(
            "F5c", "a master of a Cluster succeeded, a slot moved", succeed_or_migrate, 2, 20, 60_000, 2, 2_500,
            ("bites", "failovers", "moved_keys"), stores="cluster",
        ),
        Plan("F6", "Apache Kafka killed or stopped", kill_the_broker, 2, 40, 60_000, 2, 2_500, held=True),
        Plan("F7", "bad weather before the store", bad_weather, 2, 60, 60_000, 1, 2_500),
        Plan("F8", "a full store", fill_up, 2, 10, 20_000, 2, 2_500, ("bites", "no_memory", "full_disk"), held=True),
        Plan(
            "F11", "poison", None, 2, 0, 100_000, 0, 2_500, ("bites", "malformed", "bug"), poisoned, after=count_letters,
        ),
        Plan("F12", "members that leave and join", storm, 3, 100, 60_000, 3, 4_000),
        Plan(
            "F14", "backups restored", keep_a_backup, 2, 2, 20_000, 2, 2_500,
            ("gone_since_kept_snapshot", "gone_since_kept_log"), held=True, after=restore,
        ),
    )
}  # fmt: skip
