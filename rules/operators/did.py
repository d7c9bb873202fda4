"""``did`` and ``did_not``: what a customer did, how often, for how much, how lately (``rules/windows.py``).

Without a measure, ``did`` means at least once. Several measures of one ``did`` must all hold. ``did_not`` is also true of
people younger than its window, unless ``known_for`` asks for an age.
"""

from __future__ import annotations

from typing import Any

from profiles.state import SEEN, Profile
from rules.documents import Node
from rules.kept import measured
from rules.series import MEASURES, SOURCE_KEYS, source_of
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import NO, YES, Answer, all_of, always, negated
from rules.windows import Window, nowhere
from rules.words import Tongue


def _did(node: Node, scope: Scope) -> Judged:
    return _compiled(node, scope, "did")[0]


def _did_not(node: Node, scope: Scope) -> Judged:
    child, window = _compiled(node, scope, "did_not")
    judge = negated(child.judge)
    if window is not None and window.relative:
        places = window.places
        judge = all_of((lambda profile, now_ms: always(places(profile) is not nowhere), judge))
    reads = child.reads
    known_for = node.get("known_for")
    if known_for is not None:
        age = known_for.duration()
        zone = scope.zone

        def known(profile: Profile, now_ms: int) -> Answer:
            if not profile.first_seen_ms:
                return NO
            old_enough_ms = age.after(profile.first_seen_ms, zone)
            return YES if now_ms >= old_enough_ms else (False, old_enough_ms)

        judge = all_of((known, judge))
        reads = reads | {("part", SEEN)}
    return Judged("did_not", f"not: {child.text}", judge, reads, (), child.value, child.events)


def _compiled(node: Node, scope: Scope, name: str) -> tuple[Judged, Window | None]:
    named = node.get(name)
    assert named is not None
    source = source_of(named, node, scope)
    text = f"{'order' if source.is_order else ' or '.join(source.types)}"
    if source.window is not None:
        text += f" {source.window}"
    judges = []
    reads = frozenset[tuple[str, Any]]()
    values: dict[str, Any] = {}
    events = None
    asked = [measure for measure in MEASURES if node.get(measure) is not None]
    if not asked:
        once = Node(
            {"gte": Node(1, node.file, node.line, node.where, node.mistakes)},
            node.file,
            node.line,
            node.where,
            node.mistakes,
        )
        judge, reads, _, values["times"], events, _ = measured("times", once, source, scope)
        judges.append(judge)
    for measure in asked:
        wanted = node.get(measure)
        assert wanted is not None
        judge, more, said, values[measure], told, _ = measured(measure, wanted, source, scope)
        judges.append(judge)
        events = events or told
        reads |= more
        text += f", {said}"

    def value(profile: Profile, now_ms: int) -> Any:
        found = {measure: read(profile, now_ms) for measure, read in values.items()}
        return found if len(found) > 1 else next(iter(found.values()))

    return Judged(name, text, all_of(tuple(judges)), reads, (), value, events), source.window


_MEASURED = {
    "times": ("times", "раз"), "distinct_days": ("different days", "разных дней"), "distinct": ("different {}", "разных {}"),
    "sum": ("sum of {}", "сумма {}"), "avg": ("average of {}", "среднее {}"), "min": ("least {}", "наименьшее {}"),
    "max": ("greatest {}", "наибольшее {}"), "first": ("first {}", "первое {}"), "last": ("last {}", "последнее {}"),
}  # fmt: skip


def _words_did(rule: dict[str, Any], t: Tongue) -> str:
    return _happened(rule, "did", t)


def _words_did_not(rule: dict[str, Any], t: Tongue) -> str:
    said = t.pick("not: ", "не было: ") + _happened(rule, "did_not", t)
    if "known_for" in rule:
        known = t.duration(rule["known_for"], than=True)
        said += t.pick(f", known for at least {known}", f", известен не менее {known}")
    return said


def _happened(rule: dict[str, Any], name: str, t: Tongue) -> str:
    said = [t.events(rule[name])]
    for key, (english, russian) in (("where", ("where ", "где ")), ("item", ("with items: ", "с товарами: "))):
        if key in rule:
            said.append(t.pick(english, russian) + t.conditions(rule[key]))
    if "status_in" in rule:
        said.append(t.pick("status ", "статус ") + t.value(rule["status_in"]))
    for measure, (english, russian) in _MEASURED.items():
        if measure in rule:
            asked = rule[measure]
            field = asked.get("field", "") if isinstance(asked, dict) else ""
            said.append(f"{t.pick(english, russian).format(field)}: {t.compared(asked)}")
    if rule.get("per") == "item":
        said.append(t.pick("each item by itself", "каждый товар отдельно"))
    if "window" in rule:
        said.append(t.window(rule["window"]))
    return ", ".join(said)


SPEC = (
    OperatorSpec(
        "did",
        "The customer did it: at least once, or as often, as much and as lately as asked.",
        (*SOURCE_KEYS, *MEASURES),
        _did,
        (
            RuleExample(
                "{did: product_viewed, window: {within: P14D}, times: {gte: 2}}",
                """
                0d   ana  product_viewed
                0d   ana  expect out
                1d   ana  product_viewed
                1d   ana  expect in, wake 14d
                14d  ana  expect out
                """,
            ),
            RuleExample(
                "{did: order, window: {calendar: this_month}}",
                """
                start 2026-01-31T12:00
                0h   ana  order_completed order_id=1 total=60
                0h   ana  expect in, wake 12h
                12h  ana  expect out
                """,
            ),
            RuleExample(
                "{did: order, window: {within: {times: 2, of: gap}}}",
                """
                trait gap = {mean_gap: order}
                0d   ana  order_completed order_id=1 total=60
                0d   ana  expect out, wake none
                10d  ana  order_completed order_id=2 total=60
                10d  ana  expect in, wake 30d
                30d  ana  expect out
                """,
            ),
            RuleExample(
                "{did: page_viewed, window: {calendar: last_month, zone: profile}, times: {gte: 2}}",
                """
                start 2026-02-28T12:00
                0h                   ana  page_viewed
                1h                   ana  page_viewed
                1h                   ana  expect out, wake 2026-03-01T00:00
                2026-03-01T00:00     ana  expect in, wake 2026-04-01T00:00
                2026-03-02T00:00     ana  identified timezone=Asia/Tokyo
                2026-03-02T00:00     ana  expect in, wake 2026-03-31T15:00
                2026-03-31T15:00     ana  expect out
                """,
            ),
            RuleExample(
                "{did: order, window: {between: [P30D, P60D]}}",
                """
                0d   ana  order_completed order_id=1 total=60
                0d   ana  expect out, wake 30d
                30d  ana  expect in, wake 60d
                60d  ana  expect out
                """,
            ),
            RuleExample(
                "{did: order, window: {between: [2026-01-02, 2026-01-03]}}",
                """
                0d           ana  order_completed order_id=1 total=60
                0d           ana  expect out
                2d23h59m59s  ana  order_completed order_id=2 total=60
                2d23h59m59s  ana  expect in, wake none
                """,
            ),
            RuleExample(
                "{did: product_viewed, window: {since_last: order}, times: {gte: 2}}",
                """
                0d  ana  product_viewed
                1d  ana  product_viewed
                1d  ana  expect in
                2d  ana  order_completed order_id=1 total=10
                2d  ana  expect out
                3d  ana  order_cancelled order_id=1
                3d  ana  expect in
                """,
            ),
            RuleExample(
                "{did: product_viewed, item: [{category: tools}], window: {session: current}}",
                """
                0m   ana  product_viewed product=a category=tools
                0m   ana  expect in
                30m  ana  expect out
                40m  ana  page_viewed
                40m  ana  expect out
                """,
            ),
            RuleExample(
                "{did: order, sum: {field: total, gte: 100}}",
                """
                0d  ana  order_completed order_id=1 total=60
                0d  ana  expect out
                1d  ana  order_completed order_id=2 total=40
                1d  ana  expect in
                2d  ana  order_refunded order_id=2 amount=0.01
                2d  ana  expect out
                """,
            ),
        ),
        words=_words_did,
    ),
    OperatorSpec(
        "did_not",
        "The customer did not do it. `known_for` leaves out people whom we know for less long.",
        (*SOURCE_KEYS, *MEASURES, "known_for"),
        _did_not,
        (
            RuleExample(
                "{did_not: order, window: {within: P30D}, known_for: P30D}",
                """
                0d   ana  page_viewed
                0d   ana  expect out, wake 30d
                30d  ana  expect in
                31d  ana  order_completed order_id=1 total=10
                31d  ana  expect out, wake 61d
                61d  ana  expect in
                """,
            ),
        ),
        words=_words_did_not,
    ),
)
