"""The commands and their options; what they do is in the other modules."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lockbeat.cli._errors import Problem, only_error
from lockbeat.cli._output import complain, is_terminal, show_utc
from lockbeat.cli._store import Where
from lockbeat.errors import InvalidArgument, LockbeatError
from lockbeat.values.visible import visible

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store; else $LOCKBEAT_URL (for passwords: `ps` shows options), else embedded://.",
        show_default=False,
    ),
]
Namespace = Annotated[str, typer.Option("--namespace", metavar="NAME", help="The part of the store to look at.")]
Utc = Annotated[bool, typer.Option("--utc", help="Times in UTC, instead of this machine's zone.", callback=show_utc)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.", show_default=False)]
Target = Annotated[
    str,
    typer.Argument(metavar="MODULE:BEAT", help="The Beat: app.jobs:beat, path/jobs.py:beat, app:make().", show_default=False),
]
BeatUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store, instead of the beat's own and $LOCKBEAT_URL. `ps` shows it: no passwords.",
        show_default=False,
    ),
]
BeatNamespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="Instead of the beat's own.", show_default=False)
]
Factory = Annotated[bool, typer.Option("--factory", help="BEAT is a function that makes it, as MODULE:FACTORY() says, too.")]
OnlyQueues = Annotated[
    list[str] | None,
    typer.Option("--queue", metavar="QUEUE", help="Run tasks of this queue only; may be repeated.", show_default=False),
]
Concurrency = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=10_000, help="How many tasks run at once; else the beat's own.", show_default=False),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more, on stderr.")]

OnlyQueue = Annotated[str | None, typer.Option("--queue", metavar="QUEUE", help="Only of this queue.", show_default=False)]
Queue = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="The queue.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Its id, as `tasks` shows it.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many at most.")]
Attempts = Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many more.")]

SERVE, LOOK, TASKS, STORE = "Serve", "Look and change", "Tasks and claims", "Store"

app = typer.Typer(
    help="Periodic jobs, fired once by however many instances.\n\n"
    "Exit code 2: wrong usage. 1: the store can't be reached, has no such thing, or it is in the wrong state.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"lockbeat {installed('lockbeat')}")
        except PackageNotFoundError:
            typer.echo("lockbeat (not installed)")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@app.command(rich_help_panel=SERVE)
def run(
    target: Target,
    factory: Factory = False,
    queue: OnlyQueues = None,
    concurrency: Concurrency = None,
    url: BeatUrl = None,
    namespace: BeatNamespace = None,
    verbose: Verbose = False,
) -> None:
    """Serve a beat until SIGTERM: fire slots and run tasks."""
    from lockbeat.cli._serve import serve

    serve(target, url, namespace, verbose, schedule=True, work=True, factory=factory, queues=queue, concurrency=concurrency)


@app.command(rich_help_panel=SERVE)
def beat(
    target: Target, factory: Factory = False, url: BeatUrl = None, namespace: BeatNamespace = None, verbose: Verbose = False
) -> None:
    """Serve a beat, schedules only: workers run its tasks."""
    from lockbeat.cli._serve import serve

    serve(target, url, namespace, verbose, schedule=True, work=False, factory=factory)


@app.command(rich_help_panel=SERVE)
def worker(
    target: Target,
    factory: Factory = False,
    queue: OnlyQueues = None,
    concurrency: Concurrency = None,
    url: BeatUrl = None,
    namespace: BeatNamespace = None,
    verbose: Verbose = False,
) -> None:
    """Serve a beat, runs only: others fire its slots."""
    from lockbeat.cli._serve import serve

    serve(
        target, url, namespace, verbose, schedule=False, work=True, factory=factory, queues=queue or (), concurrency=concurrency
    )


@app.command(rich_help_panel=SERVE)
def demo(
    seconds: Annotated[float, typer.Option(metavar="S", min=8, max=600, help="How long the instances run.")] = 20,
    instances: Annotated[int, typer.Option(metavar="N", min=2, max=9, help="How many there are.")] = 3,
) -> None:
    """Watch instances share jobs while one is killed, one frozen.

    Counts what the jobs did against what was due; exit code 1 if a slot was missed or fired twice.
    """
    from lockbeat.cli.demo import show_demo

    raise typer.Exit(show_demo(seconds, instances))


@app.command("ls", rich_help_panel=LOOK)
def ls(url: Url = None, namespace: Namespace = "lockbeat", utc: Utc = False, as_json: AsJson = False) -> None:
    """List jobs: trigger, next slot, last outcome."""
    from lockbeat.cli._jobs import list_jobs

    list_jobs(Where(url, namespace), as_json)


@app.command("next", rich_help_panel=LOOK)
def next_(
    job: JobName,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=10_000, help="How many.")] = 5,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show a job's next slots."""
    from lockbeat.cli._jobs import next_slots

    next_slots(Where(url, namespace), job, n, as_json)


@app.command(rich_help_panel=LOOK)
def ledger(
    job: JobName,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, max=100_000, help="How many, the latest first.")] = 20,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show what became of a job's slots."""
    from lockbeat.cli._jobs import show_ledger

    show_ledger(Where(url, namespace), job, n, as_json)


@app.command(rich_help_panel=LOOK)
def why(
    job: JobName,
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="2030-01-31T12:00:00, local or --utc; or ms.", show_default=False)],
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Say what became of one slot, and why."""
    from lockbeat.cli._jobs import why as tell

    tell(Where(url, namespace), job, slot, as_json)


@app.command(rich_help_panel=LOOK)
def delete(job: JobName, url: Url = None, namespace: Namespace = "lockbeat") -> None:
    """Forget a job and its ledger.

    An instance that declares it in code does so again when it starts.
    """
    from lockbeat.cli._jobs import delete_job

    delete_job(Where(url, namespace), job)


@app.command(rich_help_panel=LOOK)
def locks(
    owner: Annotated[str | None, typer.Option(metavar="OWNER", help="Only of this owner.", show_default=False)] = None,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """List the locks that are held: owner, fence, expiry."""
    from lockbeat.cli._leases import list_locks

    list_locks(Where(url, namespace), owner, as_json)


@app.command(rich_help_panel=LOOK)
def unlock(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the lock, as `locks` shows it.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """Give back one lock, whoever holds it.

    Says who does and asks first, unless --yes. For one that is gone; a holder that lives learns of it when it next renews.
    """
    from lockbeat.cli._leases import unlock as give_back

    give_back(Where(url, namespace), name, yes, as_json)


@app.command("release-all", rich_help_panel=LOOK)
def release_all(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="As `locks` or `instances` shows it.", show_default=False)],
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """Take back all locks, tasks and claims of an owner.

    For one that is gone; what an instance that lives is running is cut short.
    """
    from lockbeat.cli._leases import release_all as release

    release(Where(url, namespace), owner, as_json)


@app.command(rich_help_panel=LOOK)
def instances(url: Url = None, namespace: Namespace = "lockbeat", as_json: AsJson = False) -> None:
    """List the instances that live."""
    from lockbeat.cli._leases import list_instances

    list_instances(Where(url, namespace), as_json)


@app.command(rich_help_panel=LOOK)
def top(
    refresh: Annotated[float, typer.Option(metavar="S", min=0.1, max=3600, help="Seconds between two looks.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Look once, as where there is no terminal.")] = False,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Watch queues, instances, leases and rates; Ctrl-C ends it."""
    from lockbeat.cli._top import watch

    watch(Where(url, namespace), refresh, once, as_json)


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
    """List a queue's claims: state, owner, fence, expiry."""
    from lockbeat.cli._claims import list_claims, show_stats

    if stats:
        show_stats(Where(url, namespace), as_json)
    else:
        list_claims(Where(url, namespace), queue, limit, as_json)


@app.command(rich_help_panel=STORE)
def server(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="Its directory; else one a user.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Also listen on 127.0.0.1.", show_default=False)
    ] = None,
) -> None:
    """Keep the embedded store up until SIGTERM."""
    from lockbeat.cli._serve import serve_store

    serve_store(None if path is None else str(path), port)


@app.command(rich_help_panel=STORE)
def doctor(url: Url = None, namespace: Namespace = "lockbeat", as_json: AsJson = False) -> None:
    """Check whether the store is fit; exit code 1 if not.

    That is, if a check fails: with warnings it is fit, and the exit code 0.
    """
    from lockbeat.cli._doctor import check_up

    raise typer.Exit(check_up(Where(url, namespace), as_json))


# typer carries its own click from 0.2x on: find the class by what both share.
_CLICK_USAGE: type[Exception] = typer.BadParameter.__mro__[1]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    app.rich_markup_mode = "rich" if is_terminal() else None
    show_utc(False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal's encoding lacks
    command = typer.main.get_command(app)
    try:
        code = command.main(None if args is None else list(args), prog_name="lockbeat", standalone_mode=False)
        sys.stdout.flush()
    except _CLICK_USAGE as problem:
        context = getattr(problem, "ctx", None)
        path = context.command_path if context is not None else "lockbeat"
        message = problem.format_message()  # type: ignore[attr-defined]
        complain(f"{message.rstrip('.')} (see {path} --help)")
        return 2
    except BrokenPipeError:
        # The reader has had enough (`| head`); what is left in the buffer must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:  # noqa: BLE001 - what is not ours is shown whole, as Python would, but safely
        found = only_error(error)
        if isinstance(found, Problem):
            sys.stderr.write(visible(found.details, keep="\n\t"))
            complain(str(found))
            return found.code
        if isinstance(found, LockbeatError):
            complain(str(found))
            return 2 if isinstance(found, InvalidArgument) else 1
        sys.stderr.write(visible(traceback.format_exc(), keep="\n\t"))
        return 1
    return code if isinstance(code, int) else 0
