"""R20: in whatever order a customer's messages arrive, what is commutative ends alike.

Not commutative, and so left out: the cart (a late adding to a line taken out since), the visit under way, journeys and
their entries, the ring of messages, and what is stamped with the time of arrival (members' since, ``seen_ms``).
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import consent, orders, people
from profiles.state import COUNTING, Profile
from profiles.taxonomy import resolve
from rules.compile import compile_rules
from rules.scenarios import World
from tests.laws.histories import ADDRESS, documents, event_of, histories, law
from tests.laws.naive import Naive, Told
from tests.laws.shapes import profile_shape, shape

NOT_COMMUTATIVE: Final = ("carts", "session", "runs", "entries", "ring", "seen_ms", "members", "timers", "held")


def arrived(told: list[Told], book: Any) -> World:
    """All of it arriving at one instant, after everything has happened, in this order."""
    now_ms = max(one.seen_ms for one in told)
    world = World(book, now_ms)
    for one in told:
        world.happen(event_of(one._replace(seen_ms=now_ms)))
    return world


@pytest.mark.mechanic("D5")
@pytest.mark.invariant("R20")
@law(60)
@given(document=documents(zone="Europe/Berlin"), told=histories(most=9), data=st.data())
def test_any_order_of_arrival_ends_in_the_same_statistics_orders_traits_and_segments(
    document: dict[str, Any], told: list[Told], data: st.DataObject
) -> None:
    book = compile_rules([("rules", json.dumps(document))])
    first = arrived(told, book)
    second = arrived(list(data.draw(st.permutations(told))), book)
    a, b = first.profile(ADDRESS), second.profile(ADDRESS)
    assert profile_shape(a, *NOT_COMMUTATIVE) == profile_shape(b, *NOT_COMMUTATIVE)
    assert shape(orders.fold(a, currency="USD")) == shape(orders.fold(b, currency="USD"))
    assert first.members(ADDRESS) == second.members(ADDRESS)


@pytest.mark.mechanic("D5")
@pytest.mark.invariant("R20")
@law(60)
@given(document=documents(), told=histories(most=9), data=st.data())
def test_what_was_told_late_ends_as_if_it_had_been_told_in_time(
    document: dict[str, Any], told: list[Told], data: st.DataObject
) -> None:
    book = compile_rules([("rules", json.dumps(document))])
    once = list({one.message_id: one for one in reversed(told)}.values())
    in_time = sorted((one._replace(seen_ms=one.at_ms) for one in once), key=lambda one: one.at_ms)
    end_ms = max(one.seen_ms for one in told)
    worlds = []
    for history in (told, in_time):
        world = World(book, history[0].seen_ms)
        for one in history:
            world.until(one.seen_ms, with_it=False)
            world.happen(event_of(one))
        world.until(end_ms, with_it=True)
        worlds.append(world)
    late, ordered = worlds
    a, b = late.profile(ADDRESS), ordered.profile(ADDRESS)
    assert profile_shape(a, *NOT_COMMUTATIVE) == profile_shape(b, *NOT_COMMUTATIVE)
    assert late.members(ADDRESS) == ordered.members(ADDRESS)


@pytest.mark.invariant("R19")
@pytest.mark.invariant("R20")
@pytest.mark.mechanic("M14")
@law(200)
@given(
    told=histories(most=9, about="order_"),
    data=st.data(),
    status_in=st.sampled_from([COUNTING, ("placed",), ("shipped", "delivered")]),
    currency=st.sampled_from(["USD", "USD", "EUR", ""]),
)
def test_the_order_book_tells_what_a_reading_of_all_reports_finds(
    told: list[Told], data: st.DataObject, status_in: tuple[str, ...], currency: str
) -> None:
    if data.draw(st.booleans(), label="few instants"):
        # Many reports are of one and the same instant: the greater stands then.
        told = [one._replace(at_ms=told[0].at_ms + one.at_ms % 3) for one in told]
    naive = Naive({}, told)
    naive.known = told
    wanted = [(one.at_ms, one.order_id, one.amount, one.lines) for one in naive.orders(status_in, currency)]
    profile = Profile(ADDRESS)
    for one in data.draw(st.permutations(told)):
        resolve(one.type).change(profile, event_of(one, keeps=orders.LINE_ON_DEMAND))
    found = [
        (one.at_ms, one.order_id, one.amount_minor, one.lines) for one in orders.fold(profile, status_in, currency)
    ]
    assert shape(found) == shape(wanted)


@pytest.mark.invariant("R20")
@law(100)
@given(told=histories(most=6, about="identified") | histories(most=6, about="consent"), data=st.data())
def test_statements_and_consents_are_the_newest_in_whatever_order_they_come(
    told: list[Told], data: st.DataObject
) -> None:
    # Few instants, so that many statements are of one and the same: the greater stands then.
    told = [one._replace(at_ms=told[0].at_ms + one.at_ms % 2) for one in told]
    naive = Naive({}, told)
    naive.known = told
    profile = Profile(ADDRESS)
    for one in data.draw(st.permutations(told)):
        event = event_of(one)
        people.stated(profile, event)
        resolve(one.type).change(profile, event)
    for path in ("gender", "custom.mark"):
        assert (profile.traits[path].value if path in profile.traits else None) == naive.trait(path, 0)
    for topic in ("*", "sale", "news"):
        assert consent.state_of(profile, "email", topic) == naive.consent("email", topic)
