"""Identity: which addresses are one person, and what two profiles are together (DESIGN §3).

An address holds a profile or forwards to one of a stronger kind. Links are ordered by (event time, message id) and the
greatest wins, so any order of arrival ends alike. Joining is a union part by part: each part's module says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from profiles import carts, consent, orders, people, sessions
from profiles.ids import kind_of, strength
from profiles.state import LINKS_MAX, RING_MAX, SENT_MAX, Instance, Profile
from profiles.wire import Event

Merges = Mapping[int, tuple[Callable[[Any, Any, int], Any], int]]
"""Aggregate id -> (merge, bound)."""


def new_links(profile: Profile, event: Event) -> list[str]:
    """The addresses that the event names and that must be told to forward here, and remember them as linked.

    A public source may link anonymous ids only; what it says of e-mail, phone or card is a claim.
    """
    found: list[str] = []
    for other in event.identifiers:
        if other in profile.links or other == profile.address:
            continue
        if strength(other) >= strength(profile.address) or not (event.trusted or kind_of(other) == "anon"):
            continue
        if len(profile.links) >= LINKS_MAX:
            oldest = min(profile.links, key=lambda known: (profile.links[known], known))
            del profile.links[oldest]
        profile.links[other] = (event.at_ms, event.message_id)
        found.append(other)
    return found


def absorbed(profile: Profile, other: Profile, merges: Merges, rank: people.Rank = people.all_alike) -> list[Instance]:
    """Join another address's profile into this one; it may change both.

    Memberships and the timers that segments and traits imply are not joined: the caller judges them anew.

    Returns:
        Journeys that both had and of which only the later goes on: those that end.
    """
    profile.first_seen_ms = min((ms for ms in (profile.first_seen_ms, other.first_seen_ms) if ms), default=0)
    profile.seen_ms = max(profile.seen_ms, other.seen_ms)
    profile.ring = _ring(profile.ring, other.ring)
    profile.traits = people.joined(profile.traits, other.traits, rank)
    profile.consents = consent.joined(profile.consents, other.consents)
    for agg, state in other.aggs.items():
        mine = profile.aggs.get(agg)
        if mine is None:
            profile.aggs[agg] = state
        elif agg in merges:
            merge, bound = merges[agg]
            profile.aggs[agg] = merge(mine, state, bound)
    profile.orders = orders.joined(profile.orders, other.orders)
    profile.folds.clear()
    carts.joined(profile, other)
    profile.session = sessions.joined(profile.session, other.session)
    for address, link in other.links.items():
        profile.links[address] = max(link, profile.links.get(address, link))
    for name, entry in other.entries.items():
        mine_entry = profile.entries.get(name)
        if mine_entry is None:
            profile.entries[name] = entry
        elif ":" not in name:
            profile.entries[name] = [mine_entry[0] + entry[0], max(mine_entry[1], entry[1])]
        else:
            profile.entries[name] = max(mine_entry, entry)
    profile.sent = sorted({*profile.sent, *other.sent})[-SENT_MAX:]
    ended: list[Instance] = []
    for name, run in other.runs.items():
        mine_run = profile.runs.get(name)
        if mine_run is not None and (mine_run.opened_ms, mine_run.occasion) > (run.opened_ms, run.occasion):
            ended.append(run)
            continue
        if mine_run is not None:
            ended.append(mine_run)
        profile.runs[name] = run
    profile.held = sorted(profile.held + other.held, key=lambda held: held[0])
    return ended


def _ring(a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
    both: Iterable[tuple[int, int]] = sorted({**b, **a}.items(), key=lambda item: (item[1], item[0]))
    return dict(list(both)[-RING_MAX:])
