"""``opportune profile …``: what authorised people ask of the workers. Each command waits for its receipt and prints it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from console.commands import Commands, ages_out
from console.register import Register
from console.unmerge import Parter
from opportune.topics import DEAD_LETTER_RETENTION_MS, SEGMENT_MS
from profiles.edits import Edit
from profiles.errors import Refused
from profiles.moments import parse_instant
from profiles.wire import ERASE
from stream import settings as stream_settings
from stream.clock import SystemIds
from stream.log import KafkaLog
from stream.store import RedisStore
from stream.transport import security

WAIT_S: Final = 30.0


async def ask(
    env: Mapping[str, str], send: Callable[[Commands, Parter], Awaitable[str | dict[str, Any]]], wait_s: float = WAIT_S
) -> int:
    """Send a command, wait for its receipt unless it comes at once, and print it; the process's exit code.

    Raises:
        Refused: no secret, or no receipt in time.
        BadInput: what was asked is not well formed.
        OSError: broker or store did not answer.
    """
    agreed, own = stream_settings.read(env)
    if not agreed.secret:
        raise Refused("OPPORTUNE_SECRET: that of the installation wanted, got nothing")
    store, log = RedisStore.of(own), KafkaLog(own)
    try:
        await log.start()
        commands = Commands(store, log, bytes.fromhex(agreed.secret), SystemIds(), on_logs_clock=agreed.clock == "log")
        options = {"bootstrap_servers": own.bootstrap, **security(own)}
        parter = Parter(
            store,
            commands,
            bytes.fromhex(agreed.secret),
            options,
            agreed.partitions,
            on_logs_clock=agreed.clock == "log",
        )
        sent = await send(commands, parter)
        try:
            receipt = sent if isinstance(sent, dict) else await commands.settled(sent, wait_s)
        except TimeoutError:
            raise Refused(
                f"command {sent}: a receipt within {wait_s:g} s wanted, got none yet; it is on the log, look later with "
                f"`opportune profile receipt {sent}`"
            ) from None
    finally:
        await log.stop()
        await store.close()
    return tell(receipt, agreed)


async def reapply(env: Mapping[str, str]) -> int:
    """Erase again whoever a restored backup brought back; the process's exit code.

    Raises:
        Refused: no secret.
        OSError: broker or store did not answer.
    """
    agreed, own = stream_settings.read(env)
    if not agreed.secret:
        raise Refused("OPPORTUNE_SECRET: that of the installation wanted, got nothing")
    secret = bytes.fromhex(agreed.secret)
    store, log = RedisStore.of(own), KafkaLog(own)
    try:
        await log.start()
        options = {"bootstrap_servers": own.bootstrap, **security(own)}
        commands = Commands(store, log, secret, SystemIds(), on_logs_clock=agreed.clock == "log")
        known, told = await Register(store, log, secret, options, agreed.partitions).reapply(await commands.now_ms())
    finally:
        await log.stop()
        await store.close()
    print(f"{known} erased addresses in the register, {told} of them found in the store and told to go again")
    return 0


async def look(env: Mapping[str, str], command_id: str) -> int:
    """Print the receipt of an earlier command; the process's exit code: 1 where there is none, or it was refused."""
    agreed, own = stream_settings.read(env)
    store = RedisStore.of(own)
    try:
        commands = Commands(store, KafkaLog(own), b"", SystemIds())
        receipt = await commands.receipt(command_id)
    finally:
        await store.close()
    if receipt is None:
        raise Refused(f"command {command_id}: a receipt wanted, got none: not taken yet, or more than 30 days ago")
    return tell(receipt, agreed)


def tell(receipt: dict[str, Any], agreed: stream_settings.Agreed) -> int:
    """Print a receipt; with an erasure, until when the log still holds copies."""
    told = dict(receipt)
    if receipt["kind"] == ERASE and receipt["outcome"] == "done":
        at_ms = parse_instant(receipt["at"])
        kept_ms = (agreed.input_retention_ms, agreed.output_retention_ms, DEAD_LETTER_RETENTION_MS, SEGMENT_MS)
        told["ages_out"] = ages_out(receipt, at_ms, *kept_ms)
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    return 0 if receipt["outcome"] == "done" else 1


def edit_of(by: str, why: str, said: list[str], unset: list[str], consents: list[str]) -> Edit:
    """The edit that command-line words mean: ``first_name=Ana``, ``visits=3``, ``email:sale=granted``, ``sms:*=``.

    Raises:
        Refused: a word without ``=``; the message does not repeat it (R25).
    """
    words: dict[str, Any] = {}
    for number, word in enumerate(said, start=1):
        name, sign, value = word.partition("=")
        if not sign:
            raise Refused(f"--set number {number}: name=value wanted, got no '='")
        words[name] = _value(value)
    states: dict[str, str | None] = {}
    for number, word in enumerate(consents, start=1):
        name, sign, value = word.partition("=")
        if not sign:
            raise Refused(f"--consent number {number}: channel:topic=granted, =denied or = wanted, got no '='")
        states[name] = value or None
    return Edit(by, why, words, tuple(unset), states)


def _value(text: str) -> Any:
    """A value as JSON has it, else the text: ``3`` is a number, ``"3"`` and ``Ana`` are texts."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def run(work: Awaitable[int]) -> int:
    """Run one of the above."""

    async def whole() -> int:
        return await work

    return asyncio.run(whole())
