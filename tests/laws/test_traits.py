"""R19 of traits: each one's value is what a full recomputation finds, for as long as its reader promises."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from profiles.moments import FOREVER, iso
from profiles.wire import TRAIT_CHANGES
from rules.compile import compile_rules
from rules.scenarios import World
from rules.spec import plain, shown
from tests.laws.histories import ADDRESS, GOALS, TRAITS, event_of, histories, law
from tests.laws.naive import Naive, Told

ASKED: Final = (
    "first_touch.source", "first_touch.at", "last_touch.source", "last_touch.campaign", "last_touch.click", "email.sent",
    "email.opened", "email.unsubscribed", "email.last_opened_at", "sms.clicked", "sms.last_sent_at", "orders_paid",
    "first_order_at", "last_order_at", "interests.tools", "interests.garden", "interests.top",
)  # fmt: skip
PARTS: Final = ("", ".r", ".f", ".m", ".cell", ".frequency", ".monetary", ".silent_days")


def as_told(value: Any, kind: str) -> Any:
    """A value as it stands in a change record."""
    return plain(shown(value, kind, "USD"))


def compare(told: list[Told], asked: tuple[str, ...], zone: str) -> None:
    document: dict[str, Any] = {
        "defaults": {"zone": zone, "currency": "USD"},
        "goals": GOALS,
        "traits": {name: {**trait, "publish": True} for name, trait in TRAITS.items()},
        "segments": {f"s{n}": {"trait": path, "exists": True} for n, path in enumerate(asked)},
    }
    book = compile_rules([("rules", json.dumps(document))])
    paths = [*asked, *(f"{name}{part}" for name in TRAITS for part in PARTS if f"{name}{part}" in book.readers)]
    naive, world = Naive(document, [], zone), World(book, told[0].seen_ms)
    for place, one in enumerate(told):
        note(f"{iso(one.seen_ms)} {one.message_id} {one.type} {one.props} {one.campaign} at {iso(one.at_ms)}")
        known = len(world.published)
        world.until(one.seen_ms, with_it=False)
        silent = [one for one in world.published[known:] if one.record.topic == TRAIT_CHANGES]
        for at_ms, _, change in silent:
            naive.known = naive._known(at_ms)
            wanted = as_told(naive.trait(change["trait"], at_ms), book.readers[change["trait"]].kind)
            assert change["after"] == wanted != change["before"], (
                f"{change['trait']} at {iso(at_ms)}: {wanted!r} wanted"
            )
        world.happen(event_of(one))
        if place + 1 < len(told) and told[place + 1].seen_ms == one.seen_ms:
            continue  # What falls due at an instant comes after all that is told at it.
        world.until(one.seen_ms, with_it=True)
        naive.told = told[: place + 1]
        naive.known = naive._known(one.seen_ms)
        profile = world.profile(ADDRESS)
        for path in paths:
            value, until_ms = book.readers[path].read(profile, one.seen_ms)
            assert until_ms > one.seen_ms
            later_ms = until_ms - 1 if until_ms < FOREVER else one.seen_ms
            for now_ms in (one.seen_ms, later_ms):
                wanted = naive.trait(path, now_ms)
                assert value == wanted, f"{path} at {iso(now_ms)}: {wanted!r} wanted, got {value!r}"
        told_last = {
            one.value["trait"]: one.value["after"] for one in world.published if one.record.topic == TRAIT_CHANGES
        }
        for trait in book.published:
            wanted = as_told(naive.trait(trait.name, one.seen_ms), trait.reader.kind)
            assert told_last.get(trait.name) == wanted, (
                f"{trait.name} at {iso(one.seen_ms)}: {wanted!r} wanted to be told"
            )


@pytest.mark.invariant("R19")
@law(60)
@given(told=histories())
def test_a_traits_value_is_what_a_full_recomputation_finds(told: list[Told]) -> None:
    compare(told, ASKED, "Europe/Berlin")


@pytest.mark.invariant("R19")
@pytest.mark.parametrize("about", ["order", "email", "sms", "product"])
@law(60)
@given(data=st.data())
def test_a_traits_value_is_what_a_full_recomputation_finds_of_much_of_a_kind(about: str, data: Any) -> None:
    compare(data.draw(histories(about=about)), ASKED, "UTC")


@pytest.mark.invariant("R19")
@law(60)
@given(told=histories(carts=True, late=False))
def test_a_traits_value_is_what_a_full_recomputation_finds_also_of_visits(told: list[Told]) -> None:
    compare(told, (*ASKED, "session.source", "cart.items", "cart.total", "cart.state"), "UTC")
