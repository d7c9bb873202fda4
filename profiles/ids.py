"""Addresses, and what is hashed from them: shard, partition, trigger id, message digest.

An identifier is an address, ``kind:value``; an address is the Kafka record key and holds a profile or
forwards to one. A personal one (email, phone, card) stands in every key as a keyed hash, ``email:~…``;
its plain value is in record values only (DESIGN §3).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Final

SHARDS: Final = 256

STRENGTH: Final = {"user": 6, "email": 5, "phone": 4, "card": 3, "device": 2, "anon": 1}
"""Kinds of address, strongest first. A forwarder points only to a stronger kind, so chains end."""

PERSONAL: Final = ("email", "phone", "card")
VALUE_CHARS_MAX: Final = 200
_CONTROL = re.compile(r"[\x00-\x1f]")
_BROKEN = re.compile(r"[\ud800-\udfff\ufffd]")
WHOLE_WANTED: Final = "whole characters wanted, got a part of one or U+FFFD"


def kind_of(address: str) -> str:
    """``user`` of ``user:42``."""
    return address.partition(":")[0]


def strength(address: str) -> int:
    """How strongly this address names a person; 0 for an unknown kind."""
    return STRENGTH.get(kind_of(address), 0)


def address_of(kind: str, value: str, secret: bytes) -> str:
    """The address of an identifier, normalised; personal kinds are hashed with the installation secret.

    Args:
        kind: one of ``STRENGTH``.
        value: as the sender wrote it.
        secret: the installation secret, for HMAC-SHA256.
    Raises:
        ValueError: empty, too long, or not of that kind.
    """
    text = value.strip()
    if not text or len(text) > VALUE_CHARS_MAX or _CONTROL.search(text):
        raise ValueError(f"{kind}: 1 to {VALUE_CHARS_MAX} printable characters wanted, got {len(text)}")
    if not is_whole(text):
        raise ValueError(f"{kind}: {WHOLE_WANTED}")
    if kind in PERSONAL:
        if text.startswith("~"):
            raise ValueError(f"{kind}: a plain value wanted, got one that starts with '~'")
        return f"{kind}:~{_keyed(kind, normal(kind, text), secret)}"
    return f"{kind}:{text}"


def is_whole(text: str) -> bool:
    """Whether no character of an id was lost on the way: half of an emoji, or U+FFFD that stands for what could not be
    read. Two ids that differed there only would name one thing."""
    return _BROKEN.search(text) is None


def normal(kind: str, value: str) -> str:
    """The one spelling of a personal identifier: e-mail in lower case, phone ``+digits``, card digits.

    Raises:
        ValueError: it is none.
    """
    text = value.strip()
    if kind == "email":
        text = text.lower()
        if not re.fullmatch(r"[^@\s]{1,64}@[^@\s]{1,255}", text):
            raise ValueError("email: an address like a@b.c wanted, got other text")
        return text
    digits = re.sub(r"[\s().\-]", "", text)
    if kind == "phone":
        if not re.fullmatch(r"\+[1-9]\d{6,14}", digits):
            raise ValueError("phone: E.164 like +79161234567 wanted, got other text")
        return digits
    return digits


def _keyed(kind: str, value: str, secret: bytes) -> str:
    digest = hmac.new(secret, f"{kind}:{value}".encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest[:18]).decode()


def tomb_key(address: str, secret: bytes) -> str:
    """What stands for an erased address: a keyed hash, by which it is known again and from which nobody has it back."""
    digest = hmac.new(secret, f"erased:{address}".encode(), hashlib.sha256).digest()
    return f"~{urlsafe_b64encode(digest[:18]).decode()}"


def murmur2(data: bytes) -> int:
    """Kafka's hash of a record key (``org.apache.kafka.common.utils.Utils.murmur2``), unsigned 32 bit."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    count = len(data) >> 2
    # Bits above the 32nd do not reach those below in sums, products and xors: one mask a round is enough.
    for k in _words(count).unpack_from(data):
        k = k * m & mask
        h = (h * m ^ (k ^ k >> 24) * m) & mask
    rest = data[count << 2 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ (h >> 15)


@lru_cache(maxsize=256)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


@lru_cache(maxsize=262_144)
def shard_of(address: str) -> int:
    """The shard of an address: Kafka's own hash of the key mod S, so the default partitioner agrees."""
    return (murmur2(address.encode()) & 0x7FFFFFFF) % SHARDS


def partition_of(shard: int, partitions: int) -> int:
    """The partition that carries a shard; ``partitions`` divides ``SHARDS``."""
    return shard % partitions


def digest64(text: str) -> int:
    """A 64-bit digest of a message's identity, for the ring of the last ones seen."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def message_hash(source: str, message_id: str) -> str:
    """What log lines call a message, 16 hexadecimal digits: its digest in the ring; the id itself may say too much (R25)."""
    return format(digest64(f"{source}\x1f{message_id}"), "016x")


def digest_of(blob: bytes) -> bytes:
    """Sixteen bytes by which bytes are known again."""
    return hashlib.blake2b(blob, digest_size=16).digest()


def trigger_id(trigger: str, step: str, opened_by: str, occasion: str) -> str:
    """The id of one occasion (RELIABILITY R13): the same occasion, the same id, whatever ran it."""
    text = f"{trigger}\x1f{step}\x1f{opened_by}\x1f{occasion}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def small_id(text: str) -> int:
    """A 32-bit name for what a profile keeps often: aggregates, segments, timers. The compiler refuses clashes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
