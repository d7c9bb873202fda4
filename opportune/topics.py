"""The topics: what is wanted of each, making them, and telling what is wrong with those that are there (R28).

A topic that exists is never changed here: its records may be somebody's only copy. ``check`` says what was wanted and
what was found, and the caller refuses to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from profiles.errors import Refused
from profiles.ids import SHARDS
from profiles.wire import (
    AUDIENCES,
    COUPONS,
    DEAD_LETTERS,
    DECISIONS,
    ERASURES,
    INPUT_TOPICS,
    SEGMENT_CHANGES,
    TASKS,
    TRAIT_CHANGES,
    trigger_topic,
)
from stream.settings import Agreed

PARTITIONS: Final = 8
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
INPUT_RETENTION_MS: Final = 7 * DAY_MS
INPUT_RETENTION_MS_MIN: Final = 72 * HOUR_MS
OUTPUT_RETENTION_MS: Final = 7 * DAY_MS
DEAD_LETTER_RETENTION_MS: Final = 30 * DAY_MS
FOR_EVER_MS: Final = -1
SEGMENT_MS: Final = DAY_MS
"""A broker forgets whole segments, when their last record is old enough: a record lies there so much longer at most."""
VISIBLE_WITHIN_S: Final = 30.0
POLL_S: Final = 0.02

PLAIN: Final[Mapping[str, Any]] = {}

POLICY: Final = "cleanup.policy"
RETENTION: Final = "retention.ms"
RETENTION_BYTES: Final = "retention.bytes"
SEGMENT: Final = "segment.ms"
UNCLEAN: Final = "unclean.leader.election.enable"
IN_SYNC: Final = "min.insync.replicas"
STAMP: Final = "message.timestamp.type"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as wanted or as found.

    Attributes:
        partitions: how many.
        settings: the broker's words for them; a broker may tell only those that were set.
        replicas: copies of each record; of the partition that has the fewest.
    """

    name: str
    partitions: int
    settings: Mapping[str, str]
    replicas: int = 1


def wanted_topics(
    triggers: Iterable[str] = (),
    *,
    partitions: int = PARTITIONS,
    replicas: int = 1,
    input_retention_ms: int = INPUT_RETENTION_MS,
    output_retention_ms: int = OUTPUT_RETENTION_MS,
) -> tuple[Topic, ...]:
    """Every topic of an installation, each setting spelled out, so that no broker's default decides.

    Args:
        triggers: names of triggers; each has a topic of its own.
        partitions: of every topic; divides ``SHARDS``.
        replicas: copies of each record; with 3, a write is acknowledged by 2.
        input_retention_ms, output_retention_ms: how long records are kept; dead letters always for 30 days.
    Raises:
        Refused: ``partitions`` does not divide ``SHARDS``.
    """
    if partitions < 1 or SHARDS % partitions:
        raise Refused(f"topics: a number of partitions that divides {SHARDS} wanted, got {partitions}")

    def topic(name: str, retention_ms: int, **more: str) -> Topic:
        settings = {
            POLICY: "delete",
            RETENTION: str(retention_ms),
            RETENTION_BYTES: "-1",
            SEGMENT: str(SEGMENT_MS),
            UNCLEAN: "false",
            IN_SYNC: str(max(1, replicas - 1)),
        }
        return Topic(name, partitions, settings | more, replicas)

    # Input is kept by the time it was appended: a record of last year, imported today, has its seven days too.
    appended = {STAMP: "LogAppendTime"}
    return (
        *(topic(name, input_retention_ms, **appended) for name in INPUT_TOPICS),
        *(
            topic(name, output_retention_ms)
            for name in (SEGMENT_CHANGES, TRAIT_CHANGES, DECISIONS, TASKS, COUPONS, AUDIENCES)
        ),
        topic(DEAD_LETTERS, DEAD_LETTER_RETENTION_MS),
        topic(ERASURES, FOR_EVER_MS),  # the register: hashes only, for whoever restores an old backup
        *(topic(trigger_topic(name), output_retention_ms) for name in triggers),
    )


def agreed_topics(agreed: Agreed, triggers: Iterable[str]) -> tuple[Topic, ...]:
    """``wanted_topics`` as the settings say."""
    return wanted_topics(
        triggers,
        partitions=agreed.partitions,
        replicas=agreed.replication,
        input_retention_ms=agreed.input_retention_ms,
        output_retention_ms=agreed.output_retention_ms,
    )


async def create_topics(bootstrap: str, wanted: Sequence[Topic], *, security: Mapping[str, Any] = PLAIN) -> list[str]:
    """Make those that are missing; return when the broker shows all of them with a leader.

    Args:
        bootstrap: ``host:port``, several with commas.
        wanted: of ``wanted_topics``.
        security: how to speak to the brokers: ``stream.transport.security``.
    Returns:
        The names that were made, in the order of ``wanted``.
    Raises:
        Refused: the broker would not make one; says which and why.
        OSError: there is no broker.
    """
    async with _admin(bootstrap, security) as admin:
        there = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in there]
        made: list[str] = []
        if missing:
            answer = await admin.create_topics(
                [
                    NewTopic(topic.name, topic.partitions, topic.replicas, topic_configs=topic.settings)
                    for topic in missing
                ]
            )
            for name, code, message in answer.topic_errors:
                if code == 0:
                    made.append(name)
                elif code != TopicAlreadyExistsError.errno:  # somebody else was quicker: as good
                    raise Refused(f"topic {name}: to be made, the broker answers {code}: {message}")
        names = [topic.name for topic in wanted]
        try:
            async with asyncio.timeout(VISIBLE_WITHIN_S):
                while not await _all_led(admin, names):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Refused(f"topics: all with a leader within {VISIBLE_WITHIN_S:.0f} s wanted, some have none") from None
    return made


async def check_topics(bootstrap: str, wanted: Sequence[Topic], *, security: Mapping[str, Any] = PLAIN) -> list[str]:
    """Say how the broker's topics break R28; empty when the engine may start.

    Raises:
        OSError: there is no broker.
    """
    return violations(wanted, await found_topics(bootstrap, [topic.name for topic in wanted], security=security))


async def found_topics(bootstrap: str, names: Sequence[str], *, security: Mapping[str, Any] = PLAIN) -> list[Topic]:
    """Those of the names that exist, as they are.

    Raises:
        OSError: there is no broker.
    """
    async with _admin(bootstrap, security) as admin:
        # Only of those that exist: asked about another, a broker may make it with its own number of partitions.
        there = set(await admin.list_topics())
        names = [name for name in names if name in there]
        if not names:
            return []
        shapes = {
            each["topic"]: (len(each["partitions"]), min(len(part["replicas"]) for part in each["partitions"]))
            for each in await admin.describe_topics(names)
        }
        settings: dict[str, dict[str, str]] = {name: {} for name in names}
        for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
            for _code, _message, _type, name, entries in answer.resources:
                settings[name] = {entry[0]: entry[1] for entry in entries}
        return [Topic(name, shapes[name][0], settings[name], shapes[name][1]) for name in names]


def violations(wanted: Sequence[Topic], found: Sequence[Topic]) -> list[str]:
    """Compare topics with what R28 asks of them.

    A setting that the broker does not tell counts as not met: what cannot be seen cannot be relied on.

    Args:
        wanted: the installation's topics.
        found: those of them that exist.
    Returns:
        One sentence for each violation: where, what was wanted, what was found. In the order of ``wanted``.
    """
    there = {topic.name: topic for topic in found}
    wrong: list[str] = []
    for topic in wanted:
        if topic.name not in there:
            wrong.append(f"topic {topic.name}: wanted, not found; `opportune topics create` makes it")
            continue
        found_one = there[topic.name]
        faults = [*_input_faults(topic, found_one)] if topic.name in INPUT_TOPICS else []
        wrong += (f"topic {topic.name}: {fault}" for fault in (*faults, *_faults(topic, found_one)))
    return wrong


def _input_faults(wanted: Topic, found: Topic) -> Iterable[str]:
    if SHARDS % found.partitions:
        yield f"a number of partitions that divides {SHARDS} wanted, found {found.partitions}"
    elif found.partitions != wanted.partitions:
        yield f"{wanted.partitions} partitions wanted, as all input topics have, found {found.partitions}"
    policy = found.settings.get(POLICY, "not told")
    if policy != "delete":
        yield f"{POLICY} delete wanted: compaction drops events; found {policy}"
    retention = found.settings.get(RETENTION, "not told")
    if not _is_int(retention) or 0 <= int(retention) < INPUT_RETENTION_MS_MIN:
        yield f"{RETENTION} of {INPUT_RETENTION_MS_MIN} or more wanted (72 h), found {retention}"
    size = found.settings.get(RETENTION_BYTES, "not told")
    if size != "-1":
        yield f"{RETENTION_BYTES} -1 wanted: a limit by size may drop what is younger than 72 h; found {size}"
    stamp = found.settings.get(STAMP, "not told")
    if stamp != "LogAppendTime":
        yield f"{STAMP} LogAppendTime wanted: what bears an old time may be dropped before 72 h; found {stamp}"


def _faults(wanted: Topic, found: Topic) -> Iterable[str]:
    unclean = found.settings.get(UNCLEAN, "not told")
    if unclean != "false":
        yield f"{UNCLEAN} false wanted: an unclean leader loses acknowledged records; found {unclean}"
    retention = found.settings.get(RETENTION, "not told")
    if wanted.name == ERASURES and retention != str(FOR_EVER_MS):
        yield f"{RETENTION} {FOR_EVER_MS} wanted: who restores an old backup needs all of it; found {retention}"
    segment = found.settings.get(SEGMENT, "not told")
    if wanted.name != ERASURES and not (_is_int(segment) and int(segment) <= SEGMENT_MS):
        yield f"{SEGMENT} of {SEGMENT_MS} or less wanted: the erased would lie there longer than told; found {segment}"
    if wanted.replicas == 1:
        return  # An installation that may lose its only copy: nothing else is lost by fewer acknowledgements.
    if found.replicas < wanted.replicas:
        yield f"{wanted.replicas} copies wanted (OPPORTUNE_REPLICATION), found {found.replicas}"
    at_least, in_sync = int(wanted.settings[IN_SYNC]), found.settings.get(IN_SYNC, "not told")
    if not _is_int(in_sync) or int(in_sync) < at_least:
        yield f"{IN_SYNC} of {at_least} or more wanted: what fewer have is lost with them; found {in_sync}"
    elif int(in_sync) >= found.replicas > 1:
        yield f"{IN_SYNC} below the {found.replicas} copies wanted: else one broker that restarts stops all; found {in_sync}"


def _is_int(text: str) -> bool:
    return text.lstrip("-").isdigit()


async def _all_led(admin: Any, names: Sequence[str]) -> bool:
    there = set(await admin.list_topics())
    if not there.issuperset(names):
        return False
    described = await admin.describe_topics(list(names))
    return all(
        each["error_code"] == 0
        and each["partitions"]
        and all(part["error_code"] == 0 and part["leader"] >= 0 for part in each["partitions"])
        for each in described
    )


@asynccontextmanager
async def _admin(bootstrap: str, security: Mapping[str, Any]) -> AsyncIterator[Any]:
    """A connected admin client.

    Raises:
        OSError: no broker answers there, or it stopped answering.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security)
    try:
        await admin.start()
        yield admin
    except KafkaError as error:
        raise ConnectionError(f"broker: an answer from {bootstrap} wanted, got {type(error).__name__}") from error
    finally:
        await admin.close()
