"""How people write an address, and what it is in the store.

``user:42``, ``anon:x``, ``device:x`` stand as they are; ``email:ana@shop.example``, ``phone:+7 916 …`` and ``card:…`` are
normalised and hashed with the installation secret; ``email:~…``, as records carry it, is taken as it is.
"""

from __future__ import annotations

import re
from typing import Final

from profiles.ids import PERSONAL, STRENGTH, address_of

_HASHED: Final = re.compile(r"~[A-Za-z0-9_-]{24}")


def read_address(text: str, secret: bytes) -> str:
    """The address in the store that people mean.

    Raises:
        ValueError: not one; the message says what was wanted, never what was found (R25).
    """
    kind, colon, value = text.strip().partition(":")
    kind = kind.strip().lower()
    if not colon or kind not in STRENGTH:
        raise ValueError(f"address: kind:value with one of {', '.join(STRENGTH)} wanted, got something else")
    if kind in PERSONAL and _HASHED.fullmatch(value.strip()):
        return f"{kind}:{value.strip()}"
    return address_of(kind, value, secret)
