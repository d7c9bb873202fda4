"""The stage of a customer's life is a trait, with the instant at which it began (SPEC M70)."""

from __future__ import annotations

from typing import Final

import pytest

from profiles.errors import BadDocument
from rules.compile import compile_rules
from rules.scenarios import check

RULES: Final = """
segments:
  lifecycle:
    kind: stages
    stages:
      - {name: buyer, when: {trait: last_order_at, newer_than: P30D}}
      - {name: looker, when: {did: product_viewed, window: {within: P7D}}}
      - {name: churn, when: otherwise}
  fresh: {trait: lifecycle.entered_at, newer_than: P3D}
  not_lost: {trait: lifecycle, in: [buyer, looker]}
triggers:
  convince:
    priority: 5
    on: {segment: lifecycle.looker, change: entered}
    steps: [{emit: convince}]
  strengthen:
    priority: 20
    on: {segment: lifecycle.buyer, change: entered}
    steps: [{wait: P1D}, {branch: [{if: {trait: lifecycle, eq: buyer}, then: [{emit: how_to_use}]}]}]
projections:
  hint: {traits: [lifecycle, lifecycle.entered_at], segments: []}
"""


@pytest.mark.mechanic("M70", "M35")
def test_a_stage_is_a_trait_and_so_is_since_when() -> None:
    done = check(
        """
        0d   ana  page_viewed
        0d   ana  expect trait lifecycle churn, out not_lost, in fresh
        1d   ana  product_viewed
        1d   ana  expect trait lifecycle looker, trait lifecycle.entered_at 2026-01-02T00:00:00.000Z, in not_lost
        3d   ana  expect in fresh
        4d   ana  expect out fresh
        5d   ana  order_completed order_id=1 total=10
        5d   ana  expect trait lifecycle buyer, in fresh, emits convince 1
        6d   ana  expect emits strengthen/how_to_use 1
        7d   ana  order_completed order_id=2 total=10
        8d   ana  expect trait lifecycle.entered_at 2026-01-06T00:00:00.000Z
        37d  ana  expect trait lifecycle churn, trait lifecycle.entered_at 2026-02-07T00:00:00.000Z, out not_lost, in fresh
        40d  ana  expect out fresh
        """,
        [("rules.yaml", RULES)],
    )
    assert [one for one, _ in done.changes("not_lost")] == ["entered", "exited"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            "triggers: {it: {on: {trait: lifecycle.entered_at, reaches_age: P3D}, steps: [{emit: x}]}}",
            "trait: a stage is entered, left and stayed in as a segment, wanted `segment`, got lifecycle.entered_at",
        ),
        (
            "triggers: {it: {on: {event: page_viewed}, steps: [{set: {lifecycle: churn}}]}}",
            "a trait that is said of people wanted, got 'lifecycle', which is worked out",
        ),
    ],
)
def test_a_stage_is_neither_timed_nor_stated(more: str, told: str) -> None:
    with pytest.raises(BadDocument) as bad:
        compile_rules([("rules.yaml", RULES), ("more.yaml", more)])
    assert told in [one.message for one in bad.value.mistakes]


def test_stages_that_ask_for_their_own_stage_are_a_ring() -> None:
    rules = """
    segments:
      life:
        kind: stages
        stages: [{name: a, when: {trait: life, eq: b}}, {name: b, when: otherwise}]
    """
    with pytest.raises(BadDocument) as bad:
        compile_rules([("rules.yaml", rules)])
    assert any("ring" in one.message for one in bad.value.mistakes)
