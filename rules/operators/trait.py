"""``trait``: what a customer is. Declared traits, those that every profile has, and what was said of the person."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from profiles.moments import DAY_MS, FOREVER, Duration, iso, local, parse_instant
from profiles.people import zone_of
from profiles.state import FACTS, TRAITS, Profile
from rules.compare import NUMERIC, Test, numeric, words
from rules.documents import Node
from rules.entities import day_of, midnight
from rules.facts import Fact
from rules.spec import UNREADABLE, Judged, OperatorSpec, Read, Reader, Reads, RuleExample, Scope, shown
from rules.verdict import NO, Answer, Judge, all_of
from rules.words import Tongue

_AGES = ("older_than", "newer_than")
_NEXT = "within_next"
_ANNIVERSARY = "anniversary_within"
_YEAR_MS = 365 * DAY_MS
QUANTILE = "quantile"
_NUMBERS = ("number", "money", "span")
_DATES = ("before", "after")
_BESIDE = (*_AGES, _NEXT, _ANNIVERSARY, *_DATES, QUANTILE, "exists", "missing")
_ORDERED = ("lt", "lte", "gt", "gte", "between")
_UNORDERED = {"time": "older_than, newer_than, before or after", "text": "eq, ne, in or not_in"}
"""The kinds of traits that are not more or less, and what can be asked of them."""
_OPS = (
    *NUMERIC,
    "contains",
    "contains_any",
    "contains_all",
    "starts_with",
    "ends_with",
    "matches",
    "under",
    "exists",
    "missing",
    QUANTILE,
    *_AGES,
    _NEXT,
    _ANNIVERSARY,
    *_DATES,
)


def _trait(node: Node, scope: Scope) -> Judged:
    named = node.get("trait")
    assert named is not None
    path = named.text()
    reader = scope.reader(path, named)
    judge, text, reads = _judge(node, reader, scope)

    def value(profile: Profile, now_ms: int) -> Any:
        return shown(reader.read(profile, now_ms)[0], reader.kind, scope.currency)

    asked = node.get(QUANTILE)
    share = asked.get("gt") or asked.get("lte") if asked is not None and asked.is_map() else None
    if share is None:
        return Judged("trait", f"{path} {text}", judge, reads, (), value)
    cut = Fraction(share.number())

    def against(profile: Profile, now_ms: int) -> Any:
        """The value, the cut it is compared with, and of which day the facts are."""
        facts = profile.facts
        at = facts.quantile(f"trait:{path}", cut) if facts is not None else None
        known = {"cut": shown(at, reader.kind, scope.currency), "facts_of": iso(facts.as_of_ms)} if facts else {}
        return {"value": value(profile, now_ms), **known}

    return Judged("trait", f"{path} {text}", judge, reads, (), against)


def _judge(node: Node, reader: Reader, scope: Scope) -> tuple[Judge, str, Reads]:
    judges: list[Judge] = []
    reads = reader.reads
    texts: list[str] = []
    for op in (*_AGES, _NEXT, _ANNIVERSARY, *_DATES):
        operand = node.get(op)
        if operand is None:
            continue
        if reader.kind in _NUMBERS:
            operand.wrong(f"{op}: a trait that is a time wanted, got a {reader.kind}")
            judges.append(lambda profile, now_ms: NO)
            continue
        if op == _NEXT:
            judges.append(_soon(reader, operand, scope))
            texts.append(f"within the next {operand.found()}")
            continue
        if op == _ANNIVERSARY:
            judges.append(_anniversary(reader, operand, scope))
            reads |= {("part", TRAITS)}
            texts.append(f"has an anniversary within {operand.found()}")
            continue
        if op in _AGES and operand.is_map():
            judge, age, more = _relative(reader, operand, op, scope)
            reads |= more
            judges.append(judge)
            texts.append(f"{op.replace('_', ' ')} {age}")
            continue
        judges.append(_age(reader, operand, op, scope) if op in _AGES else _date(reader, operand, op))
        texts.append(f"{op.replace('_', ' ')} {operand.found()}")
    ranked = node.get(QUANTILE)
    if ranked is not None:
        judges.append(_ranked(node, reader, ranked, scope))
        texts.append(f"quantile {ranked.found()}")
        reads |= {("part", FACTS)}
    for op in ("exists", "missing"):
        operand = node.get(op)
        if operand is not None:
            judges.append(_there(reader, operand.truth() == (op == "exists")))
            texts.append(op)
    rest = {key: one for key, one in node.items() if key != "trait" and key not in _BESIDE}
    unordered = [op for op in _ORDERED if op in rest and reader.kind in _UNORDERED]
    if unordered:
        wanted = _UNORDERED[reader.kind]
        rest[unordered[0]].wrong(f"{wanted} wanted, for it is a {reader.kind}; got {unordered[0]}")
        judges.append(lambda profile, now_ms: NO)
    elif rest:
        part = Node(rest, node.file, node.line, node.where, node.mistakes)
        if reader.kind in _NUMBERS:
            for op, operand in rest.items():
                if op in _OPS and op not in NUMERIC:
                    operand.wrong(f"one of {', '.join(NUMERIC)} wanted, for it is a {reader.kind}; got {op}")
            test, text, _ = numeric(part, scope.currency if reader.kind == "money" else "")
            judges.append(_compared(reader, test, absent=False))
        else:
            found, text = words(part)
            negative = set(rest) <= {"ne", "not_in"}
            if found is not None:
                judges.append(_compared(reader, found, absent=negative))
        texts.append(text)
    if not judges:
        unknown = [op for op, _ in node.items() if op != "trait" and op not in _OPS]
        if reader is not UNREADABLE and not unknown:  # Of an unknown word, that is told.
            node.wrong(f"a comparison wanted: one of {', '.join(_OPS)}")
        return (lambda profile, now_ms: NO), "?", reads
    return all_of(tuple(judges)), " and ".join(texts), reads


def _compared(reader: Reader, test: Test, absent: bool) -> Judge:
    read, falls = reader.read, reader.falls
    if falls is not None:
        return _falling(read, falls, test, absent)

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        return absent if value is None else test(value), until_ms

    return judge


def _falling(read: Read, falls: Callable[[Profile, int], int], test: Test, absent: bool) -> Judge:
    """Of a number that only falls: the answer stays until it has fallen to the first number of another answer."""

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        if value is None:
            return absent, until_ms
        holds = test(value)
        while value > 0 and test(value - 1) == holds:
            value -= 1
        return holds, falls(profile, value) if value > 0 else FOREVER

    return judge


def _ranked(node: Node, reader: Reader, operand: Node, scope: Scope) -> Judge:
    """``{gt: 0.66}``: greater than what two thirds of the base do not exceed, by the last facts; ``less: 0.05``: or than
    that less 5 %. Without facts there is no answer, and it does not hold."""
    operand.known(("gt", "lte", "less"))
    above, below, less = operand.get("gt"), operand.get("lte"), operand.get("less")
    if (above is None) == (below is None):
        operand.wrong("quantile: one of gt and lte wanted, with a share like 0.66")
        return lambda profile, now_ms: NO
    if reader is not UNREADABLE and reader.kind not in _NUMBERS:
        operand.wrong(f"quantile: a trait that is a number wanted, got a {reader.kind}")
        return lambda profile, now_ms: NO
    share_node = above if above is not None else below
    assert share_node is not None
    share, band = Fraction(share_node.number()), Fraction(less.number()) if less is not None else Fraction(0)
    for one, at in ((share, share_node), (band, less)):
        if at is not None and not 0 <= one < 1:
            at.wrong(f"quantile: a share from 0 to less than 1 wanted, got {at.found()}")
    named = node.get("trait")
    name = f"trait:{named.text()}" if named is not None else ""
    read, wanted = reader.read, above is not None

    def sample(profile: Profile, now_ms: int) -> list[tuple[str, int | Fraction]]:
        value, _ = read(profile, now_ms)
        return [("", value)] if value is not None else []

    scope.fact(Fact(name, sample, (share,)))

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        cut = profile.facts.quantile(name, share) if profile.facts is not None else None
        if value is None or cut is None:
            return False, until_ms
        return (value > cut - abs(cut) * band) == wanted, until_ms

    return judge


def _there(reader: Reader, wanted: bool) -> Judge:
    read = reader.read

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        return (value is not None) == wanted, until_ms

    return judge


def _age(reader: Reader, operand: Node, op: str, scope: Scope) -> Judge:
    age, zone, read, older = operand.duration(), scope.zone, reader.read, op == "older_than"

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        at_ms = instant_of(value)
        if at_ms is None:
            return False, until_ms
        edge_ms = age.after(at_ms, zone)
        if now_ms >= edge_ms:
            return older, until_ms
        return not older, min(edge_ms, until_ms)

    return judge


def _soon(reader: Reader, operand: Node, scope: Scope) -> Judge:
    """A time to come: it holds from that long before it until it is there."""
    ahead, zone, read = operand.duration(), scope.zone, reader.read

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        at_ms = instant_of(value)
        if at_ms is None or now_ms >= at_ms:
            return False, until_ms
        from_ms = ahead.before(at_ms, zone)
        return now_ms >= from_ms, min(until_ms, at_ms if now_ms >= from_ms else from_ms)

    return judge


def _anniversary(reader: Reader, operand: Node, scope: Scope) -> Judge:
    """An anniversary to come: it holds from that long before its day begins until that day is over, where the customer
    is. That of 29 February is on the 28th in other years."""
    ahead, shop, read = operand.duration(), scope.zone, reader.read
    if ahead.about_ms() >= _YEAR_MS:
        operand.wrong(f"anniversary_within: less than a year wanted, got {operand.value}")

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        zone = zone_of(profile, shop)
        day = day_of(value, zone)
        if day is None:
            return False, until_ms
        day_ms = midnight(day, zone)
        nearest = max(1, local(now_ms, zone).year - day.year)
        for years in (nearest, nearest + 1):
            begins_ms = Duration(months=12 * years).after(day_ms, zone)
            ends_ms = Duration(days=1).after(begins_ms, zone)
            if begins_ms == FOREVER:  # Beyond the calendar: people state such days.
                break
            if now_ms < ends_ms:
                from_ms = ahead.before(begins_ms, zone)
                return (True, min(until_ms, ends_ms)) if now_ms >= from_ms else (False, min(until_ms, from_ms))
        return False, until_ms

    return judge


def _relative(reader: Reader, operand: Node, op: str, scope: Scope) -> tuple[Judge, str, Reads]:
    """An age of the customer's own: ``{times: 3, of: gap}``, so many times a span that a trait tells. Without that span
    there is no answer, and it does not hold."""
    operand.known(("times", "of"), required=("times", "of"))
    times_node, of = operand.get("times"), operand.get("of")
    if times_node is None or of is None:
        return (lambda profile, now_ms: NO), "?", frozenset()
    times = Fraction(times_node.number())
    if times <= 0:
        times_node.wrong(f"times: a number above zero wanted, got {times_node.found()}")
    span = scope.reader(of.text(), of)
    if span is not UNREADABLE and span.kind != "span":
        of.wrong(f"a trait that is a length of time wanted, like mean_gap, got a {span.kind}")
    read, length, older = reader.read, span.read, op == "older_than"

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        span_ms, span_until_ms = length(profile, now_ms)
        until_ms, at_ms = min(until_ms, span_until_ms), instant_of(value)
        if at_ms is None or span_ms is None:
            return False, until_ms
        edge_ms = at_ms + math.ceil(span_ms * times)
        if now_ms >= edge_ms:
            return older, until_ms
        return not older, min(edge_ms, until_ms)

    return judge, f"{times_node.found()} × {of.text()}", span.reads


def _date(reader: Reader, operand: Node, op: str) -> Judge:
    try:
        limit_ms = parse_instant(operand.text())
    except ValueError as error:
        operand.wrong(f"{op}: {error}")
        return lambda profile, now_ms: NO
    read = reader.read

    def judge(profile: Profile, now_ms: int) -> Answer:
        value, until_ms = read(profile, now_ms)
        at_ms = instant_of(value)
        if at_ms is None:
            return False, until_ms
        return at_ms < limit_ms if op == "before" else at_ms >= limit_ms, until_ms

    return judge


def instant_of(value: Any) -> int | None:
    """A time as people state it: epoch ms, or ISO text; anything else is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        try:
            return parse_instant(value)
        except ValueError:
            return None
    return None


def _words(rule: dict[str, Any], t: Tongue) -> str:
    name, rest, said = t.trait(rule["trait"]), dict(rule), []
    del rest["trait"]
    for op, wanted in (("older_than", ("at least", "не менее")), ("newer_than", ("less than", "менее"))):
        if op in rest:
            length = rest.pop(op)
            if isinstance(length, dict):
                ago = f"{length.get('times')} × {t.trait(str(length.get('of')))}"
            else:
                ago = t.duration(length, than=True)
            said.append(t.pick(f"{name} was {wanted[0]} {ago} ago", f"{name}: {wanted[1]} {ago} назад"))
    if "within_next" in rest:
        ahead = t.duration(rest.pop("within_next"), than=True)
        said.append(t.pick(f"{name} comes within the next {ahead}", f"{name}: наступит в течение {ahead}"))
    if "anniversary_within" in rest:
        ahead = t.duration(rest.pop("anniversary_within"), than=True)
        said.append(
            t.pick(f"{name} has its anniversary within the next {ahead}", f"{name}: годовщина в течение {ahead}")
        )
    if "quantile" in rest:
        asked = rest.pop("quantile")
        asked = asked if isinstance(asked, dict) else {}
        share = t.value(asked.get("gt", asked.get("lte")))
        less = (
            t.pick(f" (less {t.value(asked['less'])})", f" (минус {t.value(asked['less'])})") if "less" in asked else ""
        )
        if "gt" in asked:
            said.append(
                t.pick(f"{name} is above the base's {share} quantile{less}", f"{name} выше квантиля базы {share}{less}")
            )
        else:
            said.append(
                t.pick(
                    f"{name} is not above the base's {share} quantile{less}",
                    f"{name} не выше квантиля базы {share}{less}",
                )
            )
    for op in ("exists", "missing"):
        if op in rest:
            there = t.there((op == "exists") == (rest.pop(op) is True))
            said.append(t.pick(f"{name} is {there}", f"{name}: {there}"))
    if rest:
        compared = t.compared(rest)
        said.append(t.pick(f"{name} is {compared}", f"{name}: {compared}"))
    return t.pick(" and ", " и ").join(said)


SPEC = OperatorSpec(
    "trait",
    "A trait compares as asked: numbers, texts, lists, whether it is there, how old a time is.",
    _OPS,
    _trait,
    (
        RuleExample(
            "{trait: last_order_at, older_than: P3M}",
            """
            0d   ana  order_completed order_id=1 total=10
            0d   ana  expect out
            2d   ana  order_completed order_id=2 total=10
            100d ana  expect in
            """,
        ),
        RuleExample(
            "{trait: last_order_at, older_than: {times: 3, of: gap}}",
            """
            trait gap = {mean_gap: order}
            0d   ana  order_completed order_id=1 total=10
            10d  ana  order_completed order_id=2 total=10
            10d  ana  expect out, wake 40d
            30d  ana  order_completed order_id=3 total=10
            30d  ana  expect out, wake 75d
            75d  ana  expect in
            """,
        ),
        RuleExample(
            "{trait: custom.visit_at, within_next: P3D}",
            """
            0d   ana  identified custom.visit_at=2026-01-11T00:00:00Z
            0d   ana  expect out, wake 7d
            7d   ana  expect in, wake 10d
            10d  ana  expect out, wake none
            """,
        ),
        RuleExample(
            "{trait: birth_date, anniversary_within: P7D}",
            """
            start 2026-02-20T12:00
            0d                ana  identified birth_date=2000-02-29
            0d                ana  expect out, wake 2026-02-21T00:00
            2026-02-21T00:00  ana  expect in, wake 2026-03-01T00:00
            2026-03-01T00:00  ana  expect out, wake 2027-02-21T00:00
            """,
        ),
        RuleExample(
            "{trait: orders_paid, quantile: {gt: 0.5}}",
            """
            0d  ana  order_completed order_id=1 total=10
            0d  bob  page_viewed
            0d  cat  page_viewed
            1d  ana  expect out
            2d  base facts
            2d  ana  expect in
            2d  bob  expect out
            3d  bob  order_completed order_id=2 total=10
            3d  bob  expect in
            """,
        ),
        RuleExample(
            "{trait: gender, eq: female}",
            """
            0d  ana  identified gender=female
            0d  ana  expect in
            1d  ana  identified gender=male
            1d  ana  expect out
            """,
        ),
    ),
    _words,
)
