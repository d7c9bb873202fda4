"""``explain`` and ``describe``: what they say is what the engine will do, to the millisecond."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.codec import decode, encode
from profiles.edits import Edit, edited
from profiles.ids import small_id
from profiles.moments import DAY_MS, HOUR_MS, MINUTE_MS, iso, parse_instant
from profiles.state import Profile
from profiles.taxonomy import canonical, resolve
from profiles.wire import Event, Wake
from rules.engine import step
from rules.explain import STEPS_MAX, as_of, describe, explain, explain_all, timeline
from tests.rules.told import START_MS, Life, rules_of, shop_rules

SHOP = shop_rules()
NAMES = [segment.name for segment in SHOP.segments]


def bought(life: Life, at_ms: int, order_id: str, total: float, product: str = "food", quantity: int = 1) -> None:
    life.event(
        "Order Completed",
        at_ms,
        order_id=order_id,
        total=total,
        currency="EUR",
        products=[{"product_id": product, "quantity": quantity, "price": total / quantity}],
    )


def put_in_cart(life: Life, at_ms: int, product: str = "food", **more: Any) -> None:
    life.event("Product Added", at_ms, product_id=product, quantity=2, price="12.5", currency="EUR", **more)


# --- why ---------------------------------------------------------------------------------------------------------


def test_every_node_says_what_it_asks_what_it_saw_and_how_long_that_lasts() -> None:
    life = Life(SHOP)
    bought(life, START_MS, "o1", 300)
    bought(life, START_MS + DAY_MS, "o2", 20.5)
    told = explain(life.profile, "vip", SHOP, START_MS + 2 * DAY_MS)
    assert told == {
        "segment": "vip",
        "says": "More than three paid orders, 300 in total or more.",
        "words": {
            "en": "Orders paid is more than 3 and revenue is at least 300.",
            "ru": "Оплаченные заказы: больше 3 и «revenue»: не меньше 300.",
        },
        "holds": False,
        "since": None,
        "pending": False,
        "as_of": iso(START_MS + 2 * DAY_MS),
        "changes_at": None,
        "looked_until": None,
        "to_flip": None,
        "rule": {
            "op": "all",
            "text": "all of these",
            "holds": False,
            "until": None,
            "value": None,
            "events": [],
            "segment": None,
            "children": [
                {
                    "op": "trait",
                    "text": "orders_paid > 3",
                    "holds": False,
                    "until": None,
                    "value": 2,
                    "events": [],
                    "children": [],
                    "segment": None,
                },
                {
                    "op": "trait",
                    "text": "revenue ≥ 300",
                    "holds": True,
                    "until": None,
                    "value": {"minor": 32050, "currency": "EUR", "amount": "320.50"},
                    "events": [],
                    "children": [],
                    "segment": None,
                },
            ],
        },
    }


def test_the_events_that_made_a_condition_so_are_named_newest_first() -> None:
    rulebook = rules_of(
        """
        segments:
          browsing:
            all:
              - {did: product_viewed, window: {within: PT24H}, times: {gte: 3}}
              - {did_not: order, window: {within: P1D}}
        """
    )
    life = Life(rulebook)
    for minutes in range(4):
        life.event("Product Viewed", START_MS + minutes * MINUTE_MS, product_id="drill")
    told = explain(life.profile, "browsing", rulebook, START_MS + HOUR_MS)
    viewed, bought_nothing = told["rule"]["children"]
    assert told["holds"]
    assert told["since"] == iso(START_MS + 2 * MINUTE_MS)
    assert viewed["text"] == "product_viewed within PT24H, times ≥ 3"
    assert viewed["value"] == 3  # as many as the rule needs are kept
    assert [one["at"] for one in viewed["events"]] == [iso(START_MS + m * MINUTE_MS) for m in (3, 2, 1)]
    assert bought_nothing["op"] == "did_not"
    assert (bought_nothing["value"], bought_nothing["events"]) == (0, [])
    # The third newest view is that of minute one.
    assert told["changes_at"] == viewed["until"] == iso(START_MS + MINUTE_MS + DAY_MS)


def test_orders_that_a_condition_stands_on_are_named_with_their_amounts() -> None:
    life = Life(SHOP)
    bought(life, START_MS, "o1", 300)
    bought(life, START_MS + DAY_MS, "o2", 20.5)
    told = explain(life.profile, "sleeping", SHOP, START_MS + 2 * DAY_MS)
    silent = told["rule"]["children"][1]
    assert silent["events"] == [
        {
            "at": iso(START_MS + DAY_MS),
            "order_id": "o2",
            "amount": {"minor": 2050, "currency": "EUR", "amount": "20.50"},
        },
        {"at": iso(START_MS), "order_id": "o1", "amount": {"minor": 30000, "currency": "EUR", "amount": "300.00"}},
    ]


def test_an_average_is_rounded_to_six_places_and_its_amount_to_the_currencys() -> None:
    life = Life(SHOP)
    for number, total in enumerate((10, 10, 10.01)):
        bought(life, START_MS + number * DAY_MS, f"o{number}", total)
    average = explain(life.profile, "big_check", SHOP, START_MS + 3 * DAY_MS)["rule"]["children"][1]
    assert average["value"] == {"minor": 1000.333333, "currency": "EUR", "amount": "10.00"}


def test_a_segment_inside_a_segment_brings_its_own_explanation() -> None:
    life = Life(SHOP)
    for number in range(8):
        bought(life, START_MS + number * DAY_MS, f"o{number}", 200)
    now_ms = START_MS + 8 * DAY_MS
    told = explain(life.profile, "rfm_loyal", SHOP, now_ms)
    inverted = told["rule"]["children"][2]
    inside = inverted["children"][0]["segment"]
    assert not told["holds"]
    assert inverted["op"] == "not"
    assert inside["segment"] == "rfm_champions"
    assert inside["holds"]
    assert inside["since"] == iso(life.profile.members[small_id("rfm_champions")])
    assert inside["rule"]["children"][0]["text"] == "rfm.r ≥ 4"
    # Recency is 5 for 30 days, 4 for 30 more, then 3: the verdict is asked again at the first edge, and flips at the second.
    last_ms = START_MS + 7 * DAY_MS
    assert inverted["until"] == inside["rule"]["until"] == iso(last_ms + 30 * DAY_MS)
    assert told["changes_at"] == iso(last_ms + 60 * DAY_MS)


def test_a_segment_named_twice_in_one_tree_is_explained_once() -> None:
    rulebook = rules_of(
        """
        segments:
          a: {did: product_viewed}
          b: {all: [{in_segment: a}, {in_segment: a}]}
        """
    )
    first, second = explain(Profile("user:ana"), "b", rulebook, START_MS)["rule"]["children"]
    assert first["segment"]["rule"]["op"] == "did"
    assert second["segment"]["rule"] is None
    assert second["segment"]["holds"] is False


def test_a_deep_web_of_segments_is_explained_in_time_that_grows_with_their_number() -> None:
    lines = ["segments:", "  s0: {did: product_viewed}"]
    lines += [f"  s{n}: {{all: [{{in_segment: s{n - 1}}}, {{in_segment: s{n - 1}}}]}}" for n in range(1, 60)]
    told = explain(Profile("user:ana"), "s59", rules_of("\n".join(lines)), START_MS)
    assert not told["holds"]  # two to the power of 59 nodes would not end


# --- since and until ---------------------------------------------------------------------------------------------


@pytest.mark.mechanic("D3")
def test_who_bought_is_told_the_instant_of_lapsing() -> None:
    life = Life(SHOP)
    bought(life, parse_instant("2026-01-31T12:00:00Z"), "o1", 10)
    lapses_ms = parse_instant("2026-04-30T11:00:00Z")  # three calendar months on Berlin's clock, in summer by then
    told = explain(life.profile, "lapsed", SHOP, parse_instant("2026-02-01T00:00:00Z"))
    assert (told["holds"], told["changes_at"]) == (False, iso(lapses_ms))
    life.wait_until(lapses_ms - 1)
    assert "lapsed" not in life.members()
    life.wait_until(lapses_ms)
    assert "lapsed" in life.members()
    told = explain(life.profile, "lapsed", SHOP, lapses_ms)
    assert (told["holds"], told["since"], told["changes_at"]) == (True, iso(lapses_ms), None)


def test_a_sessions_end_is_a_change_too() -> None:
    rulebook = rules_of(
        """
        defaults: {session_gap: PT30M}
        segments:
          looking: {session: {did: product_viewed}}
          gone: {did: session_ended}
          once: {all: [{in_segment: looking}, {not: {in_segment: gone}}]}
        """
    )
    life = Life(rulebook)
    life.event("Product Viewed", START_MS, product_id="drill")
    ends_at = iso(START_MS + 30 * MINUTE_MS)
    now_ms = START_MS + 10 * MINUTE_MS
    for name, holds in (("looking", True), ("gone", False), ("once", True)):
        told = explain(life.profile, name, rulebook, now_ms)
        assert (name, told["holds"], told["changes_at"], told["rule"]["until"]) == (name, holds, ends_at, ends_at)
    after = explain(life.profile, "once", rulebook, START_MS + 30 * MINUTE_MS)
    assert (after["holds"], after["changes_at"], after["pending"]) == (False, None, True)


def test_an_answer_that_a_verdict_promises_too_short_is_followed_to_its_true_end() -> None:
    # `silent_days` is asked anew every midnight; the answer changes once.
    rulebook = rules_of(
        """
        traits: {purchases: {purchase_days: order}}
        segments: {quiet: {trait: purchases.silent_days, gte: 40}}
        """
    )
    life = Life(rulebook)
    bought(life, START_MS, "o1", 10)
    told = explain(life.profile, "quiet", rulebook, START_MS + HOUR_MS)
    assert told["rule"]["until"] == "2026-01-06T00:00:00.000Z"
    assert told["changes_at"] == "2026-02-14T00:00:00.000Z"


@pytest.mark.mechanic("D3")
@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("{some: [{did: product_viewed, window: P7D}, {did: order, window: P30D}, {consent: {channel: email}}], at_least: 1}", True),
        ("{some: [{did_not: product_viewed, window: P7D}, {did_not: order, window: P30D}, {consent: {channel: email}}], at_least: 2}", False),
        ("{not: {some: [{did: product_viewed, window: P7D}, {did: order, window: P30D}], at_least: 1}}", False),
    ],
)  # fmt: skip
def test_some_lasts_until_so_many_have_turned_that_the_rest_decides_otherwise(rule: str, holds: bool) -> None:
    rulebook = rules_of(f"segments: {{a: {rule}}}")
    life = Life(rulebook)
    life.event("Product Viewed", START_MS, product_id="food")
    bought(life, START_MS + DAY_MS, "o1", 10)
    told = explain(life.profile, "a", rulebook, START_MS + 2 * DAY_MS)
    ends_at = iso(START_MS + 31 * DAY_MS)
    assert (told["holds"], told["changes_at"], told["rule"]["until"]) == (holds, ends_at, ends_at)


def test_a_search_that_found_no_end_says_how_far_it_looked() -> None:
    rulebook = rules_of(
        """
        traits: {purchases: {purchase_days: order}}
        segments: {ancient: {trait: purchases.silent_days, gte: 1000000}}
        """
    )
    life = Life(rulebook)
    bought(life, START_MS, "o1", 10)
    told = explain(life.profile, "ancient", rulebook, START_MS)
    assert told["changes_at"] is None
    # The session's end, and as many midnights as are left.
    assert told["looked_until"] == iso(parse_instant("2026-01-05") + (STEPS_MAX - 1) * DAY_MS)


def test_two_expiries_at_one_instant_are_one_change_or_none() -> None:
    rulebook = rules_of(
        """
        segments:
          looked: {did: product_viewed, window: {within: P1D}}
          added: {did: product_added, window: {within: P1D}}
          never: {all: [{in_segment: looked}, {not: {did: product_added, window: {within: P1D}}}]}
          nor_this: {all: [{in_segment: added}, {not: {did: product_viewed, window: {within: P1D}}}]}
        """
    )
    life = Life(rulebook)
    put_in_cart(life, START_MS)
    life.event("Product Viewed", START_MS, product_id="drill")
    entered = [record for record in life.records if record.topic == "segment_changes"]
    told = {one["segment"]: one["changes_at"] for one in explain_all(life.profile, rulebook, START_MS)}
    ends_at = iso(START_MS + DAY_MS)
    assert told == {"looked": ends_at, "added": ends_at, "never": None, "nor_this": None}
    life.wait_until(START_MS + 2 * DAY_MS)
    after = [json.loads(one.value) for one in life.records if one.topic == "segment_changes"][len(entered) :]
    # Both windows end in the same millisecond: nobody is in `never` even for an instant (R11).
    assert sorted((one["segment"], one["change"]) for one in after) == [("added", "exited"), ("looked", "exited")]


@pytest.mark.invariant("R19")
def test_who_has_never_bought_is_told_so_from_the_first_page_on() -> None:
    rulebook = rules_of(
        """
        segments:
          never_bought: {trait: orders_paid, eq: 0}
          no_friend: {not: {in_segment: friend}}
          friend: {did: product_viewed}
          neither: {all: [{in_segment: never_bought}, {in_segment: no_friend}]}
        """
    )
    life = Life(rulebook)
    life.event("page", START_MS, path="/")
    assert life.members() == ["neither", "never_bought", "no_friend"]
    assert [one["pending"] for one in explain_all(life.profile, rulebook, START_MS)] == [False] * 4
    friend = Life(rulebook)
    friend.event("Product Viewed", START_MS, product_id="drill")
    assert friend.members() == ["friend", "never_bought"]


# --- what a read shows --------------------------------------------------------------------------------------------


def test_a_read_shows_what_is_true_now_though_the_alarm_was_not_handled_yet() -> None:
    life = Life(SHOP)
    put_in_cart(life, START_MS)
    blob = encode(life.profile)
    now_ms = START_MS + 3 * HOUR_MS
    told = explain(life.profile, "cart_abandoned", SHOP, now_ms)
    assert (told["holds"], told["since"], told["pending"]) == (True, iso(START_MS + 2 * HOUR_MS), True)
    seen = describe(life.profile, SHOP, now_ms)
    assert seen["traits"]["cart.state"] == "abandoned"
    assert seen["session"] is None
    assert {"segment": "cart_abandoned", "since": iso(START_MS + 2 * HOUR_MS)} in seen["segments"]
    assert encode(life.profile) == blob, "a read changes nothing"


def test_an_input_held_behind_a_gate_is_seen_by_a_read() -> None:
    life = Life(SHOP)
    put_in_cart(life, START_MS)
    # An order three hours later, while the gate is shut: it waits behind the alarms that are due before it.
    late_ms = START_MS + 3 * HOUR_MS
    props = canonical(resolve("order_completed"), {"order_id": "o1", "total": 25, "currency": "EUR"})
    order = Event("m", "site", "order_completed", late_ms, late_ms, "user:ana", props=props, seen_ms=late_ms)
    assert step(life.profile, order, SHOP, gate_ms=START_MS).outcome == "held"
    told = explain(life.profile, "buyers", SHOP, START_MS)
    assert (told["holds"], told["since"], told["pending"], told["as_of"]) == (True, iso(late_ms), True, iso(late_ms))


def test_a_profile_from_before_the_rules_changed_is_told_by_the_rules_of_today() -> None:
    life = Life(rules_of("segments: {lookers: {did: product_viewed}}"))
    bought(life, START_MS, "o1", 10)
    newer = rules_of("segments: {buyers: {trait: orders_paid, gte: 1}, ours: {in_segment: buyers}}")
    told = explain(life.profile, "ours", newer, START_MS + HOUR_MS)
    assert (told["holds"], told["since"], told["pending"]) == (True, None, True)


def test_an_unknown_segment_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        explain(Profile("user:ana"), "nobody", SHOP, START_MS)


@pytest.mark.mechanic("M82")
def test_every_word_on_a_consent_is_told_with_its_instant_source_and_text() -> None:
    life = Life(SHOP)
    chosen: dict[str, Any] = {"channel": "email", "topic": "sale"}
    life.event("Consent Changed", START_MS, **chosen, state="granted", text_version="v3", source="checkout")
    life.event("Unsubscribed", START_MS + 2 * DAY_MS, **chosen)
    life.event("Consent Changed", START_MS + DAY_MS, **chosen, state="granted", text_version="v4")  # Told late.
    edited(life.profile, Edit("ana", "by telephone", {}, (), {"email:sale": "granted"}), START_MS + 3 * DAY_MS)
    profile = decode("user:ana", encode(life.profile))
    (told,) = describe(profile, SHOP, START_MS + 4 * DAY_MS)["consents"]
    words = [(one["state"], one["at"], one["source"], one["text"]) for one in (told, *told["before"])]
    assert words == [
        ("granted", iso(START_MS + 3 * DAY_MS), "edit by ana: by telephone", None),
        ("denied", iso(START_MS + 2 * DAY_MS), "site", None),
        ("granted", iso(START_MS + DAY_MS), "site", "v4"),
        ("granted", iso(START_MS), "site", "v3"),
    ]
    lived = timeline(profile, SHOP, START_MS + 4 * DAY_MS)
    shown = [(one["state"], one["at"]) for one in lived if one["what"] == "consent"]
    assert sorted(shown) == sorted((state, at) for state, at, _, _ in words)


@pytest.mark.mechanic("M82")
@pytest.mark.invariant("R26")
def test_of_the_words_on_a_consent_the_newest_ten_are_kept_in_whatever_order_they_come() -> None:
    lives = [Life(SHOP), Life(SHOP)]
    for life, days in zip(lives, (range(14), reversed(range(14))), strict=True):
        for day in days:
            state = "denied" if day % 3 else "granted"
            life.event("Consent Changed", START_MS + day * DAY_MS, channel="email", topic="sale", state=state)
    one, other = (life.profile.consents["email:sale"] for life in lives)
    assert one == other
    assert [at_ms for _, at_ms, _, _ in (one[:4], *one.before)] == [START_MS + day * DAY_MS for day in range(13, 3, -1)]


def test_everything_told_is_plain_json_in_an_order_of_its_own() -> None:
    life = full_life()
    now_ms = START_MS + 40 * DAY_MS
    again = decode("user:ana", encode(life.profile))
    for told in (describe, timeline, explain_all):
        text = json.dumps(told(life.profile, SHOP, now_ms))
        assert text == json.dumps(told(again, SHOP, now_ms))


def full_life() -> Life:
    """A profile with something in every part."""
    life = Life(SHOP)
    life.event("Identify", START_MS, traits={"email": "ana@shop.example", "address": {"city": "Riga"}, "children": 2})
    life.event("Signed Up", START_MS + 1, traits={})
    life.event("Consent Changed", START_MS + 2, channel="email", topic="sale", state="granted")
    bought(life, START_MS + DAY_MS, "o1", 40, quantity=4)
    bought(life, START_MS + 20 * DAY_MS, "o2", 10.01)
    life.event("Order Refunded", START_MS + 21 * DAY_MS, order_id="o2", amount=5, currency="EUR")
    put_in_cart(life, START_MS + 30 * DAY_MS, cart_id="c1")
    life.profile.links["anon:1"] = (START_MS, "m")
    return life


def test_describe_tells_every_part_of_a_profile() -> None:
    life = full_life()
    now_ms = START_MS + 30 * DAY_MS + MINUTE_MS
    told = describe(life.profile, SHOP, now_ms)
    assert told["address"] == "user:ana"
    assert told["as_of"] == iso(now_ms)
    assert told["first_seen"] == iso(START_MS)
    assert told["last_input"] == iso(START_MS + 30 * DAY_MS)
    assert told["traits"]["revenue"] == {"minor": 4501, "currency": "EUR", "amount": "45.01"}
    assert told["traits"]["last_order_at"] == iso(START_MS + 20 * DAY_MS)
    assert told["traits"]["registered_at"] == iso(START_MS + 1)
    assert told["traits"]["rfm.cell"] == 521
    assert told["said"]["address.city"] == {"value": "Riga", "at": iso(START_MS), "source": "site"}
    assert told["said"]["registered_at"]["value"] == iso(START_MS + 1)
    assert told["consents"] == [
        {
            "channel": "email",
            "topic": "sale",
            "state": "granted",
            "at": iso(START_MS + 2),
            "source": "site",
            "text": None,
            "before": [],
        }
    ]
    (cart,) = told["carts"]
    assert (cart["cart_id"], cart["quantity"], cart["total"]["amount"]) == ("c1", 2, "25.00")
    assert cart["items"] == [{"price": "12.50", "product_id": "food", "quantity": 2}]
    assert told["session"] == {
        "started_at": iso(START_MS + 30 * DAY_MS),
        "last_at": iso(START_MS + 30 * DAY_MS),
        "ends_at": iso(START_MS + 30 * DAY_MS + 30 * MINUTE_MS),
        "counts": {"product_added": 1},
    }
    newest, oldest = told["orders"]
    assert (newest["order_id"], newest["counts"], newest["refunds"][0]["amount"]["amount"]) == ("o2", True, "5.00")
    assert list(oldest["statuses"].items()) == [("placed", iso(START_MS + DAY_MS)), ("paid", iso(START_MS + DAY_MS))]
    assert oldest["lines"][0]["amount"]["minor"] == 4000
    journeys = {one["trigger"]: one for one in told["journeys"]}
    assert journeys["abandoned_cart"]["next"] == {"step": "1", "template": "cart_1"}
    assert journeys["abandoned_cart"]["due_at"] == iso(START_MS + 30 * DAY_MS + 2 * HOUR_MS)
    assert {"segment": "cart_open", "since": iso(START_MS + 30 * DAY_MS)} in told["segments"]
    assert told["alarm"] == iso(START_MS + 30 * DAY_MS + 30 * MINUTE_MS)
    assert told["links"] == [{"address": "anon:1", "linked_at": iso(START_MS)}]


def test_a_timeline_tells_what_the_profile_still_knows_newest_first() -> None:
    life = full_life()
    told = timeline(life.profile, SHOP, START_MS + 30 * DAY_MS + MINUTE_MS)
    assert [one["at"] for one in told] == sorted((one["at"] for one in told), reverse=True)
    assert {one["what"] for one in told} == {
        "first_seen", "order", "refund", "said", "consent", "entered", "journey", "session", "linked",
    }  # fmt: skip
    refund = next(one for one in told if one["what"] == "refund")
    assert (refund["order_id"], refund["amount"]["amount"]) == ("o2", "5.00")


# --- the law ------------------------------------------------------------------------------------------------------

GAPS = st.one_of(
    st.sampled_from([0, 1, MINUTE_MS, 30 * MINUTE_MS, 2 * HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 365 * DAY_MS]),
    st.integers(0, 3 * HOUR_MS),
    st.integers(0, 120 * DAY_MS),
)
KINDS = st.sampled_from(
    ("page", "view", "view", "add", "remove", "order", "order", "refund", "cancel", "identify", "register")
)
HISTORIES = st.lists(st.tuples(GAPS, KINDS, st.integers(1, 400)), min_size=1, max_size=25)


def played(history: list[tuple[int, str, int]]) -> tuple[Life, int]:
    life = Life(SHOP)
    at_ms = START_MS
    orders: list[str] = []
    life.event("page", at_ms, path="/")
    for gap_ms, kind, number in history:
        at_ms += gap_ms
        if kind == "page":
            life.event("page", at_ms, path="/")
        elif kind == "view":
            life.event("Product Viewed", at_ms, product_id=f"p{number % 3}")
        elif kind == "add":
            put_in_cart(life, at_ms, f"p{number % 3}")
        elif kind == "remove":
            life.event("Product Removed", at_ms, product_id=f"p{number % 3}")
        elif kind == "order":
            orders.append(f"o{len(orders)}")
            bought(life, at_ms, orders[-1], number, f"p{number % 3}")
        elif kind == "refund" and orders:
            life.event("Order Refunded", at_ms, order_id=orders[number % len(orders)], amount=1, currency="EUR")
        elif kind == "cancel" and orders:
            life.event("Order Cancelled", at_ms, order_id=orders[number % len(orders)])
        elif kind == "identify":
            life.event("Identify", at_ms, traits={"city": f"c{number}"})
        elif kind == "register":
            life.event("Signed Up", at_ms)
    return life, at_ms


def judged_afresh(profile: Profile, at_ms: int) -> dict[str, bool]:
    """All segments from nothing but what happened: no membership and no segment's timer is taken over."""
    copy = decode(profile.address, encode(profile))
    step(copy, Wake(at_ms, backfill=True), SHOP)
    copy.members.clear()
    for segment in SHOP.segments:
        if segment.judge(copy, at_ms)[0]:
            copy.members[segment.id] = at_ms
    return {segment.name: segment.id in copy.members for segment in SHOP.segments}


@pytest.mark.mechanic("D3")
@pytest.mark.invariant("R19")
@settings(max_examples=120, deadline=None)
@given(HISTORIES, GAPS, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_answer_flips_at_changes_at_and_not_before(
    history: list[tuple[int, str, int]], later_ms: int, places: list[float]
) -> None:
    life, at_ms = played(history)
    now_ms = at_ms + later_ms
    told = {one["segment"]: one for one in explain_all(life.profile, SHOP, now_ms)}
    assert {name: one["holds"] for name, one in told.items()} == judged_afresh(life.profile, now_ms)
    alone = {name: explain(life.profile, name, SHOP, now_ms) for name in told}
    assert alone == told, "a segment's explanation does not depend on what else was asked"
    life.wait_until(now_ms)
    assert [name for name in sorted(told) if told[name]["holds"]] == life.members()
    for name, one in told.items():
        assert one["looked_until"] is None
        if one["changes_at"] is None:
            for days in (1, 100, 400, 4_000):
                assert judged_afresh(life.profile, now_ms + days * DAY_MS)[name] == one["holds"], (name, days)
            continue
        flips_ms = parse_instant(one["changes_at"])
        assert flips_ms > now_ms
        for place in (0.0, *places):
            before_ms = now_ms + int((flips_ms - 1 - now_ms) * place)
            assert judged_afresh(life.profile, before_ms)[name] == one["holds"], (name, iso(before_ms))
        assert judged_afresh(life.profile, flips_ms - 1)[name] == one["holds"], name
        assert judged_afresh(life.profile, flips_ms)[name] != one["holds"], name
    # The live way, wake by wake, agrees on the first change of all.
    flips = [parse_instant(one["changes_at"]) for one in told.values() if one["changes_at"] is not None]
    if flips:
        before = life.members()
        life.wait_until(min(flips) - 1)
        assert life.members() == before
        life.wait_until(min(flips))
        assert life.members() != before


@settings(max_examples=60, deadline=None)
@given(HISTORIES, GAPS, st.floats(0, 1))
def test_no_node_changes_by_time_alone_before_its_until(
    history: list[tuple[int, str, int]], later_ms: int, place: float
) -> None:
    life, at_ms = played(history)
    now_ms = at_ms + later_ms
    for name in NAMES:
        told = explain(life.profile, name, SHOP, now_ms)
        for path, node in nodes(told["rule"]):
            until_ms = parse_instant(node["until"]) if node["until"] else now_ms + 1_000 * DAY_MS
            assert until_ms > now_ms
            then_ms = now_ms + int((until_ms - 1 - now_ms) * place)
            later = dict(nodes(explain(life.profile, name, SHOP, then_ms)["rule"]))
            assert later[path]["holds"] == node["holds"], (name, path, iso(then_ms))


def nodes(node: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, node)]
    for number, child in enumerate(node["children"]):
        found += nodes(child, f"{path}/{number}")
    if node["segment"] is not None and node["segment"]["rule"] is not None:
        found += nodes(node["segment"]["rule"], f"{path}/@{node['segment']['segment']}")
    return found


def test_as_of_an_instant_before_the_last_input_is_as_of_that() -> None:
    life = Life(SHOP)
    bought(life, START_MS, "o1", 10)
    assert as_of(life.profile, SHOP, START_MS - DAY_MS).seen_ms == START_MS


@pytest.mark.mechanic("D3")
def test_what_is_kept_of_a_past_period_is_named_and_of_a_plain_count_only_the_number() -> None:
    rulebook = rules_of(
        """
        segments:
          it:
            all:
              - {did: product_viewed, window: {calendar: this_month}, distinct: {field: product_id, gte: 2}}
              - {did: product_viewed, window: {calendar: last_month}, distinct: {field: product_id, gte: 2}}
              - {did: product_viewed, last: {field: product_id, eq: drill}}
              - {did: product_viewed, window: {calendar: last_month}, times: {gte: 1}}
        """
    )
    life = Life(rulebook)
    life.event("Product Viewed", START_MS, product_id="saw")
    life.event("Product Viewed", START_MS + MINUTE_MS, product_id="drill")
    told = explain(life.profile, "it", rulebook, START_MS + 31 * DAY_MS)
    _, viewed, last, count = told["rule"]["children"]
    drill, saw = ({"at": iso(START_MS + n * MINUTE_MS), "product_id": one} for n, one in ((1, "drill"), (0, "saw")))
    assert viewed["events"] == [drill, saw]
    assert last["events"] == [drill]
    assert (count["value"], count["events"]) == (2, [])
