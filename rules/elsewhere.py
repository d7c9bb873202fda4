"""What a journey does beside letters: coupons, audiences that are kept elsewhere, an erasure; and the decision of each moment.

It goes out with the records of the step: nothing of it is a command of an input, and what is told to an address goes by the log.
"""

from __future__ import annotations

from typing import Any, Final

from profiles import consent, erasure
from profiles.catalogue import Catalogue
from profiles.ids import trigger_id
from profiles.state import CONSENTS, Consent, Instance, Profile
from profiles.wire import (
    ERASE,
    FORWARD,
    PROFILE_COMMANDS,
    Command,
    Event,
    Record,
    coupon_code,
    encode_command,
    encode_event,
)
from rules import records
from rules.outcome import Step
from rules.program import AUDIENCE, Audience, CompiledTrigger, Erase, Leaving, Suppress, on_audience
from rules.rulebook import Rulebook

CONTROL: Final = "control"
"""The arm of an experiment that is told nothing."""
DONE: Final = "done"
"""What a moment counts as that sends no record of its own: the books of what is ``emitted`` are those of records."""


class Elsewhere:
    """One profile in one call of ``step``, and what leaves it beside letters.

    Attributes:
        clock_ms, backfill, goods: as in ``step``.
        late_ms: how long after it came, or was due, the input is taken.
        stale: the input is history, told long after it happened.
        looks: what published traits read and what has changed, as in ``dirty``; < 0: nobody lived here.
    """

    __slots__ = ("backfill", "clock_ms", "goods", "late_ms", "looks", "out", "p", "rb", "stale")

    def __init__(self, profile: Profile, rulebook: Rulebook, clock_ms: int, backfill: bool, goods: Catalogue) -> None:
        self.p = profile
        self.rb = rulebook
        self.clock_ms = clock_ms
        self.backfill = backfill
        self.goods = goods
        self.late_ms = 0
        self.stale = False
        self.looks = 0
        self.out = Step()

    def _late_by(self, now_ms: int) -> int:
        """How long after it came an input is taken; nothing is late on the log's clock."""
        return max(0, self.clock_ms - now_ms) if self.clock_ms else 0

    def _decide(
        self,
        trigger: str,
        step_name: str,
        opened_by: str,
        occasion: str,
        reason: str | None,
        detail: Any,
        now_ms: int,
        counted_as: str = "emitted",
    ) -> None:
        self.out.decisions.append((trigger, reason or counted_as))
        self.out.records.append(
            records.decided(self.p, trigger, step_name, opened_by, occasion, reason, detail, now_ms)
        )

    def _issue(self, run: Instance, now_ms: int) -> None:
        """Tell the shop of the journey's coupon; somebody else to whom it goes learns of it as of an event of his own."""
        given = run.context["coupon"]
        self.out.records.append(records.coupon(self.p, run, now_ms))
        self.out.coupons.append(given["stem"])
        if given.get("to"):
            told = Event(
                message_id=given["id"],
                source="engine",
                type="coupon_issued",
                at_ms=now_ms,
                received_ms=now_ms,
                address=given["to"],
                props={"code": coupon_code(given["stem"]), "offer": given["offer"], "reason": run.trigger},
            )
            link = (now_ms, given["id"])
            self._send(Command(FORWARD, given["to"], "", link, encode_event(told), now_ms))

    def _out_of_time(self, trigger: CompiledTrigger) -> str | None:
        if self.backfill:
            return "backfill"
        return "expired" if self.late_ms > trigger.max_age_ms else None

    def _audience(self, trigger: CompiledTrigger, run: Instance, step: Audience, now_ms: int) -> None:
        """Put somebody on an audience who may be written to, or take him off."""
        p = self.p
        reason, detail = self._out_of_time(trigger), {"audience": f"{step.dest}/{step.name}"}
        if step.adds and reason is None:
            if self._refuses(trigger):
                reason = "no_consent"
            elif run.context.get("arm") == CONTROL:
                reason = CONTROL
            elif (held := trigger.limits.holdout) is not None and held.judge(p, now_ms)[0]:
                reason = "holdout"
        if reason is None:
            if step.adds != (step.template in p.entries):
                self._move(step.dest, step.name, step.adds, (run.trigger, run.occasion), now_ms)
            if step.adds:
                p.entries[step.template] = [now_ms]
        self._decide(run.trigger, step.step, run.opened_by, run.occasion, reason, detail, now_ms, DONE)

    def _move(self, dest: str, name: str, adds: bool, by: tuple[str, str], now_ms: int) -> None:
        if not adds:
            self.p.entries.pop(on_audience(dest, name), None)
        change = "add" if adds else "remove"
        self.out.records.append(records.audience(self.p, dest, name, change, by, now_ms))

    def _on_audiences(self) -> list[tuple[str, str]]:
        """(destination, name) of the audiences that the customer is on."""
        found = [name[len(AUDIENCE) :].partition("/") for name in self.p.entries if name.startswith(AUDIENCE)]
        return [(dest, name) for dest, _, name in found]

    def _leave_audiences(self, event: Event, leaving: tuple[Leaving, ...], now_ms: int) -> None:
        """Take somebody off whom an event takes off."""
        for one in leaving:
            where = one.listener.where
            if on_audience(one.dest, one.name) in self.p.entries and (where is None or where(event.props)):
                self._move(one.dest, one.name, False, (event.type, event.message_id), now_ms)

    def _refuses(self, trigger: CompiledTrigger) -> bool:
        """Whether the customer does not consent to what a trigger wants him to."""
        rule = trigger.consent
        if rule is None:
            return False
        state = consent.state_of(self.p, rule.channel, rule.topic)
        return state == consent.DENIED or (state != consent.GRANTED and not rule.opt_out)

    def _ask_erasure(self, trigger: CompiledTrigger, run: Instance, step: Erase, now_ms: int) -> None:
        """Ask for the customer's erasure as an operator would: it is done when this is written."""
        reason = self._out_of_time(trigger)
        if reason is None:
            command_id = trigger_id(run.trigger, step.step, run.opened_by, run.occasion)
            body = erasure.pack_asked(erasure.Asked(f"trigger:{run.trigger}"))
            self._send(Command(ERASE, self.p.address, "", (now_ms, command_id), body, now_ms))
        self._decide(run.trigger, step.step, run.opened_by, run.occasion, reason, {}, now_ms, DONE)

    def _suppress(self, run: Instance, step: Suppress, now_ms: int) -> None:
        """Refuse channels, as the customer could himself; for that it is never too late."""
        for channel in step.channels:
            name, said = f"{channel}:*", Consent(consent.DENIED, now_ms, f"trigger:{run.trigger}")
            self.p.consents[name] = consent.after(self.p.consents.get(name), said)
        self.p.dirty |= CONSENTS
        detail = {"channels": list(step.channels)}
        self._decide(run.trigger, step.step, run.opened_by, run.occasion, None, detail, now_ms, DONE)

    def _send(self, command: Command) -> None:
        """Send a command that no input of the log has caused: it goes out with the records, and is known by its own id."""
        self.out.records.append(Record(PROFILE_COMMANDS, command.address, encode_command(command)))
