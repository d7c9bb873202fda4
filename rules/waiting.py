"""What waits in a profile: timers that fall due before an input, and inputs held behind an alarm's gate (R16)."""

from __future__ import annotations

from bisect import insort
from operator import itemgetter
from typing import Any, Final

from profiles import sessions
from profiles.ids import digest64
from profiles.moments import FOREVER
from profiles.wire import ABSORB, FORWARD, RULES, SWEEP, Command, Event, decode_command, decode_event
from rules import published
from rules.changes import TIMER, Changes
from rules.journeys import RUN
from rules.outcome import HELD

HELD_MAX: Final = 50
HELD_BYTES_MAX: Final = 1 << 16
WAITED: Final = "held"


class Waiting(Changes):
    """A profile that has things of its own to do first."""

    __slots__ = ()

    def _hold(self, kind: str, seen_ms: int, body: bytes) -> None:
        insort(self.p.held, [seen_ms, kind, body], key=itemgetter(0))
        self.out.outcome = HELD

    def _caught_up(self, until_ms: int) -> bool:
        """Fire the timers due before ``until_ms``, and apply what was held, in the order of time.

        Returns:
            Whether nothing that comes before ``until_ms`` is left: ``False`` when a gate is still shut.
        """
        p = self.p
        gate_ms = FOREVER if _is_full(p.held) else self.gate_ms
        while True:
            due_ms = p.alarm_ms()
            self.next_ms = due_ms or 0
            if p.held and (due_ms is None or p.held[0][0] <= due_ms):
                self._apply_held()
                continue
            if due_ms is None or due_ms >= until_ms:
                return not p.held
            if due_ms >= gate_ms:
                return False
            names = [name for name, ms in p.timers.items() if ms == due_ms]
            name = names[0] if len(names) == 1 else min(names, key=self._turn_of)
            doing, self.kept = self.kept, (TIMER, name, due_ms)
            if self.kept in self.without:
                self._drop(name, due_ms)
            else:
                # What falls due on a live clock is no history, though it be history that comes next.
                before, self.backfill = self.backfill, self.backfill and not self.clock_ms
                self._fire(name, due_ms)
                self._acted(("wake", f"{name}@{due_ms}"))
                self.backfill = before
            self.kept = doing

    def _turn_of(self, name: Any) -> tuple[int, int, str]:
        """Of timers that are due in one instant, which comes first: segments; journeys, by priority and by name; a visit's end."""
        if isinstance(name, int):
            return 0, 0, str(name)
        if name == sessions.TIMER:
            return 2, 0, name
        trigger = name.split(":", 2)[1]
        return 1, -self.rb.priorities.get(trigger, 0), name

    def _drop(self, name: Any, due_ms: int) -> None:
        """Take out a timer that cannot be done, with what waits for it and would wait for ever."""
        p = self.p
        del p.timers[name]
        if isinstance(name, int):
            return  # The segment is judged again when what it reads changes.
        if name == sessions.TIMER:
            p.session = None
        elif name.startswith(RUN):
            p.runs.pop(name[len(RUN) :], None)
        elif not name.startswith(published.TIMER):
            p.entries[name] = [due_ms]

    def _apply_held(self) -> None:
        seen_ms, kind, body = self.p.held.pop(0)
        doing, self.kept = self.kept, (WAITED, seen_ms, kind, body)
        if self.kept in self.without:
            if kind not in (ABSORB, SWEEP, RULES):  # It has not been here, then: somebody may tell it again.
                self.p.ring.pop(
                    message_digest(decode_event(body)) if kind == FORWARD else edit_digest(decode_command(body)), None
                )
        else:
            self._do_held(seen_ms, kind, body)
        self.kept = doing

    # --- what the rooms above say ---------------------------------------------------------------------------------

    def event(self, event: Event) -> None:
        """Take an event in, from the start."""
        raise NotImplementedError

    def _do_held(self, seen_ms: int, kind: str, body: bytes) -> None:
        """Do what waited."""
        raise NotImplementedError


def _is_full(held: list[list[Any]]) -> bool:
    """Whether so much waits that no gate is worth more of it."""
    return len(held) >= HELD_MAX or sum(len(body) for _, _, body in held) > HELD_BYTES_MAX


def message_digest(event: Event) -> int:
    """What a message is known by in the ring."""
    return digest64(f"{event.source}\x1f{event.message_id}")


def edit_digest(command: Command) -> int:
    """What an edit is known by in the ring."""
    return digest64(f"edit\x1f{command.link[1]}")
