"""Write keys: who sends, and how far we believe it.

A *public* key stands in a page's source, so anybody may use it: it may name a user and an anonymous id, its e-mail
is only a claim. A *secret* key is a back end's: it may name everything. The document, JSON or YAML, inline in
``OPPORTUNE_WRITE_KEYS`` or in the file that it names:

    {"wk_4ZLQ": {"source": "web",  "kind": "public"},
     "sk_9TGB": {"source": "shop", "kind": "secret"},
     "sk_Q1HX": {"source": "till-history", "kind": "secret", "backfill": true, "until": "2027-03-31T00:00:00Z"}}

From ``until`` on a key is none; without, it is one for ever. Two keys of one source are one sender (so that keys can be changed without a gap). ``late_days`` is how old an event
may be: 7 for public keys, 30 for secret ones; ``backfill`` says that all that comes is history, without such a bound.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import yaml

from profiles.errors import Refused
from profiles.moments import DAY_MS, FOREVER, iso, parse_instant

LATE_DAYS: Final = {"public": 7, "secret": 30}
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
"""Of a source: it stands in events, metrics and paths."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who sends.

    Attributes:
        name: in every event, metric and dead letter of this sender; message ids are unique within it.
        trusted: may name all identifiers, and its clock is believed.
        late_ms_max: an event that happened longer ago is dead-lettered ``too_late``.
        backfill: all it sends is history: no lower bound, and nothing goes out because of it.
    """

    name: str
    trusted: bool
    late_ms_max: int
    backfill: bool = False


class Keys:
    """Finds the source of a write key.

    Attributes:
        next_end_ms: when the next key ends; ``expire`` is to be called then.
    """

    def __init__(self, sources: Mapping[str, Source], until_ms: Mapping[str, int] | None = None) -> None:
        """``until_ms``: key -> when it ends, of those that do."""
        self._by_key = dict(sources)
        # What SDKs send, spelled out once, so that a request costs one look-up.
        self._by_header = {_header(key): one for key, one in sources.items()}
        self._until_ms = dict(until_ms or {})
        self.next_end_ms = min(self._until_ms.values(), default=FOREVER)

    def expire(self, now_ms: int) -> None:
        """Forget the keys that have ended by now."""
        for key in [key for key, until_ms in self._until_ms.items() if until_ms <= now_ms]:
            del self._until_ms[key], self._by_key[key], self._by_header[_header(key)]
        self.next_end_ms = min(self._until_ms.values(), default=FOREVER)

    def ends(self) -> dict[str, int]:
        """Source -> when its last key ends, epoch ms; without those that have a key for ever."""
        found: dict[str, int] = {}
        for key, source in self._by_key.items():
            found[source.name] = max(found.get(source.name, 0), self._until_ms.get(key, FOREVER))
        return {name: until_ms for name, until_ms in found.items() if until_ms < FOREVER}

    def of(self, key: object) -> Source | None:
        """The source of a write key as it stands in a body."""
        return self._by_key.get(key) if type(key) is str else None

    def named(self, name: str) -> Source | None:
        """The sender of that name."""
        return next((source for source in self._by_key.values() if source.name == name), None)

    def of_header(self, value: bytes) -> Source | None:
        """The source of an ``Authorization: Basic`` header: the key is the user, the password is not looked at."""
        known = self._by_header.get(value)
        if known is not None:
            return known
        scheme, _, coded = value.partition(b" ")
        if scheme.lower() != b"basic":
            return None
        try:
            return self._by_key.get(b64decode(coded.strip()).partition(b":")[0].decode())
        except ValueError:
            return None


def read_keys(text: str) -> Keys:
    """Read write keys from a document, or from the file that ``text`` names.

    Raises:
        Refused: no such file, or not such a document; says every mistake, and no key.
    """
    where, document = read_document(text, "OPPORTUNE_WRITE_KEYS", "write key")
    mistakes: list[str] = []
    sources: dict[str, Source] = {}
    until_ms: dict[str, int] = {}
    for number, (key, said) in enumerate(document.items(), start=1):
        # A key may be secret: mistakes tell its number in the document.
        try:
            sources[_key(key)] = _source(said)
            if "until" in said:
                until_ms[key] = _until(said["until"])
        except ValueError as error:
            mistakes.append(f"{where}: key {number}: {error}")
    by_name: dict[str, Source] = {}
    mistakes += [
        f"{where}: source {source.name}: the same kind wanted in all its keys, got several"
        for source in sources.values()
        if by_name.setdefault(source.name, source) != source
    ]
    if mistakes:
        raise Refused("\n".join(mistakes))
    return Keys(sources, until_ms)


def read_document(text: str, variable: str, noun: str) -> tuple[str, dict[Any, Any]]:
    """A setting that is an object, or names the file that holds one; and how messages call where it stands.

    Args:
        variable: the setting.
        noun: of what there must be one at least.
    Raises:
        Refused: no such file, or no such document; says nothing of what is in it.
    """
    where = variable
    if not text.strip():
        raise Refused(f"{where}: {noun}s, or a file of them, wanted, got nothing")
    if not text.lstrip().startswith("{"):
        where = text
        try:
            text = Path(text).read_text()
        except OSError as error:
            raise Refused(f"{where}: a file of {noun}s wanted, got {error.strerror}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise Refused(f"{where}{line}: a JSON or YAML document wanted, got something else") from None
    if not isinstance(document, dict) or not document:
        raise Refused(f"{where}: an object with one {noun} at least wanted")
    return where, document


def _header(key: str) -> bytes:
    return b"Basic " + b64encode(f"{key}:".encode())


def _until(said: Any) -> int:
    """When a key ends: at an instant, or as a day begins in UTC; YAML may have read either as its own."""
    try:
        return parse_instant(said.isoformat() if isinstance(said, date) else said)
    except (TypeError, ValueError):
        raise ValueError(f"until: a day or an instant like {iso(0)} wanted, got {said!r}") from None


def _key(key: Any) -> str:
    if not isinstance(key, str) or not re.fullmatch(r"[!-9;-~]{1,200}", key):
        raise ValueError("1 to 200 printable characters without ':' wanted, as text")
    return key


def _source(said: Any) -> Source:
    if not isinstance(said, dict):
        raise ValueError("an object with source and kind wanted")
    unknown = [name for name in said if name not in ("source", "kind", "late_days", "backfill", "until")]
    if unknown:
        raise ValueError(f"source, kind, late_days, backfill, until wanted, got {unknown[0]!r}")
    name, kind, backfill = said.get("source"), said.get("kind"), said.get("backfill", False)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"source: 1 to 40 of a-z 0-9 _ . - wanted, got {name!r}")
    if kind not in LATE_DAYS:
        raise ValueError(f"kind: public or secret wanted, got {kind!r}")
    if type(backfill) is not bool or (backfill and kind == "public"):
        raise ValueError(f"backfill: true or false wanted, true for secret keys only, got {backfill!r}")
    days = late_days(said.get("late_days", LATE_DAYS[kind]))
    return Source(name, kind == "secret", days * DAY_MS, backfill)


def late_days(said: Any) -> int:
    """How old events of a source may be.

    Raises:
        ValueError: it is no number of days.
    """
    if type(said) is not int or not 1 <= said <= 365:
        raise ValueError(f"late_days: a whole number from 1 to 365 wanted, got {said!r}")
    return said
