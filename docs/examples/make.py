"""Runs the shop pack over the public histories and writes what comes of it beside this file: ``make examples``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console

from opportune.backtest import Asked, mapping_named, run, write

HERE: Final = Path(__file__).parent
DATA: Final = HERE.parents[1] / "tests" / "data"
EXAMPLES: Final = {
    "cdnow": ("CDNOW_sample.txt", "The shop pack over CDNOW, 1997–1998", {}),
    "online_retail": (
        "online_retail_240k.parquet",
        "The shop pack over Online Retail, December 2010 – June 2011",
        {"OPPORTUNE_ZONE": "Europe/London", "OPPORTUNE_CURRENCY": "GBP"},
    ),
}
"""Folder -> (file of history, title, settings). The mapping has the folder's name."""


def asked(name: str) -> Asked:
    """The backtest of an example."""
    return Asked([DATA / EXAMPLES[name][0]], [mapping_named(Path(name))])


if __name__ == "__main__":
    for name, (_, title, settings) in EXAMPLES.items():
        rulebook, result, tallies = run(asked(name), settings, Console(stderr=True))
        write(HERE / name, title, rulebook, result, tallies)
