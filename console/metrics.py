"""Every metric of the window, named and described once. Labels come from code, never from what is asked (R25)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "opportune_console_requests_total",
    "Requests answered, by route (its pattern, not its address) and HTTP status.",
    ["route", "status"],
)
REQUEST_SECONDS: Final = Histogram(
    "opportune_console_request_seconds",
    "From a request's head read to the end of its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
UNDER_WAY: Final = Gauge("opportune_console_requests_under_way", "Requests that are not answered yet.")
MEMBERS: Final = Gauge(
    "opportune_segment_members",
    "Members of a segment, as last counted; of the first 500 segments by name.",
    ["segment"],
)
SEGMENTS_LABELLED_MAX: Final = 500
MOMENTS: Final = Gauge(
    "opportune_outcome_moments",
    "Moments of the last 30 days by how far they came: eligible, emitted, delivered, opened and clicked (by people), converted "
    "(what the trigger's `conversion` says, else an order within 7 days, that is theirs). Only with OPPORTUNE_API_REPORT_EVERY_S; every API tells the same.",
    ["trigger", "what"],
)
REVENUE: Final = Gauge(
    "opportune_outcome_revenue",
    "Amount of the orders that these moments have, in the shop's currency; each order is the last message's.",
    ["trigger"],
)
DIVERGENT: Final = Gauge(
    "opportune_outcome_divergent",
    "Decisions and trigger records on the topics that say of a moment something else than one before: 0 unless a store went back. "
    "As of the last report; only with OPPORTUNE_API_REPORT_EVERY_S.",
)
DECISIONS_KEPT: Final = Gauge("opportune_console_decisions_kept", "Decisions in the window's memory.")
DECISIONS_BROKEN: Final = Counter(
    "opportune_console_decisions_broken_total", "Records on the topic decisions that are no decisions; left out."
)
READER_RESTARTS: Final = Counter(
    "opportune_console_reader_restarts_total", "Times that reading decisions began anew because the broker failed."
)
