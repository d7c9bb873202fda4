"""A product's page was seen, or the product was chosen from a list."""

from profiles.changes import nothing
from profiles.payloads import ProductPayload
from profiles.spec import EventType, Example
from profiles.wire import PAGE_VIEWS

_DRILL = {"product_id": "d-18", "quantity": 1, "price_e6": 129_900_000, "category": "tools/drills", "name": "Drill"}

SPEC = (
    EventType(
        name="product_viewed",
        topic=PAGE_VIEWS,
        says="a product's page was seen",
        payload=ProductPayload,
        change=nothing,
        aliases=("view_item", "viewed product", "ViewProduct", "Website.ViewProduct", "product page viewed"),
        activity=True,
        examples=(
            Example(
                raw={
                    "product_id": "d-18",
                    "name": "Drill",
                    "category": "tools/drills",
                    "price": 129.9,
                    "currency": "eur",
                    "color": "red",
                },
                props={"currency": "EUR", "color": "red", "items": [_DRILL]},
            ),
            Example(
                raw={
                    "currency": "EUR",
                    "value": 129.9,
                    "items": [
                        {
                            "item_id": "d-18",
                            "item_name": "Drill",
                            "item_category": "tools",
                            "item_category2": "drills",
                            "price": 129.9,
                        }
                    ],
                },
                props={"currency": "EUR", "value_minor": 12_990, "items": [_DRILL]},
            ),
        ),
    ),
    EventType(
        name="product_clicked",
        topic=PAGE_VIEWS,
        says="a product was chosen from a list",
        payload=ProductPayload,
        change=nothing,
        aliases=("select_item", "clicked product"),
        activity=True,
        examples=(
            Example(
                raw={"product_id": "d-18", "list_id": "sale", "position": 3},
                props={"list_id": "sale", "position": 3, "items": [{"product_id": "d-18", "quantity": 1}]},
            ),
        ),
    ),
)
