"""Two versions of the rules over the same events: who and what is gained and lost, with the reason (D6)."""

from __future__ import annotations

import dataclasses
import io
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from console.difference import is_same
from opportune.backtest import compare, show_difference
from stream.rulebook import PACKS
from tests.console.test_backtest import CDNOW
from tests.integration.test_cdnow import purchases

SILENT = Console(quiet=True)
OLD = PACKS / "shop"


def changed(folder: Path, *swaps: tuple[str, str]) -> Path:
    """The shop pack, changed."""
    for page in OLD.glob("*.yaml"):
        text = page.read_text()
        for was, will_be in swaps:
            text = text.replace(was, will_be)
        (folder / page.name).write_text(text)
    return folder


@pytest.mark.mechanic("D6")
def test_members_gained_and_lost_are_those_that_a_plain_reading_gives_with_the_reason(tmp_path: Path) -> None:
    new = changed(
        tmp_path,
        ("orders_paid, gt: 3}, {trait: revenue, gte: 300", "orders_paid, gt: 4}, {trait: revenue, gte: 200"),
        ("  big_check:", "  one_order: {trait: orders_paid, eq: 1}\n  big_check:"),
    )
    told = compare(dataclasses.replace(CDNOW, rules=new), OLD, {}, SILENT)
    bought = {f"user:{name}": (len(rows), sum(dollars for _, dollars in rows)) for name, rows in purchases().items()}
    was = {name for name, (count, spent) in bought.items() if count > 3 and spent >= 300}
    will_be = {name for name, (count, spent) in bought.items() if count > 4 and spent >= 200}
    vip = told["segments"]["vip"]
    assert (vip["old"], vip["new"]) == (len(was), len(will_be))
    assert (vip["gained"]["count"], vip["lost"]["count"]) == (len(will_be - was), len(was - will_be)) == (71, 12)
    assert Decimal(vip["lost"]["revenue"]) == sum(bought[name][1] for name in was - will_be)
    assert [one["address"] for one in vip["gained"]["examples"]] == sorted(will_be - was)[:3]
    assert vip["lost"]["examples"][0]["because"] == ["orders_paid > 4: 4"]
    assert vip["gained"]["examples"][0]["because"][0].startswith("revenue ≥ 300: ")
    assert (told["segments"]["one_order"]["old"], told["segments"]["one_order"]["new"]) == (None, 1_205)
    assert told["segments"]["buyers"]["gained"] == {"count": 0, "revenue": "0.00", "currency": "USD", "examples": []}
    # Nobody stops being one: what was entered and not left is who is there.
    assert vip["passages"] == {
        "old": {"entered": len(was), "exited": 0}, "new": {"entered": len(will_be), "exited": 0}, "same": False,
    }  # fmt: skip
    assert told["segments"]["buyers"]["passages"]["same"]
    granted = told["triggers"]["vip_granted"]
    assert granted["new"] - granted["old"] == granted["gained"]["count"] - granted["lost"]["count"] == 59


@pytest.mark.mechanic("D6")
def test_a_moment_is_the_same_in_both_versions_by_its_id_though_the_rule_is_written_anew(tmp_path: Path) -> None:
    new = changed(tmp_path, ("says: Three calendar months without an order.", "says: A quarter of silence."))
    told = compare(dataclasses.replace(CDNOW, rules=new, to="1997-06-01"), OLD, {}, SILENT)
    assert told["old"] != told["new"]
    assert told["triggers"]["lapsed_buyer"]["old"] == told["triggers"]["lapsed_buyer"]["new"] > 500
    assert is_same(told)
    later = changed(tmp_path, ("reaches_age: P3M}", "reaches_age: P4M}"))
    lapsed = compare(dataclasses.replace(CDNOW, rules=later, to="1997-06-01"), OLD, {}, SILENT)["triggers"][
        "lapsed_buyer"
    ]
    assert lapsed["gained"]["count"] == lapsed["new"]
    assert lapsed["lost"]["count"] == lapsed["old"]


@pytest.mark.mechanic("D6")
def test_who_enters_later_and_is_there_at_the_end_in_both_versions_is_no_same(tmp_path: Path) -> None:
    """A threshold of silence that is a month longer: in the end the same people are silent, by other ways."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, silence in ((old, "P1M"), (new, "P2M")):
        folder.mkdir()
        (folder / "silent.yaml").write_text(
            f"segments:\n  silent: {{trait: last_order_at, older_than: {silence}}}\n  buyers: {{trait: orders_paid, gte: 1}}\n"
        )
    told = compare(dataclasses.replace(CDNOW, rules=new), old, {}, SILENT)
    silent, buyers = told["segments"]["silent"], told["segments"]["buyers"]
    for side in ("old", "new"):
        passages = silent["passages"][side]
        assert passages["entered"] - passages["exited"] == silent[side]
    assert silent["passages"]["old"]["entered"] > silent["passages"]["new"]["entered"]
    assert (silent["passages"]["same"], buyers["passages"]["same"], is_same(told)) == (False, True, False)
    page = io.StringIO()
    show_difference(told, Console(width=160, file=page))
    shown = page.getvalue()
    assert f"{silent['passages']['new']['entered']:,}, {silent['passages']['new']['exited']:,}" in shown
    assert "buyers" not in shown
    assert "no difference" not in shown
