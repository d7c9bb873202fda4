"""A canary in everything that somebody sends, good and bad: no log, no metric and no error sings of it (R25)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest

from connectors.clock import SystemClock
from connectors.links import CLICK, OPEN, UNSUBSCRIBE, Link, sign
from opportune.parts import HOST, free_port
from profiles.moments import iso
from profiles.wire import CART_EVENTS, DEAD_LETTERS, Record
from tests.conftest import Installation
from tests.connectors.signed import Delivery, SendGrid, of_shopify
from tests.faults.soak import CollectorProcess
from tests.integration.parts import (
    KEYS,
    SECRET,
    SHOP_KEY,
    WEB_KEY,
    append,
    opened,
    processes,
    producing,
    reading,
    until,
)

PHONE: Final = "+79991234567"
BUG: Final = {
    "source": "canary",
    "at_ms": 1,
    "type": "product_added",
    "address": "user:canary",
    "props": {"items": "canary"},
}
WHO: Final = {"userId": "canary-user", "anonymousId": "canary-anon"}
SENT: Final[list[tuple[str, dict[str, Any]]]] = [
    ("identify", {**WHO, "traits": {"email": "canary@bird.example", "phone": PHONE, "first_name": "Canary"}}),
    (
        "track",
        {**WHO, "event": "Canary Sang", "properties": {"canary": "canary", "url": "https://canary.example/?canary"}},
    ),
    ("track", {**WHO, "event": "Order Completed", "properties": {"order_id": "canary", "total": "canary"}}),
    ("track", {**WHO, "event": "Product Added", "properties": {"product_id": ["canary"], "price": "canary"}}),
    ("track", {**WHO, "event": "Product Viewed", "timestamp": "canary"}),
    ("track", {"userId": {"canary": "canary"}, "event": ["canary"]}),
    ("batch", {"batch": [{"type": "canary"}, {"type": "track", **WHO, "event": "Canary"}, "canary"]}),
    ("import", {"batch": [{"type": "track", **WHO, "event": "Order Completed", "properties": {"currency": "canary"}}]}),
    ("canary", {"canary": PHONE}),
]

HUSH: Final = "canary-hush"
GRID: Final = SendGrid()
HOOKS: Final = {"shopify": {"keys": [HUSH]}, "letters": {"kind": "sendgrid", "keys": [GRID.public]}}
LINK_KEY: Final = "canary-key-of-links-canary-key-of-links"
LINKS: Final = [
    f"/c/{sign(Link(CLICK, 'user:canary', 'https://canary.example/?canary', {'campaign': 'canary'}), LINK_KEY)}",
    f"/o/{sign(Link(OPEN, 'user:canary', said={'delivery_id': 'canary'}), LINK_KEY)}",
    f"/u/{sign(Link(UNSUBSCRIBE, 'user:canary', said={'trigger_id': 'canary'}), LINK_KEY)}",
    f"/u/{sign(Link(UNSUBSCRIBE, 'user:canary'), LINK_KEY[::-1])}",
]
SERIES_MAX: Final = 2_000


def deliveries(now_ms: int) -> list[tuple[str, Delivery]]:
    """Webhooks, good and bad, and the path that each goes to."""
    said = {"email": "canary@bird.example", "timestamp": now_ms // 1000, "sg_event_id": "canary"}
    events = [{**said, "event": "open"}, {**said, "event": "canary"}, {**said, "event": "click", "timestamp": "canary"}]
    order = {"id": "canary", "email": "canary@bird.example", "currency": "canary", "updated_at": iso(now_ms)}
    return [
        ("letters", GRID.tells(now_ms, *events)),
        ("letters", GRID.tells(now_ms, body=b"[canary")),
        ("letters", GRID.tells(0, *events)),
        ("letters", SendGrid().tells(now_ms, *events)),
        ("shopify", of_shopify("customers/update", {**order, "first_name": "Canary", "phone": PHONE}, "canary", HUSH)),
        ("shopify", of_shopify("orders/create", order, "canary", HUSH)),
        ("shopify", of_shopify("canary/canary", order, "canary", HUSH)),
        ("shopify", of_shopify("orders/create", order, "canary", "canary")),
        ("canary", Delivery({}, b"canary")),
    ]


@pytest.mark.invariant("R25")
@pytest.mark.invariant("R29")
async def test_nothing_that_is_told_of_somebody_is_in_a_log_a_metric_or_an_error(
    installation: Installation, tmp_path: Path
) -> None:
    port = free_port()
    shop = await opened(installation, log_format="json", log_level="debug", metrics_port=str(port))
    async with processes(shop, tmp_path) as [worker], producing(shop) as producer, reading(shop) as topics:
        collector = CollectorProcess(shop, tmp_path, "collector")
        collector.env |= {
            "OPPORTUNE_COLLECTOR_PORT": str(free_port()),
            "OPPORTUNE_COLLECTOR_HOST": HOST,
            "OPPORTUNE_WRITE_KEYS": orjson.dumps(KEYS).decode(),
            "OPPORTUNE_WEBHOOKS": orjson.dumps(HOOKS).decode(),
            "OPPORTUNE_LINK_KEYS": LINK_KEY,
        }
        collector.start()
        try:
            await collector.ready()
            url = f"http://{HOST}:{collector.env['OPPORTUNE_COLLECTOR_PORT']}"
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                answers = [
                    await client.post(f"/v1/{call}?canary=canary", json=body, auth=(key, ""))
                    for call, body in SENT
                    for key in (SHOP_KEY, WEB_KEY)
                ]
                answers += [
                    await client.post("/v1/track", content=b'{"canary": canary', auth=(WEB_KEY, "")),
                    await client.post("/v1/track", content=b"canary", headers={"content-encoding": "canary"}),
                    await client.post("/v1/track", json={}, auth=("wk_canary", "canary")),
                    await client.post("/v1/track", json={"writeKey": "wk_canary"}),
                    await client.get("/v1/canary"),
                ]
                hooked = [
                    await client.post(f"/hooks/{name}?canary", content=one.body, headers=one.headers)
                    for name, one in deliveries(SystemClock().now_ms())
                ]
                assert [answer.status_code for answer in hooked] == [200, 400, 404, 404, 200, 200, 200, 404, 404]
                answers += hooked
                followed = [
                    await client.request(method, path, headers={"User-Agent": "canary"}, content=b"canary")
                    for path in LINKS
                    for method in ("GET", "POST")
                ]
                assert [answer.status_code for answer in followed] == [302, 405, 200, 405, 200, 200, 404, 404]
                answers += followed
                assert {200, 400, 401, 404} <= {answer.status_code for answer in answers}
                bug = [orjson.dumps({**BUG, "message_id": f"canary-{n}", "received_ms": n + 1}) for n in range(3)]
                bad = [*bug, b"canary", b'{"canary":', orjson.dumps({"message_id": "canary"})]
                await append(shop, producer, [Record(CART_EVENTS, "user:canary", one) for one in bad])
                await worker.ready()
                await topics.settled(workers=[worker])

                async def letters() -> bool:
                    await topics.read()
                    return {"bug", "malformed"} <= {one["reason"] for one in topics.json(DEAD_LETTERS)}

                await until(letters, what="the worker's dead letters")
                told = [answer.text for answer in answers]
                pages = [(await client.get(f"{one}/metrics")).text for one in (url, f"http://{HOST}:{port}")]
                told += pages
        finally:
            if collector.runs:
                collector.kill()
        told += [worker.words(), collector.words()]
    assert all(len(one) > 500 for one in told[-4:])  # They do speak.
    for page in pages:
        assert sum(not line.startswith("#") for line in page.splitlines()) <= SERIES_MAX
    for text in told:
        for word in ("canary", PHONE[1:], SECRET, SHOP_KEY, WEB_KEY, GRID.public.lower()):
            assert word not in text.lower(), [line for line in text.splitlines() if word in line.lower()][:3]
