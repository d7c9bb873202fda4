"""A rule looked at before it is saved: how many people fit it now, some of them, and which segments they are in.

The rule is compiled beside those in force and judged over stored profiles, evenly from all shards, as many as asked for; of
more than that the count is an estimate. What a rule counts and nobody has kept so far begins at nothing: ``new_statistics``
says of how many that is so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

import orjson

from profiles.codec import decode
from profiles.errors import BadDocument, Mistake
from profiles.ids import SHARDS
from rules.doubts import checked_rules
from rules.rulebook import Rulebook
from rules.say import in_words
from stream.ports import ProfileStore

NAME: Final = "a_rule_that_is_being_tried"
AT_ONCE: Final = 500
_WORK_AT_ONCE: Final = 100


async def preview(
    store: ProfileStore,
    rulebook: Rulebook,
    files: list[tuple[str, str]],
    rule: Any,
    now_ms: int,
    *,
    sample: int,
    most: int,
) -> dict[str, Any]:
    """Judge a rule over the profiles that there are.

    Args:
        rulebook, files: the generation in force; the rule may name its traits and segments.
        rule: as a rule file has it, plain values.
        sample: how many addresses to show.
        most: how many profiles to look at.
    Returns:
        Plain values: ``words``, ``profiles`` (all there are), ``looked_at``, ``count`` of those that fit, ``estimate`` of all
        that do, ``sample``, ``overlap`` (segment -> how many of the counted are in it), ``new_statistics``, ``doubted`` (traits that look like a slip).
    Raises:
        BadDocument: with every mistake and doubt.
    """
    try:
        text = orjson.dumps({"segments": {NAME: rule}}).decode()
    except TypeError as error:  # Half a character, or a number beyond 64 bits: JSON as others write it allows both.
        wanted = "whole characters and numbers of at most 64 bits wanted, got others"
        raise BadDocument([Mistake("rule", 1, "rule", wanted)]) from error
    tried = checked_rules([*files, ("rule", text)], zone=rulebook.zone_name, currency=rulebook.currency)
    segment = next(one for one in tried.segments if one.name == NAME)
    others = {one.id: one.name for one in rulebook.segments}
    kept = {one.id for one in rulebook.aggregates}
    states = await store.read_shards(range(SHARDS))
    share = max(1, most // max(1, sum(1 for state in states if state.ordinals)))
    looked_at = count = 0
    shown: list[str] = []
    overlap: Counter[str] = Counter()
    for shard, state in enumerate(states):
        for first in range(0, min(share, state.ordinals), AT_ONCE):
            names = await store.named(shard, first, min(AT_ONCE, share - first))
            for start in range(0, len(names), _WORK_AT_ONCE):
                some = names[start : start + _WORK_AT_ONCE]
                for address, blob in zip(some, await store.load(some), strict=True):
                    if blob is None:
                        continue
                    profile = decode(address, blob)
                    rulebook.lend(profile)
                    if profile.forward:
                        continue
                    looked_at += 1
                    if segment.judge(profile, max(now_ms, profile.seen_ms))[0]:
                        count += 1
                        shown += [address] if len(shown) < sample else []
                        overlap.update(others[one] for one in profile.members if one in others)
                await asyncio.sleep(0)  # Others are served meanwhile.
    given_out = sum(state.ordinals for state in states)
    seen = sum(min(share, state.ordinals) for state in states)
    return {
        "words": in_words(segment),
        "profiles": given_out,
        "looked_at": looked_at,
        "count": count,
        "estimate": round(count * given_out / seen) if seen else 0,
        "sample": shown,
        "overlap": dict(sorted(overlap.items())),
        "new_statistics": sum(one.id not in kept for one in tried.aggregates),
        "doubted": [one.message for one in tried.doubted if one.file == "rule"],
    }
