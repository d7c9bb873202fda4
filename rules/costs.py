"""What a rule costs before it runs: which events wake it, what it keeps of a busy customer, how many alarms it holds.

*Wakes* is told by the index of the compiled rules; which events change a part of a profile is told by the examples of the
event types, executed. *Bytes* are of statistics that are as full as they can be, encoded as they are stored, and of the
membership and the timers: what a rule adds to the profile of a customer who does all that it looks at, again and again.
A statistic that several rules share is counted for each. What every profile keeps anyway (orders, carts, traits, the
visit, consents) is not counted.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final, NamedTuple

from profiles.aggregates import KEPT_MAX
from profiles.codec import encode
from profiles.moments import FOREVER, HOUR_MS, parse_instant
from profiles.state import CARTS, CONSENTS, FACTS, ORDERS, SEEN, SESSION, TRAITS, Profile
from profiles.taxonomy import EVENT_TYPES
from profiles.wire import Event
from rules.engine import step
from rules.program import Until, Wait, WaitFor
from rules.rulebook import KeptAggregate, Rulebook
from rules.spec import Reads
from rules.windows import CALENDAR

FIRST: Final = "the first event"
NEW_FACTS: Final = "new facts"
_START_MS: Final = parse_instant("2026-01-01")
_SAYS_TRAITS: Final = ("identified", "registered", "logged_in")
_DURATION: Final = re.compile(r"P(?=.)(\d+[YMWD])*(T(\d+[HMS])+)?|\d+(ms|[smhdw])")
_GUESSES: Final = ("value-of-a-property", 1_000_000, None)
_EMPTY: Final = len(encode(Profile("user:1")))
_SINCE_BYTES: Final = 14  # a short id and an instant, as msgpack
_RUN_BYTES: Final = 120


class Cost(NamedTuple):
    """What one rule costs.

    Attributes:
        wakes: the event types after which it is looked at.
        bytes_max: what it adds to a profile at most.
        timers_max: alarms of it that one profile can hold at a time; of a keyed trigger, for each key.
    """

    wakes: tuple[str, ...]
    bytes_max: int
    timers_max: int


def segment_costs(rulebook: Rulebook) -> dict[str, Cost]:
    """The cost of each segment, by name."""
    kept = {one.id: _state_bytes(one) for one in rulebook.aggregates}
    wakes: dict[str, frozenset[str]] = {}
    found: dict[str, Cost] = {}
    timed = _timed_traits(rulebook)
    for segment in rulebook.segments:  # In the order of dependence.
        reads = segment.judged.reads
        wakes[segment.name] = _wakes(reads, rulebook).union(
            *(wakes[which] for what, which in reads if what == "segment" and which in wakes)
        )
        is_timed = _is_timed(segment.rule, timed)
        size = _SINCE_BYTES * (1 + is_timed) + sum(kept[which] for what, which in reads if what == "aggregate")
        found[segment.name] = Cost(tuple(sorted(wakes[segment.name])), size, int(is_timed))
    return dict(sorted(found.items()))


def trigger_costs(rulebook: Rulebook) -> dict[str, Cost]:
    """The cost of each trigger, by name."""
    found = {}
    segments = segment_costs(rulebook)
    for name, trigger in sorted(rulebook.triggers.items()):
        wakes = {*trigger.entry.types, *trigger.hears(), *_wakes(trigger.entry.reads, rulebook)}
        if trigger.entry.segment:
            wakes.update(segments[trigger.entry.segment].wakes)
        waits = any(isinstance(one, Wait | WaitFor | Until) for one in trigger.program)
        timers = int(waits) + int(trigger.entry.timers is not None)
        size = _SINCE_BYTES * (1 + timers) + _RUN_BYTES * waits
        found[name] = Cost(tuple(sorted(wakes)), size, timers)
    return found


def _wakes(reads: Reads, rulebook: Rulebook) -> frozenset[str]:
    found: set[str] = set()
    for what, which in reads:
        if what == "aggregate":
            found.update(rulebook.aggregate[which].types)
        elif what == "part":
            found.update(changing(which))
    return frozenset(found)


@cache
def changing(part: int) -> tuple[str, ...]:
    """The event types that change a part of a profile, told by their examples; ``FIRST`` for what the first event sets, ``NEW_FACTS`` for
    what is known of the whole base."""
    if part == SEEN:
        return (FIRST,)
    if part == FACTS:
        return (NEW_FACTS,)
    if part == SESSION:
        return tuple(sorted(name for name, one in EVENT_TYPES.items() if one.activity))
    if part == TRAITS:
        return _SAYS_TRAITS
    assert part in (ORDERS, CARTS, CONSENTS), part
    found = []
    for name, one in EVENT_TYPES.items():
        for example in one.examples:
            profile = Profile("user:1")
            if "order_id" in example.props:  # What is cancelled, or taken out of a cart, must be there.
                bought = EVENT_TYPES["order_completed"].examples[0].props | {"order_id": example.props["order_id"]}
                EVENT_TYPES["order_completed"].change(profile, _event("order_completed", bought, _START_MS))
            if "items" in example.props and name != "product_added":
                EVENT_TYPES["product_added"].change(profile, _event("product_added", example.props, _START_MS))
            profile.dirty = 0
            one.change(profile, _event(name, example.props, _START_MS + 1))
            if profile.dirty & part:
                found.append(name)
                break
    return tuple(sorted(found))


def _event(name: str, props: dict[str, Any], at_ms: int) -> Event:
    return Event(f"{name}:{at_ms}", "example", name, at_ms, at_ms, "user:1", props=dict(props))


# --- bytes -------------------------------------------------------------------------------------------------------


def _state_bytes(kept: KeptAggregate) -> int:
    """The size of a statistic that is as full as it can be, as it is stored."""
    # Of stretches the bound is their length.
    apart_ms = kept.bound if kept.bound > KEPT_MAX else HOUR_MS + 1
    values = _values(kept) or _GUESSES
    profile = Profile("user:1")
    for value in values:
        try:
            state: Any = None
            for number in range(2 * KEPT_MAX):
                state = kept.add(state, _START_MS + number * apart_ms, _varied(value, number), kept.bound)
        except (TypeError, ValueError, AttributeError):
            continue  # A guess that this statistic does not take.
        profile.aggs[kept.id] = state
        return len(encode(profile)) - _EMPTY
    return 0


def _values(kept: KeptAggregate) -> list[Any]:
    """What the examples of its event types contribute."""
    found = [
        value
        for name in kept.types
        if name in EVENT_TYPES
        for example in EVENT_TYPES[name].examples
        for value in kept.values(_event(name, example.props, _START_MS))
    ]
    return sorted(found, key=lambda value: len(str(value)), reverse=True)


def _varied(value: Any, number: int) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    return f"{value}{number}" if isinstance(value, str) else value + number


# --- timers ------------------------------------------------------------------------------------------------------


def _timed_traits(rulebook: Rulebook) -> frozenset[str]:
    """The traits that change with time alone, told by a customer who did everything once, and bought and filled a cart
    last."""
    busy, at_ms = Profile("user:1"), _START_MS
    for name in (*EVENT_TYPES, "order_completed", "product_added"):
        for example in EVENT_TYPES[name].examples:
            at_ms += 1_000
            given = {"order_id": str(at_ms), "currency": rulebook.currency}
            props = example.props | {key: one for key, one in given.items() if key in example.props}
            event = _event(name, props, at_ms)
            event.seen_ms, event.backfill = at_ms, True
            step(busy, event, rulebook)
    return frozenset(path for path, reader in rulebook.readers.items() if reader.read(busy, at_ms + 1)[1] < FOREVER)


def _is_timed(rule: Any, timed: frozenset[str]) -> bool:
    """Whether time alone can change a rule: it names a duration, or a trait that changes with time."""
    if isinstance(rule, dict):
        ages = any(isinstance(rule.get(op), dict) for op in ("older_than", "newer_than", "within"))
        return ages or rule.get("trait") in timed or any(_is_timed(one, timed) for one in rule.values())
    if isinstance(rule, list):
        return any(_is_timed(one, timed) for one in rule)
    return isinstance(rule, str) and (rule in CALENDAR or _DURATION.fullmatch(rule) is not None)
