"""``argmax``: the channel on which a customer reacts most, as far as he lets us use it.

Of each channel the newest messages are kept, ``_KEPT`` of them, and by which of them something was done: opened or
clicked, by no machine. The rate is exact, and needs some messages to be one.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from profiles import consent
from profiles.aggregates import latest, occurrences
from profiles.ids import small_id
from profiles.moments import FOREVER
from profiles.state import CONSENTS, Profile
from profiles.wire import Event
from rules.documents import Node
from rules.kept import statistic
from rules.messages import CHANNELS
from rules.predicates import of_people
from rules.spec import Reader, Reads, Scope, TraitExample, TraitKind
from rules.windows import sliding, window_of

_KEPT: Final = 50
_SAMPLES: Final = 3


def _compile(name: str, spec: Node, node: Node, scope: Scope) -> dict[str, Reader]:
    spec.choice(("reaction_rate",))
    over, samples_node = node.get("over"), node.get("min_samples")
    if over is None:
        node.wrong("'over' is missing")
    else:
        over.choice(("channel",))
    samples = samples_node.integer(least=1, most=_KEPT, default=_SAMPLES) if samples_node is not None else _SAMPLES
    window = sliding(window_of(node.get("window"), scope), node)
    leaves = window.leaves if window is not None else None
    kinds = [statistic(one, window) if window is not None else one.SPEC for one in (occurrences, latest)]
    kept: list[tuple[str, int, int]] = []
    for channel in CHANNELS:
        sent = scope.aggregate(kinds[0], (f"{channel}_sent",), f"{channel}|sent", lambda event: [None], _KEPT)
        types = (f"{channel}_link_clicked", f"{channel}_opened")
        kept.append((channel, sent, scope.aggregate(kinds[1], types, f"{channel}|reactions", _message, _KEPT)))
    rate_of = _rate(leaves, samples)

    def read(profile: Profile, now_ms: int) -> tuple[Any, int]:
        best: tuple[Fraction, int] | None = None
        chosen, until_ms = None, FOREVER
        for place, (channel, sent, reacted) in enumerate(kept):
            rate, ends_ms = rate_of(profile.aggs.get(sent) or [], profile.aggs.get(reacted) or {}, now_ms)
            until_ms = min(until_ms, ends_ms)
            if rate is None or consent.state_of(profile, channel, "*") == consent.DENIED:
                continue
            if best is None or (rate, -place) > best:
                best, chosen = (rate, -place), channel
        return chosen, until_ms

    reads: Reads = frozenset({("part", CONSENTS), *(("aggregate", agg) for _, *both in kept for agg in both)})
    return {name: Reader(read, "text", reads)}


def _rate(
    leaves: Callable[[int], int] | None, samples: int
) -> Callable[[list[int], dict[int, int], int], tuple[Fraction | None, int]]:
    """(times of sending, message -> time of its newest reaction, now) -> (rate, until when it stands)."""

    def rate(sent: list[int], reacted: dict[int, int], now_ms: int) -> tuple[Fraction | None, int]:
        until_ms = FOREVER
        if leaves is not None:
            ends = [leaves(at_ms) for at_ms in (*sent, *reacted.values())]
            until_ms = min((end_ms for end_ms in ends if end_ms > now_ms), default=FOREVER)
            sent = [at_ms for at_ms in sent if leaves(at_ms) > now_ms]
        if len(sent) < samples:
            return None, until_ms
        # What was done with messages older than those that are kept says nothing of these.
        done = sum(at_ms >= sent[0] and (leaves is None or leaves(at_ms) > now_ms) for at_ms in reacted.values())
        return min(Fraction(done, len(sent)), Fraction(1)), until_ms

    return rate


def _message(event: Event) -> list[Any]:
    """Which message it was done with: several clicks in one letter are one reaction."""
    return [small_id(str(event.props.get("delivery_id") or event.message_id))] if of_people(event.props) else []


SPEC = TraitKind(
    "argmax",
    "`{argmax: reaction_rate, over: channel}`: the channel (`email`, `sms`, `push`) with the greatest share of messages that"
    f" were opened or clicked by a person, among the {_KEPT} newest of each; of equal ones in that order. A channel that was refused"
    f" as a whole, or with fewer than `min_samples` messages ({_SAMPLES}), is none.",
    ("over", "window", "min_samples"),
    _compile,
    examples=(
        TraitExample(
            "{argmax: reaction_rate, over: channel, window: {within: P180D}, min_samples: 2}",
            """
            0d    ana  email_sent delivery_id=e1
            0d    ana  email_sent delivery_id=e2
            1d    ana  sms_sent delivery_id=s1
            1d    ana  sms_sent delivery_id=s2
            1d    ana  expect trait it email
            2d    ana  sms_link_clicked delivery_id=s2
            2d    ana  email_opened delivery_id=e1 machine=true
            2d    ana  expect trait it sms
            3d    ana  consent_changed channel=sms state=denied
            3d    ana  expect trait it email
            180d  ana  expect trait it none
            """,
        ),
    ),
)
