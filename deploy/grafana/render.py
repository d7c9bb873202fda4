"""Draws a dashboard without Grafana: asks Prometheus what its panels ask, and writes the answers as one SVG.

    python -m deploy.grafana.render http://127.0.0.1:9090 overview --minutes 60 --out overview.svg

For a report by mail, a page in the docs, or a look from a machine that has no browser. The questions are those of the file
in ``dashboards/``; a curve is what Prometheus answered, point by point, nothing is smoothed or filled in.
"""

from __future__ import annotations

import argparse
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

HERE: Final = Path(__file__).parent / "dashboards"
POINTS: Final = 180
CELL_W, CELL_H, GAP, HEAD = 38.0, 26.0, 8, 46
COLOURS: Final = ("#2f6fb0", "#d9822b", "#3d9956", "#a04fb0", "#c23b4a", "#6b7a8f", "#b39b1e", "#1f9aa5")
LEGEND_MAX: Final = 6
LEGEND_CHARS: Final = 24
_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")


class Series(NamedTuple):
    """One curve: its name in the legend, and (epoch s, value) pairs."""

    name: str
    points: list[tuple[float, float]]


Ask = Callable[[str], list[tuple[dict[str, str], list[tuple[float, float]]]]]
"""A question -> for each answer its labels and points; what is no number is left out."""


def asking(address: str, from_s: float, to_s: float) -> Ask:
    """Ask Prometheus for a range.

    Args:
        address: ``http://host:port``.
        from_s, to_s: epoch seconds.
    """
    step_s = max(1.0, (to_s - from_s) / POINTS)

    def ask(question: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        asked = {"query": question, "start": f"{from_s}", "end": f"{to_s}", "step": f"{step_s}"}
        with urllib.request.urlopen(
            f"{address}/api/v1/query_range?{urllib.parse.urlencode(asked)}", timeout=30
        ) as answer:
            found = orjson.loads(answer.read())["data"]["result"]
        return [
            (one["metric"], [(at, float(value)) for at, value in one["values"] if value not in ("NaN", "+Inf", "-Inf")])
            for one in found
        ]

    return ask


def draw(page: Mapping[str, Any], ask: Ask, from_s: float, to_s: float, said: str = "") -> str:
    """A dashboard as SVG.

    Args:
        page: as in its file.
        ask: answers questions.
        from_s, to_s: the time axis, epoch seconds.
        said: a line under the title: when and of what this is.
    """
    panels = page["panels"]
    wide = max(one["gridPos"]["x"] + one["gridPos"]["w"] for one in panels) * CELL_W + GAP
    high = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) * CELL_H + HEAD + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="#f4f5f7"/><text x="{GAP}" y="22" font-size="16">{escape(page["title"])}</text>',
        f'<text x="{GAP}" y="38" fill="#6b7a8f">{escape(said)}</text>',
    ]
    for panel in panels:
        at = panel["gridPos"]
        x, y = at["x"] * CELL_W + GAP, at["y"] * CELL_H + HEAD
        w, h = at["w"] * CELL_W - GAP, at["h"] * CELL_H - GAP
        parts.append(f'<g transform="translate({x:.1f} {y:.1f})">')
        parts.append(f'<rect width="{w:.1f}" height="{h:.1f}" rx="3" fill="#fff" stroke="#dfe3e8"/>')
        parts.append(f'<text x="8" y="17" font-weight="bold">{escape(panel["title"])}</text>')
        series = [
            Series(_named(target["legendFormat"], labels), points)
            for target in panel["targets"]
            for labels, points in ask(target["expr"])
            if points
        ]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if not series:
            parts.append(f'<text x="{w / 2:.1f}" y="{h / 2:.1f}" text-anchor="middle" fill="#6b7a8f">no data</text>')
        elif panel["type"] == "stat":
            parts.append(
                f'<text x="{w / 2:.1f}" y="{h / 2 + 18:.1f}" text-anchor="middle" font-size="42">'
                f"{escape(told(series[0].points[-1][1], unit))}</text>"
            )
        else:
            red = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if step["value"]]
            parts += _curves(series, unit, w, h, from_s, to_s, red)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return _LABEL.sub(lambda found: labels.get(found[1], ""), legend)[:LEGEND_CHARS]


def _curves(
    series: Sequence[Series], unit: str, w: float, h: float, from_s: float, to_s: float, red: Sequence[float]
) -> list[str]:
    shown = sorted(series, key=lambda one: -max(value for _, value in one.points))
    rows = (min(len(shown), LEGEND_MAX) + 1) // 2
    left, top, right, bottom = 58.0, 28.0, w - 10, h - 22 - 14 * rows
    low = min(0.0, *(value for one in shown for _, value in one.points))
    peak = max(value for one in shown for _, value in one.points)
    high = _round_up(peak) if peak > low else low + 1.0

    def place(at_s: float, value: float) -> str:
        across = left + (right - left) * (at_s - from_s) / (to_s - from_s)
        return f"{across:.1f},{bottom - (bottom - top) * (value - low) / (high - low):.1f}"

    parts = []
    for share in (0.0, 0.5, 1.0):
        value = low + (high - low) * share
        y = bottom - (bottom - top) * share
        parts.append(f'<path d="M{left} {y:.1f}H{right:.1f}" stroke="#e8ebef"/>')
        parts.append(
            f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end" fill="#6b7a8f">{escape(told(value, unit))}</text>'
        )
    minutes = (to_s - from_s) / 60
    parts.append(f'<text x="{left}" y="{bottom + 13:.1f}" fill="#6b7a8f">{minutes:.0f} min ago</text>')
    parts.append(f'<text x="{right:.1f}" y="{bottom + 13:.1f}" text-anchor="end" fill="#6b7a8f">now</text>')
    parts += [
        f'<path d="M{place(from_s, value)}L{place(to_s, value)}" stroke="#c23b4a" stroke-dasharray="4 3"/>'
        for value in red
        if low <= value <= high
    ]
    for number, one in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        line = "L".join(place(at_s, value) for at_s, value in one.points)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"/>')
        if number < LEGEND_MAX:
            x, y = 10 + (number % 2) * (w - 16) / 2, h - 14 * rows + 14 * (number // 2) + 4
            latest = told(one.points[-1][1], unit)
            parts.append(f'<rect x="{x:.1f}" y="{y - 8:.1f}" width="9" height="9" fill="{colour}"/>')
            parts.append(
                f'<text x="{x + 13:.1f}" y="{y:.1f}">{escape(one.name)} <tspan fill="#6b7a8f">{escape(latest)}</tspan></text>'
            )
    return parts


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    size = 1.0
    while size * 10 <= value:
        size *= 10
    while size > value:
        size /= 10
    return next(size * step for step in (1, 2, 2.5, 5, 10) if size * step >= value)


def told(value: float, unit: str) -> str:
    """A value in Grafana's units, for people."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit in ("bytes", "Bps"):
        size = next((one for one in (3, 2, 1) if abs(value) >= 1024**one), 0)
        return f"{value / 1024**size:.3g} {('B', 'KiB', 'MiB', 'GiB')[size]}{'/s' if unit == 'Bps' else ''}"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    number = (
        f"{value / 1e6:.3g} M" if abs(value) >= 1e6 else f"{value / 1e3:.3g} k" if abs(value) >= 1e4 else f"{value:.4g}"
    )
    return number + {"s": " s", "ms": " ms", "ops": "/s"}.get(unit, "")


def rendered(address: str, name: str, from_s: float, to_s: float, said: str = "") -> str:
    """The dashboard of that name, as a Prometheus has it."""
    page = orjson.loads((HERE / f"{name}.json").read_bytes())
    return draw(page, asking(address, from_s, to_s), from_s, to_s, said)


def now_s(address: str) -> float:
    """What Prometheus's clock says."""
    with urllib.request.urlopen(f"{address}/api/v1/query?query=time()", timeout=30) as answer:
        at_s: float = orjson.loads(answer.read())["data"]["result"][0]
    return at_s


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="of Prometheus: http://127.0.0.1:9090")
    parser.add_argument("name", choices=sorted(path.stem for path in HERE.glob("*.json")))
    parser.add_argument("--minutes", type=float, default=180.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--said", default="", help="a line under the title")
    asked = parser.parse_args()
    until_s = now_s(asked.address)
    asked.out.write_text(rendered(asked.address, asked.name, until_s - asked.minutes * 60, until_s, asked.said))
