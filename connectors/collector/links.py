"""What signed links do: a click, an opening, an unsubscribing as an event, and the page that asks before the last.

- ``/u/<token>``: GET shows a page and changes nothing, since scanners follow every link of a letter. POST unsubscribes: the
  page's own, or a mail program's at once (RFC 8058). From the letter's topic, or from all of its channel.
- ``/c/<token>``: to where the token says, and nowhere else.
- ``/o/<token>``: a picture of one transparent point.

HEAD, prefetching and known scanners are machines, and said to be in the event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any, Final

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

_CHANNELS: Final = {"email": "e-mail", "sms": "text messages", "push": "notifications"}
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}}
button{{font:inherit;padding:.5rem 1rem;margin:.5rem .5rem 0 0}}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""
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


def asking(link: Link) -> bytes:
    """The page that a GET shows."""
    channel = _CHANNELS[link.channel]
    buttons = [("all", f"No more {channel} from us")]
    if link.topic != "*":
        buttons.insert(0, ("topic", f"No more {channel} about “{link.topic}”"))
    forms = "\n".join(_BUTTON.format(value=value, label=escape(label)) for value, label in buttons)
    return _PAGE.format(title="Unsubscribe?", body=forms).encode()


def done(link: Link, body: bytes) -> bytes:
    """The page after it."""
    about = "" if takes_all(link, body) else f" about “{link.topic}”"
    told = f"You will get no more {_CHANNELS[link.channel]}{about} from us."
    return _PAGE.format(title="Unsubscribed", body=f"<p>{escape(told)}</p>").encode()
