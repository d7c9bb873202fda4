"""The lapsed buyer in all five definitions of the sources (SPEC 1.5), and by the probability of being alive."""

from __future__ import annotations

import pytest

from profiles.errors import BadDocument
from rules.compile import compile_rules
from rules.scenarios import check

RULES = """
trait mean_gap = {mean_gap: order}
trait alive = {p_alive: order, model: {r: 0.243, alpha: 4.414, a: 0.793, b: 2.426, unit: P7D}}
segment three_months = {lapsed: three_months}
segment half_year = {lapsed: half_year}
segment year = {lapsed: year}
segment own_rhythm = {lapsed: own_rhythm}
segment never_bought = {lapsed: never_bought}
segment unlikely = {lapsed: {alive_below: 50, of: alive}}
"""


@pytest.mark.mechanic("M24")
@pytest.mark.mechanic("M36")
def test_one_rule_has_all_five_definitions_each_at_its_own_instant() -> None:
    check(
        RULES
        + """
        0d    eve  registered
        0d    ana  registered
        1d    ana  order_completed order_id=1 total=10
        11d   ana  order_completed order_id=2 total=10
        11d   ana  expect out never_bought, out own_rhythm, out three_months, out unlikely
        30d   eve  expect out never_bought
        31d   eve  expect in never_bought, out three_months, out own_rhythm
        40d   ana  expect out own_rhythm
        41d   ana  expect in own_rhythm, out three_months
        101d  ana  expect in three_months, out half_year
        192d  ana  expect in half_year, out year
        375d  ana  expect out year
        376d  ana  expect in year, in unlikely
        377d  ana  order_completed order_id=3 total=10
        377d  ana  expect out three_months, out half_year, out year, out own_rhythm, out never_bought, out unlikely
        """
    )


def test_what_is_no_definition_is_refused() -> None:
    text = """\
traits: {gap: {mean_gap: order}, revenue: {sum: order.total}}
segments:
  a: {lapsed: three_month}
  b: {lapsed: {times: 3}}
  c: {lapsed: {times: 3, of: revenue, else: P3M}}
  d: {lapsed: {}}
  e: {lapsed: {never_bought: soon}}
"""
    with pytest.raises(BadDocument) as told:
        compile_rules([("l.yaml", text)])
    said = str(told.value)
    for line in (3, 4, 5, 6, 7):
        assert f"l.yaml:{line}:" in said, said
