"""What a backtest tells: per day who entered and left which segment, and which moments went out or why they did not.

    days = Days(rulebook.zone, from_ms)
    replayed(source, rulebook, until_ms, lambda: days)
    days.rows(), csv_of(days), svg_of(days, title)

Days are those of the rules' zone. What happened before ``from_ms`` has its effect on profiles and is not told. The same
inputs and rules give the same bytes; ``digest`` is of all records that went out.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, tzinfo
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from profiles.moments import day_number, day_start
from profiles.state import Profile
from profiles.wire import Record
from rules.outcome import Step

ENTERED: Final = "entered"
LEFT: Final = "left"
EMITTED: Final = "emitted"

_BARS_MAX: Final = 130
_WEEK: Final = 7


class Cell(NamedTuple):
    """What is counted: on a day, of a ``segment`` entered or left, of a ``trigger`` emitted or the reason why not."""

    day: int
    kind: str
    name: str
    what: str


class Days:
    """Counts what a replay does, day by day.

    Attributes:
        counts: how often.
        records: how many went out.
    """

    def __init__(self, zone: tzinfo, from_ms: int, keep: Callable[[Record], object] | None = None) -> None:
        """``keep`` takes every record that goes out, in the order of time."""
        self.counts: Counter[Cell] = Counter()
        self.records = 0
        self._zone = zone
        self._from_ms = from_ms
        self._keep = keep
        self._digest = hashlib.blake2b(digest_size=8)
        self._day = 0
        self._day_ends_ms = -1

    def hear(self, profile: Profile, out: Step, at_ms: int) -> None:
        """Count one step."""
        if at_ms < self._from_ms:
            return
        if at_ms >= self._day_ends_ms:  # Time does not go back in a log.
            self._day = day_number(at_ms, self._zone)
            self._day_ends_ms = day_start(self._day + 1, self._zone)
        day, counts = self._day, self.counts
        for segment, is_member in out.members:
            counts[Cell(day, "segment", segment, ENTERED if is_member else LEFT)] += 1
        for trigger, reason in out.decisions:
            counts[Cell(day, "trigger", trigger, reason)] += 1
        for record in out.records:
            self.records += 1
            self._digest.update(record.value)
            if self._keep is not None:
                self._keep(record)

    @property
    def digest(self) -> str:
        """Of the values of all records that went out, in order."""
        return self._digest.hexdigest()

    def span(self) -> range:
        """The days from the first on which anything happened to the last."""
        days = [cell.day for cell in self.counts]
        return range(min(days), max(days) + 1) if days else range(0)

    def totals(self) -> dict[tuple[str, str], Counter[str]]:
        """(kind, name) -> what -> how often; segments before triggers, by name."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for cell, count in sorted(self.counts.items()):
            found.setdefault((cell.kind, cell.name), Counter())[cell.what] += count
        return dict(sorted(found.items()))


def csv_of(days: Days) -> str:
    """One line a day and thing that happened: ``day,kind,name,what,count``."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(("day", "kind", "name", "what", "count"))
    for cell, count in sorted(days.counts.items()):
        writer.writerow((date_of(cell.day), cell.kind, cell.name, cell.what, count))
    return page.getvalue()


def date_of(day: int) -> str:
    """``1997-09-30``."""
    return date.fromordinal(day + 719_163).isoformat()


def totals_of(days: Days, sizes: dict[str, int]) -> list[tuple[str, ...]]:
    """(segment, entered, left, in it at the end) of every segment, as people read them."""
    found = days.totals()
    return [
        (name, *(f"{found.get(('segment', name), Counter())[what]:,}" for what in (ENTERED, LEFT)), f"{size:,}")
        for name, size in sorted(sizes.items())
    ]


def moments_of(days: Days, triggers: Sequence[str]) -> list[tuple[str, ...]]:
    """(trigger, emitted, not emitted and why) of every trigger, as people read them."""
    found = days.totals()
    rows: list[tuple[str, ...]] = []
    for name in sorted(triggers):
        counts = found.get(("trigger", name), Counter[str]())
        why = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common() if reason != EMITTED)
        rows.append((name, f"{counts[EMITTED]:,}", why or "–"))
    return rows


# --- the chart ---------------------------------------------------------------------------------------------------

_WIDTH, _LEFT, _RIGHT, _ROW, _HEAD = 1000, 170, 160, 46, 64
_INK, _PALE, _UP, _DOWN, _SENT = "#1a202c", "#cbd5e0", "#2f855a", "#c05621", "#2b6cb0"


def svg_of(days: Days, title: str) -> str:
    """A chart of the days: a strip for each segment and trigger of which anything is to be told.

    Upwards, who entered, or what was sent; downwards, who left, or what was eligible and not sent. A bar is a day, or
    a week where the days are many. Each strip has a scale of its own; its largest bar is written beside it.
    """
    span = days.span()
    step = _WEEK if len(span) > _BARS_MAX else 1
    bars = -(-len(span) // step) if span else 0
    strips: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
    for cell, count in days.counts.items():
        up, down = strips.setdefault((cell.kind, cell.name), ([0] * bars, [0] * bars))
        (up if cell.what in (ENTERED, EMITTED) else down)[(cell.day - span.start) // step] += count
    height = _HEAD + _ROW * len(strips) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="24" font-size="16">{escape(title)}</text>',
        f'<text x="12" y="44">A bar is a {"week" if step > 1 else "day"}. '
        f'<tspan fill="{_UP}">entered ▲</tspan> <tspan fill="{_DOWN}">left ▼</tspan> · '
        f'<tspan fill="{_SENT}">sent ▲</tspan> <tspan fill="#718096">not sent ▼</tspan></text>',
    ]
    for row, ((kind, name), (up, down)) in enumerate(sorted(strips.items())):
        parts += _strip(kind, name, up, down, _HEAD + row * _ROW)
    if span:
        base = height - 14
        parts += [
            f'<text x="{_LEFT}" y="{base}">{date_of(span.start)}</text>',
            f'<text x="{_WIDTH - _RIGHT}" y="{base}" text-anchor="end">{date_of(span[-1])}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _strip(kind: str, name: str, up: list[int], down: list[int], top: int) -> list[str]:
    most = max(*up, *down)
    middle, half = top + _ROW / 2, _ROW / 2 - 4
    width = (_WIDTH - _LEFT - _RIGHT) / len(up)
    colours = (_UP, _DOWN) if kind == "segment" else (_SENT, _PALE)
    parts = [
        f'<text x="12" y="{middle + 4:g}">{escape(name)}</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{middle:g}" y2="{middle:g}" stroke="{_PALE}"/>',
        f'<text x="{_WIDTH - _RIGHT + 8}" y="{middle + 4:g}" fill="#718096">{sum(up):,} / {sum(down):,}, ≤ {most:,}</text>',
    ]
    for counts, colour, is_up in ((up, colours[0], True), (down, colours[1], False)):
        path = "".join(
            f"M{_LEFT + place * width:.1f},{middle:g}h{max(width - 0.5, 0.5):.1f}v{(-1 if is_up else 1) * half * count / most:.1f}"
            f"h-{max(width - 0.5, 0.5):.1f}z"
            for place, count in enumerate(counts)
            if count
        )
        if path:
            parts.append(f'<path d="{path}" fill="{colour}"/>')
    return parts
