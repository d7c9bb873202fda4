"""Journeys: who enters a trigger, how one goes on, waits, hears, and ends; each moment ends in one decision.

A trigger is a flat program; a journey (``Instance``) is a place in it, with what it remembers. Whatever a moment comes to,
sent or not, leaves one decision record (D7).
"""

from __future__ import annotations

from typing import Any, Final

from profiles import carts, consent
from profiles.ids import trigger_id
from profiles.moments import DAY_MS, FOREVER, MINUTE_MS, Duration, day_number, day_start, iso
from profiles.people import zone_of
from profiles.state import SENT_MAX, Instance, Sent
from profiles.wire import (
    Event,
)
from rules import records
from rules.elsewhere import CONTROL, Elsewhere
from rules.limits import CALENDAR, GRANT, calendar
from rules.predicates import value_at
from rules.program import (
    Act,
    Audience,
    Branch,
    Chance,
    CompiledTrigger,
    Emit,
    Erase,
    Fork,
    Jump,
    Listener,
    Moment,
    Need,
    Suppress,
    Task,
    Until,
    Wait,
    WaitFor,
    filled,
    key_of,
    on_audience,
)
from rules.spec import reasons
from rules.versions import place_in

AT: Final = "at:"
NTH: Final = "nth:"
RUN: Final = "run:"
NEVER: Final = (-1,)
REGRETTED_MS: Final = 30 * DAY_MS
"""For how long a letter may be regretted: a till's receipt comes no later."""
LATE_MS: Final = MINUTE_MS
"""What happened longer ago than this when it is told, is told late."""
SAID_CHARS_MAX: Final = 500
"""Of a text that a journey remembers: it lies in the profile."""


class Journeys(Elsewhere):
    """The journeys of one profile, in one call of ``step``."""

    __slots__ = ()

    # --- entering -------------------------------------------------------------------------------------------------

    def _set_timers(self, dirty: int, now_ms: int, cause: tuple[str, str]) -> None:
        """Set the instants at which triggers enter that the profile itself implies: ages, run-outs; and let enter those
        that it has come to."""
        p = self.p
        self.looks |= dirty & self.rb.published_by
        for trigger, mask in self.rb.timed:
            if not dirty & mask:
                continue
            if trigger.entry.counted is not None:
                self._count(trigger, trigger.entry.counted(p), now_ms, cause)
                continue
            assert trigger.entry.timers is not None
            prefix = f"{AT}{trigger.name}:"
            wanted = trigger.entry.timers(p)
            for name in [name for name in p.timers if isinstance(name, str) and name.startswith(prefix)]:
                del p.timers[name]
            for key, (due_ms, chance) in wanted.items():
                name = prefix + key
                served = p.entries.get(name, NEVER)
                if due_ms <= served[0] or (len(served) > 1 and chance.since_ms <= served[1]):
                    continue  # That moment was served, or a later one was: an order taken back brings none again.
                if (due_ms <= now_ms and self.backfill) or (due_ms < now_ms and self.stale):
                    p.entries[name] = _served(due_ms, chance)
                    self._enter(trigger, key, chance, now_ms, ("backfill", name))
                else:
                    p.timers[name] = due_ms

    def _fire_entry(self, name: str, due_ms: int, now_ms: int, cause: tuple[str, str]) -> None:
        trigger_name, _, key = name[len(AT) :].partition(":")
        trigger = self.rb.triggers.get(trigger_name)
        if trigger is None or trigger.entry.timers is None:
            return
        due, chance = trigger.entry.timers(self.p).get(key, (0, None))
        if chance is not None and due == due_ms:
            self.p.entries[name] = _served(due_ms, chance)
            due, _ = trigger.entry.timers(self.p).get(key, (0, None))
            if due > due_ms:
                self.p.timers[name] = due  # The next of those that come again by themselves.
            self._enter(trigger, key, chance, now_ms, cause)

    def _count(self, trigger: CompiledTrigger, number: int, now_ms: int, cause: tuple[str, str]) -> None:
        """Enter once for each time more. Whoever the trigger meets late in life begins with the newest."""
        before = self.p.entries.get(f"{NTH}{trigger.name}")
        for one in range(before[0] + 1 if before else max(number, 1), number + 1):
            self._reached(trigger, one)
            because = {"node": f"{trigger.name}, time {one}", "value": one}
            self._enter(trigger, "", Chance(f"nth:{one}", because, {"nth": one}), now_ms, cause)
        if before is None and number == 0:
            self.p.entries[f"{NTH}{trigger.name}"] = [0]

    def _reached(self, trigger: CompiledTrigger, number: int) -> bool:
        """Whether that many times is more than ever before."""
        entries, name = self.p.entries, f"{NTH}{trigger.name}"
        if number <= entries.get(name, NEVER)[0]:
            return False
        entries[name] = [number]
        return True

    # --- journeys -----------------------------------------------------------------------------------------------

    def _enter(
        self,
        trigger: CompiledTrigger,
        key: str,
        chance: Chance,
        now_ms: int,
        cause: tuple[str, str],
        since_ms: int = FOREVER,
        *,
        corrected: bool = False,
    ) -> None:
        """Open a journey, if it may be; one that is told late of (``since_ms``) may be over before it begins.

        ``corrected``: what it stands on was told late; records say so.
        """
        p = self.p
        name = f"{trigger.name}:{key}"
        if name in p.runs:
            return  # One live instance per trigger and key; what changes it is `restart_on`.
        if (asked := trigger.asks(key)) is not None and not asked.judge(p, now_ms)[0]:
            return
        entered = p.entries.get(trigger.name)
        if entered is not None and trigger.again != "every":
            free_ms = self._free_from(trigger.again, entered[1])
            if now_ms < free_ms:
                first = trigger.next_emit(0)
                until = None if free_ms == FOREVER else iso(free_ms)
                if first is not None:
                    self._decide(
                        trigger.name, first.step, p.address, chance.occasion, "re_entry", {"until": until}, now_ms
                    )
                return
        if trigger.again != GRANT or not self._refuses(
            trigger
        ):  # Else there is no grant that this would be the time of.
            p.entries[trigger.name] = [(entered[0] if entered else 0) + 1, now_ms]
        if self.stale:
            # Its moments lie in the past: letters of a cart of last year must not begin today.
            if (missed := trigger.next_emit(0)) is not None:
                self._decide(trigger.name, missed.step, p.address, chance.occasion, "backfill", {}, now_ms)
            return
        run = p.runs[name] = Instance(trigger.name, key, trigger.revision, p.address, chance.occasion, now_ms, cause)
        run.context = {**chance.context, "because": [chance.because]}
        if corrected or since_ms < now_ms - LATE_MS:
            run.context["corrected"] = True
        if since_ms >= now_ms or not self._cancel_since(trigger, run, since_ms, now_ms):
            self._walk(trigger, run, now_ms)

    def _free_from(self, again: str | Duration, entered_ms: int) -> int:
        """From when on somebody may enter again."""
        if isinstance(again, Duration):
            return again.after(entered_ms, self.rb.zone)
        if again in CALENDAR:
            return calendar(entered_ms, again, zone_of(self.p, self.rb.zone))[1]
        return FOREVER

    def _walk(self, trigger: CompiledTrigger, run: Instance, now_ms: int) -> None:
        """Go on until the journey waits, or is over."""
        p = self.p
        name = f"{run.trigger}:{run.key}"
        program = trigger.program
        if trigger.expires is not None and (state := trigger.expires.over(p, run.key)) is not None:
            self._end(run)
            pending = trigger.next_emit(run.at)
            if pending is not None:
                self._decide(run.trigger, pending.step, run.opened_by, run.occasion, "expired", state, now_ms)
            return
        while run.at < len(program):
            operation = program[run.at]
            if isinstance(operation, Emit):
                if self._quiet(trigger, run, operation, now_ms):
                    return
                self._emit(trigger, run, operation, now_ms)
            elif isinstance(operation, Jump):
                run.at = operation.to
                continue
            elif isinstance(operation, Branch):
                if not operation.judge(p, now_ms)[0]:
                    run.at = operation.otherwise
                    continue
            elif isinstance(operation, Fork):
                if not operation.where(run.context):
                    run.at = operation.otherwise
                    continue
            elif isinstance(operation, Act):
                operation.act(p, run, now_ms)
                if operation.issues and "coupon" not in run.context:
                    pass  # There is nobody whom it could go to.
                elif operation.owed:
                    run.context["coupon"]["owed"] = True
                elif operation.issues and not self.backfill:
                    self._issue(run, now_ms)
            elif isinstance(operation, Task):
                self._task(trigger, run, operation, now_ms)
            elif isinstance(operation, Audience):
                self._audience(trigger, run, operation, now_ms)
            elif isinstance(operation, Erase):
                self._ask_erasure(trigger, run, operation, now_ms)
            elif isinstance(operation, Suppress):
                self._suppress(run, operation, now_ms)
            elif isinstance(operation, Until):
                due_ms = operation.due(p, run, now_ms)
                if due_ms is None:
                    run.at = operation.otherwise
                    continue
                if due_ms > now_ms:
                    run.due_ms = p.timers[RUN + name] = due_ms
                    return
            else:
                run.due_ms = self._due(operation, now_ms)
                quiet = trigger.limits.quiet
                if quiet is not None and quiet.conflict == "advance" and isinstance(operation, Wait):
                    run.due_ms = max(now_ms + 1, quiet.before(p, run.due_ms, self.rb.zone))
                p.timers[RUN + name] = run.due_ms
                return
            run.at += 1
        self._end(run)

    def _due(self, operation: Wait | WaitFor, now_ms: int) -> int:
        zone = self.rb.zone
        if isinstance(operation, WaitFor):
            return max(now_ms + 1, operation.timeout.after(now_ms, zone))
        due_ms = operation.duration.after(now_ms, zone)
        if operation.within_day:
            # Still the same day: a minute before midnight at the latest, where that is still to come.
            zone = zone_of(self.p, zone)
            last_ms = day_start(day_number(now_ms, zone) + 1, zone) - 60_000
            due_ms = min(due_ms, last_ms) if last_ms > now_ms else due_ms
        return max(now_ms + 1, due_ms)

    def _time_out(self, run: Instance, now_ms: int) -> None:
        trigger, goes_on = self._version(run, now_ms, timed_out=True)
        if trigger is None:
            return
        operation = trigger.program[run.at] if goes_on and run.at < len(trigger.program) else None
        if operation is not None and not isinstance(operation, Emit):  # Else it waited for the end of the quiet hours.
            ends = isinstance(operation, WaitFor) and operation.on_timeout >= len(trigger.program)
            if (
                ends
                and isinstance(operation, WaitFor)
                and (missed := trigger.next_emit(operation.on_event)) is not None
            ):
                self._decide(run.trigger, missed.step, run.opened_by, run.occasion, "unanswered", {}, now_ms)
            if isinstance(operation, WaitFor) and trigger.keeps:
                run.context["event"] = {}  # Branches ask about what was waited for, and it did not come.
            run.at = operation.on_timeout if isinstance(operation, WaitFor) else run.at + 1
        self._walk(trigger, run, now_ms)

    def _version(self, run: Instance, now_ms: int, *, timed_out: bool = False) -> tuple[CompiledTrigger | None, bool]:
        """The version that a journey goes by, after what the trigger in force says of those of another.

        Returns:
            The version, ``None``: it is withdrawn, and the journey over. And whether the journey stands where it waited; else
            it stands before a step that is to be done now.
        """
        rb = self.rb
        trigger = rb.triggers.get(run.trigger)
        if trigger is not None and trigger.revision == run.revision:
            return trigger, True
        old = rb.earlier.get((run.trigger, run.revision))
        if trigger is None:
            self._end(run)
            pending = old.next_emit(run.at) if old is not None else None
            if pending is not None:
                self._decide(run.trigger, pending.step, run.opened_by, run.occasion, "withdrawn", {}, now_ms)
            return None, False
        if old is not None and trigger.migration == "drain":
            return old, True
        if trigger.migration == "restart":
            run.at, goes_on = 0, False
            run.opened_ms = now_ms
            self.p.timers.pop(f"{RUN}{run.trigger}:{run.key}", None)
        else:
            place = place_in(trigger, old, run.at)
            if old is not None and not place.same and not timed_out:
                return old, True  # The step that it waits in is gone: it moves when the time has come to go on.
            run.at, goes_on = place
        # Steps may have other numbers now: what follows are moments of their own.
        moved = run.context["moved"] = run.context.get("moved", 0) + 1
        run.occasion = f"{run.occasion.rpartition('#')[0] if moved > 1 else run.occasion}#{moved}"
        run.revision = trigger.revision
        return trigger, goes_on

    def _end(self, run: Instance) -> None:
        name = f"{run.trigger}:{run.key}"
        del self.p.runs[name]
        self.p.timers.pop(RUN + name, None)

    def _hear(self, event: Event, heard: frozenset[str], now_ms: int) -> None:
        """Live journeys hear an event: one that cancels beats one that is waited for beats one that restarts."""
        p = self.p
        for run in [run for run in p.runs.values() if run.trigger in heard]:
            trigger, goes_on = self._version(run, now_ms)
            if trigger is None:
                continue
            if any(self._means(listener, event, run) for listener in trigger.cancel):
                self._cancel(trigger, run, event.type, now_ms)
                continue
            if any(one.cart_empty for one in trigger.cancel) and self._cart_empty(run):
                # Before it restarts: the event that emptied the cart cancels the moment that was to come, and opens none.
                self._cancel(trigger, run, "cart.empty", now_ms)
                continue
            if not goes_on:
                self._walk(trigger, run, now_ms)  # It began anew, and stands at the first step.
                continue
            operation = trigger.program[run.at] if run.at < len(trigger.program) else None
            if isinstance(operation, WaitFor) and any(self._means(one, event, run) for one in operation.listeners):
                run.at = operation.on_event
                if trigger.keeps:
                    run.context["event"] = kept_of(event, trigger)
                p.timers.pop(f"{RUN}{run.trigger}:{run.key}", None)
                if run.at >= len(trigger.program) and (pending := trigger.next_emit(0)) is not None:
                    missed = _emit_after(trigger, operation) or pending
                    self._decide(
                        run.trigger, missed.step, run.opened_by, run.occasion, "reacted", {"by": event.type}, now_ms
                    )
                self._walk(trigger, run, now_ms)
            elif isinstance(operation, WaitFor) and any(self._means(one, event, run) for one in operation.reset):
                run.due_ms = p.timers[f"{RUN}{run.trigger}:{run.key}"] = self._due(operation, now_ms)
            elif not self.stale and any(self._means(listener, event, run) for listener in trigger.restart):
                run.at = 0
                run.opened_ms = now_ms
                # An event may begin several journeys of a trigger anew: each is an occasion of its own.
                is_its_own = key_of(event, trigger.key) == run.key
                run.occasion = event.message_id if is_its_own else f"{event.message_id}:{run.key}"
                run.cause = (event.type, event.message_id)
                self._walk(trigger, run, now_ms)

    def _means(self, listener: Listener, event: Event, run: Instance) -> bool:
        if event.type not in listener.types:
            return False
        if listener.where is not None and not listener.where(event.props):
            return False
        if listener.match == "coupon.code":
            given = run.context.get("coupon")
            return given is not None and str(event.props.get("code")).upper().startswith(given["stem"] + "-")
        if not listener.match:
            return not listener.covers or self._cart_empty(run)
        if key_of(event, listener.match) == run.key:
            return True
        return listener.covers and self._cart_empty(run)

    def _cart_empty(self, run: Instance) -> bool:
        cart = self.p.carts.get(run.key)
        return cart is None or carts.quantity(cart) == 0

    def _cancel_empty_carts(self, now_ms: int) -> None:
        for run in list(self.p.runs.values()):
            trigger = self.rb.version_of(run)
            if trigger is not None and any(one.cart_empty for one in trigger.cancel) and self._cart_empty(run):
                self._cancel(trigger, run, "cart.empty", now_ms)

    def _cancel_since(self, trigger: CompiledTrigger, run: Instance, since_ms: int, now_ms: int) -> bool:
        """Cancel a journey of which it turns out that what cancels it happened after it began, and was heard before."""
        for listener in trigger.cancel:
            heard: dict[Any, int] = self.p.aggs.get(listener.heard) or {}
            last_ms = heard.get(None, 0)
            if listener.match and not (listener.covers and self._cart_empty(run)):
                last_ms = heard.get(run.key, 0)
            elif listener.covers and not self._cart_empty(run):
                continue
            if last_ms > since_ms or (listener.cart_empty and self._cart_empty(run)):
                self._cancel(trigger, run, "cart.empty" if listener.cart_empty else listener.types[0], now_ms)
                return True
        return False

    def _cancel_refused(self, by: str, now_ms: int) -> None:
        """Nothing is pending any more for somebody who has refused it: each journey's next moment is decided now."""
        p = self.p
        for dest, name in self._on_audiences():
            if any(map(self._refuses, self.rb.audiences.get(on_audience(dest, name), ()))):
                self._move(dest, name, False, (by, str(now_ms)), now_ms)
        for once in self.rb.by_grant:
            if once.name in p.entries and self._refuses(once):
                del p.entries[once.name]  # Granted anew, it is a grant of its own.
        for run in list(p.runs.values()):
            trigger = self.rb.version_of(run)
            rules = trigger.consents(run.at) if trigger is not None else ()
            if trigger is None or not rules:
                continue
            if all(consent.state_of(p, rule.channel, rule.topic) == consent.DENIED for rule in rules):
                rule = rules[0]
                self._end(run)
                pending = trigger.next_emit(run.at)
                if pending is not None:
                    detail = {"by": by, "channel": rule.channel, "topic": rule.topic, "state": consent.DENIED}
                    self._decide(run.trigger, pending.step, run.opened_by, run.occasion, "no_consent", detail, now_ms)

    def _cancel(self, trigger: CompiledTrigger, run: Instance, by: str, now_ms: int) -> None:
        self._end(run)
        pending = trigger.next_emit(run.at)
        if pending is not None:
            self._decide(run.trigger, pending.step, run.opened_by, run.occasion, "cancelled", {"by": by}, now_ms)

    def _emit(self, trigger: CompiledTrigger, run: Instance, emit: Emit, now_ms: int) -> None:
        """An eligible moment: send, or say why not."""
        p = self.p
        payload: dict[str, Any] = {}
        reason: str | None = None
        detail: dict[str, Any] = {}
        goods: list[str] = []
        for name, read, need in emit.payload:
            payload[name] = read(p, run, now_ms, self.goods)
            if need is not Need.NOTHING:
                goods.append(name)
                if need is Need.THIS and not payload[name]:
                    reason, detail = "no_items", {"payload": name}
        if goods and not any(payload[name] for name in goods):
            reason, detail = "no_items", {"payload": goods[0]}
        consented: dict[str, Any] | None = None
        limits = trigger.limits_of(emit, beside=run.context.pop("beside", 0) == now_ms)
        refused = limits.refuses(p, now_ms, self.rb.zone)
        if refused is not None:
            reason, detail = refused
        rule = trigger.consent_of(emit)
        if rule is not None:
            said = consent.word_on(p, rule.channel, rule.topic)
            state = said.value if said is not None else None
            consented = {"channel": rule.channel, "topic": rule.topic, "state": state}
            if said is not None and state is not None:
                consented |= {"at": iso(said.at_ms), "source": said.source}
                if said.text:
                    consented["text"] = said.text
            if state == consent.DENIED or (state is None and not rule.opt_out):
                reason, detail = "no_consent", consented
        # Whom a comparison holds back would else have been sent to, so that both sides of it are alike.
        if reason is None and (held_out := trigger.limits.holds_out(p, now_ms)) is not None:
            reason, detail = "holdout", held_out
        if reason is None and run.context.get("arm") == CONTROL:
            reason, detail = CONTROL, run.context["experiment"]
        after = trigger.program[run.at + 1] if trigger.skips_late and run.at + 1 < len(trigger.program) else None
        if self.late_ms and isinstance(after, Wait | WaitFor) and self._due(after, now_ms) <= self.clock_ms:
            reason, detail = "late", {"rule": "late_steps: skip", "until": None}
        if self.late_ms > trigger.max_age_ms:
            reason, detail = "expired", {"max_age": trigger.max_age_ms // 1000}
        if self.backfill:
            reason, detail = "backfill", {}
        if reason is None:
            because = [*run.context["because"], *reasons(trigger.asks(run.key), p, now_ms)]
            not_before_ms = self._not_before(trigger, run, emit, now_ms)
            self.out.records.append(
                records.sent(p, trigger, run, emit, self.rb, payload, because, consented, now_ms, not_before_ms)
            )
            limits.count(p, now_ms)
            follows = trigger.program[run.at + 1] if run.at + 1 < len(trigger.program) else None
            if isinstance(follows, Emit) and follows.also:
                run.context["beside"] = now_ms
            if trigger.may_be_regretted:
                p.sent.append(Sent(now_ms, run.trigger, run.key, emit.step, run.opened_by, run.occasion, run.opened_ms))
                while len(p.sent) > SENT_MAX or p.sent[0].at_ms < now_ms - REGRETTED_MS:
                    del p.sent[0]
            detail = {"template": filled(emit.template, run.context), "because": because}
            if emit.gives and "coupon" in run.context:
                if run.context["coupon"].pop("owed", False):
                    self._issue(run, now_ms)
                else:
                    self.out.coupons.append(run.context["coupon"]["stem"])
        self._decide(run.trigger, emit.step, run.opened_by, run.occasion, reason, detail, now_ms)

    def _not_before(self, trigger: CompiledTrigger, run: Instance, emit: Emit, now_ms: int) -> int:
        """When a moment may be sent: at once, or, decided late, when its turn comes."""
        name = trigger_id(run.trigger, emit.step, run.opened_by, run.occasion)
        return now_ms + records.held_back_ms(name, self.late_ms, trigger.pace_ms, trigger.max_age_ms)

    def _quiet(self, trigger: CompiledTrigger, run: Instance, emit: Emit, now_ms: int) -> bool:
        """Whether quiet hours see to a moment: it waits for their end, or is dropped and the journey went on."""
        p, quiet = self.p, trigger.limits.quiet
        if quiet is None or self.backfill:
            return False
        since_ms = run.context.pop("due", now_ms)
        if self.late_ms > trigger.max_age_ms:
            return False  # It is expired, at whatever hour.
        until_ms = quiet.until(p, now_ms, self.rb.zone)
        if until_ms is None and self.late_ms:
            # It was due by day; an outage may have made night of it.
            until_ms = quiet.until(p, self._not_before(trigger, run, emit, now_ms), self.rb.zone)
        if until_ms is None:
            return False
        if quiet.conflict != "drop" and until_ms <= since_ms + trigger.max_age_ms:
            run.context["due"] = since_ms
            run.due_ms = p.timers[f"{RUN}{run.trigger}:{run.key}"] = until_ms
            return True
        detail = {"rule": "quiet hours", "until": iso(until_ms)}
        self._decide(run.trigger, emit.step, run.opened_by, run.occasion, "quiet", detail, now_ms)
        run.at += 1
        self._walk(trigger, run, now_ms)
        return True

    def _task(self, trigger: CompiledTrigger, run: Instance, task: Task, now_ms: int) -> None:
        reason = self._out_of_time(trigger)
        if reason is None:
            payload = {name: read(self.p, run, now_ms, self.goods) for name, read, _ in task.payload}
            self.out.records.append(records.task(self.p, run, task, payload, self.rb.zone, now_ms))
        detail = {"queue": task.queue}
        self._decide(run.trigger, task.step, run.opened_by, run.occasion, reason, detail, now_ms)


def _served(due_ms: int, chance: Chance) -> list[int]:
    """What is kept of an instant at which the profile itself let a trigger enter."""
    return [due_ms, chance.since_ms] if chance.since_ms else [due_ms]


def kept_of(event: Event, trigger: CompiledTrigger) -> dict[str, Any]:
    """The properties of an event that the trigger's branches and payloads will ask for; of a long text its beginning."""
    found = ((name, value_at(event.props, name)) for name in trigger.keeps)
    return {name: value[:SAID_CHARS_MAX] if isinstance(value, str) else value for name, value in found}


def _emit_after(trigger: CompiledTrigger, operation: WaitFor) -> Moment | None:
    return trigger.next_emit(operation.on_timeout)
