"""What R28 says of topics, sentence by sentence; the same on a broker is in tests/contracts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opportune.topics import Topic, violations, wanted_topics
from profiles.errors import Refused
from profiles.wire import CART_EVENTS, DEAD_LETTERS, ERASURES, INPUT_TOPICS, SEGMENT_CHANGES

pytestmark = pytest.mark.invariant("R28")
FEW = "min.insync.replicas of 2 or more wanted: what fewer have is lost with them; found {}"
WANTED = wanted_topics(["cart_back"], partitions=8)


def with_one(name: str, *, partitions: int = 8, **settings: str | None) -> list[Topic]:
    """The wanted topics, one of them otherwise; a setting of ``None`` is not told."""
    found = []
    for topic in WANTED:
        if topic.name == name:
            mixed = {**topic.settings, **{key.replace("_", "."): value for key, value in settings.items()}}
            told = {key: value for key, value in mixed.items() if value is not None}
            found.append(replace(topic, partitions=partitions, settings=told))
        else:
            found.append(topic)
    return found


def test_what_is_wanted_has_no_fault() -> None:
    assert violations(WANTED, WANTED) == []


def test_every_topic_of_the_wire_is_wanted_once_with_equal_partitions() -> None:
    names = [topic.name for topic in WANTED]
    assert len(set(names)) == len(names)
    assert {*INPUT_TOPICS, SEGMENT_CHANGES, DEAD_LETTERS, "triggers.cart_back"} <= set(names)
    assert {topic.partitions for topic in WANTED} == {8}


@pytest.mark.parametrize("partitions", [0, -1, 3, 6, 257, 512])
def test_partitions_that_do_not_divide_the_shards_are_refused(partitions: int) -> None:
    with pytest.raises(Refused, match=f"divides 256 wanted, got {partitions}"):
        wanted_topics(partitions=partitions)


@pytest.mark.parametrize("name", [CART_EVENTS, DEAD_LETTERS, "triggers.cart_back"])
def test_a_missing_topic_is_told(name: str) -> None:
    found = [topic for topic in WANTED if topic.name != name]
    assert violations(WANTED, found) == [f"topic {name}: wanted, not found; `opportune topics create` makes it"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"partitions": 4}, "8 partitions wanted, as all input topics have, found 4"),
        ({"partitions": 6}, "a number of partitions that divides 256 wanted, found 6"),
        ({"cleanup_policy": "compact"}, "cleanup.policy delete wanted: compaction drops events; found compact"),
        (
            {"cleanup_policy": "compact,delete"},
            "cleanup.policy delete wanted: compaction drops events; found compact,delete",
        ),
        ({"retention_ms": "259199999"}, "retention.ms of 259200000 or more wanted (72 h), found 259199999"),
        ({"retention_ms": None}, "retention.ms of 259200000 or more wanted (72 h), found not told"),
        (
            {"retention_bytes": "1000"},
            "retention.bytes -1 wanted: a limit by size may drop what is younger than 72 h; found 1000",
        ),
        (
            {"message_timestamp_type": "CreateTime"},
            "message.timestamp.type LogAppendTime wanted: what bears an old time may be dropped before 72 h; found CreateTime",
        ),
        (
            {"segment_ms": "604800000"},
            "segment.ms of 86400000 or less wanted: the erased would lie there longer than told; found 604800000",
        ),
        (
            {"unclean_leader_election_enable": "true"},
            "unclean.leader.election.enable false wanted: an unclean leader loses acknowledged records; found true",
        ),
    ],
)
def test_a_fault_of_an_input_topic_says_where_what_was_wanted_and_what_was_found(
    fault: dict[str, object], told: str
) -> None:
    assert violations(WANTED, with_one(CART_EVENTS, **fault)) == [f"topic {CART_EVENTS}: {told}"]  # type: ignore[arg-type]  # a table of keyword arguments


@pytest.mark.parametrize("retention", ["259200000", "-1"])
def test_72_hours_are_enough_and_for_ever_too(retention: str) -> None:
    assert violations(WANTED, with_one(CART_EVENTS, retention_ms=retention)) == []


def test_all_faults_come_together_in_the_order_of_the_topics() -> None:
    found = [replace(topic, partitions=4) for topic in WANTED if topic.name != DEAD_LETTERS]
    told = violations(WANTED, found)
    assert [line.split(":")[0] for line in told] == [f"topic {name}" for name in (*INPUT_TOPICS, DEAD_LETTERS)]


def test_the_register_of_erasures_is_kept_for_ever() -> None:
    told = "retention.ms -1 wanted: who restores an old backup needs all of it; found 604800000"
    assert violations(WANTED, with_one(ERASURES, retention_ms="604800000")) == [f"topic {ERASURES}: {told}"]


@pytest.mark.parametrize(
    ("replicas", "in_sync", "told"),
    [
        (3, "2", []),
        (2, "1", ["3 copies wanted (OPPORTUNE_REPLICATION), found 2", FEW.format("1")]),
        (3, "1", [FEW.format("1")]),
        (3, None, [FEW.format("not told")]),
        (3, "3", ["min.insync.replicas below the 3 copies wanted: else one broker that restarts stops all; found 3"]),
        (4, "3", []),
    ],
)
def test_what_is_copied_survives_one_broker_and_one_broker_stops_nobody(
    replicas: int, in_sync: str | None, told: list[str]
) -> None:
    wanted = wanted_topics(partitions=8, replicas=3)
    found = []
    for topic in wanted:
        settings = {
            key: value
            for key, value in topic.settings.items()
            if key != "min.insync.replicas" or topic.name != CART_EVENTS
        }
        if topic.name == CART_EVENTS and in_sync is not None:
            settings["min.insync.replicas"] = in_sync
        found.append(replace(topic, settings=settings, replicas=replicas if topic.name == CART_EVENTS else 3))
    assert violations(wanted, found) == [f"topic {CART_EVENTS}: {fault}" for fault in told]


def test_an_output_topic_may_be_kept_as_its_readers_like() -> None:
    assert violations(WANTED, with_one(SEGMENT_CHANGES, partitions=4, cleanup_policy="compact")) == []
