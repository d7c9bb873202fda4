"""What came of each trigger, counted from the topics: decisions, trigger records, what became of messages, orders.

    ledger = Ledger(currency="EUR")
    for record in topics: ledger.take(record.topic, record.value)
    told = report(ledger, "abandoned_cart", Window(…))

Whatever the order of the records and however often each comes (R12), the counts are the same: a moment stands under its id,
what became of a message is a set of marks on it, orders are the profile's own order book, fed with the same events.

A message's order is one that counted (paid, not cancelled or returned) within the window after the message (the trigger's ``conversion``), and to whom
several messages went, it is the last one's. A trigger may be for something else, another event or a goal: who did that is converted, and it is the last
message's of the triggers that are for the same. A moment that a hold-out or the arm ``control`` held back would have been sent but
for that: whoever had it is compared with whoever had a message.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from console import trials
from console.trials import Share
from profiles import orders
from profiles.errors import BadInput
from profiles.moments import DAY_MS, iso, parse_instant
from profiles.money import major
from profiles.state import Order, Profile
from profiles.taxonomy import EVENT_TYPES, resolve
from profiles.wire import DECISIONS, EMAIL_EVENTS, ORDER_EVENTS, TRIGGERS_PREFIX, Event, decode_event
from rules.program import ORDER, Conversion

HELD: Final = ("holdout", "control")
"""Reasons of moments that would have been sent, but for the comparison."""

_FATES: Final = {
    "sent": "sent",
    "delivered": "delivered",
    "opened": "opened",
    "link_clicked": "clicked",
    "bounced": "bounced",
    "marked_as_spam": "complained",
}
_BY_MACHINE: Final = "_by_machine"
_SEEN: Final = ("delivered", "opened", "clicked", "opened_by_machine", "clicked_by_machine")
"""What cannot become of a message that did not arrive."""


ORDINARY: Final = Conversion(ORDER, 7 * DAY_MS)
"""What a trigger is for that does not say."""
_TIMES_MAX: Final = 200
"""Of what somebody did, the newest times that are kept."""


class Done(NamedTuple):
    """Something that a message is for: an order that counts, with its amount, or another event."""

    at_ms: int
    amount_minor: int = 0


@dataclass(slots=True)
class Moment:
    """One eligible moment."""

    trigger: str
    step: str
    reason: str
    address: str
    at_ms: int
    experiment: str = ""
    arm: str = ""


class Window(NamedTuple):
    """Which moments are told of, and for how long an order is theirs.

    Attributes:
        from_ms, until_ms: of the moments.
        within_ms: an order counts during ``[moment, moment + within_ms)``; 0: as long as the trigger's conversion says.
        conversions: trigger -> what it is for, where it says so.
        touch: the latest message that was ``sent``, ``opened`` or ``clicked`` (by a person) has the order.
    """

    from_ms: int = 0
    until_ms: int = 1 << 62
    within_ms: int = 0
    touch: str = "sent"
    conversions: Mapping[str, Conversion] = MappingProxyType({})

    def of(self, trigger: str) -> int:
        """How long an order counts as brought by a moment of this trigger, ms."""
        return self.within_ms or self.converts(trigger).within_ms

    def converts(self, trigger: str) -> Conversion:
        """What this trigger is for."""
        return self.conversions.get(trigger, ORDINARY)


TOUCHES: Final = ("sent", "opened", "clicked")


@dataclass
class Ledger:
    """All that reports need of the topics.

    Attributes:
        currency: the shop's.
        moments_max: beyond so many the oldest are forgotten, and ``since_ms`` says from when on it is whole.
        asked: conversions that are no orders, by name.
        topics: where their events lie.
        unread: records that are not what their topic holds.
        divergent: records that say of a moment something else than one before it: never, but after a store that went back (R13).
    """

    currency: str
    moments_max: int = 500_000
    since_ms: int = 0
    unread: int = 0
    divergent: int = 0
    asked: Mapping[str, Conversion] = field(default_factory=dict)
    topics: frozenset[str] = field(init=False)
    moments: dict[str, Moment] = field(default_factory=dict)
    _variants: dict[str, tuple[str, str]] = field(default_factory=dict)
    _bytes: dict[str, int] = field(default_factory=dict)
    """Moment -> hash of its trigger record."""
    _marks: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _of_delivery: dict[str, str] = field(default_factory=dict)
    _books: dict[str, Profile] = field(default_factory=dict)
    _times: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    """Conversion -> address -> when it did that."""

    def __post_init__(self) -> None:
        self.topics = frozenset(resolve(name).topic for one in self.asked.values() for name in one.wanted)
        self._times = {name: {} for name in self.asked}

    def take(self, topic: str, value: bytes | None) -> None:
        """Count one record; one that was taken before changes nothing."""
        if value is None:
            return
        try:
            if topic == DECISIONS:
                self._decided(orjson.loads(value))
            elif topic.startswith(TRIGGERS_PREFIX):
                told = orjson.loads(value)
                said = hash(value)
                self.divergent += self._bytes.setdefault(told["trigger_id"], said) != said
                if told.get("experiment"):
                    self._variants[told["trigger_id"]] = (told["experiment"]["id"], told["experiment"]["arm"])
            elif topic in (EMAIL_EVENTS, ORDER_EVENTS) or topic in self.topics:
                self._heard(topic, decode_event(value))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, BadInput):
            self.unread += 1

    def _decided(self, told: dict[str, Any]) -> None:
        at_ms = parse_instant(told["at"])
        if told["trigger"] in ("link", "trait") or at_ms < self.since_ms:
            return
        moment = Moment(told["trigger"], told["step"], told["reason"] or "", told["address"], at_ms)
        if moment.reason == "control":
            moment.experiment, moment.arm = told["detail"]["id"], told["detail"]["arm"]
        known = self.moments.setdefault(told["decision_id"], moment)
        if known != moment:
            self.divergent += 1
            self.moments[told["decision_id"]] = moment
        if len(self.moments) > self.moments_max:
            self._forget_oldest()

    def _heard(self, topic: str, event: Event) -> None:
        if topic == EMAIL_EVENTS:
            self._became(event)
        elif topic == ORDER_EVENTS:
            self._ordered(event)
        for name, one in self.asked.items():
            if event.type in one.wanted and ((looks := one.wanted[event.type]) is None or looks(event.props)):
                people = self._times[name]
                times = people.setdefault(event.address, set())
                times.add(event.at_ms)
                if len(times) > _TIMES_MAX:
                    times.remove(min(times))
                if len(people) > 2 * self.moments_max:
                    for gone in sorted(people, key=lambda address: max(people[address]))[: len(people) // 10]:
                        del people[gone]

    def _became(self, event: Event) -> None:
        fate = _FATES.get(event.type.partition("_")[2])
        message, delivery = event.props.get("trigger_id"), event.props.get("delivery_id")
        if message is not None and delivery is not None:
            self._of_delivery[delivery] = message
        name = message if message is not None else delivery
        if fate is None or name is None:
            return
        is_reaction = fate in ("opened", "clicked")
        # As rules see it (rules/messages.py): of whom nobody says that it is a machine is a person.
        self._marks[name].add(fate + _BY_MACHINE if is_reaction and event.props.get("machine") else fate)
        if len(self._marks) > 4 * self.moments_max:
            self._forget_strangers()

    def _ordered(self, event: Event) -> None:
        book = self._books.get(event.address)
        if book is None:
            book = self._books[event.address] = Profile(event.address)
        EVENT_TYPES[event.type].change(book, event)
        book.carts.clear()
        if len(self._books) > 2 * self.moments_max:
            newest = sorted(self._books, key=lambda address: _last_ms(self._books[address]))
            for one in newest[: len(newest) // 10]:
                del self._books[one]

    def _forget_oldest(self) -> None:
        """Let go of the oldest tenth, and of what hangs on it."""
        times = sorted(one.at_ms for one in self.moments.values())
        self.since_ms = times[len(times) // 10] + 1
        self.moments = {name: one for name, one in self.moments.items() if one.at_ms >= self.since_ms}
        self._variants = {name: one for name, one in self._variants.items() if name in self.moments}
        self._bytes = {name: one for name, one in self._bytes.items() if name in self.moments}
        self._forget_strangers()
        self._books = {address: book for address, book in self._books.items() if _last_ms(book) >= self.since_ms}

    def _forget_strangers(self) -> None:
        """Messages of no moment of ours: a shop sends others, too."""
        self._of_delivery = {name: one for name, one in self._of_delivery.items() if one in self.moments}
        known = self.moments.keys() | self._of_delivery.keys()
        self._marks = defaultdict(set, {name: one for name, one in self._marks.items() if name in known})

    # --- what is asked of it ------------------------------------------------------------------------------------

    def addresses(self) -> list[str]:
        """Every address in it, to be looked up: which of them are one person?"""
        who = (address for people in self._times.values() for address in people)
        return list(dict.fromkeys((*(one.address for one in self.moments.values()), *self._books, *who)))

    def marks(self) -> dict[str, set[str]]:
        """Moment -> what became of its message: ``delivered``, ``opened``, ``opened_by_machine``, …"""
        found: dict[str, set[str]] = defaultdict(set)
        for name, marks in self._marks.items():
            found[self._of_delivery.get(name, name)] |= marks
        return found

    def variant(self, name: str) -> tuple[str, str]:
        """(experiment, arm) of a moment; empty where it is of none."""
        moment = self.moments[name]
        return self._variants.get(name, (moment.experiment, moment.arm))

    def times(self, conversion: str, leads: Mapping[str, str]) -> dict[str, list[Done]]:
        """Person -> when he did what triggers are for, by time. ``leads``: as for ``orders``."""
        joined: dict[str, set[int]] = defaultdict(set)
        for address, times in self._times.get(conversion, {}).items():
            joined[leads.get(address, address)] |= times
        return {person: [Done(one) for one in sorted(times)] for person, times in joined.items()}

    def orders(self, leads: Mapping[str, str]) -> dict[str, list[Done]]:
        """Person -> his orders that count, by time.

        Args:
            leads: address -> the address of the person; who is not in it leads to himself.
        """
        joined: dict[str, dict[str, Order]] = {}
        for address, book in self._books.items():
            person = leads.get(address, address)
            known = joined.get(person)
            joined[person] = dict(book.orders) if known is None else orders.joined(known, book.orders)
        found = {}
        for person, kept in joined.items():
            book = Profile(person)
            book.orders = kept
            found[person] = [Done(one.at_ms, one.amount_minor) for one in orders.fold(book, currency=self.currency)]
        return found


def _last_ms(book: Profile) -> int:
    return max((max(order.statuses.values(), default=0) for order in book.orders.values()), default=0)


@dataclass
class _Row:
    """What came of the moments of one step and variant."""

    eligible: int = 0
    emitted: int = 0
    suppressed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    marks: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    converted: int = 0
    orders: int = 0
    revenue_minor: int = 0


def report(ledger: Ledger, trigger: str, window: Window, leads: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What came of one trigger.

    Args:
        leads: address -> the address of the person; who is not in it leads to himself.
    Returns:
        Plain values: ``steps`` (one for each step and arm, with counts, shares and money), ``holdout`` (who had a message
        against who was held out; ``None`` where nobody was) and ``experiments`` (arm by arm).
    """
    leads = leads or {}
    marks, bought = ledger.marks(), ledger.orders(leads)
    converts = window.converts(trigger)
    reached = ledger.times(converts.name, leads) if converts.wanted else bought
    named = {
        name: one
        for name, one in ledger.moments.items()
        if one.trigger == trigger and window.from_ms <= one.at_ms < window.until_ms
    }
    credit = _last_touches(ledger, window, leads, marks, bought)
    converted = credit if reached is bought else _last_touches(ledger, window, leads, marks, reached, converts.name)
    rows: dict[tuple[str, str, str], _Row] = defaultdict(_Row)
    for name, moment in named.items():
        row = rows[(moment.step, *ledger.variant(name))]
        row.eligible += 1
        if moment.reason:
            row.suppressed[moment.reason] += 1
            continue
        row.emitted += 1
        for mark in _told(marks.get(name, set())):
            row.marks[mark] += 1
        mine = credit.get(name, [])
        row.converted += bool(converted.get(name))
        row.orders += len(mine)
        row.revenue_minor += sum(one.amount_minor for one in mine)
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for name, moment in named.items():
        if not moment.reason or moment.reason in HELD:
            key = (leads.get(moment.address, moment.address), ledger.variant(name)[0])
            first[key] = min(first.get(key, (moment.at_ms, name)), (moment.at_ms, name))
    return {
        "trigger": trigger,
        "from": iso(max(window.from_ms, ledger.since_ms)) if max(window.from_ms, ledger.since_ms) else None,
        "to": iso(window.until_ms) if window.until_ms < 1 << 62 else None,
        "conversion": converts.name,
        "within_s": window.of(trigger) // 1000,
        "touch": window.touch,
        "currency": ledger.currency,
        "steps": [_row(key, row, ledger.currency) for key, row in sorted(rows.items(), key=_by_step)],
        "holdout": _against_holdout(ledger, window.of(trigger), leads, bought, reached, named),
        "experiments": _experiments(ledger, window.of(trigger), leads, bought, reached, marks, first),
    }


def _by_step(item: tuple[tuple[str, str, str], _Row]) -> tuple[int, str, str, str]:
    step, experiment, arm = item[0]
    return (int(step) if step.isdigit() else 0, step, experiment, arm)


def _told(marks: set[str]) -> Iterable[str]:
    """The marks, with what follows of them: what was opened was delivered; whom a person opened is none of the machines'."""
    found = set(marks)
    if found & {*_SEEN}:
        found.add("delivered")
    for what in ("opened", "clicked"):
        if what in found:
            found.discard(what + _BY_MACHINE)
    return found


def _last_touches(
    ledger: Ledger,
    window: Window,
    leads: Mapping[str, str],
    marks: Mapping[str, set[str]],
    done: Mapping[str, list[Done]],
    conversion: str = "",
) -> dict[str, list[Done]]:
    """Moment -> what of that is its own: orders of all triggers, so that none is counted twice; else of those that are for this
    ``conversion``."""
    sent: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, moment in ledger.moments.items():
        is_for_it = not conversion or window.converts(moment.trigger).name == conversion
        if not moment.reason and is_for_it and (window.touch == "sent" or window.touch in marks.get(name, ())):
            sent[leads.get(moment.address, moment.address)].append((moment.at_ms, name))
    found: dict[str, list[Done]] = defaultdict(list)
    for person, messages in sent.items():
        messages.sort()
        for each in done.get(person, ()):
            before = [
                one for one in messages if one[0] <= each.at_ms < one[0] + window.of(ledger.moments[one[1]].trigger)
            ]
            if before:
                found[before[-1][1]].append(each)
    return found


def _row(key: tuple[str, str, str], row: _Row, currency: str) -> dict[str, Any]:
    step, experiment, arm = key
    count = row.marks.__getitem__
    delivered = count("delivered")
    return {
        "step": step,
        "experiment": experiment or None,
        "arm": arm or None,
        "eligible": row.eligible,
        "emitted": row.emitted,
        "suppressed": dict(sorted(row.suppressed.items())),
        "delivered": delivered,
        "bounced": count("bounced"),
        "complained": count("complained"),
        "opened": {"people": count("opened"), "machines": count("opened_by_machine")},
        "clicked": {"people": count("clicked"), "machines": count("clicked_by_machine")},
        "converted": row.converted,
        "orders": row.orders,
        "revenue": _money(row.revenue_minor, currency),
        "shares": {
            "opened_of_delivered": _rounded(Share(count("opened"), delivered).rate()),
            "clicked_of_delivered": _rounded(Share(count("clicked"), delivered).rate()),
            "clicked_of_opened": _rounded(Share(count("clicked"), count("opened")).rate()),
            "converted_of_delivered": _rounded(Share(row.converted, delivered).rate()),
        },
    }


# --- comparisons: by person, from his first moment on -------------------------------------------------------------


@dataclass
class _Group:
    people: int = 0
    opened: int = 0
    clicked: int = 0
    ordered: int = 0
    converted: int = 0
    revenue_minor: int = 0


def _grow(
    group: _Group,
    at_ms: int,
    within_ms: int,
    bought: Iterable[Done],
    reached: Iterable[Done],
    marks: Iterable[str] = (),
) -> None:
    mine = [one for one in bought if at_ms <= one.at_ms < at_ms + within_ms]
    group.people += 1
    group.converted += any(at_ms <= one.at_ms < at_ms + within_ms for one in reached)
    group.opened += "opened" in marks
    group.clicked += "clicked" in marks
    group.ordered += bool(mine)
    group.revenue_minor += sum(one.amount_minor for one in mine)


def _against_holdout(
    ledger: Ledger,
    within_ms: int,
    leads: Mapping[str, str],
    bought: Mapping[str, list[Done]],
    reached: Mapping[str, list[Done]],
    named: Mapping[str, Moment],
) -> dict[str, Any] | None:
    first: dict[str, tuple[int, bool]] = {}
    for moment in named.values():
        if not moment.reason or moment.reason == "holdout":
            person = leads.get(moment.address, moment.address)
            mine = (moment.at_ms, bool(moment.reason))
            first[person] = min(first.get(person, mine), mine)
    groups = {False: _Group(), True: _Group()}
    for person, (at_ms, is_held) in first.items():
        _grow(groups[is_held], at_ms, within_ms, bought.get(person, ()), reached.get(person, ()))
    sent, held = groups[False], groups[True]
    if not held.people:
        return None
    a, b = Share(sent.converted, sent.people), Share(held.converted, held.people)
    p, q = a.rate(), b.rate()
    return {
        "sent": _group(sent, ledger.currency),
        "held": _group(held, ledger.currency),
        "difference": _compared(a, b),
        "lift": _rounded(p / q - 1) if p is not None and q else None,
    }


def _experiments(
    ledger: Ledger,
    within_ms: int,
    leads: Mapping[str, str],
    bought: Mapping[str, list[Done]],
    reached: Mapping[str, list[Done]],
    marks: Mapping[str, set[str]],
    first: Mapping[tuple[str, str], tuple[int, str]],
) -> list[dict[str, Any]]:
    arms: dict[str, dict[str, _Group]] = defaultdict(lambda: defaultdict(_Group))
    for (person, experiment), (at_ms, name) in first.items():
        if experiment:
            arm = ledger.variant(name)[1]
            mine = bought.get(person, ()), reached.get(person, ())
            _grow(arms[experiment][arm], at_ms, within_ms, *mine, marks.get(name, ()))
    told = []
    aims = ("ordered",) if reached is bought else ("converted", "ordered")
    for experiment, groups in sorted(arms.items()):
        base = "control" if "control" in groups else min(groups)
        told.append(
            {
                "experiment": experiment,
                "base": base,
                "arms": [
                    {"arm": arm, **_group(group, ledger.currency), **_against(arm, group, base, groups[base], aims)}
                    for arm, group in sorted(groups.items())
                ],
            }
        )
    return told


def _against(arm: str, group: _Group, base: str, other: _Group, aims: tuple[str, ...]) -> dict[str, Any]:
    """How an arm does against the one that it is compared with. Who was sent nothing can have neither opened nor clicked."""
    measures = aims if base == "control" else ("opened", "clicked", *aims)
    if arm == base:
        return {"against": None}
    return {
        "against": {
            name: _compared(Share(getattr(group, name), group.people), Share(getattr(other, name), other.people))
            for name in measures
        }
    }


def _compared(a: Share, b: Share) -> dict[str, Any]:
    p, q = a.rate(), b.rate()
    return {
        "points": _rounded(p - q) if p is not None and q is not None else None,
        "interval": _rounded_pair(trials.difference(a, b)),
        "at_every_look": _rounded_pair(trials.at_every_look(a, b)),
        "verdict": trials.verdict(a, b),
    }


def _group(group: _Group, currency: str) -> dict[str, Any]:
    converted = Share(group.converted, group.people)
    return {
        "people": group.people,
        "converted": group.converted,
        "ordered": group.ordered,
        "rate": _rounded(converted.rate()),
        "interval": _rounded_pair(trials.interval(converted)),
        "revenue": _money(group.revenue_minor, currency),
    }


def _money(minor: int, currency: str) -> dict[str, Any]:
    return {"minor": minor, "currency": currency, "amount": major(minor, currency)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _rounded_pair(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else [round(one, 6) for one in pair]
