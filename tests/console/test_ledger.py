"""Reports count exactly what the topics hold, in any order and however often they are read."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded: the same records every time
from typing import Any, Final

import pytest

from console.ledger import Ledger, Window, report
from console.reports import conversions_of, window_of
from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS
from profiles.wire import DECISIONS, Record
from tests.console.told_of import SPRING, Shop
from tests.rules.told import START_MS, Life, rules_of

MACHINES: Final = ("prefetch", "scanner", True)


def told(records: list[Record], trigger: str = "spring", currency: str = "EUR", **asked: Any) -> dict[str, Any]:
    leads = asked.pop("leads", None)
    asked_for = {one.name: one for one in asked.get("conversions", {}).values() if one.wanted}
    ledger = Ledger(currency, asked=asked_for)
    for record in records:
        ledger.take(record.topic, record.value)
    assert ledger.unread == 0
    return report(ledger, trigger, Window(**asked), leads)


def campaign() -> Shop:
    """Pult.ru's first campaign (SPEC M85): 10,000 delivered, 36.5 % opened, 16 % clicked, 2.1 % bought, for 792,000 roubles;
    and machines that open and click on top.
    """
    shop = Shop(rules_of("triggers: {spring: {on: {event: registered}, steps: [{emit: spring_1}]}}"))
    for number in range(10_200):
        address = f"user:{number}"
        message = shop.asked(address, START_MS + number)
        if number >= 10_000:
            shop.happened(address, "email_bounced", START_MS + MINUTE_MS, trigger_id=message, hard=True)
            continue
        shop.happened(address, "email_delivered", START_MS + MINUTE_MS, trigger_id=message, delivery_id=f"d{number}")
        if number % 3 == 0:
            shop.happened(
                address,
                "email_opened",
                START_MS + 2 * MINUTE_MS,
                delivery_id=f"d{number}",
                machine=MACHINES[number % 2],
            )
        if number % 20 == 19:
            shop.happened(
                address, "email_link_clicked", START_MS + 2 * MINUTE_MS, trigger_id=message, machine="scanner"
            )
        if number < 3_650:
            shop.happened(address, "email_opened", START_MS + HOUR_MS, trigger_id=message, machine=False)
        if number < 1_600:
            shop.happened(address, "email_link_clicked", START_MS + HOUR_MS, delivery_id=f"d{number}")
        if number < 210:
            shop.bought(address, START_MS + DAY_MS, f"o{number}", 3_771 if number else 3_861, "RUB")
        if 210 <= number < 230:
            shop.bought(address, START_MS + 8 * DAY_MS, f"o{number}", 5_000, "RUB")  # Too late to be the letter's.
        if 230 <= number < 240:
            shop.bought(address, START_MS + DAY_MS, f"o{number}", 5_000, "RUB")
            shop.happened(address, "order_cancelled", START_MS + 2 * DAY_MS, order_id=f"o{number}")
    return shop


@pytest.mark.mechanic("M84")
@pytest.mark.mechanic("M85")
def test_the_four_numbers_of_a_campaign_come_out_of_its_events_though_machines_open_too() -> None:
    shop = campaign()
    [step] = told(shop.records, currency="RUB")["steps"]
    assert (step["eligible"], step["emitted"], step["suppressed"]) == (10_200, 10_200, {})
    assert (step["delivered"], step["bounced"]) == (10_000, 200)
    assert step["shares"] == {
        "opened_of_delivered": 0.365,
        "clicked_of_delivered": 0.16,
        "clicked_of_opened": round(1600 / 3650, 6),
        "converted_of_delivered": 0.021,
    }
    assert step["revenue"] == {"minor": 79_200_000, "currency": "RUB", "amount": "792000.00"}
    assert (step["orders"], step["converted"]) == (210, 210)
    # Whom only machines opened; whoever opened himself, too, is no machine's.
    assert step["opened"] == {"people": 3_650, "machines": len(range(3_651, 10_000, 3))}
    assert step["clicked"] == {"people": 1_600, "machines": len(range(1_619, 10_000, 20))}
    # In another order, and everything twice: the same.
    again = shop.records * 2
    Random(85).shuffle(again)
    assert told(again, currency="RUB")["steps"] == [step]


@pytest.mark.mechanic("M84")
def test_each_moment_is_eligible_and_either_sent_or_held_back_for_one_reason() -> None:
    book = rules_of(
        """
policies: {marketing: {holdout: {bucket: {salt: s, percent: 30}}, limits: [{max: 1, per: P7D}]}}
triggers:
  spring:
    on: {event: registered}
    consent: {channel: email, mode: opt_out}
    steps: [{emit: one}, {emit: two}]
"""
    )
    shop = Shop(book)
    for number in range(300):
        shop.asked(f"user:{number}")
    steps = told(shop.records)["steps"]
    assert [one["step"] for one in steps] == ["1", "2"]
    for one in steps:
        assert one["eligible"] == 300 == one["emitted"] + sum(one["suppressed"].values())
    first, second = steps
    held = first["suppressed"]["holdout"]
    assert 60 <= held <= 120
    assert first["suppressed"] == {"holdout": held}
    assert second["suppressed"] == {"frequency": 300 - held, "holdout": held}


@pytest.mark.mechanic("M84")
def test_an_order_is_the_last_message_s_within_the_window_and_no_message_s_twice() -> None:
    shop = Shop()
    for days, order in ((0, "before"), (3, "after"), (12, "late")):
        shop.bought("user:ana", START_MS + days * DAY_MS - MINUTE_MS, order, 10)
    message = shop.asked("user:ana", START_MS)
    other = shop.asked("user:ana", START_MS + 2 * DAY_MS, "survey_answered")
    [spring], [trial] = told(shop.records)["steps"], told(shop.records, "trial")["steps"]
    if trial["arm"] == "control":
        pytest.fail("ana is in an arm that is sent something")
    assert (spring["orders"], trial["orders"]) == (0, 1)
    # By what was clicked: only the first was.
    shop.happened("user:ana", "email_link_clicked", START_MS + HOUR_MS, trigger_id=message)
    shop.happened("user:ana", "email_link_clicked", START_MS + 2 * DAY_MS + 1, trigger_id=other, machine="scanner")
    by_click = [told(shop.records, name, touch="clicked")["steps"][0]["orders"] for name in ("spring", "trial")]
    assert by_click == [1, 0]
    # The window's end is not in it.
    assert told(shop.records, within_ms=3 * DAY_MS - MINUTE_MS, touch="clicked")["steps"][0]["orders"] == 0
    assert told(shop.records, within_ms=3 * DAY_MS - MINUTE_MS + 1, touch="clicked")["steps"][0]["orders"] == 1
    # Moments of other days are not told of.
    assert told(shop.records, from_ms=START_MS + 1)["steps"] == []
    assert told(shop.records, until_ms=START_MS)["steps"] == []


@pytest.mark.mechanic("M84")
def test_orders_are_those_of_the_person_whatever_address_they_came_by_and_as_the_book_has_them() -> None:
    shop = Shop()
    shop.asked("user:ana", START_MS)
    shop.bought("card:~abc", START_MS + HOUR_MS, "o1", 100)
    shop.bought("user:ana", START_MS + HOUR_MS, "o1", 100)  # The same order, told by two tills.
    shop.bought("anon:1", START_MS + HOUR_MS, "o2", 50)
    shop.happened("anon:1", "order_refunded", START_MS + 2 * HOUR_MS, order_id="o2", amount=20, currency="EUR")
    shop.bought("user:ana", START_MS + HOUR_MS, "o3", 70, status="placed")
    shop.bought("user:ana", START_MS + HOUR_MS, "o4", 70, "USD")
    leads = {"card:~abc": "user:ana", "anon:1": "user:ana"}
    [step] = told(shop.records, leads=leads)["steps"]
    assert (step["orders"], step["converted"], step["revenue"]["minor"]) == (2, 1, 13_000)
    [alone] = told(shop.records)["steps"]
    assert (alone["orders"], alone["revenue"]["minor"]) == (1, 10_000)


@pytest.mark.mechanic("M84")
def test_lift_is_who_could_have_been_sent_to_against_who_was() -> None:
    """Half of those who had a letter buy, a quarter of those held out; who refused letters is in neither group."""
    shop = Shop(
        rules_of(
            """
policies: {marketing: {holdout: {bucket: {salt: s, percent: 40}}}}
triggers:
  spring: {topic: news, on: {event: registered}, consent: {channel: email, mode: opt_in}, steps: [{emit: one}]}
"""
        )
    )
    sent = held = 0
    for number in range(2_000):
        life = Life(shop.rulebook, f"user:{number}")
        if number % 5:
            life.event("consent_changed", START_MS - DAY_MS, channel="email", topic="news", state="granted")
        life.event("registered", START_MS)
        shop.records += life.records
        [decision] = life.steps[-1].decisions
        if decision[1] == "emitted":
            sent += 1
            buys = sent % 2 == 0
        elif decision[1] == "holdout":
            held += 1
            buys = held % 4 == 0
        else:
            assert decision[1] == "no_consent"
            buys = True
        if buys:
            shop.bought(f"user:{number}", START_MS + DAY_MS, f"o{number}", 10)
    found = told(shop.records)["holdout"]
    assert (found["sent"]["people"], found["held"]["people"]) == (sent, held)
    assert sent + held == 1_600
    assert (found["sent"]["ordered"], found["held"]["ordered"]) == (sent // 2, held // 4)
    assert found["lift"] == round((sent // 2 / sent) / (held // 4 / held) - 1, 6)
    assert found["difference"]["verdict"] == "better"
    low, high = found["difference"]["interval"]
    assert low < found["difference"]["points"] < high


@pytest.mark.mechanic("M87")
def test_each_arm_has_its_results_against_the_one_that_is_sent_nothing() -> None:
    shop = Shop()
    arms = {"a": 0, "b": 0, "control": 0}
    for number in range(3_000):
        address = f"user:{number}"
        before = len(shop.records)
        message = shop.asked(address, START_MS, "survey_answered")
        made = shop.records[before:]
        emitted = [one for one in made if one.topic.startswith("triggers.")]
        arm = "control" if not emitted else ("a" if b'"arm":"a"' in emitted[0].value else "b")
        arms[arm] += 1
        if emitted and arms[arm] % 2:
            shop.happened(address, "email_opened", START_MS + HOUR_MS, trigger_id=message)
        if arms[arm] % {"a": 5, "b": 10, "control": 10}[arm] == 0:
            shop.bought(address, START_MS + DAY_MS, f"o{number}", 10)
    whole = told(shop.records, "trial")
    assert [(one["arm"], one["eligible"]) for one in whole["steps"]] == sorted(arms.items())
    [experiment] = whole["experiments"]
    assert (experiment["experiment"], experiment["base"]) == ("subject", "control")
    found = {one["arm"]: one for one in experiment["arms"]}
    for arm, each in (("a", 5), ("b", 10), ("control", 10)):
        assert (found[arm]["people"], found[arm]["ordered"]) == (arms[arm], arms[arm] // each)
        low, high = found[arm]["interval"]
        assert low < found[arm]["rate"] < high
    assert found["control"]["against"] is None
    assert found["a"]["against"]["ordered"]["verdict"] == "better"
    assert found["b"]["against"]["ordered"]["verdict"] == "no_difference"
    assert sorted(found["a"]["against"]) == ["ordered"]


def test_what_is_not_of_its_topic_is_counted_and_left_out_and_the_oldest_moments_go_first() -> None:
    ledger = Ledger("EUR", moments_max=50)
    for value in (b"no json", b"{}", b"[]", b'{"trigger": "spring", "at": 5}'):
        ledger.take(DECISIONS, value)
    ledger.take(DECISIONS, None)
    assert (ledger.unread, ledger.moments) == (4, {})
    shop = Shop(SPRING)
    for number in range(60):
        address = f"user:{number}"
        message = shop.asked(address, START_MS + number)
        shop.happened(address, "email_opened", START_MS + number + 1, trigger_id=message)
        shop.bought(address, START_MS + number + 2, f"o{number}", 10)
    for record in shop.records:
        ledger.take(record.topic, record.value)
    whole = report(ledger, "spring", Window())
    [step] = whole["steps"]
    assert len(ledger.moments) <= 50
    kept = [one for one in range(60) if START_MS + one >= ledger.since_ms]
    assert step["eligible"] == step["opened"]["people"] == step["orders"] == len(kept) > 40
    assert whole["from"] is not None


@pytest.mark.invariant("R13")
def test_a_moment_that_is_told_again_otherwise_is_counted_and_one_that_is_told_again_alike_is_not() -> None:
    shop = Shop()
    shop.asked("user:1")
    ledger = Ledger("EUR")
    for record in [*shop.records, *shop.records]:
        ledger.take(record.topic, record.value)
    assert ledger.divergent == 0
    for topic in (DECISIONS, "triggers.spring"):
        (record,) = [one for one in shop.records if one.topic == topic]
        ledger.take(topic, record.value.replace(b"user:1", b"user:2"))
    assert ledger.divergent == 2
    assert ledger.unread == 0


@pytest.mark.mechanic("M84")
def test_an_order_is_what_a_trigger_brought_for_as_long_as_its_conversion_says() -> None:
    text = "{{on: {{event: registered}}, conversion: {{event: order_completed, within: {0}}}, steps: [{{emit: it}}]}}"
    book = rules_of(f"triggers: {{spring: {text.format('P14D')}, brief: {text.format('P1D')}}}")
    shop = Shop(book)
    shop.asked("user:1", START_MS)
    shop.happened("user:1", "page_viewed", START_MS + HOUR_MS)
    shop.bought("user:1", START_MS + 10 * DAY_MS, "o1", 100)
    counted = {
        (trigger, within): told(shop.records, trigger, **asked)["steps"][0]["orders"]
        for trigger in ("spring", "brief")
        for within, asked in (
            ("own", {"conversions": conversions_of(book)}),
            ("7 days", {}),
            ("30 days", {"within_ms": 30 * DAY_MS}),
        )
    }
    assert (counted["spring", "own"], counted["brief", "own"]) == (1, 0)
    assert counted["spring", "7 days"] == counted["brief", "7 days"] == 0
    assert counted["spring", "30 days"] + counted["brief", "30 days"] == 1
    asked = window_of("", "", "", "sent", book)
    assert (asked.of("spring"), asked.of("brief"), asked.of("other")) == (14 * DAY_MS, DAY_MS, 7 * DAY_MS)
    assert window_of("", "", "P2D", "sent", book).of("spring") == 2 * DAY_MS


FOR_SURVEY = """
goals: {praise: {event: survey_answered, where: {score: {gte: 9}}}}
policies: {marketing: {holdout: {bucket: {salt: s, percent: 40}}}}
triggers:
  spring: {on: {event: registered}, conversion: {event: survey_answered, where: {question: nps}, within: P3D}, steps: [{emit: ask}]}
  praised: {on: {event: registered}, conversion: {goal: praise, within: P1D}, steps: [{emit: ask}]}
  clicked: {on: {event: registered}, conversion: {event: [email_link_clicked, form_submitted], within: P1D}, steps: [{emit: ask}]}
  sold: {on: {event: registered}, steps: [{emit: buy}]}
"""


@pytest.mark.mechanic("M84")
def test_a_trigger_is_for_what_it_says_an_event_that_looks_so_or_a_goal() -> None:
    book = rules_of(FOR_SURVEY.replace("percent: 40", "percent: 1"))
    shop = Shop(book)
    shop.asked("user:1", START_MS)
    shop.happened("user:1", "survey_answered", START_MS + HOUR_MS, question="other", score=10)
    shop.happened("user:1", "survey_answered", START_MS + 2 * DAY_MS, question="nps", score=3)
    shop.happened("user:1", "survey_answered", START_MS + 3 * DAY_MS, question="nps", score=3)  # the time is over
    shop.happened("user:1", "email_link_clicked", START_MS + HOUR_MS, machine="scanner")
    shop.bought("user:1", START_MS + DAY_MS, "o1", 100)
    found = {
        name: told(shop.records, name, conversions=conversions_of(book))
        for name in ("spring", "praised", "clicked", "sold")
    }
    [step] = found["spring"]["steps"]
    assert (step["converted"], found["spring"]["within_s"]) == (1, 3 * 86_400)
    assert found["praised"]["steps"][0]["converted"] == 1  # ten points, whatever the question
    assert found["clicked"]["steps"][0]["converted"] == 0  # a scanner is nobody
    assert found["sold"]["steps"][0]["converted"] == 1
    assert {name: one["conversion"] for name, one in found.items() if name != "spring"} == {
        "praised": "goal praise", "clicked": "email_link_clicked or form_submitted", "sold": "order_completed",
    }  # fmt: skip
    # Money is told all the same, each order with the last message of all.
    assert sum(one["steps"][0]["orders"] for one in found.values()) == 1
    # A page may tell of a goal itself; and by another address of the person.
    shop.happened("anon:1", "goal_reached", START_MS + HOUR_MS, goal="praise")
    shop.asked("user:2", START_MS)
    shop.happened("anon:1", "form_submitted", START_MS + HOUR_MS, form_id="f")
    for name in ("praised", "clicked"):
        alone = told(shop.records, name, conversions=conversions_of(book))["steps"][0]["converted"]
        with_him = told(shop.records, name, conversions=conversions_of(book), leads={"anon:1": "user:2"})["steps"][0]
        assert with_him["converted"] == alone + 1
    # Asked for a time of the asker's own, and in any order, twice.
    again = shop.records * 2
    Random(3).shuffle(again)
    [longer] = told(again, conversions=conversions_of(book), within_ms=DAY_MS)["steps"]
    assert (longer["converted"], longer["emitted"]) == (0, 2)
    assert told(again, conversions=conversions_of(book)) == told(shop.records, conversions=conversions_of(book))


@pytest.mark.mechanic("M84")
def test_lift_and_arms_go_by_what_the_trigger_is_for() -> None:
    book = rules_of(FOR_SURVEY)
    shop = Shop(book)
    sent = held = 0
    for number in range(1_000):
        before = len(shop.records)
        shop.asked(f"user:{number}", START_MS)
        is_sent = any(one.topic == "triggers.spring" for one in shop.records[before:])
        sent, held = sent + is_sent, held + (not is_sent)
        if (sent if is_sent else held) % (2 if is_sent else 4) == 0:
            shop.happened(f"user:{number}", "survey_answered", START_MS + DAY_MS, question="nps", score=5)
    found = told(shop.records, conversions=conversions_of(book))["holdout"]
    assert (found["sent"]["people"], found["held"]["people"]) == (sent, held)
    assert (found["sent"]["converted"], found["held"]["converted"]) == (sent // 2, held // 4)
    assert (found["sent"]["ordered"], found["difference"]["verdict"]) == (0, "better")
    assert found["lift"] == round((sent // 2 / sent) / (held // 4 / held) - 1, 6)
