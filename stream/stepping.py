"""One batch being computed: what a step leaves of a profile, what is set aside, and all of it as writes.

An input that fails inside ``step`` becomes a dead letter and the profile is as if it had never come (R9); so does what a
profile had kept for later, a held input or a timer, when its time comes and it cannot be done.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from profiles.codec import decode, encode
from profiles.erasure import is_tombstone
from profiles.errors import BadInput
from profiles.ids import shard_of
from profiles.moments import iso
from profiles.state import Profile
from profiles.undo import pack_undo
from profiles.wire import (
    DEAD_LETTERS,
    ERASURES,
    INPUT_TOPICS,
    Command,
    Event,
    Record,
    Wake,
    dead_letter,
)
from rules.changes import SEGMENT, Kept
from rules.engine import Stuck, content, is_broken, step
from rules.outcome import ERASED, REFUSED, THROTTLED, Step
from stream import effects, metrics
from stream.bugs import Bugs
from stream.cache import Held
from stream.effects import Batch, Draft
from stream.facts import Books
from stream.group import Group, Input
from stream.owned import Owned
from stream.ports import Ids

log = logging.getLogger(__name__)

LARGE_BYTES: Final = 16 << 10
BEHIND: Final = "behind"
"""Not the core's word: what a shard has behind it is not stepped again."""
_UNTOUCHED: Final = (ERASED, REFUSED, THROTTLED)
"""Outcomes that leave the profile as it was: nothing to be written but what is told of them."""

Page = tuple[list[str], int]
"""Addresses whom news may interest, and the shard with which the others begin; -1: there are none."""


class Stepping:
    """A batch, and its profiles while they are stepped."""

    def __init__(
        self,
        owned: Owned,
        books: Books,
        bugs: Bugs,
        ids: Ids,
        unread_from: Callable[[Group], int],
        clock_ms: int,
        reached_ms: int,
        number: int,
        last: dict[str, int],
        hands: dict[str, Held],
        interested: Mapping[tuple[str, int], Page],
    ) -> None:
        """Begin a batch.

        Args:
            unread_from: the logical time before which nothing of a partition is left unread.
            clock_ms: the store's clock; 0 on the log's.
            reached_ms: see ``Gate.reached_ms``.
            number: of the batch.
            last: see ``Handlers._load``, as ``hands``.
            interested: see ``Handlers._interested``.
        """
        self.owned = owned
        self.bugs = bugs
        self.ids = ids
        self.unread_from = unread_from
        self.number = number
        self.last = last
        self.hands = hands
        self.interested = interested
        self.tells = log.isEnabledFor(logging.DEBUG)
        self.books = books
        self.rulebook = books.knowing(())
        self.clock_ms = clock_ms
        self.shards = owned.shards
        self.drafts: dict[int, Draft] = {}
        self.lows: dict[int, int] = {}
        self.outcomes: dict[tuple[int, str], int] = defaultdict(int)  # (place of the topic, outcome)
        self.decisions: dict[tuple[str, str], int] = defaultdict(int)
        self.done: list[tuple[str, Event | Command | Wake, int, tuple[Kept, ...]]] = []  # with the address
        self.reordered = 0
        self.place = 0  # of the input being applied; a wake comes after all
        self.is_abreast = False
        self.is_alone = False  # whom it belongs to hears of nobody in this batch
        self.reached_ms = reached_ms
        self.untold: dict[int, tuple[Held, list[Command], str, int, int]] = {}  # place -> what ``_tell`` wants
        self.newest: dict[int, tuple[int, bool]] = {}  # partition -> (place of its newest input, is it history)

    def _gate_ms(self, group: Group, at_ms: int) -> int:
        """Up to when a group's timers may fire with an input of that time, or with what it tells one of theirs at once.

        With all partitions here and abreast, everything before the input has been applied everywhere. Else only the group's own
        gate counts: another's may have opened, and this one's commands be unread (R16).
        """
        return max(group.gate_ms, min(at_ms, self.reached_ms)) if self.is_abreast else group.gate_ms

    def _step(self, held: Held, given: Event | Command | Wake, gate_ms: int, without: tuple[Kept, ...] = ()) -> Step:
        """``step``, under the rules that the profile's shard goes by."""
        return step(
            held.profile,
            given,
            self.shards[held.shard].rulebook or self.rulebook,
            gate_ms=gate_ms,
            clock_ms=self.clock_ms,
            without=without,
            goods=self.owned.shelf.goods,
        )

    def _collect(self, held: Held, out: Step) -> None:
        held.sealed = b""
        is_untouched = out.outcome in _UNTOUCHED
        if is_untouched and not (out.receipts or out.refusals):
            return
        draft = self.drafts.get(held.shard) or self._draft(held.shard)
        for name, receipt in out.receipts:
            draft.receipts.setdefault(name, receipt)  # Of a command that came twice the first one's stands.
        for name, refusal in out.refusals:
            draft.refusals.setdefault(name, refusal)
        if is_untouched:
            return
        profile = held.profile
        if held.batch != self.number:
            held.batch = self.number
            draft.touched[profile.address] = held
        if profile.ordinal < 0 and not is_tombstone(profile):
            shard = self.shards[held.shard]
            profile.ordinal = shard.ordinals
            shard.ordinals += 1
            draft.names.append(profile.address)
        if out.interest:
            draft.interest.extend((product, profile.ordinal, holds) for product, holds in out.interest)
        if out.members:
            draft.members.extend((name, profile.ordinal, member) for name, member in out.members)
        if out.records:
            place = self.place
            told = self.owned.with_coupons(out.records, out.coupons) if out.coupons else out.records
            draft.told.extend([(place, record) for record in told])
        for decision in out.decisions:
            self.decisions[decision] += 1
        if out.parted:
            draft.undo.pop(profile.address, None)
            draft.undo_gone.append(profile.address)
        if out.undo:
            shard = self.shards[held.shard]
            undone = [one._replace(cursor=shard.next, generation=self.rulebook.hash) for one in out.undo]
            draft.undo.setdefault(profile.address, []).extend(map(pack_undo, undone))
        if out.erased is not None:
            self._buried(held, draft, out.erased)

    def _buried(self, held: Held, draft: Draft, told: dict[str, Any]) -> None:
        """A person was erased: strike the name out, put what is left under its hash, tell of it."""
        profile = held.profile
        if profile.ordinal >= 0:
            draft.forgotten.append(profile.ordinal)
            profile.ordinal = -1  # Whoever begins here anew gets a number of his own.
        draft.undo.pop(profile.address, None)
        draft.undo_gone.append(profile.address)
        key = self.owned.tomb_key(profile.address)
        receipt = orjson.dumps({**told, "hash": key})
        draft.tell(self.place, Record(ERASURES, key, receipt))
        if not told["alias"]:
            draft.receipts.setdefault(told["command"], receipt)

    def _draft(self, number: int) -> Draft:
        draft = self.drafts.get(number)
        if draft is None:
            draft = self.drafts[number] = Draft()
        return draft

    def _seal(self, held: Held) -> None:
        """Make the bytes that are written; whatever else the batch does to the profile breaks the seal."""
        held.sealed = encode(held.profile)
        held.sealed_alarm_ms = held.profile.alarm_ms()

    def _restore(self, held: Held) -> None:
        """The profile as it was before the input that failed: as last written, and this batch's inputs again."""
        address, ordinal = held.profile.address, held.profile.ordinal
        held.profile = decode(address, held.blob) if held.blob else Profile(address)
        for to, given, gate_then_ms, without in self.done:
            if to == address:
                self._step(held, given, gate_then_ms, without)
        held.profile.ordinal = ordinal
        held.sealed = b""

    def _again(
        self, held: Held, given: Event | Command | Wake, gate_ms: int, error: Exception
    ) -> tuple[Step, tuple[Kept, ...]] | Exception:
        """Step once more, without what the profile had kept for later and cannot be done; that is set aside (R9). A
        segment that could not be judged before, either, is left as it was.

        Returns:
            The step, and what it was taken without; or the error, when it is the input's own.
        """
        stuck: list[Stuck] = []
        without: tuple[Kept, ...] = ()
        while isinstance(error, Stuck) and error.kept not in without:
            stuck.append(error)
            without = tuple(one.kept for one in stuck)
            self._restore(held)
            if error.kept[0] == SEGMENT and not is_broken(held.profile, error.kept[1], self.rulebook):
                return error.error
            try:
                out = self._step(held, given, gate_ms, without)
            except Exception as another:
                error = another
            else:
                for one in stuck:
                    if one.kept[0] == SEGMENT:
                        self._unjudged(one)
                    else:
                        self._set_aside(held, one)
                return out, without
        return error

    def _unjudged(self, stuck: Stuck) -> None:
        """Tell of a segment that cannot be judged for somebody, who stays in it or out of it."""
        name = self.rulebook.segments[self.rulebook.place[stuck.kept[1]]].name
        metrics.UNJUDGED.labels(name).inc()
        log.error("segment %s cannot be judged for a profile: %s", name, type(stuck.error).__name__)

    def _set_aside(self, held: Held, stuck: Stuck) -> None:
        """Keep as a dead letter what a profile had kept for later, and goes on without."""
        cause = stuck.error
        shard = self.shards[held.shard]
        reason, detail = (cause.reason, str(cause)) if isinstance(cause, BadInput) else ("bug", type(cause).__name__)
        topic, original = content(stuck.kept, self.rulebook)
        value = dead_letter(
            reason=reason,
            detail=detail,
            topic=topic,
            original=original,
            at=iso(shard.clock_ms),
            where={
                "partition": held.shard % self.owned.partitions,
                "kept": stuck.kept[0],
                "rules": self.rulebook.hash,
            },
        )
        self._draft(held.shard).tell(self.place, Record(DEAD_LETTERS, held.profile.address, value))
        metrics.DEAD.labels(reason).inc()
        if reason == "bug":
            log.error("step failed on a %s of shard %d: %s", stuck.kept[0], held.shard, type(cause).__name__)
            self.bugs.count()

    def _dead(self, group: Group, one: Input, reason: str, detail: str) -> None:
        raw = one.raw
        key = raw.key.decode(errors="replace") if raw.key is not None else ""
        number = shard_of(key)
        if number % group.partitions != group.partition:
            number = group.partition
        shard = self.shards[number]
        if one.offset < shard.next[one.topic]:
            self.outcomes[one.topic, BEHIND] += 1
            return
        value = dead_letter(
            reason=reason,
            detail=detail,
            topic=raw.topic,
            original=raw.value,
            at=iso(max(one.at_ms, shard.clock_ms)),
            where={"partition": raw.partition, "offset": raw.offset, "rules": self.rulebook.hash},
        )
        self._draft(number).tell(self.place, Record(DEAD_LETTERS, key, value))
        metrics.DEAD.labels(reason).inc()
        self.outcomes[one.topic, "dead"] += 1

    def batch(self, woken: list[str]) -> Batch:
        """Everything as writes."""
        owned = self.owned
        writes = []
        large = 0
        flying = owned.flying
        for number in sorted(self.drafts):
            draft = self.drafts[number]
            draft.put_in_order()
            write = effects.write_of(self.shards[number], draft, self.ids.token())
            for address, held in draft.touched.items():
                if not held.sealed:
                    self._seal(held)
                profile, blob, held.sealed = held.profile, held.sealed, b""
                if profile.erased_ms and is_tombstone(profile):
                    write.profiles[address] = None
                    write.tombs[owned.tomb_key(address)] = held.blob = blob
                    self.shards[number].tombs += 1
                else:
                    write.profiles[address] = held.blob = blob
                if held.sealed_alarm_ms != held.alarm_ms:
                    held.alarm_ms = write.alarms[address] = held.sealed_alarm_ms
                flying[address] = held
                if len(blob) > LARGE_BYTES:
                    large += 1
            writes.append(write)
        metrics.LARGE.inc(large)
        self._count(draft.records for draft in self.drafts.values())
        changes = Counter((name, member) for draft in self.drafts.values() for name, _, member in draft.members)
        for (name, member), count in changes.items():
            metrics.CHANGES.labels(name, "entered" if member else "exited").inc(count)
        records = {number: draft.records for number, draft in self.drafts.items() if draft.records}
        return Batch(writes, records, self.lows, {}, woken)

    def _count(self, drafted: Iterable[list[Record]]) -> None:
        """Account for the batch: both sides of each identity are counted where they arise, and told here together."""
        metrics.REORDERED.inc(self.reordered)
        for group in self.owned.groups.values():
            for place, count in enumerate(group.taken):
                if count:
                    metrics.TAKEN.labels(INPUT_TOPICS[place]).inc(count)
                    group.taken[place] = 0
        for (place, outcome), count in self.outcomes.items():
            metrics.EVENTS.labels(INPUT_TOPICS[place], outcome).inc(count)
        for (trigger, reason), count in self.decisions.items():
            metrics.DECISIONS.labels(trigger, reason).inc(count)
        outgoing = Counter(record.topic for records in drafted for record in records)
        for topic, count in outgoing.items():
            metrics.OUTGOING.labels(topic).inc(count)
