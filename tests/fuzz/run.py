"""``make fuzz``: one reader under atheris for some seconds, from its corpus; what breaks it is kept there.

python -m tests.fuzz.run token --seconds 60

What atheris finds new on the way lies in .cache/fuzz and is where the next run begins.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import atheris  # Not in the lock: make fuzz installs it.

with atheris.instrument_imports(include=["profiles", "rules", "connectors", "console", "jwt"]):
    from tests.fuzz.targets import CORPORA, SOUND, TARGETS

CACHE = Path(__file__).parents[2] / ".cache" / "fuzz"


def main() -> int:
    """Fuzz in a process of its own, which atheris ends; 1 if it found something, which is kept."""
    if "--inside" not in sys.argv:
        code = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.run", *sys.argv[1:], "--inside"], check=False
        ).returncode
        for found in CORPORA.glob("*/*"):
            if found.suffix != ".bin":
                found.rename(found.with_suffix(".bin"))
        return 1 if code else 0
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("target", choices=TARGETS)
    asked.add_argument("--seconds", type=int, default=60)
    asked.add_argument("--seed", type=int, default=42)
    asked.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args()
    found, seeds = CACHE / given.target, CORPORA / given.target
    for folder in (found, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for number, sound in enumerate(SOUND[given.target]):
        (found / f"sound-{number}").write_bytes(sound)
    told = [
        f"-max_total_time={given.seconds}",
        f"-seed={given.seed}",
        "-max_len=4096",
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]
    artifacts = f"-artifact_prefix={seeds}/"
    atheris.Setup([sys.argv[0], *told, artifacts, str(found), str(seeds)], TARGETS[given.target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
