"""The ``ProfileStore`` port, in memory and in Redis: two adapters, one meaning, one suite (tests/contracts).

The unit of everything is a shard's write: profiles, alarms, outbox, cursor, memberships and the new token, whole or
not at all, and only if the store still holds the token that the writer holds. So state and cursor go
back together when Redis forgets a suffix, and a worker that lost its partition can no longer write.

In Redis all keys of a shard share a hash tag, hence a slot:

    {17}cur           hash    token, cursor (JSON), clock (epoch ms), generation, products, written (how often), and the latest
                              lives: "<token of a claim>:<number of its write>", oldest first
    {17}p:<address>   string  a profile's blob
    {17}tm            zset    address -> due, epoch ms: one alarm a profile
    {17}ob            list    packed records, oldest first: written, not yet known to be published
    {17}no            list    addresses by ordinal: the small number by which a bitmap knows a profile
    {17}s:<segment>   string  bitmap over ordinals: the members
    {17}pr            hash    product id -> the product; how often it was written, in cur
    {17}ix:<product>  set     ordinals of those whom news of the product may interest
    {17}taken         hash    "<sending shard> <topic>" -> "<offset> <ordinal>" of the last command taken
    {17}er            hash    keyed hash of an erased address -> its tombstone
    {17}r:<command>   string  receipt of an operator's command that was done (JSON), for 30 days
    {17}rf:<command>  string  why one was refused (JSON), for 30 days
    {17}u:<address>   list    what undoes the latest merges into the address, newest first, for 30 days
    wm                hash    partition -> "<low time> <store's clock when it was put>"
    doc:<name>        string  a small document of the whole installation

A membership costs a bit, rounded up to its neighbours', where a member of a Redis set would cost 64 bytes.
"""

from stream.store_memory import MemoryStore
from stream.store_redis import RedisStore

__all__ = ["MemoryStore", "RedisStore"]
