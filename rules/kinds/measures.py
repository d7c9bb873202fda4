"""The measures of ``did`` as traits: ``{sum: order.total}``, ``{count: [email_sent, sms_sent], window: {within: P7D}}``."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from profiles.aggregates import KEPT_MAX
from profiles.moments import FOREVER
from profiles.state import Profile
from rules.documents import Node
from rules.kept import measured
from rules.series import (
    MARGIN,
    ORDER_MONEY,
    SOURCE_KEYS,
    measure_named,
    of_book,
    order_entries,
    order_field,
    source_of,
    windowed,
)
from rules.spec import PUBLISH, Reader, Scope, TraitExample, TraitKind
from rules.touches import CAMPAIGN, touch


def _compile(kind: str, name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    if spec.value == CAMPAIGN and kind in ("first", "last"):
        node.known((kind, PUBLISH))
        return touch(name, scope, last=kind == "last")
    return {name: _reader(kind, spec, node, scope)}


def _reader(kind: str, spec: Node, node: Node, scope: Scope) -> Reader:
    """``{sum: order.total}``, ``{count: [email_sent, sms_sent], window: {within: P7D}}``, ``{first: page_viewed.path}``."""
    name = "times" if kind == "count" else kind
    named, field = _named(spec)
    source = source_of(named, node, scope)
    default = node.get("default")
    if default is not None:
        if spec.value != "order.margin":
            default.wrong("default: goes with `order.margin` only, for orders of which nobody said it")
        default.choice(("order.total",))
    if source.is_order:
        if field == "time":
            plain = order_entries(source, "", scope.currency)

            def at(profile: Profile) -> list[tuple[int, Any]]:
                return [(at_ms, at_ms) for at_ms, _ in plain(profile)]  # one expression, used once

            look, result = windowed(at, source.window), "time"
        else:
            field = order_field(name, field, spec)
            if field == MARGIN and source.per_item:
                spec.wrong("margin: that of whole orders is known, not of their lines; without `per: item`")
            entries = order_entries(source, field, scope.currency, else_total=default is not None)
            look = windowed(entries, source.window)
            money = (field == "" or field in ORDER_MONEY) and kind not in ("count", "distinct")
            result = "money" if money else "any" if kind in ("first", "last") else "number"
        measure = measure_named(name)

        def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
            values, until_ms = look(profile, now_ms)
            return measure(values), until_ms

        return of_book(read, result, source.window)
    # A measure of other events stands on the same kept statistics as `did`; the comparison is a dummy, for which as
    # much is kept as ever is, and of which any entry more may change the answer.
    asked: dict[str, Node] = {"eq": node.made(KEPT_MAX - 1)}
    is_time = field == "time" and kind in ("first", "last")
    if field and not is_time:
        asked["field"] = node.made(field)
    kept = measured(name, node.made(asked), source, scope)
    value, until = kept.value, kept.until

    def read_kept(profile: Profile, now_ms: int) -> tuple[Any, int]:
        return value(profile, now_ms), FOREVER if until is None else until(profile, now_ms)

    result = "time" if is_time else "any" if kind in ("first", "last") else "number"
    return Reader(read_kept, result, kept.reads)


def _named(spec: Node) -> tuple[Node, str]:
    """``order.total`` → (order, total); a list of event types has no field."""
    if isinstance(spec.value, str) and "." in spec.value:
        name, _, field = spec.value.partition(".")
        return spec.made(name), field
    return spec, ""


_KINDS: Final[tuple[tuple[str, str, tuple[TraitExample, ...]], ...]] = (
    (
        "count",
        "How many orders, lines or events.",
        (
            TraitExample(
                "{count: [email_sent, sms_sent], window: {within: P7D}}",
                """
                0d  ana  email_sent
                1d  ana  sms_sent
                1d  ana  expect trait it 2
                7d  ana  expect trait it 1
                8d  ana  expect trait it 0
                """,
            ),
        ),
    ),
    (
        "sum",
        "A field of theirs added up; 0 of none. `order.margin` is what the shop says that it earns; `default: order.total` stands for it where it says nothing.",
        (
            TraitExample(
                "{sum: order.total}",
                """
                0d  ana  order_completed order_id=1 total=60
                1d  ana  order_completed order_id=2 total=40
                1d  ana  expect trait it 100
                2d  ana  order_refunded order_id=2 amount=0.01
                2d  ana  expect trait it 99.99
                """,
            ),
            TraitExample(
                "{sum: order.margin, default: order.total}",
                """
                0d  ana  order_completed order_id=1 total=60 margin=20
                0d  ana  expect trait it 20
                1d  ana  order_completed order_id=2 total=40
                1d  ana  expect trait it 60
                2d  ana  order_refunded order_id=1 amount=15
                2d  ana  expect trait it 55
                """,
            ),
        ),
    ),
    (
        "avg",
        "The mean of a field.",
        (
            TraitExample(
                "{avg: order.total}",
                """
                0d  ana  order_completed order_id=1 total=10 product=a price=5 qty=2 brand=Bosch
                1d  ana  order_completed order_id=2 total=30 product=b price=30 brand=Bosch
                1d  ana  expect trait it 20
                """,
            ),
        ),
    ),
    (
        "min",
        "The least of a field.",
        (
            TraitExample(
                "{min: order.total}",
                """
                0d  ana  order_completed order_id=1 total=10 product=a price=5 qty=2 brand=Bosch
                1d  ana  order_completed order_id=2 total=30 product=b price=30 brand=Bosch
                1d  ana  expect trait it 10
                """,
            ),
        ),
    ),
    (
        "max",
        "The greatest of a field.",
        (
            TraitExample(
                "{max: order.total}",
                """
                0d  ana  order_completed order_id=1 total=10 product=a price=5 qty=2 brand=Bosch
                1d  ana  order_completed order_id=2 total=30 product=b price=30 brand=Bosch
                1d  ana  expect trait it 30
                """,
            ),
        ),
    ),
    (
        "distinct",
        "How many different values of a field.",
        (
            TraitExample(
                "{distinct: order.brand}",
                """
                0d  ana  order_completed order_id=1 total=10 product=a price=5 qty=2 brand=Bosch
                1d  ana  order_completed order_id=2 total=30 product=b price=30 brand=Bosch
                1d  ana  expect trait it 1
                """,
            ),
        ),
    ),
    (
        "median",
        "The middle value of a field of orders; of an even number the mean of the two in the middle.",
        (
            TraitExample(
                "{median: order.total}",
                """
                0d  ana  order_completed order_id=1 total=10
                1d  ana  order_completed order_id=2 total=90
                1d  ana  expect trait it 50
                2d  ana  order_completed order_id=3 total=30
                2d  ana  expect trait it 30
                """,
            ),
        ),
    ),
    (
        "first",
        "A field of the earliest; `order.time`, `email_opened.time` is when it happened; `context.campaign` has the parts of `first_touch`.",
        (
            TraitExample(
                "{first: page_viewed.path}",
                """
                1d  ana  page_viewed path=/sale
                2d  ana  page_viewed path=/blog late=2d
                2d  ana  expect trait it /blog
                """,
            ),
        ),
    ),
    (
        "last",
        "A field of the latest.",
        (
            TraitExample(
                "{last: email_opened.time}",
                """
                1d  ana  email_opened
                2d  ana  email_opened
                3d  ana  expect trait it 2d
                """,
            ),
        ),
    ),
)

SPEC = tuple(
    TraitKind(name, says, (*SOURCE_KEYS, "default"), partial(_compile, name), examples=examples)
    for name, says, examples in _KINDS
)
