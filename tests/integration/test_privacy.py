"""What authorised people ask for, through the real parts: edits, and erasures after which nothing of the person is found.

The scan looks at every key and value of the store, whatever it is for, so a place that somebody adds is looked at, too.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from redis.asyncio import Redis

from connectors.clock import SystemClock
from console.commands import Commands
from console.register import Register
from console.unmerge import Parter
from profiles.codec import decode
from profiles.edits import Edit
from profiles.erasure import Asked, pack_asked
from profiles.errors import BadInput
from profiles.ids import address_of, tomb_key
from profiles.wire import DECISIONS, EDIT, ERASE, ERASURES, PROFILE_COMMANDS, Command, Record, encode_command
from rules.undo import NotExact
from stream import settings
from stream.clock import SystemIds
from stream.log import KafkaLog
from tests.conftest import Installation
from tests.integration.parts import (
    ROOT,
    SECRET,
    SHOP_KEY,
    Edge,
    Shop,
    Topics,
    append,
    collecting,
    opened,
    producing,
    reading,
    until,
    working,
)

RULES: Final = """
traits:
  views: {count: product_viewed}
segments:
  lookers: {trait: views, gte: 1}
  berliners: {trait: address.city, exists: true}
  friends: {consent: {channel: email, topic: news}}
triggers:
  looked:
    on: {event: product_viewed}
    re_entry: every
    steps: [{emit: looked}]
"""
SECRET_BYTES: Final = bytes.fromhex(SECRET)
MAIL: Final = "quirina@shop.example"
TRAITS: Final = {"email": MAIL, "first_name": "Quirina", "address": {"city": "Berlin-Xylo"}, "phone": "+4915112345678"}
SAID: Final = (b"quirina", b"Quirina", b"Xylo", b"15112345678", b"Zaphira")
HASHED: Final = (address_of("email", MAIL, SECRET_BYTES), address_of("phone", "+4915112345678", SECRET_BYTES))
NAMES: Final = (b"u-erased-1", b"a-erased-1", *(address.encode() for address in HASHED))
WAIT_S: Final = 180.0
READ: Final[dict[bytes, Callable[[Any, bytes], Any]]] = {
    b"string": lambda asked, key: asked.get(key),
    b"hash": lambda asked, key: asked.hgetall(key),
    b"list": lambda asked, key: asked.lrange(key, 0, -1),
    b"zset": lambda asked, key: asked.zrange(key, 0, -1),
}
"""How to read a key of each kind that the store has, whole."""


@pytest.fixture
def shop(installation: Installation, tmp_path: Path) -> Shop:
    (tmp_path / "rules.yaml").write_text(RULES)
    return asyncio.run(opened(installation, rules=str(tmp_path)))


@asynccontextmanager
async def asking(shop: Shop, topics: Topics) -> AsyncIterator[Commands]:
    log = KafkaLog(settings.read(shop.env).own)
    await log.start()
    try:
        yield Commands(topics.store, log, SECRET_BYTES, SystemIds())
    finally:
        await log.stop()


async def everything(url: str) -> list[tuple[bytes, bytes]]:
    """Every key of the store with all that it holds."""
    found: list[tuple[bytes, bytes]] = []
    client: Any = Redis.from_url(url, protocol=2)
    async with client:
        keys = [key async for key in client.scan_iter(count=1_000)]
        for start in range(0, len(keys), 500):
            page, asked = keys[start : start + 500], client.pipeline(transaction=False)
            for key in page:
                asked.type(key)
            # One of kind "none" is gone since it was listed.
            there = [(key, kind) for key, kind in zip(page, await asked.execute(), strict=True) if kind != b"none"]
            for key, kind in there:
                READ[kind](asked, key)
            found += [(key, _joined(value)) for (key, _), value in zip(there, await asked.execute(), strict=True)]
    return found


def _joined(value: Any) -> bytes:
    """All that a key holds."""
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    return b"\x00".join(value) if isinstance(value, list) else value or b""


async def residue(url: str, words: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """(key, word) wherever a word is found in the store."""
    return [(key, word) for key, value in await everything(url) for word in words if word in key or word in value]


async def live_a_little(edge: Edge, topics: Topics) -> None:
    """A visit, a sign-in that names an e-mail, and somebody else of whom nothing must go."""
    drill = {"product_id": "drill", "price": 49.90, "currency": "USD"}
    await edge.accepted("track", event="Product Viewed", anonymousId="a-erased-1", messageId="m1", properties=drill)
    await edge.accepted("track", event="Product Added", anonymousId="a-erased-1", messageId="m2", properties=drill)
    await topics.settled()
    await edge.accepted(
        "identify", key=SHOP_KEY, userId="u-erased-1", anonymousId="a-erased-1", messageId="m3", traits=TRAITS
    )
    await edge.accepted(
        "track", event="Consent Changed", userId="u-erased-1", messageId="m4",
        properties={"channel": "email", "topic": "news", "state": "granted"},
    )  # fmt: skip
    await edge.accepted("identify", userId="u-kept", messageId="k1", traits={"first_name": "Keeper"})
    await edge.accepted("track", event="Product Viewed", userId="u-kept", messageId="k2", properties=drill)
    await topics.settled()


@pytest.mark.invariant("R24")
@pytest.mark.invariant("R5")
@pytest.mark.mechanic("D10")
async def test_after_an_erasure_nothing_of_the_person_is_in_the_store_or_goes_out(shop: Shop) -> None:
    url = shop.env["OPPORTUNE_REDIS_URL"]
    async with collecting(shop, SystemClock()) as edge, reading(shop) as topics, asking(shop, topics) as commands:
        async with working(shop):
            await live_a_little(edge, topics)
            command_id = await commands.edit(
                "anon:a-erased-1", Edit("support-7", "Zaphira is her nickname", set={"nickname": "Zaphira"})
            )
            assert (await commands.settled(command_id, WAIT_S))["outcome"] == "done"
            await topics.settled()
            found = {word for _, word in await residue(url, (*SAID, *NAMES))}
            assert found == {*SAID, *NAMES}, "the scan sees what is there"
            kept = await topics.profile("user:u-kept")
            before = {topic: len(found) for topic, found in topics.on.items()}

            command_id = await commands.erase(f"email:{MAIL}", by="dpo")
            receipt = await commands.settled(command_id, WAIT_S)
            assert receipt["hash"] == tomb_key("user:u-erased-1", SECRET_BYTES)
            assert (receipt["outcome"], receipt["alias"], receipt["by"]) == ("done", False, "dpo")
            assert receipt["addresses"] == {"anon": 1, "email": 1, "phone": 1}
            assert receipt["held"]["traits"] == 5

            # The outbox's last records of hers are cut off with the next write: within a beat.
            async def nothing_left() -> bool:
                return await residue(url, (*SAID, *NAMES)) == []

            await until(nothing_left, what="a store without a trace of her")
            await topics.settled()
            out = [
                one for topic in (*topics.on,) for one in topics.on[topic][before.get(topic, 0) :]
                if topic != PROFILE_COMMANDS
            ]  # fmt: skip
            assert not [(one.topic, word) for one in out for word in SAID if word in one.value]
            left = [one.json() for one in out if one.topic == "segment_changes"]
            assert {one["segment"] for one in left} == {"lookers", "berliners", "friends"}
            assert {one["change"] for one in left} == {"exited"}
            register = [one.json() for one in out if one.topic == ERASURES]
            addresses = ("user:u-erased-1", "anon:a-erased-1", *HASHED)
            hashes = {tomb_key(address, SECRET_BYTES) for address in addresses}
            assert {one["hash"] for one in register} == hashes
            assert not [name for one in out if one.topic == ERASURES for name in NAMES if name in one.value]

            # Whoever asks again, by whichever address, changes nothing.
            assert await commands.erase("user:u-erased-1", "dpo", command_id) == command_id
            for address in ("user:u-erased-1", "anon:a-erased-1", HASHED[1]):
                again = await commands.erase(address, by="dpo")
                assert (await commands.settled(again, WAIT_S))["held"] == {}
            await topics.settled()
            await until(nothing_left, what="a store without a trace of her")
            assert await commands.receipt(command_id) == receipt

            # Her telephone was off: what it tells now happened before, or is told twice.
            await edge.accepted(
                "identify", key=SHOP_KEY, userId="u-erased-1", anonymousId="a-erased-1", messageId="m3", traits=TRAITS
            )
            await topics.settled()
            assert await topics.store.load(["user:u-erased-1"]) == [None]

        # Another worker knows it, too, and the shop that still tells of her does not bring her back.
        async with working(shop):
            await edge.accepted("identify", userId="u-erased-1", messageId="m9", traits=TRAITS)
            await edge.accepted("track", event="Order Completed", userId="u-erased-1", messageId="m10", key=SHOP_KEY,
                                properties={"order_id": "o-1", "currency": "USD", "total": 5})  # fmt: skip
            await topics.settled()
            await until(nothing_left, what="a store without a trace of her")
            after = await topics.profile("user:u-kept")
            assert kept is not None
            assert after is not None
            assert after.traits == kept.traits
            sizes = await topics.store.segment_sizes(["lookers", "berliners", "friends"])
            assert sizes == {"lookers": 1, "berliners": 0, "friends": 0}
            assert await topics.store.members("lookers", "", 10) == (["user:u-kept"], "")

            # She comes back of her own will, and begins with nothing.
            await edge.accepted("track", event="Signed Up", userId="u-erased-1", messageId="m11", properties={})
            await topics.settled()
            back = await topics.profile("user:u-erased-1")
            assert back is not None
            assert (sorted(back.traits), back.orders, back.links) == (["registered_at"], {}, {})


@pytest.mark.invariant("R5")
@pytest.mark.invariant("R2")
async def test_commands_sent_twice_or_wrongly_do_no_harm(shop: Shop) -> None:
    async with (
        working(shop),
        collecting(shop, SystemClock()) as edge,
        reading(shop) as topics,
        asking(shop, topics) as commands,
        producing(shop) as producer,
    ):
        await live_a_little(edge, topics)
        edit = Edit("support-7", "asked by phone", set={"address.city": "Berlin"}, consents={"email:news": "denied"})
        for _ in range(2):
            assert await commands.edit("user:u-erased-1", edit, "c-1") == "c-1"
            receipt = await commands.settled("c-1", WAIT_S)
            await topics.settled()
        assert (receipt["set"], receipt["consents"]) == (["address.city"], ["email:news"])
        page, _ = await topics.store.members("friends", "", 10)
        assert page == []
        exits = [
            one for one in topics.json("segment_changes") if (one["segment"], one["change"]) == ("friends", "exited")
        ]
        assert [one["cause"] for one in exits] == [{"event": "edit", "message_id": "c-1"}]
        assert (await commands.settled(await commands.edit("user:nobody", edit), WAIT_S))["reason"] == "unknown"
        assert await topics.store.load(["user:nobody"]) == [None]
        with pytest.raises(BadInput):
            await commands.edit("user:u-erased-1", edit, "no id!")
        with pytest.raises(BadInput):
            await commands.erase("nobody", "dpo")
        # What is on the topic though nobody of ours wrote it so is a dead letter, and stops nobody.
        now_ms = await topics.store.now_ms()
        bad = [Command(kind, "user:u-kept", "", (now_ms, "c-9"), b"{", now_ms) for kind in (EDIT, ERASE)]
        await append(shop, producer, [Record(PROFILE_COMMANDS, one.address, encode_command(one)) for one in bad])
        await topics.settled()
        assert [one["reason"] for one in topics.json("dead_letters")] == ["malformed", "malformed"]
        assert (await topics.profile("user:u-kept")) is not None
        # On the log's clock two erasures may bear one instant: each has its receipt.
        words, now_ms = pack_asked(Asked("dpo")), await topics.store.now_ms()
        both = [Command(ERASE, "user:u-erased-1", "", (now_ms, name), words, now_ms) for name in ("e-1", "e-2")]
        await append(shop, producer, [Record(PROFILE_COMMANDS, one.address, encode_command(one)) for one in both])
        first, second = [await commands.settled(one.link[1], WAIT_S) for one in both]
        assert (first["outcome"], second["outcome"], first["at"]) == ("done", "done", second["at"])
        assert (bool(first["held"]), second["held"]) == (True, {})
        assert await topics.store.load(["user:u-erased-1"]) == [None]


@pytest.mark.invariant("R24")
async def test_the_command_line_edits_and_erases_and_tells_when_the_logs_copies_are_gone(shop: Shop) -> None:
    def opportune(*words: str) -> tuple[int, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPPORTUNE_")}
        done = subprocess.run(
            [sys.executable, "-m", "opportune", "profile", *words],
            cwd=ROOT, env={**environment, **shop.env}, capture_output=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr.decode()
        return done.returncode, orjson.loads(done.stdout)

    async with working(shop), collecting(shop, SystemClock()) as edge, reading(shop) as topics:
        await live_a_little(edge, topics)
        words = ("edit", f"email:{MAIL}", "--by", "support-7", "--why", "asked", "--set", "visits=3", "--unset", "phone",
                 "--consent", "email:news=")  # fmt: skip
        code, told = await asyncio.to_thread(opportune, *words)
        assert (code, told["set"], told["unset"], told["consents"]) == (0, ["visits"], ["phone"], ["email:news"])
        (blob,) = await topics.store.load(["user:u-erased-1"])
        assert blob is not None
        profile = decode("user:u-erased-1", blob)
        assert (profile.traits["visits"].value, profile.traits["phone"].value) == (3, None)
        code, told = await asyncio.to_thread(opportune, "erase", "user:u-erased-1", "--by", "dpo", "--id", "case-17")
        assert (code, told["command"]) == (0, "case-17")
        assert set(told["ages_out"]) == {"input_topics", "output_topics", "dead_letters", "receipt"}
        assert (await asyncio.to_thread(opportune, "receipt", "case-17")) == (0, told)
        assert await topics.store.load(["user:u-erased-1"]) == [None]
        assert DECISIONS in topics.on


# --- un-merge -----------------------------------------------------------------------------------------------------


def parter(shop: Shop, topics: Topics, commands: Commands) -> Parter:
    options = {"bootstrap_servers": shop.bootstrap}
    return Parter(topics.store, commands, SECRET_BYTES, options, shop.installation.partitions)


@pytest.mark.invariant("R22")
@pytest.mark.invariant("R23")
@pytest.mark.mechanic("D4")
async def test_an_unmerge_gives_both_what_they_would_have_had_it_never_been(shop: Shop) -> None:
    drill = {"product_id": "drill", "price": 49.90, "currency": "USD"}
    saw = {"product_id": "saw", "price": 15, "currency": "USD"}
    async with (
        working(shop),
        collecting(shop, SystemClock()) as edge,
        reading(shop) as topics,
        asking(shop, topics) as commands,
    ):

        async def live(one: str, two: str, *, joins: bool) -> None:
            """A browser and a customer; the one signs in at the other's, and both go on."""
            tell = edge.accepted
            await tell("track", event="Product Viewed", anonymousId=one, messageId=f"{one}1", properties=drill)
            await tell("identify", userId=two, messageId=f"{two}1", traits={"first_name": "Bea"})
            await topics.settled()
            who = {"anonymousId": one} if joins else {}
            await tell("identify", userId=two, messageId=f"{two}2", traits={"plan": "gold"}, **who)
            await topics.settled()
            await tell("track", event="Product Added", anonymousId=one, messageId=f"{one}2", properties=saw)
            await tell("track", event="Product Added", userId=two, messageId=f"{two}3", properties=drill)
            await tell("track", event="Consent Changed", userId=two, messageId=f"{two}4",
                       properties={"channel": "email", "topic": "news", "state": "granted"})  # fmt: skip
            await topics.settled()

        await live("a-m", "u-m", joins=True)
        await live("a-n", "u-n", joins=False)
        user = await topics.profile("user:u-m")
        assert user is not None
        assert user.links
        assert sorted(user.carts[""].items) == ["drill", "saw"]
        receipt = await parter(shop, topics, commands).unmerge("anon:a-m", "dpo", WAIT_S)
        assert receipt["outcome"] == "done"
        await topics.settled()
        for merged, never in (("anon:a-m", "anon:a-n"), ("user:u-m", "user:u-n")):
            mine, theirs = await topics.profile(merged), await topics.profile(never)
            assert mine is not None
            assert theirs is not None
            assert sorted(mine.carts[""].items) == sorted(theirs.carts[""].items)
            assert (mine.forward, mine.links) == ("", {})
            assert {name: one.value for name, one in mine.traits.items()} == {
                name: one.value for name, one in theirs.traits.items()
            }
            assert (mine.aggs, sorted(mine.members)) == (theirs.aggs, sorted(theirs.members))
            assert sorted(mine.consents) == sorted(theirs.consents)
            assert set(mine.runs) == set(theirs.runs)
        lookers, _ = await topics.store.members("lookers", "", 10)
        assert sorted(lookers) == ["anon:a-m", "anon:a-n"]
        # The browser's next event stays with it; nothing of it is kept at the other for undoing any more.
        await edge.accepted("track", event="Product Added", anonymousId="a-m", messageId="a-m3", properties=drill)
        await topics.settled()
        browser = await topics.profile("anon:a-m")
        assert browser is not None
        assert sorted(browser.carts[""].items) == ["drill", "saw"]
        assert await topics.store.undo("user:u-m") == []
        with pytest.raises(NotExact) as told:
            await parter(shop, topics, commands).unmerge("anon:a-m", "dpo", WAIT_S)
        assert told.value.reason == "not_merged"

        # Two known users are one person by command only, and may be parted again.
        with pytest.raises(BadInput, match="two addresses of kind user"):
            await commands.merge("user:u-m", "user:nobody", "support-7")
        receipt = await commands.settled(await commands.merge("user:u-n", "user:u-m", "support-7"), WAIT_S)
        assert receipt["outcome"] == "done"
        await topics.settled()
        gone, both = await topics.profile("user:u-n"), await topics.profile("user:u-m")
        assert gone is not None
        assert both is not None
        assert (gone.forward, list(both.links)) == ("user:u-m", ["user:u-n"])
        receipt = await parter(shop, topics, commands).unmerge("user:u-n", "support-7", WAIT_S)
        assert receipt["outcome"] == "done"
        await topics.settled()
        again = await topics.profile("user:u-n")
        assert again is not None
        assert (again.forward, sorted(again.traits)) == ("", ["first_name", "plan"])


# --- an old backup ------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R24")
async def test_an_old_backup_does_not_bring_an_erased_person_back(shop: Shop) -> None:
    url = shop.env["OPPORTUNE_REDIS_URL"]
    client: Any = Redis.from_url(url, protocol=2)
    async with (
        client,
        collecting(shop, SystemClock()) as edge,
        reading(shop) as topics,
        asking(shop, topics) as commands,
    ):

        async def dumped() -> dict[bytes, bytes]:
            return {key: await client.dump(key) async for key in client.scan_iter(count=1_000)}

        async def nothing_left() -> bool:
            return await residue(url, (*SAID, *NAMES)) == []

        async with working(shop):
            await live_a_little(edge, topics)
        backup = await dumped()
        async with working(shop):
            await commands.settled(await commands.erase("user:u-erased-1", by="dpo"), WAIT_S)
            await topics.settled()
            await until(nothing_left, what="a store without a trace of her")

        async def restored(what: Callable[[bytes], bool]) -> None:
            await client.delete(*[key for key in await dumped() if what(key)])
            for key, value in backup.items():
                if what(key):
                    await client.restore(key, 0, value)
            assert {word for _, word in await residue(url, SAID)} == {*SAID} - {b"Zaphira"}

        # The command is still on the log: the workers read it again.
        await restored(lambda key: True)
        async with working(shop):
            await topics.settled()
            await until(nothing_left, what="a store without a trace of her")

        # The log is long past it (so the cursors stay): the register is what remembers her.
        kept = (b"cur", b"taken", b"wm")
        await restored(lambda key: not key.endswith(kept))
        async with working(shop):
            options = {"bootstrap_servers": shop.bootstrap}
            register = Register(topics.store, commands._log, SECRET_BYTES, options, shop.installation.partitions)
            assert await register.reapply(await commands.now_ms()) == (4, 4)
            await topics.settled()
            await until(nothing_left, what="a store without a trace of her")
            assert await register.reapply(await commands.now_ms()) == (4, 0)
            keeper = await topics.profile("user:u-kept")
            assert keeper is not None
            assert keeper.traits["first_name"].value == "Keeper"
