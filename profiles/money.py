"""Money is an integer of minor units with its ISO 4217 currency; a unit price has six decimals.

``12.50 EUR`` is ``1250`` minor units; a unit price of ``0.0149`` is ``14_900`` millionths. Never a float:
a JSON number is read by its shortest decimal form, which is what the sender wrote.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final

E6: Final = Decimal(1_000_000)
AMOUNT_MAX: Final = 10**15
_EXPONENTS: Final = {
    "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0,
    "UGX": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
    "BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
}  # fmt: skip


def exponent(currency: str) -> int:
    """Digits after the point in that currency (ISO 4217), 2 unless listed."""
    return _EXPONENTS.get(currency, 2)


def decimal_of(number: object) -> Decimal:
    """Read an amount that a sender wrote: int, float by its shortest form, or text.

    Raises:
        ValueError: not a finite number, or beyond 10^15.
    """
    if isinstance(number, bool) or not isinstance(number, int | float | str | Decimal):
        raise ValueError(f"an amount like 12.50, got {type(number).__name__}")
    try:
        value = Decimal(str(number).strip())
    except InvalidOperation as error:
        raise ValueError("an amount like 12.50, got other text") from error
    if not value.is_finite() or abs(value) > AMOUNT_MAX:
        raise ValueError("an amount of at most 10^15, got a larger one or none")
    return value


def to_minor(amount: Decimal, currency: str) -> int:
    """Minor units of an amount, half to even."""
    return int(amount.scaleb(exponent(currency)).to_integral_value(ROUND_HALF_EVEN))


def to_e6(amount: Decimal) -> int:
    """Millionths of an amount, half to even."""
    return int((amount * E6).to_integral_value(ROUND_HALF_EVEN))


def line_minor(price_e6: int, quantity: int, currency: str) -> int:
    """The amount of an order line, minor units, from its unit price and quantity, half to even."""
    scale: int = 10 ** exponent(currency)
    minor, rest = divmod(price_e6 * quantity * scale, 1_000_000)
    return minor + (rest > 500_000 or (rest == 500_000 and minor % 2 == 1))


def major(minor: int, currency: str) -> str:
    """``1250`` minor units of EUR as ``12.50``."""
    places = exponent(currency)
    return f"{Decimal(minor).scaleb(-places):.{places}f}"


def price_text(price_e6: int, currency: str) -> str:
    """A unit price, millionths, as decimal text: the currency's own places, more only where they are not zero."""
    price = Decimal(price_e6).scaleb(-6)
    short = round(price, exponent(currency))
    return f"{short if short == price else price.normalize():f}"
