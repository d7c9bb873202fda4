"""R15: timers are a function of profile and rules, never before due, and when they may fire changes no byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.codec import decode, encode
from profiles.moments import FOREVER
from profiles.state import Profile
from profiles.wire import Wake, pack_record
from rules.compile import compile_rules
from rules.engine import step
from rules.outcome import HELD
from rules.rulebook import Rulebook
from rules.scenarios import World
from tests.laws.histories import ADDRESS, documents, event_of, histories, law
from tests.laws.naive import DAY_MS, Told
from tests.scenarios.pack import SHOP

BOOK = compile_rules(SHOP)
END_MS = 30 * DAY_MS


class Shell:
    """One profile behind a gate: what a worker does with it, wakes as late as the gate allows.

    Attributes:
        wait: (input number) -> how far the gate lags behind the input's time, ms; ``None``: it is open.
    """

    def __init__(self, book: Rulebook) -> None:
        self.book = book
        self.profile = Profile(ADDRESS)
        self.records: list[bytes] = []
        self.held = 0

    def take(self, given_: Any, gate_ms: int) -> None:
        """One input, through the profile's bytes."""
        done = step(self.profile, given_, self.book, gate_ms=gate_ms)
        self.records.extend(pack_record(record) for record in done.records)
        self.held += done.outcome == HELD
        self.profile = decode(ADDRESS, encode(self.profile))

    def wakes(self, gate_ms: int, until_ms: int) -> None:
        """Every alarm that the gate lets pass, up to a time."""
        while (due_ms := self.profile.alarm_ms()) is not None and due_ms < min(gate_ms, until_ms):
            self.take(Wake(due_ms), gate_ms)


def lived(told: list[Told], lags_ms: list[int | None], *, with_wakes: bool = True) -> Shell:
    """A life with a gate that lags by so much at each input; it opens for good at the end.

    Without wakes, what was due fires when the next event comes.
    """
    shell = Shell(BOOK)
    gate_ms = 0
    for one, lag_ms in zip(told, lags_ms, strict=True):
        gate_ms = max(gate_ms, one.seen_ms - lag_ms) if lag_ms is not None else one.seen_ms
        if with_wakes:
            shell.wakes(gate_ms, one.seen_ms)
        shell.take(event_of(one), gate_ms)
    shell.wakes(FOREVER, told[-1].seen_ms + END_MS)
    return shell


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[Told], list[int | None]]:
    """A history, and how far the gate lags at each input."""
    told = draw(histories(carts=True, most=16))
    lag = st.sampled_from([None, 0, 1, 2_000, 60_000, 3 * 3_600_000, 40 * DAY_MS])
    return told, draw(st.lists(lag, min_size=len(told), max_size=len(told)))


@pytest.mark.invariant("R15")
@pytest.mark.invariant("R16")
@law(120)
@given(life=lives())
def test_a_gate_that_opens_late_changes_no_byte(life: tuple[list[Told], list[int | None]]) -> None:
    told, lags_ms = life
    free = lived(told, [None] * len(told))
    gated = lived(told, lags_ms)
    assert gated.records == free.records
    assert encode(gated.profile) == encode(free.profile)
    slept = lived(told, [None] * len(told), with_wakes=False)
    assert slept.records == free.records
    assert encode(slept.profile) == encode(free.profile)


@pytest.mark.invariant("R15")
def test_an_event_after_a_due_timer_waits_for_its_gate() -> None:
    told = [
        Told(0, 0, "m0", "product_added", {"items": [{"product_id": "a", "quantity": 1, "price_e6": 1}]}),
        Told(
            3 * 3_600_000,
            3 * 3_600_000,
            "m1",
            "order_completed",
            {"order_id": "1", "total_minor": 1, "currency": "USD"},
        ),
    ]
    told = [one._replace(seen_ms=one.seen_ms + DAY_MS, at_ms=one.at_ms + DAY_MS) for one in told]
    gated = lived(told, [0, 3 * 3_600_000])
    assert gated.held == 1
    assert gated.records == lived(told, [None, None]).records
    assert any(b"cart_1" in record for record in gated.records)


@pytest.mark.invariant("R15")
@law(40)
@given(life=lives())
def test_no_timer_fires_before_it_is_due_nor_before_its_gate(life: tuple[list[Told], list[int | None]]) -> None:
    told, _ = life
    shell = Shell(BOOK)
    for one in told:
        before = dict(shell.profile.timers)
        shell.take(event_of(one), gate_ms=0)
        # A shut gate: nothing that was due has gone, whatever came.
        due = {name: ms for name, ms in before.items() if ms < one.seen_ms}
        assert {name: shell.profile.timers.get(name) for name in due} == due
    while (due_ms := shell.profile.alarm_ms()) is not None and due_ms < told[-1].seen_ms:
        blob = encode(shell.profile)
        shell.take(Wake(due_ms - 1), gate_ms=FOREVER)
        assert encode(shell.profile) == blob, "a wake before the alarm finds nothing to do"
        shell.take(Wake(due_ms), gate_ms=FOREVER)
        assert shell.profile.alarm_ms() != due_ms


@pytest.mark.invariant("R15")
@law(60)
@given(document=documents(carts=True), told=histories(carts=True, late=False))
def test_timers_are_what_profile_and_rules_imply(document: dict[str, Any], told: list[Told]) -> None:
    book = compile_rules([("rules", json.dumps(document))])
    world = World(book, told[0].seen_ms)
    for one in told:
        world.until(one.seen_ms, with_it=False)
        world.happen(event_of(one))
        world.until(one.seen_ms, with_it=True)
        profile = world.profile(ADDRESS)
        alarm_ms = profile.alarm_ms()
        assert alarm_ms is None or alarm_ms > one.seen_ms
        for segment in book.segments:
            # How long an answer holds is the oracle's matter (test_oracle): an earlier verdict may have promised more.
            holds, until_ms = segment.judge(profile, one.seen_ms)
            assert holds == (segment.id in profile.members)
            assert until_ms > one.seen_ms
        known = {segment.id for segment in book.segments} | {"session"}
        assert set(profile.timers) <= known
        if profile.session is not None:
            assert profile.timers["session"] == profile.session.last_ms + book.session_gap_ms
        else:
            assert "session" not in profile.timers
