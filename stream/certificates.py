"""When those whom we believe can no longer be believed: the ends of certificates, looked at beside the work.

A certificate that runs out at night stops everything at once, and is seen weeks before by whoever looks. Told are the
authorities of ``OPPORTUNE_KAFKA_CA_FILE``, and what brokers and store show in a handshake of our own.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio.connection import parse_url

from stream import metrics
from stream.settings import Own

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 3_600
HANDSHAKE_S: Final = 10.0
STORE_PORT: Final = 6379


async def watch(own: Own) -> None:
    """Look every hour, for ever; returns at once when nothing speaks TLS."""
    while await tell(own):
        await asyncio.sleep(LOOK_EVERY_S)


async def tell(own: Own) -> bool:
    """Look once, and put what was seen into the metrics; whether anything speaks TLS at all.

    Who does not answer, or shows what is not believed, is told in the log, and keeps what was known of him.
    """
    asked: list[tuple[str, str, int, ssl.SSLContext]] = []
    if own.kafka_security.endswith("SSL"):
        trusted = ssl.create_default_context(cafile=own.kafka_ca_file or None)
        if own.kafka_ca_file:
            _note("authority", trusted.get_ca_certs())
        for place in own.bootstrap.split(","):
            host, _, port = place.strip().rpartition(":")
            asked.append(("broker", host.strip("[]"), int(port), trusted))
    if own.redis_url.startswith("rediss:"):
        said: dict[str, Any] = dict(parse_url(own.redis_url))
        trusted = ssl.create_default_context(cafile=said.get("ssl_ca_certs"))
        asked.append(("store", said.get("host", "localhost"), said.get("port", STORE_PORT), trusted))
    shown: dict[str, list[dict[str, Any]]] = {}
    for who, name, number, context in asked:
        try:
            shown.setdefault(who, []).append(await _shown(name, number, context))
        except (OSError, TimeoutError) as error:
            log.warning("%s at %s:%d: a certificate wanted, got %s", who, name, number, type(error).__name__)
    for who, certificates in shown.items():
        _note(who, certificates)
    return bool(asked)


async def _shown(host: str, port: int, context: ssl.SSLContext) -> dict[str, Any]:
    async with asyncio.timeout(HANDSHAKE_S):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        found: dict[str, Any] = writer.get_extra_info("peercert")
        return found
    finally:
        writer.transport.abort()


def _note(who: str, certificates: Iterable[dict[str, Any]]) -> None:
    """The first of them to end counts."""
    ends = [ssl.cert_time_to_seconds(one["notAfter"]) for one in certificates]
    if ends:
        metrics.CERTIFICATE_ENDS.labels(who).set(min(ends))
