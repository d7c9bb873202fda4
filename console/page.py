"""The page for people: one file, served with a policy under which nothing but its own script runs."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from pathlib import Path

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class Page:
    """An HTML file without external parts.

    Attributes:
        body, headers: the answer to whoever asks for it.
    """

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        found = {kind: _digest(inside) for kind, inside in _INLINE.findall(text)}
        self.body = text.encode()
        self.headers = {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": (
                f"default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                f"frame-ancestors 'none'; script-src {found['script']}; style-src {found['style']}"
            ),
            "cache-control": "no-cache",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
