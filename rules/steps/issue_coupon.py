"""``issue_coupon: {offer: repeat, valid: P7D}``: a code of the customer's own, that later steps name as ``$coupon``.

``to: referrer`` gives it to another known user, whom that trait names by his id: his profile hears it as ``coupon_issued``, with the
offer and the code, and rules of his may follow. Whoever names himself, or nobody, gives none.
A coupon that a letter names is issued with that letter: where the letter is held back, there is none.
A code is the offer, what identifies the occasion, and a mark that only the installation can make (its secret): the core
knows all but the mark, the shell completes it (docs/decisions/0090).
"""

from __future__ import annotations

import re
from typing import Any, Final

from profiles.ids import VALUE_CHARS_MAX, trigger_id
from profiles.moments import iso
from profiles.state import Instance, Profile
from profiles.wire import coupon_stem
from rules.documents import Node
from rules.program import Act, Maker, StepSpec, filled
from rules.words import Tongue

_OFFER: Final = re.compile(r"[a-z0-9_]{1,40}")


def _compile(node: Node, maker: Maker) -> None:
    node.known(("offer", "valid", "to"), required=("offer",))
    named, valid_node, to = node.get("offer"), node.get("valid"), node.get("to")
    if named is None:
        return
    offer = named.text()
    if not _OFFER.fullmatch(re.sub(r"\{\w+\}", "x", offer)):
        named.wrong(f"an offer of small letters, digits and _ wanted, got {offer!r}")
    valid = valid_node.duration() if valid_node is not None else None
    zone = maker.scope.zone
    number = maker.next_coupon()
    reader = maker.scope.reader(to.text(), to) if to is not None else None

    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        run.context.pop("coupon", None)
        goes_to = _address_of(reader.read(profile, now_ms)[0], profile) if reader is not None else ""
        if goes_to is None:
            return
        given = re.sub(r"[^a-z0-9_]", "_", filled(offer, run.context).lower())
        name = trigger_id(run.trigger, f"coupon:{number}", run.opened_by, run.occasion)
        until = iso(valid.after(now_ms, zone)) if valid is not None else None
        run.context["coupon"] = {"stem": coupon_stem(given, name), "offer": given, "id": name, "valid_until": until}
        if goes_to:
            run.context["coupon"]["to"] = goes_to

    maker.program.append(Act(act, issues=True))


def _address_of(said: Any, giver: Profile) -> str | None:
    """Another known user, by his address or his id; nobody gives a coupon to himself."""
    text = str(said) if isinstance(said, str | int) and not isinstance(said, bool) else ""
    address = text if text.startswith("user:") else f"user:{text}"
    if not text or ":" in address.removeprefix("user:") or address == giver.address or len(text) > VALUE_CHARS_MAX:
        return None
    return address


def _words(asked: Any, t: Tongue) -> str:
    valid = t.pick(", valid ", ", действует ") + t.duration(asked["valid"]) if "valid" in asked else ""
    to = t.pick(" to the customer's ", " кому указано: ") + str(asked["to"]) if "to" in asked else ""
    return t.pick(f"a coupon ({asked.get('offer')}{valid}){to}", f"купон ({asked.get('offer')}{valid}){to}")


SPEC = StepSpec(
    "issue_coupon",
    "Gives a coupon, told on the topic `coupons`: `{offer: repeat, valid: P7D}`; with `to: referrer` to another customer, whom that trait names; later steps name it as `$coupon`, and it is issued with the first letter that does.",
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: product_reviewed}, steps: [{issue_coupon: {offer: review, valid: P7D}}, {emit: {template: thanks, payload: {coupon: $coupon}}}]}
        0d  ana  product_reviewed product=mug
        0d  ana  expect emits it 1, coupons it 1
        """,
        """
        trigger it = {on: {event: order_completed, nth: 1}, steps: [{issue_coupon: {offer: friend, to: referrer}}]}
        trigger thanks = {on: {event: coupon_issued, where: {offer: friend}}, steps: [{emit: thanks}]}
        0d  bob  identified referrer=ana
        0d  ana  page_viewed
        1d  bob  order_completed order_id=1 total=10
        1d  ana  expect emits thanks 1, coupons it 1
        1d  bob  expect emits thanks 0
        """,
    ),
)
