"""The register of erasures: the topic ``erasures``, kept for ever, which holds hashes only. Whoever restores an old backup of the
store has the persons of it back; ``Register.reapply`` erases them again, by commands, as any erasure is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from console.topic import lying
from profiles.codec import decode
from profiles.erasure import Asked, pack_asked
from profiles.ids import tomb_key
from profiles.moments import parse_instant
from profiles.wire import ERASE, ERASURES, FAR_MS, PROFILE_COMMANDS, Command, Record, encode_command
from stream.ports import Log, ProfileStore

CHUNK: Final = 500


class Erasure(NamedTuple):
    """One line of the register, of one address: which command, who asked, up to when everything is gone."""

    command: str
    by: str
    at_ms: int


class Register:
    """Reads the register and does again what a restored store has forgotten.

    Args:
        store: is read only.
        log: takes the commands.
        options: how to reach the brokers, as aiokafka takes it.
        partitions: of each topic.
    """

    def __init__(
        self, store: ProfileStore, log: Log, secret: bytes, options: Mapping[str, Any], partitions: int
    ) -> None:
        self._store = store
        self._log = log
        self._secret = secret
        self._options = dict(options)
        self._partitions = partitions

    async def reapply(self, now_ms: int) -> tuple[int, int]:
        """Erase again whoever is in the store though the register says that he is gone.

        Args:
            now_ms: logical time of the commands.
        Returns:
            How many erasures the register holds, and how many addresses were told to go.
        Raises:
            OSError: broker or store did not answer; doing it again is safe.
        """
        known = await self.read()
        told = 0
        chunk: list[str] = []
        async for address in self._store.addresses():
            if tomb_key(address, self._secret) in known:
                chunk.append(address)
            if len(chunk) == CHUNK:
                told += await self._tell(chunk, known, now_ms)
                chunk = []
        return len(known), told + await self._tell(chunk, known, now_ms)

    async def read(self) -> dict[str, Erasure]:
        """The latest erasure by hash."""
        found: dict[str, Erasure] = {}
        async for record in lying(ERASURES, self._partitions, self._options):
            line = orjson.loads(record.value)
            erasure = Erasure(line["command"], line["by"], parse_instant(line["at"]))
            if erasure.at_ms > found.get(line["hash"], erasure._replace(at_ms=-1)).at_ms:
                found[line["hash"]] = erasure
        return found

    async def _tell(self, addresses: list[str], known: Mapping[str, Erasure], now_ms: int) -> int:
        records = []
        for address, blob in zip(addresses, await self._store.load(addresses), strict=True):
            erasure = known[tomb_key(address, self._secret)]
            if blob is None or decode(address, blob).erased_ms >= erasure.at_ms:
                continue
            # This very address, wherever it leads: each address of the person has a line of its own.
            body = pack_asked(Asked(erasure.by, (FAR_MS, ""), erasure.at_ms))
            command = Command(ERASE, address, address, (erasure.at_ms, erasure.command), body, now_ms)
            records.append(Record(PROFILE_COMMANDS, address, encode_command(command)))
        await self._log.publish(records)
        return len(records)
