"""Un-merging two profiles: both as they were before the merge, and each with what came for it since (RELIABILITY R23).

The same inputs go, state-only, through three profiles: the receiver without the merge, the other address by itself, and
both together. The last must come out as the profile that there is: else the inputs are not all of them, or the
rules are others, and the answer would only look exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from profiles.codec import decode, encode
from profiles.errors import OpportuneError
from profiles.state import Profile
from profiles.undo import Undo
from profiles.wire import ABSORB, ERASE, FORWARD, UNMERGE, Command, Event, Wake, decode_event
from rules.engine import ruled, step
from rules.rulebook import Rulebook

_COMPARED: Final = ("traits", "consents", "aggs", "orders", "carts", "first_seen_ms", "erased_ms")
"""What must agree to the last value; of the others what is in them, for they hold times of arrival, too."""

Given = Event | Command


class NotExact(OpportuneError):
    """A merge that cannot be undone exactly; ``reason`` is a stable word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Apart(NamedTuple):
    """The two, un-merged."""

    receiver: Profile
    other: Profile


def parted(
    undo: Undo, now: Profile, inputs: Iterable[Given], rulebook: Rulebook, until_ms: int, *, live: bool = True
) -> Apart:
    """Both profiles as they would be without that merge.

    Args:
        undo: what was kept of the merge.
        now: the receiver's profile as it is; it is not changed.
        inputs: what came for the receiver's address since, in order, each with its ``seen_ms``; what it had before the
            merge may be among it.
        until_ms: how far alarms have fired.
        live: the workers run on the store's clock.
    Raises:
        NotExact: ``changed`` when these inputs do not lead to ``now``, or ``unmerged_since``, ``erased_since``.
    """
    clock_ms = 1 if live else 0  # Any instant so early: nothing is late, for nothing is sent.

    def take(profile: Profile, given: Given | Wake) -> None:
        step(profile, given, rulebook, clock_ms=clock_ms)

    receiver = decode(now.address, undo.receiver)
    together = decode(now.address, undo.receiver)
    other = decode(undo.other, undo.absorbed)
    # What it passed on may have come first, while the merge itself was held behind an alarm.
    theirs = {undo.other, *other.links}
    passed_on = [one for one in receiver.held if one[1] == FORWARD and decode_event(one[2]).address in theirs]
    receiver.held = [one for one in receiver.held if one not in passed_on]
    for seen_ms, _, body in passed_on:
        event = decode_event(body)
        event.seen_ms = seen_ms
        take(other, event)
    take(together, _absorb(undo, now.address))
    for given in inputs:
        if isinstance(given, Command) and given.kind in (UNMERGE, ERASE):
            reason = "unmerged_since" if given.kind == UNMERGE else "erased_since"
            raise NotExact(reason, "unmerge: no un-merge or erasure of the receiver since the merge wanted, got one")
        take(together, given)
        if isinstance(given, Command) and given.kind == ABSORB and given.other == undo.other:
            continue
        if (
            isinstance(given, Command)
            and given.kind == FORWARD
            and (given.other == undo.other or given.other in other.links)
        ):
            event = decode_event(given.body)
            event.seen_ms = given.seen_ms
            take(other, event)
        else:
            take(receiver, given)
    for profile in (together, receiver, other):
        # What was kept may be of before these rules: only what an input touches would be judged by them.
        take(profile, ruled(profile.address, rulebook, profile.seen_ms))
        take(profile, Wake(until_ms))
    if _shape(together) != _shape(now):
        raise NotExact("changed", "unmerge: inputs that lead to the profile as it is wanted, got others")
    receiver.links.pop(undo.other, None)
    return Apart(receiver, other)


def _absorb(undo: Undo, address: str) -> Command:
    return Command(ABSORB, address, undo.other, undo.link, undo.absorbed, undo.at_ms, seen_ms=undo.at_ms)


def _shape(profile: Profile) -> dict[str, Any]:
    # Bytes: what compares equal as a value may still be of another kind.
    copy = Profile(profile.address)
    for name in _COMPARED:
        part = getattr(profile, name)
        setattr(copy, name, dict(sorted(part.items())) if isinstance(part, dict) else part)
    return {
        "values": encode(copy),
        "links": sorted(profile.links),
        "messages": sorted(profile.ring),
        "segments": sorted(profile.members),
        "journeys": sorted(profile.runs),
        "entries": sorted(profile.entries),
        "session": None if profile.session is None else (profile.session.start_ms, profile.session.last_ms),
    }
