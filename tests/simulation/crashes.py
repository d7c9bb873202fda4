"""Crash at every await: a short history, lived once undisturbed, and again for each place at which the worker can die.

A place is a step of the first worker's life: what it runs between two awaits. Between two idle questions nothing changes,
so of the places there only the first few after anything happened are tried. After each crash another life begins and
finishes the work; then the profiles are the same to the byte, and the ids of all that went out are the same set.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from profiles.codec import decode
from profiles.state import ATTRIBUTES
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event
from tests.simulation.net import FAIR
from tests.simulation.shop import Telling
from tests.simulation.witness import Broken
from tests.simulation.world import Act, Outcome, Plan, live

AFTER: Final = 4
"""How many steps after one at which anything happened are tried, too."""


def tell(at_ms: int, name: str, address: str, *others: str, **raw: Any) -> Telling:
    kind = resolve(name)
    event = Event(f"m-{at_ms}", "web", kind.name, 0, 0, address, others, canonical(kind, raw))
    return Telling(at_ms, at_ms, event, person=f"user:{address.partition(':')[2]}")


def _added(at_ms: int, address: str) -> Telling:
    return tell(at_ms, "Product Added", address, product_id="p-1", price=5, currency="USD")


def _ordered(at_ms: int, address: str) -> Telling:
    return tell(at_ms, "Order Completed", address, order_id=f"o-{at_ms}", total=30, currency="USD")


def _plan(told: list[Telling], *acts: Act, workers: int = 1, partitions: int = 1, clock: str = "store") -> Plan:
    return Plan(1, partitions, workers, FAIR, tuple(told), acts, clock, shards=16)


SCENARIOS: Final[dict[str, Plan]] = {
    "a cart left": _plan(
        [
            tell(1_000, "Product Viewed", "user:p-1", product_id="p-1"),
            _added(2_000, "user:p-1"),
            _added(2_500, "user:p-2"),
            _ordered(6_000, "user:p-2"),
        ]
    ),
    "a buyer who lapses": _plan([_ordered(1_000, "user:p-1"), tell(1_200, "Page Viewed", "user:p-1", path="/")]),
    "a merge during a cart": _plan(
        [
            _added(1_000, "anon:v-1"),
            tell(3_000, "Identify", "user:v-1", "anon:v-1"),
            _added(3_100, "anon:v-1"),
            tell(3_200, "Page Viewed", "user:v-1", path="/"),
        ],
        partitions=2,
    ),
    "two workers and a rebalance": _plan(
        [_added(4_000, "user:p-1"), _added(4_100, "user:p-2"), _ordered(9_000, "user:p-1"), _added(9_500, "user:p-3")],
        Act(6_000, "rebalance"),
        workers=2,
        partitions=2,
    ),
    "time that the log tells": _plan(
        [
            _ordered(1_000, "user:p-1"),
            _added(1_100, "anon:v-2"),
            tell(1_200, "Identify", "user:v-2", "anon:v-2"),
            tell(100_000, "Page Viewed", "user:p-3", path="/"),
        ],
        partitions=2,
        clock="log",
    ),
    "the store goes back": _plan(
        [_added(1_000, "user:p-1"), _ordered(2_000, "user:p-2"), _added(4_000, "user:p-2")],
        Act(3_000, "lose writes", amount=4),
    ),
}


def places(calm: Outcome) -> list[int]:
    """The steps at which a crash may make a difference."""
    return sorted({step + more for step in calm.busy for more in range(AFTER + 1)})


def crashed(name: str, calm: Outcome, step: int) -> str:
    """Die there; what is different afterwards, or ""."""
    try:
        done = live(replace(SCENARIOS[name], dies_at=step))
    except Broken as error:
        return f"{name}, crash at step {step}: {error}"
    for address in sorted({*calm.profiles, *done.profiles}):
        if calm.profiles.get(address) != done.profiles.get(address):
            return f"{name}, crash at step {step}: {_difference(address, calm, done)}"
    if calm.ids != done.ids:
        more = {topic: sorted(calm.ids.get(topic, set()) ^ ids) for topic, ids in done.ids.items()}
        return f"{name}, crash at step {step}: other ids went out: { {t: ids for t, ids in more.items() if ids} }"
    return ""


def _difference(address: str, calm: Outcome, done: Outcome) -> str:
    one, two = (of.profiles.get(address) for of in (calm, done))
    if one is None or two is None:
        return f"{address} is there in one run only"
    a, b = decode(address, one), decode(address, two)
    names = [name for name in ATTRIBUTES if name not in ("folds", "dirty")]
    return f"{address}: " + "; ".join(
        f"{name} {getattr(a, name)!r} <> {getattr(b, name)!r}" for name in names if getattr(a, name) != getattr(b, name)
    )
