"""Erasure: what stays at an address when its person is gone, and what may begin there anew.

What stays is a tombstone: a profile that knows only until when everything is gone (``erased_ms``). Whatever happened up
to then is dropped, however late or often it is told. The shell keeps it under a keyed hash of the address.

Afterwards an address that names a person (user, e-mail, phone, card) is opened again by the person only: a registration,
or a consent granted, live and after the erasure. A shop's systems go on telling of somebody for a while, and that must
not bring him back. An anonymous id or a device names a machine, which others use: what happens there later is
another's, or nobody's, and begins with nothing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from profiles.errors import BadInput
from profiles.ids import STRENGTH, strength
from profiles.state import Profile
from profiles.wire import Event

_MACHINE: Final = STRENGTH["device"]


class Asked(NamedTuple):
    """The body of an erasure's command.

    Attributes:
        by: who asked for it, as the shop knows its staff.
        link: to an alias: the link by which the person held it; ``None``: only if it leads to him now.
        until_ms: an earlier erasure done again: up to when it reached; 0: up to the present.
    """

    by: str
    link: tuple[int, str] | None = None
    until_ms: int = 0


def pack_asked(asked: Asked) -> bytes:
    """A command's body."""
    return orjson.dumps({"by": asked.by, "link": asked.link, "until_ms": asked.until_ms})


def read_asked(body: bytes) -> Asked:
    """Read a command's body.

    Raises:
        BadInput: ``malformed``: none of ours.
    """
    try:
        raw: dict[str, Any] = orjson.loads(body)
        by, link, until_ms = raw["by"], raw["link"], raw["until_ms"]
        asked = Asked(by, None if link is None else (link[0], link[1]), until_ms)
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError) as error:
        raise BadInput("malformed", f"erase: by, link and until_ms wanted, {type(error).__name__}") from None
    is_sound = type(by) is str and type(until_ms) is int
    if not is_sound or (asked.link is not None and not (type(asked.link[0]) is int and type(asked.link[1]) is str)):
        raise BadInput("malformed", "erase: text, a link and a number in their places wanted")
    return asked


def is_tombstone(profile: Profile) -> bool:
    """Whether a person was erased here and nothing has begun since."""
    p = profile
    return p.erased_ms > 0 and not (p.first_seen_ms or p.ring or p.forward or p.links)


def is_erased(profile: Profile, event: Event) -> bool:
    """Whether this event is of a life that was erased, so that it must be dropped."""
    if event.at_ms <= profile.erased_ms:
        return True
    return is_tombstone(profile) and not _reopens(profile.address, event)


def _reopens(address: str, event: Event) -> bool:
    if event.backfill:
        return False
    if strength(address) <= _MACHINE:
        return True
    return event.type == "registered" or (event.type == "consent_changed" and event.props.get("state") == "granted")
