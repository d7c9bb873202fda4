"""``opportune store copy``: everything that the store holds, into an empty one: a larger server, or a Cluster.

Profiles, alarms, outboxes and cursors lie in keys of their own and mean the same wherever they lie, so each is dumped here
and restored there, bytes and expiry. That they belong together needs stillness: no worker may write while they are copied.
Workers write to each shard every two seconds, so it can be seen whether one runs.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from profiles.errors import Refused
from profiles.ids import SHARDS
from stream.redis_client import client_of
from stream.settings import Own
from stream.store import RedisStore

STILL_S: Final = 5.0
"""More than two beats of a worker (``stream.handlers.BEAT_S``)."""
AT_ONCE: Final = 500


async def copied(own: Own, to_url: str, *, to_cluster: bool, still_s: float = STILL_S) -> int:
    """Copy the store that the settings name; how many keys.

    Args:
        own: whose store is copied.
        to_url: of the new server, or of any node of the Cluster.
        still_s: how long to look whether somebody writes.
    Raises:
        Refused: the target holds something, a worker runs, or not all came over; the source is as it was.
        OSError: one of them did not answer.
    """
    store = RedisStore.of(own)
    source, target = client_of(own.redis_url, cluster=own.redis_cluster), client_of(to_url, cluster=to_cluster)
    try:
        there = await _size(target)
        if there:
            raise Refused(f"target: an empty store wanted, found {there} keys")
        before = await tokens(store)
        if not any(before):
            raise Refused("source: an installation wanted, found none in the store of the settings")
        await asyncio.sleep(still_s)
        if await tokens(store) != before:
            raise Refused("workers: all stopped wanted, but somebody writes to the source")
        count, waiting = 0, []
        async for key in source.scan_iter(count=AT_ONCE):
            waiting.append(key)
            if len(waiting) == AT_ONCE:
                count += await _carry(source, target, waiting)
                waiting = []
        count += await _carry(source, target, waiting)
        if await tokens(store) != before:
            raise Refused(
                "workers: all stopped wanted, but somebody wrote to the source meanwhile; empty the target, begin again"
            )
        there = await _size(target)
        if there < count:
            raise Refused(f"target: {count} keys wanted, found {there}; empty it, begin again")
        return count
    except redis_errors.ResponseError as error:
        raise Refused(f"target: a server that restores what the source dumps wanted, it answers: {error}") from None
    except (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.RedisClusterException) as error:
        raise ConnectionError(f"store: an answer of both wanted, got {type(error).__name__}") from error
    finally:
        await store.close()
        await source.aclose()
        await target.aclose()


async def _size(client: Any) -> int:
    sizes = (
        await client.dbsize() if isinstance(client, Redis) else await client.dbsize(target_nodes=RedisCluster.PRIMARIES)
    )
    return int(sum(sizes.values()) if isinstance(sizes, dict) else sizes)


async def tokens(store: RedisStore) -> list[bytes]:
    """Of all shards: they change as long as a worker runs."""
    return [state.token for state in await store.read_shards(range(SHARDS))]


async def _carry(source: Any, target: Any, keys: list[bytes]) -> int:
    """Carry these keys over, one way there and back for all; how many there still were."""
    asking = source.pipeline(transaction=False)
    for key in keys:
        asking.pttl(key)
        asking.dump(key)
    told = await asking.execute() if keys else []
    telling = target.pipeline(transaction=False)
    # What has expired since has no bytes any more.
    there = [(key, left_ms, dumped) for key, left_ms, dumped in zip(keys, told[::2], told[1::2], strict=True) if dumped]
    for key, left_ms, dumped in there:
        telling.restore(key, max(0, left_ms), dumped)
    if there:
        await telling.execute()
    return len(there)
