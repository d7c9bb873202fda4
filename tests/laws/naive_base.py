"""What rules mean that look at the whole base, told the slow way: every quantile from the list of what everybody had.

Only how numbers are counted is the engine's, for that is what is promised: in 64ths, by their eleven leading binary digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from tests.laws.naive import Naive, Told, later

Number = int | Fraction
Base = dict[str, list[Number]]
"""What everybody had who had any, when the base was looked over last; by what was asked for."""


def counted(value: Number) -> Fraction:
    """A number as it is counted."""
    parts = int(value * 64)
    spare = max(0, len(bin(abs(parts))) - 2 - 11)
    kept = abs(parts) // 2**spare * 2**spare
    return Fraction(kept if parts >= 0 else -kept, 64)


def quantile(values: list[Number], share: Any) -> Fraction | None:
    """The least of them that at least this share is not greater than; of none there is none."""
    if not values:
        return None
    ordered = sorted(map(counted, values))
    return ordered[max(1, math.ceil(Fraction(str(share)) * len(ordered))) - 1]


class NaiveOfBase(Naive):
    """One customer among others."""

    def __init__(self, document: dict[str, Any], told: Iterable[Told], zone: str, address: str) -> None:
        super().__init__(document, told, zone, address=address)
        self.base: Base | None = None
        self.above: set[str] = set()

    def segments(self, now_ms: int) -> list[str]:
        self.known = self._known(now_ms)
        tiers = {name: spec for name, spec in self.rules["traits"].items() if spec.get("by") == "quantile"}
        for name, spec in tiers.items():
            value = self.trait(spec["tiers"], now_ms) if self.known and self.base is not None else None
            for cut, label in zip(spec["cuts"], spec["labels"][1:], strict=True):
                segment = f"{name}.from_{label}"
                at = quantile((self.base or {}).get(spec["tiers"], []), cut)
                band = Fraction(str(spec.get("hysteresis", 0))) if segment in self.above else 0
                is_above = value is not None and at is not None and value > at - abs(at) * band
                (self.above.add if is_above else self.above.discard)(segment)
        return sorted([*super().segments(now_ms), *self.above])

    def samples(self, now_ms: int) -> dict[str, Number]:
        """What this customer adds to what is known of the base."""
        self.known = self._known(now_ms)
        found: dict[str, Number] = {}
        for path in _asked_of(self.rules):
            value = self._measured_order(path, now_ms) if path.startswith("ranks.") else self.trait(path, now_ms)
            if value is not None:
                found[path] = value
        return found

    def _trait(self, rule: dict[str, Any], now_ms: int) -> bool:
        asked = rule.get("quantile")
        if asked is None:
            return super()._trait(rule, now_ms)
        value = self.trait(rule["trait"], now_ms)
        at = quantile((self.base or {}).get(rule["trait"], []), asked.get("gt", asked.get("lte")))
        if value is None or at is None:
            return False
        return bool((value > at - abs(at) * Fraction(str(asked.get("less", 0)))) == ("gt" in asked))

    def trait(self, path: str, now_ms: int) -> Any:
        root, _, part = path.partition(".")
        spec = self.rules["traits"].get(root, {})
        if spec.get("by") == "quantile":
            if self.base is None or self.trait(spec["tiers"], now_ms) is None:
                return None
            reached = [label for label in spec["labels"][1:] if f"{root}.from_{label}" in self.above]
            return reached[-1] if reached else spec["labels"][0]
        if "scale" in spec.get("rfm", {}):
            return self._ranked(spec["rfm"]["scale"], part, now_ms)
        return super().trait(path, now_ms)

    def _ranked(self, scale: int, part: str, now_ms: int) -> int | None:
        if part == "cell":
            each = [self._ranked(scale, one, now_ms) for one in "rfm"]
            return int("".join(map(str, each))) if None not in each else None
        value = self._measured_order(f"ranks.{part}", now_ms)
        values = (self.base or {}).get(f"ranks.{part}", [])
        if value is None or not values:
            return None
        cuts = [quantile(values, Fraction(place, scale)) for place in range(1, scale)]
        if part == "r":  # The younger the better.
            return 1 + sum(cut is not None and value < int(cut) for cut in cuts)
        return 1 + sum(cut is not None and value > cut for cut in cuts)

    def _measured_order(self, path: str, now_ms: int) -> int | None:
        """How long ago the last order was, how many there were, and for how much, in the window of the ranks."""
        spec = self.rules["traits"]["ranks"]["rfm"]
        window = spec["window"]["within"]
        orders = [
            one for one in self.orders(self.counting, self.currency) if now_ms < later(one.at_ms, window, self.zone)
        ]
        if not orders:
            return None
        return {
            "r": now_ms - max(one.at_ms for one in orders),
            "f": len(orders),
            "m": sum(
                one.amount if one.margin is None or spec.get("monetary") != "profit" else one.margin for one in orders
            ),
        }[path[-1]]

    def _is_said(self, path: str) -> bool:
        return path == "tier" or super()._is_said(path)


def _asked_of(rule: Any) -> set[str]:
    """All that a rule file wants to know of the base."""
    if isinstance(rule, list):
        return set().union(*map(_asked_of, rule)) if rule else set()
    if not isinstance(rule, dict):
        return set()
    found = {rule["trait"]} if "quantile" in rule and "trait" in rule else set()
    if rule.get("by") == "quantile" and "tiers" in rule:
        found |= {rule["tiers"]}
    if "scale" in rule:
        found |= {f"ranks.{part}" for part in "rfm"}
    return found.union(*map(_asked_of, rule.values())) if rule else found
