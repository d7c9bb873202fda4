"""``suppress: {channels: [email]}``: write no more on these channels, until the customer grants it anew.

``scope: marketing`` is every channel: bills and the like ask for no consent and still go out. ``then: {erase_after: P30D}``
erases the customer after that time, unless he grants anything until then, or something else cancels the journey (a visit, say).
It is a moment, with its decision.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.moments import Duration
from rules.documents import Node
from rules.program import EXIT, Erase, Maker, StepSpec, Suppress, WaitFor
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
    maker.program.append(Suppress(maker.next_step(), tuple(channels)))
    if then is not None:
        then.known(("erase_after",), required=("erase_after",))
        after = then.get("erase_after")
        granted = then.made(
            {"event": then.made("consent_changed"), "where": then.made({"state": then.made("granted")})}
        )
        length = after.duration() if after is not None else Duration(days=30)
        maker.program.append(WaitFor(maker.listeners(granted), (), length, EXIT, len(maker.program) + 1))
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
    "Writes no more: `{channels: [email]}`, or `{scope: marketing}`, every channel, until the customer grants it anew; `then: {erase_after: P30D}` erases him after that, unless he grants anything first or the journey is cancelled. A moment, with its decision.",
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
        0d   joe  registered
        0d   joe  expect suppressed it done
        1d   ana  order_completed order_id=1 total=10
        1d   eve  order_completed order_id=2 total=10
        1d   ana  expect emits bill 1, in buyers
        1d   joe  order_completed order_id=3 total=10
        29d  eve  page_viewed
        29d  joe  consent_changed channel=email topic=news state=granted
        30d  ana  expect out buyers, alarm none
        30d  eve  expect in buyers, suppressed it cancelled
        30d  joe  expect in buyers, suppressed it reacted
        """,
    ),
)
