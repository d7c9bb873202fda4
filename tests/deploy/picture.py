"""The pictures of the dashboards in docs/pictures: ``python -m tests.deploy.picture [MINUTES]``.

What compose starts is started here natively, as the test of it does; a small shop goes on for some minutes, with rubbish for
one of them; then the dashboards are drawn from what Prometheus scraped. Needs what ``make test-kafka`` needs.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same shop every time
from typing import Any, Final

import httpx

from deploy.grafana.render import now_s, rendered
from profiles.moments import iso
from stream.clock import monotonic_ms, wall_ms
from tests.deploy.compose import ROOT
from tests.deploy.test_production import Production, composed
from tests.parts import real

SEED: Final = 42
VISITORS: Final = 3_000
BATCH: Final = 40
RULES: Final = """
defaults: {currency: EUR, session_gap: PT20S}
segments:
  browsing: {did: page_viewed, window: {within: PT1M}}
  buyers: {did: order_completed, window: {within: P30D}}
  big_carts: {did: product_added, times: {gte: 3}, window: {within: PT2M}}
triggers:
  welcome: {on: {event: registered}, steps: [{emit: welcome}]}
  left_cart:
    on: {event: product_added}
    cancel_on: [{event: order_completed}]
    restart_on: {event: [product_added]}
    steps: [{wait: PT20S}, {emit: left}]
  thanks: {on: {event: order_completed}, steps: [{wait: PT10S}, {emit: thanks}]}
"""


class Shop:
    """Visitors with a habit, one batch of a back end after the other."""

    def __init__(self, production: Production) -> None:
        self._production = production
        self._random = Random(SEED)
        self._sent = 0

    def event(self, *, is_rubbish: bool) -> dict[str, Any]:
        """Something that somebody does."""
        draw, self._sent = self._random.random(), self._sent + 1
        user = f"u-{int(self._random.random() ** 2 * VISITORS)}"
        piece = {"product_id": f"p-{self._sent % 40}", "price": 5 + self._sent % 60, "quantity": 1, "currency": "EUR"}
        common = {"messageId": f"m-{self._sent}", "userId": user}
        if is_rubbish and draw < 0.3:
            return {**common, "type": "track", "event": "Order Completed", "properties": {"total": "much"}}
        if draw < 0.6:
            return {**common, "type": "page", "name": "Home", "properties": {"path": f"/{self._sent % 90}"}}
        if draw < 0.8:
            return {**common, "type": "track", "event": "Product Viewed", "properties": piece}
        if draw < 0.9:
            return {**common, "type": "track", "event": "Product Added", "properties": piece}
        if draw < 0.96:
            said = {"order_id": f"o-{self._sent}", "total": piece["price"], "currency": "EUR", "products": [piece]}
            return {**common, "type": "track", "event": "Order Completed", "properties": said}
        return {**common, "type": "track", "event": "Signed Up", "properties": {}}

    async def go_on(self, client: httpx.AsyncClient, *, is_rubbish: bool) -> None:
        """One batch, and somebody looks at a profile."""
        batch = [self.event(is_rubbish=is_rubbish) for _ in range(int(BATCH * (0.5 + self._random.random())))]
        answer = await client.post(
            f"{self._production.url('collector')}/v1/batch", json={"batch": batch}, auth=(self._production.key, "")
        )
        assert answer.status_code == 200, answer.text
        await client.get(f"{self._production.url('api')}/api/v1/profiles/user:u-1")


async def main(minutes: float, out: Path) -> None:
    """Run the shop, and write the pictures."""
    folder = Path(tempfile.mkdtemp(prefix="opportune-picture-"))
    try:
        async with (
            real.kafka(folder / "kafka") as broker,
            composed(broker, folder, RULES) as production,
            httpx.AsyncClient(timeout=30) as client,
        ):
            shop, since_ms = Shop(production), monotonic_ms()
            while (gone := (monotonic_ms() - since_ms) / 60_000) < minutes:
                await shop.go_on(client, is_rubbish=0.5 * minutes < gone < 0.5 * minutes + 1)
                await asyncio.sleep(0.25)
            address = production.url("prometheus")
            until_s = await asyncio.to_thread(now_s, address)
            said = f"{iso(wall_ms())[:10]}: {minutes:.0f} minutes of a small shop, rubbish for one of them; what compose starts, run natively"
            for name in ("overview", "triggers", "worker"):
                drawn = await asyncio.to_thread(rendered, address, name, until_s - 60 * minutes, until_s, said)
                (out / f"{name}.svg").write_text(drawn)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0, ROOT / "docs" / "pictures"))
