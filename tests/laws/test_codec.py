"""Profile <-> bytes: whatever a history makes of a profile comes back as it was, and what is none of ours is refused."""

from __future__ import annotations

from typing import Any, Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import codec
from profiles.aggregates import KEPT_MAX
from profiles.codec import BadBlob, decode, encode
from profiles.state import (
    CART_LINES_MAX,
    ORDERS_MAX,
    RING_MAX,
    Cart,
    Consent,
    Instance,
    Line,
    Order,
    Profile,
    Refund,
    Sent,
    Session,
    Trait,
)
from profiles.wire import Event
from rules.compile import compile_rules
from rules.scenarios import World
from tests.laws.histories import ADDRESS, event_of, histories, law
from tests.laws.naive import Told
from tests.laws.shapes import KEPT, profile_shape
from tests.scenarios.pack import SHOP

BOOK = compile_rules(SHOP)


def lived(told: list[Told], **more: Any) -> Profile:
    """What the shop pack makes of a history."""
    world = World(BOOK, told[0].seen_ms)
    for one in told:
        world.until(one.seen_ms, with_it=False)
        world.happen(event_of(one, **more))
    return world.profile(ADDRESS)


@law(60)
@given(told=histories(carts=True))
def test_a_profile_comes_back_from_its_bytes_as_it_was(told: list[Told]) -> None:
    profile = lived(told, identifiers=("anon:x",))
    profile.held = [[told[-1].seen_ms, "forward", b"{}"]]
    blob = encode(profile)
    back = decode(ADDRESS, blob)
    assert profile_shape(back) == profile_shape(profile)
    assert encode(back) == blob


def full_profile() -> Profile:
    """One in which every part holds something."""
    p = Profile(ADDRESS)
    p.ordinal, p.seen_ms, p.first_seen_ms, p.forward, p.link = 7, 1_700_000_000_000, 5, "user:2", (3, "m")
    p.links, p.ring = {"anon:a": (1, "x")}, {2**64 - 1: 10, 5: 10, 6: 99}
    p.traits = {"gender": Trait("f", 1, "web"), "tags": Trait(["a", 1, 2.5, True], 2, "web")}
    p.consents = {"email:*": Consent("granted", 1, "web", "", (("denied", 0, "app", "v1"),))}
    p.aggs = {1: 5, 2: [1, 2], 3: {"a": 1}, 4: {0: [1, 2, 3, 4]}, 5: [7, "x"], 2**32 - 1: [[1, "p", {"name": "é"}]]}
    order = p.orders["o"] = Order()
    order.statuses, order.told_ms, order.currency, order.total_minor, order.rate_e6 = {"paid": 1}, 2, "USD", 300, 9
    order.lines = [Line("a", "tools", "", 2, 150)]
    order.refunds, order.facts = {"r": Refund(4, -2, (("a", 1),))}, {"channel": "web"}
    cart = p.carts[""] = Cart()
    cart.items, cart.currency, cart.changed_ms = {"a": [1, 2, 3, {"name": "A"}]}, "USD", 9
    p.session = Session(100)
    p.session.last_ms, p.session.counts = 200, {"page_viewed": 2}
    p.members, p.timers = {9: 1}, {9: 50, "session": 60, "run:t:k": 70}
    run = p.runs["t:k"] = Instance("t", "k", "rev", ADDRESS, "occasion", 5, ("page_viewed", "m1"))
    run.at, run.due_ms, run.context = 2, 70, {"because": [{"node": "n", "value": None}]}
    p.entries, p.held = {"t": [1, 5], "at:u:": [9]}, [[70, "forward", b"\x00\xff"]]
    p.erased_ms, p.interest, p.swept = 3, ["mug"], 2
    p.sent = [Sent(8, "t", "k", "1", ADDRESS, "occasion", 5)]
    return p


def before_6() -> Profile:
    """The same, as no version before 6 could hold more: nothing is known of what was stated before a consent."""
    profile = full_profile()
    profile.consents = {name: said._replace(before=()) for name, said in profile.consents.items()}
    return profile


VERSION_1: Final = bytes.fromhex(
    "dc001401cf0000018bcfe568000507cd3fff93a6757365723a3203a16d81a6616e6f6e3a619201a178c418ffffffffffffffff050000"
    "00000000000600000000000000930a005982a667656e64657293a16601a3776562a4746167739394a16101cb4004000000000000c302"
    "a377656281a7656d61696c3a2a93a76772616e74656401a3776562860105029201020381a161010481009401020304059207a178ceff"
    "ffffff919301a17081a46e616d65a2c3a99199a16f81a4706169640102a3555344cd012c099195a161a5746f6f6c73a002cc9681a172"
    "9304fe9192a1610181a76368616e6e656ca37765629194a009a355534481a1619401020381a46e616d65a14193646481ab706167655f"
    "76696577656402810901830932a773657373696f6e3ca772756e3a743a6b46919aa174a16ba37265760246a6757365723a31a86f6363"
    "6173696f6e0592ab706167655f766965776564a26d3181a7626563617573659182a46e6f6465a16ea576616c7565c082a174920105a5"
    "61743a753a9109919346a7666f7277617264c40200ff"
)
"""``full_profile`` as version 1 wrote it, which knew no erasure."""

VERSION_2: Final = bytes.fromhex(
    "dc001502cf0000018bcfe568000507cd7fff93a6757365723a3203a16d81a6616e6f6e3a619201a178c418ffffffffffffffff050000"
    "00000000000600000000000000930a005982a667656e64657293a16601a3776562a4746167739394a16101cb4004000000000000c302"
    "a377656281a7656d61696c3a2a93a76772616e74656401a3776562860105029201020381a161010481009401020304059207a178ceff"
    "ffffff919301a17081a46e616d65a2c3a99199a16f81a4706169640102a3555344cd012c099195a161a5746f6f6c73a002cc9681a172"
    "9304fe9192a1610181a76368616e6e656ca37765629194a009a355534481a1619401020381a46e616d65a14193646481ab706167655f"
    "76696577656402810901830932a773657373696f6e3ca772756e3a743a6b46919aa174a16ba37265760246a6757365723a31a86f6363"
    "6173696f6e0592ab706167655f766965776564a26d3181a7626563617573659182a46e6f6465a16ea576616c7565c082a174920105a5"
    "61743a753a9109919346a7666f7277617264c40200ff03"
)
"""And as version 2 did, which knew no interest."""


def test_a_profile_that_version_2_wrote_is_read_as_it_was() -> None:
    found = decode(ADDRESS, VERSION_2)
    later = ("interest", "sent", "swept")
    assert profile_shape(found, *later) == profile_shape(before_6(), *later)
    assert (found.interest, found.sent, found.swept) == ([], [], 0)


def test_a_profile_that_version_1_wrote_is_read_as_it_was() -> None:
    later = ("erased_ms", "interest", "sent", "swept")
    found = decode(ADDRESS, VERSION_1)
    assert profile_shape(found, *later) == profile_shape(before_6(), *later)
    assert (found.erased_ms, found.interest, found.sent, found.swept) == (0, [], [], 0)


def test_a_profile_that_version_4_wrote_is_read_as_it_was() -> None:
    wanted = before_6()
    wanted.swept = 0
    blob = encode(wanted)
    version_4 = blob.replace(b"\x06", b"\x04", 1)  # The first of its fields: else they are alike.
    assert (version_4 != blob, blob.index(b"\x06")) == (True, 3)
    assert profile_shape(decode(ADDRESS, version_4)) == profile_shape(wanted)


def test_a_profile_that_version_5_wrote_is_read_as_it_was() -> None:
    blob = encode(before_6())
    version_5 = blob.replace(b"\x06", b"\x05", 1)
    assert (version_5 != blob, blob.index(b"\x06")) == (True, 3)
    assert profile_shape(decode(ADDRESS, version_5)) == profile_shape(before_6())


def test_every_part_of_a_profile_is_kept() -> None:
    profile = full_profile()
    for name in KEPT:
        assert getattr(profile, name) not in ({}, [], "", 0, None, -1, (0, "")), f"{name}: something wanted in it"
    assert profile_shape(decode(ADDRESS, encode(profile))) == profile_shape(profile)


def test_an_empty_profile_costs_next_to_nothing() -> None:
    assert len(encode(Profile(ADDRESS))) < 10


@pytest.mark.invariant("R13")
@law(30)
@given(told=histories(carts=True))
def test_the_same_history_gives_the_same_bytes(told: list[Told]) -> None:
    assert encode(lived(told)) == encode(lived(told))


@law(300)
@given(junk=st.binary(max_size=40))
def test_garbage_is_refused(junk: bytes) -> None:
    with pytest.raises(BadBlob, match=rf"version 1 to {codec.VERSION} wanted, .* in {len(junk)} bytes"):
        decode(ADDRESS, junk)


@law(300)
@given(data=st.data())
def test_a_damaged_blob_is_refused_or_read_but_never_breaks_the_reader(data: st.DataObject) -> None:
    blob = bytearray(encode(full_profile()))
    kind = data.draw(st.sampled_from(["cut", "flip", "drop"]))
    place = data.draw(st.integers(0, len(blob) - 1))
    if kind == "cut":
        del blob[place:]
    elif kind == "drop":
        del blob[place]
    else:
        blob[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode(ADDRESS, bytes(blob))
    except BadBlob:
        return
    assert kind != "cut", "a blob that lacks its end is no profile"


@pytest.mark.parametrize(
    "fields", [[], [7, 0, 0, -1, 0], [0, 0, 0, -1, 0], ["1", 0, 0, -1, 0], [1], [1, 0, 0, -1, 1], {1: 2}]
)
def test_what_is_of_no_version_we_know_is_refused(fields: Any) -> None:
    with pytest.raises(BadBlob):
        decode(ADDRESS, msgpack.packb(fields))


def test_an_older_version_is_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    old = encode(full_profile())
    steps: list[int] = []

    def upgrade(fields: list[Any]) -> list[Any]:
        steps.append(fields[0])
        return [fields[0] + 1, *fields[1:]]

    monkeypatch.setattr(codec, "VERSION", 8)
    monkeypatch.setattr(codec, "UPGRADES", {6: upgrade, 7: upgrade})
    assert profile_shape(decode(ADDRESS, old)) == profile_shape(full_profile())
    assert steps == [6, 7]


@pytest.mark.invariant("R26")
def test_the_rings_of_a_busy_customer_stay_within_their_bounds() -> None:
    world = World(BOOK, 1_767_225_600_000)
    for n in range(900):
        world.until(world.now_ms + 600_000, with_it=False)
        kind = ("product_viewed", "product_added", "order_completed", "page_viewed")[n % 4]
        line = {"product_id": f"p{n}", "quantity": 1, "price_e6": 1_000_000, "name": "n" * 20, "amount_minor": 100}
        props: dict[str, Any] = {"items": [line]}
        if kind == "order_completed":
            props |= {"order_id": f"o{n}", "total_minor": 100, "currency": "USD"}
        world.happen(Event(f"m{n}", "web", kind, world.now_ms, world.now_ms, ADDRESS, props=props))
    profile = world.profile(ADDRESS)
    assert len(profile.orders) == ORDERS_MAX
    assert len(profile.ring) <= RING_MAX
    assert sum(len(cart.items) for cart in profile.carts.values()) <= CART_LINES_MAX
    assert max(len(state) for state in profile.aggs.values() if isinstance(state, list | dict)) <= KEPT_MAX
