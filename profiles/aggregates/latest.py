"""Which different values, each with the newest time it was seen; the ``bound`` newest values are kept.

"At least n different within D" needs only the n newest different ones. Days of activity are such values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profiles.aggregates import Aggregate


def add(state: dict[Any, int] | None, at_ms: int, value: Any, bound: int) -> dict[Any, int]:
    """Remember the value's newest time; beyond the bound the value unseen for longest goes."""
    if state is None:
        return {value: at_ms}
    known = state.get(value)
    if known is not None:
        if at_ms > known:
            state[value] = at_ms
        return state
    state[value] = at_ms
    if len(state) > bound:
        oldest_ms = min(state.values())
        gone = [one for one, ms in state.items() if ms == oldest_ms]
        del state[gone[0] if len(gone) == 1 else min(gone, key=_order)]
    return state


def merge(a: dict[Any, int], b: dict[Any, int], bound: int) -> dict[Any, int]:
    """The newest of both."""
    both = dict(a)
    for value, at_ms in b.items():
        both[value] = max(at_ms, both.get(value, at_ms))
    newest = sorted(both.items(), key=lambda item: (item[1], _order(item[0])))[-bound:]
    return dict(newest)


def _order(value: Any) -> tuple[str, str]:
    return type(value).__name__, str(value)


SPEC = Aggregate("latest", "Different values, each with its newest time.", add, merge)


def kept_by(leaves: Callable[[int], int], name: str) -> Aggregate:
    """The same, of the values that leave a window last, each with the time that does: where the calendar lets an older
    one leave later.

    Args:
        leaves: time -> when it leaves.
        name: of this statistic; equal names, equal ``leaves``.
    """

    def later(a_ms: int, b_ms: int) -> int:
        return max(a_ms, b_ms, key=lambda at_ms: (leaves(at_ms), at_ms))

    def trimmed(state: dict[Any, int], bound: int) -> dict[Any, int]:
        while len(state) > bound:
            del state[min(state, key=lambda one: (leaves(state[one]), state[one], _order(one)))]
        return state

    def add_by(state: dict[Any, int] | None, at_ms: int, value: Any, bound: int) -> dict[Any, int]:
        if state is None:
            return {value: at_ms}
        state[value] = later(at_ms, state.get(value, at_ms))
        return trimmed(state, bound)

    def merge_by(a: dict[Any, int], b: dict[Any, int], bound: int) -> dict[Any, int]:
        both = dict(a)
        for value, at_ms in b.items():
            both[value] = later(at_ms, both.get(value, at_ms))
        return trimmed(both, bound)

    return Aggregate(name, SPEC.says, add_by, merge_by)
