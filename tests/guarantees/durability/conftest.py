"""Clients of a primary that has a replica."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lockbeat import Lockbeat
from tests.guarantees.conftest import Pair


@pytest.fixture
async def lb(pair: Pair, namespace: str) -> AsyncIterator[Lockbeat]:
    async with Lockbeat(pair.primary.url, namespace=namespace) as client:
        yield client


@pytest.fixture
async def other(pair: Pair, namespace: str) -> AsyncIterator[Lockbeat]:
    async with Lockbeat(pair.primary.url, namespace=namespace) as client:
        yield client
