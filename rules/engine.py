"""``step``: one input, one profile, one rulebook -> the profile after it, and all that follows. The shell's one door.

Same arguments, same bytes out. Order within a step: timers that were due before the input fire first, each at its own
instant; then the input changes the profile; then the segments that can be touched are judged, in the order of their
dependence; then live journeys hear the event (cancel before go on before restart); then journeys open.

An input that comes while a timer of the profile is due but may not fire yet (its gate is shut, R16) is held in the
profile and applied right after that timer, so the outcome does not depend on when the gate opened.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any, Final

import msgpack
import orjson

from profiles import edits, erasure, identity, people, sessions
from profiles.catalogue import Catalogue
from profiles.codec import decode, encode
from profiles.errors import BadInput
from profiles.ids import PERSONAL, digest64, digest_of, kind_of, small_id, strength
from profiles.moments import DAY_MS, FOREVER, MINUTE_MS, iso
from profiles.state import CARTS, CONSENTS, FACTS, RING_MAX, SEEN, Profile
from profiles.taxonomy import resolve
from profiles.undo import Undo, pack_parting, read_parting
from profiles.wire import (
    ABSORB,
    CART_EVENTS,
    EDIT,
    EMAIL_EVENTS,
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
    decode_command,
    decode_event,
    encode_command,
    encode_event,
)
from rules import published, records
from rules.interest import interesting
from rules.journeys import AT, LATE_MS, RUN, kept_of
from rules.outcome import DUPLICATE, ERASED, FORWARDED, HELD, REFUSED, THROTTLED, Step
from rules.predicates import of_people, value_at
from rules.program import (
    AUDIENCE,
    Chance,
    key_of,
)
from rules.regrets import Regrets
from rules.rulebook import Rulebook
from rules.spec import GOAL_REACHED, Field

NO_GOODS: Final = Catalogue(0)
HELD_MAX: Final = 50
HELD_BYTES_MAX: Final = 1 << 16
_SLOWED: Final = (PAGE_VIEWS, CART_EVENTS)
_EVERYTHING: Final = -1  # every bit: all parts and all statistics
_ROUNDS_MAX: Final = 8
_STALE_MS: Final = MINUTE_MS
_STATE_TRAITS: Final = (people.identified, people.registered)
_HELD: Final = "held"
FACTS_CAME: Final = "facts"
RULES_CAME: Final = "rules"
_TIMER: Final = "timer"
SEGMENT: Final = "segment"
_PARTS_TOLD: Final = (
    ("traits", "traits"), ("consents", "consents"), ("orders", "orders"), ("carts", "carts"), ("statistics", "aggs"),
    ("segments", "members"), ("journeys", "runs"), ("messages", "ring"),
)  # fmt: skip
_PASSED_ON: Final = (FORWARD, ABSORB, EDIT)  # by a forwarder
_OUTLIVED: Final = (LINK, ABSORB, EDIT, MERGE)  # older than an erasure they say nothing any more


Kept = tuple[Any, ...]
"""Something that a profile keeps for later: ("held", seen_ms, kind, body) or ("timer", name, due_ms); also ("segment",
id): one that could not be judged, by the input's doing or for what the profile held before (``is_broken``)."""


def read_statistics(body: bytes) -> dict[int, Any]:
    """The statistics that a command brings.

    Raises:
        BadInput: it brings none.
    """
    try:
        told = msgpack.unpackb(body, strict_map_key=False)
        if type(told) is dict and all(type(one) is int for one in told):
            return told
    except (ValueError, msgpack.UnpackException):
        pass
    raise BadInput("malformed", "statistics: a map by their numbers wanted, got other bytes")


class Stuck(Exception):
    """Not the input failed, but what the profile had kept and that came first; the cause says how.

    Attributes:
        kept: what; to be handed to ``step`` with the same input again, in ``without``.
    """

    def __init__(self, kept: Kept) -> None:
        super().__init__(kept[0])
        self.kept = kept


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
        raise Stuck(turn.kept) from error
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
    if kept[0] == _HELD:
        _, _, kind, body = kept
        return _known(decode_event(body).type).topic if kind == FORWARD else PROFILE_COMMANDS, body
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


def _at(profile: Profile) -> tuple[int, str]:
    """At which input a profile is, and in which visit."""
    session = profile.session
    return next(reversed(profile.ring), 0), f"fill:{session.start_ms if session is not None else 0}"


class _Turn(Regrets):
    """One call of ``step``."""

    __slots__ = ("gate_ms", "is_moved", "kept", "next_ms", "without")

    def __init__(
        self,
        profile: Profile,
        rulebook: Rulebook,
        gate_ms: int,
        clock_ms: int,
        backfill: bool,
        without: tuple[Kept, ...],
        goods: Catalogue,
    ) -> None:
        super().__init__(profile, rulebook, clock_ms, backfill, goods)
        self.gate_ms = gate_ms
        self.without = without
        self.kept: Kept = ()  # what of the profile's own is being done just now
        self.is_moved = False  # what interests the customer may be something else now
        self.next_ms = 0  # the alarm, as it was last looked at
        if rulebook.facts:
            rulebook.lend(profile)

    # --- inputs -------------------------------------------------------------------------------------------------

    def event(self, event: Event) -> None:
        p = self.p
        if p.erased_ms and erasure.is_erased(p, event):
            self.out.outcome = ERASED
            return
        if p.forward and _message(event) in p.ring:
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
        elif command.kind == FORWARD and command.other and _unmerged(command.other) in p.ring:
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
        digest = _message(event)
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
            and _known(event.type).topic in _SLOWED
            and not event.backfill
            and _message(event) not in self.p.ring
        )

    def _hold(self, kind: str, seen_ms: int, body: bytes) -> None:
        insort(self.p.held, [seen_ms, kind, body], key=itemgetter(0))
        self.out.outcome = HELD

    def _caught_up(self, until_ms: int) -> bool:
        """Fire the timers due before ``until_ms``, and apply what was held, in the order of time.

        Returns:
            Whether nothing that comes before ``until_ms`` is left: ``False`` when a gate is still shut.
        """
        p = self.p
        gate_ms = FOREVER if _is_full(p.held) else self.gate_ms
        while True:
            due_ms = p.alarm_ms()
            self.next_ms = due_ms or 0
            if p.held and (due_ms is None or p.held[0][0] <= due_ms):
                self._apply_held()
                continue
            if due_ms is None or due_ms >= until_ms:
                return not p.held
            if due_ms >= gate_ms:
                return False
            names = [name for name, ms in p.timers.items() if ms == due_ms]
            name = names[0] if len(names) == 1 else min(names, key=self._turn_of)
            doing, self.kept = self.kept, (_TIMER, name, due_ms)
            if self.kept in self.without:
                self._drop(name, due_ms)
            else:
                # What falls due on a live clock is no history, though it be history that comes next.
                before, self.backfill = self.backfill, self.backfill and not self.clock_ms
                self._fire(name, due_ms)
                self._acted(("wake", f"{name}@{due_ms}"))
                self.backfill = before
            self.kept = doing

    def _turn_of(self, name: Any) -> tuple[int, int, str]:
        """Of timers that are due in one instant, which comes first: segments; journeys, by priority and by name; a visit's end."""
        if isinstance(name, int):
            return 0, 0, str(name)
        if name == sessions.TIMER:
            return 2, 0, name
        trigger = name.split(":", 2)[1]
        return 1, -self.rb.priorities.get(trigger, 0), name

    def _drop(self, name: Any, due_ms: int) -> None:
        """Take out a timer that cannot be done, with what waits for it and would wait for ever."""
        p = self.p
        del p.timers[name]
        if isinstance(name, int):
            return  # The segment is judged again when what it reads changes.
        if name == sessions.TIMER:
            p.session = None
        elif name.startswith(RUN):
            p.runs.pop(name[len(RUN) :], None)
        elif not name.startswith(published.TIMER):
            p.entries[name] = [due_ms]

    def _apply_held(self) -> None:
        seen_ms, kind, body = self.p.held.pop(0)
        doing, self.kept = self.kept, (_HELD, seen_ms, kind, body)
        if self.kept in self.without:
            if kind not in (ABSORB, SWEEP, RULES):  # It has not been here, then: somebody may tell it again.
                self.p.ring.pop(_message(decode_event(body)) if kind == FORWARD else _edit(decode_command(body)), None)
        else:
            self._do_held(seen_ms, kind, body)
        self.kept = doing

    def _do_held(self, seen_ms: int, kind: str, body: bytes) -> None:
        given = decode_event(body) if kind == FORWARD else decode_command(body)
        given.seen_ms = seen_ms
        before, self.backfill = self.backfill, given.backfill
        if isinstance(given, Command):
            {ABSORB: self._absorb, EDIT: self._apply_edit, SWEEP: self._meet, RULES: self._go_by}[kind](given)
        else:
            self._apply(given, seen_ms)
        self.backfill = before

    # --- an event changes the profile ---------------------------------------------------------------------------

    def _apply(self, event: Event, now_ms: int) -> None:
        p, rb = self.p, self.rb
        if now_ms > p.seen_ms:
            p.seen_ms = now_ms
        now_ms = p.seen_ms
        # A verdict that ends at this very instant is judged with the event: nobody must read the old word.
        also = self._expiring(now_ms) if self.next_ms == now_ms else 0
        if event.at_ms < p.first_seen_ms or not p.first_seen_ms:
            if not p.first_seen_ms:
                also = rb.at_birth()
                self.looks = -1 if rb.published else 0
            p.first_seen_ms = event.at_ms
            p.dirty |= SEEN
        if event.type in rb.interest_types:
            self.is_moved = True
        known = _KNOWN.get(event.type) or _known(event.type)
        if rb.fields:
            event = self._state_fields(event, known.change in _STATE_TRAITS, now_ms)
        if rb.line_keeps:
            event.keeps = rb.line_keeps
        known.change(p, event)
        cause = (event.type, event.message_id)
        self.late_ms = self._late_by(now_ms)
        self.stale = event.backfill and event.at_ms < now_ms - _STALE_MS
        started = (
            known.activity
            and not self.stale  # A visit of last year is none that ends today.
            and (known.topic is not EMAIL_EVENTS or of_people(event.props))
            and sessions.touch(p, event.type, event.at_ms, rb.session_gap_ms)
        )
        self._happened(event, now_ms, cause, event.at_ms, also)
        if started and rb.hears_session_start and p.session is not None:
            self._happened(self._session_event("session_started", p.session.start_ms), now_ms, cause, event.at_ms)
        self._acted(cause)

    def _state_fields(self, event: Event, states_traits: bool, now_ms: int) -> Event:
        """State the declared fields that the event tells, each if it is of its type; the event without them."""
        rb = self.rb
        rest: dict[str, Any] = {}
        told: list[tuple[Field, Any]] = []
        for path, value in people.statements(event.traits) if states_traits else ():
            known = rb.fields.get(path)
            if known is None:
                rest[path] = value
            elif value is not None:
                told.append((known, value))
        for known, taken_from in rb.fields_on.get(event.type, ()):
            if taken_from.where is None or taken_from.where(event.props):
                value = value_at(event.props, taken_from.prop)
                if value is not None:
                    told.append((known, value))
        for known, value in told:
            if known.take(value) is None:
                detail = {"wanted": known.wanted, "event": event.type, "message_id": event.message_id}
                self._decide("trait", known.path, event.address, event.message_id, "bad_value", detail, now_ms)
                continue
            source = f"{event.type}{people.SAID_BY}{event.source}" if known.sources else event.source
            people.put(self.p, known.path, value, event.at_ms, source, rb.rank)
        return replace(event, traits=rest) if states_traits and event.traits else event

    def _happened(self, event: Event, now_ms: int, cause: tuple[str, str], effective_ms: int, work: int = 0) -> None:
        """Statistics, segments (``work`` are those to judge in any case), journeys: what every event goes through,
        also a derived one."""
        p, rb = self.p, self.rb
        aggs, at_ms = p.aggs, event.at_ms
        dirty = p.dirty
        state: Any
        for agg, add, values_of, bound, quiet_below, bit in rb.keeping_on.get(event.type, ()):
            if values_of is None:
                state = aggs[agg] = add(aggs.get(agg), at_ms, None, bound)
            elif values := values_of(event):
                state = aggs.get(agg)
                for value in values:
                    state = add(state, at_ms, value, bound)
                aggs[agg] = state
            else:
                continue
            if not quiet_below or len(state) >= quiet_below:
                dirty |= bit
        p.dirty = 0
        changed = self._judge(rb.work_for(dirty) | work, now_ms, cause, effective_ms) if dirty or work else ()
        if p.runs:
            heard = rb.hearing.get(event.type)
            if heard:
                self._hear(event, heard, now_ms)
            if dirty & CARTS:
                self._cancel_empty_carts(now_ms)
        if dirty & CONSENTS and (p.runs or p.entries):
            self._cancel_refused(event.type, now_ms)
        if leaving := rb.leaving_on.get(event.type):
            self._leave_audiences(event, leaving, now_ms)
        if dirty & rb.timed_by:
            self._set_timers(dirty, now_ms, cause)
        for trigger in rb.entering_on.get(event.type, ()):
            assert trigger.entry.event is not None
            chance = trigger.entry.event(p, event)
            if chance is not None and (not chance.number or self._reached(trigger, chance.number)):
                if trigger.keeps:
                    chance = replace(chance, context={**chance.context, "event": kept_of(event, trigger)})
                self._enter(trigger, key_of(event, trigger.key), chance, now_ms, cause, event.at_ms)
        if p.sent and event.at_ms < p.sent[-1].at_ms and not event.backfill:
            self._regret(event, dirty, list(changed), now_ms)
        if changed:
            self._segments_changed(changed, now_ms, cause, corrected=effective_ms < now_ms - LATE_MS)
        for goal in rb.goals_on.get(event.type, ()):
            if goal.where is None or goal.where(event.props):
                self._happened(_goal_event(goal.name, event), now_ms, cause, effective_ms)

    # --- segments -----------------------------------------------------------------------------------------------

    def _judge(self, work: int, now_ms: int, cause: tuple[str, str], effective_ms: int) -> list[tuple[int, bool]]:
        """Judge these segments and whatever depends on one that changes."""
        p, rb = self.p, self.rb
        timers, members = p.timers, p.members
        changed: list[tuple[int, bool]] = []
        while work:
            for place, judge, segment in rb.turns_of(work):
                try:
                    holds, until_ms = judge(p, now_ms)
                except Exception:
                    if (SEGMENT, segment) not in self.without:
                        self.kept = self.kept or (SEGMENT, segment)
                        raise
                    timers.pop(segment, None)
                    continue  # It stays as it was until something that it reads changes.
                if until_ms < FOREVER:
                    assert until_ms > now_ms, rb.segments[place].name
                    timers[segment] = until_ms
                elif segment in timers:
                    del timers[segment]
                if holds != (segment in members):
                    if holds:
                        members[segment] = now_ms
                    else:
                        del members[segment]
                    changed.append((place, holds))
                    name = rb.segments[place].name
                    self.out.members.append((name, holds))
                    if not self.backfill:
                        self.out.records.append(records.change(p, name, holds, now_ms, cause, effective_ms))
                    after = rb.dependents[place]
                    if after & ~work:
                        work = work >> place + 1 << place + 1 | after
                        break  # More to judge; all of it comes after this one.
            else:
                break
        return changed

    def _segments_changed(
        self, changed: list[tuple[int, bool]], now_ms: int, cause: tuple[str, str], *, corrected: bool = False
    ) -> None:
        for place, entered in changed:
            if self.rb.published_at >> place & 1:
                self.looks |= self.rb.published_by
            for trigger in self.rb.entering_at.get((place, entered), ()):
                if trigger.entry.already and cause[0] == RULES_CAME:
                    continue  # Asked for, and done.
                segment = self.rb.segments[place].name
                word = "entered" if entered else "exited"
                because = {"node": f"segment {segment} {word}", "value": iso(now_ms)}
                chance = Chance(f"{segment}:{word}:{now_ms}", because)
                self._enter(trigger, "", chance, now_ms, cause, corrected=corrected)

    # --- timers -------------------------------------------------------------------------------------------------

    def _fire(self, name: Any, due_ms: int) -> None:
        p = self.p
        del p.timers[name]
        now_ms = max(p.seen_ms, due_ms)
        p.seen_ms = now_ms
        self.late_ms = self._late_by(due_ms)
        self.stale = False
        cause = ("wake", f"{name}@{due_ms}")
        if isinstance(name, int):
            # All that expires in this instant is judged together, in the order of dependence: one by one, a segment
            # would see another as it was before, and could be entered and left within the instant.
            p.timers[name] = due_ms
            cause = ("wake", f"segments@{due_ms}")
            work = self._expiring(due_ms)
            try:
                changed = self._judge(work, now_ms, cause, due_ms)
            except Exception:
                self.kept = (_TIMER, self._failing(work, now_ms, name), due_ms)
                raise
            self._segments_changed(changed, now_ms, cause)
        elif name == sessions.TIMER:
            if p.session is not None:
                self._happened(self._session_event("session_ended", due_ms), now_ms, cause, due_ms)
                sessions.end(p)
                self._settle(now_ms, cause, due_ms)
        elif name.startswith(RUN):
            run = p.runs.get(name[len(RUN) :])
            if run is not None:
                self._time_out(run, now_ms)
        elif name.startswith(published.TIMER):
            self.looks |= self.rb.published_by
        else:
            self._fire_entry(name, due_ms, now_ms, cause)

    def _expiring(self, due_ms: int) -> int:
        """Take out the timers of the segments whose verdicts end at that instant: the work of judging these."""
        timers, place = self.p.timers, self.rb.place
        work = 0
        for segment in [name for name, ms in timers.items() if ms == due_ms and isinstance(name, int)]:
            del timers[segment]
            if segment in place and (_TIMER, segment, due_ms) not in self.without:
                work |= 1 << place[segment]
        return work

    def _failing(self, work: int, now_ms: int, otherwise: int) -> int:
        """Which of these segments cannot be judged: the first that fails by itself."""
        for _, judge, segment in self.rb.turns_of(work):
            try:
                judge(self.p, now_ms)
            except Exception:
                return segment
        return otherwise

    def _settle(self, now_ms: int, cause: tuple[str, str], effective_ms: int) -> None:
        """Judge what reads the parts marked dirty."""
        p = self.p
        dirty, p.dirty = p.dirty, 0
        changed = self._judge(self.rb.work_for(dirty), now_ms, cause, effective_ms)
        self._set_timers(dirty, now_ms, cause)
        self._segments_changed(changed, now_ms, cause)

    def _session_event(self, name: str, at_ms: int) -> Event:
        p = self.p
        session = p.session
        assert session is not None
        return Event(
            message_id=f"{name}:{p.address}:{session.start_ms}",
            source="engine",
            type=name,
            at_ms=at_ms,
            received_ms=at_ms,
            address=p.address,
            props={
                "started_at": iso(session.start_ms),
                "last_at": iso(session.last_ms),
                "counts": dict(session.counts),
            },
        )

    def _acted(self, cause: tuple[str, str], brought_by: str = "") -> None:
        """What comes last of all that an input sets off: what journeys changed, then the published traits."""
        if self.p.dirty:
            self._settled(cause)
        if self.looks:
            self._look(cause, brought_by)

    def _settled(self, cause: tuple[str, str]) -> None:
        """Judge what journeys changed by what they did; those that set one another off in a ring stop after some rounds."""
        for _ in range(_ROUNDS_MAX):
            if not self.p.dirty:
                return
            self._settle(self.p.seen_ms, cause, self.p.seen_ms)

    def _look(self, cause: tuple[str, str], brought_by: str = "") -> None:
        """Look at the published traits that read what has changed."""
        looks, self.looks = self.looks, 0
        traits = [one for one, mask, _ in self.rb.publishing if looks & mask or looks < 0]
        self.out.records += published.looked_at(
            self.p,
            traits,
            self.rb.currency,
            self.p.seen_ms,
            cause,
            brought_by=brought_by,
            is_new=looks < 0,
            is_told=not self.backfill,
        )

    # --- identity -----------------------------------------------------------------------------------------------

    def _link(self, command: Command) -> None:
        """Somebody stronger holds this address: forward to them from now on, and send them what is here."""
        p = self.p
        if strength(command.other) <= strength(p.address) or command.other == p.address:
            return
        if p.forward == command.other:
            p.link = max(p.link, command.link)
            return
        if not p.forward and command.link <= p.link:
            self._tell(RELEASE, command.other, p.link, b"", command.seen_ms)  # Parted since, by an un-merge.
            return
        if p.forward:
            if kind_of(p.address) in PERSONAL or command.link < p.link:
                # A personal address stays with whom it was linked first; an older link loses to a newer one.
                self._tell(RELEASE, command.other, p.link, b"", command.seen_ms)
                detail = {"to": command.other}
                self._decide("link", "refused", p.address, command.link[1], "link_refused", detail, command.seen_ms)
                return
            self._tell(RELEASE, p.forward, p.link, b"", command.seen_ms)
            body = b""
        else:
            # Also of an address where nothing was said yet: what it passes on from now on can be parted again.
            body = self._leave(command)
        p.seen_ms = max(p.seen_ms, command.seen_ms)
        p.forward, p.link = command.other, command.link
        self._tell(ABSORB, command.other, command.link, body, command.seen_ms)
        for seen_ms, _, returned in p.held:  # They wait for a parting that this link overtook.
            self._tell(FORWARD, command.other, command.link, returned, seen_ms)
        p.held = []

    def _leave(self, command: Command) -> bytes:
        """Empty this address for a forwarder; the profile that was here."""
        body, ring = encode(self.p), self.p.ring
        self._leave_segments(command.seen_ms, ("link", command.link[1]))
        self._empty()
        # What is told again is no news, whether it reaches the other before this profile does, or when the address has
        # gone on to somebody else.
        self.p.ring = ring
        return body

    def _absorb(self, command: Command) -> None:
        """Take in the profile of an address that forwards here now, and judge what it may have changed."""
        p, rb = self.p, self.rb
        p.links[command.other] = max(command.link, p.links.get(command.other, command.link))
        if not command.body:
            return
        digest = digest64(f"absorb\x1f{command.other}\x1f{command.link}")
        if digest in p.ring:
            return  # Taken before, and told again by a sender whose store went back.
        now_ms = max(p.seen_ms, command.seen_ms)
        self.out.undo.append(Undo(command.other, command.link, now_ms, encode(p), command.body))
        p.seen_ms = now_ms
        self.late_ms = self._late_by(now_ms)
        p.ring.pop(_unmerged(command.other), None)
        other = decode(command.other, command.body)
        other.ring[digest] = now_ms
        self._join_audiences(other, command.link, now_ms)
        dirty, work = _EVERYTHING, rb.everything
        if p.first_seen_ms:
            dirty = rb.brought_by(other)
            work = rb.work_for(dirty)
        told = published.told(p, rb.published)
        self.looks = rb.published_by if p.first_seen_ms or not rb.published else -1
        for ended in identity.absorbed(p, other, rb.merges, rb.rank):
            trigger = rb.version_of(ended)
            pending = trigger.next_emit(ended.at) if trigger is not None else None
            if pending is not None:
                self._decide(ended.trigger, pending.step, ended.opened_by, ended.occasion, "merged", {}, now_ms)
        published.retell(p, rb.published, told)
        p.seen_ms = now_ms
        for name in [name for name in p.timers if isinstance(name, str) and name.startswith(RUN)]:
            del p.timers[name]
        for name, run in p.runs.items():
            p.timers[RUN + name] = run.due_ms
        if p.session is not None:
            p.timers[sessions.TIMER] = p.session.last_ms + rb.session_gap_ms
        p.dirty = 0
        cause = ("absorb", command.link[1])
        # Who was on a list stays on it, whichever of his addresses it was.
        self._list({name: True for name, i in rb.static.items() if rb.segments[i].id in other.members}, now_ms, cause)
        changed = self._judge(work, now_ms, cause, now_ms)
        self._set_timers(dirty, now_ms, cause)
        self._cancel_empty_carts(now_ms)
        for run in list(p.runs.values()):  # What cancels one's journey, the other may have done.
            trigger = rb.version_of(run)
            if trigger is not None:
                self._cancel_since(trigger, run, run.opened_ms, now_ms)
        self._segments_changed(changed, now_ms, cause)
        self._acted(cause, command.other)
        if p.held:
            self._caught_up(now_ms)  # What the other held: nothing of this profile may be left to wait for.

    def _join_audiences(self, other: Profile, link: tuple[int, str], now_ms: int) -> None:
        """On whichever audience the other is, he is under this address from now on."""
        mine = self._on_audiences()
        for name in other.entries:
            if not name.startswith(AUDIENCE):
                continue
            dest, _, audience = name[len(AUDIENCE) :].partition("/")
            by = ("absorb", f"{link[0]}:{link[1]}")
            self.out.records.append(records.audience(other, dest, audience, "remove", by, now_ms))
            if (dest, audience) not in mine:
                self.out.records.append(records.audience(other, dest, audience, "add", by, now_ms, self.p.address))

    def _empty(self) -> None:
        """Begin with nothing at this address; what was erased stays erased."""
        p = self.p
        ordinal, erased_ms = p.ordinal, p.erased_ms
        p.__init__(p.address)  # type: ignore[misc]  # the same object, emptied: the shell's cache holds it
        p.ordinal, p.erased_ms = ordinal, erased_ms

    # --- what authorised people ask for ---------------------------------------------------------------------------

    def _edit(self, command: Command) -> None:
        """Take an edit once; one for nobody is refused, or a slip of the pen would make a customer."""
        p = self.p
        edits.read_edit(command.body)  # What is none is refused before anything changes.
        if not (p.first_seen_ms or p.ring):
            self._receipt(command, REFUSED, reason="unknown")
            self.out.outcome = REFUSED
            return
        is_caught_up = not (p.timers or p.held) or self._caught_up(command.seen_ms)
        digest = _edit(command)
        if digest in p.ring:
            self.out.outcome = DUPLICATE
            return
        p.ring[digest] = command.seen_ms
        if not is_caught_up:
            self._hold(EDIT, command.seen_ms, encode_command(command))
        else:
            self._apply_edit(command)

    def _apply_edit(self, command: Command) -> None:
        p = self.p
        now_ms = p.seen_ms = max(p.seen_ms, command.seen_ms)
        edit = edits.read_edit(command.body)
        fields = self.rb.fields
        bad = [name for name, value in edit.set.items() if name in fields and fields[name].take(value) is None]
        edit = replace(edit, set={name: value for name, value in edit.set.items() if name not in bad})
        done = edits.edited(p, edit, min(command.link[0], now_ms))
        if bad:
            done["bad_value"] = bad
        self.late_ms = self._late_by(now_ms)
        self.stale = False
        cause = ("edit", command.link[1])
        self._settle(now_ms, cause, now_ms)
        self._settled(cause)
        if edit.lists:
            self._list({name: joins for name, joins in edit.lists.items() if name in self.rb.static}, now_ms, cause)
            done["lists"] = [name for name in edit.lists if name in self.rb.static]
            done["unknown"] = [name for name in edit.lists if name not in self.rb.static]
        self._acted(cause)
        if edit.set or edit.unset or edit.consents or bad or done.get("unknown"):
            self._receipt(command, "done", by=edit.by, **done)  # A list is on record as a whole.

    def _sweep(self, command: Command) -> None:
        """Meet what is new of the whole base, at its instant: after what was due before it."""
        p = self.p
        if p.forward or p.swept >= command.link[0]:
            self.out.outcome = DUPLICATE
        elif (p.timers or p.held) and not self._caught_up(command.seen_ms):
            if any(held[1] == SWEEP and decode_command(held[2]).link >= command.link for held in p.held):
                self.out.outcome = DUPLICATE
            else:
                self._hold(SWEEP, command.seen_ms, encode_command(command))
        else:
            self._meet(command)

    def _meet(self, command: Command) -> None:
        """Go by the facts of that number from now on."""
        p = self.p
        p.swept = command.link[0]
        self.rb.lend(p)
        p.folds.clear()
        now_ms = p.seen_ms = max(p.seen_ms, command.seen_ms)
        self.late_ms = self._late_by(now_ms)
        self.stale = False
        cause = (FACTS_CAME, command.link[1])
        p.dirty |= FACTS
        self._settle(now_ms, cause, now_ms)
        self._acted(cause)

    def _rules_came(self, command: Command) -> None:
        """Meet rules that this profile was not judged by yet: after what was due before."""
        p = self.p
        if p.forward or not p.first_seen_ms:
            self.out.outcome = DUPLICATE
        elif (p.timers or p.held) and not self._caught_up(command.seen_ms):
            if any(held[1] == RULES and decode_command(held[2]).link == command.link for held in p.held):
                self.out.outcome = DUPLICATE
            else:
                self._hold(RULES, command.seen_ms, encode_command(command))
        else:
            self._go_by(command)

    def _go_by(self, command: Command) -> None:
        """Be in the segments, and await the moments, that the rules give somebody like this. To hear of it twice changes nothing.

        What new rules find is no news: moments that they would have brought before are recorded as passed, and open nothing.
        """
        p, rb = self.p, self.rb
        p.folds.clear()
        now_ms = p.seen_ms = max(p.seen_ms, command.seen_ms)
        self.late_ms = self._late_by(now_ms)
        cause = (RULES_CAME, f"rules:{rb.hash}")
        for name in rb.gone:
            if p.members.pop(small_id(name), None) is not None:
                self.out.members.append((name, False))
                if not self.backfill:
                    self.out.records.append(records.change(p, name, False, now_ms, cause, now_ms))
        for segment in [one for one in p.timers if isinstance(one, int) and one not in rb.place]:
            del p.timers[segment]
        p.dirty = 0
        changed = self._judge(rb.everything, now_ms, cause, now_ms)
        for trigger, segment in rb.already:
            if segment in p.members and trigger.name not in p.entries:
                name = trigger.entry.segment
                because = {"node": f"already in segment {name}", "value": iso(p.members[segment])}
                self._enter(trigger, "", Chance(f"{name}:already:{p.members[segment]}", because), now_ms, cause)
        self.stale = True
        self._segments_changed(changed, now_ms, cause)
        self._set_timers(_EVERYTHING, now_ms, cause)
        self.stale = False
        self._acted(cause)

    def _fill(self, command: Command) -> None:
        """Take statistics that were computed from the log, in the place of what is kept here; and be where they say."""
        p = self.p
        statistics = read_statistics(command.body)
        if p.forward or _at(p) != command.link:
            self.out.outcome = REFUSED
        elif not self._caught_up(command.seen_ms) or _at(p) != command.link:
            self.out.outcome = DUPLICATE  # What was due has been done; the next look will tell it again.
        else:
            for one, state in statistics.items():
                if state is None:
                    p.aggs.pop(one, None)
                elif one in self.rb.aggregate:
                    p.aggs[one] = state
            self._go_by(command)

    def _list(self, lists: Mapping[str, bool], now_ms: int, cause: tuple[str, str]) -> None:
        """Put the customer into these static segments, or take him out, with all that follows."""
        p, rb = self.p, self.rb
        changed: list[tuple[int, bool]] = []
        work = 0
        for name, joins in lists.items():
            place = rb.static[name]
            segment = rb.segments[place].id
            if joins == (segment in p.members):
                continue
            if joins:
                p.members[segment] = now_ms
            else:
                del p.members[segment]
            changed.append((place, joins))
            work |= rb.dependents[place]
            self.out.members.append((name, joins))
            if not self.backfill:
                self.out.records.append(records.change(p, name, joins, now_ms, cause, now_ms))
        changed += self._judge(work, now_ms, cause, now_ms)
        self._segments_changed(changed, now_ms, cause)

    def _erase(self, command: Command) -> None:
        """Forget the person: everything here, and every address that leads here (R24).

        A command without ``other`` is an operator's, and goes to whom the address leads; one with it comes from that
        profile to an address that led to it.
        """
        p = self.p
        asked = erasure.read_asked(command.body)
        if p.forward and not command.other:
            self._tell(ERASE, p.forward, command.link, command.body, command.seen_ms, "")
            self.out.outcome = FORWARDED
            return
        is_led_elsewhere = bool(command.other) and p.forward != command.other
        # A link to him may still be on its way here, and a chain leads to him by another of his addresses; but an
        # address that was linked anew since is somebody else's.
        if is_led_elsewhere and (asked.link is None or (p.forward and p.link > asked.link)):
            self.out.outcome = DUPLICATE
            return
        if p.erased_ms >= command.link[0]:
            self.out.outcome = DUPLICATE
            return
        now_ms = max(p.seen_ms, command.seen_ms)
        erased_ms = asked.until_ms or max(now_ms, command.link[0])
        cause = ("erase", command.link[1])
        for run in p.runs.values():
            trigger = self.rb.version_of(run)
            pending = trigger.next_emit(run.at) if trigger is not None else None
            if pending is not None:
                self._decide(
                    run.trigger, pending.step, run.opened_by, run.occasion, "cancelled", {"by": "erase"}, now_ms
                )
        for dest, name in self._on_audiences():
            self._move(dest, name, False, cause, now_ms)
        self._leave_segments(now_ms, cause)
        self.out.erased = {
            "command": command.link[1],
            "kind": ERASE,
            "outcome": "done",
            "at": iso(erased_ms),
            "by": asked.by,
            "alias": bool(command.other),
            "held": {name: count for name, part in _PARTS_TOLD if (count := len(getattr(p, part)))},
            "addresses": dict(sorted(Counter(map(kind_of, p.links)).items())),
        }
        links = p.links
        self._empty()
        p.seen_ms, p.erased_ms = now_ms, erased_ms
        for other, link in links.items():
            body = erasure.pack_asked(erasure.Asked(asked.by, link))
            self._tell(ERASE, other, (erased_ms, command.link[1]), body, command.seen_ms)

    def _merge(self, command: Command) -> None:
        """Join a known user to another because somebody authorised says so: nothing else ever does (R23).

        The lesser address is the one that stays, so whatever is asked, and by how many at once, chains end.
        """
        p = self.p
        asked = erasure.read_asked(command.body)
        reason = ""
        if not kind_of(p.address) == kind_of(command.other) == "user" or command.other >= p.address:
            reason = "order"
        elif p.forward:
            reason = "moved"
        elif not (p.first_seen_ms or p.ring):
            reason = "unknown"
        if reason:
            self._receipt(command, REFUSED, reason=reason)
            self.out.outcome = REFUSED
            return
        self.gate_ms = FOREVER  # As with a link: what was due here before happened here.
        self._caught_up(command.seen_ms)
        body = self._leave(command)
        p.seen_ms = max(p.seen_ms, command.seen_ms)
        p.forward, p.link = command.other, command.link
        self._tell(ABSORB, command.other, command.link, body, command.seen_ms)
        self._receipt(command, "done", by=asked.by)

    def _unmerge(self, command: Command) -> None:
        """Part two that were merged by mistake: what each of them is was computed from the log (rules/undo.py)."""
        p = self.p
        parting = read_parting(command.body)
        mine, theirs = decode(p.address, parting.receiver), decode(command.other, parting.other)
        if p.forward or digest_of(encode(p)) != parting.digest:
            self._receipt(command, REFUSED, reason="moved" if p.forward else "changed")
            self.out.outcome = REFUSED
            return
        now_ms = max(p.seen_ms, command.seen_ms)
        cause = ("unmerge", command.link[1])
        going = {run.occasion for one in (mine, theirs) for run in one.runs.values()}
        for run in p.runs.values():
            trigger = self.rb.version_of(run)
            pending = trigger.next_emit(run.at) if trigger is not None and run.occasion not in going else None
            if pending is not None:
                detail = {"by": "unmerge"}
                self._decide(run.trigger, pending.step, run.opened_by, run.occasion, "cancelled", detail, now_ms)
        # What was decided while they were one stays on record: a journey that goes on though it had ended is another one.
        kept = {run.occasion for run in p.runs.values()}
        for one in (mine, theirs):
            for run in one.runs.values():
                if run.occasion not in kept:
                    run.occasion = f"{run.occasion}~{command.link[1]}"
        body = pack_parting(parting._replace(other=encode(theirs)))
        self._become(mine, now_ms, cause)
        self.out.parted = True
        p.links.pop(command.other, None)
        p.ring[_unmerged(command.other)] = now_ms
        self._tell(PART, command.other, (now_ms, command.link[1]), body, command.seen_ms)
        self._receipt(command, "done", by=parting.by)

    def _returned(self, body: bytes, seen_ms: int) -> None:
        event = decode_event(body)
        event.seen_ms = seen_ms
        self.backfill = event.backfill
        self.event(event)

    def _part(self, command: Command) -> None:
        """Hold a profile again, after forwarding to somebody who was another person."""
        p = self.p
        parting = read_parting(command.body)
        if not p.forward or (p.forward != command.other and p.link != parting.link):
            self.out.outcome = DUPLICATE  # It was linked anew, or erased, meanwhile.
            return
        now_ms, returned = max(p.seen_ms, command.seen_ms), p.held
        self._become(decode(p.address, parting.other), now_ms, ("unmerge", command.link[1]))
        p.forward, p.link = "", command.link
        outcome = self.out.outcome
        for seen_ms, _, body in returned:
            self._returned(body, seen_ms)
        self.out.outcome = outcome

    def _become(self, other: Profile, now_ms: int, cause: tuple[str, str]) -> None:
        """Take another state of this address for its own, and tell which segments that changes."""
        p = self.p
        before, ordinal, erased_ms = p.members, p.ordinal, p.erased_ms
        told, self.looks = published.told(p, self.rb.published), self.rb.published_by
        if p.forward and self.rb.published:
            self.looks = -1
        for name in Profile.__slots__:
            setattr(p, name, getattr(other, name))
        p.ordinal, p.erased_ms, p.seen_ms = ordinal, max(erased_ms, p.erased_ms), max(now_ms, p.seen_ms)
        for segment in self.rb.segments:
            holds = segment.id in p.members
            if holds != (segment.id in before):
                self.out.members.append((segment.name, holds))
                self.out.records.append(records.change(p, segment.name, holds, now_ms, cause, now_ms))
        published.retell(p, self.rb.published, told)
        if self.looks:
            self._look(cause)

    def _too_late(self, command: Command) -> None:
        """A command from before an erasure."""
        if command.kind == LINK:
            self._tell(RELEASE, command.other, command.link, b"", command.seen_ms)
        elif command.kind == ABSORB:
            self._disown(command)
        else:
            self._receipt(command, REFUSED, reason="erased")
        self.out.outcome = ERASED

    def _disown(self, command: Command) -> None:
        """An address still leads to an erased person: it was his, and goes, too."""
        body = erasure.pack_asked(erasure.Asked(""))
        self._tell(ERASE, command.other, (self.p.erased_ms, ""), body, command.seen_ms)

    def _receipt(self, command: Command, outcome: str, **more: Any) -> None:
        """What became of an operator's command, by its id. It holds names and counts, never a value (R24)."""
        told = {
            "command": command.link[1],
            "kind": command.kind,
            "outcome": outcome,
            "at": iso(command.seen_ms),
            **more,
        }
        self.out.receipts.append((command.link[1], orjson.dumps(told)))

    def _leave_segments(self, now_ms: int, cause: tuple[str, str]) -> None:
        """Whoever goes from here leaves every segment, on record, and of his published traits nothing holds any more."""
        p = self.p
        if self.rb.published and not self.backfill:
            says_before = cause[0] != ERASE
            gone = published.left(p, self.rb.published, self.rb.currency, now_ms, cause, says_before=says_before)
            self.out.records += gone
        places = self.rb.place
        for place in sorted(places[one] for one in p.members if one in places):
            name = self.rb.segments[place].name
            self.out.members.append((name, False))
            if not self.backfill:
                self.out.records.append(records.change(p, name, False, now_ms, cause, now_ms))

    def _tell(
        self, kind: str, to: str, link: tuple[int, str], body: bytes, seen_ms: int, other: str | None = None
    ) -> None:
        about = self.p.address if other is None else other
        self.out.commands.append(Command(kind, to, about, link, body, seen_ms, backfill=self.backfill))


def _is_full(held: list[list[Any]]) -> bool:
    """Whether so much waits that no gate is worth more of it."""
    return len(held) >= HELD_MAX or sum(len(body) for _, _, body in held) > HELD_BYTES_MAX


def _message(event: Event) -> int:
    """What a message is known by in the ring."""
    return digest64(f"{event.source}\x1f{event.message_id}")


def _goal_event(goal: str, reached_by: Event) -> Event:
    return Event(
        message_id=f"{reached_by.message_id}:goal:{goal}",
        source="engine",
        type=GOAL_REACHED,
        at_ms=reached_by.at_ms,
        received_ms=reached_by.received_ms,
        address=reached_by.address,
        props={"goal": goal},
        backfill=reached_by.backfill,
        seen_ms=reached_by.seen_ms,
    )


def _edit(command: Command) -> int:
    """What an edit is known by in the ring."""
    return digest64(f"edit\x1f{command.link[1]}")


def _unmerged(address: str) -> int:
    """What remembers in the ring that an address was parted from this one: what it forwarded before may still come."""
    return digest64(f"unmerged\x1f{address}")


_KNOWN: dict[str, Any] = {}


def _known(name: str) -> Any:
    known = _KNOWN.get(name)
    if known is None:
        known = resolve(name)
        if len(_KNOWN) < 10_000:
            _KNOWN[name] = known
    return known
