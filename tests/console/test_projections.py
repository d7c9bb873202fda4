"""What till, call centre, pages and forms see: that and no more, by the right token only."""

from __future__ import annotations

from typing import Any, Final

import httpx
import jwt
import pytest

from console.api import make_app
from console.callers import Callers, Pages, read_callers
from console.settings import read as read_settings
from profiles.errors import BadDocument, Refused
from profiles.moments import DAY_MS, HOUR_MS, iso
from rules.compile import compile_rules
from rules.explain import explain_all, project
from rules.rulebook import Rulebook
from stream.clock import LogClock
from tests.console.filled import NOW_MS, SECRET, Shell, ana, forwarder, hashed, json_of
from tests.rules.told import START_MS, Life, pack_files, shop_rules

KEY: Final = "k" * 32
ORIGIN: Final = "https://shop.example"
WALL_MS: Final = 1_800_000_000_000
TILL, STAFF, EVERYTHING = "till-till-till-till-till", "staff-staff-staff-staff-", "operator-operator-operator"
CALLERS: Final = read_callers(
    EVERYTHING,
    f'{{"{TILL}": {{"name": "till", "scopes": ["hint"]}}, "{STAFF}": {{"name": "crm", "scopes": ["read", "write"]}}}}',
)
SHOP: Final = shop_rules()


async def shop(rulebook: Rulebook = SHOP, files: list[tuple[str, str]] | None = None) -> Shell:
    """Ana, whom her e-mail, her phone and her browser lead to."""
    shell = Shell(rulebook=rulebook)
    await shell.announce(files)
    await shell.write([ana(rulebook)])
    for address in (hashed("phone", "+79161234567"), hashed("email", "ana@shop.example"), "anon:a1"):
        await shell.write_profile(forwarder(address, "user:ana"))
    return shell


def client(shell: Shell, callers: Callers = CALLERS, key: str = KEY) -> httpx.AsyncClient:
    app = make_app(
        shell.reader(),
        callers,
        frozenset({"127.0.0.1"}),
        pages=Pages(key),
        origins=(ORIGIN,),
        wall=LogClock(WALL_MS),
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def signed(key: str = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    whole = {"sub": "anon:a1", "aud": "site", "exp": WALL_MS // 1000 + 3600, **claims}
    told = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(told, key, algorithm=algorithm)


@pytest.mark.mechanic("M75")
@pytest.mark.parametrize("address", ["phone:+7 916 123-45-67", "email:ANA@shop.example", "user:ana", "anon:a1"])
async def test_the_till_has_a_hint_by_any_address_of_the_customer_and_nothing_else(address: str) -> None:
    shell = await shop()
    async with client(shell) as asking:
        answer = await asking.get(f"/api/v1/profiles/{address}/hint", headers=bearer(TILL))
        told = json_of(answer)
        assert (answer.status_code, told["address"], told["greeting"]) == (200, "user:ana", "Hello, Ana!")
        assert told["traits"] == {
            "first_name": "Ana",
            "locale": None,
            "orders_paid": 1,
            "avg_check": {"minor": 4000, "currency": "EUR", "amount": "40.00"},
            "last_order_at": iso(START_MS + DAY_MS),
            "cart.state": "active",
            "cart.total": {"minor": 12990, "currency": "EUR", "amount": "129.90"},
        }
        assert told["segments"] == {"buyers": True, "vip": False, "cart_abandoned": False}
        for more in ("", "/explain", "/timeline"):
            refused = await asking.get(f"/api/v1/profiles/{address}{more}", headers=bearer(TILL))
            assert (refused.status_code, json_of(refused)["code"]) == (403, "no_scope")
        assert (await asking.get(f"/api/v1/profiles/{address}/hint", headers=bearer(STAFF))).status_code == 200


@pytest.mark.mechanic("M76")
async def test_a_page_sees_the_listed_traits_and_segments_of_its_own_visitor_as_of_now() -> None:
    shell = await shop()
    async with client(shell) as asking:
        told = json_of(await asking.get("/api/v1/site", headers=bearer(signed())))
        assert told == {
            "known": True,
            "as_of": iso(NOW_MS),
            "traits": {"cart.items": 1, "cart.state": "active"},
            "segments": {"buyers": True, "vip": False},
        }
        shell.clock.advance(NOW_MS + 3 * HOUR_MS)  # No worker has handled the alarm: what time did shows all the same.
        told = json_of(await asking.get("/api/v1/site", headers=bearer(signed())))
        assert (told["as_of"], told["traits"]["cart.state"]) == (iso(NOW_MS + 3 * HOUR_MS), "abandoned")
        new = json_of(await asking.get("/api/v1/site", headers=bearer(signed(sub="anon:new"))))
        assert new == {
            "known": False,
            "as_of": told["as_of"],
            "traits": {"cart.items": 0, "cart.state": "empty"},
            "segments": {"buyers": False, "vip": False},
        }


@pytest.mark.mechanic("M99")
async def test_a_form_is_filled_for_whom_the_shop_has_signed_in_and_no_page_s_token_opens_it() -> None:
    async with client(await shop()) as asking:
        token = signed(sub="user:ana", aud="form")
        told = json_of(await asking.get("/api/v1/form", headers=bearer(token)))
        assert (told["known"], told["greeting"]) == (True, "Hello, Ana!")
        assert told["traits"] == {
            "first_name": "Ana",
            "last_name": None,
            "email": "ana@shop.example",
            "phone": None,
        }
        assert (await asking.get("/api/v1/form", headers=bearer(signed()))).status_code == 401
        assert (await asking.get("/api/v1/site", headers=bearer(token))).status_code == 401


@pytest.mark.invariant("R29")
@pytest.mark.parametrize(
    "token",
    [
        signed(key="x" * 32),
        signed(aud="form"),
        signed(aud=None),
        signed(sub=None),
        signed(exp=None),
        signed(exp=WALL_MS // 1000),
        signed(exp=WALL_MS // 1000 + 3 * 86_400),
        signed(nbf=WALL_MS // 1000 + 600),
        signed(exp="never"),
        signed(key="k" * 48, algorithm="HS384"),
        jwt.encode({"sub": "anon:a1", "aud": "site", "exp": WALL_MS // 1000 + 60}, "", algorithm="none"),
        signed() + "x",
        "nothing",
        EVERYTHING,
    ],
)
async def test_a_page_without_the_shop_s_signature_of_today_is_told_nothing(token: str) -> None:
    async with client(await shop()) as asking:
        for headers in (bearer(token), {}):
            answer = await asking.get("/api/v1/site", headers=headers)
            assert (answer.status_code, json_of(answer)["code"]) == (401, "no_token")


@pytest.mark.invariant("R29")
async def test_a_page_s_token_opens_nothing_else_and_without_a_key_no_page_is_answered() -> None:
    shell = await shop()
    async with client(shell) as asking:
        for path in ("profiles/anon:a1", "profiles/anon:a1/hint", "segments", "decisions"):
            assert (await asking.get(f"/api/v1/{path}", headers=bearer(signed()))).status_code == 401
    async with client(shell, key="") as asking:
        answer = await asking.get("/api/v1/site", headers=bearer(signed()))
        assert (answer.status_code, json_of(answer)["code"]) == (403, "no_pages")


async def test_only_the_shop_s_pages_and_only_these_two_answers_are_for_other_origins() -> None:
    async with client(await shop()) as asking:
        wanted = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
        asked = await asking.options("/api/v1/site", headers={"origin": ORIGIN, **wanted})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        for headers in (bearer(signed()), {}):  # A refusal, too, is to be read.
            answer = await asking.get("/api/v1/site", headers={"origin": ORIGIN, **headers})
            assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (ORIGIN, "Origin")
            assert "access-control-allow-credentials" not in answer.headers
        foreign = {"origin": "https://thief.example", **bearer(signed())}
        assert "access-control-allow-origin" not in (await asking.get("/api/v1/site", headers=foreign)).headers
        staff = {"origin": ORIGIN, **bearer(EVERYTHING)}
        assert "access-control-allow-origin" not in (await asking.get("/api/v1/segments", headers=staff)).headers


@pytest.mark.invariant("R29")
async def test_each_scope_opens_its_own_and_nobody_without_a_token_reads() -> None:
    async with client(await shop()) as asking:
        for path in ("profiles/user:ana", "profiles/user:ana/hint", "segments", "triggers", "decisions", "rules"):
            for headers in ({}, bearer("nobody-nobody-nobody-nobody")):
                answer = await asking.get(f"/api/v1/{path}", headers=headers)
                assert (answer.status_code, json_of(answer)["code"]) == (401, "no_token"), path
            assert (await asking.get(f"/api/v1/{path}", headers=bearer(STAFF))).status_code == 200, path
        body = {"address": "user:ana", "by": "dpo"}
        answer = await asking.post("/api/v1/erasures", json=body, headers=bearer(STAFF))
        assert (answer.status_code, json_of(answer)["code"]) == (403, "no_scope")
        for path in ("/healthz", "/readyz", "/metrics", "/", "/api/openapi.json"):
            assert (await asking.get(path)).status_code == 200


def test_an_api_without_tokens_does_not_start_unless_it_is_said_that_anybody_may_read() -> None:
    with pytest.raises(Refused, match="a token wanted, got none, so nobody may ask"):
        read_settings({"OPPORTUNE_SECRET": SECRET.hex()})
    settings = read_settings({"OPPORTUNE_SECRET": SECRET.hex(), "OPPORTUNE_API_OPEN": "yes"})
    anybody = settings.callers().of(None)
    assert anybody is not None
    assert [scope for scope in ("hint", "read", "write", "erase") if anybody.may(scope)] == ["hint", "read"]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ('{"short": {"name": "a", "scopes": ["read"]}}', "token 1: 24 to 200 printable characters wanted"),
        (f'{{"{TILL}": {{"name": "a", "scopes": ["reed"]}}}}', "token 1: scopes: a list of hint, read, write, erase"),
        (f'{{"{TILL}": {{"name": "A!", "scopes": ["read"]}}}}', "token 1: name: 1 to 40 of a-z"),
        (f'{{"{TILL}": {{"name": "a"}}}}', "token 1: an object with name and scopes wanted"),
        ("{}", "with one token at least wanted"),
        ("/no/such/file", "a file of tokens wanted, got No such file"),
    ],
)
def test_what_is_no_list_of_tokens_is_refused_without_telling_one(said: str, wanted: str) -> None:
    with pytest.raises(Refused, match=r"^OPPORTUNE_API_TOKENS") as told:
        read_settings({"OPPORTUNE_SECRET": SECRET.hex(), "OPPORTUNE_API_TOKENS": said})
    assert wanted in str(told.value)
    assert TILL not in str(told.value)


def test_origins_and_a_short_key_are_refused() -> None:
    env = {"OPPORTUNE_SECRET": SECRET.hex(), "OPPORTUNE_API_OPEN": "yes"}
    with pytest.raises(Refused) as told:
        read_settings({**env, "OPPORTUNE_API_ORIGINS": "https://shop.example/page", "OPPORTUNE_API_SITE_KEY": "short"})
    assert str(told.value).splitlines() == [
        "OPPORTUNE_API_SITE_KEY: 32 characters or more wanted, got other text",
        "OPPORTUNE_API_ORIGINS: scheme://host without a path wanted, got 'https://shop.example/page'",
    ]


def test_a_projection_judges_as_explain_does_also_under_rules_that_no_worker_has_applied() -> None:
    """Every segment of the pack, before and after the alarms that a worker has not handled."""
    every = ", ".join(segment.name for segment in SHOP.segments)
    files = [*pack_files(), ("all.yaml", "segments: {newer: {did: order}, other: {in_segment: newer}}")]
    shown = [(name, text.split("projections:")[0]) for name, text in files]
    book = compile_rules([*shown, ("p.yaml", f"projections: {{hint: {{segments: [{every}, newer, other]}}}}")])
    for later_ms in (0, 3 * HOUR_MS, 100 * DAY_MS, 400 * DAY_MS):
        life: Life = ana(SHOP)
        wanted = {one["segment"]: one["holds"] for one in explain_all(life.profile, book, NOW_MS + later_ms)}
        told = project(life.profile, book.projections["hint"], book, NOW_MS + later_ms)
        assert dict(sorted(told["segments"].items())) == wanted


def test_what_no_projection_can_be_is_refused_at_its_line() -> None:
    text = """\
traits:
  rfm: {rfm: {window: {within: P1Y}, recency: [P30D], frequency: [2], monetary: [50]}}
segments:
  buyers: {did: order}
projections:
  hints: {traits: [orders_paid]}
  hint: {traits: [rfm, orders_payd], segments: [byers]}
  site: {traits: [email, address.city]}
  form: {fields: [email]}
"""
    with pytest.raises(BadDocument) as told:
        compile_rules([("p.yaml", text)])
    assert str(told.value).splitlines() == [
        "p.yaml:6: projections/hints: one of hint, site, form wanted, got 'hints'; did you mean 'hint'?",
        "p.yaml:7: projections/hint/segments/1: unknown segment 'byers'; did you mean 'buyers'?",
        "p.yaml:7: projections/hint/traits/1: one of its parts wanted, like rfm.… , got 'rfm', which has several",
        "p.yaml:7: projections/hint/traits/2: unknown trait 'orders_payd'; did you mean 'orders_paid'? (a trait of your own goes as custom.orders_payd)",
        "p.yaml:8: projections/site/traits/1: 'email' is nothing for a page that anybody may read: `form` may show it to who has signed in",
        "p.yaml:8: projections/site/traits/2: 'address.city' is nothing for a page that anybody may read: `form` may show it to who has signed in",
        "p.yaml:9: projections/form: traits or segments wanted, got neither",
        "p.yaml:9: projections/form/fields: unknown key 'fields'; one of traits, segments, says wanted",
    ]
