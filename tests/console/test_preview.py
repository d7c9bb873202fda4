"""A rule looked at before it is saved: whom it fits, and who they are otherwise."""

from __future__ import annotations

import httpx
import pytest

from tests.console.conftest import SHOP
from tests.console.filled import Shell
from tests.rules.test_explain import bought
from tests.rules.told import START_MS, Life

PATH = "/api/v1/segments/preview"
DAY_MS = 86_400_000


async def filled(shell: Shell, count: int) -> None:
    lives = []
    for number in range(count):
        life = Life(SHOP, f"user:{number}")
        for order in range(number % 4 + 1):
            bought(life, START_MS + order * DAY_MS, f"o{number}-{order}", 100 * (number % 3 + 1))
        lives.append(life)
    await shell.write(lives)


async def test_a_rule_is_counted_sampled_and_compared_before_it_is_saved(
    shell: Shell,
    client: httpx.AsyncClient,
) -> None:
    await filled(shell, 24)
    rule = {"all": [{"trait": "orders_paid", "gte": 3}, {"not": {"in_segment": "vip"}}]}
    answer = await client.post(PATH, json={"rule": rule, "sample": 3})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    wanted = [f"user:{n}" for n in range(24) if n % 4 >= 2 and not (n % 4 == 3 and 4 * 100 * (n % 3 + 1) >= 300)]
    assert (told["count"], told["estimate"], told["looked_at"]) == (len(wanted), len(wanted), 24) == (6, 6, 24)
    assert len(told["sample"]) == 3
    assert set(told["sample"]) <= set(wanted)
    assert told["overlap"]["buyers"] == told["overlap"]["repeat_buyers"] == 6
    assert "vip" not in told["overlap"]
    assert told["words"]["en"] == "Orders paid is at least 3 and not in the segment vip."
    assert told["new_statistics"] == 0
    # It is saved nowhere.
    names = [one["name"] for one in (await client.get("/api/v1/segments")).json()["segments"]]
    assert names == sorted(segment.name for segment in SHOP.segments)


async def test_of_more_than_are_looked_at_the_count_is_an_estimate_and_new_statistics_are_told(
    shell: Shell,
    client: httpx.AsyncClient,
) -> None:
    await filled(shell, 60)
    rule = {"any": [{"trait": "orders_paid", "gte": 1}, {"did": "coupon_entered", "times": {"gte": 2}}]}
    told = (await client.post(PATH, json={"rule": rule, "most": 10})).json()
    assert told["profiles"] == 60
    assert told["looked_at"] == told["count"] < 60
    assert told["estimate"] == 60
    assert told["new_statistics"] == 1


async def test_a_trait_that_looks_like_a_slip_is_told_and_the_rule_tried(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    await filled(shell, 4)
    rule = {"any": [{"trait": "orders_paid", "gte": 1}, {"trait": "adress.city", "eq": "Berlin"}]}
    told = (await client.post(PATH, json={"rule": rule})).json()
    assert told["doubted"] == ["nobody declares the trait 'adress.city'; did you mean 'address.city'?"]
    assert told["count"] == 4


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"trait": "orders_payd", "gte": 1}, "did you mean 'orders_paid'?"),
        ({"trait": "orders_paid", "gt": 3, "lt": 2}, "nobody can ever fit"),
        ({"in_segment": "vipp"}, "did you mean 'vip'?"),
    ],
)
async def test_a_bad_rule_is_a_400_that_says_what_was_wanted(
    client: httpx.AsyncClient,
    rule: dict[str, object],
    wanted: str,
) -> None:
    answer = await client.post(PATH, json={"rule": rule})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_rule")
    assert wanted in answer.json()["message"]


@pytest.mark.parametrize("value", ['"\\uda4d"', "99999999999999999999999"], ids=["half a character", "a huge number"])
async def test_what_only_some_json_can_hold_is_a_400_too(client: httpx.AsyncClient, value: str) -> None:
    body = f'{{"rule": {{"trait": "gender", "eq": {value}}}}}'
    answer = await client.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_rule")
    assert "at most 64 bits wanted" in answer.json()["message"]
