"""Static segments formed by command: of the members of another segment, or of a list of addresses (SPEC M2).

    version = await Lists(store, commands, rulebook).form("vip_2026", addresses, source="segment vip", by="ana", why="")

A forming is one edit to everybody who joins or leaves, all under one id, so doing it again after a failure changes nothing
twice; and one line in the list's own record, a document of the store: which version, when, by whom, of what, how many.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import orjson

from console.commands import Commands
from profiles.codec import decode
from profiles.edits import Edit
from profiles.errors import Refused
from profiles.ids import STRENGTH
from profiles.moments import iso
from rules.rulebook import Rulebook
from rules.slips import did_you_mean
from stream.ports import ProfileStore

CHUNK: Final = 500
VERSIONS_MAX: Final = 1_000
_RECORD: Final = "static:"


class Lists:
    """Forms static segments of one installation.

    Args:
        store: is read; only a list's own record is written to it.
        rulebook: the rules in force.
        tell: told how many commands were sent so far.
    """

    def __init__(
        self,
        store: ProfileStore,
        commands: Commands,
        rulebook: Rulebook,
        tell: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._store = store
        self._commands = commands
        self._rulebook = rulebook
        self._tell = tell

    async def form(
        self, name: str, addresses: AsyncIterator[str], *, source: str, by: str, why: str, command_id: str = ""
    ) -> dict[str, Any]:
        """Make a new version of a list: these people are in it from now on, nobody else; the version's record.

        Args:
            addresses: as the store knows them; those where nobody is are counted.
            source: what it is formed of, in words.
        Raises:
            Refused: there is no static segment of that name.
            BadInput: no name of who asks, or no reason; nothing was sent.
            OSError: broker or store did not answer; asking again with the same id is safe.
        """
        if name not in self._rulebook.static:
            hint = did_you_mean(name, self._rulebook.static)
            raise Refused(f"segment: a static one of the rules wanted, got {name!r}{hint}")
        command_id = self._commands.known_id(command_id)
        wanted, unknown = await self._leading_to(addresses)
        before = {address: None async for address in self.walk(name)}
        joins = [address for address in wanted if address not in before]
        leaves = [address for address in before if address not in wanted]
        sent = 0
        for told, is_member in ((leaves, False), (joins, True)):
            for start in range(0, len(told), CHUNK):
                chunk = told[start : start + CHUNK]
                await self._commands.edits(chunk, Edit(by, why or source, lists={name: is_member}), command_id)
                sent += len(chunk)
                self._tell(sent)
        versions = await self.versions(name)
        if versions and versions[-1]["id"] == command_id:
            return versions[-1]
        version = {
            "version": versions[-1]["version"] + 1 if versions else 1,
            "id": command_id,
            "at": iso(await self._commands.now_ms()),
            "by": by,
            "why": why,
            "formed_of": source,
            "members": len(wanted),
            "joined": len(joins),
            "left": len(leaves),
            "unknown": unknown,
        }
        await self._store.put_doc(_RECORD + name, orjson.dumps([*versions, version][-VERSIONS_MAX:]))
        return version

    async def versions(self, name: str) -> list[dict[str, Any]]:
        """How a list was formed, oldest first; of the newest ``VERSIONS_MAX``."""
        return await versions(self._store, name)

    async def walk(self, segment: str) -> AsyncIterator[str]:
        """The members of a segment; who enters or leaves meanwhile may be missed or met."""
        cursor = ""
        while True:
            page, cursor = await self._store.members(segment, cursor, CHUNK)
            for address in page:
                yield address
            if not cursor:
                return

    async def _leading_to(self, addresses: AsyncIterator[str]) -> tuple[dict[str, None], int]:
        """Where profiles are that these addresses lead to, each once, and how many lead to nobody."""
        found: dict[str, None] = {}
        unknown = 0
        chunk: list[str] = []
        async for address in addresses:
            chunk.append(address)
            if len(chunk) == CHUNK:
                unknown += await self._look_up(chunk, found)
                chunk = []
        return found, unknown + await self._look_up(chunk, found)

    async def _look_up(self, chunk: list[str], found: dict[str, None]) -> int:
        unknown = 0
        # A forwarder points to a stronger kind only, so no walk is longer than there are kinds.
        for _ in STRENGTH:
            blobs = await self._store.load(chunk)
            profiles = [decode(address, blob) for address, blob in zip(chunk, blobs, strict=True) if blob is not None]
            unknown += len(chunk) - len(profiles)
            found.update((one.address, None) for one in profiles if not one.forward)
            chunk = [one.forward for one in profiles if one.forward]
        return unknown + len(chunk)


async def versions(store: ProfileStore, name: str) -> list[dict[str, Any]]:
    """How a static segment was formed by commands, oldest first."""
    told = await store.get_doc(_RECORD + name)
    found: list[dict[str, Any]] = [] if told is None else orjson.loads(told)
    return found
