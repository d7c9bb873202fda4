"""Topics on a broker: made once, left alone afterwards, and told when they are not as wanted."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from opportune import parts
from opportune.topics import check_topics, create_topics, found_topics, wanted_topics
from profiles.wire import CART_EVENTS, DEAD_LETTERS, PAGE_VIEWS

pytestmark = pytest.mark.invariant("R28")


async def test_made_topics_pass_the_check_and_are_made_once(fresh_broker: parts.Server) -> None:
    wanted = wanted_topics(["cart_back"])
    assert await create_topics(fresh_broker.address, wanted) == [topic.name for topic in wanted]
    assert await check_topics(fresh_broker.address, wanted) == []
    assert await create_topics(fresh_broker.address, wanted) == []


async def test_asking_about_topics_makes_none(fresh_broker: parts.Server) -> None:
    wanted = wanted_topics()
    assert len(await check_topics(fresh_broker.address, wanted)) == len(wanted)
    assert await found_topics(fresh_broker.address, [CART_EVENTS]) == []


async def test_a_trigger_that_comes_later_gets_its_topic(fresh_broker: parts.Server) -> None:
    await create_topics(fresh_broker.address, wanted_topics(["one"]))
    assert await create_topics(fresh_broker.address, wanted_topics(["one", "two"])) == ["triggers.two"]


async def test_topics_of_another_shape_are_left_as_they_are_and_told(fresh_broker: parts.Server, is_real: bool) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=fresh_broker.address)
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(
                    CART_EVENTS,
                    4,
                    1,
                    topic_configs={
                        "retention.ms": "3600000",
                        "retention.bytes": "-1",
                        "cleanup.policy": "compact",
                        "unclean.leader.election.enable": "true",
                    },
                ),
                NewTopic(DEAD_LETTERS, 1, 1, topic_configs={"unclean.leader.election.enable": "false"}),
            ]
        )
    finally:
        await admin.close()
    wanted = wanted_topics()
    made = await create_topics(fresh_broker.address, wanted)
    assert PAGE_VIEWS in made
    assert not {CART_EVENTS, DEAD_LETTERS} & set(made)
    stamp = "CreateTime" if is_real else "not told"
    segment = "604800000" if is_real else "not told"
    lasting = f"segment.ms of 86400000 or less wanted: the erased would lie there longer than told; found {segment}"
    assert await check_topics(fresh_broker.address, wanted) == [
        "topic cart_events: 8 partitions wanted, as all input topics have, found 4",
        "topic cart_events: cleanup.policy delete wanted: compaction drops events; found compact",
        "topic cart_events: retention.ms of 259200000 or more wanted (72 h), found 3600000",
        "topic cart_events: message.timestamp.type LogAppendTime wanted: what bears an old time may be dropped before 72 h; "
        f"found {stamp}",
        "topic cart_events: unclean.leader.election.enable false wanted: "
        "an unclean leader loses acknowledged records; found true",
        f"topic cart_events: {lasting}",
        f"topic dead_letters: {lasting}",
    ]


async def test_a_broker_that_is_not_there_is_an_error_of_the_outside() -> None:
    with pytest.raises(ConnectionError, match=r"broker: an answer from 127\.0\.0\.1:\d+ wanted"):
        await check_topics(f"127.0.0.1:{parts.free_port()}", wanted_topics())
