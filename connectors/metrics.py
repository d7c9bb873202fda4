"""Every metric of the edges, named and described once.

Label values come from configuration and code, never from what a client sent (RELIABILITY R25).
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A second series for each counter, with the time of its birth, tells nobody anything.
disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs is not annotated

EVENTS_ACCEPTED: Final = Counter(
    "opportune_collector_events_accepted_total",
    "Events that the broker acknowledged, by source and canonical type; with the dead letters, all that was answered 200",
    ["source", "type"],
)
DEAD_LETTERS: Final = Counter(
    "opportune_collector_dead_letters_total",
    "Events refused and kept on dead_letters, by source and reason",
    ["source", "reason"],
)
BODIES_REFUSED: Final = Counter(
    "opportune_collector_bodies_refused_total",
    "Whole bodies refused before their events were looked at, by source and reason; kept on dead_letters if they were read",
    ["source", "reason"],
)
HOOKS_REFUSED: Final = Counter(
    "opportune_collector_webhooks_refused_total",
    "Deliveries of webhooks that were answered 404, by source and reason: a bad signature, or a time too long ago or ahead",
    ["source", "reason"],
)
LINKS_LOST: Final = Counter(
    "opportune_collector_links_lost_total",
    "Clicks and openings that were answered, and are on no topic: the broker did not take them, or there was no room to wait",
)
REQUESTS: Final = Counter(
    "opportune_collector_requests_total",
    "Requests answered, by route and HTTP status",
    ["route", "status"],
)
REQUEST_SECONDS: Final = Histogram(
    "opportune_collector_request_seconds",
    "From a request's header read to its answer, for requests that carry events",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BODY_BYTES: Final = Counter(
    "opportune_collector_body_bytes_total",
    "Bytes of bodies read, after inflating",
)
REQUESTS_UNDER_WAY: Final = Gauge(
    "opportune_collector_requests_under_way",
    "Requests whose body is being read or published now",
)
BYTES_UNDER_WAY: Final = Gauge(
    "opportune_collector_under_way_bytes",
    "Bytes of bodies held now, announced or inflated",
)
LIMIT: Final = Gauge(
    "opportune_collector_limit",
    "How much may be under way before new requests get 429: requests, and bytes of bodies",
    ["what"],
)
KEY_ENDS: Final = Gauge(
    "opportune_write_key_expires_timestamp_seconds",
    "When (Unix time) the last write key of a source ends; none for a source that has one without an end",
    ["source"],
)
PUBLISH_SECONDS: Final = Histogram(
    "opportune_publish_seconds",
    "From handing a batch of one partition to the producer to the broker's acknowledgement",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
PUBLISH_RECORDS: Final = Counter(
    "opportune_publish_records_total",
    "Records acknowledged by the broker; never fewer than the events accepted and the dead letters together (R1)",
)
PUBLISH_FAILURES: Final = Counter(
    "opportune_publish_failures_total",
    "Batches that the broker did not take in time",
)
