"""``consent``: what the customer agreed to, per channel and topic. Nothing said is ``unknown``: neither yes nor no."""

from __future__ import annotations

from typing import Any

from profiles import consent
from profiles.state import CONSENTS, Profile
from rules.documents import Node
from rules.messages import CHANNELS
from rules.slips import did_you_mean
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import Answer, always
from rules.words import Tongue

_UNKNOWN = "unknown"
_STATES = (consent.GRANTED, consent.DENIED, _UNKNOWN)


def _consent(node: Node, scope: Scope) -> Judged:
    wanted = node.get("consent")
    assert wanted is not None
    if not wanted.is_map():
        wanted.wrong(f"a mapping wanted, like {{channel: email, state: granted}}, got {wanted.found()}")
        wanted = wanted.made({"channel": wanted})
    wanted.known(("channel", "topic", "state"), required=("channel",))
    channel_node, topic_node, state_node = wanted.get("channel"), wanted.get("topic"), wanted.get("state")
    channel = channel_node.text() if channel_node is not None else "email"
    if channel_node is not None and channel not in CHANNELS and (meant := did_you_mean(channel, CHANNELS, alike=0.8)):
        channel_node.wrong(f"unknown channel {channel!r}{meant}")
    topic = topic_node.text() if topic_node is not None else "*"
    states = [one.choice(_STATES) for one in state_node] if state_node is not None else [consent.GRANTED]
    wanted_states = frozenset(states)

    def state_of(profile: Profile) -> str:
        return consent.state_of(profile, channel, topic) or _UNKNOWN

    def judge(profile: Profile, now_ms: int) -> Answer:
        return always(state_of(profile) in wanted_states)

    return Judged(
        "consent",
        f"consent {channel}:{topic} is {' or '.join(states)}",
        judge,
        frozenset({("part", CONSENTS)}),
        (),
        lambda profile, now_ms: state_of(profile),
    )


def _words(rule: dict[str, Any], t: Tongue) -> str:
    asked = rule["consent"]
    topic = "" if asked.get("topic", "*") == "*" else f" ({asked['topic']})"
    states = asked.get("state", consent.GRANTED)
    said = {
        consent.GRANTED: t.pick("granted", "дано"),
        consent.DENIED: t.pick("denied", "отозвано"),
        _UNKNOWN: t.pick("unknown", "неизвестно"),
    }
    told = t.pick(" or ", " или ").join(said[one] for one in (states if isinstance(states, list) else [states]))
    return t.pick(f"consent to {asked['channel']}{topic} is {told}", f"согласие на {asked['channel']}{topic}: {told}")


SPEC = OperatorSpec(
    "consent",
    "The consent for a channel and topic is one of those asked: `granted` (unless said), `denied`, `unknown`.",
    (),
    _consent,
    (
        RuleExample(
            "{consent: {channel: email, topic: sale}}",
            """
            0d  ana  expect out
            0d  ana  consent_changed channel=email topic=sale state=granted
            0d  ana  expect in
            1d  ana  unsubscribed channel=email
            1d  ana  expect out
            """,
        ),
        RuleExample(
            "{consent: {channel: sms, state: [granted, unknown]}}",
            """
            0d  ana  page_viewed
            0d  ana  expect in
            1d  ana  consent_changed channel=sms state=denied
            1d  ana  expect out
            """,
        ),
    ),
    _words,
)
