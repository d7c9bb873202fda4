"""Sketches of the base, and rules that stand on them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.moments import DAY_MS
from profiles.wire import SEGMENT_CHANGES, TRAIT_CHANGES
from rules.compile import compile_rules
from rules.engine import step, swept
from rules.facts import (
    BUCKETS_MAX,
    DIGITS_MAX,
    KEYED_BYTES_MAX,
    KEYS_MAX,
    SCALE,
    Fact,
    Scan,
    Sketch,
    pack_facts,
    read_facts,
)
from rules.scenarios import check
from tests.laws.histories import law
from tests.rules.told import START_MS, Life, rules_of

VALUES = st.lists(st.integers(-(10**15), 10**15) | st.integers(-3000, 3000), min_size=1, max_size=300)
SHARES = st.fractions(0, 1)


def sketch_of(values: list[int]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@law(200)
@given(values=VALUES, share=SHARES)
def test_a_quantile_is_that_of_the_sorted_values_but_for_its_last_digits(values: list[int], share: Fraction) -> None:
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    found = Fraction(sketch_of(values).quantile(share), SCALE)
    assert abs(found) <= abs(exact)
    assert abs(exact) - abs(found) <= abs(exact) * Fraction(1, 2 ** (DIGITS_MAX - 1))
    if abs(exact) < 2**DIGITS_MAX:
        assert found == exact


@law(100)
@given(parts=st.lists(VALUES, min_size=2, max_size=4), data=st.data())
def test_whatever_the_order_of_adding_and_merging_the_sketch_is_the_same(
    parts: list[list[int]], data: st.DataObject
) -> None:
    whole = sketch_of(data.draw(st.permutations([value for part in parts for value in part])))
    merged = Sketch()
    for part in data.draw(st.permutations(parts)):
        merged.merge(sketch_of(part))
    assert merged.packed() == whole.packed() == Sketch.unpacked(whole.packed()).packed()
    assert merged.count() == sum(map(len, parts))


def test_buckets_are_bounded_and_merging_in_any_order_still_gives_the_same() -> None:
    values = [7**place % 10**12 for place in range(20_000)]
    parts = [sketch_of(values[place::3]) for place in range(3)]
    whole = sketch_of(values)
    assert len(whole.counts) <= BUCKETS_MAX
    assert whole.digits < DIGITS_MAX
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        merged = Sketch()
        for place in order:
            merged.merge(parts[place])
        assert merged.packed() == whole.packed()


def test_a_scan_can_be_put_down_and_gone_on_with_and_its_facts_pass_through_bytes() -> None:
    book = rules_of("traits: {tier: {tiers: orders_paid, by: quantile, cuts: [0.5], labels: [low, high]}}")
    profiles = []
    for number in range(9):
        life = Life(book, f"user:{number}")
        for order in range(number):
            life.event("Order Completed", START_MS + order, order_id=f"o{order}", total=5, currency="EUR")
        life.event("Page Viewed", START_MS + 100)
        profiles.append(life.profile)
    whole, first = Scan(book.wanted, START_MS + DAY_MS), Scan(book.wanted, START_MS + DAY_MS)
    for one in profiles:
        whole.look(one)
    for one in profiles[:4]:
        first.look(one)
    again = Scan.unpacked(book.wanted, first.packed())
    for one in profiles[4:]:
        again.look(one)
    facts = again.found(1)
    assert pack_facts(facts) == pack_facts(whole.found(1))
    assert read_facts(pack_facts(facts)) == facts
    assert facts.quantile("trait:orders_paid", Fraction("0.5")) == 4
    assert facts.samples("trait:orders_paid") == 9
    assert facts.mean("trait:orders_paid") == 4
    assert facts.quantile("trait:orders_paid", Fraction("0.6")) is None


def test_a_fact_of_each_product_is_bounded_and_needs_some_samples() -> None:
    turns = iter(range(3))

    def sample(profile: Any, now_ms: int) -> list[tuple[str, int | Fraction]]:
        turn = next(turns)
        often = [(f"often{n}", n) for n in range(6_000)]
        return [*often, *((f"rare{turn}:{n}", 1) for n in range(KEYS_MAX))]

    fact = Fact("gap", sample, (Fraction(1, 2),), True)
    life = Life(rules_of("segments: {a: {did: page_viewed}}"))
    life.event("Page Viewed", START_MS)
    scan = Scan([fact], START_MS)
    for _ in range(3):
        scan.look(life.profile)
    assert len(scan.sketches["gap"]) <= KEYS_MAX
    found = scan.found(1).values["gap"]
    assert len(found) == 5_000
    assert all(name.startswith("often") and said["n"] == 3 for name, said in found.items())
    assert not Scan([fact], START_MS).found(1).values["gap"]


@pytest.mark.invariant("R26")
def test_facts_of_long_names_are_no_more_than_a_record_can_hold() -> None:
    def named(name: str) -> Fact:
        return Fact(
            name,
            lambda profile, now_ms: [(f"{n:05}" + "x" * 200, n) for n in range(6_000)],
            (Fraction(1, 4), Fraction(1, 2)),
            True,
        )

    life = Life(rules_of("segments: {a: {did: page_viewed}}"))
    life.event("Page Viewed", START_MS)
    scan = Scan([named("a"), named("b")], START_MS)
    for _ in range(3):
        scan.look(life.profile)
    facts = scan.found(1)
    assert 1_000 < len(facts.values["a"]) < 5_000
    assert len(msgpack.packb(pack_facts(facts))) < KEYED_BYTES_MAX


@pytest.mark.mechanic("M26")
@pytest.mark.mechanic("M30")
def test_bands_of_the_usual_check_are_the_bases_own_and_do_not_flap() -> None:
    done = check(
        """
        trait avg_check = {avg: order.total}
        trait check_tier = {tiers: avg_check, by: quantile, cuts: [0.33, 0.66], labels: [low, middle, high], hysteresis: 0.05, publish: true}
        segment upsell = {trait: check_tier, eq: high}
        trigger dearer = {on: {segment: upsell}, consent: none, steps: [{emit: offer}]}
        0d  ana  order_completed order_id=1 total=100
        0d  bob  order_completed order_id=2 total=60
        0d  cat  order_completed order_id=3 total=30
        0d  ana  expect out upsell, trait check_tier none
        1d  base facts
        1d  ana  expect in upsell, entered upsell 1d, emits dearer 1, trait_changes check_tier 1
        1d  bob  expect trait check_tier middle, out upsell
        1d  cat  expect trait check_tier low
        2d  bob  order_completed order_id=4 total=62
        2d  bob  expect trait check_tier high, in upsell
        # The mean falls to the cut of 60 itself, which is not 5 % below it.
        3d  bob  order_completed order_id=5 total=58
        3d  bob  expect trait check_tier high
        4d  bob  order_completed order_id=6 total=40
        4d  bob  expect trait check_tier middle, out upsell
        5d  base facts
        5d  bob  expect trait check_tier middle
        """
    )
    told = [
        (one.value["trait"], one.value["cause"]) for one in done.world.published if one.record.topic == TRAIT_CHANGES
    ]
    assert ("check_tier", {"event": "facts", "message_id": "facts:1"}) in told


@pytest.mark.mechanic("M13")
def test_scores_by_the_bases_quantiles_age_between_two_facts() -> None:
    check(
        """
        trait rfm = {rfm: {by: quantile, scale: 2}}
        segment fresh = {trait: rfm.r, eq: 2}
        0d   ana  order_completed order_id=1 total=10
        6d   bob  order_completed order_id=2 total=10
        8d   cat  order_completed order_id=3 total=10
        10d  base facts
        10d  cat  expect in fresh, trait rfm.cell 211
        10d  bob  expect out fresh, trait rfm.r 1
        11d  cat  expect in fresh
        12d  cat  expect out fresh
        13d  bob  order_completed order_id=4 total=5
        13d  bob  expect in fresh, trait rfm.cell 222
        """
    )


@pytest.mark.invariant("R19")
@law(60)
@given(
    totals=st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(1, 40)), min_size=1, max_size=40),
    share=st.sampled_from(["0.2", "0.5", "0.9"]),
    at=st.integers(0, 40),
)
def test_who_is_above_a_quantile_is_who_is_above_it_among_the_sorted_values(
    totals: list[tuple[str, int]], share: str, at: int
) -> None:
    lines = [f"{n}h {who} order_completed order_id=o{n} total={total}" for n, (who, total) in enumerate(totals)]
    lines.insert(at, f"{min(at, len(lines))}h base facts")
    done = check(
        f"trait spent = {{sum: order.total}}\nsegment top = {{trait: spent, quantile: {{gt: {share}}}}}\n"
        + "\n".join(lines)
    )
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    for n, (who, total) in enumerate(totals):
        after[who] = after.get(who, 0) + total * 100
        if n < at:
            before[who] = after[who]
    for who, spent in after.items():
        wanted = False
        if before:
            ranked = sorted(before.values())
            cut = Sketch()
            cut.add(ranked[max(0, math.ceil(Fraction(share) * len(ranked)) - 1)])
            wanted = spent * SCALE > cut.quantile(Fraction(1))
        assert done.world.members(f"user:{who}") == (["top"] if wanted else []), who


@pytest.mark.invariant("R13")
def test_when_a_profile_meets_new_facts_does_not_change_what_follows() -> None:
    told = {how: met(how) for how in ("at once", "with the next event", "behind a gate")}
    assert told["at once"] == told["with the next event"] == told["behind a gate"]
    words = [(topic, orjson.loads(value).get("segment")) for topic, value in told["at once"]]
    assert words == [
        (SEGMENT_CHANGES, "silent"), (SEGMENT_CHANGES, "tier.from_high"), (SEGMENT_CHANGES, "top"), (TRAIT_CHANGES, None),
    ]  # fmt: skip


def met(how: str) -> list[tuple[str, bytes]]:
    """What is told of somebody who meets new facts a second after an alarm of his, in that way."""
    text = "traits: {tier: {tiers: orders_paid, by: quantile, cuts: [0.5], labels: [low, high], publish: true}}\n"
    text += "segments: {top: {trait: tier, eq: high}, silent: {trait: last_order_at, older_than: P1D}}"
    book = rules_of(text)
    life = Life(book)
    life.event("Order Completed", START_MS, order_id="o1", total=5, currency="EUR")
    scan = Scan(book.wanted, START_MS)
    for orders in (0, 0, 1):
        other = Life(book, f"user:{orders}")
        other.event("Page Viewed", START_MS)
        for number in range(orders):
            other.event("Order Completed", START_MS, order_id=f"x{number}", total=5, currency="EUR")
        scan.look(other.profile)
    life.rulebook = book.with_facts((scan.found(1),))
    met_ms = START_MS + DAY_MS + 1000
    sweep = swept(life.profile.address, 1, met_ms)
    if how == "behind a gate":
        for _ in range(2):
            assert step(life.profile, sweep, life.rulebook, gate_ms=met_ms - 2000).outcome == "held"
            assert len(life.profile.held) == 1
        life.wait_until(met_ms)
    elif how == "at once":
        life.wait_until(met_ms)
        life._took(step(life.profile, sweep, life.rulebook))
    else:
        life._took(step(life.profile, sweep, life.rulebook))
    life.event("Page Viewed", met_ms + 5000)
    assert life.profile.swept == 1
    return [(one.topic, one.value) for one in life.records if one.topic in (SEGMENT_CHANGES, TRAIT_CHANGES)]


def test_somebody_new_begins_with_the_newest_facts_and_meets_none_again() -> None:
    book = rules_of("traits: {tier: {tiers: orders_paid, by: quantile, cuts: [0.5], labels: [low, high]}}")
    life = Life(book.with_facts((Scan(book.wanted, 0).found(3),)))
    life.event("Page Viewed", START_MS)
    assert life.profile.swept == 3
    assert step(life.profile, swept("user:ana", 3, START_MS), life.rulebook).outcome == "duplicate"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("{trait: orders_paid, quantile: {gt: 1.5}}", "a share from 0 to less than 1 wanted, got 1.5"),
        ("{trait: orders_paid, quantile: {gte: 0.5}}", "unknown key 'gte'"),
        ("{trait: orders_paid, quantile: {gt: 0.5, lte: 0.9}}", "one of gt and lte wanted"),
        ("{trait: last_order_at, quantile: {gt: 0.5}}", "a trait that is a number wanted, got a time"),
    ],
)
def test_a_quantile_that_is_none_is_told(rule: str, wanted: str) -> None:
    with pytest.raises(Exception, match=wanted):
        compile_rules([("rules", f"segments: {{a: {rule}}}")])
