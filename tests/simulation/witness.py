"""Watches every write of the store and every record of the log, and says which promise was not kept.

Throughout: cursors and shards' clocks never go back (R6, R18), alarms are the profile's own (R15), nothing is decided
before its time (R15). At the end: what was published was stored, what was stored was published (R11, R12), one id has one
content (R13), rubbish lies among the dead letters (R9), profiles,
memberships and letters are the oracle's (R1, R2, R15, R16, R19, R22).
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from connectors.collector.admission import Admission
from profiles.codec import decode
from profiles.errors import BadInput
from profiles.ids import SHARDS, small_id
from profiles.moments import parse_instant
from profiles.state import Profile
from profiles.wire import (
    DEAD_LETTERS,
    DECISIONS,
    ERASE,
    ERASURES,
    EVENT_TOPICS,
    PROFILE_COMMANDS,
    SEGMENT_CHANGES,
    TRIGGERS_PREFIX,
    UNMERGE,
    Record,
    decode_command,
    decode_event,
    is_operators,
    pack_record,
    unpack_record,
)
from rules.rulebook import Rulebook
from stream.log_memory import MemoryLog
from stream.ports import ShardWrite
from stream.store_memory import MemoryStore
from tests.simulation import oracle
from tests.simulation.net import Trace, at_once
from tests.simulation.shop import CART_MS, SETTLED_MS, Telling

if TYPE_CHECKING:
    from tests.simulation.world import World

IDS: Final = {SEGMENT_CHANGES: "change_id", DECISIONS: "decision_id"}
CLOCK_OFF_MS: Final = 1_500
"""How far the store's clock may have been set forward when it decided."""


class Broken(AssertionError):
    """A promise was not kept: which, and how."""

    def __init__(self, promise: str, how: str, more: object = "") -> None:
        self.promise = promise
        super().__init__(f"{promise}: {how}" + (f" ({more})" if more else ""))


class Witness:
    """One world's."""

    def __init__(self, rules: Rulebook, now_ms: Callable[[], int], log: MemoryLog, trace: Trace) -> None:
        self._rules = rules
        self._now_ms = now_ms
        self._log = log
        self._trace = trace
        self._cursors: dict[int, dict[str, int]] = {}
        self._clocks: dict[int, int] = {}
        self._rubbish: dict[tuple[str, int, int], bytes] = {}
        self._stored: set[bytes] = set()
        self._published: set[bytes] = set()
        self._by_id: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
        self._read: dict[tuple[str, int], int] = {}
        self._has_forgotten = False
        self._first: Broken | None = None

    # --- throughout

    def wrote(self, writes: Sequence[ShardWrite], refused: Sequence[int]) -> None:
        """The store has taken these, unless it refused any."""
        if refused:
            return
        for write in writes:
            before = self._cursors.get(write.shard, {})
            for topic, offset in before.items():
                if write.cursor[topic] < offset:
                    self.broke("R6", f"shard {write.shard}: {topic} goes back from {offset} to {write.cursor[topic]}")
            self._cursors[write.shard] = write.cursor
            if write.clock_ms < (before_ms := self._clocks.get(write.shard, 0)):
                self.broke("R18", f"shard {write.shard}: its clock goes back from {before_ms} to {write.clock_ms}")
            self._clocks[write.shard] = write.clock_ms
            for address, blob in write.profiles.items():
                alarm_ms = decode(address, blob).alarm_ms() if blob is not None else None
                if address in write.alarms and write.alarms[address] != alarm_ms:
                    self.broke("R15", f"{address}: alarm {write.alarms[address]}, its profile says {alarm_ms}")
            for packed in write.outbox:
                self._stored.add(packed)
                record = unpack_record(packed)
                if record.topic.startswith(TRIGGERS_PREFIX):
                    at_ms = parse_instant(orjson.loads(record.value)["at"])
                    if at_ms > self._now_ms() + CLOCK_OFF_MS:
                        self.broke("R15", f"{record.topic}: decided at {self._now_ms()} for {at_ms}")

    def collected(self, told: Telling, admission: Admission) -> None:
        """The collector has taken it, or a letter lies there instead: which, and when it happened, the story knows (R18)."""
        reasons = [one.reason for one in admission.refusals]
        if reasons != ([told.refused] if told.refused else []):
            self.broke("R18", f"{told}: refused as {told.refused or 'nothing'!r} wanted, got {reasons}")
        for record in admission.records:
            if record.topic == DEAD_LETTERS:
                self._stored.add(pack_record(record))
            elif replace(decode_event(record.value), context={}) != told.happened():
                self.broke("R18", f"{told}: {told.happened()} wanted, got {decode_event(record.value)}")

    def forgot(self) -> None:
        """The store lost writes: cursors may lie lower now."""
        self._cursors.clear()
        self._clocks.clear()
        self._has_forgotten = True

    def littered(self, topic: str, place: tuple[int, int], rubbish: bytes) -> None:
        """Somebody has put rubbish on a topic, at that partition and offset."""
        self._rubbish[topic, *place] = rubbish

    def broke(self, promise: str, how: str, cause: BaseException | None = None) -> None:
        """Remember the first broken promise; it is raised at the end."""
        if self._first is None:
            self._first = Broken(promise, how)
            self._first.__cause__ = cause

    # --- the log

    def look(self) -> None:
        """Read on in what went out."""
        for topic in self._log.topics():
            if topic in EVENT_TOPICS:
                continue
            for partition in range(self._log.partitions):
                place = (topic, partition)
                for found in self._log.read(place, self._read.get(place, 0), 1 << 30):
                    key = (found.key or b"").decode()
                    self._read[place] = found.offset + 1
                    if topic == PROFILE_COMMANDS and _is_strange(found.value):
                        continue
                    packed = pack_record(Record(topic, key, found.value))
                    self._published.add(packed)
                    if topic not in (PROFILE_COMMANDS, DEAD_LETTERS, ERASURES):
                        name = orjson.loads(found.value)[IDS.get(topic, "trigger_id")]
                        self._by_id[topic, name].add(found.value)

    def is_published(self, packed: bytes) -> bool:
        """Whether this outbox entry lies on its topic."""
        if packed not in self._published:
            self.look()
        return packed in self._published

    def ids(self) -> dict[str, set[str]]:
        """What went out, by topic."""
        self.look()
        found: defaultdict[str, set[str]] = defaultdict(set)
        for topic, name in self._by_id:
            found[topic].add(name)
        return dict(found)

    def decided(self) -> dict[tuple[str, str], int]:
        """How many moments were decided how: (trigger, reason or "emitted")."""
        self.look()
        values = [orjson.loads(max(bodies)) for (topic, _), bodies in self._by_id.items() if topic == DECISIONS]
        return dict(sorted(Counter((one["trigger"], one["reason"] or "emitted") for one in values).items()))

    def letters(self) -> list[dict[str, Any]]:
        """The trigger records that went out, each once."""
        self.look()
        return [
            orjson.loads(max(bodies))
            for (topic, _), bodies in sorted(self._by_id.items())
            if topic.startswith(TRIGGERS_PREFIX)
        ]

    # --- at the end

    def at_the_end(self, world: World) -> None:
        """The world is at rest: look at all of it.

        Raises:
            Broken: the first promise that was not kept.
        """
        if self._first is not None:
            raise self._first
        self.look()
        phantoms = self._published - self._stored
        if phantoms:
            raise Broken("R11", f"published, and never stored: {unpack_record(min(phantoms))}")
        if not self._has_forgotten:
            missing = self._stored - self._published
            if missing:
                raise Broken("R12", f"stored, and never published: {unpack_record(min(missing))}")
            for (topic, name), bodies in sorted(self._by_id.items()):
                if len(bodies) > 1:
                    raise Broken("R13", f"{topic} {name} has {len(bodies)} contents: {sorted(bodies)}")
        self._letters_of_rubbish()
        profiles = {address: decode(address, blob) for address, blob in self.blobs(world.database.now).items()}
        self._index(world, profiles)
        now_ms = world.as_of_ms()
        parted = self.parted(world)
        undone = {one.event.address for one in world.plan.told if one.asks == UNMERGE} - parted
        if undone and world.plan.keeps_log and not self._has_forgotten:
            # Exact or refused: where the log has not the order in which the two lived, it is refused.
            last = {one.partition(": ")[0]: one.partition(": ")[2] for one in world.refusals}
            wrong = sorted(one for one in undone if last.get(one) != "changed")
            if wrong:
                raise Broken("R23", f"{wrong}: an un-merge wanted, got none; {world.refusals}")
        people = oracle.by_person(world.plan.told, parted)
        erased = {one.person: one.stamped_ms for one in world.plan.told if one.asks == ERASE}
        for person, told in people.items():
            if person in erased:
                self._erased(world, person, erased[person])
                continue
            self._person(person, told, profiles, now_ms, parted)
        self._devices(world, profiles, now_ms)

    def _letters_of_rubbish(self) -> None:
        """Each piece of it is kept, with its place and its bytes."""
        found: dict[tuple[str, int, int], bytes] = {}
        for record in map(unpack_record, self._published):
            if record.topic == DEAD_LETTERS:
                told = orjson.loads(record.value)
                original = (
                    b64decode(told["original_base64"]) if "original_base64" in told else told["original"].encode()
                )
                if "offset" in told["where"]:
                    found[told["topic"], told["where"]["partition"], told["where"]["offset"]] = original
        for place, rubbish in sorted(self._rubbish.items()):
            if found.get(place) != rubbish:
                raise Broken("R9", f"{place}: a dead letter of {rubbish!r} wanted, got {found.get(place)!r}")

    def blobs(self, store: MemoryStore) -> dict[str, bytes]:
        """Everything that the store holds of profiles."""
        return dict(sorted(store.profiles().items()))

    def _index(self, world: World, profiles: dict[str, Profile]) -> None:
        """Alarms and memberships lie in the store as the profiles have them."""
        store = world.database.now
        due = dict(at_once(store.due(range(SHARDS), 1 << 60, 1_000_000)))
        for address, profile in profiles.items():
            if due.pop(address, None) != profile.alarm_ms():
                raise Broken("R15", f"{address}: the store's alarm is not the profile's {profile.alarm_ms()}")
        if due:
            raise Broken("R15", f"alarms of nobody: {due}")
        found: dict[str, set[str]] = {}
        for segment in world.rules.segments:
            try:
                members = set(at_once(store.members(segment.name, "", 1_000_000))[0])
            except IndexError:
                raise Broken("R3", f"{segment.name}: a member whose number nobody was given") from None
            wanted = {address for address, profile in profiles.items() if segment.id in profile.members}
            if members != wanted:
                raise Broken("R3", f"{segment.name}: members {sorted(members)}, by their profiles {sorted(wanted)}")
            found[segment.name] = members
        for name in found.keys() - {one.name for one in self._rules.segments}:
            if found[name] != found["buyers"]:
                raise Broken(
                    "R19", f"{name} came later: {sorted(found['buyers'])} wanted, as of old, in {sorted(found[name])}"
                )
        of_before = {small_id(name) for name in world.rules.gone}
        for address, profile in profiles.items():
            if of_before & profile.members.keys():
                raise Broken("R19", f"{address} is in a segment that is gone")

    def _erased(self, world: World, person: str, at_ms: int) -> None:
        """Nothing of him is in the store, unless he has registered again."""
        since = [one for one in world.plan.told if one.person == person and one.stamped_ms > at_ms]
        if any(one.event.type == "registered" for one in since):
            return
        store, name = world.database.now, re.compile(rb"%s(?![0-9])" % person.encode())
        if any(person in shard.names or person in shard.due_ms or person in shard.undo for shard in store._shards):
            raise Broken("R24", f"{person} was erased, and his name stands in the store")
        for address, blob in store.profiles().items():
            if address == person or name.search(blob):
                raise Broken("R24", f"{person} was erased, and stands in the profile of {address}")
        for link in oracle.once(one for one in world.plan.told if one.person == person and one.event.identifiers):
            (other,) = link.event.identifiers
            left = store.profiles().get(other)
            if left is not None and link.told_ms + SETTLED_MS < at_ms and not world.plan.acts:
                since = [one for one in world.plan.told if one.event.address == other and one.stamped_ms > at_ms]
                found = self._rules.readers["pages"].read(decode(other, left), world.as_of_ms())[0] or 0
                if found > oracle.count(since, "page_viewed"):
                    raise Broken("R24", f"{person} was erased, and {found} of his pages are left at {other}")

    def parted(self, world: World) -> set[str]:
        """The addresses whose un-merge was done, by its receipt."""
        receipts = [receipt for shard in world.database.now._shards for receipt in shard.receipts.items()]
        done = {name.partition("_")[0] for name, (told, _) in receipts if orjson.loads(told)["outcome"] == "done"}
        asked = {one.event.address: one.event.message_id for one in world.plan.told if one.asks == UNMERGE}
        return {address for address, name in asked.items() if name in done}

    def _person(
        self, person: str, told: list[Any], profiles: dict[str, Profile], now_ms: int, parted: set[str]
    ) -> None:
        for name in sorted({name for one in told for name in (one.event.address, *one.event.identifiers)} - {person}):
            alias = profiles.get(name)
            wanted_at = "" if name in parted else person
            if (alias.forward if alias is not None else "") != wanted_at:
                raise Broken("R22", f"{name} is {alias and alias.forward!r}, {wanted_at!r} wanted")
        profile = profiles.get(person)
        if profile is None:
            if all(one.asks for one in told):
                return  # Whom only operators name is nobody's customer.
            raise Broken("R1", f"{person}: no profile; {len(told)} messages were told")
        for trait, wanted in (
            ("pages", oracle.count(told, "page_viewed")),
            ("views", oracle.count(told, "product_viewed")),
            ("spent", oracle.spent(told)),
        ):
            found = self._rules.readers[trait].read(profile, now_ms)[0] or 0
            if found != wanted:
                raise Broken("R2", f"{person}: {trait} {wanted} wanted, got {found}")
        orders = {one.event.props["order_id"] for one in told if one.event.type == "order_completed"}
        if set(profile.orders) != orders:
            raise Broken("R2", f"{person}: orders {sorted(orders)} wanted, got {sorted(profile.orders)}")
        members = sorted(one.name for one in self._rules.segments if one.id in profile.members)
        wanted_in = oracle.segments(told, now_ms)
        if members != wanted_in:
            raise Broken("R19", f"{person}: in {wanted_in} wanted, in {members}")
        if person in parted or any(name in parted for one in told for name in one.event.identifiers):
            return  # While they were one, what was due to the one may have gone to the other.
        if all(one.event.address == person and not one.event.identifiers for one in told):
            self._letters(person, told)
        elif not self._has_forgotten:
            self._no_early_letters(person, told)

    def _sent(self, trigger: str, person: str) -> list[int]:
        """The instants of all letters of that trigger to that person."""
        topic = TRIGGERS_PREFIX + trigger
        sent: set[int] = set()
        for (where, _), bodies in self._by_id.items():
            if where == topic:
                values = [orjson.loads(body) for body in bodies]
                sent.update(parse_instant(value["at"]) for value in values if value["profile"]["address"] == person)
        return sorted(sent)

    def _no_early_letters(self, person: str, told: list[Any]) -> None:
        """A customer who signed in: no cart is called abandoned of which more was told in time, by any of his names.

        Only where all of his names were tied before the letter's cart was last touched, or after the letter.
        """
        for at_ms in self._sent("cart", person):
            touched_ms = at_ms - CART_MS
            if any(touched_ms < link.high_ms and link.low_ms < at_ms for link in oracle.links(told)):
                continue
            unlinked = {
                name
                for one in told
                if one.event.identifiers and oracle.links([one])[0].low_ms >= at_ms
                for name in one.event.identifiers
            }
            for seen, what in oracle.cart_words([one for one in told if one.event.address not in unlinked]):
                if touched_ms < seen.low_ms and seen.high_ms < at_ms:
                    raise Broken("R16", f"{person}: a letter of cart at {at_ms}, though {what} at {seen}")

    def _letters(self, person: str, told: list[Any]) -> None:
        """A customer who was never anonymous: every letter, and its instant."""
        for trigger, wanted in oracle.letters(told).items():
            if wanted is None:
                continue
            sent = self._sent(trigger, person)
            left = list(sent)
            for span in wanted:
                fit = next((at_ms for at_ms in left if span.low_ms <= at_ms <= span.high_ms), None)
                if fit is None:
                    raise Broken("R15", f"{person}: no letter of {trigger} in {span}, only {sent}")
                left.remove(fit)
            if left and not self._has_forgotten:
                raise Broken("R16", f"{person}: letters of {trigger} at {left} that nobody wanted; {wanted} were")

    def _devices(self, world: World, profiles: dict[str, Profile], now_ms: int) -> None:
        """Of shared devices: nothing is counted twice, nothing is lost."""
        told = [one for one in oracle.once(world.plan.told) if not one.person]
        groups = {_group(one.event.address) for one in told}
        for group in sorted(groups):
            mine = [one for one in told if _group(one.event.address) == group]
            for trait, name in (("pages", "page_viewed"), ("views", "product_viewed")):
                read = self._rules.readers[trait].read
                found = sum(
                    read(profile, now_ms)[0] or 0
                    for address, profile in profiles.items()
                    if _group(address) == group and not profile.forward
                )
                least = oracle.count(mine, name)
                # What was sent again after the other had signed in is news to him: a profile knows its own messages.
                most = sum(
                    not one.raw
                    and not one.refused
                    and not one.asks
                    and not one.person
                    and _group(one.event.address) == group
                    and one.event.type == name
                    for one in world.plan.told
                )
                if not least <= found <= most:
                    raise Broken("R22", f"the people of device {group}: {trait} {least} to {most} wanted, got {found}")


def _is_strange(value: bytes) -> bool:
    """Whether no shard has sent this command: an operator did, or it is rubbish."""
    try:
        return is_operators(decode_command(value))
    except BadInput:
        return True


def _group(address: str) -> str:
    """``d-3`` of ``anon:d-3`` and ``user:d-3-1``."""
    return "-".join(address.partition(":")[2].split("-")[:2])
