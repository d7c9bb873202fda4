"""Who is who, through the real parts: public SDKs, unmodified, tell a visit and a sign-in, and one profile holds it all.

The rules are the test's own: they count what came, so that what counts twice is seen.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from rudderstack.analytics.client import Client as RudderClient
from segment.analytics.client import Client as SegmentClient

from connectors.clock import SystemClock
from profiles import carts
from profiles.state import Profile
from profiles.wire import (
    CART_EVENTS,
    CUSTOMER_EVENTS,
    DEAD_LETTERS,
    EVENT_TOPICS,
    MARK,
    ORDER_EVENTS,
    PAGE_VIEWS,
    PROFILE_COMMANDS,
    decode_command,
)
from tests.conftest import Installation
from tests.integration.parts import SHOP_KEY, WEB_KEY, Shop, Topics, collecting, opened, reading, working

RULES = """
traits:
  views: {count: product_viewed}
  adds: {count: product_added}
  spent: {sum: order.total}
segments:
  lookers: {trait: views, gte: 3}
  buyers: {trait: orders_paid, gte: 1}
  carts: {trait: cart.items, gte: 1}
"""
DRILL = {"product_id": "drill", "price": 49.90, "currency": "USD"}
SAW = {"product_id": "saw", "price": 15, "currency": "USD"}
ORDER = {"order_id": "o-1", "currency": "USD", "total": 49.90, "products": [{**DRILL, "quantity": 1}]}

SDKS: dict[str, Any] = {"segment": SegmentClient, "rudder": RudderClient}
each_sdk = pytest.mark.parametrize("sdk", sorted(SDKS))


@pytest.fixture
def shop(installation: Installation, tmp_path: Path) -> Shop:
    (tmp_path / "rules.yaml").write_text(RULES)
    return asyncio.run(opened(installation, rules=str(tmp_path)))


class Sending:
    """An SDK's client with a write key, and what it told of failures."""

    def __init__(self, sdk: str, key: str, port: int) -> None:
        self.failures: list[object] = []
        self.client = SDKS[sdk](
            key, host=f"http://127.0.0.1:{port}/", on_error=lambda error, batch: self.failures.append(error)
        )

    async def all_sent(self) -> None:
        """Returns when the SDK holds nothing any more; it must have been content."""
        await asyncio.to_thread(self.client.flush)
        await asyncio.to_thread(self.client.join)
        assert self.failures == []


async def known(topics: Topics, address: str) -> Profile:
    profile = await topics.profile(address)
    assert profile is not None, address
    return profile


def counted(shop: Shop, profile: Profile, trait: str) -> Any:
    return shop.rules.readers[trait].read(profile, profile.seen_ms)[0]


def cart_of(profile: Profile) -> dict[str, int]:
    return {product: line[carts.QUANTITY] for cart in profile.carts.values() for product, line in cart.items.items()}


async def members(topics: Topics, segment: str) -> set[str]:
    page, cursor = await topics.store.members(segment, "", 1000)
    assert cursor == ""
    return set(page)


@each_sdk
@pytest.mark.invariant("R1")
@pytest.mark.invariant("R2")
@pytest.mark.invariant("R21")
@pytest.mark.invariant("R22")
async def test_a_visit_and_a_sign_in_told_by_an_sdk_are_one_profile_and_repeats_count_once(
    shop: Shop, sdk: str
) -> None:
    async with working(shop), collecting(shop, SystemClock()) as edge, reading(shop) as topics:
        visit = Sending(sdk, WEB_KEY, edge.port)
        tell = visit.client.track
        for number in range(3):
            tell(anonymous_id="a-1", event="Product Viewed", properties=DRILL, message_id=f"view-{number}")
        tell(anonymous_id="a-1", event="Product Added", properties={**DRILL, "quantity": 2}, message_id="add-1")
        tell(anonymous_id="a-1", event="Product Added", properties={**DRILL, "quantity": 2}, message_id="add-1")
        tell(anonymous_id="a-1", event="Product Viewed", properties=DRILL, message_id="view-0")
        await visit.all_sent()
        await topics.settled()
        anonymous = await known(topics, "anon:a-1")
        assert cart_of(anonymous) == {"drill": 2}
        assert counted(shop, anonymous, "views") == 3
        assert await members(topics, "lookers") == {"anon:a-1"}

        signing_in = Sending(sdk, WEB_KEY, edge.port)
        tell = signing_in.client.track
        tell("u-1", "Product Added", {**SAW, "quantity": 1}, message_id="add-2")
        signing_in.client.identify("u-1", {"email": "ana@shop.example"}, anonymous_id="a-1", message_id="in")
        signing_in.client.identify("u-1", {"email": "ana@shop.example"}, anonymous_id="a-1", message_id="in")
        await signing_in.all_sent()
        await topics.settled()
        ana = await known(topics, "user:u-1")
        assert cart_of(ana) == {"drill": 2, "saw": 1}
        assert (await known(topics, "anon:a-1")).forward == "user:u-1"
        assert list(ana.links) == ["anon:a-1"]

        # A straggler of the visit, a message of it told again, and the order, told by the shop's own back end, twice.
        late = Sending(sdk, WEB_KEY, edge.port)
        late.client.track(anonymous_id="a-1", event="Product Viewed", properties=SAW, message_id="view-3")
        late.client.track(
            anonymous_id="a-1", event="Product Added", properties={**DRILL, "quantity": 2}, message_id="add-1"
        )
        await late.all_sent()
        await topics.settled()
        assert cart_of(await known(topics, "user:u-1")) == {"drill": 2, "saw": 1}
        back_end = Sending(sdk, SHOP_KEY, edge.port)
        back_end.client.track("u-1", "Order Completed", ORDER, message_id="order")
        back_end.client.track("u-1", "Order Completed", ORDER, message_id="order")
        await back_end.all_sent()
        await topics.settled()

        ana = await known(topics, "user:u-1")
        assert counted(shop, ana, "views") == 4
        assert counted(shop, ana, "adds") == 2
        assert counted(shop, ana, "orders_paid") == 1
        assert counted(shop, ana, "spent") == 4990
        assert cart_of(ana) == {"saw": 1}
        assert ana.traits["email"].value == "ana@shop.example"
        assert {segment: await members(topics, segment) for segment in ("lookers", "buyers", "carts")} == {
            "lookers": {"user:u-1"},
            "buyers": {"user:u-1"},
            "carts": {"user:u-1"},
        }
        # Every call was accepted and stored once: 6 + 3 + 2 + 2, of which 5 repeat another's message id.
        stored = {topic: [found.json()["message_id"] for found in topics.on[topic]] for topic in EVENT_TOPICS}
        assert {topic: sorted(names) for topic, names in stored.items() if names} == {
            PAGE_VIEWS: ["view-0", "view-0", "view-1", "view-2", "view-3"],
            CART_EVENTS: ["add-1", "add-1", "add-1", "add-2"],
            CUSTOMER_EVENTS: ["in", "in"],
            ORDER_EVENTS: ["order", "order"],
        }
        assert topics.on[DEAD_LETTERS] == []


@pytest.mark.invariant("R22")
@pytest.mark.invariant("R23")
async def test_known_users_never_merge_and_an_anonymous_id_has_one_of_them_at_a_time(shop: Shop) -> None:
    async with working(shop), collecting(shop, SystemClock()) as edge, reading(shop) as topics:
        await edge.accepted("track", event="Product Added", anonymousId="a-1", messageId="m1", properties=DRILL)
        await topics.settled()
        for user in ("u-1", "u-2"):
            await edge.accepted("identify", userId=user, anonymousId="a-1", messageId=f"in-{user}", traits={})
            await topics.settled()
        # A shared device: what it did before goes to the first, what it does from now on to the second.
        await edge.accepted("track", event="Product Added", anonymousId="a-1", messageId="m2", properties=SAW)
        await topics.settled()
        first, second = await known(topics, "user:u-1"), await known(topics, "user:u-2")
        assert cart_of(first) == {"drill": 1}
        assert cart_of(second) == {"saw": 1}
        assert (await known(topics, "anon:a-1")).forward == "user:u-2"
        assert (list(first.links), list(second.links)) == ([], ["anon:a-1"])


@pytest.mark.invariant("R23")
async def test_a_public_key_links_no_email_and_a_secret_key_does(shop: Shop) -> None:
    async with working(shop), collecting(shop, SystemClock()) as edge, reading(shop) as topics:
        await edge.accepted(
            "identify", userId="u-1", anonymousId="a-1", messageId="claim", traits={"email": "ana@shop.example"}
        )
        await topics.settled()
        commands = [decode_command(found.value) for found in topics.on[PROFILE_COMMANDS]]
        assert {command.address for command in commands if command.kind != MARK} == {"anon:a-1", "user:u-1"}
        await edge.accepted(
            "identify", key=SHOP_KEY, userId="u-1", messageId="word", traits={"email": "ana@shop.example"}
        )
        await topics.settled()
        commands = [decode_command(found.value) for found in topics.on[PROFILE_COMMANDS]]
        [email] = {command.address for command in commands if command.kind != MARK} - {"anon:a-1", "user:u-1"}
        assert email.startswith("email:~")
        assert (await known(topics, email)).forward == "user:u-1"
        keys = [found.key or b"" for every in topics.on.values() for found in every]
        assert not [key for key in keys if b"ana" in key]
