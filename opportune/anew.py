"""``opportune topics anew``: go on from the beginning of topics that were made anew (stream/anew.py)."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import orjson

from console.topic import lying
from opportune.moving import STILL_S, tokens
from profiles.errors import Refused
from profiles.wire import PROFILE_COMMANDS
from stream.anew import begin_log_anew
from stream.clock import SystemIds
from stream.ports import LogRecord
from stream.settings import Settings
from stream.store import RedisStore
from stream.topic_ids import TOPICS, made_anew, topic_ids
from stream.transport import security


class Anew(NamedTuple):
    """What came of it: the topics that are read from their beginning, and how many commands are told once more."""

    topics: list[str]
    commands: int


async def begun_anew(settings: Settings, *, still_s: float = STILL_S) -> Anew:
    """Begin at offset 0 of the topics that were made anew; the profiles stay. No worker may run.

    Args:
        still_s: how long to look whether somebody writes.
    Raises:
        Refused: none was made anew, or a worker runs; all is as it was.
        OSError: the store or the brokers did not answer; ask again.
    """
    agreed, own = settings
    store = RedisStore.of(own)
    try:
        now = await topic_ids(own)
        known = orjson.loads(await store.get_doc(TOPICS) or b"{}")
        topics = made_anew(known, now)
        if not topics:
            raise Refused("topics: some that were made anew wanted, all are those that the cursors are about")
        before = await tokens(store)
        await asyncio.sleep(still_s)
        if await tokens(store) != before:
            raise Refused("workers: all stopped wanted, but somebody writes to the store")
        commands = []
        if PROFILE_COMMANDS not in topics:
            options = {"bootstrap_servers": own.bootstrap, **security(own)}
            commands = [
                LogRecord(one.topic, one.partition, one.offset, one.key, one.value or b"")
                async for one in lying(PROFILE_COMMANDS, agreed.partitions, options)
            ]
        count = await begin_log_anew(store, SystemIds(), topics, commands, agreed.partitions)
        # Last: a worker that is started before goes on being refused, and asking again begins anew once more.
        await store.put_doc(TOPICS, orjson.dumps(known | now))
        return Anew(topics, count)
    finally:
        await store.close()
