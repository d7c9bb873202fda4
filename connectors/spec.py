"""What a source of webhooks says of itself; the collector finds it by being there (``connectors/sources``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Headers = Mapping[str, str]
"""The headers of a delivery, by their names in lower case."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Somebody else's product that tells us by HTTP, signed. What it tells becomes events by a mapping of the same name.

    Attributes:
        name: of the product, and of its mapping.
        says: one line for people.
        keeps: headers that tell what a delivery is about; a dead letter keeps them.
        key: reads a key as people copy it from the product's pages. Raises ``ValueError``, without the key.
        is_signed: whether these very bytes were signed by that key.
        signed_ms: when, epoch ms, as the signature covers it; ``None``: it tells no time. Raises ``ValueError``.
        rows: one thing that was told (a body, or an entry of one that is a list), as rows of the mapping.
    """

    name: str
    says: str
    keeps: tuple[str, ...]
    key: Callable[[str], Any]
    is_signed: Callable[[Any, Headers, bytes], bool]
    signed_ms: Callable[[Headers], int | None]
    rows: Callable[[Headers, dict[str, Any]], list[dict[str, Any]]]
