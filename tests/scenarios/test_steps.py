"""Steps of a journey beside waiting, branching and sending, as the mechanics of SPEC 1.3 need them."""

from __future__ import annotations

import json

import pytest

from profiles.errors import BadDocument
from profiles.moments import DAY_MS
from profiles.wire import COUPONS, TASKS, Wake, completed, coupon_code
from rules.engine import step
from rules.scenarios import Run, check


def out(done: Run, topic: str) -> list[dict[str, object]]:
    """What went out on a topic, oldest first."""
    return [one.value for one in done.world.published if one.record.topic == topic]


# --- tasks -------------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M16")
def test_a_loyal_customer_who_went_silent_becomes_a_task_for_the_manager() -> None:
    orders = "\n".join(f"{n}d ana order_completed order_id={n} total=8000" for n in range(10))
    done = check(
        f"""
        trait avg_check = {{avg: order.total}}
        segment silent_loyal = {{all: [{{trait: orders_paid, gte: 10}}, {{trait: avg_check, gte: 8000}}, {{trait: last_order_at, older_than: P6M}}]}}
        trigger call = {{class: transactional, on: {{segment: silent_loyal}}, steps: [{{task: {{queue: managers, title: Call the customer, due: P2D, assignee: olga}}}}]}}
        {orders}
        2026-07-09T23:59  ana  expect tasks call 0
        2026-07-10T00:00  ana  expect tasks call 1, suppressed call emitted 1
        """
    )
    task = out(done, TASKS)[0]
    assert (task["at"], task["due"]) == ("2026-07-10T00:00:00.000Z", "2026-07-12T00:00:00.000Z")
    assert (task["queue"], task["title"], task["assignee"]) == ("managers", "Call the customer", "olga")


@pytest.mark.mechanic("M63")
def test_after_delivery_praise_leads_to_a_review_and_trouble_to_a_person_at_once() -> None:
    rules = """
        trigger survey = {on: {event: order_status_changed, where: {to: delivered}}, key: order_id, steps: [{wait: P4D}, {emit: how_was_it}, {wait_for: {event: survey_answered, match: order_id, timeout: P14D, on_timeout: exit}}, {branch: [{if: {event: {score: {lte: 6}}}, then: [{task: {queue: call_center, title: unhappy, due: PT4H}}, {issue_coupon: {offer: sorry}}, {emit: {template: apology, payload: {coupon: $coupon}}}]}, {else: [{emit: ask_review}]}]}]}
        0d  ana  order_completed order_id=1 total=10
        1d  ana  order_status_changed order_id=1 to=delivered
        5d  ana  expect emits survey/how_was_it 1
    """
    done = check(
        f"""
        {rules}
        6d  ana  survey_answered question=nps order_id=2 score=1      # of another order
        6d  ana  expect tasks survey 0
        7d  ana  survey_answered question=nps order_id=1 score=6
        7d  ana  expect tasks survey 1, emits survey/apology 1, emits survey/ask_review 0
        """
    )
    assert out(done, TASKS)[0]["at"] == "2026-01-08T00:00:00.000Z"
    check(
        f"{rules}\n7d ana survey_answered question=nps order_id=1 score=7\n7d ana expect tasks survey 0, emits survey/ask_review 1"
    )
    check(f"{rules}\n90d ana expect emits survey 1, tasks survey 0")


# --- coupons -----------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M55")
def test_a_review_brings_a_coupon_and_an_unspent_coupon_a_reminder() -> None:
    rules = """
        trigger review = {on: {event: order_status_changed, where: {to: delivered}}, key: order_id, steps: [{wait: P3D}, {emit: please_review}, {wait_for: {event: product_reviewed, match: order_id, timeout: P30D, on_timeout: exit}}, {issue_coupon: {offer: review, valid: P30D}}, {emit: {template: coupon, payload: {coupon: $coupon}}}, {wait_for: {event: coupon_redeemed, match: coupon.code, timeout: P7D, on_event: exit}}, {emit: {template: reminder, payload: {coupon: $coupon}}}]}
        0d  ana  order_completed order_id=1 total=10
        1d  ana  order_status_changed order_id=1 to=delivered
        4d  ana  expect emits review/please_review 1
        5d  ana  product_reviewed order_id=1 product=mug rating=5
        5d  ana  expect emits review/coupon 1
    """
    done = check(
        f"""
        {rules}
        6d     ana  coupon_redeemed code=REVIEW-OTHER777-AAAAAAAA
        11d23h ana  expect emits review/reminder 0
        12d    ana  expect emits review/reminder 1
        """
    )
    given = done.sent("review")[1]["payload"]["coupon"]
    assert given == done.sent("review")[2]["payload"]["coupon"]
    assert given["valid_until"] == "2026-02-05T00:00:00.000Z"
    told = out(done, COUPONS)
    assert [one["code"] for one in told] == [given["code"]]
    stem = given["code"].rpartition("-")[0]
    spent = coupon_code(stem, b"secret").lower()
    check(
        f"{rules}\n6d ana coupon_redeemed code={spent}\n90d ana expect emits review/reminder 0, suppressed review reacted"
    )


def test_the_mark_of_a_code_wants_the_secret() -> None:
    done = check(
        """
        trigger gift = {on: {event: registered}, steps: [{issue_coupon: {offer: "first_{arm}"}}, {emit: {template: hi, payload: {coupon: $coupon}}}]}
        0d  ana  registered
        0d  bob  registered
        """
    )
    records = [one.record for one in done.world.published if one.record.topic in (COUPONS, "triggers.gift")]
    codes = [one.value["code"] for one in done.world.published if one.record.topic == COUPONS]
    assert len(set(codes)) == 2
    stems = [code.rpartition("-")[0] for code in codes]
    for secret in (b"a", b"b"):
        whole = b"".join(completed(record, stems, secret).value for record in records)
        assert b"####" not in whole
        assert all(whole.count(coupon_code(stem, secret).encode()) == 2 for stem in stems)
    assert coupon_code(stems[0], b"a") != coupon_code(stems[0], b"b")


# --- experiments -------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M87")
def test_variants_are_of_a_customer_for_ever_and_the_control_arm_is_sent_nothing() -> None:
    people = [f"p{n}" for n in range(300)]
    lines = "\n".join(f"{day}d {one} registered" for day in (0, 1) for one in people)
    done = check(
        f"""
        trigger hello = {{on: {{event: registered}}, steps: [{{split: {{experiment: subject, arms: {{a: 45, b: 45, control: 10}}}}}}, {{emit: {{template: hello, payload: {{pick: $arm}}}}}}]}}
        {lines}
        """
    )
    arms: dict[str, list[str]] = {}
    for one in done.sent("hello"):
        assert one["experiment"] == {"id": "subject", "arm": one["payload"]["pick"]}
        arms.setdefault(one["profile"]["address"], []).append(one["payload"]["pick"])
    assert all(len(several) == 2 and len(set(several)) == 1 for several in arms.values())
    counts = [sum(several[0] == arm for several in arms.values()) for arm in ("a", "b")]
    assert 105 < min(counts) <= max(counts) < 165
    held = [one for one in done.decisions("hello") if one["reason"] == "control"]
    assert len(held) == 2 * (len(people) - len(arms))
    assert 10 < len(held) / 2 < 60


@pytest.mark.mechanic("M87")
def test_an_arm_stays_when_a_stranger_turns_out_to_be_a_customer() -> None:
    rules = "trigger hello = {on: {event: page_viewed}, steps: [{split: {experiment: s, arms: {a: 50, b: 50}}}, {emit: 'h_{arm}'}]}"
    for n in range(8):
        done = check(
            f"""
            {rules}
            0d  anon:{n}  page_viewed
            1d  u{n}      registered id=anon:{n} trusted=true
            2d  u{n}      page_viewed
            """
        )
        first, second = done.sent("hello")
        assert first["template"] == second["template"]
        assert first["profile"]["address"] != second["profile"]["address"]


# --- offers that grow ---------------------------------------------------------------------------------------------

WINBACK = """
    trigger back = {on: {trait: last_order_at, reaches_age: P3M}, cancel_on: [{event: order_completed}], max_age: P7D, steps: [{ladder: {of: last_order_at, rungs: [{at: P3M, level: 5}, {at: P4M, level: 10}, {at: P6M, level: 15}, {at: P9M, level: 25}], do: [{issue_coupon: {offer: "winback_{level}"}}, {emit: {template: winback, payload: {coupon: $coupon, level: $level}}}]}}]}
"""


@pytest.mark.mechanic("M65")
def test_the_offer_grows_with_the_silence_and_an_order_begins_it_anew() -> None:
    done = check(
        f"""
        {WINBACK}
        0d                ana  order_completed order_id=1 total=10
        2026-05-01T00:00  ana  expect emits back 2
        2026-05-02T00:00  ana  order_completed order_id=2 total=10
        2026-05-02T00:00  ana  expect suppressed back cancelled
        2027-12-01T00:00  ana  expect emits back 6, alarm none
        """
    )
    sent = done.sent("back")
    assert [(one["at"][:10], one["payload"]["level"]) for one in sent] == [
        ("2026-04-01", 5), ("2026-05-01", 10), ("2026-08-02", 5), ("2026-09-02", 10), ("2026-11-02", 15), ("2027-02-02", 25),
    ]  # fmt: skip
    assert sent[1]["payload"]["coupon"]["offer"] == "winback_10"
    assert len({one["payload"]["coupon"]["code"] for one in sent}) == 6


# --- what a journey changes ---------------------------------------------------------------------------------------


@pytest.mark.mechanic("M53")
def test_a_discount_is_a_trait_that_is_given_and_taken_away() -> None:
    rules = """
        segment discounted = {trait: custom.discount, eq: vip}
        trigger granted = {on: {trait: orders_paid, crosses: 3}, re_entry: once, steps: [{set: {custom.discount: vip}}, {emit: vip}]}
        trigger burns = {on: {trait: last_order_at, reaches_age: P3M}, when: {in_segment: discounted}, cancel_on: [{event: order_completed}], steps: [{emit: burns}, {wait: P3D}, {set: {custom.discount: null}}, {emit: gone}]}
        0d  ana  order_completed order_id=1 total=10
        0d  ana  order_completed order_id=2 total=10
        0d  ana  expect out discounted
        0d  ana  order_completed order_id=3 total=10
        0d  ana  expect in discounted, emits granted 1
        P3M  ana  expect emits burns/burns 1, in discounted
    """
    check(f"{rules}\nP3M3D ana expect out discounted, left discounted P3M3D, emits burns/gone 1")
    check(
        f"{rules}\nP3M2DT23H59M ana order_completed order_id=4 total=5\nP5M ana expect in discounted, emits burns/gone 0"
    )


def test_journeys_that_set_one_another_off_stop() -> None:
    check(
        """
        segment on = {trait: custom.light, eq: on}
        segment off = {trait: custom.light, eq: off}
        trigger a = {on: {segment: on}, steps: [{set: {custom.light: off}}]}
        trigger b = {on: {segment: off}, steps: [{set: {custom.light: on}}]}
        0d  ana  identified custom.light=on
        1d  ana  page_viewed
        1d  ana  expect outcome applied
        """
    )


@pytest.mark.mechanic("M66", "M67")
def test_the_last_letters_end_in_silence_unless_somebody_reacts_and_a_new_consent_ends_the_silence() -> None:
    rules = """
        segment non_openers = {all: [{trait: first_seen, older_than: P3M}, {did: email_delivered, window: {within: P3M}}, {did_not: email_opened, where: [{machine: {ne: true}}], window: {within: P3M}}]}
        trigger news = {on: {event: form_submitted}, consent: {channel: email, mode: opt_out}, steps: [{emit: news}]}
        trigger sunset = {on: {segment: non_openers}, consent: {channel: email, mode: opt_out}, cancel_on: [{event: [email_opened, email_link_clicked], where: {machine: {ne: true}}}, {event: page_viewed}], steps: [{emit: why}, {wait: P7D}, {emit: keep_me}, {wait: P7D}, {emit: tomorrow}, {wait: P1D}, {suppress: {channels: [email]}}]}
        0d    ana  identified gender=female
        80d   ana  email_delivered
        P3M   ana  expect emits sunset/why 1
    """
    check(
        f"""
        {rules}
        P3M8D   ana  email_opened machine=true        # a mail program that fetches pictures reads nothing
        P3M14D  ana  expect emits sunset/tomorrow 1
        P3M15DT1H  ana  form_submitted form_id=x
        P3M15DT1H  ana  expect emits news 0, suppressed news no_consent
        P4M     ana  consent_changed channel=email state=granted
        P4M     ana  form_submitted form_id=x
        P4M     ana  expect emits news 1
        """
    )
    check(
        f"{rules}\nP3M8D ana email_opened\nP4M ana expect emits sunset 2, suppressed sunset cancelled\nP4M ana form_submitted form_id=x\nP4M ana expect emits news 1"
    )


# --- waiting -----------------------------------------------------------------------------------------------------


def test_a_wait_for_an_event_can_begin_anew() -> None:
    check(
        """
        trigger quiet = {on: {event: registered}, steps: [{wait_for: {event: order_completed, timeout: P2D, on_event: exit, reset_on: {event: page_viewed}}}, {emit: still_thinking}]}
        0d     ana  registered
        1d     ana  page_viewed
        2d12h  ana  page_viewed
        4d11h  ana  expect emits quiet 0
        4d12h  ana  expect emits quiet 1
        """
    )


def test_waiting_until_a_wall_time_over_the_change_of_clocks() -> None:
    done = check(
        """
        defaults = {zone: Europe/Berlin}
        trigger it = {on: {event: registered}, re_entry: every, steps: [{wait_until: "02:30"}, {emit: hi}]}
        start 2026-03-28T12:00
        0d                ana  registered
        2026-10-24T12:00  ana  registered
        2026-10-26T00:00  ana  expect emits it 2
        """
    )
    # In spring there is no 2:30, in autumn there are two, of which the first counts.
    assert [one["at"] for one in done.sent("it")] == ["2026-03-29T01:30:00.000Z", "2026-10-25T00:30:00.000Z"]


# --- after an outage ---------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M59")
@pytest.mark.parametrize(("late", "sent"), [("send", ["2", "3", "4"]), ("skip", ["4"])])
def test_of_the_steps_missed_while_all_was_down_only_the_newest_is_done(late: str, sent: list[str]) -> None:
    done = check(
        f"""
        trigger welcome = {{on: {{event: registered}}, max_age: P30D, late_steps: {late}, steps: [{{emit: a}}, {{wait: P2D}}, {{emit: b}}, {{wait: P2D}}, {{emit: c}}, {{wait: P2D}}, {{emit: d}}]}}
        0d  ana  registered
        1d  ana  expect emits welcome 1
        """
    )
    profile, rulebook = done.world.profiles["user:ana"], done.world.rulebook
    back_ms = done.start_ms + 7 * DAY_MS
    records = step(profile, Wake(back_ms), rulebook, clock_ms=back_ms).records
    told = [json.loads(one.value) for one in records]
    assert [one["step"] for one in told if "trigger_id" in one] == sent
    assert {one["step"]: one["reason"] for one in told if "decision_id" in one and one["reason"]} == {
        one: "late" for one in ("2", "3", "4") if one not in sent
    }
    assert profile.alarm_ms() is None


GIFT = """
    policies = {marketing: {consent: {channel: email, mode: opt_out}, limits: [{max: 1, per: P1D}]}}
    trigger gift = {on: {event: registered}, steps: [{issue_coupon: {offer: hi, valid: P30D}}, {emit: {template: hi, payload: {coupon: $coupon}}}, {wait: P2D}, {emit: {template: again, payload: {coupon: $coupon}}}]}
    trigger free = {on: {event: product_reviewed}, steps: [{issue_coupon: {offer: thanks}}]}
    trigger page = {on: {event: page_viewed}, steps: [{emit: page}]}
"""


@pytest.mark.mechanic("D7")
def test_a_coupon_is_issued_with_the_letter_that_names_it_and_not_without() -> None:
    done = check(
        f"""{GIFT}
        0d  ana  page_viewed
        0d  ana  registered
        0d  ana  expect suppressed gift frequency, coupons gift 0
        2d  ana  expect emits gift/again 1, coupons gift 1
        """
    )
    [issued] = [one.value for one in done.world.published if one.record.topic == COUPONS]
    assert issued["code"] == done.sent("gift")[0]["payload"]["coupon"]["code"]
    check(
        f"""{GIFT}
        0d  ana  unsubscribed channel=email
        0d  ana  registered
        9d  ana  expect suppressed gift no_consent 2, coupons gift 0
        """
    )
    check(
        f"""{GIFT}
        0d  ana  registered
        9d  ana  expect emits gift 2, coupons gift 1, coupons free 0
        9d  ana  product_reviewed product=mug
        9d  ana  expect coupons free 1
        """
    )


@pytest.mark.mechanic("M56")
@pytest.mark.parametrize("expires", ["not_in: [confirmed, paid]", "in: [shipped, delivered, cancelled, returned]"])
def test_a_journey_does_not_outlive_its_orders_status_however_it_came_to_be(expires: str) -> None:
    rules = f"trigger add = {{on: {{event: order_status_changed, where: {{to: confirmed}}}}, key: order_id, expires: {{state: order.status, {expires}}}, steps: [{{wait: PT30M}}, {{emit: add}}, {{wait: P1D}}, {{emit: again}}]}}"
    done = check(
        f"""
        {rules}
        0m   ana  order_completed order_id=1 total=10 status=placed
        1m   ana  order_status_changed order_id=1 to=confirmed
        10m  ana  order_updated order_id=1 total=10 status=shipped       # no event that any rule names
        2d   ana  expect emits add 0, suppressed add expired, alarm none
        """
    )
    assert done.decisions("add")[0]["detail"] == {"state": "order.status", "is": "shipped"}
    check(
        f"""
        {rules}
        0m   ana  order_completed order_id=1 total=10 status=placed
        1m   ana  order_status_changed order_id=1 to=confirmed
        40m  ana  order_status_changed order_id=1 to=paid
        41m  ana  expect emits add 1
        20h  ana  order_status_changed order_id=1 to=shipped
        9d   ana  expect emits add 1, suppressed add expired
        """
    )


@pytest.mark.mechanic("D7")
def test_a_letter_that_an_answer_would_have_brought_is_accounted_for_when_none_comes() -> None:
    done = check(
        """
        trigger it = {on: {event: registered}, steps: [{emit: ask}, {wait_for: {event: survey_answered, timeout: P2D, on_timeout: exit}}, {emit: thanks}]}
        0d  ana  registered
        0d  eve  registered
        1d  eve  survey_answered question=nps score=9
        9d  ana  expect emits it/thanks 0, suppressed it unanswered
        9d  eve  expect emits it/thanks 1, suppressed it unanswered 0
        """
    )
    assert len({one["decision_id"] for one in done.decisions("it")}) == len(done.decisions("it")) == 4


def test_what_a_trigger_states_gives_way_to_better_sources() -> None:
    check(
        """
        trait custom.size = {said: enum, of: [s, m], sources: [shop]}
        trigger it = {on: {event: page_viewed}, steps: [{set: {custom.size: s}}]}
        0d  ana  page_viewed
        0d  ana  expect trait custom.size s
        1d  ana  identified custom.size=m source=shop
        2d  ana  page_viewed
        2d  ana  expect trait custom.size m
        """
    )


# --- what a journey heard, and which arm it is in ------------------------------------------------------------------


@pytest.mark.mechanic("M87")
def test_the_hour_of_sending_is_tried_as_subjects_are() -> None:
    people = [f"p{n}" for n in range(60)]
    lines = "\n".join(f"0h {one} registered" for one in people)
    done = check(
        f"""
        trigger hello = {{on: {{event: registered}}, steps: [{{split: {{experiment: hour, arms: {{morning: 40, evening: 40, now: 20}}}}}}, {{branch: [{{if: {{arm: morning}}, then: [{{wait_until: "09:00"}}]}}, {{if: {{arm: [evening]}}, then: [{{wait_until: "19:00"}}]}}]}}, {{emit: hello}}]}}
        start 2026-01-05T03:00
        {lines}
        1d  p0  expect emits hello 1, alarm none
        """
    )
    hours = {(one["experiment"]["arm"], one["at"][11:16]) for one in done.sent("hello")}
    assert hours == {("morning", "09:00"), ("evening", "19:00"), ("now", "03:00")}
    assert len(done.sent("hello")) == len(people)


@pytest.mark.mechanic("M63")
@pytest.mark.mechanic("M64")
def test_who_takes_up_a_task_sees_what_the_customer_answered() -> None:
    done = check(
        """
        trigger survey = {on: {event: order_status_changed, where: {to: delivered}}, key: order_id, steps: [{wait_for: {event: survey_answered, match: order_id, timeout: P14D, on_timeout: go_on}}, {task: {queue: call_center, title: unhappy, payload: {order: $key, score: $event.score, said: $event.text, shop: north}}}, {emit: {template: sorry, payload: {you_said: $event.text}}}]}
        0d  ana  order_completed order_id=1 total=10
        0d  eve  order_completed order_id=2 total=10
        1d  ana  order_status_changed order_id=1 to=delivered
        1d  eve  order_status_changed order_id=2 to=delivered
        2d  ana  survey_answered order_id=1 score=2 text=late
        20d eve  expect tasks survey 2
        """
    )
    told = [(one["address"], one["payload"]) for one in map(_about, out(done, TASKS))]
    assert told == [
        ("user:ana", {"order": "1", "score": 2, "said": "late", "shop": "north"}),
        ("user:eve", {"order": "2", "score": None, "said": None, "shop": "north"}),  # nobody answered
    ]
    assert [one["payload"] for one in done.sent("survey")] == [{"you_said": "late"}, {"you_said": None}]


def _about(task: dict[str, object]) -> dict[str, object]:
    profile = task["profile"]
    assert isinstance(profile, dict)
    return {"address": profile["address"], "payload": task["payload"]}


def test_of_a_long_answer_a_journey_keeps_the_beginning() -> None:
    done = check(
        f"""
        trigger it = {{on: {{event: survey_answered}}, steps: [{{task: {{queue: q, title: t, payload: {{said: $event.text}}}}}}]}}
        0d  ana  survey_answered text={"x" * 900}
        """
    )
    assert out(done, TASKS)[0]["payload"] == {"said": "x" * 500}


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("[{branch: [{if: {arm: a}, then: [exit]}]}, {emit: x}]", "arm: a `split` above wanted"),
        (
            "[{split: {experiment: e, arms: {one: 50, two: 50}}}, {branch: [{if: {arm: tow}, then: [exit]}]}, {emit: x}]",
            "did you mean 'two'",
        ),
        ("[{task: {queue: q, title: t, payload: {said: $event.txt}}}]", "no property 'txt'"),
        ("[{issue_coupon: {offer: o}}, {task: {queue: q, title: t, payload: {code: $coupon}}}]", "goes with a letter"),
    ],
)
def test_an_arm_or_an_answer_that_there_is_not_is_refused(steps: str, told: str) -> None:
    with pytest.raises(BadDocument, match=told):
        check(f"trigger it = {{on: {{event: survey_answered}}, steps: {steps}}}")
