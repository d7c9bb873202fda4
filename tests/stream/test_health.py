"""What probes are told of a worker."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from profiles.errors import Refused
from stream.health import HANGS_MS, Health


class Clock:
    """A clock that stands until it is moved."""

    at_ms = 1_000

    def __call__(self) -> int:
        return self.at_ms


async def test_probes_are_told_whether_the_loop_turns_and_whether_the_worker_is_a_member() -> None:
    clock = Clock()
    health = Health(clock)
    base = f"http://127.0.0.1:{health.serve(0)}"
    async with httpx.AsyncClient(base_url=base, timeout=60) as client:

        async def told(path: str) -> tuple[int, str]:
            answer = await client.get(path)
            return answer.status_code, answer.text

        assert await told("/healthz") == (200, "ok\n")
        assert await told("/readyz") == (503, "not a member of the group\n")
        health.is_ready = lambda: True
        assert await told("/readyz") == (200, "ok\n")

        clock.at_ms += HANGS_MS + 1
        assert await told("/healthz") == (503, "the event loop hangs\n")
        assert await told("/readyz") == (503, "the event loop hangs\n")
        ticking = asyncio.ensure_future(health.tick())
        await asyncio.sleep(0)
        assert await told("/healthz") == (200, "ok\n")
        ticking.cancel()

        status, text = await told("/metrics")
        assert status == 200
        assert "# TYPE opportune_lag_seconds gauge" in text


def test_a_taken_port_is_told() -> None:
    port = Health().serve(0)
    with pytest.raises(Refused, match=f"OPPORTUNE_METRICS_PORT: a free port wanted, {port}"):
        Health().serve(port)
