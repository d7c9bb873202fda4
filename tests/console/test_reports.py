"""Reports over real topics: read whole, read on, and whose addresses are one person found in the store."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY
from rich.console import Console as Terminal

from console.api import make_app
from console.outcomes import Outcomes
from console.reports import Reports, window_of
from opportune import report as command
from profiles.errors import Refused
from profiles.moments import DAY_MS, HOUR_MS
from stream import settings as stream_settings
from stream.clock import LogClock
from stream.log import KafkaLog
from stream.store import RedisStore
from tests.conftest import Installation
from tests.console.filled import OPEN, SECRET, Shell, ana, forwarder, json_of
from tests.console.told_of import Shop
from tests.rules.told import START_MS, rules_of

RULES = "triggers: {demo: {on: {event: registered}, steps: [{emit: hello}]}}"
FOR_ANSWERS = "triggers: {demo: {on: {event: registered}, conversion: {event: survey_answered, where: {question: QUESTION}, within: P7D}, steps: [{emit: hello}]}}"


def outcomes() -> dict[str, float | None]:
    found = {
        what: REGISTRY.get_sample_value("opportune_outcome_moments", {"trigger": "demo", "what": what})
        for what in ("eligible", "opened", "converted")
    }
    return found | {"revenue": REGISTRY.get_sample_value("opportune_outcome_revenue", {"trigger": "demo"})}


@pytest.mark.mechanic("M84")
async def test_reports_are_read_from_the_topics_and_go_on_where_they_were(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    env = {
        "OPPORTUNE_BOOTSTRAP": installation.bootstrap,
        "OPPORTUNE_REDIS_URL": installation.redis_url,
        "OPPORTUNE_SECRET": SECRET.hex(),
        "OPPORTUNE_RULES": str(tmp_path),
        "OPPORTUNE_CURRENCY": "EUR",
    }
    own = stream_settings.read(env).own
    store, log = RedisStore(installation.redis_url), KafkaLog(own)
    book = rules_of(RULES)
    shell, shop = Shell(store, book), Shop(book)
    await shell.announce([("rules.yaml", RULES)])
    await shell.write([ana(book, "user:0")])
    await shell.write_profile(forwarder("anon:a", "user:0"))
    await shell.write_profile(forwarder("device:d", "anon:a"))
    for number in range(3):
        message = shop.asked(f"user:{number}")
        shop.happened(f"user:{number}", "email_opened", START_MS + HOUR_MS, trigger_id=message)
    shop.bought("device:d", START_MS + DAY_MS, "o1", 20)
    reports = Reports(store, {"bootstrap_servers": installation.bootstrap})
    app = make_app(shell.reader(reports), OPEN)
    await log.start()
    try:
        await log.publish(shop.records)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as client:

            async def step(**asked: str) -> dict[str, object]:
                answer = await client.get("/api/v1/triggers/demo/report", params=asked)
                assert answer.status_code == 200, answer.text
                found: dict[str, object] = json_of(answer)["steps"][0]
                return found

            first = await step()
            assert (first["eligible"], first["opened"]) == (3, {"people": 3, "machines": 0})
            assert (first["orders"], first["revenue"]) == (1, {"minor": 2000, "currency": "EUR", "amount": "20.00"})
            assert (await step(within="PT12H"))["orders"] == 0
            assert await step() == first
            more = Shop(book)
            more.asked("user:4")
            await log.publish([*more.records, *shop.records])  # With all of before once more.
            assert (await step())["eligible"] == 4
            # As metrics: of what lies within thirty days of now, and all of this is forty days old.
            await Outcomes(shell.reader(reports), 60).tell()
            assert outcomes() == {"eligible": 0, "opened": 0, "converted": 0, "revenue": 0}
            shell.clock = LogClock(START_MS + 2 * DAY_MS)
            await Outcomes(shell.reader(reports), 60).tell()
            assert outcomes() == {"eligible": 4, "opened": 3, "converted": 1, "revenue": 20}
            for asked, code in (({"within": "P1Y"}, 400), ({"from": "today"}, 400), ({"touch": "seen"}, 400)):
                assert (await client.get("/api/v1/triggers/demo/report", params=asked)).status_code == code
            assert (await client.get("/api/v1/triggers/dem/report")).status_code == 404
            # For something else, whose topic nobody has read so far; and then for something else again.
            answers = Shop(book)
            for user in ("user:1", "user:2"):
                answers.happened(user, "survey_answered", START_MS + HOUR_MS, question="nps", score=9)
            await log.publish(answers.records)
            for question, count in (("nps", 2), ("why", 0)):
                await shell.announce([("rules.yaml", FOR_ANSWERS.replace("QUESTION", question))])
                found = await step()
                assert (found["converted"], found["orders"]) == (count, 1)
            await shell.announce([("rules.yaml", RULES)])
        [told] = await command.ask(env, [], ("", "", "P7D", "sent"))
        assert (told["trigger"], told["steps"][0]["eligible"]) == ("demo", 4)
        terminal = Terminal(record=True, width=200)
        command.show([told], terminal)
        assert "3 (100.0%) + 0" in terminal.export_text()
        with pytest.raises(Refused, match="did you mean 'demo'"):
            await command.ask(env, ["demi"], ("", "", "P7D", "sent"))
        with pytest.raises(Refused, match="--touch: one of sent, opened, clicked wanted"):
            await command.ask(env, [], ("", "", "P7D", "seen"))
    finally:
        await log.stop()
        await store.close()


def test_a_window_is_read_of_words_or_refused() -> None:
    window = window_of("2026-01-01T00:00:00Z", "", "PT2H", "clicked", rules_of(RULES))
    assert (window.within_ms, window.touch, window.until_ms) == (2 * HOUR_MS, "clicked", 1 << 62)
    for words in (("x", "", "P7D", "sent"), ("", "", "P100D", "sent"), ("", "", "7", "sent")):
        with pytest.raises(ValueError, match="wanted"):
            window_of(*words, rules_of(RULES))
