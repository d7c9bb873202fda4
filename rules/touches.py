"""Where a customer came from: the campaigns of visits, as the collector reads them from addresses and referrers.

A *touch* is a person's own act whose event bears a campaign; whoever comes directly leaves none. ``first_touch``,
``last_touch`` (never a direct visit, then) and ``session``, the newest of the visit under way, each have the parts
``source``, ``medium``, ``campaign``, ``term``, ``content``, ``click`` and ``referrer``.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.aggregates import edge
from profiles.moments import FOREVER
from profiles.state import SESSION, Profile
from profiles.taxonomy import EVENT_TYPES
from profiles.wire import Event
from rules.predicates import of_people
from rules.spec import Read, Reader, Scope

CAMPAIGN: Final = "context.campaign"
PARTS: Final = ("source", "medium", "campaign", "term", "content", "click", "referrer")
_SAID: Final = ("source", "medium", "name", "term", "content", "click", "referrer")
_TYPES: Final = tuple(sorted(name for name, one in EVENT_TYPES.items() if one.activity))


def touch(name: str, scope: Scope, *, last: bool, in_visit: bool = False) -> dict[str, Reader]:
    """The readers of a touch's parts by full name, ``name.source`` and the rest, and of its time, ``name.at``.

    Args:
        last: the newest, else the earliest.
        in_visit: only of the visit under way.
    """
    agg = scope.aggregate(edge.SPEC, _TYPES, CAMPAIGN, _campaign, int(last))
    reads = frozenset({("aggregate", agg), *([("part", SESSION)] if in_visit else [])})

    def kept(profile: Profile) -> Any:
        state = profile.aggs.get(agg)
        if in_visit and state is not None:
            return state if profile.session is not None and state[0] >= profile.session.start_ms else None
        return state

    def part(place: int) -> Read:
        def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
            state = kept(profile)
            return (state[1][place] or None if state is not None else None), FOREVER

        return read

    def at(profile: Profile, now_ms: int) -> tuple[Any, int]:
        state = kept(profile)
        return (state[0] if state is not None else None), FOREVER

    found = {f"{name}.{one}": Reader(part(place), "text", reads) for place, one in enumerate(PARTS)}
    return {**found, f"{name}.at": Reader(at, "time", reads)}


def _campaign(event: Event) -> list[Any]:
    # In this order, always: of two touches at one instant the greater stands, whatever came first.
    campaign = event.context.get("campaign") if of_people(event.props) else None
    return [[campaign.get(one, "") for one in _SAID]] if campaign else []
