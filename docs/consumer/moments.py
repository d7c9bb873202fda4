"""Takes moments off the topics ``triggers.<name>``: each once, in time, and only if it is as published.

    python moments.py --brokers localhost:9092 --schema triggers.json --memory moments.sqlite >> to_send.jsonl

Ctrl-C stops it. One file to copy. It knows nothing of Opportune but its topics and their schema (``opportune schema triggers``), and needs
``aiokafka`` and ``jsonschema-rs`` beside Python. Records come at least once; whoever acts on one says so (``Memory.done``),
so one that comes again is known again, also after a restart. An id need be kept only until its record is stale: then it is
dropped for that. Places in the topics lie beside the ids, so no consumer group is needed; run one process for a memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

PREFIX = "triggers."
LOOK_FOR_TOPICS_S = 30.0


class Memory:
    """What was acted on, and how far the topics were read.

    Args:
        path: an SQLite file; ``:memory:`` forgets.
        schema: the published schema of trigger records.
        now: the time; this machine's unless given.
    """

    def __init__(self, path: str, schema: Any, now: Callable[[], datetime] | None = None) -> None:
        self._check = jsonschema_rs.validator_for(schema, validate_formats=True)
        self._now = now or _utc
        self._db = sqlite3.connect(path)
        self._db.execute("CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY, stale TEXT NOT NULL) WITHOUT ROWID")
        self._db.execute("CREATE INDEX IF NOT EXISTS done_stale ON done (stale)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS place (topic TEXT, partition INT, next INT, PRIMARY KEY (topic, partition))"
        )

    def verdict(self, value: bytes) -> tuple[str, dict[str, Any]]:
        """What to do with a record: ``act``, or drop it as ``invalid``, ``repeat`` or ``expired``; and what it says."""
        try:
            record: dict[str, Any] = json.loads(value)
            self._check.validate(record)
        except (ValueError, jsonschema_rs.ValidationError):
            return "invalid", {}
        if record["send"]["not_after"] < _text(self._now()):
            return "expired", record
        known = self._db.execute("SELECT 1 FROM done WHERE id = ?", (record["trigger_id"],)).fetchone()
        return ("repeat" if known else "act"), record

    def done(self, record: dict[str, Any]) -> None:
        """It was acted on. Whoever dies between acting and saying so acts once more: choose your order."""
        with self._db:
            self._db.execute(
                "INSERT OR IGNORE INTO done VALUES (?, ?)", (record["trigger_id"], record["send"]["not_after"])
            )
            self._db.execute("DELETE FROM done WHERE stale < ?", (_text(self._now()),))

    def place(self, topic: str, partition: int) -> int | None:
        """The next offset to read; ``None``: never read."""
        found = self._db.execute(
            "SELECT next FROM place WHERE topic = ? AND partition = ?", (topic, partition)
        ).fetchone()
        return found[0] if found else None

    def read_to(self, topic: str, partition: int, following: int) -> None:
        """Everything before that offset is dealt with."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?)", (topic, partition, following))

    def __len__(self) -> int:
        """How many ids are kept."""
        count: int = self._db.execute("SELECT COUNT(*) FROM done").fetchone()[0]
        return count


def _utc() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  a program of its own, outside of the code base


def _text(at: datetime) -> str:
    """An instant as records write it; such texts compare as instants do."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


async def consume(brokers: str, memory: Memory, act: Callable[[dict[str, Any]], None]) -> None:
    """Read all topics of triggers for ever, also those that come later."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    loop = asyncio.get_running_loop()
    try:
        await consumer.start()
        known: set[TopicPartition] = set()
        looked = -LOOK_FOR_TOPICS_S
        while True:
            if loop.time() - looked >= LOOK_FOR_TOPICS_S or not known:
                looked = loop.time()
                names = [name for name in await consumer.topics() if name.startswith(PREFIX)]
                found = {
                    TopicPartition(name, one) for name in names for one in consumer.partitions_for_topic(name) or ()
                }
                if found - known:
                    consumer.assign(list(found))
                    begins = await consumer.beginning_offsets(list(found))
                    for at in found:
                        consumer.seek(at, max(begins[at], memory.place(at.topic, at.partition) or 0))
                    known = found
                elif not known:
                    await asyncio.sleep(1)
                    continue
            for at, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    what, said = memory.verdict(record.value)
                    if what == "act":
                        act(said)
                        memory.done(said)
                    else:
                        print(f"{at.topic}/{at.partition}@{record.offset}: {what}", file=sys.stderr)
                memory.read_to(at.topic, at.partition, records[-1].offset + 1)
    finally:
        await consumer.stop()


def main() -> None:
    """Write moments to standard output, one JSON object a line."""
    asked = argparse.ArgumentParser(description=main.__doc__)
    asked.add_argument("--brokers", required=True)
    asked.add_argument("--schema", required=True, type=Path)
    asked.add_argument("--memory", default="moments.sqlite")
    options = asked.parse_args()
    try:
        schema = json.loads(options.schema.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"moments: --schema: what `opportune schema triggers` prints wanted, got {error}")
    try:
        memory = Memory(options.memory, schema)
        asyncio.run(consume(options.brokers, memory, lambda record: print(json.dumps(record), flush=True)))
    except KeyboardInterrupt:
        sys.exit(130)  # What was acted on is kept; the next run goes on from there.
    except (KafkaError, sqlite3.Error) as error:
        sys.exit(f"moments: {error}")


if __name__ == "__main__":
    main()
