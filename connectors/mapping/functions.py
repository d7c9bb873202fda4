"""What a mapping may do with a value: functions and tests, small, fixed, total on text and numbers. A ``ValueError`` rejects the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from profiles.moments import instant, iso, zone_named
from profiles.money import AMOUNT_MAX, decimal_of

FORMATS_OF_TIME: Final = ("iso", "epoch_s", "epoch_ms")


def _number(value: Any) -> Decimal:
    try:
        return decimal_of(value)
    except ValueError:
        raise ValueError("a number wanted, got other text") from None


def _plain(number: Decimal) -> int | Decimal:
    return int(number) if number == number.to_integral_value() else number


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("text wanted, got something else")
    return str(value)


def _integer(value: Any) -> str:
    if type(value) is int and -AMOUNT_MAX <= value <= AMOUNT_MAX:
        return str(value)  # As most ids stand in a Parquet file: for each row, so it is worth a line.
    number = _number(value)
    if number != number.to_integral_value():
        raise ValueError("a whole number wanted, got one with a fraction")
    return str(int(number))


def _date(value: Any, written: Any) -> str:
    return _strptime(_text(value), str(written)).date().isoformat()


def _when(value: Any, written: Any, zone: Any) -> str:
    return iso(read_time(value, str(written), zone_named(str(zone))))


def _product(*factors: Any) -> int | Decimal:
    number = Decimal(1)
    for factor in factors:
        number *= _number(factor)
    return _plain(number)


def _lookup(value: Any, table: Any) -> Any:
    return table.get(_text(value)) if isinstance(table, dict) else None


def _without_prefix(value: Any, prefix: Any) -> str:
    return _text(value).removeprefix(str(prefix))


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a value. ``least`` and ``most`` count arguments; missing cells give nothing unless ``takes_none``."""

    says: str
    apply: Callable[..., Any]
    least: int = 1
    most: int = 1
    takes_none: bool = False


FUNCTIONS: Final[Mapping[str, Function]] = {
    "abs": Function("a number without its sign", lambda value: _plain(abs(_number(value)))),
    "concat": Function("texts one after another", lambda *parts: "".join(map(_text, parts)), 1, 20),
    "date": Function("a date, written as the second says, as 2026-11-22", _date, 2, 2),
    "default": Function(
        "the first that is not missing",
        lambda *options: next((one for one in options if one is not None), None),
        2,
        20,
        takes_none=True,
    ),
    "instant": Function("a time: value, format, zone; as ISO 8601 in UTC", _when, 3, 3),
    "integer": Function("a whole number as text: 17850.0 is 17850", _integer),
    "lookup": Function("what the table {from: to} says; nothing for what it lacks", _lookup, 2, 2),
    "lower": Function("in lower case", lambda value: _text(value).lower()),
    "multiply": Function("the product of numbers", _product, 2, 5),
    "negate": Function("a number with the other sign", lambda value: _plain(-_number(value))),
    "number": Function("text as a number", lambda value: _plain(_number(value))),
    "trim": Function("without blanks round it", lambda value: _text(value).strip()),
    "upper": Function("in upper case", lambda value: _text(value).upper()),
    "without_prefix": Function("without the text that it begins with", _without_prefix, 2, 2),
}


def _ordered(value: Any, wanted: Any) -> int | None:
    """-1, 0 or 1 by number; ``None`` when the cell holds no number."""
    try:
        number = value if type(value) in (int, float) else decimal_of(value)
    except ValueError:
        return None
    limit = Decimal(str(wanted)) if type(number) is Decimal else wanted
    return int(number > limit) - int(number < limit)


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, int | float):
        return _ordered(value, wanted) == 0
    return bool(str(value) == wanted)


TESTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "missing": lambda value, wanted: (value is None) is wanted,
    "eq": lambda value, wanted: value is not None and _equal(value, wanted),
    "ne": lambda value, wanted: value is not None and not _equal(value, wanted),
    "in": lambda value, wanted: value is not None and any(_equal(value, one) for one in wanted),
    "not_in": lambda value, wanted: value is not None and not any(_equal(value, one) for one in wanted),
    "lt": lambda value, wanted: value is not None and _ordered(value, wanted) == -1,
    "lte": lambda value, wanted: value is not None and _ordered(value, wanted) in (-1, 0),
    "gt": lambda value, wanted: value is not None and _ordered(value, wanted) == 1,
    "gte": lambda value, wanted: value is not None and _ordered(value, wanted) in (0, 1),
    "starts_with": lambda value, wanted: value is not None and str(value).startswith(wanted),
}
"""Tests on a cell. Of a missing cell only ``missing`` says anything; of text that is no number, ``lt`` … say no."""

NUMERIC: Final = frozenset(("lt", "lte", "gt", "gte"))


def read_time(value: Any, written: str, zone: tzinfo) -> int:
    """The instant, epoch ms, that a cell tells.

    Args:
        value: text or number.
        written: ``iso``, ``epoch_s``, ``epoch_ms``, or a pattern like ``%m/%d/%y %H:%M`` (``strptime``).
        zone: of a text that has none of its own. A wall time told twice is the first.
    Raises:
        ValueError: it tells none; the text is not repeated.
    """
    if written == "iso":
        try:
            wall = datetime.fromisoformat(_text(value).strip())
        except ValueError:
            raise ValueError("a time in ISO 8601 wanted, got other text") from None
    elif written in FORMATS_OF_TIME:
        number = _number(value)
        return int(number * 1000 if written == "epoch_s" else number)
    else:
        return _instant(_text(value).strip(), written, zone)
    return instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=zone))


@lru_cache(maxsize=65_536)
def _instant(text: str, written: str, zone: tzinfo) -> int:
    wall = _strptime(text, written)
    return instant(wall if wall.tzinfo is not None else wall.replace(tzinfo=zone))


@lru_cache(maxsize=65_536)
def _strptime(text: str, written: str) -> datetime:
    try:
        return datetime.strptime(text, written)  # noqa: DTZ007  # the caller gives it the mapping's zone
    except ValueError:
        raise ValueError(f"a time written {written} wanted, got other text") from None
