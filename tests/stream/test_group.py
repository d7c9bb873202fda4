"""A partition's topics become one order of logical time, and nothing ever waits for itself."""

from __future__ import annotations

import pytest

from profiles.moments import FOREVER
from profiles.wire import EVENT_TOPICS, INPUT_TOPICS, ORDER_EVENTS, PAGE_VIEWS, Event, encode_event
from stream.group import Group
from stream.ports import LogRecord

ORDERS = INPUT_TOPICS.index(ORDER_EVENTS)
PAGES = INPUT_TOPICS.index(PAGE_VIEWS)


def event(number: int, at_ms: int, topic: str) -> LogRecord:
    value = encode_event(Event(f"m{number}", "web", "page_viewed", at_ms, at_ms, "user:1"))
    return LogRecord(topic, 0, number, b"user:1", value)


def group(*, at_end: tuple[str, ...] = INPUT_TOPICS, answered_ms: int = 100) -> Group:
    """A claimed partition; these topics were seen at their ends."""
    one = Group(0, 8, caught_up=True)
    for name in at_end:
        lane = one.lanes[INPUT_TOPICS.index(name)]
        lane.end, lane.answered_ms = 0, answered_ms
    return one


def taken(one: Group, limit: int = 100) -> list[tuple[int, int]]:
    ready, _ = one.ready(limit)
    one.drop(ready)
    return [(found.topic, found.offset) for found in ready]


def test_topics_are_merged_by_time_then_topic_then_offset() -> None:
    one = group()
    one.add(ORDERS, [event(0, 10, ORDER_EVENTS), event(1, 30, ORDER_EVENTS)], 50)
    one.add(PAGES, [event(0, 10, PAGE_VIEWS), event(1, 20, PAGE_VIEWS)], 50)
    for topic, end in ((ORDERS, 2), (PAGES, 2)):
        one.lanes[topic].end, one.lanes[topic].answered_ms = end, 60
    assert taken(one) == [(PAGES, 0), (ORDERS, 0), (PAGES, 1), (ORDERS, 1)]


def test_a_record_waits_until_every_other_topic_is_as_far() -> None:
    one = group(at_end=tuple(name for name in INPUT_TOPICS if name != PAGE_VIEWS))
    one.add(ORDERS, [event(0, 10, ORDER_EVENTS)], 50)
    one.lanes[ORDERS].end, one.lanes[ORDERS].answered_ms = 1, 60
    assert taken(one) == []
    one.add(PAGES, [event(0, 9, PAGE_VIEWS)], 70)
    assert taken(one) == []  # The pages' next may be of 9, too, or of 10 before it.
    one.lanes[PAGES].end, one.lanes[PAGES].answered_ms = 1, 71
    assert taken(one) == []  # The orders' end was seen before that page was read.
    one.lanes[ORDERS].answered_ms = 80
    assert taken(one) == [(PAGES, 0), (ORDERS, 0)]


def test_an_end_seen_before_a_record_was_read_says_nothing_about_it() -> None:
    one = group(answered_ms=40)
    one.add(ORDERS, [event(0, 10, ORDER_EVENTS)], 50)
    one.lanes[ORDERS].end, one.lanes[ORDERS].answered_ms = 1, 50
    assert taken(one) == []
    for name in EVENT_TOPICS:
        lane = one.lanes[INPUT_TOPICS.index(name)]
        lane.answered_ms = 55
    one.lanes[-1].answered_ms = 55
    assert taken(one) == [(ORDERS, 0)]


@pytest.mark.invariant("R15")
def test_the_answer_that_brought_a_record_says_nothing_of_the_ends_of_other_topics() -> None:
    one = group(answered_ms=50)
    one.add(ORDERS, [event(0, 10, ORDER_EVENTS)], 50)
    one.lanes[ORDERS].end = 1
    assert taken(one) == []  # A page of 9 may have come after this answer had looked at the pages.
    for lane in one.lanes:
        if lane is not one.lanes[ORDERS]:
            lane.answered_ms = 51
    assert taken(one) == [(ORDERS, 0)]


@pytest.mark.invariant("R27")
def test_one_busy_topic_goes_on_an_answer_behind_what_it_brings() -> None:
    one = group(answered_ms=50)
    for stamp_ms in range(51, 60):
        number = stamp_ms - 51
        one.add(ORDERS, [event(number, 10 * number, ORDER_EVENTS)], stamp_ms)
        for lane in one.lanes:
            lane.answered_ms = stamp_ms  # the same answer, which found the others at their ends
        assert taken(one) == ([(ORDERS, number - 1)] if number else [])


@pytest.mark.invariant("R27")
def test_a_backlog_of_one_instant_goes_on_though_its_end_is_not_in_sight() -> None:
    """History behind the log's clock counts as of the clock: thousands of records of one time, and more to come."""
    one = group(at_end=tuple(name for name in INPUT_TOPICS if name != ORDER_EVENTS))
    one.add(ORDERS, [event(0, 1000, ORDER_EVENTS)], 50)
    one.add(ORDERS, [event(number, 5, ORDER_EVENTS) for number in range(1, 300)], 51)
    assert len(taken(one, 100)) == 100
    assert len(taken(one, 1000)) == 200


def test_two_topics_at_one_instant_do_not_wait_for_each_other() -> None:
    one = group(at_end=tuple(name for name in INPUT_TOPICS if name not in (ORDER_EVENTS, PAGE_VIEWS)))
    one.add(ORDERS, [event(number, 7, ORDER_EVENTS) for number in range(3)], 50)
    one.add(PAGES, [event(number, 7, PAGE_VIEWS) for number in range(3)], 50)
    assert len(taken(one)) == 6


def test_how_far_a_partition_is_complete_is_told() -> None:
    one = group()
    assert one.ready(10) == ([], FOREVER)
    one.add(ORDERS, [event(number, 10 * number, ORDER_EVENTS) for number in range(5)], 50)
    ready, complete_ms = one.ready(2)
    assert (len(ready), complete_ms) == (2, 20)
    assert Group(0, 8).ready(10) == ([], -1)
