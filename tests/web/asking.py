"""Asking a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

AS_A_BROWSER = {"sec-fetch-site": "same-origin"}
KEY = "k" * 32
"""Of the browser that the tests are."""


@dataclass
class Ask:
    """One who asks."""

    client: httpx.AsyncClient

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def page(self, path: str) -> str:
        """The text of a page that is there."""
        found = await self.get(path)
        assert found.status_code == 200, found.text
        return found.text

    async def token(self, path: str = "/job") -> str:
        """Of a form on a page."""
        found = re.search(r'name="token" value="([0-9a-f]+)"', (await self.get(path)).text)
        return found[1] if found else ""

    async def post(self, path: str, form: dict[str, str], **options: Any) -> httpx.Response:
        return await self.client.post(path, data=form, **options)
