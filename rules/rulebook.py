"""A compiled rulebook: all that ``step`` needs to know of the rules, indexed by what an event can touch.

Sets of segments are integers, a bit each in the order of dependence, so that the lowest set bit is the next to judge
and a segment's readers always come after it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from profiles.errors import Mistake
from profiles.ids import small_id
from profiles.moments import FOREVER
from profiles.state import CARTS, CONSENTS, COUNTING, FACTS, ORDERS, SEEN, SESSION, TRAITS, Instance, Profile
from profiles.wire import Event
from rules.facts import Fact, Facts
from rules.interest import Interest
from rules.limits import GRANT
from rules.predicates import Predicate
from rules.program import Audience, CompiledTrigger, Entry, Leaving
from rules.projections import Projection
from rules.spec import GOAL_REACHED, Field, FieldSource, Judged, PublishedTrait, Reader, Reads, once
from rules.verdict import Judge


@dataclass(frozen=True, slots=True)
class KeptAggregate:
    """A statistic that the rules need kept.

    Attributes:
        quiet_below: while it has fewer entries, an entry more changes no answer, and nothing need be judged.
    """

    id: int
    bit: int
    key: str
    types: tuple[str, ...]
    add: Callable[[Any, int, Any, int], Any]
    merge: Callable[[Any, Any, int], Any]
    values: Callable[[Event], list[Any]]
    bound: int
    quiet_below: int


Keeping = tuple[int, Callable[[Any, int, Any, int], Any], Callable[[Event], list[Any]] | None, int, int, int]
"""What the engine needs of a ``KeptAggregate`` at every event, unpacked at one go: id, add, values (``None``: the event
itself, once), bound, quiet_below, and its bit, or 0 where no segment and no timer reads it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal of the shop's: reached by an event of these types that looks like that."""

    name: str
    types: tuple[str, ...]
    where: Predicate | None


@dataclass(frozen=True, slots=True)
class CompiledSegment:
    """A segment, ready to judge. A static one is formed once, and commands may say who is in it."""

    name: str
    id: int
    judge: Judge
    judged: Judged
    says: str
    rule: Any
    is_static: bool = False


@dataclass
class Rulebook:
    """The generation in force."""

    hash: str
    zone: tzinfo
    zone_name: str
    currency: str
    session_gap_ms: int
    segments: tuple[CompiledSegment, ...]
    aggregates: tuple[KeptAggregate, ...]
    triggers: dict[str, CompiledTrigger]
    readers: dict[str, Reader]
    declared: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    fields: dict[str, Field] = field(default_factory=dict)
    line_keeps: tuple[str, ...] = ()
    """What rules ask of the lines of orders beside what is always kept."""
    locale: str = "en"
    earlier: dict[tuple[str, str], CompiledTrigger] = field(default_factory=dict)
    """(trigger, revision) -> a version of before, that journeys may still go by (``rules/versions.py``)."""
    counting: tuple[str, ...] = COUNTING
    """The statuses with which an order counts, unless a rule says others."""
    published: tuple[PublishedTrait, ...] = ()
    projections: dict[str, Projection] = field(default_factory=dict)
    wanted: tuple[Fact, ...] = ()
    facts: tuple[Facts, ...] = ()
    """Generations of facts, oldest first: each profile is judged by that which it has met."""
    number: int = 0
    """Which generation it is: 1 for the first that an installation has, and one more for each that follows; 0: it stands alone."""
    gone: tuple[str, ...] = ()
    """Segments of generations before that it has no more."""
    lacking: tuple[str, ...] = ()
    """Statistics, by their keys, that no generation before it kept and nobody has computed back: they count from its beginning."""

    undeclared: tuple[str, ...] = ()
    """Traits that rules take as people are said to have them, and that no rule declares."""
    doubted: tuple[Mistake, ...] = ()
    """Others of them, that look like a slip, each where it is asked first."""

    # The index, made from the above.
    place: dict[int, int] = field(init=False)
    static: dict[str, int] = field(init=False)
    dependents: list[int] = field(init=False)
    aggregates_on: dict[str, tuple[KeptAggregate, ...]] = field(init=False)
    keeping_on: dict[str, tuple[Keeping, ...]] = field(init=False)
    judges: tuple[tuple[int, Judge, int], ...] = field(init=False)
    timed_by: int = field(init=False)
    publishing: tuple[tuple[PublishedTrait, int, int], ...] = field(init=False)
    published_by: int = field(init=False)
    published_at: int = field(init=False)
    aggregate: dict[int, KeptAggregate] = field(init=False)
    entering_on: dict[str, tuple[CompiledTrigger, ...]] = field(init=False)
    hearing: dict[str, frozenset[str]] = field(init=False)
    goals_on: dict[str, tuple[Goal, ...]] = field(init=False)
    fields_on: dict[str, tuple[tuple[Field, FieldSource], ...]] = field(init=False)
    entering_at: dict[tuple[int, bool], tuple[CompiledTrigger, ...]] = field(init=False)
    already: tuple[tuple[CompiledTrigger, int], ...] = field(init=False)
    """Triggers that whoever is found in a segment enters, with its id."""
    timed: tuple[tuple[CompiledTrigger, int], ...] = field(init=False)
    leaving_on: dict[str, tuple[Leaving, ...]] = field(init=False)
    audiences: dict[str, tuple[CompiledTrigger, ...]] = field(init=False)
    """Audience -> the triggers that put people on it."""
    by_grant: tuple[CompiledTrigger, ...] = field(init=False)
    """Triggers that may be entered once for each time that their consent is granted."""
    priorities: dict[str, int] = field(init=False)
    """Trigger -> its priority, where that is not 0."""
    hears_session_start: bool = field(init=False)
    interests: tuple[Interest, ...] = field(init=False)
    interest_types: frozenset[str] = field(init=False)
    news: frozenset[str] = field(init=False)
    everything: int = field(init=False)
    merges: dict[int, tuple[Callable[[Any, Any, int], Any], int]] = field(init=False)
    _readers_of: dict[int, int] = field(init=False)
    _work: dict[int, int] = field(init=False, default_factory=dict)
    _turns: dict[int, tuple[tuple[int, Judge, int], ...]] = field(init=False, default_factory=dict)
    _at_birth: int | None = field(init=False)

    def __post_init__(self) -> None:
        self._at_birth = None
        self.place = {segment.id: i for i, segment in enumerate(self.segments)}
        self.static = {segment.name: i for i, segment in enumerate(self.segments) if segment.is_static}
        self.everything = (1 << len(self.segments)) - 1
        self.aggregate = {kept.id: kept for kept in self.aggregates}
        self.merges = {kept.id: (kept.merge, kept.bound) for kept in self.aggregates}
        self._readers_of = {}
        self.dependents = [0] * len(self.segments)
        for i, segment in enumerate(self.segments):
            for what, which in segment.judged.reads:
                if what == "segment":
                    self.dependents[self.place[small_id(which)]] |= 1 << i
                else:
                    bit = self._bit(what, which)
                    self._readers_of[bit] = self._readers_of.get(bit, 0) | 1 << i
        self.aggregates_on = _grouped((name, kept) for kept in self.aggregates for name in kept.types)
        triggers = sorted(self.triggers.values(), key=lambda one: -one.priority)
        self.by_grant = tuple(one for one in triggers if one.again == GRANT)
        self.priorities = {one.name: one.priority for one in triggers if one.priority}
        self.entering_on = _grouped((name, one) for one in triggers for name in one.entry.types)
        joined = [one for one in triggers if one.entry.interest is not None]
        self.interests = tuple(dict.fromkeys(one.entry.interest for one in joined if one.entry.interest is not None))
        self.interest_types = frozenset(name for one in self.interests for name in one.types)
        self.news = frozenset(name for one in joined for name in one.entry.types)
        hearing: dict[str, set[str]] = {}
        for one in (*triggers, *self.earlier.values()):
            for name in one.hears():
                hearing.setdefault(name, set()).add(one.name)
        self.hearing = {name: frozenset(names) for name, names in hearing.items()}
        versions = (*triggers, *self.earlier.values())
        self.leaving_on = _grouped(
            (name, gone) for one in versions for gone in one.leaves for name in gone.listener.types
        )
        self.audiences = _grouped(
            (step.template, one) for one in versions for step in one.program if isinstance(step, Audience) and step.adds
        )
        self.hears_session_start = any(
            "session_started" in index for index in (self.entering_on, self.hearing, self.aggregates_on)
        )
        self.fields_on = _grouped(
            (name, (one, source)) for one in self.fields.values() for source in one.taken_from for name in source.types
        )
        # Nobody hears of a goal that no rule asks for.
        hears_goals = any(GOAL_REACHED in index for index in (self.entering_on, self.hearing, self.aggregates_on))
        self.goals_on = _grouped((name, goal) for goal in self.goals for name in goal.types) if hears_goals else {}
        self.entering_at = _grouped(
            ((self.place[small_id(one.entry.segment)], one.entry.entered), one) for one in triggers if one.entry.segment
        )
        self.already = tuple((one, small_id(one.entry.segment)) for one in triggers if one.entry.already)
        self.timed = tuple((one, self._mask(one.entry)) for one in triggers if one.entry.timers or one.entry.counted)
        self.judges = tuple((place, segment.judge, segment.id) for place, segment in enumerate(self.segments))
        self.timed_by = 0
        for _, mask in self.timed:
            self.timed_by |= mask
        self.publishing = tuple((one, *self._closure(one.reader.reads)) for one in self.published)
        self.published_by = self.published_at = 0
        for _, mask, places in self.publishing:
            self.published_by |= mask
            self.published_at |= places
        self.timed_by |= self.published_by
        read = self.timed_by
        for bit in self._readers_of:
            read |= bit
        self.keeping_on = {
            name: tuple(
                (
                    one.id,
                    one.add,
                    None if one.values is once else one.values,
                    one.bound,
                    one.quiet_below,
                    one.bit & read,
                )
                for one in kept_there
            )
            for name, kept_there in self.aggregates_on.items()
        }

    def incomplete(self) -> list[str]:
        """The segments that stand on statistics which are lacking."""
        bits = sum(one.bit for one in self.aggregates if one.key in self.lacking)
        return sorted(one.name for one in self.segments if self._closure(_all_reads(one.judged))[0] & bits)

    def version_of(self, run: Instance) -> CompiledTrigger | None:
        """The version that a journey goes by; of one that nobody can read any more, the version in force, if there is one."""
        trigger = self.triggers.get(run.trigger)
        if trigger is not None and trigger.revision == run.revision:
            return trigger
        return self.earlier.get((run.trigger, run.revision), trigger)

    def with_facts(self, facts: tuple[Facts, ...]) -> Rulebook:
        """The same rules, knowing these facts; everything else is shared."""
        other = copy(self)
        other.facts = facts
        return other

    def lend(self, profile: Profile) -> None:
        """Let a profile see the facts that it goes by. One of whom nothing is known yet begins with the newest."""
        facts = self.facts
        if not facts:
            profile.facts = None
            return
        if not profile.first_seen_ms:
            profile.swept = facts[-1].number
        met = profile.swept
        profile.facts = next((one for one in reversed(facts) if one.number <= met), facts[0] if met else None)

    def rank(self, name: str, source: str) -> int:
        """How good a source of that trait is; the greater is the better, of most traits all are alike."""
        known = self.fields.get(name)
        return known.rank(source) if known is not None else 0

    def level(self, segment: CompiledSegment) -> int:
        """Of which data a segment lives: 1 what is said of people, 2 their orders too, 3 what they do (SPEC M42).

        A rule of level 1 works from a mere list of customers, one of level 2 with a list of their orders.
        """
        return max((self._level(what, which) for what, which in _all_reads(segment.judged)), default=1)

    def _level(self, what: str, which: Any) -> int:
        if what == "segment":
            return self.level(self.segments[self.place[small_id(which)]])
        if what == "part" and which in (TRAITS, SEEN, CONSENTS, FACTS):
            return 1
        return 2 if (what, which) == ("part", ORDERS) else 3

    def work_for(self, dirty: int) -> int:
        """The segments that read any of the changed parts and statistics."""
        work = self._work.get(dirty)
        if work is None:
            work = 0
            for bit, readers in self._readers_of.items():
                if dirty & bit:
                    work |= readers
            if len(self._work) > 10_000:
                self._work.clear()
            self._work[dirty] = work
        return work

    def turns_of(self, work: int) -> tuple[tuple[int, Judge, int], ...]:
        """These segments in the order of dependence: (place, judge, id)."""
        turns = self._turns.get(work)
        if turns is None:
            if len(self._turns) > 10_000:
                self._turns.clear()
            turns = self._turns[work] = tuple(one for one in self.judges if work >> one[0] & 1)
        return turns

    def brought_by(self, other: Profile) -> int:
        """What may change in a profile that takes in this one: bits as in ``Profile.dirty``."""
        dirty = SEEN
        for bit, part in (
            (TRAITS, other.traits),
            (ORDERS, other.orders),
            (CARTS, other.carts),
            (SESSION, other.session),
            (CONSENTS, other.consents),
        ):
            if part:
                dirty |= bit
        for agg in other.aggs:
            kept = self.aggregate.get(agg)
            if kept is not None:
                dirty |= kept.bit
        return dirty

    def at_birth(self) -> int:
        """The segments to judge at a profile's first event, whatever it touches: those that hold of somebody of whom
        nothing is known (``{trait: orders_paid, eq: 0}``), or may by time alone, and all that stand on them."""
        if self._at_birth is None:
            nobody = Profile("")
            work = 0
            for i, segment in enumerate(self.segments):
                holds, until_ms = segment.judge(nobody, 0)
                if holds:
                    nobody.members[segment.id] = 0
                if holds or until_ms < FOREVER:
                    work |= 1 << i
                if work & 1 << i:
                    work |= self.dependents[i]
            self._at_birth = work
        return self._at_birth

    def _bit(self, what: str, which: Any) -> int:
        if what == "part":
            bit: int = which
            return bit
        assert what == "aggregate", what
        return self.aggregate[which].bit

    def _closure(self, reads: Reads) -> tuple[int, int]:
        """All that a trait stands on: parts and statistics, also of segments; and the segments, a bit for each place."""
        mask = places = 0
        for what, which in reads:
            if what == "segment":
                place = self.place[small_id(which)]
                inside, others = self._closure(_all_reads(self.segments[place].judged))
                mask, places = mask | inside, places | others | 1 << place
            else:
                mask |= self._bit(what, which)
        return mask, places

    def _mask(self, entry: Entry) -> int:
        mask = 0
        for what, which in entry.reads:
            mask |= self._bit(what, which)
        return mask


def _all_reads(judged: Judged) -> Reads:
    return judged.reads.union(*(_all_reads(child) for child in judged.children))


def _grouped(pairs: Any) -> dict[Any, tuple[Any, ...]]:
    groups: dict[Any, list[Any]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in groups.items()}
