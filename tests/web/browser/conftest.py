"""The page in a real browser: one browser and one server for all tests of a module, a namespace for each test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import redis
from playwright.async_api import Browser

from tests import servers
from tests.conftest import leaks
from tests.hanging import hung
from tests.servers import Server
from tests.web.browsing import SPACE, Site, fill, launched, served


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.standalone(servers.valkey_binary()) as started:
        yield started
        with contextlib.closing(redis.Redis(port=started.port, protocol=2, socket_timeout=30)) as client:
            assert [*leaks(client, SPACE)] == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(server: Server) -> AsyncIterator[Site]:
    """A store that was in use, with a run that hangs. Tests look at it, and change what no other looks at."""
    async with served(server) as site:
        await fill(site.lb)
        with contextlib.closing(redis.Redis(port=server.port, protocol=2, socket_timeout=30)) as raw:
            task, _ = await hung(site.lb, raw, lease=3600)
        yield site
        await site.lb.tasks.release(task)


@pytest_asyncio.fixture(loop_scope="module")
async def site(server: Server) -> AsyncIterator[Site]:
    async with served(server) as made:
        yield made
