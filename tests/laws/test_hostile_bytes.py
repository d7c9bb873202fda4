"""Whatever bytes come, a reader answers with a value or with its own error: events, commands, profiles, rule files.

What each reader knows is mutated, for random bytes alone do not get past its first line. ``OPPORTUNE_TEST_FUZZ`` makes it
more examples.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from random import Random  # noqa: TID251 - seeded by the example
from typing import Any, Final

import msgpack
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from profiles.codec import BadBlob, decode, encode
from profiles.errors import BadDocument, BadInput
from profiles.state import Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import Command, Coordinates, Event, Said, decode_command, decode_event, encode_command, encode_event
from rules.compile import compile_rules
from stream.replay import Replay
from stream.rulebook import PACKS, load, read_rule_files

EXAMPLES: Final = int(os.environ.get("OPPORTUNE_TEST_FUZZ", "300"))
ADDED: Final = canonical(
    resolve("Product Added"), {"product_id": "p-1", "price": 5, "currency": "USD", "quantity": 1, "category": "a/b"}
)
EVENT: Final = Event("m-1", "web", "product_added", 1_000, 2_000, "user:1", ("anon:a",), ADDED, {"first_name": "Ana"})
COMMAND: Final = Command(
    "link",
    "anon:a",
    "user:1",
    (1_000, "m-1"),
    b"\x81\xa1a\x01",
    2_000,
    Coordinates(3, "cart_events", 7, 0),
    said=Said(b"a life", 4),
)
JUNK: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def profile_blob() -> bytes:
    """A profile with much in it."""

    class Silent:
        def hear(self, profile: Profile, out: Any, at_ms: int) -> None:
            """Nothing."""

    run = Replay(load(PACKS / "shop"), Silent())
    for number in range(6):
        event = decode_event(encode_event(EVENT))
        event.message_id, event.received_ms, event.identifiers = f"m-{number}", 2_000 + number, ()
        run.take(event)
    return encode(run.profiles["user:1"])


BLOB: Final = profile_blob()
FILES: Final = read_rule_files(PACKS / "shop")


@st.composite
def mutated(draw: st.DrawFn, sound: bytes) -> bytes:
    """Sound bytes with some cut out, doubled or made anew."""
    value = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(value)))
        to = draw(st.integers(at, min(len(value), at + 12)))
        value[at:to] = draw(st.binary(max_size=6) | st.just(bytes(value[at:to]) * 2))
    return bytes(value)


@st.composite
def with_junk(draw: st.DrawFn, sound: Any) -> Any:
    """A sound structure with some part of it made anew."""
    if draw(st.integers(0, 5)) == 0 or not isinstance(sound, dict | list | tuple) or not sound:
        return draw(JUNK)
    if isinstance(sound, dict):
        name = draw(st.sampled_from(sorted(sound, key=repr)))
        return {**sound, name: draw(with_junk(sound[name]))}
    place = draw(st.integers(0, len(sound) - 1))
    return [*sound[:place], draw(with_junk(sound[place])), *sound[place + 1 :]]


def packed(value: Any) -> bytes:
    """As msgpack has it; ``b""`` where it has no word for it."""
    try:
        return bytes(msgpack.packb(value))
    except (OverflowError, ValueError, TypeError):
        return b""


def read(decoder: Callable[[bytes], Any], value: bytes) -> Any:
    """What the decoder makes of it, or its reason not to."""
    try:
        return decoder(value)
    except BadInput as error:
        return error.reason


def mistakes_of(files: list[tuple[str, str]]) -> list[str]:
    """What is wrong with rule files."""
    try:
        compile_rules(files)
    except BadDocument as error:
        return [str(one) for one in error.mistakes] or [""]
    return []


@pytest.mark.invariant("R9")
@pytest.mark.invariant("R29")
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    mutated(encode_event(EVENT)) | with_junk(orjson.loads(encode_event(EVENT))).map(lambda one: orjson.dumps(repr(one)))
)
def test_any_bytes_are_an_event_or_malformed(value: bytes) -> None:
    found = read(decode_event, value)
    assert found == "malformed" or decode_event(encode_event(found)) == found


@pytest.mark.invariant("R9")
@pytest.mark.invariant("R29")
@settings(max_examples=EXAMPLES, deadline=None)
@given(mutated(encode_command(COMMAND)) | with_junk(msgpack.unpackb(encode_command(COMMAND))).map(packed))
@example(packed([1, "link", "anon:a", "user:1", {}, b"", 2_000, [3, "cart_events", 7, 0], False]))  # once a KeyError
def test_any_bytes_are_a_command_or_malformed(value: bytes) -> None:
    found = read(decode_command, value)
    assert found == "malformed" or decode_command(encode_command(found)) == found


@pytest.mark.invariant("R29")
@settings(max_examples=EXAMPLES, deadline=None)
@given(mutated(BLOB) | with_junk(msgpack.unpackb(BLOB, strict_map_key=False)).map(packed))
def test_any_bytes_are_a_profile_or_a_bad_blob(blob: bytes) -> None:
    with contextlib.suppress(BadBlob):
        decode("user:1", blob)


@pytest.mark.invariant("R29")
@settings(max_examples=max(30, EXAMPLES // 10), deadline=None)
@given(st.integers(0, 1 << 32))
def test_any_text_is_a_rule_file_or_a_list_of_mistakes(seed: int) -> None:
    random = Random(seed)
    files = []
    for name, text in FILES:
        lines = text.splitlines()
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(lines))
            line = lines[at]
            place = random.randrange(len(line) + 1)
            words = (
                "",
                "[",
                "}",
                ":",
                " ",
                "- ",
                "1e999",
                "null",
                "&a",
                "*a",
                "!!python/none",
                "é\u2028",
                "P9999999D",
                "-1",
            )
            lines[at] = random.choice(
                (line[:place] + random.choice(words) + line[place:], line[:place], f"  {line}", "")
            )
        files.append((name, "\n".join(lines)))
    assert "" not in mistakes_of(files)
