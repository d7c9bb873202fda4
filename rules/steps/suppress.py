"""``suppress: {channels: [email]}``: write no more on these channels, until the customer grants it anew."""

from __future__ import annotations

from typing import Any, Final

from profiles import consent
from profiles.state import CONSENTS, Consent, Instance, Profile
from rules.documents import Node
from rules.program import Act, Maker, StepSpec
from rules.words import Tongue

CHANNELS: Final = ("email", "sms", "push")


def _compile(node: Node, maker: Maker) -> None:
    node.known(("channels",))
    named = node.get("channels")
    channels = [one.choice(CHANNELS) for one in named] if named is not None else list(CHANNELS)
    source = f"trigger:{maker.trigger}"

    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        for channel in channels:
            profile.consents[f"{channel}:*"] = Consent(consent.DENIED, now_ms, source)
        profile.dirty |= CONSENTS

    maker.program.append(Act(act))


def _words(asked: Any, t: Tongue) -> str:
    channels = t.value((asked or {}).get("channels", list(CHANNELS)))
    return t.pick(f"write no more ({channels})", f"больше не писать ({channels})")


SPEC = StepSpec(
    "suppress",
    "Writes no more: `{channels: [email]}` (every channel unless said), until the customer grants it anew.",
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: registered}, consent: {channel: email, mode: opt_out}, steps: [{emit: last}, {suppress: {channels: [email]}}, {wait: P1D}, {emit: more}]}
        0d  ana  registered
        1d  ana  expect emits it 1, suppressed it no_consent
        """,
    ),
)
