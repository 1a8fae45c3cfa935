"""A server that is slow is examined within a bound, and no connection is left open by that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from lockbeat import Lockbeat
from lockbeat.monitor import examine
from tests.conftest import only, wait_until
from tests.web.asking import Ask

valkey = only("valkey")


@pytest.fixture
def held(lb: Lockbeat, raw: Any) -> Iterator[None]:
    """The server holds back what may write, scripts among it."""
    raw.client_pause(600_000, all=False)
    yield
    raw.client_unpause()


def connections(raw: Any) -> set[str]:
    return {client["id"] for client in raw.client_list()}


@valkey
async def test_what_was_found_within_the_bound_is_told(lb: Lockbeat, raw: Any, held: None) -> None:
    connector, before, within, found = lb.store.connector, connections(raw), 0.25, set[str]()
    while "server" not in found:  # however slow this machine is
        findings = await examine(connector, lb.namespace, 60, within=within)
        found, within = {finding.check for finding in findings}, within * 2
        assert (findings[-1].check, findings[-1].state) == ("time", "unknown")
    assert "scripts" not in found
    await wait_until(lambda: connections(raw) <= before, "no connection is left open")


@valkey
async def test_one_that_is_cancelled_leaves_no_connection_open(lb: Lockbeat, raw: Any, held: None) -> None:
    before = connections(raw)
    async with anyio.create_task_group() as group:
        group.start_soon(examine, lb.store.connector, lb.namespace, 60)
        await wait_until(lambda: connections(raw) - before, "it is connected")
        group.cancel_scope.cancel()
    await wait_until(lambda: connections(raw) <= before, "no connection is left open")


@valkey
async def test_the_page_of_a_slow_store_is_shown_all_the_same(
    lb: Lockbeat, raw: Any, held: None, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["lockbeat.web.pages.store"], "EXAMINED", 0.25)
    text = await ask().page("/store")
    assert "not all of it was seen" in text
    assert "What it holds" in text
