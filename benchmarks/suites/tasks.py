"""Task queues: tasks that do nothing, as fast as one worker process runs them; from spawn to start; commands; idle."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import Apart, Bench, Child, Failed, Monitor, Seen, percentile, scripts_seen, server, spread

from tests.servers import Server

CONCURRENCIES = (1, 10, 100)
COMMANDS_AT = 10
CALLERS = 32
"""Spawn at once, where a queue has no call for many; as many as in the peers' own benchmarks."""


@dataclass(frozen=True)
class Queue:
    contender: str
    keeps: str
    """What is left of a task in the store when it has ended, by default."""
    settings: dict[str, Any] = field(default_factory=dict)
    looks_every: float = 0.0
    """Seconds, where it polls: its pauses must differ by as much."""
    connections: int = 0
    """To be asked for, by its own documentation, with much concurrency."""


# The settings are those that the peers' own documentation, tests or benchmarks give for speed.
QUEUES = {
    "lockbeat": Queue("lockbeat", "state and result, 1 h"),
    "docket": Queue("docket", "state and result, 15 min", connections=300),
    "docket (keeps nothing, checks every 5 ms)": Queue(
        "docket", "nothing", {"execution_ttl": 0, "minimum_check_interval": 0.005}, connections=300
    ),
    "arq": Queue("arq", "result, 1 h", looks_every=0.5),
    "arq (polls every 10 ms)": Queue("arq", "result, 1 h", {"poll_delay": 0.01}, looks_every=0.01),
    "saq": Queue("saq", "state and result, 10 min"),
    "taskiq, stream": Queue("taskiq", "its message, for good", {"broker": "RedisStreamBroker"}),
    "taskiq, stream, results kept": Queue(
        "taskiq", "result, 1 h; its message, for good", {"broker": "RedisStreamBroker", "results": 3600}
    ),
    "taskiq, list (acknowledges nothing)": Queue("taskiq", "nothing", {"broker": "ListQueueBroker"}),
    "streaq": Queue("streaq", "result, 5 min"),
}

APART = {"arq": ("arq>=0.28",), "saq": ("saq[hiredis,redis]>=0.26", "typing-extensions")}
"""arq takes redis-py below 6 and saq below 8, taskiq from 8 on. saq needs the last one without saying so."""


class Suite:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.apart = {name: Apart.of(name, *wanted, versions=(name, "redis", "hiredis")) for name, wanted in APART.items()}
        self.problems: dict[str, str] = {}
        self.scripts: list[dict[str, Any]] = []

    def start(self, name: str, it: Server) -> Child:
        queue = QUEUES[name]
        python = {"python": self.apart[queue.contender].python} if queue.contender in self.apart else {}
        url = f"{it.url}?max_connections={queue.connections}" if queue.connections else it.url
        child = Child("tasks", contender=queue.contender, url=url, settings=queue.settings, callers=CALLERS, **python)
        try:
            child.answer()
        except BaseException:
            child.kill()
            raise
        return child

    @contextlib.contextmanager
    def turn(self, name: str, what: str) -> Iterator[Server]:
        """A server for one measurement; if the contender ends, that is noted."""
        with server() as it:
            try:
                yield it
            except Failed as problem:
                self.problems[f"{name}, {what}"] = str(problem)
            if name == "lockbeat":
                self.scripts.append(scripts_seen(it))

    def run(self, name: str, concurrency: int) -> dict[str, Any]:
        """Spawn for a while, then run it: one process, first the one and then the other."""
        with self.turn(name, f"concurrency {concurrency}") as it, self.start(name, it) as child:
            first = child.ask("connect")
            alone = child.ask("spawn", count=100_000, seconds=self.bench.pick(0.3, 0.2), many=False)
            before = Seen.of(it)
            many = child.ask("spawn", count=self.bench.pick(6000, 1500), seconds=self.bench.pick(0.8, 0.4), many=True)
            spawned, cpu = Seen.of(it), child.ask("stat")["cpu"]
            child.ask("work", concurrency=concurrency)
            ran = child.ask("drain", count=first + alone["spawned"] + many["spawned"], seconds=self.bench.pick(1.2, 0.6))
            time.sleep(0.2)  # what the last ones still have to write
            after, stat = Seen.of(it), child.ask("stat")
            if not ran["ran"]:
                raise Failed(f"no task ran: {child.said()}")
            return {
                "spawns_per_second": alone["spawned"] / alone["seconds"],
                "spawns_per_second_many": many["spawned"] / many["seconds"],
                "spawn_round_trips": (spawned.reads - before.reads) / many["spawned"],
                "spawn_server_us": (spawned.cpu - before.cpu) / many["spawned"] * 1e6,
                "tasks_per_second": ran["ran"] / ran["seconds"],
                "round_trips": (after.reads - spawned.reads) / stat["ran"],
                "server_us": (after.cpu - spawned.cpu) / stat["ran"] * 1e6,
                "worker_us": (stat["cpu"] - cpu) / stat["ran"] * 1e6,
            }
        return {}

    def latency(self, name: str, directory: str) -> list[float]:
        """Two processes: one spawns, a task at a time; in the other an idle worker runs them."""
        with self.turn(name, "latency") as it, self.start(name, it) as worker, self.start(name, it) as sender:
            path = str(Path(directory) / "age")
            Path(path).unlink(missing_ok=True)
            # The sender first: a stream's group must be there before what is sent to it.
            first = sender.ask("connect")
            worker.ask("work", concurrency=None)
            worker.ask("drain", count=first, seconds=5)
            worker.ask("tell", path=path)
            pause = max(0.02, QUEUES[name].looks_every)
            ages: list[float] = sender.ask("pace", path=path, seconds=max(self.bench.pick(2.0, 1.0), 8 * pause), pause=pause)
            return ages
        return []

    def commands(self, name: str) -> dict[str, Any]:
        """Counted one by one, which slows the server down: apart from the rest."""
        count = self.bench.pick(300, 100)
        with self.turn(name, "commands") as it, self.start(name, it) as child, Monitor(it) as monitor:

            def sent(tasks: int) -> dict[str, Any]:
                """For each of so many tasks, since the last question."""
                monitor.catch_up()
                commands, inside = monitor.commands, monitor.inside
                monitor.reset()
                ordered = sorted(commands, key=lambda word: -commands[word])
                return {
                    "sent": sum(commands.values()) / tasks,
                    "inside": sum(inside.values()) / tasks,
                    "by_name": {word: round(commands[word] / tasks, 3) for word in ordered},
                }

            first = child.ask("connect")
            sent(1)
            found = {}
            for phase, many in (("spawn", False), ("spawn_many", True)):
                child.ask("spawn", count=count, seconds=60, many=many)
                found[phase] = sent(count)
            child.ask("work", concurrency=COMMANDS_AT)
            child.ask("drain", count=first + 2 * count, seconds=self.bench.pick(2.0, 1.0))
            time.sleep(0.2)
            ran = child.ask("stat")["ran"]
            return found | {"run": sent(ran) | {"ran": ran}}
        return {}

    def idle(self, watched: float) -> tuple[dict[str, Any], float]:
        """Every one with a server of its own, all at the same time."""
        rows: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            running = {}
            for name in QUEUES:
                it = stack.enter_context(server())
                try:
                    child = stack.enter_context(self.start(name, it))
                    first = child.ask("connect")
                    child.ask("work", concurrency=None)
                    child.ask("drain", count=first, seconds=5)
                    running[name] = (it, child, stack.enter_context(Monitor(it)))
                except Failed as problem:
                    self.problems[f"{name}, idle"] = str(problem)
            time.sleep(self.bench.pick(7, 1))  # saq waits 5 s for jobs that its first sweep took for stuck
            before = {name: child.ask("stat")["cpu"] for name, (_, child, _) in running.items()}
            for *_, monitor in running.values():
                monitor.reset()
            started = time.monotonic()
            time.sleep(watched)
            sent = {name: (dict(monitor.commands), dict(monitor.inside)) for name, (*_, monitor) in running.items()}
            took = time.monotonic() - started
            for name, (it, child, _) in running.items():
                commands, inside = sent[name]
                try:
                    cpu = child.ask("stat")["cpu"] - before[name]
                except Failed as problem:
                    self.problems[f"{name}, idle"] = str(problem)
                    continue
                rows[name] = {
                    "commands_per_second": sum(commands.values()) / took,
                    "inside_per_second": sum(inside.values()) / took,
                    "commands": commands,
                    "worker_cpu_ms_per_second": cpu / took * 1000,
                }
                if name == "lockbeat":
                    self.scripts.append(scripts_seen(it))
        return rows, took


PEERS = [name for name in QUEUES if name != "lockbeat"]


def against(ours: dict[int, float], peers: dict[str, dict[int, float]], most: bool) -> dict[str, Any]:
    """Ours over the best peer's, within each round; and which peer that is by its median. Values by round."""
    best = max if most else min
    rounds = [number for number in ours if any(number in by for by in peers.values())]
    leader = best((name for name, by in peers.items() if by), key=lambda name: statistics.median(peers[name].values()))
    ratios = []
    for number in rounds:
        theirs = best(by[number] for by in peers.values() if number in by)
        ratios.append(ours[number] / theirs if theirs else math.inf)
    return {"best": leader, "ratio": spread(ratios)}


def compared(metrics: dict[str, tuple[bool, dict[str, dict[int, float]]]]) -> dict[str, Any]:
    """metrics: whether the most is best, and each queue's values by round."""
    return {
        key: against(by["lockbeat"], {name: by[name] for name in PEERS if by.get(name)}, most)
        for key, (most, by) in metrics.items()
        if by.get("lockbeat") and any(by.get(name) for name in PEERS)
    }


def run(bench: Bench) -> dict[str, Any]:
    suite = Suite(bench)
    rounds, concurrencies = bench.pick(2, 1), bench.pick(CONCURRENCIES, (COMMANDS_AT,))
    # By queue, by concurrency, by round: a queue that failed in one round is missing in that one only.
    runs: dict[str, dict[int, dict[int, dict[str, Any]]]] = {name: {many: {} for many in concurrencies} for name in QUEUES}
    ages: dict[str, dict[int, list[float]]] = {name: {} for name in QUEUES}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds):
            for concurrency in concurrencies:
                bench.log(f"tasks: round {number + 1} of {rounds}, concurrency {concurrency}")
                for name in QUEUES:
                    if found := suite.run(name, concurrency):
                        runs[name][concurrency][number] = found
            bench.log(f"tasks: round {number + 1} of {rounds}, from spawn to start")
            for name in QUEUES:
                if several := suite.latency(name, directory):
                    ages[name][number] = several
    bench.log("tasks: commands")
    commands = {name: found for name in QUEUES if (found := suite.commands(name))}
    bench.log(f"tasks: {len(QUEUES)} idle workers")
    idle, watched = suite.idle(bench.pick(15.0, 5.0))

    rows: dict[str, Any] = {}
    for name, by in runs.items():
        everything = [one for per_round in by.values() for one in per_round.values()]
        if everything:
            rows[name] = {key: spread([one[key] for one in everything]) for key in everything[0] if key.startswith("spawn")}
            rows[name] |= {"keeps": QUEUES[name].keeps, "run": {}}
            for many, per_round in by.items():
                several = list(per_round.values())
                keys = [key for key in everything[0] if not key.startswith("spawn")]
                if several:
                    rows[name]["run"][str(many)] = {key: spread([one[key] for one in several]) for key in keys}
    together = {name: [age for several in by.values() for age in several] for name, by in ages.items() if by}
    latency = {
        name: {
            "p50_ms": spread([percentile(one, 0.5) for one in ages[name].values()]),
            "p99_ms": percentile(every, 0.99),
            "max_ms": max(every),
            "samples": len(every),
        }
        for name, every in together.items()
    }

    def by_round(key: str, many: int) -> dict[str, dict[int, float]]:
        return {name: {number: one[key] for number, one in runs[name][many].items()} for name in QUEUES}

    def spawned(key: str) -> dict[str, dict[int, float]]:
        """Measured once for each concurrency: medians of those."""
        found: dict[str, dict[int, float]] = {name: {} for name in QUEUES}
        for name, number in itertools.product(QUEUES, range(rounds)):
            if values := [per_round[number][key] for per_round in runs[name].values() if number in per_round]:
                found[name][number] = statistics.median(values)
        return found

    def a_task(*kinds: str) -> dict[str, dict[int, float]]:
        return {
            name: {0: sum(found[phase][kind] for phase in ("spawn", "run") for kind in kinds)} for name, found in commands.items()
        }

    metrics = {f"tasks/s, {many}": (True, by_round("tasks_per_second", many)) for many in concurrencies}
    metrics |= {"spawns/s": (True, spawned("spawns_per_second")), "spawns/s, many": (True, spawned("spawns_per_second_many"))}
    metrics |= {
        "p50": (False, {name: {number: percentile(one, 0.5) for number, one in by.items()} for name, by in ages.items()}),
        "p99": (False, {name: {0: percentile(every, 0.99)} for name, every in together.items()}),
        "sent": (False, a_task("sent")),
        "executed": (False, a_task("sent", "inside")),
    }
    metrics |= {f"round trips, {many}": (False, by_round("round_trips", many)) for many in concurrencies}
    quietest = min((name for name in idle if name in PEERS), key=lambda name: idle[name]["commands_per_second"], default="")
    return {
        "rows": rows,
        "latency": latency,
        "commands": commands,
        "commands_at": COMMANDS_AT,
        "idle": idle,
        "watched_s": watched,
        "against": compared(metrics),
        "quietest": quietest,
        "callers": CALLERS,
        "apart": {name: one.versions for name, one in suite.apart.items()},
        "problems": suite.problems,
        "scripts": suite.scripts,
    }
