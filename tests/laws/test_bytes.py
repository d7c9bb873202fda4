"""R13: one occasion, one id, the same bytes; in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given

from profiles.codec import encode
from profiles.ids import trigger_id
from profiles.wire import pack_record
from rules.compile import compile_rules
from rules.scenarios import World, check
from tests.laws.histories import ADDRESS, event_of, histories, law
from tests.laws.naive import Told
from tests.laws.replayed import digest, live
from tests.scenarios.pack import SHOP

ROOT = Path(__file__).parents[2]


@pytest.mark.invariant("R13")
@pytest.mark.invariant("R30")
def test_a_life_lived_again_gives_the_same_bytes_under_any_hash_seed() -> None:
    here = digest(live())
    assert digest(live()) == here
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.laws.replayed"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "4242")
    ]
    assert [process.communicate(timeout=180)[0].strip() for process in processes] == [here, here]


@pytest.mark.invariant("R13")
@law(40)
@given(told=histories(carts=True))
def test_no_two_records_share_an_id_and_a_replay_gives_the_same_records(told: list[Told]) -> None:
    book = compile_rules(SHOP)
    runs: list[list[bytes]] = []
    for _ in range(2):
        world = World(book, told[0].seen_ms)
        for one in told:
            world.until(one.seen_ms, with_it=False)
            world.happen(event_of(one))
        world.until(told[-1].seen_ms + 200 * 86_400_000, with_it=True)
        runs.append([pack_record(one.record) for one in world.published] + [encode(world.profile(ADDRESS))])
        ids: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        for out in world.published:
            name = next(key for key in ("trigger_id", "decision_id", "change_id") if key in out.value)
            ids[name, out.value[name]].append(out.record.value)
        assert not [values for values in ids.values() if len(values) > 1]
    assert runs[0] == runs[1]


@pytest.mark.invariant("R13")
def test_a_trigger_id_is_of_the_occasion_and_not_of_the_rules_or_the_profile() -> None:
    def sent(rules: str, before: str = "") -> dict[str, object]:
        done = check(f"{rules}\n{before}\n1d ana product_added product=mug price=1 message=this")
        return done.sent("t")[0]

    first = sent("trigger t = {on: {event: product_added}, steps: [{emit: a}]}")
    other = sent(
        "trigger t = {says: anew, on: {event: product_added}, steps: [{emit: b}]}\nsegment s = {did: page_viewed}",
        "0d ana page_viewed",
    )
    assert first["version"] != other["version"]
    assert first["trigger_id"] == other["trigger_id"] == trigger_id("t", "1", "user:ana", "this")


@pytest.mark.invariant("R13")
def test_trigger_ids_are_what_they_have_always_been() -> None:
    # A change here makes every installation send its pending letters again.
    assert trigger_id("abandoned_cart", "1", "user:42", "m-1") == "e6a223da4576fe4ad684b9b0b7abf7c9"
    assert trigger_id("lapsed_buyer", "1", "email:~abc", "age:1767225600000") == "600bbeb88701fcd97df303d9dbb50b6c"
