"""Every setting of the edges, with its unit, default and meaning.

    settings = read(os.environ)          # OPPORTUNE_BOOTSTRAP=kafka:9092, OPPORTUNE_COLLECTOR_PORT=8080 ...

A setting's environment variable is ``OPPORTUNE_`` and its name in capitals. Whatever is wrong is reported at once,
one line a setting. What concerns the whole installation (``bootstrap``, ``secret``, ``kafka_…``) has the same name and
meaning here and in ``stream/settings.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Final, NamedTuple

from profiles.errors import Refused

PREFIX: Final = "OPPORTUNE_"
SECRET_BYTES_MIN: Final = 16
LINK_KEY_CHARS_MIN: Final = 32

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
class Settings:
    """What one edge process works with."""

    bootstrap: str = field(
        default="127.0.0.1:9092", metadata=_about("host:port,…", "Kafka brokers to ask for the others.")
    )
    secret: str = field(
        default="",
        repr=False,
        metadata=_about(
            "hex", "The installation secret, at least 16 bytes: keys the hashes of e-mails and phones.", secret=True
        ),
    )
    catalogue_url: str = field(
        default="",
        repr=False,
        metadata=_about(
            "URL",
            "The workers' store, redis://…: a collector adds the name, brand and category that an item's sender leaves out. Empty: items stay as sent.",
            secret=True,
        ),
    )
    catalogue_cluster: bool = field(
        default=False, metadata=_about("yes or no", "That store is a Redis Cluster, the URL that of any node.")
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
    # The collector.
    write_keys: str = field(
        default="",
        repr=False,
        metadata=_about("path or JSON", "Who may send: see connectors/collector/keys.py.", secret=True),
    )
    webhooks: str = field(
        default="",
        repr=False,
        metadata=_about(
            "path or JSON",
            "Whose webhooks are taken at /hooks/<name>: see connectors/collector/webhooks.py. Empty: nobody's.",
            secret=True,
        ),
    )
    link_keys: str = field(
        default="",
        repr=False,
        metadata=_about(
            "key,key",
            "What links in letters are signed by (connectors/links.py), 32 characters at least each; several, so that they can be changed. Empty: no link is followed.",
            secret=True,
        ),
    )
    link_wait_ms: int = field(
        default=1000,
        metadata=_about(
            "ms", "How long who follows a link waits for the broker at most; then he is sent on all the same.", least=0
        ),
    )
    collector_host: str = field(default="0.0.0.0", metadata=_about("address", "Where the collector listens."))
    collector_port: int = field(
        default=8080, metadata=_about("port", "Its port; 0 takes a free one.", least=0, most=65_535)
    )
    collector_body_bytes: int = field(
        default=4 << 20,
        metadata=_about("bytes", "Largest body, also after inflating; else 413.", least=1024, most=64 << 20),
    )
    collector_event_bytes: int = field(
        default=64 << 10,
        metadata=_about("bytes", "Largest event as sent; else a dead letter.", least=1024, most=512 << 10),
    )
    collector_batch_events: int = field(
        default=1000, metadata=_about("events", "Most events of one batch; else 413.", least=1, most=10_000)
    )
    collector_requests: int = field(
        default=1000,
        metadata=_about("requests", "How many may be under way before new ones get 429.", least=1, most=100_000),
    )
    collector_per_s: int = field(
        default=0,
        metadata=_about("requests/s", "How many are taken a second, of all together; then 429. 0: no bound.", least=0),
    )
    collector_key_per_s: int = field(
        default=0, metadata=_about("requests/s", "The same of one write key. 0: no bound.", least=0)
    )
    collector_address_per_s: int = field(
        default=0,
        metadata=_about(
            "requests/s",
            "The same of one IP address; behind proxies set OPPORTUNE_COLLECTOR_PROXIES, or they are the address. 0: no bound.",
            least=0,
        ),
    )
    collector_bytes: int = field(
        default=64 << 20,
        metadata=_about(
            "bytes", "How much of bodies may be held, inflated, before new requests get 429.", least=1 << 20
        ),
    )
    collector_read_ms: int = field(
        default=30_000, metadata=_about("ms", "How long a body may take to come; then 408.", least=100)
    )
    collector_publish_ms: int = field(
        default=10_000, metadata=_about("ms", "How long a request waits for the broker; then 503.", least=1000)
    )
    collector_stalled_ms: int = field(
        default=2_000,
        metadata=_about("ms", "A broker silent for so long: new requests get 503, unread.", least=50),
    )
    collector_linger_ms: int = field(
        default=2,
        metadata=_about(
            "ms",
            "How long a record waits for others to share its Kafka request; adds to the latency.",
            least=0,
            most=100,
        ),
    )
    collector_keep_ip: bool = field(
        default=False, metadata=_about("yes or no", "Keep the sender's IP address in the event's context.")
    )
    collector_proxies: int = field(
        default=0,
        metadata=_about(
            "proxies",
            "Trusted ones in front: the client stands so many from the right in X-Forwarded-For.",
            least=0,
            most=10,
        ),
    )

    def secret_bytes(self) -> bytes:
        """The installation secret.

        Raises:
            Refused: there is none.
        """
        if not self.secret:
            raise Refused("OPPORTUNE_SECRET: at least 32 hexadecimal digits wanted, got nothing")
        return bytes.fromhex(self.secret)

    def signers(self) -> tuple[str, ...]:
        """The keys of links."""
        return tuple(self.link_keys.split(",")) if self.link_keys else ()


class Described(NamedTuple):
    """One setting for the reference page."""

    variable: str
    default: str
    unit: str
    meaning: str


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def describe() -> Iterator[Described]:
    """Every setting, in the order above; a secret's default is not shown."""
    for one in fields(Settings):
        default = "" if one.metadata["secret"] else str(one.default)
        yield Described(variable_of(one.name), default, one.metadata["unit"], one.metadata["meaning"])


def read(env: Mapping[str, str]) -> Settings:
    """Read all settings; what is not set, or set to nothing, has its default.

    Raises:
        Refused: with a line for every mistake: which variable, what was wanted, what was found.
    """
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for one in fields(Settings):
        text = env.get(variable_of(one.name), "").strip()
        if not text:
            continue
        try:
            values[one.name] = _parse(one, text)
        except ValueError as error:
            # A secret's value must not reach a log by way of its mistake.
            found = "other text" if one.metadata["secret"] else repr(text[:80])
            mistakes.append(f"{variable_of(one.name)}: {error}, got {found}")
    if mistakes:
        raise Refused("\n".join(mistakes))
    return Settings(**values)


def _parse(one: Field[Any], text: str) -> Any:
    if one.name == "secret":
        return _hex(text)
    if one.name == "link_keys":
        return _keys(text)
    if isinstance(one.default, bool):
        if text.lower() not in _YES + _NO:
            raise ValueError("yes or no wanted")
        return text.lower() in _YES
    if isinstance(one.default, int):
        return _whole(text, one.metadata["unit"], one.metadata["least"], one.metadata["most"])
    choices = one.metadata["choices"]
    if choices:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"one of {', '.join(choices)} wanted")
    return text


def _hex(text: str) -> str:
    try:
        enough = len(bytes.fromhex(text)) >= SECRET_BYTES_MIN
    except ValueError:
        enough = False
    if not enough:
        raise ValueError(f"at least {2 * SECRET_BYTES_MIN} hexadecimal digits wanted")
    return text


def _keys(text: str) -> str:
    keys = [key.strip() for key in text.split(",")]
    if any(len(key) < LINK_KEY_CHARS_MIN for key in keys):
        raise ValueError(f"keys of {LINK_KEY_CHARS_MIN} characters or more wanted, with commas between")
    return ",".join(keys)


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
