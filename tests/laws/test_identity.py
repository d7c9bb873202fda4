"""R22, R23: however the messages of one person are spread over addresses, and whenever these are joined, what is known
in the end is what one address would know; and known users stay apart.

Not alike, and so left out: the cart and the visit under way (union, but in another order), journeys and their entries,
the ring of messages, times of arrival, and the links themselves.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import consent, orders, people
from profiles.codec import encode
from profiles.ids import digest64
from profiles.state import Profile
from profiles.wire import ABSORB, FORWARD, LINK, RELEASE, Command, Event, encode_event
from rules.compile import compile_rules
from rules.engine import step
from rules.outcome import DUPLICATE, FORWARDED
from rules.scenarios import World, check
from tests.laws.histories import ADDRESS, documents, event_of, histories, law
from tests.laws.naive import Told
from tests.laws.shapes import profile_shape, shape
from tests.scenarios.pack import SHOP

NOT_ALIKE: Final = (
    "carts", "session", "runs", "entries", "ring", "seen_ms", "members", "timers", "held", "links",
)  # fmt: skip
NOTHING = compile_rules([])


@st.composite
def spread(draw: st.DrawFn) -> tuple[list[Told], list[str]]:
    """A history, and the address of each of its messages; the anonymous ones are joined at some message."""
    told = draw(histories(most=12))
    addresses = [draw(st.sampled_from(["anon:x", "anon:y", ADDRESS])) for _ in told]
    return told, addresses


@pytest.mark.invariant("R22")
@pytest.mark.mechanic("M78")
@law(120)
@given(document=documents(), life=spread(), data=st.data())
def test_joined_addresses_know_what_one_address_would_know(
    document: dict[str, Any], life: tuple[list[Told], list[str]], data: st.DataObject
) -> None:
    told, addresses = life
    joined_at = {anon: data.draw(st.integers(0, len(told)), label=anon) for anon in ("anon:x", "anon:y")}
    book = compile_rules([("rules", json.dumps(document))])
    apart, united = World(book, told[0].seen_ms), World(book, told[0].seen_ms)
    sent: dict[str, str] = {}
    for place in range(len(told) + 1):
        now_ms = told[min(place, len(told) - 1)].seen_ms
        for world in (apart, united):
            world.until(now_ms, with_it=False)
        for anon, at in joined_at.items():
            if at == place:
                link = Event(f"link {anon}", "web", "identified", now_ms, now_ms, ADDRESS, (anon,))
                apart.happen(link)
                united.happen(link)
        if place < len(told):
            one = told[place]
            # A retry goes where its message went.
            address = sent.setdefault(one.message_id, addresses[place])
            apart.happen(event_of(one, address))
            united.happen(event_of(one))
    for world in (apart, united):
        world.until(now_ms, with_it=True)
    a, b = apart.profile(ADDRESS), united.profile(ADDRESS)
    assert profile_shape(a, *NOT_ALIKE) == profile_shape(b, *NOT_ALIKE)
    assert shape(orders.fold(a, currency="USD")) == shape(orders.fold(b, currency="USD"))
    assert apart.members(ADDRESS) == united.members(ADDRESS)
    for anon in joined_at:
        assert apart.profile(anon).forward == ADDRESS
        assert not apart.members(anon)


@pytest.mark.invariant("R22")
@law(40)
@given(told=histories(most=8))
def test_a_joined_address_leaves_nothing_behind_but_its_forwarder_and_which_messages_it_had(told: list[Told]) -> None:
    world = World(compile_rules(SHOP), told[0].seen_ms)
    for one in told:
        world.until(one.seen_ms, with_it=False)
        world.happen(event_of(one, "anon:x"))
    world.happen(Event("link", "web", "identified", world.now_ms, world.now_ms, ADDRESS, ("anon:x",)))
    left = world.profile("anon:x")
    assert 0 < len(left.ring) <= len({one.message_id for one in told})
    again = step(left, event_of(told[-1], "anon:x"), world.rulebook)  # Told again, it goes nowhere.
    assert (again.outcome, again.commands) == ("duplicate", [])
    left.ring = {}
    empty = Profile("anon:x")
    empty.seen_ms, empty.forward, empty.link = world.now_ms, ADDRESS, (world.now_ms, "link")
    assert profile_shape(left) == profile_shape(empty)
    # Whoever was in a segment at the old address has left it there, on record.
    changes = [one.value for one in world.published if one.record.topic == "segment_changes"]
    for name in {one["segment"] for one in changes}:
        words = [one["change"] for one in changes if (one["segment"], one["address"]) == (name, "anon:x")]
        assert words[-1:] in ([], ["exited"])


def parts_of(told: list[Told]) -> dict[str, Any]:
    """What a history leaves in the parts whose joining is a law of its own."""
    world = World(NOTHING, told[0].seen_ms)
    for one in told:
        world.until(one.seen_ms, with_it=False)
        world.happen(event_of(one))
    profile = world.profile(ADDRESS)
    return {"traits": profile.traits, "consents": profile.consents, "orders": profile.orders}


def joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Both, part by part; neither is changed."""
    a, b = deepcopy(a), deepcopy(b)
    return {
        "traits": people.joined(a["traits"], b["traits"]),
        "consents": consent.joined(a["consents"], b["consents"]),
        "orders": orders.joined(a["orders"], b["orders"]),
    }


@pytest.mark.invariant("R22")
@law(60)
@given(told=histories(most=14), cut=st.integers(0, 14), again=st.integers(0, 14))
def test_joining_is_commutative_associative_and_idempotent(told: list[Told], cut: int, again: int) -> None:
    parts = [part for part in (told[:cut], told[cut:again], told[again:], told[::2]) if part]
    a, b, c = (parts_of(parts[n % len(parts)]) for n in range(3))
    assert shape(joined(a, b)) == shape(joined(b, a))
    assert shape(joined(joined(a, b), c)) == shape(joined(a, joined(b, c)))
    assert shape(joined(a, a)) == shape(a)


@pytest.mark.invariant("R22")
def test_commands_that_come_twice_change_nothing() -> None:
    anon, user = Profile("anon:x"), Profile(ADDRESS)
    view = Event("m1", "web", "page_viewed", 10, 10, "anon:x", seen_ms=10)
    step(anon, view, NOTHING)
    link = Command(LINK, "anon:x", ADDRESS, (20, "l"), b"", 20, seen_ms=20)
    first = step(anon, link, NOTHING)
    assert [command.kind for command in first.commands] == [ABSORB]
    blob = encode(anon)
    assert step(anon, link, NOTHING).commands == []
    assert encode(anon) == blob
    absorb = first.commands[0]
    absorb.seen_ms = 20
    step(user, absorb, NOTHING)
    # The message that went to both addresses, or is forwarded again, is known here.
    again = Command(FORWARD, ADDRESS, "anon:x", (10, "m1"), encode_event(view), 30, seen_ms=30)
    assert step(user, again, NOTHING).outcome == DUPLICATE


@pytest.mark.invariant("R22")
def test_a_profile_that_is_sent_twice_is_taken_once() -> None:
    book = compile_rules([("r", "segments: {twice: {did: page_viewed, times: {gte: 2}}}")])
    anon, user = Profile("anon:x"), Profile(ADDRESS)
    step(anon, Event("m1", "web", "page_viewed", 10, 10, "anon:x", seen_ms=10), book)
    absorb = step(anon, Command(LINK, "anon:x", ADDRESS, (20, "l"), b"", 20, seen_ms=20), book).commands[0]
    absorb.seen_ms = 20
    step(user, absorb, book)
    blob = encode(user)
    step(user, absorb, book)
    assert encode(user) == blob
    assert not user.members


@pytest.mark.invariant("R22")
def test_an_event_to_a_forwarder_is_forwarded_and_changes_nothing_there() -> None:
    anon = Profile("anon:x")
    step(anon, Command(LINK, "anon:x", ADDRESS, (20, "l"), b"", 20, seen_ms=20), NOTHING)
    blob = encode(anon)
    late = Event("m2", "web", "page_viewed", 25, 25, "anon:x", seen_ms=25)
    done = step(anon, late, NOTHING)
    assert done.outcome == FORWARDED
    assert [(command.kind, command.address) for command in done.commands] == [(FORWARD, ADDRESS)]
    assert encode(anon) == blob


@pytest.mark.invariant("R23")
def test_known_users_never_merge() -> None:
    world = World(NOTHING, 100)
    world.happen(Event("m1", "web", "identified", 100, 100, "user:1", ("user:2",), trusted=True))
    world.happen(Event("m2", "web", "page_viewed", 100, 100, "user:2"))
    assert not world.profile("user:1").links
    assert not world.profile("user:2").forward
    # Nor by a command that claims it, from whomever.
    for other in ("user:1", "user:2", "email:~abc"):
        done = step(world.profile("user:2"), Command(LINK, "user:2", other, (1, "x"), b"", 100, seen_ms=100), NOTHING)
        assert done.commands == []
        assert not world.profile("user:2").forward


@pytest.mark.invariant("R23")
@pytest.mark.parametrize("trusted", [False, True])
def test_a_public_source_joins_anonymous_ids_only(trusted: bool) -> None:
    world = World(NOTHING, 100)
    others = ("email:~e", "phone:~p", "card:~c", "device:d", "anon:x")
    world.happen(Event("m1", "web", "identified", 100, 100, "user:1", others, trusted=trusted))
    assert sorted(world.profile("user:1").links) == sorted(others if trusted else ("anon:x",))


@pytest.mark.invariant("R23")
@pytest.mark.parametrize("newest_first", [False, True])
def test_an_anonymous_id_belongs_to_the_newest_link_in_whatever_order_links_come(newest_first: bool) -> None:
    world = World(NOTHING, 500)
    old = Event("old", "web", "identified", 100, 500, "user:1", ("anon:x",))
    new = Event("new", "web", "identified", 200, 500, "user:2", ("anon:x",))
    for one in (new, old) if newest_first else (old, new):
        world.happen(one)
    assert world.profile("anon:x").forward == "user:2"
    assert world.profile("anon:x").link == (200, "new")
    assert not world.profile("user:1").links
    assert list(world.profile("user:2").links) == ["anon:x"]
    refused = [one.value for one in world.published if one.value.get("reason") == "link_refused"]
    assert len(refused) == newest_first


@pytest.mark.invariant("R23")
def test_a_personal_address_stays_with_whom_it_was_linked_first() -> None:
    world = World(NOTHING, 500)
    world.happen(Event("a", "crm", "identified", 100, 500, "user:1", ("email:~e",), trusted=True))
    world.happen(Event("b", "crm", "identified", 200, 500, "user:2", ("email:~e",), trusted=True))
    assert world.profile("email:~e").forward == "user:1"
    assert not world.profile("user:2").links
    assert [one.value["reason"] for one in world.published] == ["link_refused"]


@pytest.mark.invariant("R22")
def test_chains_of_addresses_end_at_the_strongest() -> None:
    world = World(NOTHING, 100)
    world.happen(Event("1", "web", "page_viewed", 100, 100, "anon:x"))
    world.happen(Event("2", "crm", "identified", 100, 100, "email:~e", ("anon:x",), trusted=True))
    world.happen(Event("3", "crm", "identified", 100, 100, "user:1", ("email:~e",), trusted=True))
    world.happen(Event("4", "web", "page_viewed", 100, 100, "anon:x"))
    assert world.profile("email:~e").forward == "user:1"
    known = world.profile("user:1").ring
    assert all(digest64(f"{source}\x1f{n}") in known for source, n in (("web", 1), ("crm", 2), ("crm", 3), ("web", 4)))
    assert sorted(world.profile("user:1").links) == ["anon:x", "email:~e"]


def test_a_released_address_is_forgotten() -> None:
    user = Profile("user:1")
    user.links["anon:x"] = (1, "m")
    step(user, Command(RELEASE, "user:1", "anon:x", (1, "m"), b"", 5, seen_ms=5), NOTHING)
    assert user.links == {}


@pytest.mark.mechanic("M46")
@pytest.mark.invariant("R13")
def test_a_cart_begun_anonymously_is_told_once_at_the_customer_by_the_id_of_its_beginning() -> None:
    done = check(
        """
        start 2026-01-01T10:00
        0m    anon:x  product_added product=mug price=12.5 message=begun
        60m   ana     logged_in id=anon:x
        61m   ana     expect in cart_open
        61m   anon:x  expect segments none
        120m  ana     expect emits abandoned_cart 1
        120m  anon:x  expect emits abandoned_cart 0
        """,
        SHOP,
    )
    alone = check(
        """
        start 2026-01-01T10:00
        0m    anon:x  product_added product=mug price=12.5 message=begun
        120m  anon:x  expect emits abandoned_cart 1
        """,
        SHOP,
    )
    assert done.sent("abandoned_cart")[0]["trigger_id"] == alone.sent("abandoned_cart")[0]["trigger_id"]
    assert done.sent("abandoned_cart")[0]["profile"]["address"] == "user:ana"


@pytest.mark.mechanic("M46")
@pytest.mark.parametrize("cart", ["", " cart_id=c"])
def test_a_guests_cart_that_only_the_order_names_is_bought_with_it(cart: str) -> None:
    check(
        f"""
        start 2026-01-01T10:00
        0m    anon:x  product_added product=mug price=12.5{cart}
        1m    anon:x  product_added product=pen price=1{cart}
        10m   ana     order_completed order_id=1 product=mug price=12.5 id=anon:x
        11m   ana     expect in cart_open
        11m   ana     expect trait cart.items 1
        20m   ana     order_completed order_id=2 product=pen price=1
        21m   ana     expect out cart_open
        200m  ana     expect emits abandoned_cart 0
        """,
        SHOP,
    )


@pytest.mark.mechanic("M46")
def test_a_cart_that_is_told_after_its_order_is_bought() -> None:
    check(
        """
        start 2026-01-01T10:00
        0m    ana  product_viewed product=mug price=12.5
        10m   ana  order_completed order_id=1 product=mug price=12.5
        11m   ana  product_added product=mug price=12.5 late=5m
        12m   ana  expect out cart_open
        13m   ana  cart_set product=mug price=12.5 late=4m
        14m   ana  expect out cart_open
        15m   ana  product_added product=mug price=12.5
        16m   ana  expect in cart_open
        """,
        SHOP,
    )


@pytest.mark.mechanic("M46")
def test_two_carts_of_one_person_become_one_with_the_later_timer() -> None:
    done = check(
        """
        start 2026-01-01T10:00
        0m    ana     product_added product=mug price=12.5
        30m   anon:x  product_added product=pen price=1 qty=3
        40m   ana     logged_in id=anon:x
        120m  ana     expect emits abandoned_cart 0, suppressed abandoned_cart merged
        150m  ana     expect emits abandoned_cart 1
        """,
        SHOP,
    )
    cart = done.sent("abandoned_cart")[0]["payload"]["cart"]
    assert {item["product_id"]: item["quantity"] for item in cart["items"]} == {"mug": 1, "pen": 3}


@pytest.mark.mechanic("M51")
def test_a_visit_begun_anonymously_ends_at_the_customer_at_its_very_gap() -> None:
    check(
        """
        trigger gone = {on: {event: session_ended}, when: {session: {did: product_viewed}}, steps: [{emit: gone}]}
        0m   anon:x  product_viewed
        5m   ana     identified id=anon:x
        29m  ana     expect emits gone 0, alarm 30m
        30m  ana     expect emits gone 1
        30m  anon:x  expect emits gone 0, alarm none
        """
    )
