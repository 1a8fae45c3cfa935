"""What the page changes: each by a POST of its own, with the user's name in the job's log of changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from lockbeat.errors import InvalidArgument, TaskError
from lockbeat.jobs.control import MOST_WORDS
from lockbeat.monitor import each_task
from lockbeat.store import results
from lockbeat.store.keys import job_of_task, slot_of_task
from lockbeat.tasks.look import none_again
from lockbeat.triggers import isoformat
from lockbeat.values.durations import instant, read_span
from lockbeat.web.guard import ACTIONS
from lockbeat.web.look import Look, number
from lockbeat.web.pages.backfill import check_many, when
from lockbeat.web.pages.dead import groups
from lockbeat.web.pages.job import MOMENT
from lockbeat.web.render import plural

Form = Mapping[str, str]


class Done(NamedTuple):
    """What was done, and which page shows it."""

    said: str
    where: str


@dataclass(frozen=True)
class Action:
    """One way to change something."""

    name: str
    """One of ACTIONS, as `allow` is asked for it."""
    names: str
    """The field of the form that says what is changed, as `allow` is told it."""
    do: Callable[[Look, Form], Awaitable[Done]]
    also: tuple[tuple[str, str], ...] = ()
    """What else it does: one of ACTIONS, and the field that says what to. `allow` is asked for each before anything is done."""


def _words(form: Form) -> dict[str, Any]:
    """Why somebody does it; empty: they don't say."""
    reason = form.get("reason", "").strip()
    if len(reason.encode()) > MOST_WORDS:
        raise InvalidArgument("reason", f"must be at most {MOST_WORDS} bytes")
    return {"reason": reason or None}


def _name(form: Form, field: str) -> str:
    if not (said := form.get(field, "")):
        raise InvalidArgument(field, "must be given")
    return said


def _job(look: Look, form: Form) -> str:
    return look.asked.url("job", name=form.get("name"))


async def pause(look: Look, form: Form) -> Done:
    name, until = _name(form, "name"), None
    if length := form.get("for", "").strip():
        seconds = read_span("for", length)
        if not 0 < seconds <= 366 * 86_400:
            raise InvalidArgument("for", "must be more than nothing, and at most a year")
        until = instant(round(await look.now() * 1000)) + timedelta(seconds=seconds)
    done = await look.lb.jobs.pause(name, until=until, by=look.asked.user, **_words(form))
    return Done(f"{name} is paused" if done else f"{name} was paused before: it is now for your reason", _job(look, form))


async def resume(look: Look, form: Form) -> Done:
    name = _name(form, "name")
    catchup: Any = form.get("catchup") or None  # it is checked there
    resumed = await look.lb.jobs.resume(name, catchup, by=look.asked.user, **_words(form))
    return Done(f"{name} is resumed" if resumed else f"{name} was not paused", _job(look, form))


async def trigger(look: Look, form: Form) -> Done:
    name = _name(form, "name")
    overlap: Any = "allow" if form.get("beside") == "yes" else None
    spawned = await look.lb.jobs.trigger(name, overlap=overlap, by=look.asked.user, **_words(form))
    if not spawned.created:
        return Done(f"{name} is at it already: {spawned.task_id} has not ended", _job(look, form))
    return Done(f"{name} is triggered", look.asked.url("job", name=name, run=spawned.task_id))


async def skip_next(look: Look, form: Form) -> Done:
    name, n = _name(form, "name"), number("n", form.get("n"), 1, 1000) or 1
    last = await look.lb.jobs.skip_next(name, n, by=look.asked.user, **_words(form))
    return Done(f"{name} skips up to {last:%Y-%m-%d %H:%M:%S} UTC", _job(look, form))


async def backfill(look: Look, form: Form) -> Done:
    name, start, end = _name(form, "name"), when("start", dict(form)), when("end", dict(form))
    if start is None:
        raise InvalidArgument("start", "must be given")
    state = await look.lb.jobs.get(name)
    check_many(state.job, start, end or instant(round(await look.now() * 1000)))
    said = form.get("rate", "").strip()
    try:
        rate = float(said) if said else None
    except ValueError:
        raise InvalidArgument("rate", f"must be slots a second, not {said[:40]!r}") from None
    begun = await look.lb.jobs.backfill(
        name, start, end, rate=rate, confirm=True, unknown=form.get("unknown") == "yes", by=look.asked.user, **_words(form)
    )
    if begun.total == 1 and begun.end - begun.start == MOMENT:
        slot_ms = round(begun.start.timestamp() * 1000)
        return Done(f"{isoformat(slot_ms)} of {name} runs after all", look.asked.url("job", name=name, slot=slot_ms))
    return Done(f"a backfill of {name} has begun: {plural(begun.total, 'slot')}", _job(look, form))


async def instead(look: Look, form: Form) -> Done:
    """End a run, and backfill the slots that were skipped for it. The run is told to stop; these wait in line until it has.

    What ends a run can't be undone, so the backfill is begun first: where that is refused, the run goes on.
    """
    name, task_id = _name(form, "name"), _name(form, "id")
    if job_of_task(task_id) != name:
        raise InvalidArgument("id", f"{task_id[:200]!r} is no run of {name!r}")
    await look.lb.tasks.get(task_id)
    await backfill(look, form)
    ended = await look.lb.tasks.cancel(task_id, by=look.asked.user)
    start = when("start", dict(form))
    where = look.asked.url("job", name=name, slot=None if start is None else round(start.timestamp() * 1000))
    run, slot = _named(task_id), "this" if start is None else isoformat(round(start.timestamp() * 1000))
    said = f"{run} is told to stop; {slot} runs when it has" if ended else f"{run} had ended; {slot} runs next"
    return Done(said, where)


def _named(task_id: str) -> str:
    """A run of a job by its slot, which the page puts into the reader's zone; a triggered one has none."""
    slot_ms = slot_of_task(task_id)
    return "the triggered run" if slot_ms is None else isoformat(slot_ms)


async def pause_backfill(look: Look, form: Form) -> Done:
    await look.lb.jobs.pause_backfill(_name(form, "name"), by=look.asked.user, **_words(form))
    return Done("the backfill is paused", _job(look, form))


async def resume_backfill(look: Look, form: Form) -> Done:
    await look.lb.jobs.resume_backfill(_name(form, "name"), by=look.asked.user, **_words(form))
    return Done("the backfill goes on", _job(look, form))


async def cancel_backfill(look: Look, form: Form) -> Done:
    await look.lb.jobs.cancel_backfill(_name(form, "name"), by=look.asked.user, **_words(form))
    return Done("the backfill is cancelled", _job(look, form))


async def retry(look: Look, form: Form) -> Done:
    task_id = _name(form, "id")
    done = await look.lb.tasks.retry(task_id, cancelled=True, by=look.asked.user)
    said = "it is tried again" if done else "it can't be tried again: it runs, is done, or ended too long ago"
    return Done(said, _task(look, task_id))


async def cancel(look: Look, form: Form) -> Done:
    task_id = _name(form, "id")
    done = await look.lb.tasks.cancel(task_id, by=look.asked.user)
    said = "it is cancelled, and runs no more unless somebody tries it again" if done else "it had ended"
    return Done(said, _task(look, task_id))


def _task(look: Look, task_id: str) -> str:
    if (slot_ms := slot_of_task(task_id)) is not None:
        return look.asked.url("job", name=job_of_task(task_id), slot=slot_ms)
    return look.asked.url("task", id=task_id)


async def redrive(look: Look, form: Form) -> Done:
    ids, more = await _dead(look, form)
    said = await each_task(look.lb.store, "task/retry", ids, attempts=0, delay_ms=0, by=look.asked.user, cancelled=0)
    done, called = said[results.DONE], said[results.CALLED]
    if called and not done:
        raise TaskError(none_again(form["queue"], called))
    stay = f"; {called} stay dead, which lockbeat exec ran: call the command" if called else ""
    return Done(f"{done} are tried again{stay}{more}", look.asked.url("dead", queue=form.get("shown")))


async def purge(look: Look, form: Form) -> Done:
    ids, more = await _dead(look, form)
    said = await each_task(look.lb.store, "task/purge", ids, state="dead")
    return Done(f"{said[results.DONE]} are forgotten{more}", look.asked.url("dead", queue=form.get("shown")))


async def _dead(look: Look, form: Form) -> tuple[list[str], str]:
    """The ids of a group of dead tasks, of those that one page looks at; and that there may be more."""
    queue, function, error = _name(form, "queue"), form.get("function", ""), form.get("error", "")
    found, _, complete = await groups(look, queue)
    ids = [info.id for group in found if function in ("", group.function) and error in ("", group.error) for info in group.tasks]
    return ids, "" if complete else ", and there are more"


PATHS: dict[str, Action] = {
    "/job/pause": Action("pause", "name", pause),
    "/job/resume": Action("resume", "name", resume),
    "/job/trigger": Action("trigger", "name", trigger),
    "/job/skip": Action("skip_next", "name", skip_next),
    "/backfill/start": Action("backfill", "name", backfill),
    "/backfill/instead": Action("cancel", "id", instead, also=(("backfill", "name"),)),
    "/backfill/pause": Action("pause_backfill", "name", pause_backfill),
    "/backfill/resume": Action("resume_backfill", "name", resume_backfill),
    "/backfill/cancel": Action("cancel_backfill", "name", cancel_backfill),
    "/task/retry": Action("retry", "id", retry),
    "/task/cancel": Action("cancel", "id", cancel),
    "/dead/redrive": Action("redrive", "queue", redrive),
    "/dead/purge": Action("purge", "queue", purge),
}
"""By the path that is posted to."""
assert {action.name for action in PATHS.values()} == {*ACTIONS}
