"""What is wrong now, in words: a page, `lockbeat top` and `lockbeat doctor` say the same."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lockbeat.jobs.control import Change
from lockbeat.jobs.unfinished import Unfinished
from lockbeat.jobs.why import TOLERANCE
from lockbeat.monitor._instances import SILENT, Instance
from lockbeat.monitor._pages import Overdue, overdue
from lockbeat.monitor._wrong import FUNCTIONS, LEASED, Hanging, Lacking, Paused, by_itself, hanging, lacking, paused, unserved
from lockbeat.store.calls import Calls
from lockbeat.values.durations import span

Kind = Literal["firing", "overdue", "hanging", "function", "queue", "paused", "silent", "stuck", "dead"]
"""What is wrong, the worst first."""


class Name(NamedTuple):
    """A name in a sentence, which a page makes a link of."""

    of: Literal["job", "run", "slot", "function", "queue", "ready", "owner", "dead", "instances", "command"]
    name: str
    shown: str = ""
    """Where that is another word."""
    at: float | None = None
    """Of a slot: its instant, in seconds since the Unix epoch, which is shown."""


Part = str | Name


class Line(NamedTuple):
    """One thing that is wrong, in a sentence."""

    kind: Kind
    parts: tuple[Part, ...]
    remedy: str
    """A command that mends it, or shows more of it."""
    job: str | None = None
    task_id: str | None = None

    def text(self, clock: Callable[[float], str]) -> str:
        """clock: how an instant is spelled, in seconds since the Unix epoch."""
        return "".join(
            part if isinstance(part, str) else clock(part.at) if part.at is not None else part.shown or part.name
            for part in self.parts
        )


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong in a store at one moment, as far as it was looked at."""

    at: float
    """Seconds since the Unix epoch, by the server's clock."""
    late: tuple[Overdue, ...]
    hangs: Hanging
    lacks: Lacking
    waits: tuple[tuple[str, int], ...]
    """Queues that nobody serves, and how many ready tasks each holds."""
    pauses: Paused
    living: tuple[Instance, ...]
    dead: int
    """Dead tasks."""

    @property
    def silent(self) -> list[Instance]:
        return [one for one in self.living if self.at - one.seen_at > SILENT]

    @property
    def stuck(self) -> list[Instance]:
        return [one for one in self.living if one.stuck_s is not None]

    @property
    def schedulers(self) -> int:
        """How many instances fire slots, and are not silent."""
        return sum(one.schedules for one in self.living if self.at - one.seen_at <= SILENT)

    @property
    def paused_itself(self) -> list[tuple[str, Change]]:
        return [one for one in self.pauses.changes if by_itself(one[1])]

    @property
    def complete(self) -> bool:
        """False: there is more than was looked at."""
        return self.hangs.complete and self.lacks.complete

    @property
    def left_out(self) -> str:
        """What was looked at, where there is more; else empty."""
        parts = []
        if not self.hangs.complete:
            parts.append(f"the first {LEASED} leases, and of these the 64 runs that have run for longest, for runs that hang")
        if not self.lacks.complete:
            parts.append(f"the functions of the first {FUNCTIONS:,} jobs by name")
        return f"There is more than was looked at: of each shard {', '.join(parts)}." if parts else ""

    def lines(self) -> Iterator[Line]:
        """In sentences, the worst first; those of a kind follow one another."""
        if not self.schedulers:
            said = f", of {several(len(self.living), 'instance')} that said anything" if self.living else ""
            start = "lockbeat run MODULE:BEAT"
            yield Line("firing", (f"No instance fires slots{said}. Start one: ", Name("command", start)), start)
        for late in self.late:
            said = f" is overdue by {span(late.by)}: nobody has fired it."
            yield Line("overdue", (Name("job", late.job), said), "lockbeat instances", late.job)
        yield from map(_hangs, self.hangs.runs)
        for function, job in self.lacks.functions:
            lacks = "No living instance has the function ", Name("function", function), ", which ", Name("job", job)
            yield Line("function", (*lacks, " runs: is the version deployed that has it?"), "lockbeat instances", job)
        for queue, ready in self.waits:
            many = Name("ready", queue, several(ready, "task"))
            waits = f" wait{'s' if ready == 1 else ''} in queue "
            yield Line(
                "queue",
                (many, waits, Name("queue", queue), ", and no living instance serves it."),
                f"lockbeat tasks --queue {shlex.quote(queue)}",
            )
        for name, change in self.paused_itself:
            since = "" if change.at is None else f" {span(max(self.at - change.at, 0))} ago"
            after = f", after {change.reason}" if change.reason else ""
            said = f" has paused itself{since}{after}: it fires nothing until somebody resumes it."
            yield Line("paused", (Name("job", name), said), f"lockbeat resume {shlex.quote(name)}", name)
        for one in self.silent:
            said = f" has been silent for {span(self.at - one.seen_at)}."
            yield Line("silent", (Name("owner", one.owner), said), "lockbeat instances")
        for one in self.stuck:
            said = f" is stuck: its event loop has not turned for {span(one.stuck_s or 0)}."
            yield Line("stuck", (Name("owner", one.owner), said), "lockbeat instances")
        if self.dead:
            waits = f" wait{'s' if self.dead == 1 else ''} for somebody to look at {'it' if self.dead == 1 else 'them'}."
            yield Line("dead", (Name("dead", "", several(self.dead, "dead task")), waits), "lockbeat dead")

    def first(self, most: int) -> Iterator[tuple[Kind, list[Line], int]]:
        """Of each kind the first lines, and how many more there are."""
        found = dict[Kind, list[Line]]()
        for line in self.lines():
            found.setdefault(line.kind, []).append(line)
        for kind, lines in found.items():
            yield kind, lines[:most], max(len(lines) - most, 0)


def _hangs(run: Unfinished) -> Line:
    entry, skipped = run.entry, run.skipped_ms
    named = Name("run", entry.task_id, entry.run) if entry.run else Name("run", entry.task_id, at=entry.slot_ms / 1000)
    parts: list[Part] = [Name("job", entry.job), " hangs: its run of " if not entry.run else " hangs: its triggered run ", named]
    stopping = " was cancelled, and does not stop;" if run.situation == "stopping" else ""
    usually = f", and {run.usually}" if run.usually else ""
    parts.append(f"{stopping} has been running for {span(run.seconds or 0)}{usually}.")
    if skipped:
        more = f" and {len(skipped) - 1} before it{', or more,' if run.skipped_more else ''}" if len(skipped) > 1 else ""
        were = f"{more} {'were' if more else 'was'} skipped for it."
        parts += [" Its slot of ", Name("slot", f"{entry.job}@{skipped[0]}", at=skipped[0] / 1000), were]
    return Line("hanging", tuple(parts), f"lockbeat cancel {shlex.quote(entry.task_id)}", entry.job, entry.task_id)


async def wrong(
    store: Calls, living: Sequence[Instance], ready: Iterable[tuple[str, int]], dead: int, now: float, *, whole: bool = False
) -> Wrong:
    """What is wrong now. ready: of each queue how many ready tasks it holds. whole: look at the functions of all jobs."""
    late, hangs, lacks, pauses = await asyncio.gather(
        overdue(store, TOLERANCE), hanging(store, round(now * 1000)), lacking(store, living, whole=whole), paused(store)
    )
    return Wrong(now, tuple(late), hangs, lacks, tuple(unserved(ready, living, now)), pauses, tuple(living), dead)


def several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
