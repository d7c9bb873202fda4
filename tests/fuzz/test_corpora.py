"""Every byte string that was worth keeping is read again: what once broke a reader, and what each is mutated from."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.links import read
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
    from tests.fuzz.targets import KEY, LINKS, NOW_MS, PAGES

    def believed(text: str) -> list[object]:
        asked = [PAGES.subject(text, "site", NOW_MS), *(read(link.purpose, text, (KEY,)) for link in LINKS)]
        return [one for one in asked if one is not None]

    for sound, said in zip([SOUND["token"][0], *SOUND["token"][-len(LINKS) :]], ["anon:1", *LINKS], strict=True):
        assert believed(sound.decode()) == [said]
        for place in range(len(sound) - 1):  # The last letter holds two bits that mean nothing.
            changed = bytearray(sound)
            changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
            token(bytes(changed))
            assert believed(bytes(changed).decode()) == []
