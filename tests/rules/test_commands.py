"""What authorised people ask for: edits and erasures, as ``step`` takes them."""

from __future__ import annotations

from typing import Any, Final

import pytest

from profiles.codec import encode
from profiles.edits import Edit, pack_edit, read_edit
from profiles.erasure import Asked, is_tombstone, pack_asked, read_asked
from profiles.errors import BadInput
from profiles.moments import DAY_MS, HOUR_MS, iso
from profiles.state import TRAITS_MAX, Trait
from profiles.wire import ABSORB, DECISIONS, EDIT, ERASE, LINK, MERGE, SEGMENT_CHANGES, Command, Event
from rules.compile import compile_rules
from rules.engine import step
from rules.outcome import DUPLICATE, ERASED, FORWARDED, HELD, REFUSED
from rules.scenarios import World
from tests.scenarios.pack import SHOP

NOW_MS: Final = 1_767_225_600_000
BOOK: Final = compile_rules(
    [
        (
            "r",
            """
segments:
  berlin: {trait: address.city, eq: Berlin}
  friends: {consent: {channel: email, topic: sale}}
  lookers: {did: product_viewed, window: {within: P7D}}
""",
        )
    ]
)


def edit(command_id: str, address: str = "user:1", at_ms: int = 0, **what: Any) -> Command:
    body = pack_edit(Edit("support-7", "typo", **what))
    return Command(EDIT, address, "", (at_ms, command_id), body, at_ms)


def erase(command_id: str, address: str = "user:1", at_ms: int = 0) -> Command:
    return Command(ERASE, address, "", (at_ms, command_id), pack_asked(Asked("dpo")), at_ms)


def said(world: World, number: int, kind: str = "identified", address: str = "user:1", **more: Any) -> str:
    """An event now, taken; what became of it."""
    event = Event(f"m{number}", "web", kind, world.now_ms, world.now_ms, address, **more)
    return world.happen(event).outcome


def ana() -> World:
    """A world in which user:1 is Ana from Bonn, who looked at something as anon:x."""
    world = World(BOOK, NOW_MS)
    said(world, 1, "product_viewed", "anon:x", props={"items": [{"product_id": "drill"}]})
    said(world, 2, identifiers=("anon:x",), traits={"first_name": "Ana", "address": {"city": "Bonn"}})
    said(world, 3, "consent_changed", props={"channel": "email", "topic": "sale", "state": "granted"})
    world.until(NOW_MS + HOUR_MS, with_it=True)
    return world


# --- edits --------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R5")
def test_an_edit_states_and_takes_back_and_the_segments_follow() -> None:
    world = ana()
    assert world.members("user:1") == ["friends", "lookers"]
    told = world.tell(
        edit(
            "c1",
            at_ms=world.now_ms,
            set={"address.city": "Berlin", "vip": True},
            unset=("first_name",),
            consents={"email:sale": "denied", "sms:*": "granted"},
        )
    )
    profile = world.profile("user:1")
    assert profile.traits["address.city"] == Trait("Berlin", world.now_ms, "edit by support-7: typo")
    assert profile.traits["first_name"].value is None
    assert profile.consents["email:sale"].value == "denied"
    assert world.members("user:1") == ["berlin", "lookers"]
    assert told.members == [("berlin", True), ("friends", False)]
    assert world.receipts["c1"] == {
        "command": "c1",
        "kind": "edit",
        "outcome": "done",
        "at": iso(world.now_ms),
        "by": "support-7",
        "set": ["address.city", "vip"],
        "unset": ["first_name"],
        "consents": ["email:sale", "sms:*"],
        "newer": [],
        "no_room": [],
    }


@pytest.mark.invariant("R5")
def test_an_edit_that_comes_twice_is_taken_once() -> None:
    world = ana()
    command = edit("c1", at_ms=world.now_ms, set={"vip": True})
    world.tell(command)
    blob = encode(world.profile("user:1"))
    world.now_ms += 5
    assert world.tell(command).outcome == DUPLICATE
    assert encode(world.profile("user:1")) == blob


@pytest.mark.invariant("R20")
def test_of_two_edits_of_one_instant_the_same_stands_whichever_comes_first() -> None:
    found = set()
    for order in (("c1", "c2"), ("c2", "c1")):
        world = ana()
        asked: dict[str, dict[str, Any]] = {
            "c1": {"set": {"address.city": "Berlin"}},
            "c2": {"unset": ("address.city",)},
        }
        for command_id in order:
            world.tell(edit(command_id, at_ms=world.now_ms, **asked[command_id]))
        found.add((world.profile("user:1").traits["address.city"], tuple(world.members("user:1"))))
    assert len(found) == 1


def test_what_is_said_later_replaces_an_edit_and_what_was_said_before_does_not_come_back() -> None:
    world = ana()
    world.tell(edit("c1", at_ms=world.now_ms, set={"first_name": "Anna"}, unset=("address.city",)))
    late = Event("late", "web", "identified", NOW_MS + 1, world.now_ms, "user:1")
    late.traits = {"first_name": "Ann", "address": {"city": "Bonn"}}
    world.happen(late)
    traits = world.profile("user:1").traits
    assert (traits["first_name"].value, traits["address.city"].value) == ("Anna", None)
    world.now_ms += 1
    said(world, 9, traits={"first_name": "Anne", "address": {"city": "Berlin"}})
    traits = world.profile("user:1").traits
    assert (traits["first_name"].value, traits["address.city"].value) == ("Anne", "Berlin")
    assert world.members("user:1") == ["berlin", "friends", "lookers"]


def test_an_edit_does_not_undo_a_newer_word_and_leaves_out_what_there_is_no_room_for() -> None:
    world = ana()
    early = edit("c1", at_ms=NOW_MS - 1, set={"first_name": "Anna"})
    world.tell(early)
    assert world.profile("user:1").traits["first_name"].value == "Ana"
    assert world.receipts["c1"]["newer"] == ["first_name"]
    for number in range(TRAITS_MAX):
        said(world, 100 + number, traits={f"t{number}": number})
    world.tell(edit("c2", at_ms=world.now_ms, set={"one_more": 1}))
    assert world.receipts["c2"]["no_room"] == ["one_more"]


def test_a_consent_that_was_taken_back_says_nothing() -> None:
    world = ana()
    world.tell(edit("c1", at_ms=world.now_ms, consents={"email:sale": None}))
    assert world.members("user:1") == ["lookers"]
    said(world, 9, "consent_changed", props={"channel": "email", "topic": "*", "state": "granted"})
    assert world.members("user:1") == ["friends", "lookers"]


def test_an_edit_of_nobody_is_refused_and_makes_nobody() -> None:
    world = World(BOOK, NOW_MS)
    told = world.tell(edit("c1", "user:9", at_ms=NOW_MS, set={"vip": True}))
    assert told.outcome == REFUSED
    assert world.receipts["c1"]["reason"] == "unknown"
    assert encode(world.profile("user:9")) == encode(World(BOOK, NOW_MS).profile("user:9"))


def test_an_edit_at_an_address_that_leads_on_is_passed_on() -> None:
    world = ana()
    assert world.tell(edit("c1", "anon:x", at_ms=world.now_ms, set={"vip": True})).outcome == FORWARDED
    assert world.profile("user:1").traits["vip"].value is True
    assert world.receipts["c1"]["outcome"] == "done"


@pytest.mark.invariant("R16")
def test_an_edit_waits_for_an_alarm_whose_gate_is_shut() -> None:
    world = World(BOOK, NOW_MS)
    said(world, 1, "product_viewed", props={"items": [{"product_id": "drill"}]})
    profile = world.profile("user:1")
    due_ms = profile.alarm_ms()
    assert due_ms is not None
    command = edit("c1", at_ms=due_ms + 5, set={"vip": True})
    command.seen_ms = due_ms + 5
    waiting = step(profile, command, BOOK, gate_ms=due_ms - 1)
    assert (waiting.outcome, waiting.receipts) == (HELD, [])
    assert "vip" not in profile.traits
    second = edit("c2", at_ms=due_ms + 9, set={"vip": False})
    second.seen_ms = due_ms + 9
    done = step(profile, second, BOOK, gate_ms=due_ms + 10)
    assert [command_id for command_id, _ in done.receipts] == ["c1", "c2"]
    assert profile.traits["vip"] == Trait(False, due_ms + 9, "edit by support-7: typo")


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"set": {"a": {"b": 1}}},
        {"set": {"a": None}},
        {"set": {"a": "x" * 1_001}},
        {"set": {"a": 1}, "unset": ("a",)},
        {"set": {"": 1}},
        {"set": {"a": [[1]]}},
        {"set": {f"a{n}": 1 for n in range(51)}},
        {"consents": {"email": "granted"}},
        {"consents": {"email:sale": "perhaps"}},
        {"unset": ("registered_at",)},
        {"set": {"registered_at": "yesterday"}},
        {"set": {"email": "ana at shop"}},
        {"set": {"email": 7}},
        {"set": {"phone": "8 916 123"}},
        {"set": {"birth_date": "15.03.1990"}},
        {"set": {"birth_date": "1990-02-30"}},
        {"set": {"birth_date": 1990}},
        {"set": {"timezone": "Berlin"}},
    ],
)
def test_what_is_no_edit_is_refused_and_its_values_are_not_told(what: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"^edit: .* wanted, got something else$"):
        edit("c1", **what)


@pytest.mark.mechanic("M10")
@pytest.mark.mechanic("M21")
def test_an_edit_is_checked_as_what_is_told_is_and_taken_whole_or_not_at_all() -> None:
    rules = compile_rules(
        [("r", "traits: {custom.mark: {said: int, between: [1, 10]}}\nsegments: {low: {trait: custom.mark, lte: 6}}")]
    )
    world = World(rules, NOW_MS)
    said(world, 1, traits={"email": "ana@shop.example"})
    sound = {
        "email": "Ana@Shop.example",
        "phone": "+7 916 123-45-67",
        "birth_date": "1990-03-15",
        "timezone": "Europe/Riga",
    }
    world.now_ms += 1
    assert world.tell(edit("c1", at_ms=world.now_ms, set={**sound, "custom.mark": 11})).outcome == REFUSED
    told = world.receipts["c1"]
    assert (told["outcome"], told["reason"]) == ("refused", "bad_value")
    assert told["wanted"] == {"custom.mark": "a whole number from 1 to 10"}
    assert list(world.profile("user:1").traits) == ["email"]
    world.tell(edit("c2", at_ms=world.now_ms, set={**sound, "custom.mark": 6}))
    assert world.receipts["c2"]["outcome"] == "done"
    assert world.members("user:1") == ["low"]
    assert {name: one.value for name, one in world.profile("user:1").traits.items()} == {**sound, "custom.mark": 6}


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"by": "x"}', b"\xff"])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput, match=r"^edit: "):
        read_edit(body)
    with pytest.raises(BadInput, match=r"^erase: "):
        read_asked(body)


# --- known users, merged by command -------------------------------------------------------------------------------


def merge(goes: str, stays: str, at_ms: int) -> Command:
    return Command(MERGE, goes, stays, (at_ms, "g1"), pack_asked(Asked("support-7")), at_ms)


@pytest.mark.invariant("R23")
def test_known_users_merge_by_an_authorised_command_and_the_lesser_address_stays() -> None:
    world = ana()
    said(world, 10, address="user:2", traits={"last_name": "Abel"})
    world.now_ms += 1
    world.tell(merge("user:2", "user:1", world.now_ms))
    assert world.receipts["g1"]["outcome"] == "done"
    assert world.profile("user:2").forward == "user:1"
    profile = world.profile("user:1")
    assert (profile.traits["first_name"].value, profile.traits["last_name"].value) == ("Ana", "Abel")
    assert sorted(profile.links) == ["anon:x", "user:2"]
    # What is told of the one that went reaches the one that stayed; an erasure of either is of both.
    world.now_ms += 1
    assert said(world, 11, address="user:2", traits={"vip": True}) == FORWARDED
    assert world.profile("user:1").traits["vip"].value is True
    world.tell(erase("e1", "user:2", world.now_ms))
    assert all(is_tombstone(one) for one in world.profiles.values())


@pytest.mark.invariant("R23")
@pytest.mark.parametrize(
    ("goes", "stays", "reason"),
    [
        ("user:1", "user:2", "order"),
        ("user:1", "user:1", "order"),
        ("user:9", "user:1", "unknown"),
        ("anon:x", "anon:a", "order"),
        ("user:2", "email:~e", "order"),
    ],
)
def test_a_merge_that_would_be_none_is_refused_and_changes_nothing(goes: str, stays: str, reason: str) -> None:
    world = ana()
    said(world, 10, address="user:2", traits={"last_name": "Abel"})
    world.profile(goes)
    blobs = {address: encode(one) for address, one in world.profiles.items()}
    assert world.tell(merge(goes, stays, world.now_ms)).outcome == REFUSED
    assert world.receipts["g1"]["reason"] == reason
    assert {address: encode(one) for address, one in world.profiles.items()} == blobs


@pytest.mark.invariant("R23")
def test_merges_asked_for_in_a_ring_leave_one_who_holds_all() -> None:
    world = World(BOOK, NOW_MS)
    for user in "123":
        said(world, int(user), address=f"user:{user}", traits={f"t{user}": user})
    world.now_ms += 1
    for one, other in (("2", "1"), ("3", "2"), ("1", "3"), ("3", "1")):
        world.tell(merge(f"user:{one}", f"user:{other}", world.now_ms))
    assert [world.profile(f"user:{user}").forward for user in "123"] == ["", "user:1", "user:2"]
    assert sorted(world.profile("user:1").traits) == ["t1", "t2", "t3"]


# --- erasures -----------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R24")
def test_an_erased_person_leaves_only_the_instant_at_all_his_addresses() -> None:
    world = ana()
    before = len(world.published)
    world.tell(erase("e1", at_ms=world.now_ms))
    for address in ("user:1", "anon:x"):
        profile = world.profile(address)
        assert is_tombstone(profile)
        assert profile.erased_ms == world.now_ms
        assert profile.alarm_ms() is None
        empty = World(BOOK, NOW_MS).profile(address)
        empty.seen_ms = empty.erased_ms = world.now_ms
        assert encode(profile) == encode(empty)
    assert [(address, told["alias"]) for address, told in world.erased] == [("user:1", False), ("anon:x", True)]
    told = world.erased[0][1]
    assert told["addresses"] == {"anon": 1}
    assert told["held"] == {"traits": 2, "consents": 1, "statistics": 1, "segments": 2, "messages": 4}
    # Who kept a list of a segment's members is told that he left.
    after = world.published[before:]
    assert {(one.record.topic, one.value["segment"], one.value["change"]) for one in after} == {
        (SEGMENT_CHANGES, "friends", "exited"),
        (SEGMENT_CHANGES, "lookers", "exited"),
    }


@pytest.mark.invariant("R24")
@pytest.mark.parametrize("asked_at", ["anon:x", "email:~e", "user:1"])
def test_any_address_of_a_person_erases_all_of_him(asked_at: str) -> None:
    world = World(BOOK, NOW_MS)
    said(world, 1, "product_viewed", "anon:x", props={"items": [{"product_id": "p"}]})
    said(world, 2, address="email:~e", identifiers=("anon:x",), trusted=True)
    said(world, 3, identifiers=("email:~e",), trusted=True, traits={"first_name": "Ana"})
    assert world.profile("anon:x").forward == "email:~e"
    world.now_ms += 1
    world.tell(erase("e1", asked_at, world.now_ms))
    assert {address: is_tombstone(one) for address, one in world.profiles.items()} == {
        "anon:x": True,
        "email:~e": True,
        "user:1": True,
    }


@pytest.mark.invariant("R24")
@pytest.mark.parametrize("asked_at", ["anon:x", "user:1"])
def test_an_erasure_asked_for_again_at_the_same_instant_has_a_receipt_of_its_own(asked_at: str) -> None:
    """On the log's clock all commands between two events bear one instant."""
    world = ana()
    world.tell(erase("e1", at_ms=world.now_ms))
    left = {address: encode(one) for address, one in world.profiles.items()}
    assert world.tell(erase("e2", asked_at, world.now_ms)).outcome == DUPLICATE
    assert world.receipts["e2"] == {
        "command": "e2",
        "kind": "erase",
        "outcome": "done",
        "at": iso(world.now_ms),
        "by": "dpo",
        "alias": False,
        "held": {},
        "addresses": {},
    }
    # Nothing is erased, or told, twice.
    assert {address: encode(one) for address, one in world.profiles.items()} == left
    assert len(world.erased) == 2


@pytest.mark.invariant("R24")
def test_late_and_repeated_events_of_an_erased_life_change_nothing() -> None:
    world = ana()
    world.tell(erase("e1", at_ms=world.now_ms))
    left = {address: encode(one) for address, one in world.profiles.items()}
    for address in left:
        for kind in ("product_viewed", "identified", "registered"):
            props = {"items": [{"product_id": "p"}]} if kind == "product_viewed" else {}
            late = Event(f"late-{kind}", "web", kind, world.now_ms, world.now_ms, address, props=props)
            assert world.happen(late).outcome == ERASED
    assert {address: encode(one) for address, one in world.profiles.items()} == left


@pytest.mark.invariant("R24")
def test_a_shop_that_goes_on_telling_of_an_erased_person_does_not_bring_him_back() -> None:
    world = ana()
    world.tell(erase("e1", at_ms=world.now_ms))
    world.now_ms += DAY_MS
    assert said(world, 20, "identified", traits={"first_name": "Ana"}) == ERASED
    assert said(world, 21, "logged_in", identifiers=("anon:z",)) == ERASED
    denied = {"channel": "email", "topic": "*", "state": "denied"}
    assert said(world, 22, "consent_changed", props=denied) == ERASED
    assert said(world, 23, "registered", backfill=True) == ERASED
    assert "anon:z" not in world.profiles
    assert is_tombstone(world.profile("user:1"))
    assert world.tell(edit("c1", at_ms=world.now_ms, set={"vip": True})).outcome == REFUSED


@pytest.mark.mechanic("M67")
@pytest.mark.invariant("R24")
@pytest.mark.parametrize("act", ["registered", "consent_changed"])
def test_a_person_who_comes_back_begins_with_nothing_and_what_was_stays_away(act: str) -> None:
    world = ana()
    order = {"order_id": "1", "total_minor": 100, "currency": "USD", "items": [{"product_id": "drill", "quantity": 1}]}
    said(world, 4, "order_completed", props=order)
    assert "lookers" in world.members("user:1")
    assert world.profile("user:1").aggs
    world.tell(erase("e1", at_ms=world.now_ms))
    erased_ms = world.now_ms
    world.now_ms += DAY_MS
    props = {"channel": "email", "topic": "sale", "state": "granted"} if act == "consent_changed" else {}
    assert said(world, 30, act, props=props) == "applied"
    profile = world.profile("user:1")
    assert profile.first_seen_ms == world.now_ms
    assert profile.erased_ms == erased_ms
    assert set(profile.traits) <= {"registered_at"}
    # No counter of before goes on, and no order, cart, journey or entry.
    assert "lookers" not in world.members("user:1")
    assert [profile.aggs, profile.orders, profile.carts, profile.entries, profile.runs] == [{}] * 5
    blob = encode(profile)
    late = Event("late", "web", "identified", erased_ms, world.now_ms, "user:1", traits={"first_name": "Ana"})
    assert world.happen(late).outcome == ERASED
    # The same command again is of that erasure, which he came back from.
    assert world.tell(erase("e1", at_ms=erased_ms)).outcome == DUPLICATE
    assert encode(world.profile("user:1")) == blob
    world.now_ms += 1
    world.tell(erase("e2", at_ms=world.now_ms))
    assert is_tombstone(world.profile("user:1"))


@pytest.mark.invariant("R24")
def test_a_browser_of_an_erased_person_is_anybodys_afterwards() -> None:
    world = ana()
    world.tell(erase("e1", at_ms=world.now_ms))
    world.now_ms += 1
    assert said(world, 40, "product_viewed", "anon:x", props={"items": [{"product_id": "p"}]}) == "applied"
    assert len(world.profile("anon:x").ring) == 1
    said(world, 41, "registered", "user:2", identifiers=("anon:x",))
    assert world.profile("anon:x").forward == "user:2"
    # What lingers of the erased life is not handed to the next one.
    late = Event("late", "web", "product_viewed", NOW_MS, world.now_ms, "anon:x")
    assert world.happen(late).outcome == ERASED
    # The erased person's command, told once more, does not reach what is another's.
    again = Command(ERASE, "anon:x", "user:1", (world.now_ms + 5, "e1"), pack_asked(Asked("dpo", (NOW_MS, "m2"))), 0)
    assert world.tell(again).outcome == DUPLICATE
    assert world.profile("anon:x").forward == "user:2"


@pytest.mark.invariant("R24")
def test_a_profile_on_its_way_to_an_erased_address_is_dropped_and_its_sender_goes_too() -> None:
    user, anon = World(BOOK, NOW_MS).profile("user:1"), World(BOOK, NOW_MS).profile("anon:y")
    step(anon, Event("m1", "web", "page_viewed", 10, 10, "anon:y", seen_ms=10), BOOK)
    login = Event("m2", "web", "logged_in", 20, 20, "user:1", ("anon:y",), seen_ms=20)
    link = step(user, login, BOOK).commands[0]
    assert link.kind == LINK
    link.seen_ms = 20
    absorb = step(anon, link, BOOK).commands[0]
    assert absorb.kind == ABSORB
    gone = erase("e1", at_ms=30)
    gone.seen_ms = 30
    fan_out = step(user, gone, BOOK).commands
    assert [(one.kind, one.address, one.other) for one in fan_out] == [(ERASE, "anon:y", "user:1")]
    blob = encode(user)
    absorb.seen_ms = 40
    late = step(user, absorb, BOOK)
    assert late.outcome == ERASED
    assert encode(user) == blob
    assert [(one.kind, one.address, one.other) for one in late.commands] == [(ERASE, "anon:y", "user:1")]
    for command in (late.commands[0], fan_out[0]):
        command.seen_ms = 50
        step(anon, command, BOOK)
    assert is_tombstone(anon)
    # A link that comes behind the erasure finds nobody, and says so.
    link.seen_ms = 60
    assert [one.kind for one in step(anon, link, BOOK).commands] == ["release"]
    assert is_tombstone(anon)


@pytest.mark.invariant("R24")
@pytest.mark.invariant("R12")
def test_a_letter_that_was_to_come_is_cancelled_on_record_and_never_goes() -> None:
    world = World(compile_rules(SHOP), NOW_MS)
    items = [{"product_id": "mug", "quantity": 1, "price_e6": 12_500_000}]
    said(world, 1, "product_added", props={"items": items})
    assert world.profile("user:1").runs
    world.now_ms += 1
    world.tell(erase("e1", at_ms=world.now_ms))
    decided = [one.value for one in world.published if one.record.topic == DECISIONS]
    assert [(one["reason"], one["detail"]) for one in decided if one["trigger"] == "abandoned_cart"] == [
        ("cancelled", {"by": "erase"})
    ]
    world.until(NOW_MS + 30 * DAY_MS, with_it=True)
    assert not [one for one in world.published if one.record.topic == "triggers.abandoned_cart"]
