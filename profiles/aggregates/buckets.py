"""Count, sum, smallest and greatest of a number by stretches of ``bound`` ms: for sums over a window.

The newest ``KEPT_MAX`` stretches are kept, so the compiler refuses a window of more. What lies in a stretch leaves
the window together, when the stretch's end does.
"""

from __future__ import annotations

from profiles.aggregates import KEPT_MAX, Aggregate


def add(state: dict[int, list[int]] | None, at_ms: int, value: int, bound: int) -> dict[int, list[int]]:
    """Take one number into its stretch."""
    start_ms = at_ms - at_ms % bound
    if state is None:
        return {start_ms: [1, value, value, value]}
    bucket = state.get(start_ms)
    state[start_ms] = [1, value, value, value] if bucket is None else _joined(bucket, [1, value, value, value])
    if len(state) > KEPT_MAX:
        del state[min(state)]
    return state


def merge(a: dict[int, list[int]], b: dict[int, list[int]], bound: int) -> dict[int, list[int]]:
    """Both, stretch by stretch."""
    both = dict(a)
    for start_ms, bucket in b.items():
        mine = both.get(start_ms)
        both[start_ms] = bucket if mine is None else _joined(mine, bucket)
    return {start_ms: both[start_ms] for start_ms in sorted(both)[-KEPT_MAX:]}


def _joined(a: list[int], b: list[int]) -> list[int]:
    return [a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])]


SPEC = Aggregate("buckets", "Count, sum, least and most of a number by stretches of time.", add, merge)
