"""``docker-compose.yml`` read as Docker Compose reads it: which command runs with which environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "docker-compose.yml"
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Service(NamedTuple):
    """What is started: words behind the image's entry point, and the environment."""

    command: list[str]
    environment: dict[str, str]


def env_of(path: Path) -> dict[str, str]:
    """An env file's settings."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = (line.split("=", 1) for line in lines)
    return {name: value.strip("'") for name, value in pairs}


def document() -> dict[str, Any]:
    """The file as it is."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def services(env: Mapping[str, str]) -> dict[str, Service]:
    """Every service, with the variables filled in.

    Raises:
        KeyError: one that is wanted is not set.
    """
    return {
        name: Service(
            [_filled(word, env) for word in one.get("command", ())],
            {key: _filled(str(value), env) for key, value in one.get("environment", {}).items()},
        )
        for name, one in document()["services"].items()
    }


def _filled(text: str, env: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name, sort, default = found.groups()
        if env.get(name):
            return env[name]
        if sort == "-":
            return str(default)
        raise KeyError(f"{name}: {default}")

    return _VARIABLE.sub(value, text)
