"""The least that would have to happen for a profile to enter or leave a segment at once (SPEC D3).

    [{"events": [{"type": "order_completed", …}], "words": {"en": "1 more order, 12.50 USD", "ru": …}}, …]

Nothing is solved for: what a rule asks suggests *moves* (an order of that amount, that trait said, that event once more),
a copy of the profile takes them through the engine's own ``step``, and what has turned the answer is told, least first.
So what is told is so. Where no such move turns it, or only time does, nothing is told: ``changes_at`` of the explanation
says when time does.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any, Final, NamedTuple

from profiles.codec import decode, encode
from profiles.errors import OpportuneError
from profiles.ids import small_id
from profiles.money import exponent, major
from profiles.state import COUNTING, ORDERS, TRAITS, Profile
from profiles.taxonomy import EVENT_TYPES, canonical, resolve
from profiles.wire import Event
from rules.compare import normal
from rules.engine import step
from rules.rulebook import CompiledSegment, Rulebook
from rules.say import tongue
from rules.spec import GOAL_REACHED, Judged
from rules.words import LANGUAGES

TOLD_MAX: Final = 3
TIMES_MAX: Final = 25
TOGETHER_MAX: Final = 3
TRIED_MAX: Final = 2_000
PAID: Final = "paid"
"""What an order is unless its event says otherwise."""
_OF_ORDERS_RU: Final = {
    "placed": "оформленных", "confirmed": "подтверждённых", PAID: "оплаченных", "shipped": "отправленных",
    "delivered": "доставленных", "cancelled": "отменённых", "returned": "возвращённых",
}  # fmt: skip
_ANOTHER: Final = "what-if"
"""Stands where it must be something that was not there before."""


class Told(NamedTuple):
    """One thing that may happen: an event as senders write it."""

    name: str
    raw: dict[str, Any]
    traits: dict[str, Any]


class Move(NamedTuple):
    """Something that may happen, once or several times over.

    Attributes:
        kind: what it is about; of two moves of one kind only one is made.
        words: language -> what it is, with ``{n}`` for how often.
        amount_minor: what it costs the customer each time.
        once: to do it again changes nothing.
        about: ids of the orders or carts that it is about, one each time.
    """

    kind: str
    told: Told
    words: tuple[str, str]
    amount_minor: int = 0
    once: bool = False
    about: tuple[str, ...] = ()


class Done(NamedTuple):
    """A move made so many times."""

    move: Move
    times: int


def least_changes(present: Profile, segment: CompiledSegment, rulebook: Rulebook) -> list[dict[str, Any]]:
    """What would turn the answer at once, least first; at most ``TOLD_MAX`` ways.

    Args:
        present: the profile as of the instant asked for (``explain.as_of``); it is not changed.
    """
    if present.forward or segment.is_static:
        return []
    return [_told(ways) for ways in _Search(present, segment, rulebook).found()]


def events_of(ways: list[dict[str, Any]], profile: Profile) -> list[Event]:
    """The events of one way, as of the profile's instant, for whoever wants to see whether it is so."""
    return [
        Event(
            f"what-if-{number}", "what-if", one["type"], profile.seen_ms, profile.seen_ms, profile.address,
            props=one["props"], traits=one["traits"], trusted=True,
        )
        for number, one in enumerate(ways)
    ]  # fmt: skip


class _Search:
    """Moves of one segment's rule, tried on copies of one profile."""

    def __init__(self, present: Profile, segment: CompiledSegment, rulebook: Rulebook) -> None:
        self.present = present
        self.blob = encode(present)
        self.segment = segment
        self.rulebook = rulebook
        self.holds = segment.id in present.members
        self.tried = 0
        self.leaves: list[Judged] = []
        self.moves: list[Move] = []
        pending, seen = [segment], {segment.name}
        while pending:  # The segment, and those that it stands on.
            one = pending.pop()
            self.leaves += _leaves(one.judged)
            for move in self._moves(one.rule):
                if move not in self.moves:
                    self.moves.append(move)
            for name in sorted(which for what, which in one.judged.reads if what == "segment"):
                if name not in seen:
                    seen.add(name)
                    pending.append(rulebook.segments[rulebook.place[small_id(name)]])

    def found(self) -> list[list[Done]]:
        """The least ways that turn the answer."""
        alone: list[list[Done]] = []
        parts: list[Done] = []
        for move in self.moves:
            turned, levels = self._alone(move)
            if turned:
                alone.append([turned])
            parts += levels
        if alone:
            return _least(alone)
        for together in range(2, TOGETHER_MAX + 1):
            ways = [
                list(several)
                for several in combinations(parts, together)
                if len({one.move.kind for one in several}) == together and self._turns(several)
            ]
            if ways:
                return _least(ways)
        return []

    def _alone(self, move: Move) -> tuple[Done | None, list[Done]]:
        """How often a move turns the answer by itself; and how often it turns anything that the answer stands on."""
        copy = decode(self.present.address, self.blob)
        before = self._seen(copy)
        levels: list[Done] = []
        for times in range(1, (1 if move.once else len(move.about) or TIMES_MAX) + 1):
            if not self._make(copy, move, times):
                break
            if (self.segment.id in copy.members) != self.holds:
                return Done(move, times), levels
            after = self._seen(copy)
            if after != before:
                levels.append(Done(move, times))
                before = after
        return None, levels

    def _turns(self, several: tuple[Done, ...]) -> bool:
        if self.tried >= TRIED_MAX:
            return False
        copy = decode(self.present.address, self.blob)
        for done in several:
            for times in range(1, done.times + 1):
                if not self._make(copy, done.move, times):
                    return False
        return (self.segment.id in copy.members) != self.holds

    def _seen(self, profile: Profile) -> list[bool]:
        return [leaf.judge(profile, profile.seen_ms)[0] for leaf in self.leaves]

    def _make(self, profile: Profile, move: Move, times: int) -> bool:
        """Let it happen to a copy; whether it could."""
        self.tried += 1
        if self.tried > TRIED_MAX:
            return False
        try:
            event = events_of([_written(move, times)], profile)[0]
            event.message_id = f"what-if-{self.tried}"
            event.seen_ms, event.backfill = profile.seen_ms, True
            step(profile, event, self.rulebook)
        except (OpportuneError, KeyError):
            return False  # Such an event nobody takes.
        return True

    # --- what a rule suggests -----------------------------------------------------------------------------------

    def _moves(self, rule: Any) -> Iterator[Move]:
        if isinstance(rule, list):
            for one in rule:
                yield from self._moves(one)
        elif isinstance(rule, dict):
            if isinstance(rule.get("trait"), str):
                yield from self._of_trait(rule)
            elif "did" in rule or "did_not" in rule:
                yield from self._of_did(rule, rule.get("did", rule.get("did_not")))
            elif isinstance(rule.get("consent"), dict):
                yield from self._of_consent(rule["consent"])
            elif "reached_goal" in rule:
                yield self._event(GOAL_REACHED, {"goal": rule["reached_goal"]})
            else:
                for one in rule.values():
                    yield from self._moves(one)

    def _of_trait(self, rule: dict[str, Any]) -> Iterator[Move]:
        path = rule["trait"]
        reader = self.rulebook.readers.get(path)
        if reader is None or not _is_kept(path, self.rulebook):
            yield from self._said(path, rule)
        elif path.startswith("cart."):
            yield from self._cart(path, rule)
        elif ("part", ORDERS) in reader.reads:
            counting = self.rulebook.counting
            for where in ({}, _saying(counting)):  # `orders_paid` are those paid, whatever else counts.
                yield self._order(1, where)
                if reader.kind == "money":
                    now, _ = reader.read(self.present, self.present.seen_ms)
                    yield from self._orders_to(rule, Fraction(now or 0), where)
            yield from self._order_back((*COUNTING, *counting))
        elif path == "registered_at":
            yield self._event("registered", {})

    def _said(self, path: str, rule: dict[str, Any]) -> Iterator[Move]:
        """A person says it of himself: the value that is asked for, or another."""
        for op, operand in rule.items():
            for value in operand if isinstance(operand, list) else [operand]:
                if op == "trait" or isinstance(value, dict):
                    continue
                number = normal(value)
                wanted = [value]
                if isinstance(number, Fraction):
                    wanted = [int(number), int(number) + 1, int(number) - 1]
                elif op in ("ne", "not_in"):
                    wanted = [value, f"not {value}"]
                elif op in ("exists", "missing"):
                    wanted = ["something"]
                elif op == "eq" or op == "in":
                    wanted = [value, f"not {value}" if isinstance(value, str) else None]
                for one in wanted:
                    if one is not None:
                        root, dot, part = path.partition(".")
                        traits = {root: {part: one}} if dot else {root: one}
                        words = (
                            f"{tongue('en').trait(path)} said to be {one}",
                            f"сказано: {tongue('ru').trait(path)} – {one}",
                        )
                        yield Move(f"said {path}", Told("identified", {}, traits), words, once=True)

    def _of_did(self, rule: dict[str, Any], names: Any) -> Iterator[Move]:
        where, item = _equalities(rule.get("where")), _equalities(rule.get("item"))
        if names == "order":
            asked = rule.get("status_in") or self.rulebook.counting
            statuses = (asked,) if isinstance(asked, str) else tuple(asked)
            where |= _saying(statuses)
            amounts = [
                Fraction(normal(value))
                for measure in ("sum", "avg", "min", "max", "first", "last")
                if isinstance(rule.get(measure), dict)
                for op, value in rule[measure].items()
                if op != "field" and isinstance(normal(value), Fraction)
            ]
            minor = Fraction(10 ** exponent(self.rulebook.currency))
            yield self._order(1, where, item)
            for amount in amounts:
                for more in (0, 1):
                    yield self._order(max(1, -int(-amount * minor // 1) + more), where, item)
                for leaf in self.leaves:  # What is there already counts.
                    value = leaf.value(self.present, self.present.seen_ms) if leaf.value is not None else None
                    if isinstance(value, dict) and "minor" in value:
                        yield from self._orders_to({"gte": amount}, Fraction(value["minor"]), where, item)
            yield from self._order_back(statuses)
            return
        fields = [rule[measure].get("field") for measure in ("distinct",) if isinstance(rule.get(measure), dict)]
        for name in names if isinstance(names, list) else [names]:
            yield self._event(str(name), where, item, fields)

    def _of_consent(self, asked: dict[str, Any]) -> Iterator[Move]:
        channel, topic = asked.get("channel"), asked.get("topic", "*")
        for state, english, russian in (("granted", "granted", "дано"), ("denied", "denied", "отозвано")):
            words = (f"consent to {channel} {english}", f"согласие на {channel} {russian}")
            raw = {"channel": channel, "state": state, **({"topic": topic} if topic != "*" else {})}
            yield Move(f"consent {channel} {topic}", Told("consent_changed", raw, {}), words, once=True)

    def _cart(self, path: str, rule: dict[str, Any]) -> Iterator[Move]:
        prices = {1}
        for value in rule.values():
            number = normal(value)
            if path == "cart.total" and isinstance(number, Fraction):
                now, _ = self.rulebook.readers[path].read(self.present, self.present.seen_ms)
                wanted = int(number * 10 ** exponent(self.rulebook.currency)) - (now or 0)
                prices |= {max(1, wanted), max(1, wanted + 1)}
        for price in sorted(prices):
            amount = major(price, self.rulebook.currency)
            words = (
                f"{{n}} × a product for {amount} {self.rulebook.currency} put into the cart",
                f"{{n}} × товар за {amount} {self.rulebook.currency} в корзину",
            )
            raw = {
                "currency": self.rulebook.currency,
                "products": [{"product_id": _ANOTHER, "price": amount, "quantity": 1}],
            }
            yield Move("cart", Told("product_added", raw, {}), words, price)
        filled = sorted(self.present.carts.items(), key=lambda one: (-one[1].changed_ms, one[0]))
        if held := tuple(name for name, cart in filled if cart.items):
            emptied = Told("cart_set", {"currency": self.rulebook.currency, "products": []}, {})
            words = ("{n} cart(s) emptied", "опустошено корзин: {n}")
            yield Move("emptied", emptied, words, about=held)

    def _orders_to(
        self,
        rule: dict[str, Any],
        now: Fraction,
        where: dict[str, Any] | None = None,
        item: dict[str, Any] | None = None,
    ) -> Iterator[Move]:
        """Orders of what is missing to a threshold, in one, two or more of them."""
        minor = 10 ** exponent(self.rulebook.currency)
        for op, value in rule.items():
            number = normal(value)
            if op == "trait" or not isinstance(number, Fraction):
                continue
            short = number * minor - now
            # As an average, each order that there is falls short by as much.
            for missing in (short, short + 1, number * minor + len(self.present.orders) * short):
                for orders in range(1, 5):
                    if missing > 0:
                        yield self._order(int(-(-missing // orders)), where, item)

    def _order(
        self, amount_minor: int, where: dict[str, Any] | None = None, item: dict[str, Any] | None = None
    ) -> Move:
        currency = self.rulebook.currency
        amount = major(amount_minor, currency)
        line = {"product_id": _ANOTHER, "quantity": 1, "price": amount, **(item or {})}
        raw = {"currency": currency, "total": amount, "products": [line], **(where or {})}
        status = raw.get("status", PAID)
        words = (
            f"{{n}} more {status} order(s) of {amount} {currency}",
            f"ещё {_OF_ORDERS_RU[status]} заказов: {{n}}, на {amount} {currency}",
        )
        return Move("order", Told("order_completed", raw, {}), words, amount_minor)

    def _order_back(self, counting: tuple[str, ...]) -> Iterator[Move]:
        """Orders with these statuses taken back, the newest first."""
        newest = sorted(self.present.orders.items(), key=lambda one: (-one[1].first_ms(), one[0]))
        counted = [order_id for order_id, order in newest if any(status in counting for status in order.statuses)]
        if counted:
            words = ("{n} order(s) cancelled, the newest first", "отмена заказов: {n}, с последнего")
            yield Move("back", Told("order_cancelled", {}, {}), words, about=tuple(counted[:TIMES_MAX]))

    def _event(
        self, name: str, where: dict[str, Any], item: dict[str, Any] | None = None, fields: list[Any] | None = None
    ) -> Move:
        raw: dict[str, Any] = dict(where)
        known = EVENT_TYPES.get(name)
        if known is not None and known.examples:
            raw = {**known.examples[0].raw, **raw}
        if item or (known is not None and "products" in raw):
            raw["products"] = [{"product_id": _ANOTHER, "quantity": 1, **(item or {})}]
        for field in fields or ():
            raw[str(field)] = _ANOTHER
        said = [tongue(language).events(name) for language in LANGUAGES]
        return Move(f"event {name}", Told(name, raw, {}), (f"{said[0]} {{n}} time(s) more", f"{said[1]} ещё {{n}} раз"))


def _saying(counting: tuple[str, ...]) -> dict[str, Any]:
    """What an order says, to count by these statuses: nothing where one that is paid does."""
    return {} if PAID in counting else {"status": counting[0]}


def _is_kept(path: str, rulebook: Rulebook) -> bool:
    """Whether a trait is computed, and not what was said."""
    return path == "registered_at" or ("part", TRAITS) not in rulebook.readers[path].reads


def _leaves(judged: Judged) -> list[Judged]:
    if not judged.children:
        return [judged]
    return [leaf for child in judged.children for leaf in _leaves(child)]


def _equalities(asked: Any) -> dict[str, Any]:
    """The values that conditions ask for, where they ask for one."""
    found: dict[str, Any] = {}
    for one in asked if isinstance(asked, list) else [asked]:
        for name, wanted in one.items() if isinstance(one, dict) else ():
            if isinstance(wanted, dict):
                wanted = next((wanted[op] for op in ("eq", "gte", "under", "contains", "in") if op in wanted), None)
            if isinstance(wanted, list):
                wanted = wanted[0] if wanted else None
            if wanted is not None:
                found[name.removeprefix("custom.")] = str(wanted) if isinstance(wanted, Decimal) else wanted
    return found


def _written(move: Move, times: int) -> dict[str, Any]:
    """A move's event as it lies in the log; what must be another one each time is numbered."""
    told, number = move.told, f"what-if-{move.kind}-{times}".replace(" ", "-")
    raw: dict[str, Any] = {key: f"{one}-{times}" if one == _ANOTHER else one for key, one in told.raw.items()}
    if isinstance(raw.get("products"), list):
        raw["products"] = [
            {**one, "product_id": number} if one.get("product_id") == _ANOTHER else one for one in raw["products"]
        ]
    if move.about:
        raw["order_id" if told.name == "order_cancelled" else "cart_id"] = move.about[times - 1]
    elif told.name == "order_completed":
        raw["order_id"] = number
    kind = resolve(told.name)
    return {"type": kind.name, "props": canonical(kind, raw), "traits": told.traits}


def _least(ways: list[list[Done]]) -> list[list[Done]]:
    """The least way of each kind, least first."""
    found: dict[tuple[str, ...], list[Done]] = {}
    for way in sorted(ways, key=_size):
        found.setdefault(tuple(done.move.kind for done in way), way)
    return list(found.values())[:TOLD_MAX]


def _size(ways: list[Done]) -> tuple[int, int, str]:
    """How much it takes: events, then money."""
    return (
        sum(done.times for done in ways),
        sum(done.times * done.move.amount_minor for done in ways),
        " ".join(done.move.kind for done in ways),
    )


def _told(ways: list[Done]) -> dict[str, Any]:
    joined = (" and ", " и ")
    return {
        "events": [_written(done.move, times) for done in ways for times in range(1, done.times + 1)],
        "words": {
            language: joined[place].join(done.move.words[place].replace("{n}", str(done.times)) for done in ways)
            for place, language in enumerate(LANGUAGES)
        },
    }
