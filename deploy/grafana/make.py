"""Makes the dashboards beside this file: ``python deploy/grafana/make.py``. What a page shows is a table below.

A test keeps the files so, and asks a real Prometheus every question of every panel (tests/deploy).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

HERE: Final = Path(__file__).parent / "dashboards"
WIDE, HIGH, ACROSS = 8, 7, 24


class Panel(NamedTuple):
    """One picture: each line of it is a question to Prometheus and the name of its answers.

    Attributes:
        unit: Grafana's name of it: s, ops, short, percentunit, bytes.
        red_from: where it becomes worth a look; drawn as a line.
        is_number: the present value, large, in place of a curve.
    """

    title: str
    unit: str
    asks: tuple[tuple[str, str], ...]
    says: str = ""
    red_from: float | None = None
    is_number: bool = False


def quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """Median and 99th percentile of a histogram."""
    group, name = (f", {by}", f" {{{{{by}}}}}") if by else ("", "")
    return tuple(
        (f"histogram_quantile({q}, sum by (le{group}) (rate({metric}_bucket[5m])))", f"p{int(q * 100)}{name}")
        for q in (0.5, 0.99)
    )


OVERVIEW: Final = (
    Panel("Collectors up", "short", (('sum(up{job="collector"})', ""),), is_number=True),
    Panel("Workers up", "short", (('sum(up{job="worker"})', ""),), is_number=True),
    Panel(
        "Alerts firing", "short", (('count(ALERTS{alertstate="firing"}) or vector(0)', ""),), red_from=1, is_number=True
    ),
    Panel(
        "Events accepted",
        "ops",
        (("sum by (type) (rate(opportune_collector_events_accepted_total[5m]))", "{{type}}"),),
        "What the shop sends and the broker has acknowledged.",
    ),
    Panel(
        "Requests refused",
        "percentunit",
        (("opportune:collector_refusals:ratio_rate5m", "5 min"), ("opportune:collector_refusals:ratio_rate1h", "1 h")),
        "429 and 5xx of all answers; the month allows 0.1 %.",
        0.001,
    ),
    Panel(
        "Freshness",
        "s",
        quantiles("opportune_freshness_seconds"),
        "From an event's acceptance to its profile being stored, of the oldest event in each batch.",
        1,
    ),
    Panel(
        "Moments emitted",
        "ops",
        (('sum by (trigger) (rate(opportune_decisions_total{reason="emitted"}[5m]))', "{{trigger}}"),),
        "Trigger records that senders read.",
    ),
    Panel(
        "Alarm lateness",
        "s",
        quantiles("opportune_alarm_lateness_seconds"),
        "From the due instant to the deed; two seconds are on purpose.",
        10,
    ),
    Panel("Behind", "s", (("max(opportune_lag_seconds)", "least advanced partition"),), "", 60),
)

WORKER: Final = (
    Panel("Events applied", "ops", (("sum by (outcome) (rate(opportune_events_total[5m]))", "{{outcome}}"),)),
    Panel("Records that wait", "short", (("sum by (topic) (opportune_lag_records)", "{{topic}}"),)),
    Panel(
        "CPU by stage",
        "percentunit",
        (
            ("sum by (stage) (rate(opportune_stage_cpu_seconds_total[5m]))", "{{stage}}"),
            ('sum(rate(process_cpu_seconds_total{job="worker"}[5m]))', "the whole process"),
        ),
        "Of one core for each worker.",
    ),
    Panel("Commit", "s", quantiles("opportune_commit_seconds"), "From asking the store to its answer."),
    Panel("Publish", "s", quantiles("opportune_outbox_publish_seconds")),
    Panel("Events a batch", "short", quantiles("opportune_batch_events")),
    Panel("Outbox", "short", (("sum(opportune_outbox_records)", "records under way"),)),
    Panel(
        "Outbox, age",
        "s",
        (("max(opportune_outbox_age_seconds)", "the oldest"),),
        "What is stored and the broker has not acknowledged.",
        30,
    ),
    Panel(
        "Books that do not balance",
        "short",
        (("max by (identity) (min_over_time(opportune:accounts_off:records[1m]))", "{{identity}}"),),
        "Taken and come out, decided and told, emitted and sent, answered 200 and acknowledged: 0, or a fault of ours.",
        1,
    ),
    Panel("Records out", "ops", (("sum by (topic) (rate(opportune_outgoing_records_total[5m]))", "{{topic}}"),)),
    Panel(
        "Cache hits",
        "percentunit",
        (
            (
                'sum(rate(opportune_cache_lookups_total{result="hit"}[5m])) / sum(rate(opportune_cache_lookups_total[5m]))',
                "hits",
            ),
        ),
    ),
    Panel("Alarms handled", "ops", (("sum(rate(opportune_alarms_total[5m]))", "alarms"),)),
    Panel("Memory of the process", "bytes", (('process_resident_memory_bytes{job="worker"}', "{{instance}}"),)),
    Panel(
        "Fences, gaps, blind gates",
        "short",
        (
            ("sum(increase(opportune_fenced_shards_total[5m]))", "fenced shards"),
            ("sum(increase(opportune_log_gaps_total[5m]))", "gaps"),
            ("sum(increase(opportune_gate_blind_total[5m]))", "blind gates"),
            ("sum(increase(opportune_events_reordered_total[5m]))", "reordered"),
        ),
    ),
    Panel("Rules in force", "short", (("count by (generation) (opportune_rules)", "{{generation}}"),)),
)

COLLECTOR: Final = (
    Panel("Requests", "ops", (("sum by (status) (rate(opportune_collector_requests_total[5m]))", "{{status}}"),)),
    Panel("Answer time", "s", quantiles("opportune_collector_request_seconds")),
    Panel("Bytes of bodies", "Bps", (("sum(rate(opportune_collector_body_bytes_total[5m]))", "read"),)),
    Panel(
        "Under way",
        "short",
        (
            ("sum(opportune_collector_requests_under_way)", "requests"),
            ('sum(opportune_collector_limit{what="requests"})', "at most"),
        ),
        "Beyond the limit new ones get 429.",
    ),
    Panel("To the broker and back", "s", quantiles("opportune_publish_seconds")),
    Panel(
        "Dead letters",
        "ops",
        (("sum by (reason) (rate(opportune_collector_dead_letters_total[5m]))", "{{reason}}"),),
        "Kept with their bytes on the topic dead_letters.",
    ),
    Panel("Broker failures", "ops", (("sum(rate(opportune_publish_failures_total[5m]))", "batches"),)),
    Panel("Page and API", "ops", (("sum by (status) (rate(opportune_console_requests_total[5m]))", "{{status}}"),)),
    Panel("Page and API, answer time", "s", quantiles("opportune_console_request_seconds")),
    Panel(
        "Bodies held",
        "bytes",
        (
            ("sum(opportune_collector_under_way_bytes)", "held"),
            ('sum(opportune_collector_limit{what="bytes"})', "at most"),
        ),
    ),
    Panel("Page and API, under way", "short", (("sum(opportune_console_requests_under_way)", "requests"),)),
    Panel(
        "CPU of a process",
        "percentunit",
        (
            ('max(rate(process_cpu_seconds_total{job="collector"}[5m]))', "collector"),
            ('max(rate(process_cpu_seconds_total{job="api"}[5m]))', "API"),
        ),
        "Of one core; both use one at most.",
        0.8,
    ),
)

TRIGGERS: Final = (
    Panel(
        "Decisions",
        "ops",
        (("sum by (trigger) (rate(opportune_decisions_total{reason!='regret'}[5m]))", "{{trigger}}"),),
        "Every eligible moment ends in one.",
    ),
    Panel(
        "Sent of eligible, last hour",
        "percentunit",
        (
            (
                'sum by (trigger) (increase(opportune_decisions_total{reason="emitted"}[1h]))'
                " / sum by (trigger) (increase(opportune_decisions_total{reason!='regret'}[1h]))",
                "{{trigger}}",
            ),
        ),
    ),
    Panel(
        "Why not",
        "ops",
        (('sum by (reason) (rate(opportune_decisions_total{reason!="emitted"}[5m]))', "{{reason}}"),),
        "Suppressed moments by reason.",
    ),
    Panel(
        "How far moments come, 30 days",
        "short",
        (("sum by (what) (max by (trigger, what) (opportune_outcome_moments))", "{{what}}"),),
        "Eligible, emitted, delivered, opened and clicked by people, converted; of all triggers.",
    ),
    Panel(
        "Revenue by trigger, 30 days",
        "short",
        (("max by (trigger) (opportune_outcome_revenue)", "{{trigger}}"),),
        "Orders within seven days of a message, each the last message's, in the shop's currency.",
    ),
    Panel(
        "Entering segments",
        "ops",
        (('sum by (segment) (rate(opportune_segment_changes_total{change="entered"}[5m]))', "{{segment}}"),),
    ),
    Panel(
        "Leaving segments",
        "ops",
        (('sum by (segment) (rate(opportune_segment_changes_total{change="exited"}[5m]))', "{{segment}}"),),
    ),
    Panel(
        "What people do",
        "ops",
        (("sum by (topic) (rate(opportune_events_total[5m]))", "{{topic}}"),),
    ),
)

PARTS: Final = (
    Panel(
        "Store's memory",
        "bytes",
        (
            ('max(opportune_store_memory_bytes{what="used"})', "used"),
            ('max(opportune_store_memory_bytes{what="max"})', "at most"),
        ),
    ),
    Panel(
        "Memory left",
        "percentunit",
        (
            (
                '1 - max(opportune_store_memory_bytes{what="used"}) / (max(opportune_store_memory_bytes{what="max"}) > 0)',
                "left",
            ),
        ),
        "At none the store refuses writes and all stops.",
        0.2,
    ),
    Panel("Store asked again", "ops", (("sum(rate(opportune_store_retries_total[5m]))", "calls"),)),
    Panel("Records that wait", "short", (("sum by (topic) (opportune_lag_records)", "{{topic}}"),)),
    Panel("Broker takes from collectors", "ops", (("sum(rate(opportune_publish_records_total[5m]))", "records"),)),
    Panel(
        "Certificates and keys end in",
        "s",
        (
            ("min by (who) (opportune_certificate_expires_timestamp_seconds) - time()", "{{who}}"),
            ("min by (source) (opportune_write_key_expires_timestamp_seconds) - time()", "key of {{source}}"),
        ),
        "Empty where nothing speaks TLS and no key has an end.",
    ),
    Panel(
        "Profiles of more than 16 KiB",
        "ops",
        (("sum(rate(opportune_large_profiles_total[5m]))", "writes"),),
        "They cost memory and time; nothing is cut.",
    ),
    Panel("Step of the store's clock", "ms", (("max(opportune_clock_step_ms)", "step"),)),
)

PAGES: Final = {
    "overview": ("Opportune: are customers being served?", OVERVIEW),
    "worker": ("Opportune: worker", WORKER),
    "collector": ("Opportune: collector and API", COLLECTOR),
    "triggers": ("Opportune: triggers and segments", TRIGGERS),
    "parts": ("Opportune: Kafka and Redis", PARTS),
}


def made(name: str) -> bytes:
    """A dashboard as Grafana reads it from a file."""
    title, panels = PAGES[name]
    page = {
        "uid": f"opportune-{name}",
        "title": title,
        "tags": ["opportune"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {"type": "dashboards", "tags": ["opportune"], "title": "Opportune", "asDropdown": True, "keepTime": True}
        ],
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }
    return orjson.dumps(page, option=orjson.OPT_INDENT_2) + b"\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    across = ACROSS // WIDE
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.says,
        "type": "stat" if panel.is_number else "timeseries",
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {"x": number % across * WIDE, "y": number // across * HIGH, "w": WIDE, "h": HIGH},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expr, "legendFormat": legend}
            for place, (expr, legend) in enumerate(panel.asks)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {} if panel.is_number else {"fillOpacity": 10, "thresholdsStyle": {"mode": "line"}},
            },
            "overrides": [],
        },
        "options": {} if panel.is_number else {"tooltip": {"mode": "multi", "sort": "desc"}},
    }


if __name__ == "__main__":
    for one in PAGES:
        (HERE / f"{one}.json").write_bytes(made(one))
