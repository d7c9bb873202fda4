"""What must have come of a story, told the slow way; shares no code with the engine.

Segments and numbers come from ``tests.laws.naive``, which answers from the whole list of what was told. Which letters had to
go out, and when, is worked out here for customers who were signed in from the first: by three rules written down in
plain loops. Where two things lie so close together that their order is anybody's, nothing is expected.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from profiles.wire import EDIT, MERGE
from tests.laws.naive import Naive, Told
from tests.simulation.shop import CART_MS, DOCUMENT, LAPSE_MS, START_MS, THANKS_MS, Telling


class Span(NamedTuple):
    """An instant that is known to lie in between, epoch ms."""

    low_ms: int
    high_ms: int

    def after(self, ms: int) -> Span:
        """So much later."""
        return Span(self.low_ms + ms, self.high_ms + ms)


def once(told: Iterable[Telling]) -> list[Telling]:
    """Each message once, as first taken; rubbish is none, and of what was asked for what states or joins."""
    seen: set[str] = set()
    kept = []
    for one in told:
        if not one.raw and not one.refused and one.asks in ("", EDIT, MERGE) and one.event.message_id not in seen:
            seen.add(one.event.message_id)
            kept.append(one)
    return kept


def by_person(told: Iterable[Telling], parted: Collection[str]) -> dict[str, list[Telling]]:
    """Whose each message is, where the story knows; of these addresses, that they are somebody's own."""
    people: defaultdict[str, list[Telling]] = defaultdict(list)
    for one in once(told):
        if one.person:
            people[one.event.address if one.event.address in parted else one.person].append(one)
    return dict(people)


def segments(told: Sequence[Telling], now_ms: int) -> list[str]:
    """The segments that a customer must be in."""
    return Naive(DOCUMENT, [_told(one) for one in told if one.asks != MERGE]).segments(now_ms)


def _told(one: Telling) -> Told:
    event = one.happened()
    traits = {f"custom.{name}": value for name, value in event.traits.get("custom", {}).items()}
    return Told(event.received_ms, event.at_ms, event.message_id, event.type, event.props, traits)


def count(told: Iterable[Telling], name: str) -> int:
    """How many messages of a type there were."""
    return sum(one.event.type == name for one in told)


def spent(told: Iterable[Telling]) -> int:
    """What was paid, minor units."""
    return sum(one.event.props["total_minor"] for one in told if one.event.type == "order_completed")


def letters(told: Sequence[Telling]) -> dict[str, list[Span] | None]:
    """When which letters must have been decided; ``None`` where nobody can tell."""
    return {"cart": _carts(told), "lapse": _lapses(told), "thanks": _thanks(told)}


def links(told: Sequence[Telling]) -> list[Span]:
    """When a customer said who he was."""
    return [_seen(one) for one in told if one.event.identifiers]


def cart_words(told: Sequence[Telling]) -> list[tuple[Span, str]]:
    """Every word on a customer's cart, by whichever name."""
    words = [one for one in told if one.event.type in ("product_added", "order_completed")]
    return [(_seen(one), f"{one.event.type} of {one.event.address}") for one in words]


def _seen(one: Telling) -> Span:
    """It counts from the collector's stamp to the instant at which it lay on the topic."""
    return Span(START_MS + one.stamped_ms, START_MS + one.told_ms)


def _of(told: Sequence[Telling], *names: str) -> list[tuple[Span, str]] | None:
    found = sorted((_seen(one), one.event.type) for one in told if one.event.type in names)
    for (before, _), (after, _) in itertools.pairwise(found):
        if after.low_ms <= before.high_ms:
            return None
    return found


def _carts(told: Sequence[Telling]) -> list[Span] | None:
    """25 s after the last thing was put into the cart, unless something is bought before."""
    found = _of(told, "product_added", "order_completed")
    if found is None:
        return None
    sent: list[Span] = []
    due: Span | None = None
    for seen, name in found:
        if due is not None:
            if seen.low_ms > due.high_ms:
                sent.append(due)
            elif seen.high_ms >= due.low_ms:
                return None
        due = seen.after(CART_MS) if name == "product_added" else None
    return sent if due is None else [*sent, due]


def _lapses(told: Sequence[Telling]) -> list[Span] | None:
    """45 s after an order, unless another came."""
    found = _of(told, "order_completed")
    if found is None:
        return None
    sent: list[Span] = []
    due_ms = 0
    for seen, _ in found:
        if due_ms:
            if seen.low_ms > due_ms:
                sent.append(Span(due_ms, due_ms))
            elif seen.high_ms >= due_ms:
                return None
        due_ms = seen.low_ms + LAPSE_MS
    return sent if not due_ms else [*sent, Span(due_ms, due_ms)]


def _thanks(told: Sequence[Telling]) -> list[Span]:
    """Two letters, 15 s apart, to somebody who registered; once."""
    found = [_seen(one) for one in told if one.event.type == "registered"]
    return [found[0], found[0].after(THANKS_MS)] if found else []
