"""Where commands print their tables."""

from __future__ import annotations

from typing import Final

from rich.console import Console

CHARS_MAX: Final = 10_000


def page() -> Console:
    """Standard output: on a terminal as wide as that is; in a pipe nothing is cut or folded for a screen that is not there."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=CHARS_MAX)
