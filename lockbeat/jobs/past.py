"""What happened: the ledger of a job, the history of all, and why."""

from __future__ import annotations

import builtins
import heapq
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

from lockbeat.calendars import read_view
from lockbeat.errors import InvalidArgument
from lockbeat.jobs.at_work import unfinished
from lockbeat.jobs.control import PAUSE, Control
from lockbeat.jobs.ledger import LedgerEntry, situation
from lockbeat.jobs.listing import as_indexed
from lockbeat.jobs.why import Clock, Explanation, Facts, iso, linked, of_entry, of_instant, of_none, of_unknown_run
from lockbeat.store import reasons
from lockbeat.store.keys import job_of_task
from lockbeat.store.replies import sifted
from lockbeat.triggers import ByHand, Called
from lockbeat.triggers.base import FAR_MS, instant_ms
from lockbeat.values.checks import one_of, whole
from lockbeat.values.names import check_name

if TYPE_CHECKING:
    from lockbeat.jobs.state import JobState

State = Literal["fired", "done", "failed", "retrying", "lost", "cancelled", "skipped", "missed", "anchored", "unknown"]
"""Of an entry of the ledger."""
RECORDED: dict[str, tuple[str, ...]] = {
    "fired": ("waiting", "running"),
    "done": ("done",),
    "failed": ("dead",),
    "retrying": ("waiting",),
    "lost": ("dead",),
    "cancelled": ("cancelled", "stopping"),
    "skipped": ("skipped",),
    "missed": ("missed",),
    "anchored": ("anchored",),
    "unknown": (),
}
"""By the state of an entry: those that its task's record may have."""
WELL = {"fired", "done", "retrying", "unknown"}
"""States that are looked for among all entries; the others stand in a list of their own."""

PAGE = 500
MOST_SHOWN = 1000
"""Entries of one answer of `history`."""
LOOK = 100
"""Entries that a run of `job/history` looks at, besides those of the last millisecond; keeps it under 5 ms."""
MOST_LOOKED = 1000
"""Runs of it that one answer takes."""
FEW_JOBS = 20
"""So many jobs with a tag are looked up in their ledgers; of more, the history of all is gone through."""


@dataclass(frozen=True, slots=True)
class History:
    """Entries, the newest first; and where to go on."""

    entries: tuple[LedgerEntry, ...]
    more: str | None
    """For `after=`; None: there are no more."""


class Past(Control):
    """The verbs by which people look back; they are `lb.jobs`' own."""

    if TYPE_CHECKING:

        async def get(self, name: str) -> JobState: ...
        async def list(self, tag: str | None = None, *, limit: int | None = None) -> builtins.list[JobState]: ...

    async def ledger(self, name: str, limit: int = 20, before_ms: int = 0) -> builtins.list[LedgerEntry]:
        """What became of a job's slots, the latest first (`job/ledger`). A job that is unknown has none."""
        check_name("name", name)
        rows: list[tuple[int, bytes, bytes]] = []
        while len(rows) < limit:
            ask = min(PAGE, limit - len(rows))
            page = await self._store.call("job/ledger", self.shard_of(name), job=name, before=before_ms, limit=ask)
            rows += (readable := sifted(page))
            if len(page) < ask or not readable:
                break
            before_ms = readable[-1][0]
        return [LedgerEntry.of(name, *row) for row in rows]

    async def history(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        job: str | None = None,
        tag: str | None = None,
        states: Collection[State] = (),
        limit: int = 50,
        after: str | None = None,
        looks: int | None = None,
    ) -> History:
        """What became of the slots and triggered runs of all jobs, the newest first (`job/history`): what their ledgers keep.

        since, until: aware datetimes; what was fired, skipped, found missed or triggered then, by the server's clock. None: no
            bound. job, tag: only of this job, of jobs with this tag. states: only of these; none: of all.
        limit: 1 to 1000 entries. after: `more` of the answer before, to go on. An answer that would take too long to find has
            fewer entries, and says `more`. looks: how many runs of the script it may take, 1 to 1000, of 100 entries each; each
            shard is looked at once at least.

        Raises: InvalidArgument. UnknownJob for a `job` that is none.
        """
        whole("limit", limit, 1, MOST_SHOWN)
        most = MOST_LOOKED if looks is None else whole("looks", looks, 1, MOST_LOOKED)
        since_ms, until_ms = _bound("since", since, 0), _bound("until", until, FAR_MS)
        if since_ms > until_ms:
            raise InvalidArgument("until", f"{until} comes before the start, {since}")
        if job is not None and tag is not None:
            raise InvalidArgument("tag", "is for all jobs, not for one")
        for state in (wanted := {*states}):
            one_of("states", state, get_args(State))
        place = _place(after)
        jobs = None
        if job is not None:
            await self.get(job)
            jobs = {job}
        elif tag is not None:
            few = await self.list(tag, limit=FEW_JOBS + 1)
            jobs = {state.job.name for state in few} if len(few) <= FEW_JOBS else None
        by_tag = tag if jobs is None else None
        looked = _Looked(wanted, jobs, since_ms, min(until_ms, -place[0]) if place else until_ms, most, by_tag)
        sources = [self._ledger_of(name, looked) for name in sorted(jobs)] if jobs is not None else []
        shards = {self.shard_of(name) for name in jobs} if sources and jobs else range(self._store.shards)
        sources += [self._entered(shard, looked, runs=bool(sources)) for shard in shards]
        found = list[LedgerEntry]()
        async for key, entry in _merged(sources):
            if place and key <= place:
                continue
            if entry is None or len(found) == limit:  # a source has looked far enough
                return History(tuple(found), _spell(key if entry is None else _key(found[-1])))
            found.append(entry)
        return History(tuple(found), None)

    async def _ledger_of(self, name: str, looked: _Looked) -> AsyncIterator[Found]:
        """The slots of one job, from its ledger."""
        entries = [entry for entry in await self.ledger(name, (await self.get(name)).job.keep * 2 + 100) if looked.wants(entry)]
        for entry in sorted(entries, key=_key):
            yield _key(entry), entry

    async def _entered(self, shard: int, looked: _Looked, *, runs: bool) -> AsyncIterator[Found]:
        """What was entered in a shard. runs: triggered runs alone."""
        odd = runs or bool(looked.states and not looked.states & WELL)
        kinds = sorted({kind for state in looked.states for kind in RECORDED[state]}) if "unknown" not in looked.states else []
        until_ms = looked.until_ms
        while until_ms >= looked.since_ms:
            # Each shard is looked at once at least: one that was not would stop where the last answer did, and be passed over.
            if looked.turns >= looked.most and until_ms < looked.until_ms:
                yield (-until_ms, ""), None
                return
            looked.turns += 1
            reply = await self._store.call(
                "job/history",
                shard,
                odd=int(odd),
                until=until_ms,
                since=looked.since_ms,
                states=kinds,
                limit=LOOK,
                tag=as_indexed(looked.tag),
            )
            if not reply.looked:
                looked.jobs, looked.tag = {state.job.name for state in await self.list(looked.tag)}, None
                continue
            until_ms, rows, _ = reply
            entries = [entry for row in rows if (entry := _entry(*row)) and (entry.run or not runs) and looked.wants(entry)]
            for entry in sorted(entries, key=_key):
                yield _key(entry), entry
            if until_ms < 0:
                return

    async def why(self, name: str, slot: datetime | None = None, *, run: str | None = None, clock: Clock = iso) -> Explanation:
        """What became of a slot of a job, or will, and why.

        slot: an aware datetime, which need be no slot; None: the one that has come and is not fired; or else the newest, or the
            run that was triggered since.
        run: in its place, the id of a triggered run, JOB!ID. clock: spells an instant (seconds since the Unix epoch) in the text;
            by default ISO 8601, UTC.

        Raises: UnknownJob. InvalidArgument.
        """
        if run is not None:
            if slot is not None:
                raise InvalidArgument("run", "is in the place of a slot: say one of them")
            return linked(await self._why_run(name, run, clock), self._store.log_url)
        state = await self.get(name)
        now = await self._store.server_ms(self.shard_of(name)) / 1000
        at_ms = _bound("slot", slot, 0) if slot is not None else await self._meant(state, now)
        held = held_ms(state, now) if slot is None else None
        is_overdue = state.next is not None and state.next.slot_ms <= now * 1000
        newest = await self._newest_run(name) if slot is None and not is_overdue else None
        if newest and (held is None or (newest.at_ms or 0) >= held):
            return linked(await self._of_entry(newest, newest.slot_ms, clock, state.open), self._store.log_url)
        if held is not None and not is_overdue and (at_ms is None or at_ms < held):
            at_ms = held
        if at_ms is None:
            return of_none(await self._facts(state, now), clock)
        trigger = state.job.trigger
        trigger = trigger.slots if isinstance(trigger, Called) and trigger.slots is not None else trigger
        entry, is_slot = next(iter(await self.ledger(name, 1, at_ms + 1)), None), trigger.prev(at_ms) == at_ms
        if entry is not None and (at_ms in (entry.slot_ms, entry.last_ms) or (is_slot and at_ms <= (entry.last_ms or 0))):
            return linked(await self._of_entry(entry, at_ms, clock, state.open), self._store.log_url)
        return of_instant(await self._facts(state, now), at_ms, clock)

    async def _meant(self, state: JobState, now: float) -> int | None:
        """The slot that is meant where none is named."""
        coming, newest = state.next, await self.ledger(state.job.name, 1)
        if newest and (coming is None or coming.slot_ms > now * 1000):
            return newest[0].last_ms or newest[0].slot_ms
        return None if coming is None else coming.slot_ms

    async def _newest_run(self, name: str) -> LedgerEntry | None:
        """The run that was triggered last, if no slot has come due since. The log of changes says when that was."""
        at = next((change.at for change in await self.changes(name) if change.what == "trigger"), None)
        newest = next(iter(await self.ledger(name, 1)), None)
        if at is None or (newest is not None and (newest.at or 0) > at):
            return None
        at_ms = round(at * 1000)
        async for _, entry in self._entered(self.shard_of(name), _Looked(set(), {name}, at_ms, at_ms), runs=True):
            if entry is not None:
                return entry
        return None

    async def _why_run(self, name: str, run: str, clock: Clock) -> Explanation:
        check_name("name", name)
        check_name("run", run)
        if not run.startswith(f"{name}!"):
            raise InvalidArgument("run", f"{run!r} is no triggered run of {name!r}, whose ids are {name}!ID")
        record, _, _, failure, *_ = await self._store.call("task/get", self.shard_of(name), id=run)
        if not record:
            return of_unknown_run(name, run)
        entry = LedgerEntry.of(name, 0, record, failure, run)
        return await self._of_entry(entry, entry.slot_ms, clock, (await self.get(name)).open if entry.in_line else None)

    async def _of_entry(self, entry: LedgerEntry, at_ms: int, clock: Clock, opened: str | None) -> Explanation:
        """With the run that has not ended of which it tells (`job/strips`). opened: the job's task that has not ended."""
        stands, run = situation(entry), None
        if stands in ("running", "stopping"):
            run = entry.task_id
        elif stands == "in_line":
            run = opened
        elif stands == "skipped" and entry.code in (reasons.OVERLAP, reasons.BUFFER_FULL):
            run = entry.detail if entry.code == reasons.OVERLAP else opened
        if not run or job_of_task(run) != entry.job:
            return of_entry(entry, at_ms, clock)
        shard = self.shard_of(entry.job)
        found = await unfinished(self._store, shard, [run], await self._store.server_ms(shard))
        return of_entry(entry, at_ms, clock, next(iter(found), None))

    async def _facts(self, state: JobState, now: float) -> Facts:
        """What is known of a job besides its ledger."""
        job, shard = state.job, self.shard_of(state.job.name)
        view = await read_view(self._store, shard, job.exclude, job.trigger.timezone)
        page = await self._store.call("job/ledger", shard, job=job.name, before=-1, limit=1)
        instances = await self._store.call("beat/instances", 0, limit=PAGE)
        served = any(json.loads(info).get("schedules") for _, info, _ in instances)
        oldest_ms = next((row[0] for row in sifted(page)), None)
        return Facts(job, state.next, state.paused, state.retired_at, state.counts.fired, now, view.closed, oldest_ms, served)


def held_ms(state: JobState, now: float) -> int | None:
    """The latest slot of a paused job that has come due since: nobody fires it before the job is resumed. None: there is none."""
    change, trigger = state.paused, state.job.trigger
    if state.state != "paused" or change is None or change.what != PAUSE or change.at is None or isinstance(trigger, ByHand):
        return None
    slot_ms = trigger.prev(round(now * 1000))
    return slot_ms if slot_ms is not None and slot_ms >= change.at * 1000 else None


Key = tuple[int, str]
"""Of an entry in the order of history: less is newer."""
Found = tuple[Key, LedgerEntry | None]
"""An entry; None: nobody looked further than to there."""


@dataclass(slots=True)
class _Looked:
    """What is looked for, and how often somebody has."""

    states: set[State]
    jobs: Collection[str] | None
    since_ms: int
    until_ms: int
    most: int = MOST_LOOKED
    tag: str | None = None
    """Only of jobs with this tag, whichever they are; the store knows."""
    turns: int = 0

    def wants(self, entry: LedgerEntry) -> bool:
        if self.states and entry.state not in self.states:
            return False
        return self.since_ms <= (entry.at_ms or 0) <= self.until_ms and (self.jobs is None or entry.job in self.jobs)


async def _merged(sources: builtins.list[AsyncIterator[Found]]) -> AsyncIterator[Found]:
    """The newest of all first; nothing that is older than where one of them stopped looking."""
    heap: list[tuple[Key, int, LedgerEntry | None]] = []

    async def pull(source: int) -> None:
        async for key, entry in sources[source]:
            heapq.heappush(heap, (key, source, entry))
            return

    for source in range(len(sources)):
        await pull(source)
    while heap:
        key, source, entry = heapq.heappop(heap)
        yield key, entry
        await pull(source)


def _key(entry: LedgerEntry) -> Key:
    return -(entry.at_ms or 0), entry.task_id


def _spell(key: Key) -> str:
    return f"{-key[0]} {key[1]}"


def _place(after: str | None) -> Key | None:
    if after is None:
        return None
    at, _, task_id = check_name("after", after, 2048).partition(" ")
    if not at.isdecimal() or len(at) > 15:
        raise InvalidArgument("after", f"{after!r} is no `more` of an answer")
    return -int(at), task_id


def _bound(argument: str, when: datetime | None, otherwise: int) -> int:
    return otherwise if when is None else instant_ms(argument, when)


def _entry(at_ms: int, task_id: bytes, record: bytes, failure: bytes) -> LedgerEntry | None:
    """From a row of `job/history`."""
    text = task_id.decode(errors="replace")
    job, at, slot = text.rpartition("@")
    if at and slot.isdecimal():
        return LedgerEntry.of(job, int(slot), record, failure)
    return LedgerEntry.of(text.rpartition("!")[0], at_ms, record, failure, text)
