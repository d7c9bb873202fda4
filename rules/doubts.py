"""What a rule file says that nobody can mean: rules that compile, and that nobody or everybody fits (SPEC D9).

    segments/vip.yaml:4: vip/all/2: nobody fits this and {trait: orders_paid, gt: 3} (line 3)

Told are contradictions, branches and stages that nobody reaches, branches that add nobody, rules that everybody fits,
and gaps and overlaps of stages. What is told is certain, and not all that is wrong is told: a rule is taken as sets of
values (``rules.ranges``) of the traits and counts that it compares, whatever else it asks being unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any, Final

from profiles.errors import BadDocument, Mistake, in_order
from profiles.moments import parse_duration
from rules.compare import NUMERIC, normal, under
from rules.compile import OPERATORS, tried_rules
from rules.documents import Node
from rules.predicates import CUSTOM, MACHINE
from rules.ranges import (
    ANYTHING,
    BOXES_MAX,
    COUNTS,
    EVERYBODY,
    NOBODY,
    NUMBERS,
    YES_OR_NO,
    Boxes,
    Cut,
    Subject,
    TooMany,
    Values,
    both,
    covers,
    next_whole,
    none_of,
    numbers,
    where,
)
from rules.rulebook import Rulebook
from rules.series import MEASURES
from rules.spec import Reader

_NUMBER_KINDS: Final = ("number", "money", "span")
_BESIDE: Final = (
    "trait",
    "exists",
    "missing",
    "older_than",
    "newer_than",
    "within_next",
    "anniversary_within",
    "before",
    "after",
)
"""What stands beside the comparison of a trait's value."""
_LOOKS: Final = ("where", "item", "event")
"""What holds conditions on one thing; ``event`` in the branches of a trigger, else it is a name."""
_COUNTS: Final = ("times", "distinct", "distinct_days")


def checked_rules(files: Sequence[tuple[str, str]], *, zone: str = "", currency: str = "") -> Rulebook:
    """Compile rule files, and refuse also what is doubtful. Arguments as of ``compile_rules``.

    Raises:
        BadDocument: with every mistake and every doubt.
    """
    tried = tried_rules(files, zone=zone, currency=currency)
    looking = Looking(tried.documents, tried.readers, tried.filled, tried.mistakes)
    for document in tried.documents:
        for part in ("goals", "traits", "segments", "triggers"):
            for name, node in _entries(document.get(part)):
                looking.look(part, name, node)
    if tried.mistakes or tried.rulebook is None:
        raise BadDocument(in_order(tried.mistakes))
    return tried.rulebook


def _entries(node: Node | None) -> list[tuple[str, Node]]:
    return node.items() if node is not None and node.is_map() else []


class Looking:
    """All documents of a generation, and what was found out of their segments.

    Args:
        readers: the traits that they name.
        filled: the segments of their templates.
        mistakes: what is wrong in them; of a rule with a mistake in it nothing is known.
    """

    def __init__(
        self,
        documents: list[Node],
        readers: Mapping[str, Reader],
        filled: Mapping[str, Mapping[str, Node]],
        mistakes: Sequence[Mistake] = (),
    ) -> None:
        self.readers = readers
        self.filled = filled
        self.wrong = [(one.file, f"{one.where}/") for one in mistakes if one.where]
        self.nodes = {name: node for document in documents for name, node in _entries(document.get("segments"))}
        for segments in filled.values():
            self.nodes |= segments
        self.known: dict[str, Boxes] = {}

    def look(self, part: str, name: str, node: Node) -> None:
        """Tell what is doubtful in a goal, trait, segment or trigger."""
        told = len(node.mistakes)
        for one in self.filled.get(name, {}).values() if part == "segments" else ():
            self.look(part, "", one)
            if len(node.mistakes) > told:
                return  # Of the other values it would be the same.
        if node.get("template") is not None and part == "segments":
            return
        self._looks(node)
        if part == "triggers":
            for rule in _rules_in(node):
                self.walk(rule)
        elif part != "segments":
            return
        elif _is(node.get("kind"), "static"):
            formed = node.get("formed_from")
            if formed is not None and formed.is_map():
                self.walk(formed)
        elif _is(node.get("kind"), "stages"):
            self.stages(node)
        elif node.get("kind") is None:
            when, stays = node.get("when"), node.get("stays_while")
            self.walk(when if when is not None else node)
            if stays is not None:
                self.walk(stays)

    # --- rules as boxes -----------------------------------------------------------------------------------------

    def fits(self, node: Node) -> Boxes:
        """Whom a rule fits, as far as it can be told."""
        try:
            return self._fits(node)
        except TooMany:
            return _unknown(node)

    def _fits(self, node: Node) -> Boxes:
        op = next((name for name in OPERATORS if node.get(name) is not None), "")
        inside = node.get(op)
        if inside is None or self._is_wrong(node):
            return _unknown(node)
        if op == "all":
            found = EVERYBODY
            for one in inside:
                found = both(found, self.fits(one))
            return found
        if op == "any":
            return [box for one in inside for box in self.fits(one)]
        if op == "not":
            return none_of(self.fits(inside))
        if op == "some" and (least := _least(node)) > 0:
            return _at_least(least, [self.fits(one) for one in inside])
        if op == "trait":
            return self._trait(node, inside)
        if op == "did":
            return self._did(node, op)
        if op == "did_not" and node.get("known_for") is None:
            return none_of(self._did(node, op))
        if op == "in_segment":
            known = self._segment(inside.text())
            return known if node.get("for") is None else both(known, _unknown(node))
        return _unknown(node)

    def _is_wrong(self, node: Node) -> bool:
        return any(file == node.file and where.startswith(f"{node.where}/") for file, where in self.wrong)

    def _segment(self, name: str) -> Boxes:
        known = self.known.get(name)
        if known is None:
            node = self.nodes.get(name)
            if node is None or any(node.get(key) is not None for key in ("kind", "template", "stays_while")):
                known = where(Subject(("segment", name), YES_OR_NO), _YES)  # A stage, or one that remembers.
            else:
                when = node.get("when")
                known = self.fits(when if when is not None else node)
            self.known[name] = known
        return known

    def _trait(self, node: Node, named: Node) -> Boxes:
        path = named.text()
        reader = self.readers.get(path)
        kind = reader.kind if reader is not None else "any"
        is_number = kind in _NUMBER_KINDS
        subject = Subject(("trait", path), NUMBERS if is_number else ANYTHING)
        found = EVERYBODY
        negative = all(op in (*_BESIDE, "ne", "not_in") for op, _ in node.items())
        for op, operand in node.items():
            if op == "trait":
                continue
            found = both(found, _compared(subject, op, operand, absent=negative and not is_number))
        return found

    def _did(self, node: Node, op: str) -> Boxes:
        beside = (op, *MEASURES, "known_for")
        chosen = {"": _plain(node.get(op)), **{key: one.plain() for key, one in node.items() if key not in beside}}
        source = json.dumps(chosen, default=str, sort_keys=True)
        asked = [measure for measure in MEASURES if node.get(measure) is not None]
        if not asked:
            return where(Subject(("did", source, "times", ""), COUNTS, True), numbers("gte", [Fraction(1)]))
        found = EVERYBODY
        for measure in asked:
            wanted = node.get(measure)
            assert wanted is not None
            name = ("did", source, measure, _plain(wanted.get("field")))
            subject = Subject(name, COUNTS, True) if measure in _COUNTS else Subject(name)
            for key, operand in wanted.items() if wanted.is_map() else [("eq", wanted)]:
                if key != "field":
                    found = both(found, _compared(subject, key, operand, absent=False))
        return found

    # --- what is told -------------------------------------------------------------------------------------------

    def walk(self, node: Node) -> Boxes:
        """Tell what is doubtful in a rule, innermost first; whom it fits."""
        inside = node.get("all")
        if inside is not None:
            return self._walk_all(node, list(inside))
        inside = node.get("any")
        if inside is not None:
            return self._walk_any(node, list(inside))
        inside = node.get("not")
        if inside is not None:
            self.walk(inside)
            return self.fits(node)
        inside = node.get("some")
        if inside is not None:
            return self._walk_some(node, list(inside))
        found = self.fits(node)
        if not found:
            node.wrong(f"nobody can ever fit {written(node)}")
        elif found == EVERYBODY:
            node.wrong(f"everybody fits {written(node)}, always")
        return found

    def _walk_all(self, node: Node, children: list[Node]) -> Boxes:
        each = [self.walk(one) for one in children]
        try:
            together = EVERYBODY
            for place, (child, boxes) in enumerate(zip(children, each, strict=True)):
                rest = together
                together = both(together, boxes)
                if not together and boxes and rest:
                    against = next(
                        (one for one, b in zip(children[:place], each, strict=False) if not both(b, boxes)), None
                    )
                    told = (
                        f"{written(against)} (line {against.line})" if against is not None else "what stands before it"
                    )
                    child.wrong(f"nobody fits this and {told}")
                    return NOBODY
            for place, child in enumerate(children):
                self._dead_branches(child, [boxes for at, boxes in enumerate(each) if at != place])
            return together
        except TooMany:
            return _unknown(node)

    def _dead_branches(self, child: Node, beside: list[Boxes]) -> None:
        branches = child.get("any") or child.get("some")
        if branches is None:
            return
        rest = EVERYBODY
        for boxes in beside:
            rest = both(rest, boxes)
        for branch in branches:
            boxes = self.fits(branch)
            if boxes and rest and not both(rest, boxes):
                branch.wrong("nobody gets into this branch: it contradicts what is asked beside it")

    def _walk_any(self, node: Node, children: list[Node]) -> Boxes:
        each = [self.walk(one) for one in children]
        try:
            for place, (child, boxes) in enumerate(zip(children, each, strict=True)):
                for other, (against, larger) in enumerate(zip(children, each, strict=True)):
                    if other == place or not boxes or not larger or not covers(larger, boxes):
                        continue
                    if other > place and covers(boxes, larger):
                        continue  # The same: it is told of the later one.
                    child.wrong(f"adds nobody: whoever fits it fits {written(against)} (line {against.line})")
                    break
            found = [box for boxes in each for box in boxes]
            if len(children) > 1 and covers(found, EVERYBODY) and EVERYBODY not in each:
                node.wrong("everybody fits one of these, always")
            return found
        except TooMany:
            return _unknown(node)

    def _walk_some(self, node: Node, children: list[Node]) -> Boxes:
        each, found = [self.walk(one) for one in children], self.fits(node)
        least = 0 if self._is_wrong(node) else _least(node)
        if not found and all(each):
            node.wrong(f"nobody can ever fit {least} of these")
        try:
            if covers(found, EVERYBODY) and EVERYBODY not in each:
                node.wrong(f"everybody fits {least} of these, always")
            for place, (child, boxes) in enumerate(zip(children, each, strict=True)):
                others = [*each[:place], *each[place + 1 :]]
                if found and boxes and not both(boxes, _at_least(least - 1, others)):
                    child.wrong(f"never one of {least}: it contradicts too many of the others")
        except TooMany:
            pass
        return found

    def _looks(self, node: Node) -> None:
        """Tell conditions on one thing that nothing can meet together."""
        if self._is_wrong(node):
            return
        if isinstance(node.value, list):
            for one in node:
                self._looks(one)
        for key, one in node.items() if node.is_map() else ():
            if key in _LOOKS and not asked(one):
                one.wrong(f"nothing is all of this at once: {written(one)}{_either(one)}")
            else:
                self._looks(one)

    def stages(self, node: Node) -> None:
        """Stages that nobody reaches, and gaps and overlaps of those that stand on one number."""
        stages = node.get("stages")
        before: list[tuple[str, Node, Boxes]] = []
        whole = True
        for one in stages if stages is not None else ():
            name, when = one.get("name"), one.get("when")
            if name is None or when is None:
                continue
            if self._is_wrong(when):
                whole = False
                continue
            boxes = EVERYBODY if when.value == "otherwise" else self.walk(when)
            try:
                earlier = [box for _, _, known in before for box in known]
                if boxes and covers(earlier, boxes):
                    when.wrong(
                        f"nobody reaches the stage {name.text()!r}: the stages before it take everybody who fits"
                    )
                elif when.value != "otherwise":
                    self._overlap(name.text(), when, boxes, before)
            except TooMany:
                pass
            before.append((name.text(), when, boxes))
        if whole:
            self._gaps([(name, when, boxes) for name, when, boxes in before if when.value != "otherwise"])

    def _overlap(self, name: str, when: Node, boxes: Boxes, before: list[tuple[str, Node, Boxes]]) -> None:
        mine = _line_of(boxes)
        for other, at, theirs in before:
            line = _line_of(theirs)
            if mine is None or line is None or mine[0] != line[0]:
                continue
            shared = both(boxes, theirs)
            if shared and not covers(theirs, boxes) and not covers(boxes, theirs):
                when.wrong(
                    f"overlaps the stage {other!r} (line {at.line}), which takes those whom both fit: make the borders meet"
                )

    def _gaps(self, stages: list[tuple[str, Node, Boxes]]) -> None:
        spans: list[tuple[Cut, Cut, Node]] = []
        subjects = set()
        for _, when, boxes in stages:
            line = _line_of(boxes)
            if line is None:
                return
            subjects.add(line[0])
            spans += [(low, high, when) for low, high in line[1].spans]
        if len(subjects) != 1:
            return
        spans.sort(key=lambda one: one[:2])
        end = spans[0][1]
        for low, high, when in spans[1:]:
            # Of a number that is always whole, nothing lies between 4 and 5.
            if next_whole(*end) < low:
                when.wrong(f"a gap: from {_number(end[0])} to {_number(low[0])} nobody is in any stage but `otherwise`")
            end = max(end, high)


_YES: Final = Values(others=frozenset({True}))


def _at_least(least: int, each: list[Boxes]) -> Boxes:
    """Whom so many of these fit. Raises as ``both`` does."""
    so_many = [EVERYBODY, *[NOBODY] * least]
    for boxes in each:
        for count in range(least, 0, -1):
            more = both(so_many[count - 1], boxes)
            so_many[count] = (
                EVERYBODY if {} in more else [*so_many[count], *(one for one in more if one not in so_many[count])]
            )
            if len(so_many[count]) > BOXES_MAX:
                raise TooMany
    return so_many[least]


def _least(node: Node) -> int:
    """How many of ``some``; 0 where that is not said well."""
    least = node.get("at_least")
    return least.value if least is not None and type(least.value) is int else 0


def asked(where_: Node | None) -> Boxes:
    """What an entity, an event or an item can be of which this is asked, as far as it can be told."""
    found = EVERYBODY
    paths = [wanted.value for name, wanted in _conditions(where_) if name == "category" and _is_word(wanted.value)]
    if any(not under(a, b) and not under(b, a) for a, b in combinations(paths, 2)):
        return NOBODY
    try:
        for name, wanted in _conditions(where_):
            found = both(found, _condition(name.removeprefix(CUSTOM), wanted))
    except TooMany:
        return EVERYBODY
    return found


def _conditions(where_: Node | None) -> list[tuple[str, Node]]:
    return [pair for one in where_ if one.is_map() for pair in one.items()] if where_ is not None else []


def _condition(name: str, wanted: Node) -> Boxes:
    """One condition (``rules.predicates``); of what a machine did nothing is known, for `true` is any of its words."""
    subject = Subject(name)
    if name in (MACHINE, "category") or wanted.value is None:
        return _unknown(wanted.made({name: wanted}))
    if not wanted.is_map():
        return _compared(subject, "in", wanted, absent=False)
    found, missing = EVERYBODY, Values(absent=True)
    for op, operand in wanted.items():
        if op != "exists":
            found = both(found, _compared(subject, op, operand, absent=False))
    there = wanted.get("exists")
    is_there = both(found, where(subject, missing.without())) if there is None or there.value is True else NOBODY
    may_miss = all(op in ("ne", "not_in", "exists") for op in wanted.value) and (
        there is None or there.value is not True
    )
    return is_there + where(subject, missing) if may_miss else is_there


def _either(where_: Node) -> str:
    """How to ask for one of several values, where that may be meant."""
    plain: dict[str, list[str]] = {}
    for name, wanted in _conditions(where_):
        if not isinstance(wanted.value, dict | list):
            plain.setdefault(name, []).append(written(wanted))
    name = next((name for name, values in plain.items() if len(values) > 1), "")
    return f"; one of them goes as {{{name}: [{', '.join(plain[name])}]}}" if name else ""


def _is_word(value: Any) -> bool:
    """Whether it is a text that stands for itself: ``$v.product_id`` is whatever that is."""
    return isinstance(value, str) and not value.startswith("$")


def _line_of(boxes: Boxes) -> tuple[Subject, Values] | None:
    """The subject and its numbers, where a rule speaks of one subject's numbers only."""
    if len(boxes) != 1 or len(boxes[0]) != 1:
        return None
    [(subject, values)] = boxes[0].items()
    return (subject, values) if values.spans and not (values.others or values.all_but or values.absent) else None


def _compared(subject: Subject, op: str, operand: Node, absent: bool) -> Boxes:
    """One comparison of one subject."""
    if op == "exists" or op == "missing":
        there = (op == "exists") == (operand.value is True)
        nothing = Values(absent=True)
        return where(subject, nothing.without() if there else nothing)
    if op in ("older_than", "newer_than"):
        return _aged(subject, op, operand)
    given = [one.value for one in operand]
    if op in NUMERIC and all(_is_number(one) for one in given):
        if op in ("ne", "not_in"):
            return where(subject, _but(given, absent))
        return where(subject, numbers(op, [Fraction(one) for one in given]))
    if op in ("eq", "in") and all(_is_word(one) or isinstance(one, bool) for one in given):
        return where(subject, Values(others=frozenset(given)))
    if op in ("ne", "not_in") and all(_is_word(one) or isinstance(one, bool) for one in given):
        return where(subject, _but(given, absent))
    return where(Subject((subject.name, op, json.dumps(_plain(operand), default=str)), YES_OR_NO), _YES)


def _but(given: Iterable[Any], absent: bool) -> Values:
    """Everything but these."""
    known = [normal(one) for one in given]
    inside = Values(
        numbers("in", [one for one in known if isinstance(one, Fraction)]).spans,
        frozenset(one for one in known if not isinstance(one, Fraction)),
        absent=not absent,
    )
    return inside.without()


def _aged(subject: Subject, op: str, operand: Node) -> Boxes:
    """Ages compare where both are months, or both are not: how long a month is, is nobody's to say."""
    try:
        age = parse_duration(str(operand.value))
    except ValueError:
        return _unknown(operand)
    if age.months and (age.days or age.ms):
        return _unknown(operand)
    unit, length = ("months", age.months) if age.months else ("ms", age.about_ms())
    aged = Subject((subject.name, "age", unit), NUMBERS)
    return where(aged, numbers("gte" if op == "older_than" else "lt", [Fraction(length)]))


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool | str) and isinstance(normal(value), Fraction)


def _unknown(node: Node) -> Boxes:
    """A rule of which nothing is known but that it is the same wherever it is written the same."""
    return where(Subject(("rule", json.dumps(node.plain(), default=str, sort_keys=True)), YES_OR_NO), _YES)


def _is(node: Node | None, word: str) -> bool:
    return node is not None and node.value == word


def _plain(node: Node | None) -> Any:
    return node.plain() if node is not None else None


def _rules_in(trigger: Node) -> Iterator[Node]:
    """The rules of a trigger: its ``when``, and those of its branches."""
    pending = [node for name, node in trigger.items() if name in ("when", "steps")]
    if trigger.get("when") is not None:
        yield pending.pop([name for name, _ in trigger.items() if name in ("when", "steps")].index("when"))
    while pending:
        node = pending.pop(0)
        if isinstance(node.value, list):
            pending = [*node.value, *pending]
        elif node.is_map():
            for arm in node.get("branch") or ():
                if (condition := arm.get("if")) is not None:
                    yield condition
            pending = [*(one for _, one in node.items()), *pending]


def written(node: Node) -> str:
    """A rule on one line, as YAML has it."""
    value = node.value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    return str(value)


def _number(number: Fraction | float) -> str:
    return str(int(number)) if number == int(number) else f"{float(number):g}"
