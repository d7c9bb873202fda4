"""What runs out is reminded of before it does: by whose rhythm, how much was left, and why."""

from __future__ import annotations

from typing import Any

import pytest

from profiles.errors import BadDocument
from rules.scenarios import Run, check
from tests.scenarios.pack import SHOP

ALL = "source: [personal, product_median, catalogue]"


def soon(asked: str) -> str:
    """A trigger that is sent two days before something runs out."""
    return f"trigger soon = {{class: transactional, on: {{replenishment: {{lead: P2D, {asked}}}}}, steps: [{{emit: {{template: t, payload: {{item: $key, run_out_at: $run_out}}}}}}]}}"


def because(done: Run) -> dict[str, Any]:
    """Why the last of them was sent."""
    told: dict[str, Any] = done.sent("soon")[-1]["because"][0]
    return told


@pytest.mark.mechanic("M60")
@pytest.mark.mechanic("D12")
def test_what_is_bought_again_and_again_is_reminded_of_before_it_runs_out() -> None:
    done = check(
        """
        0d    ana  order_completed order_id=1 product=cream price=10
        30d   ana  order_completed order_id=2 product=cream price=10 product=soap price=2
        54d   ana  expect emits replenishment 0
        55d   ana  expect emits replenishment 1
        60d   ana  order_completed order_id=3 product=cream price=10
        84d   ana  expect emits replenishment 1
        85d   ana  expect emits replenishment 2
        """,
        SHOP,
    )
    first, second = done.sent("replenishment")
    assert first["payload"]["item"] == second["payload"]["item"] == "cream"
    assert first["payload"]["run_out_at"] == "2026-03-02T00:00:00.000Z"
    assert first["because"][0] == {
        "node": "cream runs out",
        "value": "2026-03-02T00:00:00.000Z",
        "source": "personal",
        "purchases": 2,
        "days": 30.0,
        "confidence": 0.33,
    }
    assert second["payload"]["run_out_at"] == "2026-04-01T00:00:00.000Z"
    assert second["because"][0]["confidence"] == 0.5


@pytest.mark.mechanic("M60")
def test_buying_early_sets_the_reminder_anew_and_a_return_takes_it_away() -> None:
    check(
        """
        0d    ana  order_completed order_id=1 product=cream price=10
        30d   ana  order_completed order_id=2 product=cream price=10
        50d   ana  order_completed order_id=3 product=cream price=10    # 30 and 20 days, drawn to 30: about 27
        55d   ana  expect emits replenishment 0
        72d   ana  expect emits replenishment 0
        73d   ana  expect emits replenishment 1
        """,
        SHOP,
    )
    check(
        """
        0d    bob  order_completed order_id=1 product=cream price=10
        30d   bob  order_completed order_id=2 product=cream price=10
        40d   bob  order_cancelled order_id=2
        90d   bob  expect emits replenishment 0
        """,
        SHOP,
    )


@pytest.mark.mechanic("M60")
def test_two_orders_of_one_day_tell_no_rhythm() -> None:
    check(
        f"""
        {soon("min_samples: 2")}
        0h   ana  order_completed order_id=1 product=cream price=10
        5h   ana  order_completed order_id=2 product=cream price=10
        90d  ana  expect emits soon 0
        """
    )


EVERYBODY = """
        0d   bob  order_completed order_id=1 product=cream price=10
        0d   cat  order_completed order_id=2 product=cream price=10
        0d   dan  order_completed order_id=3 product=cream price=10
        12d  bob  order_completed order_id=4 product=cream price=10
        12d  cat  order_completed order_id=5 product=cream price=10
        12d  dan  order_completed order_id=6 product=cream price=10
        20d  ana  order_completed order_id=7 product=cream price=10
"""


@pytest.mark.mechanic("M60")
@pytest.mark.mechanic("D12")
def test_who_bought_once_goes_by_everybodys_rhythm_as_soon_as_it_is_known() -> None:
    done = check(
        f"""
        {soon(ALL)}
        {EVERYBODY}
        21d  ana  expect emits soon 0
        21d  base facts
        # All three of them came after twelve days, so it runs out on day 32.
        29d  ana  expect emits soon 0
        30d  ana  expect emits soon 1
        """
    )
    assert because(done) == {
        "node": "cream runs out",
        "value": "2026-02-02T00:00:00.000Z",
        "source": "product_median",
        "purchases": 1,
        "days": 12.0,
        "confidence": 1.0,
    }
    check(f"{soon('source: personal')}\n{EVERYBODY}\n21d base facts\n90d ana expect emits soon 0")


@pytest.mark.mechanic("M60")
def test_a_category_has_a_rhythm_of_everybody_too() -> None:
    check(
        f"""
        {soon("source: product_median, scope: category")}
        0d   bob  order_completed order_id=1 product=fish category=food price=10
        0d   cat  order_completed order_id=2 product=beef category=food price=10
        0d   dan  order_completed order_id=3 product=fish category=food price=10
        10d  bob  order_completed order_id=4 product=beef category=food price=10
        10d  cat  order_completed order_id=5 product=fish category=food price=10
        10d  dan  order_completed order_id=6 product=beef category=food price=10
        20d  ana  order_completed order_id=7 product=hare category=food price=10
        20d  base facts
        27d  ana  expect emits soon 0
        28d  ana  expect emits soon/t 1
        """
    )


@pytest.mark.mechanic("M60")
def test_one_purchase_is_reminded_of_once_however_the_facts_move() -> None:
    check(
        f"""
        {soon(ALL)}
        {EVERYBODY}
        20d  base facts
        30d  ana  expect emits soon 1
        40d  bob  order_completed order_id=8 product=cream price=10
        40d  cat  order_completed order_id=9 product=cream price=10
        40d  dan  order_completed order_id=10 product=cream price=10
        41d  base facts
        90d  ana  expect emits soon 1
        """
    )


@pytest.mark.mechanic("M60")
@pytest.mark.mechanic("D12")
def test_what_the_shop_says_of_a_piece_counts_where_nobody_has_a_rhythm() -> None:
    done = check(
        f"""
        {soon(ALL)}
        0d   ana  order_completed order_id=1 product=cream consumption_days=10 price=10 qty=3
        0d   ana  order_completed order_id=2 product=soap price=10
        27d  ana  expect emits soon 0
        28d  ana  expect emits soon 1
        """
    )
    assert because(done)["source"] == "catalogue"
    assert because(done)["days"] == 30.0
    assert because(done)["confidence"] == 0.0


@pytest.mark.mechanic("M60")
@pytest.mark.mechanic("D12")
@pytest.mark.parametrize(
    ("again", "runs_out", "was_left"),
    [
        (20, 60, 1.0),  # Ten days early: one piece of three is left, and lasts on.
        (30, 60, 0.0),
        (40, 70, 0.0),  # Ten days late: nothing is left, and what was not there was not used up.
    ],
)
def test_buying_early_or_late_moves_the_date_by_what_is_left(again: int, runs_out: int, was_left: float) -> None:
    done = check(
        f"""
        {soon("source: catalogue, stock_carry: true")}
        0d             ana  order_completed order_id=1 product=cream consumption_days=10 price=10 qty=3
        {again}d       ana  order_completed order_id=2 product=cream consumption_days=10 price=10 qty=3
        {runs_out}d    ana  expect emits soon {1 if again < 28 else 2}
        """
    )
    letter = done.sent("soon")[-1]
    assert because(done)["left"] == was_left
    assert because(done)["pieces"] == 3
    day = {60: "2026-03-02", 70: "2026-03-12"}[runs_out]
    assert letter["payload"]["run_out_at"] == f"{day}T00:00:00.000Z"


@pytest.mark.parametrize(
    ("asked", "mistake"),
    [
        ("source: guess", "one of personal, product_median, catalogue wanted"),
        ("sources: personal", "did you mean 'source'"),
        ("stock_carry: 3", "true or false wanted"),
    ],
)
def test_a_source_that_there_is_not_is_refused(asked: str, mistake: str) -> None:
    with pytest.raises(BadDocument, match=mistake):
        check(soon(asked))
