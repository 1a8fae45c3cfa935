"""tasks, task, spawn, dead, redrive, cancel, retry, purge: what is in the queues, and what to do about it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

import typer

from lockbeat.cli._attempts import attempt_lines, attempts_json
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import Cell, clock, complain, iso, say, say_json, several, show
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.monitor import MOST_FUNCTIONS, Instance, Overview, QueueLoad, instances, overview
from lockbeat.tasks import NewTask, Spawned, TaskInfo
from lockbeat.tasks.values import EndState, State
from lockbeat.values.durations import span
from lockbeat.values.visible import visible, visible_json

STYLES = {"waiting": "yellow", "running": "cyan", "done": "green", "dead": "red bold", "cancelled": "dim"}
LONG = 100
"""Characters of JSON that are shown in one line."""
QUEUE_COLUMNS = ("QUEUE", "READY", "DELAYED", "RUNNING", "DEAD", "WORKERS")


def queue_rows(queues: Sequence[QueueLoad]) -> list[list[Cell]]:
    """A row of QUEUE_COLUMNS for each queue."""
    return [
        [
            (load.queue, "bold"),
            # Nobody will begin them; unless a program of its own claims them, which says nothing of itself.
            (str(load.ready), "yellow") if load.ready and not load.workers else str(load.ready),
            str(load.delayed),
            "?" if load.running is None else str(load.running),
            (str(load.dead), "red bold") if load.dead else "0",
            str(load.workers),
        ]
        for load in queues
    ]


def queue_json(load: QueueLoad) -> dict[str, Any]:
    return {
        "queue": load.queue,
        "ready": load.ready,
        "delayed": load.delayed,
        "running": load.running,
        "dead": load.dead,
        "workers": load.workers,
    }


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _task_json(info: TaskInfo) -> dict[str, Any]:
    failure = info.failure
    return {
        "task_id": info.task_id,
        "name": info.name,
        "queue": info.queue or None,
        "state": info.state,
        "priority": info.priority,
        "attempts": info.attempts,
        "max_attempts": info.max_attempts,
        "attempts_made": attempts_json(info.attempts_made),
        "spawned_at": iso(_ms(info.spawned_at)),
        "due_at": iso(_ms(info.due_at)),
        "started_at": iso(_ms(info.started_at)),
        "ended_at": iso(_ms(info.ended_at)),
        "owner": info.owner,
        "fence": info.fence,
        "expires_at": iso(_ms(info.expires_at)),
        "params": info.params,
        "headers": info.headers,
        "result": info.result,
        "failure": failure and asdict(failure),
    }


def _when(info: TaskInfo, now: float) -> str:
    """The one time that matters in its state."""
    if info.state == "waiting" and info.due_at is not None:
        return f"due in {span(info.due_at - now)}" if info.due_at > now else f"due {_ago(info.due_at, now)}"
    if info.state == "running" and info.started_at is not None:
        return f"begun {_ago(info.started_at, now)}"
    return f"ended {_ago(info.ended_at, now)}" if info.ended_at is not None else "-"


def _ago(when: float, now: float) -> str:
    return f"{span(max(now - when, 0))} ago"


def _note(info: TaskInfo, now: float) -> str:
    """What the other columns do not say."""
    notes = []
    if info.state == "running" and info.expires_at is not None and info.expires_at <= now:
        notes.append(f"its lease expired {_ago(info.expires_at, now)}")
    if info.failure is not None and info.state != "done":
        cancelled = info.state == "cancelled" and info.failure.type == "Cancelled"
        notes.append(info.failure.message if cancelled else info.failure.summary)
    return "; ".join(notes) or "-"


def _show_tasks(infos: Sequence[TaskInfo], now: float) -> None:
    rows: list[list[Cell]] = [
        [
            (info.id, "bold"),
            info.name,
            info.queue or "-",
            (info.state, STYLES[info.state]),
            f"{info.attempts}/{info.max_attempts}",
            _when(info, now),
            info.owner or "-",
            _note(info, now),
        ]
        for info in infos
    ]
    columns = ("TASK", "NAME", "QUEUE", "STATE", "ATTEMPTS", "WHEN", "OWNER", "NOTE")
    show(columns, rows, spare=("OWNER", "ATTEMPTS", "QUEUE"), wraps=("NAME", "NOTE"))


def _say_there_are_more(infos: Sequence[TaskInfo], limit: int) -> None:
    if len(infos) > limit:
        sys.stdout.flush()
        complain(f"there are more than {limit}; --limit N shows up to N")


def _check_state(state: str | None, among: Sequence[str] = get_args(State)) -> Any:
    """One of the states, or None. Raises Usage."""
    if state is None or state in among:
        return state
    raise Usage(f"--state: {visible(state)!r} is none of {', '.join(among)}")


def list_tasks(where: Where, queue: str | None, state_name: str | None, limit: int, as_json: bool) -> None:
    """How many tasks each queue holds, unless asked for some of them; and the tasks."""
    state: State | None = _check_state(state_name)

    async def question(lb: Lockbeat) -> tuple[list[TaskInfo], Overview]:
        return await lb.tasks.list(queue, state=state, limit=limit + 1), await overview(lb.store)

    infos, seen = where.ask(question)
    queues = [load for load in seen.queues if queue in (None, load.queue)]
    if as_json:
        say_json({"queues": [queue_json(load) for load in queues], "tasks": [_task_json(info) for info in infos[:limit]]})
        return
    if queues and queue is None and state is None:
        show(QUEUE_COLUMNS, queue_rows(queues))
        say()
    if not infos:
        say(" ".join(["no", *filter(None, [state]), "tasks", *([f"in queue {visible(queue)}"] if queue is not None else [])]))
        return
    _show_tasks(infos[:limit], seen.at)
    _say_there_are_more(infos, limit)


def list_dead(where: Where, queue: str | None, limit: int, as_json: bool) -> None:
    """The dead tasks, by queue, the oldest first."""

    async def question(lb: Lockbeat) -> tuple[list[TaskInfo], float]:
        if queue is not None:
            infos = await lb.tasks.dead(queue, limit + 1)
        else:
            infos = await lb.tasks.list(state="dead", limit=limit + 1)
        return sorted(infos, key=lambda info: (info.queue, info.ended_at or 0)), await lb.store.server_time()

    infos, now = where.ask(question)
    if as_json:
        say_json([_task_json(info) for info in infos[:limit]])
    elif not infos:
        say("no dead tasks" if queue is None else f"no dead tasks in queue {visible(queue)}")
    else:
        _show_tasks(infos[:limit], now)
        _say_there_are_more(infos, limit)


def show_task(where: Where, task_id: str, as_json: bool) -> None:
    """All that is known of a task."""

    async def question(lb: Lockbeat) -> tuple[TaskInfo, float]:
        return await lb.tasks.get(task_id), await lb.store.server_time()

    info, now = where.ask(question)
    if as_json:
        say_json(_task_json(info))
        return
    _, at, slot = info.id.rpartition("@")
    state = f"{info.state}; begun {info.attempts} of {several(info.max_attempts, 'time')}"
    facts: list[tuple[str, str | None]] = [
        ("task", info.id),
        ("name", info.name),
        ("slot", _instant(int(slot) / 1000, now) if at else None),
        ("queue", info.queue or None),
        ("state", state),
        ("priority", str(info.priority)),
        *((label, _instant(when, now)) for label, when in _times(info)),
        ("owner", info.owner),
        ("fence", str(info.fence) if info.fence else None),
        ("lease", _instant(info.expires_at, now, "expires", "expired")),
        ("params", _json(info.params) if info.params is not None else None),
        ("headers", _json(info.headers) if info.headers else None),
        ("attempts", "\n".join(attempt_lines(info.attempts_made)) if len(info.attempts_made) > 1 else None),
        ("result", _json(info.result) if info.result is not None else None),
        ("failure", None if info.failure is None else f"{info.failure.type}: {info.failure.message}"),
        ("traceback", None if info.failure is None else info.failure.traceback),
    ]
    for label, text in facts:
        if text is not None:
            first, *others = text.strip().expandtabs(4).split("\n")
            say(f"{label:<10}{first}")
            for line in others:
                say(f"{'':<10}{line}".rstrip())


def _times(info: TaskInfo) -> list[tuple[str, float | None]]:
    return [("spawned", info.spawned_at), ("due", info.due_at), ("begun", info.started_at), ("ended", info.ended_at)]


def _instant(when: float | None, now: float, coming: str = "", gone: str = "") -> str | None:
    if when is None:
        return None
    near = f"in {span(when - now)}" if when > now else _ago(when, now)
    return f"{coming if when > now else gone} {clock(_ms(when))}, {near}".strip()


def _json(value: Any) -> str:
    text = visible_json(value)
    return text if len(text) <= LONG else visible_json(value, indent=2)


def spawn_task(where: Where, name: str, params: Sequence[str], headers: Sequence[str], as_json: bool, **options: Any) -> None:
    """Put a task into its queue."""
    given = _params(name, params)
    task = NewTask.declare(name, given, {**options, "headers": dict(map(_header, headers))})  # type: ignore[typeddict-item]

    async def question(lb: Lockbeat) -> tuple[Spawned, list[Instance]]:
        return (await lb.tasks.spawn_many([task]))[0], await instances(lb.store)

    spawned, living = where.ask(question)
    serving = [instance for instance in living if task.queue in instance.queues]
    if not spawned.created:
        pass  # it may have ended long ago
    elif not serving:
        complain(f"no instance serves queue {task.queue!r}")
    elif not any(task.name in instance.tasks or len(instance.tasks) >= MOST_FUNCTIONS for instance in serving):
        complain(f"no instance that serves queue {task.queue!r} has a task {task.name!r}")
    if as_json:
        say_json({"task_id": spawned.task_id, "attempt": spawned.attempt, "created": spawned.created})
    elif spawned.created:
        say(f"spawned {spawned.task_id}")
    else:
        say(f"{spawned.task_id} was there already, by the same key; it is at attempt {spawned.attempt}")


def _params(name: str, words: Sequence[str]) -> Any:
    """The params as JSON. The shell takes text apart that is not quoted: several words are that mistake."""
    if not words:
        return None
    text = sys.stdin.read() if list(words) == ["-"] else " ".join(words)
    try:
        if len(words) > 1:
            raise ValueError("several arguments")
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        said = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        shown = visible(text if len(text) <= LONG else f"{text[:LONG]}...")
        example = f'lockbeat spawn {shlex.quote(visible(name))} \'{{"to": "ann"}}\''
        raise Usage(f"PARAMS: {shown} is not JSON ({said}); quote it for the shell: {example}") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _header(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Usage(f"--header: {visible(text)!r} must be KEY=VALUE")
    return key, value


def cancel_task(where: Where, task_id: str) -> None:
    """End a task that has not ended."""

    async def question(lb: Lockbeat) -> TaskInfo | None:
        return None if await lb.tasks.cancel(task_id) else await lb.tasks.get(task_id)

    info = where.ask(question)
    if info is not None:
        raise Problem(f"{task_id} had ended: {info.state}")
    say(f"cancelled {task_id}")


def retry_task(where: Where, task_id: str, attempts: int) -> None:
    """Let a dead task be tried again."""

    async def question(lb: Lockbeat) -> TaskInfo | None:
        return None if await lb.tasks.retry(task_id, attempts=attempts) else await lb.tasks.get(task_id)

    info = where.ask(question)
    if info is not None and info.state == "dead":  # of a slot, and purged, or of longer ago than a week
        raise Problem(f"{task_id} can't be tried again: only the ledger still knows of it")
    if info is not None:
        raise Problem(f"{task_id} is not dead but {info.state}")
    say(f"{task_id} waits again, for up to {several(attempts, 'attempt')}")


def redrive(where: Where, queue: str, limit: int | None, as_json: bool) -> None:
    """Let the dead tasks of a queue be tried again."""

    async def question(lb: Lockbeat) -> tuple[int, Overview | None]:
        count = await lb.tasks.redrive(queue, limit)
        return count, None if count else await overview(lb.store)

    count, seen = where.ask(question)
    if as_json:
        say_json({"queue": queue, "redriven": count})
    elif seen is None:
        say(f"{several(count, 'dead task')} of queue {visible(queue)} wait{'s' * (count == 1)} again, with all attempts")
    else:
        others = ", ".join(f"{visible(load.queue)} has {load.dead}" for load in seen.queues if load.dead)
        say(f"no dead tasks in queue {visible(queue)}{f'; {others}' if others else ''}")


def purge(where: Where, queue: str, state_name: str | None, yes: bool, as_json: bool) -> None:
    """Forget the tasks of a queue that have ended, once somebody said yes."""
    state: EndState | None = _check_state(state_name, get_args(EndState))
    if not yes:
        _make_sure(where, queue, state)

    async def question(lb: Lockbeat) -> int:
        return await lb.tasks.purge(queue, state=state)

    count = where.ask(question)
    if as_json:
        say_json({"queue": queue, "state": state, "purged": count})
    else:
        say(f"forgot {several(count, f'{state} task' if state else 'ended task')} of queue {visible(queue)}")


def _make_sure(where: Where, queue: str, state: EndState | None) -> None:
    if not sys.stdin.isatty():
        raise Usage("purge forgets tasks for good; say --yes where there is no terminal to ask on")

    async def question(lb: Lockbeat) -> int:
        return (await lb.tasks.counts(queue)).dead

    dead = where.ask(question) if state in (None, "dead") else 0
    which = f"that are {state}" if state else "that are done, dead or cancelled"
    warning = (
        f" {'It is' if dead == 1 else 'They are'} {dead}." if state else f" {dead} of them {'is' if dead == 1 else 'are'} dead."
    )
    asked = f"Forget the tasks of queue {visible(queue)} {which}?{warning if dead else ''}"
    if not typer.confirm(asked, err=True):
        raise Problem("nothing was forgotten")
