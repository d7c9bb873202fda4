"""Dead letters through the real parts: exact accounts, the bytes as they came, and each taken once however often it is
replayed (R9)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from typing import Any, Final

import orjson
import pytest
from rich.console import Console as Terminal

from console.letters import Letter
from opportune import letters
from opportune.letters import Wanted
from profiles.errors import Refused
from profiles.moments import HOUR_MS, MINUTE_MS, SECOND_MS, iso
from profiles.wire import CART_EVENTS, CUSTOMER_EVENTS, DEAD_LETTERS, PROFILE_COMMANDS, Event, Record
from rules.engine import _Turn
from tests.conftest import Installation
from tests.integration.parts import (
    KEYS,
    SHOP_KEY,
    WEB_KEY,
    SteppedClock,
    Topics,
    append,
    as_record,
    collecting,
    opened,
    producing,
    reading,
    until,
    working,
)
from tests.integration.test_hostile import USERS, added, original, pieces

WRITE_KEYS: Final = {"OPPORTUNE_WRITE_KEYS": orjson.dumps(KEYS).decode()}


async def replayed(env: Mapping[str, str], wanted: Wanted, capsys: pytest.CaptureFixture[str], **how: bool) -> str:
    """What the command tells."""
    code = await asyncio.to_thread(letters.replayed, env, wanted, "ana", **{"again": False, **how})
    told = capsys.readouterr().out
    assert code == ("0 cannot be taken" not in told)
    return told


async def sums(env: Mapping[str, str], source: str = "") -> dict[str, tuple[int, int, int]]:
    """Reason -> letters, replayed, waiting, as ``list`` tells."""
    out = io.StringIO()
    terminal = Terminal(file=out, width=200)
    await asyncio.to_thread(letters.listed, env, Wanted(source=source), terminal, 0, only_waiting=False)
    rows = [line.split() for line in out.getvalue().splitlines()[2:] if line.strip() and "─" not in line]
    return {row[0]: (int(row[1]), int(row[2]), int(row[3])) for row in rows}


async def shown(env: Mapping[str, str], name: str, *, only_original: bool = False) -> bytes:
    out = io.BytesIO()
    await asyncio.to_thread(letters.shown, env, name, out, only_original=only_original)
    return out.getvalue()


async def lying(topics: Topics, count: int) -> list[tuple[str, dict[str, Any]]]:
    """(name, letter) of so many letters, notes left out."""

    async def all_there() -> bool:
        await topics.settled()
        return len(found()) == count

    def found() -> list[tuple[str, dict[str, Any]]]:
        there = [(f"{one.partition}/{one.offset}", one.json()) for one in topics.on[DEAD_LETTERS]]
        return [(name, letter) for name, letter in there if letter["reason"] != "replayed"]

    await until(all_there, what=f"{count} letters")
    return found()


@pytest.mark.invariant("R1")
@pytest.mark.invariant("R9")
async def test_what_a_mended_core_can_take_is_replayed_once_however_often_it_is_asked_for(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = await opened(installation)
    apply, absorb = _Turn._apply, _Turn._absorb

    def broken(turn: _Turn, event: Event, *more: Any) -> None:
        if event.message_id.startswith("bad"):
            raise ZeroDivisionError
        apply(turn, event, *more)

    def broken_too(turn: _Turn, *more: Any) -> None:
        raise ZeroDivisionError

    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        monkeypatch.setattr(_Turn, "_apply", broken)
        monkeypatch.setattr(_Turn, "_absorb", broken_too)
        now_ms = await worker.store.now_ms()
        ahead_ms = now_ms + 6 * SECOND_MS
        live, held, guest = USERS[0], USERS[1], USERS[2]
        visit = Event("v-1", "shop", "product_added", now_ms, now_ms, "anon:a-1", props=added(guest, "", 0).props)
        signed_in = Event("v-2", "shop", "logged_in", now_ms + 1, now_ms + 1, guest, ("anon:a-1",), trusted=True)
        told = [added(live, "good", now_ms), added(live, "bad-1", now_ms), visit, signed_in]
        # By a clock that is some seconds ahead a visit ends just before what follows: no gate is open, so it is held.
        told += [added(held, "begun", ahead_ms - 30 * MINUTE_MS - 1), added(held, "bad-2", ahead_ms)]
        sent = [as_record(event) for event in told]
        await append(shop, producer, sent)
        there = await lying(topics, 3)
        assert sorted((one["topic"], one["where"].get("kept", "")) for _, one in there) == [
            (CART_EVENTS, ""),
            (CART_EVENTS, "held"),
            (PROFILE_COMMANDS, ""),
        ]
        assert await sums(shop.env) == {"bug": (3, 0, 3), "all": (3, 0, 3)}
        assert [await pieces(topics, user) for user in (live, held)] == [1, 1]
        for name, letter in there:
            assert await shown(shop.env, name, only_original=True) == original(letter)
            assert orjson.loads(await shown(shop.env, name))["replayed"] is None
        [bad] = [one for one in there if one[1]["topic"] == CART_EVENTS and "kept" not in one[1]["where"]]
        assert await shown(shop.env, bad[0], only_original=True) == sent[1].value

        # Before the core is mended they come back, as letters of their own.
        assert await replayed(shop.env, Wanted((bad[0],)), capsys) == "1 replayed, 0 were before, 0 cannot be taken\n"
        await lying(topics, 4)
        assert await sums(shop.env) == {"bug": (4, 1, 3), "all": (4, 1, 3)}
        assert orjson.loads(await shown(shop.env, bad[0]))["replayed"]["by"] == "ana"

        monkeypatch.setattr(_Turn, "_apply", apply)
        monkeypatch.setattr(_Turn, "_absorb", absorb)
        assert await replayed(shop.env, Wanted(), capsys) == "3 replayed, 1 were before, 0 cannot be taken\n"
        await topics.settled()
        assert [await pieces(topics, user) for user in (live, held, guest)] == [2, 2, 1]
        profiles = await topics.blobs()
        # Whom it was told once it is told again, and again: nothing moves.
        assert await replayed(shop.env, Wanted(), capsys) == "0 replayed, 4 were before, 0 cannot be taken\n"
        assert "4 replayed" in await replayed(shop.env, Wanted(reason="bug"), capsys, again=True)
        await topics.settled()
        assert [await pieces(topics, user) for user in (live, held, guest)] == [2, 2, 1]
        assert (await topics.blobs()).keys() == profiles.keys()
        assert await sums(shop.env) == {"bug": (4, 4, 0), "all": (4, 4, 0)}
        with pytest.raises(Refused, match="9/99"):
            await replayed(shop.env, Wanted(("9/99",)), capsys)


@pytest.mark.invariant("R1")
@pytest.mark.invariant("R9")
async def test_what_a_collector_refused_is_admitted_again_as_of_the_instant_when_it_came(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = await opened(installation)
    env = {**shop.env, **WRITE_KEYS}
    async with working(shop) as worker, producing(shop) as producer, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        clock = SteppedClock(now_ms - HOUR_MS)  # an hour ago
        drill = {"product_id": "p-1", "price": 5, "currency": "USD", "quantity": 1}
        event: dict[str, Any] = {"type": "track", "event": "Product Added", "properties": drill}
        async with collecting(shop, clock) as edge:
            ahead = {**event, "userId": "u-0", "timestamp": iso(now_ms - 50 * MINUTE_MS)}
            nameless = {"type": "track", "userId": "u-1", "properties": drill}
            never = {**event, "userId": "u-2", "timestamp": "soon"}
            answers = [await edge.call("batch", batch=[ahead, nameless, never, {**event, "userId": "u-3"}])]
            old = {**event, "userId": "u-4", "timestamp": "2001-01-01T00:00:00Z"}
            answers.append(await edge.call("import", key=SHOP_KEY, batch=[{**old, "event": 5}]))
        assert [(answer.status_code, answer.json()["refused"]) for answer in answers] == [(200, 3), (200, 1)]
        there = await lying(topics, 4)
        assert {one["where"]["source"] for _, one in there} == {"web", "shop"}
        assert [one["where"].get("backfill") for _, one in there if one["where"]["source"] == "shop"] == [True]
        assert await sums(env, source="web") == {
            "bad_name": (1, 0, 1),
            "bad_time": (1, 0, 1),
            "in_future": (1, 0, 1),
            "all": (3, 0, 3),
        }
        for _, letter in there:
            assert WEB_KEY.encode() not in original(letter)
        said = await replayed(env, Wanted(), capsys)
        assert said.count("bad_name: ") == 2
        assert said.count("bad_time: ") == 1
        assert "1 replayed, 0 were before, 3 cannot be taken" in said
        await topics.settled()
        assert await pieces(topics, USERS[0]) == 1
        # It arrives now, whenever it happened: running the log again takes it in its place.
        [taken] = [one.json() for one in topics.on[CART_EVENTS] if one.key == b"user:u-0"]
        assert taken["at_ms"] == now_ms - 50 * MINUTE_MS
        assert taken["received_ms"] >= now_ms
        assert (await sums(env))["all"] == (4, 1, 3)
        assert "no_source: " in await replayed(shop.env, Wanted(reason="in_future"), capsys, again=True)
        # What cannot be read stays where it is.
        await append(shop, producer, [Record(CUSTOMER_EVENTS, USERS[5], b"\xff garbage")])
        await lying(topics, 5)
        assert "malformed: " in await replayed(env, Wanted(topic=CUSTOMER_EVENTS), capsys)
        assert (await sums(env))["all"] == (5, 1, 4)


def test_a_letter_is_named_by_where_it_lies() -> None:
    assert Letter(3, 17, "", "bug", "", "", "", {}, b"").name == "3/17"
