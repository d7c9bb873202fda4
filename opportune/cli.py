"""The front door: ``opportune`` and its commands. It wires, and decides nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.box import SIMPLE
from rich.console import Console as Terminal
from rich.table import Table

import connectors.clock
import connectors.settings
import console.settings
from opportune import beside, logs
from opportune.tables import page
from opportune.traces import Spans
from profiles.errors import BadDocument, OpportuneError, Refused
from profiles.ids import message_hash
from stream import settings as stream_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Real-time customer profiles, segments and triggers.",
)
rules_app = typer.Typer(no_args_is_help=True, help="Look at rule files.")
app.add_typer(rules_app, name="rules")
topics_app = typer.Typer(no_args_is_help=True, help="Make or check the topics that the rules need.")
app.add_typer(topics_app, name="topics")
store_app = typer.Typer(no_args_is_help=True, help="Move what the store holds.")
app.add_typer(store_app, name="store")
fit_app = typer.Typer(no_args_is_help=True, help="Find the parameters of models from a history.")
app.add_typer(fit_app, name="fit")
profile_app = typer.Typer(no_args_is_help=True, help="Edit, erase, merge or un-merge people. Each prints a receipt.")
app.add_typer(profile_app, name="profile")
segment_app = typer.Typer(no_args_is_help=True, help="List, export and form segments.")
app.add_typer(segment_app, name="segment")
letters_app = typer.Typer(no_args_is_help=True, help="What could not be taken: look at it, and give it once more.")
app.add_typer(letters_app, name="dead-letters")

DEFAULT_DATA = Path(".opportune")
Address = Annotated[str, typer.Argument(help="Any address of the person: user:42, email:ana@shop.example, anon:…")]
By = Annotated[str, typer.Option(help="Who asks, as the shop knows its staff.")]
CommandId = Annotated[str, typer.Option("--id", help="Of the command, to send the same once more; else one is drawn.")]
RulesFolder = Annotated[Path | None, typer.Option(help="Folder of rule files; those of the settings unless given.")]
HistoryFiles = Annotated[list[Path] | None, typer.Argument(help="JSONL, CSV, text or Parquet; none: the log.")]
Mappings = Annotated[
    list[Path] | None,
    typer.Option("--mapping", help="How rows become events, as of `import`: one, or one for each file."),
]
FromInstant = Annotated[str, typer.Option("--from", help="Tell from this instant on (ISO 8601); before, only learn.")]
ToInstant = Annotated[str, typer.Option("--to", help="Stop before this instant; else with the last event.")]
AsLive = Annotated[bool, typer.Option("--as-live", help="Take imported history on the log as if live.")]
RunningDev = Annotated[
    Path | None, typer.Option("--data-dir", help="Of a running `opportune dev`, or of its demo: ask that.")
]


@app.callback()
def before_any_command() -> None:
    """Tell of settings that nobody reads: a misspelt one would silently have its default."""
    known = [
        one.variable for room in (stream_settings, connectors.settings, console.settings) for one in room.describe()
    ]
    for line in stream_settings.unknown(os.environ, known):
        print(f"warning: {line}", file=sys.stderr)


@app.command()
def dev(
    demo: Annotated[bool, typer.Option("--demo", help="Run a small shop on a fast clock.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Where data lies.")] = DEFAULT_DATA,
    rules: Annotated[Path | None, typer.Option(help="Folder of rule files; the shop pack unless given.")] = None,
    clock: Annotated[str, typer.Option(help="store, or log: history runs on the clock of its records.")] = "store",
    collector_port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    api_port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8081,
    seed: Annotated[int, typer.Option(help="Which demo shop.")] = 42,
) -> None:
    """Everything in one command, on embedded parts. Ctrl-C stops it."""
    from opportune.dev import Options, run

    options = Options(data_dir, demo, seed, rules, clock, collector_port, api_port)
    raise typer.Exit(asyncio.run(run(options)))


@app.command()
def worker() -> None:
    """Profiles, segments and triggers: one member of the group. Settings: OPPORTUNE_… (docs/settings.md)."""
    from opportune.preflight import violations
    from stream.worker import run

    settings = stream_settings.read(os.environ)
    logs.configure(settings.own.log_format, settings.own.log_level, _spans(settings.own, "opportune-worker"))
    wrong = asyncio.run(violations(settings))
    if wrong:
        raise Refused("the worker does not start:\n" + "\n".join(wrong))
    raise typer.Exit(run(settings))


@app.command()
def collector() -> None:
    """HTTP in."""
    from connectors.collector.server import run
    from stream.shelf import PRODUCTS_MAX, Shelf
    from stream.store import RedisStore

    settings = connectors.settings.read(os.environ)
    logs.configure(settings.log_format, settings.log_level, _spans(settings, "opportune-collector"))
    if not settings.catalogue_url:
        run(settings)
        return
    store = RedisStore(settings.catalogue_url, cluster=settings.catalogue_cluster)
    shelf = Shelf(PRODUCTS_MAX)
    run(settings, shelf.goods, lambda: shelf.follow(store))


def _spans(told: connectors.settings.Settings | stream_settings.Own, service: str) -> Spans | None:
    return Spans(told.traces_url, service, told.traces_one_of) if told.traces_url else None


@app.command()
def api() -> None:
    """Profiles, segments and explanations out; the console for people."""
    from console.server import run

    own = console.settings.read(os.environ).shared.own
    logs.configure(own.log_format, own.log_level)
    raise typer.Exit(run(os.environ))


@topics_app.command("create")
def topics_create() -> None:
    """Make those that are missing, change none that is there, and check all."""
    _topics(create=True)


@topics_app.command("check")
def topics_check() -> None:
    """Say what is wrong with them; the exit code is 1 if something is."""
    _topics(create=False)


@topics_app.command("anew")
def topics_anew() -> None:
    """Some were deleted and made again: go on from their beginning, workers being stopped; the profiles stay."""
    from opportune.anew import begun_anew

    found = asyncio.run(begun_anew(stream_settings.read(os.environ)))
    print(f"read from the beginning: {', '.join(found.topics)}; {found.commands} commands are told once more")


def _topics(*, create: bool) -> None:
    from opportune.topics import agreed_topics, check_topics, create_topics
    from stream.rulebook import load
    from stream.transport import security

    agreed, own = stream_settings.read(os.environ)
    book = load(own.rules, zone=agreed.zone, currency=agreed.currency)
    wanted, how = agreed_topics(agreed, book.triggers), security(own)
    if create:
        made = asyncio.run(create_topics(own.bootstrap, wanted, security=how))
        print(f"made {len(made)} of {len(wanted)} topics" + (f": {', '.join(made)}" if made else ""))
    wrong = asyncio.run(check_topics(own.bootstrap, wanted, security=how))
    print("\n".join(wrong) if wrong else f"good: {len(wanted)} topics, {agreed.partitions} partitions each")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def rebuild(
    until: Annotated[
        str, typer.Option(help="What came before counts as applied (ISO 8601); else as the workers told Kafka.")
    ] = "",
) -> None:
    """After the store was lost: profiles anew from the retained log, state-only; then start the workers."""
    from opportune.rebuild import run

    run(os.environ, until, Terminal(stderr=True))


@store_app.command("copy")
def store_copy(
    to: Annotated[str, typer.Option(help="URL of an empty server, or of any node of an empty Cluster.")],
    to_cluster: Annotated[bool, typer.Option("--to-cluster", help="It is a Redis Cluster.")] = False,
) -> None:
    """Copy all that the store of the settings holds, workers being stopped; the old one stays as it is."""
    from opportune.moving import copied

    own = stream_settings.read(os.environ).own
    count = asyncio.run(copied(own, to, to_cluster=to_cluster))
    print(f"{count} keys copied; point OPPORTUNE_REDIS_URL there, and start the workers")


@rules_app.command("check")
def rules_check(
    folder: Annotated[Path | None, typer.Argument(help="Folder of rule files.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only whether they are good.")] = False,
) -> None:
    """Compile rule files: every mistake at its line; or, of good ones, what each rule costs and what wakes it."""
    from rules.costs import segment_costs, trigger_costs
    from stream.rulebook import load

    agreed, own = stream_settings.read(os.environ)
    book = load(folder or own.rules, zone=agreed.zone, currency=agreed.currency)
    print(
        f"good: {len(book.segments)} segments, {len(book.triggers)} triggers, {len(book.aggregates)} kept statistics; "
        f"zone {book.zone_name}, currency {book.currency}, generation {book.hash}"
    )
    if quiet:
        return
    for doubted in book.doubted:
        print(doubted)
    if book.undeclared:
        print(f"taken as people are said to be, and declared by no rule: {', '.join(book.undeclared)}")
    table = Table("rule", "bytes a profile, at most", "alarms", "is woken by", box=SIMPLE)
    for costs in (segment_costs(book), trigger_costs(book)):
        for name, cost in costs.items():
            table.add_row(name, str(cost.bytes_max), str(cost.timers_max), ", ".join(cost.wakes))
        table.add_section()
    page().print(table)


@rules_app.command("publish")
def rules_publish(
    folder: Annotated[Path, typer.Argument(help="Folder of rule files.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until all that run go by them.")] = 30,
    data_dir: RunningDev = None,
) -> None:
    """Put rules in force while workers run: checked first, with the topics of their triggers; nobody is restarted."""
    from opportune import publishing

    publishing.run(_environment(data_dir), folder, wait)


@rules_app.command("progress")
def rules_progress(
    wait: Annotated[bool, typer.Option("--wait", help="Until everybody has met them.")] = False,
    data_dir: RunningDev = None,
) -> None:
    """How much of the base has met the rules in force."""
    from opportune import segments

    segments.look(_environment(data_dir), lambda store, book: segments.progressed(store, book, wait=wait))


@rules_app.command("fill")
def rules_fill(data_dir: RunningDev = None) -> None:
    """Compute back from the log what new rules count and no rules before kept; workers go on meanwhile."""
    from opportune import fill

    fill.run(_environment(data_dir), Terminal(stderr=True))


@rules_app.command("say")
def rules_say(
    folder: Annotated[Path | None, typer.Argument(help="Folder of rule files.")] = None,
    language: Annotated[str, typer.Option(help="en or ru.")] = "en",
) -> None:
    """Say in plain words what each rule means."""
    from rules.say import say_all
    from rules.words import LANGUAGES
    from stream.rulebook import load

    if language not in LANGUAGES:
        raise Refused(f"--language: one of {', '.join(LANGUAGES)} wanted, got {language}")
    agreed, own = stream_settings.read(os.environ)
    for name, words in say_all(load(folder or own.rules, zone=agreed.zone, currency=agreed.currency), language).items():
        print(f"{name}: {words}")


@rules_app.command("test")
def rules_test(
    files: Annotated[list[Path], typer.Argument(help="Scenarios: histories as text, with what must be so.")],
    rules: Annotated[
        Path | None, typer.Option(help="Folder of the rules under test; without, those in the scenarios.")
    ] = None,
) -> None:
    """Run scenarios against rules on a clock of their own; every expectation that does not hold is told at its line."""
    from rules.scenarios import BadScenario, run
    from stream.rulebook import read_rule_files

    in_force = read_rule_files(rules) if rules is not None else []
    agreed = stream_settings.read(os.environ).agreed
    failed = expected = 0
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
            done = run(text, in_force, str(path), zone=agreed.zone, currency=agreed.currency)
        except BadScenario as error:
            print(error)
            failed += 1
            continue
        expected += done.expected
        failed += len(done.failures)
        for failure in done.failures:
            print(f"{path}:{failure.line}: {failure.text} wanted, got {failure.found}")
    print(f"{'failed' if failed else 'good'}: {len(files)} scenarios, {expected} expectations, {failed} failures")
    raise typer.Exit(1 if failed else 0)


@rules_app.command("diff")
def rules_diff(
    old: Annotated[Path, typer.Argument(help="Folder of the rules in force.")],
    new: Annotated[Path, typer.Argument(help="Folder of the new ones.")],
    files: HistoryFiles = None,
    mapping: Mappings = None,
    from_: FromInstant = "",
    to: ToInstant = "",
    as_live: AsLive = False,
    out: Annotated[Path | None, typer.Option(help="A file for the whole difference, as JSON.")] = None,
    follow: Annotated[
        float, typer.Option(min=0, help="Go on as the log grows, telling every so many seconds; Ctrl-C stops it.")
    ] = 0,
    data_dir: RunningDev = None,
) -> None:
    """Run two versions of the rules over the same events: members and moments gained and lost, with examples."""
    from opportune import backtest as work

    asked = work.Asked(files or [], [work.mapping_named(one) for one in mapping or []], new, from_, to, as_live=as_live)

    def tell(told: dict[str, Any]) -> bool:
        work.show_difference(told, page())
        if out is not None:
            out.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        return True

    if not follow:
        tell(work.compare(asked, old, _environment(data_dir), Terminal(stderr=True)))
    elif files or to:
        raise Refused("--follow: the log, without files and --to, wanted")
    else:
        work.shadow(asked, old, _environment(data_dir), follow, tell)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSONL, CSV, text or Parquet; .gz too.")],
    mapping: Annotated[
        Path, typer.Option(help="How a row becomes an event: a YAML file, or the name of a shipped one.")
    ],
    until: Annotated[str, typer.Option(help="Leave out events from this instant on (ISO 8601).")] = "",
    live: Annotated[bool, typer.Option("--live", help="Not history: triggers may fire.")] = False,
    beside: Annotated[Path | None, typer.Option(help="Where state and rejected rows go; beside the file.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Of a running `opportune dev`: import into that.")] = None,
) -> None:
    """Publish a file's rows as events; goes on where an earlier run stopped."""
    from connectors.importer import bar, import_file
    from opportune.backtest import instant_or_none, mapping_named

    how = mapping_named(mapping)
    if not file.is_file():
        raise Refused(f"file: one that can be read wanted, got {file}")
    until_ms = instant_or_none("--until", until)
    terminal = Terminal(stderr=True)
    with bar(terminal) if terminal.is_terminal else nullcontext() as tell:
        report = asyncio.run(
            import_file(
                file,
                how,
                connectors.settings.read(_environment(data_dir)),
                connectors.clock.SystemClock(),
                live=live,
                until_ms=until_ms,
                folder=beside,
                tell=tell,
                say=lambda line: terminal.print(f"import {line}", highlight=False, soft_wrap=True),
            )
        )
    tally = report.tally
    print(f"{tally.rows} rows read: {tally.used} used, {tally.rejected.total()} rejected" + _reasons(tally.rejected))
    print(
        f"{report.resumed_at + report.published} events published ({report.published} by this run)"
        + ("" if report.complete else "; some are later than --until: run it again to go on")
    )
    if report.rejects is not None:
        print(f"rejected rows, each with its reason: {report.rejects}")
    if tally.rows and not tally.used:
        raise Refused(f"{file}: rows that become events wanted, all {tally.rows} were rejected")


@app.command()
def backtest(
    files: HistoryFiles = None,
    mapping: Mappings = None,
    rules: RulesFolder = None,
    from_: FromInstant = "",
    to: ToInstant = "",
    as_live: AsLive = False,
    out: Annotated[Path | None, typer.Option(help="A folder for days.csv, days.svg and figures.md.")] = None,
    records: Annotated[
        Path | None, typer.Option(help="A file for all that would have gone out, as JSON lines.")
    ] = None,
    title: Annotated[str, typer.Option(help="Over the chart.")] = "",
    data_dir: RunningDev = None,
) -> None:
    """What rules would have done: who entered and left, what was sent and why not, day by day. Changes nothing."""
    from opportune import backtest as work

    asked = work.Asked(
        files or [], [work.mapping_named(one) for one in mapping or []], rules, from_, to, as_live=as_live
    )
    with work.kept_in(records) as keep:
        book, result, tallies = work.run(asked, _environment(data_dir), Terminal(stderr=True), keep)
    work.show(book, result, tallies, page())
    if out is not None:
        named = ", ".join(path.name for path in files or []) or "the log"
        work.write(out, title or f"Backtest of {named}", book, result, tallies)


@app.command()
def report(
    triggers: Annotated[list[str] | None, typer.Argument(help="Triggers; all of the rules' unless given.")] = None,
    from_: Annotated[str, typer.Option("--from", help="Moments from this instant on (ISO 8601).")] = "",
    to: Annotated[str, typer.Option("--to", help="Moments before this instant.")] = "",
    within: Annotated[
        str,
        typer.Option(
            help="How long after a moment an order counts; what the trigger says of its conversion, else seven days, unless given."
        ),
    ] = "",
    touch: Annotated[
        str, typer.Option(help="The last message that was so has the order: sent, opened or clicked.")
    ] = "sent",
    out: Annotated[Path | None, typer.Option(help="A file for all figures, as JSON.")] = None,
    data_dir: RunningDev = None,
) -> None:
    """What came of triggers: moments, reasons, reactions, orders and money; against hold-outs, arm by arm."""
    from opportune import report as work

    told = asyncio.run(work.ask(_environment(data_dir), triggers or [], (from_, to, within, touch)))
    work.show(told, page())
    if out is not None:
        out.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))


@fit_app.command("bgnbd")
def fit_bgnbd(
    file: Annotated[Path, typer.Argument(help="A history of orders: JSONL, CSV, text or Parquet; .gz too.")],
    mapping: Annotated[Path, typer.Option(help="How rows become events, as of `import`.")],
    until: Annotated[str, typer.Option(help="Look at orders before this instant only (ISO 8601).")] = "",
    unit: Annotated[str, typer.Option(help="The time in which alpha is told.")] = "P7D",
) -> None:
    """The parameters of P(alive) by BG/NBD, likeliest by a history; prints the trait to put into rules."""
    from opportune import fit
    from opportune.backtest import mapping_named

    agreed = stream_settings.read(os.environ)[0]
    print(fit.told(file, mapping_named(mapping), agreed, until, unit))


@profile_app.command("edit")
def profile_edit(
    address: Address,
    by: By,
    why: Annotated[str, typer.Option(help="The reason; it stands in the profile beside what was said.")],
    said: Annotated[list[str] | None, typer.Option("--set", help="A trait: first_name=Ana, visits=3.")] = None,
    unset: Annotated[list[str] | None, typer.Option(help="A trait to be taken back.")] = None,
    consent: Annotated[
        list[str] | None, typer.Option(help="email:sale=granted, sms:*=denied; with nothing behind =, taken back.")
    ] = None,
    command_id: CommandId = "",
    data_dir: RunningDev = None,
) -> None:
    """State traits and consents of a person by hand, or take them back."""
    from opportune import people

    edit = people.edit_of(by, why, said or [], unset or [], consent or [])
    work = people.ask(_environment(data_dir), lambda commands, _: commands.edit(address, edit, command_id))
    raise typer.Exit(people.run(work))


@profile_app.command("erase")
def profile_erase(address: Address, by: By, command_id: CommandId = "", data_dir: RunningDev = None) -> None:
    """Erase a person with all addresses, for good. The receipt says when the log's copies are gone."""
    from opportune import people

    work = people.ask(_environment(data_dir), lambda commands, _: commands.erase(address, by, command_id))
    raise typer.Exit(people.run(work))


@profile_app.command("unmerge")
def profile_unmerge(
    address: Annotated[str, typer.Argument(help="The address that was merged into another's profile: anon:…, email:…")],
    by: By,
    command_id: CommandId = "",
    data_dir: RunningDev = None,
) -> None:
    """Part two profiles that were merged by mistake, exactly as if they never had been; or say why that cannot be."""
    from opportune import people

    work = people.ask(_environment(data_dir), lambda _, parter: parter.unmerge(address, by, people.WAIT_S, command_id))
    raise typer.Exit(people.run(work))


@profile_app.command("merge")
def profile_merge(
    one: Annotated[str, typer.Argument(help="A known user: user:42")],
    other: Annotated[str, typer.Argument(help="The other; of the two the lesser address is the one that stays.")],
    by: By,
    command_id: CommandId = "",
    data_dir: RunningDev = None,
) -> None:
    """Join two known users who are one person. Nothing but this ever does."""
    from opportune import people

    work = people.ask(_environment(data_dir), lambda commands, _: commands.merge(one, other, by, command_id))
    raise typer.Exit(people.run(work))


@profile_app.command("reapply")
def profile_reapply(data_dir: RunningDev = None) -> None:
    """After an old backup of the store was restored: erase again whoever was erased since."""
    from opportune import people

    raise typer.Exit(people.run(people.reapply(_environment(data_dir))))


@profile_app.command("receipt")
def profile_receipt(
    command_id: Annotated[str, typer.Argument(help="The id that the command was given.")], data_dir: RunningDev = None
) -> None:
    """What became of a command of the last 30 days."""
    from opportune import people

    raise typer.Exit(people.run(people.look(_environment(data_dir), command_id)))


SegmentName = Annotated[str, typer.Argument(help="A segment's name.")]
Why = Annotated[str, typer.Option(help="The reason; it stands in the list's record.")]


@segment_app.command("list")
def segment_list(data_dir: RunningDev = None) -> None:
    """All segments with their sizes."""
    from opportune import segments

    segments.look(_environment(data_dir), segments.listed)


@segment_app.command("show")
def segment_show(
    name: SegmentName,
    members: Annotated[int, typer.Option(min=0, max=1_000, help="So many of the members.")] = 10,
    data_dir: RunningDev = None,
) -> None:
    """A segment: rule, size, how it was formed, some members."""
    from opportune import segments

    segments.look(_environment(data_dir), lambda store, book: segments.shown(store, book, name, members))


@segment_app.command("export")
def segment_export(
    name: SegmentName,
    form: Annotated[str, typer.Option("--format", help="csv, xlsx, xml, json or jsonl.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="The file; standard output unless given.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="A trait beside the usual columns.")] = None,
    consent: Annotated[str, typer.Option(help="Only who may be written to: email:sale, sms:*.")] = "",
    opt_out: Annotated[bool, typer.Option("--opt-out", help="It is enough that it was not refused.")] = False,
    bom: Annotated[bool, typer.Option("--bom", help="csv: the mark by which spreadsheets know UTF-8.")] = False,
    data_dir: RunningDev = None,
) -> None:
    """A segment's members as a file."""
    from opportune import segments

    only = segments.consent_of(consent, opt_out=opt_out)
    segments.look(
        _environment(data_dir),
        lambda store, book: segments.exported(store, book, name, form, out, field or [], only, bom),
    )


@segment_app.command("freeze")
def segment_freeze(
    name: SegmentName,
    into: Annotated[str, typer.Option(help="A static segment of the rules.")],
    by: By,
    why: Why = "",
    command_id: CommandId = "",
    data_dir: RunningDev = None,
) -> None:
    """Form a static segment of the members that another has now."""
    from opportune import segments

    _print(segments.formed(_environment(data_dir), into, name, by, why, command_id))


@segment_app.command("form")
def segment_form(
    name: Annotated[str, typer.Argument(help="A static segment of the rules.")],
    file: Annotated[Path, typer.Argument(help="A text or csv file with an address in each line's first column.")],
    by: By,
    why: Why = "",
    command_id: CommandId = "",
    data_dir: RunningDev = None,
) -> None:
    """Form a static segment of a file of addresses: these people and nobody else."""
    from opportune import segments

    _print(segments.formed(_environment(data_dir), name, file, by, why, command_id))


OfReason = Annotated[str, typer.Option(help="Only letters with this reason: bug, malformed, too_late, …")]
OfTopic = Annotated[str, typer.Option(help="Only letters of this topic.")]
OfSource = Annotated[str, typer.Option(help="Only letters of this sender, as the collector knows it.")]


@letters_app.command("list")
def letters_list(
    reason: OfReason = "",
    topic: OfTopic = "",
    source: OfSource = "",
    waiting: Annotated[bool, typer.Option("--waiting", help="Leave out what was replayed.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="So many lines, the latest; the sums are of all.")] = 50,
    data_dir: RunningDev = None,
) -> None:
    """The letters and, by reason, how many there are, were replayed and wait."""
    from opportune import letters

    wanted = letters.Wanted((), reason, topic, source)
    letters.listed(_environment(data_dir), wanted, page(), limit, only_waiting=waiting)


@letters_app.command("show")
def letters_show(
    name: Annotated[str, typer.Argument(help="Of a letter: partition/offset, as `list` tells.")],
    original: Annotated[bool, typer.Option("--original", help="Only the bytes as they came.")] = False,
    data_dir: RunningDev = None,
) -> None:
    """One letter whole: it may hold personal data, as it was sent."""
    from opportune import letters

    letters.shown(_environment(data_dir), name, sys.stdout.buffer, only_original=original)


@letters_app.command("replay")
def letters_replay(
    by: By,
    names: Annotated[list[str] | None, typer.Argument(help="Letters: partition/offset.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that wait and fit the other options.")] = False,
    reason: OfReason = "",
    topic: OfTopic = "",
    source: OfSource = "",
    again: Annotated[bool, typer.Option("--again", help="Also what was replayed already.")] = False,
    data_dir: RunningDev = None,
) -> None:
    """Give the engine once more what it could not take; twice is once. Fails when a letter cannot be taken."""
    from opportune import letters

    if bool(names) == all_:
        raise Refused("replay: the names of letters, or --all, wanted")
    wanted = letters.Wanted(tuple(names or ()), reason, topic, source)
    raise typer.Exit(letters.replayed(_environment(data_dir), wanted, by, again=again))


def _print(told: object) -> None:
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


def _environment(data_dir: Path | None) -> Mapping[str, str]:
    """The process's own, and what a running ``dev`` has put into its data folder."""
    return os.environ if data_dir is None else {**os.environ, **beside.told(data_dir)}


def _reasons(rejected: Counter[str]) -> str:
    told = ", ".join(f"{reason} {count}" for reason, count in rejected.most_common())
    return f" ({told})" if told else ""


@app.command("hash")
def hash_(
    source: Annotated[str, typer.Argument(help="Of the write key or file by which it came.")],
    message_id: Annotated[str, typer.Argument(help="As the sender gave it.")],
) -> None:
    """What log lines call a message: search the logs of all processes for it."""
    print(message_hash(source, message_id))


@app.command()
def schema(name: Annotated[str, typer.Argument(help="Like triggers; without one the names are told.")] = "") -> None:
    """Print the published JSON Schema of what crosses a topic, for consumers in any language."""
    from console.published import schemas

    known = schemas()
    if not name:
        for one, said in known.items():
            print(f"{one}  {said['$id']}" if "$id" in said else one)
        return
    if name not in known:
        raise Refused(f"schema: one of {', '.join(known)} wanted, got {name}")
    print(orjson.dumps(known[name], option=orjson.OPT_INDENT_2).decode())


@app.command()
def bench(
    size: Annotated[str, typer.Option(help="smoke or real.")] = "real",
    rules: Annotated[Path | None, typer.Option(help="Your rules, in place of the bench's 30 segments.")] = None,
    customers: Annotated[int | None, typer.Option(min=1, help="The base; 100,000 in the real size.")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Over the base; 500,000 in the real size.")] = None,
    profile: Annotated[bool, typer.Option(help="Workers under cProfile; its tables go to standard error.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Above 1: only what so many cost an event, against one.")] = 1,
    rate: Annotated[int, typer.Option(min=1, help="Events a second that they share then.")] = 1_000,
) -> None:
    """Measure the whole job here: events a second, where the time goes, seed and digest."""
    from opportune.bench.command import compare
    from opportune.bench.command import main as measure

    if workers > 1:
        raise typer.Exit(compare(workers, rate, size=size, rules=rules))
    raise typer.Exit(measure(size, rules=rules, customers=customers, events=events, profile=profile))


@app.command()
def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds.")] = 300,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 0,
    planted: Annotated[str, typer.Option(help="Switch a planted fault on; `all` tells what finds each.")] = "",
    crashes: Annotated[bool, typer.Option(help="Also die at every await of the fixed histories.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
) -> None:
    """Run the engine in faulty worlds, each from a seed (needs a clone: the world is among the tests)."""
    try:
        from tests.simulation.command import main as live
    except ModuleNotFoundError as error:
        raise Refused("simulate: a clone with its tests folder wanted; an installed package has none") from error

    raise typer.Exit(live(seeds, first, planted, with_crashes=crashes, jobs=jobs))


def main() -> None:
    """Run a command; what the world got wrong is told in plain lines, without a traceback."""
    try:
        app(standalone_mode=True)
    except BadDocument as error:
        print(error, file=sys.stderr)
        print(f"{len(error.mistakes)} mistake{'s' if len(error.mistakes) > 1 else ''}", file=sys.stderr)
        sys.exit(1)
    except OpportuneError as error:
        print(f"opportune: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            print(f"opportune: {error.filename}: a file at hand wanted, got: {error.strerror}", file=sys.stderr)
            sys.exit(1)
        print(f"opportune: {error}", file=sys.stderr)
        print("(brokers and store: OPPORTUNE_BOOTSTRAP, OPPORTUNE_REDIS_URL)", file=sys.stderr)
        sys.exit(1)
