"""Goods that messages show: chosen from the catalogue at the moment of sending, as a marketer would read it."""

from __future__ import annotations

import json

import pytest

from profiles.errors import BadDocument
from rules.scenarios import Run, check
from stream.rulebook import PACKS, read_rule_files

SHELF = """
    0d  shop  product_updated product=drill price=100 category=tools/drills name=Drill url=https://s/drill accompanying=[bits|case]
    0d  shop  product_updated product=big_drill price=110 category=tools/drills
    0d  shop  product_updated product=small_drill price=60 old_price=90 category=tools/drills
    0d  shop  product_updated product=gone_drill price=100 category=tools/drills stock=0
    0d  shop  product_updated product=saw price=90 old_price=100 category=tools/saws
    0d  shop  product_updated product=bits price=8 category=tools/bits
    0d  shop  product_updated product=case price=30 category=tools/cases
"""


def shown(done: Run, trigger: str, part: str) -> list[list[str]]:
    return [[one["product_id"] for one in sent["payload"][part]] for sent in done.sent(trigger)]


@pytest.mark.mechanic("M88")
@pytest.mark.parametrize(
    ("payload", "part", "wanted"),
    [
        ("{co_purchased: 6}", "co_purchased", ["bits", "case"]),
        ("{co_purchased: 1}", "co_purchased", ["bits"]),
        ("{co_purchased: 6, price: {lte: 10}}", "co_purchased", ["bits"]),
        ("{co_purchased: {count: 6, price: {gte: 10}}}", "co_purchased", ["case"]),
        ("{on_sale: 8}", "on_sale", ["small_drill", "saw"]),
        ("{on_sale: {count: 8, under: tools/saws}}", "on_sale", ["saw"]),
        ("{on_sale: 8, exclude: owned, price: {lte: 80}}", "on_sale", ["small_drill"]),
        ("{similar: {count: 2, of: bought}}", "similar", ["big_drill", "small_drill"]),
        ("{goods: {select: similar, count: 4, of: order}}", "goods", ["big_drill", "small_drill", "saw", "case"]),
        ("{personal: 6}", "personal", ["bits", "case", "big_drill", "small_drill", "saw"]),
    ],
)
def test_a_letter_after_an_order_shows_what_is_chosen(payload: str, part: str, wanted: list[str]) -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: order_completed}}, key: order_id, steps: [{{emit: {{template: t, payload: {payload}}}}}]}}
        {SHELF}
        1d  ana  order_completed order_id=1 product=drill price=100
        1d  ana  expect emits it 1
        """
    )
    assert shown(done, "it", part) == [wanted]


TOGETHER = "\n".join(
    f"1d {who} order_completed order_id={who} product=saw price=90 product={other} price=1"
    for who, other in (
        *((f"a{n}", "bits") for n in range(4)),
        *((f"b{n}", "small_drill") for n in range(3)),
        *((f"c{n}", "case") for n in range(2)),
    )
)


@pytest.mark.mechanic("M88")
def test_what_customers_bought_together_goes_with_an_order_as_soon_as_it_is_known() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: order_completed}}, key: order_id, steps: [{{emit: {{template: t, payload: {{co_purchased: {{count: 4, optional: true}}}}}}}}]}}
        {SHELF}
        {TOGETHER}
        2d  ana  order_completed order_id=x1 product=saw price=90
        3d  base facts
        4d  ana  order_completed order_id=x2 product=saw price=90
        # What the shop says comes first; of the drill nobody has learned anything.
        5d  ana  order_completed order_id=x3 product=drill price=90
        6d  ana  order_completed order_id=x4 product=drill price=90 product=saw price=90
        """
    )
    # Two who bought a saw and a case are too few.
    assert shown(done, "it", "co_purchased")[-4:] == [
        [],
        ["bits", "small_drill"],
        ["bits", "case"],
        ["bits", "case", "small_drill"],
    ]


@pytest.mark.mechanic("M88")
def test_what_is_owned_need_not_be_offered_again() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: order_completed}}, steps: [{{emit: {{template: t, payload: {{co_purchased: 6, exclude: owned}}}}}}]}}
        {SHELF}
        1d  ana  order_completed order_id=1 product=bits price=8 product=drill price=100
        2d  ana  order_completed order_id=2 product=case price=30
        2d  ana  expect emits it 1, suppressed it no_items
        """
    )
    assert shown(done, "it", "co_purchased") == [["case"]]


@pytest.mark.mechanic("M88")
def test_new_since_the_customers_absence_is_what_came_after_his_last_visit() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: registered}}, steps: [{{wait: P60D}}, {{emit: {{template: t, payload: {{arrived_since: last_visit}}}}}}]}}
        {SHELF}
        1d   ana  registered
        10d  ana  page_viewed
        20d  shop product_updated product=lathe price=500 category=tools
        30d  shop product_updated product=plane price=40 category=tools
        31d  shop product_updated product=rare price=40 category=tools stock=0
        61d  ana  expect emits it 1
        """
    )
    assert shown(done, "it", "arrived_since") == [["plane", "lathe"]]


@pytest.mark.mechanic("M88")
@pytest.mark.parametrize(("since", "count"), [("P35D", 2), ("P20D", 0), ("last_order", 2)])
def test_new_since_a_time_or_the_last_order(since: str, count: int) -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: order_completed}}, steps: [{{wait: P60D}}, {{emit: {{template: t, payload: {{pick: {{select: arrived_since, since: {since}, optional: true}}}}}}}}]}}
        {SHELF}
        1d   ana  order_completed order_id=1 product=drill price=100
        30d  shop product_updated product=plane price=40 category=tools
        35d  shop product_updated product=lathe price=500 category=tools
        61d  ana  expect emits it 1
        """
    )
    assert [len(one) for one in shown(done, "it", "pick")] == [count]


@pytest.mark.mechanic("M50")
def test_who_looked_and_left_sees_what_he_looked_at_and_what_is_like_it() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: session_ended}}, steps: [{{emit: {{template: t, payload: {{viewed: {{last: 4, distinct: true}}, similar: 4}}}}}}]}}
        {SHELF}
        1d  ana  product_viewed product=drill price=100
        2d  ana  expect emits it 1
        3d  bob  page_viewed
        4d  bob  expect suppressed it no_items
        """
    )
    assert shown(done, "it", "similar") == [["big_drill", "small_drill", "saw", "case"]]
    assert done.sent("it")[0]["payload"]["viewed"] == [
        {
            "product_id": "drill", "viewed_at": "2026-01-02T00:00:00.000Z", "price_e6": 100_000_000, "name": "Drill",
            "category": "tools/drills", "url": "https://s/drill", "currency": "USD", "in_stock": True, "price": "100.00",
        }
    ]  # fmt: skip


@pytest.mark.mechanic("M88")
@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("last: 4", ["unknown", "gone_drill", "saw", "bits"]),
        ("last: 2", ["unknown", "gone_drill"]),
        ("last: 4, in_stock: true", ["unknown", "saw", "bits", "drill"]),
        ("last: 4, price: {gte: 50}", ["gone_drill", "saw", "drill"]),
        ("last: 4, price: {lte: 50}", ["unknown", "bits"]),
        ("last: 4, price: {gte: 50}, in_stock: true, exclude: owned", ["saw"]),
    ],
)
def test_what_was_looked_at_is_shown_by_price_stock_and_what_is_owned(asked: str, wanted: list[str]) -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: registered}}, steps: [{{emit: {{template: t, payload: {{viewed: {{{asked}}}}}}}}}]}}
        {SHELF}
        1d  ana  order_completed order_id=1 product=drill price=100
        2d  ana  product_viewed product=drill price=20         # it was cheaper then
        3d  ana  product_viewed product=bits price=8
        4d  ana  product_viewed product=saw price=90
        5d  ana  product_viewed product=gone_drill price=100
        6d  ana  product_viewed product=unknown price=40       # the catalogue does not know it
        7d  ana  registered
        """
    )
    assert shown(done, "it", "viewed") == [wanted]


@pytest.mark.mechanic("M50")
def test_a_low_check_gets_the_sale_and_another_the_goods_he_saw() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: session_ended}}, steps: [{{branch: [{{if: {{trait: cheap, eq: true}}, then: [{{emit: {{template: big_sale, payload: {{on_sale: 8}}}}}}]}}, {{else: [{{emit: {{template: browse, payload: {{viewed: {{last: 4}}, similar: 4, free_delivery: true}}}}}}]}}]}}]}}
        {SHELF}
        1d  ana  identified cheap=true
        1d  ana  product_viewed product=drill price=100
        1d  bob  product_viewed product=saw price=90
        2d  ana  expect emits it/big_sale 1
        2d  bob  expect emits it/browse 1
        """
    )
    by_template = {one["template"]: one["payload"] for one in done.sent("it")}
    assert [one["product_id"] for one in by_template["big_sale"]["on_sale"]] == ["small_drill", "saw"]
    assert by_template["browse"]["free_delivery"] is True


@pytest.mark.mechanic("M55")
def test_the_reminder_of_a_coupon_brings_a_personal_selection() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: order_completed}}, key: order_id, steps: [{{issue_coupon: {{offer: review}}}}, {{wait: P7D}}, {{emit: {{template: reminder, payload: {{coupon: $coupon, personal: 3}}}}}}]}}
        {SHELF}
        1d  ana  product_viewed product=saw price=90
        2d  ana  order_completed order_id=1 product=drill price=100
        9d  ana  expect emits it 1
        """
    )
    (sent,) = done.sent("it")
    assert [one["product_id"] for one in sent["payload"]["personal"]] == ["bits", "case", "saw"]
    assert sent["payload"]["coupon"]["code"].startswith("REVIEW-")


@pytest.mark.mechanic("M87")
def test_the_arm_of_an_experiment_names_the_selection() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: order_completed}}, steps: [{{split: {{experiment: e, arms: {{co_purchased: 50, on_sale: 50}}}}}}, {{emit: {{template: t, payload: {{pick: {{select: $arm, count: 1}}}}}}}}]}}
        {SHELF}
        """
        + "\n".join(
            f"        1d  c{number}  order_completed order_id={number} product=drill price=100" for number in range(20)
        )
    )
    picked = {(one["experiment"]["arm"], one["payload"]["pick"][0]["product_id"]) for one in done.sent("it")}
    assert picked == {("co_purchased", "bits"), ("on_sale", "small_drill")}


def test_a_cart_is_shown_with_todays_price_and_stock() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: product_added}}, steps: [{{wait: P2D}}, {{emit: {{template: t, payload: {{cart: current}}}}}}]}}
        {SHELF}
        1d  ana  product_added product=drill price=100
        2d  shop product_updated product=drill price=80 old_price=100 stock=0
        3d  ana  expect emits it 1
        """
    )
    (item,) = done.sent("it")[0]["payload"]["cart"]["items"]
    assert (item["price"], item["price_now"], item["old_price"], item["in_stock"]) == (
        "100.00",
        "80.00",
        "100.00",
        False,
    )
    assert (item["name"], item["url"]) == ("Drill", "https://s/drill")


@pytest.mark.mechanic("M62")
def test_who_bought_a_complicated_thing_gets_its_instructions() -> None:
    done = check(
        """
        trigger it = {on: {event: order_status_changed, where: {to: delivered}}, class: transactional, key: order_id, steps: [{emit: {template: guide, payload: {content: {map: product_content}}}}]}
        0d  shop product_updated product=drill category=tools/drills name=Drill content=https://s/drill.pdf
        1d  ana  order_completed order_id=1 product=drill price=100 product=pen price=1
        2d  ana  order_completed order_id=2 product=pen price=1
        3d  ana  order_status_changed order_id=1 to=delivered
        3d  ana  order_status_changed order_id=2 to=delivered
        4d  ana  expect emits it 1, suppressed it no_items
        """
    )
    assert done.sent("it")[0]["payload"]["content"] == [
        {"product_id": "drill", "content": {"manual": "https://s/drill.pdf"}, "name": "Drill"}
    ]


@pytest.mark.mechanic("M62")
def test_a_list_of_the_rules_says_what_to_wear_with_a_model_or_to_read_of_a_category() -> None:
    rules = """
        lists: {looks: {coat-7: look-12, clothes/coats: look-1, clothes: look-0}}
        triggers:
          it: {on: {event: order_completed}, key: order_id, class: transactional, steps: [{emit: {template: t, payload: {wear: {map: looks}}}}]}
    """
    done = check(
        """
        0d  ana  order_completed order_id=1 product=coat-7 price=9 category=clothes/coats product=coat-8 price=9 category=clothes/coats product=hat price=1 category=clothes/hats product=nail price=1 category=tools
        """,
        [("rules.yaml", rules)],
    )
    assert {one["product_id"]: one["content"]["looks"] for one in done.sent("it")[0]["payload"]["wear"]} == {
        "coat-7": "look-12", "coat-8": "look-1", "hat": "look-0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("{on_sale: 0}", "must be 1 or more"),
        ("{on_sale: 21}", "must be 20 or less"),
        ("{on_sale: {counts: 3}}", "count"),
        ("{on_sale: 3, price: {lt: 3}}", "unknown key 'lt'"),
        ("{on_sale: 3, price: {lte: -3}}", "an amount of 0 or more wanted"),
        ("{pick: {select: onsale}}", "did you mean .*on_sale"),
        ("{arrived_since: yesterday}", "a duration"),
        ("{similar: {of: wishes}}", "viewed, cart, bought, order wanted"),
        ("{guide: {map: product_contents}}", "did you mean .*product_content"),
        ("{on_sale: {optional: 1}}", "true or false wanted"),
        ("{viewed: {last: 4, in_stock: 1}}", "true or false wanted"),
        ("{viewed: {last: 4, price: {gt: 1}}}", "unknown key 'gt'"),
        ("{on_sale: 3, exclude: mine}", "owned wanted"),
        ("{item: $prodct}", r"\$product"),
    ],
)
def test_a_selection_that_nobody_can_mean_is_refused_at_its_line(payload: str, message: str) -> None:
    with pytest.raises(BadDocument, match=message):
        check(f"trigger it = {{on: {{event: registered}}, steps: [{{emit: {{template: t, payload: {payload}}}}}]}}")


def test_equal_shelves_give_equal_bytes() -> None:
    def sent(lines: list[str]) -> bytes:
        done = check(
            """
            trigger it = {on: {event: order_completed}, steps: [{emit: {template: t, payload: {personal: 8, on_sale: 8}}}]}
            """
            + "\n".join(lines)
            + "\n1d  ana  order_completed order_id=1 product=drill price=100"
        )
        return next(one.record.value for one in done.world.published if one.record.topic == "triggers.it")

    lines = [line for line in SHELF.splitlines() if line.strip()]
    one, other = sent(lines), sent(lines[::-1])
    assert one.split(b'"cause"')[0] == other.split(b'"cause"')[0]


@pytest.mark.mechanic("M61")
def test_a_new_bag_of_food_whichever_it_was_and_a_message_for_the_pet() -> None:
    done = check(
        """
        trigger it = {class: transactional, on: {replenishment: {scope: [product, category], category: pets, lead: P5D}}, steps: [{branch: [{if: {any_item: pets, where: [{species: dog}]}, then: [{emit: {template: dog, payload: {what: $key, until: $run_out, pet: {any_item: pets, where: [{species: dog}]}}}}]}, {else: [{emit: cat}]}]}]}
        0d   ana  identified pets=[{species=dog;name=Rex}|{species=cat;name=Tom}]
        0d   bob  identified pets=[{species=cat;name=Tom}]
        0d   ana  order_completed order_id=1 product=fish category=pets/food price=10
        0d   bob  order_completed order_id=2 product=fish category=pets/food price=10 product=lamp category=home price=3
        30d  ana  order_completed order_id=3 product=beef category=pets/food price=10 product=toy category=pets/toys price=1
        30d  bob  order_completed order_id=4 product=fish category=pets/food price=10 product=lamp category=home price=3
        54d  ana  expect emits it 0
        55d  ana  expect emits it/dog 1, emits it 1
        55d  bob  expect emits it/cat 1, emits it 1
        """
    )
    (dog,) = (one for one in done.sent("it") if one["template"] == "dog")
    assert dog["payload"] == {
        "what": "pets/food",
        "until": "2026-03-02T00:00:00.000Z",
        "pet": [{"species": "dog", "name": "Rex"}],
    }


def test_a_scope_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadDocument, match="one of product, category wanted"):
        check("trigger it = {on: {replenishment: {scope: brand}}, steps: [{emit: t}]}")


@pytest.mark.mechanic("M88")
@pytest.mark.mechanic("M50")
@pytest.mark.mechanic("M55")
@pytest.mark.mechanic("M56")
@pytest.mark.mechanic("M57")
def test_the_pack_of_journeys_shows_goods_where_the_shop_tells_of_them() -> None:
    done = check(
        f"""
        start 2026-03-02T10:00
        {SHELF}
        0h   ana  product_viewed product=drill price=100
        1h   ana  order_completed order_id=1 total=100 status=placed product=drill price=100
        2h   ana  order_status_changed order_id=1 to=confirmed
        3h   ana  order_status_changed order_id=1 to=delivered
        80h  ana  product_reviewed order_id=1 product=drill
        20d  ana  expect emits upsell_before_shipping 1
        """,
        read_rule_files(PACKS / "journeys"),
    )
    goods = {
        (one["template"], name): [item["product_id"] for item in part]
        for one in (
            json.loads(it.record.value) for it in done.world.published if it.record.topic.startswith("triggers.")
        )
        for name, part in one["payload"].items()
        if name in ("co_purchased", "personal", "similar", "arrived_since")
    }
    assert goods["add_to_order", "co_purchased"] == ["bits", "case"]
    assert goods["goes_with", "co_purchased"] == ["bits", "case"]
    assert goods["coupon_reminder", "personal"] == ["bits", "case", "big_drill", "small_drill", "saw"]
