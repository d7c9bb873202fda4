"""The policy of contact, asked at the moment of sending: consent with its proof, quiet hours, caps, hold-outs."""

from __future__ import annotations

import pytest

from rules.scenarios import check

QUIET = """
    defaults = {zone: Europe/Berlin}
    policies = {marketing: {quiet: {from: "21:00", to: "09:00"}}}
    trigger late = {on: {event: product_added}, max_age: P1D, steps: [{wait: PT2H}, {emit: late}]}
"""


# --- consent -----------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M48", "M82")
def test_each_kind_of_mailing_is_chosen_apart_and_a_record_bears_the_proof() -> None:
    done = check(
        """
        policies = {marketing: {consent: {channel: email}}}
        trigger sale = {topic: sale, on: {event: page_viewed}, steps: [{emit: sale}]}
        trigger tips = {topic: tips, on: {event: page_viewed}, steps: [{emit: tips}]}
        trigger bill = {class: transactional, on: {event: page_viewed}, steps: [{emit: bill}]}
        0d  ana  page_viewed
        0d  ana  expect emits sale 0, emits tips 0, emits bill 1, suppressed sale no_consent, suppressed tips no_consent
        1d  ana  consent_changed channel=email topic=sale state=granted source=checkout
        2d  ana  page_viewed
        2d  ana  expect emits sale 1, emits tips 0
        3d  ana  consent_changed channel=email topic=sale state=denied
        3d  ana  page_viewed
        3d  ana  expect emits sale 1, suppressed sale no_consent 2, emits bill 3
        """
    )
    assert done.sent("sale")[0]["consent"] == {
        "channel": "email", "topic": "sale", "state": "granted", "at": "2026-01-02T00:00:00.000Z", "source": "checkout",
    }  # fmt: skip


@pytest.mark.mechanic("M83")
@pytest.mark.parametrize(
    "word",
    [
        "unsubscribed channel=email",
        "unsubscribed topic=news",
        "email_marked_as_spam",
        "email_bounced bounce=hard",
        "consent_changed channel=email state=denied",
    ],
)
def test_who_wants_no_more_has_nothing_pending_from_that_instant(word: str) -> None:
    done = check(
        f"""
        trigger news = {{topic: news, on: {{event: registered}}, consent: {{channel: email, mode: opt_out}}, steps: [{{emit: a}}, {{wait: P2D}}, {{emit: b}}, {{wait: P2D}}, {{emit: c}}]}}
        0d  ana  registered
        1d  ana  {word}
        1d  ana  expect alarm none, suppressed news no_consent
        9d  ana  expect emits news 1, suppressed news no_consent
        """
    )
    assert done.decisions("news")[-1]["detail"]["by"] == word.split()[0]
    check(
        """
        trigger news = {topic: news, on: {event: registered}, consent: {channel: email, mode: opt_out}, steps: [{emit: a}, {wait: P2D}, {emit: b}]}
        0d  ana  registered
        1d  ana  email_bounced bounce=soft
        1d  ana  unsubscribed topic=other
        1d  ana  unsubscribed channel=sms
        2d  ana  expect emits news 2
        """
    )


@pytest.mark.mechanic("M69")
def test_a_bill_goes_at_night_and_beyond_every_cap_but_not_where_its_own_consent_is_refused() -> None:
    check(
        """
        policies = {marketing: {consent: {channel: email}, quiet: {from: "21:00", to: "09:00"}, limits: [{max: 1, per: P1D}], holdout: {trait: custom.held, eq: true}}}
        trigger sale = {on: {event: page_viewed}, steps: [{emit: sale}]}
        trigger placed = {class: transactional, on: {event: order_completed}, key: order_id, steps: [{emit: placed}]}
        trigger by_sms = {class: transactional, consent: {channel: sms, topic: orders, mode: opt_out}, on: {event: order_completed}, key: order_id, steps: [{emit: placed}]}
        start 2026-01-01T23:00
        0h  ana  identified custom.held=true
        0h  ana  order_completed order_id=1 total=10
        0h  ana  order_completed order_id=2 total=10
        0h  ana  expect emits placed 2, emits by_sms 2
        # The law's word stands before the class.
        1h  ana  consent_changed channel=sms topic=orders state=denied
        1h  ana  order_completed order_id=3 total=10
        1h  ana  expect emits placed 3, emits by_sms 2, suppressed by_sms no_consent
        2h  ana  consent_changed channel=email state=denied
        2h  ana  order_completed order_id=4 total=10
        2h  ana  expect emits placed 4, emits sale 0
        """
    )


# --- quiet hours -------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M69")
def test_a_moment_in_the_night_waits_for_the_morning_and_an_order_in_the_night_still_cancels_it() -> None:
    check(
        f"""
        {QUIET}
        start 2026-01-01T18:59
        0h                ana  product_added product=mug
        2h                ana  expect emits late 1
        3h                ana  product_added product=mug
        2026-01-02T08:59  ana  expect emits late 1
        2026-01-02T09:00  ana  expect emits late 2, suppressed late emitted 2
        """
    )
    check(
        f"""
        {QUIET}
        trigger bill = {{class: transactional, on: {{event: order_completed}}, steps: [{{emit: bill}}]}}
        trigger cart = {{on: {{event: product_added}}, cancel_on: [{{event: order_completed}}], max_age: P1D, steps: [{{emit: cart}}]}}
        start 2026-01-01T23:00
        0h                ana  product_added product=mug
        1h                ana  order_completed order_id=1 product=mug price=1
        1h                ana  expect emits bill 1, suppressed cart cancelled     # a bill goes at any hour
        2026-01-03T00:00  ana  expect emits cart 0
        """
    )


def test_quiet_hours_end_at_the_wall_time_though_the_clocks_change_in_the_night() -> None:
    done = check(
        f"""
        {QUIET}
        start 2026-03-28T20:00
        0h                ana  product_added product=mug
        2026-10-24T20:00  ana  product_added product=mug
        2026-10-26T00:00  ana  expect emits late 2
        """
    )
    assert [one["at"] for one in done.sent("late")] == ["2026-03-29T07:00:00.000Z", "2026-10-25T08:00:00.000Z"]


def test_who_moves_to_another_zone_while_a_moment_waits_is_not_written_to_in_his_new_night() -> None:
    done = check(
        f"""
        {QUIET}
        start 2026-01-01T20:00
        0h                ana  product_added product=mug
        4h                ana  identified timezone=America/New_York
        2026-01-02T14:59  ana  expect emits late 0
        2026-01-02T15:00  ana  expect emits late 1
        """
    )
    assert done.sent("late")[0]["at"] == "2026-01-02T14:00:00.000Z"  # nine in New York


@pytest.mark.parametrize(
    ("quiet", "letters"),
    [
        ("on_conflict: defer", ["2026-01-02T09:00:00.000Z"]),
        ("on_conflict: drop", []),
        ("on_conflict: advance", ["2026-01-01T20:59:00.000Z"]),
        ("weekdays: [fri, sat]", ["2026-01-04T09:00:00.000Z"]),
    ],
)
def test_what_becomes_of_a_moment_in_quiet_hours(quiet: str, letters: list[str]) -> None:
    done = check(
        f"""
        policies = {{marketing: {{quiet: {{from: "21:00", to: "09:00", {quiet}}}}}}}
        trigger late = {{on: {{event: product_added}}, max_age: P7D, steps: [{{wait: PT2H}}, {{emit: late}}]}}
        start 2026-01-01T20:00
        0h  ana  product_added product=mug
        9d  ana  expect emits late {len(letters)}, alarm none
        """
    )
    assert [one["at"] for one in done.sent("late")] == letters
    assert len(done.decisions("late")) == 1
    if not letters:
        assert done.decisions("late")[0]["detail"] == {"rule": "quiet hours", "until": "2026-01-02T09:00:00.000Z"}


def test_a_moment_that_would_be_stale_in_the_morning_is_dropped_in_the_night() -> None:
    check(
        """
        policies = {marketing: {quiet: {from: "21:00", to: "09:00"}}}
        trigger cart = {on: {event: product_added}, max_age: PT2H, steps: [{emit: cart}, {wait: P1D}, {emit: again}]}
        start 2026-01-01T23:00
        0h                ana  product_added product=mug
        0h                ana  expect suppressed cart quiet
        2026-01-02T23:00  ana  expect suppressed cart quiet 2, emits cart 0, alarm none
        """
    )


# --- caps --------------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M69")
def test_a_cap_on_the_class_counts_what_was_sent_in_the_window_and_leaves_bills_alone() -> None:
    done = check(
        """
        policies = {marketing: {limits: [{max: 1, per: P1D}, {max: 2, per: P7D, scope: channel}]}}
        trigger a = {on: {event: page_viewed}, steps: [{emit: a}]}
        trigger b = {on: {event: product_viewed}, steps: [{emit: b}]}
        trigger bill = {class: transactional, on: {event: order_completed}, steps: [{emit: bill}]}
        0h   ana  page_viewed
        1h   ana  product_viewed product=mug
        1h   ana  order_completed order_id=1 total=1
        1h   ana  expect emits a 1, emits b 0, suppressed b frequency, emits bill 1
        23h  ana  product_viewed product=mug
        24h  ana  product_viewed product=mug            # the first left the day at this instant
        24h  ana  expect emits b 1, suppressed b frequency 2
        3d   ana  page_viewed
        3d   ana  expect emits a 1, suppressed a frequency
        168h ana  page_viewed
        168h ana  expect emits a 2
        """
    )
    assert done.decisions("b")[0]["detail"] == {"rule": "1 per P1D of the class", "until": "2026-01-02T00:00:00.000Z"}
    assert done.decisions("a")[1]["detail"]["until"] == "2026-01-08T00:00:00.000Z"


def test_a_cap_by_the_calendar_ends_with_the_customers_day_and_what_has_none_of_its_own_fills_it() -> None:
    check(
        """
        trigger a = {topic: tips, on: {event: page_viewed}, limits: [{max: 1, per: day, scope: topic}], steps: [{emit: a}]}
        trigger b = {topic: tips, on: {event: product_viewed}, steps: [{emit: b}]}
        start 2026-01-01T10:00
        0h                ana  identified timezone=Asia/Tokyo
        1h                ana  product_viewed product=mug
        1h                ana  page_viewed
        1h                ana  expect emits b 1, suppressed a frequency
        2026-01-01T14:59  ana  page_viewed
        2026-01-01T15:00  ana  page_viewed                       # midnight in Tokyo
        2026-01-01T15:00  ana  expect emits a 1, suppressed a frequency 2
        """
    )


# --- hold-outs ---------------------------------------------------------------------------------------------------


@pytest.mark.mechanic("M87")
def test_who_is_held_out_is_sent_nothing_and_each_moment_says_so() -> None:
    people = "\n".join(f"0d p{n} page_viewed" for n in range(400))
    done = check(
        f"""
        segment holdout_5 = {{bucket: {{salt: global-2026, percent: 5}}}}
        policies = {{marketing: {{holdout: {{in_segment: holdout_5}}}}}}
        trigger a = {{on: {{event: page_viewed}}, steps: [{{emit: a}}]}}
        {people}
        """
    )
    held = [one for one in done.decisions("a") if one["reason"] == "holdout"]
    assert 5 <= len(held) <= 40
    assert len(held) + len(done.sent("a")) == 400
    assert held[0]["detail"] == {"rule": "in segment holdout_5", "until": None}


@pytest.mark.mechanic("M82")
def test_the_proof_of_a_consent_says_which_text_was_shown_and_goes_along_when_addresses_join() -> None:
    done = check(
        """
        trigger it = {topic: sale, consent: {channel: email}, on: {event: registered}, steps: [{emit: hi}]}
        0d  anon:x  consent_changed channel=email topic=sale state=granted text_version=v3 source=checkout
        0d  ana     consent_changed channel=email topic=sale state=granted text_version=v4 source=checkout
        1d  bob     consent_changed channel=email topic=sale state=granted source=checkout
        1d  bob     registered
        2d  ana     registered id=anon:x
        2d  ana     expect emits it 1
        """
    )
    proofs = [one["consent"] for one in done.sent("it")]
    assert [one.get("text") for one in proofs] == [None, "v4"]
    assert proofs[1] == {
        "channel": "email",
        "topic": "sale",
        "state": "granted",
        "at": "2026-01-01T00:00:00.000Z",
        "source": "checkout",
        "text": "v4",
    }


@pytest.mark.mechanic("M69", "M70")
def test_of_several_moments_of_one_instant_the_greatest_priority_takes_the_room() -> None:
    check(
        """
        policies = {marketing: {limits: [{max: 1, per: P1D}]}}
        segment looked = {did: page_viewed}
        trigger a = {on: {event: page_viewed}, steps: [{emit: a}, {wait: P2D}, {emit: a2}]}
        trigger b = {priority: 5, on: {event: page_viewed}, steps: [{emit: b}, {wait: P2D}, {emit: b2}]}
        trigger c = {priority: -1, on: {event: page_viewed}, steps: [{emit: c}, {wait: P2D}, {emit: c2}]}
        trigger d = {priority: 9, on: {segment: looked, change: entered}, steps: [{wait: P4D}, {emit: d}]}
        trigger e = {on: {segment: looked, change: entered}, steps: [{wait: P4D}, {emit: e}]}
        0d  ana  page_viewed
        0d  ana  expect emits b 1, suppressed a frequency, suppressed c frequency
        2d  ana  expect emits b/b2 1, suppressed a frequency 2, suppressed c frequency 2
        4d  ana  expect emits d 1, suppressed e frequency
        """
    )
