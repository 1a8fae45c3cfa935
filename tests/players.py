"""Many clients of one store at once, which write down what they ask and are told; some lose replies, some are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from lockbeat import Lockbeat
from lockbeat.errors import StoreUnavailable
from tests.conftest import Backend, Connect, wait_until
from tests.history import History, Model, Op, Undecided, explain
from tests.proxy import Proxy, proxy

T = TypeVar("T")
ENDS = {"release", "release_all", "leave", "undo", "give_back", "complete", "fail", "defer", "cancel"}
"""Verbs whose calls the store knows again when they are repeated: the last eight or so of a key."""

MOST_OPEN = 8
"""Calls on a key that may have run at any time since, or never: each can double the orders that are to be tried."""

MOST_SENDINGS = 3
"""Of one call that are entered beside the last: each doubles the orders, too."""


@dataclass
class Player:
    """A user of a client, with an owner's name."""

    name: str
    lb: Lockbeat
    owner: str
    history: History
    dice: random.Random
    shared: dict[str, Any]
    """What all players know of each other."""
    lossy: Proxy | None = None
    """What its calls go through, if their replies may get lost."""
    rash: bool = False
    """Its calls are cancelled now and then."""
    given_up: list[tuple[Op, int]] = field(default_factory=list)
    """Calls that have perhaps not reached the store yet, and how many connections had been lost when they were made."""

    @property
    def lost(self) -> int:
        """How many connections it has lost, and with each perhaps a reply, after which a call is sent anew.

        Those that a proxy breaks, and those that the client gives up: a test that was stopped for a moment missed a reply.
        """
        return sum(max(wire._lines - 1, 0) for wire in self.lb.store._wires.values())

    async def run(self, run: Awaitable[T], loss: float = 0.2) -> T:
        """Await a call; perhaps it loses its reply, or is cancelled once it has begun."""
        if self.lossy and not self.lossy._matches and self.dice.random() < loss:
            self.lossy.lose_reply(lambda request: b"EVAL" in request, self.dice.choice([1, 1, 2]))
        task = asyncio.ensure_future(run)
        if self.rash and self.dice.random() < 0.3:
            await asyncio.wait((task,), timeout=self.dice.choice([0, 0, 0.0002, 0.001]))
            task.cancel()
        return await task

    async def call(
        self, key: str, verb: str, run: Awaitable[T], reply: Callable[[T], Any] = lambda said: said, **args: Any
    ) -> Op:
        """Make a call, and write down how it went."""
        op, lost = self.history.call(self.name, key, verb, **args), self.lost
        try:
            self.history.told(op, reply(await self.run(run)))
        except (asyncio.CancelledError, StoreUnavailable):
            self.give_up(op, lost)
            raise
        finally:
            if not self.remembered(op):
                self.history.also(op, min(self.lost - lost, MOST_SENDINGS))
        return op

    def remembered(self, op: Op) -> bool:
        """Whether the store surely knows a repeated call for what it is."""
        others = [one for one in self.history.ops[op.number + 1 :] if one.key == op.key and one.verb in ENDS]
        return op.verb in ("enter", "spawn") or (op.verb in ENDS and len(others) < 8)

    def give_up(self, op: Op, lost: int) -> None:
        """Nobody will hear of the call, made when so many connections had been lost."""
        self.given_up.append((op, lost))

    async def settle(self) -> None:
        """What was given up before this is over after it, and what follows it, too: a server answers one call after the other.

        Not so when the connection broke in between: then what follows a cancelled call may never have been sent.
        """
        given_up, self.given_up = self.given_up, []
        for _ in range(4):  # a cancelled claim of tasks is followed by another call, some turns after it was answered
            await asyncio.sleep(0)
            await self.read_clocks()
        for op, lost in given_up:
            if lost == self.lost:
                self.history.closed([op])
            else:
                self.history.left_open[op.key] += 1

    async def read_clocks(self) -> None:
        """Every shard's."""
        for shard in range(self.lb.store.shards):
            before = monotonic()
            self.history.clock.sample(before, await self.lb.store.server_ms(shard), monotonic())

    async def play(self, until: float, keys: list[str], move: Callable[[Player, str], Awaitable[None]]) -> None:
        """Make moves on one key or another until the time is over, or too much on each is open for its history to be judged."""
        while monotonic() < until and (judged := [key for key in keys if self.history.left_open[key] < MOST_OPEN]):
            await asyncio.sleep(self.dice.choice([0, 0, 0.001, 0.005]))
            with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
                await move(self, self.dice.choice(judged))
            if self.given_up:
                await self.settle()


class Arena:
    """Where they play."""

    def __init__(self, dice: random.Random, connect: Connect, backend: Backend, namespace: str) -> None:
        self.history = History()
        self.players: list[Player] = []
        self.shared: dict[str, Any] = {}
        self.stack = contextlib.AsyncExitStack()
        self._dice, self._connect, self._backend, self._namespace = dice, connect, backend, namespace

    async def add(self, owner: str, *, lossy: bool = False, rash: bool = False, beside: Player | None = None) -> Player:
        """Another client, or another user of the same. On a cluster none loses replies: no proxy stands before its nodes."""
        line = None
        if beside is not None:
            lb = beside.lb
        elif lossy and self._backend.name != "cluster":
            line = await self.stack.enter_async_context(proxy(self._backend.servers[0].port))
            self.stack.push_async_callback(wait_until, partial(_left_alone, line), "the proxy is left alone")
            lb = await self.stack.enter_async_context(Lockbeat(line.url, namespace=self._namespace))
        else:
            lb = await self.stack.enter_async_context(self._connect())
        dice = random.Random(self._dice.random())
        player = Player(f"c{len(self.players)}", lb, owner, self.history, dice, self.shared, line, rash)
        self.players.append(player)
        return player

    async def fill(self, owners: int = 4) -> None:
        """Ten clients: of owners of their own, of such that share one, lossy ones and rash ones; and two users beside others."""
        for number in range(owners):
            await self.add(f"owner{number}")
        for number in range(3):
            await self.add(f"lossy{number % 2}", lossy=True)
        for number in range(3):
            await self.add(f"rash{number % 2}", rash=True)
        for number in range(2):
            await self.add(f"owner{number}", beside=self.players[number])

    async def play(self, seconds: float, keys: list[str], move: Callable[[Player, str], Awaitable[None]]) -> None:
        """All play at once."""
        for _ in range(20):
            await self.players[0].read_clocks()
        until = monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for player in self.players:
                group.create_task(player.play(until, keys, move))

    def explained(self, model: Model[Any], least: int, undecided: int = 0, most: int = 50_000) -> None:
        """Some order of events explains what everybody was told. At least so many calls were made.

        `undecided`: on so many keys there may be too many possible orders: after `most` states.
        """
        assert len(self.history.ops) > least
        for ops in self.history.keys().values():
            try:
                problem = explain(ops, model, most)
            except Undecided:
                undecided -= 1
                if undecided < 0:
                    raise
            else:
                assert problem is None, str(problem)


def _left_alone(line: Proxy) -> bool:
    return not line._links


def at_once(player: Player, verb: str, keys: Iterable[str], **args: Any) -> list[Op]:
    """One call that acts on many keys, and tells nothing of each."""
    return [player.history.call(player.name, key, verb, **args) for key in keys]
