"""An API over a filled store, for every test of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.console.filled import Shell
from tests.rules.told import shop_rules

SHOP = shop_rules()


@pytest.fixture
async def shell() -> Shell:
    made = Shell(rulebook=SHOP)
    await made.announce()
    return made


@pytest.fixture
async def client(shell: Shell) -> AsyncIterator[httpx.AsyncClient]:
    async with shell.client() as made:
        yield made
