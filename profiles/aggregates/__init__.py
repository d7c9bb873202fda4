"""Incremental statistics, one module each: what a profile remembers of events that are not orders.

Every one is mergeable: ``add`` in any order gives the same state, and ``merge`` of two states is the state of both
histories. A state is plain lists, dicts and integers, so that the codec keeps it as it is. ``bound`` is the one
parameter: how many entries are kept, or the grid's width in ms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEPT_MAX = 200


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What a statistic says of itself.

    Attributes:
        name: the module's.
        says: one line for people.
        add: (state or None, at_ms, value, bound) -> state; may change the state in place and return it.
        merge: (a, b, bound) -> state; may change ``a``.
    """

    name: str
    says: str
    add: Callable[[Any, int, Any, int], Any]
    merge: Callable[[Any, Any, int], Any]
