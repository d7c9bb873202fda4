"""``purchase_days``: the summary that models of repeat buying stand on (Fader, Hardie & Lee 2005)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from profiles.moments import FOREVER, day_number, day_start
from profiles.state import Profile
from rules.documents import Node
from rules.series import of_book, order_entries, source_of
from rules.spec import Reader, Scope, TraitExample, TraitKind

PURCHASE_DAYS_PARTS: Final = ("frequency", "recency_days", "age_days", "monetary", "silent_days")


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    """The summary that models of repeat buying stand on (Fader, Hardie & Lee 2005), by calendar days of the shop's zone.

    ``frequency``: different purchase days after the first; ``recency_days``: first to last purchase day;
    ``age_days``: first purchase day to today; ``monetary``: mean of the daily totals without the first day, 0 if no
    repeat; ``silent_days``: last purchase day to today.
    """
    zone = scope.zone
    entries = order_entries(source_of(spec, node, scope), "", scope.currency)

    def days(profile: Profile) -> dict[int, int]:
        totals: dict[int, int] = {}
        for at_ms, amount in entries(profile):
            day = day_number(at_ms, zone)
            totals[day] = totals.get(day, 0) + amount
        return totals

    def part(which: str) -> Callable[[Profile, int], tuple[Any, int]]:
        def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
            totals = days(profile)
            if not totals:
                return None, FOREVER
            first, last, today = min(totals), max(totals), day_number(now_ms, zone)
            tomorrow_ms = day_start(today + 1, zone)
            if which == "frequency":
                return len(totals) - 1, FOREVER
            if which == "recency_days":
                return last - first, FOREVER
            if which == "monetary":
                repeats = [total for day, total in totals.items() if day != first]
                return (Fraction(sum(repeats), len(repeats)) if repeats else 0), FOREVER
            return (today - first, tomorrow_ms) if which == "age_days" else (today - last, tomorrow_ms)

        return read

    kinds = {"monetary": "money"}
    return {f"{name}.{which}": of_book(part(which), kinds.get(which, "number")) for which in PURCHASE_DAYS_PARTS}


SPEC = TraitKind(
    "purchase_days",
    "The summary that models of repeat buying stand on (Fader, Hardie and Lee 2005), by calendar days of the shop: `.frequency`"
    " purchase days after the first, `.recency_days` first to last, `.age_days` first to today, `.monetary` mean of the daily"
    " totals without the first day, `.silent_days` last to today.",
    ("status_in",),
    _compile,
    examples=(
        TraitExample(
            "{purchase_days: order}",
            """
            0d   ana  order_completed order_id=1 total=10
            0d   ana  order_completed order_id=2 total=30
            10d  ana  order_completed order_id=3 total=20
            15d  ana  expect trait it.frequency 1, trait it.recency_days 10, trait it.age_days 15
            15d  ana  expect trait it.monetary 20, trait it.silent_days 5
            """,
        ),
    ),
)
