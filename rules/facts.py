"""Facts: numbers about the whole base that rules may read, and the sketches that they come from.

A rule that needs one asks for a ``Fact``: what to look at in each profile, and which quantiles of it. A scan of the base
samples every profile into a ``Sketch``; what the sketches say is published as the next generation of facts, and counts from
the instant at which a shard takes it. "Live quantile" means: as of the last facts. Nobody reads a global value at another
moment, so a replay gives the same answers.

A sketch counts values by their leading binary digits (the log-linear buckets of HdrHistogram, G. Tene 2012, in whole
numbers). Whatever the order of adding and merging, equal values give equal sketches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from typing import Any, Final

from profiles.state import Profile

SCALE: Final = 64
"""Values are counted in these parts of a whole: so whole numbers up to 2047 are exact."""

DIGITS_MAX: Final = 11
BUCKETS_MAX: Final = 2_048
KEYS_MAX: Final = 20_000
"""Of a fact that is kept for each product: so many products while the base is scanned. When there are more, the half of which
least was seen is let go (lossy counting, G. Manku and R. Motwani 2002): what is frequent stays."""
PUBLISHED_MAX: Final = 5_000
"""Of these, those of the most samples are published."""
KEYED_BYTES_MAX: Final = 600_000
"""And of all such facts together no more than one record can hold."""
FACTS_KEPT: Final = 4
"""Generations that a shard remembers: a profile that waits for its timers goes by an older one."""
SAMPLES_MIN: Final = 3
"""A product of which less is known has no fact of its own."""

_ENTRY_BYTES: Final = 30
_SHARE_BYTES: Final = 16

Sample = Callable[[Profile, int], Iterable[tuple[str, int | Fraction]]]
"""(profile, as of which instant) -> (key, value): ``""`` where the fact is one for the whole base."""


class Sketch:
    """How values are spread, in at most ``BUCKETS_MAX`` buckets: count, sum, and any quantile.

    A quantile is the lower end (towards zero) of its bucket: with ``digits`` leading binary digits kept it is less than
    one part in 2 to the ``digits - 1`` too small. It begins with eleven, and gives one up when buckets run out.
    """

    __slots__ = ("counts", "digits", "total")

    def __init__(self, digits: int = DIGITS_MAX) -> None:
        self.digits = digits
        self.counts: dict[int, int] = {}
        self.total = 0

    def add(self, value: int | Fraction) -> None:
        """Count one value."""
        parts = int(value * SCALE)
        self.total += parts
        bucket = _cut(parts, self.digits)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        if len(self.counts) > BUCKETS_MAX:
            self._coarsen(self.digits - 1)

    def merge(self, other: Sketch) -> None:
        """Count all that the other has counted: commutative and associative."""
        if other.digits < self.digits:
            self._coarsen(other.digits)
        self.total += other.total
        for parts, count in other.counts.items():
            bucket = _cut(parts, self.digits)
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        while len(self.counts) > BUCKETS_MAX:
            self._coarsen(self.digits - 1)

    def count(self) -> int:
        """How many values."""
        return sum(self.counts.values())

    def quantile(self, share: Fraction) -> int:
        """The smallest value that at least this share of all is not greater than (nearest rank), in parts of ``SCALE``."""
        wanted, seen = share * self.count(), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return bucket
        raise AssertionError("a quantile of nothing")

    def packed(self) -> list[Any]:
        """As plain values; equal sketches are equal lists."""
        return [self.digits, self.total, sorted(self.counts.items())]

    @classmethod
    def unpacked(cls, packed: Any) -> Sketch:
        """From what ``packed`` gave."""
        sketch = cls(packed[0])
        sketch.total = packed[1]
        sketch.counts = dict(packed[2])
        return sketch

    def _coarsen(self, digits: int) -> None:
        self.digits = digits
        counts: dict[int, int] = {}
        for parts, count in self.counts.items():
            bucket = _cut(parts, digits)
            counts[bucket] = counts.get(bucket, 0) + count
        self.counts = counts


def _cut(parts: int, digits: int) -> int:
    size = abs(parts)
    shift = size.bit_length() - digits
    if shift > 0:
        size = size >> shift << shift
    return size if parts >= 0 else -size


@dataclass(frozen=True, slots=True)
class Fact:
    """What a rule needs to know of the whole base.

    Attributes:
        name: equal names are one fact; their quantiles are put together.
        sample: what a profile adds to it.
        shares: the quantiles wanted, each from 0 to 1.
        is_keyed: one for each product (or category); each needs ``SAMPLES_MIN`` samples.
    """

    name: str
    sample: Sample
    shares: tuple[Fraction, ...]
    is_keyed: bool = False


Number = int | Fraction


@dataclass(frozen=True, slots=True)
class Facts:
    """A generation of facts, immutable.

    Attributes:
        number: 1 for the first, and one more for each that follows.
        as_of_ms: when the base was scanned.
        values: fact -> key -> {"n": samples, "mean": in parts of ``SCALE``, share as text: quantile in these parts}.
    """

    number: int
    as_of_ms: int
    values: Mapping[str, Mapping[str, Mapping[str, int]]]
    derived: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What others worked out of the values, once for all profiles."""

    def quantile(self, name: str, share: Fraction, key: str = "") -> Fraction | None:
        """That quantile of the fact; ``None``: it is not known."""
        return self._value(name, str(share), key)

    def mean(self, name: str, key: str = "") -> Fraction | None:
        """The mean of the fact; ``None``: it is not known."""
        return self._value(name, "mean", key)

    def samples(self, name: str, key: str = "") -> int:
        """How many values it stands on."""
        known = self.values.get(name, {}).get(key)
        return known["n"] if known is not None else 0

    def _value(self, name: str, what: str, key: str) -> Fraction | None:
        known = self.values.get(name, {}).get(key)
        parts = known.get(what) if known is not None else None
        return Fraction(parts, SCALE) if parts is not None else None


class Scan:
    """The sketches of a scan under way: profiles in, the next generation of facts out."""

    def __init__(self, facts: Iterable[Fact], as_of_ms: int) -> None:
        """Nothing looked at yet.

        Args:
            facts: those wanted.
            as_of_ms: the instant as of which profiles are looked at.
        """
        self.facts = tuple(facts)
        self.as_of_ms = as_of_ms
        self.sketches: dict[str, dict[str, Sketch]] = {fact.name: {} for fact in self.facts}
        self.profiles = 0

    def look(self, profile: Profile) -> None:
        """Sample one profile; one that forwards, or was erased, or of which nothing is known adds nothing."""
        if profile.forward or not profile.first_seen_ms:
            return
        self.profiles += 1
        at_ms = max(self.as_of_ms, profile.seen_ms)
        for fact in self.facts:
            known = self.sketches[fact.name]
            for key, value in fact.sample(profile, at_ms):
                sketch = known.get(key)
                if sketch is None:
                    if len(known) >= KEYS_MAX:
                        known = self.sketches[fact.name] = _fullest(known, KEYS_MAX // 2)
                    sketch = known[key] = Sketch(DIGITS_MAX if not fact.is_keyed else 6)
                sketch.add(value)

    def found(self, number: int) -> Facts:
        """The generation of facts that it comes to."""
        values: dict[str, dict[str, dict[str, int]]] = {}
        room = KEYED_BYTES_MAX // max(1, sum(fact.is_keyed for fact in self.facts))
        for fact in self.facts:
            sketches = [(key, sketch, sketch.count()) for key, sketch in self.sketches[fact.name].items()]
            if fact.is_keyed:
                sketches = [one for one in sketches if one[2] >= SAMPLES_MIN]
                sketches.sort(key=lambda one: (-one[2], one[0]))
                sizes = accumulate(
                    len(key.encode()) + _ENTRY_BYTES + _SHARE_BYTES * len(fact.shares) for key, _, _ in sketches
                )
                del sketches[min(PUBLISHED_MAX, sum(size <= room for size in sizes)) :]
            values[fact.name] = {
                key: {
                    "n": count,
                    "mean": sketch.total // count,
                    **{str(share): sketch.quantile(share) for share in fact.shares},
                }
                for key, sketch, count in sketches
            }
        return Facts(number, self.as_of_ms, values)

    def packed(self) -> dict[str, Any]:
        """As plain values, to go on from later."""
        return {
            "as_of_ms": self.as_of_ms,
            "profiles": self.profiles,
            "sketches": {
                name: [[key, sketch.packed()] for key, sketch in known.items()] for name, known in self.sketches.items()
            },
        }

    @classmethod
    def unpacked(cls, facts: Iterable[Fact], packed: Mapping[str, Any]) -> Scan:
        """Go on from what ``packed`` gave; the facts must be the same."""
        scan = cls(facts, packed["as_of_ms"])
        scan.profiles = packed["profiles"]
        for name, known in packed["sketches"].items():
            scan.sketches[name] = {key: Sketch.unpacked(sketch) for key, sketch in known}
        return scan


def _fullest(known: dict[str, Sketch], most: int) -> dict[str, Sketch]:
    """Those of the most samples."""
    return dict(sorted(known.items(), key=lambda one: (-one[1].count(), one[0]))[:most])


def pack_facts(facts: Facts) -> dict[str, Any]:
    """A generation as plain values."""
    return {"number": facts.number, "as_of_ms": facts.as_of_ms, "values": facts.values}


def read_facts(told: Mapping[str, Any]) -> Facts:
    """A generation from plain values."""
    return Facts(told["number"], told["as_of_ms"], told["values"])


def together(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Each fact once, with all quantiles that anybody wants of it, by name."""
    found: dict[str, Fact] = {}
    for fact in facts:
        known = found.get(fact.name)
        shares = fact.shares if known is None else tuple(sorted({*known.shares, *fact.shares}))
        found[fact.name] = Fact(fact.name, fact.sample, shares, fact.is_keyed)
    return tuple(found[name] for name in sorted(found))
