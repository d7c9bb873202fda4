"""What the shop says of its goods, in any order, and what can be asked of all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.catalogue import (
    BACK_IN_STOCK,
    PRICE_DROPPED,
    PRODUCT_ARRIVED,
    Catalogue,
    Product,
    decode_product,
    encode_product,
    news_event,
    updated,
)
from profiles.errors import BadInput
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event, decode_event, encode_event


def told(at_ms: int, product: str = "mug", *, backfill: bool = False, **said: Any) -> Event:
    props = canonical(resolve("product_updated"), {"product_id": product, **said})
    return Event(
        f"m{at_ms}", "shop", "product_updated", at_ms, at_ms, f"product:{product}", props=props, backfill=backfill
    )


def after(*events: Event) -> Product:
    product = None
    for one in events:
        product, _ = updated(product, one)
    assert product is not None
    return product


def shelf(**goods: dict[str, Any]) -> Catalogue:
    catalogue = Catalogue()
    for number, (name, said) in enumerate(goods.items(), start=1):
        catalogue.put(after(told(number, name, **said)))
    return catalogue


def test_a_part_leaves_the_rest_as_it_was_said_before() -> None:
    mug = after(told(1, name="Mug", price="9.90", stock=3), told(2, price=8), told(3, stock=0))
    assert (mug.said["name"], mug.price_e6, mug.is_sold, mug.arrived_ms) == ("Mug", 8_000_000, False, 1)


STATEMENTS = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.fixed_dictionaries(
            {},
            optional={
                "price": st.integers(1, 9),
                "name": st.sampled_from(["A", "B"]),
                "stock": st.integers(0, 2),
                "old_price": st.integers(0, 9),
            },
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(STATEMENTS, st.randoms(use_true_random=False))
@pytest.mark.invariant("R20")
def test_any_order_of_statements_ends_alike(said: list[tuple[int, dict[str, Any], bool]], chance: Any) -> None:
    events = [told(at_ms, backfill=history, **what) for at_ms, what, history in said]
    mixed = list(events)
    chance.shuffle(mixed)
    one, other = after(*events), after(*mixed)
    assert (one.said, one.at_ms, one.older, one.first_ms) == (other.said, other.at_ms, other.older, other.first_ms)
    assert decode_product("mug", encode_product(one)) == one
    newest = {name: max((e.at_ms, repr(e.props[name])) for e in events if name in e.props) for name in one.said}
    assert {name: repr(value) for name, value in one.said.items()} == {name: word for name, (_, word) in newest.items()}


def test_bytes_of_a_version_to_come_are_refused() -> None:
    with pytest.raises(ValueError, match="version 1 wanted, got 2"):
        decode_product("mug", b"\x95\x02\x80\x00\x80\x00")
    with pytest.raises(ValueError, match="version 1 wanted"):
        decode_product("mug", b"\x01")


@pytest.mark.mechanic("M74")
@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [
        (None, {"price": 9}, [(PRODUCT_ARRIVED, None, 9_000_000)]),
        (None, {"price": 9, "stock": 0}, []),
        ({"price": 9}, {"price": 8}, [(PRICE_DROPPED, 9_000_000, 8_000_000)]),
        ({"price": 9}, {"price": 9}, []),
        ({"price": 9}, {"price": 10}, []),
        ({"price": 9, "currency": "EUR"}, {"price": 8, "currency": "USD"}, []),
        ({"price": 9}, {"price": 8, "available": False}, []),
        ({"price": 9}, {"price": 0}, []),
        ({"stock": 0}, {"stock": 4}, [(BACK_IN_STOCK, 0, 4)]),
        ({"stock": 1}, {"stock": 4}, []),
        ({"price": 9, "available": "OutOfStock"}, {"price": 8, "available": "InStock"}, [(PRICE_DROPPED, 9_000_000, 8_000_000), (BACK_IN_STOCK, 0, None)]),
    ],
)  # fmt: skip
def test_what_is_news(before: dict[str, Any] | None, now: dict[str, Any], wanted: list[tuple[str, Any, Any]]) -> None:
    known = after(told(1, **before)) if before is not None else None
    assert [tuple(one) for one in updated(known, told(2, **now))[1]] == wanted
    assert updated(known, told(2, backfill=True, **now))[1] == []


def test_the_event_of_news_crosses_the_wire_and_is_one_for_all() -> None:
    mug = after(told(1, price=9))
    product, (news,) = updated(mug, told(2, price=8))
    event = news_event(product, news, told(2))
    event.address = "user:ana"
    assert decode_event(encode_event(event)) == event
    assert (event.type, event.message_id) == ("price_dropped", "price_dropped:mug:m2")
    assert event.props["items"][0]["product_id"] == "mug"


@pytest.mark.mechanic("M88")
def test_what_can_be_asked_of_the_shelf() -> None:
    goods = shelf(
        drill={"price": 100, "old_price": 120, "category": "tools/drills", "accompanying": ["bits", "case"]},
        saw={"price": 90, "category": "tools/saws", "old_price": 180},
        small_drill={"price": 60, "category": "tools/drills"},
        big_drill={"price": 110, "category": "tools/drills"},
        mug={"price": 9, "category": "kitchen"},
    )
    assert list(goods.on_sale()) == ["saw", "drill"]
    assert list(goods.arrived_since(3)) == ["mug", "big_drill"]
    assert list(goods.accompanying(["drill", "nothing", "saw"])) == ["bits", "case"]
    near = list(goods.similar(["drill"]))
    assert near[:3] == ["drill", "big_drill", "small_drill"]
    assert near[3:] == ["drill", "big_drill", "saw", "small_drill"], "then what lies beside the category"
    assert list(goods.similar(["mug", "saw"]))[:2] == ["mug", "saw"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 4), st.integers(0, 4), st.sampled_from(["", "x", "x/y", "z"]), st.booleans()), max_size=30))  # fmt: skip
def test_the_lists_hold_what_the_goods_say_after_any_changes(changes: list[tuple[str, int, int, str, bool]]) -> None:
    goods = Catalogue()
    for number, (name, price, old, category, gone) in enumerate(changes, start=1):
        event = told(number, name, price=price, old_price=old, category=category, discontinued=gone)
        goods.put(updated(goods.products.get(name), event)[0])
    assert sorted(goods.on_sale()) == sorted(one for one, it in goods.products.items() if it.saves_ppm)
    assert sorted(goods.arrived_since(0)) == sorted(goods.products)
    for path in ("x", "x/y", "z"):
        under = {one for one, it in goods.products.items() if f"{it.said.get('category', '')}/".startswith(f"{path}/")}
        assert {one for _, one in goods._under.get(path, [])} == under
    for name in list(goods.products):
        goods.drop(name)
    assert not goods._under
    assert not list(goods.on_sale())


@pytest.mark.invariant("R26")
def test_there_is_room_for_so_many_only() -> None:
    goods = Catalogue(products_max=1)
    assert goods.has_room("mug")
    goods.put(after(told(1)))
    assert (goods.has_room("mug"), goods.has_room("pen")) == (True, False)


@pytest.mark.parametrize(
    "wrong", [{}, {"product_id": ""}, {"product_id": "a", "price": -1}, {"product_id": "a", "price": "x"}]
)
def test_a_statement_that_cannot_be_acted_on_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="product_updated"):
        canonical(resolve("Product Updated"), wrong)
