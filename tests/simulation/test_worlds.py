"""The engine in faulty worlds: every promise kept, every crash without a trace, and the same world from the same seed.

``OPPORTUNE_TEST_SEEDS`` makes it more worlds; ``opportune simulate`` runs thousands, with a progress bar.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same order every time
from typing import Any

import pytest
from prometheus_client import REGISTRY

from profiles.codec import decode
from profiles.ids import SHARDS
from profiles.moments import MINUTE_MS, parse_instant
from profiles.state import RING_MAX
from stream.stepping import LARGE_BYTES
from tests.simulation.crashes import SCENARIOS, crashed, places, tell
from tests.simulation.loop import Life, virtual_loop, within
from tests.simulation.net import FAIR
from tests.simulation.shop import START_MS, Telling
from tests.simulation.simulate import lived, many, shrunk
from tests.simulation.world import SHARDS_DRAWN, Act, Plan, live, plan_of

SEEDS = int(os.environ.get("OPPORTUNE_TEST_SEEDS", "300"))
FOUND = (119, 285, 396, 583, 844, 890, 1017, 3053, 3215, 20078, 30031, 30477, 31207, 100107)
"""Worlds that broke a promise once, before fewer shards were drawn and fetches lay about."""
FOUND_SINCE = (1203, 1459, 3499, 5739, 9017, 19100)
"""And since then."""
ROOT = Path(__file__).parents[2]
PLACES = 20
"""Of the places of a history where a worker can die, so many, evenly; by command all of them are tried."""


@pytest.mark.slow
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R3")
@pytest.mark.invariant("R4")
@pytest.mark.invariant("R6")
@pytest.mark.invariant("R7")
@pytest.mark.invariant("R8")
@pytest.mark.invariant("R9")
@pytest.mark.invariant("R11")
@pytest.mark.invariant("R12")
@pytest.mark.invariant("R13")
@pytest.mark.invariant("R15")
@pytest.mark.invariant("R16")
@pytest.mark.invariant("R18")
@pytest.mark.invariant("R19")
@pytest.mark.invariant("R21")
@pytest.mark.invariant("R22")
@pytest.mark.invariant("R24")
@pytest.mark.invariant("R27")
def test_no_world_breaks_a_promise() -> None:
    assert [f"seed {one.seed}: {one.broken}" for one in many(range(SEEDS)) if one.broken] == []


@pytest.mark.parametrize("seed", FOUND)
def test_a_world_that_once_broke_a_promise_keeps_it(seed: int) -> None:
    assert lived(replace(plan_of(seed), shards=SHARDS, hands_late=0.0)).broken == ""


@pytest.mark.parametrize("seed", FOUND_SINCE)
def test_a_world_that_broke_a_promise_since_keeps_it(seed: int) -> None:
    assert lived(plan_of(seed)).broken == ""


@pytest.mark.slow
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R12")
@pytest.mark.invariant("R13")
@pytest.mark.mechanic("D8")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_any_await_leaves_what_no_crash_leaves(name: str) -> None:
    calm = live(SCENARIOS[name])
    assert sum(map(len, calm.ids.values())) > 3  # It would prove nothing of a history in which nothing goes out.
    steps = places(calm)
    assert [what for what in (crashed(name, calm, step) for step in steps[:: 1 + len(steps) // PLACES]) if what] == []


@pytest.mark.invariant("R16")
@pytest.mark.invariant("R17")
@pytest.mark.mechanic("D1")
def test_after_ten_hours_of_outage_each_letter_bears_its_instant_and_what_an_order_answered_is_not_sent() -> None:
    def added(at_ms: int, address: str) -> Telling:
        return tell(at_ms, "Product Added", address, product_id="p-1", price=5, currency="USD")

    def ordered(at_ms: int, address: str) -> Telling:
        return tell(at_ms, "Order Completed", address, order_id=f"o-{at_ms}", total=30, currency="USD")

    told = [
        added(5_000, "user:p-1"),  # Left before the outage; falls due in it.
        added(6_000, "user:p-2"),
        ordered(20_000, "user:p-2"),  # An order that nobody reads for ten hours answers the cart.
        added(3_600_000, "user:p-3"),
        added(7_200_000, "user:p-4"),
        ordered(7_210_000, "user:p-4"),
    ]
    plan = Plan(3, 2, 2, FAIR, tuple(told), (Act(10_000, "outage", amount=36_000),))
    # The witness expects each letter at its very instant, and no other.
    decided = live(plan).decided
    assert decided["cart", "emitted"] == 2
    assert decided["cart", "cancelled"] == 2
    assert decided["lapse", "emitted"] == 2
    # Visits that ended hours ago are no news any more; the lapse of an hour ago is.
    assert decided["browse", "expired"] == 4
    assert ("browse", "emitted") not in decided


@pytest.mark.invariant("R16")
@pytest.mark.invariant("R17")
@pytest.mark.mechanic("M46")
@pytest.mark.mechanic("M59")
def test_ten_hours_of_outage_end_without_a_false_cart_letter_without_a_burst_and_what_is_stale_is_counted() -> None:
    down_ms, up_ms, people = 10_000, 36_010_000, 90
    told, bought = list[Telling](), set[str]()
    for number in range(people):
        address = f"user:c-{number}"
        # Some left their carts just before, the others all through the outage, whose last minutes' letters are hardly late.
        added_ms = 6_000 + 10 * number if number < 10 else down_ms + (up_ms - down_ms) * (number - 10) // (people - 10)
        told.append(tell(added_ms, "Product Added", address, product_id="p-1", price=5, currency="USD"))
        if number % 3 == 0:
            bought.add(address)
            told.append(
                tell(added_ms + 12_000, "Order Completed", address, order_id=f"o-{number}", total=30, currency="USD")
            )
    told.sort(key=lambda one: one.told_ms)
    books = expired_in_the_books()
    found = live(Plan(5, 2, 2, FAIR, tuple(told), (Act(down_ms, "outage", amount=(up_ms - down_ms) / 1000),)))
    carts = [one for one in found.letters if one["trigger"] == "cart"]
    assert {one["profile"]["address"] for one in carts} == {f"user:c-{n}" for n in range(people)} - bought
    assert len(carts) == people - len(bought) == found.decided["cart", "emitted"]
    assert found.decided["cart", "cancelled"] == len(bought)
    # Each bears its own instant; those that are late take turns over the pace of ten minutes, and none is stale then.
    starts = [parse_instant(one["send"]["not_before"]) - START_MS for one in carts if is_late(one)]
    assert len(starts) > 40
    assert up_ms <= min(starts)
    assert max(starts) <= up_ms + 20 * MINUTE_MS
    assert max(Counter(one // MINUTE_MS for one in starts).values()) <= len(starts) // 4
    assert all(parse_instant(one["send"]["not_before"]) < parse_instant(one["send"]["not_after"]) for one in carts)
    # What an hour makes stale is not sent, and stands in the decisions and in the books as what it is.
    stale = found.decided["browse", "expired"]
    assert stale > 60
    fresh = [parse_instant(one["at"]) - START_MS for one in found.letters if one["trigger"] == "browse"]
    assert min(fresh) >= up_ms - 60 * MINUTE_MS
    assert (
        expired_in_the_books() - books
        == stale
        == sum(count for (_, reason), count in found.decided.items() if reason == "expired")
    )


@pytest.mark.invariant("R26")
@pytest.mark.invariant("R27")
def test_a_robot_among_customers_stays_within_its_bounds_and_holds_nobody_up_whatever_befalls_the_workers() -> None:
    def leaves_a_cart(number: int) -> Telling:
        return tell(
            5_001 + 5_000 * number, "Product Added", f"user:p-{number}", product_id="p-1", price=5, currency="USD"
        )

    # Promotions, of which no rule asks: the witness knows the number of pages that people look at.
    robot = [tell(1_000 + 50 * number, "Promotion Viewed", "user:robot", promotion_id="p") for number in range(1_000)]
    told = sorted([*robot, *map(leaves_a_cart, range(6))], key=lambda one: one.told_ms)
    acts = (
        Act(12_000, "kill", 0),
        Act(25_000, "lose writes", amount=20),
        Act(33_000, "rebalance"),
        Act(41_000, "kill", 1),
    )
    before = events_by_outcome()
    done = live(Plan(7, 2, 2, FAIR, tuple(told), acts, shards=8))
    taken = events_by_outcome() - before
    profile = decode("user:robot", done.profiles["user:robot"])
    assert len(profile.ring) == RING_MAX
    assert max(map(len, done.profiles.values())) < LARGE_BYTES
    # Each minute has room for a ring of them; what was forgotten was told again.
    assert taken["throttled"] >= len(robot) - RING_MAX
    assert taken["applied"] + taken["throttled"] + taken["duplicate"] >= len(told)
    assert taken["dead"] == 0
    assert done.decided["cart", "emitted"] == 6  # Each at its instant: the witness looks.


def events_by_outcome() -> Counter[str]:
    """What the metric of events counts."""
    counts = Counter[str]()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "opportune_events_total":
                counts[sample.labels["outcome"]] += int(sample.value)
    return counts


def is_late(letter: dict[str, Any]) -> bool:
    return bool(letter["send"]["not_before"] != letter["at"])


def expired_in_the_books() -> float:
    """What the metric of decisions counts as stale."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "opportune_decisions_total" and sample.labels["reason"] == "expired"
    )


@pytest.mark.invariant("R30")
def test_a_seed_is_one_world_in_any_process() -> None:
    script = "from tests.simulation.world import live, plan_of; print(live(plan_of(11)).trace)"
    traces = set()
    for hash_seed in ("0", "1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        traces.add(done.stdout)
    assert traces == {f"{live(plan_of(11)).trace}\n"}
    assert live(plan_of(12)).trace not in traces


def test_into_however_many_shards_an_installation_is_divided_the_same_comes_of_a_story() -> None:
    plan = SCENARIOS["a merge during a cart"]
    worlds = {shards: live(replace(plan, shards=shards)) for shards in SHARDS_DRAWN}
    assert {one.shards for one in map(plan_of, range(40))} == set(SHARDS_DRAWN)
    assert len({one.trace for one in worlds.values()}) == len(worlds)  # Else they were not divided at all.
    whole = worlds[SHARDS]
    assert [one.ids for one in worlds.values()] == [whole.ids] * len(worlds)
    assert [one.profiles for one in worlds.values()] == [whole.profiles] * len(worlds)
    # A module that is read while a world lives has that world's number for good.
    script = (
        "import sys; from tests.simulation.world import live, plan_of; live(plan_of(1)); assert plan_of(1).shards < 256; "
        "print({vars(one)['SHARDS'] for one in sys.modules.values() if 'SHARDS' in vars(one)})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{ {SHARDS} }\n"


def test_a_history_that_breaks_a_promise_is_made_small_enough_to_read() -> None:
    fault = "no ring of messages"
    seed = next(seed for seed in count() if lived(plan_of(seed), fault).broken.startswith("R2:"))
    plan = plan_of(seed)
    smaller = shrunk(plan, fault)
    assert lived(smaller, fault).broken.startswith("R2:")
    assert len(smaller.told) <= 2  # A message, and the same message.
    assert smaller.acts == ()
    assert len(str(smaller).splitlines()) == 1 + len(smaller.told)


# --- the loop ------------------------------------------------------------------------------------------------------


def test_the_loop_runs_what_is_ready_in_an_order_of_the_seeds_and_hours_in_no_time() -> None:
    def order(seed: int) -> list[int]:
        loop, seen = virtual_loop(Random(seed)), list[int]()

        async def main() -> None:

            async with asyncio.TaskGroup() as tasks:
                for number in range(5):
                    tasks.create_task(note(number))
            await asyncio.sleep(7200)

        async def note(number: int) -> None:
            seen.append(number)

        loop.run(main())
        assert loop.time() == 7200
        loop.close()
        return seen

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(20)}) > 5
    assert all(sorted(order(seed)) == list(range(5)) for seed in range(5))


def test_a_life_that_ends_runs_nothing_more_and_a_frozen_one_goes_on_later() -> None:

    said: list[str] = []
    loop = virtual_loop(Random(1))
    dead, frozen = Life("dead"), Life("frozen")

    async def talk(name: str) -> None:
        try:
            for number in islice(count(), 6):
                said.append(f"{name} {number}")
                await asyncio.sleep(1)
        finally:
            said.append(f"{name} ends")

    async def main() -> None:
        for life in (dead, frozen):
            loop.create_task(talk(life.name), context=within(life))
        await asyncio.sleep(1.5)
        loop.end(dead)
        loop.freeze(frozen)
        await asyncio.sleep(10)
        assert said == [*said[:4]]
        assert {"dead 1", "frozen 1"} == set(said[2:4])
        loop.thaw(frozen)
        await asyncio.sleep(10)

    loop.run(main())
    assert said[4:] == [*(f"frozen {number}" for number in range(2, 6)), "frozen ends"]
    loop.close()
