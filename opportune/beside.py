"""How commands beside a running ``opportune dev`` reach its parts: it leaves its settings in its data folder.

The file is there for as long as ``dev`` runs. A demo has a folder within the data folder, so that it touches nobody's
profiles; who names the data folder means whichever runs there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from profiles.errors import Refused

DEMO: Final = "demo"
"""The demo's folder within a data folder."""
_FILE: Final = "environment.json"
_SETTINGS: Final = ("BOOTSTRAP", "REDIS_URL", "SECRET", "CLOCK", "REPLICATION", "ZONE", "CURRENCY")


def tell(folder: Path, env: Mapping[str, str]) -> None:
    """Leave the settings; the secret is among them, so nobody else may read them."""
    path = folder / _FILE
    path.touch(0o600)
    path.write_bytes(
        orjson.dumps({name: env[name] for name in (f"OPPORTUNE_{one}" for one in _SETTINGS) if name in env})
    )


def tell_no_more(folder: Path) -> None:
    """Nothing runs on this folder any more."""
    (folder / _FILE).unlink(missing_ok=True)


def told(data_dir: Path) -> Mapping[str, str]:
    """The settings of what runs on a data folder, or of its demo.

    Raises:
        Refused: nothing does.
    """
    for path in (data_dir / _FILE, data_dir / DEMO / _FILE):
        if path.is_file():
            found: dict[str, str] = orjson.loads(path.read_bytes())
            return found
    raise Refused(f"--data-dir: the folder of a running `opportune dev` wanted, nothing runs on {data_dir}")
