"""F13: merges, un-merges and erasures while workers are killed.

Each person is a browser and a customer, whose carts hold products that nobody else's hold. The browser signs in, and both
go on. Then operators part some again, erase some, and join some with a second account; all of it under kills. What each
must hold then is known beforehand: everything of his once, nothing of anybody else's, and of the erased nothing anywhere.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from console.commands import Commands
from console.unmerge import Parter
from profiles.carts import QUANTITY
from profiles.ids import address_of
from profiles.state import Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import DEAD_LETTERS, DECISIONS, ERASURES, SEGMENT_CHANGES, Event, Record
from rules.undo import NotExact
from stream.clock import wall_ms
from tests.faults.alive import line, plan_of, started
from tests.faults.arena import IDS, WITHIN_S, Arena, standing
from tests.faults.plans import kill_a_worker
from tests.integration.parts import Topics, append, as_record, producing, until
from tests.integration.test_privacy import SECRET_BYTES, asking, everything, parter

KINDS: Final = ("joined", "parted", "erased", "two")
GONE: Final = b"xgone"
AT_ONCE: Final = 32
TOLD_AT_ONCE: Final = 20
TOGETHER: Final = 1_000
RULES: Final = """
traits:
  cart_adds: {count: product_added}
segments:
  fillers: {trait: cart_adds, gte: 1}
triggers:
  filled:
    on: {event: product_added}
    re_entry: every
    steps: [{emit: filled}]
"""

Pieces = dict[str, int]


@dataclass(frozen=True)
class Person:
    """One of them; ``kind`` is what operators do with him."""

    number: int
    kind: str

    @property
    def name(self) -> str:
        """Part of all that is his."""
        return f"{GONE.decode()}-{self.number}" if self.kind == "erased" else f"p-{self.number}"

    @property
    def browser(self) -> str:
        """His anonymous address."""
        return f"anon:a-{self.name}"

    @property
    def user(self) -> str:
        """His account."""
        return f"user:u-{self.name}"

    @property
    def second(self) -> str:
        """His second account, where he has one; greater than the first, so it forwards to that."""
        return f"user:w-{self.name}"

    @property
    def mail(self) -> str:
        """His e-mail."""
        return f"{self.name}@shop.example"

    def wanted(self, *, is_parted: bool) -> dict[str, Pieces | str]:
        """Address -> what lies in the cart there, or where it forwards to."""
        browsers, users = {f"b-{self.name}": 2, f"c-{self.name}": 1}, {f"u-{self.name}": 1}
        if is_parted:
            return {self.browser: browsers, self.user: users}
        found: dict[str, Pieces | str] = {self.browser: self.user, self.user: browsers | users}
        if self.kind == "two":
            found |= {self.user: browsers | users | {f"w-{self.name}": 1}, self.second: self.user}
        return found


def _record(name: str, address: str, message_id: str, *others: str, at_ms: int = 0, **more: Any) -> Record:
    kind, now_ms, traits = resolve(name), wall_ms(), more.pop("traits", {})
    raw = {"currency": "USD", "price": 5, **more} if more else {}
    event = Event(message_id, "web", kind.name, at_ms or now_ms, now_ms, address, others, canonical(kind, raw), traits)
    return as_record(event)


def _fill(address: str, product: str, message_id: str, at_ms: int = 0) -> Record:
    return _record("Product Added", address, message_id, at_ms=at_ms, product_id=product, quantity=1)


def _visits(one: Person) -> list[Record]:
    name = one.name
    first = [_fill(one.browser, f"b-{name}", f"{name}-b{turn}") for turn in range(2)]
    users = [_fill(one.user, f"u-{name}", f"{name}-u")]
    if one.kind == "two":
        users.append(_fill(one.second, f"w-{name}", f"{name}-w"))
    return [*first, *users]


def _sign_in(one: Person) -> list[Record]:
    traits = {"email": one.mail, "first_name": one.name} if one.kind == "erased" else {"plan": "gold"}
    return [_record("Identify", one.user, f"{one.name}-i", one.browser, traits=traits)]


def _afterwards(one: Person) -> list[Record]:
    return [_fill(one.browser, f"c-{one.name}", f"{one.name}-c")]


def _late(one: Person, at_ms: int) -> list[Record]:
    """A telephone that was off tells what happened before he was erased."""
    return [_fill(at, f"l-{one.name}", f"{one.name}-l", at_ms) for at in (one.user, one.browser)]


def _pages(persons: Sequence[Person], size: int) -> list[Sequence[Person]]:
    return [persons[start : start + size] for start in range(0, len(persons), size)]


async def people(seed: int, folder: Path, size: int) -> str:
    """F13 with so many persons, a quarter of each kind."""
    persons = [Person(number, KINDS[number % len(KINDS)]) for number in range(size)]
    async with standing(plan_of("F13", "joined, parted, erased under kills", folder, RULES), seed, folder) as arena:
        await started(arena)
        topics, refused = arena.topics, set[int]()
        async with producing(arena.shop) as producer, asking(arena.shop, topics) as commands:

            async def tell(what: Callable[[Person], list[Record]], whom: Sequence[Person]) -> None:
                for some in _pages(whom, TOLD_AT_ONCE):
                    await append(arena.shop, producer, [record for one in some for record in what(one)])

            # Some after others: an un-merge reads its partition's log since the merge, and with it all who came between.
            for some in _pages(persons, TOGETHER):
                for what in (_visits, _sign_in, _afterwards):
                    await _under_kills(arena, tell(what, some))
                    await topics.settled(WITHIN_S, arena.workers)
                late = partial(_late, at_ms=wall_ms())
                await _under_kills(arena, _operate(arena, commands, some, refused))
                await topics.settled(WITHIN_S, arena.workers)
                await _under_kills(arena, tell(late, [one for one in some if one.kind == "erased"]))
                await topics.settled(WITHIN_S, arena.workers)
        await until(lambda: _nothing_waits(arena), what="outboxes without anything", within_s=WITHIN_S)
        return await _judged(arena, persons, refused)


async def _under_kills(arena: Arena, work: Awaitable[None]) -> None:
    """Do it, and kill one worker after another until it is done and nothing is left to apply; at least one."""
    doing = asyncio.ensure_future(work)
    try:
        while True:
            await kill_a_worker(arena)
            arena.counts["faults"] += 1
            # How long they are left alone is the fault: else nobody would get anywhere.
            await asyncio.wait([doing], timeout=1 + 3 * arena.random.random())
            if doing.done():
                return await doing
    finally:
        doing.cancel()


async def _operate(arena: Arena, commands: Commands, persons: Sequence[Person], refused: set[int]) -> None:
    parting = parter(arena.shop, arena.topics, commands)
    some = asyncio.Semaphore(AT_ONCE)

    async def one_of(one: Person) -> None:
        async with some:
            if one.kind == "erased":
                receipt = await commands.settled(await commands.erase(one.user, "dpo"), WITHIN_S)
            elif one.kind == "two":
                receipt = await commands.settled(await commands.merge(one.second, one.user, "support-7"), WITHIN_S)
            elif one.kind == "parted":
                receipt = await _part(parting, one, arena.counts)
                if receipt["outcome"] == "refused":
                    refused.add(one.number)
                    return
            else:
                return
            assert receipt["outcome"] == "done", f"{one.kind}: {receipt['outcome']}"
            arena.counts[f"done_{one.kind}"] += 1

    async with asyncio.TaskGroup() as all_of_them:
        for one in persons:
            all_of_them.create_task(one_of(one))


async def _part(parting: Parter, one: Person, counts: Counter[str]) -> dict[str, Any]:
    """Ask until it is done, or refused for good: a worker that is away for seconds is none that says no."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await parting.unmerge(one.browser, "dpo", WITHIN_S)
            except NotExact as error:
                counts[f"part_{error.reason}"] += 1
                if error.reason == "not_merged":
                    # Our last try was done, and its receipt was another try's.
                    return {"outcome": "done"}
                if error.reason != "changed":
                    return {"outcome": "refused"}


async def _nothing_waits(arena: Arena) -> bool:
    arena.assert_alive()
    return await arena.outbox() == 0


async def _judged(arena: Arena, persons: Sequence[Person], refused: set[int]) -> str:
    topics, differs = arena.topics, Counter[str]()
    there = await topics.profiles()
    for one in persons:
        if one.kind == "erased":
            continue
        is_parted = one.kind == "parted" and one.number not in refused
        for address, wanted in one.wanted(is_parted=is_parted).items():
            profile = there.get(address)
            if profile is None:
                differs["lost"] += 1
            elif isinstance(wanted, str) or profile.forward:
                differs["wrong"] += profile.forward != wanted
            else:
                _compare(profile, wanted, one, differs)
    # Whoever has a cart of his own is in the segment: of those who were parted, both.
    parted = sum(one.kind == "parted" and one.number not in refused for one in persons)
    fillers = sum(one.kind != "erased" for one in persons) + parted
    differs["wrong"] += abs((await topics.store.segment_sizes(["fillers"]))["fillers"] - fillers)
    await topics.read()
    ids = {topic: topics.ids(topic, IDS.get(topic, "trigger_id")) for topic in arena.shop.topics if _is_output(topic)}
    told = sum(len(topics.on[topic]) for topic in ids)
    letters = len(topics.on[DEAD_LETTERS])
    erased = [one for one in persons if one.kind == "erased"]
    figures = {
        **arena.counts,
        "people": len(persons),
        "refused": len(refused),
        **{name: differs[name] for name in ("lost", "twice", "wrong", "cross_merged")},
        "residue": await _residue(arena.shop.env["OPPORTUNE_REDIS_URL"], topics, erased),
        "published": sum(map(len, ids.values())),
        "dup_id": told - sum(map(len, ids.values())),
        "divergent": sum(len(bodies) > 1 for one in ids.values() for bodies in one.values()),
        "dlq": letters,
    }
    bad = ("lost", "twice", "wrong", "cross_merged", "residue", "divergent", "dlq")
    did_bite = all(arena.counts[name] for name in ("bites", "done_parted", "done_erased", "done_two"))
    return line("F13", arena, figures, did_bite and not any(figures[name] for name in bad))


def _compare(profile: Profile, wanted: Pieces, one: Person, differs: Counter[str]) -> None:
    found = Counter({product: row[QUANTITY] for cart in profile.carts.values() for product, row in cart.items.items()})
    differs["lost"] += (Counter(wanted) - found).total()
    more = found - Counter(wanted)
    differs["twice"] += sum(count for product, count in more.items() if product in wanted)
    differs["cross_merged"] += sum(count for product, count in more.items() if product not in wanted)
    differs["cross_merged"] += sum(not address.endswith(f"-{one.name}") for address in profile.links)


async def _residue(url: str, topics: Topics, erased: Sequence[Person]) -> int:
    """How many places of the store, and records of the register, still say something of an erased person."""
    hashes = {address_of("email", one.mail, SECRET_BYTES).encode() for one in erased}
    found = 0
    for key, value in await everything(url):
        text = key + b"\x00" + value
        found += GONE in text or not hashes.isdisjoint(re.findall(rb"email:[0-9a-zA-Z_-]+", text))
    return found + sum(GONE in one.value for one in topics.on[ERASURES])


def _is_output(topic: str) -> bool:
    return topic in (SEGMENT_CHANGES, DECISIONS) or topic.startswith("triggers.")
