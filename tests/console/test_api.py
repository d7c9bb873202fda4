"""The API over a store that was filled through ``step``: what it shows, and how it refuses."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from profiles.moments import DAY_MS, HOUR_MS, iso
from rules.explain import describe, explain
from stream.ports import ProfileStore
from stream.rulebook import IN_FORCE
from tests.console.filled import NOW_MS, Shell, ana, forwarder, hashed, json_of
from tests.rules.told import START_MS, Life, shop_rules

SHOP = shop_rules()


async def get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return json_of(answer)


async def refused(client: httpx.AsyncClient, status: int, path: str, **params: Any) -> tuple[str, str]:
    answer = await client.get(path, params=params)
    assert answer.status_code == status, answer.text
    told = json_of(answer)
    assert sorted(told) == ["code", "message"]
    return told["code"], told["message"]


# --- profiles ----------------------------------------------------------------------------------------------------


async def test_a_profile_is_found_by_every_address_of_the_person(shell: Shell, client: httpx.AsyncClient) -> None:
    life = ana(SHOP)
    mail, phone = hashed("email", "ana@shop.example"), hashed("phone", "+79161234567")
    await shell.write([life])
    await shell.write_profile(forwarder(mail, "user:ana"))
    await shell.write_profile(forwarder(phone, mail))
    await shell.write_profile(forwarder("anon:a/b c", "user:ana"))
    for asked, stored, via in (
        ("user:ana", "user:ana", []),
        ("email: ANA@shop.example", mail, [mail]),
        (mail, mail, [mail]),
        ("phone:+7 (916) 123-45-67", phone, [phone, mail]),
        ("anon:a/b c", "anon:a/b c", ["anon:a/b c"]),
    ):
        told = await get(client, f"/api/v1/profiles/{asked}")
        assert (told["address"], told["asked"], told["via"]) == ("user:ana", stored, via)
        assert {key: told[key] for key in describe(life.profile, SHOP, NOW_MS)} == describe(life.profile, SHOP, NOW_MS)


async def test_nobody_at_an_address_is_a_404_that_does_not_repeat_it(shell: Shell, client: httpx.AsyncClient) -> None:
    assert await refused(client, 404, "/api/v1/profiles/email:nobody@shop.example") == (
        "unknown_profile",
        "address: one that holds a profile wanted, got nothing",
    )
    await shell.write_profile(forwarder("anon:1", "user:on-its-way"))
    code, message = await refused(client, 404, "/api/v1/profiles/anon:1")
    assert (code, "forwarder" in message, "on-its-way" in message) == ("unknown_profile", True, False)


@pytest.mark.parametrize(
    "address", ["ana", "ana@shop.example", "mail:ana@shop.example", "email:ana", "phone:54321", "user:", "email:~short"]
)
async def test_what_is_no_address_is_a_400_that_does_not_repeat_it(client: httpx.AsyncClient, address: str) -> None:
    for path in ("", "/explain", "/timeline"):
        code, message = await refused(client, 400, f"/api/v1/profiles/{address}{path}")
        assert code == "bad_address"
        assert "ana@" not in message
        assert "54321" not in message


@pytest.mark.mechanic("D3")
async def test_explain_says_what_would_turn_the_answer_of_segments_that_are_named(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    await shell.write([ana(SHOP)])
    path = "/api/v1/profiles/user:ana/explain"
    [told] = (await get(client, path, segment="cart_open", to_flip="true"))["segments"]
    assert [way["words"]["en"] for way in told["to_flip"]] == ["1 cart(s) emptied"]
    assert [one["type"] for one in told["to_flip"][0]["events"]] == ["cart_set"]
    for named in ({}, {"segment": ["vip", "lapsed", "buyers", "browsing"]}):
        code, message = await refused(client, 400, path, to_flip="true", **named)
        assert (code, "1 to 3 segments by name wanted" in message) == ("bad_segment", True)


async def test_explain_of_one_segment_and_of_all_agree(shell: Shell, client: httpx.AsyncClient) -> None:
    life = ana(SHOP)
    await shell.write([life])
    every = await get(client, "/api/v1/profiles/user:ana/explain")
    assert [one["segment"] for one in every["segments"]] == sorted(segment.name for segment in SHOP.segments)
    one = await get(client, "/api/v1/profiles/user:ana/explain", segment="cart_abandoned")
    assert one["segments"] == [explain(life.profile, "cart_abandoned", SHOP, NOW_MS)]
    assert one["segments"][0] in every["segments"]
    assert one["segments"][0]["changes_at"] == iso(NOW_MS - 60_000 + 2 * HOUR_MS)
    assert one["generation"] == SHOP.hash


async def test_a_profile_can_be_asked_about_as_of_an_instant_from_its_last_input_on(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    await shell.write([ana(SHOP)])
    path = "/api/v1/profiles/user:ana"
    at = iso(NOW_MS + 3 * HOUR_MS)
    told = await get(client, path, at=at)
    assert (told["as_of"], told["traits"]["cart.state"]) == (at, "abandoned")
    told = await get(client, f"{path}/explain", segment="cart_abandoned", at=at)
    assert (told["segments"][0]["holds"], told["segments"][0]["pending"]) == (True, True)
    for bad in (iso(START_MS), iso(NOW_MS + 6 * 365 * DAY_MS), "yesterday", "0001-01-01T00:00:00+14:00"):
        for call in (path, f"{path}/explain", f"{path}/timeline"):
            assert (await refused(client, 400, call, at=bad))[0] == "bad_at"


async def test_what_time_did_since_shows_though_no_worker_ran(shell: Shell, client: httpx.AsyncClient) -> None:
    await shell.write([ana(SHOP)])
    shell.clock.advance(NOW_MS + 100 * DAY_MS)
    told = await get(client, "/api/v1/profiles/user:ana")
    assert told["session"] is None
    assert {"segment": "lapsed", "since": iso(START_MS + DAY_MS + 90 * DAY_MS - HOUR_MS)} in told["segments"]
    (blob,) = await shell.store.load(["user:ana"])
    again = await get(client, "/api/v1/profiles/user:ana")
    assert again == told
    assert await shell.store.load(["user:ana"]) == [blob]


async def test_a_timeline_tells_orders_words_and_memberships(shell: Shell, client: httpx.AsyncClient) -> None:
    await shell.write([ana(SHOP)])
    told = await get(client, "/api/v1/profiles/user:ana/timeline")
    assert {one["what"] for one in told["entries"]} == {"first_seen", "said", "order", "entered", "journey", "session"}
    assert (told["as_of"], told["entries"][-1]["at"]) == (iso(NOW_MS), iso(START_MS))


# --- segments -----------------------------------------------------------------------------------------------------


async def test_segments_are_told_with_size_and_rule(shell: Shell, client: httpx.AsyncClient) -> None:
    await shell.write([ana(SHOP), ana(SHOP, "user:bob")])
    told = await get(client, "/api/v1/segments")
    sizes = {one["name"]: one["size"] for one in told["segments"]}
    assert list(sizes) == sorted(sizes)
    assert (sizes["buyers"], sizes["cart_open"], sizes["vip"]) == (2, 2, 0)
    vip = await get(client, "/api/v1/segments/vip")
    assert vip["rule"]["when"] == {"all": [{"trait": "orders_paid", "gt": 3}, {"trait": "revenue", "gte": 300}]}
    assert vip["text"]["children"][1]["text"] == "revenue ≥ 300"
    assert vip["triggers"] == ["vip_granted"]
    assert (await get(client, "/api/v1/segments/rfm_loyal"))["reads"] == ["rfm_champions"]
    assert (await get(client, "/api/v1/segments/rfm_champions"))["read_by"] == ["rfm_loyal"]
    assert (await get(client, "/api/v1/segments/lifecycle.churned"))["size"] == 0


async def test_members_come_in_pages_that_together_are_all(shell: Shell, client: httpx.AsyncClient) -> None:
    names = [f"user:{number}" for number in range(57)]
    await shell.write(ana(SHOP, name) for name in names)
    found: list[str] = []
    cursor = ""
    while True:
        page = await get(client, "/api/v1/segments/buyers/members", cursor=cursor, limit=10)
        assert len(page["members"]) <= 10
        found += page["members"]
        cursor = page["cursor"]
        if not cursor:
            break
    assert sorted(found) == sorted(names)
    assert (await get(client, "/api/v1/segments/vip/members"))["members"] == []


async def test_a_wrong_cursor_and_a_wrong_limit_are_refused(client: httpx.AsyncClient) -> None:
    path = "/api/v1/segments/buyers/members"
    assert (await refused(client, 400, path, cursor="999:1"))[0] == "bad_cursor"
    code, message = await refused(client, 400, path, limit=0)
    assert (code, message) == ("invalid_parameter", "limit: Input should be greater than or equal to 1")


async def test_an_unknown_segment_names_the_likeliest_one_meant(shell: Shell, client: httpx.AsyncClient) -> None:
    await shell.write([ana(SHOP)])
    for path, params in (
        ("/api/v1/segments/byers", {}),
        ("/api/v1/segments/byers/members", {}),
        ("/api/v1/profiles/user:ana/explain", {"segment": "byers"}),
    ):
        assert await refused(client, 404, path, **params) == (
            "unknown_segment",
            "segment: one of the rules' wanted, got 'byers'; did you mean 'buyers'?",
        )
    _, message = await refused(client, 404, "/api/v1/segments/lifecycle")
    assert "its stages are lifecycle.active_after, lifecycle.active_before" in message
    _, message = await refused(client, 404, "/api/v1/segments/ana@shop.example")
    assert "ana@" not in message


# --- triggers, decisions, rules -----------------------------------------------------------------------------------


def decided_life(address: str) -> Life:
    """Somebody whose cart was reminded of once, and who then bought: one letter sent, one not."""
    life = Life(SHOP, address)
    life.event("Product Added", START_MS, product_id="drill", price="10", currency="EUR", cart_id="c1")
    life.wait_until(START_MS + 3 * HOUR_MS)
    life.event(
        "Order Completed", START_MS + 4 * HOUR_MS, order_id=f"o-{address}", total=10, currency="EUR", cart_id="c1"
    )
    return life


async def test_decisions_are_told_newest_first_and_by_what_is_asked(shell: Shell, client: httpx.AsyncClient) -> None:
    await shell.write([decided_life("user:ana"), decided_life("user:bob")])
    await shell.write_profile(forwarder("anon:7", "user:ana"))
    every = (await get(client, "/api/v1/decisions"))["decisions"]
    assert [one["at"] for one in every] == sorted((one["at"] for one in every), reverse=True)
    assert [(one["trigger"], one["outcome"], one["reason"]) for one in every if one["address"] == "user:ana"] == [
        ("abandoned_cart", "suppressed", "cancelled"),
        ("abandoned_cart", "emitted", None),
    ]
    for params, count in (
        ({"trigger": "abandoned_cart"}, 4),
        ({"trigger": "welcome"}, 0),
        ({"outcome": "emitted"}, 2),
        ({"reason": "cancelled"}, 2),
        ({"address": "user:bob"}, 2),
        ({"address": "anon:7"}, 2),
        ({"address": "user:nobody"}, 0),
        ({"limit": 3}, 3),
        ({"trigger": "abandoned_cart", "outcome": "suppressed", "address": "user:ana"}, 1),
    ):
        assert len((await get(client, "/api/v1/decisions", **params))["decisions"]) == count, params
    window = (await get(client, "/api/v1/decisions"))["window"]
    assert window == {"kept": 4, "kept_max": 1000, "since": iso(START_MS + 2 * HOUR_MS), "reading": False}
    assert await refused(client, 404, "/api/v1/decisions", trigger="abandoned_card") == (
        "unknown_trigger",
        "trigger: one of the rules' wanted, got 'abandoned_card'; did you mean 'abandoned_cart'?",
    )
    assert (await refused(client, 400, "/api/v1/decisions", outcome="sent"))[0] == "invalid_parameter"
    assert (await refused(client, 400, "/api/v1/decisions", address="somebody"))[0] == "bad_address"


async def test_triggers_are_told_with_their_steps_and_what_became_of_their_moments(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    await shell.write([decided_life("user:ana")])
    told = {one["name"]: one for one in (await get(client, "/api/v1/triggers"))["triggers"]}
    assert list(told) == sorted(SHOP.triggers)
    cart = told["abandoned_cart"]
    assert cart["says"].startswith("A cart was left.")
    assert (cart["kafka_topic"], cart["topic"]) == ("triggers.abandoned_cart", "cart")
    assert cart["enters"] == "on cart_set or product_added or product_removed"
    assert cart["steps"] == [
        "wait PT2H, within the day",
        "emit cart_1",
        "wait for checkout_started or email_link_clicked, at most P3D",
        "emit cart_2",
    ]
    assert cart["decisions"] == {"cancelled": 1, "emitted": 1}
    assert told["vip_granted"]["enters"] == "on entering vip"
    assert told["lapsed_buyer"]["enters"] == "trait last_order_at, reaches_age P3M"
    assert told["replenishment"]["enters"] == "replenishment"


async def test_rules_are_told_as_the_workers_loaded_them(client: httpx.AsyncClient) -> None:
    told = await get(client, "/api/v1/rules")
    assert (told["generation"], told["zone"], told["currency"]) == (SHOP.hash, "Europe/Berlin", "EUR")
    assert [one["name"] for one in told["files"]] == ["segments.yaml", "shop.yaml", "triggers.yaml"]
    assert "lapsed_buyer:" in told["files"][2]["text"]
    assert told["incomplete"] == []
    assert (told["number"], told["profiles"], told["met"]) == (1, 0, 0), "no worker has written here"


async def test_before_a_worker_announced_rules_the_answer_is_503() -> None:
    async with Shell(rulebook=SHOP).client() as client:
        for path in ("/readyz", "/api/v1/segments", "/api/v1/rules", "/api/v1/profiles/user:ana"):
            assert (await refused(client, 503, path))[0] == "no_rules"
        assert await get(client, "/healthz") == {"status": "ok"}


async def test_a_new_generation_is_in_force_at_once(shell: Shell, client: httpx.AsyncClient) -> None:
    from stream.rulebook import publish
    from tests.rules.told import rules_of

    text = "segments: {everybody: {trait: first_seen, exists: true}}"
    await publish(shell.store, rules_of(text), [("all.yaml", text)])
    assert [one["name"] for one in (await get(client, "/api/v1/segments"))["segments"]] == ["everybody"]


# --- how it refuses -----------------------------------------------------------------------------------------------


class Away:
    """A store that does not answer."""

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            raise ConnectionError("redis at 10.0.0.1: user:ana")

        return call


async def test_a_store_that_does_not_answer_is_a_503_and_a_bug_is_a_500_without_words_of_the_question(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    away: Any = Away()
    store: ProfileStore = away
    async with Shell(store, SHOP).client() as client:
        for path in ("/readyz", "/api/v1/segments", "/api/v1/profiles/user:ana"):
            assert await refused(client, 503, path) == ("unavailable", "store: an answer wanted, got none; ask again")
    broken = Shell(rulebook=SHOP)
    await broken.announce()
    broken.store.segment_sizes = lambda names: 1 / 0  # type: ignore[assignment,method-assign,return-value]  # a bug, planted
    async with broken.client() as client:
        assert await refused(client, 500, "/api/v1/segments") == ("bug", "an error of the API itself")
    await broken.store.put_doc(
        IN_FORCE, b'{"files": [{"name": "a", "text": "segments: 1"}], "zone": "", "currency": ""}'
    )
    async with broken.client() as client:
        assert (await refused(client, 503, "/api/v1/segments"))[0] == "unusable"
    assert "ZeroDivisionError at test_api.py" in caplog.text
    assert "user:ana" not in caplog.text


async def test_unknown_paths_and_methods_are_json_too(client: httpx.AsyncClient) -> None:
    assert (await refused(client, 404, "/api/v2/segments"))[0] == "not_found"
    answer = await client.post("/api/v1/segments")
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method_not_allowed", "GET")


async def test_it_is_asked_by_its_own_name_only(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/segments", headers={"host": "attacker.example:8081"})
    assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")


async def test_no_other_origin_is_let_in_and_no_answer_is_cached(shell: Shell, client: httpx.AsyncClient) -> None:
    await shell.write([ana(SHOP)])
    answer = await client.get("/api/v1/profiles/user:ana", headers={"origin": "https://shop.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.invariant("R25")
async def test_neither_logs_nor_metrics_hold_what_was_asked(
    shell: Shell, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await shell.write([ana(SHOP)])
    for path in ("user:ana", "user:ana/explain", "email:secret@shop.example", "user:ana/timeline?at=secret"):
        await client.get(f"/api/v1/profiles/{path}")
    await client.get("/secret/path")
    told = (await client.get("/metrics")).text
    assert 'opportune_console_requests_total{route="/api/v1/profiles/{address:path}/explain",status="200"}' in told
    assert 'route="other",status="404"' in told
    own = [line for line in caplog.text.splitlines() if "httpx" not in line]
    for text in (told, "\n".join(own)):
        assert "user:ana" not in text
        assert "secret" not in text


async def test_the_page_is_one_file_and_runs_nothing_but_its_own_script(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    for outside in ("src=", "@import", "http://"):
        assert outside not in answer.text.replace("http://www.w3.org/2000/svg", "").replace("xmlns=", "")
    assert "innerHTML" not in answer.text
