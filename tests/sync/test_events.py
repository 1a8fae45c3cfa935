"""Hooks and webhooks of a blocking beat and a blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lockbeat.alarms import Webhook
from lockbeat.errors import LeaseLost
from lockbeat.sync import Beat, Lockbeat
from tests.alarms.services import services
from tests.conftest import PATIENCE, only


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@only("valkey")
def test_a_blocking_beat_tells_its_hooks_and_its_webhooks(url: str, namespace: str) -> None:
    told: list[Any] = []
    with services() as receiver:
        beat = Beat(url, namespace=namespace, grace=1, monitors=[Webhook(f"{receiver.url}/hook", secret="s" * 20)])

        @beat.events.task_dead
        def dead(event: Any) -> None:
            told.append((event.name, threading.current_thread().name))

        @beat.events.run_failed
        async def failed(event: Any) -> None:
            told.append((event.name, event.again))

        @beat.task(max_attempts=1)
        def mail() -> None:
            raise ValueError("no luck")

        with beat.lifespan():
            beat.spawn("mail")
            wait_for(lambda: len(told) == 2 and receiver.hooks)
        assert {*told} == {("mail", "hook of task_dead"), ("mail", False)}
        assert len(receiver.hooks) == 1
        assert receiver.complaints == []


@only("valkey")
def test_a_blocking_client_is_told_of_a_lease_that_is_lost(url: str, namespace: str) -> None:
    told: list[Any] = []
    with Lockbeat(url, namespace=namespace) as lb:
        lb.events.lease_lost(told.append)
        assert Beat(lb).events is lb.events
        with pytest.raises(LeaseLost), lb.lock("k", ttl=3) as lease:
            lb.locks.release_all(lease.owner)
            wait_for(lambda: told)
        assert (told[0].kind, told[0].key) == ("lock", "k")
