"""A small topic from its first record to its end: the register of erasures, the dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

SILENT_S_MAX: Final = 60.0
POLL_MS: Final = 200


async def lying(
    topic: str, partitions: int, options: Mapping[str, Any], *, last: int | None = None
) -> AsyncIterator[Any]:
    """Every record that lies there now; of a partition in its order.

    Args:
        last: only so many of each partition, the latest; sometimes more.
        options: how to reach the brokers, as aiokafka takes it.
    Raises:
        OSError: a broker did not answer.
    """
    consumer: Any = AIOKafkaConsumer(
        group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", **dict(options)
    )
    try:
        await consumer.start()
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        if last is not None:
            begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, max(begins[place], ends[place] - last))
        at_end = False
        while not at_end:
            async with asyncio.timeout(SILENT_S_MAX):
                found = await consumer.getmany(timeout_ms=POLL_MS)
                # Only a fetch tells where a topic ends.
                at_end = all([await _is_at_end(consumer, place) for place in places])
            for records in found.values():
                for record in records:
                    yield record
    except (KafkaError, TimeoutError) as error:
        raise OSError(f"brokers: the topic {topic} wanted, got {type(error).__name__}") from error
    finally:
        await consumer.stop()


async def _is_at_end(consumer: Any, place: TopicPartition) -> bool:
    highwater = consumer.highwater(place)
    return highwater is not None and bool(await consumer.position(place) >= highwater)
