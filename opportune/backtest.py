"""``opportune backtest``: what rules would have done with files of history, or with the log (SPEC D2)."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import connectors.clock
import connectors.settings
from connectors.mapping import FileMapping, read_mapping
from connectors.sources import files
from connectors.sources.files import Reject, Tally, events_of
from console.backtest import Days, csv_of, moments_of, svg_of, totals_of
from console.difference import Told, difference, is_same
from profiles.errors import BadInput, Refused
from profiles.moments import parse_instant
from profiles.wire import Record
from rules.engine import Stuck
from rules.rulebook import Rulebook
from stream import settings as stream_settings
from stream.history import History
from stream.replay import Given, Replay, Replayed, Source, replayed
from stream.rulebook import load

SECRET: Final = b"backtest"
"""Keys the hashes of e-mails where no installation's secret is set: nobody outside sees them."""


Keep = Callable[[Record], object]


@dataclass(frozen=True)
class Asked:
    """What to run.

    Attributes:
        paths: files of history; none: the log.
        mappings: of each file, or one for all.
        rules: a folder; ``None``: those of the settings.
        from_, to: ISO instants; "" for the first and the last.
        as_live: take history on the log as if it had been told as it happened.
    """

    paths: Sequence[Path] = ()
    mappings: Sequence[FileMapping] = ()
    rules: Path | None = None
    from_: str = ""
    to: str = ""
    as_live: bool = False

    def span(self) -> tuple[int, int | None]:
        """From when on it is told, and before when it stops; ``None``: with the last input.

        Raises:
            Refused: one is no instant, or they are the wrong way round.
        """
        from_ms, to_ms = instant_or_none("--from", self.from_), instant_or_none("--to", self.to)
        if from_ms is not None and to_ms is not None and from_ms >= to_ms:
            raise Refused(f"--from: an instant before --to ({self.to}) wanted, got {self.from_}")
        return from_ms or 0, to_ms


def mapping_named(name: Path) -> FileMapping:
    """A mapping: a YAML file, or a shipped one by its name.

    Raises:
        Refused: there is none.
        BadDocument: it holds mistakes.
    """
    shipped = Path(files.__file__).parent / "mappings" / f"{name}.yaml"
    page = shipped if shipped.is_file() and not name.exists() else name
    if not page.is_file():
        known = ", ".join(sorted(path.stem for path in shipped.parent.glob("*.yaml")))
        raise Refused(f"mapping: a YAML file, or one of {known}, wanted, got {name}")
    return read_mapping(page.read_text(encoding="utf-8"), str(page))


def instant_or_none(option: str, text: str) -> int | None:
    """An instant as people write it; ``None`` where they wrote none.

    Raises:
        Refused: it is none.
    """
    try:
        return parse_instant(text) if text else None
    except ValueError as error:
        raise Refused(f"{option}: {error}") from error


@contextmanager
def history(asked: Asked, env: Mapping[str, str]) -> Iterator[tuple[Source, Callable[[], int], list[Tally]]]:
    """The inputs of the files, or of the log; how many there will be, as far as is known; and where rows went."""
    agreed, own = stream_settings.read(env)
    if not asked.paths:
        with History(own, agreed.partitions) as log:
            yield (lambda: _live(log.read()) if asked.as_live else log.read()), lambda: log.total, []
        return
    if len(asked.mappings) not in (1, len(asked.paths)):
        raise Refused(f"--mapping: one, or one for each file, wanted, got {len(asked.mappings)}")
    for path in asked.paths:
        if not path.is_file():
            raise Refused(f"file: one that can be read wanted, got {path}")
    mappings = list(asked.mappings) * (len(asked.paths) if len(asked.mappings) == 1 else 1)
    secret = connectors.settings.read(env).secret_bytes() if agreed.secret else SECRET
    now_ms = connectors.clock.SystemClock().now_ms()
    tallies: list[Tally] = []

    def read() -> Iterator[Given]:
        tallies[:] = [Tally() for _ in asked.paths]
        streams = [
            events_of(path, mapping, secret=secret, now_ms=now_ms, tally=tally)
            for path, mapping, tally in zip(asked.paths, mappings, tallies, strict=True)
        ]
        events = [(one for one in stream if not isinstance(one, Reject)) for stream in streams]
        return _live(events[0] if len(events) == 1 else heapq.merge(*events, key=attrgetter("received_ms")))

    yield read, lambda: sum(tally.drafts for tally in tallies), tallies


def _live(inputs: Iterator[Any]) -> Iterator[Given]:
    """History as if it had been told as it happened: what would have gone out then is the question."""
    for given in inputs:
        given.backfill = False
        yield given


def run(
    asked: Asked, env: Mapping[str, str], terminal: Console, keep: Callable[[], Keep | None] = lambda: None
) -> tuple[Rulebook, Replayed[Days], list[Tally]]:
    """Run it, with a bar where somebody looks on.

    Args:
        keep: makes what takes every record that would have gone out, in the order of time; asked anew for every pass.
    Raises:
        Refused, BadDocument, OSError: files, rules or brokers are not as they must be.
    """
    agreed, own = stream_settings.read(env)
    rulebook = load(asked.rules or own.rules, zone=agreed.zone, currency=agreed.currency)
    from_ms, to_ms = asked.span()
    with _reading(asked, env, terminal) as (source, tell, tallies):
        result = replayed(source, rulebook, to_ms, lambda: Days(rulebook.zone, from_ms, keep()), tell, looks=True)
    return rulebook, result, tallies


def compare(asked: Asked, old: Path, env: Mapping[str, str], terminal: Console) -> dict[str, Any]:
    """What ``asked.rules`` change against the rules in another folder (``console.difference``). Raises as ``run`` does."""
    agreed, own = stream_settings.read(env)
    books = [load(one, zone=agreed.zone, currency=agreed.currency) for one in (old, asked.rules or own.rules)]
    from_ms, to_ms = asked.span()
    with _reading(asked, env, terminal) as (source, tell, _):
        one, two = (replayed(source, book, to_ms, lambda: Told(from_ms), tell, looks=True) for book in books)
    return difference(one, books[0], two, books[1])


def shadow(
    asked: Asked, old: Path, env: Mapping[str, str], every_s: float, told: Callable[[dict[str, Any]], bool]
) -> None:
    """Run two versions of the rules beside the workers, as the log grows; nothing is written anywhere (SPEC D6).

    Args:
        every_s: how long to wait between two looks.
        told: takes what ``compare`` would say now, and says whether to go on.
    Raises:
        Refused, BadDocument, OSError: as of ``run``.
    """
    agreed, own = stream_settings.read(env)
    books = [load(one, zone=agreed.zone, currency=agreed.currency) for one in (old, asked.rules or own.rules)]
    from_ms, _ = asked.span()
    runs = [Replay(book, Told(from_ms), looks=True) for book in books]
    with History(own, agreed.partitions) as log:
        inputs, go_on = log.read(), True
        while go_on:
            for given in inputs:
                for run_ in runs:
                    with suppress(BadInput, Stuck):  # What a worker sets aside; of its profile no more is told.
                        run_.take(replace(given, backfill=given.backfill and not asked.as_live))
            for run_ in runs:
                run_.until(run_.now_ms)
            one, two = (Replayed(run_.listener, run_.profiles, run_.goods, 0, {}, 1) for run_ in runs)
            go_on = told(difference(one, books[0], two, books[1]))
            inputs = log.read_on(every_s) if go_on else iter(())


def show_difference(told: dict[str, Any], terminal: Console) -> None:
    """What is gained and lost, with examples; what stays as it is is left out."""
    for part, unit in (("segments", "in it at the end"), ("triggers", "sent")):
        table = Table(part.removesuffix("s"), f"{unit}, old", "new", "gained", "lost")
        if part == "segments":
            for title in ("entered, left, old", "new"):
                table.add_column(title)
        examples = []
        for name, one in told[part].items():
            passages = one.get("passages", {"same": True})
            changed = one["gained"]["count"] or one["lost"]["count"] or not passages["same"]
            if changed or one["old"] is None or one["new"] is None:
                sizes = ["–" if one[side] is None else f"{one[side]:,}" for side in ("old", "new")]
                passed = [_passed(passages[side]) for side in ("old", "new") if side in passages]
                table.add_row(name, *sizes, _side(one["gained"]), _side(one["lost"]), *passed)
                examples += [
                    f"{name}: {word} {example['address']}"
                    + (f" at {example['at']}" if "at" in example else "")
                    + (f" (outside: {'; '.join(example['because'])})" if example.get("because") else "")
                    for word in ("gained", "lost")
                    for example in one[word]["examples"]
                ]
        if table.row_count:
            terminal.print(table)
        for line in examples:
            terminal.print(line, highlight=False, soft_wrap=True)
    terminal.print(f"rules {told['old']} → {told['new']}" + (": no difference" if is_same(told) else ""))


def _passed(passages: dict[str, int]) -> str:
    return f"{passages['entered']:,}, {passages['exited']:,}"


def _side(side: dict[str, Any]) -> str:
    revenue = f" ({side['revenue']} {side['currency']})" if side["count"] and "revenue" in side else ""
    return f"{side['count']:,}{revenue}"


@contextmanager
def _reading(
    asked: Asked, env: Mapping[str, str], terminal: Console
) -> Iterator[tuple[Source, Callable[[int], None] | None, list[Tally]]]:
    """The inputs, with a bar where somebody looks on."""
    with ExitStack() as stack:
        source, total, tallies = stack.enter_context(history(asked, env))
        yield source, stack.enter_context(bar(terminal, total)) if terminal.is_terminal else None, tallies


@contextmanager
def bar(terminal: Console, total: Callable[[], int]) -> Iterator[Callable[[int], None]]:
    """A bar of inputs; what it gives is told how many were read."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal) as progress:
        inputs = progress.add_task("inputs", total=None)
        yield lambda number: progress.update(inputs, completed=number, total=total() or None)


def members_of(rulebook: Rulebook, result: Replayed[Any]) -> dict[str, set[str]]:
    """Segment -> the addresses in it at the end."""
    names = {segment.id: segment.name for segment in rulebook.segments}
    found: dict[str, set[str]] = {name: set() for name in names.values()}
    for address, profile in result.profiles.items():
        for segment in profile.members:
            found[names[segment]].add(address)
    return found


def show(rulebook: Rulebook, result: Replayed[Days], tallies: Sequence[Tally], terminal: Console) -> None:
    """The two tables, and what they stand on."""
    days = result.heard
    sizes = {name: len(members) for name, members in members_of(rulebook, result).items()}
    for head, rows in (
        (("segment", "entered", "left", "in it at the end"), totals_of(days, sizes)),
        (("trigger", "sent", "not sent"), moments_of(days, list(rulebook.triggers))),
    ):
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        terminal.print(table)
    for line in told(rulebook, result, tallies):
        terminal.print(line, highlight=False, soft_wrap=True)


def told(rulebook: Rulebook, result: Replayed[Days], tallies: Sequence[Tally]) -> list[str]:
    """What a run stands on, in lines."""
    days, span = result.heard, result.heard.span()
    lines = []
    for tally in tallies:
        why = ", ".join(f"{reason} {count:,}" for reason, count in tally.rejected.most_common())
        lines.append(f"{tally.rows:,} rows read, {tally.rejected.total():,} rejected" + (f" ({why})" if why else ""))
        for reason, _ in tally.rejected.most_common():
            first, *more = tally.examples[reason]
            also = f" (also {', '.join(str(one.row) for one in more)})" if more else ""
            lines.append(f"{reason}: row {first.row}{also}: {first.detail}")
    lines.append(
        f"{result.inputs:,} inputs, {len(result.profiles):,} profiles, {len(span):,} days in zone {rulebook.zone_name}; "
        f"{days.records:,} records, digest {days.digest}, rules {rulebook.hash}"
    )
    if result.aside:
        reasons = ", ".join(f"{reason}" for reason in sorted(set(result.aside.values())))
        lines.append(f"{len(result.aside):,} inputs set aside as a worker would ({reasons})")
    foreign = Counter(
        order.currency
        for profile in result.profiles.values()
        for order in profile.orders.values()
        if order.currency not in ("", rulebook.currency) and not order.rate_e6
    )
    if foreign:
        sizes = ", ".join(f"{currency} {count:,}" for currency, count in foreign.most_common())
        lines.append(
            f"{foreign.total():,} orders without a rate to the shop's {rulebook.currency} ({sizes}) are in no `did: order` "
            "and no sum: defaults/currency or OPPORTUNE_CURRENCY says what the shop's is"
        )
    return lines


def write(folder: Path, title: str, rulebook: Rulebook, result: Replayed[Days], tallies: Sequence[Tally]) -> None:
    """``days.csv``, ``days.svg`` and ``figures.md`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    days = result.heard
    sizes = {name: len(members) for name, members in members_of(rulebook, result).items()}
    (folder / "days.csv").write_text(csv_of(days), encoding="utf-8")
    (folder / "days.svg").write_text(svg_of(days, title), encoding="utf-8")
    lines = [f"# {title}", "", "![The days](days.svg)", ""]
    lines += [f"- {line}" for line in told(rulebook, result, tallies)]
    lines += ["", *_page(("segment", "entered", "left", "in it at the end"), totals_of(days, sizes))]
    lines += ["", *_page(("trigger", "sent", "not sent, and why"), moments_of(days, list(rulebook.triggers)))]
    (folder / "figures.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _page(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    align = [":--", *["--:"] * (len(head) - 1)] if head[-1].startswith("in") else ["---"] * len(head)
    return ["| " + " | ".join(line) + " |" for line in (head, tuple(align), *rows)]


@contextmanager
def kept_in(path: Path | None) -> Iterator[Callable[[], Keep | None]]:
    """Makes takers of records that write them to a file from its beginning, one JSON object a line."""
    if path is None:
        yield lambda: None
        return
    with path.open("wb") as file:

        def begun() -> Keep:
            file.seek(0)
            file.truncate()
            return keep

        def keep(record: Record) -> None:
            line = {"topic": record.topic, "key": record.key, "value": orjson.Fragment(record.value)}
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

        yield begun
