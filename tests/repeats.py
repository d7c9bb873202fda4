"""docs/replenishment.md: how far from the next purchase the estimates are, on real repeat purchases. ``python -m tests.repeats`` writes it.

Each purchase that was followed by another of the same thing is a question: how many days until then? An estimate answers with
what was known on that day: the customer's purchases so far, and everybody's up to the evening before. What is bought on one
day is one purchase.
"""

from __future__ import annotations

import datetime as calendar
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Final, NamedTuple

import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has no annotations of its own

from rules.facts import SAMPLES_MIN
from rules.rhythm import USUAL_DAYS, everybodys, left, own

DATA: Final = Path(__file__).parent / "data"
PAGE: Final = Path(__file__).parent.parent / "docs" / "replenishment.md"

Sale = tuple[int, str, str, int]
"""(day, customer, product, pieces)"""


class Repeat(NamedTuple):
    """A question, and what was known to answer it. ``quartiles``: of so many ``times`` of everybody's, empty where too few are known."""

    product: str
    bought: list[tuple[int, int]]
    quartiles: tuple[float, ...]
    times: int
    days: int

    @property
    def gaps(self) -> list[float]:
        """Days from each purchase to the next."""
        return [float(after - day) for (day, _), (after, _) in pairwise(self.bought)]


def online_retail() -> list[Sale]:
    """What known customers bought, by day; what was taken back does not count as bought."""
    names = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "CustomerID")
    table = pq.read_table(DATA / "online_retail_240k.parquet", columns=list(names))
    columns = (table.column(name).to_pylist() for name in names)
    days: dict[str, int] = {}
    sold: dict[tuple[int, str, str], int] = defaultdict(int)
    for invoice, product, pieces, at, customer in zip(*columns, strict=True):
        if customer is None or pieces < 1 or invoice.startswith("C"):
            continue
        date = at.partition(" ")[0]
        if date not in days:
            month, day, year = date.split("/")
            days[date] = _day(f"20{year}", month, day)
        sold[
            days[date],
            str(customer),
            product,
        ] += pieces
    return sorted((*key, pieces) for key, pieces in sold.items())


def cdnow() -> list[Sale]:
    """All that the sample bought, as one product: CDs."""
    sold: dict[tuple[int, str, str], int] = defaultdict(int)
    for line in (DATA / "CDNOW_sample.txt").read_text("ascii").splitlines():
        if words := line.split():
            sold[_day(words[2][:4], words[2][4:6], words[2][6:]), words[1], "CDs"] += int(words[3])
    return sorted((*key, pieces) for key, pieces in sold.items())


def _day(year: str, month: str, day: str) -> int:
    return calendar.date(int(year), int(month), int(day)).toordinal()


def repeats(sales: Iterable[Sale]) -> Iterator[Repeat]:
    """The questions, in the order in which their answers come; ``sales`` ascending."""
    bought: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    open_: dict[tuple[str, str], tuple[tuple[float, ...], int]] = {}
    known: dict[str, list[int]] = defaultdict(list)
    today, news = 0, list[tuple[str, int]]()
    for day, customer, product, pieces in sales:
        if day != today:
            for name, gap in news:
                insort(known[name], gap)
            today, news = day, []
        so_far = bought[customer, product]
        if so_far:
            gap = day - so_far[-1][0]
            yield Repeat(product, list(so_far), *open_[customer, product], gap)
            news.append((product, gap))
        so_far.append((day, pieces))
        times = known[product]
        count = len(times)
        quartiles = (
            tuple(float(times[(count * part + 3) // 4 - 1]) for part in (1, 2, 3)) if count >= SAMPLES_MIN else ()
        )
        open_[customer, product] = (quartiles, count)


# --- answers -------------------------------------------------------------------------------------------------------


def by_own(one: Repeat) -> float:
    """``source: personal``."""
    return own(one.gaps, USUAL_DAYS).days


def by_own_or_all(one: Repeat) -> float:
    """``source: [personal, product_median]``, of whom there are purchases."""
    return own(one.gaps, by_all(one) if one.quartiles else USUAL_DAYS).days


def by_all(one: Repeat) -> float:
    """``source: product_median``."""
    return everybodys(one.quartiles, one.times, USUAL_DAYS).days


def by_pieces(one: Repeat) -> float:
    """``source: personal, stock_carry: true``."""
    pieces = [count for _, count in one.bought]
    a_piece = own([gap / count for gap, count in zip(one.gaps, pieces, strict=False)], USUAL_DAYS / pieces[-1]).days
    return a_piece * (pieces[-1] + left([(float(day), count) for day, count in one.bought], a_piece))


def by_mean_piece(one: Repeat) -> float:
    """What was shipped before: first to last purchase, divided by the pieces but the last's, times these."""
    pieces = [count for _, count in one.bought]
    return sum(one.gaps) / sum(pieces[:-1]) * pieces[-1]


def plain_median(one: Repeat) -> float:
    """The middle one of his own times, of two the lower."""
    return sorted(one.gaps)[(len(one.gaps) - 1) // 2]


def plain_of_all(one: Repeat) -> float:
    """The middle one of everybody's times."""
    return one.quartiles[1]


def fixed(one: Repeat) -> float:
    """Thirty days, whoever and whatever."""
    return 30.0


def last(one: Repeat) -> float:
    """As long as the last time."""
    return one.gaps[-1]


Answer = Callable[[Repeat], float]


def errors(asked: Iterable[Repeat], answer: Answer) -> tuple[float, float]:
    """(mean, median) of how many days off it is."""
    off = [abs(answer(one) - one.days) for one in asked]
    return mean(off), median(off)


# --- the page ------------------------------------------------------------------------------------------------------

OWN: Final[tuple[tuple[str, Answer], ...]] = (
    ("**`personal`**, as shipped", by_own),
    ("`personal`, `product_median` known", by_own_or_all),
    ("`personal`, `stock_carry: true`", by_pieces),
    ("the median of his own times, as it is", plain_median),
    ("days a piece × pieces (shipped before)", by_mean_piece),
    ("baseline: fixed 30 days", fixed),
    ("baseline: the last time again", last),
)
ALL: Final[tuple[tuple[str, Answer], ...]] = (
    ("**`product_median`**, as shipped", by_all),
    ("everybody's median, as it is", plain_of_all),
    ("baseline: fixed 30 days", fixed),
)

_HEAD: Final = """# When it runs out: how far off

Made by `python -m tests.repeats`; a test holds it against the data in `tests/data`. The trigger `replenishment` says when the next purchase of the same
thing is due. Here it is asked at each real purchase that had a next one, with what was known on that day. Numbers are days: the mean and the median of
|estimate − what came|.

**How it is estimated.** The geometric mean of the times between purchases, drawn towards what is usual (30 days; or what the shop says with `catalogue`) as if that
had been seen twice more: who has bought three times counts half. From three times on the pull gets weaker the more regular they are. `product_median` is drawn alike,
with a weight of a hundred, and is itself what a customer's own times are drawn towards, where the rule names it. `confidence` is the share of his own times, or of
everybody's, in the estimate.
"""

_WHY: Final = """
## What the numbers say

- **Why the former estimate lost.** It multiplied by pieces, and in neither shop does who buys more wait so much longer: pieces added noise; and a mean of few
  times follows the longest. Without pieces and by the median, the mean error falls by a quarter to a third; drawn towards 30 days, it falls below both baselines.
- **From one purchase only, everybody's median does not beat 30 days here.** A plain median is far worse; drawn as it is, it comes near. So it is no default: a rule
  names `product_median` to go by it. The data begin at one day, so in the first months only short times can have ended; a shop with years behind it may find otherwise.
- **The ends of the data are seen, too.** Who comes back after they end is no question, so all figures flatter short answers; those in one row are alike in this.
- **`stock_carry` is for what is used up evenly** (food, filters): it assumes that pieces last. Where they do not, as in these two shops, leave it off.
- `catalogue` cannot be measured here: neither shop says how long its goods last.
"""


def table(asked: list[Repeat], answers: Iterable[tuple[str, Answer]]) -> str:
    """How far off each answer is, as Markdown."""
    rows = ["| {} | {:.1f} | {:.1f} |\n".format(told, *errors(asked, answer)) for told, answer in answers]
    return "| | mean | median |\n|---|---|---|\n" + "".join(rows)


def page() -> str:
    """The page's text."""
    shops = {
        "Online Retail, by product (7 months)": list(repeats(online_retail())),
        "CDNOW, all CDs as one (18 months)": list(repeats(cdnow())),
    }
    parts = [_HEAD]
    for name, asked in shops.items():
        again = [one for one in asked if one.gaps]
        parts.append(f"\n## {name}\n")
        for title, some, answers in (
            ("Two purchases or more so far", again, OWN),
            ("Four or more", [one for one in again if len(one.gaps) >= 3], OWN),
            ("One so far, and everybody's times known", [one for one in asked if not one.gaps and one.quartiles], ALL),
        ):
            parts.append(f"\n{title}: {len(some):,} repeats.\n\n{table(some, answers)}")
    parts.append(_WHY)
    parts.append(_by_product(next(iter(shops.values()))))
    return "".join(parts)


def _by_product(asked: list[Repeat]) -> str:
    by_name: dict[str, list[Repeat]] = defaultdict(list)
    for one in asked:
        if one.gaps:
            by_name[one.product].append(one)
    often = sorted(by_name.items(), key=lambda one: (-len(one[1]), one[0]))[:10]
    parts = [
        "\n## The ten products bought again most often (Online Retail)\n\nMean error with two purchases or more.\n\n"
    ]
    parts.append("| product | repeats | `personal` | fixed 30 | last time |\n|---|---|---|---|---|\n")
    for product, some in often:
        figures = " | ".join(f"{errors(some, answer)[0]:.1f}" for answer in (by_own, fixed, last))
        parts.append(f"| {product} | {len(some)} | {figures} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
