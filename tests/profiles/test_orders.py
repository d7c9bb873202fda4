"""The order book at its corners; ``tests/laws/test_order.py`` compares it with a reading of all reports."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import orders
from profiles.codec import decode, encode
from profiles.errors import BadInput
from profiles.state import ORDERS_MAX, Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event


def told(profile: Profile, at_ms: int, name: str, message: str = "", **sent: Any) -> None:
    """One report, as its sender writes it."""
    event_type = resolve(name)
    props = canonical(event_type, sent)
    event_type.change(profile, Event(message or f"{name}{at_ms}", "shop", name, at_ms, at_ms, "user:1", props=props))


@pytest.mark.parametrize(
    ("total", "currency", "rate", "shop", "minor"),
    [
        ("10.00", "EUR", "1.085", "USD", 1085),
        ("10.01", "EUR", "1.085", "USD", 1086),  # 1086.085
        ("10.05", "EUR", "1.085", "USD", 1090),  # 1090.425
        ("0.01", "EUR", "0.5", "USD", 1),  # half a cent: up
        ("1000", "JPY", "0.0067", "USD", 670),
        ("12.345", "KWD", "3.25", "USD", 4012),  # 40.12125
        ("10.00", "USD", "149.5", "JPY", 1495),
        ("0.01", "USD", "0.305", "KWD", 3),  # 3.05 fils
        ("10.00", "EUR", None, "EUR", 1000),
    ],
)
def test_an_order_in_another_currency_counts_by_its_own_rate(
    total: str, currency: str, rate: str | None, shop: str, minor: int
) -> None:
    profile = Profile("user:1")
    more = {"rate": rate} if rate else {}
    told(profile, 1, "order_completed", order_id="1", total=total, currency=currency, **more)
    assert [one.amount_minor for one in orders.fold(profile, currency=shop)] == [minor]


def test_an_order_in_another_currency_without_a_rate_counts_as_an_order_and_not_as_money() -> None:
    profile = Profile("user:1")
    told(profile, 1, "order_completed", order_id="1", total=10, currency="EUR")
    assert orders.fold(profile, currency="USD") == []
    assert len(orders.fold(profile)) == 1


REPORT: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.tuples(
        st.just("order_completed"),
        st.fixed_dictionaries(
            {
                "total": st.integers(1, 50),
                "currency": st.sampled_from(["USD", "EUR"]),
                "rate": st.just("1.1"),
                "products": st.lists(
                    st.fixed_dictionaries(
                        {"product_id": st.sampled_from("ab"), "price": st.just(5), "quantity": st.integers(1, 3)}
                    ),
                    max_size=2,
                ),
            }
        ),
    ),
    st.tuples(st.just("order_cancelled"), st.just({})),
    st.tuples(
        st.just("order_refunded"),
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"amount": st.integers(1, 9), "currency": st.just("USD")}),
            st.fixed_dictionaries({"products": st.just([{"product_id": "a", "quantity": 1}])}),
        ),
    ),
    st.tuples(st.just("order_status_changed"), st.fixed_dictionaries({"to": st.sampled_from(["placed", "shipped"])})),
)


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from("1234"), REPORT), max_size=12), st.integers(0, 3))
def test_folds_that_follow_each_report_are_those_of_the_whole_book(
    reports: list[tuple[int, str, tuple[str, dict[str, Any]]]], more: int
) -> None:
    # As many orders as the book holds, or nearly: some reports push an older one out.
    profile = Profile("user:1")
    for number in range(ORDERS_MAX - more):
        told(profile, 10, "order_completed", order_id=f"x{number}", total=1, currency="USD")
    asked: list[dict[str, Any]] = [{}, {"currency": "USD"}, {"currency": "EUR"}, {"status_in": ("placed",)}]
    for one in asked:
        orders.fold(profile, **one)
    for place, (at_ms, order_id, (name, sent)) in enumerate(reports):
        try:
            told(profile, at_ms, name, f"m{place}", order_id=order_id, **sent)
        except BadInput:
            return  # Too late: the caller drops the profile.
        whole = decode("user:1", encode(profile))
        for one in asked:
            assert orders.fold(profile, **one) == orders.fold(whole, **one)


@pytest.mark.parametrize("newer_first", [False, True])
def test_of_two_words_on_one_refund_the_newer_stands(newer_first: bool) -> None:
    profile = Profile("user:1")
    told(profile, 1, "order_completed", order_id="1", total=100, currency="USD")
    words = [(2, 30), (3, 10)]
    for at_ms, amount in reversed(words) if newer_first else words:
        told(profile, at_ms, "order_refunded", order_id="1", refund_id="r", amount=amount, currency="USD")
    assert orders.fold(profile)[0].amount_minor == 9_000


@pytest.mark.invariant("R20")
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_reports_of_one_instant_the_same_one_stands_whichever_comes_first(turned: bool) -> None:
    profile = Profile("user:1")
    for total in (20, 10) if turned else (10, 20):
        told(profile, 5, "order_completed", f"m{total}", order_id="1", total=total, currency="USD")
    assert orders.fold(profile)[0].amount_minor == 2_000


@pytest.mark.invariant("R21")
@pytest.mark.invariant("R26")
def test_the_newest_orders_are_kept_and_an_older_one_is_too_late() -> None:
    profile = Profile("user:1")
    for n in range(ORDERS_MAX + 5):
        told(profile, 100 + n, "order_completed", order_id=str(n), total=1, currency="USD")
    assert len(profile.orders) == ORDERS_MAX
    assert "4" not in profile.orders
    assert "5" in profile.orders
    with pytest.raises(BadInput, match="an order among the newest 200 wanted") as refused:
        told(profile, 50, "order_completed", order_id="old", total=1, currency="USD")
    assert refused.value.reason == "too_late"


@pytest.mark.mechanic("M14")
def test_an_order_reported_by_its_statuses_alone_counts_once_it_is_known_what_it_holds() -> None:
    profile = Profile("user:1")
    told(profile, 5, "order_status_changed", order_id="1", to="paid")
    assert orders.fold(profile) == []
    told(profile, 7, "order_completed", order_id="1", total=3, currency="USD", status="placed")
    counted = orders.fold(profile)
    assert [(one.at_ms, one.amount_minor) for one in counted] == [(5, 300)]
