"""Settings: how each is described and read, and those that every process has.

    values = read(Own, os.environ, mistakes)     # OPPORTUNE_BOOTSTRAP=kafka:9092, OPPORTUNE_LOG_LEVEL=debug ...

A setting is a field of a frozen dataclass; its environment variable is ``OPPORTUNE_`` and its name in capitals. Its ``metadata``
(``about``) says unit, meaning and bounds, so it is described there only: the reference page is made of it. Rooms have settings
of their own, each in its ``settings.py``; here is what they have in common, as they may not know one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

PREFIX: Final = "OPPORTUNE_"
SECRET_BYTES_MIN: Final = 16

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


def about(
    unit: str,
    meaning: str,
    *,
    least: int | None = None,
    most: int | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    read: Callable[[str], Any] | None = None,
) -> dict[str, Any]:
    """The metadata of a setting.

    Args:
        least: the least value, itself allowed; ``most`` likewise.
        secret: neither its default nor what was found in its place is told.
        read: text -> value, where the default's kind does not say enough; it raises ``ValueError`` with what was wanted.
    """
    return {
        "unit": unit, "meaning": meaning, "least": least, "most": most, "choices": choices, "secret": secret, "read": read,
    }  # fmt: skip


def installation_secret() -> Any:
    """The field ``secret`` of whoever needs it."""
    return field(
        default="",
        repr=False,
        metadata=about(
            "hex",
            f"The installation secret, at least {SECRET_BYTES_MIN} bytes: keys the hashes of e-mails and phones.",
            secret=True,
            read=_hex,
        ),
    )


@dataclass(frozen=True, slots=True)
class Process:
    """What every process works with: the brokers, and where it tells of itself."""

    bootstrap: str = field(
        default="127.0.0.1:9092", metadata=about("host:port,…", "Kafka brokers to ask for the others.")
    )
    kafka_security: str = field(
        default="PLAINTEXT",
        metadata=about(
            "word", "How brokers are spoken to.", choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
        ),
    )
    kafka_mechanism: str = field(
        default="PLAIN",
        metadata=about("word", "SASL mechanism.", choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
    )
    kafka_user: str = field(default="", metadata=about("name", "SASL user."))
    kafka_password: str = field(default="", repr=False, metadata=about("text", "SASL password.", secret=True))
    kafka_ca_file: str = field(
        default="", metadata=about("path", "Certificates that sign the brokers'; empty: the system's.")
    )
    log_format: str = field(
        default="json",
        metadata=about("word", "How a log line looks: one JSON object, or plain text.", choices=("json", "plain")),
    )
    log_level: str = field(
        default="info",
        metadata=about(
            "word", "The least important lines that are written.", choices=("debug", "info", "warning", "error")
        ),
    )
    traces_url: str = field(
        default="",
        metadata=about(
            "URL", "Where traces go, an OTLP receiver over HTTP like http://otel:4318; empty: nowhere, at no cost."
        ),
    )
    traces_one_of: int = field(
        default=100,
        metadata=about("events", "One event of so many is traced, the same ones in every process.", least=1),
    )

    def contradictions(self) -> list[str]:
        """What each of these allows and both together do not."""
        if self.kafka_security.startswith("SASL") and not self.kafka_user:
            return [f"{variable_of('kafka_user')}: a name wanted with {self.kafka_security}, got nothing"]
        return []


class Described(NamedTuple):
    """One setting for the reference page; ``agreed``: all workers must have the same."""

    variable: str
    default: str
    unit: str
    meaning: str
    agreed: bool = False


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def described(kind: type[Any], *, agreed: bool = False) -> Iterator[Described]:
    """Every setting of a class, in its order; a secret's default is not shown."""
    for one in _settings(kind):
        default = "" if one.metadata["secret"] else str(one.default)
        yield Described(variable_of(one.name), default, one.metadata["unit"], one.metadata["meaning"], agreed)


def read(kind: type[Any], env: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    """The values that are set, of all settings of a class; what is not set, or set to nothing, has its default.

    Args:
        mistakes: gets a line for each: which variable, what was wanted, what was found.
    """
    values: dict[str, Any] = {}
    for one in _settings(kind):
        text = env.get(variable_of(one.name), "").strip()
        if not text:
            continue
        try:
            values[one.name] = _value(one, text)
        except ValueError as error:
            # A secret's value must not reach a log by way of its mistake.
            found = "other text" if one.metadata["secret"] else repr(text[:80])
            mistakes.append(f"{variable_of(one.name)}: {error}, got {found}")
    return values


def _settings(kind: type[Any]) -> Iterator[Field[Any]]:
    """The fields that are read from the environment."""
    return (one for one in fields(kind) if one.metadata)


def _value(one: Field[Any], text: str) -> Any:
    if one.metadata["read"] is not None:
        return one.metadata["read"](text)
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


def _hex(text: str) -> str:
    try:
        enough = len(bytes.fromhex(text)) >= SECRET_BYTES_MIN
    except ValueError:
        enough = False
    if not enough:
        raise ValueError(f"at least {2 * SECRET_BYTES_MIN} hexadecimal digits wanted")
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
