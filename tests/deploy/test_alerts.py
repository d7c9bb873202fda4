"""Each alert fires for its trouble and no other does; by Prometheus's own `promtool test rules`, on hours of made series."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "prometheus"
ALERTS: Final[dict[str, dict[str, Any]]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
HOURS: Final = 8
GROWING: Final = "0+{}x480"
"""A counter that grows by so much a minute, for eight hours."""

CALM: Final = {
    'up{job="collector", instance="c"}': "1x480",
    'up{job="worker", instance="w"}': "1x480",
    'opportune_collector_requests_total{route="track", status="200"}': GROWING.format(600),
    'opportune_collector_events_accepted_total{instance="c", source="web", type="page_viewed"}': GROWING.format(600),
    'opportune_events_total{instance="w", topic="page_views", outcome="applied"}': GROWING.format(600),
    'opportune_freshness_seconds_bucket{le="1.0"}': GROWING.format(60),
    'opportune_freshness_seconds_bucket{le="+Inf"}': GROWING.format(60),
    "opportune_freshness_seconds_count": GROWING.format(60),
    'opportune_lag_records{topic="page_views"}': "0x480",
    "opportune_lag_seconds": "0x480",
    'opportune_alarm_lateness_seconds_bucket{le="3.0"}': GROWING.format(10),
    'opportune_alarm_lateness_seconds_bucket{le="10.0"}': GROWING.format(10),
    'opportune_alarm_lateness_seconds_bucket{le="30.0"}': GROWING.format(10),
    'opportune_alarm_lateness_seconds_bucket{le="+Inf"}': GROWING.format(10),
    "opportune_outbox_age_seconds": "0x480",
    'opportune_records_taken_total{instance="w", topic="page_views"}': GROWING.format(600),
    'opportune_decisions_total{instance="w", trigger="cart", reason="emitted"}': GROWING.format(6),
    'opportune_decisions_total{instance="w", trigger="cart", reason="no_consent"}': GROWING.format(2),
    'opportune_outgoing_records_total{instance="w", topic="decisions"}': GROWING.format(8),
    'opportune_outgoing_records_total{instance="w", topic="triggers.cart"}': GROWING.format(5),
    'opportune_outgoing_records_total{instance="w", topic="tasks"}': GROWING.format(1),
    'opportune_publish_records_total{instance="c"}': GROWING.format(601),
    'opportune_store_retries_total{job="worker"}': "0x480",
    # A collector that does not reach the catalogue leaves items as they are sent: nobody is woken for that.
    'opportune_store_retries_total{job="collector"}': GROWING.format(60),
    'opportune_store_memory_bytes{what="used"}': "100x480",
    'opportune_store_memory_bytes{what="max"}': "1000x480",
    "opportune_fenced_shards_total": "0x480",
    "opportune_gate_blind_total": "0x480",
    "opportune_clock_step_ms": "0x480",
    "opportune_log_gaps_total": "0x480",
    "opportune_outcome_divergent": "0x480",
    'opportune_rules{generation="a", instance="w"}': "1x480",
    # Anybody may try a path: as long as what is signed is taken, nobody is woken.
    'opportune_collector_webhooks_refused_total{source="web", reason="bad_signature"}': GROWING.format(10),
    'opportune_certificate_expires_timestamp_seconds{who="broker"}': "9e9x480",
    'opportune_write_key_expires_timestamp_seconds{source="web"}': "9e9x480",
}


@dataclass(frozen=True)
class Trouble:
    """What is other than on a calm day; a value of "" takes the series away.

    Attributes:
        by: labels that the alert takes from them.
    """

    series: dict[str, str]
    by: dict[str, str] = field(default_factory=dict)


def troubles() -> dict[str, Trouble]:
    """Alert -> the trouble that it is for. All of them are there from the seventh hour on."""

    def late(before: str, after: str) -> str:
        return f"{before}x419 {after}x60"

    stale = "0+60x419 25140+0x60"
    return {
        "OpportuneCollectorDown": Trouble({'up{job="collector", instance="c"}': late("1", "0")}),
        "OpportuneRefusesEvents": Trouble(
            {'opportune_collector_requests_total{route="track", status="503"}': "0x419 0+60x60"}
        ),
        "OpportuneWorkerDown": Trouble({'up{job="worker", instance="w"}': ""}),
        "OpportuneStandsStill": Trouble(
            {
                'opportune_events_total{instance="w", topic="page_views", outcome="applied"}': "0+600x419 251400x60",
                'opportune_records_taken_total{instance="w", topic="page_views"}': "0+600x419 251400x60",
                'opportune_lag_records{topic="page_views"}': "0x419 0+600x60",
            },
        ),
        "OpportuneStale": Trouble({'opportune_freshness_seconds_bucket{le="1.0"}': stale}),
        "OpportuneFallsBehind": Trouble({"opportune_lag_seconds": late("0", "90")}),
        "OpportuneAlarmsLate": Trouble(
            {
                'opportune_alarm_lateness_seconds_bucket{le="3.0"}': "0+10x419 4190x60",
                'opportune_alarm_lateness_seconds_bucket{le="10.0"}': "0+10x419 4190x60",
            }
        ),
        # Nothing is applied meanwhile, and a worker that reads nothing on does not know how much waits.
        "OpportuneOutboxAgeing": Trouble(
            {
                "opportune_outbox_age_seconds": "0x399 60+60x80",
                'opportune_events_total{instance="w", topic="page_views", outcome="applied"}': "0+600x400 240000+300x79",
                'opportune_records_taken_total{instance="w", topic="page_views"}': "0+600x400 240000+300x79",
            }
        ),
        "OpportuneStoreNotAnswering": Trouble({'opportune_store_retries_total{job="worker"}': "0x419 0+20x60"}),
        "OpportuneStoreMemory": Trouble({'opportune_store_memory_bytes{what="used"}': late("100", "850")}),
        "OpportuneDeadLetters": Trouble(
            {
                'opportune_collector_dead_letters_total{instance="c", source="web", reason="invalid_payload"}': "0x419 0+60x60",
                'opportune_publish_records_total{instance="c"}': GROWING.format(660),
            }
        ),
        "OpportuneBug": Trouble({'opportune_dead_letters_total{reason="bug"}': "0x470 1x9"}),
        "OpportuneSegmentUnjudged": Trouble(
            {'opportune_segments_unjudged_total{segment="vip"}': "0x470 1x9"}, {"segment": "vip"}
        ),
        "OpportuneEventsMissing": Trouble(
            {
                'opportune_events_total{instance="w", topic="page_views", outcome="applied"}': "0+600x400 240000+300x79",
                'opportune_records_taken_total{instance="w", topic="page_views"}': "0+600x400 240000+300x79",
            }
        ),
        "OpportuneAccountsBroken": Trouble(
            {'opportune_outgoing_records_total{instance="w", topic="triggers.cart"}': "0+5x419 2096+5x60"},
            {"identity": "emitted"},
        ),
        "OpportuneFenced": Trouble({"opportune_fenced_shards_total": "0x475 32x4"}),
        "OpportuneGateBlind": Trouble({"opportune_gate_blind_total": "0x475 1x4"}),
        "OpportuneClockStepped": Trouble({"opportune_clock_step_ms": late("0", "7000")}),
        "OpportuneLogGaps": Trouble({"opportune_log_gaps_total": "0x475 1x4"}),
        # promtool's time begins at 0.
        "OpportuneCertificateExpires": Trouble(
            {'opportune_certificate_expires_timestamp_seconds{who="broker"}': "1000000x480"}, {"who": "broker"}
        ),
        "OpportuneKeyExpires": Trouble(
            {'opportune_write_key_expires_timestamp_seconds{source="web"}': "1000000x480"}, {"source": "web"}
        ),
        "OpportuneWebhookNotBelieved": Trouble(
            {'opportune_collector_webhooks_refused_total{source="shopify", reason="bad_signature"}': "0x419 0+1x60"},
            {"source": "shopify"},
        ),
        "OpportuneDivergent": Trouble({"opportune_outcome_divergent": "1x480"}),
        "OpportuneTwoGenerations": Trouble({'opportune_rules{generation="b", instance="w2"}': "1x480"}),
    }


def told(series: dict[str, str], firing: str, by: dict[str, str], folder: Path) -> str:
    """What promtool says of these series at the end of the eighth hour, if just this alert is expected to fire."""
    test = {
        "rule_files": [str(FOLDER / "rules.yml"), str(FOLDER / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items() if values],
                "alert_rule_test": [
                    {
                        "eval_time": f"{HOURS}h",
                        "alertname": name,
                        "exp_alerts": [
                            {"exp_labels": {**rule["labels"], **by}, "exp_annotations": rule["annotations"]}
                            for _ in range(name == firing)
                        ],
                    }
                    for name, rule in ALERTS.items()
                ],
            }
        ],
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump(test))
    tool = shutil.which("promtool")
    assert tool is not None
    done = subprocess.run([tool, "test", "rules", path], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: Debian's prometheus")


@needs_promtool
def test_on_a_calm_day_nobody_is_woken(tmp_path: Path) -> None:
    assert told(CALM, "", {}, tmp_path) == ""


@needs_promtool
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_for_its_trouble_and_no_other_does(name: str, tmp_path: Path) -> None:
    trouble = troubles()[name]
    assert told({**CALM, **trouble.series}, name, trouble.by, tmp_path) == ""


def test_every_alert_has_its_entry_in_the_runbook() -> None:
    runbook = (ROOT / "deploy" / "runbook.md").read_text()
    entries = {line.removeprefix("## ").strip() for line in runbook.splitlines() if line.startswith("## ")}
    assert set(ALERTS) - entries == set()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
