"""Whatever a site or a back end calls by a name of its own: kept as sent, for rules to count and filter.

One spec stands for all such names: ``taxonomy.resolve`` gives each a copy under its snake-case name.
"""

from profiles.changes import nothing
from profiles.payloads import AnyPayload
from profiles.spec import EventType, Example
from profiles.wire import CUSTOMER_EVENTS

SPEC = EventType(
    name="any_other",
    topic=CUSTOMER_EVENTS,
    says="an event of the shop's own naming, kept as sent",
    payload=AnyPayload,
    change=nothing,
    activity=True,
    examples=(
        Example(
            raw={"quiz": "tools", "score": 7, "passed": True, "step": None, "answers": ["a", "b"]},
            props={"quiz": "tools", "score": 7, "passed": True, "answers": ["a", "b"]},
        ),
    ),
)
