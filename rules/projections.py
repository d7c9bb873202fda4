"""What others than the shop's own people may see of a profile, and no more: lists of traits and segments.

    projections:
      hint: {traits: [first_name, orders_paid], segments: [vip]}     # the till and the call centre, by any address
      site: {traits: [cart.items], segments: [members]}              # a page, of its own visitor
      form: {traits: [first_name, email, address.city]}              # a form, of the customer who has signed in

A page belongs to whoever reads it, so ``site`` may not name an e-mail, a phone or a place to live: ``form`` is for these,
and wants a token that says who has signed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rules.documents import Node
from rules.slips import did_you_mean
from rules.spec import UNREADABLE, Reader, Scope

NAMES: Final = ("hint", "site", "form")
TRAITS_MAX: Final = 50
SEGMENTS_MAX: Final = 50
_NOT_ON_PAGES: Final = ("email", "phone", "address", "last_name", "name", "birth_date", "birthday", "card")


@dataclass(frozen=True, slots=True)
class Projection:
    """What one kind of reader sees.

    Attributes:
        traits: (path, reader), as listed.
        segments: names, as listed.
    """

    traits: tuple[tuple[str, Reader], ...] = ()
    segments: tuple[str, ...] = ()


def projection(name: str, node: Node, scope: Scope) -> Projection:
    """Compile one; mistakes go to the nodes."""
    if name not in NAMES:
        node.wrong(f"one of {', '.join(NAMES)} wanted, got {name!r}{did_you_mean(name, NAMES)}")
    node.known(("traits", "segments", "says"))
    traits, segments = _listed(node, "traits", TRAITS_MAX), _listed(node, "segments", SEGMENTS_MAX)
    if not traits and not segments:
        node.wrong("traits or segments wanted, got neither")
    return Projection(
        tuple((path, _trait(name, path, one, scope)) for path, one in traits.items()),
        tuple(scope.segment(path, one) for path, one in segments.items()),
    )


def _listed(node: Node, key: str, most: int) -> dict[str, Node]:
    part = node.get(key)
    if part is None:
        return {}
    found: dict[str, Node] = {}
    for one in part:
        path = one.text()
        if path in found:
            one.wrong(f"{path!r} stands twice")
        found[path] = one
    if len(found) > most:
        part.wrong(f"at most {most} wanted, got {len(found)}")
    return found


def _trait(name: str, path: str, node: Node, scope: Scope) -> Reader:
    if name == "site" and path.partition(".")[0] in _NOT_ON_PAGES:
        node.wrong(f"{path!r} is nothing for a page that anybody may read: `form` may show it to who has signed in")
    known = len(node.mistakes)
    reader = scope.reader(path, node)
    if reader is UNREADABLE and len(node.mistakes) == known:
        node.wrong(f"one of its parts wanted, like {path}.… , got {path!r}, which has several")
    return reader
