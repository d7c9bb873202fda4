"""``opportune rules fill`` on a broker: a worker goes on under new rules while the log gives back what they count."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from rich.console import Console as Terminal

import opportune.fill
from opportune.fill import run as fill
from stream.fill import Found
from stream.rulebook import IN_FORCE
from tests.conftest import Installation
from tests.integration.live import Portion, live
from tests.integration.parts import Shop, append, as_record, opened, producing, reading, working

LOOKS = "  looked_often: {did: product_viewed, times: {gte: 3}}\n"


@pytest.fixture
def shop(installation: Installation, tmp_path: Path) -> Shop:
    (tmp_path / "rules.yaml").write_text("segments:\n  loyal: {trait: orders_paid, gte: 2}\n")
    return asyncio.run(opened(installation, clock="log", rules=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.invariant("R14")
async def test_what_new_rules_count_is_computed_back_beside_a_running_worker(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opportune.fill, "WAIT_S", 0.2)
    monkeypatch.setattr(opportune.fill, "LOOKS_MAX", 1_000)
    first, *later = live(3, events=600, customers=40, portions=2)
    async with producing(shop) as producer, reading(shop) as topics:

        async def told(portion: Portion) -> None:
            # Each part in its time: what workers tell one another is behind its own while they work off a backlog.
            for part in (portion.flow, portion.close):
                await append(shop, producer, [as_record(one) for one in part])
                await topics.settled()

        async with working(shop):
            await told(first)
        (tmp_path / "rules.yaml").write_text("segments:\n  loyal: {trait: orders_paid, gte: 2}\n" + LOOKS)
        async with working(shop) as worker:
            for portion in later:
                await told(portion)
            assert worker.rules.incomplete() == ["looked_often"]
            before = (await topics.store.segment_sizes(["looked_often"]))["looked_often"]
            found = await asyncio.to_thread(fill, shop.env, Terminal(quiet=True))
            await topics.settled()
            assert (found.sent, found.behind) == (0, 0)
            in_force = orjson.loads(await topics.store.get_doc(IN_FORCE) or b"")
            assert in_force["lacking"] == []
            assert await asyncio.to_thread(fill, shop.env, Terminal(quiet=True)) == Found(0, 0, 0)
        looks: dict[str, int] = {}
        for portion in (first, *later):
            for one in (*portion.flow, *portion.close):
                looks[one.address] = looks.get(one.address, 0) + (one.type == "product_viewed")
        after = (await topics.store.segment_sizes(["looked_often"]))["looked_often"]
        # Some look before they say who they are: they count for whom they are.
        assert before < sum(count >= 3 for count in looks.values()) - 5
        assert after > before
        for address, count in looks.items():
            profile = await topics.profile(address)
            if count >= 3 and profile is not None and not profile.forward:
                assert profile.members.keys() & {one.id for one in worker.rules.segments if one.name == "looked_often"}, address  # fmt: skip
