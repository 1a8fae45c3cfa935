"""Many jobs at a time: those of a tag, of a queue, or all. Each verb asks job by job, as it would for that name alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lockbeat.errors import UnknownJob
from lockbeat.jobs.control import PAUSE, Resume, Resumed
from lockbeat.tasks import Spawned

if TYPE_CHECKING:
    from lockbeat.jobs.registry import Jobs
    from lockbeat.jobs.state import JobState

T = TypeVar("T")
ABREAST = 200
"""Of many calls, how many are on their way at a time."""


class SeveralJobs:
    """The jobs that `lb.jobs.all` names, as they are when a verb is called. Each verb answers by name what it does for one job.

    A job for which a verb has no meaning, such as `resume` for one that is not paused, is left out; and so is one that is gone.
    """

    def __init__(self, jobs: Jobs, tag: str | None, queue: str | None) -> None:
        self._jobs, self._tag, self._queue = jobs, tag, queue

    async def pause(self, reason: str | None = None, until: datetime | None = None, *, by: str | None = None) -> dict[str, bool]:
        """See `lb.jobs.pause`. Of those that have slots."""
        return await self._each(
            lambda state: state.retired_at is None and (state.next is not None or state.paused is not None),
            lambda name: self._jobs.pause(name, reason, until, by=by),
        )

    async def resume(
        self, catchup: Resume | None = None, *, reason: str | None = None, by: str | None = None, dry_run: bool = False
    ) -> dict[str, Resumed | None]:
        """See `lb.jobs.resume`. Of those that are paused."""
        return await self._each(
            lambda state: state.retired_at is None and state.paused is not None,
            lambda name: self._jobs.resume(name, catchup, reason=reason, by=by, dry_run=dry_run),
        )

    async def skip_next(self, n: int = 1, reason: str | None = None, *, by: str | None = None) -> dict[str, datetime]:
        """See `lb.jobs.skip_next`. Of those that have slots and are not paused."""
        return await self._each(
            lambda state: state.next is not None and (state.paused is None or state.paused.what != PAUSE),
            lambda name: self._jobs.skip_next(name, n, reason, by=by),
        )

    async def trigger(
        self, params: Any = None, *, overlap: Literal["allow"] | None = None, reason: str | None = None, by: str | None = None
    ) -> dict[str, Spawned]:
        """See `lb.jobs.trigger`."""
        return await self._each(
            lambda state: state.retired_at is None,
            lambda name: self._jobs.trigger(name, params, overlap=overlap, reason=reason, by=by),
        )

    async def delete(self, *, by: str | None = None) -> dict[str, bool]:
        """See `lb.jobs.delete`."""
        return await self._each(lambda _: True, lambda name: self._jobs.delete(name, by=by))

    async def _each(self, wanted: Callable[[JobState], bool], do: Callable[[str], Awaitable[T]]) -> dict[str, T]:
        """What is done to each of these. If it can't be done to some, the others are done, and then the first error is raised."""
        names = [
            state.job.name
            for state in await self._jobs.list(self._tag)
            if self._queue in (None, state.job.queue) and wanted(state)
        ]
        found, problems = dict[str, T](), list[BaseException]()
        for start in range(0, len(names), ABREAST):
            some = names[start : start + ABREAST]
            for name, told in zip(some, await asyncio.gather(*map(do, some), return_exceptions=True), strict=True):
                if not isinstance(told, BaseException):
                    found[name] = told
                elif not isinstance(told, UnknownJob):
                    problems.append(told)
        if problems:
            raise problems[0]
        return found
