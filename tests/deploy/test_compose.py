"""The compose file, the image and the secrets, as far as they can be seen without a container engine."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import orjson
import pytest

import connectors.settings
import console.settings
import stream.settings
from connectors.collector.keys import read_keys
from deploy.grafana import make
from tests.deploy.compose import ROOT, document, env_of, services


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """What `make secrets` writes."""
    return env_of(drawn(tmp_path))


def drawn(folder: Path) -> Path:
    """Run it."""
    subprocess.run([sys.executable, str(ROOT / "deploy" / "env_file.py"), str(folder)], check=True)
    return folder / ".env"


def test_secrets_are_drawn_once_and_for_their_owner_only(tmp_path: Path) -> None:
    path = drawn(tmp_path)
    first = path.read_text()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert drawn(tmp_path).read_text() == first
    (tmp_path / "other").mkdir()
    assert not set(env_of(path).values()) & set(env_of(drawn(tmp_path / "other")).values())


def test_nothing_starts_without_secrets_of_ones_own() -> None:
    with pytest.raises(KeyError, match="run make secrets"):
        services({})
    text = (ROOT / "docker-compose.yml").read_text()
    assert "changeme" not in text
    assert "demo-public-key" not in text


def test_every_setting_that_is_given_is_one_that_somebody_reads(secrets: dict[str, str]) -> None:
    known = {
        one.variable for room in (stream.settings, connectors.settings, console.settings) for one in room.describe()
    }
    for name, service in services(secrets).items():
        ours = {key for key in service.environment if key.startswith("OPPORTUNE_")}
        assert ours <= known, name
    found = services(secrets)
    stream.settings.read(found["worker"].environment)
    console.settings.read(found["api"].environment)
    connectors.settings.read(found["collector"].environment)
    told = found["collector"].environment["OPPORTUNE_WRITE_KEYS"]
    sources = [read_keys(told).of(key) for key in sorted(orjson.loads(told))]
    assert [(one.name, one.trusted) for one in sources if one is not None] == [("shop", True), ("web", False)]


def test_every_service_is_looked_after(secrets: dict[str, str]) -> None:
    for name, service in document()["services"].items():
        assert ":" in service["image"], name
        assert not service["image"].endswith(":latest"), name
        assert "restart" in service, name
        if name != "topics":  # It ends.
            assert "healthcheck" in service, name
            assert service["deploy"]["resources"]["limits"], name
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${COLLECTOR_BIND:-127.0.0.1}:")), "nothing is open to all by default"


def test_the_image_holds_every_room_and_nothing_for_tests_only() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    rooms = {line.split()[1] for line in lines if line.startswith("COPY ") and "/build/app/" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert rooms == set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    ignored = (ROOT / ".dockerignore").read_text()
    assert all(f"!{room}\n" in ignored for room in rooms)
    assert "USER 10001" in lines


@pytest.mark.parametrize("name", make.PAGES)
def test_the_dashboards_are_as_the_code_makes_them(name: str) -> None:
    path = ROOT / "deploy" / "grafana" / "dashboards" / f"{name}.json"
    assert path.read_bytes() == make.made(name), "python deploy/grafana/make.py"
    assert len({panel["title"] for panel in orjson.loads(path.read_bytes())["panels"]}) == len(make.PAGES[name][1])
