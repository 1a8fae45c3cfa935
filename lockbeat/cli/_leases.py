"""locks, release-all, instances: who holds what, and who lives."""

from __future__ import annotations

from lockbeat.cli._output import Cell, iso, say, say_json, several, show, span
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.lease import Lease
from lockbeat.monitor import SILENT, Instance, instances


def list_locks(where: Where, owner: str | None, as_json: bool) -> None:
    """The live locks, of one owner or of all."""

    async def question(lb: Lockbeat) -> tuple[list[Lease], float]:
        return await lb.locks.list(owner), await lb.store.server_time()

    leases, now = where.ask(question)
    if as_json:
        say_json(
            [
                {
                    "lock": lease.key,
                    "owner": lease.owner,
                    "fence": lease.fence,
                    "expires": iso(round(lease.expires_at * 1000)),
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
    show(("LOCK", "OWNER", "FENCE", "EXPIRES IN"), rows)


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
                    "seen": iso(instance.seen_ms),
                }
                for instance in found
            ]
        )
        return
    if not found:
        say("no instance lives")
        return
    rows: list[list[Cell]] = [
        [
            (instance.owner, "bold"),
            instance.host or "-",
            str(instance.pid or "-"),
            "yes" if instance.schedules else "no",
            " ".join(instance.queues) or "-",
            str(instance.jobs if instance.jobs is not None else "-"),
            heard(now - instance.seen_ms / 1000),
            f"{span(max(now - instance.seen_ms / 1000, 0))} ago",
        ]
        for instance in found
    ]
    columns = ("OWNER", "HOST", "PID", "SCHEDULES", "QUEUES", "JOBS", "STATE", "SEEN")
    show(columns, rows, spare=("SEEN", "HOST", "PID", "JOBS"))


def heard(ago: float) -> Cell:
    """What its last sign of life, so many seconds ago, says of an instance."""
    return ("alive", "green") if ago <= SILENT else (f"silent {span(ago)}", "yellow")
