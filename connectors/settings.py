"""Every setting of the edges, with its unit, default and meaning.

    settings = read(os.environ)          # OPPORTUNE_BOOTSTRAP=kafka:9092, OPPORTUNE_COLLECTOR_PORT=8080 ...

A setting's environment variable is ``OPPORTUNE_`` and its name in capitals. Whatever is wrong is reported at once,
one line a setting. What every process has (the brokers, logs) stands in ``profiles/settings.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from profiles.errors import Refused
from profiles.settings import Described, Process, about, described, installation_secret
from profiles.settings import read as values_of

LINK_KEY_CHARS_MIN: Final = 32


def _keys(text: str) -> str:
    keys = [key.strip() for key in text.split(",")]
    if any(len(key) < LINK_KEY_CHARS_MIN for key in keys):
        raise ValueError(f"keys of {LINK_KEY_CHARS_MIN} characters or more wanted, with commas between")
    return ",".join(keys)


@dataclass(frozen=True, slots=True)
class Settings(Process):
    """What one edge process works with."""

    secret: str = installation_secret()
    catalogue_url: str = field(
        default="",
        repr=False,
        metadata=about(
            "URL",
            "The workers' store, redis://…: a collector adds the name, brand and category that an item's sender leaves out. Empty: items stay as sent.",
            secret=True,
        ),
    )
    catalogue_cluster: bool = field(
        default=False, metadata=about("yes or no", "That store is a Redis Cluster, the URL that of any node.")
    )
    # The collector.
    write_keys: str = field(
        default="",
        repr=False,
        metadata=about("path or JSON", "Who may send: see connectors/collector/keys.py.", secret=True),
    )
    webhooks: str = field(
        default="",
        repr=False,
        metadata=about(
            "path or JSON",
            "Whose webhooks are taken at /hooks/<name>: see connectors/collector/webhooks.py. Empty: nobody's.",
            secret=True,
        ),
    )
    link_keys: str = field(
        default="",
        repr=False,
        metadata=about(
            "key,key",
            "What links in letters are signed by (connectors/links.py), 32 characters at least each; several, so that they can be changed. Empty: no link is followed.",
            secret=True,
            read=_keys,
        ),
    )
    link_wait_ms: int = field(
        default=1000,
        metadata=about(
            "ms", "How long who follows a link waits for the broker at most; then he is sent on all the same.", least=0
        ),
    )
    collector_host: str = field(default="0.0.0.0", metadata=about("address", "Where the collector listens."))
    collector_port: int = field(
        default=8080, metadata=about("port", "Its port; 0 takes a free one.", least=0, most=65_535)
    )
    collector_body_bytes: int = field(
        default=4 << 20,
        metadata=about("bytes", "Largest body, also after inflating; else 413.", least=1024, most=64 << 20),
    )
    collector_event_bytes: int = field(
        default=64 << 10,
        metadata=about("bytes", "Largest event as sent; else a dead letter.", least=1024, most=512 << 10),
    )
    collector_batch_events: int = field(
        default=1000, metadata=about("events", "Most events of one batch; else 413.", least=1, most=10_000)
    )
    collector_requests: int = field(
        default=1000,
        metadata=about("requests", "How many may be under way before new ones get 429.", least=1, most=100_000),
    )
    collector_per_s: int = field(
        default=0,
        metadata=about("requests/s", "How many are taken a second, of all together; then 429. 0: no bound.", least=0),
    )
    collector_key_per_s: int = field(
        default=0, metadata=about("requests/s", "The same of one write key. 0: no bound.", least=0)
    )
    collector_address_per_s: int = field(
        default=0,
        metadata=about(
            "requests/s",
            "The same of one IP address; behind proxies set OPPORTUNE_COLLECTOR_PROXIES, or they are the address. 0: no bound.",
            least=0,
        ),
    )
    collector_bytes: int = field(
        default=64 << 20,
        metadata=about(
            "bytes", "How much of bodies may be held, inflated, before new requests get 429.", least=1 << 20
        ),
    )
    collector_read_ms: int = field(
        default=30_000, metadata=about("ms", "How long a body may take to come; then 408.", least=100)
    )
    collector_publish_ms: int = field(
        default=10_000, metadata=about("ms", "How long a request waits for the broker; then 503.", least=1000)
    )
    collector_stalled_ms: int = field(
        default=2_000,
        metadata=about("ms", "A broker silent for so long: new requests get 503, unread.", least=50),
    )
    collector_linger_ms: int = field(
        default=2,
        metadata=about(
            "ms",
            "How long a record waits for others to share its Kafka request; adds to the latency.",
            least=0,
            most=100,
        ),
    )
    collector_keep_ip: bool = field(
        default=False, metadata=about("yes or no", "Keep the sender's IP address in the event's context.")
    )
    collector_proxies: int = field(
        default=0,
        metadata=about(
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


def describe() -> Iterator[Described]:
    """Every setting, in the order above; a secret's default is not shown."""
    return described(Settings)


def read(env: Mapping[str, str]) -> Settings:
    """Read all settings; what is not set, or set to nothing, has its default.

    Raises:
        Refused: with a line for every mistake: which variable, what was wanted, what was found.
    """
    mistakes: list[str] = []
    found = Settings(**values_of(Settings, env, mistakes))
    mistakes += found.contradictions()
    if mistakes:
        raise Refused("\n".join(mistakes))
    return found
