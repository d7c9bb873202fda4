"""One batch being computed: what profiles and shards tell each other, by the log and at once."""

from __future__ import annotations

from profiles.catalogue import PRODUCT, PRODUCT_UPDATED, encode_product, news_event, updated
from profiles.errors import BadInput
from profiles.ids import shard_of
from profiles.taxonomy import EVENT_TYPES, canonical
from profiles.wire import (
    FORWARD,
    NEWS,
    PROFILE_COMMANDS,
    Command,
    Coordinates,
    Event,
    Record,
    decode_event,
    encode_command,
    encode_event,
)
from rules.outcome import APPLIED, DUPLICATE
from stream import metrics
from stream.cache import Held
from stream.effects import Shard
from stream.group import Group, Input
from stream.meeting import Meeting
from stream.stepping import BEHIND


class Telling(Meeting):
    """A batch, in which one tells another."""

    def _tell(self, held: Held, commands: list[Command], topic: str, offset: int, at_ms: int) -> None:
        """Send commands: to the log always, and at once to an address of ours that is at hand.

        The log's copy is then found taken (R2). Commands that a command causes here have no offset of their own yet:
        they bear the first cause's, under a name that no topic has. What is told at once stands on the sender's write:
        both are in one commit, which is whole, or nothing is told at once. ``at_ms``: when the first cause came.
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
                or owned.goes_by_log(number, sender.shard)
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
            gate_ms = self._gate_ms(owned.groups[number % owned.partitions], at_ms)
            self._meet(target, shard, gate_ms, command.seen_ms)
            command.seen_ms = max(command.seen_ms, target.profile.seen_ms)
            try:
                out = self._step(target, command, gate_ms)
            except Exception:
                # The log's copy will fail again, and be set aside with its coordinates.
                self._restore(target)
                owned.by_log[lane] = (offset, ordinal)
                continue
            # The shard's clock stays: of others there, something earlier may be unread, and is as early as it was.
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

    def _by_log(self, number: int, command: Command) -> None:
        """Send a command of that shard by the log only."""
        command.said = self.shards[number].said()
        self._draft(number).tell(self.place, Record(PROFILE_COMMANDS, command.address, encode_command(command)))
        receiver = shard_of(command.address)
        if receiver in self.shards:
            lane = (receiver, number, command.cause.topic)
            self.owned.by_log[lane] = (command.cause.offset, command.cause.ordinal)

    def _taking(self, group: Group, one: Input, given: Event | Command) -> Shard | None:
        """The shard of an input that is about nobody, at the input's time; ``None``: it takes it elsewhere, or has taken it."""
        number = shard_of(given.address)
        shard = self.shards.get(number)
        if shard is None or number % group.partitions != group.partition:
            self._misplaced(group, one, given)
            return None
        if one.offset < shard.next[one.topic]:
            self.outcomes[one.topic, BEHIND] += 1
            return None
        if isinstance(given, Command) and (one.offset in group.void or self._taken_before(shard, given)):
            self.outcomes[one.topic, DUPLICATE] += 1
            return None
        shard.clock_ms = max(shard.clock_ms, one.at_ms)
        return shard

    def _restock(self, group: Group, one: Input, given: Event | Command) -> None:
        """The shop says something of a product."""
        shard = self._taking(group, one, given)
        if shard is None:
            return
        number = shard.number
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
        shard = self._taking(group, one, given)
        if shard is None:
            return
        number = shard.number
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
