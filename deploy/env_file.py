"""Writes ``.env`` for ``docker compose``: a secret, write keys and passwords that nobody else has.

    python3 deploy/env_file.py [FOLDER]

An ``.env`` that is there is left as it is: with another secret nobody would be found again (docs/operations.md).
"""

from __future__ import annotations

import json
import os
import secrets  # noqa: TID251  no part of the engine: it draws the secrets of an installation
import sys
from pathlib import Path


def lines() -> list[str]:
    """The settings, drawn anew."""
    keys = {
        f"wk_{secrets.token_hex(16)}": {"source": "web", "kind": "public"},
        f"sk_{secrets.token_hex(24)}": {"source": "shop", "kind": "secret"},
    }
    return [
        "# Made by `make secrets`. Keep it as you keep the backup; it belongs in no repository.",
        f"OPPORTUNE_SECRET={secrets.token_hex(32)}",
        "# wk_: for pages. sk_: for back ends. docs/settings.md says what else a key may say.",
        f"OPPORTUNE_WRITE_KEYS='{json.dumps(keys)}'",
        "# Signs the links in letters; whoever makes letters has it, too.",
        f"OPPORTUNE_LINK_KEYS={secrets.token_hex(32)}",
        "# Whose webhooks are taken: docs/operations.md#webhooks.",
        '#OPPORTUNE_WEBHOOKS={"shopify": {"keys": ["…"]}}',
        f"OPPORTUNE_API_TOKEN={secrets.token_hex(24)}",
        f"REDIS_PASSWORD={secrets.token_hex(24)}",
        f"GRAFANA_PASSWORD={secrets.token_hex(12)}",
        "# The shop's own, if the rule files do not say them:",
        "#OPPORTUNE_ZONE=Europe/Berlin",
        "#OPPORTUNE_CURRENCY=EUR",
        "# Where the collector is reached from outside; a proxy with TLS stands in front.",
        "#COLLECTOR_BIND=127.0.0.1",
        "#REDIS_MEMORY=1gb",
    ]


def main(folder: Path) -> int:
    """Write the file; the process's exit code."""
    path = folder / ".env"
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{path} is there and stays as it is", file=sys.stderr)
        return 0
    with os.fdopen(target, "w") as out:
        out.write("\n".join(lines()) + "\n")
    print(f"{path} written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()))
