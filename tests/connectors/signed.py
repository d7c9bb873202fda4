"""Deliveries of webhooks as their products sign them: the recorded samples, and bodies of our own."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SAMPLES: Final = Path(__file__).parents[1] / "data" / "webhooks"
HUSH: Final = "hush"
"""The secret by which the samples of Shopify are signed."""

DROPPED_MS: Final = 1_600_112_502_000
"""When SendGrid signed the recorded delivery."""


@dataclass(frozen=True)
class Delivery:
    """One request of a webhook."""

    headers: dict[str, str]
    body: bytes

    def lower(self) -> dict[str, str]:
        """Its headers as a server gives them."""
        return {name.lower(): value for name, value in self.headers.items()}


class SendGrid:
    """SendGrid with a key of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.public = b64encode(public).decode()

    def tells(self, at_ms: int, *events: dict[str, Any], body: bytes | None = None) -> Delivery:
        """Signed at that instant."""
        sent = orjson.dumps(events) + b"\r\n" if body is None else body
        told = str(at_ms // 1000)
        signature = self._key.sign(told.encode() + sent, ec.ECDSA(SHA256()))
        return Delivery(
            {
                "X-Twilio-Email-Event-Webhook-Signature": b64encode(signature).decode(),
                "X-Twilio-Email-Event-Webhook-Timestamp": told,
            },
            sent,
        )


def of_shopify(topic: str, body: dict[str, Any] | bytes, event: str = "", secret: str = HUSH) -> Delivery:
    """Shopify tells of that topic."""
    sent = body if isinstance(body, bytes) else orjson.dumps(body)
    signature = b64encode(hmac.digest(secret.encode(), sent, hashlib.sha256)).decode()
    ids = {"X-Shopify-Webhook-Id": f"webhook-{event}", "X-Shopify-Event-Id": event} if event else {}
    return Delivery({"X-Shopify-Topic": topic, "X-Shopify-Hmac-SHA256": signature, **ids}, sent)


def sample(name: str) -> Delivery:
    """A recorded delivery of Shopify's."""
    folder = SAMPLES / "shopify"
    headers = json.loads((folder / f"{name}.headers.json").read_text())
    return Delivery(headers, (folder / f"{name}.body.json").read_bytes())


def dropped() -> tuple[str, Delivery]:
    """The recorded delivery of SendGrid's, and the key that it is signed by."""
    folder = SAMPLES / "sendgrid"
    headers = json.loads((folder / "signed_dropped.headers.json").read_text())
    key = (folder / "signed_dropped.public_key.txt").read_text().strip()
    return key, Delivery(headers, (folder / "signed_dropped.body").read_bytes())
