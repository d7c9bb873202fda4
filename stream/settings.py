"""Every setting, with its unit, default and meaning: ``Agreed`` is what all workers share, ``Own`` is one worker's.

    settings = read(os.environ)          # OPPORTUNE_PARTITIONS=16, OPPORTUNE_BOOTSTRAP=kafka:9092 ...

A setting's environment variable is ``OPPORTUNE_`` and its name in capitals. Whatever is wrong is reported at
once, one line a setting. The reference page is made from the same ``metadata``, so a setting is described here only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import rules
from profiles.errors import Refused
from profiles.ids import SHARDS
from profiles.moments import DAY_MS, HOUR_MS, zone_named

PREFIX: Final = "OPPORTUNE_"

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


def _about(
    unit: str,
    meaning: str,
    *,
    least: int | None = None,
    most: int | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> dict[str, Any]:
    """The metadata of a setting; ``least`` and ``most`` are inclusive."""
    return {"unit": unit, "meaning": meaning, "least": least, "most": most, "choices": choices, "secret": secret}


@dataclass(frozen=True, slots=True)
class Agreed:
    """What all workers (and the collector) must agree on. Changing one is an operation, not a restart."""

    partitions: int = field(
        default=8,
        metadata=_about(
            "partitions",
            f"Partitions of each input topic; divides the {SHARDS} shards, and bounds the number of busy workers.",
            least=1,
            most=SHARDS,
        ),
    )
    replication: int = field(
        default=1,
        metadata=_about("replicas", "Copies of each topic; 3 wherever losing a disk matters.", least=1, most=9),
    )
    input_retention_ms: int = field(
        default=7 * DAY_MS,
        metadata=_about("ms", "How long input topics are kept; what a store can be rebuilt from.", least=72 * HOUR_MS),
    )
    output_retention_ms: int = field(
        default=7 * DAY_MS,
        metadata=_about("ms", "How long triggers, changes and decisions are kept.", least=HOUR_MS),
    )
    zone: str = field(
        default="",
        metadata=_about("IANA name", "The shop's time zone, where its days begin; empty: as the rules say, else UTC."),
    )
    currency: str = field(
        default="", metadata=_about("ISO 4217", "The shop's currency; empty: as the rules say, else USD.")
    )
    clock: str = field(
        default="store",
        metadata=_about(
            "word",
            "What decides what is due: the store's clock, or the log's (history into a fresh installation, demo).",
            choices=("store", "log"),
        ),
    )
    secret: str = field(
        default="",
        repr=False,
        metadata=_about(
            "hex", "The installation secret, at least 16 bytes: keys the hashes of e-mails and phones.", secret=True
        ),
    )


@dataclass(frozen=True, slots=True)
class Own:
    """What concerns one worker: where things are, and how much it may take at once."""

    bootstrap: str = field(
        default="127.0.0.1:9092", metadata=_about("host:port,…", "Kafka brokers to ask for the others.")
    )
    group: str = field(default="opportune", metadata=_about("name", "The workers' consumer group."))
    redis_url: str = field(
        default="redis://127.0.0.1:6379/0",
        metadata=_about("URL", "The store; by Sentinels redis+sentinel://host:port,host:port/service/db.", secret=True),
        repr=False,
    )
    redis_cluster: bool = field(
        default=False,
        metadata=_about(
            "yes or no",
            "The store is a Redis Cluster, the URL that of any node; must be so in all processes, or in none.",
        ),
    )
    rules: Path = field(
        default=Path(rules.__file__).parent / "packs" / "shop",
        metadata=_about("path", "The folder with the rule files; the shop pack unless set."),
    )
    data_dir: Path = field(default=Path(".opportune"), metadata=_about("path", "Where this process may keep files."))
    log_format: str = field(
        default="json",
        metadata=_about("word", "How a log line looks: one JSON object, or plain text.", choices=("json", "plain")),
    )
    log_level: str = field(
        default="info",
        metadata=_about(
            "word", "The least important lines that are written.", choices=("debug", "info", "warning", "error")
        ),
    )
    traces_url: str = field(
        default="",
        metadata=_about(
            "URL", "Where traces go, an OTLP receiver over HTTP like http://otel:4318; empty: nowhere, at no cost."
        ),
    )
    traces_one_of: int = field(
        default=100,
        metadata=_about("events", "One event of so many is traced, the same ones in every process.", least=1),
    )
    # Kafka, security.
    kafka_security: str = field(
        default="PLAINTEXT",
        metadata=_about(
            "word", "How brokers are spoken to.", choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
        ),
    )
    kafka_mechanism: str = field(
        default="PLAIN",
        metadata=_about("word", "SASL mechanism.", choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
    )
    kafka_user: str = field(default="", metadata=_about("name", "SASL user."))
    kafka_password: str = field(default="", repr=False, metadata=_about("text", "SASL password.", secret=True))
    kafka_ca_file: str = field(
        default="", metadata=_about("path", "Certificates that sign the brokers'; empty: the system's.")
    )
    # Kafka, reading.
    fetch_wait_ms: int = field(
        default=25,
        metadata=_about(
            "ms", "How long a broker may hold a fetch while events flow; bounds the latency.", least=1, most=100
        ),
    )
    fetch_idle_wait_ms: int = field(
        default=100,
        metadata=_about(
            "ms",
            "The same after a second without events; bounds how old the knowledge of a topic's end is.",
            least=1,
            most=100,
        ),
    )
    fetch_bytes: int = field(
        default=256 * 1024,
        metadata=_about("bytes", "What one fetch brings of one partition at most.", least=1024, most=16 * 1024 * 1024),
    )
    poll_records: int = field(
        default=5_000, metadata=_about("records", "What one turn of the reading loop hands on at most.", least=1)
    )
    session_ms: int = field(
        default=10_000,
        metadata=_about(
            "ms",
            "After this silence the group gives a worker's partitions away. The embedded broker takes half of it to form a group.",
            least=500,
        ),
    )
    heartbeat_ms: int = field(
        default=3_000,
        metadata=_about("ms", "How often a worker says that it lives; a third of the session.", least=100),
    )
    rebalance_ms: int = field(
        default=60_000, metadata=_about("ms", "How long workers may take to let go of their partitions.", least=1_000)
    )
    request_ms: int = field(
        default=30_000, metadata=_about("ms", "After this long a broker's silence is an error.", least=1_000)
    )
    commit_ms: int = field(
        default=1_000,
        metadata=_about("ms", "How often the broker is told how far we are (information only).", least=50),
    )
    # Kafka, publishing.
    publish_linger_ms: int = field(
        default=0,
        metadata=_about(
            "ms",
            "How long a batch waits for company. While one is under way the next one gathers anyway.",
            least=0,
            most=100,
        ),
    )
    publish_batch_bytes: int = field(
        default=256 * 1024,
        metadata=_about("bytes", "Size of a batch published to one partition.", least=1024, most=1_000_000),
    )
    # The engine.
    batch_events: int = field(
        default=4_000, metadata=_about("events", "What the engine takes into one batch at most.", least=1)
    )
    buffer_events: int = field(
        default=20_000,
        metadata=_about("events", "What the engine holds unread before it lets the broker wait.", least=1),
    )
    cache_profiles: int = field(
        default=100_000, metadata=_about("profiles", "How many profiles a worker keeps unpacked.", least=1)
    )
    bug_ceiling: bool = field(
        default=True,
        metadata=_about(
            "yes or no",
            "Stop when 50 inputs in a row, or 1 % of a minute's, fail inside the core. No: set all of them aside and go on.",
        ),
    )
    catalogue_products: int = field(
        default=100_000,
        metadata=_about(
            "products", "How many products the catalogue holds; what comes beyond is a dead letter.", least=1
        ),
    )
    metrics_port: int = field(
        default=0,
        metadata=_about(
            "port", "Where the worker answers /metrics, /healthz and /readyz; 0: nowhere.", least=0, most=65_535
        ),
    )
    stalled_ms: int = field(
        default=60_000,
        metadata=_about(
            "ms",
            "A worker that applies nothing for so long, though records wait and both servers answer, ends.",
            least=1000,
        ),
    )
    stop_wait_ms: int = field(
        default=20_000, metadata=_about("ms", "How long a clean stop may take before the process just ends.", least=100)
    )


class Settings(NamedTuple):
    """All settings of a worker."""

    agreed: Agreed
    own: Own


class Described(NamedTuple):
    """One setting for the reference page."""

    variable: str
    default: str
    unit: str
    meaning: str
    agreed: bool


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def describe() -> Iterator[Described]:
    """Every setting, in the order above; a secret's default is not shown."""
    for kind in (Agreed, Own):
        for one in fields(kind):
            default = "" if one.metadata["secret"] else str(one.default)
            yield Described(
                variable_of(one.name), default, one.metadata["unit"], one.metadata["meaning"], kind is Agreed
            )


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
    agreed = Agreed(**_values(Agreed, env, mistakes))
    own = Own(**_values(Own, env, mistakes))
    mistakes += _contradictions(agreed, own)
    if mistakes:
        raise Refused("\n".join(mistakes))
    return Settings(agreed, own)


def _values(kind: type[Agreed] | type[Own], env: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for one in fields(kind):
        text = env.get(variable_of(one.name), "").strip()
        if not text:
            continue
        try:
            values[one.name] = _parse(one, text)
        except ValueError as error:
            # A secret's value must not reach a log by way of its mistake.
            found = "other text" if one.metadata["secret"] else repr(text[:80])
            mistakes.append(f"{variable_of(one.name)}: {error}, got {found}")
    return values


def _parse(one: Field[Any], text: str) -> Any:
    if isinstance(one.default, bool):
        if text.lower() not in _YES + _NO:
            raise ValueError("yes or no wanted")
        return text.lower() in _YES
    if isinstance(one.default, int):
        return _whole(text, one.metadata["unit"], one.metadata["least"], one.metadata["most"])
    if isinstance(one.default, Path):
        return Path(text)
    choices = one.metadata["choices"]
    if choices:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"one of {', '.join(choices)} wanted")
    return text


def _whole(text: str, unit: str, least: int | None, most: int | None) -> int:
    bounds = f" from {least}" if least is not None else ""
    bounds += f" to {most}" if most is not None else ""
    try:
        number = int(text.replace("_", ""))
    except ValueError:
        number = None
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(f"a whole number of {unit}{bounds} wanted")
    return number


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
    if agreed.secret:
        try:
            long_enough = len(bytes.fromhex(agreed.secret)) >= 16
        except ValueError:
            long_enough = False
        if not long_enough:
            found.append("OPPORTUNE_SECRET: at least 32 hexadecimal digits wanted, got other text")
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
    if own.kafka_security.startswith("SASL") and not own.kafka_user:
        found.append(f"OPPORTUNE_KAFKA_USER: a name wanted with {own.kafka_security}, got nothing")
    return found
