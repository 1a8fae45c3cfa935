"""locks, unlock, release-all, instances: who holds what, and who lives."""

from __future__ import annotations

import sys

import typer

from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import Cell, complain, iso, say, say_json, several, show
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.leases.lease import Lease
from lockbeat.monitor import SILENT, Instance, instances
from lockbeat.store.keys import job_lock
from lockbeat.values.durations import span
from lockbeat.values.visible import visible

MOST_RUNNING = 1000
"""Tasks among which that of an attempt is looked for."""


def list_locks(where: Where, owner: str | None, as_json: bool) -> None:
    """The live locks, of one owner or of all."""

    async def question(lb: Lockbeat) -> tuple[list[Lease], float]:
        return await lb.locks.list(owner), await lb.store.server_time()

    leases, now = where.ask(question)
    if as_json:
        say_json(
            [
                {
                    "key": lease.key,
                    "owner": lease.owner,
                    "fence": lease.fence,
                    "expires_at": iso(round(lease.expires_at * 1000)),
                    "expires_in": round(lease.expires_at - now, 3),
                }
                for lease in leases
            ]
        )
        return
    if not leases:
        say("no locks are held" if owner is None else f"{owner} holds no locks")
        return
    rows: list[list[Cell]] = [
        [(lease.key, "bold"), lease.owner, str(lease.fence), span(lease.expires_at - now)] for lease in leases
    ]
    show(("KEY", "OWNER", "FENCE", "EXPIRES IN"), rows)


def release_all(where: Where, owner: str, as_json: bool) -> None:
    """Give back all that an owner holds."""

    async def question(lb: Lockbeat) -> tuple[int, int, int]:
        # Locks first: once its task is free, an owner that lives may have begun the next attempt, under a new lock.
        locks = await lb.locks.release_all(owner)
        return locks, await lb.tasks.release_all(owner), await lb.claims.release_all(owner)

    locks, tasks, claims = where.ask(question)
    if as_json:
        say_json({"owner": owner, "tasks": tasks, "locks": locks, "claims": claims})
    elif not locks and not tasks and not claims:
        say(f"{owner} held nothing")
    else:
        said = f"{several(locks, 'lock')}, {several(tasks, 'task')} and {several(claims, 'claim')}"
        say(f"released {said} of {owner}")


def unlock(where: Where, key: str, yes: bool, as_json: bool) -> None:
    """Give back one lock, whoever holds it, once somebody said yes."""

    job = key.removeprefix(job_lock("")) if key.startswith(job_lock("")) else None

    async def look(lb: Lockbeat) -> tuple[Lease | None, str | None, float]:
        lease, task = await lb.locks.holder(key), None
        if lease is not None and job is not None:
            running = await lb.tasks.list(state="running", limit=MOST_RUNNING)
            task = next((info.id for info in running if info.name == job and info.fence == lease.fence), None)
        return lease, task, await lb.store.server_time()

    lease, task, now = where.ask(look)
    if lease is None:
        raise Problem(f"nobody holds {key!r}")
    if task is not None:
        raise _of_an_attempt(lease, task)
    held = f"{key!r} is held by {lease.owner}, with fence {lease.fence}, for another {span(lease.expires_at - now)}"
    if not yes:
        if not sys.stdin.isatty():
            raise Usage(f"{held}; say --yes where there is no terminal to ask on")
        fires = "" if job is None else f"; the slots of job {job} are skipped no more"
        if not typer.confirm(visible(f"{held}. Its holder goes on until it next renews{fires}. Give it back?"), err=True):
            raise Problem("nothing was given back")

    async def give_back(lb: Lockbeat) -> tuple[bool, Lease | None]:
        return await lb.locks.unlock(lease), await lb.locks.holder(key)

    given_back, still = where.ask(give_back)
    if still is not None and still.fence == lease.fence:
        raise _of_an_attempt(lease, None)
    if not given_back:
        raise Problem(f"{key!r} is not held by {lease.owner} with fence {lease.fence} any more; nothing was given back")
    if as_json:
        say_json({"key": key, "owner": lease.owner, "fence": lease.fence})
    else:
        say(f"gave back {key}, which {lease.owner} held with fence {lease.fence}")


def _of_an_attempt(lease: Lease, task: str | None) -> Problem:
    """Such a lease is no lock to give back: the attempt would go on, and its task with it."""
    ends = f"lockbeat cancel {task} ends it" if task else "it is given back when that has stopped"
    gone = f"if that instance is gone, lockbeat release-all {lease.owner} takes it back"
    return Problem(f"{lease.key!r} is held by {lease.owner} for an attempt of its job: {ends}; {gone}")


def list_instances(where: Where, as_json: bool) -> None:
    """The instances that live."""

    async def question(lb: Lockbeat) -> tuple[list[Instance], float]:
        return await instances(lb.store), await lb.store.server_time()

    found, now = where.ask(question)
    if as_json:
        say_json(
            [
                {
                    "owner": instance.owner,
                    "host": instance.host,
                    "pid": instance.pid,
                    "schedules": instance.schedules,
                    "queues": list(instance.queues),
                    "jobs": instance.jobs,
                    "concurrency": instance.concurrency,
                    "seen_at": iso(instance.seen_ms),
                    "stuck_s": instance.stuck,
                    "gave_up": instance.gave_up,
                    "tzdata": instance.tzdata,
                }
                for instance in found
            ]
        )
        return
    if not found:
        say(f"no instance lives in namespace {where.namespace}")
        return
    rows: list[list[Cell]] = [
        [
            (instance.owner, "bold"),
            instance.host or "-",
            str(instance.pid or "-"),
            "yes" if instance.schedules else "no",
            " ".join(instance.queues) or "-",
            str(instance.jobs if instance.jobs is not None else "-"),
            instance.tzdata or "-",
            heard(instance, now),
            f"{span(max(now - instance.seen_ms / 1000, 0))} ago",
        ]
        for instance in found
    ]
    columns = ("OWNER", "HOST", "PID", "SCHEDULES", "QUEUES", "JOBS", "TZDATA", "STATE", "SEEN")
    show(columns, rows, spare=("TZDATA", "SEEN", "HOST", "PID", "JOBS"))
    versions = sorted({instance.tzdata for instance in found if instance.tzdata})
    if len(versions) > 1:
        complain(f"the instances reckon by different rules of the time zones: tzdata {', '.join(versions)}")


def heard(instance: Instance, now: float) -> Cell:
    """What its last sign of life says of an instance at `now`, in seconds since the Unix epoch."""
    ago = now - instance.seen_ms / 1000
    if instance.stuck is not None:
        gave_up = ", gave its leases up" if instance.gave_up else ""
        return f"stuck {span(instance.stuck + max(ago, 0))}{gave_up}", "red bold"
    return ("alive", "green") if ago <= SILENT else (f"silent {span(ago)}", "yellow")
