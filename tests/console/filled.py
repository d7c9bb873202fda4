"""A store filled the shortest way: lives played through ``step``, each profile written as a worker would write it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import orjson

from console.api import make_app
from console.callers import Callers
from console.decisions import DecisionWindow
from console.reader import Reader
from console.reports import Reports
from profiles.codec import encode
from profiles.ids import address_of, shard_of
from profiles.moments import DAY_MS
from profiles.state import Profile
from profiles.wire import DECISIONS, INPUT_TOPICS
from rules.rulebook import Rulebook
from stream.clock import LogClock
from stream.ports import ProfileStore, ShardWrite
from stream.rulebook import publish
from stream.store import MemoryStore
from tests.rules.told import START_MS, Life, pack_files, shop_rules

SECRET = bytes(range(32))
OPEN = Callers({}, frozenset({"read"}))
NOW_MS = START_MS + 40 * DAY_MS


class Shell:
    """Writes lives into a store; what they published goes into a window of decisions.

    Attributes:
        clock: what "now" is for the API.
    """

    def __init__(self, store: ProfileStore | None = None, rulebook: Rulebook | None = None) -> None:
        self.clock = LogClock(NOW_MS)
        self.store = MemoryStore(self.clock) if store is None else store
        self.rulebook = shop_rules() if rulebook is None else rulebook
        self.window = DecisionWindow(1_000)
        self._tokens = 0

    async def announce(self, files: list[tuple[str, str]] | None = None) -> None:
        """Say which rules are in force, as a worker does when it starts: the shop's, unless others are given."""
        await publish(self.store, self.rulebook, pack_files() if files is None else files)

    async def write(self, lives: Iterable[Life]) -> None:
        """Commit each life's profile, alarm and memberships."""
        for life in lives:
            await self.write_profile(life.profile, life.members())
            for record in life.records:
                if record.topic == DECISIONS:
                    self.window.take(record.value)

    async def write_profile(self, profile: Profile, members: Iterable[str] = ()) -> None:
        await self.write_members(profile, [(segment, True) for segment in members])

    async def write_members(self, profile: Profile, members: Iterable[tuple[str, bool]]) -> None:
        shard = shard_of(profile.address)
        (state,) = await self.store.read_shards([shard])
        is_new = profile.ordinal < 0
        if is_new:
            profile.ordinal = state.ordinals
        self._tokens += 1
        write = ShardWrite(
            shard=shard,
            expected=state.token,
            token=self._tokens.to_bytes(8, "big"),
            cursor=dict.fromkeys(INPUT_TOPICS, 0),
            clock_ms=max(state.clock_ms, profile.seen_ms),
            generation=self.rulebook.hash,
            profiles={profile.address: encode(profile)},
            alarms={profile.address: profile.alarm_ms()},
            new_names=[profile.address] if is_new else [],
            members=[(segment, profile.ordinal, is_member) for segment, is_member in members],
        )
        assert await self.store.commit([write]) == []

    def reader(self, reports: Reports | None = None) -> Reader:
        """What the API reads from."""
        return Reader(self.store, self.clock, SECRET, self.window, reports=reports)

    def client(self) -> httpx.AsyncClient:
        """Asks the app in this process."""
        app = make_app(self.reader(), OPEN, frozenset({"127.0.0.1"}))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081")


def forwarder(address: str, to: str) -> Profile:
    """An address that was linked to a stronger one."""
    profile = Profile(address)
    profile.forward, profile.link = to, (START_MS, "m1")
    return profile


def hashed(kind: str, value: str) -> str:
    """The address of a personal identifier."""
    return address_of(kind, value, SECRET)


def ana(rulebook: Rulebook, address: str = "user:ana") -> Life:
    """Somebody who registered, bought, and left a cart."""
    life = Life(rulebook, address)
    life.event("Signed Up", START_MS, traits={"email": "ana@shop.example", "first_name": "Ana"})
    life.event("Order Completed", START_MS + DAY_MS, order_id="o1", total=40, currency="EUR", products=[])
    life.event(
        "Product Added", NOW_MS - 60_000, product_id="drill", quantity=1, price="129.90", currency="EUR", cart_id="c1"
    )
    return life


def json_of(answer: httpx.Response) -> Any:
    """The body, read by a stricter reader than the client's."""
    assert answer.headers["content-type"] == "application/json"
    return orjson.loads(answer.content)
