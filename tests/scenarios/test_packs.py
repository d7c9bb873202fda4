"""The ready-made packs do what their scenarios say, and the pack of criteria shows every one of its segments at work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from rules.compile import compile_rules
from rules.scenarios import check
from stream.rulebook import PACKS, read_rule_files

SCENARIOS: Final = [
    pytest.param(path, id=f"{path.parts[-3]}-{path.stem}") for path in sorted(PACKS.glob("*/scenarios/*.txt"))
]
CRITERIA: Final = PACKS / "criteria"
ONLY_NAMED: Final = ("interest_of.suits", "interest_of.jewellery", "ltv_tier.from_middle", "ltv_tier.from_high")
"""Of one kind with others that are shown."""


@pytest.mark.mechanic("M9")
@pytest.mark.parametrize("path", SCENARIOS)
def test_a_packs_scenario_holds(path: Path) -> None:
    check(path.read_text("utf-8"), read_rule_files(path.parents[1]), str(path))


@pytest.mark.mechanic("M9")
def test_every_criterion_of_the_pack_is_shown_to_hold_and_not_to_hold() -> None:
    names = {one.name for one in compile_rules(read_rule_files(CRITERIA)).segments} - set(ONLY_NAMED)
    text = "\n".join(path.read_text("utf-8") for path in sorted(CRITERIA.glob("scenarios/*.txt")))
    expected = [line.partition("#")[0] for line in text.splitlines() if " expect " in line]
    for word in ("in", "out"):
        # A list formed by hand needs a hand.
        names -= {"chosen"} if word == "in" else set()
        shown = {name for line in expected for name in re.findall(rf"\b{word} ([a-z_0-9.]+)", line)}
        assert sorted(names - shown) == [], f"never expected {word}"


@pytest.mark.mechanic("M56")
@pytest.mark.parametrize(("shipped", "letters"), [("29m", 0), ("30m", 0), ("31m", 1)])
def test_an_order_is_added_to_between_agreeing_and_shipping_and_never_after(shipped: str, letters: int) -> None:
    check(
        f"""
        start 2026-01-05T10:00
        0m         ana  order_completed order_id=1 total=60 status=placed
        0m         ana  order_status_changed order_id=1 to=confirmed
        {shipped}  ana  order_status_changed order_id=1 to=shipped
        9d         ana  expect emits upsell_before_shipping {letters}
        """,
        read_rule_files(PACKS / "journeys"),
    )
