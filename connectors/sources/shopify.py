"""Shopify's webhooks: customers, carts, checkouts, orders. Signed by HMAC-SHA256 over the raw body, without a time.

What a delivery is about stands in its headers, which the mapping reads as ``$_topic``, ``$_id`` (the same of every
delivery of one event) and ``$_triggered_at``.

Two things are told inside another. A refund by itself names no customer, but an order tells its refunds along:
each becomes a row of its own, with the order as ``$order`` and the money that went back as ``$_amount``. And a customer who
comes with an account has enabled it.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from typing import Any, Final

from connectors.spec import Headers, SourceSpec
from profiles.moments import DAY_MS, parse_instant
from profiles.money import decimal_of

SIGNATURE: Final = "x-shopify-hmac-sha256"
TOPIC: Final = "x-shopify-topic"
EVENT: Final = "x-shopify-event-id"
WEBHOOK: Final = "x-shopify-webhook-id"
TRIGGERED: Final = "x-shopify-triggered-at"
RETOLD_MS_MAX: Final = DAY_MS
"""An order tells all its refunds with each change; within this a repeat is known by its id, what is older was told before."""


def _key(text: str) -> bytes:
    if not text:
        raise ValueError("the secret by which Shopify signs wanted, got nothing")
    return text.encode()


def _is_signed(key: bytes, headers: Headers, body: bytes) -> bool:
    wanted = b64encode(hmac.digest(key, body, hashlib.sha256))
    return hmac.compare_digest(wanted, headers.get(SIGNATURE, "").encode())


def _signed_ms(headers: Headers) -> None:
    return None


def _rows(headers: Headers, told: dict[str, Any]) -> list[dict[str, Any]]:
    topic = headers.get(TOPIC, "")
    about = {"_id": headers.get(EVENT) or headers.get(WEBHOOK), "_triggered_at": headers.get(TRIGGERED)}
    rows = [{**told, **about, "_topic": topic}]
    if topic == "customers/create" and told.get("state") == "enabled":
        rows.append({**told, **about, "_topic": "customers/enable"})
    if topic == "orders/updated":
        along = {**about, "_topic": "refunds/create", "order": told}
        rows += [{**refund, **along, "_amount": _amount(refund)} for refund in _new_refunds(told)]
    return rows


def _new_refunds(order: dict[str, Any]) -> list[dict[str, Any]]:
    refunds = order.get("refunds")
    if not isinstance(refunds, list):
        return []
    return [refund for refund in refunds if isinstance(refund, dict) and _is_new(refund, order)]


def _is_new(refund: dict[str, Any], order: dict[str, Any]) -> bool:
    try:
        return parse_instant(order["updated_at"]) - parse_instant(refund["created_at"]) <= RETOLD_MS_MAX
    except (KeyError, TypeError, ValueError):
        return True  # The mapping reads these times, too, and tells what is wrong with them.


def _amount(refund: dict[str, Any]) -> str | None:
    """The money that went back, of all payments; ``None`` where it cannot be told."""
    try:
        paid = [
            one["amount"] for one in refund["transactions"] if (one["kind"], one["status"]) == ("refund", "success")
        ]
        return str(sum(map(decimal_of, paid)))
    except (KeyError, TypeError, ValueError):
        return None


SPEC: Final = SourceSpec(
    name="shopify",
    says="Shopify's webhooks: customers, carts, checkouts, orders",
    keeps=(TOPIC, EVENT, WEBHOOK, TRIGGERED),
    key=_key,
    is_signed=_is_signed,
    signed_ms=_signed_ms,
    rows=_rows,
)
