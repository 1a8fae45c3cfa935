"""Backfills, as a person begins, asks for, pauses and ends them. `Backfiller` carries them on."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from typing import Any, Literal, get_args

from lockbeat.calendars import read_view
from lockbeat.errors import InvalidArgument, InvalidType, LockbeatError, Unreadable
from lockbeat.jobs.backfill import MOST_RATE, MOST_SLOTS, UNCONFIRMED, Backfill, count, stretch
from lockbeat.jobs.control import MOST_WORDS, NO_SLOTS, Control, who
from lockbeat.jobs.standing import Standing
from lockbeat.store import results
from lockbeat.tasks.look import CALLED
from lockbeat.triggers import ByHand, Called
from lockbeat.triggers.base import instant_ms
from lockbeat.values.checks import of_type, one_of, whole
from lockbeat.values.durations import instant
from lockbeat.values.names import check_name

Going = Literal["running", "paused", "done", "cancelled"]
"""How far a backfill is."""
PAGE = 200
LOOKED_AT = 300
"""Slots that one run of backfill/look takes; keeps it under 5 ms."""


class Backfills(Control):
    """The verbs of backfills; they are `lb.jobs`' own."""

    async def backfill(
        self,
        name: str,
        start: datetime,
        end: datetime | None = None,
        *,
        rate: float | None = None,
        confirm: bool = False,
        unknown: bool = False,
        dry_run: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> Backfill:
        """Fire the slots of a job that lie in a stretch of the past and have not run, each once (`backfill/start`).

        It goes on in the background: any instance of the beat carries it on, one after the other has died. The slots keep to the
        job's overlap, calendars and limits of an attempt; a pause of the job and its `window` are for slots that come due.

        start, end: aware datetimes; the slots from `start` on and before `end`; None: up to now, by the server's clock.
        rate: how many slots are fired in a second, at most; None: as the job's overlap lets them.
        confirm: there may be more than 1000 slots, up to a million.
        unknown: fire as well slots of which nobody knows whether they ran: the ledger has forgotten them, or the store was lost.
        dry_run: only say what it would do.
        reason, by: as for `pause`.

        Raises: UnknownJob. InvalidArgument, InvalidType. LockbeatError for a job without a trigger, and while a backfill of the
        job has not ended.
        """
        every_us = 0 if rate is None else round(1e6 / _checked_rate(rate))
        for flag, said in (("confirm", confirm), ("unknown", unknown), ("dry_run", dry_run)):
            of_type(flag, said, bool, "a bool")
        start_ms, end_ms = _instant("start", start), None if end is None else _instant("end", end)
        why, by = "" if reason is None else check_name("reason", reason, MOST_WORDS), who(by)
        shard, call = self.shard_of(name), self._store.new_call()
        while True:
            known = await self._standing(name)
            if isinstance(known.job.trigger, Called):  # first: it is a ByHand, too
                raise LockbeatError(f"job {name!r} {CALLED}")
            if isinstance(known.job.trigger, ByHand):
                raise LockbeatError(f"job {name!r} {NO_SLOTS}")
            now_ms = await self._store.server_ms(shard)
            to_ms = now_ms if end_ms is None else end_ms
            _check_range(start_ms, to_ms, now_ms, start, end)
            total = await self._total(known, start_ms, to_ms)
            if total > UNCONFIRMED and not confirm and not dry_run:
                raise InvalidArgument(
                    "confirm", f"job {name!r} has {total} slots from {start} on: confirm that you mean them all"
                )
            if dry_run:
                return await self._planned(known, shard, start_ms, to_ms, total, every_us, unknown, why, by)
            said, line, _ = await self._store.call(
                "backfill/start",
                shard,
                job=name,
                rev=known.rev,
                start=start_ms,
                end=to_ms,
                total=total,
                every=every_us,
                unknown=int(unknown),
                id=call,
                by=by,
                why=why,
            )
            if said == results.UNKNOWN:
                raise self._unknown(name)
            if said == results.BUSY:
                raise LockbeatError(
                    f"job {name!r} has a backfill that is {self._told(name, line).state}: wait for its end, or cancel it"
                )
            if said != results.TOO_LATE:
                return self._told(name, line)

    async def get_backfill(self, name: str) -> Backfill | None:
        """How far the last backfill of a job has come (`backfill/get`); None: there was none in a week. Raises UnknownJob."""
        check_name("name", name)
        existed, line, _ = await self._store.call("backfill/get", self.shard_of(name), job=name)
        if not existed:
            raise self._unknown(name)
        return self._told(name, line) if line else None

    async def backfills(
        self, *, state: Going | None = None, after: str | None = None, limit: int | None = None
    ) -> list[Backfill]:
        """The last backfill of each job that had one in a week, in order of job (`backfill/list`, in pages).

        state: only those that are running, paused, done or cancelled. after: only of jobs behind this one. limit: at most so
            many; None: all.

        Raises: InvalidArgument and InvalidType.
        """
        if state is not None:
            one_of("state", state, get_args(Going))
        begin = "" if after is None else check_name("after", after)
        most = whole("limit", limit, 1, 1_000_000) if limit is not None else 1_000_000

        async def of_shard(shard: int) -> list[Backfill]:
            found, cursor = list[Backfill](), begin.encode()
            while len(found) < most:
                page = await self._store.call(
                    "backfill/list", shard, after=cursor, limit=min(PAGE, most - len(found)), state=state or ""
                )
                behind = [(name, line) for name, line in page.rows if name > cursor]
                found += [self._told(name.decode(errors="replace"), line) for name, line in behind]
                if not (cursor := page.cursor):
                    break
            return found

        several = await asyncio.gather(*map(of_shard, range(self._store.shards)))
        return sorted((each for found in several for each in found), key=lambda each: each.job.encode())[:most]

    async def pause_backfill(self, name: str, reason: str | None = None, *, by: str | None = None) -> bool:
        """Let a backfill fire nothing more until it is resumed (`backfill/control`). False: it was paused before.

        Raises: UnknownJob. LockbeatError where there is none, or it has ended. So do `resume_backfill` and `cancel_backfill`.
        """
        return await self._control(name, "paused", reason, by)

    async def resume_backfill(self, name: str, reason: str | None = None, *, by: str | None = None) -> bool:
        """Let a paused backfill go on (`backfill/control`). False: it was not paused."""
        return await self._control(name, "running", reason, by)

    async def cancel_backfill(self, name: str, reason: str | None = None, *, by: str | None = None) -> bool:
        """End a backfill (`backfill/control`); what it has fired runs. False: that had been done before."""
        return await self._control(name, "cancelled", reason, by)

    async def _control(self, name: str, state: str, reason: str | None, by: str | None) -> bool:
        check_name("name", name)
        done = await self._store.call(
            "backfill/control",
            self.shard_of(name),
            job=name,
            what=state,
            by=who(by),
            why="" if reason is None else check_name("reason", reason, MOST_WORDS),
            call=self._store.new_call(),
        )
        if done == results.UNKNOWN:
            await self._standing(name)
            raise LockbeatError(f"job {name!r} has no backfill")
        if done == results.FINISHED:
            raise LockbeatError(f"the backfill of job {name!r} has ended")
        return bool(done == results.DONE)

    async def _total(self, known: Standing, start_ms: int, to_ms: int) -> int:
        total, at_ms = 0, start_ms
        while at_ms < to_ms:
            found, at_ms = count(known.job.trigger, at_ms, to_ms)
            total += found
            if total > MOST_SLOTS:
                raise InvalidArgument(
                    "start", f"more than {MOST_SLOTS} slots lie between {instant(start_ms)} and {instant(to_ms)}"
                )
            await asyncio.sleep(0)  # a million take a while
        return total

    async def _planned(
        self, known: Standing, shard: int, start_ms: int, to_ms: int, total: int, every_us: int, unknown: bool, why: str, by: str
    ) -> Backfill:
        """What a backfill would do, by what the ledger says now (`backfill/look`)."""
        job, at_ms = known.job, start_ms
        closed = (await read_view(self._store, shard, job.exclude, job.trigger.timezone)).closed if job.exclude else None
        fires = kept = left = excluded = 0
        while at_ms < to_ms:
            items, _, following_ms = stretch(job, at_ms, to_ms, LOOKED_AT, closed)
            at_ms = to_ms if following_ms < 0 else following_ms
            excluded += sum(int(item.split(" ")[2]) for item in items if " " in item)
            slots = "\n".join(item for item in items if " " not in item)
            found = await self._store.call("backfill/look", shard, job=job.name, slots=slots, unknown=int(unknown))
            fires, kept, left = fires + found.fires, kept + found.known, left + found.left
        return Backfill(
            job.name,
            "planned",
            instant(start_ms),
            instant(to_ms),
            instant(start_ms),
            total,
            fired=fires,
            done=0,
            failed=0,
            cancelled=0,
            missed=0,
            running=0,
            known=kept,
            excluded=excluded,
            unknown=left,
            rate=1e6 / every_us if every_us else None,
            by=by,
            reason=why or None,
            began_at=None,
            ended_at=None,
        )

    def _told(self, name: str, line: bytes) -> Backfill:
        try:
            return Backfill.of(name, line)
        except ValueError:
            raise Unreadable(self._store.keys.key(self.shard_of(name), "backfill"), name) from None


def _checked_rate(rate: Any) -> float:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise InvalidType("rate", f"must be slots a second, not {type(rate).__name__}")
    if not math.isfinite(rate) or not 0.0001 <= rate <= MOST_RATE:
        raise InvalidArgument("rate", f"must be 0.0001 to {MOST_RATE:g} slots a second, not {rate}")
    return float(rate)


def _instant(argument: str, when: Any) -> int:
    of_type(argument, when, datetime, "an aware datetime")
    if when.utcoffset() is None:
        raise InvalidArgument(argument, "must be aware: give it a tzinfo")
    return instant_ms(argument, when)


def _check_range(start_ms: int, to_ms: int, now_ms: int, start: datetime, end: datetime | None) -> None:
    if start_ms < 0:
        raise InvalidArgument("start", f"must not lie before 1970: {start}")
    if to_ms > now_ms:
        raise InvalidArgument("end", f"lies ahead, by the server's clock; a backfill is of slots that are past: {end}")
    if start_ms >= to_ms:
        said = "the server's clock" if end is None else str(end)
        raise InvalidArgument("start", f"must lie before the end: {start} is not before {said}")
