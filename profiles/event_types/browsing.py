"""Looking round the shop: searches, lists, promotions, the wish list, telling others."""

from __future__ import annotations

from profiles.changes import nothing
from profiles.payloads import Payload, ProductPayload, Text, ValuedPayload, named
from profiles.spec import EventType, Example
from profiles.wire import CART_EVENTS, CUSTOMER_EVENTS, PAGE_VIEWS


class ProductsSearched(Payload):
    """What was looked for."""

    query: Text = named("query", "search_term", "search_string")


class ProductListViewed(ValuedPayload):
    """Which list; ``category`` is what its products have in common."""

    list_id: Text = named("list_id", "item_list_id")
    category: Text = named("category", "item_list_name", "list_name")


class Promotion(ValuedPayload):
    """Which promotion."""

    promotion_id: Text = named("promotion_id", "promotionId", "creative_slot")
    name: Text = named("name", "promotion_name")


class CartShared(ValuedPayload):
    """How it was shared."""

    via: Text = named("via", "share_via", "method")


class ProductShared(ProductPayload):
    """How it was shared."""

    via: Text = named("via", "share_via", "method")


_PRODUCT = (
    Example(
        raw={"product_id": "a", "price": 10, "wishlist": "w1"},
        props={"wishlist": "w1", "items": [{"product_id": "a", "quantity": 1, "price_e6": 10_000_000}]},
    ),
)

SPEC = (
    EventType(
        name="products_searched",
        topic=PAGE_VIEWS,
        says="products were searched for",
        payload=ProductsSearched,
        change=nothing,
        aliases=("search", "view_search_results", "searched products"),
        activity=True,
        examples=(Example(raw={"search_term": "drill", "results": 12}, props={"query": "drill", "results": 12}),),
    ),
    EventType(
        name="product_list_viewed",
        topic=PAGE_VIEWS,
        says="a category or another list of products was seen",
        payload=ProductListViewed,
        change=nothing,
        aliases=("view_item_list", "ViewCategory", "Website.ViewCategory", "category viewed", "product list filtered"),
        activity=True,
        examples=(
            Example(
                raw={"list_id": "l1", "category": "tools", "products": [{"product_id": "a"}]},
                props={"list_id": "l1", "category": "tools", "items": [{"product_id": "a", "quantity": 1}]},
            ),
        ),
    ),
    *(
        EventType(
            name=name,
            topic=PAGE_VIEWS,
            says=says,
            payload=Promotion,
            change=nothing,
            aliases=(alias,),
            activity=True,
            examples=(
                Example(
                    raw={"promotion_id": "p1", "promotion_name": "Sale"}, props={"promotion_id": "p1", "name": "Sale"}
                ),
            ),
        )
        for name, says, alias in (
            ("promotion_viewed", "a promotion was seen", "view_promotion"),
            ("promotion_clicked", "a promotion was followed", "select_promotion"),
        )
    ),
    *(
        EventType(
            name=name,
            topic=CART_EVENTS,
            says=says,
            payload=ProductPayload,
            change=nothing,
            aliases=aliases,
            activity=True,
            examples=_PRODUCT,
        )
        for name, says, aliases in (
            (
                "product_added_to_wishlist",
                "a product was put on the wish list",
                ("add_to_wishlist", "added to wishlist", "AddToWishlist"),
            ),
            (
                "product_removed_from_wishlist",
                "a product was taken off the wish list",
                ("remove_from_wishlist", "removed from wishlist"),
            ),
            (
                "wishlist_product_added_to_cart",
                "a product went from the wish list to the cart; product_added is sent beside it",
                ("wishlist item added to cart",),
            ),
        )
    ),
    EventType(
        name="product_shared",
        topic=CUSTOMER_EVENTS,
        says="a product was shared with others",
        payload=ProductShared,
        change=nothing,
        aliases=("share",),
        activity=True,
        examples=(
            Example(
                raw={"share_via": "email", "product_id": "a"},
                props={"via": "email", "items": [{"product_id": "a", "quantity": 1}]},
            ),
        ),
    ),
    EventType(
        name="cart_shared",
        topic=CART_EVENTS,
        says="a cart was shared with others",
        payload=CartShared,
        change=nothing,
        activity=True,
        examples=(
            Example(
                raw={"share_via": "email", "products": [{"product_id": "a"}]},
                props={"via": "email", "items": [{"product_id": "a", "quantity": 1}]},
            ),
        ),
    ),
)
