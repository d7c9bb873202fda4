"""Who a person is: said, registered, logged in, referred."""

from __future__ import annotations

from profiles import people
from profiles.changes import nothing
from profiles.payloads import AnyPayload, Id, Payload, Text, named
from profiles.spec import EventType, Example
from profiles.wire import CUSTOMER_EVENTS


class Method(Payload):
    """How: ``email``, ``google``, a phone code."""

    method: Text = named("method", "type")


class ReferralLinked(Payload):
    """Who brought this person."""

    referrer: Id = named("referrer", "referrer_id", "invited_by", required=True)


SPEC = (
    EventType(
        name="identified",
        topic=CUSTOMER_EVENTS,
        says="traits of a person were stated (they are in the event's traits), or its identifiers were joined",
        payload=AnyPayload,
        change=nothing,
        aliases=("identify", "alias", "profile updated"),
        examples=(Example(raw={}, props={}),),
    ),
    EventType(
        name="registered",
        topic=CUSTOMER_EVENTS,
        says="a person became a registered customer",
        payload=Method,
        change=people.registered,
        aliases=("sign_up", "signed up", "account created", "user registered", "customers_create"),
        activity=True,
        examples=(Example(raw={"method": "email", "plan": "basic"}, props={"method": "email", "plan": "basic"}),),
    ),
    EventType(
        name="logged_in",
        topic=CUSTOMER_EVENTS,
        says="a person logged in",
        payload=Method,
        change=nothing,
        aliases=("login", "signed in", "user logged in"),
        activity=True,
        examples=(Example(raw={"method": "google"}, props={"method": "google"}),),
    ),
    EventType(
        name="logged_out",
        topic=CUSTOMER_EVENTS,
        says="a person logged out",
        payload=Method,
        change=nothing,
        aliases=("logout", "signed out"),
        activity=True,
        examples=(Example(raw={}, props={}),),
    ),
    EventType(
        name="referral_linked",
        topic=CUSTOMER_EVENTS,
        says="a person came by another's referral",
        payload=ReferralLinked,
        change=nothing,
        aliases=("referred",),
        examples=(Example(raw={"referrer_id": 17}, props={"referrer": "17"}),),
    ),
)
