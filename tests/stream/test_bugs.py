"""When what fails inside ``step`` is too much to go on (R9)."""

from __future__ import annotations

import pytest

from profiles.errors import Refused
from profiles.moments import MINUTE_MS
from stream.bugs import BUGS_IN_A_ROW_MAX, Bugs

pytestmark = pytest.mark.invariant("R9")


class Clock:
    """A clock that stands until it is moved."""

    at_ms = 0

    def __call__(self) -> int:
        return self.at_ms


def failing(bugs: Bugs, count: int) -> None:
    """So many fail, each after one that did not."""
    for _ in range(count):
        bugs.in_a_row = 0
        bugs.count()


def test_one_of_a_hundred_of_a_minutes_events_may_fail_and_no_more() -> None:
    clock = Clock()
    bugs = Bugs(clock, has_ceiling=True)
    for minute in range(3):
        clock.at_ms = minute * MINUTE_MS
        bugs.count_inputs(1_500)
        failing(bugs, 15)
    with pytest.raises(Refused, match="16 of 1500 in this minute"):
        failing(bugs, 1)


def test_of_a_few_events_no_share_is_counted() -> None:
    bugs = Bugs(Clock(), has_ceiling=True)
    bugs.count_inputs(999)
    failing(bugs, 500)
    bugs.count_inputs(1)
    with pytest.raises(Refused, match="501 of 1000"):
        failing(bugs, 1)


def test_fifty_in_a_row_stop_it_however_few_they_are() -> None:
    bugs = Bugs(Clock(), has_ceiling=True)
    bugs.count_inputs(1_000_000)
    for _ in range(BUGS_IN_A_ROW_MAX - 1):
        bugs.count()
    with pytest.raises(Refused, match=f"{BUGS_IN_A_ROW_MAX} in a row"):
        bugs.count()


def test_without_the_ceiling_nothing_stops_it() -> None:
    bugs = Bugs(Clock(), has_ceiling=False)
    bugs.count_inputs(1_000)
    for _ in range(1_000):
        bugs.count()
    assert bugs.in_a_row == 1_000
