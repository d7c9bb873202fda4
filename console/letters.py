"""Dead letters: what lies there, and giving the engine once more what it could not take.

    letters = DeadLetters(log, secret, options, partitions, keys)
    async for letter in letters.read():
        ...
    outcome = await letters.replay(letter, now_ms, by="ana")

A letter is named by where it lies: ``3/17`` is offset 17 of partition 3 of ``dead_letters``. What was replayed is told by a
note on the same topic (reason ``replayed``), under the letter's own key, so the accounts are as durable as the letters:
letters = waiting + replayed, whatever becomes of the store.

- *A worker's letter* goes back to its topic as it was, with the arrival of now: whoever appends a record writes its logical
  time (RELIABILITY §1), so running the log again takes it where the worker took it.
- *A collector's letter* is admitted again as of the instant at which it came: the sender's clock and the bounds of age
  are judged then, as they were. What lies in the future then is judged now.
- *An event that a profile had held* is known to its ring of messages: it goes under an id of its own, made from the
  letter's place, so twice is once all the same. *A command* goes on a lane of its own, where what lies further back
  than the last one taken counts as taken: so in their order.
- *A timer* cannot be replayed: the profile has gone on without.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from connectors.collector.admission import HOOK, Given, admit, message_id_of
from connectors.collector.body import Parsed, parse
from connectors.collector.keys import Keys
from connectors.collector.webhooks import Webhooks
from console.topic import lying
from profiles.errors import BadInput
from profiles.moments import iso, parse_instant
from profiles.wire import (
    DEAD_LETTERS,
    INPUT_TOPICS,
    PROFILE_COMMANDS,
    Command,
    Coordinates,
    Event,
    Record,
    dead_letter,
    decode_command,
    decode_event,
    encode_command,
    encode_event,
    is_operators,
)
from stream.ports import Log

REPLAYED: Final = "replayed"
EVENT_BYTES_MAX: Final = 512 << 10
EVENTS_MAX: Final = 10_000
IN_FUTURE: Final = "in_future"


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes:
        partition, offset: where it lies.
        key: of its record.
        reason, detail, topic, at, where: as ``profiles.wire.dead_letter`` has them.
        original: the very bytes that could not be taken.
    """

    partition: int
    offset: int
    key: str
    reason: str
    detail: str
    topic: str
    at: str
    where: Mapping[str, Any]
    original: bytes

    @property
    def name(self) -> str:
        """How people name it: partition/offset."""
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Note:
    """That a letter was replayed: when, who asked for it, and the topic that it went to."""

    at: str
    by: str
    topic: str


class DeadLetters:
    """Reads the topic of dead letters, and replays.

    Args:
        log: takes what is replayed; somebody else starts and stops it.
        secret: the installation secret.
        options: how to reach the brokers, as aiokafka takes it.
        partitions: of each topic.
        keys: the senders' write keys; without, letters of collectors cannot be admitted again.
        hooks: the webhooks that are taken; the same of their letters.
    """

    def __init__(
        self,
        log: Log,
        secret: bytes,
        options: Mapping[str, Any],
        partitions: int,
        keys: Keys | None = None,
        hooks: Webhooks | None = None,
    ) -> None:
        self._log = log
        self._secret = secret
        self._options = options
        self._partitions = partitions
        self._keys = keys
        self._hooks = hooks or {}
        self._commands_to: dict[int, int] = {}  # partition -> the last command's letter that was replayed

    async def read(self) -> AsyncIterator[Letter | tuple[str, Note]]:
        """All letters, and the notes of those that were replayed: (name, note). Of a partition in its order.

        Raises:
            OSError: a broker did not answer.
        """
        async for record in lying(DEAD_LETTERS, self._partitions, self._options):
            said = orjson.loads(record.value)
            where = said["where"]
            if said["reason"] == REPLAYED:
                yield where["letter"], Note(said["at"], where["by"], said["topic"])
                continue
            original = said["original"].encode() if "original" in said else b64decode(said["original_base64"])
            key = record.key.decode() if record.key is not None else ""
            yield Letter(
                record.partition,
                record.offset,
                key,
                said["reason"],
                said["detail"],
                said["topic"],
                said["at"],
                where,
                original,
            )

    async def notes(self) -> dict[str, Note]:
        """The replayed letters by name; the first note counts."""
        found: dict[str, Note] = {}
        async for one in self.read():
            if isinstance(one, tuple):
                found.setdefault(*one)
                self._count_command(*one)
        return found

    def _count_command(self, name: str, note: Note) -> None:
        if note.topic == PROFILE_COMMANDS:
            partition, offset = map(int, name.split("/"))
            self._commands_to[partition] = max(self._commands_to.get(partition, -1), offset)

    async def replay(self, letter: Letter, now_ms: int, by: str) -> None:
        """Give the engine a letter's original once more, and note it. ``notes`` must have been read.

        The note comes after: of a crash in between a letter is left that waits and was replayed; its second replay is
        a repeated message (R21).

        Args:
            now_ms: the logical time of what is appended now.
            by: who asks, as the shop knows its staff.
        Raises:
            BadInput: it cannot be taken this time, either, or not at all; nothing was published.
            OSError: the broker did not take it.
        """
        if letter.topic == PROFILE_COMMANDS and letter.offset < self._commands_to.get(letter.partition, -1):
            raise BadInput(
                "out_of_order", "letter: a command later than the last one replayed wanted, got an earlier one"
            )
        await self._log.publish(self.records(letter, now_ms))
        note = dead_letter(
            reason=REPLAYED,
            detail="",
            topic=letter.topic,
            original=b"",
            at=iso(now_ms),
            where={"letter": letter.name, "by": by},
        )
        await self._log.publish([Record(DEAD_LETTERS, letter.key, note)])
        self._count_command(letter.name, Note(iso(now_ms), by, letter.topic))

    def records(self, letter: Letter, now_ms: int) -> list[Record]:
        """What a letter's replay publishes.

        Raises:
            BadInput: nothing can be.
        """
        if "collector" in letter.where:
            return [_stamped(record, now_ms) for record in self._admitted(letter, now_ms)]
        if letter.topic not in INPUT_TOPICS:
            raise BadInput("is_timer", "letter: an event or a command wanted, got a timer: its profile went on without")
        if letter.topic == PROFILE_COMMANDS:
            return [_command(letter, now_ms)]
        event = decode_event(letter.original)
        if letter.where.get("kept") == "held":
            event.message_id = f"{event.message_id}@{DEAD_LETTERS}/{letter.name}"
        return [_arrived(letter.topic, event, now_ms)]

    def _admitted(self, letter: Letter, now_ms: int) -> list[Record]:
        """A collector's letter through its gates again.

        Raises:
            BadInput: refused again; or its source or a part of it is missing.
        """
        if "(original cut to " in letter.detail:
            raise BadInput("cut", "letter: the whole original wanted, got the beginning of one that was too large")
        name = str(letter.where["source"])
        headers = letter.where.get("headers", {})
        if letter.where["collector"] == HOOK:
            hook = self._hooks.get(name)
            if hook is None:
                raise BadInput("no_source", f"OPPORTUNE_WEBHOOKS: source {name} wanted, got none")
            source, parsed = hook.source, hook.parse(headers, letter.original)
        else:
            known = self._keys.named(name) if self._keys is not None else None
            if known is None:
                raise BadInput("no_source", f"OPPORTUNE_WRITE_KEYS: a write key of source {name} wanted, got none")
            source, parsed = known, _parsed(letter)
        given = Given(
            source,
            now_ms if letter.reason == IN_FUTURE else parse_instant(letter.at),
            self._secret,
            EVENT_BYTES_MAX,
            backfill=bool(letter.where.get("backfill")),
        )
        admission = admit(parsed, given)
        if admission.refusals:
            refusal = admission.refusals[0]
            raise BadInput(refusal.reason, refusal.detail)
        return admission.records


def _parsed(letter: Letter) -> Parsed:
    """A body that holds what the letter holds: itself, or one of the events of a batch."""
    call = str(letter.where["collector"])
    parsed = parse(call if call != "batch" else "", letter.original, EVENTS_MAX)
    if call != "batch":
        return parsed
    if type(parsed.whole.get("batch")) is list:
        return parse(call, letter.original, EVENTS_MAX)
    # The id that it had there: alone, it would be the first of its batch.
    event = {**parsed.whole, "messageId": message_id_of(parsed.whole, int(letter.where["place"]))}
    return parse("batch", orjson.dumps({"batch": [event]}), 1)


def _stamped(record: Record, now_ms: int) -> Record:
    return _arrived(record.topic, decode_event(record.value), now_ms)


def _arrived(topic: str, event: Event, now_ms: int) -> Record:
    """An event appended now."""
    event = replace(event, received_ms=max(now_ms, event.at_ms))
    return Record(topic, event.address, encode_event(event))


def _command(letter: Letter, now_ms: int) -> Record:
    command: Command = decode_command(letter.original)
    if not is_operators(command):
        lane = f"{DEAD_LETTERS}/{letter.partition}"
        command = replace(command, cause=Coordinates(command.cause.shard, lane, letter.offset, 0), said=None)
    command = replace(command, received_ms=now_ms)
    return Record(PROFILE_COMMANDS, command.address, encode_command(command))
