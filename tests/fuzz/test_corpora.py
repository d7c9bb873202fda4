"""Every byte string that was worth keeping is read again: what once broke a reader, and what each is mutated from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import CORPORA, SOUND, TARGETS, token

KEPT = sorted(path for path in CORPORA.glob("*/*") if path.is_file())


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name[:24]}")
def test_what_was_kept_is_read_or_refused(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_is_read(name: str) -> None:
    for value in SOUND[name]:
        TARGETS[name](value)


@pytest.mark.invariant("R29")
def test_a_token_that_is_changed_in_any_byte_is_not_believed() -> None:
    from tests.fuzz.targets import NOW_MS, PAGES

    [sound, *_] = SOUND["token"]
    assert PAGES.subject(sound.decode(), "site", NOW_MS) == "anon:1"
    for place in range(len(sound) - 1):  # The last letter holds two bits that mean nothing.
        changed = bytearray(sound)
        changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
        token(bytes(changed))
        assert PAGES.subject(bytes(changed).decode(), "site", NOW_MS) is None
