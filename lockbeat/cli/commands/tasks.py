"""Commands about tasks, and about claims."""

from __future__ import annotations

from typing import Annotated

import typer

from lockbeat.cli._store import Where
from lockbeat.cli.commands.shared import TASKS, AsJson, Attempts, Limit, Namespace, OnlyQueue, Queue, TaskId, Url, Utc, app


@app.command(rich_help_panel=TASKS)
def tasks(
    queue: OnlyQueue = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="waiting, running, done, dead or cancelled ones only.", show_default=False),
    ] = None,
    limit: Limit = 20,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """List tasks; first how many each queue holds.

    Running ones come first, then those that wait, in the order in which they will be begun, then those that have ended. With
    --queue or --state, only the tasks.
    """
    from lockbeat.cli._tasks import list_tasks

    list_tasks(Where(url, namespace), queue, state, limit, as_json)


@app.command(rich_help_panel=TASKS)
def task(task_id: TaskId, url: Url = None, namespace: Namespace = "lockbeat", utc: Utc = False, as_json: AsJson = False) -> None:
    """Show all that is known of one task."""
    from lockbeat.cli._tasks import show_task

    show_task(Where(url, namespace), task_id, as_json)


@app.command(rich_help_panel=TASKS)
def spawn(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the function that is to run.", show_default=False)],
    params: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PARAMS", help='JSON, quoted for the shell: \'{"to": "ann"}\'; -: from stdin.', show_default=False
        ),
    ] = None,
    queue: Queue = "default",
    delay: Annotated[float, typer.Option(metavar="S", help="Seconds before which nobody begins it.")] = 0,
    priority: Annotated[int, typer.Option(metavar="N", min=-49, max=49, help="The higher, the sooner.")] = 0,
    max_attempts: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Then it is dead.")] = 5,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Idempotency key: the same in a queue names the same task.", show_default=False),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Goes with it; may be repeated.", show_default=False)
    ] = None,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """Put a task into a queue."""
    from lockbeat.cli._tasks import spawn_task

    options = {"queue": queue, "delay": delay, "priority": priority, "max_attempts": max_attempts, "idempotency_key": key}
    spawn_task(Where(url, namespace), name, params or [], header or [], as_json, **options)


@app.command(rich_help_panel=TASKS)
def cancel(task_id: TaskId, url: Url = None, namespace: Namespace = "lockbeat") -> None:
    """End a task that waits or runs."""
    from lockbeat.cli._tasks import cancel_task

    cancel_task(Where(url, namespace), task_id)


@app.command(rich_help_panel=TASKS)
def dead(
    queue: OnlyQueue = None, limit: Limit = 100, url: Url = None, namespace: Namespace = "lockbeat", as_json: AsJson = False
) -> None:
    """List dead tasks, the oldest first, and why."""
    from lockbeat.cli._tasks import list_dead

    list_dead(Where(url, namespace), queue, limit, as_json)


@app.command(rich_help_panel=TASKS)
def retry(task_id: TaskId, attempts: Attempts = 1, url: Url = None, namespace: Namespace = "lockbeat") -> None:
    """Let one dead task be tried again."""
    from lockbeat.cli._tasks import retry_task

    retry_task(Where(url, namespace), task_id, attempts)


@app.command("redrive", rich_help_panel=TASKS)
def redrive_(
    queue: Queue = "default",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many; else all.", show_default=False)] = None,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """Let a queue's dead tasks be tried again.

    The oldest first, each with all its attempts anew.
    """
    from lockbeat.cli._tasks import redrive

    redrive(Where(url, namespace), queue, limit, as_json)


@app.command("purge", rich_help_panel=TASKS)
def purge_(
    queue: Queue = "default",
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only done, dead or cancelled ones.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """Forget a queue's tasks that have ended.

    Asks first, unless --yes.
    """
    from lockbeat.cli._tasks import purge

    purge(Where(url, namespace), queue, state, yes, as_json)


@app.command(rich_help_panel=TASKS)
def claims(
    queue: Queue = "default",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=9_999, help="How many at most.")] = 100,
    stats: Annotated[bool, typer.Option("--stats", help="Instead: how often what happened, in all queues.")] = False,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """List a queue's claims that have not ended."""
    from lockbeat.cli._claims import list_claims, show_stats

    if stats:
        show_stats(Where(url, namespace), as_json)
    else:
        list_claims(Where(url, namespace), queue, limit, as_json)
