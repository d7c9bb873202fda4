"""``lapsed``: who has bought and stopped, or never bought, by whichever definition a shop goes by (SPEC 1.5).

    {lapsed: P3M}                                  # so long without an order
    {lapsed: {times: 3, of: mean_gap, else: P3M}}  # three of his own intervals; of whom none is known: three months
    {lapsed: {times: 3, of: mean_gap, else: base_gap}}   # … three of the base's, a trait
    {lapsed: {never_bought: P1M}}                  # known for so long, and no order
    {lapsed: {alive_below: 30, of: alive}}         # a trait of the kind p_alive below so many percent
    {lapsed: half_year}                            # a preset: one of those

It stands for rules over traits, and is compiled, explained and timed as these.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.moments import parse_duration
from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import NO
from rules.words import Tongue

PRESETS: Final[dict[str, Any]] = {
    "three_months": "P3M",
    "half_year": "P6M",
    "year": "P1Y",
    "own_rhythm": {"times": 3, "of": "mean_gap", "else": "P3M"},
    "never_bought": {"never_bought": "P1M"},
}
_WAYS: Final = ("times", "never_bought", "alive_below")
_SILENT: Final = {"trait": "last_order_at"}


def _lapsed(node: Node, scope: Scope) -> Judged:
    asked = node.get("lapsed")
    assert asked is not None
    if isinstance(asked.value, str) and asked.value in PRESETS:
        asked = _made(asked, PRESETS[asked.value])
    rule = _rule(asked, scope)
    if rule is None:
        return Judged("lapsed", "?", lambda profile, now_ms: NO, frozenset())
    return scope.rule(_made(asked, rule))


def _rule(asked: Node, scope: Scope) -> dict[str, Any] | None:
    if not asked.is_map():
        if not isinstance(asked.value, str) or not _is_duration(asked.value):
            asked.wrong(
                f"a duration like P3M, a way of {', '.join(_WAYS)}, or one of {', '.join(PRESETS)} wanted, got {asked.found()}"
            )
            return None
        return {**_SILENT, "older_than": asked.value}
    ways = [way for way in _WAYS if asked.get(way) is not None]
    if len(ways) != 1:
        asked.wrong(f"one of {', '.join(_WAYS)} wanted, got {' and '.join(ways) or 'none'}")
        return None
    if ways[0] == "never_bought":
        asked.known(("never_bought",))
        grace = asked.get("never_bought")
        assert grace is not None
        return {"all": [{"trait": "orders_paid", "eq": 0}, {"trait": "first_seen", "older_than": grace.value}]}
    if ways[0] == "alive_below":
        asked.known(("alive_below", "of"), required=("alive_below", "of"))
        below, of = asked.get("alive_below"), asked.get("of")
        return {"trait": of.value, "lt": below.value} if below is not None and of is not None else None
    asked.known(("times", "of", "else"), required=("times", "of"))
    times, of, other = asked.get("times"), asked.get("of"), asked.get("else")
    if times is None or of is None:
        return None
    own = {**_SILENT, "older_than": {"times": times.value, "of": of.value}}
    if other is None:
        return own
    if scope.reader(of.text(), of).kind != "span":
        of.wrong("a trait that is a length of time wanted, like mean_gap")
        return None
    fixed = isinstance(other.value, str) and _is_duration(other.value)
    length = other.value if fixed else {"times": times.value, "of": other.value}
    return {"any": [own, {"all": [{"trait": of.value, "missing": True}, {**_SILENT, "older_than": length}]}]}


def _is_duration(text: str) -> bool:
    try:
        parse_duration(text)
    except ValueError:
        return False
    return True


def _made(node: Node, value: Any) -> Node:
    """Plain values as they would stand at this place."""
    if isinstance(value, dict):
        return node.made({key: _made(node, one) for key, one in value.items()})
    if isinstance(value, list):
        return node.made([_made(node, one) for one in value])
    return node.made(value)


def _words(rule: dict[str, Any], t: Tongue) -> str:
    asked = rule["lapsed"]
    asked = PRESETS.get(asked, asked) if isinstance(asked, str) else asked
    if not isinstance(asked, dict):
        length = t.duration(asked, than=True)
        return t.pick(f"no order for {length} or longer", f"нет заказов не менее {length}")
    if "never_bought" in asked:
        length = t.duration(asked["never_bought"], than=True)
        return t.pick(f"never bought, known for {length} or longer", f"не покупал ни разу, известен не менее {length}")
    if "alive_below" in asked:
        return t.pick(
            f"the probability of still buying ({t.trait(str(asked['of']))}) is below {asked['alive_below']} %",
            f"вероятность новых покупок ({t.trait(str(asked['of']))}) ниже {asked['alive_below']} %",
        )
    times, own = asked["times"], t.trait(str(asked["of"]))
    said = t.pick(f"no order for {times} × {own} or longer", f"нет заказов не менее {times} × {own}")
    other = asked.get("else")
    if other is None:
        return said
    fixed = isinstance(other, str) and _is_duration(other)
    length = t.duration(other, than=True) if fixed else f"{times} × {t.trait(str(other))}"
    return said + t.pick(f" (where that is not known, for {length})", f" (если он неизвестен, {length})")


SPEC = OperatorSpec(
    "lapsed",
    "Who has stopped buying, by any of the usual definitions: a time without an order (`P3M`), a multiple of the customer's own interval or, where none is known,"
    " of another trait or a time (`{times, of, else}`), never bought though known for so long (`{never_bought: P1M}`), or unlikely to come back"
    " (`{alive_below: 30, of: alive}`, a trait of the kind `p_alive`). Presets: "
    + ", ".join(f"`{one}`" for one in PRESETS)
    + ".",
    (),
    _lapsed,
    (
        RuleExample(
            "{lapsed: P30D}",
            """
            0d   ana  order_completed order_id=1 total=10
            0d   ana  expect out, wake 30d
            30d  ana  expect in
            31d  ana  order_completed order_id=2 total=10
            31d  ana  expect out
            """,
        ),
        RuleExample(
            "{lapsed: {times: 3, of: gap, else: P60D}}",
            """
            trait gap = {mean_gap: order}
            0d   ana  order_completed order_id=1 total=10
            0d   ana  expect out, wake 60d
            10d  ana  order_completed order_id=2 total=10
            10d  ana  expect out, wake 40d
            40d  ana  expect in
            """,
        ),
        RuleExample(
            "{lapsed: never_bought}",
            """
            0d   ana  registered
            0d   ana  expect out
            31d  ana  expect in
            32d  ana  order_completed order_id=1 total=10
            32d  ana  expect out
            """,
        ),
        RuleExample(
            "{lapsed: {alive_below: 50, of: alive}}",
            """
            trait alive = {p_alive: order, model: {r: 0.243, alpha: 4.414, a: 0.793, b: 2.426, unit: P7D}}
            0d    ana  order_completed order_id=1 total=10
            70d   ana  order_completed order_id=2 total=10
            217d  ana  expect out
            218d  ana  expect in
            """,
        ),
    ),
    _words,
)
