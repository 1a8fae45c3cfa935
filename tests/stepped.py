"""What the machines share that hold a store against a model: a client of memory whose clock stands still but for the machine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import time_machine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine

from lockbeat import Lockbeat
from lockbeat.connection._memory import memory_server

T = TypeVar("T")
START_MS = 1_935_000_000_000
_numbers = itertools.count()


class Forgetful:
    """What a client in memory sends its commands by; some are executed, and the line breaks before the reply comes."""

    def __init__(self, line: Any, machine: Stepped) -> None:
        self._line, self._machine = line, machine

    async def execute_command(self, *command: Any) -> Any:
        reply = await self._line.execute_command(*command)
        if self._machine.to_lose and command[0] in ("EVAL", "EVALSHA"):
            if self._machine.to_pass:
                self._machine.to_pass -= 1
                return reply
            self._machine.to_lose -= 1
            raise ConnectionError("the connection was lost")
        return reply

    async def aclose(self) -> None:
        await self._line.aclose()


class Stepped(RuleBasedStateMachine):
    """Makes one call after the other, each at a moment that it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = START_MS
        self.clock = time_machine.travel(0, tick=False)
        self.travel = self.clock.start()
        self.let_pass(0)
        self.runner = asyncio.Runner()
        name = f"model-{next(_numbers)}"
        self.server, self.url = memory_server(name), f"memory://{name}"
        self.to_lose = 0
        """Of so many runs of scripts to come the reply is lost ..."""
        self.to_pass = 0
        """... after so many that are not."""
        self.clients: list[Lockbeat] = []
        self.lb = self.connect()

    def connect(self) -> Lockbeat:
        """Another client of the store. It is closed at the end."""
        lb = Lockbeat(self.url, namespace="model")
        self.run(lb.__aenter__())
        wire: Any = lb.store.wire(0)
        wire._client = Forgetful(wire._client, self)
        self.clients.append(lb)
        return lb

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @staticmethod
    def instant(ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, UTC)

    def let_pass(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.travel.move_to(self.now_ms / 1000 + 0.0002)  # a float may lie a little before its millisecond

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
    return case
