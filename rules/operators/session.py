"""``session``: what the customer did in the visit under way (or, on ``session_ended``, in the one just over)."""

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
        return NO if found is None else always(test(found))

    return Judged(
        "session", f"in this session {' or '.join(types)} {said}", judge, frozenset({("part", SESSION)}), (), count
    )


def _words(rule: dict[str, Any], t: Tongue) -> str:
    asked = rule["session"]
    times = asked.get("times", {"gte": 1})
    said = t.events(asked.get("did"))
    counted = t.compared(times)
    return t.pick(f"in this visit {said}, times: {counted}", f"в этом визите {said}, раз: {counted}")


SPEC = OperatorSpec(
    "session",
    "The customer did it in the visit under way.",
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
    ),
    _words,
)
