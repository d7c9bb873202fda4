"""Webhooks: what other products tell us, signed by them. A source of theirs is a file in ``connectors/sources``.

Which are taken says a document, JSON or YAML, inline in ``OPPORTUNE_WEBHOOKS`` or in the file that it names:

    {"shopify": {"keys": ["the secret by which Shopify signs"]},
     "letters": {"kind": "sendgrid", "keys": ["MFkwEwYHKoZI…"], "mapping": "/etc/opportune/letters.yaml"}}

The name stands in the path, ``POST /hooks/letters``, and is the source of the events; ``kind`` is the product, absent it is
the name. One of several ``keys`` must have signed, so they can be changed without a gap. ``mapping``: a page of the shop's
own in place of ours (``connectors/sources/mappings``). ``late_days`` as with write keys.

A signature stands for a secret key: what is told may name people by e-mail and phone. A mapping turns it into the calls
that a back end's SDK would have sent, and these go through the gates of all others: ``admission.admit``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

import connectors.sources
from connectors.collector.body import BOM, Parsed, kind_of, loads
from connectors.collector.keys import LATE_DAYS, NAME, Source, late_days, read_document
from connectors.mapping import Bound, Row, bind, read_mapping
from connectors.spec import Headers, SourceSpec
from profiles.errors import BadDocument, BadInput, Refused
from profiles.moments import DAY_MS, MINUTE_MS, iso
from profiles.spec import discover
from profiles.taxonomy import resolve

VARIABLE: Final = "OPPORTUNE_WEBHOOKS"
SIGNED_MS_MAX: Final = 5 * MINUTE_MS
"""A source that signs a time is believed so long before and after it (RELIABILITY R29)."""

KINDS: Final[Mapping[str, SourceSpec]] = {spec.name: spec for spec in discover(connectors.sources, SourceSpec)}
MAPPINGS: Final = Path(connectors.sources.__file__).parent / "mappings"


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook that is taken.

    Attributes:
        source: as whom its events come.
        spec: whose product it is.
        keys: one of them must have signed.
        bound: its mapping.
    """

    source: Source
    spec: SourceSpec
    keys: tuple[Any, ...]
    bound: Bound

    def refuses(self, headers: Headers, body: bytes, now_ms: int) -> str:
        """Why a delivery is not believed: ``bad_signature`` or ``bad_time``; nothing: it is.

        Args:
            headers: by their names in lower case.
            body: the very bytes that came.
        """
        if not any(self.spec.is_signed(key, headers, body) for key in self.keys):
            return "bad_signature"
        try:
            signed_ms = self.spec.signed_ms(headers)
        except ValueError:
            return "bad_time"
        return "" if signed_ms is None or abs(now_ms - signed_ms) <= SIGNED_MS_MAX else "bad_time"

    def kept(self, headers: Headers) -> dict[str, str]:
        """The headers without which the body cannot be read again."""
        return {name: headers[name] for name in self.spec.keeps if name in headers}

    def parse(self, headers: Headers, body: bytes) -> Parsed:
        """The calls of a delivery. What the mapping makes nothing of stands among them as its refusal.

        Raises:
            BadInput: ``bad_json`` or ``bad_body``: nothing of it can be read.
        """
        told = loads(body)
        if type(told) not in (dict, list):
            raise BadInput("bad_body", f"body: a JSON object, or a list of them, wanted, got {kind_of(told)}")
        calls: list[Any] = []
        origins: list[int] = []
        for place, one in enumerate(told if type(told) is list else [told]):
            made = self._calls(headers, one)
            calls += made
            origins += [place] * len(made)
        inside = body.removeprefix(BOM)
        if type(told) is dict:
            inside = b"[" + inside + b"]"
        return Parsed("batch", b'{"batch":' + inside + b"}", calls, {}, origins)

    def _calls(self, headers: Headers, told: Any) -> list[Any]:
        if type(told) is not dict:
            return [BadInput("not_an_object", f"entry: an object wanted, got {kind_of(told)}")]
        calls: list[Any] = []
        for row in self.spec.rows(headers, told):
            try:
                calls.append(_call(self.bound, row))
            except BadInput as error:
                calls.append(error)
        return calls


def _call(bound: Bound, row: Row) -> dict[str, Any]:
    """What a back end's SDK would have sent.

    Raises:
        BadInput: the mapping makes nothing of it.
    """
    for reason, holds in bound.reject:
        if holds(row, 0):
            raise BadInput(reason, "by the mapping's rule")
    rule = bound.rule(row, 0)
    try:
        at_ms = rule.time(row, 0)
    except ValueError as error:
        raise BadInput("bad_time", f"time: {error}") from None
    try:
        name = str(rule.event(row, 0))
        who = {kind: str(found) for kind, value in rule.identify if (found := value(row, 0)) is not None}
        call = {
            "type": "identify" if resolve(name).name == "identified" else "track",
            "event": name,
            "messageId": rule.message_id(row, 0) if rule.message_id is not None else None,
            "timestamp": iso(at_ms),
            "userId": who.pop("user", None),
            "anonymousId": who.pop("anon", None),
            "context": {"externalIds": [{"type": kind, "id": value} for kind, value in who.items()]},
            "properties": rule.properties(row, 0),
            "traits": rule.traits(row, 0),
        }
    except ValueError as error:
        raise BadInput("bad_value", str(error)) from None
    # A mapping's decimals are text in JSON, as a careful sender writes money.
    plain: dict[str, Any] = orjson.loads(orjson.dumps(call, default=str))
    return plain


Webhooks = Mapping[str, Hook]
"""Those that are taken, by name."""


def read_webhooks(text: str) -> Webhooks:
    """Read which webhooks are taken, from a document or the file that ``text`` names; empty: none.

    Raises:
        Refused: no such file, or not such a document, or a mapping is wrong; says every mistake, and no key.
    """
    if not text:
        return {}
    where, document = read_document(text, VARIABLE, "webhook")
    hooks: dict[str, Hook] = {}
    mistakes: list[str] = []
    for name, said in document.items():
        try:
            hooks[name] = _hook(name, said)
        except ValueError as error:
            mistakes.append(f"{where}: {name}: {error}")
        except BadDocument as error:
            mistakes += map(str, error.mistakes)
    if mistakes:
        raise Refused("\n".join(mistakes))
    return hooks


def _hook(name: Any, said: Any) -> Hook:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError("a name of 1 to 40 of a-z 0-9 _ . - wanted")
    if not isinstance(said, dict):
        raise ValueError("an object with keys wanted")
    unknown = [one for one in said if one not in ("kind", "keys", "mapping", "late_days")]
    if unknown:
        raise ValueError(f"kind, keys, mapping, late_days wanted, got {unknown[0]!r}")
    spec = KINDS.get(said.get("kind", name))
    if spec is None:
        raise ValueError(f"kind: one of {', '.join(KINDS)} wanted, got {said.get('kind', name)!r}")
    keys = said.get("keys")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
        raise ValueError("keys: a list of one at least wanted, as text")
    source = Source(name, trusted=True, late_ms_max=late_days(said.get("late_days", LATE_DAYS["secret"])) * DAY_MS)
    return Hook(source, spec, tuple(_key(spec.key, key) for key in keys), _mapping(said.get("mapping"), spec))


def _key(read: Callable[[str], Any], key: str) -> Any:
    try:
        return read(key)
    except ValueError as error:
        raise ValueError(f"keys: {error}") from None


def _mapping(path: Any, spec: SourceSpec) -> Bound:
    page = MAPPINGS / f"{spec.name}.yaml" if path is None else Path(str(path))
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"mapping: a file wanted, got {error.strerror}") from error
    return bind(read_mapping(text, str(page) if path is not None else page.name), None, "")
