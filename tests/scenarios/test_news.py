"""Cheaper, or back in stock: news of a product, for whom it interests (M74)."""

from __future__ import annotations

import pytest

from profiles.erasure import Asked, pack_asked
from profiles.errors import BadDocument
from profiles.wire import ERASE, Command
from rules.interest import PRODUCTS_MAX
from rules.scenarios import check

JOIN = "{profiles: {any: [{wishlist: $product}, {cart: $product}, {viewed: $product, gte: 3}]}}"
CHEAPER = f"trigger it = {{class: transactional, on: {{event: [price_dropped, back_in_stock], join: {JOIN}}}, key: product_id, steps: [{{emit: {{template: cheaper, payload: {{product: $product, news: $news}}}}}}]}}"


@pytest.mark.mechanic("M74")
def test_whoever_wishes_for_it_has_it_in_the_cart_or_looked_at_it_often_is_told() -> None:
    done = check(
        f"""
        {CHEAPER}
        0d  shop  product_updated product=mug price=10 name=Mug url=https://s/mug
        0d  ana   product_added_to_wishlist product=mug
        0d  bob   product_added product=mug price=10
        0d  eve   product_viewed product=mug
        0d  eve   product_viewed product=mug
        0d  joe   product_viewed product=mug
        0d  joe   product_viewed product=mug
        0d  joe   product_viewed product=mug
        0d  kim   product_added_to_wishlist product=pen
        1d  shop  product_updated product=mug price=8.50
        1d  ana   expect emits it 1
        1d  bob   expect emits it 1
        1d  joe   expect emits it 1
        1d  eve   expect emits it 0
        1d  kim   expect emits it 0
        2d  shop  product_updated product=mug price=9
        2d  shop  product_updated product=mug stock=0
        3d  ana   expect emits it 1
        3d  shop  product_updated product=mug stock=4
        3d  ana   expect emits it 2
        """
    )
    record = done.sent("it")[0]
    assert record["payload"]["news"] == {"product_id": "mug", "old": "10.00", "new": "8.50"}
    assert record["payload"]["product"] == {
        "product_id": "mug", "name": "Mug", "url": "https://s/mug", "price_e6": 8_500_000, "price": "8.50",
        "currency": "USD", "in_stock": True,
    }  # fmt: skip
    assert {one["because"][0]["node"].rpartition(" in ")[2] for one in done.sent("it")[:3]} == {
        "wishlist",
        "cart",
        "viewed",
    }


@pytest.mark.mechanic("M74")
@pytest.mark.parametrize(
    "leaving",
    [
        "product_removed_from_wishlist product=mug",
        "wishlist_product_added_to_cart product=mug",
    ],
)
def test_whom_it_interests_no_longer_is_not_told(leaving: str) -> None:
    check(
        f"""
        trigger it = {{class: transactional, on: {{event: price_dropped, join: {{profiles: {{any: [{{wishlist: $product}}]}}}}}}, steps: [{{emit: cheaper}}]}}
        0d  shop  product_updated product=mug price=10
        0d  ana   product_added_to_wishlist product=mug
        1d  ana   {leaving}
        2d  shop  product_updated product=mug price=8
        2d  ana   expect emits it 0
        3d  ana   product_added_to_wishlist product=mug
        4d  shop  product_updated product=mug price=7
        4d  ana   expect emits it 1
        """
    )


@pytest.mark.mechanic("M74")
def test_who_bought_what_was_in_his_cart_is_not_told_that_it_is_cheaper_now() -> None:
    check(
        f"""
        {CHEAPER}
        0d  shop  product_updated product=mug price=10
        0d  ana   product_added product=mug price=10
        1d  ana   order_completed order_id=1 product=mug price=10
        2d  shop  product_updated product=mug price=8
        2d  ana   expect emits it 0
        """
    )


@pytest.mark.mechanic("M74")
def test_interest_comes_along_when_an_address_joins_a_user_and_is_told_once() -> None:
    done = check(
        f"""
        {CHEAPER}
        0d  shop    product_updated product=mug price=10
        0d  anon:x  product_added_to_wishlist product=mug
        1d  ana     page_viewed id=anon:x
        2d  shop    product_updated product=mug price=8
        2d  ana     expect emits it 1
        """
    )
    assert (done.world.profile("user:ana").interest, done.world.profile("anon:x").interest) == (["mug"], [])


def test_of_an_erased_person_no_interest_is_left() -> None:
    done = check(
        f"""
        {CHEAPER}
        0d  shop  product_updated product=mug price=10
        0d  ana   product_added_to_wishlist product=mug
        """
    )
    world = done.world
    assert world.profile("user:ana").interest == ["mug"]
    step = world.tell(Command(ERASE, "user:ana", "", (world.now_ms + 1, "c-1"), pack_asked(Asked("dpo")), world.now_ms))
    assert step.interest == [("mug", False)]
    assert world.profile("user:ana").interest == []


@pytest.mark.invariant("R26")
def test_the_index_knows_the_newest_products_of_a_customer_only() -> None:
    wishes = "\n".join(f"{at}m  ana  product_added_to_wishlist product=p{at}" for at in range(PRODUCTS_MAX + 5))
    done = check(f"{CHEAPER}\n{wishes}")
    assert done.world.profile("user:ana").interest == [f"p{at}" for at in range(PRODUCTS_MAX + 4, 4, -1)]


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("{event: page_viewed, join: {profiles: {any: [{cart: $product}]}}}", "with one of price_dropped"),
        ("{event: price_dropped, join: {profiles: {any: [{basket: $product}]}}}", "unknown key 'basket'"),
        ("{event: price_dropped, join: {profiles: {any: [{cart: mug}]}}}", r"\$product wanted"),
        ("{event: price_dropped, join: {profiles: {any: [{cart: $product, gte: 2}]}}}", "of viewed only"),
        (
            "{event: price_dropped, join: {profiles: {any: [{cart: $product, wishlist: $product}]}}}",
            "one of wishlist, cart, viewed",
        ),
        ("{event: price_dropped, join: {profiles: {any: [{viewed: $product, gte: 51}]}}}", "50 or less"),
        ("{event: price_dropped, join: {profiles: {any: []}}}", "wanted"),
    ],
)
def test_a_join_that_nobody_can_mean_is_refused(on: str, message: str) -> None:
    with pytest.raises(BadDocument, match=message):
        check(f"trigger it = {{on: {on}, steps: [{{emit: t}}]}}")
