"""A profile as plain values, to be compared: what it holds, whatever the order in which it came to hold it."""

from __future__ import annotations

from typing import Any, Final

from profiles.state import ATTRIBUTES, Profile

KEPT: Final = tuple(name for name in ATTRIBUTES if name not in ("dirty", "facts", "folds"))
"""Everything that is stored."""


def shape(value: Any) -> Any:
    """Plain values, of our own classes too; dicts compare without regard to order."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shape(one) for one in value]
    slots = getattr(type(value), "__slots__", None)
    if slots and type(value).__module__.startswith("profiles."):
        return {name: shape(getattr(value, name)) for name in slots}
    return value


def profile_shape(profile: Profile, *left_out: str) -> dict[str, Any]:
    """All that is stored of a profile but what is left out."""
    return {name: shape(getattr(profile, name)) for name in KEPT if name not in left_out}
