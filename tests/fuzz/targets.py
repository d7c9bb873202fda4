"""Readers of bytes that others write, each as a function that raises only where the reader breaks its promise.

``make fuzz`` runs them under atheris, which looks at what a mutation reaches; ``test_corpora.py`` reads every byte string
that was worth keeping (tests/data/fuzz) again with each run of the tests.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import jwt
import orjson

from connectors import links
from connectors.collector.admission import Given, admit
from connectors.collector.body import Inflater, parse, slices
from connectors.collector.keys import Source
from connectors.collector.webhooks import read_webhooks
from console.callers import Pages
from profiles.codec import BadBlob, decode
from profiles.errors import BadDocument, BadInput
from profiles.wire import decode_command, decode_event, encode_command, encode_event
from rules.compile import compile_rules
from tests.connectors.signed import SAMPLES
from tests.laws.test_hostile_bytes import BLOB, COMMAND, EVENT, FILES

CORPORA: Final = Path(__file__).parents[1] / "data" / "fuzz"
KEY: Final = "k" * 32
NOW_MS: Final = 1_767_225_600_000
PAGES: Final = Pages(KEY)
HOOKS: Final = read_webhooks('{"shopify": {"keys": ["hush"]}}')
GIVEN: Final = Given(Source("shop", True, 30 * 86_400_000), NOW_MS, b"s" * 32, 64 << 10)


def event(value: bytes) -> None:
    """An event on the log."""
    with contextlib.suppress(BadInput):
        found = decode_event(value)
        assert decode_event(encode_event(found)) == found


def command(value: bytes) -> None:
    """A command between shards."""
    with contextlib.suppress(BadInput):
        found = decode_command(value)
        assert decode_command(encode_command(found)) == found


def blob(value: bytes) -> None:
    """A profile in the store. The bytes are our own: that each part is of its type is not looked at."""
    with contextlib.suppress(BadBlob):
        decode("user:1", value)


def rules(value: bytes) -> None:
    """A rule file."""
    with contextlib.suppress(BadDocument):
        compile_rules([("fuzzed.yaml", value.decode("utf-8", "replace"))])


def token(value: bytes) -> None:
    """A page's signed token, or a letter's link. Nobody but the shop can make one that is believed."""
    text = value.decode("latin-1")
    for purpose in (links.CLICK, links.OPEN, links.UNSUBSCRIBE):
        if links.read(purpose, text, (KEY,)) is not None:
            assert jwt.decode(text, KEY, algorithms=["HS256"], audience=purpose, options={"verify_exp": False})
    with contextlib.suppress(jwt.InvalidTokenError):
        if PAGES.subject(text, "site", NOW_MS) is not None:
            assert jwt.decode(text, KEY, algorithms=["HS256"], audience="site", options={"verify_exp": False})


def body(value: bytes) -> None:
    """A request to the collector: what is admitted is an event that reads back."""
    with contextlib.suppress(BadInput):
        parsed = parse("batch", value, 100)
        assert len(slices(parsed)) == len(parsed.events)
        for topic, _, told in admit(parsed, GIVEN).records:
            if topic != "dead_letters":
                decode_event(told)


def webhook(value: bytes) -> None:
    """A signed delivery, its topic before the first line's end: each thing told becomes an event or a dead letter."""
    topic, _, told = value.partition(b"\n")
    with contextlib.suppress(BadInput):
        parsed = HOOKS["shopify"].parse({"x-shopify-topic": topic.decode("latin-1")}, told)
        assert len(admit(parsed, GIVEN).records) == len(parsed.events)


def inflated(value: bytes) -> None:
    """A compressed body: no more comes out than is allowed."""
    with contextlib.suppress(BadInput):
        inflater = Inflater(b"gzip", 1 << 16)
        inflater.feed(value)
        assert len(inflater.done()) <= 1 << 16


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    one.__name__: one for one in (event, command, blob, rules, token, body, webhook, inflated)
}


def _signed(**claims: object) -> bytes:
    return jwt.encode({"sub": "anon:1", "aud": "site", "exp": NOW_MS // 1000 + 60, **claims}, KEY, "HS256").encode()


LINKS: Final = [
    links.Link(links.CLICK, "user:1", "https://shop.example/", {"topic": "news"}),
    links.Link(links.UNSUBSCRIBE, "email:~x"),
]
SOUND: Final[dict[str, list[bytes]]] = {
    "event": [encode_event(EVENT)],
    "command": [encode_command(COMMAND)],
    "blob": [BLOB],
    "rules": [text.encode() for _, text in FILES],
    "token": [_signed(), _signed(nbf=0), _signed(exp=1), *(links.sign(link, KEY).encode() for link in LINKS)],
    "body": [
        orjson.dumps(
            {
                "batch": [
                    {"type": "track", "userId": "1", "event": "Product Added", "properties": {"product_id": "p"}},
                    {"type": "identify", "userId": "1", "traits": {"email": "a@b.example"}, "messageId": "m"},
                    {"type": "page", "anonymousId": "a", "properties": {"url": "https://a.example/?utm_source=x"}},
                ]
            }
        )
    ],
    "webhook": [
        b"orders/updated\n" + (SAMPLES / "shopify" / "orders_create.body.json").read_bytes(),
        b"carts/update\n" + (SAMPLES / "shopify" / "carts_update.body.json").read_bytes(),
    ],
    "inflated": [zlib.compress(b"{}" * 50, wbits=31)],
}
"""What each is mutated from."""
