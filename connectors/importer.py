"""Publishes a file's events, and can be killed at any moment and run again.

The events of a file are a fixed sequence (``connectors/sources/files.py``), so how far an import has come is one
number. It is written beside the file after every chunk that the broker has acknowledged, with where the topics ended
then. A new run reads the file again, passes over so many events, looks behind those ends which events of the chunk
under way at the kill did arrive, and goes on without them. So the log holds each event once. (Profiles take a message
id once, too, but within 24 hours of the log's clock, and a chunk of history may span a year: RELIABILITY R21.)

Beside ``orders.csv`` lie ``orders.csv.import.json`` (the number, and of what) and ``orders.csv.rejected.jsonl`` (every row
that became no event, with the reason). Another file or another mapping starts from the beginning; so does another
installation, known by its secret, with a state of its own: ``orders.csv.<installation>.import.json``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connectors.mapping import FileMapping
from connectors.publisher import Publisher, kafka_options
from connectors.settings import Settings
from connectors.sources.files import ROWS_IN_MEMORY, Reject, Tally, events_of, file_digest
from profiles.errors import Refused
from profiles.moments import Clock
from profiles.taxonomy import resolve
from profiles.wire import EVENT_TOPICS, Event, Record, encode_event

T = TypeVar("T")

CHUNK_EVENTS: Final = 5_000
PUBLISH_MS_MAX: Final = 60_000
TELL_EVERY_S: Final = 0.2
STATE_VERSION: Final = 1
"""Raised when a release changes which events a file gives: positions of older ones mean something else."""


@dataclass(slots=True)
class Report:
    """What an import did.

    Attributes:
        resumed_at: events that earlier runs had published.
        published: events that this run published.
        complete: every event of the file is published; not so when ``until_ms`` held some back.
        tally: where the rows went, of the whole file.
        rejects: where the rejected rows lie; ``None``: there are none.
    """

    resumed_at: int = 0
    published: int = 0
    complete: bool = False
    tally: Tally = field(default_factory=Tally)
    rejects: Path | None = None


Tell = Callable[[Report], None]
"""Called now and then while an import runs, on the event loop."""

Say = Callable[[str], None]
"""Takes a sentence for people: where an import begins, and why there."""


async def import_file(
    path: Path,
    mapping: FileMapping,
    settings: Settings,
    clock: Clock,
    *,
    live: bool = False,
    until_ms: int | None = None,
    folder: Path | None = None,
    chunk_events: int = CHUNK_EVENTS,
    rows_in_memory: int = ROWS_IN_MEMORY,
    tell: Tell | None = None,
    say: Say | None = None,
) -> Report:
    """Publish what a file holds, from where an earlier run stopped.

    Args:
        path: the file.
        mapping: how its rows become events.
        settings: where Kafka is, and the installation secret.
        live: not history; see ``events_of``.
        until_ms: events from this instant on stay unpublished; a later run may go on with them.
        folder: where the state and the rejected rows are kept; absent: beside the file.
        chunk_events: how many events are published between two writings of the state.
    Raises:
        BadDocument: the mapping does not fit the file.
        Refused: the file, the topics or the installation secret are not as they must be.
        PublishFailed: the broker did not acknowledge in time; run it again.
    """
    secret = settings.secret_bytes()
    digest = await asyncio.to_thread(file_digest, path)
    beside = folder if folder is not None else path.parent
    state, why = _State.found(beside, path.name, digest, mapping, live, settings, clock.now_ms())
    if say is not None and why:
        say(why)
    report = Report(resumed_at=state.events)
    stopping = threading.Event()
    reading = _Reading(
        events_of(
            path,
            mapping,
            secret=secret,
            now_ms=state.now_ms,
            live=live,
            tally=report.tally,
            digest=digest,
            rows_in_memory=rows_in_memory,
            folder=folder,
            stopped=stopping.is_set,
        ),
        _Rejects(beside / f"{path.name}.rejected.jsonl"),
        until_ms,
    )
    log = _Log(settings)
    publisher = Publisher(
        kafka_options(settings), EVENT_TOPICS, linger_ms=0, publish_ms_max=PUBLISH_MS_MAX, stalled_ms=PUBLISH_MS_MAX
    )
    await publisher.start(same_count=EVENT_TOPICS)
    ahead: asyncio.Task[list[Event]] | None = None
    try:
        await log.start()
        arrived = await log.message_ids(mapping.source, state.ends) if state.ends else set()
        state.ends = await log.ends()
        # Reading is work for a thread: the loop keeps the connection to the broker alive, and tells.
        ahead = asyncio.create_task(asyncio.to_thread(reading.take, chunk_events, state.events))
        if chunk := await _telling(ahead, report, tell):
            # Not before: a mapping by which nothing can be published leaves the state of the one that did.
            await asyncio.to_thread(state.write)
        while chunk:
            ahead = asyncio.create_task(asyncio.to_thread(reading.take, chunk_events))
            records = [_record(event) for event in chunk if event.message_id not in arrived]
            await publisher.publish(records)
            report.published += len(records)
            state.events += len(chunk)
            state.ends = await log.ends()
            await asyncio.to_thread(state.write)
            chunk = await _telling(ahead, report, tell)
        report.complete = not reading.held_back
        report.rejects = reading.rejects.path if reading.rejects.count else None
    finally:
        stopping.set()
        if ahead is not None and not ahead.done():
            # A thread cannot be ended from outside; it looks at ``stopping`` every row.
            await asyncio.wait({ahead})
        reading.close()
        await publisher.stop()
        await log.stop()
    if tell is not None:
        tell(report)
    return report


def _record(event: Event) -> Record:
    return Record(resolve(event.type).topic, event.address, encode_event(event))


class _Log:
    """The event topics, read by place."""

    def __init__(self, settings: Settings) -> None:
        self._where = f"kafka at {settings.bootstrap}"
        self._options = kafka_options(settings)
        self._consumer: Any = None
        self._partitions: list[TopicPartition] = []

    async def start(self) -> None:
        """Connect, and learn the partitions.

        Raises:
            Refused: the broker does not tell them.
        """
        admin: Any = AIOKafkaAdminClient(**self._options)
        self._consumer = AIOKafkaConsumer(**self._options, enable_auto_commit=False)
        try:
            await admin.start()
            try:
                for topic in await admin.describe_topics(list(EVENT_TOPICS)):
                    numbers = sorted(one["partition"] for one in topic["partitions"])
                    self._partitions += [TopicPartition(topic["topic"], number) for number in numbers]
            finally:
                await admin.close()
            await self._consumer.start()
        except KafkaError as error:
            raise Refused(f"{self._where}: a broker wanted, got {type(error).__name__}") from error

    async def ends(self) -> dict[str, int]:
        """``topic/partition`` -> the offset that the next record will have."""
        offsets = await self._consumer.end_offsets(self._partitions)
        return {f"{one.topic}/{one.partition}": offset for one, offset in offsets.items()}

    async def message_ids(self, source: str, since: dict[str, int]) -> set[str]:
        """The ids of that source's messages behind these places. A log that was begun anew holds none."""
        ends = await self._consumer.end_offsets(self._partitions)
        starts = await self._consumer.beginning_offsets(self._partitions)
        wanted = {
            one: max(starts[one], since[name])
            for one in self._partitions
            if (name := f"{one.topic}/{one.partition}") in since and max(starts[one], since[name]) < ends[one]
        }
        found: set[str] = set()
        if not wanted:
            return found
        # A reader of its own: one that goes on fetching makes every other question wait behind its fetch.
        reader: Any = AIOKafkaConsumer(**self._options, enable_auto_commit=False)
        await reader.start()
        try:
            reader.assign(list(wanted))
            for one, offset in wanted.items():
                reader.seek(one, offset)
            while wanted:
                for records in (await reader.getmany(*wanted, timeout_ms=1000)).values():
                    for record in records:
                        body = orjson.loads(record.value)
                        if body.get("source") == source:
                            found.add(body["message_id"])
                wanted = {one: offset for one, offset in wanted.items() if await reader.position(one) < ends[one]}
        finally:
            await reader.stop()
        return found

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()


class _Reading:
    """The events among the outcomes; rejects go to their file on the way. Used by one thread at a time."""

    def __init__(self, outcomes: Iterator[Event | Reject], rejects: _Rejects, until_ms: int | None) -> None:
        self._outcomes = outcomes
        self._until_ms = until_ms
        self.rejects = rejects
        self.held_back = False

    def take(self, count: int, pass_over: int = 0) -> list[Event]:
        """The next events, at most ``count``, after passing over so many; none: that was all."""
        passed = sum(1 for _ in islice(self, pass_over))
        if passed < pass_over:
            raise Refused(
                f"import: {pass_over} events published before wanted in the file, got {passed}; until_ms was later?"
            )
        return list(islice(self, count))

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self.held_back:
            raise StopIteration
        for outcome in self._outcomes:
            if isinstance(outcome, Reject):
                self.rejects.write(outcome)
                continue
            # They come in order of time, so nothing earlier follows.
            if self._until_ms is not None and outcome.at_ms >= self._until_ms:
                self.held_back = True
                break
            return outcome
        raise StopIteration

    def close(self) -> None:
        """Let go of the file, the temporary ones and the rejects."""
        close = getattr(self._outcomes, "close", None)
        if close is not None:
            close()
        self.rejects.close()


async def _telling(task: asyncio.Task[T], report: Report, tell: Tell | None) -> T:
    """Wait for work, and tell how it goes meanwhile."""
    while True:
        done, _ = await asyncio.wait({task}, timeout=TELL_EVERY_S)
        if tell is not None:
            tell(report)
        if done:
            return task.result()


@dataclass(slots=True)
class _State:
    """How far an import of that file by that mapping has come.

    Attributes:
        now_ms: when the first run began. A later run judges "in the future" as the first did, or positions would shift.
        installation: into which, see ``_installation``.
        bootstrap: where its brokers were; for people.
        events: acknowledged by the broker, from the first on.
        ends: ``topic/partition`` -> the end of the log then.
    """

    path: Path
    version: int
    file: str
    mapping: str
    live: bool
    now_ms: int
    installation: str
    bootstrap: str
    events: int = 0
    ends: dict[str, int] = field(default_factory=dict)

    @classmethod
    def found(
        cls, folder: Path, name: str, file: str, mapping: FileMapping, live: bool, settings: Settings, now_ms: int
    ) -> tuple[_State, str]:
        """The state of an earlier run into this installation, or one that begins; and what to tell people of it.

        Args:
            name: the file's; its states lie in ``folder``.
            file: its digest.
        """
        installation, why = _installation(settings), ""
        path = folder / f"{name}.import.json"
        kept = _kept(path)
        if kept and kept.get("installation", installation) != installation:
            other = f"another installation (brokers at {kept.get('bootstrap')})"
            path = folder / f"{name}.{installation}.import.json"
            kept = _kept(path)
            why = "" if kept else f"begins with the first event: the earlier import went to {other}"
        page = hashlib.sha256(repr(mapping).encode()).hexdigest()
        fresh = cls(path, STATE_VERSION, file, page, live, now_ms, installation, settings.bootstrap)
        if not kept:
            return fresh, why
        for part, said in (
            ("version", "was by another version"),
            ("file", "was of a file with other content"),
            ("mapping", "was by another mapping"),
            ("live", "was of history" if live else "was --live"),
        ):
            if kept.get(part) != getattr(fresh, part):
                return fresh, f"begins with the first event: the earlier import {said}"
        fresh.now_ms, fresh.events, fresh.ends = kept["now_ms"], kept["events"], kept["ends"]
        where = kept.get("bootstrap", settings.bootstrap)
        moved = f" when its brokers were at {where}" if where != settings.bootstrap else ""
        why = f"goes on behind {fresh.events} events that went to this installation{moved} ({path})"
        return fresh, why if fresh.events else ""

    def write(self) -> None:
        """Keep it: wholly or not at all, whenever we are killed."""
        names = ("version", "file", "mapping", "live", "now_ms", "installation", "bootstrap", "events", "ends")
        body = orjson.dumps({name: getattr(self, name) for name in names}, option=orjson.OPT_INDENT_2)
        draft = self.path.with_suffix(".tmp")
        with draft.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


def _kept(path: Path) -> dict[str, Any]:
    """A state as it was written; empty where there is none that could be read."""
    try:
        kept = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _installation(settings: Settings) -> str:
    """What tells an installation from others: its secret, though not in plain.

    Not its brokers: they move, and those of ``opportune dev`` are others at each start, while its profiles stay.
    """
    return hashlib.blake2b(b"import", key=settings.secret_bytes()[:64], digest_size=6).hexdigest()


class _Rejects:
    """The rejected rows of this run, one JSON object a line; readable by the owner only, since rows are as they were."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: Any = None
        path.unlink(missing_ok=True)

    def write(self, reject: Reject) -> None:
        """Add one."""
        if self._file is None:
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        try:
            original = orjson.loads(reject.original)
        except orjson.JSONDecodeError:
            original = reject.original.decode(errors="replace")
        row = {"row": reject.row, "reason": reject.reason, "detail": reject.detail, "original": original}
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self.count += 1

    def close(self) -> None:
        """No more come."""
        if self._file is not None:
            self._file.close()


@contextmanager
def bar(console: Console) -> Iterator[Tell]:
    """A progress bar for people: first the rows read, then the events published."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        rows = progress.add_task("rows read", total=None)
        events = progress.add_task("events published", total=None)

        def tell(report: Report) -> None:
            tally = report.tally
            read = tally.rows == tally.used + tally.rejected.total() and bool(tally.events or report.complete)
            progress.update(rows, completed=tally.rows, total=tally.rows if read else None)
            done = report.resumed_at + report.published
            total = done if report.complete else max(tally.drafts, done)
            progress.update(events, completed=done, total=total if read else None)

        yield tell
