"""Who asks the API, and what he may: a shop's own people and systems bear a token, a page bears a signature of the shop's.

*Tokens* have scopes: ``hint`` (the till: one short answer about a customer), ``read`` (all that can be seen, hints too),
``write`` (edit and un-merge), ``erase``. ``OPPORTUNE_API_TOKEN`` has them all; others stand in a JSON or YAML document,
inline in ``OPPORTUNE_API_TOKENS`` or in the file that it names:

    {"tk_5SD2…": {"name": "till-3", "scopes": ["hint"]},
     "tk_0PQM…": {"name": "crm",    "scopes": ["read", "write"]}}

*Pages* run at whoever looks at them, so the shop's back end signs for each visitor what his page may ask about: a JSON Web
Token (RFC 7519), HS256 under ``OPPORTUNE_API_SITE_KEY``, with

    {"sub": "anon:8f3c…", "aud": "site", "exp": 1767225600}

``aud`` is ``site`` or ``form``, ``sub`` an address; it is believed for a day at most.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
import yaml

from profiles.errors import Refused
from profiles.moments import DAY_MS

SCOPES: Final = ("hint", "read", "write", "erase")
TOKEN_CHARS_MIN: Final = 24
SITE_MS_MAX: Final = DAY_MS
"""How far ahead the end of a page's token may lie."""

_SKEW_MS: Final = 60_000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_TOKEN: Final = re.compile(rf"[!-~]{{{TOKEN_CHARS_MIN},200}}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who bears a token.

    Attributes:
        name: what the shop calls him.
        scopes: what he may.
    """

    name: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether he may do that; who may read may have hints, too."""
        return scope in self.scopes or (scope == "hint" and "read" in self.scopes)


class Callers:
    """Finds who bears a token.

    Args:
        known: callers by token.
        anybody: what may be asked without one.
    """

    def __init__(self, known: Mapping[str, Caller], anybody: frozenset[str] = frozenset()) -> None:
        # By digest: how long a look-up takes says nothing about a token.
        self._known = {_digest(token): caller for token, caller in known.items()}
        self.anybody = Caller("anybody", anybody)

    def of(self, token: str | None) -> Caller | None:
        """Who bears it; ``None``: nobody known. Without a token: anybody."""
        return self.anybody if token is None else self._known.get(_digest(token))

    def some_may(self, scope: str) -> bool:
        """Whether there is anybody who may."""
        return any(one.may(scope) for one in (*self._known.values(), self.anybody))


def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode(), digest_size=32).digest()


def read_callers(token: str, text: str, *, is_open: bool = False) -> Callers:
    """Read who may ask.

    Args:
        token: of who may do everything; empty: nobody may.
        text: the document of other tokens, or the file that holds it; empty: there are none.
        is_open: anybody may read.
    Raises:
        Refused: no such file or document, each mistake by the number of its token; or nobody may ask at all.
    """
    known: dict[str, Caller] = {}
    mistakes: list[str] = []
    for number, (key, said) in enumerate(_document(text).items() if text else (), start=1):
        try:
            if not isinstance(key, str) or not _TOKEN.fullmatch(key):
                raise ValueError(f"{TOKEN_CHARS_MIN} to 200 printable characters wanted, as text")
            known[key] = _caller(said)
        except ValueError as error:
            mistakes.append(f"OPPORTUNE_API_TOKENS: token {number}: {error}")
    if mistakes:
        raise Refused("\n".join(mistakes))
    if token:
        known[token] = Caller("operator", frozenset(SCOPES))
    if not known and not is_open:
        raise Refused(
            "OPPORTUNE_API_TOKEN or OPPORTUNE_API_TOKENS: a token wanted, got none, so nobody may ask; on a machine of your own "
            "OPPORTUNE_API_OPEN=yes lets anybody read"
        )
    return Callers(known, frozenset({"read"}) if is_open else frozenset())


def _document(text: str) -> dict[Any, Any]:
    where = "OPPORTUNE_API_TOKENS"
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise Refused(f"{where}: a file of tokens wanted, got {error.strerror}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = None  # What is wrong stands beside tokens: it is not repeated.
    if not isinstance(document, dict) or not document:
        raise Refused(f"{where}: a JSON or YAML object with one token at least wanted, got something else")
    return document


def _caller(said: Any) -> Caller:
    if not isinstance(said, dict) or set(said) != {"name", "scopes"}:
        raise ValueError("an object with name and scopes wanted")
    name, scopes = said["name"], said["scopes"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name: 1 to 40 of a-z 0-9 _ . - wanted, got {name!r}")
    if not isinstance(scopes, list) or not scopes or not all(one in SCOPES for one in scopes):
        raise ValueError(f"scopes: a list of {', '.join(SCOPES)} wanted, got {scopes!r}")
    return Caller(name, frozenset(scopes))


class Pages:
    """Believes the shop's signature on what a page may ask about.

    Args:
        key: ``OPPORTUNE_API_SITE_KEY``; empty: no page may ask.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def __bool__(self) -> bool:
        """Whether pages may ask at all."""
        return bool(self._key)

    def subject(self, token: str, audience: str, now_ms: int) -> str | None:
        """The address that a page may ask about; ``None``: the signature, the purpose or the time is wrong.

        Args:
            audience: ``site`` or ``form``.
            now_ms: the wall clock's now.
        """
        wanted = ["sub", "aud", "exp"]
        options: Any = {"require": wanted, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            told = jwt.decode(token, self._key, algorithms=["HS256"], audience=audience, options=options)
        except jwt.InvalidTokenError:
            return None
        # The library would ask the machine's clock; ours is given.
        ends, begins, subject = told["exp"], told.get("nbf", 0), told["sub"]
        if not all(isinstance(one, int | float) for one in (ends, begins)) or not isinstance(subject, str):
            return None
        is_now = begins * 1000 - _SKEW_MS <= now_ms < ends * 1000 <= now_ms + SITE_MS_MAX + _SKEW_MS
        return subject if is_now else None
