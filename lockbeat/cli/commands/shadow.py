"""shadow: on which slots a shadow of `lockbeat.celery` and the beat beside it disagree."""

from __future__ import annotations

from typing import Annotated

import typer

from lockbeat.cli._command import LOOK, command
from lockbeat.cli._entries import ago_or_at, instant_at
from lockbeat.cli._errors import Problem
from lockbeat.cli._output import Answer, Cell, Table, clock, iso
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.jobs import LedgerEntry
from lockbeat.triggers import Every

DIFFER = 3
"""Exit code."""


@command(LOOK)
def shadow(
    where: Where,
    since: Annotated[str, typer.Option(metavar="WHEN", help="24h, 7d: so long ago; or a time.", parser=ago_or_at)] = "24h",
    settle: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, max=3600, help="Judge slots that are so old: the other beat may be late.")
    ] = 15,
) -> Answer:
    """Show where a Celery beat and its shadow disagree.

    The shadow is `celery beat -S lockbeat.celery:Shadow`, beside the beat that you have. Exit code 3 if they disagree, 1 if
    there is nothing to compare.
    """
    try:
        from lockbeat.celery import shadow as of_celery
    except ImportError as problem:
        raise Problem(str(problem)) from None

    async def ask(lb: Lockbeat) -> of_celery.Comparison:
        now = await lb.store.server_time()
        begin, after, entries = instant_at(since, now), None, list[LedgerEntry]()
        for _ in range(of_celery.MOST // of_celery.PAGE):
            page = await lb.jobs.history(begin, limit=of_celery.PAGE, after=after)
            entries += page.entries
            if (after := page.more) is None:
                break
        phased = {state.job.name for state in await lb.jobs.list() if isinstance(state.job.trigger, Every)}
        return of_celery.compare(entries, round(now * 1000), phased=phased, settle_ms=round(settle * 1000))

    found = Where(where.url, of_celery.shadowed(where.namespace)).ask(ask)
    if not found.slots:
        why = "no slot has been compared yet" if found.messages else "the other beat has sent nothing that a witness told of"
        raise Problem(f"nothing to compare: {why}; see docs/celery.md")
    rows: list[dict[str, Cell]] = [
        {"WHEN": clock(each.at), "ENTRY": (each.job, "bold"), "WHAT": each.what} for each in found.disagreements
    ]
    said = f"{found.slots} slots compared, {len(rows)} disagreements"
    told = [{"at": iso(each.at), "job": each.job, "sent": each.sent, "slot": each.is_slot} for each in found.disagreements]
    document = {"slots": found.slots, "messages": found.messages, "disagreements": told}
    return Answer(document, [*([Table(rows, "")] if rows else []), said], code=DIFFER if rows else 0)
