"""A page costs the store a bounded number of commands, however much there is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from lockbeat import Every, Lockbeat
from lockbeat.jobs import Job
from lockbeat.store import Store
from lockbeat.web.pages import PAGES
from tests.conftest import Backend, only
from tests.web.asking import Ask

MANY = 2_500
"""Jobs, tasks: some times more than a page and a run of a script look at."""
MOST = 50
AT_MOST = {"/store": 250}
"""Store examines the server; it does so once a minute."""
MOST_COMMANDS = 80
"""Those inside of scripts, too."""
QUERIES = {"/job": "?name=job-00100", "/backfill": "?name=job-00100", "/task": "?id=job-00100@1"}


@pytest.fixture
async def many(lb: Lockbeat) -> Lockbeat:
    """Many jobs, tasks, locks and claims."""
    jobs = (Job.declare(f"job-{n:05}", Every(3600 + n), tags=["odd"] if n % 2 else []) for n in range(MANY))
    await lb.jobs.put(*jobs)
    await lb.tasks.spawn_many([_task(n) for n in range(MANY)])
    for n in range(50):
        await lb.locks.try_acquire(f"lock-{n}", f"owner-{n}", 600)
    return lb


def _task(n: int) -> Any:
    from lockbeat.tasks import NewTask

    return NewTask(f"function-{n % 7}", queue=f"queue-{n % 5}")


FILTERED = (
    *("/jobs?sort=next", "/jobs?tag=odd", "/jobs?state=failing", "/jobs?state=paused", "/jobs?q=job-02", "/jobs?tag=none"),
    *("/tasks?state=waiting&queue=queue-3", "/tasks?function=function-2", "/tasks?function=none", "/tasks?state=cancelled"),
)


@only("valkey")
@pytest.mark.parametrize("path", [*PAGES, *FILTERED])
async def test_a_page_of_many_costs_few_commands(
    many: Lockbeat, backend: Backend, ask: Callable[..., Ask], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["lockbeat.web.pages.store"], "KEPT", 0.0)
    page = ask()
    path += QUERIES.get(path, "")
    await page.get(path)  # scripts are loaded
    before = backend.calls()
    found = await page.get(path)
    after = backend.calls()
    assert found.status_code in (200, 404), found.text
    runs = after.get("evalsha", 0) - before.get("evalsha", 0)
    assert 0 < runs <= AT_MOST.get(path.partition("?")[0], MOST), runs
    if not path.startswith("/store"):
        done = Counter(after) - Counter(before)
        assert sum(many for name, many in done.items() if not name.startswith(("client", "info"))) <= MOST_COMMANDS, done
    if path == "/jobs?state=paused":  # nobody is like that: it is looked for in large pieces
        assert after["zrangebylex"] - before.get("zrangebylex", 0) <= 4
    assert after.get("scan", 0) + after.get("keys", 0) == before.get("scan", 0) + before.get("keys", 0)


@only("valkey")
async def test_a_page_of_jobs_costs_under_fifty_commands_and_those_inside_of_scripts(
    many: Lockbeat, backend: Backend, ask: Callable[..., Ask]
) -> None:
    page = ask()
    await page.get("/jobs")
    before = sum(backend.calls().values())
    await page.page("/jobs")
    assert sum(backend.calls().values()) - before - 1 < 50  # less our own INFO


async def test_pages_do_not_read_more_when_there_is_more(
    lb: Lockbeat, ask: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of calls is the same for 30 jobs and for 300."""
    calls: list[str] = []
    submit, submit_many = Store.submit, Store.submit_many

    def one(self: Store, row: Any, *args: Any, **options: Any) -> Any:
        calls.append(row.script)
        return submit(self, row, *args, **options)

    def several(self: Store, rows: Any, *args: Any) -> Any:
        calls.append(rows[0].script)
        return submit_many(self, rows, *args)

    monkeypatch.setattr(Store, "submit", one)
    monkeypatch.setattr(Store, "submit_many", several)
    counted = []
    for size in (30, 300):
        await lb.jobs.put(*(Job.declare(f"job-{n:05}", Every(3600 + n)) for n in range(size)))
        calls.clear()
        await ask().page("/jobs")
        counted.append(len(calls))
    assert counted[0] == counted[1]
