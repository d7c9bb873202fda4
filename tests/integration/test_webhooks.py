"""Webhooks through the real parts: each delivery twice, and everything counts once (R29)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from connectors.clock import SystemClock
from opportune import letters
from opportune.letters import Wanted
from profiles import consent
from profiles.ids import address_of
from profiles.moments import HOUR_MS, MINUTE_MS, SECOND_MS, iso
from profiles.wire import DEAD_LETTERS, EMAIL_EVENTS
from tests.conftest import Installation
from tests.connectors.signed import HUSH, Delivery, SendGrid, of_shopify, sample
from tests.integration.parts import SECRET, Edge, SteppedClock, collecting, opened, reading, until, working

RULES: Final = """
traits:
  refunds: {count: order_refunded}
segments:
  readers: {trait: email.opened, gte: 1}
  readers_twice: {trait: email.opened, gte: 2}
  buyers: {trait: orders_paid, gte: 1}
  buyers_twice: {trait: orders_paid, gte: 2}
  refunded: {trait: refunds, gte: 1}
  refunded_twice: {trait: refunds, gte: 2}
"""
GRID: Final = SendGrid()
HOOKS: Final = orjson.dumps(
    {"shopify": {"keys": [HUSH]}, "letters": {"kind": "sendgrid", "keys": [GRID.public]}}
).decode()
MAIL: Final = "jon@example.com"


async def taken(edge: Edge, path: str, *deliveries: Delivery) -> None:
    """Each of them twice."""
    for delivery in deliveries:
        for _ in range(2):
            answer = await edge.post(path, delivery.body, delivery.headers)
            assert (answer.status_code, answer.content) == (200, b'{"success":true}')


@pytest.mark.invariant("R29")
@pytest.mark.invariant("R21")
@pytest.mark.mechanic("M40")
@pytest.mark.mechanic("M83")
@pytest.mark.mechanic("M97")
async def test_what_is_delivered_twice_counts_once(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    shop = await opened(installation, rules=str(tmp_path))
    async with working(shop) as worker, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        order = orjson.loads(sample("orders_create").body)
        order |= {"test": False, "financial_status": "paid", "cart_token": "c-1", "updated_at": iso(now_ms - MINUTE_MS)}
        refund = {
            "id": 7,
            "order_id": order["id"],
            "created_at": iso(now_ms),
            "transactions": [{"kind": "refund", "status": "success", "amount": "89.99"}],
            "refund_line_items": [{"quantity": 1, "subtotal": 89.99, "line_item": {"product_id": 788032119674292900}}],
        }
        cart = orjson.loads(sample("carts_update").body) | {"token": "c-1", "updated_at": iso(now_ms - 2 * MINUTE_MS)}
        async with collecting(shop, SystemClock(), webhooks=HOOKS) as edge:
            await taken(edge, "/hooks/shopify", of_shopify("carts/update", cart, "e-1"))
            await topics.settled()
            waiting = await topics.profile("anon:shopify-cart-c-1")
            assert waiting is not None
            assert len(waiting.carts) == 1
            checkout = {**cart, "cart_token": "c-1", "email": MAIL, "customer": order["customer"]}
            await taken(edge, "/hooks/shopify", of_shopify("checkouts/create", checkout, "e-4"))
            await topics.settled()
            await taken(
                edge,
                "/hooks/shopify",
                of_shopify("orders/create", order, "e-2"),
                of_shopify("orders/updated", {**order, "updated_at": iso(now_ms), "refunds": [refund]}, "e-3"),
                # Another subscription of the same topic: another webhook, the same event.
                Delivery(
                    of_shopify("orders/create", order, "e-2").headers | {"X-Shopify-Webhook-Id": "another"},
                    orjson.dumps(order),
                ),
            )
            said = {"email": MAIL, "timestamp": now_ms // 1000, "sg_message_id": "m-1"}
            await taken(
                edge,
                "/hooks/letters",
                GRID.tells(
                    SystemClock().now_ms(),
                    {**said, "event": "delivered", "sg_event_id": "s-1"},
                    {**said, "event": "open", "sg_event_id": "s-2", "useragent": "GoogleImageProxy"},
                    {**said, "event": "open", "sg_event_id": "s-3", "sg_machine_open": True},
                    {**said, "event": "group_unsubscribe", "sg_event_id": "s-4", "topic": "news"},
                ),
            )
        await topics.settled()
        profile = await topics.profile("user:115310627314723950")
        assert profile is not None
        now_ms = profile.seen_ms
        traits = {name: shop.rules.readers[name].read(profile, now_ms)[0] for name in ("orders_paid", "refunds")}
        assert traits == {"orders_paid": 1, "refunds": 1}
        assert [one.refunds["7"].amount_minor for one in profile.orders.values()] == [8_999]
        # The order closed its cart, which the checkout had brought along.
        assert not any(one.items for one in profile.carts.values())
        assert consent.state_of(profile, "email", "news") == "denied"
        members = {
            name: (await topics.store.members(name, "", 10))[0] for name in (one.name for one in shop.rules.segments)
        }
        assert {name for name, found in members.items() if list(found) == [profile.address]} == {
            "readers", "buyers", "refunded",
        }  # fmt: skip
        assert [name for name, found in members.items() if found and name.endswith("twice")] == []
        assert topics.on[DEAD_LETTERS] == []


@pytest.mark.invariant("R9")
@pytest.mark.invariant("R29")
async def test_a_letter_of_a_delivery_is_replayed_by_its_headers_and_its_own_part_of_the_body(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = await opened(installation)
    env = {**shop.env, "OPPORTUNE_WEBHOOKS": HOOKS}
    async with working(shop) as worker, reading(shop) as topics:
        now_ms = await worker.store.now_ms()
        clock = SteppedClock(now_ms - HOUR_MS)
        later: dict[str, Any] = {
            "email": MAIL,
            "sg_event_id": "s-1",
            "event": "open",
            "timestamp": (now_ms - 50 * MINUTE_MS) // 1000,
        }
        enabled = {"id": 5, "email": MAIL, "updated_at": iso(now_ms - 50 * MINUTE_MS)}
        async with collecting(shop, clock, webhooks=HOOKS) as edge:
            grid = GRID.tells(clock.at_ms, later, {"event": "odd"})
            shopify = of_shopify("customers/enable", enabled, "e-1")
            answers = [
                await edge.post("/hooks/letters", grid.body, grid.headers),
                await edge.post("/hooks/shopify", shopify.body, shopify.headers),
            ]
        assert [answer.status_code for answer in answers] == [200, 200]

        async def all_there() -> bool:
            await topics.read()
            return len(topics.on[DEAD_LETTERS]) == 3

        await until(all_there, what="three letters")
        assert sorted(one["reason"] for one in topics.json(DEAD_LETTERS)) == ["in_future", "in_future", "no_event"]

        async def replayed(env: dict[str, str]) -> str:
            await asyncio.to_thread(letters.replayed, env, Wanted(), "ana", again=False)
            return capsys.readouterr().out

        unknown = await replayed(dict(shop.env))
        assert unknown.count("no_source: OPPORTUNE_WEBHOOKS: source ") == 3
        told = await replayed(env)
        assert "no_event: " in told
        assert "2 replayed, 0 were before, 1 cannot be taken" in told
        await topics.settled()
        [opening] = topics.json(EMAIL_EVENTS)
        assert opening["address"] == address_of("email", MAIL, bytes.fromhex(SECRET))
        assert opening["at_ms"] == later["timestamp"] * SECOND_MS
        profile = await topics.profile("user:5")
        assert profile is not None
