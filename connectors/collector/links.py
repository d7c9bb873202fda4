"""What signed links do: a click, an opening, an unsubscribing as an event, and the page that asks before the last.

- ``/u/<token>``: GET shows a page and changes nothing, since scanners follow every link of a letter. POST unsubscribes: the
  page's own, or a mail program's at once (RFC 8058). From the letter's topic, or from all of its channel.
- ``/c/<token>``: to where the token says, and nowhere else.
- ``/o/<token>``: a picture of one transparent point.

HEAD, prefetching and known scanners are machines, and said to be in the event.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from html import escape
from operator import itemgetter
from typing import Any, Final, NamedTuple

from connectors.collector.admission import Admission
from connectors.collector.context import keep, machine_of
from connectors.links import CLICK, OPEN, UNSUBSCRIBE, Link
from profiles.payloads import TEXT_CHARS_MAX
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event, Record, encode_event

SOURCE: Final = "links"
"""The source of their events."""

PURPOSES: Final = {"u": UNSUBSCRIBE, "c": CLICK, "o": OPEN}
"""By the first part of the path."""

PICTURE: Final = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
ALL: Final = b"from=all"
"""What the page posts of who wants nothing on this channel any more."""

ONE_CLICK: Final = b"List-Unsubscribe"
"""What a mail program posts, in a form of either kind, as One-Click."""


class _Words(NamedTuple):
    """What the page says; ``{what}`` is what a channel brings, ``{topic}`` what it is about."""

    title: str
    done: str
    about: str
    everything: str
    told_about: str
    told_everything: str
    channels: Mapping[str, str]


_ENGLISH: Final = "en"
_WORDS: Final = {
    _ENGLISH: _Words(
        "Unsubscribe?",
        "Unsubscribed",
        "No more {what} about “{topic}”",
        "No more {what} from us",
        "You will get no more {what} about “{topic}” from us.",
        "You will get no more {what} from us.",
        {"email": "e-mail", "sms": "text messages", "push": "notifications"},
    ),
    "ru": _Words(
        "Отписаться?",
        "Вы отписались",
        "Больше не присылать {what} на тему «{topic}»",
        "Больше не присылать {what}",
        "Мы больше не будем присылать вам {what} на тему «{topic}».",
        "Мы больше не будем присылать вам {what}.",
        {"email": "писем", "sms": "сообщений", "push": "уведомлений"},
    ),
}
_PAGE: Final = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}}
button{{font:inherit;padding:.5rem 1rem;margin:.5rem .5rem 0 0}}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""
_WEIGHT: Final = re.compile(r"[01](\.\d{0,3})?")
_BUTTON: Final = '<form method="post"><button name="from" value="{value}">{label}</button></form>'


def reacted(
    link: Link, token: str, received_ms: int, *, agent: str, machine: str = "", seen: Mapping[str, Any] | None = None
) -> Admission:
    """The event of a click or an opening.

    Args:
        token: it, as it came.
        received_ms: the arrival, epoch ms UTC.
        agent: the user agent.
        machine: which one it is known to be; empty: the user agent may tell.
        seen: added to the event's context.
    """
    machine = machine or machine_of(agent[:TEXT_CHARS_MAX])
    told = {"url": link.url, "machine": machine}
    event = _event(
        f"{link.channel}_{'link_clicked' if link.purpose == CLICK else 'opened'}", link, token, received_ms, told
    )
    event.message_id += f":{machine}"
    event.context = keep({"userAgent": agent}, "", is_page=False) | dict(seen or {})
    return _admitted(event)


def unsubscribed(link: Link, token: str, received_ms: int, body: bytes) -> Admission:
    """The event of an unsubscribing.

    Args:
        body: of the POST; it tells all from the letter's topic, and a mail program from the page.
    """
    topic = "*" if takes_all(link, body) else link.topic
    proof = "one_click" if ONE_CLICK in body else "page"
    return _admitted(_event("unsubscribed", link, token, received_ms, {"topic": topic, "proof": proof}))


def takes_all(link: Link, body: bytes) -> bool:
    """Whether all of the channel is meant, not only the letter's topic."""
    return link.topic == "*" or body.strip() == ALL


def _event(name: str, link: Link, token: str, received_ms: int, told: Mapping[str, Any]) -> Event:
    # Each time is a message of its own: whoever has subscribed again in between means it.
    digest = hashlib.blake2b(token.encode(), digest_size=16).hexdigest()
    return Event(
        message_id=f"{digest}:{received_ms}",
        source=SOURCE,
        type=name,
        at_ms=received_ms,
        received_ms=received_ms,
        address=link.address,
        props=canonical(resolve(name), {**link.said, **told, "channel": link.channel}),
        trusted=True,
    )


def _admitted(event: Event) -> Admission:
    return Admission([Record(resolve(event.type).topic, event.address, encode_event(event))], {event.type: 1}, [])


def language_of(accepted: str) -> str:
    """Which language of ours a browser asks for first (``Accept-Language``, RFC 9110); English where it asks for none."""
    wishes: list[tuple[float, str]] = []
    for one in accepted.split(","):
        tag, *more = (part.strip() for part in one.lower().split(";"))
        weight = next((part[2:] for part in more if part.startswith("q=")), "1")
        language = tag.partition("-")[0]
        if language in _WORDS and _WEIGHT.fullmatch(weight) and float(weight):
            wishes.append((float(weight), language))
    return max(wishes, key=itemgetter(0), default=(1.0, _ENGLISH))[1]


def asking(link: Link, language: str = _ENGLISH) -> bytes:
    """The page that a GET shows."""
    words = _WORDS[language]
    what = words.channels[link.channel]
    buttons = [("all", words.everything.format(what=what))]
    if link.topic != "*":
        buttons.insert(0, ("topic", words.about.format(what=what, topic=link.topic)))
    forms = "\n".join(_BUTTON.format(value=value, label=escape(label)) for value, label in buttons)
    return _PAGE.format(language=language, title=words.title, body=forms).encode()


def done(link: Link, body: bytes, language: str = _ENGLISH) -> bytes:
    """The page after it."""
    words = _WORDS[language]
    said = words.told_everything if takes_all(link, body) else words.told_about
    told = escape(said.format(what=words.channels[link.channel], topic=link.topic))
    return _PAGE.format(language=language, title=words.done, body=f"<p>{told}</p>").encode()
