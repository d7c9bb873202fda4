"""Every setting, with its unit, default and meaning: ``Agreed`` is what all workers share, ``Own`` is one worker's.

    settings = read(os.environ)          # OPPORTUNE_PARTITIONS=16, OPPORTUNE_BOOTSTRAP=kafka:9092 ...

Whatever is wrong is reported at once, one line a setting. How settings are read, and what every process has (the brokers, logs),
stands in ``profiles/settings.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import rules
from profiles.errors import Refused
from profiles.ids import SHARDS
from profiles.moments import DAY_MS, HOUR_MS, zone_named
from profiles.settings import PREFIX, Described, Process, about, described, installation_secret
from profiles.settings import read as values_of


@dataclass(frozen=True, slots=True)
class Agreed:
    """What all workers (and the collector) must agree on. Changing one is an operation, not a restart."""

    partitions: int = field(
        default=8,
        metadata=about(
            "partitions",
            f"Partitions of each input topic; divides the {SHARDS} shards, and bounds the number of busy workers.",
            least=1,
            most=SHARDS,
        ),
    )
    replication: int = field(
        default=1,
        metadata=about("replicas", "Copies of each topic; 3 wherever losing a disk matters.", least=1, most=9),
    )
    input_retention_ms: int = field(
        default=7 * DAY_MS,
        metadata=about("ms", "How long input topics are kept; what a store can be rebuilt from.", least=72 * HOUR_MS),
    )
    output_retention_ms: int = field(
        default=7 * DAY_MS,
        metadata=about("ms", "How long triggers, changes and decisions are kept.", least=HOUR_MS),
    )
    zone: str = field(
        default="",
        metadata=about("IANA name", "The shop's time zone, where its days begin; empty: as the rules say, else UTC."),
    )
    currency: str = field(
        default="", metadata=about("ISO 4217", "The shop's currency; empty: as the rules say, else USD.")
    )
    clock: str = field(
        default="store",
        metadata=about(
            "word",
            "What decides what is due: the store's clock, or the log's (history into a fresh installation, demo).",
            choices=("store", "log"),
        ),
    )
    secret: str = installation_secret()


@dataclass(frozen=True, slots=True)
class Own(Process):
    """What concerns one worker: where things are, and how much it may take at once."""

    group: str = field(default="opportune", metadata=about("name", "The workers' consumer group."))
    redis_url: str = field(
        default="redis://127.0.0.1:6379/0",
        metadata=about("URL", "The store; by Sentinels redis+sentinel://host:port,host:port/service/db.", secret=True),
        repr=False,
    )
    redis_cluster: bool = field(
        default=False,
        metadata=about(
            "yes or no",
            "The store is a Redis Cluster, the URL that of any node; must be so in all processes, or in none.",
        ),
    )
    rules: Path = field(
        default=Path(rules.__file__).parent / "packs" / "shop",
        metadata=about("path", "The folder with the rule files; the shop pack unless set."),
    )
    data_dir: Path = field(default=Path(".opportune"), metadata=about("path", "Where this process may keep files."))
    # Kafka, reading.
    fetch_wait_ms: int = field(
        default=25,
        metadata=about(
            "ms", "How long a broker may hold a fetch while events flow; bounds the latency.", least=1, most=100
        ),
    )
    fetch_idle_wait_ms: int = field(
        default=100,
        metadata=about(
            "ms",
            "The same after a second without events; bounds how old the knowledge of a topic's end is.",
            least=1,
            most=100,
        ),
    )
    fetch_bytes: int = field(
        default=256 * 1024,
        metadata=about("bytes", "What one fetch brings of one partition at most.", least=1024, most=16 * 1024 * 1024),
    )
    poll_records: int = field(
        default=5_000, metadata=about("records", "What one turn of the reading loop hands on at most.", least=1)
    )
    session_ms: int = field(
        default=10_000,
        metadata=about(
            "ms",
            "After this silence the group gives a worker's partitions away. The embedded broker takes half of it to form a group.",
            least=500,
        ),
    )
    heartbeat_ms: int = field(
        default=3_000,
        metadata=about("ms", "How often a worker says that it lives; a third of the session.", least=100),
    )
    rebalance_ms: int = field(
        default=60_000, metadata=about("ms", "How long workers may take to let go of their partitions.", least=1_000)
    )
    request_ms: int = field(
        default=30_000, metadata=about("ms", "After this long a broker's silence is an error.", least=1_000)
    )
    commit_ms: int = field(
        default=1_000,
        metadata=about("ms", "How often the broker is told how far we are (information only).", least=50),
    )
    # Kafka, publishing.
    publish_linger_ms: int = field(
        default=0,
        metadata=about(
            "ms",
            "How long a batch waits for company. While one is under way the next one gathers anyway.",
            least=0,
            most=100,
        ),
    )
    publish_batch_bytes: int = field(
        default=256 * 1024,
        metadata=about("bytes", "Size of a batch published to one partition.", least=1024, most=1_000_000),
    )
    # The engine.
    batch_events: int = field(
        default=4_000, metadata=about("events", "What the engine takes into one batch at most.", least=1)
    )
    buffer_events: int = field(
        default=20_000,
        metadata=about("events", "What the engine holds unread before it lets the broker wait.", least=1),
    )
    cache_profiles: int = field(
        default=100_000, metadata=about("profiles", "How many profiles a worker keeps unpacked.", least=1)
    )
    bug_ceiling: bool = field(
        default=True,
        metadata=about(
            "yes or no",
            "Stop when 50 inputs in a row, or 1 % of a minute's, fail inside the core. No: set all of them aside and go on.",
        ),
    )
    catalogue_products: int = field(
        default=100_000,
        metadata=about(
            "products", "How many products the catalogue holds; what comes beyond is a dead letter.", least=1
        ),
    )
    metrics_port: int = field(
        default=0,
        metadata=about(
            "port", "Where the worker answers /metrics, /healthz and /readyz; 0: nowhere.", least=0, most=65_535
        ),
    )
    stalled_ms: int = field(
        default=60_000,
        metadata=about(
            "ms",
            "A worker that applies nothing for so long, though records wait and both servers answer, ends; so does one whom the group gives no partitions for OPPORTUNE_REBALANCE_MS longer.",
            least=1000,
        ),
    )
    stop_wait_ms: int = field(
        default=20_000, metadata=about("ms", "How long a clean stop may take before the process just ends.", least=100)
    )


class Settings(NamedTuple):
    """All settings of a worker."""

    agreed: Agreed
    own: Own


def describe() -> Iterator[Described]:
    """Every setting, in the order above; a secret's default is not shown."""
    yield from described(Agreed, agreed=True)
    yield from described(Own)


def unknown(env: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Complaints about ``OPPORTUNE_…`` variables that nobody reads; ``known`` are those of all rooms together."""
    names = sorted(set(known))
    complaints = []
    for variable in sorted(env):
        if variable.startswith(PREFIX) and variable not in names:
            near = difflib.get_close_matches(variable, names, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            complaints.append(f"{variable}: no such setting{hint}")
    return complaints


def read(env: Mapping[str, str]) -> Settings:
    """Read all settings; what is not set, or set to nothing, has its default.

    Raises:
        Refused: with a line for every mistake: which variable, what was wanted, what was found.
    """
    mistakes: list[str] = []
    agreed = Agreed(**values_of(Agreed, env, mistakes))
    own = Own(**values_of(Own, env, mistakes))
    mistakes += _contradictions(agreed, own)
    if mistakes:
        raise Refused("\n".join(mistakes))
    return Settings(agreed, own)


def _contradictions(agreed: Agreed, own: Own) -> list[str]:
    """What each setting allows and both together do not."""
    found: list[str] = []
    if SHARDS % agreed.partitions:
        found.append(f"OPPORTUNE_PARTITIONS: a divisor of {SHARDS} wanted, got {agreed.partitions}")
    if agreed.currency and not (len(agreed.currency) == 3 and agreed.currency.isascii() and agreed.currency.isupper()):
        found.append(f"OPPORTUNE_CURRENCY: three capitals like EUR wanted, got {agreed.currency[:10]!r}")
    try:
        zone_named(agreed.zone or "UTC")
    except ValueError as error:
        found.append(f"OPPORTUNE_ZONE: {error}")
    if own.heartbeat_ms * 3 > own.session_ms:
        found.append(
            f"OPPORTUNE_HEARTBEAT_MS: at most a third of OPPORTUNE_SESSION_MS={own.session_ms} wanted, "
            f"got {own.heartbeat_ms}"
        )
    if own.session_ms > own.request_ms:
        found.append(
            f"OPPORTUNE_REQUEST_MS: at least OPPORTUNE_SESSION_MS={own.session_ms} wanted, got {own.request_ms}"
        )
    if own.fetch_wait_ms > own.fetch_idle_wait_ms:
        found.append(
            f"OPPORTUNE_FETCH_WAIT_MS: at most OPPORTUNE_FETCH_IDLE_WAIT_MS={own.fetch_idle_wait_ms} wanted, "
            f"got {own.fetch_wait_ms}"
        )
    return found + own.contradictions()
