"""What goes out, as bytes: changes, trigger records, decisions. Logical times only, so that the same occasion is the
same bytes whenever and wherever it is decided (RELIABILITY R13)."""

from __future__ import annotations

import hashlib
from datetime import tzinfo
from typing import Any, Final

import orjson

from profiles import people
from profiles.greeting import greeting
from profiles.ids import digest64, normal, trigger_id
from profiles.moments import MINUTE_MS, iso
from profiles.state import Instance, Profile
from profiles.wire import (
    AUDIENCES,
    COUPONS,
    DECISIONS,
    SEGMENT_CHANGES,
    TASKS,
    TRAIT_CHANGES,
    Record,
    coupon_code,
    trigger_topic,
)
from rules.program import CompiledTrigger, Emit, Task, filled
from rules.rulebook import Rulebook

REGRET: Final = "regret"
_LATE_MS: Final = MINUTE_MS
"""Decided later than this after it was due, a moment has waited for something that was down."""


def change(
    profile: Profile, segment: str, entered: bool, now_ms: int, cause: tuple[str, str], effective_ms: int
) -> Record:
    """A customer entered or left a segment. ``corrected``: because of something told late."""
    what = "entered" if entered else "exited"
    at = iso(now_ms)
    value = {
        "change_id": trigger_id(f"segment:{segment}", what, profile.address, f"{now_ms}:{cause[1]}"),
        "segment": segment,
        "change": what,
        "address": profile.address,
        "at": at,
        "effective_at": at if effective_ms == now_ms else iso(effective_ms),
        "corrected": effective_ms < now_ms - 60_000,
        "cause": {"event": cause[0], "message_id": cause[1]},
    }
    return Record(SEGMENT_CHANGES, profile.address, orjson.dumps(value))


def trait_change(
    profile: Profile, trait: str, before: Any, after: Any, now_ms: int, cause: tuple[str, str], brought_by: str = ""
) -> Record:
    """A published trait has another value than the one that was told last; ``None``: it has none.

    ``brought_by``: the address whose profile brought it: one event may bring several.
    """
    value = {
        "change_id": trigger_id(
            f"trait:{trait}", "changed", profile.address, f"{now_ms}:{cause[0]}:{cause[1]}:{brought_by}"
        ),
        "trait": trait,
        "before": before,
        "after": after,
        "address": profile.address,
        "at": iso(now_ms),
        "cause": {"event": cause[0], "message_id": cause[1]},
    }
    return Record(TRAIT_CHANGES, profile.address, orjson.dumps(value))


def sent(
    profile: Profile,
    trigger: CompiledTrigger,
    run: Instance,
    emit: Emit,
    rulebook: Rulebook,
    payload: dict[str, Any],
    because: list[Any],
    consent: dict[str, Any] | None,
    now_ms: int,
    not_before_ms: int,
) -> Record:
    """A moment worth acting on: all that a sender needs (M98). ``not_before_ms``: when it may be sent."""
    name = trigger_id(run.trigger, emit.step, run.opened_by, run.occasion)
    value = {
        "trigger_id": name,
        "trigger": run.trigger,
        "version": run.revision,
        "class": trigger.kind,
        "topic": trigger.topic,
        "step": emit.step,
        "template": filled(emit.template, run.context),
        "at": iso(now_ms),
        "send": {
            "not_before": iso(not_before_ms),
            "not_after": iso(now_ms + trigger.max_age_ms),
            "zone": str(people.zone_of(profile, rulebook.zone)),
        },
        "profile": {**_contact(profile), "greeting": greeting(profile.traits, rulebook.locale)},
        "channel": emit.channel or (trigger.consent.channel if trigger.consent is not None else None),
        "consent": consent,
        "experiment": run.context.get("experiment"),
        "payload": payload,
        "because": because,
        "cause": {"event": run.cause[0], "message_id": run.cause[1]},
        "corrected": run.context.get("corrected", False),
    }
    return Record(trigger_topic(run.trigger), profile.address, orjson.dumps(value))


def _contact(profile: Profile) -> dict[str, Any]:
    said = ((name, profile.traits[name].value) for name in people.CONTACT if name in profile.traits)
    return {"address": profile.address, **{name: value for name, value in said if value is not None}}


def task(profile: Profile, run: Instance, task: Task, payload: dict[str, Any], zone: tzinfo, now_ms: int) -> Record:
    """Something for a person to do."""
    value = {
        "task_id": trigger_id(run.trigger, task.step, run.opened_by, run.occasion),
        "trigger": run.trigger,
        "version": run.revision,
        "step": task.step,
        "queue": task.queue,
        "title": filled(task.template, run.context),
        "assignee": task.assignee or None,
        "at": iso(now_ms),
        "due": iso(task.due.after(now_ms, zone)) if task.due is not None else None,
        "profile": _contact(profile),
        "payload": payload,
        "because": run.context["because"],
        "cause": {"event": run.cause[0], "message_id": run.cause[1]},
    }
    return Record(TASKS, profile.address, orjson.dumps(value))


def coupon(profile: Profile, run: Instance, now_ms: int) -> Record:
    """A coupon, for the shop to accept; the shell completes its code."""
    given = run.context["coupon"]
    value = {
        "coupon_id": given["id"],
        "code": coupon_code(given["stem"]),
        "offer": given["offer"],
        "trigger": run.trigger,
        "address": given.get("to", profile.address),
        "at": iso(now_ms),
        "valid_until": given["valid_until"],
    }
    return Record(COUPONS, value["address"], orjson.dumps(value))


def audience(
    profile: Profile, dest: str, name: str, change: str, by: tuple[str, str], now_ms: int, address: str = ""
) -> Record:
    """Somebody is put on a list kept elsewhere (``change``: add), or taken off (remove).

    Args:
        by: what did it and what tells this time from others: (trigger, occasion), (event type, message id).
        address: whom it is about, if by another name.
    """
    about = address or profile.address
    value = {
        "change_id": trigger_id(f"audience:{dest}/{name}", change, about, f"{by[0]}:{by[1]}"),
        "dest": dest,
        "audience": name,
        "change": change,
        "address": about,
        "at": iso(now_ms),
        "by": by[0],
        "email_sha256": _hashed(profile, "email"),
        "phone_sha256": _hashed(profile, "phone"),
    }
    return Record(AUDIENCES, about, orjson.dumps(value))


def _hashed(profile: Profile, kind: str) -> str | None:
    """What advertisers know a person by: the SHA-256 of an e-mail in lower case, of a phone's digits with its country's code."""
    said = profile.traits.get(kind)
    if said is None or not isinstance(said.value, str):
        return None
    try:
        text = normal(kind, said.value)
    except ValueError:
        return None
    return hashlib.sha256(text.removeprefix("+").encode()).hexdigest()


def held_back_ms(name: str, late_ms: int, pace_ms: int, max_age_ms: int) -> int:
    """How long after it was due a moment may be sent, so that those of an outage do not go out all at once (R17).

    Lateness counts in whole paces: decided once more, a little later, a moment has the same bytes. Where little of its
    time is left, the steps are smaller.

    Args:
        name: its id, whose hash says where within a pace it goes.
        late_ms: how long after it was due it is decided.
        pace_ms: over how long they are spread.
        max_age_ms: afterwards it is stale; ``late_ms`` is not greater.
    Returns:
        0 for what is not late; else more than ``late_ms`` where there is time left, and less than ``max_age_ms``.
    """
    if late_ms < _LATE_MS:
        return 0
    while pace_ms >= _LATE_MS:
        held_ms = (late_ms // pace_ms + 1) * pace_ms + digest64(name) % pace_ms
        if held_ms < max_age_ms:
            return held_ms
        pace_ms //= 2
    return 0


def decided(
    profile: Profile,
    trigger: str,
    step: str,
    opened_by: str,
    occasion: str,
    reason: str | None,
    detail: Any,
    now_ms: int,
) -> Record:
    """The one decision of an eligible moment: emitted, or suppressed and why (D7). ``regret`` is none of a moment but of a letter
    that went out."""
    value = {
        "decision_id": trigger_id(trigger, step, opened_by, occasion),
        "trigger": trigger,
        "step": step,
        "outcome": "emitted" if reason is None else reason if reason == REGRET else "suppressed",
        "reason": reason,
        "detail": detail,
        "address": profile.address,
        "at": iso(now_ms),
    }
    return Record(DECISIONS, profile.address, orjson.dumps(value))
