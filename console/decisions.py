"""The latest decisions, in memory: why something was sent, and why something was not (SPEC D7).

A window, not an archive: the newest few thousand by logical time, read from the topic ``decisions`` from its end minus
as many on, and forgotten when the process ends. A record that the workers published twice (R12) stands once.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from console import metrics
from console.background import Background
from profiles.ids import tomb_key
from profiles.wire import DECISIONS, ERASURES

LOG = logging.getLogger(__name__)

EMITTED: Final = "emitted"
RETRY_S: Final = 1.0
POLL_MS: Final = 1_000
POLL_RECORDS: Final = 2_000


class DecisionWindow:
    """The newest decisions by logical time, at most ``kept_max``."""

    def __init__(self, kept_max: int, secret: bytes = b"") -> None:
        """``secret``: the installation's, by which erased addresses are known."""
        assert kept_max >= 1, kept_max
        self.kept_max = kept_max
        self._secret = secret
        self._erased: dict[str, str] = {}  # hash of an address -> until when it was erased
        self._hashes: dict[str, str] = {}  # hash -> address, of those that are kept
        self._kept: list[tuple[str, int, bytes]] = []  # (at, order of arrival, value), ascending
        self._told: dict[bytes, dict[str, Any]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, value: bytes) -> None:
        """Keep one record's value; what is no decision is counted and left out."""
        if value in self._told:
            return
        try:
            told = orjson.loads(value)
            at, trigger, reason = told["at"], told["trigger"], told["reason"]
            if not (isinstance(at, str) and isinstance(trigger, str) and (reason is None or isinstance(reason, str))):
                raise TypeError
        except (orjson.JSONDecodeError, KeyError, TypeError):
            metrics.DECISIONS_BROKEN.inc()
            return
        address = told.get("address", "")
        key = tomb_key(address, self._secret)
        if at <= self._erased.get(key, ""):
            return
        self._hashes[key] = address
        self._arrived += 1
        insort(self._kept, (at, self._arrived, value))
        self._told[value] = told
        self._counts[trigger, reason or EMITTED] += 1
        while len(self._kept) > self.kept_max:
            self._drop(self._kept.pop(0)[2])
        if len(self._hashes) > 2 * self.kept_max:
            named = {told.get("address", "") for told in self._told.values()}
            self._hashes = {key: address for key, address in self._hashes.items() if address in named}
        metrics.DECISIONS_KEPT.set(len(self._kept))

    def _drop(self, value: bytes) -> None:
        gone = self._told.pop(value)
        self._counts[gone["trigger"], gone["reason"] or EMITTED] -= 1

    def forget(self, value: bytes) -> None:
        """Somebody was erased (a record of the topic ``erasures``): drop what was decided of that address before."""
        try:
            line = orjson.loads(value)
            key, at = str(line["hash"]), str(line["at"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            metrics.DECISIONS_BROKEN.inc()
            return
        self._erased[key] = max(at, self._erased.get(key, ""))
        address = self._hashes.pop(key, None)
        if address is None:
            return
        gone = [one for one in self._kept if one[0] <= at and self._told[one[2]].get("address") == address]
        for one in gone:
            self._kept.remove(one)
            self._drop(one[2])
        metrics.DECISIONS_KEPT.set(len(self._kept))

    def since(self) -> str | None:
        """The logical time of the oldest that is kept, ISO."""
        return self._kept[0][0] if self._kept else None

    def counts(self) -> dict[str, dict[str, int]]:
        """Trigger -> reason (or ``emitted``) -> how many of those kept, by name."""
        found: dict[str, dict[str, int]] = {}
        for (trigger, reason), count in sorted(self._counts.items()):
            if count:
                found.setdefault(trigger, {})[reason] = count
        return found

    def find(
        self,
        *,
        trigger: str = "",
        addresses: Collection[str] = (),
        outcome: str = "",
        reason: str = "",
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """The newest decisions first; what is empty is not asked for."""
        found: list[dict[str, Any]] = []
        for _, _, value in reversed(self._kept):
            told = self._told[value]
            if (
                (not trigger or told["trigger"] == trigger)
                and (not addresses or told.get("address") in addresses)
                and (not outcome or told.get("outcome") == outcome)
                and (not reason or told["reason"] == reason)
            ):
                found.append(told)
                if len(found) == limit:
                    break
        return found


class DecisionReader(Background):
    """Fills a window from Kafka for as long as it runs. A broker that is away is asked again, every second."""

    def __init__(self, window: DecisionWindow, options: Mapping[str, Any]) -> None:
        """``options``: where and how to connect, as aiokafka takes it."""
        super().__init__()
        self._window = window
        self._options = dict(options)
        self.reading = False

    async def _run(self) -> None:
        told = False
        while True:
            try:
                await self._read()
            except (KafkaError, OSError) as error:
                if self.reading or not told:
                    LOG.warning("decisions are not read for now: %s", type(error).__name__)
                told = True
            self.reading = False
            metrics.READER_RESTARTS.inc()
            await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        topics = await self._topics_there()
        consumer: Any = AIOKafkaConsumer(
            *topics, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", **self._options
        )
        known: set[TopicPartition] = set()
        try:
            await consumer.start()
            while True:
                fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
                self.reading = True
                for place, records in fetched.items():
                    if place.topic == ERASURES:
                        for record in records:
                            self._window.forget(record.value)
                        continue
                    if place not in known:
                        known.add(place)
                        # A fetch tells the topic's end; asked for directly, the embedded broker tells it wrong.
                        from_offset = (consumer.highwater(place) or 0) - self._window.kept_max
                        if records[-1].offset < from_offset:
                            consumer.seek(place, from_offset)
                            continue
                    for record in records:
                        if record.value is not None:
                            self._window.take(record.value)
        finally:
            await consumer.stop()

    async def _topics_there(self) -> list[str]:
        """What is to be read: the decisions, and who was erased. Asked for a topic that is not there, a broker may make it, with its own number of partitions.

        Raises:
            OSError: it is not there.
        """
        admin: Any = AIOKafkaAdminClient(**self._options)
        try:
            await admin.start()
            there = set(await admin.list_topics())
            if DECISIONS not in there:
                raise OSError(f"topic {DECISIONS}: wanted, not found")
            return [topic for topic in (DECISIONS, ERASURES) if topic in there]
        finally:
            await admin.close()
