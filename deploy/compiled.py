"""The core as machine code: the same source, compiled by mypyc (docs/decisions/0173).

    python deploy/compiled.py FOLDER      # or: make compiled
    PYTHONPATH=FOLDER opportune worker

Lays all rooms' modules in FOLDER, those of the core compiled beside their source. Wants a C compiler; takes two minutes of
a core. Nothing else changes: the same answers to the byte, and the same tests (`make test-compiled`). Not the default: what is
in the image is plain Python.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from mypyc.build import mypycify
from setuptools import Distribution

HOME: Final = Path(__file__).parent.parent
ROOMS: Final = ("profiles", "rules", "stream", "connectors", "console", "opportune")
CORE: Final = (
    "profiles/**/*.py",
    "rules/**/*.py",
    "stream/stepping.py",
    "stream/meeting.py",
    "stream/telling.py",
    "stream/computing.py",
    "stream/effects.py",
    "stream/owned.py",
)
# What reads rules, shows them or stands at the edge: run once, or by pydantic. Nothing would be won.
NOT_COMPILED: Final = (
    "profiles/event_types/*", "profiles/payloads.py", "profiles/schemas.py", "profiles/settings.py", "profiles/taxonomy.py",
    "rules/assemble.py", "rules/compare.py", "rules/compile.py", "rules/costs.py", "rules/documents.py",
    "rules/doubts.py", "rules/explain.py", "rules/payloads.py", "rules/published.py", "rules/say.py", "rules/scenarios.py",
    "rules/schema.py", "rules/series.py", "rules/static.py", "rules/versions.py", "rules/whatif.py", "rules/words.py",
)  # fmt: skip


def modules() -> list[str]:
    """The files to compile, relative to the project's folder."""
    found = {path.relative_to(HOME) for pattern in CORE for path in HOME.glob(pattern)}
    return sorted(
        str(path)
        for path in found
        if path.name != "__init__.py" and not any(path.match(pattern) for pattern in NOT_COMPILED)
    )


def main(folder: Path) -> int:
    """Compile into the folder, which is made anew; the process's exit code."""
    folder = folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    for room in ROOMS:
        shutil.copytree(HOME / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(folder)
    extensions = mypycify([*modules(), "--strict"], opt_level="3", multi_file=True, target_dir=str(folder / "build"))
    build = Distribution({"name": "opportune-core", "ext_modules": extensions})
    command = build.get_command_obj("build_ext")
    command.ensure_finalized()
    command.inplace = True
    command.parallel = os.cpu_count()
    command.run()
    shutil.rmtree(folder / "build")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
