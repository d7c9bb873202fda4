"""``p_alive``: how likely it is that a customer still buys at all, by BG/NBD (Fader, Hardie and Lee 2005).

With ``x`` purchases after the first, the last of them ``t`` after it, and ``T`` since the first (equation 7 of their note
"Computing P(alive) Using the BG/NBD Model", 2008):

    P(alive) = 1 / (1 + a / (b + x - 1) · ((alpha + T) / (alpha + t)) ** (r + x))        for x > 0; 1 for x = 0

What rules see is whole percent, rounded down. Until the next purchase it only falls, and it falls below ``p`` at

    T = (alpha + t) · ((1 / p - 1) · (b + x - 1) / a) ** (1 / (r + x)) - alpha

so a rule that asks for less than ``p`` has one alarm, at that instant. Purchases of one calendar day are one, as in the
paper's data; the times between are exact. ``opportune fit bgnbd`` finds the parameters from a history.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from profiles.moments import FOREVER, day_number
from profiles.state import ORDERS, Profile
from rules.documents import Node
from rules.series import order_entries, source_of
from rules.spec import UNREADABLE, Reader, Scope, TraitExample, TraitKind

_PARAMETERS: Final = ("r", "alpha", "a", "b")
_MOST: Final = 10_000


class _Model(NamedTuple):
    """The parameters; ``alpha`` in milliseconds."""

    r: float
    alpha_ms: float
    a: float
    b: float

    def percent(self, x: int, t_ms: int, age_ms: int) -> int:
        """P(alive) in whole percent, rounded down."""
        if not x:
            return 100
        odds = self.a / (self.b + x - 1) * ((self.alpha_ms + age_ms) / (self.alpha_ms + t_ms)) ** (self.r + x)
        return int(100 / (1 + odds))

    def below_ms(self, x: int, t_ms: int, percent: int) -> int:
        """The age at which it is less than so many percent, to the millisecond; ``x`` > 0 and 0 < ``percent`` <= 100."""
        odds = (100 / percent - 1) * (self.b + x - 1) / self.a
        try:
            age_ms = int((self.alpha_ms + t_ms) * odds ** (1 / (self.r + x)) - self.alpha_ms)
        except OverflowError:
            return FOREVER
        if age_ms >= FOREVER:
            return FOREVER
        # Where the closed form and the value are rounded differently, the value is right.
        age_ms = max(t_ms, age_ms)
        while age_ms > t_ms and self.percent(x, t_ms, age_ms - 1) < percent:
            age_ms -= 1
        while self.percent(x, t_ms, age_ms) >= percent:
            age_ms += 1
        return age_ms


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    source = source_of(spec, node, scope)
    found = _model(node)
    if not source.is_order:
        spec.wrong("p_alive: 'order' wanted")
    if found is None or not source.is_order:
        return {name: UNREADABLE}
    model, zone, entries = found, scope.zone, order_entries(source, "", "")

    def history(profile: Profile) -> tuple[int, int, int] | None:
        """(x, first, last); ``None``: never bought."""
        times = [at_ms for at_ms, _ in entries(profile)]
        if not times:
            return None
        return len({day_number(at_ms, zone) for at_ms in times}) - 1, times[0], times[-1]

    def falls(profile: Profile, percent: int) -> int:
        known = history(profile)
        if known is None or not known[0] or percent <= 0:
            return FOREVER
        x, first_ms, last_ms = known
        age_ms = model.below_ms(x, last_ms - first_ms, percent)
        return FOREVER if age_ms >= FOREVER else first_ms + age_ms

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        known = history(profile)
        if known is None:
            return None, FOREVER
        x, first_ms, last_ms = known
        percent = model.percent(x, last_ms - first_ms, max(now_ms, last_ms) - first_ms)
        return percent, falls(profile, percent)

    return {name: Reader(read, "number", frozenset({("part", ORDERS)}), falls)}


def _model(node: Node) -> _Model | None:
    model = node.get("model")
    if model is None:
        node.wrong("`model` wanted: {r: …, alpha: …, a: …, b: …, unit: P7D}, as `opportune fit bgnbd` tells it")
        return None
    model.known((*_PARAMETERS, "unit"), required=(*_PARAMETERS, "unit"))
    values = []
    for key in _PARAMETERS:
        one = model.get(key)
        if one is None:
            return None
        number = float(one.number())
        if not 0 < number <= _MOST:
            one.wrong(f"{key}: a number above 0 and up to {_MOST} wanted, got {one.found()}")
            return None
        values.append(number)
    unit = model.get("unit")
    if unit is None:
        return None
    r, alpha, a, b = values
    return _Model(r, alpha * unit.duration().about_ms(), a, b)


SPEC = TraitKind(
    "p_alive",
    "How likely it is that a customer still buys, in whole percent, by the BG/NBD model (Fader, Hardie and Lee 2005) with the parameters that"
    " `opportune fit bgnbd` finds; `unit` is the time that `alpha` is told in. Of whom has bought on one day only the model says 100. A"
    " rule over it has one alarm: the instant at which it falls below what is asked.",
    ("status_in", "model"),
    _compile,
    examples=(
        TraitExample(
            "{p_alive: order, model: {r: 0.243, alpha: 4.414, a: 0.793, b: 2.426, unit: P7D}}",
            """
            segment gone = {trait: it, lt: 50}
            0d      ana  expect trait it none, out gone
            0d      ana  order_completed order_id=1 total=10
            60d     ana  expect trait it 100, out gone, wake none
            70d     ana  order_completed order_id=2 total=10
            70d     ana  expect trait it 75, out gone
            300d    ana  expect trait it 41, in gone, wake none
            """,
        ),
    ),
)
