"""Documents -> rulebook: every mistake at once, or a rulebook in which each event costs only what it can touch.

What is compiled: declared traits, segments in the order in which they depend on one another, triggers as programs;
the distinct statistics that all of them need; and the index event type -> statistics -> segments -> triggers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, tzinfo
from typing import Any, Final, NamedTuple

import rules.operators
import rules.steps
import rules.triggers
from profiles import greeting
from profiles.aggregates import Aggregate
from profiles.errors import BadDocument, BadInput, Mistake, in_order
from profiles.ids import small_id
from profiles.moments import WEEKDAYS, Duration, zone_named
from profiles.money import to_minor
from profiles.people import CONTACT
from profiles.spec import discover
from profiles.state import COUNTING, PARTS, STATUSES, TRAITS
from profiles.taxonomy import EVENT_TYPES, resolve
from profiles.wire import Event
from rules import members, traits
from rules.assemble import CLASSES, compile_trigger, counting_all
from rules.documents import Node, parse
from rules.facts import Fact, together
from rules.limits import POLICY_PARTS
from rules.predicates import Predicate, conditions
from rules.program import CompiledTrigger, StepSpec, TriggerSpec
from rules.projections import projection
from rules.rulebook import CompiledSegment, Goal, KeptAggregate, Rulebook
from rules.slips import did_you_mean, nearest
from rules.spec import GOAL_REACHED, UNREADABLE, Field, Judged, OperatorSpec, PublishedTrait, Reader
from rules.verdict import NO
from rules.versions import Version, marked
from rules.windows import THE_SHOPS

OPERATORS: Final = {spec.name: spec for spec in discover(rules.operators, OperatorSpec)}
STEPS: Final = {spec.name: spec for spec in discover(rules.steps, StepSpec)}
TRIGGER_KINDS: Final = {spec.name: spec for spec in discover(rules.triggers, TriggerSpec)}
DERIVED: Final = ("session_started", "session_ended")
SEGMENTS_MAX: Final = 5_000
TRIGGERS_MAX: Final = 500
TEMPLATE_MAX: Final = 500

_EVENT_WORDS: Final = (
    *EVENT_TYPES, *DERIVED, "order",
    *(alias for one in EVENT_TYPES.values() for alias in one.aliases if len(alias) >= 8 and " " not in alias),
)  # fmt: skip
_STATUS_WORDS: Final = tuple(f"order_{one}" for one in STATUSES if f"order_{one}" not in EVENT_TYPES)
"""Names that an order's statuses would have, were they events."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}(\.[A-Za-z0-9_]{1,64})?")
_STATED: Final = ("custom", "address", "survey", *CONTACT)
"""What people state by these names is no slip for something else."""
_NOTHING: Final = Judged("nothing", "?", lambda profile, now_ms: NO, frozenset())


def compile_rules(
    files: Sequence[tuple[str, str]], *, zone: str = "", currency: str = "", kept: Sequence[Version] = ()
) -> Rulebook:
    """Compile rule files.

    Args:
        files: (name, YAML text), in the order in which they were found.
        zone, currency: what the installation sets; they go before the files' ``defaults``.
        kept: versions of triggers of before, that journeys may still go by; one that these rules cannot read is left out.
    Raises:
        BadDocument: with every mistake found, each at its file and line.
    """
    tried = tried_rules(files, zone=zone, currency=currency, kept=kept)
    if tried.rulebook is None:
        raise BadDocument(in_order(tried.mistakes))
    return tried.rulebook


class Tried(NamedTuple):
    """What came of rule files, bad ones, too.

    Attributes:
        rulebook: ``None`` of files with a mistake.
        documents: the files, as far as they could be read.
        readers: the traits that could be read.
        filled: template -> its segments, by name.
        mistakes: every mistake found; what is found wrong in the documents later comes to them.
    """

    rulebook: Rulebook | None
    documents: list[Node]
    readers: Mapping[str, Reader]
    filled: Mapping[str, Mapping[str, Node]]
    mistakes: list[Mistake]


def tried_rules(
    files: Sequence[tuple[str, str]], *, zone: str = "", currency: str = "", kept: Sequence[Version] = ()
) -> Tried:
    """The same, of bad files, too. Arguments as of ``compile_rules``."""
    mistakes: list[Mistake] = []
    documents = [node for name, text in files if (node := parse(text, name, mistakes)) is not None]
    compiler = _Compiler(documents, mistakes, zone, currency)
    rulebook = compiler.compiled(kept)
    return Tried(rulebook, documents, compiler.readers, compiler.filled, mistakes)


class _Compiler:
    """The scope that operators compile in (``rules.spec.Scope``)."""

    def __init__(self, documents: list[Node], mistakes: list[Mistake], zone: str, currency: str) -> None:
        self.mistakes = mistakes
        self.unread = any(not one.where for one in mistakes)  # A name that is not found may stand in what YAML refused.
        self.trigger_kinds = TRIGGER_KINDS
        self.steps = STEPS
        self.zone: tzinfo = UTC
        self.zone_name = zone or "UTC"
        self.currency = currency or "USD"
        self.locale = "en"
        self.free_delivery: Node | None = None
        self.free_delivery_minor: int | None = None
        self.week_from = 0
        self.counting: tuple[str, ...] = COUNTING
        self.session_gap = Duration(ms=30 * 60_000)
        self.cart_idle = Duration(ms=2 * 3_600_000)
        self.hash = hashlib.blake2b(digest_size=8)
        self.aggregates: dict[int, KeptAggregate] = {}
        self.readers: dict[str, Reader] = {}
        self.trait_nodes: dict[str, Node] = {}
        self.segment_nodes: dict[str, Node] = {}
        self.stages: dict[str, list[str]] = {}
        self.filled: dict[str, dict[str, Node]] = {}
        self.ordered: set[str] = set()  # of these the ones that are partitions
        self.segments: dict[str, CompiledSegment] = {}
        self.under_way: list[str] = []
        self.declared: set[str] = set()
        self.under_way_traits: list[str] = []
        self.trigger_nodes: dict[str, Node] = {}
        self.goal_nodes: dict[str, Node] = {}
        self.projection_nodes: dict[str, Node] = {}
        self.policies: dict[str, Node] = {}
        self.lists: dict[str, Node] = {}
        self.goals: dict[str, Goal] = {}
        self.undeclared: dict[str, Node] = {}  # traits that people are said to have, where they are asked first
        self.set: set[str] = set()
        self.fields: dict[str, Field] = {}
        self.published: dict[str, PublishedTrait] = {}
        self.line_keeps: set[str] = set()
        self.wanted: list[Fact] = []
        self.families: dict[str, Callable[[str], Reader]] = {}
        for document in documents:
            self._sort_out(document, zone, currency)
        for name, node in list(self.segment_nodes.items()):
            kind = node.get("kind")
            if kind is not None and kind.value == "stages":
                self._stages(name, node)
            elif kind is None and node.get("template") is not None:
                self._template(name, node)
        try:
            self.zone = zone_named(self.zone_name)
        except ValueError as error:
            mistakes.append(Mistake(documents[0].file if documents else "", 1, "defaults/zone", str(error)))

    def compiled(self, kept: Sequence[Version]) -> Rulebook | None:
        if self.free_delivery is not None:
            self.free_delivery_minor = to_minor(self.free_delivery.number(), self.currency)
            if self.free_delivery_minor <= 0:
                self.free_delivery.wrong(f"an amount above 0 wanted, got {self.free_delivery.found()}")
        self.readers = traits.built_in(self, self.cart_idle)
        for name, node in self.goal_nodes.items():
            self._goal(name, node)
        for name in self.trait_nodes:
            self._declare(name)
        for name in self.segment_nodes:
            self._segment(name)
        projections = {name: projection(name, node, self) for name, node in self.projection_nodes.items()}
        made = [compile_trigger(name, node, self) for name, node in self.trigger_nodes.items()]
        triggers = {one.name: one for one in made if one is not None}
        undeclared = {path: node for path, node in self.undeclared.items() if path not in (*traits.SAID, *self.set)}
        doubted = self._doubted(undeclared)
        earlier = self._earlier(kept) if not self.mistakes else {}
        triggers, earlier = counting_all(triggers, earlier)
        self._no_clashes()
        if self.mistakes:
            return None
        return Rulebook(
            hash=self.hash.hexdigest(),
            zone=self.zone,
            zone_name=self.zone_name,
            currency=self.currency,
            locale=self.locale,
            session_gap_ms=self.session_gap.ms,
            segments=tuple(self.segments.values()),
            aggregates=tuple(self.aggregates.values()),
            triggers=triggers,
            readers=self.readers,
            declared=tuple(self.trait_nodes),
            goals=tuple(self.goals.values()),
            fields=self.fields,
            line_keeps=tuple(sorted(self.line_keeps)),
            earlier=earlier,
            counting=self.counting,
            published=tuple(self.published.values()),
            projections=projections,
            wanted=together(self.wanted),
            undeclared=tuple(sorted(undeclared.keys() - doubted.keys())),
            doubted=tuple(in_order(doubted.values())),
        )

    def _doubted(self, undeclared: Mapping[str, Node]) -> dict[str, Mistake]:
        """Of traits that nobody declares those that look like a slip of one that is known."""
        known = sorted({*self.readers, *self.fields, *self.set, *traits.SAID})
        found = {}
        for path, node in undeclared.items():
            if meant := traits.meant(path, known):
                told = f"nobody declares the trait {path!r}; did you mean {meant!r}?"
                found[path] = Mistake(node.file, node.line, node.where, told)
        return found

    def _earlier(self, kept: Sequence[Version]) -> dict[tuple[str, str], CompiledTrigger]:
        self.hash.update(marked(kept))
        found: dict[tuple[str, str], CompiledTrigger] = {}
        for one in kept:
            mistakes: list[Mistake] = []
            node = parse(one.document, one.trigger, mistakes)
            trigger = compile_trigger(one.trigger, node, self, enters=False) if node is not None else None
            if trigger is not None and not mistakes:
                found[one.trigger, one.revision] = replace(trigger, revision=one.revision)
        return found

    # --- documents -> names -------------------------------------------------------------------------------------

    def _sort_out(self, document: Node, zone: str, currency: str) -> None:
        document.known(
            ("defaults", "policies", "lists", "goals", "traits", "segments", "triggers", "projections", "says")
        )
        self.hash.update(json.dumps(document.plain(), sort_keys=True, default=str).encode())
        defaults = document.get("defaults")
        if defaults is not None and defaults.value is not None:
            self._defaults(defaults, zone, currency)
        for name, node in document.part("policies"):
            if name not in CLASSES:
                node.wrong(f"policies: of {' and '.join(CLASSES)} only, got {name!r}{did_you_mean(name, CLASSES)}")
            if name in self.policies:
                node.wrong(f"{name!r} is already defined at {self.policies[name].file}:{self.policies[name].line}")
            node.known((*POLICY_PARTS, "says"))
            self.policies[name] = node
        for name, node in document.part("lists"):
            if name in self.lists:
                node.wrong(f"{name!r} is already defined at {self.lists[name].file}:{self.lists[name].line}")
            self.lists[name] = node
        for key, into in (
            ("goals", self.goal_nodes),
            ("traits", self.trait_nodes),
            ("segments", self.segment_nodes),
            ("triggers", self.trigger_nodes),
            ("projections", self.projection_nodes),
        ):
            for name, node in document.part(key):
                is_field = key == "traits" and node.get("said") is not None
                if not (_FIELD if is_field else _NAME).fullmatch(name):
                    node.wrong(f"a name of small letters, digits and _ wanted, got {name!r}")
                if name in into:
                    known = into[name]
                    node.wrong(f"{name!r} is already defined at {known.file}:{known.line}")
                    continue
                into[name] = node
        if len(self.segment_nodes) > SEGMENTS_MAX:
            document.wrong(f"at most {SEGMENTS_MAX} segments wanted, got {len(self.segment_nodes)}")
        if len(self.trigger_nodes) > TRIGGERS_MAX:
            document.wrong(f"at most {TRIGGERS_MAX} triggers wanted, got {len(self.trigger_nodes)}")

    def _defaults(self, node: Node, zone: str, currency: str) -> None:
        node.known(
            ("zone", "currency", "locale", "week_start", "session_gap", "cart_idle", "free_delivery_from", "orders")
        )
        zone_node, currency_node, locale = node.get("zone"), node.get("currency"), node.get("locale")
        if zone_node is not None and not zone and zone_node.value not in THE_SHOPS:
            self.zone_name = zone_node.text()
            try:
                zone_named(self.zone_name)
            except ValueError as error:
                zone_node.wrong(str(error))
                self.zone_name = "UTC"
        if currency_node is not None and not currency:
            self.currency = currency_node.text()
        free_from = node.get("free_delivery_from")
        if free_from is not None:
            self.free_delivery = free_from
        if locale is not None:
            self.locale = locale.choice(tuple(greeting.TEXTS))
        week_start = node.get("week_start")
        if week_start is not None:
            self.week_from = WEEKDAYS.index(week_start.choice(WEEKDAYS))
        gap, idle = node.get("session_gap"), node.get("cart_idle")
        if gap is not None:
            self.session_gap = Duration(ms=gap.length_ms("PT30M"))
        if idle is not None:
            self.cart_idle = idle.duration()
        counting = node.get("orders")
        if counting is not None:
            counting.known(("status_in",), required=("status_in",))
            self.counting = tuple(one.choice(STATUSES) for one in counting.get("status_in") or ()) or COUNTING

    def _stages(self, name: str, node: Node) -> None:
        """An ordered partition: the first stage whose rule holds. Each becomes the segment ``name.stage``."""
        node.known(("kind", "stages", "says", "zone"), required=("stages",))
        zone = node.get("zone")
        if zone is not None:
            zone.choice(THE_SHOPS)
        del self.segment_nodes[name]
        self.stages[name] = []
        self.ordered.add(name)
        stages = node.get("stages")
        for one in stages if stages is not None else ():
            one.known(("name", "when"), required=("name", "when"))
            stage, when = one.get("name"), one.get("when")
            if stage is None or when is None:
                continue
            # Whoever is in no earlier stage meets no earlier rule: a look at the memberships says it all.
            rules_ = [when.made({"not": when.made({"in_segment": when.made(one)})}) for one in self.stages[name]]
            if when.value != "otherwise":
                rules_.append(when)
            if when.value == "otherwise" and one is not list(stages or ())[-1]:
                when.wrong("`otherwise` comes last: after it there is nobody left")
                continue
            if not _NAME.fullmatch(stage.text()):
                stage.wrong(f"a name of small letters, digits and _ wanted, got {stage.text()!r}")
            full = f"{name}.{stage.text()}"
            if full in self.segment_nodes:
                stage.wrong(f"stage {stage.text()!r} stands twice")
                continue
            self.segment_nodes[full] = one.made({"all": one.made(rules_)})
            self.stages[name].append(full)
        last = list(stages)[-1].get("when") if stages is not None and stages.value else None
        if stages is not None and (last is None or last.value != "otherwise"):
            stages.wrong("the last stage must be `when: otherwise`, so that everybody is in one")

    def _declare(self, name: str, asked: Node | None = None) -> None:
        """Compile a declared trait once, wherever it stands; one may be made of others, but not in a ring."""
        if name in self.declared:
            return
        if name in self.under_way_traits:
            ring = [*self.under_way_traits[self.under_way_traits.index(name) :], name]
            assert asked is not None
            asked.wrong(f"traits in a ring: {' → '.join(ring)}")
            return
        self.under_way_traits.append(name)
        found = traits.declared(name, self.trait_nodes[name], self)
        self.under_way_traits.pop()
        self.declared.add(name)
        self.readers.update(found)

    def _template(self, name: str, node: Node) -> None:
        """One segment for each value of a list, ``name.value``; what stands as ``{value}`` in the rule is that value."""
        node.known(("template", "when", "says"), required=("when",))
        del self.segment_nodes[name]
        self.stages[name] = []
        template, when, says = node.get("template"), node.get("when"), node.get("says")
        assert template is not None
        template.known(("over",), required=("over",))
        over = template.get("over")
        if over is None or when is None:
            return
        values = self.lists.get(over.value, over) if isinstance(over.value, str) else over
        if isinstance(values.value, str):
            over.wrong(
                f"a list of values, or one of `lists` wanted, got {over.found()}{did_you_mean(values.value, self.lists)}"
            )
            return
        pairs = values.items() if values.is_map() else [(one.text(), one) for one in values]
        if len(self.segment_nodes) + len(pairs) > SEGMENTS_MAX:
            over.wrong(f"at most {SEGMENTS_MAX} segments wanted, got more")
            return
        if not 0 < len(pairs) <= TEMPLATE_MAX:
            over.wrong(f"1 to {TEMPLATE_MAX} values wanted, got {len(pairs)}")
            return
        if len(pairs) > 1 and when.plain() == _filled(when, "").plain():
            when.wrong(f"'{{value}}' wanted somewhere in the rule, or all segments of {name!r} are the same")
        filled = self.filled[name] = dict[str, Node]()
        for label, value in pairs:
            full = f"{name}.{label}"
            if not _NAME.fullmatch(label):
                value.wrong(f"a name of small letters, digits and _ wanted, got {label!r}; `name: value` gives it one")
            elif full in self.segment_nodes:
                value.wrong(f"value {label!r} stands twice")
            else:
                parts = {"when": when, **({"says": says} if says is not None else {})}
                self.segment_nodes[full] = filled[full] = _filled(node.made(parts), value.text())
                self.stages[name].append(full)

    # --- the scope ----------------------------------------------------------------------------------------------

    def rule(self, node: Node) -> Judged:
        if not node.is_map():
            node.wrong(f"a rule wanted, like {{did: order}}, got {node.found()}")
            return _NOTHING
        named = [key for key in node.value if key in OPERATORS]
        if not named:
            first = next(iter(node.value), "")
            if not first:
                node.wrong("a rule wanted, like {did: order}, got an empty one")
                return _NOTHING
            meant = did_you_mean(first, OPERATORS) or f"; one of {', '.join(OPERATORS)} wanted"
            node.wrong(f"unknown operator {first!r}{meant}")
            return _NOTHING
        if len(named) > 1:
            node.wrong(f"one operator wanted, got {' and '.join(named)}; join rules with `all` or `any`")
            return _NOTHING
        spec = OPERATORS[named[0]]
        node.known((spec.name, *spec.keys))
        return spec.compile(node, self)

    def reader(self, path: str, node: Node) -> Reader:
        if any(sign in path for sign in "<>="):
            node.wrong(
                f"a trait's name wanted, and comparisons beside it, like {{trait: orders_paid, gte: 3}}; got {path!r}"
            )
            return UNREADABLE
        root = path.partition(".")[0]
        for name in (path, root):
            if name in self.trait_nodes:
                self._declare(name, node)
        reader = self.readers.get(path)
        if reader is not None:
            return reader
        if root in self.ordered and root not in self.trait_nodes and path in (root, f"{root}.entered_at"):
            stages = tuple(self.segment(stage, node) for stage in self.stages[root])
            self.readers.update(members.stage(root, stages))
            return self.readers[path]
        if root in self.families and path != root:
            self.readers[path] = self.families[root](path.partition(".")[2])
            return self.readers[path]
        if root not in self.trait_nodes and (found := traits.on_demand(path, self)):
            self.readers.update(found)
            return found[path]
        if path in self.trait_nodes:
            return UNREADABLE  # It is wrong, or has parts: the mistake is told there.
        parts = [known for known in self.readers if known.startswith(f"{root}.")]
        if parts and (root in self.trait_nodes or root in ("cart", "session")):
            node.wrong(f"unknown trait {path!r}{did_you_mean(path, self.readers)}")
            return UNREADABLE
        close = did_you_mean(path, self.readers)
        if close and root not in _STATED:
            node.wrong(f"unknown trait {path!r}{close} (a trait of your own goes as custom.{path})")
            return UNREADABLE
        self.undeclared.setdefault(path, node)
        return traits.said(path)

    def declaration(self, path: str, node: Node) -> Node:
        if path in self.trait_nodes:
            return self.trait_nodes[path]
        if path not in traits.DECLARED:
            node.wrong(f"a trait that is worked out wanted, got {path!r}{did_you_mean(path, self.trait_nodes)}")
        return node.made({kind: node.made(of) for kind, of in traits.DECLARED.get(path, {"count": "order"}).items()})

    def worked_out(self, declaration: Node) -> Reader:
        return traits.declared("", declaration, self).get("", UNREADABLE)

    def aggregate(
        self,
        kind: Aggregate,
        types: tuple[str, ...],
        key: str,
        values: Callable[[Event], list[Any]],
        bound: int,
        quiet_below: int = 0,
    ) -> int:
        agg = small_id(f"{kind.name}|{key}|{bound}")
        known = self.aggregates.get(agg)
        if known is None:
            bit = 1 << (PARTS + len(self.aggregates))
            self.aggregates[agg] = KeptAggregate(
                agg, bit, f"{kind.name}|{key}|{bound}", types, kind.add, kind.merge, values, bound, quiet_below
            )
        elif quiet_below < known.quiet_below:
            self.aggregates[agg] = replace(known, quiet_below=quiet_below)
        return agg

    def keep_of_lines(self, names: Iterable[str]) -> None:
        self.line_keeps.update(names)

    def event_types(self, node: Node) -> tuple[str, ...]:
        found: list[str] = []
        for one in node:
            if not isinstance(one.value, str):
                one.wrong(f"an event type wanted, got {one.found()}")
                continue
            name = one.value
            if name in DERIVED:
                found.append(name)
            elif (known := _known_type(name)) is not None:
                found.append(known)  # Also by another name of it, GA4's for instance.
            elif not _NAME.fullmatch(name):
                one.wrong(f"an event type wanted, got {one.found()}")
            else:
                # A shop has events of its own: only what is hardly another word is taken for a slip.
                close = did_you_mean(name, _EVENT_WORDS, alike=0.8)
                if nearest(name, _STATUS_WORDS, alike=0.85):
                    close = "; `did: order` counts those paid, with `status_in: [shipped]` others; the change is order_status_changed"
                if close:
                    one.wrong(f"unknown event type {name!r}{close}")
                found.append(name)  # An event of the shop's own.
        return tuple(sorted(set(found)))

    def goal(self, name: str, node: Node) -> str:
        if name not in self.goals and name not in self.goal_nodes:
            known = _known_type(name)
            if known is None or known == GOAL_REACHED:
                self._not_found("goal", name, node, did_you_mean(name, self.goal_nodes))
            else:
                self.goals[name] = Goal(name, (known,), None)
        return name

    def looks_of(self, goal: str) -> tuple[Mapping[str, Predicate | None], str]:
        found, node = self.goals.get(goal), self.goal_nodes.get(goal)
        said = str(node.plain()) if node is not None else goal
        return (dict.fromkeys(found.types, found.where) if found is not None else {}), said

    def stated(self, path: str, node: Node) -> Field | None:
        reader = self.reader(path, node)
        self.set.add(path)
        field = self.fields.get(path)
        if field is None and reader is not UNREADABLE:
            known = {path, path.partition(".")[0]} & self.trait_nodes.keys()
            if known or reader.reads != frozenset({("part", TRAITS)}):
                node.wrong(f"a trait that is said of people wanted, got {path!r}, which is worked out")
        return field

    def family(self, name: str, part: Callable[[str], Reader]) -> None:
        self.families[name] = part

    def fact(self, fact: Fact) -> None:
        self.wanted.append(fact)

    def publish(self, readers: Mapping[str, Reader]) -> None:
        for name, reader in readers.items():
            self.published[name] = PublishedTrait(name, small_id(f"published|{name}"), reader)

    def field(self, field: Field) -> None:
        self.fields[field.path] = field

    def segment(self, name: str, node: Node) -> str:
        if not name and node.value != "":
            return name  # No text: that is told.
        if name not in self.segment_nodes:
            stages = self.stages.get(name)
            hint = f"; its segments are {', '.join(stages)}" if stages else did_you_mean(name, self.segment_nodes)
            self._not_found("segment", name, node, hint)
            return name
        if name in self.under_way:
            ring = [*self.under_way[self.under_way.index(name) :], name]
            node.wrong(f"segments in a ring: {' → '.join(ring)}")
            return name
        self._segment(name)
        return name

    def made_segment(self, name: str, rule: Node, node: Node) -> str:
        if name in self.segment_nodes and self.segment_nodes[name].plain() == rule.plain():
            return name  # Brought before, by another that asks the same.
        if name in self.segment_nodes:
            node.wrong(
                f"brings the segment {name!r}, which is already defined at {self.segment_nodes[name].file}:{self.segment_nodes[name].line}"
            )
        self.segment_nodes[name] = rule
        self._segment(name)
        return name

    def trigger(self, name: str, node: Node) -> str:
        if name not in self.trigger_nodes:
            self._not_found("trigger", name, node, did_you_mean(name, self.trigger_nodes))
        return name

    def _not_found(self, what: str, name: str, node: Node, hint: str) -> None:
        if not self.unread:
            node.wrong(f"unknown {what} {name!r}{hint}")

    # --- goals --------------------------------------------------------------------------------------------------

    def _goal(self, name: str, node: Node) -> None:
        node.known(("event", "where", "says"), required=("event",))
        event = node.get("event")
        types = self.event_types(event) if event is not None else ()
        if event is not None and GOAL_REACHED in types:
            event.wrong("a goal of goals is none: another event wanted")
            types = ()
        where, _ = conditions(node.get("where"), types, currency=self.currency)
        self.goals[name] = Goal(name, types, where)

    # --- segments -----------------------------------------------------------------------------------------------

    def _segment(self, name: str) -> None:
        if name in self.segments or name in self.under_way:
            return
        node = self.segment_nodes[name]
        self.under_way.append(name)
        kind, says, when, stays = (node.get(key) for key in ("kind", "says", "when", "stays_while"))
        is_static = kind is not None and kind.choice(("stages", "static")) == "static"
        if when is not None and not is_static:
            node.known(("when", "stays_while", "says", "kind"))
        if is_static:
            judged = members.static(name, node, self)
        else:
            judged = self.rule(when if when is not None else node)
        if when is not None and stays is not None:
            judged = members.staying(name, judged, self.rule(stays))
        self.under_way.pop()
        if any(what == "runs" for what, _ in judged.reads):
            node.wrong("`live` goes in a trigger's `when`, not in a segment")
        self.segments[name] = CompiledSegment(
            name=name,
            id=small_id(name),
            judge=judged.judge,
            judged=judged,
            says=says.text() if says is not None else "",
            rule=node.plain(),
            is_static=is_static,
        )

    def _no_clashes(self) -> None:
        seen: dict[int, str] = {}
        names = [
            *self.segments,
            *(kept.key for kept in self.aggregates.values()),
            *(f"published|{name}" for name in self.published),
        ]
        for name in names:
            other = seen.setdefault(small_id(name), name)
            if other != name:
                self.mistakes.append(Mistake("", 1, name, f"has the short id of {other!r}: rename one"))


def _filled(node: Node, value: str) -> Node:
    """The same with that value wherever ``{value}`` stands."""
    inside = node.value
    if isinstance(inside, dict):
        inside = {key: _filled(one, value) for key, one in inside.items()}
    elif isinstance(inside, list):
        inside = [_filled(one, value) for one in inside]
    elif isinstance(inside, str):
        inside = inside.replace("{value}", value)
    return node.made(inside)


def _known_type(name: str) -> str | None:
    """The canonical name of an event type that we know, by any of its names."""
    try:
        known = resolve(name).name
    except BadInput:
        return None
    return known if known in EVENT_TYPES else None
