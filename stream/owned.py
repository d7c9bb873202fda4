"""What a worker owns while it has its partitions: their shards as last written, and the profiles at hand."""

from __future__ import annotations

from itertools import islice

from profiles.ids import shard_of, tomb_key
from profiles.wire import (
    INPUT_TOPICS,
    NEWS,
    Command,
    Record,
    completed,
    is_operators,
)
from stream.cache import Cache, Held
from stream.effects import Shard
from stream.facts import key_in
from stream.group import COMMANDS, Group
from stream.ports import ShardState
from stream.shelf import Shelf


class Owned:
    """Partitions, shards and profiles of one worker.

    Attributes:
        partitions: how many there are in all.
        tells_at_once: whether one write of several shards is whole or not at all, so that a command to one of them may be
            taken with its sender's write.
        groups: partition -> its topics.
        flying: address -> a profile whose write is under way; it is newer than the store's.
        news_keys: of each partition, a key for news of a product.
        shelf: the shop's catalogue.
        walking: shards whose profiles are yet to meet new rules or the newest facts.
        by_log: (receiving shard, sending shard, stream) -> the last command that goes by the log only; later ones of that sender,
            of whichever stream, follow it.
        stored: all shards there are, by number, as the store had them when we claimed last.
    """

    def __init__(
        self, partitions: int, profiles_max: int, products_max: int, secret: bytes, *, tells_at_once: bool
    ) -> None:
        """Own nothing yet."""
        self.partitions = partitions
        self.tells_at_once = tells_at_once
        self.secret = secret
        self.profiles_max = profiles_max
        self.groups: dict[int, Group] = {}
        self.news_keys = [key_in(NEWS, partition, partitions) for partition in range(partitions)]
        self.shards: dict[int, Shard] = {}
        self.cache = Cache(profiles_max)
        self.shelf = Shelf(products_max)
        self.flying: dict[str, Held] = {}
        self.by_log: dict[tuple[int, int, str], tuple[int, int]] = {}
        self.stored: list[ShardState] = []
        self.walking: set[int] = set()

    def let_go(self, partition: int) -> None:
        """Own this partition no more."""
        group = self.groups.pop(partition)
        self.cache.drop_shards(group.shards)
        for number in group.shards:
            del self.shards[number]
            self.walking.discard(number)
        self.by_log = {lane: at for lane, at in self.by_log.items() if lane[0] in self.shards}

    def note_untaken(self, group: Group, newest: int) -> None:
        """Commands that came by the log and are not taken yet: later ones of their senders must follow them."""
        for one in islice(reversed(group.lanes[COMMANDS].inputs), newest):
            given = one.given
            if isinstance(given, Command) and not is_operators(given) and one.offset not in group.void:
                number = shard_of(given.address)
                shard = self.shards.get(number)
                cause = given.cause
                place = (cause.offset, cause.ordinal)
                if shard is not None and place > shard.taken.get((cause.shard, cause.topic), (-1, -1)):
                    lane = (number, cause.shard, cause.topic)
                    self.by_log[lane] = max(place, self.by_log.get(lane, place))

    def note_void(self, group: Group) -> None:
        """Remember which commands before our mark stand on a write that the store has forgotten since (R7): the sender
        comes to their cause again, perhaps in another order, and says then what follows.

        Those behind the mark are the commit's business: it is refused where a write has gone on which it stands.
        """
        for one in group.lanes[COMMANDS].inputs:
            if one.offset >= group.marked_at:
                return
            given = one.given
            if (
                isinstance(given, Command)
                and given.said is not None
                and not self.stored[given.cause.shard].has(given.said)
            ):
                group.void.add(one.offset)

    def is_ours(self, address: str) -> bool:
        """Whether the address lies in a shard of ours."""
        return shard_of(address) in self.shards

    def at_hand(self, address: str) -> Held | None:
        """The profile there, if it need not be loaded."""
        held = self.cache.get(address)
        return held if held is not None else self.flying.get(address)

    def tomb_key(self, address: str) -> str:
        """Under which name a tombstone of that address lies."""
        return tomb_key(address, self.secret)

    def with_coupons(self, records: list[Record], stems: list[str]) -> list[Record]:
        """The records with the codes of these coupons made whole."""
        return [completed(one, stems, self.secret) for one in records]

    def is_alone(self) -> bool:
        """Whether all partitions are ours, and no command is on its way through the log: then what lies before an
        input has been applied everywhere when its turn comes."""
        return (
            len(self.groups) == self.partitions
            and self.tells_at_once
            and not self.by_log
            and all(group.caught_up for group in self.groups.values())
        )

    def goes_by_log(self, receiver: int, sender: int) -> bool:
        """Whether a command of that shard to this one is still under way by the log: whatever it tells, it tells in order."""
        return any(lane[0] == receiver and lane[1] == sender for lane in self.by_log)

    def is_fresh(self, shard: int) -> bool:
        """Whether no command for this shard can lie unread in the log from before we owned it."""
        return self.groups[shard % self.partitions].caught_up

    def applied(self) -> dict[tuple[str, int], int]:
        """Per topic and partition, what every shard has behind it."""
        return {
            (topic, partition): min(self.shards[number].next[place] for number in group.shards)
            for partition, group in self.groups.items()
            for place, topic in enumerate(INPUT_TOPICS)
        }
