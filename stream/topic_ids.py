"""Which topics these are: a broker gives each one that is made an id of its own, also one made anew under an old name.

The store keeps, beside the cursors, the ids of the topics that the cursors are about. A topic that was deleted and made
again may have grown beyond our cursor before anybody looks; its id tells it nevertheless (R10).

aiokafka asks for topics' metadata as of version 5, which has no ids; brokers tell them since version 10 (Kafka 2.8,
KIP-516). So the question is described here, and sent by aiokafka's own client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from profiles.errors import Refused
from profiles.wire import INPUT_TOPICS
from stream.ports import ProfileStore
from stream.settings import Own
from stream.transport import security

TOPICS: Final = "topics"
"""The document of the store: topic -> the id that its cursors are about."""
NO_ID: Final = bytes(16)
METADATA: Final = 3
VERSION: Final = 10


class Id(AbstractType[bytes]):  # type: ignore[misc]  # aiokafka publishes no types
    """Sixteen bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """As they are."""
        return value

    @classmethod
    def decode(cls, data: Any) -> bytes:
        """As they are."""
        found: bytes = data.read(len(NO_ID))
        return found


class Told(Response):  # type: ignore[misc]  # aiokafka publishes no types
    """Metadata, version 10, as the protocol's guide has it."""

    API_KEY = METADATA
    API_VERSION = VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class Asked(RequestStruct):  # type: ignore[misc]  # aiokafka publishes no types
    """The question that ``Told`` answers."""

    FLEXIBLE_VERSION = True
    API_KEY = METADATA
    API_VERSION = VERSION
    RESPONSE_TYPE = Told
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Id), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class AskForIds(Request[Asked]):  # type: ignore[misc]  # aiokafka publishes no types
    """Asks about these topics, and makes none of them."""

    API_KEY = METADATA

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[Asked]) -> Asked:
        """As aiokafka sends it."""
        return request_struct_class([(NO_ID, topic, {}) for topic in self._topics], False, False, False, {})


async def topic_ids(own: Own, topics: Sequence[str] = INPUT_TOPICS) -> dict[str, str]:
    """Topic -> its id, of those that exist; empty where the brokers have no ids.

    Raises:
        OSError: no broker answered.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=own.bootstrap, request_timeout_ms=own.request_ms, **security(own))
    try:
        await admin.start()
        told = (await admin._send_request(AskForIds(topics))).to_object()
    except NotImplementedError:  # Brokers before 2.8.
        return {}
    except KafkaError as error:
        raise OSError(f"brokers at {own.bootstrap}: an answer wanted, got {type(error).__name__}") from error
    finally:
        await admin.close()
    return {one["name"]: one["topic_id"].hex() for one in told["topics"] if one["topic_id"] != NO_ID}


async def same_topics(store: ProfileStore, own: Own) -> None:
    """See that the input topics are those that the cursors are about; note those of which that is not known yet.

    Raises:
        Refused: one was made anew.
        OSError: the store or the brokers do not answer.
    """
    now = await topic_ids(own)
    while True:
        value = await store.get_doc(TOPICS)
        known = orjson.loads(value) if value is not None else {}
        anew = made_anew(known, now)
        if anew:
            raise Refused(
                f"topics: those that our cursors are about wanted, but {', '.join(anew)} were made anew; put them or the "
                "store's backup back, or go on from their beginning with `opportune topics anew` (R10)"
            )
        if now.items() <= known.items() or await store.replace_doc(TOPICS, value, orjson.dumps(known | now)):
            return


def made_anew(known: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Topics that have another id now than was known of them."""
    return sorted(topic for topic, found in now.items() if known.get(topic, found) != found)
