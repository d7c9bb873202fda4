"""Signed links, as they stand in letters: what each may do stands in it, and nothing is looked up.

    {"aud": "click", "sub": "user:42", "url": "https://shop.example/tea", "trigger_id": "75012d…"}

is a JSON Web Token (RFC 7519), HS256 under a key of ``OPPORTUNE_LINK_KEYS``, so any sender's JWT library makes one. ``aud``
is what it is for: ``click``, ``open`` or ``unsubscribe``; ``sub`` the address that the moment was published under. ``url`` is
where a click leads. What else of ``SAID`` it says is in the event. A link has no end: letters are opened years later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from profiles.ids import VALUE_CHARS_MAX, strength

CLICK: Final = "click"
OPEN: Final = "open"
UNSUBSCRIBE: Final = "unsubscribe"
SAID: Final = ("channel", "topic", "trigger_id", "delivery_id", "campaign", "variant")
CHANNELS: Final = ("email", "sms", "push")
_URL: Final = re.compile(r"https?://[!-~]{1,2000}")
_TEXT: Final = re.compile(rf"[^\x00-\x1f\x7f]{{1,{VALUE_CHARS_MAX}}}")


@dataclass(frozen=True, slots=True)
class Link:
    """What a link says.

    Attributes:
        purpose: ``click``, ``open`` or ``unsubscribe``.
        address: of whom it was sent to, as records have it.
        url: where a click leads, in ASCII; empty: it is none.
        said: of ``SAID``.
    """

    purpose: str
    address: str
    url: str = ""
    said: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.purpose not in (CLICK, OPEN, UNSUBSCRIBE):
            raise ValueError("link: click, open or unsubscribe wanted")
        if not strength(self.address) or not _TEXT.fullmatch(self.address):
            raise ValueError("link: an address like user:42 wanted")
        if bool(self.url) != (self.purpose == CLICK) or (self.url and not _URL.fullmatch(self.url)):
            raise ValueError("link: http:// or https:// in ASCII wanted where a click leads, and only there")
        for name, text in self.said.items():
            if name not in SAID or not _TEXT.fullmatch(text):
                raise ValueError(f"link: text in {', '.join(SAID)} wanted")
        if self.channel not in CHANNELS:
            raise ValueError(f"link: a channel of {', '.join(CHANNELS)} wanted")

    @property
    def topic(self) -> str:
        """Of the letter, as consents call it; ``*``: of none."""
        return self.said.get("topic", "*")

    @property
    def channel(self) -> str:
        """By which it was sent."""
        return self.said.get("channel", "email")


def sign(link: Link, key: str) -> str:
    """The token of a link, for its path: ``/u/<token>``, ``/c/<token>``, ``/o/<token>``."""
    url = {"url": link.url} if link.url else {}
    return jwt.encode({"aud": link.purpose, "sub": link.address, **url, **link.said}, key, "HS256")


def read(purpose: str, token: str, keys: Sequence[str]) -> Link | None:
    """The link that was signed for that purpose by one of these keys; ``None``: there is none."""
    options: Any = {"require": ["sub", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    for key in keys:
        try:
            told = jwt.decode(token, key, algorithms=["HS256"], audience=purpose, options=options)
            said: dict[str, str] = {name: told[name] for name in SAID if told.get(name) not in (None, "")}
            return Link(purpose, told["sub"], told.get("url", ""), said)
        except (jwt.InvalidTokenError, ValueError, TypeError):
            continue
    return None
