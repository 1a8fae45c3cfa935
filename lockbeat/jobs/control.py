"""Control of jobs while they run: pause, resume, skip what comes next; and who did it.

A paused job's slot is due never, so that no instance fires it, whatever it was told before. What a pause skips is entered in the
ledger when it ends. Where its time has come, the first instance to be handed the job resumes it (`Control.resume_due`).
"""

from __future__ import annotations

import getpass
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

from lockbeat.calendars import Closed, View, read_view
from lockbeat.errors import InvalidArgument, LockbeatError, UnknownJob, Unreadable
from lockbeat.jobs import around, plan
from lockbeat.jobs.definition import Job
from lockbeat.jobs.plan import MOST_COUNTED, Slot
from lockbeat.jobs.standing import Standing, standings
from lockbeat.store import Store, results
from lockbeat.store.keys import job_lock
from lockbeat.store.records import ChangeLine, SlotLine
from lockbeat.store.rows import Row
from lockbeat.tasks import Spawned
from lockbeat.tasks.look import CALLED
from lockbeat.triggers import ByHand, Called, missed, upcoming
from lockbeat.triggers.base import FAR_MS
from lockbeat.triggers.rules import rules_version
from lockbeat.values.checks import of_type, one_of, whole
from lockbeat.values.durations import instant
from lockbeat.values.names import check_by, check_name
from lockbeat.values.payloads import dump

log = logging.getLogger("lockbeat")

Resume = Literal["skip", "latest", "all"]
MOST_SKIPPED = 1000
MOST_WORDS = 500
"""Bytes of a reason."""
PAUSE, SKIP_NEXT = "pause", "skip_next"
NO_SLOTS = "has no slots: it runs when it is triggered"
RETIRED = "is retired: no instance that lives declares it"


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody did to a job, and when. Of a paused job: the change by which it is paused."""

    what: str
    """pause, skip_next, resume, trigger, put (its definition was changed), delete, retire, return, or what was done to its
    backfill."""
    at: float | None
    """Seconds since the Unix epoch, by the server's clock; None: that was lost from the store."""
    by: str | None
    """Who; None: nobody, the pause was over, or the code declared it."""
    reason: str | None = None
    until_at: float | None = None
    """When the pause ends by itself; of skip_next, the last slot that is skipped. None: when somebody resumes it."""
    before: str | None = None
    """put: the trigger that the job had, as JSON; None: it kept it, or that is not known."""

    @classmethod
    def of(cls, text: str) -> Change:
        """From a line of `job:changes` or `job:paused`. Raises ValueError."""
        line = ChangeLine.of(text)
        return cls(
            line.what, line.at_ms / 1000, line.by or None, line.why or None, line.until_ms / 1000 or None, line.before or None
        )

    @property
    def last_ms(self) -> int | None:
        """The last instant whose slot is skipped; None: nobody knows yet. A slot at the end of a pause is fired."""
        return None if self.until_at is None else round(self.until_at * 1000) - (self.what == PAUSE)


@dataclass(frozen=True, slots=True)
class Resumed:
    """How a job goes on after its pause."""

    job: str
    skipped: int
    """How many slots of the pause are skipped; -1: too many to count."""
    first_slot: datetime | None
    """The first of them; None: there are none."""
    last_slot: datetime | None
    next_slot: datetime | None
    """The first that is fired, by the calendars as they are now; None: none is left."""


class Way(NamedTuple):
    """Which slots of a pause are skipped, and where the job goes on."""

    first_ms: int
    last_ms: int
    skipped: int
    """How many; -1: too many to count."""
    next: Slot | None


def paused_by(place: str, paused: str) -> Change | None:
    """The change by which a job is paused that stands so; None: it is not. Raises ValueError."""
    if not (SlotLine.of(place).may_be_paused if place else paused) or (place.startswith("-1 ") and not paused):
        return None
    return Change.of(paused) if paused else Change(PAUSE, None, None)


def way_on(job: Job, place: str, until_ms: int, catchup: Resume, closed: Closed | None = None) -> Way:
    """How a job goes on whose pause has taken the slots to `until_ms`. `closed`: the latest is one that is not excluded. Pure."""
    slot_ms = SlotLine.of(place).slot_ms if place else -1
    if slot_ms < 0 or slot_ms > until_ms:
        first = plan.first(job, slot_ms - 1 if slot_ms >= 0 else until_ms)
        return Way(0, 0, 0, first)
    if catchup == "all":
        return Way(0, 0, 0, Slot(slot_ms, plan.due(job, slot_ms, job.trigger.next(slot_ms))))
    found = missed(job.trigger, slot_ms, until_ms, MOST_COUNTED)
    if catchup == "skip":
        return Way(slot_ms, found.last, found.count or -1, plan.first(job, until_ms))
    last, count, following = found.last, found.count, found.next
    if closed is not None and closed.on(last) and (fired := closed.last_open(job.trigger, slot_ms - 1, last)) is not None:
        rest = job.trigger.count(slot_ms, fired, MOST_COUNTED)
        last, count, following = fired, None if rest is None else rest + 1, job.trigger.next(fired)
    latest = Slot(last, plan.due(job, last, following))
    if last == slot_ms:
        return Way(0, 0, 0, latest)
    before = max(job.trigger.prev(last - 1) or slot_ms, slot_ms)
    return Way(slot_ms, before, -1 if count is None else count - 1, latest)


class Control:
    """The verbs by which a person steps in; they are `lb.jobs`' own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def shard_of(self, name: str) -> int:
        """Where a job lives with all that belongs to it: the shard of the lock that it holds while it runs."""
        return self._store.shard_of(job_lock(name))

    async def pause(self, name: str, reason: str | None = None, until: datetime | None = None, *, by: str | None = None) -> bool:
        """Let no slot of a job be fired until it is resumed (`job/pause`); what runs goes on. False: it was paused before.

        The slots of the pause are skipped: they stand in the ledger when it ends, as one entry.

        reason: for people. until: an aware datetime; the pause ends by itself then, by the server's clock. by: who did it; None:
            the user of the operating system. Of a job that is paused already, this becomes the reason, the time and the user.

        Raises: UnknownJob. InvalidArgument for a time that is over. LockbeatError for a job that has ended.
        """
        ends_ms = 0 if until is None else _instant_ms(until)
        done = await self._pause(name, PAUSE, ends_ms, reason, by)
        if done == results.TOO_LATE:
            raise InvalidArgument("until", f"is over by the server's clock: {until}")
        return done == results.DONE

    async def skip_next(self, name: str, n: int = 1, reason: str | None = None, *, by: str | None = None) -> datetime:
        """Skip the next `n` slots of a job (`job/pause`); the last of them. Where some are to be skipped already, `n` more.

        They stand in the ledger as one entry when the last of them has come. `resume` takes it back.

        reason, by: as for `pause`.

        Raises: UnknownJob. InvalidArgument for other than 1 to 1000 slots. LockbeatError for a job that is paused, and for one
        that has fewer slots left.
        """
        whole("n", n, 1, MOST_SKIPPED)
        while True:
            known = await self._standing(name)
            before = paused_by(known.place, known.paused)
            if before is not None and before.what == PAUSE:
                raise LockbeatError(f"job {name!r} is paused: its slots are skipped anyway")
            slot_ms = SlotLine.of(known.place).slot_ms if known.place else -1
            after_ms = slot_ms - 1
            if before is not None and before.last_ms is not None:
                after_ms = max(after_ms, before.last_ms)
            slots = upcoming(known.job.trigger, after_ms, n) if slot_ms >= 0 else []
            if isinstance(known.job.trigger, ByHand):
                called = isinstance(known.job.trigger, Called)
                raise LockbeatError(f"job {name!r} {CALLED if called else NO_SLOTS}")
            if len(slots) < n:
                raise LockbeatError(f"job {name!r} has no {n} slots left: it has {len(slots)}")
            if await self._pause(name, SKIP_NEXT, slots[-1], reason, by, known) != results.TOO_LATE:
                return instant(slots[-1])

    async def resume(
        self,
        name: str,
        catchup: Resume | None = None,
        *,
        reason: str | None = None,
        by: str | None = None,
        dry_run: bool = False,
    ) -> Resumed | None:
        """Let the slots of a paused job be fired again (`job/resume`); how it goes on. None: it was not paused.

        catchup: what becomes of the slots of the pause. None or "skip": they are skipped. "latest": the latest of them is fired
            that no calendar excludes, unless it is later than the job's window; those before it are skipped. "all": for a job
            whose catch-up is `all`, which fires them as after an outage.
        reason, by: as for `pause`. dry_run: only say how it would go on.

        Raises: UnknownJob. InvalidArgument.
        """
        catchup = "skip" if catchup is None else catchup
        one_of("catchup", catchup, get_args(Resume))
        why = "" if reason is None else check_name("reason", reason, MOST_WORDS)
        while True:
            known = await self._standing(name)
            if paused_by(known.place, known.paused) is None:
                return None
            if catchup == "all" and known.job.catchup != "all":
                raise InvalidArgument("catchup", f'job {name!r} has catch-up {known.job.catchup!r}: declare it with "all" first')
            job, shard, view = known.job, self.shard_of(name), None
            if job.exclude:
                view = await read_view(self._store, shard, job.exclude, job.trigger.timezone)
            closed = view.closed if view else None
            way = way_on(job, known.place, await self._store.server_ms(shard), catchup, closed)
            if not dry_run:
                row = self._resuming(known, way, who(by), view, why)
                done = await self._store.call_row(row, shard)
                if done == results.TOO_LATE:
                    continue
                if done == results.UNKNOWN:
                    raise self._unknown(name)
                if done == results.NO:
                    return None
            first, last = (instant(way.first_ms), instant(way.last_ms)) if way.skipped else (None, None)
            return Resumed(name, way.skipped, first, last, _first_fired(job, way, closed))

    async def trigger(
        self,
        name: str,
        params: Any = None,
        *,
        overlap: Literal["allow"] | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Spawned:
        """Have a job's function run now, beside its slots (`job/trigger`): the task, JOB!ID. It does so for a paused job, too.

        Unless the job's overlap is `allow`, nothing is triggered while a task of it has not ended: `created` is False then, and
        `task_id` is that task. To slots that come due before the run has ended it is such a task, too.

        params: what its `run.params` is to be, JSON; None: as the job has them.
        overlap: "allow": run beside whatever runs of it; None: as the job has it.
        reason, by: as for `pause`.

        Raises: UnknownJob. InvalidArgument and InvalidType for params that are no JSON.
        """
        if overlap is not None:
            one_of("overlap", overlap, ("allow",))
        check_name("name", name)
        given = "" if params is None else dump("params", params)
        why = "" if reason is None else check_name("reason", reason, MOST_WORDS)
        told_by, task_id = who(by), f"{name}!{secrets.token_hex(6)}"
        while True:
            known = await self._standing(name)
            if isinstance(known.job.trigger, Called):
                raise LockbeatError(f"job {name!r} {CALLED}")
            text = given or known.job.params_text
            said, found = await self._store.call(
                "job/trigger",
                self.shard_of(name),
                job=name,
                rev=known.rev,
                id=task_id,
                record=known.job.triggered(overlap),
                overlap=overlap or known.job.overlap,
                payload=f'{{"params":{text},"headers":{{}}}}' if text else "",
                owner=self._store.owner,
                by=told_by,
                why=why,
            )
            if said == results.UNKNOWN:
                raise self._unknown(name)
            if said != results.TOO_LATE:
                return Spawned(found.decode(), 1, said == results.DONE)

    async def changes(self, name: str) -> list[Change]:
        """Who has done what to a job, the latest first: the last fifty (`job/changes`). And when a job of that name was deleted,
        if that is one of the last fifty of its shard. Raises UnknownJob for a job of which nothing is known."""
        check_name("name", name)
        existed, *texts = await self._store.call("job/changes", self.shard_of(name), job=name)
        try:
            done, deleted = ([Change.of(line) for line in text.decode("latin-1").split("\xff") if line] for text in texts)
        except ValueError:
            raise Unreadable(self._store.keys.key(self.shard_of(name), "job:changes"), name) from None
        found = [replace(change, reason=None) for change in deleted if change.reason == name] + done
        if not existed and not found:
            raise self._unknown(name)
        return found[::-1]

    async def resume_due(self, shard: int, names: Iterable[str], blocked: Callable[[str, Exception], None]) -> None:
        """Resume jobs the time of whose pause has come. blocked: is told of one that can't be."""
        rows = []
        for name, known in (await standings(self._store, shard, names)).items():
            try:
                if not isinstance(known, Standing):
                    raise known
                change = paused_by(known.place, known.paused)
                if change is not None and change.last_ms is not None:
                    rows.append(self._resuming(known, way_on(known.job, known.place, change.last_ms, "skip"), ""))
            except (LockbeatError, ValueError) as problem:
                blocked(name, problem)
        for row, done in zip(rows, await self._store.call_many(rows, shard), strict=True):
            if isinstance(done, Unreadable):
                blocked(row.job, done)
            elif done == results.DONE:
                log.info("job %r goes on: its pause is over", row.job)

    async def _pause(
        self, name: str, what: str, until_ms: int, reason: str | None, by: str | None, known: Standing | None = None
    ) -> int:
        check_name("name", name)
        row = self._store.row["job/pause"](
            job=name,
            what=what,
            until=until_ms,
            expected=known.place if known else "",
            held=known.paused.encode("latin-1") if known else "",
            by=who(by),
            why="" if reason is None else check_name("reason", reason, MOST_WORDS),
            call=self._store.new_call(),
        )
        done: int = await self._store.call_row(row, self.shard_of(name))
        if done == results.UNKNOWN:
            raise self._unknown(name)
        if done == results.FINISHED:
            by_hand = isinstance((await self._standing(name)).job.trigger, ByHand)
            raise LockbeatError(f"job {name!r} {NO_SLOTS if by_hand else 'has no slot left'}")
        return done

    def _resuming(self, known: Standing, way: Way, by: str, view: View | None = None, why: str = "") -> Row:
        following = way.next or plan.none(known.job)
        return self._store.row["job/resume"](
            job=known.job.name,
            expected=known.place,
            held=known.paused.encode("latin-1"),
            slot=following.slot_ms,
            due=following.due_ms,
            words=f"{known.rev} {rules_version()}",
            first=way.first_ms,
            last=way.last_ms,
            count=way.skipped,
            keep=known.job.keeps,
            by=by,
            call=self._store.new_call(),
            calendars=view.words if view else "",
            why=why,
        )

    def _unknown(self, name: str) -> UnknownJob:
        return UnknownJob(f"no job named {name!r} in {self._store.connector.location}")

    async def _standing(self, name: str) -> Standing:
        check_name("name", name)
        shard = self.shard_of(name)
        found = (await standings(self._store, shard, [name])).get(name)
        if found is None:
            raise self._unknown(name)
        if not isinstance(found, Standing):
            raise found
        if " retired " in found.place:
            raise retired(name)
        try:
            paused_by(found.place, found.paused)
        except ValueError:
            raise Unreadable(self._store.keys.key(shard, "job:paused"), name) from None
        return found


def retired(name: str) -> LockbeatError:
    """A job has left the code: there is nobody to run it."""
    return LockbeatError(f"job {name!r} {RETIRED}")


def _first_fired(job: Job, way: Way, closed: Closed | None) -> datetime | None:
    if way.next is None:
        return None
    return next((coming.slot for coming in around.upcoming(job, way.next.slot_ms, closed) if not coming.calendar), None)


def _instant_ms(until: datetime) -> int:
    of_type("until", until, datetime, "an aware datetime")
    if until.utcoffset() is None:
        raise InvalidArgument("until", "must be aware: give it a tzinfo")
    if (ends_ms := round(until.timestamp() * 1000)) >= FAR_MS:
        raise InvalidArgument("until", f"must be before the year 3000, not {until}")
    return max(ends_ms, 1)  # 0 is no time, and what lies before it is over as well


def who(by: str | None) -> str:
    if by is not None:
        return check_by(by)
    try:
        return check_by(getpass.getuser())
    except (OSError, KeyError, LockbeatError):  # nobody of that number is known here, as in a container
        return f"uid {os.getuid()}"
