"""What the tests of history share: importing a file as ``opportune import`` does, and all profiles that come of it."""

from __future__ import annotations

from pathlib import Path

import connectors.settings
from connectors.clock import SystemClock
from connectors.importer import Report, import_file
from connectors.mapping import read_mapping
from connectors.sources import files
from profiles.codec import decode
from profiles.moments import parse_instant
from profiles.state import Profile
from tests.integration.parts import ROOT, Shop, Topics

DATA = ROOT / "tests" / "data"
MAPPINGS = Path(files.__file__).parent / "mappings"


async def imported(shop: Shop, name: str, mapping: str, folder: Path, until: str | None = None) -> Report:
    """Import a file of ``tests/data`` by a shipped mapping; its state and its rejected rows are kept in ``folder``."""
    path = MAPPINGS / f"{mapping}.yaml"
    return await import_file(
        DATA / name,
        read_mapping(path.read_text(), str(path)),
        connectors.settings.read(shop.env),
        SystemClock(),
        until_ms=None if until is None else parse_instant(until),
        folder=folder,
    )


async def everybody(topics: Topics) -> dict[str, Profile]:
    """All profiles, by address."""
    return {address: decode(address, blob) for address, blob in (await topics.blobs()).items()}


def misjudged(shop: Shop, profiles: dict[str, Profile], now_ms: int) -> list[tuple[str, str]]:
    """(address, segment) wherever the kept membership is not what judging the whole profile says (R19)."""
    return [
        (address, segment.name)
        for address, profile in profiles.items()
        if not profile.forward
        for segment in shop.rules.segments
        if segment.judge(profile, now_ms)[0] != (segment.id in profile.members)
    ]
