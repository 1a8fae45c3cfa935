"""locks, unlock, release-all, instances: who holds what, and who lives."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from lockbeat.cli._command import LOOK, Owner, Yes, command, make_sure
from lockbeat.cli._errors import Problem
from lockbeat.cli._output import Answer, Cell, Table, ago, fields, several, styled
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.leases.lease import Lease
from lockbeat.monitor import SILENT, Instance
from lockbeat.monitor import instances as living
from lockbeat.store.keys import job_lock
from lockbeat.values.durations import span

MOST_RUNNING = 1000
"""Tasks among which that of an attempt is looked for."""
INSTANCE = "owner host pid schedules queues jobs concurrency seen_at stuck_s gave_up tzdata version"


@command(LOOK)
async def locks(
    lb: Lockbeat,
    owner: Annotated[str | None, typer.Option(metavar="OWNER", help="Only of this owner.")] = None,
) -> Answer:
    """List the locks that are held: owner, fence, expiry."""
    leases, now = await lb.locks.list(owner), await lb.store.server_time()
    rows: list[dict[str, Cell]] = [
        {
            "KEY": (lease.key, "bold"),
            "OWNER": lease.owner,
            "FENCE": str(lease.fence),
            "EXPIRES IN": span(lease.expires_at - now),
        }
        for lease in leases
    ]
    return Answer(
        [fields(lease) | {"expires_in": round(lease.expires_at - now, 3)} for lease in leases],
        Table(rows, none="no locks are held" if owner is None else f"{owner} holds no locks"),
    )


@command(LOOK)
def unlock(
    where: Where,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the lock, as `locks` shows it.")],
    yes: Yes = False,
) -> Answer:
    """Give back one lock, whoever holds it.

    Says who does and asks first, unless --yes. For one that is gone; a holder that lives learns of it when it next renews.
    """
    job = name.removeprefix(job_lock("")) if name.startswith(job_lock("")) else None

    async def look(lb: Lockbeat) -> tuple[Lease, float]:
        lease = await lb.locks.holder(name)
        if lease is None:
            raise Problem(f"nobody holds {name!r}")
        for task in await lb.tasks.list(state="running", limit=MOST_RUNNING) if job is not None else ():
            if (task.job, task.fence) == (job, lease.fence):
                raise _of_an_attempt(lease, f"lockbeat cancel {shlex.quote(task.id)} ends it")
        return lease, await lb.store.server_time()

    lease, now = where.ask(look)
    held = f"{name!r} is held by {lease.owner}, with fence {lease.fence}, for another {span(lease.expires_at - now)}"
    fires = "" if job is None else f"; the slots of job {job} are skipped no more"
    question = f"{held}. Its holder goes on until it next renews{fires}. Give it back?"
    make_sure(yes, question, "nothing was given back", without_terminal=held)

    async def give_back(lb: Lockbeat) -> None:
        given_back, still = await lb.locks.unlock(lease), await lb.locks.holder(name)
        if still is not None and still.fence == lease.fence:
            raise _of_an_attempt(lease, "it is given back when that has stopped")
        if not given_back:
            raise Problem(f"{name!r} is not held by {lease.owner} with fence {lease.fence} any more; nothing was given back")

    where.ask(give_back)
    return Answer(fields(lease, "key owner fence"), f"gave back {name}, which {lease.owner} held with fence {lease.fence}")


def _of_an_attempt(lease: Lease, ends: str) -> Problem:
    """Such a lease is no lock to give back: the attempt would go on, and its task with it."""
    gone = f"if that instance is gone, lockbeat release-all {shlex.quote(lease.owner)} takes it back"
    return Problem(f"{lease.key!r} is held by {lease.owner} for an attempt of its job: {ends}; {gone}")


@command(LOOK)
async def release_all(lb: Lockbeat, owner: Owner) -> Answer:
    """Take back all locks, tasks and claims of an owner.

    For one that is gone; what an instance that lives is running is cut short.
    """
    # Locks first: once its task is free, an owner that lives may have begun the next attempt, under a new lock.
    locks, tasks = await lb.locks.release_all(owner), await lb.tasks.release_all(owner)
    claims = await lb.claims.release_all(owner)
    said = f"released {several(locks, 'lock')}, {several(tasks, 'task')} and {several(claims, 'claim')} of {owner}"
    return Answer(
        {"owner": owner, "tasks": tasks, "locks": locks, "claims": claims},
        said if locks or tasks or claims else f"{owner} held nothing",
    )


@command(LOOK)
async def instances(lb: Lockbeat) -> Answer:
    """List the instances that live."""
    found, now = await living(lb.store), await lb.store.server_time()
    rows: list[dict[str, Cell]] = [
        {
            "OWNER": (instance.owner, "bold"),
            "HOST": instance.host or "-",
            "PID": str(instance.pid or "-"),
            "SCHEDULES": "yes" if instance.schedules else "no",
            "QUEUES": " ".join(instance.queues) or "-",
            "JOBS": str(instance.jobs if instance.jobs is not None else "-"),
            "VERSION": instance.version or "-",
            "TZDATA": instance.tzdata or "-",
            "STATE": heard(instance, now),
            "SEEN": ago(instance.seen_at, now),
        }
        for instance in found
    ]
    versions = sorted({instance.tzdata for instance in found if instance.tzdata})
    return Answer(
        [fields(instance, INSTANCE) for instance in found],
        Table(
            rows,
            none=f"no instance lives in namespace {lb.store.keys.namespace}",
            spare=("TZDATA", "SEEN", "HOST", "VERSION", "PID", "JOBS"),
        ),
        f"the instances reckon by different rules of the time zones: tzdata {', '.join(versions)}" if len(versions) > 1 else "",
    )


def heard(instance: Instance, now: float) -> Cell:
    """What its last sign of life says of an instance at `now`, in seconds since the Unix epoch."""
    silent = max(now - instance.seen_at, 0)
    if instance.stuck_s is not None:
        gave_up = ", gave its leases up" if instance.gave_up else ""
        return f"stuck {span(instance.stuck_s + silent)}{gave_up}", "red bold"
    return styled("alive") if silent <= SILENT else (f"silent {span(silent)}", "yellow")
