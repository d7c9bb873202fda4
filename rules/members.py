"""Segments whose membership is memory: those that a weaker rule keeps, and static ones, formed once; and the stage that somebody is in, as a trait.

The judges here look at the profile's own membership, which is what was judged, or said by command, before.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

from profiles.ids import small_id
from profiles.moments import FOREVER, instant
from profiles.state import Profile
from rules.documents import Node
from rules.spec import Judged, Reader, Scope
from rules.verdict import Answer, Judge, all_of, always, any_of


def staying(name: str, enters: Judged, stays: Judged) -> Judged:
    """Who has entered stays as long as a weaker rule holds."""
    member = _membership(name)
    both = all_of((member.judge, stays.judge))
    children = (enters, Judged("all", "all of these", both, stays.reads, (member, stays), least=2))
    return Judged("any", "any of these", any_of((enters.judge, both)), enters.reads | stays.reads, children, least=1)


def static(name: str, node: Node, scope: Scope) -> Judged:
    """A segment that is formed once: of a rule at a given instant, or by commands; no event changes it afterwards.

    Whoever is formed of a rule is asked at that very instant, by his own alarm, and never again.
    """
    node.known(("kind", "formed_from", "form_at", "says"))
    rule, at = node.get("formed_from"), node.get("form_at")
    member = _membership(name)
    if rule is None and at is None:
        return member
    if rule is None or at is None:
        node.wrong("static: 'formed_from' and 'form_at' go together; without both it is formed by commands")
        return member
    form_ms = _instant(at, scope.zone)
    formed = scope.rule(rule)
    # What the rule reads changes the answer at its very instant only, when several things may happen.
    text = f"formed at {at.found()}"
    judge = _formed(form_ms, formed.judge, member.judge)
    return Judged("static", text, judge, formed.reads, (formed,), member.value)


def stage(name: str, stages: tuple[str, ...]) -> dict[str, Reader]:
    """Traits of an ordered partition: ``lifecycle``, the stage that the customer is in, and ``lifecycle.entered_at``, since when.

    Args:
        stages: the segments that it is made of, ``lifecycle.churn`` and the rest.
    """
    said = {small_id(one): one.removeprefix(f"{name}.") for one in stages}
    reads = frozenset(("segment", one) for one in stages)

    def current(profile: Profile, now_ms: int) -> tuple[str | None, int]:
        return next((word for segment, word in said.items() if segment in profile.members), None), FOREVER

    def since(profile: Profile, now_ms: int) -> tuple[int | None, int]:
        return next((profile.members[segment] for segment in said if segment in profile.members), None), FOREVER

    return {name: Reader(current, "text", reads), f"{name}.entered_at": Reader(since, "time", reads)}


def _formed(form_ms: int, rule: Judge, member: Judge) -> Judge:
    def judge(profile: Profile, now_ms: int) -> Answer:
        if now_ms < form_ms:
            return False, form_ms
        return always(rule(profile, now_ms)[0]) if now_ms == form_ms else member(profile, now_ms)

    return judge


def _membership(name: str) -> Judged:
    segment = small_id(name)

    def judge(profile: Profile, now_ms: int) -> Answer:
        return always(segment in profile.members)

    return Judged(
        "in_segment", f"in segment {name}", judge, frozenset(), (), lambda profile, now_ms: segment in profile.members
    )


def _instant(node: Node, zone: tzinfo) -> int:
    text = node.text()
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        node.wrong(f"an ISO 8601 time like 2026-11-24T09:00, in the shop's zone, wanted, got {text!r}")
        return 0
    return instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=zone))
