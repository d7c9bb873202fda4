"""What an input did: all that follows from it, beside the profile itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from profiles.undo import Undo
from profiles.wire import Command, Record

APPLIED: Final = "applied"
DUPLICATE: Final = "duplicate"
HELD: Final = "held"
FORWARDED: Final = "forwarded"
ERASED: Final = "erased"
REFUSED: Final = "refused"
THROTTLED: Final = "throttled"


@dataclass(slots=True)
class Step:
    """What an input did.

    Attributes:
        outcome: applied, duplicate, held, forwarded, erased (the input is of a life that was), throttled (one of too
            many in a minute), or refused (told in a receipt); after the last three the profile is as it was.
        records: to be published, in order.
        commands: to other addresses; the shell adds the coordinates of their cause.
        members: (segment, is a member now) for the indexes; the last word on a segment counts.
        decisions: (trigger, reason, or "emitted", or "done" where no record goes out), for the metrics.
        receipts: (an operator's command that was done, JSON of what became of it); no values of the person, ever (R24).
        refusals: (an operator's command of which nothing was done, JSON of why): told again, it may be done yet.
        erased: the receipt of an erasure: the profile is a tombstone now.
        coupons: stems of the coupons in ``records``: the shell completes their codes (``profiles.wire.completed``).
        undo: what undoes the merges that took place; the shell adds where the log stood.
        interest: (product, whether news of it may interest him) of what has changed.
        parted: a merge was undone: what else was kept for undoing is worth nothing, and holds another's life.
    """

    outcome: str = APPLIED
    records: list[Record] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    members: list[tuple[str, bool]] = field(default_factory=list)
    decisions: list[tuple[str, str]] = field(default_factory=list)
    receipts: list[tuple[str, bytes]] = field(default_factory=list)
    refusals: list[tuple[str, bytes]] = field(default_factory=list)
    erased: dict[str, Any] | None = None
    coupons: list[str] = field(default_factory=list)
    undo: list[Undo] = field(default_factory=list)
    parted: bool = False
    interest: list[tuple[str, bool]] = field(default_factory=list)
