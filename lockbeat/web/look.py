"""What a page is made from: the store, the question, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lockbeat.client import Lockbeat
from lockbeat.errors import InvalidArgument
from lockbeat.values.names import check_name
from lockbeat.web.asked import Asked
from lockbeat.web.guard import Guard
from lockbeat.web.rates import Looks


@dataclass(frozen=True)
class Page:
    """A template, and the words that it needs."""

    template: str
    words: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """One look at the store by one user."""

    lb: Lockbeat
    asked: Asked
    guard: Guard
    show_params: bool
    looks: Looks
    """What all who look share: the counts of the looks before."""

    async def now(self) -> float:
        """The server's clock, in seconds since the Unix epoch; one command, where `server_time` looks at the format as well."""
        seconds, micros = await self.lb.store.wire(0).command("TIME")
        return int(seconds) + int(micros) / 1e6

    async def may(self, *actions: str, target: str = "") -> frozenset[str]:
        """Which of the actions this user may do to that job, task or queue."""
        return frozenset([action for action in actions if await self.guard.may(self.asked.user, action, target)])

    def text(self, argument: str, most: int = 1024) -> str | None:
        """A word of the query as a name; None: it is not there. Raises InvalidArgument."""
        said = self.asked.query.get(argument)
        return None if said is None else check_name(argument, said, most)

    def one_of(self, argument: str, *known: str) -> str | None:
        """The same, of a few. Raises InvalidArgument."""
        said = self.asked.query.get(argument)
        if said is not None and said not in known:
            raise InvalidArgument(argument, f"must be one of {', '.join(known)}, not {said[:80]!r}")
        return said

    def number(self, argument: str, least: int, most: int) -> int | None:
        """A whole number of the query. Raises InvalidArgument."""
        return number(argument, self.asked.query.get(argument), least, most)


def number(argument: str, said: str | None, least: int, most: int) -> int | None:
    """A whole number of a query or form; None: it is not there. Raises InvalidArgument."""
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) <= 15 and least <= int(said) <= most):
        raise InvalidArgument(argument, f"must be a whole number from {least} to {most}, not {said[:40]!r}")
    return int(said)
