"""``years_since``: an age in whole years; it grows at midnight of the birthday, where the customer is."""

from __future__ import annotations

from typing import Any

from profiles.moments import Duration, local
from profiles.people import zone_of
from profiles.state import TRAITS, Profile
from rules.documents import Node
from rules.entities import day_of, midnight
from rules.spec import Reader, Scope, TraitExample, TraitKind


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    path = spec.text()
    of = scope.reader(path, spec)
    zone_node = node.get("zone")
    shops = zone_node is not None and zone_node.choice(("profile", "shop")) == "shop"

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        value, until_ms = of.read(profile, now_ms)
        zone = scope.zone if shops else zone_of(profile, scope.zone)
        born = day_of(value, zone)
        if born is None:
            return None, until_ms
        born_ms = midnight(born, zone)
        years = local(now_ms, zone).year - born.year
        # Of a birthday that is not come yet this year the year before counts; 29 February is the 28th in other years.
        if now_ms < Duration(months=12 * years).after(born_ms, zone):
            years -= 1
        following_ms = Duration(months=12 * (years + 1)).after(born_ms, zone)
        return (years, min(until_ms, following_ms)) if years >= 0 else (None, min(until_ms, born_ms))

    return {name: Reader(read, "number", of.reads | {("part", TRAITS)})}


SPEC = TraitKind(
    "years_since",
    "Whole years since the day of a trait: an age. It grows at midnight of the birthday (of 29 February on the 28th in other years) in the"
    " customer's zone (his trait `timezone`, else the shop's), or with `zone: shop` in the shop's.",
    ("zone",),
    _compile,
    examples=(
        TraitExample(
            "{years_since: birth_date}",
            """
            segment adult = {trait: it, gte: 18}
            0d  ana  identified birth_date=2008-01-03
            0d  ana  expect trait it 17, out, wake 2d
            2d  ana  expect trait it 18, in
            """,
        ),
    ),
)
