"""``some``: so many of several rules hold, whichever. Of two or three signs out of five people make a score."""

from __future__ import annotations

from typing import Any

from profiles.state import Profile
from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import NO, Answer, at_least
from rules.words import Tongue


def _some(node: Node, scope: Scope) -> Judged:
    inside, wanted = node.get("some"), node.get("at_least")
    assert inside is not None
    children = tuple(scope.rule(one) for one in inside)
    reads = frozenset[tuple[str, Any]]().union(*(child.reads for child in children))
    if wanted is None:
        node.wrong("'at_least' is missing: how many of the rules must hold")
        return Judged("some", "some of these", lambda profile, now_ms: NO, reads, children)
    least = wanted.integer(least=1, most=len(children), default=1)
    judges = tuple(child.judge for child in children)

    def judge(profile: Profile, now_ms: int) -> Answer:
        return at_least(least, [one(profile, now_ms) for one in judges])

    return Judged("some", f"at least {least} of these", judge, reads, children, least=least)


def _words(rule: dict[str, Any], t: Tongue) -> str:
    several = rule["some"] if isinstance(rule["some"], list) else [rule["some"]]
    of = t.several(several, t.pick("or", "или"))
    return t.pick(f"at least {rule.get('at_least')} of: ", f"не меньше {rule.get('at_least')} из: ") + of


SPEC = OperatorSpec(
    "some",
    "At least so many of the rules in the list hold, whichever.",
    ("at_least",),
    _some,
    (
        RuleExample(
            "{some: [{did: product_viewed, window: P7D}, {did: order, window: P30D}, {consent: {channel: email}}], at_least: 2}",
            """
            0d   ana  product_viewed
            0d   ana  expect out, wake none
            1d   ana  order_completed order_id=1 total=10
            1d   ana  expect in, wake 7d
            7d   ana  expect out, wake none
            8d   ana  consent_changed channel=email state=granted
            8d   ana  expect in, wake 31d
            31d  ana  expect out
            """,
        ),
    ),
    _words,
)
