"""Our tracker in real Chromium: the page on one origin, the collector on another, the broker real."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.collector.server import Collector
from opportune import parts
from profiles.wire import Event
from tests.connectors.edge import WEB_KEY, collecting, raw, stored, under_way

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
NO_STORE = """
for (const name of ["getItem", "setItem"]) Storage.prototype[name] = () => { throw new Error("no store here") };
delete Crypto.prototype.randomUUID;
"""


class Browser:
    """A headless Chromium with a profile of its own, driven over WebDriver's HTTP."""

    def __init__(self, client: httpx.AsyncClient, session: str) -> None:
        self._client = client
        self._session = session

    async def go(self, url: str) -> None:
        """Open a page and return when it is loaded."""
        await self._post("url", {"url": url})

    async def run(self, script: str) -> Any:
        """Run a function's body in the page and return what it returns."""
        return await self._post("execute/sync", {"script": script, "args": []})

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = await self._client.post(f"/session/{self._session}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    port = parts.free_port()
    driver = await asyncio.create_subprocess_exec(
        str(DRIVER), f"--port={port}", "--allowed-ips=127.0.0.1", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=180) as client:
            async with asyncio.timeout(120):
                while not await ready(client):
                    await asyncio.sleep(0.05)
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]}
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            answer = await client.post("/session", json=wanted)
            assert answer.status_code == 200, answer.text
            session = answer.json()["value"]["sessionId"]
            try:
                yield Browser(client, session)
            finally:
                await client.delete(f"/session/{session}")
    finally:
        driver.terminate()
        await driver.wait()


async def ready(client: httpx.AsyncClient) -> bool:
    try:
        return bool((await client.get("/status")).json()["value"]["ready"])
    except httpx.TransportError:
        return False


@asynccontextmanager
async def shop(head: str) -> AsyncIterator[str]:
    """A site whose every page has this in its head; yields its origin."""
    page = f"<!doctype html><title>Shop</title>{head}<h1>Shop</h1>".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        size = len(page)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        )
        writer.write(page)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def tag(collector: Collector, attributes: str = "") -> str:
    src = f"http://127.0.0.1:{collector.port}/t.js"
    return f'<script async src="{src}" data-write-key="{WEB_KEY}" {attributes}></script>'


Until = Callable[[Callable[[list[Event]], bool]], Awaitable[list[Event]]]


@pytest.fixture
def until(fresh_broker: parts.Server) -> Until:
    """Returns the events on the topics, each partition's in its order, once they satisfy a condition."""

    async def wait(enough: Callable[[list[Event]], bool]) -> list[Event]:
        events: list[Event] = []
        async with asyncio.timeout(180):
            while True:
                events = [record.event() for record in await stored(fresh_broker.address)]
                if enough(events):
                    return events
                await asyncio.sleep(0.1)

    return wait


def has(*types: str) -> Callable[[list[Event]], bool]:
    return lambda events: sorted({event.type for event in events}) == sorted(types)


def of(events: list[Event], kind: str) -> Event:
    found = {event.message_id: event for event in events if event.type == kind}
    [event] = found.values()
    return event


async def test_it_tells_of_a_visit_from_another_origin(
    fresh_broker: parts.Server, browser: Browser, until: Until
) -> None:
    async with collecting(fresh_broker.address) as collector, shop(tag(collector)) as origin:
        await browser.go(f"{origin}/sale?utm_source=mail&utm_campaign=autumn")
        await browser.run("""
            opportune.track("Product Added", {product_id: "p-1", price: 9.5, currency: "EUR"});
            opportune.identify("u-1", {email: "ana@shop.example", plan: "gold"});
            opportune.track("Quiz Finished", {score: 7});
        """)
        events = await until(has("page_viewed", "product_added", "identified", "quiz_finished"))
        anonymous = await browser.run("return opportune.anonymousId()")
    page = of(events, "page_viewed")
    assert page.address == f"anon:{anonymous}"
    assert page.props["path"] == "/sale"
    assert page.props["title"] == "Shop"
    assert page.context["campaign"] == {"source": "mail", "name": "autumn"}
    assert page.context["device"] in ("desktop", "bot")
    assert page.context["locale"]
    added = of(events, "product_added")
    assert (added.address, added.props["items"][0]["price_e6"]) == (f"anon:{anonymous}", 9_500_000)
    assert added.context["page"]["url"].startswith(origin)
    known = of(events, "identified")
    assert (known.address, known.identifiers) == ("user:u-1", (f"anon:{anonymous}",))
    assert known.traits == {"email": "ana@shop.example", "plan": "gold"}
    assert of(events, "quiz_finished").address == "user:u-1"
    assert not any(event.trusted for event in events)
    assert len(events) == len({event.message_id for event in events}) == 4


async def test_it_knows_the_visitor_on_the_next_page_until_it_is_reset(
    fresh_broker: parts.Server, browser: Browser, until: Until
) -> None:
    async with collecting(fresh_broker.address) as collector, shop(tag(collector, 'data-auto="off"')) as origin:
        await browser.go(origin)
        first = await browser.run("opportune.identify('u-1'); return opportune.anonymousId()")
        await browser.go(f"{origin}/next")
        await browser.run("opportune.track('second')")
        assert await browser.run("return opportune.anonymousId()") == first
        await browser.run("opportune.reset(); opportune.track('third')")
        events = await until(has("identified", "second", "third"))
    assert of(events, "second").address == "user:u-1"
    third = of(events, "third")
    assert third.address.startswith("anon:")
    assert third.address != f"anon:{first}"


async def test_calls_made_before_it_is_loaded_are_not_lost(
    fresh_broker: parts.Server, browser: Browser, until: Until
) -> None:
    early = '<script>(window.opportune = window.opportune || []).push(["track", "Early", {n: 1}])</script>'
    async with collecting(fresh_broker.address) as collector, shop(early + tag(collector, 'data-auto="off"')) as origin:
        await browser.go(origin)
        events = await until(has("early"))
    assert of(events, "early").props == {"n": 1}


async def test_what_is_tracked_as_the_page_is_left_arrives(
    fresh_broker: parts.Server, browser: Browser, until: Until
) -> None:
    async with collecting(fresh_broker.address) as collector, shop(tag(collector, 'data-auto="off"')) as origin:
        await browser.go(origin)
        await browser.run("""
            for (let n = 0; n < 120; n++) opportune.track("Clicked Away", {n});
            location.href = "about:blank";
        """)
        events = await until(lambda events: len({event.message_id for event in events}) == 120)
    assert {event.props["n"] for event in events} == set(range(120))


COUNTING = """
window.statuses = [];
const real = window.fetch;
window.fetch = (...args) => real(...args).then(answer => { window.statuses.push(answer.status); return answer });
"""


@asynccontextmanager
async def overloaded(collector: Collector) -> AsyncIterator[None]:
    """The one request that this collector takes at a time is under way: others are answered 429, unread."""
    _, writer = await raw(collector.port, "POST /v1/t", length=10)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}", timeout=60) as client:
        await under_way(client, 1)
        yield
        writer.close()
        await under_way(client, 0)


async def answered(browser: Browser, status: int) -> None:
    """Returns when the tracker was given that answer."""
    async with asyncio.timeout(180):
        while status not in await browser.run("return window.statuses"):
            await asyncio.sleep(0.05)


async def test_what_the_collector_could_not_take_is_sent_again_when_it_can(
    fresh_broker: parts.Server, browser: Browser, until: Until
) -> None:
    async with (
        collecting(fresh_broker.address, collector_requests=1) as collector,
        shop(tag(collector, 'data-auto="off"')) as origin,
    ):
        await browser.go(origin)
        await browser.run(COUNTING)
        async with overloaded(collector):
            await browser.run("opportune.track('Patient'); opportune.flush()")
            await answered(browser, 429)
            assert await stored(fresh_broker.address) == []
        await answered(browser, 200)
        [event] = await until(has("patient"))
    # Its time is when it happened, not when it could be sent.
    assert event.received_ms - event.at_ms >= 1000


async def test_what_could_not_be_sent_from_one_page_is_sent_from_the_next(
    fresh_broker: parts.Server, browser: Browser, until: Until
) -> None:
    async with (
        collecting(fresh_broker.address, collector_requests=1) as collector,
        shop(tag(collector, 'data-auto="off"')) as origin,
    ):
        await browser.go(origin)
        await browser.run(COUNTING)
        async with overloaded(collector):
            await browser.run("opportune.track('Left Behind'); opportune.flush()")
            await answered(browser, 429)
            await browser.go(f"{origin}/away")
            assert await stored(fresh_broker.address) == []
        await browser.go(f"{origin}/next")
        [event] = await until(has("left_behind"))
    assert event.context["page"]["path"] == "/"


async def test_without_a_store_a_cookie_remembers_the_visitor(
    fresh_broker: parts.Server, browser: Browser, until: Until
) -> None:
    head = f"<script>{NO_STORE}</script>"
    async with collecting(fresh_broker.address) as collector, shop(head + tag(collector)) as origin:
        await browser.go(origin)
        first = await browser.run("return opportune.anonymousId()")
        await browser.go(f"{origin}/next")
        assert await browser.run("return opportune.anonymousId()") == first
        assert len(first) == 32
        events = await until(lambda events: len(events) == 2)
    assert {event.address for event in events} == {f"anon:{first}"}


@pytest.mark.parametrize(("attributes", "paths"), [("data-spa", ["/", "/a", "/b", "/a"]), ("", ["/"])])
async def test_a_route_change_is_a_page_view_if_asked(
    fresh_broker: parts.Server, browser: Browser, until: Until, attributes: str, paths: list[str]
) -> None:
    async with collecting(fresh_broker.address) as collector, shop(tag(collector, attributes)) as origin:
        await browser.go(origin)
        await browser.run(
            "history.pushState({}, '', '/a'); history.pushState({}, '', '/a'); history.pushState({}, '', '/b')"
        )
        await browser.run("history.back()")
        async with asyncio.timeout(120):
            while await browser.run("return location.pathname") != "/a":
                await asyncio.sleep(0.02)
        await browser.run("opportune.track('done')")
        events = await until(lambda events: any(event.type == "done" for event in events))
    assert [event.props["path"] for event in events if event.type == "page_viewed"] == paths
