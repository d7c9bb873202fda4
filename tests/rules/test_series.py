"""What ``did`` and the declared traits measure, where calendars, currencies and corrections make it awkward."""

from __future__ import annotations

import pytest

from profiles.errors import BadDocument
from rules.compile import compile_rules
from rules.scenarios import check


def test_at_the_end_of_a_month_what_came_first_may_leave_last() -> None:
    # A month after 29 January noon is 28 February noon; after 31 January morning it is 28 February, morning.
    check(
        """
        segment once = {did: page_viewed, window: {within: P1M}}
        segment twice = {did: page_viewed, window: {within: P1M}, times: {gte: 2}}
        segment one = {did: page_viewed, window: {within: P1M}, times: {eq: 1}}
        segment two_products = {did: product_viewed, window: {within: P1M}, distinct: {field: product_id, gte: 2}}
        segment bought_twice = {did: order, window: {within: P1M}, times: {gte: 2}}
        start 2026-01-29T12:00
        0d                ana  page_viewed
        0d                ana  product_viewed product=a
        0d                ana  product_viewed product=b
        0d                ana  order_completed order_id=1 total=1
        2026-01-31T10:00  ana  page_viewed
        2026-01-31T10:00  ana  product_viewed product=a
        2026-01-31T10:00  ana  order_completed order_id=2 total=1
        2026-02-28T09:59  ana  expect segments bought_twice, once, twice, two_products
        2026-02-28T10:00  ana  expect segments once, one, two_products
        2026-02-28T11:59  ana  expect segments once, one, two_products
        2026-02-28T12:00  ana  expect segments none
        """
    )


def test_where_clocks_change_a_day_has_its_own_length() -> None:
    check(
        """
        defaults = {zone: Europe/Berlin}
        segment lately = {did: page_viewed, window: {within: P1D}}
        start 2026-10-24T12:00
        0d                ana  page_viewed
        24h               ana  expect in
        2026-10-25T12:00  ana  expect out, left 25h
        """
    )


def test_a_declared_count_counts_all_that_the_window_holds() -> None:
    check(
        """
        trait opens = {count: email_opened, window: {within: P7D}}
        trait products = {distinct: product_viewed.product_id, window: {within: P7D}}
        segment keen = {trait: opens, gte: 3}
        0d  ana  email_opened
        1d  ana  email_opened
        1d  ana  product_viewed product=a
        1d  ana  product_viewed product=b
        1d  ana  product_viewed product=c
        2d  ana  email_opened
        2d  ana  expect in, trait opens 3, trait products 3
        7d  ana  expect out, left 7d, trait opens 2
        """
    )


def test_a_sum_by_stretches_leaves_with_the_end_of_its_stretch() -> None:
    check(
        """
        trait points = {sum: game_played.points, window: {within: P7D}, resolution: PT6H}
        segment rich = {trait: points, gte: 5}
        segment rich_too = {did: game_played, sum: {field: points, gte: 5}, window: {within: P7D}, resolution: PT6H}
        start 2026-01-01T01:00
        0d    ana  game_played points=2
        1h    ana  game_played points=3
        1h    ana  expect in rich, in rich_too
        7d    ana  expect in rich, in rich_too
        P7DT5H ana  expect out rich, out rich_too, left rich 2026-01-08T05:59:59.999
        """
    )


def test_amounts_of_events_compare_in_the_shops_currency() -> None:
    check(
        """
        segment spent_a_hundred = {did: product_shared, sum: {field: value, gte: 100}}
        0d  ana  product_shared value=60 currency=USD
        0d  ana  product_shared value=500 currency=EUR      # another currency is no amount that could be added
        0d  ana  expect out
        1d  ana  product_shared value=39.99 currency=USD
        1d  ana  expect out
        2d  ana  product_shared value=0.01 currency=USD
        2d  ana  expect in
        """
    )


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{did: order, sum: {field: product_id, gte: 1}}", "sum of order: one of total, amount, revenue, margin, quantity wanted"),
        ("{did: order, avg: {field: totl, gte: 1}}", "got 'totl'; did you mean 'total'?"),
        ("{did: order, distinct: {field: total, gte: 1}}", "distinct of order: one of product_id, category, brand, channel"),
        ("{did: order, where: [{revenue: {gte: 5}}]}", "of an order channel, coupon, cart_id, affiliation, order_id, total, margin are known"),
        ("{did: order, item: [{nam: Mug}]}", "of an order's line product_id, category, brand, quantity, amount_minor, sku, name, amount, price are known, not 'nam'; did you mean 'name'?"),
        ("{did: email_opened, where: [{machin: true}]}", "scenario:1: segments/a/where/1/machin: email_opened has no property 'machin'; did you mean 'machine'?"),
        ("{did: [cart_viewed, page_viewed], where: [{urk: x}]}", "has no property 'urk'; did you mean 'url'? (a property of your own goes as custom.urk)"),
        ("{did_not: product_viewed, item: [{categry: x}]}", "an item of product_viewed has no property 'categry'; did you mean 'category'?"),
        ("{did: page_viewed, sum: {field: n, gte: 1}, window: {within: P1D}}", "'resolution' wanted, like PT1H"),
        ("{did: a_b, sum: {field: n, gte: 1}, window: {within: PT200H}, resolution: PT1H}", "fewer than 200 steps wanted, got 200"),
        ("{did: a_b, sum: {field: n, gte: 1}, window: {within: P1M}, resolution: P1D}", "hours, minutes or seconds wanted"),
        ("{did: page_viewed, window: {within: P1D}, times: {gte: 300}}", "a threshold below 200 wanted"),
        ("{did: order, per: item, sum: {field: margin, gte: 1}}", "margin: that of whole orders is known, not of their lines"),
    ],
)  # fmt: skip
def test_a_measure_that_could_never_answer_is_refused(rule: str, told: str) -> None:
    with pytest.raises(BadDocument) as refused:
        check(f"segment a = {rule}")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        "on: {event: product_added, where: [{cart: x}]}",
        "on: {event: registered}, cancel_on: [{event: product_added, where: [{cart: x}]}]",
        "on: {event: registered}, restart_on: {event: product_added, where: [{cart: x}]}",
    ],
)
def test_a_trigger_that_listens_for_a_property_that_nobody_has_is_refused(words: str) -> None:
    with pytest.raises(BadDocument) as refused:
        compile_rules([("shop.yaml", f"triggers:\n  t:\n    {{{words}, steps: [emit: x]}}")])
    assert str(refused.value).startswith("shop.yaml:3: triggers/t/")
    assert "product_added has no property 'cart'; did you mean 'cart_id'?" in str(refused.value)


def test_events_and_properties_of_ones_own_may_have_any_name() -> None:
    check(
        """
        segment green = {did: product_viewed, where: [{custom.shade: green}]}
        segment lucky = {did: dice_rolled, where: [{points: 6}]}
        segment either = {did: [dice_rolled, product_viewed], where: [{shade: green}]}
        segment deep = {did: page_viewed, where: [{custom.test.arm: b}]}
        0d  ana  product_viewed shade=green
        0d  ana  dice_rolled points=6
        0d  ana  expect segments either, green, lucky
        """
    )


@pytest.mark.mechanic("M14")
def test_lines_taken_back_without_amounts_cost_what_the_order_says() -> None:
    check(
        """
        segment paid_20 = {did: order, sum: {field: total, gte: 20}}
        segment tools = {did: order, item: [{category: tools}]}
        0d  ana  order_completed order_id=1 product=drill price=20 category=tools product=pen price=3 qty=2
        0d  ana  expect segments paid_20, tools
        1d  ana  order_refunded order_id=1 product=drill
        1d  ana  expect segments none
        2d  bob  order_completed order_id=1 product=drill price=20 category=tools product=pen price=3 qty=2
        2d  bob  order_refunded order_id=1 product=pen qty=1
        2d  bob  expect segments paid_20, tools
        3d  bob  order_refunded order_id=1 product=pen qty=1
        3d  bob  order_refunded order_id=1 product=drill
        3d  bob  expect trait orders_paid 0, segments none
        """
    )


def test_times_that_no_calendar_holds_break_no_rule() -> None:
    check(
        """
        segment adult = {trait: custom.born, older_than: P18Y}
        segment minor = {trait: custom.born, newer_than: P18Y}
        segment since = {trait: registered_at, older_than: P1D}
        0d  ana  identified custom.born=9999-12-31
        0d  ana  identified registered_at=2020-01-01
        0d  ana  expect segments minor, since
        1d  ana  registered
        1d  ana  expect segments minor, since
        2d  ana  identified custom.born=999999999999999 registered_at=yesterday
        2d  ana  expect in since, out adult
        3d  ana  identified custom.born=1990-02-29
        3d  ana  expect segments since
        4d  ana  identified custom.born=2008-02-29
        4d  ana  expect in minor, wake 2026-02-28T00:00
        """
    )
