"""A store: one Redis or Valkey deployment seen under one namespace, by one instance."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from lockbeat.connection import Connector
from lockbeat.connection.outage import Outage
from lockbeat.counting import Counting
from lockbeat.errors import InvalidArgument, NotDurable, StoreFormatError, StoreUnavailable
from lockbeat.events import Hooks
from lockbeat.process import forks
from lockbeat.store.calls import Calls
from lockbeat.store.keys import FORMAT, Keys, shard_of
from lockbeat.store.link import Subscribe, over_client, over_connection
from lockbeat.store.listener import Heard, Listener, Subscribers
from lockbeat.store.replies import sifted
from lockbeat.store.rows import Row
from lockbeat.store.scripts import load, row
from lockbeat.values.checks import whole
from lockbeat.values.durations import seconds
from lockbeat.values.names import check_name

log = logging.getLogger("lockbeat")
T = TypeVar("T")

MOST_SHARDS = 1024


def new_owner() -> str:
    """Unique per process start: two processes of one host and pid (containers) still differ."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _note(done: asyncio.Future[Any]) -> None:
    if not done.cancelled() and done.exception() is not None:
        log.debug("could not take back a call: %s", done.exception())


class Store(Calls):
    """What the layers above share: calls to scripts, notifications, this instance's name.

    Made by `Store.open`; `aclose` gives everything back.
    """

    speaks = FORMAT
    looks = False
    """Whether it was opened only to look."""

    def __init__(self, connector: Connector, keys: Keys, owner: str, shards: int, timeout: float) -> None:
        super().__init__(connector, keys, timeout, self._follow)
        self.connector = connector
        self.owner = owner
        self.shards = shards
        self.loop = asyncio.get_running_loop()
        self._generation = forks.generation
        forks.keep_from_children(self.loop)
        self.row = row
        self.events = Hooks()
        """Who is told of what happens here."""
        self.log_url: str | None = None
        """Where the logs of a run are, as a template."""
        self.counting = connector.counting
        """Where what happens here is counted; None: nowhere."""
        self._undoing: set[asyncio.Task[Any]] = set()
        self.closing = asyncio.Event()
        """Set when the store is about to be closed."""
        self._instance = secrets.token_hex(5)
        self._numbers = itertools.count(1)
        self.channel = keys.channel(f"to:{self._instance}")
        """Where messages to this instance alone arrive."""
        self._listeners: dict[int, Listener] = {}
        self._subscribers = Subscribers()

    @classmethod
    async def open(
        cls,
        url: str | None,
        *,
        namespace: str = "lockbeat",
        owner: str | None = None,
        shards: int | None = None,
        timeout: float = 5.0,
        outage: Outage | None = None,
        counting: Counting | None = None,
        credential_provider: Any = None,
        looks: bool = False,
    ) -> Store:
        """Reach the store and agree on its shards. Raises InvalidArgument before anything is sent, StoreUnavailable.

        outage: what earlier tries to open it have told the log. counting: where what happens is counted.
        looks: leave a store as it is that does not say its format and shards.
        """
        keys = Keys(namespace)
        owner = new_owner() if owner is None else check_name("owner", owner)
        if shards is not None:
            whole("shards", shards, 1, MOST_SHARDS)
        timeout = seconds("timeout", timeout)
        connector = await Connector.open(url, timeout=timeout, credential_provider=credential_provider)
        connector.outage = outage or connector.outage
        connector.counting = counting
        store = cls(connector, keys, owner, 1, timeout)
        store.looks = looks
        try:
            store.shards = await store._agree(shards)
            await store._open_others()
        except BaseException:
            await store.aclose()
            raise
        return store

    async def _agree(self, wanted: int | None) -> int:
        found, _, used, _ = await self._open(0)
        if not found:
            # Nobody has said it: a store of one shard, a new one, or one that lost the key to FLUSHALL and is in use again.
            others = [1] if self.connector.kind == "cluster" else range(1, 32)
            replies = await asyncio.gather(*(self._open(shard, look=True) for shard in others))
            several = any(reply.used for reply in replies)
            if several and wanted is None:
                raise InvalidArgument("shards", "the store was emptied and no longer says how many it has: name the number")
            if several or not used:
                found = wanted or 1
                if found > 1 and not self.looks:
                    found = (await self._open(0, found)).shards
            else:
                found = 1
        if wanted is not None and wanted != found:
            raise InvalidArgument("shards", f"the store has {found}, not {wanted}, and keeps them while in use")
        return int(found)

    async def _open_others(self) -> None:
        """See to the format of the other shards, too: on a Cluster, one may have been restored alone, or be away now."""
        others = await asyncio.gather(*map(self._open, range(1, self.shards)), return_exceptions=True)
        for problem in others:
            if isinstance(problem, BaseException) and not isinstance(problem, StoreUnavailable):
                raise problem

    async def _open(self, shard: int, shards: int = 0, *, look: bool = False) -> Any:
        """`store/open`; with `look`, nothing is written. Raises StoreFormatError."""
        reply = await self.call("store/open", shard, shards=shards, format=0 if look or self.looks else self.speaks)
        if reply.format not in (0, self.speaks):
            where = f"{self.connector.location}, namespace {self.keys.namespace!r},"
            problem = StoreFormatError(where, reply.format, self.speaks)
            self.refuse(problem)
            raise problem
        return reply

    def is_agreed(self, shard: int, found: int, shards: int) -> bool:
        """Whether a shard says which format it is in, and shard 0 how many there are; else `reassert`."""
        return found == self.speaks and (shard > 0 or self.shards in (1, shards))

    async def reassert(self) -> None:
        """Say again which format the store is in, and how many shards it has; whoever comes after a FLUSHALL must not guess.

        Raises StoreFormatError, as every call does from then on: another version came first.
        """

        async def one_shard(shard: int) -> Any:
            return await self._open(shard, self.shards if shard == 0 and self.shards > 1 else 0)

        found = (await self.on_every_shard(one_shard))[0].shards
        if self.shards > 1 and found != self.shards:
            log.error("the store has %d shards by now, this instance works on %d: restart it", found, self.shards)

    def shard_of(self, name: str) -> int:
        return shard_of(name, self.shards)

    def new_call(self) -> str:
        """An id for a call, never used before by anybody."""
        return f"{self._instance}.{next(self._numbers)}"

    def undo(self, row: Row, shard: int, *, lasts: float, durably: bool = False) -> asyncio.Future[Any]:
        """Send a call that takes back an earlier one whose caller has gone; nobody need wait for the future.

        `lasts`: seconds after which what it gives back has ended by itself. Until then it is sent again while the store is away.
        `durably`: the earlier one was a durable call, which travels on another connection: let those on their way there be
        executed first.
        """
        before = self.unanswered(shard) if durably else None
        if before:
            return self.settle(self._undo_after(set(before), row, shard, lasts))
        future = self.submit(row, shard, last=True, lasts=lasts)
        future.add_done_callback(_note)
        return future

    async def _undo_after(self, before: set[asyncio.Future[Any]], row: Row, shard: int, lasts: float) -> Any:
        await asyncio.wait(before)
        return await self.submit(row, shard, last=True, lasts=lasts)

    def settle(self, undoing: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run what takes something back, though its caller has gone. `aclose` waits for it, for the timeout."""
        task = self.loop.create_task(undoing)
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        task.add_done_callback(_note)
        return task

    async def take_back(self, problem: BaseException, row: Row, shard: int, *, lasts: float, durably: bool) -> None:
        """`undo` a call that ended in `problem`. NotDurable is for the caller to raise only when that has run: nothing is held.

        Otherwise nothing is awaited, for the caller may have been cancelled.
        """
        undone = self.undo(row, shard, lasts=lasts, durably=durably)
        if isinstance(problem, NotDurable):
            await asyncio.wait((undone,), timeout=self.timeout)

    async def until_done(self, name: str, **args: Any) -> int:
        """Call a script on every shard, in pages, until it has no more to do; how much it did.

        It replies {done, cursor, *unreadable}; a line in the log names each of the last.
        """
        argv = load(name).argv

        async def one_shard(shard: int) -> int:
            count, after = 0, b""
            while True:
                call = self.new_call()
                given = {word: value for word, value in (("after", after), ("call", call)) if word in argv}
                done, after, unreadable = await self.call_named(name, shard, call, **args, **given)
                sifted(unreadable)
                count += int(done)
                if not after:
                    return count

        return sum(await self.on_every_shard(one_shard))

    def listen(self, heard: Heard, on_gap: Callable[[], None], *, bell: int | None = None) -> Callable[[], None]:
        """Be told of messages to this instance, or on the `bell` of a shard, and of times when some may have been lost.

        Returns what ends that. They reach this instance once `listening` has returned.
        """
        return self._subscribers.add(self.channel if bell is None else self.bell(bell), heard, on_gap)

    async def listening(self, shard: int) -> None:
        """Wait until messages from scripts on `shard` reach this instance. Raises StoreUnavailable."""
        place = self.place(shard)
        listener = self._listeners.get(place)
        if listener is None:
            channels = self.channel, *self._bells(place)
            listener = self._listeners[place] = Listener(
                self._subscribe(place), channels, self._subscribers, self.timeout, self.connector.outage
            )
        await listener.ready()

    def unheard(self, shard: int) -> None:
        """A script on `shard` has met nobody on our channel: perhaps we listen to a server that it does not run on."""
        if (listener := self._listeners.get(self.place(shard))) is not None:
            listener.doubt()

    def doubt(self) -> None:
        super().doubt()
        for listener in self._listeners.values():
            listener.begin_anew()

    def _follow(self, place: int) -> None:
        if (listener := self._listeners.get(place)) is not None:
            listener.follow()

    def bell(self, shard: int) -> str:
        """The channel on which scripts of a shard tell every instance that there may be something to do."""
        return self.keys.key(shard, "bell")

    def _bells(self, place: int) -> list[str]:
        shards = [place] if self.connector.kind == "cluster" else range(self.shards)
        return [self.bell(shard) for shard in shards]

    def _subscribe(self, shard: int) -> Subscribe:
        connector, key = self.connector, self.keys.key(shard, "fence")
        if connector.kind == "memory":
            return partial(over_client, connector.memory_client())
        # On a Cluster PUBLISH counts only those who listen at the node that runs the script: be one of them.
        connect, probe = partial(connector.dedicated_for_key, key), partial(self._probe, shard)
        return partial(over_connection, connect, probe, self.timeout)

    def _probe(self, place: int) -> None:
        """Send ourselves a message by the way of the calls. If nobody listens at the server that it meets, be one who does."""

        def counted(done: asyncio.Future[int]) -> None:
            if not done.cancelled() and done.exception() is None and done.result() == 0:
                self._follow(place)

        self.wire(place).command("PUBLISH", self.channel, "").add_done_callback(counted)

    async def server_ms(self, shard: int) -> int:
        """The clock of a shard's server, in ms since the Unix epoch."""
        return int((await self._open(shard, look=True)).now_ms)

    async def server_time(self) -> float:
        return await self.server_ms(0) / 1000

    def check_loop(self) -> None:
        """Raises StoreError when called from another event loop than the one that opened the store, or in a forked child."""
        if asyncio._get_running_loop() is not self.loop:
            raise forks.foreign(self._generation)

    async def aclose(self) -> None:
        """Hang up. Idempotent; bounded by the timeout."""
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            await listener.aclose()
        self.closing.set()
        if self._undoing:
            await asyncio.wait(self._undoing, timeout=self.timeout)
            for task in self._undoing:
                task.cancel()
        await super().aclose()
        await self.connector.aclose()
