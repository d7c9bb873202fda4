"""Names that the engine itself gives to what it finds; taken from outside they count like any event, and no more.

A site that measures sessions or goals of its own may send them; our own sessions and goals stand on the events.
"""

from __future__ import annotations

from profiles.changes import nothing
from profiles.payloads import AnyPayload, Id, Payload, ProductPayload, Text, named
from profiles.spec import EventType, Example
from profiles.wire import CUSTOMER_EVENTS, PAGE_VIEWS


class GoalReached(Payload):
    """Which goal."""

    goal: Id = named("goal", "goal_id", "name", required=True)


class ProductNews(ProductPayload):
    """News of a product: what was, what is."""

    old: Text = named("old", "old_price", "before")
    new: Text = named("new", "new_price", "after")


SPEC = (
    EventType(
        name="goal_reached",
        topic=CUSTOMER_EVENTS,
        says="a goal was reached",
        payload=GoalReached,
        change=nothing,
        aliases=("key_event", "conversion"),
        examples=(Example(raw={"goal": "subscribe"}, props={"goal": "subscribe"}),),
    ),
    *(
        EventType(
            name=name,
            topic=PAGE_VIEWS,
            says=says,
            payload=AnyPayload,
            change=nothing,
            aliases=(alias,),
            examples=(Example(raw={"pages": 3}, props={"pages": 3}),),
        )
        for name, says, alias in (
            ("session_started", "a visit began", "session_start"),
            ("session_ended", "a visit ended", "session_end"),
        )
    ),
    *(
        EventType(
            name=name,
            topic=CUSTOMER_EVENTS,
            says=says,
            payload=ProductNews,
            change=nothing,
            examples=(
                Example(
                    raw={"product_id": "a", "old": "10", "new": "8"},
                    props={"old": "10", "new": "8", "items": [{"product_id": "a", "quantity": 1}]},
                ),
            ),
        )
        for name, says in (
            ("price_dropped", "a product became cheaper"),
            ("back_in_stock", "a product is to be had again"),
            ("product_arrived", "a product is new in the shop"),
        )
    ),
)
