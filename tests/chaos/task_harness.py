"""Spawns tasks while workers are harmed, waits for their end, and gathers what is known of them."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import redis

from lockbeat import Fixed, Lockbeat
from lockbeat.store.keys import Keys
from lockbeat.tasks import NewTask
from tests import servers
from tests.chaos.harness import NAMESPACE, Arena, Instance, Size
from tests.chaos.task_checker import Effect, Evidence, Given, Known
from tests.chaos.worker import BY_HAND, Orders, work
from tests.proxy import proxy

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.chaos.worker"])

QUEUES = ("default", "mail", "heavy")
PATIENCE = 100
"""Attempts of a task that is to be done: more than it can lose."""
KINDS: dict[str, float] = {
    "noop": 40,
    "sleep": 18,
    "plain": 10,
    "flaky": 10,
    "keyed": 8,
    "once": 8,
    "doomed": 2,
    "brief": 2,
    "hand": 2,
}
"""How many of a hundred tasks are of a kind."""
CHUNK = 250
"""Tasks that are spawned together."""


@dataclass(frozen=True)
class Load:
    """What is to be done, and by how many."""

    tasks: int
    workers: int
    lease: float
    """Seconds."""
    limit: float
    """Seconds in which all has to be done."""
    over: float = 0.0
    """Seconds over which the spawning is spread."""
    kinds: Mapping[str, float] = field(default_factory=lambda: KINDS)
    blocks: int = 0
    """Tasks more, which block the event loop of their worker for three leases."""
    blocks_after: tuple[float, ...] = (0.0,)
    """Seconds that such a body awaits something before it blocks; its worker may claim meanwhile."""
    proxied: bool = False
    """Between everybody and the server is a proxy, which can lose replies."""
    concurrency: int = 20


@dataclass
class Plan:
    """The tasks of a run."""

    tasks: list[NewTask]
    given: list[Given]

    @classmethod
    def of(cls, load: Load) -> Plan:
        dice = random.Random(7)
        kinds = dice.choices(list(load.kinds), weights=list(load.kinds.values()), k=load.tasks)
        for number in range(load.blocks):
            kinds.insert(round(load.tasks * (number + 0.5) / load.blocks), "block")
        pairs = [_task(kind, number, dice, load) for number, kind in enumerate(kinds)]
        return cls([task for task, _ in pairs], [given for _, given in pairs])


def _task(kind: str, number: int, dice: random.Random, load: Load) -> tuple[NewTask, Given]:
    name, raises, most, fleeting = "noop", 0, PATIENCE, False
    params: dict[str, float] = {"number": number}
    options: dict[str, Any] = {"retry": Fixed(0.1), "queue": dice.choice(QUEUES)}
    if dice.random() < 0.1:
        options["delay"] = round(dice.uniform(0.01, 3), 3)
    if dice.random() < 0.2:
        options["priority"] = dice.randint(-49, 49)
    seconds: float = dice.uniform(0.02, 0.2)
    match kind:
        case "sleep":
            name = "sleep"
        case "plain":
            name, seconds = "plain", 0.01
        case "flaky":
            name, raises = "flaky", dice.randint(1, 2)
            options["retry"] = dice.choice((None, Fixed(0.05), Fixed(0.3)))
        case "keyed":
            options["idempotency_key"] = f"key {number}"
        case "once":
            name, most = "sleep", 1
        case "doomed":
            name, most, raises = "flaky", 2, 99
        case "brief":
            options["retention"], fleeting = 0, True
        case "hand":
            options["queue"], seconds, raises = BY_HAND, 0.3, dice.choice((0, 1))
        case "slow_hand":  # taken over, it runs still when the first attempt reports
            options |= {"queue": BY_HAND, "priority": 49}
            seconds, raises = 0.6 * load.lease, dice.choice((0, 1))
        case "long":
            name, seconds = "sleep", 1.5 * load.lease
        case "block":
            name, seconds = "block", 3 * load.lease
            params["first"] = dice.choice(load.blocks_after)
    task = NewTask(name, {**params, "raises": raises, "seconds": seconds}, max_attempts=most, **options)
    return task, Given(kind, most, raises, fleeting)


class Forked:
    """A forked process, with as much of Popen as an Instance asks for. Python takes longer to start than a worker has to live."""

    def __init__(self, orders: Orders) -> None:
        self._process = CONTEXT.Process(target=work, args=(orders,), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a worker", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


class Lossy:
    """A proxy that loses replies, in a thread."""

    def __init__(self, port: int) -> None:
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(port)), daemon=True)
        self._thread.start()
        assert self._up.wait(60), "the proxy does not start"

    async def _serve(self, port: int) -> None:
        async with proxy(port) as self.proxy:
            self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
            self._up.set()
            await self._over.wait()

    def lose_reply(self) -> None:
        """Whatever is asked next is done, and the connection lost before the answer comes."""
        self._loop.call_soon_threadsafe(self.proxy.lose_reply)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)


class Spawning:
    """Spawns what is planned, from a thread: those with a key twice."""

    def __init__(self, url: str, plan: Plan, over: float) -> None:
        self._url = url
        self._plan = plan
        self._over = over
        self.ids: list[str] = []
        self.again: list[tuple[str, str, bool]] = []
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def going_on(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Raises what went wrong with it."""
        self._thread.join(seconds)
        if self._problem is not None:
            raise self._problem
        assert not self.going_on, "the spawning hangs"

    def _run(self) -> None:
        try:
            asyncio.run(self._spawn())
        except BaseException as problem:  # noqa: BLE001 - carried over to who joins
            self._problem = problem

    async def _spawn(self) -> None:
        tasks = self._plan.tasks
        size = CHUNK if self._over == 0 else max(1, len(tasks) // 50)
        async with Lockbeat(self._url, namespace=NAMESPACE) as lb:
            began = time.monotonic()
            for start in range(0, len(tasks), size):
                self.ids += [spawned.task_id for spawned in await lb.tasks.spawn_many(tasks[start : start + size])]
                earlier = range(max(start - size, 0), start)
                await self._once_more(lb, earlier)
                await asyncio.sleep(max(0.0, began + self._over * start / len(tasks) - time.monotonic()))
            await self._once_more(lb, range(start, len(tasks)))

    async def _once_more(self, lb: Lockbeat, numbers: range) -> None:
        keyed = [number for number in numbers if self._plan.tasks[number].idempotency_key is not None]
        answers = await lb.tasks.spawn_many([self._plan.tasks[number] for number in keyed])
        self.again += [(self.ids[number], answer.task_id, answer.created) for number, answer in zip(keyed, answers, strict=True)]


@dataclass
class TaskArena:
    """An arena whose instances are workers, and the tasks that are spawned there."""

    place: Arena
    load: Load
    plan: Plan
    spawning: Spawning | None = None
    began: float = 0.0
    kills: int = 0
    lossy: Lossy | None = None
    harmed: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """When a worker was killed, or from when to when frozen."""

    @property
    def url(self) -> str:
        """Where the store is, for workers and spawners."""
        return self.lossy.proxy.url if self.lossy is not None else self.place.server.url

    def launch(self) -> Instance:
        """Start one more worker."""
        place, load, name = self.place, self.load, f"w{len(self.place.instances) + 1}"
        log = place.directory / f"{name}.log"
        log.touch()
        # Where replies are lost, a claim and the end of its attempt may each take the store's timeout of 5 s.
        by_hand = load.lease + 10 if load.proxied else load.lease
        orders = Orders(name, self.url, NAMESPACE, str(log), str(place.effects), load.lease, by_hand, load.concurrency)
        instance = Instance(name, cast("subprocess.Popen[bytes]", Forked(orders)), log)
        place.instances.append(instance)
        return instance

    def begin(self) -> None:
        """Start the workers and, once they serve, the spawning."""
        self.place.ready(*[self.launch() for _ in range(self.load.workers)])
        self.place.started = self.began = time.monotonic()
        self.spawning = Spawning(self.url, self.plan, self.load.over)

    @property
    def serving(self) -> list[Instance]:
        """Workers that are up and well."""
        return [one for one in self.place.running if not one.frozen and one.said("serving")]

    def kill_one(self) -> None:
        """kill -9 a worker and start another, as soon as half of them serve: starting takes longer than killing."""
        servers.wait_until(lambda: len(self.serving) * 2 >= self.load.workers, "half of the workers serve", 60)
        victim = self.place.random.choice(self.serving)
        victim.kill()
        self.harmed[victim.name].append((time.time(), time.time()))
        self.kills += 1
        self.launch()

    def at_hand(self) -> Instance | None:
        """Who works at a task that it claimed by hand: the harm that the store has to withstand is done to him."""
        assert self.spawning is not None
        by_hand = {task for task, given in zip(self.spawning.ids, self.plan.given, strict=False) if given.kind == "slow_hand"}
        over = set()
        for effect in [Effect(**said) for said in reversed(self.place.told())]:
            if effect.task in by_hand and effect.event != "begin":
                over.add(effect.fence)
            elif effect.task in by_hand and effect.fence not in over:
                return next((one for one in self.serving if one.name == effect.instance), None)
        return None

    def freeze_one(self, seconds: float) -> None:
        """SIGSTOP a worker for so long, then let it go on."""
        victim = self.at_hand() or self.place.random.choice(self.serving)
        self.kills += 1
        began = time.time()
        victim.freeze()
        self.place.sleep(seconds)
        victim.thaw()
        self.harmed[victim.name].append((began, time.time()))

    @property
    def goes_on(self) -> bool:
        """Whether there are tasks left, by the store's own count, and time."""
        if self.place.left <= 0:
            return False
        if self.spawning is None or self.spawning.going_on:
            return True
        key = Keys(NAMESPACE).key(0, "task:stats")
        try:
            reply = self.place.command("HMGET", key, "done", "failed", "lost", "cancelled")
        except redis.RedisError:
            return True
        assert isinstance(reply, list)
        return sum(int(count or 0) for count in reply) < len(self.plan.tasks)

    def await_end(self) -> None:
        """Until no task is left, or no time."""
        while self.goes_on:
            self.place.sleep(0.1)

    def evidence(self, wait_for_retention: bool) -> Evidence:
        """All that is known: of the tasks while the workers are there, of the workers after their end."""
        assert self.spawning is not None
        took = time.monotonic() - self.began
        self.spawning.join(30)
        self.place.ready(*self.place.running)  # before that, SIGTERM is nobody's to handle
        self.place.end()
        evidence = Evidence(
            given=dict(zip(self.spawning.ids, self.plan.given, strict=True)),
            known={},
            effects=[Effect(**said) for said in self.place.told()],
            stats={},
            again=self.spawning.again,
            excused=self.harmed,
            slack=3 + (1.5 * self.load.lease if "long" in self.load.kinds else 0),
            forgotten=wait_for_retention,
            exits=self.place.exits,
            kills=self.kills,
            seconds=took,
        )
        asyncio.run(_ask(self.place.server.url, evidence))
        evidence.stats, evidence.kept, evidence.fleeting = _look(self.place)
        return evidence


async def _ask(url: str, evidence: Evidence) -> None:
    async with Lockbeat(url, namespace=NAMESPACE) as lb:
        if evidence.forgotten:
            await _let_it_forget(lb, sum(given.fleeting for given in evidence.given.values()))
        for info in await lb.tasks.list(limit=1_000_000):
            failure = info.failure.type if info.failure is not None else None
            evidence.known[info.id] = Known(info.state, info.attempts, info.fence, failure)
        queues = (*QUEUES, BY_HAND)
        for queue in queues:
            counts = await lb.tasks.counts(queue)
            evidence.counts[queue] = (counts.ready, counts.delayed, counts.running, counts.dead)
        for queue in queues:
            await lb.tasks.purge(queue)
        evidence.queues = await lb.tasks.queues()


async def _let_it_forget(lb: Lockbeat, fleeting: int) -> None:
    """Outcomes are kept for 20 s at least, for calls that are repeated; any claim then forgets some of those that are over."""
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        await lb.tasks.claim("nobody's", "chaos")
        if fleeting == 0:
            return
        await asyncio.sleep(0.05)


def _look(place: Arena) -> tuple[dict[str, int], dict[str, int], int]:
    """The store's counts, its keys without a TTL, and the number of the others: looked at without lockbeat."""
    kept, fleeting = {}, 0
    with contextlib.closing(redis.Redis(port=place.server.port, protocol=2, socket_timeout=5)) as client:
        sizes: dict[Any, Callable[[Any], Any]] = {b"hash": client.hlen, b"zset": client.zcard, b"string": lambda key: 1}
        prefix = Keys(NAMESPACE).key(0, "")
        for key in client.scan_iter(count=1000):
            if client.pttl(key) != -1:
                fleeting += 1
            else:
                kept[key.decode().removeprefix(prefix)] = sizes[client.type(key)](key)
        stats: Any = client.hgetall(Keys(NAMESPACE).key(0, "task:stats"))
    return {name.decode(): int(count) for name, count in stats.items()}, kept, fleeting


@contextlib.contextmanager
def task_arena(directory: Path, load: Load) -> Iterator[TaskArena]:
    """A server that syncs before it answers, so that killing it takes nothing back; and what is to be done there."""
    data = directory / "data"
    data.mkdir()
    settings = ["appendfsync always", "auto-aof-rewrite-percentage 0"]
    with servers.standalone(servers.valkey_binary(), aof_dir=data, extra=settings) as server:
        made = Arena(directory, server, Size(load.limit, load.workers, 0))
        with contextlib.closing(made), contextlib.ExitStack() as stack:
            lossy = stack.enter_context(contextlib.closing(Lossy(server.port))) if load.proxied else None
            yield TaskArena(made, load, Plan.of(load), lossy=lossy)
