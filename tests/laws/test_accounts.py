"""Each eligible moment has one decision, and what went out is what was decided: ``eligible = emitted + Σ suppressed`` (SPEC D7).

Customers do anything in any order, with every policy on. A moment is known by its decision's id; what went out by its record's. An
event type of its own counts, beside the engine, how many moments a one-letter trigger must have decided.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from random import Random  # noqa: TID251 - seeded: the same lives every time
from typing import Any, Final

import pytest

from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, parse_instant
from profiles.state import Profile
from profiles.wire import COUPONS, DECISIONS, TASKS, TRIGGERS_PREFIX, Event, Wake
from rules.compile import compile_rules
from rules.engine import step

EVENTS: Final = int(os.environ.get("ACCOUNTED_EVENTS", "15000"))
START_MS: Final = parse_instant("2026-01-01T10:00")

RULES: Final = """
defaults: {zone: Europe/Berlin}
policies:
  marketing:
    consent: {channel: email, mode: opt_out}
    quiet: {from: "21:00", to: "09:00", weekdays: [sun]}
    limits: [{max: 2, per: P1D}, {max: 5, per: P7D, scope: channel}, {max: 1, per: day, scope: topic}]
    holdout: {bucket: {salt: all, percent: 10}}
triggers:
  counted:
    on: {event: pinged}
    key: n
    steps: [{emit: pong}]
  cart:
    topic: cart
    on: {event: [product_added, cart_set]}
    key: cart_id
    restart_on: {event: [product_added, cart_set]}
    cancel_on: [{event: order_completed, match: cart_id, or: covers_items}, {state: cart.empty}]
    max_age: P1D
    steps: [{wait: PT2H}, {emit: {template: cart, payload: {cart: current}}}, {wait_for: {event: email_link_clicked, timeout: P3D, on_event: exit}},
            {issue_coupon: {offer: cart}}, {emit: {template: cart_2, payload: {coupon: $coupon}}}]
  winback:
    topic: winback
    on: {trait: last_order_at, reaches_age: P14D}
    cancel_on: [{event: order_completed}]
    steps: [{split: {experiment: w, arms: {a: 40, b: 40, control: 20}}},
            {ladder: {of: last_order_at, rungs: [{at: P14D, level: 5}, {at: P21D, level: 10}], do: [{emit: "back_{level}"}]}}]
  often:
    on: {trait: orders_paid, every: 3}
    steps: [{task: {queue: q, title: call}}, {emit: thanks}]
  birthday:
    on: {date: birth_date, anniversary: true, at: "10:00"}
    steps: [{emit: birthday}]
  card:
    on: {event: registered}
    re_entry: {per: month}
    cancel_on: [{event: unsubscribed}]
    steps: [{emit: card}, {audience: {dest: ads, add: self, remove_on: order_completed}}, {wait_for: {event: email_link_clicked, timeout: P1D, on_timeout: exit}}, {emit: clicked}]
  added:
    class: transactional
    on: {event: order_completed}
    key: order_id
    expires: {state: order.status, not_in: [paid]}
    quiet: {from: "22:00", to: "08:00", on_conflict: drop}
    steps: [{wait: PT6H}, {emit: add}, {wait: P1D}, {emit: more}]
  welcome:
    on: {event: registered}
    re_entry: {after: P7D}
    cancel_on: [{event: order_completed}]
    steps: [{emit: w1}, {wait: P2D}, {emit: {template: w2, channel: [email, sms], payload: {coupon: auto}}}]
  silence:
    on: {event: email_bounced}
    steps: [{suppress: {channels: [push]}}]
"""


def event(chance: Random, address: str, at_ms: int, number: int, bought: dict[str, str]) -> Event:
    """Anything; ``bought`` holds the newest order of each address."""
    kind = chance.choices(
        ["pinged", "product_added", "cart_set", "order_completed", "order_status_changed", "email_link_clicked", "registered", "identified",
         "unsubscribed", "consent_changed", "email_bounced"],
        [30, 20, 3, 12, 6, 5, 6, 8, 1, 3, 1],
    )[0]  # fmt: skip
    cart = chance.choice(["", "b"])
    item = {"product_id": chance.choice("xyz"), "quantity": 1, "price_e6": 1_000_000}
    by_kind: dict[str, dict[str, Any]] = {
        "pinged": {"n": str(number)},
        "product_added": {"cart_id": cart, "items": [item]},
        "cart_set": {"cart_id": cart, "items": []},
        "order_completed": {
            "order_id": str(number), "cart_id": cart, "total_minor": 100, "currency": "USD", "items": [item], "status": "paid",
        },
        "order_status_changed": {"order_id": bought.get(address, "none"), "to": chance.choice(["shipped", "cancelled"])},
        "unsubscribed": {"channel": "email", "topic": "*"},
        "consent_changed": {"channel": "email", "topic": "*", "state": "granted"},
        "email_bounced": {"channel": "email", "hard": True},
    }  # fmt: skip
    if kind == "order_completed":
        bought[address] = str(number)
    traits = {}
    if kind == "identified":
        traits = {
            "birth_date": f"1990-{chance.randint(1, 6):02}-{chance.randint(1, 28):02}",
            "timezone": chance.choice(["Europe/Berlin", "Asia/Tokyo", "America/New_York"]),
        }
    late_ms = chance.randint(0, 3 * DAY_MS) if kind == "order_completed" and chance.random() < 0.3 else 0
    made = Event(f"m{number}", "web", kind, at_ms - late_ms, at_ms, address, props=by_kind.get(kind, {}), traits=traits)
    made.seen_ms = at_ms
    return made


@pytest.mark.mechanic("D7")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_eligible_moment_has_exactly_one_decision_and_what_went_out_was_decided(seed: int) -> None:
    rulebook = compile_rules([("rules.yaml", RULES)])
    chance = Random(seed)
    profiles = {f"user:{n}": Profile(f"user:{n}") for n in range(40)}
    decided: dict[str, dict[str, Any]] = {}
    sent: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    coupons: set[str] = set()
    regrets: list[dict[str, Any]] = []
    bought: dict[str, str] = {}

    def do(profile: Profile, given: Event | Wake) -> None:
        done = step(profile, given, rulebook)
        for record in done.records:
            value = json.loads(record.value)
            if record.topic == DECISIONS and value["outcome"] == "regret":
                regrets.append(value)
            elif record.topic == DECISIONS:
                assert value["decision_id"] not in decided, (decided[value["decision_id"]], value)
                decided[value["decision_id"]] = value
            elif record.topic.startswith(TRIGGERS_PREFIX):
                sent[value["trigger_id"]] += 1
                assert not (value["payload"].get("coupon") or {"code": ""})["code"] or done.coupons
            elif record.topic == TASKS:
                sent[value["task_id"]] += 1
            elif record.topic == COUPONS:
                assert value["coupon_id"] not in coupons
                coupons.add(value["coupon_id"])
        counts.update(one for one in done.decisions if one[1] != "regret")

    at_ms, pings, last_ms = START_MS, 0, START_MS
    for number in range(EVENTS // 3):
        at_ms += chance.randint(0, 20 * MINUTE_MS)
        profile = profiles[f"user:{chance.randrange(len(profiles))}"]
        while (due_ms := profile.alarm_ms()) is not None and due_ms < at_ms:
            do(profile, Wake(due_ms))
        given = event(chance, profile.address, at_ms, number, bought)
        pings += given.type == "pinged"
        do(profile, given)
        last_ms = at_ms
    for profile in profiles.values():  # What is under way comes to its end.
        while (due_ms := profile.alarm_ms()) is not None and due_ms < last_ms + 60 * DAY_MS + HOUR_MS:
            do(profile, Wake(due_ms))

    emitted = {name for name, one in decided.items() if one["outcome"] == "emitted"}
    suppressed = Counter(one["reason"] for one in decided.values() if one["outcome"] == "suppressed")
    # Who is on an audience already is told of to nobody once more, nor is who is written to no more: moments all the same.
    listed = {name for name in emitted if {"audience", "channels"} & decided[name]["detail"].keys()}
    assert {decided[name]["trigger"] for name in listed} == {"card", "silence"}
    assert set(sent) == emitted - listed
    # What is regretted went out, and is regretted once.
    assert len({one["detail"]["trigger_id"] for one in regrets}) == len(regrets) > 0
    assert {one["detail"]["trigger_id"] for one in regrets} <= set(sent)
    assert set(sent.values()) == {1}
    assert len(decided) == len(emitted) + sum(suppressed.values()) == sum(counts.values())
    assert sum(1 for one in decided.values() if one["trigger"] == "counted") == pings
    for one in decided.values():
        assert (one["reason"] is None) == (one["outcome"] == "emitted")
    assert set(suppressed) >= {
        "holdout",
        "frequency",
        "no_consent",
        "control",
        "cancelled",
        "re_entry",
        "reacted",
        "unanswered",
        "expired",
        "quiet",
    }, suppressed
    assert len(emitted) > 100
