"""Our own small tracker, ``/t.js``: read once, served with a tag by which browsers ask whether it changed."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("t.js")
BYTES_MAX: Final = 5_000
AGE_S_MAX: Final = 3600


@dataclass(frozen=True, slots=True)
class Tracker:
    """The script as it is served: plain, gzipped, and its tag."""

    plain: bytes
    gzipped: bytes
    tag: bytes


def read_tracker() -> Tracker:
    """Read the script from the package."""
    plain = SCRIPT.read_bytes()
    tag = hashlib.blake2b(plain, digest_size=8).hexdigest()
    # No time in the gzip header: every replica serves the same bytes.
    return Tracker(plain, gzip.compress(plain, mtime=0), f'"{tag}"'.encode())
