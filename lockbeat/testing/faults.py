"""What goes wrong between a store in memory and its clients; nothing, until a test says so."""

from __future__ import annotations

from typing import Any

from lockbeat.client import Lockbeat
from lockbeat.errors import InvalidArgument
from lockbeat.store.memory import MemoryWire
from lockbeat.store.scripts import load, names
from lockbeat.values.checks import whole

MOST = 1000


class Faults:
    """What all clients of a test's store meet."""

    def __init__(self) -> None:
        self.away = False
        """Nothing gets through."""
        self.to_lose = 0
        """Of so many runs of scripts to come the reply is lost ..."""
        self.to_pass = 0
        """... after so many that are not."""
        self._only: tuple[str, ...] = ()

    def lose(self, script: str | None = None, times: int = 1) -> None:
        """Lose the replies to the next runs, in place of what was to be lost so far.

        script: only of this one, such as "task/complete". Raises InvalidArgument.
        """
        whole("times", times, 1, MOST)
        if script is not None and script not in names():
            raise InvalidArgument("script", f"{script!r} is none of {', '.join(names())}")
        self._only = () if script is None else (load(script, bare=True).sha, load(script, bare=True).source)
        self.to_pass, self.to_lose = 0, times

    def loses(self, command: tuple[Any, ...]) -> bool:
        """Whether the reply to this one, which was executed, is lost."""
        if not self.to_lose or command[0] not in ("EVAL", "EVALSHA") or (self._only and command[1] not in self._only):
            return False
        if self.to_pass:
            self.to_pass -= 1
            return False
        self.to_lose -= 1
        return True


class Line:
    """What a client in memory sends its commands by."""

    def __init__(self, line: Any, faults: Faults) -> None:
        self._line, self._faults = line, faults
        self.dead = False
        """Its process was killed: it says nothing more, and tries nothing again."""

    async def execute_command(self, *command: Any) -> Any:
        if self.dead:
            raise RuntimeError("its instance was killed")
        if self._faults.away:
            raise ConnectionError("the store is away")
        reply = await self._line.execute_command(*command)
        if self._faults.loses(command):
            raise ConnectionError("the connection was lost before the reply came")
        return reply

    async def aclose(self) -> None:
        await self._line.aclose()


def put_between(client: Lockbeat, faults: Faults) -> Line:
    """Send what an open client of `memory://` says by way of these faults from now on."""
    wire = client.store.wire(0)
    assert isinstance(wire, MemoryWire)
    wire.client = line = Line(wire.client, faults)
    return line
