"""The window whole: the server in this loop on a real broker, and its page in real Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import console.settings
from console.server import Console
from profiles.errors import Refused
from profiles.wire import DECISIONS
from stream.clock import LogClock, StoreClock
from stream.log import KafkaLog
from stream.store import RedisStore
from tests.conftest import Installation
from tests.connectors.test_tracker_browser import CHROMIUM, DRIVER, Browser, browser
from tests.console.filled import NOW_MS, SECRET, Shell, ana
from tests.console.test_api import decided_life
from tests.rules.told import shop_rules

__all__ = ["browser"]

SHOP = shop_rules()
MARKUP = "<img src=x onerror=\"document.title='owned'\">"


def settings_for(installation: Installation, **more: str) -> console.settings.Settings:
    env = {
        "OPPORTUNE_BOOTSTRAP": installation.bootstrap,
        "OPPORTUNE_REDIS_URL": installation.redis_url,
        "OPPORTUNE_SECRET": SECRET.hex(),
        "OPPORTUNE_API_PORT": "0",
        "OPPORTUNE_API_OPEN": "yes",
        **more,
    }
    return console.settings.read(env)


@pytest.fixture
async def window(installation: Installation) -> AsyncIterator[Console]:
    """A window over two customers in a real store, with their decisions on a real broker."""
    store = RedisStore(installation.redis_url)
    shell = Shell(store, SHOP)
    await shell.announce()
    first = ana(SHOP)
    first.event("Identify", NOW_MS - 50_000, traits={"note": MARKUP})
    first.event("Order Completed", NOW_MS - 40_000, order_id="o2", total=9, currency="EUR", products=[])
    lives = [first, decided_life("user:bob")]
    await shell.write(lives)
    settings = settings_for(installation)
    log = KafkaLog(settings.shared.own)
    await log.start()
    await log.publish([record for life in lives for record in life.records if record.topic == DECISIONS])
    made = Console(settings, store, shell.clock)
    await made.start()
    yield made
    await made.stop()
    await log.stop()
    await store.close()


async def eventually(browser: Browser, script: str, wanted: Any) -> None:
    """The page asks every two seconds, so what it shows is waited for."""
    async with asyncio.timeout(180):
        while await browser.run(script) != wanted:
            await asyncio.sleep(0.05)


async def test_it_is_ready_when_store_rules_and_broker_answer(window: Console) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{window.port}", timeout=60) as client:
        async with asyncio.timeout(120):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.02)
            while (await client.get("/api/v1/decisions")).json()["window"]["kept"] < 2:
                await asyncio.sleep(0.02)
        assert (await client.get("/api/v1/segments/buyers")).json()["size"] == 2


async def test_it_asks_the_store_for_the_time_before_it_serves(installation: Installation) -> None:
    store = RedisStore(installation.redis_url)
    clock = StoreClock(store.now_ms)
    made = Console(settings_for(installation), store, clock)
    await made.start()
    try:
        assert clock.now_ms() > 0
    finally:
        await made.stop()
        await store.close()


def test_every_wrong_setting_is_told_at_once(installation: Installation) -> None:
    with pytest.raises(Refused) as told:
        settings_for(installation, OPPORTUNE_API_PORT="70000", OPPORTUNE_PARTITIONS="7", OPPORTUNE_API_DECISIONS="many")
    assert sorted(line.partition(":")[0] for line in str(told.value).splitlines()) == [
        "OPPORTUNE_API_DECISIONS",
        "OPPORTUNE_API_PORT",
        "OPPORTUNE_PARTITIONS",
    ]
    with pytest.raises(Refused, match="OPPORTUNE_SECRET"):
        Console(settings_for(installation, OPPORTUNE_SECRET=""), RedisStore(installation.redis_url), LogClock())


def test_off_loopback_it_answers_to_any_name_unless_told(installation: Installation) -> None:
    assert settings_for(installation).names() == {"127.0.0.1", "localhost", "::1"}
    assert settings_for(installation, OPPORTUNE_API_HOST="0.0.0.0").names() == frozenset()
    assert settings_for(installation, OPPORTUNE_API_NAMES="Shop.example, x").names() == {"shop.example", "x"}


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
async def test_people_see_sizes_decisions_and_why(window: Console, browser: Browser) -> None:
    origin = f"http://127.0.0.1:{window.port}"
    await browser.go(origin)
    text = "return document.querySelector('{}')?.innerText ?? null"
    size = "return document.querySelector('[data-segment=\"buyers\"]')?.closest('tr').querySelector('.number').innerText ?? null"
    await eventually(browser, size, "2")
    cancelled = (
        "return document.querySelector('#decisions').innerText.includes('not sent: cancelled by order_completed')"
    )
    await eventually(browser, cancelled, True)
    # From a member of a segment to why he is in it.
    await browser.run("document.querySelector('[data-segment=\"cart_open\"]').click()")
    await eventually(browser, "return document.querySelector('#segments a')?.innerText ?? null", "user:ana")
    await browser.run("document.querySelector('#segments a').click()")
    await eventually(
        browser,
        "return document.querySelector('details[open] summary span:nth-child(2)')?.innerText ?? null",
        "cart_open",
    )
    assert "cart.items ≥ 1" in await browser.run(text.format("details[open] .tree"))
    # Spans are told as people count them.
    gap = "return [...document.querySelectorAll('.facts dt')].find((one) => one.innerText === 'mean_gap')?.nextSibling.innerText ?? null"
    assert await browser.run(gap) == "38 days"
    # What customers say of themselves is text.
    assert MARKUP in await browser.run(text.format("#profile"))
    assert await browser.run("return document.title") == "Opportune"
    # A customer is asked for by hand; what is nobody is said.
    await browser.run(
        "document.getElementById('address').value = 'nobody'; document.querySelector('form button').click()"
    )
    await eventually(browser, text.format("#profile .bad"), "address: one that holds a profile wanted, got nothing")
    broken = await browser.run(
        "return performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(origin)).length"
    )
    assert broken == 0, "nothing is fetched from elsewhere"


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
async def test_the_page_asks_for_a_token_where_one_is_wanted(installation: Installation, browser: Browser) -> None:
    store = RedisStore(installation.redis_url)
    shell = Shell(store, SHOP)
    await shell.announce()
    await shell.write([ana(SHOP)])
    made = Console(
        settings_for(installation, OPPORTUNE_API_OPEN="no", OPPORTUNE_API_TOKEN="t" * 24), store, shell.clock
    )
    await made.start()
    try:
        await browser.go(f"http://127.0.0.1:{made.port}")
        await eventually(browser, "return document.getElementById('token').hidden", False)
        assert await browser.run("return document.querySelectorAll('[data-segment]').length") == 0
        await browser.run(
            "const field = document.getElementById('token'); field.value = 't'.repeat(24); "
            "field.dispatchEvent(new Event('change'))"
        )
        await eventually(browser, "return document.querySelectorAll('[data-segment]').length > 0", True)
        assert await browser.run("return document.getElementById('token').hidden")
    finally:
        await made.stop()
        await store.close()
