"""``opportune fit bgnbd``: the parameters of P(alive) from a history of orders (Fader, Hardie and Lee 2005).

    model, people = fit_bgnbd(lives(events, zone, until_ms), unit_ms)

Maximum likelihood: their equation 6 for one customer with ``x`` purchase days after the first, the last ``t`` after it, over an
age ``T``. SciPy's bounded quasi-Newton search does the work, over the logarithms of the parameters, which are above zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.clock import SystemClock
from connectors.mapping import FileMapping
from connectors.sources.files import events_of
from profiles import orders
from profiles.errors import BadInput, Refused
from profiles.moments import DAY_MS, day_number, iso, parse_duration, parse_instant, zone_named
from profiles.state import Profile
from profiles.taxonomy import EVENT_TYPES
from profiles.wire import ORDER_EVENTS, Event
from stream.settings import Agreed

PEOPLE_MIN: Final = 100
_BOUND: Final = 9.2  # of a logarithm: parameters from 0.0001 to 10,000


class Life(NamedTuple):
    """One customer's purchases: repeats, and days from the first purchase day to the last, and to the end."""

    repeats: int
    last_days: int
    age_days: int


class Model(NamedTuple):
    """The parameters of BG/NBD; ``alpha`` in the unit asked for."""

    r: float
    alpha: float
    a: float
    b: float


def told(file: Path, mapping: FileMapping, agreed: Agreed, until: str, unit: str) -> str:
    """The command's answer: a trait to put into rules.

    Raises:
        Refused: no such file, a word that is none, or no parameters to be had.
    """
    if not file.is_file():
        raise Refused(f"file: one that can be read wanted, got {file}")
    try:
        unit_ms = parse_duration(unit).about_ms()
        until_ms = parse_instant(until) if until else None
    except (ValueError, OverflowError) as error:
        raise Refused(f"--unit or --until: {error}") from None
    secret = bytes.fromhex(agreed.secret) if agreed.secret else b"no secret: addresses are not told"
    rows = events_of(file, mapping, secret=secret, now_ms=SystemClock().now_ms())
    events = [one for one in rows if isinstance(one, Event)]
    if until_ms is None:
        until_ms = max((one.at_ms for one in events), default=0) + 1
    people = lives(events, zone_named(agreed.zone or "UTC"), until_ms)
    model = fit_bgnbd(people, unit_ms)
    parameters = ", ".join(f"{name}: {value:g}" for name, value in model._asdict().items())
    back = sum(1 for one in people if one.repeats)
    return (
        f"# BG/NBD by {len(people)} customers, {back} of whom came back, who bought before {iso(until_ms)}\n"
        f"traits:\n  alive: {{p_alive: order, model: {{{parameters}, unit: {unit}}}}}"
    )


def lives(events: Iterable[Event], zone: tzinfo, until_ms: int) -> list[Life]:
    """What the model reads of a history: customers by address who bought before ``until_ms``, by calendar days of the shop.

    Args:
        events: any; only those of orders are looked at. Orders count as they do in rules: paid, and not taken back.
        until_ms: the end of the observation, exclusive; its last day is the one of the millisecond before.
    """
    books: dict[str, Profile] = {}
    for event in events:
        known = EVENT_TYPES.get(event.type)
        if known is None or known.topic != ORDER_EVENTS or event.at_ms >= until_ms:
            continue
        book = books.setdefault(event.address, Profile(event.address))
        try:
            known.change(book, event)
        except BadInput:
            continue  # Older than the newest 200 of his: as the engine has it.
        book.carts.clear()
    end = day_number(until_ms - 1, zone)
    found = []
    for _, book in sorted(books.items()):
        days = sorted({day_number(one.at_ms, zone) for one in orders.fold(book)})
        if days:
            found.append(Life(len(days) - 1, days[-1] - days[0], end - days[0]))
    return found


def fit_bgnbd(people: Sequence[Life], unit_ms: int) -> Model:
    """The likeliest parameters.

    Raises:
        Refused: SciPy is not installed, there are too few people or none who came back, or the search found no end.
    """
    if len(people) < PEOPLE_MIN or not any(one.repeats for one in people):
        raise Refused(f"history: {PEOPLE_MIN} customers at least, some of whom came back, wanted, got {len(people)}")
    try:
        import numpy as np
        from scipy.optimize import minimize
        from scipy.special import betaln, gammaln
    except ModuleNotFoundError as error:
        raise Refused(f"fit: {error.name} wanted, not installed: pip install 'opportune[fit]'") from None
    x, t, age = (np.asarray(column, dtype=float) for column in zip(*people, strict=True))
    t, age = t * DAY_MS / unit_ms, age * DAY_MS / unit_ms
    came_back = x > 0

    def loss(logs: Any) -> float:
        r, alpha, a, b = np.exp(logs)
        common = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
        alive = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + age)
        repeats = np.where(came_back, x, 1)
        gone = betaln(a + 1, b + repeats - 1) - betaln(a, b) - (r + x) * np.log(alpha + t)
        whole = common + np.where(came_back, np.logaddexp(alive, gone), alive)
        return float(-np.mean(whole))

    found = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(-_BOUND, _BOUND)] * 4, options={"ftol": 1e-13})
    if not found.success or max(abs(found.x)) >= _BOUND:
        raise Refused("fit: likeliest parameters from 0.0001 to 10000 wanted, got none: the history does not tell them")
    return Model(*(round(float(value), 6) for value in np.exp(found.x)))
