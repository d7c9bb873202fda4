"""``bucket``: a share of the customers, by chance that is always the same: a hash of the address and a salt."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

from profiles.ids import digest64
from profiles.state import SEEN, Profile
from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import Answer, always
from rules.words import Tongue

_ALL: Final = 1 << 64


def _bucket(node: Node, scope: Scope) -> Judged:
    wanted = node.get("bucket")
    assert wanted is not None
    wanted.known(("salt", "percent"), required=("salt", "percent"))
    salt_node, percent_node = wanted.get("salt"), wanted.get("percent")
    salt = salt_node.text() if salt_node is not None else ""
    percent = Fraction(percent_node.number()) if percent_node is not None else Fraction(0)
    if percent_node is not None and not 0 < percent < 100:
        percent_node.wrong(f"more than 0 and less than 100 wanted, got {percent_node.found()}")
    below = percent * _ALL / 100

    def place(profile: Profile) -> int:
        return digest64(f"bucket\x1f{salt}\x1f{profile.address}")

    def judge(profile: Profile, now_ms: int) -> Answer:
        return always(place(profile) < below)

    # An address does not change: it is asked when the profile is first seen.
    return Judged(
        "bucket",
        f"in the first {percent_node.text() if percent_node is not None else '?'} % of the bucket {salt}",
        judge,
        frozenset({("part", SEEN)}),
        (),
        lambda profile, now_ms: f"{place(profile) * 100 / _ALL:.2f} %",
    )


def _words(rule: dict[str, Any], t: Tongue) -> str:
    asked = rule["bucket"]
    share = t.compared(asked.get("percent"))
    return t.pick(
        f"of all customers by the draw {asked['salt']}, percent: {share}",
        f"из всех клиентов по жребию {asked['salt']}, процентов: {share}",
    )


SPEC = OperatorSpec(
    "bucket",
    "That share of all customers, the same ones always: by a hash of the salt and the profile's address.",
    (),
    _bucket,
    (
        RuleExample(
            "{bucket: {salt: global-2026, percent: 50}}",
            """
            0d  ana  page_viewed
            0d  bob  page_viewed
            0d  tom  page_viewed
            9d  ana  expect in
            9d  bob  expect in
            9d  tom  expect out
            """,
        ),
    ),
    _words,
)
