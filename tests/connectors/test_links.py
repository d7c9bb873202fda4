"""Signed links: what is believed, what a GET must not do, and what lies on the topics of a real broker after each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from email import message_from_bytes, policy
from html import unescape
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import pytest

from connectors.collector.links import PICTURE, asking, done, language_of, reacted, unsubscribed
from connectors.collector.server import Collector
from connectors.links import CHANNELS, CLICK, OPEN, UNSUBSCRIBE, Link, read, sign
from connectors.settings import read as read_settings
from opportune import parts
from profiles.errors import Refused
from profiles.ids import address_of
from profiles.moments import parse_instant
from profiles.wire import EMAIL_EVENTS, Event, decode_event
from tests.connectors.edge import SETTINGS, collecting, stored

KEY: Final = "k" * 64
OLD_KEY: Final = "o" * 40
KEYS: Final = (KEY, OLD_KEY)
NOW: Final = parse_instant("2026-11-22T15:30:00Z")
SHOP: Final = "https://shop.example/tea?x=1#top"
SAID: Final = {"topic": "news", "trigger_id": "t1"}
LETTERS: Final = Path(__file__).parents[2] / "docs" / "consumer" / "letters.py"
IPHONE: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148"


def forged(key: str = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"aud": CLICK, "sub": "user:1", "url": SHOP, **claims}, key, algorithm)


def event_of(admission: Any) -> Event:
    [record] = admission.records
    event = decode_event(record.value)
    assert (record.key, record.topic) == (event.address, EMAIL_EVENTS)
    assert admission.accepted == {event.type: 1}
    return event


# --- what is believed -------------------------------------------------------------------------------------------------


@pytest.mark.invariant("R29")
@pytest.mark.parametrize("key", KEYS)
def test_a_link_is_believed_for_its_purpose_by_each_of_the_keys(key: str) -> None:
    for link in (Link(CLICK, "user:1", SHOP, SAID), Link(OPEN, "email:~x"), Link(UNSUBSCRIBE, "phone:~y", said=SAID)):
        token = sign(link, key)
        assert read(link.purpose, token, KEYS) == link
        for other in {CLICK, OPEN, UNSUBSCRIBE} - {link.purpose}:
            assert read(other, token, KEYS) is None
        assert read(link.purpose, token, ("x" * 32,)) is None
        assert read(link.purpose, token, ()) is None


def test_what_a_link_says_nothing_of_is_as_if_it_were_absent() -> None:
    assert read(CLICK, forged(topic="", variant=None, other=5), KEYS) == Link(CLICK, "user:1", SHOP)


@pytest.mark.invariant("R29")
@pytest.mark.parametrize(
    "token",
    [
        "", "a.b.c", forged(key="x" * 32), forged(algorithm="HS512"), jwt.encode({"aud": CLICK, "sub": "user:1", "url": SHOP}, "", "none"),
        forged(sub="42"), forged(sub=""), forged(sub=7), forged(sub=None), forged(sub="user:\n"), forged(sub="user:" + "1" * 200),
        forged(url="javascript:alert(1)"), forged(url="//evil.example"), forged(url="https://a b"), forged(url="https://a\r\nX: y"),
        forged(url=""), forged(url=5), forged(url="https://" + "a" * 2001), forged(aud=OPEN), forged(aud=[]), forged(topic=5),
        forged(topic="a\x00"), forged(channel="fax"), forged(channel=["email"]),
    ],
)  # fmt: skip
def test_what_is_forged_or_says_what_no_link_may_say_is_not_believed(token: str) -> None:
    assert read(CLICK, token, KEYS) is None
    assert read(CLICK, forged(), KEYS) is not None


def test_what_no_link_may_say_cannot_be_signed() -> None:
    for wrong in (
        ("buy", "user:1"),
        (CLICK, "user:1"),
        (OPEN, "user:1", SHOP),
        (CLICK, "user:1", "ftp://a"),
        (OPEN, "42"),
    ):
        with pytest.raises(ValueError, match="link: "):
            Link(*wrong)


def test_keys_of_links_are_long_and_told_to_nobody() -> None:
    settings = read_settings({"OPPORTUNE_LINK_KEYS": f" {KEY}, {OLD_KEY}"})
    assert settings.signers() == KEYS
    assert KEY not in repr(settings)
    assert SETTINGS.signers() == ()
    with pytest.raises(Refused) as refused:
        read_settings({"OPPORTUNE_LINK_KEYS": f"{KEY},short-key"})
    assert "OPPORTUNE_LINK_KEYS: keys of 32 characters" in str(refused.value)
    assert "short-key" not in str(refused.value)
    assert KEY not in str(refused.value)


# --- what they do -----------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M40")
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_click_and_an_opening_are_events_of_the_letters_channel(channel: str) -> None:
    click = Link(
        CLICK, "user:1", SHOP, {**SAID, "channel": channel, "campaign": "autumn", "variant": "b", "delivery_id": "d"}
    )
    event = event_of(reacted(click, "token", NOW, agent=IPHONE, seen={"place": {"country": "DE"}}))
    assert (event.type, event.address, event.source, event.at_ms) == (f"{channel}_link_clicked", "user:1", "links", NOW)
    assert event.props == {**click.said, "url": SHOP}
    assert event.context == {"device": "phone", "place": {"country": "DE"}}
    opening = event_of(reacted(Link(OPEN, "user:1", said={"channel": channel}), "token", NOW, agent=""))
    assert (opening.type, opening.props, opening.context) == (f"{channel}_opened", {"channel": channel}, {})


@pytest.mark.parametrize(
    ("agent", "said", "machine"),
    [
        (IPHONE, "", None), ("", "", None), ("", "scanner", "scanner"), (IPHONE, "prefetch", "prefetch"), ("Mozilla/5.0", "", "prefetch"),
        ("Mozilla/5.0 (Windows NT 5.1) via ggpht.com GoogleImageProxy", "", None), ("BarracudaCentral", "", "scanner"),
    ],
)  # fmt: skip
def test_what_a_machine_does_is_said_to_be_a_machines(agent: str, said: str, machine: str | None) -> None:
    event = event_of(reacted(Link(OPEN, "user:1"), "token", NOW, agent=agent, machine=said))
    assert event.props.get("machine") == machine


def test_every_click_is_a_message_of_its_own_and_its_id_says_nothing() -> None:
    link = Link(CLICK, "user:1", SHOP)
    token = sign(link, KEY)
    ids = [event_of(reacted(link, token, NOW + n, agent=IPHONE)).message_id for n in (0, 0, 1)]
    ids.append(event_of(reacted(link, token, NOW, agent="", machine="scanner")).message_id)
    assert len(set(ids)) == 3
    assert not any(part in one for one in ids for part in token.split("."))


@pytest.mark.mechanic("M82")
@pytest.mark.parametrize(
    ("said", "body", "topic", "proof"),
    [
        (SAID, b"List-Unsubscribe=One-Click", "news", "one_click"),
        (SAID, b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--', "news", "one_click"),
        (SAID, b"from=topic", "news", "page"),
        (SAID, b"from=all", "*", "page"),
        (SAID, b"", "news", "page"),
        ({}, b"List-Unsubscribe=One-Click", "*", "one_click"),
        ({"channel": "sms"}, b"from=all", "*", "page"),
        ({"topic": "*"}, b"from=topic", "*", "page"),
    ],
)  # fmt: skip
def test_who_unsubscribes_does_so_from_the_letters_topic_or_from_all_of_its_channel(
    said: dict[str, str], body: bytes, topic: str, proof: str
) -> None:
    link = Link(UNSUBSCRIBE, "user:1", said=said)
    event = event_of(unsubscribed(link, "token", NOW, body))
    assert event.type == "unsubscribed"
    assert event.props == {**said, "channel": said.get("channel", "email"), "topic": topic, "proof": proof}
    assert ("about" in done(link, body).decode()) == (topic != "*")
    assert ("about" in asking(link).decode()) == (link.topic != "*")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"), ("ru", "ru"), ("ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", "ru"), ("de-DE,en;q=0.8,ru;q=0.9", "ru"), ("en-GB, ru", "en"),
        ("RU;q=1.0", "ru"), ("de, fr;q=0.5", "en"), ("ru;q=0", "en"), ("ru;q=x, en;q=0.1", "en"), ("*", "en"), (";;,,q=1,\x00", "en"),
        ("ru;q=" + "1" * 400, "en"),
    ],
)  # fmt: skip
def test_the_page_is_in_the_language_that_a_browser_asks_for_first(accepted: str, language: str) -> None:
    assert language_of(accepted) == language


def test_the_page_says_in_each_language_what_was_asked_and_what_was_done() -> None:
    link = Link(UNSUBSCRIBE, "user:1", said={"topic": "новости", "channel": "sms"})
    pages = [page.decode() for page in (asking(link, "ru"), done(link, b"", "ru"), done(link, b"from=all", "ru"))]
    assert all('<html lang="ru">' in page for page in pages)
    assert "Больше не присылать сообщений на тему «новости»" in pages[0]
    assert "присылать вам сообщений на тему «новости»." in pages[1]
    assert "присылать вам сообщений." in pages[2]
    english = (asking(link).decode(), done(link, b"").decode())
    assert "No more text messages about “новости”<" in english[0]
    assert "No more text messages from us<" in english[0]
    assert "You will get no more text messages about “новости” from us." in english[1]


@pytest.mark.invariant("R29")
def test_what_a_topic_is_called_is_no_mark_up() -> None:
    link = Link(UNSUBSCRIBE, "user:1", said={"topic": "<script>"})
    for page in (asking(link), done(link, b""), asking(link, "ru"), done(link, b"", "ru")):
        assert b"<script>" not in page
        assert b"&lt;script&gt;" in page


# --- on a real broker -------------------------------------------------------------------------------------------------


def path(purpose: str, who: str, url: str = "", key: str = KEY, **said: str) -> str:
    return f"/{purpose[0]}/{sign(Link(purpose, f'user:{who}', url, said), key)}"


def client_of(collector: Collector) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{collector.port}", timeout=180)


def lost(page: str) -> float:
    [line] = [one for one in page.splitlines() if one.startswith("opportune_collector_links_lost_total ")]
    return float(line.split()[1])


@pytest.mark.invariant("R29")
async def test_a_get_unsubscribes_nobody_and_a_post_does_after_the_brokers_acknowledgement(broker: str) -> None:
    link = path(UNSUBSCRIBE, "unsub-1", topic="news")
    async with collecting(broker, link_keys=f"{OLD_KEY},{KEY}") as collector, client_of(collector) as client:
        page = await client.get(link)
        head = await client.head(link)
        assert (page.status_code, head.status_code, head.content) == (200, 200, b"")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-store"
        assert "script" not in page.headers["content-security-policy"]
        assert (await client.put(link)).status_code == 405
        assert await stored(broker, "unsub-1") == []
        [(name, value), *_] = re.findall(r'name="(\w+)" value="(\w+)"', page.text)
        told = await client.post(link, data={name: value})
        assert (told.status_code, "Unsubscribed" in told.text) == (200, True)
        russian = await client.get(link, headers={"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.8"})
        assert (russian.status_code, "Отписаться?" in russian.text) == (200, True)
        one_click = await client.post(link, data={"List-Unsubscribe": "One-Click"}, follow_redirects=False)
        assert one_click.status_code == 200
    events = [one.event() for one in await stored(broker, "unsub-1")]
    assert [(one.type, one.address, one.props["topic"], one.props["proof"]) for one in events] == [
        ("unsubscribed", "user:unsub-1", "news", "page"),
        ("unsubscribed", "user:unsub-1", "news", "one_click"),
    ]


@pytest.mark.invariant("R29")
async def test_a_click_leads_only_where_its_token_says_and_an_opening_is_a_picture(broker: str) -> None:
    click, opening = path(CLICK, "follow-1", SHOP), path(OPEN, "follow-1")
    async with collecting(broker, link_keys=KEY) as collector, client_of(collector) as client:
        answers = [
            await client.get(f"{click}?url=https://evil.example", headers={"User-Agent": IPHONE}),
            await client.head(click, headers={"User-Agent": IPHONE}),
            await client.get(click, headers={"User-Agent": IPHONE, "Sec-Purpose": "prefetch;prerender"}),
        ]
        assert [(one.status_code, one.headers["location"], one.content) for one in answers] == [(302, SHOP, b"")] * 3
        assert {one.headers["referrer-policy"] for one in answers} == {"no-referrer"}
        picture = await client.get(opening, headers={"User-Agent": IPHONE})
        assert (picture.status_code, picture.headers["content-type"], picture.content) == (200, "image/gif", PICTURE)
        assert PICTURE.startswith(b"GIF89a")
        assert (await client.post(click)).status_code == 405
    events = [one.event() for one in await stored(broker, "follow-1")]
    assert [(one.type, one.props.get("machine")) for one in events] == [
        ("email_link_clicked", None),
        ("email_link_clicked", "scanner"),
        ("email_link_clicked", "prefetch"),
        ("email_opened", None),
    ]


@pytest.mark.invariant("R29")
async def test_what_is_not_signed_for_that_is_answered_as_an_unknown_path(broker: str) -> None:
    sound = path(CLICK, "forged-1", SHOP)
    async with collecting(broker, link_keys=KEY) as collector, client_of(collector) as client:
        unknown = await client.get("/c")
        assert unknown.status_code == 404
        other = path(CLICK, "forged-1", SHOP, key="x" * 32)
        for wrong in (
            other,
            sound[:-5],
            sound.replace("/c/", "/u/"),
            sound.replace("/c/", "/o/"),
            f"{sound}/",
            "/c/",
            f"/c/{'a' * 9000}",
        ):
            for method in ("GET", "HEAD", "POST"):
                answer = await client.request(method, wrong)
                assert answer.status_code == 404, wrong
                assert method == "HEAD" or answer.content == unknown.content
    async with collecting(broker) as collector, client_of(collector) as client:
        assert (await client.get(sound)).status_code == 404
    assert await stored(broker, "forged-1") == []


async def test_who_clicks_is_sent_on_though_the_broker_says_nothing_and_who_unsubscribes_is_told(
    fresh_broker: parts.Server,
) -> None:
    # Longer than this client waits: an answer says that nobody has waited for the broker.
    patient = {"link_wait_ms": 20, "collector_publish_ms": 600_000}
    async with collecting(fresh_broker.address, link_keys=KEY, **patient) as collector, client_of(collector) as client:
        fresh_broker.pause()
        clicked = await client.get(path(CLICK, "away-1", SHOP))
        opened = await client.get(path(OPEN, "away-2"))
        fresh_broker.resume()
    assert (clicked.status_code, clicked.headers["location"]) == (302, SHOP)
    assert opened.content == PICTURE
    found = await stored(fresh_broker.address, "away-")
    assert sorted(one.event().type for one in found) == ["email_link_clicked", "email_opened"]
    hasty = {"link_wait_ms": 20, "collector_publish_ms": 1_000}
    async with collecting(fresh_broker.address, link_keys=KEY, **hasty) as collector, client_of(collector) as client:
        before = lost((await client.get("/metrics")).text)
        fresh_broker.pause()
        clicked = await client.get(path(CLICK, "away-3", SHOP))
        told = await client.post(path(UNSUBSCRIBE, "away-4"))
        after = lost((await client.get("/metrics")).text)
        fresh_broker.resume()
    assert clicked.status_code == 302
    assert (told.status_code, told.json()["code"], told.headers["retry-after"]) == (503, "unavailable", "2")
    assert after == before + 1


async def test_who_clicks_where_there_is_no_room_is_sent_on_and_counted(broker: str) -> None:
    async with collecting(broker, link_keys=KEY, collector_per_s=1) as collector, client_of(collector) as client:
        before = lost((await client.get("/metrics")).text)
        while lost((await client.get("/metrics")).text) == before:
            assert (await client.get(path(CLICK, "room-1", SHOP))).status_code == 302


# --- who makes them ---------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M98")
def test_a_sender_outside_of_the_code_base_makes_links_that_are_believed(tmp_path: Path) -> None:
    address = address_of("email", "ana@shop.example", SETTINGS.secret_bytes())
    record: dict[str, Any] = {
        "trigger_id": "75012dd8722f6c19b7caf71a18c58b55", "trigger": "left_cart", "topic": "carts", "template": "left_cart",
        "profile": {"address": address, "email": "ana@shop.example"},
        "payload": {"cart": {"items": [{"product_id": "tea", "name": "<Tea>", "url": SHOP}, {"product_id": "cup"}]}},
    }  # fmt: skip
    nobody = {**record, "trigger_id": "0" * 32, "profile": {"address": "user:1"}}
    command = [
        sys.executable,
        "-I",
        str(LETTERS),
        "--at",
        "https://t.shop.example",
        "--from",
        "shop@shop.example",
        "--into",
        "out",
    ]
    subprocess.run(
        command,
        input=f"{json.dumps(record)}\n{json.dumps(nobody)}\n",
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LINK_KEY": KEY},
        check=True,
        timeout=120,
    )
    [file] = (tmp_path / "out").iterdir()
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert (message["To"], message["List-Unsubscribe-Post"]) == ("ana@shop.example", "List-Unsubscribe=One-Click")
    page = message.get_body(("html",))
    assert page is not None
    assert "&lt;Tea&gt;" in page.get_content()
    found = [
        message["List-Unsubscribe"].strip("<>"),
        *map(unescape, re.findall(r'(?:href|src)="([^"]+)"', page.get_content())),
    ]
    said = {"topic": "carts", "trigger_id": record["trigger_id"], "campaign": "left_cart"}
    wanted = [(UNSUBSCRIBE, ""), (CLICK, SHOP), (UNSUBSCRIBE, ""), (OPEN, "")]
    for link, (purpose, url) in zip(found, wanted, strict=True):
        start, token = link.rsplit("/", 1)
        assert start == f"https://t.shop.example/{purpose[0]}"
        assert read(purpose, token, KEYS) == Link(purpose, address, url, said)
