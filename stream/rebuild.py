"""A store that is lost, made anew from the log: every retained input through ``step`` once more, state-only (R14).

    found = rebuild(history, rulebook, secret, erased, until_ms, said_ms)
    await write(store, found, rulebook, secret, ids)

Nothing goes out: what the replayed inputs had to say was said the first time. Where the lost store had got to is told by two things:

- Workers tell Kafka how far they are, and never more than they have stored (R6). Inputs that arrived before the first one that
  lies beyond are applied here; the cursors lie there, and the others are left to the workers, who take them as after any
  outage. Of these some were applied the first time, too: what they say goes out again under its old id.
- Alarms fire as far as the last applied input, or as the last word on the outgoing topics less two seconds. What falls due
  later is left to the workers.

The log does not hold everything. ``Found.unknown`` says, a sentence each, what could not be known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from profiles.catalogue import PRODUCT, encode_product
from profiles.codec import encode
from profiles.erasure import is_tombstone
from profiles.errors import Refused
from profiles.ids import SHARDS, shard_of, tomb_key
from profiles.moments import FOREVER
from profiles.state import Profile
from profiles.wire import INPUT_TOPICS, Command
from rules.outcome import Step
from rules.rulebook import Rulebook
from stream.effects import commit
from stream.history import History
from stream.ports import Ids, ProfileStore, ShardWrite
from stream.replay import Given, Replayed, replayed

REBUILD: Final = "rebuild"
"""A document of the store: ``begun`` while a rebuild writes, ``done`` afterwards."""
BEGUN: Final = b"begun"
DONE: Final = b"done"
CHUNK: Final = 1_000


class Silent:
    """Hears nothing: all of it was published the first time."""

    def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
        """Nothing goes out."""


@dataclass
class Found:
    """What the log leads to.

    Attributes:
        result: profiles at ``until_ms``.
        until_ms: what lies before was applied.
        cursors: (input topic, partition) -> where workers go on.
        clocks: shard -> its clock.
        left: how many records lie behind the cursors.
        later: what authorised people asked for from then on, to be put on the log again behind the cursors.
        unknown: what could not be known.
    """

    result: Replayed[Silent]
    until_ms: int
    cursors: dict[tuple[str, int], int]
    clocks: dict[int, int]
    left: int
    later: list[Command]
    unknown: list[str]


def rebuild(
    history: History,
    rulebook: Rulebook,
    secret: bytes,
    erased: Mapping[str, int],
    until_ms: int | None,
    said_ms: int,
    tell: Callable[[int], None] | None = None,
) -> Found:
    """Run the log up to an instant.

    Args:
        secret: of the installation.
        erased: the register: keyed hash of an address -> up to when its person is gone; older than the log, mostly.
        until_ms: before which inputs were applied; ``None``: all of them.
        said_ms: before which alarms had fired; if the last of these inputs is later, all due before that had.
        tell: called with the number of inputs read so far, every thousandth.
    Raises:
        OSError: a broker did not answer.
    """
    end_ms = FOREVER if until_ms is None else until_ms
    later: list[Command] = []
    clocks: dict[int, int] = defaultdict(int)

    def source() -> Iterator[Given]:
        later.clear()
        clocks.clear()
        for given in history.read(end_ms):
            if given.received_ms >= end_ms:
                if isinstance(given, Command):
                    later.append(given)
                return
            clocks[shard_of(given.address)] = given.received_ms
            yield given

    def born(address: str) -> Profile:
        profile = Profile(address)
        profile.erased_ms = erased.get(tomb_key(address, secret), 0) if erased else 0
        return profile

    result = replayed(source, rulebook, None, Silent, tell, born, min(said_ms, end_ms))
    later += history.commands_left()
    for address, profile in result.profiles.items():
        shard = shard_of(address)
        clocks[shard] = max(clocks[shard], profile.seen_ms)
    unknown = [*_unknown(history, result, bool(erased))]
    if until_ms is None:
        until_ms = max(clocks.values(), default=0)
    return Found(result, until_ms, history.cursors(), dict(clocks), history.behind(), later, unknown)


def _unknown(history: History, result: Replayed[Silent], any_erased: bool) -> Iterable[str]:
    gone = history.gone()
    if gone:
        told = ", ".join(f"{topic} {count}" for topic, count in sorted(gone.items()))
        yield f"records that the log keeps no longer: {told}; a backup of the store from before would hold their profiles"
    if history.malformed:
        yield f"{history.malformed} records that hold no input: dead letters the first time, too"
    if result.aside:
        reasons = Counter(result.aside.values())
        yield "inputs set aside as they are by workers: " + ", ".join(
            f"{one} {reasons[one]}" for one in sorted(reasons)
        )
    yield "what the shop said of its goods before the log begins: the catalogue holds what was said since; a feed tells it again"
    yield "which rules were in force when: all of the log was judged by the present ones"
    yield "when each alarm was really looked at: all fired at their due instants, also where workers were late"
    yield "what undoes merges of before, and receipts of commands: un-merges of these are refused, receipts are gone"
    if any_erased:
        yield "erased people of whom the log says nothing: `opportune profile reapply` after older history was imported"
    yield "what was stored and not yet published when the store was lost"


async def assert_empty(store: ProfileStore) -> None:
    """See that the store holds nothing that a rebuild would mix with.

    Raises:
        Refused: it does.
    """
    tokens = [state.token for state in await store.read_shards(range(SHARDS))]
    if any(tokens) or await store.get_doc(REBUILD) == BEGUN:
        raise Refused(
            "store: an empty one wanted, got one that holds profiles, or an unfinished rebuild; only an empty one is rebuilt"
        )


async def write(store: ProfileStore, found: Found, rulebook: Rulebook, secret: bytes, ids: Ids) -> int:
    """Write what was found into an empty store; how many addresses hold a profile, or forward.

    Raises:
        Refused: the store holds something.
    """
    await assert_empty(store)
    await store.put_doc(REBUILD, BEGUN)
    by_shard: list[list[Profile]] = [[] for _ in range(SHARDS)]
    for address, profile in found.result.profiles.items():
        by_shard[shard_of(address)].append(profile)
    goods: list[dict[str, bytes | None]] = [{} for _ in range(SHARDS)]
    for product_id, product in found.result.goods.products.items():
        goods[shard_of(PRODUCT + product_id)][product_id] = encode_product(product)
    partitions = 1 + max(partition for _, partition in found.cursors)
    written = 0
    for number, profiles in enumerate(by_shard):
        cursor = {topic: found.cursors[topic, number % partitions] for topic in INPUT_TOPICS}
        token, ordinals = b"", 0
        for start in range(0, max(1, len(profiles)), CHUNK):
            write = ShardWrite(number, token, ids.token(), cursor, found.clocks.get(number, 0), rulebook.hash)
            token = write.token
            write.products, goods[number] = goods[number], {}
            for profile in profiles[start : start + CHUNK]:
                if is_tombstone(profile):
                    write.tombs[tomb_key(profile.address, secret)] = encode(profile)
                elif encode(profile) != encode(Profile(profile.address)):
                    profile.ordinal = ordinals
                    ordinals += 1
                    _put(write, profile, rulebook)
            written += len(write.profiles)
            await commit(store, [write])
    await store.put_doc(REBUILD, DONE)
    return written


def _put(write: ShardWrite, profile: Profile, rulebook: Rulebook) -> None:
    write.new_names.append(profile.address)
    write.profiles[profile.address] = encode(profile)
    write.alarms[profile.address] = profile.alarm_ms()
    write.interest += [(product_id, profile.ordinal, True) for product_id in profile.interest]
    write.members += [(one.name, profile.ordinal, True) for one in rulebook.segments if one.id in profile.members]
