"""The manifests and the unit: against the schemas, as overlays are built, and in step with the settings that there are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import connectors.settings
import console.settings
import stream.settings
from deploy.grafana import make
from tests.deploy.compose import ROOT, document

KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
SECRET: Final = {"OPPORTUNE_BOOTSTRAP", "OPPORTUNE_REDIS_URL", "OPPORTUNE_SECRET", "OPPORTUNE_WRITE_KEYS"}


def built(overlay: str) -> str:
    """What `kubectl apply -k` would send."""
    tool = shutil.which("kubectl")
    assert tool is not None
    done = subprocess.run([tool, "kustomize", str(KUBERNETES / overlay)], capture_output=True, text=True, check=True)
    return done.stdout


def containers(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name -> container, of everything that runs."""
    found = {}
    for one in documents:
        if one["kind"] in ("Deployment", "Job"):
            [container] = one["spec"]["template"]["spec"]["containers"]
            found[one["metadata"]["name"]] = container
    return found


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize(("overlay", "partitions"), [("small", 8), ("large", 64)])
def test_an_overlay_is_whole_and_sound(overlay: str, partitions: int, tmp_path: Path) -> None:
    path = tmp_path / f"{overlay}.yaml"
    path.write_text(built(overlay))
    validator = Path(sys.executable).with_name("kubernetes-validate")
    subprocess.run([validator, "--strict", "--quiet", path], check=True)

    documents = list(yaml.safe_load_all(path.read_text()))
    assert {one["metadata"]["namespace"] for one in documents} == {"opportune"}
    found = containers(documents)
    assert set(found) == {"worker", "collector", "api", "topics"}
    [shared] = [one for one in documents if one["kind"] == "ConfigMap"]
    known = {
        one.variable for room in (stream.settings, connectors.settings, console.settings) for one in room.describe()
    }
    given = {
        **shared["data"],
        **{one["name"]: one.get("value") for each in found.values() for one in each.get("env", ())},
    }
    assert set(given) | SECRET <= known
    assert int(given["OPPORTUNE_PARTITIONS"]) == partitions
    # What Kubernetes starts is what Compose starts, and never more workers than there are partitions.
    compose = document()["services"]
    assert {name: each["args"] for name, each in found.items()} == {name: compose[name]["command"] for name in found}
    limits = {
        one["metadata"]["name"]: one["spec"]["maxReplicas"]
        for one in documents
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    assert limits["worker"] <= partitions
    for name, each in found.items():
        assert each["image"] == "opportune:0.1.0", name
        assert each["securityContext"]["readOnlyRootFilesystem"], name
        assert each["resources"]["limits"]["memory"], name
        if name != "topics":
            assert each["livenessProbe"], name
            assert each["readinessProbe"]["httpGet"]["path"] == "/readyz", name
    # Each configuration that is read has a place that gives it.
    named = {
        source.get("configMapRef", source.get("secretRef"))["name"]
        for each in found.values()
        for source in each["envFrom"]
    }
    assert named == {shared["metadata"]["name"], "opportune"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_workers_may_follow_the_lag_in_place_of_the_processor(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    mine = tmp_path / "kubernetes" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../small]\ncomponents: [../lag]\n"
    )
    documents = list(yaml.safe_load_all(built(str(mine))))
    scaled = {one["metadata"]["name"] for one in documents if one["kind"] == "HorizontalPodAutoscaler"}
    [asked] = [one for one in documents if one["kind"] == "ScaledObject"]
    assert asked["spec"]["scaleTargetRef"]["name"] == "worker" == asked["metadata"]["name"] not in scaled
    [deployment] = [one for one in documents if one["kind"] == "Deployment" and one["metadata"]["name"] == "worker"]
    assert deployment["metadata"]["namespace"] == asked["metadata"]["namespace"]
    query, _ = (one["metadata"].get("query") for one in asked["spec"]["triggers"])
    assert query in {ask for panels in (make.OVERVIEW, make.WORKER) for panel in panels for ask, _ in panel.asks}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_unit_is_sound(tmp_path: Path) -> None:
    unit = tmp_path / "opportune@worker.service"
    text = (ROOT / "deploy" / "systemd" / "opportune@.service").read_text()
    unit.write_text(text.replace("/opt/opportune/bin/opportune", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
