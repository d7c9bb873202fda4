"""``issue_coupon: {offer: repeat, valid: P7D}``: a code of the customer's own, that later steps name as ``$coupon``.

A coupon that a letter names is issued with that letter: where the letter is held back, there is none.
A code is the offer, what identifies the occasion, and a mark that only the installation can make (its secret): the core
knows all but the mark, the shell completes it (docs/decisions/0090).
"""

from __future__ import annotations

import re
from typing import Any, Final

from profiles.ids import trigger_id
from profiles.moments import iso
from profiles.state import Instance, Profile
from profiles.wire import coupon_stem
from rules.documents import Node
from rules.program import Act, Maker, StepSpec, filled
from rules.words import Tongue

_OFFER: Final = re.compile(r"[a-z0-9_]{1,40}")


def _compile(node: Node, maker: Maker) -> None:
    node.known(("offer", "valid"), required=("offer",))
    named, valid_node = node.get("offer"), node.get("valid")
    if named is None:
        return
    offer = named.text()
    if not _OFFER.fullmatch(re.sub(r"\{\w+\}", "x", offer)):
        named.wrong(f"an offer of small letters, digits and _ wanted, got {offer!r}")
    valid = valid_node.duration() if valid_node is not None else None
    zone = maker.scope.zone
    number = maker.next_coupon()

    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        given = re.sub(r"[^a-z0-9_]", "_", filled(offer, run.context).lower())
        name = trigger_id(run.trigger, f"coupon:{number}", run.opened_by, run.occasion)
        until = iso(valid.after(now_ms, zone)) if valid is not None else None
        run.context["coupon"] = {"stem": coupon_stem(given, name), "offer": given, "id": name, "valid_until": until}

    maker.program.append(Act(act, issues=True))


def _words(asked: Any, t: Tongue) -> str:
    valid = t.pick(", valid ", ", действует ") + t.duration(asked["valid"]) if "valid" in asked else ""
    return t.pick(f"a coupon ({asked.get('offer')}{valid})", f"купон ({asked.get('offer')}{valid})")


SPEC = StepSpec(
    "issue_coupon",
    "Gives a coupon, told on the topic `coupons`: `{offer: repeat, valid: P7D}`; later steps name it as `$coupon`, and it is issued with the first letter that does.",
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: product_reviewed}, steps: [{issue_coupon: {offer: review, valid: P7D}}, {emit: {template: thanks, payload: {coupon: $coupon}}}]}
        0d  ana  product_reviewed product=mug
        0d  ana  expect emits it 1, coupons it 1
        """,
    ),
)
