"""The cart machine beside the examples of its event types."""

from __future__ import annotations

from profiles import carts, orders
from profiles.state import Profile
from profiles.wire import Event


def event(kind: str, at_ms: int, **props: object) -> Event:
    """Something that ana did."""
    return Event(f"m{at_ms}", "web", kind, at_ms, at_ms, "user:ana", props=props)


def test_an_order_with_two_lines_of_one_product_takes_it_out_of_the_cart() -> None:
    profile = Profile("user:ana")
    drill, saw = {"product_id": "drill", "quantity": 1}, {"product_id": "saw", "quantity": 1}
    carts.added(profile, event("product_added", 1, items=[drill, saw]))
    lines = [{**drill, "amount_minor": 500}, {**drill, "amount_minor": 400}]
    orders.completed(profile, event("order_completed", 2, order_id="o1", currency="EUR", total_minor=900, items=lines))
    assert list(profile.carts[""].items) == ["saw"]
