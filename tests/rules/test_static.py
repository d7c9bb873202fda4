"""Static segments: formed once, of a rule at its instant or by command; what happens afterwards changes nobody's place."""

from __future__ import annotations

from typing import Any

import pytest

from profiles.edits import Edit, pack_edit
from profiles.moments import DAY_MS, HOUR_MS, parse_instant
from profiles.wire import EDIT, SEGMENT_CHANGES, Command, Event
from rules.compile import compile_rules
from rules.scenarios import World, check

FORMED = """
segments:
  regulars: {did: order, times: {gte: 2}, window: {within: P30D}}
  black_friday: {kind: static, formed_from: {in_segment: regulars}, form_at: "2026-01-11T00:00"}
  called: {all: [{in_segment: black_friday}, {trait: custom.phone, exists: true}]}
"""


@pytest.mark.mechanic("M2")
def test_a_static_segment_is_formed_at_its_instant_and_no_event_changes_it_afterwards() -> None:
    done = check(
        """
        trigger sale = {on: {segment: black_friday}, steps: [{emit: closed_sale}]}
        0d   ana  order_completed order_id=1 total=10
        1d   ana  order_completed order_id=2 total=10
        2d   bob  order_completed order_id=3 total=10
        3d   eva  page_viewed
        9d   ana  expect segments regulars
        # Nobody writes at the very instant: each is asked by an alarm of his own.
        10d  ana  expect segments black_friday, regulars
        10d  ana  expect entered black_friday 10d, emits sale 1
        10d  bob  expect segments none
        11d  bob  order_completed order_id=4 total=10
        11d  bob  expect segments regulars
        12d  ana  order_refunded order_id=1
        12d  ana  expect segments black_friday
        12d  ana  identified custom.phone=yes
        12d  ana  expect segments black_friday, called
        # Who comes later is not in it though fitting; nor does what is told late change it.
        13d  tom  order_completed order_id=5 total=10 late=12d
        13d  tom  order_completed order_id=6 total=10 late=12d
        13d  tom  expect segments regulars
        90d  ana  expect segments black_friday, called
        90d  ana  expect changes black_friday 1, emits sale 1
        """,
        [("rules", FORMED)],
    )
    assert done.changes("black_friday") == [("entered", 10 * DAY_MS)]


@pytest.mark.mechanic("M2")
def test_what_happens_at_the_instant_of_forming_counts() -> None:
    check(
        """
        0d   ana  order_completed order_id=1 total=10
        10d  ana  order_completed order_id=2 total=10
        10d  ana  expect segments black_friday, regulars
        """,
        [("rules", FORMED)],
    )
    # Also what is the second thing to happen then, of somebody nobody knew.
    check(
        """
        segment looked = {kind: static, formed_from: {did: page_viewed}, form_at: "2026-01-02T00:00"}
        1d  ana  logged_in
        1d  ana  page_viewed
        1d  ana  expect in
        1d  bob  logged_in
        1d  bob  expect out
        2d  bob  page_viewed
        2d  bob  expect out
        """
    )


START_MS = parse_instant("2026-01-01T00:00:00Z")
LISTED = """
segments:
  vips: {kind: static, says: "Chosen by hand."}
  vips_with_carts: {all: [{in_segment: vips}, {trait: cart.items, gte: 1}]}
  buyers: {did: order}
triggers:
  hello: {on: {segment: vips}, steps: [{emit: hello}]}
"""


def world() -> World:
    return World(compile_rules([("rules", LISTED)]), START_MS)


def listed(world: World, command_id: str, address: str = "user:1", **lists: bool) -> Any:
    body = pack_edit(Edit("ana", "the year's list", lists=lists))
    return world.tell(Command(EDIT, address, "", (world.now_ms, command_id), body, world.now_ms))


def said(world: World, number: int, kind: str, address: str = "user:1", **more: Any) -> str:
    return world.happen(Event(f"m{number}", "web", kind, world.now_ms, world.now_ms, address, **more)).outcome


@pytest.mark.mechanic("M2")
def test_a_command_puts_somebody_on_a_list_once_and_what_stands_on_it_follows_in_the_same_step() -> None:
    it = world()
    said(it, 1, "product_added", props={"items": [{"product_id": "a", "quantity": 1, "price_e6": 5_000_000}]})
    step = listed(it, "c1", vips=True)
    assert step.outcome == "applied"
    assert it.members("user:1") == ["vips", "vips_with_carts"]
    assert listed(it, "c1", vips=True).outcome == "duplicate"
    listed(it, "c2", vips=True)
    it.until(it.now_ms + HOUR_MS, with_it=True)
    said(it, 2, "order_completed", props={"order_id": "1", "total_minor": 5, "currency": "USD"})
    assert it.members("user:1") == ["buyers", "vips"]
    listed(it, "c3", vips=False)
    assert it.members("user:1") == ["buyers"]
    changes = [
        (one.value["segment"], one.value["change"]) for one in it.published if one.record.topic == SEGMENT_CHANGES
    ]
    assert [change for name, change in changes if name == "vips"] == ["entered", "exited"]
    assert sum(one.record.topic == "triggers.hello" for one in it.published) == 1


@pytest.mark.mechanic("M2")
def test_a_list_that_the_rules_do_not_have_and_a_living_segment_are_refused_by_name() -> None:
    it = world()
    said(it, 1, "page_viewed")
    step = listed(it, "c1", buyers=True, gone=True)
    assert it.members("user:1") == []
    assert b'"unknown":["buyers","gone"]' in step.receipts[0][1]
    assert listed(it, "c2", address="user:nobody", vips=True).outcome == "refused"
    assert not listed(it, "c3", vips=True).receipts  # A list is on record as a whole, not by person.


@pytest.mark.mechanic("M2")
@pytest.mark.parametrize("both", [False, True])
def test_two_members_who_are_one_person_are_one_member_and_one_of_two_is_enough(both: bool) -> None:
    it = world()
    said(it, 1, "page_viewed", "anon:x")
    said(it, 2, "page_viewed")
    listed(it, "c1", "anon:x", vips=True)
    if both:
        listed(it, "c2", vips=True)
    it.until(it.now_ms + HOUR_MS, with_it=True)
    said(it, 3, "page_viewed", identifiers=("anon:x",))
    it.until(it.now_ms + HOUR_MS, with_it=True)
    assert it.members("user:1") == ["vips"]
    assert it.members("anon:x") == []
