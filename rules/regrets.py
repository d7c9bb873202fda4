"""Regrets: what is told late may show that a letter which went out should not have gone.

A profile remembers its newest letters for as long as lateness is borne. An event that is told after a letter, and happened before it, undoes it when it
would have cancelled its journey, or when it takes away what the journey was entered for: an order told late, of somebody who was called a lapsed
customer. That leaves one decision, ``regret``, beside the one that the letter has; nobody can call a letter back, but nobody need be silent about it.
"""

from __future__ import annotations

from typing import Any

from profiles.ids import trigger_id
from profiles.moments import iso
from profiles.state import CARTS, Instance, Sent
from profiles.wire import Event
from rules.journeys import Journeys
from rules.program import CompiledTrigger


class Regrets(Journeys):
    """The letters of one profile that an event, told late, takes back."""

    __slots__ = ()

    def _regret(self, event: Event, dirty: int, changed: list[tuple[int, bool]], now_ms: int) -> None:
        """Look at the letters that went out after something that is told only now.

        Args:
            dirty, changed: the parts of the profile and the segments that it has changed.
        """
        p = self.p
        for one in [one for one in p.sent if event.at_ms < one.at_ms]:
            trigger = self.rb.triggers.get(one.trigger)
            if trigger is None or not self._is_undone(trigger, one, event, dirty, changed):
                continue
            p.sent.remove(one)
            detail: dict[str, Any] = {
                "trigger_id": trigger_id(one.trigger, one.step, one.opened_by, one.occasion),
                "sent_at": iso(one.at_ms),
                "by": event.type,
                "message_id": event.message_id,
                "happened_at": iso(event.at_ms),
            }
            self._decide(one.trigger, f"regret:{one.step}", one.opened_by, one.occasion, "regret", detail, now_ms)

    def _is_undone(
        self, trigger: CompiledTrigger, one: Sent, event: Event, dirty: int, changed: list[tuple[int, bool]]
    ) -> bool:
        run = Instance(one.trigger, one.key, "", one.opened_by, one.occasion, one.opened_ms, ("", ""))
        if event.at_ms >= one.opened_ms:
            if any(self._means(listener, event, run) for listener in trigger.cancel):
                return True
            return any(it.cart_empty for it in trigger.cancel) and bool(dirty & CARTS) and self._cart_empty(run)
        entry = trigger.entry
        if entry.segment:
            segments = self.rb.segments
            return any(segments[place].name == entry.segment and holds != entry.entered for place, holds in changed)
        if entry.timers is not None and entry.stays:
            due = entry.timers(self.p).get(one.key)
            return due is None or due[0] > one.opened_ms
        return False
