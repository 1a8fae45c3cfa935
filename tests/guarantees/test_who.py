"""Who did something is a name that people can read, or the call is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbeat import Every, InvalidArgument, Lockbeat
from lockbeat.errors import InvalidType
from lockbeat.jobs import Job
from tests.conftest import Backend, only
from tests.tasks import dump

pytestmark = only("memory", "valkey")

THEN = datetime(2026, 1, 1, tzinfo=UTC)
VERBS: dict[str, Callable[[Lockbeat, Any], Awaitable[Any]]] = {
    "put": lambda lb, by: lb.jobs.put(Job.declare("other", Every(60)), by=by),
    "apply": lambda lb, by: lb.jobs.apply([Job.declare("other", Every(60))], origin="them", by=by),
    "delete": lambda lb, by: lb.jobs.delete("report", by=by),
    "pause": lambda lb, by: lb.jobs.pause("report", by=by),
    "resume": lambda lb, by: lb.jobs.resume("paused", by=by),
    "skip_next": lambda lb, by: lb.jobs.skip_next("report", by=by),
    "trigger": lambda lb, by: lb.jobs.trigger("report", by=by),
    "backfill": lambda lb, by: lb.jobs.backfill("report", THEN, THEN, by=by),
    "pause_backfill": lambda lb, by: lb.jobs.pause_backfill("report", by=by),
    "cancel_backfill": lambda lb, by: lb.jobs.cancel_backfill("report", by=by),
    "all.pause": lambda lb, by: lb.jobs.all(tag="all").pause(by=by),
    "all.delete": lambda lb, by: lb.jobs.all(tag="all").delete(by=by),
    "tasks.cancel": lambda lb, by: lb.tasks.cancel("waits", by=by),
    "tasks.retry": lambda lb, by: lb.tasks.retry("waits", by=by),
    "tasks.redrive": lambda lb, by: lb.tasks.redrive("default", by=by),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_blank_or_overlong_name_of_who_did_it_is_refused(lb: Lockbeat, backend: Backend, verb: str) -> None:
    """A blank one stood in the log of changes as if nobody had done it."""
    for name in ("report", "paused"):
        await lb.jobs.put(Job.declare(name, Every(3600), tags=["all"]))
    await lb.jobs.pause("paused", by="ann")
    await lb.tasks.spawn("work", idempotency_key="waits")
    before = dump(backend)
    for wrong in (" ", "\t\n", "\u3000", "", "x" * 1025, "é" * 513):
        with pytest.raises(InvalidArgument) as caught:
            await VERBS[verb](lb, wrong)
        assert caught.value.argument == "by"
    with pytest.raises(InvalidType, match=r"^by: "):
        await VERBS[verb](lb, 7)
    assert dump(backend) == before
