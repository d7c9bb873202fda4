"""Writes the made parts of the pages beside this file, from what the code says of itself: ``python docs/make.py``.

A page holds them between ``<!-- made: name -->`` and ``<!-- end -->``; all else in it is written by hand. A test
keeps them so (tests/test_docs.py).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Final

import yaml
from prometheus_client.metrics import MetricWrapperBase

import connectors.metrics
import connectors.settings
import console.metrics
import console.settings
import rules.scenarios
import stream.metrics
import stream.settings
from profiles.taxonomy import EVENT_TYPES
from rules.compile import OPERATORS, STEPS, TRIGGER_KINDS
from rules.say import say_all, tongue
from rules.traits import KINDS
from rules.words import LANGUAGES
from stream.rulebook import PACKS, load

HERE: Final = Path(__file__).parent
_PART: Final = re.compile(r"<!-- made: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def operators() -> str:
    """Every segment operator: what it says, its keys, its executed examples."""
    parts: list[str] = []
    for _, spec in sorted(OPERATORS.items()):
        parts.append(f"### `{spec.name}`\n\n{spec.says}")
        if spec.keys:
            parts.append("Keys beside it: " + ", ".join(f"`{key}`" for key in spec.keys) + ".")
        for example in spec.examples:
            told = textwrap.dedent(example.scenario).strip()
            parts.append(f"```yaml\n{example.rule}\n```\n\n{_said(example.rule)}```\n{told}\n```")
    return "\n\n".join(parts)


def trait_kinds() -> str:
    """Every kind of declared trait: what it says, its keys, its executed examples."""
    parts: list[str] = []
    for kind in KINDS.values():
        keys = f" With {', '.join(f'`{key}`' for key in kind.keys)}." if kind.keys else ""
        parts.append(f"**`{kind.name}`** {kind.says}{keys}")
        for example in kind.examples:
            told = textwrap.dedent(example.scenario).strip()
            parts.append(f"```yaml\nit: {example.trait}\n```\n\n```\n{told}\n```")
    return "\n\n".join(parts)


def _said(rule: str) -> str:
    """A segment's rule in words; what is not one is not said."""
    document = yaml.safe_load(rule)
    if "on" in document or True in document:
        return ""
    return "\n".join(f"> {tongue(language).rule(document)}  " for language in LANGUAGES) + "\n\n"


def pack_in_words() -> str:
    """Every rule of the shop pack in both languages."""
    book = load(PACKS / "shop")
    said = [say_all(book, language) for language in LANGUAGES]
    return _table(("rule", "means", "значит"), ((f"`{name}`", *(one[name] for one in said)) for name in said[0]))


def scenarios() -> str:
    """The language of scenarios, as its module tells it."""
    told = rules.scenarios.__doc__
    assert told is not None
    _, _, rest = told.partition("\n\n")
    head, _, tail = rest.partition("\n\nBetween lines")
    blocks = []
    for block in head.split("\n\n"):
        if block.startswith("    "):
            blocks.append(f"```\n{textwrap.dedent(block)}\n```")
        else:
            blocks.append(block.replace("``", "`"))
    return "\n\n".join([*blocks, f"Between lines{tail}".strip()])


def trigger_kinds() -> str:
    """Every kind of entry into a trigger."""
    rows = [
        (f"`{spec.name}`", ", ".join(f"`{key}`" for key in spec.keys), spec.says) for spec in TRIGGER_KINDS.values()
    ]
    told = [
        f"```\n{textwrap.dedent(example).strip()}\n```" for spec in TRIGGER_KINDS.values() for example in spec.examples
    ]
    return _table(("`on`", "with", "enters"), sorted(rows)) + "\n\n" + "\n\n".join(told)


def steps() -> str:
    """Every step of ``rules/steps``, with its executed examples."""
    told = [f"```\n{textwrap.dedent(example).strip()}\n```" for spec in STEPS.values() for example in spec.examples]
    return (
        _table(("step", "does"), [(f"`{spec.name}`", spec.says) for spec in STEPS.values()])
        + "\n\n"
        + "\n\n".join(told)
    )


def event_types() -> str:
    """Every event type with its topic and its other names."""
    rows = [
        (f"`{one.name}`", f"`{one.topic}`", one.says, ", ".join(f"`{alias}`" for alias in one.aliases))
        for one in EVENT_TYPES.values()
    ]
    return _table(("type", "topic", "what happened", "also called"), sorted(rows))


def settings_all() -> str:
    """What all workers must agree on."""
    return _settings(
        (one.variable, one.default, one.unit, one.meaning) for one in stream.settings.describe() if one.agreed
    )


def settings_worker() -> str:
    """What concerns one worker."""
    return _settings(
        (one.variable, one.default, one.unit, one.meaning) for one in stream.settings.describe() if not one.agreed
    )


def settings_collector() -> str:
    """What concerns a collector or an import."""
    return _settings(one[:4] for one in connectors.settings.describe())


def settings_api() -> str:
    """What concerns the API beyond what it shares with workers."""
    return _settings((one.variable, one.default, one.unit, one.meaning) for one in console.settings.describe())


def metrics_worker() -> str:
    """Every metric of a worker."""
    return _metrics(stream.metrics)


def metrics_collector() -> str:
    """Every metric of a collector or an import."""
    return _metrics(connectors.metrics)


def metrics_api() -> str:
    """Every metric of the API."""
    return _metrics(console.metrics)


PARTS: Final[dict[str, Callable[[], str]]] = {
    made.__name__: made
    for made in (
        operators,
        scenarios,
        pack_in_words,
        trait_kinds,
        trigger_kinds,
        steps,
        event_types,
        settings_all,
        settings_worker,
        settings_collector,
        settings_api,
        metrics_worker,
        metrics_collector,
        metrics_api,
    )
}


def made_anew(page: str) -> str:
    """A page with its made parts as the code says now.

    Raises:
        KeyError: the page names a part that nobody makes.
    """
    return _PART.sub(lambda found: f"<!-- made: {found[1]} -->\n{PARTS[found[1]]()}\n<!-- end -->", page)


def pages() -> list[Path]:
    """The pages that hold made parts."""
    return [path for path in sorted(HERE.glob("*.md")) if _PART.search(path.read_text())]


def _settings(rows: Iterable[tuple[str, ...]]) -> str:
    told = ((f"`{name}`", f"`{default}`" if default else "", unit, meaning) for name, default, unit, meaning in rows)
    # Where files lie differs from machine to machine.
    package = str(Path(__file__).parents[1]) + "/"
    return _table(("variable", "default", "unit", "meaning"), told).replace(package, "")


def _metrics(module: ModuleType) -> str:
    rows = []
    for one in vars(module).values():
        if isinstance(one, MetricWrapperBase):
            name = one._name + ("_total" if one._type == "counter" else "")
            rows.append((f"`{name}`", str(one._type), ", ".join(one._labelnames), one._documentation))
    return _table(("metric", "kind", "labels", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    for path in pages():
        path.write_text(made_anew(path.read_text()))
