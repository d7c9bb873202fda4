"""``step``: one input, one profile, one rulebook -> the profile after it, and all that follows. The shell's one door.

Same arguments, same bytes out. Order within a step: timers that were due before the input fire first, each at its own
instant; then the input changes the profile; then the segments that can be touched are judged, in the order of their
dependence; then live journeys hear the event (cancel before go on before restart); then journeys open.

An input that comes while a timer of the profile is due but may not fire yet (its gate is shut, R16) is held in the
profile and applied right after that timer, so the outcome does not depend on when the gate opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgpack
import orjson

from profiles import erasure, identity, sessions
from profiles.catalogue import Catalogue
from profiles.moments import DAY_MS, FOREVER, MINUTE_MS, iso
from profiles.state import RING_MAX, Profile
from profiles.wire import (
    ABSORB,
    CART_EVENTS,
    EDIT,
    ERASE,
    FILL,
    FORWARD,
    LINK,
    MERGE,
    PAGE_VIEWS,
    PART,
    PROFILE_COMMANDS,
    RELEASE,
    RETURN,
    RULES,
    SWEEP,
    UNMERGE,
    Command,
    Event,
    Wake,
    decode_event,
    encode_command,
    encode_event,
)
from rules import published
from rules.changes import Kept, known_type
from rules.interest import interesting
from rules.journeys import AT, RUN
from rules.outcome import DUPLICATE, ERASED, FORWARDED, THROTTLED, Step
from rules.persons import Persons, _at, unmerged_digest
from rules.rulebook import Rulebook
from rules.waiting import WAITED, message_digest

NO_GOODS: Final = Catalogue(0)
_SLOWED: Final = (PAGE_VIEWS, CART_EVENTS)
_PASSED_ON: Final = (FORWARD, ABSORB, EDIT)  # by a forwarder
_OUTLIVED: Final = (LINK, ABSORB, EDIT, MERGE)  # older than an erasure they say nothing any more


class Stuck(Exception):
    """Not the input failed, but what the profile had kept and that came first.

    Attributes:
        kept: what; to be handed to ``step`` with the same input again, in ``without``.
        error: how.
    """

    def __init__(self, kept: Kept, error: Exception) -> None:
        super().__init__(kept[0])
        self.kept = kept
        self.error = error


def step(
    profile: Profile,
    given: Event | Wake | Command,
    rulebook: Rulebook,
    *,
    gate_ms: int = FOREVER,
    clock_ms: int = 0,
    without: tuple[Kept, ...] = (),
    goods: Catalogue = NO_GOODS,
) -> Step:
    """Apply one input to one profile, which it changes: the caller owns it.

    Args:
        profile: what the address holds; a new ``Profile`` for one never seen.
        given: an event, a wake, or a command; its ``seen_ms`` is the logical time.
        rulebook: the generation in force.
        gate_ms: timers due before this may fire (R16).
        clock_ms: the shard clock, from which lateness is told; 0 on the log's clock, where nothing is late.
        without: what ``Stuck`` named: taken out of the profile undone when its turn comes.
        goods: what messages may show of the shop.
    Returns:
        What follows. The profile's alarm is ``profile.alarm_ms()``.
    Raises:
        BadInput: the event is one that nobody can apply; the profile must then be dropped and loaded anew.
        Stuck: what came before it is; the same holds for the profile.
    """
    before = profile.interest
    turn = _Turn(profile, rulebook, gate_ms, clock_ms, given.backfill, without, goods)
    try:
        if type(given) is Event:
            turn.event(given)
        elif type(given) is Wake:
            turn.wake(given)
        else:
            assert type(given) is Command
            turn.command(given)
    except Exception as error:
        if not turn.kept:
            raise
        raise Stuck(turn.kept, error) from error
    if rulebook.interests and turn.is_moved:
        # Whatever became of the profile (left, merged, parted, erased): the index knows what it knew before.
        after = interesting(rulebook.interests, profile)
        if after != before:
            turn.out.interest = [(one, False) for one in before if one not in after]
            turn.out.interest += [(one, True) for one in after if one not in before]
        profile.interest = after
    return turn.out


def is_broken(profile: Profile, segment: int, rulebook: Rulebook) -> bool:
    """Whether a segment cannot be judged for a profile as it is: whatever comes next did not break it."""
    try:
        rulebook.judges[rulebook.place[segment]][1](profile, profile.seen_ms)
    except Exception:
        return True
    return False


def content(kept: Kept, rulebook: Rulebook) -> tuple[str, bytes]:
    """What is known of something kept: (the topic that it belongs to or "", its original bytes, or what describes it)."""
    if kept[0] == WAITED:
        _, _, kind, body = kept
        return known_type(decode_event(body).type).topic if kind == FORWARD else PROFILE_COMMANDS, body
    _, name, due_ms = kept
    kind = "entry"
    if isinstance(name, int):
        kind, name = "segment", next((one.name for one in rulebook.segments if one.id == name), str(name))
    elif name == sessions.TIMER:
        kind = "session"
    elif name.startswith(RUN):
        kind, name = "journey", name[len(RUN) :]
    elif name.startswith(published.TIMER):
        kind, name = "trait", name[len(published.TIMER) :]
    else:
        name = name[len(AT) :]
    return "", orjson.dumps({"timer": name, "kind": kind, "due": iso(due_ms)})


def swept(address: str, number: int, at_ms: int, *, backfill: bool = False) -> Command:
    """What tells a profile to go by the facts of that number, which its shard has had from that instant on."""
    return Command(SWEEP, address, "", (number, f"facts:{number}"), b"", at_ms, backfill=backfill, seen_ms=at_ms)


def ruled(address: str, rulebook: Rulebook, at_ms: int, *, backfill: bool = False) -> Command:
    """What tells a profile that these rules are in force, as of the instant at which it hears of it."""
    link = (rulebook.number, f"rules:{rulebook.hash}")
    return Command(RULES, address, "", link, b"", at_ms, backfill=backfill, seen_ms=at_ms)


def filled(profile: Profile, statistics: Iterable[int], at_ms: int) -> Command:
    """What gives a profile that is at the same input these statistics of this one, for its own."""
    body = msgpack.packb({one: profile.aggs.get(one) for one in statistics})
    return Command(FILL, profile.address, "", _at(profile), body, at_ms)


def is_level(one: Profile, other: Profile) -> bool:
    """Whether two profiles of an address have the same input behind them, and nothing waiting."""
    return bool(one.ring) and _at(one) == _at(other) and not (one.held or other.held)


class _Turn(Persons):
    """One call of ``step``."""

    __slots__ = ()

    def event(self, event: Event) -> None:
        p = self.p
        if p.erased_ms and erasure.is_erased(p, event):
            self.out.outcome = ERASED
            return
        if p.forward and message_digest(event) in p.ring:
            self.out.outcome = DUPLICATE
            return
        if p.forward:
            self._tell(FORWARD, p.forward, (event.at_ms, event.message_id), encode_event(event), event.seen_ms)
            self.out.outcome = FORWARDED
            return
        if len(p.ring) >= RING_MAX and self._is_too_fast(event):
            self.out.outcome = THROTTLED
            return
        is_caught_up = True
        if p.timers or p.held:
            # Most find nothing due and nothing held: those are not worth a call.
            self.next_ms = min(p.timers.values(), default=0)
            if p.held or self.next_ms < event.seen_ms:
                is_caught_up = self._caught_up(event.seen_ms)
        # Only now: a profile that waited here to be absorbed may have taken this message already.
        if not self._first_time(event):
            self.out.outcome = DUPLICATE
            return
        if event.identifiers:
            for other in identity.new_links(p, event):
                self._tell(LINK, other, p.links[other], b"", event.seen_ms)
        if not is_caught_up:
            self._hold(FORWARD, event.seen_ms, encode_event(event))
            return
        self._apply(event, event.seen_ms)

    def wake(self, wake: Wake) -> None:
        if not self.p.forward:
            self._caught_up(wake.due_ms + 1)

    def command(self, command: Command) -> None:
        p = self.p
        self.is_moved = True
        if command.kind == ERASE:
            self._erase(command)
        elif p.erased_ms and p.erased_ms >= command.link[0] and command.kind in _OUTLIVED:
            self._too_late(command)
        elif p.forward and command.kind in _PASSED_ON:
            self._tell(command.kind, p.forward, command.link, command.body, command.seen_ms, command.other)
            self.out.outcome = FORWARDED
        elif command.kind == FORWARD and command.other and unmerged_digest(command.other) in p.ring:
            # It was under way when the two were parted: it goes back to its address.
            self._tell(RETURN, command.other, command.link, command.body, command.seen_ms)
            self.out.outcome = FORWARDED
        elif command.kind == RETURN:
            if p.forward == command.other:  # The word that they were parted is still under way.
                self._hold(FORWARD, command.seen_ms, command.body)
            else:
                self._returned(command.body, command.seen_ms)
        elif command.kind == FORWARD:
            event = decode_event(command.body)
            event.seen_ms = command.seen_ms
            self.backfill = event.backfill
            self.event(event)
            if self.out.outcome == ERASED and command.other and not p.forward:
                self._disown(command)
        elif command.kind == LINK:
            if not p.forward:
                # What was due here before the link happened here, whatever the gate: the profile leaves now.
                self.gate_ms = FOREVER
                self._caught_up(command.seen_ms)
            self._link(command)
        elif command.kind == RELEASE:
            p.links.pop(command.other, None)
        elif command.kind == EDIT:
            self._edit(command)
        elif command.kind == UNMERGE:
            self._unmerge(command)
        elif command.kind == PART:
            self._part(command)
        elif command.kind == MERGE:
            self._merge(command)
        elif command.kind == SWEEP:
            self._sweep(command)
        elif command.kind == RULES:
            self._rules_came(command)
        elif command.kind == FILL:
            self._fill(command)
        else:
            assert command.kind == ABSORB, command.kind
            if (p.timers or p.held) and not self._caught_up(command.seen_ms):
                self._hold(ABSORB, command.seen_ms, encode_command(command))
            else:
                self._absorb(command)

    def _first_time(self, event: Event) -> bool:
        """The ring of the last messages seen: exact for 24 h and the last ``RING_MAX`` (R21)."""
        ring = self.p.ring
        digest = message_digest(event)
        if digest in ring:
            return False
        ring[digest] = event.seen_ms
        oldest, kept_from_ms = next(iter(ring)), event.seen_ms - DAY_MS
        while ring[oldest] < kept_from_ms or len(ring) > RING_MAX:
            del ring[oldest]
            oldest = next(iter(ring))
        return True

    def _is_too_fast(self, event: Event) -> bool:
        """A machine gone wild: the ring is full of what came within the last minute, and here is one more (R26).

        What a page tells by itself is left out then; orders, consents and whatever a person says of himself never are.
        """
        return (
            next(iter(self.p.ring.values())) > event.seen_ms - MINUTE_MS
            and known_type(event.type).topic in _SLOWED
            and not event.backfill
            and message_digest(event) not in self.p.ring
        )
