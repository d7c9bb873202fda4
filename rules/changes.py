"""What every event changes of a profile: its parts, statistics, segments, timers and published traits, in this order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from profiles import people, sessions
from profiles.catalogue import Catalogue
from profiles.moments import FOREVER, MINUTE_MS, iso
from profiles.state import CARTS, CONSENTS, SEEN, Profile
from profiles.taxonomy import resolve
from profiles.wire import EMAIL_EVENTS, Event
from rules import published, records
from rules.journeys import LATE_MS, RUN, kept_of
from rules.predicates import of_people, value_at
from rules.program import Chance, key_of
from rules.regrets import Regrets
from rules.rulebook import Rulebook
from rules.spec import GOAL_REACHED, Field

_ROUNDS_MAX: Final = 8
_STALE_MS: Final = MINUTE_MS
RULES_CAME: Final = "rules"
TIMER: Final = "timer"
SEGMENT: Final = "segment"
Kept = tuple[Any, ...]
"""Something that a profile keeps for later: ("held", seen_ms, kind, body) or ("timer", name, due_ms); also ("segment",
id): one that could not be judged, by the input's doing or for what the profile held before (``is_broken``)."""
_KNOWN: dict[str, Any] = {}


class Changes(Regrets):
    """A profile that an input changes."""

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
        known = _KNOWN.get(event.type) or known_type(event.type)
        if rb.fields:
            event = self._state_fields(event, now_ms)
        if rb.line_keeps:
            event.keeps = rb.line_keeps
        if event.traits:
            people.stated(p, event)
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

    def _state_fields(self, event: Event, now_ms: int) -> Event:
        """State the declared fields that the event tells, each if it is of its type; the event without them."""
        rb = self.rb
        rest: dict[str, Any] = {}
        told: list[tuple[Field, Any]] = []
        for path, value in people.statements(event.traits):
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
        return replace(event, traits=rest) if event.traits else event

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
                self.kept = (TIMER, self._failing(work, now_ms, name), due_ms)
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
            if segment in place and (TIMER, segment, due_ms) not in self.without:
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


def known_type(name: str) -> Any:
    """What is known of an event type, own ones of the shop included; looked up once."""
    known = _KNOWN.get(name)
    if known is None:
        known = resolve(name)
        if len(_KNOWN) < 10_000:
            _KNOWN[name] = known
    return known
