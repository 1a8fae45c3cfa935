"""What happens in this process, counted; `lockbeat.metrics` shows it. Pure, and cheap enough for each slot.

Labels are bounded. A job that the program declares has its own name, as long as there are NAMED at most; the rest are "(other)".
Jobs that were made at run time are one "(dynamic)", unless told otherwise: nobody knows how many there will be.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

NAMED = 200
"""Jobs, and functions, that are counted by name."""
DYNAMIC, OTHER = "(dynamic)", "(other)"
LATE = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)
TOOK = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 1800.0)
TRIPS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Bounds of the buckets, in seconds."""

Outcome = Literal["done", "retried", "dead", "lost", "cut", "cancelled"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("done", "retried", "dead", "lost", "cut", "cancelled")
"""How an attempt ended. retried, dead: its function failed, and it is tried again, or was the last."""
Trouble = Literal["unavailable", "refused", "script"]
TROUBLES: Final[tuple[Trouble, ...]] = ("unavailable", "refused", "script")
"""Why the store did not do what was asked. refused: it answers, and will not; script: one of ours met what it can't read."""
KINDS = ("lock", "claim", "task")
"""Of leases."""


class Spread:
    """How often what was seen lies within which bounds; and its sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Slots:
    """Of one label `job`."""

    __slots__ = ("fired", "late")

    def __init__(self) -> None:
        self.fired = 0
        self.late = Spread(LATE)


class Runs:
    """Of one pair of labels `job` and `function`."""

    __slots__ = ("ended", "took")

    def __init__(self) -> None:
        self.ended = dict.fromkeys(OUTCOMES, 0)
        self.took = Spread(TOOK)


class Traffic:
    """What one thread asks of the store."""

    def __init__(self) -> None:
        self.runs: defaultdict[str, int] = defaultdict(int)
        """Of each script; calls that share a run are one."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.trips = Spread(TRIPS)
        self.errors = dict.fromkeys(TROUBLES, 0)
        self.reconnects = 0

    def answered(self, script: str, seconds: float) -> None:
        self.runs[script] += 1
        self.seconds[script] += seconds
        self.trips.add(seconds)


class Counting:
    """Counts for one program.

    jobs: the functions of the jobs that it declares, by the job's name. functions: those that are run when they are spawned.
    dynamic: count jobs that were made at run time by name, too, as long as there are NAMED at most.
    """

    def __init__(self, jobs: Mapping[str, str] | None = None, functions: Iterable[str] = (), *, dynamic: bool = False) -> None:
        self.slots: dict[str, Slots] = {DYNAMIC: Slots()}
        self.runs: dict[tuple[str, str], Runs] = {}
        self._runs: dict[tuple[str, str], Runs] = {}  # by a job's label, and by any function of the program
        self._labels: dict[str, str] = {"": ""}  # of the jobs that have one
        self.lost = dict.fromkeys(KINDS, 0)
        """Leases that this process held and that are lost."""
        self.took_over = 0
        """Claims whose last owner had let them run out."""
        self.lag = Spread(LAGS)
        self.clock_offset = 0.0
        """Seconds by which this machine's clock is ahead of the server's, as its last heartbeat found."""
        self._dynamic = dynamic
        self._functions: set[str] = set()
        self._traffic: dict[int, Traffic] = {}
        self._lock = threading.Lock()
        self.know(jobs or {}, functions)

    def know(self, jobs: Mapping[str, str], functions: Iterable[str]) -> None:
        """Count what is declared from zero on."""
        self._functions.update([*dict.fromkeys([*functions, *jobs.values()])][: max(NAMED - len(self._functions), 0)])
        for job, function in jobs.items():
            if job not in self._labels:
                self._labels[job] = label = job if len(self.slots) <= NAMED else OTHER
                self.slots[job] = self.slots.setdefault(label, Slots())
            self._runs_of(self._labels[job], function)
        for function in functions:
            self._runs_of("", function)

    def fired(self, job: str, late: float) -> None:
        """A slot was fired here, so many seconds after it was due, by the server's clock."""
        slots = self.slots.get(job)
        if slots is None:
            slots = self.slots[self._label_of(job)]
        slots.fired += 1
        slots.late.add(late)

    def ran(self, job: str, function: str, outcome: Outcome, took: float) -> None:
        """An attempt has ended here, after so many seconds. `job` is empty: it was spawned."""
        label = self._labels.get(job)
        if label is None:
            label = self._label_of(job)
        runs = self._runs.get((label, function))
        if runs is None:
            runs = self._runs_of(label, function)
        runs.ended[outcome] += 1
        runs.took.add(took)

    def _label_of(self, job: str) -> str:
        """Of a job that was made at run time."""
        if not self._dynamic or len(self.slots) > NAMED:
            return DYNAMIC
        self._labels[job] = job
        self.slots[job] = Slots()
        return job

    def _runs_of(self, label: str, function: str) -> Runs:
        named = function if function in self._functions else OTHER
        self._runs[label, function] = runs = self.runs.setdefault((label, named), Runs())
        return runs

    def traffic(self) -> Traffic:
        """That of the calling thread: no two threads count in one."""
        with self._lock:
            return self._traffic.setdefault(threading.get_ident(), Traffic())

    def trips(self) -> Spread:
        """How long the store took to answer, whoever asked."""
        whole = Spread(TRIPS)
        for each in self.all_traffic():
            whole.counts = [a + b for a, b in zip(whole.counts, each.trips.counts, strict=True)]
            whole.sum += each.trips.sum
        return whole

    def all_traffic(self) -> list[Traffic]:
        with self._lock:
            return [*self._traffic.values()]
