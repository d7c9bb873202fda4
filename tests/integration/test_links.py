"""A letter's links through the real parts: its button takes effect before the next letter, whatever scanners open (R29)."""

from __future__ import annotations

from email import message_from_bytes, policy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from connectors.clock import SystemClock
from profiles import consent
from profiles.moments import iso
from profiles.wire import DEAD_LETTERS, DECISIONS
from tests.conftest import Installation
from tests.integration.parts import SHOP_KEY, collecting, opened, reading, until, working

RULES: Final = """
segments:
  clickers: {trait: email.clicked, gte: 1}
  clickers_twice: {trait: email.clicked, gte: 2}
triggers:
  seen:
    topic: news
    on: {event: product_viewed}
    re_entry: every
    consent: {channel: email, mode: opt_out}
    steps: [{emit: seen}]
"""
KEY: Final = "a key of links that is long enough for them"
LETTERS: Final = Path(__file__).parents[2] / "docs" / "consumer" / "letters.py"
MAIL: Final = "ana@shop.example"


def letter(record: dict[str, Any], at: str) -> Any:
    """The letter that the sender in docs makes of a moment."""
    spec = spec_from_file_location("letters", LETTERS)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module_record = {**record, "payload": {"item": {"product_id": "tea", "url": "https://shop.example/tea"}}}
    return message_from_bytes(
        module.letter(module_record, "shop@shop.example", at, KEY).as_bytes(), policy=policy.default
    )


@pytest.mark.invariant("R29")
@pytest.mark.mechanic("M40")
@pytest.mark.mechanic("M82")
@pytest.mark.mechanic("M83")
async def test_the_button_of_a_letter_takes_effect_before_the_next_one(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    shop = await opened(installation, rules=str(tmp_path))
    async with working(shop) as worker, reading(shop) as topics:
        # Known by her e-mail only: the link bears its hash.
        said: dict[str, Any] = {"anonymousId": "a-1", "traits": {"email": MAIL}, "properties": {"product_id": "tea"}}

        async def decisions() -> list[tuple[str, str]]:
            await topics.settled()
            return [(one["outcome"], one.get("reason") or "") for one in topics.json(DECISIONS)]

        async def look(number: int) -> None:
            at = iso(await worker.store.now_ms())
            view = {"event": "Product Viewed", "messageId": f"view-{number}", "timestamp": at}
            await edge.accepted("track", key=SHOP_KEY, **said, **view)

        async with collecting(shop, SystemClock(), link_keys=KEY) as edge:
            await edge.accepted("identify", key=SHOP_KEY, **said)
            await look(1)
            await until(lambda: _some(topics, "triggers.seen"), what="the first letter")
            [record] = topics.json("triggers.seen")
            assert record["profile"]["address"].startswith("email:~")
            made = letter(record, f"http://127.0.0.1:{edge.port}")
            button, page = made["List-Unsubscribe"].strip("<>"), made.get_body(("html",)).get_content()
            click = page.split('href="')[1].partition('"')[0]
            async with httpx.AsyncClient(timeout=60) as client:
                # A gateway follows every link before anybody reads; then she does.
                for link in (button, click):
                    await client.get(link, headers={"User-Agent": "Proofpoint"})
                answer = await client.get(click, headers={"User-Agent": "Mozilla/5.0 (X11) Firefox/140"})
                assert (answer.status_code, answer.headers["location"]) == (302, "https://shop.example/tea")
                await look(2)
                assert [outcome for outcome, _ in await decisions()] == ["emitted", "emitted"]
                answer = await client.post(button, data={"List-Unsubscribe": "One-Click"})
                assert answer.status_code == 200
            await topics.settled()
            await look(3)
            assert (await decisions())[2:] == [("suppressed", "no_consent")]
        profile = await topics.profile(record["profile"]["address"])
        assert profile is not None
        assert consent.state_of(profile, "email", "news") == "denied"
        assert consent.state_of(profile, "email", "other") is None
        assert list((await topics.store.members("clickers", "", 10))[0]) == [profile.address]
        assert not (await topics.store.members("clickers_twice", "", 10))[0]
        assert topics.on[DEAD_LETTERS] == []


async def _some(topics: Any, topic: str) -> bool:
    await topics.read()
    return bool(topics.on[topic])
