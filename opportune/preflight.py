"""Before a worker starts in production: what would break a guarantee is told, all at once, and nothing starts (R28)."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from opportune.topics import agreed_topics, check_topics
from profiles.ids import SHARDS
from profiles.wire import INPUT_TOPICS
from stream.rulebook import load
from stream.settings import Settings
from stream.store import RedisStore
from stream.transport import security


async def violations(settings: Settings) -> list[str]:
    """What is wrong with topics and store, a sentence each; empty when a worker may start.

    Raises:
        Refused, BadDocument: the rules are not to be had.
        OSError: the brokers or the store do not answer.
    """
    agreed, own = settings
    book = load(own.rules, zone=agreed.zone, currency=agreed.currency)
    wrong = await check_topics(own.bootstrap, agreed_topics(agreed, book.triggers), security=security(own))
    if not agreed.secret:
        # Tombstones of erased people lie under hashes that it keys.
        wrong.append("OPPORTUNE_SECRET: at least 32 hexadecimal digits wanted, got nothing")
    store = RedisStore(own.redis_url)
    try:
        wrong += await store.check(relaxed=False)
        states = await store.read_shards(range(SHARDS))
    finally:
        await store.close()
    if not wrong and not any(state.token for state in states):
        told = await _committed(settings)
        if told:
            wrong.append(
                f"store: the profiles that go with group {own.group!r} wanted, got an empty store although the group has "
                f"read up to {told}; restore the store's backup, or begin a new group"
            )
    return wrong


async def _committed(settings: Settings) -> str:
    """The first place that the group has committed beyond its beginning; "" when there is none."""
    agreed, own = settings
    consumer = AIOKafkaConsumer(
        bootstrap_servers=own.bootstrap, group_id=own.group, enable_auto_commit=False, **security(own)
    )
    try:
        await consumer.start()
        for topic in INPUT_TOPICS:
            for partition in range(agreed.partitions):
                offset = await consumer.committed(TopicPartition(topic, partition))
                if offset:
                    return f"{topic}/{partition}@{offset}"
    except KafkaError as error:
        raise OSError(f"brokers at {own.bootstrap}: the group's offsets wanted, got {type(error).__name__}") from error
    finally:
        await consumer.stop()
    return ""
