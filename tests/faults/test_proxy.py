"""The proxy does what it is told, and counts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from opportune.parts import HOST
from tests.faults.proxy import Proxy, Weather


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1_000):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_fair_weather_passes_everything_on() -> None:
    async with echoing() as port, Proxy(port, 1) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        for number in range(50):
            writer.write(b"%02d" % number)
            assert await reader.readexactly(2) == b"%02d" % number
        writer.close()
        assert not proxy.bites


async def test_a_reset_cuts_both_sides_off() -> None:
    async with echoing() as port, Proxy(port, 1) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        proxy.weather = Weather(resets=1.0)
        writer.write(b"x")
        try:
            assert await reader.read() == b""
        except ConnectionError:
            pass
        assert proxy.bites["reset"] == 1
        writer.close()


async def test_a_stalled_direction_is_silent_while_the_connection_stands() -> None:
    async with echoing() as port, Proxy(port, 1) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.weather = Weather(stalls=1.0)
        writer.write(b"y")
        while not proxy.bites["stalled"]:
            await asyncio.sleep(0.01)
        proxy.weather = Weather()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        assert not reader.at_eof()
        proxy.cut()
        writer.close()


async def test_the_same_seed_is_the_same_weather() -> None:
    async def story(seed: int) -> list[int]:
        passed = []
        async with echoing() as port, Proxy(port, seed) as proxy:
            proxy.weather = Weather(resets=0.1)
            for _ in range(10):
                reader, writer = await asyncio.open_connection(HOST, proxy.port)
                count = 0
                try:
                    while True:
                        writer.write(b"x")
                        count += len(await reader.readexactly(1))
                except (asyncio.IncompleteReadError, ConnectionError):
                    pass
                passed.append(count)
                writer.close()
        return passed

    assert await story(5) == await story(5) != await story(6)
