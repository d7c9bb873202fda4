"""Event types: names in any spelling, payloads in Segment's or GA4's words, and what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import BadInput
from profiles.payloads import DEPTH_MAX, EXTRA_KEYS_MAX, TEXT_CHARS_MAX
from profiles.spec import EventType, Example
from profiles.state import STATUSES, Profile
from profiles.taxonomy import EVENT_TYPES, canonical, resolve, snake
from profiles.wire import EVENT_TOPICS, Event, decode_event, encode_event

NOW_MS = 1_790_000_000_000

EXAMPLES = [
    pytest.param(one, example, id=f"{one.name}-{number}")
    for one in EVENT_TYPES.values()
    for number, example in enumerate(one.examples)
]

# SPEC 4.2, row by row: the canonical name, and the names that others have for it.
TAXONOMY = {
    "page_viewed": ["page_view", "Page Viewed", "page", "screen"],
    "products_searched": ["Products Searched", "search"],
    "product_list_viewed": ["Product List Viewed", "view_item_list", "ViewCategory"],
    "product_clicked": ["Product Clicked", "select_item"],
    "product_viewed": ["Product Viewed", "view_item", "ViewProduct"],
    "product_added": ["Product Added", "add_to_cart", "AddToCart", "Added to Cart"],
    "product_removed": ["Product Removed", "remove_from_cart"],
    "cart_viewed": ["Cart Viewed", "view_cart"],
    "cart_set": ["SetCart"],
    "checkout_started": ["Checkout Started", "begin_checkout"],
    "checkout_step_completed": ["Checkout Step Completed", "add_shipping_info"],
    "payment_info_entered": ["Payment Info Entered", "add_payment_info"],
    "order_completed": ["Order Completed", "purchase", "Placed Order"],
    "order_updated": ["Order Updated"],
    "order_status_changed": ["Order Status Changed"],
    "order_refunded": ["Order Refunded", "refund"],
    "order_cancelled": ["Order Cancelled", "Order Canceled"],
    "coupon_entered": ["Coupon Entered"],
    "coupon_applied": ["Coupon Applied"],
    "coupon_denied": ["Coupon Denied"],
    "coupon_removed": ["Coupon Removed"],
    "coupon_issued": [],
    "coupon_redeemed": [],
    "coupon_expired": [],
    "product_added_to_wishlist": ["Product Added to Wishlist", "add_to_wishlist"],
    "product_removed_from_wishlist": ["Product Removed from Wishlist"],
    "wishlist_product_added_to_cart": ["Wishlist Product Added to Cart"],
    "promotion_viewed": ["Promotion Viewed", "view_promotion"],
    "promotion_clicked": ["Promotion Clicked", "select_promotion"],
    "product_reviewed": ["Product Reviewed"],
    "product_shared": ["Product Shared", "share"],
    "cart_shared": ["Cart Shared"],
    "registered": ["Signed Up", "sign_up"],
    "logged_in": ["Signed In", "login"],
    "identified": ["identify"],
    "form_submitted": ["generate_lead"],
    "survey_answered": [],
    "goal_reached": [],
    "consent_changed": [],
    "unsubscribed": ["Unsubscribed", "Unsubscribe"],
    "email_sent": [],
    "email_delivered": ["Email Delivered"],
    "email_opened": ["Email Opened"],
    "email_link_clicked": ["Email Link Clicked"],
    "email_bounced": ["Email Bounced"],
    "email_marked_as_spam": ["Email Marked as Spam"],
    "sms_sent": [],
    "sms_delivered": [],
    "sms_link_clicked": [],
    "sms_bounced": [],
    "push_sent": [],
    "push_delivered": ["Push Notification Received"],
    "push_opened": ["Push Notification Tapped"],
    "push_bounced": ["Push Notification Bounced"],
    "receipt_registered": [],
    "product_updated": [],
    "price_dropped": [],
    "back_in_stock": [],
    "product_arrived": [],
    "contact_logged": [],
    "referral_linked": [],
    "session_started": ["session_start"],
    "session_ended": [],
}


def event_of(one: EventType, props: dict[str, Any]) -> Event:
    return Event("m1", "test", one.name, NOW_MS, NOW_MS, "user:1", props=props)


@pytest.mark.parametrize(("one", "example"), EXAMPLES)
def test_an_example_becomes_what_it_says(one: EventType, example: Example) -> None:
    assert canonical(one, example.raw) == example.props


@pytest.mark.parametrize(("one", "example"), EXAMPLES)
def test_a_canonical_payload_read_again_is_the_same(one: EventType, example: Example) -> None:
    assert canonical(one, example.props) == example.props


@pytest.mark.parametrize(("one", "example"), EXAMPLES)
def test_a_canonical_payload_survives_the_wire_and_changes_a_profile(one: EventType, example: Example) -> None:
    event = decode_event(encode_event(event_of(one, example.props)))
    assert event.props == example.props
    one.change(Profile("user:1"), event)


@pytest.mark.parametrize("one", EVENT_TYPES.values(), ids=lambda one: one.name)
def test_every_type_says_what_it_is_and_goes_to_a_topic_of_events(one: EventType) -> None:
    assert one.topic in EVENT_TOPICS
    assert one.says
    assert one.examples
    assert one.name == snake(one.name)


@pytest.mark.mechanic("M91")
@pytest.mark.mechanic("M93")
@pytest.mark.parametrize("name", TAXONOMY)
def test_every_name_of_the_taxonomy_resolves(name: str) -> None:
    assert resolve(name) is EVENT_TYPES[name]
    for other in TAXONOMY[name]:
        assert resolve(other) is EVENT_TYPES[name], other


@pytest.mark.parametrize(
    "spelling", ["Product Added", "productAdded", "product-added", "PRODUCT_ADDED", " product.added ", "ProductAdded"]
)
def test_a_name_is_known_in_any_spelling(spelling: str) -> None:
    assert resolve(spelling).name == "product_added"


@pytest.mark.parametrize("one", EVENT_TYPES.values(), ids=lambda one: one.name)
def test_an_alias_is_known_in_any_spelling(one: EventType) -> None:
    for alias in (one.name, *one.aliases):
        for spelling in (alias, alias.upper(), alias.replace("_", " ").title(), alias.replace(" ", "-")):
            assert resolve(spelling) is one, spelling


@pytest.mark.mechanic("M97")
@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("Quiz Finished", "quiz_finished"),
        ("quizFinished", "quiz_finished"),
        ("HTTPProbe", "http_probe"),
        ("Заказ собран", "заказ_собран"),
        ("step 2 done", "step_2_done"),
    ],
)
def test_an_unknown_name_is_a_type_of_its_own_kept_as_sent(name: str, known_as: str) -> None:
    one = resolve(name)
    assert (one.name, one.topic, one.activity) == (known_as, "customer_events", True)
    assert canonical(one, {"a": 1, "b": {"c": ["x"]}, "gone": None}) == {"a": 1, "b": {"c": ["x"]}}


@pytest.mark.parametrize("name", ["", "  ", "!!!", "x" * 101])
def test_a_name_that_names_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        resolve(name)
    assert refused.value.reason == "bad_name"


@pytest.mark.parametrize(
    ("name", "sent", "told"),
    [
        (
            "order_completed",
            {"order_id": "1", "total": 5},
            "order_completed: currency: an ISO 4217 currency like EUR wanted, got nothing",
        ),
        (
            "order_completed",
            {"order_id": "1", "total": 5, "currency": "euros"},
            "order_completed: currency: an ISO 4217 currency like EUR wanted, got text",
        ),
        (
            "order_completed",
            {"total": 5, "currency": "EUR"},
            "order_completed: order_id: a value wanted, got nothing",
        ),
        (
            "order_completed",
            {"order_id": "1", "total": "five", "currency": "EUR"},
            "order_completed: total: an amount like 12.50, got other text",
        ),
        (
            "order_completed",
            {"order_id": "1", "currency": "EUR"},
            "order_completed: total: an amount (total, revenue, value) or items all with a price wanted, got neither",
        ),
        (
            "order_completed",
            {"order_id": "1", "currency": "EUR", "total": -1},
            "order_completed: total: an amount of 0 or more wanted, got a negative one",
        ),
        (
            "order_completed",
            {"order_id": "1", "currency": "EUR", "items": [{"product_id": "a", "price": "x"}]},
            "order_completed: items.0: price: an amount like 12.50, got other text",
        ),
        (
            "order_completed",
            {"order_id": "1", "currency": "EUR", "items": "a"},
            "order_completed: items: a list wanted, got text",
        ),
        (
            "order_status_changed",
            {"order_id": "1", "to": "lost"},
            f"order_status_changed: to: one of {', '.join(STATUSES)} wanted, got other text",
        ),
        (
            "order_refunded",
            {"order_id": "1", "amount": 3},
            "order_refunded: currency: an ISO 4217 currency like EUR wanted beside an amount, got nothing",
        ),
        ("product_added", {"quantity": 1}, "product_added: items.0.product_id: a value wanted, got nothing"),
        ("product_added", {"items": []}, "product_added: items: a product wanted, got none"),
        (
            "product_added",
            {"product_id": "a", "quantity": -1},
            "product_added: items.0: quantity: from 0 to 1000000 wanted, got one outside",
        ),
        ("cart_set", {}, "cart_set: items: a value wanted, got nothing"),
        (
            "consent_changed",
            {"channel": "email", "state": "perhaps"},
            "consent_changed: state: 'granted' or 'denied' wanted, got text",
        ),
        (
            "receipt_registered",
            {"totalSum": 100, "fn": "1"},
            "receipt_registered: fiscalDriveNumber, fiscalDocumentNumber and fiscalSign: all three wanted, got fewer",
        ),
    ],
)
def test_a_bad_payload_is_told_by_field_wanted_and_found(name: str, sent: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput) as refused:
        canonical(resolve(name), sent)
    assert (refused.value.reason, str(refused.value)) == ("invalid_payload", told)


def test_all_mistakes_of_a_payload_come_together() -> None:
    with pytest.raises(BadInput) as refused:
        canonical(resolve("order_completed"), {"total": "x"})
    for field in ("order_id", "currency", "total"):
        assert field in str(refused.value)


SECRET = "ana@example.org"


@pytest.mark.invariant("R25")
@pytest.mark.parametrize("one", EVENT_TYPES.values(), ids=lambda one: one.name)
def test_no_error_tells_a_value(one: EventType) -> None:
    fields = [name for field in one.payload.model_fields.values() for name in _names(field.validation_alias)]
    wrong: tuple[Any, ...] = (SECRET, [SECRET], {SECRET: SECRET})
    for value in wrong:
        try:
            canonical(
                one, dict.fromkeys([*fields, *one.payload.model_fields, "price", "quantity", "product_id"], value)
            )
            told = ""
        except BadInput as refused:
            told = str(refused)
        assert SECRET not in told


def _names(alias: Any) -> list[str]:
    return [name for name in getattr(alias, "choices", ()) if isinstance(name, str)]


def test_the_total_of_an_order_is_the_first_of_what_was_said() -> None:
    one = resolve("order_completed")
    sent: dict[str, Any] = {
        "order_id": "1",
        "currency": "EUR",
        "total": 107,
        "revenue": 100,
        "shipping": 5,
        "tax": 2.5,
        "value": 99,
        "items": [{"product_id": "a", "price": 49.99, "quantity": 2}],
    }
    for total_minor, total_from in ((10_700, "total"), (10_750, "revenue"), (9_900, "value"), (9_998, "items")):
        props = canonical(one, sent)
        assert (props["total_minor"], props["total_from"]) == (total_minor, total_from)
        del sent[total_from]


def test_an_order_is_paid_unless_it_says_less() -> None:
    sent = {"order_id": "1", "currency": "EUR", "total": 1}
    assert canonical(resolve("order_completed"), sent)["status"] == "paid"
    for status in STATUSES:
        assert canonical(resolve("order_completed"), {**sent, "status": status.title()})["status"] == status


@pytest.mark.parametrize(("currency", "minor"), [("EUR", 1_235), ("JPY", 12), ("KWD", 12_346)])
def test_an_amount_becomes_minor_units_of_its_currency(currency: str, minor: int) -> None:
    props = canonical(resolve("purchase"), {"transaction_id": "t", "value": "12.3456", "currency": currency.lower()})
    assert (props["total_minor"], props["currency"]) == (minor, currency)


def test_float_money_is_read_by_what_was_written() -> None:
    props = canonical(
        resolve("purchase"), {"order_id": "t", "currency": "EUR", "items": [{"id": "a", "price": 0.1, "quantity": 3}]}
    )
    assert props["total_minor"] == 30
    assert props["items"][0]["price_e6"] == 100_000


def test_what_is_sold_by_weight_is_one_piece_of_that_measure() -> None:
    props = canonical(
        resolve("purchase"),
        {"order_id": "t", "currency": "RUB", "items": [{"id": "cheese", "price": 600, "quantity": 0.258}]},
    )
    assert props["items"] == [
        {"product_id": "cheese", "quantity": 1, "price_e6": 154_800_000, "measure": "0.258", "amount_minor": 15_480}
    ]


def test_a_line_of_no_pieces_is_no_line() -> None:
    items = [{"product_id": "a", "quantity": 0}, {"product_id": "b", "quantity": 2}]
    assert canonical(resolve("cart_set"), {"items": items}) == {"items": [{"product_id": "b", "quantity": 2}]}


def test_what_only_describes_never_refuses() -> None:
    props = canonical(
        resolve("product_viewed"),
        {"product_id": "a", "name": 7, "brand": {"name": "Bosch"}, "category": ["Tools", "Drills"], "image_url": False},
    )
    assert props["items"] == [
        {"product_id": "a", "quantity": 1, "name": "7", "brand": "Bosch", "category": "Tools/Drills"}
    ]


@pytest.mark.parametrize("sent", ["Tools > Drills", "Tools / Drills", "Tools/Drills/", ["Tools", "Drills"]])
def test_a_category_is_a_path_however_it_is_written(sent: Any) -> None:
    props = canonical(resolve("product_viewed"), {"product_id": "a", "category": sent})
    assert props["items"][0]["category"] == "Tools/Drills"


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_empty_are_absent(absent: Any) -> None:
    sent = {"order_id": absent, "transaction_id": "t", "currency": "EUR", "total": 1, "coupon": absent}
    props = canonical(resolve("order_completed"), sent)
    assert props["order_id"] == "t"
    assert "coupon" not in props


def test_unknown_properties_stay_under_their_own_names_within_bounds() -> None:
    deep = {"a": {"b": {"c": {"d": 1}}}, "e": 1}
    sent = {
        "path": "/",
        "color": "red",
        "long": "x" * 900,
        "deep": deep,
        "big": 1 << 70,
        "not_a_number": float("nan"),
        "k" * 101: 1,
        "items": "smuggled",
        **{f"more_{n}": n for n in range(60)},
    }
    props = canonical(resolve("page"), sent)
    assert props["color"] == "red"
    assert props["long"] == "x" * TEXT_CHARS_MAX
    assert props["deep"] == {"e": 1}
    assert not {"big", "not_a_number", "k" * 101, "items"} & set(props)
    assert len(props) <= EXTRA_KEYS_MAX + 1
    assert "more_0" in props
    assert "more_59" not in props


WORDS = st.sampled_from(["", "a", "EUR", "9.5", "-3", "paid", "2026-11-22T15:04:05Z", "Tools > Drills", "é" * 600])
ONE = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
JSON = ONE | st.lists(ONE, max_size=3) | st.dictionaries(WORDS, ONE | st.lists(ONE, max_size=2), max_size=3)
FIELDS = sorted(
    {name for one in EVENT_TYPES.values() for field in one.payload.model_fields.values() for name in _names(field.validation_alias)}
    | {name for one in EVENT_TYPES.values() for name in one.payload.model_fields}
    | {"product_id", "price", "quantity", "item_category", "name", "color"}
)  # fmt: skip
ITEMS = st.lists(
    st.dictionaries(st.sampled_from(["product_id", "item_id", "price", "quantity", "name", "amount", "color"]), JSON), max_size=3
)  # fmt: skip
SENT = st.dictionaries(st.sampled_from(FIELDS), JSON | ITEMS, max_size=10)


@pytest.mark.invariant("R26")
@given(one=st.sampled_from(sorted(EVENT_TYPES.values(), key=lambda one: one.name)), sent=SENT)
def test_whatever_is_sent_is_refused_or_becomes_a_bounded_payload_that_reads_back(
    one: EventType, sent: dict[str, Any]
) -> None:
    try:
        props = canonical(one, sent)
    except BadInput:
        return
    assert orjson.loads(orjson.dumps(props)) == props
    assert canonical(one, props) == props
    assert _depth(props) <= DEPTH_MAX + 2  # ``items`` adds a list and an object.
    for item in props.get("items") or ():
        assert isinstance(item["product_id"], str)
        assert item.get("quantity", 1) >= 1
        assert item.get("price_e6", 0) >= 0
        assert "price" not in item
    one.change(Profile("user:1"), event_of(one, props))


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
