"""``ProfileStore`` in Redis 6.2 or later, or Valkey: one server, or a Cluster. Keys: see ``stream.store``.

A commit is one call of ``commit_shard.lua``: on a single server for all shards of a batch, on a Cluster one call a
shard. What is written travels as one msgpack text: the server then parses one argument in place of thousands, and
Lua makes strings of it faster than Redis makes arguments of them.

Commits go out on a connection of their own, one after the other, so a load never waits behind a commit's bytes, and two
commits never overtake each other. Nothing is tried twice in here: what is unknown is the caller's to ask again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgpack
import orjson
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from profiles.errors import Refused
from profiles.ids import SHARDS, shard_of
from stream import metrics
from stream.ports import UNDO_MAX, ShardState, ShardWrite
from stream.redis_client import client_of
from stream.settings import Own
from stream.store_memory import assert_sound, place_of

VERSION_MIN: Final = (6, 2)

LOAD_KEYS_MAX: Final = 500
"""Keys of one MGET: while it answers, the server does nothing else."""

_SCAN: Final = 1_000
"""Keys looked at by one step of a walk."""

_NAMES_MAX: Final = 500
"""Names read at once around a member, whatever the segment's density."""

_SHARDS_AT_ONCE: Final = 16
"""Bitmaps read at once while looking for members."""

_TAGS: Final = [f"{{{shard}}}" for shard in range(SHARDS)]
_PROFILE: Final = [tag + "p:" for tag in _TAGS]

_COMMIT: Final = Path(__file__).with_name("commit_shard.lua").read_text()
_COMMIT_SHA: Final = hashlib.sha1(_COMMIT.encode(), usedforsecurity=False).hexdigest()

_REPLACE: Final = """
if redis.call('GET', KEYS[1]) ~= (ARGV[2] or false) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

_EACH: Final = """
local answers = {}
for at, key in ipairs(cmsgpack.unpack(ARGV[1])) do answers[at] = redis.call(ARGV[2], key, unpack(ARGV, 3)) end
return answers
"""
_PUT_MARKS: Final = """
local now = redis.call('TIME')
local now_ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
for at = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1] .. ' ' .. now_ms) end
"""

_PASSING: Final = re.compile(
    r"\b(OOM|MISCONF|READONLY|LOADING|BUSY|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|MASTERDOWN|non local key)\b"
)
"""Words by which a server says: not now. All else that it refuses will be refused tomorrow, too."""

_PASSING_ERRORS: Final = (  # The same, where the client has taken the word away.
    redis_errors.OutOfMemoryError,
    redis_errors.ReadOnlyError,
    redis_errors.TryAgainError,
    redis_errors.ClusterDownError,
    redis_errors.AskError,
)


class RedisStore:
    """All shards of an installation, in Redis. Belongs to the event loop that first calls it."""

    def __init__(self, url: str, *, cluster: bool = False, timeout_s: float = 5.0) -> None:
        """Nothing is opened before the first call.

        Args:
            url: see ``stream.redis_client``; for a Cluster that of any node.
            cluster: one call a shard, since shards lie on several nodes.
            timeout_s: for connecting, for sending, and for each wait for an answer.
        """
        self._cluster = cluster
        self._where = _without_password(url)
        self._packer = msgpack.Packer(use_bin_type=False)  # Lua's msgpack is older than the bin types.
        self._commits = self._open(url, cluster, timeout_s)
        self._committing = asyncio.Lock()
        self._reads = self._open(url, cluster, timeout_s)

    @classmethod
    def of(cls, own: Own) -> RedisStore:
        """The store that the settings name."""
        return cls(own.redis_url, cluster=own.redis_cluster)

    @staticmethod
    def _open(url: str, cluster: bool, timeout_s: float) -> Any:
        settings: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "socket_keepalive": True,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "decode_responses": False,
        }
        return client_of(url, cluster=cluster, **settings)

    # --- writing ------------------------------------------------------------------------------------------------

    @property
    def is_atomic(self) -> bool:
        """A Cluster's shards lie in different slots, and each slot is written by itself."""
        return not self._cluster

    async def commit(self, writes: Sequence[ShardWrite]) -> list[int]:
        """Write all shards or none, in a Cluster each shard or not, all checks before the first write (R3, R4).

        Raises:
            OSError: the outcome is unknown, or the server takes no writes for now; call again with the same writes.
            Refused: a key of ours holds what is not ours; nothing was written.
        """
        assert_sound(writes)
        if not writes:
            return []
        with self._told("commit"):
            calls = [[write] for write in writes] if self._cluster else [writes]
            commands = [self._command(call) for call in calls]
            async with self._committing:
                answers = await self._run(commands)
        return [call[at - 1].shard for call, refused in zip(calls, answers, strict=True) for at in refused]

    def _command(self, writes: Sequence[ShardWrite]) -> tuple[str | int | bytes, ...]:
        keys = [_TAGS[write.shard] + "cur" for write in writes]
        packed: bytes = self._packer.pack([_part(write, asks=not self._cluster) for write in writes])
        return ("EVALSHA", _COMMIT_SHA, len(keys), *keys, packed)

    async def _run(self, commands: Sequence[tuple[str | int | bytes, ...]]) -> list[list[int]]:
        """The commits' answers. A server that forgot the script has written nothing for that call."""
        answers = await self._pipelined(self._commits, commands)
        if any(isinstance(answer, redis_errors.NoScriptError) for answer in answers):
            await self._commits.script_load(_COMMIT)
            answers = await self._pipelined(self._commits, commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    @staticmethod
    async def _pipelined(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send all, then read all; an answer may be an exception."""
        if not commands:
            return []
        pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers

    async def put_marks(self, marks: Mapping[int, int]) -> None:
        """Publish low times, stamped with the store's clock."""
        if not marks:
            return
        with self._told("put_marks"):
            flat = [number for mark in marks.items() for number in mark]
            await self._reads.eval(_PUT_MARKS, 1, "wm", *flat)

    async def put_doc(self, name: str, value: bytes) -> None:
        """Set a document."""
        with self._told("put_doc"):
            await self._reads.set(f"doc:{name}", value)

    async def replace_doc(self, name: str, before: bytes | None, value: bytes) -> bool:
        """Set a document if nobody has in between."""
        with self._told("replace_doc"):
            wanted = () if before is None else (before,)
            return bool(await self._reads.eval(_REPLACE, 1, f"doc:{name}", value, *wanted))

    # --- reading ------------------------------------------------------------------------------------------------

    async def now_ms(self) -> int:
        """The store's own clock, epoch ms."""
        with self._told("now_ms"):
            target = {}
            if self._cluster:  # Every node has a clock; the one that holds `wm`, and stamps it, is everybody's.
                await self._reads.initialize()
                target = {"target_nodes": self._reads.get_node_from_key("wm")}
            seconds, micros = await self._reads.execute_command("TIME", **target)
        return int(seconds) * 1000 + int(micros) // 1000

    async def read_shards(self, shards: Sequence[int]) -> list[ShardState]:
        """The ``cur`` records, in the order asked."""
        commands: list[tuple[str, str]] = []
        for shard in shards:
            tag = _TAGS[shard]
            commands += (
                ("HGETALL", tag + "cur"), ("HGETALL", tag + "taken"), ("LLEN", tag + "no"), ("HLEN", tag + "er"),
            )  # fmt: skip
        answers = await self._ask("read_shards", commands)
        return [_state(*answers[at : at + 4]) for at in range(0, len(answers), 4)]

    async def load(self, addresses: Sequence[str]) -> list[bytes | None]:
        """Profile blobs in the order asked."""
        if self._cluster:
            return await self._load_by_shard(addresses)
        keys = [_PROFILE[shard_of(address)] + address for address in addresses]
        chunks = [("MGET", *keys[at : at + LOAD_KEYS_MAX]) for at in range(0, len(keys), LOAD_KEYS_MAX)]
        answers = await self._ask("load", chunks)
        if len(answers) == 1:
            return list(answers[0])
        return [blob for answer in answers for blob in answer]

    async def _load_by_shard(self, addresses: Sequence[str]) -> list[bytes | None]:
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, address in enumerate(addresses):
            places[shard_of(address)].append(place)
        commands = [("MGET", *(_PROFILE[shard] + addresses[place] for place in here)) for shard, here in places.items()]
        found: list[bytes | None] = [None] * len(addresses)
        for here, answer in zip(places.values(), await self._ask("load", commands), strict=True):
            for place, blob in zip(here, answer, strict=True):
                found[place] = blob
        return found

    async def tombs(self, wanted: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """Tombstones by (shard, keyed hash of the address), in the order asked."""
        return await self._ask("tombs", [("HGET", _TAGS[shard] + "er", key) for shard, key in wanted])

    async def receipt(self, command_id: str) -> bytes | None:
        """What became of an operator's command: his person may be in any shard."""
        keys = [f"{tag}{kind}:{command_id}" for kind in ("r", "rf") for tag in _TAGS]
        answers = await self._each("receipt", keys, "GET")
        return next((told for told in answers if told), None)

    async def undo(self, address: str) -> list[bytes]:
        """What undoes the latest merges into this address, newest first."""
        (kept,) = await self._ask("undo", [("LRANGE", f"{_TAGS[shard_of(address)]}u:{address}", 0, -1)])
        return list(kept)

    async def addresses(self) -> AsyncIterator[str]:
        """Every address that holds a profile or forwards: a walk over all keys of the server."""
        with self._told("addresses"):
            async for key in self._reads.scan_iter(match="{*}p:*", count=_SCAN):
                tag, _, address = key.decode().partition("p:")
                if tag == _TAGS[shard_of(address)]:
                    yield address

    async def due(self, shards: Sequence[int], until_ms: int, limit: int) -> list[tuple[str, int]]:
        """Alarms up to ``until_ms``, at most ``limit`` per shard, ordered by (due, address)."""
        keys = [_TAGS[shard] + "tm" for shard in shards]
        answers = await self._each("due", keys, "ZRANGEBYSCORE", "-inf", until_ms, "WITHSCORES", "LIMIT", 0, limit)
        found: list[tuple[int, str]] = []
        for answer in answers:
            found += ((int(float(answer[at + 1])), answer[at].decode()) for at in range(0, len(answer), 2))
        found.sort()
        return [(address, due_ms) for due_ms, address in found]

    async def alarms_pending(self, shards: Sequence[int]) -> int:
        """How many profiles have an alarm."""
        return sum(await self._each("alarms_pending", [_TAGS[shard] + "tm" for shard in shards], "ZCARD"))

    async def outboxes(self, shards: Sequence[int]) -> list[list[bytes]]:
        """Whole outboxes in the order asked, oldest entry first."""
        return list(await self._ask("outboxes", [("LRANGE", _TAGS[shard] + "ob", 0, -1) for shard in shards]))

    async def marks(self) -> dict[int, tuple[int, int]]:
        """All partitions' low times, by partition."""
        with self._told("marks"):
            stored = await self._reads.hgetall("wm")
        marks = {int(partition): _two_numbers(mark) for partition, mark in stored.items()}
        return dict(sorted(marks.items()))

    async def segment_sizes(self, segments: Sequence[str]) -> dict[str, int]:
        """Members by segment, over all shards."""
        sizes = {}
        for segment in segments:
            sizes[segment] = sum(await self._each("segment_sizes", [f"{tag}s:{segment}" for tag in _TAGS], "BITCOUNT"))
        return sizes

    async def members(self, segment: str, cursor: str, limit: int) -> tuple[list[str], str]:
        """A page of members' addresses, by shard and ordinal."""
        assert limit >= 1, limit
        first_shard, first = place_of(cursor)
        page: list[str] = []
        for start in range(first_shard, SHARDS, _SHARDS_AT_ONCE):
            shards = range(start, min(start + _SHARDS_AT_ONCE, SHARDS))
            bitmaps = await self._each("members", [f"{_TAGS[shard]}s:{segment}" for shard in shards], "GET")
            wanted: list[tuple[int, int]] = []
            for shard, bitmap in zip(shards, bitmaps, strict=True):
                room = limit - len(page) - len(wanted)
                wanted += ((shard, ordinal) for ordinal in _ordinals(bitmap or b"", first, room))
                first = 0
            page += await self._names(wanted)
            if len(page) == limit:
                shard, ordinal = wanted[-1]
                return page, f"{shard}:{ordinal + 1}"
        return page, ""

    async def named(self, shard: int, first: int, limit: int) -> list[str]:
        """Addresses of a shard by ordinal."""
        [names] = await self._ask("named", [("LRANGE", _TAGS[shard] + "no", first, first + limit - 1)])
        return [name.decode() for name in names if name]

    async def _names(self, wanted: Sequence[tuple[int, int]]) -> list[str]:
        """Addresses by (shard, ordinal), ascending: read in stretches, for a name alone costs a walk of the list."""
        stretches: list[tuple[int, int, list[int]]] = []
        for shard, ordinal in wanted:
            if not stretches or stretches[-1][0] != shard or ordinal >= stretches[-1][1] + _NAMES_MAX:
                stretches.append((shard, ordinal, []))
            stretches[-1][2].append(ordinal)
        commands = [("LRANGE", _TAGS[shard] + "no", first, here[-1]) for shard, first, here in stretches]
        answers = await self._ask("members", commands)
        return [
            names[ordinal - first].decode()
            for (_, first, here), names in zip(stretches, answers, strict=True)
            for ordinal in here
        ]

    async def product_versions(self, shards: Sequence[int]) -> list[int]:
        """How often the products of each shard were written."""
        answers = await self._each("product_versions", [_TAGS[shard] + "cur" for shard in shards], "HGET", "products")
        return [int(answer or 0) for answer in answers]

    async def products(self, shards: Sequence[int]) -> list[dict[str, bytes]]:
        """All products of each shard."""
        answers = await self._ask("products", [("HGETALL", _TAGS[shard] + "pr") for shard in shards])
        return [{product_id.decode(): product for product_id, product in sorted(one.items())} for one in answers]

    async def interested(self, shard: int, product_id: str) -> list[str]:
        """Whom news of a product may interest, by ordinal."""
        [ordinals] = await self._ask("interested", [("SMEMBERS", f"{_TAGS[shard]}ix:{product_id}")])
        return [name for name in await self._names([(shard, one) for one in sorted(map(int, ordinals))]) if name]

    async def get_doc(self, name: str) -> bytes | None:
        """A document, if it was put."""
        with self._told("get_doc"):
            value: bytes | None = await self._reads.get(f"doc:{name}")
        return value

    async def _each(self, what: str, keys: Sequence[str], command: str, *words: str | int) -> list[Any]:
        """One command of many keys: on a single server one call, for what is asked often must cost little."""
        if not keys:
            return []
        if self._cluster:
            return await self._ask(what, [(command, key, *words) for key in keys])
        with self._told(what):
            # One argument in place of hundreds, four times a second: an idle worker's largest call.
            answers: list[Any] = await self._reads.eval(_EACH, 0, self._packer.pack(keys), command, *words)
        return answers

    async def _ask(self, what: str, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with self._told(what):
            answers = await self._pipelined(self._reads, commands)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    # --- may it be used? ----------------------------------------------------------------------------------------

    async def check(self, *, relaxed: bool) -> list[str]:
        """What of R28 the server fails; on a Cluster, any of its masters.

        Raises:
            OSError: it did not answer.
        """
        with self._told("check"):
            if not self._cluster:
                wrong, memory = await self._check_server(self._where, {}, relaxed)
                fullest = memory
            else:
                await self._reads.initialize()
                wrong, fullest = [], (0, 0)
                for node in self._reads.get_primaries():
                    of_node, memory = await self._check_server(node.name, {"target_nodes": node}, relaxed)
                    wrong += of_node
                    fullest = max(fullest, memory)
            for what, size in zip(("used", "max"), fullest, strict=True):
                metrics.STORE_MEMORY.labels(what).set(size)
            return wrong

    async def _check_server(
        self, where: str, target: dict[str, Any], relaxed: bool
    ) -> tuple[list[str], tuple[int, int]]:
        """What one server fails, and its memory: (used, at most)."""
        info = await self._reads.info(**target)
        if info.get("loading"):
            # Until it has read its files it says that it writes none.
            raise ConnectionError(f"store at {where}: check: it is still reading its files")
        wrong = []
        version = str(info.get("redis_version", "0.0"))
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < VERSION_MIN:
            wrong.append(f"version: Redis {VERSION_MIN[0]}.{VERSION_MIN[1]} or later wanted, found {version}")
        if bool(info.get("cluster_enabled")) is not self._cluster:
            kinds = ("a single server", "a node of a Cluster")
            wanted, found = (kinds[1], kinds[0]) if self._cluster else kinds
            wrong.append(f"mode: {wanted} wanted by the setting `cluster`, found {found}")
        if info.get("role") != "master":
            wrong.append(f"role: master wanted, found {info.get('role')}")
        policy = info.get("maxmemory_policy")
        if policy != "noeviction":
            wrong.append(f"maxmemory-policy: noeviction wanted, found {policy}: it would drop profiles")
        if not relaxed and info.get("aof_enabled") != 1:
            wrong += await self._check_snapshots(target)
        memory = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
        return [f"store at {where}: {sentence}" for sentence in wrong], memory

    async def _check_snapshots(self, target: dict[str, Any]) -> list[str]:
        try:
            points = (await self._reads.config_get("save", **target)).get("save")
        except redis_errors.ResponseError as error:  # Providers forbid it, by ACL or by renaming.
            said = str(error)[:80]
            return [f"persistence: AOF wanted, found it off; CONFIG GET, to ask for snapshots, is forbidden ({said})"]
        if not points:
            return ["persistence: AOF (appendonly yes) or snapshots (save) wanted, found neither"]
        return []

    async def close(self) -> None:
        """Let go of the connections."""
        await self._commits.aclose()
        await self._reads.aclose()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn the client's exceptions into the port's. Commands are not quoted: they hold addresses (R25)."""
        where = f"store at {self._where}: {what}"
        try:
            yield
        except (redis_errors.AuthenticationError, redis_errors.AuthorizationError) as error:
            raise Refused(f"{where}: a user that may do this wanted, found: {error}") from None
        except redis_errors.TimeoutError as error:
            raise TimeoutError(f"{where}: {error}") from error
        except (redis_errors.ConnectionError, redis_errors.RedisClusterException) as error:
            raise ConnectionError(f"{where}: {error}") from error
        except (redis_errors.MovedError, redis_errors.ClusterCrossSlotError) as error:
            if self._cluster:
                raise ConnectionError(f"{where}: the shard is on its way to another node") from error
            raise Refused(f"{where}: a single server wanted, found a node of a Cluster (setting `cluster`)") from None
        except redis_errors.ResponseError as error:
            if isinstance(error, _PASSING_ERRORS) or _PASSING.search(str(error)):
                raise ConnectionError(f"{where}: not taken for now: {error}") from error
            raise Refused(f"{where}: {error}") from error


def _part(write: ShardWrite, *, asks: bool) -> tuple[Any, ...]:
    """What ``commit_shard.lua`` unpacks for one shard; the order is its own.

    Args:
        asks: whether it asks for the writes of other shards on which this one stands.
    """
    stands_on = write.stands_on if asks else {}
    tag = _TAGS[write.shard]
    at = _PROFILE[write.shard]
    profiles: list[str | bytes] = []
    gone: list[str] = []
    for address, blob in write.profiles.items():
        if blob is None:
            gone.append(at + address)
        else:
            profiles += (at + address, blob)
    alarms: list[int | str] = []
    silent: list[str] = []
    for address, due_ms in write.alarms.items():
        if due_ms is None:
            silent.append(address)
        else:
            alarms += (due_ms, address)
    members: list[str | int] = []
    for segment, ordinal, is_member in write.members:
        members += (f"{tag}s:{segment}", ordinal, int(is_member))
    taken: list[str] = []
    for (shard, topic), (offset, ordinal) in write.taken.items():
        taken += (f"{shard} {topic}", f"{offset} {ordinal}")
    return (
        write.expected,
        write.token,
        orjson.dumps(write.cursor),
        write.clock_ms,
        write.generation,
        profiles or False,
        gone or False,
        alarms or False,
        silent or False,
        write.outbox or False,
        write.trim or False,
        write.new_names or False,
        members or False,
        taken or False,
        [word for tomb in write.tombs.items() for word in tomb] or False,
        write.forgotten or False,
        [
            word
            for kind, told_of in (("r", write.receipts), ("rf", write.refusals))
            for command_id, told in told_of.items()
            for word in (f"{tag}{kind}:{command_id}", told)
        ]
        or False,
        [f"{tag}u:{address}" for address in write.undo_gone] or False,
        [(f"{tag}u:{address}", undone) for address, undone in write.undo.items()] or False,
        write.keep_ms,
        UNDO_MAX,
        [word for product in write.products.items() if product[1] is not None for word in product] or False,
        [product_id for product_id, product in write.products.items() if product is None] or False,
        [
            word
            for product_id, ordinal, holds in write.interest
            for word in (f"{tag}ix:{product_id}", ordinal, int(holds))
        ]
        or False,
        write.written,
        _lives(write.lives) if write.lives is not None else False,
        [word for (shard, life), number in stands_on.items() for word in (f"{_TAGS[shard]}cur", life.hex(), number)]
        or False,
    )


def _lives(lives: Sequence[tuple[bytes, int]]) -> str:
    return " ".join(f"{life.hex()}:{first}" for life, first in lives)


def _state(cur: dict[bytes, bytes], taken: dict[bytes, bytes], ordinals: int, tombs: int) -> ShardState:
    if not cur:
        return ShardState()
    state = ShardState(
        cur.get(b"token", b""), orjson.loads(cur[b"cursor"]), int(cur[b"clock"]), cur[b"generation"].decode(), ordinals
    )
    state.tombs = tombs
    state.written = int(cur.get(b"written", 0))
    lives = (life.split(":") for life in cur.get(b"lives", b"").decode().split())
    state.lives = tuple((bytes.fromhex(life), int(first)) for life, first in lives)
    for key, value in taken.items():
        shard, _, topic = key.decode().partition(" ")
        state.taken[int(shard), topic] = _two_numbers(value)
    return state


def _two_numbers(text: bytes) -> tuple[int, int]:
    first, second = text.split(b" ")
    return int(first), int(second)


_BITS: Final = [tuple(bit for bit in range(8) if byte & (0x80 >> bit)) for byte in range(256)]
"""Redis counts the bits of a byte from the greatest."""


def _ordinals(bitmap: bytes, first: int, limit: int) -> Iterator[int]:
    """The first ``limit`` set bits from ``first`` on."""
    for place in range(first >> 3, len(bitmap)):
        for bit in _BITS[bitmap[place]]:
            ordinal = place * 8 + bit
            if ordinal >= first:
                if limit <= 0:
                    return
                limit -= 1
                yield ordinal


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path
