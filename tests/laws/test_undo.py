"""R22-R24: a merge that is undone leaves two who are what they would be had it never been; and whatever is told of an
erased life, in whatever order, leaves nothing of it."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.codec import decode, encode
from profiles.erasure import Asked, is_tombstone, pack_asked
from profiles.ids import digest_of
from profiles.undo import Parting, pack_parting
from profiles.wire import ERASE, FORWARD, UNMERGE, Command, Event, encode_event
from rules.compile import compile_rules
from rules.outcome import FORWARDED, REFUSED
from rules.scenarios import World
from rules.undo import NotExact, parted
from tests.laws.histories import ADDRESS, documents, event_of, histories, law
from tests.laws.naive import Told
from tests.laws.shapes import profile_shape
from tests.scenarios.pack import SHOP

ANON: Final = "anon:x"
TOLD_OF_IT: Final = ("links", "link", "ring", "seen_ms")
"""What shows that there was a merge: the marks that it leaves, and when something was last heard."""


def life_of(told: list[Told], addresses: list[str], joined_at: int, book: Any, *, joins: bool) -> World:
    """Two lives, whose addresses are joined before that message, or only named."""
    world = World(book, told[0].seen_ms)
    for place, one in enumerate(told):
        world.until(one.seen_ms, with_it=False)
        if place == joined_at:
            identifiers = (ANON,) if joins else ()
            world.happen(Event("link", "web", "identified", one.seen_ms, one.seen_ms, ADDRESS, identifiers))
        world.happen(event_of(one, addresses[place]))
    world.until(told[-1].seen_ms, with_it=True)
    return world


def unmerge(world: World, *, changed: bool = False) -> None:
    """As the console does it: compute from what was kept and from the log, then ask the writer."""
    undo, since = world.undo[ADDRESS][-1]
    now = world.profile(ADDRESS)
    inputs = [given for address, given in world.log[since:] if address == ADDRESS]
    apart = parted(undo, now, inputs, world.rulebook, world.now_ms, live=False)
    digest = digest_of(b"other" if changed else encode(now))
    body = pack_parting(Parting("dpo", digest, undo.link, encode(apart.receiver), encode(apart.other)))
    world.tell(Command(UNMERGE, ADDRESS, undo.other, (world.now_ms, "u1"), body, world.now_ms))


@st.composite
def two_lives(draw: st.DrawFn) -> tuple[list[Told], list[str], int]:
    told = draw(histories(most=12, carts=True))
    sent: dict[str, str] = {}
    # A retry goes where its message went.
    addresses = [sent.setdefault(one.message_id, draw(st.sampled_from([ANON, ADDRESS]))) for one in told]
    return told, addresses, draw(st.integers(0, len(told) - 1))


@pytest.mark.invariant("R23")
@pytest.mark.mechanic("D4")
@law(120)
@given(document=documents(), life=two_lives())
def test_a_merge_that_is_undone_leaves_what_would_be_had_it_never_been(
    document: dict[str, Any], life: tuple[list[Told], list[str], int]
) -> None:
    told, addresses, joined_at = life
    book = compile_rules([("rules", json.dumps(document))])
    merged = life_of(told, addresses, joined_at, book, joins=True)
    never = life_of(told, addresses, joined_at, book, joins=False)
    unmerge(merged)
    for address in (ADDRESS, ANON):
        mine, theirs = merged.profile(address), never.profile(address)
        assert profile_shape(mine, *TOLD_OF_IT) == profile_shape(theirs, *TOLD_OF_IT)
        assert merged.members(address) == never.members(address)
        assert theirs.ring.items() <= mine.ring.items()
    assert merged.profile(ADDRESS).links == {}
    assert merged.receipts["u1"]["outcome"] == "done"
    # And they go on apart: what is due comes at each by itself.
    for world in (merged, never):
        world.until(world.now_ms + 40 * 86_400_000, with_it=True)
    for address in (ADDRESS, ANON):
        assert merged.members(address) == never.members(address)


@pytest.mark.invariant("R23")
def test_a_merge_of_the_shop_pack_is_undone_with_cart_visit_and_letter() -> None:
    book = compile_rules(SHOP)
    happened: list[tuple[str, dict[str, Any]]] = [
        ("product_added", {"items": [{"product_id": "mug", "quantity": 1, "price_e6": 12_500_000}]}),
        ("product_added", {"items": [{"product_id": "pen", "quantity": 2, "price_e6": 1_000_000}]}),
        ("product_viewed", {"items": [{"product_id": "saw"}]}),
        ("product_viewed", {"items": [{"product_id": "cup"}]}),
    ]
    start_ms = 1_767_225_600_000
    told = [
        Told(start_ms + n * 60_000, start_ms + n * 60_000, f"m{n}", kind, props, {})
        for n, (kind, props) in enumerate(happened)
    ]
    addresses = [ANON, ADDRESS, ANON, ADDRESS]
    merged = life_of(told, addresses, 2, book, joins=True)
    never = life_of(told, addresses, 2, book, joins=False)
    assert merged.profile(ANON).forward == ADDRESS
    unmerge(merged)
    # His journey ended on record when they met (the later of two goes on): that it goes on now is another occasion.
    again = merged.profile(ANON).runs["abandoned_cart:"]
    assert again.occasion == f"{never.profile(ANON).runs['abandoned_cart:'].occasion}~u1"
    again.occasion = again.occasion.removesuffix("~u1")
    for address in (ADDRESS, ANON):
        assert profile_shape(merged.profile(address), *TOLD_OF_IT) == profile_shape(never.profile(address), *TOLD_OF_IT)
        assert list(merged.profile(address).carts[""].items) == [{ADDRESS: "pen", ANON: "mug"}[address]]
    assert merged.undo[ADDRESS] == []


def merged_world() -> World:
    """user:1 who absorbed anon:x."""
    world = World(compile_rules(SHOP), 1_767_225_600_000)
    now = world.now_ms
    world.happen(Event("m1", "web", "page_viewed", now, now, ANON))
    world.happen(Event("m2", "web", "logged_in", now, now, ADDRESS, (ANON,)))
    world.now_ms += 1_000
    return world


@pytest.mark.invariant("R23")
@pytest.mark.invariant("R22")
def test_what_was_under_way_at_an_unmerge_goes_back_and_old_links_do_not_join_again() -> None:
    world = merged_world()
    unmerge(world)
    now = world.now_ms
    late = Event("m3", "web", "page_viewed", now, now, ANON)
    forwarded = Command(FORWARD, ADDRESS, ANON, (now, "m3"), encode_event(late), now)
    before = len(world.profile(ANON).ring)
    blob = encode(world.profile(ADDRESS))
    assert world.tell(forwarded).outcome == FORWARDED
    assert len(world.profile(ANON).ring) == before + 1
    assert encode(world.profile(ADDRESS)) == blob
    link = Command("link", ANON, ADDRESS, (1_767_225_600_000, "m2"), b"", now)
    world.tell(link)
    assert world.profile(ANON).forward == ""
    # A sign-in afterwards is a new word, and joins them again.
    world.now_ms += 1
    world.happen(Event("m4", "web", "logged_in", world.now_ms, world.now_ms, ADDRESS, (ANON,)))
    assert world.profile(ANON).forward == ADDRESS
    world.now_ms += 1
    world.happen(Event("m5", "web", "page_viewed", world.now_ms, world.now_ms, ANON))
    assert len(world.profile(ADDRESS).ring) > 3


@pytest.mark.invariant("R23")
@pytest.mark.invariant("R5")
def test_an_unmerge_of_a_profile_that_changed_meanwhile_is_refused_and_changes_nothing() -> None:
    world = merged_world()
    blobs = {address: encode(one) for address, one in world.profiles.items()}
    unmerge(world, changed=True)
    assert world.outcome[ADDRESS] == REFUSED
    assert world.receipts["u1"]["reason"] == "changed"
    assert {address: encode(one) for address, one in world.profiles.items()} == blobs


@pytest.mark.invariant("R23")
def test_an_unmerge_from_a_log_that_lacks_something_is_refused() -> None:
    world = merged_world()
    now = world.now_ms
    world.happen(Event("m3", "web", "page_viewed", now, now, ADDRESS))
    undo, since = world.undo[ADDRESS][-1]
    given = [one for address, one in world.log[since:] if address == ADDRESS]
    with pytest.raises(NotExact, match="inputs that lead to the profile as it is wanted"):
        parted(undo, world.profile(ADDRESS), given[:-1], world.rulebook, now, live=False)
    asked = Command(UNMERGE, ADDRESS, ANON, (now, "u"), b"", now, seen_ms=now)
    with pytest.raises(NotExact) as told:
        parted(undo, world.profile(ADDRESS), [*given, asked], world.rulebook, now, live=False)
    assert told.value.reason == "unmerged_since"


@pytest.mark.invariant("R24")
@law(80)
@given(life=two_lives(), late=st.lists(st.integers(0, 11), max_size=12), asked_at=st.sampled_from([ANON, ADDRESS]))
def test_whatever_is_told_late_of_an_erased_life_leaves_nothing(
    life: tuple[list[Told], list[str], int], late: list[int], asked_at: str
) -> None:
    told, addresses, joined_at = life
    world = life_of(told, addresses, joined_at, compile_rules(SHOP), joins=True)
    now = world.now_ms
    world.tell(Command(ERASE, asked_at, "", (now, "e1"), pack_asked(Asked("dpo")), now))
    left = {address: encode(one) for address, one in world.profiles.items()}
    assert set(left) == {ADDRESS, ANON}
    assert all(is_tombstone(decode(address, blob)) for address, blob in left.items())
    published = len(world.published)
    for number in late:
        one = told[number % len(told)]
        world.happen(event_of(one._replace(seen_ms=now), addresses[number % len(told)]))
    world.tell(Command(ERASE, ADDRESS, "", (now, "e1"), pack_asked(Asked("dpo")), now))
    world.until(now + 400 * 86_400_000, with_it=True)
    assert {address: encode(one) for address, one in world.profiles.items()} == left
    assert len(world.published) == published
    assert len(set(map(len, left.values()))) == 1, "a tombstone tells nothing but the instant"
