"""Static segments formed by command: who is told what, once, and what the list's record says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

import pytest

from console.commands import Commands
from console.lists import Lists
from profiles.edits import read_edit
from profiles.errors import BadInput, Refused
from profiles.wire import EDIT, decode_command
from rules.engine import step
from rules.rulebook import Rulebook
from tests.console.filled import NOW_MS, SECRET, Shell, forwarder, hashed, json_of
from tests.console.test_commands import Counting, Kept
from tests.rules.told import START_MS, Life, rules_of

RULES: Final = """
segments:
  buyers: {did: order}
  vips: {kind: static}
  called: {all: [{in_segment: vips}, {did: page_viewed}]}
"""


class Shop:
    """A store in memory with a few customers, and the shortest worker: it steps what lies on the log."""

    def __init__(self) -> None:
        self.book: Rulebook = rules_of(RULES)
        self.shell = Shell(rulebook=self.book)
        self.log = Kept()
        self.lives: dict[str, Life] = {}
        self.lists = Lists(self.shell.store, Commands(self.shell.store, self.log, SECRET, Counting()), self.book)

    async def open(self, *names: str) -> None:
        for number, name in enumerate(names):
            life = self.lives[name] = Life(self.book, name)
            life.event("Order Completed", START_MS, order_id=str(number), total=1, currency="EUR", products=[])
        await self.shell.write(self.lives.values())

    async def work(self) -> None:
        """Take the commands that lie on the log, and write what became of the members."""
        for record in self.log.records:
            life = self.lives[record.key]
            command = decode_command(record.value)
            command.seen_ms = NOW_MS
            out = step(life.profile, command, self.book)
            await self.shell.write_members(life.profile, out.members)
        self.log.records.clear()

    async def form(self, people: Iterable[str], command_id: str = "", by: str = "ana") -> dict[str, object]:
        async def each() -> AsyncIterator[str]:
            for one in people:
                yield one

        return await self.lists.form("vips", each(), source="a test", by=by, why="sale", command_id=command_id)

    async def vips(self) -> list[str]:
        return sorted((await self.shell.store.members("vips", "", 1_000))[0])


@pytest.mark.mechanic("M2")
async def test_a_segment_is_frozen_and_formed_anew_as_another_version() -> None:
    shop = Shop()
    await shop.open(*(f"user:{n}" for n in range(1_200)))
    people = [one async for one in shop.lists.walk("buyers")]
    version = await shop.form(people)
    assert (version["version"], version["members"], version["joined"], version["left"]) == (1, 1_200, 1_200, 0)
    commands = [decode_command(one.value) for one in shop.log.records]
    assert {one.kind for one in commands} == {EDIT}
    assert {one.link for one in commands} == {(NOW_MS, "c-0000000000000001")}
    assert read_edit(commands[0].body).lists == {"vips": True}
    await shop.work()
    assert len(await shop.vips()) == 1_000
    # What happens afterwards changes nothing, and a second forming tells only those whose place it changes.
    version = await shop.form(["user:3", "user:7"])
    assert (version["version"], version["members"], version["joined"], version["left"]) == (2, 2, 0, 1_198)
    assert len(shop.log.records) == 1_198
    await shop.work()
    assert await shop.vips() == ["user:3", "user:7"]
    told = await shop.lists.versions("vips")
    assert [(one["version"], one["by"], one["why"], one["formed_of"]) for one in told] == [
        (1, "ana", "sale", "a test"),
        (2, "ana", "sale", "a test"),
    ]


@pytest.mark.mechanic("M2")
async def test_forming_again_under_one_id_is_one_version_and_changes_nobody_twice() -> None:
    shop = Shop()
    await shop.open("user:1", "user:2")
    first = await shop.form(["user:1", "user:2"], "sale-1")
    again = await shop.form(["user:1", "user:2"], "sale-1")  # The workers had not come to it yet.
    assert again == first
    assert len(shop.log.records) == 4
    await shop.work()
    assert await shop.vips() == ["user:1", "user:2"]
    assert len(await shop.lists.versions("vips")) == 1


@pytest.mark.mechanic("M2")
async def test_addresses_of_one_person_are_one_member_and_those_of_nobody_are_counted() -> None:
    shop = Shop()
    await shop.open("user:1")
    mail = hashed("email", "ana@shop.example")
    await shop.shell.write_profile(forwarder(mail, "user:1"))
    await shop.shell.write_profile(forwarder("anon:x", mail))
    await shop.shell.write_profile(forwarder("anon:y", "user:gone"))
    version = await shop.form(["anon:x", mail, "user:1", "user:nobody", "anon:y"])
    assert (version["members"], version["joined"], version["unknown"]) == (1, 1, 2)
    assert [one.key for one in shop.log.records] == ["user:1"]


@pytest.mark.mechanic("M2")
async def test_a_segment_that_lives_by_its_rule_cannot_be_formed_and_nobody_forms_namelessly() -> None:
    shop = Shop()
    await shop.open("user:1")

    async def nobody() -> AsyncIterator[str]:
        for one in list[str]():
            yield one

    with pytest.raises(Refused, match=r"segment: a static one of the rules wanted, got 'buyers'"):
        await shop.lists.form("buyers", nobody(), source="x", by="ana", why="")
    with pytest.raises(BadInput, match="by and why"):
        await shop.form(["user:1"], by="")
    assert shop.log.records == []
    assert await shop.lists.versions("vips") == []


@pytest.mark.mechanic("M2")
async def test_the_api_shows_the_versions_of_a_list() -> None:
    shop = Shop()
    await shop.open("user:1")
    await shop.shell.announce(files=[("r.yaml", RULES)])
    await shop.form(["user:1"])
    await shop.work()
    async with shop.shell.client() as client:
        told = json_of(await client.get("/api/v1/segments/vips"))
    assert (told["kind"], told["size"]) == ("static", 1)
    assert [one["version"] for one in told["versions"]] == [1]
