"""One batch computed: each input stepped in the order of logical time, and what came of it as writes.

No await in here, so the profiles change in one step. An input that fails inside ``step`` becomes a dead letter and the
profile is as if it had never come (R9); so does what a profile had kept for later, a held input or a timer, when its time
comes and it cannot be done.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from profiles.catalogue import PRODUCT, PRODUCT_UPDATED, encode_product, news_event, updated
from profiles.codec import decode, encode
from profiles.erasure import is_tombstone
from profiles.errors import BadInput, Refused
from profiles.ids import message_hash, shard_of
from profiles.moments import FOREVER, SECOND_MS, iso
from profiles.state import Profile
from profiles.taxonomy import EVENT_TYPES, canonical
from profiles.undo import pack_undo
from profiles.wire import (
    CATALOG_EVENTS,
    DEAD_LETTERS,
    ERASE,
    ERASURES,
    FACTS,
    FORWARD,
    INPUT_TOPICS,
    MARK,
    NEWS,
    ORDER_EVENTS,
    PART,
    PROFILE_COMMANDS,
    RETURN,
    Command,
    Coordinates,
    Event,
    Record,
    Wake,
    dead_letter,
    decode_event,
    encode_command,
    encode_event,
    is_operators,
)
from rules.changes import SEGMENT, Kept
from rules.engine import Stuck, content, is_broken, ruled, step, swept
from rules.facts import FACTS_KEPT
from rules.outcome import APPLIED, DUPLICATE, ERASED, REFUSED, THROTTLED, Step
from stream import effects, metrics
from stream.alarms import GRACE_MS
from stream.cache import Held
from stream.effects import Batch, Draft, Shard
from stream.facts import Books, Met
from stream.group import Group, Input
from stream.owned import Owned
from stream.ports import Ids

log = logging.getLogger(__name__)

BUGS_IN_A_ROW_MAX: Final = 50
BUGS_PER_MINUTE_SHARE: Final = 0.01
BUGS_COUNT_FROM: Final = 1_000
LARGE_BYTES: Final = 16 << 10
ORDERS_TOPIC: Final = INPUT_TOPICS.index(ORDER_EVENTS)
CATALOG_TOPIC: Final = INPUT_TOPICS.index(CATALOG_EVENTS)

Page = tuple[list[str], int]
"""Addresses whom news may interest, and the shard with which the others begin; -1: there are none."""


class Bugs:
    """Counts what fails inside ``step``, to stop when the core itself is broken (R9)."""

    def __init__(self, wall_ms: Callable[[], int], *, has_ceiling: bool) -> None:
        """Count from nothing.

        Args:
            wall_ms: the process's own clock.
            has_ceiling: whether they stop it at all.
        """
        self._wall_ms = wall_ms
        self._has_ceiling = has_ceiling
        self.in_a_row = 0
        self._minute = [0, 0, 0]  # which minute, its events, its bugs

    def count_inputs(self, inputs: int) -> None:
        """Remember how many inputs this minute brought: what bugs are compared with."""
        minute = self._wall_ms() // (60 * SECOND_MS)
        if self._minute[0] != minute:
            self._minute = [minute, 0, 0]
        self._minute[1] += inputs

    def count(self) -> None:
        """Stop when the core itself is broken: 50 failures in a row, or 1 % of a minute's events (R9)."""
        self.in_a_row += 1
        self._minute[2] += 1
        _, events, bugs = self._minute
        many = events >= BUGS_COUNT_FROM and bugs > events * BUGS_PER_MINUTE_SHARE
        if self._has_ceiling and (self.in_a_row >= BUGS_IN_A_ROW_MAX or many):
            raise Refused(
                f"step fails too often: {self.in_a_row} in a row, {bugs} of {events} in this minute; mend it and start "
                "again, or OPPORTUNE_BUG_CEILING=no sets aside what fails, to be replayed later"
            )


_FAR: Final = (ERASE, PART, NEWS)
"""Commands that are told on to addresses that nobody here has named."""
_NONE: Final = (-1, False)
_UNTOUCHED: Final = (ERASED, REFUSED, THROTTLED)
"""Outcomes that leave the profile as it was: nothing to be written but what is told of them."""
BEHIND: Final = "behind"
"""Not the core's word: what a shard has behind it is not stepped again."""


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


class Computing:
    """One batch being computed: no await in here, so the profiles change in one step."""

    def __init__(
        self,
        owned: Owned,
        books: Books,
        bugs: Bugs,
        ids: Ids,
        unread_from: Callable[[Group], int],
        clock_ms: int,
        number: int,
        last: dict[str, int],
        hands: dict[str, Held],
        interested: Mapping[tuple[str, int], Page],
    ) -> None:
        """Begin a batch.

        Args:
            unread_from: the logical time before which nothing of a partition is left unread.
            clock_ms: the store's clock; 0 on the log's.
            number: of the batch.
            last: see ``Handlers._load``, as ``hands``.
            interested: see ``Handlers._interested``.
        """
        self.owned = owned
        self.bugs = bugs
        self.ids = ids
        self.unread_from = unread_from
        self.number = number
        self.last = last
        self.hands = hands
        self.interested = interested
        self.tells = log.isEnabledFor(logging.DEBUG)
        self.books = books
        self.rulebook = books.knowing(())
        self.clock_ms = clock_ms
        self.shards = owned.shards
        self.drafts: dict[int, Draft] = {}
        self.lows: dict[int, int] = {}
        self.outcomes: dict[tuple[int, str], int] = defaultdict(int)  # (place of the topic, outcome)
        self.decisions: dict[tuple[str, str], int] = defaultdict(int)
        self.done: list[tuple[str, Event | Command | Wake, int, tuple[Kept, ...]]] = []  # with the address
        self.reordered = 0
        self.place = 0  # of the input being applied; a wake comes after all
        self.is_abreast = False
        self.is_alone = False  # whom it belongs to hears of nobody in this batch
        self.latest_ms = clock_ms - GRACE_MS if clock_ms else FOREVER
        self.untold: dict[int, tuple[Held, list[Command], str, int, int]] = {}  # place -> what ``_tell`` wants
        self.newest: dict[int, tuple[int, bool]] = {}  # partition -> (place of its newest input, is it history)

    # --- inputs

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
        # With all partitions here and abreast, everything before this input has been applied everywhere.
        gate_ms = max(group.gate_ms, min(at_ms, self.latest_ms)) if self.is_abreast else group.gate_ms
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
                self.untold[place] = (held, out.commands, one.raw.topic, offset, gate_ms)
            else:
                self._tell(held, out.commands, one.raw.topic, offset, gate_ms)
        if self.last[address] == place and held.batch == self.number:
            self._seal(held)  # While the processor still has it at hand.

    def _restock(self, group: Group, one: Input, given: Event | Command) -> None:
        """The shop says something of a product."""
        number = shard_of(given.address)
        shard = self.shards.get(number)
        if shard is None or number % group.partitions != group.partition:
            self._misplaced(group, one, given)
            return
        if one.offset < shard.next[one.topic]:
            self.outcomes[one.topic, BEHIND] += 1
            return
        if isinstance(given, Command) and (one.offset in group.void or self._taken_before(shard, given)):
            self.outcomes[one.topic, DUPLICATE] += 1
            return
        shard.clock_ms = max(shard.clock_ms, one.at_ms)
        goods = self.owned.shelf.goods
        try:
            event = given if isinstance(given, Event) else decode_event(given.body)
            product_id = str(event.props.get("product_id"))
            if event.type != PRODUCT_UPDATED or event.address != f"{PRODUCT}{product_id}":
                raise BadInput(
                    "malformed", f"{PRODUCT_UPDATED} of the product that is its key wanted, got another event"
                )
            event.props = canonical(EVENT_TYPES[PRODUCT_UPDATED], event.props)
            if not goods.has_room(product_id):
                raise BadInput("catalogue_full", f"at most {goods.products_max} products wanted, got one more")
        except BadInput as error:
            self._dead(group, one, error.reason, str(error))
            return
        product, news = updated(goods.products.get(product_id), event)
        is_kept = self.owned.shelf.put(number, product)
        self._draft(number).products[product_id] = encode_product(product) if is_kept else None
        self.outcomes[one.topic, APPLIED] += 1
        place = 0
        for told in news:
            if told.type in self.rulebook.news:
                place = self._tell_partitions(number, one, event, news_event(product, told, event), place)

    def _tell_partitions(self, number: int, one: Input, event: Event, told: Event, place: int) -> int:
        """Let every partition know; the next place among this input's commands."""
        product_id = told.props["product_id"]
        for key in self.owned.news_keys:
            cause = Coordinates(number, one.raw.topic, one.offset, place)
            link = (0, event.message_id)
            body = encode_event(told)
            self._by_log(number, Command(NEWS, key, product_id, link, body, event.received_ms, cause, event.backfill))
            place += 1
        return place

    def _pass_on(self, group: Group, one: Input, given: Command) -> None:
        """Tell news to some of those whom it may interest, and the rest of them further down in the log."""
        number = shard_of(given.address)
        shard = self.shards.get(number)
        if shard is None or number % group.partitions != group.partition:
            self._misplaced(group, one, given)
            return
        if one.offset < shard.next[one.topic]:
            self.outcomes[one.topic, BEHIND] += 1
            return
        if one.offset in group.void or self._taken_before(shard, given):
            self.outcomes[one.topic, DUPLICATE] += 1
            return
        shard.clock_ms = max(shard.clock_ms, one.at_ms)
        event = decode_event(given.body)
        names, following = self.interested[given.address, one.offset]
        stream = f"{NEWS}@{group.partition}"
        link = (event.at_ms, event.message_id)
        place = 0
        for place, event.address in enumerate(names, start=1):
            cause = Coordinates(number, stream, one.offset, place)
            body = encode_event(event)
            command = Command(FORWARD, event.address, "", link, body, given.received_ms, cause, given.backfill)
            self._by_log(number, command)
        if following >= 0:
            cause, link = Coordinates(number, stream, one.offset, place + 1), (following, given.link[1])
            rest = Command(NEWS, given.address, given.other, link, given.body, given.received_ms, cause, given.backfill)
            self._by_log(number, rest)
        self.outcomes[one.topic, APPLIED] += 1

    def _by_log(self, number: int, command: Command) -> None:
        """Send a command of that shard by the log only."""
        command.said = self.shards[number].said()
        self._draft(number).tell(self.place, Record(PROFILE_COMMANDS, command.address, encode_command(command)))
        receiver = shard_of(command.address)
        if receiver in self.shards:
            lane = (receiver, number, command.cause.topic)
            self.owned.by_log[lane] = (command.cause.offset, command.cause.ordinal)

    def _is_foreign(self, event: Event) -> bool:
        """An amount that no trait of the shop's currency can count: another currency, and no rate (SPEC part 5)."""
        currency = event.props.get("currency")
        return currency is not None and currency != self.rulebook.currency and "rate_e6" not in event.props

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

    def _step(self, held: Held, given: Event | Command | Wake, gate_ms: int, without: tuple[Kept, ...] = ()) -> Step:
        """``step``, under the rules that the profile's shard goes by."""
        return step(
            held.profile,
            given,
            self.shards[held.shard].rulebook or self.rulebook,
            gate_ms=gate_ms,
            clock_ms=self.clock_ms,
            without=without,
            goods=self.owned.shelf.goods,
        )

    def _learn(self, group: Group, one: Input, given: Command) -> None:
        """Every shard of the partition knows new facts from here on, each as of its own clock."""
        digest, facts = self.books.learn(given.body)
        for number in group.shards:
            shard = self.shards[number]
            if one.offset < shard.next[one.topic] or facts.number <= shard.newest:
                continue
            shard.clock_ms = max(shard.clock_ms, one.at_ms)
            met = Met(facts.number, shard.clock_ms, digest, self.clock_ms == 0 and group.backfill)
            shard.known = (*shard.known, met)[-FACTS_KEPT:]
            shard.rulebook = self.books.knowing(shard.known)
            shard.place = 0
            self.owned.walking.add(number)
            self._draft(number)

    def _meet(self, held: Held, shard: Shard, gate_ms: int, now_ms: int) -> None:
        """Let a profile meet what is new since it was last here: rules, as of now; facts, each at its instant."""
        number = self.rulebook.number
        if shard.is_new and held.ruled < number:
            held.ruled = number
            if 0 <= shard.place <= held.profile.ordinal:
                is_history = self.clock_ms == 0 and self.owned.groups[shard.number % self.owned.partitions].backfill
                given = ruled(held.profile.address, self.rulebook, now_ms, backfill=is_history)
                self._let_meet(held, shard, gate_ms, given)
        if held.profile.swept >= shard.newest or not held.profile.first_seen_ms:
            return
        for met in shard.known:
            if met.number > held.profile.swept:
                given = swept(held.profile.address, met.number, met.at_ms, backfill=met.backfill)
                if not self._let_meet(held, shard, gate_ms, given):
                    held.profile.swept = met.number  # He stays where he was until something that is read changes.

    def _let_meet(self, held: Held, shard: Shard, gate_ms: int, given: Command) -> bool:
        """Whether he could meet it."""
        without: tuple[Kept, ...] = ()
        try:
            out = self._step(held, given, gate_ms)
        except Exception as error:
            found = self._again(held, given, gate_ms, error)
            if isinstance(found, Exception):
                self._restore(held)
                log.error(
                    "%s: cannot be met by a profile of shard %d: %s", given.kind, shard.number, type(found).__name__
                )
                self.bugs.count()
                return False
            out, without = found
        if out.outcome != DUPLICATE:
            self.done.append((given.address, given, gate_ms, without))
            self._collect(held, out)
        return True

    def walk(self, group: Group, number: int, names: Sequence[str], following: int) -> None:
        """Let these profiles of a shard meet what is new; its walk goes on at ``following``."""
        shard = self.shards[number]
        now_ms = max(shard.clock_ms, group.gate_ms - 1)
        for name in names:
            held = self.hands.get(name)
            if held is not None:
                self._meet(held, shard, group.gate_ms, now_ms)
        shard.place = following if following < shard.ordinals else -1
        if shard.place < 0:
            shard.is_new = False
            self.owned.walking.discard(number)
        self._draft(number)

    def _tell(self, held: Held, commands: list[Command], topic: str, offset: int, gate_ms: int) -> None:
        """Send commands: to the log always, and at once to an address of ours that is at hand.

        The log's copy is then found taken (R2). Commands that a command causes here have no offset of their own yet:
        they bear the first cause's, under a name that no topic has. What is told at once stands on the sender's write:
        both are in one commit, which is whole, or nothing is told at once.
        """
        owned, shards = self.owned, self.shards
        waiting = [(held, topic, command) for command in commands]
        told: dict[tuple[int, str], int] = {}
        while waiting:
            sender, stream, command = waiting.pop(0)
            ordinal = told.get((sender.shard, stream), 0)
            told[sender.shard, stream] = ordinal + 1
            command.cause = Coordinates(sender.shard, stream, offset, ordinal)
            command.said = shards[sender.shard].said()
            self._draft(sender.shard).tell(
                self.place, Record(PROFILE_COMMANDS, command.address, encode_command(command))
            )
            target = owned.at_hand(command.address)
            number = target.shard if target is not None else shard_of(command.address)
            lane = (number, sender.shard, stream)
            if (
                target is None
                or number not in shards
                or lane in owned.by_log
                or not (owned.tells_at_once and owned.is_fresh(number))
            ):
                if number in shards:
                    owned.by_log[lane] = (offset, ordinal)
                continue
            shard = shards[number]
            before = shard.taken.get((sender.shard, stream))
            if before is not None and (offset, ordinal) <= before:
                continue
            command.seen_ms = max(command.received_ms, target.profile.seen_ms)
            self._meet(target, shard, gate_ms, command.seen_ms)
            command.seen_ms = max(command.seen_ms, target.profile.seen_ms)
            try:
                out = self._step(target, command, gate_ms)
            except Exception:
                # The log's copy will fail again, and be set aside with its coordinates.
                self._restore(target)
                owned.by_log[lane] = (offset, ordinal)
                continue
            shard.clock_ms = max(shard.clock_ms, command.seen_ms)
            self._take(shard, command)
            self.done.append((command.address, command, gate_ms, ()))
            self._collect(target, out)
            root = stream if "@" in stream else f"{stream}@{held.shard % owned.partitions}"
            waiting.extend((target, root, further) for further in out.commands)

    def _taken_before(self, shard: Shard, command: Command) -> bool:
        """Each sending shard's commands are taken once, in order (R2)."""
        cause = command.cause
        last = shard.taken.get((cause.shard, cause.topic))
        lane = (shard.number, cause.shard, cause.topic)
        expected = self.owned.by_log.get(lane)
        if expected is not None and (cause.offset, cause.ordinal) >= expected:
            del self.owned.by_log[lane]
        if last is not None and (cause.offset, cause.ordinal) <= last:
            return True
        self._take(shard, command)
        if command.said is not None:
            life, number = command.said
            stands_on = self._draft(shard.number).stands_on
            stands_on[cause.shard, life] = max(number, stands_on.get((cause.shard, life), 0))
        return False

    def _take(self, shard: Shard, command: Command) -> None:
        cause = command.cause
        sender = (cause.shard, cause.topic)
        shard.taken[sender] = self._draft(shard.number).taken[sender] = (cause.offset, cause.ordinal)

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

    # --- what follows

    def _draft(self, number: int) -> Draft:
        draft = self.drafts.get(number)
        if draft is None:
            draft = self.drafts[number] = Draft()
        return draft

    def _seal(self, held: Held) -> None:
        """Make the bytes that are written; whatever else the batch does to the profile breaks the seal."""
        held.sealed = encode(held.profile)
        held.sealed_alarm_ms = held.profile.alarm_ms()

    def _collect(self, held: Held, out: Step) -> None:
        held.sealed = b""
        if out.outcome in _UNTOUCHED and not out.receipts:
            return
        draft = self.drafts.get(held.shard) or self._draft(held.shard)
        if out.receipts:
            for name, receipt in out.receipts:
                draft.receipts.setdefault(name, receipt)  # Of a command that came twice the first one's stands.
            if out.outcome in _UNTOUCHED:
                return
        profile = held.profile
        if held.batch != self.number:
            held.batch = self.number
            draft.touched[profile.address] = held
        if profile.ordinal < 0 and not is_tombstone(profile):
            shard = self.shards[held.shard]
            profile.ordinal = shard.ordinals
            shard.ordinals += 1
            draft.names.append(profile.address)
        if out.interest:
            draft.interest.extend((product, profile.ordinal, holds) for product, holds in out.interest)
        if out.members:
            draft.members.extend((name, profile.ordinal, member) for name, member in out.members)
        if out.records:
            place = self.place
            told = self.owned.with_coupons(out.records, out.coupons) if out.coupons else out.records
            draft.told.extend([(place, record) for record in told])
        for decision in out.decisions:
            self.decisions[decision] += 1
        if out.parted:
            draft.undo.pop(profile.address, None)
            draft.undo_gone.append(profile.address)
        if out.undo:
            shard = self.shards[held.shard]
            undone = [one._replace(cursor=shard.next, generation=self.rulebook.hash) for one in out.undo]
            draft.undo.setdefault(profile.address, []).extend(map(pack_undo, undone))
        if out.erased is not None:
            self._buried(held, draft, out.erased)

    def _buried(self, held: Held, draft: Draft, told: dict[str, Any]) -> None:
        """A person was erased: strike the name out, put what is left under its hash, tell of it."""
        profile = held.profile
        if profile.ordinal >= 0:
            draft.forgotten.append(profile.ordinal)
            profile.ordinal = -1  # Whoever begins here anew gets a number of his own.
        draft.undo.pop(profile.address, None)
        draft.undo_gone.append(profile.address)
        key = self.owned.tomb_key(profile.address)
        receipt = orjson.dumps({**told, "hash": key})
        draft.tell(self.place, Record(ERASURES, key, receipt))
        if not told["alias"]:
            draft.receipts.setdefault(told["command"], receipt)

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

    def _restore(self, held: Held) -> None:
        """The profile as it was before the input that failed: as last written, and this batch's inputs again."""
        address, ordinal = held.profile.address, held.profile.ordinal
        held.profile = decode(address, held.blob) if held.blob else Profile(address)
        for to, given, gate_then_ms, without in self.done:
            if to == address:
                self._step(held, given, gate_then_ms, without)
        held.profile.ordinal = ordinal
        held.sealed = b""

    def _again(
        self, held: Held, given: Event | Command | Wake, gate_ms: int, error: Exception
    ) -> tuple[Step, tuple[Kept, ...]] | Exception:
        """Step once more, without what the profile had kept for later and cannot be done; that is set aside (R9). A
        segment that could not be judged before, either, is left as it was.

        Returns:
            The step, and what it was taken without; or the error, when it is the input's own.
        """
        stuck: list[Stuck] = []
        without: tuple[Kept, ...] = ()
        while isinstance(error, Stuck) and error.kept not in without:
            stuck.append(error)
            without = tuple(one.kept for one in stuck)
            self._restore(held)
            if error.kept[0] == SEGMENT and not is_broken(held.profile, error.kept[1], self.rulebook):
                return error.error
            try:
                out = self._step(held, given, gate_ms, without)
            except Exception as another:
                error = another
            else:
                for one in stuck:
                    if one.kept[0] == SEGMENT:
                        self._unjudged(one)
                    else:
                        self._set_aside(held, one)
                return out, without
        return error

    def _unjudged(self, stuck: Stuck) -> None:
        """Tell of a segment that cannot be judged for somebody, who stays in it or out of it."""
        name = self.rulebook.segments[self.rulebook.place[stuck.kept[1]]].name
        metrics.UNJUDGED.labels(name).inc()
        log.error("segment %s cannot be judged for a profile: %s", name, type(stuck.error).__name__)

    def _set_aside(self, held: Held, stuck: Stuck) -> None:
        """Keep as a dead letter what a profile had kept for later, and goes on without."""
        cause = stuck.error
        shard = self.shards[held.shard]
        reason, detail = (cause.reason, str(cause)) if isinstance(cause, BadInput) else ("bug", type(cause).__name__)
        topic, original = content(stuck.kept, self.rulebook)
        value = dead_letter(
            reason=reason,
            detail=detail,
            topic=topic,
            original=original,
            at=iso(shard.clock_ms),
            where={
                "partition": held.shard % self.owned.partitions,
                "kept": stuck.kept[0],
                "rules": self.rulebook.hash,
            },
        )
        self._draft(held.shard).tell(self.place, Record(DEAD_LETTERS, held.profile.address, value))
        metrics.DEAD.labels(reason).inc()
        if reason == "bug":
            log.error("step failed on a %s of shard %d: %s", stuck.kept[0], held.shard, type(cause).__name__)
            self.bugs.count()

    def _dead(self, group: Group, one: Input, reason: str, detail: str) -> None:
        raw = one.raw
        key = raw.key.decode(errors="replace") if raw.key is not None else ""
        number = shard_of(key)
        if number % group.partitions != group.partition:
            number = group.partition
        shard = self.shards[number]
        if one.offset < shard.next[one.topic]:
            self.outcomes[one.topic, BEHIND] += 1
            return
        value = dead_letter(
            reason=reason,
            detail=detail,
            topic=raw.topic,
            original=raw.value,
            at=iso(max(one.at_ms, shard.clock_ms)),
            where={"partition": raw.partition, "offset": raw.offset, "rules": self.rulebook.hash},
        )
        self._draft(number).tell(self.place, Record(DEAD_LETTERS, key, value))
        metrics.DEAD.labels(reason).inc()
        self.outcomes[one.topic, "dead"] += 1

    def _misplaced(self, group: Group, one: Input, given: Event | Command) -> None:
        """A foreign partitioner put it here: its own shard gets it as a command, once."""
        number = group.partition
        shard = self.shards[number]
        if one.offset < shard.next[one.topic]:
            self.outcomes[one.topic, BEHIND] += 1
            return
        metrics.MISROUTED.inc()
        kind = FORWARD if isinstance(given, Event) else given.kind
        body = one.raw.value if isinstance(given, Event) else given.body
        link = (given.at_ms, given.message_id) if isinstance(given, Event) else given.link
        other = "" if isinstance(given, Event) else given.other
        cause = Coordinates(number, one.raw.topic, one.offset, 0)
        command = Command(
            kind, given.address, other, link, body, given.received_ms, cause, given.backfill, shard.said()
        )
        self._draft(number).tell(self.place, Record(PROFILE_COMMANDS, given.address, encode_command(command)))
        self.outcomes[one.topic, "forwarded"] += 1

    def batch(self, woken: list[str]) -> Batch:
        """Everything as writes."""
        owned = self.owned
        writes = []
        large = 0
        flying = owned.flying
        for number in sorted(self.drafts):
            draft = self.drafts[number]
            draft.put_in_order()
            write = effects.write_of(self.shards[number], draft, self.ids.token())
            for address, held in draft.touched.items():
                if not held.sealed:
                    self._seal(held)
                profile, blob, held.sealed = held.profile, held.sealed, b""
                if profile.erased_ms and is_tombstone(profile):
                    write.profiles[address] = None
                    write.tombs[owned.tomb_key(address)] = held.blob = blob
                    self.shards[number].tombs += 1
                else:
                    write.profiles[address] = held.blob = blob
                if held.sealed_alarm_ms != held.alarm_ms:
                    held.alarm_ms = write.alarms[address] = held.sealed_alarm_ms
                flying[address] = held
                if len(blob) > LARGE_BYTES:
                    large += 1
            writes.append(write)
        metrics.LARGE.inc(large)
        self._count(draft.records for draft in self.drafts.values())
        changes = Counter((name, member) for draft in self.drafts.values() for name, _, member in draft.members)
        for (name, member), count in changes.items():
            metrics.CHANGES.labels(name, "entered" if member else "exited").inc(count)
        records = {number: draft.records for number, draft in self.drafts.items() if draft.records}
        return Batch(writes, records, self.lows, {}, woken)

    def _count(self, drafted: Iterable[list[Record]]) -> None:
        """Account for the batch: both sides of each identity are counted where they arise, and told here together."""
        metrics.REORDERED.inc(self.reordered)
        for group in self.owned.groups.values():
            for place, count in enumerate(group.taken):
                if count:
                    metrics.TAKEN.labels(INPUT_TOPICS[place]).inc(count)
                    group.taken[place] = 0
        for (place, outcome), count in self.outcomes.items():
            metrics.EVENTS.labels(INPUT_TOPICS[place], outcome).inc(count)
        for (trigger, reason), count in self.decisions.items():
            metrics.DECISIONS.labels(trigger, reason).inc(count)
        outgoing = Counter(record.topic for records in drafted for record in records)
        for topic, count in outgoing.items():
            metrics.OUTGOING.labels(topic).inc(count)
