"""R19 for what rules read of the whole base: tiers and scores by live quantiles, at every instant, equal what the slow way finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from profiles.moments import iso
from rules.compile import compile_rules
from rules.scenarios import World
from tests.laws.histories import documents, event_of, histories, law, rules
from tests.laws.naive import DAY_MS, Told
from tests.laws.naive_base import Base, NaiveOfBase

AFTER_MS = 100 * DAY_MS
ALARMS_MAX = 40
SHARES = (0, 0.25, 0.5, 0.66, 0.9)
RANKED = ("orders_paid", "revenue", "gap", "age", "seen_products", "opens", "purchases.recency_days")


@st.composite
def ranked(draw: st.DrawFn) -> dict[str, Any]:
    """A rule that looks at the base."""
    kind = draw(st.sampled_from(["quantile", "quantile", "tier", "ranks", "cell"]))
    if kind == "quantile":
        asked = {draw(st.sampled_from(["gt", "lte"])): draw(st.sampled_from(SHARES))}
        more = draw(st.sampled_from([{}, {}, {"less": 0.2}]))
        return {"trait": draw(st.sampled_from(RANKED)), "quantile": {**asked, **more}}
    if kind == "tier":
        return {"trait": "tier", **draw(st.sampled_from([{"eq": "high"}, {"eq": "low"}, {"in": ["low", "middle"]}, {"ne": "low"}, {"missing": True}]))}  # fmt: skip
    if kind == "cell":
        return {"trait": "ranks.cell", "gte": draw(st.sampled_from([111, 122, 212, 222]))}
    return {"trait": f"ranks.{draw(st.sampled_from('rfm'))}", "gte": draw(st.integers(1, 3))}


@st.composite
def of_the_base(draw: st.DrawFn) -> dict[str, Any]:
    """A rule file with such rules in its trees."""
    document = draw(documents())
    labels = draw(st.sampled_from([["low", "high"], ["low", "middle", "high"]]))
    cuts = [0.5] if len(labels) == 2 else [0.33, 0.66]
    tier = {"tiers": draw(st.sampled_from(RANKED)), "by": "quantile", "cuts": cuts, "labels": labels}
    band = draw(st.sampled_from([{}, {"hysteresis": 0.1}, {"hysteresis": 0.5}]))
    scores: dict[str, Any] = {"by": "quantile", "scale": draw(st.sampled_from([2, 3])), "window": {"within": draw(st.sampled_from(["P28D", "P3M"]))}}  # fmt: skip
    named = {
        "recency": "last_order_at",
        "frequency": "orders_paid",
        "monetary": draw(st.sampled_from(["revenue", "profit"])),
    }
    if draw(st.booleans()):
        scores = {**named, "window": scores["window"]["within"], "scale": scores["scale"]}
    joined = st.one_of(
        ranked(),
        st.builds(lambda one, other: {"all": [one, other]}, ranked(), rules()),
        st.builds(lambda one, other: {"any": [{"not": one}, other]}, ranked(), st.one_of(ranked(), rules())),
    )
    segments = {f"q{n}": draw(joined) for n in range(draw(st.integers(1, 3)))}
    reference = {"of_q": {"in_segment": "q0"}} if draw(st.booleans()) else {}
    traits = {**document["traits"], "tier": {**tier, **band}, "ranks": {"rfm": scores}}
    return {**document, "traits": traits, "segments": {**segments, **reference}}


Happening = tuple[int, int, Told | None]
"""When, to whom, and what; of the base nothing, for then it is looked over."""


@st.composite
def bases(draw: st.DrawFn) -> list[Happening]:
    """Some customers, all of whose messages are told in one order of time, and now and then the base is looked over."""
    people = draw(st.lists(histories(most=8), min_size=2, max_size=5))
    begun_ms = people[0][0].seen_ms
    told: list[Happening] = []
    for who, messages in enumerate(people):
        moved_ms = begun_ms - messages[0].seen_ms
        told += [(one.seen_ms + moved_ms, who, one._replace(seen_ms=one.seen_ms + moved_ms, at_ms=one.at_ms + moved_ms)) for one in messages]  # fmt: skip
    looked = draw(st.lists(st.sampled_from([0, 1, DAY_MS, 30 * DAY_MS]), min_size=1, max_size=3))
    for after_ms in looked:
        told.append((draw(st.sampled_from(told))[0] + after_ms, -1, None))
    return sorted(told, key=lambda one: one[:2])


@pytest.mark.invariant("R19")
@pytest.mark.mechanic("M30")
@law(20)
@given(document=of_the_base(), told=bases())
def test_memberships_that_stand_on_the_base_equal_a_full_recomputation(
    document: dict[str, Any], told: list[Happening]
) -> None:
    note(json.dumps({"segments": document["segments"], "tier": document["traits"]["tier"]}))
    for at_ms, who, one in told:
        note(f"{iso(at_ms)} {f'{who} {one.type} {one.props} {one.traits} at {iso(one.at_ms)}' if one else 'facts'}")
    book = compile_rules([("rules", json.dumps(document))])
    world = World(book, told[0][0])
    people = {who: NaiveOfBase(document, [], book.zone_name, f"user:{who}") for _, who, _ in told if who >= 0}

    def look(now_ms: int) -> None:
        for who, naive in people.items():
            if naive.told:
                found, wanted = world.members(f"user:{who}"), naive.segments(now_ms)
                assert found == wanted, f"{who} at {iso(now_ms)}: {wanted} wanted, got {found}"

    def alarms(until_ms: int, most: int) -> None:
        for _ in range(most):
            due = [ms for one in world.profiles.values() if (ms := one.alarm_ms()) is not None]
            if not due or min(due) >= until_ms:
                return
            due_ms = max(min(due), world.now_ms)
            world.until(due_ms, with_it=True)
            look(due_ms)

    for place, (at_ms, who, one) in enumerate(told):
        alarms(at_ms, 1000)
        world.until(at_ms, with_it=one is None)
        if one is not None:
            world.happen(event_of(one, f"user:{who}"))
            people[who].told.append(one)
            people[who].segments(at_ms)
        elif world.profiles:
            base: Base = {}
            for naive in people.values():
                for path, value in naive.samples(at_ms).items() if naive.told else ():
                    base.setdefault(path, []).append(value)
            world.learn()
            for naive in people.values():
                naive.base = base
                if naive.told:
                    naive.segments(at_ms)
        if place + 1 == len(told) or told[place + 1][0] > at_ms:
            world.until(at_ms, with_it=True)
            look(at_ms)
    alarms(told[-1][0] + AFTER_MS, ALARMS_MAX)
