"""Declaring jobs at run time: one, if it is as the caller expects; or the set of an origin, less what it no longer has.

Both are `job/apply`, which does all of what it is told or nothing. A set that is larger than one run may be is applied in steps,
each for a stretch of names in their order, after all of it was looked at without a change.
"""

from __future__ import annotations

import asyncio
import builtins
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lockbeat.errors import Conflict, InvalidArgument, InvalidType
from lockbeat.jobs import plan
from lockbeat.jobs.backfills import Backfills
from lockbeat.jobs.control import who
from lockbeat.jobs.definition import READS, Job
from lockbeat.jobs.options import API, CODE, check_origin
from lockbeat.process import chance
from lockbeat.store import results
from lockbeat.triggers.rules import rules_version
from lockbeat.values.checks import of_type

MOST = 100
"""Jobs that one run of job/apply declares, and as many that it removes: keeps it under 5 ms. So does"""
LIGHT = 0.25
"""what one costs beside these that is only looked at. So do"""
LARGEST = 131_072
"""characters of definitions that it takes, or one job."""
FIRST_LOOK, LATER_LOOKS = 0.1, 2.0
"""Seconds until one who was overtaken looks again whether its set is in place, at first and at most."""
ABREAST = 8
"""Steps of a shard that are on their way at a time."""
LEFT = 100
"""Entries of ledgers that one run of job/forget forgets."""
ANY_REV = "*"
NAMED = 100
"""Names that an error holds."""


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a job that was put."""

    job: Job
    rev: str
    """Of the definition that the store has now: what `if_rev=` compares."""
    outcome: Literal["added", "changed", "unchanged"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a set of jobs, by their names in order; with `dry_run`, what would."""

    origin: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    dry_run: bool = False


class _Step(NamedTuple):
    """Jobs whose names follow each other; with `prune`, whatever else the origin has between `after` and `upto` goes."""

    shard: int
    jobs: Sequence[Job]
    after: str
    upto: str


class _Way(NamedTuple):
    """How steps are taken."""

    origin: str
    by: str
    prune: bool = False
    take_over: bool = False
    expected: str = ANY_REV
    number: int = -1
    dry: bool = False


class _Overtaken(Conflict):
    """A later apply of the origin has begun."""


OUTCOMES: dict[int, Literal["added", "changed", "unchanged"]] = {
    results.NEW: "added",
    results.CHANGED: "changed",
    results.NO: "unchanged",
}


class Applying(Backfills):
    """The verbs that declare jobs at run time; they are `lb.jobs`' own."""

    async def apply(
        self,
        jobs: Iterable[Job],
        *,
        origin: str,
        prune: bool = False,
        dry_run: bool = False,
        take_over: bool = False,
        by: str | None = None,
    ) -> Applied:
        """Declare a set of jobs, and remove what `origin` no longer has (`job/apply`).

        All is looked at before anything is changed; what is as it should be is not sent again. Up to 100 jobs, and as many to
        remove, are one script a shard: all of it, or nothing. Of more, each hundred is, in order of name. What was done so far
        stays if the store is lost half-way; apply the same set again. Of two applies of one origin at a time the later one
        counts; the other ends with Conflict, unless both are of the same set.

        jobs: each a `Job.declare(name, trigger, function=, params=, ...)`; of those that are known already, as they are to be.
        origin: whose they are, 1 to 100 letters, digits or any of . _ : / @ + -
        prune: remove the jobs of this origin that are not among them, as `delete` does. Never those of another.
        dry_run: only say what would be done.
        take_over: jobs of other origins as well, which are this one's from then on.
        by: who did it; None: the user of the operating system.

        Raises: Conflict for jobs that belong to another origin, or need a newer version of lockbeat: nothing was done.
        InvalidArgument and InvalidType for what is no job, and for two of one name.
        """
        _check_origin(origin)
        own = _own(jobs, origin)
        steps, looks = self._steps(own, prune), self._steps(own, prune, {job.name for job in own})
        way, number, same = _Way(origin, who(by), prune, take_over), 0, set[str]()
        if len(steps) > 1 or dry_run:
            found = await self._take(looks, way._replace(dry=True))
            if dry_run:
                return _applied(origin, found, dry_run=True)
        if len(steps) > 1:
            number = (await self._step(_Step(0, (), "", ""), _Way(origin, way.by, number=0))).number
            same = {name for _, outcome, name in found if outcome == "unchanged"}
            steps = self._steps(own, prune, same)
        try:
            found = await self._take(steps, way._replace(number=number), same)
        except _Overtaken:
            found = await self._settled(looks, way._replace(dry=True))
        for shard in {shard for shard, outcome, _ in found if outcome == "removed"}:
            await self.forget_removed(shard)
        return _applied(origin, found)

    async def _settled(self, steps: Sequence[_Step], looking: _Way) -> builtins.list[tuple[int, Any, str]]:
        """A later apply has begun. If it is of the same set, as when many instances start, wait until that is in place.

        Raises Conflict if the store does not come nearer to the set from one look to the next.
        """
        differed, pause = math.inf, FIRST_LOOK
        while True:
            found = await self._take(steps, looking)
            if not (differ := sum(outcome != "unchanged" for _, outcome, _ in found)):
                return found
            if differ >= differed:
                raise Conflict(f"a later apply of origin {looking.origin!r} has begun, of another set: that one counts", [])
            await asyncio.sleep(pause * chance.between(0.5, 1.0))
            differed, pause = differ, min(2 * pause, LATER_LOOKS)

    async def forget_removed(self, shard: int) -> None:
        """Forget what removed jobs have left behind: their ledgers, and the tasks of them that wait (`job/forget`)."""
        while await self._store.call("job/forget", shard, limit=LEFT) == results.DONE:
            pass

    async def put_one(self, job: Job, *, if_rev: str | None = None, take_over: bool = False, by: str | None = None) -> Put:
        """Declare a job (`job/apply`), of the origin that it names, else "api".

        if_rev: only if it has this rev (`JobState.rev`); empty: only if there is none of its name.
        take_over: though another origin has it. by: as for `apply`.

        Raises: Conflict for a job of another origin, or another rev: it is as it was. InvalidArgument, InvalidType.
        """
        of_type("job", job, Job, "Job")
        if if_rev is not None:
            of_type("if_rev", if_rev, str, "a str")
        job = job.with_origin(API)
        origin = _check_origin(job.origin or API)
        way = _Way(origin, who(by), take_over=take_over, expected=ANY_REV if if_rev is None else if_rev)
        [(_, outcome, _)] = await self._take([_Step(self.shard_of(job.name), [job], "", "")], way)
        return Put(job, job.rev, outcome)

    def _steps(self, jobs: builtins.list[Job], prune: bool, light: Collection[str] = ()) -> builtins.list[_Step]:
        """The jobs by shard, in order of name, a hundred each; of each shard, if something is to be removed.

        light: names of those that are only looked at, of which one step has more.
        """
        groups: dict[int, builtins.list[Job]] = defaultdict(list)
        for job in jobs:
            groups[self.shard_of(job.name)].append(job)
        if prune:
            groups |= {shard: groups[shard] for shard in range(self._store.shards)}
        steps = []
        for shard, several in groups.items():
            after = ""
            parts = _parts(several, light)
            for some in parts:
                upto = some[-1].name if some is not parts[-1] else ""
                steps.append(_Step(shard, some, after, upto))
                after = upto
        return steps

    async def _take(self, steps: Sequence[_Step], way: _Way, same: Collection[str] = ()) -> builtins.list[tuple[int, Any, str]]:
        """Take steps, some of each shard at a time: shard, outcome and name of each job. Raises Conflict.

        same: names of those that were as they should be a moment ago; they are looked at again, and sent only if they are not.
        """
        room = {step.shard: asyncio.Semaphore(ABREAST) for step in steps}
        found: builtins.list[tuple[int, Any, str]] = []
        refused: dict[str, str] = {}
        clocks = dict.fromkeys(room, 0) if way.dry else {shard: await self._store.server_ms(shard) for shard in room}

        async def one(step: _Step) -> None:
            async with room[step.shard]:
                if not refused or way.dry:
                    found.extend(await self._outcomes(step, way, clocks, refused, same))

        taking = [asyncio.ensure_future(one(step)) for step in steps]
        try:
            await asyncio.gather(*taking)
        finally:
            for each in taking:
                each.cancel()
        if refused:
            first = min(refused)
            more = f"; and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise Conflict(f"job {first!r} {refused[first]}{more}", sorted(refused)[:NAMED])
        return found

    async def _outcomes(
        self, step: _Step, way: _Way, clocks: dict[int, int], refused: dict[str, str], same: Collection[str]
    ) -> builtins.list[tuple[int, Any, str]]:
        """Take a step, and what more of it is to be removed. clocks: what each server's showed when it answered last, in ms."""
        found: builtins.list[tuple[int, Any, str]] = []
        ahead_ms, told = 0, False
        while True:
            reply = await self._step(step, way, clocks[step.shard] + ahead_ms, same)
            clocks[step.shard] = reply.now_ms
            if reply.said == results.TOO_LATE:
                raise _Overtaken("a later apply has begun", [])
            if reply.said == results.NO:
                # Overtaken by the clock on the way: aim a little further ahead. Or one is not as it was: send all of them.
                ahead_ms, same = ahead_ms * 2 or 20, ()
                for job, code, word in zip(step.jobs, reply.codes, reply.words, strict=True):
                    if code not in OUTCOMES and code != results.TOO_LATE:
                        refused[job.name] = _refusal(code, word.decode(), way.expected)
                if any(job.name in refused for job in step.jobs):
                    return []
                continue
            if not told:
                found += [(step.shard, OUTCOMES[code], job.name) for job, code in zip(step.jobs, reply.codes, strict=True)]
                told = True
            removed = [word.decode() for word in reply.words]
            found += [(step.shard, "removed", name) for name in removed]
            if reply.said == results.DONE:
                return found
            step = step._replace(after=reply.cursor.decode())

    async def _step(self, step: _Step, way: _Way, now_ms: int = 0, same: Collection[str] = ()) -> Any:
        words: builtins.list[str] = []
        for job in step.jobs:
            if way.dry or job.name in same:
                words += (job.name, job.rev, "", "-1", "-1", "", "0")
                continue
            first = plan.first(job, now_ms) or plan.none(job)
            words += (job.name, job.rev, job.stored, str(first.slot_ms), str(first.due_ms), job.keeps, str(job.limit or 0))
        return await self._store.call(
            "job/apply",
            step.shard,
            origin=way.origin,
            jobs=words,
            rules=rules_version(),
            reads=READS,
            expected=way.expected,
            take=int(way.take_over),
            prune=MOST if way.prune else 0,
            after=step.after,
            upto=step.upto,
            number=way.number,
            dry=int(way.dry),
            call=self._store.new_call(),
            by=way.by,
        )


def _check_origin(origin: str) -> str:
    if check_origin("origin", origin) == CODE:
        raise InvalidArgument("origin", f"must not be {CODE!r}: a Beat declares that; another may take_over its jobs")
    return origin


def _own(jobs: Iterable[Job], origin: str) -> builtins.list[Job]:
    """The jobs in order of name, as the origin's."""
    if isinstance(jobs, (Job, str)):
        raise InvalidType("jobs", f"must be several jobs, not one {type(jobs).__name__}")
    of_type("jobs", jobs, Iterable, "several jobs")
    own: dict[str, Job] = {}
    for job in jobs:
        of_type("jobs", job, Job, "Job")
        if job.origin not in (None, origin):
            raise InvalidArgument("jobs", f"{job.name!r} says that it is of origin {job.origin!r}, not {origin!r}")
        if job.name in own:
            raise InvalidArgument("jobs", f"two of them are named {job.name!r}")
        own[job.name] = job.with_origin(origin)
    return [own[name] for name in sorted(own, key=str.encode)]


def _parts(jobs: Sequence[Job], light: Collection[str]) -> builtins.list[builtins.list[Job]]:
    """As many of them as one run takes, each; one part at least."""
    parts, room, places = [builtins.list[Job]()], LARGEST, float(MOST)
    for job in jobs:
        weight, place = (0, LIGHT) if job.name in light else (_weight(job), 1.0)
        if parts[-1] and (places < place or room < weight):
            parts.append([])
            room, places = LARGEST, float(MOST)
        room, places = room - weight, places - place
        parts[-1].append(job)
    return parts


def _weight(job: Job) -> int:
    """What a job takes of the room of a run: its definition, and its tags, each of which is entered in an index."""
    return len(job.definition) + 500 * len(job.tags)


def _refusal(code: int, word: str, expected: str) -> str:
    """Why a job was left as it is."""
    if code == results.ANOTHERS:
        return f"belongs to origin {word!r}"
    if code == results.NEWER:
        return "needs a newer lockbeat: an instance of that version declared it"
    if not word:
        return f"is not there, and should have rev {expected!r}"
    return f"has rev {word!r}, not {expected!r}" if expected else f"is there already, with rev {word!r}"


def _applied(origin: str, found: Iterable[tuple[int, Any, str]], *, dry_run: bool = False) -> Applied:
    by_outcome: dict[str, builtins.list[str]] = defaultdict(list)
    for _, outcome, name in found:
        by_outcome[outcome].append(name)
    kinds = ("added", "changed", "removed", "unchanged")
    added, changed, removed, unchanged = (tuple(sorted(by_outcome[kind], key=str.encode)) for kind in kinds)
    return Applied(origin, added, changed, removed, unchanged, dry_run)
