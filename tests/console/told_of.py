"""A shop with one trigger and its customers: what goes over the topics, for reports."""

from __future__ import annotations

from typing import Any, Final

import orjson

from profiles.taxonomy import canonical, resolve
from profiles.wire import Event, Record, encode_event
from tests.rules.told import START_MS, Life, rules_of

SPRING: Final = rules_of(
    """
triggers:
  spring:
    on: {event: registered}
    steps: [{emit: spring_1}]
  trial:
    on: {event: survey_answered}
    steps:
      - split: {experiment: subject, arms: {a: 40, b: 40, control: 20}}
      - emit: hello
"""
)


class Shop:
    """Plays customers, and gathers the records that their topics would hold."""

    def __init__(self, rulebook: Any = SPRING) -> None:
        self.rulebook = rulebook
        self.records: list[Record] = []
        self._events = 0

    def asked(self, address: str, at_ms: int = START_MS, event: str = "registered") -> str:
        """A moment of that customer's; the id of its decision."""
        life = Life(self.rulebook, address)
        life.event(event, at_ms)
        self.records += life.records
        return next(iter(_ids(life.records)), "")

    def happened(self, address: str, name: str, at_ms: int, /, **raw: Any) -> None:
        """An event as the collector would publish it."""
        known = resolve(name)
        self._events += 1
        event = Event(f"m{self._events}", "esp", known.name, at_ms, at_ms, address, props=canonical(known, raw))
        self.records.append(Record(known.topic, address, encode_event(event)))

    def bought(self, address: str, at_ms: int, order_id: str, total: Any, currency: str = "EUR", **raw: Any) -> None:
        """An order, paid."""
        self.happened(address, "order_completed", at_ms, order_id=order_id, total=total, currency=currency, **raw)


def _ids(records: list[Record]) -> list[str]:
    return [orjson.loads(one.value)["decision_id"] for one in records if one.topic == "decisions"]
