"""Clocks: what is learned of the store's, that it never goes back, and that only a step of the store is a step."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.moments import HOUR_MS, SECOND_MS
from stream.clock import DRIFT_PPM, STEP_MS_MAX, LogClock, ScaledClock, StoreClock, SystemIds

EPOCH_MS = 1_750_000_000_000


@dataclass
class World:
    """A true time, our monotonic clock, the store's clock, and a network that takes its time either way."""

    true_ms: float = 0.0
    ahead_ms: float = EPOCH_MS
    ppm: int = 0
    there_ms: float = 0.0
    back_ms: float = 0.0
    down: bool = False

    def monotonic_ms(self) -> int:
        return int(self.true_ms)

    def store_ms(self) -> float:
        return self.true_ms * (1 + self.ppm / 1_000_000) + self.ahead_ms

    async def ask(self) -> int:
        self.true_ms += self.there_ms
        if self.down:
            raise ConnectionError("store: away")
        answer_ms = int(self.store_ms())
        self.true_ms += self.back_ms
        return answer_ms

    def clock(self) -> StoreClock:
        return StoreClock(self.ask, self.monotonic_ms)


delays_ms = st.floats(0, 3_000)


@pytest.mark.invariant("R18")
@given(
    asks=st.lists(st.tuples(delays_ms, delays_ms, st.floats(0, 60_000)), min_size=1, max_size=30),
    ahead_ms=st.floats(0, 2 * EPOCH_MS),
    ppm=st.integers(-DRIFT_PPM // 2, DRIFT_PPM // 2),
)
async def test_a_slow_network_is_never_a_step_and_the_doubt_covers_the_error(
    asks: list[tuple[float, float, float]], ahead_ms: float, ppm: int
) -> None:
    world = World(ahead_ms=ahead_ms, ppm=ppm)
    clock = world.clock()
    told_ms = 0
    for world.there_ms, world.back_ms, pause_ms in asks:
        assert await clock.learn() == 0
        for _ in range(2):
            now_ms = clock.now_ms()
            assert now_ms >= told_ms
            # What was told before may hold the clock still; by no more than it was in doubt then.
            assert now_ms == told_ms or abs(now_ms - world.store_ms()) <= clock.doubt_ms + 1
            told_ms = now_ms
            world.true_ms += pause_ms


@pytest.mark.invariant("R18")
@given(
    step_ms=st.integers(-2 * HOUR_MS, 2 * HOUR_MS),
    delays=st.tuples(st.floats(0, 50), st.floats(0, 50)),
)
async def test_a_step_above_five_seconds_is_reported_and_not_followed_until_told(
    step_ms: int, delays: tuple[float, float]
) -> None:
    world = World(there_ms=delays[0], back_ms=delays[1])
    clock = world.clock()
    await clock.learn()
    before_ms, at_ms = clock.now_ms(), world.monotonic_ms()
    world.ahead_ms += step_ms
    seen_ms = await clock.learn()
    slack_ms = 2 * sum(delays) + 6
    if seen_ms == 0:
        assert abs(step_ms) <= STEP_MS_MAX + slack_ms
        return
    assert abs(step_ms) > STEP_MS_MAX
    assert abs(seen_ms) <= abs(step_ms)
    assert abs(seen_ms - step_ms) <= slack_ms
    assert clock.step_ms == seen_ms
    assert clock.now_ms() == before_ms + world.monotonic_ms() - at_ms
    # The same answer again is still the same step, not news.
    world.true_ms += SECOND_MS
    assert await clock.learn() != 0
    clock.follow()
    assert clock.step_ms == 0
    assert clock.now_ms() >= before_ms
    assert step_ms < 0 or abs(clock.now_ms() - world.store_ms()) <= clock.doubt_ms + 1
    assert await clock.learn() == 0


@pytest.mark.invariant("R18")
async def test_a_step_that_is_undone_pauses_no_longer() -> None:
    world = World()
    clock = world.clock()
    await clock.learn()
    world.ahead_ms += 60_000
    assert await clock.learn() > STEP_MS_MAX
    world.ahead_ms -= 60_000
    assert await clock.learn() == 0
    assert clock.step_ms == 0


@pytest.mark.invariant("R18")
async def test_after_a_small_step_back_time_stands_still_until_the_store_has_caught_up() -> None:
    world = World()
    clock = world.clock()
    await clock.learn()
    world.true_ms += 10_000
    held_ms = clock.now_ms()
    world.ahead_ms -= 3_000
    assert await clock.learn() == 0
    for _ in range(2):
        assert clock.now_ms() == held_ms
        world.true_ms += 1_400
    world.true_ms += 1_000
    assert held_ms < clock.now_ms() <= world.store_ms() + 1


async def test_answers_narrow_the_doubt_and_silence_widens_it() -> None:
    world = World(there_ms=200, back_ms=0)
    clock = world.clock()
    await clock.learn()
    wide_ms = clock.doubt_ms
    assert wide_ms >= 100
    world.there_ms, world.back_ms = 0, 1
    await clock.learn()
    narrow_ms = clock.doubt_ms
    assert narrow_ms <= 4
    world.there_ms, world.back_ms = 3_000, 3_000  # a slow answer takes nothing away
    await clock.learn()
    assert clock.doubt_ms <= narrow_ms + 3
    world.true_ms += HOUR_MS
    assert clock.doubt_ms >= HOUR_MS * DRIFT_PPM // 1_000_000


async def test_a_store_that_is_away_leaves_the_clock_as_it_was() -> None:
    world = World()
    clock = world.clock()
    await clock.learn()
    world.down = True
    world.true_ms += 5_000
    with pytest.raises(OSError, match="away"):
        await clock.learn()
    assert clock.now_ms() == EPOCH_MS + 5_000


def test_a_clock_that_has_learned_nothing_is_not_asked() -> None:
    with pytest.raises(AssertionError, match="learn"):
        World().clock().now_ms()


@pytest.mark.invariant("R18")
@given(st.lists(st.integers(0, 2**50)))
def test_the_logs_clock_is_the_greatest_time_read(read_ms: list[int]) -> None:
    clock = LogClock()
    for number, at_ms in enumerate(read_ms):
        clock.advance(at_ms)
        assert clock.now_ms() == max(read_ms[: number + 1])


def test_a_scaled_clock_runs_its_times_from_its_start() -> None:
    base = LogClock(1_000)
    clock = ScaledClock(base, EPOCH_MS, 600)
    assert clock.now_ms() == EPOCH_MS
    base.advance(1_100)
    assert clock.now_ms() == EPOCH_MS + 60_000


@pytest.mark.invariant("R4")
def test_tokens_are_eight_bytes_and_differ() -> None:
    ids = SystemIds()
    tokens = [ids.token() for _ in range(10_000)]
    assert {len(token) for token in tokens} == {8}
    assert len(set(tokens)) == len(tokens)
