"""The house itself: what the tools do not check and a new file may break."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
ROOMS = ("profiles", "rules", "stream", "connectors", "console", "opportune")
BINARY = {".bin", ".gz", ".ico", ".jpg", ".parquet", ".png", ".webp", ".woff2", ".xlsx", ".zip"}


def kept_files() -> list[Path]:
    """Every file that git keeps or would keep."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=HOUSE, capture_output=True, check=True, text=True).stdout
    return [path for name in names.split("\0") if name and (path := HOUSE / name).is_file()]


def texts() -> list[tuple[str, str]]:
    """(path in the house, content) of each text file that git keeps."""
    return [(str(path.relative_to(HOUSE)), path.read_text()) for path in kept_files() if path.suffix not in BINARY]


def description() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((HOUSE / "pyproject.toml").read_text())


def test_every_folder_with_python_is_a_package() -> None:
    folders = {path.parent for path in kept_files() if path.suffix == ".py"} - {HOUSE}
    rooms = {HOUSE / room for room in (*ROOMS, "tests")}
    bare = [folder for folder in folders if rooms & {folder, *folder.parents} and not (folder / "__init__.py").exists()]
    assert bare == []


def test_what_only_apache_kafka_can_show_is_run_on_it() -> None:
    recipe = (HOUSE / "Makefile").read_text().partition("\ntest-kafka:")[2].partition("\n\n")[0]
    told = [path for path, text in texts() if path.startswith("tests/") and "@pytest.mark.kafka" in text]
    assert told
    assert [path for path in told if str(Path(path).parent) not in recipe] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_every_package_and_names_no_address(name: str) -> None:
    text = (HOUSE / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host)\b", text, re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(packages) > 20
    assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []


def test_both_locks_agree() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([\w.!+]+)", (HOUSE / name).read_text(), re.MULTILINE))

    runtime, everything = (pins(name) for name in LOCKS)
    assert runtime.items() <= everything.items()


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = description()["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=! ;]", each)[0].lower().replace("_", "-") for each in requirements}

    def held(lock: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+)==", (HOUSE / lock).read_text(), re.MULTILINE))

    assert names(project["dependencies"]) <= held("requirements.lock")
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    assert names([*project["dependencies"], *extras]) <= held("requirements-dev.lock")


def test_no_file_names_a_place_of_one_machine() -> None:
    # Spelled in parts, or this very line would be found.
    place = re.compile("|".join(("/" + "home/", "/" + "Users/", "/" + "root/", "/" + "work/", "/" + "opt/wheels")))
    url = re.compile(r"https?://\S+")
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if place.search(url.sub("", line))
    ]
    assert found == []


def test_a_silenced_check_says_which_and_why() -> None:
    silenced = re.compile(
        r"#\s*(?:type:\s*ignore|noqa)(?P<which>\[[\w, -]+\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?(?P<why>.*)"
    )
    found = []
    for name, text in texts():
        if not name.endswith(".py") or name == "tests/test_house.py":
            continue
        for number, line in enumerate(text.splitlines(), 1):
            hit = silenced.search(line)
            if hit and (not hit["which"] or len(re.findall(r"\w+", hit["why"])) < 2):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []


def test_only_the_clock_files_may_read_the_time() -> None:
    exempt = description()["tool"]["ruff"]["lint"]["per-file-ignores"]
    free = {pattern for pattern, codes in exempt.items() if any("TID251".startswith(code) for code in codes)}
    assert free == {"stream/clock.py", "connectors/clock.py", "tests/bench/**"}


def test_every_test_has_a_sentence_for_a_name() -> None:
    short = []
    for name, text in texts():
        if not re.fullmatch(r"tests/.*test_\w+\.py", name):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                words = node.name.split("_")
                if words[0] == "test" and len(words) < 4:
                    short.append(f"{name}:{node.lineno}: {node.name}")
    assert short == []
