"""What one address tells another, and what authorised people ask for: links and joins, edits, erasures, merges and partings,
and what a shard tells all of its profiles (facts, rules)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import orjson

from profiles import edits, erasure, identity, sessions
from profiles.codec import decode, encode
from profiles.errors import BadInput
from profiles.ids import PERSONAL, digest64, digest_of, kind_of, small_id, strength
from profiles.moments import FOREVER, iso
from profiles.state import ATTRIBUTES, FACTS, Profile
from profiles.undo import Undo, pack_parting, read_parting
from profiles.wire import (
    ABSORB,
    EDIT,
    ERASE,
    FORWARD,
    LINK,
    PART,
    RELEASE,
    RULES,
    SWEEP,
    Command,
    decode_command,
    decode_event,
    encode_command,
)
from rules import published, records
from rules.changes import RULES_CAME
from rules.journeys import RUN
from rules.outcome import DUPLICATE, ERASED, FORWARDED, HELD, REFUSED
from rules.program import AUDIENCE, Chance
from rules.waiting import Waiting, edit_digest

_EVERYTHING: Final = -1  # every bit: all parts and all statistics
FACTS_CAME: Final = "facts"
_TURNS_MAX: Final = 1_000
"""Instants at which time changes something for a customer whom new rules meet; beyond, he is judged as of now only."""
_PARTS_TOLD: Final = (
    ("traits", "traits"), ("consents", "consents"), ("orders", "orders"), ("carts", "carts"), ("statistics", "aggs"),
    ("segments", "members"), ("journeys", "runs"), ("messages", "ring"),
)  # fmt: skip


class Persons(Waiting):
    """A profile among others."""

    __slots__ = ()

    def _do_held(self, seen_ms: int, kind: str, body: bytes) -> None:
        given = decode_event(body) if kind == FORWARD else decode_command(body)
        given.seen_ms = seen_ms
        before, self.backfill = self.backfill, given.backfill
        if isinstance(given, Command):
            {ABSORB: self._absorb, EDIT: self._apply_edit, SWEEP: self._meet, RULES: self._go_by}[kind](given)
        else:
            self._apply(given, seen_ms)
        self.backfill = before

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
        p.ring.pop(unmerged_digest(command.other), None)
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

    def _edit(self, command: Command) -> None:
        """Take an edit once, or nothing of it: one for nobody is refused, or a slip of the pen would make a customer; so is
        one by which a declared field would be none of its type."""
        p, fields = self.p, self.rb.fields
        edit = edits.read_edit(command.body)  # What is none is refused before anything changes.
        if not (p.first_seen_ms or p.ring):
            self._refuse(command, reason="unknown")
            return
        digest = edit_digest(command)
        bad = [name for name, value in edit.set.items() if name in fields and fields[name].take(value) is None]
        if bad and digest not in p.ring:
            self._refuse(command, reason="bad_value", wanted={name: fields[name].wanted for name in bad})
            return
        is_caught_up = not (p.timers or p.held) or self._caught_up(command.seen_ms)
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
        done = edits.edited(p, edit, min(command.link[0], now_ms))
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
        if edit.set or edit.unset or edit.consents or done.get("unknown"):
            self._receipt(command, "done", by=edit.by, **done)  # A list is on record as a whole.

    def _sweep(self, command: Command) -> None:
        """Meet what is new of the whole base, at its instant: after what was due before it."""
        p = self.p
        if p.forward or p.swept >= command.link[0]:
            self.out.outcome = DUPLICATE
        elif (p.timers or p.held) and not self._caught_up(command.seen_ms):
            if any(held[1] == SWEEP and decode_command(held[2]).link >= command.link for held in p.held):
                self.out.outcome = HELD  # It waits already; what was due before has been done just now.
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
                self.out.outcome = HELD  # As above.
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
        then_ms = p.seen_ms
        now_ms = p.seen_ms = max(then_ms, command.seen_ms)
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
        changed = self._judge_since(then_ms, now_ms, cause)
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

    def _judge_since(self, then_ms: int, now_ms: int, cause: tuple[str, str]) -> list[tuple[int, bool]]:
        """Judge all segments as if these rules had been here at the last input: nothing but time has passed since, so
        whoever is in one now is in it since the very instant at which it began to hold, or since that input.

        Static ones are formed at their instant or not at all. Told is what is another than it was, now.
        """
        p, rb = self.p, self.rb
        before, records_told, changes_told = dict(p.members), len(self.out.records), len(self.out.members)
        formed = sum(1 << place for place in rb.static.values())
        work, at_ms = rb.everything & ~formed, then_ms
        for _ in range(_TURNS_MAX):
            self._judge(work, at_ms, cause, at_ms)
            at_ms = min((due_ms for name, due_ms in p.timers.items() if isinstance(name, int)), default=FOREVER)
            if at_ms > now_ms:
                break
            work = self._expiring(at_ms)
        self._judge(formed if at_ms > now_ms else rb.everything, now_ms, cause, now_ms)
        del self.out.records[records_told:], self.out.members[changes_told:]
        changed: list[tuple[int, bool]] = []
        for place, segment in enumerate(rb.segments):
            holds = segment.id in p.members
            if holds and segment.id in before:
                p.members[segment.id] = before[segment.id]
            elif holds or segment.id in before:
                changed.append((place, holds))
                self.out.members.append((segment.name, holds))
                if not self.backfill:
                    self.out.records.append(records.change(p, segment.name, holds, now_ms, cause, now_ms))
        return changed

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
            if not command.other:  # Asked for again, at the same instant or before: nothing of him is left.
                self._receipt(command, "done", by=asked.by, alias=False, held={}, addresses={})
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
            self._refuse(command, reason=reason)
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
            self._refuse(command, reason="moved" if p.forward else "changed")
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
        p.ring[unmerged_digest(command.other)] = now_ms
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
        for name in ATTRIBUTES:
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

    def _refuse(self, command: Command, **why: Any) -> None:
        """Nothing of an operator's command was done, and why."""
        self._receipt(command, REFUSED, **why)
        self.out.outcome = REFUSED

    def _receipt(self, command: Command, outcome: str, **more: Any) -> None:
        """What became of an operator's command, by its id. It holds names and counts, never a value (R24)."""
        told = {
            "command": command.link[1],
            "kind": command.kind,
            "outcome": outcome,
            "at": iso(command.seen_ms),
            **more,
        }
        told_to = self.out.refusals if outcome == REFUSED else self.out.receipts
        told_to.append((command.link[1], orjson.dumps(told)))

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


def _at(profile: Profile) -> tuple[int, str]:
    """At which input a profile is, and in which visit."""
    session = profile.session
    return next(reversed(profile.ring), 0), f"fill:{session.start_ms if session is not None else 0}"


def unmerged_digest(address: str) -> int:
    """What remembers in the ring that an address was parted from this one: what it forwarded before may still come."""
    return digest64(f"unmerged\x1f{address}")
