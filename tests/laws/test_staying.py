"""Segments that remember: who has entered stays as long as the weaker rule holds, and tiers do not flap."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from rules.compile import compile_rules
from rules.scenarios import World
from tests.laws.histories import ADDRESS, event_of, histories, law
from tests.laws.naive import Naive, Told

DOCUMENT = {
    "traits": {
        "revenue": {"sum": "order.total"},
        "tier": {"tiers": "revenue", "cuts": [20, 60], "labels": ["low", "middle", "high"], "hysteresis": 0.5},
        "plain": {"tiers": "revenue", "cuts": [20, 60], "labels": ["low", "middle", "high"]},
    },
    "segments": {
        "rich": {"when": {"trait": "revenue", "gte": 50}, "stays_while": {"trait": "revenue", "gte": 25}},
        "silent": {
            "when": {"trait": "last_order_at", "older_than": "P7D"},
            "stays_while": {"did_not": "order", "window": {"within": "P1D"}},
        },
    },
}


@pytest.mark.mechanic("M30")
@law(150)
@given(told=histories(about="order"))
def test_who_entered_stays_while_the_weaker_rule_holds_and_tiers_have_a_band(told: list[Told]) -> None:
    book = compile_rules([("rules", json.dumps(DOCUMENT))])
    naive, world = Naive(DOCUMENT, []), World(book, told[0].seen_ms)
    rich, above = False, [False, False]
    for place, one in enumerate(told):
        world.until(one.seen_ms, with_it=False)
        world.happen(event_of(one))
        naive.told = told[: place + 1]
        naive.known = naive._known(one.seen_ms)
        revenue = naive.trait("revenue", one.seen_ms) / 100
        rich = revenue >= 50 or (rich and revenue >= 25)
        above = [revenue >= cut or (held and revenue >= cut / 2) for cut, held in zip((20, 60), above, strict=True)]
        assert ("rich" in world.members(ADDRESS)) == rich
        profile = world.profile(ADDRESS)
        assert book.readers["tier"].read(profile, one.seen_ms)[0] == ("low", "middle", "high")[sum(above)]
        wanted = ("low", "middle", "high")[(revenue >= 20) + (revenue >= 60)]
        assert book.readers["plain"].read(profile, one.seen_ms)[0] == wanted
