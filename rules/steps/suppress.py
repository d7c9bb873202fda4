"""``suppress: {channels: [email]}``: write no more on these channels, until the customer grants it anew.

``scope: marketing`` is every channel: bills and the like ask for no consent and still go out. ``then: {erase_after: P30D}``
erases the customer after that time, unless something cancels the journey until then (a visit, a new consent).
"""

from __future__ import annotations

from typing import Any, Final

from profiles import consent
from profiles.moments import Duration
from profiles.state import CONSENTS, Consent, Instance, Profile
from rules.documents import Node
from rules.program import Act, Erase, Maker, StepSpec, Wait
from rules.words import Tongue

CHANNELS: Final = ("email", "sms", "push")


def _compile(node: Node, maker: Maker) -> None:
    node.known(("channels", "scope", "then"))
    named, scope, then = node.get("channels"), node.get("scope"), node.get("then")
    if scope is not None:
        scope.choice(("marketing",))
        if named is not None:
            scope.wrong("either 'channels' or 'scope' wanted")
    channels = [one.choice(CHANNELS) for one in named] if named is not None else list(CHANNELS)
    source = f"trigger:{maker.trigger}"

    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        for channel in channels:
            profile.consents[f"{channel}:*"] = Consent(consent.DENIED, now_ms, source)
        profile.dirty |= CONSENTS

    maker.program.append(Act(act))
    if then is not None:
        then.known(("erase_after",), required=("erase_after",))
        after = then.get("erase_after")
        maker.program.append(Wait(after.duration() if after is not None else Duration(days=30), within_day=False))
        maker.program.append(Erase(maker.next_step()))


def _words(asked: Any, t: Tongue) -> str:
    channels = t.value((asked or {}).get("channels", list(CHANNELS)))
    said = t.pick(f"write no more ({channels})", f"больше не писать ({channels})")
    if "then" in (asked or {}):
        after = t.duration(asked["then"].get("erase_after"))
        said += t.pick(f", erase the customer after {after}", f", стереть клиента через {after}")
    return said


SPEC = StepSpec(
    "suppress",
    "Writes no more: `{channels: [email]}`, or `{scope: marketing}`, every channel, until the customer grants it anew; `then: {erase_after: P30D}` erases him after that, unless the journey is cancelled first.",
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: registered}, consent: {channel: email, mode: opt_out}, steps: [{emit: last}, {suppress: {channels: [email]}}, {wait: P1D}, {emit: more}]}
        0d  ana  registered
        1d  ana  expect emits it 1, suppressed it no_consent
        """,
        """
        segment buyers = {did: order}
        trigger bill = {class: transactional, on: {event: order_completed}, steps: [{emit: bill}]}
        trigger it = {on: {event: registered}, cancel_on: [{event: page_viewed}], consent: {channel: sms, mode: opt_out}, steps: [{suppress: {scope: marketing, then: {erase_after: P30D}}}]}
        0d   ana  registered
        0d   eve  registered
        1d   ana  order_completed order_id=1 total=10
        1d   eve  order_completed order_id=2 total=10
        1d   ana  expect emits bill 1, in buyers
        29d  eve  page_viewed
        30d  ana  expect out buyers, alarm none
        30d  eve  expect in buyers
        """,
    ),
)
