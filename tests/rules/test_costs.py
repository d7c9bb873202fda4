"""What a rule is said to cost is what a busy customer makes it cost (D9: within 20 %)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from profiles.codec import encode
from profiles.moments import HOUR_MS, MINUTE_MS, parse_instant
from profiles.state import Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event
from rules.compile import compile_rules
from rules.costs import FIRST, segment_costs, trigger_costs
from rules.engine import step
from rules.rulebook import Rulebook
from tests.scenarios.pack import SHOP

START_MS = parse_instant("2026-03-01")
RULES: dict[str, Any] = {
    "times_in_a_window": {"did": "product_viewed", "window": {"within": "P400D"}, "times": {"gte": 50}},
    "days": {"did": "page_viewed", "window": {"within": "P1Y"}, "distinct_days": {"gte": 20}},
    "distinct_products": {"did": "product_viewed", "distinct": {"field": "product_id", "gte": 30}},
    "sum_by_hours": {
        "did": "product_viewed", "window": {"within": "P7D"}, "resolution": "PT1H", "sum": {"field": "price", "gte": 900},
    },
    "ever": {"did": "product_viewed", "times": {"gte": 7}},
    "highest": {"did": "product_viewed", "max": {"field": "price", "gte": 30}},
    "first_page": {"did": "page_viewed", "first": {"field": "path", "starts_with": "/"}},
    "lately_bought": {"trait": "last_order_at", "newer_than": "P300D"},
    "buyer": {"trait": "orders_paid", "gte": 1},
}  # fmt: skip


def busy(book: Rulebook) -> Profile:
    """A customer who for forty days looks at something every half hour, and buys now and then."""
    profile = Profile("user:1")
    for number in range(1_920):
        at_ms = START_MS + number * HOUR_MS // 2 + number % 7 * MINUTE_MS
        items = [{"product_id": f"product-{number * 37 % 300}", "price": 10 + number % 90, "quantity": 1}]
        happened: list[tuple[str, dict[str, Any]]] = [
            ("product_viewed", {"currency": "USD", "products": items}),
            ("page_viewed", {"path": f"/catalogue/pages/{number % 50}"}),
            ("product_added", {"currency": "USD", "products": items, "cart_id": "c"}),
        ]
        if not number % 100:
            happened.append(("order_completed", {"order_id": f"{number}", "currency": "USD", "total": 200}))
        for name, raw in happened:
            kind = resolve(name)
            event = Event(f"{name}{number}", "web", name, at_ms, at_ms, "user:1", props=canonical(kind, raw))
            event.seen_ms = at_ms
            step(profile, event, book)
    return profile


def with_rules(rules: dict[str, Any]) -> Rulebook:
    return compile_rules([("rules", json.dumps({"segments": rules}))])


NOTHING = with_rules({"nobody": {"trait": "custom.x", "eq": "y"}})


@pytest.fixture(scope="module")
def without() -> int:
    return len(encode(busy(NOTHING)))


@pytest.mark.mechanic("D9")
@pytest.mark.parametrize("name", RULES)
def test_the_bytes_of_a_rule_are_those_that_a_busy_customer_has_of_it(name: str, without: int) -> None:
    book = with_rules({name: RULES[name]})
    measured = len(encode(busy(book))) - without
    assert segment_costs(book)[name].bytes_max == pytest.approx(measured, rel=0.2)


@pytest.mark.mechanic("D9")
def test_the_alarms_of_a_rule_are_those_that_a_busy_customer_has_of_it() -> None:
    book = with_rules(RULES)
    profile = busy(book)
    costs = segment_costs(book)
    held = {one.name: int(one.id in profile.timers) for one in book.segments}
    assert sum(held.values()) == pytest.approx(sum(cost.timers_max for cost in costs.values()), rel=0.2)
    assert {name for name, cost in costs.items() if not cost.timers_max} <= {name for name in held if not held[name]}
    shop = compile_rules(SHOP)
    assert trigger_costs(shop)["abandoned_cart"].timers_max == 1
    assert trigger_costs(shop)["vip_granted"].timers_max == 0
    assert {name for name, cost in segment_costs(shop).items() if cost.timers_max} >= {
        "lapsed", "sleeping", "cart_abandoned", "browsing", "rfm_lost", "lifecycle.active_after",
    }  # fmt: skip


@pytest.mark.mechanic("D9")
def test_a_rule_is_woken_by_what_can_change_it_and_by_nothing_else() -> None:
    orders = {
        "order_cancelled", "order_completed", "order_refunded", "order_status_changed", "order_updated", "receipt_registered",
    }  # fmt: skip
    shop = compile_rules(SHOP)
    costs = segment_costs(shop)
    assert set(costs["buyers"].wakes) == orders
    assert set(costs["cart_open"].wakes) >= {"product_added", "product_removed", "cart_set", "order_completed"}
    assert "page_viewed" not in costs["cart_open"].wakes
    assert set(costs["browsing"].wakes) == orders | {"product_viewed"}
    assert FIRST in costs["lifecycle.newcomer"].wakes
    assert set(costs["rfm_loyal"].wakes) == set(costs["rfm_champions"].wakes) == orders
    assert set(trigger_costs(shop)["welcome"].wakes) == {"registered", "order_completed"}
    # The engine agrees: an event that wakes none of them leaves them as they were.
    book = with_rules(RULES)
    for name, cost in segment_costs(book).items():
        bit = 1 << book.place[next(one.id for one in book.segments if one.name == name)]
        for kept in book.aggregates:
            if book.work_for(kept.bit) & bit:
                assert set(kept.types) <= set(cost.wakes)
