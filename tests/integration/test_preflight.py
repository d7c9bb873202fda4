"""`opportune worker` refuses to start where it could not keep its promises, and says all that is wrong (R28)."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from opportune.preflight import violations
from opportune.topics import create_topics, wanted_topics
from profiles.errors import Refused
from profiles.wire import ORDER_EVENTS
from stream.rulebook import load
from stream.settings import Settings, read
from stream.worker import LiveWorker
from tests.conftest import Installation


def settings_of(installation: Installation, **more: str) -> Settings:
    return read(
        {
            "OPPORTUNE_BOOTSTRAP": installation.bootstrap,
            "OPPORTUNE_REDIS_URL": installation.redis_url,
            "OPPORTUNE_GROUP": "preflight",
            "OPPORTUNE_SECRET": "ab" * 16,
            **more,
        }
    )


async def with_trigger_topics(installation: Installation, settings: Settings) -> None:
    await create_topics(installation.bootstrap, wanted_topics(load(settings.own.rules).triggers))


@pytest.mark.invariant("R28")
async def test_a_missing_topic_of_a_trigger_is_told_before_anything_starts(installation: Installation) -> None:
    wrong = await violations(settings_of(installation))
    assert any("triggers.abandoned_cart" in line for line in wrong)


@pytest.mark.invariant("R28")
async def test_a_worker_without_the_secret_is_refused_for_nobody_could_be_erased(installation: Installation) -> None:
    def told(wrong: list[str]) -> list[str]:
        return [line for line in wrong if line.startswith("OPPORTUNE_SECRET")]

    assert len(told(await violations(settings_of(installation, OPPORTUNE_SECRET="")))) == 1
    assert told(await violations(settings_of(installation))) == []


@pytest.mark.invariant("R28")
async def test_an_empty_store_is_refused_where_the_group_has_read_before(installation: Installation) -> None:
    settings = settings_of(installation)
    await with_trigger_topics(installation, settings)
    store_only = [line for line in await violations(settings) if line.startswith("store: the profiles")]
    assert store_only == []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=installation.bootstrap, group_id="preflight", enable_auto_commit=False
    )
    await consumer.start()
    place = TopicPartition(ORDER_EVENTS, 3)
    consumer.assign([place])
    await consumer.commit({place: OffsetAndMetadata(17, "")})
    await consumer.stop()
    wrong = await violations(settings)
    assert any("order_events/3@17" in line and "empty store" in line for line in wrong), wrong


@pytest.mark.invariant("R28")
async def test_another_number_of_partitions_is_refused_by_the_installation(installation: Installation) -> None:
    worker = LiveWorker(settings_of(installation), relaxed=True)
    await worker._same_installation()
    await worker._same_installation()
    other = LiveWorker(settings_of(installation, OPPORTUNE_PARTITIONS="16"), relaxed=True)
    with pytest.raises(Refused, match="'partitions': 16"):
        await other._same_installation()
    await worker.store.close()
    await other.store.close()
