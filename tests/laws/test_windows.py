"""R19 for windows: what moves about midnights, month ends and changes of clocks and zones, against the naive reading.

The laws over whole rule files meet each window now and then; here there is nothing else.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.histories import CALENDAR, PAST, STARTS, ZONES, law, numbers, sequences
from tests.laws.naive import DAY_MS, HOUR_MS, Told, milliseconds
from tests.laws.test_oracle import compare

GAPS_MS: Final = (0, 1, HOUR_MS // 2, 3 * HOUR_MS, 11 * HOUR_MS, DAY_MS, 6 * DAY_MS, 7 * DAY_MS, 27 * DAY_MS)
AWAY: Final = ("Asia/Tokyo", "America/St_Johns", "Asia/Kathmandu", "Pacific/Kiritimati", "Europe/Berlin")
GAP: Final = {"gap": {"mean_gap": "order"}}
FEW: Final = (
    "page_viewed",
    "page_viewed",
    "page_viewed",
    "dice_rolled",
    "dice_rolled",
    "order_completed",
    "identified",
)


@st.composite
def walks(draw: st.DrawFn, types: tuple[str, ...] = FEW) -> list[Told]:
    """Few types of events, near one another and near the edges of calendars; some told late; and journeys to other zones."""
    now_ms = milliseconds(draw(st.sampled_from((*STARTS, "2026-06-30T10:45", "2026-03-31T21:00"))))
    told: list[Told] = []
    for number in range(draw(st.integers(2, 12))):
        now_ms += draw(st.sampled_from(GAPS_MS))
        at_ms = now_ms - draw(st.sampled_from((0, 0, 0, HOUR_MS // 2, 13 * HOUR_MS, 26 * HOUR_MS, 20 * DAY_MS)))
        name = draw(st.sampled_from(types))
        props: dict[str, Any] = {}
        traits: dict[str, Any] = {}
        if name == "dice_rolled":
            props = {"points": draw(st.sampled_from([1, 2]))}
        elif name == "order_completed":
            line = {"product_id": draw(st.sampled_from("ab")), "quantity": 1, "amount_minor": 700, "category": "tools"}
            props = {"order_id": f"o{number}", "total_minor": 1_000 + number, "currency": "USD", "items": [line]}
        elif name == "identified":
            traits = {"timezone": draw(st.sampled_from(AWAY))}
        elif name in ("product_viewed", "product_added"):
            props = {
                "items": [
                    {
                        "product_id": draw(st.sampled_from("ab")),
                        "quantity": 1,
                        "price_e6": 1_000_000,
                        "category": "tools",
                    }
                ]
            }
        told.append(Told(now_ms, at_ms, f"m{number}", name, props, traits))
    return told


@st.composite
def windowed(draw: st.DrawFn) -> dict[str, Any]:
    """A measure in a window of the calendar, or between two ages."""
    calendar: dict[str, Any] = {"calendar": draw(st.sampled_from((*CALENDAR, *PAST, *PAST)))}
    if draw(st.booleans()):
        calendar["zone"] = "profile"
    few = numbers(0, 1, 2, 3)
    kind = draw(st.sampled_from(["times", "sum", "distinct", "first", "order", "ages", "order ages", "rhythm"]))
    if kind == "rhythm":
        window = {"within": {"times": draw(st.sampled_from([1, 2, 0.5])), "of": "gap"}}
        what = draw(st.sampled_from(["page_viewed", "order"]))
        return {draw(st.sampled_from(["did", "did_not"])): what, "window": window, "times": draw(few)}
    if kind == "times":
        return {"did": "page_viewed", "window": calendar, "times": draw(few)}
    if kind == "sum":
        return {
            "did": "dice_rolled",
            "window": calendar,
            draw(st.sampled_from(["sum", "avg", "max"])): {"field": "points", **draw(few)},
        }
    if kind == "distinct":
        return {"did": "dice_rolled", "window": calendar, "distinct": {"field": "points", **draw(few)}}
    if kind == "first":
        which = draw(st.sampled_from(["first", "last"]))
        return {
            "did": "dice_rolled",
            "window": calendar,
            which: {"field": "points", "eq": draw(st.sampled_from([1, 2]))},
        }
    if kind == "order":
        return {"did": "order", "window": calendar, draw(st.sampled_from(["times", "distinct_days"])): draw(few)}
    ages: dict[str, Any] = {"between": draw(st.sampled_from([["PT3H", "P1D"], ["P1D", "P7D"], ["P7D", "P1M"]]))}
    if kind == "ages":
        return {"did": "page_viewed", "window": ages, "times": draw(few), "resolution": "PT4H"}
    if draw(st.booleans()):
        ages["zone"] = "profile"
    return {"did": "order", "window": ages, "times": draw(few)}


@pytest.mark.invariant("R19")
@pytest.mark.mechanic("M4")
@pytest.mark.mechanic("M15")
@law(400)
@given(
    rule=windowed(), told=walks(), zone=st.sampled_from(ZONES), week=st.sampled_from(["monday", "sunday", "saturday"])
)
def test_a_measure_in_a_window_is_what_a_full_recomputation_finds_at_every_instant(
    rule: dict[str, Any], told: list[Told], zone: str, week: str
) -> None:
    compare(
        {"defaults": {"zone": zone, "currency": "USD", "week_start": week}, "traits": GAP, "segments": {"s": rule}},
        told,
    )


@pytest.mark.invariant("R19")
@pytest.mark.mechanic("M50")
@law(200)
@given(
    rule=sequences(),
    told=walks(("page_viewed", "product_viewed", "product_viewed", "order_completed", "dice_rolled", "identified")),
    zone=st.sampled_from(ZONES),
)
def test_a_sequence_is_what_a_full_recomputation_finds_at_every_instant(
    rule: dict[str, Any], told: list[Told], zone: str
) -> None:
    compare({"defaults": {"zone": zone, "currency": "USD"}, "traits": GAP, "segments": {"s": rule}}, told)
