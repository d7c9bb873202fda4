"""Money: exact, in integers, each currency with its own minor unit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.money import decimal_of, exponent, line_minor, major, to_e6, to_minor
from tests.laws.histories import law


@pytest.mark.mechanic("M31")
@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.50", "EUR", 1250), ("9999.99", "RUB", 999_999), ("10000", "RUB", 1_000_000), ("300", "JPY", 300),
        ("1.234", "KWD", 1234), ("0.005", "USD", 0), ("0.015", "USD", 2), ("0.025", "USD", 2), ("-0.015", "USD", -2),
        ("0.5", "JPY", 0), ("1.5", "JPY", 2), ("2.5", "JPY", 2),
    ],
)  # fmt: skip
def test_an_amount_is_rounded_half_to_even_at_the_currencys_last_digit(amount: str, currency: str, minor: int) -> None:
    assert to_minor(Decimal(amount), currency) == minor


@law(100)
@given(minor=st.integers(-(10**12), 10**12), currency=st.sampled_from(["EUR", "JPY", "KWD", "XYZ"]))
def test_minor_units_come_back_from_their_text(minor: int, currency: str) -> None:
    assert to_minor(decimal_of(major(minor, currency)), currency) == minor
    assert ("." in major(minor, currency)) == (exponent(currency) > 0)


@law(100)
@given(cents=st.integers(0, 10**9))
def test_a_float_is_what_its_sender_wrote(cents: int) -> None:
    assert to_minor(decimal_of(cents / 100), "EUR") == cents
    assert to_minor(decimal_of(f" {cents / 100} "), "EUR") == cents


@pytest.mark.parametrize(
    "sent", [True, None, "", "ten", "1,5", float("nan"), float("inf"), [], 10**15 + 1, "1e16", "--1"]
)
def test_what_is_no_amount_is_refused(sent: object) -> None:
    with pytest.raises(ValueError, match="an amount"):
        decimal_of(sent)


def test_unit_prices_have_six_decimals_and_lines_the_currencys() -> None:
    assert to_e6(Decimal("0.0149")) == 14_900
    assert to_e6(Decimal("0.0000005")) == 0
    assert line_minor(14_900, 1_000, "EUR") == 1490
    assert line_minor(333_333, 3, "EUR") == 100
    assert line_minor(5_000, 1, "EUR") == 0  # half a cent: to even
    assert line_minor(15_000, 1, "EUR") == 2
