"""Sequences: one thing after another, or not, at their very instants; told late, taken back, or in another order."""

from __future__ import annotations

from itertools import permutations

import pytest

from rules.compile import compile_rules
from rules.scenarios import check


@pytest.mark.mechanic("M50")
@pytest.mark.mechanic("M4")
def test_looked_at_and_not_bought_is_sure_when_its_time_is_over_and_not_an_instant_before() -> None:
    done = check(
        """
        defaults = {zone: Europe/Berlin}
        segment it = {sequence: [{did: product_viewed, as: v}, {then_not: {did: order, item: [{product_id: $v.product_id}]}, within: P7D}]}
        start 2026-03-25T12:00                                       # clocks change on the 29th
        0d                   ana  product_viewed product=mug
        0d                   ana  expect out, wake 2026-04-01T12:00
        1d                   ana  order_completed order_id=1 total=5 product=pot price=5
        2026-04-01T11:59:59  ana  expect out
        2026-04-01T12:00     ana  order_completed order_id=2 total=5 product=mug price=5     # just too late
        2026-04-01T12:00     ana  expect in, entered 2026-04-01T12:00, wake none
        2026-04-02T12:00     ana  order_completed order_id=3 total=5 product=mug price=5 late=2d
        2026-04-02T12:00     ana  expect out
        2026-04-03T12:00     ana  order_refunded order_id=3
        2026-04-03T12:00     ana  expect in
        """
    )
    assert [change for change, _ in done.changes("it")] == ["entered", "exited", "entered"]


@pytest.mark.mechanic("M4")
def test_a_step_comes_strictly_later_and_before_its_time_is_over() -> None:
    for wait, holds in (("0m", "out"), ("1m", "in"), ("59m59s", "in"), ("1h", "out")):
        check(
            f"""
            segment it = {{sequence: [{{did: email_link_clicked}}, {{then: {{did: product_added}}, within: PT1H}}]}}
            0m      ana  email_link_clicked
            {wait}  ana  product_added product=mug price=5
            2h      ana  expect {holds}
            """
        )


@pytest.mark.mechanic("D5")
def test_in_whatever_order_three_steps_are_told_the_chain_is_found() -> None:
    steps = (
        "email_link_clicked late=3h message=a",
        "product_added product=mug price=5 late=2h message=b",
        "order_completed order_id=1 total=5 late=1h message=c",
    )
    for order in permutations(steps):
        lines = "\n".join(f"5h  ana  {step}" for step in order)
        check(
            f"""
            segment it = {{sequence: [{{did: email_link_clicked}}, {{then: {{did: product_added}}, within: PT2H}}, {{then: {{did: order}}}}]}}
            segment other = {{sequence: [{{did: product_added}}, {{then: {{did: email_link_clicked}}}}]}}
            {lines}
            5h  ana  expect in it, out other
            """
        )


def test_a_name_binds_the_very_item_and_one_chain_is_enough() -> None:
    check(
        """
        segment again = {sequence: [{did: order, as: v}, {then: {did: product_viewed, item: [{product_id: $v.product_id}, {category: tools}]}}]}
        0d  ana  order_completed order_id=1 total=9 product=a price=4 category=tools product=b price=5 category=tools
        1d  ana  product_viewed product=c category=tools
        2d  ana  product_viewed product=a category=garden
        2d  ana  expect out
        3d  ana  product_viewed product=b category=tools/drills
        3d  ana  expect in
        4d  ana  order_refunded order_id=1 amount=5 product=b price=5
        4d  ana  expect out                                                       # that line was taken back
        """
    )


def test_two_names_may_be_asked_of_one_step() -> None:
    check(
        """
        segment it = {sequence: [{did: product_viewed, as: a}, {then: {did: product_added, as: b, item: [{category: $a.category}]}}, {then_not: {did: order, item: [{product_id: $b.product_id}, {category: $a.category}]}}]}
        0d  ana  product_viewed product=x category=tools
        1d  ana  product_added product=y category=garden price=1
        1d  ana  expect out
        2d  ana  product_added product=z category=tools price=1
        2d  ana  expect in
        3d  ana  order_completed order_id=1 total=1 product=z category=tools price=1
        3d  ana  expect out
        """
    )


@pytest.mark.mechanic("M4")
def test_the_window_of_the_first_step_ends_the_whole() -> None:
    check(
        """
        segment it = {sequence: [{did: product_viewed, window: {calendar: this_month}}, {then_not: {did: order}, within: P3D}]}
        start 2026-01-29T12:00
        0d                ana  product_viewed product=x
        0d                ana  expect out, wake none                       # the month is over first
        2026-02-10T12:00  ana  product_viewed product=x
        2026-02-10T12:00  ana  expect out, wake 2026-02-13T12:00
        2026-02-13T12:00  ana  expect in, wake 2026-03-01T00:00
        2026-03-01T00:00  ana  expect out
        """
    )


@pytest.mark.mechanic("D3")
def test_an_explanation_tells_the_chain() -> None:
    done = check(
        """
        segment it = {sequence: [{did: email_link_clicked}, {then: {did: order}, within: P1D}]}
        0h  ana  email_link_clicked
        1h  ana  order_completed order_id=1 total=5
        1h  ana  expect in
        """
    )
    (segment,) = done.world.rulebook.segments
    assert segment.judged.events is not None
    assert segment.judged.events(done.world.profile("user:ana"), done.world.now_ms) == [
        {"at": "2026-01-01T01:00:00.000Z", "step": 2},
        {"at": "2026-01-01T00:00:00.000Z", "step": 1},
    ]


@pytest.mark.invariant("R26")
def test_of_events_no_more_are_kept_than_a_hundred() -> None:
    lines = "\n".join(f"{n}m  ana  product_viewed product=p{n}" for n in range(150))
    done = check(
        f"""
        segment it = {{sequence: [{{did: product_viewed, as: v}}, {{then: {{did: product_added, item: [{{product_id: $v.product_id}}]}}}}]}}
        {lines}
        3h    ana  product_added product=p20 price=1
        3h    ana  expect out                                              # 130 others since
        3h1m  ana  product_added product=p140 price=1
        3h1m  ana  expect in
        """
    )
    (kept,) = compile_rules(
        [("a", "segments: {it: {sequence: [{did: product_viewed}, {then: {did: product_added}}]}}")]
    ).aggregates
    assert kept.bound == 100
    assert max(map(len, done.world.profile("user:ana").aggs.values())) == 100
