"""A log run through ``step`` on the log's clock, in this process: backtests, and whatever else asks what would have been.

    outcome = replayed(source, rulebook, until_ms, Days)

Profiles are in memory, nothing is stored and nothing goes out; who listens hears every ``Step`` in the order of time.
An input counts at its logical time. Alarms due before it fire first, each at its own instant; what one address tells
another is taken at once, as a worker takes it that has all partitions. So for each key come out, in the same order,
the same bytes that such a worker publishes (tests/stream/test_replay.py).

An input that ``step`` refuses is set aside as a worker would set it aside: the profile is as if it had never come. To
know how it was before, everything is read once more, without; such inputs are rare.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

import msgpack

from profiles.catalogue import PRODUCT, PRODUCT_UPDATED, Catalogue, news_event, updated
from profiles.errors import BadInput
from profiles.ids import shard_of
from profiles.moments import FOREVER
from profiles.state import Profile
from profiles.wire import FACTS, Command, Event, Wake
from rules.changes import SEGMENT, Kept
from rules.engine import Stuck, step, swept
from rules.facts import FACTS_KEPT, Facts, Scan, pack_facts
from rules.outcome import Step
from rules.rulebook import Rulebook
from stream.facts import Books, Met, digest_of, next_ms

Given = Event | Command
Source = Callable[[], Iterable[Given]]
"""Gives the inputs in the order of logical time, the same ones each time it is called."""


class Listener(Protocol):
    """Hears what every input and every alarm did."""

    def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
        """One step of one profile, at that logical time."""
        ...


Heard = TypeVar("Heard", bound=Listener)


@dataclass
class Replayed(Generic[Heard]):
    """What came of a log.

    Attributes:
        heard: the listener, which heard everything once.
        profiles: address -> profile, as of the end.
        goods: the shop's catalogue, as of the end.
        inputs: how many were taken.
        aside: number of an input that was set aside -> the reason.
        passes: how often the log was read.
    """

    heard: Heard
    profiles: dict[str, Profile]
    goods: Catalogue
    inputs: int
    aside: dict[int, str]
    passes: int


def replayed(
    source: Source,
    rulebook: Rulebook,
    until_ms: int | None,
    listener: Callable[[], Heard],
    tell: Callable[[int], None] | None = None,
    born: Callable[[str], Profile] = Profile,
    alarms_ms: int = 0,
    *,
    looks: bool = False,
) -> Replayed[Heard]:
    """Run a log through the rules.

    Args:
        source: the inputs; their logical time is ``received_ms``, and never goes back.
        until_ms: alarms due before it fire; inputs from it on are left out. ``None``: the instant of
            the last input, of which nobody knows whether more is to come.
        listener: makes one that has heard nothing; it is asked anew for every pass.
        tell: called with the number of inputs read so far in this pass, every thousandth.
        born: makes the profile of an address that is met for the first time.
        alarms_ms: with no ``until_ms``, alarms due before this fire, too.
        looks: whether to look the base over at 04:00 of the shop, as a worker does, where the log tells nothing of what the
            rules want to know of it.
    """
    aside: dict[int, str] = {}
    without: dict[str, tuple[Kept, ...]] = {}
    passes = 0
    with _collector_at_rest():
        while True:
            passes += 1
            run = Replay(rulebook, listener(), without, born, looks=looks)
            taken, failed = _pass(run, source, until_ms, aside, tell, alarms_ms)
            if not failed:
                return Replayed(run.listener, run.profiles, run.goods, taken, aside, passes)


def _pass(
    run: Replay[Heard],
    source: Source,
    until_ms: int | None,
    aside: dict[int, str],
    tell: Callable[[int], None] | None,
    alarms_ms: int,
) -> tuple[int, int]:
    """Read the log once; how many inputs were taken, and how many things failed and are left out of the next pass."""
    end_ms = FOREVER if until_ms is None else until_ms
    taken = failed = 0
    for number, given in enumerate(source(), start=1):
        if given.received_ms >= end_ms:
            break
        if tell is not None and not number % 1_000:
            tell(number)
        if number in aside:
            continue
        taken += 1
        try:
            run.take(given)
        except Stuck as error:
            if error.kept[0] == SEGMENT:
                aside[number] = "bug"
            else:
                run.do_without(error)
            failed += 1
        except Exception as error:
            aside[number] = error.reason if isinstance(error, BadInput) else "bug"
            failed += 1
    return taken, failed + run.until(max(run.now_ms, alarms_ms) if until_ms is None else until_ms)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Profiles hold no rings, so reference counts free all there is; to look through them all for rings, again and
    again, takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass
class Replay(Generic[Heard]):
    """Profiles in memory, and the alarms of all of them.

    Attributes:
        without: address -> what its profile had kept for later and cannot be done (``Stuck``).
        born: makes the profile of an address that is met for the first time.
        goods: the shop's catalogue, by what the log says of it.
        looks: whether to look the base over each day, where the log does not tell what was found.
        at_work: the address that was stepped last.
    """

    rulebook: Rulebook
    listener: Heard
    without: dict[str, tuple[Kept, ...]] = field(default_factory=dict)
    born: Callable[[str], Profile] = Profile
    profiles: dict[str, Profile] = field(default_factory=dict)
    goods: Catalogue = field(default_factory=Catalogue)
    now_ms: int = -FOREVER
    looks: bool = False
    at_work: str = ""
    _alarms: list[tuple[int, str]] = field(default_factory=list)
    _queued: dict[str, int] = field(default_factory=dict)
    _interested: dict[str, set[str]] = field(default_factory=dict)
    _broken: set[str] = field(default_factory=set)
    _known: dict[int, tuple[Met, ...]] = field(default_factory=dict)
    _partitions: int = 0
    _look_ms: int = FOREVER
    _told: set[str] = field(default_factory=set)  # by the log, of the base

    def __post_init__(self) -> None:
        self._books = Books(self.rulebook)
        if self.looks and self.rulebook.wanted:
            self._look_ms = -FOREVER

    def take(self, given: Given) -> None:
        """Take one input, after all alarms that are due before it.

        Raises:
            BadInput, Stuck: its profile is worth nothing any more; the pass must be made again without the cause.
        """
        if given.received_ms >= self._look_ms:
            self._look(given.received_ms + 1)
        if given.received_ms > self.now_ms:
            self.now_ms = given.received_ms
        if self._alarms and self._alarms[0][0] < self.now_ms:
            self.until(self.now_ms)
        given.seen_ms = self.now_ms
        if type(given) is Command and given.kind == FACTS:
            self._told |= self._learn(given).values.keys()
            return
        if isinstance(given, Event) and given.address.startswith(PRODUCT):
            self._restock(given)
            return
        self._take(given)

    def _restock(self, event: Event) -> None:
        """The shop says something of a product."""
        if event.type == PRODUCT_UPDATED:
            product, news = updated(self.goods.products.get(event.props["product_id"]), event)
            self.goods.put(product)
            for one in news:
                if one.type in self.rulebook.news:
                    for address in sorted(self._interested.get(product.product_id, ())):
                        told = news_event(product, one, event)
                        told.address, told.seen_ms = address, self.now_ms
                        self._take(told)

    def _take(self, given: Given) -> None:
        out = self._step(given.address, given)
        waiting = out.commands if out is not None else []
        for command in waiting:
            profile = self.profiles.get(command.address)
            command.seen_ms = max(command.received_ms, profile.seen_ms if profile is not None else 0)
            out = self._step(command.address, command)
            if out is not None:
                waiting.extend(out.commands)

    def until(self, until_ms: int) -> int:
        """Fire all alarms due before this instant, in the order of time; what the base is like is looked at in between.

        Returns:
            How many could not be done.
        """
        failed = self._look(until_ms) if until_ms > self._look_ms else 0
        return failed + self._fire(until_ms)

    def _look(self, until_ms: int) -> int:
        """Look the base over at each 04:00 of the shop before this instant; how many alarms of before could not be done."""
        failed = 0
        while self._look_ms < until_ms:
            at_ms = self._look_ms
            is_first = at_ms == -FOREVER  # Nobody has been here yet.
            self._look_ms = next_ms(until_ms if is_first else at_ms, self.rulebook.zone)
            if is_first:
                continue
            failed += self._fire(at_ms)
            self.now_ms = max(self.now_ms, at_ms)
            book = self._book("") if self._partitions else self.rulebook
            newest = book.facts[-1] if book.facts else None
            if all(fact.name in self._told for fact in self.rulebook.wanted):
                continue
            scan = Scan(self.rulebook.wanted, at_ms)
            for profile in self.profiles.values():
                book.lend(profile)
                scan.look(profile)
            if scan.profiles:
                body = msgpack.packb(pack_facts(scan.found(newest.number + 1 if newest is not None else 1)))
                partitions = self._partitions or 1
                for partition in range(partitions):
                    self._learn(Command(FACTS, FACTS, f"{partition}/{partitions}", (0, digest_of(body)), body, at_ms))
        return failed

    def _fire(self, until_ms: int) -> int:
        alarms, queued, failed = self._alarms, self._queued, 0
        while alarms and alarms[0][0] < until_ms:
            due_ms, address = heappop(alarms)
            if queued.get(address) != due_ms:
                continue  # An earlier one was queued since, and has been here.
            del queued[address]
            alarm_ms = self.profiles[address].alarm_ms()
            if alarm_ms is None:
                continue
            if alarm_ms > due_ms:
                self._queue(address, alarm_ms)  # It was put off.
                continue
            try:
                self._step(address, Wake(due_ms))
            except Stuck as error:
                self.do_without(error)
                failed += 1
        return failed

    def do_without(self, error: Stuck) -> None:
        """Leave out of the next pass what the profile at work had kept and cannot be done."""
        self.without[self.at_work] = (*self.without.get(self.at_work, ()), error.kept)

    def _learn(self, given: Command) -> Facts:
        """Let a partition know new facts from here on, and all of its profiles meet them."""
        partition, _, partitions = given.other.partition("/")
        self._partitions = int(partitions)
        _, facts = self._books.learn(given.body)
        known = self._known.get(int(partition), ())
        if known and known[-1].number >= facts.number:
            return facts
        met = Met(facts.number, self.now_ms, given.link[1], given.backfill)
        self._known[int(partition)] = (*known, met)[-FACTS_KEPT:]
        for address in [one for one in self.profiles if shard_of(one) % self._partitions == int(partition)]:
            if self.profiles[address].first_seen_ms:
                self._step(address, swept(address, facts.number, self.now_ms))
        return facts

    def _book(self, address: str) -> Rulebook:
        return self._books.knowing(self._known.get(shard_of(address) % self._partitions, ()))

    def _step(self, address: str, given: Given | Wake) -> Step | None:
        profile = self.profiles.get(address)
        if profile is None:
            profile = self.profiles[address] = self.born(address)
        if self._broken and address in self._broken:
            return None  # Until the next pass nobody knows how it is.
        self.at_work = address
        try:
            book = self._book(address) if self._partitions else self.rulebook
            out = step(profile, given, book, without=self.without.get(address, ()), goods=self.goods)
        except Exception:
            self._broken.add(address)
            raise
        for product_id, holds in out.interest:
            known = self._interested.setdefault(product_id, set())
            (known.add if holds else known.discard)(address)
        if profile.timers:
            alarm_ms = min(profile.timers.values())
            if alarm_ms < self._queued.get(address, FOREVER):
                self._queue(address, alarm_ms)
        if out.records or out.members:
            self.listener.hear(profile, out, given.seen_ms)
        return out

    def _queue(self, address: str, alarm_ms: int) -> None:
        self._queued[address] = alarm_ms
        heappush(self._alarms, (alarm_ms, address))
