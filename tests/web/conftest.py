"""The page, asked as a browser asks it, without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from lockbeat import Lockbeat
from lockbeat.web import dashboard
from lockbeat.web.guard import COOKIE
from tests.web.asking import AS_A_BROWSER, KEY, Ask


@pytest.fixture
async def ask(lb: Lockbeat) -> AsyncIterator[Callable[..., Ask]]:
    """Makes a page over the test's store, and who asks it: `ask(user=..., allow=...)`."""
    clients: list[httpx.AsyncClient] = []

    def made(app: Any = None, **options: Any) -> Ask:
        if app is None:
            if "user" not in options and "basic" not in options:
                options["user"] = lambda scope: "alice"
            app = dashboard(lb, **options)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://page.test", headers=AS_A_BROWSER, cookies={COOKIE: KEY}
        )
        clients.append(client)
        return Ask(client)

    yield made
    for client in clients:
        await client.aclose()
