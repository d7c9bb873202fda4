"""Scenarios: a history as text, the time in front, run through ``step`` on a clock of its own.

    segment lapsed = {trait: last_order_at, older_than: P30D}
    0d    ana  order_completed order_id=1 total=10
    0d    ana  expect out, wake 30d
    10d   ana  order_completed order_id=2 total=10
    30d   ana  expect out, wake 40d
    40d   ana  expect in, entered 40d

Head lines name rules of the scenario's own: ``segment NAME = RULE``, ``trait``, ``goal``, ``trigger NAME = …``,
``defaults = …``, ``policies = …`` in YAML's one-line form, and ``start INSTANT`` (2026-01-01T00:00 unless said). Every other line is
``TIME WHO WHAT``; ``#`` begins a remark.

TIME is how long after the start (``36h``, ``1d2h30m``, or ISO 8601 with a calendar, ``P3M2DT23H59M``) or an instant
(``2026-03-29T02:30``, in the rules' zone). WHO is a customer (``ana`` is the address ``user:ana``; ``anon:x`` itself); of ``product_updated`` it does not matter.

WHAT is an event's name with what its sender would have written, ``total=60 currency=USD``; each ``product=mug``
begins an item, to which ``qty=2 price=12.5 category=… brand=… name=… amount=…`` after it belong. On ``identified``,
``registered`` and ``logged_in`` what is written are traits. Of the envelope: ``late=2h`` (it happened that long ago),
``campaign.source=ads`` (and medium, name …), ``message=m1``, ``source=web``, ``id=anon:x,email:y`` (other addresses), ``trusted=true``, ``backfill=true``.

Or WHAT is ``expect`` and, parted by commas, what must be so at that instant, with all alarms up to it fired:

    in [SEGMENT], out [SEGMENT]           of the one segment of the scenario unless named
    segments A, B  | segments none        exactly these; the last on its line
    wake TIME | wake none                 when that segment is judged again, if no event comes
    alarm TIME | alarm none               when anything of this profile is due
    entered [SEGMENT] TIME, left …        the instant that its last change record says
    changes [SEGMENT] N                   change records so far
    trait_changes PATH N                  changes of a published trait so far
    emits TRIGGER[/TEMPLATE] N            trigger records so far
    tasks TRIGGER N                       tasks so far
    coupons TRIGGER N                     coupons issued so far
    audience DEST/NAME in | out           by what was told on `audiences` last
    suppressed TRIGGER REASON [N]         decisions so far, 1 unless said
    trait PATH VALUE | trait PATH none    a list as a|b
    outcome WORD                          of this customer's last input: applied, duplicate, held, forwarded

``TIME base facts`` lets everybody be looked at, and everybody know at that instant what was found.

Between lines every alarm fires at its very instant. After each input the profile is stored and loaded again, and
events and commands go through their wire form, so a scenario also proves these.
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any, Final, NamedTuple

import orjson

from profiles import codec
from profiles.catalogue import PRODUCT_UPDATED, Catalogue, decode_product, encode_product, news_event, updated
from profiles.errors import BadInput, OpportuneError
from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, iso, parse_duration
from profiles.money import decimal_of, to_minor
from profiles.state import Profile
from profiles.taxonomy import EVENT_TYPES, canonical, resolve
from profiles.undo import Undo, pack_undo, read_undo
from profiles.wire import (
    AUDIENCES,
    COUPONS,
    DECISIONS,
    PROFILE_COMMANDS,
    SEGMENT_CHANGES,
    TASKS,
    TRAIT_CHANGES,
    TRIGGERS_PREFIX,
    Command,
    Event,
    Record,
    Wake,
    decode_command,
    decode_event,
    encode_command,
    encode_event,
)
from rules.compile import compile_rules
from rules.engine import step, swept
from rules.facts import FACTS_KEPT, Scan
from rules.outcome import REFUSED, Step
from rules.rulebook import Rulebook

START: Final = "2026-01-01T00:00"

_HEAD = re.compile(r"(segment|trait|trigger|goal)\s+([\w.]+)\s*=\s*(.+)")
_DEFAULTS = re.compile(r"(defaults|policies)\s*=\s*(.+)")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_SPAN_MS: Final = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_ITEM_KEYS: Final = {
    "product": "product_id", "qty": "quantity", "quantity": "quantity", "price": "price", "category": "category",
    "brand": "brand", "name": "name", "amount": "amount", "sku": "sku", "url": "url", "image_url": "image_url", "measure": "measure",
    "consumption_days": "consumption_days",
}  # fmt: skip
_ENVELOPE: Final = ("late", "message", "source", "id", "trusted", "backfill")
_SAYS_TRAITS: Final = ("identified", "registered", "logged_in")
_WAKES_MAX: Final = 100_000


class ScenarioFailed(OpportuneError):
    """Expectations that did not hold, all of them, each at its line."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        super().__init__("\n" + "\n".join(str(failure) for failure in failures))


class BadScenario(OpportuneError):
    """A line that says nothing we know; the message says where, what was wanted and what was found."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One expectation that did not hold: its line (from 1), its text, and what was found."""

    line: int
    text: str
    found: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}: {self.found}"


class Published(NamedTuple):
    """A record that went out: when (logical), and what."""

    at_ms: int
    record: Record
    value: dict[str, Any]


class World:
    """The shell's duties in miniature: inputs in the order of time, alarms, commands, profiles kept as bytes.

    Args:
        rulebook: the generation in force.
        now_ms: the clock's start.
    """

    def __init__(self, rulebook: Rulebook, now_ms: int) -> None:
        self.rulebook = rulebook
        self.now_ms = now_ms
        self.profiles: dict[str, Profile] = {}
        self.published: list[Published] = []
        self.decided: list[tuple[str, str, str]] = []  # (address, trigger, outcome)
        self.outcome: dict[str, str] = {}
        self.receipts: dict[str, dict[str, Any]] = {}
        self.erased: list[tuple[str, dict[str, Any]]] = []  # (address, what was told of it)
        self.log: list[tuple[str, Event | Command]] = []  # every input but wakes, with whom it reached
        self.undo: dict[str, list[tuple[Undo, int]]] = {}  # address -> (merge, how long the log was then)
        self.wakes = 0
        self.goods = Catalogue()

    def profile(self, address: str) -> Profile:
        """What the address holds; a new profile for one never seen."""
        known = self.profiles.get(address)
        if known is None:
            known = self.profiles[address] = Profile(address)
        self.rulebook.lend(known)
        return known

    def happen(self, event: Event) -> Step:
        """Take one event now; alarms before it must have been fired (``until``)."""
        sent = decode_event(encode_event(event))
        if sent.type == PRODUCT_UPDATED:
            return self._restock(sent)
        sent.seen_ms = self.now_ms
        return self._take(event.address, sent)

    def _restock(self, event: Event) -> Step:
        """The shop says something of a product."""
        product, news = updated(self.goods.products.get(event.props["product_id"]), event)
        self.goods.put(decode_product(product.product_id, encode_product(product)))
        for one in news:
            if one.type in self.rulebook.news:
                for address in [who for who, it in self.profiles.items() if product.product_id in it.interest]:
                    told = news_event(product, one, event)
                    told.address = address
                    self.happen(told)
        return Step()

    def tell(self, command: Command) -> Step:
        """Take an operator's command now; alarms before it must have been fired (``until``)."""
        sent = decode_command(encode_command(command))
        sent.seen_ms = self.now_ms
        return self._take(command.address, sent)

    def until(self, now_ms: int, *, with_it: bool) -> None:
        """Let time pass: fire every alarm before ``now_ms`` (and those at it), each at its own instant."""
        assert now_ms >= self.now_ms, f"time goes on: {iso(self.now_ms)} or later wanted, got {iso(now_ms)}"
        for _ in range(_WAKES_MAX):
            due = [(ms, address) for address, one in self.profiles.items() if (ms := one.alarm_ms()) is not None]
            if not due or min(due)[0] >= now_ms + with_it:
                self.now_ms = now_ms
                return
            due_ms, address = min(due)
            self.now_ms = max(self.now_ms, due_ms)
            self.wakes += 1
            self._take(address, Wake(due_ms))
            after_ms = self.profiles[address].alarm_ms()
            # A late event may leave a timer in the past; but a fired one is gone.
            assert after_ms != due_ms, f"alarm of {address} at {iso(due_ms)} fires for ever"
        raise AssertionError(f"{_WAKES_MAX} wakes at most wanted, got more")

    def learn(self) -> None:
        """Look at everybody, and let everybody know at this instant what the base is like."""
        scan = Scan(self.rulebook.wanted, self.now_ms)
        for _, profile in sorted(self.profiles.items()):
            self.rulebook.lend(profile)
            scan.look(profile)
        number = self.rulebook.facts[-1].number + 1 if self.rulebook.facts else 1
        self.rulebook = self.rulebook.with_facts((*self.rulebook.facts[1 - FACTS_KEPT :], scan.found(number)))
        for address in sorted(self.profiles):
            self._take(address, swept(address, number, self.now_ms))

    def members(self, address: str) -> list[str]:
        """The segments that the address is in, by name."""
        held = self.profile(address).members
        return sorted(segment.name for segment in self.rulebook.segments if segment.id in held)

    def _take(self, address: str, given: Event | Wake | Command) -> Step:
        told: deque[tuple[str, Event | Wake | Command]] = deque([(address, given)])
        first: Step | None = None
        while told:
            address, given = told.popleft()
            profile = self.profile(address)
            if not isinstance(given, Wake):
                self.log.append((address, given))
            done = step(profile, given, self.rulebook, goods=self.goods)
            if done.parted or done.erased is not None:
                self.undo.pop(address, None)
            self.undo.setdefault(address, []).extend((read_undo(pack_undo(one)), len(self.log)) for one in done.undo)
            first = first or done
            self.outcome[address] = done.outcome
            blob = codec.encode(profile)
            self.profiles[address] = codec.decode(address, blob)
            assert codec.encode(self.profiles[address]) == blob, "a profile loaded is the profile stored"
            for record in done.records:
                if record.topic == PROFILE_COMMANDS:
                    asked = decode_command(record.value)
                    asked.seen_ms = self.now_ms
                    told.append((asked.address, asked))
                    continue
                self.published.append(Published(self.now_ms, record, orjson.loads(record.value)))
            self.decided.extend((address, trigger, word) for trigger, word in done.decisions)
            for command_id, refusal in done.refusals:
                self.receipts.setdefault(command_id, orjson.loads(refusal))
            for command_id, receipt in done.receipts:
                if self.receipts.get(command_id, {"outcome": REFUSED})["outcome"] == REFUSED:
                    self.receipts[command_id] = orjson.loads(receipt)
            if done.erased is not None:
                self.erased.append((address, done.erased))
            for command in done.commands:
                sent = decode_command(encode_command(command))
                sent.seen_ms = self.now_ms
                told.append((sent.address, sent))
        assert first is not None
        return first


@dataclass
class Run:
    """A scenario that was run.

    Attributes:
        world: profiles and all that was published.
        failures: expectations that did not hold.
        expected: how many there were.
    """

    world: World
    start_ms: int
    failures: list[Failure] = field(default_factory=list)
    expected: int = 0

    def sent(self, trigger: str) -> list[dict[str, Any]]:
        """The trigger records that went out, oldest first."""
        topic = TRIGGERS_PREFIX + trigger
        return [one.value for one in self.world.published if one.record.topic == topic]

    def decisions(self, trigger: str) -> list[dict[str, Any]]:
        """The decisions about a trigger, oldest first."""
        return [
            one.value
            for one in self.world.published
            if one.record.topic == DECISIONS and one.value["trigger"] == trigger
        ]

    def trait_changes(self, trait: str, address: str) -> list[tuple[Any, Any, int]]:
        """(before, after, offset from the start in ms) of a published trait's changes at an address, oldest first."""
        return [
            (one.value["before"], one.value["after"], one.at_ms - self.start_ms)
            for one in self.world.published
            if one.record.topic == TRAIT_CHANGES and (one.value["trait"], one.record.key) == (trait, address)
        ]

    def changes(self, segment: str) -> list[tuple[str, int]]:
        """(entered or exited, offset from the start in ms) of a segment's changes, oldest first."""
        return [
            (one.value["change"], one.at_ms - self.start_ms)
            for one in self.world.published
            if one.record.topic == SEGMENT_CHANGES and one.value["segment"] == segment
        ]


def check(text: str, files: Iterable[tuple[str, str]] = (), name: str = "scenario") -> Run:
    """Run a scenario; every expectation must hold.

    Args:
        text: the scenario.
        files: rule files (name, YAML text) that are in force beside the scenario's own rules.
        name: what messages call it.
    Raises:
        ScenarioFailed: with all that did not hold.
        BadScenario: a line that cannot be read.
        BadDocument: mistakes in the rules.
    """
    done = run(text, files, name)
    if done.failures:
        raise ScenarioFailed(done.failures)
    return done


def run(
    text: str,
    files: Iterable[tuple[str, str]] = (),
    name: str = "scenario",
    *,
    zone: str = "",
    currency: str = "",
) -> Run:
    """Run a scenario and gather what does not hold. Raises as ``check`` does, but for ``ScenarioFailed``.

    Args:
        zone, currency: what the installation sets; they go before the rules' ``defaults``.
    """
    return _Script(text, list(files), name, zone, currency).run()


class _Script:
    """One scenario being read and run."""

    def __init__(self, text: str, files: list[tuple[str, str]], name: str, zone: str, currency: str) -> None:
        self.name = name
        self.rules: list[str] = []
        self.start = START
        self.own: list[str] = []
        self.lines: list[tuple[int, str]] = []
        self.sent = 0
        for number, raw in enumerate(text.splitlines(), start=1):
            line = re.sub(r"(^|\s)#.*$", "", raw).strip()
            if line:
                self._sort_out(number, line)
        in_force = [*files, *((name, text) for text in self.rules)]
        self.rulebook = compile_rules(in_force, zone=zone, currency=currency)
        start_ms = self._instant(self.start)
        if start_ms is None:
            raise self._bad(f"an instant like {START} wanted after start, got {self.start!r}")
        self.start_ms = start_ms

    def run(self) -> Run:
        """Every line in turn."""
        world = World(self.rulebook, self.start_ms)
        done = Run(world, self.start_ms)
        for number, line in self.lines:
            self.number = number
            words = line.split(None, 2)
            if len(words) < 3:
                raise self._bad(f"TIME WHO WHAT wanted, got {line!r}")
            now_ms, address, what = self._time(words[0]), _address(words[1]), words[2]
            if now_ms < world.now_ms:
                raise self._bad(f"{iso(world.now_ms)} or later wanted, got {iso(now_ms)}: lines go on in time")
            if line.split(None, 1)[1].split() == ["base", "facts"]:
                world.until(now_ms, with_it=True)
                world.learn()
            elif what.split()[0] == "expect":
                world.until(now_ms, with_it=True)
                done.expected += 1
                for wanted, found in self._expect(done, address, what.removeprefix("expect").strip()):
                    done.failures.append(Failure(number, wanted, found))
            else:
                world.until(now_ms, with_it=False)
                world.happen(self._event(what, address, now_ms))
        return done

    # --- reading ------------------------------------------------------------------------------------------------

    def _sort_out(self, number: int, line: str) -> None:
        head = _HEAD.fullmatch(line)
        defaults = _DEFAULTS.fullmatch(line)
        if head:
            kind, name, rule = head.groups()
            self._rules(number, f"{kind}s: {{{name}: {rule}}}")
            if kind == "segment":
                self.own.append(name)
        elif defaults:
            self._rules(number, f"{defaults[1]}: {defaults[2]}")
        elif line.startswith("start "):
            self.start = line.removeprefix("start ").strip()
        else:
            self.lines.append((number, line))

    def _rules(self, number: int, text: str) -> None:
        # A file of its own, so far down that a mistake in it is told at the scenario's own line.
        self.rules.append("\n" * (number - 1) + text)

    def _bad(self, message: str) -> BadScenario:
        return BadScenario(f"{self.name}:{getattr(self, 'number', 1)}: {message}")

    def _instant(self, text: str) -> int | None:
        """An ISO instant; without a zone it is the rules'. ``None``: it is none."""
        try:
            wall = datetime.fromisoformat(text)
        except ValueError:
            return None
        if wall.tzinfo is None:
            wall = wall.replace(tzinfo=self.rulebook.zone)
        return round(wall.timestamp() * 1000)

    def _time(self, text: str) -> int:
        if text.startswith("P"):
            try:
                return parse_duration(text).after(self.start_ms, self.rulebook.zone)
            except ValueError as error:
                raise self._bad(f"a time wanted: {error}") from None
        at_ms = self._instant(text) if "-" in text else None
        return at_ms if at_ms is not None else self.start_ms + self._span(text)

    def _span(self, text: str) -> int:
        parts = _SPAN.findall(text)
        if not parts or "".join(count + unit for count, unit in parts) != text:
            raise self._bad(f"a time like 36h, 1d12h, P3M or 2026-03-29T02:30 wanted, got {text!r}")
        return int(sum(Fraction(count) * _SPAN_MS[unit] for count, unit in parts))

    # --- events -------------------------------------------------------------------------------------------------

    def _event(self, what: str, address: str, now_ms: int) -> Event:
        name, *pairs = shlex.split(what)
        event_type = resolve(name)
        envelope: dict[str, str] = {}
        campaign: dict[str, str] = {}
        said: dict[str, Any] = {}
        items: list[dict[str, Any]] = []
        for pair in pairs:
            key, sign, text = pair.partition("=")
            if not sign:
                raise self._bad(f"key=value wanted, got {pair!r}")
            if key in _ENVELOPE:
                envelope[key] = text
            elif key.startswith("campaign."):
                campaign[key.removeprefix("campaign.")] = text
            elif key == "product":
                items.append({"product_id": text})
            elif items and key in _ITEM_KEYS:
                items[-1][_ITEM_KEYS[key]] = _value(text)
            else:
                said[key] = _value(text)
        traits: dict[str, Any] = {}
        if event_type.name in _SAYS_TRAITS:
            for path, value in said.items():
                root, dot, part = path.partition(".")
                if dot:
                    traits.setdefault(root, {})[part] = value
                else:
                    traits[root] = value
            said = {}
        try:
            props = canonical(event_type, self._sent(event_type.name, event_type.payload.model_fields, said, items))
        except BadInput as error:
            raise self._bad(str(error)) from None
        self.sent += 1
        late_ms = self._span(envelope["late"]) if "late" in envelope else 0
        return Event(
            message_id=envelope.get("message", f"m{self.sent}"),
            source=envelope.get("source", "scenario"),
            type=event_type.name,
            at_ms=now_ms - late_ms,
            received_ms=now_ms,
            address=address,
            identifiers=tuple(_address(one) for one in envelope.get("id", "").split(",") if one),
            props=props,
            traits=traits,
            context={"campaign": campaign} if campaign else {},
            trusted=envelope.get("trusted") == "true",
            backfill=envelope.get("backfill") == "true",
        )

    def _sent(
        self, name: str, fields: dict[str, Any], said: dict[str, Any], items: list[dict[str, Any]]
    ) -> dict[str, Any]:
        sent = dict(said)
        if items:
            sent["items"] = items
        elif name in EVENT_TYPES and EVENT_TYPES[name].examples and "items" in EVENT_TYPES[name].examples[0].props:
            if name.startswith("product_"):
                sent["items"] = [{"product_id": "p"}]  # About which product is all one here.
            elif name == "cart_set":
                sent["items"] = []
        if "currency" in fields:
            sent.setdefault("currency", self.rulebook.currency)
        return sent

    # --- expectations -------------------------------------------------------------------------------------------

    def _expect(self, done: Run, address: str, text: str) -> list[tuple[str, str]]:
        failures: list[tuple[str, str]] = []
        if not text:
            raise self._bad("in, out, segments, wake, emits … wanted after expect, got nothing")
        asked, _, rest = text.partition("segments ")
        self.segment = self.own[-1] if self.own else ""
        for one in [part.strip() for part in asked.split(",") if part.strip()]:
            found = self._found(done, address, one.split())
            if found is not None:
                failures.append((one, found))
        if rest:
            wanted = sorted(name.strip() for name in rest.split(",") if name.strip() != "none")
            known = {segment.name for segment in self.rulebook.segments}
            if not set(wanted) <= known:
                raise self._bad(f"segments that are defined wanted, got {', '.join(sorted(set(wanted) - known))}")
            members = done.world.members(address)
            if members != wanted:
                failures.append((f"segments {', '.join(wanted) or 'none'}", f"in {', '.join(members) or 'none'}"))
        return failures

    def _found(self, done: Run, address: str, words: list[str]) -> str | None:
        """What was found instead; ``None`` when it is as expected."""
        world, what, args = done.world, words[0], words[1:]
        profile = world.profile(address)
        if what in ("in", "out"):
            name = self._segment(args)
            held = name in world.members(address)
            since = profile.members.get(self._id(name))
            return None if held == (what == "in") else f"in since {iso(since)}" if since is not None else "out"
        if what in ("wake", "alarm"):
            due_ms = profile.alarm_ms() if what == "alarm" else profile.timers.get(self._id(self._segment([])))
            return self._same(due_ms, self._one(what, args))
        if what in ("entered", "left"):
            name, when = self._segment(args[:-1]), self._one(what, args[-1:])
            word = "entered" if what == "entered" else "exited"
            times = [
                one.value["at"]
                for one in world.published
                if one.record.topic == SEGMENT_CHANGES
                and one.record.key == address
                and (one.value["segment"], one.value["change"]) == (name, word)
            ]
            wanted = iso(self._time(when))
            return None if times and times[-1] == wanted else f"{word} {times[-1] if times else 'never'}, not {wanted}"
        if what == "changes":
            name, count = self._segment(args[:-1]), self._one(what, args[-1:])
            changes = [
                one
                for one in world.published
                if one.record.topic == SEGMENT_CHANGES and one.record.key == address and one.value["segment"] == name
            ]
            return None if len(changes) == int(count) else f"{len(changes)}"
        if what == "trait_changes":
            if len(args) != 2 or args[0] not in {one.name for one in self.rulebook.published}:
                raise self._bad(f"trait_changes PATH N, PATH a published trait, wanted, got {' '.join(args)!r}")
            return self._same_count(done.trait_changes(args[0], address), args[1])
        if what == "emits":
            return self._emitted(done, address, args)
        if what == "tasks":
            return self._counted(done, TASKS, args)
        if what == "coupons":
            return self._counted(done, COUPONS, args)
        if what == "audience":
            return self._audience(done, address, args)
        if what == "suppressed":
            return self._suppressed(done, address, args)
        if what == "trait":
            return self._trait(profile, world.now_ms, args)
        if what == "outcome":
            found = world.outcome.get(address, "none")
            return None if found == self._one(what, args) else found
        raise self._bad(f"in, out, segments, wake, emits … wanted after expect, got {what!r}")

    def _same_count(self, found: list[Any], count: str) -> str | None:
        return None if len(found) == int(count) else f"{len(found)} ({', '.join(map(str, found))})"

    def _emitted(self, done: Run, address: str, args: list[str]) -> str | None:
        if len(args) != 2 or not args[1].isdigit():
            raise self._bad(f"emits TRIGGER[/TEMPLATE] N wanted, got {' '.join(args)!r}")
        trigger, _, template = args[0].partition("/")
        self._known_trigger(trigger)
        topic = TRIGGERS_PREFIX + trigger
        found = [
            one.value["template"]
            for one in done.world.published
            if one.record.topic == topic and one.record.key == address and template in ("", one.value["template"])
        ]
        return None if len(found) == int(args[1]) else f"{len(found)} ({', '.join(found)})"

    def _counted(self, done: Run, topic: str, args: list[str]) -> str | None:
        found = sum(one.record.topic == topic and one.value["trigger"] == args[0] for one in done.world.published)
        return None if found == int(self._one(topic, args[1:])) else f"{found}"

    def _audience(self, done: Run, address: str, args: list[str]) -> str | None:
        if len(args) != 2 or args[1] not in ("in", "out"):
            raise self._bad(f"audience DEST/NAME in or out wanted, got {' '.join(args)!r}")
        changes = [
            one.value["change"]
            for one in done.world.published
            if one.record.topic == AUDIENCES
            and one.value["address"] == address
            and f"{one.value['dest']}/{one.value['audience']}" == args[0]
        ]
        found = "in" if changes and changes[-1] == "add" else "out"
        return None if found == args[1] else f"{found} ({', '.join(changes)})"

    def _suppressed(self, done: Run, address: str, args: list[str]) -> str | None:
        if len(args) not in (2, 3):
            raise self._bad(f"suppressed TRIGGER REASON [N] wanted, got {' '.join(args)!r}")
        trigger, reason = args[:2]
        self._known_trigger(trigger)
        words = [word for who, name, word in done.world.decided if (who, name) == (address, trigger)]
        count = int(args[2]) if len(args) == 3 else 1
        return None if words.count(reason) == count else f"{words.count(reason)} (decisions: {', '.join(words)})"

    def _trait(self, profile: Profile, now_ms: int, args: list[str]) -> str | None:
        if len(args) != 2 or args[0] not in self.rulebook.readers:
            raise self._bad(f"trait PATH VALUE, PATH one of the rules', wanted, got {' '.join(args)!r}")
        reader = self.rulebook.readers[args[0]]
        value, _ = reader.read(profile, now_ms)
        if args[1] == "none":
            return None if value is None else f"{value}"
        if isinstance(value, list):
            found = "|".join(map(str, value))
            return None if found == args[1] else found
        if reader.kind == "time":
            return self._same(value, args[1])
        if reader.kind == "money":
            # An average need not be whole: the cent is as close as text comes.
            wanted: Any = to_minor(decimal_of(args[1]), self.rulebook.currency)
            return None if value is not None and round(value) == wanted else f"{value} minor units"
        wanted = _value(args[1])
        if isinstance(wanted, str) and isinstance(value, int | Fraction):
            wanted = Fraction(wanted)
        return None if value == wanted else f"{value}"

    def _same(self, due_ms: int | None, text: str) -> str | None:
        wanted_ms = None if text == "none" else self._time(text)
        if due_ms == wanted_ms:
            return None
        return f"{iso(due_ms) if due_ms is not None else 'none'}, not {iso(wanted_ms) if wanted_ms is not None else 'none'}"

    def _one(self, what: str, args: list[str]) -> str:
        if len(args) != 1:
            raise self._bad(f"one word after {what} wanted, got {' '.join(args)!r}")
        return args[0]

    def _segment(self, args: list[str]) -> str:
        if args:
            self.segment = self._one("a segment", args)
        if self.segment not in {segment.name for segment in self.rulebook.segments}:
            raise self._bad(f"a segment that is defined wanted, got {self.segment!r}")
        return self.segment

    def _id(self, name: str) -> int:
        return next(segment.id for segment in self.rulebook.segments if segment.name == name)

    def _known_trigger(self, name: str) -> None:
        if name not in self.rulebook.triggers and name not in ("link", "trait"):
            raise self._bad(f"a trigger that is defined wanted, got {name!r}")


def _address(who: str) -> str:
    return who if ":" in who else f"user:{who}"


def _value(text: str) -> Any:
    """A value as JSON would have it: whole numbers, true, false, ``[a|b]`` a list, ``{a=1;b=2}`` an object, else text (amounts are read from text
    exactly)."""
    if text.startswith("[") and text.endswith("]"):
        return [_value(one) for one in text[1:-1].split("|")]
    if text.startswith("{") and text.endswith("}"):
        return {name: _value(one) for name, _, one in (part.partition("=") for part in text[1:-1].split(";"))}
    if re.fullmatch(r"-?\d{1,15}", text):
        return int(text)
    return {"true": True, "false": False}.get(text, text)
