"""Profiles made by playing events through ``step``: the shortest way to one for tests of what is told about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from profiles.moments import FOREVER, parse_instant
from profiles.state import Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event, Record, Wake, decode_event, encode_event
from rules.compile import compile_rules
from rules.engine import step
from rules.outcome import Step
from rules.rulebook import Rulebook

PACK: Final = Path(__file__).parents[2] / "rules" / "packs" / "shop"
START_MS: Final = parse_instant("2026-01-05T09:00:00Z")


def pack_files() -> list[tuple[str, str]]:
    """The shop pack as it would be loaded."""
    return [(path.name, path.read_text()) for path in sorted(PACK.glob("*.yaml"))]


def shop_rules() -> Rulebook:
    """The shop pack, compiled: Berlin, euros."""
    return compile_rules(pack_files(), zone="Europe/Berlin", currency="EUR")


def rules_of(text: str, zone: str = "") -> Rulebook:
    """A rulebook of one file."""
    return compile_rules([("test.yaml", text)], currency="EUR", zone=zone)


class Life:
    """One address and all that happens to it.

    Attributes:
        profile: as it stands.
        records: all that was published for it.
        steps: what each input did.
    """

    def __init__(self, rulebook: Rulebook, address: str = "user:ana") -> None:
        self.rulebook = rulebook
        self.profile = Profile(address)
        self.records: list[Record] = []
        self.steps: list[Step] = []
        self._events = 0

    def event(self, name: str, at_ms: int, /, traits: dict[str, Any] | None = None, **raw: Any) -> Step:
        """Something happens at ``at_ms``, written as a sender would; timers due before fire first."""
        self._events += 1
        known = resolve(name)
        event = Event(
            message_id=f"{self.profile.address}-{self._events}",
            source="site",
            type=known.name,
            at_ms=at_ms,
            received_ms=at_ms,
            address=self.profile.address,
            props=canonical(known, raw),
            traits=traits or {},
        )
        event = decode_event(encode_event(event))
        event.seen_ms = at_ms
        return self._took(step(self.profile, event, self.rulebook))

    def wait_until(self, at_ms: int) -> None:
        """Time goes by; every alarm up to and at ``at_ms`` is handled, each as an input of its own."""
        while (due_ms := self.profile.alarm_ms()) is not None and due_ms <= at_ms:
            self._took(step(self.profile, Wake(due_ms), self.rulebook, gate_ms=FOREVER))

    def members(self) -> list[str]:
        """The segments it is in, by name."""
        return sorted(segment.name for segment in self.rulebook.segments if segment.id in self.profile.members)

    def _took(self, done: Step) -> Step:
        self.records += done.records
        self.steps.append(done)
        return done
