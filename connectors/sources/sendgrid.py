"""SendGrid's Event Webhook: what became of letters. Signed by ECDSA (P-256, SHA-256) over its time and the raw body.

The key is the verification key of its page "Signed Event Webhook": a public key, in base64.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from connectors.spec import Headers, SourceSpec
from profiles.moments import SECOND_MS

SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"


def _key(text: str) -> EllipticCurvePublicKey:
    try:
        key = load_der_public_key(b64decode(text, validate=True))
    except ValueError:
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("the base64 of an elliptic curve's public key wanted, got other text")
    return key


def _is_signed(key: EllipticCurvePublicKey, headers: Headers, body: bytes) -> bool:
    try:
        signature = b64decode(headers[SIGNATURE], validate=True)
        key.verify(signature, headers[TIMESTAMP].encode() + body, ECDSA(SHA256()))
    except (KeyError, ValueError, InvalidSignature):
        return False
    return True


def _signed_ms(headers: Headers) -> int:
    return int(headers[TIMESTAMP]) * SECOND_MS


def _rows(headers: Headers, told: dict[str, Any]) -> list[dict[str, Any]]:
    return [told]


SPEC: Final = SourceSpec(
    name="sendgrid",
    says="SendGrid's Event Webhook: what became of letters",
    keeps=(),
    key=_key,
    is_signed=_is_signed,
    signed_ms=_signed_ms,
    rows=_rows,
)
