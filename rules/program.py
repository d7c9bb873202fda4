"""What a trigger compiles to: who enters it, and its steps as a flat program that journeys walk through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Protocol

from profiles.catalogue import Catalogue
from profiles.moments import Duration
from profiles.state import Instance, Profile
from profiles.wire import Event
from rules.documents import Node
from rules.interest import Interest
from rules.limits import Limits
from rules.predicates import Predicate, value_at
from rules.spec import Field, Judged, Reads, Scope
from rules.verdict import Judge
from rules.words import Tongue, Words

AUDIENCE: Final = "audience:"
ORDER: Final = "order_completed"
"""The conversion that counts money."""
EXIT: Final = -1
"""A place beyond every program, until it is known where that ends."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Somebody may enter: what makes this occasion unique, why, and what the payload may name with ``$``.

    ``number``: how many times it has come; a number that was reached before is no occasion again. 0: not counted.
    ``since_ms``: of ``Entry.timers``, the instant that it follows from: served once, it is not served again however the due time
    of what follows from it moves. 0: from none.
    """

    occasion: str
    because: dict[str, Any]
    context: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """Who enters a trigger, and when. One of the four ways is set.

    Attributes:
        types, event: on an event of these types: event -> chance or ``None``.
        segment, entered: on entering (or leaving) a segment.
        timers: on an instant that the profile itself implies: (profile) -> timer's key -> (due_ms, chance).
        counted: how often it has come so far, as the profile itself implies; each time more is an occasion.
        reads: what ``timers`` or ``counted`` look at.
        interest: news of a product, told to whom it may interest.
        stays: ``timers`` go on telling an instant that is past, unless what it stands on changes.
        already: whoever is found in the segment when he meets the rules enters, too.
    """

    types: tuple[str, ...] = ()
    event: Callable[[Profile, Event], Chance | None] | None = None
    segment: str = ""
    entered: bool = True
    timers: Callable[[Profile], dict[str, tuple[int, Chance]]] | None = None
    counted: Callable[[Profile], int] | None = None
    reads: Reads = frozenset()
    interest: Interest | None = None
    stays: bool = False
    already: bool = False


@dataclass(frozen=True, slots=True)
class Listener:
    """An event that cancels, restarts or is waited for.

    Attributes:
        match: a property that must equal the instance's key, or ``coupon.code``: the journey's own coupon; "" for none.
        covers: the event also counts when it has emptied the instance's cart, or the profile has none.
        cart_empty: not an event but a state: the instance's cart holds nothing.
        heard: the statistic of when it happened last, for each key and (``None``) at all; 0 where nobody asks.
    """

    types: tuple[str, ...]
    where: Predicate | None = None
    match: str = ""
    covers: bool = False
    cart_empty: bool = False
    heard: int = 0


def key_of(event: Event, prop: str) -> str:
    """What tells instances apart in an event: its property as text; "" without one."""
    value = value_at(event.props, prop) if prop else None
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on after a time; ``within_day``: before the customer's day ends all the same."""

    duration: Duration
    within_day: bool


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Go on at ``on_event`` when it is heard, at ``on_timeout`` when it is not; ``reset``: what begins the wait anew."""

    listeners: tuple[Listener, ...]
    reset: tuple[Listener, ...]
    timeout: Duration
    on_event: int
    on_timeout: int


Payload = Callable[[Profile, Instance, int, Catalogue], Any]


class Need(Enum):
    """Whether a message makes sense when a part of its payload holds nothing."""

    NOTHING = 0
    THIS = 1
    ONE_OF_THEM = 2
    """As long as another part that lists goods holds some."""


PayloadPart = tuple[str, Payload, Need]
"""(name, how it is read, whether the message makes no sense without it)"""


@dataclass(frozen=True, slots=True)
class Emit:
    """Send a trigger record: an eligible moment.

    ``gives``: the journey's coupon. ``channel``: another than the trigger's; "" for that one. ``also``: by one more channel what
    the moment before it says, and with it one touch.
    """

    step: str
    template: str
    payload: tuple[PayloadPart, ...]
    gives: bool = False
    channel: str = ""
    also: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """Go on at the next operation when the rule holds, else at ``otherwise``."""

    judge: Judge
    otherwise: int


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on elsewhere; past the end it is over."""

    to: int


@dataclass(frozen=True, slots=True)
class Fork:
    """Go on at the next operation when what the journey knows (the event heard last, the arm) looks like that, else at ``otherwise``."""

    where: Predicate
    otherwise: int


@dataclass(frozen=True, slots=True)
class Until:
    """Go on at an instant that the profile implies; where there is none, at ``otherwise`` and at once."""

    due: Callable[[Profile, Instance, int], int | None]
    otherwise: int


@dataclass(frozen=True, slots=True)
class Act:
    """Change the profile (saying so in ``dirty``), or what the journey knows.

    ``issues``: a coupon. ``owed``: one that a letter names later on; it is issued with that letter, if that goes out.
    """

    act: Callable[[Profile, Instance, int], None]
    issues: bool = False
    owed: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """Give people something to do: a moment, too. ``template`` is its title."""

    step: str
    template: str
    queue: str
    assignee: str
    due: Duration | None
    payload: tuple[PayloadPart, ...] = ()


@dataclass(frozen=True, slots=True)
class Audience:
    """Put the customer on a list kept elsewhere, or take him off: a moment, too."""

    step: str
    dest: str
    name: str
    adds: bool

    @property
    def template(self) -> str:
        """Which list, as ``Profile.entries`` and people know it."""
        return on_audience(self.dest, self.name)


@dataclass(frozen=True, slots=True)
class Erase:
    """Forget the customer: a moment, too."""

    step: str
    template: str = "erase"


@dataclass(frozen=True, slots=True)
class Suppress:
    """Refuse these channels for the customer: a moment, too."""

    step: str
    channels: tuple[str, ...]
    template: str = "suppress"


@dataclass(frozen=True, slots=True)
class Leaving:
    """What takes somebody off an audience again."""

    dest: str
    name: str
    listener: Listener


def on_audience(dest: str, name: str) -> str:
    """Under which key ``Profile.entries`` holds since when somebody is on an audience."""
    return f"{AUDIENCE}{dest}/{name}"


Moment = Emit | Task | Audience | Erase | Suppress
Operation = Wait | WaitFor | Emit | Branch | Jump | Fork | Until | Act | Task | Audience | Erase | Suppress


def follow(program: Sequence[Operation], at: int) -> tuple[int, ...]:
    """The places that a journey may come to next from there."""
    operation = program[at]
    if isinstance(operation, Jump):
        return (operation.to,)
    if isinstance(operation, WaitFor):
        return (operation.on_event, operation.on_timeout)
    if isinstance(operation, Branch | Fork | Until):
        return (at + 1, operation.otherwise)
    return (at + 1,)


_NAMED: Final = re.compile(r"\{(\w+)\}")


def filled(text: str, context: dict[str, Any]) -> str:
    """``order_{nth}`` with what the journey knows by that name; what it does not know stays."""
    return _NAMED.sub(lambda found: str(context.get(found[1], found[0])), text) if "{" in text else text


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class ConsentRule:
    """What must be agreed to at the moment of sending. ``opt_out``: it is enough that it was not refused."""

    channel: str
    topic: str
    opt_out: bool


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a trigger is for, in reports.

    Attributes:
        name: what it is, as text that equal ones share; ``ORDER``: an order that counts.
        within_ms: for how long after a moment it is the moment's own.
        wanted: event type -> how such an event must look; of an order empty, as the order book tells.
        said: all of that as text.
    """

    name: str
    within_ms: int
    wanted: Mapping[str, Predicate | None] = field(default_factory=dict)
    said: str = ""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a journey is over whatever it waits for: its order (by the journey's key) is in none of these statuses."""

    statuses: frozenset[str | None]

    def over(self, profile: Profile, key: str) -> dict[str, Any] | None:
        """What ended it, ``None``: nothing did. Of an order of which nothing is known the status is ``None``."""
        order = profile.orders.get(key)
        status = order.status() if order is not None else None
        return None if status in self.statuses else {"state": "order.status", "is": status}


@dataclass(frozen=True, slots=True)
class CompiledTrigger:
    """A trigger, ready to run.

    Attributes:
        revision: content hash of its document.
        key: property of the opening event that tells instances apart; "" for one at a time.
        again: ``every``, ``once``, how long after the last entry the next may be, the ``day`` … ``year`` that has one, or ``grant``:
            once until its consent is refused.
        max_age_ms: a moment decided later than this after it was due is ``expired`` (R17).
        pace_ms: over how long moments that are decided late are spread (R17).
        keeps: properties of the event heard last that its branches and payloads ask for.
        leaves: what takes somebody off the audiences that its steps put him on.
        limits: what holds its moments back beside consent.
        on_channel: the same of moments that name a channel.
        alongside: the same where they go beside one that went out: only what is counted by the channel.
        key_asked: ``when`` names ``$key``: a key -> the condition, of that one.
        conversion: what it is for, in reports, where it says so.
        expires: what it cannot outlive.
        priority: of several moments of one instant the greatest comes first, and takes what room there is under a cap.
        migration: what becomes of journeys under way when another version comes into force (``rules/versions.py``).
        origins: for each operation the step that it was made of, as text.
        skips_late: of several moments that were missed, only the newest goes out.
        says, document: as written, for people.
    """

    name: str
    revision: str
    kind: str
    topic: str
    entry: Entry
    key: str
    when: Judged | None
    cancel: tuple[Listener, ...]
    restart: tuple[Listener, ...]
    again: str | Duration
    consent: ConsentRule | None
    max_age_ms: int
    pace_ms: int
    program: tuple[Operation, ...]
    keeps: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    on_channel: Mapping[str, Limits] = field(default_factory=dict)
    alongside: Mapping[str, Limits] = field(default_factory=dict)
    key_asked: Callable[[str], Judged] | None = None
    conversion: Conversion | None = None
    skips_late: bool = False
    leaves: tuple[Leaving, ...] = ()
    expires: Expiry | None = None
    priority: int = 0
    migration: str = "drain"
    origins: tuple[str, ...] = ()
    says: str = ""
    document: Any = None

    @property
    def may_be_regretted(self) -> bool:
        """Whether anything told late could show that its letters should not have gone."""
        return bool(self.cancel) or bool(self.entry.segment) or self.entry.stays

    def asks(self, key: str) -> Judged | None:
        """The condition of a journey of this key, if there is one."""
        return self.when if self.key_asked is None else self.key_asked(key)

    def consent_of(self, emit: Emit) -> ConsentRule | None:
        """What must be agreed to for this moment."""
        return (
            replace(self.consent, channel=emit.channel) if self.consent is not None and emit.channel else self.consent
        )

    def consents(self, at: int) -> tuple[ConsentRule, ...]:
        """All that a journey at this place may still need to be agreed to; of a trigger that sends nothing its own."""
        if self.consent is None:
            return ()
        if not any(isinstance(one, Emit) for one in self.program):
            return (self.consent,)
        asked = (self.consent_of(one) for one in self.program[at:] if isinstance(one, Emit))
        return tuple(dict.fromkeys(one for one in asked if one is not None))

    def limits_of(self, emit: Emit, *, beside: bool) -> Limits:
        """What holds this moment back. ``beside``: the one that it goes along with went out."""
        if beside and emit.also:
            return self.alongside[emit.channel]
        return self.on_channel.get(emit.channel, self.limits)

    def hears(self) -> set[str]:
        """Event types that its live instances listen to."""
        heard = {name for listener in (*self.cancel, *self.restart) for name in listener.types}
        for operation in self.program:
            if isinstance(operation, WaitFor):
                heard |= {name for one in (*operation.listeners, *operation.reset) for name in one.types}
        return heard

    def next_emit(self, at: int) -> Moment | None:
        """The next moment that a journey at this place would come to, taking no branch for granted."""
        for operation in self.program[at:]:
            if isinstance(operation, Moment):
                return operation
        return None


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """What a kind of entry says of itself.

    Attributes:
        name: the key under ``on`` that names it.
        keys: all keys it allows beside its name.
        compile: (node of ``on``, the trigger's name, scope) -> entry.
        words: ``on`` in plain words, in either language, to follow "when".
        examples: scenarios of a trigger called ``it``; executed by a test, printed in the reference.
    """

    name: str
    says: str
    keys: tuple[str, ...]
    compile: Callable[[Node, str, Scope], Entry]
    words: Words | None = None
    examples: tuple[str, ...] = ()


class Maker(Protocol):
    """What lays steps end to end, as a step sees it.

    Attributes:
        program: the operations so far; a step appends its own.
        leaves: what takes somebody off an audience; a step appends its own.
        arms: of the experiments so far; a step adds its own.
        jumps: (place in the program, the node that names it) of labels that are still to come.
    """

    trigger: str
    key: str
    program: list[Operation]
    jumps: list[tuple[int, Node]]
    leaves: list[Leaving]
    arms: dict[str, None]

    @property
    def scope(self) -> TriggerScope:
        """What the compiler offers."""
        ...

    def add(self, steps: Iterable[Node]) -> None:
        """Lay more steps."""
        ...

    def next_step(self) -> str:
        """The number of the next moment."""
        ...

    def listeners(self, node: Node) -> tuple[Listener, ...]:
        """What ``{event: …, where: …}`` listens to."""
        ...

    def payload(self, node: Node | None) -> tuple[PayloadPart, ...]:
        """What a task is about."""
        ...

    def next_coupon(self) -> int:
        """The number of the next coupon."""
        ...


@dataclass(frozen=True, slots=True)
class StepSpec:
    """What a step says of itself.

    Attributes:
        name: the key that names it.
        says: one line, for the reference.
        compile: (what stands under its name, the maker): appends its operations.
        words: what stands under its name in plain words, in either language.
        examples: scenarios of a trigger called ``it``; executed by a test.
    """

    name: str
    says: str
    compile: Callable[[Node, Maker], None]
    words: Callable[[Any, Tongue], str]
    examples: tuple[str, ...] = ()


class TriggerScope(Scope, Protocol):
    """What the compiler offers those who compile triggers: the scope of operators, the kinds of entry, and the steps."""

    trigger_kinds: dict[str, TriggerSpec]
    policies: dict[str, Node]
    lists: dict[str, Node]
    locale: str
    free_delivery_minor: int | None
    steps: dict[str, StepSpec]

    def looks_of(self, goal: str) -> tuple[Mapping[str, Predicate | None], str]:
        """Which events reach a goal: their types and how they must look; and the same as text."""
        ...

    def stated(self, path: str, node: Node) -> Field | None:
        """The declared field that a statement of a trait must fit, if there is one; a trait that is worked out is a mistake
        at ``node``: nobody can state it."""
        ...
