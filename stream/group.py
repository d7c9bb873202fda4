"""A partition group: the same partition of all input topics, merged into one order (RELIABILITY §1).

Records are ordered by (logical time, topic, offset). One of time t is taken only when every other topic either has a
later record buffered, or was seen at its end by a fetch answered after the record was read: so no earlier one can
still be on its way. One answer brings several topics under one stamp, looked up one after the other, so its word on one
says nothing of what it brings of another: later means strictly later. A lane's times never go back: a record
behind its lane counts as of the lane's time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from profiles.errors import BadInput
from profiles.ids import SHARDS
from profiles.moments import FOREVER
from profiles.wire import INPUT_TOPICS, MARK, PROFILE_COMMANDS, Command, Event, decode_command, decode_event
from stream.ports import LogRecord

COMMANDS: Final = INPUT_TOPICS.index(PROFILE_COMMANDS)


class Input(NamedTuple):
    """One record in its place in the order; ``given`` is what it holds, or why it holds nothing."""

    at_ms: int
    topic: int
    offset: int
    given: Event | Command | BadInput
    raw: LogRecord
    read_ms: int


@dataclass(slots=True)
class Lane:
    """What was read of one topic."""

    inputs: deque[Input] = field(default_factory=deque)
    position: int = 0
    last_ms: int = 0
    end: int = -1
    answered_ms: int = -1
    room: asyncio.Event = field(default_factory=asyncio.Event)

    def at_end(self) -> bool:
        """Whether everything there was has been read."""
        return self.end == self.position


@dataclass(slots=True)
class Group:
    """One partition of all input topics.

    Attributes:
        low_ms: logical time up to which inputs are applied and their commands published.
        gate_ms: timers due before it may fire (R16).
        waiting_gates: (wall time asked, gate) that wait for ``profile_commands`` to be read to its end.
        woken_ms: the gate up to which the store was asked for due alarms.
        backfill: whether the last input was history; ``told_backfill``: what the store knows of that.
        mark: what our last claim put on ``profile_commands``.
        caught_up: whether it was read: all that was told this partition before our claim is at hand now.
        taken: by topic, inputs taken out and not yet counted in the metrics.
        marked_at: the offset at which it was.
        void: offsets of commands that nobody stored has told (``Owned.note_void``).
        since_ms: when we claimed it, or new rules came, on the store's clock; 0 on the log's.
    """

    partition: int
    partitions: int
    lanes: list[Lane] = field(default_factory=lambda: [Lane() for _ in INPUT_TOPICS])
    low_ms: int = 0
    gate_ms: int = 0
    waiting_gates: deque[tuple[int, int]] = field(default_factory=deque)
    woken_ms: int = 0
    backfill: bool = False
    told_backfill: bool = False
    mark: bytes = b""
    caught_up: bool = False
    taken: list[int] = field(default_factory=lambda: [0] * len(INPUT_TOPICS))
    marked_at: int = -1
    void: set[int] = field(default_factory=set)
    since_ms: int = 0

    @property
    def shards(self) -> range:
        """The shards that this partition carries."""
        return range(self.partition, SHARDS, self.partitions)

    def is_present(self) -> bool:
        """Whether all that lay before our claim, or before new rules, is behind us: so what is as of now is not as of an outage's beginning."""
        return self.caught_up and self.gate_ms > self.since_ms

    def add(self, topic: int, records: Sequence[LogRecord], read_ms: int, latest_ms: int = FOREVER) -> int:
        """Decode a fetch into its lane; the greatest logical time in it.

        Args:
            latest_ms: what claims to have been received later is refused: it would drag its shard's clock along.
        """
        lane = self.lanes[topic]
        last_ms = lane.last_ms
        append = lane.inputs.append
        decode = decode_command if topic == COMMANDS else decode_event
        new = tuple.__new__  # What `Input(…)` comes to, without a call in between.
        for record in records:
            given: Event | Command | BadInput
            try:
                decoded = decode(record.value)
            except BadInput as error:
                given = error
            else:
                if decoded.received_ms > latest_ms:
                    given = BadInput("in_future", "received_ms: an instant that has come wanted, got a later one")
                    append(Input(last_ms, topic, record.offset, given, record, read_ms))
                    continue
                given = decoded
                if decoded.received_ms > last_ms:
                    last_ms = decoded.received_ms
                if (
                    topic == COMMANDS
                    and isinstance(decoded, Command)
                    and decoded.kind == MARK
                    and decoded.body == self.mark
                    and not self.caught_up
                ):
                    self.caught_up, self.marked_at = True, record.offset
            append(new(Input, (last_ms, topic, record.offset, given, record, read_ms)))
        lane.last_ms = last_ms
        lane.position = records[-1].offset + 1
        return last_ms

    def ready(self, limit: int) -> tuple[list[Input], int]:
        """The inputs whose turn has come, in order, and up to when they are complete.

        Args:
            limit: how many at most.
        Returns:
            The inputs, still in their lanes (``drop`` takes them out), and the logical time before which there are no
            others: ``FOREVER`` when everything there is has been read.
        """
        if not self.caught_up:
            return [], -1
        complete_ms = FOREVER
        bounds: list[tuple[int, Lane]] = []
        answers: list[tuple[int, Lane]] = []
        for lane in self.lanes:
            if lane.at_end():
                answers.append((lane.answered_ms, lane))
            else:
                # What comes next on this lane is not earlier than its last: others go as far as that, and it goes on.
                bounds.append((lane.last_ms, lane))
                complete_ms = min(complete_ms, lane.last_ms)
        filled = [lane for lane in self.lanes if lane.inputs]
        ready: list[Input] = []
        for lane in filled:
            until_ms = min((last_ms for last_ms, other in bounds if other is not lane), default=FOREVER)
            read_by_ms = min((answered_ms for answered_ms, other in answers if other is not lane), default=FOREVER)
            for count, one in enumerate(lane.inputs):
                if one.at_ms > until_ms or one.read_ms >= read_by_ms or count == limit:
                    complete_ms = min(complete_ms, one.at_ms)
                    break
                ready.append(one)
        if len(filled) > 1:
            # One that may not be taken yet keeps back all that are later.
            ready = [one for one in ready if one.at_ms <= complete_ms]
            ready.sort(key=_order)
        if len(ready) > limit:
            complete_ms = min(complete_ms, ready[limit].at_ms)
            del ready[limit:]
        return ready, complete_ms

    def drop(self, taken: Sequence[Input]) -> None:
        """Take these, which are the first of their lanes, out."""
        counts = [0] * len(self.lanes)
        for one in taken:
            counts[one.topic] += 1
        for place, (lane, count) in enumerate(zip(self.lanes, counts, strict=True)):
            self.taken[place] += count
            if count == len(lane.inputs):
                lane.inputs.clear()
            else:
                for _ in range(count):
                    lane.inputs.popleft()
            if count:
                lane.room.set()

    def unread_from(self, caught_up_ms: int, wall_to_clock_ms: int) -> int:
        """The logical time before which nothing is left unread.

        Args:
            caught_up_ms: on the log's clock, how far it has got; -1 on the store's clock.
            wall_to_clock_ms: what to add to this process's wall clock to have the store's.
        """
        low_ms = FOREVER
        for lane in self.lanes:
            if lane.inputs:
                low_ms = min(low_ms, lane.inputs[0].at_ms)
            elif lane.at_end():
                low_ms = min(low_ms, caught_up_ms if caught_up_ms >= 0 else lane.answered_ms + wall_to_clock_ms)
            else:
                low_ms = min(low_ms, lane.last_ms)
        return low_ms

    def open_gates(self) -> None:
        """Let the gate pass as far as it was asked for before the last reading of ``profile_commands`` to its end."""
        lane = self.lanes[COMMANDS]
        if lane.inputs or not lane.at_end():
            return
        while self.waiting_gates and self.waiting_gates[0][0] <= lane.answered_ms:
            self.gate_ms = max(self.gate_ms, self.waiting_gates.popleft()[1])

    def buffered(self) -> int:
        """Inputs read and not taken."""
        return sum(len(lane.inputs) for lane in self.lanes)


def _order(one: Input) -> tuple[int, int, int]:
    return one[:3]
