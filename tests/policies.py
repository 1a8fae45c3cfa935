"""A job of one slot every ten units, played unit by unit: who was there when, how long its function took, what became of it.

It may have another trigger, and people may step in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lockbeat import Every, Lockbeat
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.tasks import Task
from lockbeat.triggers import Trigger
from tests.beats import Hands, drain, ledger, scheduler

PERIOD = 10
STOPS = 3
"""Units that a function takes to stop when it is cancelled."""


@dataclass
class Play:
    """What happens to a job's slots. Times in units: the slots are 10, 20, 30 ...; whole units in which nothing else happens."""

    options: dict[str, Any]
    takes: int | Sequence[int] = 5
    """How long its function runs; in the order in which they begin."""
    until: int = 59
    away: tuple[int, int] = (0, 0)
    """No instance is there from, to."""
    idle: tuple[int, int] = (0, 0)
    """No worker is there from, to."""
    fails: Sequence[int] = ()
    """Which attempts fail, from 0."""
    here: bool = True
    """Whether the instance that fires begins what it fires; else it goes through the queue."""
    trigger: Callable[[datetime, float], Trigger] = lambda start, unit: Every(PERIOD * unit, start)
    """From the start and the seconds of a unit."""
    acts: Mapping[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """What somebody does in which unit: a verb of `lb.jobs`, and its arguments; `until` in units."""
    closed: Sequence[str] = ()
    """Days that a calendar excludes."""
    in_real_seconds: bool = True
    """Whether nothing hangs on less than five units."""
    _runs: list[tuple[Task, int, int]] = field(default_factory=list, init=False)
    """Attempts that run, when each ends, and its number; -1: it was told to stop."""
    _begun: int = field(default=0, init=False)

    def job(self, name: str, start: datetime, unit: float) -> Job:
        options = {name: value * unit if name in ("window", "jitter") else value for name, value in self.options.items()}
        options |= {name: start + timedelta(seconds=value * unit) for name, value in options.items() if name in ("start", "end")}
        if self.closed:
            options["exclude"] = ["closing"]
        return Job.declare(name, self.trigger(start, unit), queue=name, lease=max(5, 3 * unit), **options)

    async def play(self, lb: Lockbeat, name: str, start: datetime, unit: float, move: Callable[[float], Awaitable[None]]) -> str:
        """Play it, and tell what became of each slot. `move`: lets it be that many units after the start."""
        job, lease = self.job(name, start, unit), max(30, 3 * unit)
        hands = Hands(name, places=1000 if self.here else 0)
        instance = scheduler(lb, job, runner=hands)
        await move(0)
        if self.closed:
            await lb.calendars.put("closing", list(self.closed), until=(start + timedelta(days=999)).date())
        await instance.register()
        for now in range(1, self.until + 1):
            await move(now)
            await self._end(lb, now, lease)
            if now in self.acts:
                verb, given = self.acts[now]
                given = given | ({"until": start + timedelta(seconds=given["until"] * unit)} if "until" in given else {})
                await getattr(lb.jobs, verb)(name, **given, by="anna")
            if not self.away[0] < now < self.away[1]:
                await drain(instance, lb.jobs.shard_of(name))
            self._begin(hands.tasks, now)
            hands.tasks.clear()
            if not self.idle[0] < now < self.idle[1]:
                hands.names = {name}
                self._begin(await lb.tasks.claim(name, lb.owner, 10, lease), now)
            else:
                hands.names = set()
        found = [told(entry, start, unit) for entry in await ledger(lb, name)]
        for task, _, _ in self._runs:
            await lb.tasks.release(task)
        return "\n".join(found)

    def _begin(self, tasks: Sequence[Task], now: int) -> None:
        for task in tasks:
            takes = self.takes if isinstance(self.takes, int) else self.takes[self._begun]
            self._runs.append((task, now + takes, self._begun))
            self._begun += 1

    async def _end(self, lb: Lockbeat, now: int, lease: float) -> None:
        for run in list(self._runs):
            task, ends, number = run
            if number < 0:  # it was told to stop
                if now >= ends:
                    self._runs.remove(run)
                    await lb.tasks.release(task, begun=True)
            elif now >= ends:
                self._runs.remove(run)
                await (lb.tasks.fail(task, "broken") if number in self.fails else lb.tasks.complete(task))
            elif (await lb.tasks.heartbeat(task, lease)).refusal == "cancelled":
                self._runs[self._runs.index(run)] = task, now - 1 + STOPS, -1


def told(entry: LedgerEntry, start: datetime, unit: float) -> str:
    """`30: done 31-36` or `20: skipped overlap`; several that were missed together: `30-50: missed not_fired`."""

    def units(instant: datetime | float | None) -> str:
        if instant is None:
            return ""
        at = instant.timestamp() if isinstance(instant, datetime) else instant
        return str(int((at - start.timestamp()) / unit + 0.1))

    several = f"-{units(entry.last_slot)}" if entry.count and entry.count > 1 else ""
    made = " ".join(f"{units(one.started_at)}-{units(one.ended_at)}" for one in entry.attempts_made)
    words = [f"{units(entry.slot)}{several}:", entry.state, entry.code or "", made]
    return " ".join(filter(None, words))


def table(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def moment(start: datetime, unit: float, now: float) -> datetime:
    """A while after a unit has begun: what comes due with it is due."""
    return start + timedelta(seconds=unit * (now + 0.3))
