"""What authorised people ask of the workers: edit a person, erase one, and what became of it.

    commands = Commands(store, log, secret, ids)
    command_id = await commands.erase("email:ana@shop.example", by="dpo")
    receipt = await commands.settled(command_id, within_s=30)

Nothing is written here: a command goes to ``profile_commands``, where the one writer of the person's shard takes it (R5), and
its receipt is read from the store. Asking again with the same id is the same command: done once; where it was refused, it is tried again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from console.addresses import read_address
from profiles.codec import decode
from profiles.edits import Edit, pack_edit
from profiles.erasure import Asked, pack_asked
from profiles.errors import BadInput
from profiles.ids import SHARDS, kind_of
from profiles.moments import DAY_MS, HOUR_MS, iso
from profiles.wire import EDIT, ERASE, MERGE, PROFILE_COMMANDS, UNMERGE, Command, Record, encode_command
from stream.ports import Ids, Log, ProfileStore

POLL_S: Final = 0.05
BY_CHARS_MAX: Final = 200
LOOKS_MS: Final = HOUR_MS
"""How long a broker may take to look for what is old enough, and to delete it: by itself every five minutes, and one."""
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Commands:
    """Issues commands of one installation.

    Args:
        store: where receipts are read; nothing is written to it.
        log: takes the commands; somebody else starts and stops it.
        secret: the installation secret.
        ids: draws ids for commands that bring none.
        on_logs_clock: the workers run on the log's clock, so a command bears the greatest time they have applied.
    """

    def __init__(self, store: ProfileStore, log: Log, secret: bytes, ids: Ids, *, on_logs_clock: bool = False) -> None:
        self._store = store
        self._log = log
        self._secret = secret
        self._ids = ids
        self._on_logs_clock = on_logs_clock

    async def edit(self, address: str, edit: Edit, command_id: str = "") -> str:
        """State or take back traits and consents of whom the address leads to; the command's id.

        Raises:
            BadInput: it is no edit, no address, or no id; nothing was sent.
            OSError: broker or store did not answer; asking again with the same id is safe.
        """
        return await self._send(EDIT, address, pack_edit(edit), command_id)

    async def edits(self, addresses: Sequence[str], edit: Edit, command_id: str) -> None:
        """The same edit of many, in one go, under one id.

        Args:
            addresses: as the store knows them.
        Raises:
            BadInput: it is no edit; nothing was sent.
            OSError: as with ``edit``.
        """
        body, now_ms = pack_edit(edit), await self.now_ms()
        told = (Command(EDIT, one, "", (now_ms, command_id), body, now_ms) for one in addresses)
        await self._log.publish([Record(PROFILE_COMMANDS, one.address, encode_command(one)) for one in told])

    async def erase(self, address: str, by: str, command_id: str = "") -> str:
        """Erase whom the address leads to, with all addresses; the command's id.

        Raises:
            BadInput: no address, no name of who asks, or no id; nothing was sent.
            OSError: broker or store did not answer; asking again with the same id is safe.
        """
        check_by(by)
        return await self._send(ERASE, address, pack_asked(Asked(by)), command_id)

    async def merge(self, one: str, other: str, by: str, command_id: str = "") -> str:
        """Join two known users who are one person; the lesser address is the one that stays. The command's id.

        Raises:
            BadInput: not two known users who are there, no name of who asks, or no id; nothing was sent.
            OSError: broker or store did not answer; asking again with the same id is safe.
        """
        check_by(by)
        try:
            stays, goes = sorted(read_address(text, self._secret) for text in (one, other))
        except ValueError as error:
            raise BadInput("malformed", str(error)) from None
        for address, blob in zip((stays, goes), await self._store.load([stays, goes]), strict=True):
            if kind_of(address) != "user" or blob is None or decode(address, blob).forward or stays == goes:
                raise BadInput("malformed", "merge: two addresses of kind user, each with a profile of its own, wanted")
        return await self._send(MERGE, goes, pack_asked(Asked(by)), command_id, stays)

    async def part(self, address: str, other: str, body: bytes, command_id: str) -> str:
        """Tell the profile at ``address`` that ``other`` was never it; ``body`` holds both apart (console/unmerge.py)."""
        return await self._send(UNMERGE, address, body, command_id, other)

    async def receipt(self, command_id: str) -> dict[str, Any] | None:
        """What became of a command; ``None``: nothing yet, or more than 30 days ago."""
        told = await self._store.receipt(self.known_id(command_id))
        found: dict[str, Any] | None = None if told is None else orjson.loads(told)
        return found

    async def settled(self, command_id: str, within_s: float) -> dict[str, Any]:
        """The receipt, as soon as there is one.

        Raises:
            TimeoutError: not within that time; the command is on the log all the same.
        """
        async with asyncio.timeout(within_s):
            while (found := await self.receipt(command_id)) is None:
                await asyncio.sleep(POLL_S)
        return found

    async def _send(self, kind: str, address: str, body: bytes, command_id: str, other: str = "") -> str:
        try:
            to = read_address(address, self._secret)
        except ValueError as error:
            raise BadInput("malformed", str(error)) from None
        command_id = self.known_id(command_id)
        now_ms = await self.now_ms()
        command = Command(kind, to, other, (now_ms, command_id), body, now_ms)
        await self._log.publish([Record(PROFILE_COMMANDS, to, encode_command(command))])
        return command_id

    async def now_ms(self) -> int:
        """The logical time of a command sent now."""
        if not self._on_logs_clock:
            return await self._store.now_ms()
        return max(state.clock_ms for state in await self._store.read_shards(range(SHARDS)))

    def known_id(self, command_id: str) -> str:
        """The id given, or one drawn.

        Raises:
            BadInput: it is none.
        """
        if not command_id:
            return f"c-{self._ids.token().hex()}"
        if not _ID.fullmatch(command_id):
            raise BadInput("malformed", "id: 1 to 64 letters, digits, dots, dashes or underscores wanted")
        return command_id


def check_by(by: str) -> None:
    """Raise ``BadInput`` unless this may name who asks."""
    if not 0 < len(by) <= BY_CHARS_MAX:
        raise BadInput("malformed", f"by: 1 to {BY_CHARS_MAX} characters wanted, got {len(by)}")


def ages_out(
    receipt: dict[str, Any], at_ms: int, input_ms: int, output_ms: int, dead_ms: int, segment_ms: int
) -> dict[str, str]:
    """Until when copies of an erased person may still lie on the log, which cannot be edited: said in the answer.

    Args:
        at_ms: when the person was erased.
        input_ms, output_ms, dead_ms: how long the topics are kept.
        segment_ms: for how long records go into one segment; the broker forgets it whole, by its last record.
    """
    assert receipt["kind"] == ERASE, receipt["kind"]
    topics = {"input_topics": input_ms, "output_topics": output_ms, "dead_letters": dead_ms}
    kept = {name: keep_ms + segment_ms + LOOKS_MS for name, keep_ms in topics.items()} | {"receipt": 30 * DAY_MS}
    return {name: iso(at_ms + keep_ms) for name, keep_ms in kept.items()}
