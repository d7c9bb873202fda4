"""The consumer to copy (docs/consumer/moments.py): each moment once, in time, as published; of ours it imports nothing."""

from __future__ import annotations

import ast
import importlib.util
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from console.published import BUNDLE, schemas
from rules.scenarios import check

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "docs" / "consumer" / "moments.py"
OURS: Final = {"profiles", "rules", "stream", "connectors", "console", "opportune", "tests"}


def loaded(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MOMENTS: Final = loaded(FILE, "moments")


def sent() -> list[bytes]:
    """Two trigger records of the engine, due on 2 January 2026, stale a day later."""
    done = check(
        """
        trigger it = {on: {event: product_reviewed}, class: transactional, max_age: P1D, steps: [{emit: {template: t, payload: {a: 1}}}]}
        1d  ana  product_reviewed product=mug
        1d  bob  product_reviewed product=mug
        """
    )
    return [one.record.value for one in done.world.published if one.record.topic == "triggers.it"]


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.mark.mechanic("M98")
def test_it_imports_nothing_of_ours() -> None:
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            found.add((node.module or "").partition(".")[0])
    assert found
    assert not found & OURS


@pytest.mark.mechanic("M98")
def test_a_moment_is_acted_on_once_also_after_a_restart(tmp_path: Path) -> None:
    one, other = sent()
    clock, path = Clock(), str(tmp_path / "memory.sqlite")
    memory = MOMENTS.Memory(path, schemas()["triggers"], clock)
    what, record = memory.verdict(one)
    assert what == "act"
    assert memory.verdict(one)[0] == "act", "nobody said that it was done"
    memory.done(record)
    assert memory.verdict(one)[0] == "repeat"
    memory.read_to("triggers.it", 3, 17)
    again = MOMENTS.Memory(path, schemas()["triggers"], clock)
    assert [again.verdict(value)[0] for value in (one, other)] == ["repeat", "act"]
    assert (again.place("triggers.it", 3), again.place("triggers.it", 4)) == (17, None)


@pytest.mark.mechanic("M98")
def test_what_is_stale_is_dropped_and_its_id_need_not_be_kept() -> None:
    one, other = sent()
    clock = Clock()
    memory = MOMENTS.Memory(":memory:", schemas()["triggers"], clock)
    memory.done(memory.verdict(one)[1])
    assert len(memory) == 1
    clock.at = datetime(2026, 1, 3, tzinfo=UTC)
    assert memory.verdict(other)[0] == "act", "to the very instant"
    clock.at += timedelta(milliseconds=1)
    assert [memory.verdict(value)[0] for value in (one, other)] == ["expired", "expired"]
    memory.done(json.loads(other))
    assert len(memory) == 0


@pytest.mark.parametrize("harm", ["not json", "no id", "another class"])
def test_what_is_not_as_published_is_dropped(harm: str) -> None:
    record: dict[str, Any] = json.loads(sent()[0])
    if harm == "no id":
        del record["trigger_id"]
    elif harm == "another class":
        record["class"] = "gossip"
    value = b"{" if harm == "not json" else json.dumps(record).encode()
    assert MOMENTS.Memory(":memory:", schemas()["triggers"], Clock()).verdict(value)[0] == "invalid"


def test_the_package_bears_the_schemas_as_they_are_published() -> None:
    make = loaded(ROOT / "docs" / "schemas" / "make.py", "make_schemas")
    assert BUNDLE.read_text() == make.text_of(make.bundle()), "run: python docs/schemas/make.py"
    assert schemas()["triggers"]["$id"] == "urn:opportune:triggers:1"
    assert {"event", "decisions", "rules", "props/product_updated"} <= set(schemas())
