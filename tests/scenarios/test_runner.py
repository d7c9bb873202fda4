"""The scenario language does what it says, and says where a scenario is wrong."""

from __future__ import annotations

import pytest

from profiles.errors import BadDocument
from rules.scenarios import BadScenario, ScenarioFailed, check, run


def test_every_expectation_that_does_not_hold_is_told_at_its_line() -> None:
    with pytest.raises(ScenarioFailed) as failed:
        check(
            """
            segment lapsed = {trait: last_order_at, older_than: P30D}
            0d   ana  order_completed order_id=1 total=10
            0d   ana  expect in, wake 31d
            30d  ana  expect in
            31d  ana  expect segments none
            """
        )
    assert [failure.line for failure in failed.value.failures] == [4, 4, 6]
    assert "wake 31d: 2026-01-31T00:00:00.000Z, not 2026-02-01T00:00:00.000Z" in str(failed.value)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("0d ana expect", "wanted after expect, got nothing"),
        ("0d ana", "TIME WHO WHAT wanted"),
        ("tomorrow ana page_viewed", "a time like 36h"),
        ("P3X ana page_viewed", "a time wanted"),
        ("0d ana page_viewed path", "key=value wanted"),
        ("0d ana order_completed total=5", "order_id"),
        ("0d ana expect emits nothing 1", "a trigger that is defined wanted, got 'nothing'"),
        ("0d ana expect in nobody", "a segment that is defined wanted, got 'nobody'"),
        ("0d ana expect segments a, nobody", "segments that are defined wanted, got nobody"),
        ("0d ana expect joy", "wanted after expect, got 'joy'"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_its_number(line: str, wanted: str) -> None:
    with pytest.raises(BadScenario, match=wanted) as refused:
        check(f"segment a = {{did: page_viewed}}\n{line}")
    assert str(refused.value).startswith("scenario:2: ")


def test_lines_go_on_in_time() -> None:
    with pytest.raises(BadScenario, match="lines go on in time"):
        check("segment a = {did: page_viewed}\n2d ana page_viewed\n1d ana page_viewed")


def test_calendar_times_count_from_the_start_in_the_rules_zone() -> None:
    done = check(
        """
        defaults = {zone: Europe/Berlin}
        segment seen = {did: page_viewed, window: {within: P1D}}
        start 2026-03-28T02:30
        0d                ana  page_viewed
        P1D               ana  expect out, left P1D
        2026-03-29T03:31  ana  expect out
        """
    )
    # 02:30 does not exist on the 29th: the window ends at 03:30 summer time, 24 hours later.
    assert done.changes("seen") == [("entered", 0), ("exited", 24 * 3_600_000)]


def test_items_belong_to_the_product_before_them() -> None:
    done = check(
        """
        trigger seen = {on: {event: order_completed}, steps: [{emit: {template: t, payload: {who: $key}}}]}
        segment two_mugs = {did: order, item: [{product_id: mug}, {quantity: 2}]}
        segment paid = {did: order, sum: {field: total, eq: 28}}
        0d  ana  order_completed order_id=1 product=mug qty=2 price=12.5 product=pen price=3
        0d  ana  expect in two_mugs, in paid, emits seen/t 1
        """
    )
    assert done.sent("seen")[0]["profile"]["address"] == "user:ana"


def test_amounts_of_which_no_currency_is_said_are_in_the_shops() -> None:
    check(
        """
        defaults = {currency: EUR}
        trait spent = {sum: order.total}
        segment buyers = {did: order}
        0d  ana  order_completed order_id=1 total=60
        0d  ana  expect in, trait spent 60
        1d  ana  order_completed order_id=2 total=40 currency=USD
        1d  ana  expect trait spent 60
        """
    )


def test_a_failed_run_can_be_looked_at() -> None:
    done = run("segment a = {did: page_viewed}\n0d ana page_viewed\n0d ana expect out")
    assert done.world.members("user:ana") == ["a"]
    assert len(done.failures) == 1


def test_a_mistake_in_a_scenarios_rule_is_told_at_the_scenarios_line() -> None:
    with pytest.raises(BadDocument) as refused:
        check("# A remark.\nsegment a = {did: page_viewed}\nsegment b = {didnt: page_viewed}\n")
    assert str(refused.value) == "scenario:3: segments/b: unknown operator 'didnt'; did you mean 'did_not'?"
