"""Jobs that fail too often are paused, until somebody has seen to them (`pause_after`)."""

from __future__ import annotations

import logging

from lockbeat.jobs.control import PAUSE
from lockbeat.jobs.definition import Job
from lockbeat.jobs.past import Past
from lockbeat.jobs.standing import Standing, standings
from lockbeat.store import results

log = logging.getLogger("lockbeat")

PAGES_OF_FAILURES = 10


class Failing(Past):
    """What instances do about jobs that fail; it is `lb.jobs`' own."""

    async def pause_failing(self, job: Job, place: str) -> bool:
        """Pause a job whose last `pause_after` tasks failed, or were lost, since it was last resumed; whether they did.

        place: where it stands, as `job:slot` has it. If it has moved on meanwhile, it is not paused.
        """
        if job.pause_after is None or not await self._has_failed(job.name, job.pause_after):
            return False
        why = f"{job.pause_after} failures in a row" if job.pause_after > 1 else "a failure"
        done = await self._pause(job.name, PAUSE, 0, why, "pause_after", Standing(job, job.rev, place, ""))
        if done == results.DONE:
            log.error("job %r is paused: %s; when they are seen to: lockbeat resume %s", job.name, why, job.name)
        return True

    async def see_failure(self, name: str) -> None:
        """A slot of a job has failed for good: pause the job, if it is to be. A loss that nobody sees is found when the next slot
        comes due (`pause_failing`)."""
        known = (await standings(self._store, self.shard_of(name), [name])).get(name)
        if isinstance(known, Standing) and known.place[:1].isdigit():
            await self.pause_failing(known.job, known.place)

    async def _has_failed(self, name: str, times: int) -> bool:
        """Whether the latest tasks of a job failed, so often. What was skipped or cancelled, or has not ended, is passed over."""
        resumed_at = next((change.at or 0 for change in await self.changes(name) if change.what == "resume"), 0)
        before_ms = 0
        for _ in range(PAGES_OF_FAILURES):
            page = await self.ledger(name, times + 20, before_ms)
            for entry in page:
                failed = entry.state in ("failed", "lost")
                if entry.state == "done" or (failed and (entry.ended_at or 0) <= resumed_at):
                    return False
                times -= failed
                if times == 0:
                    return True
            if not page:
                break
            before_ms = page[-1].slot_ms
        return False
