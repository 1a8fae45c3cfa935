"""The facade: one object for a store and everything in it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from lockbeat import settings
from lockbeat.calendars import Calendars
from lockbeat.claims import Claims
from lockbeat.claims.table import Table
from lockbeat.connection import check_provider, parse_url
from lockbeat.connection.outage import Outage
from lockbeat.counting import Counting
from lockbeat.errors import LockbeatError
from lockbeat.events import Hooks
from lockbeat.fences import Fenced
from lockbeat.jobs import Jobs
from lockbeat.leases.keeper import Keeper
from lockbeat.locks import Lock, Locks
from lockbeat.store import Store
from lockbeat.store.durable import Durability
from lockbeat.tasks import Tasks
from lockbeat.values.durations import Seconds, seconds
from lockbeat.values.links import check_link


class Lockbeat:
    """A client of one store: `async with Lockbeat(url) as lb:`.

    url: redis:// rediss:// unix:// redis+sentinel://h1:p,h2:p/SERVICE/DB redis+cluster://h:p embedded://[PATH] memory://;
        None: what is configured, else embedded://.
    namespace: keeps programs on one store apart: all keys begin with it. 1 to 64 letters, digits, or any of . _ : / -
    owner: this instance's name; None: one that is unique per process start.
    shards: how many shards the store is to have, fixed once it is in use; None: what it has.
    timeout: seconds after which the store counts as away, and after which a call gives up with StoreUnavailable.
        With more than 10 a call may be repeated so late that the store has forgotten its answer, which it keeps for 20 s.
    credential_provider: a redis.credentials.CredentialProvider, asked for each new connection, also from the keeper's thread.
        Not for embedded:// and memory://.
    stall: seconds without a turn of the event loop after which the keeper renews no lease of this client; None: it always does.
    log_url: where the logs of a run are, such as "https://logs.example/?q={task_id}", for `why`; None: as configured.
    events: hooks that are told of what happens to it, such as a beat's; None: ones of its own, see docs/events.md.

    What is not given of url, namespace, owner, shards and timeout is as configured: by $LOCKBEAT_URL, $LOCKBEAT_NAMESPACE and so
    on, or by [tool.lockbeat] in pyproject.toml, see docs/configuration.md; else "lockbeat" and 5 s.

    Raises: InvalidArgument for an argument that can't be used. On entry: InvalidURL, and StoreUnavailable when the store can't
    be reached within `timeout`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        owner: str | None = None,
        shards: int | None = None,
        timeout: float | None = None,
        credential_provider: Any = None,
        stall: Seconds | None = None,
        events: Hooks | None = None,
        log_url: str | None = None,
    ) -> None:
        self._url = url
        self.events = Hooks.of(events)
        """Its hooks: `@lb.events.lease_lost` above a function."""
        self._stall = None if stall is None else seconds("stall", stall)
        said = settings.all_found(namespace=namespace, owner=owner, shards=shards, timeout=timeout)
        linked = settings.found("log_url", log_url)
        self._log_url = check_link(linked.name, linked.value)
        self._options: dict[str, Any] = {name: one.value for name, one in said.items()}
        self._outage: Outage | None = None
        self.counting: Counting | None = None
        """Where what happens is counted, from when it is opened; `lockbeat.metrics` sets it. None: nowhere."""
        self._options["credential_provider"] = check_provider(credential_provider)
        self._store: Store | None = None
        self._keeper: Keeper | None = None

    def __getstate__(self) -> dict[str, Any]:
        if self.is_open:
            raise TypeError("a Lockbeat that is open can't be copied, nor sent to another process: open one there")
        return self.__dict__

    def __getattr__(self, name: str) -> Any:
        if name in ("calendars", "claims", "fenced", "jobs", "locks", "tasks"):
            raise LockbeatError("not connected: use `async with Lockbeat(...) as lb:`")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def url(self) -> str | None:
        """As it was given."""
        return self._url

    @property
    def namespace(self) -> str:
        """The part of the store that it works in."""
        return str(self._options["namespace"])

    @property
    def is_open(self) -> bool:
        """Whether it is connected: inside of its `async with`."""
        return self._store is not None

    @property
    def store(self) -> Store:
        """The open store. Raises LockbeatError outside of `async with`."""
        if self._store is None:
            raise LockbeatError("not connected: use `async with Lockbeat(...) as lb:`")
        return self._store

    @property
    def keeper(self) -> Keeper:
        """What renews this client's leases. Raises LockbeatError outside of `async with`."""
        if self._keeper is None:
            raise LockbeatError("not connected: use `async with Lockbeat(...) as lb:`")
        return self._keeper

    @property
    def owner(self) -> str:
        return self.store.owner

    async def __aenter__(self) -> Self:
        if self._store is not None:
            raise LockbeatError("already connected: make one Lockbeat for each `async with`")
        # Opened again and again while the store is away, it says so once a minute, and not at each try.
        self._outage = self._outage or Outage(parse_url(self._url).safe)
        self._outage.events = self.events
        self._store = store = await Store.open(self._url, **self._options, outage=self._outage, counting=self.counting)
        store.events, store.log_url = self.events, self._log_url
        self.events.open()
        self._keeper = self._new_keeper(store)
        self._keeper.events = self.events
        self.locks = Locks(store, self._keeper)
        self.claims = Claims(Table(store, self._keeper))
        self.fenced = Fenced(store)
        self.calendars = Calendars(store)
        self.tasks = Tasks(store)
        self.jobs = Jobs(store)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        store, keeper = self.store, self.keeper
        try:
            await keeper.aclose()
            await self.events.aclose(store.timeout)
        finally:
            self._store = None
            await store.aclose()

    def _new_keeper(self, store: Store) -> Keeper:
        return Keeper(store.connector, store.keys, store.timeout, self._stall)

    def lock(self, key: str, ttl: Seconds = 30, wait: Seconds | None = None, *, durability: Durability | None = None) -> Lock:
        """`async with lb.lock("report", ttl=30) as lease:` see `Lock`."""
        self.store.check_loop()
        return self.locks.lock(key, ttl, wait, durability=durability)
