"""Parting two who were merged by mistake: computed here, from what was kept of the merge and from the log; written by the
worker that owns the profile, if it is still the one that was computed from (RELIABILITY R23).

It is exact or it is refused. Refused is a merge of more than 30 days ago, one whose log is gone, one after which
another was undone, and an address that came by way of another (``email:…`` brought its browsers along: part that one).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from console.addresses import read_address
from console.commands import Commands
from profiles.codec import decode, encode
from profiles.errors import BadInput
from profiles.ids import STRENGTH, digest_of, shard_of
from profiles.state import Profile
from profiles.undo import Parting, Undo, pack_parting, read_undo
from profiles.wire import INPUT_TOPICS, PROFILE_COMMANDS, UNMERGE, Command, Event, decode_command, decode_event
from rules.outcome import REFUSED
from rules.undo import Apart, NotExact, parted
from stream.ports import ProfileStore
from stream.rulebook import in_force

TRIES: Final = 20
AGAIN_S: Final = 0.25
POLL_MS: Final = 500
READ_S_MAX: Final = 300.0


class Parter:
    """Un-merges.

    Args:
        store: is read only.
        commands: by which the worker is told.
        options: how to reach the brokers, as aiokafka takes it.
        partitions: of each input topic.
        on_logs_clock: the workers run on the log's clock.
    """

    def __init__(
        self,
        store: ProfileStore,
        commands: Commands,
        secret: bytes,
        options: Mapping[str, Any],
        partitions: int,
        *,
        on_logs_clock: bool = False,
    ) -> None:
        self._store = store
        self._commands = commands
        self._secret = secret
        self._options = dict(options)
        self._partitions = partitions
        self._live = not on_logs_clock

    async def unmerge(self, address: str, by: str, within_s: float, command_id: str = "") -> dict[str, Any]:
        """Part the profile at ``address`` from the one that it was merged into; the receipt.

        Args:
            within_s: how long the worker may take with one try; a person who is busy just then is tried again.
        Raises:
            BadInput: no address.
            NotExact: it cannot be done exactly, and nothing was; ``reason`` is a stable word.
            TimeoutError: no receipt in time.
            OSError: broker or store did not answer.
        """
        try:
            other = read_address(address, self._secret)
        except ValueError as error:
            raise BadInput("malformed", str(error)) from None
        command_id = self._commands.known_id(command_id)
        for number in range(1, TRIES + 1):
            try:
                to, undo, body = await self._computed(other, by)
            except NotExact as error:
                # A command may be applied already whose copy on the log is still to be read.
                if error.reason != "changed" or number == TRIES:
                    raise
                await asyncio.sleep(AGAIN_S)
                continue
            # The first word about an id stands, so each try has one of its own.
            sent = await self._commands.part(
                to, undo.other, body, f"{command_id}.{number}" if number > 1 else command_id
            )
            receipt = await self._commands.settled(sent, within_s)
            if receipt["outcome"] == "done":
                return receipt
            await asyncio.sleep(AGAIN_S)
        raise NotExact(
            "changed", f"unmerge: a profile that rests for a moment wanted, it changed in each of {TRIES} tries"
        )

    async def _computed(self, other: str, by: str) -> tuple[str, Undo, bytes]:
        forwarder = await self._profile(other)
        if forwarder is None or not forwarder.forward:
            raise NotExact(
                "not_merged", "unmerge: an address that was merged into another wanted, got one that was not"
            )
        to = await self._root(forwarder)
        undo = await self._undo(to, forwarder)
        now, cursor, clock_ms = await self._settled(to)
        generation = await in_force(self._store)
        if generation is None:
            raise NotExact("no_rules", "unmerge: rules that a worker announced wanted, got none")
        inputs = await self._inputs(to, undo, cursor)
        apart: Apart
        try:
            apart = parted(undo, now, inputs, generation[0], clock_ms, live=self._live)
        except NotExact as error:
            if error.reason != "changed":
                raise
            # What shards of one worker told one another was taken before its place on the log.
            apart = parted(undo, now, _as_caused(inputs, undo.at_ms), generation[0], clock_ms, live=self._live)
        parting = Parting(by, digest_of(encode(now)), undo.link, encode(apart.receiver), encode(apart.other))
        return to, undo, pack_parting(parting)

    async def _profile(self, address: str) -> Profile | None:
        (blob,) = await self._store.load([address])
        return None if blob is None else decode(address, blob)

    async def _root(self, forwarder: Profile) -> str:
        address = forwarder.forward
        for _ in STRENGTH:
            profile = await self._profile(address)
            if profile is None or not profile.forward:
                break
            address = profile.forward
        return address

    async def _undo(self, to: str, forwarder: Profile) -> Undo:
        kept = [undo for value in await self._store.undo(to) if (undo := read_undo(value)).other == forwarder.address]
        if kept:
            return kept[0]
        if forwarder.forward != to:
            raise NotExact(
                "came_with_another",
                f"unmerge: it came with an address of kind {_kind(forwarder.forward)}: part that one first",
            )
        raise NotExact(
            "too_long_ago",
            "unmerge: a merge of the last 30 days, one of the latest 16, with no other un-merge of that profile since, "
            "wanted, got none kept",
        )

    async def _settled(self, address: str) -> tuple[Profile, list[int], int]:
        """The profile with the places up to which it was read: the same write's, both."""
        shard = shard_of(address)
        while True:
            (before,) = await self._store.read_shards([shard])
            profile = await self._profile(address)
            (after,) = await self._store.read_shards([shard])
            if before.token == after.token:
                break
        if profile is None:
            raise NotExact("not_merged", "unmerge: a profile where the address leads to wanted, got none")
        return profile, [after.cursor.get(topic, 0) for topic in INPUT_TOPICS], after.clock_ms

    async def _inputs(self, address: str, undo: Undo, until: Sequence[int]) -> list[Event | Command]:
        """What came for the address between the merge and these places, in the order of logical time."""
        partition = shard_of(address) % self._partitions
        if len(undo.cursor) != len(INPUT_TOPICS):
            raise NotExact("log_gone", "unmerge: a merge of this version's topics wanted, got one of other topics")
        wanted = {
            TopicPartition(topic, partition): (from_offset, until_offset)
            for topic, from_offset, until_offset in zip(INPUT_TOPICS, undo.cursor, until, strict=True)
            if from_offset != until_offset
        }
        if any(from_offset > until_offset for from_offset, until_offset in wanted.values()):
            raise NotExact("log_gone", "unmerge: the log that the merge lies on wanted, got one that began anew since")
        found: list[tuple[int, int, int, Event | Command]] = []
        for place, records in (await self._read(wanted)).items():
            topic, lane_ms = INPUT_TOPICS.index(place.topic), 0
            for record in records:
                if record.key != address.encode():
                    continue
                try:
                    given = (
                        decode_command(record.value) if place.topic == PROFILE_COMMANDS else decode_event(record.value)
                    )
                except BadInput:
                    continue  # It was a dead letter then, too.
                lane_ms = max(lane_ms, given.received_ms)
                if isinstance(given, Command) and given.kind == UNMERGE and await self._was_refused(given):
                    continue  # One of our own tries that came too late; it changed nothing.
                found.append((lane_ms, topic, record.offset, given))
        found.sort(key=lambda one: one[:3])
        clock_ms = undo.at_ms
        for at_ms, _, _, given in found:
            clock_ms = given.seen_ms = max(clock_ms, at_ms)
        return [given for _, _, _, given in found]

    async def _was_refused(self, command: Command) -> bool:
        receipt = await self._commands.receipt(command.link[1])
        return receipt is not None and receipt["outcome"] == REFUSED

    async def _read(self, wanted: Mapping[TopicPartition, tuple[int, int]]) -> dict[TopicPartition, list[Any]]:
        """All records from the first to before the second offset of each place."""
        found: dict[TopicPartition, list[Any]] = {place: [] for place in wanted}
        if not wanted:
            return found
        consumer: Any = AIOKafkaConsumer(
            group_id=None, enable_auto_commit=False, auto_offset_reset="none", **self._options
        )
        try:
            await consumer.start()
            consumer.assign(list(wanted))
            for place, (from_offset, _) in wanted.items():
                consumer.seek(place, from_offset)
            left = set(wanted)
            async with asyncio.timeout(READ_S_MAX):
                while left:
                    fetched = await consumer.getmany(*left, timeout_ms=POLL_MS)
                    for place, records in fetched.items():
                        first, until = wanted[place]
                        if not found[place] and records[0].offset != first:
                            raise NotExact(
                                "log_gone", "unmerge: a log that reaches back to the merge wanted, got a later one"
                            )
                        found[place] += [record for record in records if record.offset < until]
                        if records[-1].offset >= until - 1:
                            left.discard(place)
        except OffsetOutOfRangeError:
            raise NotExact(
                "log_gone", "unmerge: a log that reaches back to the merge wanted, got a later one"
            ) from None
        except KafkaError as error:
            raise OSError(f"brokers: the log since the merge wanted, got {type(error).__name__}") from error
        finally:
            await consumer.stop()
        return found


def _as_caused(inputs: Sequence[Event | Command], clock_ms: int) -> list[Event | Command]:
    """The same in the order of their own times."""
    found = sorted(inputs, key=lambda one: one.received_ms)
    for given in found:
        clock_ms = given.seen_ms = max(clock_ms, given.received_ms)
    return found


def _kind(address: str) -> str:
    return address.partition(":")[0]
