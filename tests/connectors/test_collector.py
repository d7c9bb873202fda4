"""The collector on a real broker: what is answered, when, and what then lies on the topics."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import os
import signal
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors import links
from connectors.clock import SystemClock
from connectors.collector import http
from connectors.collector.server import ROUTES, Collector
from connectors.collector.tracker import BYTES_MAX, read_tracker
from connectors.publisher import Publisher, PublishFailed, kafka_options
from connectors.settings import describe, read
from opportune import parts
from opportune.topics import create_topics, wanted_topics
from profiles import ids
from profiles.errors import Refused
from profiles.moments import DAY_MS, iso
from profiles.wire import CUSTOMER_EVENTS, DEAD_LETTERS, EVENT_TOPICS, PAGE_VIEWS, Record
from tests.connectors.edge import (
    KEYS,
    SETTINGS,
    SHOP,
    SHOP_KEY,
    WEB,
    WEB_KEY,
    answer_of,
    collecting,
    raw,
    stored,
    under_way,
)
from tests.parts import real

ORIGIN = {"Origin": "https://shop.example"}


@pytest.fixture
async def collector(broker: str) -> AsyncIterator[Collector]:
    async with collecting(broker) as one:
        yield one


@pytest.fixture
async def client(collector: Collector) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(collector) as one:
        yield one


def client_of(collector: Collector, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}", timeout=180, **options)


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> str:
    """Text that only this test's events hold."""
    return hashlib.blake2b(request.node.nodeid.encode(), digest_size=8).hexdigest()


def track(mark: str, **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Quiz", "userId": f"u-{mark}", "messageId": f"m-{mark}", **more}


def is_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == code
    assert answer.json()["message"]


# --- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(ROUTES))
async def test_every_route_answers_exactly_success(client: httpx.AsyncClient, path: str, mark: str) -> None:
    event = track(mark, previousId="a-0", groupId="g")
    many = ROUTES[path] in ("batch", "import")
    answer = await client.post(path, auth=SHOP, json={"batch": [event]} if many else event)
    assert (answer.status_code, answer.content) == (200, b'{"success":true}')


@pytest.mark.invariant("R1")
async def test_what_is_answered_with_200_lies_on_its_topic(client: httpx.AsyncClient, broker: str, mark: str) -> None:
    answer = await client.post("/v1/page", auth=WEB, json={"anonymousId": f"a-{mark}", "messageId": "m"})
    assert answer.status_code == 200
    [record] = await stored(broker, mark)
    assert (record.topic, record.key) == (PAGE_VIEWS, f"anon:a-{mark}")
    assert record.event().source == "web"


async def test_the_write_key_may_stand_in_header_body_or_jitsus_header(client: httpx.AsyncClient, mark: str) -> None:
    event = track(mark)
    jitsu = {"X-Write-Key": f"{WEB_KEY}:anything"}
    assert (await client.post("/v1/t", json={**event, "writeKey": WEB_KEY})).status_code == 200
    assert (await client.post("/v1/t", auth=WEB, json={**event, "writeKey": "***"})).status_code == 200
    assert (await client.post("/api/s/track", headers=jitsu, json={**event, "writeKey": "***"})).status_code == 200


async def test_a_wrong_or_missing_key_is_401(client: httpx.AsyncClient, mark: str) -> None:
    is_error(await client.post("/v1/t", auth=("wk_none", ""), json=track(mark)), 401, "unknown_key")
    is_error(await client.post("/v1/t", json=track(mark)), 401, "unknown_key")
    is_error(await client.post("/v1/t", json={**track(mark), "writeKey": "wk_none"}), 401, "unknown_key")
    is_error(await client.post("/v1/t", headers={"Authorization": "Bearer x"}, json=track(mark)), 401, "unknown_key")


async def test_a_key_that_has_ended_is_401_and_the_metrics_tell_when_it_ends(broker: str, mark: str) -> None:
    now_ms = SystemClock().now_ms()
    said = {"source": f"ends-{mark}", "kind": "public"}
    keys = json.dumps({"gone": {**said, "until": iso(now_ms - 1)}, "goes": {**said, "until": iso(now_ms + DAY_MS)}})
    async with collecting(broker, write_keys=keys) as collector:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}", timeout=60) as client:
            is_error(await client.post("/v1/t", auth=("gone", ""), json=track(mark)), 401, "unknown_key")
            assert (await client.post("/v1/t", auth=("goes", ""), json=track(mark))).status_code == 200
            told = (await client.get("/metrics")).text
    [line] = [one for one in told.splitlines() if f'expires_timestamp_seconds{{source="ends-{mark}"' in one]
    assert float(line.rpartition(" ")[2]) == (now_ms + DAY_MS) / 1000


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json;charset=UTF-8", "x"]
)
@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_is_json_whatever_its_type_says(
    client: httpx.AsyncClient, broker: str, mark: str, kind: str, packed: bool
) -> None:
    body = json.dumps({"batch": [track(mark)]}).encode()
    headers = {"Content-Type": kind} | ({"Content-Encoding": "gzip"} if packed else {})
    answer = await client.post("/v1/batch", auth=SHOP, headers=headers, content=gzip.compress(body) if packed else body)
    assert answer.status_code == 200
    assert len(await stored(broker, mark)) == 1


async def test_history_needs_a_secret_key(client: httpx.AsyncClient, broker: str, mark: str) -> None:
    body = {"batch": [track(mark, timestamp="2014-05-01T00:00:00Z")]}
    is_error(await client.post("/v1/import", auth=WEB, json=body), 403, "needs_secret_key")
    assert (await client.post("/v1/import", auth=SHOP, json=body)).status_code == 200
    [record] = await stored(broker, mark)
    assert record.event().backfill


async def test_events_of_one_user_keep_their_order(client: httpx.AsyncClient, broker: str, mark: str) -> None:
    batch = [track(mark, messageId=f"{number}", properties={"pad": "x" * 900}) for number in range(1000)]
    assert (await client.post("/v1/batch", auth=SHOP, json={"batch": batch})).status_code == 200
    found = await stored(broker, mark)
    assert [record.event().message_id for record in found] == [str(number) for number in range(1000)]
    assert len({record.partition for record in found}) == 1


async def test_many_clients_at_once_lose_nothing(client: httpx.AsyncClient, broker: str, mark: str) -> None:
    async def send(number: int) -> None:
        batch = [track(mark, userId=f"{mark}-{number}-{place}", messageId=f"{number}.{place}") for place in range(20)]
        assert (await client.post("/v1/batch", auth=SHOP, json={"batch": batch})).status_code == 200

    await asyncio.gather(*(send(number) for number in range(50)))
    found = [record.event().message_id for record in await stored(broker, mark)]
    assert sorted(found) == sorted(f"{number}.{place}" for number in range(50) for place in range(20))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R9")
async def test_a_partly_bad_batch_is_a_success_and_says_what_it_refused(
    client: httpx.AsyncClient, broker: str, mark: str
) -> None:
    bad = {"type": "track", "event": "Quiz", "x": mark}
    answer = await client.post("/v1/batch", auth=WEB, json={"batch": [track(mark), bad, track(mark, messageId="m2")]})
    assert answer.status_code == 200
    message = "userId, anonymousId: one of them wanted, got neither"
    assert answer.json() == {
        "success": True,
        "refused": 1,
        "refusals": [{"place": 1, "code": "missing_id", "message": message}],
    }
    found = await stored(broker, mark)
    assert [record.topic for record in found].count(CUSTOMER_EVENTS) == 2
    [letter] = [record.letter() for record in found if record.topic == DEAD_LETTERS]
    assert (letter["reason"], json.loads(letter["original"])) == ("missing_id", bad)


async def test_a_bad_event_on_its_own_is_400_and_a_dead_letter(
    client: httpx.AsyncClient, broker: str, mark: str
) -> None:
    is_error(await client.post("/v1/track", auth=WEB, json={"event": mark}), 400, "missing_id")
    [record] = await stored(broker, mark)
    assert record.letter()["reason"] == "missing_id"


async def test_a_body_that_is_not_json_is_400_and_a_dead_letter_if_we_know_from_whom(
    client: httpx.AsyncClient, broker: str, mark: str
) -> None:
    body = b'{"batch":[' + mark.encode() + b"\x00\xff"
    is_error(await client.post("/v1/batch", content=body), 400, "bad_json")
    assert await stored(broker, mark) == []
    is_error(await client.post("/v1/batch", auth=WEB, content=body), 400, "bad_json")
    letters = [record.letter() for record in await stored(broker, "original_base64")]
    [letter] = [one for one in letters if b64decode(one["original_base64"]) == body]
    assert letter["reason"] == "bad_json"


async def test_a_large_original_reaches_the_dead_letters(client: httpx.AsyncClient, broker: str, mark: str) -> None:
    huge = {"type": "track", "event": mark, "userId": "u", "properties": {"x": '"' * 1_500_000}}
    assert (await client.post("/v1/batch", auth=WEB, json={"batch": [huge, track(mark)]})).json()["refused"] == 1
    assert sorted(record.topic for record in await stored(broker, mark)) == [CUSTOMER_EVENTS, DEAD_LETTERS]


async def test_too_large_a_body_is_413_announced_chunked_or_inflated(broker: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    async with collecting(broker, collector_body_bytes=65_536) as collector, client_of(collector) as client:
        is_error(await client.post("/v1/batch", auth=WEB, content=b" " * 65_537, headers=ORIGIN), 413, "too_large")
        is_error(await client.post("/v1/batch", auth=WEB, content=chunks()), 413, "too_large")
        bomb = gzip.compress(bytes(64 << 20))
        assert len(bomb) < 65_536
        packed = {"Content-Encoding": "gzip"}
        is_error(await client.post("/v1/batch", auth=WEB, content=bomb, headers=packed), 413, "too_large")
        is_error(await client.post("/v1/batch", auth=WEB, content=b"{}", headers=packed), 400, "bad_encoding")
        other = {"Content-Encoding": "br"}
        is_error(await client.post("/v1/batch", auth=WEB, content=b"{}", headers=other), 415, "unsupported_encoding")


async def test_too_many_events_are_413(broker: str) -> None:
    async with collecting(broker, collector_batch_events=2) as collector, client_of(collector) as client:
        is_error(await client.post("/v1/batch", auth=WEB, json={"batch": [1, 2, 3]}), 413, "too_many_events")


async def test_other_paths_and_methods_are_refused_in_json(client: httpx.AsyncClient) -> None:
    is_error(await client.post("/v1/nothing", headers=ORIGIN), 404, "not_found")
    is_error(await client.get("/v1/track"), 405, "method_not_allowed")
    answer = await client.put("/v1/batch")
    is_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"
    is_error(await client.post("/metrics"), 405, "method_not_allowed")


# --- other origins ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        "authorization,x-retry-count",
        "anonymousid,authorization,content-type,rsa-retry-attempt,rsa-since-last-attempt,sentat",
    ],
)
async def test_a_preflight_is_answered_without_a_key_and_echoes_what_it_asks(
    client: httpx.AsyncClient, asked: str
) -> None:
    headers = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    answer = await client.options("/v1/t", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert answer.headers["access-control-allow-headers"] == asked
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert int(answer.headers["access-control-max-age"]) > 5


async def test_every_answer_to_another_origin_may_be_read_there(client: httpx.AsyncClient, mark: str) -> None:
    answers = [
        await client.post("/v1/t", auth=WEB, json=track(mark), headers=ORIGIN),
        await client.post("/v1/t", auth=WEB, json={}, headers=ORIGIN),
        await client.post("/v1/t", json={}, headers=ORIGIN),
        await client.post("/v1/none", headers=ORIGIN),
        await client.put("/v1/t", headers=ORIGIN),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 401, 404, 405]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert answer.headers["access-control-expose-headers"] == "retry-after"
        assert "origin" in answer.headers["vary"]


# --- load and faults --------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R27")
async def test_with_too_many_requests_under_way_new_ones_are_429_before_their_body_is_read(
    broker: str, mark: str
) -> None:
    async with collecting(broker, collector_requests=1) as collector, client_of(collector) as client:
        body = json.dumps(track(mark)).encode()
        reader, writer = await raw(collector.port, "POST /v1/t", length=len(body))
        await under_way(client, 1)
        # Not a byte of its body is ever sent, and it is answered.
        other, other_writer = await raw(collector.port, "POST /v1/t", length=1000)
        assert "429" in await answer_of(other)
        answer = await client.post("/v1/t", auth=WEB, json=track(mark), headers=ORIGIN)
        is_error(answer, 429, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["access-control-expose-headers"] == "retry-after"
        writer.write(body)
        assert "200" in await answer_of(reader)
        assert (await client.post("/v1/t", auth=WEB, json=track(mark))).status_code == 200
        writer.close()
        other_writer.close()


@pytest.mark.invariant("R27")
async def test_bytes_under_way_are_bounded_as_announced_and_as_inflated(broker: str, mark: str) -> None:
    async with collecting(broker, collector_bytes=1 << 20) as collector, client_of(collector) as client:
        _, writer = await raw(collector.port, "POST /v1/batch", length=900_000)
        await under_way(client, 1)
        is_error(await client.post("/v1/batch", auth=WEB, content=b" " * 200_000), 429, "overloaded")
        packed = gzip.compress(b" " * 2_000_000)
        answer = await client.post("/v1/batch", auth=WEB, content=packed, headers={"Content-Encoding": "gzip"})
        is_error(answer, 429, "overloaded")
        assert (await client.post("/v1/t", auth=WEB, json=track(mark))).status_code == 200
        writer.close()
        await under_way(client, 0)
        assert (await client.post("/v1/batch", auth=WEB, content=b'{"batch":[]}' + b" " * 200_000)).status_code == 200


async def refused_once(client: httpx.AsyncClient, **request: Any) -> httpx.Response:
    """Ask until it is too often."""
    while (answer := await client.post("/v1/t", **request)).status_code == 200:
        pass
    return answer


@pytest.mark.invariant("R27")
@pytest.mark.invariant("R29")
async def test_who_asks_too_often_is_429_and_does_not_cost_another_key_or_address(broker: str, mark: str) -> None:
    async with collecting(broker, collector_key_per_s=1) as collector, client_of(collector) as client:
        for request in ({"auth": WEB, "json": track(mark)}, {"json": track(mark, writeKey=WEB[0])}):
            answer = await refused_once(client, headers=ORIGIN, **request)
            is_error(answer, 429, "too_often")
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["access-control-expose-headers"] == "retry-after"
        assert (await client.post("/v1/t", auth=SHOP, json=track(mark))).status_code == 200
    async with collecting(broker, collector_address_per_s=1, collector_proxies=1) as collector:
        async with client_of(collector) as client:
            first, second = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
            is_error(await refused_once(client, auth=WEB, json=track(mark), headers=first), 429, "too_often")
            assert (await client.post("/v1/t", auth=WEB, json=track(mark), headers=second)).status_code == 200
    async with collecting(broker, collector_per_s=1) as collector, client_of(collector) as client:
        is_error(await refused_once(client, auth=WEB, json=track(mark)), 429, "too_often")


async def test_a_body_that_does_not_come_is_408_and_a_client_that_left_is_forgotten(broker: str) -> None:
    async with collecting(broker, collector_read_ms=100) as collector, client_of(collector) as client:
        reader, writer = await raw(collector.port, "POST /v1/t", length=1000)
        assert "408" in await answer_of(reader)
        writer.close()
        _, gone = await raw(collector.port, "POST /v1/t", length=1000)
        gone.close()
        await under_way(client, 0)


async def test_a_head_that_is_too_long_or_does_not_come_closes_the_connection(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_S_MAX", 0.2)
    async with collecting(broker) as collector, client_of(collector) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", collector.port)
        writer.write(b"POST /v1/t HTTP/1.1\r\n")
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", collector.port)
        writer.write(b"POST /v1/t HTTP/1.1\r\n" + b"X-Long: " + b"x" * 1000 + b"\r\n")
        with pytest.raises(ConnectionError):
            await flood(writer, b"X-Long: " + b"x" * 1000 + b"\r\n")
        writer.close()
        # A connection kept alive may be silent for longer.
        assert (await client.get("/healthz")).status_code == 200
        await asyncio.sleep(0.4)
        assert (await client.get("/healthz")).status_code == 200


async def flood(writer: asyncio.StreamWriter, line: bytes) -> None:
    for _ in range(10_000):
        writer.write(line)
        await writer.drain()


@pytest.mark.invariant("R1")
async def test_nothing_is_answered_before_the_broker_has_acknowledged(fresh_broker: parts.Server, mark: str) -> None:
    async with (
        collecting(fresh_broker.address, collector_publish_ms=60_000) as collector,
        client_of(collector) as client,
    ):
        fresh_broker.pause()
        sent = asyncio.create_task(client.post("/v1/t", auth=WEB, json=track(mark)))
        await under_way(client, 1)
        done, _ = await asyncio.wait([sent], timeout=1)
        assert not done
        fresh_broker.resume()
        assert (await sent).status_code == 200
        assert len(await stored(fresh_broker.address, mark)) == 1


@pytest.mark.invariant("R27")
async def test_while_the_broker_is_silent_requests_are_503_unread_and_then_it_goes_on_by_itself(
    fresh_broker: parts.Server, mark: str
) -> None:
    async with (
        collecting(fresh_broker.address, collector_publish_ms=1000, collector_stalled_ms=100) as collector,
        client_of(collector) as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        fresh_broker.pause()
        first = await client.post("/v1/t", auth=WEB, json=track(mark), headers=ORIGIN)
        is_error(first, 503, "unavailable")
        assert first.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        reader, writer = await raw(collector.port, "POST /v1/t", length=1000)
        assert "503" in await answer_of(reader)
        writer.close()
        unready = await client.get("/readyz")
        is_error(unready, 503, "unavailable")
        assert int(unready.headers["retry-after"]) > 0
        assert (await client.get("/healthz")).status_code == 200
        fresh_broker.resume()
        async with asyncio.timeout(180):
            while (await client.post("/v1/t", auth=WEB, json=track(mark))).status_code != 200:
                await asyncio.sleep(0.1)
        assert len(await stored(fresh_broker.address, mark)) >= 1


@pytest.mark.kafka
@pytest.mark.invariant("R27")
async def test_a_broker_that_died_and_came_back_is_used_again(tmp_path: Path, mark: str) -> None:
    broker = real.kafka(tmp_path / "broker", port=parts.free_port())
    await broker.start()
    try:
        async with (
            collecting(broker.address, collector_publish_ms=2000, collector_stalled_ms=200) as collector,
            client_of(collector) as client,
        ):
            assert (await client.post("/v1/t", auth=WEB, json=track(mark, messageId="before"))).status_code == 200
            broker.kill()
            is_error(await client.post("/v1/t", auth=WEB, json=track(mark, messageId="lost")), 503, "unavailable")
            await broker.start()
            async with asyncio.timeout(180):
                while (await client.post("/v1/t", auth=WEB, json=track(mark, messageId="after"))).status_code != 200:
                    await asyncio.sleep(0.1)
            found = {record.event().message_id for record in await stored(broker.address, mark)}
            # What was answered 503 may be stored or not; its client sends it again.
            assert {"before", "after"} <= found <= {"before", "lost", "after"}
    finally:
        await broker.stop()


async def test_what_is_under_way_is_finished_before_it_stops(broker: str, mark: str) -> None:
    async with collecting(broker) as collector, client_of(collector) as client:
        body = json.dumps(track(mark)).encode()
        reader, writer = await raw(collector.port, "POST /v1/t", length=len(body))
        await under_way(client, 1)
        stopping = asyncio.create_task(collector.stop())
        async with asyncio.timeout(120):
            while True:
                try:
                    _, probe = await asyncio.open_connection("127.0.0.1", collector.port)
                    probe.close()
                    await asyncio.sleep(0.01)
                except ConnectionError:
                    # Refused; or reset, if it was knocking just as the door closed.
                    break
        writer.write(body)
        assert "200" in await answer_of(reader)
        await stopping
        writer.close()
    assert len(await stored(broker, mark)) == 1


async def test_its_own_process_ends_cleanly_at_sigterm(broker: str, mark: str) -> None:
    await create_topics(broker, wanted_topics())
    port = parts.free_port()
    env = {
        **os.environ,
        "OPPORTUNE_BOOTSTRAP": broker,
        "OPPORTUNE_SECRET": SETTINGS.secret,
        "OPPORTUNE_WRITE_KEYS": KEYS,
        "OPPORTUNE_COLLECTOR_HOST": "127.0.0.1",
        "OPPORTUNE_COLLECTOR_PORT": str(port),
    }
    program = "import os; from connectors.settings import read; from connectors.collector.server import run; run(read(os.environ))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=env)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client, asyncio.timeout(180):
            while True:
                try:
                    answer = await client.post("/v1/t", auth=WEB, json=track(mark))
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(120):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# --- beside events ----------------------------------------------------------------------------------------------------


async def test_metrics_count_by_configured_names_only(client: httpx.AsyncClient, mark: str) -> None:
    await client.post("/v1/batch", auth=WEB, json={"batch": [track(mark, event=mark), {"type": mark}]})
    text = (await client.get("/metrics")).text
    assert 'opportune_collector_events_accepted_total{source="web",type="other"}' in text
    assert 'opportune_collector_dead_letters_total{reason="bad_type",source="web"}' in text
    assert 'opportune_collector_requests_total{route="batch",status="200"}' in text
    assert mark not in text


async def test_the_tracker_is_small_cached_and_asked_for_again_by_its_tag(client: httpx.AsyncClient) -> None:
    answer = await client.get("/t.js")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["content-encoding"] == "gzip"
    assert "max-age" in answer.headers["cache-control"]
    assert answer.content == read_tracker().plain
    assert len(answer.content) <= BYTES_MAX
    plain = await client.get("/t.js", headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content
    again = await client.get("/t.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await client.head("/t.js")).content == b""


@pytest.mark.parametrize(("hops", "ip"), [(0, "127.0.0.1"), (1, "203.0.113.9"), (2, "198.51.100.7"), (9, "192.0.2.1")])
async def test_the_senders_address_is_kept_only_if_asked_and_from_as_far_as_proxies_are_trusted(
    broker: str, mark: str, hops: int, ip: str
) -> None:
    chain = {"X-Forwarded-For": "192.0.2.1, 198.51.100.7, 203.0.113.9"}
    async with (
        collecting(broker, collector_keep_ip=True, collector_proxies=hops) as collector,
        client_of(collector) as client,
    ):
        assert (await client.post("/v1/t", auth=WEB, json=track(mark), headers=chain)).status_code == 200
    [record] = await stored(broker, mark)
    assert record.event().context["ip"] == ip


@pytest.mark.mechanic("M43")
async def test_a_locator_says_where_the_address_is(broker: str, mark: str) -> None:
    await create_topics(broker, wanted_topics())
    places = {"127.0.0.1": {"country": "RU", "city": "Voronezh"}}
    collector = Collector(replace(SETTINGS, bootstrap=broker), SystemClock(), locate=places.get)
    await collector.start()
    async with client_of(collector) as client:
        assert (await client.post("/v1/t", auth=WEB, json=track(mark))).status_code == 200
    await collector.stop()
    [record] = await stored(broker, mark)
    assert record.event().context == {"place": {"country": "RU", "city": "Voronezh"}}


# --- the publisher ----------------------------------------------------------------------------------------------------

KEYS_OF_RECORDS = st.text(min_size=1, max_size=80)


@given(KEYS_OF_RECORDS, st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 256]))
def test_the_partition_is_the_one_that_kafkas_default_partitioner_chooses(key: str, count: int) -> None:
    numbers = list(range(count))
    assert ids.partition_of(ids.shard_of(key), count) == DefaultPartitioner()(key.encode(), numbers, numbers)


async def test_it_refuses_to_start_on_topics_that_cannot_be(fresh_broker: parts.Server) -> None:
    def publisher() -> Publisher:
        options = kafka_options(replace(SETTINGS, bootstrap=fresh_broker.address))
        return Publisher(options, ("a", "b"), linger_ms=0, publish_ms_max=1000, stalled_ms=500)

    with pytest.raises(Refused, match="topics a, b wanted"):
        await publisher().start()
    admin = AIOKafkaAdminClient(bootstrap_servers=fresh_broker.address)
    await admin.start()
    await admin.create_topics([NewTopic("a", 4, 1), NewTopic("b", 3, 1)])
    await admin.close()
    with pytest.raises(Refused, match="one partition count that divides 256 wanted, got a 4, b 3"):
        await publisher().start(same_count=("a", "b"))
    one = publisher()
    await one.start()
    await one.publish([Record("a", "k", b"v"), Record("b", "k", b"v")])
    await one.publish([])
    await one.stop()
    with pytest.raises(PublishFailed):
        await one.publish([Record("a", "k", b"v")])


async def test_it_refuses_to_start_without_a_broker() -> None:
    options = kafka_options(replace(SETTINGS, bootstrap=f"127.0.0.1:{parts.free_port()}"))
    with pytest.raises(Refused, match="a broker wanted"):
        await Publisher(options, ("a",), linger_ms=0, publish_ms_max=1000, stalled_ms=500).start()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_read_with_every_mistake_at_once() -> None:
    settings = read({"OPPORTUNE_COLLECTOR_PORT": "0", "OPPORTUNE_COLLECTOR_KEEP_IP": "yes", "OPPORTUNE_BOOTSTRAP": " "})
    assert (settings.collector_port, settings.collector_keep_ip, settings.bootstrap) == (0, True, "127.0.0.1:9092")
    with pytest.raises(Refused) as caught:
        read({"OPPORTUNE_SECRET": "hunter2", "OPPORTUNE_COLLECTOR_PORT": "x", "OPPORTUNE_KAFKA_SECURITY": "TLS"})
    assert str(caught.value).splitlines() == [
        "OPPORTUNE_KAFKA_SECURITY: one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL wanted, got 'TLS'",
        "OPPORTUNE_SECRET: at least 32 hexadecimal digits wanted, got other text",
        "OPPORTUNE_COLLECTOR_PORT: a whole number of port from 0 to 65535 wanted, got 'x'",
    ]
    assert all(one.meaning.endswith(".") for one in describe())
    # Of what brokers want the edges ask as workers do.
    with pytest.raises(Refused, match=r"^OPPORTUNE_KAFKA_USER: a name wanted with SASL_SSL, got nothing$"):
        read({"OPPORTUNE_KAFKA_SECURITY": "SASL_SSL"})


def test_without_secret_or_keys_there_is_no_collector() -> None:
    with pytest.raises(Refused, match="OPPORTUNE_SECRET"):
        Collector(replace(SETTINGS, secret=""), SystemClock())
    with pytest.raises(Refused, match="OPPORTUNE_WRITE_KEYS"):
        Collector(replace(SETTINGS, write_keys=""), SystemClock())


# --- anything at all --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(broker: str) -> Iterator[tuple[Collector, asyncio.AbstractEventLoop]]:
    """A collector without a port, on a loop of its own: called as an ASGI app."""
    loop = asyncio.new_event_loop()

    async def connected() -> Collector:
        await create_topics(broker, wanted_topics())
        hooks = '{"shopify": {"keys": ["hush"]}}'
        settings = replace(SETTINGS, bootstrap=broker, webhooks=hooks, link_keys=LINK_KEY)
        collector = Collector(settings, SystemClock())
        await collector.connect()
        return collector

    collector = loop.run_until_complete(connected())
    yield collector, loop
    loop.run_until_complete(collector.stop())
    loop.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["type", "event", "userId", "anonymousId", "properties", "traits", "context", "timestamp", "batch", "writeKey"]
)
VALUES = JSON | st.sampled_from(["track", "identify", "Order Completed", "2026-11-22", WEB_KEY, SHOP_KEY, []])
EVENTS = st.dictionaries(NAMES, VALUES, max_size=8)
BODIES = st.one_of(
    st.binary(max_size=200),
    EVENTS.map(lambda event: json.dumps(event).encode()),
    st.lists(EVENTS | JSON, max_size=4).map(lambda batch: json.dumps({"batch": batch}).encode()),
    EVENTS.map(lambda event: gzip.compress(json.dumps(event).encode())),
)
BASIC = [httpx.BasicAuth(*WEB)._auth_header.encode(), httpx.BasicAuth(*SHOP)._auth_header.encode()]
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"authorization", b"content-encoding", b"content-length", b"origin", b"x-write-key", b"x-forwarded-for",
                         b"user-agent", b"access-control-request-headers", b"if-none-match", b"accept-encoding"]),
        st.sampled_from([*BASIC, b"gzip", b"deflate", b"identity", b"0", b"10", b"-1", b"9" * 30, b"", b"\xff\xfe", WEB_KEY.encode()])
        | st.binary(max_size=20),
    ),
    max_size=5,
)  # fmt: skip
LINK_KEY = "a key of links that is long enough"
LINKS = [
    f"/c/{links.sign(links.Link(links.CLICK, 'user:1', 'https://shop.example/'), LINK_KEY)}",
    f"/o/{links.sign(links.Link(links.OPEN, 'user:1'), LINK_KEY)}",
    f"/u/{links.sign(links.Link(links.UNSUBSCRIBE, 'user:1', said={'topic': 'news'}), LINK_KEY)}",
]
PATHS = st.sampled_from(
    [*ROUTES, *(f"{path}/" for path in ROUTES), "/healthz", "/metrics", "/t.js", "/hooks/shopify", *LINKS]
) | st.text(max_size=20)
METHODS = st.sampled_from(["POST"] * 8 + ["OPTIONS", "GET", "HEAD", "PUT", "DELETE", "ODD"])


@pytest.mark.invariant("R29")
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(method=METHODS, path=PATHS, headers=HEADERS, bodies=st.lists(BODIES, max_size=2))
@example(method="POST", path="/v1/t", headers=[(b"authorization", BASIC[0])], bodies=[b'{"userId":1e400}'])
def test_nothing_that_is_sent_makes_it_fail(
    app: tuple[Collector, asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    headers: list[tuple[bytes, bytes]],
    bodies: list[bytes],
) -> None:
    collector, loop = app
    messages = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": ("127.0.0.1", 1)}
    with caplog.at_level(logging.WARNING):
        loop.run_until_complete(collector(scope, receive, send))
    start, body = sent
    assert start["status"] in (200, 204, 302, 304, 400, 401, 403, 404, 405, 413, 415, 429), caplog.text
    if start["status"] >= 400 and method != "HEAD":
        assert json.loads(body["body"])["code"]


def test_topics_that_the_collector_publishes_to_are_those_that_are_made() -> None:
    assert {*EVENT_TOPICS, DEAD_LETTERS} <= {topic.name for topic in wanted_topics()}
