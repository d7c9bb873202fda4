"""What a group of workers has told Kafka: information only, but never more than is stored (R6)."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from profiles.wire import INPUT_TOPICS
from stream.feed import Place
from stream.settings import Settings
from stream.transport import security


async def committed(settings: Settings) -> dict[Place, int]:
    """Where the group goes on, of each input topic and partition of which it has ever told; 0 is left out.

    Raises:
        OSError: no broker answered.
    """
    agreed, own = settings
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=own.bootstrap, group_id=own.group, enable_auto_commit=False, **security(own)
    )
    found: dict[Place, int] = {}
    try:
        await consumer.start()
        for topic in INPUT_TOPICS:
            for partition in range(agreed.partitions):
                offset = await consumer.committed(TopicPartition(topic, partition))
                if offset:
                    found[topic, partition] = offset
    except KafkaError as error:
        raise OSError(f"brokers at {own.bootstrap}: the group's offsets wanted, got {type(error).__name__}") from error
    finally:
        await consumer.stop()
    return found
