"""tasks, task, spawn, dead, redrive, cancel, retry, purge: what is in the queues, and what to do about it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from lockbeat.cli._command import TASKS, By, DryRun, Limit, OnlyQueue, Queue, TaskId, Yes, command, make_sure
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._input import text_of
from lockbeat.cli._output import Answer, Cell, Table, ago, clock, fields, more_than, several, styled
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.errors import TaskError
from lockbeat.jobs.control import who
from lockbeat.monitor import MOST_FUNCTIONS, QueueLoad, instances, overview, purgeable, redrivable
from lockbeat.store import reasons
from lockbeat.store.records import Attempt
from lockbeat.tasks import NewTask, TaskInfo
from lockbeat.tasks.look import none_again
from lockbeat.tasks.values import EndState, State
from lockbeat.values.durations import brief, instant, span
from lockbeat.values.visible import first_line, visible, visible_json

TASK = (
    "task_id name queue state priority attempts max_attempts attempts_made spawned_at due_at started_at ended_at "
    "owner fence expires_at params headers result failure cancelled_by retried"
)
LONG = 100
"""Characters of JSON that are shown in one line."""


def queue_rows(queues: Sequence[QueueLoad]) -> list[dict[str, Cell]]:
    return [
        {
            "QUEUE": (load.queue, "bold"),
            # Nobody will begin them; unless a program of its own claims them, which says nothing of itself.
            "READY": (str(load.ready), "yellow" if load.ready and not load.workers else ""),
            "DELAYED": str(load.delayed),
            "RUNNING": "?" if load.running is None else str(load.running),
            "DEAD": (str(load.dead), "red bold" if load.dead else ""),
            "WORKERS": str(load.workers),
        }
        for load in queues
    ]


@command(TASKS)
async def tasks(
    lb: Lockbeat,
    queue: OnlyQueue = None,
    state: Annotated[
        State | None, typer.Option(metavar="STATE", help="waiting, running, done, dead or cancelled ones only.")
    ] = None,
    limit: Limit = 20,
) -> Answer:
    """List tasks; first how many each queue holds.

    Running ones come first, then those that wait, in the order in which they will be begun, then those that have ended. With
    --queue or --state, only the tasks.
    """
    infos, seen = await lb.tasks.list(queue, state=state, limit=limit + 1), await overview(lb.store)
    queues = [load for load in seen.queues if queue in (None, load.queue)]
    none = " ".join(filter(None, ("no", state, "tasks", queue and f"in queue {queue}")))
    told: list[str | Table] = [_table(infos[:limit], seen.at, none)]
    if queues and queue is None and state is None:
        told = [Table(queue_rows(queues)), "", *told]
    return Answer(
        {"queues": [fields(load) for load in queues], "tasks": _json(infos[:limit])},
        told,
        more_than(limit, infos),
    )


@command(TASKS)
async def dead(lb: Lockbeat, queue: OnlyQueue = None, limit: Limit = 100) -> Answer:
    """List dead tasks, the oldest first, and why."""
    if queue is not None:
        infos = await lb.tasks.dead(queue, limit + 1)
    else:
        infos = await lb.tasks.list(state="dead", limit=limit + 1)
    shown = sorted(infos, key=lambda info: (info.queue, info.ended_at or 0))[:limit]
    none = "no dead tasks" if queue is None else f"no dead tasks in queue {queue}"
    return Answer(_json(shown), _table(shown, await lb.store.server_time(), none), more_than(limit, infos))


def _json(infos: Sequence[TaskInfo]) -> list[dict[str, Any]]:
    return [fields(info, TASK) | {"queue": info.queue or None} for info in infos]


def _table(infos: Sequence[TaskInfo], now: float, none: str) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "TASK": (info.id, "bold"),
            "NAME": info.name,
            "QUEUE": info.queue or "-",
            "STATE": styled(info.state),
            "ATTEMPTS": f"{info.attempts}/{info.max_attempts}",
            "WHEN": _when(info, now),
            "OWNER": info.owner or "-",
            "NOTE": _note(info, now),
        }
        for info in infos
    ]
    return Table(rows, none, spare=("OWNER", "ATTEMPTS", "QUEUE"), wraps=("NAME", "NOTE"))


def _when(info: TaskInfo, now: float) -> str:
    """The one time that matters in its state."""
    if info.state == "waiting" and info.due_at is not None:
        return f"due in {span(info.due_at - now)}" if info.due_at > now else f"due {ago(info.due_at, now)}"
    if info.state == "running" and info.started_at is not None:
        return f"begun {ago(info.started_at, now)}"
    return f"ended {ago(info.ended_at, now)}" if info.ended_at is not None else "-"


def _note(info: TaskInfo, now: float) -> str:
    """What the other columns do not say."""
    notes = []
    if info.state == "running" and info.expires_at is not None and info.expires_at <= now:
        notes.append(f"its lease expired {ago(info.expires_at, now)}")
    if info.failure is not None and info.state != "done":
        cancelled = info.state == "cancelled" and info.failure.type == "Cancelled"
        notes.append(info.failure.message if cancelled else info.failure.summary)
    return "; ".join(notes) or "-"


@command(TASKS)
async def task(lb: Lockbeat, task_id: TaskId) -> Answer:
    """Show all that is known of one task."""
    info, now = await lb.tasks.get(task_id), await lb.store.server_time()
    _, at, slot = info.id.rpartition("@")
    facts: dict[str, str | None] = {
        "task": info.id,
        "name": info.name,
        "slot": _instant(int(slot) / 1000, now) if at else None,
        "queue": info.queue,
        "state": f"{info.state}; begun {info.attempts} of {several(info.max_attempts, 'time')}",
        "priority": str(info.priority),
        "spawned": _instant(info.spawned_at, now),
        "due": _instant(info.due_at, now),
        "begun": _instant(info.started_at, now),
        "ended": _instant(info.ended_at, now),
        "owner": info.owner,
        "fence": str(info.fence) if info.fence else None,
        "lease": _instant(info.expires_at, now, "expires ", "expired "),
        "params": _payload(info.params) if info.params is not None else None,
        "headers": _payload(info.headers) if info.headers else None,
        "attempts": "\n".join(attempt_lines(info.attempts_made)),
        "result": _payload(info.result) if info.result is not None else None,
        "retried": _retried(info, now),
        "failure": f"{info.failure.type}: {info.failure.message}" if info.failure else None,
        "traceback": info.failure.traceback if info.failure else None,
    }
    lines = []
    for label, text in facts.items():
        for at_line, line in enumerate(text.strip().expandtabs(4).split("\n") if text else ()):
            lines.append(f"{'' if at_line else label:<10}{line}".rstrip())
    return Answer(_json([info])[0], lines)


def _retried(info: TaskInfo, now: float) -> str | None:
    """Who had it tried again."""
    if info.retried is None:
        return None
    before = reasons.sentence(info.retried.code, info.retried.detail)
    when = f"{clock(info.retried.at)}, {ago(info.retried.at, now)}"
    return f"by {info.retried.by or 'somebody'} at {when}{f'; before, {before}' if before else ''}"


def _instant(when: float | None, now: float, coming: str = "", gone: str = "") -> str | None:
    if when is None:
        return None
    near = f"in {span(when - now)}" if when > now else ago(when, now)
    return f"{coming if when > now else gone}{clock(when)}, {near}"


def _payload(value: Any) -> str:
    text = visible_json(value)
    return text if len(text) <= LONG else visible_json(value, indent=2)


def attempt_lines(attempts: Sequence[Attempt]) -> list[str]:
    """When each began, how long it took, who made it, and how it ended; of a single one all that is said already."""
    lines = []
    for one in attempts if len(attempts) > 1 else ():
        # When a lost one ended, nobody saw.
        took = f" after {brief(round((one.ended_at - one.started_at) * 1000))}" if one.ended_at and one.how != "lost" else ""
        head = f"attempt {one.number} at {clock(one.started_at)} by {one.owner}, fence {one.fence}: {one.how}{took}"
        lines.append(": ".join(filter(None, (head, first_line(one.error)))))
    return lines


@command(TASKS)
def spawn(
    where: Where,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the function that is to run.")],
    params: Annotated[
        list[str] | None, typer.Argument(metavar="PARAMS", help='JSON, quoted for the shell: \'{"to": "ann"}\'; -: from stdin.')
    ] = None,
    queue: Queue = "default",
    delay: Annotated[float, typer.Option(metavar="S", help="Seconds before which nobody begins it.")] = 0,
    priority: Annotated[int, typer.Option(metavar="N", min=-49, max=49, help="The higher, the sooner.")] = 0,
    max_attempts: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Then it is dead.")] = 5,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Idempotency key: the same in a queue names the same task.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Goes with it; may be repeated.")] = None,
) -> Answer:
    """Put a task into a queue."""
    new = NewTask(
        name,
        params_of("spawn", name, params or []),
        queue=queue,
        delay=delay,
        priority=priority,
        max_attempts=max_attempts,
        idempotency_key=key,
        headers=dict(map(_header, header or ())),
    )

    async def question(lb: Lockbeat) -> Answer:
        [spawned], living = await lb.tasks.spawn_many([new]), await instances(lb.store)
        serving = [instance for instance in living if queue in instance.queues]
        remark, told = "", f"spawned {spawned.task_id}"
        if not spawned.created:  # it may have ended long ago
            told = f"{spawned.task_id} was there already, by the same key; it is at attempt {spawned.attempt}"
        elif not serving:
            remark = f"no instance serves queue {queue!r}"
        elif not any(name in instance.tasks or len(instance.tasks) >= MOST_FUNCTIONS for instance in serving):
            remark = f"no instance that serves queue {queue!r} has a task {name!r}"
        return Answer(fields(spawned), told, remark)

    return where.ask(question)


def params_of(command: str, name: str, words: Sequence[str]) -> Any:
    """The params as JSON. The shell takes text apart that is not quoted: several words are that mistake."""
    if not words:
        return None
    text = text_of("-") if list(words) == ["-"] else " ".join(words)
    try:
        if len(words) > 1:
            raise ValueError("several arguments")
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        said = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        shown = visible(text if len(text) <= LONG else f"{text[:LONG]}...")
        example = f'lockbeat {command} {shlex.quote(visible(name))} \'{{"to": "ann"}}\''
        raise Usage(f"PARAMS: {shown} is not JSON ({said}); quote it for the shell: {example}") from None


def _header(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Usage(f"--header: {visible(text)!r} must be KEY=VALUE")
    return key, value


@command(TASKS)
async def cancel(lb: Lockbeat, task_id: TaskId, by: By = None) -> Answer:
    """End a task that waits or runs.

    It runs no more, unless somebody retries it.
    """
    by = who(by)
    if not await lb.tasks.cancel(task_id, by=by):
        raise Problem(f"{task_id} had ended: {(await lb.tasks.get(task_id)).state}")
    return Answer({"task_id": task_id, "by": by}, f"cancelled {task_id}")


@command(TASKS)
async def retry(
    lb: Lockbeat,
    task_id: TaskId,
    attempts: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many more.")] = 1,
    by: By = None,
) -> Answer:
    """Let one task be tried again that is dead or was cancelled.

    That of a slot runs under its own slot.
    """
    by = who(by)
    if not await lb.tasks.retry(task_id, attempts=attempts, cancelled=True, by=by):
        info = await lb.tasks.get(task_id)
        if info.state in ("dead", "cancelled"):
            raise Problem(f"{task_id} can't be tried again: {await _why_not(lb, info)}")
        raise Problem(f"{task_id} is neither dead nor cancelled but {info.state}")
    told = f"{task_id} waits again, for up to {several(attempts, 'attempt')}"
    return Answer({"task_id": task_id, "attempts": attempts, "by": by}, told)


async def _why_not(lb: Lockbeat, info: TaskInfo) -> str:
    """Why a task that has ended can't be tried again."""
    job, at, slot = info.id.rpartition("@")
    entry = (await lb.jobs.why(job, instant(int(slot)))).entry if at else None
    if entry is not None and entry.state in ("skipped", "missed"):
        return f"that slot was {entry.state}, and lockbeat backfill runs it"
    if info.failure is not None and info.failure.message == reasons.SENTENCES[reasons.JOB_DELETED]:
        return info.failure.message
    return "only the ledger still knows of it"  # it was purged, or is of longer ago than a week


@command(TASKS)
async def redrive(
    lb: Lockbeat,
    queue: Queue = "default",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many; else all.")] = None,
    by: By = None,
    dry_run: DryRun = False,
) -> Answer:
    """Let a queue's dead tasks be tried again.

    The oldest first, each with all its attempts anew.
    """
    if dry_run:
        there, called = await redrivable(lb.store, lb.jobs, queue)
        if called and not there:
            raise TaskError(none_again(queue, called))
        count = there if limit is None else min(there, limit)
        told = f"{several(count, 'dead task')} of queue {queue} would wait again, with all attempts"
        if called:
            told += f"; {several(called, 'dead task')} that lockbeat exec ran would stay so"
    else:
        count = await lb.tasks.redrive(queue, limit, by=who(by))
        told = f"{several(count, 'dead task')} of queue {queue} wait{'s' * (count == 1)} again, with all attempts"
    if not count:
        others = [f"{load.queue} has {load.dead}" for load in (await overview(lb.store)).queues if load.dead]
        told = f"no dead tasks in queue {queue}{'; ' * bool(others)}{', '.join(others)}"
    return Answer({"queue": queue, "redriven": count, **({"dry_run": True} if dry_run else {})}, told)


@command(TASKS)
def purge(
    where: Where,
    queue: Queue = "default",
    state: Annotated[EndState | None, typer.Option(metavar="STATE", help="Only done, dead or cancelled ones.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> Answer:
    """Forget a queue's tasks that have ended.

    Asks first, unless --yes.
    """
    if dry_run:
        count = where.ask(lambda lb: purgeable(lb.store, queue, state))
        told = f"would forget {several(count, (state or 'ended') + ' task')} of queue {queue}"
        return Answer({"queue": queue, "state": state, "purged": count, "dry_run": True}, told)
    question = f"Forget the tasks of queue {queue} that are {state or 'done, dead or cancelled'}?"
    if not yes and state in (None, "dead") and (gone := where.ask(lambda lb: lb.tasks.counts(queue)).dead):
        question += (
            f" {gone} of them {'is' if gone == 1 else 'are'} dead."
            if state is None
            else f" There {'is' if gone == 1 else 'are'} {gone}."
        )
    make_sure(yes, question, "nothing was forgotten", without_terminal="purge forgets tasks for good")
    count = where.ask(lambda lb: lb.tasks.purge(queue, state=state))
    told = f"forgot {several(count, (state or 'ended') + ' task')} of queue {queue}"
    return Answer({"queue": queue, "state": state, "purged": count}, told)
