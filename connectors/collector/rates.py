"""How often somebody may ask: a bucket of tokens for everybody, one for each write key, one for each address.

A bucket holds a second's worth; a request takes one token, and what is empty tells when it will have one again. Addresses
are remembered so far: who was not heard of for longest is forgotten first, and begins with a full bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

ADDRESSES_MAX: Final = 20_000


class Bucket:
    """So many tokens a second, and as many at once."""

    __slots__ = ("_at_s", "_per_s", "_tokens")

    def __init__(self, per_s: int, now_s: float) -> None:
        self._per_s = per_s
        self._tokens = float(per_s)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """0: there is one. Otherwise in how many seconds there will be; takes nothing."""
        self._tokens = min(self._per_s, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._per_s

    def take(self) -> None:
        """Take one, after ``wait_s`` has said that it is there."""
        self._tokens -= 1


class Rates:
    """The bounds of a collector; 0 is none, and costs nothing.

    Args:
        per_s: requests a second of all together.
        key_per_s: of one write key.
        address_per_s: of one IP address.
    """

    def __init__(self, per_s: int, key_per_s: int, address_per_s: int) -> None:
        self.per_key = key_per_s
        self.per_address = address_per_s
        self._per_s = per_s
        self._all: Bucket | None = None
        self._keys: dict[str, Bucket] = {}
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()

    def of_all(self, address: str, now_s: float) -> float:
        """A request comes; 0: it may, by all together and by its address, or in how many seconds.

        Args:
            address: of the client; read only where ``per_address`` is not 0.
        """
        if not (self._per_s or self.per_address):
            return 0.0
        buckets = []
        if self._per_s:
            if self._all is None:
                self._all = Bucket(self._per_s, now_s)
            buckets.append(self._all)
        if self.per_address:
            bucket = self._addresses.get(address)
            if bucket is None:
                if len(self._addresses) >= ADDRESSES_MAX:
                    self._addresses.popitem(last=False)
                bucket = self._addresses[address] = Bucket(self.per_address, now_s)
            else:
                self._addresses.move_to_end(address)
            buckets.append(bucket)
        return _taken(buckets, now_s)

    def of_key(self, name: str, now_s: float) -> float:
        """It has this source's key; the same.

        Args:
            name: the source's, which configuration has given: there are as many as keys.
        """
        if not self.per_key:
            return 0.0
        bucket = self._keys.get(name)
        if bucket is None:
            bucket = self._keys[name] = Bucket(self.per_key, now_s)
        return _taken([bucket], now_s)


def _taken(buckets: list[Bucket], now_s: float) -> float:
    """Take one of each if all have one: who is refused by one has used up nothing of another."""
    wait_s = max((bucket.wait_s(now_s) for bucket in buckets), default=0.0)
    if wait_s == 0.0:
        for bucket in buckets:
            bucket.take()
    return wait_s
