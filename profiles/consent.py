"""Consent per channel and topic, as events state it; ``*`` is every topic of a channel.

The newest statement stands; those before it are kept with it, for who has to show later what was agreed to, when and how.
"""

from __future__ import annotations

from typing import Any

from profiles.people import newer
from profiles.state import CONSENTS, Consent, Profile
from profiles.wire import Event

GRANTED = "granted"
DENIED = "denied"
TEXT_CHARS_MAX = 40
"""Of the version of the text that was shown: a name, no text."""
BEFORE_MAX = 9
"""Statements kept beside the one that stands, of each channel and topic."""


def changed(profile: Profile, event: Event) -> None:
    """``consent_changed``: what the person chose."""
    props = event.props
    text = (props.get("text_version") or "")[:TEXT_CHARS_MAX]
    _put(profile, props["channel"], props.get("topic") or "*", props["state"], event, text)


def unsubscribed(profile: Profile, event: Event) -> None:
    """A topic, or without one the whole channel, is refused from now on."""
    _put(profile, event.props.get("channel") or "email", event.props.get("topic") or "*", DENIED, event)


def complained(profile: Profile, event: Event) -> None:
    """Marked as spam: nothing on this channel any more."""
    _put(profile, event.props.get("channel") or "email", "*", DENIED, event)


def bounced(profile: Profile, event: Event) -> None:
    """A hard bounce closes the channel; a soft one changes nothing."""
    if event.props.get("hard", True):
        _put(profile, event.props.get("channel") or "email", "*", DENIED, event)


def state_of(profile: Profile, channel: str, topic: str) -> str | None:
    """``granted``, ``denied``, or ``None`` when nothing was said."""
    said = word_on(profile, channel, topic)
    return said.value if said is not None else None


def word_on(profile: Profile, channel: str, topic: str) -> Consent | None:
    """The statement that counts, the proof of a consent. A refused channel refuses all its topics, unless that very topic was
    granted later."""
    whole = profile.consents.get(f"{channel}:*")
    one = profile.consents.get(f"{channel}:{topic}")
    if one is None or one.value is None:  # Nothing was said of this topic, or it was taken back by an edit.
        return whole
    return whole if whole is not None and whole.value == DENIED and whole.at_ms >= one.at_ms else one


def _put(profile: Profile, channel: str, topic: str, state: str, event: Event, text: str = "") -> None:
    name = f"{channel}:{topic}"
    said = Consent(state, event.at_ms, event.source, text)
    known = profile.consents.get(name)
    profile.consents[name] = said if known is None else _together(said, known)
    if known is None or newer(said, known):
        profile.dirty |= CONSENTS


def joined(a: dict[str, Consent], b: dict[str, Consent]) -> dict[str, Consent]:
    """The consents of two profiles that are one person."""
    both = dict(a)
    for name, said in b.items():
        known = both.get(name)
        both[name] = said if known is None else _together(said, known)
    return both


def after(known: Consent | None, said: Consent) -> Consent:
    """A statement that stands from now on, whatever was stated."""
    return said if known is None else said._replace(before=(known[:4], *known.before)[:BEFORE_MAX])


def _together(a: Consent, b: Consent) -> Consent:
    """All that was stated there and here; the newest stands."""
    words = sorted({a[:4], *a.before, b[:4], *b.before}, key=_order, reverse=True)
    return Consent(*words[0], tuple(words[1 : BEFORE_MAX + 1]))


def _order(word: tuple[Any, int, str, str]) -> tuple[int, str, str, str]:
    value, at_ms, source, text = word
    return at_ms, source, repr(value), text
