"""``opportune report``: what came of triggers, read from the topics and shown as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from console.reports import Reports, window_of
from profiles.errors import Refused
from rules.slips import did_you_mean
from stream import settings as stream_settings
from stream.rulebook import load
from stream.store import RedisStore
from stream.transport import security


async def ask(
    env: Mapping[str, str], triggers: Sequence[str], words: tuple[str, str, str, str]
) -> list[dict[str, Any]]:
    """What came of these triggers, or of all that the rules have.

    Args:
        words: from, to, within and touch, as ``window_of`` takes them.
    Raises:
        Refused: a word that is none, or no such trigger.
        OSError: broker or store did not answer.
    """
    agreed, own = stream_settings.read(env)
    book = load(own.rules, zone=agreed.zone, currency=agreed.currency)
    for name in triggers:
        if name not in book.triggers:
            raise Refused(f"trigger: one of the rules' wanted, got {name!r}{did_you_mean(name, sorted(book.triggers))}")
    try:
        window = window_of(*words, book)
    except ValueError as error:
        raise Refused(f"--{error}") from None
    store = RedisStore.of(own)
    try:
        reports = Reports(store, {"bootstrap_servers": own.bootstrap, **security(own)})
        return await reports.told(triggers or sorted(book.triggers), window, book.currency)
    finally:
        await store.close()


def show(told: Sequence[Mapping[str, Any]], terminal: Console) -> None:
    """Print reports as tables; triggers without a moment are left out."""
    seen = [one for one in told if one["steps"]]
    if not seen:
        terminal.print("no moments yet")
        return
    terminal.print(_steps(seen))
    for one in seen:
        if one["holdout"] is not None:
            terminal.print(_held(one))
        for experiment in one["experiments"]:
            terminal.print(_arms(one, experiment))


def _steps(told: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        "trigger", "step", "eligible", "sent", "held back", "delivered", "opened", "clicked", "converted", "orders",
        "revenue", box=SIMPLE,
        caption="opened, clicked: by people, with the share of the delivered; + what only machines did",
    )  # fmt: skip
    for one in told:
        for step in one["steps"]:
            shares, opened, clicked = step["shares"], step["opened"], step["clicked"]
            table.add_row(
                one["trigger"],
                step["step"] + (f" {step['arm']}" if step["arm"] else ""),
                str(step["eligible"]),
                str(step["emitted"]),
                ", ".join(f"{reason} {count}" for reason, count in step["suppressed"].items()),
                str(step["delivered"]),
                f"{opened['people']} ({_percent(shares['opened_of_delivered'])}) + {opened['machines']}",
                f"{clicked['people']} ({_percent(shares['clicked_of_delivered'])}) + {clicked['machines']}",
                f"{step['converted']} ({_percent(shares['converted_of_delivered'])})",
                str(step["orders"]),
                f"{step['revenue']['amount']} {step['revenue']['currency']}",
            )
    return table


def _held(one: Mapping[str, Any]) -> Table:
    table = Table(
        "", "people", one["conversion"], "rate", "95 %", title=f"{one['trigger']}: against the hold-out", box=SIMPLE
    )
    held = one["holdout"]
    for name in ("sent", "held"):
        table.add_row(name, *_group(held[name]))
    lift = "" if held["lift"] is None else f", lift {held['lift']:+.1%}"
    table.caption = f"{held['difference']['verdict'].replace('_', ' ')}{lift}"
    return table


def _arms(one: Mapping[str, Any], experiment: Mapping[str, Any]) -> Table:
    table = Table(
        "arm", "people", one["conversion"], "rate", "95 %", f"against {experiment['base']}",
        title=f"{one['trigger']}: experiment {experiment['experiment']}", box=SIMPLE,
    )  # fmt: skip
    for arm in experiment["arms"]:
        against = ", ".join(
            f"{name} {found['verdict'].replace('_', ' ')}" for name, found in (arm["against"] or {}).items()
        )
        table.add_row(arm["arm"], *_group(arm), against)
    return table


def _group(group: Mapping[str, Any]) -> tuple[str, str, str, str]:
    interval = group["interval"]
    between = f"{_percent(interval[0])} to {_percent(interval[1])}" if interval is not None else ""
    return str(group["people"]), str(group["converted"]), _percent(group["rate"]), between


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
