"""Trigger documents -> programs: steps in the order written become a flat list that journeys walk through."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from profiles.aggregates import latest
from profiles.catalogue import BACK_IN_STOCK, PRICE_DROPPED, PRODUCT_ARRIVED
from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, Duration
from profiles.state import STATUSES
from profiles.taxonomy import EVENT_TYPES
from profiles.wire import Event
from rules import payloads
from rules.documents import KEY, Node
from rules.limits import CALENDAR, GRANT, POLICY_PARTS, by_channel, compile_limits, counting
from rules.predicates import CUSTOM, Predicate, conditions, read_by
from rules.program import (
    EXIT,
    ORDER,
    Act,
    Branch,
    CompiledTrigger,
    ConsentRule,
    Conversion,
    Emit,
    Entry,
    Expiry,
    Fork,
    Jump,
    Leaving,
    Listener,
    Operation,
    PayloadPart,
    TriggerScope,
    Wait,
    WaitFor,
    follow,
    key_of,
)
from rules.slips import did_you_mean, nearest
from rules.spec import GOAL_REACHED, Judged
from rules.versions import MIGRATIONS

KEYS: Final = (
    "class", "topic", "priority", "says", "on", "key", "when", "cancel_on", "restart_on", "re_entry", "expires", "consent", "quiet", "limits", "holdout", "max_age", "pace", "late_steps", "migration", "conversion", "steps",
)  # fmt: skip
CLASSES: Final = ("marketing", "transactional")
PACE_MS: Final = 10 * MINUTE_MS
BASIC_STEPS: Final = ("wait", "wait_for", "emit", "branch", "exit")
"""Those that this module lays itself; the others are in ``rules/steps``."""
PRIORITY_MAX: Final = 1_000
CONVERSION_MS_MAX: Final = 90 * DAY_MS
_MADE: Final = (GOAL_REACHED, "session_started", "session_ended", PRICE_DROPPED, BACK_IN_STOCK, PRODUCT_ARRIVED)
_WAYS_IN: Final = (
    ("dwel", "segment: NAME, dwelt: P2D"), ("exit|lea|left", "segment: NAME, change: exited"),
    ("segment|enter", "segment: NAME, change: entered"), ("birth|anniv", "date: birth_date, anniversary: true"),
    ("sched|cron|^at$", "over: NAME, at: 2026-11-24T09:00"),
)  # fmt: skip
"""What people call a way in, and how it is written."""
_KEYS_MAX: Final = 20
_CONDITIONS_MAX: Final = 256


def compile_trigger(name: str, node: Node, scope: TriggerScope, *, enters: bool = True) -> CompiledTrigger | None:
    """Compile one trigger; ``None`` when a mistake leaves nothing to run. ``enters``: it is in force, and somebody may enter."""
    node.known(KEYS, required=("on", "steps"))
    on, steps = node.get("on"), node.get("steps")
    if on is None or steps is None:
        return None
    entry = _entry(name, on, scope) if enters else _types_of(on, scope)
    when, key, kind, topic = node.get("when"), node.get("key"), node.get("class"), node.get("topic")
    again, max_age, says = node.get("re_entry"), node.get("max_age"), node.get("says")
    late, migration, priority = node.get("late_steps"), node.get("migration"), node.get("priority")
    kind_name = kind.choice(CLASSES) if kind is not None else CLASSES[0]
    topic_name = topic.text() if topic is not None else name
    policy = scope.policies.get(kind_name)
    parts = {
        part: one
        for part in POLICY_PARTS
        for of in (policy, node)
        if of is not None and (one := of.get(part)) is not None
    }
    consent = _consent(parts.get("consent"), topic_name)
    channel = consent.channel if consent is not None else "email"
    # A bill takes no room from letters: what is counted is of one class.
    names = {
        "class": kind_name,
        "channel": f"{kind_name}:{channel}",
        "topic": f"{kind_name}:{topic_name}",
        "trigger": name,
    }
    key_name = key.text() if key is not None else ""
    asked, key_asked = _condition(when, scope)
    maker = _Maker(scope, name, key_name, entry.types if entry is not None else (), key_asked or (lambda key: asked))
    if steps.value in ([], None):
        steps.wrong("at least one step wanted, got none")
    maker.add(steps if steps.value is not None else ())
    maker.close()
    if entry is None:
        return None
    limits = compile_limits(parts, names, scope)
    sent = [one for one in maker.program if isinstance(one, Emit) and one.channel]
    on_channel = {
        one.channel: compile_limits(parts, {**names, "channel": f"{kind_name}:{one.channel}"}, scope) for one in sent
    }
    return CompiledTrigger(
        name=name,
        revision=hashlib.blake2b(
            json.dumps(node.plain(), sort_keys=True, default=str).encode(), digest_size=4
        ).hexdigest(),
        kind=kind_name,
        topic=topic_name,
        entry=entry,
        key=key_name,
        when=asked,
        key_asked=key_asked,
        cancel=_listeners(node.get("cancel_on"), scope, remembered=True),
        restart=_own(_listeners(node.get("restart_on"), scope), entry.types, key_name),
        again=_again(again, consent),
        consent=consent,
        limits=limits,
        on_channel=on_channel,
        alongside={one.channel: by_channel(on_channel[one.channel]) for one in sent if one.also},
        conversion=_conversion(node.get("conversion"), scope),
        leaves=tuple(maker.leaves),
        expires=_expires(node.get("expires"), key),
        priority=priority.integer(least=-PRIORITY_MAX, most=PRIORITY_MAX) if priority is not None else 0,
        migration=migration.choice(MIGRATIONS) if migration is not None else MIGRATIONS[0],
        origins=tuple(maker.origins),
        skips_late=late is not None and late.choice(("send", "skip")) == "skip",
        pace_ms=_pace(node.get("pace")),
        max_age_ms=max_age.duration().about_ms() if max_age is not None else 24 * HOUR_MS,
        program=tuple(maker.program),
        keeps=tuple(maker.kept),
        says=says.text() if says is not None else "",
        document=node.plain(),
    )


def counting_all(
    triggers: dict[str, CompiledTrigger], earlier: dict[tuple[str, str], CompiledTrigger]
) -> tuple[dict[str, CompiledTrigger], dict[tuple[str, str], CompiledTrigger]]:
    """The same, the limits of each knowing all caps that its moments count for."""
    everyone: list[tuple[Any, CompiledTrigger]] = [*triggers.items(), *earlier.items()]
    known = {
        (name, part, channel): one
        for name, trigger in everyone
        for part, of in (("", {"": trigger.limits}), ("on", trigger.on_channel), ("beside", trigger.alongside))
        for channel, one in of.items()
    }
    counts = counting(known)

    def counted(name: Any, trigger: CompiledTrigger) -> CompiledTrigger:
        return replace(
            trigger,
            limits=counts[name, "", ""],
            on_channel={one: counts[name, "on", one] for one in trigger.on_channel},
            alongside={one: counts[name, "beside", one] for one in trigger.alongside},
        )

    return (
        {name: counted(name, one) for name, one in triggers.items()},
        {name: counted(name, one) for name, one in earlier.items()},
    )


def _condition(node: Node | None, scope: TriggerScope) -> tuple[Judged | None, Callable[[str], Judged] | None]:
    """Who may enter. A condition that names ``$key`` is one for each key: made when it is asked for, of what the profile
    itself holds, as statistics must be kept from before."""
    if node is None:
        return None, None
    if KEY not in _words_in(node.plain()):
        return scope.rule(node), None
    told = len(node.mistakes)
    of_any = scope.rule(_with_key(node, "key"))
    if len(node.mistakes) == told and any(what == "aggregate" for what, _ in of_any.reads):
        node.wrong(
            f"a condition with {KEY}: on orders, traits, segments and consents only, as nothing else is kept for each key"
        )
    return of_any, lru_cache(_CONDITIONS_MAX)(lambda key: scope.rule(_with_key(node, key)))


def _words_in(plain: Any) -> set[str]:
    if isinstance(plain, dict):
        plain = list(plain.values())
    if isinstance(plain, list):
        return set().union(*map(_words_in, plain))
    return {plain} if isinstance(plain, str) else set()


def _with_key(node: Node, key: str) -> Node:
    inside = node.value
    if isinstance(inside, dict):
        return node.made({name: _with_key(one, key) for name, one in inside.items()})
    if isinstance(inside, list):
        return node.made([_with_key(one, key) for one in inside])
    return node.made(key) if inside == KEY else node


def _conversion(node: Node | None, scope: TriggerScope) -> Conversion | None:
    """``{event: order_completed, within: P7D}``, or of another event with ``where``, or ``{goal: subscribe, within: P7D}``: what a
    moment is for, and for how long after it that is its own."""
    if node is None:
        return None
    node.known(("event", "where", "goal", "within"), required=("within",))
    event, goal, looks, within = (node.get(key) for key in ("event", "goal", "where", "within"))
    if (event is None) == (goal is None) or (goal is not None and looks is not None):
        node.wrong("conversion: either an 'event', which may have a 'where', or a 'goal' wanted")
        return None
    length_ms = within.duration().about_ms() if within is not None else 0
    if within is not None and length_ms > CONVERSION_MS_MAX:
        within.wrong(f"within: 90 days at most wanted, got {within.found()}")
    if goal is not None:
        name = scope.goal(goal.text(), goal)
        of_goal, said = scope.looks_of(name)
        told: dict[str, Predicate | None] = {GOAL_REACHED: lambda props: props.get("goal") == name}
        found = Conversion(f"goal {name}", length_ms, {**of_goal, **told}, said)
        named, types = goal, tuple(of_goal)
    else:
        assert event is not None
        named, types = event, scope.event_types(event)
        where, said = conditions(looks, types, currency=scope.currency)
        if types == (ORDER,) and looks is None:
            return Conversion(ORDER, length_ms)
        name = " or ".join(types) + (f" {said}" if looks is not None else "")
        found = Conversion(name, length_ms, dict.fromkeys(types, where), said)
    if made := [one for one in types if one in _MADE]:
        named.wrong(f"conversion: what lies on a topic wanted, got {made[0]}, which the engine makes")
    return found


def _pace(node: Node | None) -> int:
    if node is None:
        return PACE_MS
    pace_ms = node.length_ms("PT10M")
    if pace_ms < MINUTE_MS:
        node.wrong(f"a minute or more wanted, like PT10M, got {node.found()}")
    return pace_ms


def _entry(name: str, on: Node, scope: TriggerScope) -> Entry | None:
    kinds = [kind for kind in scope.trigger_kinds if on.get(kind) is not None]
    if len(kinds) != 1:
        meant = "" if kinds else _way_meant(on, scope.trigger_kinds)
        on.wrong(f"one of {', '.join(scope.trigger_kinds)} wanted, got {' and '.join(kinds) or on.found()}{meant}")
        return None
    spec = scope.trigger_kinds[kinds[0]]
    on.known((spec.name, *spec.keys))
    return spec.compile(on, name, scope)


def _way_meant(on: Node, kinds: Iterable[str]) -> str:
    """How the way in is written that was probably meant."""
    if isinstance(on.value, list):
        return "; several events go as {event: [registered, logged_in]}"
    if isinstance(on.value, str):
        on = on.made({on.value: on.made("vip")})
    word, said = next(iter(on.value.items()), ("", on)) if on.is_map() else ("", on)
    if nearest(word, kinds, alike=0.75):
        return did_you_mean(word, kinds)
    looks = ((f"^{one}$", f"event: {one}") for one in EVENT_TYPES)
    way = next((way for look, way in (*looks, *_WAYS_IN) if re.search(look, word)), "")
    name = said.value if isinstance(said.value, str) else "vip"
    return f"; did you mean {{{way.replace('NAME', name)}}}?" if way else ""


def _types_of(on: Node, scope: TriggerScope) -> Entry:
    """An entry that nobody comes through any more; its events are what the steps ask about."""
    event = on.get("event")
    return Entry(types=scope.event_types(event) if event is not None else ())


def _again(node: Node | None, consent: ConsentRule | None) -> str | Duration:
    if node is None:
        return "every"
    if node.is_map():
        node.known(("after", "per"))
        after, per = node.get("after"), node.get("per")
        if (after is None) == (per is None):
            node.wrong("re_entry: either 'after' or 'per' wanted")
            return "every"
        unit = per.choice((*CALENDAR, GRANT)) if per is not None else "every"
        if unit == GRANT and consent is None:
            node.wrong(f"per: {GRANT} goes with a `consent`, got none")
        return after.duration() if after is not None else unit
    return node.choice(("every", "once"))


def _expires(node: Node | None, key: Node | None) -> Expiry | None:
    """``{state: order.status, not_in: [confirmed, paid]}``, or ``in`` with those that end it."""
    if node is None:
        return None
    node.known(("state", "in", "not_in"), required=("state",))
    state, gone, stay = node.get("state"), node.get("in"), node.get("not_in")
    if state is not None:
        state.choice(("order.status",))
    if key is None or key.value != "order_id":
        node.wrong("expires: an order's status goes with `key: order_id`")
    if (gone is None) == (stay is None):
        node.wrong("expires: either 'in' or 'not_in' wanted")
        return None
    named = frozenset(one.choice(STATUSES) for one in (gone if gone is not None else stay) or ())
    return Expiry(named if stay is not None else frozenset((None, *STATUSES)) - named)


def _consent(node: Node | None, topic: str) -> ConsentRule | None:
    if node is None or node.value == "none":
        return None
    node.known(("channel", "topic", "mode"), required=("channel",))
    channel, named, mode = node.get("channel"), node.get("topic"), node.get("mode")
    return ConsentRule(
        channel.text() if channel is not None else "email",
        named.text() if named is not None and named.value != "$trigger.topic" else topic,
        mode is not None and mode.choice(("opt_in", "opt_out")) == "opt_out",
    )


def _listeners(node: Node | None, scope: TriggerScope, *, remembered: bool = False) -> tuple[Listener, ...]:
    found: list[Listener] = []
    for one in node if node is not None else ():
        keys = ("event", "where", "match", "or", "state")
        one.known(keys)
        state, event = one.get("state"), one.get("event")
        if state is not None:
            state.choice(("cart.empty",))
            found.append(Listener((), cart_empty=True))
            continue
        if event is None:
            if not one.is_map() or all(key in keys for key in one.value):  # Else it is the one misspelt.
                one.wrong("'event' or 'state' is missing")
            continue
        types = scope.event_types(event)
        where, said = conditions(one.get("where"), types, currency=scope.currency)
        match, covers = one.get("match"), one.get("or")
        key = match.text() if match is not None else ""
        found.append(
            Listener(
                types,
                where,
                key,
                covers is not None and covers.choice(("covers_items",)) == "covers_items",
                heard=_last_heard(types, where, said, key, scope) if remembered and types else 0,
            )
        )
    return tuple(found)


def _own(restarts: tuple[Listener, ...], opening: tuple[str, ...], key: str) -> tuple[Listener, ...]:
    """The same, where an event that could open a journey begins that of its own key anew, and no other."""
    found: list[Listener] = []
    for one in restarts:
        own = tuple(name for name in one.types if name in opening) if key and not one.match else ()
        others = tuple(name for name in one.types if name not in own)
        found += [replace(one, types=own, match=key)] if own else []
        found += [replace(one, types=others)] if others or not own else []
    return tuple(found)


def _last_heard(types: tuple[str, ...], where: Predicate | None, said: str, match: str, scope: TriggerScope) -> int:
    """Keep when it happened last: for what turns out to have happened before it, though it is told after it."""

    def values(event: Event) -> list[Any]:
        if where is not None and not where(event.props):
            return []
        return [None, key_of(event, match)] if match else [None]

    return scope.aggregate(latest.SPEC, types, f"{','.join(types)}|{said}|{match}|heard", values, _KEYS_MAX)


class _Maker:
    """Lays steps end to end; a jump to ``EXIT`` is set to the program's end when it is known."""

    def __init__(
        self, scope: TriggerScope, trigger: str, key: str, heard: tuple[str, ...], asks: Callable[[str], Judged | None]
    ) -> None:
        self.scope = scope
        self.trigger = trigger
        self.key = key
        self.asks = asks
        self.heard = heard  # types of the event that a branch would ask about
        self.kept: dict[str, None] = {}
        self.program: list[Operation] = []
        self.origins: list[str] = []
        self.step = ""  # the one being laid
        self.jumps: list[tuple[int, Node]] = []
        self.leaves: list[Leaving] = []
        self.arms: dict[str, None] = {}
        self.emits = 0
        self.coupons = 0

    def next_step(self) -> str:
        self.emits += 1
        return str(self.emits)

    def listeners(self, node: Node) -> tuple[Listener, ...]:
        return _listeners(node, self.scope)

    def next_coupon(self) -> int:
        self.coupons += 1
        return self.coupons

    def add(self, steps: Iterable[Node]) -> None:
        outer = self.step
        for step in steps:
            self._originate()
            self.step = json.dumps(step.plain(), sort_keys=True, default=str)
            known = (*BASIC_STEPS, *self.scope.steps)
            named = [name for name in known if step.get(name) is not None] if step.is_map() else []
            if step.value == "exit":
                self.program.append(Jump(EXIT))
            elif len(named) != 1:
                self._no_step(step, named, known)
            else:
                step.known((named[0],))
                inside = step.get(named[0])
                assert inside is not None
                if named[0] in BASIC_STEPS:
                    getattr(self, f"_{named[0]}")(inside)
                else:
                    self.scope.steps[named[0]].compile(inside, self)
            self._originate()
        self.step = outer

    def _no_step(self, step: Node, named: list[str], known: Iterable[str]) -> None:
        if named:
            step.wrong(f"one step an entry wanted, got {' and '.join(named)}: each begins with a '-' of its own")
            return
        first = next(iter(step.value), "") if step.is_map() else step.value
        meant = did_you_mean(first, known) if isinstance(first, str) and first not in known else ""
        step.wrong(f"a step wanted: one of {', '.join(known)}, got {step.found()}{meant}")

    def _originate(self) -> None:
        """What was laid by now is of the step that is being laid."""
        self.origins += [self.step] * (len(self.program) - len(self.origins))

    def close(self) -> None:
        end = len(self.program)
        for _, node in self.jumps:
            node.wrong(f"a `label` further down wanted, got {node.found()}")
        for i, operation in enumerate(self.program):
            if isinstance(operation, Jump) and operation.to == EXIT:
                self.program[i] = Jump(end)
            elif isinstance(operation, WaitFor):
                self.program[i] = replace(
                    operation,
                    on_event=end if operation.on_event == EXIT else operation.on_event,
                    on_timeout=end if operation.on_timeout == EXIT else operation.on_timeout,
                )
        for i, operation in enumerate(self.program):
            if isinstance(operation, Act) and operation.issues:
                self.program[i] = replace(operation, owed=self._is_given(i))

    def _is_given(self, issued: int) -> bool:
        """Whether a letter may name the coupon that is made there."""
        seen: set[int] = set()
        pending = list(follow(self.program, issued))
        while pending:
            at = pending.pop()
            if at in seen or at >= len(self.program):
                continue
            seen.add(at)
            operation = self.program[at]
            if isinstance(operation, Emit) and operation.gives:
                return True
            if not (isinstance(operation, Act) and operation.issues):
                pending += follow(self.program, at)
        return False

    def _exit(self, node: Node) -> None:
        self.program.append(Jump(EXIT))

    def _wait(self, node: Node) -> None:
        if not node.is_map():
            self.program.append(Wait(node.duration(), within_day=False))
            return
        node.known(("for", "at_most"), required=("for",))
        length, at_most = node.get("for"), node.get("at_most")
        within_day = at_most is not None and at_most.choice(("end_of_local_day",)) == "end_of_local_day"
        self.program.append(Wait(length.duration() if length is not None else Duration(days=1), within_day))

    def _wait_for(self, node: Node) -> None:
        keys = ("event", "where", "match", "timeout", "on_event", "on_timeout", "reset_on")
        node.known(keys, required=("event", "timeout"))
        timeout = node.get("timeout")
        heard = {key: one for key, one in node.items() if key in ("event", "where", "match")}
        listeners = _listeners(Node(heard, node.file, node.line, node.where, node.mistakes), self.scope)
        after = len(self.program) + 1
        ends = []
        for key in ("on_event", "on_timeout"):
            end = node.get(key)
            ends.append(EXIT if end is not None and end.choice(("go_on", "exit")) == "exit" else after)
        length = timeout.duration() if timeout is not None else Duration(days=1)
        reset = _listeners(node.get("reset_on"), self.scope)
        self.heard = tuple(name for one in listeners for name in one.types)
        self.program.append(WaitFor(listeners, reset, length, ends[0], ends[1]))

    def _branch(self, node: Node) -> None:
        ends: list[int] = []
        arms = list(node)
        for i, arm in enumerate(arms):
            arm.known(("if", "then", "else"))
            otherwise, condition, then = arm.get("else"), arm.get("if"), arm.get("then")
            if otherwise is not None:
                if i != len(arms) - 1:
                    arm.wrong("'else' comes last")
                self.add(otherwise)
                continue
            if condition is None or then is None:
                arm.wrong("'if' and 'then', or 'else' wanted")
                continue
            at = len(self.program)
            fork = self._test(condition)
            self.program.append(fork)
            self.add(then)
            ends.append(len(self.program))
            self.program.append(Jump(0))
            self.program[at] = replace(fork, otherwise=len(self.program))
        for at in ends:
            self.program[at] = Jump(len(self.program))

    def _test(self, condition: Node) -> Branch | Fork:
        """A rule; ``{event: {score: {lte: 6}}}``: how the event looked that was heard last; or ``{arm: evening}``."""
        event, arm = condition.get("event"), condition.get("arm")
        if arm is not None:
            condition.known(("arm",))
            names = frozenset(one.choice(self.arms) for one in arm) if self.arms else frozenset()
            if not self.arms:
                arm.wrong("arm: a `split` above wanted, got none")
            return Fork(lambda context: context.get("arm") in names, 0)
        if event is None:
            return Branch(self.scope.rule(condition).judge, 0)
        condition.known(("event",))
        where, _ = conditions(event, self.heard, of_anybody=True, currency=self.scope.currency)
        for one in event:
            self.kept.update(dict.fromkeys(kept for name, _ in one.items() for kept in read_by(name, self.heard)))
        if where is None:
            event.wrong("at least one condition wanted, got none")
            return Branch(self.scope.rule(condition).judge, 0)
        return Fork(lambda context: where(context.get("event", {})), 0)

    def payload(self, node: Node | None) -> tuple[PayloadPart, ...]:
        parts = self._parts(node)
        if node is not None and any(read is payloads.coupon for _, read, _ in parts):
            node.wrong("$coupon: goes with a letter, as it is issued with the one that names it")
        return parts

    def _parts(self, node: Node | None) -> tuple[PayloadPart, ...]:
        return payloads.parts_of(node, self.scope, self.key, self.asks, self._of_event)

    def _of_event(self, name: str, node: Node) -> str:
        """Keep a property of the event heard last; under which name."""
        conditions(node.made({name: node.made({"exists": node.made(value=True)})}), self.heard, of_anybody=True)
        kept = name.removeprefix(CUSTOM)
        self.kept[kept] = None
        return kept

    def _emit(self, node: Node) -> None:
        step = self.next_step()
        if not node.is_map():
            self.program.append(Emit(step, node.text(), ()))
            return
        node.known(("template", "payload", "channel"), required=("template",))
        template, payload, channel = node.get("template"), node.get("payload"), node.get("channel")
        given = payload.get("coupon") if payload is not None and payload.is_map() else None
        if payload is not None and given is not None and given.value == "auto":
            self.scope.steps["issue_coupon"].compile(given.made({"offer": given.made(self.trigger)}), self)
            payload = payload.made({**payload.value, "coupon": given.made("$coupon")})
        parts = self._parts(payload)
        gives = any(read is payloads.coupon for _, read, _ in parts)
        says = template.text() if template is not None else ""
        channels = channel.texts() if channel is not None else [""]
        if not channels or len(set(channels)) != len(channels):
            node.wrong("channel: one, or a list of different ones wanted")
        for i, one in enumerate(channels):
            self.program.append(Emit(self.next_step() if i else step, says, parts, gives, one, bool(i)))
