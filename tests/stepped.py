"""What the machines share that hold a store against a model: a client of memory whose clock stands still but for the machine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine

from lockbeat import Lockbeat
from lockbeat.connection._memory import memory_server
from lockbeat.testing.clock import Clock
from lockbeat.testing.faults import Faults, put_between

T = TypeVar("T")
START_MS = 1_935_000_000_000
_numbers = itertools.count()


class Stepped(RuleBasedStateMachine):
    """Makes one call after the other, each at a moment that it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.faults = Clock(START_MS), Faults()
        self.clock.start()
        self.runner = asyncio.Runner()
        name = f"model-{next(_numbers)}"
        self.server, self.url = memory_server(name), f"memory://{name}"
        self.clients: list[Lockbeat] = []
        self.lb = self.connect()

    def connect(self) -> Lockbeat:
        """Another client of the store. It is closed at the end."""
        lb = Lockbeat(self.url, namespace="model")
        self.run(lb.__aenter__())
        put_between(lb, self.faults)
        self.clients.append(lb)
        return lb

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @staticmethod
    def instant(ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, UTC)

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms

    def let_pass(self, milliseconds: int) -> None:
        self.clock.move_to(self.now_ms + milliseconds)

    def at_the_end(self) -> None:
        """What is so when all rules were run."""

    def teardown(self) -> None:
        try:
            self.at_the_end()
            for lb in self.clients:
                self.run(lb.__aexit__(None, None, None))
        finally:  # or the clock stands still for the tests that follow
            self.clock.stop()
            self.runner.close()


def played(machine: type[RuleBasedStateMachine], examples: int, steps: int = 40) -> Any:
    """The machine as a test."""
    case: Any = machine.TestCase
    case.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case.pytestmark = pytest.mark.long
    return case
