"""What a person allows: per channel and topic, with the proof."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from profiles import consent
from profiles.payloads import Id, Payload, Text, named, word
from profiles.spec import EventType, Example
from profiles.wire import CUSTOMER_EVENTS, EMAIL_EVENTS

_SAID = {
    "granted": "granted", "grant": "granted", "yes": "granted", "true": "granted", "subscribed": "granted",
    "opted_in": "granted", "denied": "denied", "deny": "denied", "no": "denied", "false": "denied",
    "unsubscribed": "denied", "opted_out": "denied", "withdrawn": "denied",
}  # fmt: skip


def _state(value: object) -> object:
    return _SAID.get(str(value).strip().lower(), "other") if isinstance(value, str | bool) else value


class ConsentChanged(Payload):
    """``topic`` ``*`` is every topic of the channel; the proof is what was shown and where."""

    channel: Annotated[Id, BeforeValidator(word)] = named("channel", "medium", required=True)
    topic: Annotated[Id, BeforeValidator(word)] = named("topic", "category", "list_id", default="*")
    state: Annotated[Literal["granted", "denied"], BeforeValidator(_state)] = named(
        "state", "status", "consent", "granted", required=True
    )
    text_version: Text = named("text_version", "text", "version")
    proof: Text = None


class Unsubscribed(Payload):
    """Without a topic the whole channel is refused."""

    channel: Annotated[Id, BeforeValidator(word)] = named("channel", "medium", default="email")
    topic: Annotated[Id, BeforeValidator(word)] = named("topic", "list_id", default="*")
    delivery_id: Id | None = named("delivery_id", "message_id", "email_id")
    trigger_id: Id | None = named("trigger_id")
    campaign: Text = named("campaign", "campaign_name", "campaign_id")
    proof: Text = None


SPEC = (
    EventType(
        name="consent_changed",
        topic=CUSTOMER_EVENTS,
        says="a person granted or denied mailing on a channel, for a topic or for all",
        payload=ConsentChanged,
        change=consent.changed,
        aliases=("consent updated", "subscription changed", "preferences changed"),
        examples=(
            Example(
                raw={"channel": "Email", "topic": "sale", "state": True, "text_version": "v4", "form": "checkout"},
                props={
                    "channel": "email",
                    "topic": "sale",
                    "state": "granted",
                    "text_version": "v4",
                    "form": "checkout",
                },
            ),
            Example(
                raw={"channel": "sms", "state": "denied"}, props={"channel": "sms", "topic": "*", "state": "denied"}
            ),
        ),
    ),
    EventType(
        name="unsubscribed",
        topic=EMAIL_EVENTS,
        says="a person unsubscribed, from a topic or from the whole channel",
        payload=Unsubscribed,
        change=consent.unsubscribed,
        aliases=("unsubscribe", "email unsubscribed", "group unsubscribed"),
        examples=(
            Example(raw={"campaign_id": "c1"}, props={"channel": "email", "topic": "*", "campaign": "c1"}),
            Example(
                raw={"list_id": "news", "delivery_id": "d1"},
                props={"channel": "email", "topic": "news", "delivery_id": "d1"},
            ),
        ),
    ),
)
