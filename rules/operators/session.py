"""``session``: what the customer did in the visit under way (or, on ``session_ended``, in the one just over).

    {session: {did: product_viewed}}, {session: {not: {did: product_added}}}

Outside a visit neither holds: ``not: {session: …}`` asks for no visit, ``session: {not: …}`` for one in which it was not done.
"""

from __future__ import annotations

from typing import Any

from profiles.state import SESSION, Profile
from rules.compare import numeric
from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import NO, Answer, always
from rules.words import Tongue


def _session(node: Node, scope: Scope) -> Judged:
    wanted = node.get("session")
    assert wanted is not None
    without = wanted.get("not")
    if without is not None:
        wanted.known(("not",))
        wanted = without
    wanted.known(("did", "times"), required=("did",))
    did = wanted.get("did")
    types = scope.event_types(did) if did is not None else ()
    times = wanted.get("times")
    test, said, _ = numeric(times) if times is not None else (lambda count: count >= 1, "at least once", 1)

    def count(profile: Profile, now_ms: int) -> int | None:
        session = profile.session
        return None if session is None else sum(session.counts.get(name, 0) for name in types)

    def judge(profile: Profile, now_ms: int) -> Answer:
        found = count(profile, now_ms)
        return NO if found is None else always(test(found) == (without is None))

    return Judged(
        "session",
        f"in this session {'not: ' if without is not None else ''}{' or '.join(types)} {said}",
        judge,
        frozenset({("part", SESSION)}),
        (),
        count,
    )


def _words(rule: dict[str, Any], t: Tongue) -> str:
    asked = rule["session"]
    if "not" in asked:
        inside = _words({"session": asked["not"]}, t)
        return t.pick(f"not {inside}", f"не было {inside}")
    times = asked.get("times", {"gte": 1})
    said = t.events(asked.get("did"))
    counted = t.compared(times)
    return t.pick(f"in this visit {said}, times: {counted}", f"в этом визите {said}, раз: {counted}")


SPEC = OperatorSpec(
    "session",
    "The customer did it in the visit under way; `{not: {did: …}}`: there is a visit, and he did not do it in it.",
    (),
    _session,
    (
        RuleExample(
            "{session: {did: product_viewed, times: {gte: 2}}}",
            """
            0m   ana  product_viewed
            5m   ana  product_viewed
            5m   ana  expect in
            35m  ana  expect out
            """,
        ),
        RuleExample(
            "{session: {not: {did: product_added}}}",
            """
            0m   ana  product_viewed
            0m   ana  expect in
            5m   ana  product_added
            5m   ana  expect out
            60m  ana  page_viewed
            60m  ana  expect in
            90m  ana  expect out     # there is no visit now
            """,
        ),
    ),
    _words,
)
