"""Commands about people: who may send them by the API, what is sent, and what the register brings back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import orjson
import pytest

from console.api import make_app
from console.callers import TOKEN_CHARS_MIN, read_callers
from console.commands import Commands
from console.decisions import DecisionWindow
from console.routes.people import Desk
from console.settings import read as read_settings
from console.unmerge import Parter
from profiles.edits import Edit, read_edit
from profiles.erasure import read_asked
from profiles.errors import BadInput, Refused
from profiles.ids import shard_of, tomb_key
from profiles.moments import iso
from profiles.wire import EDIT, ERASE, INPUT_TOPICS, PROFILE_COMMANDS, Record, decode_command, is_operators
from stream.ports import ShardWrite
from tests.console.filled import NOW_MS, OPEN, SECRET, Shell, hashed, json_of
from tests.console.test_decisions import decision, ids
from tests.rules.told import shop_rules

TOKEN: Final = "t" * TOKEN_CHARS_MIN
ASKED: Final = {"address": "email:Ana@Shop.Example", "by": "dpo"}
EDITED: Final = {**ASKED, "why": "typo", "set": {"first_name": "Ana"}, "consents": {"email:sale": None}}


class Kept:
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def publish(self, records: Sequence[Record]) -> None:
        self.records += records

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        raise AssertionError("nothing is read here")


class Counting:
    """Ids that count."""

    def __init__(self) -> None:
        self.drawn = 0

    def token(self) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(8, "big")


class Office:
    """A desk over a store in memory."""

    def __init__(self) -> None:
        self.shell = Shell(rulebook=shop_rules())
        self.log = Kept()
        self.commands = Commands(self.shell.store, self.log, SECRET, Counting())
        parter = Parter(self.shell.store, self.commands, SECRET, {"bootstrap_servers": "nobody:1"}, 8)
        self.desk = Desk(self.commands, parter)

    def client(self, token: str | None = TOKEN, *, desk: bool = True) -> httpx.AsyncClient:
        callers = read_callers(TOKEN, "") if desk else OPEN
        app = make_app(self.shell.reader(), callers, frozenset({"127.0.0.1"}), desk=self.desk)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


@pytest.mark.invariant("R5")
@pytest.mark.parametrize(("path", "body", "kind"), [("edits", EDITED, EDIT), ("erasures", ASKED, ERASE)])
async def test_who_bears_the_token_sends_a_command_to_the_persons_shard(
    path: str, body: dict[str, Any], kind: str
) -> None:
    office = Office()
    async with office.client() as client:
        answer = await client.post(f"/api/v1/{path}", json=body)
        assert (answer.status_code, json_of(answer)) == (202, {"command": "c-0000000000000001"})
        again = await client.post(f"/api/v1/{path}", json={**body, "id": "case-1"})
        assert json_of(again) == {"command": "case-1"}
    address = hashed("email", "ana@shop.example")
    assert [(one.topic, one.key) for one in office.log.records] == [(PROFILE_COMMANDS, address)] * 2
    command = decode_command(office.log.records[1].value)
    assert (command.kind, command.address, command.other, command.link) == (kind, address, "", (NOW_MS, "case-1"))
    assert is_operators(command)
    if kind == EDIT:
        assert read_edit(command.body) == Edit("dpo", "typo", {"first_name": "Ana"}, (), {"email:sale": None})
    else:
        assert read_asked(command.body).by == "dpo"
    assert b"ana@shop" not in b"".join(one.value for one in office.log.records).lower()


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("path", ["edits", "erasures", "unmerges"])
async def test_without_the_token_nothing_is_sent(path: str) -> None:
    office = Office()
    body = EDITED if path == "edits" else ASKED
    for token, desk, status, code in (
        (None, True, 401, "no_token"),
        ("t" * 23, True, 401, "no_token"),
        ("тайна", True, 401, "no_token"),
        (TOKEN, False, 403, "read_only"),
    ):
        async with office.client(None, desk=desk) as client:
            headers: dict[bytes, bytes] = {} if token is None else {b"authorization": f"Bearer {token}".encode()}
            answer = await client.post(f"/api/v1/{path}", json=body, headers=headers)
            assert (answer.status_code, json_of(answer)["code"]) == (status, code)
            assert (await client.get("/api/v1/receipts/c-1", headers=headers)).status_code == status
    assert office.log.records == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("erasures", {**ASKED, "address": "nobody"}),
        ("erasures", {**ASKED, "address": "user:ana\ufffd"}),
        ("erasures", {**ASKED, "by": ""}),
        ("erasures", {**ASKED, "id": "no id"}),
        ("erasures", {**ASKED, "more": 1}),
        ("edits", {**EDITED, "set": {}, "consents": {}}),
        ("edits", {**EDITED, "set": {"first_name": {"ana-secret": 1}}}),
        ("edits", {**EDITED, "consents": {"email:sale": "ana-secret"}}),
        ("unmerges", {**ASKED, "address": "nobody"}),
    ],
)
async def test_what_is_not_well_formed_is_refused_and_not_repeated(path: str, body: dict[str, Any]) -> None:
    office = Office()
    async with office.client() as client:
        answer = await client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert "ana" not in answer.text.lower()
    assert office.log.records == []


@pytest.mark.parametrize("body", [b"x", b"[]", b""])
async def test_a_body_that_is_no_object_is_refused_as_the_body(body: bytes) -> None:
    async with Office().client() as client:
        answer = await client.post("/api/v1/edits", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"].startswith("body: "), answer.text


async def test_a_receipt_is_found_by_its_command() -> None:
    office = Office()
    told = {"command": "c-1", "kind": "edit", "outcome": "refused", "at": iso(NOW_MS), "reason": "unknown"}
    shard = shard_of("user:1")
    write = ShardWrite(
        shard, b"", b"token", dict.fromkeys(INPUT_TOPICS, 0), NOW_MS, receipts={"c-1": orjson.dumps(told)}
    )
    assert await office.shell.store.commit([write]) == []
    async with office.client() as client:
        assert json_of(await client.get("/api/v1/receipts/c-1")) == told
        missing = await client.get("/api/v1/receipts/c-2")
        assert (missing.status_code, json_of(missing)["code"]) == (404, "no_receipt")
        assert (await client.get("/api/v1/receipts/a%20b")).status_code == 400
        # An address that was merged into nobody is told apart from one that cannot be parted any more.
        answer = await client.post("/api/v1/unmerges", json={"address": "anon:1", "by": "dpo"})
        assert (answer.status_code, json_of(answer)["code"]) == (409, "not_merged")
    with pytest.raises(TimeoutError):
        await office.commands.settled("c-2", within_s=0.01)


async def test_on_the_logs_clock_a_command_bears_what_the_workers_have_reached() -> None:
    office = Office()
    commands = Commands(office.shell.store, office.log, SECRET, Counting(), on_logs_clock=True)
    cursor = dict.fromkeys(INPUT_TOPICS, 0)
    await office.shell.store.commit([ShardWrite(7, b"", b"a", cursor, 500), ShardWrite(9, b"", b"b", cursor, 900)])
    await commands.erase("user:1", "dpo")
    assert decode_command(office.log.records[0].value).received_ms == 900
    with pytest.raises(BadInput, match=r"^by: 1 to 200 characters wanted, got 0$"):
        await commands.erase("user:1", "")


@pytest.mark.invariant("R24")
def test_the_window_forgets_what_was_decided_of_somebody_who_is_erased() -> None:
    window = DecisionWindow(20, SECRET)
    for number in range(9):
        window.take(decision(number))
    line = orjson.dumps({"hash": tomb_key("user:1", SECRET), "at": iso(5), "command": "c", "by": "dpo"})
    window.forget(line)
    assert ids(window) == [f"d{number}" for number in (8, 7, 6, 5, 3, 2, 0)]
    assert window.counts() == {"welcome": {"emitted": 7}}
    window.take(decision(1))  # read again, or late
    window.take(decision(10))
    assert "d1" not in ids(window)
    assert "d10" in ids(window)
    window.forget(b"{}")
    assert len(window) == 8


def test_a_short_token_is_refused_without_being_told() -> None:
    with pytest.raises(Refused, match=r"OPPORTUNE_API_TOKEN: 24 characters or more wanted, got other text") as told:
        read_settings({"OPPORTUNE_API_TOKEN": "abcde", "OPPORTUNE_SECRET": SECRET.hex()})
    assert "abcde" not in str(told.value)
