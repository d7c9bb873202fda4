"""Every metric of a worker, named and described once. Labels come from configuration and code, never from data (R25)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

EVENTS: Final = Counter(
    "opportune_events_total",
    "Input records by what became of them: applied, duplicate, held (waits for an alarm's gate), forwarded, dead, erased "
    "(of a life that was erased), throttled (one of too many of a profile in a minute), refused (a command, told in its receipt), "
    "behind (its shard had it behind it, another shard of the partition lagged), mark (a worker's own, written when it claims).",
    ["topic", "outcome"],
)
TAKEN: Final = Counter(
    "opportune_records_taken_total",
    "Records that were taken into batches. Each has one outcome, so this equals the sum of opportune_events_total (R1).",
    ["topic"],
)
REORDERED: Final = Counter(
    "opportune_events_reordered_total",
    "Inputs behind their shard's clock, applied at the clock; while 0, a replay gives the same bytes.",
)
MISROUTED: Final = Counter(
    "opportune_events_misrouted_total", "Records that a foreign partitioner put into another partition; forwarded."
)
FOREIGN: Final = Counter(
    "opportune_orders_other_currency_total",
    "Orders in another currency than the shop's without a rate: kept, but in no sum or average of money.",
)
DEAD: Final = Counter("opportune_dead_letters_total", "Events that could not be applied, by reason.", ["reason"])
LARGE: Final = Counter(
    "opportune_large_profiles_total",
    "Writes of profiles that take more than 16 KiB: a customer with a hundred orders, or what an integration repeats "
    "under ever new names. Nothing is cut; they cost store and time.",
)
BATCH: Final = Histogram(
    "opportune_batch_events", "Inputs in a batch.", buckets=(1, 10, 50, 100, 250, 500, 1000, 2000, 4000, 8000)
)
STEP: Final = Histogram(
    "opportune_step_seconds", "CPU time of a batch in the core (step), all its inputs.", buckets=_SECONDS
)
STAGE: Final = Counter(
    "opportune_stage_cpu_seconds_total",
    "CPU time of the worker by stage: decode (records to events), load (cache and unpacking), step (with packing what "
    "no later input of the batch changes), encode (the rest of the write). "
    "What the process uses beyond is transport, clients and the event loop.",
    ["stage"],
)
COMMIT: Final = Histogram(
    "opportune_commit_seconds", "From asking the store to write a batch to its answer.", buckets=_SECONDS
)
PUBLISH: Final = Histogram(
    "opportune_outbox_publish_seconds", "From sending a batch's outbox to the last acknowledgement.", buckets=_SECONDS
)
OUTBOX: Final = Gauge("opportune_outbox_records", "Records written to outboxes and not yet acknowledged by the broker.")
OUTBOX_AGE: Final = Gauge(
    "opportune_outbox_age_seconds", "How long the oldest of them has waited; 0 when the broker has them all."
)
OUTGOING: Final = Counter(
    "opportune_outgoing_records_total",
    "Records written to outboxes, by topic. As many on `decisions` as opportune_decisions_total counts, and as many on "
    "the triggers' topics and `tasks` as it counts `emitted` (D7).",
    ["topic"],
)
FENCED: Final = Counter("opportune_fenced_shards_total", "Shard writes refused because another worker wrote the shard.")
STORE_RETRIES: Final = Counter(
    "opportune_store_retries_total", "Store calls repeated because their outcome was unknown."
)
LATENESS: Final = Histogram(
    "opportune_alarm_lateness_seconds",
    "From an alarm's due instant to its being handled, on the live clock; two seconds of it are the gate.",
    buckets=(0.5, 1, 2, 2.5, 3, 5, 10, 30, 60, 300, 3600, 86400),
)
ALARMS: Final = Counter("opportune_alarms_total", "Alarms handled.")
GATE_BLIND: Final = Counter(
    "opportune_gate_blind_total", "Times a partition silent for 60 s was left out of the alarm gate."
)
FRESHNESS: Final = Histogram(
    "opportune_freshness_seconds",
    "From an event's acceptance (`received_ms`) to its profile being stored, of the oldest input of each batch; on the "
    "live clock.",
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
LAG_RECORDS: Final = Gauge(
    "opportune_lag_records", "Records that the brokers hold for our partitions and that are not applied.", ["topic"]
)
LAG_SECONDS: Final = Gauge(
    "opportune_lag_seconds",
    "How far behind now the least advanced of our partitions is; alarms wait for it. On the live clock.",
)
LAG: Final = Gauge("opportune_buffered_events", "Inputs read and not yet applied.", ["partition"])
CACHE: Final = Counter("opportune_cache_lookups_total", "Profiles looked up in the worker's cache.", ["result"])
DECISIONS: Final = Counter(
    "opportune_decisions_total",
    "Decisions by trigger and reason; `emitted` is one of the reasons, and `done` where no record goes out (an audience, an erasure), so their "
    "sum is the eligible moments; `regret` apart, which is a second one, of a letter that should not have gone.",
    ["trigger", "reason"],
)
CHANGES: Final = Counter(
    "opportune_segment_changes_total", "Entries to and exits from segments.", ["segment", "change"]
)
UNJUDGED: Final = Counter(
    "opportune_segments_unjudged_total",
    "Inputs at which a segment could not be judged for a customer, nor before; he stays in or out. The log says why.",
    ["segment"],
)
STORE_MEMORY: Final = Gauge(
    "opportune_store_memory_bytes",
    "The store's memory, as asked at each beat: used, and max (0: no limit); on a Cluster the fullest of its masters.",
    ["what"],
)
CERTIFICATE_ENDS: Final = Gauge(
    "opportune_certificate_expires_timestamp_seconds",
    "When (Unix time) the first certificate ends of: broker, store (as they show them), authority (of the file that we trust). "
    "Looked at every hour, where TLS is spoken.",
    ["who"],
)
SCANNED: Final = Gauge(
    "opportune_scan_progress_ratio",
    "How far a scan of the base is, 0 to 1: `facts` on the worker that looks the base over, `meet` what share of this "
    "worker's profiles has met the newest rules and facts.",
    ["scan"],
)
RULES: Final = Gauge(
    "opportune_rules", "The generation of rules under which this worker works: always 1.", ["generation"]
)
GAPS: Final = Counter("opportune_log_gaps_total", "Holes in the log: records that the broker no longer has.")
CLOCK_STEP: Final = Gauge("opportune_clock_step_ms", "A step of the store's clock that pauses alarms; 0 while steady.")
