"""From a request's body to the events in it: inflating, reading JSON, finding an event's own bytes.

Nothing here trusts the sender: what inflates beyond the limit is given up while it inflates, and what is
not JSON is refused with the byte where it stops being.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

from profiles.errors import BadInput

GZIP: Final = (b"gzip", b"x-gzip")
BOM: Final = b"\xef\xbb\xbf"
_SPACES: Final = " \t\n\r"
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class TooLarge(BadInput):
    """The body, or what it inflates to, is beyond the limit."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__("too_large", f"body: at most {bytes_max} bytes wanted, also after inflating, got more")


class Inflater:
    """Collects a body chunk by chunk, inflating it if it is gzip or deflate.

    Args:
        encoding: the Content-Encoding, in lower case; empty for none.
        bytes_max: the most that may come out.
    Raises:
        BadInput: ``unsupported_encoding``.
    """

    def __init__(self, encoding: bytes, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._chunks: list[bytes] = []
        self.size = 0
        self._zlib: Any = None
        if encoding in GZIP:
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif encoding == b"deflate":
            self._zlib = zlib.decompressobj()
        elif encoding not in (b"", b"identity"):
            raise BadInput("unsupported_encoding", "Content-Encoding: gzip, deflate or none wanted, got another")

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk as it came.

        Raises:
            TooLarge: beyond the limit; no more than the limit was inflated.
            BadInput: ``bad_encoding``: it is not what Content-Encoding says.
        """
        if self._zlib is None:
            self._keep(chunk)
            return
        left = chunk
        while left:
            try:
                # One byte more than allowed is enough to know.
                out = self._zlib.decompress(left, self._bytes_max - self.size + 1)
            except zlib.error:
                raise BadInput("bad_encoding", "body: what Content-Encoding says wanted, got something else") from None
            self._keep(out)
            if self._zlib.eof:
                if self._zlib.unused_data:
                    raise BadInput("bad_encoding", "body: one compressed stream wanted, got bytes after its end")
                return
            left = self._zlib.unconsumed_tail

    def done(self) -> bytes:
        """The whole body.

        Raises:
            BadInput: ``bad_encoding``: a compressed stream that does not end.
        """
        if self._zlib is not None and not self._zlib.eof:
            raise BadInput("bad_encoding", "body: a whole compressed stream wanted, got a part of one")
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def _keep(self, out: bytes) -> None:
        self.size += len(out)
        if self.size > self._bytes_max:
            raise TooLarge(self._bytes_max)
        self._chunks.append(out)


@dataclass(slots=True)
class Parsed:
    """A body that was read.

    Attributes:
        call: ``track``, ``identify``, … or ``batch``: what the path says.
        body: its bytes.
        events: of a batch its entries, whatever they are; otherwise the one event. A webhook's are made of its entries; a
            ``BadInput`` is why nothing was.
        whole: the outer object: of a batch with ``sentAt``, ``context`` and ``writeKey``.
        origins: of a webhook's events the entries that they were made of; ``None``: each is its own.
    """

    call: str
    body: bytes
    events: list[Any]
    whole: dict[str, Any]
    origins: list[int] | None = None


def parse(call: str, body: bytes, events_max: int) -> Parsed:
    """Read the JSON of a body.

    Args:
        call: what the path says: ``batch``, or the type of the one event.
        body: inflated.
        events_max: most entries of a batch.
    Raises:
        BadInput: ``bad_json``, ``bad_body`` or ``too_many_events``.
    """
    whole = loads(body)
    if type(whole) is not dict:
        raise BadInput("bad_body", f"body: a JSON object wanted, got {kind_of(whole)}")
    if call != "batch":
        return Parsed(call, body, [whole], whole)
    events = whole.get("batch")
    if type(events) is not list:
        raise BadInput("bad_body", f"body: an object with a list 'batch' wanted, got {kind_of(events)} there")
    if len(events) > events_max:
        raise BadInput("too_many_events", f"batch: at most {events_max} events wanted, got {len(events)}")
    return Parsed(call, body, events, whole)


def loads(body: bytes) -> Any:
    """Read JSON as senders write it: perhaps with a byte order mark, perhaps with half an emoji in a text.

    Raises:
        BadInput: ``bad_json``.
    """
    body = body.removeprefix(BOM)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "surrogate in string" not in error.msg:
            raise BadInput("bad_json", f"body: JSON in UTF-8 wanted, got something else at {error.pos}") from None
    # A page that cut its title in the middle of an emoji: no reason to lose the other events of the batch.
    try:
        return orjson.loads(_ESCAPE.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], body))
    except orjson.JSONDecodeError as error:
        raise BadInput("bad_json", f"body: JSON in UTF-8 wanted, got something else at {error.pos}") from None


def kind_of(value: object) -> str:
    """What kind of JSON value it is, for messages."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true or false"
    return {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number"}[type(value)]


def slices(parsed: Parsed) -> list[bytes]:
    """The bytes of each event as they came; only needed when one of them is refused.

    Raises:
        ValueError, RecursionError: they cannot be told apart (a reader stricter than ours, or too deep).
    """
    if parsed.call != "batch":
        return [parsed.body]
    text = parsed.body.decode("utf-8-sig")
    decode = json.JSONDecoder().raw_decode
    found: list[bytes] = []
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        name, at = decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        if name != "batch":
            _, at = decode(text, at)
        else:
            # Of a name that comes twice, the last one counts, here as in the reader.
            found = []
            at = _skip(text, at + 1)
            while text[at] != "]":
                begin = at
                _, at = decode(text, at)
                found.append(text[begin:at].encode())
                at = _skip(text, at)
                if text[at] == ",":
                    at = _skip(text, at + 1)
            at += 1
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found if parsed.origins is None else [found[place] for place in parsed.origins]


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACES:
        at += 1
    return at
