"""Reads the topics into a ledger, and on from there when asked again; whose addresses are one person tells the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from console import metrics
from console.ledger import TOUCHES, Ledger, Window, report
from profiles.codec import BadBlob, decode
from profiles.ids import STRENGTH
from profiles.moments import DAY_MS, parse_duration, parse_instant
from profiles.wire import DECISIONS, EMAIL_EVENTS, ORDER_EVENTS, TRIGGERS_PREFIX
from rules.program import Conversion
from rules.rulebook import Rulebook
from stream.ports import ProfileStore

WITHIN_MS_MAX: Final = 90 * DAY_MS
READ_S_MAX: Final = 600.0
POLL_MS: Final = 200
CHUNK: Final = 500
_FIXED: Final = (DECISIONS, EMAIL_EVENTS, ORDER_EVENTS)


class Reports:
    """What came of triggers, as far as the topics go back.

    Args:
        store: is read only.
        options: how to reach the brokers, as aiokafka takes it.
    """

    def __init__(self, store: ProfileStore, options: Mapping[str, Any], moments_max: int = 500_000) -> None:
        self._store = store
        self._options = dict(options)
        self._moments_max = moments_max
        self._ledger: Ledger | None = None
        self._places: dict[TopicPartition, int] = {}
        self._one_at_a_time = asyncio.Lock()

    async def told(self, triggers: Iterable[str], window: Window, currency: str) -> list[dict[str, Any]]:
        """What came of these triggers up to now (``console.ledger.report``).

        Raises:
            OSError: broker or store did not answer.
        """
        async with self._one_at_a_time:
            asked = {one.name: one for one in window.conversions.values() if one.wanted}
            if self._ledger is None or self._ledger.currency != currency or _said(self._ledger.asked) != _said(asked):
                self._ledger, self._places = Ledger(currency, self._moments_max, asked=asked), {}
            try:
                async with asyncio.timeout(READ_S_MAX):
                    await self._read_on(self._ledger)
            except (KafkaError, TimeoutError) as error:
                raise OSError(f"brokers: the topics wanted, got {type(error).__name__}") from error
            metrics.DIVERGENT.set(self._ledger.divergent)
            leads = await leads_of(self._store, self._ledger.addresses())
            ledger = self._ledger
            # Of many moments it takes seconds: others are answered meanwhile.
            return await asyncio.to_thread(lambda: [report(ledger, one, window, leads) for one in triggers])

    async def _read_on(self, ledger: Ledger) -> None:
        consumer: Any = AIOKafkaConsumer(
            group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", **self._options
        )
        try:
            await consumer.start()
            places = await self._there(ledger)
            consumer.assign(places)
            for place in places:
                if place in self._places:
                    consumer.seek(place, self._places[place])
                else:
                    await consumer.seek_to_beginning(place)
            unread = set(places)
            while unread:
                for place, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                    for record in records:
                        ledger.take(place.topic, record.value)
                    self._places[place] = records[-1].offset + 1
                # Only a fetch tells where a topic ends.
                unread = {place for place in unread if not await _is_at_end(consumer, place)}
        finally:
            await consumer.stop()

    async def _there(self, ledger: Ledger) -> list[TopicPartition]:
        admin: Any = AIOKafkaAdminClient(**self._options)
        await admin.start()
        try:
            wanted = {*_FIXED, *ledger.topics}
            names = [name for name in await admin.list_topics() if name in wanted or name.startswith(TRIGGERS_PREFIX)]
            missing = sorted(wanted - set(names))
            if missing:
                raise OSError(f"topic {missing[0]}: wanted, not found")
            found = await admin.describe_topics(sorted(names))
        finally:
            await admin.close()
        return [
            TopicPartition(one["topic"], partition["partition"]) for one in found for partition in one["partitions"]
        ]


async def _is_at_end(consumer: Any, place: TopicPartition) -> bool:
    highwater = consumer.highwater(place)
    return highwater is not None and bool(await consumer.position(place) >= highwater)


def _said(conversions: Mapping[str, Conversion]) -> dict[str, str]:
    return {name: one.said for name, one in conversions.items()}


def conversions_of(rulebook: Rulebook) -> dict[str, Conversion]:
    """Trigger -> what it is for, of those that say so."""
    return {name: one.conversion for name, one in rulebook.triggers.items() if one.conversion is not None}


def window_of(from_: str, to: str, within: str, touch: str, rulebook: Rulebook) -> Window:
    """What is asked for, of words. Without ``within`` each trigger has the time of its ``conversion``, or else seven days.

    Raises:
        ValueError: of which word, and what was wanted.
    """
    if touch not in TOUCHES:
        raise ValueError(f"touch: one of {', '.join(TOUCHES)} wanted, got other text")
    instants = []
    for name, text, default_ms in (("from", from_, 0), ("to", to, 1 << 62)):
        try:
            instants.append(parse_instant(text) if text else default_ms)
        except (ValueError, OverflowError):
            raise ValueError(f"{name}: an ISO 8601 time like 2026-11-22T15:04:05Z wanted, got other text") from None
    conversions = conversions_of(rulebook)
    if not within:
        return Window(instants[0], instants[1], touch=touch, conversions=conversions)
    try:
        within_ms = parse_duration(within).after(0, UTC)
    except ValueError:
        within_ms = 0
    if not 0 < within_ms <= WITHIN_MS_MAX:
        raise ValueError("within: days, hours or minutes like P7D, of 90 days at most, wanted, got something else")
    return Window(instants[0], instants[1], within_ms, touch, conversions)


async def leads_of(store: ProfileStore, addresses: list[str]) -> dict[str, str]:
    """Address -> the address of the person, of those that lead elsewhere."""
    leads: dict[str, str] = {}
    for start in range(0, len(addresses), CHUNK):
        asked = {one: one for one in addresses[start : start + CHUNK]}  # where each has led so far
        # A forwarder points to a stronger kind only, so no walk is longer than there are kinds.
        for _ in range(len(STRENGTH)):
            ends = list(dict.fromkeys(asked.values()))
            further = {}
            for address, blob in zip(ends, await store.load(ends), strict=True):
                forward = _forward(address, blob)
                if forward:
                    further[address] = forward
            if not further:
                break
            asked = {one: further.get(end, end) for one, end in asked.items()}
        leads |= {one: end for one, end in asked.items() if one != end}
    return leads


def _forward(address: str, blob: bytes | None) -> str:
    if blob is None:
        return ""
    try:
        return decode(address, blob).forward
    except BadBlob:
        return ""  # What cannot be read leads nowhere; whoever owns the shard says so.
