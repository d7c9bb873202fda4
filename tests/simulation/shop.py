"""A small shop, in seconds instead of days: its rules, its customers, and what they do, drawn from a seed.

Customers are of three kinds, by what can be known of them afterwards without knowing the engine: *plain* ones are signed
in from the first, so of them everything is expected exactly; *visitors* come anonymous and sign in; *devices* are
shared, so whose their visits are depends on the order in which things arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random  # noqa: TID251 - a seeded story is the same story
from typing import Any, Final

import orjson

from profiles.edits import Edit, pack_edit
from profiles.erasure import Asked, pack_asked
from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, iso, parse_instant
from profiles.taxonomy import canonical, resolve
from profiles.wire import (
    EDIT,
    ERASE,
    MERGE,
    PROFILE_COMMANDS,
    UNMERGE,
    Command,
    Event,
    Record,
    encode_command,
    encode_event,
)

START_MS: Final = parse_instant("2026-03-02T00:00:00Z")
CART_MS: Final = 25_000
LAPSE_MS: Final = 45_000
OFF_MS: Final = (
    -400 * DAY_MS, -8 * DAY_MS, -3 * DAY_MS, -5 * HOUR_MS, -90_000, 40_000, 240_000, 3 * HOUR_MS, 2 * DAY_MS, 400 * DAY_MS,
)  # fmt: skip
"""How far a sender's clock may be ahead."""
VIEWS: Final = ("page_viewed", "product_viewed")
TABS: Final = 4
"""Customers with a second tab, in worlds that have them."""
THANKS_MS: Final = 15_000

DOCUMENT: Final[dict[str, Any]] = {
    "defaults": {"zone": "UTC", "currency": "USD", "session_gap": "PT20S"},
    "traits": {
        "pages": {"count": "page_viewed"},
        "views": {"count": "product_viewed"},
        "spent": {"sum": "order.total"},
    },
    "segments": {
        "looking": {"did": "product_viewed", "times": {"gte": 3}, "window": {"within": "PT30S"}},
        "buyers": {"did": "order"},
        "big": {"did": "order", "sum": {"field": "total", "gte": 100}},
        "lapsed": {"trait": "last_order_at", "older_than": "PT45S"},
        "silent": {
            "did_not": ["page_viewed", "product_viewed"],
            "window": {"within": "PT40S"},
            "known_for": "PT10S",
        },
        "gone": {"all": [{"in_segment": "lapsed"}, {"in_segment": "silent"}]},
        "gold": {"trait": "custom.plan", "eq": "gold"},
    },
}
TRIGGERS: Final[dict[str, Any]] = {
    "cart": {
        "on": {"event": "product_added"},
        "restart_on": {"event": "product_added"},
        "cancel_on": {"event": "order_completed"},
        "max_age": "P7D",
        "steps": [{"wait": "PT25S"}, {"emit": "cart_1"}],
    },
    "lapse": {
        "on": {"trait": "last_order_at", "reaches_age": "PT45S"},
        "cancel_on": {"event": "order_completed"},
        "max_age": "P7D",
        "steps": [{"emit": "come_back"}],
    },
    "thanks": {
        "on": {"event": "registered"},
        "re_entry": "once",
        "max_age": "P7D",
        "steps": [{"emit": "one"}, {"wait": "PT15S"}, {"emit": "two"}],
    },
    "silence": {
        "on": {"segment": "silent", "change": "entered"},
        "max_age": "P7D",
        "steps": [{"emit": "hello"}],
    },
    "browse": {"on": {"event": "session_ended"}, "max_age": "PT1H", "steps": [{"emit": "seen"}]},
}
RULES: Final = orjson.dumps({**DOCUMENT, "triggers": TRIGGERS}).decode()


@dataclass(frozen=True)
class Telling:
    """One record that somebody appends to an input topic.

    Attributes:
        told_ms: when, since the world began.
        stamped_ms: what the collector's clock said when it took it, since the world began.
        event: what it tells; its times are set when it is told.
        late_ms: how long before it was taken it happened.
        raw: bytes instead, which are no event.
        asks: it is no event but what an authorised person asks: ``erase`` (whom the address leads to), ``edit`` (its
            traits, those of the event), ``merge`` (who the event names, into its address), ``unmerge`` (the address).
        person: whose it is, as the story has it; "" when nobody can tell.
        said: what its sender calls it, and what he says of it.
        off_ms: how far his clock is ahead of the collector's; where it is, the collector itself takes the event.
        says_sent: whether he says when he sent it, by that clock.
    """

    told_ms: int
    stamped_ms: int
    event: Event
    late_ms: int = 0
    raw: bytes = b""
    person: str = ""
    asks: str = ""
    said: tuple[str, dict[str, Any]] = ("", {})
    off_ms: int = 0
    says_sent: bool = True

    @property
    def topic(self) -> str:
        """Where it is appended."""
        return PROFILE_COMMANDS if self.asks else resolve(self.event.type).topic

    def record(self) -> Record:
        """As it lies on the topic."""
        event, now_ms = self.event, START_MS + self.stamped_ms
        if not self.asks:
            return Record(self.topic, event.address, self.raw or encode_event(self.happened()))
        to, other, body = event.address, "", pack_asked(Asked("the shop"))
        if self.asks == EDIT:
            custom = event.traits["custom"]
            stated = {f"custom.{name}": value for name, value in custom.items() if value is not None}
            gone = tuple(f"custom.{name}" for name, value in custom.items() if value is None)
            body = pack_edit(Edit("the shop", "it was asked for", stated, gone))
        elif self.asks == MERGE:
            (to,), other = event.identifiers, event.address
        return Record(
            self.topic, to, encode_command(Command(self.asks, to, other, (now_ms, event.message_id), body, now_ms))
        )

    def happened(self) -> Event:
        """The event with its times."""
        received_ms = START_MS + self.stamped_ms
        return replace(self.event, received_ms=received_ms, at_ms=min(received_ms, self._claimed_ms()))

    def _claimed_ms(self) -> int:
        """When it happened as the collector has to take it: by how long ago it was sent, else by his clock."""
        return START_MS + self.stamped_ms - self.late_ms + (0 if self.says_sent else self.off_ms)

    @property
    def refused(self) -> str:
        """Why the collector does not take it; "" when it does."""
        ahead_ms = self._claimed_ms() - START_MS - self.stamped_ms
        return "in_future" if ahead_ms > 5 * MINUTE_MS else "too_late" if ahead_ms < -7 * DAY_MS else ""

    def body(self) -> dict[str, Any]:
        """As its sender says it."""
        event, (name, said) = self.event, self.said
        ids = dict(one.partition(":")[::2] for one in (event.address, *event.identifiers))
        now_ms = START_MS + self.stamped_ms + self.off_ms
        what = {"event": name, "properties": said, "type": "track"}
        if event.type == "identified":
            what = {"type": "identify", "traits": event.traits}
        return {
            **what,
            "messageId": event.message_id,
            **({"userId": ids["user"]} if "user" in ids else {}),
            **({"anonymousId": ids["anon"]} if "anon" in ids else {}),
            "originalTimestamp": iso(now_ms - self.late_ms),
            **({"sentAt": iso(now_ms)} if self.says_sent else {}),
        }

    def __str__(self) -> str:
        event = self.event
        told = orjson.dumps({**event.props, **event.traits}).decode()
        what = "rubbish" if self.raw else f"{self.asks} {told} asked for" if self.asks else f"{event.type} {told}"
        others = f" names {', '.join(event.identifiers)}" if event.identifiers else ""
        late = f", {self.late_ms} ms late" if self.late_ms else ""
        if self.off_ms:
            late += f", by a clock {self.off_ms / 1000:+,.0f} s off" + (
                "" if self.says_sent else ", not said when sent"
            )
        return f"{self.told_ms / 1000:8.3f} s  {event.address}: {what}{others} ({event.message_id}{late})"


@dataclass
class _Teller:
    """Draws a story."""

    random: Random
    span_ms: int
    told: list[Telling] = field(default_factory=list)
    number: int = 0

    def tell(
        self,
        at_ms: int,
        name: str,
        address: str,
        person: str = "",
        *others: str,
        late_ms: int = 0,
        traits: dict[str, Any] | None = None,
        **raw: Any,
    ) -> None:
        draw = self.random.random
        kind = resolve(name)
        self.number += 1
        event = Event(
            message_id=f"m-{self.number}",
            source="web",
            type=kind.name,
            at_ms=0,
            received_ms=0,
            address=address,
            identifiers=others,
            props=canonical(kind, raw),
            traits=traits or {},
        )
        # From the collector's stamp to the topic, and how far its clock is off: well within the gate's two seconds.
        told_ms = at_ms + int(draw() * draw() * 700)
        stamped_ms = max(0, at_ms - int(draw() * 300))
        one = Telling(told_ms, stamped_ms, event, late_ms, person=person, said=(name, raw))
        self.told.append(one)
        if draw() < 0.12:  # The sender heard no answer, and sends it again: it happened when it happened.
            again_ms = told_ms + max(1, int(draw() * draw() * 20_000))
            stamped_ms = again_ms - int(draw() * 300)
            again = replace(
                one, told_ms=again_ms, stamped_ms=stamped_ms, late_ms=max(0, late_ms + stamped_ms - one.stamped_ms)
            )
            self.told.append(again)

    def rubbish(self, at_ms: int, address: str) -> None:
        self.number += 1
        event = Event(f"bad-{self.number}", "web", "page_viewed", 0, 0, address)
        raw = self.random.choice((b"{", b"[]", b'{"message_id": 7}', b"\xff\xfe", b"null"))
        self.told.append(Telling(at_ms, at_ms, event, raw=raw))

    def erase(self, at_ms: int, person: str) -> None:
        self.number += 1
        event = Event(f"erase-{self.number}", "web", ERASE, 0, 0, person)
        self.told.append(Telling(at_ms, at_ms, event, person=person, asks=ERASE))

    def ask(self, at_ms: int, asks: str, address: str, person: str, *others: str, **traits: Any) -> None:
        """Somebody authorised asks for something: once, or twice with one id."""
        self.number += 1
        event = Event(f"{asks}-{self.number}", "web", asks, 0, 0, address, others, traits=traits)
        for asked_ms in (at_ms, at_ms + int(self.random.random() * 8_000))[: 1 + (self.random.random() < 0.2)]:
            told_ms = asked_ms + int(self.random.random() * 200)
            self.told.append(Telling(told_ms, asked_ms, event, person=person, asks=asks))

    def visit(self, at_ms: int, address: str, person: str, *, exact: bool) -> int:
        """A few things in a row; when it is over."""
        draw = self.random.random
        for _ in range(1 + int(draw() * 5)):
            at_ms += int(200 + draw() * 4_000)
            late_ms = 0 if exact or draw() < 0.9 else int(draw() * 30_000)
            what = draw()
            product = f"p-{int(draw() * 5)}"
            if what < 0.3:
                self.tell(at_ms, "Page Viewed", address, person, late_ms=late_ms, path="/")
            elif what < 0.6:
                self.tell(at_ms, "Product Viewed", address, person, late_ms=late_ms, product_id=product)
            elif what < 0.8:
                self.tell(at_ms, "Product Added", address, person, product_id=product, price=5, currency="USD")
            elif not address.startswith("anon:"):
                self.tell(
                    at_ms,
                    "Order Completed",
                    address,
                    person,
                    late_ms=late_ms,
                    order_id=f"o-{self.number}",
                    total=1 + int(draw() * 60),
                    currency="USD",
                )
        return at_ms


def story(seed: int, *, span_ms: int = 45_000, customers: int = 8) -> list[Telling]:
    """What is told in a world, in the order of telling."""
    random = Random(f"story {seed}")
    teller = _Teller(random, span_ms)
    for number in range(customers):
        kind = random.choice(("plain", "plain", "visitor", "visitor", "device"))
        {"plain": _plain, "visitor": _visitor, "device": _device}[kind](teller, number)
    if random.random() < 0.3:
        for _ in range(1 + int(random.random() * 3)):
            teller.rubbish(int(random.random() * span_ms), f"user:p-{int(random.random() * customers)}")
    if has_tabs(seed):
        teller.random = Random(f"tabs {seed}")
        for number in range(customers, customers + TABS):
            _two_tabs(teller, number)
    if seed % 2:  # Half of the worlds have somebody at the shop.
        teller.random = Random(f"asked {seed}")
        _asked(teller, customers)
    told = sorted(teller.told, key=lambda one: (one.told_ms, one.event.message_id))
    return _by_their_clocks(seed, told) if seed % 5 == 2 else told


def _by_their_clocks(seed: int, told: Sequence[Telling]) -> list[Telling]:
    """Some senders' clocks are wrong, and not all say when they sent."""
    random = Random(f"clocks {seed}")
    off_ms: dict[str, int] = {}
    says_sent: dict[str, bool] = {}
    merged = {name for one in told if one.asks == MERGE for name in one.event.identifiers}
    edited = {one.event.address for one in told if one.asks == EDIT}
    heard: set[str] = set()
    found = []
    for one in told:
        event = one.event
        if one.raw or one.asks:
            found.append(one)
            continue
        if event.address not in off_ms:
            off_ms[event.address] = random.choice(OFF_MS) if random.random() < 0.4 else 0
        if event.message_id not in says_sent:
            says_sent[event.message_id] = random.random() < 0.6
        his_ms = off_ms[event.address]
        # Of those of whom all is expected to the second, and of what other messages hang on, the hour is not made up.
        is_expected = event.address in merged or (event.address.startswith("user:p-") and -7 * DAY_MS <= his_ms < 0)
        is_free = event.type in VIEWS and not is_expected
        one = replace(one, off_ms=his_ms, says_sent=says_sent[event.message_id] or not is_free)
        if one.refused and event.address in edited - heard:  # Of whom nothing was ever taken, nothing can be edited.
            one = replace(one, says_sent=True)
        if not one.refused:
            heard.add(event.address)
        found.append(one)
    return found


def _visits(teller: _Teller) -> Iterator[int]:
    at_ms = int(teller.random.random() * teller.span_ms / 2)
    while at_ms < teller.span_ms:
        yield at_ms
        at_ms += int(5_000 + teller.random.random() * 30_000)


def _plain(teller: _Teller, number: int) -> None:
    address = f"user:p-{number}"
    over_ms = -1
    for at_ms in _visits(teller):
        at_ms = max(at_ms, over_ms + 100)
        if over_ms < 0 and teller.random.random() < 0.4:
            teller.tell(at_ms, "Signed Up", address, address, method="email")
        over_ms = teller.visit(at_ms, address, address, exact=True)
    if teller.random.random() < 0.15:
        teller.erase(int(teller.random.random() * teller.span_ms), address)


def _visitor(teller: _Teller, number: int) -> None:
    """Anonymous until he signs in; now and then a page of his other tab still comes under the old name."""
    address, draw = f"user:v-{number}", teller.random.random
    for device in range(1 + int(draw() * 2)):
        anonymous = f"anon:v-{number}-{device}"
        known = False
        for at_ms in _visits(teller):
            mine = address if known and draw() < 0.5 else anonymous
            over_ms = teller.visit(at_ms, mine, address, exact=False)
            if not known and draw() < 0.6:
                known = True
                teller.tell(over_ms, "Identify", address, address, anonymous, traits={"custom": {"plan": "gold"}})
        if not known:
            teller.tell(teller.span_ms, "Identify", address, address, anonymous)


def has_tabs(seed: int) -> bool:
    """Whether a seed's customers have a second tab, at the very time at which a worker stands still."""
    return seed % 50 == 48


def _two_tabs(teller: _Teller, number: int) -> None:
    """Somebody goes on in a tab where he is not signed in, just before the cart of the other counts as left."""
    user, tab, draw = f"user:v-{number}", f"anon:v-{number}-0", teller.random.random
    at_ms = int(draw() * 4_000)
    teller.tell(at_ms, "Identify", user, user, tab)
    at_ms += 2_000
    teller.tell(at_ms, "Product Added", user, user, product_id="p-1", price=5, currency="USD")
    at_ms += CART_MS - 1_000 - int(draw() * 2_000)
    teller.tell(at_ms, "Product Added", tab, user, product_id="p-2", price=5, currency="USD")


def _device(teller: _Teller, number: int) -> None:
    """One machine, two people who sign in on it in turn."""
    anonymous, draw = f"anon:d-{number}", teller.random.random
    for at_ms in _visits(teller):
        over_ms = teller.visit(at_ms, anonymous, "", exact=False)
        if draw() < 0.7:
            teller.tell(over_ms, "Identify", f"user:d-{number}-{int(draw() * 2)}", "", anonymous)


SETTLED_MS: Final = 3_000
"""So long after something was told everybody has it behind him, if nothing befalls the world."""


def _asked(teller: _Teller, customers: int) -> None:
    """What authorised people ask for: edits, two users joined, a merge undone, a visitor erased."""
    draw, span_ms = teller.random.random, teller.span_ms

    def after(ms: int) -> int:
        return ms + SETTLED_MS + int(draw() * max(0, span_ms + 5_000 - ms))

    told = list(teller.told)
    for person in sorted({one.person for one in told if one.person}):
        mine = [one for one in told if one.person == person]
        known_ms = min((one.told_ms for one in mine if one.event.address == person and not one.asks), default=span_ms)
        linked = {name: one.told_ms for one in reversed(mine) for name in one.event.identifiers}
        parted = ""
        if linked and draw() < 0.35:
            parted = teller.random.choice(sorted(linked))
            teller.ask(after(linked[parted]), UNMERGE, parted, "")
        elif linked and draw() < 0.15:
            teller.erase(int(draw() * (span_ms + 5_000)), person)
        for _ in range(int(draw() * 3)):
            names = [person] if parted else [person, *linked]
            name = teller.random.choice(names)
            plan = teller.random.choice(("gold", "silver", None))
            teller.ask(after(linked.get(name, known_ms)), EDIT, name, person, custom={"plan": plan})
    for number in range(customers, customers + int(draw() * 3)):
        stays, goes = f"user:t-{number}-0", f"user:t-{number}-1"
        for address in (stays, goes):
            for at_ms in _visits(teller):
                teller.visit(at_ms, address, stays, exact=False)
        known_ms = min((one.told_ms for one in teller.told if one.event.address == goes), default=-1)
        if known_ms >= 0:
            teller.ask(after(known_ms), MERGE, stays, stays, goes)
