"""``mean_gap``: how long it is between orders, in the mean."""

from __future__ import annotations

from typing import Any

from profiles.moments import FOREVER
from profiles.state import Profile
from rules.documents import Node
from rules.series import of_book, order_entries, source_of
from rules.spec import UNREADABLE, Reader, Scope, TraitExample, TraitKind


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    return {name: _mean_gap(spec, node, scope)}


def _mean_gap(spec: Node, node: Node, scope: Scope) -> Reader:
    source = source_of(spec, node, scope)
    samples_node = node.get("min_samples")
    samples = samples_node.integer(least=2, default=2) if samples_node is not None else 2
    if not source.is_order:
        spec.wrong("mean_gap: 'order' wanted")
        return UNREADABLE
    entries = order_entries(source, "", "")

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        times = [at_ms for at_ms, _ in entries(profile)]
        return ((times[-1] - times[0]) // (len(times) - 1) if len(times) >= samples else None), FOREVER

    return of_book(read, "span")


SPEC = TraitKind(
    "mean_gap",
    'Mean time between orders in ms, if there are `min_samples` (2); the API tells it as `{"ms": …}`.',
    ("status_in", "min_samples"),
    _compile,
    examples=(
        TraitExample(
            "{mean_gap: order, min_samples: 3}",
            """
            0d   ana  order_completed order_id=1 total=10
            10d  ana  order_completed order_id=2 total=10
            10d  ana  expect trait it none
            40d  ana  order_completed order_id=3 total=10
            40d  ana  expect trait it 1728000000
            """,
        ),
    ),
)
