"""The settings of the window: where it listens and how much it keeps in mind; the rest is shared with the workers.

    settings = read(os.environ)          # OPPORTUNE_API_PORT=8081, OPPORTUNE_REDIS_URL=…, OPPORTUNE_SECRET=…

Broker, store, clock and secret are those of ``stream/settings.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import stream.settings
from console.callers import TOKEN_CHARS_MIN, Callers, read_callers
from profiles.errors import Refused
from profiles.settings import Described, about, described, variable_of
from profiles.settings import read as values_of

SITE_KEY_CHARS_MIN: Final = 32
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def _long(least_chars: int) -> Callable[[str], str]:
    """Reads a text of so many characters or more."""

    def read(text: str) -> str:
        if len(text) < least_chars:
            raise ValueError(f"{least_chars} characters or more wanted")
        return text

    return read


@dataclass(frozen=True, slots=True)
class Settings:
    """What one window works with.

    Attributes:
        shared: what it has in common with the workers.
    """

    shared: stream.settings.Settings
    api_host: str = field(
        default="127.0.0.1",
        metadata=about(
            "address",
            "Where the API listens. It speaks plain HTTP: put a proxy with TLS in front of any other than loopback.",
        ),
    )
    api_port: int = field(default=8081, metadata=about("port", "Its port; 0 takes a free one.", least=0, most=65_535))
    api_names: str = field(
        default="",
        metadata=about(
            "names with commas",
            "Host names by which it may be asked (guards against pages that rebind a name of theirs to us); empty: "
            "loopback's own when it listens there, else any.",
        ),
    )
    api_token: str = field(
        default="",
        repr=False,
        metadata=about(
            "text",
            f"Who bears it may do everything: read, edit, erase and un-merge people; {TOKEN_CHARS_MIN} characters or more.",
            secret=True,
            read=_long(TOKEN_CHARS_MIN),
        ),
    )
    api_tokens: str = field(
        default="",
        repr=False,
        metadata=about("path or JSON", "Tokens that may do less, each with its scopes: see below.", secret=True),
    )
    api_open: bool = field(
        default=False,
        metadata=about(
            "yes or no",
            "Let anybody read without a token: on a machine of your own, or behind a proxy that asks. `dev` does.",
        ),
    )
    api_site_key: str = field(
        default="",
        repr=False,
        metadata=about(
            "text",
            f"What the shop signs the tokens of its pages with (HS256), {SITE_KEY_CHARS_MIN} characters or more; empty: "
            "pages may ask for nothing.",
            secret=True,
            read=_long(SITE_KEY_CHARS_MIN),
        ),
    )
    api_origins: str = field(
        default="",
        metadata=about(
            "origins with commas", "Pages that may ask: `https://shop.example`; of others browsers keep the answer."
        ),
    )
    api_decisions: int = field(
        default=5_000,
        metadata=about("decisions", "How many of the latest it keeps in memory.", least=1, most=100_000),
    )
    api_report_moments: int = field(
        default=500_000,
        metadata=about("moments", "Of how many of the latest moments reports tell.", least=1_000, most=50_000_000),
    )
    api_report_every_s: int = field(
        default=0,
        metadata=about(
            "s",
            "How often what came of the triggers in 30 days is counted anew for the metrics of outcomes; 0: never. "
            "It keeps the reports' moments in memory.",
            least=0,
            most=86_400,
        ),
    )
    api_sizes_ms: int = field(
        default=1_000,
        metadata=about("ms", "How old a count of a segment's members may be when it is shown.", least=0, most=60_000),
    )

    def secret_bytes(self) -> bytes:
        """The installation secret.

        Raises:
            Refused: there is none.
        """
        secret = self.shared.agreed.secret
        if not secret:
            raise Refused("OPPORTUNE_SECRET: at least 32 hexadecimal digits wanted, got nothing")
        return bytes.fromhex(secret)

    def names(self) -> frozenset[str]:
        """Host names by which it may be asked; none: by any."""
        named = _split(self.api_names.lower())
        if named or self.api_host not in LOOPBACK:
            return frozenset(named)
        return frozenset(LOOPBACK)

    def callers(self) -> Callers:
        """Who may ask for what.

        Raises:
            Refused: the document of tokens is none.
        """
        return read_callers(self.api_token, self.api_tokens, is_open=self.api_open)

    def origins(self) -> tuple[str, ...]:
        """The pages that may ask."""
        return tuple(_split(self.api_origins))


def describe() -> Iterator[Described]:
    """The window's own settings, in the order above, for the reference page."""
    return described(Settings)


def read(env: Mapping[str, str]) -> Settings:
    """Read all settings; what is not set, or set to nothing, has its default.

    Raises:
        Refused: with a line for every mistake: which variable, what was wanted, what was found.
    """
    mistakes: list[str] = []
    shared: stream.settings.Settings | None = None
    try:
        shared = stream.settings.read(env)
    except Refused as error:
        mistakes.append(str(error))
    values = values_of(Settings, env, mistakes)
    mistakes += [
        f"{variable_of('api_origins')}: scheme://host without a path wanted, got {one[:80]!r}"
        for one in _split(values.get("api_origins", ""))
        if not _ORIGIN.fullmatch(one)
    ]
    try:
        read_callers(values.get("api_token", ""), values.get("api_tokens", ""), is_open=values.get("api_open", False))
    except Refused as error:
        mistakes.append(str(error))
    if mistakes or shared is None:
        raise Refused("\n".join(mistakes))
    return Settings(shared, **values)


def _split(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
