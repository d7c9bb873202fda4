"""Going on from the beginning of topics that were made anew: a new generation of the log, the profiles stay (R10).

Cursors of those topics begin at 0. What shards tell one another bears the place of its cause, and is taken in the order of
these places (R2); places in the old topics say nothing of the new. So what was taken counts from the beginning, too, and
what was told and not taken is told once more, from before the beginning: none is lost, none is taken twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from profiles.errors import BadInput
from profiles.ids import SHARDS, shard_of
from profiles.wire import (
    INPUT_TOPICS,
    MARK,
    PROFILE_COMMANDS,
    Coordinates,
    Record,
    decode_command,
    encode_command,
    is_operators,
    pack_record,
    unpack_record,
)
from stream.effects import commit
from stream.ports import Ids, LogRecord, ProfileStore, ShardState, ShardWrite

BEFORE: Final = -1
"""The offset of what was told by the old topics: before all that the new ones hold."""


async def begin_log_anew(
    store: ProfileStore,
    ids: Ids,
    topics: Iterable[str] = INPUT_TOPICS,
    commands: Sequence[LogRecord] = (),
    partitions: int = 1,
) -> int:
    """Begin at offset 0 of these topics. No worker may run.

    Args:
        topics: those that were made anew.
        commands: all that lies on the topic of commands, if that is the old one; it is read on from its end.
        partitions: of each topic.
    Returns:
        How many commands are told once more.
    """
    anew = set(topics)
    states = await store.read_shards(range(SHARDS))
    outboxes = await store.outboxes(range(SHARDS))
    again = _Again(states, anew)
    ends: dict[int, int] = {}
    for one in commands:
        ends[one.partition] = max(ends.get(one.partition, 0), one.offset + 1)
        key = (one.key or b"").decode(errors="replace")
        if one.offset >= states[shard_of(key)].cursor.get(PROFILE_COMMANDS, 0):
            again.tell(Record(PROFILE_COMMANDS, key, one.value), shard_of(key))
    for shard, outbox in enumerate(outboxes):
        for packed in outbox:
            again.tell(unpack_record(packed), shard)
    writes = []
    for shard, state in enumerate(states):
        if not state.token:
            continue
        cursor = state.cursor | dict.fromkeys(anew, 0)
        if PROFILE_COMMANDS not in anew:
            cursor[PROFILE_COMMANDS] = max(cursor[PROFILE_COMMANDS], ends.get(shard % partitions, 0))
        writes.append(
            ShardWrite(
                shard=shard,
                expected=state.token,
                token=ids.token(),
                cursor=cursor,
                clock_ms=state.clock_ms,
                generation=state.generation,
                taken={sender: (BEFORE, BEFORE) for sender in state.taken if _topic(sender[1]) in anew},
                outbox=again.outboxes[shard],
                trim=len(outboxes[shard]),
                written=state.written + 1,
            )
        )
    await commit(store, writes)
    return again.count


class _Again:
    """The outboxes as they shall be: what goes out stays, and commands that were not taken are told once more."""

    def __init__(self, states: Sequence[ShardState], anew: set[str]) -> None:
        self.outboxes: list[list[bytes]] = [[] for _ in states]
        self.count = 0
        self._states = states
        self._anew = anew
        self._seen: set[Record] = set()
        self._ordinals: Counter[tuple[int, str]] = Counter()

    def tell(self, record: Record, shard: int) -> None:
        """Put it into its sender's outbox; one that lies on the log and in the outbox, too, once.

        Args:
            shard: in whose outbox it is, or, of one from the log, to whom it goes.
        """
        if record.topic != PROFILE_COMMANDS:
            self.outboxes[shard].append(pack_record(record))
            return
        if record in self._seen:
            return
        self._seen.add(record)
        try:
            command = decode_command(record.value)
        except BadInput:
            self.outboxes[shard].append(pack_record(record))  # Whoever reads it sets it aside.
            return
        cause = command.cause
        sender = (cause.shard, cause.topic)
        taken = self._states[shard_of(command.address)].taken.get(sender)
        if command.kind == MARK or (taken is not None and (cause.offset, cause.ordinal) <= taken):
            return
        if is_operators(command):
            self.outboxes[shard].append(pack_record(record))
        else:
            if _topic(cause.topic) in self._anew:
                command.cause = Coordinates(*sender, BEFORE, self._ordinals[sender])
                self._ordinals[sender] += 1
            self.outboxes[cause.shard].append(pack_record(record._replace(value=encode_command(command))))
        self.count += 1


def _topic(stream: str) -> str:
    """Of a stream of commands: those that a command causes bear the first one's topic and partition."""
    return stream.partition("@")[0]
