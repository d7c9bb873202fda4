"""What undoes a merge: both profiles as they were, and from where on the log holds what came since (RELIABILITY R23)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgpack

from profiles.errors import BadInput

VERSION: Final = 1


class Undo(NamedTuple):
    """One merge, just before it took place.

    Attributes:
        other: the address that was absorbed.
        link: the link that it stood on.
        at_ms: logical time of the merge in the receiving shard.
        receiver, absorbed: the two profiles as bytes.
        cursor: next offset of each input topic in the receiving shard, at most as far as the merge; the shell's.
        generation: the rules in force then; the shell's.
    """

    other: str
    link: tuple[int, str]
    at_ms: int
    receiver: bytes
    absorbed: bytes
    cursor: Sequence[int] = ()
    generation: str = ""


def pack_undo(undo: Undo) -> bytes:
    """As the store keeps it."""
    packed: bytes = msgpack.packb((VERSION, *undo))
    return packed


def read_undo(value: bytes) -> Undo:
    """Read what ``pack_undo`` made.

    Raises:
        BadInput: ``malformed``: of no version that we know.
    """
    try:
        version, other, link, *rest = msgpack.unpackb(value)
        if version != VERSION:
            raise ValueError(version)
        return Undo(other, (link[0], link[1]), *rest)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise BadInput("malformed", f"undo: version {VERSION} wanted, {type(error).__name__}") from None


class Parting(NamedTuple):
    """The body of an un-merge's command.

    Attributes:
        by: who asked for it.
        digest: of the receiver's bytes that this was computed from; any other, and it must be computed anew.
        link: the link that the merge stood on.
        receiver, other: both profiles, apart, as bytes.
    """

    by: str
    digest: bytes
    link: tuple[int, str]
    receiver: bytes
    other: bytes


def pack_parting(parting: Parting) -> bytes:
    """A command's body."""
    packed: bytes = msgpack.packb(parting)
    return packed


def read_parting(body: bytes) -> Parting:
    """Read a command's body.

    Raises:
        BadInput: ``malformed``: none of ours.
    """
    try:
        by, digest, link, receiver, other = msgpack.unpackb(body)
        parting = Parting(by, digest, (link[0], link[1]), receiver, other)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise BadInput("malformed", f"unmerge: two profiles and a link wanted, {type(error).__name__}") from None
    if not (type(by) is str and type(digest) is type(receiver) is type(other) is bytes):
        raise BadInput("malformed", "unmerge: text and bytes in their places wanted")
    return parting
