"""``ladder: {of: last_order_at, rungs: [{at: P3M, level: 5}, …], do: […]}``: the same steps at growing ages of a moment.

Each rung waits until the trait is that old. A rung whose successor is due already is passed over, so levels never go
down, and after an outage only the newest is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from profiles.moments import Duration
from profiles.state import Instance, Profile
from rules.documents import Node
from rules.program import Act, Maker, StepSpec, Until
from rules.spec import Reader
from rules.words import Tongue

RUNGS_MAX: Final = 20


def _compile(node: Node, maker: Maker) -> None:
    node.known(("of", "rungs", "do"), required=("of", "rungs", "do"))
    named, rungs, do = node.get("of"), node.get("rungs"), node.get("do")
    if named is None or rungs is None or do is None:
        return
    reader = maker.scope.reader(named.text(), named)
    if reader.kind not in ("time", "any"):
        named.wrong(f"of: a trait that is a time wanted, got a {reader.kind}")
    ages: list[Duration] = []
    levels: list[Any] = []
    for rung in rungs:
        rung.known(("at", "level"), required=("at", "level"))
        at, level = rung.get("at"), rung.get("level")
        if at is None or level is None:
            return
        ages.append(at.duration())
        levels.append(level.scalar())
        if len(ages) > 1 and ages[-1].about_ms() <= ages[-2].about_ms():
            at.wrong(f"rungs go up: more than {ages[-2]} wanted, got {ages[-1]}")
    if len(ages) > RUNGS_MAX:
        rungs.wrong(f"at most {RUNGS_MAX} rungs wanted, got {len(ages)}")
        return
    for i, (age, level) in enumerate(zip(ages, levels, strict=True)):
        start = len(maker.program)
        maker.program.append(Until(lambda profile, run, now_ms: None, 0))  # its place; set below
        maker.program.append(Act(_at_level(level)))
        maker.add(do)
        higher = ages[i + 1] if i + 1 < len(ages) else None
        maker.program[start] = Until(_due(reader, age, higher, maker), len(maker.program))


def _due(
    reader: Reader, age: Duration, higher: Duration | None, maker: Maker
) -> Callable[[Profile, Instance, int], int | None]:
    zone = maker.scope.zone

    def due(profile: Profile, run: Instance, now_ms: int) -> int | None:
        since_ms, _ = reader.read(profile, now_ms)
        if not isinstance(since_ms, int) or (higher is not None and higher.after(since_ms, zone) <= now_ms):
            return None
        return age.after(since_ms, zone)

    return due


def _at_level(level: Any) -> Callable[[Profile, Instance, int], None]:
    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        run.context["level"] = level

    return act


def _words(asked: Any, t: Tongue) -> str:
    rungs = asked.get("rungs", [])
    told = ", ".join(f"{t.duration(one.get('at'))}: {t.value(one.get('level'))}" for one in rungs)
    return t.pick(
        f"by how long ago {t.trait(asked.get('of'))} was ({told}): ",
        f"по давности, {t.trait(asked.get('of'))} ({told}): ",
    ) + t.steps(asked.get("do"))


SPEC = StepSpec(
    "ladder",
    "Does the same at growing ages of a time: `{of: last_order_at, rungs: [{at: P3M, level: 5}, …], do: […]}`; `{level}` and `$level` name the rung's.",
    _compile,
    _words,
    (
        """
        trigger it = {on: {trait: last_order_at, reaches_age: P30D}, cancel_on: [{event: order_completed}], steps: [{ladder: {of: last_order_at, rungs: [{at: P30D, level: 5}, {at: P60D, level: 10}], do: [{emit: "back_{level}"}]}}]}
        0d   ana  order_completed order_id=1 total=10
        30d  ana  expect emits it/back_5 1
        59d  ana  expect emits it 1
        60d  ana  expect emits it/back_10 1
        """,
    ),
)
