"""What became of messages, counted for each channel: ``email.opened``, ``sms.last_sent_at``; kept only if a rule reads it."""

from __future__ import annotations

from typing import Any, Final

from profiles.aggregates import counter, edge
from profiles.moments import FOREVER
from profiles.state import Profile
from profiles.wire import Event
from rules.predicates import of_people
from rules.spec import Reader, Scope

CHANNELS: Final = ("email", "sms", "push")
_BY_TYPE: Final = {
    "sent": "sent",
    "delivered": "delivered",
    "opened": "opened",
    "clicked": "link_clicked",
    "bounced": "bounced",
    "complained": "marked_as_spam",
}
COUNTS: Final = (*_BY_TYPE, "unsubscribed")
LAST: Final = tuple(f"last_{name}_at" for name in COUNTS)


def reader(channel: str, part: str, scope: Scope) -> Reader | None:
    """The reader of ``channel.part``; ``None``: there is no such part."""
    is_time = part in LAST
    name = part.removeprefix("last_").removesuffix("_at") if is_time else part
    if name not in COUNTS:
        return None
    of_channel = name == "unsubscribed"
    types = ("unsubscribed",) if of_channel else (f"{channel}_{_BY_TYPE[name]}",)

    def values(event: Event) -> list[Any]:
        if of_channel and (event.props.get("channel") or "email") != channel:
            return []
        return [None] if of_people(event.props) else []

    agg = scope.aggregate(edge.SPEC if is_time else counter.SPEC, types, f"{channel}.{name}", values, int(is_time))

    def count(profile: Profile, now_ms: int) -> tuple[Any, int]:
        return profile.aggs.get(agg) or 0, FOREVER

    def last(profile: Profile, now_ms: int) -> tuple[Any, int]:
        state = profile.aggs.get(agg)
        return (state[0] if state is not None else None), FOREVER

    reads = frozenset({("aggregate", agg)})
    return Reader(last, "time", reads) if is_time else Reader(count, "number", reads)
