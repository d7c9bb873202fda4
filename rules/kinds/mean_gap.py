"""``mean_gap``: how long it is between orders, in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from profiles.moments import FOREVER
from profiles.state import FACTS, Profile
from rules.documents import Node
from rules.facts import Fact
from rules.series import ORDER_READS, Entries, of_book, order_entries, source_of
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
    fallback = node.get("fallback")
    entries = order_entries(source, "", "")
    if fallback is not None:
        fallback.choice(("base_mean",))
        return _or_the_bases(source.key, entries, samples, scope)

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        return _between(entries(profile), samples), FOREVER

    return of_book(read, "span")


def _between(entries: Sequence[tuple[int, Any]], samples: int) -> int | None:
    """The mean time between orders; ``None``: too few of them, or all at one instant, which is no rhythm."""
    if len(entries) < samples:
        return None
    return (entries[-1][0] - entries[0][0]) // (len(entries) - 1) or None


def _or_the_bases(key: str, entries: Entries, samples: int, scope: Scope) -> Reader:
    """Who has too few orders goes by the mean of those who have enough, by the last facts."""
    name = f"mean_gap:{key}:{samples}"

    def sample(profile: Profile, now_ms: int) -> list[tuple[str, int | Fraction]]:
        gap_ms = _between(entries(profile), samples)
        return [("", gap_ms)] if gap_ms is not None else []

    scope.fact(Fact(name, sample, ()))

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        gap_ms = _between(entries(profile), samples)
        if gap_ms is None and profile.facts is not None and (mean := profile.facts.mean(name)) is not None:
            gap_ms = int(mean)
        return gap_ms, FOREVER

    return Reader(read, "span", ORDER_READS | {("part", FACTS)})


SPEC = TraitKind(
    "mean_gap",
    'Mean time between orders in ms, if there are `min_samples` (2) and not all at one instant; the API tells it as `{"ms": …}`. `fallback: base_mean`: else the mean of all who have, by the last facts.',
    ("status_in", "min_samples", "fallback"),
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
        TraitExample(
            "{mean_gap: order}",
            """
            segment away = {lapsed: {times: 2, of: it, else: P60D}}
            0d   ana  order_completed order_id=1 total=10
            0d   ana  order_completed order_id=2 total=10
            0d   ana  expect trait it none, out away, wake 60d
            10d  ana  order_completed order_id=3 total=10
            10d  ana  expect trait it 432000000, out away, wake 20d
            """,
        ),
        TraitExample(
            "{mean_gap: order, min_samples: 2, fallback: base_mean}",
            """
            0d   bob  order_completed order_id=1 total=10
            10d  bob  order_completed order_id=2 total=10
            10d  ana  order_completed order_id=3 total=10
            10d  ana  expect trait it none
            11d  base facts
            11d  ana  expect trait it 864000000
            """,
        ),
    ),
)
