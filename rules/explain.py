"""Why a profile is in a segment or not, since when, and when that changes if nothing happens (SPEC D3).

Nothing here judges on its own: a copy of the profile is taken to the instant asked for by the engine's own ``step``,
state-only (R14), so timers that are due but not yet fired have fired in it; then the same compiled rules are asked
again, node by node. So what is told is what the worker will find, and a profile that no event has touched since the
rules changed is told by the rules of today; where that is not yet on record, ``pending`` says so.

*When it changes* is no promise of a verdict but the instant itself: the copy goes on from alarm to alarm, sessions
ending and all, until the segment's answer is another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from profiles import carts, orders, sessions
from profiles.codec import decode, encode
from profiles.ids import small_id, strength
from profiles.moments import FOREVER, iso
from profiles.money import price_text
from profiles.state import SESSION, STATUSES, Cart, Consent, Instance, Order, Profile, Refund
from profiles.wire import Wake
from rules.engine import step
from rules.projections import Projection
from rules.rulebook import CompiledSegment, Rulebook
from rules.say import in_words
from rules.spec import Judged, plain, shown
from rules.verdict import Verdict, at_least
from rules.whatif import least_changes

STEPS_MAX: Final = 4_000
"""Alarms looked ahead. A rule that counts days asks again at each midnight: eleven years of them."""


def last_input_ms(profile: Profile) -> int:
    """The instant before which nobody can say any more how the profile was."""
    return max(profile.seen_ms, profile.held[-1][0] if profile.held else 0)


def as_of(profile: Profile, rulebook: Rulebook, now_ms: int) -> Profile:
    """A copy of the profile as it is at ``now_ms`` if nothing more happens; before its last input, as of that.

    Timers that were due have fired, what was held is applied, and every segment is judged by these rules.
    """
    return _Present(profile, rulebook, now_ms).p


def explain(profile: Profile, segment: str, rulebook: Rulebook, now_ms: int) -> dict[str, Any]:
    """Why the profile is in that segment or not.

    Args:
        profile: what the store holds; it is not changed.
        segment: a segment's name.
        now_ms: the instant asked for, epoch ms; before the profile's last input it counts as that.
    Returns:
        Plain values in a fixed order:

        - ``segment``, ``says``, ``words`` (the rule in English and Russian), ``holds``; ``as_of``: the instant that this is about;
        - ``since``: when it was entered, ISO; ``None`` outside, or where that is not on record;
        - ``pending``: the answer is not on record yet: an alarm is about to be handled, or the rules are newer;
        - ``changes_at``: the first instant at which the answer is another one if nothing happens, ISO; ``None``: never,
          or, with ``looked_until``, not before that instant;
        - ``to_flip``: the least changes that would turn it at once, where that was asked for;
        - ``rule``: a node: ``op``, ``text``, ``holds``, ``until`` (time alone cannot change this node before), ``value``
          (what the profile has), ``events`` (the newest that made it so), ``children``, and ``segment``, the explanation
          of the segment that ``in_segment`` names (``None`` for any other node).
    Raises:
        KeyError: no segment of that name.
    """
    return explain_all(profile, rulebook, now_ms, [segment])[0]


def explain_all(
    profile: Profile, rulebook: Rulebook, now_ms: int, names: Iterable[str] | None = None, *, to_flip: bool = False
) -> list[dict[str, Any]]:
    """``explain`` of several segments (all of them unless named), in the order of their names.

    Args:
        to_flip: say also what would turn each answer at once (``rules.whatif``); it takes some ten milliseconds a segment.
    """
    present = _Present(profile, rulebook, now_ms)
    wanted = [present.by_name[name] for name in (sorted(present.by_name) if names is None else names)]
    flips, looked_until_ms = _flips(present.p, rulebook, wanted)
    told: list[dict[str, Any]] = []
    for segment in wanted:
        flips_ms = flips.get(segment.id)
        explanation, _ = present.explained(segment, {})
        rule = explanation.pop("rule")
        told.append(
            {
                "segment": segment.name,
                "says": segment.says,
                "words": in_words(segment),
                **explanation,
                "as_of": iso(present.p.seen_ms),
                "changes_at": iso(flips_ms) if flips_ms is not None else None,
                "looked_until": iso(looked_until_ms) if flips_ms is None and looked_until_ms is not None else None,
                "to_flip": least_changes(present.p, segment, rulebook) if to_flip else None,
                "rule": rule,
            }
        )
    return told


def describe(profile: Profile, rulebook: Rulebook, now_ms: int) -> dict[str, Any]:
    """All that the profile holds, as plain values in a fixed order, as of ``now_ms`` (see ``as_of``).

    ``traits`` are what the rules compute, ``said`` is what was stated of the person. ``alarm`` is the next instant at
    which something happens by itself. Money is ``{"minor", "currency", "amount"}``, a time is ISO.
    """
    present = _Present(profile, rulebook, now_ms)
    p = present.p
    now_ms = p.seen_ms
    alarm_ms = p.alarm_ms()
    traits = {
        path: plain(shown(reader.read(p, now_ms)[0], reader.kind, rulebook.currency))
        for path, reader in sorted(rulebook.readers.items())
    }
    return {
        "address": p.address,
        "as_of": iso(now_ms),
        "first_seen": iso(p.first_seen_ms) if p.first_seen_ms else None,
        "last_input": iso(last_input_ms(profile)),
        "traits": traits,
        "said": {
            name: {"value": _said(name, said.value, rulebook), "at": iso(said.at_ms), "source": said.source}
            for name, said in sorted(p.traits.items())
            if said.value is not None
        },
        "consents": [
            _consent(name, said) for name, said in sorted(p.consents.items()) if said.value is not None or said.before
        ],
        "carts": [_cart(name, cart, rulebook.currency) for name, cart in sorted(p.carts.items(), key=_newest_cart)],
        "session": _session(p),
        "orders": _orders(p),
        "journeys": [_journey(run, rulebook) for _, run in sorted(p.runs.items())],
        "segments": [
            {"segment": segment.name, "since": present.since(segment)}
            for segment in sorted(rulebook.segments, key=lambda one: one.name)
            if segment.id in p.members
        ],
        "alarm": iso(alarm_ms) if alarm_ms is not None else None,
        "links": [
            {"address": address, "linked_at": iso(link[0])}
            for address, link in sorted(p.links.items(), key=lambda item: (-strength(item[0]), item[0]))
        ],
    }


def project(profile: Profile, projection: Projection, rulebook: Rulebook, now_ms: int) -> dict[str, Any]:
    """What a projection lets be seen of a profile as of ``now_ms`` (see ``as_of``), as plain values.

    Args:
        profile: just decoded, and given up: it is taken to the instant itself, for others wait for the answer.
    Returns:
        ``as_of``, ``traits`` (path -> value, as in ``describe``) and ``segments`` (name -> whether he is in it).
    """
    now_ms = max(now_ms, last_input_ms(profile))
    step(profile, Wake(now_ms, backfill=True), rulebook)
    profile.seen_ms = now_ms
    members = profile.members
    needed = _with_those_read(
        (rulebook.segments[rulebook.place[small_id(name)]] for name in projection.segments), rulebook
    )
    for segment in rulebook.segments:  # In the order in which they stand on one another.
        if segment.id in needed and segment.judge(profile, now_ms)[0]:
            members.setdefault(segment.id, now_ms)
        elif segment.id in needed:
            members.pop(segment.id, None)
    return {
        "as_of": iso(now_ms),
        "traits": {
            path: plain(shown(reader.read(profile, now_ms)[0], reader.kind, rulebook.currency))
            for path, reader in projection.traits
        },
        "segments": {name: small_id(name) in members for name in projection.segments},
    }


def timeline(profile: Profile, rulebook: Rulebook, now_ms: int) -> list[dict[str, Any]]:
    """What the profile still knows of its past, newest first, as of ``now_ms`` (see ``as_of``).

    This is not the log: of events other than orders only what came of them is kept, and of segments only the ones the
    profile is in. Each entry has ``at``, ``what`` (a word) and what belongs to that word.
    """
    present = _Present(profile, rulebook, now_ms)
    p = present.p
    found: list[tuple[int, str, str, dict[str, Any]]] = []

    def add(at_ms: int, what: str, name: str, **more: Any) -> None:
        found.append((at_ms, what, name, more))

    if p.first_seen_ms:
        add(p.first_seen_ms, "first_seen", "")
    for order_id, order in p.orders.items():
        for status, at_ms in order.statuses.items():
            total = shown(order.total_minor, "money", order.currency) if order.told_ms >= 0 else None
            add(at_ms, "order", f"{order_id}:{status}", order_id=order_id, status=status, total=total)
        for refund_id, refund in order.refunds.items():
            add(refund.at_ms, "refund", f"{order_id}:{refund_id}", order_id=order_id, **_refund(refund, order.currency))
    for name, said in p.traits.items():
        if said.value is not None:
            add(said.at_ms, "said", name, trait=name, value=_said(name, said.value, rulebook), source=said.source)
    for name, word in p.consents.items():
        channel, _, topic = name.partition(":")
        for state, at_ms, source, _ in (word[:4], *word.before):
            if state is not None:
                add(at_ms, "consent", name, channel=channel, topic=topic, state=state, source=source)
    for segment in rulebook.segments:
        if segment.id in p.members and segment.id not in present.unrecorded:
            add(p.members[segment.id], "entered", segment.name, segment=segment.name)
    for key, run in p.runs.items():
        add(run.opened_ms, "journey", key, trigger=run.trigger, key=run.key, due_at=iso(run.due_ms))
    if p.session is not None:
        add(p.session.start_ms, "session", "", counts=dict(sorted(p.session.counts.items())))
    for address, link in p.links.items():
        add(link[0], "linked", address, address=address)
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    return [{"at": iso(at_ms), "what": what, **more} for at_ms, what, _, more in found]


# --- when it changes ---------------------------------------------------------------------------------------------


def _flips(present: Profile, rulebook: Rulebook, wanted: list[CompiledSegment]) -> tuple[dict[int, int], int | None]:
    """Segment id -> the first instant at which its answer is another one if nothing happens.

    Between two expiries of verdicts no answer changes, so only they are looked at. What is due at one instant is
    taken together: the answer before the instant is compared with the one after it.

    Returns:
        The instants; and how far was looked when there was more to look at, else ``None``.
    """
    copy = _copy(present)
    copy.runs.clear()  # Journeys change no segment.
    needed = _with_those_read(wanted, rulebook)
    before = {segment.id: segment.id in present.members for segment in wanted}
    found: dict[int, int] = {}
    for _ in range(STEPS_MAX):
        for name in [name for name in copy.timers if name != sessions.TIMER and name not in needed]:
            del copy.timers[name]
        due_ms = copy.alarm_ms()
        if due_ms is None:
            return found, None
        step(copy, Wake(due_ms, backfill=True), rulebook)
        copy.runs.clear()
        for segment in list(before):
            if (segment in copy.members) != before[segment]:
                found[segment] = due_ms
                del before[segment]
        if not before:
            return found, None
    return found, copy.seen_ms


def _with_those_read(wanted: Iterable[CompiledSegment], rulebook: Rulebook) -> set[int]:
    """The ids of these segments and of all that they stand on."""
    found: set[int] = set()
    pending = [segment.id for segment in wanted]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            reads = rulebook.segments[rulebook.place[one]].judged.reads
            pending += [small_id(which) for what, which in reads if what == "segment"]
    return found


# --- why ---------------------------------------------------------------------------------------------------------


class _Present:
    """The profile at an instant, and the rules asked about it.

    Attributes:
        p: a copy, stepped to the instant; its ``seen_ms`` is the instant.
        unrecorded: ids of segments that it is in by the rules of today only: since when, nobody knows.
    """

    def __init__(self, profile: Profile, rulebook: Rulebook, now_ms: int) -> None:
        self.stored = profile
        self.rulebook = rulebook
        self.by_name = {segment.name: segment for segment in rulebook.segments}
        self.p = p = _copy(profile)
        now_ms = max(now_ms, last_input_ms(profile))
        step(p, Wake(now_ms, backfill=True), rulebook)
        p.seen_ms = now_ms
        unrecorded: set[int] = set()
        for segment in rulebook.segments:
            holds, until_ms = segment.judge(p, now_ms)
            p.timers.pop(segment.id, None)
            if until_ms < FOREVER:
                p.timers[segment.id] = until_ms
            if not holds:
                p.members.pop(segment.id, None)
            elif segment.id not in p.members:
                p.members[segment.id] = now_ms
                unrecorded.add(segment.id)
        self.unrecorded = frozenset(unrecorded)

    def since(self, segment: CompiledSegment) -> str | None:
        """When it was entered, ISO; ``None`` outside, or where nobody knows."""
        since_ms = self.p.members.get(segment.id)
        return None if since_ms is None or segment.id in self.unrecorded else iso(since_ms)

    def explained(self, segment: CompiledSegment, told: dict[str, Verdict]) -> tuple[dict[str, Any], Verdict]:
        """A segment without its future. One that was told before in the same tree stands without its rule."""
        rule: dict[str, Any] | None = None
        verdict = told.get(segment.name)
        if verdict is None:
            rule, verdict = self.node(segment.judged, told)
            told[segment.name] = verdict
        explanation = {
            "segment": segment.name,
            "says": segment.says,
            "holds": verdict.holds,
            "since": self.since(segment),
            "pending": verdict.holds != (segment.id in self.stored.members),
            "rule": rule,
        }
        return explanation, verdict

    def node(self, judged: Judged, told: dict[str, Verdict]) -> tuple[dict[str, Any], Verdict]:
        """One node of a rule with all below it."""
        p, now_ms = self.p, self.p.seen_ms
        nested: dict[str, Any] | None = None
        children = [self.node(child, told) for child in judged.children]
        holds, until_ms = judged.judge(p, now_ms)
        if judged.op == "in_segment":
            (name,) = [which for what, which in judged.reads if what == "segment"]
            nested, (_, until_ms) = self.explained(self.by_name[name], told)
        elif children:
            # One failing rule keeps `all` failing: of the children, not of the judge, it is known which lasts longest.
            _, until_ms = at_least(judged.least, [verdict for _, verdict in children])
        elif p.session is not None and _ends_with_session(judged, self.rulebook):
            until_ms = min(until_ms, p.timers[sessions.TIMER])
        node = {
            "op": judged.op,
            "text": judged.text,
            "holds": holds,
            "until": iso(until_ms) if until_ms < FOREVER else None,
            "value": plain(judged.value(p, now_ms)) if judged.value is not None else None,
            "events": plain(judged.events(p, now_ms)) if judged.events is not None else [],
            "children": [child for child, _ in children],
            "segment": nested,
        }
        return node, Verdict(holds, until_ms)


def _ends_with_session(judged: Judged, rulebook: Rulebook) -> bool:
    """Whether the session's end, which is a timer and no event, may change this node."""
    return any(
        which & SESSION
        if what == "part"
        else what == "aggregate" and "session_ended" in rulebook.aggregate[which].types
        for what, which in judged.reads
    )


# --- what ---------------------------------------------------------------------------------------------------------


def _said(name: str, value: Any, rulebook: Rulebook) -> Any:
    reader = rulebook.readers.get(name)
    return plain(shown(value, reader.kind if reader is not None else "any", rulebook.currency))


def _consent(name: str, said: Consent) -> dict[str, Any]:
    channel, _, topic = name.partition(":")
    words = [
        {"state": state, "at": iso(at_ms), "source": source, "text": text or None}
        for state, at_ms, source, text in (said[:4], *said.before)
    ]
    return {"channel": channel, "topic": topic, **words[0], "before": words[1:]}


def _newest_cart(item: tuple[str, Cart]) -> tuple[int, str]:
    return -item[1].changed_ms, item[0]


def _cart(name: str, cart: Cart, currency: str) -> dict[str, Any]:
    money = cart.currency or currency
    return {
        "cart_id": name or None,
        "changed_at": iso(cart.changed_ms),
        "quantity": carts.quantity(cart),
        "total": shown(carts.total_minor(cart), "money", money),
        "items": [
            {"price": price_text(line["price_e6"], money), **{k: v for k, v in line.items() if k != "price_e6"}}
            for line in carts.payload(cart)
        ],
    }


def _session(p: Profile) -> dict[str, Any] | None:
    if p.session is None:
        return None
    return {
        "started_at": iso(p.session.start_ms),
        "last_at": iso(p.session.last_ms),
        "ends_at": iso(p.timers[sessions.TIMER]),
        "counts": dict(sorted(p.session.counts.items())),
    }


def _orders(p: Profile) -> list[dict[str, Any]]:
    counting = {counted.order_id for counted in orders.fold(p)}
    newest = sorted(p.orders.items(), key=lambda item: (-item[1].first_ms(), item[0]))
    return [_order(order_id, order, order_id in counting) for order_id, order in newest]


def _order(order_id: str, order: Order, counts: bool) -> dict[str, Any]:
    known = order.told_ms >= 0
    return {
        "order_id": order_id,
        "counts": counts,
        "statuses": {
            status: iso(at_ms)
            for status, at_ms in sorted(order.statuses.items(), key=lambda item: (item[1], STATUSES.index(item[0])))
        },
        "total": shown(order.total_minor, "money", order.currency) if known else None,
        "lines": [
            {**line._asdict(), "amount": shown(line.amount_minor, "money", order.currency)} for line in order.lines
        ],
        "refunds": [
            {"refund_id": refund_id, "at": iso(refund.at_ms), **_refund(refund, order.currency)}
            for refund_id, refund in sorted(order.refunds.items(), key=lambda item: (item[1].at_ms, item[0]))
        ],
        "facts": plain(dict(sorted(order.facts.items()))),
    }


def _refund(refund: Refund, currency: str) -> dict[str, Any]:
    """``amount`` is ``None`` for the whole order."""
    return {
        "amount": shown(refund.amount_minor, "money", currency) if refund.amount_minor >= 0 else None,
        "lines": [{"product_id": product, "quantity": quantity} for product, quantity in refund.lines],
    }


def _journey(run: Instance, rulebook: Rulebook) -> dict[str, Any]:
    trigger = rulebook.version_of(run)
    pending = trigger.next_emit(run.at) if trigger is not None else None
    return {
        "trigger": run.trigger,
        "key": run.key,
        "opened_at": iso(run.opened_ms),
        "opened_by": run.opened_by,
        "due_at": iso(run.due_ms),
        "next": {"step": pending.step, "template": pending.template} if pending is not None else None,
        "occasion": run.occasion,
        "cause": {"event": run.cause[0], "message_id": run.cause[1]},
        "revision": run.revision,
    }


def _copy(profile: Profile) -> Profile:
    return decode(profile.address, encode(profile))
