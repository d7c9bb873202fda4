"""What became of messages, on every channel: sent, delivered, opened, clicked, bounced, complained of.

``machine`` says who acted: ``False`` a person, ``True`` or a class (``prefetch``, ``scanner``) a machine; absent,
nobody has judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profiles import consent
from profiles.changes import nothing
from profiles.payloads import Id, Payload, Text, named
from profiles.spec import EventType, Example
from profiles.wire import EMAIL_EVENTS

_HARD = frozenset(("hard", "permanent", "undeliverable", "bounce", "invalid", "blacklist", "suppressed"))
_SOFT = frozenset(("soft", "transient", "temporary", "deferred", "blocked", "undetermined", "full"))


class Message(Payload):
    """One message, by the sender's id of the delivery or by our trigger id."""

    channel: str = "email"
    delivery_id: Id | None = named("delivery_id", "deliveryId", "email_id", "message_id", "sms_id", "push_id")
    trigger_id: Id | None = named("trigger_id", "triggerId")
    campaign: Text = named("campaign", "campaign_name", "campaign_id")
    topic: Text = None
    variant: Text = None
    url: Text = named("url", "link_url", "link")
    machine: bool | str | None = named("machine", "bot", "is_machine")


class Bounce(Message):
    """``hard`` closes the channel; absent where the sender does not say which kind it was."""

    bounce: Text = named("bounce", "bounce_type", "bounce_class", "type")
    hard: bool | None = None
    reason: Text = named("reason", "description", "error")

    def finish(self) -> None:
        """Tell hard from soft by the sender's word."""
        super().finish()
        if self.hard is None and self.bounce is not None:
            words = self.bounce.lower().replace("-", " ").replace("_", " ").split()
            if any(word in _SOFT for word in words):
                self.__dict__["hard"] = False
            elif any(word in _HARD for word in words):
                self.__dict__["hard"] = True


def _of_channel(base: type[Message], channel: str) -> type[Message]:
    """The payload with that channel in it: the event's name says it, so the sender need not."""
    name = f"{channel.capitalize()}{base.__name__}"
    return type(name, (base,), {"__annotations__": {"channel": str}, "channel": channel, "__module__": __name__,
                                "__doc__": base.__doc__})  # fmt: skip


def _types(channel: str, aliases: dict[str, tuple[str, ...]]) -> list[EventType]:
    message, bounce = _of_channel(Message, channel), _of_channel(Bounce, channel)
    kinds: tuple[tuple[str, str, type[Message], Callable[[Any, Any], None]], ...] = (
        ("sent", "was sent", message, nothing),
        ("delivered", "was delivered", message, nothing),
        ("opened", "was opened", message, nothing),
        ("link_clicked", "was clicked", message, nothing),
        ("bounced", "bounced", bounce, consent.bounced),
        ("marked_as_spam", "was marked as spam", message, consent.complained),
    )
    example = Example(
        raw={"delivery_id": "d1", "campaign_name": "autumn", "machine": False},
        props={"channel": channel, "delivery_id": "d1", "campaign": "autumn", "machine": False},
    )
    hard = Example(
        raw={"delivery_id": "d1", "bounce_type": "HardBounce", "type": "x"} | {"bounce": "hard"},
        props={
            "channel": channel, "delivery_id": "d1", "bounce": "hard", "hard": True, "bounce_type": "HardBounce", "type": "x",
        },
    )  # fmt: skip
    return [
        EventType(
            name=f"{channel}_{kind}",
            topic=EMAIL_EVENTS,
            says=f"a message by {channel} {says}",
            payload=payload,
            change=change,
            aliases=aliases.get(kind, ()),
            activity=kind == "link_clicked",
            examples=(hard,) if payload is bounce else (example,),
        )
        for kind, says, payload, change in kinds
    ]


SPEC = (
    *_types(
        "email",
        {
            "delivered": ("received email",),
            "opened": ("email open", "opened email"),
            "link_clicked": ("email clicked", "clicked email", "email click"),
            "bounced": ("email bounce", "bounced email"),
            "marked_as_spam": ("spam complaint", "marked email as spam", "email complained"),
        },
    ),
    *_types("sms", {"link_clicked": ("sms clicked", "clicked sms"), "bounced": ("sms failed", "sms undelivered")}),
    *_types(
        "push",
        {
            "sent": ("push notification sent",),
            "delivered": ("push notification received",),
            "opened": ("push notification tapped", "push tapped"),
            "link_clicked": ("push clicked",),
            "bounced": ("push notification bounced", "push failed"),
        },
    ),
)
