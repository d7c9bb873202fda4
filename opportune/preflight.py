"""Before a worker starts in production: what would break a guarantee is told, all at once, and nothing starts (R28)."""

from __future__ import annotations

from opportune.topics import agreed_topics, check_topics
from stream.rulebook import load, stays_in_force
from stream.settings import Settings
from stream.store import RedisStore
from stream.transport import security
from stream.worker import lost


async def violations(settings: Settings) -> list[str]:
    """What is wrong with topics and store, a sentence each; empty when a worker may start.

    Raises:
        Refused, BadDocument: the rules are not to be had.
        OSError: the brokers or the store do not answer.
    """
    agreed, own = settings
    book = load(own.rules, zone=agreed.zone, currency=agreed.currency)
    store = RedisStore.of(own)
    try:
        staying = await stays_in_force(store, book)
        triggers = (staying.rulebook if staying is not None else book).triggers
        wrong = await check_topics(own.bootstrap, agreed_topics(agreed, triggers), security=security(own))
        if not agreed.secret:
            # Tombstones of erased people lie under hashes that it keys.
            wrong.append("OPPORTUNE_SECRET: at least 32 hexadecimal digits wanted, got nothing")
        of_store = await store.check(relaxed=False)
        wrong += of_store or await lost(store, settings)
    finally:
        await store.close()
    return wrong
