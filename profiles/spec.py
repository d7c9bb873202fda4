"""A plug-in is found by being there: ``discover`` reads each module's ``SPEC``, in name order."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


def discover(package: ModuleType, kind: type[T]) -> list[T]:
    """Read the ``SPEC`` (one, or a tuple of them) of every module in ``package``, in name order.

    Raises:
        AssertionError: a module without a ``SPEC``, or with one of another kind; our bug.
    """
    found: list[T] = []
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        spec = getattr(module, "SPEC", None)
        specs = spec if isinstance(spec, tuple) else (spec,)
        for one in specs:
            assert isinstance(one, kind), f"{module.__name__}: SPEC must be {kind.__name__}, got {one!r}"
            found.append(one)
    return found


@dataclass(frozen=True, slots=True)
class Example:
    """One executed example of an event type: what a sender writes, and the canonical payload it becomes."""

    raw: dict[str, Any]
    props: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventType:
    """What an event type says of itself.

    Attributes:
        name: canonical, ``product_added``.
        topic: one of ``wire.EVENT_TOPICS``.
        says: one line for people.
        payload: a pydantic model that reads the properties as senders write them (Segment spec or GA4
            names; floats or text for money) and whose ``model_dump(exclude_none=True)`` is the canonical
            payload. Used at the edge only.
        change: applies a canonical event to a profile; marks what it touched in ``profile.dirty``.
        aliases: other names in any spelling (``Product Added``, ``add_to_cart``).
        activity: a person's own act on a site or in an app; opens or extends a session.
        examples: executed by a test.
    """

    name: str
    topic: str
    says: str
    payload: type[BaseModel]
    change: Callable[[Any, Any], None]
    aliases: tuple[str, ...] = ()
    activity: bool = False
    examples: tuple[Example, ...] = ()
