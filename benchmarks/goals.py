"""What lockbeat is to cost, and how that is read from the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    what: str
    suite: str
    goal: str
    limit: float
    measured: Callable[[Results], float]
    unit: str = ""
    least: bool = False
    """The limit is the least that is wanted, not the most."""
    why: str = ""
    """What keeps it from being met. Shown only when it is not."""

    def met(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit

    def verdict(self, value: float) -> str:
        if self.met(value):
            return "met"
        if not self.limit:
            return f"**missed** by {value:.3g} {self.unit}".rstrip()
        if self.least:
            return f"**missed**: {value / self.limit:.0%} of it"
        factor = value / self.limit
        by = f"a factor of {factor:.2g}" if factor >= 2 else f"{(factor - 1) * 100:.0f} %"
        return f"**missed** by {by}"


def _ratio(results: Results, kind: str, name: str) -> float:
    return float(results["ratios"][kind][name]["median"])


def _ours(results: Results, key: str) -> float:
    value = results["rows"]["lockbeat handle"][key]
    return float(value["median"] if isinstance(value, dict) else value)


def _fire(results: Results, size: int, key: str) -> float:
    return float(results["rows"]["lockbeat"][str(size)][key]["median"])


def _idle(results: Results, key: str) -> list[float]:
    return [row[key] for label, row in results["rows"].items() if label.startswith("lockbeat")]


def _start(results: Results) -> float:
    starts = results["starts"]["lockbeat"]
    row = starts[max(starts, key=int)]
    return float(row["declare_s"] + row["start_s"])


def _tick(results: Results) -> float:
    few, many = (row["server_us_per_fire"] for row in results["ticks"].values())
    return float(many / few)


def _against(results: Results, key: str) -> float:
    return float(results["against"][key]["ratio"]["median"])


def ahead(what: str, key: str, *, most: bool = False, why: str = "") -> Goal:
    """lockbeat beside the best of the other task queues, whichever that is."""
    best = f"{{against[{key}][best]}}"
    measured = partial(_against, key=key)
    if most:
        return Goal(f"{what}, times the most of all peers ({best})", "tasks", "≥ 1", 1, measured, "x", least=True, why=why)
    return Goal(f"{what}, over the least of all peers ({best})", "tasks", "≤ 1", 1, measured, "x", why=why)


def _idle_task_queue(results: Results) -> float:
    idle = results["idle"]
    return max(float(idle["lockbeat"]["commands_per_second"] - idle[results["quietest"]]["commands_per_second"]), 0.0)


SERVER_BOUND = (
    "the server runs scripts on one core, and a fired slot with its task, lock and ledger costs it the time shown below; "
    "those of a burst wait for one another"
)

KEEPS_MORE = (
    "a task of lockbeat has a lease with a fence, attempts, a state that can be asked for and a result that is kept; "
    "a message that is popped or acknowledged and forgotten needs none of those writes"
)
ONE_BY_ONE = (
    "with nothing to do beside, each task waits for its claim and its completion; taskiq's stream reads 100 messages ahead, "
    "which no other worker can have meanwhile, and its list acknowledges nothing"
)
CLAIM_AFTER_BELL = (
    "a spawn rings a bell, and the worker that hears it claims: one turn more than a blocking read, which is served at once"
)
BY_A_SCRIPT = (
    "the caller turns an event loop, and the server runs a script that writes a lease, a fence and an index; "
    "redis-py takes the lock by a plain SET"
)

GOALS = (
    Goal(
        "uncontended acquire + release, one caller, over two PINGs of redis-py's client",
        "locks",
        "≤ 1.10",
        1.10,
        lambda r: _ratio(r, "time ÷ two PINGs of redis-py", "lockbeat locks"),
        "x",
        why="a pair is two scripts that write a lease, a fence and the index of its owner; a PING is nothing",
    ),
    Goal(
        "the same over two PINGs of lockbeat's own client, which is faster than redis-py's",
        "locks",
        "≤ 1.10",
        1.10,
        lambda r: _ratio(r, "time ÷ two PINGs of the same client", "lockbeat locks"),
        "x",
        why="its PING costs so little that the two scripts themselves, run by the server, weigh more than the whole round trip",
    ),
    Goal(
        "64 concurrent callers: times redis-py's Lock, `locks.try_acquire/release`",
        "locks",
        "≥ 6",
        6,
        lambda r: _ratio(r, "times redis-py's Lock, 64 callers", "lockbeat locks"),
        "x",
        least=True,
        why="the server's time in the scripts, no longer the round trips, is what is left",
    ),
    Goal(
        "the same with `lb.lock()`",
        "locks",
        "≥ 6",
        6,
        lambda r: _ratio(r, "times redis-py's Lock, 64 callers", "lockbeat handle"),
        "x",
        least=True,
        why="the handle also enters the waiting room and hands the lease to the keeper: Python, some tens of µs",
    ),
    Goal(
        "blocking client, one thread: time over redis-py's blocking Lock, `with lb.lock()`",
        "blocking",
        "≤ 1.5",
        1.5,
        lambda r: _ratio(r, "time ÷ redis-py's Lock, 1 thread", "lockbeat handle"),
        "x",
        why=BY_A_SCRIPT,
    ),
    Goal(
        "the same with 16 threads: times redis-py's Lock",
        "blocking",
        "> 1",
        1,
        lambda r: _ratio(r, "times redis-py's Lock, 16 threads", "lockbeat handle"),
        "x",
        least=True,
    ),
    Goal(
        "hand-off between processes, p99",
        "waiting",
        "< 2 ms",
        2,
        lambda r: _ours(r, "handoff_p99_ms"),
        "ms",
        why="two processes and the server must be scheduled one after the other, on cores that others use as well",
    ),
    Goal("commands a second while 50 wait", "waiting", "0", 0, lambda r: _ours(r, "crowd_commands_per_second"), "/s"),
    Goal("order inversions of 1,225 pairs of waiters", "waiting", "0", 0, lambda r: _ours(r, "crowd_inversions")),
    Goal("killed waiter at the head of the queue", "waiting", "< 50 ms", 50, lambda r: _ours(r, "killed_waiter_ms"), "ms"),
    Goal(
        "10,000 leases renewed, one round",
        "renew",
        "< 50 ms",
        50,
        lambda r: float(r["rows"]["lockbeat"]["round_ms"]["median"]),
        "ms",
        why="the bound of 5 ms a script splits the round, and each lease costs the server several commands",
    ),
    Goal(
        "scripts in one round of renewal",
        "renew",
        "1",
        1,
        lambda r: float(r["rows"]["lockbeat"]["calls_a_round"]),
        "",
        why="10,000 in one script would block the server for longer than 5 ms; they are pipelined in one write instead",
    ),
    Goal(
        "pause, resume, trigger, put: until the last of five instances looks, p99 of the slowest",
        "control",
        "< 100 ms",
        100,
        lambda r: max(float(row["p99_ms"]) for row in r["rows"].values()),
        "ms",
    ),
    Goal(
        "5,000 jobs due every second, one instance: fires/s",
        "fire",
        "≥ 4,950",
        4950,
        lambda r: _fire(r, 5000, "fires_per_second"),
        "/s",
        least=True,
        why=SERVER_BOUND,
    ),
    Goal("round trips a fire at 5,000", "fire", "< 0.1", 0.1, lambda r: _fire(r, 5000, "round_trips_per_fire")),
    Goal(
        "lateness p99, 1,000 due at once, one instance",
        "lateness",
        "< 20 ms",
        20,
        lambda r: float(r["rows"]["lockbeat"]["p99_ms"]["median"]),
        "ms",
        why=SERVER_BOUND,
    ),
    Goal(
        "idle commands a second, the most of 100 and of {most:,} jobs",
        "idle",
        "≤ 0.2",
        0.2,
        lambda r: max(_idle(r, "commands_per_second")),
        "/s",
    ),
    Goal(
        "start with {most:,} jobs, declaring included",
        "registry",
        "< 6 s",
        6,
        _start,
        "s",
        why="declaring and writing take time in proportion, Python's and the server's",
    ),
    Goal(
        "server time a fire, {due:,} due among {most:,} others, over {due:,} alone",
        "registry",
        "≤ 1.5",
        1.5,
        _tick,
        "x",
        why="a larger index is not found in the processor's cache",
    ),
    Goal(
        "a page of {page} of {jobs:,} jobs, whatever most of them have",
        "scale",
        "< 20 ms",
        20,
        lambda r: max(row["median"] for what, row in r["made"]["pages"].items() if "one in" not in what),
        "ms",
    ),
    Goal(
        "server time of {due:,} slots a second with {beside} more instances, over one alone",
        "scale",
        "≤ 1.2",
        1.2,
        lambda r: max(by[str(r["beside"])]["server_cpu"] / by["0"]["server_cpu"] for by in r["shared"].values()),
        "x",
    ),
    ahead("tasks a second, concurrency 1", "tasks/s, 1", most=True, why=ONE_BY_ONE),
    ahead("tasks a second, concurrency 10", "tasks/s, 10", most=True),
    ahead("tasks a second, concurrency 100", "tasks/s, 100", most=True),
    ahead("spawns a second, one after the other", "spawns/s", most=True),
    ahead("spawns a second, many at once", "spawns/s, many", most=True),
    ahead("from spawn to start, p50", "p50", why=CLAIM_AFTER_BELL),
    ahead("from spawn to start, p99", "p99", why=CLAIM_AFTER_BELL),
    ahead("commands sent for a task", "sent"),
    ahead("commands executed for a task, those in scripts included", "executed", why=KEEPS_MORE),
    ahead("round trips of the worker for a task, concurrency 1", "round trips, 1", why=ONE_BY_ONE),
    ahead("round trips of the worker for a task, concurrency 10", "round trips, 10"),
    ahead("round trips of the worker for a task, concurrency 100", "round trips, 100"),
    Goal(
        "idle worker: commands a second more than the quietest peer ({quietest})",
        "tasks",
        "0",
        0,
        _idle_task_queue,
        "/s",
    ),
    Goal("Celery, beats killed: slots that ran twice", "celery", "0", 0, lambda r: r["rows"]["lockbeat"]["twice"]),
    Goal(
        "metrics, hooks on what goes wrong and JSON logs together: an instance's instructions a slot, over those unwatched",
        "signals",
        "≤ 1.05",
        1.05,
        lambda r: r["ratios"]["these three together"]["median"],
        "x",
    ),
    Goal("the page of 100,000 jobs, opened in Chromium", "web", "< 1 s", 1000, lambda r: r["browser_ms"]["median"], "ms"),
    Goal("the same: commands, those inside of scripts too", "web", "< 50", 49, lambda r: r["pages"]["/jobs"]["commands"]),
    Goal("Celery, beats killed: slots of which nothing is known", "celery", "0", 0, lambda r: r["rows"]["lockbeat"]["unknown"]),
)

LONGEST_SCRIPT_MS = 5.0
