"""``make faults``: fault runs at their full size, one line each.

python -m tests.faults.command F1 F3 --seed 7
python -m tests.faults.command --short
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from tests.faults.alive import crowd_of_one, outage
from tests.faults.arena import run
from tests.faults.clocks import clocks
from tests.faults.people import people
from tests.faults.plans import PLANS

RUNS: Final[dict[str, tuple[Callable[[int, Path, int], Coroutine[Any, Any, str]], int, int]]] = {
    "F9": (clocks, 20, 2),
    "F10": (outage, 5_000, 200),
    "F13": (people, 10_000, 60),
    "F17": (crowd_of_one, 1_000_000, 20_000),
}
"""Name -> run, its size by command, and its short size."""

KNOWN = (*PLANS, *RUNS)


def main() -> int:
    """Run what is asked for; 1 if one of them failed."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("names", nargs="*", metavar="F", help=f"of {', '.join(KNOWN)}; all unless given")
    asked.add_argument("--seed", type=int, default=42)
    asked.add_argument("--short", action="store_true", help="the size of the tests")
    asked.add_argument("--times", type=int, help="how often the fault is done")
    asked.add_argument("--events", type=int, help="how many events are told")
    given = asked.parse_args()
    unknown = [name for name in given.names if name not in KNOWN]
    if unknown:
        asked.error(f"one of {', '.join(KNOWN)} wanted, got {', '.join(unknown)}")
    failed = 0
    for name in given.names or KNOWN:
        differs: list[str] = []
        with tempfile.TemporaryDirectory(prefix=f"opportune-{name}-") as folder:
            if name in PLANS:
                plan = PLANS[name]
                times, events = (plan.short_times, plan.short_events) if given.short else (plan.times, plan.events)
                times, events = times if given.times is None else given.times, given.events or events
                line, differs = asyncio.run(run(plan, given.seed, Path(folder), times, events))
            else:
                alone, size, short = RUNS[name]
                size = given.events or (short if given.short else size)
                line = asyncio.run(alone(given.seed, Path(folder), size))
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        if not line.endswith(" PASS"):
            failed += 1
            sys.stderr.writelines(f"  {one}\n" for one in differs)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
