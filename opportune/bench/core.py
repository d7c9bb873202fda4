"""The core alone, in this process, without broker and store: what an event costs where, in CPU time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from opportune.bench.shop import Load, Shop
from profiles.codec import decode, encode
from profiles.state import Profile
from profiles.wire import Command, Event, Record, decode_event, encode_event
from rules.compile import compile_rules
from rules.engine import step
from rules.rulebook import Rulebook
from stream.clock import thread_cpu_ns

RUNS: Final = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one call, the median of ``RUNS``."""

    name: str
    us: float
    said: str = ""


def measure(load: Load, files: list[tuple[str, str]], segments: int) -> tuple[list[Cost], str]:
    """All costs of the core, and a digest of the records that went out.

    Args:
        files: the rules, (name, text) each.
        segments: how many beside the 20 that can be touched.
    """
    values = [encode_event(event) for _, event in Shop(load).events()]
    events = [decode_event(value) for value in values]
    book = compile_rules(files)
    costs = []

    told: list[Record] = []
    profiles, inputs, _ = replay(events, book, told)
    runs = [replay(events, book)[2] for _ in range(RUNS)]
    costs.append(Cost("step", median(runs) / inputs / 1e3, f"{inputs:,} inputs, {len(book.segments)} segments"))

    blobs = {address: encode(profile) for address, profile in sorted(profiles.items())}
    mean = sum(map(len, blobs.values())) / len(blobs)
    costs.append(_each("encode a profile", profiles.values(), encode, f"{mean:.0f} bytes"))
    costs.append(_each("decode a profile", blobs.items(), lambda one: decode(*one), f"{len(blobs):,} profiles"))
    size = sum(map(len, values)) / len(values)
    costs.append(_each("decode an event", values, decode_event, f"{size:.0f} bytes"))

    few, many = compile_rules(_touched(0)), compile_rules(_touched(segments))
    times: dict[int, list[int]] = {0: [], segments: []}
    for _ in range(RUNS):  # taking turns, so that a busy machine is busy for both
        times[0].append(replay(events, few)[2])
        times[segments].append(replay(events, many)[2])
    for number, book in ((0, few), (segments, many)):
        us = median(times[number]) / len(events) / 1e3
        ratio = median(times[number]) / median(times[0])
        costs.append(Cost(f"step, {len(book.segments):,} segments", us, f"20 of them can be touched: {ratio:.2f} ×"))

    digest = hashlib.blake2b(digest_size=8)
    for record in told:
        digest.update(record.value)
    return costs, digest.hexdigest()


def replay(
    events: Iterable[Event], book: Rulebook, told: list[Record] | None = None
) -> tuple[dict[str, Profile], int, int]:
    """Step all events through fresh profiles, with the commands that follow at once.

    Args:
        told: takes the records that go out.
    Returns:
        The profiles, how many inputs there were, and the CPU time in ns.
    """
    profiles: dict[str, Profile] = {}
    inputs = 0
    started_ns = thread_cpu_ns()
    for event in events:
        event.seen_ms = event.received_ms
        waiting: list[Event | Command] = [event]
        for given in waiting:
            inputs += 1
            profile = profiles.get(given.address)
            if profile is None:
                profile = profiles[given.address] = Profile(given.address)
            out = step(profile, given, book)
            if told is not None:
                told += out.records
            for command in out.commands:
                command.seen_ms = command.received_ms
                waiting.append(command)
    return profiles, inputs, thread_cpu_ns() - started_ns


def median(numbers: list[int]) -> int:
    """The middle one."""
    return sorted(numbers)[len(numbers) // 2]


def _each(name: str, things: Iterable[Any], work: Callable[[Any], object], said: str) -> Cost:
    given = list(things)
    runs = []
    for _ in range(RUNS):
        started_ns = thread_cpu_ns()
        for one in given:
            work(one)
        runs.append(thread_cpu_ns() - started_ns)
    return Cost(name, median(runs) / len(given) / 1e3, said)


def _touched(others: int) -> list[tuple[str, str]]:
    """20 segments that page views and products touch, and so many that nothing here does."""
    lines = ["segments:"]
    for number in range(20):
        kind = ("page_viewed", "product_viewed")[number % 2]
        lines.append(
            f"  touched_{number}: {{did: {kind}, window: {{within: P{number + 1}D}}, times: {{gte: {number % 4 + 1}}}}}"
        )
    quiet = ("coupon_entered", "coupon_applied", "survey_answered", "products_searched")
    lines += [
        f"  other_{number}: {{did: {quiet[number % 4]}, window: {{within: P{number + 1}D}}}}"
        for number in range(others)
    ]
    return [("touched.yaml", "\n".join(lines))]
