"""What the store says of all instances, and of itself: the same from whichever instance it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lockbeat.counting import DYNAMIC
from lockbeat.metrics.families import counter, gauge
from lockbeat.monitor import Measures
from lockbeat.monitor._measures import COUNTED
from lockbeat.store.reasons import OF_MISSED, OF_SKIPPED

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

TASKS = ("spawned", "begun", "done", "retried", "failed", "lost", "cancelled", "left")


def of_store(found: Measures | None, named: Sequence[str]) -> Iterator[Metric]:
    """found: None: the store can't be reached."""
    yield gauge("lockbeat_store_up", "1: the store answers.", float(found is not None))
    if found is None:
        return
    yield from _of_jobs(found, named)
    yield from _of_queues(found)
    roles = {("scheduler",): found.scheduling, ("stuck",): found.stuck, ("any",): found.instances}
    yield gauge(
        "lockbeat_instances",
        "Instances: those that fire slots, those whose event loop stands still, and all that have not said that they end.",
        roles,
        ("role",),
    )
    yield from _of_servers(found)


def _of_jobs(found: Measures, named: Sequence[str]) -> Iterator[Metric]:
    late = dict.fromkeys([(job,) for job in (*named, DYNAMIC)], 0.0)
    for by_ms, job in found.late:
        label = (job,) if (job,) in late else (DYNAMIC,)
        late[label] = max(late[label], by_ms / 1000)
    yield gauge(
        "lockbeat_job_overdue_seconds",
        "For how long a job's slot has been due, and was not fired; 0: none is. Of all that have no name here the worst.",
        late,
        ("job",),
    )
    yield gauge("lockbeat_jobs_due", "Jobs whose slot is due, and not fired yet.", len(found.late))
    lag = max((by_ms for by_ms, _ in found.late), default=0) / 1000
    yield gauge("lockbeat_next_due_lag_seconds", "For how long the first slot that is due has been so; 0: none is.", lag)
    for state, codes in (("missed", OF_MISSED), ("skipped", OF_SKIPPED)):
        yield counter(
            f"lockbeat_slots_{state}_total",
            f"Slots that were {state}, and why, since the store was first used.",
            _by_reason(found.stats, state, codes),
            ("reason",),
        )
    yield counter(
        "lockbeat_job_slots_total",
        "What became of a job's slots since it was declared. Only of jobs that the instance's own code declares.",
        {(job, what): found.jobs.get(job, {}).get(what, 0) for job in named for what in COUNTED},
        ("job", "outcome"),
    )


def _by_reason(stats: Mapping[str, int], state: str, codes: Iterable[str]) -> dict[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = {(code,): 0 for code in codes}
    for what, count in stats.items():
        word, _, code = what.partition(" ")
        if word == state and code:
            counts[code,] = count
    return counts


def _of_queues(found: Measures) -> Iterator[Metric]:
    tasks: dict[tuple[str, ...], float] = {}
    for name, queue in found.queues.items():
        tasks |= {(name, "ready"): queue.ready, (name, "delayed"): queue.delayed, (name, "dead"): queue.dead}
    yield gauge("lockbeat_queue_tasks", "Tasks that a queue holds, and that nobody runs.", tasks, ("queue", "state"))
    yield gauge(
        "lockbeat_queue_oldest_seconds",
        "For how long the oldest task that could be claimed has waited; 0: there is none.",
        {
            (name,): max(found.now_ms - queue.oldest_ms, 0) / 1000 if queue.oldest_ms else 0.0
            for name, queue in found.queues.items()
        },
        ("queue",),
    )
    workers = {(name,): queue.workers for name, queue in found.queues.items()}
    yield gauge("lockbeat_queue_workers", "Instances that serve a queue.", workers, ("queue",))
    yield counter(
        "lockbeat_tasks_total",
        "What happened to tasks, those of jobs included, since the store was first used.",
        {(what,): found.stats[what] for what in TASKS},
        ("event",),
    )
    yield counter(
        "lockbeat_tasks_taken_over_total",
        "Attempts whose lease ran out, and that were taken back for others.",
        found.stats["taken_back"],
    )


def _of_servers(found: Measures) -> Iterator[Metric]:
    servers = found.servers
    one = ("server",)

    def said(word: str) -> dict[tuple[str, ...], float]:
        return {(name,): value for name, load in servers.items() if (value := getattr(load, word)) is not None}

    yield gauge("lockbeat_store_memory_bytes", "Memory that the server uses.", said("used_bytes"), one)
    yield gauge("lockbeat_store_memory_limit_bytes", "Its maxmemory; 0: there is no limit.", said("most_bytes"), one)
    yield gauge(
        "lockbeat_store_evicts",
        "1: at the limit the server drops keys, leases among them; 0: it refuses writes (noeviction).",
        {(name,): float(load.policy != "noeviction") for name, load in servers.items() if load.policy is not None},
        one,
    )
    yield counter("lockbeat_store_evicted_keys_total", "Keys that the server has dropped to make room.", said("evicted"), one)
    yield counter("lockbeat_store_scripts_total", "Scripts that the server has run, for whomever.", said("script_calls"), one)
    yield counter("lockbeat_store_script_seconds_total", "How long these ran on the server.", said("script_seconds"), one)
