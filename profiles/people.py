"""What is said of a person: traits, each with its time and source.

The newest statement of a trait wins, by event time; of two at one instant the greater (source, value) does, so that
any order of arrival ends alike.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from typing import Any, Final, TypeVar

from profiles.moments import parse_instant, zone_named
from profiles.state import TRAITS, TRAITS_MAX, Consent, Profile, Trait
from profiles.wire import Event

REGISTERED_AT: Final = "registered_at"
"""Since when somebody is a customer: epoch ms; the earliest that was told stands."""


SAID_BY: Final = " by "
"""Between the event type and the source of a statement whose trait has better and worse sources."""

Said = TypeVar("Said", Trait, Consent)

CONTACT: Final = ("email", "phone", "first_name", "last_name", "name", "locale", "timezone")
"""What a sender needs of a person, by the names in which it is stated."""

Rank = Callable[[str, str], int]
"""(trait, source of a statement) -> how good it is; the greater is the better."""


def all_alike(name: str, source: str) -> int:
    """No source is better than another."""
    return 0


def stated(profile: Profile, event: Event) -> None:
    """Take the traits that the event states, whatever its type; ``None`` states nothing."""
    for name, value in statements(event.traits):
        put(profile, name, value, event.at_ms, event.source)


def statements(traits: dict[str, Any]) -> list[tuple[str, Any]]:
    """(trait, value) of each statement; what stands inside another is ``outer.inner``."""
    found: list[tuple[str, Any]] = []
    for name, value in traits.items():
        if isinstance(value, dict):
            found += [(f"{name}.{inner}", one) for inner, one in value.items()]
        else:
            found.append((name, value))
    return found


def registered(profile: Profile, event: Event) -> None:
    """Remember since when the person is a customer: the earliest registration."""
    put(profile, REGISTERED_AT, event.at_ms, event.at_ms, event.source)


def put(profile: Profile, name: str, value: Any, at_ms: int, source: str, rank: Rank = all_alike) -> None:
    """State one trait; of a worse source it replaces nothing. Beyond ``TRAITS_MAX`` new names are left out."""
    if name == REGISTERED_AT:
        value = instant_of(value)
    if value is None:
        return
    known = profile.traits.get(name)
    said = Trait(value, at_ms, source)
    if known is None:
        if len(profile.traits) >= TRAITS_MAX:
            return
    elif not _replaces(name, said, known, rank):
        return
    elif known.value == value and type(known.value) is type(value):
        profile.traits[name] = said
        return
    profile.traits[name] = said
    profile.dirty |= TRAITS


def newer(a: Trait | Consent, b: Trait | Consent) -> bool:
    """Whether statement ``a`` replaces ``b``."""
    if a.at_ms != b.at_ms:
        return a.at_ms > b.at_ms
    return (a.source, repr(a.value), a[3:4]) > (b.source, repr(b.value), b[3:4])


def _replaces(name: str, a: Trait | Consent, b: Trait | Consent, rank: Rank) -> bool:
    better, than = rank(name, a.source), rank(name, b.source)
    if better != than:
        return better > than
    if name == REGISTERED_AT:
        return (a.value, a.at_ms, a.source) < (b.value, b.at_ms, b.source)
    return newer(a, b)


def zone_of(profile: Profile, otherwise: tzinfo) -> tzinfo:
    """The person's time zone, as the trait ``timezone`` names it; ``otherwise`` where nothing is said, or no zone."""
    said = profile.traits.get("timezone")
    try:
        return zone_named(said.value) if said is not None and isinstance(said.value, str) else otherwise
    except ValueError:
        return otherwise


def instant_of(value: Any) -> int | None:
    """A time as a shop states it: epoch ms, or ISO text; anything else says nothing."""
    if isinstance(value, str):
        try:
            return parse_instant(value)
        except ValueError:
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def joined(a: dict[str, Said], b: dict[str, Said], rank: Rank = all_alike) -> dict[str, Said]:
    """The traits of two profiles that are one person; the earliest registration stands."""
    both = dict(a)
    for name, said in b.items():
        known = both.get(name)
        if known is None or _replaces(name, said, known, rank):
            both[name] = said
    return both
