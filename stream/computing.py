"""One batch computed: each input stepped in the order of logical time, and what came of it as writes.

No await in here, so the profiles change in one step.

    Stepping (a step and what it leaves) < Meeting (what is new) < Telling (commands and news) < Computing (whose turn it is)
"""

from __future__ import annotations

import logging
from typing import Final

from profiles.catalogue import PRODUCT
from profiles.errors import BadInput
from profiles.ids import message_hash
from profiles.wire import (
    CATALOG_EVENTS,
    ERASE,
    FACTS,
    FORWARD,
    INPUT_TOPICS,
    MARK,
    NEWS,
    ORDER_EVENTS,
    PART,
    RETURN,
    Command,
    Event,
    Wake,
    decode_event,
    is_operators,
)
from rules.changes import Kept
from rules.engine import step
from rules.outcome import DUPLICATE
from stream import metrics
from stream.cache import Held
from stream.group import Group, Input
from stream.stepping import BEHIND
from stream.telling import Telling

log = logging.getLogger(__name__)

ORDERS_TOPIC: Final = INPUT_TOPICS.index(ORDER_EVENTS)
CATALOG_TOPIC: Final = INPUT_TOPICS.index(CATALOG_EVENTS)
_FAR: Final = (ERASE, PART, NEWS)
"""Commands that are told on to addresses that nobody here has named."""
_NONE: Final = (-1, False)


def _about(given: Event | Command | BadInput) -> dict[str, str]:
    """What a log line says of an input beside its place."""
    return {"message_hash": message_hash(given.source, given.message_id)} if isinstance(given, Event) else {}


def _concerned(command: Command) -> list[str]:
    """The addresses that may hear of a command."""
    found = [command.address, command.other]
    if command.kind in (FORWARD, RETURN):
        try:
            found += decode_event(command.body).identifiers
        except BadInput:
            pass  # It is set aside when its turn comes.
    return found


class Computing(Telling):
    """One batch being computed: no await in here, so the profiles change in one step."""

    def apply(self, inputs: list[tuple[Group, Input]]) -> None:
        """Step each input.

        What a profile is given comes in the order of logical time, and so do the inputs of all profiles that may hear
        of each other. The others go one after the other, each with all its inputs: a profile is many small objects, and
        to fetch them into the processor's caches costs as much as a step.
        """
        self.bugs.count_inputs(len(inputs))
        self.is_abreast = self.owned.is_alone()
        alone, mixed = self._apart(inputs)
        reached = self._apply_alone(alone, inputs)
        for place in sorted([*mixed, *self.untold]):
            untold = self.untold.pop(place, None)
            if untold is None:
                self._apply(place, *inputs[place])
            else:
                self.place = place
                self._tell(*untold)
        for shard, clock_ms in reached.items():
            self.shards[shard].clock_ms = max(self.shards[shard].clock_ms, clock_ms)
        for partition, (_, is_history) in self.newest.items():
            self.owned.groups[partition].backfill = is_history
        self.place = len(inputs)
        self._advance(inputs)

    def _apart(self, inputs: list[tuple[Group, Input]]) -> tuple[dict[str, list[int]], list[int]]:
        """Places of the inputs: by address, of those whom nobody else in the batch can tell anything; and of all others."""
        hands = self.hands
        alone: dict[str, list[int]] = {}
        mixed: list[int] = []
        linked: set[str] = set()
        for place, (group, one) in enumerate(inputs):
            given = one.given
            if type(given) is Event:
                if one.topic == CATALOG_TOPIC:
                    return {}, list(range(len(inputs)))  # What messages show is told in the order of time.
                address = given.address
                held = hands.get(address)
                if held is not None and held.shard % group.partitions == group.partition:
                    p, others = held.profile, given.identifiers
                    # A newcomer's number is drawn in the order of time, so that whoever does it again draws the same.
                    if (
                        p.ordinal < 0
                        or p.forward
                        or p.held
                        or (others and not all(other in p.links for other in others))
                    ):
                        linked.add(address)
                        linked.update(others)
                    if address in alone:
                        alone[address].append(place)
                    else:
                        alone[address] = [place]
                    continue
            elif type(given) is Command and given.kind != MARK:
                if given.kind in _FAR or is_operators(given):
                    return {}, list(range(len(inputs)))
                linked.update(_concerned(given))
            mixed.append(place)
        if not self._spread(linked):
            return {}, list(range(len(inputs)))
        for address in linked & alone.keys():
            mixed += alone.pop(address)
        return alone, mixed

    def _spread(self, linked: set[str]) -> bool:
        """Add whom these forward to.

        Returns:
            Whether that is all: whoever leads to an erased person is erased, with all who lead to him.
        """
        asked = list(linked)
        while asked:
            held = self.hands.get(asked.pop())
            if held is None:
                continue
            if held.profile.erased_ms:
                return False
            forward = held.profile.forward
            if forward and forward not in linked:
                linked.add(forward)
                asked.append(forward)
        return True

    def _apply_alone(self, alone: dict[str, list[int]], inputs: list[tuple[Group, Input]]) -> dict[int, int]:
        """Apply address by address, what each has to tell kept for its place in time; shard -> how far that brings its clock."""
        starts: dict[int, int] = {}
        reached: dict[int, int] = {}
        self.is_alone = True
        for address, places in alone.items():
            shard = self.shards[self.hands[address].shard]
            shard.clock_ms = starts.setdefault(shard.number, shard.clock_ms)
            for place in places:
                self._apply(place, *inputs[place])
            reached[shard.number] = max(shard.clock_ms, reached.get(shard.number, 0))
        self.is_alone = False
        for number, start_ms in starts.items():
            self.shards[number].clock_ms = start_ms
        return reached

    def _apply(self, place: int, group: Group, one: Input) -> None:
        at_ms, topic, offset, given, _, _ = one
        self.place = place
        if isinstance(given, BadInput):
            self._dead(group, one, given.reason, str(given))
            return
        if type(given) is Command and given.kind in (MARK, FACTS):
            if given.kind == FACTS:
                self._learn(group, one, given)
            self.outcomes[topic, given.kind] += 1
            return
        address = given.address
        held = self.hands.get(address)
        if held is None and address.startswith(PRODUCT):
            self._restock(group, one, given)
            return
        if type(given) is Command and given.kind == NEWS:
            self._pass_on(group, one, given)
            return
        if held is None or held.shard % group.partitions != group.partition:
            self._misplaced(group, one, given)
            return
        shard = self.shards[held.shard]
        if offset < shard.next[topic]:
            self.outcomes[topic, BEHIND] += 1
            return  # This shard has it behind it: another shard of the partition lagged.
        if (
            type(given) is Command
            and not is_operators(given)
            and (offset in group.void or self._taken_before(shard, given))
        ):
            self.outcomes[topic, DUPLICATE] += 1
            return
        if at_ms < shard.clock_ms or given.received_ms < at_ms:
            self.reordered += 1
        if at_ms > shard.clock_ms:
            shard.clock_ms = at_ms
        # A command may come long behind its time, from a worker that lags: of its profile, which waited for it behind
        # the gate, it is no news that the shard has gone on.
        given.seen_ms = shard.clock_ms if type(given) is Event else max(given.received_ms, held.profile.seen_ms)
        if place > self.newest.get(group.partition, _NONE)[0]:
            self.newest[group.partition] = (place, given.backfill)
        gate_ms = self._gate_ms(group, at_ms)
        without: tuple[Kept, ...] = ()
        if shard.known or shard.is_new:
            self._meet(held, shard, gate_ms, given.seen_ms)
        try:
            out = step(
                held.profile,
                given,
                shard.rulebook or self.rulebook,
                gate_ms=gate_ms,
                clock_ms=self.clock_ms,
                goods=self.owned.shelf.goods,
            )
            self.bugs.in_a_row = 0
        except Exception as error:
            found = self._again(held, given, gate_ms, error)
            if isinstance(found, Exception):
                self._failed(group, one, held, found)
                return
            out, without = found
        self.outcomes[topic, out.outcome] += 1
        if self.tells and type(given) is Event:
            where = {"topic": one.raw.topic, "offset": offset, "received_ms": given.received_ms}
            log.debug("%s", out.outcome, extra={**_about(given), **where, "outcome": out.outcome})
        self.done.append((address, given, gate_ms, without))
        self._collect(held, out)
        if topic == ORDERS_TOPIC and isinstance(given, Event) and self._is_foreign(given):
            metrics.FOREIGN.inc()
        if out.commands:
            if self.is_alone:
                self.untold[place] = (held, out.commands, one.raw.topic, offset, at_ms)
            else:
                self._tell(held, out.commands, one.raw.topic, offset, at_ms)
        if self.last[address] == place and held.batch == self.number:
            self._seal(held)  # While the processor still has it at hand.

    def _failed(self, group: Group, one: Input, held: Held, error: Exception) -> None:
        """Go back to the profile as it was before this input, and set the input aside."""
        self._restore(held)
        if isinstance(error, BadInput):
            self._dead(group, one, error.reason, str(error))
            return
        place = (one.raw.topic, one.raw.partition, one.offset, type(error).__name__)
        log.error("step failed on %s/%d@%d: %s", *place, extra=_about(one.given))
        self._dead(group, one, "bug", type(error).__name__)
        self.bugs.count()

    def wake(self, group: Group, address: str, due_ms: int) -> None:
        """Hand a profile its alarm."""
        held = self.hands[address]
        shard = self.shards[held.shard]
        gate_ms = group.gate_ms
        given = Wake(gate_ms - 1, self.clock_ms == 0 and group.backfill)
        if self.clock_ms:
            metrics.LATENESS.observe(max(0, self.clock_ms - due_ms) / 1e3)
        metrics.ALARMS.inc()
        shard.clock_ms = max(shard.clock_ms, gate_ms - 1)
        without: tuple[Kept, ...] = ()
        self._meet(held, shard, gate_ms, given.seen_ms)
        try:
            out = self._step(held, given, gate_ms)
            self.bugs.in_a_row = 0
        except Exception as error:
            found = self._again(held, given, gate_ms, error)
            if isinstance(found, Exception):
                raise found from None  # What fails in a wake is a timer or a held input: this is neither (R8).
            out, without = found
        assert not out.commands, "a wake sends no commands"
        self.done.append((address, given, gate_ms, without))
        self._collect(held, out)
        if held.batch == self.number:
            self._seal(held)

    def _is_foreign(self, event: Event) -> bool:
        """An amount that no trait of the shop's currency can count: another currency, and no rate (SPEC part 5)."""
        currency = event.props.get("currency")
        return currency is not None and currency != self.rulebook.currency and "rate_e6" not in event.props

    def _advance(self, inputs: list[tuple[Group, Input]]) -> None:
        """All shards of the groups have these inputs behind them."""
        after: dict[int, list[int]] = {}
        for group, one in inputs:
            places = after.get(group.partition)
            if places is None:
                places = after[group.partition] = [-1] * len(INPUT_TOPICS)
            places[one.topic] = one.offset + 1
        for partition, places in after.items():
            group = self.owned.groups[partition]
            for number in group.shards:
                following = self.shards[number].next
                for place, offset in enumerate(places):
                    if offset > following[place]:
                        following[place] = offset
            self.lows[partition] = self.unread_from(group)
